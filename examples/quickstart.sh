#!/bin/bash
# A whole mosquitto-chat on this machine, for trying it out: packages, build, database, demo users, broker.
#
#   examples/quickstart.sh               sets up, starts, shows a conversation and a push going through, leaves all running
#   examples/quickstart.sh --background  sets up and starts, returns when all is ready
#   examples/quickstart.sh --stop        stops what it started; the data stays
#
# Run it as root, or as a user with sudo (asked for only while packages are missing). As root, PostgreSQL runs as
# `postgres` and Mosquitto as `mosquitto`; otherwise both run as you. It listens on 127.0.0.1 alone.
#
#   CHAT_DIR   where all state is kept (build/quickstart)
#   CHAT_PORT  the broker's port (1883); its WebSocket listener is on the next one
#   CHAT_CONF  a file that is appended to the generated mosquitto.conf, after the plugin's options
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/lib.sh"

port=${CHAT_PORT:-1883}
packages=("${build_packages[@]}" mosquitto mosquitto-clients postgresql openssl)

# ------------------------------------------------------------------------------------------------------ who runs what

if [ "$(id -u)" = 0 ]; then
  database_user=postgres
  broker_user=mosquitto
else
  database_user=$(id -un)
  broker_user=$database_user
fi

# become USER: sets `become` to what makes the command after it run as that user.
become() {
  become=()
  [ "$(id -un)" = "$1" ] || become=(setpriv --reuid "$1" --regid "$(id -g "$1")" --init-groups env HOME=/)
}

# Runs a command as another user, in a place that they can enter, without our lock.
as() {
  become "$1"
  (cd / && exec "${become[@]}" "${@:2}" 9>&-)
}

give() {
  [ "$(id -u)" != 0 ] || chown "$1:" "${@:2}"
}

# -------------------------------------------------------------------------------------------------------------- build

build_plugin() {
  step "Building the plugin and the chat client in $build"
  cmake -S "$repository" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DBUILD_TESTING=OFF >"$state/build.log" 2>&1 ||
    { cat "$state/build.log" >&2 && die "cmake failed"; }
  cmake --build "$build" || die "the build failed"
}

# -------------------------------------------------------------------------------------------------------------- state

