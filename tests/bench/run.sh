#!/bin/bash
# Measures plain Mosquitto and Mosquitto with the plugin side by side: same machine, same minute, same settings, in turns.
#
#   tests/bench/run.sh [OPTION]... [SCENARIO]...
#
# Builds the plugin, starts a PostgreSQL and two brokers of its own on 127.0.0.1, runs each scenario A B A B …, checks that
# nothing was lost, doubled or out of order (in what clients got, and in the tables), prints a table, leaves nothing behind.
# Run it as root (the database then runs as `postgres`, the brokers as `mosquitto`) or as any user (all run as you).
#
# Scenarios (pairs, if none is named; `all` is every one):
#   pairs       50 one-to-one conversations, as fast as they go
#   pairs500    500 of them
#   group       1 publisher, 100 receivers, as fast as it goes
#   fan-in      4 publishers, 3 receivers in one conversation, as fast as it goes
#   rate1000    50 pairs, 1,000 messages a second together, latency counted from when each was due
#   rate20000   the same with 20,000
#   idle        one pair, one message at a time, over TCP
#   idle-ws     the same over WebSocket
#   append      no broker: chat.append_messages in a loop on one connection, batches of 500, 100 and 1
#
# Options:
#   --rounds N        how often each arm runs each scenario (3)
#   --duration S      measured seconds of a run (5), after --warmup S (2)
#   --window N        messages that a publisher has under way where it is as fast as it goes (20)
#   --until ack|delivery   when a message leaves that window (delivery)
#   --protocol 4|5    MQTT 3.1.1 or 5 (5)
#   --payload FORM    text, json or json-id: an envelope with the sender's own id (json-id)
#   --body-length N   characters of a body (100)
#   --load ARGUMENTS  words for mqtt_load, last of all (tests/bench/mqtt_load --help)
#   --option "N V"    a line plugin_opt_N V; may be repeated
#   --setting N=V     of PostgreSQL; may be repeated
#   --profile         perf records broker and database in the plugin's runs (needs linux-perf); reports are kept
#   --keep DIRECTORY  keep results, logs and profiles there
#
# Exit status: 0 all well, 1 the plugin's arm lost, doubled or misordered something or stored it wrongly, 2 it could not be
# run. Faults of plain Mosquitto are shown too, and do not count: some scenarios are more than it can hold.
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
repository=$(cd "$here/../.." && pwd)

scenario_names=(pairs pairs500 group fan-in rate1000 rate20000 idle idle-ws append)
scenarios=()
rounds=3
duration=5
warmup=2
window=20
until=delivery
protocol=5
payload=json-id
body_length=100
load_arguments=
plugin_options=()
settings=()
profile=false
keep=

die() {
  printf 'run.sh: %s\n' "$1" >&2
  exit 2
}

# scenario_of NAME: sets conversations, publishers, receivers, kind (of the conversations) and arguments (of mqtt_load).
scenario_of() {
  local flow="--window $window"
  [ "$until" = ack ] || flow+=' --until-delivery'
  publishers=1 receivers=1 kind=direct
  case $1 in
    pairs) conversations=50 arguments=$flow ;;
    pairs500) conversations=500 arguments=$flow ;;
    group) conversations=1 receivers=100 kind=group arguments=$flow ;;
    fan-in) conversations=1 publishers=4 receivers=3 kind=group arguments=$flow ;;
    rate1000) conversations=50 arguments='--rate 1000' ;;
    rate20000) conversations=50 arguments='--rate 20000' ;;
    idle) conversations=1 arguments='--rate 100' ;;
    idle-ws) conversations=1 arguments='--rate 100 --websocket all' ;;
    append) conversations=50 arguments= ;;
    *) die "no scenario is called $1; they are: ${scenario_names[*]}" ;;
  esac
  clients=$((conversations * (publishers + receivers)))
}

# ------------------------------------------------------------------------------------------------------- command line

