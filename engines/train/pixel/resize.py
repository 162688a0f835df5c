"""Writes what OpenCV's `resize` makes of noise, for the tests of engines/src/image/resize.rs.

    python -m pixel.resize FILE.safetensors

`KIND/WIDTHxHEIGHT/WIDTHxHEIGHT` u8 [H, W, 3]: linear or cubic, the size of the noise and of the picture.
"""
import sys

import cv2
import numpy as np
from safetensors.numpy import save_file

SIZES = [((7, 5), (10, 9)), ((11, 9), (6, 4)), ((5, 6), (5, 11)), ((8, 8), (4, 4)), ((33, 21), (47, 40))]
KINDS = {"linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}


def noise(width, height):
    state, out = width * 1000 + height, []
    for _ in range(width * height * 3):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        out.append(state >> 24)
    return np.array(out, np.uint8).reshape(height, width, 3)


def main():
    tensors = {
        f"{kind}/{w}x{h}/{to[0]}x{to[1]}": cv2.resize(noise(w, h), to, interpolation=flag)
        for kind, flag in KINDS.items() for (w, h), to in SIZES
    }
    save_file(tensors, sys.argv[1], metadata={"opencv": cv2.__version__})


if __name__ == "__main__":
    main()
