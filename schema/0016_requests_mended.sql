-- Requests, mended: what a user hands over in a day is counted; logs that everybody has left go in pieces; `request_id` is the frame's
-- alone; a verifier of few iterations is made anew when its password was right.

-- -- parameters and answers --------------------------------------------------------------------------------------------

-- chat_api.call takes it out, so that no object inside the parameters may have one either.
CREATE OR REPLACE FUNCTION chat_api.expect(params jsonb, VARIADIC known text[] DEFAULT '{}') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF params - known <> '{}' THEN
		PERFORM chat_api.refuse('invalid_field', 'there is no such parameter', left((SELECT key FROM jsonb_object_keys(params - known) AS key LIMIT 1), 100));
	END IF;
END $$;

CREATE OR REPLACE FUNCTION chat_api.call(p_method text, p_user bigint, p_device bigint, p_client_id text, p_params jsonb) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET jit = off AS $$
DECLARE
	k_attempts CONSTANT integer := 3;
	v_caller CONSTANT chat_api.caller := (p_user, coalesce(p_device, 0), p_client_id);
	v_params CONSTANT jsonb := CASE jsonb_typeof(p_params) WHEN 'object' THEN p_params - 'request_id' END; -- it belongs to the answer's frame
	v_function text;
	v_result text;
	v_code text;
	v_message text;
	v_field text;
	v_context text;
BEGIN
	SELECT function_name INTO v_function FROM chat_api.methods WHERE name = p_method AND NOT native;
	IF NOT FOUND THEN
		RETURN chat_api.error('not_found', 'there is no such method');
	ELSIF v_params IS NULL THEN
		RETURN chat_api.error('invalid_field', 'the parameters are a JSON object');
	ELSIF NOT EXISTS (SELECT FROM chat.users WHERE id = p_user AND status = 'active')
		OR p_device <> 0 AND NOT EXISTS (SELECT FROM chat.devices WHERE id = p_device AND user_id = p_user AND revoked_at IS NULL) THEN
		RETURN chat_api.error('unauthenticated', 'the account is suspended or gone, or the device is signed out');
	END IF;
	FOR attempt IN 1 .. k_attempts LOOP
		BEGIN
			-- A statement that is put together is parsed and planned each time. What is asked most is known beforehand.
			CASE v_function
				WHEN 'message_history' THEN v_result := chat_api.message_history(v_caller, v_params);
				WHEN 'message_sync' THEN v_result := chat_api.message_sync(v_caller, v_params);
				WHEN 'message_search' THEN v_result := chat_api.message_search(v_caller, v_params);
				ELSE EXECUTE format('SELECT chat_api.%I($1, $2)::text', v_function) INTO v_result USING v_caller, v_params;
			END CASE;
			RETURN '{"result":' || v_result || '}';
		EXCEPTION
			WHEN SQLSTATE 'CH400' THEN
				GET STACKED DIAGNOSTICS v_code = PG_EXCEPTION_DETAIL, v_message = MESSAGE_TEXT, v_field = COLUMN_NAME;
				RETURN chat_api.error(v_code, v_message, v_field);
			WHEN deadlock_detected OR serialization_failure OR unique_violation THEN
				-- Somebody else was first; our locks are gone with the attempt, and the next one sees what they did.
				CONTINUE;
			WHEN query_canceled THEN
				RETURN chat_api.error('overloaded', 'this took too long', NULL, 1000);
			WHEN insufficient_resources OR read_only_sql_transaction OR lock_not_available THEN
				EXIT;
			WHEN OTHERS THEN
				GET STACKED DIAGNOSTICS v_code = RETURNED_SQLSTATE, v_message = MESSAGE_TEXT, v_context = PG_EXCEPTION_CONTEXT;
				INSERT INTO chat_api.faults (method, user_id, sqlstate, message, context) VALUES (p_method, p_user, v_code, v_message, v_context);
				DELETE FROM chat_api.faults WHERE id <= (SELECT max(id) FROM chat_api.faults) - 1000;
				RETURN chat_api.error('internal', 'a fault in the server; it is on record there');
		END;
	END LOOP;
	RETURN chat_api.error('unavailable', 'the database cannot do this now', NULL, 1000);
END $$;

