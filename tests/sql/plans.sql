-- A connection's plans are made when the tables are empty, and must still be right when they are not: nothing is read whole, and a
-- message is looked up by the one index that finds it, not by reading its conversation.
BEGIN;
SELECT plan(19);

ANALYZE; -- statistics that say "empty", as on the day of the installation
SELECT test.users(1, 2);
SELECT test.group(1, 1, 2);
SELECT test.outcome('[{"c":1,"s":1,"id":1}]') \g /dev/null
SELECT test.marked('[{"c":1,"u":2,"read":1}]') \g /dev/null
SELECT * FROM chat.open_sessions('{1}', '{0}', true) \g /dev/null
SELECT * FROM chat.load_memberships('{1}', '{1}') \g /dev/null
SELECT * FROM chat.read_messages(1, 1, 1) \g /dev/null
SELECT * FROM chat.settle_messages('{1}', '{1}', ARRAY[test.uuid(1)], ARRAY[test.uuid(0)], ARRAY[now()]) \g /dev/null

SELECT test.users(3, 2000);
INSERT INTO chat.devices (id, user_id) SELECT id, id FROM generate_series(1, 2000) id;
INSERT INTO chat.conversations (id, type) SELECT id, 'group' FROM generate_series(2, 1000) id;
INSERT INTO chat.conversation_participants (conversation_id, user_id) SELECT id, member FROM generate_series(2, 1000) id, generate_series(id, id + 1) member;


SELECT test.rows_read() \g /dev/null

SELECT count(test.outcome((SELECT jsonb_agg(jsonb_build_object('c', 1, 's', 1 + i % 2, 'id', batch * 100 + i)) FROM generate_series(0, 99) i))) FROM generate_series(1, 50) batch \g /dev/null
SELECT is((SELECT last_seq FROM chat.conversations WHERE id = 1), 5001::bigint, '5,000 messages are in one conversation');
SELECT test.rows_read() \g /dev/null

-- Watermarks that this very transaction made have their foreign key looked at when they move: one participant each.
SELECT test.outcome((SELECT jsonb_agg(jsonb_build_object('c', 1, 's', 1 + i % 2, 'id', 10000 + i)) FROM generate_series(0, 99) i)) \g /dev/null
SELECT is(test.rows_read(), 'conversation_participants 4, conversations 4, participant_watermarks 2, users 2',
	'100 messages into it: no message is read, each sender is looked up once');
SELECT test.outcome((SELECT jsonb_agg(jsonb_build_object('c', i, 's', i, 'id', i)) FROM generate_series(101, 200) i)) \g /dev/null
SELECT is(test.rows_read(), 'conversation_participants 200, conversations 300, participant_watermarks 100, users 100', '100 messages into 100 conversations');
SELECT test.outcome('[{"c":1,"s":1,"id":20000}]') \g /dev/null
SELECT is(test.rows_read(), 'conversation_participants 2, conversations 1, participant_watermarks 1, spool_positions 3, users 1', 'a single message');
SELECT test.outcome((SELECT jsonb_agg(jsonb_build_object('c', 1, 's', 1 + i % 2, 'd', 1 + i % 2, 'id', 30000 + i)) FROM generate_series(0, 99) i)) \g /dev/null
SELECT is(test.rows_read(), 'conversation_participants 4, conversations 4, devices 2, participant_watermarks 2, users 2', '100 messages of 2 devices: each is looked up once');
SELECT test.outcome('[{"c":1,"s":1,"d":1,"id":40000}]') \g /dev/null
SELECT is(test.rows_read(), 'conversation_participants 2, conversations 1, devices 1, participant_watermarks 1, spool_positions 3, users 1', 'a single message of a device');
SELECT test.outcome((SELECT jsonb_agg(jsonb_build_object('c', 1, 's', 1 + i % 2, 'id', 100 + i)) FROM generate_series(0, 99) i)) \g /dev/null
SELECT is(test.rows_read(), 'conversation_participants 102, conversations 103, messages 101, users 102', '100 duplicates: the first is found, then each is read');
SELECT * FROM chat.settle_messages('{1,1}', '{1,2}', ARRAY[test.uuid(100), test.uuid(101)], ARRAY[test.uuid(0), test.uuid(0)], ARRAY[now(), now()]) \g /dev/null
SELECT is(test.rows_read(), 'conversations 2, messages 2', 'to settle 2, 2 are read');
SELECT * FROM chat.read_messages(1, 4001, 4010) \g /dev/null
SELECT is(test.rows_read(), 'conversations 1, messages 10', 'to read 10, 10');
SELECT test.marked((SELECT jsonb_agg(jsonb_build_object('c', id, 'u', id + 1, 'd', id + 1, 'read', 1)) FROM generate_series(101, 200) id)) \g /dev/null
SELECT is(test.rows_read(), 'conversation_participants 100, conversations 100, devices 100, messages 100, participant_watermarks 400, users 100',
	'100 marks of 100 devices: the watermarks are locked, read and moved, and a row for a device asks for its watermark');
