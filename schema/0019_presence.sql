-- Presence: who is there, what they say of it, and who may know.
--
-- The broker knows who is connected and decides in memory (plugin/presence_rules.h). It writes here in batches, the newest state of
-- each user, at most twice a second for all of them together (chat.write_presence); the rest of the time a heartbeat every 5 s.
-- Nothing is written for who reconnects within the grace period. What a broker left when it died is ended by its next start, or by
-- another broker's heartbeat once its own is 30 s old; last_seen_at is then the time of its last heartbeat.
--
-- Who may know is one rule, chat.may_see_presence, for presence.get and for the broker, which asks before it tells anything on
-- chat/user/{user}/presence and asks again when it hears one of these (0002_triggers.sql has the others):
--   m <conversation> <user>   who is in conversations with that user
--   v <user> [<other>]        who may see that user, for another reason; where two are named, these two see each other, or no longer
--   s <user>                  what the user's devices say of themselves: presence.set
--
-- Locks: users and devices before the tables here, as everywhere; chat.brokers first. Plans: see the head of 0003_functions.sql.

CREATE TYPE chat.presence_status AS ENUM ('offline', 'away', 'busy', 'online');
COMMENT ON TYPE chat.presence_status IS 'In rising order: a user''s is the highest of their devices''.';

CREATE TABLE chat.brokers (
	broker uuid PRIMARY KEY,
	started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	heartbeat_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_scale_factor = 0);
COMMENT ON TABLE chat.brokers IS 'Brokers that are running, or died a moment ago.';
COMMENT ON COLUMN chat.brokers.broker IS 'The identity of its spool directory.';
COMMENT ON COLUMN chat.brokers.started_at IS 'When it began.';
COMMENT ON COLUMN chat.brokers.heartbeat_at IS 'When it was last heard of: every 5 s. One that is 30 s old counts as dead.';

CREATE TABLE chat.presence (
	user_id bigint PRIMARY KEY,
	broker uuid,
	last_seen_at timestamptz,
	changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	status chat.presence_status NOT NULL,
	text text CHECK (char_length(text) BETWEEN 1 AND 140)
) WITH (fillfactor = 50);
CREATE INDEX presence_broker ON chat.presence (broker) WHERE broker IS NOT NULL;
COMMENT ON TABLE chat.presence IS 'Who is there, as others see it; a user who never was has no row. No foreign key: a user removed at this moment would fail a '
	'whole batch. A trigger cleans up. Read chat.current_presence, which knows of dead brokers.';
COMMENT ON COLUMN chat.presence.user_id IS 'The user.';
COMMENT ON COLUMN chat.presence.broker IS 'Where they are connected; NULL with offline.';
COMMENT ON COLUMN chat.presence.last_seen_at IS 'When they were last seen not offline; NULL: never.';
COMMENT ON COLUMN chat.presence.changed_at IS 'When this row was last written.';
COMMENT ON COLUMN chat.presence.status IS 'online, busy, away, offline. Who is invisible is offline here.';
COMMENT ON COLUMN chat.presence.text IS 'What the device with that status says.';

CREATE TABLE chat.device_presence (
	user_id bigint NOT NULL REFERENCES chat.users ON DELETE CASCADE,
	device_id bigint REFERENCES chat.devices ON DELETE CASCADE,
	client_id text CHECK (char_length(client_id) BETWEEN 1 AND 64),
	status text NOT NULL CHECK (status IN ('online', 'away', 'busy', 'invisible')),
	text text CHECK (char_length(text) BETWEEN 1 AND 140),
	set_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	CHECK (num_nonnulls(device_id, client_id) = 1),
	CONSTRAINT device_presence_key UNIQUE NULLS NOT DISTINCT (user_id, device_id, client_id)
);
CREATE INDEX device_presence_device_id ON chat.device_presence (device_id);
COMMENT ON TABLE chat.device_presence IS 'What devices say of themselves by presence.set. One without a row is online while it is connected.';
COMMENT ON COLUMN chat.device_presence.user_id IS 'Whose device it is.';
COMMENT ON COLUMN chat.device_presence.device_id IS 'The device; NULL for a connection whose token names none.';
COMMENT ON COLUMN chat.device_presence.client_id IS 'The client id of such a connection.';
COMMENT ON COLUMN chat.device_presence.status IS 'online, away, busy, or invisible: offline for others.';
COMMENT ON COLUMN chat.device_presence.text IS 'A line about it.';
COMMENT ON COLUMN chat.device_presence.set_at IS 'When it was said.';

