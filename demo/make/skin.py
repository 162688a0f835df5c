"""The skin's mesh at three levels, and where on it lips, blush, scalp and the mouth's inside are."""
import numpy as np

import subdivide
import wardrobe
from character import smoothstep
from light import Studio

MOUTH = (0.222, 6.105)  # half width and height of the closed mouth's line, dm
EAR_HEIGHT = 6.62


class Skin:
    """The body at three levels; light is computed on the middle one, the finest is drawn."""

    def __init__(self, character):
        c = self.character = character
        self.ids, base_faces = subdivide.compact(c.body)
        self.first, mid_faces = subdivide.catmull_clark(base_faces, len(self.ids))
        self.second, fine = subdivide.catmull_clark(mid_faces, self.first.shape[0])
        self.mid_tris = subdivide.triangles(mid_faces)
        self.mid_rest = self.first @ c.closed[self.ids]
        self.rest = self.second @ self.mid_rest
        # Skin under the sweater or at the back is never drawn.
        away = subdivide.normals(self.rest, subdivide.triangles(fine))[:, 2]
        seen = (wardrobe.collar_plane(self.rest)[fine].max(1) > -0.25) & (away[fine].max(1) > -0.4)
        self.tris = subdivide.triangles(fine[seen])
        self.weight = c.head_weight(self.mid_rest)
        self.lit = wardrobe.collar_plane(self.mid_rest) > -0.35
        x, y, z = np.abs(self.mid_rest[:, 0]), self.mid_rest[:, 1], self.mid_rest[:, 2]
        self.ears = (x > 0.80) & (np.abs(y - EAR_HEIGHT) < 0.42) & (z < 0.45)
        self.top = y.max()
        self.scalp = scalp(self.mid_rest, self.ears, c.eyes["l"][0][1])
        on_mid = np.stack([self.blush(), self.scalp, self.inner_mouth()], 1)
        self.mask = np.c_[lips(self.rest), self.second @ on_mid]

    def blush(self):
        """Where blood shows: cheeks, tip of the nose, chin, ears."""
        rest = self.mid_rest
        x = np.abs(rest[:, 0])
        nose = rest[np.argmax(np.where(x < 0.05, rest[:, 2], -9))]

        def near(px, py, pz, radius):
            return np.exp(-((x - px) ** 2 + (rest[:, 1] - py) ** 2 + (rest[:, 2] - pz) ** 2) / radius**2)

        blush = 0.9 * near(0.46, nose[1] + 0.02, 1.05, 0.26) + 0.55 * near(0, nose[1], nose[2], 0.12) + 0.2 * near(0, 5.95, 1.1, 0.15)
        blush += 0.7 * smoothstep(0.80, 0.92, x) * (np.abs(rest[:, 1] - EAR_HEIGHT) < 0.4)
        return np.clip(blush, 0, 1)

    def inner_mouth(self):
        """1 where no sky is seen from the skin near the closed mouth."""
        rest, studio = self.mid_rest, Studio()
        normals = subdivide.normals(rest, self.mid_tris)
        seen = studio.light(studio.scene([(rest, self.mid_tris)]), rest, normals)[2][:, 3]
        near = (np.abs(rest[:, 0]) < 0.35) & (np.abs(rest[:, 1] - MOUTH[1]) < 0.5) & (rest[:, 2] > 0.2)
        return np.where((seen < 0.02) & near, 1.0, 0.0)


def lips(points):
    """The red of the lips, 0..1, drawn on rest points around the closed mouth's line."""
    x = np.abs(points[:, 0]) / MOUTH[0]
    y = points[:, 1] - MOUTH[1] - 0.019 * x**2  # the corners are drawn up a little
    body = np.clip(1 - x**2, 0, 1)
    bow = 0.012 * np.exp(-(((x - 0.28) / 0.2) ** 2)) - 0.008 * np.exp(-((x / 0.12) ** 2))
    upper, lower = 0.068 * body**0.85 + bow * body, 0.110 * body**0.95
    # A thin band reaches into the corners, where an open mouth shows the lips' inside.
    over = np.where(y > 0, np.maximum(upper, 0.010) - y, np.maximum(lower, 0.010) + y)
    return smoothstep(-0.012, 0.012, over) * smoothstep(1.0, 0.94, x) * smoothstep(0.78, 0.9, points[:, 2])


def scalp(points, ears, eye_height):
    """Where hair grows, 0..1, on rest points: above a line given as height over the eyes by direction from the skull's axis."""
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    angle = np.arctan2(x, z - 0.15)  # 0 in front, pi behind
    keys = np.radians([0, 18, 30, 40, 48, 56, 64, 74, 84, 96, 112, 135, 180])
    rise = np.array([0.67, 0.66, 0.615, 0.52, 0.39, 0.23, 0.10, 0.0, -0.03, 0.08, -0.06, -0.40, -0.55])
    grow = smoothstep(-0.05, 0.08, y - eye_height - np.interp(angle, keys, rise))
    return np.where(ears, 0, grow) * (y > 5.9)
