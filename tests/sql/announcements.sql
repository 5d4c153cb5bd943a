-- What is announced on chat_changes, and what raises members_version. A second connection listens: nothing here is rolled back, all is removed at the end.
SELECT plan(49);

SELECT test.users(501, 504);
SELECT test.connect('listener') \g /dev/null
SELECT test.run('listener', 'LISTEN chat_changes') \g /dev/null

CREATE FUNCTION pg_temp.version(conversation bigint) RETURNS bigint LANGUAGE sql AS 'SELECT members_version FROM chat.conversations WHERE id = conversation';

INSERT INTO chat.conversations (id, type) VALUES (501, 'group');
SELECT is(test.heard('listener'), 'c 501', 'a conversation is made');
INSERT INTO chat.conversation_participants (conversation_id, user_id) VALUES (501, 501), (501, 502);
SELECT is(test.heard('listener'), 'm 501 501, m 501 502', 'members are added');
SELECT is(pg_temp.version(501), 2::bigint, 'one statement raises the version once');
UPDATE chat.conversation_participants SET role = 'reader' WHERE user_id = 502;
SELECT is(test.heard('listener'), 'm 501 502', 'a role changes');
SELECT is(pg_temp.version(501), 3::bigint, 'and raises the version');
UPDATE chat.conversation_participants SET role = 'reader' WHERE user_id = 502;
SELECT is(test.heard('listener'), NULL, 'a role that stays is not news');
SELECT is(pg_temp.version(501), 3::bigint, 'nor a new version');
UPDATE chat.conversation_participants SET muted_until = 'infinity' WHERE user_id = 502;
SELECT is(test.heard('listener'), NULL, 'muting is not news');
DELETE FROM chat.conversation_participants WHERE user_id = 502;
SELECT is(test.heard('listener'), 'm 501 502', 'a member is removed');
SELECT is(pg_temp.version(501), 4::bigint, 'and raises the version');
UPDATE chat.conversations SET name = 'x' WHERE id = 501;
SELECT is(test.heard('listener'), NULL, 'a new name is not news');
UPDATE chat.conversations SET type = 'channel' WHERE id = 501;
SELECT is(test.heard('listener'), 'c 501, v 501', 'a new type is, and who was seen because of it');
UPDATE chat.conversations SET is_public = true WHERE id = 501;
SELECT is(test.heard('listener'), 'c 501', 'so is a channel that becomes public');
SELECT is(pg_temp.version(501), 6::bigint, 'both raise the version');
INSERT INTO chat.conversation_participants (conversation_id, user_id) VALUES (501, 503);
SELECT is(test.heard('listener'), 'm 501 503', 'who joins a public channel is announced');
SELECT is(pg_temp.version(501), 6::bigint, 'but reading does not depend on it: the version stays');
INSERT INTO chat.conversation_participants (conversation_id, user_id) VALUES (501, 503) ON CONFLICT DO NOTHING;
SELECT is(test.heard('listener'), NULL, 'nothing done, nothing said');
BEGIN;
DELETE FROM chat.conversation_participants WHERE user_id = 503;
ROLLBACK;
SELECT is(test.heard('listener'), NULL, 'what is rolled back is not announced');

-- The log
SELECT test.append('[{"c":501,"s":501,"id":1},{"c":501,"s":502,"id":1}]') \g /dev/null
SELECT is(test.heard('listener'), NULL, 'append_messages announces nothing');
SELECT test.mark('[{"c":501,"u":503,"read":1}]') \g /dev/null
SELECT is(test.heard('listener'), NULL, 'nor does append_marks');
INSERT INTO chat.messages (conversation_id, type, body) VALUES (501, 'system', 'maintenance at ten');
SELECT is(test.heard('listener'), 'l 501 2 2', 'an entry inserted by hand is numbered and announced');
SELECT results_eq('SELECT seq, ordinal, sender_id, client_id, type, body FROM chat.messages WHERE conversation_id = 501 ORDER BY seq DESC LIMIT 1',
	$$VALUES (2::bigint, 1::bigint, NULL::bigint, NULL::uuid, 'system', 'maintenance at ten')$$, 'and stored as a system entry');
SELECT is((SELECT last_seq FROM chat.conversations WHERE id = 501), 2::bigint, 'it counts in the conversation');
INSERT INTO chat.messages (conversation_id, body) VALUES (501, 'a'), (501, 'b');
SELECT is(test.heard('listener'), 'l 501 3 3, l 501 4 4', 'several at once');
SELECT is(test.outcome('[{"c":501,"s":501,"id":2}]'), 'stored 5', 'the next message has the next number');
SELECT throws_ok($$INSERT INTO chat.messages (conversation_id, type, body) VALUES (501, 'text', 'x')$$, '23514', NULL, 'only system entries are written without a sender');
SELECT throws_ok($$INSERT INTO chat.messages (conversation_id, body) VALUES (599, 'x')$$, '23503', NULL, 'and only into a conversation that exists');

