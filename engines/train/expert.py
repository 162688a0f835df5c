#!/usr/bin/env python3
"""The sync expert of `evaluate.py`: whether lips and a voice belong together, and by how much they are apart. It measures and never teaches:
no other network here has it in its loss.

    expert.py points --data DATA --cache CACHE --lipstream BIN        landmarks of every clip by the engine's tracker
    expert.py train  --data DATA --cache CACHE --run DIR [--steps N]  resumes from DIR/last.pt where there is one
    expert.py eval   --data DATA --cache CACHE --run DIR
    expert.py export --data DATA --cache CACHE --run DIR --out engines/models/expert

Two networks give each video frame a unit vector: one sees about 0.6 s of the lips' landmarks, the other as much of the sound. Training is contrastive
(Chung and Zisserman, "Out of time: automated lip sync in the wild", ACCV workshops 2016, with van den Oord et al.'s InfoNCE, 2018, in the place of its
margin): of the voice moved by -15..15 frames, and of other clips' voices, the right one must agree most, over windows of several lengths.

S(k) = mean over t of <lips[t], voice[t - k]>; offset = argmax S (positive: the picture is late); confidence = max S - median S.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from audio import MEL_MEAN, MEL_STD
from common import mesh, tracked
from common.runs import Log, clips, data_argument, is_val, seed_all
from common.training import Loop, along_cosine, follow
from motion.batch import FRAMES, Batches, Clip, Mel
from motion.data import aligned, kind_of, pcm
from motion.sources import HELD, group_of, trust

LIPS, WIDTH, DIMS, REACH = 80, 128, 64, 15
# Frames over which agreement is averaged before the right shift is asked for.
WINDOWS = (8, 20, 34)
SHARES = {"grid_s1": 0.22, "grid_other": 0.28, "free": 0.2, "gen": 0.3}


@dataclass
class Settings:
    steps: int = 2200
    batch: int = 32
    rate: float = 1.5e-3
    seed: int = 29
    dropout: float = 0.2
    weight_decay: float = 0.05


class Block(nn.Module):
    def __init__(self, width, dilation, dropout):
        super().__init__()
        self.norm, self.drop = nn.LayerNorm(width), nn.Dropout(dropout)
        self.conv = nn.Conv1d(width, 2 * width, 3, padding=dilation, dilation=dilation)
        self.out = nn.Linear(width, width)

    def forward(self, x):
        """[B, T, W] -> [B, T, W]"""
        a, b = self.conv(self.norm(x).transpose(1, 2)).transpose(1, 2).chunk(2, -1)
        return x + self.out(self.drop(a * torch.sigmoid(b)))


class Lips(nn.Module):
    """`lips` [B, T, 80] in unit crop coordinates -> `embedding` [B, T, 64]. Who it is and how widely they speak is taken out first."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.entry = nn.Conv1d(2 * LIPS, WIDTH, 5, padding=2)
        self.blocks = nn.Sequential(*(Block(WIDTH, d, dropout) for d in (1, 2, 2)))
        self.out = nn.Linear(WIDTH, DIMS)

    def forward(self, lips):
        x = lips - lips.mean(1, keepdim=True)
        x = x / ((x * x).mean((1, 2), keepdim=True) + 1e-6).sqrt()
        change = torch.cat([x[:, 1:] - x[:, :-1], torch.zeros_like(x[:, :1])], 1)
        x = self.entry(torch.cat([x, 2 * change], -1).transpose(1, 2)).transpose(1, 2)
        return functional.normalize(self.out(self.blocks(x)), dim=-1)


