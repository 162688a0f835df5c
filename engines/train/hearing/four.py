"""Weights in 4 bits: blocks of BLOCK inputs of an output, each with a scale of its own, codes 0..15 around 8.

Rounded one input after the other; what each is off by is made good by those that follow (Frantar et al., "GPTQ", 2022), weighed by the second moments of what the layer was
given. The last codes of a row are so no longer the nearest. The network that is trained on top hears the rounded layers, so it knows of what is left.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

BLOCK = 64
MIDDLE = 8


def scales_of(weight):
    """The scale of each row of weight [N, BLOCK] with the least squared rounding."""
    most = weight.abs().amax(1).clamp_min(1e-8)
    best, least = most / 7, torch.full_like(most, torch.inf)
    for part in np.linspace(0.6, 1.1, 26):
        scale = most * part / 7.5
        off = (scale[:, None] * (torch.round(weight / scale[:, None]).clamp(-MIDDLE, MIDDLE - 1)) - weight).square().sum(1)
        best, least = torch.where(off < least, scale, best), torch.minimum(off, least)
    return best.half().float().clamp_min(1e-7)


def rounded(weight, moments=None, damp=0.01):
    """weight [N, K], moments [K, K] (mean of x xT) or None -> codes u8 [N, K / BLOCK, BLOCK], scales f32 [N, K / BLOCK], which are numbers of f16."""
    weight = weight.detach().float().clone()
    depth = weight.shape[1]
    codes, scales = torch.zeros_like(weight), []
    factor = None
    if moments is not None:
        m = moments.double().clone()
        m.diagonal().add_(damp * m.diagonal().mean())
        factor = torch.linalg.cholesky(torch.linalg.inv(m), upper=True).float()
    for begin in range(0, depth, BLOCK):
        end = begin + BLOCK
        part = weight[:, begin:end]
        scale = scales_of(part)
        scales.append(scale)
        off = torch.zeros_like(part)
        for k in range(BLOCK):
            code = torch.round(part[:, k] / scale).clamp(-MIDDLE, MIDDLE - 1)
            codes[:, begin + k] = code
            if factor is not None:
                off[:, k] = (part[:, k] - code * scale) / factor[begin + k, begin + k]
                part[:, k + 1 :] -= off[:, k : k + 1] * factor[begin + k, begin + k + 1 : end]
        if factor is not None:
            weight[:, end:] -= off @ factor[begin:end, end:]
    return (codes + MIDDLE).to(torch.uint8).reshape(len(weight), -1, BLOCK).numpy(), torch.stack(scales, 1).numpy()


def full(codes, scales):
    """What `rounded` made of a weight, f32 [N, K]."""
    return ((codes.astype(np.float32) - MIDDLE) * scales[..., None]).reshape(len(codes), -1)


def packed(codes):
    """u8 [N, K / BLOCK, BLOCK / 2], the first of two in the lower half."""
    return codes[..., ::2] | codes[..., 1::2] << 4


def products(encoder):
    """(name, layer) of every product that is kept in 4 bits, in the order of the computation."""
    for k, block in enumerate(encoder.blocks):
        for name in ("attn.query", "attn.key", "attn.value", "attn.out", "mlp.0", "mlp.2"):
            yield f"blocks.{k}.{name}", block.get_submodule(name)


def load(path):
    """Codes and scales by name from a file of `main`."""
    import tensors

    return {k: v.astype(np.uint8) if k.endswith(".codes") else v for k, v in tensors.load(path).items()}


def put(encoder, found):
    """Gives the encoder the weights of codes and scales by name."""
    for name, layer in products(encoder):
        layer.weight.data = torch.from_numpy(full(found[f"{name}.codes"], found[f"{name}.scales"]))


@torch.no_grad()
def all_of(encoder, mels=None, half=True):
    """Codes and scales of every product by name; the encoder has the rounded weights afterwards. `mels`: batches [B, 2 T + 3, 80], by which each layer's inputs are known as the
    rounded layers before it give them."""
    found = {}
    if mels is None:
        for name, layer in products(encoder):
            found[f"{name}.codes"], found[f"{name}.scales"] = rounded(layer.weight)
        put(encoder, found)
        return found
    states = [encoder.stem(mel, torch.zeros(len(mel), dtype=torch.long)) for mel in mels]
    for k, block in enumerate(encoder.blocks):
        # Layers of one input are rounded together.
        for group in (("attn.query", "attn.key", "attn.value"), ("attn.out",), ("mlp.0",), ("mlp.2",)):
            moments, count = 0, 0
            kept = []
            hook = block.get_submodule(group[0]).register_forward_pre_hook(lambda _, x: kept.append(x[0].float().flatten(0, 1)))
            for x in states:
                with torch.autocast("cpu", torch.bfloat16, enabled=half):
                    block(x, None, None)
                rows = kept.pop()
                moments, count = moments + rows.T @ rows, count + len(rows)
            hook.remove()
            for part in group:
                layer, name = block.get_submodule(part), f"blocks.{k}.{part}"
                found[f"{name}.codes"], found[f"{name}.scales"] = rounded(layer.weight, moments / count)
                layer.weight.data = torch.from_numpy(full(found[f"{name}.codes"], found[f"{name}.scales"]))
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            states = [block(x, None, None)[0].float() for x in states]
    return found


def mels_of(clips, rng, count):
    """`count` windows of clips in random views, one behind the other."""
    from hearing import mel as front
    from hearing import windows
    from hearing.sounds import changed

    speech = [c for c in clips if c.group is None and c.kind in ("pool", "free", "gen", "grid_other", "rest", "still", "many")]
    sounds, need = [], count * windows.step_of() * 320
    while sum(map(len, sounds)) < need:
        kind = rng.choice(["pool", "pool", "free", "gen", "grid_other", "still", "rest", "many"])
        own = [c for c in speech if c.kind == kind]
        if own:
            sounds.append(changed(own[rng.integers(len(own))].pcm[: 10 * front.RATE], rng).sound)
    mel = front.log_mel(torch.from_numpy(np.concatenate(sounds)[:need])[None])[0]
    return list(windows.cut(mel, count * windows.step_of()).split(4))


def main(args):
    from hearing import encoder as whisper
    from hearing import sources
    from hearing.train import SHIPPED
    from tensors import save

    torch.set_num_threads(args.threads)
    encoder = whisper.load(args.weights, layers=args.layers)
    clips, _ = sources.load(args.cache, SHIPPED)
    found = all_of(encoder, mels_of(clips, np.random.default_rng(args.seed), args.windows))
    save(args.out, found)
    print(f"{len(found) // 2} layers, {sum(v.size for k, v in found.items() if k.endswith('.codes')) / 1e6:.1f} M weights")


def arguments(sub):
    one = sub.add_parser("four", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    one.add_argument("--cache", type=Path, required=True)
    one.add_argument("--weights", type=Path, required=True)
    one.add_argument("--layers", type=int, default=6)
    one.add_argument("--windows", type=int, default=24, help="windows of training clips by which the inputs of layers are known")
    one.add_argument("--seed", type=int, default=71)
    one.add_argument("--threads", type=int, default=1)
    one.add_argument("--out", type=Path, required=True)
    one.set_defaults(action=main)
