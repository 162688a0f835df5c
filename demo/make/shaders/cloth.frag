// mask: collar, angle around the neck, row of the collar
void main() {
    vec3 v = normalize(eye - position), n0 = normalize(normal);
    float collar = step(0.5, mask.x);
    if (collar < 0.5 && mask.w > 0.0) discard;  // above the collar's plane
    // Stocking stitch: columns of slanted loops; the collar is ribbed along its section.
    vec2 k = rest.xy / vec2(0.042, 0.034);
    float column = fract(k.x) - 0.5;
    float loop_ = fract(k.y + abs(column) * 1.1);
    float stitch = (1.0 - 4.0 * column * column) * 0.5 + 0.5 * sin(loop_ * 3.14159);
    float rib = 0.5 + 0.5 * cos(mask.y * 96.0);
    float fuzz = fbm(rest * 5.0);
    float height = mix(0.0060 * stitch + 0.004 * fuzz, 0.012 * rib + 0.003 * fuzz, collar);
    // Soft folds that run from the arms to the neck.
    vec3 drape = vec3(rest.x * 0.10 + (rest.y - 5.0) * 0.13 * clamp(rest.x * 0.8, -1.0, 1.0), rest.y * 0.05 - rest.x * rest.x * 0.02, rest.z * 0.06);
    float fold = texture(noise, drape * 0.8 + 0.13).r + 0.5 * texture(noise, drape * 1.7 + 0.5).a;
    height += 0.38 * fold * (1.0 - collar);
    vec3 n = bumped(n0, height);
    vec3 yarn = mix(vec3(0.050, 0.115, 0.135), vec3(0.075, 0.160, 0.180), fbm(rest * 0.7));
    float deep = mix(0.62 + 0.38 * stitch, 0.55 + 0.45 * rib, collar);
    vec3 albedo = yarn * deep * (0.85 + 0.3 * fuzz);
    float edge = pow(1.0 - max(dot(n0, v), 0.0), 3.0);
    vec3 sheen = vec3(0.10, 0.14, 0.15) * edge * max(irradiance, 0.0);
    emit(relit(n0, n), 0.0, albedo, sheen + 0.15 * shine(n, v, 0.75, 0.03));
}
