"""The encoder, the head and the motions back from the files that export.py wrote.

audio.onnx has the names of graph.py; weights of 8 bits come back as they are rounded. ONNX orders a GRU's gates z, r, h where torch has r, z, n.
"""

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from hearing import graph
from hearing.encoder import HEADS, Encoder
from hearing.net import TAPS, Hearing, Regression
from motion.data import D


def arrays(graph):
    """Initialisers in f32 by the names that nodes use."""
    own = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    own |= {n.output[0]: own[n.input[0]].astype(np.float32) for n in graph.node if n.op_type == "Cast" and n.input[0] in own}
    return own


def gates(rows):
    """Rows of z, r, h as r, z, n."""
    z, r, h = np.split(rows, 3)
    return np.concatenate([r, z, h])


def audio(path, heads=HEADS):
    """What torch calls the arrays of audio.onnx. A head's shares of the states are in its norms: each is left a quarter, of four."""
    own = arrays(onnx.load(str(path)).graph)
    out = {}

    def weight(name):
        """[N, K]"""
        found = graph.full(own[f"{name}.codes"], own[f"{name}.scales"]) if f"{name}.codes" in own else own[f"{name}.weight"]
        return found.T

    def put(torchs, name):
        out[f"{torchs}.weight"], out[f"{torchs}.bias"] = weight(name), own[f"{name}.bias"]

    for name in ("conv1", "conv2"):
        put(f"encoder.{name}", name)
        rows = out[f"encoder.{name}.weight"]
        out[f"encoder.{name}.weight"] = rows.reshape(len(rows), 3, -1).transpose(0, 2, 1)
    layers = sum(name.endswith("qkv.bias") for name in own)
    for k in range(layers):
        block, attn = f"encoder.blocks.{k}", f"encoder.blocks.{k}.attn"
        for torchs, name in ((f"{block}.attn_ln", f"attn.{k}.norm"), (f"{block}.mlp_ln", f"mlp.{k}.norm"), (f"{attn}.out", f"attn.{k}.out"),
                             (f"{block}.mlp.0", f"mlp.{k}.0"), (f"{block}.mlp.2", f"mlp.{k}.2")):
            put(torchs, name)
        # A norm's weight has one dimension, which a transposition leaves.
        scale = (len(own[f"attn.{k}.out.bias"]) // heads) ** 0.5
        parts = zip(("query", "key", "value"), np.split(weight(f"attn.{k}.qkv"), 3), np.split(own[f"attn.{k}.qkv.bias"], 3))
        for part, w, b in parts:
            by = scale if part == "query" else 1.0
            out[f"{attn}.{part}.weight"] = w * by
            if part != "key":
                out[f"{attn}.{part}.bias"] = b * by
    states = layers + 1
    for k in range(states):
        put(f"head.norms.{k}", f"head.norm.{k}")
        for what in ("weight", "bias"):
            out[f"head.norms.{k}.{what}"] = out[f"head.norms.{k}.{what}"] * states
    out["shares"] = np.full(states, 1 / states, np.float32)
    put("head.entry", "head.entry")
    put("head.out", "feature")
    w, r, b = (own[f"head.gru.{what}"][0] for what in "wrb")
    out["head.gru.weight_ih_l0"], out["head.gru.weight_hh_l0"] = gates(w), gates(r)
    out["head.gru.bias_ih_l0"], out["head.gru.bias_hh_l0"] = map(gates, np.split(b, 2))
    return out


def motion(path):
    """(arrays of a motion by torch's names, its gain)."""
    graph = onnx.load(str(path)).graph
    own = {k: v for k, v in arrays(graph).items() if not k.endswith(".f16")}
    values = {n.output[0]: numpy_helper.to_array(n.attribute[0].t) for n in graph.node if n.op_type == "Constant"}
    gains = [float(values[name]) for n in graph.node if n.op_type == "Mul" for name in n.input if name in values]
    return own, gains[0] if gains else 1.0


def tensors(found):
    return {k: torch.from_numpy(np.array(v, np.float32)) for k, v in found.items()}


def shorter(found, features, looks):
    """A motion's arrays for fewer taps: what looked at the taps that are gone looks at the last that is there."""
    long, short = looks
    weight = found["cond.weight"].reshape(len(found["cond.weight"]), len(TAPS[long]), features)
    kept = weight[:, : len(TAPS[short])].copy()
    kept[:, -1] += weight[:, len(TAPS[short]) :].sum(1)
    return found | {"cond.weight": kept.reshape(len(kept), -1)}


def load(folder, opening, looks=(160, 120, 80), dropout=0.0):
    """(encoder, Hearing) of an engine's folder, both in f32 and for evaluation. A look-ahead without a file begins as the 160's with fewer taps."""
    parts = audio(folder / "audio.onnx")
    shares = parts.pop("shares")
    found = tensors(parts)
    encoder = Encoder()
    encoder.load_state_dict({k[8:]: v for k, v in found.items() if k.startswith("encoder.")})
    head = {k[5:]: v for k, v in found.items() if k.startswith("head.")}
    features = len(head["out.bias"])
    model = Hearing(D, opening, looks=looks, features=features, dropout=dropout)
    # The exporter folds the softmax: its logarithm is one of the weights that give it.
    model.head.load_state_dict(head | {"weights": torch.from_numpy(np.log(shares))})
    for look in looks:
        path = folder / f"motion-{look}.onnx"
        own, gain = motion(path if path.exists() else folder / "motion-160.onnx")
        if not path.exists():
            own = shorter(own, features, (160, look))
        taken: Regression = model.motions[str(look)]
        taken.load_state_dict(tensors(own))
        taken.gain = gain
    return encoder.eval(), model.eval()
