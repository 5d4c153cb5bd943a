#!/bin/bash
# Measures plain Mosquitto and Mosquitto with the plugin side by side: same machine, same minute, same settings, in turns.
#
#   tests/bench/run.sh [OPTION]... [SCENARIO]...
#
# Builds the plugin, starts a PostgreSQL and two brokers of its own on 127.0.0.1, runs each scenario A B A B …, checks that
# nothing was lost, doubled or out of order (in what clients got, and in the tables), prints a table, leaves nothing behind.
# Run it as root (the database then runs as `postgres`, the brokers as `mosquitto`) or as any user (all run as you).
#
# Scenarios (pairs, if none is named; `all` is every one down to rows):
#   pairs        50 one-to-one conversations, as fast as they go
#   pairs500     500 of them
#   group        1 publisher, 100 receivers, as fast as it goes
#   channel      1 publisher, 5,000 receivers, two messages under way
#   fan-in       4 publishers, 3 receivers in one conversation, as fast as it goes
#   mixed        50 pairs; of 100 messages 89 have 100 characters, 10 have 2,000, one has 100,000
#   rate1000     50 pairs, 1,000 messages a second together, latency counted from when each was due
#   rate20000    the same with 20,000
#   idle         one pair, one message at a time, over TCP
#   idle-ws      the same over WebSocket
#   receipts     a group of 100, 10 messages a second, each marked as delivered and as read by everybody, and by nobody
#   connections  --sessions idle connections of people who are in no conversation: memory, CPU
#   memberships  the same, each in 20 conversations and subscribed to none of them
#   storm        --sessions sessions connect at once, each subscribing to 20 conversations; then again after all were cut
#   storm-paced  the same, 64 connections begun at a time
#   requests     rate5000 on the plugin's broker alone, and beside 500 requests/s of 200 people: history, sync, search, 60 : 20 : 20
#   logins       rate1000 likewise, and beside 100 auth.login a minute
#   rows         no broker: chat.append_messages on one connection, batches of 500 and of 1
#   table        no broker: batches of 500 into 50 conversations, beside --fill million messages and beside none
#   table-wide   the same into all conversations
#   marks        no broker: chat.append_marks, beside --fill million messages, batches of 500 and of 1
#
# Options:
#   --rounds N        how often each arm runs each scenario (3)
#   --duration S      measured seconds of a run (5), after --warmup S (2)
#   --window N        messages that a publisher has under way where it is as fast as it goes (20)
#   --until ack|delivery   when a message leaves that window (delivery)
#   --protocol 4|5    MQTT 3.1.1 or 5 (5)
#   --payload FORM    text, json or json-id: an envelope with the sender's own id (json-id)
#   --body-length N   characters of a body, or LENGTH:SHARE,LENGTH:SHARE (100)
#   --sessions N      of connections and storms, a multiple of 20 (10000; the limit of descriptors bounds it)
#   --fill N          million messages that the table scenarios begin with (2)
#   --load ARGUMENTS  words for mqtt_load, last of all (tests/bench/mqtt_load --help)
#   --option "N V"    a line plugin_opt_N V; may be repeated
#   --setting N=V     of PostgreSQL; may be repeated
#   --profile         perf records broker and database in the plugin's runs (needs linux-perf); reports are kept
#   --output DIRECTORY  where table.txt and chart.svg are written (build/bench/report)
#   --keep DIRECTORY  keep results, logs and profiles there
#
# Exit status: 0 all well, 1 the plugin's arm lost, doubled or misordered something, delivered it before it was stored, or stored it wrongly, 2 it could not be
# run. Faults of plain Mosquitto are shown too, and do not count: some scenarios are more than it can hold.
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
repository=$(cd "$here/../.." && pwd)

scenario_names=(pairs pairs500 group channel fan-in mixed rate1000 rate20000 idle idle-ws connections memberships storm storm-paced rows table table-wide marks receipts requests logins)
all_scenarios=("${scenario_names[@]:0:15}" requests logins) # a full table takes its time
scenarios=()
rounds=3
duration=5
warmup=2
window=20
password='a long password'
until=delivery
protocol=5
payload=json-id
body_length=100
sessions=10000
fill=2
output=$repository/build/bench/report
load_arguments=
plugin_options=()
settings=()
profile=false
keep=

