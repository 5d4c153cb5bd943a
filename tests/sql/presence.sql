-- Presence: what brokers write, who may see it, presence.get and presence.set. One transaction: clock_timestamp() moves on in it, times of brokers
-- are moved by hand.
BEGIN;
SELECT no_plan();

SELECT test.users(1, 9);
INSERT INTO chat.devices (id, user_id, revoked_at) VALUES (11, 1, NULL), (12, 1, NULL), (21, 2, NULL), (22, 2, now());
-- 1 and 2 talk to each other; 1, 2, 3 are in a group; 4 shares a channel with 1; 5 and 1 talked, and 5 has gone; 9 is a stranger.
INSERT INTO chat.conversations (id, type, first_user_id, second_user_id) VALUES (12, 'direct', 1, 2), (15, 'direct', 1, 5);
DELETE FROM chat.conversation_participants WHERE conversation_id = 15 AND user_id = 5;
SELECT test.group(20, 1, 2, 3);
INSERT INTO chat.conversations (id, type, is_public) VALUES (30, 'channel', true);
INSERT INTO chat.conversation_participants (conversation_id, user_id) VALUES (30, 1), (30, 4);

-- A broker's words: "user status", with a text where one is given after it.
CREATE FUNCTION pg_temp.write(broker bigint, VARIADIC states text[] DEFAULT '{}') RETURNS boolean LANGUAGE sql AS $$
	SELECT chat.write_presence(test.uuid(broker), array_agg(split_part(s, ' ', 1)::bigint), array_agg(split_part(s, ' ', 2)), array_agg(nullif(split_part(s, ' ', 3), '')),
		array_agg(CASE WHEN split_part(s, ' ', 2) <> 'offline' THEN clock_timestamp() END), '{}', '{}') FROM unnest(states) s
$$;
CREATE FUNCTION pg_temp.seen() RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(concat_ws(' ', user_id, status, text), ', ' ORDER BY user_id) FROM chat.current_presence
$$;
CREATE FUNCTION pg_temp.active() RETURNS text LANGUAGE sql AS $$ SELECT string_agg(device_id::text, ' ' ORDER BY device_id) FROM chat.active_devices $$;
CREATE FUNCTION pg_temp.devices(active bigint[], inactive bigint[]) RETURNS boolean LANGUAGE sql AS $$ SELECT chat.write_presence(test.uuid(1), '{}', '{}', '{}', '{}', active, inactive) $$;

-- A broker begins, writes, dies
SELECT is(chat.open_presence(test.uuid(1)), 0::bigint, 'a broker begins and finds nothing of its own');
SELECT is(pg_temp.write(1, '1 online', '2 busy lunch', '3 away'), true, 'it writes who is there');
SELECT is(pg_temp.seen(), '1 online, 2 busy lunch, 3 away', 'and so it is');
SELECT is(pg_temp.write(1, '2 online', '3 offline', '999 online'), true, 'what changed');
SELECT is(pg_temp.seen(), '1 online, 2 online, 3 offline', 'and nobody else; who is no user gets no row');
SELECT isnt((SELECT last_seen_at FROM chat.presence WHERE user_id = 3), NULL, 'who has gone was last seen before');
SELECT is(chat.write_presence(test.uuid(1), '{3}', '{offline}', '{NULL}', '{2026-01-01 12:00+00}', '{}', '{}'), true, 'and the broker says when');
SELECT is((SELECT last_seen_at FROM chat.presence WHERE user_id = 3), '2026-01-01 12:00+00'::timestamptz, 'which is kept');
SELECT is(pg_temp.devices('{11,12,21,22,999}', '{}'), true, 'devices that somebody sits in front of');
SELECT is(pg_temp.active(), '11 12 21', 'neither a revoked nor an unknown one');
SELECT is((SELECT bool_and(active_until > now() + interval '1 year') FROM chat.active_devices), true, 'until the broker says otherwise');
SELECT is(pg_temp.devices('{11}', '{12,999}'), true, 'nobody any more');
SELECT is(pg_temp.active(), '11 21', 'and it is gone');
UPDATE chat.brokers SET heartbeat_at = '2026-02-01 12:00+00' WHERE broker = test.uuid(1);
SELECT is(pg_temp.seen(), '1 offline, 2 offline, 3 offline', 'a broker that is not heard of for 30 s has nobody');
SELECT is((SELECT last_seen_at FROM chat.current_presence WHERE user_id = 3), '2026-01-01 12:00+00'::timestamptz, 'who had gone before keeps their time');
SELECT is(chat.open_presence(test.uuid(1)), 2::bigint, 'it starts again and ends what it left');
SELECT is(pg_temp.active(), NULL, 'devices too');
SELECT is((SELECT status::text || ' ' || (broker IS NULL) FROM chat.presence WHERE user_id = 1), 'offline true', 'in the table itself');

