#!/usr/bin/env python3
"""Publishes sources of every kind to a relay and says how its output stays in sync with them.

    bench/sources.py [--only 24,50] [--seconds 24] [--json OUT]

Each source carries a white box and a beep each second. How far they are apart in the source, whose frame rate moves the
box, is measured in the clip itself, and taken from how far they are apart in what a player gets. The exit status is 1 when
a source moves them by more than 20 ms, when a picture or a sound is missing, or when time stamps jump.

Python's standard library, ffmpeg and `make build` are enough.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from live import clips
from live.player import Player
from live.publisher import Publisher
from live.server import Server
from live.stats import table

OFFSET_MS = 20.0
# The first seconds, in which the server finds the source's clock and the player its place.
SETTLE = 4.0

# Name: what it is, options of the clip, options of the publisher.
SOURCES = {
    "25": ("25 fps, 48 kHz", {}, {}),
    "24": ("24 fps", {"fps": 24}, {}),
    "29.97": ("29.97 fps", {"fps": "30000/1001"}, {}),
    "30": ("30 fps", {"fps": 30}, {}),
    "50": ("50 fps", {"fps": 50}, {}),
    "60": ("60 fps", {"fps": 60}, {}),
    "vfr": ("30 fps of which 3 in 10 are missing", {"fps": 30, "frames": "select='gt(random(7),0.3)'"}, {}),
    "44100": ("44.1 kHz", {"rate": 44100}, {}),
    "22050": ("22.05 kHz", {"rate": 22050}, {}),
    "bframes": ("3 B-frames, as encoders have by default", {"bframes": 3}, {}),
    "portrait": ("720x1280", {"size": (720, 1280)}, {}),
    "fast": ("a clock 0.1 % fast", {}, {"rate": 1.001}),
    "slow": ("a clock 0.1 % slow", {}, {"rate": 0.999}),
    "muted": ("no audio track", {}, {"sound": False}),
}


def measure(server, publisher, clip, seconds, options):
    """A player's measure of one source."""
    publisher.start(clip=clip, **options)
    server.wait("relay", lambda s: s["publishing"])
    player = Player(f"{server.rtmp}/relay/synced")
    player.first_frame.wait(20)
    time.sleep(seconds)
    status = server.status("relay")
    player.stop()
    publisher.kill()
    server.wait("relay", lambda s: not s["publishing"])
    return player, status


def judge(player, status, source, muted):
    """The figures of one source, and what is wrong with it."""
    first = player.frames[0][1] + SETTLE if player.frames else 0
    frames = [frame for frame in player.frames if frame[1] > first]
    blocks = [block for block in player.blocks if block[1] > first]
    if len(frames) < 10 or len(blocks) < 10:
        said = player.errors[-1][1] if player.errors else status["reason"] or status["phase"]
        return {}, [f"{len(frames)} pictures and {len(blocks)} sounds came: {said}"]
    steps = [b[0] - a[0] for a, b in zip(frames, frames[1:])]
    span = blocks[-1][0] - blocks[0][0] + blocks[-1][2] / clips.RATE
    out = {
        "fps": (len(frames) - 1) / (frames[-1][0] - frames[0][0]),
        "longest_step_ms": max(steps) * 1e3,
        "shortest_step_ms": min(steps) * 1e3,
        "sound": sum(block[2] for block in blocks) / clips.RATE / span,
        "skew_ppm": status["skew_ppm"],
        "face": status["face"],
    }
    wrong = []
    if min(steps) <= 0:
        wrong.append("time stamps go back")
    if max(steps) > 0.15:
        wrong.append(f"a step of {max(steps) * 1e3:.0f} ms")
    if abs(out["sound"] - 1) > 0.002:
        wrong.append(f"{out['sound'] * 100:.2f} % of the sound")
    if not status["face"]:
        wrong.append("no face was found")
    offsets = [offset for _, at, offset in player.offsets() if at > first]
    if muted:
        return out, wrong
    if len(offsets) < 5:
        return out, [*wrong, f"only {len(offsets)} markers came through"]
    moved = [offset - statistics.mean(source) for offset in offsets]
    out["offset_ms"], out["spread_ms"] = statistics.mean(moved), statistics.pstdev(offsets)
    out["source_spread_ms"], out["markers"] = statistics.pstdev(source), len(offsets)
    if abs(out["offset_ms"]) > OFFSET_MS:
        wrong.append(f"an offset of {out['offset_ms']:+.1f} ms")
    return out, wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="of " + ", ".join(SOURCES))
    parser.add_argument("--seconds", type=float, default=24)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    names = [name for name in args.only.split(",") if name] or list(SOURCES)
    if unknown := [name for name in names if name not in SOURCES]:
        parser.error(f"--only: no {unknown[0]}; there are {', '.join(SOURCES)}")
    rows, report, broken = [], {}, []
    with tempfile.TemporaryDirectory(prefix="lipstream-sources-") as temporary:
        folder = Path(temporary)
        sections = {"sessions": {"load": 1.0, "idle_seconds": 2}}
        with Server(folder, sections, [{"id": "relay", "graph": "relay"}]) as server:
            for name in names:
                what, clip_options, options = SOURCES[name]
                print(what, flush=True)
                clip = clips.marked(folder / "clip.mov", seconds=32, **clip_options)
                in_clip = Player(str(clip), options=[])
                in_clip.process.wait()
                source = [offset for _, _, offset in in_clip.stop().offsets()]
                publisher = Publisher(f"{server.rtmp}/relay", clip, folder / "publisher.log")
                player, status = measure(server, publisher, clip, args.seconds, options)
                out, wrong = judge(player, status, source, options.get("sound") is False)
                broken += [f"{name}: {text}" for text in wrong]
                report[name] = {"what": what, **out, "wrong": wrong}
                rows.append([what, *cells(out)])
            panics = server.panics()
    broken += [f"panic: {line}" for line in panics[:3]]
    print(table(rows))
    print("\n" + ("\n".join(f"BROKEN {text}" for text in broken) if broken else "all in sync"))
    if args.json:
        args.json.write_text(json.dumps({"sources": report, "broken": broken}, indent=1) + "\n")
    sys.exit(1 if broken else 0)


def cells(out):
    if not out:
        return ["nothing came"]
    offset = "no marker" if "offset_ms" not in out else \
        f"A/V {out['offset_ms']:+.1f} ms (spread {out['spread_ms']:.1f}, source {out['source_spread_ms']:.1f})"
    return [f"{out['fps']:.2f} fps", f"steps {out['shortest_step_ms']:.0f} to {out['longest_step_ms']:.0f} ms", offset,
            f"sound {out['sound'] * 100:.2f} %", f"skew {out['skew_ppm']:+.0f} ppm"]


if __name__ == "__main__":
    main()
