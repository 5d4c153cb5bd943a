-- What is queued, claimed and settled for pushes. Nothing waits: the look at the log is told that no transaction is open, and times are moved by hand.
BEGIN;
SELECT plan(58);

SELECT test.users(1, 9);
SELECT test.group(1, 1, 2, 3);
INSERT INTO chat.devices (id, user_id) VALUES (11, 1), (21, 2), (22, 2), (31, 3), (32, 3);
INSERT INTO chat.push_targets (device_id, provider, app, token) VALUES (11, 'fcm', 'android', 't11'), (21, 'fcm', 'android', 't21'), (22, 'apns', 'ios', 't22'), (31, 'fcm', 'android', 't31');

-- Looks at the log up to now.
CREATE FUNCTION pg_temp.find() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	UPDATE chat.push_cursor SET safe_at = clock_timestamp() + interval '1 hour', check_xid = '9223372036854775807', again_xid = NULL;
	RETURN (SELECT messages || ' messages, ' || pushes || ' pushes' FROM chat.find_pushes(0, 86400000));
END $$;
CREATE FUNCTION pg_temp.rows() RETURNS text LANGUAGE sql AS $$
	SELECT coalesce(string_agg(format('%s/%s %s %s', device_id, conversation_id, state, last_seq), ', ' ORDER BY device_id, conversation_id), 'none') FROM chat.pushes
$$;
CREATE FUNCTION pg_temp.claim(app text) RETURNS text LANGUAGE sql AS $$
	SELECT coalesce(string_agg(format('%s/%s %s', device_id, conversation_id, verdict), ', ' ORDER BY device_id, conversation_id), 'none') FROM chat.claim_pushes(app, 100, 60000, false)
$$;
-- Settles the newest lease of a row.
CREATE FUNCTION pg_temp.settle(device bigint, conversation bigint, outcome text, seq bigint DEFAULT 0, gone_ms bigint DEFAULT 0) RETURNS integer LANGUAGE sql AS $$
	SELECT chat.settle_pushes(ARRAY[device], ARRAY[conversation], ARRAY[lease], ARRAY[outcome], ARRAY[seq], '{0}', '{because}',
		ARRAY[coalesce((SELECT (extract(epoch FROM updated_at) * 1000000)::bigint FROM chat.push_targets WHERE device_id = device), 0)], ARRAY[gone_ms])
	FROM chat.pushes WHERE device_id = device AND conversation_id = conversation
$$;
CREATE FUNCTION pg_temp.due() RETURNS void LANGUAGE sql AS $$ UPDATE chat.pushes SET not_before = clock_timestamp() $$;
CREATE FUNCTION pg_temp.clean() RETURNS void LANGUAGE sql AS $$ DELETE FROM chat.pushes $$;

-- finding
SELECT is(pg_temp.find(), '0 messages, 0 pushes', 'the first look begins now');
SELECT test.outcome('[{"c":1,"s":1,"id":1}]') \g /dev/null
SELECT is(pg_temp.find(), '1 messages, 3 pushes', 'a message in a group: the devices of the others that have a push target');
SELECT is(pg_temp.find(), '0 messages, 0 pushes', 'it is looked at once');
SELECT is(pg_temp.rows(), '21/1 due 1, 22/1 due 1, 31/1 due 1', 'one row for a device and a conversation');
-- What retention has removed unread is in no badge.
SELECT test.group(900, 2, 4) \g /dev/null
UPDATE chat.conversations SET last_ordinal = 5, removed_ordinal = 5 WHERE id = 900;
SELECT results_eq($$SELECT device_id, verdict, token, seq, count, badge, conversation_type, sender_name, message_type, body FROM chat.claim_pushes('android', 10, 60000, true) ORDER BY device_id$$,
	$$VALUES (21::bigint, 'message', 't21', 1::bigint, 1::bigint, 1::bigint, 'group', 'user1', 'text', 'hello'), (31, 'message', 't31', 1, 1, 1, 'group', 'user1', 'text', 'hello')$$,
	'claimed with all that is needed');
DELETE FROM chat.conversations WHERE id = 900;
SELECT is(pg_temp.claim('android'), 'none', 'and leased');
SELECT is(chat.settle_pushes('{21,31}', '{1,1}', '{1,1}', '{accepted,retry}', '{1,1}', '{0,-1000}', '{NULL,busy}', '{0,0}', '{0,0}'), 2, 'settled');
SELECT results_eq($$SELECT device_id, state::text, attempts, last_error FROM chat.pushes ORDER BY device_id$$,
	$$VALUES (21::bigint, 'shown', 0, NULL), (22, 'due', 0, NULL), (31, 'due', 1, 'busy')$$, 'one is shown, one is to be tried again');
