#!/usr/bin/env python3
"""The landmark network: 111 mesh points and "is this a face" from an upright 128 x 128 crop, distilled from the 468-point mesh.

    landmarks.py pack  --data DATA --cache CACHE            crops of all clips into CACHE/landmarks/{train,val}_*.npy
    landmarks.py train --data DATA --cache CACHE --out RUN  resumes from RUN/last.pt; --init OTHER/last.pt starts from another run's weights
    landmarks.py eval  --data DATA --cache CACHE --model engines/models/tracker/landmarks.onnx
    landmarks.py export --run RUN --model engines/models/tracker/landmarks.onnx

Input `crop` float32 [B, 3, 128, 128], RGB 0..1: a square with the eyes level, 1.5 x the larger side of the bounding box of the 111
points, centred on that box. Outputs `points` float32 [B, 111, 2] in unit crop coordinates and `face` float32 [B], a logit.
"""

import argparse
import json
import time
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from common import augment, mesh
from common.layers import Average, ConvBn, InvertedResidual, export, flops
from common.runs import Log, clips, data_argument, is_val, seed_all
from common.training import Loop, along_cosine

PIXELS = 128
SPREAD = 0.05


class Landmarks(nn.Module):
    def __init__(self, mean=None):
        super().__init__()
        self.body = nn.Sequential(
            ConvBn(3, 16, 3, 2),
            ConvBn(16, 16, 3, 2, 16),
            ConvBn(16, 32),
            InvertedResidual(32, 32, 48),
            InvertedResidual(32, 64, 64, 2),
            InvertedResidual(64, 64, 128),
            InvertedResidual(64, 96, 128, 2),
            InvertedResidual(96, 96, 192),
            InvertedResidual(96, 96, 192),
            InvertedResidual(96, 96, 192),
        )
        self.squeeze = ConvBn(96, 32, linear=True)
        self.regress = nn.Linear(32 * 64, 2 * mesh.P)
        self.judge = nn.Sequential(nn.Linear(96, 32), nn.ReLU(), nn.Linear(32, 1))
        nn.init.normal_(self.regress.weight, std=1e-2)
        nn.init.zeros_(self.regress.bias)
        mean = torch.zeros(mesh.P, 2) if mean is None else torch.as_tensor(mean, dtype=torch.float32)
        self.register_buffer("mean", mean)

    def forward(self, crop):
        x = self.body(crop * 2 - 1)
        # Scaled down: one optimizer step moves 2048 weights the same way, and unscaled it would throw the points out of the crop.
        points = self.regress(self.squeeze(x).flatten(1)).unflatten(1, (mesh.P, 2)) * SPREAD + self.mean
        return points, self.judge(x.mean((2, 3))).squeeze(1)


def weights():
    """Loss weight a point: lips most, then what fixes the aligned crop."""
    w = torch.ones(mesh.P)
    w[mesh.RANGES["lips_outer"]] = 2.5
    w[mesh.RANGES["lips_inner"]] = 3.0
    w[list(mesh.MOUTH_CORNERS)] = 4.0
    w[list(mesh.ANCHORS)] = 2.0
    return w / w.mean()


def wing(error, width=0.1, curve=0.02):
    """Z. Feng et al., "Wing Loss for Robust Facial Landmark Localisation with CNNs", CVPR 2018. Error in units of the eye distance."""
    offset = width - width * np.log(1 + width / curve)
    return torch.where(error < width, width * torch.log(1 + error / curve), error - offset)


def point_loss(points, target, weight):
    """Mean over faces of the weighted wing loss and of the inner-lip distances' error, both over the outer-eye distance."""
    a, b = mesh.OUTER_EYES
    eye = (target[:, a] - target[:, b]).norm(dim=1)[:, None, None].clamp_min(0.05)
    error = (points - target) / eye
    loss = (wing(error.abs()).sum(2) * weight).mean()
    upper, lower = zip(*mesh.INNER_PAIRS)
    gap = lambda p: p[:, list(upper)] - p[:, list(lower)]
    left, right = mesh.MOUTH_CORNERS
    width = lambda p: (p[:, left] - p[:, right]).norm(dim=1)
    opening = wing(((gap(points) - gap(target)) / eye).abs()).sum(2).mean()
    corners = wing(((width(points) - width(target)) / eye[:, 0, 0]).abs()).mean()
    return loss + 1.5 * opening + 0.5 * corners


def pack(args):
    """Gather the clips' crops; `group` numbers the clip (GRID s1 is one) so that people can be sampled evenly."""
    out = args.cache / "landmarks"
    out.mkdir(parents=True, exist_ok=True)
    for split in ("train", "val"):
        files = [r for r in clips(args.data) if is_val(r) == (split == "val")]
        files = [r for r in files if (args.cache / "crops" / r.with_suffix(".npz")).exists()]
        crops, points, group, names = [], [], [], []
        for relative in files:
            name = "talking/grid_s1" if "grid_s1" in str(relative) else str(relative)
            if name not in names:
                names.append(name)
            z = np.load(args.cache / "crops" / relative.with_suffix(".npz"))
            crops.append(z["crops"])
            points.append(z["points"])
            group.append(np.full(len(z["points"]), names.index(name)))
        np.save(out / f"{split}_crops.npy", np.concatenate(crops))
        np.save(out / f"{split}_points.npy", np.concatenate(points))
        np.save(out / f"{split}_group.npy", np.concatenate(group))
        (out / f"{split}_names.json").write_text(json.dumps(names))
        print(split, sum(map(len, points)), "crops of", len(names), "clips")
    np.save(out / "background.npy", backgrounds(args, np.random.default_rng(0)))