read_command_line() {
  while [ $# -gt 0 ]; do
    case $1 in
      --rounds | --duration | --warmup | --window | --until | --protocol | --payload | --body-length | --load | --option | --setting | --keep)
        [ $# -ge 2 ] || die "$1 needs a value"
        ;;&
      --rounds) rounds=$2 ;;
      --duration) duration=$2 ;;
      --warmup) warmup=$2 ;;
      --window) window=$2 ;;
      --until) until=$2 ;;
      --protocol) protocol=$2 ;;
      --payload) payload=$2 ;;
      --body-length) body_length=$2 ;;
      --load) load_arguments=$2 ;;
      --option) plugin_options+=("$2") ;;
      --setting) settings+=(-c "$2") ;;
      --keep) keep=$2 ;;
      --profile) profile=true && shift && continue ;;
      --help | -h) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" && exit 0 ;;
      -*) die "unknown option $1 (--help lists them)" ;;
      all) scenarios+=("${scenario_names[@]}") && shift && continue ;;
      *) scenarios+=("$1") && shift && continue ;;
    esac
    shift 2
  done
  [ ${#scenarios[@]} -gt 0 ] || scenarios=(pairs)
  local name
  for name in "${scenarios[@]}"; do scenario_of "$name"; done
  [ "$until" = ack ] || [ "$until" = delivery ] || die "--until is ack or delivery"
  [[ $rounds =~ ^[1-9][0-9]*$ ]] || die "--rounds is a number from 1"
}

# -------------------------------------------------------------------------------------- servers, and who they run as

if [ "$(id -u)" = 0 ]; then
  database_user=postgres
  broker_user=mosquitto
else
  database_user=$(id -un)
  broker_user=$database_user
fi
database_pid=
plain_pid=
chat_pid=

# as USER COMMAND...: execs it as that user, in a place that both can enter.
as() {
  local user=$1
  shift
  cd /
  [ "$(id -un)" = "$user" ] || set -- setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups env HOME=/ "$@"
  exec "$@"
}

give() {
  [ "$(id -u)" != 0 ] || chown "$1:" "${@:2}"
}

stop_process() {
  [ -n "$1" ] || return 0
  kill "-$2" "$1" 2>/dev/null || return 0
  wait "$1" 2>/dev/null || true
}

clean_up() {
  stop_process "$plain_pid" TERM
  stop_process "$chat_pid" TERM
  stop_process "$database_pid" INT
  [ -z "${directory:-}" ] || rm -rf "$directory"
}

port_is_taken() {
  (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

free_port() {
  local port
  for _ in {1..100}; do
    port=$((20000 + RANDOM % 12000))
    if ! port_is_taken "$port" && ! [[ " ${taken_ports[*]-} " == *" $port "* ]]; then
      taken_ports+=("$port")
      found_port=$port
      return
    fi
  done
  die "no free port"
}

wait_for() {
  local what=$1 pid=$2 log=$3
  shift 3
  for _ in {1..600}; do
    ! "$@" >/dev/null 2>&1 || return 0
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.05
  done
  tail -n 5 "$log" >&2
  die "$what did not start"
}

# ---------------------------------------------------------------------------------------------------------- preparing

build_all() {
  local build=$repository/build/bench
  echo "Building in $build" >&2
  if ! { cmake -S "$repository" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DBUILD_TESTING=OFF && cmake --build "$build"; } \
    >"$directory/build.log" 2>&1; then
    tail -n 20 "$directory/build.log" >&2
    die "the build failed"
  fi
  cc -std=gnu11 -O2 -g -o "$directory/mqtt_load" "$here"/*.c || die "the load generator could not be built"
  cc -std=gnu11 -O2 -g -D_GNU_SOURCE -I "$repository/common" -I "$repository/plugin" -o "$directory/append_load" "$here/append/append_load.c" \
    "$build"/plugin/libchat_{engines,rules}.a "$build/common/libchat_common.a" -lpq -lcjson -lcrypto -pthread || die "append_load could not be built"
  install -m 755 "$build/plugin/mosquitto_chat.so" "$build/examples/chat-token" "$directory"
}

query() {
  psql -X -q -A -t -v ON_ERROR_STOP=1 -h "$directory/socket" -U postgres -d "${database:-chat}" "$@"
}

start_database() {
  local programs data=$directory/data
  programs=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
  [ -x "$programs/initdb" ] || die "no PostgreSQL server in /usr/lib/postgresql"
  mkdir "$data" "$directory/socket"
  give "$database_user" "$data" "$directory/socket"
  (as "$database_user" "$programs/initdb" -D "$data" -U postgres -E UTF8 --locale=C.UTF-8 --auth=peer) >"$directory/initdb.log" 2>&1 ||
    { cat "$directory/initdb.log" >&2 && die "initdb failed"; }
  echo 'local all all peer map=bench' >"$data/pg_hba.conf"
  printf 'bench %s %s\n' "$(id -un)" postgres "$database_user" postgres "$broker_user" chat_plugin | sort -u >"$data/pg_ident.conf"
  (as "$database_user" "$programs/postgres" -D "$data" -c listen_addresses= -c "unix_socket_directories=$directory/socket" \
    "${settings[@]}") >"$directory/postgres.log" 2>&1 &
  database_pid=$!
  database=postgres wait_for PostgreSQL "$database_pid" "$directory/postgres.log" query -c ''
  database=postgres query -c "CREATE DATABASE chat TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'"
  "$repository/schema/migrate" "host=$directory/socket user=postgres dbname=chat" >"$directory/migrate.log" 2>&1 ||
    { cat "$directory/migrate.log" >&2 && die "schema/migrate failed"; }
}

# Each scenario has conversations and users of its own, from base on: client n of mqtt_load is user base + n.
base_of() {
  local i
  for i in "${!scenario_names[@]}"; do
    [ "${scenario_names[$i]}" != "$1" ] || base=$(((i + 1) * 100000 + 1))
  done
}

make_people() {
  local last=$((base + clients - 1)) each=$((publishers + receivers)) end=$((base + conversations - 1))
  query <<SQL
BEGIN;
INSERT INTO chat.users (id, username) SELECT n, 'bench-' || n FROM generate_series($base, $last) AS n;
INSERT INTO chat.conversations (id, type, name, first_user_id, second_user_id)
SELECT c, '$kind',
	CASE WHEN '$kind' = 'group' THEN 'bench' END,
	CASE WHEN '$kind' = 'direct' THEN $base + 2 * (c - $base) END,
	CASE WHEN '$kind' = 'direct' THEN $base + 2 * (c - $base) + 1 END
FROM generate_series($base, $end) AS c;
INSERT INTO chat.conversation_participants (conversation_id, user_id, role)
SELECT $base + (n - $base) / $each, n, (CASE WHEN (n - $base) % $each = 0 THEN 'owner' ELSE 'member' END)::chat.participant_role
FROM generate_series($base, $last) AS n
WHERE '$kind' = 'group';
COMMIT;
SQL
  local user
  for ((user = base; user <= last; user++)); do
    echo "$user-bench $user $("$directory/chat-token" --key "$directory/private/bench.pem" --user "$user")"
  done >"$directory/credentials.$1"
}

make_keys() {
  mkdir "$directory/private" "$directory/keys"
  chmod 700 "$directory/private"
  (umask 077 && openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$directory/private/bench.pem" 2>/dev/null)
  openssl pkey -in "$directory/private/bench.pem" -pubout -out "$directory/keys/bench.pem" 2>/dev/null
  give "$broker_user" "$directory/keys/bench.pem"
}

# The shipped settings for both. A WebSocket listener keeps to the address it is given only with socket_domain ipv4:
# without it Mosquitto 2.0 listens on every address.
broker_configuration() {
  sed -n '/^# \[settings\]/,/^# \[end of settings\]/{s/^allow_anonymous .*/allow_anonymous '"$3"'/;/^[a-z]/p}' "$repository/mosquitto.conf"
  cat <<CONFIGURATION
log_dest stderr
log_type error
log_type warning
log_type notice
listener $1 127.0.0.1
max_qos 1
listener $2 127.0.0.1
socket_domain ipv4
protocol websockets
max_qos 1
CONFIGURATION
}

plugin_configuration() {
  cat <<CONFIGURATION
plugin $directory/mosquitto_chat.so
plugin_opt_database host=$directory/socket dbname=chat user=chat_plugin
plugin_opt_token_keys $directory/keys/bench.pem
plugin_opt_spool_dir $directory/spool
plugin_opt_rate_messages 0
plugin_opt_rate_requests 0
plugin_opt_rate_sign_in 0
plugin_opt_rate_sign_in_address 0
CONFIGURATION
  local option
  for option in ${plugin_options[@]+"${plugin_options[@]}"}; do echo "plugin_opt_$option"; done
}

start_brokers() {
  taken_ports=()
  free_port && plain_port=$found_port
  free_port && plain_ws_port=$found_port
  free_port && chat_port=$found_port
  free_port && chat_ws_port=$found_port
  mkdir "$directory/spool"
  chmod 700 "$directory/spool"
  broker_configuration "$plain_port" "$plain_ws_port" true >"$directory/plain.conf"
  { broker_configuration "$chat_port" "$chat_ws_port" false && plugin_configuration; } >"$directory/chat.conf"
  give "$broker_user" "$directory/plain.conf" "$directory/chat.conf" "$directory/spool"
  ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -H -n)"
  (as "$broker_user" /usr/sbin/mosquitto -c "$directory/plain.conf") >"$directory/plain.log" 2>&1 &
  plain_pid=$!
  (as "$broker_user" /usr/sbin/mosquitto -c "$directory/chat.conf") >"$directory/chat.log" 2>&1 &
  chat_pid=$!
  wait_for "plain Mosquitto" "$plain_pid" "$directory/plain.log" port_is_taken "$plain_ws_port"
  wait_for "Mosquitto with the plugin" "$chat_pid" "$directory/chat.log" port_is_taken "$chat_ws_port"
}

# ------------------------------------------------------------------------------------------------------------ running

generate() {
  # shellcheck disable=SC2086 # lists of words
  "$directory/mqtt_load" load --protocol "$protocol" --payload "$payload" --body-length "$body_length" --warmup "$warmup" \
    --duration "$duration" --conversations "$conversations" --publishers "$publishers" --receivers "$receivers" \
    $arguments $load_arguments "$@"
}

run_plain() {
  generate --port "$plain_port" --websocket-port "$plain_ws_port" --watch "broker=$plain_pid"
}

run_chat() {
  generate --port "$chat_port" --websocket-port "$chat_ws_port" --watch "broker=$chat_pid" --watch "postgres=$database_pid" \
    --credentials "$directory/credentials.$1" --publish-topic chat/%d/send --subscribe-topic chat/%d/messages \
    --first-conversation "$base" --check-seq
}

# What the database did: rows, transactions that wrote, bytes of WAL. The difference of two of these is a run.
database_figures() {
  query -F ' ' -c "SELECT (SELECT sum(last_seq) FROM chat.conversations), pg_current_xact_id(), pg_current_wal_lsn() - '0/0'"
}

# Every conversation is stored whole, 1, 2, 3 … without a hole, and nothing was refused.
check_tables() {
  query -c "SELECT format('conversation %s: %s rows, seq %s to %s, last_seq %s', id, rows, first, last, last_seq)
    FROM (SELECT conversation_id, count(*) AS rows, min(seq) AS first, max(seq) AS last FROM chat.messages GROUP BY 1) AS m
    JOIN chat.conversations ON id = conversation_id WHERE rows <> last OR first <> 1 OR last_seq <> last LIMIT 5"
  query -c "SELECT format('%s messages were refused at commit', count(*)) FROM chat.refusals HAVING count(*) > 0"
}

start_profile() {
  perf_pids=()
  $profile || return 0
  perf record -q -F 499 -g -p "$chat_pid" -o "$directory/broker.perf" sleep "$duration" >/dev/null 2>&1 &
  perf_pids+=($!)
  perf record -q -F 499 -g -p "$(pgrep -d , -P "$database_pid")" -o "$directory/postgres.perf" sleep "$duration" >/dev/null 2>&1 &
  perf_pids+=($!)
}

# A run of one arm. Its report goes into results/SCENARIO.ARM.ROUND.
measure() {
  local scenario=$1 arm=$2 round=$3 report=$directory/results/$1.$2.$3 before after status=0
  echo "  $scenario, round $round: $arm" >&2
  if [ "$arm" = chat ]; then
    before=$(database_figures)
    start_profile
    run_chat "$scenario" >"$report" || status=$?
    after=$(database_figures)
    ! $profile || wait "${perf_pids[@]}" || true
    echo "$before $after" | awk '{
      rows = $4 - $1; transactions = $5 - $2
      if (rows > 0 && transactions > 0)
        printf "rows_per_transaction %.1f\nwal_bytes_per_row %.0f\n", rows / transactions, ($6 - $3) / rows
    }' >>"$report"
    query -c CHECKPOINT # so that what it leaves to be written is not written in the other arm's turn
  else
    run_plain "$scenario" >"$report" || status=$?
  fi
  [ $status -ne 2 ] || die "$scenario, round $round, $arm: could not be run"
  if [ $status -ne 0 ]; then
    [ "$arm" = plain ] || failures=$((failures + 1))
    grep -E '^(lost|duplicates|misordered|order_differences|seq_errors|unknown|behind_notices|disconnects|refused.*) [1-9]' "$report" |
      sed "s/^/    BAD: /" >&2
  fi
}

