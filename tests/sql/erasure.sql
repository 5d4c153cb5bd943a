-- Edits, deletions and reactions: who may, what is gone, and that each entry has an effect.
BEGIN;
SELECT no_plan();

SELECT test.users(1, 9);
SELECT test.group(1, 1, 2, 3, 4);
UPDATE chat.conversation_participants SET role = 'owner' WHERE user_id = 1;
UPDATE chat.conversation_participants SET role = 'admin' WHERE user_id = 2;
CREATE FUNCTION pg_temp.act(conversation bigint, sender bigint, id bigint, type text, ref bigint, body text DEFAULT '', extra jsonb DEFAULT NULL, sent bigint DEFAULT 2000) RETURNS text LANGUAGE sql AS $$
	SELECT test.outcome(jsonb_build_array(jsonb_build_object('c', conversation, 's', sender, 'id', id, 'type', type, 'ref', ref, 'body', body, 'sent', sent) || CASE WHEN extra IS NULL THEN '{}' ELSE jsonb_build_object('extra', extra) END))
$$;
CREATE FUNCTION pg_temp.entry(caller bigint, conversation bigint, seq bigint) RETURNS jsonb LANGUAGE sql AS $$
	SELECT test.ask(caller, 'message.history', jsonb_build_object('conversation', conversation, 'after', seq - 1, 'limit', 1)) #> '{messages,0}'
$$;
CREATE FUNCTION pg_temp.kept(conversation bigint, number bigint) RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' ', type, body, extra, reply_to, expires_at, edited_at) FROM chat.messages WHERE conversation_id = conversation AND seq = number
$$;
CREATE FUNCTION pg_temp.found(caller bigint, query text) RETURNS text LANGUAGE sql AS $$
	SELECT coalesce(string_agg(hit ->> 'seq', ' '), '-') FROM jsonb_array_elements(test.ask(caller, 'message.search', jsonb_build_object('query', query)) -> 'hits') hit
$$;
CREATE FUNCTION pg_temp.everywhere(needle text) RETURNS bigint LANGUAGE sql AS $$
	SELECT (SELECT count(*) FROM chat.messages WHERE messages::text LIKE '%' || needle || '%') + (SELECT count(*) FROM chat.search_entries WHERE words::text LIKE '%' || needle || '%')
$$;

-- Edits
SELECT test.append('[{"c":1,"s":3,"id":1,"body":"first words","sent":1000},{"c":1,"s":4,"id":2,"body":"others"}]') \g /dev/null
SELECT chat.index_messages('{1}', 100) \g /dev/null
SELECT is(pg_temp.act(1, 3, 3, 'edit', 1, 'second thoughts', NULL, 2000), 'stored 3', 'the author edits');
SELECT is(pg_temp.entry(4, 1, 1) - '{id,from,sent_at}'::text[], '{"seq":1,"type":"text","body":"second thoughts","edited_at":2000000}', 'and the message says so');
SELECT is(pg_temp.everywhere('first'), 0::bigint, 'the text before is nowhere, not even among the words');
SELECT is(pg_temp.found(4, 'words'), '-', 'nor found');
SELECT chat.index_messages('{1}', 100) \g /dev/null
SELECT is(pg_temp.found(4, 'thoughts'), '1', 'the new one is');
SELECT is(pg_temp.act(1, 3, 4, 'edit', 1, 'third time', '{"mentions":[1]}', 3000), 'stored 4', 'again');
SELECT is(pg_temp.everywhere('second') + pg_temp.everywhere('thoughts'), 0::bigint, 'the former edit''s text goes too');
SELECT is(pg_temp.kept(1, 4), 'edit third time {"mentions": [1]}', 'the last one is kept');
SELECT is(pg_temp.entry(4, 1, 3), '{"seq":3,"type":"edit","ref":1}', 'of the former one stays that it was there');
SELECT is(pg_temp.entry(4, 1, 4) - '{id,from,sent_at,mentions}'::text[], '{"seq":4,"type":"edit","ref":1,"body":"third time"}', 'for who holds the message already');
SELECT is(pg_temp.act(1, who, 5, 'edit', 1, 'forged'), 'forbidden', 'nobody else edits, whatever their role') FROM unnest('{1,2,4}'::bigint[]) who;
SELECT is(pg_temp.act(1, 3, 3, 'edit', 1, 'second thoughts'), 'duplicate 3', 'a resend of an edit that is over is answered');
SELECT is(pg_temp.kept(1, 1), format('text third time %s', to_timestamp(3000)), 'and changes nothing');
SELECT is(test.outcome('[{"c":1,"s":3,"id":1}]'), 'duplicate 1', 'so is one of the message');