die() {
  printf 'run.sh: %s\n' "$1" >&2
  exit 2
}

# scenario_of NAME: sets arms, kind (load, storm or append), and for
#   load: conversations, publishers, receivers, type (of the conversations), arguments (of mqtt_load), stall (look for one), and
#     askers (other people, who ask) with what they ask a second
#   storm: memberships of each, arguments
#   append: nothing more
scenario_of() {
  local flow="--window $window"
  [ "$until" = ack ] || flow+=' --until-delivery'
  publishers=1 receivers=1 type=direct kind=load arms='plain chat' stall=false askers=0
  case $1 in
    pairs) conversations=50 arguments=$flow ;;
    pairs500) conversations=500 arguments=$flow ;;
    group) conversations=1 receivers=100 type=group arguments=$flow stall=true ;;
    channel) conversations=1 receivers=5000 type=channel arguments='--window 2 --until-delivery' stall=true ;;
    fan-in) conversations=1 publishers=4 receivers=3 type=group arguments=$flow ;;
    mixed) conversations=50 arguments="$flow --body-length 100:89,2000:10,100000:1" ;;
    rate1000) conversations=50 arguments='--rate 1000' ;;
    rate20000) conversations=50 arguments='--rate 20000' ;;
    idle) conversations=1 arguments='--rate 100' ;;
    idle-ws) conversations=1 arguments='--rate 100 --websocket all' ;;
    receipts) conversations=1 receivers=99 type=group arms='silent marked' arguments='--rate 10' ;;
    connections) kind=storm memberships=0 arguments='--subscriptions 0 --waves 1 --opening 64' ;;
    memberships) kind=storm memberships=20 arguments='--subscriptions 0 --waves 1 --opening 64' ;;
    storm) kind=storm memberships=20 arguments='' stall=true ;;
    storm-paced) kind=storm memberships=20 arguments='--opening 64' stall=true ;;
    requests) conversations=50 arms='alone beside' arguments='--rate 5000' askers=200 asked_per_s=500 ;;
    logins) conversations=50 arms='alone beside' arguments='--rate 1000' askers=20 asked_per_s=1.66667 ;;
    rows | marks) kind=append arms='batch500 batch1' ;;
    table | table-wide) kind=append arms='empty full' ;;
    *) die "no scenario is called $1; they are: ${scenario_names[*]}" ;;
  esac
  [ $kind != load ] || clients=$((conversations * (publishers + receivers)))
  [ "$kind" != storm ] || clients=$sessions
}

# ------------------------------------------------------------------------------------------------------- command line

