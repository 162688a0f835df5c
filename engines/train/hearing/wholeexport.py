#!/usr/bin/env python3
"""Write audio-whole.onnx and motion-whole.onnx, and hearing-whole.json with their facts, and check them against torch.

    python -m hearing export-whole --cache CACHE --weights FILE --four FILE --run DIR [DIR ..] --gain G --out FOLDER      the mean of the runs' weights
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import onnx
import torch

from hearing import encoder as whisper
from hearing import export, four, sources, whole, wholegraph, wholemeasure, windows
from hearing.net import TAPS, WHOLE
from hearing.train import SHIPPED


@torch.no_grad()
def write(encoder, model, found, folder, gain=1.0, facts=()):
    folder.mkdir(parents=True, exist_ok=True)
    model = model.eval()
    motion = model.motions[str(WHOLE)]
    motion.gain = gain
    onnx.save(wholegraph.made(encoder, model, found), str(folder / "audio-whole.onnx"))
    export.write_motion(motion, folder / "motion-whole.onnx")
    files = wholemeasure.Files(folder, model.opening.numpy())
    mel, tokens = wholemeasure.windows_of(export.sound(9.0))
    got = files.features(export.sound(9.0))
    want = windows.middles(model.features(encoder.whole(mel, causal=False)), tokens)
    spent = []
    for _ in range(5):
        begin = time.perf_counter()
        files.audio.run(None, {"mel": mel[:1].numpy()})
        spent.append(time.perf_counter() - begin)
    facts = {"tokens": windows.WINDOW, "margin": windows.MARGIN, "features": model.out.out_features, "taps_ms": TAPS[WHOLE], "gain": gain, "blocks": encoder.layers,
             "bytes": {name: (folder / name).stat().st_size for name in ("audio-whole.onnx", "motion-whole.onnx")},
             "off_torch": round(float((got - want).square().mean().sqrt() / want.std()), 4), "ms_a_window": round(1000 * min(spent), 1), **dict(facts)}
    (folder / "hearing-whole.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts))


def main(args):
    torch.set_num_threads(1)
    basis, _ = sources.basis_of(args.cache, SHIPPED)
    model, kept = whole.restore(args.run, basis)
    encoder = whisper.load(args.weights, layers=kept["states"] - 1)
    found = four.load(args.four)
    four.put(encoder, found)
    write(encoder, model, found, args.out, args.gain, {"runs": [run.name for run in args.run], "step": kept["step"]})


def arguments(sub):
    one = sub.add_parser("export-whole", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    one.add_argument("--cache", type=Path, required=True)
    one.add_argument("--weights", type=Path, required=True)
    one.add_argument("--four", type=Path, required=True)
    one.add_argument("--run", type=Path, nargs="+", required=True)
    one.add_argument("--gain", type=float, default=1.0, help="scale of the motion, against regression's shrinking")
    one.add_argument("--out", type=Path, required=True)
    one.set_defaults(action=main)
