-- Content rules: what the table takes, what the plugin reads, what becomes of messages that a rule rejects or flags.
BEGIN;
SELECT plan(37);

SELECT test.users(1, 4);
SELECT test.group(1, 1, 2, 3);
SELECT test.group(2, 1, 2);
INSERT INTO chat.conversations (id, type, is_public) VALUES (3, 'channel', true);
INSERT INTO chat.conversations (id, type, first_user_id, second_user_id) VALUES (4, 'direct', 1, 2);
GRANT USAGE ON SCHEMA test TO PUBLIC;

-- What an administrator writes.
SELECT lives_ok($$SELECT test.as_role('chat_admin', 'INSERT INTO chat.content_rules (pattern, action) VALUES (''a'', ''reject'')')$$, 'an administrator makes a rule');
SELECT lives_ok($$SELECT test.as_role('chat_admin', 'UPDATE chat.content_rules SET enabled = false, note = ''x'', pattern = ''b''')$$, 'changes it');
SELECT lives_ok($$SELECT test.as_role('chat_admin', 'DELETE FROM chat.content_rules')$$, 'and removes it');
SELECT throws_ok($$SELECT test.as_role('chat_admin', 'INSERT INTO chat.reports (conversation_id, seq) VALUES (1, 1)')$$, '42501', NULL, 'but makes no reports');
SELECT throws_ok($$SELECT test.as_role('chat_plugin', 'SELECT FROM chat.content_rules')$$, '42501', NULL, 'the plugin does not read the table');
SELECT throws_ok($$INSERT INTO chat.content_rules (pattern, action) VALUES ('', 'mask')$$, '23514', NULL, 'an empty pattern is refused');
SELECT throws_ok($$INSERT INTO chat.content_rules (pattern, action) VALUES (repeat('a', 1001), 'mask')$$, '23514', NULL, 'one of 1,001 characters');
SELECT throws_ok($$INSERT INTO chat.content_rules (pattern, action) VALUES ('a{1000}', 'mask')$$, '23514', NULL, 'a repeat of 1,000');
SELECT throws_ok($$INSERT INTO chat.content_rules (pattern, action) VALUES ('a{1,65000}', 'mask')$$, '23514', NULL, 'up to 65,000');
SELECT throws_ok($$INSERT INTO chat.content_rules (pattern, action) VALUES ('a{1000,}', 'mask')$$, '23514', NULL, 'from 1,000');
SELECT lives_ok($$INSERT INTO chat.content_rules (pattern, action) VALUES ('a{,999}b{999}c{1,}', 'mask')$$, 'but 999 will do');
SELECT throws_ok($$INSERT INTO chat.content_rules (pattern, action, conversation_id, conversation_type) VALUES ('a', 'mask', 1, 'group')$$, '23514', NULL, 'a scope is one thing');
SELECT throws_ok($$INSERT INTO chat.content_rules (pattern, action, conversation_id) VALUES ('a', 'mask', 999)$$, '23503', NULL, 'and exists');
SELECT throws_ok($$INSERT INTO chat.content_rules (pattern, action) SELECT 'a', 'mask' FROM generate_series(1, 1000)$$, '23514', NULL, 'there are at most 1,000');
SELECT lives_ok($$INSERT INTO chat.content_rules (pattern, action, enabled) SELECT 'a', 'mask', false FROM generate_series(1, 1000)$$, 'that are enabled');
DELETE FROM chat.content_rules;

-- What the plugin reads.
INSERT INTO chat.content_rules (pattern, action, ignore_case, enabled, conversation_type, conversation_id) VALUES ('one', 'reject', true, true, NULL, NULL), ('two', 'mask', false, true, 'channel', NULL),
	('three', 'flag', true, true, NULL, 2), ('four', 'flag', true, false, NULL, NULL);
SELECT results_eq('SELECT pattern, action, ignore_case, conversation_type, conversation_id FROM chat.read_content_rules()',
	$$VALUES ('one', 1::smallint, true, 0::smallint, 0::bigint), ('two', 2::smallint, false, 3::smallint, 0), ('three', 3::smallint, true, 0::smallint, 2)$$, 'the rules that are enabled');
SELECT results_eq('SELECT * FROM chat.conversation_types(''{4,1,999,3,1}'')', $$VALUES (1, 1::smallint), (2, 2::smallint), (3, 0::smallint), (4, 3::smallint), (5, 2::smallint)$$, 'types of conversations');
DELETE FROM chat.conversations WHERE id = 2;
SELECT is_empty('SELECT FROM chat.content_rules WHERE pattern = ''three''', 'a rule goes with its conversation');

-- Rejecting: c conversation, s sender, id and hash as in test.append.
CREATE FUNCTION pg_temp.rejected(batch jsonb) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(CASE r.status WHEN 2 THEN 'duplicate ' || r.seq ELSE r.code END, ', ' ORDER BY r.ordinal)
	FROM (SELECT array_agg((m ->> 'c')::bigint ORDER BY i) AS c, array_agg((m ->> 's')::bigint ORDER BY i) AS s, array_agg(coalesce((m ->> 'd')::bigint, 0) ORDER BY i) AS d,
			array_agg(test.uuid((m ->> 'id')::bigint) ORDER BY i) AS id, array_agg(test.uuid(coalesce((m ->> 'hash')::bigint, 0)) ORDER BY i) AS hash,
			array_agg(to_timestamp(1000)) AS sent
		FROM jsonb_array_elements(batch) WITH ORDINALITY AS element (m, i)) b,
		chat.reject_messages(test.uuid(0), '{}', '{}', '{}', b.c, b.s, b.d, b.id, b.hash, b.sent) r
