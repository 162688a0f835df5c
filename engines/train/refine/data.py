"""Triples for the refinement network: a frame of a person, and the same face warped from other frames of that person.

CACHE/refine/train: `images` uint8 [n, 3, 128, 128, 3] RGB (truth, nearest reference, its partner; the references warped),
`shapes` uint8 [n, 2, 128, 128], `openings` float32 [n, 3] (wanted, nearest, partner; times `SCALE`), and `index.json` with the person of each row.
CACHE/refine/val: whole sequences of people who are in no row of train, see `sequence`.
"""

import csv
import json

import cv2
import numpy as np

from refine import warp as rw
from common import mesh
from common.geometry import cv_matrix, transform, umeyama
from common.runs import clips, is_val
from common.video import frames, probe

FPS = 25
# Frames of a clip that are read, and how far from the target a reference must lie.
LONGEST, APART = 1000, 25
# Openings are small numbers of the unit crop; the network sees them times this.
SCALE = 20.0


def kind(relative):
    name = str(relative)
    for k in ("grid_s1", "grid_other", "free_", "gen_", "faces", "avatars"):
        if k in name:
            return k.rstrip("_")


def person(relative):
    return "grid_s1" if "grid_s1" in str(relative) else str(relative.with_suffix(""))


def landmarks(data, cache, relative):
    """(frame numbers, points [n, 111, 2] in pixels): the tracker's own; the teacher's where a clip's rate is not 25 and the two
    disagree about which frame is which."""
    rows = {}
    with open(cache / "points" / relative.with_suffix(".csv")) as file:
        for k, row in enumerate(csv.reader(file)):
            if len(row) >= 222 and row[0]:
                rows[k] = np.array(row[:222], float).reshape(111, 2)
    if not rows:
        return [], np.zeros((0, 111, 2))
    teacher = np.load(cache / "labels" / relative.with_suffix(".npz"))
    known = teacher["points"][:, mesh.MESH]

    def error(shift):
        both = [k for k in rows if 0 <= k + shift < len(known) and teacher["found"][k + shift]]
        return np.median([np.abs(rows[k] - known[k + shift]).mean() for k in both]) if len(both) > 10 else np.inf

    errors = [error(s) for s in (-1, 0, 1)]
    still = max(errors) < 1.02 * errors[1]
    if np.argmin(errors) == 1 or still:
        at = sorted(rows)
        return at, np.stack([rows[k] for k in at])
    at = [int(k) for k in np.flatnonzero(teacher["found"])]
    return at, known[at].astype(float)


