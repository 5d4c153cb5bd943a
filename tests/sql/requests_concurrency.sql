-- Requests that meet: each holds one connection at a known point, waits until the other waits for its lock, and lets go. Nothing is
-- rolled back; all is removed at the end.
SELECT plan(54);

SELECT test.users(701, 720);
SELECT test.connect('one') \g /dev/null
SELECT test.connect('two') \g /dev/null
-- A call on another connection, as a query of one text column.
CREATE FUNCTION test.call(caller bigint, method text, params text) RETURNS text LANGUAGE sql AS $$
	SELECT format('SELECT coalesce(answer #>> ''{error,code}'', (answer #> ''{result,created}'')::text, ''done'') FROM (SELECT chat_api.call(%L, %s, 0, ''x'', %L)::jsonb AS answer) a', method, caller, params)
$$;
CREATE FUNCTION test.members(conversation bigint) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(user_id || ' ' || role, ', ' ORDER BY user_id) FROM chat.conversation_participants WHERE conversation_id = conversation
$$;

-- Two open a direct conversation with each other.
SELECT test.run('one', 'BEGIN') \g /dev/null
SELECT is(test.run('one', test.call(701, 'conversation.create', '{"type":"direct","members":[702]}')), 'true', 'one opens a direct conversation');
SELECT test.start('two', test.call(702, 'conversation.create', '{"type":"direct","members":[701]}'));
SELECT ok(test.until_blocked('two'), 'the other at the same time');
SELECT test.run('one', 'COMMIT') \g /dev/null
SELECT is(test.answer('two'), 'false', 'and gets the same');
SELECT is((SELECT count(*) FROM chat.conversations WHERE first_user_id = 701), 1::bigint, 'there is one');

-- The first of two gives up.
SELECT test.run('one', 'BEGIN') \g /dev/null
SELECT is(test.run('one', test.call(703, 'conversation.create', '{"type":"direct","members":[704]}')), 'true', 'one opens a direct conversation');
SELECT test.start('two', test.call(704, 'conversation.create', '{"type":"direct","members":[703]}'));
SELECT ok(test.until_blocked('two'), 'the other at the same time');
SELECT test.run('one', 'ROLLBACK') \g /dev/null
SELECT is(test.answer('two'), 'true', 'and makes it, where the first did not');

-- A block and the opening of a conversation: one of the two is first, and the other sees it (threat 56).
SELECT test.run('one', 'BEGIN') \g /dev/null
SELECT is(test.run('one', test.call(705, 'user.block', '{"user":706}')), 'done', 'a block');
SELECT test.start('two', test.call(706, 'conversation.create', '{"type":"direct","members":[705]}'));
SELECT ok(test.until_blocked('two'), 'a conversation opened at the same time');
SELECT test.run('one', 'COMMIT') \g /dev/null
SELECT is(test.answer('two'), 'not_found', 'is none');
SELECT test.run('one', 'BEGIN') \g /dev/null
SELECT is(test.run('one', test.call(707, 'conversation.create', '{"type":"direct","members":[708]}')), 'true', 'the other way round');
SELECT test.start('two', test.call(708, 'user.block', '{"user":707}'));
SELECT ok(test.until_blocked('two'), 'the block waits');
SELECT test.run('one', 'COMMIT') \g /dev/null
SELECT is(test.answer('two'), 'done', 'and then');
SELECT is((SELECT blocked FROM chat.conversations WHERE first_user_id = 707), true, 'closes what was opened');

-- Two owners remove each other (threat 59).
INSERT INTO chat.conversations (id, type) SELECT id, 'group' FROM unnest('{701,702,703,704,705,707}'::bigint[]) id;
INSERT INTO chat.conversation_participants (conversation_id, user_id, role) SELECT 701, 700 + n, CASE WHEN n <= 2 THEN 'owner' ELSE 'member' END::chat.participant_role FROM generate_series(1, 4) n;
SELECT test.run('one', 'BEGIN') \g /dev/null
SELECT is(test.run('one', test.call(701, 'conversation.remove_members', '{"conversation":701,"members":[702]}')), 'done', 'one owner removes the other');
SELECT test.start('two', test.call(702, 'conversation.remove_members', '{"conversation":701,"members":[701]}'));
SELECT ok(test.until_blocked('two'), 'who does the same at the same time');
SELECT test.run('one', 'COMMIT') \g /dev/null
SELECT is(test.answer('two'), 'not_found', 'and has come too late');
SELECT is(test.members(701), '701 owner, 703 member, 704 member', 'one owner is left');

