-- What is edited, deleted, too old or expired is gone: from the log, from the index of words, and from what is pushed.
--
-- Reactions, edits and deletions ("acts") are entries of the log as before. What is new:
--
--   an edit      puts its text into the message that it is about; the text before is nowhere any more. The edit keeps a copy, for devices
--                that hold the message already, until the next edit
--   a deletion   leaves of the message its number, its sender and its id (so that a resend is still answered); type `deleted`
--   expiry       the same, by chat.sweep; type `expired`. Before it comes by, reads hide what is due by the clock
--   retention    chat.trim_logs removes the beginning of a log; conversations.first_seq says where it now begins
--
-- Whether an act may be is decided at commit, under the conversation's lock (chat.store_act), and each that is stored has an effect:
-- a client that counts reactions as it hears of them has the same numbers as one that asks.
--
-- Locks: message rows come after conversations and before search positions. chat.sweep takes message rows without the conversation, and
-- gives up where it would have to wait.

ALTER TABLE chat.messages ADD COLUMN edited_at timestamptz;
COMMENT ON COLUMN chat.messages.edited_at IS 'When body was last edited.';
COMMENT ON COLUMN chat.messages.type IS 'text, image, video, audio, file, reaction, edit, delete, opaque, x-…, or system; deleted or expired where the '
	'content is gone.';
COMMENT ON COLUMN chat.messages.body IS 'The text, or what the type says. NULL in what was erased.';
ALTER TABLE chat.messages ADD COLUMN edit_seq bigint;
COMMENT ON COLUMN chat.messages.edit_seq IS 'The number of the last edit, which has a copy of the text.';
CREATE INDEX messages_expires_at ON chat.messages (expires_at) WHERE expires_at IS NOT NULL AND type <> 'expired';

CREATE DOMAIN chat.lifetime AS integer CHECK (VALUE BETWEEN 1 AND 31536000);
COMMENT ON DOMAIN chat.lifetime IS 'Seconds, up to 365 days.';
ALTER TABLE chat.conversations ADD COLUMN expires_in chat.lifetime, ADD COLUMN removed_ordinal bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN chat.conversations.expires_in IS 'Seconds after which messages that name no expires_in of their own cease to be shown; NULL: they stay.';
COMMENT ON COLUMN chat.conversations.removed_ordinal IS 'messages.ordinal of the last entry that retention removed.';
GRANT INSERT (expires_in), UPDATE (expires_in) ON chat.conversations TO chat_admin;

-- Cut off, as the plugin does it: both tell the same time of an entry.
CREATE OR REPLACE FUNCTION chat_api.ms(at timestamptz) RETURNS bigint LANGUAGE sql STABLE AS $$
	SELECT CASE WHEN isfinite(at) THEN floor(extract(epoch FROM at) * 1000)::bigint WHEN at = 'infinity' THEN 0 END
$$;

-- -- mentions ----------------------------------------------------------------------------------------------------------

-- No foreign keys: an append may not wait for a participant's row (see the head of 0001_tables.sql).
CREATE TABLE chat.mentions (
	conversation_id bigint NOT NULL,
	user_id bigint NOT NULL,
	seq bigint NOT NULL,
	expires_at timestamptz,
	PRIMARY KEY (conversation_id, user_id, seq)
);
CREATE INDEX mentions_message ON chat.mentions (conversation_id, seq);
COMMENT ON TABLE chat.mentions IS 'Members that a message mentions. What was read goes when the next mention of the same member comes.';
COMMENT ON COLUMN chat.mentions.conversation_id IS 'The conversation.';
COMMENT ON COLUMN chat.mentions.user_id IS 'Who is mentioned.';
COMMENT ON COLUMN chat.mentions.seq IS 'The message.';
COMMENT ON COLUMN chat.mentions.expires_at IS 'When the message ceases to be shown.';

