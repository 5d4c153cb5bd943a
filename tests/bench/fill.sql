-- fill.sql - a database as it is after months: direct conversations 1 … :conversations of the users 2n - 1 and 2n, and :rows messages
-- in them (a multiple of that), written in turn, so that a conversation's messages lie as far apart as they do in life.
-- For psql, as superuser, on an empty schema: -v rows=N -v conversations=N. Used by run.sh and schema_fill.sh.
SET session_replication_role = replica; -- no triggers: the rows below agree with each other
SET synchronous_commit = off;
INSERT INTO chat.users (id) SELECT generate_series(1, 2 * :conversations);
INSERT INTO chat.conversations (id, type, first_user_id, second_user_id, last_seq, last_ordinal)
SELECT id, 'direct', 2 * id - 1, 2 * id, :rows / :conversations, :rows / :conversations FROM generate_series(1, :conversations) id;
INSERT INTO chat.conversation_participants (conversation_id, user_id, joined_seq, first_visible_seq) SELECT (id + 1) / 2, id, 0, 1 FROM generate_series(1, 2 * :conversations) id;
INSERT INTO chat.participant_watermarks (conversation_id, user_id, delivered_seq, read_seq, read_ordinal) SELECT (id + 1) / 2, id, 0, 0, 0 FROM generate_series(1, 2 * :conversations) id;
ALTER TABLE chat.messages DROP CONSTRAINT messages_pkey, DROP CONSTRAINT messages_client_id_key;
INSERT INTO chat.messages (conversation_id, seq, ordinal, sender_id, sent_at, committed_at, client_id, content_hash, type, body)
SELECT 1 + place % :conversations, 1 + place / :conversations, 1 + place / :conversations, 1 + 2 * (place % :conversations) + place / :conversations % 2, now(), now(),
	md5(place::text)::uuid, md5(place::text)::uuid, 'text', repeat('x', 40)
FROM generate_series(0::bigint, :rows - 1) place;
-- As full as pages are that were filled in random order, or the first inserts would split every one.
CREATE UNIQUE INDEX messages_pkey ON chat.messages (conversation_id, seq) WITH (fillfactor = 70);
CREATE UNIQUE INDEX messages_client_id_key ON chat.messages (sender_id, client_id, conversation_id) WITH (fillfactor = 70);
SET session_replication_role = origin;