-- Another broker
SELECT is(pg_temp.write(1, '1 online', '2 online'), true, 'two are connected to one broker');
SELECT is(pg_temp.devices('{11}', '{}'), true, 'one with a device');
SELECT is(chat.open_presence(test.uuid(2)), 0::bigint, 'another broker ends nothing of what a living one has');
SELECT is(pg_temp.write(2, '2 away'), true, 'one comes over to it');
SELECT is(pg_temp.seen(), '1 online, 2 away, 3 offline', 'both are there');
UPDATE chat.presence SET last_seen_at = clock_timestamp() - interval '1 hour' WHERE user_id = 1;
UPDATE chat.brokers SET heartbeat_at = clock_timestamp() - interval '31 seconds' WHERE broker = test.uuid(1);
SELECT is(pg_temp.write(2), true, 'the next heartbeat of the living one');
SELECT is((SELECT string_agg(user_id || ' ' || status, ', ' ORDER BY user_id) FROM chat.presence), '1 offline, 2 away, 3 offline', 'ends what the dead one left, and not who came over');
SELECT is((SELECT last_seen_at BETWEEN clock_timestamp() - interval '30 minutes' AND clock_timestamp() - interval '31 seconds' FROM chat.presence WHERE user_id = 1), true, 'they were last seen at its last heartbeat');
SELECT is(pg_temp.active(), NULL, 'its devices are gone');
SELECT is((SELECT string_agg(broker::text, ' ') FROM chat.brokers), test.uuid(2)::text, 'so is the dead one');
SELECT is(pg_temp.write(1), false, 'where it was not dead, it is told so, to say again who is there');
SELECT is(pg_temp.write(1), true, 'once');
SELECT is(chat.close_presence(test.uuid(2)), 1::bigint, 'a broker ends');
SELECT is(pg_temp.seen(), '1 offline, 2 offline, 3 offline', 'and nobody is connected to it');
SELECT is((SELECT last_seen_at > clock_timestamp() - interval '30 seconds' FROM chat.presence WHERE user_id = 2), true, 'last seen now');
SELECT is((SELECT string_agg(broker::text, ' ') FROM chat.brokers), test.uuid(1)::text, 'nor is it a broker');

