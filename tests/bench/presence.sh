#!/bin/bash
# A crowd of which some per cent reconnect each second: who watches must hear of nobody going, the database of next to nothing.
#
#   tests/bench/presence.sh [USERS [SECONDS [PERCENT]]]      10000 users, 30 seconds, 5 per cent
#
# Builds the plugin and presence_storm with optimisation; presence/presence_storm.c says what is measured and what fails.
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
directory=$(mktemp -d "${TMPDIR:-/tmp}/chat-presence.XXXXXX")
# shellcheck disable=SC2317 # called by the trap
cleanup() {
  [ ! -s "$directory/template" ] || "$directory/build/tests/integration/integration_template" remove "$directory/template" || true
  rm -rf "$directory"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

cmake --preset release -S "$here/../.." -B "$directory/build" >"$directory/build.log"
cmake --build "$directory/build" --target mosquitto_chat presence_storm integration_template -j 2 >>"$directory/build.log" ||
  { cat "$directory/build.log" >&2 && exit 2; }
"$directory/build/tests/integration/integration_template" make "$directory/template"
ulimit -n "$(ulimit -H -n)"
CHAT_TEST_PLUGIN=$directory/build/plugin/mosquitto_chat.so CHAT_TEST_TEMPLATE=$directory/template \
  "$directory/build/tests/bench/presence_storm" "$@"
