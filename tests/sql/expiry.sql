-- What expires, what is too old, and who is mentioned.
BEGIN;
SELECT no_plan();

SELECT test.users(1, 9);
SELECT test.group(1, 1, 2, 3);
UPDATE chat.conversation_participants SET role = 'owner' WHERE user_id = 1;
CREATE FUNCTION pg_temp.entry(caller bigint, conversation bigint, seq bigint) RETURNS jsonb LANGUAGE sql AS $$
	SELECT test.ask(caller, 'message.history', jsonb_build_object('conversation', conversation, 'after', seq - 1, 'limit', 1)) #> '{messages,0}'
$$;
CREATE FUNCTION pg_temp.kept(conversation bigint, number bigint) RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' ', type, body, extra, reply_to) FROM chat.messages WHERE conversation_id = conversation AND seq = number
$$;
CREATE FUNCTION pg_temp.found(caller bigint, query text) RETURNS text LANGUAGE sql AS $$
	SELECT coalesce(string_agg(hit ->> 'seq', ' '), '-') FROM jsonb_array_elements(test.ask(caller, 'message.search', jsonb_build_object('query', query)) -> 'hits') hit
$$;
CREATE FUNCTION pg_temp.get(caller bigint, conversation bigint, field text) RETURNS jsonb LANGUAGE sql AS $$
	SELECT test.ask(caller, 'conversation.get', jsonb_build_object('conversation', conversation)) -> 'conversation' -> field
$$;
CREATE FUNCTION pg_temp.sync(caller bigint, conversation bigint, cursor bigint) RETURNS jsonb LANGUAGE sql AS $$
	SELECT c FROM jsonb_array_elements(test.ask(caller, 'message.sync', jsonb_build_object('limit', 2, 'cursors', jsonb_build_object(conversation::text, cursor))) -> 'conversations') c
	WHERE c -> 'id' = to_jsonb(conversation)
$$;
CREATE FUNCTION pg_temp.seconds_from_now(seconds bigint) RETURNS bigint LANGUAGE sql AS $$ SELECT (extract(epoch FROM now()) + seconds)::bigint $$;

-- Expired: hidden by the clock, then erased
SELECT test.append(jsonb_build_array(jsonb_build_object('c', 1, 's', 1, 'id', 1, 'body', 'fleeting words', 'extra', '{"mentions":[2]}'::jsonb, 'expires', pg_temp.seconds_from_now(60)), '{"c":1,"s":1,"id":2,"body":"lasting words"}'::jsonb)) \g /dev/null
SELECT chat.index_messages('{1}', 100) \g /dev/null
SELECT is(test.outcome('[{"c":1,"s":1,"id":3,"type":"edit","ref":1,"body":"fleeting thoughts"},{"c":1,"s":2,"id":4,"type":"reaction","ref":1,"body":"👍"}]'), 'stored 3, stored 4', 'while it is there it is edited and reacted to');
SELECT is(pg_temp.get(2, 1, 'mentions'), NULL, 'who has answered has read the mention');
UPDATE chat.participant_watermarks SET read_seq = 0, read_ordinal = 0 WHERE user_id = 2;
SELECT is(pg_temp.get(2, 1, 'mentions'), '1', 'who has not, has not');
SELECT is(chat.sweep(500), 0, 'nothing has expired');
UPDATE chat.messages SET expires_at = now() - interval '1 second' WHERE conversation_id = 1 AND seq = 1;
UPDATE chat.mentions SET expires_at = now() - interval '1 second';
SELECT is(pg_temp.entry(2, 1, 1), '{"seq":1,"type":"expired"}', 'what has expired is not shown');
SELECT is(pg_temp.entry(2, 1, 3) || pg_temp.entry(2, 1, 4), '{"seq":4,"type":"reaction","ref":1}', 'nor what is about it');
SELECT results_eq('SELECT seq, type, body, sender_id FROM chat.read_messages(1, 1, 4) WHERE seq <> 2', $$VALUES (1::bigint, 'expired', NULL::text, NULL::bigint), (3, 'edit', NULL, 1), (4, 'reaction', NULL, 2)$$, 'nor delivered');
SELECT is(pg_temp.found(2, 'fleeting'), '-', 'nor found');
SELECT is(test.error(2, 'message.status', '{"conversation":1,"seq":1}'), 'not_found', 'nor does it have a status');
SELECT is(pg_temp.get(2, 1, 'mentions'), NULL, 'nor counted as a mention');
SELECT is(test.outcome('[{"c":1,"s":1,"id":5,"type":"edit","ref":1,"body":"x"},{"c":1,"s":2,"id":6,"type":"reaction","ref":1,"body":"x"},{"c":1,"s":1,"id":7,"type":"delete","ref":1}]'), 'not_found, not_found, not_found', 'nor is there anything to change');
SELECT is(pg_temp.kept(1, 3), 'edit fleeting thoughts', 'until the sweeper comes it is in the table');
SELECT is(chat.sweep(500), 1, 'the sweeper');
SELECT is(pg_temp.kept(1, 1) || ', ' || pg_temp.kept(1, 3), 'expired, edit', 'erases it and its edits');
SELECT is(pg_temp.entry(2, 1, 1), '{"seq":1,"type":"expired"}', 'it is shown as before');
SELECT is_empty($$SELECT FROM chat.search_entries WHERE words @@ 'fleeting'$$, 'and has left the index');
SELECT is_empty('SELECT FROM chat.mentions', 'and the mentions');
SELECT is(chat.sweep(500), 0, 'once');
SELECT is(test.outcome('[{"c":1,"s":1,"id":1}]'), 'duplicate 1', 'a resend is still answered');
SELECT is(pg_temp.found(2, 'lasting'), '2', 'what lasts is found');

