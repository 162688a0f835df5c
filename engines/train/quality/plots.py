"""`evaluate.py plots`: every figure that training logged, over its steps, on one page."""

import base64
import io
import json
import math

STEP = "step"
COLUMNS = 3


def numbers(value, name=""):
    """(name, number) of what a line of a log holds, lists and objects opened."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return
    if isinstance(value, (int, float)):
        yield name, float(value)
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from numbers(part, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for i, part in enumerate(value):
            yield from numbers(part, f"{name}[{i}]")


def read(path):
    """{name: ([steps], [values])} of a log with a JSON object a line; lines that are none are passed over."""
    series = {}
    try:
        text = path.read_text()
    except OSError as error:
        raise SystemExit(f"{path}: {error.strerror}; --logs names a log.jsonl of a run")
    for count, line in enumerate(text.splitlines()):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if not isinstance(entry, dict):
            continue
        step = entry.pop(STEP, count)
        for name, value in numbers(entry):
            if isinstance(step, (int, float)) and math.isfinite(value):
                at, values = series.setdefault(name, ([], []))
                at.append(step)
                values.append(value)
    return series


def figure(logs, wanted=()):
    """A matplotlib figure of {label: series}: one plot a name that changes, or of those `wanted`, one line a log."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    moves = lambda values: any(v != values[0] for v in values)
    names = sorted({name for series in logs.values() for name, (_, values) in series.items() if moves(values) and name != "seconds"})
    if lost := [name for name in wanted if name not in names]:
        raise SystemExit(f"--figures: no {lost[0]} that changes over the steps of these files; there are {', '.join(names)}")
    names = list(wanted) or names
    if not names:
        raise SystemExit("--logs: no figure that changes over the steps of these files")
    rows = math.ceil(len(names) / COLUMNS)
    page = Figure(figsize=(5 * COLUMNS, 2.6 * rows), layout="constrained")
    for i, name in enumerate(names):
        axes = page.add_subplot(rows, COLUMNS, i + 1)
        for label, series in logs.items():
            if name in series:
                axes.plot(*series[name], label=label, linewidth=1)
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
        if i == 0 and len(logs) > 1:
            axes.legend(fontsize=7)
    return page


def run(paths, out, wanted=()):
    if out.suffix not in (".html", ".png", ".svg"):
        raise SystemExit(f"--out {out}: must end in .html, .png or .svg")
    logs = {path.parent.name if path.name == "log.jsonl" else path.stem: read(path) for path in paths}
    page = figure(logs, wanted)
    picture = io.BytesIO()
    out.parent.mkdir(parents=True, exist_ok=True)
    # Without a date, so that the same logs make the same file.
    page.savefig(picture, format=out.suffix[1:].replace("html", "png"), dpi=80, metadata={"Date": None} if out.suffix == ".svg" else None)
    if out.suffix in (".png", ".svg"):
        out.write_bytes(picture.getvalue())
        return
    data = base64.b64encode(picture.getvalue()).decode()
    names = ", ".join(logs)
    out.write_text(f'<!doctype html><meta charset="utf-8"><title>{names}</title><img alt="{names}" src="data:image/png;base64,{data}">\n')
