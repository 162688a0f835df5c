"""audio.onnx: the hearing as an ONNX graph of few nodes, most of its weights in 8 bits.

Keys and values of the tokens before come as an input for each layer and are read where they lie; what the new tokens add goes out as one. The convolutions of the stem are
products of unfolded rows. Queries, keys and values are one product, and a query's scale is in its weights.

A product of 8 bits is ONNX Runtime's `com.microsoft.MatMulNBits`: weights in blocks of BLOCK rows, each with a scale of its own, around 128; the CPU provider rounds each row of
the other factor to 8 bits in the same blocks (`accuracy_level` 4), so that what a stream hears does not depend on who shares its batch.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hearing import four
from hearing.encoder import PAST
from hearing.mel import MELS

BLOCK = 64
OPSET, MICROSOFT = 20, "com.microsoft"
# Arrays with fewer numbers stay f32; the others are f16 with a Cast before their use, which the runtime undoes as it loads.
SMALL = 2048


def rounded(weight):
    """weight [K, N] -> u8 [N, K / BLOCK, BLOCK] around 128, scales f32 [N, K / BLOCK]."""
    blocks = weight.T.reshape(weight.shape[1], -1, BLOCK)
    scale = np.abs(blocks).max(2, keepdims=True) / 127
    scale[scale == 0] = 1
    return (np.rint(blocks / scale) + 128).astype(np.uint8), scale[..., 0].astype(np.float32)


def full(codes, scales):
    """What `rounded` made of a weight, [K, N]."""
    return ((codes.astype(np.float32) - 128) * scales.reshape(*codes.shape[:2], 1)).reshape(len(codes), -1).T


class Graph:
    """Nodes and arrays as they are added; each method gives the name of what it computes."""

    def __init__(self, eight):
        self.eight, self.nodes, self.arrays = eight, [], []

    def array(self, name, value):
        value = np.ascontiguousarray(value)
        if value.dtype == np.float32 and value.size >= SMALL and not name.endswith(".scales"):
            return self.half(name, value)
        self.arrays.append(numpy_helper.from_array(value, name))
        return name

    def half(self, name, value):
        self.arrays.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float16), f"{name}.f16"))
        self.nodes.append(helper.make_node("Cast", [f"{name}.f16"], [name], to=TensorProto.FLOAT, name=f"cast.{name}"))
        return name

    def node(self, op, inputs, name, domain=None, outputs=1, **attributes):
        names = [name] if outputs == 1 else [f"{name}.{k}" for k in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, name=name, domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def ints(self, name, *values):
        return self.array(name, np.array(values, np.int64))

    def part(self, x, name, axis, begin, end, step=1):
        one = [self.ints(f"{name}.{what}", value) for what, value in (("begin", begin), ("end", end), ("axis", axis), ("step", step))]
        return self.node("Slice", [x, *one], name)

    def linear(self, x, weight, bias, name, eight=True):
        """weight [K, N], or what four.rounded gives of one."""
        if isinstance(weight, tuple):
            codes, scales = weight
            depth, width = codes[0].size, len(codes)
            inputs = [self.array(f"{name}.codes", four.packed(codes)), self.half(f"{name}.scales", scales)]
            y = self.node("MatMulNBits", [x, *inputs], f"{name}.product", MICROSOFT, K=depth, N=width, bits=4, block_size=four.BLOCK, accuracy_level=4)
            return self.node("Add", [y, self.array(f"{name}.bias", bias)], name)
        depth, width = weight.shape
        if self.eight and eight:
            codes, scales = (self.array(f"{name}.{what}", a) for what, a in zip(("codes", "scales"), rounded(weight)))
            y = self.node("MatMulNBits", [x, codes, scales], f"{name}.product", MICROSOFT, K=depth, N=width, bits=8, block_size=BLOCK, accuracy_level=4)
        else:
            y = self.node("MatMul", [x, self.array(f"{name}.weight", weight)], f"{name}.product")
        return self.node("Add", [y, self.array(f"{name}.bias", bias)], name)

    def norm(self, x, layer, name, share=1.0):
        weight, bias = numbers(layer.weight) * share, numbers(layer.bias) * share
        return self.node("LayerNormalization", [x, self.array(f"{name}.weight", weight), self.array(f"{name}.bias", bias)], name, axis=-1, epsilon=layer.eps)


def numbers(tensor):
    return tensor.detach().numpy().astype(np.float32)


def gates(rows):
    """Rows of torch's r, z, n as ONNX's z, r, h."""
    r, z, n = np.split(rows, 3)
    return np.concatenate([z, r, n])


def stem(g, encoder):
    """mel [B, 2 T + 3, 80], position [B, T] -> [B, T, W]."""
    def unfolded(conv):
        """[out, in, 3] -> [3 in, out]."""
        return numbers(conv.weight).transpose(2, 1, 0).reshape(-1, encoder.width)

    end = np.iinfo(np.int64).max
    rows = [g.part("mel", f"stem.rows.{k}", 1, k, k - 2 or end) for k in range(3)]
    x = g.linear(g.node("Concat", rows, "stem.rows", axis=-1), unfolded(encoder.conv1), numbers(encoder.conv1.bias), "conv1", eight=False)
    x = g.node("Gelu", [x], "conv1.gelu")
    pairs = [g.part(x, f"stem.pairs.{k}", 1, k, k - 2 or end, 2) for k in range(3)]
    x = g.linear(g.node("Concat", pairs, "stem.pairs", axis=-1), unfolded(encoder.conv2), numbers(encoder.conv2.bias), "conv2")
    x = g.node("Gelu", [x], "conv2.gelu")
    place = g.node("Unsqueeze", ["position", g.ints("last", -1)], "place")
    angle = g.node("Mul", [place, g.array("scale", numbers(encoder.scale))], "angle")
    waves = [g.node(op, [angle], op.lower()) for op in ("Sin", "Cos")]
    return g.node("Add", [x, g.node("Concat", waves, "places", axis=-1)], "state.0")


def attention(g, x, attn, k, width):
    """x [B, T, W] -> [B, T, W] and the new keys and values, [B, heads, T, W / heads]."""
    name, depth = f"attn.{k}", width // attn.heads
    scale = depth**-0.5
    weight = np.concatenate([numbers(attn.query.weight) * scale, numbers(attn.key.weight), numbers(attn.value.weight)]).T
    bias = np.concatenate([numbers(attn.query.bias) * scale, np.zeros(width, np.float32), numbers(attn.value.bias)])
    whole = g.linear(x, weight, bias, f"{name}.qkv")
    # [B, T, 3 heads, depth] -> [B, 3 heads, T, depth]
    whole = g.node("Reshape", [whole, g.ints(f"{name}.heads", 0, 0, 3 * attn.heads, depth)], f"{name}.apart")
    whole = g.node("Transpose", [whole], f"{name}.across", perm=[0, 2, 1, 3])
    query, key, value = g.node("Split", [whole], f"{name}.each", outputs=3, axis=1, num_outputs=3)
    scores = []
    for what, keys in (("past", f"key.{k}"), ("new", key)):
        turned = g.node("Transpose", [keys], f"{name}.{what}.turned", perm=[0, 1, 3, 2])
        scores.append(g.node("MatMul", [query, turned], f"{name}.{what}.scores"))
    scores = g.node("Add", [g.node("Concat", scores, f"{name}.scores", axis=-1), "closed"], f"{name}.open")
    share = g.node("Softmax", [scores], f"{name}.share", axis=-1)
    past, new = g.part(share, f"{name}.share.past", 3, 0, PAST), g.part(share, f"{name}.share.new", 3, PAST, np.iinfo(np.int64).max)
    y = g.node("Add", [g.node("MatMul", [past, f"value.{k}"], f"{name}.past"), g.node("MatMul", [new, value], f"{name}.new")], f"{name}.seen")
    y = g.node("Reshape", [g.node("Transpose", [y], f"{name}.back", perm=[0, 2, 1, 3]), g.ints(f"{name}.width", 0, 0, width)], f"{name}.joined")
    return g.linear(y, numbers(attn.out.weight).T, numbers(attn.out.bias), f"{name}.out"), [key, value]


def block(g, x, net, k, width):
    y, fresh = attention(g, g.norm(x, net.attn_ln, f"attn.{k}.norm"), net.attn, k, width)
    x = g.node("Add", [x, y], f"attn.{k}.sum")
    y = g.norm(x, net.mlp_ln, f"mlp.{k}.norm")
    y = g.node("Gelu", [g.linear(y, numbers(net.mlp[0].weight).T, numbers(net.mlp[0].bias), f"mlp.{k}.0")], f"mlp.{k}.gelu")
    y = g.linear(y, numbers(net.mlp[2].weight).T, numbers(net.mlp[2].bias), f"mlp.{k}.2")
    return g.node("Add", [x, y], f"state.{k + 1}"), fresh


def head(g, states, net):
    """States [B, T, W] and `state` -> feature [B, T, F], next_state [B, S]."""
    shares = np.exp(numbers(net.weights)) / np.exp(numbers(net.weights)).sum()
    normed = [g.norm(x, norm, f"head.norm.{k}", share) for k, (x, norm, share) in enumerate(zip(states, net.norms, shares))]
    x = g.linear(g.node("Sum", normed, "head.mixed"), numbers(net.entry.weight).T, numbers(net.entry.bias), "head.entry", eight=False)
    x = g.node("Mul", [x, g.node("Sigmoid", [x], "head.sigmoid")], "head.silu")
    gru = net.gru
    weights = [gates(numbers(a))[None] for a in (gru.weight_ih_l0, gru.weight_hh_l0)]
    weights.append(np.concatenate([gates(numbers(a)) for a in (gru.bias_ih_l0, gru.bias_hh_l0)])[None])
    inputs = [g.array(f"head.gru.{what}", a) for what, a in zip("wrb", weights)]
    first = g.ints("first", 0)
    before = g.node("Unsqueeze", ["state", first], "head.before")
    y, last = g.node("GRU", [g.node("Transpose", [x], "head.turned", perm=[1, 0, 2]), *inputs, "", before], "head.gru", outputs=2,
                     hidden_size=net.state_size, linear_before_reset=1)
    # [T, 1, B, S] -> [B, T, S]
    y = g.node("Transpose", [g.node("Squeeze", [y, g.ints("second", 1)], "head.heard")], "head.back", perm=[1, 0, 2])
    g.node("Squeeze", [last, first], "next_state")
    y = g.node("Concat", [x, y], "head.both", axis=-1)
    g.linear(y, numbers(net.out.weight).T, numbers(net.out.bias), "feature", eight=False)


def made(encoder, net, eight=True):
    """The model of an encoder and a head; `eight` needs a width of BLOCK or more."""
    g, width, layers = Graph(eight), encoder.width, encoder.layers
    heads = encoder.blocks[0].attn.heads
    x = stem(g, encoder)
    # [B, T, K] -> [B, 1, T, K]
    g.node("Unsqueeze", ["mask", g.ints("mask.axis", 1)], "closed")
    states, fresh = [x], []
    for k in range(layers):
        x, own = block(g, x, encoder.blocks[k], k, width)
        states.append(x)
        fresh += own
    g.node("Concat", fresh, "fresh", axis=1)
    head(g, states, net)

    def port(name, *shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    kept = [port(f"{what}.{k}", "batch", heads, PAST, width // heads) for k in range(layers) for what in ("key", "value")]
    inputs = [port("mel", "batch", "frames", MELS), *kept, port("mask", "batch", "tokens", "places"), port("position", "batch", "tokens"),
              port("state", "batch", net.state_size)]
    outputs = [port("feature", "batch", "tokens", net.features), port("fresh", "batch", 2 * layers * heads, "tokens", width // heads),
               port("next_state", "batch", net.state_size)]
    graph = helper.make_graph(g.nodes, "hearing", inputs, outputs, g.arrays)
    imports = [helper.make_opsetid("", OPSET), *([helper.make_opsetid(MICROSOFT, 1)] if eight else [])]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    onnx.checker.check_model(model)
    return model
