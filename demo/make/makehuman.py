"""Readers for MakeHuman's plain-text assets: meshes, morph targets and fitted clothes.

Units are MakeHuman's: one decimetre, y up, the figure looks along +z, its left is +x.
"""
import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass
class Mesh:
    """A polygon mesh. `faces` and `uv_faces` are [n, 4]; a triangle repeats its last corner."""

    vertices: np.ndarray  # [v, 3] f64
    uvs: np.ndarray  # [t, 2] f64
    faces: np.ndarray  # [n, 4] i64 into vertices
    uv_faces: np.ndarray  # [n, 4] i64 into uvs
    groups: np.ndarray  # [n] str, the `g` line that each face stands under


def load_obj(path):
    """Read a Wavefront OBJ of triangles and quads."""
    vertices, uvs, faces, uv_faces, groups, group = [], [], [], [], [], ""
    for line in Path(path).read_text().splitlines():
        word, *rest = line.split() or [""]
        if word == "v":
            vertices.append([float(x) for x in rest[:3]])
        elif word == "vt":
            uvs.append([float(x) for x in rest[:2]])
        elif word == "g":
            group = rest[0] if rest else ""
        elif word == "f":
            corners = [c.split("/") for c in rest]
            corners += [corners[-1]] * (4 - len(corners))
            faces.append([int(c[0]) - 1 for c in corners])
            uv_faces.append([int(c[1]) - 1 if len(c) > 1 and c[1] else 0 for c in corners])
            groups.append(group)
    return Mesh(np.array(vertices), np.array(uvs or [[0.0, 0.0]]), np.array(faces), np.array(uv_faces), np.array(groups))


def load_target(path, vertex_count):
    """Read a morph target as dense offsets [vertex_count, 3]."""
    offsets = np.zeros((vertex_count, 3))
    with gzip.open(path, "rt") as lines:
        for line in lines:
            parts = line.split()
            if len(parts) == 4 and not line.startswith("#"):
                offsets[int(parts[0])] = [float(x) for x in parts[1:]]
    return offsets


@dataclass
class Fitted:
    """A mesh whose vertices ride on triangles of the base mesh (MakeHuman's .mhclo)."""

    mesh: Mesh
    corners: np.ndarray  # [v, 3] base vertices
    weights: np.ndarray  # [v, 3]
    offsets: np.ndarray  # [v, 3]
    scales: list  # per axis: (vertex, vertex, reference length) or None

    def fit(self, base):
        """Vertices [v, 3] for the base mesh's vertices `base`."""
        scale = np.ones(3)
        for axis, entry in enumerate(self.scales):
            if entry:
                a, b, length = entry
                scale[axis] = abs(base[a, axis] - base[b, axis]) / length
        return np.einsum("vk,vkc->vc", self.weights, base[self.corners]) + self.offsets * scale


def load_fitted(path):
    """Read a .mhclo file and the OBJ beside it."""
    path = Path(path)
    obj, scales, rows, reading = None, {}, [], False
    for line in path.read_text(errors="replace").splitlines():
        parts = line.split()
        if not parts or parts[0].startswith("#"):
            continue
        if parts[0] == "obj_file":
            obj = parts[1]
        elif parts[0] in ("x_scale", "y_scale", "z_scale"):
            scales[parts[0][0]] = (int(parts[1]), int(parts[2]), float(parts[3]))
        elif parts[0] == "verts":
            reading = True
        elif reading and parts[0].lstrip("-").isdigit():
            rows.append(parts)
        elif rows:
            reading = False
    corners = np.array([[int(x) for x in (r[:3] if len(r) >= 9 else r[:1] * 3)] for r in rows])
    weights = np.array([[float(x) for x in r[3:6]] if len(r) >= 9 else [1.0, 0.0, 0.0] for r in rows])
    offsets = np.array([[float(x) for x in r[6:9]] if len(r) >= 9 else [0.0] * 3 for r in rows])
    return Fitted(load_obj(path.parent / obj), corners, weights, offsets, [scales.get(a) for a in "xyz"])