-- The edit window
CREATE FUNCTION pg_temp.edit_within(id bigint, accepted bigint, window_s bigint) RETURNS text LANGUAGE sql AS $$
	SELECT coalesce(code, 'stored') FROM chat.append_messages(test.uuid(0), '{}', '{}', '{}', '{1}', '{3}', '{0}', ARRAY[test.uuid(id)], ARRAY[test.uuid(0)], '{edit}', '{fourth}', '{NULL}', '{1}', '{NULL}', ARRAY[to_timestamp(accepted)], '{NULL}', window_s)
$$;
SELECT is(pg_temp.edit_within(10, 1061, 60), 'forbidden', 'too late');
SELECT is(pg_temp.edit_within(11, 1060, 60), 'stored', 'in time: what counts is when the two were accepted');
SELECT is(pg_temp.edit_within(12, 999999999, 0), 'stored', '0 is for ever');
SELECT is((SELECT code FROM chat.refusals WHERE client_id = test.uuid(10)), 'forbidden', 'a refusal is on record');

-- Deletions
SELECT test.append('[{"c":1,"s":3,"id":20,"type":"image","body":"secret","reply_to":1,"extra":{"attachments":[{"key":"secret"}],"mentions":[1,2],"meta":{"x":"secret"}},"expires":4102444800}]') \g /dev/null
SELECT is((SELECT max(seq) FROM chat.messages WHERE conversation_id = 1), 7::bigint, 'seven entries so far');
SELECT is(pg_temp.act(1, 3, 21, 'edit', 7, 'more secret'), 'stored 8', 'an edit of it');
SELECT is(pg_temp.act(1, 4, 22, 'reaction', 7, '👍'), 'stored 9', 'and a reaction');
SELECT chat.index_messages('{1}', 100) \g /dev/null
SELECT is((SELECT count(*) FROM chat.mentions), 2::bigint, 'it mentions two');
SELECT is(pg_temp.act(1, 4, 23, 'delete', 7), 'forbidden', 'a member deletes nobody else''s message');
SELECT is(pg_temp.act(1, 2, 23, 'delete', 7), 'stored 10', 'an admin does');
SELECT is(pg_temp.kept(1, 7), 'deleted', 'what it said is gone');
SELECT is(pg_temp.kept(1, 8), 'edit', 'with its edit');
SELECT is(pg_temp.everywhere('secret'), 0::bigint, 'from the index too, at once');
SELECT is((SELECT count(*) FROM chat.mentions), 0::bigint, 'nobody is mentioned any more');
SELECT is(pg_temp.entry(4, 1, 7), '{"seq":7,"type":"deleted"}', 'a tombstone stays');
SELECT is((SELECT jsonb_agg(e - '{id,from,sent_at}'::text[]) FROM jsonb_array_elements(test.ask(4, 'message.history', '{"conversation":1,"after":7}') -> 'messages') e),
	'[{"seq":8,"type":"edit","ref":7},{"seq":9,"type":"reaction","ref":7},{"seq":10,"type":"delete","ref":7}]', 'what is about it says no more');
SELECT is(test.outcome('[{"c":1,"s":3,"id":20}]'), 'duplicate 7', 'a resend of it is answered, and brings nothing back');
SELECT is(test.outcome('[{"c":1,"s":3,"id":20,"hash":1}]'), 'conflict', 'another content under its id is still another');
SELECT is(pg_temp.act(1, who, 24, type, 7, 'x'), 'not_found', type || ' of what is gone') FROM (VALUES (3, 'edit'), (1, 'delete'), (3, 'delete'), (4, 'reaction')) a (who, type);
SELECT is(pg_temp.act(1, 3, 25, 'delete', 1), 'stored 11', 'the author deletes');
SELECT is(pg_temp.everywhere('fourth'), 0::bigint, 'and nothing of it stays');
SELECT results_eq($$SELECT seq, type, body, extra, sender_id FROM chat.read_messages(1, 7, 8)$$, $$VALUES (7::bigint, 'deleted', NULL::text, NULL::jsonb, NULL::bigint), (8, 'edit', NULL, NULL, 3)$$,
	'what is delivered late says no more either');
