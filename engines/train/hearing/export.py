#!/usr/bin/env python3
"""Write audio.onnx, motion.onnx and motion-80.onnx (and one for each other look-ahead that a run has), basis.safetensors, hearing.json and golden vectors, and check
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
from hearing import mel as front
from hearing.net import TAPS, Audio, Hearing
from hearing.stream import Stream
from motion.export import session
from tensors import save

NAMES = ("mel", "past", "mask", "position", "state")
OUTPUTS = ("feature", "fresh", "next_state")
# Arrays with fewer numbers stay f32.
SMALL = 2048


def halves(path):
    """Keep large weights as fp16 with a Cast before their use; the runtime undoes it as it loads."""
    model = onnx.load(str(path))
    graph, casts = model.graph, []
    for k, tensor in enumerate(graph.initializer):
        array = numpy_helper.to_array(tensor)
        if array.dtype != np.float32 or array.size < SMALL:
            continue
        name, half = tensor.name, f"{tensor.name}.f16"
        graph.initializer[k].CopyFrom(numpy_helper.from_array(array.astype(np.float16), half))
        casts.append(helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT, name=f"cast.{name}"))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(casts + nodes)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def empty(encoder, batch, places=whisper.PAST):
    return torch.zeros(batch, encoder.layers, 2, places, encoder.width), torch.full((batch, places), whisper.CLOSED)


def write_audio(audio, path):
    past, mask = empty(audio.encoder, 2)
    mask[:, :3] = 0
    inputs = (torch.randn(2, 9, 80), past, mask, torch.tensor([3, 5]), torch.zeros(2, audio.head.state_size))
    axes = {"mel": {0: "batch", 1: "frames"}, "past": {0: "batch", 3: "places"}, "mask": {0: "batch", 1: "places"}, "position": {0: "batch"},
            "state": {0: "batch"}, "feature": {0: "batch", 1: "tokens"}, "fresh": {0: "batch", 3: "tokens"}, "next_state": {0: "batch"}}
    torch.onnx.export(audio, inputs, str(path), input_names=list(NAMES), output_names=list(OUTPUTS), dynamic_axes=axes, opset_version=17, dynamo=False)
    halves(path)


def write_motion(regression, path):
    d, c = regression.latents, regression.conditions
    names = ("latent", "timestep", "cond")
    axes = {n: {0: "batch"} for n in (*names, "prediction")}
    torch.onnx.export(regression, (torch.zeros(2, d), torch.zeros(2), torch.zeros(2, c)), str(path), input_names=list(names),
                      output_names=["prediction"], dynamic_axes=axes, opset_version=17, dynamo=False)
    halves(path)


class Host:
    """What a host does with audio.onnx, on the ring alone."""

    def __init__(self, run, state_size, layers=whisper.LAYERS, width=whisper.WIDTH):
        self.run, self.position = run, 0
        self.past = np.zeros((1, layers, 2, whisper.PAST, width), np.float32)
        self.mask = np.full((1, whisper.PAST), whisper.CLOSED, np.float32)
        self.state = np.zeros((1, state_size), np.float32)

    def step(self, mel):
        """mel [2 T + 3, 80] -> feature [T, F], fresh."""
        feature, fresh, self.state = self.run.run(None, {"mel": mel[None], "past": self.past, "mask": self.mask,
                                                         "position": np.array([self.position], np.int64), "state": self.state})
        for k in range(feature.shape[1]):
            place = self.position % whisper.PAST
            self.past[:, :, :, place], self.mask[:, place] = fresh[:, :, :, k], 0
            self.position += 1
        return feature[0], fresh[0]


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
            kept = {"fresh_80": fresh[:, :, 0], "state_82": host.state[0].copy()}
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
    model, audio = model.eval(), Audio(encoder, model.head).eval()
    write_audio(audio, folder / "audio.onnx")
    for look, motion in model.motions.items():
        write_motion(motion, folder / ("motion.onnx" if look == "160" else f"motion-{look}.onnx"))
    keys = ("basis", "pose", "rest", "range", "project", "spread")
    save(folder / "basis.safetensors", {k: basis[k] for k in keys} | {"silence": silence_feature(encoder, model)})
    run = session(folder / "audio.onnx")
    facts = {"features": model.head.features, "state": model.head.state_size, "layers": encoder.layers, "width": encoder.width, "past": whisper.PAST,
             "turn": whisper.TURN, "token_ms": 20, "overhang_ms": whisper.TOKEN_END_MS,
             "settings": {"default": {"file": "motion.onnx", "look_ahead_ms": 160, "taps_ms": TAPS[160]},
                          "low": {"file": "motion-80.onnx", "look_ahead_ms": 80, "taps_ms": TAPS[80]}}
             | ({"middle": {"file": "motion-120.onnx", "look_ahead_ms": 120, "taps_ms": TAPS[120]}} if "120" in model.motions else {}),
             "mel": {"top": front.TOP, "fall_a_frame": front.FALL, "range": front.RANGE, "silence": front.SILENCE,
                     "rule": "M_i = max(top, max of y_i, M_(i-1) - fall); mel_i = (max(y_i, M_i - range) + 4) / 4; M before the stream = top"},
             "bytes": {p.name: p.stat().st_size for p in sorted(folder.glob("*.onnx"))},
             "parity_f16_stream_against_f32_whole": golden(encoder, model, folder), "ms_a_call": milliseconds(run, model.head.state_size), **dict(facts)}
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
