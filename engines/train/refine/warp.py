"""What `compact` does to a reference before the refinement network sees it, in NumPy: the choice of references, the
thin-plate warp, the window and its maps. The engine's own code is `engines/src/denoise/compact/{render,refine}.rs`; the two must agree.

Points are [..., 111, 2] in unit crop coordinates (x right, y down); crops are uint8 [256, 256, 3] RGB.
"""

import cv2
import numpy as np

from common import mesh

SIDE, WINDOW = 256, 128
CELLS = 32
SMOOTHNESS, MERGE = 1e-3, 0.002
OPENING_WEIGHT, HYSTERESIS = 2.0, 0.65
# A partner opens by this much more (unit crop) than the reference that it stands beside.
WIDER = 0.01

LIPS = slice(0, 40)
OUTER, INNER = mesh.RANGES["lips_outer"], mesh.RANGES["lips_inner"]
MOVED = np.r_[0:84, mesh.RANGES["nose"], mesh.RANGES["eye_corners"]]
_EDGE = np.array([p for t in np.linspace(0, 1, 5) for p in ((t, -0.05), (t, 1.05), (-0.05, t), (1.05, t))])
_NODE = np.arange(CELLS + 1) / CELLS
_NODES = np.stack(np.meshgrid(_NODE, _NODE), -1)


def opening(points):
    """Inner-lip distance, downwards, of points [..., >= 36, 2]."""
    return points[..., mesh.OPENING[1], 1] - points[..., mesh.OPENING[0], 1]


def unposed(points, pose):
    """The lower faces [n, 84, 2] as they would be at the mean pose of points [n, 111, 2]; pose is [168, 38]."""
    stable = points[:, mesh.STABLE]
    offset = (stable - np.median(stable, 0)).reshape(len(points), -1)
    return points[:, mesh.LOWER] - (offset @ pose.T).reshape(len(points), -1, 2)


def distances(lower, wanted):
    """Of the lips of lower faces [n, 84, 2] to a wanted one [84, 2], with the opening counted again."""
    square = ((lower[:, LIPS] - wanted[LIPS]) ** 2).sum(-1).mean(-1)
    return np.sqrt(square + (OPENING_WEIGHT * (opening(lower) - opening(wanted))) ** 2)


def partner(lower, k):
    """The index of the reference that stands beside reference k: the nearest of those that open wider, or, where none
    does, the widest of the others. It depends on the bank alone, so it changes only when the reference does."""
    if len(lower) == 1:
        return k
    gap = opening(lower)
    cost = distances(lower, lower[k])
    wider = gap >= gap[k] + WIDER
    if wider.any():
        return int(np.where(wider, cost, np.inf).argmin())
    return int(np.where(np.arange(len(lower)) == k, -np.inf, gap).argmax())


def spanning(shapes, count, first):
    """Farthest-point choice of `count` of the shapes [n, k]."""
    gaps, kept = np.full(len(shapes), np.inf), []
    while len(kept) < min(count, len(shapes)):
        kept.append(first)
        gaps = np.minimum(gaps, ((shapes - shapes[first]) ** 2).sum(1))
        first = int(gaps.argmax())
    return np.array(kept)


def _kernel(square):
    square = np.maximum(square, 1e-12)
    return square * np.log(square)


def _merged(source, goal):
    near = ((source[:, None] - source[None]) ** 2).sum(-1) < MERGE**2
    first = near.argmax(1)
    if (first == np.arange(len(source))).all():
        return source, goal
    heads = np.unique(first)
    return source[heads], np.stack([goal[first == h].mean(0) for h in heads])


def nodes(wanted, reference):
    """Where each lattice node [33, 33, 2] of the wanted face lies in the reference."""
    source, goal = _merged(np.concatenate([wanted[MOVED], _EDGE]), np.concatenate([reference[MOVED], _EDGE]))
    n = len(source)
    matrix = np.zeros((n + 3, n + 3))
    matrix[:n, :n] = _kernel(((source[:, None] - source[None]) ** 2).sum(-1))
    matrix[np.arange(n), np.arange(n)] = SMOOTHNESS
    matrix[:n, n] = matrix[n, :n] = 1
    matrix[:n, n + 1 :], matrix[n + 1 :, :n] = source, source.T
    weights = np.linalg.solve(matrix, np.concatenate([goal, np.zeros((3, 2))]))
    flat = _NODES.reshape(-1, 2)
    kernel = _kernel(((flat[:, None] - source[None]) ** 2).sum(-1))
    out = kernel @ weights[:n] + weights[n] + flat @ weights[n + 1 :]
    return _unfolded(out.reshape(CELLS + 1, CELLS + 1, 2))