-- Who waits for a member's row and then for the conversation may find, under its lock, a member who has come meanwhile: a row that was not
-- there to be locked. To wait for that now would be the wrong order, so what was locked is given up and chat_api.call tries again.
CREATE OR REPLACE FUNCTION chat_api.lock_members(caller chat_api.caller, p_conversation bigint, p_users bigint[],
	OUT c chat.conversations, OUT p chat.conversation_participants)
LANGUAGE plpgsql AS $$
DECLARE
	seen record;
BEGIN
	PERFORM chat_api.look_as_member(caller, p_conversation);
	PERFORM FROM chat.conversation_participants WHERE conversation_id = p_conversation AND user_id = ANY (p_users)
		ORDER BY user_id FOR UPDATE;
	PERFORM FROM chat.conversations WHERE id = p_conversation FOR NO KEY UPDATE;
	BEGIN
		PERFORM FROM chat.conversation_participants WHERE conversation_id = p_conversation AND user_id = ANY (p_users) FOR UPDATE NOWAIT;
	EXCEPTION WHEN lock_not_available THEN
		RAISE 'a member of conversation % has just been added and locked', p_conversation USING ERRCODE = 'deadlock_detected';
	END;
	seen := chat_api.look_as_member(caller, p_conversation);
	c := seen.c;
	p := seen.p;
	IF c.type = 'direct' THEN
		PERFORM chat_api.refuse('forbidden', 'a direct conversation is what it is: between two');
	END IF;
END $$;

-- -- what is handed over -----------------------------------------------------------------------------------------------

-- Who makes conversations, names somebody else their owner and leaves has room for the next, and the other one has them all: each
-- counts against what anybody can be in. So this too is counted by the day.
ALTER TABLE chat.creations ADD COLUMN handovers integer NOT NULL DEFAULT 0;
COMMENT ON TABLE chat.creations IS 'How many groups and channels a user has made, and handed over, on the last day on which they did.';
COMMENT ON COLUMN chat.creations.handovers IS 'How many others they have made an owner.';

CREATE FUNCTION chat_api.handovers_max() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 50';
COMMENT ON FUNCTION chat_api.handovers_max IS 'How many times a user may make another an owner in a day.';

CREATE FUNCTION chat_api.count_today(caller chat_api.caller, made integer, handed_over integer) RETURNS chat.creations LANGUAGE plpgsql AS $$
DECLARE
	today CONSTANT date := (now() AT TIME ZONE 'UTC')::date;
	counted chat.creations;
BEGIN
	INSERT INTO chat.creations AS c (user_id, day, conversations, handovers) VALUES (caller.user_id, today, made, handed_over)
	ON CONFLICT (user_id) DO UPDATE SET day = today,
		conversations = excluded.conversations + CASE c.day WHEN today THEN c.conversations ELSE 0 END,
		handovers = excluded.handovers + CASE c.day WHEN today THEN c.handovers ELSE 0 END
	RETURNING * INTO counted;
	RETURN counted;
END $$;
COMMENT ON FUNCTION chat_api.count_today IS 'Adds to what the caller has done today, and returns that.';

CREATE OR REPLACE FUNCTION chat_api.count_creation(caller chat_api.caller) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF (chat_api.count_today(caller, 1, 0)).conversations > chat_api.creations_max() THEN
		PERFORM chat_api.refuse('quota_exceeded', format('nobody makes more than %s groups and channels in a day', chat_api.creations_max()));
	END IF;
END $$;

