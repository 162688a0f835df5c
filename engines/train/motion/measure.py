#!/usr/bin/env python3
"""Measure a motion model against the labels: correlation, lag and spread of the opening, and what it does in silence.

    python -m motion.measure --data DATA --cache CACHE --run DIR [DIR ..] [--steps 1 2 4] [--temperature 0 0.3 0.5]

Correlation is Pearson's of the inner-lip opening with the truth over a clip, the best at a lag of -1..1 frames; spread is the ratio
of the deviations. These are figures of the motion, not of rendered pictures.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from common.runs import data_argument
from motion.batch import Mel
from motion.net import sample, smooth_noise

MEL = Mel()
FPS = 25.0


def correlate(a, b, reach=1):
    """(best correlation, lag) of a against b over lags of -reach..reach frames; a late = positive lag."""
    best = (-1.0, 0)
    for lag in range(-reach, reach + 1):
        x, y = (a[lag:], b[: len(b) - lag]) if lag >= 0 else (a[:lag], b[-lag:])
        if x.std() > 1e-6 and y.std() > 1e-6:
            best = max(best, (float(np.corrcoef(x, y)[0, 1]), lag))
    return best


@torch.no_grad()
def conditions(model, samples, frames, fps=FPS):
    """cond [frames, C] for f32 samples, as a stream of that sound gives it."""
    needed = int((frames / fps * 1000 + 200) * 16)
    x = torch.from_numpy(np.pad(samples, (0, max(0, needed - len(samples)))))[None]
    mel = MEL(x)
    mel = mel[:, : mel.shape[1] // 2 * 2]
    return model.cond(mel, torch.arange(frames)[None] * (1000.0 / fps))[0]


@torch.no_grad()
def motion(model, cond, steps, temperature, seed=0, coefficient=0.9):
    """Latents [frames, D] of a stream."""
    generator = torch.Generator().manual_seed(seed)
    noise = temperature * smooth_noise(1, len(cond), model.denoiser.latents, coefficient, generator)[0]
    return sample(model.denoiser, cond, noise, steps)


def truth(clip):
    """The clip's opening at 25 frames a second."""
    n = int(len(clip.opening) / clip.fps * FPS)
    n = min(n, int(len(clip.pcm) / 640))
    return np.interp((np.arange(n) / FPS + clip.lag) * clip.fps, np.arange(len(clip.opening)), clip.opening)


def measure(model, held, steps, temperature, seed=0):
    """One dict a clip: group, name, r at lag <= 1, lag, spread ratio, r at lag <= 10."""
    model.eval()
    rows = []
    for group, clip in held:
        want = truth(clip)
        cond = conditions(model, clip.pcm.astype(np.float32) / 32768, len(want))
        got = (motion(model, cond, steps, temperature, seed) @ model.opening).numpy()
        r, lag = correlate(got, want)
        wide, wide_lag = correlate(got, want, 10)
        rows.append({"group": group, "name": clip.name, "r": r, "lag": lag, "spread": float(got.std() / max(want.std(), 1e-9)),
                     "r10": wide, "lag10": wide_lag, "low": float(np.quantile(got, 0.05)), "std": float(got.std())})
    return rows


def silence(model, held, steps, temperature):
    """Deviation and largest size of the opening on silent sounds: digital silence, noise at -60 and -50 dBFS, after speech too."""
    rng = np.random.default_rng(3)
    speech = next(c.pcm for g, c in held if g == "val_free")[:48000].astype(np.float32) / 32768
    out = {}
    for name, level in (("digital", 0.0), ("noise60", 1e-3), ("noise50", 3e-3)):
        quiet = (level * rng.standard_normal(6 * 16000)).astype(np.float32)
        for prefix, sound, skip in ((name, quiet, 0), (f"{name}_after_speech", np.concatenate([speech, quiet]), 75 + 10)):
            frames = len(sound) // 640
            cond = conditions(model, sound, frames)
            z = motion(model, cond, steps, temperature)[skip:]
            wide = (z @ model.opening).numpy()
            out[prefix] = {"std": round(float(wide.std()), 4), "max": round(float(np.abs(wide).max()), 4), "z": round(float(z.abs().mean()), 3)}
    return out


def summary(model, held, steps_list=(1, 2), temperature=0.0):
    """Medians by group, for the log of a run."""
    out = {}
    for steps in steps_list:
        rows = measure(model, held, steps, temperature)
        for group in sorted({r["group"] for r in rows}):
            own = [r for r in rows if r["group"] == group]
            out[f"{group}/{steps}"] = [round(float(np.median([r["r"] for r in own])), 3), round(float(np.median([r["spread"] for r in own])), 2),
                                       round(float(np.median([r["r10"] for r in own])), 3)]
    out["silence"] = {k: v["std"] for k, v in silence(model, held, 2, temperature).items()}
    return out


def main():
    from motion.train import restore
    from motion.sources import load

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data_argument(parser)
    parser.add_argument("--run", type=Path, nargs="+", required=True)
    parser.add_argument("--gain", type=float, default=1.0)
    parser.add_argument("--steps", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--temperature", type=float, nargs="*", default=[0.0, 0.3, 0.5])
    parser.add_argument("--clips", action="store_true", help="every clip, not only the medians")
    parser.add_argument("--hold", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    _, held, basis = load(args.cache, hold=args.hold, kinds=())
    model, _ = restore(args.run, basis, args.gain)
    for steps in args.steps:
        for temperature in args.temperature:
            print(json.dumps({"steps": steps, "temperature": temperature, **summary(model, held, [steps], temperature)}))
            if args.clips:
                for row in measure(model, held, steps, temperature):
                    if row["group"] != "val_grid_s1":
                        print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}))


if __name__ == "__main__":
    main()
