-- Content rules and moderation: what an administrator has the plugin look for in messages, what members report, and what
-- moderators do about it.
--
-- Rules are rows that an administrator writes (role chat_admin, psql). The plugin reads them, holds every message against them before it is
-- stored, and reads them again when they are announced to have changed ("rules" on chat_changes). Patterns are of PCRE2, which
-- PostgreSQL does not have: what does not compile the plugin says in its log, and the other rules stay in force.
--
-- Locks: who resolves a report holds the user (where one is suspended) and the conversation before it touches a row of chat.reports, as a
-- writer does that stores a message and reports it; see 0002_triggers.sql.

-- -- rules -----------------------------------------------------------------------------------------------------------------

CREATE TYPE chat.content_action AS ENUM ('reject', 'mask', 'flag');
COMMENT ON TYPE chat.content_action IS 'reject: the message is refused to its sender; mask: what matches is stored as asterisks; flag: it '
	'is stored, and is on the moderators'' list.';

CREATE TABLE chat.content_rules (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	pattern text NOT NULL CONSTRAINT content_rules_pattern CHECK (char_length(pattern) BETWEEN 1 AND 1000
		AND pattern !~ '\{[0-9]{4,}|\{[0-9]*,[0-9]{4,}\}'),
	action chat.content_action NOT NULL,
	conversation_type chat.conversation_type,
	conversation_id bigint REFERENCES chat.conversations ON DELETE CASCADE,
	ignore_case boolean NOT NULL DEFAULT true,
	enabled boolean NOT NULL DEFAULT true,
	note text CHECK (char_length(note) <= 1000),
	created_at timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT content_rules_scope CHECK (num_nonnulls(conversation_type, conversation_id) <= 1)
);
CREATE INDEX content_rules_conversation_id ON chat.content_rules (conversation_id) WHERE conversation_id IS NOT NULL;
COMMENT ON TABLE chat.content_rules IS 'What messages are held against before they are stored. Insert, change or delete with plain SQL; '
	'the broker follows within a moment, and its log says how many are in force and which do not compile.';
COMMENT ON COLUMN chat.content_rules.id IS 'The rule''s number in the log and in reports.';
COMMENT ON COLUMN chat.content_rules.pattern IS 'A Perl-compatible pattern (PCRE2, Unicode), without back references, of at most 1,000 '
	'characters; no counted repeat of 1,000 or more.';
COMMENT ON COLUMN chat.content_rules.action IS 'reject, mask or flag.';
COMMENT ON COLUMN chat.content_rules.conversation_type IS 'Only in conversations of this type.';
COMMENT ON COLUMN chat.content_rules.conversation_id IS 'Only in this conversation. With neither: in all.';
COMMENT ON COLUMN chat.content_rules.ignore_case IS 'Whether letters match whatever their case.';
COMMENT ON COLUMN chat.content_rules.enabled IS 'Whether it is in force.';
COMMENT ON COLUMN chat.content_rules.note IS 'What it is for.';
COMMENT ON COLUMN chat.content_rules.created_at IS 'When it was made.';

CREATE FUNCTION chat.content_rules_max() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 1000';
COMMENT ON FUNCTION chat.content_rules_max IS 'How many rules may be in force: each is tried on each message.';

CREATE FUNCTION chat.content_rules_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF (SELECT count(*) FROM chat.content_rules WHERE enabled) > chat.content_rules_max() THEN
		RAISE 'at most % rules may be enabled', chat.content_rules_max() USING ERRCODE = 'check_violation';
	END IF;
	PERFORM chat.announce('rules');
	RETURN NULL;
END $$;
-- For each row: a conversation that is removed, and has no rules, is no news. Of one transaction all are one announcement.
CREATE TRIGGER content_rules_changed AFTER INSERT OR UPDATE OR DELETE ON chat.content_rules
	FOR EACH ROW EXECUTE FUNCTION chat.content_rules_changed();
CREATE TRIGGER content_rules_truncated AFTER TRUNCATE ON chat.content_rules
	FOR EACH STATEMENT EXECUTE FUNCTION chat.content_rules_changed();

