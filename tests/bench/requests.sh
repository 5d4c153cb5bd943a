#!/bin/bash
# Measures what requests and the search index cost the database, without a broker.
#
#   tests/bench/requests.sh            a minute, 1 GB of disk
#   ROWS=100000 CALLS=50 tests/bench/requests.sh
#
# A private PostgreSQL (fsync on, Debian's settings but for SETTINGS, lines of postgresql.conf) in a temporary directory gets
#
#   history  a conversation of ROWS messages: a page of 50 at its beginning, in its middle, at its end
#   sync     someone who was away from 200 conversations while 50 messages came in each: the first page
#   mix      content.sql and requests.sql, what `run.sh requests` asks
#   index    chat.index_messages, as the plugin calls it: 10 entries in each of 50 conversations a call; right after a checkpoint, when each
#            page that is touched goes to the WAL whole, and after that
#
# and prints of each the median and the 99th percentile of CALLS calls in the order of the calls' time, CPU of the server's process (/proc/self/schedstat), and pages of
# 8 KB looked at; of the index CPU and WAL for an entry. All calls go through chat_api.call on one connection; what the wire costs is not in it.
set -euo pipefail
export LC_ALL=C.UTF-8

here=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" && pwd)
rows=${ROWS:-1000000}
calls=${CALLS:-200}
. "$here/../cluster.sh"

directory=$(mktemp -d "${TMPDIR:-/tmp}/chat-requests.XXXXXX")
# shellcheck disable=SC2317 # called by the trap
cleanup() {
	cluster_stop
	rm -rf "$directory"
}
trap cleanup EXIT
trap 'exit 1' INT TERM
cd "$directory"
cluster_start "$directory" <<<"${SETTINGS:-}"
"$bin/createdb" chat
export PGDATABASE=chat
"$here/../../schema/migrate" >"$directory/migrate.log"

query() {
	psql -X -q -A -t -v ON_ERROR_STOP=1 "$@"
}

# -- what is asked for -----------------------------------------------------------------------------------------------------

echo "# writing $rows messages into one conversation, and what else is asked for" >&2
query -v rows="$rows" <<'SQL'
INSERT INTO chat.users (id) SELECT generate_series(1, 1000);
SET session_replication_role = replica;
SET synchronous_commit = off;
-- 1 is long; 101 ... 300 are those of who was away, user 500; what is asked about in the mix begins at 501.
INSERT INTO chat.conversations (id, type, last_seq, last_ordinal) SELECT 1, 'group'::chat.conversation_type, :rows, :rows UNION ALL SELECT id, 'group', 1000, 1000 FROM generate_series(101, 300) id;
INSERT INTO chat.conversation_participants (conversation_id, user_id, joined_seq, first_visible_seq)
SELECT 1, id, 0, 1 FROM generate_series(1, 2) id UNION ALL SELECT id, member, 0, 1 FROM generate_series(101, 300) id, unnest(ARRAY[500, id]) member;
INSERT INTO chat.participant_watermarks (conversation_id, user_id, delivered_seq, read_seq, read_ordinal)
SELECT conversation_id, user_id, 0, 0, 0 FROM chat.conversation_participants;
INSERT INTO chat.messages (conversation_id, seq, ordinal, sender_id, client_id, content_hash, type, body)
SELECT 1, seq, seq, 1 + seq % 2, gen_random_uuid(), gen_random_uuid(), 'text', repeat('x', 40) FROM generate_series(1, :rows) seq;
INSERT INTO chat.messages (conversation_id, seq, ordinal, sender_id, client_id, content_hash, type, body)
SELECT id, seq, seq, id, gen_random_uuid(), gen_random_uuid(), 'text', repeat('x', 100) FROM generate_series(1, 1000) seq, generate_series(101, 300) id;
SQL
query -v first=501 -v people=200 -v each=200 -f "$here/content.sql"
query -v first=501 -v people=200 -v each=200 -v lines=4000 -f "$here/requests.sql" >"$directory/lines"
query <<'SQL'
INSERT INTO chat.search_positions SELECT id, last_seq FROM chat.conversations WHERE id < 501; -- has nothing to be found
VACUUM (FREEZE, ANALYZE);

CREATE TABLE asked (what text, place integer, caller bigint, method text, params text);
CREATE FUNCTION cpu_us() RETURNS numeric LANGUAGE sql VOLATILE AS $$ SELECT split_part(pg_read_file('/proc/self/schedstat', 0, 100), ' ', 1)::numeric / 1000 $$;
-- "what median p99 cpu pages" of so many calls; the first ten make the plans.
CREATE PROCEDURE measure(p_what text, p_calls integer) LANGUAGE plpgsql AS $$
DECLARE
	spent numeric[] := '{}';
	cpu numeric := 0;
	bytes numeric := 0;
	began timestamptz;
	cpu_began numeric;
	answer text;
	a record;
	n integer := 0;
	plan json;