-- Two owners leave.
INSERT INTO chat.conversation_participants (conversation_id, user_id, role) SELECT 702, 700 + n, CASE WHEN n <= 2 THEN 'owner' ELSE 'member' END::chat.participant_role FROM generate_series(1, 4) n;
SELECT test.run('one', 'BEGIN') \g /dev/null
SELECT is(test.run('one', test.call(701, 'conversation.leave', '{"conversation":702}')), 'done', 'one of two owners leaves');
SELECT test.start('two', test.call(702, 'conversation.leave', '{"conversation":702}'));
SELECT ok(test.until_blocked('two'), 'the other at the same time');
SELECT test.run('one', 'COMMIT') \g /dev/null
SELECT is(test.answer('two'), 'forbidden', 'and must stay, being the last');

-- Two owners demote each other.
INSERT INTO chat.conversation_participants (conversation_id, user_id, role) SELECT 703, 700 + n, 'owner' FROM generate_series(1, 2) n;
SELECT test.run('one', 'BEGIN') \g /dev/null
SELECT is(test.run('one', test.call(701, 'conversation.set_role', '{"conversation":703,"user":702,"role":"member"}')), 'done', 'one owner demotes the other');
SELECT test.start('two', test.call(702, 'conversation.set_role', '{"conversation":703,"user":701,"role":"member"}'));
SELECT ok(test.until_blocked('two'), 'who does the same at the same time');
SELECT test.run('one', 'COMMIT') \g /dev/null
SELECT is(test.answer('two'), 'forbidden', 'and has no right to any more');
SELECT is(test.members(703), '701 owner, 702 member', 'one owner is left');

-- Two admins fill the last place.
INSERT INTO chat.conversation_participants (conversation_id, user_id, role) SELECT 704, 700 + n, 'owner' FROM generate_series(1, 2) n;
SELECT test.run('one', $$SELECT chat_api.configure('{"group_max_members":3}')$$), test.run('two', $$SELECT chat_api.configure('{"group_max_members":3}')$$) \g /dev/null
SELECT test.run('one', 'BEGIN') \g /dev/null
SELECT is(test.run('one', test.call(701, 'conversation.add_members', '{"conversation":704,"members":[711]}')), 'done', 'one fills the last place');
SELECT test.start('two', test.call(702, 'conversation.add_members', '{"conversation":704,"members":[712]}'));
SELECT ok(test.until_blocked('two'), 'the other at the same time');
SELECT test.run('one', 'COMMIT') \g /dev/null
SELECT is(test.answer('two'), 'quota_exceeded', 'and there is no more');

-- A member who comes while another request waits for its locks, and whose row somebody else then holds, is not waited for under the
-- conversation's lock: the other would wait for that.
INSERT INTO chat.conversation_participants (conversation_id, user_id, role) VALUES (707, 701, 'owner'), (707, 711, 'member');
SELECT test.connect(name) FROM unnest('{three,four}'::text[]) name \g /dev/null
SELECT test.run('one', 'BEGIN'), test.run('one', 'SELECT user_id::text FROM chat.conversation_participants WHERE conversation_id = 707 AND user_id = 711 FOR UPDATE') \g /dev/null
SELECT test.start('two', test.call(701, 'conversation.remove_members', '{"conversation":707,"members":[711,712]}'));
SELECT ok(test.until_blocked('two'), 'one of two members is to be removed');
SELECT is(test.run('three', test.call(701, 'conversation.add_members', '{"conversation":707,"members":[712]}')), 'done', 'the other comes meanwhile');
SELECT test.run('three', 'BEGIN'), test.run('three', 'SELECT user_id::text FROM chat.conversation_participants WHERE conversation_id = 707 AND user_id = 712 FOR UPDATE') \g /dev/null
SELECT test.run('one', 'COMMIT') \g /dev/null
SELECT ok(test.until($$EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'two'
	AND (SELECT array_agg(pid) FROM pg_stat_activity WHERE application_name = 'three') = pg_blocking_pids(pid))$$), 'and is waited for');
SELECT test.run('four', 'SET lock_timeout = ''10s''') \g /dev/null
SELECT is(test.run('four', test.call(701, 'conversation.update', '{"conversation":707,"name":"not waited for"}')), 'done', 'with nothing held that others need');
SELECT test.run('three', 'COMMIT') \g /dev/null
SELECT is(test.answer('two'), 'done', 'then both are removed');
SELECT is(test.members(707), '701 owner', 'as was asked');

