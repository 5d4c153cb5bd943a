-- Pushes: what the notifier finds out, claims and settles. chat_notifier may execute the functions below and nothing else.
--
-- Whoever stores a message pays nothing for it: there is no row, no notice and no trigger. The notifier reads the log by the time
-- of commit (chat.find_pushes), grace_ms behind the clock, so that a message which was delivered or read meanwhile never enters the
-- queue. What enters is one row for a device and a conversation, into which later messages fold:
--
--            find              claim, accepted                read elsewhere           claim, accepted
--   (none) --------> due ------------------------> shown ----------------------> clear ----------------> (none)
--                    | ^        find (newer)         |
--          given up  v |  redrive, or a newer one    | expired, or read where nothing can be cleared
--                   dead                          (none)
--
-- A claim is a lease: not_before moves to the lease's end, and only who holds its number may settle it. So a notifier's death
-- costs a delay, and never a row. Right before the push is made everything is looked at again: membership, block, mute, read.
--
-- Each expects READ COMMITTED, and is one transaction. Plans: see the head of 0003_functions.sql; and no bitmap scans but for the
-- look at the log, since the planner would join a device's few rows with all that are due.

-- Rows come in the order of their times, so this index is a few pages, and an insert pays next to nothing. It looks up "what was
-- committed in this quarter of a second". Its newest range is open (not summarised): to raise its end with every insert would
-- cost more than to read it. chat.find_pushes closes what is behind.
CREATE INDEX messages_committed_at ON chat.messages USING brin (committed_at) WITH (pages_per_range = 16);

CREATE TYPE chat.push_state AS ENUM ('due', 'clear', 'shown', 'dead');
COMMENT ON TYPE chat.push_state IS 'due: to be sent; shown: the device was told, and the notification may stand; clear: it was read elsewhere, '
	'the device is to take it away; dead: given up, for an administrator to look at.';

