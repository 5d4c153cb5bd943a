-- chat.append_marks, and what message_status makes of it.
BEGIN;
SELECT plan(50);

SELECT test.users(1, 4);
SELECT test.group(1, 1, 2, 3);
INSERT INTO chat.devices (id, user_id) VALUES (21, 2), (22, 2), (31, 3);
SELECT test.append('[{"c":1,"s":1,"id":1},{"c":1,"s":1,"id":2},{"c":1,"s":1,"id":3}]') \g /dev/null
SELECT test.append('[{"c":1,"s":1,"id":4,"type":"reaction","ref":1},{"c":1,"s":1,"id":5}]') \g /dev/null

SELECT is(test.marked('[{"c":1,"u":2,"delivered":3}]'), '3/0 changed', 'delivered rises');
SELECT is(test.marked('[{"c":1,"u":2,"delivered":3}]'), '3/0', 'said again it changes nothing');
SELECT is(test.marked('[{"c":1,"u":2,"delivered":2}]'), '3/0', 'it never falls (threat 40)');
SELECT is(test.marked('[{"c":1,"u":2,"read":2}]'), '3/2 changed', 'read rises');
SELECT is(test.marked('[{"c":1,"u":2,"read":4}]'), '4/4 changed', 'read implies delivered');
SELECT is(test.marked('[{"c":1,"u":2,"delivered":5,"read":4}]'), '5/4 changed', 'both in one');
SELECT is(test.marked('[{"c":1,"u":2,"read":6}]'), 'invalid_field', 'nothing beyond the newest');
SELECT is(test.marked('[{"c":1,"u":2,"delivered":6,"read":5}]'), 'invalid_field', 'not in part either');
SELECT is(test.marked('[{"c":1,"u":2,"delivered":-1,"read":5}]'), 'invalid_field', 'nothing negative');
SELECT is(test.marked('[{"c":1,"u":4,"read":1},{"c":99,"u":2,"read":1}]'), 'not_found, not_found', 'members only');
SELECT is((SELECT string_agg(members_version::text, ' ' ORDER BY ordinal) FROM test.mark('[{"c":1,"u":4,"read":1},{"c":99,"u":2,"read":1}]')),
	(SELECT members_version || ' 0' FROM chat.conversations WHERE id = 1), 'with the version of the members');
SELECT is(test.marked('[{"c":1,"u":3,"delivered":1,"at":10},{"c":1,"u":3,"read":3,"at":20},{"c":1,"u":3,"read":2,"at":30},{"c":1,"u":3,"read":9},{"c":1,"u":2,"read":5},{"c":1,"u":3,"delivered":4,"at":40}]'),
	'1/0 changed, 3/3 changed, 3/3, invalid_field, 5/5 changed, 4/3 changed', 'many of one member in a batch: each has its answer');
SELECT results_eq('SELECT delivered_seq, read_seq, delivered_at, read_at FROM chat.participant_watermarks WHERE user_id = 3',
	'VALUES (4::bigint, 3::bigint, to_timestamp(40), to_timestamp(20))', 'the highest wins, with the time at which it was said');

-- Unread
SELECT results_eq('SELECT user_id, c.last_ordinal - w.read_ordinal FROM chat.participant_watermarks w JOIN chat.conversations c ON c.id = w.conversation_id ORDER BY 1',
	'VALUES (1::bigint, 0::bigint), (2, 0), (3, 1)', 'unread counts what counts');
SELECT test.append('[{"c":1,"s":1,"id":6}]') \g /dev/null
SELECT is(test.marked('[{"c":1,"u":3,"read":4}]'), '4/4 changed', 'reading a reaction');
SELECT is((SELECT c.last_ordinal - w.read_ordinal FROM chat.participant_watermarks w JOIN chat.conversations c ON c.id = w.conversation_id WHERE user_id = 3), 2::bigint, 'makes nothing read that counts');
DELETE FROM chat.messages WHERE seq <= 5;
SELECT is(test.marked('[{"c":1,"u":3,"read":5}]'), '5/5 changed', 'what retention removed can be read');
SELECT is(test.marked('[{"c":1,"u":3,"read":6}]'), '6/6 changed', 'and what came after');
SELECT is((SELECT c.last_ordinal - w.read_ordinal FROM chat.participant_watermarks w JOIN chat.conversations c ON c.id = w.conversation_id WHERE user_id = 3), 0::bigint, 'then nothing is unread');

-- Devices
SELECT test.mark('[{"c":1,"u":2,"d":21,"delivered":2,"at":50},{"c":1,"u":2,"d":22,"delivered":4,"at":60},{"c":1,"u":2,"d":21,"read":3,"at":70},{"c":1,"u":2,"d":0,"delivered":5}]') \g /dev/null
SELECT results_eq('SELECT device_id, delivered_seq, delivered_at FROM chat.device_watermarks ORDER BY 1',
	'VALUES (21::bigint, 3::bigint, to_timestamp(70)), (22, 4, to_timestamp(60))', 'delivered is kept by device, where there is one');
