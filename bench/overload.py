#!/usr/bin/env python3
"""Fills the machine with 720p25 avatars that speak until one more is refused, and looks whether the others keep up.

    bench/overload.py [--seconds 30] [--load 0.85] [--json OUT]

Twice: each session with an H.264 viewer by RTMP, and always on without viewers, so without an encoder. With viewers the
intervals are those in which frames arrive at them; without, the server's own. A refusal must be a 503 with a reason.
It fails when a session that was let in falls below 24 frames a second or the 99th percentile of its intervals is above
60 ms. The viewers only read; still they, and whatever else runs here, take of the same cores.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from pathlib import Path

from live import clips
from live.rtmp import Reader
from live.server import Refused, Server
from live.stats import percentile, table

P99_MS, FPS = 60, 24
# More than any machine holds is a server that does not count.
MOST = 500
# Seconds after which a new session's share shows in what the server measures.
SETTLE = 4


def fill(server, speech, watched, seconds):
    """Adds sessions until one is refused. Ids, viewers, the reason."""
    ids, readers = [], []
    while len(ids) < MOST:
        name = f"avatar-{len(ids)}"
        try:
            server.api("POST", "/sessions", {"id": name, "graph": "avatar", "avatar": "demo", "always_on": not watched})
            if watched:
                # A session that is not always on starts with its viewer; it is admitted then.
                reader = Reader(f"{server.rtmp}/{name}/synced")
                if reader.first_frame(10) is None:
                    reader.stop()
                    server.api("DELETE", f"/sessions/{name}")
                    return ids, readers, server.api("GET", "/capacity")["full"] or reader.failure or "no frame came"
                readers.append(reader)
        except Refused as refused:
            if refused.status != 503:
                raise
            return ids, readers, json.loads(refused.body).get("detail", refused.body)
        ids.append(name)
        for _ in range(1 + int((seconds + 60) / 18)):
            server.speak(name, speech)
        time.sleep(SETTLE)
    return ids, readers, f"none was refused up to {MOST}"


def measure(folder, speech, watched, args):
    with Server(folder, {"sessions": {"load": args.load, "max_sessions": MOST}}) as server:
        ids, readers, reason = fill(server, speech, watched, args.seconds)
        for name in ids:
            server.speak(name, speech)
        time.sleep(2)
        before, start = server.usage()["cpu"], time.monotonic()
        frames = {name: server.status(name) for name in ids}
        p99 = {name: 0.0 for name in ids}
        while time.monotonic() < start + args.seconds:
            time.sleep(1)
            for name in ids:
                p99[name] = max(p99[name], server.status(name)["interval_p99_ms"])
        span = time.monotonic() - start
        cores = (server.usage()["cpu"] - before) / span
        capacity = server.api("GET", "/capacity")
        rows, broken = [], []
        for n, name in enumerate(ids):
            now = server.status(name)
            if watched:
                times = [at for _, at, _ in readers[n].frames if start < at < start + span]
                fps, worst = len(times) / span, percentile([b - a for a, b in zip(times, times[1:])], 0.99) * 1e3
            else:
                fps, worst = (now["frames"] - frames[name]["frames"]) / span, p99[name]
            counts = {key: now[key] - frames[name][key] for key in ("frames_held", "frames_late", "frames_dropped")}
            rows.append([name, f"{fps:.2f} fps", f"interval p99 {worst:.0f} ms", f"in the server {p99[name]:.0f} ms",
                         *(f"{value} {key[7:]}" for key, value in counts.items()), "" if now["speaking"] else "silent"])
            if fps < FPS or not worst <= P99_MS:
                broken.append(f"{name}: {fps:.2f} frames a second, p99 {worst:.0f} ms")
        for reader in readers:
            reader.stop()
        panics = server.panics()
    broken += [f"panic: {line}" for line in panics[:3]]
    if not ids:
        broken.append("not one session was let in")
    title = "with an H.264 viewer each" if watched else "without viewers, so without an encoder"
    print(f"\n{len(ids)} sessions 720p25 {title}: {cores:.2f} cores by the server, {cores / max(1, len(ids)):.2f} a session")
    print(f"the next was refused: {reason}")
    print(table(rows) if rows else "")
    return {"sessions": len(ids), "cores": cores, "reason": reason, "rows": rows, "capacity": capacity, "broken": broken}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--load", type=float, default=0.85, help="sessions.load of the server")
    parser.add_argument("--runs", default="viewers,alone", help="which runs: viewers, alone")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    speech = clips.wav()
    out = {}
    for run in args.runs.split(","):
        with tempfile.TemporaryDirectory(prefix="lipstream-overload-") as folder:
            out[run] = measure(folder, speech, run == "viewers", args)
    broken = [text for run in out.values() for text in run["broken"]]
    print("\n" + ("\n".join(f"BROKEN {text}" for text in broken) if broken else "all bounds hold"))
    if args.json:
        args.json.write_text(json.dumps(out, indent=1) + "\n")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
