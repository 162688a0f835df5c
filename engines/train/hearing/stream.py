"""The encoder as a host runs it: a ring of keys and values, and a second ring that takes over before the positions end.

Every TURN tokens a second ring encodes the last PAST tokens again from kept mel at the positions 0 .. PAST - 1 with nothing before them, AGAIN tokens
a step beside the new ones, while the first still serves; once it has caught up it serves, and the first is dropped.
"""

import torch

from hearing.encoder import CLOSED, LEAD, PAST, STEP, TURN

AGAIN = 10


class Ring:
    """Keys and values of the last PAST tokens of one stream; the order of places is that of arrival modulo PAST."""

    def __init__(self, encoder):
        self.encoder, self.position = encoder, 0
        self.past = torch.zeros(1, encoder.layers, 2, PAST, encoder.width)
        self.mask = torch.full((1, PAST), CLOSED)

    def step(self, mel):
        """mel [2 T + 3, 80] -> states, a list of [T, W]."""
        states, fresh = self.encoder(mel[None], self.past, self.mask, torch.tensor([self.position]))
        places = torch.arange(self.position, self.position + fresh.shape[3]) % PAST
        self.past[:, :, :, places], self.mask[:, places] = fresh, 0.0
        self.position += fresh.shape[3]
        return [s[0] for s in states]


class Stream:
    """Takes mel frames [M, 80] of any number, gives the states of the tokens that are complete; at most `most` tokens a call of the encoder."""

    def __init__(self, encoder, silence, most=STEP):
        self.ring, self.second, self.most = Ring(encoder), None, most
        self.mel = torch.full((LEAD, 80), silence)
        # The frame of the stream that `mel` begins with, and the next token of either ring.
        self.begin, self.token, self.behind = -LEAD, 0, 0

    def frames(self, token, count):
        first = 2 * token - LEAD - self.begin
        return self.mel[first : first + 2 * count + 3]

    def push(self, mel):
        self.mel = torch.cat([self.mel, mel])
        complete = (self.begin + len(self.mel) - 1) // 2
        out = []
        while self.token < complete:
            count = min(self.most, complete - self.token)
            out.append(self.ring.step(self.frames(self.token, count)))
            self.token += count
            self.turn()
        keep = 2 * (min(self.token, self.behind if self.second else self.token) - PAST) - LEAD
        if keep > self.begin:
            self.mel, self.begin = self.mel[keep - self.begin :], keep
        return [torch.cat(parts) for parts in zip(*out)] if out else None

    def turn(self):
        if self.second is None and self.ring.position >= TURN:
            self.second, self.behind = Ring(self.ring.encoder), self.token - PAST
        if self.second is not None:
            count = min(AGAIN + self.most, self.token - self.behind)
            self.second.step(self.frames(self.behind, count))
            self.behind += count
            if self.behind == self.token:
                self.ring, self.second = self.second, None
