-- Several connections at once. Each test holds one connection at a known point, waits until the other waits for its lock
-- (never for time to pass), and lets go. Nothing is rolled back; all is removed at the end.
SELECT plan(46);

SELECT test.users(601, 610);
SELECT test.group(601, 601, 602);
SELECT test.group(602, 601, 602);
SELECT test.connect('one') \g /dev/null
SELECT test.connect('two') \g /dev/null
SELECT test.connect('admin') \g /dev/null

-- Two batches that name the same conversations in opposite order: locked in one order, none waits for what the other wants.
SELECT test.run('admin', 'BEGIN') \g /dev/null
SELECT test.run('admin', 'SELECT id FROM chat.conversations WHERE id = 602 FOR UPDATE') \g /dev/null
SELECT test.start('one', $$SELECT test.outcome('[{"c":602,"s":601,"id":1},{"c":601,"s":601,"id":1}]')$$);
SELECT ok(test.until_blocked('one'), 'opposite order: the first batch holds 601 and waits for 602');
SELECT test.start('two', $$SELECT test.outcome('[{"c":601,"s":602,"id":1},{"c":602,"s":602,"id":1}]')$$);
SELECT ok(test.until_blocked('two'), 'the second waits for 601');
SELECT test.run('admin', 'COMMIT') \g /dev/null
SELECT is(test.answer('one'), 'stored 1, stored 1', 'the first is stored');
SELECT is(test.answer('two'), 'stored 2, stored 2', 'the second after it: no deadlock, no gap');

-- The same at full speed: 4 connections, 10 conversations in random order, 100 batches each.
INSERT INTO chat.conversations (id, type) SELECT id, 'group' FROM generate_series(621, 630) id;
INSERT INTO chat.conversation_participants (conversation_id, user_id) SELECT id, member FROM generate_series(621, 630) id, generate_series(603, 606) member;
CREATE PROCEDURE test.storm(sender bigint) LANGUAGE plpgsql AS $$
BEGIN
	FOR batch IN 1 .. 100 LOOP
		PERFORM test.append((SELECT jsonb_agg(jsonb_build_object('c', c, 's', sender, 'id', batch * 100 + c) ORDER BY random()) FROM generate_series(621, 630) c));
		COMMIT;
	END LOOP;
END $$;
SELECT test.connect('storm' || sender) FROM generate_series(603, 606) sender \g /dev/null
SELECT test.start('storm' || sender, format('CALL test.storm(%s)', sender)) FROM generate_series(603, 606) sender;
SELECT ok(test.until('NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name LIKE ''storm%'' AND state <> ''idle'')'), 'four connections write to ten conversations in random order');
SELECT is(test.answer('storm' || sender), 'CALL', format('connection %s ends without an error', sender)) FROM generate_series(603, 606) sender;
SELECT is_empty('SELECT conversation_id FROM chat.messages WHERE conversation_id BETWEEN 621 AND 630 GROUP BY 1 HAVING min(seq) <> 1 OR max(seq) <> 400 OR count(*) <> 400',
	'each conversation has 1 … 400 without a gap');
SELECT is_empty('SELECT id FROM chat.conversations WHERE id BETWEEN 621 AND 630 AND (last_seq <> 400 OR last_ordinal <> 400)', 'and its counters say so');
SELECT is_empty($$SELECT * FROM (SELECT seq, lag(seq) OVER (PARTITION BY conversation_id, sender_id ORDER BY client_id) AS earlier FROM chat.messages WHERE conversation_id BETWEEN 621 AND 630) s
	WHERE seq < earlier$$, 'each sender''s own order is kept');
SELECT dblink_disconnect('storm' || sender) FROM generate_series(603, 606) sender \g /dev/null