SELECT * FROM chat.open_sessions((SELECT array_agg(i) FROM generate_series(101::bigint, 200) i), array_fill(0::bigint, ARRAY[100]), true) \g /dev/null
SELECT is(test.rows_read(), 'conversation_participants 200, conversations 200, users 200', '100 sign-ins, of users with 2 conversations each');
SELECT * FROM chat.load_memberships((SELECT array_agg(i) FROM generate_series(101::bigint, 200) i), (SELECT array_agg(i) FROM generate_series(101::bigint, 200) i)) \g /dev/null
SELECT is(test.rows_read(), 'conversation_participants 100, conversations 100', '100 memberships');

-- The notifier's queue: each of 100 devices is to be told of one message; one of a conversation with thousands; a thousand others are due for
-- another app, or shown. A claim reads what it returns, and of what is unread 100 at most.
INSERT INTO chat.push_targets (device_id, provider, app, token) SELECT id, 'fcm', CASE id WHEN 2 THEN 'long' ELSE 'news' END, 'token' || id FROM generate_series(1, 2000) id;
SELECT test.outcome((SELECT jsonb_agg(jsonb_build_object('c', i, 's', i, 'id', 50000 + i)) FROM generate_series(101, 200) i)) \g /dev/null
UPDATE chat.participant_watermarks SET read_seq = 0 WHERE conversation_id = 1 AND user_id = 2;
INSERT INTO chat.pushes (device_id, conversation_id, user_id, last_seq, since, expires_at, app, not_before)
	SELECT i + 1, i, i + 1, 2, now(), now() + interval '1 day', 'news', now() + i * interval '1 us' FROM generate_series(101, 200) i
	UNION ALL SELECT 2, 1, 2, 5000, now(), now() + interval '1 day', 'long', now();
INSERT INTO chat.pushes (device_id, conversation_id, user_id, last_seq, sent_seq, since, expires_at, app, state, not_before)
	SELECT id, id, id, 1, 1, now(), now() + interval '1 day', 'other', CASE id % 2 WHEN 0 THEN 'due' ELSE 'shown' END::chat.push_state, now() FROM generate_series(1000, 1999) id;
SELECT test.rows_read() \g /dev/null
SELECT count(*) FROM chat.claim_pushes('news', 50, 60000, false) \g /dev/null
SELECT is(test.rows_read(), 'conversation_participants 50, conversations 50, device_watermarks 50, devices 100, messages 100, participant_watermarks 50, push_targets 50, pushes 100, users 100', '50 pushes claimed, of 100 that are due');
SELECT count(*) FROM chat.claim_pushes('long', 50, 60000, false) \g /dev/null
SELECT is(test.rows_read(), 'conversation_participants 1, conversations 1, devices 2, messages 101, participant_watermarks 1, push_targets 1, pushes 2, users 2', 'one for thousands of unread messages');
SELECT chat.settle_pushes(ARRAY(SELECT generate_series(102, 151)), ARRAY(SELECT generate_series(101, 150)), array_fill(1::bigint, ARRAY[50]), array_fill('accepted'::text, ARRAY[50]), array_fill(2::bigint, ARRAY[50]),
	array_fill(0::bigint, ARRAY[50]), array_fill(NULL::text, ARRAY[50]), array_fill(0::bigint, ARRAY[50]), array_fill(0::bigint, ARRAY[50])) \g /dev/null
SELECT is(test.rows_read(), 'devices 50, pushes 100', '50 settled');
-- Two notifications of one device are to go, while 500 rows of others wait for their next try.
INSERT INTO chat.pushes (device_id, conversation_id, user_id, last_seq, sent_seq, since, expires_at, app, state, not_before)
	SELECT 3, i, 3, 1, 1, now(), now() + interval '1 day', 'news', 'clear', now() - interval '1 hour' FROM generate_series(2, 3) i;
UPDATE chat.pushes SET not_before = now() + interval '1 hour' WHERE app = 'other' AND state = 'due';
SELECT test.rows_read() \g /dev/null
SELECT count(*) FROM chat.claim_pushes('news', 2, 60000, false) \g /dev/null
SELECT is(test.rows_read(), 'conversation_participants 2, conversations 2, devices 4, participant_watermarks 2, push_targets 2, pushes 8, users 2', 'a silent push for two');
SELECT chat.settle_pushes('{3}', '{2}', '{1}', '{accepted}', '{0}', '{0}', '{NULL}', '{0}', '{0}') \g /dev/null
SELECT is(test.rows_read(), 'devices 1, push_targets 1, pushes 4', 'and its end');
SELECT chat.check_shown('{other}', 50) \g /dev/null
SELECT is(test.rows_read(), 'devices 50, pushes 100', '50 of 500 that are shown are looked at');
UPDATE chat.push_cursor SET read_to = now() - interval '1 second', safe_at = clock_timestamp() + interval '1 hour', check_xid = '9223372036854775807', summarized_at = clock_timestamp();
SELECT test.rows_read() \g /dev/null
SELECT * FROM chat.find_pushes(0, 86400000) \g /dev/null
SELECT is((SELECT string_agg(part, ', ') FROM unnest(string_to_array(test.rows_read(), ', ')) part WHERE part LIKE '%!'), 'push_cursor 0!', 'a look at the log reads no table whole but its own one row');

SELECT * FROM finish();
ROLLBACK;
