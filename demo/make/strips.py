"""Lashes ride on MakeHuman's card meshes, which follow the lids; brow hairs on the skin's triangles."""
import numpy as np
from embreex import rtcore_scene
from embreex.mesh_construction import TriangleMesh


def beside(quad, v, other):
    """The neighbour of corner v in a quad that is not `other`."""
    k = quad.index(v)
    return quad[(k + 1) % 4] if quad[(k - 1) % 4] == other else quad[(k - 1) % 4]


def grids(faces):
    """The cards of a mesh: each a rectangular grid of quads, as vertex ids [rows, columns] with columns >= rows."""
    by_edge = {}
    for f, quad in enumerate(faces):
        for k in range(4):
            by_edge.setdefault(frozenset((quad[k], quad[(k + 1) % 4])), []).append(f)
    seen, out = set(), []
    for start in range(len(faces)):
        if start in seen:
            continue
        stack, card = [start], []
        seen.add(start)
        while stack:
            f = stack.pop()
            card.append(f)
            for k in range(4):
                for g in by_edge[frozenset((faces[f][k], faces[f][(k + 1) % 4]))]:
                    if g not in seen:
                        seen.add(g)
                        stack.append(g)
        uses = np.bincount(faces[card].ravel())
        corners = np.where(uses == 1)[0]
        if len(corners) != 4 or any(len(set(faces[f])) < 4 for f in card):
            continue
        rims = {}
        for f in card:
            for k in range(4):
                a, b = faces[f][k], faces[f][(k + 1) % 4]
                if len(by_edge[frozenset((a, b))]) == 1:
                    rims.setdefault(a, []).append(b)
                    rims.setdefault(b, []).append(a)
        sides = []
        for following in rims[corners[0]]:
            line = [corners[0], following]
            while uses[line[-1]] != 1:
                line.append(next(v for v in rims[line[-1]] if v != line[-2]))
            sides.append(line)
        rows, used = [max(sides, key=len)], set()
        while True:
            above = []
            for a, b in zip(rows[-1][:-1], rows[-1][1:]):
                fresh = [f for f in by_edge[frozenset((a, b))] if f not in used]
                if not fresh:
                    break
                used.add(fresh[0])
                quad = list(faces[fresh[0]])
                opposite = [beside(quad, v, w) for v, w in ((a, b), (b, a))]
                above = above[:-1] + opposite if above else opposite
            if len(above) != len(rows[-1]):
                break
            rows.append(above)
        out.append(np.array(rows))
    return out


def sample_grid(positions, v, u):
    """Bilinear points of grid `positions` [r, c, 3] at v, u in 0..1 (any shape)."""
    r, c = positions.shape[:2]
    y, x = np.clip(v, 0, 1) * (r - 1), np.clip(u, 0, 1) * (c - 1)
    i, j = np.minimum(y.astype(int), r - 2), np.minimum(x.astype(int), c - 2)
    fy, fx = (y - i)[..., None], (x - j)[..., None]
    return (positions[i, j] * (1 - fy) + positions[i + 1, j] * fy) * (1 - fx) + (
        positions[i, j + 1] * (1 - fy) + positions[i + 1, j + 1] * fy
    ) * fx


class Hairs:
    """Fixed places on cards; `at` gives the strands for the cards' present vertices."""

    def __init__(self, places):
        self.places = places  # list of (grid ids, v [n, k], u [n, k])

    def at(self, vertices):
        return np.concatenate([sample_grid(vertices[ids], v, u) for ids, v, u in self.places])


def lashes(fitted, vertices, eyes, rng, points=8):
    """Upper and lower lashes: from the card's edge at the lid to its far edge, in small clusters."""
    places, widths = [], []
    for ids in grids(fitted.mesh.faces):
        p = vertices[ids]
        centre = min((c for c, _ in eyes.values()), key=lambda c: np.linalg.norm(p.mean((0, 1)) - c))
        if np.linalg.norm(p[0] - centre, axis=1).mean() > np.linalg.norm(p[-1] - centre, axis=1).mean():
            ids, p = ids[::-1], p[::-1]
        if abs(p[0, 0, 0]) > abs(p[0, -1, 0]):
            ids, p = ids[:, ::-1], p[:, ::-1]
        upper = p[-1, :, 1].mean() > centre[1]
        n = 150 if upper else 60
        u = np.linspace(0.03, 0.98, n) + 0.006 * rng.normal(size=n)
        t = np.linspace(0, 1, points)
        length = (0.80 if upper else 0.5) * (0.75 + 0.25 * rng.random(n)) * np.clip(0.55 + 0.9 * u, 0, 1)
        pull = np.round(u * 22) / 22 - u  # towards the cluster's middle
        lean = (0.05 + 0.06 * (u - 0.4) * 2) + 0.4 * pull + 0.012 * rng.normal(size=n)
        places.append((ids, t[None] * length[:, None], u[:, None] + lean[:, None] * t[None] ** 1.5))
        widths.append((0.0042 if upper else 0.0028) * np.clip(1.5 - u, 0.5, 1))
    return Hairs(places), np.concatenate(widths)


