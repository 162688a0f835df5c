#!/usr/bin/env python3
"""The lips network: the 40 lip points seen closely, where the landmark network has two or three pixels for the opening of a mouth.

    lips.py pack   --data DATA --cache CACHE            windows of all clips into CACHE/lips/{train,val}.npz
    lips.py train  --cache CACHE --out RUN              resumes from RUN/last.pt
    lips.py eval   --cache CACHE --model engines/models/tracker/lips.onnx
    lips.py export --cache CACHE --run RUN --model engines/models/tracker/lips.onnx

Input `window` float32 [B, 3, 96, 96], RGB 0..1: a level square of 0.46 of the aligned crop's side around the mean of the lip points that the
landmark network found. Output `points` float32 [B, 40, 2] in unit coordinates of the window: the mean of a heat map each (Sun et al., "Integral
Human Pose Regression", ECCV 2018).
"""

import argparse
import json
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from common import augment, mesh
from common.geometry import cv_matrix, square, transform, umeyama
from common.layers import Average, ConvBn, InvertedResidual, Separable, export, flops
from common.runs import Log, clips, data_argument, is_val, seed_all
from common.training import Loop, along_cosine
from common.video import frames
from landmarks import wing

PIXELS, SIDE = 96, 0.46
# What is packed shows more, so that the window can be moved.
ROOM = 1.45
PACKED = round(PIXELS * ROOM)
EYES = 0.513
LIPS = slice(0, 40)
GRID = 24


