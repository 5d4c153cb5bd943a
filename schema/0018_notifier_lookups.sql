-- The notifier's functions look things up by the index that finds them, whatever the tables held when the plan was made. Nothing else is
-- another; 0010_notifier.sql says what they are for.
--
-- A message, and what was done to it: a plan that was made on an empty table may look for one message by an index that knows the
-- conversation alone, and read all of it. A range of one, in the order of that column, is what no other index has to offer.
--
-- A device's rows: pushes_due holds everything that waits, and for a row's state and time looks like a way in. As text, the state is
-- nothing that a partial index knows, and what is left is the primary key.

CREATE OR REPLACE FUNCTION chat.pushable(p_device bigint, p_user bigint, p_conversation bigint, p_first bigint, p_last bigint)
RETURNS TABLE (count bigint, seq bigint, since timestamptz) LANGUAGE sql STABLE AS $$
	SELECT pg_catalog.count(*), pg_catalog.max(m.seq), pg_catalog.min(m.committed_at)
	FROM (SELECT * FROM chat.conversation_participants WHERE conversation_id = p_conversation AND user_id = p_user OFFSET 0) p
	CROSS JOIN LATERAL (SELECT * FROM chat.participant_watermarks WHERE conversation_id = p_conversation AND user_id = p_user OFFSET 0) w
	CROSS JOIN LATERAL (SELECT pg_catalog.max(delivered_seq) AS delivered_seq FROM chat.device_watermarks d
		WHERE conversation_id = p_conversation AND user_id = p_user AND (device_id = p_device
			OR (SELECT active_until FROM chat.active_devices a WHERE a.device_id = d.device_id) > pg_catalog.clock_timestamp())) d
	CROSS JOIN LATERAL (SELECT * FROM chat.messages
		WHERE conversation_id = p_conversation AND seq <= p_last
			AND seq >= greatest(p_first, p.first_visible_seq, w.read_seq + 1, d.delivered_seq + 1)
		ORDER BY seq DESC LIMIT 100) m
	WHERE m.sender_id <> p_user AND m.type NOT IN ('system', 'reaction', 'edit', 'delete', 'deleted')
		AND (SELECT seq FROM chat.messages a WHERE a.conversation_id = p_conversation AND a.ref BETWEEN m.seq AND m.seq AND a.seq > m.seq
			AND a.type = 'delete' AND a.sender_id = m.sender_id ORDER BY a.ref LIMIT 1) IS NULL
		AND (m.expires_at IS NULL OR m.expires_at > pg_catalog.clock_timestamp())
		AND (p.muted_until IS NULL OR p.muted_until <= pg_catalog.clock_timestamp()
			OR m.extra @> pg_catalog.jsonb_build_object('mentions', pg_catalog.jsonb_build_array(p_user)))
		AND (SELECT created_at FROM chat.blocked_users WHERE user_id = p_user AND blocked_user_id = m.sender_id) IS NULL
	HAVING pg_catalog.count(*) > 0
$$;

