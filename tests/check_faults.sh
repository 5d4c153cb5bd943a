#!/bin/bash
# What the tests break on purpose (plugin/test_faults.h) is in the module made for them, and not in the one that is installed.
set -euo pipefail
plugin=$1/plugin
traces='CHAT_CRASH_AT|CHAT_BREAK|test_faults_'
grep -qaE "$traces" "$plugin/mosquitto_chat_faulty.so" || { echo "mosquitto_chat_faulty.so holds no faults"; exit 1; }
if grep -aoE "$traces" "$plugin/mosquitto_chat.so" || nm "$plugin/mosquitto_chat.so" | grep -E "$traces"; then
  echo "mosquitto_chat.so holds what is for tests alone"
  exit 1
fi
# Each name in the header is at work somewhere, and no other.
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../plugin"
used() { grep -ohE "$1\(\"[a-z_]+\"" ./*.[ch] | grep -oE '"[a-z_]+"' | tr -d '"' | sort -u; }
named() { sed -n "/^ \* $1/,/^ \* [A-Z]\|^ \*\//{s/^ \*   \([a-z][a-z_]*\) .*/\1/p}" test_faults.h | sort -u; }
diff <(named Points) <(used TEST_CRASH_POINT)
# And each point is one that a fault dies at.
for point in $(used TEST_CRASH_POINT); do
  grep -qE "\"$point\"|CHAT_CRASH_AT=$point" ../tests/faults/*.c || { echo "no fault dies at $point"; exit 1; }
done
diff <(named Breaks) <({ used TEST_BREAK; used test_faults_break; } | sort -u)
