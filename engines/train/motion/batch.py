"""Training batches for the motion model: pieces of clips with their sound changed in every way that should not matter.

An item is `HOPS` hops of sound (already log mel, f32 [2 HOPS, 80], not normalised) and `FRAMES` video frames with the time of each
frame on the sound's clock (ms), the wanted latents [FRAMES, D] or, where a clip only has the opening, that opening [FRAMES] in
units of the population's spread.
"""

from dataclasses import dataclass

import numpy as np
import torch

import audio

FRAMES = 64
FRAME_MS = 40.0
HOP = 2 * audio.SHIFT
# Sound goes on for 5 hops after the last frame: 40 ms of window, up to 20 ms of phase, and the 25 ms of the mel frame.
HOPS = FRAMES * 2 + 4
SAMPLES = (2 * HOPS - 1) * audio.SHIFT + audio.LENGTH
# Room for the reverberation's tail, and quick to transform.
FILTERED = 3 * 2**14
# Lips are back at rest this long after the sound stopped, and leave rest this long before it starts (ms).
CLOSE_MS, LEAVE_MS = 160.0, 80.0


@dataclass
class Clip:
    """One clip: int16 sound at 16 kHz, `z` [T, D] or None, `opening` [T], frames a second, sampling weight, lag of the motion."""

    name: str
    kind: str
    pcm: np.ndarray
    z: np.ndarray | None
    opening: np.ndarray
    fps: float
    weight: float = 1.0
    lag: float = 0.0

    @property
    def seconds(self):
        return min(len(self.opening) / self.fps, len(self.pcm) / audio.RATE)


class Mel:
    """Batched log mel in f32 with a choice of eleven vocal-tract lengths; warp 5 is none."""

    WARPS = np.linspace(0.87, 1.13, 11)

    def __init__(self):
        self.window = torch.from_numpy(audio.window().astype(np.float32))
        self.filters = torch.from_numpy(np.stack([audio.mel_filters(w).T for w in self.WARPS]).astype(np.float32))

    def __call__(self, samples, warp=None):
        """[B, N] -> [B, M, 80]."""
        spectrum = torch.fft.rfft(samples.unfold(1, audio.LENGTH, audio.SHIFT) * self.window, audio.FFT)
        power = spectrum.real**2 + spectrum.imag**2
        chosen = self.filters[torch.full((len(samples),), 5) if warp is None else warp]
        return torch.bmm(power, chosen).clamp_min(audio.FLOOR).log()


def at_times(track, position):
    """Linear interpolation of [T] or [T, D] at fractional frames, held at the ends."""
    p = np.clip(position, 0, len(track) - 1)
    low = np.minimum(p.astype(int), len(track) - 2)
    f = (p - low).astype(np.float32)
    f = f if track.ndim == 1 else f[:, None]
    return track[low] * (1 - f) + track[low + 1] * f


class Batches:
    """Endless seeded batches. `shares` maps kind -> share of the batch."""

    def __init__(self, clips, shares, batch, seed, augment=True):
        self.groups = {k: [c for c in clips if c.kind == k] for k in shares}
        self.groups = {k: v for k, v in self.groups.items() if v}
        self.kinds = list(self.groups)
        share = np.array([shares[k] for k in self.kinds])
        self.share = share / share.sum()
        self.pick = {k: np.cumsum([c.weight * c.seconds for c in v]) for k, v in self.groups.items()}
        self.latents = next((c.z.shape[1] for c in clips if c.z is not None), 1)
        self.batch, self.seed, self.augment, self.mel = batch, seed, augment, Mel()

    def __call__(self, step):
        """Batch number `step`: the same for the same seed, whatever came before it."""
        rng = np.random.default_rng([self.seed, step])
        items = [self.item(rng) for _ in range(self.batch)]
        sound = torch.from_numpy(np.stack([i["sound"] for i in items]))
        warp = None
        if self.augment:
            sound = filtered(sound, rng)
            warp = torch.from_numpy(np.clip(np.round(rng.normal(5, 2.2, self.batch)), 0, 10).astype(int))
        mel = self.mel(sound, warp)
        if self.augment:
            for k in np.flatnonzero(rng.random(self.batch) < 0.4):
                low, width = rng.integers(0, 75), rng.integers(2, 14)
                mel[k, :, low : low + width] = mel[k].mean()
            for k in np.flatnonzero(rng.random(self.batch) < 0.3):
                low, width = rng.integers(0, 2 * HOPS - 8), rng.integers(2, 9)
                mel[k, low : low + width] = mel[k].mean()
        out = {"mel": mel}
        for key in ("z", "opening", "time", "has_z", "weight"):
            out[key] = torch.from_numpy(np.stack([np.asarray(i[key], np.float32) for i in items]))
        return out

    def item(self, rng):
        kind = self.kinds[rng.choice(len(self.kinds), p=self.share)]
        cumulated = self.pick[kind]
        clip = self.groups[kind][min(np.searchsorted(cumulated, rng.random() * cumulated[-1]), len(cumulated) - 1)]
        speed = rng.uniform(0.85, 1.18) if self.augment else 1.0
        needed = FRAMES * FRAME_MS / 1000 * speed
        # A clip may start up to half a second late in the piece or end early: the rest is silence, as in a stream.
        start = rng.uniform(-0.3, max(-0.3, clip.seconds - needed + 0.3))
        phase = rng.uniform(0, 20) if self.augment and rng.random() < 0.5 else 0.0
        sound = piece(clip.pcm, start * audio.RATE, SAMPLES, speed)
        time = phase + np.arange(FRAMES) * FRAME_MS
        seconds = start + time / 1000 * speed
        position = (seconds + clip.lag) * clip.fps
        inside = envelope(seconds, 0.0, clip.seconds)
        z = at_times(clip.z, position) * inside[:, None] if clip.z is not None else np.zeros((FRAMES, self.latents), np.float32)
        wide = at_times(clip.opening, position) * inside
        level = np.sqrt(np.mean(sound**2)) + 1e-5
        if self.augment:
            if rng.random() < 0.25:
                sound, gate = gap(sound, time, rng)
                z, wide = z * gate[:, None], wide * gate
            if rng.random() < 0.04:
                sound, z, wide = sound * 0, z * 0, wide * 0
                level = 0.02
            sound = self.louder(sound, level, rng)
        return {"sound": sound.astype(np.float32), "z": z, "opening": wide, "time": time, "has_z": clip.z is not None, "weight": 1.0}

    def louder(self, sound, level, rng):
        """Noise of some colour, other voices far below, then a gain of +-12 dB about -26 dBFS or about the clip's own level."""
        kind = rng.random()
        if kind < 0.5:
            snr = rng.uniform(10, 45)
            noise = coloured(len(sound), rng)
            sound = sound + noise * level * 10 ** (-snr / 20)
        elif kind < 0.58:
            other = self.groups[self.kinds[rng.integers(len(self.kinds))]]
            other = other[rng.integers(len(other))].pcm
            babble = sum(piece(other, rng.uniform(0, max(1, len(other) - SAMPLES)), SAMPLES, 1.0) for _ in range(3))
            sound = sound + babble / (np.sqrt(np.mean(babble**2)) + 1e-5) * level * 10 ** (-rng.uniform(12, 25) / 20)
        target = 0.05 if rng.random() < 0.5 else level
        return sound * target / level * 10 ** (rng.uniform(-12, 12) / 20)


