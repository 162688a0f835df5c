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
if ! ls engines/train/tests/test_*.py >/dev/null 2>&1; then
    :
elif "$PYTHON" -c 'import torch, numpy, scipy' 2>/dev/null; then
    echo "training tests ($PYTHON)"
    (cd engines/train && "$PYTHON" -m unittest discover -s tests -t .) 2>&1 | tee -a "$log" || status=1
else
    echo "training tests: skipped, $PYTHON has no torch, numpy and scipy (set PYTHON to one that has)"
fi

awk -v status="$status" '
    /^test result:/ { passed += $4; failed += $6; ignored += $8 }
    /^Ran [0-9]+ tests? in/ { ran += $2 }
    /^FAILED \(/ { line = $0; gsub(/[^0-9]+/, " ", line); n = split(line, k, " "); for (i = 1; i <= n; i++) broken += k[i] }
    END {
        passed += ran - broken; failed += broken
        printf "test result: %s. %d passed; %d failed; %d ignored\n", status ? "FAILED" : "ok", passed, failed, ignored
    }' "$log"
exit "$status"
