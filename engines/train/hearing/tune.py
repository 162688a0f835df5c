#!/usr/bin/env python3
"""Train the encoder itself behind its mask, together with the head and the motions, from the weights of an engine's folder.

    python -m hearing tune --cache CACHE --run DIR --from FOLDER [--init RUN] [--steps N]

Views of the sound are made on the fly (pieces.py), the encoder computes in bfloat16, the losses are those of train.py. The encoder learns at --part of the rate of the rest.
DIR/last.pt holds the averaged weights alone once the run has ended.
"""

import argparse
import copy
import json
from dataclasses import asdict
from pathlib import Path

import torch

from common.runs import Log, seed_all
from common.training import Loop, along_cosine, follow
from hearing import batch, measure, pieces, shipped, sources
from hearing.net import Hearing
from hearing.train import SHARES, SHIPPED, Settings, loss_of_features

LOOKS = (160, 120, 80)


class Whole(torch.nn.Module):
    """The encoder and what hears on it."""

    def __init__(self, encoder, model):
        super().__init__()
        self.encoder, self.model = encoder, model

    def features(self, mel, position=None, first=None, half=True):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            states = self.encoder.whole(mel, position, first=first)
        return self.model.features([s.float() for s in states])


def groups(whole, part):
    return [{"params": list(whole.model.parameters()), "weight_decay": 0.05},
            {"params": list(whole.encoder.parameters()), "part": part, "weight_decay": 0.0}]


def start(folder, basis, looks, dropout):
    encoder, model = shipped.load(folder, basis["opening"], looks, dropout)
    for motion in model.motions.values():
        # The exporter's gain is against the shrinking of a regression, and no part of what is learnt.
        motion.gain = 1.0
    return Whole(encoder, model)


def main(args):
    torch.set_num_threads(args.threads)
    settings = Settings(**{k: v for k, v in vars(args).items() if k in Settings.__dataclass_fields__ and v is not None})
    seed_all(settings.seed)
    clips, basis = sources.load(args.cache, SHIPPED, args.hold)
    sources.pseudo(args.cache, clips, basis)
    shares = SHARES | json.loads(args.shares)
    batches = pieces.Pieces(clips, shares, settings.batch, settings.seed, sources.noises(clips), ahead=args.ahead)
    whole = start(getattr(args, "from"), basis, LOOKS, settings.dropout)
    if args.init:
        whole.load_state_dict(restore(args.init, basis)[0].state_dict())
    average = copy.deepcopy(whole)
    optimiser = torch.optim.AdamW(groups(whole, args.part), settings.rate, betas=(0.9, 0.98))
    component = torch.from_numpy(basis["range"] / basis["range"][0])
    log = Log(args.run / "log.jsonl")
    loop = Loop(args.run, settings.steps, lambda s: along_cosine(settings.rate, s, settings.steps, 40, floor=0.02), optimiser,
                {"whole": whole, "average": average, "optimiser": optimiser})
    log(event="start", step=loop.start, kinds={k: [len(v), round(sum(c.seconds for c in v))] for k, v in batches.groups.items()}, part=args.part, ahead=args.ahead,
        shares=shares, **asdict(settings))
    if loop.start == 0:
        log(step=0, **measure.heard(average.encoder, clips).summary(average.model))
    recent = []
    for step in loop:
        torch.manual_seed(settings.seed * 1_000_003 + step)
        whole.train()
        got = batches(step)
        features = whole.features(got["mel"], got["position"], got["first"])
        total, parts = loss_of_features(whole.model, features, got, settings, component)
        optimiser.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(whole.model.parameters(), 1.0)
        torch.nn.utils.clip_grad_norm_(whole.encoder.parameters(), 1.0)
        optimiser.step()
        follow(average, whole, step, settings.average)
        recent.append(parts | {"loss": float(total.detach())})
        if (step + 1) % args.print == 0:
            log(step=step + 1, **{k: round(sum(r[k] for r in recent) / len(recent), 4) for k in recent[0]})
            recent = []
        if loop.due(step, args.every):
            loop.save(step, settings=asdict(settings))
            log(step=step + 1, **measure.heard(average.encoder, clips).summary(average.model))
    torch.save({"average": average.state_dict(), "settings": asdict(settings), "step": settings.steps}, args.run / "tuned.pt")


def restore(run, basis, looks=LOOKS):
    """(the averaged Whole of a run for evaluation, its step)."""
    from hearing.encoder import Encoder

    path = run / "tuned.pt" if (run / "tuned.pt").exists() else run / "last.pt"
    kept = torch.load(path, weights_only=False)
    settings = Settings(**kept["settings"])
    whole = Whole(Encoder(), Hearing(basis["basis"].shape[1], basis["opening"], looks, settings.features))
    whole.load_state_dict(kept["average"])
    return whole.eval(), kept["step"]


def arguments(sub):
    one = sub.add_parser("tune", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    one.add_argument("--cache", type=Path, required=True)
    one.add_argument("--run", type=Path, required=True)
    one.add_argument("--from", type=Path, required=True, help="folder of the engine whose weights are the beginning")
    one.add_argument("--init", type=Path, help="a run of this program that this one goes on from")
    one.add_argument("--part", type=float, default=0.1, help="the encoder's part of the learning rate")
    one.add_argument("--hold", action="store_true", help="keep the development clips out")
    one.add_argument("--shares", default="{}", help="JSON: kind -> share of the batch")
    one.add_argument("--ahead", type=float, default=batch.AHEAD, help="seconds by which the motion is taught early")
    one.add_argument("--every", type=int, default=100)
    one.add_argument("--print", type=int, default=20)
    one.add_argument("--threads", type=int, default=2)
    for name, kind in Settings.__dataclass_fields__.items():
        one.add_argument(f"--{name.replace('_', '-')}", type=type(kind.default), default=None)
    one.set_defaults(action=main)