CREATE VIEW chat.current_presence AS
SELECT p.user_id, CASE WHEN alive.yes THEN p.status ELSE 'offline' END AS status, CASE WHEN alive.yes THEN p.text END AS text,
	CASE WHEN alive.yes THEN clock_timestamp() ELSE greatest(p.last_seen_at, b.heartbeat_at) END AS last_seen_at
FROM chat.presence p
LEFT JOIN LATERAL (SELECT heartbeat_at FROM chat.brokers WHERE broker = p.broker OFFSET 0) b ON true
CROSS JOIN LATERAL (SELECT p.status <> 'offline' AND coalesce(b.heartbeat_at > clock_timestamp() - interval '30 seconds', false) AS yes) alive;
COMMENT ON VIEW chat.current_presence IS 'Who is there, as others see it. Who was connected to a broker that has died is not.';
COMMENT ON COLUMN chat.current_presence.user_id IS 'The user.';
COMMENT ON COLUMN chat.current_presence.status IS 'online, busy, away, offline.';
COMMENT ON COLUMN chat.current_presence.text IS 'What the device with that status says.';
COMMENT ON COLUMN chat.current_presence.last_seen_at IS 'Now, for who is there; otherwise when they were last seen; NULL: never.';

-- A row stays while the device is connected, and costs nothing meanwhile. That it outlives a broker which died does no harm: it says what
-- the device has acknowledged before, and a device without a connection acknowledges nothing more.
ALTER TABLE chat.active_devices ADD COLUMN broker uuid;
CREATE INDEX active_devices_broker ON chat.active_devices (broker);
COMMENT ON COLUMN chat.active_devices.active_until IS 'Until then; infinity while the broker sees it there.';
COMMENT ON COLUMN chat.active_devices.broker IS 'Where it is connected.';

-- -- the broker ------------------------------------------------------------------------------------------------------------

CREATE FUNCTION chat.clear_presence(p_broker uuid) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	v_cleared bigint;
BEGIN
	DELETE FROM chat.active_devices WHERE broker = p_broker;
	UPDATE chat.presence SET status = 'offline', text = NULL, broker = NULL, changed_at = clock_timestamp(),
		last_seen_at = greatest(last_seen_at, (SELECT heartbeat_at FROM chat.brokers WHERE broker = p_broker))
	WHERE broker = p_broker;
	GET DIAGNOSTICS v_cleared = ROW_COUNT;
	RETURN v_cleared;
END $$;
COMMENT ON FUNCTION chat.clear_presence IS 'Nobody is connected to this broker: they were last seen at its last heartbeat. Returns how many they were.';

CREATE FUNCTION chat.open_presence(p_broker uuid) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
DECLARE
	v_cleared bigint;
BEGIN
	PERFORM FROM chat.brokers WHERE broker = p_broker FOR UPDATE;
	v_cleared := chat.clear_presence(p_broker);
	INSERT INTO chat.brokers (broker) VALUES (p_broker)
	ON CONFLICT (broker) DO UPDATE SET started_at = clock_timestamp(), heartbeat_at = clock_timestamp();
	RETURN v_cleared;
END $$;
COMMENT ON FUNCTION chat.open_presence IS 'A broker begins: what its last run left is ended. Returns how many users that were.';

CREATE FUNCTION chat.close_presence(p_broker uuid) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
DECLARE
	v_cleared bigint;
BEGIN
	UPDATE chat.brokers SET heartbeat_at = clock_timestamp() WHERE broker = p_broker;
	v_cleared := chat.clear_presence(p_broker);
	DELETE FROM chat.brokers WHERE broker = p_broker;
	RETURN v_cleared;
END $$;
COMMENT ON FUNCTION chat.close_presence IS 'A broker ends: nobody is connected to it any more. Returns how many users that were.';

CREATE FUNCTION chat.write_presence(p_broker uuid, p_users bigint[], p_statuses text[], p_texts text[], p_last_seen timestamptz[],
	p_active bigint[], p_inactive bigint[]) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
	v_known boolean;
	v_dead uuid;
