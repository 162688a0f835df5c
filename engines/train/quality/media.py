"""What is measured, read with ffmpeg: frames on a grid of 25 a second, sound from the first frame on, landmarks by `lipstream`."""

import hashlib
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from audio import LENGTH, RATE as SAMPLES_A_SECOND, SHIFT, log_mel
from quality.figures import RATE, align, fill

FRAME = SAMPLES_A_SECOND // RATE


def run(*command, **options):
    """Standard output of a program that must succeed."""
    done = subprocess.run([str(c) for c in command], capture_output=True, **options)
    if done.returncode:
        said = done.stderr if isinstance(done.stderr, str) else done.stderr.decode(errors="replace")
        raise SystemExit(f"{' '.join(map(str, command))}: {said.strip() or done.returncode}")
    return done.stdout


def probe(path, kind):
    """The first stream of `kind` (v or a) and the container, as ffprobe describes them; (None, container) without one."""
    fields = "stream=width,height,pix_fmt,color_range,start_time:stream_side_data=rotation:format=start_time"
    out = json.loads(run("ffprobe", "-v", "error", "-select_streams", f"{kind}:0", "-show_entries", fields, "-of", "json", path))
    return (out.get("streams") or [None])[0], out.get("format", {})


def start(path):
    """Seconds from the container's start to the first frame of its video."""
    stream, container = probe(path, "v")
    number = lambda where: float(where.get("start_time", 0.0))
    return number(stream) - number(container) if stream else 0.0


def places(path):
    """Which place of the grid each decoded frame takes."""
    entries = "packet=pts_time,flags"
    lines = run("ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", entries, "-of", "csv=p=0", path, text=True).split()
    rows = [line.split(",") for line in lines if not line.startswith("N/A")]
    times = np.array(sorted(float(row[0]) for row in rows if "D" not in row[1]))
    return np.floor((times - times[0]) * RATE + 0.5).astype(int) if len(times) else np.zeros(0, int)


def frames(path):
    """Yield (luma uint8 [h, w], black, gain), one a place of the grid; of several frames the first, of none the one before.

    (luma - black) * gain is brightness 0..255.
    """
    stream, _ = probe(path, "v")
    if stream is None:
        raise SystemExit(f"{path}: no video in this file")
    width, height = stream["width"], stream["height"]
    if any(abs(d.get("rotation", 0)) % 180 == 90 for d in stream.get("side_data_list", [])):
        width, height = height, width
    full = stream.get("color_range") == "pc" or stream["pix_fmt"].startswith("yuvj")
    form = "yuvj420p" if full else "yuv420p"
    size = width * height + 2 * ((width + 1) // 2) * ((height + 1) // 2)
    command = ["ffmpeg", "-nostdin", "-v", "fatal", "-threads", "1", "-i", str(path), "-map", "v:0", "-fps_mode", "passthrough"]
    process = subprocess.Popen([*command, "-f", "rawvideo", "-pix_fmt", form, "-"], stdout=subprocess.PIPE, bufsize=1 << 20)
    scale = (0.0, 1.0) if full else (16.0, 255 / 219)
    shown, next_place = None, 0
    try:
        for place in places(path):
            data = process.stdout.read(size)
            if len(data) < size:
                break
            if place < next_place:
                continue
            while next_place < place:
                yield shown
                next_place += 1
            shown = (np.frombuffer(data, np.uint8, width * height).reshape(height, width), *scale)
            yield shown
            next_place += 1
    finally:
        process.stdout.close()
        process.kill()
        process.wait()


def sound(path, from_second=0.0):
    """Mono samples f32 of 16 kHz from a second of the container's time on; None without sound."""
    if probe(path, "a")[0] is None:
        return None
    resample = f"aresample={SAMPLES_A_SECOND}:async=1:first_pts=0"
    command = ["ffmpeg", "-nostdin", "-v", "error", "-i", path, "-map", "a:0", "-af", resample, "-ac", "1", "-f", "f32le", "-"]
    samples = np.frombuffer(run(*command), np.float32)
    skip = round(from_second * SAMPLES_A_SECOND)
    return samples[skip:] if skip >= 0 else np.concatenate([np.zeros(-skip, np.float32), samples])


def own_sound(path):
    """The sound of a video from its first frame on; None without sound."""
    return sound(path, start(path))


class Points:
    """Landmarks by `lipstream eval --points`, kept in a folder where one is given."""

    def __init__(self, lipstream, folder=None):
        self.lipstream = Path(lipstream)
        if not self.lipstream.is_file():
            raise SystemExit(f"{lipstream}: no such program; `make build` makes it, --lipstream PATH names another")
        self.kept = tempfile.TemporaryDirectory() if folder is None else None
        self.folder = Path(folder or self.kept.name)
        self.folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, video):
        """[frames, 111, 2] pixels, NaN without a face."""
        path = Path(video).resolve()
        stat = path.stat()
        key = hashlib.sha256(f"{path} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:16]
        table = self.folder / f"{path.stem}.{key}.csv"
        if not table.is_file():
            run(self.lipstream, "eval", path, "--points", table)
        rows = [line.split(",") if line else [np.nan] * 222 for line in table.read_text().splitlines()]
        return np.array(rows, float).reshape(-1, 111, 2)


class Expert:
    """The sync expert of a folder: lips.onnx and voice.onnx."""

    def __init__(self, folder):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        open_ = lambda name: onnxruntime.InferenceSession(str(Path(folder) / name), options, providers=["CPUExecutionProvider"])
        self.lips_net, self.voice_net = open_("lips.onnx"), open_("voice.onnx")

    def lips(self, points):
        """[frames, 64] of [frames, 111, 2]."""
        maps = align(points)
        flat = np.stack([(p[:40] @ m[:, :2].T + m[:, 2]).ravel() for p, m in zip(points, maps)])
        return self.lips_net.run(["embedding"], {"lips": fill(flat)[None].astype(np.float32)})[0][0]

    def voice(self, samples):
        """[frames, 64] of a sound, the last frame completed with silence."""
        count = -(-len(samples) // FRAME)
        padded = np.zeros(count * FRAME + LENGTH - SHIFT, np.float32)
        padded[: len(samples)] = samples
        return self.voice_net.run(["embedding"], {"mel": log_mel(padded)[None].astype(np.float32)})[0][0]
