-- The functions through which the plugin reads and writes. chat_plugin may do nothing else (0004_privileges.sql).
--
-- Plans. The functions that the plugin calls all the time set the planner straight: a plan is made once for a connection,
-- perhaps when the tables are still empty and reading them whole looks cheap, and must be right for one message and for a
-- thousand, with four users and with millions (tests/sql/plans.sql). So sequential scans and joins that read whole tables are
-- switched off; what is looked up for each row is LATERAL … OFFSET 0, which PostgreSQL never turns into another kind of join;
-- and an UPDATE joins by "= ANY (ARRAY[…])", which an index answers and a merge of whole indexes does not.
--
-- They are SECURITY DEFINER with a fixed search_path, and PL/pgSQL because it keeps its plans. All of them expect READ COMMITTED,
-- where each statement sees what was committed before it began: "lock, then look in a later statement" rests on that.
--
-- Order of locks in one batch: spool_positions (by slot) - conversations (by id) - participant_watermarks (by conversation, user)
-- - device_watermarks. Two batches can wait for each other only in one direction. A call is a transaction of its own: the second
-- update of a watermark in one transaction has its foreign key checked, and that waits for a removal that waits for us.

CREATE FUNCTION chat.version() RETURNS integer
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN max(number) FROM chat_migrations.applied;
END $$;
COMMENT ON FUNCTION chat.version IS 'The number of the newest migration that was applied.';

CREATE FUNCTION chat.claim_broker() RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN pg_try_advisory_lock(1667785076, 1651662699); -- 'chat' 'brok'; local to the database
END $$;
COMMENT ON FUNCTION chat.claim_broker IS 'True for one session at a time: one broker works on one database. Ends with the '
	'session.';

-- -- the committed positions of a spool --------------------------------------------------------------------------------

