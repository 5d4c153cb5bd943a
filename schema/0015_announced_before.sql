-- What is announced about members comes before what is told of it.
--
-- A transaction that announces a change of members or of a conversation (m, c) leaves a mark in the setting chat.announced, for as long
-- as it lasts. The plugin asks for it with each request and holds the answer back until it has applied what was announced, so that who was
-- told of a conversation can use it. And the event for the inbox is announced behind the membership that it is about: triggers
-- of one statement fire in the order of their names.

CREATE OR REPLACE FUNCTION chat.announce(what text) RETURNS void LANGUAGE sql AS $$
	SELECT pg_catalog.set_config('chat.announced', 'yes', true) WHERE what OPERATOR(pg_catalog.~) '^[mc] ';
	SELECT pg_catalog.pg_notify('chat_changes', what)
$$;
COMMENT ON FUNCTION chat.announce IS 'NOTIFY chat_changes, at commit. Sets chat.announced for the rest of the transaction where it concerns '
	'members or a conversation.';

ALTER TRIGGER inbox_added ON chat.conversation_participants RENAME TO tell_added;
ALTER TRIGGER inbox_removed ON chat.conversation_participants RENAME TO tell_removed;
ALTER TRIGGER inbox_changed ON chat.conversation_participants RENAME TO tell_changed;
