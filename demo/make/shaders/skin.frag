void main() {
    vec3 v = normalize(eye - position), n0 = normalize(normal);
    float lips = smoothstep(0.25, 0.75, mask.x + 0.18 * (fbm(rest * 1.7) - 0.5)), blush = mask.y, scalp = mask.z, inner = mask.w;
    float mottle = fbm(rest * 0.55), fine = fbm(rest * 3.1), pores = texture(noise, rest * 7.0).g;

    // Creases of the lips run from the mouth outwards: noise stretched along y and z.
    float creases = texture(noise, vec3(rest.x * 3.4, rest.y * 0.35, rest.z * 0.35)).r;
    float height = mix(0.0007 * pores + 0.0017 * fine, 0.0042 * creases, lips);
    vec3 n = bumped(n0, height);

    vec3 albedo = mix(vec3(0.578, 0.327, 0.221), vec3(0.606, 0.356, 0.246), smoothstep(0.3, 0.7, mottle));
    albedo *= 0.955 + 0.09 * fine;
    albedo = mix(albedo, vec3(0.600, 0.215, 0.155), 0.50 * clamp(blush, 0.0, 1.0));
    float freckle = smoothstep(0.735, 0.80, texture(noise, rest * 2.9 + 0.21).b) * clamp(blush * 1.6, 0.0, 1.0);
    albedo *= 1.0 - vec3(0.06, 0.11, 0.13) * freckle;
    vec3 lip = vec3(0.450, 0.125, 0.115) * (0.90 + 0.22 * creases);
    albedo = mix(albedo, lip, 0.82 * lips);
    albedo = mix(albedo, vec3(0.32, 0.075, 0.07), inner);
    albedo = mix(albedo, vec3(0.040, 0.022, 0.014), smoothstep(0.25, 0.85, scalp));

    float oil = mix(0.60, 0.52, clamp(blush, 0.0, 1.0)) + 0.10 * (fine - 0.5);
    float rough = mix(oil, 0.30, lips);
    vec3 spec = 0.85 * shine(n, v, rough, 0.028) + 0.14 * shine(n, v, rough * 0.62, 0.028) * (1.0 + 3.0 * lips);
    spec *= (1.0 - smoothstep(0.2, 0.7, scalp)) * mix(1.0, 0.5, inner);
    emit(relit(n0, n) * mix(0.35, 1.0, smoothstep(0.0, 0.22, seen.w)), 1.0 - 0.6 * inner, albedo, spec);
}
