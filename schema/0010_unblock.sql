-- user.unblock looks at its parameter also where the caller has blocked nobody.
CREATE OR REPLACE FUNCTION chat_api.user_unblock(caller chat_api.caller, params jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	v_user CONSTANT bigint := chat_api.param_id(params, 'user');
BEGIN
	PERFORM chat_api.expect(params, 'user');
	DELETE FROM chat.blocked_users WHERE user_id = caller.user_id AND blocked_user_id = v_user;
	RETURN '{}';
END $$;