$$;
SELECT is(pg_temp.rejected('[{"c":1,"s":1,"id":1}]'), 'forbidden', 'a message is rejected');
SELECT is((SELECT code || ' ' || user_id || ' ' || conversation_id FROM chat.refusals), 'forbidden 1 1', 'and that is on record');
SELECT is(pg_temp.rejected('[{"c":1,"s":4,"id":2},{"c":999,"s":4,"id":3},{"c":3,"s":4,"id":4}]'), 'not_found, not_found, forbidden', 'strangers do not learn of rules');
UPDATE chat.users SET status = 'suspended' WHERE id = 3;
SELECT is(pg_temp.rejected('[{"c":1,"s":3,"id":5}]'), 'unauthenticated', 'who is suspended is told that');
INSERT INTO chat.devices (id, user_id, revoked_at) VALUES (11, 1, NULL), (12, 1, now());
INSERT INTO chat.blocked_users VALUES (2, 1);
SELECT is(pg_temp.rejected('[{"c":1,"s":1,"d":11,"id":6},{"c":1,"s":1,"d":12,"id":7},{"c":4,"s":1,"id":8}]'), 'forbidden, unauthenticated, blocked', 'and so are others whose message would be refused anyway');
SELECT is(test.outcome('[{"c":1,"s":1,"id":10,"hash":7}]'), 'stored 1', 'what was stored');
SELECT is(pg_temp.rejected('[{"c":1,"s":1,"id":10,"hash":7},{"c":1,"s":1,"id":10,"hash":8}]'), 'duplicate 1, conflict', 'stays stored, whatever the rules are now');
SELECT is((SELECT count(*) FROM chat.refusals), 9::bigint, 'and is no refusal');
SELECT is(pg_temp.rejected('[{"c":1,"s":1,"id":1}]'), 'forbidden', 'what is sent again is rejected again');
SELECT is(test.ask(1, 'message.status', '{"conversation":1,"id":"00000000-0000-0000-0000-000000000001"}') #>> '{error,code}', 'forbidden', 'its sender can ask');
SELECT is((SELECT last_seq FROM chat.conversations WHERE id = 1), 1::bigint, 'no number is used up');
SELECT chat.read_positions(test.uuid(1), '{5}') \g /dev/null
SELECT lives_ok($$SELECT * FROM chat.reject_messages(test.uuid(1), '{5}', '{0}', '{64}', '{1}', '{1}', '{0}', ARRAY[test.uuid(9)], ARRAY[test.uuid(0)], ARRAY[now()])$$, 'positions move with it');
SELECT throws_ok($$SELECT * FROM chat.reject_messages(test.uuid(1), '{5}', '{0}', '{64}', '{1}', '{1}', '{0}', ARRAY[test.uuid(9)], ARRAY[test.uuid(0)], ARRAY[now()])$$, 'CH001', NULL, 'once');

-- Flagging
SELECT test.append('[{"c":1,"s":1,"id":20,"type":"edit","ref":1},{"c":1,"s":2,"id":21},{"c":1,"s":4,"id":22}]') \g /dev/null
SELECT chat.flag_messages('{1,1,1,1}', '{1,2,2,4}', ARRAY[test.uuid(20), test.uuid(21), test.uuid(21), test.uuid(22)], '{7,7,8,7}') \g /dev/null
SELECT results_eq('SELECT conversation_id, seq, rule_id, reporter_id, resolved FROM chat.reports ORDER BY id', $$VALUES (1::bigint, 1::bigint, 7::bigint, NULL::bigint, false), (1, 3, 7, NULL, false), (1, 3, 8, NULL, false)$$,
	'each that is stored, for each rule; an edit as its message');
SELECT chat.flag_messages('{1}', '{2}', ARRAY[test.uuid(21)], '{7}') \g /dev/null
SELECT is((SELECT count(*) FROM chat.reports), 3::bigint, 'once');
UPDATE chat.reports SET resolution = 'dismissed', resolved_at = now();
SELECT chat.flag_messages('{1}', '{1}', ARRAY[test.uuid(20)], '{7}') \g /dev/null
SELECT is((SELECT count(*) FROM chat.reports WHERE NOT resolved), 1::bigint, 'and anew when that was decided on: the next edit may be worse');
SELECT throws_ok('UPDATE chat.reports SET resolution = NULL WHERE resolved', '23514', NULL, 'a decision has a time');
DELETE FROM chat.conversations WHERE id = 1;
SELECT is_empty('SELECT FROM chat.reports', 'reports go with the conversation');
SELECT is((SELECT count(*) FROM chat.content_rules), 3::bigint, 'rules for all stay');

SELECT * FROM finish();
ROLLBACK;