-- After the messages were stored, and for the few that mention anybody.
CREATE FUNCTION chat.note_mentions(p_conversation bigint[], p_sender bigint[], p_client_id uuid[], p_extra jsonb[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET jit = off AS $$
BEGIN
	WITH mentioned AS MATERIALIZED (
		SELECT m.conversation_id, p.user_id, max(m.seq) AS seq, max(m.expires_at) AS expires_at
		FROM generate_subscripts(p_extra, 1) AS place
		CROSS JOIN LATERAL (SELECT * FROM chat.messages WHERE sender_id = p_sender[place] AND client_id = p_client_id[place]
			AND conversation_id + 0 = p_conversation[place] OFFSET 0) m
		CROSS JOIN LATERAL (SELECT DISTINCT name::bigint AS user_id FROM jsonb_array_elements_text(m.extra -> 'mentions') AS name) named
		CROSS JOIN LATERAL (SELECT user_id FROM chat.conversation_participants
			WHERE conversation_id = m.conversation_id AND user_id = named.user_id AND first_visible_seq <= m.seq OFFSET 0) p
		WHERE p_extra[place] ? 'mentions' AND m.ref IS NULL AND p.user_id <> m.sender_id
		GROUP BY m.conversation_id, p.user_id, m.seq
	), read AS (
		DELETE FROM chat.mentions old
		USING (SELECT DISTINCT conversation_id, user_id FROM mentioned) now
		WHERE old.conversation_id = ANY (ARRAY[now.conversation_id]) AND old.user_id = now.user_id AND old.seq <=
			(SELECT read_seq FROM chat.participant_watermarks WHERE conversation_id = now.conversation_id AND user_id = now.user_id)
	)
	INSERT INTO chat.mentions (conversation_id, user_id, seq, expires_at)
	SELECT conversation_id, user_id, seq, expires_at FROM mentioned ORDER BY conversation_id, user_id, seq
	ON CONFLICT DO NOTHING;
END $$;
COMMENT ON FUNCTION chat.note_mentions IS 'Records whom the messages of a batch mention: members, not the sender.';

CREATE FUNCTION chat.forget_mentions() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	DELETE FROM chat.mentions n USING before b WHERE n.conversation_id = b.conversation_id AND n.user_id = b.user_id;
	RETURN NULL;
END $$;
CREATE TRIGGER mentions_forgotten AFTER DELETE ON chat.conversation_participants
	REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION chat.forget_mentions();

-- -- erasing -----------------------------------------------------------------------------------------------------------

CREATE FUNCTION chat.is_gone(p_conversation bigint, p_seq bigint) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
	RETURN (SELECT m.type IN ('deleted', 'expired') OR m.expires_at <= now() IS TRUE FROM chat.messages m
		WHERE conversation_id = p_conversation AND seq BETWEEN p_seq AND p_seq ORDER BY seq) IS NOT FALSE;
END $$;
COMMENT ON FUNCTION chat.is_gone IS 'Whether there is nothing to be shown of an entry any more: deleted, expired, or removed by retention.';

-- On young tables the planner may answer a condition on conversation and number by the index of the senders' ids, of which it reads all. So rows
-- are found in the order of seq, which the primary key alone has, and changed by their place. The last edit of a message, the only one
-- that keeps a text, is known by its number.
CREATE FUNCTION chat.erase_edits(p_conversation bigint[], p_seq bigint[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET jit = off AS $$
BEGIN
	UPDATE chat.messages m SET body = NULL, extra = NULL
	FROM (SELECT edit.ctid FROM unnest(p_conversation, p_seq) AS edited (conversation_id, seq)
		CROSS JOIN LATERAL (SELECT edit_seq FROM chat.messages WHERE conversation_id = edited.conversation_id
			AND seq BETWEEN edited.seq AND edited.seq ORDER BY seq OFFSET 0) t
		CROSS JOIN LATERAL (SELECT ctid FROM chat.messages WHERE conversation_id = edited.conversation_id
			AND seq BETWEEN t.edit_seq AND t.edit_seq ORDER BY seq OFFSET 0) edit OFFSET 0) edit
	WHERE m.ctid = edit.ctid;
END $$;
COMMENT ON FUNCTION chat.erase_edits IS 'Takes the content of the last edits of these messages away; those before have none.';

-- Who stores an act holds the conversation; chat.sweep does not, so the rows are looked at again.
CREATE FUNCTION chat.erase(p_conversation bigint[], p_seq bigint[], p_type text) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET jit = off AS $$
DECLARE
	v_erased integer;
BEGIN
	PERFORM chat.erase_edits(p_conversation, p_seq);
	UPDATE chat.messages m SET type = p_type, body = NULL, extra = NULL, reply_to = NULL, edited_at = NULL, edit_seq = NULL,
		expires_at = CASE p_type WHEN 'expired' THEN m.expires_at END
	FROM (SELECT gone.ctid FROM unnest(p_conversation, p_seq) AS wanted (conversation_id, seq)
		CROSS JOIN LATERAL (SELECT ctid FROM chat.messages WHERE conversation_id = wanted.conversation_id
			AND seq BETWEEN wanted.seq AND wanted.seq ORDER BY seq OFFSET 0) gone OFFSET 0) gone
	WHERE m.ctid = gone.ctid AND m.type NOT IN ('deleted', 'expired');
	GET DIAGNOSTICS v_erased = ROW_COUNT;
	DELETE FROM chat.mentions n USING unnest(p_conversation, p_seq) AS gone (conversation_id, seq)
	WHERE n.conversation_id = ANY (ARRAY[gone.conversation_id]) AND n.seq = gone.seq;
	RETURN v_erased;
END $$;
COMMENT ON FUNCTION chat.erase IS 'Takes the content of messages and of their edits away; what stays is the row, as "deleted" or "expired".';

-- A row that is changed here is found by its words again when the edit is indexed; the place among the results stays.
CREATE OR REPLACE FUNCTION chat.search_forget() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
BEGIN
	-- The lock keeps the indexer from what is being removed, and waits for one that has just read it.
	INSERT INTO chat.search_positions (conversation_id, indexed_seq)
	SELECT DISTINCT conversation_id, 0 FROM before ORDER BY conversation_id ON CONFLICT DO NOTHING;
	PERFORM FROM chat.search_positions WHERE conversation_id = ANY (ARRAY(SELECT conversation_id FROM before)) ORDER BY conversation_id FOR UPDATE;
	IF TG_OP = 'DELETE' THEN
		DELETE FROM chat.search_entries e USING before b WHERE e.conversation_id = ANY (ARRAY[b.conversation_id]) AND e.seq = b.seq;
	ELSE
		DELETE FROM chat.search_entries e
		USING (SELECT now.conversation_id, now.seq FROM before JOIN now USING (conversation_id, seq)
			WHERE now.body IS NULL OR now.type <> before.type OFFSET 0) gone
		WHERE e.conversation_id = ANY (ARRAY[gone.conversation_id]) AND e.seq = gone.seq;
		UPDATE chat.search_entries e SET words = array_to_tsvector(ARRAY['#' || e.conversation_id])
		FROM (SELECT now.conversation_id, now.seq FROM before JOIN now USING (conversation_id, seq) WHERE now.body <> before.body OFFSET 0) changed
		WHERE e.conversation_id = ANY (ARRAY[changed.conversation_id]) AND e.seq = changed.seq;
	END IF;
	RETURN NULL;
END $$;

-- Its text is in the message itself; a copy that is there still is the last one.
CREATE OR REPLACE VIEW chat.message_acts AS
SELECT a.conversation_id, a.ref, a.seq, a.type, a.sender_id, a.sent_at, a.body, a.extra -> 'remove' IS NOT DISTINCT FROM 'true' AS removes
FROM chat.messages a
WHERE a.ref IS NOT NULL AND (a.type IN ('reaction', 'delete') OR a.type = 'edit' AND a.body IS NOT NULL);
COMMENT ON VIEW chat.message_acts IS 'Reactions, deletions, and of each message the last edit.';

-- -- reactions, edits, deletions -----------------------------------------------------------------------------------------

CREATE FUNCTION chat.reactions(p_conversation bigint, p_first bigint, p_last bigint, p_as_of bigint)
RETURNS TABLE (ref bigint, sender_id bigint, body text, since bigint) LANGUAGE sql STABLE AS $$
	SELECT ref, sender_id, body, seq
	FROM (
		SELECT ref, sender_id, body, seq, removes, row_number() OVER (PARTITION BY ref, sender_id, body ORDER BY seq DESC) AS place,
			-- A removal that names none takes back all that came before it.
			max(seq) FILTER (WHERE removes AND coalesce(body, '') = '') OVER (PARTITION BY ref, sender_id) AS emptied
		FROM chat.message_acts
		WHERE conversation_id = p_conversation AND ref BETWEEN p_first AND p_last AND seq <= p_as_of AND type = 'reaction'
	) acts
	WHERE place = 1 AND NOT removes AND seq > coalesce(emptied, 0) AND char_length(body) <= 64
$$;
COMMENT ON FUNCTION chat.reactions IS 'Reactions that stand: of the messages of a range, up to an entry.';

-- Each user may change their mind so often about one message: whoever reads the message reads all that was said about it.
CREATE FUNCTION chat.reactions_max() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 100';
COMMENT ON FUNCTION chat.reactions_max IS 'How many reactions and removals of one user there can be about one message.';
CREATE FUNCTION chat.reaction_kinds_max() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 50';
COMMENT ON FUNCTION chat.reaction_kinds_max IS 'How many kinds of reactions there can be to one message.';

CREATE FUNCTION chat.reaction_objection(p_conversation bigint, p_ref bigint, p_sender bigint, p_body text, p_removes boolean) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	v_own boolean;
	v_kinds text[];
BEGIN
	IF char_length(p_body) > 64 THEN
		RETURN 'too_long';
	ELSIF coalesce(p_body, '') = '' AND NOT p_removes THEN
		RETURN 'invalid_field';
	END IF;
	SELECT bool_or(sender_id = p_sender AND body = coalesce(nullif(p_body, ''), body)), array_agg(DISTINCT body) INTO v_own, v_kinds
	FROM chat.reactions(p_conversation, p_ref, p_ref, 9223372036854775807);
	IF p_removes THEN
		RETURN CASE WHEN v_own IS NOT TRUE THEN 'not_found' END;
	ELSIF v_own THEN
		RETURN 'conflict';
	ELSIF cardinality(v_kinds) >= chat.reaction_kinds_max() AND p_body <> ALL (v_kinds)
		OR (SELECT count(*) FROM chat.message_acts WHERE conversation_id = p_conversation AND ref BETWEEN p_ref AND p_ref
			AND type = 'reaction' AND sender_id = p_sender) >= chat.reactions_max() THEN
		RETURN 'quota_exceeded';
	END IF;
	RETURN NULL;
END $$;
COMMENT ON FUNCTION chat.reaction_objection IS 'Why a reaction, or taking one back, would change nothing or may not be; NULL: it may.';

-- The sender is a member who may post, and the conversation is locked.
CREATE FUNCTION chat.store_act(p_conversation bigint, p_seq bigint, p_ordinal bigint, p_first bigint, p_role chat.participant_role,
	p_sender bigint, p_client_id uuid, p_content_hash uuid, p_type text, p_body text, p_reply_to bigint, p_ref bigint, p_extra jsonb,
	p_sent_at timestamptz, p_edit_window_s bigint) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	v_code text;
	target record;
BEGIN
	SELECT sender_id, type, sent_at INTO target FROM chat.messages WHERE conversation_id = p_conversation AND seq BETWEEN p_ref AND p_ref ORDER BY seq;
	v_code := CASE
		WHEN target.type IS NULL OR p_ref < p_first AND target.sender_id IS DISTINCT FROM p_sender
			OR target.type IN ('reaction', 'edit', 'delete') THEN 'invalid_field'
		WHEN chat.is_gone(p_conversation, p_ref) THEN 'not_found'
		WHEN p_type = 'reaction' THEN
			chat.reaction_objection(p_conversation, p_ref, p_sender, p_body, p_extra -> 'remove' IS NOT DISTINCT FROM 'true')
		WHEN target.type = 'system' THEN 'forbidden'
		WHEN p_type = 'edit' THEN CASE WHEN target.sender_id <> p_sender
			OR p_edit_window_s > 0 AND p_sent_at > target.sent_at + p_edit_window_s * interval '1 second' THEN 'forbidden' END
		WHEN target.sender_id <> p_sender AND p_role < 'admin' THEN 'forbidden'
	END;
	IF v_code IS NOT NULL THEN
		RETURN v_code;
	END IF;
	IF p_type = 'edit' THEN
		PERFORM chat.erase_edits(ARRAY[p_conversation], ARRAY[p_ref]);
		UPDATE chat.messages m SET body = p_body, edited_at = p_sent_at, edit_seq = p_seq
		FROM (SELECT ctid FROM chat.messages WHERE conversation_id = p_conversation AND seq BETWEEN p_ref AND p_ref ORDER BY seq OFFSET 0) edited
		WHERE m.ctid = edited.ctid AND m.type NOT IN ('deleted', 'expired');
		IF NOT FOUND THEN
			RETURN 'not_found'; -- it has expired at this moment
		END IF;
	ELSIF p_type = 'delete' THEN
		PERFORM chat.erase(ARRAY[p_conversation], ARRAY[p_ref], 'deleted');
	END IF;
	INSERT INTO chat.messages (conversation_id, seq, ordinal, sender_id, sent_at, committed_at, reply_to, ref, client_id, content_hash, type, body, extra)
	VALUES (p_conversation, p_seq, p_ordinal, p_sender, p_sent_at, clock_timestamp(), p_reply_to, p_ref, p_client_id, p_content_hash, p_type, p_body, p_extra);
	RETURN NULL;
END $$;
COMMENT ON FUNCTION chat.store_act IS 'Stores a reaction, edit or deletion under a number and does what it says; or returns why it may not be.';

-- -- appending ---------------------------------------------------------------------------------------------------------

-- As in 0009_append_speed.sql, but: acts are stored one by one (chat.store_act), so a batch that holds one is of the third length; an
-- expiry comes from the conversation where the message names none, and is part of the answer; mentions are noted.
DROP FUNCTION chat.append_messages(uuid, smallint[], bigint[], bigint[], bigint[], bigint[], bigint[], uuid[], uuid[], text[], text[], bigint[], bigint[],
	jsonb[], timestamptz[], timestamptz[]);
DROP FUNCTION chat.append_carefully(bigint[], bigint[], bigint[], uuid[], uuid[], text[], text[], bigint[], bigint[], jsonb[], timestamptz[], timestamptz[]);
DROP FUNCTION chat.settle_messages(bigint[], bigint[], uuid[], uuid[], timestamptz[]);

CREATE FUNCTION chat.append_carefully(
	p_conversation bigint[], p_sender bigint[], p_device bigint[], p_client_id uuid[], p_content_hash uuid[], p_type text[], p_body text[],
	p_reply_to bigint[], p_ref bigint[], p_extra jsonb[], p_sent_at timestamptz[], p_expires_at timestamptz[], p_edit_window_s bigint)
RETURNS TABLE (ordinal integer, status smallint, seq bigint, sent_at timestamptz, code text, members_version bigint, expires_at timestamptz)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
	k_stored CONSTANT smallint := 1;
	k_duplicate CONSTANT smallint := 2;
	k_refused CONSTANT smallint := 3;
	v_count CONSTANT integer := cardinality(p_conversation);
	v_now CONSTANT timestamptz := clock_timestamp();
	-- The answer, by the message's place in the batch.
	v_status smallint[] := array_fill(k_refused, ARRAY[v_count]);
	v_seq bigint[] := array_fill(NULL::bigint, ARRAY[v_count]);
	v_ordinal bigint[] := v_seq; -- set for those that are stored
	v_sent_at timestamptz[] := p_sent_at;
	v_expires_at timestamptz[] := p_expires_at;
	v_code text[] := array_fill(NULL::text, ARRAY[v_count]);
	v_version bigint[] := v_seq;
	-- The counters of the conversation that the loop is in, and those of the conversations that it has left.
	v_conversation bigint;
	v_last_seq bigint;
	v_last_ordinal bigint;
	v_conversations bigint[] := '{}';
	v_last_seqs bigint[] := '{}';
	v_last_ordinals bigint[] := '{}';
	v_repeated uuid[]; -- ids that occur more than once in this batch
	v_stored integer[] := '{}'; -- places, in the order of conversation and number
	v_refused boolean := false;
	v_act boolean;
	v_first integer;
	i integer;
	m record;
BEGIN
	IF v_count > 1 THEN
		SELECT array_agg(client_id) INTO v_repeated
		FROM (SELECT client_id FROM unnest(p_client_id) AS client_id GROUP BY client_id HAVING count(*) > 1) repeated;
	END IF;

	-- Look, and number.
	FOR m IN
		SELECT batch.i, batch.conversation_id, c.last_seq, c.last_ordinal, c.members_version, c.expires_in * interval '1 second' AS lifetime, p.role,
			CASE WHEN c.is_public THEN c.first_seq ELSE greatest(c.first_seq, p.first_visible_seq) END AS first_visible,
			known.seq AS known_seq, known.sent_at AS known_sent_at,
			CASE
				-- What was stored stays stored, whatever became of its sender since.
				WHEN known.seq IS NOT NULL THEN CASE WHEN known.content_hash = p_content_hash[batch.i] THEN NULL ELSE 'conflict' END
				WHEN u.status IS DISTINCT FROM 'active' OR p_device[batch.i] <> 0 AND (d.user_id = u.id AND d.revoked_at IS NULL) IS NOT TRUE THEN 'unauthenticated'
				WHEN p.role IS NULL THEN CASE WHEN c.is_public THEN 'forbidden' ELSE 'not_found' END
				WHEN p.role = 'reader' THEN 'forbidden'
				WHEN c.blocked THEN 'blocked'
				-- Only what is committed can be answered: the numbers of this batch are known to nobody yet.
				WHEN p_reply_to[batch.i] NOT BETWEEN 1 AND c.last_seq THEN 'invalid_field'
				WHEN p_ref[batch.i] NOT BETWEEN c.first_seq AND c.last_seq THEN 'invalid_field'
			END AS code
		FROM (SELECT place AS i, p_conversation[place] AS conversation_id, p_sender[place] AS sender_id
			FROM generate_series(1, v_count) AS place
			ORDER BY conversation_id, i) batch
		LEFT JOIN LATERAL (SELECT * FROM chat.conversations WHERE id = batch.conversation_id OFFSET 0) c ON true
		LEFT JOIN LATERAL (SELECT * FROM chat.users WHERE id = batch.sender_id OFFSET 0) u ON true
		LEFT JOIN LATERAL (SELECT * FROM chat.devices WHERE id = p_device[batch.i] OFFSET 0) d ON true
		LEFT JOIN LATERAL (SELECT * FROM chat.conversation_participants
			WHERE conversation_id = batch.conversation_id AND user_id = batch.sender_id OFFSET 0) p ON true
		LEFT JOIN LATERAL (SELECT * FROM chat.messages
			WHERE sender_id = batch.sender_id AND client_id = p_client_id[batch.i]
				AND conversation_id + 0 = batch.conversation_id -- "+ 0" keeps the primary key out of it: see chat.messages
			OFFSET 0) known ON true
		ORDER BY batch.conversation_id, batch.i
	LOOP
		i := m.i;
		IF m.conversation_id IS DISTINCT FROM v_conversation THEN
			IF v_conversation IS NOT NULL THEN
				v_conversations := v_conversations || v_conversation;
				v_last_seqs := v_last_seqs || v_last_seq;
				v_last_ordinals := v_last_ordinals || v_last_ordinal;
			END IF;
			v_conversation := m.conversation_id;
			v_last_seq := m.last_seq;
			v_last_ordinal := m.last_ordinal;
		END IF;
		v_version[i] := m.members_version;
		v_act := p_type[i] IN ('reaction', 'edit', 'delete');

		IF m.code IS NOT NULL THEN
			v_code[i] := m.code;
			v_refused := true;
			CONTINUE;
		ELSIF m.known_seq IS NOT NULL THEN
			v_status[i] := k_duplicate;
			v_seq[i] := m.known_seq;
			v_sent_at[i] := m.known_sent_at;
			CONTINUE;
		END IF;

		IF p_client_id[i] = ANY (v_repeated) THEN
			-- The first of its id that could be stored was; the others are measured by it.
			SELECT min(place) INTO v_first FROM generate_series(1, v_count) AS place
			WHERE p_client_id[place] = p_client_id[i] AND p_sender[place] = p_sender[i] AND p_conversation[place] = v_conversation
				AND v_ordinal[place] IS NOT NULL;
			IF v_first IS NOT NULL THEN
				IF p_content_hash[v_first] = p_content_hash[i] THEN
					v_status[i] := k_duplicate;
					v_seq[i] := v_seq[v_first];
					v_sent_at[i] := p_sent_at[v_first];
				ELSE
					v_code[i] := 'conflict';
					v_refused := true;
				END IF;
				CONTINUE;
			END IF;
		END IF;

		IF v_act THEN
			v_code[i] := chat.store_act(v_conversation, v_last_seq + 1, v_last_ordinal, m.first_visible, m.role, p_sender[i], p_client_id[i],
				p_content_hash[i], p_type[i], p_body[i], p_reply_to[i], p_ref[i], p_extra[i], p_sent_at[i], p_edit_window_s);
			IF v_code[i] IS NOT NULL THEN
				v_refused := true;
				CONTINUE;
			END IF;
			v_expires_at[i] := NULL;
		ELSE
			v_last_ordinal := v_last_ordinal + 1;
			v_expires_at[i] := coalesce(p_expires_at[i], p_sent_at[i] + m.lifetime);
			v_stored := v_stored || i;
		END IF;
		v_last_seq := v_last_seq + 1;
		v_status[i] := k_stored;
		v_seq[i] := v_last_seq;
		v_ordinal[i] := v_last_ordinal;
	END LOOP;
	v_conversations := v_conversations || v_conversation;
	v_last_seqs := v_last_seqs || v_last_seq;
	v_last_ordinals := v_last_ordinals || v_last_ordinal;

	-- Store. Neighbours in a conversation are inserted one after the other: their index pages are still at hand.
	IF cardinality(v_stored) > 0 THEN
		INSERT INTO chat.messages (conversation_id, seq, ordinal, sender_id, sent_at, committed_at, reply_to, expires_at,
			client_id, content_hash, type, body, extra)
		SELECT p_conversation[place], v_seq[place], v_ordinal[place], p_sender[place], p_sent_at[place], v_now,
			p_reply_to[place], v_expires_at[place],
			p_client_id[place], p_content_hash[place], p_type[place], p_body[place], p_extra[place]
		FROM unnest(v_stored) AS place;
		IF cardinality(array_remove(p_extra, NULL)) > 0 THEN
			PERFORM chat.note_mentions(p_conversation, p_sender, p_client_id, p_extra);
		END IF;
	END IF;
	IF k_stored = ANY (v_status) THEN
		UPDATE chat.conversations SET last_seq = now.last_seq, last_ordinal = now.last_ordinal
		FROM unnest(v_conversations, v_last_seqs, v_last_ordinals) AS now (id, last_seq, last_ordinal)
		WHERE conversations.id = ANY (ARRAY[now.id]) AND conversations.last_seq <> now.last_seq;

		-- Who writes has seen what came before.
		UPDATE chat.participant_watermarks w
		SET delivered_seq = own.seq, read_seq = own.seq, read_ordinal = own.ordinal, delivered_at = v_now, read_at = v_now
		FROM (SELECT p_conversation[place] AS conversation_id, p_sender[place] AS user_id,
				max(v_seq[place]) AS seq, max(v_ordinal[place]) AS ordinal
			FROM generate_series(1, v_count) AS place WHERE v_status[place] = k_stored GROUP BY 1, 2 ORDER BY 1, 2) own
		WHERE w.conversation_id = ANY (ARRAY[own.conversation_id]) AND w.user_id = own.user_id;
	END IF;
	IF v_refused THEN
		INSERT INTO chat.refusals (user_id, device_id, conversation_id, client_id, code, sent_at, refused_at)
		SELECT p_sender[place], nullif(p_device[place], 0), p_conversation[place], p_client_id[place], v_code[place],
			p_sent_at[place], v_now
		FROM generate_series(1, v_count) AS place WHERE v_status[place] = k_refused;
	END IF;

	RETURN QUERY SELECT place, v_status[place], v_seq[place], CASE WHEN v_status[place] <> k_refused THEN v_sent_at[place] END,
		v_code[place], coalesce(v_version[place], 0), CASE WHEN v_status[place] = k_stored THEN v_expires_at[place] END
	FROM generate_series(1, v_count) AS place;
END $$;
COMMENT ON FUNCTION chat.append_carefully IS 'The part of chat.append_messages that decides message by message. The caller holds the '
	'conversations'' locks.';

CREATE FUNCTION chat.append_messages(
	p_spool uuid, p_slots smallint[], p_from bigint[], p_to bigint[],
	p_conversation bigint[], p_sender bigint[], p_device bigint[], p_client_id uuid[], p_content_hash uuid[], p_type text[], p_body text[],
	p_reply_to bigint[], p_ref bigint[], p_extra jsonb[], p_sent_at timestamptz[], p_expires_at timestamptz[], p_edit_window_s bigint DEFAULT 0)
RETURNS TABLE (ordinal integer, status smallint, seq bigint, sent_at timestamptz, code text, members_version bigint, expires_at timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_mergejoin = off SET enable_material = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
	k_acts CONSTANT text[] := '{reaction,edit,delete}';
BEGIN
	-- 1. The positions. Who else may still be committing these very records is waited for, and has then won.
	IF cardinality(p_slots) = 1 THEN
		UPDATE chat.spool_positions SET position_committed = p_to[1]
		WHERE spool = p_spool AND slot = p_slots[1] AND position_committed = p_from[1];
	END IF;
	IF cardinality(p_slots) > 1 OR cardinality(p_slots) = 1 AND NOT FOUND THEN
		PERFORM chat.move_positions(p_spool, p_slots, p_from, p_to);
	END IF;

	-- 2. The conversations in the order of their ids: from here on nobody's rights in them change until we commit.
	PERFORM FROM chat.conversations WHERE id = ANY (p_conversation) ORDER BY id FOR NO KEY UPDATE;

	-- 3. In a later statement, which sees what was committed before the locks were ours: look, number and store, unless there is anything to
	-- refuse.
	IF NOT p_type && k_acts THEN
		RETURN QUERY
		WITH pair AS MATERIALIZED (
			SELECT m.conversation_id, m.sender_id, c.last_seq, c.last_ordinal, c.members_version, c.expires_in * interval '1 second' AS lifetime,
				u.status = 'active' AND p.role <> 'reader' AND NOT c.blocked AS may
			FROM (SELECT conversation_id, sender_id FROM unnest(p_conversation, p_sender) AS batch (conversation_id, sender_id) GROUP BY 1, 2) m
			LEFT JOIN LATERAL (SELECT * FROM chat.conversations WHERE id = m.conversation_id OFFSET 0) c ON true
			LEFT JOIN LATERAL (SELECT * FROM chat.users WHERE id = m.sender_id OFFSET 0) u ON true
			LEFT JOIN LATERAL (SELECT * FROM chat.conversation_participants
				WHERE conversation_id = m.conversation_id AND user_id = m.sender_id OFFSET 0) p ON true
		), numbered AS MATERIALIZED (
			SELECT m.place, m.conversation_id, m.sender_id, pair.members_version,
				pair.last_seq + row_number() OVER so_far AS seq,
				pair.last_ordinal + row_number() OVER so_far AS ordinal,
				coalesce(p_expires_at[m.place], p_sent_at[m.place] + pair.lifetime) AS expires_at,
				-- Only what is committed can be answered: the numbers of this batch are known to nobody yet.
				pair.may AND (p_reply_to[m.place] BETWEEN 1 AND pair.last_seq) IS NOT FALSE AS may
			FROM unnest(p_conversation, p_sender) WITH ORDINALITY AS m (conversation_id, sender_id, place)
			JOIN pair ON pair.conversation_id = m.conversation_id AND pair.sender_id = m.sender_id
			WINDOW so_far AS (PARTITION BY m.conversation_id ORDER BY m.place ROWS UNBOUNDED PRECEDING)
		), plain AS MATERIALIZED (
			SELECT bool_and(may IS TRUE)
				AND NOT EXISTS (SELECT FROM (SELECT DISTINCT device_id, sender_id FROM unnest(p_device, p_sender) AS batch (device_id, sender_id)
					WHERE device_id <> 0) m
					LEFT JOIN LATERAL (SELECT * FROM chat.devices WHERE id = m.device_id OFFSET 0) d ON true
					WHERE (d.user_id = m.sender_id AND d.revoked_at IS NULL) IS NOT TRUE)
				AND (SELECT count(DISTINCT client_id) FROM unnest(p_client_id) AS client_id) = cardinality(p_client_id)
				AND NOT EXISTS (SELECT FROM generate_series(1, cardinality(p_client_id)) AS place CROSS JOIN LATERAL (
					SELECT FROM chat.messages WHERE sender_id = p_sender[place] AND client_id = p_client_id[place]
						AND conversation_id + 0 = p_conversation[place] -- "+ 0" keeps the primary key out of it: see chat.messages
					OFFSET 0) known) AS yes
			FROM numbered
		), stored AS (
			-- Neighbours in a conversation are inserted one after the other: their index pages are still at hand.
			INSERT INTO chat.messages (conversation_id, seq, ordinal, sender_id, sent_at, committed_at, reply_to, expires_at,
				client_id, content_hash, type, body, extra)
			SELECT conversation_id, seq, ordinal, sender_id, p_sent_at[place], clock_timestamp(), p_reply_to[place], expires_at,
				p_client_id[place], p_content_hash[place], p_type[place], p_body[place], p_extra[place]
			FROM numbered WHERE (SELECT yes FROM plain)
		), counted AS (
			UPDATE chat.conversations SET last_seq = now.last_seq, last_ordinal = now.last_ordinal
			FROM (SELECT conversation_id AS id, max(seq) AS last_seq, max(ordinal) AS last_ordinal
				FROM numbered WHERE (SELECT yes FROM plain) GROUP BY 1) now
			WHERE conversations.id = ANY (ARRAY[now.id])
		), seen AS (
			UPDATE chat.participant_watermarks w
			SET delivered_seq = own.seq, read_seq = own.seq, read_ordinal = own.ordinal, delivered_at = clock_timestamp(), read_at = clock_timestamp()
			FROM (SELECT conversation_id, sender_id AS user_id, max(seq) AS seq, max(ordinal) AS ordinal
				FROM numbered WHERE (SELECT yes FROM plain) GROUP BY 1, 2 ORDER BY 1, 2) own
			WHERE w.conversation_id = ANY (ARRAY[own.conversation_id]) AND w.user_id = own.user_id
		)
		SELECT place::integer, 1::smallint, seq, p_sent_at[place], NULL::text, members_version, expires_at
		FROM numbered WHERE (SELECT yes FROM plain) ORDER BY place;
		IF FOUND THEN
			IF cardinality(array_remove(p_extra, NULL)) > 0 THEN
				PERFORM chat.note_mentions(p_conversation, p_sender, p_client_id, p_extra);
			END IF;
			RETURN;
		END IF;
	END IF;

	RETURN QUERY SELECT * FROM chat.append_carefully(p_conversation, p_sender, p_device, p_client_id, p_content_hash, p_type, p_body,
		p_reply_to, p_ref, p_extra, p_sent_at, p_expires_at, p_edit_window_s);
END $$;
COMMENT ON FUNCTION chat.append_messages IS 'Stores a batch of messages in one transaction with the move of their spool '
	'positions: numbered without a gap, duplicates answered with the first, refusals recorded. An edit is too late p_edit_window_s after '
	'its message was accepted; 0: never.';

-- A message that comes alone, which is most of what a quiet server does. Starting things is what costs here: so four short statements,
-- values instead of arrays of one, a value instead of a table, and no setting that these plans can do without.
CREATE TYPE chat.appended AS (status smallint, seq bigint, sent_at timestamptz, code text, members_version bigint, expires_at timestamptz);
COMMENT ON TYPE chat.appended IS 'What chat.append_message answers: the columns of chat.append_messages.';

CREATE FUNCTION chat.append_message(
	p_spool uuid, p_slot smallint, p_from bigint, p_to bigint,
	p_conversation bigint, p_sender bigint, p_device bigint, p_client_id uuid, p_content_hash uuid, p_type text, p_body text,
	p_reply_to bigint, p_ref bigint, p_extra jsonb, p_sent_at timestamptz, p_expires_at timestamptz, p_edit_window_s bigint DEFAULT 0)
RETURNS chat.appended
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
	c record; -- the conversation, with this message counted
	r chat.appended;
BEGIN
	-- 1. The position.
	UPDATE chat.spool_positions SET position_committed = p_to WHERE spool = p_spool AND slot = p_slot AND position_committed = p_from;
	IF NOT FOUND THEN
		PERFORM chat.move_positions(p_spool, ARRAY[p_slot], ARRAY[p_from], ARRAY[p_to]);
	END IF;

	-- 2. The message is counted, which takes the conversation's lock. Whether it may is asked in the statement that stores it.
	IF p_type <> ALL ('{reaction,edit,delete}') THEN
		UPDATE chat.conversations SET last_seq = last_seq + 1, last_ordinal = last_ordinal + 1
		WHERE id = p_conversation
		RETURNING last_seq, last_ordinal, members_version, blocked, expires_in * interval '1 second' AS lifetime INTO c;
		INSERT INTO chat.messages (conversation_id, seq, ordinal, sender_id, sent_at, committed_at, reply_to, expires_at,
			client_id, content_hash, type, body, extra)
		SELECT p_conversation, c.last_seq, c.last_ordinal, p_sender, p_sent_at, clock_timestamp(), p_reply_to,
			coalesce(p_expires_at, p_sent_at + c.lifetime),
			p_client_id, p_content_hash, p_type, p_body, p_extra
		FROM chat.users u, chat.conversation_participants p
		WHERE u.id = p_sender AND u.status = 'active'
			AND (p_device = 0 OR (SELECT user_id = p_sender AND revoked_at IS NULL FROM chat.devices WHERE id = p_device))
			AND p.conversation_id = p_conversation AND p.user_id = p_sender AND p.role <> 'reader' AND NOT c.blocked
			AND (p_reply_to BETWEEN 1 AND c.last_seq - 1) IS NOT FALSE
			AND NOT EXISTS (SELECT FROM chat.messages
				WHERE sender_id = p_sender AND client_id = p_client_id AND conversation_id + 0 = p_conversation)
		RETURNING 1, seq, sent_at, NULL, c.members_version, expires_at INTO r;
		IF FOUND THEN
			-- Who writes has seen what came before.
			UPDATE chat.participant_watermarks
			SET delivered_seq = c.last_seq, read_seq = c.last_seq, read_ordinal = c.last_ordinal, delivered_at = clock_timestamp(), read_at = clock_timestamp()
			WHERE conversation_id = p_conversation AND user_id = p_sender;
			IF p_extra ? 'mentions' THEN
				PERFORM chat.note_mentions(ARRAY[p_conversation], ARRAY[p_sender], ARRAY[p_client_id], ARRAY[p_extra]);
			END IF;
			RETURN r;
		END IF;
		UPDATE chat.conversations SET last_seq = last_seq - 1, last_ordinal = last_ordinal - 1 WHERE id = p_conversation;
	ELSE
		PERFORM FROM chat.conversations WHERE id = p_conversation FOR NO KEY UPDATE;
	END IF;

	-- 3. An act, or something to refuse, or to answer with what is there.
	SELECT status, seq, sent_at, code, members_version, expires_at INTO r FROM chat.append_carefully(ARRAY[p_conversation], ARRAY[p_sender], ARRAY[p_device], ARRAY[p_client_id],
		ARRAY[p_content_hash], ARRAY[p_type], ARRAY[p_body], ARRAY[p_reply_to], ARRAY[p_ref], ARRAY[p_extra], ARRAY[p_sent_at],
		ARRAY[p_expires_at], p_edit_window_s);
	RETURN r;
END $$;
COMMENT ON FUNCTION chat.append_message IS 'chat.append_messages for a single message.';

CREATE FUNCTION chat.settle_messages(p_conversation bigint[], p_sender bigint[], p_client_id uuid[], p_content_hash uuid[], p_sent_at timestamptz[])
RETURNS TABLE (ordinal integer, status smallint, seq bigint, sent_at timestamptz, code text, members_version bigint, expires_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
	-- The row's own time tells the message that was stored from a resend of it, and where both were accepted in the same
	-- millisecond, their order; its hash, from another under the same id.
	RETURN QUERY
	SELECT i, CASE WHEN m.content_hash = p_content_hash[i] THEN CASE WHEN m.sent_at = p_sent_at[i] AND i = asked.first THEN 1 ELSE 2 END ELSE 3 END::smallint,
		CASE WHEN m.content_hash = p_content_hash[i] THEN m.seq END, m.sent_at,
		CASE WHEN m.seq IS NULL THEN coalesce(r.code, 'internal') WHEN m.content_hash <> p_content_hash[i] THEN 'conflict' END,
		coalesce(c.members_version, 0), m.expires_at
	FROM (
		SELECT place, min(place) OVER (PARTITION BY p_sender[place], p_client_id[place], p_conversation[place], p_content_hash[place])
		FROM generate_series(1, cardinality(p_conversation)) AS place
	) AS asked (i, first)
	LEFT JOIN LATERAL (SELECT * FROM chat.conversations WHERE id = p_conversation[i] OFFSET 0) c ON true
	LEFT JOIN LATERAL (SELECT * FROM chat.messages
		WHERE sender_id = p_sender[i] AND client_id = p_client_id[i] AND conversation_id + 0 = p_conversation[i] OFFSET 0) m ON true
	LEFT JOIN LATERAL (
		SELECT f.code FROM chat.refusals f
		WHERE f.conversation_id = p_conversation[i] AND f.user_id = p_sender[i] AND f.client_id = p_client_id[i]
		ORDER BY f.refused_at DESC LIMIT 1
	) AS r ON m.seq IS NULL
	ORDER BY i;
END $$;
COMMENT ON FUNCTION chat.settle_messages IS 'What became of messages whose commit was not heard; the positions have said that it '
	'happened. Columns as of append_messages.';

-- -- reading -----------------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION chat.read_messages(p_conversation bigint, p_first bigint, p_last bigint)
RETURNS TABLE (seq bigint, client_id uuid, sender_id bigint, sent_at timestamptz, type text, body text, reply_to bigint, ref bigint,
	extra jsonb, expires_at timestamptz, members_version bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY
	SELECT m.seq, CASE WHEN NOT gone THEN m.client_id END, CASE WHEN NOT gone THEN m.sender_id END, m.sent_at,
		CASE WHEN m.type <> 'deleted' AND gone THEN 'expired' ELSE m.type END, CASE WHEN NOT gone AND NOT bare THEN m.body END,
		CASE WHEN NOT gone THEN m.reply_to END, m.ref, CASE WHEN NOT gone AND NOT bare THEN m.extra END, CASE WHEN NOT gone THEN m.expires_at END,
		(SELECT members_version FROM chat.conversations WHERE id = p_conversation)
	FROM chat.messages m
	CROSS JOIN LATERAL (SELECT m.type IN ('deleted', 'expired') OR m.expires_at <= now() IS TRUE AS gone,
		m.ref IS NOT NULL AND (m.body IS NULL OR chat.is_gone(p_conversation, m.ref)) AS bare) shown
	WHERE m.conversation_id = p_conversation AND m.seq BETWEEN p_first AND p_last
	ORDER BY m.seq LIMIT 1000;
END $$;
COMMENT ON FUNCTION chat.read_messages IS 'Entries of a log from one number to another, ascending, at most 1,000; without the content of what is gone.';

CREATE OR REPLACE FUNCTION chat_api.states(p_conversation bigint, p_first bigint, p_last bigint, p_as_of bigint, p_user bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
	RETURN (
		WITH kinds AS (
			SELECT ref, body, count(*) AS count, bool_or(sender_id = p_user) AS mine, min(since) AS since,
				row_number() OVER (PARTITION BY ref ORDER BY min(since)) AS place
			FROM chat.reactions(p_conversation, p_first, p_last, p_as_of) GROUP BY ref, body
		)
		SELECT coalesce(jsonb_object_agg(ref, jsonb_build_object('reactions', reactions)), '{}')
		FROM (SELECT ref, jsonb_agg(jsonb_build_object('body', body, 'count', count) || CASE WHEN mine THEN '{"mine":true}' ELSE '{}' END::jsonb
				ORDER BY since) AS reactions
			FROM kinds WHERE place <= chat.reaction_kinds_max() GROUP BY ref) merged
	);
END $$;
COMMENT ON FUNCTION chat_api.states IS 'What people made of the messages of a range, up to an entry, by their numbers; as this user sees it.';

-- concat leaves out what is null, and what is written so need be neither parsed nor built again: a page costs half of what it did.
DROP FUNCTION chat_api.entry, chat_api.message_json;
CREATE FUNCTION chat_api.message_head(m chat.messages) RETURNS text LANGUAGE sql STABLE AS $$
	SELECT concat('"seq":', m.seq, ',"id":"' || m.client_id || '"', ',"from":' || m.sender_id, ',"sent_at":', chat_api.ms(m.sent_at),
		CASE m.type WHEN 'text' THEN ',"type":"text"' ELSE ',"type":' || to_json(m.type) END, ',"edited_at":' || chat_api.ms(m.edited_at),
		',"reply_to":' || m.reply_to, ',"ref":' || m.ref, ',"expires_at":' || chat_api.ms(m.expires_at))
$$;
COMMENT ON FUNCTION chat_api.message_head IS 'The members of a message but for its text and what is in extra.';

CREATE FUNCTION chat_api.message_json(m chat.messages) RETURNS text LANGUAGE sql STABLE AS $$
	SELECT concat('{', chat_api.message_head(m), ',"body":' || to_json(m.body), '}')
$$;
COMMENT ON FUNCTION chat_api.message_json IS 'A message with its present text, without what is in extra.';

-- PL/pgSQL, so that it is not made a part of statements: setting it up would cost them more than most of its uses.
CREATE FUNCTION chat_api.entry(m chat.messages, state jsonb, p_first bigint) RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
	RETURN CASE
		WHEN m.type IN ('deleted', 'expired') THEN concat('{"seq":', m.seq, ',"type":"', m.type, '"}')
		WHEN m.expires_at <= now() THEN concat('{"seq":', m.seq, ',"type":"expired"}')
		WHEN m.type IN ('reaction', 'edit', 'delete') AND (m.ref >= p_first OR m.body IS NULL) THEN concat('{"seq":', m.seq, ',"type":"', m.type, '","ref":', m.ref, '}')
		WHEN m.extra IS NULL AND state IS NULL THEN chat_api.message_json(m)
		ELSE (chat_api.message_json(m)::jsonb || coalesce(m.extra, '{}') || coalesce(state, '{}'))::text
	END;
END $$;
COMMENT ON FUNCTION chat_api.entry IS 'An entry as it is answered, in a list that begins with p_first.';

CREATE OR REPLACE FUNCTION chat_api.entries(p_conversation bigint, p_low bigint, p_high bigint, p_limit integer, p_newest boolean, p_bytes integer, p_as_of bigint,
	p_user bigint, OUT items text, OUT more boolean) LANGUAGE plpgsql STABLE AS $$
DECLARE
	k_long CONSTANT integer := 1000;
	v_first CONSTANT bigint := CASE WHEN p_newest THEN greatest(p_low, p_high - p_limit + 1) ELSE p_low END;
	v_last CONSTANT bigint := least(p_high, v_first + p_limit - 1);
	v_lowest bigint := v_first;
	v_highest bigint := v_last;
	v_longest integer := k_long;
	v_states jsonb;
	v_items text[];
	v_seqs bigint[]; -- what was asked for first comes first
	v_lengths integer[];
	v_bytes bigint;
	v_from integer := 1;
	v_to integer;
BEGIN
	IF EXISTS (SELECT FROM chat.messages WHERE conversation_id = p_conversation AND ref BETWEEN v_first AND v_last) THEN
		v_states := chat_api.states(p_conversation, v_first, v_last, p_as_of, p_user);
	END IF;
	LOOP
		-- What nearly all are is written here. What is about something that is gone, and not on this page either, says no more than what it is about.
		v_items := ARRAY(SELECT CASE WHEN octet_length(m.body) > v_longest THEN NULL
				WHEN m.type = 'text' AND v_states IS NULL AND num_nonnulls(m.ref, m.edited_at, m.expires_at, m.extra) = 0 AND num_nulls(m.client_id, m.sender_id, m.body) = 0
				THEN concat('{"seq":', m.seq, ',"id":"', m.client_id, '","from":', m.sender_id, ',"sent_at":', chat_api.ms(m.sent_at), ',"type":"text","body":', to_json(m.body),
					',"reply_to":' || m.reply_to, '}')
				ELSE chat_api.entry(m, v_states -> seq::text, CASE WHEN m.ref < v_first AND chat.is_gone(p_conversation, m.ref) THEN m.ref ELSE v_first END) END
			FROM chat.messages m WHERE conversation_id = p_conversation AND seq BETWEEN v_lowest AND v_highest ORDER BY m.seq);
		EXIT WHEN v_longest > k_long OR cardinality(v_items) = greatest(0, v_last - v_first + 1) AND array_position(v_items, NULL) IS NULL;
		-- Some are long, or not there. What would not fit is not made: lengths are known without reading the bodies, and 100 bytes are around each.
		SELECT array_agg(seq), array_agg(length), sum(length) INTO v_seqs, v_lengths, v_bytes
		FROM (
			(SELECT seq, 100 + coalesce(octet_length(body), 0) AS length FROM chat.messages WHERE conversation_id = p_conversation AND seq BETWEEN p_low AND p_high
				ORDER BY seq LIMIT CASE WHEN p_newest THEN 0 ELSE p_limit END)
			UNION ALL
			(SELECT seq, 100 + coalesce(octet_length(body), 0) FROM chat.messages WHERE conversation_id = p_conversation AND seq BETWEEN p_low AND p_high
				ORDER BY seq DESC LIMIT CASE WHEN p_newest THEN p_limit ELSE 0 END)
		) page;
		v_to := cardinality(v_seqs);
		WHILE v_to > 1 AND v_bytes - v_lengths[v_to] >= p_bytes LOOP
			v_bytes := v_bytes - v_lengths[v_to];
			v_to := v_to - 1;
		END LOOP;
		v_lowest := least(v_seqs[1], v_seqs[v_to]);
		v_highest := greatest(v_seqs[1], v_seqs[v_to]);
		v_longest := 2147483647;
	END LOOP;

	items := array_to_string(v_items, ',');
	more := items <> '' AND CASE WHEN p_newest THEN v_lowest <> p_low ELSE v_highest <> p_high END;
	IF octet_length(items) >= p_bytes THEN -- as many as fit, or one
		v_to := cardinality(v_items);
		v_bytes := octet_length(items) + 1;
		WHILE v_bytes > p_bytes AND v_from < v_to LOOP
			IF p_newest THEN
				v_bytes := v_bytes - octet_length(v_items[v_from]) - 1;
				v_from := v_from + 1;
			ELSE
				v_bytes := v_bytes - octet_length(v_items[v_to]) - 1;
				v_to := v_to - 1;
			END IF;
			more := true;
		END LOOP;
		items := array_to_string(v_items[v_from:v_to], ',');
	END IF;
END $$;

-- All that others make of a message is left out here, so it is not looked for: in a list that would be once for each conversation.
CREATE OR REPLACE FUNCTION chat_api.last_message(p_conversation bigint, p_first bigint, p_last bigint, p_user bigint) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
	m chat.messages;
	item jsonb;
BEGIN
	SELECT * INTO m FROM (SELECT * FROM chat.messages WHERE conversation_id = p_conversation AND seq BETWEEN greatest(p_first, p_last - 49) AND p_last
		ORDER BY seq DESC LIMIT 50) tail
	WHERE type NOT IN ('reaction', 'edit', 'delete') ORDER BY seq DESC LIMIT 1;
	IF NOT FOUND THEN
		RETURN NULL;
	END IF;
	item := chat_api.entry(m, NULL, m.seq)::jsonb - '{meta,attachments,mentions}'::text[];
	RETURN item || CASE WHEN char_length(item ->> 'body') > 200 THEN jsonb_build_object('body', left(item ->> 'body', 200), 'cut', true) ELSE '{}' END;
END $$;

CREATE FUNCTION chat_api.mentions_max() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 100';
COMMENT ON FUNCTION chat_api.mentions_max IS 'How far unread mentions are counted.';

CREATE FUNCTION chat_api.progress_text(c chat.conversations, p chat.conversation_participants) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
	w record;
BEGIN
	SELECT read_seq, delivered_seq, read_ordinal, (SELECT nullif(count(*), 0) FROM (SELECT FROM chat.mentions
			WHERE conversation_id = c.id AND user_id = p.user_id AND seq > marks.read_seq AND (expires_at > now()) IS NOT FALSE LIMIT chat_api.mentions_max()) unread) AS mentions
	INTO w FROM chat.participant_watermarks marks WHERE conversation_id = c.id AND user_id = p.user_id;
	RETURN concat('{"id":', c.id, ',"first_seq":', chat_api.first_visible(c, p), ',"last_seq":', c.last_seq, ',"role":"' || p.role || '"',
		',"muted_until":' || CASE WHEN p.muted_until > now() THEN chat_api.ms(p.muted_until) END, CASE WHEN c.blocked THEN ',"blocked":true' END,
		-- The conversation may be older than the watermark: somebody has just written, and read it.
		',"unread":' || CASE WHEN w.read_seq IS NOT NULL THEN greatest(0, c.last_ordinal - greatest(w.read_ordinal, c.removed_ordinal)) END,
		',"mentions":' || w.mentions, ',"read":' || w.read_seq, ',"delivered":' || w.delivered_seq, '}');
END $$;
COMMENT ON FUNCTION chat_api.progress_text IS 'How far a conversation is, and this member in it; p is NULL for a reader of a public channel.';

CREATE OR REPLACE FUNCTION chat_api.progress_json(c chat.conversations, p chat.conversation_participants) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
	RETURN chat_api.progress_text(c, p);
END $$;

-- Absent members of the conversation are left out; of an entry of its log nothing is, as in message.history.
CREATE OR REPLACE FUNCTION chat_api.conversation_json(c chat.conversations, p chat.conversation_participants) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
	v_last CONSTANT jsonb := chat_api.last_message(c.id, chat_api.first_visible(c, p), c.last_seq, p.user_id);
BEGIN
	RETURN chat_api.progress_json(c, p) || jsonb_strip_nulls(jsonb_build_object('type', c.type, 'name', c.name, 'picture', c.picture,
		'public', CASE c.type WHEN 'channel' THEN c.is_public END, 'shows_history', CASE WHEN c.type <> 'direct' THEN c.shows_history END,
		'expires_in', c.expires_in, 'created_at', chat_api.ms(c.created_at), 'joined_at', chat_api.ms(p.joined_at),
		'peer', CASE WHEN p.user_id IS NOT NULL AND c.type = 'direct' THEN (SELECT chat_api.profile(u) FROM chat.users u
			WHERE id = CASE p.user_id WHEN c.first_user_id THEN c.second_user_id ELSE c.first_user_id END) END))
		|| CASE WHEN v_last IS NULL THEN '{}' ELSE jsonb_build_object('last_message', v_last) END;
END $$;

-- -- reading logs --------------------------------------------------------------------------------------------------------

-- As before, but answers are text from the beginning, and all statements of one call look at the same moment (STABLE).
CREATE FUNCTION chat_api.readable(caller chat_api.caller, p_conversation bigint, OUT first_seq bigint, OUT last_seq bigint) LANGUAGE plpgsql STABLE AS $$
BEGIN
	SELECT CASE WHEN c.is_public THEN c.first_seq ELSE greatest(c.first_seq, p.first_visible_seq) END, c.last_seq INTO first_seq, last_seq
	FROM (SELECT * FROM chat.conversations WHERE id = p_conversation OFFSET 0) c
	LEFT JOIN LATERAL (SELECT * FROM chat.conversation_participants WHERE conversation_id = c.id AND user_id = caller.user_id OFFSET 0) p ON true
	WHERE p.user_id IS NOT NULL OR c.is_public;
	IF NOT FOUND THEN
		PERFORM chat_api.refuse('not_found', 'there is no such conversation');
	END IF;
END $$;
COMMENT ON FUNCTION chat_api.readable IS 'What the caller may read of a conversation''s log, or not_found: as look, for those who want no more.';

DROP FUNCTION chat_api.message_history, chat_api.message_sync;
CREATE FUNCTION chat_api.message_history(caller chat_api.caller, params jsonb) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
	v_after bigint;
	v_before bigint;
	v_limit integer;
	v_id bigint;
	log record;
	page record;
BEGIN
	PERFORM chat_api.expect(params, 'conversation', 'before', 'after', 'limit');
	v_after := chat_api.param_integer(params, 'after', 0, 9007199254740991, NULL);
	v_before := chat_api.param_integer(params, 'before', 1, 9007199254740991, NULL);
	v_limit := chat_api.param_integer(params, 'limit', 1, 200, 50);
	IF v_after IS NOT NULL AND v_before IS NOT NULL THEN
		PERFORM chat_api.refuse('invalid_field', 'before and after exclude each other', 'before');
	END IF;
	v_id := chat_api.param_id(params, 'conversation');
	log := chat_api.readable(caller, v_id);
	page := chat_api.entries(v_id, greatest(log.first_seq, v_after + 1), least(log.last_seq, v_before - 1), v_limit, v_after IS NULL,
		chat_api.answer_bytes(), log.last_seq, caller.user_id);
	RETURN concat('{"messages":[', page.items, '],"more":', page.more::text, ',"first_seq":', log.first_seq, ',"last_seq":', log.last_seq, '}');
END $$;

-- What lacks least comes first, so that most conversations are up to date at once. While others wait, none takes more than its
-- share of the answer: a page serves at least 50 of them, unless their entries are long.
CREATE FUNCTION chat_api.message_sync(caller chat_api.caller, params jsonb) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
	k_sharers CONSTANT integer := 50;
	v_cursors CONSTANT jsonb := params -> 'cursors';
	v_limit integer;
	v_share integer;
	v_head text; -- of a conversation, and then all of it
	v_items text := '';
	v_more boolean := false;
	v_known text[];
	v_others bigint[]; -- of those that the device knows, the ones that the caller is not in
	v_gone bigint[] := '{}';
	v_good boolean;
	conversation chat.conversations;
	lack record;
	page record;
BEGIN
	PERFORM chat_api.expect(params, 'cursors', 'limit'), chat_api.require(params, 'cursors');
	v_limit := chat_api.param_integer(params, 'limit', 1, 200, 50);
	IF jsonb_typeof(v_cursors) <> 'object' THEN
		PERFORM chat_api.refuse('invalid_field', 'cursors is an object: {"conversation": newest number held}', 'cursors');
	END IF;
	SELECT array_agg(id), bool_and(CASE WHEN id !~ '^[1-9][0-9]{0,15}$' OR jsonb_typeof(seq) <> 'number' THEN false
		ELSE seq::numeric BETWEEN 0 AND 9007199254740991 AND seq::numeric = trunc(seq::numeric) END)
	INTO v_known, v_good FROM jsonb_each(v_cursors) AS held (id, seq);
	IF cardinality(v_known) > chat_api.conversations_max() THEN
		PERFORM chat_api.refuse('too_long', format('cursors has at most %s members', chat_api.conversations_max()), 'cursors');
	ELSIF NOT v_good THEN
		PERFORM chat_api.refuse('invalid_field', 'cursors is an object: {"conversation": newest number held}', 'cursors');
	END IF;
	v_others := ARRAY(SELECT unnest(v_known::bigint[]) EXCEPT SELECT conversation_id FROM chat.conversation_participants WHERE user_id = caller.user_id);
	IF cardinality(v_others) > 0 THEN
		v_gone := ARRAY(SELECT known.id FROM unnest(v_others) AS known (id)
			LEFT JOIN LATERAL (SELECT is_public FROM chat.conversations WHERE id = known.id OFFSET 0) c ON true
			WHERE c.is_public IS NOT TRUE ORDER BY known.id);
	END IF;
	FOR lack IN
		SELECT c, p, held, first_visible, count(*) OVER () AS count
		FROM (
			SELECT seen.c, p::chat.conversation_participants AS p
			FROM (SELECT * FROM chat.conversation_participants WHERE user_id = caller.user_id OFFSET 0) p
			CROSS JOIN LATERAL (SELECT c::chat.conversations FROM chat.conversations c WHERE id = p.conversation_id OFFSET 0) seen
			UNION ALL
			SELECT seen.c, NULL
			FROM unnest(v_others) AS other
			CROSS JOIN LATERAL (SELECT c::chat.conversations FROM chat.conversations c WHERE id = other AND is_public OFFSET 0) seen
		) readable
		CROSS JOIN LATERAL (SELECT (v_cursors ->> (c).id::text)::numeric::bigint AS held, chat_api.first_visible(c, p) AS first_visible OFFSET 0) known
		WHERE held IS NULL OR (c).last_seq > greatest(held, first_visible - 1)
		ORDER BY CASE WHEN held IS NULL THEN least((c).last_seq - first_visible + 1, v_limit)
			ELSE (c).last_seq - greatest(held, first_visible - 1) END, (c).id
	LOOP
		conversation := lack.c;
		v_share := chat_api.answer_bytes() / least(lack.count, k_sharers);
		v_head := CASE WHEN lack.held IS NULL THEN (chat_api.conversation_json(lack.c, lack.p) - 'last_message' || '{"new":true}')::text
			ELSE chat_api.progress_text(lack.c, lack.p) END;
		page := chat_api.entries(conversation.id, greatest(lack.first_visible, lack.held + 1), conversation.last_seq, v_limit, lack.held IS NULL,
			v_share - octet_length(v_head) - 30, conversation.last_seq, caller.user_id);
		v_head := concat(left(v_head, -1), ',"messages":[', page.items, '],"more":', page.more::text, '}');
		IF v_items <> '' AND octet_length(v_items) + octet_length(v_head) + 1 > chat_api.answer_bytes() THEN
			v_more := true;
			EXIT;
		END IF;
		v_items := v_items || CASE WHEN v_items <> '' THEN ',' ELSE '' END || v_head;
	END LOOP;
	RETURN concat('{"conversations":[', v_items, '],"more":', v_more::text, ',"gone":', to_json(v_gone), '}');
END $$;

-- -- conversations that forget -------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION chat_api.conversation_create(caller chat_api.caller, params jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	v_type chat.conversation_type;
	v_members bigint[];
	v_id bigint;
	v_new boolean;
	seen record;
BEGIN
	PERFORM chat_api.require(params, 'type');
	v_type := chat_api.param_choice(params, 'type', 'direct', 'group', 'channel');
	v_members := array_remove(chat_api.param_ids(params, 'members', greatest(chat_api.group_max_members(), 100)), caller.user_id);
	IF v_type = 'direct' THEN
		PERFORM chat_api.expect(params, 'type', 'members');
		IF cardinality(v_members) <> 1 THEN
			PERFORM chat_api.refuse('invalid_field', 'a direct conversation has one other member', 'members');
		END IF;
		-- The lock comes before the look at blocks: see chat.lock_pair.
		PERFORM chat.lock_pair(caller.user_id, v_members[1]);
	ELSIF v_type = 'group' THEN
		PERFORM chat_api.expect(params, 'type', 'name', 'picture', 'members', 'shows_history', 'expires_in');
		IF cardinality(v_members) >= chat_api.group_max_members() THEN
			PERFORM chat_api.refuse('quota_exceeded', format('a group has at most %s members', chat_api.group_max_members()), 'members');
		END IF;
	ELSE
		PERFORM chat_api.expect(params, 'type', 'name', 'picture', 'members', 'shows_history', 'expires_in', 'public');
	END IF;
	PERFORM chat_api.check_invited(caller, v_members, 'members');

	IF v_type = 'direct' THEN
		SELECT id INTO v_id FROM chat.conversations
		WHERE first_user_id = least(caller.user_id, v_members[1]) AND second_user_id = greatest(caller.user_id, v_members[1]);
		v_new := NOT FOUND;
		IF v_new THEN
			PERFORM chat_api.check_quota(ARRAY[caller.user_id]);
			INSERT INTO chat.conversations (type, first_user_id, second_user_id) VALUES ('direct', caller.user_id, v_members[1]) RETURNING id INTO v_id;
		END IF;
	ELSE
		PERFORM chat_api.check_quota(ARRAY[caller.user_id]), chat_api.count_creation(caller);
		INSERT INTO chat.conversations (type, name, picture, shows_history, expires_in, is_public)
		VALUES (v_type, chat_api.param_line(params, 'name', 1, 200), chat_api.param_line(params, 'picture', 1, 2000),
			chat_api.param_boolean(params, 'shows_history', false), chat_api.param_integer(params, 'expires_in', 1, 31536000, NULL),
			chat_api.param_boolean(params, 'public', false))
		RETURNING id INTO v_id;
		v_new := true;
		INSERT INTO chat.conversation_participants (conversation_id, user_id, role)
		SELECT v_id, caller.user_id, 'owner'::chat.participant_role
		UNION ALL SELECT v_id, member, CASE v_type WHEN 'channel' THEN 'reader' ELSE 'member' END::chat.participant_role FROM unnest(v_members) AS member;
		PERFORM chat_api.log_event(v_id, 'created', caller, jsonb_strip_nulls(jsonb_build_object('name', params -> 'name', 'expires_in', params -> 'expires_in',
			'users', CASE v_type WHEN 'group' THEN to_jsonb(caller.user_id || v_members) END)));
	END IF;
	seen := chat_api.look(caller, v_id);
	RETURN jsonb_build_object('conversation', chat_api.conversation_json(seen.c, seen.p), 'created', v_new);
END $$;

-- Of a direct conversation there is one thing to change, for either of the two.
CREATE FUNCTION chat_api.lock_updated(caller chat_api.caller, p_conversation bigint, params jsonb, OUT c chat.conversations, OUT p chat.conversation_participants)
LANGUAGE plpgsql AS $$
DECLARE
	held record := chat_api.look_as_member(caller, p_conversation);
BEGIN
	IF (held.c).type = 'direct' AND params - '{conversation,request_id,expires_in}'::text[] = '{}' THEN
		PERFORM FROM chat.conversations WHERE id = p_conversation FOR NO KEY UPDATE;
		held := chat_api.look_as_member(caller, p_conversation);
		IF (held.c).blocked THEN
			PERFORM chat_api.refuse('blocked', 'one of the two has blocked the other');
		END IF;
	ELSE
		held := chat_api.lock_members(caller, p_conversation, '{}');
		PERFORM chat_api.need_role(held.p, CASE WHEN params ?| '{shows_history,public}' THEN 'owner' ELSE 'admin' END::chat.participant_role);
	END IF;
	c := held.c;
	p := held.p;
END $$;
COMMENT ON FUNCTION chat_api.lock_updated IS 'The conversation, locked, for one who may change these of its properties.';

CREATE OR REPLACE FUNCTION chat_api.conversation_update(caller chat_api.caller, params jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	v_id CONSTANT bigint := chat_api.param_id(params, 'conversation');
	held record;
	changed jsonb;
BEGIN
	PERFORM chat_api.expect(params, 'conversation', 'name', 'picture', 'shows_history', 'public', 'expires_in');
	held := chat_api.lock_updated(caller, v_id, params);
	IF params ? 'public' AND (held.c).type <> 'channel' THEN
		PERFORM chat_api.refuse('invalid_field', 'only a channel can be public', 'public');
	END IF;
	UPDATE chat.conversations SET
		name = CASE WHEN chat_api.param_null(params, 'name') THEN NULL ELSE coalesce(chat_api.param_line(params, 'name', 1, 200), name) END,
		picture = CASE WHEN chat_api.param_null(params, 'picture') THEN NULL ELSE coalesce(chat_api.param_line(params, 'picture', 1, 2000), picture) END,
		expires_in = CASE WHEN chat_api.param_null(params, 'expires_in') THEN NULL ELSE chat_api.param_integer(params, 'expires_in', 1, 31536000, expires_in) END,
		shows_history = chat_api.param_boolean(params, 'shows_history', shows_history)
	WHERE id = v_id;
	IF chat_api.param_boolean(params, 'public', (held.c).is_public) <> (held.c).is_public THEN
		UPDATE chat.conversations SET is_public = NOT is_public WHERE id = v_id;
	END IF;
	changed := params - '{conversation,request_id}'::text[];
	IF changed <> '{}' THEN
		PERFORM chat_api.log_event(v_id, 'updated', caller, changed);
	END IF;
	held := chat_api.look(caller, v_id);
	RETURN jsonb_build_object('conversation', chat_api.conversation_json(held.c, held.p));
END $$;

-- -- the sweeper -------------------------------------------------------------------------------------------------------

-- One at a time, and never in anybody's way: a call is a transaction of some milliseconds, and one that would have to wait for a lock is
-- given up. What it holds while it works are the rows that it erases.
CREATE FUNCTION chat.claim_sweep() RETURNS boolean LANGUAGE sql AS $$
	SELECT pg_catalog.pg_try_advisory_xact_lock(1667785076, 1937204581) -- 'chat' 'swee'; local to the database
$$;
COMMENT ON FUNCTION chat.claim_sweep IS 'True for one transaction at a time: sweeping and trimming.';

CREATE FUNCTION chat.sweep(p_limit integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '50ms'
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET jit = off AS $$
DECLARE
	k_bytes CONSTANT bigint := 1000000;
	v_now CONSTANT timestamptz := clock_timestamp(); -- as a function it would be no bound of the index
	v_conversations bigint[];
	v_seqs bigint[];
BEGIN
	IF NOT chat.claim_sweep() THEN
		RETURN 0;
	END IF;
	WITH due AS MATERIALIZED (
		SELECT conversation_id, seq, expires_at, body FROM chat.messages WHERE expires_at <= v_now AND type <> 'expired'
		ORDER BY expires_at LIMIT least(p_limit, 500) FOR NO KEY UPDATE SKIP LOCKED
	), measured AS (
		SELECT conversation_id, seq, sum(octet_length(body)) OVER (ORDER BY expires_at, conversation_id, seq) - octet_length(body) AS bytes_before FROM due
	)
	SELECT array_agg(conversation_id), array_agg(seq) INTO v_conversations, v_seqs FROM measured WHERE (bytes_before > k_bytes) IS NOT TRUE;
	RETURN CASE WHEN v_seqs IS NULL THEN 0 ELSE chat.erase(v_conversations, v_seqs, 'expired') END;
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
	RETURN 0; -- another time
END $$;
COMMENT ON FUNCTION chat.sweep IS 'Erases up to so many messages that have expired, 500 at most; returns how many, 0 where nothing is left or somebody else is at it.';

-- The lock on the conversation keeps appends out for as long as this takes.
CREATE FUNCTION chat.trim_log(p_conversation bigint, p_before timestamptz, p_limit integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
	k_bytes CONSTANT bigint := 1000000;
	v_first bigint;
	v_keep bigint; -- the first that stays
	v_ordinal bigint;
BEGIN
	BEGIN
		SELECT first_seq INTO v_first FROM chat.conversations WHERE id = p_conversation FOR NO KEY UPDATE;
	EXCEPTION WHEN lock_not_available THEN -- chat.trim_logs waits 50 ms
		RETURN 0;
	END;
	SELECT max(seq) + 1, max(ordinal) INTO v_keep, v_ordinal
	FROM (
		SELECT seq, ordinal, bool_and(committed_at < p_before) OVER so_far AS old,
			sum(octet_length(body)) OVER so_far - coalesce(octet_length(body), 0) AS bytes_before
		FROM (SELECT seq, ordinal, committed_at, body FROM chat.messages WHERE conversation_id = p_conversation AND seq >= v_first
			ORDER BY seq LIMIT p_limit) beginning
		WINDOW so_far AS (ORDER BY seq)
	) measured WHERE old AND (bytes_before > k_bytes) IS NOT TRUE;
	IF v_keep IS NULL THEN
		RETURN 0;
	END IF;
	PERFORM chat.erase_edits(array_agg(p_conversation), array_agg(seq)) FROM generate_series(v_first, v_keep - 1) AS seq;
	DELETE FROM chat.messages m
	USING (SELECT ctid FROM chat.messages WHERE conversation_id = p_conversation AND seq BETWEEN v_first AND v_keep - 1 ORDER BY seq OFFSET 0) old
	WHERE m.ctid = old.ctid;
	DELETE FROM chat.mentions WHERE conversation_id = p_conversation AND seq BETWEEN v_first AND v_keep - 1;
	UPDATE chat.conversations SET first_seq = v_keep, removed_ordinal = v_ordinal WHERE id = p_conversation;
	RETURN v_keep - v_first;
END $$;
COMMENT ON FUNCTION chat.trim_log IS 'Removes up to so many entries from the beginning of a log, those that were committed before a time; returns how many.';

CREATE FUNCTION chat.trim_logs(p_days bigint, p_after bigint, p_limit integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '50ms'
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET jit = off AS $$
DECLARE
	k_conversations CONSTANT integer := 200;
	v_before CONSTANT timestamptz := now() - p_days * interval '1 day';
	v_seen integer := 0;
	c record;
BEGIN
	IF p_days < 1 THEN
		RETURN -1;
	END IF;
	IF NOT chat.claim_sweep() THEN
		RETURN -2;
	END IF;
	FOR c IN SELECT id, first_seq FROM chat.conversations WHERE id > p_after ORDER BY id LIMIT k_conversations LOOP
		v_seen := v_seen + 1;
		IF (SELECT committed_at FROM chat.messages WHERE conversation_id = c.id AND seq >= c.first_seq ORDER BY seq LIMIT 1) < v_before
			AND chat.trim_log(c.id, v_before, least(p_limit, 500)) > 0 THEN
			RETURN c.id - 1; -- there may be more of it
		END IF;
	END LOOP;
	RETURN CASE WHEN v_seen = k_conversations THEN c.id ELSE -1 END;
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
	RETURN -2; -- another time
END $$;
COMMENT ON FUNCTION chat.trim_logs IS 'Removes what is older than so many days from the beginning of the next log after a conversation, up to p_limit entries, 500 at '
	'most; returns the conversation to go on after, -1 at the end of all, -2 where somebody else is at it.';

-- -- what was only folded so far -----------------------------------------------------------------------------------------

-- Edits and deletions that were not the author's never counted.
UPDATE chat.messages a SET type = 'deleted', body = NULL, extra = NULL, ref = NULL, expires_at = NULL
FROM chat.messages t
WHERE a.type IN ('edit', 'delete') AND t.conversation_id = a.conversation_id AND t.seq = a.ref AND t.sender_id IS DISTINCT FROM a.sender_id;
UPDATE chat.messages t SET body = e.body, edited_at = e.sent_at, edit_seq = e.seq
FROM (SELECT DISTINCT ON (conversation_id, ref) * FROM chat.messages WHERE type = 'edit' AND body IS NOT NULL ORDER BY conversation_id, ref, seq DESC) e
WHERE t.conversation_id = e.conversation_id AND t.seq = e.ref AND t.type NOT IN ('deleted', 'expired');
UPDATE chat.messages a SET body = NULL, extra = NULL
WHERE type = 'edit' AND body IS NOT NULL
	AND EXISTS (SELECT FROM chat.messages later WHERE later.conversation_id = a.conversation_id AND later.ref = a.ref AND later.type = 'edit' AND later.seq > a.seq);
DO $$
BEGIN
	PERFORM chat.erase(array_agg(conversation_id), array_agg(ref), 'deleted') FROM (SELECT DISTINCT conversation_id, ref FROM chat.messages WHERE type = 'delete') d;
END $$;
UPDATE chat.search_entries e SET words = chat.search_words(m.conversation_id, m.body)
FROM chat.messages m WHERE m.edited_at IS NOT NULL AND e.conversation_id = m.conversation_id AND e.seq = m.seq;
INSERT INTO chat.mentions (conversation_id, user_id, seq, expires_at)
SELECT m.conversation_id, w.user_id, m.seq, m.expires_at
FROM chat.messages m
CROSS JOIN LATERAL (SELECT DISTINCT name::bigint AS user_id FROM jsonb_array_elements_text(m.extra -> 'mentions') AS name) named
JOIN chat.participant_watermarks w ON w.conversation_id = m.conversation_id AND w.user_id = named.user_id
WHERE m.extra ? 'mentions' AND m.ref IS NULL AND m.seq > w.read_seq AND w.user_id <> m.sender_id;

-- -- privileges --------------------------------------------------------------------------------------------------------

REVOKE ALL ON FUNCTION chat.note_mentions, chat.forget_mentions, chat.is_gone, chat.erase_edits, chat.erase, chat.reactions, chat.reactions_max, chat.reaction_kinds_max,
	chat.reaction_objection, chat.store_act, chat.append_carefully, chat.append_messages, chat.append_message, chat.settle_messages, chat.claim_sweep, chat.sweep, chat.trim_log,
	chat.trim_logs, chat_api.mentions_max, chat_api.lock_updated FROM PUBLIC;
GRANT EXECUTE ON FUNCTION chat.append_messages, chat.append_message, chat.settle_messages, chat.sweep, chat.trim_logs TO chat_plugin;
