"""Landmarks as the engine's own tracker sees them: `lipstream eval VIDEO --points FILE.csv`, a line a frame at 25 frames a second."""

import subprocess
from pathlib import Path

import numpy as np

from common import mesh
from common.runs import clips


def read(path):
    """(points f32 [T, 111, 2] in pixels, found bool [T]); where there is no face the nearest frame's points, in time."""
    rows = [line.split(",") if line else None for line in Path(path).read_text().splitlines()]
    found = np.array([row is not None for row in rows])
    if not found.any():
        raise ValueError(f"{path}: no face in any frame")
    known, at = np.flatnonzero(found), np.arange(len(rows))
    values = np.array([rows[k] for k in known], np.float32)
    filled = np.stack([np.interp(at, known, values[:, k]) for k in range(values.shape[1])], 1)
    return filled.reshape(len(rows), mesh.P, 2).astype(np.float32), found


def write(data, cache, lipstream, wanted=None):
    """One CSV a clip (all, or those `wanted`) under CACHE/points; clips that have one are skipped. Yields what failed: (clip, reason)."""
    for relative in clips(data) if wanted is None else wanted:
        out = cache / "points" / relative.with_suffix(".csv")
        if out.exists():
            continue
        out.parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run([lipstream, "eval", data / relative, "--points", out, "--device", "cpu"], capture_output=True, text=True)
        if done.returncode:
            yield relative, done.stderr.strip()
