#!/usr/bin/env python3
"""What files are heard with, from sound to opening: by torch on the encoder, or by ONNX Runtime on the files.

    python -m hearing heard --cache CACHE --weights FILE --four FILE --run DIR [DIR ..] [--data DATA]      the mean of the runs' weights
    python -m hearing heard --cache CACHE --folder FOLDER [--data DATA]                                   FOLDER/audio-whole.onnx and motion-whole.onnx
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from hearing import encoder as whisper
from hearing import four, measure, sources, whole, windowed, windows
from hearing import mel as front
from hearing.cache import hash_of
from hearing.net import WHOLE, gather
from hearing.train import SHIPPED
from motion.export import session


def windows_of(samples, window=windows.WINDOW, margin=windows.MARGIN):
    """(windows of f32 samples, their tokens: to half a second after them)."""
    tokens = (len(samples) + front.RATE // 2) // 320
    return windows.cut(front.log_mel(torch.from_numpy(samples)[None])[0], tokens, window, margin), tokens


class Torch:
    """Encoder and model."""

    def __init__(self, encoder, model, window=windows.WINDOW, margin=windows.MARGIN, half=True):
        self.encoder, self.model, self.sizes, self.half = encoder, model, (window, margin), half

    @torch.no_grad()
    def __call__(self, samples):
        mel, tokens = windows_of(samples, *self.sizes)
        rows = torch.cat([self.model.features_of_normed(windowed.states_of(self.encoder, part, self.half)) for part in mel.split(4)])
        return whole.opening_of(self.model, windows.middles(rows, tokens, *self.sizes), len(samples) // 640)


class Files:
    """The files of a folder; `opening` [D] makes latents an opening."""

    def __init__(self, folder, opening, window=windows.WINDOW, margin=windows.MARGIN):
        self.audio, self.motion = session(folder / "audio-whole.onnx"), session(folder / "motion-whole.onnx")
        self.opening, self.sizes = opening, (window, margin)

    def features(self, samples):
        mel, tokens = windows_of(samples, *self.sizes)
        rows = np.concatenate([self.audio.run(None, {"mel": m[None].numpy()})[0] for m in mel])
        return windows.middles(torch.from_numpy(rows), tokens, *self.sizes)

    def __call__(self, samples):
        frames = len(samples) // 640
        cond = gather(self.features(samples)[None], torch.arange(frames)[None] * 40.0, WHOLE)[0].numpy()
        zeros = np.zeros((frames, len(self.opening)), np.float32)
        return self.motion.run(None, {"latent": zeros, "timestep": np.zeros(frames, np.float32), "cond": cond})[0] @ self.opening


def rows_of(opening, clips):
    out = []
    for clip in clips:
        if clip.group and not (clip.group == "val_grid_s1" and hash_of(clip.name) % 4):
            got = opening(clip.pcm.astype(np.float32) / 32768)
            frames = min(int(len(clip.opening) * measure.FPS / clip.fps), len(got))
            out.append(measure.row_of(clip, got[:frames], np.interp(np.arange(frames) / measure.FPS * clip.fps, np.arange(len(clip.opening)), clip.opening)))
    return out


def main(args):
    torch.set_num_threads(args.threads)
    clips, basis = sources.load(args.cache, SHIPPED)
    if args.folder:
        opening = Files(args.folder, basis["opening"], args.window, args.margin)
    else:
        model, kept = whole.restore(args.run, basis)
        encoder = whisper.load(args.weights, layers=kept["states"] - 1)
        if args.four:
            four.put(encoder, four.load(args.four))
        opening = Torch(encoder, model, args.window, args.margin)
    rows = rows_of(opening, clips)
    for group, row in measure.table(rows).items():
        print(group, json.dumps(row), [round(r["r"], 2) for r in rows if r["group"] == group])
    people = [r for r in rows if r["group"] in ("unseen", "val_free", "val_grid_other", "val_gen")]
    print(f"mean r {np.mean([r['r'] for r in people]):.3f}, closures {sum(r['met'] for r in people)} of {sum(r['closures'] for r in people)}")
    speech = next(c for c in clips if c.group == "val_free").pcm[:48000].astype(np.float32) / 32768
    print(json.dumps(measure.quiet(opening, speech, 0.3)))
    if args.data:
        print(json.dumps(measure.spoken(opening, args.data, clips)))


def arguments(sub):
    one = sub.add_parser("heard", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    one.add_argument("--cache", type=Path, required=True)
    one.add_argument("--weights", type=Path)
    one.add_argument("--four", type=Path)
    one.add_argument("--run", type=Path, nargs="+")
    one.add_argument("--folder", type=Path)
    one.add_argument("--window", type=int, default=windows.WINDOW)
    one.add_argument("--margin", type=int, default=windows.MARGIN)
    one.add_argument("--data", type=Path, help="adds closures at known times; needs libespeak-ng")
    one.add_argument("--threads", type=int, default=1)
    one.set_defaults(action=main)
