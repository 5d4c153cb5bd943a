-- message.history, message.sync, message.status, message.search, and the index behind the last.
BEGIN;
SELECT no_plan();

SELECT test.users(1, 9);
SELECT test.group(1, 1, 2, 3);
INSERT INTO chat.conversations (id, type, first_user_id, second_user_id) VALUES (2, 'direct', 1, 2);
INSERT INTO chat.conversations (id, type, name, is_public) VALUES (3, 'channel', 'tv', true);
INSERT INTO chat.conversation_participants (conversation_id, user_id, role) VALUES (3, 1, 'owner');

-- Messages i … j of a sender into a conversation, with bodies "message <id>".
CREATE FUNCTION pg_temp.fill(conversation bigint, sender bigint, first int, last int, body text DEFAULT 'message ') RETURNS void LANGUAGE sql AS $$
	SELECT FROM test.append((SELECT jsonb_agg(jsonb_build_object('c', conversation, 's', sender, 'id', id, 'body', body || id)) FROM generate_series(first, last) id))
$$;
-- The numbers in an answer, and " more".
CREATE FUNCTION pg_temp.seqs(answer jsonb) RETURNS text LANGUAGE sql AS $$
	SELECT (SELECT string_agg(e ->> 'seq', ' ' ORDER BY n) FROM jsonb_array_elements(answer -> 'messages') WITH ORDINALITY AS l (e, n)) || CASE WHEN answer -> 'more' = 'true' THEN ' more' ELSE '' END
$$;
CREATE FUNCTION pg_temp.history(caller bigint, params text) RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.seqs(test.ask(caller, 'message.history', params::jsonb))
$$;
CREATE FUNCTION pg_temp.entry(caller bigint, conversation bigint, seq bigint) RETURNS jsonb LANGUAGE sql AS $$
	SELECT test.ask(caller, 'message.history', jsonb_build_object('conversation', conversation, 'after', seq - 1, 'limit', 1)) #> '{messages,0}'
$$;

-- message.history: pages
SELECT is(test.ask(1, 'message.history', '{"conversation":1}'), '{"messages":[],"more":false,"first_seq":1,"last_seq":0}', 'an empty log');
SELECT pg_temp.fill(1, 2, 1, 10);
SELECT is(pg_temp.history(1, '{"conversation":1}'), '1 2 3 4 5 6 7 8 9 10', 'oldest first');
SELECT is(pg_temp.history(1, '{"conversation":1,"limit":3}'), '8 9 10 more', 'the newest, where nothing is said');
SELECT is(pg_temp.history(1, '{"conversation":1,"limit":3,"before":8}'), '5 6 7 more', 'before a number');
SELECT is(pg_temp.history(1, '{"conversation":1,"limit":4,"before":5}'), '1 2 3 4', 'to the first');
SELECT is(test.ask(1, 'message.history', '{"conversation":1,"before":1}') - 'last_seq', '{"messages":[],"more":false,"first_seq":1}', 'before the first there is none');
SELECT is(pg_temp.history(1, '{"conversation":1,"limit":3,"after":0}'), '1 2 3 more', 'after a number');
SELECT is(pg_temp.history(1, '{"conversation":1,"limit":3,"after":7}'), '8 9 10', 'to the last');
SELECT is(test.ask(1, 'message.history', '{"conversation":1,"after":10}') -> 'messages', '[]', 'after it there is none');
SELECT is(test.ask(1, 'message.history', '{"conversation":1,"after":9007199254740991}') -> 'more', 'false', 'nor far behind it (threat 39)');
SELECT is(pg_temp.history(1, '{"conversation":1,"limit":2,"before":9007199254740991}'), '9 10 more', 'before a number that is not yet there: the newest');
SELECT is(pg_temp.entry(1, 1, 7), '{"seq":7,"id":"00000000-0000-0000-0000-000000000007","from":2,"sent_at":1000000,"type":"text","body":"message 7"}', 'an entry');
SELECT test.append('[{"c":1,"s":1,"id":11,"type":"image","body":"","reply_to":3,"extra":{"attachments":[{"key":"k"}],"mentions":[2],"meta":{"a":null}},"expires":4102444800}]');
SELECT is(pg_temp.entry(2, 1, 11), '{"seq":11,"id":"00000000-0000-0000-0000-00000000000b","from":1,"sent_at":1000000,"type":"image","body":"","reply_to":3,"expires_at":4102444800000,
	"attachments":[{"key":"k"}],"mentions":[2],"meta":{"a":null}}', 'with all that it may have, as it is delivered');
SELECT is(test.error(1, 'message.history', ('{"conversation":1,' || params || '}')::jsonb), refused, params) FROM (VALUES
	('"before":5,"after":5', 'invalid_field before'), ('"limit":0', 'invalid_field limit'), ('"limit":201', 'invalid_field limit'), ('"limit":1e9', 'invalid_field limit'), ('"before":0', 'invalid_field before'),
	('"before":-1', 'invalid_field before'), ('"after":-1', 'invalid_field after'), ('"after":1.5', 'invalid_field after'), ('"before":"8"', 'invalid_field before'), ('"x":1', 'invalid_field x')) AS bad (params, refused);

