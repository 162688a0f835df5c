#!/usr/bin/env python3
"""Train the head and the motion of what hears files, on the cached states of windows (windowed.py).

    python -m hearing whole --cache CACHE --run DIR --views NAME [NAME ..] [--init DIR [DIR ..]]

Losses are those of train.py. DIR/last.pt has the averaged weights; DIR/best.pt those of the measure with the best mean of r on the unseen and of closures of what is measured.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from common.runs import Log, seed_all
from common.training import Loop, along_cosine, follow
from hearing import batch, measure, sources, windowed, windows
from hearing.net import WHOLE, Teacher
from hearing.train import SHARES, SHIPPED, Settings, loss_of_features

FPS = measure.FPS


class Measured:
    """The clips of a cache made with `windowed --measured`."""

    def __init__(self, cache, clips, name):
        index = {(c.name, c.kind): c for c in clips if c.group}
        self.store, self.items = windowed.Store(cache, name), []
        for k, row in enumerate(self.store.rows):
            if row["token"] == 0:
                view = row["views"][0]
                self.items.append([index[view["name"], view["kind"]], k, k])
            self.items[-1][2] = k + 1

    @torch.no_grad()
    def openings(self, model):
        """(clip, its opening at 25 frames a second)."""
        model.eval()
        for clip, first, last in self.items:
            rows = torch.cat([model.features_of_normed(self.store.states([k])) for k in range(first, last)])
            yield clip, opening_of(model, windows.middles(rows, (last - first) * windowed.STEP, margin=windowed.MARGIN), int(clip.seconds * FPS))

    def rows(self, model):
        out = []
        for clip, got in self.openings(model):
            frames = min(int(len(clip.opening) * FPS / clip.fps), len(got))
            want = np.interp(np.arange(frames) / FPS * clip.fps, np.arange(len(clip.opening)), clip.opening)
            out.append(measure.row_of(clip, got[:frames], want))
        return out

    def summary(self, model):
        return measure.table(self.rows(model))


def opening_of(model, features, frames):
    """[frames] of the features [T, F] of a file."""
    time = torch.arange(frames)[None] * (1000 / FPS)
    return (model.motion(features[None], time, WHOLE)[0] @ model.opening).numpy()


def score(table):
    return table["unseen"]["r"] + 0.5 * np.mean([t["shut"] for t in table.values()])


def build(settings, basis, states):
    return Teacher(basis["basis"].shape[1], basis["opening"], features=settings.features, dropout=settings.dropout, states=states, look=WHOLE)


def mean_of(runs):
    """The mean of the averaged weights of runs."""
    kept = [torch.load(run / "last.pt", weights_only=False)["average"] for run in runs]
    return {k: sum(state[k] for state in kept) / len(kept) for k in kept[0]}


def restore(runs, basis):
    """(the model of a run, or of the mean of several, for evaluation, what the first kept)."""
    kept = torch.load(runs[0] / "last.pt", weights_only=False)
    model = build(Settings(**kept["settings"]), basis, kept["states"])
    model.load_state_dict(mean_of(runs))
    return model.eval(), kept


def main(args):
    torch.set_num_threads(args.threads)
    settings = Settings(**{k: v for k, v in vars(args).items() if k in Settings.__dataclass_fields__ and v is not None})
    seed_all(settings.seed)
    clips, basis = sources.load(args.cache, SHIPPED)
    sources.pseudo(args.cache, clips, basis)
    shares = SHARES | json.loads(args.shares)
    stores = [windowed.Store(args.cache, name, args.states) for name in args.views]
    batches = windowed.Batches(stores, clips, shares, settings.batch, settings.seed, ahead=args.ahead)
    model, average = build(settings, basis, args.states), build(settings, basis, args.states)
    if args.init:
        model.load_state_dict(mean_of(args.init))
    average.load_state_dict(model.state_dict())
    optimiser = torch.optim.AdamW(model.parameters(), settings.rate, weight_decay=settings.weight_decay, betas=(0.9, 0.98))
    component = torch.from_numpy(basis["range"] / basis["range"][0])
    measured = Measured(args.cache, clips, args.measured)
    log, best = Log(args.run / "log.jsonl"), -np.inf
    loop = Loop(args.run, settings.steps, lambda s: along_cosine(settings.rate, s, settings.steps, 40, floor=0.02), optimiser,
                {"model": model, "average": average, "optimiser": optimiser})
    log(event="start", step=loop.start, windows=len(batches.items), seconds_of=batches.seconds, parameters=sum(p.numel() for p in model.parameters()), ahead=args.ahead,
        shares=shares, states=args.states, **asdict(settings))
    recent = []
    for step in loop:
        torch.manual_seed(settings.seed * 1_000_003 + step)
        model.train()
        got = batches(step)
        total, parts = loss_of_features(model, model.features_of_normed(got["states"]), got, settings, component)
        optimiser.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        follow(average, model, step, settings.average)
        recent.append(parts | {"loss": float(total.detach())})
        if (step + 1) % args.print == 0:
            log(step=step + 1, **{k: round(sum(r[k] for r in recent) / len(recent), 4) for k in recent[0]})
            recent = []
        if loop.due(step, args.every):
            more = {"settings": asdict(settings), "states": args.states}
            loop.save(step, **more)
            table = measured.summary(average)
            log(step=step + 1, score=round(score(table), 4), measured=table)
            if score(table) > best:
                best = score(table)
                torch.save({"average": average.state_dict(), "step": step + 1} | more, args.run / "best.pt")


def arguments(sub):
    one = sub.add_parser("whole", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    one.add_argument("--cache", type=Path, required=True)
    one.add_argument("--run", type=Path, required=True)
    one.add_argument("--views", nargs="+", required=True)
    one.add_argument("--measured", default="wmeasured")
    one.add_argument("--states", type=int, default=7, help="stem and blocks that the head hears")
    one.add_argument("--init", type=Path, nargs="+", help="runs from whose mean weights this one begins")
    one.add_argument("--shares", default="{}", help="JSON: kind -> share of the batch")
    one.add_argument("--ahead", type=float, default=batch.AHEAD, help="seconds by which the motion is taught early")
    one.add_argument("--every", type=int, default=100)
    one.add_argument("--print", type=int, default=20)
    one.add_argument("--threads", type=int, default=1)
    for name, kind in Settings.__dataclass_fields__.items():
        one.add_argument(f"--{name.replace('_', '-')}", type=type(kind.default), default=None)
    one.set_defaults(action=main)
