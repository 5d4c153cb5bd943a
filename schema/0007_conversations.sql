-- Conversations, and what is read of their logs: conversation.*, message.history, message.sync, message.status and message.search.
--
-- An entry of a log is answered in its present state (chat_api.entry): a message with the last edit of its author, and counts of its
-- reactions; the entries that say so, where the message is in the same answer, as {"seq","type","ref"}; what is gone as
-- {"seq","type":"deleted"} or "expired". So every number comes once, and no client hunts for a hole that is none. The state is made
-- when it is asked for, from chat.message_acts. A message whose body was erased has the type "deleted".

-- -- who may what ------------------------------------------------------------------------------------------------------

CREATE FUNCTION chat_api.look(caller chat_api.caller, p_conversation bigint, OUT c chat.conversations, OUT p chat.conversation_participants)
LANGUAGE plpgsql AS $$
BEGIN
	SELECT * INTO c FROM chat.conversations WHERE id = p_conversation;
	SELECT * INTO p FROM chat.conversation_participants WHERE conversation_id = p_conversation AND user_id = caller.user_id;
	IF c.id IS NULL OR p.user_id IS NULL AND NOT c.is_public THEN
		PERFORM chat_api.refuse('not_found', 'there is no such conversation');
	END IF;
END $$;
COMMENT ON FUNCTION chat_api.look IS 'A conversation, and the caller''s row in it, whose user_id is NULL for who only reads a public channel; '
	'not_found for everybody else.';

CREATE FUNCTION chat_api.look_as_member(caller chat_api.caller, p_conversation bigint, OUT c chat.conversations, OUT p chat.conversation_participants)
LANGUAGE plpgsql AS $$
DECLARE
	seen CONSTANT record := chat_api.look(caller, p_conversation);
BEGIN
	c := seen.c;
	p := seen.p;
	IF p.user_id IS NULL THEN
		PERFORM chat_api.refuse('forbidden', 'this is for members: join first');
	END IF;
END $$;
COMMENT ON FUNCTION chat_api.look_as_member IS 'As look, but who only reads a public channel is forbidden.';

-- The order of locks is that of the triggers: the rows that will change, then the conversation. What is returned was read after.
CREATE FUNCTION chat_api.lock_members(caller chat_api.caller, p_conversation bigint, p_users bigint[],
	OUT c chat.conversations, OUT p chat.conversation_participants)
LANGUAGE plpgsql AS $$
DECLARE
	seen record;
BEGIN
	PERFORM chat_api.look_as_member(caller, p_conversation);
	PERFORM FROM chat.conversation_participants WHERE conversation_id = p_conversation AND user_id = ANY (p_users)
		ORDER BY user_id FOR UPDATE;
	PERFORM FROM chat.conversations WHERE id = p_conversation FOR NO KEY UPDATE;
	seen := chat_api.look_as_member(caller, p_conversation);
	c := seen.c;
	p := seen.p;
	IF c.type = 'direct' THEN
		PERFORM chat_api.refuse('forbidden', 'a direct conversation is what it is: between two');
	END IF;
END $$;
COMMENT ON FUNCTION chat_api.lock_members IS 'As look_as_member, with these members'' rows and the conversation locked; not for direct ones.';

CREATE FUNCTION chat_api.need_role(p chat.conversation_participants, lowest chat.participant_role) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF p.role < lowest THEN
		PERFORM chat_api.refuse('forbidden', format('this takes the role %s', lowest));
	END IF;
END $$;
COMMENT ON FUNCTION chat_api.need_role IS 'Refuses members below a role.';

CREATE FUNCTION chat_api.log_event(p_conversation bigint, event text, caller chat_api.caller, what jsonb DEFAULT '{}') RETURNS void
LANGUAGE sql AS $$
	INSERT INTO chat.messages (conversation_id, extra)
	VALUES (p_conversation, jsonb_build_object('event', event, 'by', caller.user_id) || what)
$$;
COMMENT ON FUNCTION chat_api.log_event IS 'A system entry: numbered and delivered like any message.';

CREATE FUNCTION chat_api.conversations_max() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 5000';
COMMENT ON FUNCTION chat_api.conversations_max IS 'How many conversations a user may be in.';

CREATE FUNCTION chat_api.check_quota(p_users bigint[], field text DEFAULT '') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF EXISTS (SELECT FROM unnest(p_users) AS member CROSS JOIN LATERAL (SELECT count(*) AS count FROM (
			SELECT FROM chat.conversation_participants WHERE user_id = member LIMIT chat_api.conversations_max()) held) held
		WHERE held.count = chat_api.conversations_max()) THEN
		PERFORM chat_api.refuse('quota_exceeded', format('nobody can be in more than %s conversations', chat_api.conversations_max()), field);
	END IF;
END $$;
COMMENT ON FUNCTION chat_api.check_quota IS 'Refuses where one of these users is in as many conversations as can be.';

