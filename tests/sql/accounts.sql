-- Accounts with passwords: names, verifiers, devices.
BEGIN;
SELECT plan(66);

-- -- names -------------------------------------------------------------------------------------------------------------
SELECT is(chat.username_key(other), chat.username_key(name), format('%s and %s are one name', name, other))
FROM (VALUES ('Alice', 'aLICE'), ('alice', U&'\FF41\FF4C\FF49\FF43\FF45'), (U&'Stra\00DFe', 'STRASSE'), (U&'caf\00E9', U&'cafe\0301'),
	(U&'\03C3\03C2', U&'\03A3\03A3'), (U&'\FB01sh', 'FISH'), (U&'\2168abc', 'ixABC'), (U&'\0130x', U&'i\0307X')) AS names (name, other);
SELECT isnt(chat.username_key(U&'\0430lice'), chat.username_key('alice'), 'letters of other scripts stay what they are');
SELECT is(chat.username_key(chat.username_key(name)), chat.username_key(name), format('the key of %s is its own key', name))
FROM (VALUES ('Alice'), (U&'\0130\1E9E'), (U&'\01C5\FB03')) AS names (name);

SELECT is((SELECT concat_ws(' ', code, field) FROM chat.check_registration(name, email)), wanted, format('registering %s, %s: %s', name, email, wanted))
FROM (VALUES
	('peggy', NULL, ''), ('peggy', 'p@example.com', ''), (U&'\4F60\597D\5417', NULL, ''),
	('ab', NULL, 'invalid_field username'), (repeat('a', 51), NULL, 'invalid_field username'), (repeat('a', 50), NULL, ''),
	('a b', NULL, 'invalid_field username'), (U&'a\00A0b', NULL, 'invalid_field username'), (U&'ab\200Fc', NULL, 'invalid_field username'),
	(U&'ab\2067c', NULL, 'invalid_field username'), (U&'abc\+0E0041', NULL, 'invalid_field username'), (U&'\FFA0\FFA0\FFA0', NULL, 'invalid_field username'),
	(U&'\FDFA\FDFA\FDFA', NULL, 'invalid_field username'),
	('peggy', 'p', 'invalid_field email'), ('peggy', 'p@', 'invalid_field email'), ('peggy', 'a@b@c', 'invalid_field email'),
	('peggy', E'p@x\ny', 'invalid_field email')) AS cases (name, email, wanted);

-- -- an account's life ---------------------------------------------------------------------------------------------------
CREATE FUNCTION pg_temp.verifier(number integer) RETURNS text LANGUAGE sql AS $$
	SELECT 'SCRAM-SHA-256$600000:AAAAAAAAAAAAAAAAAAAAAA==$' || encode(sha256(number::text::bytea), 'base64') || ':' || encode(sha256(''), 'base64')
$$;
SELECT is((SELECT concat_ws(' ', code, field, user_id IS NOT NULL, device_id IS NOT NULL)
	FROM chat.register_account('Trudy', 'T@example.com', 'Trudy T.', pg_temp.verifier(1), 'phone', 'mobile')), 't t', 'an account and its device are made');
SELECT is((SELECT concat_ws(' ', code, field) FROM chat.register_account('tRUDY', NULL, NULL, pg_temp.verifier(2), NULL, NULL)), 'conflict username', 'a name once');
SELECT is((SELECT concat_ws(' ', code, field) FROM chat.register_account('trudy2', 't@EXAMPLE.com', NULL, pg_temp.verifier(2), NULL, NULL)),
	'conflict email', 'an address once');
SELECT throws_ok($$INSERT INTO chat.users (username) VALUES ('TRUDY')$$, '23505', NULL, 'by hand too');
SELECT throws_ok($$INSERT INTO chat.credentials (user_id, verifier) VALUES (1000000, 'secret')$$, '23514', NULL, 'a password by itself is no verifier');

CREATE TEMPORARY TABLE trudy AS SELECT id, (SELECT min(d.id) FROM chat.devices d WHERE user_id = u.id) AS device FROM chat.users u WHERE username = 'Trudy';
SELECT is((SELECT verifier FROM chat.find_verifiers('{"ｔrudy"}')), pg_temp.verifier(1), 'the verifier is found');
SELECT is((SELECT user_id FROM chat.find_verifiers('{nobody,trudy}') WHERE ordinal = 2), (SELECT id FROM trudy), 'with its account');
SELECT is((SELECT user_id FROM chat.find_verifiers('{nobody}')), NULL, 'nobody has no account');
SELECT is((SELECT verifier FROM chat.find_verifiers('{nobody}')), (SELECT verifier FROM chat.find_verifiers('{Nobody}')), 'and one verifier all the same');
SELECT ok((SELECT verifier FROM chat.find_verifiers('{nobody}'))::chat.verifier IS NOT NULL, 'which looks like any other');

