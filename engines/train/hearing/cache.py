#!/usr/bin/env python3
"""The encoder's states of every clip, computed once in several views of its sound.

    python -m hearing cache --cache CACHE --weights FILE --name NAME --kinds KIND=N [KIND=N ..]      writes CACHE/hearing/NAME.{npy,json}

All clips of the kinds stand one behind the other in random order as one long stream, with short pauses, N times with other changes (the first of them
unchanged with --plain); the stream is cut as a host cuts it: positions 0..999, of which the first 100 are those encoded again and not kept. So the past of a
clip's beginning is another clip, and all positions occur. NAME.npy: f16 [tokens, states, 512]; the JSON has a row for each clip: first token, tokens, speed, gaps.
"""

import argparse
import json
import zlib
from pathlib import Path

import numpy as np
import torch

from hearing import encoder as whisper
from hearing import mel as front
from hearing.sounds import Changed, changed
from hearing.sources import load, noises

TOKEN = 320
# Tokens of silence around a recording that is heard by itself, and the seconds of it that are.
EDGE, LONGEST = 25, 28


def hash_of(name):
    return zlib.crc32(name.encode())


def joined(views, rng):
    """One sound of many with pauses of up to 0.6 s, and the first token of each."""
    parts, starts, at = [], [], 0
    for view in views:
        gap = int(rng.uniform(0, 0.6) * 50) * TOKEN
        sound = np.pad(view.sound, (0, -len(view.sound) % TOKEN))
        quiet = (10 ** (-rng.uniform(60, 100) / 20) * rng.standard_normal(gap)).astype(np.float32)
        parts += [quiet, sound]
        starts.append((at + gap) // TOKEN)
        at += gap + len(sound)
    tail = np.zeros(50 * TOKEN, np.float32)
    return np.concatenate([*parts, tail]), starts


@torch.no_grad()
def states(encoder, sound, batch=4):
    """f16 [tokens, states, W] of f32 samples, as a stream that turns every TURN tokens."""
    kept = whisper.TURN - whisper.PAST
    mel = front.log_mel(torch.from_numpy(sound)[None])
    lead = torch.full((1, 2 * whisper.PAST, front.MELS), front.SILENCE)
    mel = whisper.token_mel(torch.cat([lead, mel], 1), front.SILENCE)[0]
    tokens = (len(mel) - 3) // 2 - whisper.PAST
    out = np.empty((tokens, encoder.layers + 1, encoder.width), np.float16)
    begins = list(range(0, tokens, kept))
    for k in range(0, len(begins), batch):
        rows = [mel[2 * b : 2 * (b + whisper.TURN) + 3] for b in begins[k : k + batch]]
        long = max(len(r) for r in rows)
        stack = torch.stack([torch.nn.functional.pad(r, (0, 0, 0, long - len(r)), value=front.SILENCE) for r in rows])
        got = torch.stack(encoder.whole(stack), 2)[:, whisper.PAST :]
        for b, row in zip(begins[k : k + batch], got):
            part = row[: min(kept, tokens - b)]
            out[b : b + len(part)] = part.float().clamp(-6e4, 6e4).half().numpy()
    return out


@torch.no_grad()
def alone(encoder, views, causal):
    """States of each view by itself, half a second of silence around it, one behind the other, and the first token of each: as a stream hears it that begins there, or, not
    `causal`, as Whisper hears a whole recording."""
    parts, starts, at = [], [], 0
    for view in views:
        sound = np.pad(view.sound[: LONGEST * front.RATE], EDGE * TOKEN)
        mel = whisper.token_mel(front.log_mel(torch.from_numpy(sound)[None]), front.SILENCE)
        got = torch.stack(encoder.whole(mel, causal=causal), 2)[0].float().clamp(-6e4, 6e4).half().numpy()
        parts.append(got)
        starts.append(at + EDGE)
        at += len(got)
    return np.concatenate(parts), starts


def main(args):
    torch.set_num_threads(args.threads)
    torch.set_autocast_enabled("cpu", args.half)
    encoder = whisper.load(args.weights, layers=6 if args.whole else whisper.LAYERS)
    clips, _ = load(args.cache, args.shipped, args.hold)
    if args.measured:
        clips = [c for c in clips if c.group and not (c.group == "val_grid_s1" and hash_of(c.name) % 4)]
        args.kinds, args.plain = sorted({f"{c.kind}=1" for c in clips}), True
    wanted = {k: int(n) for k, n in (item.split("=") for item in args.kinds)}
    rng = np.random.default_rng(args.seed)
    mixed, views, rows = noises(clips), [], []
    for kind, times in wanted.items():
        own = [c for c in clips if c.kind == kind and (c.group is None) != args.measured]
        if kind == "grid_s1" and not args.measured:
            own = [own[i] for i in rng.permutation(len(own))[: args.known]]
        for k in range(times):
            for clip in own:
                plain = args.plain and k == 0
                view = Changed(clip.pcm.astype(np.float32) / 32768) if plain or kind == "still" else changed(clip.pcm, rng, mixed, kind != "rest")
                views.append(view)
                rows.append({"name": clip.name, "kind": kind, "speed": view.speed, "gaps": view.gaps})
    order = rng.permutation(len(views))
    views, rows = [views[i] for i in order], [rows[i] for i in order]
    if args.whole or args.alone:
        got, starts = alone(encoder, views, not args.whole)
    else:
        sound, starts = joined(views, rng)
        got = states(encoder, sound)
    for row, start, view in zip(rows, starts, views):
        row |= {"token": start, "tokens": len(view.sound) // TOKEN}
    out = args.cache / "hearing"
    out.mkdir(exist_ok=True)
    np.save(out / f"{args.name}.npy", got)
    (out / f"{args.name}.json").write_text(json.dumps(rows))
    print(f"{len(rows)} views, {len(got) / 50:.0f} s")


def arguments(sub):
    one = sub.add_parser("cache", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    one.add_argument("--cache", type=Path, required=True)
    one.add_argument("--weights", type=Path, required=True)
    one.add_argument("--name", required=True)
    one.add_argument("--kinds", nargs="+", default=[])
    one.add_argument("--measured", action="store_true", help="the clips that are measured, in place of kinds")
    one.add_argument("--whole", action="store_true", help="all six layers on the whole clip, for a teacher")
    one.add_argument("--known", type=int, default=200, help="clips of GRID's s1")
    one.add_argument("--alone", action="store_true", help="each view as the beginning of a stream")
    one.add_argument("--shipped", type=Path, default=Path(__file__).parents[2] / "models/compact/basis.safetensors")
    one.add_argument("--hold", action="store_true")
    one.add_argument("--plain", action="store_true")
    one.add_argument("--half", action="store_true", help="compute in bfloat16: twice as fast where the processor has it")
    one.add_argument("--seed", type=int, default=1)
    one.add_argument("--threads", type=int, default=1)
    one.set_defaults(action=main)
