#version 330
in vec3 in_position, in_normal, in_rest, in_irradiance, in_toward;
in vec4 in_seen, in_mask;
uniform mat4 camera;
out vec3 position, normal, rest, irradiance, toward;
out vec4 seen, mask;
void main() {
    position = in_position; normal = in_normal; rest = in_rest;
    irradiance = in_irradiance; toward = in_toward; seen = in_seen; mask = in_mask;
    gl_Position = camera * vec4(in_position, 1.0);
}