def piece(pcm, start, count, speed):
    """`count` samples from fractional sample `start`, played `speed` times as fast; silence outside the clip; f32 -1..1."""
    position = start + np.arange(count) * speed
    low = np.floor(position).astype(int)
    f = (position - low).astype(np.float32)
    inside = (low >= 0) & (low < len(pcm) - 1)
    low = np.clip(low, 0, len(pcm) - 2)
    x = pcm[low] * (1 - f) + pcm[low + 1] * f
    return np.where(inside, x, 0).astype(np.float32) / 32768


def envelope(seconds, begin, end):
    """1 inside [begin, end], and the lips' way from and to rest around it."""
    rise = (seconds - (begin - LEAVE_MS / 1000)) / (LEAVE_MS / 1000)
    fall = (end + CLOSE_MS / 1000 - seconds) / (CLOSE_MS / 1000)
    return np.clip(np.minimum(rise, fall), 0, 1).astype(np.float32)


def gap(sound, time, rng):
    """Cut a silence into the sound; the gate by which the motion goes to rest and back."""
    length = rng.uniform(300, 1200)
    begin = rng.uniform(-100, time[-1] - 300)
    end = begin + length
    ms = np.arange(len(sound)) * 1000.0 / audio.RATE
    ramp = np.clip(np.maximum((begin - ms) / 10, (ms - end) / 10), 0, 1).astype(np.float32)
    closing = np.clip((begin + CLOSE_MS - time) / CLOSE_MS, 0, 1)
    leaving = np.clip((time - (end - LEAVE_MS)) / LEAVE_MS, 0, 1)
    return sound * ramp, np.maximum(closing, leaving).astype(np.float32)


def coloured(count, rng):
    """Noise of unit power with a spectrum between white and 1/f^2."""
    size = 1 << (count - 1).bit_length()
    half = size // 2 + 1
    f = np.maximum(np.arange(half, dtype=np.float32), 40 * size / audio.RATE)
    phase = rng.standard_normal((half, 2), np.float32).view(np.complex64)[:, 0]
    x = np.fft.irfft(phase * f ** np.float32(-rng.uniform(0, 1.0)), size)[:count]
    return (x / (x.std() + 1e-9)).astype(np.float32)


def filtered(sound, rng):
    """Microphone and room: a smooth random response of +-8 dB over log frequency, and an exponential reverberation."""
    count = FILTERED
    hertz = np.fft.rfftfreq(count, 1 / audio.RATE)
    octave = np.log2(np.maximum(hertz, 50) / 50)
    responses = []
    for _ in range(len(sound)):
        knots = rng.normal(0, 4, 9)
        gain = 10 ** (np.clip(np.interp(octave, np.linspace(0, 7.4, 9), knots), -10, 10) / 20) if rng.random() < 0.6 else np.ones(len(hertz))
        if rng.random() < 0.2:
            gain = gain * (1 / np.sqrt(1 + (hertz / rng.uniform(3000, 7000)) ** 8))
        response = gain.astype(np.complex64)
        if rng.random() < 0.25:
            decay = rng.uniform(0.08, 0.35)
            n = int(decay * audio.RATE)
            tail = rng.standard_normal(n) * 10 ** (-3 * np.arange(n) / n)
            tail[: int(0.003 * audio.RATE)] = 0
            tail *= rng.uniform(0.1, 0.6) / (np.sqrt((tail**2).sum()) + 1e-9)
            tail[0] = 1.0
            response = response * np.fft.rfft(tail, count)
        responses.append(response.astype(np.complex64))
    spectrum = torch.fft.rfft(sound, count) * torch.from_numpy(np.stack(responses))
    return torch.fft.irfft(spectrum, count)[:, : sound.shape[1]].contiguous()
