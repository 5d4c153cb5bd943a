#!/bin/bash
# The layers of the plugin and of the notifier: includes go downwards only, and each outside library has its one door.
#
# A new file is put on the lists below; the lower the better.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."

# Rank and files. A file may include what has a lower rank, or its own rank where the last column says so.
plugin_layers='
5 host      alone     plugin broker
4 service   alone     sign_in exchange access ingest request fanout
3 state     together  chat membership publish respond inbox overrun presence
2 engine    together  spool spool_files spool_recover spool_positions statements writer writer_calls writer_connect writer_lane delivery loader registry wakeup request_workers attempts accounts verifier_cache token_cache chores presence_store content_filter writer_rules hash_table id_table
1 rule      together  error topic envelope mark receipt typing rate_limit options acl record answer request_payload scram password account presence_rules content_rules test_faults
0 interface together  host
'
notifier_layers='
5 host      together  main status supervisor
4 service   alone     sender
3 state     together  app origins metrics
2 engine    together  link http loop files config credential claim settlements
1 rule      together  provider fcm apns webpush encrypt jwt digest endpoint subscription content lane
'
complaints=0
complain() {
  echo "$1"
  complaints=$((complaints + 1))
}

# check_room ROOM LAYERS ENTRY: the files of a room. The entry file knows its neighbours.
check_room() {
  local -A rank=() kind=()
  local number how names name file included
  while read -r number _ how names; do
    for name in $names; do
      rank[$name]=$number
      kind[$name]=$how
    done
  done <<<"$2"
  for file in "$1"/*.[ch]; do
    name=$(basename "${file%.*}")
    if [ -z "${rank[$name]:-}" ]; then
      complain "$file: on no layer; put it on the list in tests/check_layers.sh"
      continue
    fi
    while read -r included; do
      [ "$included" != "$name" ] && [ -n "${rank[$included]:-}" ] || continue
      if [ "${rank[$included]}" -gt "${rank[$name]}" ]; then
        complain "$file includes $included.h, which is on a higher layer"
      elif [ "${rank[$included]}" = "${rank[$name]}" ] && [ "${kind[$name]}" = alone ] && [ "$file" != "$3" ]; then
        complain "$file includes $included.h, its neighbour: services do not know one another"
      fi
    done < <(sed -n 's/^#include "\(.*\/\)\?\([a-z0-9_]*\)\.h".*/\2/p' "$file")
  done
}
check_room plugin "$plugin_layers" plugin/plugin.c
check_room notifier "$notifier_layers" notifier/main.c

# door PATTERN FILES...: the files in plugin/, common/ and notifier/ that include it are among these.
door() {
  local pattern=$1 file
  shift
  for file in $(grep -lE "^#include [<\"]($pattern)" plugin/*.[ch] common/*.[ch] $(find notifier -name '*.[ch]' 2>/dev/null) || true); do
    [[ " $* " == *" $file "* ]] || complain "$file includes $pattern, which only these may: $*"
  done
}
door 'mosquitto|mqtt_protocol' plugin/plugin.c plugin/broker.c plugin/broker.h
door 'libpq' common/database.c
door 'openssl/' common/signing.c plugin/envelope.c plugin/scram.c notifier/digest.c notifier/encrypt.c
door 'pcre2' plugin/content_rules.c
door 'unicase|uninorm|unictype|unistr' plugin/password.c
door 'cjson/' common/json.c common/json.h
door 'curl/' notifier/http.c
door 'microhttpd' notifier/status.c

# common knows nothing of the rooms above it.
for file in $(grep -lE '^#include ".*plugin/' common/*.[ch] || true); do
  complain "$file includes a header of plugin/"
done
[ $complaints = 0 ]