class Lips(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(ConvBn(3, 24, 3, 2), InvertedResidual(24, 32, 64, 2), InvertedResidual(32, 48, 96), InvertedResidual(48, 48, 96))
        self.deep = nn.Sequential(InvertedResidual(48, 96, 128, 2), InvertedResidual(96, 96, 192), InvertedResidual(96, 96, 192),
                                  InvertedResidual(96, 96, 192), ConvBn(96, 64))
        self.merge = nn.Sequential(ConvBn(48 + 64, 64), Separable(64, 64))
        self.heat = nn.Conv2d(64, 40, 1)
        # Heat maps reach a little beyond the window.
        axis = (torch.arange(GRID) + 0.5) / GRID * 1.1 - 0.05
        self.register_buffer("axis", axis)

    def forward(self, window):
        near = self.stem(window * 2 - 1)
        far = nn.functional.interpolate(self.deep(near), scale_factor=2, mode="nearest")
        heat = self.heat(self.merge(torch.cat([near, far], 1))).flatten(2).softmax(-1).unflatten(2, (GRID, GRID))
        across, down = (heat.sum(2) * self.axis).sum(-1), (heat.sum(3) * self.axis).sum(-1)
        return torch.stack([across, down], -1)


def step_of(relative):
    name = str(relative)
    return 25 if "grid_s1" in name else 4 if "grid_other" in name else 5


def pack(args):
    """Windows (uint8 [n, 139, 139, 3] RGB), points in their pixels, and the number of the clip (GRID s1 is one)."""
    template = np.array(json.loads((Path(__file__).parent.parent / "models/tracker/template.json").read_text())["points"])
    cv2.setNumThreads(1)
    (args.cache / "lips").mkdir(parents=True, exist_ok=True)
    for split in ("val", "train"):
        images, points, group, names = [], [], [], []
        for relative in clips(args.data):
            labels = args.cache / "labels" / relative.with_suffix(".npz")
            if is_val(relative) != (split == "val") or not labels.exists():
                continue
            z = np.load(labels)
            name = "talking/grid_s1" if "grid_s1" in str(relative) else str(relative)
            if name not in names:
                names.append(name)
            for k, bgr in enumerate(frames(args.data / relative, 25)):
                if k % step_of(relative) != 1 or k >= len(z["found"]) or not z["found"][k]:
                    continue
                p = z["points"][k][mesh.MESH].astype(np.float64)
                to_crop = umeyama(p[mesh.ANCHORS], template)
                own = transform(to_crop, p[LIPS])
                matrix = np.array(to_crop) * (PIXELS / SIDE)
                matrix[:, 2] -= own.mean(0) * (PIXELS / SIDE) - PACKED / 2
                halvings = max(0, int(np.floor(-np.log2(np.hypot(matrix[0, 0], matrix[0, 1])))))
                source, shrunk = bgr, matrix.copy()
                for _ in range(halvings):
                    source = cv2.resize(source, (source.shape[1] // 2, source.shape[0] // 2), interpolation=cv2.INTER_AREA)
                    shrunk[:, :2] *= 2
                window = cv2.warpAffine(source, cv_matrix(shrunk), (PACKED, PACKED), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
                images.append(window[:, :, ::-1])
                points.append(transform(matrix, p[LIPS]))
                group.append(names.index(name))
        np.savez(args.cache / "lips" / f"{split}.npz", images=np.stack(images), points=np.stack(points).astype(np.float32), group=np.array(group),
                 names=json.dumps(names))
        print(split, len(images), "windows of", len(names), "clips", flush=True)


def view(image, points, rng, jitter):
    """A window of a packed picture, its place, size and angle off as the landmark network's are; points in unit coordinates."""
    centre = points.mean(0) + rng.normal(0, 0.045 * jitter, 2) * PIXELS
    matrix = square(centre, PIXELS * float(np.exp(rng.normal(0, 0.06 * jitter))), rng.normal(0, 0.05 * jitter), PIXELS)
    out = cv2.warpAffine(image, cv_matrix(matrix), (PIXELS, PIXELS), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return out, (transform(matrix, points) / PIXELS).astype(np.float32)


class Samples:
    def __init__(self, folder, seed):
        z = np.load(folder / "train.npz")
        self.images, self.points, group = z["images"], z["points"], z["group"]
        count = np.bincount(group)
        # Everybody counts by the square root of their frames, so that nobody is most of a batch.
        weight = 1 / np.sqrt(count[group])
        self.chance, self.seed = weight / weight.sum(), seed
        self.flip = mesh.FLIP[LIPS]

    def batch(self, step, size):
        rng = np.random.default_rng((self.seed, step))
        images, points = np.empty((size, PIXELS, PIXELS, 3), np.uint8), np.empty((size, 40, 2), np.float32)
        for k, i in enumerate(rng.choice(len(self.points), size, p=self.chance)):
            image, own = self.images[i], self.points[i].astype(np.float64)
            if rng.random() < 0.5:
                image, own = cv2.flip(image, 1), own[self.flip] * [-1, 1] + [PACKED, 0]
            image, unit = view(image, own, rng, 1.0)
            if rng.random() < 0.5:
                image, unit = augment.bend(image, unit, rng)
            image = augment.colour(image, rng)
            images[k], points[k] = augment.degrade(image, rng), unit
        images = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255)
        return images.contiguous(memory_format=torch.channels_last), torch.from_numpy(points)


def loss_of(points, target):
    """Wing loss of the points, of the distances of opposite inner points and of the mouth's width, over the outer-eye distance."""
    eye = EYES / SIDE
    upper, lower = (list(side) for side in zip(*[*mesh.INNER_PAIRS, mesh.OPENING]))
    gap = lambda p: p[:, upper] - p[:, lower]
    left, right = mesh.MOUTH_CORNERS
    width = lambda p: (p[:, left] - p[:, right]).norm(dim=1)
    place = wing(((points - target) / eye).abs()).sum(2).mean()
    opening = wing(((gap(points) - gap(target)) / eye).abs()).sum(2).mean()
    return place + 1.5 * opening + 0.5 * wing(((width(points) - width(target)) / eye).abs()).mean()


@torch.no_grad()
def evaluate(folder, predict, stride=1):
    z = np.load(folder / "val.npz")
    rows = {}
    for g, name in enumerate(json.loads(str(z["names"]))):
        at, rng = np.flatnonzero(z["group"] == g)[::stride], np.random.default_rng(g)
        images, truth = zip(*(view(z["images"][i], z["points"][i].astype(np.float64), rng, 0.7) for i in at))
        truth = np.stack(truth)
        x = np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2), dtype=np.float32) / 255
        guess = np.concatenate([np.asarray(predict(x[k : k + 64])) for k in range(0, len(x), 64)])
        opening = lambda p: np.linalg.norm(p[:, mesh.OPENING[0]] - p[:, mesh.OPENING[1]], axis=1) * SIDE / EYES
        t, o = opening(truth), opening(guess)
        moves = t.std() > 0.012 and len(t) > 5
        rows[name] = {"error": float(np.linalg.norm(guess - truth, axis=2).mean() * SIDE / EYES), "opening_error": float(np.abs(t - o).mean()),
                      "r": float(np.corrcoef(t, o)[0, 1]) if moves else None, "slope": float(np.polyfit(t, o, 1)[0]) if moves else None}
    unseen = [r for n, r in rows.items() if "grid_s1" not in n]
    moving = [r for r in unseen if r["r"] is not None]
    mean = {k: round(float(np.mean([r[k] for r in unseen])), 4) for k in ("error", "opening_error")}
    mean |= {f"{k}_median": round(float(np.median([r[k] for r in moving])), 3) for k in ("r", "slope")}
    mean |= {f"{k}_min": round(float(np.min([r[k] for r in moving])), 3) for k in ("r", "slope")}
    return {"unseen": mean, "clips": rows}


def train(args):
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    seed_all(args.seed)
    samples, log = Samples(args.cache / "lips", args.seed), Log(args.out / "log.jsonl")
    network = Lips().to(memory_format=torch.channels_last)
    average = Average(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=args.lr, weight_decay=0.03)
    loop = Loop(args.out, args.steps, lambda step: along_cosine(args.lr, step, args.steps, 100, least=1e-6), optimizer,
                {"network": network, "average": average.network, "optimizer": optimizer})
    start = average.steps = loop.start
    total, began = 0.0, time.time()
    for step in loop:
        images, target = samples.batch(step, args.batch)
        network.train()
        loss = loss_of(network(images), target)
        optimizer.zero_grad(set_to_none=True)
        (loss * 10).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        average.update(network)
        total += loss.item()
        if loop.due(step, args.every):
            found = evaluate(args.cache / "lips", lambda x: average.network(torch.from_numpy(x)), stride=3)["unseen"]
            log(step=step + 1, loss=round(total / args.every, 4), pace=round((step + 1 - start) / (time.time() - began), 2), **found)
            total = 0.0
            loop.save(step)


def run_eval(args):
    from common.teachers import session

    runtime = session(args.model)
    print(json.dumps(evaluate(args.cache / "lips", lambda x: runtime.run(None, {"window": x})[0]), indent=1))


def run_export(args):
    network = Lips()
    network.load_state_dict(torch.load(args.run / "last.pt", weights_only=True)["average"])
    network.eval()
    example = torch.rand(1, 3, PIXELS, PIXELS)
    worst = export(network, example, args.model, ["window"], ["points"], {k: {0: "batch"} for k in ("window", "points")},
                   [example, torch.rand(5, 3, PIXELS, PIXELS)])
    print(f"{args.model}: {flops(network, example) / 1e9:.4f} GFLOP, {sum(p.numel() for p in network.parameters())} parameters, "
          f"largest difference to torch {worst:.1e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(required=True)
    actions = {"pack": pack, "train": train, "eval": run_eval, "export": run_export}
    for name, action in actions.items():
        one = sub.add_parser(name)
        one.set_defaults(action=action)
        data_argument(one)
        if name in ("eval", "export"):
            one.add_argument("--model", type=Path, required=True)
        if name == "export":
            one.add_argument("--run", type=Path, required=True)
        if name == "train":
            one.add_argument("--out", type=Path, required=True)
            for option, default in (("steps", 2400), ("batch", 32), ("lr", 2e-3), ("every", 200), ("seed", 5)):
                one.add_argument(f"--{option}", type=type(default), default=default)
    args = parser.parse_args()
    args.action(args)


if __name__ == "__main__":
    main()
