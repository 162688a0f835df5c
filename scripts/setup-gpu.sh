#!/usr/bin/env bash
# Installs what Lipstream needs to run on an NVIDIA card besides `make setup` and the driver: the CUDA build of ONNX Runtime, and of
# CUDA 13 and cuDNN 9 the libraries that this machine lacks, all from PyPI, unpacked under the project in .lipstream/ort-gpu and
# .lipstream/cuda. Lipstream finds them there without environment variables, and uses them where a driver is.
# What is already there is left alone. It needs no card: an image can be made ready on a machine without one.
#
#   scripts/setup-gpu.sh [--tensorrt FOLDER]
#
#   --tensorrt FOLDER          link TensorRT 10 for CUDA 13 from FOLDER (its tar archive unpacked, or where Debian's packages put it:
#                              /usr/lib/x86_64-linux-gnu); NVIDIA gives it out itself, PyPI does not have it
#   PIP_INDEX_URL, pip.conf    choose the package index, as for pip
set -euo pipefail
cd "$(dirname "$0")/.."

# Package, version, sha256 of its wheel, bytes to fetch in MB, and the libraries to take from it. They are those that PyTorch 2.11 for
# CUDA 13.0 brings, with which ONNX Runtime was measured; any CUDA 13 and cuDNN 9 of the machine serves as well.
PACKAGES=(
    "nvidia-cuda-runtime 13.0.96 7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548 3 nvidia/cu13/lib/libcudart.so.13"
    "nvidia-cublas 13.0.2.14 0cf238ffdbe46c00cb9aa98e7bca745c223a5ca5a53e686ac8b3e5a08fe80d6c 421 nvidia/cu13/lib/libcublas.so.13 nvidia/cu13/lib/libcublasLt.so.13"
    "nvidia-curand 10.4.0.35 1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc 60 nvidia/cu13/lib/libcurand.so.10"
    "nvidia-cuda-nvrtc 13.0.88 ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575 91 nvidia/cu13/lib/libnvrtc.so.13 nvidia/cu13/lib/libnvrtc-builtins.so.13.0"
    "nvidia-cudnn-cu13 9.13.1.26 a0f434a881ce8b35afe3a328634db1da4a3852fc6dfbe89577f3e78400ee10d0 349 nvidia/cudnn/lib/libcudnn.so.9 nvidia/cudnn/lib/libcudnn_adv.so.9 nvidia/cudnn/lib/libcudnn_cnn.so.9 nvidia/cudnn/lib/libcudnn_engines_precompiled.so.9 nvidia/cudnn/lib/libcudnn_engines_runtime_compiled.so.9 nvidia/cudnn/lib/libcudnn_graph.so.9 nvidia/cudnn/lib/libcudnn_heuristic.so.9 nvidia/cudnn/lib/libcudnn_ops.so.9"
)
CUDA_DIR=.lipstream/cuda

ORT_VERSION=1.31.1
ORT_SHA256=e26c475fe361b2015f45b4b824bd13f0bb20204e59b62814e6f0acd5f3d491a6
ORT_LIBRARIES=(
    libonnxruntime.so.$ORT_VERSION libonnxruntime_providers_shared.so libonnxruntime_providers_cuda.so
    libonnxruntime_providers_tensorrt.so
)
ORT_DIR=.lipstream/ort-gpu

TENSORRT_DIR=.lipstream/tensorrt
TENSORRT_LIBRARIES=(libnvinfer.so.10 libnvonnxparser.so.10)

# The first driver that runs CUDA 13.
DRIVER=580

say() { printf 'setup-gpu: %s\n' "$*"; }
fail() { printf 'setup-gpu: %s\n' "$*" >&2; exit 1; }

# A folder for what is being fetched, beside where it goes so that it can be moved there in one step.
work=
scratch() {
    mkdir -p .lipstream
    work=$(mktemp -d .lipstream/gpu.XXXXXX)
}
trap 'rm -rf -- "$work"' EXIT

check_driver() {
    local version
    version=$(sed -n 's/^NVRM version:.*Kernel Module[^0-9]*\([0-9.]*\).*/\1/p' "${LIPSTREAM_DRIVER_FILE:-/proc/driver/nvidia/version}" 2>/dev/null || true)
    if [ -z "$version" ]; then
        say "driver: none on this machine; cards need NVIDIA's driver $DRIVER or newer"
    elif [ "${version%%.*}" -lt "$DRIVER" ]; then
        fail "driver $version is older than $DRIVER, which CUDA 13 needs: install a newer one (Debian: nvidia-driver; or NVIDIA's own)"
    else
        say "driver $version: there"
    fi
}

