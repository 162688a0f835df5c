"""A crew-neck sweater: the torso smoothed and pushed outwards, and a ribbed collar lofted around the neck."""
import numpy as np
from embreex import rtcore_scene
from embreex.mesh_construction import TriangleMesh

import subdivide

NECK_HEIGHT, NECK_SLOPE = 5.43, 0.42  # the collar's plane: y = height - slope z
THICKNESS = 0.07


def collar_plane(points):
    """Height of points above the collar's plane, dm."""
    return points[:, 1] - (NECK_HEIGHT - NECK_SLOPE * points[:, 2])


def sweater(rest, body):
    """(vertices, quads) from base vertices and the body's quads."""
    used, faces = subdivide.compact(body)
    skin = rest[used]
    blur = subdivide.smoothing(faces, len(used))
    # Smooth with shrinkage undone (Taubin), so that collar bones vanish and the shoulders keep their size.
    smooth = skin.copy()
    for _ in range(14):
        smooth = smooth + 0.6 * (blur @ smooth - smooth)
        smooth = smooth - 0.55 * (blur @ smooth - smooth)
    near_neck = np.clip((collar_plane(skin) + 0.9) / 0.9, 0, 1)[:, None]
    cloth = smooth * (1 - near_neck) + skin * near_neck
    cloth += subdivide.normals(cloth, subdivide.triangles(faces)) * THICKNESS
    kept = faces[(collar_plane(skin)[faces] < 0.12).any(1)]
    ids, kept = subdivide.compact(kept)
    vertices = cloth[ids]
    matrix, fine = subdivide.catmull_clark(kept, len(ids))
    return matrix @ vertices, fine


def collar(skin, tris, columns=240):
    """(vertices, quads, angle and row [v, 2]) of the collar around the neck of the mesh `skin`."""
    scene = rtcore_scene.EmbreeScene()
    keep = TriangleMesh(scene, np.ascontiguousarray(skin, np.float32), np.ascontiguousarray(tris, np.int32))
    axis = np.array([0.0, 0.0, 0.02])
    angles = np.arange(columns) * 2 * np.pi / columns
    # Counted from the nape, where the seam of the ribs is not seen.
    out = np.stack([-np.sin(angles), NECK_SLOPE * np.cos(angles), -np.cos(angles)], 1)
    origin = np.tile(axis + [0, NECK_HEIGHT - NECK_SLOPE * axis[2], 0], (columns, 1))
    radius = scene.run(origin.astype(np.float32), out.astype(np.float32), query="DISTANCE")
    del keep
    radius = np.minimum(radius, 1.1)
    kernel = np.hanning(23)
    kernel /= kernel.sum()
    radius = np.convolve(np.r_[radius[-11:], radius, radius[:11]], kernel, "valid")
    # Cross-section, from under the sweater up over the fold and down inside: (outwards, up), dm.
    section = np.array([(0.10, -0.17), (0.125, -0.13), (0.125, -0.05), (0.105, 0.04), (0.08, 0.12), (0.055, 0.155),
                        (0.03, 0.15), (0.015, 0.11), (0.01, 0.02), (0.0, -0.1)])
    rows = []
    for outward, up in section:
        p = origin + out * (radius + outward)[:, None]
        # Above the plane the collar leans in with the neck.
        p[:, 1] += up
        rows.append(p)
    vertices = np.concatenate(rows)
    k = len(section)
    i, j = np.meshgrid(np.arange(k - 1), np.arange(columns), indexing="ij")
    n = (j + 1) % columns
    quads = np.stack([i * columns + j, i * columns + n, (i + 1) * columns + n, (i + 1) * columns + j], -1).reshape(-1, 4)
    marks = np.stack([np.tile(angles, k), np.repeat(np.arange(k), columns) / (k - 1)], 1)
    return vertices, quads, marks


class Sweater:
    """Body and collar as one mesh; `mask` [v, 4]: collar, angle around the neck, row of the collar, height over the collar's plane."""

    def __init__(self, character, skin):
        c = character
        torso = c.body[collar_plane(c.rest)[c.body].min(1) < 0.35]
        body, faces = sweater(c.rest, torso)
        ring, ring_faces, marks = collar(skin.mid_rest, skin.mid_tris)
        n = len(body)
        self.rest = np.concatenate([body, ring])
        self.tris = subdivide.triangles(np.concatenate([faces, ring_faces + n]))
        self.weight = c.head_weight(self.rest) * 0.35  # the collar follows the neck a little
        self.mask = np.zeros((len(self.rest), 4))
        self.mask[n:, 0], self.mask[n:, 1:3] = 1, marks
        self.mask[:n, 3] = collar_plane(body)