def cut(bgr, matrix):
    """The 256 px crop RGB, halved first where it shows much more than that."""
    matrix, source = np.array(matrix), bgr
    while np.hypot(matrix[0, 0], matrix[1, 0]) < 0.5:
        source = cv2.resize(source, (source.shape[1] // 2, source.shape[0] // 2), interpolation=cv2.INTER_AREA)
        matrix[:, :2] *= 2
    crop = cv2.warpAffine(source, cv_matrix(matrix), (rw.SIDE, rw.SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(crop[:, :, ::-1])


def read(data, cache, relative, template):
    """(frame numbers [n], crops uint8 [n, 256, 256, 3], points [n, 111, 2] unit crop) of a clip's frames with a whole, frontal face."""
    at, points = landmarks(data, cache, relative)
    by_frame = dict(zip(at, points))
    numbers, crops, shapes = [], [], []
    width, height, _ = probe(data / relative)
    for k, bgr in enumerate(frames(data / relative, FPS)):
        if k >= LONGEST:
            break
        if k not in by_frame:
            continue
        own = by_frame[k]
        matrix = umeyama(own[mesh.ANCHORS], template * rw.SIDE)
        unit = transform(matrix, own) / rw.SIDE
        nose, left, right = (own[i] for i in (87, *mesh.OUTER_EYES))
        turned = abs(np.log(max(np.linalg.norm(nose - left), 1) / max(np.linalg.norm(nose - right), 1))) > 0.6
        outside = (own[:84] < 0).any() or (own[:84] >= (width, height)).any()
        if turned or outside or not np.isfinite(unit).all() or np.abs(unit).max() > 3:
            continue
        numbers.append(k)
        crops.append(cut(bgr, matrix))
        shapes.append(unit)
    if not crops:
        return np.zeros(0, int), np.zeros((0, rw.SIDE, rw.SIDE, 3), np.uint8), np.zeros((0, 111, 2))
    return np.array(numbers), np.stack(crops), np.stack(shapes)


def jittered(points, rng):
    """Landmarks as a tracker or a motion model might have them: the lower face shifted and squeezed a little, points off one by one."""
    out, size = points.copy(), rng.choice([0.3, 1.0, 1.6], p=[0.4, 0.45, 0.15])
    lower = out[mesh.LOWER]
    centre = lower[rw.LIPS].mean(0)
    lower[rw.LIPS] = centre + (lower[rw.LIPS] - centre) * (1 + size * rng.normal(0, 0.012, 2))
    lower += size * rng.normal(0, 0.0012, 2)
    lower += size * rng.normal(0, 0.001, lower.shape)
    gap = size * rng.normal(0, 0.002)
    lower[[23, 24, 25, 26, 27], 1] -= gap / 2
    lower[[33, 34, 35, 36, 37], 1] += gap / 2
    return out


def bank(choice, lower, rng, closed=False):
    """Indices of a bank drawn from the frames `choice`: 6 to 48 of them, as they come or spanning the shapes; only shut mouths if `closed`."""
    gap = rw.opening(lower)
    if closed:
        choice = choice[gap[choice] <= max(0.012, np.quantile(gap[choice], 0.1))]
    size = int(np.round(np.exp(rng.uniform(np.log(6), np.log(48)))))
    if rng.random() < 0.7:
        some = rng.permutation(choice)[:400]
        return some[rw.spanning(lower[some, :69].reshape(len(some), -1), size, 0)]
    return rng.permutation(choice)[:size]


def triples(numbers, crops, points, pose, count, rng):
    """`count` rows of a clip: images [3, 128, 128, 3], shapes [2, 128, 128], openings [3]."""
    lower = rw.unposed(points, pose)
    gap = rw.opening(lower)
    rank = np.argsort(np.argsort(gap)) / max(len(gap) - 1, 1)
    chance = 0.4 + rank
    for target in rng.choice(len(numbers), min(count, 3 * len(numbers)), p=chance / chance.sum()):
        away = np.flatnonzero(np.abs(numbers - numbers[target]) >= APART)
        if len(away) < 4:
            continue
        closed = rng.random() < 0.15 and gap[target] > np.quantile(gap, 0.3)
        wanted = jittered(points[target], rng)
        own = lower[target] + wanted[mesh.LOWER] - points[target][mesh.LOWER]
        refs = bank(away, lower, rng, closed)
        if len(refs) == 0:
            continue
        order = np.argsort(rw.distances(lower[refs], own))
        worse = rng.random() < 0.25 and len(order) > 1
        nearest = int(order[rng.integers(1, min(8, len(order)))] if worse else order[0])
        second = rw.partner(lower[refs], nearest)
        x, y = rw.window(wanted)
        cut = np.s_[y : y + rw.WINDOW, x : x + rw.WINDOW]
        first, beside = (rw.warp(crops[refs[k]], rw.nodes(wanted, points[refs[k]]), x, y, rw.WINDOW) for k in (nearest, second))
        if rng.random() < 0.06 and len(order) > 2:
            # A change of the reference: one frame shows both.
            other = int(order[rng.integers(0, min(3, len(order)))])
            first = cv2.addWeighted(first, 0.5, rw.warp(crops[refs[other]], rw.nodes(wanted, points[refs[other]]), x, y, rw.WINDOW), 0.5, 0)
        openings = np.array([rw.opening(own), *rw.opening(lower[refs[[nearest, second]]])]) * SCALE
        yield np.stack([crops[target][cut], first, beside]), rw.shapes(wanted, x, y).transpose(2, 0, 1), openings


ROWS = {"grid_s1": 10, "grid_other": 60, "free": 320, "gen": 220, "faces": 160, "avatars": 60}


def pack_train(arguments):
    data, cache, relative, template, pose, seed = arguments
    cv2.setNumThreads(1)
    rng = np.random.default_rng(seed)
    numbers, crops, points = read(data, cache, relative, template)
    if len(numbers) < 35:
        return relative, []
    return relative, list(triples(numbers, crops, points, pose, ROWS[kind(relative)], rng))


def sequence(data, cache, relative, template, pose, length, shut=False, capacity=32):
    """Consecutive frames of a clip as the engine would render them from references a second or more away, with the engine's hysteresis:
    a dict of truth and warped [n, 256, 256, 3], second [n, 128, 128, 3], shapes, openings, corner [n, 2], mask [n, 256, 256], mouth [n, 3]
    (centre and side of the measured square, in pixels)."""
    rng = np.random.default_rng(7)
    numbers, crops, points = read(data, cache, relative, template)
    if len(numbers) < 40:
        return None
    lower = rw.unposed(points, pose)
    start = max(0, (len(numbers) - length) // 2)
    rows, last = [], None
    for target in range(start, min(start + length, len(numbers))):
        away = np.flatnonzero(np.abs(numbers - numbers[target]) >= APART)
        if shut:
            away = away[rw.opening(lower[away]) <= max(0.012, np.quantile(rw.opening(lower), 0.1))]
        if len(away) < 3:
            continue
        refs = away[rw.spanning(lower[away, :69].reshape(len(away), -1), capacity, 0)]
        wanted = points[target]
        cost = rw.distances(lower[refs], lower[target]) * np.where(refs == last, rw.HYSTERESIS, 1.0)
        nearest = int(cost.argmin())
        second = rw.partner(lower[refs], nearest)
        warped = rw.warp(crops[refs[nearest]], rw.nodes(wanted, points[refs[nearest]]))
        if last is not None and last != refs[nearest] and last in refs:
            warped = cv2.addWeighted(warped, 0.5, rw.warp(crops[last], rw.nodes(wanted, points[last])), 0.5, 0)
        last = int(refs[nearest])
        x, y = rw.window(wanted)
        eyes = np.linalg.norm(wanted[mesh.OUTER_EYES[0]] - wanted[mesh.OUTER_EYES[1]])
        centre = (wanted[0] + wanted[10]) / 2
        rows.append({
            "truth": crops[target], "warped": warped, "corner": np.array([x, y]),
            "second": rw.warp(crops[refs[second]], rw.nodes(wanted, points[refs[second]]), x, y, rw.WINDOW),
            "shapes": rw.shapes(wanted, x, y).transpose(2, 0, 1),
            "openings": np.float32([rw.opening(lower[target]), *rw.opening(lower[refs[[nearest, second]]])]) * np.float32(SCALE),
            "mask": np.round(rw.lower_face(wanted) * 255).astype(np.uint8),
            "mouth": (np.array([*centre, 1.2 * eyes]) * rw.SIDE).astype(np.float32), "opening": np.float32(rw.opening(lower[target])),
        })
    return {k: np.stack([r[k] for r in rows]) for k in rows[0]} if len(rows) > 5 else None


def pack_val(arguments):
    data, cache, relative, template, pose = arguments
    cv2.setNumThreads(1)
    name = str(relative.with_suffix("")).replace("/", "__")
    done = []
    for shut, length in ((False, 60), (True, 30)):
        made = sequence(data, cache, relative, template, pose, length, shut)
        if made:
            folder = cache / "refine/val" / ("shut" if shut else "open")
            folder.mkdir(parents=True, exist_ok=True)
            np.savez(folder / f"{name}.npz", **made)
            done.append(len(made["truth"]))
    return relative, done


def chosen(data):
    """(clips to learn from, clips to measure on): of GRID's s1, the one known man, forty and three."""
    every = clips(data)
    known = [r for r in every if kind(r) == "grid_s1" and not is_val(r)][::14]
    train = [r for r in every if not is_val(r) and kind(r) != "grid_s1"] + known
    val = [r for r in every if is_val(r) and kind(r) != "grid_s1"] + [r for r in every if kind(r) == "grid_s1" and is_val(r)][::14]
    return train, val


def save_train(folder, packed):
    """Write the rows of (relative, rows) pairs as plain arrays that a training can map into memory."""
    folder.mkdir(parents=True, exist_ok=True)
    images, shapes, openings, people = [], [], [], []
    for relative, rows in packed:
        for row in rows:
            images.append(row[0])
            shapes.append(row[1])
            openings.append(row[2])
            people.append(str(relative))
    np.save(folder / "images.npy", np.stack(images))
    np.save(folder / "shapes.npy", np.stack(shapes))
    np.save(folder / "openings.npy", np.stack(openings).astype(np.float32))
    (folder / "index.json").write_text(json.dumps(people))
    return len(people)