-- message.history: who
SELECT is(test.error(9, 'message.history', '{"conversation":1}'), 'not_found', 'a stranger reads nothing');
INSERT INTO chat.conversation_participants (conversation_id, user_id) VALUES (1, 4);
SELECT test.append('[{"c":1,"s":1,"id":12}]');
SELECT is(pg_temp.history(4, '{"conversation":1}'), '12', 'a new member reads from their join on (threat 58)');
SELECT is(pg_temp.history(4, '{"conversation":1,"after":0}'), '12', 'also when asking for more (threat 41)');
SELECT is(test.ask(4, 'message.history', '{"conversation":1,"before":12}') -> 'messages', '[]', 'from either side');
SELECT is(test.ask(4, 'message.history', '{"conversation":1}') -> 'first_seq', '12', 'and is told where the log begins for them');
UPDATE chat.conversations SET shows_history = true WHERE id = 1;
INSERT INTO chat.conversation_participants (conversation_id, user_id) VALUES (1, 5);
SELECT is(pg_temp.history(5, '{"conversation":1,"limit":1,"after":0}'), '1 more', 'or all of it');
DELETE FROM chat.conversation_participants WHERE user_id = 5;
SELECT is(test.error(5, 'message.history', '{"conversation":1}'), 'not_found', 'removed, they read nothing (threat 25)');
SELECT test.append('[{"c":3,"s":1,"id":1,"body":"on air"}]');
SELECT is(pg_temp.history(9, '{"conversation":3}'), '1', 'a public channel is read by anybody');
INSERT INTO chat.conversation_participants (conversation_id, user_id, role) VALUES (3, 8, 'reader');
SELECT is(pg_temp.history(8, '{"conversation":3}'), '1', 'joining does not take that away');

-- message.history: 256 KiB
SELECT pg_temp.fill(2, 1, 1, 5, repeat('x', 99990));
SELECT is(pg_temp.history(2, '{"conversation":2}'), '4 5 more', 'as many as fit an answer, never cut');
SELECT is(pg_temp.history(2, '{"conversation":2,"before":4}'), '2 3 more', 'paged');
SELECT is(pg_temp.history(2, '{"conversation":2,"after":0}'), '1 2 more', 'in both directions');
SELECT ok(octet_length(chat_api.call('message.history', 2, 0, 'x', '{"conversation":2}')) < 262144, 'in 256 KiB');
SELECT test.append(jsonb_build_array(jsonb_build_object('c', 2, 's', 1, 'id', 6, 'body', repeat('😀', 100000)), jsonb_build_object('c', 2, 's', 1, 'id', 7)));
SELECT is(pg_temp.history(2, '{"conversation":2,"before":7}'), '6 more', 'one that is longer alone comes alone');
SELECT is(char_length(pg_temp.entry(2, 2, 6) ->> 'body'), 100000, 'and whole');

-- What became of messages
SELECT test.group(4, 1, 2, 3);
SELECT pg_temp.fill(4, 1, 1, 3);
SELECT test.append('[{"c":4,"s":2,"id":4,"type":"reaction","ref":1,"body":"👍"},{"c":4,"s":3,"id":5,"type":"reaction","ref":1,"body":"👍"},{"c":4,"s":3,"id":6,"type":"reaction","ref":1,"body":"😀"}]');
SELECT is(test.outcome('[{"c":4,"s":3,"id":7,"type":"reaction","ref":1,"body":"👍"}]'), 'conflict', 'one of a kind for each user');
SELECT test.append('[{"c":4,"s":3,"id":7,"type":"reaction","ref":2,"body":"👍"},{"c":4,"s":1,"id":8,"type":"edit","ref":1,"body":"better","sent":2000},{"c":4,"s":1,"id":9,"type":"edit","ref":1,"body":"best","sent":3000}]');
SELECT is(pg_temp.entry(3, 4, 1) - '{id,from,sent_at}'::text[],
	'{"seq":1,"type":"text","body":"best","edited_at":3000000,"reactions":[{"body":"👍","count":2,"mine":true},{"body":"😀","count":1,"mine":true}]}', 'the last edit, and each reaction once for each user');
SELECT is(pg_temp.entry(1, 4, 1) -> 'reactions', '[{"body":"👍","count":2},{"body":"😀","count":1}]', 'mine are mine');
SELECT test.append('[{"c":4,"s":3,"id":10,"type":"reaction","ref":1,"body":"👍","extra":{"remove":true}}]');
SELECT is(pg_temp.entry(3, 4, 1) -> 'reactions', '[{"body":"👍","count":1},{"body":"😀","count":1,"mine":true}]', 'a reaction is taken back');
SELECT test.append('[{"c":4,"s":3,"id":11,"type":"reaction","ref":1,"body":"","extra":{"remove":true}}]');
SELECT is(pg_temp.entry(3, 4, 1) -> 'reactions', '[{"body":"👍","count":1}]', 'or all of one''s own');
SELECT is(test.outcome('[{"c":4,"s":2,"id":12,"type":"edit","ref":1,"body":"forged"},{"c":4,"s":2,"id":13,"type":"delete","ref":1,"body":""}]'), 'forbidden, forbidden',
	'others are refused');