run_append() {
  local round batch
  for ((round = 1; round <= rounds; round++)); do
    for batch in 500 100 1; do
      echo "  append, round $round: batches of $batch" >&2
      printf 'append, batches of %s: %s\n' "$batch" \
        "$("$directory/append_load" "host=$directory/socket user=postgres dbname=chat" "$base" "$conversations" "$batch" "$duration")" >>"$directory/append"
    done
    query -c CHECKPOINT
  done
}

run_scenario() {
  local round
  scenario_of "$1"
  base_of "$1"
  make_people "$1"
  if [ "$1" = append ]; then
    run_append
    return
  fi
  for ((round = 1; round <= rounds; round++)); do
    measure "$1" plain "$round"
    measure "$1" chat "$round"
  done
}

print_conditions() {
  local processors memory
  processors=$(nproc)
  memory=$(awk '/^MemTotal/ { printf "%.0f GB", $2 / 1048576 }' /proc/meminfo)
  echo "$(date -u +%Y-%m-%d), commit $(git -C "$repository" rev-parse --short HEAD 2>/dev/null || echo '?'), $processors processors, $memory, Linux $(uname -r)"
  echo "$(/usr/sbin/mosquitto -h | head -n 1), PostgreSQL $(query -c 'SHOW server_version'), $(query -c "SELECT string_agg(name || '=' || setting || coalesce(unit, ''), ' ' ORDER BY name) FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit', 'shared_buffers', 'max_wal_size')")"
  echo "both brokers: $(sed -n 's/^\(max_inflight_messages\|max_queued_messages\|set_tcp_nodelay\|max_qos\|persistence\|allow_duplicate_messages\) /\1 /p' "$directory/plain.conf" | sort -u | paste -sd, | sed 's/,/, /g')"
  echo "MQTT protocol level $protocol, payload $payload with a body of $body_length characters, window $window until $until, $rounds rounds of $duration s after $warmup s"
  echo "load average at the start: $load_average"
}

