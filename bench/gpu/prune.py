#!/usr/bin/env python3
"""prune.py LIBRARY ARCH: zeroes in place the device code of a CUDA library that is not for ARCH (90, say).

The headers, by which the driver chooses, stay, and so does every address: the file only compresses better.
The layout read here: containers (magic 0xBA55ED50, u16 version, u16 header, u64 size) of entries (u16 kind: 1 PTX,
2 machine code; u16 version, u32 header, u64 size; the architecture as u32 at byte 28).
"""
import collections
import struct
import sys

MAGIC = struct.pack("<I", 0xBA55ED50)


def main():
    path, keep = sys.argv[1], int(sys.argv[2])
    with open(path, "rb") as f:
        data = bytearray(f.read())
    sizes = collections.Counter()
    at = 0
    while (at := data.find(MAGIC, at)) >= 0:
        version, header, size = struct.unpack_from("<HHQ", data, at + 4)
        end = at + header + size
        if version != 1 or header != 16 or end > len(data):
            at += 4
            continue
        entry = at + header
        while entry + 32 <= end:
            kind, _, header, size = struct.unpack_from("<HHIQ", data, entry)
            (arch,) = struct.unpack_from("<I", data, entry + 28)
            if kind not in (1, 2) or header < 32 or entry + header + size > end:
                sys.exit(f"{path}: byte {entry}: an entry of kind {kind} is not understood; the file is left as it was")
            sizes[arch] += size
            if arch != keep:
                data[entry + header : entry + header + size] = bytes(size)
            entry += header + size
        at = end
    if not sizes[keep]:
        sys.exit(f"{path}: holds code for {sorted(sizes)}, none for {keep}; the file is left as it was")
    with open(path, "wb") as f:
        f.write(data)
    print(f"{path}: kept {sizes[keep]} bytes of device code for {keep} of {sum(sizes.values())}")


if __name__ == "__main__":
    main()