SELECT is(test.error(4, 'message.status', '{"conversation":1,"seq":7}'), 'not_found', 'who sent it, when, and under which id, others are not told');
SELECT is(test.ask(3, 'message.status', '{"conversation":1,"seq":7}') - '{sent_at,members,more}'::text[], '{"seq":7,"id":"00000000-0000-0000-0000-000000000014","from":3,"status":"sent"}', 'its sender is');

-- What an act may be about
SELECT is(pg_temp.act(1, 3, 30, type, ref, 'x'), 'invalid_field', format('%s of an entry that is none, %s', type, ref)) FROM unnest('{reaction,edit,delete}'::text[]) type, unnest('{9,10,99,0}'::bigint[]) ref;
INSERT INTO chat.messages (conversation_id, body) VALUES (1, 'Maintenance at 22:00');
SELECT is(pg_temp.act(1, 4, 31, 'reaction', 12, '😀'), 'stored 13', 'what the server says can be reacted to');
SELECT is(pg_temp.act(1, 1, 32, type, 12, 'x'), 'forbidden', 'and neither edited nor deleted') FROM unnest('{edit,delete}'::text[]) type;
SELECT is(pg_temp.act(1, 4, 33, 'delete', 2, '', NULL), 'stored 14', 'one''s own');
INSERT INTO chat.conversation_participants (conversation_id, user_id) VALUES (1, 5);
SELECT test.append('[{"c":1,"s":1,"id":34}]') \g /dev/null
SELECT is(pg_temp.act(1, 5, 35, 'reaction', 12, '😀'), 'invalid_field', 'what was written before one joined is not there');
SELECT is(pg_temp.act(1, 5, 36, 'reaction', 15, '😀'), 'stored 16', 'what came after is');
UPDATE chat.conversation_participants SET role = 'reader' WHERE user_id = 5;
SELECT is(pg_temp.act(1, 5, 37, 'reaction', 15, '👍'), 'forbidden', 'a reader reacts to nothing');
SELECT is(pg_temp.act(1, 9, 38, 'delete', 15), 'not_found', 'a stranger is told nothing');
INSERT INTO chat.conversations (id, type, first_user_id, second_user_id) VALUES (2, 'direct', 1, 2);
SELECT test.append('[{"c":2,"s":1,"id":1}]') \g /dev/null
SELECT is(pg_temp.act(2, 2, 1, 'delete', 1), 'forbidden', 'between two nobody is an admin');

-- Reactions
SELECT test.group(3, 1, 2, 3);
SELECT test.append('[{"c":3,"s":1,"id":1},{"c":3,"s":1,"id":2}]') \g /dev/null
SELECT is(pg_temp.act(3, 2, 3, 'reaction', 1, '👍'), 'stored 3', 'a reaction');
SELECT is(pg_temp.act(3, 2, 4, 'reaction', 1, '👍'), 'conflict', 'one of a kind');
SELECT is(pg_temp.act(3, 2, 5, 'reaction', 1, '😀') || ', ' || pg_temp.act(3, 3, 6, 'reaction', 1, '👍') || ', ' || pg_temp.act(3, 2, 7, 'reaction', 2, '👍'), 'stored 4, stored 5, stored 6', 'of each user, to each message');
SELECT is(pg_temp.entry(2, 3, 1) -> 'reactions', '[{"body":"👍","count":2,"mine":true},{"body":"😀","count":1,"mine":true}]', 'are counted, one''s own marked');
SELECT is(pg_temp.act(3, 3, 8, 'reaction', 1, '😀', '{"remove":true}'), 'not_found', 'what is not there cannot be taken back');
SELECT is(pg_temp.act(3, 2, 9, 'reaction', 1, '👍', '{"remove":true}'), 'stored 7', 'what is can');
SELECT is(pg_temp.act(3, 2, 10, 'reaction', 1, '👍', '{"remove":true}'), 'not_found', 'once');
SELECT is(pg_temp.act(3, 2, 11, 'reaction', 1, '👍'), 'stored 8', 'and given again');
SELECT is(pg_temp.entry(3, 3, 1) -> 'reactions', '[{"body":"😀","count":1},{"body":"👍","count":2,"mine":true}]', 'which leaves it as it was');
SELECT is(pg_temp.act(3, 2, 12, 'reaction', 1, '', '{"remove":true}'), 'stored 9', 'a removal without a kind takes all');
SELECT is(pg_temp.entry(2, 3, 1) -> 'reactions', '[{"body":"👍","count":1}]', 'of one''s own');
SELECT is(pg_temp.act(3, 2, 13, 'reaction', 1, '') || ', ' || pg_temp.act(3, 2, 13, 'reaction', 1, repeat('x', 65)), 'invalid_field, too_long', 'a reaction is some characters');
SELECT is(test.outcome((SELECT jsonb_agg(jsonb_build_object('c', 3, 's', 2, 'id', 20 + i / 2, 'type', 'reaction', 'ref', 2, 'body', 'k')) FROM generate_series(0, 1) i)), 'stored 10, duplicate 10', 'a resend in a batch');
SELECT is(test.outcome('[{"c":3,"s":2,"id":30,"type":"reaction","ref":1,"body":"a"},{"c":3,"s":2,"id":31,"type":"reaction","ref":1,"body":"a"},{"c":3,"s":2,"id":32,"type":"reaction","ref":1,"body":"a","extra":{"remove":true}},{"c":3,"s":2,"id":33,"type":"reaction","ref":1,"body":"a"},{"c":3,"s":1,"id":34}]'),
	'stored 11, conflict, stored 12, stored 13, stored 14', 'in a batch each sees what the ones before have done');
