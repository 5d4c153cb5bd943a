-- Accounts with passwords: what auth.* and SCRAM sign-in need. The hashing is the plugin's; here are the rules of names and devices.
--
-- A password is kept as a SCRAM-SHA-256 verifier (RFC 5803; PostgreSQL's own rolpassword has the same form), from which it cannot
-- be had back. chat_admin may set one and never reads one.

-- -- names -------------------------------------------------------------------------------------------------------------

-- Two names are the same account's where they differ by case, by width or by how an accent is composed: NFKC, then the full case
-- mappings of Unicode down, up and down ("ß" and "SS", both sigmas). Letters of different scripts that look alike stay different.
-- The sort order is that of the bytes, so that a new ICU version cannot disturb the index.
CREATE FUNCTION chat.username_key(username text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
	SELECT pg_catalog.normalize(pg_catalog.lower(pg_catalog.upper(pg_catalog.lower(pg_catalog.normalize(username, 'NFKC')
		COLLATE pg_catalog."und-x-icu"))), 'NFKC') COLLATE pg_catalog."C"
$$;
COMMENT ON FUNCTION chat.username_key IS 'What is unique about a user name: without case, width and composition.';

DROP INDEX chat.users_username_key;
CREATE UNIQUE INDEX users_username_key ON chat.users (chat.username_key(username));
COMMENT ON COLUMN chat.users.username IS 'Unique whatever its case and width (chat.username_key). NULL for an account that was made '
	'from a token: its issuer knows the name.';

-- -- tables ------------------------------------------------------------------------------------------------------------

-- The iterations are those that the plugin reads.
CREATE DOMAIN chat.verifier AS text CHECK (
	VALUE ~ '^SCRAM-SHA-256\$[1-9][0-9]{3,7}:[A-Za-z0-9+/]{4,88}={0,2}\$[A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{43}=$')
	CONSTRAINT verifier_iterations CHECK (split_part(split_part(VALUE, '$', 2), ':', 1)::bigint BETWEEN 4096 AND 10000000);
COMMENT ON DOMAIN chat.verifier IS 'SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey, all in base64.';

CREATE TABLE chat.credentials (
	user_id bigint PRIMARY KEY REFERENCES chat.users ON DELETE CASCADE,
	verifier chat.verifier,
	email text CHECK (char_length(email) <= 254 AND email ~ '^[^@[:space:][:cntrl:]]+@[^@[:space:][:cntrl:]]+$'),
	changed_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX credentials_email_key ON chat.credentials (lower(email));
COMMENT ON TABLE chat.credentials IS 'How accounts sign in by themselves: one row for each that may.';
COMMENT ON COLUMN chat.credentials.user_id IS 'Whose.';
COMMENT ON COLUMN chat.credentials.verifier IS 'The password, as one that was made by PostgreSQL (rolpassword); NULL: none.';
COMMENT ON COLUMN chat.credentials.email IS 'Optional; unique whatever its case; shown to nobody.';
COMMENT ON COLUMN chat.credentials.changed_at IS 'When the password was last set.';

-- Who asks for the salt of an account that is not there gets one as of any other, and the same each time.
CREATE TABLE chat.mock_key (key bytea NOT NULL);
COMMENT ON TABLE chat.mock_key IS 'One row, made with the schema: verifiers for names that nobody has are made of it.';
COMMENT ON COLUMN chat.mock_key.key IS 'A secret.';
INSERT INTO chat.mock_key VALUES (sha256(convert_to(gen_random_uuid()::text || gen_random_uuid(), 'UTF8')));

CREATE FUNCTION chat.mock_verifier(p_name_key text) RETURNS text LANGUAGE sql STABLE AS $$
	SELECT format('SCRAM-SHA-256$600000:%s$%s:%s', encode(substr(sha256('salt' || key || name), 1, 16), 'base64'),
		encode(sha256('stored' || key || name), 'base64'), encode(sha256('server' || key || name), 'base64'))
	FROM (SELECT key, convert_to(p_name_key, 'UTF8') AS name FROM chat.mock_key) one
$$;
COMMENT ON FUNCTION chat.mock_verifier IS 'The verifier of an account that is not there: no password matches it.';

-- Verifiers are held in memory by the plugin, and by SCRAM a session begins that no device row can end.
CREATE FUNCTION chat.credentials_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM chat.announce(format('p %s', CASE TG_OP WHEN 'INSERT' THEN NEW.user_id ELSE OLD.user_id END));
	RETURN NULL;
END $$;
CREATE TRIGGER credentials_changed AFTER INSERT OR DELETE OR UPDATE OF verifier ON chat.credentials
	FOR EACH ROW EXECUTE FUNCTION chat.credentials_changed();

CREATE FUNCTION chat.username_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM chat.announce(format('p %s', NEW.id));
	RETURN NULL;
END $$;
CREATE TRIGGER username_changed AFTER UPDATE OF username ON chat.users FOR EACH ROW
	WHEN (NEW.username IS DISTINCT FROM OLD.username) EXECUTE FUNCTION chat.username_changed();

-- -- functions ---------------------------------------------------------------------------------------------------------

CREATE FUNCTION chat.find_verifiers(p_usernames text[])
RETURNS TABLE (ordinal integer, name_key text, user_id bigint, verifier text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY
	SELECT i, chat.username_key(p_usernames[i]), CASE WHEN c.verifier IS NOT NULL THEN u.id END,
		coalesce(c.verifier::text, chat.mock_verifier(chat.username_key(p_usernames[i])))
	FROM generate_series(1, cardinality(p_usernames)) AS i
	LEFT JOIN LATERAL (SELECT * FROM chat.users WHERE chat.username_key(username) = chat.username_key(p_usernames[i]) OFFSET 0) u
		ON u.status = 'active'
	LEFT JOIN LATERAL (SELECT * FROM chat.credentials WHERE user_id = u.id OFFSET 0) c ON true
	ORDER BY i;
END $$;
COMMENT ON FUNCTION chat.find_verifiers IS 'For each name a row: what it is unique by, the account (NULL where there is none that may sign in '
	'so) and its verifier, or one that nothing matches.';

CREATE FUNCTION chat.read_verifier(p_user bigint) RETURNS TABLE (name_key text, verifier text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
	SELECT coalesce(chat.username_key(u.username), 'user ' || u.id), c.verifier::text
	FROM chat.users u LEFT JOIN chat.credentials c ON c.user_id = u.id WHERE u.id = p_user AND u.status = 'active'
$$;
COMMENT ON FUNCTION chat.read_verifier IS 'The verifier of an account.';

CREATE FUNCTION chat.check_registration(p_username text, p_email text, OUT code text, OUT field text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	-- The compatibility characters are looked at as what they stand for: nothing hides in them.
	IF NOT (char_length(p_username) BETWEEN 3 AND 50 AND char_length(chat.username_key(p_username)) BETWEEN 3 AND 50
			AND p_username !~ U&'[[:cntrl:][:space:]\00AD\034F\061C\115F\1160\17B4\17B5\180B-\180E\200B-\200F\2028-\202F\2060-\206F\3164\FE00-\FE0F\FEFF\FFA0\FFF9-\FFFD]'
			AND p_username !~ U&'[\+0E0000-\+0E0FFF]' AND chat.username_key(p_username) !~ '[[:cntrl:][:space:]]') THEN
		SELECT 'invalid_field', 'username' INTO code, field;
	ELSIF NOT (char_length(p_email) <= 254 AND p_email ~ '^[^@[:space:][:cntrl:]]+@[^@[:space:][:cntrl:]]+$') THEN
		SELECT 'invalid_field', 'email' INTO code, field;
	ELSIF EXISTS (SELECT FROM chat.users WHERE chat.username_key(username) = chat.username_key(p_username)) THEN
		SELECT 'conflict', 'username' INTO code, field;
	ELSIF EXISTS (SELECT FROM chat.credentials WHERE lower(email) = lower(p_email)) THEN
		SELECT 'conflict', 'email' INTO code, field;
	END IF;
END $$;
COMMENT ON FUNCTION chat.check_registration IS 'Why an account with this name and e-mail address (or none) cannot be made; NULL: it can.';

-- More than that is a client that signs in anew each time: the one that was seen longest ago makes room.
CREATE FUNCTION chat.devices_max() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 50';
COMMENT ON FUNCTION chat.devices_max IS 'How many devices of a user are signed in by password at the same time.';

CREATE FUNCTION chat.open_device(p_user bigint, p_name text, p_type text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	v_device bigint;
BEGIN
	PERFORM FROM chat.users WHERE id = p_user AND status = 'active' FOR NO KEY UPDATE;
	IF NOT FOUND THEN
		RETURN NULL;
	END IF;
	UPDATE chat.devices SET revoked_at = now() WHERE id IN (
		SELECT id FROM chat.devices WHERE user_id = p_user AND revoked_at IS NULL
		ORDER BY coalesce(last_seen_at, created_at) DESC, id DESC OFFSET chat.devices_max() - 1);
	INSERT INTO chat.devices (user_id, name, type, last_seen_at) VALUES (p_user, p_name, coalesce(p_type, 'web'), now())
	RETURNING id INTO v_device;
	RETURN v_device;
END $$;
COMMENT ON FUNCTION chat.open_device IS 'A new device of a user who has just signed in; NULL: the account is suspended or gone.';

CREATE FUNCTION chat.register_account(p_username text, p_email text, p_display_name text, p_verifier text, p_device_name text,
	p_device_type text, OUT code text, OUT field text, OUT user_id bigint, OUT device_id bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	v_constraint text;
BEGIN
	SELECT checked.code, checked.field INTO code, field FROM chat.check_registration(p_username, p_email) AS checked;
	IF code IS NOT NULL THEN
		RETURN;
	END IF;
	BEGIN
		INSERT INTO chat.users (username, display_name) VALUES (p_username, p_display_name) RETURNING id INTO user_id;
		INSERT INTO chat.credentials (user_id, verifier, email) VALUES (register_account.user_id, p_verifier, p_email);
	EXCEPTION WHEN unique_violation THEN -- somebody was faster
		GET STACKED DIAGNOSTICS v_constraint = CONSTRAINT_NAME;
		SELECT 'conflict', CASE v_constraint WHEN 'credentials_email_key' THEN 'email' ELSE 'username' END, NULL INTO code, field, user_id;
		RETURN;
	END;
	device_id := chat.open_device(user_id, p_device_name, p_device_type);
END $$;
COMMENT ON FUNCTION chat.register_account IS 'Makes an account with a password and its first device; or says why not.';

CREATE FUNCTION chat.refresh_device(p_user bigint, p_device bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	UPDATE chat.devices d SET last_seen_at = now() FROM chat.users u
	WHERE d.id = p_device AND d.user_id = p_user AND d.revoked_at IS NULL AND u.id = p_user AND u.status = 'active';
	RETURN FOUND;
END $$;
COMMENT ON FUNCTION chat.refresh_device IS 'Whether the device may have a new token.';

CREATE FUNCTION chat.lock_caller(p_user bigint, p_device bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	PERFORM FROM chat.users WHERE id = p_user AND status = 'active' FOR NO KEY UPDATE;
	RETURN FOUND AND (p_device = 0 OR EXISTS (SELECT FROM chat.devices WHERE id = p_device AND user_id = p_user AND revoked_at IS NULL));
END $$;
COMMENT ON FUNCTION chat.lock_caller IS 'Whether this user and device (0: none) may ask for anything; locks the user.';

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

-- -- privileges --------------------------------------------------------------------------------------------------------

-- The index on names executes it for whoever writes a row.
GRANT EXECUTE ON FUNCTION chat.username_key TO chat_admin;
REVOKE ALL ON chat.credentials, chat.mock_key FROM chat_admin;
GRANT SELECT (user_id, email, changed_at), INSERT, UPDATE, DELETE ON chat.credentials TO chat_admin;
GRANT EXECUTE ON FUNCTION chat.find_verifiers, chat.read_verifier, chat.check_registration, chat.open_device, chat.register_account,
	chat.refresh_device, chat.revoke_device, chat.change_verifier TO chat_plugin;
