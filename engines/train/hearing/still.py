#!/usr/bin/env python3
"""More sounds under which the mouth rests: typing, people talking far away, hiss and hum with taps, recordings of a folder.

    python -m hearing.still --cache CACHE [--noises FOLDER]      writes CACHE/motion/still.npz; needs CACHE/hearing/pool.npz; FOLDER: sound files or a bare repository
    python -m hearing.still --cache CACHE --music 60             writes CACHE/motion/music.npz alone: more of motion/rest.py's music
    python -m hearing.still --cache CACHE --babble 60            writes CACHE/motion/babble.npz alone: four to eight voices together
"""

import argparse
import json
from pathlib import Path

import numpy as np

from hearing.mel import RATE
from motion.rest import DIMS, add, envelope, music, noise, tone, whistle

SECONDS = 10
# Words of recordings that hold voices.
VOICED = ("cry", "baby", "laugh", "sneez", "rooster")


def typing(rng):
    out, at = noise(rng, RATE * SECONDS, 50, 3000, 0.6) * 0.03, 0
    while at < len(out):
        for part in (1.0, 0.5):
            n = int(rng.uniform(0.008, 0.03) * RATE)
            low = rng.uniform(600, 2500)
            add(out, at, noise(rng, n, low, low * 3) * envelope(n, 0.0005, n / RATE / 4) * part * rng.uniform(0.3, 1))
            at += int(rng.uniform(0.05, 0.1) * RATE)
        at += int(rng.exponential(0.12) * RATE)
    return out


def babble(rng, voices):
    """Five voices together."""
    n = RATE * SECONDS
    return sum(np.resize(voices[rng.integers(len(voices))].astype(np.float32), n) / 3000 for _ in range(5))


def hiss(rng):
    n = RATE * SECONDS
    x = noise(rng, n, 20, rng.uniform(2000, 7900), rng.uniform(0, 1)) * rng.uniform(0.2, 1) + tone(rng, rng.choice([50, 60, 100, 120]), n) * rng.uniform(0, 0.3)
    return x * np.interp(np.arange(n), np.linspace(0, n, 8), rng.uniform(0.3, 1, 8))


def silent(rng):
    return rng.standard_normal(RATE * SECONDS)


def hush(rng):
    """What a room, a fan or a line makes all the time."""
    n = RATE * 6
    kind = rng.integers(4)
    if kind == 0:
        return rng.standard_normal(n)
    if kind == 1:
        return tone(rng, rng.choice([50, 60, 100, 120]), n) + 0.02 * rng.standard_normal(n)
    return noise(rng, n, 20, rng.uniform(300, 7900), rng.uniform(0, 1.2))


def recordings(folder, most=60):
    from hearing.pool import decoded, listing

    if folder is None:
        return []
    rows = [(n, read) for n, read in listing(folder) if not any(v in n.lower() for v in VOICED)][:most]
    return [decoded(read()).astype(np.float32) for _, read in rows]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--noises", type=Path)
    parser.add_argument("--music", type=int, default=0, help="write so many pieces of music and nothing else")
    parser.add_argument("--babble", type=int, default=0, help="write so many crowds and nothing else")
    parser.add_argument("--seed", type=int, default=29)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    if args.music:
        return write(args.cache / "motion/music.npz", tunes(rng, args.music), [("rest__music", "rest")] * args.music)
    store = np.load(args.cache / "hearing/pool.npz")
    voices = [store[f"pcm{k}"] for k in range(0, len(json.loads(str(store["table"]))), 5)]
    if args.babble:
        return write(args.cache / "motion/babble.npz", crowds(rng, voices, args.babble), [("still__crowd", "still")] * args.babble)
    # Level of the peak, or for babble and room noise of the mean power, in dBFS.
    made = [("typing", typing(rng), rng.uniform(-30, -6)) for _ in range(8)]
    made += [("hiss", hiss(rng), rng.uniform(-50, -20)) for _ in range(8)] + [("recording", x, rng.uniform(-30, -6)) for x in recordings(args.noises) if len(x) > RATE]
    arrays, table = {}, []
    for name, x, db in made:
        x = x / (np.abs(x).max() + 1e-9) * 10 ** (db / 20)
        table.append(name)
        arrays[f"pcm{len(table) - 1}"] = (x * 32767).astype(np.int16)
    for name, x, db in [("babble", babble(rng, voices), rng.uniform(-58, -46)) for _ in range(12)] + [("silent", silent(rng), rng.uniform(-90, -50)) for _ in range(6)] + [("hush", hush(rng), rng.uniform(-56, -32)) for _ in range(44)] + [("whistle", whistle(rng)[: RATE * 6], rng.uniform(-40, -20)) for _ in range(6)]:
        x = x / (x.std() + 1e-9) * 10 ** (db / 20)
        table.append(name)
        arrays[f"pcm{len(table) - 1}"] = (x * 32767).astype(np.int16)
    write(args.cache / "motion/still.npz", arrays, [(f"still__{name}", "still") for name in table])


def tunes(rng, count):
    """Music at -34 to -14 dBFS, of 5 to 9 s."""
    out = {}
    for k in range(count):
        x = music(rng)[: int(RATE * rng.uniform(5, 9))]
        x = x / (np.sqrt(np.mean(x**2)) + 1e-12) * 10 ** (rng.uniform(-34, -14) / 20)
        out[f"pcm{k}"] = (np.clip(x, -1, 1) * 32767).astype(np.int16)
    return out


def crowds(rng, voices, count):
    """Four to eight voices together, each about as loud, at -45 to -20 dBFS, of 5 to 9 s."""
    out = {}
    for k in range(count):
        x = np.zeros(int(RATE * rng.uniform(5, 9)))
        for _ in range(rng.integers(4, 9)):
            voice = np.resize(np.roll(voices[rng.integers(len(voices))].astype(np.float32), rng.integers(RATE * 5)), len(x))
            x += voice / (voice.std() + 1e-6) * rng.uniform(0.7, 1.3)
        x = x / (x.std() + 1e-12) * 10 ** (rng.uniform(-45, -20) / 20)
        out[f"pcm{k}"] = (np.clip(x, -1, 1) * 32767).astype(np.int16)
    return out


def write(path, arrays, names):
    """Sounds pcm0 .. of these (name, kind), under which the mouth rests."""
    rows = []
    for k, (name, kind) in enumerate(names):
        frames = len(arrays[f"pcm{k}"]) // 640
        arrays[f"gap{k}"], arrays[f"z{k}"] = np.zeros(frames, np.float32), np.zeros((frames, DIMS), np.float32)
        rows.append({"name": f"{name}_{k}", "kind": kind, "val": False, "fps": 25, "scale": 1.0})
    np.savez(path, table=json.dumps(rows), **arrays)
    print(f"{len(rows)} sounds, {sum(len(arrays[f'pcm{k}']) for k in range(len(rows))) / RATE:.0f} s")


if __name__ == "__main__":
    main()
