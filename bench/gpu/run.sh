#!/usr/bin/env bash
# Measures a card, what says most first: a stream of LatentSync in the card's memory, the networks that ship with TensorRT where that
# is, the CUDA kernels, the stream by other tunings, the networks with CUDA, and the published families' networks in PyTorch. Each part
# stands alone: what fails or is cut short leaves the others their figures.
#
#   bench/gpu/run.sh [--dry] [--parts stream,tensorrt,kernels,tunings,networks,floor] [--out DIR]
#
#   --dry          all that can be run without a card, on the CPU; nothing that it times is worth telling
#   LIPSTREAM_ORT_LIB   folder of the CUDA build of ONNX Runtime (bench/gpu/pack.sh makes it)
#   ENGINE         folder of an imported LatentSync for `stream` and `tunings`; without it one of a few channels is made
#   TUNINGS        how the CUDA provider is asked to work in `tunings`, one after another, each [PRECISION/]name=value,... and
#                  semicolons between them: what is slow or not finite by default may be neither in one of them
#   BENCH, KERNELS, STREAM, MODELS, PYTHON   lipstream-bench-gpu, -kernels and -stream, engines/models and a python3 with torch,
#                  where they are not at their places
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
dry=() parts=stream,tensorrt,kernels,tunings,networks,floor out=${OUT:-$root/target/gpu}
while [ $# -gt 0 ]; do
    case $1 in
        --dry) dry=(--dry) ;;
        --parts) parts=${2:?--parts needs names}; shift ;;
        --out) out=${2:?--out needs a folder}; shift ;;
        *) echo "run.sh: unknown option \`$1\`; it takes --dry, --parts, --out" >&2; exit 2 ;;
    esac
    shift
done
mkdir -p "$out"
BENCH=${BENCH:-$root/target/release/lipstream-bench-gpu} KERNELS=${KERNELS:-$root/target/release/lipstream-bench-kernels}
STREAM=${STREAM:-$root/target/release/lipstream-bench-stream} ENGINE=${ENGINE:-} MODELS=${MODELS:-$root/engines/models} PYTHON=${PYTHON:-python3}
export PYTHONUNBUFFERED=1
status=0

# The CUDA libraries that torch brings as wheels serve ONNX Runtime too.
libraries=$("$PYTHON" -c 'import glob, os, nvidia; print(":".join(sorted(d for p in nvidia.__path__ for d in glob.glob(p + "/*/lib"))))' 2>/dev/null)
export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

part() { # NAME COMMAND...
    local name=$1 begun=$SECONDS
    shift
    case ,$parts, in *,"$name",*) ;; *) return ;; esac
    echo "== $name"
    "$@" 2>&1 | tee "$out/$name.log"
    local code=${PIPESTATUS[0]}
    [ "$code" = 0 ] || status=1
    echo "== $name: exit $code after $((SECONDS - begun)) s"
}

nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.max.mem,power.limit --format=csv,noheader 2>/dev/null | tee "$out/card.txt" ||
    echo "no card here"

# One thing after another that is not so by default; first as all was before (one program for all shapes, no tensor cores).
TUNINGS=${TUNINGS:-"apart=0,tensor-cores=0;apart=0;tensor-cores=0;graphs=1;memory=none,tight-arena=0;max-workspace=0;search=exhaustive;channels-last=1;fuse-bias=1;tf32/;fusions=basic;graphs=1,channels-last=1,fuse-bias=1"}
stream=("$STREAM") networks=("$BENCH" --models "$MODELS")
[ -z "$ENGINE" ] || stream+=(--engine "$ENGINE")
if [ ${#dry[@]} = 0 ]; then
    part stream "${stream[@]}" --json "$out/stream.json" --clips 1 --timed 4 --tunings ""
    # The first run of a batch builds its engine. Without TensorRT it says what is missing.
    part tensorrt "${networks[@]}" --json "$out/tensorrt.json" --device tensorrt:0 --precisions fp32,fp16,bf16 --batches 1,8 --threads 1
    part kernels "$KERNELS" --json "$out/kernels.json"
    part tunings "${stream[@]}" --json "$out/tunings.json" --clips 1 --timed 2 --tunings-alone --tunings "$TUNINGS"
    part networks "${networks[@]}" --json "$out/networks.json"
    part floor "$PYTHON" "$here/floor.py" --json "$out/floor.json"
else
    part stream "${stream[@]}" --json "$out/stream.json" --device cpu --clips 1 --timed 1 --batches 1 --tunings "graphs=1"
    part tensorrt "${networks[@]}" --json "$out/tensorrt.json" --only motion --device tensorrt:0 --precisions fp16 --batches 1 --seconds 0.001 --threads 1
    # It compiles them for all cards, where libnvrtc is, and says what is missing.
    part kernels "$KERNELS" --json "$out/kernels.json"
    part tunings "${stream[@]}" --json "$out/tunings.json" --device cpu --clips 1 --timed 1 --tunings-alone --tunings "memory=8000,tight-arena=1,max-workspace=0"
    part networks "${networks[@]}" --json "$out/networks.json" --device cpu --precisions fp32 --batches 1,2 --seconds 0.02 --threads 1
    if "$PYTHON" -c 'import torch' 2>/dev/null; then
        part floor "$PYTHON" "$here/floor.py" --json "$out/floor.json" --dry
    else
        echo "== floor: skipped, $PYTHON has no torch (PYTHON names another)"
    fi
fi
exit $status
