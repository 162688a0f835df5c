#version 330
in vec3 in_position, in_tangent;
in vec4 in_strand;  // signed half width, t along, shade, depth
in vec3 in_irradiance;
in vec4 in_seen;
uniform mat4 camera, model;
uniform vec3 eye;
out vec3 position, tangent, irradiance;
out vec4 strand, seen;
out float across;
void main() {
    vec3 p = (model * vec4(in_position, 1.0)).xyz;
    tangent = normalize(mat3(model) * in_tangent);
    vec3 side = normalize(cross(tangent, eye - p));
    position = p + side * in_strand.x;
    across = sign(in_strand.x);
    irradiance = in_irradiance; strand = in_strand; seen = in_seen;
    gl_Position = camera * vec4(position, 1.0);
}
