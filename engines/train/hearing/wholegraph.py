"""audio-whole.onnx: what files are heard with, as an ONNX graph: a window of sound at once, all blocks of the encoder in 4 bits, both ways in time.

`mel` [B, 2 T + 3, 80] -> `feature` [B, T, F]; token 0 has position 0. See graph.py for the rules and four.py for the bits.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper

from hearing.graph import MICROSOFT, OPSET, Graph, gates, numbers, stem
from hearing.mel import MELS


def places(g):
    """0 .. T - 1 as f32 [1, T], T from the mel's 2 T + 3 rows."""
    rows = g.node("Gather", [g.node("Shape", ["mel"], "rows.shape"), g.ints("rows.axis", 1)], "rows")
    tokens = g.node("Squeeze", [g.node("Div", [g.node("Sub", [rows, g.ints("rows.more", 3)], "rows.own"), g.ints("rows.each", 2)], "tokens.one")], "tokens")
    counted = g.node("Range", [g.array("tokens.first", np.array(0, np.int64)), tokens, g.array("tokens.step", np.array(1, np.int64))], "tokens.counted")
    row = g.node("Unsqueeze", [g.node("Cast", [counted], "tokens.f32", to=TensorProto.FLOAT), g.ints("row", 0)], "position")
    return row


def attention(g, x, attn, found, k, width):
    name, depth = f"attn.{k}", width // attn.heads
    scale = np.float32(depth**-0.5)
    parts = [weights(getattr(attn, part), found, f"blocks.{k}.attn.{part}") for part in ("query", "key", "value")]
    if isinstance(parts[0], tuple):
        whole = tuple(np.concatenate(a) for a in zip((parts[0][0], parts[0][1] * scale), *parts[1:]))
    else:
        whole = np.concatenate([parts[0] * scale, *parts[1:]], 1)
    bias = np.concatenate([numbers(attn.query.bias) * scale, np.zeros(width, np.float32), numbers(attn.value.bias)])
    y = g.linear(x, whole, bias, f"{name}.qkv")
    y = g.node("Reshape", [y, g.ints(f"{name}.heads", 0, 0, 3 * attn.heads, depth)], f"{name}.apart")
    y = g.node("Transpose", [y], f"{name}.across", perm=[0, 2, 1, 3])
    query, key, value = g.node("Split", [y], f"{name}.each", outputs=3, axis=1, num_outputs=3)
    scores = g.node("MatMul", [query, g.node("Transpose", [key], f"{name}.turned", perm=[0, 1, 3, 2])], f"{name}.scores")
    y = g.node("MatMul", [g.node("Softmax", [scores], f"{name}.share", axis=-1), value], f"{name}.seen")
    y = g.node("Reshape", [g.node("Transpose", [y], f"{name}.back", perm=[0, 2, 1, 3]), g.ints(f"{name}.width", 0, 0, width)], f"{name}.joined")
    return g.linear(y, weights(attn.out, found, f"blocks.{k}.attn.out"), numbers(attn.out.bias), f"{name}.out")


def weights(layer, found, name):
    """(codes, scales) where there are such, else [K, N]."""
    if found is not None:
        return found[f"{name}.codes"], found[f"{name}.scales"]
    return numbers(layer.weight).T


def head(g, states, net):
    """States [B, T, W] -> feature [B, T, F]."""
    shares = np.exp(numbers(net.weights)) / np.exp(numbers(net.weights)).sum()
    normed = [g.norm(x, norm, f"head.norm.{k}", share) for k, (x, norm, share) in enumerate(zip(states, net.norms, shares))]
    x = g.linear(g.node("Sum", normed, "head.mixed"), numbers(net.entry.weight).T, numbers(net.entry.bias), "head.entry", eight=False)
    x = g.node("Mul", [x, g.node("Sigmoid", [x], "head.sigmoid")], "head.silu")
    ways = ("l0", "l0_reverse")
    arrays = {what: np.stack([gates(numbers(getattr(net.gru, f"weight_{kind}_{way}"))) for way in ways]) for what, kind in (("w", "ih"), ("r", "hh"))}
    arrays["b"] = np.stack([np.concatenate([gates(numbers(getattr(net.gru, f"bias_{kind}_{way}"))) for kind in ("ih", "hh")]) for way in ways])
    inputs = [g.array(f"head.gru.{what}", arrays[what]) for what in "wrb"]
    y = g.node("GRU", [g.node("Transpose", [x], "head.turned", perm=[1, 0, 2]), *inputs], "head.gru", hidden_size=net.gru.hidden_size, direction="bidirectional",
               linear_before_reset=1)
    # [T, 2, B, S] -> [B, T, 2 S]
    y = g.node("Transpose", [y], "head.back", perm=[2, 0, 1, 3])
    y = g.node("Reshape", [y, g.ints("head.ways", 0, 0, 2 * net.gru.hidden_size)], "head.heard")
    y = g.node("Concat", [x, y], "head.both", axis=-1)
    g.linear(y, numbers(net.out.weight).T, numbers(net.out.bias), "feature", eight=False)


def made(encoder, net, found=None):
    """The model of an encoder and a head (net.Teacher); `found`: codes and scales of four.py, without which all is f32."""
    g, width = Graph(found is not None), encoder.width
    places(g)
    x = stem(g, encoder)
    states = [x]
    for k, block in enumerate(encoder.blocks):
        y = attention(g, g.norm(x, block.attn_ln, f"attn.{k}.norm"), block.attn, found, k, width)
        x = g.node("Add", [x, y], f"attn.{k}.sum")
        y = g.linear(g.norm(x, block.mlp_ln, f"mlp.{k}.norm"), weights(block.mlp[0], found, f"blocks.{k}.mlp.0"), numbers(block.mlp[0].bias), f"mlp.{k}.0")
        y = g.linear(g.node("Gelu", [y], f"mlp.{k}.gelu"), weights(block.mlp[2], found, f"blocks.{k}.mlp.2"), numbers(block.mlp[2].bias), f"mlp.{k}.2")
        x = g.node("Add", [x, y], f"state.{k + 1}")
        states.append(x)
    head(g, states, net)

    def port(name, *shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(g.nodes, "hearing", [port("mel", "batch", "frames", MELS)], [port("feature", "batch", "tokens", net.out.out_features)], g.arrays)
    imports = [helper.make_opsetid("", OPSET), *([helper.make_opsetid(MICROSOFT, 1)] if found is not None else [])]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    onnx.checker.check_model(model)
    return model
