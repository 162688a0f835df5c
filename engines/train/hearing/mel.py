"""Whisper's log-mel as a stream computes it.

16 kHz mono f32 in -1..1. Frame i spans the samples [160 i - 200, 160 i + 200), zeros before the stream: periodic Hann of 400, power of 201 bins,
80 triangles (Slaney's mel scale, each of area 1 in Hz), y = log10(max(e, 1e-10)). Whisper raises y to the maximum of the whole recording less 8;
a stream has no whole, so

    M_i = max(TOP, max of y_i over its 80 bands, M_(i-1) - FALL),   M_(-1) = TOP
    mel_i = (max(y_i, M_i - 8) + 4) / 4

TOP is what speech reaches at about -30 dBFS: so silence is the same whatever was said before in a normal voice, and a quiet voice is not cut off.
FALL is 0.5 dB a second, so that one loud click does not last.
"""

import numpy as np
import torch

RATE = 16000
SHIFT = 160
LENGTH = 400
HALF = LENGTH // 2
MELS = 80
FLOOR = 1e-10
TOP = 0.0
FALL = 0.0005
RANGE = 8.0
# What a frame of digital silence is, as long as M rests at TOP.
SILENCE = (TOP - RANGE + 4) / 4


def hz_to_mel(hz):
    """Slaney's mel scale (Auditory Toolbox): linear to 1 kHz, logarithmic above."""
    hz = np.asarray(hz, np.float64)
    return np.where(hz < 1000, hz * 3 / 200, 15 + np.log(np.maximum(hz, 1e-9) / 1000) * 27 / np.log(6.4))


def mel_to_hz(mel):
    mel = np.asarray(mel, np.float64)
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))


def filters():
    """f64 [80, 201]."""
    corners = mel_to_hz(np.linspace(0, hz_to_mel(RATE / 2), MELS + 2))
    bins = np.linspace(0, RATE / 2, HALF + 1)
    low, mid, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    triangle = np.maximum(0, np.minimum((bins - low) / (mid - low), (high - bins) / (high - mid)))
    return triangle * 2 / (high - low)


WINDOW = torch.from_numpy(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(LENGTH) / LENGTH)).float()
FILTERS = torch.from_numpy(filters()).float()


def levels(samples):
    """Log levels y [B, M, 80] of f32 [B, N]: the frames complete with N samples, zeros before the first."""
    x = torch.nn.functional.pad(samples, (HALF, 0))
    spectrum = torch.fft.rfft(x.unfold(1, LENGTH, SHIFT) * WINDOW)
    return ((spectrum.real**2 + spectrum.imag**2) @ FILTERS.T).clamp_min(FLOOR).log10()


def tops(y, before=TOP):
    """M [B, M] of levels [B, M, 80]; `before` is M of the frame before the first."""
    steps = torch.arange(1, y.shape[1] + 1) * FALL
    # M_i + FALL i is a running maximum.
    peak = torch.cummax(y.amax(-1) + steps, 1).values.clamp_min(before)
    return (peak - steps).clamp_min(TOP)


def log_mel(samples, before=TOP):
    """What the encoder takes: [B, M, 80] of f32 [B, N]."""
    y = levels(samples)
    return (torch.maximum(y, (tops(y, before) - RANGE).unsqueeze(-1)) + 4) / 4