def backgrounds(args, rng, count=2500):
    """Squares of training scenes that hold no part of the followed face, uint8 [n, 128, 128, 3] RGB."""
    out = []
    files = [r for r in clips(args.data) if not is_val(r) and "grid_s1" not in str(r)]
    files = [r for r in files if (args.cache / "scenes" / r.with_suffix(".npz")).exists()]
    while len(out) < count:
        relative = files[rng.integers(len(files))]
        z, labels = (np.load(args.cache / k / relative.with_suffix(".npz")) for k in ("scenes", "labels"))
        k = rng.integers(len(z["ends"]))
        start = z["ends"][k - 1] if k else 0
        scene = cv2.imdecode(z["jpeg"][start : z["ends"][k]], cv2.IMREAD_COLOR)
        points = labels["points"][z["frame"][k]] * (scene.shape[1] / labels["size"][0])
        low, high = points.min(0), points.max(0)
        for _ in range(12):
            side = int(rng.integers(24, max(25, min(scene.shape[:2]) // 2)))
            x, y = rng.integers(0, scene.shape[1] - side + 1), rng.integers(0, scene.shape[0] - side + 1)
            if labels["found"][z["frame"][k]] and x < high[0] and x + side > low[0] and y < high[1] and y + side > low[1]:
                continue
            out.append(cv2.resize(scene[y : y + side, x : x + side], (PIXELS, PIXELS))[:, :, ::-1])
    return np.stack(out[:count])


class Samples:
    """Augmented batches. A step's batch depends on the seed and the step alone, so a resumed run sees the same ones."""

    def __init__(self, folder, seed):
        self.crops = np.load(folder / "train_crops.npy", mmap_mode="r")
        self.points = np.load(folder / "train_points.npy")
        self.background = np.load(folder / "background.npy")
        group = np.load(folder / "train_group.npy")
        size = np.bincount(group)
        # Between one vote a clip and one vote a frame: long clips hold more poses.
        weight = 1 / np.sqrt(size[group])
        self.chance, self.seed = weight / weight.sum(), seed

    def mean(self):
        side = np.ptp(self.points, axis=1).max(1)[:, None, None] * 1.5
        centre = (self.points.max(1) + self.points.min(1))[:, None] / 2
        return ((self.points - centre) / side + 0.5).mean(0)

    def batch(self, step, size, negatives=0.2):
        rng = np.random.default_rng((self.seed, step))
        images = np.empty((size, PIXELS, PIXELS, 3), np.uint8)
        points = np.zeros((size, mesh.P, 2), np.float32)
        face = np.zeros(size, np.float32)
        for k, i in enumerate(rng.choice(len(self.points), size, p=self.chance)):
            if k < size * negatives:
                images[k] = augment.no_face(self.crops[i], self.points[i], self.background, PIXELS, rng)
            else:
                images[k], points[k] = augment.face(self.crops[i], self.points[i], PIXELS, rng)
                face[k] = 1
        images = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255)
        return images.contiguous(memory_format=torch.channels_last), torch.from_numpy(points), torch.from_numpy(face)


def train(args):
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    seed_all(args.seed)
    samples, log = Samples(args.cache / "landmarks", args.seed), Log(args.out / "log.jsonl")
    network = Landmarks(samples.mean()).to(memory_format=torch.channels_last)
    if args.init:
        network.load_state_dict(torch.load(args.init, weights_only=True)["average"])
    average = Average(network)
    plain = [p for p in network.parameters() if p.ndim == 1]
    decayed = [p for p in network.parameters() if p.ndim > 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0}], lr=args.lr)
    loop = Loop(args.out, args.steps, lambda step: along_cosine(args.lr, step, args.steps, 200, least=1e-6), optimizer,
                {"network": network, "average": average.network, "optimizer": optimizer})
    start = average.steps = loop.start
    weight = weights()
    sums, began = np.zeros(2), time.time()
    for step in loop:
        images, target, face = samples.batch(step, args.batch)
        network.train()
        points, logit = network(images)
        real = face > 0
        fit = point_loss(points[real], target[real], weight)
        judge = F.binary_cross_entropy_with_logits(logit, face)
        optimizer.zero_grad(set_to_none=True)
        (fit * 10 + judge * 0.3).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        average.update(network)
        sums += fit.item(), judge.item()
        if loop.due(step, args.every):
            metrics = evaluate(args.cache / "landmarks", lambda x: average.network(torch.from_numpy(x)), stride=8)
            rate = (step + 1 - start) / (time.time() - began)
            log(step=step + 1, fit=sums[0] / args.every, judge=sums[1] / args.every, steps_per_second=round(rate, 3), **metrics["unseen"])
            sums[:] = 0
            loop.save(step)


