-- Triggers: whoever changes rights, in psql as much as through a function, locks the conversation, raises its members_version
-- and announces the change.
--
-- Locks, always in this order: users (pairs by id) - conversation_participants, blocked_users (the rows being changed) -
-- conversations - participant_watermarks, device_watermarks. Row triggers fire when their row is already locked, so rights
-- come before the conversation here; chat.append_messages locks conversations and never a row of the tables before them.
-- A statement that changes several conversations locks them in the order in which it meets them, and may lose to an append as
-- a deadlock; run it again.
--
-- Announcements are NOTIFY chat_changes with ids and nothing else, sent when the transaction commits; they are hints, the
-- tables are the truth:
--   m <conversation> <user>                  membership or role of that user changed
--   c <conversation>                         a conversation was made or removed, its type or visibility changed
--   u <user>                                 an account's status changed, or it was removed
--   d <user> <device>                        a device was revoked or removed
--   l <conversation> <first seq> <last seq>  entries of the log that chat.append_messages did not write
--
-- Trigger functions run as chat_owner (SECURITY DEFINER), since those who may insert a participant may not write the
-- conversation's counters.

CREATE FUNCTION chat.announce(what text) RETURNS void LANGUAGE sql AS $$
	SELECT pg_catalog.pg_notify('chat_changes', what)
$$;
COMMENT ON FUNCTION chat.announce IS 'NOTIFY chat_changes, at commit.';

-- -- participants ------------------------------------------------------------------------------------------------------

CREATE FUNCTION chat.participant_lock() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	conversation chat.conversations;
BEGIN
	IF TG_OP = 'UPDATE' AND (NEW.conversation_id, NEW.user_id) IS DISTINCT FROM (OLD.conversation_id, OLD.user_id) THEN
		RAISE 'a participant row keeps its conversation and user: delete it and insert another';
	END IF;
	SELECT * INTO conversation FROM chat.conversations
	WHERE id = CASE WHEN TG_OP = 'DELETE' THEN OLD.conversation_id ELSE NEW.conversation_id END FOR NO KEY UPDATE;
	IF TG_OP = 'DELETE' THEN
		RETURN OLD; -- the conversation may be going too
	ELSIF NOT FOUND THEN
		RAISE 'there is no conversation %', NEW.conversation_id USING ERRCODE = 'foreign_key_violation';
	ELSIF TG_OP = 'INSERT' THEN
		IF conversation.type = 'direct' AND NEW.user_id NOT IN (conversation.first_user_id, conversation.second_user_id) THEN
			RAISE 'conversation % is between users % and %: nobody else can join',
				conversation.id, conversation.first_user_id, conversation.second_user_id
				USING ERRCODE = 'check_violation';
		END IF;
		NEW.joined_seq := conversation.last_seq;
		NEW.first_visible_seq := coalesce(NEW.first_visible_seq,
			CASE WHEN conversation.shows_history THEN 1 ELSE conversation.last_seq + 1 END);
	END IF;
	RETURN NEW;
END $$;

CREATE FUNCTION chat.participant_watermark() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	INSERT INTO chat.participant_watermarks (conversation_id, user_id, delivered_seq, read_seq, read_ordinal)
	SELECT NEW.conversation_id, NEW.user_id, last_seq, last_seq, last_ordinal FROM chat.conversations WHERE id = NEW.conversation_id;
	RETURN NULL;
END $$;

-- Once a statement, not once a row: 5,000 readers added to a channel are one new version.
CREATE FUNCTION chat.participants_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	UPDATE chat.conversations SET members_version = members_version + 1
	WHERE id IN (SELECT conversation_id FROM changed) AND NOT is_public;
	-- A conversation that is itself being removed is announced as such.
	PERFORM chat.announce(format('m %s %s', changed.conversation_id, changed.user_id))
	FROM changed JOIN chat.conversations ON conversations.id = changed.conversation_id;
	RETURN NULL;
END $$;