class SkinHairs:
    """Hairs whose points are held by triangles of the skin and a height above it."""

    def __init__(self, tris, triangle, bary, height):
        self.corners, self.bary, self.height = tris[triangle], bary, height  # [n, k, 3], [n, k, 3], [n, k]

    def at(self, skin, normals):
        p = (skin[self.corners] * self.bary[..., None]).sum(2)
        n = (normals[self.corners] * self.bary[..., None]).sum(2)
        return p + n * self.height[..., None]


def brows(outline, skin, tris, rng, count=330, points=6):
    """Brow hairs inside the outlines of the brow cards (vertices [v, 3]): upright at the inner end, lying along the arch further out.

    Returns (SkinHairs, widths).
    """
    scene = rtcore_scene.EmbreeScene()
    keep = TriangleMesh(scene, np.ascontiguousarray(skin, np.float32), np.ascontiguousarray(tris, np.int32))
    all_points = []
    for sign in (1, -1):
        card = outline[outline[:, 0] * sign > 0]
        x = np.abs(card[:, 0])
        edges = np.linspace(x.min(), x.max(), 15)
        middle, low, high = [], [], []
        for a, b in zip(edges[:-1], edges[1:]):
            near = card[(x >= a - 0.02) & (x <= b + 0.02)]
            middle.append((a + b) / 2)
            low.append(near[:, 1].min())
            high.append(near[:, 1].max())
        middle, low, high = np.array(middle), np.array(low), np.array(high)
        slope = np.gradient((low + high) / 2, middle)
        u = rng.beta(1.25, 1.1, count)
        v = np.clip(0.42 + 0.15 * rng.normal(size=count), 0.08, 0.8)
        px = x.min() + u * (x.max() - x.min()) * 0.97
        bottom, top = np.interp(px, middle, low), np.interp(px, middle, high)
        py = bottom + v * (top - bottom)
        along = np.arctan(np.interp(px, middle, slope))
        upright = np.clip(0.62 - 1.8 * u, 0.0, 0.62) - 0.5 * (v - 0.5) * np.clip(u * 4, 0, 1)
        angle = along + upright + 0.08 * rng.normal(size=count)
        length = (0.062 + 0.035 * np.sin(np.pi * np.clip(u * 1.1, 0, 1))) * (0.8 + 0.4 * rng.random(count))
        t = np.linspace(0, 1, points)
        bend = angle[:, None] - 0.35 * t[None] * (upright[:, None] > 0.3)
        xs = px[:, None] + np.cumsum(np.cos(bend) * length[:, None] / points, 1)
        ys = py[:, None] + np.cumsum(np.sin(bend) * length[:, None] / points, 1)
        all_points.append(np.stack([xs * sign, ys, np.full_like(xs, 3.0)], -1))
    start = np.concatenate(all_points)
    flat = start.reshape(-1, 3).astype(np.float32)
    down = np.tile(np.array([0, 0, -1], np.float32), (len(flat), 1))
    hit = scene.run(flat, down)
    del keep
    corners = skin[tris[hit]][:, :, :2]
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    p = flat[:, :2]
    det = (b[:, 1] - c[:, 1]) * (a[:, 0] - c[:, 0]) + (c[:, 0] - b[:, 0]) * (a[:, 1] - c[:, 1])
    wa = ((b[:, 1] - c[:, 1]) * (p[:, 0] - c[:, 0]) + (c[:, 0] - b[:, 0]) * (p[:, 1] - c[:, 1])) / det
    wb = ((c[:, 1] - a[:, 1]) * (p[:, 0] - c[:, 0]) + (a[:, 0] - c[:, 0]) * (p[:, 1] - c[:, 1])) / det
    n = len(start)
    t = np.linspace(0, 1, points)
    height = 0.004 + 0.012 * np.sin(np.pi * t)[None] * (0.6 + 0.8 * rng.random((n, 1)))
    hairs = SkinHairs(tris, hit.reshape(n, points), np.stack([wa, wb, 1 - wa - wb], -1).reshape(n, points, 3), height)
    return hairs, 0.0058 * (0.7 + 0.5 * rng.random(n))
