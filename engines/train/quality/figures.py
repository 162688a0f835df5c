"""The figures of docs/measure.md, computed from landmarks and grey pictures. Sequences are float [frames], pictures float [side, side], 0..255.

Written for itself and not after the code of `lipstream eval`, so that each checks the other.
"""

import cv2
import numpy as np

from common.mesh import ANCHORS, OPENING, OUTER_EYES, RANGES

RATE = 25
MOUTH = 96
FACE = 256
MOUTH_EYES = 1.2
REACH = 15
# The similarity of the built-in engine's aligned crop: where its anchors lie in the unit square.
TEMPLATE = np.array([
    [0.2435, 0.13], [0.400346, 0.139355], [0.599654, 0.139355], [0.7565, 0.13],
    [0.5, 0.396165], [0.405148, 0.385662], [0.594852, 0.385662],
])
LIPS = slice(0, 40)
# Shares of an opening's range, and frames, that say what a closure of the lips is.
SHUT, WIDE, MET, CLOSE = 0.12, 0.35, 0.2, 3
MOUTH_CORNERS = (0, 10)
# Jaw from beside one corner of the mouth to the other, over the cheeks and under the nose.
OUTLINE = [*range(RANGES["jaw"].start + 3, RANGES["jaw"].stop - 3), 69, 90, 89, 91, 70]


def fill(values):
    """Gaps (NaN) of [frames] or [frames, n] filled by straight lines, ends held; zeros where nothing is known."""
    values = np.array(values, float)
    if values.ndim > 1:
        return np.stack([fill(v) for v in values.reshape(len(values), -1).T], 1).reshape(values.shape)
    known = ~np.isnan(values)
    at = np.arange(len(values))
    return np.interp(at, at[known], values[known]) if known.any() else np.zeros(len(values))


def pearson(a, b):
    n = min(len(a), len(b))
    a, b = np.asarray(a[:n], float), np.asarray(b[:n], float)
    if n < 10 or a.std() < 1e-6 or b.std() < 1e-6:
        return None
    return float(np.mean((a - a.mean()) * (b - b.mean())) / (a.std() * b.std()))


def correlate(a, b, reach):
    """(r, lag) of the best correlation of `a` against `b`; a positive lag says that `a` is late. None where nothing moves."""
    n = min(len(a), len(b))
    a, b = a[:n], b[:n]
    found = []
    for lag in range(-reach, reach + 1):
        r = pearson(a[lag:], b[: n - lag]) if lag >= 0 else pearson(a[:lag], b[-lag:])
        if r is not None:
            found.append((r, -abs(lag), lag))
    return (max(found)[0], max(found)[2]) if found else None


def opening(points):
    """Inner lips' distance over that of the outer eye corners, [frames], of [frames, 111, 2]; NaN without a face."""
    gap = np.linalg.norm(points[:, OPENING[0]] - points[:, OPENING[1]], axis=1)
    return gap / np.linalg.norm(points[:, OUTER_EYES[0]] - points[:, OUTER_EYES[1]], axis=1)


def shares(values):
    """An opening [frames] between its own 2 % and 95 %."""
    low, high = np.quantile(values, [0.02, 0.95])
    return (np.asarray(values) - low) / max(high - low, 1e-9)


def closures(made, said, reach=1):
    """(share of the closures of `said` that `made` meets, mean depth there, their number) of two openings [frames], each between its own 2 % and 95 %.

    A closure is a run of frames below SHUT within CLOSE frames of one above WIDE. It is met where `made` falls below MET at most `reach` frames from it; the depth is
    how far it falls, 1 at its most shut. None without a closure.
    """
    n = min(len(made), len(said))
    if n < 10:
        return None
    made, said = shares(made[:n]), shares(said[:n])
    wide = np.convolve(said > WIDE, np.ones(2 * CLOSE + 1), "same") > 0.5
    edges = np.flatnonzero(np.diff(np.concatenate([[0], (said < SHUT) & wide, [0]])))
    lows = [made[max(0, a - reach) : b + reach].min() for a, b in zip(edges[::2], edges[1::2])]
    if not lows:
        return None
    return float(np.mean(np.array(lows) < MET)), float(1 - np.clip(lows, 0, 1).mean()), len(lows)


