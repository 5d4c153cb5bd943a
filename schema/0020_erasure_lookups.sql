-- What edits, deletions, the sweeper and retention change is found by the key, whatever the statistics say.
--
-- On young tables the planner may answer a condition on conversation and number by the index of the senders' ids, of which it reads all. So rows
-- are found in the order of seq, which the primary key alone has, and changed by their place. The last edit of a message, the only one
-- that keeps a text, is known by its number. And what leaves the search index is looked up in it.

ALTER TABLE chat.messages ADD COLUMN edit_seq bigint;
COMMENT ON COLUMN chat.messages.edit_seq IS 'The number of the last edit, which has a copy of the text.';
UPDATE chat.messages m SET edit_seq = e.seq FROM chat.messages e
WHERE e.type = 'edit' AND e.body IS NOT NULL AND m.conversation_id = e.conversation_id AND m.seq = e.ref;

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

-- Who stores an act holds the conversation; chat.sweep does not, so the type is looked at again.
CREATE OR REPLACE FUNCTION chat.erase(p_conversation bigint[], p_seq bigint[], p_type text) RETURNS integer
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

CREATE OR REPLACE FUNCTION chat.store_act(p_conversation bigint, p_seq bigint, p_ordinal bigint, p_first bigint, p_role chat.participant_role,
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

CREATE OR REPLACE FUNCTION chat.trim_log(p_conversation bigint, p_before timestamptz, p_limit integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
	k_bytes CONSTANT bigint := 1000000;
	v_first bigint;
	v_keep bigint; -- the first that stays
	v_ordinal bigint;
BEGIN
	SELECT first_seq INTO v_first FROM chat.conversations WHERE id = p_conversation FOR NO KEY UPDATE SKIP LOCKED;
	SELECT max(seq) + 1, max(ordinal) INTO v_keep, v_ordinal
	FROM (
		SELECT seq, ordinal, bool_and(committed_at < p_before) OVER so_far AS old,
			sum(octet_length(body)) OVER so_far - octet_length(body) AS bytes_before
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

REVOKE ALL ON FUNCTION chat.erase_edits FROM PUBLIC;
