#!/bin/bash
# README.md, docs/ and the sample configurations against the code: options with their defaults, topics, error codes, metrics.
#
#   tests/check_docs.sh BUILD_DIRECTORY
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
describe=${1:-build/dev}/tests/describe

complaints=0
complain() {
  echo "$1"
  complaints=$((complaints + 1))
}

# The first column of the table under a heading of a page, one entry a line.
column() {
  awk -v heading="## $2" '$0 == heading { on = 1; next } /^## / { on = 0 } on && /^\| `/ { split($0, part, "`"); print part[2] }' "$1"
}

# same PAGE HEADING WORD: the table lists exactly what the code knows.
same() {
  local difference
  difference=$(diff <(column "$1" "$2" | sort) <("$describe" "$3" | cut -f 1 | sort)) ||
    complain "$1, $2 (<) and the code (>) differ: $difference"
}

for page in README.md docs/reference.md; do
  same $page Topics topics
  same $page Options options
done
same docs/reference.md Errors errors

# The rows of chat_api.methods, as the migrations insert them, with what they cost.
methods() {
  awk '/^INSERT INTO chat_api.methods/ { on = 1; next } on && match($0, /^\t\(\047[a-z]+\.[a-z_]+\047/) { print substr($0, 4, RLENGTH - 4) } /;$/ { on = 0 }' schema/*.sql
}
difference=$(diff <(column docs/methods.md Methods | sort) <(methods | sort)) ||
  complain "docs/methods.md, Methods (<) and chat_api.methods (>) differ: $difference"

while IFS=$'\t' read -r name value reload help; do
  quoted="\`$value\`"
  [[ $value != \(* ]] || quoted=$value
  grep -qF "| \`$name\` | $quoted |" README.md || complain "README.md: the default of $name is $value"
  grep -qF "| \`$name\` | $quoted | $reload | $help |" docs/reference.md || complain "docs/reference.md: $name is $value, $reload: $help"
  case $value in
    \(required\)) grep -qE "^plugin_opt_$name [^ ]" mosquitto.conf || complain "mosquitto.conf: $name is required" ;;
    \(none\)) grep -qE "^#plugin_opt_$name [^ ]" mosquitto.conf || complain "mosquitto.conf: shows no example of $name" ;;
    *) grep -qxF "#plugin_opt_$name $value" mosquitto.conf || complain "mosquitto.conf: the default of $name is $value" ;;
  esac
done < <("$describe" options)

for name in $(sed -n 's/^#\?plugin_opt_\([a-z_]*\) .*/\1/p' mosquitto.conf); do
  "$describe" options | cut -f 1 | grep -qx "$name" || complain "mosquitto.conf: there is no option $name"
done

# The notifier's page and sample configuration.
while IFS=$'\t' read -r name providers value help; do
  grep -qF "| \`$name\` | $providers | $value | $help |" docs/notifier.md || complain "docs/notifier.md: $name is for $providers, $value: $help"
  grep -qE "^#?$name = " notifier/notifier.conf || complain "notifier.conf: does not show $name"
done < <("$describe" notifier)
for name in $(sed -n 's/^#\?\([a-z_]*\) = .*/\1/p' notifier/notifier.conf); do
  "$describe" notifier | cut -f 1 | grep -qx "$name" || complain "notifier.conf: there is no option $name"
done
difference=$(diff <(column docs/notifier.md "Looking after it") \
  <(sed -n 's/.*{"\([a-z_]*\)", ".*"},$/\1/p; s/.*print_head(out, "\([a-z_]*\)", ".*/\1/p' notifier/metrics.c)) ||
  complain "docs/notifier.md, metrics (<) and the code (>) differ: $difference"

# Links between the pages lead somewhere.
for page in README.md CONTRIBUTING.md docs/*.md; do
  for link in $(grep -oE '\]\([^)#:]+[)#]' "$page" | sed 's/^](//; s/[)#]$//'); do
    [ -e "$(dirname "$page")/$link" ] || complain "$page: $link does not exist"
  done
done
[ $complaints = 0 ]