SEEN = ("talking/grid_s1", "talking/val/gen_joyhallo_en_4.mp4")


@torch.no_grad()
def evaluate(folder, predict, stride=1, jitter=0.05):
    """Errors over the outer-eye distance on val crops, by clip; a fixed jitter of place and size stands for tracking's own."""
    crops = np.load(folder / "val_crops.npy", mmap_mode="r")
    points, group = np.load(folder / "val_points.npy"), np.load(folder / "val_group.npy")
    names = json.loads((folder / "val_names.json").read_text())
    a, b = mesh.OUTER_EYES
    rows = {}
    for g, name in enumerate(names):
        at = np.where(group == g)[0][:: 2 if "grid_s1" in name else 1][::stride]
        rng = np.random.default_rng(g)
        images, truth = zip(*(augment.plain(crops[i], points[i], PIXELS, rng, jitter) for i in at))
        truth = np.stack(truth)
        x = np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2), dtype=np.float32) / 255
        outputs = [predict(x[k : k + 64]) for k in range(0, len(x), 64)]
        guess = np.concatenate([np.asarray(o[0]) for o in outputs])
        logit = np.concatenate([np.asarray(o[1]) for o in outputs])
        eye = np.linalg.norm(truth[:, a] - truth[:, b], axis=1)
        error = np.linalg.norm(guess - truth, axis=2) / eye[:, None]
        up, low = mesh.OPENING
        opening = lambda p: np.linalg.norm(p[:, up] - p[:, low], axis=1) / eye
        t, o = opening(truth), opening(guess)
        rows[name] = {
            "frames": len(at), "nme": float(error.mean()), "nme_median": float(np.median(error.mean(1))), "nme_lips": float(error[:, :40].mean()),
            "nme_anchors": float(error[:, mesh.ANCHORS].mean()), "opening_error": float(np.abs(t - o).mean()), "opening_std": float(t.std()),
            "opening_r": float(np.corrcoef(t, o)[0, 1]) if t.std() > 1e-4 and len(t) > 3 else None, "face_rate": float((logit > 0).mean()),
        }
    unseen = [r for n, r in rows.items() if n not in SEEN]
    # A mouth that stays shut has no motion for a correlation to measure.
    moving = [r["opening_r"] for r in unseen if r["opening_r"] is not None and r["opening_std"] > 0.015]
    mean = {k: round(float(np.mean([r[k] for r in unseen])), 4) for k in ("nme", "nme_median", "nme_lips", "nme_anchors", "opening_error", "face_rate")}
    mean |= {"opening_r_median": round(float(np.median(moving)), 4) if moving else None, "opening_r_min": round(float(np.min(moving)), 4) if moving else None}
    return {"unseen": mean, "clips": rows}


def run_eval(args):
    from common.teachers import session

    runtime = session(args.model)
    result = evaluate(args.cache / "landmarks", lambda x: runtime.run(None, {"crop": x}), jitter=args.jitter)
    background = np.load(args.cache / "landmarks" / "background.npy")[:500].transpose(0, 3, 1, 2).astype(np.float32) / 255
    logits = np.concatenate([runtime.run(None, {"crop": background[k : k + 50]})[1] for k in range(0, len(background), 50)])
    result["unseen"]["background_accepted"] = float((logits > 0).mean())
    print(json.dumps(result, indent=1))


def run_export(args):
    network = Landmarks()
    network.load_state_dict(torch.load(args.run / "last.pt", weights_only=True)["average"])
    network.eval()
    example = torch.rand(1, 3, PIXELS, PIXELS)
    worst = export(network, example, args.model, ["crop"], ["points", "face"], {k: {0: "batch"} for k in ("crop", "points", "face")},
                   [example, torch.rand(5, 3, PIXELS, PIXELS)])
    print(f"{args.model}: {flops(network, example) / 1e9:.4f} GFLOP, {sum(p.numel() for p in network.parameters())} parameters, "
          f"largest difference to torch {worst:.1e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(required=True)
    p = sub.add_parser("pack")
    data_argument(p)
    p.set_defaults(run_=pack)
    p = sub.add_parser("train")
    data_argument(p)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--init", type=Path, help="last.pt of another run whose averaged weights this one starts from")
    p.add_argument("--steps", type=int, default=4000)
    p.add_argument("--batch", type=int, default=48)
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--every", type=int, default=200)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--threads", type=int, default=1)
    p.set_defaults(run_=train)
    p = sub.add_parser("eval")
    data_argument(p)
    p.add_argument("--model", type=Path, required=True)
    p.add_argument("--jitter", type=float, default=0.05)
    p.set_defaults(run_=run_eval)
    p = sub.add_parser("export")
    p.add_argument("--run", type=Path, required=True)
    p.add_argument("--model", type=Path, required=True)
    p.set_defaults(run_=run_export)
    args = parser.parse_args()
    args.run_(args)


if __name__ == "__main__":
    main()