SELECT is(pg_temp.entry(3, 4, 1) ->> 'body', 'best', 'only the author edits and deletes');
SELECT is(jsonb_path_query_array(test.ask(1, 'message.history', '{"conversation":4}'), '$.messages[*] ? (@.ref == 1 && exists(@.body)).seq'), '[]', 'entries about a message in the same answer say only that');
SELECT is(pg_temp.history(1, '{"conversation":4}'), '1 2 3 4 5 6 7 8 9 10 11', 'but each number is there');
SELECT is(pg_temp.entry(1, 4, 9) - '{id,from,sent_at}'::text[], '{"seq":9,"type":"edit","ref":1,"body":"best"}', 'about one that is not, they say all');
SELECT is(pg_temp.entry(1, 4, 8), '{"seq":8,"type":"edit","ref":1}', 'but for what a later edit has replaced');
SELECT test.append('[{"c":4,"s":1,"id":14,"type":"delete","ref":1,"body":""},{"c":4,"s":1,"id":15,"type":"text","body":"soon gone","expires":2000}]');
SELECT is(pg_temp.entry(2, 4, 1), '{"seq":1,"type":"deleted"}', 'deleted is gone');
SELECT is(pg_temp.entry(2, 4, 13), '{"seq":13,"type":"expired"}', 'expired too');
SELECT is(test.ask(2, 'conversation.get', '{"conversation":4}') #> '{conversation,last_message}', '{"seq":13,"type":"expired"}', 'in the list of conversations as well');
UPDATE chat.messages SET type = 'deleted', body = NULL, extra = NULL WHERE conversation_id = 4 AND seq = 2;
SELECT is(pg_temp.entry(2, 4, 2), '{"seq":2,"type":"deleted"}', 'one that was erased');

-- message.sync
CREATE FUNCTION pg_temp.sync(caller bigint, params text) RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' | ', (SELECT string_agg((c ->> 'id') || CASE WHEN c ? 'new' THEN ' new' ELSE '' END || ': ' || coalesce(pg_temp.seqs(c), ''), ', ' ORDER BY n) FROM jsonb_array_elements(answer -> 'conversations') WITH ORDINALITY AS l (c, n)),
		'gone ' || nullif(answer ->> 'gone', '[]'), CASE WHEN answer -> 'more' = 'true' THEN 'more' END)
	FROM test.ask(caller, 'message.sync', params::jsonb) AS answer
