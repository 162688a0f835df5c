// mask: tooth, gum, tongue, lower jaw
void main() {
    vec3 v = normalize(eye - position), n0 = normalize(normal);
    float fine = fbm(rest * 2.3);
    vec3 tooth = vec3(0.64, 0.59, 0.50) * (0.97 + 0.06 * fine);
    vec3 gum = vec3(0.52, 0.19, 0.17), tongue = vec3(0.50, 0.17, 0.16) * (0.85 + 0.3 * fine);
    vec3 albedo = (tooth * mask.x + gum * mask.y + tongue * mask.z) / max(mask.x + mask.y + mask.z, 1e-3);
    vec3 n = bumped(n0, 0.006 * fine * mask.z + 0.001 * fine);
    float wet = mix(0.28, 0.36, mask.z);
    // The further back, the less light that the few rays overestimate.
    float deep = smoothstep(0.75, 1.12, rest.z);
    emit(relit(n0, n) * mix(0.35, 1.0, deep), 0.5, albedo, 0.7 * shine(n, v, wet, 0.035) * mix(0.2, 1.0, deep));
}
