-- The requests: everything that a client asks for and that is no message in flight.
--
-- The plugin calls chat_api.call(method, user, device, client id, parameters), which looks the method up in chat_api.methods and
-- answers {"result":{…}} or {"error":{"code":…,"message":…}}. To add a method: a function chat_api.<name>(caller, params) that
-- returns the result (jsonb, or json where that is made as text), a row in chat_api.methods, a test that names it (tests/sql/requests_*.sql), a line in docs/methods.md. No C.
--
-- What holds for all methods:
-- - They run as chat_owner inside call(), which fixes search_path and the planner's settings; nobody can execute them alone.
-- - An expected error is chat_api.refuse(code, message, field): the method's work is undone and the error is the answer. Nothing
--   of it appears in the database's log. What nobody expected becomes `internal` and a row in chat_api.faults.
-- - Parameters are strict: chat_api.expect() names all that are known, the param_* functions say what each must look like.
-- - Who is not a member gets not_found, in the very words of what does not exist (chat_api.look).
-- - A method that changes members locks in the order that 0002_triggers.sql states (participants, then the conversation) and
--   looks again in a later statement: see chat_api.lock_members.
-- - Helpers that look into tables are PL/pgSQL, which keeps its plans: those of an SQL function are made anew for each query.
-- - Plans must be right even when they were made on empty tables, where all indexes cost the same (tests/sql/requests_plans.sql). Of a range
--   in the order of a two-column index both columns are compared as one row, which no other index can do; a range of a log is
--   asked for in its order, which only the primary key has.
-- - No answer is longer than chat_api.answer_bytes(), unless a single entry is: lists end early and say "more".

CREATE TYPE chat_api.caller AS (user_id bigint, device_id bigint, client_id text);
COMMENT ON TYPE chat_api.caller IS 'Who asks: the user, the device or 0, the client id of the connection.';

CREATE TABLE chat_api.methods (
	name text PRIMARY KEY CHECK (name ~ '^[a-z]+\.[a-z_]+$'),
	function_name text,
	guests boolean NOT NULL DEFAULT false,
	cost smallint NOT NULL DEFAULT 1 CHECK (cost BETWEEN 1 AND 50),
	native boolean NOT NULL DEFAULT false,
	CHECK (native = (function_name IS NULL))
);
COMMENT ON TABLE chat_api.methods IS 'What can be asked for on chat/request/{method}.';
COMMENT ON COLUMN chat_api.methods.name IS 'As in the topic.';
COMMENT ON COLUMN chat_api.methods.function_name IS 'The function in schema chat_api; NULL for native ones.';
COMMENT ON COLUMN chat_api.methods.guests IS 'Whether those may ask who have not signed in: for the reader. The plugin decides it itself, before it asks anybody.';
COMMENT ON COLUMN chat_api.methods.cost IS 'How many requests it counts for in the rate limit.';
COMMENT ON COLUMN chat_api.methods.native IS 'Done by the plugin itself.';

CREATE TABLE chat_api.faults (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	at timestamptz NOT NULL DEFAULT clock_timestamp(),
	method text NOT NULL,
	user_id bigint,
	sqlstate text NOT NULL,
	message text NOT NULL,
	context text NOT NULL
);
COMMENT ON TABLE chat_api.faults IS 'Requests that were answered with `internal`: faults of a method. The newest 1,000 are kept.';
COMMENT ON COLUMN chat_api.faults.id IS 'The order in which they happened, roughly.';
COMMENT ON COLUMN chat_api.faults.at IS 'When.';
COMMENT ON COLUMN chat_api.faults.method IS 'Which method.';
COMMENT ON COLUMN chat_api.faults.user_id IS 'Who asked.';
COMMENT ON COLUMN chat_api.faults.sqlstate IS 'PostgreSQL''s code for the error.';
COMMENT ON COLUMN chat_api.faults.message IS 'PostgreSQL''s message.';
COMMENT ON COLUMN chat_api.faults.context IS 'Where: the call stack.';

-- -- the inbox -----------------------------------------------------------------------------------------------------------

