"""The refinement network, its judge and its losses. Pictures are [B, 3, 128, 128], 0..1; maps and gaps as in `refine_data`."""

import torch
from torch import nn
from torch.nn import functional as F

WINDOW = 128
# Pixels over which the correction fades in from the window's border.
FADE = 14


def fade():
    """1 inside, falling to 0 at the border, [1, 1, 128, 128]."""
    near = torch.minimum(torch.arange(WINDOW), torch.arange(WINDOW).flip(0)).float()
    edge = (near / FADE).clamp(0, 1)
    ramp = edge * edge * (3 - 2 * edge)
    return torch.minimum(ramp[:, None], ramp[None])[None, None]


def conv(inputs, outputs, kernel=3, stride=1):
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first, self.second = conv(width, width), conv(width, width)

    def forward(self, x):
        return x + self.second(F.relu(self.first(F.relu(x))))


class Refiner(nn.Module):
    """`delta` [B, 3, 128, 128], to be added to the nearest reference as warped: a share of the partner's difference to it, and a
    correction of its own. Works on 64 x 64 blocks of 2 x 2 pixels; 0.28 GFLOP."""

    def __init__(self, widths=(24, 48, 64)):
        super().__init__()
        a, b, c = widths
        self.enter, self.gaps = conv(4 * 8, a), nn.Linear(2, a)
        self.down1, self.level1 = conv(a, b, 3, 2), conv(b, b)
        self.down2, self.level2 = conv(b, c, 3, 2), nn.Sequential(Residual(c), nn.ReLU(), conv(c, c))
        self.up1, self.join1 = conv(c, b, 1), conv(b, b)
        self.up0, self.join0 = conv(b, a, 1), conv(a, a)
        self.leave = conv(a, 16, 1)
        self.register_buffer("fade", fade())
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)
        # The first channel of four decides how much the partner shows: little at first.
        self.leave.bias.data[:4] = -2.5

    def forward(self, nearest, second, shapes, gaps):
        x = F.pixel_unshuffle(torch.cat([nearest - 0.5, second - 0.5, shapes], 1), 2)
        x0 = F.relu(self.enter(x) + self.gaps(gaps)[:, :, None, None])
        x1 = F.relu(self.level1(F.relu(self.down1(x0))))
        x2 = self.level2(self.down2(x1))
        y1 = F.relu(self.join1(F.relu(x1 + F.interpolate(self.up1(F.relu(x2)), scale_factor=2.0, mode="nearest"))))
        y0 = F.relu(self.join0(F.relu(x0 + F.interpolate(self.up0(y1), scale_factor=2.0, mode="nearest"))))
        out = F.pixel_shuffle(self.leave(y0), 2)
        return self.fade * (torch.sigmoid(out[:, :1]) * (second - nearest) + out[:, 1:])


class Judge(nn.Module):
    """Says of patches of 22 pixels whether they are a photograph, given where the mouth is."""

    def __init__(self, width=24):
        super().__init__()
        norm = nn.utils.parametrizations.spectral_norm
        self.layers = nn.Sequential(
            norm(conv(5, width, 4, 2)), nn.LeakyReLU(0.2), norm(conv(width, 2 * width, 4, 2)), nn.LeakyReLU(0.2),
            norm(conv(2 * width, 2 * width, 3)), nn.LeakyReLU(0.2), norm(conv(2 * width, 1, 1)),
        )

    def forward(self, picture, shapes):
        return self.layers(torch.cat([picture - 0.5, shapes], 1))


LUMA = (0.299, 0.587, 0.114)


def luma(x):
    return LUMA[0] * x[:, :1] + LUMA[1] * x[:, 1:2] + LUMA[2] * x[:, 2:3]


def laplacian(x):
    return x[..., 1:-1, :-2] + x[..., 1:-1, 2:] + x[..., :-2, 1:-1] + x[..., 2:, 1:-1] - 4 * x[..., 1:-1, 1:-1]


def unlike(x, y):
    """1 - SSIM of grey pictures over boxes of 7 pixels, as a map."""
    mean = lambda v: F.avg_pool2d(v, 7, 1)
    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    return 1 - (2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx * mx + my * my + 1e-4) * (vx + vy + 9e-4))


def losses(output, truth, weight):
    """Parts of the loss: pixels, gradients, structure at two scales, and the amount of fine detail. `weight` [B, 1, 128, 128] has mean 1 or so."""
    error = (weight * (output - truth).abs()).mean()
    slope = (weight[..., 1:] * (output.diff(dim=-1) - truth.diff(dim=-1)).abs()).mean() + (weight[..., 1:, :] * (output.diff(dim=-2) - truth.diff(dim=-2)).abs()).mean()
    a, b = luma(output), luma(truth)
    half = lambda v: F.avg_pool2d(v, 2)
    inner = weight[..., 3:-3, 3:-3]
    structure = (inner * unlike(a, b)).mean() + (half(weight)[..., 3:-3, 3:-3] * unlike(half(a), half(b))).mean()
    # Detail that cannot be foretold need not sit where the truth has it, but there should be as much of it.
    amount = lambda v: F.avg_pool2d(laplacian(v).abs(), 9, 3)
    detail = (amount(a) - amount(b)).abs().mean()
    return {"pixels": error, "slope": slope, "structure": structure, "detail": detail}


SCALES = {"pixels": 1.0, "slope": 0.5, "structure": 0.08, "detail": 4.0}
