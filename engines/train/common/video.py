"""Decoding by the ffmpeg program: no codec library is a dependency of training."""

import json
import subprocess

import numpy as np


def probe(path):
    """(width, height, frames per second) of the first video stream as it is shown (rotation applied)."""
    fields = "stream=width,height,avg_frame_rate:stream_side_data=rotation"
    out = subprocess.check_output(
        ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", fields, "-of", "json", str(path)]
    )
    stream = json.loads(out)["streams"][0]
    width, height = stream["width"], stream["height"]
    if any(abs(d.get("rotation", 0)) % 180 == 90 for d in stream.get("side_data_list", [])):
        width, height = height, width
    number, unit = map(int, stream["avg_frame_rate"].split("/"))
    return width, height, number / max(unit, 1)


def frames(path, fps=None):
    """Yield BGR frames uint8 [h, w, 3]; frame k is what is on screen at k / fps seconds of the stream's time."""
    width, height, _ = probe(path)
    chain = ["-vf", f"fps={fps}:start_time=0"] if fps else []
    command = ["ffmpeg", "-v", "error", "-threads", "1", "-i", str(path), *chain, "-f", "rawvideo", "-pix_fmt", "bgr24", "-"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=1 << 20)
    size = width * height * 3
    try:
        while len(data := process.stdout.read(size)) == size:
            yield np.frombuffer(data, np.uint8).reshape(height, width, 3)
    finally:
        process.stdout.close()
        process.kill()
        process.wait()
