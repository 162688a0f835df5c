"""The network: an aligned crop [batch, 3, 96, 96], RGB 0..1, to the chance that each of its pixels is covered [batch, 1, 96, 96].

Inverted residuals down to a sixteenth, then up again with a shortcut from each size; the last step makes four pixels of one.
"""

import torch
from torch import nn

from common.layers import ConvBn, InvertedResidual, Separable


class Up(nn.Module):
    """Twice the size, joined with what was there on the way down."""

    def __init__(self, inputs, beside, outputs):
        super().__init__()
        self.narrow, self.beside, self.mix = ConvBn(inputs, outputs, linear=True), ConvBn(beside, outputs, linear=True), Separable(outputs, outputs)

    def forward(self, x, beside):
        x = nn.functional.interpolate(self.narrow(x), scale_factor=2.0, mode="nearest")
        return self.mix(torch.relu(x + self.beside(beside)))


class Occlusion(nn.Module):
    def __init__(self):
        super().__init__()
        self.down2 = nn.Sequential(ConvBn(3, 12, 3, 2), Separable(12, 16))
        self.down4 = nn.Sequential(InvertedResidual(16, 24, 32, 2), InvertedResidual(24, 24, 48))
        self.down8 = nn.Sequential(InvertedResidual(24, 48, 72, 2), InvertedResidual(48, 48, 96), InvertedResidual(48, 48, 96))
        self.down16 = nn.Sequential(InvertedResidual(48, 80, 144, 2), InvertedResidual(80, 80, 160), InvertedResidual(80, 80, 160))
        # The whole of the view is weighed here, where a pixel of it costs little.
        self.deep = nn.Sequential(InvertedResidual(80, 80, 240), InvertedResidual(80, 80, 240))
        self.whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(80, 80, 1))
        self.up_eighth, self.up_quarter, self.up_half = Up(80, 48, 40), Up(40, 24, 24), Up(24, 16, 16)
        # Thin things are told apart here.
        self.fine = InvertedResidual(16, 16, 48)
        self.out = nn.Conv2d(16, 4, 3, padding=1)
        nn.init.constant_(self.out.bias, -2.0)

    def logits(self, crop):
        half = self.down2(crop * 2 - 1)
        quarter = self.down4(half)
        eighth = self.down8(quarter)
        deep = self.deep(self.down16(eighth))
        deep = torch.relu(deep + self.whole(deep))
        x = self.up_half(self.up_quarter(self.up_eighth(deep, eighth), quarter), half)
        return nn.functional.pixel_shuffle(self.out(self.fine(x)), 2)

    def forward(self, crop):
        return torch.sigmoid(self.logits(crop))