# fetch PACKAGE VERSION SHA256: the verified wheel is the one in $work/PACKAGE.
fetch() {
    local folder=$work/$1
    mkdir "$folder"
    printf '%s==%s --hash=sha256:%s\n' "$1" "$2" "$3" >"$folder/requirements.txt"
    pip3 download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: \
        --implementation cp --python-version 3.11 \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 \
        --platform manylinux2014_x86_64 --platform manylinux2010_x86_64 --platform manylinux_2_12_x86_64 \
        --dest "$folder" --requirement "$folder/requirements.txt" ||
        fail "pip could not fetch $1 $2: PIP_INDEX_URL chooses another package index"
}

# Whether the system's loader knows all these libraries.
on_the_machine() {
    local library
    for library in "$@"; do
        ldconfig -p 2>/dev/null | grep -q "[[:space:]]$(basename "$library") .*x86-64" || return 1
    done
}

install_cuda() {
    local entry package version sha256 megabytes libraries
    for entry in "${PACKAGES[@]}"; do
        read -r package version sha256 megabytes libraries <<<"$entry"
        # shellcheck disable=SC2086
        if [ "$(cat "$CUDA_DIR/$package.sha256" 2>/dev/null)" = "$sha256" ]; then
            say "$package $version: there"
        elif on_the_machine $libraries; then
            say "$package: this machine has its own"
        else
            say "$package $version: fetching ($megabytes MB)"
            fetch "$package" "$version" "$sha256"
            mkdir "$work/$package/lib"
            unzip -q -j "$work/$package"/*.whl $libraries '*icense*' -d "$work/$package/lib"
            mkdir -p "$CUDA_DIR"
            mv -- "$work/$package/lib/"[Ll]icense* "$work/$package/lib/$package.License.txt" 2>/dev/null || true
            mv -- "$work/$package/lib/"* "$CUDA_DIR"
            echo "$sha256" >"$CUDA_DIR/$package.sha256"
            rm -rf -- "${work:?}/$package"
        fi
    done
}

install_onnxruntime() {
    if [ "$(cat "$ORT_DIR/sha256" 2>/dev/null)" = "$ORT_SHA256" ]; then
        say "ONNX Runtime $ORT_VERSION with CUDA and TensorRT: there"
        return
    fi
    say "ONNX Runtime $ORT_VERSION with CUDA and TensorRT: fetching (256 MB)"
    fetch onnxruntime-gpu "$ORT_VERSION" "$ORT_SHA256"
    mkdir "$work/ort"
    unzip -q -j "$work"/onnxruntime-gpu/*.whl "${ORT_LIBRARIES[@]/#/onnxruntime/capi/}" onnxruntime/LICENSE \
        onnxruntime/ThirdPartyNotices.txt -d "$work/ort"
    ln -s "libonnxruntime.so.$ORT_VERSION" "$work/ort/libonnxruntime.so"
    echo "$ORT_SHA256" >"$work/ort/sha256"
    rm -rf -- "$ORT_DIR" "$work/onnxruntime-gpu"
    mv -- "$work/ort" "$ORT_DIR"
    say "ONNX Runtime $ORT_VERSION: unpacked in $ORT_DIR ($(du -sh "$ORT_DIR" | cut -f1))"
}

# Links TensorRT's libraries; its builder's resources lie beside them and are found from there.
install_tensorrt() {
    local folder=$1 library path
    [ -d "$folder" ] || fail "--tensorrt $folder: no such folder"
    [ ! -d "$folder/lib" ] || folder=$folder/lib
    folder=$(realpath "$folder")
    for library in "${TENSORRT_LIBRARIES[@]}"; do
        [ -e "$folder/$library" ] && continue
        local others
        others=$(find "$folder" -maxdepth 1 -name "${library%.*}.*" -printf '%f ' 2>/dev/null)
        [ -z "$others" ] || fail "--tensorrt $folder: holds ${others% } and not $library: ONNX Runtime's provider needs TensorRT 10"
        fail "--tensorrt $folder: holds no $library: name the folder of TensorRT 10 for CUDA 13"
    done
    mkdir -p "$TENSORRT_DIR"
    for path in "$folder"/libnvinfer*.so.10* "$folder"/libnvonnxparser.so.10*; do
        [ ! -e "$path" ] || ln -sfn "$path" "$TENSORRT_DIR/$(basename "$path")"
    done
    say "TensorRT 10: linked from $folder"
}

tensorrt=
while [ $# -gt 0 ]; do
    case $1 in
        --tensorrt) [ $# -ge 2 ] || fail "--tensorrt needs a folder"; tensorrt=$2; shift 2 ;;
        *) fail "unknown argument $1; usage: scripts/setup-gpu.sh [--tensorrt FOLDER]" ;;
    esac
done
[ "$(uname -m)" = x86_64 ] || fail "the CUDA build of ONNX Runtime on PyPI is for x86_64, this machine is $(uname -m)"
check_driver
scratch
[ -z "$tensorrt" ] || install_tensorrt "$tensorrt"
install_cuda
install_onnxruntime
say "done; \`lipstream doctor\` says what works"