read_command_line() {
  while [ $# -gt 0 ]; do
    case $1 in
      --rounds | --duration | --warmup | --window | --until | --protocol | --payload | --body-length | --sessions | --fill | \
        --load | --option | --setting | --output | --keep)
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
      --sessions) sessions=$2 ;;
      --fill) fill=$2 ;;
      --load) load_arguments=$2 ;;
      --option) plugin_options+=("$2") ;;
      --setting) settings+=(-c "$2") ;;
      --output) output=$2 ;;
      --keep) keep=$2 ;;
      --profile) profile=true && shift && continue ;;
      --help | -h) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" && exit 0 ;;
      -*) die "unknown option $1 (--help lists them)" ;;
      all) scenarios+=("${all_scenarios[@]}") && shift && continue ;;
      *) scenarios+=("$1") && shift && continue ;;
    esac
    shift 2
  done
  [ ${#scenarios[@]} -gt 0 ] || scenarios=(pairs)
  local name
  for name in "${scenarios[@]}"; do scenario_of "$name"; done
  [ "$until" = ack ] || [ "$until" = delivery ] || die "--until is ack or delivery"
  [[ $rounds =~ ^[1-9][0-9]*$ ]] || die "--rounds is a number from 1"
  [[ $fill =~ ^[1-9][0-9]*$ ]] || die "--fill is a number from 1"
  [[ $sessions =~ ^[1-9][0-9]*$ ]] || die "--sessions is a number"
  [ $((sessions % 20)) = 0 ] || die "--sessions is a multiple of 20"
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
probe_pid=
asking_pid=
visible_pid=

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
  stop_process "$probe_pid" KILL
  stop_process "$asking_pid" KILL
  stop_process "$visible_pid" KILL
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
  # shellcheck disable=SC2046 # a list of words
  cc -std=gnu11 -D_GNU_SOURCE -O2 -g -o "$directory/bench_tool" -I "$repository/common" -I "$repository/plugin" -I "$here" \
    "$here/tool/bench_tool.c" "$here/usage.c" "$build"/plugin/libchat_engines.a "$build"/plugin/libchat_rules.a \
    "$build"/common/libchat_common.a $(pkg-config --cflags --libs libpq libcjson libcrypto) -lpthread ||
    die "bench_tool could not be built"
  install -m 755 "$build/plugin/mosquitto_chat.so" "$directory"
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
  echo "pg_stat_statements.track = 'none'" >>"$data/postgresql.conf"
  printf 'bench %s %s\n' "$(id -un)" postgres "$database_user" postgres "$broker_user" chat_plugin | sort -u >"$data/pg_ident.conf"
  (as "$database_user" "$programs/postgres" -D "$data" -c listen_addresses= -c "unix_socket_directories=$directory/socket" \
    -c shared_preload_libraries=pg_stat_statements ${settings[@]+"${settings[@]}"}) \
    >"$directory/postgres.log" 2>&1 &
  database_pid=$!
  database=postgres wait_for PostgreSQL "$database_pid" "$directory/postgres.log" query -c ''
  database=postgres query -c 'CREATE EXTENSION pg_stat_statements'
  make_database chat
}

make_database() {
  database=postgres query -c "CREATE DATABASE $1 TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'"
  "$repository/schema/migrate" "host=$directory/socket user=postgres dbname=$1" >"$directory/migrate.log" 2>&1 ||
    { cat "$directory/migrate.log" >&2 && die "schema/migrate failed"; }
}

# Two databases with the same people, once a run: one without a message, one with --fill million, 100 a conversation.
make_tables() {
  [ -z "${tables_made:-}" ] || return 0
  tables_made=yes
  table_conversations=$((fill * 10000))
  echo "  filling a table with $fill million messages" >&2
  make_database table_empty
  make_database table_full
  query -c "ALTER SYSTEM SET fsync = off" -c "ALTER SYSTEM SET full_page_writes = off" -c "ALTER SYSTEM SET max_wal_size = '8GB'" \
    -c "ALTER SYSTEM SET maintenance_work_mem = '1GB'" -c "ALTER SYSTEM SET autovacuum = off" -c "SELECT pg_reload_conf()" >/dev/null
  database=table_empty query -v rows=0 -v conversations=$table_conversations -f "$here/fill.sql"
  database=table_full query -v rows=$((fill * 1000000)) -v conversations=$table_conversations -f "$here/fill.sql"
  database=table_empty query -c "VACUUM (FREEZE, ANALYZE)"
  database=table_full query -c "VACUUM (FREEZE, ANALYZE)"
  query -c "ALTER SYSTEM RESET ALL" -c "SELECT pg_reload_conf()" >/dev/null
  query -c CHECKPOINT
  sync
  table_sizes=$(database=table_full query -c "SELECT format('%s, indexes %s', pg_size_pretty(sum(pg_table_size(c.oid))), pg_size_pretty(sum(pg_indexes_size(c.oid))))
    FROM pg_class c WHERE c.oid = 'chat.messages'::regclass OR c.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'chat.messages'::regclass)")
}

# Each scenario has conversations and users of its own, from base on: client n of mqtt_load is user base + n.
base_of() {
  local i
  for i in "${!scenario_names[@]}"; do
    [ "${scenario_names[$i]}" != "$1" ] || base=$(((i + 1) * 100000 + 1))
  done
}

# The last user belongs to nothing: the probe.
make_people() {
  local last=$((base + clients - 1))
  query -c "INSERT INTO chat.users (id, username) SELECT n, 'bench-' || n FROM generate_series($base, $((last + 1))) AS n"
  case $kind in
    load)
      make_conversations
      [ $askers = 0 ] || make_askers "$1"
      ;;
    storm) [ "$memberships" = 0 ] || make_storm_groups ;;
  esac
  local token_words=
  if [ "$1" = receipts ]; then
    query -c "INSERT INTO chat.devices (id, user_id) SELECT n, n FROM generate_series($base, $last) AS n"
    token_words=devices
  fi
  [ "$kind" = append ] || query -c ANALYZE
  # shellcheck disable=SC2086 # no word or one
  "$directory/bench_tool" tokens "$directory/private/bench.pem" "$base" "$clients" $token_words >"$directory/credentials.$1"
  "$directory/bench_tool" tokens "$directory/private/bench.pem" $((last + 1)) 1 >"$directory/credentials.$1.probe"
}

