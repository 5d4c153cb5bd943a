-- All methods at once: none is without a test, and a stranger learns nothing from any of them.
BEGIN;
SELECT no_plan();

SELECT test.users(1, 9);
SELECT test.group(1, 1, 2);
SELECT test.append('[{"c":1,"s":1,"id":1,"body":"secret"}]') \g /dev/null
INSERT INTO chat.conversations (id, type, name) VALUES (2, 'channel', 'private');
INSERT INTO chat.conversation_participants (conversation_id, user_id, role) VALUES (2, 1, 'owner');
INSERT INTO chat.devices (id, user_id) VALUES (11, 1);
UPDATE chat.users SET settings = '{"privacy":{"search":false}}' WHERE id IN (1, 2);
INSERT INTO chat.reports (id, conversation_id, seq, reporter_id) OVERRIDING SYSTEM VALUE VALUES (1, 1, 1, 2);
SELECT chat.index_missed(0, 1000) \g /dev/null

-- What a stranger (user 9) might ask, and what they get. $ stands for a thing that exists and is not theirs, and then for one that does not exist:
-- the answers are the same, character by character. A method that is about nobody else's things has no $.
CREATE TEMP TABLE tried (method text, params text, things bigint[], answer text);
INSERT INTO tried VALUES
	('user.get', '{"user":$}', '{1,999}', 'not_found'),
	('user.block', '{"user":$}', '{1,999}', 'not_found'),
	('user.unblock', '{"user":$}', '{1,999}', '{}'),
	('user.search', '{"query":"user$"}', '{1,999}', '{"users":[],"more":false}'),
	('user.update', '{}', NULL, NULL),
	('user.blocked', '{}', NULL, '{"users":[],"more":false}'),
	('device.list', '{}', NULL, '{"devices":[],"more":false}'),
	('device.update', '{"device":$,"name":"x"}', '{11,999}', 'not_found device'),
	('device.remove', '{"device":$}', '{11,999}', 'not_found device'),
	('device.test_push', '{"device":$}', '{11,999}', 'not_found device'),
	('conversation.create', '{"type":"direct","members":[$]}', '{1,999}', 'not_found'),
	('conversation.create', '{"type":"group","members":[$]}', '{1,999}', 'not_found'),
	('conversation.list', '{}', NULL, '{"conversations":[],"more":false}'),
	('conversation.get', '{"conversation":$}', '{1,2,999}', 'not_found'),
	('conversation.update', '{"conversation":$,"name":"x"}', '{1,2,999}', 'not_found'),
	('conversation.members', '{"conversation":$}', '{1,2,999}', 'not_found'),
	('conversation.join', '{"conversation":$}', '{1,2,999}', 'not_found'),
	('conversation.leave', '{"conversation":$}', '{1,2,999}', 'not_found'),
	('conversation.leave', '{"conversation":$,"owner":9}', '{1,2,999}', 'not_found'),
	('conversation.add_members', '{"conversation":$,"members":[9]}', '{1,2,999}', 'not_found'),
	('conversation.remove_members', '{"conversation":$,"members":[1]}', '{1,2,999}', 'not_found'),
	('conversation.set_role', '{"conversation":$,"user":9,"role":"owner"}', '{1,2,999}', 'not_found'),
	('conversation.mute', '{"conversation":$,"muted_until":0}', '{1,2,999}', 'not_found'),
	('message.history', '{"conversation":$}', '{1,2,999}', 'not_found'),
	('message.history', '{"conversation":$,"after":0,"limit":200}', '{1,2,999}', 'not_found'),
	('message.status', '{"conversation":$,"seq":1}', '{1,2,999}', 'not_found'),
	('message.status', '{"conversation":$,"id":"00000000-0000-0000-0000-000000000001"}', '{1,2,999}', 'not_found'),
	('message.search', '{"conversation":$,"query":"secret"}', '{1,2,999}', 'not_found'),
	('moderation.report', '{"conversation":$,"seq":1}', '{1,2,999}', 'not_found'),
	('moderation.list', '{}', NULL, 'forbidden'),
	('moderation.resolve', '{"report":$,"resolution":"dismissed"}', '{1,999}', 'forbidden'),
	('moderation.suspend', '{"user":$}', '{1,999}', 'forbidden'),
	('moderation.unsuspend', '{"user":$}', '{1,999}', 'forbidden'),
	('message.search', '{"query":"secret"}', NULL, '{"hits":[],"more":false}'),
	('presence.get', '{"users":[$]}', '{1,999}', '{"presence":[]}'),
	('presence.set', '{"status":"away"}', NULL, '{}');
SELECT is(answers, ARRAY[first], format('%s %s', method, params))
FROM (SELECT method, params, min(answer) AS first, array_agg(DISTINCT answer) AS answers
	FROM (SELECT method, params, chat_api.call(method, 9, 0, 'x', replace(params, '$', thing::text)::jsonb) AS answer FROM tried, unnest(things) thing) asked GROUP BY method, params) a;
SELECT is(coalesce(test.error(9, method, replace(params, '$', coalesce(things[1], 0)::text)::jsonb), test.ask(9, method, replace(params, '$', coalesce(things[1], 0)::text)::jsonb)::text),
	CASE WHEN answer ~ '^{' THEN answer::jsonb::text ELSE answer END, format('a stranger gets that from %s %s', method, params))
