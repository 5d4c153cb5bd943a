-- chat.append_messages: numbers, duplicates, refusals, counters, positions.
BEGIN;
SELECT plan(73);

SELECT test.users(1, 6);
SELECT test.group(1, 1, 2, 3);
SELECT test.group(2, 1, 2);
INSERT INTO chat.conversations (id, type, first_user_id, second_user_id) VALUES (3, 'direct', 1, 2);
INSERT INTO chat.conversations (id, type, is_public) VALUES (4, 'channel', true);
INSERT INTO chat.conversation_participants (conversation_id, user_id, role) VALUES (4, 1, 'owner'), (4, 2, 'reader');

-- Numbers
SELECT is(test.outcome('[{"c":1,"s":1,"id":1}]'), 'stored 1', 'the first message of a conversation is number 1');
SELECT is(test.outcome('[{"c":1,"s":2,"id":1},{"c":2,"s":1,"id":1},{"c":1,"s":3,"id":1},{"c":2,"s":2,"id":2},{"c":1,"s":1,"id":2}]'),
	'stored 2, stored 1, stored 3, stored 2, stored 4', 'each conversation counts on in the order of the batch');
SELECT is_empty($$SELECT * FROM chat.append_messages(test.uuid(1), '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')$$, 'an empty batch stores nothing');
SELECT results_eq('SELECT last_seq, last_ordinal FROM chat.conversations WHERE id = 1', $$VALUES (4::bigint, 4::bigint)$$, 'the counters say so');
SELECT results_eq('SELECT ordinal, members_version > 0 FROM test.append(''[{"c":2,"s":1,"id":3},{"c":1,"s":1,"id":3}]'')',
	$$VALUES (1, true), (2, true)$$, 'answers come in the order of the batch, with the version of the members');
SELECT is((SELECT a.members_version FROM test.append('[{"c":1,"s":1,"id":4}]') a), (SELECT members_version FROM chat.conversations WHERE id = 1), 'which is the conversation''s own');
SELECT test.append('[{"c":1,"s":2,"id":20,"hash":9,"type":"x-poll","body":"äöü 😀","reply_to":1,"extra":{"a":1},"sent":5000,"expires":6000}]');
SELECT results_eq($$SELECT seq, sender_id, client_id, content_hash, type, body, reply_to, ref, extra, expires_at, sent_at FROM chat.messages
	WHERE conversation_id = 1 AND seq = 7$$,
	$$VALUES (7::bigint, 2::bigint, test.uuid(20), test.uuid(9), 'x-poll', 'äöü 😀', 1::bigint, NULL::bigint, '{"a":1}'::jsonb, to_timestamp(6000), to_timestamp(5000))$$,
	'what was sent is what is stored');
SELECT ok((SELECT committed_at > now() - interval '1 hour' FROM chat.messages WHERE conversation_id = 1 AND seq = 7), 'with the time of the commit');

-- Duplicates
SELECT is(test.outcome('[{"c":1,"s":1,"id":1}]'), 'duplicate 1', 'a resend is answered with the first number');
SELECT results_eq('SELECT seq, sent_at FROM test.append(''[{"c":1,"s":2,"id":20,"hash":9,"sent":9999}]'')', $$VALUES (7::bigint, to_timestamp(5000))$$, 'and the first time');
SELECT is(test.outcome('[{"c":1,"s":1,"id":1,"hash":5}]'), 'conflict', 'the same id with another content is a conflict (threat 30)');
SELECT is(test.outcome('[{"c":2,"s":2,"id":1}]'), 'stored 4', 'the same id in another conversation is another message');
SELECT is(test.outcome('[{"c":1,"s":3,"id":2}]'), 'stored 8', 'the same id of another sender is another message (threat 31)');
SELECT is(test.outcome('[{"c":1,"s":1,"id":30},{"c":1,"s":1,"id":30},{"c":1,"s":2,"id":30},{"c":1,"s":1,"id":30,"hash":7},{"c":2,"s":1,"id":30},{"c":1,"s":1,"id":31}]'),
	'stored 9, duplicate 9, stored 10, conflict, stored 5, stored 11', 'repeats within a batch are measured by the first (threat 29)');
SELECT results_eq('SELECT seq, sent_at FROM test.append(''[{"c":1,"s":1,"id":32,"sent":1},{"c":1,"s":1,"id":32,"sent":2}]'')',
	$$VALUES (12::bigint, to_timestamp(1)), (12, to_timestamp(1))$$, 'and carry its time');
SELECT is(test.outcome('[{"c":1,"s":1,"id":33,"reply_to":999},{"c":1,"s":1,"id":33},{"c":1,"s":1,"id":33}]'), 'invalid_field, stored 13, duplicate 13',
	'a refused one is not the first');
