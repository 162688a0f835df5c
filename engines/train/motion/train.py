#!/usr/bin/env python3
"""Train the motion model of `compact`, and export it.

    python -m motion train  --data DATA --cache CACHE --run DIR [--steps N] [--hold]     resumes from DIR/last.pt where there is one
    python -m motion export --data DATA --cache CACHE --run DIR [DIR ..] --out engines/models/compact

Needs CACHE/motion (motion/data.py, motion/voices.py, motion/sources.py, motion/rest.py). DIR/log.jsonl takes one JSON object a line. `--hold` keeps some
free and generated clips out of training, for choosing between settings by more than the validation clips.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from motion import measure
from audio import MEL_MEAN, MEL_STD
from common.runs import Log, data_argument, seed_all
from common.training import Loop, along_cosine, follow
from motion.batch import Batches
from motion.net import OFFSETS, AudioEncoder, Denoiser, DenoiserStack, EncoderStack, gather, smooth_noise
from motion.sources import load

AR = 0.9


@dataclass
class Settings:
    """What a run is told; kept in its checkpoint."""

    steps: int = 1200
    batch: int = 24
    rate: float = 1.5e-3
    seed: int = 1
    width: int = 192
    features: int = 128
    hidden: int = 256
    dropout: float = 0.25
    concordance: float = 1.0
    spread: float = 0.3
    velocity: float = 1.0
    opening: float = 1.0
    average: float = 0.997
    weight_decay: float = 0.05


SHARES = {"grid_s1": 0.13, "grid_other": 0.2, "free": 0.08, "gen": 0.18, "mocap": 0.1, "voice": 0.09, "tongues": 0.13, "teach": 0.15, "rest": 0.06}


class Motion(torch.nn.Module):
    """Both networks, and what turns latents into an opening."""

    def __init__(self, settings, latents, mean, std, opening):
        super().__init__()
        self.encoder = AudioEncoder(settings.width, settings.features, mean=mean, std=std, dropout=settings.dropout)
        self.denoiser = Denoiser(latents, len(OFFSETS) * settings.features, settings.hidden, dropout=settings.dropout)
        self.register_buffer("opening", torch.as_tensor(opening, dtype=torch.float32))

    def cond(self, mel, time):
        features, _ = self.encoder(self.encoder.normalised(mel), self.encoder.zeros(len(mel)))
        return gather(features, time)


def concordance(a, b, weight):
    """1 - Lin's concordance correlation of [B, T] rows, weighted; rows that hardly move count little."""
    ma, mb = a.mean(1, keepdim=True), b.mean(1, keepdim=True)
    va, vb, cov = ((a - ma) ** 2).mean(1), ((b - mb) ** 2).mean(1), ((a - ma) * (b - mb)).mean(1)
    ccc = 2 * cov / (va + vb + (ma - mb)[:, 0] ** 2 + 0.01)
    return (weight * (1 - ccc) * (vb / (vb + 0.01))).mean()


def liveliness(a, b, weight):
    """Squared difference of the log deviations of [B, T] rows: what is uncertain must not become small."""
    da, db = (a.var(1) + 4e-3).log() / 2, (b.var(1) + 4e-3).log() / 2
    return (weight * (da - db) ** 2).mean()


def loss_of(model, batch, settings, component, generator):
    """Flow-matching loss in data form at t = 0 and at a random t a sequence, with its velocity and opening terms."""
    cond = model.denoiser.cond(model.cond(batch["mel"], batch["time"]))
    z, has, weight = batch["z"], batch["has_z"], batch["weight"]
    n, frames, dims = z.shape
    total, parts = 0.0, {}
    for early in (True, False):
        t = torch.zeros(n) if early else torch.rand(n, generator=generator) * 0.9
        t = t[:, None].expand(n, frames)
        noise = smooth_noise(n, frames, dims, AR, generator)
        x = (1 - t)[..., None] * noise + t[..., None] * z
        # Clips that only have an opening are trained where the latent tells nothing.
        x = torch.where(has[:, None, None] > 0, x, noise)
        t = torch.where(has[:, None] > 0, t, torch.zeros(()))
        clean = model.denoiser.clean(x, t, cond)
        error = torch.nn.functional.smooth_l1_loss(clean, z, beta=0.5, reduction="none")
        change = torch.nn.functional.smooth_l1_loss(clean.diff(dim=1), z.diff(dim=1), beta=0.25, reduction="none")
        row = (weight * has)[:, None, None] * component
        value, velocity = (error * row).sum(-1).mean(), (change * row).sum(-1).mean()
        wide = clean @ model.opening
        target = batch["opening"]
        gap = (weight[:, None] * torch.nn.functional.smooth_l1_loss(wide, target, beta=0.3, reduction="none")).mean()
        gap = gap + 2 * (weight[:, None] * torch.nn.functional.smooth_l1_loss(wide.diff(dim=1), target.diff(dim=1), beta=0.1,
                                                                           reduction="none")).mean()
        agree, lively = concordance(wide, target, weight), liveliness(wide, target, weight)
        total = total + value + settings.velocity * velocity + settings.opening * 4 * gap + settings.concordance * agree + settings.spread * lively
        parts |= {f"{k}{int(not early)}": float(v.detach()) for k, v in (("value", value), ("gap", gap), ("agree", agree), ("lively", lively))}
    return total, parts


