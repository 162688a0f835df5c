"""Whisper's encoder (Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022) behind a causal mask.

Token j (20 ms, at 20 j ms) is made of the mel frames 2 j - 2 .. 2 j + 2, so it is complete with the samples up to 20 j + 32.5 ms. It sees itself and the
PAST tokens before it. Positions are absolute, those of Whisper's sinusoid table (0..1499): a stream that comes to TURN encodes its last PAST
tokens again at position 0 (see stream.py).

Weights carry OpenAI's names; `load` reads what shared/tools/whisper_weights.py writes.
"""

import math

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from hearing.mel import MELS

WIDTH, HEADS, LAYERS = 512, 8, 3
PAST = 100
PLACES = 1500
TURN = 1000
CLOSED = -1e9
# Tokens that a live host gives a call.
STEP = 2
# Mel frames before those that belong to the first token, and the time after a token's own at which it is complete.
LEAD = 2
TOKEN_MS, TOKEN_END_MS = 20.0, 32.5


class Attention(nn.Module):
    """Whisper's attention: the key has no bias."""

    def __init__(self, width=WIDTH, heads=HEADS):
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def split(self, x):
        return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def forward(self, x, keys, values, mask):
        """x [B, T, W], keys and values [B, K, W], mask [B or 1, 1, T, K] added to the scores."""
        y = functional.scaled_dot_product_attention(self.split(self.query(x)), self.split(keys), self.split(values), attn_mask=mask)
        return self.out(y.transpose(1, 2).reshape(x.shape))


class Block(nn.Module):
    def __init__(self, width=WIDTH, heads=HEADS):
        super().__init__()
        self.attn, self.attn_ln = Attention(width, heads), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.mlp_ln = nn.LayerNorm(width)

    def forward(self, x, past, mask):
        """x [B, T, W], past [B, 2, P, W] or None -> y [B, T, W], its own keys and values [B, 2, T, W]."""
        n = self.attn_ln(x)
        fresh = torch.stack([self.attn.key(n), self.attn.value(n)], 1)
        both = fresh if past is None else torch.cat([past, fresh], 2)
        x = x + self.attn(n, both[:, 0], both[:, 1], mask)
        return x + self.mlp(self.mlp_ln(x)), fresh


class Encoder(nn.Module):
    """Stem and the first blocks; what comes out is the state after the stem and after each block."""

    def __init__(self, width=WIDTH, heads=HEADS, layers=LAYERS):
        super().__init__()
        self.width, self.layers = width, layers
        self.conv1, self.conv2 = nn.Conv1d(MELS, width, 3), nn.Conv1d(width, width, 3, stride=2)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        scale = torch.exp(-math.log(10000.0) / (width // 2 - 1) * torch.arange(width // 2))
        self.register_buffer("scale", scale, persistent=False)

    def stem(self, mel, position):
        """mel [B, 2 T + 3, 80], position [B] of the first token -> [B, T, W]."""
        x = functional.gelu(self.conv1(mel.transpose(1, 2)))
        x = functional.gelu(self.conv2(x)).transpose(1, 2)
        place = position.unsqueeze(1) + torch.arange(x.shape[1], device=x.device)
        angle = place.unsqueeze(-1) * self.scale
        return x + torch.cat([angle.sin(), angle.cos()], -1)

    def forward(self, mel, past, mask, position):
        """past [B, L, 2, P, W], mask [B, P] -> states, a list of L + 1 [B, T, W], and fresh [B, L, 2, T, W]."""
        x = self.stem(mel, position)
        tokens = x.shape[1]
        inner = torch.triu(torch.full((tokens, tokens), CLOSED), 1)
        inner = inner.unsqueeze(0).expand(mask.shape[0], -1, -1)
        whole = torch.cat([mask.unsqueeze(1).expand(-1, tokens, -1), inner], 2).unsqueeze(1)
        states, fresh = [x], []
        for k, block in enumerate(self.blocks):
            x, own = block(x, past[:, k], whole)
            states.append(x)
            fresh.append(own)
        return states, torch.stack(fresh, 1)

    def whole(self, mel, position=None, causal=True, step=STEP, first=None):
        """A sound at once, mel [B, 2 T + 3, 80] -> states; `causal`: as a stream of `step` tokens a call hears it, otherwise as Whisper does. Tokens before `first` [B]
        are not seen by those after it."""
        x = self.stem(mel, torch.zeros(len(mel), dtype=torch.long) if position is None else position)
        at = torch.arange(x.shape[1])
        # The PAST tokens before a call are seen by all tokens of that call.
        seen = (at <= at[:, None]) & (at >= (at[:, None] - at[:, None] % step - PAST))
        mask = seen if causal else None
        if first is not None:
            mask = (seen & (at >= first[:, None, None]) | (at == at[:, None])).unsqueeze(1)
        states = [x]
        for block in self.blocks:
            x, _ = block(x, None, mask)
            states.append(x)
        return states


def load(path, width=WIDTH, heads=HEADS, layers=LAYERS):
    """The first `layers` of a Whisper encoder from a file of weights, in f32."""
    encoder = Encoder(width, heads, layers)
    kept = {k: v.float() for k, v in load_file(str(path)).items()}
    wanted = encoder.state_dict()
    missing = [k for k in wanted if k not in kept]
    if missing:
        raise SystemExit(f"{path} lacks {missing[0]} and {len(missing) - 1} more: is it what whisper_weights.py writes?")
    encoder.load_state_dict({k: kept[k] for k in wanted})
    return encoder.eval()


def token_mel(mel, fill):
    """Mel [B, M, 80] of a stream with what token 0 needs before it -> [B, 2 T + 3, 80] of its T complete tokens; `fill` is silence."""
    lead = torch.full((len(mel), LEAD, MELS), fill)
    joined = torch.cat([lead, mel], 1)
    tokens = (joined.shape[1] - 3) // 2
    return joined[:, : 2 * tokens + 3]
