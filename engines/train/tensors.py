"""safetensors files of f32 arrays: 8 bytes of little-endian header length, a JSON header, the data in the header's order."""

import json
import struct
from pathlib import Path

import numpy as np


def save(path, tensors):
    """Write a dict of arrays as F32, with the header padded to 8 bytes."""
    header, chunks, at = {}, [], 0
    for name, array in tensors.items():
        data = np.ascontiguousarray(array, np.dtype("<f4")).tobytes()
        header[name] = {"dtype": "F32", "shape": list(np.shape(array)), "data_offsets": [at, at + len(data)]}
        chunks.append(data)
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(chunks))


def load(path):
    """The arrays of a file of F32 tensors."""
    raw = Path(path).read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header, body = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    header.pop("__metadata__", None)
    return {k: np.frombuffer(body[v["data_offsets"][0] : v["data_offsets"][1]], "<f4").reshape(v["shape"]).copy() for k, v in header.items()}
