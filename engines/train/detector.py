#!/usr/bin/env python3
"""The face detector: YuNet's input and output layout at a quarter of its cost, distilled from YuNet on composed scenes.

    detector.py pack  --data DATA --cache CACHE            scenes with YuNet's faces into CACHE/detector
    detector.py train --data DATA --cache CACHE --out RUN  resumes from RUN/last.pt
    detector.py eval  --data DATA --cache CACHE --model engines/models/tracker/detector.onnx
    detector.py export --run RUN --model engines/models/tracker/detector.onnx

Input `input` float32 [1, 3, H, W], BGR 0..255, letterboxed top-left on black; H and W multiples of 32, shipped at 192 x 320.
Outputs at strides 8, 16, 32 with n = H / stride * W / stride: `cls_*`, `obj_*` [1, n, 1] probabilities, `bbox_*` [1, n, 4],
`kps_*` [1, n, 10]; common/yunet.py decodes them.
"""

import argparse
import json
import pickle
import time
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from common import compose, yunet
from common.layers import Average, ConvBn, Separable, export, flops
from common.runs import Log, clips, data_argument, is_val, seed_all
from common.training import Loop, along_cosine
from common.teachers import Detector

WIDTH, HEIGHT = 320, 192
OUTPUTS = [f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in yunet.STRIDES]
# Face sizes (square root of the box's area, pixels) that a stride answers for; they overlap so that no size falls between.
SIZES = {8: (0, 40), 16: (30, 90), 32: (70, 1e9)}


