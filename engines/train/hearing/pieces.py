"""Pieces of clips' sounds, changed anew each time, with what the mouth does: what a training takes that goes through the encoder.

An item is the mel of TOKENS tokens, of which the first CONTEXT stand for what was heard before, and FRAMES video frames. What is before a clip's beginning is
another clip, or, as at a stream's beginning, nothing but half a second of silence.
"""

import numpy as np
import torch

from hearing import mel as front
from hearing.batch import AHEAD, FRAME_MS, FRAMES
from hearing.encoder import LEAD, TOKEN_MS, TURN
from hearing.sounds import changed, level, openness
from motion.batch import at_times, envelope

CONTEXT = 60
TOKENS = CONTEXT + 4 + FRAMES * 2 + 8
# Samples of a token, of a mel frame; tokens of silence with which a stream begins.
TOKEN, BEGIN = 320, 25
# Mel frames that are computed and not kept: the first would see zeros in the place of sound.
SPARE = 2
SAMPLES = (2 * TOKENS + 3 + SPARE) * front.SHIFT + front.LENGTH
FASTEST = 1.2
BEGINNINGS = 0.3


def slice_of(clip, begin):
    """(first, last) sample of a clip which hold what a piece that begins at `begin` (s) may take at any speed."""
    before = (CONTEXT + 8) * TOKEN_MS / 1000 * FASTEST
    after = (FRAMES * FRAME_MS / 1000 + 0.4) * FASTEST
    first = max(0, int((begin - before) * front.RATE))
    return first, max(first + front.RATE, int((begin + after) * front.RATE))


class Pieces:
    """Endless seeded batches of clips with labels; `shares` maps kind -> share of the batch, `noises` are sounds that may be mixed in."""

    def __init__(self, clips, shares, batch, seed, noises=(), latents=12, ahead=AHEAD):
        known = [c for c in clips if c.group is None and c.opening is not None and c.weight > 0]
        self.groups = {k: [c for c in known if c.kind == k] for k in shares if shares[k] > 0}
        self.groups = {k: v for k, v in self.groups.items() if v}
        self.kinds = list(self.groups)
        share = np.array([shares[k] for k in self.kinds])
        self.share = share / share.sum()
        self.pick = {k: np.cumsum([c.weight * c.seconds for c in own]) for k, own in self.groups.items()}
        self.batch, self.seed, self.latents, self.ahead, self.noises = batch, seed, latents, ahead, noises

    def __call__(self, step):
        rng = np.random.default_rng([self.seed, step])
        items = [self.item(rng) for _ in range(self.batch)]
        sound = torch.from_numpy(np.stack([i.pop("sound") for i in items]))
        # A stream that was louder before still stands higher.
        y = front.levels(sound)
        mel = (torch.maximum(y, (front.tops(y) - front.RANGE).unsqueeze(-1)) + 4) / 4
        out = {"mel": mel[:, SPARE : SPARE + 2 * TOKENS + 3]}
        whole = {k: torch.tensor([i.pop(k) for i in items]) for k in ("position", "first")}
        return out | whole | {k: torch.from_numpy(np.stack([np.asarray(i[k], np.float32) for i in items])) for k in items[0]}

    def chosen(self, rng):
        kind = self.kinds[rng.choice(len(self.kinds), p=self.share)]
        sums = self.pick[kind]
        return self.groups[kind][min(np.searchsorted(sums, rng.random() * sums[-1]), len(sums) - 1)]

    def before(self, count, rng):
        """`count` samples of some other clip."""
        pcm = self.chosen(rng).pcm
        at = rng.integers(0, max(1, len(pcm) - count))
        x = pcm[at : at + count].astype(np.float32) / 32768
        x = np.pad(x, (count - len(x), 0))
        if rng.random() < 0.5:
            x[max(0, count - int(rng.uniform(0, 0.6) * front.RATE)) :] *= 1e-3
        return x

    def item(self, rng):
        clip = self.chosen(rng)
        start = rng.random() < BEGINNINGS
        begin = rng.uniform(-0.2, 0.3 if start else max(-0.2, clip.seconds - FRAMES * FRAME_MS / 1000 + 0.2))
        one, end = slice_of(clip, begin)
        pcm = clip.pcm[one:end] if one + front.RATE // 4 < len(clip.pcm) else np.zeros(front.RATE, np.int16)
        voice = clip.kind not in ("rest", "still")
        view = changed(pcm, rng, self.noises, voice)
        offset = one / front.RATE
        # ms of the view's own time, of which the piece's first token is `first`.
        time = (begin - offset) / view.speed * 1000 + np.arange(FRAMES) * FRAME_MS
        first = int(np.floor((time[0] - 80) / TOKEN_MS)) - CONTEXT
        at = TOKEN * first - (LEAD + SPARE) * front.SHIFT
        sound = np.zeros(SAMPLES, np.float32)
        low, high = max(0, at), min(len(view.sound), at + SAMPLES)
        if high > low:
            sound[low - at : high - at] = view.sound[low:high]
        hidden, position = 0, int(rng.integers(0, TURN - TOKENS))
        if at < 0 and one == 0:
            missing = min(-at, SAMPLES)
            if start:
                hidden = max(0, -first - BEGIN)
                position = -hidden
            else:
                sound[:missing] = self.before(missing, rng)
        if rng.random() < 0.5:
            sound += (10 ** (-rng.uniform(65, 100) / 20) * rng.standard_normal(SAMPLES)).astype(np.float32) * level(view.sound)
        seconds = offset + time / 1000 * view.speed
        known = min(clip.seconds, len(clip.opening) / clip.fps)
        inside = envelope(seconds, 0.0, clip.seconds) * openness(time, view.gaps)
        place = (seconds + clip.lag + self.ahead) * clip.fps
        z = at_times(clip.z, place) * inside[:, None] if clip.z is not None else np.zeros((FRAMES, self.latents), np.float32)
        weight = (seconds < known) | (seconds > clip.seconds + 0.2)
        return {"sound": sound, "position": position, "first": hidden, "time": time - first * TOKEN_MS, "z": z, "opening": at_times(clip.opening, place) * inside,
                "has_z": float(clip.z is not None), "weight": weight}
