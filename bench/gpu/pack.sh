#!/usr/bin/env bash
# Packs what a machine with a card and without a network needs, in parts that fit a transfer beside the sources.
#
#   bench/gpu/pack.sh OUT [ARCH]
#
# The CUDA build of ONNX Runtime (CUDA 13), device code of other architectures than ARCH (90 by default: H100, H200) zeroed, is left in
# OUT/ort and packed in OUT/ort.tar.zst.*; the programs of this check, stripped, and the golden files of GOLDEN (LIPSTREAM_SHARED/golden),
# where these are, in OUT/check.tar.zst.*. Parts have at most 20 MB. On the other machine:
#   for name in ort check; do cat $name.tar.zst.* | zstd -d --long=27 | tar x; done
#   LIPSTREAM_ORT_LIB=$PWD/ort BENCH=$PWD/check/lipstream-bench-gpu KERNELS=$PWD/check/lipstream-bench-kernels \
#       STREAM=$PWD/check/lipstream-bench-stream GOLDEN=$PWD/check/golden bench/gpu/run.sh
set -euo pipefail
VERSION=1.31.1
FILE=onnxruntime_gpu-$VERSION-cp312-cp312-manylinux_2_28_x86_64.whl
SHA256=05d548956197b9d01f59b625de740e0d6be3593f874e241a12dc0362650ecdf7
out=${1:?pack.sh OUT [ARCH]} arch=${2:-90}
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
mkdir -p "$out/ort"
[ -f "$out/$FILE" ] || python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
    --platform manylinux_2_28_x86_64 -d "$out" "onnxruntime-gpu==$VERSION"
echo "$SHA256  $out/$FILE" | sha256sum -c --quiet
for library in libonnxruntime.so.$VERSION libonnxruntime_providers_shared.so libonnxruntime_providers_cuda.so \
    libonnxruntime_providers_tensorrt.so; do
    unzip -qojd "$out/ort" "$out/$FILE" "onnxruntime/capi/$library"
done
python3 "$here/prune.py" "$out/ort/libonnxruntime_providers_cuda.so" "$arch"
pack() { # NAME
    rm -f "$out/$1.tar.zst."*
    # The programs hold the same models: a long window has them once.
    tar -C "$out" -c "$1" | zstd -q -19 -T0 --long=27 | split -b 20M - "$out/$1.tar.zst."
}
pack ort
build=${BUILD:-$root/target/release} golden=${GOLDEN:-${LIPSTREAM_SHARED:+$LIPSTREAM_SHARED/golden}}
rm -rf "$out/check"
mkdir -p "$out/check"
for program in gpu kernels stream; do
    strip -o "$out/check/lipstream-bench-$program" "$build/lipstream-bench-$program"
done
for family in wav2lip wav2lip256 synctalk2d musetalk15 latentsync15; do
    [ ! -d "$golden/$family" ] || { mkdir -p "$out/check/golden" && cp -rL --no-preserve=mode "$golden/$family" "$out/check/golden/"; }
done
pack check
ls -l "$out"/*.tar.zst.*
