-- The people and conversations of the quick start. Safe to run again: what is there stays as it is.
--
--   users          alice 1, bob 2, carol 3, dave 4
--   conversations  1 direct: alice and bob; 2 group: alice, bob and carol; 3 public channel "tv": alice posts, anyone signed in reads
BEGIN;

INSERT INTO chat.users (id, username, display_name) VALUES
	(1, 'alice', 'Alice'),
	(2, 'bob', 'Bob'),
	(3, 'carol', 'Carol'),
	(4, 'dave', 'Dave')
ON CONFLICT DO NOTHING;

INSERT INTO chat.conversations (id, type, first_user_id, second_user_id) VALUES (1, 'direct', 1, 2) ON CONFLICT DO NOTHING;
INSERT INTO chat.conversations (id, type, name) VALUES (2, 'group', 'Demo group') ON CONFLICT DO NOTHING;
INSERT INTO chat.conversations (id, type, name, is_public) VALUES (3, 'channel', 'tv', true) ON CONFLICT DO NOTHING;

INSERT INTO chat.conversation_participants (conversation_id, user_id, role) VALUES
	(2, 1, 'owner'),
	(2, 2, 'member'),
	(2, 3, 'member'),
	(3, 1, 'owner')
ON CONFLICT DO NOTHING;

-- Rows with numbers of their own leave the counters behind them where they were.
SELECT setval(pg_get_serial_sequence('chat.users', 'id'), greatest((SELECT max(id) FROM chat.users), nextval(pg_get_serial_sequence('chat.users', 'id')) - 1)) \g /dev/null
SELECT setval(pg_get_serial_sequence('chat.conversations', 'id'), greatest((SELECT max(id) FROM chat.conversations), nextval(pg_get_serial_sequence('chat.conversations', 'id')) - 1)) \g /dev/null

COMMIT;
