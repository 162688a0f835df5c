"""`evaluate.py pair`: the figures of `lipstream eval --json`, under the same names."""

import numpy as np

from quality import figures
from common.mesh import OUTER_EYES
from quality.media import frames, own_sound, sound


def places(points):
    """([frames, 2, 3], [frames, 2, 3], side): maps to the aligned crop and to the mouth, and the mouth's side as it is."""
    maps = figures.align(points)
    lips = np.stack([figures.apply(m, p[figures.LIPS]).mean(0) for m, p in zip(maps, points)])
    eyes = [figures.ANCHORS.index(e) for e in OUTER_EYES]
    side = figures.MOUTH_EYES * np.linalg.norm(figures.TEMPLATE[eyes[0]] - figures.TEMPLATE[eyes[1]])
    zoom = np.column_stack([np.eye(2) / side, 0.5 - np.nanmedian(lips, 0) / side])
    scale = np.hypot(maps[:, 0, 0], maps[:, 1, 0])
    close = int(np.floor(np.clip(np.nanmedian(1 / scale) * side, 96, 256) + 0.5))
    return maps, np.stack([figures.inside(m, zoom) for m in maps]), close


def look(path, where):
    """Yield (mouth, close, face) pictures of each frame, None where there is no face."""
    faces, mouths, close = where
    for (luma, black, gain), face, mouth in zip(frames(path), faces, mouths):
        if np.isnan(face).any():
            yield None
            continue
        three = (mouth, figures.MOUTH), (mouth, close), (face, figures.FACE)
        yield tuple(np.clip((figures.crop(luma, *view) - black) * gain, 0, 255) for view in three)


def compare(video, made, truth_path, truth):
    """How the picture differs from the true one; landmarks [frames, 111, 2] of each."""
    where = places(truth)
    psnr, ssim, sharp, seams, flicker = [], [], [], [], figures.Flicker()
    before = [None, None]
    for i, pair in enumerate(zip(look(video, where), look(truth_path, where))):
        whole = pair[0] is not None and pair[1] is not None
        if whole:
            a, b = pair
            psnr.append(figures.psnr(a[0], b[0]))
            ssim.append(figures.ssim(a[0], b[0]))
            sharp.append((figures.sharpness(a[1]), figures.sharpness(b[1])))
            outline = figures.apply(where[0][i], truth[i][figures.OUTLINE])
            seams.append(figures.seam(a[2], b[2], figures.crossings(outline)))
        before.append(tuple(p[0] for p in pair) if whole else None)
        if all(p is not None for p in before):
            flicker.push(*zip(*before))
        before.pop(0)
    if not psnr or flicker.finish() is None:
        return {}
    both = zip(made, truth)
    lmd = [figures.lips_apart(a, b) for a, b in both if not (np.isnan(a).any() or np.isnan(b).any())]
    own, true = np.median(sharp, 0)
    now, then = flicker.finish()
    out = {"sharpness": own, "lmd": np.mean(lmd), "psnr": np.median(psnr), "ssim": np.median(ssim)}
    out |= ratio("sharpness_ratio", own, true) | {"flicker": now - then} | ratio("flicker_ratio", now, then)
    if steps := [s for s in seams if s is not None]:
        step, here, there = np.mean(steps, 0)
        out |= {"seam": step} | ratio("seam_ratio", here, there)
    return out


def ratio(name, a, b):
    return {name: a / b} if b > 0 else {}


def sharpness(video, points):
    pictures = [p for p in look(video, places(points)) if p is not None]
    return float(np.median([figures.sharpness(p[1]) for p in pictures])) if pictures else 0.0


def motion(made, said):
    """Agreement of two openings [frames]."""
    near, best = figures.correlate(made, said, 1), figures.correlate(made, said, figures.REACH)
    if near is None or best is None:
        return {}
    n = min(len(made), len(said))
    r_at_0 = figures.pearson(made, said)
    out = {"r": near[0], "r_at_0": r_at_0, "r_best": best[0], "lag": best[1], "spread": np.std(made[:n]) / np.std(said[:n])}
    return out | closures(figures.closures(made, said))


def closures(found, prefix=""):
    """Figures of what figures.closures or figures.closures_at says."""
    return {} if found is None else dict(zip((f"{prefix}closures", f"{prefix}closure_depth", f"{prefix}closure_count"), found))


def sync(expert, lips, heard, prefix=""):
    """({figures}, curve) of landmarks and a sound; ({}, None) where there is none."""
    found = None if heard is None else figures.offset(expert.lips(lips), expert.voice(heard))
    if found is None:
        return {}, None
    return {f"{prefix}av_offset": found[0], f"{prefix}av_confidence": found[1]}, found[2]


def pair(points, expert, video, truth=None, speech_of=None, audio=None, silent=None, align=None):
    """Every figure that these files allow, as a dict of numbers."""
    made = points(video)
    opening = figures.fill(figures.opening(made))
    found = ~np.isnan(made[:, 0, 0])
    out = {"frames": len(made), "faces": found.mean(), "opening_median": np.median(opening), "opening_deviation": opening.std()}
    true = points(truth) if truth else None
    out |= compare(video, made, truth, true) if truth else {"sharpness": sharpness(video, made)}
    said_path = speech_of or truth
    said = points(said_path) if said_path else None
    if said is not None:
        said_opening = figures.fill(figures.opening(said))
        out |= motion(opening, said_opening)
    if align:
        times = figures.meetings(align.read_text())
        if said is not None:
            times = figures.lowest_near(times, said_opening)
        out |= closures(figures.closures_at(opening, times), "aligned_")
    if expert:
        said_sound = own_sound(said_path) if said_path else None
        heard = sound(audio) if audio else own_sound(video)
        out |= sync(expert, made, said_sound if heard is None else heard)[0]
        if said is not None:
            out |= sync(expert, said, said_sound, "true_")[0]
        if "av_confidence" in out and "true_av_confidence" in out:
            out |= ratio("av_confidence_ratio", out["av_confidence"], out["true_av_confidence"])
    if silent and out["opening_deviation"] > 0:
        out["silence_leak"] = figures.fill(figures.opening(points(silent))).std() / out["opening_deviation"]
    return {key: plain(value) for key, value in out.items()}


def plain(value):
    return int(value) if isinstance(value, (int, np.integer)) else float(value)


def show(figures):
    """A line a figure."""
    return "\n".join(f"{name:22} {value:10.3f}" if isinstance(value, float) else f"{name:22} {value:6d}" for name, value in figures.items())