main() {
  read_command_line "$@"
  load_average=$(cut -d ' ' -f 1-3 /proc/loadavg)
  failures=0
  directory=$(mktemp -d /var/tmp/chat-bench.XXXXXX)
  chmod 755 "$directory"
  mkdir "$directory/results"
  trap clean_up EXIT
  trap 'exit 2' INT TERM HUP
  build_all
  start_database
  make_keys
  start_brokers
  local name wrong
  for name in "${scenarios[@]}"; do run_scenario "$name"; done
  wrong=$(check_tables)
  print_conditions
  if [ "${scenarios[*]}" != append ]; then
    awk -v order="${scenarios[*]/append/}" -f "$here/table.awk" "$directory"/results/*
  fi
  [ ! -e "$directory/append" ] || sort -s -t : -k 1,1 "$directory/append"
  if [ -n "$wrong" ]; then
    printf 'BAD: %s\n' "$wrong"
    failures=$((failures + 1))
  fi
  if [ -n "$keep" ]; then
    mkdir -p "$keep"
    cp -r "$directory"/results "$directory"/*.conf "$directory"/*.log "$keep"
    for name in broker postgres; do
      [ ! -s "$directory/$name.perf" ] || perf report -i "$directory/$name.perf" --stdio --no-children -g none >"$keep/$name.profile" 2>/dev/null
      [ ! -s "$directory/$name.perf" ] || cp "$directory/$name.perf" "$keep"
    done
  fi
  [ "$failures" -eq 0 ] || { echo "$failures runs or checks were BAD" && exit 1; }
}

main "$@"
