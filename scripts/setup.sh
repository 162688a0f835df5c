#!/usr/bin/env bash
# Installs what Lipstream needs on Debian 12 besides Rust: GStreamer and its development files from Debian, and
# libonnxruntime with its OpenVINO provider, unpacked under the project in .lipstream/ort.
# What is already there is left alone, so running it again costs a fraction of a second.
#
#   LIPSTREAM_ORT_WHEEL=FILE   take the wheel from FILE in place of the package index
#   LIPSTREAM_SETUP_TESTS=1    install too what only the tests need: other servers, browsers, players, aiortc and
#                              pipecat as peers, moto as S3, schemathesis, C2PA's reader, NVIDIA's NVRTC, what sdk/js is built with
#   PIP_INDEX_URL, pip.conf    choose the package index, as for pip
set -euo pipefail
cd "$(dirname "$0")/.."

PACKAGES=(
    build-essential pkg-config libssl-dev libsqlite3-dev ca-certificates unzip python3 python3-pip ffmpeg zlib1g
    gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad
    gstreamer1.0-plugins-ugly gstreamer1.0-libav gstreamer1.0-x
    libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev libgstreamer-plugins-bad1.0-dev
)

# What only `make test` needs, to try real peers.
TEST_PACKAGES=(
    nginx libnginx-mod-rtmp janus chromium firefox-esr mpv vlc-bin vlc-plugin-base
    gstreamer1.0-nice python3-gi gir1.2-gst-plugins-bad-1.0 python3-venv nats-server
)
[ "${LIPSTREAM_SETUP_TESTS:-0}" = 0 ] || PACKAGES+=("${TEST_PACKAGES[@]}")

# onnxruntime-openvino from PyPI: the shared libraries inside are what we want, its Python part is not installed.
ORT_VERSION=1.24.1
ORT_FILE=onnxruntime_openvino-$ORT_VERSION-cp311-cp311-manylinux_2_28_x86_64.whl
ORT_SHA256=3007c803634cc69c6d52af1dea7ce729d9bb62b9a11070fd2f959119199007a8
ORT_LIBRARIES=(
    libonnxruntime.so.$ORT_VERSION libonnxruntime_providers_shared.so libonnxruntime_providers_openvino.so
    libopenvino.so.2541 libopenvino_onnx_frontend.so.2541 libopenvino_intel_cpu_plugin.so libtbb.so.12 libtbbmalloc.so
)
ORT_DIR=.lipstream/ort

# nvidia-cuda-nvrtc from PyPI, only for tests: compiles the kernels for cards, and needs none.
NVRTC_VERSION=13.0.88
NVRTC_FILE=nvidia_cuda_nvrtc-$NVRTC_VERSION-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl
NVRTC_SHA256=ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575
NVRTC_DIR=.lipstream/nvrtc

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

missing_packages() {
    local package
    local installed
    installed=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' "${PACKAGES[@]}" 2>/dev/null |
        sed -n 's/^installed //p' || true)
    for package in "${PACKAGES[@]}"; do
        grep -qxF "$package" <<<"$installed" || echo "$package"
    done
}

# Python and pip only fetch the wheel: what another tool already provides is not asked of the system.
provided() {
    case $1 in
        python3-pip) command -v pip3 >/dev/null && pip3 --version >/dev/null 2>&1 ;;
        python3) command -v python3 >/dev/null && python3 -c '' 2>/dev/null ;;
        *) return 1 ;;
    esac
}