class Voice(nn.Module):
    """`mel` [B, 4 T, 80], not normalised -> `embedding` [B, T, 64]; frame t is the sound around 40 t ms."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.entry = nn.Conv1d(80, WIDTH, 5, padding=2)
        self.first = Block(WIDTH, 1, dropout)
        self.down = nn.Conv1d(WIDTH, WIDTH, 7, stride=4, padding=3)
        self.blocks = nn.Sequential(*(Block(WIDTH, d, dropout) for d in (1, 2, 2)))
        self.out = nn.Linear(WIDTH, DIMS)

    def forward(self, mel):
        x = ((mel - MEL_MEAN) / MEL_STD).transpose(1, 2)
        x = self.first(functional.silu(self.entry(x)).transpose(1, 2))
        x = self.blocks(self.down(x.transpose(1, 2)).transpose(1, 2))
        return functional.normalize(self.out(x), dim=-1)


class Expert(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.lips, self.voice = Lips(dropout), Voice(dropout)
        self.sharpness = nn.Parameter(torch.tensor(2.0))


def curve(lips, voice):
    """S(k), k = -REACH..REACH, of embeddings [T, 64]."""
    n = min(len(lips), len(voice))
    agree = lips[:n] @ voice[:n].T
    return np.array([np.diagonal(agree, -k).mean() for k in range(-REACH, REACH + 1)])


def verdict(s):
    """(offset, confidence) of a curve."""
    return int(s.argmax()) - REACH, float(s.max() - np.median(s))


def load(data, cache, hold=False):
    """(training clips, evaluation clips as (group, Clip)); `z` of a clip is its lips [T, 80] about their mean."""
    template = np.array(json.loads((Path(__file__).parent.parent / "models/tracker/template.json").read_text())["points"])
    training, held = [], []
    for relative in clips(data):
        kind, path = kind_of(relative), cache / "points" / relative.with_suffix(".csv")
        if kind is None or relative.parts[0] != "talking" or not path.exists():
            continue
        points, found = tracked.read(path)
        if found.mean() < 0.9 or len(points) < 50:
            continue
        lips = aligned(points, template)[:, : LIPS // 2].reshape(len(points), -1)
        lips = (lips - lips.mean(0)).astype(np.float32)
        name = str(relative.with_suffix("")).replace("/", "__")
        stored = cache / "motion" / "pcm" / f"{name}.npy"
        sound = np.load(stored) if stored.exists() else pcm(data / relative)
        opening = lips[:, 2 * mesh.OPENING[1] + 1] - lips[:, 2 * mesh.OPENING[0] + 1]
        weight, lag = trust(name)
        clip = Clip(name, kind, sound, lips, opening, 25.0, weight, lag)
        if is_val(relative):
            held.append((f"val_{group_of(name)}", clip))
        elif hold and any(h in name for h in HELD):
            held.append(("dev", clip))
        elif weight > 0:
            training.append(clip)
    return training, held


def loss_of(model, batch, generator):
    """Cross entropy of the right voice among 31 shifts of it and as many pieces of others', for windows of several lengths."""
    lips = batch["z"] + 0.002 * torch.randn(batch["z"].shape, generator=generator)
    a, v = model.lips(lips), model.voice(batch["mel"][:, : 4 * FRAMES])
    scale = model.sharpness.exp()
    own = torch.einsum("btd,bsd->bts", a, v)
    at = torch.arange(FRAMES - 2 * REACH) + REACH
    shifts = torch.arange(-REACH, REACH + 1)
    # [B, frames, shifts]: the voice of frame t - k.
    table = own[:, at[:, None], at[:, None] - shifts]
    others = torch.roll(v, 1, 0)
    foreign = torch.einsum("btd,bsd->bts", a, others)[:, at[:, None], at[:, None] - shifts]
    table = torch.cat([table, foreign], -1)
    total, parts = 0.0, {}
    for window in WINDOWS:
        mean = functional.avg_pool1d(table.transpose(1, 2), window, 3).transpose(1, 2) * scale * window**0.5
        # The neighbours of the right frame are nearly as right.
        want = torch.zeros(table.shape[-1])
        want[REACH - 1 : REACH + 2] = torch.tensor([0.15, 0.7, 0.15])
        # A mouth that stands still in a window cannot tell.
        moves = functional.avg_pool1d(batch["z"][:, at].std(2, keepdim=True).transpose(1, 2), window, 3)[:, 0]
        weight = (moves > 1e-4).float()
        loss = -(functional.log_softmax(mean, -1) * want).sum(-1)
        total = total + (loss * weight).sum() / weight.sum().clamp_min(1)
        parts[f"right{window}"] = round(float((((mean.argmax(-1) - REACH).abs() <= 1).float() * weight).sum() / weight.sum().clamp_min(1)), 3)
    return total / len(WINDOWS), parts