$$;
SELECT is(pg_temp.sync(9, '{"cursors":{}}'), '', 'nobody''s friend lacks nothing');
SELECT is(pg_temp.sync(3, '{"cursors":{"1":10,"4":13}}'), '1: 11 12', 'what is lacking, and of what is complete nothing');
SELECT is(pg_temp.sync(3, '{"cursors":{"1":12,"4":13}}'), '', 'nothing is lacking');
SELECT is(pg_temp.sync(3, '{"cursors":{"1":5,"4":13},"limit":2}'), '1: 6 7 more', 'so many of each conversation');
SELECT is(pg_temp.sync(3, '{"cursors":{"1":2,"4":10}}'), '4: 11 12 13, 1: 3 4 5 6 7 8 9 10 11 12', 'what lacks least comes first');
SELECT is(pg_temp.sync(3, '{"cursors":{"4":13},"limit":3}'), '1 new: 10 11 12 more', 'of a conversation that the device does not know, the newest');
SELECT is((test.ask(3, 'message.sync', '{"cursors":{"4":13},"limit":1}') #> '{conversations,0}') #- '{created_at}' #- '{joined_at}' #- '{messages}',
	'{"id":1,"new":true,"type":"group","shows_history":true,"role":"member","first_seq":1,"last_seq":12,"unread":12,"read":0,"delivered":0,"more":true}', 'with what it is');
SELECT is((test.ask(3, 'message.sync', '{"cursors":{"1":11,"4":13},"limit":1}') #> '{conversations,0}') #- '{messages}',
	'{"id":1,"role":"member","first_seq":1,"last_seq":12,"unread":12,"read":0,"delivered":0,"more":false}', 'of one that it knows, how far things are');
SELECT is(pg_temp.sync(3, '{"cursors":{"1":12,"4":13,"2":1,"999":7,"9007199254740991":0}}'), 'gone [2, 999, 9007199254740991]', 'what is not the caller''s, or does not exist, is gone: always the same');
SELECT is(pg_temp.sync(4, '{"cursors":{"1":0}}'), '1: 12', 'nothing from before the join');
SELECT is(pg_temp.sync(3, '{"cursors":{"1":12,"4":13,"3":0}}'), '3: 1', 'a public channel may be asked for');
SELECT is(pg_temp.sync(3, '{"cursors":{"1":9007199254740991,"4":13}}'), '', 'who is ahead lacks nothing');
SELECT is(pg_temp.sync(2, '{"cursors":{"1":12,"4":13,"2":0}}'), '2: 1 2 more', 'long entries are paged, never cut');
SELECT is((test.ask(3, 'message.sync', '{"cursors":{"1":12,"4":9}}') #> '{conversations,0,messages,0}') - '{id,from,sent_at}'::text[], '{"seq":10,"type":"reaction","ref":1}',
	'entries about messages that are gone say no more than that');
SELECT is(test.error(1, 'message.sync', params::jsonb), refused, params) FROM (VALUES ('{}', 'invalid_field cursors'), ('{"cursors":[]}', 'invalid_field cursors'), ('{"cursors":null}', 'invalid_field cursors'),
	('{"cursors":{"x":1}}', 'invalid_field cursors'), ('{"cursors":{"01":1}}', 'invalid_field cursors'), ('{"cursors":{"0":1}}', 'invalid_field cursors'), ('{"cursors":{"12345678901234567":1}}', 'invalid_field cursors'), ('{"cursors":{"1":"1"}}', 'invalid_field cursors'),
	('{"cursors":{"1":-1}}', 'invalid_field cursors'), ('{"cursors":{"1":0.5}}', 'invalid_field cursors'), ('{"cursors":{"1":1e300}}', 'invalid_field cursors'), ('{"cursors":{"1":null}}', 'invalid_field cursors'),
	('{"cursors":{},"limit":0}', 'invalid_field limit'), ('{"cursors":{},"limit":201}', 'invalid_field limit')) AS bad (params, refused);
SELECT is(test.error(1, 'message.sync', jsonb_build_object('cursors', (SELECT jsonb_object_agg(id, 1) FROM generate_series(1, 5001) id))), 'too_long cursors', 'more cursors than conversations can be');

-- A device that was away: page after page brings everything once, and the first page serves 50.
INSERT INTO chat.conversations (id, type) SELECT id, 'group' FROM generate_series(1001, 1200) id;
INSERT INTO chat.conversation_participants (conversation_id, user_id) SELECT id, member FROM generate_series(1001, 1200) id, unnest('{6,7}'::bigint[]) member;
SELECT pg_temp.fill(id, 7, 1, 50, 'a message of an ordinary length, as people write them when they have something to say: ') FROM generate_series(1001, 1200) id \g /dev/null
CREATE TEMP TABLE cursors AS SELECT jsonb_object_agg(id::text, 0) AS cursors FROM generate_series(1001, 1200) id;
CREATE TEMP TABLE got (page int, id bigint, seq bigint);
SELECT ok((SELECT octet_length(answer) BETWEEN 200000 AND 262144 AND jsonb_array_length(answer::jsonb #> '{result,conversations}') >= 50
	FROM (SELECT chat_api.call('message.sync', 6, 0, 'x', jsonb_build_object('cursors', cursors)) AS answer FROM cursors) a), 'the first page is full and serves 50 conversations');
DO $$
DECLARE
	answer jsonb;
	page int := 0;
BEGIN
	LOOP
		answer := test.ask(6, 'message.sync', jsonb_build_object('cursors', (SELECT cursors FROM cursors)));
		page := page + 1;
		INSERT INTO got SELECT page, (c ->> 'id')::bigint, (e ->> 'seq')::bigint FROM jsonb_array_elements(answer -> 'conversations') c, jsonb_array_elements(c -> 'messages') e;
		UPDATE cursors SET cursors = cursors || (SELECT coalesce(jsonb_object_agg(id::text, last), '{}') FROM (SELECT id, max(seq) AS last FROM got WHERE got.page = (SELECT max(g.page) FROM got g) GROUP BY id) newest);
		EXIT WHEN answer -> 'conversations' = '[]' OR page > 100;
	END LOOP;
END $$;
SELECT results_eq('SELECT count(*), count(DISTINCT (id, seq)), max(page) < 20 FROM got', 'VALUES (10000::bigint, 10000::bigint, true)', 'all of 10,000 messages come, each once, in few pages');

-- message.status
SELECT test.group(5, 1, 2, 3);
SELECT test.append('[{"c":5,"s":1,"id":1,"sent":5000}]');
SELECT test.mark('[{"c":5,"u":2,"read":1,"at":6000},{"c":5,"u":3,"delivered":1,"at":7000}]');
SELECT is(test.ask(1, 'message.status', '{"conversation":5,"seq":1}'), '{"seq":1,"id":"00000000-0000-0000-0000-000000000001","from":1,"sent_at":5000000,"status":"sent","more":false,"members":[
	{"user":2,"status":"read","delivered_at":6000000,"read_at":6000000},{"user":3,"status":"delivered","delivered_at":7000000}]}', 'what became of a message');
SELECT is(test.ask(1, 'message.status', '{"conversation":5,"id":"00000000-0000-0000-0000-000000000001"}') -> 'seq', '1', 'by the sender''s id');
SELECT is(test.error(2, 'message.status', '{"conversation":5,"id":"00000000-0000-0000-0000-000000000001"}'), 'not_found', 'which is nobody else''s');
SELECT is(test.ask(2, 'message.status', '{"conversation":5,"seq":1}') -> 'from', '1', 'by its number for all');
UPDATE chat.users SET settings = '{"privacy":{"read_receipts":false}}' WHERE id = 2;
SELECT is(test.ask(1, 'message.status', '{"conversation":5,"seq":1}') #> '{members,0}', '{"user":2,"status":"delivered","delivered_at":6000000}', 'who hides what they have read has got it');
SELECT is(test.ask(2, 'message.status', '{"conversation":5,"seq":1}') #>> '{members,0,status}', 'read', 'and sees as much of themself');
SELECT test.mark('[{"c":5,"u":3,"read":1,"at":7000}]');
SELECT is(test.ask(1, 'message.status', '{"conversation":5,"seq":1}') #>> '{members,1,status}', 'read', 'others see what others read');
SELECT is(test.ask(2, 'message.status', '{"conversation":5,"seq":1}') #> '{members,1}', '{"user":3,"status":"delivered","delivered_at":7000000}', 'but not who hides their own');
UPDATE chat.users SET settings = '{}' WHERE id = 2;
INSERT INTO chat.conversations (id, type, first_user_id, second_user_id) VALUES (6, 'direct', 1, 3);
SELECT test.append('[{"c":6,"s":1,"id":1,"sent":5000}]');
SELECT test.mark('[{"c":6,"u":3,"read":1,"at":6000}]');
SELECT is(test.ask(1, 'message.status', '{"conversation":6,"seq":1}') #>> '{members,0,status}', 'read', 'between two');
INSERT INTO chat.blocked_users (user_id, blocked_user_id) VALUES (3, 1);
SELECT is(test.ask(1, 'message.status', '{"conversation":6,"seq":1}') #> '{members}', '[{"user":3,"status":"sent"}]', 'nothing while a block stands between them (threat 54)');
SELECT is(test.ask(3, 'message.status', '{"conversation":6,"seq":1}') #>> '{members,0,status}', 'read', 'of the other: one''s own is no secret');
DELETE FROM chat.blocked_users WHERE user_id = 3 AND blocked_user_id = 1;
DELETE FROM chat.conversations WHERE id = 6;
SELECT is(test.ask(1, 'message.status', '{"conversation":5,"seq":1,"limit":1,"after":2}') #> '{members,0,user}', '3', 'members in pages');
SELECT is(test.error(1, 'message.status', '{"conversation":5,"seq":2}'), 'not_found', 'there is no such message');
SELECT is(test.error(4, 'message.status', '{"conversation":1,"seq":1}'), 'not_found', 'from before the join there is none');
SELECT is(test.ask(9, 'message.status', '{"conversation":3,"seq":1}') ? 'members', false, 'a channel has no receipts');
SELECT test.append('[{"c":5,"s":9,"id":7,"sent":8000}]');
SELECT is(test.ask(9, 'message.status', '{"conversation":5,"id":"00000000-0000-0000-0000-000000000007"}') - 'refused_at',
	'{"id":"00000000-0000-0000-0000-000000000007","status":"refused","sent_at":8000000,"error":{"code":"not_found"}}', 'a refusal is told to whom it was meant');
SELECT is(test.error(8, 'message.status', '{"conversation":5,"id":"00000000-0000-0000-0000-000000000007"}'), 'not_found', 'and to nobody else');
DELETE FROM chat.conversation_participants WHERE conversation_id = 5 AND user_id = 1;
SELECT is(test.ask(1, 'message.status', '{"conversation":5,"id":"00000000-0000-0000-0000-000000000001"}'),
	'{"seq":1,"id":"00000000-0000-0000-0000-000000000001","from":1,"sent_at":5000000,"status":"sent"}', 'a sender who was removed learns the fate of their message');
SELECT is(test.error(1, 'message.status', '{"conversation":5,"seq":1}'), 'not_found', 'and nothing else');
SELECT is(test.error(1, 'message.status', ('{"conversation":4' || params || '}')::jsonb), refused, params) FROM (VALUES ('', 'invalid_field id'), (',"seq":1,"id":"x"', 'invalid_field id'), (',"id":"x"', 'invalid_field id'),
	(',"id":7', 'invalid_field id'), (',"seq":0', 'invalid_field seq'), (',"seq":"1"', 'invalid_field seq'), (',"seq":null', 'invalid_field seq')) AS bad (params, refused);

-- message.search
CREATE FUNCTION pg_temp.found(caller bigint, query text, params jsonb DEFAULT '{}') RETURNS text LANGUAGE sql AS $$
	SELECT coalesce((SELECT string_agg((h ->> 'conversation') || ':' || (h ->> 'seq'), ' ' ORDER BY n) FROM jsonb_array_elements(answer -> 'hits') WITH ORDINALITY AS l (h, n)), '-') || CASE WHEN answer -> 'more' = 'true' THEN ' more' ELSE '' END
	FROM test.ask(caller, 'message.search', jsonb_build_object('query', query) || params) answer
$$;
SELECT test.group(10, 1, 2);
SELECT test.group(11, 2, 3);
SELECT test.append('[{"c":10,"s":1,"id":1,"body":"See you tomorrow, at the Café Größenwahn"},{"c":10,"s":2,"id":2,"body":"明日は東京都へ行きます"},{"c":10,"s":2,"id":3,"body":"Привет, как дела?"},
	{"c":10,"s":1,"id":4,"type":"opaque","body":"tomorrow"},{"c":10,"s":1,"id":5,"type":"image","body":"ｔｏｍｏｒｒｏｗ in full width"},{"c":11,"s":2,"id":6,"body":"tomorrow never knows"},{"c":10,"s":1,"id":7,"body":"สวัสดีครับ"},
	{"c":10,"s":1,"id":8,"body":"#11 is no number"}]');
SELECT is(pg_temp.found(1, 'tomorrow'), '-', 'what is not indexed yet is not found');
SELECT cmp_ok((chat.index_messages('{10,11}', 1000)).indexed, '=', 8, 'all of it is indexed');
SELECT is((chat.index_messages('{10,11}', 1000)).indexed, 0, 'once');
SELECT is(pg_temp.found(1, 'tomorrow'), '10:5 10:1', 'words are found in the caller''s conversations, the newest first; opaque ones are not');
SELECT is(pg_temp.found(2, 'TOMORROW'), '11:1 10:5 10:1', 'in all of them, whatever the case');
SELECT is(pg_temp.found(2, 'tomorrow', '{"conversation":10}'), '10:5 10:1', 'or in one');
SELECT is(pg_temp.found(2, 'you tomorrow'), '10:1', 'all words of the query');
SELECT is(pg_temp.found(2, 'grössenwahn'), '-', 'another spelling is another word');
SELECT is(pg_temp.found(2, 'größenwahn café'), '10:1', 'in any language');
SELECT is(pg_temp.found(2, 'привет'), '10:3', 'and script');
SELECT is(pg_temp.found(2, '東京'), '10:2', 'two characters of Japanese');
SELECT is(pg_temp.found(2, '東京都'), '10:2', 'three');
SELECT is(pg_temp.found(2, '京'), '10:2', 'one');
SELECT is(pg_temp.found(2, 'す'), '10:2', 'the last one');
SELECT is(pg_temp.found(2, '東都'), '-', 'only neighbours');
SELECT is(pg_temp.found(2, '東京 明日'), '10:2', 'two words');
SELECT is(pg_temp.found(2, 'ครับ'), '10:6', 'Thai');
SELECT is(pg_temp.found(9, 'tomorrow'), '-', 'a stranger finds nothing');
SELECT is(pg_temp.found(1, '#11'), '10:7', 'the name of a conversation is no word (threat 37)');
SELECT is(pg_temp.found(1, $q$tomorrow' | '#11$q$), '-', 'and a query no program');
SELECT is(pg_temp.found(1, query), '-', query) FROM unnest(ARRAY['never:*', '!zebra never', 'a & b', '(never', 'never\', '''never''x', '<-> never', 'x''); DROP TABLE chat.users; --']) query;
SELECT is(pg_temp.found(2, 'tomorrow', '{"limit":2}'), '11:1 10:5 more', 'in pages');
SELECT is(pg_temp.found(2, 'tomorrow', jsonb_build_object('limit', 2, 'before', test.ask(2, 'message.search', '{"query":"tomorrow","limit":2}') -> 'before')), '10:1', 'the next page');
SELECT is(test.ask(2, 'message.search', '{"query":"tomorrow see","limit":2}') #> '{hits,0}', '{"conversation":10,"seq":1,"id":"00000000-0000-0000-0000-000000000001","from":1,"sent_at":1000000,"type":"text",
	"highlight":[{"text":"See","match":true},{"text":" you "},{"text":"tomorrow","match":true},{"text":", at the Café Größenwahn"}]}', 'a hit shows what was found');
SELECT is(test.ask(2, 'message.search', '{"query":"東京"}') #> '{hits,0,highlight}', '[{"text":"明日は"},{"text":"東京","match":true},{"text":"都へ行きます"}]', 'in any script');
SELECT test.append(jsonb_build_array(jsonb_build_object('c', 10, 's', 1, 'id', 20, 'body', repeat('lorem <b>ipsum</b> ', 500) || U&'\E000needle\E001' || repeat(' dolor', 100))));
SELECT is((chat.index_missed(0, 100000)).after, -1::bigint, 'what is behind is found without being named');
SELECT is(jsonb_path_query_array(test.ask(2, 'message.search', '{"query":"needle"}'), '$.hits[0].highlight[*] ? (@.match == true).text'), '["needle"]', 'in a long text too');
SELECT cmp_ok(octet_length(test.ask(2, 'message.search', '{"query":"needle"}') #>> '{hits,0,highlight}'), '<', 600, 'of which only the surroundings are shown');
INSERT INTO chat.conversation_participants (conversation_id, user_id) VALUES (10, 4);
SELECT is(pg_temp.found(4, 'tomorrow'), '-', 'nothing from before the join');
SELECT is(pg_temp.found(4, 'tomorrow', '{"conversation":10}'), '-', 'in one as in all');
SELECT is(pg_temp.found(9, 'air', '{"conversation":3}'), '3:1', 'a public channel may be searched by anybody');
SELECT is(test.error(9, 'message.search', '{"query":"tomorrow","conversation":10}'), 'not_found', 'others'' conversations may not');
SELECT is(test.error(1, 'message.search', params::jsonb), refused, params) FROM (VALUES ('{}', 'invalid_field query'), ('{"query":""}', 'invalid_field query'), ('{"query":"..."}', 'invalid_field query'), ('{"query":"😀"}', 'invalid_field query'),
	('{"query":7}', 'invalid_field query'), ('{"query":"x","limit":51}', 'invalid_field limit'), ('{"query":"x","before":0}', 'invalid_field before'), ('{"query":"x","conversation":"10"}', 'invalid_field conversation')) AS bad (params, refused);
SELECT is(test.error(1, 'message.search', jsonb_build_object('query', repeat('x', 201))), 'too_long query', 'a query has at most 200 characters');

-- What leaves the index
SELECT test.append('[{"c":10,"s":1,"id":30,"type":"edit","ref":1,"body":"See you never"},{"c":10,"s":2,"id":31,"type":"edit","ref":5,"body":"forged"}]');
SELECT is(pg_temp.found(1, 'tomorrow'), '10:5', 'the former text is not found');
SELECT is((chat.index_messages('{10}', 1000)).indexed, 1, 'an edit');
SELECT is(pg_temp.found(1, 'never'), '10:1', 'the new one is');
SELECT is(test.ask(1, 'message.search', '{"query":"never"}') #> '{hits,0,highlight,1}', '{"text":"never","match":true}', 'and shown');
SELECT is(pg_temp.found(1, 'forged'), '-', 'another''s edit is none');
SELECT test.append('[{"c":10,"s":1,"id":32,"type":"delete","ref":1,"body":""}]');
SELECT is(pg_temp.found(1, 'never'), '-', 'a deleted message is not shown');
SELECT is_empty($$SELECT FROM chat.search_entries WHERE conversation_id = 10 AND words @@ 'never'$$, 'and leaves the index');
SELECT is((chat.index_messages('{10}', 1000)).indexed, 1, 'indexing goes on');
UPDATE chat.messages SET type = 'deleted', body = NULL WHERE conversation_id = 10 AND seq = 5;
SELECT is_empty($$SELECT FROM chat.search_entries WHERE conversation_id = 10 AND words @@ 'tomorrow'$$, 'what is erased leaves it at once');
UPDATE chat.messages SET expires_at = now() - interval '1 second' WHERE conversation_id = 10 AND seq = 3;
SELECT is(pg_temp.found(1, 'привет'), '-', 'what has expired is not found');
DELETE FROM chat.messages WHERE conversation_id = 10 AND seq = 2;
SELECT is(pg_temp.found(1, '東京'), '-', 'nor what is removed');
DELETE FROM chat.conversations WHERE id = 10;
SELECT is_empty('SELECT FROM chat.search_entries WHERE conversation_id = 10', 'with a conversation its entries go');
SELECT is_empty('SELECT FROM chat.search_positions WHERE conversation_id = 10', 'and its place');

-- The indexer in small steps, and texts that are too much for a tsvector
SELECT test.group(12, 1, 2);
SELECT pg_temp.fill(12, 1, 1, 25);
SELECT is(array_agg((chat.index_messages('{12}', 10)).indexed ORDER BY i), '{10,10,5,0}', 'ten at once') FROM generate_series(1, 4) i;
SELECT is((chat.index_messages('{999}', 10)).indexed, 0, 'a conversation that does not exist is nothing');
SELECT is((chat.index_messages('{}', 10)).indexed, 0, 'nor is none');
SELECT test.append(jsonb_build_array(jsonb_build_object('c', 12, 's', 1, 'id', 100, 'body', 'beginning ' || (SELECT string_agg(chr(131072 + i), '') FROM generate_series(1, 40000) i) || (SELECT string_agg(chr(19968 + i % 20000), '' ORDER BY i * 7919 % 50000) FROM generate_series(1, 50000) i))));
SELECT is((chat.index_messages('{12}', 10)).indexed, 10, '90,000 different characters are more than a call''s share');
SELECT is(pg_temp.found(1, 'beginning'), '12:26', 'are found by their beginning');

SELECT is_empty('SELECT DISTINCT method, sqlstate, message, left(context, 200) FROM chat_api.faults', 'no fault');
-- What costs much to index
SELECT is(chat.pair_up(line), paired, format('%s in pairs', quote_literal(line))) FROM (VALUES ('see you', 'see you'), ('', ''), ('明', ' 明 '), ('明天', ' 明天 天 '), ('明天见', ' 明天 天见 见 '),
	('at東京駅now, 明日 天', 'at 東京 京駅 駅 now,  明日 日   天 '), (E'\x01明天a\x01a', E'\x01 明天 天 a\x01a'), ('ありがとう', ' あり りが がと とう う '), ('ขอบ', ' ขอ อบ บ ')) AS lines (line, paired);
SELECT is(chat.searched_text(line), searched, format('%s as it is searched', line)) FROM (VALUES ('Ab c', 'Ab c'), ('ＡＢ', 'AB'), (U&'\FB01sh', 'fish'), (repeat('x', 10001), repeat('x', 10000))) AS lines (line, searched);
SELECT is(char_length(chat.searched_text(U&'\4E2D' || repeat(U&'\FDFA', 99999))), 10000, 'the beginning of a message is searched, however long it becomes');
SELECT ok(length(chat.search_entry(1, chat.searched_text(repeat('word ', 1999) || 'last tail'))) = 3, 'ten thousand characters of it');
SELECT test.group(91, 1, 2);
SELECT test.append((SELECT jsonb_agg(jsonb_build_object('c', 91, 's', 1, 'id', i, 'body', repeat('long ', 8000))) FROM generate_series(1, 7) i)) \g /dev/null
SELECT is((chat.index_messages('{91}', 500)).indexed, 500, 'who stops for the bytes says that there may be more');
SELECT is(indexed_seq, 3::bigint, 'a call ends with the third of 40,000 bytes') FROM chat.search_positions WHERE conversation_id = 91;
SELECT is((chat.index_messages('{91}', 500)).indexed, 500, 'the next goes on');
SELECT is((chat.index_messages('{91}', 500)).indexed, 1, 'to the end');
SELECT is((chat.index_messages('{91}', 500)).indexed, 0, 'and there is no more');
SELECT is((SELECT count(*) FROM chat.search_entries WHERE conversation_id = 91), 7::bigint, 'all are indexed then');

-- Neighbours share an entry, and are found one by one
SELECT test.group(92, 5, 6);
SELECT test.append((SELECT jsonb_agg(jsonb_build_object('c', 92, 's', 5, 'id', n, 'body', body, 'type', CASE body WHEN 'sealed words' THEN 'opaque' ELSE 'text' END) ORDER BY n) FROM unnest(ARRAY['apples and pears', 'pears', 'sealed words', 'an <b', 'unclosed tag', '> of plums', '天气好',
	'明天见', '<!-- a remark', 'İstanbul', 'ASCII_letters 100%', 'ＡＰＰＬＥＳ', 'pears & apples', 'it ends in http://x.org/', '/path/of', 'C:\temp', 'and 17 of them', 'plums']) WITH ORDINALITY AS lines (body, n))) \g /dev/null
SELECT is((chat.index_messages('{92}', 1000)).indexed, 18, 'eighteen messages');
SELECT is((SELECT string_agg(seq || ' ' || span, ', ' ORDER BY seq) FROM chat.search_entries WHERE conversation_id = 92), '8 8, 16 8, 18 2', 'are three entries');
SELECT is(pg_temp.found(5, query), hits, query) FROM (VALUES ('pears', '92:13 92:2 92:1'), ('apples', '92:13 92:12 92:1'), ('apples pears', '92:13 92:1'), ('pears plums', '-'), ('of and', '92:17'), ('sealed', '-'), ('tag', '92:5'), ('plums', '92:18 92:6'),
	('remark', '92:9'), ('<b>', '92:4'), ('明天', '92:8'), ('见天', '-'), ('天', '92:8 92:7'), ('明天 天气', '-'), ('天气', '92:7'), ('istanbul', '92:10'), ('100', '92:11'), ('LETTERS', '92:11'), ('ascii_letters', '92:11'), ('asciixletters', '-'), ('x.org path', '-'), ('C:\temp', '92:16')) AS asked (query, hits);
SELECT is(pg_temp.found(5, 'apples', '{"limit":2}'), '92:13 92:12 more', 'a page may end within an entry');
SELECT is(pg_temp.found(5, 'apples', jsonb_build_object('limit', 2, 'before', test.ask(5, 'message.search', '{"query":"apples","limit":2}') -> 'before')), '92:1', 'and the next goes on there');
UPDATE chat.conversation_participants SET first_visible_seq = 13 WHERE conversation_id = 92 AND user_id = 6;
SELECT is(pg_temp.found(6, 'pears'), '92:13', 'who sees half of it finds half of it');
UPDATE chat.messages SET type = 'deleted', body = NULL WHERE conversation_id = 92 AND seq IN (2, 6);
SELECT is(pg_temp.found(5, 'pears') || ', ' || pg_temp.found(5, 'plums'), '92:13 92:1, 92:18', 'without those that are erased');
SELECT test.append('[{"c":92,"s":5,"id":40,"type":"edit","ref":13,"body":"quinces"}]') \g /dev/null
SELECT is(pg_temp.found(5, 'pears') || ', ' || pg_temp.found(5, 'quinces'), '92:1, 92:13', 'an edited text is found');
SELECT is((SELECT string_agg(words::text, ', ') FROM chat.search_entries WHERE conversation_id = 92 AND seq = 18), '''#92'' ''17'' ''and'' ''of'' ''plums'' ''them''', 'the words of the other entry are as they were');
DELETE FROM chat.messages WHERE conversation_id = 92 AND seq BETWEEN 17 AND 18;
SELECT is((SELECT string_agg(seq || ' ' || span, ', ' ORDER BY seq) FROM chat.search_entries WHERE conversation_id = 92), '8 8, 16 8', 'an entry of which nothing is left goes');
-- The words of a message are among those of its run, whatever stands before it.
SELECT is_empty($$SELECT a, b FROM unnest(ARRAY['<', '<b', '<!--', '&amp', '&', 'a-', '-', 'http://', 'http://a.b/c?', 'x@', 'x@y.', '/', '/usr', '1e', '1.', '+', '"', '''', '\', 'ä', '明', '', 'a', U&'\0301']) a, unnest(ARRAY['b>', '-->', ';', 'b-c', '-1', 'a.b/c', 'y.z', 'usr/lib', '5', 'e5', '@y.z', '''s', 'ö', '天', U&'\0301x', 'word <i> two']) b
	WHERE tsvector_to_array(chat.search_words(chat.searched_text(b))) <@ tsvector_to_array(chat.search_words(chat.searched_text(a) || E'\n' || chat.searched_text(b))) IS NOT TRUE$$, 'no line changes the next');

-- More reactions than an answer has room for
SELECT test.group(90, 1, 2);
SELECT test.append('[{"c":90,"s":1,"id":1}]') \g /dev/null
SELECT test.append((SELECT jsonb_agg(jsonb_build_object('c', 90, 's', 1, 'id', i, 'type', 'reaction', 'ref', 1, 'body', repeat('x', 90000))) FROM generate_series(2, 7) i)) \g /dev/null
SELECT test.append((SELECT jsonb_agg(jsonb_build_object('c', 90, 's', 2, 'id', i, 'type', 'reaction', 'ref', 1, 'body', 'r' || i)) FROM generate_series(2, 61) i)) \g /dev/null
SELECT is((SELECT jsonb_agg(kind -> 'body') FROM jsonb_array_elements(pg_temp.entry(1, 90, 1) -> 'reactions') kind), (SELECT jsonb_agg('r' || i) FROM generate_series(2, 51) i),
	'50 kinds of reactions are shown, the first ones, and none that are endless');
SELECT is(jsonb_array_length(test.ask(1, 'message.history', '{"conversation":90}') -> 'messages'), 50, 'and history goes on');

SELECT * FROM finish();
ROLLBACK;