install_packages() {
    if ! command -v dpkg-query >/dev/null; then
        pkg-config --atleast-version=1.22 gstreamer-1.0 2>/dev/null ||
            fail "this is no Debian system: install GStreamer 1.22 or newer (base, good, bad, ugly, libav, tools, development files), pkg-config, ffmpeg, then run this again"
        say "no Debian system: using GStreamer $(pkg-config --modversion gstreamer-1.0) as found"
        return
    fi
    local package
    local missing=()
    for package in $(missing_packages); do
        provided "$package" || missing+=("$package")
    done
    if [ ${#missing[@]} = 0 ]; then
        say "Debian packages: all there"
        return
    fi
    [ "$(id -u)" = 0 ] || command -v sudo >/dev/null ||
        fail "as root, run: apt-get install ${missing[*]}"
    say "Debian packages: installing ${missing[*]}"
    as_root apt-get update -q
    # Run level 1: a server among the packages is installed and not started.
    as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -q --no-install-recommends "${missing[@]}"
}

# Puts the verified wheel at $1.
fetch_wheel() {
    local target=$1
    local folder
    folder=$(dirname "$target")
    if [ -n "${LIPSTREAM_ORT_WHEEL:-}" ]; then
        cp -- "$LIPSTREAM_ORT_WHEEL" "$target"
    else
        printf 'onnxruntime-openvino==%s --hash=sha256:%s\n' "$ORT_VERSION" "$ORT_SHA256" >"$folder/requirements.txt"
        pip3 download --quiet --disable-pip-version-check --no-deps --require-hashes \
            --only-binary=:all: --implementation cp --python-version 3.11 --platform manylinux_2_28_x86_64 \
            --dest "$folder" --requirement "$folder/requirements.txt" ||
            fail "pip could not fetch $ORT_FILE: set LIPSTREAM_ORT_WHEEL to a copy of it"
        [ "$folder/$ORT_FILE" = "$target" ] || mv -- "$folder/$ORT_FILE" "$target"
    fi
    echo "$ORT_SHA256  $target" | sha256sum --check --quiet - ||
        fail "the wheel is not the one expected (sha256 $ORT_SHA256)"
}

install_onnxruntime() {
    if [ "$(cat "$ORT_DIR/sha256" 2>/dev/null)" = "$ORT_SHA256" ]; then
        say "ONNX Runtime $ORT_VERSION: there"
        return
    fi
    [ "$(uname -m)" = x86_64 ] ||
        fail "ONNX Runtime with OpenVINO is pinned for x86_64; on $(uname -m) set LIPSTREAM_ORT_LIB to a libonnxruntime.so of version $ORT_VERSION"
    say "ONNX Runtime $ORT_VERSION with OpenVINO: fetching (84 MB)"
    mkdir -p .lipstream
    local work
    work=$(mktemp -d .lipstream/ort.XXXXXX)
    # shellcheck disable=SC2064
    trap "rm -rf -- '$work'" EXIT
    mkdir "$work/wheel" "$work/ort"
    fetch_wheel "$work/wheel/$ORT_FILE"
    local members=("${ORT_LIBRARIES[@]/#/onnxruntime/capi/}")
    unzip -q -j "$work/wheel/$ORT_FILE" "${members[@]}" onnxruntime/LICENSE onnxruntime/ThirdPartyNotices.txt -d "$work/ort"
    ln -s libonnxruntime.so.$ORT_VERSION "$work/ort/libonnxruntime.so"
    ln -s libopenvino.so.2541 "$work/ort/libopenvino.so"
    ln -s libopenvino_onnx_frontend.so.2541 "$work/ort/libopenvino_onnx_frontend.so"
    ln -s libtbb.so.12 "$work/ort/libtbb.so"
    echo "$ORT_SHA256" >"$work/ort/sha256"
    rm -rf -- "$ORT_DIR"
    mv -- "$work/ort" "$ORT_DIR"
    say "ONNX Runtime $ORT_VERSION: unpacked in $ORT_DIR ($(du -sh "$ORT_DIR" | cut -f1))"
}

# Without it the tests that need it are skipped, so nothing ends here.
install_nvrtc() {
    if [ "$(cat "$NVRTC_DIR/sha256" 2>/dev/null)" = "$NVRTC_SHA256" ]; then
        say "NVRTC $NVRTC_VERSION: there"
        return
    fi
    say "NVRTC $NVRTC_VERSION: fetching (90 MB)"
    mkdir -p .lipstream
    local work
    work=$(mktemp -d .lipstream/nvrtc.XXXXXX)
    if [ "$(uname -m)" = x86_64 ] && unpack_nvrtc "$work"; then
        rm -rf -- "$NVRTC_DIR"
        mv -- "$work/nvrtc" "$NVRTC_DIR"
        say "NVRTC $NVRTC_VERSION: unpacked in $NVRTC_DIR ($(du -sh "$NVRTC_DIR" | cut -f1))"
    else
        say "NVRTC $NVRTC_VERSION could not be had: the kernels are not compiled for cards in tests"
    fi
    rm -rf -- "$work"
}

unpack_nvrtc() {
    local work=$1
    printf 'nvidia-cuda-nvrtc==%s --hash=sha256:%s\n' "$NVRTC_VERSION" "$NVRTC_SHA256" >"$work/requirements.txt"
    pip3 download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: \
        --platform manylinux_2_28_x86_64 --platform manylinux2010_x86_64 --platform manylinux_2_12_x86_64 \
        --dest "$work" --requirement "$work/requirements.txt" || return
    unzip -q -j "$work/$NVRTC_FILE" nvidia/cu13/lib/libnvrtc.so.13 nvidia/cu13/lib/libnvrtc-builtins.so.13.0 \
        '*/licenses/License.txt' -d "$work/nvrtc" || return
    echo "$NVRTC_SHA256" >"$work/nvrtc/sha256"
}

# A Python environment of the tests: NAME LIST FOLDER SIZE.
install_environment() {
    local name=$1 list=$2 folder=$3 size=$4
    # Debian's Python, where it is: its venv is among the packages.
    local python=/usr/bin/python3
    [ -x "$python" ] || python=python3
    local wanted
    wanted=$("$python" --version && cat "$list")
    if [ "$(cat "$folder/made-from" 2>/dev/null)" = "$wanted" ]; then
        say "$name: there"
        return
    fi
    say "$name: installing in $folder ($size)"
    rm -rf -- "$folder"
    "$python" -m venv "$folder" || fail "$python makes no virtual environment: install its venv module"
    # docopt, of one module, has no wheel.
    "$folder/bin/pip" install --quiet --disable-pip-version-check --only-binary=:all: --no-binary=docopt --use-pep517 \
        --requirement "$list" || fail "pip could not install $list: PIP_INDEX_URL chooses another package index"
    printf '%s\n' "$wanted" >"$folder/made-from"
}

# Without them the test of what sdk/js gives is skipped, so nothing ends here.
install_npm_tools() {
    local lock=sdk/js/package-lock.json folder=.lipstream/js
    if cmp -s "$lock" "$folder/made-from"; then
        say "TypeScript and esbuild: there"
        return
    fi
    say "TypeScript and esbuild: fetching (14 MB)"
    mkdir -p .lipstream
    local work
    work=$(mktemp -d .lipstream/js.XXXXXX)
    if [ "$(uname -m)" = x86_64 ] && python3 scripts/npm-tools.py "$lock" "$work"; then
        cp "$lock" "$work/made-from"
        rm -rf -- "$folder"
        mv -- "$work" "$folder"
    else
        rm -rf -- "$work"
        say "TypeScript and esbuild could not be had (NPM_CONFIG_REGISTRY chooses another registry): sdk/js is not built in tests"
    fi
}

install_test_environments() {
    install_environment aiortc tests/peers/requirements.txt .lipstream/peers "160 MB"
    install_environment c2pa tests/provenance/requirements.txt .lipstream/c2pa "60 MB"
    install_environment moto tests/storage/requirements.txt .lipstream/moto "140 MB"
    install_environment schemathesis tests/api/requirements.txt .lipstream/api "90 MB"
    install_environment "checks of deploy/" tests/deploy/requirements.txt .lipstream/deploy "210 MB"
    install_environment pipecat tests/agents/requirements.txt .lipstream/agents "750 MB"
    install_nvrtc
    install_npm_tools
}

check_rust() {
    command -v cargo >/dev/null || fail "cargo is not in PATH: install Rust 1.92 or newer from https://rustup.rs"
}

check_rust
install_packages
install_onnxruntime
[ "${LIPSTREAM_SETUP_TESTS:-0}" = 0 ] || install_test_environments