-- What a user's devices are told beside messages. Rows are written by triggers, so psql tells them too; the plugin hears
-- "i <user> <id>" for each, reads those of its connected users and publishes the payloads. Nothing else is done with them: who was
-- not connected learns the same from conversation.list and user.get.
CREATE TABLE chat.inbox_events (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	user_id bigint NOT NULL,
	payload jsonb NOT NULL,
	created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE chat.inbox_events IS 'What goes to chat/user/{user}/inbox; kept for an hour.';
COMMENT ON COLUMN chat.inbox_events.id IS 'Its number in the announcement.';
COMMENT ON COLUMN chat.inbox_events.user_id IS 'Whose devices are told.';
COMMENT ON COLUMN chat.inbox_events.payload IS 'As it is published: event, and what it is about.';
COMMENT ON COLUMN chat.inbox_events.created_at IS 'When it happened.';

CREATE FUNCTION chat.inbox_announce() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM chat.announce(format('i %s %s', user_id, id)) FROM written;
	RETURN NULL;
END $$;
CREATE TRIGGER inbox_announce AFTER INSERT ON chat.inbox_events
	REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION chat.inbox_announce();

CREATE FUNCTION chat.inbox_membership() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF TG_OP = 'INSERT' THEN
		INSERT INTO chat.inbox_events (user_id, payload)
		SELECT user_id, jsonb_build_object('event', 'added', 'conversation', conversation_id, 'role', role) FROM now;
	ELSIF TG_OP = 'DELETE' THEN
		INSERT INTO chat.inbox_events (user_id, payload)
		SELECT user_id, jsonb_build_object('event', 'removed', 'conversation', conversation_id) FROM before;
	ELSE
		INSERT INTO chat.inbox_events (user_id, payload)
		SELECT user_id, jsonb_build_object('event', 'changed', 'conversation', conversation_id, 'role', now.role)
		FROM now JOIN before USING (conversation_id, user_id)
		WHERE (now.role, now.muted_until, now.first_visible_seq) IS DISTINCT FROM (before.role, before.muted_until, before.first_visible_seq);
	END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER inbox_added AFTER INSERT ON chat.conversation_participants
	REFERENCING NEW TABLE AS now FOR EACH STATEMENT EXECUTE FUNCTION chat.inbox_membership();
CREATE TRIGGER inbox_removed AFTER DELETE ON chat.conversation_participants
	REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION chat.inbox_membership();
CREATE TRIGGER inbox_changed AFTER UPDATE ON chat.conversation_participants
	REFERENCING OLD TABLE AS before NEW TABLE AS now FOR EACH STATEMENT EXECUTE FUNCTION chat.inbox_membership();

CREATE FUNCTION chat.inbox_account() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	INSERT INTO chat.inbox_events (user_id, payload) VALUES (NEW.id, '{"event":"profile"}');
	RETURN NULL;
END $$;
CREATE FUNCTION chat.inbox_device() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	device CONSTANT chat.devices := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
BEGIN
	INSERT INTO chat.inbox_events (user_id, payload) VALUES (device.user_id,
		jsonb_build_object('event', CASE TG_OP WHEN 'INSERT' THEN 'device_added' ELSE 'device_removed' END, 'device', device.id));
	RETURN NULL;
END $$;
CREATE FUNCTION chat.inbox_block() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	block CONSTANT chat.blocked_users := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
BEGIN
	INSERT INTO chat.inbox_events (user_id, payload) VALUES (block.user_id,
		jsonb_build_object('event', CASE TG_OP WHEN 'INSERT' THEN 'blocked' ELSE 'unblocked' END, 'user', block.blocked_user_id));
	RETURN NULL;
END $$;
CREATE TRIGGER inbox_profile AFTER UPDATE ON chat.users FOR EACH ROW
	WHEN ((NEW.username, NEW.display_name, NEW.picture, NEW.status_text, NEW.settings)
		IS DISTINCT FROM (OLD.username, OLD.display_name, OLD.picture, OLD.status_text, OLD.settings))
	EXECUTE FUNCTION chat.inbox_account();
CREATE TRIGGER inbox_device AFTER INSERT OR DELETE ON chat.devices FOR EACH ROW EXECUTE FUNCTION chat.inbox_device();
CREATE TRIGGER inbox_device_revoked AFTER UPDATE OF revoked_at ON chat.devices FOR EACH ROW
	WHEN (OLD.revoked_at IS NULL AND NEW.revoked_at IS NOT NULL) EXECUTE FUNCTION chat.inbox_device();
CREATE TRIGGER inbox_block AFTER INSERT OR DELETE ON chat.blocked_users FOR EACH ROW EXECUTE FUNCTION chat.inbox_block();

CREATE FUNCTION chat.read_inbox(p_ids bigint[]) RETURNS TABLE (id bigint, user_id bigint, payload text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY SELECT e.id, e.user_id, e.payload::text FROM chat.inbox_events e WHERE e.id = ANY (p_ids) ORDER BY e.id;
END $$;
COMMENT ON FUNCTION chat.read_inbox IS 'The events of these numbers, ascending.';

CREATE FUNCTION chat.tidy() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	DELETE FROM chat.inbox_events WHERE created_at < now() - interval '1 hour';
	DELETE FROM chat.refusals WHERE refused_at < now() - interval '30 days';
END $$;
COMMENT ON FUNCTION chat.tidy IS 'Removes what is kept for a time only; to be called every few minutes.';

-- -- errors, parameters ------------------------------------------------------------------------------------------------

CREATE FUNCTION chat_api.refuse(code text, message text, field text DEFAULT '') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION USING ERRCODE = 'CH400', MESSAGE = message, DETAIL = code, COLUMN = field;
END $$;
COMMENT ON FUNCTION chat_api.refuse IS 'Ends the method: its work is undone and the caller gets this error.';

CREATE FUNCTION chat_api.error(code text, message text, field text DEFAULT NULL, retry_after_ms integer DEFAULT NULL) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
	SELECT jsonb_build_object('error', jsonb_strip_nulls(jsonb_build_object('code', code, 'message', message,
		'field', nullif(field, ''), 'retry_after_ms', retry_after_ms)))::text
$$;
COMMENT ON FUNCTION chat_api.error IS 'An error as it is answered.';

CREATE FUNCTION chat_api.expect(params jsonb, VARIADIC known text[] DEFAULT '{}') RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	odd text;
BEGIN
	-- request_id belongs to the answer's frame; the plugin has read it.
	SELECT key INTO odd FROM jsonb_object_keys(params) AS key WHERE key <> ALL (known) AND key <> 'request_id' LIMIT 1;
	IF FOUND THEN
		PERFORM chat_api.refuse('invalid_field', 'there is no such parameter', left(odd, 100));
	END IF;
END $$;
COMMENT ON FUNCTION chat_api.expect IS 'Refuses parameters with other names than these.';

CREATE FUNCTION chat_api.require(params jsonb, name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF NOT params ? name THEN
		PERFORM chat_api.refuse('invalid_field', format('%s is missing', name), name);
	END IF;
END $$;
COMMENT ON FUNCTION chat_api.require IS 'Refuses parameters without this one.';

CREATE FUNCTION chat_api.param_integer(params jsonb, name text, low bigint, high bigint, absent bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
	value numeric;
BEGIN
	IF NOT params ? name THEN
		RETURN absent;
	ELSIF jsonb_typeof(params -> name) = 'number' THEN
		value := params ->> name;
		IF value BETWEEN low AND high AND value = trunc(value) THEN
			RETURN value;
		END IF;
	END IF;
	PERFORM chat_api.refuse('invalid_field', format('%s is an integer from %s to %s', name, low, high), name);
END $$;
COMMENT ON FUNCTION chat_api.param_integer IS 'A parameter that is an integer between two bounds; another value where it is absent.';

CREATE FUNCTION chat_api.param_id(params jsonb, name text) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
	PERFORM chat_api.require(params, name);
	RETURN chat_api.param_integer(params, name, 1, 9007199254740991, NULL);
END $$;
COMMENT ON FUNCTION chat_api.param_id IS 'A parameter that must be there and is an id or a number in a log.';

CREATE FUNCTION chat_api.param_boolean(params jsonb, name text, absent boolean) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	IF NOT params ? name THEN
		RETURN absent;
	ELSIF jsonb_typeof(params -> name) = 'boolean' THEN
		RETURN params -> name;
	END IF;
	PERFORM chat_api.refuse('invalid_field', format('%s is true or false', name), name);
END $$;
COMMENT ON FUNCTION chat_api.param_boolean IS 'A parameter that is true or false.';

-- Control characters would let a name draw over what is beside it; direction marks and zero-width characters, pose as another.
CREATE FUNCTION chat_api.param_line(params jsonb, name text, low integer, high integer) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	value text;
BEGIN
	IF NOT params ? name THEN
		RETURN NULL;
	ELSIF jsonb_typeof(params -> name) = 'string' THEN
		value := params ->> name;
		IF char_length(value) > high THEN
			PERFORM chat_api.refuse('too_long', format('%s has at most %s characters', name, high), name);
		ELSIF char_length(value) >= low AND value !~ U&'[[:cntrl:]\200B\200E\200F\2028-\202E\2060-\2069\FEFF]'
			AND value = btrim(value) THEN
			RETURN value;
		END IF;
	END IF;
	PERFORM chat_api.refuse('invalid_field', format('%s is a line of %s to %s characters', name, low, high), name);
END $$;
COMMENT ON FUNCTION chat_api.param_line IS 'A parameter that is one line of text: no control characters or direction marks, no space around '
	'it. NULL where it is absent.';

CREATE FUNCTION chat_api.param_null(params jsonb, name text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
	SELECT params -> name = 'null' IS TRUE
$$;
COMMENT ON FUNCTION chat_api.param_null IS 'Whether a parameter is null, which some take as "remove it".';

CREATE FUNCTION chat_api.param_choice(params jsonb, name text, VARIADIC choices text[]) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	IF NOT params ? name THEN
		RETURN NULL;
	ELSIF jsonb_typeof(params -> name) = 'string' AND params ->> name = ANY (choices) THEN
		RETURN params ->> name;
	END IF;
	PERFORM chat_api.refuse('invalid_field', format('%s is one of %s', name, array_to_string(choices, ', ')), name);
END $$;
COMMENT ON FUNCTION chat_api.param_choice IS 'A parameter that is one of some words. NULL where it is absent.';

CREATE FUNCTION chat_api.param_ids(params jsonb, name text, most integer) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
	value CONSTANT jsonb := params -> name;
BEGIN
	IF value IS NULL THEN
		RETURN '{}';
	ELSIF jsonb_typeof(value) = 'array' THEN
		IF jsonb_array_length(value) > most THEN
			PERFORM chat_api.refuse('too_long', format('%s has at most %s entries', name, most), name);
		ELSIF NOT EXISTS (SELECT FROM jsonb_array_elements(value) AS element WHERE CASE WHEN jsonb_typeof(element) = 'number'
				THEN element::numeric NOT BETWEEN 1 AND 9007199254740991 OR element::numeric <> trunc(element::numeric) ELSE true END) THEN
			RETURN ARRAY(SELECT DISTINCT element::bigint FROM jsonb_array_elements(value) AS element ORDER BY 1);
		END IF;
	END IF;
	PERFORM chat_api.refuse('invalid_field', format('%s is a list of ids', name), name);
END $$;
COMMENT ON FUNCTION chat_api.param_ids IS 'A parameter that is a list of ids: ascending, each once; empty where it is absent.';

-- -- parts of answers --------------------------------------------------------------------------------------------------

CREATE FUNCTION chat_api.answer_bytes() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 258048';
COMMENT ON FUNCTION chat_api.answer_bytes IS 'How long the entries of an answer may be together: 256 KiB less 4 KiB for what is around them.';

CREATE FUNCTION chat_api.ms(at timestamptz) RETURNS bigint LANGUAGE sql STABLE AS $$
	SELECT CASE WHEN isfinite(at) THEN (extract(epoch FROM at) * 1000)::bigint WHEN at = 'infinity' THEN 0 END
$$;
COMMENT ON FUNCTION chat_api.ms IS 'A time as clients see it: milliseconds since 1970, 0 for ever.';

CREATE FUNCTION chat_api.page(name text, items jsonb[], most integer) RETURNS json LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
	line text;
	lines text := '';
	count integer := 0;
BEGIN
	FOREACH line IN ARRAY items LOOP
		EXIT WHEN count = most OR count > 0 AND octet_length(lines) + octet_length(line) + 1 > chat_api.answer_bytes();
		lines := lines || CASE WHEN count > 0 THEN ',' ELSE '' END || line;
		count := count + 1;
	END LOOP;
	RETURN format('{"%s":[%s],"more":%s}', name, lines, to_json(count < cardinality(items)));
END $$;
COMMENT ON FUNCTION chat_api.page IS 'Of a list with one entry more than wanted, what fits an answer, and whether there is more.';

CREATE FUNCTION chat_api.profile(u chat.users) RETURNS jsonb LANGUAGE sql STABLE AS $$
	SELECT CASE WHEN u.id IS NOT NULL THEN jsonb_strip_nulls(jsonb_build_object('id', u.id, 'username', u.username,
		'display_name', coalesce(u.display_name, u.username), 'picture', u.picture, 'status_text', u.status_text)) END
$$;
COMMENT ON FUNCTION chat_api.profile IS 'A user as others see them.';

CREATE FUNCTION chat_api.share_conversation(one bigint, other bigint) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
	RETURN (
		SELECT EXISTS (
			SELECT FROM chat.conversation_participants mine
			CROSS JOIN LATERAL (SELECT FROM chat.conversation_participants
				WHERE conversation_id = mine.conversation_id AND user_id = other OFFSET 0) theirs
			CROSS JOIN LATERAL (SELECT type FROM chat.conversations WHERE id = mine.conversation_id OFFSET 0) c
			WHERE mine.user_id = one AND c.type <> 'channel')
	);
END $$;
COMMENT ON FUNCTION chat_api.share_conversation IS 'Whether two are in a direct conversation or a group together.';

-- Someone who hides from searches, or has blocked the caller, is there only for those who meet them in a conversation.
CREATE FUNCTION chat_api.visible_user(caller chat_api.caller, p_user bigint) RETURNS chat.users LANGUAGE plpgsql STABLE AS $$
DECLARE
	u chat.users;
BEGIN
	SELECT * INTO u FROM chat.users WHERE id = p_user;
	IF u.id = caller.user_id
		OR u.status = 'active' AND u.settings -> 'privacy' -> 'search' IS DISTINCT FROM 'false'
			AND NOT EXISTS (SELECT FROM chat.blocked_users WHERE user_id = p_user AND blocked_user_id = caller.user_id)
		OR u.id IS NOT NULL AND chat_api.share_conversation(caller.user_id, p_user) THEN
		RETURN u;
	END IF;
	PERFORM chat_api.refuse('not_found', 'there is no such user');
END $$;
COMMENT ON FUNCTION chat_api.visible_user IS 'A user whom the caller may see, or not_found.';

-- -- the one door ------------------------------------------------------------------------------------------------------

CREATE FUNCTION chat_api.configure(p_options jsonb) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM set_config('chat.group_max_members', (p_options ->> 'group_max_members')::integer::text, false);
END $$;
COMMENT ON FUNCTION chat_api.configure IS 'Tells this connection those of the broker''s options that methods depend on: {"group_max_members":100}. '
	'Without it they have their defaults.';

CREATE FUNCTION chat_api.group_max_members() RETURNS integer LANGUAGE sql STABLE AS $$
	SELECT coalesce(nullif(current_setting('chat.group_max_members', true), ''), '100')::integer
$$;
COMMENT ON FUNCTION chat_api.group_max_members IS 'How many members a group may have.';

CREATE FUNCTION chat_api.read_methods() RETURNS TABLE (name text, guests boolean, cost smallint, native boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
	SELECT name, guests, cost, native FROM chat_api.methods ORDER BY name
$$;
COMMENT ON FUNCTION chat_api.read_methods IS 'The methods as the plugin needs them.';

-- The planner's settings are those of 0003_functions.sql, and hold for what is called from here.
CREATE FUNCTION chat_api.call(p_method text, p_user bigint, p_device bigint, p_client_id text, p_params jsonb) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET jit = off AS $$
DECLARE
	k_attempts CONSTANT integer := 3;
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
	ELSIF jsonb_typeof(p_params) IS DISTINCT FROM 'object' THEN
		RETURN chat_api.error('invalid_field', 'the parameters are a JSON object');
	ELSIF NOT EXISTS (SELECT FROM chat.users WHERE id = p_user AND status = 'active')
		OR p_device <> 0 AND NOT EXISTS (SELECT FROM chat.devices WHERE id = p_device AND user_id = p_user AND revoked_at IS NULL) THEN
		RETURN chat_api.error('unauthenticated', 'the account is suspended or gone, or the device is signed out');
	END IF;
	FOR attempt IN 1 .. k_attempts LOOP
		BEGIN
			EXECUTE format('SELECT chat_api.%I($1, $2)::text', v_function)
			INTO v_result USING (p_user, coalesce(p_device, 0), p_client_id)::chat_api.caller, p_params;
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
COMMENT ON FUNCTION chat_api.call IS 'Executes a method as this user, device (0: none) and client id, and returns {"result":…} or {"error":…}: '
	'errors are answers, and are not raised.';

-- -- users -------------------------------------------------------------------------------------------------------------

CREATE FUNCTION chat_api.user_get(caller chat_api.caller, params jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	u chat.users;
BEGIN
	PERFORM chat_api.expect(params, 'user');
	u := chat_api.visible_user(caller, coalesce(chat_api.param_integer(params, 'user', 1, 9007199254740991, NULL), caller.user_id));
	RETURN jsonb_build_object('user', chat_api.profile(u)
		|| CASE WHEN u.id = caller.user_id THEN jsonb_build_object('privacy', chat_api.privacy(u)) ELSE '{}' END);
END $$;

CREATE FUNCTION chat_api.privacy(u chat.users) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
	SELECT jsonb_build_object('search', true, 'presence', 'contacts') || coalesce(u.settings -> 'privacy', '{}')
$$;
COMMENT ON FUNCTION chat_api.privacy IS 'A user''s privacy settings, those included that were never touched.';

CREATE FUNCTION chat_api.user_update(caller chat_api.caller, params jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	v_privacy jsonb := params -> 'privacy';
	u chat.users;
BEGIN
	PERFORM chat_api.expect(params, 'display_name', 'picture', 'status_text', 'privacy');
	IF v_privacy IS NOT NULL THEN
		IF jsonb_typeof(v_privacy) <> 'object' THEN
			PERFORM chat_api.refuse('invalid_field', 'privacy is an object', 'privacy');
		END IF;
		PERFORM chat_api.expect(v_privacy, 'search', 'presence');
		PERFORM chat_api.param_boolean(v_privacy, 'search', NULL), chat_api.param_choice(v_privacy, 'presence', 'everyone', 'contacts', 'nobody');
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

-- Compared byte by byte (text_pattern_ops), a prefix is a range that an index answers whatever the locale.
CREATE INDEX users_search_username ON chat.users (lower(username) text_pattern_ops)
	WHERE status = 'active' AND settings -> 'privacy' -> 'search' IS DISTINCT FROM 'false';
CREATE INDEX users_search_display_name ON chat.users (lower(display_name) text_pattern_ops)
	WHERE status = 'active' AND settings -> 'privacy' -> 'search' IS DISTINCT FROM 'false';

CREATE FUNCTION chat_api.user_search(caller chat_api.caller, params jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
	v_query text;
	v_end text;
	v_limit integer;
BEGIN
	PERFORM chat_api.expect(params, 'query', 'limit');
	PERFORM chat_api.require(params, 'query');
	v_query := lower(chat_api.param_line(params, 'query', 1, 50));
	v_end := v_query || U&'\+10FFFF';
	v_limit := chat_api.param_integer(params, 'limit', 1, 50, 20);
	RETURN chat_api.page('users', ARRAY(
		SELECT chat_api.profile(u) FROM (
			(SELECT * FROM chat.users u
			WHERE lower(username) ~>=~ v_query AND lower(username) ~<~ v_end
				AND status = 'active' AND settings -> 'privacy' -> 'search' IS DISTINCT FROM 'false'
				AND (SELECT user_id FROM chat.blocked_users WHERE user_id = u.id AND blocked_user_id = caller.user_id) IS NULL
			ORDER BY lower(username) USING ~<~ LIMIT v_limit + 1)
			UNION
			(SELECT * FROM chat.users u
			WHERE lower(display_name) ~>=~ v_query AND lower(display_name) ~<~ v_end
				AND status = 'active' AND settings -> 'privacy' -> 'search' IS DISTINCT FROM 'false'
				AND (SELECT user_id FROM chat.blocked_users WHERE user_id = u.id AND blocked_user_id = caller.user_id) IS NULL
			ORDER BY lower(display_name) USING ~<~ LIMIT v_limit + 1)
		) u
		ORDER BY lower(u.username) = v_query DESC NULLS LAST, lower(coalesce(u.display_name, u.username)), u.id
		LIMIT v_limit + 1), v_limit);
END $$;

CREATE FUNCTION chat_api.user_block(caller chat_api.caller, params jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	k_most CONSTANT integer := 1000;
	v_user CONSTANT bigint := chat_api.param_id(params, 'user');
BEGIN
	PERFORM chat_api.expect(params, 'user');
	IF v_user = caller.user_id THEN
		PERFORM chat_api.refuse('invalid_field', 'nobody can block themself', 'user');
	END IF;
	PERFORM chat_api.visible_user(caller, v_user);
	IF (SELECT count(*) FROM (SELECT FROM chat.blocked_users WHERE user_id = caller.user_id LIMIT k_most) blocked) = k_most THEN
		PERFORM chat_api.refuse('quota_exceeded', format('nobody can block more than %s', k_most));
	END IF;
	INSERT INTO chat.blocked_users (user_id, blocked_user_id) VALUES (caller.user_id, v_user) ON CONFLICT DO NOTHING;
	RETURN '{}';
END $$;

CREATE FUNCTION chat_api.user_unblock(caller chat_api.caller, params jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	v_user CONSTANT bigint := chat_api.param_id(params, 'user');
BEGIN
	PERFORM chat_api.expect(params, 'user');
	DELETE FROM chat.blocked_users WHERE user_id = caller.user_id AND blocked_user_id = v_user;
	RETURN '{}';
END $$;

CREATE FUNCTION chat_api.user_blocked(caller chat_api.caller, params jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
	v_after bigint;
	v_limit integer;
BEGIN
	PERFORM chat_api.expect(params, 'after', 'limit');
	v_after := chat_api.param_integer(params, 'after', 0, 9007199254740991, 0);
	v_limit := chat_api.param_integer(params, 'limit', 1, 200, 50);
	RETURN chat_api.page('users', ARRAY(
		SELECT chat_api.profile(u) || jsonb_build_object('blocked_at', chat_api.ms(b.created_at))
		FROM (SELECT * FROM chat.blocked_users WHERE (user_id, blocked_user_id) > (caller.user_id, v_after) AND (user_id, blocked_user_id) < (caller.user_id + 1, 0)
			ORDER BY user_id, blocked_user_id LIMIT v_limit + 1) b
		CROSS JOIN LATERAL (SELECT * FROM chat.users WHERE id = b.blocked_user_id OFFSET 0) u
		ORDER BY b.blocked_user_id), v_limit);
END $$;

-- -- devices -----------------------------------------------------------------------------------------------------------

-- An address belongs to whoever gave it last: a phone that changes hands does not get its former user's pushes.
DELETE FROM chat.push_targets old USING chat.push_targets new
WHERE old.provider = new.provider AND old.app = new.app AND (old.updated_at, old.device_id) < (new.updated_at, new.device_id)
	AND coalesce(old.token, old.subscription ->> 'endpoint') = coalesce(new.token, new.subscription ->> 'endpoint');
CREATE UNIQUE INDEX push_targets_address ON chat.push_targets (provider, app, md5(coalesce(token, subscription ->> 'endpoint')));

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

CREATE FUNCTION chat_api.base64url(value text) RETURNS bytea LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
	IF value !~ '^[A-Za-z0-9_-]*={0,2}$' THEN
		RETURN NULL;
	END IF;
	value := rtrim(value, '=');
	RETURN decode(translate(value, '-_', '+/') || repeat('=', (4 - length(value) % 4) % 4), 'base64');
EXCEPTION WHEN invalid_parameter_value THEN
	RETURN NULL;
END $$;
COMMENT ON FUNCTION chat_api.base64url IS 'RFC 4648 section 5, padded or not; NULL if it is none.';

CREATE FUNCTION chat_api.big_number(bytes bytea) RETURNS numeric LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
	number numeric := 0;
BEGIN
	FOR i IN 0 .. length(bytes) - 1 LOOP
		number := number * 256 + get_byte(bytes, i);
	END LOOP;
	RETURN number;
END $$;
COMMENT ON FUNCTION chat_api.big_number IS 'The bytes as a number, the highest first.';

-- y^2 = x^3 - 3x + b (mod p), SEC 2 section 2.4.2. A point that is not on the curve would let its sender learn parts of the notifier's key.
CREATE FUNCTION chat_api.is_p256_point(point bytea) RETURNS boolean LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
	p CONSTANT numeric := chat_api.big_number('\xffffffff00000001000000000000000000000000ffffffffffffffffffffffff');
	b CONSTANT numeric := chat_api.big_number('\x5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b');
	x CONSTANT numeric := chat_api.big_number(substr(point, 2, 32));
	y CONSTANT numeric := chat_api.big_number(substr(point, 34, 32));
BEGIN
	RETURN length(point) = 65 AND get_byte(point, 0) = 4 AND x < p AND y < p AND mod(y * y - x * x * x + 3 * x - b, p) = 0;
END $$;
COMMENT ON FUNCTION chat_api.is_p256_point IS 'Whether these are the 65 bytes of an uncompressed point on P-256.';

-- The notifier resolves the name and looks at the addresses; what names an address itself does not come so far.
CREATE FUNCTION chat_api.is_push_endpoint(url text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
	SELECT char_length(url) <= 2000
		AND url ~ '^https://([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9](:443)?/[!-~]*$' AND url !~ '[#\\"<>]'
		AND url !~ '^https://([^/]*\.)?(localhost|local|localdomain|internal|intranet|lan|home|corp|private|test|invalid|onion|arpa)(:443)?/'
$$;
COMMENT ON FUNCTION chat_api.is_push_endpoint IS 'Whether a push service may live there: https, port 443, a public name, no credentials, no address.';

CREATE FUNCTION chat_api.device_json(caller chat_api.caller, d chat.devices) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
	RETURN jsonb_strip_nulls(jsonb_build_object('id', d.id, 'name', d.name, 'type', d.type, 'created_at', chat_api.ms(d.created_at),
		'last_seen_at', chat_api.ms(d.last_seen_at), 'current', d.id = caller.device_id OR NULL,
		'push', (SELECT jsonb_build_object('provider', provider, 'app', app) FROM chat.push_targets WHERE device_id = d.id)));
END $$;
COMMENT ON FUNCTION chat_api.device_json IS 'A device as its user sees it; where its pushes go is not told to anybody.';

CREATE FUNCTION chat_api.own_device(caller chat_api.caller, params jsonb) RETURNS chat.devices LANGUAGE plpgsql AS $$
DECLARE
	d chat.devices;
BEGIN
	IF NOT params ? 'device' AND caller.device_id = 0 THEN
		PERFORM chat_api.refuse('invalid_field', 'device is missing: the token names none', 'device');
	END IF;
	SELECT * INTO d FROM chat.devices
	WHERE id = chat_api.param_integer(params, 'device', 1, 9007199254740991, caller.device_id) AND user_id = caller.user_id AND revoked_at IS NULL
	FOR NO KEY UPDATE;
	IF NOT FOUND THEN
		PERFORM chat_api.refuse('not_found', 'there is no such device', 'device');
	END IF;
	RETURN d;
END $$;
COMMENT ON FUNCTION chat_api.own_device IS 'The device that the parameter names, or the connection''s own, locked.';

CREATE FUNCTION chat_api.device_list(caller chat_api.caller, params jsonb) RETURNS json LANGUAGE plpgsql AS $$
BEGIN
	PERFORM chat_api.expect(params);
	RETURN chat_api.page('devices', ARRAY(SELECT chat_api.device_json(caller, d) FROM chat.devices d
		WHERE user_id = caller.user_id AND revoked_at IS NULL ORDER BY id DESC LIMIT 201), 200);
END $$;

CREATE FUNCTION chat_api.set_push(d chat.devices, push jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	v_provider text;
	v_app text;
	v_token text;
	v_subscription jsonb;
BEGIN
	IF jsonb_typeof(push) <> 'object' THEN
		PERFORM chat_api.refuse('invalid_field', 'push is an object', 'push');
	END IF;
	PERFORM chat_api.require(push, 'provider'), chat_api.require(push, 'app');
	v_provider := chat_api.param_choice(push, 'provider', 'fcm', 'apns', 'webpush');
	v_app := chat_api.param_line(push, 'app', 1, 200);
	IF v_provider = 'webpush' THEN
		PERFORM chat_api.expect(push, 'provider', 'app', 'subscription'), chat_api.require(push, 'subscription');
		v_subscription := push -> 'subscription';
		IF jsonb_typeof(v_subscription) <> 'object' OR jsonb_typeof(v_subscription -> 'keys') IS DISTINCT FROM 'object' THEN
			PERFORM chat_api.refuse('invalid_field', 'subscription is an object with endpoint and keys', 'subscription');
		END IF;
		PERFORM chat_api.expect(v_subscription, 'endpoint', 'expirationTime', 'keys'), chat_api.expect(v_subscription -> 'keys', 'p256dh', 'auth');
		IF jsonb_typeof(v_subscription -> 'endpoint') IS DISTINCT FROM 'string'
			OR NOT chat_api.is_push_endpoint(v_subscription ->> 'endpoint') THEN
			PERFORM chat_api.refuse('invalid_field', 'endpoint is the https address of a push service', 'endpoint');
		ELSIF jsonb_typeof(v_subscription #> '{keys,p256dh}') IS DISTINCT FROM 'string'
			OR chat_api.is_p256_point(chat_api.base64url(left(v_subscription #>> '{keys,p256dh}', 100))) IS NOT TRUE THEN
			PERFORM chat_api.refuse('invalid_field', 'p256dh is an uncompressed point on P-256, base64url', 'p256dh');
		ELSIF jsonb_typeof(v_subscription #> '{keys,auth}') IS DISTINCT FROM 'string'
			OR length(chat_api.base64url(left(v_subscription #>> '{keys,auth}', 100))) IS DISTINCT FROM 16 THEN
			PERFORM chat_api.refuse('invalid_field', 'auth is 16 bytes, base64url', 'auth');
		END IF;
		v_subscription := v_subscription - 'expirationTime' - 'request_id';
	ELSE
		PERFORM chat_api.expect(push, 'provider', 'app', 'token'), chat_api.require(push, 'token');
		v_token := chat_api.param_line(push, 'token', 1, 4096);
		IF v_token !~ (CASE v_provider WHEN 'apns' THEN '^([0-9a-fA-F]{2}){32,100}$' ELSE '^[A-Za-z0-9_:.=/+-]+$' END) THEN
			PERFORM chat_api.refuse('invalid_field', format('this is no token of %s', v_provider), 'token');
		END IF;
	END IF;
	DELETE FROM chat.push_targets WHERE provider = v_provider AND app = v_app AND device_id <> d.id
		AND md5(coalesce(token, subscription ->> 'endpoint')) = md5(coalesce(v_token, v_subscription ->> 'endpoint'));
	INSERT INTO chat.push_targets AS t (device_id, provider, app, token, subscription) VALUES (d.id, v_provider, v_app, v_token, v_subscription)
	ON CONFLICT (device_id) DO UPDATE SET provider = excluded.provider, app = excluded.app, token = excluded.token,
		subscription = excluded.subscription, updated_at = now()
	WHERE (t.provider, t.app, t.token, t.subscription) IS DISTINCT FROM (excluded.provider, excluded.app, excluded.token, excluded.subscription);
END $$;
COMMENT ON FUNCTION chat_api.set_push IS 'Where pushes for a device go from now on.';

CREATE FUNCTION chat_api.device_update(caller chat_api.caller, params jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	d chat.devices;
BEGIN
	PERFORM chat_api.expect(params, 'device', 'name', 'push');
	d := chat_api.own_device(caller, params);
	IF params ? 'name' THEN
		UPDATE chat.devices SET name = chat_api.param_line(params, 'name', 1, 200) WHERE id = d.id RETURNING * INTO d;
	END IF;
	IF chat_api.param_null(params, 'push') THEN
		DELETE FROM chat.push_targets WHERE device_id = d.id;
	ELSIF params ? 'push' THEN
		PERFORM chat_api.set_push(d, params -> 'push');
	END IF;
	RETURN jsonb_build_object('device', chat_api.device_json(caller, d));
END $$;

CREATE FUNCTION chat_api.device_remove(caller chat_api.caller, params jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	d chat.devices;
BEGIN
	PERFORM chat_api.expect(params, 'device');
	d := chat_api.own_device(caller, params);
	UPDATE chat.devices SET revoked_at = now() WHERE id = d.id;
	RETURN '{}';
END $$;

-- -- what there is -----------------------------------------------------------------------------------------------------

INSERT INTO chat_api.methods (name, guests, cost, native) VALUES
	('auth.register', true, 1, true),
	('auth.login', true, 1, true),
	('auth.refresh', false, 1, true),
	('auth.logout', false, 1, true),
	('auth.change_password', false, 1, true),
	('message.send', false, 1, true);
INSERT INTO chat_api.methods (name, function_name, cost) VALUES
	('user.get', 'user_get', 1),
	('user.update', 'user_update', 2),
	('user.search', 'user_search', 5),
	('user.block', 'user_block', 2),
	('user.unblock', 'user_unblock', 2),
	('user.blocked', 'user_blocked', 1),
	('device.list', 'device_list', 1),
	('device.update', 'device_update', 2),
	('device.remove', 'device_remove', 2);

GRANT USAGE ON SCHEMA chat_api TO chat_plugin, chat_admin;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA chat_api FROM PUBLIC;
GRANT EXECUTE ON FUNCTION chat_api.call, chat_api.configure, chat_api.read_methods, chat.read_inbox, chat.tidy
	TO chat_plugin;
GRANT SELECT ON ALL TABLES IN SCHEMA chat_api TO chat_admin;
