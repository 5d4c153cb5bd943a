#!/bin/bash
# Runs one of these files by hand, with the programs of a build directory.
#
#   tests/notifier/by_hand.sh BUILD FILE [ARGUMENT...]        e.g. build/release bench.mjs queue 100000
set -euo pipefail
build=$(readlink -f "$1")
file=$2
shift 2
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"
template=$(mktemp)
trap '"$build/tests/integration/integration_template" remove "$template"; rm -f "$template"' EXIT
"$build/tests/integration/integration_template" make "$template"
export CHAT_NOTIFIER=$build/notifier/chat-notifier CHAT_TEST_REBIND=$build/tests/notifier/rebind.so CHAT_TEST_TEMPLATE=$template
export CHAT_TEST_PEERS=${CHAT_TEST_PEERS:-$PWD/../../build/peers}
case $file in
  *.test.mjs) node --test --test-reporter=spec "$file" ;;
  *) node "$file" "$@" ;;
esac