make_conversations() {
  local last=$((base + clients - 1)) each=$((publishers + receivers)) end=$((base + conversations - 1))
  query <<SQL
BEGIN;
INSERT INTO chat.conversations (id, type, name, first_user_id, second_user_id)
SELECT c, '$type',
	CASE WHEN '$type' <> 'direct' THEN 'bench' END,
	CASE WHEN '$type' = 'direct' THEN $base + 2 * (c - $base) END,
	CASE WHEN '$type' = 'direct' THEN $base + 2 * (c - $base) + 1 END
FROM generate_series($base, $end) AS c;
INSERT INTO chat.conversation_participants (conversation_id, user_id, role)
SELECT $base + (n - $base) / $each, n,
	(CASE WHEN (n - $base) % $each = 0 THEN 'owner' WHEN '$type' = 'channel' THEN 'reader' ELSE 'member' END)::chat.participant_role
FROM generate_series($base, $last) AS n
WHERE '$type' <> 'direct';
COMMIT;
SQL
}

# Those who ask are in conversations of their own, which have something in them.
make_askers() {
  local first=$((base + 50000)) each=1 i
  [ "$1" != requests ] || each=300
  echo "  $1: writing and indexing what is asked for" >&2
  query -c "INSERT INTO chat.users (id, username) SELECT n, 'bench-' || n FROM generate_series($first, $((first + askers - 1))) AS n"
  query -v first=$first -v people=$askers -v each="$each" -f "$here/content.sql"
  i=0
  while [ "$i" -ge 0 ]; do i=$(query -c "SELECT after FROM chat.index_missed($i, 20000)"); done
  query -c 'VACUUM ANALYZE'
  "$directory/bench_tool" tokens "$directory/private/bench.pem" $first $askers >"$directory/credentials.$1.askers"
  if [ "$1" = requests ]; then
    query -v first=$first -v people=$askers -v each="$each" -v lines=20000 -f "$here/requests.sql" >"$directory/asked.$1"
  else
    query -c "INSERT INTO chat.credentials (user_id, verifier) SELECT n, '$("$directory/bench_tool" verifier "$password")' FROM generate_series($first, $((first + askers - 1))) AS n"
    for ((i = 0; i < askers; i++)); do
      echo "$i auth.login {\"username\":\"bench-$((first + i))\",\"password\":\"$password\"}"
    done >"$directory/asked.$1"
  fi
}

# Who is where: storm.h.
make_storm_groups() {
  local of_a_kind=$((sessions / 20))
  query <<SQL
BEGIN;
INSERT INTO chat.conversations (id, type, name)
SELECT c, 'group', 'bench' FROM generate_series($base, $((base + memberships * of_a_kind - 1))) AS c;
INSERT INTO chat.conversation_participants (conversation_id, user_id)
SELECT $base + k * $of_a_kind + (s + k * (s / $of_a_kind)) % $of_a_kind, $base + s
FROM generate_series(0, $((sessions - 1))) AS s, generate_series(0, $((memberships - 1))) AS k ORDER BY 1, 2;
COMMIT;
SQL
}