class Head(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.shared = Separable(channels, channels)
        self.spread = ConvBn(channels, channels, 3, 1, channels)
        self.out = nn.Conv2d(channels, 16, 1)
        nn.init.normal_(self.out.weight, std=0.01)
        nn.init.zeros_(self.out.bias)
        self.out.bias.data[:2] = -4.0

    def forward(self, x):
        """[B, cells, 16]: cls and obj logits, box, key points."""
        return self.out(self.spread(self.shared(x))).flatten(2).transpose(1, 2)


class FaceDetector(nn.Module):
    def __init__(self):
        super().__init__()
        self.to4 = nn.Sequential(ConvBn(3, 12, 3, 2), Separable(12, 24, 2), Separable(24, 24))
        self.to8 = nn.Sequential(Separable(24, 48, 2), Separable(48, 48))
        self.to16 = nn.Sequential(Separable(48, 64, 2), Separable(64, 64), Separable(64, 64))
        self.to32 = nn.Sequential(Separable(64, 96, 2), Separable(96, 96), Separable(96, 96))
        self.from32, self.from16 = ConvBn(96, 64), ConvBn(64, 48)
        self.merge16, self.merge8 = Separable(64, 64), Separable(48, 48)
        self.heads = nn.ModuleList([Head(48), Head(64), Head(64)])

    def raw(self, image):
        c8 = self.to8(self.to4(image / 128 - 1))
        c16 = self.to16(c8)
        p32 = self.from32(self.to32(c16))
        p16 = self.merge16(c16 + F.interpolate(p32, scale_factor=2.0, mode="nearest"))
        p8 = self.merge8(c8 + F.interpolate(self.from16(p16), scale_factor=2.0, mode="nearest"))
        return [head(p) for head, p in zip(self.heads, (p8, p16, p32))]

    def forward(self, image):
        raw = self.raw(image)
        return (*[r[:, :, :1].sigmoid() for r in raw], *[r[:, :, 1:2].sigmoid() for r in raw], *[r[:, :, 2:6] for r in raw],
                *[r[:, :, 6:] for r in raw])


def priors(width=WIDTH, height=HEIGHT):
    """[cells, 3] of all strides: column, row, stride."""
    out = []
    for stride in yunet.STRIDES:
        rows, columns = np.mgrid[: height // stride, : width // stride]
        out.append(np.stack([columns.ravel(), rows.ravel(), np.full(rows.size, stride)], 1))
    return np.concatenate(out)


def assign(cells, boxes, sure):
    """For each cell the index of its face, -1 for background, -2 for neither.

    A face takes the cells of its strides whose centres are within 1.3 strides of the box's centre and inside the box, and always the nearest one;
    of two faces that want a cell the nearer has it. Cells inside a face beyond that, within 2.3 strides, and all inside an unsure one, are neither.
    """
    owner = np.full(len(cells), -1)
    best = np.full(len(cells), np.inf)
    at, stride = (cells[:, :2] + 0.5) * cells[:, 2:], cells[:, 2]
    for k in np.where(~sure)[0]:
        owner[((at > boxes[k, :2]) & (at < boxes[k, 2:])).all(1)] = -2
    for k in np.where(sure)[0]:
        centre, size = (boxes[k, :2] + boxes[k, 2:]) / 2, np.sqrt((boxes[k, 2:] - boxes[k, :2]).prod())
        far = np.abs(at - centre).max(1) / stride
        inside = ((at > boxes[k, :2]) & (at < boxes[k, 2:])).all(1)
        owner[(far < 2.3) & inside & (owner == -1)] = -2
        for level, (low, high) in SIZES.items():
            if not low <= size < high:
                continue
            mine = (stride == level) & (far < 1.3) & inside
            own = np.where(stride == level)[0]
            mine[own[np.argmin(far[own])]] = True
            take = mine & (far < best)
            owner[take], best[take] = k, far[take]
    return owner


def targets(cells, boxes, points, sure):
    """(owner [cells], box x0 y0 x1 y1 [cells, 4], key points [cells, 10] in YuNet's encoding)."""
    owner = assign(cells, boxes, sure)
    box, kps = np.zeros((len(cells), 4), np.float32), np.zeros((len(cells), 10), np.float32)
    for k in np.where(owner >= 0)[0]:
        box[k] = boxes[owner[k]]
        kps[k] = (points[owner[k]] / cells[k, 2] - cells[k, :2]).ravel()
    return owner, box, kps


def giou(a, b):
    """Generalised IoU of aligned boxes [n, 4], and IoU (H. Rezatofighi et al., CVPR 2019)."""
    area = lambda x: (x[:, 2:] - x[:, :2]).clamp_min(0).prod(1)
    inter = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp_min(0).prod(1)
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(1).clamp_min(1e-6)
    union = (area(a) + area(b) - inter).clamp_min(1e-6)
    iou = inter / union
    return iou - (hull - union) / hull, iou


def background_aware(logit, target, face, known, count):
    """Cross entropy over the known cells; easy background weighs little, or a picture full of it would drown its few faces."""
    focus = torch.where(face, 1.0, logit.detach().sigmoid().sqrt())
    return (F.binary_cross_entropy_with_logits(logit, target, reduction="none") * known * focus).sum() / count


def loss(raw, cells, owner, box, kps):
    """Sum over cells, over the number of face cells: objectness, IoU-valued class, GIoU, key points over the face's size."""
    flat = torch.cat(raw, 1)
    face = owner >= 0
    count = face.sum().clamp_min(1)
    known = owner != -2
    objectness = background_aware(flat[..., 1], face.float(), face, known, count)
    if not face.any():
        return objectness, background_aware(flat[..., 0], face.float(), face, known, count), flat.sum() * 0, flat.sum() * 0
    own, where = flat[face], cells.expand(len(flat), -1, -1)[face]
    stride = where[:, 2:]
    centre, size = (where[:, :2] + own[:, 2:4]) * stride, own[:, 4:6].clamp(-4, 6).exp() * stride
    overlap, iou = giou(torch.cat([centre - size / 2, centre + size / 2], 1), box[face])
    quality = torch.zeros_like(flat[..., 0])
    quality[face] = iou.detach().clamp(0, 1)
    cls = background_aware(flat[..., 0], quality, face, known, count)
    unit = ((box[face][:, 2:] - box[face][:, :2]).prod(1, keepdim=True).sqrt() / stride).clamp_min(0.5)
    points = F.smooth_l1_loss(own[:, 6:] / unit, kps[face] / unit, beta=0.05, reduction="none").mean(1).sum() / count
    return objectness, cls, (1 - overlap).sum() / count, points


def pack(args):
    """Every cached scene with what YuNet sees in it at twice the shipped size; the scene is left out where it misses the followed face."""
    detector = Detector(args.data / "models" / "yunet_n_dynamic.onnx")
    out = args.cache / "detector"
    out.mkdir(parents=True, exist_ok=True)
    for split in ("train", "val"):
        scenes = []
        for relative in clips(args.data):
            path = args.cache / "scenes" / relative.with_suffix(".npz")
            if is_val(relative) != (split == "val") or not path.exists():
                continue
            z, labels = np.load(path), np.load(args.cache / "labels" / relative.with_suffix(".npz"))
            name = "grid_s1" if "grid_s1" in str(relative) else str(relative)
            for frame, start, end in zip(z["frame"], [0, *z["ends"][:-1]], z["ends"]):
                jpeg = z["jpeg"][start:end]
                image = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
                h, w = image.shape[:2]
                s = 640 / max(h, w)
                boxes, points, scores = detector(image, -(-round(w * s) // 32) * 32, -(-round(h * s) // 32) * 32, 0.3)
                if labels["found"][frame]:
                    p = labels["points"][frame] * (w / labels["size"][0])
                    own = np.array([[*p.min(0), *p.max(0)]])
                    if not len(boxes) or yunet.iou(own, boxes[scores >= compose.SURE]).max(initial=0) < 0.35:
                        continue
                scenes.append((name, jpeg.tobytes(), boxes, points, scores))
        with open(out / f"{split}.pickle", "wb") as file:
            pickle.dump(scenes, file)
        print(split, len(scenes), "scenes,", sum((s[4] >= compose.SURE).sum() for s in scenes), "faces")


class Scenes:
    def __init__(self, cache, split, seed):
        with open(cache / "detector" / f"{split}.pickle", "rb") as file:
            rows = pickle.load(file)
        self.names = [r[0] for r in rows]
        self.scenes = [(cv2.imdecode(np.frombuffer(r[1], np.uint8), cv2.IMREAD_COLOR), *r[2:]) for r in rows]
        _, group, count = np.unique(self.names, return_inverse=True, return_counts=True)
        weight = 1 / np.sqrt(count[group])
        self.chance, self.seed = np.cumsum(weight / weight.sum()), seed
        self.patches = np.load(cache / "landmarks" / "background.npy")[..., ::-1]
        self.cells = priors()

    def composed(self, rng):
        def draw():
            return self.scenes[min(np.searchsorted(self.chance, rng.random()), len(self.scenes) - 1)]

        return compose.compose(WIDTH, HEIGHT, draw, self.patches, rng)

    def batch(self, step, size):
        rng = np.random.default_rng((self.seed, step))
        images, rows = [], []
        for _ in range(size):
            image, boxes, points, sure = self.composed(rng)
            images.append(image)
            rows.append(targets(self.cells, boxes, points, sure))
        images = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().contiguous(memory_format=torch.channels_last)
        return images, *(torch.from_numpy(np.stack(column)) for column in zip(*rows))


def train(args):
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    seed_all(args.seed)
    scenes, log = Scenes(args.cache, "train", args.seed), Log(args.out / "log.jsonl")
    held = Scenes(args.cache, "val", args.seed)
    network = FaceDetector().to(memory_format=torch.channels_last)
    average = Average(network)
    plain = [p for p in network.parameters() if p.ndim == 1]
    decayed = [p for p in network.parameters() if p.ndim > 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0}], lr=args.lr)
    loop = Loop(args.out, args.steps, lambda step: along_cosine(args.lr, step, args.steps, 200, least=1e-6), optimizer,
                {"network": network, "average": average.network, "optimizer": optimizer})
    start = average.steps = loop.start
    cells = torch.from_numpy(scenes.cells).float()
    sums, began = np.zeros(4), time.time()
    for step in loop:
        images, owner, box, kps = scenes.batch(step, args.batch)
        network.train()
        parts = loss(network.raw(images), cells, owner, box, kps)
        optimizer.zero_grad(set_to_none=True)
        (parts[0] + parts[1] + 3 * parts[2] + 2 * parts[3]).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()
        average.update(network)
        sums += [p.item() for p in parts]
        if loop.due(step, args.every):
            rows = measure(held, torch_predictor(average.network), range(0, len(held.scenes), 4), 40, args.threshold)
            log(step=step + 1, loss=[round(v / args.every, 4) for v in sums], steps_per_second=round((step + 1 - start) / (time.time() - began), 3), **rows)
            sums[:] = 0
            loop.save(step)


def torch_predictor(network):
    @torch.no_grad()
    def predict(blob):
        return {n: o[0].numpy() for n, o in zip(OUTPUTS, network(torch.from_numpy(blob)))}

    return predict


def letterbox(image):
    """(picture of WIDTH x HEIGHT, its scale)."""
    scale = min(WIDTH / image.shape[1], HEIGHT / image.shape[0])
    padded = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    w, h = round(image.shape[1] * scale), round(image.shape[0] * scale)
    padded[:h, :w] = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    return padded, scale


def measure(scenes, predict, which, composed, threshold, smallest=12.0):
    """Recall at IoU 0.5 and false faces a picture on letterboxed scenes and on composed ones; key-point error over the box's size."""
    rng = np.random.default_rng(7)
    plain = []
    for k in which:
        image, boxes, points, scores = scenes.scenes[k]
        picture, scale = letterbox(image)
        sure = (scores >= compose.SURE) & ((boxes[:, 3] - boxes[:, 1]) * scale >= smallest)
        plain.append((picture, boxes * scale, points * scale, sure))
    out = {}
    for name, pictures in (("scene", plain), ("composed", [scenes.composed(rng) for _ in range(composed)])):
        if not pictures:
            continue
        hit = total = false = 0
        error = []
        for picture, boxes, points, sure in pictures:
            blob = np.ascontiguousarray(picture.transpose(2, 0, 1)[None], dtype=np.float32)
            found, kps, scores = yunet.decode(predict(blob), WIDTH, threshold)
            keep = yunet.suppress(found, scores)
            found, kps = found[keep], kps[keep]
            overlap = yunet.iou(boxes, found)
            total += int(sure.sum())
            for k in np.where(sure)[0]:
                if len(found) and overlap[k].max() >= 0.5:
                    hit += 1
                    size = np.sqrt((boxes[k, 2:] - boxes[k, :2]).prod())
                    error.append(np.linalg.norm(kps[overlap[k].argmax()] - points[k], axis=1).mean() / size)
            # What lies on an unsure face is no mistake.
            false += int((overlap.max(0) < 0.3).sum()) if len(boxes) else len(found)
        out[f"{name}_recall"] = round(hit / max(total, 1), 4)
        out[f"{name}_false"] = round(false / len(pictures), 4)
        out[f"{name}_points"] = round(float(np.mean(error)), 4) if error else None
    return out


def run_eval(args):
    held = Scenes(args.cache, "val", 1)
    for name, path in (("detector", args.model), ("YuNet", args.data / "models" / "yunet_n_dynamic.onnx")):
        detector = Detector(path)

        def predict(blob):
            return {n: o[0] for n, o in zip(detector.names, detector.session.run(None, {detector.input: blob}))}

        for group in ("talking", "faces", "avatars", ""):
            # GRID's s1 is in training; the people of the rest are not.
            which = [k for k, n in enumerate(held.names) if n.startswith(group) and n != "grid_s1"]
            for threshold in args.thresholds:
                # Composed scenes draw on all of them, so they are measured once.
                row = measure(held, predict, which, 400 if not group else 0, threshold)
                print(json.dumps({"model": name, "on": group or "all", "pictures": len(which), "threshold": threshold, **row}), flush=True)


def run_export(args):
    network = FaceDetector()
    network.load_state_dict(torch.load(args.run / "last.pt", weights_only=True)["average"])
    network.eval()
    example = torch.rand(1, 3, HEIGHT, WIDTH) * 255
    axes = None
    if args.dynamic:
        axes = {"input": {2: "height", 3: "width"}} | {name: {1: "cells"} for name in OUTPUTS}
    worst = export(network, example, args.model, ["input"], OUTPUTS, axes, [example, torch.rand(1, 3, HEIGHT, WIDTH) * 60])
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
    p.add_argument("--steps", type=int, default=4000)
    p.add_argument("--batch", type=int, default=24)
    p.add_argument("--lr", type=float, default=3e-3)
    p.add_argument("--every", type=int, default=200)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--threshold", type=float, default=0.5)
    p.set_defaults(run_=train)
    p = sub.add_parser("eval")
    data_argument(p)
    p.add_argument("--model", type=Path, required=True)
    p.add_argument("--thresholds", type=float, nargs="+", default=[0.5, 0.6, 0.7])
    p.set_defaults(run_=run_eval)
    p = sub.add_parser("export")
    p.add_argument("--run", type=Path, required=True)
    p.add_argument("--model", type=Path, required=True)
    p.add_argument("--dynamic", action="store_true", help="leave height and width open (multiples of 32)")
    p.set_defaults(run_=run_export)
    args = parser.parse_args()
    args.run_(args)


if __name__ == "__main__":
    main()
