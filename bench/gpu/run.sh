#!/usr/bin/env bash
# Measures a card: the CUDA kernels, a stream of LatentSync in the card's memory, the networks that ship through Lipstream's own
# runtime, and the published families' networks in PyTorch. Each part stands alone: what fails or is cut short leaves the others their figures.
#
#   bench/gpu/run.sh [--dry] [--parts kernels,stream,networks,floor] [--out DIR]
#
#   --dry          all that can be run without a card, on the CPU; nothing that it times is worth telling
#   LIPSTREAM_ORT_LIB   folder of the CUDA build of ONNX Runtime (bench/gpu/pack.sh makes it)
#   ENGINE         folder of an imported LatentSync for the part `stream`; without it one of a few channels is made
#   TUNINGS        how the CUDA provider is asked to work in that part, one after another, each [PRECISION/]name=value,... and
#                  semicolons between them: what is slow or not finite by default may be neither in one of them
#   BENCH, KERNELS, STREAM, MODELS, PYTHON   lipstream-bench-gpu, -kernels and -stream, engines/models and a python3 with torch,
#                  where they are not at their places
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
dry=() parts=kernels,stream,networks,floor out=${OUT:-$root/target/gpu}
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

# Without a card it compiles them for all cards, where libnvrtc is, and says what is missing.
part kernels "$KERNELS" --json "$out/kernels.json"
# As it works by default; as it did before (one program for all shapes, no tensor cores); then one thing after another.
TUNINGS=${TUNINGS:-";apart=0,tensor-cores=0;apart=0;tensor-cores=0;graphs=1;channels-last=1;fuse-bias=1;search=exhaustive;tf32/;fusions=basic;graphs=1,channels-last=1,fuse-bias=1"}
engine=()
[ -z "$ENGINE" ] || engine=(--engine "$ENGINE")
if [ ${#dry[@]} = 0 ]; then
    part stream "$STREAM" "${engine[@]}" --json "$out/stream.json" --clips 1 --timed 4 --tunings "$TUNINGS"
else
    part stream "$STREAM" "${engine[@]}" --json "$out/stream.json" --device cpu --clips 1 --timed 1 --batches 1 --tunings "apart=1;graphs=1"
fi
if [ ${#dry[@]} = 0 ]; then
    part networks "$BENCH" --models "$MODELS" --json "$out/networks.json"
    part floor "$PYTHON" "$here/floor.py" --json "$out/floor.json"
else
    part networks "$BENCH" --models "$MODELS" --json "$out/networks.json" --device cpu --precisions fp32 --batches 1,2 --seconds 0.02 --threads 1
    if "$PYTHON" -c 'import torch' 2>/dev/null; then
        part floor "$PYTHON" "$here/floor.py" --json "$out/floor.json" --dry
    else
        echo "== floor: skipped, $PYTHON has no torch (PYTHON names another)"
    fi
fi
exit $status