BEGIN
	FOR a IN SELECT asked.* FROM asked, generate_series(1, p_calls) round WHERE what = p_what ORDER BY round, place LIMIT p_calls + 10 LOOP
		cpu_began := cpu_us();
		began := clock_timestamp();
		answer := chat_api.call(a.method, a.caller, 0, 'x', a.params::jsonb);
		n := n + 1;
		IF n > 10 THEN
			spent := spent || extract(epoch FROM clock_timestamp() - began) * 1000;
			cpu := cpu + cpu_us() - cpu_began;
			bytes := bytes + octet_length(answer);
		END IF;
		IF answer NOT LIKE '{"result"%' THEN
			RAISE 'no answer: % % %', a.method, a.params, answer;
		END IF;
		COMMIT;
	END LOOP;
	EXECUTE format('EXPLAIN (ANALYZE, BUFFERS, FORMAT json) SELECT chat_api.call(%L, %s, 0, ''x'', %L)', a.method, a.caller, a.params) INTO plan;
	RAISE NOTICE '%', format('%s %s %s %s %s %s', p_what,
		(SELECT round(percentile_cont(0.5) WITHIN GROUP (ORDER BY ms)::numeric, 2) FROM unnest(spent) ms),
		(SELECT round(percentile_cont(0.99) WITHIN GROUP (ORDER BY ms)::numeric, 2) FROM unnest(spent) ms),
		round(cpu / 1000 / (n - 10), 2), (plan #>> '{0,Plan,Shared Hit Blocks}')::bigint + (plan #>> '{0,Plan,Shared Read Blocks}')::bigint, round(bytes / (n - 10)));
END $$;
SQL

# -- the index ---------------------------------------------------------------------------------------------------------------

index() {
	query <<SQL
$1
SELECT pg_stat_force_next_flush();
SELECT pg_stat_reset_shared('wal') \g /dev/null
SELECT cpu_us() AS cpu, coalesce(sum(span), 0) AS before FROM chat.search_entries \gset
DO \$\$
BEGIN
	FOR part IN 1 .. 40 LOOP
		-- As messages come: some in each of many conversations.
		FOR n IN 1 .. 50 LOOP
			PERFORM chat.index_messages(ARRAY[501 + (50 * part + n) % 200], 10);
		END LOOP;
		COMMIT;
	END LOOP;
END \$\$;
SELECT cpu_us() - :cpu AS cpu, sum(span) - :before AS done FROM chat.search_entries \gset
SELECT pg_stat_force_next_flush() \g /dev/null
SELECT format('%s %s %s %s', '$2', round(:cpu / :done, 1), round(wal_bytes / :done), round(wal_fpi::numeric / :done, 3)) FROM pg_stat_wal;
SQL
}
echo "index            CPU us/entry   WAL B/entry   whole pages/entry"
{ index 'CHECKPOINT;' 'after-checkpoint' && index '' 'later'; } | grep . | awk '{ printf "%-16s %12s %13s %19s\n", $1, $2, $3, $4 }'
after=0
while [ "$after" -ge 0 ]; do after=$(query -c "SELECT after FROM chat.index_missed($after, 20000)"); done
query -c 'VACUUM ANALYZE'

# -- the requests ------------------------------------------------------------------------------------------------------------

query -v rows="$rows" <<SQL
CREATE TABLE lines (n bigint GENERATED ALWAYS AS IDENTITY, line text);
\copy lines (line) FROM '$directory/lines' WITH (FORMAT csv, DELIMITER E'\x01', QUOTE E'\x02')
INSERT INTO asked SELECT 'history-beginning', 1, 1, 'message.history', '{"conversation":1,"after":0}'
UNION ALL SELECT 'history-middle', 1, 1, 'message.history', format('{"conversation":1,"before":%s}', :rows / 2)
UNION ALL SELECT 'history-end', 1, 1, 'message.history', '{"conversation":1}'
UNION ALL SELECT 'sync', 1, 500, 'message.sync', (SELECT format('{"cursors":%s}', jsonb_object_agg(id, 950)) FROM generate_series(101, 300) id)
UNION ALL SELECT 'mix-' || substr(split_part(line, ' ', 2), 9), n, 501 + split_part(line, ' ', 1)::bigint, split_part(line, ' ', 2), substr(line, strpos(line, '{')) FROM lines;
ANALYZE asked;
SQL
echo
echo "request                 p50 ms     p99 ms     CPU ms      pages      bytes"
for what in history-beginning history-middle history-end sync mix-history mix-sync mix-search; do
	query -c "CALL measure('$what', $calls)" 2>&1 | awk '{ sub(/^.*NOTICE: */, ""); printf "%-18s %11s %10s %10s %10s %10s\n", $1, $2, $3, $4, $5, $6 }'
done
query -c "SELECT format('# the first page of message.sync: %s of 200 conversations, %s messages, more: %s', jsonb_array_length(answer -> 'conversations'),
	(SELECT sum(jsonb_array_length(c -> 'messages')) FROM jsonb_array_elements(answer -> 'conversations') c), answer -> 'more')
	FROM (SELECT chat_api.call(method, caller, 0, 'x', params::jsonb)::jsonb -> 'result' AS answer FROM asked WHERE what = 'sync') a"
query -c "SELECT format('# search index: entries %s, words %s, for %s messages', pg_size_pretty(pg_table_size('chat.search_entries')), pg_size_pretty(pg_relation_size('chat.search_entries_words')), sum(span)) FROM chat.search_entries"