SELECT test.marked('[{"c":1,"u":3,"d":32,"read":1}]') \g /dev/null
SELECT is(pg_temp.claim('android'), '31/1 known', 'read on another device meanwhile: not sent');
SELECT is(pg_temp.rows(), '21/1 shown 1, 22/1 due 1', 'and forgotten');

-- folding
SELECT test.outcome('[{"c":1,"s":1,"id":2,"body":"two"},{"c":1,"s":3,"id":3,"body":"three"}]') \g /dev/null
SELECT is(pg_temp.find(), '2 messages, 3 pushes', 'more of them: who wrote has seen what came before, and who was told is told again');
SELECT is(pg_temp.rows(), '11/1 due 3, 21/1 due 3, 22/1 due 3', 'they fold into what waits');
SELECT results_eq($$SELECT device_id, seq, count, body FROM chat.claim_pushes('ios', 10, 60000, false)$$, $$VALUES (22::bigint, 3::bigint, 3::bigint, 'three')$$, 'count and newest text');
SELECT test.outcome('[{"c":1,"s":1,"id":4,"body":"four"}]') \g /dev/null
SELECT pg_temp.find() \g /dev/null
SELECT is(pg_temp.claim('ios'), 'none', 'one that comes while a push is under way waits for its end');
SELECT pg_temp.settle(22, 1, 'accepted', 3) \g /dev/null
SELECT is(pg_temp.claim('ios'), '22/1 message', 'and is then sent at once');
SELECT pg_temp.settle(22, 1, 'accepted', 4) \g /dev/null
SELECT is((SELECT state::text || ' ' || sent_seq FROM chat.pushes WHERE device_id = 22), 'shown 4', 'up to the last one');
SELECT is(pg_temp.settle(22, 1, 'retry', 4), 1, 'the lease is still the last one');
SELECT is(chat.settle_pushes('{22}', '{1}', '{1}', '{drop}', '{4}', '{0}', '{NULL}', '{0}', '{0}'), 0, 'who lost the lease has nothing to say');
SELECT pg_temp.clean() \g /dev/null

-- who is told
SELECT test.marked('[{"c":1,"u":1,"read":4},{"c":1,"u":2,"read":4},{"c":1,"u":3,"read":4}]') \g /dev/null
SELECT test.outcome('[{"c":1,"s":1,"id":5}]') \g /dev/null
SELECT test.marked('[{"c":1,"u":2,"d":21,"delivered":5}]') \g /dev/null
SELECT pg_temp.find() \g /dev/null
SELECT is(pg_temp.rows(), '22/1 due 5, 31/1 due 5', 'delivered to this device: not pushed there, but to the other, which is not shown to have it');
SELECT pg_temp.clean() \g /dev/null
INSERT INTO chat.active_devices VALUES (21, clock_timestamp() + interval '1 minute');
SELECT test.outcome('[{"c":1,"s":1,"id":6}]') \g /dev/null
SELECT test.marked('[{"c":1,"u":2,"d":21,"delivered":6}]') \g /dev/null
SELECT pg_temp.find() \g /dev/null
SELECT is(pg_temp.rows(), '31/1 due 6', 'delivered to a device that someone sits in front of: no news for the others');
SELECT is(pg_temp.claim('ios'), 'none', 'and nothing is left to be claimed for them');
UPDATE chat.active_devices SET active_until = clock_timestamp() - interval '1 second';
SELECT pg_temp.clean() \g /dev/null
SELECT test.outcome('[{"c":1,"s":1,"id":61}]') \g /dev/null
SELECT test.marked('[{"c":1,"u":2,"d":21,"delivered":7}]') \g /dev/null
SELECT pg_temp.find() \g /dev/null
SELECT is(pg_temp.rows(), '22/1 due 7, 31/1 due 7', 'delivered to one that everybody went away from: it is');
UPDATE chat.active_devices SET active_until = clock_timestamp() + interval '1 minute';
SELECT is(pg_temp.claim('ios'), '22/1 known', 'and is no more, where somebody is back in front of it before the push is sent');
UPDATE chat.active_devices SET active_until = clock_timestamp() - interval '1 second';
SELECT pg_temp.clean() \g /dev/null
UPDATE chat.conversation_participants SET muted_until = 'infinity' WHERE conversation_id = 1 AND user_id = 2;
SELECT test.outcome('[{"c":1,"s":1,"id":7}]') \g /dev/null
SELECT pg_temp.find() \g /dev/null
SELECT is(pg_temp.rows(), '31/1 due 8', 'muted');
SELECT test.outcome('[{"c":1,"s":1,"id":8,"extra":{"mentions":[2,9]}},{"c":1,"s":1,"id":9}]') \g /dev/null
SELECT pg_temp.find() \g /dev/null
SELECT is(pg_temp.rows(), '21/1 due 9, 22/1 due 9, 31/1 due 10', 'a mention breaks a mute');
UPDATE chat.conversation_participants SET muted_until = clock_timestamp() WHERE conversation_id = 1 AND user_id = 2;
SELECT pg_temp.clean() \g /dev/null
INSERT INTO chat.blocked_users VALUES (3, 1);
SELECT test.outcome('[{"c":1,"s":1,"id":10},{"c":1,"s":2,"id":11},{"c":1,"s":1,"id":12}]') \g /dev/null
SELECT pg_temp.find() \g /dev/null
SELECT is(pg_temp.rows(), '21/1 due 13, 22/1 due 13, 31/1 due 12', 'of whom they blocked they hear nothing');
DELETE FROM chat.blocked_users;
SELECT pg_temp.clean() \g /dev/null
SELECT test.outcome('[{"c":1,"s":1,"id":13,"type":"reaction","ref":1},{"c":1,"s":1,"id":14,"type":"edit","ref":1},{"c":1,"s":1,"id":15,"type":"delete","ref":1},{"c":1,"s":1,"id":16,"expires":1000}]') \g /dev/null
INSERT INTO chat.messages (conversation_id, body) VALUES (1, 'a system entry');
SELECT is(pg_temp.find(), '5 messages, 0 pushes', 'reactions, edits, deletions, what has expired and system entries are no news');
INSERT INTO chat.conversation_participants (conversation_id, user_id) VALUES (1, 4);
INSERT INTO chat.devices (id, user_id) VALUES (41, 4);
INSERT INTO chat.push_targets (device_id, provider, app, token) VALUES (41, 'fcm', 'android', 't41');
SELECT is((SELECT count(*) FROM chat.pushable(41, 4, 1, 1, 100)), 0::bigint, 'what was written before they joined is no news');

