"""The networks of `compact`: a causal audio encoder whose memory is one flat vector, and a denoiser of mouth motion.

Times: feature j has PTS 20 j ms and is complete with the samples up to 20 j + 35 ms. A frame at time t takes the features at
t + OFFSETS (linear interpolation between hops). The last hop that a frame may use is the one complete at t + LOOKAHEAD_MS.

Flow matching (Lipman et al., "Flow Matching for Generative Modeling", ICLR 2023; the linear path of Liu et al., "Flow Straight
and Fast", ICLR 2023): x_t = (1 - t) noise + t data, t from 0 (noise) to 1 (data). The network is asked for the velocity
data - noise; Euler from t = 0: x += (t_next - t) * prediction, t_i = i / steps. Inside, it estimates the data x0 and returns
(x0 - x_t) / (1 - t), so that one step gives x0 itself.
"""

import torch
from torch import nn
from torch.nn import functional

MELS = 80
HOP_MS = 20.0
FEATURE_END_MS = 35.0
OFFSETS = (-80.0, -60.0, -40.0, -20.0, 0.0, 20.0, 40.0)
LOOKAHEAD_MS = 80.0
# Below this much of the path left the velocity is not divided further.
PATH_LEFT = 0.05


class Layer(nn.Module):
    """Residual causal convolution over hops. Context: (taps - 1) * dilation earlier inputs."""

    def __init__(self, width, dilation):
        super().__init__()
        self.norm, self.dilation, self.context = nn.LayerNorm(width), dilation, 2 * dilation
        self.conv = nn.Conv1d(width, width, 3, dilation=dilation)

    def forward(self, x, before):
        """x [B, T, W], before [B, context, W] -> y [B, T, W], the context for what comes next."""
        n = functional.silu(self.norm(x))
        joined = torch.cat([before, n], 1)
        y = self.conv(joined.transpose(1, 2)).transpose(1, 2)
        return x + y, joined[:, -self.context :]


class AudioEncoder(nn.Module):
    """Hops of two mel frames -> features; everything remembered is in a state [B, S] that starts as zeros."""

    def __init__(self, width=192, features=128, dilations=(1, 2, 4), mean=-5.0, std=4.0, dropout=0.0):
        super().__init__()
        self.width, self.features = width, features
        self.register_buffer("norm", torch.tensor([mean, std]))
        self.entry = nn.Conv1d(2 * MELS, width, 3)
        self.layers = nn.ModuleList(Layer(width, d) for d in dilations)
        self.drop = nn.Dropout(dropout)
        self.pre = nn.LayerNorm(width)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.out = nn.Linear(2 * width, features)
        self.sizes = [2 * 2 * MELS] + [layer.context * width for layer in self.layers] + [width]
        self.state_size = sum(self.sizes)

    def forward(self, mel, state):
        """mel [B, 2 T, 80] normalised, state [B, S] -> features [B, T, F], next state [B, S]."""
        batch = mel.shape[0]
        parts = torch.split(state, self.sizes, 1)
        hops = mel.reshape(batch, -1, 2 * MELS)
        joined = torch.cat([parts[0].reshape(batch, 2, 2 * MELS), hops], 1)
        x = self.entry(joined.transpose(1, 2)).transpose(1, 2)
        kept = [joined[:, -2:].reshape(batch, -1)]
        for layer, part in zip(self.layers, parts[1:]):
            x, after = layer(x, part.reshape(batch, layer.context, self.width))
            kept.append(after.reshape(batch, -1))
        x = self.drop(self.pre(x))
        y, hidden = self.gru(x, parts[-1].unsqueeze(0).contiguous())
        kept.append(hidden[0])
        return self.out(self.drop(torch.cat([x, y], -1))), torch.cat(kept, 1)

    def stepping(self):
        """The single-hop form, for export."""
        return EncoderStep(self)

    def normalised(self, mel):
        return (mel - self.norm[0]) / self.norm[1]

    def zeros(self, batch):
        return torch.zeros(batch, self.state_size)


