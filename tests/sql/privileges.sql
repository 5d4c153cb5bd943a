-- Each role can do what it needs and nothing else.
BEGIN;
SELECT plan(50);

SELECT test.users(1, 3);
SELECT test.group(1, 1, 2);

CREATE FUNCTION pg_temp.denied(role text, statement text, what text) RETURNS text LANGUAGE sql AS $$
	SELECT throws_ok(format('SELECT test.as_role(%L, %L)', role, statement), '42501', NULL, format('%s cannot %s', role, what))
$$;
CREATE FUNCTION pg_temp.allowed(role text, statement text, what text) RETURNS text LANGUAGE sql AS $$
	SELECT lives_ok(format('SELECT test.as_role(%L, %L)', role, statement), format('%s can %s', role, what))
$$;
GRANT USAGE ON SCHEMA test TO PUBLIC;

-- Roles
SELECT is_empty($$SELECT rolname FROM pg_roles WHERE rolname LIKE 'chat\_%'
	AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)$$, 'no role has a special right');
SELECT is((SELECT string_agg(rolname, ' ' ORDER BY rolname) COLLATE "default" FROM pg_roles WHERE rolname LIKE 'chat\_%' AND rolcanlogin),
	'chat_admin chat_notifier chat_plugin', 'all but the owner log in');
SELECT is_empty($$SELECT rolname FROM pg_authid WHERE rolname LIKE 'chat\_%' AND rolpassword IS NOT NULL$$, 'none has a password');
SELECT is_empty($$SELECT * FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member WHERE r.rolname LIKE 'chat\_%'$$, 'none is a member of another');
SELECT is_empty($$SELECT relname FROM pg_class WHERE relnamespace = 'chat'::regnamespace AND relowner <> 'chat_owner'::regrole$$, 'chat_owner owns all tables');
SELECT is_empty($$SELECT proname FROM pg_proc WHERE pronamespace = 'chat'::regnamespace AND proowner <> 'chat_owner'::regrole$$, 'chat_owner owns all functions');
SELECT is_empty($$SELECT proname FROM pg_proc WHERE pronamespace = 'chat'::regnamespace AND prosecdef
	AND NOT EXISTS (SELECT FROM unnest(proconfig) c WHERE c LIKE 'search_path=%')$$, 'every function that acts for its owner has a fixed search_path');
SELECT is_empty($$SELECT proname FROM pg_proc WHERE pronamespace = 'chat'::regnamespace AND has_function_privilege('public', oid, 'EXECUTE')$$,
	'no function is for everybody');

