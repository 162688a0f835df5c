#!/usr/bin/env python3
"""From mesh labels to mouth-motion latents: the basis, and one entry a clip for training.

    python -m motion.data --data DATA --cache CACHE [--template FILE]

Reads CACHE/labels (see labels.py), writes CACHE/motion/basis.npz and CACHE/motion/clips.npz.

Of a clip whose aligned points (unit crop coordinates, 25 a second) split into `lower` [168] and `stable` [38]:

    lower(t) = rest + pose @ (stable(t) - stable_rest) + scale * basis @ z(t)

`rest` is the median over the frames whose mouth is most closed, `scale` says how far this person moves the mouth beside the
population, `z` [12] is in population standard deviations and 0 at rest; it holds what both halves of the face share. `pose` is a
ridge regression within clips, so that what the head's turning does to the lower face is not taken for speech. `basis` holds
principal components (lips weigh more).
"""

import argparse
import json
import subprocess
from pathlib import Path

import numpy as np

from audio import RATE
from common import mesh
from common.runs import clips, data_argument, is_val

FPS = 25
D = 12
LOWER = (mesh.LOWER.stop - mesh.LOWER.start) * 2
STABLE = (mesh.STABLE.stop - mesh.STABLE.start) * 2
RIDGE = 3e-3
POSE_RANK = 4
# The share of a clip's frames, the most closed ones, on which the effect of the head's pose is measured.
CLOSED_HALF = 0.5
# Of 3 s of speech this share of the frames shows the lips at rest.
CLOSED_SHARE = 0.1
# A person's own range is measured on seconds only, so it counts half (as an exponent) beside the population's.
SCALE_TRUST = 0.7


def aligned(points, template):
    """Every frame's points [T, P, 2] (pixels) through its own anchor similarity to `template` [7, 2]; f64 [T, P, 2]."""
    p = points.astype(np.float64)
    source = p[:, mesh.ANCHORS]
    ms, mt = source.mean(1, keepdims=True), template.mean(0)
    a, b = source - ms, template - mt
    # The least-squares similarity in closed form, with points as complex numbers.
    az, bz = a[..., 0] + 1j * a[..., 1], b[..., 0] + 1j * b[..., 1]
    k = (np.conj(az) * bz).sum(1) / (np.abs(az) ** 2).sum(1)
    q = p - ms
    z = (q[..., 0] + 1j * q[..., 1]) * k[:, None]
    return np.stack([z.real + mt[0], z.imag + mt[1]], -1)


def held(points, found):
    """Frames without a face take the nearest frame that has one."""
    known, at = np.flatnonzero(found), np.arange(len(found))
    after = np.clip(np.searchsorted(known, at), 0, len(known) - 1)
    before = np.maximum(after - 1, 0)
    return points[np.where(np.abs(known[before] - at) <= np.abs(known[after] - at), known[before], known[after])]


def smooth(x):
    """Three taps over time, against the jitter of the labels."""
    padded = np.concatenate([x[:1], x, x[-1:]])
    return 0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]


def opening(lower):
    """Inner-lip distance (downwards, signed) in unit crop coordinates of lower points [..., 168]."""
    p = lower.reshape(*lower.shape[:-1], -1, 2)
    return p[..., mesh.OPENING[1], 1] - p[..., mesh.OPENING[0], 1]


def rests(lower, gap):
    """Median shape of the most closed frames."""
    closed = gap <= np.quantile(gap, CLOSED_SHARE)
    return np.median(lower[closed], 0), closed


def shared_by_halves(offset):
    """The part of lower offsets [T, 168] that both halves of the face share. Speech is that part; a lopsided rest is kept in `rest`."""
    p = offset.reshape(len(offset), -1, 2)
    return ((p + p[:, mesh.FLIP[mesh.LOWER]] * [-1, 1]) / 2).reshape(len(offset), -1)


def point_weights():
    w = np.full((mesh.LOWER.stop, 2), 0.6)
    w[mesh.RANGES["lips_outer"]] = 1.5
    w[mesh.RANGES["lips_inner"]] = 2.0
    w[mesh.RANGES["chin"]] = 0.8
    w[mesh.RANGES["cheeks"]] = 0.4
    return w.ravel()


