"""Builds the person once, then gives for each pose every part's vertices with the light that reaches them."""
import numpy as np

import subdivide
import wardrobe
from character import Character, rotation
from hairdo import Hairdo
from light import Studio
from mouth import Mouth
from skin import Skin


def vertex_rows(position, normal, rest, light, mask):
    """A surface part's vertices, 23 columns: position 3, normal 3, rest position 3, irradiance 3, light direction 3, visible 4, mask 4."""
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


class Part:
    """Something to draw: shader kind, triangles and this frame's vertices."""

    def __init__(self, kind, tris):
        self.kind, self.tris, self.rows = kind, tris.astype(np.int32), None


class Scene:
    def __init__(self, assets, seed=7):
        self.studio = Studio()
        c = self.character = Character(assets)
        self.skin = Skin(c)
        self.cloth = wardrobe.Sweater(c, self.skin)
        self.cloth_light = None  # the torso hardly moves: its light is that of the first frame
        self.mouth = Mouth(c)
        self.ball, quads = ball()
        tris = subdivide.triangles(quads)
        self.hairdo = Hairdo(c, self.skin, self.cloth.rest, self.cloth.tris, self.studio, np.random.default_rng(seed))
        self.parts = {
            "skin": Part("skin", self.skin.tris),
            "cloth": Part("cloth", self.cloth.tris),
            "eyes": Part("eye", np.concatenate([tris, tris + len(self.ball)])),
            "mouth": Part("mouth", self.mouth.tris),
        }

    def frame(self, pose):
        """Fill every part's rows; returns the strands: {name: (rows, index, model matrix)}."""
        c, s, light = self.character, self.skin, self.studio.light
        face = c.face(pose)
        mid = c.move(s.first @ face[s.ids], pose, s.weight)
        normal = subdivide.normals(mid, s.mid_tris)
        mouth = c.move(self.mouth.at(face), pose, np.ones(len(self.mouth.rest)))
        cloth = c.move(self.cloth.rest, pose, self.cloth.weight)
        shell = c.move(self.hairdo.shell, pose, s.weight)
        solid = self.studio.scene(
            [(mid, s.mid_tris), (shell, self.hairdo.shell_tris), (mouth, self.mouth.tris), (cloth, self.cloth.tris)]
        )

        lit = light(solid, mid, normal, wrap=0.06, want=s.lit & (normal[:, 2] > -0.3))
        fine = s.second @ mid
        self.parts["skin"].rows = vertex_rows(fine, subdivide.normals(fine, s.tris), s.rest, [s.second @ x for x in lit], s.mask)

        normal_of_cloth = subdivide.normals(cloth, self.cloth.tris)
        if self.cloth_light is None:
            self.cloth_light = light(solid, cloth, normal_of_cloth, lift=0.02)
        self.parts["cloth"].rows = vertex_rows(cloth, normal_of_cloth, self.cloth.rest, self.cloth_light, self.cloth.mask)

        turn, shift = c.head_matrix(pose)
        gaze = turn @ rotation(1, pose.gaze[0]) @ rotation(0, -pose.gaze[1])
        out = self.ball @ gaze.T
        eyes = np.concatenate([out * radius + turn @ centre + shift for centre, radius in (c.eyes[side] for side in "lr")])
        out = np.tile(out, (2, 1))
        lit = light(solid, eyes, out, wrap=0.1, lift=0.012, want=out[:, 2] > 0.25)
        self.parts["eyes"].rows = vertex_rows(eyes, out, np.tile(self.ball, (2, 1)), lit, np.zeros((len(eyes), 4)))

        out = subdivide.normals(mouth, self.mouth.tris)
        lit = light(solid, mouth, out, wrap=0.1, want=self.mouth.rest[:, 2] > 0.75)
        self.parts["mouth"].rows = vertex_rows(mouth, out, self.mouth.rest, lit, self.mouth.mask)

        head = np.eye(4)
        head[:3, :3], head[:3, 3] = turn, shift
        return self.hairdo.frame(pose, face, mid, normal, head)
