#!/bin/bash
# Instructions of each scene of guard_thread, by callgrind: only what is done inside the function `measured` counts.
#
#   tests/guard/count.sh VALGRIND GUARD_THREAD
set -euo pipefail
valgrind=$1
program=$2
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT

for scene in $("$program" scenes); do
  if ! "$valgrind" --tool=callgrind --callgrind-out-file="$directory/$scene" --toggle-collect=measured "$program" "$scene" \
    >"$directory/output" 2>"$directory/log"; then
    tail -n 20 "$directory/log"
    exit 1
  fi
  read -r _ times <"$directory/output"
  awk -v scene="$scene" -v times="$times" '/^(summary|totals):/ { count = $2 } END { printf "%s %.0f\n", scene, count / times }' "$directory/$scene"
done
