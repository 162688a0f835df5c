"""`evaluate.py all`: people whom no model has seen, made to say what others said, what they said themselves, and nothing."""

import json
import sys

import numpy as np

from quality import figures, floor, pair
from quality.media import own_sound, run as call
from quality.sync import UNSEEN, clips

# Keeps a person's own mouth from the renderer where they say their own words: no frame within so many milliseconds of
# the one that is made becomes its reference. A program without the option is measured all the same.
HIDE = ("--reference-gap", "1000")

# Columns of the table: key and head.
COLUMNS = {
    "r": "r", "r_best": "r best", "lag": "lag", "spread": "spread", "closures": "shut", "closure_depth": "depth", "silent": "silent", "bones": "bones", "av_offset": "offset", "av_confidence": "conf.",
    "true_av_confidence": "true", "self_r": "own r", "self_sharpness_ratio": "sharp", "self_flicker_ratio": "flick", "self_ssim": "SSIM",
    "self_psnr": "PSNR", "self_seam": "seam", "self_seam_ratio": "edge", "self_lmd": "LMD", "self_av_confidence": "own c.",
}


class Mouths:
    """Openings by a program that Lipstream does not use: mouth.py VIDEO --csv OUT."""

    def __init__(self, program, folder):
        if not program.is_file():
            raise SystemExit(f"{program}: no such program; --mouth PATH names it")
        self.program, self.folder = program, folder
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, video):
        """[frames], gaps filled."""
        table = self.folder / f"{video.stem}.csv"
        if not table.is_file() or table.stat().st_mtime < video.stat().st_mtime:
            call(sys.executable, self.program, video, "--csv", table)
        return figures.fill(np.atleast_2d(np.loadtxt(table, delimiter=","))[:, 2])


class Renderer:
    def __init__(self, args):
        self.args = args
        said = call(args.lipstream, "render", "--help", text=True)
        self.hidden = [] if "--reference-gap" in args.more or HIDE[0] not in said else list(HIDE)
        if not self.hidden:
            print(f"{args.lipstream}: render has no {HIDE[0]}: a person's own mouth is not hidden where they say their own words")

    def __call__(self, video, audio, name, *options):
        """A rendered file; one that is there and newer than the program is kept."""
        out = self.args.out / "videos" / name
        out.parent.mkdir(parents=True, exist_ok=True)
        newest = max(p.stat().st_mtime for p in (self.args.lipstream, video))
        line = " ".join(map(str, (video, audio, *options, *self.args.more)))
        note = out.with_suffix(".txt")
        if not (out.is_file() and out.stat().st_mtime > newest and note.is_file() and note.read_text() == line):
            call(self.args.lipstream, "render", "--quiet", "--video", video, "--audio", audio, "-o", out, *options, *self.args.more)
            note.write_text(line)
        return out


def length(path):
    return float(call("ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", path, text=True))


def silence(path, seconds):
    source = ["-f", "lavfi", "-i", "anullsrc=r=16000:cl=mono", "-t", f"{seconds:.3f}"]
    call("ffmpeg", "-nostdin", "-v", "error", "-y", *source, path)
    return path


def measure(video, speech, points, expert, mouths, render, args):
    """Every figure of one person: driven by another clip's speech, by their own, and by silence."""
    other = render(video, speech, f"{video.stem}--{speech.stem}.mp4")
    own = render(video, video, f"{video.stem}--own.mp4", *render.hidden)
    still = render(video, silence(args.out / "silence.wav", length(speech)), f"{video.stem}--silence.mp4")
    row = {"video": video.stem, "speech": speech.stem}
    said = mouths(speech)
    row |= pair.motion(mouths(other), said)
    if (align := speech.with_suffix(".align")).is_file():
        times = figures.lowest_near(figures.meetings(align.read_text()), said)
        row |= pair.closures(figures.closures_at(mouths(other), times), "aligned_")
    row["silent"] = mouths(still).std() / max(said.std(), 1e-9)
    seen = floor.seen(video, args.data / "models")
    if len(seen):
        row["bones"] = floor.deviation(seen) / max(said.std(), 1e-9)
    row |= pair.sync(expert, points(other), own_sound(other))[0]
    row |= pair.sync(expert, points(speech), own_sound(speech), "true_")[0]
    whole = pair.pair(points, expert, own, truth=video)
    row |= {f"self_{key}": value for key, value in whole.items()}
    sheets = args.out / "sheets"
    sheets.mkdir(parents=True, exist_ok=True)
    call(args.lipstream, "eval", own, "--true", video, "--sheet", sheets / f"{own.stem}.png")
    call(args.lipstream, "eval", other, "--speech-of", speech, "--sheet", sheets / f"{other.stem}.png")
    return {key: value if isinstance(value, str) else pair.plain(value) for key, value in row.items()}


def medians(rows):
    known = lambda key: [r[key] for r in rows if key in r]
    return {key: float(np.median(known(key))) for key in COLUMNS if known(key)}


def table(name, rows):
    number = lambda v: "     -" if v is None else f"{v:6.3f}" if abs(v) < 1 else f"{v:6.2f}"
    line = lambda head, row: f"{head[:26]:26} " + " ".join(number(row.get(key)) for key in COLUMNS)
    lines = ["", f"{name:26} " + " ".join(f"{head:>6}" for head in COLUMNS.values())]
    return "\n".join([*lines, *(line(r["video"], r) for r in rows), line("median", medians(rows))])


def run(points, expert, args):
    args.out.mkdir(parents=True, exist_ok=True)
    mouths = Mouths(args.mouth or args.data.parent / "tools/mouth.py", args.out / "mouths")
    render = Renderer(args)
    report, text = {}, []
    for name in args.only or UNSEEN:
        if name not in UNSEEN:
            raise SystemExit(f"--only {name}: the sets are {', '.join(UNSEEN)}")
        videos = clips(args.data, name)
        # With one clip alone there is no other speech: it says its own.
        rows = [measure(v, videos[(i + 1) % len(videos)], points, expert, mouths, render, args) for i, v in enumerate(videos)]
        report[name] = {"rows": rows, "median": medians(rows)}
        text.append(table(name, rows))
        print(text[-1], flush=True)
    (args.out / "figures.json").write_text(json.dumps(report, indent=1) + "\n")
    (args.out / "figures.txt").write_text("\n".join(text) + "\n")
