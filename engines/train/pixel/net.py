"""SyncTalk_2D's U-Net of 160 pixels (lqql8790229/SyncTalk_2D, unet.py) in a width of one's choice, under the published names.

`face` f32 [B, 6, 160, 160] (BGR 0..1: a picture of the person, then the frame with its mouth hidden) and `audio` f32
[B, 16, 16, 16] (32 features of `compact`'s front-end of 128 numbers, 20 ms apart, from 540 ms before the frame on) to a picture
f32 [B, 3, 160, 160]. A state dict of it is what `lipstream import --features compact` takes.
"""
import torch
from torch import nn

HOPS, HOPS_BEFORE, DIMS = 32, 27, 128
SIDE = 160
# The black rectangle: first and last column, first and last row, inclusive.
HIDDEN = (5, 154, 5, 149)


class Residual(nn.Module):
    """Wider, each channel alone, narrower (MobileNetV2, CVPR 2018)."""

    def __init__(self, inputs, outputs, stride=1, adds=False):
        super().__init__()
        self.adds = adds
        wide = inputs * 2
        self.conv = nn.Sequential(
            nn.Conv2d(inputs, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU(True),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU(True),
            nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
        )

    def forward(self, x):
        return x + self.conv(x) if self.adds else self.conv(x)


class Double(nn.Module):
    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.double_conv = nn.Sequential(Residual(inputs, outputs, stride), Residual(outputs, outputs, adds=True))

    def forward(self, x):
        return self.double_conv(x)


class Down(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.maxpool_conv = nn.Sequential(Double(inputs, outputs, 2))

    def forward(self, x):
        return self.maxpool_conv(x)


class Up(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv = Double(inputs, outputs)

    def forward(self, x, skip):
        x = nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        return self.conv(torch.cat([x, skip], 1))


class First(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.inconv = nn.Sequential(Residual(6, outputs))

    def forward(self, x):
        return self.inconv(x)


class Last(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.conv = nn.Conv2d(inputs, 3, 1)

    def forward(self, x):
        return self.conv(x)


class AudioHead(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1, self.conv2 = Residual(16, width[1]), Residual(width[1], width[2])
        self.conv3, self.bn3 = nn.Conv2d(width[2], width[3], 3, padding=1), nn.BatchNorm2d(width[3])
        self.conv4 = Residual(width[3], width[3], adds=True)
        self.conv5, self.bn5 = nn.Conv2d(width[3], width[4], 3, 2, 3), nn.BatchNorm2d(width[4])
        self.conv6, self.conv7 = Residual(width[4], width[4], adds=True), Residual(width[4], width[4], adds=True)

    def forward(self, x):
        x = self.conv2(self.conv1(x))
        x = torch.relu(self.bn3(self.conv3(x)))
        x = torch.relu(self.bn5(self.conv5(self.conv4(x))))
        return self.conv7(self.conv6(x))


class Unet(nn.Module):
    """`base` channels at the full size, twice as many a level; the published width is 32."""

    def __init__(self, base=12):
        super().__init__()
        w = [base * 2**k for k in range(5)]
        self.audio_model = AudioHead(w)
        self.fuse_conv = nn.Sequential(Double(w[4] * 2, w[4]), Double(w[4], w[3]))
        self.inc = First(w[0])
        self.down1, self.down2, self.down3, self.down4 = (Down(w[k], w[k + 1]) for k in range(4))
        self.up1, self.up2 = Up(w[4], w[3] // 2), Up(w[3], w[2] // 2)
        self.up3, self.up4 = Up(w[2], w[1] // 2), Up(w[1], w[0])
        self.outc = Last(w[0])

    def forward(self, face, audio):
        skips = [self.inc(face)]
        for down in (self.down1, self.down2, self.down3, self.down4):
            skips.append(down(skips[-1]))
        x = self.fuse_conv(torch.cat([skips.pop(), self.audio_model(audio)], 1))
        for up in (self.up1, self.up2, self.up3, self.up4):
            x = up(x, skips.pop())
        return torch.sigmoid(self.outc(x))


def hidden(pictures):
    """The pictures [B, 3, 160, 160] with the mouth's rectangle black."""
    left, right, top, bottom = HIDDEN
    out = pictures.clone()
    out[:, :, top:bottom + 1, left:right + 1] = 0
    return out
