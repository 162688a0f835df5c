#!/usr/bin/env python3
"""Runs an avatar and a relay together for minutes, breaks things around them and says what it left behind.

    bench/soak.py [--minutes 20] [--json OUT] [--faults kill,stall] [--keep FOLDER]
    bench/soak.py --cluster [--every 180] ...

A publisher (ffmpeg, real time) sends a talking person with a white box and a beep each second; players (ffmpeg) measure
how much later the box is shown than the beep is heard. The person is real footage where LIPSTREAM_SHARED has it, else the
demo avatar. The exit status is 1 when a bound is broken:

    A/V drift        <= 10 ms an hour, by regression over the markers outside of faults
    memory           <= 1 MB a minute, by regression over the second round of faults; judged from 10 minutes on
    threads, files   as many as before the faults
    panics           none

Each fault comes twice, in two rounds: what is first needed in the first one (buffers of another size, a decoder's threads)
is kept for the second, and grows no more where nothing is lost.

With --cluster the two sessions run on two nodes of a cluster in place of the faults, and each 180 s the node that has the avatar is
killed or asked to end, and started again. Each session must be made by the other node within 20 s, and memory must not grow from one
life of a node to the next; drift and panics are judged as above. It needs nats-server.

Python's standard library, ffmpeg and `make build` are enough.
"""

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path

from live import faults
from live.restarts import PairStand
from live.server import BINARY
from live.stand import Stand


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--json", type=Path, help="write the whole report there")
    parser.add_argument("--faults", default="", help="only these: " + ", ".join(f.__name__ for f, _ in faults.PLAN) + "; none")
    parser.add_argument("--size", default="1280x720", help="the publisher's picture")
    parser.add_argument("--keep", type=Path, help="folder for the server's log and the clips; else a temporary one")
    parser.add_argument("--cluster", action="store_true", help="two nodes, of which one is restarted again and again")
    parser.add_argument("--every", type=float, default=180, help="seconds from one restart to the next")
    args = parser.parse_args()
    if args.minutes < 1:
        parser.error("--minutes: at least 1")
    if not BINARY.exists():
        parser.error(f"{BINARY} is missing: `make build` first")
    with tempfile.TemporaryDirectory(prefix="lipstream-soak-") as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        size = tuple(int(n) for n in args.size.split("x"))
        if args.cluster:
            stand = PairStand(folder, args.minutes, args.every, size)
        else:
            stand = Stand(folder, args.minutes, [n for n in args.faults.split(",") if n], size)
        stand.prepare()
        stand.run()
        report = stand.report()
        if args.json:
            args.json.write_text(json.dumps(report, indent=1) + "\n")
    sys.exit(1 if report["broken"] else 0)


if __name__ == "__main__":
    # So that the server and the players end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
