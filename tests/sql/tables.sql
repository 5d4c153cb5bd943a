-- What the tables accept.
BEGIN;
SELECT plan(37);

SELECT test.users(1, 4);

-- Every table, view and column says what it is for: administrators read it with \d+.
SELECT is_empty($$
	SELECT c.relname FROM pg_class c WHERE c.relnamespace IN ('chat'::regnamespace, 'chat_api'::regnamespace) AND c.relkind IN ('r', 'p', 'v') AND obj_description(c.oid, 'pg_class') IS NULL
$$, 'every table and view has a comment');
SELECT is_empty($$
	SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
	WHERE c.relnamespace IN ('chat'::regnamespace, 'chat_api'::regnamespace) AND c.relkind IN ('r', 'p', 'v') AND a.attnum > 0 AND NOT a.attisdropped
		AND col_description(c.oid, a.attnum) IS NULL
$$, 'every column has a comment');
SELECT is_empty($$
	SELECT c.conrelid::regclass, c.conname FROM pg_constraint c
	WHERE c.contype = 'c' AND c.conrelid IN ('chat.messages'::regclass, 'chat.conversations'::regclass,
		'chat.participant_watermarks'::regclass, 'chat.spool_positions'::regclass)
$$, 'the tables that every batch writes have no CHECK constraints, which would be parsed each time');

-- Users
SELECT throws_ok($$INSERT INTO chat.users (username) VALUES ('USER1')$$, '23505', NULL, 'a user name is unique whatever its case');
SELECT throws_ok($$INSERT INTO chat.users (username) VALUES ('ab')$$, '23514', NULL, 'a user name of 2 characters is refused');
SELECT lives_ok($$INSERT INTO chat.users (id, username) VALUES (10, 'Ümläut 😀')$$, 'a user name may hold any script');
SELECT throws_ok($$INSERT INTO chat.users (id, username) VALUES (11, 'üMLÄUT 😀')$$, '23505', NULL, 'and its case is folded beyond ASCII');
SELECT throws_ok($$INSERT INTO chat.users (username) VALUES (repeat('a', 51))$$, '23514', NULL, 'a user name of 51 characters is refused');
SELECT throws_ok($$INSERT INTO chat.users (username) VALUES (E'al\u202Eice')$$, '23514', NULL, 'a direction mark in a user name is refused');
SELECT throws_ok($$INSERT INTO chat.users (username) VALUES (E'al\nice')$$, '23514', NULL, 'a control character in a user name is refused');
SELECT throws_ok($$INSERT INTO chat.users (username) VALUES (' alice')$$, '23514', NULL, 'a space around a user name is refused');
SELECT lives_ok($$INSERT INTO chat.users (id) VALUES (20), (21)$$, 'accounts without a user name can be many');
SELECT throws_ok($$INSERT INTO chat.users (id) VALUES (0)$$, '23514', NULL, 'user 0 is refused');
SELECT lives_ok($$INSERT INTO chat.users (id) VALUES (8796093022207)$$, 'user 2^43 - 1 is accepted');
SELECT throws_ok($$INSERT INTO chat.users (id) VALUES (8796093022208)$$, '23514', NULL, 'user 2^43 is refused: those bits are for the shard');
SELECT is((SELECT seqmax FROM pg_sequence WHERE seqrelid = pg_get_serial_sequence('chat.conversations', 'id')::regclass), 8796093022207, 'the counter of conversations ends there too');
SELECT throws_ok($$INSERT INTO chat.conversations (id, type) VALUES (8796093022208, 'group')$$, '23514', NULL, 'and so do numbers given by hand');
SELECT throws_ok($$UPDATE chat.users SET picture = repeat('x', 2001) WHERE id = 1$$, '23514', NULL, 'a picture''s address has at most 2,000 characters');
SELECT throws_ok($$UPDATE chat.users SET settings = '[]' WHERE id = 1$$, '23514', NULL, 'settings are an object');

-- Conversations
SELECT lives_ok($$INSERT INTO chat.conversations (id, type, first_user_id, second_user_id) VALUES (100, 'direct', 2, 1)$$, 'a direct conversation is made with its two users');
SELECT results_eq($$SELECT first_user_id, second_user_id FROM chat.conversations WHERE id = 100$$, $$VALUES (1::bigint, 2::bigint)$$, 'in the order of their ids');
SELECT results_eq($$SELECT user_id, role::text FROM chat.conversation_participants WHERE conversation_id = 100 ORDER BY 1$$, $$VALUES (1::bigint, 'member'), (2, 'member')$$, 'and both are members at once');
SELECT throws_ok($$INSERT INTO chat.conversations (type, first_user_id, second_user_id) VALUES ('direct', 1, 2)$$, '23505', NULL, 'once per pair');
SELECT throws_ok($$INSERT INTO chat.conversations (type, first_user_id, second_user_id) VALUES ('direct', 1, 1)$$, '23514', NULL, 'not with oneself');
SELECT throws_ok($$INSERT INTO chat.conversations (type, first_user_id) VALUES ('direct', 1)$$, '23514', NULL, 'not without the other');
SELECT throws_ok($$INSERT INTO chat.conversations (type, first_user_id, second_user_id) VALUES ('direct', 1, 999)$$, '23503', NULL, 'not with a stranger');
SELECT throws_ok($$INSERT INTO chat.conversations (type, first_user_id, second_user_id) VALUES ('group', 1, 2)$$, '23514', NULL, 'a group has no pair');
SELECT throws_ok($$INSERT INTO chat.conversation_participants (conversation_id, user_id) VALUES (100, 3)$$, '23514', NULL, 'nobody joins a direct conversation');
SELECT throws_ok($$UPDATE chat.conversations SET second_user_id = 3 WHERE id = 100$$, '23514', NULL, 'its pair stays');
SELECT throws_ok($$UPDATE chat.conversations SET type = 'group' WHERE id = 100$$, '23514', NULL, 'its type stays');
SELECT throws_ok($$UPDATE chat.conversations SET id = 101 WHERE id = 100$$, '23514', NULL, 'its id stays');
SELECT throws_ok($$INSERT INTO chat.conversations (type, is_public) VALUES ('group', true)$$, '23514', NULL, 'only channels are public');

-- Participants
SELECT test.group(200, 1);
SELECT throws_ok($$UPDATE chat.conversation_participants SET user_id = 2 WHERE conversation_id = 200$$, 'P0001', NULL, 'a participant''s row keeps its user');
SELECT throws_ok($$INSERT INTO chat.conversation_participants (conversation_id, user_id) VALUES (999, 1)$$, '23503', NULL, 'a participant needs a conversation');
SELECT throws_ok($$INSERT INTO chat.blocked_users VALUES (1, 1)$$, '23514', NULL, 'nobody blocks themself');
INSERT INTO chat.blocked_users VALUES (1, 2);
SELECT throws_ok($$UPDATE chat.blocked_users SET user_id = 3$$, 'P0001', NULL, 'a block is not changed into another');

-- Push targets
INSERT INTO chat.devices (id, user_id) VALUES (1, 1);
SELECT throws_ok($$INSERT INTO chat.push_targets (device_id, provider, app, token) VALUES (1, 'webpush', 'app', 'x')$$, '23514', NULL, 'a browser has a subscription, not a token');

SELECT * FROM finish();
ROLLBACK;