-- everything is looked at again before it is sent
SELECT test.outcome('[{"c":1,"s":2,"id":20}]') \g /dev/null
SELECT is(pg_temp.find(), '1 messages, 3 pushes', 'three devices');
DELETE FROM chat.conversation_participants WHERE conversation_id = 1 AND user_id = 4;
UPDATE chat.devices SET revoked_at = now() WHERE id = 31;
UPDATE chat.users SET status = 'suspended' WHERE id = 1;
SELECT is(pg_temp.claim('android'), '11/1 gone, 31/1 gone, 41/1 known', 'suspended, signed out, removed: nothing is sent (threat 51)');
SELECT is(pg_temp.rows(), 'none', 'nothing is left of them');
UPDATE chat.devices SET revoked_at = NULL WHERE id = 31;
INSERT INTO chat.push_targets (device_id, provider, app, token) VALUES (31, 'fcm', 'android', 't31'); -- it went with the sign-out
UPDATE chat.users SET status = 'active' WHERE id = 1;
SELECT test.outcome('[{"c":1,"s":2,"id":21}]') \g /dev/null
SELECT pg_temp.find() \g /dev/null
UPDATE chat.push_targets SET app = 'other' WHERE device_id = 31;
DELETE FROM chat.push_targets WHERE device_id = 11;
SELECT is(pg_temp.claim('android'), '11/1 gone, 31/1 moved', 'no target any more; registered with another app');
SELECT is(pg_temp.claim('other'), '31/1 message', 'whose it is then');
SELECT pg_temp.due() \g /dev/null
UPDATE chat.pushes SET expires_at = clock_timestamp();
SELECT is(pg_temp.claim('other'), '31/1 expired', 'too old');
UPDATE chat.push_targets SET app = 'android' WHERE device_id = 31;

-- what became of the message meanwhile
DELETE FROM chat.pushes;
SELECT test.marked('[{"c":1,"u":3,"read":999}]'), test.marked((SELECT jsonb_build_array(jsonb_build_object('c', 1, 'u', 3, 'read', last_seq)) FROM chat.conversations WHERE id = 1)) \g /dev/null
SELECT test.outcome('[{"c":1,"s":2,"id":50,"body":"teh cat"},{"c":1,"s":2,"id":51,"body":"a secret"}]') \g /dev/null
SELECT pg_temp.find() \g /dev/null
SELECT test.outcome(jsonb_build_array(jsonb_build_object('c', 1, 's', 2, 'id', 52, 'type', 'delete', 'ref', last_seq), jsonb_build_object('c', 1, 's', 2, 'id', 53, 'type', 'edit', 'ref', last_seq - 1, 'body', 'the cat'),
	jsonb_build_object('c', 1, 's', 1, 'id', 54, 'type', 'edit', 'ref', last_seq - 1, 'body', 'not theirs to change'))) FROM chat.conversations WHERE id = 1 \g /dev/null
SELECT results_eq($$SELECT device_id, count, body FROM chat.claim_pushes('android', 10, 60000, false) WHERE device_id = 31$$, $$VALUES (31::bigint, 1::bigint, 'the cat')$$, 'what was deleted is not shown, what was edited is shown as it is now');
DELETE FROM chat.pushes;

