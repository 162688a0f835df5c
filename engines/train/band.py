#!/usr/bin/env python3
"""What lies beyond a telephone's band, from what lies in it: a linear map between logarithmic mel bins.

    band.py OUT SOUND ..     fits on recordings (anything that ffmpeg reads) and writes OUT, f32 little-endian, row by row:
                             one row for each bin of the band and one of constants, a column for each bin beyond it.

Bins whose filters peak between LOW and HIGH Hz are the band. Frames in which the band is within 3 nepers (of power) of
silence are left out; each recording is heard at three levels; the ridge is 100. Prints the residual's deviation by bin.
"""

import subprocess
import sys

import numpy as np

from audio import FLOOR, MELS, RATE, hz_to_mel, log_mel, mel_to_hz

LOW, HIGH, RIDGE = 320, 3300, 100.0
GAINS = (0.25, 1.0, 4.0)


def bins():
    peaks = mel_to_hz(np.linspace(0, hz_to_mel(RATE / 2), MELS + 2))[1:-1]
    inside = (peaks > LOW) & (peaks < HIGH)
    return np.flatnonzero(inside), np.flatnonzero(~inside)


def frames(path):
    command = ["ffmpeg", "-v", "error", "-i", path, "-ac", "1", "-ar", str(RATE), "-f", "f32le", "-"]
    sound = np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.float32)
    return np.concatenate([log_mel(sound * gain) for gain in GAINS])


def main(out, paths):
    band, beyond = bins()
    mels = np.concatenate([frames(path) for path in paths])
    mels = mels[mels[:, band].mean(1) > np.log(FLOOR) + 3]
    x, y = np.c_[mels[:, band], np.ones(len(mels))], mels[:, beyond]
    weights = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ y)
    print(f"{len(mels)} frames, {len(band)} bins to {len(beyond)}; residuals {np.round((y - x @ weights).std(0), 1)}")
    weights.astype("<f4").tofile(out)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