-- Who may see whom
CREATE FUNCTION pg_temp.watchers(target bigint) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(id::text, ' ' ORDER BY id) FROM chat.users WHERE chat.may_see_presence(id, target)
$$;
SELECT is(pg_temp.watchers(1), '1 2 3', 'who is in a direct conversation or a group with them, and they themselves; not for a channel or a conversation that was left (threat 54)');
SELECT is(pg_temp.watchers(9), '9', 'a stranger is seen by nobody else');
SELECT is(pg_temp.watchers(999), NULL, 'nobody sees who does not exist');
SELECT is(test.ask(1, 'user.update', '{"privacy":{"presence":"contacts"}}') #>> '{user,privacy,presence}', 'contacts', 'for contacts');
SELECT is(pg_temp.watchers(1), '1 2', 'who is in a direct conversation with them');
SELECT is(test.ask(1, 'user.update', '{"privacy":{"presence":"nobody"}}') #>> '{user,privacy,presence}', 'nobody', 'for nobody');
SELECT is(pg_temp.watchers(1), '1', 'but themselves');
SELECT is(test.ask(1, 'user.update', '{"privacy":{"presence":"everyone"}}') #>> '{user,privacy,presence}', 'everyone', 'for everyone who shares a conversation');
INSERT INTO chat.blocked_users VALUES (1, 2), (3, 1);
SELECT is(pg_temp.watchers(1), '1', 'a block closes it, whoever made it');
SELECT is(pg_temp.watchers(2), '2 3', 'in both directions');
SELECT is(pg_temp.watchers(3), '2 3', 'likewise');
DELETE FROM chat.blocked_users;
UPDATE chat.users SET status = 'suspended' WHERE id = 2;
SELECT is(pg_temp.watchers(2), '2', 'a suspended account shows nothing');
UPDATE chat.users SET status = 'active' WHERE id = 2;
SELECT results_eq('SELECT ordinal FROM chat.ask_presence(''{2,9,1,1,3,2}'', ''{1,1,999,2,4,2}'')', '{1,4,6}'::int[], 'asked for many pairs, those that may');
SELECT is_empty('SELECT * FROM chat.ask_presence(''{}'', ''{}'')', 'of none, none');

-- presence.get
SELECT pg_temp.write(1, '1 online here', '2 away', '9 online') \g /dev/null
SELECT is(test.ask(1, 'presence.get', '{"users":[2,3,9,999]}') #- '{presence,0,last_seen_at}' #- '{presence,1,last_seen_at}',
	'{"presence":[{"user":2,"status":"away"},{"user":3,"status":"offline"}]}', 'those whom the caller may see; a stranger is as one who does not exist');
SELECT is(test.ask(2, 'presence.get', '{"users":[1]}') #>> '{presence,0,text}', 'here', 'with the text');
SELECT is((test.ask(2, 'presence.get', '{"users":[1]}') #>> '{presence,0,last_seen_at}')::bigint >= (extract(epoch FROM now()) * 1000)::bigint, true, 'who is there is seen now');
SELECT is((test.ask(2, 'presence.get', '{"users":[3]}') #>> '{presence,0,last_seen_at}')::bigint, 1767268800000, 'who is not, was then');
SELECT is(test.ask(9, 'presence.get', '{"users":[1,2,3,999]}'), '{"presence":[]}', 'a stranger sees nobody (threat 18)');
SELECT is(test.ask(4, 'presence.get', '{"users":[4]}'), '{"presence":[{"user":4,"status":"offline"}]}', 'who never was anywhere');
SELECT is(test.ask(1, 'presence.get', '{"users":[]}'), '{"presence":[]}', 'of nobody');
SELECT is(test.error(1, 'presence.get', bad::jsonb), refused, bad) FROM (VALUES ('{}', 'invalid_field users'), ('{"users":1}', 'invalid_field users'), ('{"users":["1"]}', 'invalid_field users'), ('{"users":[0]}', 'invalid_field users'),
	('{"users":[1],"x":1}', 'invalid_field x'), (format('{"users":[%s]}', (SELECT string_agg(i::text, ',') FROM generate_series(1, 201) i)), 'too_long users')) AS bad (bad, refused);
SELECT is(test.ask(1, 'presence.get', jsonb_build_object('users', (SELECT jsonb_agg(i) FROM generate_series(1, 200) i))) #> '{presence,2,user}', '3', '200 at once');

-- presence.set
CREATE FUNCTION pg_temp.said(users bigint[]) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(concat_ws(' ', user_id, coalesce(device_id::text, client_id), status, text), ', ' ORDER BY user_id, device_id, client_id) FROM chat.read_device_presence(users)
$$;
SELECT is(pg_temp.said('{1,2}'), '1, 2', 'nothing was said');
SELECT is(test.ask(1, 'presence.set', '{"status":"busy","text":"in a meeting"}', 11), '{}', 'a device says');
SELECT is(test.ask(1, 'presence.set', '{"status":"invisible"}', 12), '{}', 'another one');
SELECT is(test.ask(1, 'presence.set', '{"status":"away"}'), '{}', 'a connection without a device');
SELECT is(pg_temp.said('{2,1}'), '1 11 busy in a meeting, 1 12 invisible, 1 1-test away, 2', 'each for itself');
SELECT is(test.ask(1, 'presence.set', '{"status":"busy"}', 11), '{}', 'without a text');
SELECT is(test.ask(1, 'presence.set', '{"status":"online","text":"back"}', 12), '{}', 'online with one');
SELECT is(test.ask(1, 'presence.set', '{"status":"online","text":null}'), '{}', 'online without one');
SELECT is(pg_temp.said('{1}'), '1 11 busy, 1 12 online back', 'is nothing to remember');
SELECT is(test.error(1, 'presence.set', bad::jsonb), refused, left(bad, 60)) FROM (VALUES ('{}', 'invalid_field status'), ('{"status":"offline"}', 'invalid_field status'), ('{"status":null}', 'invalid_field status'), ('{"status":1}', 'invalid_field status'),
	('{"status":"away","text":""}', 'invalid_field text'), ('{"status":"away","text":1}', 'invalid_field text'), ('{"status":"away","text":"a\nb"}', 'invalid_field text'), ('{"status":"away","device":12}', 'invalid_field device'),
	(format('{"status":"away","text":"%s"}', repeat('x', 141)), 'too_long text')) AS bad (bad, refused);
SELECT is(test.ask(1, 'presence.set', jsonb_build_object('status', 'away', 'text', repeat('ä', 140)), 11), '{}', '140 characters are fine');
SELECT chat_api.call('presence.set', 2, 0, 'shell-' || i, '{"status":"away"}') FROM generate_series(1, 30) i \g /dev/null
SELECT is((SELECT count(*) FROM chat.device_presence WHERE user_id = 2), 20::bigint, 'of connections without a device the last twenty are remembered');
SELECT is((SELECT count(*) FROM chat.device_presence WHERE user_id = 2 AND client_id = 'shell-30'), 1::bigint, 'the newest among them');

-- What goes with users and devices
DELETE FROM chat.devices WHERE id = 12;
SELECT is(pg_temp.said('{1}'), '1 11 away ' || repeat('ä', 140), 'a device that is removed says nothing');
DELETE FROM chat.users WHERE id IN (2, 3);
SELECT is(pg_temp.seen(), '1 online here, 9 online', 'users who are removed are nowhere');
SELECT is((SELECT count(*) FROM chat.device_presence WHERE user_id = 2), 0::bigint, 'and say nothing');

-- Plans that were made on small tables are right for large ones: to write, to ask and to end 100 of 3,000, these are looked up.
SELECT test.users(1001, 4000);
SELECT chat.write_presence(test.uuid(3), array_agg(id), array_agg('online'::text), array_agg(NULL::text), array_agg(now()), '{}', '{}') FROM generate_series(1001, 3900) id \g /dev/null
INSERT INTO chat.conversations (id, type, first_user_id, second_user_id) SELECT id, 'direct', id, id + 1 FROM generate_series(1001, 3999) id;
INSERT INTO chat.blocked_users SELECT id, id + 3 FROM generate_series(1001, 3000) id;
INSERT INTO chat.blocked_users SELECT id, 1001 FROM generate_series(1100, 3000) id;
UPDATE chat.brokers SET heartbeat_at = 'infinity';
SELECT test.rows_read('brokers') \g /dev/null
SELECT chat.write_presence(test.uuid(4), array_agg(id), array_agg('online'::text), array_agg(NULL::text), array_agg(now()), '{}', '{}') FROM generate_series(3901, 4000) id \g /dev/null
SELECT is(test.rows_read('brokers'), 'users 100', 'written for the first time');
SELECT chat.ask_presence(array_agg(id), array_agg(id + 1)) FROM generate_series(1001, 1100) id \g /dev/null
SELECT is(test.rows_read('brokers'), 'conversation_participants 200, conversations 100, presence 100, users 100', 'a hundred who talk: no conversation but theirs');
SELECT chat.open_presence(test.uuid(4)) \g /dev/null
SELECT is(test.rows_read('brokers'), 'presence 100', 'ended');
SELECT chat.read_device_presence((SELECT array_agg(id) FROM generate_series(1001, 1100) id)) \g /dev/null
SELECT is(test.rows_read('brokers'), NULL, 'what devices said, where none did');

SELECT * FROM finish();
ROLLBACK;
