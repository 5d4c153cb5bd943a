-- The functions through which the plugin reads and writes. chat_plugin may do nothing else (0004_privileges.sql).
--
-- They are SECURITY DEFINER with a fixed search_path, and PL/pgSQL because it keeps its plans. All of them expect READ COMMITTED,
-- where each statement sees what was committed before it began: "lock, then look in a later statement" rests on that.
--
-- Order of locks in one batch: spool_positions (by slot) - conversations (by id) - participant_watermarks (by conversation, user)
-- - device_watermarks. Two batches can wait for each other only in one direction.

CREATE FUNCTION chat.version() RETURNS integer LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN max(number) FROM chat_migrations.applied;
END $$;
COMMENT ON FUNCTION chat.version IS 'The number of the newest migration that was applied.';

CREATE FUNCTION chat.claim_broker() RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN pg_try_advisory_lock(1667785076, 1651662699); -- 'chat' 'brok'; local to the database
END $$;
COMMENT ON FUNCTION chat.claim_broker IS 'True for one session at a time: one broker works on one database. Ends with the session.';

-- -- the committed positions of a spool --------------------------------------------------------------------------------

CREATE FUNCTION chat.read_positions(p_spool uuid, p_slots smallint[]) RETURNS TABLE (slot smallint, position_committed bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	INSERT INTO chat.spool_positions (spool, slot)
	SELECT DISTINCT p_spool, wanted FROM unnest(p_slots) AS wanted ORDER BY wanted
	ON CONFLICT DO NOTHING;
	RETURN QUERY SELECT sp.slot, sp.position_committed FROM chat.spool_positions sp
	WHERE sp.spool = p_spool AND sp.slot = ANY (p_slots) ORDER BY sp.slot FOR UPDATE;
END $$;
COMMENT ON FUNCTION chat.read_positions IS 'The committed positions of a spool''s slots, locked: waits for a connection that may still be committing. Unknown slots start at 0.';

CREATE FUNCTION chat.move_positions(p_spool uuid, p_slots smallint[], p_from bigint[], p_to bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	moved smallint[];
	stale record;
BEGIN
	-- One that is being moved by another connection is waited for here, and then looked at again.
	WITH hit AS (
		UPDATE chat.spool_positions SET position_committed = wanted.position_to
		FROM unnest(p_slots, p_from, p_to) AS wanted (slot, position_from, position_to)
		WHERE spool_positions.spool = p_spool AND spool_positions.slot = wanted.slot
			AND spool_positions.position_committed = wanted.position_from
		RETURNING wanted.slot
	)
	SELECT array_agg(slot) INTO moved FROM hit;
	IF moved IS NULL OR cardinality(moved) <> cardinality(p_slots) THEN
		SELECT wanted.slot, wanted.position_from, sp.position_committed INTO stale
		FROM unnest(p_slots, p_from) AS wanted (slot, position_from)
		LEFT JOIN chat.spool_positions sp ON sp.spool = p_spool AND sp.slot = wanted.slot
		WHERE moved IS NULL OR wanted.slot <> ALL (moved)
		ORDER BY wanted.slot LIMIT 1;
		RAISE EXCEPTION 'slot % is not at position % but at %', stale.slot, stale.position_from, coalesce(stale.position_committed::text, 'none')
			USING ERRCODE = 'CH001', HINT = 'The records up to there were committed by somebody else, or the spool is not the one that this database knows.';
	END IF;
END $$;
COMMENT ON FUNCTION chat.move_positions IS 'Moves slots from one position to the next; CH001 and nothing done unless all of them are where the caller believes.';

-- -- messages ----------------------------------------------------------------------------------------------------------

CREATE FUNCTION chat.append_messages(
	p_spool uuid, p_slots smallint[], p_from bigint[], p_to bigint[],
	p_conversation bigint[], p_sender bigint[], p_device bigint[], p_client_id uuid[], p_content_hash uuid[], p_type text[], p_body text[],
	p_reply_to bigint[], p_ref bigint[], p_extra jsonb[], p_sent_at timestamptz[], p_expires_at timestamptz[])
RETURNS TABLE (ordinal integer, status smallint, seq bigint, sent_at timestamptz, code text, members_version bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	v_now timestamptz := clock_timestamp();
BEGIN
	-- 1. The positions: whoever else may still be committing these records is waited for, and then wins.
	IF cardinality(p_slots) > 0 THEN
		PERFORM chat.move_positions(p_spool, p_slots, p_from, p_to);
	END IF;

	-- 2. The conversations. From here on nobody's rights in them change until we commit.
	PERFORM FROM chat.conversations WHERE id = ANY (p_conversation) ORDER BY id FOR NO KEY UPDATE;

	-- 3. In a later statement, which sees what was committed before the locks were ours: look, number, store, answer.
	RETURN QUERY
	WITH checked AS (
		SELECT i, p_conversation[i] AS conversation_id, p_sender[i] AS sender_id, c.last_seq, c.last_ordinal, c.members_version,
			m.seq AS first_seq, m.sent_at AS first_sent_at,
			p_type[i] IN ('reaction', 'edit', 'delete') AS uncounted,
			CASE
				-- What was stored stays stored, whatever became of the sender since.
				WHEN m.content_hash = p_content_hash[i] THEN 'duplicate'
				WHEN m.seq IS NOT NULL THEN 'conflict'
				WHEN u.status IS DISTINCT FROM 'active' THEN 'unauthenticated'
				WHEN p.role IS NULL THEN CASE WHEN c.is_public THEN 'forbidden' ELSE 'not_found' END
				WHEN p.role = 'reader' THEN 'forbidden'
				WHEN c.blocked THEN 'blocked'
				WHEN p_reply_to[i] NOT BETWEEN 1 AND c.last_seq OR p_ref[i] NOT BETWEEN c.first_seq AND c.last_seq THEN 'invalid_field'
			END AS verdict
		FROM generate_subscripts(p_conversation, 1) AS i
		LEFT JOIN chat.conversations c ON c.id = p_conversation[i]
		LEFT JOIN chat.users u ON u.id = p_sender[i]
		LEFT JOIN chat.conversation_participants p ON p.conversation_id = p_conversation[i] AND p.user_id = p_sender[i]
		LEFT JOIN chat.messages m ON m.conversation_id = p_conversation[i] AND m.sender_id = p_sender[i] AND m.client_id = p_client_id[i]
	), repeated AS (
		-- The same id twice in this batch: the first that may be stored is, the others are measured by it.
		SELECT checked.*, min(i) FILTER (WHERE verdict IS NULL) OVER (PARTITION BY conversation_id, sender_id, p_client_id[i]) AS first_i
		FROM checked
	), judged AS (
		SELECT repeated.*, coalesce(verdict,
			CASE WHEN i = first_i THEN NULL
			WHEN p_content_hash[i] = p_content_hash[first_i] THEN 'duplicate' ELSE 'conflict' END) AS outcome
		FROM repeated
	), numbered AS MATERIALIZED (
		SELECT judged.*,
			last_seq + count(*) FILTER (WHERE outcome IS NULL) OVER running AS new_seq,
			last_ordinal + count(*) FILTER (WHERE outcome IS NULL AND NOT uncounted) OVER running AS new_ordinal
		FROM judged WINDOW running AS (PARTITION BY conversation_id ORDER BY i)
	), stored AS (
		INSERT INTO chat.messages (conversation_id, seq, ordinal, sender_id, sent_at, committed_at, reply_to, ref, expires_at,
			client_id, content_hash, type, body, extra)
		SELECT conversation_id, new_seq, new_ordinal, sender_id, p_sent_at[i], v_now, p_reply_to[i], p_ref[i], p_expires_at[i],
			p_client_id[i], p_content_hash[i], p_type[i], p_body[i], p_extra[i]
		FROM numbered WHERE outcome IS NULL
	), counted AS (
		UPDATE chat.conversations c SET last_seq = n.seq, last_ordinal = n.ordinal
		FROM (SELECT conversation_id, max(new_seq) AS seq, max(new_ordinal) AS ordinal FROM numbered WHERE outcome IS NULL GROUP BY conversation_id) n
		WHERE c.id = n.conversation_id
	), moved AS (
		UPDATE chat.participant_watermarks w SET delivered_seq = n.seq, read_seq = n.seq, read_ordinal = n.ordinal,
			delivered_at = v_now, read_at = v_now
		FROM (SELECT conversation_id, sender_id, max(new_seq) AS seq, max(new_ordinal) AS ordinal FROM numbered WHERE outcome IS NULL
			GROUP BY conversation_id, sender_id ORDER BY conversation_id, sender_id) n
		WHERE w.conversation_id = n.conversation_id AND w.user_id = n.sender_id
	), refused AS (
		INSERT INTO chat.refusals (user_id, device_id, conversation_id, client_id, code, sent_at, refused_at)
		SELECT sender_id, nullif(p_device[i], 0), conversation_id, p_client_id[i], outcome, p_sent_at[i], v_now
		FROM numbered WHERE outcome <> 'duplicate'
	)
	SELECT n.i,
		CASE WHEN n.outcome IS NULL THEN 1 WHEN n.outcome = 'duplicate' THEN 2 ELSE 3 END::smallint,
		CASE WHEN n.outcome IS NULL THEN n.new_seq WHEN n.outcome = 'duplicate' THEN coalesce(n.first_seq, f.new_seq) END,
		CASE WHEN n.outcome IS NULL THEN p_sent_at[n.i] WHEN n.outcome = 'duplicate' THEN coalesce(n.first_sent_at, p_sent_at[n.first_i]) END,
		CASE WHEN n.outcome <> 'duplicate' THEN n.outcome END,
		coalesce(n.members_version, 0)
	FROM numbered n LEFT JOIN numbered f ON n.outcome = 'duplicate' AND f.i = n.first_i
	ORDER BY n.i;
END $$;
COMMENT ON FUNCTION chat.append_messages IS 'Stores a batch of messages in one transaction with the move of their spool positions: numbered without a gap, duplicates answered with the first, refusals recorded.';

-- -- marks -------------------------------------------------------------------------------------------------------------

CREATE FUNCTION chat.append_marks(
	p_spool uuid, p_slots smallint[], p_from bigint[], p_to bigint[],
	p_conversation bigint[], p_user bigint[], p_device bigint[], p_delivered bigint[], p_read bigint[], p_at timestamptz[])
RETURNS TABLE (ordinal integer, code text, delivered_seq bigint, read_seq bigint, changed boolean, members_version bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	IF cardinality(p_slots) > 0 THEN
		PERFORM chat.move_positions(p_spool, p_slots, p_from, p_to);
	END IF;

	-- The watermarks alone are locked: a mark depends on no number that could fall.
	PERFORM FROM chat.participant_watermarks w
	WHERE (w.conversation_id, w.user_id) IN (SELECT * FROM unnest(p_conversation, p_user))
	ORDER BY w.conversation_id, w.user_id FOR NO KEY UPDATE;

	RETURN QUERY
	WITH checked AS (
		SELECT i, p_conversation[i] AS conversation_id, p_user[i] AS user_id, p_device[i] AS device_id, p_at[i] AS at,
			c.members_version, c.last_ordinal, c.last_seq, w.delivered_seq, w.read_seq, w.read_ordinal,
			greatest(p_delivered[i], p_read[i]) AS wanted_delivered, p_read[i] AS wanted_read,
			CASE
				WHEN w.user_id IS NULL THEN 'not_found'
				WHEN greatest(p_delivered[i], p_read[i]) > c.last_seq OR least(p_delivered[i], p_read[i]) < 0 THEN 'invalid_field'
			END AS code
		FROM generate_subscripts(p_conversation, 1) AS i
		LEFT JOIN chat.conversations c ON c.id = p_conversation[i]
		LEFT JOIN chat.participant_watermarks w ON w.conversation_id = p_conversation[i] AND w.user_id = p_user[i]
	), risen AS MATERIALIZED (
		SELECT checked.*,
			greatest(delivered_seq, max(wanted_delivered) FILTER (WHERE code IS NULL) OVER so_far) AS new_delivered,
			greatest(read_seq, max(wanted_read) FILTER (WHERE code IS NULL) OVER so_far) AS new_read,
			greatest(delivered_seq, max(wanted_delivered) FILTER (WHERE code IS NULL) OVER before) AS old_delivered,
			greatest(read_seq, max(wanted_read) FILTER (WHERE code IS NULL) OVER before) AS old_read
		FROM checked WINDOW so_far AS (PARTITION BY conversation_id, user_id ORDER BY i),
			before AS (PARTITION BY conversation_id, user_id ORDER BY i ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
	), final AS (
		SELECT conversation_id, user_id, max(new_delivered) AS new_delivered, max(new_read) AS new_read,
			bool_or(new_delivered > delivered_seq) AS delivered_rose, bool_or(new_read > read_seq) AS read_rose,
			max(at) FILTER (WHERE new_delivered > old_delivered) AS delivered_at,
			max(at) FILTER (WHERE new_read > old_read) AS read_at
		FROM risen WHERE code IS NULL GROUP BY conversation_id, user_id HAVING bool_or(new_delivered > old_delivered OR new_read > old_read)
	), moved AS (
		UPDATE chat.participant_watermarks w SET delivered_seq = f.new_delivered, read_seq = f.new_read,
			delivered_at = coalesce(f.delivered_at, w.delivered_at), read_at = coalesce(f.read_at, w.read_at),
			-- The entry itself may be gone by retention; then what came before it is gone too and does not count as unread.
			read_ordinal = CASE WHEN f.read_rose THEN coalesce(
				(SELECT m.ordinal FROM chat.messages m WHERE m.conversation_id = f.conversation_id AND m.seq <= f.new_read ORDER BY m.seq DESC LIMIT 1),
				w.read_ordinal) ELSE w.read_ordinal END
		FROM final f WHERE w.conversation_id = f.conversation_id AND w.user_id = f.user_id
	), devices AS (
		INSERT INTO chat.device_watermarks AS dw (conversation_id, user_id, device_id, delivered_seq, delivered_at)
		SELECT r.conversation_id, r.user_id, r.device_id, max(r.wanted_delivered), max(r.at)
		FROM risen r JOIN chat.devices d ON d.id = r.device_id AND d.user_id = r.user_id
		WHERE r.code IS NULL
		GROUP BY r.conversation_id, r.user_id, r.device_id ORDER BY r.conversation_id, r.user_id, r.device_id
		ON CONFLICT (conversation_id, user_id, device_id) DO UPDATE
		SET delivered_seq = excluded.delivered_seq, delivered_at = excluded.delivered_at WHERE dw.delivered_seq < excluded.delivered_seq
	)
	SELECT r.i, r.code, r.new_delivered, r.new_read,
		r.code IS NULL AND (r.new_delivered > r.old_delivered OR r.new_read > r.old_read), coalesce(r.members_version, 0)
	FROM risen r ORDER BY r.i;
END $$;
COMMENT ON FUNCTION chat.append_marks IS 'Stores a batch of "delivered / read up to here" in one transaction with the move of their spool positions. Watermarks only rise.';

-- -- who may sign in, who is where ---------------------------------------------------------------------------------------

CREATE FUNCTION chat.role_number(role chat.participant_role) RETURNS smallint LANGUAGE sql IMMUTABLE AS $$
	SELECT (CASE role WHEN 'reader' THEN 1 WHEN 'member' THEN 2 WHEN 'admin' THEN 3 WHEN 'owner' THEN 4 ELSE 0 END)::smallint
$$;
COMMENT ON FUNCTION chat.role_number IS 'Roles as the plugin holds them: 0 none, 1 reader, 2 member, 3 admin, 4 owner.';

CREATE FUNCTION chat.open_sessions(p_users bigint[], p_devices bigint[], p_create boolean)
RETURNS TABLE (ordinal integer, code text, conversations bigint[], roles smallint[], members_versions bigint[], last_seqs bigint[])
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	IF p_create THEN
		INSERT INTO chat.users (id)
		SELECT DISTINCT wanted FROM unnest(p_users) AS wanted
		WHERE wanted BETWEEN 1 AND 8796093022207 AND NOT EXISTS (SELECT FROM chat.users WHERE id = wanted)
		ORDER BY wanted ON CONFLICT DO NOTHING;
	END IF;
	RETURN QUERY
	SELECT i, allowed.code,
		coalesce(held.conversations, '{}'), coalesce(held.roles, '{}'), coalesce(held.members_versions, '{}'), coalesce(held.last_seqs, '{}')
	FROM generate_subscripts(p_users, 1) AS i
	LEFT JOIN chat.users u ON u.id = p_users[i]
	LEFT JOIN chat.devices d ON d.id = p_devices[i]
	CROSS JOIN LATERAL (
		SELECT CASE
			WHEN u.status IS DISTINCT FROM 'active' THEN 'unauthenticated'
			WHEN p_devices[i] <> 0 AND (d.user_id IS DISTINCT FROM u.id OR d.revoked_at IS NOT NULL) THEN 'unauthenticated'
		END AS code
	) AS allowed
	LEFT JOIN LATERAL (
		SELECT array_agg(c.id ORDER BY c.id) AS conversations, array_agg(chat.role_number(p.role) ORDER BY c.id) AS roles,
			array_agg(c.members_version ORDER BY c.id) AS members_versions, array_agg(c.last_seq ORDER BY c.id) AS last_seqs
		FROM chat.conversation_participants p JOIN chat.conversations c ON c.id = p.conversation_id
		WHERE p.user_id = p_users[i]
	) AS held ON allowed.code IS NULL
	ORDER BY i;
END $$;
COMMENT ON FUNCTION chat.open_sessions IS 'For a batch of (user, device or 0): whether they may sign in, and all their conversations in the order of their ids.';

CREATE FUNCTION chat.load_memberships(p_conversations bigint[], p_users bigint[])
RETURNS TABLE (ordinal integer, role smallint, members_version bigint, last_seq bigint, public boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY
	SELECT i, chat.role_number(p.role), coalesce(c.members_version, 0), coalesce(c.last_seq, 0), coalesce(c.is_public, false)
	FROM generate_subscripts(p_conversations, 1) AS i
	LEFT JOIN chat.conversations c ON c.id = p_conversations[i]
	LEFT JOIN chat.conversation_participants p ON p.conversation_id = p_conversations[i] AND p.user_id = p_users[i]
	ORDER BY i;
END $$;
COMMENT ON FUNCTION chat.load_memberships IS 'For pairs of conversation and user: the role (0: none) and the conversation''s facts, all from one moment. User 0 asks for the facts alone.';

CREATE FUNCTION chat.public_channels() RETURNS SETOF bigint LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN QUERY SELECT id FROM chat.conversations WHERE is_public ORDER BY id;
END $$;
COMMENT ON FUNCTION chat.public_channels IS 'The channels that anyone signed in may read, ascending.';

CREATE FUNCTION chat.read_messages(p_conversation bigint, p_first bigint, p_last bigint)
RETURNS TABLE (seq bigint, client_id uuid, sender_id bigint, sent_at timestamptz, type text, body text, reply_to bigint, ref bigint,
	extra jsonb, expires_at timestamptz, members_version bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY
	SELECT m.seq, m.client_id, m.sender_id, m.sent_at, m.type, m.body, m.reply_to, m.ref, m.extra, m.expires_at, c.members_version
	FROM chat.messages m JOIN chat.conversations c ON c.id = m.conversation_id
	WHERE m.conversation_id = p_conversation AND m.seq BETWEEN p_first AND p_last
	ORDER BY m.seq LIMIT 1000;
END $$;
COMMENT ON FUNCTION chat.read_messages IS 'Entries of a log from one number to another, ascending, at most 1,000.';
