#!/bin/bash
# check.sh says no where it must.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"
limits=$(mktemp)
trap 'rm -f "$limits"' EXIT
printf '# a comment\nx cost 100 apples\ny other 1 pears\n' >"$limits"

expect() {
  local wanted=$1 got=0
  shift
  ./check.sh "$limits" x "$@" >/dev/null || got=$?
  [ "$got" = "$wanted" ] || { echo "$*: exit status $got, not $wanted" && exit 1; }
}
expect 0 echo 'cost 100'
expect 0 printf 'noise\ncost 70.5\nmore noise\n'
expect 1 echo 'cost 100.1'
expect 1 echo 'something else'
expect 1 printf 'cost 1\nwithout_a_limit 1\n'
expect 77 sh -c 'exit 77'
expect 3 sh -c 'echo cost 1; exit 3'