def meetings(align):
    """Seconds at which a word of GRID begins with lips that meet, of the text of an .align: begin, end (1/25000 s), word."""
    rows = [line.split() for line in align.splitlines()]
    return [int(row[0]) / 25000 for row in rows if len(row) == 3 and row[2] in ("bin", "blue", "by", "place", "please", "b", "p", "m")]


def lowest_near(times, said, reach=3):
    """Each time (s) moved to where the opening `said` [frames] is least within `reach` frames; those beyond its end are left out."""
    frames = [int(round(t * RATE)) for t in times]
    frames = [f for f in frames if f + reach < len(said)]
    return [(max(0, f - reach) + int(np.argmin(said[max(0, f - reach) : f + reach + 1]))) / RATE for f in frames]


def closures_at(made, times, reach=1):
    """As closures(), at known times (s)."""
    if len(made) < 10:
        return None
    made = shares(made)
    frames = [int(round(t * RATE)) for t in times]
    lows = [made[max(0, f - reach) : f + reach + 1].min() for f in frames if f < len(made)]
    if not lows:
        return None
    return float(np.mean(np.array(lows) < MET)), float(1 - np.clip(lows, 0, 1).mean()), len(lows)


def lips_apart(a, b):
    """Mean distance of the lips, each mouth seen from between its corners, in eye distances; of [111, 2] each."""

    def seen(p):
        middle = (p[MOUTH_CORNERS[0]] + p[MOUTH_CORNERS[1]]) / 2
        return (p[LIPS] - middle) / np.linalg.norm(p[OUTER_EYES[0]] - p[OUTER_EYES[1]])

    return float(np.linalg.norm(seen(a) - seen(b), axis=1).mean())


def align(points):
    """[frames, 2, 3] maps from pixels to the unit crop of [frames, 111, 2]; NaN without a face.

    The least squares fit of x' = a x - b y + tx, y' = b x + a y + ty, which is linear in its four unknowns.
    """
    maps = np.full((len(points), 2, 3), np.nan)
    for i, p in enumerate(points[:, ANCHORS]):
        if np.isnan(p).any():
            continue
        middle = p.mean(0)
        x, y = (p - middle).T
        zero, one = np.zeros_like(x), np.ones_like(x)
        rows = np.concatenate([np.stack([x, -y, one, zero], 1), np.stack([y, x, zero, one], 1)])
        a, b, tx, ty = np.linalg.lstsq(rows, TEMPLATE.T.ravel(), rcond=None)[0]
        linear = np.array([[a, -b], [b, a]])
        maps[i] = np.column_stack([linear, np.array([tx, ty]) - linear @ middle])
    return maps


def apply(matrix, points):
    return points @ matrix[:, :2].T + matrix[:, 2]


def inside(matrix, zoom):
    """First `matrix`, then `zoom`."""
    return np.column_stack([zoom[:, :2] @ matrix[:, :2], zoom[:, :2] @ matrix[:, 2] + zoom[:, 2]])


