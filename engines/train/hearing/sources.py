"""Every clip that the hearing is taught and measured with.

Offsets: the lags that motion/sources.py lists were found with a model that was late itself, so clips of real people have none here but for proven OUTLIERS; heads
that other models made keep half of theirs. Labels are brought to the shipped basis.
"""

import json
from dataclasses import dataclass

import numpy as np

from common import mesh
from hearing.mel import RATE
from motion.sources import HELD, group_of, trust

# Names' beginning -> seconds by which the picture is behind the sound.
OUTLIERS = {}
GENERATED_SHARE = 0.5
# Seconds of each file of the pool.
POOLED = 10


@dataclass
class Clip:
    """`z` [T, D] or None; `opening` [T] (population spreads) or None; `group`: the set it is measured in, None in training."""

    name: str
    kind: str
    pcm: np.ndarray
    z: np.ndarray | None
    opening: np.ndarray | None
    fps: float
    weight: float = 1.0
    lag: float = 0.0
    group: str | None = None

    @property
    def seconds(self):
        return len(self.pcm) / RATE


def basis_of(cache, shipped):
    """(shipped arrays and `opening` [D], matrix that brings the cache's latents to them)."""
    from tensors import load

    own = dict(np.load(cache / "motion/basis.npz"))
    b = load(shipped)
    b["opening"] = (b["basis"][2 * mesh.OPENING[1] + 1] - b["basis"][2 * mesh.OPENING[0] + 1]) / b["spread"][0]
    return b, (b["project"] @ own["basis"]).T.astype(np.float32)


def lag_of(name, kind):
    weight, lag = trust(name)
    for part, value in OUTLIERS.items():
        if part in name:
            return weight, value
    return weight, GENERATED_SHARE * lag if kind == "gen" else 0.0


def videos(cache, to_shipped, spread, hold):
    store = np.load(cache / "motion/clips.npz")
    for k, row in enumerate(json.loads(str(store["table"]))):
        weight, lag = lag_of(row["name"], row["kind"])
        group = f"val_{group_of(row['name'])}" if row["val"] else None
        if group is None and hold and any(h in row["name"] for h in HELD):
            group = "dev"
        if weight == 0 and group is None:
            continue
        pcm = np.load(cache / "motion/pcm" / f"{row['name']}.npy")
        gap = (store[f"gap{k}"] / (row["scale"] * spread)).astype(np.float32)
        yield Clip(row["name"], row["kind"], pcm, store[f"z{k}"] @ to_shipped, gap, row["fps"], weight, lag, group)


def others(cache, spread):
    """Motion capture, synthetic voices, sounds that are no speech; of what another teacher labelled only the sound."""
    for part in ("mocap", "voice", "tongues", "many", "rest", "still", "music", "babble", "teach"):
        path = cache / "motion" / f"{part}.npz"
        if not path.exists():
            continue
        store = np.load(path)
        for k, row in enumerate(json.loads(str(store["table"]))):
            name, kind = row["name"], row["kind"]
            if kind == "teach":
                if "speech__" in name:
                    yield Clip(name, "pool", store[f"pcm{k}"], None, None, 25.0)
                continue
            gap = (store[f"gap{k}"] / (row["scale"] * spread)).astype(np.float32)
            z = np.zeros((len(gap), 12), np.float32) if kind in ("rest", "still") else None
            yield Clip(name, kind, store[f"pcm{k}"], z, gap, row["fps"])


def pool(cache):
    path = cache / "hearing/pool.npz"
    if path.exists():
        store = np.load(path)
        for k, row in enumerate(json.loads(str(store["table"]))):
            yield Clip(f"pool__{row['name']}", "pool", store[f"pcm{k}"][: POOLED * RATE], None, None, 25.0)


def unseen(cache):
    """Clips of people from elsewhere, opening alone, for measuring: CACHE/extra/clips.npz."""
    path = cache / "extra/clips.npz"
    if path.exists():
        store = np.load(path)
        for k, name in enumerate(json.loads(str(store["names"]))):
            yield Clip(name, "unseen", store[f"pcm{k}"], None, store[f"gap{k}"], 25.0, group="unseen")


def load(cache, shipped, hold=False):
    """Every clip; those with a `group` teach nothing."""
    basis, to_shipped = basis_of(cache, shipped)
    spread = float(basis["spread"][0])
    return [*videos(cache, to_shipped, spread, hold), *others(cache, spread), *pool(cache), *unseen(cache)], basis


def pseudo(cache, clips, basis):
    """Gives speech without pictures what the teachers say of it (teach.py)."""
    path = cache / "hearing/pseudo.npz"
    if path.exists():
        store = np.load(path)
        index = {name: k for k, name in enumerate(json.loads(str(store["names"])))}
        for clip in clips:
            if clip.opening is None and clip.name in index:
                clip.z = store[f"z{index[clip.name]}"]
                clip.opening = clip.z @ basis["opening"]


def noises(clips):
    return [c.pcm for c in clips if c.kind in ("rest", "still")]
