"""`evaluate.py sync`: does the expert know what belongs together, on clips of people?"""

import json

import numpy as np

from quality import figures
from quality.media import FRAME, own_sound

# Whom the clips of a set show: one person who is in training, people who are not, and other programs' output.
SETS = {"grid_s1": "grid_s1/*.mp4", "grid_other": "grid_other/*.mp4", "free": "free_*.mp4", "gen": "gen_*.mp4"}
UNSEEN = ("grid_other", "free", "gen")
# Sounds of other clips that each clip is judged with.
SHUFFLES = 6


def clips(data, name):
    found = sorted((data / "talking/val").glob(SETS[name]))
    if not found:
        raise SystemExit(f"{data}: no talking/val/{SETS[name]} in this folder")
    return found


def shifted(samples, frames):
    """The sound with which a picture that was in sync is `frames` late."""
    return samples[frames * FRAME :] if frames >= 0 else np.concatenate([np.zeros(-frames * FRAME, np.float32), samples])


def judge(points, expert, paths):
    """A dict a clip; those shorter than two seconds or without sound are left out."""
    heard = [(path, own_sound(path)) for path in paths]
    heard = [(path, samples) for path, samples in heard if samples is not None]
    lips = [expert.lips(points(path)) for path, _ in heard]
    voices = [expert.voice(samples) for _, samples in heard]
    rows = []
    for i, (path, samples) in enumerate(heard):
        true = figures.offset(lips[i], voices[i])
        if true is None:
            continue
        shifts = {}
        for by in range(-figures.REACH, figures.REACH + 1):
            found = figures.offset(lips[i], expert.voice(shifted(samples, by))) if by and abs(by + true[0]) <= figures.REACH else None
            if found is not None:
                shifts[by] = found[0] - true[0]
        others = [figures.offset(lips[i], voices[(i + k) % len(voices)]) for k in range(1, min(SHUFFLES + 1, len(voices)))]
        row = {"clip": path.stem, "offset": true[0], "confidence": true[1], "shifts": shifts}
        rows.append(row | {"shuffled": [o[1] for o in others if o is not None]})
    return rows


def summary(rows):
    """Shares 0..1 and medians over the rows of a set."""
    true = np.array([r["confidence"] for r in rows])
    other = np.array([c for r in rows for c in r["shuffled"]])
    errors = np.array([found - by for r in rows for by, found in r["shifts"].items()])
    share = lambda ok: float(np.mean(ok)) if len(ok) else None
    return {
        "clips": len(rows),
        "in_sync": share([abs(r["offset"]) <= 1 for r in rows]),
        "shift_exact": share(errors == 0),
        "shift_within_1": share(np.abs(errors) <= 1),
        "confidence": float(np.median(true)) if len(true) else None,
        "confidence_shuffled": float(np.median(other)) if len(other) else None,
        # The probability that a true pair is more confident than a shuffled one.
        "told_apart": share((true[:, None] > other[None]).ravel()),
    }


def table(report):
    head = f"{'set':12} {'clips':>5} {'in sync':>8} {'shift =':>8} {'shift ~':>8} {'conf.':>7} {'shuffled':>9} {'told apart':>11}"
    lines = [head]
    number = lambda v, width: f"{'-' if v is None else f'{v:.3f}':>{width}}"
    for name, part in report.items():
        s = part["summary"]
        widths = (("in_sync", 8), ("shift_exact", 8), ("shift_within_1", 8), ("confidence", 7), ("confidence_shuffled", 9), ("told_apart", 11))
        lines.append(f"{name:12} {s['clips']:5d} " + " ".join(number(s[key], width) for key, width in widths))
    return "\n".join(lines)


def run(points, expert, data, out=None):
    report = {}
    for name in SETS:
        rows = judge(points, expert, clips(data, name))
        report[name] = {"summary": summary(rows), "rows": rows}
    print(table(report))
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=1) + "\n")