SELECT is((SELECT count(*)::int FROM chat.messages WHERE conversation_id = 1), 13, 'no duplicate made a row');
SELECT is((SELECT array_agg(seq ORDER BY seq) FROM chat.messages WHERE conversation_id = 1), (SELECT array_agg(i::bigint) FROM generate_series(1, 13) i), 'no refusal or duplicate left a gap');

-- Who may
SELECT is(test.outcome('[{"c":99,"s":1,"id":40}]'), 'not_found', 'no such conversation');
SELECT is((SELECT a.members_version FROM test.append('[{"c":99,"s":1,"id":41}]') a), 0::bigint, 'has members_version 0');
SELECT is(test.outcome('[{"c":1,"s":4,"id":40}]'), 'not_found', 'not a member: the same answer (threat 20)');
SELECT is(test.outcome('[{"c":4,"s":4,"id":40}]'), 'forbidden', 'a public channel is visible, but not a member''s to write');
SELECT is(test.outcome('[{"c":4,"s":2,"id":40}]'), 'forbidden', 'a reader reads');
SELECT is(test.outcome('[{"c":4,"s":1,"id":40}]'), 'stored 1', 'the owner writes');
SELECT is(test.outcome('[{"c":1,"s":999,"id":40}]'), 'unauthenticated', 'an account that is gone');
UPDATE chat.users SET status = 'suspended' WHERE id = 3;
SELECT is(test.outcome('[{"c":1,"s":3,"id":41}]'), 'unauthenticated', 'an account that is suspended');
SELECT is(test.outcome('[{"c":1,"s":3,"id":1}]'), 'duplicate 3', 'what was stored before stays answered');
SELECT is(test.outcome('[{"c":3,"s":1,"id":1}]'), 'stored 1', 'a direct conversation');
INSERT INTO chat.blocked_users VALUES (2, 1);
SELECT is(test.outcome('[{"c":3,"s":1,"id":2},{"c":3,"s":2,"id":2}]'), 'blocked, blocked', 'a block closes it both ways');
SELECT is(test.outcome('[{"c":3,"s":1,"id":1}]'), 'duplicate 1', 'what was stored before stays answered');
SELECT is(test.outcome('[{"c":1,"s":1,"id":50}]'), 'stored 14', 'a block does not close a group');
INSERT INTO chat.blocked_users VALUES (1, 2);
DELETE FROM chat.blocked_users WHERE user_id = 2;
SELECT is(test.outcome('[{"c":3,"s":1,"id":2}]'), 'blocked', 'closed as long as either blocks');
DELETE FROM chat.blocked_users;
SELECT is(test.outcome('[{"c":3,"s":1,"id":2}]'), 'stored 2', 'and open again after');
DELETE FROM chat.conversation_participants WHERE conversation_id = 2 AND user_id = 2;
SELECT is(test.outcome('[{"c":2,"s":2,"id":50},{"c":2,"s":1,"id":50}]'), 'not_found, stored 6', 'a removed member is refused, the others go on (threat 57)');
INSERT INTO chat.blocked_users VALUES (5, 6);
INSERT INTO chat.conversations (id, type, first_user_id, second_user_id) VALUES (5, 'direct', 5, 6);
SELECT is(test.outcome('[{"c":5,"s":6,"id":1}]'), 'blocked', 'a direct conversation made after the block is blocked too');

-- What it refers to
SELECT is(test.outcome('[{"c":1,"s":1,"id":60,"reply_to":14},{"c":1,"s":1,"id":61,"reply_to":15},{"c":1,"s":1,"id":62,"reply_to":0},{"c":1,"s":1,"id":63,"reply_to":-1}]'),
	'stored 15, invalid_field, invalid_field, invalid_field', 'an answer is to a committed entry');
SELECT is(test.outcome('[{"c":1,"s":1,"id":64,"type":"reaction","ref":1},{"c":1,"s":1,"id":65,"type":"edit","ref":17},{"c":1,"s":1,"id":66,"type":"delete","ref":0}]'),
	'stored 16, invalid_field, invalid_field', 'so is what a reaction, edit or deletion is about');
UPDATE chat.conversations SET first_seq = 5 WHERE id = 1;
SELECT is(test.outcome('[{"c":1,"s":1,"id":67,"type":"reaction","ref":4},{"c":1,"s":1,"id":68,"type":"reaction","ref":5}]'), 'invalid_field, stored 17', 'what retention removed cannot be referred to');

-- Ordinals
SELECT results_eq('SELECT last_seq, last_ordinal FROM chat.conversations WHERE id = 1', $$VALUES (17::bigint, 15::bigint)$$, 'reactions, edits and deletions are numbered but do not count as unread');
SELECT results_eq('SELECT seq, ordinal FROM chat.messages WHERE conversation_id = 1 AND seq > 14 ORDER BY 1', $$VALUES (15::bigint, 15::bigint), (16, 15), (17, 15)$$, 'each entry knows how many count up to it');