make_keys() {
  mkdir "$directory/private" "$directory/keys" "$directory/signing"
  chmod 700 "$directory/private"
  (umask 077 && openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$directory/private/bench.pem" 2>/dev/null)
  openssl pkey -in "$directory/private/bench.pem" -pubout -out "$directory/keys/bench.pem" 2>/dev/null
  cp "$directory/private/bench.pem" "$directory/signing"
  give "$broker_user" "$directory/keys/bench.pem" "$directory/signing" "$directory/signing/bench.pem"
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
plugin_opt_token_signing_key $directory/signing/bench.pem
plugin_opt_spool_dir $directory/spool
plugin_opt_rate_messages 0
plugin_opt_rate_requests 0
plugin_opt_rate_sign_in 0
plugin_opt_rate_sign_in_address 0
CONFIGURATION
  local option
  for option in ${plugin_options[@]+"${plugin_options[@]}"}; do echo "plugin_opt_$option"; done
}

prepare_brokers() {
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
  start_plain
  start_chat
}

start_plain() {
  (as "$broker_user" /usr/sbin/mosquitto -c "$directory/plain.conf") >>"$directory/plain.log" 2>&1 &
  plain_pid=$!
  wait_for "plain Mosquitto" "$plain_pid" "$directory/plain.log" port_is_taken "$plain_ws_port"
}

start_chat() {
  (as "$broker_user" /usr/sbin/mosquitto -c "$directory/chat.conf") >>"$directory/chat.log" 2>&1 &
  chat_pid=$!
  wait_for "Mosquitto with the plugin" "$chat_pid" "$directory/chat.log" port_is_taken "$chat_ws_port"
}

# Memory is counted from a fresh start: what earlier runs have freed would hide what sessions take.
restart_broker() {
  if [ "$1" = chat ]; then
    stop_process "$chat_pid" TERM
    start_chat
  else
    stop_process "$plain_pid" TERM
    start_plain
  fi
}

# ------------------------------------------------------------------------------------------------------------ running

# How each arm is reached.
plain_arguments() {
  words=(--port "$plain_port" --websocket-port "$plain_ws_port")
}

chat_arguments() {
  words=(--port "$chat_port" --websocket-port "$chat_ws_port")
}

generate() {
  # shellcheck disable=SC2086 # lists of words
  "$directory/mqtt_load" load --protocol "$protocol" --payload "$payload" --body-length "$body_length" --warmup "$warmup" \
    --duration "$duration" --conversations "$conversations" --publishers "$publishers" --receivers "$receivers" \
    $arguments $load_arguments ${mark_words-} ${probe_words[@]+"${probe_words[@]}"} "$@"
}

storm() {
  # shellcheck disable=SC2086
  "$directory/mqtt_load" storm --protocol "$protocol" --payload "$payload" --duration "$duration" --drain 30 \
    --sessions "$sessions" --distinct-addresses $arguments $load_arguments "$@"
}

# The words that only the plugin's arm has.
run_chat() {
  chat_arguments
  set -- "${words[@]}" --watch "broker=$chat_pid" --watch "postgres=$database_pid" --credentials "$directory/credentials.$1" \
    --publish-topic chat/%d/send --subscribe-topic chat/%d/messages --first-conversation "$base"
  if [ "$kind" = storm ]; then
    storm "$@"
  else
    generate --check-seq --sample "$directory/sample" "$@"
  fi
}

run_plain() {
  plain_arguments
  if [ "$kind" = storm ]; then # the same CONNECTs: a broker keeps what it is sent as password, whoever looks at it
    storm "${words[@]}" --watch "broker=$plain_pid" --credentials "$directory/credentials.$1"
  else
    generate "${words[@]}" --watch "broker=$plain_pid"
  fi
}

run_append() {
  local batch=500 first=$base among=50 user=$base what=append
  [ "$2" != batch1 ] || batch=1
  case $1 in
    table) first=1 user=1 ;;
    table-wide) first=1 user=1 among=$table_conversations ;;
    marks) first=1 user=1 among=$table_conversations what=marks ;;
  esac
  "$directory/bench_tool" $what "host=$directory/socket user=postgres dbname=$3" $batch "$duration" "$first" "$among" "$user"
}

