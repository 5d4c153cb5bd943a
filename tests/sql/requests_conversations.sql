-- conversation.*
BEGIN;
SELECT no_plan();

SELECT test.users(1, 20);
INSERT INTO chat.users (id) SELECT id FROM generate_series(101, 300) id;

-- Who is in it: "user role", ascending.
CREATE FUNCTION pg_temp.members(conversation bigint) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(user_id || ' ' || role, ', ' ORDER BY user_id) FROM chat.conversation_participants WHERE conversation_id = conversation
$$;
-- The newest entry of its log.
CREATE FUNCTION pg_temp.last(conversation bigint) RETURNS jsonb LANGUAGE sql AS $$
	SELECT extra FROM chat.messages WHERE conversation_id = conversation AND type = 'system' AND sender_id IS NULL ORDER BY seq DESC LIMIT 1
$$;
CREATE FUNCTION pg_temp.last_seq(conversation bigint) RETURNS bigint LANGUAGE sql AS 'SELECT last_seq FROM chat.conversations WHERE id = conversation';
-- Something that gives a conversation: its id, or the error.
CREATE FUNCTION pg_temp.did(caller bigint, method text, params jsonb) RETURNS text LANGUAGE sql AS $$
	SELECT coalesce(answer #>> '{result,conversation,id}', answer #>> '{result}', concat_ws(' ', answer #>> '{error,code}', answer #>> '{error,field}'))
	FROM (SELECT chat_api.call(method, caller, 0, 'x', params)::jsonb AS answer) a
$$;
-- Conversations get small numbers here.
SELECT setval(pg_get_serial_sequence('chat.conversations', 'id'), 1, false) \g /dev/null

-- conversation.create: direct
SELECT is(pg_temp.did(1, 'conversation.create', '{"type":"direct","members":[2]}'), '1', 'a direct conversation is made');
SELECT is(pg_temp.members(1), '1 member, 2 member', 'with its two members');
SELECT is(test.ask(2, 'conversation.create', '{"type":"direct","members":[1]}') #> '{conversation,peer,id}', '1', 'the other way round it is the same');
SELECT is(test.ask(2, 'conversation.create', '{"type":"direct","members":[2,1]}') #> '{created}', 'false', 'and not made again; oneself may be named');
SELECT is(test.inbox(2), '{"role": "member", "event": "added", "conversation": 1}', 'the other is told');
INSERT INTO chat.blocked_users VALUES (3, 1), (1, 4);
UPDATE chat.users SET status = 'suspended' WHERE id = 5;
UPDATE chat.users SET settings = '{"privacy":{"search":false}}' WHERE id = 6;
SELECT is(pg_temp.did(1, 'conversation.create', params::jsonb), refused, params) FROM (VALUES
	('{"type":"direct"}', 'invalid_field members'), ('{"type":"direct","members":[]}', 'invalid_field members'), ('{"type":"direct","members":[1]}', 'invalid_field members'),
	('{"type":"direct","members":[2,3]}', 'invalid_field members'), ('{"type":"direct","members":[2],"name":"x"}', 'invalid_field name'), ('{"type":"direct","members":[999]}', 'not_found'),
	('{"type":"direct","members":[3]}', 'not_found'), ('{"type":"direct","members":[4]}', 'blocked members'), ('{"type":"direct","members":[5]}', 'not_found'), ('{"type":"direct","members":[6]}', 'not_found'),
	('{"members":[2]}', 'invalid_field type'), ('{"type":"x"}', 'invalid_field type'), ('{"type":null}', 'invalid_field type'), ('{"type":"group","members":2}', 'invalid_field members'), ('{"type":"group","members":["2"]}', 'invalid_field members'),
	('{"type":"group","members":[2.5]}', 'invalid_field members'), ('{"type":"group","members":[0]}', 'invalid_field members'), ('{"type":"group","members":[2,999]}', 'not_found'), ('{"type":"group","members":[4]}', 'blocked members'),
	('{"type":"group","members":[6]}', 'not_found'), ('{"type":"group","public":true}', 'invalid_field public'), ('{"type":"group","name":""}', 'invalid_field name'), ('{"type":"channel","public":1}', 'invalid_field public'),
	('{"type":"group","x":1}', 'invalid_field x')) AS bad (params, refused);

-- group, channel
SELECT setval(pg_get_serial_sequence('chat.conversations', 'id'), 10, false) \g /dev/null
SELECT is(pg_temp.did(1, 'conversation.create', '{"type":"group","name":"Lunch","members":[2,7,2,1]}'), '10', 'a group');
SELECT is(pg_temp.members(10), '1 owner, 2 member, 7 member', 'its maker owns it');
SELECT is(pg_temp.last(10), '{"event":"created","by":1,"name":"Lunch","users":[1,2,7]}', 'its log begins with that');
SELECT is(test.ask(7, 'conversation.get', '{"conversation":10}') #> '{conversation,first_seq}', '1', 'which all of them can read');
SELECT is(test.ask(7, 'conversation.get', '{"conversation":10}') #> '{conversation,unread}', '0', 'and counts as unread for nobody');
SELECT is(pg_temp.did(1, 'conversation.create', '{"type":"channel","name":"tv","public":true,"members":[2]}'), '11', 'a channel');
SELECT is(pg_temp.members(11), '1 owner, 2 reader', 'whose members read');
SELECT is(pg_temp.last(11), '{"event":"created","by":1,"name":"tv"}', 'its log does not say who');
SELECT is(pg_temp.did(1, 'conversation.create', '{"type":"channel","name":"private"}'), '12', 'a channel is private unless it is said');
SELECT is(test.ask(1, 'conversation.get', '{"conversation":12}') #> '{conversation,public}', 'false', 'and says so');
SELECT is(pg_temp.did(1, 'conversation.create', jsonb_build_object('type', 'group', 'members', (SELECT jsonb_agg(id) FROM generate_series(101, 199) id))), '13', 'a group of 100');
SELECT is(pg_temp.did(1, 'conversation.create', jsonb_build_object('type', 'group', 'members', (SELECT jsonb_agg(id) FROM generate_series(101, 200) id))), 'quota_exceeded members', 'of 101 it is none');
SELECT is(pg_temp.did(1, 'conversation.create', jsonb_build_object('type', 'group', 'members', (SELECT jsonb_agg(id) FROM generate_series(101, 201) id))), 'too_long members', 'nor is the list any longer');
SELECT chat_api.configure('{"group_max_members":3}');
SELECT is(pg_temp.did(1, 'conversation.create', '{"type":"group","members":[2,7,8]}'), 'quota_exceeded members', 'the limit is the broker''s');
SELECT is(pg_temp.did(1, 'conversation.add_members', '{"conversation":10,"members":[8]}'), 'quota_exceeded members', 'also later');
SELECT chat_api.configure('{"group_max_members":100}');
INSERT INTO chat.conversations (id, type) SELECT id, 'group' FROM generate_series(20001, 25000) id;
INSERT INTO chat.conversation_participants (conversation_id, user_id) SELECT id, 20 FROM generate_series(20001, 25000) id;
SELECT is(pg_temp.did(20, 'conversation.create', '{"type":"group"}'), 'quota_exceeded', 'nobody is in more than 5,000 conversations (threat 42)');
SELECT is(pg_temp.did(20, 'conversation.create', '{"type":"direct","members":[7]}'), 'quota_exceeded', 'of any kind');
SELECT is(pg_temp.did(20, 'conversation.join', '{"conversation":11}'), 'quota_exceeded', 'by joining');
SELECT is(pg_temp.did(1, 'conversation.add_members', '{"conversation":10,"members":[20]}'), 'quota_exceeded members', 'by being added');

-- conversation.list
INSERT INTO chat.conversations (id, type, name) SELECT id, 'group', repeat('n', 200) FROM generate_series(5001, 5250) id;
UPDATE chat.conversations SET picture = repeat('p', 2000) WHERE id BETWEEN 5001 AND 5250;
INSERT INTO chat.conversation_participants (conversation_id, user_id) SELECT id, 8 FROM generate_series(5001, 5250) id;
SELECT is(jsonb_array_length(test.ask(8, 'conversation.list') -> 'conversations'), 50, 'conversations come 50 at once');
SELECT is(test.ask(8, 'conversation.list', '{"limit":3,"after":5010}') #>> '{conversations,2,id}', '5013', 'or as many as wanted, after that one');
SELECT is(test.ask(8, 'conversation.list', '{"limit":3,"after":5247}') -> 'more', 'false', 'to the last');
SELECT ok((SELECT octet_length(chat_api.call('conversation.list', 8, 0, 'x', '{"limit":200}')) BETWEEN 200000 AND 262144), 'never more than 256 KiB');
SELECT is(test.ask(8, 'conversation.list', '{"limit":200}') -> 'more', 'true', 'and it says that there are more');
SELECT is(test.error(8, 'conversation.list', params::jsonb), refused, params) FROM (VALUES ('{"limit":0}', 'invalid_field limit'), ('{"limit":201}', 'invalid_field limit'), ('{"after":-1}', 'invalid_field after'), ('{"after":"1"}', 'invalid_field after')) AS bad (params, refused);
WITH RECURSIVE pages AS (
	SELECT test.ask(8, 'conversation.list', '{"limit":200}') AS page
	UNION ALL SELECT test.ask(8, 'conversation.list', jsonb_build_object('limit', 200, 'after', page -> 'conversations' -> -1 -> 'id')) FROM pages WHERE page -> 'more' = 'true'
)
SELECT is((SELECT array_agg((c ->> 'id')::int) FROM pages, jsonb_array_elements(page -> 'conversations') c), (SELECT array_agg(id) FROM generate_series(5001, 5250) id), 'page after page brings each once');

-- conversation.update
SELECT is(pg_temp.did(2, 'conversation.update', '{"conversation":10,"name":"x"}'), 'forbidden', 'a member does not rename');
SELECT is(test.ask(1, 'conversation.update', '{"conversation":10,"name":"Dinner"}') #>> '{conversation,name}', 'Dinner', 'an owner does');
SELECT is(pg_temp.last(10), '{"event":"updated","by":1,"name":"Dinner"}', 'the log has it');
UPDATE chat.conversation_participants SET role = 'admin' WHERE conversation_id IN (10, 11) AND user_id = 2;
SELECT is(test.ask(2, 'conversation.update', '{"conversation":10,"picture":"p","name":null}') #- '{conversation,id}' #> '{conversation,picture}', '"p"', 'an admin too');
SELECT is((SELECT name FROM chat.conversations WHERE id = 10), NULL, 'null takes the name away');
SELECT is(pg_temp.did(2, 'conversation.update', '{"conversation":10,"shows_history":true}'), 'forbidden', 'but what newcomers read is the owner''s');
SELECT is(pg_temp.did(2, 'conversation.update', '{"conversation":11,"public":false}'), 'forbidden', 'and whether a channel is public');
SELECT is(pg_temp.did(1, 'conversation.update', '{"conversation":10,"public":true}'), 'invalid_field public', 'only a channel can be');
SELECT is(pg_temp.did(1, 'conversation.update', '{"conversation":10,"shows_history":true}'), '10', 'an owner says so');
SELECT is(pg_temp.did(1, 'conversation.update', '{"conversation":1,"name":"x"}'), 'forbidden', 'a direct one has nothing to change');
SELECT is(pg_temp.did(1, 'conversation.update', '{"conversation":10,"type":"channel"}'), 'invalid_field type', 'the type stays');
SELECT is(pg_temp.did(1, 'conversation.update', '{"conversation":10}'), '10', 'nothing to do is done');
SELECT is(pg_temp.last(10), '{"event":"updated","by":1,"shows_history":true}', 'and is no entry of the log');
SELECT is(test.ask(1, 'conversation.update', '{"conversation":11,"public":false}') #> '{conversation,public}', 'false', 'a channel is closed');
SELECT is(pg_temp.did(7, 'conversation.get', '{"conversation":11}'), 'not_found', 'and is gone for others');
SELECT is(test.ask(1, 'conversation.update', '{"conversation":11,"public":true}') #> '{conversation,public}', 'true', 'opened again');

-- conversation.members
SELECT is(jsonb_path_query_array(test.ask(7, 'conversation.members', '{"conversation":10}'), '$.members[*].id'), '[1, 2, 7]', 'members see each other');
SELECT is(test.ask(7, 'conversation.members', '{"conversation":10}') #>> '{members,0,role}', 'owner', 'with their roles');
SELECT is(test.ask(1, 'conversation.members', '{"conversation":13,"limit":2,"after":150}') #>> '{members,1,id}', '152', 'in pages');
SELECT is(pg_temp.did(7, 'conversation.members', '{"conversation":11}'), 'forbidden', 'who only reads a channel does not see who else does');
SELECT is(jsonb_array_length(test.ask(1, 'conversation.members', '{"conversation":11}') -> 'members'), 2, 'its owner does');
SELECT is(pg_temp.did(1, 'conversation.members', '{"conversation":10,"limit":201}'), 'invalid_field limit', 'at most 200 at once');

-- conversation.join
SELECT is(pg_temp.did(7, 'conversation.join', '{"conversation":11}'), '11', 'anybody joins a public channel');
SELECT is(pg_temp.did(7, 'conversation.join', '{"conversation":11}'), '11', 'once more is fine');
SELECT is(pg_temp.members(11), '1 owner, 2 admin, 7 reader', 'to read');
SELECT is(pg_temp.last(11) ->> 'event', 'updated', 'without a word in the log');
SELECT is(pg_temp.did(7, 'conversation.members', '{"conversation":11}'), 'forbidden', 'a reader does not see the others');
SELECT is(pg_temp.did(8, 'conversation.join', '{"conversation":10}'), 'not_found', 'a group is not joined');
SELECT is(pg_temp.did(8, 'conversation.join', '{"conversation":12}'), 'not_found', 'nor a private channel');
SELECT is(pg_temp.did(7, 'conversation.join', '{"conversation":10}'), '10', 'who is in is in');

-- conversation.add_members
SELECT is(test.ask(1, 'conversation.add_members', '{"conversation":10,"members":[8,2,9]}') -> 'added', '[8, 9]', 'members are added; who is there already stays');
SELECT is(pg_temp.members(10), '1 owner, 2 admin, 7 member, 8 member, 9 member', 'there they are');
SELECT is(pg_temp.last(10), '{"event":"added","by":1,"users":[8,9]}', 'the log has it');
SELECT is(test.ask(8, 'conversation.get', '{"conversation":10}') #> '{conversation,first_seq}', '1', 'they read all of it where the conversation says so');
UPDATE chat.conversations SET shows_history = false WHERE id = 10;
SELECT is(test.ask(2, 'conversation.add_members', '{"conversation":10,"members":[10],"role":"reader"}') -> 'added', '[10]', 'an admin adds a reader');
SELECT is((test.ask(10, 'conversation.get', '{"conversation":10}') #> '{conversation,first_seq}')::bigint, pg_temp.last_seq(10), 'who reads on from the entry that says they came (threat 58)');
SELECT is(test.ask(1, 'conversation.add_members', '{"conversation":10,"members":[2]}') -> 'added', '[]', 'nobody new');
SELECT is(pg_temp.last(10) -> 'users', '[10]', 'is no entry');
SELECT is(pg_temp.did(7, 'conversation.add_members', '{"conversation":10,"members":[11]}'), 'forbidden', 'a member adds nobody');
SELECT is(pg_temp.did(2, 'conversation.add_members', '{"conversation":10,"members":[11],"role":"admin"}'), 'forbidden', 'an admin no admins');
SELECT is(pg_temp.did(1, 'conversation.add_members', '{"conversation":10,"members":[11],"role":"owner"}'), 'invalid_field role', 'nobody owners');
SELECT is(pg_temp.did(1, 'conversation.add_members', '{"conversation":10,"members":[3]}'), 'blocked members', 'not who has blocked the caller, whom they know from a group') FROM test.group(30, 1, 3);
SELECT is(pg_temp.did(1, 'conversation.add_members', '{"conversation":10,"members":[999]}'), 'not_found', 'not who does not exist');
SELECT is(pg_temp.did(1, 'conversation.add_members', '{"conversation":10}'), 'invalid_field members', 'not nobody');
SELECT is(pg_temp.did(1, 'conversation.add_members', '{"conversation":1,"members":[7]}'), 'forbidden', 'not to a direct one');
SELECT is(test.ask(1, 'conversation.add_members', jsonb_build_object('conversation', 12, 'members', (SELECT jsonb_agg(id) FROM generate_series(101, 200) id))) #>> '{added,99}', '200', 'to a channel 100 at once');
SELECT is(test.ask(1, 'conversation.add_members', jsonb_build_object('conversation', 12, 'members', (SELECT jsonb_agg(id) FROM generate_series(201, 300) id))) #>> '{added,99}', '300', 'and any number');
SELECT is((SELECT role::text FROM chat.conversation_participants WHERE conversation_id = 12 AND user_id = 300), 'reader', 'who read');
SELECT is(pg_temp.last(12) ->> 'event', 'created', 'without a word in its log');

-- conversation.remove_members
DELETE FROM chat.inbox_events;
SELECT is(test.ask(2, 'conversation.remove_members', '{"conversation":10,"members":[10,9,999]}') -> 'removed', '[9, 10]', 'an admin removes members');
SELECT is(pg_temp.last(10), '{"event":"removed","by":2,"users":[9,10]}', 'the log has it');
SELECT is(test.inbox(9), '{"event": "removed", "conversation": 10}', 'who is removed is told');
SELECT is(pg_temp.did(9, 'conversation.get', '{"conversation":10}'), 'not_found', 'and sees nothing more (threat 25)');
SELECT is(test.ask(2, 'conversation.remove_members', '{"conversation":10,"members":[9]}') -> 'removed', '[]', 'nobody is removed twice');
SELECT is(pg_temp.did(2, 'conversation.remove_members', '{"conversation":10,"members":[1]}'), 'forbidden members', 'an admin removes no owner');
SELECT is(pg_temp.did(2, 'conversation.remove_members', '{"conversation":10,"members":[2]}'), 'invalid_field members', 'and goes by leaving');
SELECT is(pg_temp.did(7, 'conversation.remove_members', '{"conversation":10,"members":[8]}'), 'forbidden', 'a member removes nobody');
SELECT is(pg_temp.did(1, 'conversation.remove_members', '{"conversation":1,"members":[2]}'), 'forbidden', 'nor does one of two');
SELECT is(pg_temp.did(1, 'conversation.remove_members', '{"conversation":10}'), 'invalid_field members', 'members is required');

-- conversation.set_role
SELECT is(pg_temp.did(1, 'conversation.set_role', '{"conversation":10,"user":7,"role":"admin"}'), '10', 'an owner makes an admin');
SELECT is(pg_temp.last(10), '{"event":"role","by":1,"users":[7],"role":"admin"}', 'the log has it');
SELECT is(pg_temp.did(7, 'conversation.set_role', '{"conversation":10,"user":8,"role":"reader"}'), '10', 'an admin makes a reader');
SELECT is(pg_temp.did(7, 'conversation.set_role', '{"conversation":10,"user":8,"role":"admin"}'), 'forbidden', 'but no admin');
SELECT is(pg_temp.did(7, 'conversation.set_role', '{"conversation":10,"user":2,"role":"member"}'), 'forbidden', 'and unmakes none');
SELECT is(pg_temp.did(7, 'conversation.set_role', '{"conversation":10,"user":1,"role":"member"}'), 'forbidden', 'nor an owner');
SELECT is(pg_temp.did(7, 'conversation.set_role', '{"conversation":10,"user":7,"role":"owner"}'), 'forbidden', 'nor oneself one');
SELECT is(pg_temp.did(8, 'conversation.set_role', '{"conversation":10,"user":8,"role":"member"}'), 'forbidden', 'a reader no member');
SELECT is(pg_temp.did(1, 'conversation.set_role', '{"conversation":10,"user":1,"role":"admin"}'), 'forbidden role', 'the last owner stays one (threat 59)');
SELECT is(pg_temp.did(1, 'conversation.set_role', '{"conversation":10,"user":7,"role":"owner"}'), '10', 'there can be two');
SELECT is(pg_temp.did(7, 'conversation.set_role', '{"conversation":10,"user":1,"role":"admin"}'), '10', 'and the other be none');
SELECT is(pg_temp.members(10), '1 admin, 2 admin, 7 owner, 8 reader', 'so it is');
SELECT is(pg_temp.did(7, 'conversation.set_role', '{"conversation":10,"user":9,"role":"member"}'), 'not_found user', 'who is no member has no role');
SELECT is(pg_temp.did(7, 'conversation.set_role', '{"conversation":10,"user":8,"role":"king"}'), 'invalid_field role', 'there are four roles');
SELECT is(pg_temp.did(1, 'conversation.set_role', '{"conversation":1,"user":2,"role":"reader"}'), 'forbidden', 'a direct one has none');

-- conversation.leave
SELECT is(pg_temp.did(7, 'conversation.leave', '{"conversation":10}'), 'forbidden owner', 'the last owner does not leave (threat 59)');
SELECT is(pg_temp.did(7, 'conversation.leave', '{"conversation":10,"owner":9}'), 'not_found owner', 'without an heir who is there');
SELECT is(pg_temp.did(7, 'conversation.leave', '{"conversation":10,"owner":7}'), 'not_found owner', 'and is another');
SELECT is(pg_temp.did(1, 'conversation.leave', '{"conversation":10,"owner":2}'), 'forbidden', 'an admin names none');
SELECT is(pg_temp.did(7, 'conversation.leave', '{"conversation":10,"owner":2}'), '{}', 'naming one they can');
SELECT is(pg_temp.members(10), '1 admin, 2 owner, 8 reader', 'so it is');
SELECT is(pg_temp.last(10), '{"event":"left","by":7}', 'the log has it');
SELECT is((SELECT extra FROM chat.messages WHERE conversation_id = 10 AND seq = pg_temp.last_seq(10) - 1), '{"event":"role","by":7,"users":[2],"role":"owner"}', 'and who owns it now');
SELECT is(pg_temp.did(7, 'conversation.leave', '{"conversation":10}'), 'not_found', 'once');
SELECT is(pg_temp.did(8, 'conversation.leave', '{"conversation":10}'), '{}', 'others leave as they like');
SELECT is(pg_temp.did(1, 'conversation.leave', '{"conversation":10}'), '{}', 'all of them');
SELECT is(pg_temp.did(2, 'conversation.leave', '{"conversation":10}'), '{}', 'the last one too');
SELECT is_empty('SELECT FROM chat.conversations WHERE id = 10', 'and nothing is left of it');
SELECT is(pg_temp.did(1, 'conversation.leave', '{"conversation":1}'), 'forbidden', 'nobody leaves a direct one');
SELECT is(pg_temp.did(7, 'conversation.leave', '{"conversation":11}'), '{}', 'a channel is left without a word');
SELECT is(pg_temp.did(7, 'conversation.leave', '{"conversation":11}'), 'forbidden', 'by its members');

-- conversation.mute
SELECT is(test.ask(1, 'conversation.mute', '{"conversation":1,"muted_until":0}') #> '{conversation,muted_until}', '0', 'muted for ever');
SELECT is(test.inbox(1) ~ '"changed"', true, 'one''s other devices are told');
SELECT is(test.ask(2, 'conversation.get', '{"conversation":1}') #> '{conversation,muted_until}', NULL, 'the other''s business it is not');
SELECT is(test.ask(1, 'conversation.mute', '{"conversation":1,"muted_until":4102444800000}') #> '{conversation,muted_until}', '4102444800000', 'until a time');
SELECT is(test.ask(1, 'conversation.mute', '{"conversation":1,"muted_until":1000}') #> '{conversation,muted_until}', NULL, 'which may be over');
SELECT is(test.ask(1, 'conversation.mute', '{"conversation":1,"muted_until":253402300799999}') #> '{conversation,muted_until}', '253402300799999', 'or far away');
SELECT is(test.ask(1, 'conversation.mute', '{"conversation":1,"muted_until":null}') #> '{conversation,muted_until}', NULL, 'or not at all');
SELECT is(pg_temp.did(1, 'conversation.mute', '{"conversation":1}'), 'invalid_field muted_until', 'it must be said');
SELECT is(pg_temp.did(1, 'conversation.mute', '{"conversation":1,"muted_until":-1}'), 'invalid_field muted_until', 'not before the epoch');
SELECT is(pg_temp.did(8, 'conversation.mute', '{"conversation":11,"muted_until":0}'), 'forbidden', 'only members mute');

-- Made in a day
SELECT test.users(700, 700);
INSERT INTO chat.creations VALUES (700, (now() AT TIME ZONE 'UTC')::date, 499);
SELECT ok(test.ask(700, 'conversation.create', '{"type":"group","name":"x"}') IS NOT NULL, 'the last one of the day');
SELECT is(test.error(700, 'conversation.create', '{"type":"channel","name":"x"}'), 'quota_exceeded', 'no more of them');
UPDATE chat.creations SET day = day - 1 WHERE user_id = 700;
SELECT ok(test.ask(700, 'conversation.create', '{"type":"group","name":"x"}') IS NOT NULL, 'until another day');

-- Handed over in a day: who names somebody else the owner and leaves fills the other's list, not their own (threat 42).
SELECT test.users(710, 712);
SELECT setval(pg_get_serial_sequence('chat.conversations', 'id'), 7000) \g /dev/null
SELECT test.ask(710, 'conversation.create', '{"type":"group","members":[711,712]}') FROM generate_series(1, 3) \g /dev/null
INSERT INTO chat.creations VALUES (710, (now() AT TIME ZONE 'UTC')::date, 3, 48) ON CONFLICT (user_id) DO UPDATE SET handovers = 48;
SELECT is(pg_temp.did(710, 'conversation.set_role', '{"conversation":7001,"user":711,"role":"owner"}'), '7001', 'the last but one of the day');
SELECT is(pg_temp.did(710, 'conversation.set_role', '{"conversation":7001,"user":711,"role":"owner"}'), '7001', 'once is once');
SELECT is(pg_temp.did(710, 'conversation.leave', '{"conversation":7001,"owner":712}'), '{}', 'the last one');
SELECT is(pg_temp.did(710, 'conversation.leave', '{"conversation":7002,"owner":711}'), 'quota_exceeded owner', 'no more of them');
SELECT is(pg_temp.did(710, 'conversation.set_role', '{"conversation":7002,"user":711,"role":"owner"}'), 'quota_exceeded role', 'either way');
SELECT is(pg_temp.members(7002), '710 owner, 711 member, 712 member', 'so it stays');
SELECT is(pg_temp.did(710, 'conversation.set_role', '{"conversation":7002,"user":711,"role":"admin"}'), '7002', 'other roles are not counted');
SELECT is((SELECT conversations || ' ' || handovers FROM chat.creations WHERE user_id = 710), '3 50', 'nor is what was refused');
UPDATE chat.creations SET day = day - 1 WHERE user_id = 710;
SELECT is(pg_temp.did(710, 'conversation.leave', '{"conversation":7002,"owner":711}'), '{}', 'until another day');
SELECT is((SELECT conversations || ' ' || handovers FROM chat.creations WHERE user_id = 710), '0 1', 'on which all is counted anew');

-- A log too long to go with the request goes in pieces.
SELECT test.users(720, 721);
INSERT INTO chat.conversations (id, type, is_public) SELECT 7100 + n, 'channel', true FROM generate_series(1, 2) n;
INSERT INTO chat.conversation_participants (conversation_id, user_id, role) VALUES (7101, 720, 'owner'), (7102, 720, 'owner');
INSERT INTO chat.messages (conversation_id, seq, ordinal, sender_id, client_id, content_hash, type, body)
SELECT 7101, seq, seq, 720, test.uuid(seq), test.uuid(0), 'text', 'long ago' FROM generate_series(1, 10001) seq;
UPDATE chat.conversations SET last_seq = 10001, last_ordinal = 10001 WHERE id IN (7101, 7102);
SELECT chat.index_messages('{7101}', 20000) \g /dev/null
SELECT is(pg_temp.did(720, 'conversation.leave', jsonb_build_object('conversation', id)), '{}', 'the last one leaves') FROM unnest(ARRAY[7101, 7102]) id;
SELECT is(pg_temp.did(721, method, '{"conversation":7101}'), 'not_found', method || ': to everybody it is gone')
	FROM unnest(ARRAY['conversation.get', 'conversation.join', 'message.history']) method;
INSERT INTO chat.conversation_participants (conversation_id, user_id, role) VALUES (7102, 721, 'owner');
SELECT is(chat.remove_abandoned(6000), 6000, 'a piece');
SELECT is((SELECT count(*) FROM chat.messages WHERE conversation_id = 7101), 4001::bigint, 'the rest is there');
SELECT is((SELECT sum(span) FROM chat.search_entries WHERE conversation_id = 7101), 4001::bigint, 'and can be found');
SELECT is(chat.remove_abandoned(6000), 4001, 'the other piece');
SELECT is(chat.remove_abandoned(6000), 1, 'and the conversation');
SELECT is_empty('SELECT FROM chat.conversations WHERE id = 7101', 'nothing is left of it');
SELECT is(chat.remove_abandoned(6000), 1, 'where an administrator has brought somebody in');
SELECT is(pg_temp.members(7102), '721 owner', 'all stays');
SELECT is(chat.remove_abandoned(6000), 0, 'that was all');

SELECT is_empty('SELECT DISTINCT method, sqlstate, message, left(context, 200) FROM chat_api.faults', 'no fault');
SELECT * FROM finish();
ROLLBACK;