SELECT is(test.outcome('[{"c":3,"s":1,"id":40,"type":"delete","ref":2,"body":""},{"c":3,"s":1,"id":41,"type":"edit","ref":2,"body":"x"},{"c":3,"s":3,"id":42}]'), 'stored 15, not_found, stored 16', 'a deletion too');
SELECT results_eq('SELECT last_seq, last_ordinal FROM chat.conversations WHERE id = 3', 'VALUES (16::bigint, 4::bigint)', 'the counters count what counts');
SELECT results_eq('SELECT user_id, read_seq, read_ordinal FROM chat.participant_watermarks WHERE conversation_id = 3 ORDER BY 1', 'VALUES (1::bigint, 15::bigint, 3::bigint), (2, 13, 2), (3, 16, 4)', 'each has seen what came before their own last entry');

-- Bounds
SELECT test.group(4, 1, 2, 3);
SELECT test.append('[{"c":4,"s":1,"id":1}]') \g /dev/null
SELECT is((SELECT array_agg(o) FROM (SELECT pg_temp.act(4, 2, i, 'reaction', 1, 'kind ' || i) AS o FROM generate_series(2, 51) i) a WHERE o NOT LIKE 'stored%'), NULL, 'fifty kinds');
SELECT is(pg_temp.act(4, 3, 60, 'reaction', 1, 'one more'), 'quota_exceeded', 'and no more');
SELECT is(pg_temp.act(4, 3, 61, 'reaction', 1, 'kind 7'), 'stored 52', 'but one of these');
SELECT is((SELECT array_agg(o) FROM (SELECT pg_temp.act(4, 2, 100 + i, 'reaction', 1, 'kind 7', CASE i % 2 WHEN 0 THEN '{"remove":true}'::jsonb END) AS o FROM generate_series(0, 49) i) a WHERE o NOT LIKE 'stored%'), NULL, 'a hundred changes of mind');
SELECT is(pg_temp.act(4, 2, 200, 'reaction', 1, 'kind 7', '{"remove":true}') LIKE 'stored%', true, 'what is there can always be taken back');
SELECT is(pg_temp.act(4, 2, 201, 'reaction', 1, 'kind 7'), 'quota_exceeded', 'and then it is enough');

-- An index that has not come so far
SELECT test.group(5, 1, 2);
SELECT test.append('[{"c":5,"s":1,"id":1,"body":"alpha"},{"c":5,"s":1,"id":2,"body":"beta"}]') \g /dev/null
SELECT pg_temp.act(5, 1, 3, 'edit', 1, 'gamma'), pg_temp.act(5, 1, 4, 'edit', 1, 'delta'), pg_temp.act(5, 1, 5, 'delete', 2) \g /dev/null
SELECT is(array_agg((chat.index_messages('{5}', 1)).indexed), '{1,1,1,1,1}', 'one by one') FROM generate_series(1, 5);
SELECT is(pg_temp.found(2, 'alpha') || pg_temp.found(2, 'beta') || pg_temp.found(2, 'gamma') || pg_temp.found(2, 'delta'), '---1', 'finds what there is');

SELECT is_empty('SELECT DISTINCT method, sqlstate, message, left(context, 200) FROM chat_api.faults', 'no fault');
SELECT * FROM finish();
ROLLBACK;
