"""Hair as strands: parted at the side, swept over the ears into a tail that falls over one shoulder.

Strands are arrays [n, k, 3] of points. A strand of the head starts on the scalp and follows the skull's own shape, read from a
map of its radius by direction, at a height that grows from the root.
"""
import numpy as np
from embreex import rtcore_scene
from embreex.mesh_construction import TriangleMesh
from scipy import ndimage

POINTS = 22  # per strand


def unit(v):
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-12)


class Skull:
    """Radius of the skin around a centre, ears left out, by direction."""

    def __init__(self, skin, tris, ears, centre):
        self.centre = centre
        scene = rtcore_scene.EmbreeScene()
        solid = tris[~ears[tris].any(1)]
        keep = TriangleMesh(scene, np.ascontiguousarray(skin, np.float32), np.ascontiguousarray(solid, np.int32))
        self.rows, self.columns = 180, 360
        polar = (np.arange(self.rows) + 0.5) / self.rows * np.pi
        around = (np.arange(self.columns) + 0.5) / self.columns * 2 * np.pi
        p, a = np.meshgrid(polar, around, indexing="ij")
        d = np.stack([np.sin(p) * np.sin(a), np.cos(p), np.sin(p) * np.cos(a)], -1).reshape(-1, 3)
        start = centre + d * 4
        hit = scene.run(start.astype(np.float32), -d.astype(np.float32), query="DISTANCE").reshape(self.rows, self.columns)
        del keep
        radius = np.where(hit < 10, 4 - hit, np.nan)
        # Holes (where the ears were) take the value of the nearest hit.
        missing = np.isnan(radius)
        index = ndimage.distance_transform_edt(missing, return_distances=False, return_indices=True)
        self.radius = ndimage.gaussian_filter(radius[tuple(index)], 2.0, mode=("nearest", "wrap"))

    def at(self, directions):
        d = unit(directions)
        p = np.arccos(np.clip(d[..., 1], -1, 1)) / np.pi * self.rows - 0.5
        a = (np.arctan2(d[..., 0], d[..., 2]) % (2 * np.pi)) / (2 * np.pi) * self.columns - 0.5
        return ndimage.map_coordinates(self.radius, [p, a], order=1, mode="grid-wrap")


def sample(skin, tris, weight, count, rng):
    """`count` points on the mesh with density proportional to the vertex weight, [count, 3]."""
    corners = skin[tris]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    chance = area * weight[tris].mean(1)
    pick = rng.choice(len(tris), count, p=chance / chance.sum())
    r1, r2 = np.sqrt(rng.random(count)), rng.random(count)
    bary = np.stack([1 - r1, r1 * (1 - r2), r1 * r2], 1)
    return (corners[pick] * bary[..., None]).sum(1)


def bezier(a, b, c, t):
    """Quadratic Bezier of [n, 3] controls at t [k] -> [n, k, 3]."""
    t = t[None, :, None]
    return (1 - t) ** 2 * a[:, None] + 2 * t * (1 - t) * b[:, None] + t**2 * c[:, None]


class Clumps:
    """A smooth field of offsets over directions, for locks that run together."""

    def __init__(self, rng, scale=9.0, waves=24):
        self.k = rng.normal(size=(waves, 3)) * scale
        self.phase = rng.random(waves) * 2 * np.pi
        self.amplitude = rng.normal(size=waves) / np.sqrt(waves)

    def at(self, x):
        return np.sin(x @ self.k.T + self.phase) @ self.amplitude


def swept(skull, roots, part_x, knot, rng):
    """Strands from scalp points to the knot (a direction): (points [n, k, 3], depth [n] with 1 outermost, lock [n])."""
    n = len(roots)
    d0 = unit(roots - skull.centre)
    side = np.where(roots[:, 0] - part_x - 0.02 * rng.normal(size=n) > 0, 1.0, -1.0)
    front = np.clip(d0[:, 2] * 1.3 + 0.2, 0, 1) * np.clip(d0[:, 1] * 1.2, 0, 1)
    # The middle control pulls hair of the top sideways before it turns back.
    pull = unit(np.stack([side * (0.95 - 0.2 * (1 - np.abs(d0[:, 0]))), 0.62 * np.clip(d0[:, 1], 0, 1) + 0.16,
                          -0.12 + 0.35 * front], 1))
    lazy = np.clip(1.15 * front + 0.30, 0, 1)[:, None]
    d2 = np.tile(unit(np.array(knot)), (n, 1))
    straight = unit(d0 + d2 + 0.25 * np.stack([side, 0 * side, 0 * side], 1))
    d1 = unit(straight * (1 - lazy) + pull * lazy * 1.0)
    t = np.linspace(0, 1, POINTS)
    path = unit(bezier(d0, d1, d2 + 0.05 * rng.normal(size=(n, 3)), t))
    clump = Clumps(rng)
    depth = rng.random(n) ** 0.7
    lock = clump.at(d0 * 1.6 + 0.3 * d1)
    rise = 1 - np.exp(-t[None] * 7.0)
    fall = 1 - 0.45 * t[None]
    volume = 0.06 + 0.22 * np.clip(d0[:, 1] + 0.25, 0, 1)
    height = volume[:, None] * (0.35 + 0.65 * depth[:, None]) * rise * fall
    height += 0.030 * lock[:, None] * rise * np.sin(np.pi * np.clip(t * 1.1, 0, 1))[None]
    height += 0.004
    path = path + 0.018 * (Clumps(rng, 7.0).at(path.reshape(-1, 3) * 1.0 + np.repeat(d0, POINTS, 0) * 2.0)
                          ).reshape(n, POINTS, 1) * np.array([0.4, 1, 0.4])[None, None] * rise[..., None]
    path = unit(path)
    # A few stray hairs stand off.
    height += (rng.random(n) < 0.012)[:, None] * rng.uniform(0.02, 0.09, n)[:, None] * np.sin(np.pi * t)[None] * rise
    return skull.centre + path * (skull.at(path) + height)[..., None], depth, lock


