"""Training, its measure and the export."""

import json
import math
import time

import cv2
import numpy as np
import torch
from torch import nn

from common.layers import Average, export, flops
from common.runs import Log, seed_all
from common.training import Loop

from . import compose
from .hand import Hand
from .net import Occlusion

HAND_PIXELS = 160


def hands(args, split, count):
    """Drawn once: CACHE/occlusion/hands-<split>.npy, uint8 [count, 160, 160, 4]. The two splits share no pose."""
    path = args.cache / "occlusion" / f"hands-{split}.npy"
    if not path.exists():
        mesh = Hand(args.data / "makehuman" / "base.obj")
        first = 0 if split == "train" else 1_000_000
        np.save(path, np.stack([mesh.draw(np.random.default_rng(first + k), HAND_PIXELS) for k in range(count)]))
    return np.load(path, mmap_mode="r")


class Samples:
    def __init__(self, args, split):
        z = np.load(args.cache / "occlusion" / f"{split}.npz")
        self.images, self.points, self.group = z["images"], z["points"], z["group"]
        self.patches = z["patches"]
        # Everybody counts by the square root of their pictures.
        weight = 1 / np.sqrt(np.bincount(self.group)[self.group])
        self.chance = weight / weight.sum()
        self.hands = hands(args, split, 900 if split == "train" else 120)

    def draw(self, rng, count, **how):
        chosen = rng.choice(len(self.images), count, p=self.chance)
        images, covers, faces = zip(*(compose.sample(self.images[k], self.points[k], rng, self.hands, self.patches, **how) for k in chosen))
        return np.stack(images), np.stack(covers), np.stack(faces)


def tensors(images, covers, faces):
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255).contiguous(memory_format=torch.channels_last)
    return x, torch.from_numpy(covers)[:, None], torch.from_numpy(faces)[:, None]


def loss_of(logits, cover, face):
    """Cross entropy, most of it of the lower face and there of edges, and one minus the soft Dice of what is covered there and of what is not."""
    near = nn.functional.max_pool2d(face, 9, 1, 4)
    edge = nn.functional.max_pool2d(cover, 3, 1, 1) + nn.functional.max_pool2d(-cover, 3, 1, 1)
    weight = (0.12 + 0.88 * near) * (1 + edge)
    cross = nn.functional.binary_cross_entropy_with_logits(logits, cover, reduction="none")
    p = torch.sigmoid(logits)

    def dice(a, b):
        both, all_ = (a * b * face).sum((1, 2, 3)), ((a + b) * face).sum((1, 2, 3))
        return 1 - (2 * both + 10) / (all_ + 10)

    return (cross * weight).sum() / weight.sum() * 2 + 0.8 * dice(p, cover).mean() + 0.5 * dice(1 - p, 1 - cover).mean()


def figures(predicted, covers, faces):
    """IoU of the visible face and of what is covered, over the lower face, means over the pictures; of the latter where it is 3 % of it or
    more. `all` are the same of the pixels of all pictures together. And what is taken from faces that nothing covers: the mean, and the
    share of pixels above a half."""
    inside = faces > 0.5
    seen, covered, false = [], [], []
    pixels = np.zeros(4)
    for p, c, at in zip(predicted, covers, inside):
        p, c = p[at], c[at]
        if not at.any():
            continue
        guess, truth = p > 0.5, c > 0.5
        pixels += [(~guess & ~truth).sum(), (~guess | ~truth).sum(), (guess & truth).sum(), (guess | truth).sum()]
        if (~truth).any():
            seen.append((~guess & ~truth).sum() / max((~guess | ~truth).sum(), 1))
        if truth.mean() >= 0.03:
            covered.append((guess & truth).sum() / max((guess | truth).sum(), 1))
        if c.max() < 0.02:
            false.append((p.mean(), (p > 0.5).mean()))
    false = np.array(false) if false else np.zeros((1, 2))
    mean = lambda found: round(float(np.mean(found)), 4) if found else None
    return {"visible": mean(seen), "covered": mean(covered),
            "visible_all": round(float(pixels[0] / max(pixels[1], 1)), 4), "covered_all": round(float(pixels[2] / max(pixels[3], 1)), 4),
            "clean_mean": round(float(false[:, 0].mean()), 5), "clean_share": round(float(false[:, 1].mean()), 5)}


class Measure:
    """The same pictures each time: people, hands and backgrounds that are nobody's in training."""

    def __init__(self, args, count):
        self.images, self.covers, self.faces = Samples(args, "val").draw(np.random.default_rng(77), count)

    def __call__(self, predict):
        out = []
        for k in range(0, len(self.images), 64):
            x = np.ascontiguousarray(self.images[k : k + 64].transpose(0, 3, 1, 2), dtype=np.float32) / 255
            out.append(np.asarray(predict(x))[:, 0])
        return figures(np.concatenate(out), self.covers, self.faces)