-- The sweeper's bounds
SELECT test.group(2, 1, 2);
SELECT test.append((SELECT jsonb_agg(jsonb_build_object('c', 2, 's', 1, 'id', i, 'body', 'word', 'expires', 2000)) FROM generate_series(1, 1200) i)) \g /dev/null
SELECT is(array_agg(chat.sweep(wanted) ORDER BY i), '{100,500,500,100,0}', 'never more than 500 at once') FROM unnest('{100,500,10000,500,500}'::int[]) WITH ORDINALITY AS w (wanted, i);
SELECT is((SELECT count(*) FROM chat.messages WHERE conversation_id = 2 AND type = 'expired' AND body IS NULL), 1200::bigint, 'all are erased in the end');
SELECT test.append((SELECT jsonb_agg(jsonb_build_object('c', 2, 's', 1, 'id', 2000 + i, 'body', repeat('x', 400000), 'expires', 2000)) FROM generate_series(1, 6) i)) \g /dev/null
SELECT is(array_agg(chat.sweep(500)), '{3,3,0}', 'nor much more than a megabyte') FROM generate_series(1, 3);
SELECT test.connect('other') \g /dev/null
SELECT is(test.run('other', 'SELECT chat.claim_sweep()'), 'f', 'nor two at the same time');

-- A conversation's own rule
SELECT is(test.ask(1, 'conversation.update', '{"conversation":1,"expires_in":3600}') #> '{conversation,expires_in}', '3600', 'a conversation that forgets');
SELECT is(pg_temp.entry(2, 1, (pg_temp.get(2, 1, 'last_seq'))::bigint) - '{seq,sent_at}'::text[], '{"type":"system","event":"updated","by":1,"expires_in":3600}', 'everybody is told');
SELECT results_eq($$SELECT code, expires_at FROM test.append('[{"c":1,"s":2,"id":10,"sent":1000}]')$$, 'VALUES (NULL::text, to_timestamp(4600))', 'a message that names no expiry gets one, and the plugin is told');
SELECT results_eq($$SELECT expires_at FROM test.append('[{"c":1,"s":2,"id":11,"sent":1000,"expires":1060},{"c":1,"s":2,"id":12,"sent":2000}]')$$, 'VALUES (to_timestamp(1060)), (to_timestamp(5600))', 'one that does keeps it; in a batch too');
SELECT results_eq($$SELECT expires_at FROM test.append('[{"c":1,"s":2,"id":13,"sent":1000},{"c":1,"s":2,"id":14,"type":"reaction","ref":2,"body":"x"},{"c":1,"s":9,"id":15}]')$$, 'VALUES (to_timestamp(4600)), (NULL), (NULL)', 'and in one that is looked at message by message');
SELECT results_eq($$SELECT expires_at FROM chat.settle_messages('{1,1}', '{2,2}', ARRAY[test.uuid(10), test.uuid(14)], ARRAY[test.uuid(0), test.uuid(0)], ARRAY[to_timestamp(1000), to_timestamp(1000)])$$, 'VALUES (to_timestamp(4600)), (NULL)', 'and afterwards');
SELECT is(test.ask(1, 'conversation.update', '{"conversation":1,"expires_in":null}') #> '{conversation,expires_in}', NULL, 'and one that does so no more');
SELECT results_eq($$SELECT expires_at FROM test.append('[{"c":1,"s":2,"id":16}]')$$, 'VALUES (NULL::timestamptz)', 'keeps what comes then');
SELECT is(test.error(2, 'conversation.update', '{"conversation":1,"expires_in":60}'), 'forbidden', 'a member changes nothing');
SELECT is(test.error(1, 'conversation.update', ('{"conversation":1,"expires_in":' || v || '}')::jsonb), 'invalid_field expires_in', v) FROM unnest(ARRAY['0', '-1', '31536001', '1.5', '"1"']) v;
SELECT is(test.ask(3, 'conversation.create', '{"type":"group","members":[4],"expires_in":60}') #> '{conversation,expires_in}', '60', 'from the beginning');
INSERT INTO chat.conversations (id, type, first_user_id, second_user_id) VALUES (3, 'direct', 1, 2);
SELECT is(test.ask(2, 'conversation.update', '{"conversation":3,"expires_in":60}') #> '{conversation,expires_in}', '60', 'either of two');
SELECT is(test.error(2, 'conversation.update', '{"conversation":3,"expires_in":60,"name":"x"}'), 'forbidden', 'who change nothing else');
SELECT is(test.error(9, 'conversation.update', '{"conversation":3,"expires_in":60}'), 'not_found', 'and nobody from outside');
INSERT INTO chat.blocked_users VALUES (1, 2);
SELECT is(test.error(2, 'conversation.update', '{"conversation":3,"expires_in":61}'), 'blocked', 'nor who is blocked');
SELECT throws_ok('UPDATE chat.conversations SET expires_in = 0', '23514', NULL, 'nor is nonsense taken from psql');

-- Retention
SELECT test.group(10, 1, 2, 3);
SELECT test.append((SELECT jsonb_agg(jsonb_build_object('c', 10, 's', 1, 'id', i, 'body', 'old' || i) || CASE WHEN i = 2 THEN '{"extra":{"mentions":[2]}}' ELSE '{}' END::jsonb) FROM generate_series(1, 10) i)) \g /dev/null
SELECT test.append('[{"c":10,"s":2,"id":11,"type":"reaction","ref":3,"body":"👍"},{"c":10,"s":1,"id":12,"type":"edit","ref":4,"body":"old edited"},{"c":10,"s":1,"id":13,"body":"young"}]') \g /dev/null
UPDATE chat.participant_watermarks SET read_seq = 1, read_ordinal = 1 WHERE conversation_id = 10 AND user_id = 2;
UPDATE chat.messages SET committed_at = now() - interval '31 days' WHERE conversation_id = 10 AND seq <= 8;
UPDATE chat.messages SET committed_at = now() - interval '29 days' WHERE conversation_id = 10 AND seq > 8;
SELECT chat.index_messages('{10}', 100) \g /dev/null
SELECT results_eq($$SELECT pg_temp.get(u, 10, 'unread')::int, pg_temp.get(u, 10, 'mentions')::int FROM unnest('{2,3}'::int[]) u$$, 'VALUES (10, 1), (11, NULL)', 'before');
SELECT is(chat.trim_logs(0, 0, 500), -1::bigint, 'off');
SELECT is(chat.trim_logs(30, 9, 3), 9::bigint, 'a part of the log');
SELECT is((SELECT first_seq FROM chat.conversations WHERE id = 10), 4::bigint, 'is gone');
SELECT is(chat.trim_logs(30, 9, 500), 9::bigint, 'what else is too old');
SELECT results_eq('SELECT first_seq, last_seq, last_ordinal, removed_ordinal FROM chat.conversations WHERE id = 10', 'VALUES (9::bigint, 13::bigint, 11::bigint, 8::bigint)', 'goes too');
SELECT is(chat.trim_logs(30, 9, 500), -1::bigint, 'and then nothing more');
SELECT is((SELECT string_agg(seq::text, ' ' ORDER BY seq) FROM chat.messages WHERE conversation_id = 10), '9 10 11 12 13', 'a whole beginning, and nothing else');
SELECT is(pg_temp.kept(10, 12), 'edit', 'an edit of what is gone says nothing');
SELECT is(test.ask(2, 'message.history', '{"conversation":10,"after":0,"limit":1}') - 'messages', '{"more":true,"first_seq":9,"last_seq":13}', 'history begins there');
SELECT is((SELECT jsonb_agg(e - '{id,from,sent_at,body}'::text[]) FROM jsonb_array_elements(test.ask(2, 'message.history', '{"conversation":10}') -> 'messages') e),
	'[{"seq":9,"type":"text"},{"seq":10,"type":"text"},{"seq":11,"type":"reaction","ref":3},{"seq":12,"type":"edit","ref":4},{"seq":13,"type":"text"}]', 'with all that is there');
SELECT is((SELECT jsonb_agg(e -> 'seq') FROM jsonb_array_elements(pg_temp.sync(3, 10, 2) -> 'messages') e), '[9,10]', 'a cursor from before goes on from there');
SELECT is(pg_temp.sync(3, 10, 2) -> 'first_seq', '9', 'and is told so');
SELECT is(test.error(1, 'message.status', '{"conversation":10,"seq":8}'), 'not_found', 'what is gone has no status');
SELECT is(pg_temp.found(2, 'old3'), '-', 'and is not found');
SELECT is(pg_temp.found(2, 'old9'), '9', 'what is left is');
SELECT results_eq($$SELECT pg_temp.get(u, 10, 'unread')::int, pg_temp.get(u, 10, 'mentions')::int FROM unnest('{2,3}'::int[]) u$$, 'VALUES (3, NULL::int), (3, NULL)', 'unread is what is left of it');
SELECT is(test.marked('[{"c":10,"u":3,"read":5}]'), '5/5 changed', 'a mark from before');
SELECT is(pg_temp.get(3, 10, 'unread'), '3', 'changes nothing');
SELECT is(test.marked('[{"c":10,"u":3,"read":9}]'), '9/9 changed', 'one of what is there');
SELECT is(pg_temp.get(3, 10, 'unread'), '2', 'does');
SELECT is(test.outcome('[{"c":10,"s":2,"id":20,"type":"reaction","ref":8,"body":"x"},{"c":10,"s":2,"id":21}]'), 'invalid_field, stored 14', 'numbers go on');
UPDATE chat.messages SET committed_at = now() - interval '31 days' WHERE conversation_id = 10;
SELECT is(chat.trim_logs(30, 9, 500), 9::bigint, 'all of a log');
SELECT is(test.ask(2, 'message.history', '{"conversation":10}'), '{"messages":[],"more":false,"first_seq":15,"last_seq":14}', 'leaves it empty');
SELECT is(pg_temp.get(3, 10, 'unread'), '0', 'with nothing to read');
SELECT is(test.outcome('[{"c":10,"s":2,"id":22}]'), 'stored 15', 'and the numbers never begin again');
SELECT is(pg_temp.sync(3, 10, 14) -> 'unread', '1', 'nor do the counts');

-- Which logs, how much
INSERT INTO chat.conversations (id, type) SELECT id, 'group' FROM generate_series(101, 700) id;
INSERT INTO chat.conversation_participants (conversation_id, user_id) SELECT id, 1 FROM generate_series(101, 700) id;
SELECT test.append((SELECT jsonb_agg(jsonb_build_object('c', c, 's', 1, 'id', c)) FROM generate_series(101, 700) c)) \g /dev/null
UPDATE chat.messages SET committed_at = now() - interval '2 days' WHERE conversation_id IN (101, 699, 700);
SELECT is((WITH RECURSIVE round (call, after) AS (SELECT 0, 100::bigint UNION ALL SELECT call + 1, chat.trim_logs(1, after, 500) FROM round WHERE after >= 0) SELECT array_agg(after ORDER BY call) FROM round),
	'{100,100,300,500,698,699,-1}', 'a round goes through all logs, 200 in a call');
SELECT is((SELECT array_agg(id ORDER BY id) FROM chat.conversations WHERE id BETWEEN 101 AND 700 AND first_seq > 1), '{101,699,700}', 'and trims what is too old');

-- Mentions
SELECT test.group(20, 1, 2, 3);
SELECT test.append('[{"c":20,"s":1,"id":1,"extra":{"mentions":[1,2,9]}}]') \g /dev/null
SELECT test.append('[{"c":20,"s":1,"id":2,"extra":{"mentions":[3,2]}},{"c":20,"s":1,"id":3}]') \g /dev/null
SELECT test.append('[{"c":20,"s":1,"id":4,"extra":{"mentions":[2]}},{"c":20,"s":9,"id":5,"extra":{"mentions":[2]}}]') \g /dev/null
SELECT test.append('[{"c":20,"s":1,"id":4,"extra":{"mentions":[2]}}]') \g /dev/null
SELECT results_eq('SELECT user_id, array_agg(seq ORDER BY seq) FROM chat.mentions WHERE conversation_id = 20 GROUP BY 1 ORDER BY 1', $$VALUES (2::bigint, '{1,2,4}'::bigint[]), (3, '{2}')$$, 'members, not the sender, each once');
SELECT results_eq($$SELECT pg_temp.get(u, 20, 'mentions')::int, pg_temp.get(u, 20, 'unread')::int FROM unnest('{1,2,3}'::int[]) u$$, 'VALUES (NULL, 0), (3, 4), (1, 4)', 'are counted apart from unread');
SELECT is((SELECT jsonb_agg(c -> 'mentions') FROM jsonb_array_elements(test.ask(2, 'conversation.list', '{"after":19}') -> 'conversations') c), '[3]', 'in lists as well');
SELECT test.mark('[{"c":20,"u":2,"read":2}]') \g /dev/null
SELECT is(pg_temp.get(2, 20, 'mentions'), '1', 'reading past them');
SELECT test.mark('[{"c":20,"u":2,"read":4}]') \g /dev/null
SELECT is(pg_temp.get(2, 20, 'mentions'), NULL, 'clears the count');
SELECT test.append('[{"c":20,"s":1,"id":6,"extra":{"mentions":[2]}}]') \g /dev/null
SELECT results_eq('SELECT seq FROM chat.mentions WHERE conversation_id = 20 AND user_id = 2', 'VALUES (5::bigint)', 'what was read goes with the next one');
SELECT is(test.outcome('[{"c":20,"s":1,"id":7,"type":"edit","ref":5,"body":"x","extra":{"mentions":[3]}}]'), 'stored 6', 'an edit');
SELECT is(pg_temp.get(3, 20, 'mentions'), '1', 'mentions nobody');
SELECT test.append((SELECT jsonb_agg(jsonb_build_object('c', 20, 's', 1, 'id', i, 'extra', '{"mentions":[3]}'::jsonb)) FROM generate_series(100, 300) i)) \g /dev/null
SELECT is(pg_temp.get(3, 20, 'mentions'), '100', 'as far as 100');
DELETE FROM chat.conversation_participants WHERE conversation_id = 20 AND user_id = 3;
SELECT is_empty('SELECT FROM chat.mentions WHERE conversation_id = 20 AND user_id = 3', 'who leaves is mentioned no more');
DELETE FROM chat.conversations WHERE id = 20;
SELECT is_empty('SELECT FROM chat.mentions WHERE conversation_id = 20', 'and with a conversation all go');

SELECT is_empty('SELECT DISTINCT method, sqlstate, message, left(context, 200) FROM chat_api.faults', 'no fault');
SELECT * FROM finish();
ROLLBACK;
