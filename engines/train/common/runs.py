"""Where data lies, and how a run writes down what it does."""

import json
import os
import random
import time
from pathlib import Path

import numpy as np


def data_argument(parser):
    """Add `--data`; without it the folder `data` of LIPSTREAM_SHARED."""
    shared = os.environ.get("LIPSTREAM_SHARED")
    parser.add_argument("--data", type=Path, default=Path(shared) / "data" if shared else None, required=shared is None,
                        help="folder of the training data (default: $LIPSTREAM_SHARED/data)")
    parser.add_argument("--cache", type=Path, required=True, help="folder for what is computed from the data")


def clips(data):
    """Every clip's path relative to `data`, what others wait for first."""
    order = ("talking/val", "talking/train/grid_other", "talking/train/free_*", "talking/train/gen_*", "talking/train/grid_s1",
             "faces", "avatars")
    out = []
    for entry in order:
        found = sorted(data.glob(entry + ".mp4")) if "*" in entry else sorted((data / entry).rglob("*.mp4"))
        out += [p.relative_to(data) for p in found]
    return out


# Nobody of these is in training, and neither is anybody of talking/val but the GRID speaker s1.
HELD_OUT = ("faces/liveportrait_d10", "faces/liveportrait_d6", "faces/liveportrait_d3", "avatars/mates_003", "avatars/mates_004",
            "avatars/liveportrait_s29", "avatars/liveportrait_s32", "avatars/dhlive_b")


def is_val(relative):
    name = str(Path(relative).with_suffix(""))
    return name.startswith("talking/val/") or name in HELD_OUT


def seed_all(seed):
    random.seed(seed)
    np.random.seed(seed)
    import torch

    torch.manual_seed(seed)


class Log:
    """One JSON object a line, appended, so that a resumed run goes on in the same file."""

    def __init__(self, path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.start = time.time()

    def __call__(self, **fields):
        line = json.dumps({"seconds": round(time.time() - self.start, 1), **fields})
        with open(self.path, "a") as file:
            file.write(line + "\n")
        print(line, flush=True)
