#!/usr/bin/env python3
"""The states of windows (windows.py) of clips' sounds in random views, computed once; and the labels of a window's middle.

    python -m hearing windowed --cache CACHE --weights FILE --four FILE --name NAME --alone KIND=N [KIND=N ..] --joined KIND=N [..]
    python -m hearing windowed .. --name NAME --measured             each measured clip as a file of its own

`alone`: each view is a file of its own, mostly with some quiet before it; `joined`: views of all kinds one behind the other as one long file. N times; a fraction takes a part
of the clips. NAME.npy: i8 [windows, WINDOW, states, width], normalised over the width, in steps of NAME.steps.npy [states, width]. The JSON has for each window its first token
and the views (name, kind, speed, gaps, ms at which it begins, all of it in the file's time) that it may hear.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from hearing import encoder as whisper
from hearing import four, windows
from hearing import mel as front
from hearing.batch import AHEAD, FRAME_MS
from hearing.cache import hash_of, joined
from hearing.encoder import TOKEN_MS
from hearing.sounds import Changed, changed, openness
from hearing.sources import load, noises
from motion.batch import at_times, envelope

MOST = 6.0
# What is taught of a window is a narrower middle than what is used of it (windows.MARGIN).
MARGIN = 75
STEP = windows.step_of(margin=MARGIN)
# Frames of a window's middle, less one for the phase.
FRAMES = int(STEP * TOKEN_MS / FRAME_MS) - 1


@torch.no_grad()
def states_of(encoder, mel, half=True):
    """[K, 2 T + 3, 80] -> [K, T, states, W], each over the width with a mean of 0 and a deviation of 1."""
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        states = encoder.whole(mel, causal=False)
    return torch.stack([torch.nn.functional.layer_norm(s.float(), s.shape[-1:]) for s in states], 2)


def steps_of(states):
    """What a code stands for: MOST deviations of a channel have 127 of them."""
    return (states.flatten(0, 1).std(0) * MOST / 127).clamp_min(1e-4).numpy()


def quiet(rng, seconds):
    x = rng.standard_normal(int(seconds * front.RATE)).astype(np.float32)
    return x * (0 if rng.random() < 0.4 else 10 ** (-rng.uniform(60, 100) / 20))


def views_of(clips, kinds, rng, mixed, plain):
    """(view, its row) of every clip of the kinds, shuffled."""
    out = []
    for kind, times in kinds.items():
        own = [c for c in clips if c.kind == kind]
        count = round(times * len(own))
        for k in range(count):
            if k % len(own) == 0:
                order = rng.permutation(len(own))
            clip = own[order[k % len(own)]]
            as_it_is = kind == "still" or rng.random() < plain
            view = Changed(clip.pcm.astype(np.float32) / 32768) if as_it_is else changed(clip.pcm, rng, mixed, kind != "rest")
            out.append((view, {"name": clip.name, "kind": kind, "speed": view.speed, "gaps": view.gaps}))
    return [out[i] for i in rng.permutation(len(out))]


def files_of(views, rng):
    """(sound, rows) of files of one view each, of which some end in its middle."""
    for view, row in views:
        long = rng.uniform(4, 16) if row["kind"] != "pool" else rng.uniform(3, 8)
        sound = view.sound[: int(long * front.RATE)]
        if len(sound) < len(view.sound):
            row = row | {"gaps": [*row["gaps"], (long * 1000, 1e9)]}
        lead, tail = (quiet(rng, rng.uniform(0, most)) if rng.random() < 0.7 else [] for most in (3.0, 1.0))
        yield np.concatenate([lead, sound, tail]), [row | {"begin": len(lead) / front.RATE * 1000, "long": len(sound) / front.RATE * 1000}]


def turns_of(views, rng):
    """(sound, rows) of files in which speech, what is no speech and speech follow each other at once, 3 to 6 s of each."""
    speech = [v for v in views if v[1]["kind"] not in ("rest", "still")]
    other = [v for v in views if v[1]["kind"] in ("rest", "still")]
    for k in range(min(len(speech) // 2, len(other))):
        parts, rows, at = [], [], 0.0
        for view, row in (speech[2 * k], other[k], speech[2 * k + 1]):
            long = rng.uniform(3, 6)
            sound = view.sound[: int(long * 50) * 320]
            if len(sound) < len(view.sound):
                row = row | {"gaps": [*row["gaps"], (len(sound) / front.RATE * 1000, 1e9)]}
            parts.append(sound)
            rows.append(row | {"begin": at, "long": len(sound) / front.RATE * 1000})
            at += rows[-1]["long"]
        yield np.concatenate(parts), rows


def whole_of(views, rng):
    """(sound, rows) of one file of all views."""
    sound, starts = joined([v for v, _ in views], rng)
    return sound, [row | {"begin": start * TOKEN_MS, "long": len(view.sound) / front.RATE * 1000} for (view, row), start in zip(views, starts)]


def windows_of(files):
    """(mel [2 T + 3, 80], row) of each window."""
    for sound, rows in files:
        tokens = -(-len(sound) // 320)
        for k, mel in enumerate(windows.cut(front.log_mel(torch.from_numpy(np.ascontiguousarray(sound, np.float32))[None])[0], tokens, margin=MARGIN)):
            low, high = k * STEP * TOKEN_MS, (k + 1) * STEP * TOKEN_MS
            near = [r for r in rows if r["begin"] < high + 400 and r["begin"] + r["long"] > low - 400]
            yield mel, {"token": k * STEP, "views": near}


def main(args):
    torch.set_num_threads(args.threads)
    encoder = whisper.load(args.weights, layers=args.layers)
    if args.four:
        four.put(encoder, four.load(args.four))
    clips, _ = load(args.cache, args.shipped, args.hold)
    rng = np.random.default_rng(args.seed)
    if args.measured:
        clips = [c for c in clips if c.group and not (c.group == "val_grid_s1" and hash_of(c.name) % 4)]
        files = [(c.pcm.astype(np.float32) / 32768, [{"name": c.name, "kind": c.kind, "speed": 1.0, "gaps": [], "begin": 0.0, "long": c.seconds * 1000}]) for c in clips]
    else:
        clips = [c for c in clips if c.group is None and c.weight > 0 and (c.kind not in ("rest", "still") or args.named in c.name)]
        mixed = noises(clips)
        files = list(files_of(views_of(clips, kinds_of(args.alone), rng, mixed, args.plain), rng))
        if args.turns:
            files += list(turns_of(views_of(clips, kinds_of(args.turns), rng, mixed, args.plain), rng))
        if args.joined:
            files.append(whole_of(views_of(clips, kinds_of(args.joined), rng, mixed, args.plain), rng))
    found = list(windows_of(files))
    rows = [row for _, row in found]
    out = args.cache / "hearing"
    out.mkdir(exist_ok=True)
    some = [found[i][0] for i in rng.permutation(len(found))[:24]]
    if args.steps:
        steps = np.load(args.steps)
    else:
        steps = steps_of(torch.cat([states_of(encoder, torch.stack(some[k : k + 4])) for k in range(0, len(some), 4)]))
    np.save(out / f"{args.name}.steps.npy", steps)
    store = np.lib.format.open_memmap(out / f"{args.name}.npy", "w+", np.int8, (len(found), windows.WINDOW, *steps.shape))
    for k in range(0, len(found), 4):
        states = states_of(encoder, torch.stack([mel for mel, _ in found[k : k + 4]]), not args.whole)
        store[k : k + 4] = (states / torch.from_numpy(steps)).round().clamp(-127, 127).to(torch.int8).numpy()
        if k % 100 == 0:
            print(f"{k} of {len(found)}", flush=True)
    store.flush()
    (out / f"{args.name}.json").write_text(json.dumps(rows))
    print(f"{len(found)} windows")


def kinds_of(items):
    return {k: float(n) for k, n in (item.split("=") for item in items)}


class Store:
    """Windows of one cache: the first states of each in f32, and rows."""

    def __init__(self, cache, name, states=None):
        self.codes = np.load(cache / "hearing" / f"{name}.npy", mmap_mode="r")[:, :, :states]
        self.steps = torch.from_numpy(np.load(cache / "hearing" / f"{name}.steps.npy"))[:states]
        self.rows = json.loads((cache / "hearing" / f"{name}.json").read_text())

    def states(self, index):
        return torch.from_numpy(np.array(self.codes[index])).float() * self.steps


class Batches:
    """Endless seeded batches of windows; a window is taken by the kinds of what its middle hears: `shares` maps kind -> share."""

    def __init__(self, stores, clips, shares, batch, seed, latents=12, ahead=AHEAD):
        self.clips = {(c.name, c.kind): c for c in clips if c.group is None and c.opening is not None and c.weight > 0}
        self.items, holds = [], []
        for store in stores:
            for k, row in enumerate(store.rows):
                views = [v for v in row["views"] if (v["name"], v["kind"]) in self.clips]
                low = row["token"] * TOKEN_MS
                parts = {}
                for v in views:
                    inside = min(v["begin"] + v["long"], low + FRAMES * FRAME_MS) - max(v["begin"], low)
                    parts[v["kind"]] = parts.get(v["kind"], 0) + max(0.0, inside) * self.clips[v["name"], v["kind"]].weight
                if len(views) == len(row["views"]) and sum(parts.values()) > 500:
                    self.items.append((store, k, views))
                    holds.append(parts)
        totals = {k: sum(p.get(k, 0.0) for p in holds) for k in shares}
        self.seconds = {k: round(v / 1000) for k, v in totals.items() if v > 0}
        weights = np.array([sum(shares[k] * v / totals[k] for k, v in p.items() if shares.get(k)) for p in holds])
        self.sums = np.cumsum(weights)
        self.batch, self.seed, self.latents, self.ahead = batch, seed, latents, ahead

    def __call__(self, step):
        rng = np.random.default_rng([self.seed, step])
        items = [self.item(rng) for _ in range(self.batch)]
        out = {"states": torch.stack([i.pop("states") for i in items])}
        return out | {k: torch.from_numpy(np.stack([np.asarray(i[k], np.float32) for i in items])) for k in items[0]}

    def item(self, rng):
        store, index, views = self.items[min(np.searchsorted(self.sums, rng.random() * self.sums[-1]), len(self.items) - 1)]
        return {"states": store.states(index)} | self.labels(store.rows[index]["token"], views, rng.uniform(0, FRAME_MS))

    def labels(self, token, views, phase):
        """Of the frames at `phase` + 40 k ms after the middle's beginning: time on the window's clock, latents, opening, what is known of either."""
        inside_ms = phase + np.arange(FRAMES) * FRAME_MS
        time = token * TOKEN_MS + inside_ms
        z, opening = np.zeros((FRAMES, self.latents), np.float32), np.zeros(FRAMES, np.float32)
        weight, has = np.ones(FRAMES, np.float32), np.ones(FRAMES, np.float32)
        nearest = np.full(FRAMES, np.inf)
        for v in views:
            clip = self.clips[v["name"], v["kind"]]
            seconds = (time - v["begin"]) / 1000 * v["speed"]
            apart = np.maximum(np.maximum(-seconds, seconds - clip.seconds), 0)
            mine = (apart < nearest) & (apart < 0.3)
            nearest = np.where(mine, apart, nearest)
            inside = envelope(seconds, 0.0, clip.seconds) * openness(time - v["begin"], v["gaps"])
            place = (seconds + clip.lag + self.ahead) * clip.fps
            opening = np.where(mine, at_times(clip.opening, place) * inside, opening)
            if clip.z is not None:
                z = np.where(mine[:, None], at_times(clip.z, place) * inside[:, None], z)
            has = np.where(mine, float(clip.z is not None), has)
            known = min(clip.seconds, len(clip.opening) / clip.fps)
            weight = np.where(mine, (seconds < known) | (seconds > clip.seconds + 0.2), weight)
        return {"time": MARGIN * TOKEN_MS + inside_ms, "z": z, "opening": opening, "has_z": has, "weight": weight}


def arguments(sub):
    one = sub.add_parser("windowed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    one.add_argument("--cache", type=Path, required=True)
    one.add_argument("--weights", type=Path, required=True)
    one.add_argument("--four", type=Path, help="codes of the encoder's weights, by `four`; without them its own weights")
    one.add_argument("--layers", type=int, default=6)
    one.add_argument("--name", required=True)
    one.add_argument("--alone", nargs="+", default=[])
    one.add_argument("--joined", nargs="+", default=[])
    one.add_argument("--turns", nargs="+", default=[], help="KIND=N: files in which speech and what is no speech take turns")
    one.add_argument("--named", default="", help="of sounds that are no speech only those with this in their name")
    one.add_argument("--measured", action="store_true")
    one.add_argument("--steps", type=Path, help="NAME.steps.npy of another cache")
    one.add_argument("--plain", type=float, default=0.3, help="share of views without changes")
    one.add_argument("--shipped", type=Path, default=Path(__file__).parents[2] / "models/compact/basis.safetensors")
    one.add_argument("--hold", action="store_true")
    one.add_argument("--whole", action="store_true", help="compute in f32")
    one.add_argument("--seed", type=int, default=81)
    one.add_argument("--threads", type=int, default=1)
    one.set_defaults(action=main)
