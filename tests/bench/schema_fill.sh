#!/bin/bash
# Measures chat.append_messages beside a full table: chat.messages as it is against hash partitions.
#
#   tests/bench/schema_fill.sh            20 million rows a variant: 15 GB of disk, half an hour
#   ROWS=1000000 VARIANTS="plain 16" ROUNDS=3 SECONDS_EACH=5 tests/bench/schema_fill.sh
#
# A private PostgreSQL (fsync on) in a temporary directory holds one database for each variant: "plain" is the schema as it is, a number is that many
# hash partitions of chat.messages by conversation_id. Each is filled with ROWS messages of CONVERSATIONS direct conversations, written in turn, so that
# a conversation's messages lie as far apart as they do after months. Then the variants take turns, ROUNDS times each, at three loads:
#
#   hot      batches of 500 into 50 conversations
#   wide     batches of 500 into all conversations
#   single   batches of 1 into 50 conversations
#
# A procedure in the database makes the batches and calls the function; what is counted is the call and its commit alone: rows per second, CPU of the server process
# (/proc/self/schedstat) and WAL. What the wire costs is not in it: tests/bench/run.sh measures that. The table shows medians over the rounds.
set -euo pipefail
export LC_ALL=C.UTF-8

here=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" && pwd)
rows=${ROWS:-20000000}
conversations=${CONVERSATIONS:-200000}
variants=${VARIANTS:-plain 16 64}
rounds=${ROUNDS:-5}
seconds=${SECONDS_EACH:-8}
loads=${LOADS:-hot wide single}
. "$here/../cluster.sh"

directory=$(mktemp -d "${TMPDIR:-/tmp}/chat-fill.XXXXXX")
# shellcheck disable=SC2317 # called by the trap
cleanup() {
	cluster_stop
	rm -rf "$directory"
}
trap cleanup EXIT
trap 'exit 1' INT TERM
cd "$directory"
cluster_start "$directory" <<CONF
shared_buffers = ${SHARED_BUFFERS:-2GB}
max_wal_size = 4GB
maintenance_work_mem = 512MB
${SETTINGS:-}
CONF

run() {
	psql -X -q -A -t -v ON_ERROR_STOP=1 -d "$1" "${@:2}"
}