SELECT test.mark('[{"c":1,"u":2,"d":22,"delivered":3,"at":80}]') \g /dev/null
SELECT is((SELECT delivered_seq FROM chat.device_watermarks WHERE device_id = 22), 4::bigint, 'and never falls');
DELETE FROM chat.devices WHERE id = 22;
SELECT is((SELECT count(*)::int FROM chat.device_watermarks), 1, 'a removed device leaves nothing');

-- Who is signed out, suspended or gone marks nothing.
CREATE TEMP TABLE before AS SELECT * FROM chat.participant_watermarks;
SELECT is(test.marked('[{"c":1,"u":2,"d":31,"read":6},{"c":1,"u":2,"d":22,"read":6},{"c":1,"u":2,"d":999,"read":6},{"c":1,"u":999,"read":6}]'),
	'unauthenticated, unauthenticated, unauthenticated, unauthenticated', 'another''s device, a removed one, one that never was, and no account (threat 40)');
UPDATE chat.devices SET revoked_at = now() WHERE id = 21;
SELECT is(test.marked('[{"c":1,"u":2,"d":21,"read":6},{"c":1,"u":4,"d":21,"read":6}]'), 'unauthenticated, unauthenticated', 'a device that is signed out');
UPDATE chat.users SET status = 'suspended' WHERE id = 3;
SELECT is(test.marked('[{"c":1,"u":3,"d":31,"read":6},{"c":1,"u":3,"read":6}]'), 'unauthenticated, unauthenticated', 'a suspended account');
UPDATE chat.users SET status = 'active' WHERE id = 3;
SELECT results_eq('SELECT * FROM chat.participant_watermarks ORDER BY user_id', 'SELECT * FROM before ORDER BY user_id', 'none of it is stored');
SELECT is((SELECT string_agg(device_id || ' ' || delivered_seq, ', ') FROM chat.device_watermarks), '21 3', 'for no device either');
SELECT is(test.marked('[{"c":1,"u":2,"d":21,"read":6},{"c":1,"u":2,"delivered":6}]'), 'unauthenticated, 6/5 changed', 'and what is refused moves nothing that comes after it in the batch');
UPDATE chat.participant_watermarks SET delivered_seq = 5 WHERE user_id = 2;

-- Positions
SELECT chat.read_positions(test.uuid(1), '{3}') \g /dev/null
PREPARE moved (bigint, bigint) AS SELECT code, changed FROM chat.append_marks(test.uuid(1), '{3}', ARRAY[$1], ARRAY[$2], '{1}', '{2}', '{0}', '{6}', '{0}', ARRAY[now()]);
SELECT throws_ok('EXECUTE moved(5, 10)', 'CH001', 'slot 3 is not at position 5 but at 0', 'a slot that is elsewhere refuses the batch');
SELECT is((SELECT delivered_seq FROM chat.participant_watermarks WHERE user_id = 2), 5::bigint, 'and nothing is marked');
SELECT results_eq('EXECUTE moved(0, 10)', 'VALUES (NULL::text, true)', 'positions move with the marks');

-- Sent again, since its answer was not heard, a mark is answered as the first time: what it moved, and nothing else.
PREPARE again (bigint, bigint, timestamptz) AS SELECT changed || ' ' || shows FROM chat.append_marks(test.uuid(1), '{}', '{}', '{}', '{1}', '{2}', '{0}', ARRAY[$1], ARRAY[$2], ARRAY[$3], true);
SELECT results_eq('EXECUTE again(6, 0, now())', $$VALUES ('true 1')$$, 'what it moved');
SELECT results_eq('EXECUTE again(6, 5, now())', $$VALUES ('true 1')$$, 'and nothing else');
SELECT results_eq($$EXECUTE again(6, 0, now() - interval '1 ms')$$, $$VALUES ('false 0')$$, 'and what another moved is none of its own');
SELECT results_eq('EXECUTE again(5, 0, now())', $$VALUES ('false 0')$$, 'nor what has gone further since');

-- message_status
SELECT test.append('[{"c":1,"s":2,"id":7}]') \g /dev/null
SELECT test.mark('[{"c":1,"u":1,"delivered":7,"at":100},{"c":1,"u":3,"read":7,"at":200}]') \g /dev/null
SELECT results_eq('SELECT user_id, status, delivered_at, read_at FROM chat.message_status WHERE conversation_id = 1 AND seq = 7 ORDER BY 1',
	$$VALUES (1::bigint, 'delivered', to_timestamp(100), NULL), (3, 'read', to_timestamp(200), to_timestamp(200))$$, 'one row for each member but the sender');
