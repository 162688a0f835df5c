"""How a file is heard: in windows that know what comes before and after, at fixed places of the stream.

Window k has the tokens k STEP - MARGIN .. k STEP - MARGIN + WINDOW - 1 (STEP = WINDOW - 2 MARGIN), of which the STEP in the middle are used, so that the feature of a token does
not depend on how the sound comes in. Token j takes the mel frames 2 j - 2 .. 2 j + 2, as in a stream (encoder.py); frames before the first and those that the stream's samples do not
complete are silence. Positions are counted from each window's first token.
"""

import torch

from hearing.encoder import LEAD
from hearing.mel import SILENCE

WINDOW, MARGIN = 400, 50


def step_of(window=WINDOW, margin=MARGIN):
    return window - 2 * margin


def cut(mel, tokens, window=WINDOW, margin=MARGIN):
    """Mel frames [M, 80] of a stream -> the windows [K, 2 WINDOW + 3, 80] that `tokens` tokens are in the middle of."""
    step = step_of(window, margin)
    count = -(-tokens // step)
    before, rows = 2 * margin + LEAD, 2 * ((count - 1) * step + window) + 3
    whole = torch.full((max(rows, before + len(mel)), mel.shape[1]), SILENCE, dtype=mel.dtype)
    whole[before : before + len(mel)] = mel
    return torch.stack([whole[2 * k * step : 2 * k * step + 2 * window + 3] for k in range(count)])


def middles(rows, tokens, window=WINDOW, margin=MARGIN):
    """What windows [K, WINDOW, ..] say of the tokens in their middle, [tokens, ..]."""
    return rows[:, margin : window - margin].flatten(0, 1)[:tokens]
