-- What requests read: plans that were made when the tables were empty must still be right when they are not. A page of history costs the
-- same at the beginning, in the middle and at the end of a long log.
BEGIN;
SELECT no_plan();

-- Statistics that say "empty" of tables that have pages: as on the day of the installation, and worse.
SELECT test.users(1, 2000);
INSERT INTO chat.conversations (id, type) SELECT id, 'group' FROM generate_series(1, 2000) id;
INSERT INTO chat.conversation_participants (conversation_id, user_id) SELECT id, id FROM generate_series(1, 2000) id;
INSERT INTO chat.blocked_users SELECT id, id + 1 FROM generate_series(1, 1999) id;
DELETE FROM chat.conversations;
DELETE FROM chat.users;
ANALYZE;
SELECT test.users(1, 3);
SELECT test.group(1, 1, 2);
SELECT test.append('[{"c":1,"s":1,"id":1,"body":"first"}]') \g /dev/null
SELECT chat.index_missed(0, 1000) \g /dev/null
SELECT test.ask(1, method, params::jsonb) FROM (VALUES ('user.get', '{"user":2}'), ('user.search', '{"query":"user"}'), ('user.blocked', '{}'), ('device.list', '{}'), ('conversation.list', '{}'), ('conversation.get', '{"conversation":1}'),
	('conversation.members', '{"conversation":1}'), ('message.history', '{"conversation":1}'), ('message.sync', '{"cursors":{}}'), ('message.status', '{"conversation":1,"seq":1}'), ('message.search', '{"query":"first"}'),
	('moderation.report', '{"conversation":1,"seq":1}'), ('moderation.list', '{}')) AS asked (method, params) \g /dev/null

SELECT test.users(4, 3000);
INSERT INTO chat.users (id, username) SELECT id, 'zoe' || id FROM generate_series(3001, 3050) id;
INSERT INTO chat.devices (id, user_id) SELECT id, id FROM generate_series(1, 3000) id;
INSERT INTO chat.conversations (id, type) SELECT id, 'group' FROM generate_series(2, 1000) id;
INSERT INTO chat.conversation_participants (conversation_id, user_id) SELECT id, member FROM generate_series(2, 1000) id, generate_series(id, id + 2) member;
INSERT INTO chat.blocked_users SELECT id, id + 1 FROM generate_series(1001, 2000) id;
-- A long log; every hundredth entry is a reaction to the one before.
INSERT INTO chat.messages (conversation_id, seq, ordinal, sender_id, client_id, content_hash, type, body, ref)
SELECT 1, seq, seq, 1 + seq % 2, test.uuid(seq), test.uuid(0), CASE WHEN seq % 100 = 0 THEN 'reaction' ELSE 'text' END, 'word' || seq % 1000, CASE WHEN seq % 100 = 0 THEN seq - 1 END FROM generate_series(2, 20000) seq;
UPDATE chat.conversations SET last_seq = 20000, last_ordinal = 20000 WHERE id = 1;
SELECT test.append((SELECT jsonb_agg(jsonb_build_object('c', c, 's', c, 'id', i)) FROM generate_series(1, 10) i)) FROM generate_series(2, 1000) c \g /dev/null

