#!/bin/bash
# The long form of the faults: kinds in an order that the seed gives, until the time is over. A line for each load that was judged,
# totals at the end; the exit status says the verdict.
#
#   tests/faults/soak.sh MINUTES [--seed N]
#   tests/faults/soak.sh --only KIND [--rounds N] [--seed N]
#
#   tests/faults/soak.sh 60                                everything, for an hour
#   tests/faults/soak.sh --only kill_broker --rounds 100   one kind, a hundred times
#
# Wants what tests/run.sh has built (BUILD says where, build/dev otherwise). Run it as root, or what needs a small disk is
# left out. Times are judged here, so the machine should have nothing else to do. A bad round is done again by
# `faults --long --seed N KIND` with the seed of its line.
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../../examples/lib.sh"
build=${BUILD:-$repository/build/dev}
faults=$build/tests/faults/faults

minutes=0
only=
rounds=()
seed=$((RANDOM * 32768 + RANDOM))
while [ $# -gt 0 ]; do
  case $1 in
    --seed) seed=$2 && shift 2 ;;
    --only) only=$2 && shift 2 ;;
    --rounds) rounds=(--rounds "$2") && shift 2 ;;
    [1-9]*) minutes=$1 && shift ;;
    *) die "usage: soak.sh MINUTES [--seed N] | --only KIND [--rounds N] [--seed N]" ;;
  esac
done
[ -n "$only" ] || [ "$minutes" -gt 0 ] || die "usage: soak.sh MINUTES [--seed N] | --only KIND [--rounds N] [--seed N]"
[ -x "$faults" ] || die "$faults is not there: run tests/run.sh first, or say BUILD=..."

scratch=$(mktemp -d)
export CHAT_TEST_PLUGIN=$build/plugin/mosquitto_chat.so CHAT_TEST_FAULTY_PLUGIN=$build/plugin/mosquitto_chat_faulty.so
export CHAT_TEST_TEMPLATE=$scratch/template
template=$build/tests/integration/integration_template
"$template" make "$CHAT_TEST_TEMPLATE"
trap '"$template" remove "$CHAT_TEST_TEMPLATE"; rm -rf "$scratch"' EXIT

# A program that ends without a verdict (it says why) is a bad round, too.
run() {
  local kind=$1 status=0
  shift
  "$faults" --long --seed "$seed" "$@" "$kind" 2>"$scratch/errors" | tee -a "$scratch/lines" || status=$?
  if [ "$status" -gt 1 ]; then
    printf 'bad %s seed=%s rounds=0 - the program ended with status %s\n' "$kind" "$seed" "$status" | tee -a "$scratch/lines"
    cat "$scratch/errors"
  fi
}

# All kinds once, in the seed's order.
kinds() {
  "$faults" --list | awk -v seed="$seed" 'BEGIN { srand(seed) } { print rand(), $1 }' | sort -n | cut -d ' ' -f 2
}

: >"$scratch/lines"
echo "seed $seed"
if [ -n "$only" ]; then
  run "$only" "${rounds[@]}"
else
  until=$((SECONDS + minutes * 60))
  while [ $SECONDS -lt $until ]; do
    for kind in $(kinds); do
      [ $SECONDS -lt $until ] || break
      run "$kind" "${rounds[@]}"
      seed=$((seed + 1000))
    done
  done
fi

# The totals: sums of counts, and for each figure of each kind the mean over its loads and the worst of all.
awk '
  /^(good|bad|invalid|skipped) / {
    loads[$1]++
    for (i = 3; i <= NF && $i ~ /=/; i++) {
      split($i, pair, "=")
      if (pair[1] ~ /^(landed|acks|rows|deliveries|violations)$/) {
        total[pair[1]] += pair[2]
      } else if (pair[1] !~ /^(seed|rounds|there|gone)$/) {
        split(pair[2], part, /[()]/)
        name = $2 " " pair[1]
        sum[name] += part[1]
        n[name]++
        high = part[2] != "" ? part[2] : part[1]
        if (!(name in worst) || high + 0 > worst[name]) worst[name] = high + 0
      }
    }
  }
  END {
    printf "\n"
    for (name in sum) printf "%-40s mean %10.1f  highest %8d\n", name, sum[name] / n[name], worst[name] | "sort"
    close("sort")
    printf "\n%d loads good, %d bad, %d invalid (done again), %d skipped; %d faults, %d messages acknowledged, %d rows, %d deliveries, %d violations\n",
      loads["good"], loads["bad"], loads["invalid"], loads["skipped"], total["landed"], total["acks"], total["rows"],
      total["deliveries"], total["violations"]
    exit loads["bad"] > 0 || loads["good"] == 0
  }
' "$scratch/lines"
