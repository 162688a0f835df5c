"""The loop's timing: idle life that repeats exactly, and a few seconds of mouth shapes for the reference bank."""
import numpy as np
from scipy.interpolate import PchipInterpolator

from character import Pose

RATE = 25
SECONDS = 8

SHAPES = {
    "rest": {},
    "slight": {"mouth-open": 0.13},
    "ah": {"mouth-open": 0.33, "mouth-part-later": 0.08},
    "wide": {"mouth-open": 0.56, "mouth-part-later": 0.12},
    "eh": {"mouth-open": 0.30, "mouth-elevation": 0.25, "mouth-corner-puller": 0.12},
    "ee": {"mouth-open": 0.06, "mouth-part-later": 0.32, "mouth-corner-puller": 0.32},
    "oo": {"mouth-pursing": 0.72, "mouth-open": 0.10},
    "oh": {"mouth-pursing": 0.50, "mouth-open": 0.34},
    "sh": {"mouth-protusion": 0.28, "mouth-pursing": 0.30, "mouth-open": 0.08},
    "press": {"mouth-compression": 0.12, "mouth-open": -0.02},
    "smile": {"mouth-corner-puller": 0.50, "mouth-upward-retraction": 0.22},
    "grin": {"mouth-corner-puller": 0.48, "mouth-upward-retraction": 0.25, "mouth-part-later": 0.25, "mouth-open": 0.05},
}
# seconds and shape; the mouth rests from the last line until the loop's first
MOUTH = [
    (0.00, "rest"), (0.90, "rest"), (1.10, "slight"), (1.34, "ah"), (1.54, "slight"), (1.78, "wide"), (1.90, "wide"), (2.12, "eh"),
    (2.28, "press"), (2.36, "press"), (2.58, "oh"), (2.80, "oo"), (2.92, "oo"), (3.14, "ah"), (3.34, "ee"), (3.50, "ee"), (3.70, "eh"),
    (3.86, "sh"), (3.98, "sh"), (4.20, "wide"), (4.34, "eh"), (4.54, "grin"), (4.78, "grin"), (5.06, "smile"), (5.34, "smile"),
    (5.80, "rest"), (8.00, "rest"),
]
BLINKS = [0.55, 2.70, 5.50, 7.00]


def waves(rng, t, strongest, count=3, fall=1.0):
    """A smooth function of t that repeats after SECONDS: harmonics 1..count, amplitude falling, peak about `strongest`."""
    k = np.arange(1, count + 1)
    amplitude = rng.uniform(0.6, 1.0, count) / k**fall
    phase = rng.uniform(0, 2 * np.pi, count)
    return strongest * (amplitude * np.sin(2 * np.pi * k * t / SECONDS + phase)).sum() / amplitude.sum()


def blink(t):
    """Lid closure 0..1: down in 80 ms, up in 160 ms."""
    most = 0.0
    for start in BLINKS:
        x = t - start
        most = max(most, np.interp(x, [-0.02, 0.06, 0.10, 0.26], [0, 1, 1, 0]))
    return most * most * (3 - 2 * most)


def glance(rng):
    """Held gaze directions with quick changes: (yaw, pitch) in radians at a time; starts and ends at the camera."""
    times, values = [0.0], [(0.0, 0.0)]
    t = 1.3
    while t < SECONDS - 1.2:
        times.append(t)
        values.append(tuple(rng.normal(size=2) * [0.022, 0.012]))
        t += rng.uniform(0.7, 1.6)
    times.append(t)
    values.append((0.0, 0.0))

    def at(now):
        out = np.array(values[0])
        for start, value in zip(times[1:], values[1:]):
            f = np.clip((now - start) / 0.06, 0, 1)
            out = out + (np.array(value) - out) * f * f * (3 - 2 * f)
        return out

    return at


def poses(seed=11):
    """All frames of the loop, RATE x SECONDS of them."""
    names = sorted({u for s in SHAPES.values() for u in s})
    keys = np.array([[SHAPES[s].get(u, 0.0) for u in names] for _, s in MOUTH])
    mouth = PchipInterpolator([t for t, _ in MOUTH], keys)
    look = glance(np.random.default_rng(seed))
    out = []
    for frame in range(RATE * SECONDS):
        t = frame / RATE
        rng = np.random.default_rng(seed + 1)  # the same harmonics for every frame
        yaw, pitch, roll = waves(rng, t, 0.050), waves(rng, t, 0.026), waves(rng, t, 0.022)
        sway, brow = (waves(rng, t, 0.022, 2), waves(rng, t, 0.02, 2)), waves(rng, t, 0.10, 4, 0.5)
        units = dict(zip(names, mouth(t)))
        speaking = float(np.clip(sum(abs(w) for w in units.values()) * 1.5, 0, 1))
        # Eyes stay on the camera while the head turns.
        gaze = look(t) - [yaw * 0.85, pitch * -0.85]
        lids = blink(t)
        for side in ("left", "right"):
            units[f"eye-{side}-closure"] = float(np.clip(lids - 0.35 * gaze[1] * (1 - lids), 0, 1))
            units[f"eyebrows-{side}-up"] = 0.06 * speaking + brow * 0.5 + 0.05
        out.append(
            Pose(
                units=units, yaw=yaw, pitch=pitch - 0.012 * speaking, roll=roll, gaze=tuple(gaze),
                breath=0.5 - 0.5 * np.cos(2 * np.pi * t * 2 / SECONDS), sway=sway,
            )
        )
    return out
