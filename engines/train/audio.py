"""Log-mel front-end: the one definition that training and the Rust front-end share.

16 kHz mono f32 in -1..1. Mel frame m covers the samples [160 m, 160 m + 400): periodic Hann of 400, zero-padded
FFT of 512, power |X|^2 of 257 bins, 80 triangular filters (HTK mel scale of Young et al., "The HTK Book",
m = 2595 log10(1 + f / 700), 0..8000 Hz, peak 1, triangles linear in Hz between their corner frequencies),
y = ln(max(e, 1e-6)). No pre-emphasis, no dither, nothing that looks at the whole file.

    audio.py --golden FILE      writes `samples` f32 [8000] and `mel` f32 [48, 80] for other implementations to match
"""
import argparse

import numpy as np

RATE = 16000
SHIFT = 160
LENGTH = 400
FFT = 512
MELS = 80
FLOOR = 1e-6
# Normalise the log mel: its mean and deviation over the sound of the training clips.
MEL_MEAN, MEL_STD = -4.618, 4.874


def hz_to_mel(hz):
    """HTK mel of a frequency in Hz."""
    return 2595.0 * np.log10(1.0 + np.asarray(hz, np.float64) / 700.0)


def mel_to_hz(mel):
    """Frequency in Hz of an HTK mel."""
    return 700.0 * (10.0 ** (np.asarray(mel, np.float64) / 2595.0) - 1.0)


def mel_filters(warp=1.0):
    """Triangular filters, f64 [80, 257]. `warp` scales every corner frequency (vocal-tract length, training only)."""
    corners = mel_to_hz(np.linspace(0.0, hz_to_mel(RATE / 2), MELS + 2)) * warp
    bins = np.arange(FFT // 2 + 1) * RATE / FFT
    low, mid, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    return np.maximum(0.0, np.minimum((bins - low) / (mid - low), (high - bins) / (high - mid)))


def window():
    """Periodic Hann, f64 [400]."""
    return 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(LENGTH) / LENGTH)


def frames_in(samples):
    """Whole mel frames in that many samples."""
    return max(0, (samples - LENGTH) // SHIFT + 1)


def log_mel(samples):
    """Log mel in double precision, f64 [M, 80], of f32 [N] samples; not normalised."""
    x = np.asarray(samples, np.float64)
    count = frames_in(len(x))
    if count == 0:
        return np.zeros((0, MELS))
    index = np.arange(count)[:, None] * SHIFT + np.arange(LENGTH)
    power = np.abs(np.fft.rfft(x[index] * window(), FFT)) ** 2
    return np.log(np.maximum(power @ mel_filters().T, FLOOR))


def golden():
    """Half a second that other implementations must match: a chirp of 100..7000 Hz, seeded noise, 50 ms of silence."""
    t = np.arange(RATE // 2) / RATE
    phase = 2.0 * np.pi * (100.0 * t + (7000.0 - 100.0) * t * t)
    noise = np.random.default_rng(7).standard_normal(len(t))
    samples = (0.4 * np.sin(phase) + 0.02 * noise).astype(np.float32)
    samples[3200:4000] = 0.0
    return samples, log_mel(samples).astype(np.float32)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", required=True, help="safetensors file to write")
    path = parser.parse_args().golden
    from tensors import save

    samples, mel = golden()
    save(path, {"samples": samples, "mel": mel})
    print(f"{path}: samples {samples.shape}, mel {mel.shape}")


if __name__ == "__main__":
    main()
