#!/bin/bash
# Runs the tests of the schema: tests/sql/run.sh [FILE...]
#
# A private PostgreSQL in a temporary directory, reachable by a socket in that directory alone, is migrated and given the helpers of
# helpers.psql; then pg_prove runs the *.sql files, and test_migrate.sh, which makes databases of its own. All of it is gone afterwards.
# Needs postgresql, postgresql-15-pgtap and libtap-parser-sourcehandler-pgtap-perl. As root, PostgreSQL runs as user postgres.
set -euo pipefail
export LC_ALL=C.UTF-8

here=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" && pwd)
bin=$(find /usr/lib/postgresql -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1)
bin=${bin:-$(pg_config --bindir)}
for tool in psql pg_prove prove sha256sum; do
	command -v "$tool" >/dev/null || {
		echo "run.sh: $tool is missing (packages: postgresql postgresql-15-pgtap libtap-parser-sourcehandler-pgtap-perl)" >&2
		exit 2
	}
done

directory=$(mktemp -d /tmp/chat-sql.XXXXXX)
as_server=()
if [ "$(id -u)" = 0 ]; then
	as_server=(runuser -u postgres --)
	chown postgres "$directory"
fi
# shellcheck disable=SC2317 # called by the trap
cleanup() {
	"${as_server[@]}" "$bin/pg_ctl" -D "$directory/data" -m immediate -w -s stop >/dev/null 2>&1 || true
	rm -rf "$directory"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

cd "$directory"
"${as_server[@]}" "$bin/initdb" -D "$directory/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync >"$directory/initdb.log" 2>&1 || {
	cat "$directory/initdb.log" >&2
	exit 2
}
cat >>"$directory/data/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$directory'
fsync = off
max_connections = 30
log_min_messages = warning
CONF
"${as_server[@]}" "$bin/pg_ctl" -D "$directory/data" -l "$directory/log" -w -s start

unset PGPORT PGSERVICE PGOPTIONS PGPASSWORD PGDATABASE
export PGHOST=$directory PGUSER=postgres
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