CREATE FUNCTION chat_api.count_handover(caller chat_api.caller, field text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF (chat_api.count_today(caller, 0, 1)).handovers > chat_api.handovers_max() THEN
		PERFORM chat_api.refuse('quota_exceeded', format('nobody makes others an owner more than %s times in a day', chat_api.handovers_max()), field);
	END IF;
END $$;
COMMENT ON FUNCTION chat_api.count_handover IS 'Refuses where the caller has made others an owner as often today as can be.';

CREATE OR REPLACE FUNCTION chat_api.conversation_set_role(caller chat_api.caller, params jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
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
		IF v_role = 'owner' THEN
			PERFORM chat_api.count_handover(caller, 'role');
		END IF;
		UPDATE chat.conversation_participants SET role = v_role WHERE conversation_id = v_id AND user_id = v_user;
		PERFORM chat_api.log_event(v_id, 'role', caller, jsonb_build_object('users', ARRAY[v_user], 'role', v_role));
	END IF;
	held := chat_api.look(caller, v_id);
	RETURN jsonb_build_object('conversation', chat_api.conversation_json(held.c, held.p));
END $$;

-- -- what everybody has left -------------------------------------------------------------------------------------------

CREATE TABLE chat.abandoned (
	conversation_id bigint PRIMARY KEY REFERENCES chat.conversations ON DELETE CASCADE
);
COMMENT ON TABLE chat.abandoned IS 'Conversations that the last member has left, with a log too long to be removed in that request.';
COMMENT ON COLUMN chat.abandoned.conversation_id IS 'The conversation.';
GRANT SELECT ON chat.abandoned TO chat_admin;

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
		PERFORM chat_api.count_handover(caller, 'owner');
		PERFORM chat_api.log_event(v_id, 'role', caller, jsonb_build_object('users', ARRAY[v_heir], 'role', 'owner'));
	ELSIF (held.p).role = 'owner'
		AND NOT EXISTS (SELECT FROM chat.conversation_participants WHERE conversation_id = v_id AND role = 'owner' AND user_id <> caller.user_id)
		AND EXISTS (SELECT FROM chat.conversation_participants WHERE conversation_id = v_id AND user_id <> caller.user_id) THEN
		PERFORM chat_api.refuse('forbidden', 'the last owner names another before leaving', 'owner');
	END IF;
	DELETE FROM chat.conversation_participants WHERE conversation_id = v_id AND user_id = caller.user_id;
	IF NOT EXISTS (SELECT FROM chat.conversation_participants WHERE conversation_id = v_id) THEN
		DELETE FROM chat.conversations WHERE id = v_id AND last_seq - first_seq < 10000;
		IF NOT FOUND THEN -- it takes longer than a request may: nobody gets in any more, and chat.remove_abandoned does the rest
			UPDATE chat.conversations SET is_public = false WHERE id = v_id AND is_public;
			INSERT INTO chat.abandoned VALUES (v_id) ON CONFLICT DO NOTHING;
		END IF;
	ELSIF (held.c).type = 'group' THEN
		PERFORM chat_api.log_event(v_id, 'left', caller);
	END IF;
	RETURN '{}';
END $$;

CREATE FUNCTION chat.remove_abandoned(p_limit integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET jit = off AS $$
DECLARE
	v_id bigint;
	v_first bigint;
	v_removed integer;
BEGIN
	SELECT conversation_id INTO v_id FROM chat.abandoned ORDER BY conversation_id LIMIT 1 FOR UPDATE SKIP LOCKED;
	IF NOT FOUND THEN
		RETURN 0;
	END IF;
	PERFORM FROM chat.conversations WHERE id = v_id FOR NO KEY UPDATE;
	IF EXISTS (SELECT FROM chat.conversation_participants WHERE conversation_id = v_id) THEN
		DELETE FROM chat.abandoned WHERE conversation_id = v_id; -- an administrator has brought somebody in
		RETURN 1;
	END IF;
	SELECT seq INTO v_first FROM chat.messages WHERE conversation_id = v_id ORDER BY conversation_id, seq LIMIT 1;
	DELETE FROM chat.messages WHERE conversation_id = v_id AND seq BETWEEN v_first AND v_first + p_limit - 1;
	GET DIAGNOSTICS v_removed = ROW_COUNT;
	IF v_removed = 0 THEN
		DELETE FROM chat.conversations WHERE id = v_id;
		RETURN 1;
	END IF;
	UPDATE chat.conversations SET first_seq = v_first + v_removed WHERE id = v_id; -- an administrator may still bring somebody in
	RETURN v_removed;
END $$;
COMMENT ON FUNCTION chat.remove_abandoned IS 'Removes that many entries of a conversation that everybody has left, and with the last of them the conversation; 0: there is none.';

-- -- the inbox -----------------------------------------------------------------------------------------------------------

-- For a broker whose connection was lost: what was announced meanwhile it has not heard. An event gets its number before its transaction is
-- over, so what is missed may have a lower one than what was heard.
CREATE FUNCTION chat.missed_inbox(p_after bigint, p_limit integer) RETURNS TABLE (id bigint, user_id bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence('chat.inbox_events', 'id')::regclass), 0), 0::bigint;
	RETURN QUERY SELECT id, user_id FROM (SELECT id, user_id FROM chat.inbox_events WHERE id > p_after ORDER BY id DESC LIMIT p_limit) newest ORDER BY id;
END $$;
COMMENT ON FUNCTION chat.missed_inbox IS 'The highest number that an inbox event has been given, with user 0; then the events behind a number with their users, the last p_limit of '
	'them, ascending.';

-- -- verifiers ---------------------------------------------------------------------------------------------------------

CREATE FUNCTION chat.upgrade_verifier(p_user bigint, p_old text, p_new text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	UPDATE chat.credentials SET verifier = p_new WHERE user_id = p_user AND verifier = p_old;
	RETURN FOUND;
END $$;
COMMENT ON FUNCTION chat.upgrade_verifier IS 'Keeps the same password as another verifier; false: the password has been changed meanwhile.';

-- Hashing takes its time, and chat.change_verifier signs out the devices that it finds: who was let in by a password that is another one by
-- now is not let in. The account is locked first, as there.
CREATE FUNCTION chat.sign_in_device(p_user bigint, p_verifier text, p_name text, p_type text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM FROM chat.users WHERE id = p_user FOR NO KEY UPDATE;
	PERFORM FROM chat.credentials WHERE user_id = p_user AND verifier = p_verifier FOR SHARE;
	RETURN CASE WHEN FOUND THEN chat.open_device(p_user, p_name, p_type) END;
END $$;
COMMENT ON FUNCTION chat.sign_in_device IS 'A new device of a user whose password has been checked against this verifier; NULL: it has been changed meanwhile, or the '
	'account is suspended or gone.';

-- -- plans --------------------------------------------------------------------------------------------------------------

-- Where a table seems to be empty a join may read it whole, and does so for as long as the connection lives: ids are looked up by an array,
-- or one by one, and never joined.
CREATE OR REPLACE FUNCTION chat.participants_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	UPDATE chat.conversations SET members_version = members_version + 1
	WHERE id = ANY (ARRAY(SELECT conversation_id FROM changed)) AND NOT is_public;
	-- A conversation that is itself being removed is announced as such.
	PERFORM chat.announce(format('m %s %s', conversation_id, user_id))
	FROM changed WHERE (SELECT id FROM chat.conversations WHERE id = changed.conversation_id) IS NOT NULL;
	RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION chat.participants_updated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	UPDATE chat.conversations SET members_version = members_version + 1
	WHERE id = ANY (ARRAY(
		SELECT conversation_id FROM now JOIN before USING (conversation_id, user_id)
		WHERE (now.role, now.first_visible_seq) IS DISTINCT FROM (before.role, before.first_visible_seq)
	)) AND NOT is_public;
	PERFORM chat.announce(format('m %s %s', now.conversation_id, now.user_id))
	FROM now JOIN before USING (conversation_id, user_id)
	WHERE (now.role, now.first_visible_seq) IS DISTINCT FROM (before.role, before.first_visible_seq);
	RETURN NULL;
END $$;

CREATE FUNCTION chat.is_blocked(one bigint, other bigint) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
	RETURN EXISTS (SELECT FROM chat.blocked_users WHERE user_id = one AND blocked_user_id = other)
		OR EXISTS (SELECT FROM chat.blocked_users WHERE user_id = other AND blocked_user_id = one);
END $$;
COMMENT ON FUNCTION chat.is_blocked IS 'Whether one of two has blocked the other.';

CREATE OR REPLACE FUNCTION chat.conversation_check() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF TG_OP = 'INSERT' THEN
		IF NEW.id NOT BETWEEN 1 AND 8796093022207 THEN
			RAISE 'ids of conversations are from 1 to 2^43 - 1' USING ERRCODE = 'check_violation';
		END IF;
		IF NEW.type = 'direct' THEN
			SELECT least(NEW.first_user_id, NEW.second_user_id), greatest(NEW.first_user_id, NEW.second_user_id)
			INTO NEW.first_user_id, NEW.second_user_id;
			PERFORM chat.lock_pair(NEW.first_user_id, NEW.second_user_id);
			NEW.blocked := chat.is_blocked(NEW.first_user_id, NEW.second_user_id);
		END IF;
	ELSE
		IF NEW.id <> OLD.id THEN
			RAISE 'a conversation keeps its id' USING ERRCODE = 'check_violation';
		ELSIF NEW.type <> OLD.type AND 'direct' IN (NEW.type, OLD.type) THEN
			RAISE 'a direct conversation stays one, and no other becomes one' USING ERRCODE = 'check_violation';
		ELSIF (NEW.first_user_id, NEW.second_user_id) IS DISTINCT FROM (OLD.first_user_id, OLD.second_user_id) THEN
			RAISE 'a direct conversation keeps its two users' USING ERRCODE = 'check_violation';
		END IF;
		IF (NEW.type, NEW.is_public) IS DISTINCT FROM (OLD.type, OLD.is_public) THEN
			NEW.members_version := OLD.members_version + 1;
		END IF;
	END IF;
	IF NEW.type = 'direct' AND NEW.first_user_id < NEW.second_user_id IS NOT TRUE THEN
		RAISE 'a direct conversation is between two users: give first_user_id and second_user_id' USING ERRCODE = 'check_violation';
	ELSIF NEW.type <> 'direct' AND num_nonnulls(NEW.first_user_id, NEW.second_user_id) > 0 THEN
		RAISE 'first_user_id and second_user_id are for direct conversations: members go to conversation_participants'
			USING ERRCODE = 'check_violation';
	ELSIF NEW.is_public AND NEW.type <> 'channel' THEN
		RAISE 'only a channel can be public' USING ERRCODE = 'check_violation';
	END IF;
	RETURN NEW;
END $$;

CREATE OR REPLACE FUNCTION chat.block_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	one bigint := CASE WHEN TG_OP = 'DELETE' THEN OLD.user_id ELSE NEW.user_id END;
	other bigint := CASE WHEN TG_OP = 'DELETE' THEN OLD.blocked_user_id ELSE NEW.blocked_user_id END;
	conversation bigint;
BEGIN
	-- Lock, then look: who blocks in the other direction at this moment is seen only by a statement that begins under the
	-- lock.
	SELECT id INTO conversation FROM chat.conversations
	WHERE first_user_id = least(one, other) AND second_user_id = greatest(one, other) FOR NO KEY UPDATE;
	IF FOUND THEN
		UPDATE chat.conversations SET members_version = members_version + 1, blocked = chat.is_blocked(one, other)
		WHERE id = conversation;
		PERFORM chat.announce(format('m %s %s', conversation, one));
		PERFORM chat.announce(format('m %s %s', conversation, other));
	END IF;
	RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION chat_api.check_invited(caller chat_api.caller, p_users bigint[], field text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	member bigint;
	u chat.users;
BEGIN
	FOREACH member IN ARRAY p_users LOOP
		u := chat_api.visible_user(caller, member);
		IF u.status <> 'active' THEN
			PERFORM chat_api.refuse('not_found', 'there is no such user', field);
		ELSIF chat.is_blocked(caller.user_id, member) THEN
			PERFORM chat_api.refuse('blocked', 'one of the two has blocked the other', field);
		END IF;
	END LOOP;
	PERFORM chat_api.check_quota(p_users, field);
END $$;

-- -- the search index --------------------------------------------------------------------------------------------------

-- As before, in three passes over the text instead of one row for each character: every run is marked, every character of one written
-- twice with a space between, and the first of each run taken away with its mark.
CREATE OR REPLACE FUNCTION chat.pair_up(line text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	IF line !~ chat.spaceless() THEN
		RETURN line;
	END IF;
	line := regexp_replace(line, '(' || chat.spaceless() || '+)', E'\x01\\1 ', 'g');
	line := regexp_replace(line, '(' || chat.spaceless() || ')', '\1 \1', 'g');
	RETURN regexp_replace(line, E'\x01' || chat.spaceless(), '', 'g');
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA chat, chat_api FROM PUBLIC;
GRANT EXECUTE ON FUNCTION chat.missed_inbox, chat.remove_abandoned, chat.sign_in_device, chat.upgrade_verifier TO chat_plugin;