CREATE OR REPLACE FUNCTION chat.claim_pushes(p_app text, p_count integer, p_lease_ms bigint, p_badge boolean)
RETURNS TABLE (device_id bigint, conversation_id bigint, lease bigint, verdict text, provider text, token text, subscription jsonb,
	target_us bigint, user_id bigint, attempts integer, seq bigint, count bigint, badge bigint, since timestamptz,
	expires_at timestamptz, language text, conversation_type text, conversation_name text, sender_name text, message_type text, body text,
	cleared bigint[], last_error text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET enable_bitmapscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
	v_now CONSTANT timestamptz := clock_timestamp();
BEGIN
	RETURN QUERY
	WITH picked AS MATERIALIZED (
		SELECT * FROM chat.pushes WHERE app = p_app AND state IN ('due', 'clear') AND not_before <= v_now
		ORDER BY not_before LIMIT p_count FOR UPDATE SKIP LOCKED
	), judged AS MATERIALIZED (
		SELECT q.device_id, q.conversation_id, q.user_id, q.lease, q.attempts, q.last_seq, q.sent_seq, q.expires_at, q.state, q.last_error,
			t.provider, t.token, t.subscription, t.updated_at, t.app, u.settings ->> 'language' AS language,
			news.count, coalesce(news.seq, q.last_seq) AS seq, q.since,
			CASE
				WHEN t.device_id IS NULL OR d.revoked_at IS NOT NULL OR u.status <> 'active' THEN 'gone'
				WHEN q.expires_at <= v_now THEN 'expired'
				WHEN t.app <> q.app THEN 'moved'
				WHEN q.state = 'clear' THEN CASE
					WHEN row_number() OVER (PARTITION BY q.device_id, q.state ORDER BY q.not_before) > 1 THEN 'along'
					WHEN t.provider = 'apns' AND t.cleared_at > v_now - interval '20 minutes' THEN 'later'
					ELSE 'clear' END
				WHEN q.conversation_id = 0 THEN 'test'
				WHEN news.seq > q.sent_seq THEN 'message'
				ELSE 'known'
			END AS verdict,
			t.cleared_at
		FROM picked q
		CROSS JOIN LATERAL (SELECT * FROM chat.devices WHERE id = q.device_id OFFSET 0) d
		CROSS JOIN LATERAL (SELECT * FROM chat.users WHERE id = q.user_id OFFSET 0) u
		LEFT JOIN LATERAL (SELECT * FROM chat.push_targets WHERE device_id = q.device_id OFFSET 0) t ON true
		LEFT JOIN LATERAL chat.pushable(q.device_id, q.user_id, q.conversation_id, 1, 9007199254740991) news ON q.state = 'due'
	), dropped AS (
		DELETE FROM chat.pushes q USING judged j
		WHERE q.device_id = ANY (ARRAY[j.device_id]) AND q.conversation_id = j.conversation_id
			AND (j.verdict IN ('gone', 'expired') OR j.verdict = 'known' AND j.sent_seq = 0)
	), kept AS (
		UPDATE chat.pushes q SET
			state = CASE j.verdict WHEN 'known' THEN 'shown' ELSE q.state END,
			app = coalesce(j.app, q.app),
			last_seq = CASE j.verdict WHEN 'known' THEN q.sent_seq ELSE j.seq END,
			lease = q.lease + 1,
			not_before = CASE j.verdict WHEN 'known' THEN v_now WHEN 'moved' THEN v_now
				WHEN 'later' THEN j.cleared_at + interval '20 minutes'
				ELSE v_now + p_lease_ms * interval '1 ms' END
		FROM judged j
		WHERE q.device_id = ANY (ARRAY[j.device_id]) AND q.conversation_id = j.conversation_id
			AND j.verdict NOT IN ('gone', 'expired') AND NOT (j.verdict = 'known' AND j.sent_seq = 0)
	), along AS (
		-- One silent push says all that this device is to take away.
		UPDATE chat.pushes q SET not_before = v_now + p_lease_ms * interval '1 ms'
		FROM judged j
		WHERE j.verdict = 'clear' AND q.device_id = ANY (ARRAY[j.device_id]) AND q.state::text = 'clear' AND q.not_before > v_now
	)
	-- What only some rows need is asked in CASE, which looks at nothing for the others.
	SELECT j.device_id, j.conversation_id, j.lease + 1, j.verdict, j.provider, j.token, j.subscription,
		(extract(epoch FROM j.updated_at) * 1000000)::bigint, j.user_id, j.attempts, j.seq, j.count,
		CASE WHEN p_badge AND j.verdict IN ('message', 'clear') THEN (
			SELECT sum(o.last_ordinal - greatest(w.read_ordinal, o.removed_ordinal))::bigint
			FROM (SELECT conversation_id, muted_until FROM chat.conversation_participants WHERE user_id = j.user_id OFFSET 0) p
			CROSS JOIN LATERAL (SELECT last_ordinal, removed_ordinal FROM chat.conversations WHERE id = p.conversation_id OFFSET 0) o
			CROSS JOIN LATERAL (SELECT read_ordinal FROM chat.participant_watermarks
				WHERE conversation_id = p.conversation_id AND user_id = j.user_id OFFSET 0) w
			WHERE p.muted_until IS NULL OR p.muted_until <= v_now) END,
		j.since, j.expires_at, j.language, c.type::text, c.name::text, s.name, m.type, m.body,
		CASE WHEN j.verdict = 'clear' THEN (
			SELECT array_agg(p.conversation_id) FROM chat.pushes p WHERE p.device_id = j.device_id AND p.state::text = 'clear') END,
		j.last_error
	FROM judged j
	LEFT JOIN LATERAL (SELECT type, name FROM chat.conversations WHERE id = j.conversation_id OFFSET 0) c ON j.verdict = 'message'
	LEFT JOIN LATERAL (
		SELECT type, sender_id, CASE WHEN type <> 'opaque' THEN left(coalesce((
			SELECT a.body FROM chat.messages a WHERE a.conversation_id = j.conversation_id AND a.ref BETWEEN j.seq AND j.seq AND a.seq > j.seq
				AND a.type = 'edit' AND a.sender_id = t.sender_id ORDER BY a.ref, a.seq DESC LIMIT 1), body), 1000) END AS body
		FROM chat.messages t WHERE conversation_id = j.conversation_id AND seq BETWEEN j.seq AND j.seq ORDER BY seq OFFSET 0) m ON j.verdict = 'message'
	LEFT JOIN LATERAL (SELECT coalesce(display_name, username) AS name FROM chat.users WHERE id = m.sender_id OFFSET 0) s
		ON j.verdict = 'message';
END $$;

CREATE OR REPLACE FUNCTION chat.settle_pushes(p_device bigint[], p_conversation bigint[], p_lease bigint[], p_outcome text[], p_seq bigint[],
	p_delay_ms bigint[], p_error text[], p_target_us bigint[], p_gone_ms bigint[]) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET enable_bitmapscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
	v_now CONSTANT timestamptz := clock_timestamp();
	v_settled integer;
BEGIN
	-- Who lost the lease has nothing to say any more.
	WITH held AS MATERIALIZED (
		SELECT q.device_id, q.conversation_id, q.state, q.last_seq, a.outcome, a.seq, a.delay_ms, a.error, a.target_us, a.gone_ms
		FROM (SELECT p_device[i] AS device_id, p_conversation[i] AS conversation_id, p_lease[i] AS lease, p_outcome[i] AS outcome,
				p_seq[i] AS seq, p_delay_ms[i] AS delay_ms, p_error[i] AS error, p_target_us[i] AS target_us, p_gone_ms[i] AS gone_ms
			FROM generate_subscripts(p_device, 1) AS i ORDER BY 1, 2) a
		CROSS JOIN LATERAL (SELECT device_id, conversation_id, state, last_seq FROM chat.pushes
			WHERE device_id = a.device_id AND conversation_id = a.conversation_id AND lease = a.lease FOR UPDATE) q
	), ended AS (
		DELETE FROM chat.pushes q USING held h
		WHERE q.device_id = ANY (ARRAY[h.device_id]) AND q.conversation_id = h.conversation_id
			AND (h.outcome = 'drop' OR h.outcome = 'accepted' AND h.conversation_id = 0
				OR h.state = 'clear' AND h.outcome IN ('accepted', 'dead'))
	), cleared AS (
		DELETE FROM chat.pushes q USING held h
		WHERE q.device_id = ANY (ARRAY[h.device_id]) AND q.conversation_id <> h.conversation_id AND q.state::text = 'clear'
			AND q.not_before > v_now AND h.state = 'clear' AND h.outcome = 'accepted'
	), marked AS (
		UPDATE chat.push_targets t SET cleared_at = v_now FROM held h
		WHERE t.device_id = ANY (ARRAY[h.device_id]) AND h.state = 'clear' AND h.outcome = 'accepted'
	), forgotten AS (
		-- Only the target that the answer was about; what is queued for a device without one goes when it is claimed.
		DELETE FROM chat.push_targets t USING held h
		WHERE t.device_id = ANY (ARRAY[h.device_id]) AND h.outcome = 'forget'
			AND (extract(epoch FROM t.updated_at) * 1000000)::bigint = h.target_us
			AND (h.gone_ms = 0 OR h.target_us / 1000 <= h.gone_ms)
	), moved AS (
		UPDATE chat.pushes q SET
			state = CASE WHEN h.outcome = 'dead' THEN 'dead' WHEN h.outcome = 'accepted' AND h.last_seq <= h.seq THEN 'shown'
				ELSE q.state END,
			sent_seq = CASE h.outcome WHEN 'accepted' THEN greatest(q.sent_seq, h.seq) ELSE q.sent_seq END,
			since = CASE h.outcome WHEN 'accepted' THEN v_now ELSE q.since END,
			not_before = v_now + CASE WHEN h.outcome = 'accepted' AND h.last_seq <= h.seq THEN interval '2 seconds'
				ELSE coalesce(h.delay_ms, 0) * interval '1 ms' END,
			attempts = CASE h.outcome WHEN 'accepted' THEN 0 WHEN 'release' THEN q.attempts ELSE q.attempts + 1 END,
			last_error = CASE h.outcome WHEN 'accepted' THEN NULL ELSE coalesce(h.error, q.last_error) END
		FROM held h
		WHERE q.device_id = ANY (ARRAY[h.device_id]) AND q.conversation_id = h.conversation_id
			AND (h.outcome IN ('retry', 'release', 'forget') OR h.outcome = 'dead' AND h.state = 'due'
				OR h.outcome = 'accepted' AND h.state = 'due' AND h.seq > 0 AND h.conversation_id <> 0)
	)
	SELECT count(*) FROM held INTO v_settled;
	RETURN v_settled;
END $$;
