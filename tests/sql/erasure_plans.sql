-- What a reaction, an edit, a deletion, the sweeper and retention read: plans that were made when the tables were empty must still be right
-- when they are not (see plans.sql).
BEGIN;
SELECT no_plan();

ANALYZE; -- statistics that say "empty", as on the day of the installation
SELECT test.users(1, 2);
SELECT test.group(1, 1, 2);
SELECT test.outcome('[{"c":1,"s":1,"id":1},{"c":1,"s":1,"id":2,"extra":{"mentions":[2]}},{"c":1,"s":1,"id":3,"expires":2000},{"c":1,"s":2,"id":4}]') \g /dev/null
SELECT test.outcome('[{"c":1,"s":1,"id":5,"type":"edit","ref":1},{"c":1,"s":2,"id":6,"type":"reaction","ref":1},{"c":1,"s":2,"id":7,"type":"delete","ref":4}]') \g /dev/null
SELECT chat.sweep(500), chat.trim_logs(1, 0, 500) \g /dev/null
UPDATE chat.messages SET committed_at = now() - interval '2 days' WHERE seq = 1;
SELECT chat.trim_logs(1, 0, 500) \g /dev/null

INSERT INTO chat.conversations (id, type) SELECT id, 'group' FROM generate_series(2, 1000) id;
SELECT count(test.outcome((SELECT jsonb_agg(jsonb_build_object('c', 1, 's', 1 + i % 2, 'id', batch * 100 + i)) FROM generate_series(0, 99) i))) FROM generate_series(1, 52) batch \g /dev/null

SELECT test.rows_read() \g /dev/null
-- What changes entries, in a conversation of 5,000, all in the index of words.
SELECT chat.index_messages('{1}', 100000) \g /dev/null
SELECT is(test.outcome('[{"c":1,"s":1,"id":50000,"body":"first"},{"c":1,"s":1,"id":50001,"extra":{"mentions":[2]}}]'), 'stored 5208, stored 5209', 'two more');
SELECT test.rows_read() \g /dev/null
SELECT is(test.outcome(jsonb_build_array(jsonb_build_object('c', 1, 's', 2, 'id', 50002, 'type', 'reaction', 'ref', 4500))) LIKE 'stored%', true, 'a reaction');
SELECT is(test.rows_read(), 'conversation_participants 2, conversations 3, messages 2, participant_watermarks 1, spool_positions 2, users 1', 'reads its message');
SELECT is(test.outcome('[{"c":1,"s":1,"id":50003,"type":"edit","ref":5208}]') LIKE 'stored%', true, 'an edit');
SELECT is(test.rows_read(), 'conversation_participants 2, conversations 3, messages 4, participant_watermarks 1, search_positions 2, spool_positions 3, users 1', 'too');
SELECT is(test.outcome('[{"c":1,"s":1,"id":50004,"type":"delete","ref":5208}]') LIKE 'stored%', true, 'a deletion');
SELECT is(test.rows_read(), 'conversation_participants 2, conversations 3, messages 5, participant_watermarks 1, search_positions 4, spool_positions 3, users 1', 'and its edit');
UPDATE chat.messages SET expires_at = '2000-01-01' WHERE conversation_id = 1 AND seq BETWEEN 3001 AND 3100;
SELECT test.rows_read() \g /dev/null
SELECT chat.sweep(500) \g /dev/null
SELECT is(test.rows_read(), 'messages 308, search_entries 101, search_positions 2', 'the sweeper reads what has expired');
UPDATE chat.messages SET expires_at = now() + interval '1 day' WHERE conversation_id = 1 AND seq BETWEEN 3201 AND 3300;
SELECT test.rows_read() \g /dev/null
SELECT chat.sweep(500) \g /dev/null
SELECT is(coalesce(test.rows_read(), ''), '', 'and nothing of what will');
UPDATE chat.messages SET committed_at = '2000-01-01' WHERE conversation_id = 1 AND seq <= 100;
SELECT test.rows_read() \g /dev/null
SELECT chat.trim_logs(1, 0, 50) \g /dev/null
SELECT is(test.rows_read(), 'conversations 12, messages 156, search_entries 52, search_positions 2', 'retention reads what it removes, and what its last run has left');

SELECT * FROM finish();
ROLLBACK;