# Whether both accounts can get to a directory, and a socket in it can have a name (at most 107 bytes).
usable() {
  [ ${#1} -le 75 ] && as "$database_user" test -x "$1" && as "$broker_user" test -x "$1"
}

# Root's clone is often in a directory that is closed to others (/root, mktemp -d), where neither account could reach its
# files. The default place is then a link to a directory that is open.
make_state() {
  mkdir -p "$state" 2>/dev/null || die "cannot make $state: set CHAT_DIR to a directory that you can write"
  [ -w "$state" ] || die "cannot write in $state: set CHAT_DIR to another directory"
  usable "$state" && return
  [ -z "${CHAT_DIR:-}" ] ||
    die "$state cannot be used: $database_user or $broker_user cannot enter it, or its path is longer than 75 bytes; set CHAT_DIR to another directory"
  rmdir "$state" 2>/dev/null || die "$state cannot be entered by $database_user and $broker_user: set CHAT_DIR to another directory"
  local elsewhere
  elsewhere=$(mktemp -d /var/tmp/mosquitto-chat.XXXXXX)
  chmod 755 "$elsewhere"
  ln -s "$elsewhere" "$state"
  echo "$state is closed to $database_user, or too long for a socket's name: it is now a link to $elsewhere"
  state=$elsewhere
}

make_keys() {
  [ ! -s "$state/keys/demo.pem" ] || return 0
  mkdir -p "$state/keys" "$state/private"
  chmod 700 "$state/private"
  (umask 077 && openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$state/private/demo.pem" 2>/dev/null &&
    openssl pkey -in "$state/private/demo.pem" -pubout -out "$state/keys/demo.pem") || die "openssl could not make a key"
  give "$broker_user" "$state/keys/demo.pem"
}

# The broker makes tokens with the same key, from a file that is its own and has the same base name.
lend_key() {
  install -m 600 "$state/private/demo.pem" "$state/broker/demo.pem"
  give "$broker_user" "$state/broker/demo.pem"
}

# ----------------------------------------------------------------------------------------------------------- database

database_program() {
  local directory
  directory=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
  [ -x "$directory/$1" ] || die "no PostgreSQL server in /usr/lib/postgresql"
  echo "$directory/$1"
}

database_runs() {
  [ -S "$state/postgres/socket/.s.PGSQL.5432" ] && psql -X -q -h "$state/postgres/socket" -U postgres -d postgres -c '' 2>/dev/null
}

# Peer authentication: the kernel says who is at the other end, and the map says which role that may be. You may be the
# superuser; the broker's account may be the plugin's role and nothing else.
make_cluster() {
  local data=$state/postgres/data
  [ ! -s "$data/PG_VERSION" ] || return 0
  step "Making a PostgreSQL cluster in $data"
  mkdir -p "$state/postgres/socket"
  give "$database_user" "$state/postgres" "$state/postgres/socket"
  as "$database_user" "$(database_program initdb)" -D "$data" -U postgres -E UTF8 --locale=C.UTF-8 --auth=peer \
    >"$state/initdb.log" 2>&1 || { cat "$state/initdb.log" >&2 && die "initdb failed"; }
  printf '%s\n' 'local all all peer map=quickstart' >"$data/pg_hba.conf"
  printf 'quickstart %s %s\n' "$(id -un)" postgres "$(id -un)" chat_notifier "$database_user" postgres "$broker_user" chat_plugin |
    sort -u >"$data/pg_ident.conf"
  printf '%s\n' "listen_addresses = ''" "unix_socket_directories = '$state/postgres/socket'" >>"$data/postgresql.conf"
}

start_database() {
  if ! database_runs; then
    step "Starting PostgreSQL as $database_user"
    as "$database_user" "$(database_program pg_ctl)" start -w -s -D "$state/postgres/data" -l "$state/postgres/log" </dev/null >/dev/null ||
      { tail -n 5 "$state/postgres/log" >&2 && die "PostgreSQL did not start"; }
  fi
  psql -X -q -A -t -h "$state/postgres/socket" -U postgres -d postgres -c "SELECT 1 FROM pg_database WHERE datname = 'chat'" |
    grep -q 1 || createdb -h "$state/postgres/socket" -U postgres -T template0 -E UTF8 --locale=C.UTF-8 chat
  step "Bringing the schema up to date"
  "$repository/schema/migrate" "host=$state/postgres/socket user=postgres dbname=chat" || die "schema/migrate failed"
  psql -X -q -v ON_ERROR_STOP=1 -h "$state/postgres/socket" -U postgres -d chat -f "$repository/examples/demo.sql" ||
    die "examples/demo.sql failed"
}

# ------------------------------------------------------------------------------------------------------------- broker

# Its pid, if it runs: the number in the file is believed only where that process has our configuration on its command line.
broker_pid() {
  local pid
  pid=$(cat "$state/broker/pid" 2>/dev/null) || return 1
  { tr '\0' '\n' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -qx "$state/broker/mosquitto.conf" || return 1
  echo "$pid"
}

port_is_taken() {
  (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# Said before anything is installed or built.
need_ports() {
  local taken
  ! broker_pid >/dev/null || return 0
  for taken in "$port" $((port + 1)); do
    ! port_is_taken "$taken" ||
      die "port $taken on 127.0.0.1 is taken (another Mosquitto?): stop what uses it, or set CHAT_PORT to another port"
  done
}

make_configuration() {
  mkdir -p "$state/broker/spool"
  lend_key
  install -m 644 "$build/plugin/mosquitto_chat.so" "$state/broker/mosquitto_chat.so"
  {
    sed -n '/^# \[settings\]/,/^# \[end of settings\]/p' "$repository/mosquitto.conf"
    cat <<CONFIGURATION

log_dest stderr
log_type error
log_type warning
log_type notice
log_type information
listener $port 127.0.0.1
max_qos 1
listener $((port + 1)) 127.0.0.1
protocol websockets
socket_domain ipv4
max_qos 1
plugin $state/broker/mosquitto_chat.so
plugin_opt_database host=$state/postgres/socket dbname=chat user=chat_plugin
plugin_opt_token_keys $state/keys/demo.pem
plugin_opt_spool_dir $state/broker/spool
plugin_opt_token_signing_key $state/broker/demo.pem
plugin_opt_guests true
plugin_opt_registration open
CONFIGURATION
    [ -z "${CHAT_CONF:-}" ] || cat "$CHAT_CONF"
  } >"$state/broker/mosquitto.conf"
  echo "$port" >"$state/port"
  : >>"$state/broker/log"
  chmod 700 "$state/broker/spool"
  give "$broker_user" "$state/broker/mosquitto.conf" "$state/broker/spool" "$state/broker/log"
}

start_broker() {
  local pid since
  if broker_pid >/dev/null; then
    echo "The broker is already running on port $(cat "$state/port")."
    cmp -s "$build/plugin/mosquitto_chat.so" "$state/broker/mosquitto_chat.so" ||
      echo "It runs an older build of the plugin: examples/quickstart.sh --stop, and start again for the new one."
    return
  fi
  step "Starting Mosquitto as $broker_user on 127.0.0.1:$port (WebSocket: $((port + 1)))"
  make_configuration
  since=$(wc -l <"$state/broker/log")
  ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -H -n)"
  become "$broker_user"
  (cd / && exec "${become[@]}" setsid /usr/sbin/mosquitto -c "$state/broker/mosquitto.conf" </dev/null >>"$state/broker/log" 2>&1 9>&-) &
  pid=$!
  echo "$pid" >"$state/broker/pid"
  until tail -n "+$((since + 1))" "$state/broker/log" | grep -q ' running$' && port_is_taken "$port"; do
    if ! kill -0 "$pid" 2>/dev/null; then
      tail -n "+$((since + 1))" "$state/broker/log" | tail -n 5 >&2
      die "Mosquitto did not start: the lines above are from $state/broker/log"
    fi
    sleep 0.05
  done
}

stop_all() {
  local pid stopped=false
  if pid=$(broker_pid); then
    kill "$pid" || die "cannot stop the broker (process $pid): run this as the user who started it"
    while broker_pid >/dev/null; do sleep 0.05; done
    rm -f "$state/broker/pid"
    echo "Mosquitto has stopped."
    stopped=true
  fi
  if [ -s "$state/postgres/data/postmaster.pid" ] && as "$database_user" "$(database_program pg_ctl)" status -D "$state/postgres/data" >/dev/null; then
    as "$database_user" "$(database_program pg_ctl)" stop -w -s -m fast -D "$state/postgres/data" || die "PostgreSQL did not stop"
    echo "PostgreSQL has stopped."
    stopped=true
  fi
  $stopped || echo "Nothing was running in $state."
}

# --------------------------------------------------------------------------------------------------- the conversation

token() {
  CHAT_DIR=$state "$repository/examples/token.sh" "$1"
}

# Subscribes in the background and comes back when the broker has granted it.
listen() {
  local name=$1 user=$2 topic=$3
  # Line by line, or nothing would be in the file before the end.
  stdbuf -oL mosquitto_sub -p "$port" -u "$user" -P "$(token "$user")" -t "$topic" -q 1 -C 1 -W 20 -v -d >"$state/show.$name" 2>&1 &
  until grep -qs 'Subscribed' "$state/show.$name"; do
    kill -0 $! 2>/dev/null || { cat "$state/show.$name" >&2 && die "$name could not subscribe to $topic"; }
    sleep 0.05
  done
}

say() {
  echo "alice publishes to $1: $2"
  mosquitto_pub -p "$port" -u alice -P "$(token alice)" -t "$1" -q 1 -m "$2" || die "alice could not publish"
}

show_conversation() {
  step "A conversation"
  port=$(cat "$state/port")
  listen bob bob chat/1/messages
  local bob=$!
  listen tv dave chat/3/messages
  local tv=$!
  say chat/1/send "Hello Bob!"
  say chat/3/send "Good evening, and welcome."
  wait $bob || die "bob received nothing: see $state/broker/log"
  wait $tv || die "the TV received nothing: see $state/broker/log"
  echo "bob received:    $(grep '^chat/1/messages' "$state/show.bob")"
  echo "the TV received: $(grep '^chat/3/messages' "$state/show.tv")"
  rm -f "$state/show.bob" "$state/show.tv"
  echo
  CHAT_DIR=$state "$repository/examples/psql.sh" -X -q -P footer=off \
    -c "SELECT conversation_id, seq, sender_id, body, committed_at FROM chat.messages WHERE conversation_id IN (1, 3) ORDER BY committed_at DESC LIMIT 2"
}

# ------------------------------------------------------------------------------------------------------------- pushes

# bob gets a browser, whose key is as good as any other; what would be sent to it is said and not sent.
make_notifier() {
  local point
  mkdir -p "$state/notifier"
  [ -s "$state/private/vapid.pem" ] || (umask 077 && openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$state/private/vapid.pem" 2>/dev/null)
  cat >"$state/notifier/notifier.conf" <<CONFIGURATION
database = host=$state/postgres/socket dbname=chat user=chat_notifier
grace = 500ms
[web]
provider = webpush
key_file = $state/private/vapid.pem
subject = mailto:quickstart@example.org
content = full
CONFIGURATION
  point=$(openssl pkey -pubin -in "$state/keys/demo.pem" -outform DER | tail -c 65 | base64 -w 0 | tr '+/' '-_' | tr -d =)
  psql -X -q -v ON_ERROR_STOP=1 -h "$state/postgres/socket" -U postgres -d chat <<SQL || die "bob could not be given a browser"
INSERT INTO chat.devices (user_id, name) SELECT 2, 'bob''s browser' WHERE NOT EXISTS (SELECT FROM chat.devices WHERE user_id = 2 AND name = 'bob''s browser');
INSERT INTO chat.push_targets (device_id, provider, app, subscription)
SELECT id, 'webpush', 'web', '{"endpoint":"https://push.example.com/bob","keys":{"p256dh":"$point","auth":"AAAAAAAAAAAAAAAAAAAAAA"}}'
FROM chat.devices WHERE user_id = 2 AND name = 'bob''s browser' ON CONFLICT DO NOTHING;
SQL
  # The log is looked at from here on.
  "$build/notifier/chat-notifier" --config "$state/notifier/notifier.conf" --dry-run --once >"$state/notifier/log" 2>&1 ||
    { cat "$state/notifier/log" >&2 && die "the notifier failed"; }
}

show_pushes() {
  local notifier tries=0
  step "A push for bob's browser, which did not acknowledge the message (dry run: nothing is sent)"
  "$build/notifier/chat-notifier" --config "$state/notifier/notifier.conf" --dry-run >"$state/notifier/log" 2>&1 &
  notifier=$!
  until grep -q '^would push' "$state/notifier/log" || [ $((tries += 1)) -gt 300 ]; do sleep 0.05; done
  kill "$notifier"
  wait "$notifier" || true
  grep '^would push' "$state/notifier/log" || { cat "$state/notifier/log" >&2 && die "the notifier found nothing to push"; }
}

next_steps() {
  port=$(cat "$state/port")
  cat <<TEXT

All is running. From the repository:

  mosquitto_sub -p $port -u bob -P "\$(examples/token.sh bob)" -t chat/1/messages
  mosquitto_pub -p $port -u alice -P "\$(examples/token.sh alice)" -t chat/1/send -m 'Hello!'
  examples/psql.sh -c 'SELECT * FROM chat.messages'

Or talk in a chat client, in as many terminals as you like, beginning with /register NAME:

  ${build#"$repository"/}/examples/cli/chat-cli --port $port

The broker's log: $state/broker/log
Stop it with: examples/quickstart.sh --stop
TEXT
}

# --------------------------------------------------------------------------------------------------------------- main

mode=${1:-show}
[ $# -le 1 ] || die "usage: examples/quickstart.sh [--background | --stop]"
[[ $port =~ ^[0-9]+$ ]] && [ "$port" -ge 1 ] && [ "$port" -lt 65535 ] || die "CHAT_PORT must be a port number below 65535, not '$port'"
[ -z "${CHAT_CONF:-}" ] || [ -r "$CHAT_CONF" ] || die "cannot read $CHAT_CONF, which CHAT_CONF names"

case $mode in
  -h | --help)
    sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
    exit
    ;;
  --stop)
    [ -d "$state" ] || die "nothing was ever started in $state"
    stop_all
    exit
    ;;
  show | --background) ;;
  *) die "unknown option $mode; usage: examples/quickstart.sh [--background | --stop]" ;;
esac

need_ports
need_packages "${packages[@]}"
make_state
exec 9>"$state/lock"
flock -n 9 || die "another quick start is at work in $state"
build_plugin
make_keys
make_cluster
start_database
start_broker
if [ "$mode" != --background ]; then
  make_notifier
  show_conversation
  show_pushes
fi
next_steps
