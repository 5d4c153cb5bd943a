-- What a review found.

-- -- devices that are signed out -----------------------------------------------------------------------------------------

-- chat.append_messages asks for the sender's device as it asks for the sender: between CONNECT and the end of a session that may not
-- be, messages are accepted. Else as in 0009_append_speed.sql.
CREATE OR REPLACE FUNCTION chat.append_carefully(
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

CREATE FUNCTION chat.lock_caller(p_user bigint, p_device bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	PERFORM FROM chat.users WHERE id = p_user AND status = 'active' FOR NO KEY UPDATE;
	RETURN FOUND AND (p_device = 0 OR EXISTS (SELECT FROM chat.devices WHERE id = p_device AND user_id = p_user AND revoked_at IS NULL));
END $$;
COMMENT ON FUNCTION chat.lock_caller IS 'Whether this user and device (0: none) may ask for anything; locks the user.';

DROP FUNCTION chat.revoke_device, chat.change_verifier;

CREATE FUNCTION chat.revoke_device(p_user bigint, p_caller_device bigint, p_device bigint) RETURNS SETOF boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF chat.lock_caller(p_user, p_caller_device) THEN
		UPDATE chat.devices SET revoked_at = now() WHERE id = p_device AND user_id = p_user AND revoked_at IS NULL;
		RETURN NEXT FOUND;
	END IF;
END $$;
COMMENT ON FUNCTION chat.revoke_device IS 'Signs a device of the user out; false: there is no such one, or it is out already. No row: the '
	'caller is signed out or suspended.';

CREATE FUNCTION chat.change_verifier(p_user bigint, p_caller_device bigint, p_old text, p_new text) RETURNS SETOF boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF NOT chat.lock_caller(p_user, p_caller_device) THEN
		RETURN;
	END IF;
	UPDATE chat.credentials SET verifier = p_new, changed_at = now() WHERE user_id = p_user AND verifier = p_old;
	RETURN NEXT FOUND;
	IF FOUND THEN
		UPDATE chat.devices SET revoked_at = now() WHERE user_id = p_user AND revoked_at IS NULL AND id <> p_caller_device;
	END IF;
END $$;
COMMENT ON FUNCTION chat.change_verifier IS 'Sets a new password in place of the one that was checked, and signs all devices but the caller''s '
	'out; false: it has been changed meanwhile. No row: the caller is signed out or suspended.';

-- -- reactions -----------------------------------------------------------------------------------------------------------

-- What people react with is in each answer about the message: 50 kinds, the first ones, of at most 64 characters. With more, the answer
-- would be too long to be sent, and with it the history of the whole conversation.
CREATE OR REPLACE FUNCTION chat_api.states(p_conversation bigint, p_first bigint, p_last bigint, p_as_of bigint, p_user bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
DECLARE
	k_kinds CONSTANT integer := 50; -- of reactions to one message
BEGIN
	IF NOT EXISTS (SELECT FROM chat.messages WHERE conversation_id = p_conversation AND ref BETWEEN p_first AND p_last) THEN
		RETURN '{}'; -- as nearly always
	END IF;
	RETURN (
		WITH acts AS MATERIALIZED (
			SELECT * FROM chat.message_acts WHERE conversation_id = p_conversation AND ref BETWEEN p_first AND p_last AND seq <= p_as_of
		), reactions AS (
			-- One of a kind for each user; a removal that names none takes back all that came before it.
			SELECT ref, body, count(*) AS count, bool_or(sender_id = p_user) AS mine, min(since) AS since,
				row_number() OVER (PARTITION BY ref ORDER BY min(since)) AS place
			FROM (SELECT ref, sender_id, body, min(seq) AS since FROM acts a WHERE type = 'reaction' AND NOT removes AND char_length(body) <= 64
				AND NOT EXISTS (SELECT FROM acts r WHERE r.removes AND r.ref = a.ref AND r.sender_id = a.sender_id
					AND coalesce(r.body, '') IN (a.body, '') AND r.seq > a.seq)
				GROUP BY ref, sender_id, body) standing
			GROUP BY ref, body
		), states AS (
			SELECT ref, jsonb_build_object('deleted', true) AS state FROM acts WHERE type = 'delete'
			UNION ALL
			(SELECT DISTINCT ON (ref) ref, jsonb_build_object('body', body, 'edited_at', chat_api.ms(sent_at))
			FROM acts WHERE type = 'edit' ORDER BY ref, seq DESC)
			UNION ALL
			SELECT ref, jsonb_build_object('reactions', jsonb_agg(
				jsonb_build_object('body', body, 'count', count) || CASE WHEN mine THEN '{"mine":true}' ELSE '{}' END::jsonb ORDER BY since))
			FROM reactions WHERE place <= k_kinds GROUP BY ref
		)
		SELECT coalesce(jsonb_object_agg(ref, state), '{}')
		FROM (SELECT ref, chat_api.merge(state) AS state FROM states GROUP BY ref) merged
	);
END $$;

-- -- administrators ------------------------------------------------------------------------------------------------------

-- The index on names executes it for whoever writes a row.
GRANT EXECUTE ON FUNCTION chat.username_key TO chat_admin;

-- -- search ------------------------------------------------------------------------------------------------------------

-- The words of 100,000 characters that NFKC makes 1,800,000 of took ten seconds: a message is found by its beginning, and a call ends
-- with the entry that made it enough.
CREATE FUNCTION chat.searched_text(body text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
	SELECT left(normalize(left(body, 10000), NFKC), 10000)
$$;
COMMENT ON FUNCTION chat.searched_text IS 'What of a message is searched: the first 10,000 characters, in the form in which it is.';

CREATE OR REPLACE FUNCTION chat.search_words(p_conversation bigint, body text) RETURNS tsvector LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	RETURN to_tsvector('simple', chat.pair_up(chat.searched_text(body))) || array_to_tsvector(ARRAY['#' || p_conversation]);
END $$;

CREATE OR REPLACE FUNCTION chat_api.highlight(body text, words tsquery, runs text[], needles text[]) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
	k_before CONSTANT integer := 60;
	k_around CONSTANT integer := 200;
	whole CONSTANT text := translate(chat.searched_text(body), U&'\E000\E001', '');
	line text;
	run text;
	piece text;
	parts jsonb := '[]';
BEGIN
	line := substr(whole, greatest(1, (SELECT min(place) FROM unnest(needles) AS needle CROSS JOIN LATERAL strpos(lower(whole), lower(needle)) AS place
		WHERE place > 0) - k_before), k_around);
	IF numnode(words) > 0 THEN
		line := ts_headline('simple', line, words, U&'HighlightAll=true,StartSel=\E000,StopSel=\E001');
	END IF;
	FOREACH run IN ARRAY runs LOOP
		line := replace(line, run, U&'\E000' || run || U&'\E001');
	END LOOP;
	FOR piece IN SELECT regexp_split_to_table(line, U&'(?=\E000)|(?<=\E001)') LOOP
		CONTINUE WHEN piece = '';
		parts := parts || (jsonb_build_object('text', translate(piece, U&'\E000\E001', ''))
			|| CASE WHEN piece LIKE U&'\E000%' THEN '{"match":true}' ELSE '{}' END::jsonb);
	END LOOP;
	RETURN parts;
END $$;

CREATE OR REPLACE FUNCTION chat.index_messages(p_conversations bigint[], p_limit integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET jit = off AS $$
DECLARE
	v_wanted CONSTANT bigint[] := coalesce(p_conversations, chat.unindexed_conversations());
	v_left integer := p_limit;
	v_bytes_left bigint := 200 * p_limit;
	v_bytes bigint;
	v_end bigint;
	v_last bigint;
	held record;
BEGIN
	INSERT INTO chat.search_positions (conversation_id, indexed_seq)
	SELECT id, 0 FROM chat.conversations WHERE id = ANY (v_wanted) ORDER BY id ON CONFLICT DO NOTHING;
	FOR held IN SELECT * FROM chat.search_positions s WHERE conversation_id = ANY (v_wanted)
		AND (SELECT last_seq FROM chat.conversations WHERE id = s.conversation_id) > indexed_seq
		ORDER BY conversation_id FOR UPDATE SKIP LOCKED LOOP
		EXIT WHEN v_left <= 0 OR v_bytes_left <= 0;
		SELECT least(last_seq, held.indexed_seq + v_left) INTO v_last FROM chat.conversations WHERE id = held.conversation_id;
		CONTINUE WHEN v_last IS NULL OR v_last = held.indexed_seq;
		-- Up to the entry with which it is enough; lengths are known without reading the bodies.
		SELECT min(seq) FILTER (WHERE so_far >= v_bytes_left), max(so_far) INTO v_end, v_bytes
		FROM (SELECT seq, sum(octet_length(body)) OVER (ORDER BY seq) AS so_far FROM chat.messages
			WHERE conversation_id = held.conversation_id AND seq BETWEEN held.indexed_seq + 1 AND v_last) measured;
		v_last := coalesce(v_end, v_last);
		v_bytes_left := v_bytes_left - coalesce(v_bytes, 0);
		INSERT INTO chat.search_entries (conversation_id, seq, words)
		SELECT m.conversation_id, m.seq, chat.search_words(m.conversation_id, m.body) FROM chat.messages m
		WHERE m.conversation_id = held.conversation_id AND m.seq BETWEEN held.indexed_seq + 1 AND v_last AND m.body <> ''
			AND m.type NOT IN ('system', 'opaque', 'reaction', 'edit', 'delete', 'deleted') AND (m.expires_at > now()) IS NOT FALSE
		ORDER BY m.seq ON CONFLICT DO NOTHING;
		UPDATE chat.search_entries e SET words = chat.search_words(e.conversation_id, edit.body)
		FROM (SELECT DISTINCT ON (ref) ref, body FROM chat.message_acts
			WHERE conversation_id = held.conversation_id AND seq > held.indexed_seq AND seq <= v_last AND type = 'edit' ORDER BY ref, seq DESC) edit
		WHERE e.conversation_id = held.conversation_id AND e.seq = edit.ref;
		DELETE FROM chat.search_entries e USING chat.message_acts a
		WHERE a.conversation_id = held.conversation_id AND a.seq > held.indexed_seq AND a.seq <= v_last AND a.type = 'delete'
			AND e.conversation_id = a.conversation_id AND e.seq = a.ref;
		UPDATE chat.search_positions SET indexed_seq = v_last WHERE conversation_id = held.conversation_id;
		v_left := v_left - (v_last - held.indexed_seq)::integer;
	END LOOP;
	RETURN p_limit - v_left;
END $$;
COMMENT ON FUNCTION chat.index_messages IS 'Brings the search index up to date for these conversations, or for those that are behind (NULL), by so many entries '
	'at most and 200 bytes for each of that many; returns how many they were, 0 where nothing is left to do. Several may run at once.';

-- -- push targets ------------------------------------------------------------------------------------------------------

-- However a device is signed out, nothing is pushed to it any more.
CREATE FUNCTION chat.forget_push_target() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	DELETE FROM chat.push_targets WHERE device_id = NEW.id;
	RETURN NULL;
END $$;
CREATE TRIGGER push_target_forgotten AFTER UPDATE OF revoked_at ON chat.devices FOR EACH ROW
	WHEN (OLD.revoked_at IS NULL AND NEW.revoked_at IS NOT NULL) EXECUTE FUNCTION chat.forget_push_target();
DELETE FROM chat.push_targets t USING chat.devices d WHERE d.id = t.device_id AND d.revoked_at IS NOT NULL;

CREATE OR REPLACE FUNCTION chat_api.device_remove(caller chat_api.caller, params jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	d chat.devices;
BEGIN
	PERFORM chat_api.expect(params, 'device');
	d := chat_api.own_device(caller, params);
	UPDATE chat.devices SET revoked_at = now() WHERE id = d.id;
	RETURN '{}';
END $$;

-- -- verifiers ---------------------------------------------------------------------------------------------------------

-- 4,096 to 10,000,000 iterations, as the plugin reads them. One that it does not read lets nobody in: it is none.
UPDATE chat.credentials SET verifier = NULL
WHERE split_part(split_part(verifier, '$', 2), ':', 1)::bigint NOT BETWEEN 4096 AND 10000000;
ALTER DOMAIN chat.verifier ADD CONSTRAINT verifier_iterations CHECK (
	split_part(split_part(VALUE, '$', 2), ':', 1)::bigint BETWEEN 4096 AND 10000000);

-- -- quotas ------------------------------------------------------------------------------------------------------------

-- Who makes a conversation and leaves it has room for another: those that nobody is in go, and those of a day are counted.
CREATE TABLE chat.creations (
	user_id bigint PRIMARY KEY REFERENCES chat.users ON DELETE CASCADE,
	day date NOT NULL,
	conversations integer NOT NULL
);
COMMENT ON TABLE chat.creations IS 'How many groups and channels a user has made on the last day on which they made any.';
COMMENT ON COLUMN chat.creations.user_id IS 'The user.';
COMMENT ON COLUMN chat.creations.day IS 'The day, in UTC.';
COMMENT ON COLUMN chat.creations.conversations IS 'How many, whether they left them or not.';
GRANT SELECT ON chat.creations TO chat_admin;

CREATE FUNCTION chat_api.creations_max() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 500';
COMMENT ON FUNCTION chat_api.creations_max IS 'How many groups and channels a user may make in a day.';

CREATE FUNCTION chat_api.count_creation(caller chat_api.caller) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	today CONSTANT date := (now() AT TIME ZONE 'UTC')::date;
	made integer;
BEGIN
	INSERT INTO chat.creations AS c (user_id, day, conversations) VALUES (caller.user_id, today, 1)
	ON CONFLICT (user_id) DO UPDATE SET day = today, conversations = CASE c.day WHEN today THEN c.conversations + 1 ELSE 1 END
	RETURNING conversations INTO made;
	IF made > chat_api.creations_max() THEN
		PERFORM chat_api.refuse('quota_exceeded', format('nobody makes more than %s groups and channels in a day', chat_api.creations_max()));
	END IF;
END $$;
COMMENT ON FUNCTION chat_api.count_creation IS 'Refuses where the caller has made as many groups and channels today as can be.';

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
		PERFORM chat_api.expect(params, 'type', 'name', 'picture', 'members', 'shows_history');
		IF cardinality(v_members) >= chat_api.group_max_members() THEN
			PERFORM chat_api.refuse('quota_exceeded', format('a group has at most %s members', chat_api.group_max_members()), 'members');
		END IF;
	ELSE
		PERFORM chat_api.expect(params, 'type', 'name', 'picture', 'members', 'shows_history', 'public');
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
		INSERT INTO chat.conversations (type, name, picture, shows_history, is_public)
		VALUES (v_type, chat_api.param_line(params, 'name', 1, 200), chat_api.param_line(params, 'picture', 1, 2000),
			chat_api.param_boolean(params, 'shows_history', false), chat_api.param_boolean(params, 'public', false))
		RETURNING id INTO v_id;
		v_new := true;
		INSERT INTO chat.conversation_participants (conversation_id, user_id, role)
		SELECT v_id, caller.user_id, 'owner'::chat.participant_role
		UNION ALL SELECT v_id, member, CASE v_type WHEN 'channel' THEN 'reader' ELSE 'member' END::chat.participant_role FROM unnest(v_members) AS member;
		PERFORM chat_api.log_event(v_id, 'created', caller, jsonb_strip_nulls(jsonb_build_object('name', params -> 'name',
			'users', CASE v_type WHEN 'group' THEN to_jsonb(caller.user_id || v_members) END)));
	END IF;
	seen := chat_api.look(caller, v_id);
	RETURN jsonb_build_object('conversation', chat_api.conversation_json(seen.c, seen.p), 'created', v_new);
END $$;

CREATE OR REPLACE FUNCTION chat_api.conversation_leave(caller chat_api.caller, params jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	v_id CONSTANT bigint := chat_api.param_id(params, 'conversation');
	v_heir CONSTANT bigint := chat_api.param_integer(params, 'owner', 1, 9007199254740991, NULL);
	held record;
BEGIN
	PERFORM chat_api.expect(params, 'conversation', 'owner');
	held := chat_api.lock_members(caller, v_id, ARRAY[caller.user_id, v_heir]);
	IF v_heir IS NOT NULL THEN
		PERFORM chat_api.need_role(held.p, 'owner');
		UPDATE chat.conversation_participants SET role = 'owner' WHERE conversation_id = v_id AND user_id = v_heir AND user_id <> caller.user_id;
		IF NOT FOUND THEN
			PERFORM chat_api.refuse('not_found', 'there is no such member', 'owner');
		END IF;
		PERFORM chat_api.log_event(v_id, 'role', caller, jsonb_build_object('users', ARRAY[v_heir], 'role', 'owner'));
	ELSIF (held.p).role = 'owner'
		AND NOT EXISTS (SELECT FROM chat.conversation_participants WHERE conversation_id = v_id AND role = 'owner' AND user_id <> caller.user_id)
		AND EXISTS (SELECT FROM chat.conversation_participants WHERE conversation_id = v_id AND user_id <> caller.user_id) THEN
		PERFORM chat_api.refuse('forbidden', 'the last owner names another before leaving', 'owner');
	END IF;
	DELETE FROM chat.conversation_participants WHERE conversation_id = v_id AND user_id = caller.user_id;
	IF NOT EXISTS (SELECT FROM chat.conversation_participants WHERE conversation_id = v_id) THEN
		-- A log that takes longer than a request may is for the operator to remove.
		DELETE FROM chat.conversations WHERE id = v_id AND last_seq - first_seq < 10000;
	ELSIF (held.c).type = 'group' THEN
		PERFORM chat_api.log_event(v_id, 'left', caller);
	END IF;
	RETURN '{}';
END $$;

-- -- methods -----------------------------------------------------------------------------------------------------------

COMMENT ON COLUMN chat_api.methods.guests IS 'Whether those may ask who have not signed in: for the reader. The plugin decides it itself, before it asks anybody.';

-- -- privileges --------------------------------------------------------------------------------------------------------

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA chat, chat_api FROM PUBLIC;
GRANT EXECUTE ON FUNCTION chat.revoke_device, chat.change_verifier TO chat_plugin;
