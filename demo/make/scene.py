"""Builds the person once, then gives for each pose every part's vertices with the light that reaches them."""
import numpy as np
from embreex import rtcore_scene
from embreex.mesh_construction import TriangleMesh

import hair
import strips
import subdivide
import wardrobe
from character import Character, rotation, smoothstep
from light import LIGHTS, Studio, unit
from makehuman import load_fitted

# Vertex columns of a surface part: position 3, normal 3, rest position 3, irradiance 3, light direction 3, visible 4, mask 4.
COLUMNS = 23
MOUTH = (0.222, 6.108)  # half width and height of the closed mouth's line, dm


def vertex_rows(position, normal, rest, light, mask):
    irradiance, toward, seen = light
    return np.hstack([position, normal, rest, irradiance, toward, seen, mask]).astype(np.float32)


def ball(rows=40, columns=48):
    """Unit sphere with its pole on +z, denser towards the pole: (vertices, quads)."""
    polar = np.linspace(0, 1, rows) ** 1.25 * np.pi
    around = np.arange(columns) * 2 * np.pi / columns
    p, a = np.meshgrid(polar, around, indexing="ij")
    v = np.stack([np.sin(p) * np.cos(a), np.sin(p) * np.sin(a), np.cos(p)], -1).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(rows - 1), np.arange(columns), indexing="ij")
    n = (j + 1) % columns
    q = np.stack([i * columns + j, (i + 1) * columns + j, (i + 1) * columns + n, i * columns + n], -1).reshape(-1, 4)
    return v, q


class Skin:
    """The body at three levels; light is computed on the middle one."""

    def __init__(self, character):
        c = self.character = character
        neck = wardrobe.collar_plane(c.rest)[c.body]
        self.ids, base_faces = subdivide.compact(c.body)
        self.first, self.mid_faces = subdivide.catmull_clark(base_faces, len(self.ids))
        self.second, fine = subdivide.catmull_clark(self.mid_faces, self.first.shape[0])
        self.mid_tris = subdivide.triangles(self.mid_faces)
        self.mid_rest = self.first @ c.closed[self.ids]
        self.rest = self.second @ self.mid_rest
        # Skin under the sweater or at the back is never drawn.
        away = subdivide.normals(self.rest, subdivide.triangles(fine))[:, 2]
        seen = (wardrobe.collar_plane(self.rest)[fine].max(1) > -0.25) & (away[fine].max(1) > -0.4)
        self.tris = subdivide.triangles(fine[seen])
        self.weight = c.head_weight(self.mid_rest)
        self.lit = wardrobe.collar_plane(self.mid_rest) > -0.35
        self.mask = np.c_[lips(self.rest), self.second @ self.masks()]

    def masks(self):
        """Blush, lids, inner mouth on the middle level, 0..1."""
        c, rest = self.character, self.mid_rest
        near = lambda x, y, z, r: np.exp(-(((np.abs(rest[:, 0]) - x) ** 2 + (rest[:, 1] - y) ** 2 + (rest[:, 2] - z) ** 2) / r**2))
        nose = rest[np.argmax(np.where(np.abs(rest[:, 0]) < 0.05, rest[:, 2], -9))]
        eye = c.eyes["l"][0]
        blush = 0.9 * near(0.46, nose[1] + 0.02, 1.05, 0.26) + 0.55 * near(0, nose[1], nose[2], 0.12) + 0.2 * near(0, 5.95, 1.1, 0.15)
        ear = c.rest[:, 0].max() * 0 + np.abs(rest[:, 0])
        self.ears = (ear > 0.80) & (np.abs(rest[:, 1] - 6.62) < 0.42) & (rest[:, 2] < 0.45)
        blush = blush + 0.7 * smoothstep(0.80, 0.92, ear) * (np.abs(rest[:, 1] - 6.62) < 0.4)
        lids = np.exp(-(((np.abs(rest[:, 0]) - eye[0]) / 0.17) ** 2 + ((rest[:, 1] - eye[1]) / 0.075) ** 2)) * (rest[:, 2] > 0.9)
        self.lids = lids
        mouth = np.array([0, MOUTH[1], 1.0])
        normals = subdivide.normals(rest, self.mid_tris)
        _, _, seen = Studio().light(Studio().scene([(rest, self.mid_tris)])[0], rest, normals)
        inner = (seen[:, 3] < 0.02) * (np.abs(rest[:, 0]) < 0.35) * (np.abs(rest[:, 1] - mouth[1]) < 0.5) * (rest[:, 2] > 0.2) * 1.0
        return np.stack([np.clip(blush, 0, 1), lids, inner], 1)


