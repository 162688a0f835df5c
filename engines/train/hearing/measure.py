#!/usr/bin/env python3
"""How well the opening follows: correlation, lag, spread, closures, by sets of clips; and what it does where nobody speaks.

A closure of the truth is a run of frames below batch.SHUT near one above batch.WIDE; it is met if the estimate falls below a fifth of its own 95 % within a frame of
it. Depth: how far it falls there, 1 to the rest, of its own 95 %.

    python -m hearing measure --cache CACHE --weights FILE --run DIR [DIR ..] [--clips]     also what noise and silence do
"""

import argparse
import functools
import json
from pathlib import Path

import numpy as np
import torch

from hearing import batch
from hearing.encoder import TOKEN_MS

FPS = 25.0
MET = 0.2


def lags(a, b, reach=8):
    """Correlation of a with b at lags of -reach..reach frames; a late = positive lag."""
    out = []
    for lag in range(-reach, reach + 1):
        x, y = (a[lag:], b[: len(b) - lag]) if lag >= 0 else (a[:lag], b[-lag:])
        out.append(float(np.corrcoef(x, y)[0, 1]) if x.std() > 1e-6 and y.std() > 1e-6 else 0.0)
    return np.array(out)


def closed(want, got):
    """(closures met, closures, sum of depths)."""
    shut = batch.closures(torch.from_numpy(want[None].astype(np.float32)))[0].numpy()
    top = max(np.quantile(got, 0.95), 1e-6)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], shut, [0]])))
    met, depth = 0, 0.0
    for a, b in zip(edges[::2], edges[1::2]):
        low = got[max(0, a - 1) : b + 1].min() / top
        met, depth = met + int(low < MET), depth + 1 - max(0.0, float(low))
    return met, len(edges) // 2, depth


def row_of(clip, got, want):
    r = lags(got, want)
    met, count, depth = closed(want, got)
    return {"group": clip.group, "name": clip.name, "r": float(r[7:10].max()), "lags": r, "lag": int(r.argmax()) - 8, "spread": float(got.std() / max(want.std(), 1e-9)),
            "met": met, "closures": count, "depth": depth, "mean": float(got.mean() - want.mean())}


def table(rows):
    """Medians and sums by group."""
    out = {}
    for group in sorted({r["group"] for r in rows}):
        own = [r for r in rows if r["group"] == group]
        count = sum(r["closures"] for r in own)
        mean = np.mean([r["lags"] for r in own], 0)
        k = int(mean.argmax())
        # The vertex of the parabola through the peak and its neighbours.
        part = 0.0 if k in (0, len(mean) - 1) else 0.5 * (mean[k - 1] - mean[k + 1]) / (mean[k - 1] - 2 * mean[k] + mean[k + 1])
        out[group] = {"r": round(float(np.median([r["r"] for r in own])), 3), "peak": round(k - 8 + float(part), 2), "in": round(float(np.mean([abs(r["lag"]) <= 1 for r in own])), 2),
                      "spread": round(float(np.median([r["spread"] for r in own])), 2), "shut": round(float(sum(r["met"] for r in own)) / max(count, 1), 2),
                      "depth": round(float(sum(r["depth"] for r in own)) / max(count, 1), 2), "n": len(own)}
    return out


class Measured:
    """The clips of a cache of states made with `cache --measured`."""

    def __init__(self, cache, clips, name):
        index = {(c.name, c.kind): c for c in clips if c.group}
        store = np.load(cache / "hearing" / f"{name}.npy", mmap_mode="r")
        self.items = []
        for row in json.loads((cache / "hearing" / f"{name}.json").read_text()):
            clip = index.get((row["name"], row["kind"]))
            if clip is None:
                continue
            first = max(0, row["token"] - 20)
            states = torch.from_numpy(np.array(store[first : row["token"] + row["tokens"] + 12])).float()
            frames = min(int(len(clip.opening) * FPS / clip.fps), int(clip.seconds * FPS))
            self.items.append((clip, states, (row["token"] - first) * TOKEN_MS, frames))

    @torch.no_grad()
    def rows(self, model, look):
        model.eval()
        out = []
        for clip, states, begin, frames in self.items:
            features = model.features([s[None] for s in states.unbind(1)])
            time = begin + torch.arange(frames)[None] * (1000 / FPS)
            got = (model.motion(features, time, look)[0] @ model.opening).numpy()
            want = np.interp(np.arange(frames) / FPS * clip.fps, np.arange(len(clip.opening)), clip.opening)
            out.append(row_of(clip, got, want))
        return out

    def summary(self, model):
        return {look: table(self.rows(model, int(look))) for look in model.motions}


