# lib.sh - what the scripts of the quick start share; sourced, not run.
#
# All state is one directory, CHAT_DIR (build/quickstart):
#
#   port                the broker's port (its WebSocket listener is on the next one)
#   postgres/data       the cluster;  postgres/socket  its only door;  postgres/log
#   keys/demo.pem       public key: tokens are checked with it;  private/demo.pem  tokens are made with it
#   broker/             mosquitto.conf, mosquitto_chat.so, spool/, log, pid

repository=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
build=$repository/build/plugin
state=${CHAT_DIR:-$repository/build/quickstart}
[[ $state == /* ]] || state=$PWD/$state
# A path without symbolic links is shorter, and a Unix socket's may have 107 bytes.
state=$(readlink -m "$state")

die() {
  printf '%s: %s\n' "$(basename "$0")" "$1" >&2
  exit 1
}

# The number of a demo user.
user_number() {
  case $1 in
    alice) echo 1 ;;
    bob) echo 2 ;;
    carol) echo 3 ;;
    dave) echo 4 ;;
    [1-9]*) [[ $1 =~ ^[0-9]+$ ]] && echo "$1" || return 1 ;;
    *) return 1 ;;
  esac
}
