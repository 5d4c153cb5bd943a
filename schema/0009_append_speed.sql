-- chat.append_messages in three lengths. What it decides is as before; what it costs is not.
--
-- Nearly every batch holds nothing but messages that are stored: every sender may post, nothing is a resend, nothing refers to
-- what is not there. Whether that is so is one question for the whole batch, and the rest follows from it:
--
--   one message        four short statements, no join: starting a statement is what costs here, so few and small ones
--   a plain batch      one statement checks, numbers, stores and counts
--   any other batch    chat.append_carefully, message by message, as the first version did with all
--
-- All of them hold the conversations' locks before they look (0003_functions.sql), and the first two have changed nothing, or have
-- taken it back, when they leave a batch to the third. All ask for the sender's device as they ask for the sender: between CONNECT and
-- the end of a session that may not be, messages are accepted.

CREATE FUNCTION chat.append_carefully(
	p_conversation bigint[], p_sender bigint[], p_device bigint[], p_client_id uuid[], p_content_hash uuid[], p_type text[], p_body text[],
	p_reply_to bigint[], p_ref bigint[], p_extra jsonb[], p_sent_at timestamptz[], p_expires_at timestamptz[])
RETURNS TABLE (ordinal integer, status smallint, seq bigint, sent_at timestamptz, code text, members_version bigint)
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
	IF v_count > 1 THEN
		SELECT array_agg(client_id) INTO v_repeated
		FROM (SELECT client_id FROM unnest(p_client_id) AS client_id GROUP BY client_id HAVING count(*) > 1) repeated;
	END IF;

	-- Look, and number.
	FOR m IN
		SELECT batch.i, batch.conversation_id, c.last_seq, c.last_ordinal, c.members_version,
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

	-- Store. Neighbours in a conversation are inserted one after the other: their index pages are still at hand.
	IF cardinality(v_stored) > 0 THEN
		INSERT INTO chat.messages (conversation_id, seq, ordinal, sender_id, sent_at, committed_at, reply_to, ref, expires_at,
			client_id, content_hash, type, body, extra)
		SELECT p_conversation[place], v_seq[place], v_ordinal[place], p_sender[place], p_sent_at[place], v_now,
			p_reply_to[place], p_ref[place], p_expires_at[place],
			p_client_id[place], p_content_hash[place], p_type[place], p_body[place], p_extra[place]
		FROM unnest(v_stored) AS place;

		-- Who writes has seen what came before.
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
COMMENT ON FUNCTION chat.append_carefully IS 'The part of chat.append_messages that decides message by message. The caller holds the '
	'conversations'' locks.';

-- The settings of 0003_functions.sql, but for enable_hashjoin: what is hashed here are the batch's own rows, and every table is looked
-- into by LATERAL … OFFSET 0 or "= ANY (ARRAY[…])".
CREATE OR REPLACE FUNCTION chat.append_messages(
	p_spool uuid, p_slots smallint[], p_from bigint[], p_to bigint[],
	p_conversation bigint[], p_sender bigint[], p_device bigint[], p_client_id uuid[], p_content_hash uuid[], p_type text[], p_body text[],
	p_reply_to bigint[], p_ref bigint[], p_extra jsonb[], p_sent_at timestamptz[], p_expires_at timestamptz[])
