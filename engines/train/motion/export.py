"""Write audio.onnx, motion.onnx and basis.safetensors, and check them against the model they came from."""

import json

import numpy as np
import onnxruntime as ort
import torch

from motion.net import FEATURE_END_MS, HOP_MS, LOOKAHEAD_MS, OFFSETS
from tensors import save


def to_onnx(module, inputs, names, outputs, path):
    """Opset 17, first dimension dynamic, weights inside the file."""
    axes = {n: {0: "batch"} for n in (*names, *outputs)}
    torch.onnx.export(module, inputs, str(path), input_names=list(names), output_names=list(outputs), dynamic_axes=axes,
                      opset_version=17, dynamo=False)


def session(path):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@torch.no_grad()
def parity(model, folder):
    """Largest differences: ONNX hop by hop against torch on the whole sequence, and the denoiser."""
    torch.manual_seed(0)
    model.eval()
    mel, batch = torch.randn(3, 2 * 40, 80), 3
    whole, end = model.encoder(mel, model.encoder.zeros(batch))
    run, state, got = session(folder / "audio.onnx"), model.encoder.zeros(batch).numpy(), []
    for hop in range(40):
        feature, state = run.run(None, {"mel": mel[:, 2 * hop : 2 * hop + 2].numpy(), "state": state})
        got.append(feature)
    latents, cond = model.denoiser.latents, model.denoiser.conditions
    x, t, c = torch.randn(5, latents), torch.tensor([0.0, 0.25, 0.5, 0.75, 0.9]), torch.randn(5, cond)
    (prediction,) = session(folder / "motion.onnx").run(None, {"latent": x.numpy(), "timestep": t.numpy(), "cond": c.numpy()})
    return {"audio": float(np.abs(np.stack(got, 1) - whole.numpy()).max()), "state": float(np.abs(state - end.numpy()).max()),
            "motion": float(np.abs(prediction - model.denoiser(x, t, c).numpy()).max())}


@torch.no_grad()
def silence_feature(model):
    """The feature that 4 s of digital silence settle to."""
    mel = torch.full((1, 400, 80), float(np.log(1e-6)))
    return model.encoder(model.encoder.normalised(mel), model.encoder.zeros(1))[0][0, -1].numpy()


def gflop(model, steps=2, fps=25.0):
    """Multiply-adds counted as two, a video frame: the encoder's hops and the denoiser's steps. Every weight is used once each."""
    hop = sum(p.numel() for p in model.encoder.parameters() if p.ndim > 1)
    step = sum(p.numel() for p in model.denoiser.parameters() if p.ndim > 1)
    return 2e-9 * (hop * 1000 / HOP_MS / fps + steps * step)


def write(model, kept, basis, folder):
    """Everything the engine loads but its manifest; returns what the manifest must say."""
    folder.mkdir(parents=True, exist_ok=True)
    model = model.eval()
    e, latents, cond = model.encoder, model.denoiser.latents, model.denoiser.conditions
    to_onnx(e.stepping().eval(), (torch.zeros(2, 2, 80), torch.zeros(2, e.state_size)), ("mel", "state"), ("feature", "next_state"),
            folder / "audio.onnx")
    to_onnx(model.denoiser, (torch.zeros(2, latents), torch.zeros(2), torch.zeros(2, cond)), ("latent", "timestep", "cond"), ("prediction",),
            folder / "motion.onnx")
    save(folder / "basis.safetensors", {"basis": basis["basis"], "pose": basis["pose"], "rest": basis["rest"], "range": basis["range"],
                                        "project": basis["project"], "spread": basis["spread"], "silence": silence_feature(model)})
    facts = {"state": e.state_size, "features": e.features, "latents": latents, "cond": cond, "offsets_ms": OFFSETS, "past": 0,
             "hop_ms": HOP_MS, "overhang_ms": FEATURE_END_MS, "look_ahead_ms": LOOKAHEAD_MS, "mel_mean": kept["mean"], "mel_std": kept["std"],
             "gflop_a_frame": round(gflop(model), 5), "step": kept["step"], "parity": parity(model, folder)}
    print(json.dumps(facts))
    worst = max(facts["parity"].values())
    if worst > 1e-4:
        raise SystemExit(f"ONNX and torch differ by {worst}")
    return facts