def person_of(relative):
    """One man for GRID s1, otherwise every clip is a person."""
    return "grid_s1" if "grid_s1" in str(relative) else str(relative.with_suffix(""))


def kind_of(relative):
    for kind in ("grid_s1", "grid_other", "free_", "gen_"):
        if kind in str(relative):
            return kind.rstrip("_")
    return None


def spread(gap):
    """Robust range of an opening."""
    return np.quantile(gap, 0.95) - np.quantile(gap, 0.05)


def load_labels(data, cache, template):
    """Clips with speech: dicts of relative, kind, person, lower [T, 168], stable [T, 38], found [T]."""
    out = []
    for relative in clips(data):
        kind, path = kind_of(relative), cache / "labels" / relative.with_suffix(".npz")
        if kind is None or not path.exists():
            continue
        z = np.load(path)
        if z["found"].mean() < 0.9 or len(z["found"]) < 40:
            continue
        p = smooth(aligned(held(z["points"], z["found"])[:, mesh.MESH], template))
        out.append({"relative": relative, "kind": kind, "person": person_of(relative), "val": is_val(relative), "found": z["found"],
                    "lower": p[:, mesh.LOWER].reshape(len(p), -1), "stable": p[:, mesh.STABLE].reshape(len(p), -1)})
    return out


def fit_pose(entries):
    """What the head's turning does to the lower face, f64 [168, 38]: within clips, on their more closed half, of the stable points'
    four main motions only. All frames or all motions would let the stable points explain speech, because the mesh moves as one."""
    rows = []
    for e in entries:
        gap = opening(e["lower"])
        chosen = gap <= np.quantile(gap, CLOSED_HALF)
        weight = 0.3 if e["kind"] == "grid_s1" else 1.0
        rows.append((weight, e["stable"][chosen] - np.median(e["stable"][chosen], 0), e["lower"][chosen] - np.median(e["lower"][chosen], 0)))
    xx = sum(w * x.T @ x for w, x, _ in rows)
    xy = sum(w * x.T @ y for w, x, y in rows)
    value, vector = np.linalg.eigh(xx)
    main = vector[:, np.argsort(-value)[:POSE_RANK]]
    small = np.linalg.solve(main.T @ xx @ main + RIDGE * np.trace(xx) / POSE_RANK * np.eye(POSE_RANK), main.T @ xy)
    pose = (main @ small).T
    # The head's turning moves both lips alike: what would open or close them is speech.
    lips = pose.reshape(-1, 2, STABLE)
    for upper, low in [*mesh.INNER_PAIRS, mesh.OPENING]:
        lips[[upper, low], 1] = lips[[upper, low], 1].mean(0)
    return lips.reshape(LOWER, STABLE)


def fit_basis(offsets, weights):
    """(basis [168, D], project [D, 168], range [D]): weighted principal directions in units of their standard deviation."""
    w = point_weights()
    total = sum(k * len(x) for x, k in zip(offsets, weights))
    mean = sum(k * x.sum(0) for x, k in zip(offsets, weights)) / total
    cov = sum(k * (x - mean).T @ (x - mean) for x, k in zip(offsets, weights)) / total
    value, vector = np.linalg.eigh(w[:, None] * cov * w)
    order = np.argsort(-value)[:D]
    value, vector = value[order], vector[:, order]
    deviation = np.sqrt(value)
    basis = vector * deviation / w[:, None]
    # Signs: a positive component opens the mouth.
    sign = np.sign(basis[2 * mesh.OPENING[1] + 1] - basis[2 * mesh.OPENING[0] + 1])
    sign[sign == 0] = 1
    return basis * sign, (vector * sign * w[:, None]).T / deviation[:, None], deviation, value.sum() / np.trace(w[:, None] * cov * w)


