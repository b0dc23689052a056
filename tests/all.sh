#!/usr/bin/env bash
# All of the tests, step by step, and at the end how long each step took. `make test` calls it.
#
# The cluster of the end-to-end tests comes up beside the first steps, which leave it time, and goes beside the last.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=.venv/bin/python
EDGECLOUD_TEST_RUN=all-$$-$(date +%s)
export EDGECLOUD_TEST_RUN
log=$(mktemp)
said=
beside=

step() {
  local begun=$SECONDS
  make --no-print-directory "$@"
  took "$1" $((SECONDS - begun))
}

took() { said+="$(printf '  %-12s %5d s' "$1" "$2")"$'\n'; }

# bring WAY: up or down, in the background
bring() {
  "$python" -m tests.e2e.bringing "$1" >> "$log" 2>&1 &
  beside=$!
}

settled() {
  [ -z "$beside" ] || wait "$beside" || echo "the cluster: $(tail -n 5 "$log")" >&2
  beside=
}

# leave: whatever became of the tests, no cluster is left that was not there before
leave() {
  local code=$?
  trap - EXIT
  settled
  "$python" -m tests.e2e.bringing down >> "$log" 2>&1 || { tail -n 5 "$log" >&2; code=1; }
  rm -f "$log"
  exit "$code"
}

step venv
step tools TOOLS="control-plane lint cluster"
trap leave EXIT
bring up
step lint
step fast
begun=$SECONDS
settled
took 'wait' $((SECONDS - begun))
step e2e
bring down
step local
settled
printf 'make test, %d s:\n%s' "$SECONDS" "$said"
printf 'beside them: %s\n' "$(paste -s -d, "$log")"
