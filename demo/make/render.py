"""Draws a scene with OpenGL (any driver; Mesa's software one will do) and returns 8-bit RGB frames."""
from pathlib import Path

import moderngl
import numpy as np
from scipy import ndimage

from character import rotation
from light import LIGHTS, unit

SHADERS = Path(__file__).parent / "shaders"
LAYOUT = "3f 3f 3f 3f 3f 4f 4f"
NAMES = ["in_position", "in_normal", "in_rest", "in_irradiance", "in_toward", "in_seen", "in_mask"]
EYE, LOOK, FIELD = np.array([0.0, 6.62, 15.0]), np.array([0.0, 6.28, 0.8]), 3.72  # camera, target, height seen there (dm)
SCATTER = 0.024  # dm, one standard deviation of red light in skin
STRANDS = {  # pigment (linear RGB), gloss, opacity
    "tail": ((0.088, 0.046, 0.026), 1.0, 1.0),
    "hair": ((0.088, 0.046, 0.026), 1.0, 1.0),
    "lashes": ((0.012, 0.008, 0.007), 0.3, 0.92),
    "brows": ((0.075, 0.042, 0.026), 0.6, 0.62),
}


def noise_volume(rng, n=96):
    """Tileable noise [n, n, n, 4] u8; the channels are smooth to different degrees."""
    out = np.empty((n, n, n, 4), np.uint8)
    for k, sigma in enumerate((1.6, 0.8, 1.1, 2.5)):
        x = ndimage.gaussian_filter(rng.normal(size=(n, n, n)).astype(np.float32), sigma, mode="wrap")
        x = (x - x.mean()) / x.std()
        out[..., k] = np.clip(127.5 + 42 * x, 0, 255)
    return out


def backdrop(width, height, rng):
    """A room far out of focus: walls in cool greys, a warm lamp side, discs of light. Linear RGB f32 [h, w, 3]."""
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    cool, warm, dark = np.array([0.115, 0.150, 0.175]), np.array([0.270, 0.200, 0.150]), np.array([0.045, 0.055, 0.066])
    image = cool + (warm - cool) * (1 / (1 + np.exp(-(x - 0.80) * 8)))[..., None] * 0.8
    image = image + (dark - image) * np.clip((y - 0.35) * 1.2, 0, 0.75)[..., None]
    window = np.exp(-(np.abs((x - 0.14) / 0.12) ** 4)) * np.exp(-(np.abs((y - 0.36) / 0.36) ** 4))
    image += window[..., None] * np.array([0.20, 0.255, 0.30])
    bar = np.exp(-(np.abs((x - 0.145) / 0.010) ** 2)) * window
    image *= (1 - 0.5 * bar)[..., None]
    shelf = np.exp(-(np.abs((x - 0.93) / 0.10) ** 6)) * np.exp(-(np.abs((y - 0.52) / 0.38) ** 6))
    image *= (1 - 0.35 * shelf)[..., None]
    image = ndimage.gaussian_filter(image, (height / 28, height / 28, 0), mode="nearest")
    for _ in range(15):
        cx, cy, r = rng.uniform(0.66, 1.02), rng.uniform(0.06, 0.62), rng.uniform(0.018, 0.042)
        d = np.hypot((x - cx) * width / height, y - cy) / r
        disc = 1 / (1 + np.exp(np.minimum((d - 1) * 16, 50))) * (0.75 + 0.25 * np.clip(d, 0, 1) ** 4)
        colour = np.array([0.36, 0.25, 0.14]) * rng.uniform(0.12, 0.6)
        image += disc[..., None] * colour
    return ndimage.gaussian_filter(image, (4, 4, 0)).astype(np.float32)