# A copy of the schema, with chat.messages cut into $2 partitions. The look-up for duplicates must then name the conversation, or it would go
# through all of them.
partitioned_schema() {
	mkdir "$directory/$1"
	cp "$here"/../../schema/* "$directory/$1/"
	sed -i -z -e 's/\(CREATE TABLE chat.messages (.*UNIQUE (sender_id, client_id, conversation_id)\n)\);/\1 PARTITION BY HASH (conversation_id);\n'"$(
		for ((part = 0; part < $2; part++)); do
			printf 'CREATE TABLE chat.messages_%d PARTITION OF chat.messages FOR VALUES WITH (MODULUS %d, REMAINDER %d);\\n' "$part" "$2" "$part"
		done
	)/" "$directory/$1/0001_tables.sql"
	sed -i -e 's/conversation_id + 0 = /conversation_id = /' "$directory/$1"/*.sql
}

fill() {
	"$bin/createdb" "$1"
	if [ "$1" = plain ]; then
		PGDATABASE=$1 "$here/../../schema/migrate" >/dev/null
	else
		partitioned_schema "$1" "$2"
		PGDATABASE=$1 "$directory/$1/migrate" >/dev/null
	fi
	run "$1" -v rows="$rows" -v conversations="$conversations" -f "$here/fill.sql"
	run "$1" <<'SQL'
-- Appends batches for some time; says rows a second, microseconds of CPU and bytes of WAL a row.
CREATE PROCEDURE public.load(load text, conversations int, batch int, seconds numeric, INOUT answer text) LANGUAGE plpgsql AS $$
DECLARE
	ends timestamptz := clock_timestamp() + seconds * interval '1 second';
	stored bigint := 0;
	spent interval := '0';
	cpu numeric := 0;
	began timestamptz;
	cpu_began numeric;
	wal_began pg_lsn := pg_current_wal_insert_lsn();
	b record;
BEGIN
	WHILE clock_timestamp() < ends LOOP
		SELECT array_agg(c) AS c, array_agg(2 * c - i % 2) AS s, array_agg(0::bigint) AS d, array_agg(gen_random_uuid()) AS id, array_agg(gen_random_uuid()) AS hash,
			array_agg('text'::text) AS type, array_agg(repeat('x', 100)) AS body, array_agg(NULL::bigint) AS none, array_agg(NULL::jsonb) AS extra,
			array_agg(clock_timestamp()) AS sent, array_agg(NULL::timestamptz) AS never
		INTO b FROM (SELECT i, 1 + floor(random() * conversations)::bigint AS c FROM generate_series(1, batch) i) m;
		COMMIT;
		began := clock_timestamp();
		cpu_began := split_part(pg_read_file('/proc/self/schedstat', 0, 100), ' ', 1)::numeric;
		PERFORM a.status FROM chat.append_messages(gen_random_uuid(), '{}', '{}', '{}', b.c, b.s, b.d, b.id, b.hash, b.type, b.body, b.none, b.none, b.extra, b.sent, b.never) a;
		COMMIT;
		spent := spent + (clock_timestamp() - began);
		cpu := cpu + split_part(pg_read_file('/proc/self/schedstat', 0, 100), ' ', 1)::numeric - cpu_began;
		stored := stored + batch;
	END LOOP;
	answer := format('%s %s %s %s', load, round(stored / extract(epoch FROM spent)), round(cpu / stored / 1000, 1), round((pg_current_wal_insert_lsn() - wal_began) / stored));
END $$;
SQL
	run "$1" -c "VACUUM (FREEZE, ANALYZE)" -c "CHECKPOINT"
	echo "# $1: $(run "$1" -c "SELECT format('%s messages, table %s, indexes %s', (SELECT count(*) FROM chat.messages), pg_size_pretty(sum(pg_relation_size(c.oid)) FILTER (WHERE relkind = 'r')),
		pg_size_pretty(sum(pg_relation_size(c.oid)) FILTER (WHERE relkind = 'i'))) FROM pg_class c WHERE relname LIKE 'messages%'"), filled in $SECONDS s"
}

echo "# $(run postgres -c 'SHOW server_version'); $(run postgres -c 'SHOW shared_buffers') shared buffers; $rows messages in $conversations conversations"
for variant in $variants; do
	SECONDS=0
	if [ "$variant" = plain ]; then
		fill plain
	else
		fill "hash$variant" "$variant"
	fi
done

measure() {
	case $2 in
	hot) run "$1" -c "CALL load('hot', 50, 500, $seconds, NULL)" ;;
	wide) run "$1" -c "CALL load('wide', $conversations, 500, $seconds, NULL)" ;;
	single) run "$1" -c "CALL load('single', 50, 1, $seconds, NULL)" ;;
	esac
}
for ((round = 1; round <= rounds; round++)); do
	for load in $loads; do
		for variant in $variants; do
			name=$([ "$variant" = plain ] && echo plain || echo "hash$variant")
			echo "$name $(measure "$name" "$load")" >>"$directory/results"
		done
	done
done

median() {
	sort -n | awk '{ value[NR] = $1 } END { print value[int((NR + 1) / 2)] }'
}
printf '%-8s %-8s %10s %12s %12s\n' load variant rows/s 'CPU us/row' 'WAL B/row'
for load in $loads; do
	for variant in $variants; do
		name=$([ "$variant" = plain ] && echo plain || echo "hash$variant")
		column() { awk -v name="$name" -v load="$load" -v field="$1" '$1 == name && $2 == load { print $field }' "$directory/results" | median; }
		printf '%-8s %-8s %10s %12s %12s\n' "$load" "$name" "$(column 3)" "$(column 4)" "$(column 5)"
	done
done
