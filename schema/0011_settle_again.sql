-- Settling and refusing by hand: a resend in the same millisecond is a resend, and a refusal says from which device and when the
-- message was accepted.

CREATE OR REPLACE FUNCTION chat.settle_messages(p_conversation bigint[], p_sender bigint[], p_client_id uuid[], p_content_hash uuid[], p_sent_at timestamptz[])
RETURNS TABLE (ordinal integer, status smallint, seq bigint, sent_at timestamptz, code text, members_version bigint)
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
		coalesce(c.members_version, 0)
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
DROP FUNCTION chat.refuse_messages(uuid, smallint[], bigint[], bigint[], bigint[], bigint[], uuid[], text[]);
CREATE FUNCTION chat.refuse_messages(p_spool uuid, p_slots smallint[], p_from bigint[], p_to bigint[],
	p_conversation bigint[], p_sender bigint[], p_device bigint[], p_client_id uuid[], p_sent_at timestamptz[], p_code text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM chat.move_positions(p_spool, p_slots, p_from, p_to);
	INSERT INTO chat.refusals (user_id, device_id, conversation_id, client_id, code, sent_at, refused_at)
	SELECT p_sender[i], nullif(p_device[i], 0), p_conversation[i], p_client_id[i], p_code[i], p_sent_at[i], clock_timestamp()
	FROM generate_subscripts(p_conversation, 1) AS i;
END $$;
COMMENT ON FUNCTION chat.refuse_messages IS 'Puts on record that messages were refused which the tables cannot take at all, and '
	'moves on from them.';

REVOKE ALL ON FUNCTION chat.refuse_messages FROM PUBLIC;
GRANT EXECUTE ON FUNCTION chat.refuse_messages TO chat_plugin;
