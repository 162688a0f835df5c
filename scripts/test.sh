#!/usr/bin/env bash
# Runs every test and ends with one line that adds up the counts of all of them.
# Tests on footage that is not part of the project read LIPSTREAM_SHARED and say so when they skip.
set -uo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp)
trap 'rm -f -- "$log"' EXIT
status=0

cargo test --release --workspace --no-fail-fast 2>&1 | tee "$log" || status=1

# The training code is tested where its libraries are; building and running Lipstream needs none of them.
PYTHON=${PYTHON:-python3}
if "$PYTHON" -c 'import numpy, onnx, pytest, scipy, torch' 2>/dev/null; then
    "$PYTHON" -m pytest -q engines/train/tests 2>&1 | tee -a "$log" || status=1
else
    echo "training tests: skipped, $PYTHON lacks numpy, onnx, pytest, scipy or torch (PYTHON names another)"
fi

awk -v status="$status" '
    /^test result:/ { passed += $4; failed += $6; ignored += $8; next }
    # pytest: "1 failed, 20 passed, 2 skipped in 3.21s"
    / in [0-9.]+s/ && / (passed|failed)/ {
        for (i = 2; i <= NF; i++) {
            if ($i ~ /^passed/) passed += $(i - 1)
            if ($i ~ /^(failed|error)/) failed += $(i - 1)
            if ($i ~ /^skipped/) ignored += $(i - 1)
        }
    }
    END { printf "test result: %s. %d passed; %d failed; %d ignored\n", status ? "FAILED" : "ok", passed, failed, ignored }
' "$log"
exit "$status"