BEGIN
	UPDATE chat.brokers SET heartbeat_at = clock_timestamp() WHERE broker = p_broker;
	v_known := FOUND;
	IF NOT v_known THEN
		INSERT INTO chat.brokers (broker) VALUES (p_broker);
	END IF;

	DELETE FROM chat.active_devices WHERE device_id = ANY (p_inactive) AND broker = p_broker;
	-- A device that is being removed is waited for, and then is none: the foreign key has nothing to say.
	INSERT INTO chat.active_devices AS a (device_id, active_until, broker)
	SELECT id, 'infinity', p_broker FROM (
		SELECT id FROM chat.devices WHERE id = ANY (p_active) AND revoked_at IS NULL ORDER BY id FOR KEY SHARE
	) d
	ON CONFLICT (device_id) DO UPDATE SET active_until = excluded.active_until, broker = excluded.broker;

	-- Who is invisible was not seen.
	INSERT INTO chat.presence AS p (user_id, broker, last_seen_at, status, text)
	SELECT p_users[i], CASE WHEN p_statuses[i] <> 'offline' THEN p_broker END, p_last_seen[i], p_statuses[i]::chat.presence_status, p_texts[i]
	FROM generate_subscripts(p_users, 1) AS i
	WHERE (SELECT id FROM chat.users WHERE id = p_users[i]) IS NOT NULL
	ORDER BY p_users[i]
	ON CONFLICT (user_id) DO UPDATE SET broker = excluded.broker, status = excluded.status, text = excluded.text,
		changed_at = excluded.changed_at, last_seen_at = coalesce(excluded.last_seen_at, p.last_seen_at);

	FOR v_dead IN SELECT broker FROM chat.brokers WHERE heartbeat_at < clock_timestamp() - interval '30 seconds' FOR UPDATE SKIP LOCKED LOOP
		PERFORM chat.clear_presence(v_dead);
		DELETE FROM chat.brokers WHERE broker = v_dead;
	END LOOP;
	RETURN v_known;
END $$;
COMMENT ON FUNCTION chat.write_presence IS 'A broker''s heartbeat, with what has changed since the last one: users (each once) with status, text and when they were last '
	'seen (NULL: as before), devices that somebody sits in front of, devices that nobody does. Ends what dead brokers left. False: this broker was taken for dead '
	'meanwhile, and has to say again who is there.';

-- -- who may know ----------------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION chat_api.privacy(u chat.users) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
	SELECT jsonb_build_object('search', true, 'presence', 'everyone', 'read_receipts', true) || coalesce(u.settings -> 'privacy', '{}')
$$;

CREATE FUNCTION chat.are_contacts(one bigint, other bigint) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
	RETURN (
		SELECT count(*) = 2
		FROM (SELECT id FROM chat.conversations
			WHERE first_user_id = least(one, other) AND second_user_id = greatest(one, other) OFFSET 0) c
		CROSS JOIN unnest(ARRAY[one, other]) AS member
		CROSS JOIN LATERAL (SELECT FROM chat.conversation_participants WHERE conversation_id = c.id AND user_id = member OFFSET 0) p
	);
END $$;
COMMENT ON FUNCTION chat.are_contacts IS 'Whether two are in a direct conversation with each other.';

-- chat_api.share_conversation looks each of the one's conversations up for the other, which is right for one question; here come thousands.
CREATE FUNCTION chat.share_group(one bigint, other bigint) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
	RETURN EXISTS (
		SELECT FROM (
			SELECT conversation_id FROM chat.conversation_participants WHERE user_id = one
			INTERSECT
			SELECT conversation_id FROM chat.conversation_participants WHERE user_id = other
		) shared
		CROSS JOIN LATERAL (SELECT type FROM chat.conversations WHERE id = shared.conversation_id OFFSET 0) c
		WHERE c.type <> 'channel');
END $$;
COMMENT ON FUNCTION chat.share_group IS 'Whether two are in a direct conversation or a group together.';

-- Compared as one row: no index but that of the pair can do it.
CREATE FUNCTION chat.has_blocked(one bigint, other bigint) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
	RETURN EXISTS (SELECT FROM chat.blocked_users
		WHERE (user_id, blocked_user_id) >= (one, other) AND (user_id, blocked_user_id) <= (one, other));
