#!/usr/bin/env python3
"""How well the lips follow the speech on people whom the models have not seen.

Every video of a folder is rendered with the speech of the next one (the last with the first's), so that nothing of the
true mouth can leak in, and once with silence. The mouth of the result is measured against the video that the speech
belongs to, with a teacher that Lipstream does not use.

    bench/sync.py --data DIR [--python PYTHON] [--out DIR] [--only grid_other] [-- RENDER OPTIONS]

DIR (default: $LIPSTREAM_SHARED) holds data/talking/val and tools/mouth.py; PYTHON runs mouth.py and needs onnxruntime,
numpy and opencv. Needs nothing else than the standard library, ffmpeg and the built program.

r is the correlation of the mouth's opening with the true one at the best lag within one frame; lag the best within ten
frames; spread the standard deviation of the opening over the true one; silent the same with silence.
"""
import argparse
import csv
import json
import math
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SETS = {"grid_other": "grid_other/*.mp4", "free": "free_*.mp4"}
# What the rows of each set should reach: the median r, and the range of the spread.
WANTED = {"grid_other": 0.6, "free": 0.2}


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def measure(options, video):
    """The opening of the mouth in each frame at 25 fps, gaps filled; and mouth.py's summary."""
    table = options.out / f"{video.stem}.{abs(hash(str(video))) % 10**8}.csv"
    summary = json.loads(run(options.python, options.mouth, video, "--csv", table))
    with open(table) as f:
        rows = [r for r in csv.reader(f) if r and not r[0].startswith("#")]
    opening = [float(r[2]) for r in rows]
    known = [i for i, x in enumerate(opening) if not math.isnan(x)]
    if not known:
        return [0.0] * len(opening), summary
    filled = []
    for i in range(len(opening)):
        before = max((k for k in known if k <= i), default=known[0])
        after = min((k for k in known if k >= i), default=known[-1])
        t = 0.0 if before == after else (i - before) / (after - before)
        filled.append(opening[before] * (1 - t) + opening[after] * t)
    return filled, summary


def pearson(a, b):
    n = min(len(a), len(b))
    a, b = a[:n], b[:n]
    if n < 10 or statistics.pstdev(a) < 1e-6 or statistics.pstdev(b) < 1e-6:
        return 0.0
    return statistics.correlation(a, b)


def correlate(a, b, reach):
    """Best correlation of a against b shifted by -reach..reach frames, and the lag (a late = positive)."""
    n = min(len(a), len(b))
    a, b = a[:n], b[:n]
    shifted = lambda lag: pearson(a[lag:], b[: n - lag]) if lag >= 0 else pearson(a[:lag], b[-lag:])
    return max((shifted(lag), lag) for lag in range(-reach, reach + 1))


def render(options, video, audio, out):
    run(options.lipstream, "render", "--quiet", "--video", video, "--audio", audio, "-o", out, *options.more)


def row(options, video, speech):
    out = options.out / f"{video.stem}--{speech.stem}.mp4"
    silent = options.out / f"{video.stem}--silence.mp4"
    silence = options.out / f"{video.stem}.wav"
    length = run("ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", speech).strip()
    run("ffmpeg", "-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", "anullsrc=r=16000:cl=mono", "-t", length, silence)
    render(options, video, speech, out)
    render(options, video, silence, silent)
    with ThreadPoolExecutor(options.jobs) as pool:
        (made, summary), (true, _), (still, _) = pool.map(lambda v: measure(options, v), (out, speech, silent))
    r, near = correlate(made, true, 1)
    best, lag = correlate(made, true, 10)
    spread = statistics.pstdev(true) or 1e-9
    return {
        "video": video.stem, "speech": speech.stem, "r": r, "lag_within_1": near, "r_best": best, "lag": lag,
        "spread": statistics.pstdev(made) / spread, "silent": statistics.pstdev(still) / spread,
        "faces": summary["face_frames"] / max(summary["frames"], 1),
    }


def show(name, rows):
    print(f"\n{name}")
    head = ("video", "speech of", "r", "r best", "lag", "spread", "silent", "faces")
    print("{:28} {:28} {:>6} {:>7} {:>4} {:>7} {:>7} {:>6}".format(*head))
    for r in rows:
        print(f"{r['video'][:28]:28} {r['speech'][:28]:28} {r['r']:6.2f} {r['r_best']:7.2f} {r['lag']:4d} "
              f"{r['spread']:7.2f} {r['silent']:7.2f} {r['faces']:6.2f}")
    middle = {k: statistics.median(r[k] for r in rows) for k in ("r", "r_best", "spread", "silent")}
    print(f"{'median':57} {middle['r']:6.2f} {middle['r_best']:7.2f} {'':4} {middle['spread']:7.2f} {middle['silent']:7.2f}")
    wanted = WANTED[name]
    good = middle["r"] >= wanted and 0.6 <= middle["spread"] <= 1.4 and middle["silent"] <= 0.25
    print(f"{'reached' if good else 'NOT reached'}: median r at least {wanted}, spread 0.6 to 1.4, silent at most 0.25")
    return middle


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("LIPSTREAM_SHARED"))
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--out", type=Path, default=ROOT / "out/sync", help="where renders and tables go")
    parser.add_argument("--only", choices=SETS, help="one set")
    parser.add_argument("--jobs", type=int, default=2, help="measurements at once")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--lipstream", type=Path, default=ROOT / "target/release/lipstream")
    parser.add_argument("more", nargs="*", help="options of `lipstream render`, after --")
    options = parser.parse_args()
    if options.data is None:
        sys.exit("sync.py: --data DIR or LIPSTREAM_SHARED is needed")
    options.mouth = options.data / "tools/mouth.py"
    options.out.mkdir(parents=True, exist_ok=True)
    report = {}
    for name in [options.only] if options.only else SETS:
        videos = sorted((options.data / "data/talking/val").glob(SETS[name]))
        if not videos:
            sys.exit(f"sync.py: no {SETS[name]} in {options.data / 'data/talking/val'}")
        rows = [row(options, v, videos[(i + 1) % len(videos)]) for i, v in enumerate(videos)]
        report[name] = {"rows": rows, "median": show(name, rows)}
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
