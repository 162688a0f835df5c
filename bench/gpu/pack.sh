#!/usr/bin/env bash
# Fetches the CUDA build of ONNX Runtime (CUDA 13) and makes it small enough to carry to a machine without a network.
#
#   bench/gpu/pack.sh OUT [ARCH]
#
# OUT/ort holds the libraries, device code of other architectures than ARCH (90 by default: H100, H200) zeroed;
# OUT/ort.tar.zst.* holds them packed in parts of at most 25 MB. On the other machine:
#   cat ort.tar.zst.* | zstd -d | tar x    and LIPSTREAM_ORT_LIB=$PWD/ort
set -euo pipefail
VERSION=1.31.1
FILE=onnxruntime_gpu-$VERSION-cp312-cp312-manylinux_2_28_x86_64.whl
SHA256=05d548956197b9d01f59b625de740e0d6be3593f874e241a12dc0362650ecdf7
out=${1:?pack.sh OUT [ARCH]} arch=${2:-90}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out/ort"
[ -f "$out/$FILE" ] || python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
    --platform manylinux_2_28_x86_64 -d "$out" "onnxruntime-gpu==$VERSION"
echo "$SHA256  $out/$FILE" | sha256sum -c --quiet
for library in libonnxruntime.so.$VERSION libonnxruntime_providers_shared.so libonnxruntime_providers_cuda.so \
    libonnxruntime_providers_tensorrt.so; do
    unzip -qojd "$out/ort" "$out/$FILE" "onnxruntime/capi/$library"
done
python3 "$here/prune.py" "$out/ort/libonnxruntime_providers_cuda.so" "$arch"
tar -C "$out" -c ort | zstd -q -19 -T0 | split -b 25M - "$out/ort.tar.zst."
ls -l "$out"/ort.tar.zst.*