-- Removal and an append, both ways round (threats 25, 57).
SELECT test.run('admin', 'BEGIN') \g /dev/null
SELECT test.run('admin', 'DELETE FROM chat.conversation_participants WHERE conversation_id = 601 AND user_id = 602') \g /dev/null
SELECT test.start('one', $$SELECT test.outcome('[{"c":601,"s":602,"id":2},{"c":601,"s":601,"id":2}]')$$);
SELECT ok(test.until_blocked('one'), 'removal first: an append waits for it');
SELECT test.run('admin', 'COMMIT') \g /dev/null
SELECT is(test.answer('one'), 'not_found, stored 3', 'and is refused: it looked after the lock was its own');
SELECT is((SELECT code FROM chat.refusals WHERE user_id = 602 AND client_id = test.uuid(2)), 'not_found', 'on record');
SELECT test.run('admin', 'INSERT INTO chat.conversation_participants (conversation_id, user_id) VALUES (601, 602)') \g /dev/null
-- Another holds 602, so that the append stops between taking the lock of 601 and moving the senders' watermarks.
SELECT test.run('two', 'BEGIN') \g /dev/null
SELECT test.run('two', 'SELECT id FROM chat.conversations WHERE id = 602 FOR UPDATE') \g /dev/null
SELECT test.start('one', $$SELECT test.outcome('[{"c":601,"s":602,"id":3},{"c":602,"s":602,"id":3}]')$$);
SELECT ok(test.until_blocked('one'), 'append first: it holds 601');
SELECT test.start('admin', 'WITH gone AS (DELETE FROM chat.conversation_participants WHERE conversation_id = 601 AND user_id = 602 RETURNING joined_seq) SELECT joined_seq::text FROM gone');
SELECT ok(test.until_blocked('admin'), 'the removal waits for it, with the participant''s row already locked');
SELECT test.run('two', 'COMMIT') \g /dev/null
SELECT is(test.answer('one'), 'stored 4, stored 3', 'the append needs nothing that the removal holds: no deadlock');
SELECT is(test.answer('admin'), '3', 'then the removal is done');
SELECT is(test.outcome('[{"c":601,"s":602,"id":5}]'), 'not_found', 'and later messages are refused');

-- A change of role, in the same places.
SELECT test.run('two', 'BEGIN') \g /dev/null
SELECT test.run('two', 'SELECT id FROM chat.conversations WHERE id = 602 FOR UPDATE') \g /dev/null
SELECT test.start('one', $$SELECT test.outcome('[{"c":601,"s":601,"id":6},{"c":602,"s":601,"id":6}]')$$);
SELECT ok(test.until_blocked('one'), 'append first: it holds 601');
SELECT test.start('admin', 'WITH changed AS (UPDATE chat.conversation_participants SET role = ''reader'' WHERE conversation_id = 601 AND user_id = 601 RETURNING role) SELECT role::text FROM changed');
SELECT ok(test.until_blocked('admin'), 'a change of role waits for it');
SELECT test.run('two', 'COMMIT') \g /dev/null
SELECT is(test.answer('one'), 'stored 5, stored 4', 'the append goes on');
SELECT is(test.answer('admin'), 'reader', 'then the role changes');
SELECT is((SELECT read_seq FROM chat.participant_watermarks WHERE conversation_id = 601 AND user_id = 601), 5::bigint, 'and the sender''s watermark has moved with both');
SELECT is(test.outcome('[{"c":601,"s":601,"id":8}]'), 'forbidden', 'a reader is refused');
UPDATE chat.conversation_participants SET role = 'member' WHERE conversation_id = 601;

-- A block, and a direct conversation opened at the same moment (threat 56).
SELECT test.run('admin', 'BEGIN') \g /dev/null
SELECT test.run('admin', 'INSERT INTO chat.blocked_users VALUES (607, 608)') \g /dev/null
SELECT test.start('one', 'WITH made AS (INSERT INTO chat.conversations (id, type, first_user_id, second_user_id) VALUES (607, ''direct'', 608, 607) RETURNING blocked) SELECT blocked::text FROM made');
SELECT ok(test.until_blocked('one'), 'a direct conversation waits for a block that is being made');
SELECT test.run('admin', 'COMMIT') \g /dev/null
SELECT is(test.answer('one'), 'true', 'and is blocked');
SELECT test.run('one', 'BEGIN') \g /dev/null
SELECT test.run('one', 'DELETE FROM chat.blocked_users') \g /dev/null
SELECT test.start('two', 'WITH made AS (INSERT INTO chat.blocked_users VALUES (608, 607) RETURNING user_id) SELECT user_id::text FROM made');
SELECT ok(test.until_blocked('two'), 'one lifts the block while the other blocks');
SELECT test.run('one', 'COMMIT') \g /dev/null
SELECT is(test.answer('two'), '608', 'one after the other');
SELECT is((SELECT blocked FROM chat.conversations WHERE id = 607), true, 'and the conversation is still blocked');

