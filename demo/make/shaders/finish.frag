#version 330
// Exposure, film curve and grade on every sample, then a tent filter down to the output size.
in vec2 uv;
out vec4 colour;
uniform sampler2D picture;
uniform vec2 texel;
uniform float exposure;
vec3 film(vec3 x) {  // K. Narkowicz, "ACES filmic tone mapping curve"
    x *= exposure;
    return clamp(x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14), 0.0, 1.0);
}
void main() {
    vec3 sum = vec3(0.0);
    float total = 0.0;
    for (int j = -2; j <= 1; j++) for (int i = -2; i <= 1; i++) {
        vec2 o = vec2(float(i) + 0.5, float(j) + 0.5);
        float w = (1.0 - abs(o.x) / 2.2) * (1.0 - abs(o.y) / 2.2);
        sum += w * film(texture(picture, uv + o * texel).rgb);
        total += w;
    }
    vec3 c = sum / total;
    vec2 d = (uv - vec2(0.5, 0.55)) * vec2(1.1, 1.0);
    c *= 1.0 - 0.28 * smoothstep(0.2, 1.0, dot(d, d) * 2.2);
    c = pow(c, vec3(1.0 / 2.2));
    c = mix(c, c * c * (3.0 - 2.0 * c), 0.12);
    colour = vec4(c, 1.0);
}