INSERT INTO chat.conversation_participants (conversation_id, user_id) VALUES (1, 4);
SELECT is((SELECT count(*)::int FROM chat.message_status WHERE user_id = 4), 0, 'who joins later has no status in what came before');
SELECT test.append('[{"c":1,"s":1,"id":8}]') \g /dev/null
SELECT results_eq('SELECT user_id, status FROM chat.message_status WHERE seq = 8 ORDER BY 1', $$VALUES (2::bigint, 'sent'), (3, 'sent'), (4, 'sent')$$, 'but in what comes after');
SELECT results_eq('SELECT delivered_seq, read_seq, c.last_ordinal - read_ordinal FROM chat.participant_watermarks w JOIN chat.conversations c ON c.id = conversation_id WHERE user_id = 4',
	'VALUES (7::bigint, 7::bigint, 1::bigint)', 'and unread begins there');
-- What the others may see of it: 1 delivered rose, 2 read rose, 4 not how far they have read.
CREATE FUNCTION pg_temp.shows(batch jsonb) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(CASE WHEN changed THEN shows::text ELSE '(' || shows || ')' END, ' ' ORDER BY ordinal) FROM test.mark(batch)
$$;
SELECT test.append('[{"c":1,"s":1,"id":9},{"c":1,"s":1,"id":10},{"c":1,"s":1,"id":11},{"c":1,"s":1,"id":12}]') \g /dev/null
SELECT is(pg_temp.shows('[{"c":1,"u":3,"delivered":9},{"c":1,"u":3,"read":9},{"c":1,"u":3,"read":10},{"c":1,"u":3,"read":10},{"c":1,"u":3,"read":99}]'), '1 2 3 (0) (0)', 'all of it');
UPDATE chat.users SET settings = '{"privacy":{"read_receipts":false}}' WHERE id = 2;
SELECT is(pg_temp.shows('[{"c":1,"u":2,"delivered":9},{"c":1,"u":2,"read":9},{"c":1,"u":2,"read":10},{"c":1,"u":2,"read":10}]'), '5 4 5 (4)', 'of who hides what they have read, delivered alone');
SELECT results_eq('SELECT user_id, status, delivered_at IS NULL, read_at IS NULL FROM chat.message_status WHERE conversation_id = 1 AND seq = 9 ORDER BY 1',
	$$VALUES (2::bigint, 'delivered', false, true), (3, 'read', false, false), (4, 'sent', true, true)$$, 'as message_status says');
UPDATE chat.users SET settings = '{"privacy":{"read_receipts":false}}' WHERE id = 1;
SELECT is((SELECT string_agg(status, ' ' ORDER BY user_id) FROM chat.message_status WHERE conversation_id = 1 AND seq = 9), 'delivered delivered sent', 'a sender who hides is told of no one''s');
UPDATE chat.users SET settings = '{"privacy":{"read_receipts":true}}' WHERE id IN (1, 2);
SELECT is((SELECT string_agg(status, ' ' ORDER BY user_id) FROM chat.message_status WHERE conversation_id = 1 AND seq = 9), 'read read sent', 'and again when both show theirs');
INSERT INTO chat.messages (conversation_id, body) VALUES (1, 'from psql');
SELECT is((SELECT string_agg(status, ' ' ORDER BY user_id) FROM chat.message_status WHERE conversation_id = 1 AND seq = 13), 'sent sent sent sent', 'an entry without a sender has a status too');
INSERT INTO chat.conversations (id, type, first_user_id, second_user_id) VALUES (2, 'direct', 1, 2);
SELECT test.append('[{"c":2,"s":1,"id":1},{"c":2,"s":1,"id":2}]') \g /dev/null
SELECT is(pg_temp.shows('[{"c":2,"u":2,"read":1}]'), '3', 'in a direct conversation');
INSERT INTO chat.blocked_users (user_id, blocked_user_id) VALUES (2, 1);
SELECT is(pg_temp.shows('[{"c":2,"u":2,"read":2},{"c":2,"u":2,"read":9}]'), '0 (0)', 'nothing while one has blocked the other (threat 54)');
SELECT is((SELECT status FROM chat.message_status WHERE conversation_id = 2 AND seq = 1), 'sent', 'nor by message_status');
DELETE FROM chat.blocked_users;
SELECT is((SELECT status FROM chat.message_status WHERE conversation_id = 2 AND seq = 2), 'read', 'it is kept all the same');

DELETE FROM chat.conversation_participants WHERE user_id = 2;
SELECT is((SELECT count(*)::int FROM chat.participant_watermarks WHERE user_id = 2) + (SELECT count(*)::int FROM chat.device_watermarks), 0, 'who is removed leaves no watermarks');

SELECT * FROM finish();
ROLLBACK;
