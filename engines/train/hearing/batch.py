"""Pieces of cached views with what the mouth does: items of FRAMES video frames and the encoder's states around them."""

import json
from dataclasses import dataclass

import numpy as np
import torch

from hearing.encoder import TOKEN_MS
from hearing.sounds import openness
from motion.batch import at_times, envelope

FRAMES, FRAME_MS = 64, 40.0
# Tokens before the first tap in which the head's state settles, and all tokens of an item: 80 ms before, 2.56 s, 120 ms after, the phase.
WARM = 25
TOKENS = WARM + 4 + FRAMES * 2 + 8
# The motion is taught this much (s) early: what is uncertain comes late, and the renderer adds a quarter of a frame.
AHEAD = 0.014
# An opening below SHUT within NEAR frames of one above WIDE is a closure.
SHUT, WIDE, NEAR = 0.12, 0.35, 3


@dataclass
class View:
    """A clip in a cache of states: where it begins, how fast it goes, its silences."""

    clip: object
    store: np.ndarray
    token: int
    speed: float
    gaps: list


def read(cache, names, clips):
    """The views of the caches `names` whose clips have labels."""
    labelled = {(c.name, c.kind): c for c in clips if c.group is None and c.opening is not None and c.weight > 0}
    out = []
    for name in names:
        store = np.load(cache / "hearing" / f"{name}.npy", mmap_mode="r")
        for row in json.loads((cache / "hearing" / f"{name}.json").read_text()):
            clip = labelled.get((row["name"], row["kind"]))
            if clip is not None:
                out.append(View(clip, store, row["token"], row["speed"], row["gaps"]))
    return out


def closures(opening):
    """Where openings [B, V] are shut beside a wide mouth: bool [B, V]."""
    near = torch.nn.functional.max_pool1d(opening[:, None], 2 * NEAR + 1, 1, NEAR)[:, 0]
    return (opening < SHUT) & (near > WIDE)


class Batches:
    """Endless seeded batches; `shares` maps kind -> share of the batch."""

    def __init__(self, views, shares, batch, seed, latents=12, ahead=AHEAD):
        self.groups = {k: [v for v in views if v.clip.kind == k] for k in shares}
        self.groups = {k: v for k, v in self.groups.items() if v and shares[k] > 0}
        self.kinds = list(self.groups)
        share = np.array([shares[k] for k in self.kinds])
        self.share = share / share.sum()
        self.pick = {k: np.cumsum([v.clip.weight * v.clip.seconds / v.speed for v in own]) for k, own in self.groups.items()}
        self.batch, self.seed, self.latents, self.ahead = batch, seed, latents, ahead

    def __call__(self, step):
        rng = np.random.default_rng([self.seed, step])
        items = [self.item(rng) for _ in range(self.batch)]
        out = {"states": torch.from_numpy(np.stack([i.pop("states") for i in items])).float()}
        return out | {k: torch.from_numpy(np.stack([np.asarray(i[k], np.float32) for i in items])) for k in items[0]}

    def item(self, rng):
        kind = self.kinds[rng.choice(len(self.kinds), p=self.share)]
        sums = self.pick[kind]
        view = self.groups[kind][min(np.searchsorted(sums, rng.random() * sums[-1]), len(sums) - 1)]
        clip, long = view.clip, view.clip.seconds / view.speed * 1000
        begin = rng.uniform(-200, max(-200, long - FRAMES * FRAME_MS + 200))
        # ms of the view's own time.
        time = begin + np.arange(FRAMES) * FRAME_MS
        first = int(np.floor((begin - 80) / TOKEN_MS)) - WARM
        at = np.clip(np.arange(first, first + TOKENS) + view.token, 0, len(view.store) - 1)
        seconds = time / 1000 * view.speed
        known = min(clip.seconds, len(clip.opening) / clip.fps)
        inside = envelope(seconds, 0.0, clip.seconds) * openness(time, view.gaps)
        position = (seconds + clip.lag + self.ahead) * clip.fps
        z = at_times(clip.z, position) * inside[:, None] if clip.z is not None else np.zeros((FRAMES, self.latents), np.float32)
        # Pictures that end before the sound tell nothing of what follows.
        weight = (seconds < known) | (seconds > clip.seconds + 0.2)
        return {"states": np.asarray(view.store[at]), "time": time - first * TOKEN_MS, "z": z, "opening": at_times(clip.opening, position) * inside,
                "has_z": float(clip.z is not None), "weight": weight}