def tail(curve, radii, count, rng):
    """A tail along the polyline `curve` [m, 3] with radius `radii` [m]: (points [n, k, 3], depth [n], axis [k, 3])."""
    k = 34
    u = np.linspace(0, 1, k)
    m = np.linspace(0, 1, len(curve))
    spine = np.stack([ndimage.gaussian_filter1d(np.interp(u, m, curve[:, a]), 2.0, mode="nearest") for a in range(3)], 1)
    radius = np.interp(u, m, radii)
    forward = unit(np.gradient(spine, axis=0))
    x = unit(np.cross(forward, [0.0, 0.0, 1.0]))
    y = np.cross(forward, x)
    angle = rng.random(count) * 2 * np.pi
    depth = np.sqrt(rng.random(count))
    twist = angle[:, None] + 0.9 * u[None] + 0.10 * np.sin(u[None] * 9 + 3 * angle[:, None])
    length = 1 - 0.22 * rng.random(count) ** 2
    wave = 1 + 0.16 * np.sin(u[None] * 16 + 3.0 * np.sin(angle[:, None] * 2)) * u[None]
    r = radius[None] * (depth[:, None] * wave)
    points = spine[None] + (x[None] * np.cos(twist)[..., None] + y[None] * np.sin(twist)[..., None] * 0.75) * r[..., None]
    sway = Clumps(rng, 2.2)
    points += 0.035 * np.stack([sway.at(points.reshape(-1, 3) * s).reshape(count, k) for s in (1.0, 0.8, 1.3)], -1) * u[None, :, None]
    points += 0.014 * rng.normal(size=(count, 1, 3)) * u[None, :, None]
    keep = np.empty((count, k, 3))
    for i in range(count):
        s = u * length[i]
        for a in range(3):
            keep[i, :, a] = np.interp(s, u, points[i, :, a])
    return keep, depth, spine


def hidden(outward, limit):
    """Which segments of strands face away from the camera so far that the hair before them covers them: [n, k - 1]."""
    z = outward[..., 2]
    return np.maximum(z[:, 1:], z[:, :-1]) < limit


def ribbons(strands, width, taper_root, taper_tip, shade, depth, leave_out=None):
    """Vertex array [m, 10] and triangle indices for ribbons that a shader turns to the camera; segments `leave_out` [n, k - 1] get no triangles.

    Columns: position 3, tangent 3, signed half width, t along, shade, depth.
    """
    n, k, _ = strands.shape
    tangent = unit(np.gradient(strands, axis=1))
    t = np.linspace(0, 1, k)
    w = np.broadcast_to(np.asarray(width).reshape(-1, 1), (n, k)) * np.minimum(1, taper_root + t / 0.12) * np.minimum(1, taper_tip + (1 - t) / 0.35)
    data = np.empty((n, k, 2, 10), np.float32)
    data[..., 0:3] = strands[:, :, None]
    data[..., 3:6] = tangent[:, :, None]
    data[..., 6] = w[..., None] * np.array([-0.5, 0.5])
    data[..., 7] = t[None, :, None]
    data[..., 8] = np.asarray(shade)[:, None, None]
    data[..., 9] = np.asarray(depth)[:, None, None]
    base = (np.arange(n)[:, None] * k + np.arange(k - 1)[None]) * 2
    base = (base.ravel() if leave_out is None else base[~leave_out])[:, None]
    index = np.concatenate([base + [0, 1, 2], base + [2, 1, 3]], 1).reshape(-1, 3)
    return data.reshape(-1, 10), index.astype(np.int32)
