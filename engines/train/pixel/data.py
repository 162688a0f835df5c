"""Clips of one person as pictures of the mouth's box and windows of features.

    python -m pixel.data --clips FOLDER --cache DIR --lipstream target/release/lipstream [--limit 120]

Writes DIR/pixel/NAME.npz a clip: `pictures` u8 [T, 160, 160, 3] (BGR, the box as the engine cuts it), `features` f32
[H, 128] (a hop of 20 ms) and `found` bool [T]. Clips that have one are skipped.
"""
import argparse
import subprocess
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

from audio import MEL_MEAN, MEL_STD, log_mel
from common import tracked
from common.video import frames
from pixel.net import DIMS, HOPS, HOPS_BEFORE, SIDE

RATE = 16000
FPS = 25
# Landmarks of the 111: root and tip of the nose, ears' ends of the jaw.
ROOT, TIP, EAR_LEFT, EAR_RIGHT = 84, 87, 40, 60
# What the engine cuts off the box on each side, in parts of it.
BORDER = 4 / 168
MODEL = Path(__file__).resolve().parents[2] / "models/compact/audio.onnx"


def box(points):
    """x, y and side of the network's picture on a face of 111 points, in pixels: as engines/src/engine/pixel/region.rs."""
    ear = lambda end, other: points[end, 0] + 0.62 * (points[other, 0] - points[end, 0])
    a, b = ear(EAR_RIGHT, EAR_RIGHT - 1), ear(EAR_LEFT, EAR_LEFT + 1)
    left, side = min(a, b), abs(a - b)
    cut = side * BORDER
    top = points[ROOT, 1] + 2 / 3 * (points[TIP, 1] - points[ROOT, 1])
    return left + cut, top + cut, side - 2 * cut


def picture(frame, points):
    x, y, side = box(points)
    scale = SIDE / side
    # Pixel centres are at whole numbers for OpenCV, and at halves in the engine.
    matrix = np.array([[scale, 0, (0.5 - x) * scale - 0.5], [0, scale, (0.5 - y) * scale - 0.5]])
    return cv2.warpAffine(frame, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def sound(path):
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-ac", "1", "-ar", str(RATE), "-f", "f32le", "-"]
    return np.frombuffer(subprocess.check_output(command), np.float32)


def features(samples, session):
    """What `compact`'s front-end says, a vector a hop of 20 ms, f32 [H, 128]."""
    mel = ((log_mel(np.concatenate([samples, np.zeros(RATE, np.float32)])) - MEL_MEAN) / MEL_STD).astype(np.float32)
    state = np.zeros((1, next(i.shape[1] for i in session.get_inputs() if i.name == "state")), np.float32)
    out = []
    for hop in range(len(mel) // 2):
        feature, state = session.run(["feature", "next_state"], {"mel": mel[None, 2 * hop:2 * hop + 2], "state": state})
        out.append(feature[0])
    return np.stack(out)


def window(hops, time):
    """The features around a frame at `time` in seconds, f32 [16, 16, 16]: linear between hops, the ends repeated."""
    at = time / 0.02 + np.arange(HOPS) - HOPS_BEFORE
    low = np.floor(at).astype(int)
    part = (at - low)[:, None].astype(np.float32)
    take = lambda i: hops[np.clip(i, 0, len(hops) - 1)]
    return (take(low) * (1 - part) + take(low + 1) * part).reshape(HOPS * DIMS // 256, 16, 16)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--lipstream", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=120)
    args = parser.parse_args()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
    folder = args.cache / "pixel"
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(args.clips.glob("*.mp4"))[:args.limit]:
        out = folder / f"{path.stem}.npz"
        if out.exists():
            continue
        csv = folder / f"{path.stem}.csv"
        done = subprocess.run([args.lipstream, "eval", path, "--points", csv, "--device", "cpu"], capture_output=True, text=True)
        if done.returncode:
            print(f"{path.name}: {done.stderr.strip()}", flush=True)
            continue
        points, found = tracked.read(csv)
        shown = [picture(frame, p) for frame, p in zip(frames(path, FPS), points)]
        np.savez(out, pictures=np.stack(shown), features=features(sound(path), session), found=found[:len(shown)])
        csv.unlink()


if __name__ == "__main__":
    main()
