#!/usr/bin/env python3
"""CPU of a session by how many there are: 720p25 avatars that speak, without viewers and so without encoders.

    bench/sessions.py [--counts 1,3,5,8] [--seconds 20] [--binary FILE]... [--sync-check 0,1] [--json OUT]

With several binaries, or several times from one check of the sync to the next, each count is measured with all of them before the
next, so that they are compared on the same minutes of a machine. Admission is off: counts beyond what the machine carries show in the frames a second.
"""

import argparse
import itertools
import json
import signal
import sys
import tempfile
import time
from pathlib import Path

from live import clips
from live.server import BINARY, Server
from live.stats import table

# Seconds before the first measured one: the avatars are prepared and all sessions speak.
SETTLE = 5


def measure(binary, count, seconds, speech, sync_check):
    """Cores by the server, frames a second of a session, and what the worker said of its batches."""
    with tempfile.TemporaryDirectory(prefix="lipstream-sessions-") as folder:
        settings = {"load": 100.0, "max_sessions": 64}
        if sync_check is not None:
            settings["sync_check_seconds"] = sync_check
        with Server(folder, {"sessions": settings}, binary=binary) as server:
            names = [f"avatar-{n}" for n in range(count)]
            for name in names:
                server.api("POST", "/sessions", {"id": name, "graph": "avatar", "avatar": "demo", "always_on": True})
                for _ in range(1 + int((seconds + SETTLE) / 18)):
                    server.speak(name, speech)
            time.sleep(SETTLE)
            frames = sum(server.status(name)["frames"] for name in names)
            before, start = server.usage()["cpu"], time.monotonic()
            time.sleep(seconds)
            span = time.monotonic() - start
            cores = (server.usage()["cpu"] - before) / span
            fps = (sum(server.status(name)["frames"] for name in names) - frames) / span / count
            speaking = all(server.status(name)["speaking"] for name in names)
    return {"sessions": count, "cores": cores, "fps": fps, "speaking": speaking}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--counts", default="1,3,5,8")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--binary", type=Path, action="append")
    parser.add_argument("--sync-check", metavar="SECONDS,..", help="sessions.sync_check_seconds; 0 checks none")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    speech, out, rows = clips.wav(), [], []
    for count in map(int, args.counts.split(",")):
        checks = [int(s) for s in args.sync_check.split(",")] if args.sync_check else [None]
        for binary, check in itertools.product(args.binary or [BINARY], checks):
            result = measure(binary.resolve(), count, args.seconds, speech, check) | {"binary": str(binary), "sync_check": check}
            out.append(result)
            rows.append([str(binary), "" if check is None else f"check {check}", f"{count} sessions", f"{result['cores']:.2f} cores",
                         f"{result['cores'] / count:.3f} a session", f"{result['fps']:.2f} fps",
                         "" if result["speaking"] else "silent"])
            print(table(rows[-1:]), flush=True)
    if args.json:
        args.json.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
