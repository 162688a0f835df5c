"""Training of the refinement network: batches, augmentation, the loop."""

import json
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from refine import measure, net
from common.layers import Average
from common.runs import Log, seed_all
from common.training import Loop, along_cosine
from refine.data import kind, person

# What a clip counts beside another; the GRID speakers are about twelve on forty-two clips, s1 is one man.
CLIP_WEIGHT = {"grid_s1": 0.03, "grid_other": 0.35, "free": 2.0, "gen": 0.9, "faces": 1.0, "avatars": 0.5}


class Triples:
    """Batches by step: what a step sees depends on the seed and the step alone."""

    def __init__(self, folder, seed):
        self.images = np.load(folder / "images.npy", mmap_mode="r")
        self.shapes = np.load(folder / "shapes.npy", mmap_mode="r")
        self.openings = np.load(folder / "openings.npy")
        names = json.loads((folder / "index.json").read_text())
        rows = Counter(names)
        chance = np.array([CLIP_WEIGHT[kind(Path(n))] / rows[n] for n in names])
        # Openings wider than the reference's are what the warp does worst.
        chance = chance * (1 + 2 * np.clip(2 * (self.openings[:, 0] - self.openings[:, 1]) - 0.3, 0, 1))
        self.chance, self.seed = chance / chance.sum(), seed
        self.people = len({person(Path(n)) for n in names})

    def batch(self, step, size):
        """(truth, nearest, second, shapes, openings) as the network takes them."""
        rng = np.random.default_rng((self.seed, step))
        images, shapes, openings = [], [], []
        for i in np.sort(rng.choice(len(self.openings), size, p=self.chance)):
            image, shape = augment(self.images[i], self.shapes[i], rng)
            images.append(image)
            shapes.append(shape)
            openings.append(self.openings[i])
        x = torch.from_numpy(np.stack(images)).permute(1, 0, 4, 2, 3).float().div_(255)
        shape = torch.from_numpy(np.stack(shapes)).float().div_(255)
        last = lambda v: v.contiguous(memory_format=torch.channels_last)
        return *(last(v) for v in x), last(shape), torch.from_numpy(np.stack(openings))


def augment(images, shapes, rng):
    """The three pictures [3, 128, 128, 3] and the maps [2, 128, 128] as another camera might have seen them: mirror, colours,
    resolution, noise and JPEG, the pictures all alike."""
    images = np.asarray(images)
    shapes = np.asarray(shapes)
    if rng.random() < 0.5:
        images, shapes = images[:, :, ::-1], shapes[:, :, ::-1]
    strip = np.ascontiguousarray(images).reshape(3 * net.WINDOW, net.WINDOW, 3)
    if rng.random() < 0.75:
        gain = np.exp(rng.normal(0, 0.12)) * np.exp(rng.normal(0, 0.06, 3))
        table = 255 * np.clip(gain * (np.arange(256)[:, None] / 255) ** np.exp(rng.normal(0, 0.15)) + rng.normal(0, 0.02, 3), 0, 1)
        strip = np.stack([table[:, c].astype(np.uint8)[strip[..., c]] for c in range(3)], -1)
    if rng.random() < 0.25:
        grey = cv2.cvtColor(strip, cv2.COLOR_RGB2GRAY)[..., None]
        strip = np.clip(grey + (strip.astype(np.float32) - grey) * max(0, rng.uniform(-0.8, 1.4)), 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        small = int(net.WINDOW * rng.uniform(0.4, 0.95))
        three = strip.reshape(3, net.WINDOW, net.WINDOW, 3)
        back = lambda v: cv2.resize(cv2.resize(v, (small, small), interpolation=cv2.INTER_AREA), (net.WINDOW, net.WINDOW), interpolation=cv2.INTER_LINEAR)
        strip = np.concatenate([back(v) for v in three])
    if rng.random() < 0.25:
        strip = cv2.imdecode(cv2.imencode(".jpg", strip, [cv2.IMWRITE_JPEG_QUALITY, int(rng.uniform(40, 92))])[1], cv2.IMREAD_COLOR)
    return strip.reshape(3, net.WINDOW, net.WINDOW, 3), np.ascontiguousarray(shapes)


def weights(shapes):
    """What a pixel counts: most within the mouth, nothing where nothing can change."""
    return net.support(shapes) * (0.4 + F.avg_pool2d(shapes[:, 1:], 5, 1, 2) + 5 * F.avg_pool2d(shapes[:, :1], 5, 1, 2))


def train(args):
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    seed_all(args.seed)
    data, log = Triples(args.cache / "refine/train", args.seed), Log(args.out / "log.jsonl")
    network = net.Refiner().to(memory_format=torch.channels_last)
    judge = net.Judge().to(memory_format=torch.channels_last)
    if args.init:
        network.load_state_dict(torch.load(args.init, weights_only=True)["average"], strict=False)
    average = Average(network, 0.997)
    optimizer = torch.optim.Adam(network.parameters(), lr=args.lr, betas=(0.9, 0.99))
    against = torch.optim.Adam(judge.parameters(), lr=4e-4, betas=(0.5, 0.99))
    loop = Loop(args.out, args.steps, lambda step: along_cosine(args.lr, step, args.steps, 100, least=1e-6), optimizer,
                {"network": network, "average": average.network, "judge": judge, "optimizer": optimizer, "against": against})
    start = average.steps = loop.start
    sums, began = Counter(), time.time()
    for step in loop:
        truth, nearest, second, shapes, openings = data.batch(step, args.batch)
        delta, gates = network.parts(nearest, second, shapes, openings)
        output = nearest + delta
        weight = weights(shapes)
        parts = net.losses(output, truth, weight)
        lacks = F.avg_pool2d(shapes[:, :1], 5, 1, 2) * net.lack(openings)[0][..., None, None]
        parts["kept"] = (gates * (1 - lacks)).sum() / (weight > 0.1).sum()
        loss = sum(net.SCALES[k] * v for k, v in parts.items())
        if args.judge and step >= args.judge_from:
            verdict = judge(output, shapes)
            where = F.adaptive_avg_pool2d(weight, verdict.shape[-1])
            where = (where / where.sum() * where.numel()).detach()
            fooled = -(where * verdict).mean()
            # Half the weight while the judge is new.
            ramp = min(1, 0.2 + (step - args.judge_from) / 300)
            loss = loss + args.judge * ramp * fooled
            parts["fooled"] = fooled
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        average.update(network)
        if args.judge and step >= args.judge_from:
            told = (where * (F.relu(1 - judge(truth, shapes)) + F.relu(1 + judge(output.detach(), shapes)))).mean()
            against.zero_grad(set_to_none=True)
            told.backward()
            against.step()
            parts["told"] = told
        for k, v in parts.items():
            sums[k] += v.item()
        if loop.due(step, args.every):
            figures = measure.brief(args.cache / "refine/val", measure.torch_predictor(average.network), stride=6)
            pace = (time.time() - began) / (step + 1 - start)
            log(step=step + 1, pace=round(pace, 3), **{k: round(v / args.every, 5) for k, v in sums.items()}, **figures)
            sums.clear()
            loop.save(step)
