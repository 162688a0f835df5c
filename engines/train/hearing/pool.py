#!/usr/bin/env python3
"""Speech without pictures, for pseudo-labels: every sound file of git repositories and folders, as int16 at 16 kHz.

    python -m hearing.pool --cache CACHE --from FOLDER [FOLDER ..] [--hours H]      writes CACHE/hearing/pool.npz

A FOLDER is searched through; one with a `repo` in it is a bare git repository, read at HEAD. Of a file 20 s are taken, of one source a sixth of all hours at
most; files of under a second or without a voice's level are left out.
"""

import argparse
import json
import subprocess
import zlib
from pathlib import Path

import numpy as np

from hearing.mel import RATE

ENDINGS = (".wav", ".mp3", ".flac", ".ogg", ".m4a")
LONGEST, SHORTEST = 20, 1.0
# Words of paths whose sound is no speech, or spoilt on purpose.
NOT = ("noise", "music", "rir", "reverb", "silence", "click", "beep", "mix", "separat", "enhance", "noisy", "babble")


def wanted(path):
    low = path.lower()
    return low.endswith(ENDINGS) and not any(word in low for word in NOT)


def listing(folder):
    """(name, function that gives the bytes) of a folder's sound files, in an order that mixes them."""
    repo = folder / "repo"
    if repo.exists():
        git = ["git", f"--git-dir={repo}"]
        names = subprocess.check_output([*git, "ls-tree", "-r", "-z", "--name-only", "HEAD"], text=True).split("\0")
        rows = [(n, lambda n=n: subprocess.check_output([*git, "show", f"HEAD:{n}"])) for n in names if wanted(n)]
    else:
        rows = [(str(p.relative_to(folder)), p.read_bytes) for p in folder.rglob("*") if wanted(str(p))]
    return sorted(rows, key=lambda r: zlib.crc32(r[0].encode()))


def decoded(data):
    """int16 samples of a file's bytes, at most LONGEST seconds; empty where it cannot be read."""
    done = subprocess.run(["ffmpeg", "-v", "error", "-i", "-", "-t", str(LONGEST), "-f", "s16le", "-ac", "1", "-ar", str(RATE), "-"], input=data,
                          capture_output=True)
    return np.frombuffer(done.stdout[: len(done.stdout) // 2 * 2], np.int16)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--from", dest="sources", type=Path, nargs="+", required=True)
    parser.add_argument("--hours", type=float, default=2.0)
    args = parser.parse_args()
    most = args.hours * 3600 / 6
    arrays, table, total = {}, [], 0.0
    for source in args.sources:
        seconds = 0.0
        for name, read in listing(source):
            sound = decoded(read()) if seconds < most else np.zeros(0, np.int16)
            if len(sound) < SHORTEST * RATE or np.abs(sound.astype(np.float32)).mean() < 60:
                continue
            arrays[f"pcm{len(table)}"] = sound
            table.append({"name": f"{source.name}/{name}", "seconds": len(sound) / RATE})
            seconds += len(sound) / RATE
        total += seconds
        print(f"{source.name}: {seconds:.0f} s", flush=True)
    out = args.cache / "hearing"
    out.mkdir(parents=True, exist_ok=True)
    np.savez(out / "pool.npz", table=json.dumps(table), **arrays)
    print(f"{len(table)} files, {total:.0f} s")


if __name__ == "__main__":
    main()