@torch.no_grad()
def embed(model, clip, mel=Mel()):
    """(lips [T, 64], voice [T, 64]) of a whole clip."""
    n = min(len(clip.z), len(clip.pcm) // 640)
    sound = np.pad(clip.pcm.astype(np.float32) / 32768, (0, 640))[: 640 * n + 240]
    return model.lips(torch.from_numpy(clip.z[None, :n]))[0].numpy(), model.voice(mel(torch.from_numpy(sound)[None])[:, : 4 * n])[0].numpy()


def summary(model, held):
    """Of each group: clips, share with an offset of -1..1, median confidence, and that of shuffled pairs."""
    model.eval()
    rows, out = [(group, clip, *embed(model, clip)) for group, clip in held], {}
    for group in sorted({r[0] for r in rows}):
        own = [r for r in rows if r[0] == group]
        found = [verdict(curve(r[2], r[3])) for r in own]
        mixed = [verdict(curve(r[2], s[3]))[1] for r, s in zip(own, own[1:] + own[:1])]
        out[group] = [len(own), round(float(np.mean([abs(k) <= 1 for k, _ in found])), 2), round(float(np.median([c for _, c in found])), 3),
                      round(float(np.median(mixed)), 3)]
        if len(own) <= 12:
            out[f"{group}_each"] = {r[1].name.split("__")[-1]: [k, round(c, 3)] for r, (k, c) in zip(own, found)}
    model.train()
    return out


def train(args):
    torch.set_num_threads(1)
    settings = Settings(**{k: v for k, v in vars(args).items() if k in Settings.__dataclass_fields__ and v is not None})
    seed_all(settings.seed)
    training, held = load(args.data, args.cache, args.hold)
    batches = Batches(training, SHARES, settings.batch, settings.seed)
    model, average = Expert(settings.dropout), Expert(settings.dropout)
    average.load_state_dict(model.state_dict())
    optimiser = torch.optim.AdamW(model.parameters(), settings.rate, weight_decay=settings.weight_decay, betas=(0.9, 0.98))
    log = Log(args.run / "log.jsonl")
    rate = lambda step: along_cosine(settings.rate, step, settings.steps, 100, floor=0.03)
    loop = Loop(args.run, settings.steps, rate, optimiser, {"model": model, "average": average, "optimiser": optimiser})
    log(event="start", step=loop.start, clips=len(training), parameters=sum(p.numel() for p in model.parameters()), **asdict(settings))
    for step in loop:
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        torch.manual_seed(settings.seed * 1_000_003 + step)
        loss, parts = loss_of(model, batches(step), generator)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        follow(average, model, step, 0.995)
        if (step + 1) % 50 == 0:
            log(step=step + 1, loss=round(float(loss.detach()), 4), **parts)
        if loop.due(step, 200):
            loop.save(step, settings=asdict(settings))
            log(step=step + 1, **summary(average, held))


def restore(run):
    model = Expert()
    model.load_state_dict(torch.load(run / "last.pt", weights_only=False)["average"])
    return model.eval()


def export(args):
    model = restore(args.run)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, network, tokens, width in (("lips", model.lips, 1, LIPS), ("voice", model.voice, 4, 80)):
        given, path = {"lips": "lips", "voice": "mel"}[name], args.out / f"{name}.onnx"
        torch.onnx.export(network, (torch.randn(1, 60 * tokens, width),), str(path), input_names=[given], output_names=["embedding"],
                          dynamic_axes={given: {0: "batch", 1: "time"}, "embedding": {0: "batch", 1: "frames"}}, opset_version=17, dynamo=False)
        from motion.export import session

        x = torch.randn(1, 91 * tokens, width) * 0.05
        (got,) = session(path).run(None, {given: x.numpy()})
        worst = float(np.abs(got - network(x).detach().numpy()).max())
        if worst > 1e-4:
            raise SystemExit(f"{path}: ONNX and torch differ by {worst}")
        print(f"{path}: {path.stat().st_size} bytes, differs from torch by {worst:.1e}")


def points(args):
    for relative, reason in tracked.write(args.data, args.cache, args.lipstream):
        print(f"{relative}: {reason}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(required=True)
    actions = {"points": points, "train": train, "export": export,
               "eval": lambda a: print(json.dumps(summary(restore(a.run), load(a.data, a.cache)[1]), indent=1))}
    for name, action in actions.items():
        one = sub.add_parser(name)
        data_argument(one)
        one.set_defaults(action=action)
        if name != "points":
            one.add_argument("--run", type=Path, required=True)
        if name == "points":
            one.add_argument("--lipstream", type=Path, required=True)
        if name == "export":
            one.add_argument("--out", type=Path, required=True)
        if name == "train":
            one.add_argument("--hold", action="store_true", help="keep some clips out of training, to measure on")
            for field, f in Settings.__dataclass_fields__.items():
                one.add_argument(f"--{field.replace('_', '-')}", type=type(f.default), default=None)
    args = parser.parse_args()
    args.action(args)


if __name__ == "__main__":
    main()
