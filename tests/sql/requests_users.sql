-- user.* and device.*
BEGIN;
SELECT no_plan();

SELECT test.users(1, 9);
SELECT test.group(1, 1, 2);
INSERT INTO chat.conversations (id, type, first_user_id, second_user_id) VALUES (2, 'direct', 1, 3);
INSERT INTO chat.devices (id, user_id, name) VALUES (11, 1, 'phone'), (12, 1, 'desk'), (21, 2, 'phone');
DELETE FROM chat.inbox_events;

-- user.update
SELECT is(test.ask(1, 'user.update', '{"display_name":"Alice Ä","picture":"https://x/y","status_text":"here"}'),
	'{"user":{"id":1,"username":"user1","display_name":"Alice Ä","picture":"https://x/y","status_text":"here","privacy":{"search":true,"presence":"everyone","read_receipts":true}}}', 'a profile is changed');
SELECT is(test.inbox(1), '{"event": "profile"}', 'which one''s other devices are told');
SELECT is(test.ask(1, 'user.update') #>> '{user,display_name}', 'Alice Ä', 'what is not given stays');
SELECT is(test.inbox(1), '{"event": "profile"}', 'and is not news');
SELECT is(test.ask(1, 'user.update', '{"display_name":null,"picture":null,"status_text":null}') #- '{user,privacy}', '{"user":{"id":1,"username":"user1","display_name":"user1"}}', 'null takes it away');
SELECT is(test.ask(1, 'user.update', '{"privacy":{"search":false}}') #> '{user,privacy}', '{"search":false,"presence":"everyone","read_receipts":true}', 'privacy');
SELECT is(test.ask(1, 'user.update', '{"privacy":{"presence":"nobody"}}') #> '{user,privacy}', '{"search":false,"presence":"nobody","read_receipts":true}', 'setting by setting');
SELECT is(test.ask(1, 'user.update', '{"privacy":{"search":true}}') #> '{user,privacy}', '{"search":true,"presence":"nobody","read_receipts":true}', 'and back');
SELECT is(test.ask(1, 'user.update', '{"privacy":{"read_receipts":false}}') #> '{user,privacy}', '{"search":true,"presence":"nobody","read_receipts":false}', 'what was read is hidden');
SELECT is(test.ask(1, 'user.update', '{"privacy":{"read_receipts":true}}') #> '{user,privacy,read_receipts}', 'true', 'and shown again');
SELECT is(test.error(1, 'user.update', ('{' || params || '}')::jsonb), refused, params) FROM (VALUES
	('"display_name":""', 'invalid_field display_name'), ('"display_name":7', 'invalid_field display_name'),
	('"display_name":" a"', 'invalid_field display_name'), ('"display_name":"a\nb"', 'invalid_field display_name'), ('"display_name":"a\u202eb"', 'invalid_field display_name'),
	('"username":"x"', 'invalid_field username'), ('"privacy":7', 'invalid_field privacy'), ('"privacy":{"x":1}', 'invalid_field x'),
	('"privacy":{"search":1}', 'invalid_field search'), ('"privacy":{"search":null}', 'invalid_field search'), ('"privacy":{"presence":"x"}', 'invalid_field presence'), ('"privacy":{"read_receipts":"no"}', 'invalid_field read_receipts'), ('"privacy":null', 'invalid_field privacy')) AS bad (params, refused);
SELECT is(test.ask(1, 'user.update', jsonb_build_object('display_name', repeat('😀', 200))) #>> '{user,display_name}', repeat('😀', 200), '200 characters are a name');
SELECT is(test.error(1, 'user.update', jsonb_build_object('display_name', repeat('a', 201))), 'too_long display_name', '201 are not');
SELECT is(test.error(1, 'user.update', jsonb_build_object('picture', repeat('a', 2001))), 'too_long picture', '2,001 characters are no picture''s address');

-- user.search
CREATE FUNCTION pg_temp.found(caller bigint, params jsonb) RETURNS text LANGUAGE sql AS $$
	SELECT (SELECT string_agg(value ->> 'id', ' ' ORDER BY n) FROM jsonb_array_elements(r -> 'users') WITH ORDINALITY AS e (value, n)) || CASE WHEN r -> 'more' = 'true' THEN ' more' ELSE '' END
	FROM test.ask(caller, 'user.search', params) r
$$;
UPDATE chat.users SET display_name = 'Zoë Müller' WHERE id = 4;
UPDATE chat.users SET display_name = '田中さくら', username = 'tanaka' WHERE id = 5;
SELECT is(pg_temp.found(2, '{"query":"ZOË m"}'), '4', 'by the beginning of a display name, whatever its case');
SELECT is(pg_temp.found(2, '{"query":"田"}'), '5', 'in any script');
SELECT is(pg_temp.found(2, '{"query":"user4"}'), '4', 'by the user name');
SELECT is(pg_temp.found(2, '{"query":"user","limit":2}'), '2 3 more', 'as many as wanted, and that there are more');
SELECT is(pg_temp.found(2, '{"query":"ser"}'), NULL, 'not by what is inside');
SELECT is(pg_temp.found(2, '{"query":"user%"}'), NULL, '% is a character');
SELECT is(pg_temp.found(2, '{"query":"user_"}'), NULL, 'so is _');
UPDATE chat.users SET status = 'suspended' WHERE id = 6;
UPDATE chat.users SET settings = '{"privacy":{"search":false}}' WHERE id = 7;
INSERT INTO chat.blocked_users VALUES (8, 2);
SELECT is(pg_temp.found(2, '{"query":"user"}'), '2 3 9 4 1', 'not: the suspended, who hides, who has blocked the caller; ordered by the name that is shown');
SELECT is(test.error(2, 'user.search', ('{' || params || '}')::jsonb), refused, params) FROM (VALUES
	('', 'invalid_field query'), ('"query":""', 'invalid_field query'), ('"query":["x"]', 'invalid_field query'), ('"query":"x","limit":0', 'invalid_field limit'), ('"query":"x","limit":51', 'invalid_field limit'),
	('"query":"' || repeat('x', 51) || '"', 'too_long query')) AS bad (params, refused);

-- user.block, user.unblock, user.blocked
DELETE FROM chat.inbox_events;
SELECT is(test.ask(1, 'user.block', '{"user":3}'), '{}', 'a user is blocked');
SELECT is(test.ask(1, 'user.block', '{"user":3}'), '{}', 'once more is as well');
SELECT is(test.inbox(1), '{"user": 3, "event": "blocked"}', 'one''s other devices are told');
SELECT is(test.inbox(3), NULL, 'who is blocked is not');
SELECT is(test.outcome('[{"c":2,"s":3,"id":1},{"c":2,"s":1,"id":1}]'), 'blocked, blocked', 'nobody posts in their direct conversation');
SELECT is(test.ask(3, 'conversation.get', '{"conversation":2}') #>> '{conversation,blocked}', 'true', 'and it says so');
SELECT is(test.error(3, 'conversation.create', '{"type":"direct","members":[1]}'), 'blocked members', 'nor opens it again');
SELECT is(test.ask(1, 'user.block', '{"user":4}'), '{}', 'another');
SELECT is(jsonb_path_query_array(test.ask(1, 'user.blocked'), '$.users[*].id'), '[3, 4]', 'the list of the blocked');
SELECT is(test.ask(1, 'user.blocked', '{"limit":1}') -> 'more', 'true', 'in pages');
SELECT is(jsonb_path_query_array(test.ask(1, 'user.blocked', '{"limit":1,"after":3}'), '$.users[*].id'), '[4]', 'the next page');
SELECT is(test.ask(3, 'user.blocked') -> 'users', '[]', 'is for who blocked alone');
SELECT is(test.ask(1, 'user.unblock', '{"user":3}'), '{}', 'unblocked');
SELECT is(test.ask(1, 'user.unblock', '{"user":3}'), '{}', 'twice is as well');
SELECT is(test.error(1, 'user.unblock', '{}'), 'invalid_field user', 'and a user must be named, also by who has blocked nobody');
SELECT is(test.outcome('[{"c":2,"s":3,"id":2}]'), 'stored 1', 'they can write again');
SELECT is(test.error(1, 'user.block', '{"user":1}'), 'invalid_field user', 'nobody blocks themself');
SELECT is(test.error(1, 'user.block', '{"user":999}'), 'not_found', 'nor who does not exist');
SELECT is(test.error(1, 'user.block', '{"user":7}'), 'not_found', 'nor who hides');
SELECT is(test.error(1, 'user.block'), 'invalid_field user', 'user is required');
INSERT INTO chat.users (id) SELECT id FROM generate_series(2001, 3000) id;
INSERT INTO chat.blocked_users SELECT 9, id FROM generate_series(2001, 3000) id;
SELECT is(test.error(9, 'user.block', '{"user":2}'), 'quota_exceeded', 'nobody blocks more than 1,000');

-- device.list, device.update
SELECT is(jsonb_path_query_array(test.ask(1, 'device.list', '{}', 11), '$.devices[*].id'), '[12, 11]', 'one''s devices, the newest first');
SELECT is(jsonb_path_query_array(test.ask(1, 'device.list', '{}', 11), '$.devices[*] ? (@.current == true).id'), '[11]', 'and which one this is');
SELECT is(test.ask(1, 'device.update', '{"name":"Phöne"}', 11) #>> '{device,name}', 'Phöne', 'this one gets a name');
SELECT is(test.ask(1, 'device.update', '{"device":12,"name":"Desk"}', 11) #>> '{device,name}', 'Desk', 'so does another');
SELECT is(test.error(1, 'device.update', '{"name":"x"}'), 'invalid_field device', 'a connection without a device names one');
SELECT is(test.error(1, 'device.update', '{"device":21,"name":"x"}'), 'not_found device', 'not another user''s');
SELECT is(test.error(1, 'device.update', '{"device":999,"name":"x"}'), 'not_found device', 'which is as one that does not exist');
SELECT is(test.error(1, 'device.update', '{"device":11,"name":null}'), 'invalid_field name', 'a name is a name');

CREATE FUNCTION pg_temp.push(caller bigint, device bigint, push jsonb) RETURNS text LANGUAGE sql AS $$
	SELECT coalesce(test.error(caller, 'device.update', jsonb_build_object('device', device, 'push', push)), 'fine')
$$;
SELECT is(pg_temp.push(1, 11, '{"provider":"fcm","app":"app","token":"abc:DEF_1-2"}'), 'fine', 'fcm');
SELECT is(test.ask(1, 'device.list') #> '{devices,1,push}', '{"provider":"fcm","app":"app"}', 'of which only provider and app are told');
SELECT is(pg_temp.push(1, 11, jsonb_build_object('provider', 'apns', 'app', 'app', 'token', repeat('aB', 32))), 'fine', 'apns');
SELECT is(pg_temp.push(2, 21, jsonb_build_object('provider', 'apns', 'app', 'app', 'token', repeat('aB', 32))), 'fine', 'an address belongs to who gave it last');
SELECT results_eq('SELECT device_id FROM chat.push_targets', 'VALUES (21::bigint)', 'and to nobody else (threat 50)');
SELECT is(pg_temp.push(1, 11, push::jsonb), refused, push) FROM (VALUES
	('7', 'invalid_field push'), ('{}', 'invalid_field provider'), ('{"provider":"x","app":"a","token":"t"}', 'invalid_field provider'),
	('{"provider":"fcm","token":"t"}', 'invalid_field app'), ('{"provider":"fcm","app":"a"}', 'invalid_field token'), ('{"provider":"fcm","app":"a","token":"a b"}', 'invalid_field token'),
	('{"provider":"fcm","app":"a","token":"t","subscription":{}}', 'invalid_field subscription'), ('{"provider":"apns","app":"a","token":"xyz"}', 'invalid_field token'),
	('{"provider":"apns","app":"a","token":"abcdef"}', 'invalid_field token'), ('{"provider":"webpush","app":"a","token":"t"}', 'invalid_field token'),
	('{"provider":"webpush","app":"a"}', 'invalid_field subscription'), ('{"provider":"webpush","app":"a","subscription":[]}', 'invalid_field subscription'),
	('{"provider":"webpush","app":"a","subscription":{"endpoint":"https://x.org/"}}', 'invalid_field subscription')) AS bad (push, refused);

-- A browser's subscription; the key is that of RFC 8291, appendix A.
CREATE FUNCTION pg_temp.subscribe(endpoint text DEFAULT 'https://fcm.googleapis.com/fcm/send/abc:123',
	p256dh text DEFAULT 'BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4', auth text DEFAULT 'BTBZMqHH6r4Tts7J_aSIgg') RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.push(1, 11, jsonb_build_object('provider', 'webpush', 'app', 'web', 'subscription',
		jsonb_build_object('endpoint', endpoint, 'expirationTime', NULL, 'keys', jsonb_build_object('p256dh', p256dh, 'auth', auth))))
$$;
SELECT is(pg_temp.subscribe(), 'fine', 'a browser''s subscription');
SELECT is((SELECT subscription FROM chat.push_targets WHERE device_id = 11),
	'{"endpoint":"https://fcm.googleapis.com/fcm/send/abc:123","keys":{"p256dh":"BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4","auth":"BTBZMqHH6r4Tts7J_aSIgg"}}', 'as it is kept');
SELECT is(pg_temp.subscribe(auth => 'BTBZMqHH6r4Tts7J_aSIgg=='), 'fine', 'padding is fine');
SELECT is(pg_temp.subscribe(endpoint => 'https://updates.push.services.mozilla.com:443/wpush/v2/x'), 'fine', 'the port that it has anyway is fine');
SELECT is(pg_temp.subscribe(endpoint => bad), 'invalid_field endpoint', 'threat 49: ' || bad) FROM unnest(ARRAY['http://example.org/x', 'https://127.0.0.1/x', 'https://169.254.169.254/x', 'https://[::1]/x',
	'https://[::ffff:10.0.0.1]/x', 'https://2130706433/x', 'https://0x7f.1/x', 'https://0177.0.0.1/x', 'https://10.1.2.3/', 'https://localhost/x', 'https://a.localhost/x', 'https://db.internal/x', 'https://printer.local/x',
	'https://example.org:6379/x', 'https://user:pw@example.org/x', 'https://user@example.org/x', 'file:///etc/passwd', 'https://example.org', 'https://example.org/a b', 'https://example.org/a#b', 'https://example.org./x',
	'https://EXAMPLE.org/x', 'https://exa_mple.org/x', 'https://example.org\@127.0.0.1/', 'ftp://example.org/', '', 'https://1.0.0.127.in-addr.arpa/', 'https://example.org/' || repeat('x', 2000)]) AS bad;
SELECT is(pg_temp.subscribe(p256dh => bad), 'invalid_field p256dh', 'threat 52: ' || left(bad, 30)) FROM unnest(ARRAY['', 'BCVx', 'BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAix4',
	'ACVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4', 'B' || repeat('A', 86), 'BP' || repeat('_', 85), '*' || repeat('A', 86), repeat('B', 10000)]) AS bad;
SELECT is(pg_temp.subscribe(auth => bad), 'invalid_field auth', 'auth ' || left(bad, 30)) FROM unnest(ARRAY['', 'BTBZMqHH6r4Tts7J_aSI', 'BTBZMqHH6r4Tts7J_aSIggAA', '!!', repeat('A', 1000)]) AS bad;
SELECT is(test.error(1, 'device.update', '{"device":11,"push":null}'), NULL, 'null ends it');
SELECT is_empty('SELECT FROM chat.push_targets WHERE device_id = 11', 'no more pushes');

-- device.test_push, device.remove
SELECT is(test.error(1, 'device.test_push', '{"device":11}'), 'conflict device', 'no test push where pushes go nowhere');
SELECT is(pg_temp.subscribe(), 'fine', 'pushes again');
SELECT is(test.ask(1, 'device.test_push', '{"device":11}'), '{}', 'a test push');
SELECT results_eq('SELECT device_id, conversation_id, state::text FROM chat.pushes', $$VALUES (11::bigint, 0::bigint, 'due')$$, 'which the notifier will find');
SELECT is(test.error(1, 'device.test_push', '{"device":21}'), 'not_found device', 'not to another user''s device');
DELETE FROM chat.inbox_events;
SELECT is(test.ask(1, 'device.remove', '{"device":11}', 12), '{}', 'a device is signed out');
SELECT is(test.inbox(1), '{"event": "device_removed", "device": 11}', 'the others are told');
SELECT is((SELECT code FROM chat.open_sessions('{1}', '{11}', false)), 'unauthenticated', 'its token is dead');
SELECT is_empty('SELECT FROM chat.push_targets WHERE device_id = 11', 'and it gets no more pushes (threat 51)');
SELECT is(jsonb_path_query_array(test.ask(1, 'device.list'), '$.devices[*].id'), '[12]', 'it is not listed');
SELECT is(test.error(1, 'device.remove', '{"device":11}'), 'not_found device', 'once');
SELECT is(test.error(1, 'device.remove', '{"device":21}'), 'not_found device', 'another user''s cannot be');
SELECT is(test.ask(1, 'device.remove', '{}', 12), '{}', 'one''s own can');

SELECT * FROM finish();
ROLLBACK;