SELECT is((SELECT count(DISTINCT chat.open_device(id, 'n', 'web')) FROM trudy, generate_series(1, 60)), 60::bigint, 'a device each time');
SELECT is((SELECT count(*) FROM chat.devices, trudy WHERE user_id = trudy.id AND revoked_at IS NULL), 50::bigint, '50 stay signed in');
SELECT is((SELECT chat.refresh_device(id, device) FROM trudy), false, 'the oldest ones are out');

CREATE TEMPORARY TABLE now_at AS SELECT max(d.id) AS device FROM chat.devices d, trudy WHERE user_id = trudy.id;
SELECT is((SELECT chat.change_verifier(id, now_at.device, pg_temp.verifier(9), pg_temp.verifier(3)) FROM trudy, now_at), false, 'a password changed meanwhile stays');
SELECT is((SELECT chat.change_verifier(id, now_at.device, pg_temp.verifier(1), pg_temp.verifier(3)) FROM trudy, now_at), true, 'a password is changed');
SELECT is((SELECT array_agg(d.id) FROM chat.devices d, trudy WHERE user_id = trudy.id AND revoked_at IS NULL), (SELECT ARRAY[device] FROM now_at),
	'and this device alone stays signed in');
SELECT is((SELECT chat.sign_in_device(id, pg_temp.verifier(1), 'n', 'web') FROM trudy), NULL, 'the password from before lets nobody in, whenever it was checked');
SELECT isnt((SELECT chat.sign_in_device(id, pg_temp.verifier(3), 'n', 'web') FROM trudy), NULL, 'the new one does');
SELECT is_empty('SELECT chat.change_verifier(id, device, pg_temp.verifier(3), pg_temp.verifier(4)) FROM trudy', 'a device that is signed out changes no password');
SELECT is((SELECT chat.upgrade_verifier(id, pg_temp.verifier(1), pg_temp.verifier(5)) FROM trudy), false, 'a password changed meanwhile is not kept in another form');
SELECT is((SELECT chat.upgrade_verifier(id, pg_temp.verifier(3), pg_temp.verifier(6)) FROM trudy), true, 'the same one is');
SELECT is((SELECT verifier FROM chat.read_verifier((SELECT id FROM trudy))), pg_temp.verifier(6), 'so it is');
INSERT INTO chat.users (id) VALUES (1);
SELECT is(chat.revoke_device(1, 0, (SELECT device FROM now_at)), false, 'nobody signs out another''s device');
SELECT is_empty('SELECT chat.revoke_device(id, trudy.device, now_at.device) FROM trudy, now_at', 'a device that is signed out signs out no other');
SELECT is_empty('SELECT chat.revoke_device(1, now_at.device, now_at.device) FROM now_at', 'nor is another''s a way in');
SELECT is((SELECT chat.revoke_device(id, now_at.device, now_at.device) FROM trudy, now_at), true, 'the own one is signed out');
UPDATE chat.users SET status = 'suspended' WHERE username = 'Trudy';
SELECT is((SELECT user_id FROM chat.find_verifiers('{trudy}')), NULL, 'who is suspended is nobody');
SELECT is((SELECT chat.open_device(id, NULL, NULL) FROM trudy), NULL, 'and opens no device');
SELECT is_empty('SELECT chat.revoke_device(id, 0, 1) FROM trudy', 'and signs none out');

-- -- however a device is signed out, nothing is pushed to it --------------------------------------------------------------
INSERT INTO chat.devices (id, user_id) VALUES (2001, 1), (2002, 1);
INSERT INTO chat.push_targets (device_id, provider, app, token) VALUES (2001, 'fcm', 'app', 'one'), (2002, 'fcm', 'app', 'two');
SELECT is((SELECT chat.revoke_device(1, 2002, 2001)), true, 'a device is signed out');
SELECT is((SELECT array_agg(device_id) FROM chat.push_targets WHERE device_id IN (2001, 2002)), '{2002}', 'and its push target is gone, the other''s is not');

-- -- verifiers that nobody can sign in with --------------------------------------------------------------------------------
SELECT throws_ok(format('INSERT INTO chat.credentials (user_id, verifier) VALUES (1, %L)', replace(pg_temp.verifier(1), '600000', iterations)), '23514', NULL,
	iterations || ' iterations') FROM (VALUES ('4095'), ('10000001')) AS bad (iterations);
SELECT lives_ok(format('INSERT INTO chat.credentials (user_id, verifier) VALUES (1, %L)', replace(pg_temp.verifier(1), '600000', '4096')), '4096 are good');

-- -- who may see it ------------------------------------------------------------------------------------------------------
SELECT throws_ok($$SELECT test.as_role('chat_admin', 'SELECT verifier FROM chat.credentials')$$, '42501', NULL, 'an administrator reads no verifier');
SELECT lives_ok($$SELECT test.as_role('chat_admin', 'SELECT email FROM chat.credentials')$$, 'but addresses');
SELECT throws_ok($$SELECT test.as_role('chat_plugin', 'SELECT email FROM chat.credentials')$$, '42501', NULL, 'the plugin has its functions');

SELECT * FROM finish();
ROLLBACK;
