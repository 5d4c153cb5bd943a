-- What is queued, claimed and settled for pushes. Times of commit are moved into the past by hand, so that nothing waits.
BEGIN;
SELECT plan(8);

SELECT test.users(1, 9);
SELECT test.group(1, 1, 2, 3);
INSERT INTO chat.devices (id, user_id) VALUES (21, 2), (22, 2), (31, 3);
INSERT INTO chat.push_targets (device_id, provider, app, token) VALUES (21, 'fcm', 'android', 't21'), (22, 'apns', 'ios', 't22'), (31, 'fcm', 'android', 't31');

-- Looks at the log up to now, as if that took no time at all.
CREATE FUNCTION pg_temp.find() RETURNS text LANGUAGE sql AS $$
	SELECT messages || ' messages, ' || found || ' pushes' FROM chat.find_pushes(0, 86400000)
$$;
SELECT is(pg_temp.find(), '0 messages, 0 pushes', 'the first look begins now');
SELECT test.outcome('[{"c":1,"s":1,"id":1}]') \g /dev/null
UPDATE chat.push_cursor SET safe_at = clock_timestamp() + interval '1 hour', check_xid = '9223372036854775807';
SELECT is(pg_temp.find(), '1 messages, 3 pushes', 'a message in a group: the devices of the others');
SELECT is(pg_temp.find(), '0 messages, 0 pushes', 'it is looked at once');
SELECT results_eq($$SELECT device_id, verdict, token, seq, count, badge, sender_name, body FROM chat.claim_pushes('android', 10, 60000, true) ORDER BY device_id$$,
	$$VALUES (21::bigint, 'message', 't21', 1::bigint, 1::bigint, 1::bigint, 'user1', 'hello'), (31, 'message', 't31', 1, 1, 1, 'user1', 'hello')$$, 'claimed with all that is needed');
SELECT is_empty($$SELECT * FROM chat.claim_pushes('android', 10, 60000, true)$$, 'and leased');
SELECT is(chat.settle_pushes('{21,31}', '{1,1}', '{1,1}', '{accepted,retry}', '{1,1}', '{0,-1000}', '{NULL,busy}', '{0,0}', '{0,0}'), 2, 'settled');
SELECT results_eq($$SELECT device_id, state::text, attempts, last_error FROM chat.pushes ORDER BY device_id$$,
	$$VALUES (21::bigint, 'shown', 0, NULL), (22, 'due', 0, NULL), (31, 'due', 1, 'busy')$$, 'one is shown, one is to be tried again');
SELECT test.marked('[{"c":1,"u":3,"d":31,"read":1}]') \g /dev/null
SELECT results_eq($$SELECT verdict FROM chat.claim_pushes('android', 10, 60000, true)$$, $$VALUES ('known')$$, 'read meanwhile: not sent');

SELECT * FROM finish();
ROLLBACK;