-- The numbers of actions are those of enum content_action (content_rules.h).
CREATE FUNCTION chat.type_number(type chat.conversation_type) RETURNS smallint LANGUAGE sql IMMUTABLE AS $$
	SELECT CASE type WHEN 'direct' THEN 1 WHEN 'group' THEN 2 WHEN 'channel' THEN 3 ELSE 0 END::smallint
$$;
COMMENT ON FUNCTION chat.type_number IS 'A conversation''s type as the plugin has it; 0: none.';

CREATE FUNCTION chat.read_content_rules()
RETURNS TABLE (id bigint, pattern text, action smallint, ignore_case boolean, conversation_type smallint, conversation_id bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY
	SELECT r.id, r.pattern, CASE r.action WHEN 'reject' THEN 1 WHEN 'mask' THEN 2 ELSE 3 END::smallint, r.ignore_case,
		chat.type_number(r.conversation_type), coalesce(r.conversation_id, 0)
	FROM chat.content_rules r WHERE r.enabled ORDER BY r.id;
END $$;
COMMENT ON FUNCTION chat.read_content_rules IS 'The rules that are enabled; type and conversation are 0 where any will do.';

CREATE FUNCTION chat.conversation_types(p_conversations bigint[]) RETURNS TABLE (ordinal integer, type smallint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY
	SELECT i, chat.type_number(c.type) FROM generate_series(1, cardinality(p_conversations)) AS i
	LEFT JOIN LATERAL (SELECT * FROM chat.conversations WHERE id = p_conversations[i] OFFSET 0) c ON true
	ORDER BY i;
END $$;
COMMENT ON FUNCTION chat.conversation_types IS 'The type of each of these conversations; 0 for one that does not exist.';

-- -- reports ---------------------------------------------------------------------------------------------------------------

CREATE TYPE chat.report_resolution AS ENUM ('dismissed', 'deleted', 'suspended');
COMMENT ON TYPE chat.report_resolution IS 'What a moderator did: nothing, deleted the message, suspended its author.';

-- "resolved" leads the index that lists are read from, so that no other index does as well even on an empty table.
CREATE TABLE chat.reports (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	conversation_id bigint NOT NULL REFERENCES chat.conversations ON DELETE CASCADE,
	seq bigint NOT NULL,
	reporter_id bigint REFERENCES chat.users ON DELETE SET NULL,
	rule_id bigint,
	reason text CHECK (char_length(reason) BETWEEN 1 AND 500),
	created_at timestamptz NOT NULL DEFAULT now(),
	resolved boolean NOT NULL GENERATED ALWAYS AS (resolution IS NOT NULL) STORED,
	resolved_at timestamptz,
	resolved_by bigint,
	resolution chat.report_resolution,
	note text CHECK (char_length(note) BETWEEN 1 AND 500),
	CHECK (num_nonnulls(resolved_at, resolution) IN (0, 2))
);
CREATE INDEX reports_queue ON chat.reports (resolved, id);
CREATE UNIQUE INDEX reports_of_rules ON chat.reports (conversation_id, seq, rule_id) WHERE rule_id IS NOT NULL AND NOT resolved;
CREATE UNIQUE INDEX reports_of_members ON chat.reports (conversation_id, seq, reporter_id) WHERE reporter_id IS NOT NULL AND NOT resolved;
CREATE INDEX reports_reporter ON chat.reports (reporter_id, created_at) WHERE reporter_id IS NOT NULL;
COMMENT ON TABLE chat.reports IS 'Messages that members reported, or that a rule flagged, and what moderators did about them.';
COMMENT ON COLUMN chat.reports.id IS 'Its number, in the order in which they came.';
COMMENT ON COLUMN chat.reports.conversation_id IS 'Where the message is.';
COMMENT ON COLUMN chat.reports.seq IS 'Its number there; of an edit, that of the message which it edits.';
COMMENT ON COLUMN chat.reports.reporter_id IS 'Who reported it; NULL where a rule did, or where the reporter was removed.';
COMMENT ON COLUMN chat.reports.rule_id IS 'The rule that flagged it. No foreign key: it may be gone.';
COMMENT ON COLUMN chat.reports.reason IS 'In the reporter''s words.';
COMMENT ON COLUMN chat.reports.created_at IS 'When it was reported.';
COMMENT ON COLUMN chat.reports.resolved IS 'Whether something was decided.';
COMMENT ON COLUMN chat.reports.resolved_at IS 'When.';
COMMENT ON COLUMN chat.reports.resolved_by IS 'The moderator.';
COMMENT ON COLUMN chat.reports.resolution IS 'dismissed, deleted or suspended.';
COMMENT ON COLUMN chat.reports.note IS 'The moderator''s note.';

-- -- what the writers do with a verdict ------------------------------------------------------------------------------------

-- No lock on the conversation: nothing is stored. The moment at which somebody ceases to be a member decides between two refusals,
-- and what was stored before stays stored.
CREATE FUNCTION chat.reject_messages(p_spool uuid, p_slots smallint[], p_from bigint[], p_to bigint[],
	p_conversation bigint[], p_sender bigint[], p_device bigint[], p_client_id uuid[], p_content_hash uuid[], p_sent_at timestamptz[])
RETURNS TABLE (ordinal integer, status smallint, seq bigint, sent_at timestamptz, code text, members_version bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
	IF cardinality(p_slots) > 0 THEN
		PERFORM chat.move_positions(p_spool, p_slots, p_from, p_to);
	END IF;
	RETURN QUERY
	WITH judged AS MATERIALIZED (
		SELECT i, known.seq, known.sent_at, coalesce(c.members_version, 0) AS members_version,
			CASE
				-- It was stored when the rules were others, and this is a resend.
				WHEN known.seq IS NOT NULL THEN CASE WHEN known.content_hash = p_content_hash[i] THEN NULL ELSE 'conflict' END
				WHEN u.status IS DISTINCT FROM 'active' OR p_device[i] <> 0 AND (d.user_id = u.id AND d.revoked_at IS NULL) IS NOT TRUE THEN 'unauthenticated'
				WHEN p.role IS NULL AND c.is_public IS NOT TRUE THEN 'not_found'
				WHEN c.blocked THEN 'blocked'
				ELSE 'forbidden'
			END AS code
		FROM generate_series(1, cardinality(p_conversation)) AS i
		LEFT JOIN LATERAL (SELECT * FROM chat.conversations WHERE id = p_conversation[i] OFFSET 0) c ON true
		LEFT JOIN LATERAL (SELECT * FROM chat.users WHERE id = p_sender[i] OFFSET 0) u ON true
		LEFT JOIN LATERAL (SELECT * FROM chat.devices WHERE id = p_device[i] OFFSET 0) d ON true
		LEFT JOIN LATERAL (SELECT * FROM chat.conversation_participants WHERE conversation_id = p_conversation[i] AND user_id = p_sender[i] OFFSET 0) p ON true
		LEFT JOIN LATERAL (SELECT * FROM chat.messages
			WHERE sender_id = p_sender[i] AND client_id = p_client_id[i] AND conversation_id + 0 = p_conversation[i] -- "+ 0": see chat.messages
			OFFSET 0) known ON true
	), noted AS (
		INSERT INTO chat.refusals (user_id, device_id, conversation_id, client_id, code, sent_at, refused_at)
		SELECT p_sender[i], nullif(p_device[i], 0), p_conversation[i], p_client_id[i], code, p_sent_at[i], clock_timestamp()
		FROM judged WHERE code IS NOT NULL ORDER BY i
	)
	SELECT i, CASE WHEN code IS NULL THEN 2 ELSE 3 END::smallint, CASE WHEN code IS NULL THEN judged.seq END,
		CASE WHEN code IS NULL THEN judged.sent_at END, code, judged.members_version
	FROM judged ORDER BY i;
END $$;
COMMENT ON FUNCTION chat.reject_messages IS 'Puts on record that messages are refused by a content rule; those that are resends of what was stored are '
	'not. Columns as of append_messages.';

CREATE FUNCTION chat.flag_messages(p_conversation bigint[], p_sender bigint[], p_client_id uuid[], p_rule bigint[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET jit = off AS $$
BEGIN
	INSERT INTO chat.reports (conversation_id, seq, rule_id)
	SELECT m.conversation_id, CASE WHEN m.type = 'edit' THEN m.ref ELSE m.seq END, p_rule[i]
	FROM generate_subscripts(p_rule, 1) AS i
	CROSS JOIN LATERAL (SELECT * FROM chat.messages
		WHERE sender_id = p_sender[i] AND client_id = p_client_id[i] AND conversation_id + 0 = p_conversation[i]
			AND xmin = pg_current_xact_id()::xid OFFSET 0) m -- not one that was there: a resend, or another with this id
	ORDER BY i
	ON CONFLICT DO NOTHING;
END $$;
COMMENT ON FUNCTION chat.flag_messages IS 'Reports those of these messages that are stored, each for the rule that flagged it; in the transaction '
	'that stores them.';

-- -- moderators and suspensions -------------------------------------------------------------------------------------------

ALTER TABLE chat.users
	ADD COLUMN moderator boolean NOT NULL DEFAULT false,
	ADD COLUMN suspended_until timestamptz,
	ADD COLUMN suspended_by bigint,
	ADD COLUMN suspended_reason text CHECK (char_length(suspended_reason) <= 500);
CREATE INDEX users_suspended_until ON chat.users (suspended_until) WHERE status = 'suspended' AND suspended_until IS NOT NULL;
COMMENT ON COLUMN chat.users.moderator IS 'Whether they may read reports, delete what was reported and suspend users (moderation.*). For an '
	'administrator to set.';
COMMENT ON COLUMN chat.users.suspended_until IS 'When the suspension ends by itself; NULL: it does not.';
COMMENT ON COLUMN chat.users.suspended_by IS 'The moderator who suspended them; NULL: an administrator did.';
COMMENT ON COLUMN chat.users.suspended_reason IS 'Why, for moderators.';

-- Or the next suspension, which may be an administrator's and for ever, would end with the last one's time.
CREATE FUNCTION chat.suspension_lifted() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	NEW.suspended_until := NULL;
	NEW.suspended_by := NULL;
	NEW.suspended_reason := NULL;
	RETURN NEW;
END $$;
CREATE TRIGGER suspension_lifted BEFORE UPDATE OF status ON chat.users
	FOR EACH ROW WHEN (NEW.status = 'active' OR OLD.status = 'suspended' AND (NEW.suspended_until, NEW.suspended_by, NEW.suspended_reason)
		IS NOT DISTINCT FROM (OLD.suspended_until, OLD.suspended_by, OLD.suspended_reason)) EXECUTE FUNCTION chat.suspension_lifted();

CREATE FUNCTION chat.lift_suspensions() RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
DECLARE
	v_lifted integer;
BEGIN
	UPDATE chat.users SET status = 'active' WHERE status = 'suspended' AND suspended_until <= clock_timestamp();
	GET DIAGNOSTICS v_lifted = ROW_COUNT;
	RETURN v_lifted;
END $$;
COMMENT ON FUNCTION chat.lift_suspensions IS 'Ends the suspensions whose time is over, and returns how many they were; to be called every few seconds.';

-- The one place where a moderator's deletion touches the log: the bodies go, of the message and of its edits, and an entry of the type
-- delete says so to who follows the conversation.
CREATE FUNCTION chat.erase_message(p_conversation bigint, p_seq bigint, p_by bigint) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM FROM chat.conversations WHERE id = p_conversation FOR NO KEY UPDATE;
	IF chat.erase(ARRAY[p_conversation], ARRAY[p_seq], 'deleted') = 0 THEN
		RETURN false;
	END IF;
	INSERT INTO chat.messages (conversation_id, sender_id, client_id, type, ref, body) VALUES (p_conversation, p_by, gen_random_uuid(), 'delete', p_seq, '');
	RETURN true;
END $$;
COMMENT ON FUNCTION chat.erase_message IS 'Removes what a message says, in the name of this moderator; false where there is nothing to remove.';

-- -- methods ---------------------------------------------------------------------------------------------------------------

-- Before anything else is looked at: who is no moderator gets the same answer to everything.
CREATE FUNCTION chat_api.need_moderator(caller chat_api.caller) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF NOT EXISTS (SELECT FROM chat.users WHERE id = caller.user_id AND moderator) THEN
		PERFORM chat_api.refuse('forbidden', 'this is for moderators');
	END IF;
END $$;
COMMENT ON FUNCTION chat_api.need_moderator IS 'Refuses all but moderators.';

CREATE FUNCTION chat_api.reports_max() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 50';
COMMENT ON FUNCTION chat_api.reports_max IS 'How many reports of a user may be undecided, of those made within a day.';

CREATE FUNCTION chat_api.moderation_report(caller chat_api.caller, params jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	v_conversation CONSTANT bigint := chat_api.param_id(params, 'conversation');
	v_seq bigint := chat_api.param_id(params, 'seq');
	v_reason text;
	seen record;
	m chat.messages;
BEGIN
	PERFORM chat_api.expect(params, 'conversation', 'seq', 'reason');
	v_reason := chat_api.param_line(params, 'reason', 1, 500);
	seen := chat_api.look(caller, v_conversation);
	SELECT * INTO m FROM chat.messages WHERE conversation_id = v_conversation AND seq BETWEEN v_seq AND v_seq
		AND seq >= chat_api.first_visible(seen.c, seen.p) ORDER BY seq;
	IF m.type = 'edit' THEN -- what is meant is the message
		SELECT * INTO m FROM chat.messages WHERE conversation_id = v_conversation AND seq BETWEEN m.ref AND m.ref
			AND seq >= chat_api.first_visible(seen.c, seen.p) ORDER BY seq;
	END IF;
	IF m.seq IS NULL OR m.type IN ('system', 'delete', 'deleted') OR m.expires_at <= now() THEN
		PERFORM chat_api.refuse('not_found', 'there is no such message');
	END IF;
	IF (SELECT count(*) FROM chat.reports WHERE reporter_id = caller.user_id AND created_at > now() - interval '1 day' AND NOT resolved) >= chat_api.reports_max() THEN
		PERFORM chat_api.refuse('quota_exceeded', format('nobody has more than %s reports of a day undecided', chat_api.reports_max()));
	END IF;
	INSERT INTO chat.reports (conversation_id, seq, reporter_id, reason) VALUES (v_conversation, m.seq, caller.user_id, v_reason)
	ON CONFLICT DO NOTHING;
	RETURN '{}';
END $$;

CREATE FUNCTION chat_api.reported_entry(m chat.messages, p_most integer) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
	-- What is about a message that is gone is shown without its content, as in history.
	item jsonb := chat_api.entry(m, NULL, CASE WHEN chat.is_gone(m.conversation_id, m.ref) THEN m.ref ELSE m.seq END)::jsonb;
BEGIN
	IF item ->> 'type' = 'opaque' THEN
		RETURN item - 'body';
	ELSIF char_length(item ->> 'body') > p_most THEN
		RETURN item || jsonb_build_object('body', left(item ->> 'body', p_most), 'cut', true);
	END IF;
	RETURN item;
END $$;
COMMENT ON FUNCTION chat_api.reported_entry IS 'An entry as it is now, for moderators: nothing of an opaque one, of others at most so many characters.';

-- What came before is shown as far as who reported it sees it.
CREATE FUNCTION chat_api.report_context(r chat.reports, c chat.conversations) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
	k_entries CONSTANT integer := 3;
	k_characters CONSTANT integer := 500;
	p chat.conversation_participants;
BEGIN
	SELECT * INTO p FROM chat.conversation_participants WHERE conversation_id = r.conversation_id AND user_id = r.reporter_id;
	IF p.user_id IS NULL AND NOT (c.is_public AND r.reporter_id IS NOT NULL) THEN
		RETURN '[]';
	END IF;
	RETURN coalesce((SELECT jsonb_agg(chat_api.reported_entry(before, k_characters) - '{extra,meta,attachments,mentions}'::text[] ORDER BY before.seq)
		FROM (SELECT * FROM chat.messages m WHERE conversation_id = r.conversation_id AND seq BETWEEN chat_api.first_visible(c, p) AND r.seq - 1
			ORDER BY seq DESC LIMIT k_entries) before), '[]');
END $$;
COMMENT ON FUNCTION chat_api.report_context IS 'The entries before a reported message, for one that a member reported.';

CREATE FUNCTION chat_api.report_json(r chat.reports) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
	c chat.conversations;
	m chat.messages;
BEGIN
	SELECT * INTO c FROM chat.conversations WHERE id = r.conversation_id;
	SELECT * INTO m FROM chat.messages WHERE conversation_id = r.conversation_id AND seq BETWEEN r.seq AND r.seq ORDER BY seq;
	RETURN jsonb_strip_nulls(jsonb_build_object('id', r.id, 'rule', r.rule_id, 'reason', r.reason, 'created_at', chat_api.ms(r.created_at),
			'conversation', jsonb_build_object('id', c.id, 'type', c.type, 'name', c.name), 'seq', r.seq,
			'reporter', (SELECT chat_api.profile(u) FROM chat.users u WHERE id = r.reporter_id),
			'author', (SELECT chat_api.profile(u) || jsonb_build_object('suspended', u.status = 'suspended') FROM chat.users u WHERE id = m.sender_id),
			'resolution', r.resolution, 'resolved_at', chat_api.ms(r.resolved_at), 'resolved_by', r.resolved_by, 'note', r.note))
		|| jsonb_build_object('context', chat_api.report_context(r, c), 'message',
			CASE WHEN m.seq IS NULL THEN jsonb_build_object('seq', r.seq, 'type', 'expired') ELSE chat_api.reported_entry(m, NULL) END);
END $$;
COMMENT ON FUNCTION chat_api.report_json IS 'A report as moderators see it.';

CREATE FUNCTION chat_api.moderation_list(caller chat_api.caller, params jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
	v_after bigint;
	v_limit integer;
	v_resolved boolean;
BEGIN
	PERFORM chat_api.need_moderator(caller);
	PERFORM chat_api.expect(params, 'after', 'limit', 'state');
	v_after := chat_api.param_integer(params, 'after', 0, 9007199254740991, 0);
	v_limit := chat_api.param_integer(params, 'limit', 1, 50, 20);
	v_resolved := coalesce(chat_api.param_choice(params, 'state', 'open', 'resolved'), 'open') = 'resolved';
	RETURN chat_api.page('reports', ARRAY(SELECT chat_api.report_json(r)
		FROM chat.reports r WHERE (resolved, id) > (v_resolved, v_after) AND (resolved, id) <= (v_resolved, 9223372036854775807)
		ORDER BY resolved, id LIMIT v_limit + 1), v_limit);
END $$;

CREATE FUNCTION chat_api.suspend(caller chat_api.caller, p_user bigint, params jsonb, p_reason text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	v_until CONSTANT bigint := chat_api.param_integer(params, 'until', 0, 9007199254740991, 0);
	u chat.users;
BEGIN
	IF v_until <> 0 AND v_until <= chat_api.ms(clock_timestamp()) THEN
		PERFORM chat_api.refuse('invalid_field', 'until is in the future, or 0: for ever', 'until');
	END IF;
	SELECT * INTO u FROM chat.users WHERE id = p_user FOR NO KEY UPDATE;
	IF NOT FOUND THEN
		PERFORM chat_api.refuse('not_found', 'there is no such user');
	ELSIF u.moderator THEN
		PERFORM chat_api.refuse('forbidden', 'moderators are suspended by an administrator');
	END IF;
	UPDATE chat.users SET status = 'suspended' WHERE id = p_user; -- what was said of an earlier one is gone with it
	UPDATE chat.users SET suspended_by = caller.user_id, suspended_reason = p_reason,
		suspended_until = CASE WHEN v_until <> 0 THEN to_timestamp(v_until / 1000.0) END
	WHERE id = p_user;
END $$;
COMMENT ON FUNCTION chat_api.suspend IS 'Suspends a user until a time that the parameters name, or for ever.';

CREATE FUNCTION chat_api.moderation_resolve(caller chat_api.caller, params jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	v_resolution chat.report_resolution;
	v_note text;
	r chat.reports;
BEGIN
	PERFORM chat_api.need_moderator(caller);
	PERFORM chat_api.expect(params, 'report', 'resolution', 'until', 'note'), chat_api.require(params, 'resolution');
	v_resolution := chat_api.param_choice(params, 'resolution', 'dismissed', 'deleted', 'suspended');
	v_note := chat_api.param_line(params, 'note', 1, 500);
	IF params ? 'until' AND v_resolution <> 'suspended' THEN
		PERFORM chat_api.refuse('invalid_field', 'until goes with suspended', 'until');
	END IF;
	SELECT * INTO r FROM chat.reports WHERE id = chat_api.param_id(params, 'report');
	IF NOT FOUND THEN
		PERFORM chat_api.refuse('not_found', 'there is no such report');
	END IF;
	-- The order of locks: the user, the conversation, its reports.
	IF v_resolution = 'suspended' THEN
		PERFORM chat_api.suspend(caller, (SELECT sender_id FROM chat.messages WHERE conversation_id = r.conversation_id AND seq BETWEEN r.seq AND r.seq ORDER BY seq),
			params, v_note);
	END IF;
	PERFORM FROM chat.conversations WHERE id = r.conversation_id FOR NO KEY UPDATE;
	IF v_resolution = 'deleted' THEN
		PERFORM chat.erase_message(r.conversation_id, r.seq, caller.user_id);
	END IF;
	UPDATE chat.reports SET resolution = v_resolution, resolved_at = now(), resolved_by = caller.user_id, note = v_note WHERE id = r.id AND NOT resolved;
	IF NOT FOUND THEN
		PERFORM chat_api.refuse('conflict', 'this was decided already');
	END IF;
	-- What was decided on is the message, whoever else reported it.
	UPDATE chat.reports SET resolution = v_resolution, resolved_at = now(), resolved_by = caller.user_id, note = v_note
	WHERE (conversation_id, seq) = (r.conversation_id, r.seq) AND NOT resolved;
	RETURN '{}';
END $$;

CREATE FUNCTION chat_api.moderation_suspend(caller chat_api.caller, params jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM chat_api.need_moderator(caller);
	PERFORM chat_api.expect(params, 'user', 'until', 'reason');
	PERFORM chat_api.suspend(caller, chat_api.param_id(params, 'user'), params, chat_api.param_line(params, 'reason', 1, 500));
	RETURN '{}';
END $$;

CREATE FUNCTION chat_api.moderation_unsuspend(caller chat_api.caller, params jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	v_user bigint;
BEGIN
	PERFORM chat_api.need_moderator(caller);
	PERFORM chat_api.expect(params, 'user');
	v_user := chat_api.param_id(params, 'user');
	UPDATE chat.users SET status = 'active' WHERE id = v_user;
	IF NOT FOUND THEN
		PERFORM chat_api.refuse('not_found', 'there is no such user');
	END IF;
	RETURN '{}';
END $$;

INSERT INTO chat_api.methods (name, function_name, cost) VALUES
	('moderation.report', 'moderation_report', 5),
	('moderation.list', 'moderation_list', 5),
	('moderation.resolve', 'moderation_resolve', 2),
	('moderation.suspend', 'moderation_suspend', 2),
	('moderation.unsuspend', 'moderation_unsuspend', 2);

-- -- privileges ------------------------------------------------------------------------------------------------------------

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA chat, chat_api FROM PUBLIC;
GRANT EXECUTE ON FUNCTION chat.read_content_rules, chat.conversation_types, chat.reject_messages, chat.flag_messages, chat.lift_suspensions TO chat_plugin;
GRANT DELETE, INSERT (pattern, action, conversation_type, conversation_id, ignore_case, enabled, note),
	UPDATE (pattern, action, conversation_type, conversation_id, ignore_case, enabled, note) ON chat.content_rules TO chat_admin;
GRANT SELECT ON chat.content_rules, chat.reports TO chat_admin;