def _unfolded(grid):
    def turn(a, b, c):
        return (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (c[..., 0] - a[..., 0])

    for _ in range(40):
        a, b, c, d = grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]
        folded = (turn(a, b, d) <= 0) | (turn(b, c, a) <= 0) | (turn(c, d, b) <= 0) | (turn(d, a, c) <= 0)
        if not folded.any():
            break
        marked = np.zeros(grid.shape[:2], bool)
        for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
            marked[y : y + CELLS, x : x + CELLS] |= folded
        marked[[0, -1]] = marked[:, [0, -1]] = False
        mean = grid.copy()
        mean[1:-1, 1:-1] = (grid[1:-1, :-2] + grid[1:-1, 2:] + grid[:-2, 1:-1] + grid[2:, 1:-1]) / 4
        grid = np.where(marked[..., None], grid + 0.7 * (mean - grid), grid)
    return grid


def _interpolation(first, count):
    at = (first + np.arange(count) + 0.5) / SIDE * CELLS
    cell = np.minimum(at.astype(int), CELLS - 1)
    out = np.zeros((count, CELLS + 1))
    out[np.arange(count), cell], out[np.arange(count), cell + 1] = 1 - (at - cell), at - cell
    return out


def sample(crop, x, y):
    """Values [n, m, 3] of a crop at places in pixels, 0 in the middle of the first one: cubic convolution with a = -1/2; the edge is repeated."""
    column, row = np.floor(x).astype(int), np.floor(y).astype(int)

    def weights(t):
        return (t * t - 0.5 * (t + t**3), 1 - 2.5 * t * t + 1.5 * t**3, 0.5 * t + 2 * t * t - 1.5 * t**3, 0.5 * (t**3 - t * t))

    inside = lambda v: np.clip(v, 0, SIDE - 1)
    out = np.zeros((*x.shape, 3), np.float32)
    for j, down in enumerate(weights((y - row).astype(np.float32))):
        for i, across in enumerate(weights((x - column).astype(np.float32))):
            out += (down * across)[..., None] * crop[inside(row + j - 1), inside(column + i - 1)]
    return np.clip(out + 0.5, 0, 255).astype(np.uint8)


def warp(crop, grid, x=0, y=0, side=SIDE):
    """The square of `side` pixels at (x, y) of the crop warped by the lattice."""
    across, down = _interpolation(x, side), _interpolation(y, side)
    place = np.einsum("ij,jkc,lk->ilc", down, grid, across, optimize=True) * SIDE - 0.5
    return sample(crop, *np.clip(place, 0, SIDE - 1).transpose(2, 0, 1))


def window(wanted):
    """The window's first column and row: the lips' box in its middle, as far as the crop allows."""
    middle = (wanted[LIPS].min(0) + wanted[LIPS].max(0)) / 2 * SIDE
    return np.clip(np.floor(middle + 0.5).astype(int) - WINDOW // 2, 0, SIDE - WINDOW)


def coverage(polygon, x, y, side=WINDOW):
    """How much of each pixel of the square at (x, y) the polygon [n, 2] (unit crop) covers, 0..1: four scan lines a row by
    the even-odd rule, exact along each."""
    rows = 4 * side
    level = ((np.arange(rows) + 0.5) / 4)[:, None]
    ax, ay = (polygon * SIDE - (x, y)).T
    bx, by = np.roll(ax, -1), np.roll(ay, -1)
    crossed = (ay <= level) != (by <= level)
    with np.errstate(divide="ignore", invalid="ignore"):
        places = np.where(crossed, ax + (bx - ax) * (level - ay) / (by - ay), np.inf)
    places.sort(1)
    out, pixel = np.zeros((rows, side)), np.arange(side)
    for k in range(0, int(crossed.sum(1).max()), 2):
        some = np.isfinite(places[:, k + 1])
        left, right = places[some, k, None], places[some, k + 1, None]
        out[some] += np.clip(np.minimum(right, pixel + 1) - np.maximum(left, pixel), 0, 1)
    return out.reshape(side, 4, side).mean(1)


def shapes(wanted, x, y):
    """Maps of the wanted mouth's inside and of its lips, uint8 [128, 128, 2]."""
    inner = coverage(wanted[INNER], x, y)
    lips = np.maximum(coverage(wanted[OUTER], x, y) - inner, 0)
    return np.round(np.stack([inner, lips], -1) * 255).astype(np.uint8)


_JAW = np.arange(mesh.RANGES["jaw"].start + 3, mesh.RANGES["jaw"].stop - 3)
_OVER = [69, 90, 89, 91, 70]


def lower_face(wanted):
    """Coverage of the pasted patch, float32 [256, 256], 0..1, where the frame's own mouth is the wanted one."""
    mask = coverage(wanted[np.r_[_JAW, _OVER]], 0, 0, SIDE).astype(np.float32)
    for _ in range(3):
        mask = cv2.blur(mask, (9, 9), borderType=cv2.BORDER_REPLICATE)
    return np.clip(2 * mask - 1, 0, 1)