FROM tried WHERE answer IS NOT NULL;
-- Cursors are the caller's own words: these come back as they are.
SELECT is(test.ask(9, 'message.sync', '{"cursors":{"1":0,"2":0,"999":0}}'), '{"conversations":[],"more":false,"gone":[1,2,999]}', 'message.sync: what is not theirs is gone as what does not exist');
INSERT INTO tried VALUES ('message.sync');
SELECT is_empty('SELECT FROM chat.conversation_participants WHERE user_id = 9', 'and the stranger is in no conversation');
SELECT is((SELECT name FROM chat.conversations WHERE id = 1), NULL, 'which nobody has renamed');

SELECT is_empty('SELECT name FROM chat_api.methods WHERE NOT native EXCEPT SELECT method FROM tried', 'no method is left out here');
SELECT is_empty('SELECT method FROM tried EXCEPT SELECT name FROM chat_api.methods', 'and none is invented');
\set files `cat "$CHAT_SQL_TESTS"/requests_[cmu]*.sql "$CHAT_SQL_TESTS"/presence.sql | base64 -w0`
SELECT is_empty(format('SELECT name FROM chat_api.methods WHERE NOT native AND strpos(%L, quote_literal(name)) = 0', convert_from(decode(:'files', 'base64'), 'UTF8')), 'each has tests of its own');
SELECT is_empty($$SELECT m.name FROM chat_api.methods m WHERE NOT native AND NOT EXISTS (SELECT FROM pg_proc
	WHERE pronamespace = 'chat_api'::regnamespace AND proname = m.function_name AND proargtypes[0] = 'chat_api.caller'::regtype AND pronargs = 2)$$, 'each has its function');
SELECT is_empty($$SELECT proname FROM pg_proc p WHERE pronamespace = 'chat_api'::regnamespace AND pronargs = 2 AND proargtypes[0] = 'chat_api.caller'::regtype AND proargtypes[1] = 'jsonb'::regtype
	AND proname <> 'own_device' AND NOT EXISTS (SELECT FROM chat_api.methods WHERE function_name = p.proname)$$, 'each such function is a method');

-- Parameters of every kind, into every method: only documented answers, and no fault.
CREATE TEMP TABLE values_tried (value text);
INSERT INTO values_tried VALUES ('null'), ('true'), ('0'), ('-1'), ('1'), ('1.5'), ('1e300'), ('9007199254740991'), ('9007199254740992'), ('""'), ('"x"'), ('"1"'), ('"direct"'), ('"owner"'), ('"''; DROP TABLE chat.users; --"'), ('"\\"'),
	('"\u202e"'), ('"%s"'), ('"2026-01-01"'), ('[]'), ('[1]'), ('[1,2,3]'), ('[null]'), ('["1"]'), ('[[1]]'), ('{}'), ('{"1":1}'), ('{"search":null}'), ('{"provider":"webpush","app":"x","subscription":{"keys":{}}}'), ('"' || repeat('😀', 5000) || '"');
CREATE TEMP TABLE names_tried (name text);
INSERT INTO names_tried SELECT DISTINCT name[1] FROM pg_proc, regexp_matches(prosrc, 'params, ''([a-z_]+)''|''([a-z_]+)''', 'g') AS name WHERE pronamespace = 'chat_api'::regnamespace AND name[1] IS NOT NULL;
INSERT INTO names_tried VALUES ('user'), ('conversation'), ('members'), ('query'), ('cursors'), ('limit'), ('after'), ('before'), ('seq'), ('id'), ('role'), ('push'), ('privacy'), ('name'), ('type'), ('nonsense');
CREATE FUNCTION pg_temp.storm(round int) RETURNS TABLE (code text) LANGUAGE plpgsql AS $$
DECLARE
	m record;
	params jsonb;
BEGIN
	FOR m IN SELECT name FROM chat_api.methods WHERE NOT native LOOP
		SELECT jsonb_object_agg(n.name, v.value::jsonb) INTO params
		FROM (SELECT name FROM names_tried ORDER BY hashtext(name || m.name || round) LIMIT 1 + round % 4) n
		CROSS JOIN LATERAL (SELECT value FROM values_tried ORDER BY hashtext(value || n.name || round) LIMIT 1) v;
		-- Half of them with a conversation that the caller owns, or nothing would come far.
		IF round % 2 = 0 THEN
			params := params || '{"conversation":1}';
		END IF;
		code := chat_api.call(m.name, 1, 11 * (round % 3 / 2), 'x', params)::jsonb #>> '{error,code}';
		RETURN NEXT;
	END LOOP;
END $$;
UPDATE chat.conversation_participants SET role = 'owner' WHERE conversation_id = 1 AND user_id = 1;
UPDATE chat.users SET moderator = true WHERE id = 1;
SELECT is_empty($$SELECT DISTINCT code FROM generate_series(1, 200) round, pg_temp.storm(round) WHERE code NOT IN
	('invalid_field', 'too_long', 'not_found', 'forbidden', 'blocked', 'conflict', 'quota_exceeded', 'unauthenticated')$$, 'thousands of senseless requests get documented answers');
SELECT is_empty('SELECT DISTINCT method, sqlstate, message, left(context, 200) FROM chat_api.faults', 'no fault');

SELECT * FROM finish();
ROLLBACK;