class Part:
    """Something to draw: shader kind, triangles and this frame's vertices."""

    def __init__(self, kind, tris):
        self.kind, self.tris, self.rows = kind, tris.astype(np.int32), None


class Scene:
    def __init__(self, assets, seed=7):
        rng = np.random.default_rng(seed)
        self.studio = Studio()
        c = self.character = Character(assets)
        self.skin = Skin(c)
        s = self.skin
        torso = c.body[wardrobe.collar_plane(c.rest)[c.body].min(1) < 0.35]
        self.cloth_rest, cloth_faces = wardrobe.sweater(c.rest, torso)
        ring, ring_faces, self.ring_marks = wardrobe.collar(s.mid_rest, s.mid_tris)
        self.ring_start = len(self.cloth_rest)
        self.cloth_rest = np.concatenate([self.cloth_rest, ring])
        self.cloth_tris = subdivide.triangles(np.concatenate([cloth_faces, ring_faces + self.ring_start]))
        self.cloth_weight = c.head_weight(self.cloth_rest) * 0.35
        self.cloth_light = None  # the torso hardly moves: its light is that of the first frame
        self.cloth_mask = np.zeros((len(self.cloth_rest), 4))
        self.cloth_mask[self.ring_start :, 0] = 1
        self.cloth_mask[self.ring_start :, 1:3] = self.ring_marks
        self.cloth_mask[: self.ring_start, 3] = wardrobe.collar_plane(self.cloth_rest[: self.ring_start])

        self.build_mouth()
        self.eye_ball, eye_quads = ball()
        self.eye_tris = subdivide.triangles(eye_quads)
        self.build_hair(rng)
        self.parts = {
            "skin": Part("skin", s.tris),
            "cloth": Part("cloth", self.cloth_tris),
            "eyes": Part("eye", np.concatenate([self.eye_tris, self.eye_tris + len(self.eye_ball)])),
            "mouth": Part("mouth", self.mouth_tris),
        }

    def build_mouth(self):
        """Teeth and tongue as one part; masks: tooth, gum, tongue, lower."""
        c = self.character
        teeth, tongue = c.teeth, c.tongue
        n = len(c.teeth_rest)
        label = components(teeth.mesh.faces, n)
        size = np.bincount(label)
        tooth = size[label] < 200
        tm, tf = subdivide.catmull_clark(tongue.mesh.faces, len(c.tongue_rest))
        self.tongue_rest = tm @ c.tongue_rest
        self.mouth_rest = np.concatenate([c.teeth_rest, self.tongue_rest])
        faces = np.concatenate([teeth.mesh.faces, tf + n])
        self.mouth_tris = subdivide.triangles(faces)
        m = len(self.mouth_rest)
        is_tongue = np.arange(m) >= n
        middle = np.array([c.teeth_rest[label == k, 1].mean() for k in range(len(size))])
        split = (c.rest[c.group("helper-upper-teeth"), 1].min() + c.rest[c.group("helper-lower-teeth"), 1].max()) / 2
        lower = np.where(is_tongue, 0.0, 0.0)
        lower[:n] = np.where(tooth, middle[label] < split, c.teeth_rest[:, 1] < split)
        self.mouth_lower = lower
        self.mouth_mask = np.stack([np.r_[tooth, np.zeros(m - n)], np.r_[~tooth, np.zeros(m - n)], is_tongue * 1.0, lower], 1)

    def build_hair(self, rng):
        c, s = self.character, self.skin
        top = s.mid_rest[:, 1].max()
        centre = np.array([0, top - 0.95, 0.28])
        self.skull = hair.Skull(s.mid_rest, s.mid_tris, s.ears, centre)
        self.scalp = scalp(s.mid_rest, s.ears, c.eyes["l"][0], top)
        self.scalp_fine = s.second @ self.scalp
        s.mask = np.hstack([s.mask, self.scalp_fine[:, None]])
        weight = np.clip(self.scalp, 0, 1) ** 1.0 * (self.scalp > 0.08)
        self.build_tail(rng)
        roots, _, _ = hair.sample(s.mid_rest, s.mid_tris, weight * (1 + 1.5 * (self.scalp < 0.95)), 15000, rng)
        strands, depth, lock = hair.swept(self.skull, roots, 0.30, (0.05, -0.12, -1.0), rng)
        shade = 0.5 + 0.13 * rng.normal(size=len(strands)) + 0.10 * lock
        outward = hair.unit(strands - centre)
        # What light reaches the hair, once, at rest: the head and the sweater shadow it, the outer strands the inner.
        solid = self.studio.scene([(s.mid_rest, s.mid_tris), (self.cloth_rest, self.cloth_tris)])
        around = hair.unit(self.tail - self.tail_axis[None])
        self.tail_light = self.strand_light(solid, self.tail, around)
        self.tail_hidden = hair.hidden(around, -0.4) | (self.tail_depth < 0.4)[:, None]
        self.tail_weight = c.head_weight(self.tail.reshape(-1, 3))
        self.hair_rows, self.hair_index = hair.ribbons(strands, 0.010 * (0.6 + 0.7 * rng.random(len(strands))), 0.12, 1.0, shade, depth, hair.hidden(outward, -0.5))
        light = self.strand_light(solid, strands, outward)
        self.hair_rows = np.hstack([self.hair_rows, *light]).astype(np.float32)
        # The shell that shadows forehead and ears.
        d = hair.unit(s.mid_rest - centre)
        self.shell_rest = s.mid_rest + d * (0.11 * self.scalp)[:, None]
        covered = (self.scalp > 0.5)[s.mid_tris].all(1)
        self.shell_tris = s.mid_tris[covered]
        lash = load_fitted(c.assets / "eyelashes/eyelashes01/eyelashes01.mhclo")
        self.lash_card = lash
        self.lashes, self.lash_width = strips.lashes(lash, lash.fit(c.closed), c.eyes, rng)
        card = load_fitted(c.assets / "eyebrows/eyebrow001/eyebrow001.mhclo").fit(c.closed)
        self.brows, self.brow_width = strips.brows(card, s.mid_rest, s.mid_tris, rng)

    def strand_light(self, solid, strands, outward, every=3):
        """Irradiance [m, 3] and visible shares [m, 4] for both edges of each strand's points."""
        n, k, _ = strands.shape
        some = np.arange(0, k, every)
        flat = lambda x: x[:, some].reshape(-1, 3)
        irradiance, _, seen = self.studio.light(solid[0], flat(strands), flat(outward), wrap=0.3, lift=0.05)
        place = np.minimum(np.arange(k) / every, len(some) - 1)
        i = np.minimum(place.astype(int), len(some) - 2)
        f = (place - i)[None, :, None]
        out = []
        # Strands on the far side of the hair's body lie in its own shade.
        for s, lamp in enumerate((0, 2, 3)):
            seen[:, s] *= np.clip(0.45 + 0.75 * flat(outward) @ unit(LIGHTS[lamp][0]), 0.04, 1)
        for x in (irradiance, seen):
            x = x.reshape(n, len(some), -1)
            out.append(np.repeat((x[:, i] * (1 - f) + x[:, i + 1] * f).reshape(n * k, -1), 2, axis=0))
        return out

    def build_tail(self, rng):
        """The tail: from the nape over the left shoulder down the front, resting on the sweater."""
        scene = rtcore_scene.EmbreeScene()
        keep = TriangleMesh(scene, np.ascontiguousarray(self.cloth_rest, np.float32), np.ascontiguousarray(self.cloth_tris, np.int32))
        plan = [(0.05, 6.35, -0.95, 0.10), (0.22, 6.00, -0.92, 0.15), (0.42, 5.72, -0.70, 0.18), (0.60, 5.62, -0.38, 0.20)]
        reach = lambda start, way: float(scene.run(np.array([start], np.float32), np.array([way], np.float32), query="DISTANCE")[0])
        for x, z in [(0.72, -0.08), (0.79, 0.2), (0.80, 0.45)]:
            plan.append((x, 9 - reach((x, 9, z), (0, -1, 0)) + 0.12, z, 0.21))
        for x, y in [(0.76, 4.8), (0.72, 4.5), (0.69, 4.2), (0.68, 3.95)]:
            plan.append((x, y, 9 - reach((x, y, 9), (0, 0, -1)) + 0.12, 0.17 + 0.04 * (y > 4.3)))
        del keep
        plan = np.array(plan)
        self.tail, self.tail_depth, self.tail_axis = hair.tail(plan[:, :3], plan[:, 3], 5500, rng)
        self.tail_shade = 0.5 + 0.16 * rng.normal(size=len(self.tail))
        self.tail_width = 0.010 * (0.6 + 0.7 * rng.random(len(self.tail)))

    def mouth(self, face, pose):
        """Teeth and tongue: the upper row with the skull, the lower with the jaw, the tongue between."""
        turn, shift = self.character.jaw(face)
        rest = self.mouth_rest
        with_jaw = rest @ turn.T + shift
        follow = np.where(self.mouth_mask[:, 2] > 0, 0.92, self.mouth_lower)[:, None]
        out = rest * (1 - follow) + with_jaw * follow
        drop = np.linalg.norm(shift + (turn - np.eye(3)) @ rest.mean(0))
        out[:, 1] -= self.mouth_mask[:, 2] * 0.25 * drop
        out[:, 1] -= np.where(self.mouth_mask[:, 2] > 0, 0, np.where(follow[:, 0] > 0.5, 0.03, 0.06))
        return out

    def frame(self, pose):
        """Fill every part's rows and return the hair-like strands: {name: (rows, index, matrix)}."""
        c, s, studio = self.character, self.skin, self.studio
        face = c.face(pose)
        mid = c.move(s.first @ face[s.ids], pose, s.weight)
        normal = subdivide.normals(mid, s.mid_tris)
        ones = lambda v: np.ones(len(v))
        mouth = c.move(self.mouth(face, pose), pose, ones(self.mouth_rest))
        cloth = c.move(self.cloth_rest, pose, self.cloth_weight)
        shell = c.move(self.shell_rest, pose, s.weight)
        turn, shift = c.head_matrix(pose)
        balls = []
        for side in "lr":
            centre, radius = c.eyes[side]
            gaze = rotation(1, pose.gaze[0]) @ rotation(0, -pose.gaze[1])
            balls.append(((self.eye_ball @ gaze.T) * radius + centre) @ turn.T + shift)
        eyes = np.concatenate(balls)
        eye_normal = np.concatenate([self.eye_ball @ (turn @ rotation(1, pose.gaze[0]) @ rotation(0, -pose.gaze[1])).T] * 2)
        scene = studio.scene(
            [(mid, s.mid_tris), (shell, self.shell_tris), (mouth, self.mouth_tris), (cloth, self.cloth_tris)]
        )[0:2]

        want = s.lit & (normal[:, 2] > -0.3)
        light = studio.light(scene[0], mid, normal, wrap=0.06, want=want)
        fine = s.second @ mid
        light = [s.second @ x for x in light]
        self.parts["skin"].rows = vertex_rows(fine, subdivide.normals(fine, s.tris), s.rest, light, s.mask[:, [0, 1, 4, 3]])
        self.fine_lids = s.mask[:, 2]

        cloth_normal = subdivide.normals(cloth, self.cloth_tris)
        if self.cloth_light is None:
            self.cloth_light = studio.light(scene[0], cloth, cloth_normal, lift=0.02)
        self.parts["cloth"].rows = vertex_rows(cloth, cloth_normal, self.cloth_rest, self.cloth_light, self.cloth_mask)
        light = studio.light(scene[0], eyes, eye_normal, wrap=0.1, lift=0.012, want=eye_normal[:, 2] > 0.25)
        sides = np.repeat([0.0, 1.0], len(self.eye_ball))[:, None] * [1, 0, 0, 0]
        self.parts["eyes"].rows = vertex_rows(eyes, eye_normal, np.tile(self.eye_ball, (2, 1)), light, sides)
        mouth_normal = subdivide.normals(mouth, self.mouth_tris)
        self.parts["mouth"].rows = vertex_rows(
            mouth, mouth_normal, self.mouth_rest, studio.light(scene[0], mouth, mouth_normal, wrap=0.1, want=self.mouth_rest[:, 2] > 0.75), self.mouth_mask)

        head = np.eye(4)
        head[:3, :3], head[:3, 3] = turn, shift
        still = np.eye(4)
        lash = c.move(self.lash_card.fit(face), pose, np.ones(len(self.lash_card.corners)))
        lash_rows = hair.ribbons(self.lashes.at(lash), self.lash_width, 1.0, 0.1, 0.5 + 0 * self.lash_width, 0 * self.lash_width + 1)
        brow_rows = hair.ribbons(self.brows.at(mid, normal), self.brow_width, 0.5, 0.15, 0.5 + 0 * self.brow_width, 0 * self.brow_width + 1)
        pad = lambda r: np.hstack([r, np.full((len(r), 3), 0.8), np.full((len(r), 4), 0.8)]).astype(np.float32)
        tail = c.move(self.tail.reshape(-1, 3), pose, self.tail_weight).reshape(self.tail.shape)
        tail_rows = hair.ribbons(tail, self.tail_width, 1.0, 0.1, self.tail_shade, self.tail_depth, self.tail_hidden)
        return {
            "tail": (np.hstack([tail_rows[0], *self.tail_light]).astype(np.float32), tail_rows[1], still),
            "hair": (self.hair_rows, self.hair_index, head),
            "lashes": (pad(lash_rows[0]), lash_rows[1], still),
            "brows": (pad(brow_rows[0]), brow_rows[1], still),
        }


