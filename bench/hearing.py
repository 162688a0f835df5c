#!/usr/bin/env python3
"""How far Whisper's states of a stream are from those of the whole recording: table and plot.

    bench/hearing.py --weights FOLDER --speech FILE... [--json bench/hearing.json] [--plot docs/hearing.svg]
    bench/hearing.py --read bench/hearing.json [--plot docs/hearing.svg]

FOLDER has `whisper_*_encoder.safetensors`. Needs matplotlib for the plot, and target/release/lipstream-bench-latent
(cargo build --release -p lipstream-bench --bin lipstream-bench-latent).
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "target/release/lipstream-bench-latent"


def measured(folder, speech, options):
    reports = []
    for weights in sorted(folder.glob("whisper_*_encoder.safetensors")):
        command = [BENCH, "hearing", weights, *speech, *options]
        reports.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
    return reports


def mean(report, key, select):
    """Of a layer's figure over the recordings, for the entries that `select` takes of each."""
    found = [layer[key] for recording in report["recordings"] for layer in select(recording)]
    return statistics.mean(found)


def streamed(window, ahead, layers):
    def select(recording):
        entry = next(s for s in recording["streams"] if (s["window_ms"], s["ahead_ms"]) == (window, ahead))
        return entry["layers"][layers]

    return select


def moved(seconds, layers):
    return lambda recording: next(m for m in recording["moved"] if m["seconds"] == seconds)["layers"][layers]


def axes(report):
    streams = report["recordings"][0]["streams"]
    return sorted({s["window_ms"] for s in streams}), sorted({s["ahead_ms"] for s in streams})


BLOCKS = slice(1, None)
# The window of which single layers are shown, in ms.
LONG = 4000


def table(report):
    windows, aheads = axes(report)
    print(f"{report['weights']}: {report['width']} wide, {report['blocks']} blocks; all blocks, median error of a row (cosine)")
    print("| window | " + " | ".join(f"{ahead} ms" for ahead in aheads) + " |")
    print("|---|" + "---|" * len(aheads))

    def cell(select):
        figures = [mean(report, key, select) for key in ("row_error", "cosine")]
        return "{:.2f} ({:.3f})".format(*figures)

    for window in windows:
        cells = [cell(streamed(window, ahead, BLOCKS)) for ahead in aheads]
        print(f"| {window / 1000:g} s | " + " | ".join(cells) + " |")
    for entry in report["recordings"][0]["moved"]:
        print(f"whole, {entry['seconds']} s later: {cell(moved(entry['seconds'], BLOCKS))}")
    print(f"\nlayers, window {LONG / 1000:g} s, the same; at last the whole 5 s later")
    for layer in range(report["blocks"] + 1):
        one = slice(layer, layer + 1)
        cells = [cell(streamed(LONG, ahead, one)) for ahead in aheads]
        print(f"| {layer} | " + " | ".join(cells) + f" | {cell(moved(5, one))} |")
    for cost in report["cost"]:
        each = cost["processor_ms"] / cost["streams"]
        print(
            f"{cost['window_ms']} ms x {cost['streams']}: {cost['gflop']:.2f} GFLOP, {cost['processor_ms']:.1f} ms of the processor "
            f"({each:.1f} a stream), {cost['clock_ms']:.1f} ms of the clock, {report['threads']} thread(s)"
        )
    print()


def plot(reports, path):
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "lipstream", "svg.fonttype": "none"})
    import matplotlib.pyplot as plt

    figure, rows = plt.subplots(len(reports), 2, figsize=(9, 3.2 * len(reports)), squeeze=False)
    for report, (left, right) in zip(reports, rows):
        windows, aheads = axes(report)
        name = report["weights"].removeprefix("whisper_").removesuffix("_encoder.safetensors")
        for window in windows:
            line = [mean(report, "row_error", streamed(window, ahead, BLOCKS)) for ahead in aheads]
            left.plot(aheads, line, marker="o", label=f"{window / 1000:g} s")
        left.axhline(mean(report, "row_error", moved(5, BLOCKS)), color="0.5", linestyle=":", label="whole, 5 s later")
        left.set(xlabel="sound after a row's end, ms", ylabel="error of a row, median", title=f"{name}: all blocks", ylim=(0, None))
        left.legend(title="window", fontsize=8)
        layers = range(report["blocks"] + 1)
        for ahead in aheads:
            line = [mean(report, "row_error", streamed(LONG, ahead, slice(n, n + 1))) for n in layers]
            right.plot(layers, line, marker="o", label=f"{ahead} ms")
        line = [mean(report, "row_error", moved(5, slice(n, n + 1))) for n in layers]
        right.plot(layers, line, color="0.5", linestyle=":", label="whole, 5 s later")
        right.set(xlabel="layer (0: convolutions)", title=f"{name}: window of {LONG / 1000:g} s", ylim=(0, None), xticks=layers)
        right.legend(title="after a row's end", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--speech", nargs="+", type=Path, default=[])
    parser.add_argument("--seconds", default="12")
    parser.add_argument("--threads", default="1")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--read", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    if arguments.read:
        reports = json.loads(arguments.read.read_text())
    elif arguments.weights and arguments.speech:
        options = ["--seconds", arguments.seconds, "--threads", arguments.threads]
        reports = measured(arguments.weights, arguments.speech, options)
    else:
        sys.exit(__doc__)
    if arguments.json:
        arguments.json.write_text("[\n" + ",\n".join(json.dumps(report) for report in reports) + "\n]\n")
    for report in reports:
        table(report)
    if arguments.plot:
        plot(reports, arguments.plot)


if __name__ == "__main__":
    main()
