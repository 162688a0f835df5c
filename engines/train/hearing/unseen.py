#!/usr/bin/env python3
"""Clips of other people, for measuring alone: their sound and the opening of their lips.

    python -m hearing.unseen --data DATA --cache CACHE       DATA/talking/val/free_*.mp4 with labels (labels.py clips) in CACHE/labels -> CACHE/clips.npz
"""

import argparse
import json
from pathlib import Path

import numpy as np

from common import mesh
from common.runs import clips
from motion.data import aligned, held, opening, pcm, rests, smooth


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--template", type=Path, default=Path(__file__).parents[2] / "models/tracker/template.json")
    args = parser.parse_args()
    template = np.array(json.loads(args.template.read_text())["points"])
    names, arrays = [], {}
    for relative in clips(args.data):
        z = np.load(args.cache / "labels" / relative.with_suffix(".npz"))
        if z["found"].mean() < 0.9:
            print(f"{relative}: no face in {1 - z['found'].mean():.2f} of it")
            continue
        p = smooth(aligned(held(z["points"], z["found"])[:, mesh.MESH], template))
        lower = p[:, mesh.LOWER].reshape(len(p), -1)
        gap = opening(lower)
        gap = gap - np.median(gap[rests(lower, gap)[1]])
        k = len(names)
        arrays[f"gap{k}"], arrays[f"pcm{k}"] = (gap / np.quantile(gap, 0.95)).astype(np.float32), pcm(args.data / relative)
        names.append(relative.stem)
    np.savez(args.cache / "clips.npz", names=json.dumps(names), **arrays)
    print(names)


if __name__ == "__main__":
    main()