-- The sender's own watermark
SELECT results_eq('SELECT delivered_seq, read_seq, read_ordinal FROM chat.participant_watermarks WHERE conversation_id = 1 AND user_id = 1',
	$$VALUES (17::bigint, 17::bigint, 15::bigint)$$, 'who writes has read what came before');
SELECT results_eq('SELECT delivered_seq, read_seq FROM chat.participant_watermarks WHERE conversation_id = 1 AND user_id = 3', $$VALUES (8::bigint, 8::bigint)$$, 'the others have not');
SELECT test.outcome('[{"c":1,"s":1,"id":1},{"c":1,"s":2,"id":1}]');
SELECT is((SELECT read_seq FROM chat.participant_watermarks WHERE conversation_id = 1 AND user_id = 2), 10::bigint, 'a resend moves no watermark');

-- Refusals
SELECT is((SELECT count(*)::int FROM chat.refusals), 21, 'every refusal is on record');
SELECT results_eq($$SELECT device_id, conversation_id, client_id, code, sent_at FROM chat.refusals WHERE user_id = 4 AND conversation_id = 1$$,
	$$VALUES (NULL::bigint, 1::bigint, test.uuid(40), 'not_found', to_timestamp(1000))$$, 'with what the sender will want to know');
SELECT test.outcome('[{"c":1,"s":4,"d":77,"id":42}]');
SELECT is((SELECT device_id FROM chat.refusals WHERE user_id = 4 AND client_id = test.uuid(42)), 77::bigint, 'and the device');
SELECT results_eq('SELECT seq, sent_at FROM test.append(''[{"c":1,"s":4,"id":43}]'')', $$VALUES (NULL::bigint, NULL::timestamptz)$$, 'a refused message has no number and no time');

-- Positions
SELECT results_eq('SELECT * FROM chat.read_positions(test.uuid(1), ''{9,3,3}'')', $$VALUES (3::smallint, 0::bigint), (9::smallint, 0::bigint)$$, 'unknown slots begin at 0');
PREPARE moved (smallint[], bigint[], bigint[], bigint) AS SELECT status, seq FROM chat.append_messages(test.uuid(1), $1, $2, $3, ARRAY[2::bigint], ARRAY[1::bigint], ARRAY[0::bigint],
	ARRAY[test.uuid($4)], ARRAY[test.uuid(0)], '{text}', '{x}', '{NULL}', '{NULL}', '{NULL}', ARRAY[now()], '{NULL}');
SELECT results_eq($$EXECUTE moved('{3,9}', '{0,0}', '{100,200}', 100)$$, $$VALUES (1::smallint, 7::bigint)$$, 'positions move with the messages');
SELECT results_eq('SELECT * FROM chat.read_positions(test.uuid(1), ''{3,9}'')', $$VALUES (3::smallint, 100::bigint), (9::smallint, 200::bigint)$$, 'to where they should');
SELECT throws_ok($$EXECUTE moved('{3}', '{99}', '{300}', 101)$$, 'CH001', 'slot 3 is not at position 99 but at 100', 'a slot that is elsewhere refuses the batch');
SELECT throws_ok($$EXECUTE moved('{3}', '{0}', '{100}', 101)$$, 'CH001', 'slot 3 is not at position 0 but at 100', 'also one that is already at the goal');
SELECT throws_ok($$EXECUTE moved('{3,9}', '{100,100}', '{300,200}', 101)$$, 'CH001', 'slot 9 is not at position 100 but at 200', 'one of several is enough');
SELECT throws_ok($$EXECUTE moved('{4}', '{0}', '{100}', 101)$$, 'CH001', 'slot 4 is not at position 0 but at none', 'so is a slot that was never read');
SELECT is((SELECT last_seq FROM chat.conversations WHERE id = 2), 7::bigint, 'and nothing was stored');
SELECT is((SELECT array_agg(position_committed ORDER BY slot) FROM chat.spool_positions WHERE spool = test.uuid(1)), '{100,200}', 'nor moved');
SELECT results_eq($$EXECUTE moved('{}', '{}', '{}', 102)$$, $$VALUES (1::smallint, 8::bigint)$$, 'no positions need be given');
SELECT lives_ok($$SELECT chat.refuse_messages(test.uuid(1), '{3}', '{100}', '{101}', '{2}', '{1}', '{11}', ARRAY[test.uuid(103)], ARRAY[to_timestamp(1000)], '{internal}')$$, 'a message that no table takes is refused by hand');
SELECT results_eq('SELECT code, device_id, sent_at FROM chat.refusals WHERE client_id = test.uuid(103)', $$VALUES ('internal', 11::bigint, to_timestamp(1000))$$, 'on record, with whose device and when it was accepted');

