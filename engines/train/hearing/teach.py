#!/usr/bin/env python3
"""What an ensemble of teachers says of speech without pictures: latents at 25 frames a second.

    python -m hearing teach --cache CACHE --runs DIR [DIR ..] --views wholepool      writes CACHE/hearing/pseudo.npz
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from hearing import sources
from hearing.cache import EDGE
from hearing.encoder import TOKEN_MS
from hearing.train import SHIPPED, restore

FPS = 25


@torch.no_grad()
def main(args):
    torch.set_num_threads(args.threads)
    basis, _ = sources.basis_of(args.cache, SHIPPED)
    teachers = [restore(run, basis)[0] for run in args.runs]
    arrays, names = {}, []
    apart = []
    for name in args.views:
        store = np.load(args.cache / "hearing" / f"{name}.npy", mmap_mode="r")
        for row in json.loads((args.cache / "hearing" / f"{name}.json").read_text()):
            first = row["token"] - EDGE
            states = torch.from_numpy(np.array(store[first : row["token"] + row["tokens"] + EDGE - 1])).float()
            time = EDGE * TOKEN_MS + torch.arange(row["tokens"] // 2)[None] * (1000.0 / FPS)
            said = [t.motion(t.features([s[None] for s in states.unbind(1)]), time, 160)[0].numpy() for t in teachers]
            arrays[f"z{len(names)}"] = np.mean(said, 0).astype(np.float32)
            apart += [np.corrcoef(said[0] @ basis["opening"], said[-1] @ basis["opening"])[0, 1]]
            names.append(row["name"])
    np.savez(args.cache / "hearing/pseudo.npz", names=json.dumps(names), **arrays)
    print(f"{len(names)} sounds, {sum(len(arrays[f'z{k}']) for k in range(len(names))) / FPS:.0f} s; first and last teacher agree with r = {np.nanmedian(apart):.2f}")


def arguments(sub):
    one = sub.add_parser("teach", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    one.add_argument("--cache", type=Path, required=True)
    one.add_argument("--runs", type=Path, nargs="+", required=True)
    one.add_argument("--views", nargs="+", required=True)
    one.add_argument("--threads", type=int, default=1)
    one.set_defaults(action=main)