-- A message is erased while it is being indexed, and the other way round: no word of it stays.
SELECT test.group(706, 701, 702);
SELECT test.append('[{"c":706,"s":701,"id":1,"body":"secret one"},{"c":706,"s":701,"id":2,"body":"secret two"}]') \g /dev/null
SELECT test.run('one', 'BEGIN') \g /dev/null
SELECT is(test.run('one', 'SELECT indexed FROM chat.index_messages(''{706}'', 100)'), '2', 'messages are being indexed');
SELECT test.start('two', 'WITH erased AS (UPDATE chat.messages SET type = ''deleted'', body = NULL WHERE conversation_id = 706 AND seq = 1 RETURNING seq) SELECT seq::text FROM erased');
SELECT ok(test.until_blocked('two'), 'one of them is erased at the same time');
SELECT test.run('one', 'COMMIT') \g /dev/null
SELECT is(test.answer('two'), '1', 'the erasure waits');
SELECT is((SELECT string_agg(words::text, ' ') FROM chat.search_entries WHERE conversation_id = 706), '''#706'' ''secret'' ''two''', 'and leaves the index');
SELECT test.append('[{"c":706,"s":701,"id":3,"body":"secret three"}]') \g /dev/null
SELECT test.run('one', 'BEGIN') \g /dev/null
SELECT test.run('one', 'UPDATE chat.messages SET type = ''deleted'', body = NULL WHERE conversation_id = 706 AND seq = 3') \g /dev/null
SELECT is(test.run('two', 'SELECT indexed FROM chat.index_messages(''{706}'', 100)'), '0', 'what is being erased is not indexed');
SELECT test.group(709, 701, 702);
SELECT test.append('[{"c":709,"s":701,"id":4,"body":"secret four"}]') \g /dev/null
SELECT is(test.run('two', 'SELECT passed_over FROM chat.index_messages(''{706,709,999999}'', 1)'), '{}', 'who stops at a limit says nothing of the others');
SELECT is(test.run('two', 'SELECT (indexed, passed_over) FROM chat.index_messages(''{706,709,999999}'', 100)'), '0,{706}', 'what could not be had is named');
SELECT is(test.run('two', 'SELECT passed_over FROM chat.index_missed(0, 100)'), '{706}', 'also where nobody named it before');
SELECT test.run('one', 'COMMIT') \g /dev/null
SELECT is(test.run('two', 'SELECT (indexed, passed_over) FROM chat.index_messages(''{706,709}'', 100)'), '1,{}', 'afterwards it is looked at');
SELECT is((SELECT string_agg(words::text, ' ') FROM chat.search_entries WHERE conversation_id = 706), '''#706'' ''secret'' ''two''', 'and is nothing');
-- Nor does it wait where no row said how far it was before.
SELECT test.group(708, 701, 702);
SELECT test.append('[{"c":709,"s":701,"id":5,"body":"secret five"},{"c":708,"s":701,"id":6,"body":"secret six"}]') \g /dev/null
SELECT test.run('two', 'SET statement_timeout = ''20s''') \g /dev/null
SELECT test.run('one', 'BEGIN') \g /dev/null
SELECT test.run('one', 'UPDATE chat.messages SET type = ''deleted'', body = NULL WHERE conversation_id = 708') \g /dev/null
SELECT is(test.run('two', 'SELECT (indexed, passed_over) FROM chat.index_messages(''{709,708}'', 100)'), '1,{708}', 'what is being erased before it was ever indexed holds nobody up');
SELECT test.run('one', 'COMMIT') \g /dev/null
SELECT is(test.run('two', 'SELECT (indexed, passed_over) FROM chat.index_messages(''{709,708}'', 100)'), '1,{}', 'and is looked at afterwards');

-- Those that are behind are looked for in thousands: a call that stops at its limit goes on where it began, and that some cannot be had holds nobody up.
INSERT INTO chat.conversations (id, type) SELECT id, 'group' FROM generate_series(10001, 11010) id;
INSERT INTO chat.messages (conversation_id, body) SELECT id, 'news' FROM generate_series(10001, 11010) id;
INSERT INTO chat.search_positions SELECT id, 0 FROM generate_series(10001, 11010) id;
SELECT test.run('one', 'BEGIN') \g /dev/null
SELECT test.run('one', 'SELECT count(*) FROM (SELECT FROM chat.search_positions WHERE conversation_id BETWEEN 10001 AND 10010 FOR UPDATE) held') \g /dev/null
SELECT is(test.run('two', 'SELECT (after, passed_over) FROM chat.index_missed(10000, 990)'), '10000,{}', 'a thousand, of which ten are held: the others are done');
SELECT is(test.run('two', 'SELECT (after, cardinality(passed_over)) FROM chat.index_missed(10000, 990)'), '11000,10', 'then the ten are named');
SELECT is(test.run('two', 'SELECT (after, passed_over) FROM chat.index_missed(11000, 990)'), '-1,{}', 'and the next have their turn');
SELECT is_empty('SELECT FROM chat.search_positions WHERE conversation_id > 10010 AND indexed_seq = 0', 'nobody was forgotten');
SELECT test.run('one', 'COMMIT') \g /dev/null
DELETE FROM chat.conversations WHERE id > 10000;