# Beside a run: how long the broker takes to answer a PINGREQ. Its figures come at stop_probe.
start_probe() {
  probe_words=(${asking_pid:+--probe "$asking_pid"}) # it is told the same
  $stall || return 0
  "$2"_arguments
  [ "$2" = plain ] || words+=(--credentials "$directory/credentials.$1.probe")
  "$directory/mqtt_load" probe --protocol "$protocol" --duration 3600 "${words[@]}" >"$directory/probe" &
  probe_pid=$!
  probe_words=(--probe "$probe_pid")
}

stop_probe() {
  [ -n "$probe_pid" ] || return 0
  kill -TERM "$probe_pid" 2>/dev/null || true
  wait "$probe_pid" || echo "unanswered_probe 1" >>"$directory/probe"
  probe_pid=
  cat "$directory/probe"
}

# Beside a run: people who ask. Their figures come at stop_asking.
start_asking() {
  chat_arguments
  "$directory/mqtt_load" requests --protocol "$protocol" --duration 3600 --sessions "$askers" --rate "$asked_per_s" "${words[@]}" \
    --drain 30 --credentials "$directory/credentials.$1.askers" --requests "$directory/asked.$1" >"$directory/asking" &
  asking_pid=$!
}

stop_asking() {
  local status=0
  kill -TERM "$asking_pid" 2>/dev/null || true
  wait "$asking_pid" || status=$?
  asking_pid=
  cat "$directory/asking"
  return $status
}

# Beside the plugin's runs: some of what arrives is looked up in the table at that moment.
start_visible() {
  [ -p "$directory/sample" ] || mkfifo "$directory/sample"
  exec 3<>"$directory/sample" # neither end waits for the other
  "$directory/bench_tool" visible "host=$directory/socket user=postgres dbname=chat" <"$directory/sample" 3>&- >"$directory/visible" &
  visible_pid=$!
}

stop_visible() {
  local status=0
  exec 3>&-
  wait "$visible_pid" || status=$?
  visible_pid=
  cat "$directory/visible"
  return $status
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

count_statements() {
  query -c "ALTER SYSTEM SET pg_stat_statements.track = '$1'" -c 'SELECT pg_reload_conf()' >/dev/null
}

measure_plain() {
  [ "$kind" != storm ] || restart_broker plain
  start_probe "$1" plain
  run_plain "$1" || status=$?
  stop_probe
}

measure_chat() {
  local before after
  if [ "$kind" = storm ]; then
    restart_broker chat
    count_statements top
    database=postgres query -c 'SELECT pg_stat_statements_reset()' >/dev/null
  else
    start_visible
  fi
  before=$(database_figures)
  start_profile
  start_probe "$1" chat
  run_chat "$1" || status=$?
  stop_probe
  after=$(database_figures)
  if [ "$kind" = storm ]; then
    database=postgres query -c "SELECT 'statements ' || coalesce(sum(s.calls), 0) FROM pg_stat_statements s JOIN pg_roles ON pg_roles.oid = s.userid WHERE rolname = 'chat_plugin'"
    count_statements none
  else
    stop_visible || status=1
  fi
  ! $profile || wait "${perf_pids[@]}" || true
  echo "$before $after" | awk '{
    rows = $4 - $1; transactions = $5 - $2
    if (rows > 0 && transactions > 0)
      printf "rows_per_transaction %.1f\nwal_bytes_per_row %.0f\n", rows / transactions, ($6 - $3) / rows
  }'
  query -c CHECKPOINT # so that what it leaves to be written is not written in the other arm's turn
}

# What marks make the database do, by message, beside what the messages do. It knows what a connection did that has fallen quiet
# within 10 s (PGSTAT_IDLE_INTERVAL).
mark_figures() {
  sleep 11
  query -F ' ' -c "SELECT (SELECT sum(last_seq) FROM chat.conversations),
    (SELECT n_tup_upd FROM pg_stat_user_tables WHERE relid = 'chat.participant_watermarks'::regclass),
    (SELECT n_tup_ins + n_tup_upd FROM pg_stat_user_tables WHERE relid = 'chat.device_watermarks'::regclass)"
  database=postgres query -F ' ' -c "SELECT coalesce(sum(s.calls), 0), coalesce(sum(s.calls) FILTER (WHERE query LIKE '%append_marks%'), 0)
    FROM pg_stat_statements s JOIN pg_roles ON pg_roles.oid = s.userid WHERE rolname = 'chat_plugin'"
}