CREATE TABLE chat.pushes (
	device_id bigint NOT NULL REFERENCES chat.devices ON DELETE CASCADE,
	conversation_id bigint NOT NULL,
	user_id bigint NOT NULL,
	lease bigint NOT NULL DEFAULT 0,
	last_seq bigint NOT NULL,
	sent_seq bigint NOT NULL DEFAULT 0,
	not_before timestamptz NOT NULL DEFAULT clock_timestamp(),
	since timestamptz NOT NULL,
	expires_at timestamptz NOT NULL,
	attempts integer NOT NULL DEFAULT 0,
	state chat.push_state NOT NULL DEFAULT 'due',
	app text NOT NULL,
	last_error text,
	PRIMARY KEY (device_id, conversation_id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX pushes_due ON chat.pushes (app, not_before) WHERE state IN ('due', 'clear');
CREATE INDEX pushes_shown ON chat.pushes (not_before) WHERE state = 'shown';
CREATE INDEX pushes_dead ON chat.pushes (app, since) WHERE state = 'dead';
COMMENT ON TABLE chat.pushes IS 'The notifier''s queue and memory: one row for a device and a conversation about which it is to be told, or was told and has not '
	'shown that it knows. No foreign key to the conversation: what is gone is found out when it is claimed.';
COMMENT ON COLUMN chat.pushes.device_id IS 'The device.';
COMMENT ON COLUMN chat.pushes.conversation_id IS 'The conversation; 0 for a test.';
COMMENT ON COLUMN chat.pushes.user_id IS 'The device''s user.';
COMMENT ON COLUMN chat.pushes.lease IS 'Rises with every claim: only who made the last one may settle it.';
COMMENT ON COLUMN chat.pushes.last_seq IS 'The newest message that the device is to be told of.';
COMMENT ON COLUMN chat.pushes.sent_seq IS 'The newest message that it was told of; 0: none yet.';
COMMENT ON COLUMN chat.pushes.not_before IS 'Not to be looked at before: a lease''s end, the next try, or (shown) the next look whether it was read.';
COMMENT ON COLUMN chat.pushes.since IS 'When the oldest message of this push was committed.';
COMMENT ON COLUMN chat.pushes.expires_at IS 'Dropped then: too old to be of use.';
COMMENT ON COLUMN chat.pushes.attempts IS 'How often it was tried in vain.';
COMMENT ON COLUMN chat.pushes.state IS 'due, shown, clear or dead.';
COMMENT ON COLUMN chat.pushes.app IS 'The section of the notifier''s configuration that sends it.';
COMMENT ON COLUMN chat.pushes.last_error IS 'The last answer of the push service that was no success.';

CREATE TABLE chat.push_cursor (
	only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
	read_to timestamptz,
	safe_at timestamptz,
	check_at timestamptz,
	check_xid xid8,
	again_from timestamptz,
	again_xid xid8,
	summarized_block bigint NOT NULL DEFAULT 0,
	summarized_at timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 10);
INSERT INTO chat.push_cursor DEFAULT VALUES;
COMMENT ON TABLE chat.push_cursor IS 'How far the log was looked at for pushes: one row, held by one notifier at a time.';
COMMENT ON COLUMN chat.push_cursor.only_row IS 'There is one.';
COMMENT ON COLUMN chat.push_cursor.read_to IS 'Messages committed up to then were looked at; NULL before the first time.';
COMMENT ON COLUMN chat.push_cursor.safe_at IS 'No transaction that is still open began to write before then.';
COMMENT ON COLUMN chat.push_cursor.check_at IS 'When check_xid was given out.';
COMMENT ON COLUMN chat.push_cursor.check_xid IS 'Once every transaction before this one has ended, safe_at is check_at.';
COMMENT ON COLUMN chat.push_cursor.again_from IS 'A transaction took long, and was not waited for: look again from here when it has ended.';
COMMENT ON COLUMN chat.push_cursor.again_xid IS 'It has ended when every transaction before this one has.';
COMMENT ON COLUMN chat.push_cursor.summarized_block IS 'Blocks of chat.messages before this one are in messages_committed_at.';
COMMENT ON COLUMN chat.push_cursor.summarized_at IS 'When that was last seen to.';

CREATE TABLE chat.active_devices (
	device_id bigint PRIMARY KEY REFERENCES chat.devices ON DELETE CASCADE,
	active_until timestamptz NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE chat.active_devices IS 'Devices that someone sits in front of (presence online, not away). What such a device has acknowledged is no news for '
	'its user''s other devices.';
COMMENT ON COLUMN chat.active_devices.device_id IS 'The device.';
COMMENT ON COLUMN chat.active_devices.active_until IS 'Until then, unless it is renewed.';

-- A silent push costs battery: Apple allows two or three in an hour.
ALTER TABLE chat.push_targets ADD COLUMN cleared_at timestamptz;
COMMENT ON COLUMN chat.push_targets.cleared_at IS 'When the device was last told, silently, to take notifications away.';

-- -- the rule --------------------------------------------------------------------------------------------------------------

-- Plain SQL without settings of its own, so that it becomes a part of the query that uses it.
CREATE FUNCTION chat.pushable(p_device bigint, p_user bigint, p_conversation bigint, p_first bigint, p_last bigint)
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
		AND (SELECT seq FROM chat.messages a WHERE a.conversation_id = p_conversation AND a.ref = m.seq AND a.seq > m.seq
			AND a.type = 'delete' AND a.sender_id = m.sender_id LIMIT 1) IS NULL
		AND (m.expires_at IS NULL OR m.expires_at > pg_catalog.clock_timestamp())
		AND (p.muted_until IS NULL OR p.muted_until <= pg_catalog.clock_timestamp()
			OR m.extra @> pg_catalog.jsonb_build_object('mentions', pg_catalog.jsonb_build_array(p_user)))
		AND (SELECT created_at FROM chat.blocked_users WHERE user_id = p_user AND blocked_user_id = m.sender_id) IS NULL
	HAVING pg_catalog.count(*) > 0
$$;
COMMENT ON FUNCTION chat.pushable IS 'Which of a conversation''s messages from one number to another a device should be told of: not its user''s own, not read on any '
	'device, not delivered to this one or to an active one, not muted (a mention breaks a mute), not from whom they blocked, not deleted. No row: none. At most the '
	'newest 100 are looked at.';

-- -- finding ---------------------------------------------------------------------------------------------------------------

-- Closes the ranges of messages_committed_at that lie behind the end of the table: an open range is read with every look.
CREATE FUNCTION chat.summarize_messages(p_from_block bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '50ms' AS $$
DECLARE
	k_range CONSTANT bigint := 16; -- pages_per_range
	v_end bigint := pg_relation_size('chat.messages') / current_setting('block_size')::bigint / k_range * k_range - 4 * k_range;
	v_block bigint := least(p_from_block, greatest(v_end, 0));
BEGIN
	WHILE v_block < v_end AND v_block < p_from_block + 1000 * k_range LOOP
		PERFORM brin_summarize_range('chat.messages_committed_at', v_block);
		v_block := v_block + k_range;
	END LOOP;
	RETURN v_block;
EXCEPTION WHEN lock_not_available THEN
	RETURN p_from_block; -- a VACUUM is at it, and does the same
END $$;
COMMENT ON FUNCTION chat.summarize_messages IS 'Brings messages_committed_at up to date from a block on; returns the block to go on from.';

CREATE FUNCTION chat.find_pushes(p_grace_ms bigint, p_ttl_ms bigint)
RETURNS TABLE (messages bigint, pushes bigint, behind_ms bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
	k_start CONSTANT interval := '1 second';    -- at most this passes between the time in committed_at and the transaction's number
	k_patience CONSTANT interval := '3 seconds'; -- so long the oldest open transaction is waited for
	k_stride CONSTANT interval := '10 seconds'; -- so much of the log is looked at in one transaction
	k_again CONSTANT interval := '1 hour';      -- further back than that is not looked at again
	v_cursor chat.push_cursor;
	v_now CONSTANT timestamptz := clock_timestamp(); -- before this transaction's number is given out
	v_mine xid8;
	v_oldest xid8;
	v_from timestamptz;
	v_to timestamptz := v_now - p_grace_ms * interval '1 ms';
	v_behind_ms bigint;
	v_messages bigint;
	v_found bigint;
BEGIN
	SELECT * INTO v_cursor FROM chat.push_cursor FOR UPDATE SKIP LOCKED;
	IF NOT FOUND THEN
		RETURN; -- another notifier is at it
	END IF;
	v_mine := pg_current_xact_id();
	v_oldest := pg_snapshot_xmin(pg_current_snapshot());

	-- 1. What is still open cannot be seen. Every transaction whose number is below check_xid has ended, and any other got its
	-- number after check_at, shortly before or any time after which its messages got their times.
	IF v_cursor.check_xid IS NULL OR v_oldest >= v_cursor.check_xid THEN
		v_cursor.safe_at := coalesce(v_cursor.check_at, v_now);
		v_cursor.check_at := v_now;
		v_cursor.check_xid := v_mine;
	END IF;
	v_from := greatest(coalesce(v_cursor.read_to, v_to), v_now - p_ttl_ms * interval '1 ms');
	IF v_cursor.again_xid IS NOT NULL AND v_oldest >= v_cursor.again_xid THEN
		v_from := least(v_from, greatest(v_cursor.again_from, v_now - k_again));
		v_cursor.again_from := NULL;
		v_cursor.again_xid := NULL;
	END IF;
	IF v_cursor.safe_at - k_start < v_to THEN
		IF v_to - (v_cursor.safe_at - k_start) <= k_patience THEN
			v_to := v_cursor.safe_at - k_start;
		ELSE
			v_cursor.again_from := least(v_cursor.again_from, v_cursor.safe_at - k_start);
			v_cursor.again_xid := v_mine;
		END IF;
	END IF;
	IF v_to <= v_from THEN
		v_to := v_from;
	END IF;
	v_behind_ms := 1000 * extract(epoch FROM v_to - least(v_to, v_from + k_stride));
	v_to := least(v_to, v_from + k_stride);

	-- 2. Conversations with news, their members' devices that have a push target, and what of it is news for them.
	WITH fresh AS MATERIALIZED (
		SELECT conversation_id, min(seq) AS first, max(seq) AS last, count(*) AS messages
		FROM chat.messages WHERE committed_at > v_from AND committed_at <= v_to GROUP BY conversation_id
	), due AS MATERIALIZED (
		SELECT t.device_id, f.conversation_id, p.user_id, t.app, news.seq, news.since
		FROM fresh f
		CROSS JOIN LATERAL (SELECT user_id FROM chat.conversation_participants WHERE conversation_id = f.conversation_id OFFSET 0) p
		CROSS JOIN LATERAL (SELECT id FROM chat.devices WHERE user_id = p.user_id AND revoked_at IS NULL OFFSET 0) d
		CROSS JOIN LATERAL (SELECT device_id, app FROM chat.push_targets WHERE device_id = d.id OFFSET 0) t
		CROSS JOIN LATERAL chat.pushable(t.device_id, p.user_id, f.conversation_id, f.first, f.last) news
	), queued AS (
		INSERT INTO chat.pushes AS q (device_id, conversation_id, user_id, last_seq, since, expires_at, app)
		SELECT device_id, conversation_id, user_id, seq, since, since + p_ttl_ms * interval '1 ms', app
		FROM due ORDER BY device_id, conversation_id
		ON CONFLICT (device_id, conversation_id) DO UPDATE SET last_seq = excluded.last_seq, expires_at = excluded.expires_at,
			state = 'due', app = excluded.app, user_id = excluded.user_id,
			-- What waits, or is under way, keeps its place; what was told or given up begins anew.
			since = CASE q.state WHEN 'due' THEN q.since ELSE excluded.since END,
			not_before = CASE q.state WHEN 'due' THEN q.not_before ELSE clock_timestamp() END,
			attempts = CASE q.state WHEN 'due' THEN q.attempts ELSE 0 END
		WHERE excluded.last_seq > greatest(q.last_seq, q.sent_seq)
		RETURNING 1
	)
	SELECT coalesce((SELECT sum(f.messages) FROM fresh f), 0), (SELECT count(*) FROM queued) INTO v_messages, v_found;

	IF v_cursor.summarized_at < v_now - interval '10 seconds' THEN
		v_cursor.summarized_block := chat.summarize_messages(v_cursor.summarized_block);
		v_cursor.summarized_at := v_now;
	END IF;
	UPDATE chat.push_cursor SET read_to = v_to, safe_at = v_cursor.safe_at, check_at = v_cursor.check_at,
		check_xid = v_cursor.check_xid, again_from = v_cursor.again_from, again_xid = v_cursor.again_xid,
		summarized_block = v_cursor.summarized_block, summarized_at = v_cursor.summarized_at;
	RETURN QUERY SELECT v_messages, v_found, v_behind_ms;
END $$;
COMMENT ON FUNCTION chat.find_pushes IS 'Looks at the messages that were committed since the last time, up to p_grace_ms ago, and queues what devices should be told of. '
	'No row where another notifier is doing that at this moment. behind_ms: so much of the log is left.';

CREATE FUNCTION chat.check_shown(p_apps text[], p_count integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET enable_bitmapscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
	v_now CONSTANT timestamptz := clock_timestamp();
	v_checked integer;
BEGIN
	WITH picked AS MATERIALIZED (
		SELECT * FROM chat.pushes WHERE state = 'shown' AND not_before <= v_now ORDER BY not_before LIMIT p_count
		FOR UPDATE SKIP LOCKED
	), judged AS MATERIALIZED (
		SELECT q.device_id, q.conversation_id, q.since,
			CASE
				WHEN q.expires_at <= v_now THEN 'forget'
				WHEN coalesce(w.read_seq, q.sent_seq) < q.sent_seq THEN 'wait'
				WHEN q.app = ANY (p_apps) THEN 'clear'
				ELSE 'forget'
			END AS verdict
		FROM picked q
		LEFT JOIN LATERAL (SELECT read_seq FROM chat.participant_watermarks
			WHERE conversation_id = q.conversation_id AND user_id = q.user_id OFFSET 0) w ON true
	), forgotten AS (
		DELETE FROM chat.pushes q USING judged j
		WHERE q.device_id = ANY (ARRAY[j.device_id]) AND q.conversation_id = j.conversation_id AND j.verdict = 'forget'
	), moved AS (
		UPDATE chat.pushes q SET
			state = CASE j.verdict WHEN 'clear' THEN 'clear' ELSE 'shown' END::chat.push_state,
			expires_at = CASE j.verdict WHEN 'clear' THEN v_now + interval '1 hour' ELSE q.expires_at END,
			-- The longer it has not been read, the less often it is worth a look.
			not_before = CASE j.verdict WHEN 'clear' THEN v_now
				ELSE v_now + least(greatest((v_now - j.since) / 2, interval '2 seconds'), interval '10 minutes') END
		FROM judged j
		WHERE q.device_id = ANY (ARRAY[j.device_id]) AND q.conversation_id = j.conversation_id AND j.verdict <> 'forget'
	)
	SELECT count(*) FROM judged INTO v_checked;
	RETURN v_checked;
END $$;
COMMENT ON FUNCTION chat.check_shown IS 'Looks whether notifications that devices show have been read, and queues taking them away (where the app is in p_apps), or '
	'forgets them. Returns how many were looked at.';

-- -- claiming and settling -------------------------------------------------------------------------------------------------

CREATE FUNCTION chat.claim_pushes(p_app text, p_count integer, p_lease_ms bigint, p_badge boolean)
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
		WHERE j.verdict = 'clear' AND q.device_id = ANY (ARRAY[j.device_id]) AND q.state = 'clear' AND q.not_before > v_now
	)
	-- What only some rows need is asked in CASE, which looks at nothing for the others.
	SELECT j.device_id, j.conversation_id, j.lease + 1, j.verdict, j.provider, j.token, j.subscription,
		(extract(epoch FROM j.updated_at) * 1000000)::bigint, j.user_id, j.attempts, j.seq, j.count,
		CASE WHEN p_badge AND j.verdict IN ('message', 'clear') THEN (
			SELECT sum(o.last_ordinal - w.read_ordinal)::bigint
			FROM (SELECT conversation_id, muted_until FROM chat.conversation_participants WHERE user_id = j.user_id OFFSET 0) p
			CROSS JOIN LATERAL (SELECT last_ordinal FROM chat.conversations WHERE id = p.conversation_id OFFSET 0) o
			CROSS JOIN LATERAL (SELECT read_ordinal FROM chat.participant_watermarks
				WHERE conversation_id = p.conversation_id AND user_id = j.user_id OFFSET 0) w
			WHERE p.muted_until IS NULL OR p.muted_until <= v_now) END,
		j.since, j.expires_at, j.language, c.type::text, c.name::text, s.name, m.type, m.body,
		CASE WHEN j.verdict = 'clear' THEN (
			SELECT array_agg(p.conversation_id) FROM chat.pushes p WHERE p.device_id = j.device_id AND p.state = 'clear') END,
		j.last_error
	FROM judged j
	LEFT JOIN LATERAL (SELECT type, name FROM chat.conversations WHERE id = j.conversation_id OFFSET 0) c ON j.verdict = 'message'
	LEFT JOIN LATERAL (
		SELECT type, sender_id, CASE WHEN type <> 'opaque' THEN left(coalesce((
			SELECT a.body FROM chat.messages a WHERE a.conversation_id = j.conversation_id AND a.ref = j.seq AND a.seq > j.seq
				AND a.type = 'edit' AND a.sender_id = t.sender_id ORDER BY a.seq DESC LIMIT 1), body), 1000) END AS body
		FROM chat.messages t WHERE conversation_id = j.conversation_id AND seq = j.seq OFFSET 0) m ON j.verdict = 'message'
	LEFT JOIN LATERAL (SELECT coalesce(display_name, username) AS name FROM chat.users WHERE id = m.sender_id OFFSET 0) s
		ON j.verdict = 'message';
END $$;
COMMENT ON FUNCTION chat.claim_pushes IS 'Takes what is due for an app, under a lease, and says all that is needed to send it. verdict: message, clear or test is to be '
	'sent and settled; known (read or delivered meanwhile), expired, gone, moved, later and along are done with.';

CREATE FUNCTION chat.settle_pushes(p_device bigint[], p_conversation bigint[], p_lease bigint[], p_outcome text[], p_seq bigint[],
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
		WHERE q.device_id = ANY (ARRAY[h.device_id]) AND q.conversation_id <> h.conversation_id AND q.state = 'clear'
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
COMMENT ON FUNCTION chat.settle_pushes IS 'What became of claimed pushes. outcome: accepted (up to seq; 0 for a clear), retry (after delay_ms), release (as if never claimed), '
	'dead (kept, for an administrator), drop (done with), forget (the push target is dead: removed unless it was changed since target_us or given after gone_ms). '
	'Returns how many were still held under the lease.';

-- -- for people ------------------------------------------------------------------------------------------------------------

CREATE FUNCTION chat.push_queue() RETURNS TABLE (app text, due bigint, oldest_ms bigint, dead bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	DELETE FROM chat.pushes WHERE state = 'dead' AND since < now() - interval '30 days';
	RETURN QUERY
	SELECT app, count(*) FILTER (WHERE state <> 'dead'),
		coalesce((1000 * extract(epoch FROM clock_timestamp() - min(since) FILTER (WHERE state = 'due')))::bigint, 0),
		count(*) FILTER (WHERE state = 'dead')
	FROM (SELECT app, state, since FROM chat.pushes WHERE state IN ('due', 'clear')
		UNION ALL SELECT app, state, since FROM chat.pushes WHERE state = 'dead') q
	GROUP BY app;
END $$;
COMMENT ON FUNCTION chat.push_queue IS 'For each app: how much waits, how old the oldest is, how much was given up (kept for 30 days).';

CREATE FUNCTION chat.redrive_pushes(p_app text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	v_redriven bigint;
BEGIN
	UPDATE chat.pushes SET state = 'due', attempts = 0, not_before = clock_timestamp(),
		expires_at = greatest(expires_at, clock_timestamp() + interval '1 hour')
	WHERE state = 'dead' AND app = p_app;
	GET DIAGNOSTICS v_redriven = ROW_COUNT;
	RETURN v_redriven;
END $$;
COMMENT ON FUNCTION chat.redrive_pushes IS 'Tries once more what was given up for an app; those that were read or delivered meanwhile are dropped when they are claimed.';

CREATE FUNCTION chat.test_push(p_user bigint, p_device bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	INSERT INTO chat.pushes AS q (device_id, conversation_id, user_id, last_seq, since, expires_at, app)
	SELECT d.id, 0, d.user_id, 1, clock_timestamp(), clock_timestamp() + interval '5 minutes', t.app
	FROM chat.devices d JOIN chat.push_targets t ON t.device_id = d.id
	WHERE d.id = p_device AND d.user_id = p_user AND d.revoked_at IS NULL
	ON CONFLICT (device_id, conversation_id) DO UPDATE
	SET state = 'due', attempts = 0, app = excluded.app, expires_at = excluded.expires_at,
		not_before = CASE q.state WHEN 'due' THEN q.not_before ELSE excluded.not_before END;
	RETURN FOUND;
END $$;
COMMENT ON FUNCTION chat.test_push IS 'Queues a test push to a device of the user; false where it is not theirs or has no push target.';

CREATE FUNCTION chat_api.device_test_push(caller chat_api.caller, params jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	d chat.devices;
BEGIN
	PERFORM chat_api.expect(params, 'device');
	d := chat_api.own_device(caller, params);
	IF NOT chat.test_push(caller.user_id, d.id) THEN
		PERFORM chat_api.refuse('conflict', 'pushes for this device go nowhere: device.update says where', 'device');
	END IF;
	RETURN '{}';
END $$;

INSERT INTO chat_api.methods (name, function_name, cost) VALUES
	('device.test_push', 'device_test_push', 10);

-- -- privileges ------------------------------------------------------------------------------------------------------------

REVOKE ALL ON FUNCTION chat.pushable, chat.summarize_messages, chat.find_pushes, chat.check_shown, chat.claim_pushes, chat.settle_pushes,
	chat.push_queue, chat.redrive_pushes, chat.test_push, chat_api.device_test_push FROM PUBLIC;
GRANT EXECUTE ON FUNCTION chat.find_pushes, chat.check_shown, chat.claim_pushes, chat.settle_pushes, chat.push_queue TO chat_notifier;
GRANT EXECUTE ON FUNCTION chat.push_queue, chat.redrive_pushes, chat.test_push TO chat_admin;
