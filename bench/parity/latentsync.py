#!/usr/bin/env python3
"""LatentSync's published program beside `exact`: the same video, speech, weights, landmarks and noise, frame by frame.

    bench/parity/latentsync.py --original LatentSync --weights latentsync15 --out /tmp/parity

`--original` is a checkout of bytedance/LatentSync, `--weights` a folder with latentsync_unet.pt, its config.json, tiny.pt and
vae. What the program gets from here: the three points of each face as `lipfacetrack` sees them (InsightFace's weights are not
free), our stream of noise in the place of torch.randn, and the video as it is, which it would compress before. It runs on a CPU
in float32, its alignment too, which it would do in float16. Frames of clips that are not full are left out: the program makes
two frames more of a speech than last while it is heard. Prints JSON, in 1/255; exit code 1 where the mean in the painted part
of the face is above `--tolerance`.
"""
import argparse
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

import published

HERE = Path(__file__).resolve().parents[2]
# What `render` takes.
SEED = 0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--original", type=Path, required=True, help="checkout of bytedance/LatentSync")
    parser.add_argument("--weights", type=Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--video", type=Path, default=HERE / "demo/avatar.mp4")
    parser.add_argument("--audio", type=Path, default=HERE / "demo/speech.flac")
    parser.add_argument("--start", type=float, default=0, help="seconds of the video to leave out")
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--build", type=Path, default=HERE / "target/release", help="folder of lipstream and its plugin")
    parser.add_argument("--tolerance", type=float, default=2)
    parser.add_argument("--parts", default="inputs,original,ours,compare")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def call(*command, **more):
    return subprocess.run([str(part) for part in command], check=True, **more)


def inputs(args):
    """The video without loss in RGB, a little longer than the speech; the speech at 16 kHz; the points of each frame."""
    quiet = ["ffmpeg", "-v", "error", "-y"]
    call(*quiet, "-ss", args.start, "-i", args.video, "-frames:v", round(25 * args.seconds) + 10, "-an", "-r", 25,
         "-c:v", "ffv1", "-pix_fmt", "bgr0", args.out / "video.mkv")
    call(*quiet, "-i", args.audio, "-t", args.seconds, "-ac", 1, "-ar", 16000, "-c:a", "pcm_s16le", args.out / "speech.wav")
    found = call(args.build / "lipstream-bench-latent", "points", args.out / "video.mkv", stdout=subprocess.PIPE).stdout
    (args.out / "points.jsonl").write_bytes(found)


def ours(args):
    """`exact` from a checkpoint on: the import, the bin on RGB frames, and the file that `render` writes."""
    env = dict(os.environ, XDG_DATA_HOME=str(args.out / "data"), GST_PLUGIN_PATH=str(args.build))
    program, weights = args.build / "lipstream", args.weights
    sources = [weights / name for name in ("latentsync_unet.pt", "tiny.pt", "vae", "config.json")]
    call(program, "import", "latentsync", *sum((["--from", path] for path in sources), []), "--name", "latentsync15",
         "--replace", "--quiet", env=env, stdout=sys.stderr)
    engine = args.out / "data/lipstream/engines/latentsync15"
    sync = ["lipsync", "name=ls", f"engine={engine}", "exact=true", "device=cpu", f"steps={args.steps}", f"seed={SEED}"]
    call("gst-launch-1.0", "-q", *sync,
         "filesrc", f"location={args.out / 'video.mkv'}", "!", "decodebin3", "!", "videoconvert", "!", "video/x-raw,format=RGB",
         "!", "ls.video_sink", "filesrc", f"location={args.out / 'speech.wav'}", "!", "decodebin3", "!", "audioconvert",
         "!", "ls.audio_sink", "ls.video_src", "!", "video/x-raw,format=RGB", "!", "filesink",
         f"location={args.out / 'ours.rgb'}", "ls.audio_src", "!", "fakesink", env=env)
    call(program, "render", "--exact", "--engine", engine, "--device", "cpu", "--steps", args.steps, "--crf", 0, "--video",
         args.out / "video.mkv", "--audio", args.out / "speech.wav", "-o", args.out / "ours.mkv", "--quiet", env=env, stdout=sys.stderr)


def frames_of(path):
    """RGB frames of a video, `[frames, rows, columns, 3]`."""
    video, frames = cv2.VideoCapture(str(path)), []
    while (frame := video.read())[0]:
        frames.append(frame[1][..., ::-1])
    return np.stack(frames)


def figures(a, b, where):
    """Differences where `where` holds: mean over all frames, the worst frame's mean, and the largest."""
    apart = np.abs(a.astype(np.int16) - b).max(-1)
    each = [float(d[w].mean()) for d, w in zip(apart, where) if w.any()]
    inside = apart[where]
    return {"mean": float(inside.mean()), "worst_frame": max(each), "largest": int(inside.max()),
            "above_2": float((inside > 2).mean())}


def compare(args):
    original = np.load(args.out / "original.npz")
    before = frames_of(args.out / "video.mkv")
    wanted, painted, clip = original["frames"], original["painted"], int(original["clip"])
    raw = np.fromfile(args.out / "ours.rgb", np.uint8).reshape(-1, *before.shape[1:])
    rendered = frames_of(args.out / "ours.mkv")
    count = min(len(raw), len(rendered), len(wanted)) // clip * clip
    if count == 0:
        sys.exit(f"no whole clip: {len(wanted)} frames of theirs, {len(raw)} and {len(rendered)} of ours")
    everywhere = np.ones(painted[:count].shape, bool)
    # What the conversion to 4:2:0 does to colours is done to both.
    stored = published.as_rendered(wanted[:count], args.out / "original.mkv")
    report = {
        "frames": count, "of_theirs": len(wanted), "of_ours": len(raw), "size": list(before.shape[1:3]),
        "painted_share": float(painted[:count].mean()), "steps": args.steps, "seed": SEED,
        "bin": {"painted": figures(raw[:count], wanted[:count], painted[:count]),
                "frame": figures(raw[:count], wanted[:count], everywhere)},
        "render": {"painted": figures(rendered[:count], frames_of(stored)[:count], painted[:count])},
        # How much there is to be wrong about.
        "painted_over_input": {"theirs": figures(wanted[:count], before[:count], painted[:count]),
                               "ours": figures(raw[:count], before[:count], painted[:count])},
    }
    print(json.dumps(report, indent=1))
    return report["bin"]["painted"]["mean"] <= args.tolerance and report["render"]["painted"]["mean"] <= args.tolerance


def main():
    args = arguments()
    # The program reads files of its own by relative paths.
    for name in ("original", "weights", "video", "audio", "build", "out"):
        setattr(args, name, getattr(args, name).resolve())
    args.out.mkdir(parents=True, exist_ok=True)
    parts = args.parts.split(",")
    if "inputs" in parts:
        inputs(args)
    if "original" in parts:
        points = [json.loads(line)["points"] for line in (args.out / "points.jsonl").read_text().splitlines()]
        # It talks where the figures go.
        with contextlib.redirect_stdout(sys.stderr):
            made = published.run(args.original, args.weights, args.out, points, args.steps, SEED)
        np.savez(args.out / "original.npz", **made)
    if "ours" in parts:
        ours(args)
    if "compare" in parts and not compare(args):
        sys.exit(1)


if __name__ == "__main__":
    main()
