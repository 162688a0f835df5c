#!/usr/bin/env bash
# Measures a card, what says most first: streams of each family in the card's memory, the published networks beside golden files, the
# CUDA kernels, the families' networks in PyTorch, the networks that ship with CUDA and with TensorRT, and the stream by other tunings.
# Each part stands alone: what fails or is cut short leaves the others their figures, and each writes its JSON as it goes.
#
#   bench/gpu/run.sh [--dry] [--parts latentsync,golden,...] [--out DIR]
#
#   --dry          all that can be run without a card, on the CPU; nothing that it times is worth telling
#   --parts        of latentsync, musetalk, compact, compact-words, wav2lip, synctalk2d, golden, kernels, floor, networks, tensorrt,
#                  tensorrt-stream, tunings
#   LIMIT          seconds that all of it may take (480). A stream begins nothing after its share, and a part is ended a little
#                  later
#   LIPSTREAM_ORT_LIB   folder of the CUDA build of ONNX Runtime (bench/gpu/pack.sh makes it)
#   WIDTHS         `published` (by default, on a card) or `narrow`: of the random weights
#   WEIGHTS        what they are imported as: fp16 (by default, on a card) or fp32
#   ENGINE         folder of an imported LatentSync, in the place of random weights
#   SCRATCH        where random weights are written, ten times a gigabyte (the folder for what is not kept). LatentSync's stay there
#                  for the next run, as lipstream-stream-latentsync-*
#   GOLDEN         folder of golden files (that of LIPSTREAM_SHARED, where it is set)
#   TUNINGS        how the CUDA provider is asked to work in `tunings`, one after another, each [PRECISION/]name=value,... and
#                  semicolons between them: what is slow or not finite by default may be neither in one of them
#   BENCH, KERNELS, STREAM, MODELS, PYTHON   lipstream-bench-gpu, -kernels and -stream, engines/models and a python3 with torch,
#                  where they are not at their places
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
all=latentsync,musetalk,compact,compact-words,wav2lip,synctalk2d,golden,kernels,floor,networks,tensorrt,tensorrt-stream,tunings
dry=() parts=$all out=${OUT:-$root/target/gpu}
while [ $# -gt 0 ]; do
    case $1 in
        --dry) dry=(--dry) ;;
        --parts) parts=${2:?--parts needs names}; shift ;;
        --out) out=${2:?--out needs a folder}; shift ;;
        *) echo "run.sh: unknown option \`$1\`; it takes --dry, --parts, --out" >&2; exit 2 ;;
    esac
    shift
done
for name in ${parts//,/ }; do
    case ,$all, in *,"$name",*) ;; *) echo "run.sh: unknown part \`$name\`; there are $all" >&2; exit 2 ;; esac
done
mkdir -p "$out"
BENCH=${BENCH:-$root/target/release/lipstream-bench-gpu} KERNELS=${KERNELS:-$root/target/release/lipstream-bench-kernels}
STREAM=${STREAM:-$root/target/release/lipstream-bench-stream} MODELS=${MODELS:-$root/engines/models} PYTHON=${PYTHON:-python3}
ENGINE=${ENGINE:-} GOLDEN=${GOLDEN:-${LIPSTREAM_SHARED:+$LIPSTREAM_SHARED/golden}} LIMIT=${LIMIT:-480}
export PYTHONUNBUFFERED=1
status=0

# The CUDA libraries that torch brings as wheels serve ONNX Runtime too.
libraries=$("$PYTHON" -c 'import glob, os, nvidia; print(":".join(sorted(d for p in nvidia.__path__ for d in glob.glob(p + "/*/lib"))))' 2>/dev/null)
export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

share=0
part() { # NAME SECONDS COMMAND..., where `SECONDS` in the command stands for what the part has
    local name=$1 begun=$SECONDS rest=$((LIMIT - SECONDS))
    case ,$parts, in *,"$name",*) ;; *) return ;; esac
    share=$(($2 < rest ? $2 : rest))
    shift 2
    if [ "$share" -lt 5 ]; then
        echo "== $name: skipped, $LIMIT s are over"
        return
    fi
    echo "== $name"
    # A part that keeps its time ends by itself; another is ended, a little later and not after all of the time.
    local most=$((share + (share / 4 < 15 ? 15 : share / 4)))
    timeout -k 5 "$((most < rest ? most : rest))" "${@//SECONDS/$share}" 2>&1 | tee "$out/$name.log"
    local code=${PIPESTATUS[0]}
    [ "$code" = 0 ] || status=1
    echo "== $name: exit $code after $((SECONDS - begun)) s"
}

golden() { # SECONDS OPTIONS...
    local share=$1
    shift
    if [ -d "$GOLDEN" ]; then
        part golden "$share" "${networks[@]}" --golden "$GOLDEN" "$@"
    elif [[ ,$parts, == *,golden,* ]]; then
        echo "== golden: skipped, there is no folder of golden files (GOLDEN names one)"
    fi
}

nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.max.mem,power.limit --format=csv,noheader 2>/dev/null | tee "$out/card.txt" ||
    echo "no card here"

# One thing after another that is not so by default; first as all was before (one program for all shapes, no tensor cores).
TUNINGS=${TUNINGS:-"apart=0,tensor-cores=0;graphs=1;search=exhaustive;channels-last=1;fuse-bias=1;apart=0;tensor-cores=0;memory=none,tight-arena=0;max-workspace=0;search=fallback;tf32/;fusions=basic;graphs=1,channels-last=1,fuse-bias=1"}
networks=("$BENCH" --models "$MODELS")
scratch=${SCRATCH:-${TMPDIR:-/tmp}}
if [ ${#dry[@]} = 0 ]; then
    stream=("$STREAM" --models "$MODELS" --widths "${WIDTHS:-published}" --weights "${WEIGHTS:-fp16}" --scratch "$scratch" --seconds SECONDS)
    latentsync=(--family latentsync --keep)
    [ -z "$ENGINE" ] || latentsync+=(--engine "$ENGINE")
    part latentsync 170 "${stream[@]}" "${latentsync[@]}" --json "$out/latentsync.json" --clips 1 --timed 3
    part musetalk 70 "${stream[@]}" --family musetalk --json "$out/musetalk.json" --clips 4 --timed 20
    part compact 25 "${stream[@]}" --family compact --json "$out/compact.json" --clips 16 --timed 50
    part compact-words 20 "${stream[@]}" --family compact-words --json "$out/compact-words.json" --clips 16 --timed 50
    part wav2lip 20 "${stream[@]}" --family wav2lip --json "$out/wav2lip.json" --clips 4 --timed 50
    part synctalk2d 20 "${stream[@]}" --family synctalk2d --json "$out/synctalk2d.json" --clips 4 --timed 50
    golden 30 --json "$out/golden.json"
    part kernels 15 "$KERNELS" --json "$out/kernels.json"
    part floor 60 "$PYTHON" "$here/floor.py" --json "$out/floor.json"
    part networks 40 "${networks[@]}" --json "$out/networks.json" --batches 1,16 --seconds 0.1
    # The first run of a batch builds its engine. Without TensorRT it says what is missing.
    part tensorrt 40 "${networks[@]}" --json "$out/tensorrt.json" --device tensorrt:0 --precisions fp32,fp16,bf16 --batches 1,8 --threads 1
    if grep -A 1 '"tensorrt:0"' "$out/tensorrt.json" 2>/dev/null | grep -q '"works"'; then
        part tensorrt-stream 60 "${stream[@]}" --family compact --device tensorrt:0 --json "$out/tensorrt-stream.json" --clips 8 --timed 20 --batches 1,4
    elif [[ ,$parts, == *,tensorrt-stream,* ]]; then
        echo "== tensorrt-stream: skipped, TensorRT does not work here"
    fi
    # The engine that the first part has kept.
    part tunings 200 "${stream[@]}" "${latentsync[@]}" --json "$out/tunings.json" --timed 2 --tunings-alone --tunings "$TUNINGS"
else
    LIMIT=3600
    stream=("$STREAM" --models "$MODELS" --device cpu --height 180 --clips 1 --timed 1 --steps 2 --most 1 --seconds SECONDS)
    part latentsync 600 "${stream[@]}" --family latentsync --json "$out/latentsync.json" --batches 1 --tunings "graphs=1"
    part musetalk 600 "${stream[@]}" --family musetalk --json "$out/musetalk.json" --batches 2
    part compact 600 "${stream[@]}" --family compact --json "$out/compact.json" --batches 2
    part compact-words 600 "${stream[@]}" --family compact-words --json "$out/compact-words.json" --batches 2
    part wav2lip 600 "${stream[@]}" --family wav2lip --json "$out/wav2lip.json" --batches 2
    part synctalk2d 600 "${stream[@]}" --family synctalk2d --json "$out/synctalk2d.json" --batches 2
    golden 600 --device cpu --only "${GOLDEN_ONLY:-}" --json "$out/golden.json"
    # It compiles them for all cards, where libnvrtc is, and says what is missing.
    part kernels 600 "$KERNELS" --json "$out/kernels.json"
    part networks 600 "${networks[@]}" --json "$out/networks.json" --device cpu --precisions fp32 --batches 1,2 --seconds 0.02 --threads 1
    part tensorrt 600 "${networks[@]}" --json "$out/tensorrt.json" --only motion --device tensorrt:0 --precisions fp16 --batches 1 --seconds 0.001 --threads 1
    part tunings 600 "${stream[@]}" --family latentsync --json "$out/tunings.json" --tunings-alone --tunings "memory=8000,tight-arena=1,max-workspace=0"
    if "$PYTHON" -c 'import torch' 2>/dev/null; then
        part floor 600 "$PYTHON" "$here/floor.py" --json "$out/floor.json" --dry
    else
        echo "== floor: skipped, $PYTHON has no torch (PYTHON names another)"
    fi
fi
exit $status