END $$;
COMMENT ON FUNCTION chat.has_blocked IS 'Whether one has blocked the other.';

CREATE FUNCTION chat.may_see_presence(p_watcher bigint, p_user bigint) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
	v_sees text;
BEGIN
	SELECT CASE WHEN status = 'active' THEN chat_api.privacy(u) ->> 'presence' ELSE 'nobody' END INTO v_sees FROM chat.users u WHERE id = p_user;
	IF p_watcher = p_user THEN
		RETURN FOUND;
	ELSIF coalesce(v_sees, 'nobody') = 'nobody' OR chat.has_blocked(p_user, p_watcher) OR chat.has_blocked(p_watcher, p_user) THEN
		RETURN false;
	END IF;
	-- The pair is one row to look up, and most watch those with whom they talk.
	RETURN chat.are_contacts(p_watcher, p_user) OR v_sees = 'everyone' AND chat.share_group(p_watcher, p_user);
END $$;
COMMENT ON FUNCTION chat.may_see_presence IS 'Whether one may know if the other is there. privacy.presence is everyone (who is in a direct conversation or a group with '
	'them; the default), contacts (who is in a direct conversation with them) or nobody. Who has blocked or is blocked may not, and a suspended account shows nothing.';

CREATE FUNCTION chat.ask_presence(p_watchers bigint[], p_users bigint[]) RETURNS TABLE (ordinal integer, last_seen_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY
	SELECT i, p.last_seen_at
	FROM generate_subscripts(p_watchers, 1) AS i
	LEFT JOIN LATERAL (SELECT last_seen_at FROM chat.current_presence WHERE user_id = p_users[i] OFFSET 0) p ON true
	WHERE chat.may_see_presence(p_watchers[i], p_users[i])
	ORDER BY i;
END $$;
COMMENT ON FUNCTION chat.ask_presence IS 'Of pairs (who looks, at whom), those that may, with when the other was last seen.';

CREATE FUNCTION chat.read_device_presence(p_users bigint[])
RETURNS TABLE (user_id bigint, device_id bigint, client_id text, status text, text text, set_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY
	SELECT asked, d.device_id, d.client_id, d.status, d.text, d.set_at
	FROM unnest(p_users) WITH ORDINALITY AS a (asked, i)
	LEFT JOIN LATERAL (SELECT * FROM chat.device_presence WHERE user_id = asked OFFSET 0) d ON true
	ORDER BY i;
END $$;
COMMENT ON FUNCTION chat.read_device_presence IS 'What these users'' devices say of themselves; a row without a status for a user whose devices say nothing.';

-- -- announcements ---------------------------------------------------------------------------------------------------------

CREATE FUNCTION chat.sight_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF TG_TABLE_NAME = 'users' THEN
		PERFORM chat.announce(format('v %s', NEW.id));
	ELSIF TG_TABLE_NAME = 'conversations' THEN
		PERFORM chat.announce(format('v %s', user_id)) FROM chat.conversation_participants WHERE conversation_id = OLD.id;
		RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
	ELSIF TG_OP = 'INSERT' THEN
		PERFORM chat.announce(format('v %s %s', NEW.user_id, NEW.blocked_user_id));
	ELSE
		PERFORM chat.announce(format('v %s %s', OLD.user_id, OLD.blocked_user_id));
	END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER sight_blocked AFTER INSERT OR DELETE ON chat.blocked_users FOR EACH ROW EXECUTE FUNCTION chat.sight_changed();
CREATE TRIGGER sight_private AFTER UPDATE OF settings ON chat.users FOR EACH ROW
	WHEN ((NEW.settings #> '{privacy,presence}') IS DISTINCT FROM (OLD.settings #> '{privacy,presence}')) EXECUTE FUNCTION chat.sight_changed();
-- Before, since afterwards nobody knows who was in it. Channels show nobody to anybody.
CREATE TRIGGER sight_gone BEFORE DELETE ON chat.conversations FOR EACH ROW WHEN (OLD.type <> 'channel') EXECUTE FUNCTION chat.sight_changed();
CREATE TRIGGER sight_retyped AFTER UPDATE OF type ON chat.conversations FOR EACH ROW WHEN (NEW.type <> OLD.type) EXECUTE FUNCTION chat.sight_changed();

CREATE FUNCTION chat.presence_forgotten() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	DELETE FROM chat.presence WHERE user_id = OLD.id;
	RETURN NULL;
END $$;
CREATE TRIGGER presence_forgotten AFTER DELETE ON chat.users FOR EACH ROW EXECUTE FUNCTION chat.presence_forgotten();

CREATE FUNCTION chat.device_presence_set() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM chat.announce(format('s %s', CASE TG_OP WHEN 'DELETE' THEN OLD.user_id ELSE NEW.user_id END));
	RETURN NULL;
END $$;
CREATE TRIGGER device_presence_set AFTER INSERT OR UPDATE OR DELETE ON chat.device_presence FOR EACH ROW EXECUTE FUNCTION chat.device_presence_set();

-- -- the methods -----------------------------------------------------------------------------------------------------------

CREATE FUNCTION chat_api.presence_get(caller chat_api.caller, params jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM chat_api.expect(params, 'users'), chat_api.require(params, 'users');
	RETURN jsonb_build_object('presence', (
		SELECT coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object('user', wanted, 'status', coalesce(p.status, 'offline'), 'text', p.text,
			'last_seen_at', chat_api.ms(p.last_seen_at))) ORDER BY wanted), '[]')
		FROM unnest(chat_api.param_ids(params, 'users', 200)) AS wanted
		LEFT JOIN LATERAL (SELECT * FROM chat.current_presence WHERE user_id = wanted OFFSET 0) p ON true
		WHERE chat.may_see_presence(caller.user_id, wanted)));
END $$;

CREATE FUNCTION chat_api.presence_set(caller chat_api.caller, params jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	k_most CONSTANT integer := 20; -- connections without a device that are remembered for a user
	v_device CONSTANT bigint := nullif(caller.device_id, 0);
	v_client CONSTANT text := CASE WHEN v_device IS NULL THEN caller.client_id END;
	v_status text;
	v_text text;
BEGIN
	PERFORM chat_api.expect(params, 'status', 'text'), chat_api.require(params, 'status');
	v_status := chat_api.param_choice(params, 'status', 'online', 'away', 'busy', 'invisible');
	IF NOT chat_api.param_null(params, 'text') THEN
		v_text := chat_api.param_line(params, 'text', 1, 140);
	END IF;
	IF v_status = 'online' AND v_text IS NULL THEN
		DELETE FROM chat.device_presence WHERE user_id = caller.user_id
			AND device_id IS NOT DISTINCT FROM v_device AND client_id IS NOT DISTINCT FROM v_client;
		RETURN '{}';
	END IF;
	INSERT INTO chat.device_presence (user_id, device_id, client_id, status, text) VALUES (caller.user_id, v_device, v_client, v_status, v_text)
	ON CONFLICT ON CONSTRAINT device_presence_key DO UPDATE SET status = excluded.status, text = excluded.text, set_at = excluded.set_at;
	DELETE FROM chat.device_presence WHERE user_id = caller.user_id AND v_device IS NULL AND client_id IN (
		SELECT client_id FROM chat.device_presence WHERE user_id = caller.user_id AND client_id IS NOT NULL ORDER BY set_at DESC OFFSET k_most);
	RETURN '{}';
END $$;

INSERT INTO chat_api.methods (name, function_name, cost) VALUES
	('presence.get', 'presence_get', 2),
	('presence.set', 'presence_set', 2);

-- -- privileges ------------------------------------------------------------------------------------------------------------

REVOKE ALL ON FUNCTION chat.clear_presence, chat.open_presence, chat.close_presence, chat.write_presence, chat.are_contacts,
	chat.share_group, chat.has_blocked, chat.may_see_presence, chat.ask_presence, chat.read_device_presence, chat.sight_changed, chat.presence_forgotten, chat.device_presence_set,
	chat_api.presence_get, chat_api.presence_set FROM PUBLIC;
GRANT EXECUTE ON FUNCTION chat.open_presence, chat.close_presence, chat.write_presence, chat.ask_presence, chat.read_device_presence TO chat_plugin;