-- After a commit that was not heard
SELECT results_eq($$SELECT status, seq, code FROM chat.settle_messages('{1,1,1,2,2}', '{1,1,1,1,1}', ARRAY[test.uuid(1), test.uuid(1), test.uuid(1), test.uuid(103), test.uuid(104)],
	ARRAY[test.uuid(0), test.uuid(0), test.uuid(5), test.uuid(0), test.uuid(0)], ARRAY[to_timestamp(1000), to_timestamp(1001), to_timestamp(1000), to_timestamp(1000), to_timestamp(1000)])$$,
	$$VALUES (1::smallint, 1::bigint, NULL), (2::smallint, 1, NULL), (3::smallint, NULL, 'conflict'), (3::smallint, NULL, 'internal'), (3::smallint, NULL, 'internal')$$,
	'stored, resent, in conflict, refused and unheard of are told apart');
SELECT results_eq($$SELECT status, seq FROM chat.settle_messages('{1,1}', '{1,1}', ARRAY[test.uuid(1), test.uuid(1)], ARRAY[test.uuid(0), test.uuid(0)],
	ARRAY[to_timestamp(1000), to_timestamp(1000)])$$, $$VALUES (1::smallint, 1::bigint), (2::smallint, 1)$$, 'and a resend in the same millisecond is one');

-- A batch in which nothing is refused, with entries that do not count
SELECT is(test.outcome('[{"c":1,"s":1,"id":80,"type":"reaction","ref":6},{"c":1,"s":2,"id":81},{"c":1,"s":1,"id":82},{"c":1,"s":1,"id":83,"type":"edit","ref":15}]'),
	'stored 18, stored 19, stored 20, stored 21', 'a batch');
SELECT results_eq('SELECT seq, ordinal FROM chat.messages WHERE conversation_id = 1 AND seq > 17 ORDER BY 1', $$VALUES (18::bigint, 15::bigint), (19, 16), (20, 17), (21, 17)$$, 'each entry knows how many count up to it');
SELECT results_eq('SELECT user_id, read_seq, read_ordinal FROM chat.participant_watermarks WHERE conversation_id = 1 AND user_id < 3 ORDER BY 1',
	$$VALUES (1::bigint, 21::bigint, 17::bigint), (2, 19, 16)$$, 'each sender has seen what came before their own last');

-- Devices
SELECT test.users(7, 8);
SELECT test.group(7, 7, 8);
INSERT INTO chat.devices (id, user_id, revoked_at) VALUES (71, 7, NULL), (72, 7, now()), (81, 8, NULL);
SELECT is(test.outcome('[{"c":7,"s":7,"d":71,"id":1}]'), 'stored 1', 'a device that is signed in writes');
SELECT is(test.outcome('[{"c":7,"s":7,"d":72,"id":2}]') || ', ' || test.outcome('[{"c":7,"s":7,"d":81,"id":2}]') || ', ' || test.outcome('[{"c":7,"s":7,"d":99,"id":2}]'),
	'unauthenticated, unauthenticated, unauthenticated', 'one that is signed out, another''s, or none that is there does not');
SELECT is(test.outcome('[{"c":7,"s":7,"d":71,"id":3},{"c":7,"s":8,"d":81,"id":4},{"c":7,"s":7,"id":5}]'), 'stored 2, stored 3, stored 4', 'the same in a batch');
SELECT is(test.outcome('[{"c":7,"s":7,"d":71,"id":6},{"c":7,"s":7,"d":72,"id":7}]'), 'stored 5, unauthenticated', 'signed out');
SELECT is(test.outcome('[{"c":7,"s":7,"d":71,"id":8},{"c":7,"s":7,"d":81,"id":9},{"c":7,"s":7,"d":99,"id":10}]'), 'stored 6, unauthenticated, unauthenticated', 'another''s, or none');
SELECT is(test.outcome('[{"c":7,"s":7,"d":72,"id":1}]'), 'duplicate 1', 'what was stored stays stored');

-- A conversation that goes
DELETE FROM chat.conversations WHERE id = 1;
SELECT is((SELECT count(*)::int FROM chat.messages WHERE conversation_id = 1), 0, 'a conversation takes its messages along');
SELECT is(test.outcome('[{"c":1,"s":1,"id":1}]'), 'not_found', 'and is then unknown');
-- A user who goes
DELETE FROM chat.users WHERE id = 2;
SELECT is((SELECT count(*)::int FROM chat.messages WHERE sender_id = 2), 2, 'what a removed user wrote stays');

SELECT * FROM finish();
ROLLBACK;
