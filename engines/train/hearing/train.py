#!/usr/bin/env python3
"""Train the head and the motion of the hearing on cached states; and a teacher on states of whole clips.

    python -m hearing train --cache CACHE --run DIR --views NAME [NAME ..] [--teacher] [--hold]

Loss: L1 of latents and of the opening, twice the L1 of their change, 1 - concordance, the log deviation, and for closures four times the weight and a cost for staying open.
Averaged weights. DIR/log.jsonl has a line each 50 steps, and the measures of `measure.py` each --every.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from common.runs import Log, seed_all
from common.training import Loop, along_cosine, follow
from hearing import batch, measure, sources
from hearing.net import Hearing, Teacher
from motion.train import concordance, liveliness

SHIPPED = Path(__file__).parents[2] / "models/compact/basis.safetensors"
SHARES = {"grid_s1": 0.08, "grid_other": 0.17, "free": 0.12, "gen": 0.12, "mocap": 0.07, "voice": 0.06, "tongues": 0.05, "many": 0.06, "rest": 0.06,
          "still": 0.06, "pool": 0.3}
TAUGHT = {"grid_s1": 0.15, "grid_other": 0.3, "free": 0.25, "gen": 0.3}


@dataclass
class Settings:
    steps: int = 900
    batch: int = 24
    rate: float = 2e-3
    seed: int = 1
    features: int = 96
    dropout: float = 0.3
    concordance: float = 0.5
    spread: float = 0.2
    velocity: float = 2.0
    opening: float = 1.0
    shut: float = 4.0
    average: float = 0.995
    weight_decay: float = 0.05


def wide_loss(wide, target, weight, settings):
    """Losses of the opening [B, V]."""
    shut = batch.closures(target)
    row = weight * (1 + (settings.shut - 1) * shut)
    gap = (row * (wide - target).abs()).mean() + settings.velocity * (row[:, 1:] * (wide.diff(dim=1) - target.diff(dim=1)).abs()).mean()
    left = (weight * shut * (wide - target - 0.02).clamp_min(0)).mean() * settings.shut
    even = weight.mean(1, keepdim=True) > 0.99
    whole = even.float().expand_as(weight)[:, 0]
    agree = concordance(wide, target, whole)
    return settings.opening * (gap + left) + settings.concordance * agree + settings.spread * liveliness(wide, target, whole), gap, agree


def loss_of(model, got, settings, component):
    return loss_of_features(model, model.features(list(got["states"].unbind(2))), got, settings, component)


def loss_of_features(model, features, got, settings, component):
    weight, has, target = got["weight"], got["has_z"], got["z"]
    if has.dim() == 1:
        has = has[:, None]
    total, parts = 0.0, {}
    for look in model.motions:
        clean = model.motion(features, got["time"], int(look))
        row = (weight * has)[..., None] * component
        value = (row * (clean - target).abs()).sum(-1).mean() + settings.velocity * (row[:, 1:] * (clean.diff(dim=1) - target.diff(dim=1)).abs()).sum(-1).mean()
        other, gap, agree = wide_loss(clean @ model.opening, got["opening"], weight, settings)
        total = total + 0.5 * value + other
        parts |= {f"value{look}": float(value.detach()), f"gap{look}": float(gap.detach()), f"agree{look}": float(agree.detach())}
    return total, parts


def build(settings, basis, teacher):
    kind = Teacher if teacher else Hearing
    return kind(basis["basis"].shape[1], basis["opening"], features=settings.features, dropout=settings.dropout)


def main(args):
    torch.set_num_threads(args.threads)
    settings = Settings(**{k: v for k, v in vars(args).items() if k in Settings.__dataclass_fields__ and v is not None})
    seed_all(settings.seed)
    clips, basis = sources.load(args.cache, SHIPPED, args.hold)
    if not args.teacher:
        sources.pseudo(args.cache, clips, basis)
    views = batch.read(args.cache, args.views, clips)
    shares = (TAUGHT if args.teacher else SHARES) | json.loads(args.shares)
    batches = batch.Batches(views, shares, settings.batch, settings.seed, ahead=0.0 if args.teacher else args.ahead)
    model, average = build(settings, basis, args.teacher), build(settings, basis, args.teacher)
    if args.init:
        model.load_state_dict(torch.load(args.init, weights_only=False)["average"])
    average.load_state_dict(model.state_dict())
    optimiser = torch.optim.AdamW(model.parameters(), settings.rate, weight_decay=settings.weight_decay, betas=(0.9, 0.98))
    component = torch.from_numpy(basis["range"] / basis["range"][0])
    measured = measure.Measured(args.cache, clips, args.measured)
    log = Log(args.run / "log.jsonl")
    loop = Loop(args.run, settings.steps, lambda s: along_cosine(settings.rate, s, settings.steps, 60, floor=0.02), optimiser,
                {"model": model, "average": average, "optimiser": optimiser})
    log(event="start", step=loop.start, views=len(views), kinds={k: len(v) for k, v in batches.groups.items()},
        parameters=sum(p.numel() for p in model.parameters()), shares=shares, **asdict(settings))
    for step in loop:
        torch.manual_seed(settings.seed * 1_000_003 + step)
        model.train()
        total, parts = loss_of(model, batches(step), settings, component)
        optimiser.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        follow(average, model, step, settings.average)
        if (step + 1) % 50 == 0:
            log(step=step + 1, loss=round(float(total.detach()), 4), **{k: round(v, 4) for k, v in parts.items()})
        if loop.due(step, args.every):
            loop.save(step, settings=asdict(settings), teacher=args.teacher)
            log(step=step + 1, **measured.summary(average))


def restore(run, basis):
    """The averaged model of a run."""
    kept = torch.load(run / "last.pt", weights_only=False)
    model = build(Settings(**kept["settings"]), basis, kept["teacher"])
    model.load_state_dict(kept["average"])
    return model.eval(), kept


def arguments(sub):
    one = sub.add_parser("train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    one.add_argument("--cache", type=Path, required=True)
    one.add_argument("--run", type=Path, required=True)
    one.add_argument("--views", nargs="+", required=True)
    one.add_argument("--measured", default="eval", help="cache of states of the clips that are measured")
    one.add_argument("--teacher", action="store_true", help="on states of whole clips")
    one.add_argument("--hold", action="store_true", help="keep the development clips out")
    one.add_argument("--init", type=Path)
    one.add_argument("--shares", default="{}", help="JSON: kind -> share of the batch")
    one.add_argument("--ahead", type=float, default=batch.AHEAD, help="seconds by which the motion is taught early")
    one.add_argument("--every", type=int, default=300)
    one.add_argument("--threads", type=int, default=1)
    for name, kind in Settings.__dataclass_fields__.items():
        one.add_argument(f"--{name.replace('_', '-')}", type=type(kind.default), default=None)
    one.set_defaults(action=main)