-- chat_plugin
SELECT is_empty($$SELECT relname FROM pg_class WHERE relnamespace = 'chat'::regnamespace AND relkind IN ('r', 'p', 'v')
	AND has_table_privilege('chat_plugin', oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')$$, 'chat_plugin has no right on any table');
SELECT is_empty($$SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid WHERE relnamespace = 'chat'::regnamespace
	AND relkind IN ('r', 'p', 'v') AND attnum > 0 AND has_column_privilege('chat_plugin', c.oid, a.attnum, 'SELECT, INSERT, UPDATE')$$, 'nor on any column');
SELECT is((SELECT string_agg(proname, ' ' ORDER BY proname) COLLATE "default" FROM pg_proc
		WHERE pronamespace = 'chat'::regnamespace AND has_function_privilege('chat_plugin', oid, 'EXECUTE')),
	'append_marks append_message append_messages ask_presence change_verifier check_registration claim_broker close_presence conversation_types find_verifiers '
		'flag_messages index_messages index_missed lift_suspensions load_memberships missed_inbox open_device open_presence open_sessions public_channels read_content_rules '
		'read_device_presence read_inbox read_messages read_positions read_verifier refresh_device refuse_messages register_account reject_messages '
		'remove_abandoned revoke_device settle_messages sign_in_device sweep tidy trim_logs upgrade_verifier version write_presence', 'chat_plugin executes its functions and no others');
SELECT is((SELECT string_agg(proname, ' ' ORDER BY proname) COLLATE "default" FROM pg_proc
		WHERE pronamespace = 'chat_api'::regnamespace AND has_function_privilege('chat_plugin', oid, 'EXECUTE')),
	'call configure read_methods', 'and three for requests');
SELECT is_empty($$SELECT proname FROM pg_proc WHERE pronamespace = 'chat_api'::regnamespace AND (proowner <> 'chat_owner'::regrole
	OR has_function_privilege('public', oid, 'EXECUTE') OR has_function_privilege('chat_admin', oid, 'EXECUTE') OR has_function_privilege('chat_notifier', oid, 'EXECUTE'))$$,
	'the methods are for nobody else');
SELECT is_empty($$SELECT proname FROM pg_proc WHERE pronamespace = 'chat_api'::regnamespace AND prosecdef
	AND NOT EXISTS (SELECT FROM unnest(proconfig) c WHERE c LIKE 'search_path=%')$$, 'what acts for its owner there has a fixed search_path');
SELECT is_empty($$SELECT relname FROM pg_class WHERE relnamespace = 'chat_api'::regnamespace AND relkind IN ('r', 'p', 'v')
	AND (relowner <> 'chat_owner'::regrole OR has_table_privilege('chat_plugin', oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER'))$$,
	'the tables of requests are not for chat_plugin');
SELECT pg_temp.denied('chat_plugin', 'SELECT chat_api.user_get((2, 0, NULL)::chat_api.caller, ''{}'')', 'execute a method but by call()');
SELECT pg_temp.denied('chat_plugin', 'SELECT FROM chat.users', 'read a table');
SELECT pg_temp.denied('chat_plugin', 'DELETE FROM chat.messages', 'delete messages');
SELECT pg_temp.denied('chat_plugin', 'INSERT INTO chat.users (id) VALUES (50)', 'make a user by hand');
SELECT pg_temp.denied('chat_plugin', 'DROP TABLE chat.messages', 'drop a table');
SELECT pg_temp.denied('chat_plugin', 'DROP FUNCTION chat.public_channels()', 'drop a function');
SELECT pg_temp.denied('chat_plugin', 'CREATE TABLE chat.x (y int)', 'make a table');
SELECT pg_temp.denied('chat_plugin', 'SELECT chat.move_positions(NULL, NULL, NULL, NULL)', 'move positions without messages');
SELECT pg_temp.allowed('chat_plugin', 'SELECT chat.version()', 'ask for the version');
SELECT pg_temp.allowed('chat_plugin', 'SELECT * FROM chat.read_positions(test.uuid(1), ''{1}'')', 'read positions');
SELECT pg_temp.allowed('chat_plugin', 'SELECT * FROM test.append(''[{"c":1,"s":1,"id":1}]'')', 'append messages');
SELECT pg_temp.allowed('chat_plugin', 'SELECT * FROM test.mark(''[{"c":1,"u":2,"read":1}]'')', 'append marks');
SELECT pg_temp.allowed('chat_plugin', 'SELECT * FROM chat.open_sessions(''{51}'', ''{0}'', true)', 'make an account by open_sessions');
SELECT pg_temp.allowed('chat_plugin', 'SELECT * FROM chat.read_messages(1, 1, 10)', 'read messages');

-- chat_notifier
SELECT is_empty($$SELECT relname FROM pg_class WHERE relnamespace = 'chat'::regnamespace AND relkind IN ('r', 'p', 'v')
	AND has_table_privilege('chat_notifier', oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')$$, 'chat_notifier has no right on any table');
SELECT pg_temp.allowed('chat_notifier', 'SELECT chat.version()', 'ask for the version');
SELECT pg_temp.denied('chat_notifier', 'SELECT * FROM chat.open_sessions(''{1}'', ''{0}'', true)', 'execute the plugin''s functions');

-- chat_admin
SELECT is_empty($$SELECT relname FROM pg_class WHERE relnamespace = 'chat'::regnamespace AND relkind IN ('r', 'p', 'v')
	AND relname NOT IN ('credentials', 'mock_key') AND NOT has_table_privilege('chat_admin', oid, 'SELECT')$$, 'chat_admin reads everything but secrets');
SELECT pg_temp.allowed('chat_admin', 'SELECT FROM chat_migrations.applied', 'see which migrations were applied');
SELECT pg_temp.allowed('chat_admin', 'INSERT INTO chat.users (username) VALUES (''erin'')', 'make a user');
SELECT pg_temp.allowed('chat_admin', 'UPDATE chat.users SET status = ''suspended'' WHERE id = 3', 'suspend a user');
SELECT pg_temp.allowed('chat_admin', 'INSERT INTO chat.conversations (type, name) VALUES (''group'', ''x'')', 'make a conversation');
SELECT pg_temp.allowed('chat_admin', 'INSERT INTO chat.conversation_participants (conversation_id, user_id) VALUES (1, 3)', 'add a member');
SELECT pg_temp.allowed('chat_admin', 'DELETE FROM chat.conversation_participants WHERE conversation_id = 1 AND user_id = 3', 'remove a member');
SELECT pg_temp.allowed('chat_admin', 'INSERT INTO chat.blocked_users VALUES (1, 2)', 'block a user');
SELECT pg_temp.allowed('chat_admin', 'INSERT INTO chat.messages (conversation_id, body) VALUES (1, ''x'')', 'insert a system entry');
SELECT pg_temp.allowed('chat_admin', 'UPDATE chat.conversations SET name = ''y'' WHERE id = 1', 'rename a conversation');
-- On a connection of its own: one that was a superuser's has the functions of indexes at hand.
SELECT dblink_connect('admin', format('host=%s port=%s dbname=%s user=chat_admin', current_setting('unix_socket_directories'), current_setting('port'), current_database()));
SELECT dblink_exec('admin', 'BEGIN') \g /dev/null
SELECT is(dblink_exec('admin', 'INSERT INTO chat.users (id, username) VALUES (900, ''frank'')'), 'INSERT 0 1', 'chat_admin can make a user');
SELECT is(dblink_exec('admin', 'UPDATE chat.users SET status = ''suspended'', username = ''franz'' WHERE id = 900'), 'UPDATE 1', 'and suspend one');
SELECT dblink_exec('admin', 'ROLLBACK'), dblink_disconnect('admin') \g /dev/null
SELECT pg_temp.denied('chat_admin', 'UPDATE chat.conversations SET last_seq = 0 WHERE id = 1', 'touch a counter');
SELECT pg_temp.denied('chat_admin', 'INSERT INTO chat.messages (conversation_id, seq, ordinal, body) VALUES (1, 77, 1, ''x'')', 'choose a number in a log');
SELECT pg_temp.denied('chat_admin', 'INSERT INTO chat.messages (conversation_id, sender_id, type, body) VALUES (1, 2, ''text'', ''x'')', 'write in a user''s name');
SELECT pg_temp.denied('chat_admin', 'UPDATE chat.messages SET body = ''x''', 'change a message');
SELECT pg_temp.denied('chat_admin', 'TRUNCATE chat.users', 'truncate');
SELECT pg_temp.denied('chat_admin', 'DROP TABLE chat.messages', 'drop a table');

SELECT * FROM finish();
ROLLBACK;
