-- chat_api.call: who may ask, how parameters are judged, what errors become. And the methods that read a user or a conversation.
BEGIN;
SELECT plan(52);

SELECT test.users(1, 9);
SELECT test.group(1, 1, 2);
INSERT INTO chat.devices (id, user_id) VALUES (11, 1), (12, 2), (14, 1);
INSERT INTO chat.conversations (id, type, first_user_id, second_user_id) VALUES (2, 'direct', 1, 3);
INSERT INTO chat.conversations (id, type, name, is_public) VALUES (3, 'channel', 'tv', true);
INSERT INTO chat.conversation_participants VALUES (3, 2, 'owner');

-- The caller
SELECT is(test.error(1, 'no.method'), 'not_found', 'an unknown method');
SELECT is(test.error(1, 'auth.login'), 'not_found', 'a native method is not done here');
SELECT is(test.error(99, 'user.get'), 'unauthenticated', 'an unknown user');
SELECT is(test.error(NULL, 'user.get'), 'unauthenticated', 'nobody');
SELECT is(test.error(1, 'user.get', '{}', 12), 'unauthenticated', 'a device of another user');
SELECT is(test.ask(1, 'user.get', '{}', 11) #>> '{user,id}', '1', 'a device of one''s own');
UPDATE chat.devices SET revoked_at = now() WHERE id = 11;
SELECT is(test.error(1, 'user.get', '{}', 11), 'unauthenticated', 'a device that was signed out');
UPDATE chat.users SET status = 'suspended' WHERE id = 9;
SELECT is(test.error(9, 'user.get'), 'unauthenticated', 'a suspended user');

-- Parameters
SELECT is(test.error(1, 'user.get', '[]'), 'invalid_field', 'parameters are an object');
SELECT is(test.error(1, 'user.get', '"x"'), 'invalid_field', 'not a string');
SELECT is(test.error(1, 'user.get', NULL), 'invalid_field', 'not nothing');
SELECT is(test.error(1, 'user.get', '{"usr":1}'), 'invalid_field usr', 'an unknown parameter is named');
SELECT is(test.ask(1, 'user.get', '{"user":2,"request_id":[1]}') #>> '{user,id}', '2', 'request_id is the plugin''s and passes');
SELECT is(test.error(1, 'user.update', '{"request_id":1,"privacy":{"search":true,"request_id":1}}'), 'invalid_field request_id', 'but not inside another object');
SELECT is(test.error(1, 'device.update', '{"device":14,"push":{"provider":"fcm","app":"a","token":"t","request_id":1}}'), 'invalid_field request_id', 'whichever');
SELECT is(test.error(1, 'user.get', ('{"user":' || value || '}')::jsonb), 'invalid_field user', format('user %s', value))
	FROM unnest(ARRAY['null', 'true', '"1"', '1.5', '0', '-1', '9007199254740992', '1e300', '[1]', '{}']) value;
SELECT is(test.ask(1, 'user.get', '{"user":2.0}') #>> '{user,id}', '2', '2.0 is the integer 2, as everywhere in JSON');
SELECT is(test.error(1, 'user.get', '{"user":9007199254740991}'), 'not_found', 'the largest id is one that does not exist');
SELECT is(test.error(1, 'conversation.get'), 'invalid_field conversation', 'a parameter that is missing is named');

-- Faults
CREATE FUNCTION chat_api.fault(caller chat_api.caller, params jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO chat.users (id) VALUES (77);
	IF params ? 'refuse' THEN
		PERFORM chat_api.refuse('forbidden', 'no', 'x');
	ELSIF params ? 'deadlock' THEN
		RAISE SQLSTATE '40P01';
	ELSIF params ? 'cancel' THEN
		RAISE SQLSTATE '57014';
	END IF;
	RETURN jsonb_build_object('x', 1 / 0);
END $$;
INSERT INTO chat_api.methods (name, function_name) VALUES ('test.fault', 'fault');
SELECT is(chat_api.call('test.fault', 1, 0, 'x', '{"refuse":1}')::jsonb, '{"error":{"code":"forbidden","message":"no","field":"x"}}', 'a refusal has code, message, field');
SELECT is(test.error(1, 'test.fault'), 'internal', 'a fault is internal');
SELECT ok(chat_api.call('test.fault', 1, 0, 'x', '{}') !~ 'zero', 'and says nothing of its cause');
SELECT is((SELECT count(*)::text || ' ' || min(sqlstate) || ' ' || min(message) || ' ' || min(user_id) FROM chat_api.faults WHERE method = 'test.fault' AND context ~ 'fault'),
	'2 22012 division by zero 1', 'which is on record');
SELECT is(chat_api.call('test.fault', 1, 0, 'x', '{"deadlock":1}')::jsonb #- '{error,message}', '{"error":{"code":"unavailable","retry_after_ms":1000}}', 'a deadlock that comes again and again: later');
SELECT is(chat_api.call('test.fault', 1, 0, 'x', '{"cancel":1}')::jsonb #- '{error,message}', '{"error":{"code":"overloaded","retry_after_ms":1000}}', 'the statement''s time limit: overloaded');
SELECT is_empty('SELECT FROM chat.users WHERE id = 77', 'what it did is undone');
DELETE FROM chat_api.methods WHERE name = 'test.fault';
DROP FUNCTION chat_api.fault;

-- user.get
SELECT is(test.ask(1, 'user.get', '{"user":2}'), '{"user":{"id":2,"username":"user2","display_name":"user2"}}', 'a profile');
SELECT is(test.ask(1, 'user.get'), '{"user":{"id":1,"username":"user1","display_name":"user1","privacy":{"search":true,"presence":"everyone","read_receipts":true}}}', 'one''s own, with the settings');
UPDATE chat.users SET settings = '{"privacy":{"search":false}}' WHERE id IN (2, 4);
SELECT is(test.error(1, 'user.get', '{"user":4}'), 'not_found', 'who hides is not there');
SELECT is(test.ask(1, 'user.get', '{"user":2}') #>> '{user,id}', '2', 'but for those who meet them in a group');
INSERT INTO chat.blocked_users VALUES (5, 1);
SELECT is(test.error(1, 'user.get', '{"user":5}'), 'not_found', 'nor is who has blocked the caller');
SELECT is(chat_api.call('user.get', 1, 0, 'x', '{"user":5}'), chat_api.call('user.get', 1, 0, 'x', '{"user":999}'), 'word for word as who does not exist');

-- conversation.get
SELECT is(test.ask(1, 'conversation.get', '{"conversation":1}') #- '{conversation,created_at}' #- '{conversation,joined_at}',
	'{"conversation":{"id":1,"type":"group","shows_history":false,"last_seq":0,"first_seq":1,"role":"member","unread":0,"read":0,"delivered":0}}', 'a group');
SELECT is(test.ask(1, 'conversation.get', '{"conversation":2}') #> '{conversation,peer}', '{"id":3,"username":"user3","display_name":"user3"}', 'a direct one shows the other');
SELECT is(test.ask(1, 'conversation.get', '{"conversation":3}') #- '{conversation,created_at}',
	'{"conversation":{"id":3,"type":"channel","name":"tv","public":true,"shows_history":false,"last_seq":0,"first_seq":1}}', 'a public channel is for everybody');
SELECT is(test.error(3, 'conversation.get', '{"conversation":1}'), 'not_found', 'a stranger does not see a group');
SELECT is(chat_api.call('conversation.get', 3, 0, 'x', '{"conversation":1}'), chat_api.call('conversation.get', 3, 0, 'x', '{"conversation":999}'), 'word for word as one that does not exist');
SELECT test.append('[{"c":1,"s":2,"id":1,"body":"one"},{"c":1,"s":2,"id":2,"type":"reaction","ref":1}]') \g /dev/null
SELECT test.append('[{"c":1,"s":2,"id":2,"type":"reaction","ref":1}]') \g /dev/null
SELECT is(test.ask(1, 'conversation.get', '{"conversation":1}') #>> '{conversation,unread}', '1', 'what is unread: not the reaction');
SELECT is(test.ask(1, 'conversation.get', '{"conversation":1}') #> '{conversation,last_message}',
	'{"seq":1,"id":"00000000-0000-0000-0000-000000000001","from":2,"type":"text","body":"one","sent_at":1000000}', 'the newest message: not the reaction');

-- What is null in an entry is so here too.
SELECT test.ask(1, 'conversation.create', '{"type":"group","name":"named"}') \g /dev/null
SELECT test.ask(1, 'conversation.update', format('{"conversation":%s,"name":null}', max(id))::jsonb) FROM chat.conversations \g /dev/null
SELECT is(test.ask(1, 'conversation.get', jsonb_build_object('conversation', max(id))) #> '{conversation,last_message,name}', 'null', 'a name that was taken away is told as null')
	FROM chat.conversations;
SELECT is(test.ask(1, 'conversation.leave', jsonb_build_object('conversation', max(id))), '{}', 'and gone it is') FROM chat.conversations;

-- conversation.list
SELECT is(jsonb_path_query_array(test.ask(1, 'conversation.list'), '$.conversations[*].id'), '[1, 2]', 'the caller''s conversations');
SELECT is(test.ask(4, 'conversation.list'), '{"conversations":[],"more":false}', 'of others, none');

SELECT * FROM finish();
ROLLBACK;
