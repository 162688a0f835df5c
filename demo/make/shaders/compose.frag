#version 330
in vec2 uv;
out vec4 colour;
uniform sampler2D light, surface, shine, backdrop;
void main() {
    vec4 s = texture(shine, uv), a = texture(surface, uv);
    vec3 lit = texture(light, uv).rgb * a.rgb + s.rgb;
    colour = vec4(mix(texture(backdrop, vec2(uv.x, 1.0 - uv.y)).rgb, lit, s.a), 1.0);
}
