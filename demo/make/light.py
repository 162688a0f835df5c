"""Soft studio light: what reaches each vertex from a few area lights and a dome, with true shadows, by ray casting.

The lights are a fixed set of directions, the same for every vertex and frame: no noise between vertices, none in time.
"""
import numpy as np
from embreex import rtcore_scene
from embreex.mesh_construction import TriangleMesh

# direction to the light, angular radius (degrees), irradiance when facing it (linear RGB), directions to sample it with
KEY = ((-0.62, 0.55, 0.85), 22, (2.10, 1.92, 1.74), 36)
LIGHTS = [
    KEY,
    ((0.95, 0.10, 0.75), 30, (0.30, 0.36, 0.46), 16),  # fill
    ((0.85, 0.45, -0.75), 16, (1.15, 1.20, 1.35), 12),  # rim, right of the picture
    ((-0.95, 0.35, -0.80), 16, (0.75, 0.70, 0.66), 12),  # rim, left
    ((0.05, -0.75, 0.75), 30, (0.16, 0.12, 0.10), 10),  # bounce from below
]
DOME_TOP, DOME_BOTTOM, DOME_SAMPLES = np.array([0.50, 0.54, 0.60]), np.array([0.12, 0.10, 0.10]), 56
BOUNCE = np.array([0.26, 0.11, 0.07])  # what skin beside an occluded vertex sends on


def unit(v):
    v = np.asarray(v, float)
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def spiral(n, cos_limit):
    """n directions spread evenly over the cap around +z whose edge has this cosine (Fibonacci spiral)."""
    i = np.arange(n) + 0.5
    z = 1 - (1 - cos_limit) * i / n
    a = i * np.pi * (3 - np.sqrt(5))
    r = np.sqrt(1 - z * z)
    return np.stack([r * np.cos(a), r * np.sin(a), z], 1)


def frame(axis):
    """Orthonormal rows whose last is `axis`."""
    z = unit(axis)
    x = unit(np.cross([0, 1, 0.01], z))
    return np.stack([x, np.cross(z, x), z])


def studio():
    """Directions [n, 3], weights [n, 3] (irradiance of each when faced) and light index [n] (-1: dome)."""
    directions, weights, index = [], [], []
    for k, (axis, radius, colour, n) in enumerate(LIGHTS):
        directions.append(spiral(n, np.cos(np.radians(radius))) @ frame(axis))
        weights.append(np.tile(np.array(colour) / n, (n, 1)))
        index += [k] * n
    dome = spiral(DOME_SAMPLES, -1.0)[:, [0, 2, 1]]
    height = (0.5 + 0.5 * dome[:, 1:2]) ** 1.2
    directions.append(dome)
    weights.append((DOME_BOTTOM + (DOME_TOP - DOME_BOTTOM) * height) * 4 / DOME_SAMPLES)
    index += [-1] * DOME_SAMPLES
    return np.concatenate(directions), np.concatenate(weights), np.array(index)


class Studio:
    def __init__(self):
        self.directions, self.weights, self.index = studio()

    def scene(self, meshes):
        """What can cast shadows, from a list of (vertices, triangles); the meshes must live as long as the scene."""
        scene = rtcore_scene.EmbreeScene()
        kept = [
            TriangleMesh(scene, np.ascontiguousarray(v, np.float32), np.ascontiguousarray(t, np.int32)) for v, t in meshes
        ]
        return scene, kept

    def light(self, solid, points, normals, wrap=0.0, lift=0.006, want=None):
        """Irradiance [n, 3], mean light direction [n, 3] and the visible share of key, rims and dome [n, 4].

        Where `want` [n] is false nothing is cast and all is 0.
        """
        if want is not None:
            full = [np.zeros((len(points), k)) for k in (3, 3, 4)]
            for whole, part in zip(full, self.light(solid, points[want], normals[want], wrap, lift)):
                whole[want] = part
            return full
        n = len(points)
        irradiance, toward = np.zeros((n, 3)), np.zeros((n, 3))
        seen, total = np.zeros((n, 4)), np.zeros((n, 4))
        lost = np.zeros(n)
        slot = {0: 0, 2: 1, 3: 2, -1: 3}
        origins = (points + normals * lift).astype(np.float32)
        for d, w, k in zip(self.directions, self.weights, self.index):
            cosine = normals @ d
            facing = (cosine + wrap) / (1 + wrap)
            rows = np.where(facing > 0)[0]
            hit = solid[0].run(origins[rows], np.tile(d.astype(np.float32), (len(rows), 1)), query="OCCLUDED") >= 0
            open_ = rows[~hit]
            irradiance[open_] += facing[open_, None] * w
            toward[open_] += facing[open_, None] * d * w.mean()
            lost[rows[hit]] += facing[rows[hit]] * w.mean()
            if k in slot:
                s = slot[k]
                total[rows, s] += facing[rows]
                seen[open_, s] += facing[open_]
        irradiance += lost[:, None] * BOUNCE * np.clip(irradiance.mean(1, keepdims=True) * 1.2 + 0.1, 0, 1)
        return irradiance, toward, seen / np.maximum(total, 1e-6)