-- At full speed: six members of one group add, remove, promote and leave in random order, while messages are appended. No deadlock gets through, there is an owner as long as
-- there are members, and the log has no gap.
INSERT INTO chat.conversation_participants (conversation_id, user_id, role) SELECT 705, 710 + n, 'owner' FROM generate_series(1, 6) n;
CREATE PROCEDURE test.quarrel(caller bigint, times int, OUT answer text) LANGUAGE plpgsql AS $$
DECLARE
	other bigint;
	got text;
	all_answers text[] := '{}';
BEGIN
	FOR i IN 1 .. times LOOP
		other := 711 + floor(random() * 6);
		got := test.error(caller, method, params) FROM (VALUES
			(0, 'conversation.remove_members', jsonb_build_object('conversation', 705, 'members', ARRAY[other, 711 + (other + 1) % 6])),
			(1, 'conversation.add_members', jsonb_build_object('conversation', 705, 'members', ARRAY[711 + (other + 3) % 6, other])),
			(2, 'conversation.set_role', jsonb_build_object('conversation', 705, 'user', other, 'role', (ARRAY['owner', 'admin', 'member'])[1 + floor(random() * 3)])),
			(3, 'conversation.update', jsonb_build_object('conversation', 705, 'name', 'name ' || i)),
			(4, 'conversation.leave', jsonb_build_object('conversation', 705, 'owner', other)),
			(5, 'conversation.add_members', jsonb_build_object('conversation', 705, 'members', ARRAY[711, 712, 713, 714, 715, 716]))) AS choice (n, method, params)
			WHERE n = floor(i * 7.3)::int % 6;
		COMMIT;
		PERFORM test.append(jsonb_build_array(jsonb_build_object('c', 705, 's', caller, 'id', caller * 100000 + i)));
		COMMIT;
		all_answers := all_answers || coalesce(got, 'done');
	END LOOP;
	answer := (SELECT string_agg(DISTINCT a, ', ' ORDER BY a) FROM unnest(all_answers) a WHERE a IN ('internal', 'unavailable', 'overloaded'));
	answer := coalesce(answer, 'documented answers');
END $$;
SELECT test.connect('q' || n) FROM generate_series(711, 716) n \g /dev/null
SELECT test.start('q' || n, format('CALL test.quarrel(%s, 100, NULL)', n)) FROM generate_series(711, 716) n;
SELECT ok(test.until('NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name LIKE ''q7%'' AND state <> ''idle'')'), 'six owners quarrel');
SELECT is((SELECT string_agg(DISTINCT test.answer('q' || n), ' / ') FROM generate_series(711, 716) n), 'documented answers', 'and get only documented answers');
SELECT is((SELECT ARRAY[min(seq), max(seq), count(*)] = ARRAY[1, max(c.last_seq), max(c.last_seq)]
		AND (EXISTS (SELECT FROM chat.conversation_participants WHERE conversation_id = 705 AND role = 'owner') OR test.members(705) IS NULL)
	FROM chat.messages m JOIN chat.conversations c ON c.id = 705 WHERE conversation_id = 705), true, 'the log has no gap, and the group an owner');
SELECT cmp_ok((SELECT count(*) FROM chat.messages WHERE conversation_id = 705 AND type = 'system'), '>', 10::bigint, 'of many changes');

SELECT dblink_disconnect(name) FROM unnest('{one,two,three,four,q711,q712,q713,q714,q715,q716}'::text[]) name \g /dev/null
DROP PROCEDURE test.quarrel;
DROP FUNCTION test.members, test.call;
DELETE FROM chat.conversations;
DELETE FROM chat.users;
DELETE FROM chat.refusals;
DELETE FROM chat.inbox_events;
DELETE FROM chat_api.faults;
SELECT * FROM finish();
