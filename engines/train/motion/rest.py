#!/usr/bin/env python3
"""Sounds that are no speech, made by rule, under which the mouth rests: music, breath, noise, hum, clicks, whistling.

    python -m motion.rest --cache CACHE [--count N]      writes CACHE/motion/rest.npz
"""

import argparse
import json
from pathlib import Path

import numpy as np

from audio import RATE

SECONDS, DIMS = 16, 12


def envelope(n, attack, decay):
    """A pluck: rises in `attack`, falls by e in `decay` seconds."""
    t = np.arange(n) / RATE
    return np.minimum(t / attack, 1) * np.exp(-t / decay)


def tone(rng, hertz, n):
    """An instrument: harmonics that fall off, slightly out of tune."""
    t = np.arange(n) / RATE
    slope, count = rng.uniform(0.7, 2.2), rng.integers(2, 14)
    parts = [np.sin(2 * np.pi * hertz * k * (1 + rng.normal(0, 2e-4)) * t + rng.uniform(0, 6.3)) / k**slope
             for k in range(1, count + 1) if hertz * k < RATE / 2.2]
    return np.sum(parts, 0)


def noise(rng, n, low, high, slope=0.0):
    """Noise between two frequencies, falling by `slope` powers of the frequency."""
    f = np.fft.rfftfreq(n, 1 / RATE)
    band = 1 / (1 + (low / np.maximum(f, 1)) ** 6) / (1 + (f / high) ** 6) * np.maximum(f, 30) ** -slope
    x = np.fft.irfft(np.fft.rfft(rng.standard_normal(n)) * band, n)
    return x / (np.abs(x).max() + 1e-9)


def add(out, at, x):
    end = min(len(out), at + len(x))
    out[at:end] += x[: end - at]


def music(rng):
    n = RATE * SECONDS
    out, beat = np.zeros(n), 60 / rng.uniform(70, 170)
    root, scale = 110 * 2 ** (rng.integers(0, 12) / 12), rng.permuted([0, 2, 3, 5, 7, 8, 10, 12])
    drums, chords, lead = rng.random(3) < [0.6, 0.8, 0.7]
    for k in range(int(SECONDS / beat)):
        at = int(k * beat * RATE)
        long = int(RATE * beat * rng.uniform(0.8, 4))
        if chords and k % 2 == 0:
            for step in rng.choice(scale, 3, replace=False):
                add(out, at, tone(rng, root * 2 ** (step / 12), long) * envelope(long, rng.uniform(0.004, 0.2), rng.uniform(0.3, 2)) * 0.3)
        if lead:
            add(out, at, tone(rng, 2 * root * 2 ** (rng.choice(scale) / 12), long) * envelope(long, 0.01, rng.uniform(0.15, 0.6)) * 0.5)
        if drums:
            hit = int(0.2 * RATE)
            add(out, at, noise(rng, hit, 30, 150 if k % 2 == 0 else 5000) * envelope(hit, 0.001, 0.05))
    return out


def breath(rng):
    n = RATE * SECONDS
    out, at = np.zeros(n), int(rng.uniform(0, RATE))
    while at < n:
        length = int(rng.uniform(0.25, 1.1) * RATE)
        shape = np.sin(np.pi * np.linspace(0, 1, length)) ** rng.uniform(0.7, 2)
        add(out, at, noise(rng, length, rng.uniform(150, 700), rng.uniform(2000, 7000), rng.uniform(0, 0.6)) * shape)
        at += length + int(rng.uniform(0.3, 2.5) * RATE)
    return out


def steady(rng):
    n = RATE * SECONDS
    hum = tone(rng, rng.choice([50, 60, 100, 120]), n) * rng.uniform(0, 0.6)
    return hum + noise(rng, n, rng.uniform(20, 200), rng.uniform(800, 7900), rng.uniform(0, 1))


def clicks(rng):
    n = RATE * SECONDS
    out, at = noise(rng, n, 50, 4000, 0.5) * 0.02, 0
    while at < n:
        length = int(rng.uniform(0.01, 0.12) * RATE)
        low = rng.uniform(100, 1500)
        add(out, at, noise(rng, length, low, low * rng.uniform(2, 6)) * envelope(length, 0.001, length / RATE / 4) * rng.uniform(0.2, 1))
        at += int(rng.exponential(rng.uniform(0.12, 0.8)) * RATE) + 400
    return out


def whistle(rng):
    n = RATE * SECONDS
    t = np.arange(n) / RATE
    pitch = rng.uniform(500, 2200) * 2 ** (np.interp(t, np.linspace(0, SECONDS, 40), rng.normal(0, 0.35, 40)))
    loud = np.clip(np.interp(t, np.linspace(0, SECONDS, 60), rng.normal(0.3, 0.5, 60)), 0, 1)
    return np.sin(2 * np.pi * np.cumsum(pitch) / RATE) * loud + noise(rng, n, 500, 6000) * 0.02


KINDS = (music, music, music, breath, breath, steady, clicks, whistle)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--count", type=int, default=96)
    parser.add_argument("--seed", type=int, default=17)
    args = parser.parse_args()
    rng, arrays, table = np.random.default_rng(args.seed), {}, []
    for k in range(args.count):
        kind = KINDS[k % len(KINDS)]
        x = kind(rng)
        x = x / (np.abs(x).max() + 1e-9) * 10 ** (-rng.uniform(3, 30) / 20)
        arrays[f"pcm{k}"] = (x * 32767).astype(np.int16)
        arrays[f"gap{k}"], arrays[f"z{k}"] = np.zeros(25 * SECONDS, np.float32), np.zeros((25 * SECONDS, DIMS), np.float32)
        table.append({"name": f"rest__{kind.__name__}_{k}", "kind": "rest", "val": False, "fps": 25, "scale": 1.0})
    np.savez(args.cache / "motion/rest.npz", table=json.dumps(table), **arrays)
    print(f"{args.count * SECONDS} s without speech")


if __name__ == "__main__":
    main()
