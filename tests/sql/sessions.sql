-- chat.open_sessions, load_memberships, public_channels, read_messages, version, claim_broker.
BEGIN;
SELECT plan(29);

SELECT test.users(1, 4);
INSERT INTO chat.devices (id, user_id, revoked_at) VALUES (11, 1, NULL), (12, 1, now()), (21, 2, NULL);
SELECT test.group(30, 1, 2);
SELECT test.group(10, 1);
INSERT INTO chat.conversations (id, type, is_public) VALUES (20, 'channel', true), (5, 'channel', false);
INSERT INTO chat.conversation_participants (conversation_id, user_id, role) VALUES (20, 1, 'owner'), (5, 1, 'reader');
UPDATE chat.conversation_participants SET role = 'admin' WHERE conversation_id = 30 AND user_id = 1;
SELECT test.append('[{"c":30,"s":2,"id":1},{"c":30,"s":2,"id":2}]') \g /dev/null

-- Whether they may
CREATE FUNCTION pg_temp.may(users bigint[], devices bigint[], make boolean) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(coalesce(code, 'yes'), ' ' ORDER BY ordinal) FROM chat.open_sessions(users, devices, make)
$$;
UPDATE chat.users SET status = 'suspended' WHERE id = 3;
SELECT is(pg_temp.may('{2,1,3,99}', '{0,0,0,0}', false), 'yes yes unauthenticated unauthenticated', 'active accounts may, suspended and unknown ones may not');
SELECT is(pg_temp.may('{1,1,1,1,2}', '{11,12,21,99,21}', false), 'yes unauthenticated unauthenticated unauthenticated yes',
	'a device that is revoked, another''s or unknown may not (threat 10)');
SELECT is((SELECT count(*)::int FROM chat.users WHERE id = 99), 0, 'nobody is made unasked');
SELECT is(pg_temp.may('{99,3,99,1}', '{0,0,0,0}', true), 'yes unauthenticated yes yes', 'asked, unknown users are made, once');
SELECT is((SELECT username FROM chat.users WHERE id = 99), NULL, 'without a name');
SELECT is(pg_temp.may('{0,-1,8796093022208}', '{0,0,0}', true), 'unauthenticated unauthenticated unauthenticated', 'but not with numbers that no user can have');
SELECT is_empty('SELECT * FROM chat.open_sessions(''{}'', ''{}'', true)', 'nobody asked, nobody answered');

-- What they hold
SELECT results_eq('SELECT conversations, roles, last_seqs FROM chat.open_sessions(''{1,2,4,3}'', ''{0,0,0,0}'', false) ORDER BY ordinal',
	$$VALUES ('{5,10,20,30}'::bigint[], '{17,2,20,3}'::smallint[], '{0,0,0,2}'::bigint[]), ('{30}', '{2}', '{2}'), ('{}', '{}', '{}'), ('{}', '{}', '{}')$$,
	'conversations by id, with roles (16 more in channels) and newest numbers; none for those who may not');
SELECT is((SELECT members_versions FROM chat.open_sessions('{1}', '{0}', false)), (SELECT array_agg(members_version ORDER BY id) FROM chat.conversations), 'and the versions of the members');
SELECT results_eq('SELECT role, last_seq, public FROM chat.load_memberships(''{30,30,10,20,20,99,30}'', ''{1,4,1,1,4,1,0}'') ORDER BY ordinal',
	$$VALUES (3::smallint, 2::bigint, false), (0::smallint, 2, false), (2::smallint, 0, false), (20::smallint, 0, true), (16::smallint, 0, true), (0::smallint, 0, false), (0::smallint, 2, false)$$,
	'pairs of conversation and user; user 0 for the conversation alone');
SELECT results_eq('SELECT first_seq FROM chat.load_memberships(''{30,30,20,99,30}'', ''{1,4,1,1,0}'') ORDER BY ordinal',
	(SELECT array_agg(x) FROM (VALUES ((SELECT first_visible_seq FROM chat.conversation_participants WHERE (conversation_id, user_id) = (30, 1))), (0), (1), (0), (0)) v (x)),
	'the first entry that they may read; all of a public channel');
SELECT is((SELECT first_seqs FROM chat.open_sessions('{1}', '{0}', false)), (SELECT array_agg(CASE WHEN is_public THEN 1 ELSE first_visible_seq END ORDER BY id)
	FROM chat.conversations c JOIN chat.conversation_participants p ON conversation_id = id AND user_id = 1), 'at sign-in too');
SELECT is((SELECT members_version FROM chat.load_memberships('{99}', '{1}')), 0::bigint, 'an unknown conversation has version 0');