CREATE FUNCTION chat.participants_updated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	UPDATE chat.conversations SET members_version = members_version + 1
	WHERE id IN (
		SELECT conversation_id FROM now JOIN before USING (conversation_id, user_id)
		WHERE (now.role, now.first_visible_seq) IS DISTINCT FROM (before.role, before.first_visible_seq)
	) AND NOT is_public;
	PERFORM chat.announce(format('m %s %s', now.conversation_id, now.user_id))
	FROM now JOIN before USING (conversation_id, user_id)
	WHERE (now.role, now.first_visible_seq) IS DISTINCT FROM (before.role, before.first_visible_seq);
	RETURN NULL;
END $$;

CREATE TRIGGER participant_insert_lock BEFORE INSERT ON chat.conversation_participants
	FOR EACH ROW EXECUTE FUNCTION chat.participant_lock();
CREATE TRIGGER participant_update_lock BEFORE UPDATE OF conversation_id, user_id, role, first_visible_seq ON chat.conversation_participants
	FOR EACH ROW EXECUTE FUNCTION chat.participant_lock();
CREATE TRIGGER participant_delete_lock BEFORE DELETE ON chat.conversation_participants
	FOR EACH ROW EXECUTE FUNCTION chat.participant_lock();
CREATE TRIGGER participant_watermark AFTER INSERT ON chat.conversation_participants
	FOR EACH ROW EXECUTE FUNCTION chat.participant_watermark();
CREATE TRIGGER participants_inserted AFTER INSERT ON chat.conversation_participants
	REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION chat.participants_changed();
CREATE TRIGGER participants_deleted AFTER DELETE ON chat.conversation_participants
	REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION chat.participants_changed();
CREATE TRIGGER participants_updated AFTER UPDATE ON chat.conversation_participants
	REFERENCING OLD TABLE AS before NEW TABLE AS now FOR EACH STATEMENT EXECUTE FUNCTION chat.participants_updated();

-- -- conversations -----------------------------------------------------------------------------------------------------

