"""The encoder, the head and the motions back from the files that export.py wrote.

The exporter keeps the names of biases, norms and convolutions. What it renames (matrix products, transposed, and the GRU, whose gates ONNX orders
z, r, h where torch has r, z, n) is found by the node that uses it.
"""

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from hearing.encoder import Encoder
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


def audio(path):
    """What torch calls the arrays of audio.onnx."""
    graph = onnx.load(str(path)).graph
    own = arrays(graph)
    out = {k: v for k, v in own.items() if k.startswith(("encoder.", "head.")) and not k.endswith(".f16")}
    for node in graph.node:
        used = [name for name in node.input if name in own and name.startswith("onnx::")]
        parts = node.name.strip("/").split("/")[:-1]
        if node.op_type == "MatMul" and used:
            # /encoder/blocks.0/attn/query/MatMul or, of what forward() does itself, /encoder/blocks.0/key/MatMul.
            kept = [part for k, part in enumerate(parts) if k == 0 or not part.startswith("mlp.")]
            kept += [part for part in parts if part.startswith("mlp.")]
            name = ".".join(kept).replace("mlp.mlp.", "mlp.")
            name = name.replace(".key", ".attn.key").replace(".value", ".attn.value")
            out[f"{name}.weight"] = own[used[0]].T
        elif node.op_type == "GRU":
            w, r, b = (own[name][0] for name in node.input[1:4])
            out["head.gru.weight_ih_l0"], out["head.gru.weight_hh_l0"] = gates(w), gates(r)
            out["head.gru.bias_ih_l0"], out["head.gru.bias_hh_l0"] = map(gates, np.split(b, 2))
        elif node.op_type == "Split" and used and parts == ["head"]:
            out["shares"] = own[used[0]]
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
        path = folder / ("motion.onnx" if look == 160 else f"motion-{look}.onnx")
        own, gain = motion(path if path.exists() else folder / "motion.onnx")
        if not path.exists():
            own = shorter(own, features, (160, look))
        taken: Regression = model.motions[str(look)]
        taken.load_state_dict(tensors(own))
        taken.gain = gain
    return encoder.eval(), model.eval()
