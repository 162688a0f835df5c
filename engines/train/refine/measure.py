"""Measures of the refinement on sequences of people who were in no training row: the plain warp beside the refined one.

The measured square is 1.2 outer-eye distances wide around the mouth, 96 px of luma, of the patch pasted on the true frame.
SSIM: Gaussian window of 11 px, sigma 1.5 (Wang et al. 2004). Sharpness: variance of the Laplacian over the truth's.
Flicker: mean absolute second difference over three frames, over the truth's.
"""

import cv2
import numpy as np

WINDOW, SQUARE = 128, 96
# Sequences of people who are in training.
SEEN = ("grid_s1", "gen_joyhallo")


def unseen(name):
    return not any(s in name for s in SEEN)



def torch_predictor(network):
    import torch

    @torch.no_grad()
    def predict(nearest, second, shapes, openings):
        give = [torch.from_numpy(np.ascontiguousarray(v, np.float32)) for v in (nearest, second, shapes, openings)]
        return network(*give).numpy()

    return predict


def onnx_predictor(path):
    from common.teachers import session

    runtime = session(path)

    def predict(nearest, second, shapes, openings):
        give = {"nearest": nearest, "second": second, "shapes": shapes, "openings": openings}
        return runtime.run(None, {k: np.ascontiguousarray(v, np.float32) for k, v in give.items()})[0]

    return predict


def refined(sequence, predict, at):
    """The warped crops of frames `at` with their windows refined, uint8 [n, 256, 256, 3]."""
    out = sequence["warped"][at].copy()
    corners = sequence["corner"][at]
    cut = lambda k: np.s_[k, corners[k][1] : corners[k][1] + WINDOW, corners[k][0] : corners[k][0] + WINDOW]
    planes = lambda v: v.transpose(0, 3, 1, 2).astype(np.float32) / 255
    for first in range(0, len(at), 16):
        part = range(first, min(first + 16, len(at)))
        nearest = planes(np.stack([out[cut(k)] for k in part]))
        rows = at[part.start : part.stop]
        delta = predict(nearest, planes(sequence["second"][rows]), sequence["shapes"][rows].astype(np.float32) / 255, sequence["openings"][rows])
        done = np.round(np.clip(nearest + delta, 0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
        for k, picture in zip(part, done):
            out[cut(k)] = picture
    return out


def square(crop, mouth):
    """Luma of the measured square, float32 [96, 96]."""
    centre_x, centre_y, side = mouth
    zoom = SQUARE / side
    matrix = np.array([[zoom, 0, SQUARE / 2 - 0.5 - zoom * (centre_x - 0.5)], [0, zoom, SQUARE / 2 - 0.5 - zoom * (centre_y - 0.5)]])
    grey = cv2.cvtColor(np.ascontiguousarray(crop), cv2.COLOR_RGB2GRAY)
    return np.round(cv2.warpAffine(cv2.GaussianBlur(grey, (0, 0), 0.45 / zoom) if zoom < 1 else grey, matrix, (SQUARE, SQUARE))).astype(np.float32)


def ssim(a, b):
    blur = lambda v: cv2.GaussianBlur(v.astype(np.float64), (11, 11), 1.5)[5:-5, 5:-5]
    ma, mb = blur(a), blur(b)
    a, b = a.astype(np.float64), b.astype(np.float64)
    va, vb, cov = blur(a * a) - ma * ma, blur(b * b) - mb * mb, blur(a * b) - ma * mb
    return float(((2 * ma * mb + 6.5025) * (2 * cov + 58.5225) / ((ma * ma + mb * mb + 6.5025) * (va + vb + 58.5225))).mean())


def psnr(a, b):
    return float(min(100, 10 * np.log10(65025 / max(1e-9, np.mean((a - b) ** 2)))))


def pasted(picture, sequence, at):
    mask = sequence["mask"][at][..., None].astype(np.float32) / 255
    truth = sequence["truth"][at].astype(np.float32)
    return np.round(truth + (picture - truth) * mask).astype(np.uint8)


def figures(sequence, picture, at):
    """Of pictures [n, 256, 256, 3] of frames `at`: medians over frames; flicker only where the frames are consecutive."""
    mouths = sequence["mouth"][at]
    ours = [square(p, m) for p, m in zip(pasted(picture, sequence, at), mouths)]
    true = [square(p, m) for p, m in zip(sequence["truth"][at], mouths)]
    sharp = lambda v: cv2.Laplacian(v, cv2.CV_32F)[1:-1, 1:-1].var()
    out = {"ssim": np.median([ssim(a, b) for a, b in zip(ours, true)]), "psnr": np.median([psnr(a, b) for a, b in zip(ours, true)]),
           "sharpness": np.median([sharp(a) for a in ours]) / max(1e-6, np.median([sharp(b) for b in true]))}
    if len(at) > 2 and (np.diff(at) == 1).all():
        beat = lambda rows: np.mean([np.abs(a - 2 * b + c).mean() for a, b, c in zip(rows, rows[1:], rows[2:])])
        out["flicker"] = beat(ours) / max(1e-6, beat(true))
    return {k: float(v) for k, v in out.items()}


def load(folder):
    """(name, sequence) of the stored sequences, one at a time."""
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as z:
            yield path.stem.replace("__", "/"), {k: z[k] for k in z.files}


_kept = {}


def brief(folder, predict, stride):
    """Medians over clips of unseen people of every `stride`-th frame: of the refined ones, and what they add to the warp's."""
    out = {}
    for part in ("open", "shut"):
        if (folder, part) not in _kept:
            _kept[folder, part] = []
            for name, sequence in load(folder / part):
                if unseen(name):
                    at = np.arange(0, len(sequence["truth"]), stride)
                    small = {k: v[at] for k, v in sequence.items()}
                    at = np.arange(len(at))
                    _kept[folder, part].append((small, at, figures(small, small["warped"], at)))
        rows = [(figures(s, refined(s, predict, at), at), base) for s, at, base in _kept[folder, part]]
        for k in ("ssim", "psnr", "sharpness"):
            out[f"{part}_{k}"] = round(float(np.median([r[k] for r, _ in rows])), 4)
            out[f"{part}_{k}_gain"] = round(float(np.median([r[k] - b[k] for r, b in rows])), 4)
    return out


def sheet(sequence, picture, at):
    """Rows of truth, warp, refined: mouths as pasted."""
    rows = []
    for pictures in (sequence["truth"][at], pasted(sequence["warped"][at], sequence, at), pasted(picture, sequence, at)):
        rows.append(np.concatenate([p[60:, 40:216] for p in pictures], 1))
    return np.concatenate(rows)