@torch.no_grad()
def heard(encoder, clips, half=True):
    """Measured, each clip as the beginning of a stream of this encoder; of GRID's s1 a quarter."""
    from hearing.cache import EDGE, alone, hash_of
    from hearing.sounds import Changed

    out = Measured.__new__(Measured)
    out.items = []
    encoder.eval()
    for clip in (c for c in clips if c.group and not (c.group == "val_grid_s1" and hash_of(c.name) % 4)):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            states, _ = alone(encoder, [Changed(clip.pcm.astype(np.float32) / 32768)], True)
        frames = min(int(len(clip.opening) * FPS / clip.fps), int(clip.seconds * FPS), int((len(states) - EDGE - 12) * TOKEN_MS / 1000 * FPS))
        out.items.append((clip, torch.from_numpy(states).float(), EDGE * TOKEN_MS, frames))
    return out


def still_sounds(seconds=6):
    """Sounds that are no speech by name, f32, each after 3 s of nothing is measured."""
    from hearing import still
    from motion import rest

    rng = np.random.default_rng(101)
    n = seconds * 16000
    level = lambda x, db: (x / (np.sqrt(np.mean(x**2)) + 1e-12) * 10 ** (db / 20)).astype(np.float32)
    out = {"digital silence": np.zeros(n, np.float32), "white noise -50": level(rng.standard_normal(n), -50), "white noise -40": level(rng.standard_normal(n), -40),
           "room noise -45": level(rest.noise(rng, n, 20, 500, 1.0), -45), "hum -40": level(rest.tone(rng, 50, n), -40)}
    out |= {name: level(make(rng)[:n], -26) for name, make in (("music", rest.music), ("breath", rest.breath), ("typing", still.typing), ("whistle", rest.whistle))}
    return out


def quiet(opening, speech, basis_level):
    """Deviation and mean of the opening for each sound, over those in speech; after 3 s of speech, its first 0.6 s left out. `opening` gives that of f32 samples at 25 a second."""
    out = {}
    for name, sound in still_sounds().items():
        begin = len(speech) // 640
        wide = opening(np.concatenate([speech[: begin * 640], sound]))[begin + 15 :]
        out[name] = [round(float(wide.std() / basis_level), 3), round(float(wide.mean() / basis_level), 3)]
    return out


def starts(align):
    """Seconds at which words begin with lips that meet, of a clip of GRID."""
    out = []
    for line in align.read_text().splitlines():
        begin, _, word = line.split()
        if word in ("bin", "blue", "by", "place", "please", "b", "p"):
            out.append(int(begin) / 25000)
    return out


def times_met(times, got, reach=1):
    """(closures met, their number, sum of depths): within `reach` frames of each time (s) the estimate must fall below MET of its 95 %."""
    top, met, depth = max(np.quantile(got, 0.95), 1e-6), 0, 0.0
    for t in times:
        at = int(round(t * FPS))
        low = got[max(0, at - reach) : at + reach + 1].min() / top
        met, depth = met + int(low < MET), depth + 1 - max(0.0, float(low))
    return met, len(times), depth


