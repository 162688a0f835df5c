"""The head on the encoder's states, and the motion that is read from its features.

A frame at time t takes the features at t + its taps, linear interpolation between tokens. `Regression` is written in the form of a denoiser on the straight path
(see motion/net.py): whatever noise it starts from and in however many steps, what comes out is its estimate.
"""

import torch
from torch import nn

from hearing.encoder import LAYERS, TOKEN_END_MS, TOKEN_MS, WIDTH
from motion.net import PATH_LEFT

# Look-ahead in ms -> the taps of a frame. The last tap's token is complete 32.5 ms after it.
# WHOLE is that of a window (windows.py), in which every token is there.
WHOLE = 1000
TAPS = {WHOLE: tuple(range(-80, 121, 20)), 160: tuple(range(-80, 121, 20)), 120: tuple(range(-80, 81, 20)), 80: tuple(range(-80, 41, 20))}


class Head(nn.Module):
    """States of the stem and of each block [B, T, W] and its own state [B, S] -> features [B, T, F], the next state."""

    def __init__(self, width=WIDTH, states=LAYERS + 1, inner=64, hidden=128, features=96, dropout=0.0):
        super().__init__()
        self.state_size, self.features = hidden, features
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(states))
        self.weights = nn.Parameter(torch.zeros(states))
        self.drop = nn.Dropout(dropout)
        self.entry = nn.Linear(width, inner)
        self.gru = nn.GRU(inner, hidden, batch_first=True)
        self.out = nn.Linear(inner + hidden, features)

    def forward(self, states, state):
        share = torch.softmax(self.weights, 0)
        mixed = sum(w * norm(x) for w, norm, x in zip(share, self.norms, states))
        x = torch.nn.functional.silu(self.entry(self.drop(mixed)))
        y, last = self.gru(x, state.unsqueeze(0).contiguous())
        return self.out(self.drop(torch.cat([x, y], -1))), last[0]

    def zeros(self, batch):
        return torch.zeros(batch, self.state_size)


class Regression(nn.Module):
    """(latent [B, D], timestep [B], cond [B, C]) -> velocity [B, D] towards the estimate, which depends on cond alone."""

    def __init__(self, latents, cond, width=256, blocks=2, dropout=0.0, gain=1.0):
        super().__init__()
        self.latents, self.conditions, self.gain = latents, cond, gain
        self.drop = nn.Dropout(dropout)
        self.cond = nn.Linear(cond, width)
        self.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Dropout(dropout),
                                                  nn.Linear(width, width)) for _ in range(blocks))
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, latents))

    def clean(self, cond):
        x = self.cond(self.drop(cond))
        for block in self.blocks:
            x = x + block(x)
        return self.gain * self.out(x)

    def forward(self, latent, timestep, cond):
        left = (1 - timestep).clamp_min(PATH_LEFT).unsqueeze(-1)
        return (self.clean(cond) - latent) / left


class Hearing(nn.Module):
    """Head, and a regression for each look-ahead; `opening` [D] turns latents into an opening."""

    def __init__(self, latents, opening, looks=(160, 80), features=96, dropout=0.0, states=LAYERS + 1, width=WIDTH):
        super().__init__()
        self.head = Head(width, states, features=features, dropout=dropout)
        self.motions = nn.ModuleDict({str(look): Regression(latents, len(TAPS[look]) * features, dropout=dropout) for look in looks})
        self.register_buffer("opening", torch.as_tensor(opening, dtype=torch.float32))

    def features(self, states):
        return self.head(states, self.head.zeros(len(states[0])))[0]

    def motion(self, features, time_ms, look):
        """Latents [B, V, D] of frames at time_ms [B, V] of features [B, T, F]."""
        return self.motions[str(look)].clean(gather(features, time_ms, look))


class Teacher(nn.Module):
    """As Hearing, but it knows the whole clip: states of Whisper's whole encoder, a GRU that runs both ways, taps to both sides alike."""

    def __init__(self, latents, opening, features=96, dropout=0.0, states=7, width=WIDTH, look=160):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(states))
        self.weights = nn.Parameter(torch.zeros(states))
        self.drop, self.entry = nn.Dropout(dropout), nn.Linear(width, 64)
        self.gru = nn.GRU(64, 96, batch_first=True, bidirectional=True)
        self.out = nn.Linear(64 + 192, features)
        self.motions = nn.ModuleDict({str(look): Regression(latents, len(TAPS[look]) * features, dropout=dropout)})
        self.register_buffer("opening", torch.as_tensor(opening, dtype=torch.float32))

    def features(self, states):
        share = torch.softmax(self.weights, 0)
        return self.heard(sum(w * norm(x) for w, norm, x in zip(share, self.norms, states)))

    def features_of_normed(self, states):
        """The same of states [B, T, states, W] that are normalised over W."""
        share = torch.softmax(self.weights, 0)
        return self.heard(sum((w * norm.weight) * states[:, :, k] + w * norm.bias for k, (w, norm) in enumerate(zip(share, self.norms))))

    def heard(self, mixed):
        x = torch.nn.functional.silu(self.entry(self.drop(mixed)))
        return self.out(self.drop(torch.cat([x, self.gru(x)[0]], -1)))

    def motion(self, features, time_ms, look):
        return self.motions[str(look)].clean(gather(features, time_ms, look))


def gather(features, time_ms, look):
    """Windows for frames: [B, V, taps F]. A tap that would need a token which is not complete at t + look takes the last one that is."""
    batch, tokens, width = features.shape
    position = (time_ms.unsqueeze(-1) + features.new_tensor(TAPS[look])) / TOKEN_MS
    newest = torch.floor((time_ms + (look - TOKEN_END_MS)) / TOKEN_MS + 1e-4).unsqueeze(-1)
    position = torch.minimum(position, newest).clamp(0, tokens - 1)
    low = position.floor().clamp(max=tokens - 2)
    f = (position - low).unsqueeze(-1)
    index = low.long().reshape(batch, -1, 1).expand(-1, -1, width)
    a, b = features.gather(1, index), features.gather(1, index + 1)
    shape = (*position.shape, width)
    return (a.reshape(shape) * (1 - f) + b.reshape(shape) * f).flatten(2)
