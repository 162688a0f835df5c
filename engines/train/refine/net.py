"""The refinement network, its judge and its losses. Pictures are [B, 3, 128, 128], 0..1; maps and openings as in `refine.data`."""

import torch
from torch import nn
from torch.nn import functional as F

WINDOW = 128
# Share of the gates that is left where the references lack nothing: their teeth are better than painted ones.
RESTRAINT = 0.4
# Paint stays below this many times the picture's own brightness, and is bent from this part of that on: what is cut off is a white patch where teeth have gaps.
BRIGHTEST, KNEE = 1.2, 0.6
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


def support(shapes):
    """Where the picture may change: the mouth and some 12 px around it, soft, away from the window's border, [B, 1, 128, 128]."""
    mouth = F.avg_pool2d(shapes.sum(1, keepdim=True), 2)
    wide = (2.5 * F.avg_pool2d(F.avg_pool2d(mouth, (13, 1), 1, (6, 0)), (1, 13), 1, (0, 6))).clamp(0, 1)
    return F.interpolate(wide, scale_factor=2.0, mode="bilinear", align_corners=False)


def lack(openings):
    """How much of what a wanted mouth shows the nearest reference, and the better of the two, cannot: 1 where it is all but shut,
    0 from two fifths of the wanted opening on, 0 where hardly any opening is wanted; two of [B, 1]."""
    wanted, nearest = openings[:, :1], openings[:, 1:2]
    ratio = lambda v: (1.6 - 4 * v / wanted.clamp(min=0.1)).clamp(0, 1) * (4 * wanted - 0.6).clamp(0, 1)
    return ratio(nearest), ratio(torch.maximum(nearest, openings[:, 2:]))


def prior(shapes, openings):
    """What the gates begin with, [B, 2, 128, 128] to add to their logits: within the mouth the partner is wanted where the nearest
    reference is shut, and paint where both are."""
    first, best = lack(openings)
    return shapes[:, :1] * torch.cat([4 * (first - best), 4 * best], 1)[:, :, None, None]


def bent(grey, bound):
    """Brightness as it is up to a part of `bound`, above it nearer and nearer to `bound`, in the same order."""
    knee = KNEE * bound
    return torch.minimum(grey, knee) + (bound - knee) * (1 - torch.exp(-(grey - knee).clamp(min=0) / (bound - knee)))


class Refiner(nn.Module):
    """`delta` [B, 3, 128, 128], to be added to the nearest reference as warped: two gates say how much of the partner shows in its
    place, and how much of colours that the network paints. With both gates shut the warp stays as it is. Works on 64 x 64 blocks
    of 2 x 2 pixels; 0.28 GFLOP."""

    def __init__(self, widths=(24, 48, 64)):
        super().__init__()
        a, b, c = widths
        self.enter, self.openings = conv(4 * 8, a), nn.Linear(3, a)
        self.down1, self.level1 = conv(a, b, 3, 2), conv(b, b)
        self.down2, self.level2 = conv(b, c, 3, 2), nn.Sequential(Residual(c), nn.ReLU(), conv(c, c))
        self.up1, self.join1 = conv(c, b, 1), conv(b, b)
        self.up0, self.join0 = conv(b, a, 1), conv(a, a)
        self.leave = conv(a, 20, 1)
        self.register_buffer("fade", fade())
        nn.init.normal_(self.leave.weight, 0, 0.02)
        nn.init.zeros_(self.leave.bias)
        self.leave.bias.data[:8] = -2.0

    def forward(self, nearest, second, shapes, openings):
        return self.parts(nearest, second, shapes, openings)[0]

    def parts(self, nearest, second, shapes, openings):
        """(`delta`, the two gates [B, 2, 128, 128] within the support)."""
        x = F.pixel_unshuffle(torch.cat([nearest - 0.5, second - 0.5, shapes], 1), 2)
        x0 = F.relu(self.enter(x) + self.openings(openings)[:, :, None, None])
        x1 = F.relu(self.level1(F.relu(self.down1(x0))))
        x2 = self.level2(self.down2(x1))
        y1 = F.relu(self.join1(F.relu(x1 + F.interpolate(self.up1(F.relu(x2)), scale_factor=2.0, mode="nearest"))))
        y0 = F.relu(self.join0(F.relu(x0 + F.interpolate(self.up0(y1), scale_factor=2.0, mode="nearest"))))
        out = F.pixel_shuffle(self.leave(y0), 2)
        limit = RESTRAINT + (1 - RESTRAINT) * lack(openings)[0][..., None, None]
        gates = limit * self.fade * support(shapes) * torch.sigmoid(out[:, :2] + prior(shapes, openings))
        beside = nearest + gates[:, :1] * (second - nearest)
        paint = out[:, 2:] + 0.35
        # No colour that the picture has not: of a grey one the paint is grey. What is bright is teeth: they take a little of
        # the face's own hue, as what lights both does, and are not much brighter than it.
        mean = lambda v: v.mean([2, 3], keepdim=True)
        grey, light = luma(paint), luma(nearest)
        colour = (mean((nearest - light).abs()).mean(1, keepdim=True) / 0.06).clamp(max=1)
        own = (1.35 - 2.2 * grey).clamp(0.2, 1)
        tint = own * colour * (paint - grey) + 0.5 * (1 - own) * mean(nearest - light)
        paint = bent(grey, (BRIGHTEST * mean(light)).clamp(min=0.4)) + tint
        return beside + gates[:, 1:] * (paint - beside) - nearest, gates


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
    """Parts of the loss: pixels, gradients, structure at two scales, and the amount of fine detail. `weight` [B, 1, 128, 128]: what a pixel counts."""
    mean = lambda w, v: (w * v).sum() / (w.sum() * v.shape[1] + 1e-3)
    error = mean(weight, (output - truth).abs())
    slope = mean(weight[..., 1:], (output.diff(dim=-1) - truth.diff(dim=-1)).abs()) + mean(weight[..., 1:, :], (output.diff(dim=-2) - truth.diff(dim=-2)).abs())
    a, b = luma(output), luma(truth)
    half = lambda v: F.avg_pool2d(v, 2)
    structure = mean(weight[..., 3:-3, 3:-3], unlike(a, b)) + mean(half(weight)[..., 3:-3, 3:-3], unlike(half(a), half(b)))
    # Detail that cannot be foretold need not sit where the truth has it, but there should be as much of it.
    amount = lambda v: F.avg_pool2d(laplacian(v).abs(), 7, 3)
    detail = mean(F.avg_pool2d(weight[..., 1:-1, 1:-1], 7, 3), (amount(a) - amount(b)).abs())
    return {"pixels": error, "slope": slope, "structure": structure, "detail": detail}


# `kept`: the mean of the gates where the references lack nothing, so that the warp stays where nothing is gained.
SCALES = {"pixels": 1.0, "slope": 0.5, "structure": 0.06, "detail": 1.5, "kept": 0.06}