measure_receipts() {
  local before after
  count_statements top
  before=$(mark_figures)
  mark_words="--receipts-topic chat/%d/receipts $2" measure_chat "$1"
  after=$(mark_figures)
  count_statements none
  # shellcheck disable=SC2086 # two lines each
  echo $before "|" $after | awk -F '|' '{
    split($1, before, " "); split($2, after, " ")
    rows = after[1] - before[1]
    if (rows > 0)
      printf "watermarks_per_row %.2f\ndevice_watermarks_per_row %.2f\nstatements_per_row %.2f\nmark_statements_per_row %.2f\n",
        (after[2] - before[2]) / rows, (after[3] - before[3]) / rows, (after[4] - before[4]) / rows, (after[5] - before[5]) / rows
  }'
}

measure_silent() {
  measure_receipts "$1" ''
}

measure_marked() {
  measure_receipts "$1" '--mark-topic chat/%d/mark'
}

# Both on the plugin's broker.
measure_alone() {
  measure_chat "$1"
}

measure_beside() {
  start_asking "$1"
  measure_chat "$1"
  stop_asking || status=$?
}

measure_append() {
  case $2 in
    empty | full) run_append "$1" "$2" "table_$2" || status=$? ;;
    batch*) run_append "$1" "$2" "$([ "$1" = marks ] && echo table_full || echo chat)" || status=$? ;;
  esac
  query -c CHECKPOINT
}

# A run of one arm. Its report goes into results/SCENARIO.ARM.ROUND.
measure() {
  local scenario=$1 arm=$2 round=$3 report=$directory/results/$1.$2.$3 status=0
  echo "  $scenario, round $round: $arm" >&2
  if [ "$kind" = append ]; then
    measure_append "$scenario" "$arm" >"$report"
  else
    measure_"$arm" "$scenario" >"$report"
  fi
  [ $status -ne 2 ] || die "$scenario, round $round, $arm: could not be run"
  if [ $status -ne 0 ]; then
    [ "$arm" = plain ] || failures=$((failures + 1))
    grep -E '^(lost|duplicates|misordered|order_differences|seq_errors|unknown|behind_notices|disconnects|visible_missing|refused.*|request_errors|requests_unanswered) [1-9]' "$report" |
      sed "s/^/    BAD: /" >&2
  fi
}

run_scenario() {
  local round arm
  scenario_of "$1"
  base_of "$1"
  case $1 in
    rows) conversations=50 publishers=1 receivers=1 type=direct clients=100 kind=load make_people "$1" ;;
    table | table-wide | marks) make_tables ;;
    *) make_people "$1" ;;
  esac
  for ((round = 1; round <= rounds; round++)); do
    for arm in $arms; do measure "$1" "$arm" "$round"; done
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
  echo "with plugin: ES256 tokens, rate limits off, spool_sync none, writers ${plugin_options[*]:-as shipped}; plain: everybody let in, nothing stored"
  [ -z "${tables_made:-}" ] || echo "full table: $fill million messages in $table_conversations conversations, $table_sizes"
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
  prepare_brokers
  local name wrong
  for name in "${scenarios[@]}"; do run_scenario "$name"; done
  wrong=$(check_tables)
  mkdir -p "$output"
  { print_conditions && awk -v order="${scenarios[*]}" -f "$here/results.awk" -f "$here/table.awk" "$directory"/results/*; } | tee "$output/table.txt"
  awk -v order="${scenarios[*]}" -v caption="$(print_conditions | head -n 1)" -f "$here/results.awk" -f "$here/chart.awk" \
    "$directory"/results/* >"$output/chart.svg"
  echo "written: $output/table.txt and chart.svg" >&2
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
