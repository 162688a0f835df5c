#!/usr/bin/env bash
# Sends what the OpenAPI document allows, and what it does not, to every endpoint of a server of its own, and compares
# the answers with the document: as the operator in all of schemathesis' phases, then with the key of a tenant for each scope.
# Which key may what is tested by every_key.py, in the suite. Needs schemathesis in $PYTHON; without it, it says so and is content.
#
#   EXAMPLES=40 tests/api/schemathesis.sh [options of `schemathesis run`]
set -euo pipefail
cd "$(dirname "$0")/../.."

PYTHON=${PYTHON:-.lipstream/api/bin/python}
LIPSTREAM=${LIPSTREAM:-target/release/lipstream}
if ! "$PYTHON" -c 'import schemathesis' 2>/dev/null; then
    echo "schemathesis: skipped, $PYTHON does not have it: LIPSTREAM_SETUP_TESTS=1 make setup (PYTHON names another)"
    exit 0
fi

folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; wait; rm -rf -- "$folder"' EXIT

# Room for every upload: that there is none is an answer too, but hides the others.
operator=the-operator-of-the-test
XDG_DATA_HOME=$folder LIPSTREAM_AUTH_STORE=sqlite://$folder/tenants.db LIPSTREAM_AUTH_KEYS=$operator LIPSTREAM_SERVER_PORT=0 LIPSTREAM_RTMP_PORT=0 LIPSTREAM_LIMITS_BODY_IDLE_SECONDS=5 \
    LIPSTREAM_AVATARS_MAX_WAITING=100 LIPSTREAM_RENDERS_MAX_WAITING=1000 \
    "$LIPSTREAM" serve >"$folder/out" 2>"$folder/err" &
server=$!
url=
for _ in $(seq 300); do
    url=$(sed -n 's|^Page  *\(.*\)/$|\1|p' "$folder/out")
    [ -n "$url" ] && break
    kill -0 "$server" || { cat "$folder/err" >&2; exit 1; }
    sleep 0.1
done

# Random bytes are no speech and no video, and a document cannot say what is: that they are refused is no fault.
key=$operator
try() {
    "$PYTHON" -m schemathesis.cli "${known[@]}" run "$url/openapi.json" \
        --checks all --exclude-checks positive_data_acceptance --header "Authorization: Bearer $key" \
        --max-examples "${EXAMPLES:-40}" --request-timeout 60 --max-response-time 30 --suppress-health-check all "$@" || status=$?
}

status=0
known=()
try "$@"
# Once more with a session that is there: a name at random hardly ever is one.
printf '[parameters]\n"path.id" = "demo"\n' >"$folder/known.toml"
known=(--config-file "$folder/known.toml")
try --include-path-regex '^/api/v1/sessions/\{id\}' --exclude-method DELETE --phases examples,coverage,fuzzing "$@"

# The same for those who may less.
ask() { curl -sf -X "$1" -H "Authorization: Bearer $operator" -H 'Content-Type: application/json' -d "$3" "$url/api/v1/$2"; }
ask PUT tenants/anna '{"sessions":2}' >/dev/null
for scope in operate speak watch publish; do
    key=$(ask POST keys "{\"tenant\":\"anna\",\"scopes\":[\"$scope\"]}" | sed 's/.*"key":"\([^"]*\)".*/\1/')
    echo "with the scope $scope"
    try --phases examples,coverage,fuzzing "$@"
done

if ! kill -0 "$server" 2>/dev/null || grep -q panicked "$folder/err"; then
    echo "the server did not survive:" >&2
    status=1
fi
[ "$status" = 0 ] || tail -50 "$folder/err" >&2
exit "$status"
