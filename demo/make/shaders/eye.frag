// A ball with a flat iris seen through a cornea. `rest` is the unit ball, +z the gaze.
uniform mat3 to_eye;  // world to eye, one for both

vec3 room(vec3 d) {  // what the cornea mirrors: a soft box, a window, a dim room
    vec3 k = normalize(light_direction[0]);
    vec3 x = normalize(cross(vec3(0.0, 1.0, 0.0), k)), y = cross(k, x);
    vec2 p = vec2(dot(d, x), dot(d, y)) / max(dot(d, k), 1e-3);
    vec2 e = smoothstep(vec2(0.30, 0.36), vec2(0.24, 0.30), abs(p));
    vec3 c = vec3(26.0, 25.0, 23.5) * e.x * e.y * step(0.0, dot(d, k));
    vec3 f = normalize(light_direction[3]);
    c += vec3(0.55, 0.65, 0.80) * smoothstep(0.90, 0.97, dot(d, f));
    return c + mix(vec3(0.05, 0.045, 0.04), vec3(0.30, 0.32, 0.35), smoothstep(-0.3, 0.9, d.y));
}

void main() {
    vec3 p = normalize(rest), v = to_eye * normalize(eye - position);
    const float rim = 0.48;
    float r = length(p.xy);
    bool front = p.z > 0.0;
    float cornea = front ? smoothstep(rim + 0.05, rim - 0.06, r) : 0.0;
    vec3 n = normalize(mix(p, normalize(p - vec3(0.0, 0.0, 0.52)), cornea));

    // Bend the view ray at the cornea and meet the iris plane.
    vec3 bent = refract(-v, n, 1.0 / 1.336);
    float plane = sqrt(1.0 - rim * rim) - 0.02;
    vec2 q = p.xy + bent.xy / min(bent.z, -0.2) * (plane - p.z) * cornea;
    float s = length(q) / rim, angle = atan(q.y, q.x);

    float fibre = texture(noise, vec3(cos(angle) * 1.3, sin(angle) * 1.3, s * 0.10)).r;
    float fibre2 = texture(noise, vec3(cos(angle) * 3.1, sin(angle) * 3.1, s * 0.16 + 0.3)).g;
    vec3 outer = vec3(0.070, 0.080, 0.050), middle = vec3(0.165, 0.125, 0.058), centre = vec3(0.200, 0.092, 0.030);
    vec3 iris = mix(centre, middle, smoothstep(0.40, 0.62, s + 0.20 * (fibre - 0.5)));
    iris = mix(iris, outer, smoothstep(0.62, 0.98, s + 0.10 * (fibre2 - 0.5)));
    iris *= 0.55 + 0.9 * fibre * fibre2 * 2.0;
    iris *= mix(1.0, 0.22, smoothstep(0.80, 1.0, s));
    iris = mix(vec3(0.004), iris, smoothstep(0.36, 0.41, s));
    float across = p.x;
    vec3 white = mix(vec3(0.52, 0.49, 0.47), vec3(0.46, 0.28, 0.24), smoothstep(0.55, 0.95, abs(across)) * 0.7);
    float vein = smoothstep(0.62, 0.78, texture(noise, vec3(p.xy * vec2(0.9, 2.2), 0.4)).r) * smoothstep(0.5, 0.9, abs(across));
    white = mix(white, vec3(0.60, 0.24, 0.20), 0.20 * vein);
    float on = front ? smoothstep(1.05, 0.95, s) : 0.0;
    vec3 albedo = mix(white, iris, on);

    // Light that enters on one side of the cornea gathers on the iris' other side.
    vec3 key = to_eye * light_direction[0];
    float caustic = on * max(0.0, dot(normalize(-q + 1e-4), normalize(key.xy))) * smoothstep(0.3, 0.9, s) * 1.1;
    vec3 light = max(irradiance, 0.0) * (1.0 + caustic);

    vec3 back = transpose(to_eye) * reflect(-v, n);
    float f = 0.028 + 0.972 * pow(1.0 - max(dot(n, v), 0.0), 5.0);
    float shade = clamp(dot(irradiance, vec3(0.33)) * 0.9, 0.0, 1.0);
    vec3 spec = room(back) * min(f, 0.25) * shade * 1.3;
    emit(light, 0.25 * (1.0 - on), albedo, spec);
}