def components(faces, count):
    """Connected component of each vertex."""
    import scipy.sparse as sp
    from scipy.sparse.csgraph import connected_components

    a, b = np.repeat(faces[:, 0], 3), faces[:, 1:].ravel()
    return connected_components(sp.coo_matrix((np.ones(len(a)), (a, b)), (count, count)), directed=False)[1]


def lips(points):
    """The red of the lips, 0..1, drawn on rest points around the closed mouth's line."""
    x, y = np.abs(points[:, 0]) / MOUTH[0], points[:, 1] - MOUTH[1]
    body = np.clip(1 - x**2, 0, 1)
    bow = 0.012 * np.exp(-(((x - 0.28) / 0.2) ** 2)) - 0.008 * np.exp(-((x / 0.12) ** 2))
    upper, lower = 0.068 * body**0.85 + bow * body, 0.108 * body**0.75
    over = np.where(y > 0, upper - y, lower + y)
    return smoothstep(-0.012, 0.012, over) * (x < 1.0) * smoothstep(0.9, 1.0, points[:, 2])


def scalp(points, ears, eye, top):
    """Where hair grows, 0..1, on rest points: above the forehead, temples with a recess, behind the ears."""
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    # Height of the hairline by where it is seen: high over the forehead, down before the ear, low at the nape.
    front = top - 0.50 - 0.10 * smoothstep(0.25, 0.6, x) - 0.0 * x
    angle = np.arctan2(x, z - 0.15)  # 0 in front, pi behind
    keys = np.radians([0, 18, 30, 40, 48, 56, 64, 74, 84, 96, 112, 135, 180])
    rise = np.array([0.67, 0.665, 0.635, 0.56, 0.45, 0.29, 0.15, 0.06, 0.03, 0.10, -0.06, -0.40, -0.55])
    line = eye[1] + np.interp(angle, keys, rise)
    grow = smoothstep(-0.05, 0.08, y - line)
    return np.where(ears, 0, grow) * (y > 5.9)