def crop(luma, matrix, side):
    """The unit square that `matrix` maps to, rounded [side, side]: bilinear, averaged by whole factors where it is smaller."""
    back = np.linalg.inv(matrix[:, :2]) / side
    factor = max(1, round(float(np.hypot(back[0, 0], back[1, 0]))))
    if factor > 1:
        height, width = luma.shape
        luma = np.pad(luma, ((0, -height % factor), (0, -width % factor)), mode="edge").astype(np.float64)
        luma = luma.reshape(luma.shape[0] // factor, factor, -1, factor).mean((1, 3))
        luma = np.floor(luma + 0.5)
    grid = np.stack(np.meshgrid(np.arange(side) + 0.5, np.arange(side) + 0.5), -1)
    origin = -np.linalg.inv(matrix[:, :2]) @ matrix[:, 2]
    place = (grid @ back.T + origin) / factor - 0.5
    return np.floor(sample(luma, place[..., 0], place[..., 1]) + 0.5)


def sample(picture, x, y):
    """Bilinear values at x, y (0 is the first pixel's centre); the edge is repeated."""
    height, width = picture.shape
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    column, row = x.astype(int), y.astype(int)
    right, below = np.minimum(column + 1, width - 1), np.minimum(row + 1, height - 1)
    fx, fy = x - column, y - row
    picture = picture.astype(np.float64)
    upper = picture[row, column] * (1 - fx) + picture[row, right] * fx
    lower = picture[below, column] * (1 - fx) + picture[below, right] * fx
    return upper * (1 - fy) + lower * fy


def psnr(a, b):
    error = np.mean((a - b) ** 2)
    return 100.0 if error == 0 else min(100.0, float(10 * np.log10(255**2 / error)))


def ssim(a, b):
    """Z. Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE TIP 13, 2004."""
    mean = lambda v: cv2.GaussianBlur(v, (11, 11), 1.5)[5:-5, 5:-5]
    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma * ma, mean(b * b) - mb * mb, mean(a * b) - ma * mb
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return float((((2 * ma * mb + c1) * (2 * cov + c2)) / ((ma**2 + mb**2 + c1) * (va + vb + c2))).mean())


def sharpness(picture):
    """Variance of the Laplacian of the inner pixels."""
    return float(cv2.Laplacian(picture, cv2.CV_64F, ksize=1)[1:-1, 1:-1].var())


class Flicker:
    """Second differences in time where the truth is quiet: in the quieter half of the pixels of all frames."""

    def __init__(self):
        self.bins = np.zeros((3, 256))

    def push(self, made, truth):
        """Three pictures in a row of each."""
        second = lambda p: np.abs(p[0] - 2 * p[1] + p[2])
        here, there = second(made), second(truth)
        around = cv2.blur(there, (5, 5))[2:-2, 2:-2]
        quiet = np.minimum(around * 4, 255).astype(int).ravel()
        for row, value in zip(self.bins, (np.ones_like(quiet), here[2:-2, 2:-2].ravel(), there[2:-2, 2:-2].ravel())):
            row += np.bincount(quiet, value, 256)

    def finish(self):
        """(made, truth) in grey levels; None before the first frames."""
        counts = self.bins[0].cumsum()
        if not counts[-1]:
            return None
        last = int(np.searchsorted(counts, counts[-1] / 2)) + 1
        count, made, truth = self.bins[:, :last].sum(1)
        return made / count, truth / count


def crossings(outline):
    """([n, 2], [n, 2]): places just inside and outside of a closed outline [k, 2], in units of the picture's side."""
    ends = np.roll(outline, -1, 0)
    turn = np.sign(np.sum(outline[:, 0] * ends[:, 1] - ends[:, 0] * outline[:, 1]))
    inner, outer = [], []
    for a, b in zip(outline, ends):
        length = np.linalg.norm(b - a)
        if not 0 < length < 4:
            continue
        count = int(np.ceil(np.float32(length) / np.float32(0.01)))
        inward = np.array([-(b - a)[1], (b - a)[0]]) * turn / length
        places = a + (b - a) * ((np.arange(count) + 0.5) / count)[:, None]
        inner.append(places + inward * 0.045)
        outer.append(places - inward * 0.015)
    return (np.concatenate(inner), np.concatenate(outer)) if inner else (np.zeros((0, 2)),) * 2


def seam(made, truth, pair):
    """(step of the difference, step of the picture, step of the truth) across crossings in grey levels; None without any.

    Steps are averaged over 8 neighbours: noise, which has no direction, is no seam.
    """
    inner, outer = pair
    within = ((inner >= 0) & (inner <= 1) & (outer >= 0) & (outer <= 1)).all(1)
    if not within.any():
        return None
    side = made.shape[0]
    at = lambda picture, p: sample(picture, p[within, 0] * side - 0.5, p[within, 1] * side - 0.5)
    runs = np.arange(8, within.sum(), 8)
    mean = lambda steps: np.array([run.mean() for run in np.split(steps, runs)])
    a, b = (mean(at(picture, inner) - at(picture, outer)) for picture in (made, truth))
    return np.abs(a - b).mean(), np.abs(a).mean(), np.abs(b).mean()


def offset(lips, voice):
    """Frames by which the picture is late, confidence, curve over shifts of -15..15; None below two seconds. [frames, 64] each."""
    n = min(len(lips), len(voice))
    if n < 2 * RATE:
        return None
    lips, voice = lips[:n].astype(float), voice[:n].astype(float)
    curve = np.array([(lips[max(k, 0) : n + min(k, 0)] * voice[max(-k, 0) : n - max(k, 0)]).sum(1).mean() for k in range(-REACH, REACH + 1)])
    return int(curve.argmax()) - REACH, float(curve.max() - np.median(curve)), curve