-- Blocking and opening a direct conversation both hold the two users' rows, or each could miss the other.
CREATE FUNCTION chat.lock_pair(one bigint, other bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM FROM chat.users WHERE id IN (one, other) ORDER BY id FOR NO KEY UPDATE;
END $$;
COMMENT ON FUNCTION chat.lock_pair IS 'Locks two users'' rows in the order of their ids.';

CREATE FUNCTION chat.conversation_check() RETURNS trigger
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
			NEW.blocked := EXISTS (SELECT FROM chat.blocked_users WHERE (user_id, blocked_user_id)
				IN ((NEW.first_user_id, NEW.second_user_id), (NEW.second_user_id, NEW.first_user_id)));
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

CREATE FUNCTION chat.conversation_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF TG_OP = 'DELETE' THEN
		DELETE FROM chat.messages WHERE conversation_id = OLD.id;
		PERFORM chat.announce(format('c %s', OLD.id));
	ELSIF TG_OP = 'INSERT' THEN
		PERFORM chat.announce(format('c %s', NEW.id));
		IF NEW.type = 'direct' THEN
			INSERT INTO chat.conversation_participants (conversation_id, user_id)
			VALUES (NEW.id, NEW.first_user_id), (NEW.id, NEW.second_user_id);
		END IF;
	ELSIF (NEW.type, NEW.is_public) IS DISTINCT FROM (OLD.type, OLD.is_public) THEN
		PERFORM chat.announce(format('c %s', NEW.id));
	END IF;
	RETURN NULL;
END $$;

-- The columns keep these off the path of chat.append_messages, which writes the counters.
CREATE TRIGGER conversation_check BEFORE INSERT OR UPDATE OF id, type, is_public, first_user_id, second_user_id ON chat.conversations
	FOR EACH ROW EXECUTE FUNCTION chat.conversation_check();
CREATE TRIGGER conversation_inserted AFTER INSERT OR DELETE ON chat.conversations
	FOR EACH ROW EXECUTE FUNCTION chat.conversation_changed();
CREATE TRIGGER conversation_updated AFTER UPDATE OF type, is_public ON chat.conversations
	FOR EACH ROW EXECUTE FUNCTION chat.conversation_changed();

-- -- blocks ------------------------------------------------------------------------------------------------------------

CREATE FUNCTION chat.block_lock() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF TG_OP = 'UPDATE' THEN
		RAISE 'a block is not changed: delete it and insert another';
	ELSIF TG_OP = 'INSERT' THEN
		PERFORM chat.lock_pair(NEW.user_id, NEW.blocked_user_id);
		RETURN NEW;
	END IF;
	PERFORM chat.lock_pair(OLD.user_id, OLD.blocked_user_id);
	RETURN OLD;
END $$;

CREATE FUNCTION chat.block_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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
		UPDATE chat.conversations SET members_version = members_version + 1, blocked = EXISTS (
			SELECT FROM chat.blocked_users WHERE (user_id, blocked_user_id) IN ((one, other), (other, one)))
		WHERE id = conversation;
		PERFORM chat.announce(format('m %s %s', conversation, one));
		PERFORM chat.announce(format('m %s %s', conversation, other));
	END IF;
	RETURN NULL;
END $$;

CREATE TRIGGER block_lock BEFORE INSERT OR DELETE OR UPDATE OF user_id, blocked_user_id ON chat.blocked_users
	FOR EACH ROW EXECUTE FUNCTION chat.block_lock();
CREATE TRIGGER block_changed AFTER INSERT OR DELETE ON chat.blocked_users
	FOR EACH ROW EXECUTE FUNCTION chat.block_changed();

-- -- accounts and devices ----------------------------------------------------------------------------------------------

CREATE FUNCTION chat.user_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM chat.announce(format('u %s', OLD.id));
	RETURN NULL;
END $$;

CREATE FUNCTION chat.device_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF TG_OP = 'DELETE' THEN
		DELETE FROM chat.device_watermarks WHERE device_id = OLD.id;
	END IF;
	PERFORM chat.announce(format('d %s %s', OLD.user_id, OLD.id));
	RETURN NULL;
END $$;

CREATE TRIGGER user_suspended AFTER UPDATE OF status ON chat.users
	FOR EACH ROW WHEN (NEW.status <> OLD.status) EXECUTE FUNCTION chat.user_changed();
CREATE TRIGGER user_removed AFTER DELETE ON chat.users
	FOR EACH ROW EXECUTE FUNCTION chat.user_changed();
CREATE TRIGGER device_revoked AFTER UPDATE OF revoked_at, user_id ON chat.devices
	FOR EACH ROW WHEN ((NEW.revoked_at, NEW.user_id) IS DISTINCT FROM (OLD.revoked_at, OLD.user_id))
	EXECUTE FUNCTION chat.device_changed();
CREATE TRIGGER device_removed AFTER DELETE ON chat.devices
	FOR EACH ROW EXECUTE FUNCTION chat.device_changed();

-- -- the log, written by hand ------------------------------------------------------------------------------------------

-- chat.append_messages gives the number itself and pays only the WHEN.
CREATE FUNCTION chat.message_number() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF (NEW.type = 'system') <> (NEW.sender_id IS NULL) THEN
		RAISE 'entries of the type system have no sender, all others have one' USING ERRCODE = 'check_violation';
	END IF;
	UPDATE chat.conversations SET last_seq = last_seq + 1,
		last_ordinal = last_ordinal + CASE WHEN NEW.type IN ('system', 'reaction', 'edit', 'delete') THEN 0 ELSE 1 END
	WHERE id = NEW.conversation_id RETURNING last_seq, last_ordinal INTO NEW.seq, NEW.ordinal;
	IF NOT FOUND THEN
		RAISE 'there is no conversation %', NEW.conversation_id USING ERRCODE = 'foreign_key_violation';
	END IF;
	PERFORM chat.announce(format('l %s %s %s', NEW.conversation_id, NEW.seq, NEW.seq));
	RETURN NEW;
END $$;

CREATE TRIGGER message_number BEFORE INSERT ON chat.messages
	FOR EACH ROW WHEN (NEW.seq IS NULL) EXECUTE FUNCTION chat.message_number();