CREATE FUNCTION chat.read_positions(p_spool uuid, p_slots smallint[]) RETURNS TABLE (slot smallint, position_committed bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
	INSERT INTO chat.spool_positions (spool, slot)
	SELECT DISTINCT p_spool, wanted FROM unnest(p_slots) AS wanted ORDER BY wanted
	ON CONFLICT DO NOTHING;
	RETURN QUERY SELECT sp.slot, sp.position_committed FROM chat.spool_positions sp
	WHERE sp.spool = p_spool AND sp.slot = ANY (p_slots) ORDER BY sp.slot FOR UPDATE;
END $$;
COMMENT ON FUNCTION chat.read_positions IS 'The committed positions of a spool''s slots, locked: waits for a connection that may '
	'still be committing. Unknown slots start at 0.';

CREATE FUNCTION chat.move_positions(p_spool uuid, p_slots smallint[], p_from bigint[], p_to bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	moved smallint[];
	stale record;
BEGIN
	-- One that is being moved by another connection is waited for here, and then looked at again.
	IF cardinality(p_slots) = 1 THEN
		UPDATE chat.spool_positions SET position_committed = p_to[1]
		WHERE spool = p_spool AND slot = p_slots[1] AND position_committed = p_from[1];
		IF FOUND THEN
			RETURN;
		END IF;
	ELSE
		WITH hit AS (
			UPDATE chat.spool_positions SET position_committed = wanted.position_to
			FROM unnest(p_slots, p_from, p_to) AS wanted (slot, position_from, position_to)
			WHERE spool_positions.spool = p_spool AND spool_positions.slot = ANY (ARRAY[wanted.slot])
				AND spool_positions.position_committed = wanted.position_from
			RETURNING wanted.slot
		)
		SELECT array_agg(slot) INTO moved FROM hit;
	END IF;
	IF moved IS NULL OR cardinality(moved) <> cardinality(p_slots) THEN
		SELECT wanted.slot, wanted.position_from, sp.position_committed INTO stale
		FROM unnest(p_slots, p_from) AS wanted (slot, position_from)
		LEFT JOIN chat.spool_positions sp ON sp.spool = p_spool AND sp.slot = wanted.slot
		WHERE moved IS NULL OR wanted.slot <> ALL (moved)
		ORDER BY wanted.slot LIMIT 1;
		RAISE EXCEPTION 'slot % is not at position % but at %', stale.slot, stale.position_from,
			coalesce(stale.position_committed::text, 'none')
			USING ERRCODE = 'CH001', HINT = 'The records up to there were committed by somebody else, '
				'or the spool is not the one that this database knows.';
	END IF;
END $$;
COMMENT ON FUNCTION chat.move_positions IS 'Moves slots from one position to the next; CH001 and nothing done unless all of them '
	'are where the caller believes.';

-- -- messages ----------------------------------------------------------------------------------------------------------

-- The head of the file says why the settings.
CREATE FUNCTION chat.append_messages(
	p_spool uuid, p_slots smallint[], p_from bigint[], p_to bigint[],
	p_conversation bigint[], p_sender bigint[], p_device bigint[], p_client_id uuid[], p_content_hash uuid[], p_type text[], p_body text[],
	p_reply_to bigint[], p_ref bigint[], p_extra jsonb[], p_sent_at timestamptz[], p_expires_at timestamptz[])
RETURNS TABLE (ordinal integer, status smallint, seq bigint, sent_at timestamptz, code text, members_version bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
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
	v_first integer;
	i integer;
	m record;
BEGIN
	-- 1. The positions. Who else may still be committing these very records is waited for, and has then won.
	IF cardinality(p_slots) > 0 THEN
		PERFORM chat.move_positions(p_spool, p_slots, p_from, p_to);
	END IF;

	-- 2. The conversations, in the order of their ids. From here on nobody's rights in them change until we commit.
	PERFORM FROM chat.conversations WHERE id = ANY (p_conversation) ORDER BY id FOR NO KEY UPDATE;

	IF v_count > 1 THEN
		SELECT array_agg(client_id) INTO v_repeated
		FROM (SELECT client_id FROM unnest(p_client_id) AS client_id GROUP BY client_id HAVING count(*) > 1) repeated;
	END IF;

	-- 3. In a later statement, which sees what was committed before the locks were ours: look, and number.
	FOR m IN
		SELECT batch.i, batch.conversation_id, c.last_seq, c.last_ordinal, c.members_version,
			known.seq AS known_seq, known.sent_at AS known_sent_at,
			CASE
				-- What was stored stays stored, whatever became of its sender since.
				WHEN known.seq IS NOT NULL THEN CASE WHEN known.content_hash = p_content_hash[batch.i] THEN NULL ELSE 'conflict' END
				WHEN u.status IS DISTINCT FROM 'active' THEN 'unauthenticated'
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
			SELECT min(place) INTO v_first FROM unnest(v_stored) AS place
			WHERE p_client_id[place] = p_client_id[i] AND p_sender[place] = p_sender[i] AND p_conversation[place] = v_conversation;
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

		v_last_seq := v_last_seq + 1;
		IF p_type[i] NOT IN ('reaction', 'edit', 'delete') THEN
			v_last_ordinal := v_last_ordinal + 1;
		END IF;
		v_status[i] := k_stored;
		v_seq[i] := v_last_seq;
		v_ordinal[i] := v_last_ordinal;
		v_stored := v_stored || i;
	END LOOP;
	v_conversations := v_conversations || v_conversation;
	v_last_seqs := v_last_seqs || v_last_seq;
	v_last_ordinals := v_last_ordinals || v_last_ordinal;

	-- 4. Store. Neighbours in a conversation are inserted one after the other: their index pages are still at hand.
	IF cardinality(v_stored) > 0 THEN
		INSERT INTO chat.messages (conversation_id, seq, ordinal, sender_id, sent_at, committed_at, reply_to, ref, expires_at,
			client_id, content_hash, type, body, extra)
		SELECT p_conversation[place], v_seq[place], v_ordinal[place], p_sender[place], p_sent_at[place], v_now,
			p_reply_to[place], p_ref[place], p_expires_at[place],
			p_client_id[place], p_content_hash[place], p_type[place], p_body[place], p_extra[place]
		FROM unnest(v_stored) AS place;

		-- Who writes has seen what came before. The case of a single message, which is most of a quiet server's work, is spared the joins.
		IF v_count = 1 THEN
			UPDATE chat.conversations SET last_seq = v_last_seq, last_ordinal = v_last_ordinal WHERE id = v_conversation;
			UPDATE chat.participant_watermarks
			SET delivered_seq = v_last_seq, read_seq = v_last_seq, read_ordinal = v_last_ordinal, delivered_at = v_now, read_at = v_now
			WHERE conversation_id = v_conversation AND user_id = p_sender[1];
		ELSE
			UPDATE chat.conversations SET last_seq = now.last_seq, last_ordinal = now.last_ordinal
			FROM unnest(v_conversations, v_last_seqs, v_last_ordinals) AS now (id, last_seq, last_ordinal)
			WHERE conversations.id = ANY (ARRAY[now.id]) AND conversations.last_seq <> now.last_seq;

			UPDATE chat.participant_watermarks w
			SET delivered_seq = own.seq, read_seq = own.seq, read_ordinal = own.ordinal, delivered_at = v_now, read_at = v_now
			FROM (SELECT p_conversation[place] AS conversation_id, p_sender[place] AS user_id,
					max(v_seq[place]) AS seq, max(v_ordinal[place]) AS ordinal
				FROM unnest(v_stored) AS place GROUP BY 1, 2 ORDER BY 1, 2) own
			WHERE w.conversation_id = ANY (ARRAY[own.conversation_id]) AND w.user_id = own.user_id;
		END IF;
	END IF;
	IF v_refused THEN
		INSERT INTO chat.refusals (user_id, device_id, conversation_id, client_id, code, sent_at, refused_at)
		SELECT p_sender[place], nullif(p_device[place], 0), p_conversation[place], p_client_id[place], v_code[place],
			p_sent_at[place], v_now
		FROM generate_series(1, v_count) AS place WHERE v_status[place] = k_refused;
	END IF;

	RETURN QUERY SELECT place, v_status[place], v_seq[place], CASE WHEN v_status[place] <> k_refused THEN v_sent_at[place] END,
		v_code[place], coalesce(v_version[place], 0)
	FROM generate_series(1, v_count) AS place;
END $$;
COMMENT ON FUNCTION chat.append_messages IS 'Stores a batch of messages in one transaction with the move of their spool '
	'positions: numbered without a gap, duplicates answered with the first, refusals recorded.';

-- -- marks -------------------------------------------------------------------------------------------------------------

CREATE FUNCTION chat.append_marks(
	p_spool uuid, p_slots smallint[], p_from bigint[], p_to bigint[],
	p_conversation bigint[], p_user bigint[], p_device bigint[], p_delivered bigint[], p_read bigint[], p_at timestamptz[])
RETURNS TABLE (ordinal integer, code text, delivered_seq bigint, read_seq bigint, changed boolean, members_version bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
	IF cardinality(p_slots) > 0 THEN
		PERFORM chat.move_positions(p_spool, p_slots, p_from, p_to);
	END IF;

	-- The watermarks alone are locked: a mark depends on no number that could fall.
	PERFORM FROM (SELECT DISTINCT conversation_id, user_id FROM unnest(p_conversation, p_user) AS batch (conversation_id, user_id)
		ORDER BY conversation_id, user_id) batch
	CROSS JOIN LATERAL (SELECT FROM chat.participant_watermarks w
		WHERE w.conversation_id = batch.conversation_id AND w.user_id = batch.user_id FOR NO KEY UPDATE) w;

	RETURN QUERY
	WITH checked AS (
		SELECT i, p_conversation[i] AS conversation_id, p_user[i] AS user_id, p_device[i] AS device_id, p_at[i] AS at,
			c.members_version, c.last_ordinal, c.last_seq, w.delivered_seq, w.read_seq, w.read_ordinal,
			greatest(p_delivered[i], p_read[i]) AS wanted_delivered, p_read[i] AS wanted_read,
			CASE
				WHEN w.user_id IS NULL THEN 'not_found'
				WHEN greatest(p_delivered[i], p_read[i]) > c.last_seq OR least(p_delivered[i], p_read[i]) < 0 THEN 'invalid_field'
			END AS code
		FROM generate_series(1, cardinality(p_conversation)) AS i
		LEFT JOIN LATERAL (SELECT * FROM chat.conversations WHERE id = p_conversation[i] OFFSET 0) c ON true
		LEFT JOIN LATERAL (SELECT * FROM chat.participant_watermarks
			WHERE conversation_id = p_conversation[i] AND user_id = p_user[i] OFFSET 0) w ON true
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
		FROM risen WHERE code IS NULL GROUP BY conversation_id, user_id
		HAVING bool_or(new_delivered > old_delivered OR new_read > old_read)
	), moved AS (
		UPDATE chat.participant_watermarks w SET delivered_seq = f.new_delivered, read_seq = f.new_read,
			delivered_at = coalesce(f.delivered_at, w.delivered_at), read_at = coalesce(f.read_at, w.read_at),
			-- The entry itself may be gone by retention; then what came before it is gone too and does not count
			-- as unread.
			read_ordinal = CASE WHEN f.read_rose THEN coalesce(
				(SELECT m.ordinal FROM chat.messages m WHERE m.conversation_id = f.conversation_id AND m.seq <= f.new_read
					ORDER BY m.seq DESC LIMIT 1),
				w.read_ordinal) ELSE w.read_ordinal END
		FROM final f WHERE w.conversation_id = ANY (ARRAY[f.conversation_id]) AND w.user_id = f.user_id
	), devices AS (
		INSERT INTO chat.device_watermarks AS dw (conversation_id, user_id, device_id, delivered_seq, delivered_at)
		SELECT r.conversation_id, r.user_id, r.device_id, max(r.wanted_delivered), max(r.at)
		FROM risen r WHERE r.code IS NULL AND (SELECT user_id FROM chat.devices WHERE id = r.device_id) = r.user_id
		GROUP BY r.conversation_id, r.user_id, r.device_id ORDER BY r.conversation_id, r.user_id, r.device_id
		ON CONFLICT (conversation_id, user_id, device_id) DO UPDATE
		SET delivered_seq = excluded.delivered_seq, delivered_at = excluded.delivered_at
		WHERE dw.delivered_seq < excluded.delivered_seq
	)
	SELECT r.i, r.code, r.new_delivered, r.new_read,
		r.code IS NULL AND (r.new_delivered > r.old_delivered OR r.new_read > r.old_read), coalesce(r.members_version, 0)
	FROM risen r ORDER BY r.i;
END $$;
COMMENT ON FUNCTION chat.append_marks IS 'Stores a batch of "delivered / read up to here" in one transaction with the move of '
	'their spool positions. Watermarks only rise.';

-- -- who may sign in, who is where ---------------------------------------------------------------------------------------

CREATE FUNCTION chat.role_number(role chat.participant_role) RETURNS smallint LANGUAGE sql IMMUTABLE AS $$
	SELECT (CASE role WHEN 'reader' THEN 1 WHEN 'member' THEN 2 WHEN 'admin' THEN 3 WHEN 'owner' THEN 4 ELSE 0 END)::smallint
$$;
COMMENT ON FUNCTION chat.role_number IS 'Roles as the plugin holds them: 0 none, 1 reader, 2 member, 3 admin, 4 owner.';

CREATE FUNCTION chat.channel_flag(type chat.conversation_type) RETURNS smallint LANGUAGE sql IMMUTABLE AS $$
	SELECT (CASE type WHEN 'channel' THEN 16 ELSE 0 END)::smallint
$$;
COMMENT ON FUNCTION chat.channel_flag IS 'Added to a role number where the conversation is a channel, which has no receipts and '
	'no typing.';

CREATE FUNCTION chat.open_sessions(p_users bigint[], p_devices bigint[], p_create boolean)
RETURNS TABLE (ordinal integer, code text, conversations bigint[], roles smallint[], members_versions bigint[], last_seqs bigint[])
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
	IF p_create THEN
		INSERT INTO chat.users (id)
		SELECT DISTINCT wanted FROM unnest(p_users) AS wanted
		WHERE wanted BETWEEN 1 AND 8796093022207 AND (SELECT id FROM chat.users WHERE id = wanted) IS NULL
		ORDER BY wanted ON CONFLICT DO NOTHING;
	END IF;
	RETURN QUERY
	SELECT i, allowed.code,
		coalesce(held.conversations, '{}'), coalesce(held.roles, '{}'), coalesce(held.members_versions, '{}'), coalesce(held.last_seqs, '{}')
	FROM generate_series(1, cardinality(p_users)) AS i
	LEFT JOIN LATERAL (SELECT * FROM chat.users WHERE id = p_users[i] OFFSET 0) u ON true
	LEFT JOIN LATERAL (SELECT * FROM chat.devices WHERE id = p_devices[i] OFFSET 0) d ON true
	CROSS JOIN LATERAL (
		SELECT CASE
			WHEN u.status IS DISTINCT FROM 'active' THEN 'unauthenticated'
			WHEN p_devices[i] <> 0 AND (d.user_id IS DISTINCT FROM u.id OR d.revoked_at IS NOT NULL) THEN 'unauthenticated'
		END AS code
	) AS allowed
	LEFT JOIN LATERAL (
		SELECT array_agg(c.id ORDER BY c.id) AS conversations,
			array_agg(chat.role_number(p.role) + chat.channel_flag(c.type) ORDER BY c.id)::smallint[] AS roles,
			array_agg(c.members_version ORDER BY c.id) AS members_versions, array_agg(c.last_seq ORDER BY c.id) AS last_seqs
		FROM chat.conversation_participants p
		CROSS JOIN LATERAL (SELECT * FROM chat.conversations WHERE id = p.conversation_id OFFSET 0) c
		WHERE p.user_id = p_users[i]
	) AS held ON allowed.code IS NULL
	ORDER BY i;
END $$;
COMMENT ON FUNCTION chat.open_sessions IS 'For a batch of (user, device or 0): whether they may sign in, and all their '
	'conversations in the order of their ids.';

CREATE FUNCTION chat.load_memberships(p_conversations bigint[], p_users bigint[])
RETURNS TABLE (ordinal integer, role smallint, members_version bigint, last_seq bigint, public boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY
	SELECT i, (chat.role_number(p.role) + chat.channel_flag(c.type))::smallint,
		coalesce(c.members_version, 0), coalesce(c.last_seq, 0), coalesce(c.is_public, false)
	FROM generate_series(1, cardinality(p_conversations)) AS i
	LEFT JOIN LATERAL (SELECT * FROM chat.conversations WHERE id = p_conversations[i] OFFSET 0) c ON true
	LEFT JOIN LATERAL (SELECT * FROM chat.conversation_participants
		WHERE conversation_id = p_conversations[i] AND user_id = p_users[i] OFFSET 0) p ON true
	ORDER BY i;
END $$;
COMMENT ON FUNCTION chat.load_memberships IS 'For pairs of conversation and user: the role (0: none) and the conversation''s '
	'facts, all from one moment. User 0 asks for the facts alone.';

CREATE FUNCTION chat.public_channels() RETURNS SETOF bigint LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET jit = off AS $$
BEGIN
	RETURN QUERY SELECT id FROM chat.conversations WHERE is_public ORDER BY id;
END $$;
COMMENT ON FUNCTION chat.public_channels IS 'The channels that anyone signed in may read, ascending.';

CREATE FUNCTION chat.read_messages(p_conversation bigint, p_first bigint, p_last bigint)
RETURNS TABLE (seq bigint, client_id uuid, sender_id bigint, sent_at timestamptz, type text, body text, reply_to bigint, ref bigint,
	extra jsonb, expires_at timestamptz, members_version bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY
	SELECT m.seq, m.client_id, m.sender_id, m.sent_at, m.type, m.body, m.reply_to, m.ref, m.extra, m.expires_at,
		(SELECT members_version FROM chat.conversations WHERE id = p_conversation)
	FROM chat.messages m
	WHERE m.conversation_id = p_conversation AND m.seq BETWEEN p_first AND p_last
	ORDER BY m.seq LIMIT 1000;
END $$;
COMMENT ON FUNCTION chat.read_messages IS 'Entries of a log from one number to another, ascending, at most 1,000.';