-- Who has blocked the caller, and whom the caller has blocked, is not brought into a conversation.
CREATE FUNCTION chat_api.check_invited(caller chat_api.caller, p_users bigint[], field text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	member bigint;
	u chat.users;
BEGIN
	FOREACH member IN ARRAY p_users LOOP
		u := chat_api.visible_user(caller, member);
		IF u.status <> 'active' THEN
			PERFORM chat_api.refuse('not_found', 'there is no such user', field);
		ELSIF EXISTS (SELECT FROM chat.blocked_users WHERE (user_id, blocked_user_id) IN ((caller.user_id, member), (member, caller.user_id))) THEN
			PERFORM chat_api.refuse('blocked', 'one of the two has blocked the other', field);
		END IF;
	END LOOP;
	PERFORM chat_api.check_quota(p_users, field);
END $$;
COMMENT ON FUNCTION chat_api.check_invited IS 'Refuses unless the caller may bring all of these into a conversation.';

CREATE FUNCTION chat_api.first_visible(c chat.conversations, p chat.conversation_participants) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
	SELECT CASE WHEN c.is_public THEN c.first_seq ELSE greatest(c.first_seq, p.first_visible_seq) END
$$;
COMMENT ON FUNCTION chat_api.first_visible IS 'Where the log begins for this member; a public channel is open to all from its beginning.';

-- -- entries of a log --------------------------------------------------------------------------------------------------

-- Messages without a ref, which are nearly all, are not in it and do not pay for it.
CREATE INDEX messages_ref ON chat.messages (conversation_id, ref) WHERE ref IS NOT NULL;

CREATE VIEW chat.message_acts AS
SELECT a.conversation_id, a.ref, a.seq, a.type, a.sender_id, a.sent_at, a.body, a.extra -> 'remove' IS NOT DISTINCT FROM 'true' AS removes
FROM chat.messages a
CROSS JOIN LATERAL (SELECT sender_id FROM chat.messages WHERE conversation_id = a.conversation_id AND seq BETWEEN a.ref AND a.ref ORDER BY seq OFFSET 0) t
WHERE a.ref IS NOT NULL AND (a.type = 'reaction' OR a.type IN ('edit', 'delete') AND a.sender_id = t.sender_id);
COMMENT ON VIEW chat.message_acts IS 'Reactions, and those edits and deletions that count: the author''s own.';
COMMENT ON COLUMN chat.message_acts.conversation_id IS 'The conversation.';
COMMENT ON COLUMN chat.message_acts.ref IS 'The message that it is about.';
COMMENT ON COLUMN chat.message_acts.seq IS 'Its own number.';
COMMENT ON COLUMN chat.message_acts.type IS 'reaction, edit or delete.';
COMMENT ON COLUMN chat.message_acts.sender_id IS 'Whose.';
COMMENT ON COLUMN chat.message_acts.sent_at IS 'When.';
COMMENT ON COLUMN chat.message_acts.body IS 'The reaction, or the new text.';
COMMENT ON COLUMN chat.message_acts.removes IS 'Whether it takes the reaction back.';

CREATE AGGREGATE chat_api.merge (jsonb) (SFUNC = pg_catalog.jsonb_concat, STYPE = jsonb, INITCOND = '{}');
COMMENT ON AGGREGATE chat_api.merge (jsonb) IS 'The members of all these objects in one.';

-- What people react with is in each answer about the message: 50 kinds, the first ones, of at most 64 characters. With more, the answer
-- would be too long to be sent, and with it the history of the whole conversation.
CREATE FUNCTION chat_api.states(p_conversation bigint, p_first bigint, p_last bigint, p_as_of bigint, p_user bigint) RETURNS jsonb
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
COMMENT ON FUNCTION chat_api.states IS 'What became of the messages of a range, up to an entry, by their numbers; as this user sees it.';

-- This and the next are plain expressions, which PostgreSQL puts into the query that calls them: a call for each of a thousand entries
-- would cost more than they do.
CREATE FUNCTION chat_api.message_json(m chat.messages) RETURNS json LANGUAGE sql STABLE AS $$
	SELECT json_strip_nulls(json_build_object('seq', m.seq, 'id', m.client_id, 'from', m.sender_id, 'sent_at', chat_api.ms(m.sent_at), 'type', m.type,
		'body', m.body, 'reply_to', m.reply_to, 'ref', m.ref, 'expires_at', chat_api.ms(m.expires_at)))
$$;
COMMENT ON FUNCTION chat_api.message_json IS 'A message as it was sent, without what is in extra.';

CREATE FUNCTION chat_api.entry(m chat.messages, state jsonb, p_first bigint) RETURNS json LANGUAGE sql STABLE AS $$
	SELECT CASE
		WHEN m.type = 'deleted' OR state ? 'deleted' THEN json_build_object('seq', m.seq, 'type', 'deleted')
		WHEN m.expires_at <= now() THEN json_build_object('seq', m.seq, 'type', 'expired')
		WHEN m.ref >= p_first AND m.type IN ('reaction', 'edit', 'delete') THEN json_build_object('seq', m.seq, 'type', m.type, 'ref', m.ref)
		WHEN m.extra IS NULL AND state IS NULL THEN chat_api.message_json(m)
		ELSE (chat_api.message_json(m)::jsonb || coalesce(m.extra, '{}') || coalesce(state, '{}'))::json
	END
$$;
COMMENT ON FUNCTION chat_api.entry IS 'An entry as it is answered, in a list that begins with p_first.';

CREATE FUNCTION chat_api.entries(p_conversation bigint, p_low bigint, p_high bigint, p_limit integer, p_newest boolean, p_bytes integer, p_as_of bigint,
	p_user bigint, OUT items text, OUT more boolean) LANGUAGE plpgsql STABLE AS $$
DECLARE
	v_first CONSTANT bigint := CASE WHEN p_newest THEN greatest(p_low, p_high - p_limit + 1) ELSE p_low END;
	v_states CONSTANT jsonb := chat_api.states(p_conversation, v_first, least(p_high, v_first + p_limit - 1), p_as_of, p_user);
	v_lowest bigint;
	v_highest bigint;
BEGIN
	-- What would not fit is not made: lengths are known without reading the bodies, and 100 bytes are around each.
	SELECT min(seq), max(seq) INTO v_lowest, v_highest
	FROM (
		SELECT seq, sum(bytes) OVER (ORDER BY CASE WHEN p_newest THEN -seq ELSE seq END) - bytes AS bytes_before
		FROM (
			(SELECT seq, 100 + coalesce(octet_length(body), 0) AS bytes FROM chat.messages WHERE conversation_id = p_conversation AND seq BETWEEN p_low AND p_high
				ORDER BY seq LIMIT CASE WHEN p_newest THEN 0 ELSE p_limit END)
			UNION ALL
			(SELECT seq, 100 + coalesce(octet_length(body), 0) AS bytes FROM chat.messages WHERE conversation_id = p_conversation AND seq BETWEEN p_low AND p_high
				ORDER BY seq DESC LIMIT CASE WHEN p_newest THEN p_limit ELSE 0 END)
		) page
	) measured WHERE bytes_before < p_bytes;

	SELECT string_agg(item, ',' ORDER BY seq), CASE WHEN p_newest THEN min(seq) <> p_low ELSE max(seq) <> p_high END INTO items, more
	FROM (
		SELECT seq, item, sum(octet_length(item) + 1) OVER by_place AS bytes, row_number() OVER by_place AS place
		FROM (
			SELECT seq, chat_api.entry(m, v_states -> seq::text, v_first)::text AS item
			FROM chat.messages m WHERE conversation_id = p_conversation AND seq BETWEEN v_lowest AND v_highest ORDER BY m.seq OFFSET 0
		) rendered WINDOW by_place AS (ORDER BY CASE WHEN p_newest THEN -seq ELSE seq END)
	) counted
	WHERE bytes <= p_bytes OR place = 1;
	items := coalesce(items, '');
	more := coalesce(more, false);
END $$;
COMMENT ON FUNCTION chat_api.entries IS 'Of a range of a log the oldest or the newest entries, oldest first, with commas between them: at most so many, and so many '
	'bytes unless one is longer; and whether the range has more of them.';

-- What a conversation is called by: reactions, edits and deletions are about something else. Of a log that ends in more than 50 of
-- them nothing is shown.
CREATE FUNCTION chat_api.last_message(p_conversation bigint, p_first bigint, p_last bigint, p_user bigint) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
	m chat.messages;
	item jsonb;
BEGIN
	SELECT * INTO m FROM (SELECT * FROM chat.messages WHERE conversation_id = p_conversation AND seq BETWEEN greatest(p_first, p_last - 49) AND p_last
		ORDER BY seq DESC LIMIT 50) tail
	WHERE type NOT IN ('reaction', 'edit', 'delete') ORDER BY seq DESC LIMIT 1;
	IF NOT FOUND THEN
		RETURN NULL;
	END IF;
	item := chat_api.entry(m, chat_api.states(p_conversation, m.seq, m.seq, p_last, p_user) -> m.seq::text, m.seq)::jsonb
		- '{meta,attachments,mentions,reactions}'::text[];
	RETURN item || CASE WHEN char_length(item ->> 'body') > 200 THEN jsonb_build_object('body', left(item ->> 'body', 200), 'cut', true) ELSE '{}' END;
END $$;
COMMENT ON FUNCTION chat_api.last_message IS 'The newest message for a list of conversations, its body cut after 200 characters.';

CREATE FUNCTION chat_api.progress_json(c chat.conversations, p chat.conversation_participants) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
	w chat.participant_watermarks;
BEGIN
	SELECT * INTO w FROM chat.participant_watermarks WHERE conversation_id = c.id AND user_id = p.user_id;
	RETURN jsonb_strip_nulls(jsonb_build_object('id', c.id, 'first_seq', chat_api.first_visible(c, p), 'last_seq', c.last_seq,
		'role', p.role, 'muted_until', CASE WHEN p.muted_until > now() THEN chat_api.ms(p.muted_until) END, 'blocked', c.blocked OR NULL,
		'unread', c.last_ordinal - w.read_ordinal, 'read', w.read_seq, 'delivered', w.delivered_seq));
END $$;
COMMENT ON FUNCTION chat_api.progress_json IS 'How far a conversation is, and this member in it; p is NULL for a reader of a public channel.';

CREATE FUNCTION chat_api.conversation_json(c chat.conversations, p chat.conversation_participants) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
	RETURN chat_api.progress_json(c, p) || jsonb_strip_nulls(jsonb_build_object('type', c.type, 'name', c.name, 'picture', c.picture,
		'public', CASE c.type WHEN 'channel' THEN c.is_public END, 'shows_history', CASE WHEN c.type <> 'direct' THEN c.shows_history END,
		'created_at', chat_api.ms(c.created_at), 'joined_at', chat_api.ms(p.joined_at),
		'peer', CASE WHEN p.user_id IS NOT NULL AND c.type = 'direct' THEN (SELECT chat_api.profile(u) FROM chat.users u
			WHERE id = CASE p.user_id WHEN c.first_user_id THEN c.second_user_id ELSE c.first_user_id END) END,
		'last_message', chat_api.last_message(c.id, chat_api.first_visible(c, p), c.last_seq, p.user_id)));
END $$;
COMMENT ON FUNCTION chat_api.conversation_json IS 'A conversation as this member sees it; p is NULL for a reader of a public channel.';

-- -- conversations -----------------------------------------------------------------------------------------------------

CREATE FUNCTION chat_api.conversation_get(caller chat_api.caller, params jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	seen record;
BEGIN
	PERFORM chat_api.expect(params, 'conversation');
	seen := chat_api.look(caller, chat_api.param_id(params, 'conversation'));
	RETURN jsonb_build_object('conversation', chat_api.conversation_json(seen.c, seen.p));
END $$;

CREATE FUNCTION chat_api.conversation_list(caller chat_api.caller, params jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
	v_after bigint;
	v_limit integer;
BEGIN
	PERFORM chat_api.expect(params, 'after', 'limit');
	v_after := chat_api.param_integer(params, 'after', 0, 9007199254740991, 0);
	v_limit := chat_api.param_integer(params, 'limit', 1, 200, 50);
	RETURN chat_api.page('conversations', ARRAY(
		SELECT chat_api.conversation_json(c, p)
		FROM (SELECT * FROM chat.conversation_participants
			WHERE (user_id, conversation_id) > (caller.user_id, v_after) AND (user_id, conversation_id) < (caller.user_id + 1, 0)
			ORDER BY user_id, conversation_id LIMIT v_limit + 1) p
		CROSS JOIN LATERAL (SELECT * FROM chat.conversations WHERE id = p.conversation_id OFFSET 0) c
		ORDER BY p.conversation_id), v_limit);
END $$;

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

-- What everybody sees of a change is an entry of the log, but for who reads a channel: there can be any number of them.
CREATE FUNCTION chat_api.conversation_create(caller chat_api.caller, params jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
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

CREATE FUNCTION chat_api.conversation_update(caller chat_api.caller, params jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	v_id CONSTANT bigint := chat_api.param_id(params, 'conversation');
	held record;
	changed jsonb;
BEGIN
	PERFORM chat_api.expect(params, 'conversation', 'name', 'picture', 'shows_history', 'public');
	held := chat_api.lock_members(caller, v_id, '{}');
	PERFORM chat_api.need_role(held.p, CASE WHEN params ?| '{shows_history,public}' THEN 'owner' ELSE 'admin' END::chat.participant_role);
	IF params ? 'public' AND (held.c).type <> 'channel' THEN
		PERFORM chat_api.refuse('invalid_field', 'only a channel can be public', 'public');
	END IF;
	UPDATE chat.conversations SET
		name = CASE WHEN chat_api.param_null(params, 'name') THEN NULL ELSE coalesce(chat_api.param_line(params, 'name', 1, 200), name) END,
		picture = CASE WHEN chat_api.param_null(params, 'picture') THEN NULL ELSE coalesce(chat_api.param_line(params, 'picture', 1, 2000), picture) END,
		shows_history = chat_api.param_boolean(params, 'shows_history', shows_history)
	WHERE id = v_id;
	IF chat_api.param_boolean(params, 'public', (held.c).is_public) <> (held.c).is_public THEN
		UPDATE chat.conversations SET is_public = NOT is_public WHERE id = v_id;
	END IF;
	changed := params - '{conversation,request_id}'::text[];
	IF changed <> '{}' THEN
		PERFORM chat_api.log_event(v_id, 'updated', caller, changed);
	END IF;
	held := chat_api.look(caller, v_id);
	RETURN jsonb_build_object('conversation', chat_api.conversation_json(held.c, held.p));
END $$;

CREATE FUNCTION chat_api.conversation_members(caller chat_api.caller, params jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
	v_id CONSTANT bigint := chat_api.param_id(params, 'conversation');
	v_after bigint;
	v_limit integer;
	seen record;
BEGIN
	PERFORM chat_api.expect(params, 'conversation', 'after', 'limit');
	v_after := chat_api.param_integer(params, 'after', 0, 9007199254740991, 0);
	v_limit := chat_api.param_integer(params, 'limit', 1, 200, 50);
	seen := chat_api.look_as_member(caller, v_id);
	IF (seen.c).type = 'channel' THEN
		PERFORM chat_api.need_role(seen.p, 'admin'); -- who reads what is nobody's business
	END IF;
	RETURN chat_api.page('members', ARRAY(
		SELECT chat_api.profile(u) || jsonb_build_object('role', p.role, 'joined_at', chat_api.ms(p.joined_at))
		FROM (SELECT * FROM chat.conversation_participants
			WHERE (conversation_id, user_id) > (v_id, v_after) AND (conversation_id, user_id) < (v_id + 1, 0)
			ORDER BY conversation_id, user_id LIMIT v_limit + 1) p
		CROSS JOIN LATERAL (SELECT * FROM chat.users WHERE id = p.user_id OFFSET 0) u
		ORDER BY p.user_id), v_limit);
END $$;

CREATE FUNCTION chat_api.conversation_join(caller chat_api.caller, params jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	v_id CONSTANT bigint := chat_api.param_id(params, 'conversation');
	seen record;
BEGIN
	PERFORM chat_api.expect(params, 'conversation');
	PERFORM chat_api.look(caller, v_id);
	PERFORM FROM chat.conversations WHERE id = v_id FOR NO KEY UPDATE;
	seen := chat_api.look(caller, v_id); -- it may have ceased to be public
	IF (seen.p).user_id IS NULL THEN
		PERFORM chat_api.check_quota(ARRAY[caller.user_id]);
		INSERT INTO chat.conversation_participants (conversation_id, user_id, role) VALUES (v_id, caller.user_id, 'reader');
		seen := chat_api.look(caller, v_id);
	END IF;
	RETURN jsonb_build_object('conversation', chat_api.conversation_json(seen.c, seen.p));
END $$;

CREATE FUNCTION chat_api.conversation_leave(caller chat_api.caller, params jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
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

CREATE FUNCTION chat_api.conversation_add_members(caller chat_api.caller, params jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	v_id CONSTANT bigint := chat_api.param_id(params, 'conversation');
	v_members bigint[];
	v_role chat.participant_role;
	v_added bigint[];
	held record;
BEGIN
	PERFORM chat_api.expect(params, 'conversation', 'members', 'role'), chat_api.require(params, 'members');
	v_members := chat_api.param_ids(params, 'members', 100);
	held := chat_api.lock_members(caller, v_id, '{}');
	v_role := coalesce(chat_api.param_choice(params, 'role', 'reader', 'member', 'admin'), CASE (held.c).type WHEN 'channel' THEN 'reader' ELSE 'member' END);
	PERFORM chat_api.need_role(held.p, CASE v_role WHEN 'admin' THEN 'owner' ELSE 'admin' END::chat.participant_role);
	v_members := ARRAY(SELECT member FROM unnest(v_members) AS member WHERE NOT EXISTS (
		SELECT FROM chat.conversation_participants WHERE conversation_id = v_id AND user_id = member) ORDER BY member);
	PERFORM chat_api.check_invited(caller, v_members, 'members');
	IF (held.c).type = 'group' AND cardinality(v_members) > 0
		AND (SELECT count(*) FROM chat.conversation_participants WHERE conversation_id = v_id) + cardinality(v_members) > chat_api.group_max_members() THEN
		PERFORM chat_api.refuse('quota_exceeded', format('a group has at most %s members', chat_api.group_max_members()), 'members');
	END IF;
	WITH added AS (
		INSERT INTO chat.conversation_participants (conversation_id, user_id, role) SELECT v_id, member, v_role FROM unnest(v_members) AS member
		ON CONFLICT DO NOTHING RETURNING user_id
	)
	SELECT coalesce(array_agg(user_id ORDER BY user_id), '{}') INTO v_added FROM added;
	IF (held.c).type = 'group' AND cardinality(v_added) > 0 THEN
		PERFORM chat_api.log_event(v_id, 'added', caller, jsonb_build_object('users', v_added));
	END IF;
	held := chat_api.look(caller, v_id);
	RETURN jsonb_build_object('conversation', chat_api.conversation_json(held.c, held.p), 'added', v_added);
END $$;

CREATE FUNCTION chat_api.conversation_remove_members(caller chat_api.caller, params jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	v_id CONSTANT bigint := chat_api.param_id(params, 'conversation');
	v_members bigint[];
	v_removed bigint[];
	held record;
BEGIN
	PERFORM chat_api.expect(params, 'conversation', 'members'), chat_api.require(params, 'members');
	v_members := chat_api.param_ids(params, 'members', 100);
	held := chat_api.lock_members(caller, v_id, v_members);
	PERFORM chat_api.need_role(held.p, 'admin');
	IF caller.user_id = ANY (v_members) THEN
		PERFORM chat_api.refuse('invalid_field', 'to go oneself is conversation.leave', 'members');
	ELSIF (held.p).role <> 'owner' AND EXISTS (SELECT FROM chat.conversation_participants
		WHERE conversation_id = v_id AND user_id = ANY (v_members) AND role >= 'admin') THEN
		PERFORM chat_api.refuse('forbidden', 'only an owner removes admins and owners', 'members');
	END IF;
	WITH removed AS (
		DELETE FROM chat.conversation_participants WHERE conversation_id = v_id AND user_id = ANY (v_members) RETURNING user_id
	)
	SELECT coalesce(array_agg(user_id ORDER BY user_id), '{}') INTO v_removed FROM removed;
	IF (held.c).type = 'group' AND cardinality(v_removed) > 0 THEN
		PERFORM chat_api.log_event(v_id, 'removed', caller, jsonb_build_object('users', v_removed));
	END IF;
	held := chat_api.look(caller, v_id);
	RETURN jsonb_build_object('conversation', chat_api.conversation_json(held.c, held.p), 'removed', v_removed);
END $$;

CREATE FUNCTION chat_api.conversation_set_role(caller chat_api.caller, params jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	v_id CONSTANT bigint := chat_api.param_id(params, 'conversation');
	v_user CONSTANT bigint := chat_api.param_id(params, 'user');
	v_role chat.participant_role;
	v_before chat.participant_role;
	held record;
BEGIN
	PERFORM chat_api.expect(params, 'conversation', 'user', 'role'), chat_api.require(params, 'role');
	v_role := chat_api.param_choice(params, 'role', 'reader', 'member', 'admin', 'owner');
	held := chat_api.lock_members(caller, v_id, ARRAY[v_user]);
	PERFORM chat_api.need_role(held.p, 'admin');
	SELECT role INTO v_before FROM chat.conversation_participants WHERE conversation_id = v_id AND user_id = v_user;
	IF NOT FOUND THEN
		PERFORM chat_api.refuse('not_found', 'there is no such member', 'user');
	ELSIF (held.p).role <> 'owner' AND 'admin' <= greatest(v_role, v_before) THEN
		PERFORM chat_api.refuse('forbidden', 'only an owner makes and unmakes admins and owners');
	ELSIF v_before = 'owner' AND v_role <> 'owner' AND NOT EXISTS (SELECT FROM chat.conversation_participants
		WHERE conversation_id = v_id AND role = 'owner' AND user_id <> v_user) THEN
		PERFORM chat_api.refuse('forbidden', 'there is no other owner', 'role');
	END IF;
	IF v_role <> v_before THEN
		UPDATE chat.conversation_participants SET role = v_role WHERE conversation_id = v_id AND user_id = v_user;
		PERFORM chat_api.log_event(v_id, 'role', caller, jsonb_build_object('users', ARRAY[v_user], 'role', v_role));
	END IF;
	held := chat_api.look(caller, v_id);
	RETURN jsonb_build_object('conversation', chat_api.conversation_json(held.c, held.p));
END $$;

CREATE FUNCTION chat_api.conversation_mute(caller chat_api.caller, params jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	v_id CONSTANT bigint := chat_api.param_id(params, 'conversation');
	v_until bigint;
	seen record;
BEGIN
	PERFORM chat_api.expect(params, 'conversation', 'muted_until'), chat_api.require(params, 'muted_until');
	IF NOT chat_api.param_null(params, 'muted_until') THEN
		v_until := chat_api.param_integer(params, 'muted_until', 0, 253402300799999, NULL); -- the year 9999
	END IF;
	seen := chat_api.look_as_member(caller, v_id);
	UPDATE chat.conversation_participants SET muted_until = CASE v_until WHEN 0 THEN 'infinity' ELSE to_timestamp(v_until / 1000.0) END
	WHERE conversation_id = v_id AND user_id = caller.user_id;
	seen := chat_api.look_as_member(caller, v_id);
	RETURN jsonb_build_object('conversation', chat_api.conversation_json(seen.c, seen.p));
END $$;

-- -- reading logs ------------------------------------------------------------------------------------------------------

CREATE FUNCTION chat_api.message_history(caller chat_api.caller, params jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
	v_after bigint;
	v_before bigint;
	v_limit integer;
	v_first bigint;
	c chat.conversations;
	seen record;
	page record;
BEGIN
	PERFORM chat_api.expect(params, 'conversation', 'before', 'after', 'limit');
	v_after := chat_api.param_integer(params, 'after', 0, 9007199254740991, NULL);
	v_before := chat_api.param_integer(params, 'before', 1, 9007199254740991, NULL);
	v_limit := chat_api.param_integer(params, 'limit', 1, 200, 50);
	IF v_after IS NOT NULL AND v_before IS NOT NULL THEN
		PERFORM chat_api.refuse('invalid_field', 'before and after exclude each other', 'before');
	END IF;
	seen := chat_api.look(caller, chat_api.param_id(params, 'conversation'));
	c := seen.c;
	v_first := chat_api.first_visible(c, seen.p);
	page := chat_api.entries(c.id, greatest(v_first, v_after + 1), least(c.last_seq, v_before - 1), v_limit, v_after IS NULL,
		chat_api.answer_bytes(), c.last_seq, caller.user_id);
	RETURN format('{"messages":[%s],"more":%s,"first_seq":%s,"last_seq":%s}', page.items, to_json(page.more), v_first, c.last_seq);
END $$;

-- What lacks least comes first, so that most conversations are up to date at once. While others wait, none takes more than its
-- share of the answer: a page serves at least 50 of them, unless their entries are long.
CREATE FUNCTION chat_api.message_sync(caller chat_api.caller, params jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
	k_sharers CONSTANT integer := 50;
	v_cursors CONSTANT jsonb := params -> 'cursors';
	v_limit integer;
	v_share integer;
	v_head text; -- of a conversation, and then all of it
	v_items text := '';
	v_more boolean := false;
	v_known bigint[];
	conversation chat.conversations;
	lack record;
	page record;
BEGIN
	PERFORM chat_api.expect(params, 'cursors', 'limit'), chat_api.require(params, 'cursors');
	v_limit := chat_api.param_integer(params, 'limit', 1, 200, 50);
	IF jsonb_typeof(v_cursors) <> 'object' THEN
		PERFORM chat_api.refuse('invalid_field', 'cursors is an object: {"conversation": newest number held}', 'cursors');
	ELSIF (SELECT count(*) FROM jsonb_object_keys(v_cursors)) > chat_api.conversations_max() THEN
		PERFORM chat_api.refuse('too_long', format('cursors has at most %s members', chat_api.conversations_max()), 'cursors');
	ELSIF EXISTS (SELECT FROM jsonb_each(v_cursors) AS held (id, seq) WHERE CASE
			WHEN id !~ '^[1-9][0-9]{0,15}$' OR jsonb_typeof(seq) <> 'number' THEN true
			ELSE seq::numeric NOT BETWEEN 0 AND 9007199254740991 OR seq::numeric <> trunc(seq::numeric) END) THEN
		PERFORM chat_api.refuse('invalid_field', 'cursors is an object: {"conversation": newest number held}', 'cursors');
	END IF;
	v_known := ARRAY(SELECT jsonb_object_keys(v_cursors)::bigint);
	FOR lack IN
		SELECT seen.c, seen.p, held, first_visible, count(*) OVER () AS count
		FROM (SELECT conversation_id AS id FROM chat.conversation_participants WHERE user_id = caller.user_id UNION SELECT unnest(v_known)) wanted
		CROSS JOIN LATERAL (SELECT (v_cursors ->> wanted.id::text)::numeric::bigint AS held OFFSET 0) known
		CROSS JOIN LATERAL (SELECT c::chat.conversations, p::chat.conversation_participants, chat_api.first_visible(c, p) AS first_visible
			FROM (SELECT * FROM chat.conversations WHERE id = wanted.id OFFSET 0) c
			LEFT JOIN LATERAL (SELECT * FROM chat.conversation_participants
				WHERE conversation_id = wanted.id AND user_id = caller.user_id OFFSET 0) p ON true
			WHERE p.user_id IS NOT NULL OR c.is_public OFFSET 0) seen
		WHERE held IS NULL OR (seen.c).last_seq > greatest(held, first_visible - 1)
		ORDER BY CASE WHEN held IS NULL THEN least((seen.c).last_seq - first_visible + 1, v_limit)
			ELSE (seen.c).last_seq - greatest(held, first_visible - 1) END, wanted.id
	LOOP
		conversation := lack.c;
		v_share := chat_api.answer_bytes() / least(lack.count, k_sharers);
		v_head := CASE WHEN lack.held IS NULL THEN chat_api.conversation_json(lack.c, lack.p) - 'last_message' || '{"new":true}'
			ELSE chat_api.progress_json(lack.c, lack.p) END;
		page := chat_api.entries(conversation.id, greatest(lack.first_visible, lack.held + 1), conversation.last_seq, v_limit, lack.held IS NULL,
			v_share - octet_length(v_head) - 30, conversation.last_seq, caller.user_id);
		v_head := left(v_head, -1) || format(',"messages":[%s],"more":%s}', page.items, to_json(page.more));
		IF v_items <> '' AND octet_length(v_items) + octet_length(v_head) + 1 > chat_api.answer_bytes() THEN
			v_more := true;
			EXIT;
		END IF;
		v_items := v_items || CASE WHEN v_items <> '' THEN ',' ELSE '' END || v_head;
	END LOOP;
	RETURN format('{"conversations":[%s],"more":%s,"gone":%s}', v_items, to_json(v_more), to_json(ARRAY(
		SELECT known.id FROM unnest(v_known) AS known (id)
		LEFT JOIN LATERAL (SELECT is_public FROM chat.conversations WHERE id = known.id OFFSET 0) c ON true
		LEFT JOIN LATERAL (SELECT user_id FROM chat.conversation_participants
			WHERE conversation_id = known.id AND user_id = caller.user_id OFFSET 0) p ON true
		WHERE p.user_id IS NULL AND c.is_public IS NOT TRUE ORDER BY known.id)));
END $$;

-- The sender of a message learns its fate by its id even when they are no member any more: it is their own.
CREATE FUNCTION chat_api.message_status(caller chat_api.caller, params jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	v_conversation CONSTANT bigint := chat_api.param_id(params, 'conversation');
	v_seq CONSTANT bigint := chat_api.param_integer(params, 'seq', 1, 9007199254740991, NULL);
	v_after bigint;
	v_limit integer;
	m chat.messages;
	c chat.conversations;
	p chat.conversation_participants;
	refused chat.refusals;
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
	IF m.seq IS NULL THEN
		PERFORM chat_api.look(caller, v_conversation);
		PERFORM chat_api.refuse('not_found', 'there is no such message');
	END IF;
	v_result := jsonb_strip_nulls(jsonb_build_object('seq', m.seq, 'id', m.client_id, 'from', m.sender_id, 'sent_at', chat_api.ms(m.sent_at),
		'status', 'sent'));
	IF c.type = 'channel' OR p.user_id IS NULL THEN
		RETURN v_result; -- channels have no receipts
	END IF;
	RETURN v_result || chat_api.page('members', ARRAY(
		SELECT jsonb_strip_nulls(jsonb_build_object('user', w.user_id,
			'status', CASE WHEN w.read_seq >= m.seq THEN 'read' WHEN w.delivered_seq >= m.seq THEN 'delivered' ELSE 'sent' END,
			'delivered_at', CASE WHEN w.delivered_seq >= m.seq THEN chat_api.ms(w.delivered_at) END,
			'read_at', CASE WHEN w.read_seq >= m.seq THEN chat_api.ms(w.read_at) END))
		FROM (SELECT * FROM chat.conversation_participants
			WHERE (conversation_id, user_id) > (m.conversation_id, v_after) AND (conversation_id, user_id) < (m.conversation_id + 1, 0)
				AND user_id IS DISTINCT FROM m.sender_id AND joined_seq < m.seq
			ORDER BY conversation_id, user_id LIMIT v_limit + 1) member
		CROSS JOIN LATERAL (SELECT * FROM chat.participant_watermarks
			WHERE conversation_id = member.conversation_id AND user_id = member.user_id OFFSET 0) w
		ORDER BY member.user_id), v_limit)::jsonb;
END $$;

-- -- search ------------------------------------------------------------------------------------------------------------
--
-- The index is a table of its own, which chat.index_messages fills behind the commits: appending a message writes nothing there.
-- Numbers in a log have no gaps and appear in order, so one number per conversation says how far the index is.
--
-- The configuration is "simple": no stemming and no stop words, since conversations mix languages. Text is brought to NFKC first (full
-- and half width, ligatures) and its case is folded; accents stay. Scripts that put no spaces between words (Han, Kana, Hangul, Thai,
-- Lao, Khmer, Myanmar) are indexed as pairs of neighbours, and asked for as a phrase of such pairs, which finds all that contains it:
-- an index of three neighbours would find no word of two characters, and most Chinese words have two.
-- The lexeme "#42" stands for the conversation: no text makes one that begins so.

CREATE TABLE chat.search_positions (
	conversation_id bigint PRIMARY KEY,
	indexed_seq bigint NOT NULL
);
COMMENT ON TABLE chat.search_positions IS 'How far the log of each conversation is in chat.search_entries.';
COMMENT ON COLUMN chat.search_positions.conversation_id IS 'The conversation.';
COMMENT ON COLUMN chat.search_positions.indexed_seq IS 'Everything up to here is.';

CREATE TABLE chat.search_entries (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	conversation_id bigint NOT NULL,
	seq bigint NOT NULL,
	words tsvector NOT NULL,
	CONSTRAINT search_entries_message_key UNIQUE (conversation_id, seq)
);
CREATE INDEX search_entries_words ON chat.search_entries USING gin (words) WITH (gin_pending_list_limit = 512);
COMMENT ON TABLE chat.search_entries IS 'The words of messages, filled by chat.index_messages. What is erased in chat.messages leaves it at once, what is edited or '
	'deleted by an entry of the log, when that entry is indexed.';
COMMENT ON COLUMN chat.search_entries.id IS 'The order in which they were indexed, roughly that of time: results come newest first.';
COMMENT ON COLUMN chat.search_entries.conversation_id IS 'The conversation.';
COMMENT ON COLUMN chat.search_entries.seq IS 'The message.';
COMMENT ON COLUMN chat.search_entries.words IS 'Its words, and "#" with the number of the conversation.';

CREATE FUNCTION chat.spaceless() RETURNS text LANGUAGE sql IMMUTABLE AS $$
	SELECT U&'[\0E01-\0EFF\1000-\109F\1100-\11FF\1780-\17FF\2E80-\2FDF\3005-\3007\3021-\3029\3040-\30FA\30FC-\30FF\31F0-\31FF\3400-\4DBF'
		'\4E00-\9FFF\A960-\A97F\AC00-\D7FF\F900-\FAFF\+020000-\+03FFFF]'
$$;
COMMENT ON FUNCTION chat.spaceless IS 'A character of a script that puts no spaces between words, as a regular expression.';

CREATE FUNCTION chat.pair_up(line text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	IF line !~ chat.spaceless() THEN
		RETURN line;
	END IF;
	RETURN (SELECT string_agg(CASE WHEN NOT alone THEN c WHEN next_alone THEN ' ' || c || next ELSE ' ' || c || ' ' END, '' ORDER BY n)
		FROM (SELECT n, c, alone, lead(c) OVER text_order AS next, lead(alone) OVER text_order AS next_alone
			FROM (SELECT n, c, c ~ chat.spaceless() AS alone FROM string_to_table(line, NULL) WITH ORDINALITY AS s (c, n)) judged
			WINDOW text_order AS (ORDER BY n)) paired);
END $$;
COMMENT ON FUNCTION chat.pair_up IS 'A text whose runs of scripts without spaces have become pairs of neighbours, and the last character of each run.';

-- The words of 100,000 characters that NFKC makes 1,800,000 of took ten seconds: a message is found by its beginning, and a call ends
-- with the entry that made it enough.
CREATE FUNCTION chat.searched_text(body text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
	SELECT left(normalize(left(body, 10000), NFKC), 10000)
$$;
COMMENT ON FUNCTION chat.searched_text IS 'What of a message is searched: the first 10,000 characters, in the form in which it is.';

CREATE FUNCTION chat.search_words(p_conversation bigint, body text) RETURNS tsvector LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	RETURN to_tsvector('simple', chat.pair_up(chat.searched_text(body))) || array_to_tsvector(ARRAY['#' || p_conversation]);
END $$;
COMMENT ON FUNCTION chat.search_words IS 'What a message is found by.';

-- The one look at whole tables: a fifth of a second for 200,000 conversations.
CREATE FUNCTION chat.unindexed_conversations() RETURNS bigint[] LANGUAGE plpgsql STABLE
SET enable_seqscan = on SET enable_hashjoin = on SET plan_cache_mode = force_custom_plan AS $$
BEGIN
	RETURN ARRAY(SELECT c.id FROM chat.conversations c LEFT JOIN chat.search_positions s ON s.conversation_id = c.id
		WHERE c.last_seq > coalesce(s.indexed_seq, 0) LIMIT 1000);
END $$;
COMMENT ON FUNCTION chat.unindexed_conversations IS 'Up to 1,000 conversations whose newest entries are not in the search index.';

CREATE FUNCTION chat.index_messages(p_conversations bigint[], p_limit integer) RETURNS integer
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

CREATE FUNCTION chat.search_forget() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
BEGIN
	-- The lock keeps the indexer from what is being removed, and waits for one that has just read it.
	INSERT INTO chat.search_positions (conversation_id, indexed_seq)
	SELECT DISTINCT conversation_id, 0 FROM before ORDER BY conversation_id ON CONFLICT DO NOTHING;
	PERFORM FROM chat.search_positions WHERE conversation_id IN (SELECT conversation_id FROM before) ORDER BY conversation_id FOR UPDATE;
	IF TG_OP = 'DELETE' THEN
		DELETE FROM chat.search_entries e USING before WHERE e.conversation_id = before.conversation_id AND e.seq = before.seq;
	ELSE
		DELETE FROM chat.search_entries e USING before JOIN now USING (conversation_id, seq)
		WHERE e.conversation_id = before.conversation_id AND e.seq = before.seq AND (before.body, before.type) IS DISTINCT FROM (now.body, now.type);
	END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER search_erased AFTER UPDATE ON chat.messages
	REFERENCING OLD TABLE AS before NEW TABLE AS now FOR EACH STATEMENT EXECUTE FUNCTION chat.search_forget();
CREATE TRIGGER search_deleted AFTER DELETE ON chat.messages
	REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION chat.search_forget();

CREATE FUNCTION chat.search_forget_conversation() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	DELETE FROM chat.search_positions WHERE conversation_id = OLD.id;
	RETURN NULL;
END $$;
CREATE TRIGGER search_conversation_removed AFTER DELETE ON chat.conversations
	FOR EACH ROW EXECUTE FUNCTION chat.search_forget_conversation();

CREATE FUNCTION chat_api.search_query(query text, OUT words tsquery, OUT runs text[], OUT whole tsquery) LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
	run text;
BEGIN
	query := normalize(query, NFKC);
	words := plainto_tsquery('simple', regexp_replace(query, chat.spaceless() || '+', ' ', 'g'));
	runs := ARRAY(SELECT match[1] FROM regexp_matches(query, chat.spaceless() || '+', 'g') AS match);
	whole := words;
	FOREACH run IN ARRAY runs LOOP
		whole := whole && CASE char_length(run) WHEN 1 THEN (quote_literal(run) || ':*')::tsquery
			-- The last character alone, which pair_up adds, would demand that the run ends there.
			ELSE phraseto_tsquery('simple', regexp_replace(chat.pair_up(run), ' . $', '')) END;
	END LOOP;
END $$;
COMMENT ON FUNCTION chat_api.search_query IS 'A query''s words, its runs of scripts without spaces, and both as one condition: all of them.';

-- The parts of a text around what was found: [{"text":"see you "},{"text":"tomorrow","match":true}]. Marks inside a text would
-- be a way to smuggle markup into clients. U+E000 and U+E001 are for private use, and are removed from the text before.
CREATE FUNCTION chat_api.highlight(body text, words tsquery, runs text[], needles text[]) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
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
COMMENT ON FUNCTION chat_api.highlight IS 'What is around the first place where something was found, in parts.';

-- Other indexes would read whole conversations for a rare word: only an index of words answers with a bitmap alone.
CREATE FUNCTION chat_api.search_matches(p_query tsquery, p_before bigint) RETURNS TABLE (id bigint, conversation_id bigint, seq bigint)
LANGUAGE plpgsql STABLE SET enable_indexscan = off SET enable_indexonlyscan = off AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY SELECT e.id, e.conversation_id, e.seq FROM chat.search_entries e WHERE e.words @@ p_query AND e.id + 0 < p_before;
END $$;
COMMENT ON FUNCTION chat_api.search_matches IS 'The entries that match, below a number; in no order.';

CREATE FUNCTION chat_api.message_search(caller chat_api.caller, params jsonb) RETURNS jsonb LANGUAGE plpgsql
SET client_min_messages = warning SET enable_hashjoin = on AS $$
DECLARE
	v_query text;
	v_before bigint;
	v_limit integer;
	v_conversation bigint; -- the one that is searched; NULL: all of the caller's
	v_first bigint;
	v_mine tsquery;
	v_needles text[];
	v_items jsonb[] := '{}';
	v_seen integer := 0;
	v_last bigint;
	q record;
	hit record;
	seen record;
BEGIN
	PERFORM chat_api.expect(params, 'query', 'conversation', 'before', 'limit'), chat_api.require(params, 'query');
	v_query := chat_api.param_line(params, 'query', 1, 200);
	v_before := chat_api.param_integer(params, 'before', 1, 9007199254740991, 9007199254740991);
	v_limit := chat_api.param_integer(params, 'limit', 1, 50, 20);
	IF params ? 'conversation' THEN
		seen := chat_api.look(caller, chat_api.param_id(params, 'conversation'));
		v_conversation := (seen.c).id;
		v_first := chat_api.first_visible(seen.c, seen.p);
		v_mine := quote_literal('#' || v_conversation);
	ELSE
		SELECT string_agg(quote_literal('#' || conversation_id), '|') INTO v_mine FROM chat.conversation_participants WHERE user_id = caller.user_id;
	END IF;
	q := chat_api.search_query(v_query);
	IF numnode(q.whole) = 0 THEN
		PERFORM chat_api.refuse('invalid_field', 'query has no word to look for', 'query');
	END IF;
	v_needles := q.runs || regexp_split_to_array(normalize(v_query, NFKC), '[[:space:]]+');
	FOR hit IN
		WITH mine AS MATERIALIZED (
			SELECT c.id, chat_api.first_visible(c, p) AS first_visible
			FROM (SELECT * FROM chat.conversation_participants WHERE user_id = caller.user_id AND NOT params ? 'conversation') p
			CROSS JOIN LATERAL (SELECT * FROM chat.conversations WHERE id = p.conversation_id OFFSET 0) c
			UNION ALL
			SELECT v_conversation, v_first WHERE v_conversation IS NOT NULL
		), hits AS MATERIALIZED (
			SELECT e.id, e.conversation_id, e.seq FROM chat_api.search_matches(v_mine && q.whole, v_before) e JOIN mine ON mine.id = e.conversation_id
			WHERE e.seq >= mine.first_visible
			ORDER BY e.id DESC LIMIT v_limit + 1
		)
		SELECT hits.id AS place, m.conversation_id,
			chat_api.entry(m, chat_api.states(m.conversation_id, m.seq, m.seq, 9007199254740991, caller.user_id) -> m.seq::text, m.seq)::jsonb AS entry
		FROM hits
		CROSS JOIN LATERAL (SELECT * FROM chat.messages WHERE conversation_id = hits.conversation_id AND seq BETWEEN hits.seq AND hits.seq ORDER BY seq OFFSET 0) m
		ORDER BY hits.id DESC
	LOOP
		v_seen := v_seen + 1;
		EXIT WHEN v_seen > v_limit;
		v_last := hit.place;
		IF hit.entry ? 'body' THEN -- it may have been deleted, or have expired, a moment ago
			v_items := v_items || (hit.entry - '{body,attachments,mentions,meta,reactions}'::text[] || jsonb_build_object(
				'conversation', hit.conversation_id, 'highlight', chat_api.highlight(hit.entry ->> 'body', q.words, q.runs, v_needles)));
		END IF;
	END LOOP;
	RETURN jsonb_strip_nulls(jsonb_build_object('hits', to_jsonb(v_items), 'more', v_seen > v_limit, 'before', v_last));
END $$;

-- -- what there is -----------------------------------------------------------------------------------------------------

INSERT INTO chat_api.methods (name, function_name, cost) VALUES
	('conversation.create', 'conversation_create', 10),
	('conversation.update', 'conversation_update', 2),
	('conversation.members', 'conversation_members', 1),
	('conversation.join', 'conversation_join', 5),
	('conversation.leave', 'conversation_leave', 2),
	('conversation.add_members', 'conversation_add_members', 5),
	('conversation.remove_members', 'conversation_remove_members', 5),
	('conversation.set_role', 'conversation_set_role', 2),
	('conversation.mute', 'conversation_mute', 1),
	('conversation.get', 'conversation_get', 1),
	('conversation.list', 'conversation_list', 2),
	('message.history', 'message_history', 1),
	('message.sync', 'message_sync', 2),
	('message.status', 'message_status', 1),
	('message.search', 'message_search', 10);

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA chat, chat_api FROM PUBLIC;
GRANT EXECUTE ON FUNCTION chat.index_messages TO chat_plugin;
GRANT SELECT ON chat.message_acts TO chat_admin;
