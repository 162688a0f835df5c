"""Writes what PyTorch makes of a narrow network with seeded weights, for the importer's tests.

    python -m pixel.golden FILE.safetensors

The state dict of `Unet(2)` and `golden.out` f32 [3, 20, 20]: every eighth row and column of its picture for
face[c, y, x] = 0.5 + 0.5 sin(0.1 (x + 1) (c + 1) + 0.05 y) and audio[c, y, x] = cos(0.3 c + 0.2 y - 0.1 x), in double precision.
"""
import sys

import torch
from safetensors.torch import save_file

from pixel.net import SIDE, Unet


def inputs():
    c, y, x = (torch.arange(n, dtype=torch.float64) for n in (6, SIDE, SIDE))
    face = 0.5 + 0.5 * torch.sin(0.1 * (x + 1) * (c[:, None, None] + 1) + 0.05 * y[:, None])
    k = torch.arange(16, dtype=torch.float64)
    return face[None], torch.cos(0.3 * k[:, None, None] + 0.2 * k[:, None] - 0.1 * k)[None]


def main():
    torch.manual_seed(160)
    network = Unet(2).eval()
    for name, value in network.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    state = {name: value for name, value in network.state_dict().items() if value.is_floating_point()}
    with torch.no_grad():
        out = network.double()(*inputs())[0, :, ::8, ::8].float()
    save_file({**{name: value.float().contiguous() for name, value in state.items()}, "golden.out": out.contiguous()}, sys.argv[1])


if __name__ == "__main__":
    main()
