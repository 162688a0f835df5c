#!/usr/bin/env python3
"""Whether one build is slower than another: the same command by both, in turns, on the same input.

    bench/ratio.py /tmp/before/target/release/lipstream target/release/lipstream -- \\
        render --device cpu --video demo/avatar.mp4 --audio demo/speech.flac --output {out}

`{out}` is a file of its own for each run. Each pair runs before and after one after the other, in an order that changes, so that
what else the machine does falls on both. Both must find their engines: a build of an older commit is run from a checkout of it, or
with paths that both know. Printed are seconds of the processor and on the clock, the ratio of after to before in
each pair, and the median of these. The first pair of each, which fills the caches, is not counted. Ends with 1 where the
processor's median ratio is above `--most`.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def timed(build, command, folder):
    """Seconds of the processor, and on the clock, of a run that succeeds."""
    out = str(Path(folder) / "out.mkv")
    begun = time.monotonic()
    process = subprocess.Popen([build, *(part.replace("{out}", out) for part in command)],
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    clock = time.monotonic() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{build} ended with {process.returncode}: {said.decode(errors='replace')[-2000:]}")
    return used.ru_utime + used.ru_stime, clock


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("command", nargs="+", help="arguments of both, after --")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--most", type=float, default=1.02)
    arguments = parser.parse_args()
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(arguments.pairs + 1):
            builds = list(enumerate([arguments.before, arguments.after]))
            runs = {k: timed(build, arguments.command, folder) for k, build in (builds if i % 2 else builds[::-1])}
            if i:
                pairs.append([runs[0], runs[1]])
                print(*(f"{cpu:.2f} s cpu, {clock:.2f} s" for cpu, clock in pairs[-1]), sep=" | ", flush=True)
    ratios = [sorted(after[k] / before[k] for before, after in pairs) for k in (0, 1)]
    figures = {name: {"median": round(statistics.median(own), 4), "least": round(own[0], 4), "most": round(own[-1], 4)}
               for name, own in zip(("processor", "clock"), ratios)}
    print(json.dumps(figures))
    sys.exit(figures["processor"]["median"] > arguments.most)


if __name__ == "__main__":
    main()
