"""Catmull-Clark subdivision as a sparse matrix, so that one product moves a fine mesh with its base mesh."""
import numpy as np
import scipy.sparse as sp


def catmull_clark(faces, count):
    """One subdivision of quads `faces` [n, 4] over `count` vertices.

    Returns (matrix [m, count], fine faces [4 n, 4]). Borders follow the cubic B-spline rule. Vertices that no face uses stay.
    (E. Catmull, J. Clark, "Recursively generated B-spline surfaces on arbitrary topological meshes", 1978.)
    """
    n = len(faces)
    corners = faces.ravel()
    following = np.roll(faces, -1, axis=1).ravel()
    edges, edge_of = np.unique(np.sort(np.stack([corners, following], 1), axis=1), axis=0, return_inverse=True)
    edge_of = edge_of.reshape(n, 4)
    e = len(edges)
    uses = np.bincount(edge_of.ravel(), minlength=e)
    border = uses == 1

    face_points = sp.csr_matrix((np.full(4 * n, 0.25), (np.repeat(np.arange(n), 4), corners)), (n, count))
    ends = sp.csr_matrix((np.ones(2 * e), (np.repeat(np.arange(e), 2), edges.ravel())), (e, count))
    touching = sp.csr_matrix((np.ones(4 * n), (edge_of.ravel(), np.repeat(np.arange(n), 4))), (e, n))
    inner = sp.diags(np.where(border, 0.0, 0.25)) @ (ends + sp.diags(2.0 / np.maximum(uses, 1)) @ touching @ face_points)
    edge_points = inner + sp.diags(np.where(border, 0.5, 0.0)) @ ends

    valence = np.bincount(corners, minlength=count)
    on_border = np.zeros(count, bool)
    on_border[edges[border].ravel()] = True
    smooth = (valence > 0) & ~on_border
    inverse = np.where(smooth, 1.0 / np.maximum(valence, 1), 0.0)
    around = sp.csr_matrix((np.ones(4 * n), (corners, np.repeat(np.arange(n), 4))), (count, n)) @ face_points
    mids = sp.csr_matrix((np.ones(2 * e), (edges.ravel(), np.repeat(np.arange(e), 2))), (count, e)) @ (0.5 * ends)
    vertex = (
        sp.diags(inverse**2) @ around
        + sp.diags(2.0 * inverse**2) @ mids
        + sp.diags(np.where(smooth, 1.0 - 3.0 * inverse, 0.0))
    )
    rim = edges[border]
    beside = sp.csr_matrix((np.ones(2 * len(rim)), (rim.ravel(), rim[:, ::-1].ravel())), (count, count))
    degree = np.asarray(beside.sum(1)).ravel()
    plain = on_border & (degree == 2)
    vertex = vertex + sp.diags(np.where(plain, 0.125, 0.0)) @ beside
    vertex = vertex + sp.diags(np.where(plain, 0.75, np.where(smooth, 0.0, 1.0)))

    matrix = sp.vstack([vertex, edge_points, face_points]).tocsr()
    a, ab, da = faces, count + edge_of, count + np.roll(edge_of, 1, axis=1)
    centre = np.repeat((count + e + np.arange(n))[:, None], 4, axis=1)
    return matrix, np.stack([a, ab, centre, da], -1).reshape(-1, 4)


def compact(faces):
    """Renumber `faces` to the vertices that they use: (vertex ids, faces)."""
    used, index = np.unique(faces, return_inverse=True)
    return used, index.reshape(faces.shape)


def triangles(faces):
    """Quads [n, 4] as triangles [2 n, 3]."""
    return np.concatenate([faces[:, [0, 1, 2]], faces[:, [0, 2, 3]]])


def normals(vertices, tris):
    """Area-weighted unit normals [v, 3]."""
    cross = np.cross(vertices[tris[:, 1]] - vertices[tris[:, 0]], vertices[tris[:, 2]] - vertices[tris[:, 0]])
    total = np.zeros_like(vertices)
    for axis in range(3):
        total[:, axis] = np.bincount(tris.ravel(), np.repeat(cross[:, axis], 3), len(vertices))
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def smoothing(faces, count):
    """Matrix [count, count] that replaces each vertex by the mean of its edge neighbours."""
    a, b = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    m = sp.csr_matrix((np.ones(2 * len(a)), (np.r_[a, b], np.r_[b, a])), (count, count))
    m.data[:] = 1.0
    return sp.diags(1.0 / np.maximum(np.asarray(m.sum(1)).ravel(), 1)) @ m
