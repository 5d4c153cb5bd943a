#!/bin/bash
# Runs a program that prints lines `name value`, and holds its figures against the limits of its part.
#
#   tests/guard/check.sh LIMITS PART COMMAND...
#
# LIMITS has lines `part name limit unit…`. Fails where a figure is above its limit, where one with a limit is missing, and where
# one has none.
set -euo pipefail
limits=$1
part=$2
shift 2

status=0
output=$("$@" 2>&1) || status=$?
if [ $status -ne 0 ]; then
  printf '%s\n' "$output"
  exit $status
fi
grep -E '^[a-z0-9_]+ [0-9.]+$' <<<"$output" | awk -v part="$part" '
  FNR == NR {
    if ($1 == part) {
      limit[$2] = $3
      unit[$2] = $4
      for (i = 5; i <= NF; i++) unit[$2] = unit[$2] " " $i
      order[++count] = $2
    }
    next
  }
  { measured[$1] = $2 }
  END {
    printf "%-34s %12s %12s\n", part, "measured", "limit"
    for (i = 1; i <= count; i++) {
      name = order[i]
      verdict = !(name in measured) ? "NOT MEASURED" : measured[name] + 0 > limit[name] + 0 ? "TOO MUCH" : ""
      printf "%-34s %12s %12s %s %s\n", name, measured[name], limit[name], unit[name], verdict
      if (verdict) bad++
    }
    for (name in measured)
      if (!(name in limit)) { printf "%-34s %12s has no limit\n", name, measured[name]; bad++ }
    exit bad > 0
  }' "$limits" -
