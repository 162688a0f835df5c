#!/usr/bin/env python3
"""Write audio.onnx, motion-160.onnx and motion-80.onnx (and one for each other look-ahead that a run has), basis.safetensors, hearing.json and golden vectors, and check
them against torch.

    python -m hearing export --cache CACHE [--run DIR] --out FOLDER      without a run: an untrained head, for those who build on the files

The run is of `train` or of `tune`; the latter brings its own encoder. With --from FOLDER its weights are moved towards those of that folder, of which --share of the run's
remains: what a run has learnt and what is noise of its last steps are apart that way.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from hearing import encoder as whisper
from hearing import graph
from hearing import mel as front
from hearing.net import TAPS, Hearing
from hearing.stream import Stream
from motion.export import session
from tensors import save

def halves(path):
    """Keep large weights as fp16 with a Cast before their use; the runtime undoes it as it loads."""
    model = onnx.load(str(path))
    whole, casts = model.graph, []
    for k, tensor in enumerate(whole.initializer):
        array = numpy_helper.to_array(tensor)
        if array.dtype != np.float32 or array.size < graph.SMALL:
            continue
        name, half = tensor.name, f"{tensor.name}.f16"
        whole.initializer[k].CopyFrom(numpy_helper.from_array(array.astype(np.float16), half))
        casts.append(helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT, name=f"cast.{name}"))
    nodes = list(whole.node)
    del whole.node[:]
    whole.node.extend(casts + nodes)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def write_motion(regression, path):
    d, c = regression.latents, regression.conditions
    names = ("latent", "timestep", "cond")
    axes = {n: {0: "batch"} for n in (*names, "prediction")}
    torch.onnx.export(regression, (torch.zeros(2, d), torch.zeros(2), torch.zeros(2, c)), str(path), input_names=list(names),
                      output_names=["prediction"], dynamic_axes=axes, opset_version=17, dynamo=False)
    halves(path)


class Host:
    """What a host does with audio.onnx, on the ring alone."""

    def __init__(self, run, state_size, layers=whisper.LAYERS, width=whisper.WIDTH, heads=whisper.HEADS):
        self.run, self.position = run, 0
        self.names = [f"{what}.{k}" for k in range(layers) for what in ("key", "value")]
        self.past = np.zeros((len(self.names), heads, whisper.PAST, width // heads), np.float32)
        self.state = np.zeros((1, state_size), np.float32)

    def step(self, mel):
        """mel [2 T + 3, 80] -> feature [T, F], fresh [layers * 2, heads, T, depth]."""
        tokens = (len(mel) - 3) // 2
        known = np.where(np.arange(whisper.PAST) < self.position, 0.0, whisper.CLOSED)[None].repeat(tokens, 0)
        mask = np.concatenate([known, np.triu(np.full((tokens, tokens), whisper.CLOSED), 1)], 1)
        feeds = {name: past[None] for name, past in zip(self.names, self.past)}
        feeds |= {"mel": mel[None], "mask": mask[None].astype(np.float32), "state": self.state,
                  "position": (self.position + np.arange(tokens, dtype=np.float32))[None]}
        feature, fresh, self.state = self.run.run(["feature", "fresh", "next_state"], feeds)
        fresh = fresh.reshape(*self.past.shape[:2], tokens, -1)
        for k in range(tokens):
            self.past[:, :, self.position % whisper.PAST] = fresh[:, :, k]
            self.position += 1
        return feature[0], fresh


def sound(seconds=2.0):
    """A made voice of 2 s with a pause, and silence before: f32."""
    rng, t = np.random.default_rng(5), np.arange(int(seconds * front.RATE)) / front.RATE
    pitch = np.cumsum(120 + 30 * np.sin(2 * np.pi * 1.3 * t)) / front.RATE
    voice = sum(np.sin(2 * np.pi * k * pitch) / k * np.exp(-((k * 120 - 600 - 500 * np.sin(2 * np.pi * 3 * t)) / 700) ** 2) for k in range(1, 30))
    loud = np.clip(np.sin(2 * np.pi * 2.1 * t), 0, 1) * (t > 0.2)
    return (0.3 * voice * loud + 0.002 * rng.standard_normal(len(t))).astype(np.float32)


@torch.no_grad()
def golden(encoder, model, folder):
    """Samples, mel frames 90 .. 109, the features of a stream of two tokens a call, keys and values of token 80, the state after token 81 and at the end,
    the latents of the first 40 frames at 25 a second."""
    x = sound()
    mel = front.log_mel(torch.from_numpy(x)[None])[0].numpy()
    host = Host(session(folder / "audio.onnx"), model.head.state_size)
    padded = np.concatenate([np.full((whisper.LEAD, 80), front.SILENCE, np.float32), mel])
    out, kept = [], {}
    tokens = (len(padded) - 3) // 2 // 2 * 2
    for j in range(0, tokens, 2):
        feature, fresh = host.step(padded[2 * j : 2 * j + 7])
        out.append(feature)
        if j == 80:
            kept = {"fresh_80": fresh[:, :, 0].reshape(whisper.LAYERS, 2, -1), "state_82": host.state[0].copy()}
    time_ms = np.arange(40, dtype=np.float32)[None] * 40
    features = torch.from_numpy(np.concatenate(out))[None]
    frames = {f"latents_{look}": model.motion(features, torch.from_numpy(time_ms), int(look))[0].numpy() for look in model.motions}
    save(folder / "golden.safetensors", {"samples": x, "mel_90": mel[90:110], "features": np.concatenate(out), "state": host.state[0], **kept, **frames})
    states = encoder.whole(torch.from_numpy(padded[: 2 * tokens + 3])[None])
    return float((model.features(states)[0].numpy() - np.concatenate(out)).__abs__().max())


def milliseconds(run, state_size, tokens=2, calls=60):
    """Median time of a call at batch 1."""
    host, spent = Host(run, state_size), []
    mel = np.random.default_rng(0).standard_normal((2 * tokens + 3, 80)).astype(np.float32)
    for _ in range(calls):
        start = time.perf_counter()
        host.step(mel)
        spent.append(time.perf_counter() - start)
    return round(1000 * float(np.median(spent)), 2)


@torch.no_grad()
def silence_feature(encoder, model):
    """The feature that 8 s of digital silence settle to, as the running stream gives it."""
    stream, mel = Stream(encoder, front.SILENCE, most=10), torch.full((800, 80), front.SILENCE)
    states = stream.push(mel)
    return model.features([s[None] for s in states])[0, -1].numpy()


@torch.no_grad()
def write(encoder, model, basis, folder, gain=1.0, facts=()):
    folder.mkdir(parents=True, exist_ok=True)
    for motion in model.motions.values():
        motion.gain = gain
    model = model.eval()
    onnx.save(graph.made(encoder, model.head), str(folder / "audio.onnx"))
    for look, motion in model.motions.items():
        write_motion(motion, folder / f"motion-{look}.onnx")
    keys = ("basis", "pose", "rest", "range", "project", "spread")
    save(folder / "basis.safetensors", {k: basis[k] for k in keys} | {"silence": silence_feature(encoder, model)})
    run = session(folder / "audio.onnx")
    facts = {"features": model.head.features, "state": model.head.state_size, "layers": encoder.layers, "width": encoder.width, "past": whisper.PAST,
             "turn": whisper.TURN, "token_ms": 20, "overhang_ms": whisper.TOKEN_END_MS,
             "settings": {look: {"file": f"motion-{look}.onnx", "taps_ms": TAPS[int(look)]} for look in model.motions},
             "mel": {"top": front.TOP, "fall_a_frame": front.FALL, "range": front.RANGE, "silence": front.SILENCE,
                     "rule": "M_i = max(top, max of y_i, M_(i-1) - fall); mel_i = (max(y_i, M_i - range) + 4) / 4; M before the stream = top"},
             "bytes": {p.name: p.stat().st_size for p in sorted(folder.glob("*.onnx"))},
             "parity_8_bit_stream_against_f32_whole": golden(encoder, model, folder), "ms_a_call": milliseconds(run, model.head.state_size), **dict(facts)}
    (folder / "hearing.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts))
    return facts


def between(a, b, share):
    """Weights on the straight way from `a` to `b`."""
    return {k: torch.lerp(v, b[k], share) for k, v in a.items()}


def main(args):
    from hearing import sources, train, tune

    torch.set_num_threads(1)
    torch.manual_seed(0)
    basis, _ = sources.basis_of(args.cache, train.SHIPPED)
    if args.run is not None and (args.run / "tuned.pt").exists():
        whole, step = tune.restore(args.run, basis)
        if args.beginning is not None:
            whole.load_state_dict(between(tune.start(args.beginning, basis, tune.LOOKS, 0.0).state_dict(), whole.state_dict(), args.share))
        model, encoder = whole.model, whole.encoder
        for look in [look for look in model.motions if int(look) not in args.looks]:
            del model.motions[look]
        write(encoder, model, basis, args.out, args.gain, {"trained": True, "run": args.run.name, "step": step, "share": args.share, "gain": args.gain})
        return
    encoder = whisper.load(args.weights)
    if args.run is None:
        model, facts = Hearing(basis["basis"].shape[1], basis["opening"]), {"trained": False}
    else:
        model, kept = train.restore(args.run, basis)
        facts = {"trained": True, "run": args.run.name, "step": kept["step"], "gain": args.gain}
    write(encoder, model, basis, args.out, args.gain, facts)


def arguments(sub):
    one = sub.add_parser("export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    one.add_argument("--cache", type=Path, required=True)
    one.add_argument("--weights", type=Path, help="Whisper's; a tuned run needs none")
    one.add_argument("--run", type=Path)
    one.add_argument("--looks", type=int, nargs="+", default=[160, 120, 80], help="which look-aheads of a tuned run are written")
    one.add_argument("--from", dest="beginning", type=Path, help="folder of the engine that a tuned run began from")
    one.add_argument("--share", type=float, default=1.0, help="how far from there to the run's weights")
    one.add_argument("--gain", type=float, default=1.0, help="scale of the motion, against regression's shrinking")
    one.add_argument("--out", type=Path, required=True)
    one.set_defaults(action=main)
