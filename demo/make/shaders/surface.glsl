#version 330
in vec3 position, normal, rest, irradiance, toward;
in vec4 seen, mask;
layout(location = 0) out vec4 out_light;   // diffuse irradiance, how far it scatters
layout(location = 1) out vec4 out_albedo;  // albedo, distance to the camera
layout(location = 2) out vec4 out_shine;   // specular and emitted light
uniform vec3 eye;
uniform vec3 light_direction[4];  // key, right rim, left rim, fill
uniform vec3 light_colour[4];
uniform sampler3D noise;

float fbm(vec3 p) {
    return texture(noise, p).r * 0.55 + texture(noise, p * 2.13 + 0.37).r * 0.28 + texture(noise, p * 4.41 + 0.71).r * 0.17;
}

// Normal tilted by a height field known only by its value (M. Mikkelsen, "Bump mapping unparametrized surfaces on the GPU").
vec3 bumped(vec3 n, float height) {
    vec3 dx = dFdx(position), dy = dFdy(position);
    vec3 r1 = cross(dy, n), r2 = cross(n, dx);
    float det = dot(dx, r1);
    vec3 gradient = sign(det) * (dFdx(height) * r1 + dFdy(height) * r2);
    return normalize(abs(det) * n - gradient);
}

// GGX lobe of one light, without the light's colour (B. Walter et al. 2007; Smith visibility after C. Schlick).
float lobe(vec3 n, vec3 v, vec3 l, float rough, float f0) {
    vec3 h = normalize(l + v);
    float nl = max(dot(n, l), 0.0), nv = max(dot(n, v), 1e-3), nh = max(dot(n, h), 0.0);
    float a2 = rough * rough * rough * rough;
    float d = nh * nh * (a2 - 1.0) + 1.0;
    float k = rough * rough * 0.5;
    float vis = 0.25 / ((nl * (1.0 - k) + k) * (nv * (1.0 - k) + k));
    float f = f0 + (1.0 - f0) * pow(1.0 - max(dot(h, v), 0.0), 5.0);
    return a2 / (d * d) * vis * f * nl;
}

vec3 shine(vec3 n, vec3 v, float rough, float f0) {
    vec3 s = lobe(n, v, light_direction[0], rough, f0) * light_colour[0] * seen.x;
    s += lobe(n, v, light_direction[1], rough, f0) * light_colour[1] * seen.y;
    s += lobe(n, v, light_direction[2], rough, f0) * light_colour[2] * seen.z;
    s += lobe(n, v, light_direction[3], rough, f0) * light_colour[3] * seen.w;
    float f = f0 + (1.0 - f0) * pow(1.0 - max(dot(n, v), 0.0), 5.0);
    return s + f * seen.w * vec3(0.30, 0.32, 0.36) * (1.0 - rough);
}

// The soft light re-aimed at a detailed normal, as directional light maps do.
vec3 relit(vec3 smooth_n, vec3 n) {
    vec3 t = normalize(toward + smooth_n * 1e-3);
    float before = max(dot(smooth_n, t), 0.0) + 0.25, after = max(dot(n, t), 0.0) + 0.25;
    return max(irradiance, 0.0) * clamp(after / before, 0.4, 1.8);
}

void emit(vec3 light, float scatter, vec3 albedo, vec3 spec) {
    out_light = vec4(light, scatter);
    out_albedo = vec4(albedo, distance(position, eye));
    out_shine = vec4(spec, 1.0);
}
