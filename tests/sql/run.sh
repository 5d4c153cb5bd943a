#!/bin/bash
# Runs the tests of the schema: tests/sql/run.sh [FILE...]
#
# A private PostgreSQL in a temporary directory, reachable by a socket in that directory alone, is migrated and given the helpers of
# helpers.psql; then pg_prove runs the *.sql files, and test_migrate.sh, which makes databases of its own. All of it is gone afterwards.
# Needs postgresql, postgresql-15-pgtap and libtap-parser-sourcehandler-pgtap-perl. As root, PostgreSQL runs as user postgres.
set -euo pipefail
export LC_ALL=C.UTF-8

here=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" && pwd)
. "$here/../cluster.sh"
for tool in psql pg_prove prove sha256sum; do
	command -v "$tool" >/dev/null || {
		echo "run.sh: $tool is missing (packages: postgresql postgresql-15-pgtap libtap-parser-sourcehandler-pgtap-perl)" >&2
		exit 2
	}
done

directory=$(mktemp -d /tmp/chat-sql.XXXXXX)
# shellcheck disable=SC2317 # called by the trap
cleanup() {
	cluster_stop
	rm -rf "$directory"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

cd "$directory"
cluster_start "$directory" --no-sync <<CONF
autovacuum = off
fsync = off
max_connections = 30
log_min_messages = warning
CONF
export CHAT_SQL_TESTS=$here # a test reads the others, to see that each method has one
"$bin/createdb" chat
PGDATABASE=chat "$here/../../schema/migrate" >"$directory/migrate.log"
psql -X -q -d chat -v ON_ERROR_STOP=1 -f "$here/helpers.psql"

failed=0
if [ $# -gt 0 ]; then
	files=("$@")
	cd "$OLDPWD"
else
	files=("$here"/*.sql)
fi
sql=()
for file in "${files[@]}"; do
	[[ $file == *.sql ]] && sql+=("$file")
done
if [ ${#sql[@]} -gt 0 ]; then
	pg_prove --dbname chat "${sql[@]}" || failed=1
fi
if [ $# -eq 0 ] || [[ " $* " == *test_migrate.sh* ]]; then
	prove --exec bash "$here/test_migrate.sh" || failed=1
fi
if grep -E 'PANIC:|was terminated by signal' "$directory/log" >&2; then
	failed=1
fi
exit "$failed"