-- Both create the same direct conversation.
SELECT test.run('one', 'BEGIN') \g /dev/null
SELECT test.run('one', 'INSERT INTO chat.conversations (id, type, first_user_id, second_user_id) VALUES (609, ''direct'', 609, 610)') \g /dev/null
SELECT test.start('two', 'WITH made AS (INSERT INTO chat.conversations (id, type, first_user_id, second_user_id) VALUES (610, ''direct'', 610, 609) ON CONFLICT (first_user_id, second_user_id) DO NOTHING RETURNING id) SELECT count(*)::text FROM made');
SELECT ok(test.until_blocked('two'), 'two open the same direct conversation');
SELECT test.run('one', 'COMMIT') \g /dev/null
SELECT is(test.answer('two'), '0', 'it is made once');

-- The same id from two connections at once.
SELECT test.run('one', 'BEGIN') \g /dev/null
SELECT is(test.run('one', $$SELECT test.outcome('[{"c":602,"s":601,"id":50}]')$$), 'stored 5', 'the same id from two connections');
SELECT test.start('two', $$SELECT test.outcome('[{"c":602,"s":601,"id":50},{"c":602,"s":601,"id":51}]')$$);
SELECT ok(test.until_blocked('two'), 'the second waits');
SELECT test.run('one', 'COMMIT') \g /dev/null
SELECT is(test.answer('two'), 'duplicate 5, stored 6', 'and finds the first: one row');

-- The same records from two connections: a batch whose connection was thought dead (decision 4).
CREATE FUNCTION test.moved(from_position bigint, id bigint) RETURNS text LANGUAGE sql AS $$
	SELECT 'stored ' || seq FROM chat.append_messages(test.uuid(600), '{5}', ARRAY[from_position], ARRAY[from_position + 10], '{602}', '{601}', '{0}', ARRAY[test.uuid(id)], ARRAY[test.uuid(0)],
		'{text}', '{x}', '{NULL}', '{NULL}', '{NULL}', ARRAY[now()], '{NULL}')
$$;
SELECT chat.read_positions(test.uuid(600), '{5}') \g /dev/null
SELECT test.run('one', 'BEGIN') \g /dev/null
SELECT is(test.run('one', 'SELECT test.moved(0, 60)'), 'stored 7', 'a batch is sent and its answer is lost');
SELECT test.start('two', 'SELECT position_committed::text FROM chat.read_positions(test.uuid(600), ''{5}'')');
SELECT ok(test.until_blocked('two'), 'who asks for the position waits for the old connection');
SELECT test.start('admin', 'SELECT test.moved(0, 60)');
SELECT ok(test.until_blocked('admin'), 'so does who sends the batch again');
SELECT test.run('one', 'COMMIT') \g /dev/null
SELECT is(test.answer('two'), '10', 'the answer is what was committed');
SELECT is(test.answer('admin'), 'error: CH001', 'the second batch is refused whole');

-- A single message takes the lock by counting itself, and is counted out again when it is refused.
SELECT test.group(603, 601, 602);
SELECT test.run('admin', 'BEGIN') \g /dev/null
SELECT test.run('admin', 'DELETE FROM chat.conversation_participants WHERE conversation_id = 603 AND user_id = 602') \g /dev/null
SELECT test.start('one', $$SELECT test.outcome('[{"c":603,"s":602,"id":1}]')$$);
SELECT ok(test.until_blocked('one'), 'removal first: a single message waits for it');
SELECT test.run('admin', 'COMMIT') \g /dev/null
SELECT is(test.answer('one'), 'not_found', 'and is refused');
SELECT test.run('one', 'BEGIN') \g /dev/null
SELECT is(test.run('one', $$SELECT test.outcome('[{"c":603,"s":601,"id":2}]')$$), 'stored 1', 'it has taken no number');
SELECT test.start('two', $$SELECT test.outcome('[{"c":603,"s":601,"id":2}]')$$);
SELECT ok(test.until_blocked('two'), 'the same message from another connection waits');
SELECT test.run('one', 'COMMIT') \g /dev/null
SELECT is(test.answer('two'), 'duplicate 1', 'and finds the first');

SELECT dblink_disconnect(name) FROM unnest('{one,two,admin}'::text[]) name \g /dev/null
DELETE FROM chat.conversations;
DELETE FROM chat.users;
DELETE FROM chat.refusals;
DELETE FROM chat.spool_positions;
SELECT * FROM finish();