@torch.no_grad()
def opening_of(encoder, model, look, samples):
    """The opening at 25 frames a second of f32 samples, as a stream of them gives it."""
    from hearing import encoder as whisper
    from hearing import mel as front

    x = np.pad(samples, (0, 8000))
    states = encoder.whole(whisper.token_mel(front.log_mel(torch.from_numpy(x)[None]), front.SILENCE))
    time = torch.arange(len(samples) // 640)[None] * 40.0
    return (model.motion(model.features(states), time, look)[0] @ model.opening).numpy()


def spoken(opening, data, clips, count=24):
    """Closures at the beginnings of GRID's words (val/grid_s1) and at the phones m, b, p of new sentences of espeak-ng's voices: share met, depth, number."""
    from hearing import tongues

    totals = np.zeros((2, 3))
    for clip in clips:
        if clip.group == "val_grid_s1":
            align = data / "talking/val/grid_s1" / (clip.name.split("__")[-1] + ".align")
            got = opening(clip.pcm.astype(np.float32) / 32768)
            # Where the true lips are nearest within three frames of the word's beginning.
            frames = [int(round(t * FPS)) for t in starts(align)]
            lows = [max(0, f - 3) + int(clip.opening[max(0, f - 3) : f + 4].argmin()) for f in frames if f + 4 < len(clip.opening)]
            totals[0] += times_met([f / FPS for f in lows], got)
    rng, speaker = np.random.default_rng(991), tongues.Speaker()
    for k in range(count):
        language = list(tongues.WORDS)[k % len(tongues.WORDS)]
        words = " ".join(str(w) for w in rng.choice(tongues.WORDS[language].split(), 8))
        sound, phones = speaker.say(words + ".", language + str(rng.choice(["", "+m3", "+f2", "+f4"])), 150, rng.uniform(30, 70))
        phones = [(tongues.plain(p), e) for p, e in phones]
        begins = [0.0, *(e for _, e in phones)]
        middles = [(b + e) / 2 for b, (p, e) in zip(begins, phones) if p[:1] in "mbp" and p != "pau" and b > 0.1]
        got = opening(sound.astype(np.float32) / 32768)
        totals[1] += times_met(middles, got)
    return {name: [round(met / max(n, 1), 2), round(depth / max(n, 1), 2), int(n)] for name, (met, n, depth) in zip(("grid words", "phones"), totals)}


def main(args):
    from hearing import encoder as whisper
    from hearing import sources, train, tune

    torch.set_num_threads(args.threads)
    clips, basis = sources.load(args.cache, train.SHIPPED, hold=args.hold)
    measured = None if all((run / "tuned.pt").exists() for run in args.run) else Measured(args.cache, clips, args.measured)
    speech = next(c for c in clips if c.group == "val_free").pcm[:48000].astype(np.float32) / 32768
    whispers = whisper.load(args.weights)
    for run in args.run:
        if (run / "tuned.pt").exists():
            whole, _ = tune.restore(run, basis)
            encoder, model, own = whole.encoder, whole.model, heard(whole.encoder, clips)
        else:
            encoder, model, own = whispers, train.restore(run, basis)[0], measured
        for look in model.motions:
            rows = own.rows(model, int(look))
            print(run.name, look, json.dumps(table(rows)))
            if args.clips:
                for r in rows:
                    if r["group"] not in ("val_grid_s1", "dev"):
                        print("  ", r["name"], r["group"], f"r {r['r']:.2f} lag {r['lag']} spread {r['spread']:.2f} mean {r['mean']:.2f} shut {r['met']}/{r['closures']}")
            if hasattr(model, "head"):
                opening = functools.partial(opening_of, encoder, model, int(look))
                print(run.name, look, json.dumps(quiet(opening, speech, 0.3)))
                if args.data:
                    print(run.name, look, json.dumps(spoken(opening, args.data, clips)))


def arguments(sub):
    one = sub.add_parser("measure", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    one.add_argument("--cache", type=Path, required=True)
    one.add_argument("--weights", type=Path, required=True)
    one.add_argument("--run", type=Path, nargs="+", required=True)
    one.add_argument("--data", type=Path, help="folder of the clips: adds closures at known times; needs libespeak-ng")
    one.add_argument("--measured", default="eval")
    one.add_argument("--hold", action="store_true")
    one.add_argument("--clips", action="store_true")
    one.add_argument("--threads", type=int, default=1)
    one.set_defaults(action=main)
