#!/bin/bash
# Tests of schema/migrate, as TAP. Run by run.sh, which gives it a server (PGHOST, PGUSER); makes databases of its own there.
set -uo pipefail
export LC_ALL=C.UTF-8
here=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" && pwd)
schema=$here/../../schema
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PGDATABASE=postgres

count=0
# is WHAT HAVE WANT
is() {
	count=$((count + 1))
	if [ "$2" = "$3" ]; then
		echo "ok $count - $1"
	else
		echo "not ok $count - $1"
		printf '# have: %s\n# want: %s\n' "${2//$'\n'/ | }" "${3//$'\n'/ | }"
	fi
}

sql() {
	psql -X -A -t -q -v ON_ERROR_STOP=1 -d "$1" -c "$2" 2>&1
}

new_database() {
	sql postgres "CREATE DATABASE $1 TEMPLATE template0 ENCODING ${2:-UTF8} ${3:-}" >/dev/null
}

# A copy of the migrations that a test may change; of the first $2 only, where given.
new_files() {
	mkdir -p "$work/$1"
	cp "$schema/migrate" "$work/$1/"
	local file
	for file in "$schema"/[0-9]*.sql; do
		[ $# -lt 2 ] || [ "$(basename "$file" | cut -c1-4)" -le "$2" ] || continue
		cp "$file" "$work/$1/"
	done
}

newest=$(basename "$(printf '%s\n' "$schema"/[0-9]*.sql | tail -n 1)")
newest=$((10#${newest%%_*}))
files=$(printf '%s\n' "$schema"/[0-9]*.sql | wc -l)

# -- once, twice, by connection string --------------------------------------------------------------------------------
new_database once
is "a fresh database is migrated" "$("$schema/migrate" dbname=once 2>&1 | wc -l)" "$files"
is "a second run finds nothing to do" "$("$schema/migrate" dbname=once 2>&1; echo $?)" 0
is "PGDATABASE does as well as an argument" "$(PGDATABASE=once "$schema/migrate" 2>&1; echo $?)" 0
is "--status says that all is applied" "$("$schema/migrate" --status dbname=once 2>&1 | cut -d' ' -f1 | sort | uniq -c | xargs)" "$files applied"
is "and exits 0" "$("$schema/migrate" --status dbname=once >/dev/null 2>&1; echo $?)" 0
is "the version is the newest file's" "$(sql once 'SELECT chat.version()')" "$newest"

# -- two at once --------------------------------------------------------------------------------------------------------
new_database race
for run in 1 2 3; do
	"$schema/migrate" dbname=race >"$work/race.$run" 2>&1 &
	pids[run]=$!
done
for run in 1 2 3; do
	wait "${pids[run]}"
	is "run $run of three at once succeeds" "$?" 0
done
is "each migration ran once" "$(cat "$work"/race.? | sort | uniq -c | awk '{print $1}' | xargs)" "$(yes 1 | head -n "$files" | xargs)"

# The second waits for the first, however long it takes.
new_database held
psql -X -q -d held -c "SELECT pg_advisory_lock(1667785076, 7170407)" -c "SELECT pg_sleep(600)" >/dev/null 2>&1 &
holder=$!
advisory_locks() {
	sql held "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted = $1"
}
deadline=$((SECONDS + 60))
until [ "$(advisory_locks true)" = 1 ] || [ $SECONDS -gt $deadline ]; do :; done
"$schema/migrate" dbname=held >"$work/held" 2>&1 &
waiter=$!
until [ "$(advisory_locks false)" = 1 ] || [ $SECONDS -gt $deadline ]; do :; done
is "a run waits for another's lock" "$(advisory_locks false)" 1
is "and does nothing meanwhile" "$(sql held "SELECT to_regclass('chat_migrations.applied') IS NULL")" t
sql held "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted" >/dev/null
wait "$holder" 2>/dev/null
wait "$waiter"
is "then it migrates" "$(sql held 'SELECT chat.version()')" "$newest"

# -- what is refused, in one line -----------------------------------------------------------------------------------------
new_files changed
new_database changed
"$work/changed/migrate" dbname=changed >/dev/null 2>&1
echo "-- a harmless remark" >>"$work/changed/0001_tables.sql"
output=$("$work/changed/migrate" dbname=changed 2>&1)
is "a changed file is refused" "$?" 3
is "in one line that says which" "${output%% (on*}" "migrate: 0001_tables.sql was changed after it was applied"
is "--status says so too" "$("$work/changed/migrate" --status dbname=changed 2>&1 | grep changed | cut -d' ' -f1,3)" "changed 0001_tables.sql"
new_files missing
rm "$work/missing/0002_triggers.sql"
output=$("$work/missing/migrate" dbname=changed 2>&1)
is "a missing file is refused" "$?" 3
is "in one line that says which" "$output" "migrate: 0002_triggers.sql was applied to this database but is not among the files: these files are older than the database, or incomplete"
new_files renamed
mv "$work/renamed/0002_triggers.sql" "$work/renamed/0002_other.sql"
is "a renamed file is refused" "$("$work/renamed/migrate" dbname=changed 2>&1)" "migrate: 0002_other.sql was applied to this database as 0002_triggers.sql: a migration keeps its name"
new_files late
echo "SET LOCAL jit = off;" >"$work/late/9000_newest.sql"
new_database late
"$work/late/migrate" dbname=late >/dev/null 2>&1
echo "SET LOCAL jit = off;" >"$work/late/8000_late.sql"
is "a new file below the newest is refused" "$("$work/late/migrate" dbname=late 2>&1)" "migrate: 8000_late.sql is new but numbered below what was already applied: give it the next free number"
is "older files than the database are refused" "$("$schema/migrate" dbname=late 2>&1 | cut -d: -f2 | cut -d' ' -f2-3)" "9000_newest.sql was"
new_files twice
cp "$work/twice/0001_tables.sql" "$work/twice/0001_again.sql"
is "two files of one number are refused" "$("$work/twice/migrate" dbname=once 2>&1; echo $?)" $'migrate: 0001_tables.sql: there are two migrations numbered 0001\n1'
new_files spaced
cp "$work/spaced/0001_tables.sql" "$work/spaced/9001_Not A Name.sql"
is "an odd name is refused" "$("$work/spaced/migrate" dbname=once 2>&1)" "migrate: 9001_Not A Name.sql: a migration is named NNNN_name.sql, in lower case"

new_database latin SQL_ASCII "LOCALE 'C'"
is "another encoding is refused" "$("$schema/migrate" dbname=latin 2>&1)" \
	"migrate: database latin is SQL_ASCII, not UTF8: make it with createdb -T template0 -E UTF8 --locale=C.UTF-8"
new_database plain UTF8 "LOCALE 'C'"
is "another locale is refused" "$("$schema/migrate" dbname=plain 2>&1)" \
	"migrate: database plain has the locale C, neither C.UTF-8 nor ICU: make it with createdb -T template0 -E UTF8 --locale=C.UTF-8"
is "and nothing is left there" "$(sql plain "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'chat%'")" 0
new_database icu UTF8 "LOCALE_PROVIDER icu ICU_LOCALE 'und' LOCALE 'C.UTF-8'"
is "ICU is accepted" "$("$schema/migrate" dbname=icu >/dev/null 2>&1; echo $?)" 0
sql postgres "CREATE ROLE mere_user LOGIN" >/dev/null
is "who is no superuser is refused" "$(PGUSER=mere_user "$schema/migrate" dbname=once 2>&1 | cut -d: -f2 | xargs)" "user mere_user is not a superuser"
is "a server that is not there is one line" "$(PGHOST=$work "$schema/migrate" dbname=once 2>&1 | sed -n 's/^migrate: connection to server.*/one line/p')" "one line"
is "and exits 2" "$(PGHOST=$work "$schema/migrate" dbname=once >/dev/null 2>&1; echo $?)" 2
is "an unknown option is refused" "$("$schema/migrate" --force 2>&1; echo $?)" $'migrate: unknown option --force; usage: migrate [--status] [CONNINFO]\n2'

# -- a migration that fails -------------------------------------------------------------------------------------------------
new_files failing
printf 'CREATE TABLE chat.half (x int);\nSELECT 1/0;\n' >"$work/failing/9000_failing.sql"
new_database failing
output=$("$work/failing/migrate" dbname=failing 2>&1)
is "a migration that fails ends the run" "$?" 3
is "with its file and line" "$(grep -c '9000_failing.sql:2: ERROR:  division by zero' <<<"$output")" 1
is "leaves nothing of itself" "$(sql failing "SELECT to_regclass('chat.half') IS NULL")" t
is "and what came before it applied" "$(sql failing 'SELECT max(number) FROM chat_migrations.applied')" "$newest"
is "--status calls it pending" "$("$work/failing/migrate" --status dbname=failing 2>&1 | grep failing | xargs)" "pending 9000_failing.sql"
printf 'CREATE TABLE chat.whole (x int);\n' >"$work/failing/9000_failing.sql"
is "mended, it is applied" "$("$work/failing/migrate" dbname=failing 2>&1)" "applied 9000_failing.sql"

# -- from every old version ---------------------------------------------------------------------------------------------------
dump() {
	# The tables, functions and rights, without pg_dump's own remarks.
	pg_dump -s -d "$1" -n chat -n chat_api -n chat_migrations | grep -v '^--\|^\\\(un\)\?restrict'
}
dump once >"$work/fresh.dump"
for ((version = 1; version < newest; version++)); do
	new_files "old$version" "$(printf '%04d' "$version")"
	new_database "old$version"
	"$work/old$version/migrate" "dbname=old$version" >/dev/null 2>&1
	"$schema/migrate" "dbname=old$version" >/dev/null 2>&1
	dump "old$version" >"$work/old.dump"
	is "from version $version one comes to the same schema" "$(diff "$work/fresh.dump" "$work/old.dump" | head -n 5)" ""
done
is "which is not empty" "$(grep -c '^CREATE TABLE' "$work/fresh.dump")" "$(sql once "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relnamespace IN ('chat'::regnamespace, 'chat_api'::regnamespace, 'chat_migrations'::regnamespace)")"

# -- what is in the tables ------------------------------------------------------------------------------------------------------
# Edits and deletions, which version 11 folded when they were read, are carried out by the next one.
new_files edited 0011
new_database edited
"$work/edited/migrate" dbname=edited >/dev/null 2>&1
psql -X -q -v ON_ERROR_STOP=1 -d edited >/dev/null <<'SQL'
INSERT INTO chat.users (id) OVERRIDING SYSTEM VALUE VALUES (1), (2);
INSERT INTO chat.conversations (id, type, name) OVERRIDING SYSTEM VALUE VALUES (1, 'group', 'old');
INSERT INTO chat.conversation_participants (conversation_id, user_id) VALUES (1, 1), (1, 2);
INSERT INTO chat.messages (conversation_id, sender_id, client_id, type, ref, body, extra)
SELECT 1, sender, gen_random_uuid(), type, ref, body, extra::jsonb FROM (VALUES (1, 'text', NULL, 'one', NULL), (1, 'text', NULL, 'two', NULL),
	(2, 'text', NULL, 'three', '{"mentions":[1]}'), (1, 'edit', 1, 'one a', NULL), (1, 'edit', 1, 'one b', NULL), (1, 'edit', 2, 'two a', NULL),
	(1, 'delete', 2, '', NULL), (2, 'edit', 1, 'not mine', NULL)) AS old (sender, type, ref, body, extra);
SELECT chat.index_messages(NULL, 1000);
SQL
"$schema/migrate" dbname=edited >/dev/null 2>&1
is "edits are in the messages, what was deleted is gone" \
	"$(sql edited "SELECT string_agg(concat_ws(' ', seq, type, body), ', ' ORDER BY seq) FROM chat.messages WHERE body <> ''")" \
	"1 text one b, 3 text three, 5 edit one b"
is "as in the search index" "$(sql edited "SELECT string_agg(seq || ' ' || words::text, ', ' ORDER BY seq) FROM chat.search_entries")" \
	"1 '#1' 'b':2 'one':1, 3 '#1' 'three':1"
is "and unread mentions are known" "$(sql edited "SELECT string_agg(user_id || ' ' || seq, ', ') FROM chat.mentions")" "1 3"

# -- the quick start's people ---------------------------------------------------------------------------------------------------
for run in first second; do
	is "the demo's rows: $run run" "$(psql -X -q -v ON_ERROR_STOP=1 -d once -f "$here/../../examples/demo.sql" 2>&1; sql once "SELECT (SELECT count(*) FROM chat.users), (SELECT string_agg(conversation_id || ':' || user_id || ' ' || role, ', ' ORDER BY conversation_id, user_id) FROM chat.conversation_participants)")" \
		"4|1:1 member, 1:2 member, 2:1 owner, 2:2 member, 2:3 member, 3:1 owner"
done
is "the next user gets the next number" "$(sql once "INSERT INTO chat.users (username) VALUES ('erin') RETURNING id")" 5

echo "1..$count"
