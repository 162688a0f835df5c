#version 330
// One direction of the screen-space spread of light under the skin (J. Jimenez et al. 2009): red goes furthest.
in vec2 uv;
out vec4 colour;
uniform sampler2D light, surface;
uniform vec2 direction;  // one unit of radius in uv
void main() {
    vec4 here = texture(light, uv);
    if (here.a <= 0.0) { colour = here; return; }
    float depth = texture(surface, uv).a;
    vec3 sum = here.rgb, total = vec3(1.0);
    for (int i = -7; i <= 7; i++) {
        if (i == 0) continue;
        float x = float(i) / 7.0;
        float u = sign(x) * x * x * 2.4;  // close together near the middle
        float density = abs(x) * 2.4 * 7.0 / 7.0;
        vec2 at = uv + direction * u * here.a;
        vec4 l = texture(light, at);
        float away = abs(texture(surface, at).a - depth) / 0.12;
        vec3 sigma = vec3(1.0, 0.42, 0.24);
        vec3 w = (exp(-u * u / (2.0 * sigma * sigma)) + 0.25 * exp(-u * u / (0.16 * sigma * sigma))) * density;
        w *= step(0.01, l.a) * exp(-away * away);
        sum += w * l.rgb; total += w;
    }
    colour = vec4(sum / total, here.a);
}