class EncoderStep(nn.Module):
    """One hop, for export: the GRU written out as matrix products."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, mel, state):
        e, batch = self.encoder, mel.shape[0]
        parts = torch.split(state, e.sizes, 1)
        hop = mel.reshape(batch, 1, 2 * MELS)
        joined = torch.cat([parts[0].reshape(batch, 2, 2 * MELS), hop], 1)
        x = e.entry(joined.transpose(1, 2)).transpose(1, 2)
        kept = [joined[:, 1:].reshape(batch, 4 * MELS)]
        for layer, part in zip(e.layers, parts[1:]):
            n = functional.silu(layer.norm(x))
            context = torch.cat([part.reshape(batch, layer.context, e.width), n], 1)
            # Three taps at distance `dilation`, ending at the present hop.
            taps = torch.cat([context[:, k * layer.dilation] for k in range(3)], 1)
            weight = layer.conv.weight.permute(0, 2, 1).reshape(e.width, 3 * e.width)
            x = x + functional.linear(taps, weight, layer.conv.bias).unsqueeze(1)
            kept.append(context[:, 1:].reshape(batch, layer.context * e.width))
        x = e.pre(x)[:, 0]
        h = parts[-1]
        a = functional.linear(x, e.gru.weight_ih_l0, e.gru.bias_ih_l0)
        b = functional.linear(h, e.gru.weight_hh_l0, e.gru.bias_hh_l0)
        w = e.width
        r = torch.sigmoid(a[:, :w] + b[:, :w])
        u = torch.sigmoid(a[:, w : 2 * w] + b[:, w : 2 * w])
        n = torch.tanh(a[:, 2 * w :] + r * b[:, 2 * w :])
        h = (1 - u) * n + u * h
        kept.append(h)
        return e.out(torch.cat([x, h], -1)), torch.cat(kept, 1)


class Denoiser(nn.Module):
    """(latent [B, D], timestep [B], cond [B, C]) -> velocity [B, D]."""

    def __init__(self, latents, cond, width=256, blocks=2, dropout=0.0):
        super().__init__()
        self.latents, self.conditions = latents, cond
        self.latent, self.cond = nn.Linear(latents, width), nn.Linear(cond, width)
        self.time = nn.Sequential(nn.Linear(2, 64), nn.SiLU(), nn.Linear(64, width))
        self.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Dropout(dropout),
                                                  nn.Linear(width, width)) for _ in range(blocks))
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, latents))

    def clean(self, latent, timestep, cond_part):
        """The estimate of the data; `cond_part` is self.cond(cond), the same at every step."""
        t = timestep.unsqueeze(-1)
        x = self.latent(latent) + cond_part + self.time(torch.cat([t, (1 - t).clamp_min(PATH_LEFT).log()], -1))
        for block in self.blocks:
            x = x + block(x)
        return self.out(x)

    def forward(self, latent, timestep, cond):
        left = (1 - timestep).clamp_min(PATH_LEFT).unsqueeze(-1)
        return (self.clean(latent, timestep, self.cond(cond)) - latent) / left


class EncoderStack(nn.Module):
    """Several encoders side by side: states and features joined, so that one file holds a committee."""

    def __init__(self, encoders):
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.sizes = [e.state_size for e in encoders]
        self.state_size, self.features = sum(self.sizes), sum(e.features for e in encoders)
        self.register_buffer("norm", encoders[0].norm.clone())

    def forward(self, mel, state):
        out = [e(mel, s.contiguous()) for e, s in zip(self.encoders, torch.split(state, self.sizes, 1))]
        return torch.cat([f for f, _ in out], -1), torch.cat([s for _, s in out], 1)

    def stepping(self):
        """The single-hop form, for export."""
        return StackStep(self)

    normalised, zeros = AudioEncoder.normalised, AudioEncoder.zeros


class StackStep(nn.Module):
    """One hop of an EncoderStack."""

    def __init__(self, stack):
        super().__init__()
        self.sizes, self.steps = stack.sizes, nn.ModuleList(EncoderStep(e) for e in stack.encoders)

    def forward(self, mel, state):
        out = [step(mel, s) for step, s in zip(self.steps, torch.split(state, self.sizes, 1))]
        return torch.cat([f for f, _ in out], -1), torch.cat([s for _, s in out], 1)


class DenoiserStack(nn.Module):
    """The mean of several denoisers' estimates of the data, each on its own encoder's features; `gain` scales the estimate."""

    def __init__(self, denoisers, features, gain=1.0):
        super().__init__()
        self.denoisers, self.features, self.gain = nn.ModuleList(denoisers), features, gain
        self.latents, self.conditions = denoisers[0].latents, len(OFFSETS) * sum(features)

    def cond(self, cond):
        taps = cond.reshape(*cond.shape[:-1], len(OFFSETS), sum(self.features))
        return [d.cond(part.flatten(-2)) for d, part in zip(self.denoisers, torch.split(taps, self.features, -1))]

    def clean(self, latent, timestep, cond_part):
        # Members know data of gain 1: a latent part of the way holds `timestep` of data times gain.
        shrunk = latent * (1 - timestep.unsqueeze(-1) * (1 - 1 / self.gain))
        mean = sum(d.clean(shrunk, timestep, part) for d, part in zip(self.denoisers, cond_part)) / len(self.denoisers)
        return self.gain * mean

    def forward(self, latent, timestep, cond):
        left = (1 - timestep).clamp_min(PATH_LEFT).unsqueeze(-1)
        return (self.clean(latent, timestep, self.cond(cond)) - latent) / left


def gather(features, time_ms):
    """Windows for frames: features [B, T, F] (hop j at 20 j ms), time_ms [B, V] -> [B, V, W * F].

    A tap that would need a hop which is not complete at t + LOOKAHEAD_MS takes the last one that is.
    """
    batch, hops, width = features.shape
    position = (time_ms.unsqueeze(-1) + features.new_tensor(OFFSETS)) / HOP_MS
    newest = torch.floor((time_ms + (LOOKAHEAD_MS - FEATURE_END_MS)) / HOP_MS + 1e-4).unsqueeze(-1)
    position = torch.minimum(position, newest).clamp(0, hops - 1)
    low = position.floor().clamp(max=hops - 2)
    f = (position - low).unsqueeze(-1)
    index = low.long().reshape(batch, -1, 1).expand(-1, -1, width)
    a, b = features.gather(1, index), features.gather(1, index + 1)
    shape = (*position.shape, width)
    return (a.reshape(shape) * (1 - f) + b.reshape(shape) * f).flatten(2)


def smooth_noise(batch, frames, dims, coefficient, generator=None):
    """Unit-variance AR(1) noise over frames [B, V, D]: n_k = a n_(k-1) + sqrt(1 - a^2) e_k."""
    e = torch.randn(batch, frames, dims, generator=generator)
    out = [e[:, 0]]
    for k in range(1, frames):
        out.append(coefficient * out[-1] + (1 - coefficient**2) ** 0.5 * e[:, k])
    return torch.stack(out, 1)


def sample(denoiser, cond, noise, steps):
    """Euler from noise [.., D] at t = 0 to data at t = 1."""
    x = noise
    for i in range(steps):
        t = torch.full(x.shape[:-1], i / steps)
        x = x + denoiser(x, t, cond) / steps
    return x
