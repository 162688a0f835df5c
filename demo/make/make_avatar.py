#!/usr/bin/env python3
"""Render the demo avatar from MakeHuman's CC0 assets and encode it.

    make_avatar.py --assets DIR [--out avatar.mp4] [--still SECONDS PNG]
"""
import argparse
import subprocess
import sys
import time

import numpy as np

import motion
from render import Renderer
from scene import Scene


def encoder(path, width, height, crf):
    """An ffmpeg that takes RGB frames on its standard input."""
    colour = ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"]
    command = ["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(motion.RATE)]
    command += ["-i", "-", "-vf", "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p", "-c:v", "libx264", "-preset", "veryslow"]
    command += ["-tune", "animation", "-crf", str(crf), "-g", "100", "-threads", "1", *colour, "-movflags", "+faststart", "-an", str(path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", required=True, help="folder with base.obj, targets/, eyelashes/, eyebrows/, teeth/, tongue/")
    parser.add_argument("--out", default="avatar.mp4")
    parser.add_argument("--crf", type=int, default=17)
    parser.add_argument("--still", nargs=2, metavar=("SECONDS", "PNG"), help="one frame instead of the film")
    args = parser.parse_args()

    scene, renderer, poses = Scene(args.assets), Renderer(), motion.poses()
    width, height = renderer.size
    if args.still:
        frame = renderer.draw(scene, poses[round(float(args.still[0]) * motion.RATE) % len(poses)])
        command = ["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-i", "-", args.still[1]]
        return subprocess.run(command, input=np.ascontiguousarray(frame).tobytes()).returncode
    process, start = encoder(args.out, width, height, args.crf), time.monotonic()
    for i, pose in enumerate(poses):
        process.stdin.write(np.ascontiguousarray(renderer.draw(scene, pose)).tobytes())
        if i % 25 == 24:
            print(f"frame {i + 1} of {len(poses)}, {(time.monotonic() - start) / (i + 1):.2f} s each", file=sys.stderr, flush=True)
    process.stdin.close()
    return process.wait()


if __name__ == "__main__":
    sys.exit(main())
