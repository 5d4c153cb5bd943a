#!/bin/bash
# Measures what an append to the spool costs, alone and beside a PostgreSQL that flushes on the same disk.
#
#   tests/bench/spool.sh [DIRECTORY]      DIRECTORY: where the spool and the cluster are made and removed (TMPDIR, or /tmp)
#   ROUNDS=3 SECONDS_EACH=10 SYNCS="none interval always" tests/bench/spool.sh
#
# Builds spool_append with optimisation; makes a cluster (fsync on) with pgbench's tables, filled by 8 clients that insert and
# commit. `always` is measured at 500 records a second: each waits for the disk.
set -euo pipefail
export LC_ALL=C.UTF-8
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
rounds=${ROUNDS:-3}
seconds=${SECONDS_EACH:-10}
read -r -a syncs <<<"${SYNCS:-none interval always}"
. "$here/../cluster.sh"
directory=$(mktemp -d "${1:-${TMPDIR:-/tmp}}/chat-spool.XXXXXX")
chmod 755 "$directory"
load=
# shellcheck disable=SC2317 # called by the trap
cleanup() {
  [ -z "$load" ] || kill "$load" 2>/dev/null || true
  cluster_stop
  rm -rf "$directory"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

cmake --preset release -S "$here/../.." -B "$directory/build" >"$directory/build.log"
cmake --build "$directory/build" --target spool_append -j 2 >>"$directory/build.log" || { cat "$directory/build.log" >&2 && exit 2; }
cd "$directory"
mkdir -p postgres
printf 'On %s\n' "$(df --output=fstype,source "$directory" | tail -n 1)"

measure() {
  local sync=$1 rate=45000 round
  [ "$sync" != always ] || rate=500
  for ((round = 1; round <= rounds; round++)); do
    mkdir -m 700 spool
    printf '\n%s, spool_sync %s\n' "$2" "$sync"
    build/tests/bench/spool_append spool --sync "$sync" --rate $rate --seconds "$seconds"
    rm -r spool
  done
}

for sync in "${syncs[@]}"; do
  measure "$sync" alone
done
cluster_start "$directory/postgres" </dev/null
export PGDATABASE=postgres
psql -X -q -c 'CREATE TABLE filling (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text)'
echo "INSERT INTO filling (body) VALUES (repeat('x', 500));" >insert.sql
"$bin/pgbench" -n -c 8 -j 1 -T $((rounds * seconds * ${#syncs[@]} + 600)) -f insert.sql >pgbench.log 2>&1 &
load=$!
for sync in "${syncs[@]}"; do
  measure "$sync" 'beside PostgreSQL'
done
psql -X -q -A -t -c "SELECT E'\n' || xact_commit || ' transactions of PostgreSQL meanwhile' FROM pg_stat_database WHERE datname = 'postgres'"