-- What goes with the role
INSERT INTO chat.conversations (id, type, first_user_id, second_user_id) VALUES (40, 'direct', 1, 2);
SELECT is((SELECT role FROM chat.load_memberships('{40}', '{1}')), 2::smallint, 'a direct conversation');
INSERT INTO chat.blocked_users (user_id, blocked_user_id) VALUES (2, 1);
SELECT is((SELECT string_agg(role::text, ' ' ORDER BY ordinal) FROM chat.load_memberships('{40,40,30}', '{1,2,1}')), '34 34 3', '32 is added where one has blocked the other, for both');
UPDATE chat.users SET settings = '{"privacy":{"read_receipts":false}}' WHERE id = 2;
SELECT results_eq('SELECT conversations, roles, hides_reads FROM chat.open_sessions(''{1,2}'', ''{0,0}'', false) ORDER BY ordinal',
	$$VALUES ('{5,10,20,30,40}'::bigint[], '{17,2,20,3,34}'::smallint[], false), ('{30,40}', '{2,34}', true)$$, 'at sign-in too, and whether the user hides what they have read');
UPDATE chat.users SET settings = '{}' WHERE id = 2;
DELETE FROM chat.conversations WHERE id = 40;
DELETE FROM chat.blocked_users;
INSERT INTO chat.conversations (id, type, is_public) VALUES (7, 'channel', true);
SELECT results_eq('SELECT chat.public_channels()', '{7,20}'::bigint[], 'the public channels, ascending');

-- Reading the log
SELECT results_eq('SELECT seq, sender_id, client_id, body FROM chat.read_messages(30, 1, 10)',
	$$VALUES (1::bigint, 2::bigint, test.uuid(1), 'hello'), (2, 2, test.uuid(2), 'hello')$$, 'entries, ascending');
SELECT results_eq('SELECT seq FROM chat.read_messages(30, 2, 2)', '{2}'::bigint[], 'of a range');
SELECT is_empty('SELECT seq FROM chat.read_messages(30, 3, 9)', 'nothing beyond the end');
SELECT is((SELECT DISTINCT members_version FROM chat.read_messages(30, 1, 10)), (SELECT members_version FROM chat.conversations WHERE id = 30), 'with the version of the members');
SELECT chat.append_messages(test.uuid(1), '{}', '{}', '{}', array_fill(10::bigint, ARRAY[1500]), array_fill(1::bigint, ARRAY[1500]), array_fill(0::bigint, ARRAY[1500]),
	array_agg(test.uuid(i)), array_agg(test.uuid(0)), array_fill('text'::text, ARRAY[1500]), array_fill('x'::text, ARRAY[1500]), array_fill(NULL::bigint, ARRAY[1500]),
	array_fill(NULL::bigint, ARRAY[1500]), array_fill(NULL::jsonb, ARRAY[1500]), array_fill(now(), ARRAY[1500]), array_fill(NULL::timestamptz, ARRAY[1500]))
	FROM generate_series(1, 1500) i \g /dev/null
SELECT results_eq('SELECT min(seq), max(seq), count(*) FROM chat.read_messages(10, 101, 1500)', 'VALUES (101::bigint, 1100::bigint, 1000::bigint)', 'at most 1,000 at a time');

-- Who joins
SELECT test.group(40, 1);
SELECT test.append('[{"c":40,"s":1,"id":1},{"c":40,"s":1,"id":2}]') \g /dev/null
INSERT INTO chat.conversation_participants (conversation_id, user_id) VALUES (40, 2);
SELECT results_eq('SELECT joined_seq, first_visible_seq FROM chat.conversation_participants WHERE conversation_id = 40 AND user_id = 2', 'VALUES (2::bigint, 3::bigint)', 'who joins reads what comes next (threat 58)');
UPDATE chat.conversations SET shows_history = true WHERE id = 40;
INSERT INTO chat.conversation_participants (conversation_id, user_id) VALUES (40, 4);
SELECT is((SELECT first_visible_seq FROM chat.conversation_participants WHERE conversation_id = 40 AND user_id = 4), 1::bigint, 'or all, where the conversation says so');

-- Version and claim
SELECT is(chat.version(), (SELECT max(number) FROM chat_migrations.applied), 'the version is the newest migration''s number');
SELECT ok(chat.claim_broker(), 'one broker claims the database');
SELECT test.connect('other') \g /dev/null
SELECT is(test.run('other', 'SELECT chat.claim_broker()'), 'f', 'a second one cannot (threat 60)');
SELECT pg_advisory_unlock_all() \g /dev/null
SELECT is(test.run('other', 'SELECT chat.claim_broker()'), 't', 'until the first is gone');
SELECT is(chat.claim_broker(), false, 'and then holds it');
SELECT dblink_disconnect('other') \g /dev/null

SELECT * FROM finish();
ROLLBACK;
