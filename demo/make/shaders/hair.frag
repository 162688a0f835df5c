#version 330
in vec3 position, tangent, irradiance;
in vec4 strand, seen;
in float across;
out vec4 colour;
uniform vec3 eye;
uniform vec3 light_direction[4], light_colour[4];
uniform vec3 pigment;
uniform float gloss, opacity;

// Two highlights of a fibre: the sharp one of its surface, the coloured one of light that went through
// (S. Marschner et al. 2003; after the shifted tangents of T. Scheuermann 2004).
float band(vec3 t, vec3 h, float power) {
    float th = dot(t, h);
    return pow(sqrt(max(1.0 - th * th, 0.0)), power);
}

void main() {
    vec3 t = normalize(tangent), v = normalize(eye - position);
    vec3 side = normalize(cross(t, v)), facing = normalize(cross(side, t));
    vec3 n = normalize(facing + side * across * 0.6);
    vec3 base = pigment * (0.55 + 0.9 * strand.z);
    float cover = mix(0.30, 1.0, strand.w * strand.w);
    vec3 sum = base * irradiance * cover * 0.9;
    vec3 t1 = normalize(t + n * -0.10), t2 = normalize(t + n * 0.14);
    for (int i = 0; i < 3; i++) {
        float vis = i == 0 ? seen.x : i == 1 ? seen.y : seen.z;
        vec3 h = normalize(light_direction[i] + v);
        float diffuse = sqrt(max(1.0 - pow(dot(t, light_direction[i]), 2.0), 0.0));
        vec3 s = vec3(0.050) * band(t1, h, 90.0) + base * 1.5 * band(t2, h, 22.0);
        sum += gloss * light_colour[i] * vis * cover * (s + base * 0.12 * diffuse);
    }
    colour = vec4(sum, opacity);
}
