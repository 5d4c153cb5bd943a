#!/bin/bash
# Prints a sign-in token for a demo user, good for a day.
#
#   examples/token.sh alice|bob|carol|dave|NUMBER [OPTIONS OF chat-token]
#
#   mosquitto_sub -p 1883 -u alice -P "$(examples/token.sh alice)" -t chat/1/messages
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/lib.sh"

[ $# -ge 1 ] || die "usage: examples/token.sh alice|bob|carol|dave|NUMBER [--lifetime SECONDS] [--device NUMBER]"
user=$(user_number "$1") || die "no demo user $1: alice, bob, carol, dave, or a user's number"
shift
key=$state/private/demo.pem
[ -x "$build/examples/chat-token" ] && [ -d "$state" ] || die "nothing is set up in $state: run examples/quickstart.sh first"
[ -r "$key" ] || die "cannot read $key: run this as the user who ran examples/quickstart.sh"
exec "$build/examples/chat-token" --key "$key" --user "$user" "$@"
