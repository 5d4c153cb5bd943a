-- Who may do what. Everything belongs to chat_owner; nobody else may create, change or drop it.
--
--   chat_plugin    executes the functions below; reads and writes no table itself
--   chat_notifier  chat.version() for now; its functions come with it
--   chat_admin     reads everything; changes users, devices, conversations, participants, blocks and push targets, but no counter; inserts
--                  system entries. With plain SQL: the triggers see to the rest.

GRANT USAGE ON SCHEMA chat TO chat_plugin, chat_notifier, chat_admin;

-- New functions are for nobody until they are granted.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA chat FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE chat_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE chat_owner IN SCHEMA chat GRANT SELECT ON TABLES TO chat_admin;

GRANT EXECUTE ON FUNCTION chat.version, chat.claim_broker, chat.read_positions, chat.append_messages, chat.append_marks, chat.open_sessions,
	chat.load_memberships, chat.public_channels, chat.read_messages TO chat_plugin;
GRANT EXECUTE ON FUNCTION chat.version TO chat_notifier, chat_admin;

GRANT SELECT ON ALL TABLES IN SCHEMA chat TO chat_admin;
GRANT INSERT, UPDATE, DELETE ON chat.users, chat.devices, chat.push_targets TO chat_admin;
GRANT INSERT, DELETE ON chat.blocked_users TO chat_admin;
GRANT DELETE,
	INSERT (id, type, is_public, shows_history, first_user_id, second_user_id, name, picture, settings),
	UPDATE (type, is_public, shows_history, name, picture, settings) ON chat.conversations TO chat_admin;
GRANT DELETE,
	INSERT (conversation_id, user_id, role, joined_at, first_visible_seq, muted_until),
	UPDATE (role, first_visible_seq, muted_until) ON chat.conversation_participants TO chat_admin;
GRANT INSERT (conversation_id, type, body, extra, reply_to, ref, expires_at) ON chat.messages TO chat_admin;