def train(args):
    torch.set_num_threads(1)
    settings = Settings(**{k: v for k, v in vars(args).items() if k in Settings.__dataclass_fields__ and v is not None})
    seed_all(settings.seed)
    clips, held, basis = load(args.cache, hold=args.hold, kinds=args.kinds)
    batches = Batches(clips, SHARES | json.loads(args.shares), settings.batch, settings.seed)
    model = Motion(settings, basis["basis"].shape[1], MEL_MEAN, MEL_STD, basis["opening"])
    if args.init:
        model.load_state_dict(torch.load(args.init, weights_only=False)["average"])
    average = Motion(settings, basis["basis"].shape[1], MEL_MEAN, MEL_STD, basis["opening"])
    average.load_state_dict(model.state_dict())
    optimiser = torch.optim.AdamW(model.parameters(), settings.rate, weight_decay=settings.weight_decay, betas=(0.9, 0.98))
    component = torch.from_numpy(basis["range"] / basis["range"][0])
    log = Log(args.run / "log.jsonl")
    rate = lambda step: along_cosine(settings.rate, step, settings.steps, 100, floor=0.03)
    loop = Loop(args.run, settings.steps, rate, optimiser, {"model": model, "average": average, "optimiser": optimiser})
    log(event="start", step=loop.start, clips=len(clips), parameters=sum(p.numel() for p in model.parameters()), mean=MEL_MEAN, std=MEL_STD, **asdict(settings))
    for step in loop:
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        torch.manual_seed(settings.seed * 1_000_003 + step)
        model.train()
        total, parts = loss_of(model, batches(step), settings, component, generator)
        optimiser.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        follow(average, model, step, settings.average)
        if (step + 1) % 50 == 0:
            log(step=step + 1, loss=round(float(total.detach()), 4), **{k: round(v, 4) for k, v in parts.items()})
        if loop.due(step, 300):
            loop.save(step, settings=asdict(settings), mean=MEL_MEAN, std=MEL_STD)
            log(step=step + 1, **measure.summary(average, held, args.eval_steps))


def restore(runs, basis, gain=1.0):
    """The averaged model of one or more runs (a committee), for evaluation, and the first one's checkpoint."""
    members, first = [], None
    for run in runs:
        kept = torch.load(run / "last.pt", weights_only=False)
        first = first or kept
        model = Motion(Settings(**kept["settings"]), basis["basis"].shape[1], kept["mean"], kept["std"], basis["opening"])
        model.load_state_dict(kept["average"])
        members.append(model.eval())
    model = members[0]
    if len(members) > 1 or gain != 1.0:
        denoisers, features = [m.denoiser for m in members], [m.encoder.features for m in members]
        model.encoder, model.denoiser = EncoderStack([m.encoder for m in members]), DenoiserStack(denoisers, features, gain)
    return model.eval(), first


def main():
    parser = argparse.ArgumentParser(prog="python -m motion", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(required=True)
    one = sub.add_parser("train")
    data_argument(one)
    one.add_argument("--run", type=Path, required=True)
    one.add_argument("--hold", action="store_true", help="keep the development clips out of training")
    one.add_argument("--init", type=Path, help="begin with the averaged weights of this checkpoint")
    one.add_argument("--shares", default="{}", help="JSON: kind -> share of the batch, in place of the built-in one")
    one.add_argument("--kinds", nargs="*", help="train on these kinds of clips only")
    one.add_argument("--eval-steps", type=int, nargs="*", default=[1, 2])
    for name, field in Settings.__dataclass_fields__.items():
        one.add_argument(f"--{name.replace('_', '-')}", type=type(field.default), default=None)
    one.set_defaults(action=train)
    two = sub.add_parser("export")
    data_argument(two)
    two.add_argument("--run", type=Path, nargs="+", required=True, help="one run, or several that answer together")
    two.add_argument("--gain", type=float, default=1.0, help="scale of the motion, against regression's shrinking")
    two.add_argument("--out", type=Path, required=True)
    two.set_defaults(action=export)
    args = parser.parse_args()
    args.action(args)


def export(args):
    from motion.export import write

    _, _, basis = load(args.cache, hold=False, sounds=False)
    model, kept = restore(args.run, basis, args.gain)
    write(model, kept, basis, args.out)


if __name__ == "__main__":
    main()