-- leases
SELECT test.outcome('[{"c":1,"s":2,"id":22}]') \g /dev/null
SELECT pg_temp.find() \g /dev/null
SELECT is(pg_temp.claim('android'), '31/1 message', 'claimed by a notifier that dies');
SELECT pg_temp.due() \g /dev/null
SELECT is(pg_temp.claim('android'), '31/1 message', 'when the lease is up, another takes it over');
SELECT is((SELECT lease FROM chat.pushes), 2::bigint, 'under a lease of its own');
SELECT is(chat.settle_pushes('{31}', '{1}', '{1}', '{accepted}', '{99}', '{0}', '{NULL}', '{0}', '{0}'), 0, 'the first one''s word counts no more');
SELECT is(pg_temp.settle(31, 1, 'release'), 1, 'released');
SELECT is(pg_temp.claim('android'), '31/1 message', 'it can be claimed at once');
SELECT is((SELECT attempts FROM chat.pushes), 0, 'and that was no attempt');

-- dead letters and dead targets
SELECT pg_temp.settle(31, 1, 'dead') \g /dev/null
SELECT is((SELECT state::text || ' ' || last_error FROM chat.pushes), 'dead because', 'given up, with the reason');
SELECT pg_temp.due() \g /dev/null
SELECT is(pg_temp.claim('android'), 'none', 'and not tried again');
SELECT results_eq('SELECT app, due, dead FROM chat.push_queue()', $$VALUES ('android', 0::bigint, 1::bigint)$$, 'but counted');
SELECT is(chat.redrive_pushes('android'), 1::bigint, 'until an administrator says so');
SELECT is(pg_temp.claim('android'), '31/1 message', 'then it is');
SELECT pg_temp.settle(31, 1, 'forget', 0, 1000) \g /dev/null
SELECT is((SELECT count(*) FROM chat.push_targets WHERE device_id = 31), 1::bigint, 'a target that was given after it is said to have died stays');
SELECT pg_temp.claim('android') \g /dev/null
SELECT chat.settle_pushes('{31}', '{1}', (SELECT array_agg(lease) FROM chat.pushes), '{forget}', '{0}', '{0}', '{x}', '{12345}', '{0}') \g /dev/null
SELECT is((SELECT count(*) FROM chat.push_targets WHERE device_id = 31), 1::bigint, 'and one that was changed since the push');
SELECT pg_temp.claim('android') \g /dev/null
SELECT pg_temp.settle(31, 1, 'forget') \g /dev/null
SELECT is((SELECT count(*) FROM chat.push_targets WHERE device_id = 31), 0::bigint, 'the very one goes');
SELECT is(pg_temp.claim('android'), '31/1 gone', 'and what waited for it');

-- taking notifications away
SELECT test.group(2, 1, 2);
SELECT test.outcome('[{"c":1,"s":1,"id":30},{"c":2,"s":1,"id":31}]') \g /dev/null
SELECT pg_temp.find() \g /dev/null
SELECT is(pg_temp.claim('ios'), '22/1 message, 22/2 message', 'two conversations');
SELECT pg_temp.settle(22, 1, 'accepted', (SELECT last_seq FROM chat.conversations WHERE id = 1)), pg_temp.settle(22, 2, 'accepted', 1) \g /dev/null
SELECT test.marked((SELECT jsonb_agg(jsonb_build_object('c', id, 'u', 2, 'd', 21, 'read', last_seq)) FROM chat.conversations WHERE id IN (1, 2))) \g /dev/null
DELETE FROM chat.pushes WHERE app = 'android';
SELECT pg_temp.due() \g /dev/null
SELECT is(chat.check_shown('{ios}', 10), 2, 'both are looked at');
SELECT results_eq($$SELECT verdict, (SELECT array_agg(c ORDER BY c) FROM unnest(cleared) c) FROM chat.claim_pushes('ios', 10, 60000, true) ORDER BY verdict$$,
	$$VALUES ('along', NULL::bigint[]), ('clear', '{1,2}')$$, 'one silent push takes both away') ;
SELECT chat.settle_pushes(array_agg(device_id), array_agg(conversation_id), array_agg(lease), '{accepted}', '{0}', '{0}', '{NULL}', '{0}', '{0}') FROM (SELECT * FROM chat.pushes ORDER BY conversation_id LIMIT 1) q \g /dev/null
SELECT is(pg_temp.rows(), 'none', 'and that was that');

-- a test
SELECT is(chat.test_push(1, 21), false, 'nobody sends tests to others'' devices');
SELECT is(chat.test_push(2, 21), true, 'but to their own');
SELECT is(pg_temp.claim('android'), '21/0 test', 'claimed as such');

SELECT * FROM finish();
ROLLBACK;
