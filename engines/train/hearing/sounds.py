"""One clip's sound in the many ways that should not matter: speed, room, microphone, telephone, whisper, noise, gain, cut-in silence.

All take and give f32 samples at 16 kHz.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.signal import lfilter

from hearing.mel import RATE
from motion.batch import CLOSE_MS, LEAVE_MS, coloured, piece


@dataclass
class Changed:
    """A clip's sound, how many times as fast it goes, and (begin, end) in ms of silences cut into it, in its own time."""

    sound: np.ndarray
    speed: float = 1.0
    gaps: list = field(default_factory=list)


def level(x):
    """RMS of the loudest fifth of 20 ms pieces."""
    n = max(1, len(x) // 320)
    e = np.sort((x[: n * 320].reshape(n, -1) ** 2).mean(1) if len(x) >= 320 else np.array([np.mean(x**2)]))
    return float(np.sqrt(e[-max(1, n // 5) :].mean()) + 1e-5)


def response(x, gain_of):
    """`x` through a real, zero-phase gain over frequency."""
    size = 1 << (len(x) - 1).bit_length()
    hertz = np.fft.rfftfreq(size, 1 / RATE)
    return np.fft.irfft(np.fft.rfft(x, size) * gain_of(hertz), size)[: len(x)].astype(np.float32)


def microphone(x, rng):
    """A smooth random response of some dB over log frequency, at times no treble."""
    knots, cut = rng.normal(0, 4, 9), rng.uniform(3000, 7000) if rng.random() < 0.25 else None

    def gain(hertz):
        octave = np.log2(np.maximum(hertz, 50) / 50)
        g = 10 ** (np.clip(np.interp(octave, np.linspace(0, 7.4, 9), knots), -10, 10) / 20)
        return g if cut is None else g / np.sqrt(1 + (hertz / cut) ** 8)

    return response(x, gain)


def telephone(x, rng):
    """300..3400 Hz in 8-bit mu-law."""
    low, high = rng.uniform(250, 400), rng.uniform(3000, 3700)
    y = response(x, lambda f: 1 / np.sqrt((1 + (low / np.maximum(f, 1)) ** 12) * (1 + (f / high) ** 24)))
    y = np.clip(y / (np.abs(y).max() + 1e-6) * 0.7, -1, 1)
    code = np.round(np.sign(y) * np.log1p(255 * np.abs(y)) / np.log(256) * 127) / 127
    return (np.sign(code) * np.expm1(np.abs(code) * np.log(256)) / 255).astype(np.float32)


def room(x, rng):
    """Exponential reverberation of 0.1 to 0.5 s."""
    n = int(rng.uniform(0.1, 0.5) * RATE)
    tail = rng.standard_normal(n) * 10 ** (-3 * np.arange(n) / n)
    tail[: int(0.003 * RATE)] = 0
    tail *= rng.uniform(0.1, 0.6) / (np.sqrt((tail**2).sum()) + 1e-9)
    tail[0] = 1.0
    size = 1 << (len(x) + n - 1).bit_length()
    return np.fft.irfft(np.fft.rfft(x, size) * np.fft.rfft(tail, size), size)[: len(x)].astype(np.float32)


def whisper(x, rng, order=18, hop=160, length=400):
    """The voice without its pitch: noise through the linear prediction of every 25 ms (autocorrelation method)."""
    window = np.hanning(length)
    out, noise = np.zeros(len(x) + length), rng.standard_normal(len(x) + length)
    for at in range(0, len(x) - length, hop):
        frame = x[at : at + length] * window
        r = np.correlate(frame, frame, "full")[length - 1 : length + order]
        if r[0] < 1e-7:
            continue
        r[0] *= 1.0001
        a, error = np.zeros(order + 1), r[0]
        a[0] = 1
        for i in range(1, order + 1):
            k = -(a[:i] @ r[i:0:-1]) / error
            a[: i + 1] += k * a[: i + 1][::-1]
            error *= 1 - k * k
        y = lfilter([np.sqrt(max(error, 0) / length)], a, noise[at : at + length])
        out[at : at + length] += y * window
    y = np.diff(out[: len(x)], prepend=0) * 0.5 + out[: len(x)] * 0.5
    return (y / (level(y) + 1e-9) * level(x) * 10 ** (-rng.uniform(3, 12) / 20)).astype(np.float32)


def cut(x, rng):
    """A silence of 0.3 to 1.2 s in the sound, and where it is (ms)."""
    long = len(x) * 1000 / RATE
    begin = rng.uniform(0, max(100, long - 500))
    end = begin + rng.uniform(300, 1200)
    ms = np.arange(len(x)) * 1000.0 / RATE
    return x * np.clip(np.maximum((begin - ms) / 10, (ms - end) / 10), 0, 1).astype(np.float32), (begin, end)


def openness(time_ms, gaps):
    """By how much the motion is left at times (ms) around silences: 1 where there is none."""
    out = np.ones(len(time_ms), np.float32)
    for begin, end in gaps:
        closing = np.clip((begin + CLOSE_MS - time_ms) / CLOSE_MS, 0, 1)
        out = np.minimum(out, np.maximum(closing, np.clip((time_ms - (end - LEAVE_MS)) / LEAVE_MS, 0, 1)))
    return out


def changed(pcm, rng, noises=(), voice=True):
    """A random view of a clip (int16). `noises`: sounds to be mixed in. Of what is no voice only microphone and gain change."""
    speed, gaps = 1.0, []
    if voice and rng.random() < 0.75:
        speed = float(rng.uniform(0.85, 1.2))
    x = piece(pcm, 0, int(len(pcm) / speed), speed) if speed != 1.0 else pcm.astype(np.float32) / 32768
    loud = level(x)
    if voice and rng.random() < 0.05:
        x = whisper(x, rng)
    if voice and rng.random() < 0.25 and len(x) > 1.5 * RATE:
        x, where = cut(x, rng)
        gaps.append(where)
    if rng.random() < 0.5:
        x = microphone(x, rng)
    if voice and rng.random() < 0.25:
        x = room(x, rng)
    if voice and rng.random() < 0.08:
        x = telephone(x, rng)
    kind = rng.random()
    if voice and kind < 0.55:
        x = x * loud / level(x)
        if kind < 0.35 or not len(noises):
            x = x + coloured(len(x), rng) * loud * 10 ** (-rng.uniform(10, 45) / 20)
        else:
            other = noises[rng.integers(len(noises))].astype(np.float32)
            other = np.resize(other, len(x))
            x = x + other / level(other) * loud * 10 ** (-rng.uniform(8, 25) / 20)
    target = 0.06 if rng.random() < 0.5 else max(loud, 0.004)
    x = x * (target / level(x) * 10 ** (rng.uniform(-12, 10) / 20))
    return Changed(np.clip(x, -1, 1).astype(np.float32), speed, gaps)
