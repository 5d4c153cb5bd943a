-- Receipts and typing: what a device that is signed out marks, who hides what they have read, and what a block keeps back.

-- -- reads that are not shown ------------------------------------------------------------------------------------------

-- Whoever hides what they have read sees no one else's either, in groups as in direct conversations. Delivered is told all the same:
-- it says that a device is in reach, which the setting is not about.
CREATE FUNCTION chat.hides_reads(settings jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
	SELECT settings -> 'privacy' -> 'read_receipts' = 'false' IS TRUE
$$;
COMMENT ON FUNCTION chat.hides_reads IS 'Whether a user with these settings neither shows what they have read nor sees what others have.';
GRANT EXECUTE ON FUNCTION chat.hides_reads TO chat_admin; -- who reads chat.message_status and may change settings

-- Their sessions are told something else from now on.
CREATE TRIGGER user_reads_hidden AFTER UPDATE OF settings ON chat.users
	FOR EACH ROW WHEN (chat.hides_reads(NEW.settings) <> chat.hides_reads(OLD.settings)) EXECUTE FUNCTION chat.user_changed();

CREATE OR REPLACE FUNCTION chat_api.privacy(u chat.users) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
	SELECT jsonb_build_object('search', true, 'presence', 'contacts', 'read_receipts', true) || coalesce(u.settings -> 'privacy', '{}')
$$;

CREATE OR REPLACE FUNCTION chat_api.user_update(caller chat_api.caller, params jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	v_privacy jsonb := params -> 'privacy';
	u chat.users;
BEGIN
	PERFORM chat_api.expect(params, 'display_name', 'picture', 'status_text', 'privacy');
	IF v_privacy IS NOT NULL THEN
		IF jsonb_typeof(v_privacy) <> 'object' THEN
			PERFORM chat_api.refuse('invalid_field', 'privacy is an object', 'privacy');
		END IF;
		PERFORM chat_api.expect(v_privacy, 'search', 'presence', 'read_receipts');
		PERFORM chat_api.param_boolean(v_privacy, 'search', NULL), chat_api.param_boolean(v_privacy, 'read_receipts', NULL),
			chat_api.param_choice(v_privacy, 'presence', 'everyone', 'contacts', 'nobody');
	END IF;
	UPDATE chat.users SET
		display_name = CASE WHEN chat_api.param_null(params, 'display_name') THEN NULL
			ELSE coalesce(chat_api.param_line(params, 'display_name', 1, 200), display_name) END,
		picture = CASE WHEN chat_api.param_null(params, 'picture') THEN NULL
			ELSE coalesce(chat_api.param_line(params, 'picture', 1, 2000), picture) END,
		status_text = CASE WHEN chat_api.param_null(params, 'status_text') THEN NULL
			ELSE coalesce(chat_api.param_line(params, 'status_text', 1, 200), status_text) END,
		settings = CASE WHEN v_privacy IS NULL THEN settings
			ELSE settings || jsonb_build_object('privacy', coalesce(settings -> 'privacy', '{}') || v_privacy - 'request_id') END
	WHERE id = caller.user_id RETURNING * INTO u;
	RETURN jsonb_build_object('user', chat_api.profile(u) || jsonb_build_object('privacy', chat_api.privacy(u)));
END $$;

-- -- marks -------------------------------------------------------------------------------------------------------------

-- Another kind of row: to be dropped first.
DROP FUNCTION chat.append_marks(uuid, smallint[], bigint[], bigint[], bigint[], bigint[], bigint[], bigint[], bigint[], timestamptz[]);
CREATE FUNCTION chat.append_marks(
	p_spool uuid, p_slots smallint[], p_from bigint[], p_to bigint[],
	p_conversation bigint[], p_user bigint[], p_device bigint[], p_delivered bigint[], p_read bigint[], p_at timestamptz[],
	p_again boolean DEFAULT false)
RETURNS TABLE (ordinal integer, code text, delivered_seq bigint, read_seq bigint, changed boolean, members_version bigint, shows smallint)
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
			c.members_version, c.blocked, chat.hides_reads(u.settings) AS hides_reads, w.delivered_seq, w.read_seq, w.delivered_at, w.read_at,
			greatest(p_delivered[i], p_read[i]) AS wanted_delivered, p_read[i] AS wanted_read,
			CASE
				WHEN u.status IS DISTINCT FROM 'active' THEN 'unauthenticated'
				WHEN p_device[i] <> 0 AND (d.user_id = p_user[i] AND d.revoked_at IS NULL) IS NOT TRUE THEN 'unauthenticated'
				WHEN w.user_id IS NULL THEN 'not_found'
				WHEN greatest(p_delivered[i], p_read[i]) > c.last_seq OR least(p_delivered[i], p_read[i]) < 0 THEN 'invalid_field'
			END AS code
		FROM generate_series(1, cardinality(p_conversation)) AS i
		LEFT JOIN LATERAL (SELECT * FROM chat.conversations WHERE id = p_conversation[i] OFFSET 0) c ON true
		LEFT JOIN LATERAL (SELECT * FROM chat.participant_watermarks
			WHERE conversation_id = p_conversation[i] AND user_id = p_user[i] OFFSET 0) w ON true
		LEFT JOIN LATERAL (SELECT * FROM chat.users WHERE id = p_user[i] OFFSET 0) u ON true
		LEFT JOIN LATERAL (SELECT * FROM chat.devices WHERE id = p_device[i] OFFSET 0) d ON true
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
		FROM risen r WHERE r.code IS NULL AND r.device_id <> 0
		GROUP BY r.conversation_id, r.user_id, r.device_id ORDER BY r.conversation_id, r.user_id, r.device_id
		ON CONFLICT (conversation_id, user_id, device_id) DO UPDATE
		SET delivered_seq = excluded.delivered_seq, delivered_at = excluded.delivered_at
		WHERE dw.delivered_seq < excluded.delivered_seq
	)
	SELECT r.i, r.code, r.new_delivered, r.new_read, r.code IS NULL AND (rose.delivered OR rose.read), coalesce(r.members_version, 0),
		CASE WHEN r.code IS NOT NULL OR r.blocked THEN 0
			ELSE CASE WHEN rose.delivered THEN 1 ELSE 0 END
				+ CASE WHEN r.hides_reads THEN 4 WHEN rose.read THEN 2 ELSE 0 END
		END::smallint
	FROM risen r
	CROSS JOIN LATERAL (SELECT
		-- A mark that comes again finds its own time where it had moved anything.
		r.new_delivered > r.old_delivered OR p_again AND (r.delivered_seq = r.wanted_delivered AND r.delivered_at = r.at) IS TRUE AS delivered,
		r.new_read > r.old_read OR p_again AND (r.read_seq = r.wanted_read AND r.read_at = r.at) IS TRUE AS read) rose
	ORDER BY r.i;
END $$;
COMMENT ON FUNCTION chat.append_marks IS 'Stores a batch of "delivered / read up to here" in one transaction with the move of '
	'their spool positions. Watermarks only rise. What the other members may see of a change is the sum of: 1 delivered rose, 2 read '
	'rose, 4 not how far they have read. p_again: what became of them was not heard the first time, so what they moved then is answered as moved.';
REVOKE ALL ON FUNCTION chat.append_marks FROM PUBLIC;
GRANT EXECUTE ON FUNCTION chat.append_marks TO chat_plugin;

-- -- what sessions are told --------------------------------------------------------------------------------------------

CREATE FUNCTION chat.blocked_flag(blocked boolean) RETURNS smallint LANGUAGE sql IMMUTABLE AS $$
	SELECT (CASE WHEN blocked THEN 32 ELSE 0 END)::smallint
$$;
COMMENT ON FUNCTION chat.blocked_flag IS 'Added to a role number where one of the two in a direct conversation has blocked the other.';

CREATE FUNCTION chat.first_to_deliver(public boolean, first_visible_seq bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
	SELECT CASE WHEN public THEN 1 ELSE first_visible_seq END
$$;
COMMENT ON FUNCTION chat.first_to_deliver IS 'What was written before may still be on its way when somebody becomes a member: it is not for them.';

-- Another kind of row, like chat.append_marks.
DROP FUNCTION chat.open_sessions(bigint[], bigint[], boolean);
CREATE FUNCTION chat.open_sessions(p_users bigint[], p_devices bigint[], p_create boolean)
RETURNS TABLE (ordinal integer, code text, conversations bigint[], roles smallint[], members_versions bigint[], last_seqs bigint[],
	hides_reads boolean, first_seqs bigint[])
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
		coalesce(held.conversations, '{}'), coalesce(held.roles, '{}'), coalesce(held.members_versions, '{}'), coalesce(held.last_seqs, '{}'),
		chat.hides_reads(u.settings), coalesce(held.first_seqs, '{}')
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
			array_agg(chat.role_number(p.role) + chat.channel_flag(c.type) + chat.blocked_flag(c.blocked) ORDER BY c.id)::smallint[] AS roles,
			array_agg(c.members_version ORDER BY c.id) AS members_versions, array_agg(c.last_seq ORDER BY c.id) AS last_seqs,
			array_agg(chat.first_to_deliver(c.is_public, p.first_visible_seq) ORDER BY c.id) AS first_seqs
		FROM chat.conversation_participants p
		CROSS JOIN LATERAL (SELECT * FROM chat.conversations WHERE id = p.conversation_id OFFSET 0) c
		WHERE p.user_id = p_users[i]
	) AS held ON allowed.code IS NULL
	ORDER BY i;
END $$;

COMMENT ON FUNCTION chat.open_sessions IS 'For a batch of (user, device or 0): whether they may sign in, all their '
	'conversations in the order of their ids with the first entry that they may read, and whether the user hides what they have read.';
REVOKE ALL ON FUNCTION chat.open_sessions FROM PUBLIC;
GRANT EXECUTE ON FUNCTION chat.open_sessions TO chat_plugin;

DROP FUNCTION chat.load_memberships(bigint[], bigint[]);
CREATE FUNCTION chat.load_memberships(p_conversations bigint[], p_users bigint[])
RETURNS TABLE (ordinal integer, role smallint, members_version bigint, last_seq bigint, public boolean, first_seq bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY
	SELECT i, (chat.role_number(p.role) + chat.channel_flag(c.type) + chat.blocked_flag(c.blocked))::smallint,
		coalesce(c.members_version, 0), coalesce(c.last_seq, 0), coalesce(c.is_public, false),
		coalesce(chat.first_to_deliver(c.is_public, p.first_visible_seq), 0)
	FROM generate_series(1, cardinality(p_conversations)) AS i
	LEFT JOIN LATERAL (SELECT * FROM chat.conversations WHERE id = p_conversations[i] OFFSET 0) c ON true
	LEFT JOIN LATERAL (SELECT * FROM chat.conversation_participants
		WHERE conversation_id = p_conversations[i] AND user_id = p_users[i] OFFSET 0) p ON true
	ORDER BY i;
END $$;
COMMENT ON FUNCTION chat.load_memberships IS 'For pairs of conversation and user: the role (0: none), the first entry that they may read, and '
	'the conversation''s facts, all from one moment. User 0 asks for the facts alone.';
REVOKE ALL ON FUNCTION chat.load_memberships, chat.first_to_deliver FROM PUBLIC;
GRANT EXECUTE ON FUNCTION chat.load_memberships TO chat_plugin;

-- -- what became of a message ------------------------------------------------------------------------------------------

-- What its sender is told: nothing of what either of the two hides, nothing while a block stands between them.
CREATE OR REPLACE VIEW chat.message_status AS
SELECT m.conversation_id, m.seq, p.user_id,
	CASE WHEN w.read_seq >= m.seq AND shown.read THEN 'read' WHEN w.delivered_seq >= m.seq AND NOT c.blocked THEN 'delivered' ELSE 'sent' END AS status,
	CASE WHEN w.delivered_seq >= m.seq AND NOT c.blocked THEN w.delivered_at END AS delivered_at,
	CASE WHEN w.read_seq >= m.seq AND shown.read THEN w.read_at END AS read_at
FROM chat.messages m
JOIN chat.conversations c ON c.id = m.conversation_id
JOIN chat.conversation_participants p ON p.conversation_id = m.conversation_id AND p.user_id IS DISTINCT FROM m.sender_id
	AND p.joined_seq < m.seq
JOIN chat.participant_watermarks w ON w.conversation_id = p.conversation_id AND w.user_id = p.user_id
JOIN chat.users u ON u.id = p.user_id
LEFT JOIN chat.users sender ON sender.id = m.sender_id
CROSS JOIN LATERAL (SELECT NOT (c.blocked OR chat.hides_reads(u.settings) OR chat.hides_reads(sender.settings)) AS read) shown;
COMMENT ON VIEW chat.message_status IS 'What became of each message for each member but its sender who was there when it came, as the '
	'sender is told. Made from watermarks: there is no row for each message and member.';

CREATE OR REPLACE FUNCTION chat_api.message_status(caller chat_api.caller, params jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	v_conversation CONSTANT bigint := chat_api.param_id(params, 'conversation');
	v_seq CONSTANT bigint := chat_api.param_integer(params, 'seq', 1, 9007199254740991, NULL);
	v_after bigint;
	v_limit integer;
	m chat.messages;
	c chat.conversations;
	p chat.conversation_participants;
	refused chat.refusals;
	v_hides_reads boolean;
	v_result jsonb;
BEGIN
	PERFORM chat_api.expect(params, 'conversation', 'seq', 'id', 'after', 'limit');
	v_after := chat_api.param_integer(params, 'after', 0, 9007199254740991, 0);
	v_limit := chat_api.param_integer(params, 'limit', 1, 200, 100);
	IF (params ? 'id') = (params ? 'seq') THEN
		PERFORM chat_api.refuse('invalid_field', 'either seq or id says which message', 'id');
	ELSIF params ? 'id' AND (jsonb_typeof(params -> 'id') <> 'string'
			OR params ->> 'id' !~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$') THEN
		PERFORM chat_api.refuse('invalid_field', 'id is a UUID', 'id');
	END IF;

	SELECT * INTO c FROM chat.conversations WHERE id = v_conversation;
	SELECT * INTO p FROM chat.conversation_participants WHERE conversation_id = v_conversation AND user_id = caller.user_id;
	IF params ? 'id' THEN
		SELECT * INTO m FROM chat.messages
		WHERE sender_id = caller.user_id AND client_id = (params ->> 'id')::uuid AND conversation_id + 0 = v_conversation;
		IF NOT FOUND THEN
			SELECT * INTO refused FROM chat.refusals
			WHERE user_id = caller.user_id AND conversation_id = v_conversation AND client_id = (params ->> 'id')::uuid
			ORDER BY refused_at DESC LIMIT 1;
			IF FOUND THEN
				RETURN jsonb_build_object('id', refused.client_id, 'status', 'refused', 'sent_at', chat_api.ms(refused.sent_at),
					'refused_at', chat_api.ms(refused.refused_at), 'error', jsonb_build_object('code', refused.code));
			END IF;
		END IF;
	ELSE
		PERFORM chat_api.look(caller, v_conversation);
		SELECT * INTO m FROM chat.messages WHERE conversation_id = v_conversation AND seq BETWEEN v_seq AND v_seq AND seq >= chat_api.first_visible(c, p) ORDER BY seq;
	END IF;
	-- Of what is gone the others see that it was there, and neither who sent it nor when (chat_api.entry).
	IF m.seq IS NULL OR m.sender_id IS DISTINCT FROM caller.user_id AND (m.type IN ('deleted', 'expired') OR m.expires_at <= now()) THEN
		PERFORM chat_api.look(caller, v_conversation);
		PERFORM chat_api.refuse('not_found', 'there is no such message');
	END IF;
	v_result := jsonb_strip_nulls(jsonb_build_object('seq', m.seq, 'id', m.client_id, 'from', m.sender_id, 'sent_at', chat_api.ms(m.sent_at),
		'status', 'sent'));
	IF c.type = 'channel' OR p.user_id IS NULL THEN
		RETURN v_result; -- channels have no receipts
	END IF;
	v_hides_reads := (SELECT chat.hides_reads(settings) FROM chat.users WHERE id = caller.user_id);
	RETURN v_result || chat_api.page('members', ARRAY(
		SELECT jsonb_strip_nulls(jsonb_build_object('user', w.user_id,
			'status', CASE WHEN w.read_seq >= m.seq AND shown.read THEN 'read' WHEN w.delivered_seq >= m.seq AND shown.delivered THEN 'delivered' ELSE 'sent' END,
			'delivered_at', CASE WHEN w.delivered_seq >= m.seq AND shown.delivered THEN chat_api.ms(w.delivered_at) END,
			'read_at', CASE WHEN w.read_seq >= m.seq AND shown.read THEN chat_api.ms(w.read_at) END))
		FROM (SELECT * FROM chat.conversation_participants
			WHERE (conversation_id, user_id) > (m.conversation_id, v_after) AND (conversation_id, user_id) < (m.conversation_id + 1, 0)
				AND user_id IS DISTINCT FROM m.sender_id AND joined_seq < m.seq
			ORDER BY conversation_id, user_id LIMIT v_limit + 1) member
		CROSS JOIN LATERAL (SELECT * FROM chat.participant_watermarks
			WHERE conversation_id = member.conversation_id AND user_id = member.user_id OFFSET 0) w
		CROSS JOIN LATERAL (SELECT settings FROM chat.users WHERE id = member.user_id OFFSET 0) u
		CROSS JOIN LATERAL (SELECT member.user_id = caller.user_id OR NOT c.blocked AS delivered,
			member.user_id = caller.user_id OR NOT (c.blocked OR v_hides_reads OR chat.hides_reads(u.settings)) AS read) shown
		ORDER BY member.user_id), v_limit)::jsonb;
END $$;
