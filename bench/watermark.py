#!/usr/bin/env python3
"""How well `lipstream detect` tells videos with the mark from those without.

    python3 bench/watermark.py --lipstream target/release/lipstream --work FOLDER \
        [--unmarked FILE...] [--video FILE...] [--speech FILE] [--other-keys 64]

Every VIDEO is rendered twice with SPEECH, with the mark and without. Both go through every chain of CHAINS by ffmpeg. `detect`
looks at all of them, and at the UNMARKED files as they are, and seeks keys that nobody uses as well: what they score is what
chance does on the same pictures. Written are FOLDER/watermark.json and, on stdout, the tables of docs/provenance.md.

PSNR is of the marked render against the unmarked one in the pixels of brightness that differ, each with the eight around it, frame by
frame; both are encoded without loss for it. A figure of a chain is never of one stretch: it is of all stretches of 5 s that overlap by half.
"""

import argparse
import json
import math
import pathlib
import subprocess
import sys

import numpy as np

CROP = "crop=floor(iw*0.9/2)*2:floor(ih*0.9/2)*2"
SCALE = "scale=floor(iw*{0}/2)*2:floor(ih*{0}/2)*2"
CHAINS = {
    "as rendered": None,
    "x264 2 Mbit/s": ("null", "2M"),
    "crop, 75 %, 2 Mbit/s": (CROP + "," + SCALE.format(0.75), "2M"),
    "crop, 75 %, 1 Mbit/s": (CROP + "," + SCALE.format(0.75), "1M"),
    "crop, 50 %, 500 kbit/s": (CROP + "," + SCALE.format(0.5), "500k"),
}


def run(command):
    return subprocess.run(command, check=True, capture_output=True).stdout


def detect(lipstream, file, keys, work):
    """What `detect` says, kept in WORK/said, so that a run that was ended goes on."""
    kept = work / "said" / (str(file.absolute()).replace("/", "_") + ".json")
    if not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        done = subprocess.run([lipstream, "detect", "--json", "--other-keys", str(keys), str(file)], capture_output=True)
        kept.write_bytes(done.stdout)
    return json.loads(kept.read_text()) if kept.stat().st_size else None


def planes(file):
    text = run(["ffprobe", "-v", "error", "-select_streams", "v", "-show_entries", "stream=width,height", "-of", "csv=p=0", str(file)])
    width, height = (int(v) for v in text.decode().strip().split(",")[:2])
    pipe = subprocess.Popen(
        ["ffmpeg", "-v", "error", "-i", str(file), "-f", "rawvideo", "-pix_fmt", "gray", "-"], stdout=subprocess.PIPE
    )
    while len(data := pipe.stdout.read(width * height)) == width * height:
        yield np.frombuffer(data, np.uint8).reshape(height, width).astype(np.int16)


def psnr(marked, plain):
    """Of the region that is marked, over all frames, and the least of a frame."""
    total, count, least = 0.0, 0, math.inf
    for a, b in zip(planes(marked), planes(plain)):
        difference = a - b
        region = difference != 0
        for axis in (0, 1):
            region |= np.roll(region, 1, axis) | np.roll(region, -1, axis)
        if region.any():
            square = float((difference[region].astype(float) ** 2).mean())
            total, count = total + square, count + 1
            least = min(least, 10 * math.log10(255**2 / square))
    return 10 * math.log10(255**2 * count / total), least


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--lipstream", default="target/release/lipstream")
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--video", type=pathlib.Path, nargs="*", default=[pathlib.Path("demo/avatar.mp4")])
    parser.add_argument("--speech", type=pathlib.Path, default=pathlib.Path("demo/speech.flac"))
    parser.add_argument("--unmarked", type=pathlib.Path, nargs="*", default=[])
    parser.add_argument("--other-keys", type=int, default=64)
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    found = {"chains": {name: {"marked": [], "unmarked": []} for name in CHAINS}, "psnr": {}, "files": {}}

    def render(video, name, more):
        out = asked.work / f"{video.stem}-{name}.mkv"
        if not out.exists():
            run([asked.lipstream, "render", "--quiet", "--video", str(video), "--audio", str(asked.speech), "-o", str(out), *more])
        return out

    def note(name, file, truth):
        said = detect(asked.lipstream, file, asked.other_keys, asked.work)
        if said is None:
            return
        found["files"][str(file)] = {k: v for k, v in said.items() if k not in ("stretches", "notices")}
        scores = [stretch["score"] for stretch in said["stretches"]]
        if name is not None:
            found["chains"][name][truth].append({"file": file.name, "verdict": said["verdict"], "scores": scores})
        print(f"{file.name:60} {said['verdict']:12} {said['score']:5.1f} {said['false_alarm']:.0e}", file=sys.stderr, flush=True)

    for video in asked.video:
        exact = [render(video, name, ["--crf", "0", "--no-gather", *more]) for name, more in (("lossless", []), ("lossless-plain", ["--no-marks"]))]
        found["psnr"][video.name] = psnr(*exact)
        for truth, source in zip(("marked", "unmarked"), exact):
            for index, (name, chain) in enumerate(CHAINS.items()):
                out = asked.work / f"{video.stem}-{truth}-{index}.mp4"
                filters, rate = chain or ("null", None)
                rate = ["-b:v", rate] if rate else ["-crf", "18"]
                if not out.exists():
                    run(["ffmpeg", "-v", "error", "-y", "-i", str(source), "-an", "-vf", filters, "-pix_fmt", "yuv420p",
                         "-c:v", "libx264", "-preset", "veryfast", *rate, str(out)])
                note(name, out, truth)
    for file in asked.unmarked:
        note(None, file, "unmarked")

    plain = [f for path, f in found["files"].items() if f["verdict"] != "cannot-tell" and "-marked-" not in path]
    seconds = sum(f["face_seconds"] for f in plain)
    others = np.array([score for f in plain for score in f["other_keys"]])
    found["unmarked_seconds"] = seconds
    found["false_alarms"] = sum(f["verdict"] == "marked" for f in plain)
    (asked.work / "watermark.json").write_text(json.dumps(found, indent=1))
    print(f"unmarked: {len(plain)} files, {seconds:.0f} s, false alarms {found['false_alarms']}, best score {max((f['score'] for f in plain), default=0):.2f}")
    if len(others):
        tried = sum(f["face_seconds"] * len(f["other_keys"]) for f in plain)
        print(f"other keys: {len(others)} files x keys, {tried:.0f} s x keys, best score {others.max():.2f}")
    print("\n| chain | files | found | least score of a file | stretches | " + " | ".join(f"score >= {t}" for t in (5, 6, 7, 8)) + " |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, chain in found["chains"].items():
        scores = np.array([s for f in chain["marked"] for s in f["scores"]])
        if not len(scores):
            continue
        hit = sum(f["verdict"] == "marked" for f in chain["marked"])
        least = min(found["files"][str(asked.work / f["file"])]["score"] for f in chain["marked"])
        rates = " | ".join(f"{(scores >= t).mean():.3f}" for t in (5, 6, 7, 8))
        print(f"| {name} | {len(chain['marked'])} | {hit} | {least:.1f} | {len(scores)} | {rates} |")
    for name, (all_frames, least) in found["psnr"].items():
        print(f"PSNR {name}: {all_frames:.1f} dB, {least:.1f} dB in the worst frame")


if __name__ == "__main__":
    main()