def build(data, cache, template):
    """The basis (dict of arrays) and the clips (list of dicts with z [T, D])."""
    entries = load_labels(data, cache, template)
    train = [e for e in entries if not e["val"]]
    pose = fit_pose(train)
    rest_all = {}
    for e in entries:
        stable_rest = np.median(e["stable"], 0)
        free = e["lower"] - (e["stable"] - stable_rest) @ pose.T
        gap = opening(free)
        rest, closed = rests(free, gap)
        e |= {"offset": shared_by_halves(free - rest), "gap": gap - np.median(gap[closed]), "rest": rest, "stable_rest": stable_rest}
        rest_all.setdefault(e["person"], []).append(np.concatenate([rest, stable_rest]))
    people = {}
    for e in entries:
        people.setdefault(e["person"], []).append(spread(e["gap"]))
    mean_spread = float(np.median([np.median(v) for p, v in people.items() if not p.startswith("talking/val")]))
    for e in entries:
        ratio = float(np.median(people[e["person"]])) / mean_spread
        e["scale"] = float(np.clip(ratio, 0.3, 2.5) ** SCALE_TRUST)
    weights = [0.1 if e["kind"] == "grid_s1" else 1.0 for e in train]
    basis, project, deviation, explained = fit_basis([e["offset"] / e["scale"] for e in train], weights)
    for e in entries:
        e["z"] = (e["offset"] / e["scale"]) @ project.T
    rest = np.mean([np.median(v, 0) for p, v in rest_all.items() if not p.startswith("talking/val")], 0)
    full = np.concatenate([rest.reshape(-1, 2), [[np.nan, np.nan]] * (mesh.P - mesh.STABLE.stop)])
    upper = rest_upper(data, cache, template)
    full[mesh.STABLE.stop :] = upper
    symmetric = (full + full[mesh.FLIP] * [-1, 1] + [1, 0]) / 2
    return {"basis": basis, "project": project, "pose": pose, "rest": symmetric, "range": deviation, "spread": np.array([mean_spread]),
            "explained": np.array([explained])}, entries


def rest_upper(data, cache, template):
    """Mean eyelids and brows, which only complete the rest shape."""
    found = []
    for relative in clips(data):
        path = cache / "labels" / relative.with_suffix(".npz")
        if path.exists() and kind_of(relative) in ("grid_other", "free", "gen") and not is_val(relative):
            labels = np.load(path)
            p = labels["points"][labels["found"]][::10][:, mesh.MESH]
            found.append(np.median(aligned(p, template), 0)[mesh.STABLE.stop :])
    return np.mean(found, 0)


def pcm(path):
    """Mono f32 samples at 16 kHz, padded where the file's audio starts late so that sample n sounds at n / 16000 s."""
    raw = subprocess.check_output(["ffmpeg", "-v", "error", "-i", str(path), "-af", "aresample=async=1:first_pts=0",
                                   "-f", "s16le", "-ac", "1", "-ar", str(RATE), "-"])
    return np.frombuffer(raw, np.int16)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data_argument(parser)
    parser.add_argument("--template", type=Path, default=Path(__file__).parents[2] / "models/tracker/template.json")
    args = parser.parse_args()
    template = np.array(json.loads(args.template.read_text())["points"])
    basis, entries = build(args.data, args.cache, template)
    out = args.cache / "motion"
    out.mkdir(parents=True, exist_ok=True)
    np.savez(out / "basis.npz", **{k: v.astype(np.float32) for k, v in basis.items()})
    arrays, table = {}, []
    for k, e in enumerate(entries):
        name = str(e["relative"].with_suffix("")).replace("/", "__")
        stored = out / "pcm" / f"{name}.npy"
        if not stored.exists():
            stored.parent.mkdir(exist_ok=True)
            np.save(stored, pcm(args.data / e["relative"]))
        arrays[f"z{k}"], arrays[f"gap{k}"] = e["z"].astype(np.float32), e["gap"].astype(np.float32)
        table.append({"name": name, "kind": e["kind"], "val": bool(e["val"]), "fps": FPS, "scale": e["scale"], "frames": len(e["z"])})
    np.savez(out / "clips.npz", table=json.dumps(table), **arrays)
    print(f"{len(entries)} clips, {D} components hold {basis['explained'][0]:.3f} of the weighted variance, deviations "
          f"{np.round(basis['range'], 4).tolist()}, opening spread {basis['spread'][0]:.4f}")


if __name__ == "__main__":
    main()
