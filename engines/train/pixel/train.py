"""Trains a mouth of one person: a U-Net in SyncTalk_2D's layout on the features of `compact`'s front-end.

    python -m pixel.train --cache DIR --run RUN [--minutes 30] [--base 12] [--batch 16] [--hold-out 4]

Reads what `pixel.data` wrote. RUN/last.pt is written every minute and gone on from; RUN/unet.pth is the state dict that
`lipstream import --from RUN/unet.pth --features compact` takes; RUN/log.jsonl has the losses, those of clips that are held out
beside those of the others. The first picture is of another time of the same clip, so that the mouth cannot be copied.
"""
import argparse
import time
from pathlib import Path

import numpy as np
import torch

from common.layers import Average
from common.runs import Log, seed_all
from pixel.data import FPS, window
from pixel.net import HIDDEN, Unet, hidden

# The first picture is at least so many frames away.
AWAY = 10


class Clips:
    def __init__(self, files):
        self.clips = [np.load(path) for path in files]
        self.clips = [{key: clip[key] for key in ("pictures", "features", "found")} for clip in self.clips]
        self.frames = [(c, t) for c, clip in enumerate(self.clips) for t in range(len(clip["pictures"])) if clip["found"][t]]

    def batch(self, rng, count):
        """Face [B, 6, 160, 160], audio [B, 16, 16, 16], wanted [B, 3, 160, 160]."""
        shown, other, audio = [], [], []
        for k in rng.integers(len(self.frames), size=count):
            c, t = self.frames[k]
            clip = self.clips[c]
            total = len(clip["pictures"])
            far = [s for s in range(total) if abs(s - t) >= AWAY]
            shown.append(clip["pictures"][t])
            other.append(clip["pictures"][rng.choice(far) if far else t])
            audio.append(window(clip["features"], t / FPS))
        planes = lambda pictures: torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
        wanted = planes(shown)
        return torch.cat([planes(other), hidden(wanted)], 1), torch.from_numpy(np.stack(audio)).float(), wanted


def loss_of(made, wanted):
    """Mean absolute error of the pixels, the mouth's rectangle three times, and of their differences at three scales."""
    left, right, top, bottom = HIDDEN
    inner = lambda x: x[:, :, top:bottom + 1, left:right + 1]
    loss = (made - wanted).abs().mean() + 3 * (inner(made) - inner(wanted)).abs().mean()
    a, b = inner(made), inner(wanted)
    for _ in range(3):
        for dim in (2, 3):
            loss = loss + 2 * (a.diff(dim=dim) - b.diff(dim=dim)).abs().mean()
        a, b = (torch.nn.functional.avg_pool2d(x, 2) for x in (a, b))
    return loss


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--base", type=int, default=12)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--hold-out", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    seed_all(args.seed)
    args.run.mkdir(parents=True, exist_ok=True)
    files = sorted((args.cache / "pixel").glob("*.npz"))
    held, rest = files[:args.hold_out], files[args.hold_out:]
    if not rest:
        raise SystemExit(f"{args.cache}/pixel: fewer than {args.hold_out + 1} clips; run pixel.data first")
    train, unseen = Clips(rest), Clips(held or rest[:1])
    network = Unet(args.base).to(memory_format=torch.channels_last)
    average = Average(network, 0.995)
    optimiser = torch.optim.AdamW(network.parameters(), args.rate, weight_decay=1e-4)
    step, spent, last = 0, 0.0, args.run / "last.pt"
    if last.exists():
        state = torch.load(last, weights_only=True)
        network.load_state_dict(state["network"])
        average.network.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["spent"]
    log = Log(args.run / "log.jsonl")
    rng = np.random.default_rng(args.seed + step)
    limit, began, saved, losses = args.minutes * 60, time.time() - spent, time.time(), []
    bf16 = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    while (spent := time.time() - began) < limit:
        # Down to a twentieth along half a cosine.
        for group in optimiser.param_groups:
            group["lr"] = args.rate * (0.05 + 0.95 * (0.5 + 0.5 * np.cos(np.pi * spent / limit)))
        face, audio, wanted = train.batch(rng, args.batch)
        network.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            made = network(face.contiguous(memory_format=torch.channels_last), audio)
        loss = loss_of(made.float(), wanted)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        average.update(network)
        losses.append(loss.item())
        step += 1
        if time.time() - saved >= 60 or time.time() - began >= limit:
            saved = time.time()
            with torch.no_grad():
                face, audio, wanted = unseen.batch(np.random.default_rng(0), 32)
                judged = loss_of(average.network.eval()(face, audio), wanted).item()
            log(step=step, loss=round(float(np.mean(losses)), 4), unseen=round(judged, 4))
            losses = []
            state = {"network": network.state_dict(), "average": average.network.state_dict(),
                     "optimiser": optimiser.state_dict(), "step": step, "spent": time.time() - began}
            torch.save(state, args.run / "part.pt")
            (args.run / "part.pt").replace(last)
            torch.save(average.network.state_dict(), args.run / "unet.pth")


if __name__ == "__main__":
    main()