class Spent:
    """The seconds of a run, those before it was stopped as well."""

    def __init__(self):
        self.began = time.time()

    def __call__(self):
        return time.time() - self.began

    def state_dict(self):
        return {"seconds": self()}

    def load_state_dict(self, state):
        self.began = time.time() - state["seconds"]


class Best:
    """RUN/best.pt: the averaged weights with the highest mean of the four IoU, as long as few clean pixels are taken for covered."""

    def __init__(self, run):
        self.path = run / "best.pt"
        self.score = torch.load(self.path, weights_only=False)["score"] if self.path.exists() else 0.0

    def save(self, network, step, found):
        score = sum(found[name] for name in ("visible", "covered", "visible_all", "covered_all")) / 4
        if score > self.score and found["clean_share"] <= 0.006:
            self.score = score
            torch.save({"average": network.state_dict(), "step": step + 1, "score": score}, self.path)


def falling(peak, step, part):
    """The rate: up over 200 steps, then `peak` for half of the time, then down half a cosine to nothing."""
    return peak * min(1, (step + 1) / 200) * (0.5 + 0.5 * math.cos(math.pi * min(max(part - 0.5, 0) * 2, 1)))


def train(args):
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    seed_all(args.seed)
    samples, measure, log = Samples(args, "train"), Measure(args, 400), Log(args.run / "log.jsonl")
    network = Occlusion().to(memory_format=torch.channels_last)
    average = Average(network, 0.998)
    if args.init:
        state = torch.load(args.init, weights_only=False)["average"]
        network.load_state_dict(state)
        average.network.load_state_dict(state)
    optimizer = torch.optim.AdamW(network.parameters(), lr=args.lr, weight_decay=0.02)
    spent, best = Spent(), Best(args.run)
    rate = lambda step: falling(args.lr, step, spent() / (args.minutes * 60))
    loop = Loop(args.run, 10**9, rate, optimizer, {"network": network, "average": average.network, "optimizer": optimizer, "spent": spent})
    average.steps = loop.start
    total, since, began, start = 0.0, 0, time.time(), loop.start
    for step in loop:
        x, cover, face = tensors(*samples.draw(np.random.default_rng((args.seed, step)), args.batch, shares=compose.occluders.TRAINED))
        network.train()
        with torch.autocast("cpu", torch.bfloat16):
            logits = network.logits(x)
        loss = loss_of(logits.float(), cover, face)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimizer.step()
        average.update(network)
        total, since = total + loss.item(), since + 1
        ended = spent() > args.minutes * 60
        if loop.due(step, args.every) or ended:
            with torch.no_grad():
                found = measure(lambda x: average.network(torch.from_numpy(x)))
            log(step=step + 1, loss=round(total / since, 4), pace=round((step + 1 - start) / (time.time() - began), 2), **found)
            total, since = 0.0, 0
            loop.save(step)
            best.save(average.network, step, found)
        if ended:
            break


def run_eval(args):
    from common.teachers import session

    runtime = session(args.model)
    predict = lambda x: runtime.run(None, {"crop": x})[0]
    rng = np.random.default_rng(5)
    samples = Samples(args, "val")
    rows = {}
    for name, how in [("all", {}), ("clean", {"clean": 1.0}), *[(kind, {"kinds": [kind], "clean": 0.0}) for kind in compose.occluders.KINDS]]:
        measure = Measure.__new__(Measure)
        measure.images, measure.covers, measure.faces = samples.draw(rng, 1000 if name == "all" else 200, **how)
        rows[name] = measure(predict) if name != "clean" else {k: v for k, v in measure(predict).items() if k.startswith("clean")}
    print(json.dumps(rows, indent=1))


def run_export(args):
    network = Occlusion()
    network.load_state_dict(torch.load(args.run / "best.pt", weights_only=False)["average"])
    network.eval()
    example = torch.rand(1, 3, compose.VIEW, compose.VIEW)
    worst = export(network, example, args.model, ["crop"], ["covered"], {k: {0: "batch"} for k in ("crop", "covered")},
                   [example, torch.rand(5, 3, compose.VIEW, compose.VIEW)])
    print(f"{args.model}: {flops(network, example) / 1e9:.4f} GFLOP, {sum(p.numel() for p in network.parameters())} parameters, "
          f"{args.model.stat().st_size} bytes, largest difference to torch {worst:.1e}")