-- What was read since the last time: "table rows", by index; "!" marks one that was read whole.
CREATE FUNCTION pg_temp.cost(caller bigint, method text, params jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM test.rows_read('users', 'devices');
	IF test.error(caller, method, params) IS NOT NULL THEN
		RETURN test.error(caller, method, params);
	END IF;
	RETURN test.rows_read('users', 'devices');
END $$;
-- Pages of tables and indexes that a request looks at.
CREATE FUNCTION pg_temp.pages(caller bigint, method text, params jsonb) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	plan json;
BEGIN
	EXECUTE format('EXPLAIN (ANALYZE, BUFFERS, FORMAT json) SELECT chat_api.call(%L, %s, 0, ''x'', %L)', method, caller, params) INTO plan;
	RETURN (plan #>> '{0,Plan,Shared Hit Blocks}')::bigint + (plan #>> '{0,Plan,Shared Read Blocks}')::bigint;
END $$;

CREATE FUNCTION pg_temp.lifting() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	before bigint := (SELECT seq_scan FROM pg_stat_xact_user_tables WHERE relid = 'chat.users'::regclass);
BEGIN
	PERFORM chat.lift_suspensions();
	RETURN CASE WHEN (SELECT seq_scan FROM pg_stat_xact_user_tables WHERE relid = 'chat.users'::regclass) > before THEN '!' ELSE '' END;
END $$;

-- history: 50 entries, and of the one that has a reaction that, once to see that there is one and once for what it says.
SELECT is(pg_temp.cost(1, 'message.history', '{"conversation":1}'), 'conversation_participants 1, conversations 1, messages 52', 'the newest page reads its entries');
SELECT is(pg_temp.cost(1, 'message.history', '{"conversation":1,"before":10031}'), 'conversation_participants 1, conversations 1, messages 52', 'one in the middle no more');
SELECT is(pg_temp.cost(1, 'message.history', '{"conversation":500}'), 'not_found', 'what is not the caller''s is not found');
SELECT cmp_ok(max(pages) - min(pages), '<=', 12::bigint, format('in pages of 8 KB: %s', array_agg(pages)))
FROM (SELECT pg_temp.pages(1, 'message.history', params::jsonb) AS pages FROM unnest(ARRAY['{"conversation":1}', '{"conversation":1,"before":10031}', '{"conversation":1,"after":50}']) params) p;
SELECT cmp_ok(pg_temp.pages(1, 'message.history', '{"conversation":1,"before":10051}'), '<', 300::bigint, 'which are few');

-- lists
SELECT is(pg_temp.cost(1, 'conversation.get', '{"conversation":1}'), 'conversation_participants 1, conversations 1, messages 2, participant_watermarks 1', 'a conversation reads the end of its log');
SELECT is(pg_temp.cost(500, 'conversation.list', '{}'), 'conversation_participants 3, conversations 3, messages 3, participant_watermarks 3', 'a list of 3');
SELECT ok(pg_temp.cost(500, 'message.status', '{"conversation":500,"seq":1}') !~ '[0-9]{2}|!', 'what became of a message');
SELECT ok(coalesce(pg_temp.cost(2, 'user.get', '{"user":1}'), '') !~ '[0-9]{2}|!', 'a profile');

-- Users by the beginning of their names, of 3,050
CREATE FUNCTION pg_temp.users_read(caller bigint, params jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	before record;
	after record;
BEGIN
	SELECT seq_scan, idx_tup_fetch INTO before FROM pg_stat_xact_user_tables WHERE relid = 'chat.users'::regclass;
	PERFORM test.ask(caller, 'user.search', params);
	SELECT seq_scan, idx_tup_fetch INTO after FROM pg_stat_xact_user_tables WHERE relid = 'chat.users'::regclass;
	RETURN format('%s%s', after.idx_tup_fetch - before.idx_tup_fetch, CASE WHEN after.seq_scan > before.seq_scan THEN '!' END);
END $$;
SELECT is(pg_temp.users_read(1, '{"query":"zoe3001"}'), '2', 'one that is found: the caller and them');
SELECT is(pg_temp.users_read(1, '{"query":"zoe"}'), '22', '20 of 50: the caller, and 21');
SELECT is(pg_temp.users_read(1, '{"query":"user","limit":5}'), '7', '5 of 3,000: the caller, and 6');

-- sync: of 1,000 conversations, those of the caller; 10 missed in each of 3
SELECT ok(pg_temp.cost(500, 'message.sync', '{"cursors":{"498":0,"499":0,"500":0}}') ~ '^conversation_participants [0-9], conversations [0-9], messages 30, participant_watermarks 3$', 'sync reads what is missed');
SELECT ok(pg_temp.cost(500, 'message.sync', '{"cursors":{"498":10,"499":10,"500":10}}') ~ '^conversation_participants [0-9], conversations [0-9]$', 'of nothing missed no message');

-- Away from 200 conversations while 50 messages came in each: the first page has 50 of them, and costs what these cost.
SELECT test.users(5000, 5001);
INSERT INTO chat.conversations (id, type) SELECT id, 'group' FROM generate_series(2001, 2200) id;
INSERT INTO chat.conversation_participants (conversation_id, user_id, first_visible_seq) SELECT id, member, 1 FROM generate_series(2001, 2200) id, unnest(ARRAY[5000, 5001]) member;
INSERT INTO chat.messages (conversation_id, seq, ordinal, sender_id, client_id, content_hash, type, body)
SELECT id, seq, seq, 5001, test.uuid(id * 1000 + seq), test.uuid(0), 'text', repeat('x', 100) FROM generate_series(2001, 2200) id, generate_series(1, 100) seq;
UPDATE chat.conversations SET last_seq = 100, last_ordinal = 100 WHERE id BETWEEN 2001 AND 2200;
CREATE TEMP TABLE away AS SELECT jsonb_build_object('cursors', jsonb_object_agg(id, 50)) AS params FROM generate_series(2001, 2200) id;
SELECT cmp_ok(jsonb_array_length(test.ask(5000, 'message.sync', params) -> 'conversations'), '>=', 50, 'a page of 50 conversations') FROM away;
CREATE TEMP TABLE away_cost AS SELECT pg_temp.cost(5000, 'message.sync', params) AS cost FROM away;
SELECT cmp_ok(max((regexp_match(cost, name || ' ([0-9]+)(,|$)'))[1]::integer), '<=', most, format('at most %s of %s are read', most, name))
FROM away_cost, (VALUES ('conversation_participants', 1000), ('conversations', 600), ('messages', 2700), ('participant_watermarks', 52)) AS bounds (name, most) GROUP BY name, most;
SELECT ok(cost !~ '!', 'and nothing whole') FROM away_cost;
SELECT cmp_ok(pg_temp.pages(5000, 'message.sync', params), '<', 10000::bigint, 'in pages of 8 KB') FROM away;

-- search: an index that is filled behind the commits, and then read by word and conversation
INSERT INTO chat.search_positions SELECT id, last_seq FROM chat.conversations WHERE id BETWEEN 2001 AND 2200;
SELECT is((chat.index_messages('{1}', 100000)).indexed, 19999, 'a conversation is indexed');
SELECT is((chat.index_missed(0, 100000)).after, 1000::bigint, 'and all that are behind of the next thousand');
SELECT is((SELECT (sum(indexed_seq), count(*)) FROM chat.search_positions WHERE conversation_id BETWEEN 2 AND 1000), (9990::numeric, 999::bigint), 'to their ends');
SELECT is((chat.index_messages(ARRAY(SELECT id FROM chat.conversations), 100000)).indexed, 0, 'nothing is left');
SELECT test.rows_read('users', 'devices') \g /dev/null
SELECT chat.index_missed(0, 1000) \g /dev/null
SELECT is(test.rows_read('users', 'devices'), 'conversations 1000, search_positions 1000', 'a look at a thousand reads these, and no more where nothing is behind');
SELECT test.rows_read('users', 'devices') \g /dev/null
SELECT chat.index_messages('{1,2,3}', 100000) \g /dev/null
SELECT is(test.rows_read('users', 'devices'), 'conversations 9, search_positions 12', 'nothing new in three conversations: their rows');
SELECT is(jsonb_array_length(test.ask(1, 'message.search', '{"query":"word77"}') -> 'hits'), 20, 'a word that 20 messages have');
SELECT is(pg_temp.cost(1, 'message.search', '{"query":"word77"}'), 'conversation_participants 2, conversations 1, messages 160, search_entries 20', 'is found by reading the 20 runs that these are in');
SELECT is(pg_temp.cost(500, 'message.search', '{"query":"hello"}'), 'conversation_participants 6, conversations 3, messages 21, search_entries 6', 'a word that 9,990 have, by reading the runs of the caller''s conversations');
SELECT is(pg_temp.cost(3000, 'message.search', '{"query":"word77"}'), NULL, 'for a stranger nothing is read');

-- moderation: a list reads its page, whatever was decided before; reports of a day are counted, not those of a year
UPDATE chat.users SET moderator = true WHERE id = 3;
INSERT INTO chat.reports (conversation_id, seq, reporter_id, created_at, resolution, resolved_at) SELECT c, 1 + c % 10, 1, now() - interval '1 month', 'dismissed', now() FROM generate_series(2, 1000) c, generate_series(1, 5);
INSERT INTO chat.reports (conversation_id, seq, rule_id) SELECT c, 2, 7 FROM generate_series(2, 1000) c;
SELECT is(pg_temp.cost(3, 'moderation.list', '{"limit":10}'), 'conversation_participants 1, conversations 11, messages 11, reports 11', 'what is open');
SELECT is(pg_temp.cost(3, 'moderation.list', '{"limit":10,"state":"resolved","after":100}'), 'conversations 11, messages 11, reports 11', 'what was decided');
SELECT is(pg_temp.cost(1, 'moderation.report', '{"conversation":1,"seq":100}'), 'conversation_participants 1, conversations 2, messages 1, reports 1', 'a report');
UPDATE chat.users SET status = 'suspended' WHERE id > 1000;
SELECT ok(pg_temp.lifting() !~ '!', 'suspensions that end');

-- Every method: no table is read whole, and what is read is bounded, however much there is.
UPDATE chat.conversation_participants SET role = 'owner' WHERE conversation_id = 1 AND user_id = 1;
CREATE TEMP TABLE examples (place integer GENERATED ALWAYS AS IDENTITY, method text, params jsonb);
INSERT INTO examples (method, params) VALUES ('user.get', '{"user":2}'), ('user.update', '{"status_text":"here"}'), ('user.search', '{"query":"user"}'), ('user.block', '{"user":3}'),
	('user.blocked', '{}'), ('user.unblock', '{"user":3}'), ('device.list', '{}'), ('device.test_push', '{"device":1}'), ('device.update', '{"device":1,"name":"phone"}'), ('conversation.create', '{"type":"group","members":[2,3]}'),
	('conversation.create', '{"type":"direct","members":[3]}'), ('conversation.get', '{"conversation":1}'), ('conversation.list', '{}'), ('conversation.update', '{"conversation":1,"name":"long"}'),
	('conversation.members', '{"conversation":1}'), ('conversation.join', '{"conversation":1}'), ('conversation.add_members', '{"conversation":1,"members":[999]}'),
	('conversation.set_role', '{"conversation":1,"user":2,"role":"admin"}'), ('conversation.remove_members', '{"conversation":1,"members":[999]}'),
	('conversation.mute', '{"conversation":1,"muted_until":0}'), ('message.history', '{"conversation":1,"limit":200}'), ('message.sync', '{"cursors":{"1":100}}'),
	('message.status', '{"conversation":1,"seq":7}'), ('message.search', '{"query":"word77"}'), ('presence.get', '{"users":[2,3,999]}'),
	('presence.set', '{"status":"away"}'), ('conversation.leave', '{"conversation":1,"owner":2}'), ('device.remove', '{"device":1}');
SELECT is_empty($$SELECT name FROM chat_api.methods WHERE NOT native AND name NOT LIKE 'moderation.%' EXCEPT SELECT method FROM examples$$, 'no method is left out, but those above');
DISCARD PLANS; -- triggers' plans may be from the rows made by hand above
INSERT INTO chat.push_targets (device_id, provider, app, token) VALUES (1, 'fcm', 'app', 'token');
CREATE TEMP TABLE costs AS SELECT method, pg_temp.cost(1, method, params) AS cost FROM examples ORDER BY place;
SELECT is_empty($$SELECT method, cost FROM costs WHERE cost ~ '^[a-z_]+( [a-z]+)?$'$$, 'each was done');
SELECT is_empty($$SELECT method, cost FROM costs WHERE cost ~ '!'$$, 'none reads a table whole');
SELECT is_empty($$SELECT method, cost FROM costs WHERE (SELECT sum(rows[1]::bigint) FROM regexp_matches(cost, ' ([0-9]+)', 'g') AS rows) > 450$$, 'none reads more than twice what fits a page');

SELECT * FROM finish();
ROLLBACK;