-- Blocks
INSERT INTO chat.conversations (id, type, first_user_id, second_user_id) VALUES (502, 'direct', 501, 502);
SELECT is(test.heard('listener'), 'c 502, m 502 501, m 502 502', 'a direct conversation is announced with its members');
INSERT INTO chat.blocked_users VALUES (502, 501);
SELECT is(test.heard('listener'), 'm 502 501, m 502 502, v 502 501', 'a block concerns both');
SELECT is(pg_temp.version(502), 3::bigint, 'and raises the version');
DELETE FROM chat.blocked_users;
SELECT is(test.heard('listener'), 'm 502 501, m 502 502, v 502 501', 'so does its end');
INSERT INTO chat.blocked_users VALUES (503, 504);
SELECT is(test.heard('listener'), 'v 503 504', 'a block between two who have no conversation is news for their presence alone');
DELETE FROM chat.blocked_users;
SELECT is(test.heard('listener'), 'v 503 504', 'so is its end');

-- What else is told of members is announced behind them: who hears of it can rely on what he reads
CREATE FUNCTION pg_temp.order_heard() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	heard text := '';
BEGIN
	PERFORM dblink_exec('listener', 'NOTIFY chat_changes, ''end''');
	WHILE heard NOT LIKE '%e' LOOP
		heard := heard || coalesce((SELECT string_agg(left(extra, 1), '' ORDER BY place)
			FROM dblink_get_notify('listener') WITH ORDINALITY AS n (name, pid, extra, place)), '');
	END LOOP;
	RETURN heard;
END $$;
INSERT INTO chat.conversation_participants (conversation_id, user_id) VALUES (501, 504);
SELECT is(pg_temp.order_heard(), 'mie', 'first the membership, then the event for the inbox');
UPDATE chat.conversation_participants SET role = 'admin' WHERE user_id = 504 AND conversation_id = 501;
SELECT is(pg_temp.order_heard(), 'mie', 'also where a role changes');
DELETE FROM chat.conversation_participants WHERE user_id = 504 AND conversation_id = 501;
SELECT is(pg_temp.order_heard(), 'mie', 'and where somebody goes');

-- A transaction knows that it has something of members to announce
BEGIN;
INSERT INTO chat.messages (conversation_id, body) VALUES (501, 'c');
UPDATE chat.users SET display_name = 'y' WHERE id = 501;
SELECT is(coalesce(current_setting('chat.announced', true), ''), '', 'entries and events are nothing of the kind');
INSERT INTO chat.conversation_participants (conversation_id, user_id) VALUES (501, 504);
SELECT is(current_setting('chat.announced', true), 'yes', 'a member is');
ROLLBACK;
SELECT is(coalesce(current_setting('chat.announced', true), ''), '', 'and it is forgotten with the transaction');

-- Accounts and devices
INSERT INTO chat.devices (id, user_id) VALUES (501, 501), (502, 501);
UPDATE chat.users SET status = 'suspended' WHERE id = 501;
SELECT is(test.heard('listener'), 'u 501', 'an account is suspended');
UPDATE chat.users SET display_name = 'x' WHERE id = 501;
UPDATE chat.devices SET last_seen_at = now();
SELECT is(test.heard('listener'), NULL, 'profiles and last_seen_at are not news');
UPDATE chat.users SET settings = '{"privacy":{"read_receipts":false}}' WHERE id = 501;
SELECT is(test.heard('listener'), 'u 501', 'sessions learn that what they read is hidden');
UPDATE chat.users SET settings = '{"privacy":{"read_receipts":false,"search":false}}' WHERE id = 501;
SELECT is(test.heard('listener'), NULL, 'and of no other setting');
UPDATE chat.users SET settings = '{"privacy":{"read_receipts":false,"presence":"nobody"}}' WHERE id = 501;
SELECT is(test.heard('listener'), 'v 501', 'who may see them is news');
INSERT INTO chat.device_presence (user_id, device_id, status) VALUES (501, 502, 'away');
SELECT is(test.heard('listener'), 's 501', 'a device says something of itself');
UPDATE chat.devices SET revoked_at = now() WHERE id = 501;
SELECT is(test.heard('listener'), 'd 501 501', 'a device is revoked');
DELETE FROM chat.devices WHERE id = 502;
SELECT is(test.heard('listener'), 'd 501 502, s 501', 'a device is removed, and what it said');

-- What goes
DELETE FROM chat.conversations WHERE id = 502;
SELECT is(test.heard('listener'), 'c 502, v 501, v 502', 'a conversation that goes is announced once, and who was seen because of it');
DELETE FROM chat.users WHERE id = 501;
SELECT is(test.heard('listener'), 'd 501 501, m 501 501, u 501', 'a user goes with devices and memberships');

DELETE FROM chat.conversations;
DELETE FROM chat.users;
DELETE FROM chat.refusals;
SELECT dblink_disconnect('listener') \g /dev/null
SELECT * FROM finish();