RETURNS TABLE (ordinal integer, status smallint, seq bigint, sent_at timestamptz, code text, members_version bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_mergejoin = off SET enable_material = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
	c record; -- the conversation of a single message, with that message counted
BEGIN
	-- 1. The positions. Who else may still be committing these very records is waited for, and has then won.
	IF cardinality(p_slots) = 1 THEN
		UPDATE chat.spool_positions SET position_committed = p_to[1]
		WHERE spool = p_spool AND slot = p_slots[1] AND position_committed = p_from[1];
	END IF;
	IF cardinality(p_slots) > 1 OR cardinality(p_slots) = 1 AND NOT FOUND THEN
		PERFORM chat.move_positions(p_spool, p_slots, p_from, p_to);
	END IF;

	-- 2. A single message: it is counted first, which takes the lock. Whether it may is asked in the statement that stores it.
	IF cardinality(p_conversation) = 1 THEN
		UPDATE chat.conversations
		SET last_seq = last_seq + 1, last_ordinal = last_ordinal + CASE WHEN p_type[1] IN ('reaction', 'edit', 'delete') THEN 0 ELSE 1 END
		WHERE id = p_conversation[1]
		RETURNING last_seq, last_ordinal, first_seq, members_version, blocked INTO c;
		INSERT INTO chat.messages (conversation_id, seq, ordinal, sender_id, sent_at, committed_at, reply_to, ref, expires_at,
			client_id, content_hash, type, body, extra)
		SELECT p_conversation[1], c.last_seq, c.last_ordinal, p_sender[1], p_sent_at[1], clock_timestamp(), p_reply_to[1], p_ref[1], p_expires_at[1],
			p_client_id[1], p_content_hash[1], p_type[1], p_body[1], p_extra[1]
		FROM chat.users u, chat.conversation_participants p
		WHERE u.id = p_sender[1] AND u.status = 'active'
			AND (p_device[1] = 0 OR (SELECT user_id = p_sender[1] AND revoked_at IS NULL FROM chat.devices WHERE id = p_device[1]))
			AND p.conversation_id = p_conversation[1] AND p.user_id = p_sender[1] AND p.role <> 'reader' AND NOT c.blocked
			AND (p_reply_to[1] BETWEEN 1 AND c.last_seq - 1) IS NOT FALSE
			AND (p_ref[1] BETWEEN c.first_seq AND c.last_seq - 1) IS NOT FALSE
			AND NOT EXISTS (SELECT FROM chat.messages
				WHERE sender_id = p_sender[1] AND client_id = p_client_id[1] AND conversation_id + 0 = p_conversation[1])
		RETURNING 1, 1::smallint, seq, sent_at, NULL::text, c.members_version
		INTO ordinal, status, seq, sent_at, code, members_version;
		IF FOUND THEN
			-- Who writes has seen what came before.
			UPDATE chat.participant_watermarks
			SET delivered_seq = c.last_seq, read_seq = c.last_seq, read_ordinal = c.last_ordinal, delivered_at = clock_timestamp(), read_at = clock_timestamp()
			WHERE conversation_id = p_conversation[1] AND user_id = p_sender[1];
			RETURN NEXT;
			RETURN;
		END IF;
		UPDATE chat.conversations
		SET last_seq = last_seq - 1, last_ordinal = last_ordinal - CASE WHEN p_type[1] IN ('reaction', 'edit', 'delete') THEN 0 ELSE 1 END
		WHERE id = p_conversation[1];

	-- 3. A batch. The conversations in the order of their ids: from here on nobody's rights in them change until we commit. In a later
	-- statement, which sees what was committed before the locks were ours: look, number and store, unless there is anything to refuse.
	ELSE
		PERFORM FROM chat.conversations WHERE id = ANY (p_conversation) ORDER BY id FOR NO KEY UPDATE;
		RETURN QUERY
		WITH pair AS MATERIALIZED (
			SELECT m.conversation_id, m.sender_id, c.last_seq, c.last_ordinal, c.first_seq, c.members_version,
				u.status = 'active' AND p.role <> 'reader' AND NOT c.blocked AS may
			FROM (SELECT conversation_id, sender_id FROM unnest(p_conversation, p_sender) AS batch (conversation_id, sender_id) GROUP BY 1, 2) m
			LEFT JOIN LATERAL (SELECT * FROM chat.conversations WHERE id = m.conversation_id OFFSET 0) c ON true
			LEFT JOIN LATERAL (SELECT * FROM chat.users WHERE id = m.sender_id OFFSET 0) u ON true
			LEFT JOIN LATERAL (SELECT * FROM chat.conversation_participants
				WHERE conversation_id = m.conversation_id AND user_id = m.sender_id OFFSET 0) p ON true
		), numbered AS MATERIALIZED (
			SELECT m.place, m.conversation_id, m.sender_id, pair.members_version,
				pair.last_seq + row_number() OVER so_far AS seq,
				pair.last_ordinal + count(*) FILTER (WHERE p_type[m.place] NOT IN ('reaction', 'edit', 'delete')) OVER so_far AS ordinal,
				-- Only what is committed can be answered: the numbers of this batch are known to nobody yet.
				pair.may AND (p_reply_to[m.place] BETWEEN 1 AND pair.last_seq) IS NOT FALSE
					AND (p_ref[m.place] BETWEEN pair.first_seq AND pair.last_seq) IS NOT FALSE AS may
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
			INSERT INTO chat.messages (conversation_id, seq, ordinal, sender_id, sent_at, committed_at, reply_to, ref, expires_at,
				client_id, content_hash, type, body, extra)
			SELECT conversation_id, seq, ordinal, sender_id, p_sent_at[place], clock_timestamp(), p_reply_to[place], p_ref[place], p_expires_at[place],
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
		SELECT place::integer, 1::smallint, seq, p_sent_at[place], NULL::text, members_version
		FROM numbered WHERE (SELECT yes FROM plain) ORDER BY place;
		IF FOUND THEN
			RETURN;
		END IF;
	END IF;

	RETURN QUERY SELECT * FROM chat.append_carefully(p_conversation, p_sender, p_device, p_client_id, p_content_hash, p_type, p_body,
		p_reply_to, p_ref, p_extra, p_sent_at, p_expires_at);
END $$;