class Renderer:
    def __init__(self, width=1280, height=720, scale=2, seed=3):
        self.size, self.large = (width, height), (width * scale, height * scale)
        gl = self.gl = moderngl.create_standalone_context(backend="egl")
        rng = np.random.default_rng(seed)
        texture = lambda n: gl.texture(self.large, n, dtype="f2")
        self.light, self.surface, self.shine = texture(4), texture(4), texture(4)
        self.spread, self.picture = texture(4), texture(4)
        self.depth = gl.depth_renderbuffer(self.large)
        for t in (self.light, self.surface, self.shine, self.spread):
            t.filter = (moderngl.NEAREST, moderngl.NEAREST)
        self.geometry = gl.framebuffer([self.light, self.surface, self.shine], self.depth)
        self.half = gl.framebuffer([self.spread])
        self.back = gl.framebuffer([self.light])
        self.canvas = gl.framebuffer([self.picture], self.depth)
        self.output = gl.framebuffer([gl.renderbuffer(self.size, 4)])
        volume = noise_volume(rng)
        self.noise = gl.texture3d(volume.shape[:3], 4, volume.tobytes())
        wall = backdrop(width, height, rng)
        self.wall = gl.texture(self.size, 3, wall.tobytes(), dtype="f4")
        self.wall.repeat_x = self.wall.repeat_y = False
        read = lambda name: (SHADERS / name).read_text()
        surface = read("surface.glsl")
        self.programs = {
            k: gl.program(vertex_shader=read("surface.vert"), fragment_shader=surface + read(f"{k}.frag"))
            for k in ("skin", "eye", "mouth", "cloth")
        }
        self.strand_program = gl.program(vertex_shader=read("hair.vert"), fragment_shader=read("hair.frag"))
        quad = gl.buffer(np.array([-1, -1, 1, -1, -1, 1, 1, 1], "f4").tobytes())
        self.passes = {}
        for k in ("scatter", "compose", "finish"):
            program = gl.program(vertex_shader=read("quad.vert"), fragment_shader=read(f"{k}.frag"))
            self.passes[k] = (program, gl.vertex_array(program, [(quad, "2f", "in_corner")]))
        self.buffers = {}
        self.camera = self.projection()

    def projection(self):
        """Row-major camera matrix of a long lens."""
        z = unit(EYE - LOOK)
        x = unit(np.cross([0, 1, 0], z))
        view = np.eye(4)
        view[:3, :3] = np.stack([x, np.cross(z, x), z])
        view[:3, 3] = -view[:3, :3] @ EYE
        self.distance = np.linalg.norm(EYE - LOOK)
        f = 2 * self.distance / FIELD
        near, far = 8.0, 22.0
        p = np.zeros((4, 4))
        p[0, 0], p[1, 1] = f * self.size[1] / self.size[0], f
        p[2, 2], p[2, 3], p[3, 2] = (far + near) / (near - far), 2 * far * near / (near - far), -1
        return p @ view

    def set(self, program, **values):
        for name, value in values.items():
            if name in program:
                if isinstance(value, np.ndarray):
                    # The compiler may shorten an array whose last elements a shader never reads.
                    n = program[name].array_length
                    program[name].write(np.ascontiguousarray(value if n == 1 else value[:n], np.float32).tobytes())
                else:
                    program[name].value = value

    def lights(self, program):
        order = [LIGHTS[0], LIGHTS[2], LIGHTS[3], LIGHTS[1]]
        self.set(
            program, camera=self.camera.T, eye=EYE,
            light_direction=np.array([unit(l[0]) for l in order]), light_colour=np.array([l[2] for l in order]),
        )

    def mesh(self, key, program, rows, index, layout, names):
        """Upload vertices; a key's buffers are kept from frame to frame, and rows that are the last frame's stay."""
        data = np.ascontiguousarray(rows, np.float32)
        if key not in self.buffers:
            order = np.ascontiguousarray(index, np.int32)
            vertex, element = self.gl.buffer(reserve=data.nbytes), self.gl.buffer(order.tobytes())
            kept = [(f, n) for f, n in zip(layout.split(), names)]
            formats = " ".join(f if n in program else f"{int(f[0]) * 4}x" for f, n in kept)
            array = self.gl.vertex_array(program, [(vertex, formats, *[n for _, n in kept if n in program])], element)
            self.buffers[key] = [vertex, array, None]
        vertex, array, last = self.buffers[key]
        if last is not rows:
            vertex.write(data)
            self.buffers[key][2] = rows
        return array

    def draw(self, scene, pose):
        """One frame, u8 [h, w, 3]."""
        strands = scene.frame(pose)
        gl = self.gl
        gl.disable(moderngl.BLEND)
        gl.enable(moderngl.DEPTH_TEST)
        self.geometry.use()
        self.geometry.clear(0, 0, 0, 0)
        turn, _ = scene.character.head_matrix(pose)
        gaze = turn @ rotation(1, pose.gaze[0]) @ rotation(0, -pose.gaze[1])
        self.noise.use(4)
        for name, part in scene.parts.items():
            program = self.programs[part.kind]
            self.lights(program)
            self.set(program, noise=4, to_eye=gaze)  # the inverse, read column by column
            self.mesh(name, program, part.rows, part.tris, LAYOUT, NAMES).render()

        gl.disable(moderngl.DEPTH_TEST)
        program, array = self.passes["scatter"]
        radius = SCATTER / FIELD
        steps = [(radius * self.size[1] / self.size[0], 0.0), (0.0, radius)]
        self.set(program, light=0, surface=1)
        for source, target, step in ((self.light, self.half, steps[0]), (self.spread, self.back, steps[1])):
            target.use()
            source.use(0)
            self.surface.use(1)
            self.set(program, direction=step)
            array.render(moderngl.TRIANGLE_STRIP)

        program, array = self.passes["compose"]
        self.canvas.use()
        for k, t in enumerate((self.light, self.surface, self.shine, self.wall)):
            t.use(k)
        self.set(program, light=0, surface=1, shine=2, backdrop=3)
        array.render(moderngl.TRIANGLE_STRIP)

        gl.enable(moderngl.DEPTH_TEST | moderngl.BLEND)
        gl.blend_func = moderngl.SRC_ALPHA, moderngl.ONE_MINUS_SRC_ALPHA
        program = self.strand_program
        self.lights(program)
        for name, (rows, index, model) in strands.items():
            pigment, gloss, opacity = STRANDS[name]
            self.set(program, model=model.T, pigment=np.array(pigment), gloss=gloss, opacity=opacity)
            self.mesh(name, program, rows, index, "3f 3f 4f 3f 4f", ["in_position", "in_tangent", "in_strand", "in_irradiance", "in_seen"]).render()
        gl.disable(moderngl.DEPTH_TEST | moderngl.BLEND)

        program, array = self.passes["finish"]
        self.output.use()
        self.picture.use(0)
        self.set(program, picture=0, texel=(1 / self.large[0], 1 / self.large[1]), exposure=0.46)
        array.render(moderngl.TRIANGLE_STRIP)
        width, height = self.size
        return np.frombuffer(self.output.read(components=3), np.uint8).reshape(height, width, 3)[::-1]
