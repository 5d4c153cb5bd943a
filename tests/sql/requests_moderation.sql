-- Moderation: reporting, the moderators' list, what they decide, suspensions.
BEGIN;
SELECT no_plan();

SELECT test.users(1, 9); -- 1 and 2 are members, 3 joins later, 4 is a stranger, 8 and 9 are moderators
SELECT test.group(1, 1, 2);
INSERT INTO chat.conversations (id, type, name, is_public) VALUES (2, 'channel', 'news', true);
INSERT INTO chat.conversation_participants (conversation_id, user_id, role) VALUES (2, 1, 'owner');
UPDATE chat.users SET moderator = true WHERE id IN (8, 9);
SELECT test.append('[{"c":1,"s":1,"id":1,"body":"first"},{"c":1,"s":2,"id":2,"body":"second"},{"c":1,"s":2,"id":3,"body":"third","extra":{"meta":{"a":null}}}]') \g /dev/null
SELECT test.append('[{"c":1,"s":2,"id":4,"type":"edit","ref":3,"body":"worse"},{"c":1,"s":1,"id":5,"type":"opaque","body":"ciphertext"},{"c":2,"s":1,"id":6,"body":"headline"}]') \g /dev/null
INSERT INTO chat.messages (conversation_id, body) VALUES (1, 'system');
INSERT INTO chat.conversation_participants (conversation_id, user_id) VALUES (1, 3);
SELECT test.append('[{"c":1,"s":3,"id":7,"body":"hello"}]') \g /dev/null

-- Reporting
SELECT is(test.ask(1, 'moderation.report', '{"conversation":1,"seq":3,"reason":"rude"}'), '{}', 'a member reports a message');
SELECT is(test.ask(1, 'moderation.report', '{"conversation":1,"seq":3}'), '{}', 'twice');
SELECT is((SELECT string_agg(conversation_id || '/' || seq || ' ' || reporter_id || ' ' || reason, ',') FROM chat.reports), '1/3 1 rude', 'which is one report');
SELECT is(test.ask(1, 'moderation.report', '{"conversation":1,"seq":4}'), '{}', 'an edit is its message');
SELECT is((SELECT count(*) FROM chat.reports), 1::bigint, 'which was reported already');
SELECT is(test.error(1, 'moderation.report', '{"conversation":1,"seq":99}'), 'not_found', 'there must be such a message');
SELECT is(test.error(1, 'moderation.report', '{"conversation":1,"seq":6}'), 'not_found', 'of a person');
SELECT is(test.error(3, 'moderation.report', '{"conversation":1,"seq":3}'), 'not_found', 'who cannot see it does not report it');
SELECT is(chat_api.call('moderation.report', 3, 0, 'x', '{"conversation":1,"seq":3}'), chat_api.call('moderation.report', 3, 0, 'x', '{"conversation":1,"seq":99}'), 'and does not learn that it is there');
SELECT is(test.error(4, 'moderation.report', '{"conversation":1,"seq":3}'), 'not_found', 'nor does a stranger');
SELECT is(test.ask(4, 'moderation.report', '{"conversation":2,"seq":1}'), '{}', 'a public channel is read by all, and reported by all');
SELECT is(test.error(1, 'moderation.report', '{"conversation":1}'), 'invalid_field seq', 'what is missing');
SELECT is(test.error(1, 'moderation.report', jsonb_build_object('conversation', 1, 'seq', 3, 'reason', repeat('x', 501))), 'too_long reason', 'what is too long');
SAVEPOINT quota;
INSERT INTO chat.reports (conversation_id, seq, reporter_id) SELECT 2, seq, 2 FROM generate_series(101, 150) seq;
SELECT is(test.error(2, 'moderation.report', '{"conversation":1,"seq":1}'), 'quota_exceeded', 'fifty are enough');
UPDATE chat.reports SET created_at = now() - interval '25 hours' WHERE reporter_id = 2 AND seq = 101;
SELECT is(test.ask(2, 'moderation.report', '{"conversation":1,"seq":1}'), '{}', 'in a day');
SELECT is(test.error(2, 'moderation.report', '{"conversation":1,"seq":5}'), 'quota_exceeded', 'fifty again');
UPDATE chat.reports SET resolution = 'dismissed', resolved_at = now() WHERE reporter_id = 2 AND seq = 102;
SELECT is(test.ask(2, 'moderation.report', '{"conversation":1,"seq":5}'), '{}', 'those that were decided do not count');
ROLLBACK TO quota;

-- The list
SELECT is(array_agg(DISTINCT chat_api.call(method, who, 0, 'x', params)),
	'{"{\"error\": {\"code\": \"forbidden\", \"message\": \"this is for moderators\"}}"}', 'who is no moderator gets one answer to everything')
FROM (VALUES ('moderation.list', '{}'::jsonb), ('moderation.list', '{"nonsense":1}'), ('moderation.resolve', '{"report":1,"resolution":"dismissed"}'), ('moderation.resolve', '{}'),
	('moderation.suspend', '{"user":1}'), ('moderation.suspend', '{"user":999}'), ('moderation.unsuspend', '{"user":1}')) AS asked (method, params), unnest('{1,4}'::bigint[]) who;
SELECT is(jsonb_path_query_array(test.ask(8, 'moderation.list'), '$.reports[*].seq'), '[3, 1]', 'what was reported, the oldest first');
SELECT is(test.ask(8, 'moderation.list') #> '{reports,0}' #- '{id}' #- '{created_at}' #- '{message,edited_at}' #- '{message,sent_at}', '{"seq":3,"reason":"rude","conversation":{"id":1,"type":"group"},
	"reporter":{"id":1,"username":"user1","display_name":"user1"},"author":{"id":2,"username":"user2","display_name":"user2","suspended":false},
	"message":{"seq":3,"id":"00000000-0000-0000-0000-000000000003","from":2,"type":"text","body":"worse","meta":{"a":null}},
	"context":[{"seq":1,"id":"00000000-0000-0000-0000-000000000001","from":1,"type":"text","body":"first","sent_at":1000000},{"seq":2,"id":"00000000-0000-0000-0000-000000000002","from":2,"type":"text","body":"second","sent_at":1000000}]}',
	'with the text as it is now, who wrote and who reported it, and what came before');
SELECT test.ask(1, 'moderation.report', '{"conversation":1,"seq":5}') \g /dev/null
SELECT is(test.ask(8, 'moderation.list') #> '{reports,2,message}' #- '{sent_at}', '{"seq":5,"id":"00000000-0000-0000-0000-000000000005","from":1,"type":"opaque"}', 'of an opaque message nothing is shown');
SELECT test.ask(2, 'moderation.report', '{"conversation":1,"seq":7}') \g /dev/null
SELECT is(jsonb_path_query_array(test.ask(8, 'moderation.list'), '$.reports[3].context[*].seq'), '[4, 5, 6]', 'at most three entries before');
SELECT test.ask(3, 'moderation.report', '{"conversation":1,"seq":7}') \g /dev/null
SELECT is(test.ask(8, 'moderation.list') #> '{reports,4,context}', '[]', 'and none that the reporter could not see');
SELECT is(jsonb_path_query_array(test.ask(8, 'moderation.list', '{"limit":2}'), '$.reports[*].seq'), '[3, 1]', 'page by page');
SELECT is(test.ask(8, 'moderation.list', '{"limit":2}') -> 'more', 'true', 'with more to come');
SELECT is(jsonb_path_query_array(test.ask(8, 'moderation.list', jsonb_build_object('after', (SELECT id FROM chat.reports ORDER BY id OFFSET 1 LIMIT 1))), '$.reports[*].seq'), '[5, 7, 7]', 'after the last one');
SELECT is(test.ask(8, 'moderation.list', '{"state":"resolved"}'), '{"reports":[],"more":false}', 'nothing is decided yet');
SELECT is(test.error(8, 'moderation.list', '{"state":"all"}'), 'invalid_field state', 'a state is one of two');
SELECT is(test.error(8, 'moderation.list', '{"limit":51}'), 'invalid_field limit', 'a limit has one');
SELECT is((SELECT jsonb_array_length(test.ask(8, 'moderation.list') -> 'reports')), 5, 'five reports');

-- Deciding
CREATE FUNCTION pg_temp.report(conversation bigint, message bigint) RETURNS bigint LANGUAGE sql AS 'SELECT max(id) FROM chat.reports WHERE conversation_id = conversation AND seq = message';
SELECT is(test.error(8, 'moderation.resolve', '{"report":9007199254740991,"resolution":"dismissed"}'), 'not_found', 'a report that is not there');
SELECT is(test.error(8, 'moderation.resolve', '{"report":1}'), 'invalid_field resolution', 'no decision');
SELECT is(test.error(8, 'moderation.resolve', jsonb_build_object('report', pg_temp.report(1, 7), 'resolution', 'dismissed', 'until', 0)), 'invalid_field until', 'a time of what does not end');
SELECT is(test.ask(8, 'moderation.resolve', jsonb_build_object('report', pg_temp.report(1, 7), 'resolution', 'dismissed', 'note', 'harmless')), '{}', 'dismissed');
SELECT is((SELECT string_agg(concat_ws(' ', reporter_id, resolution, resolved_by, note), ', ' ORDER BY id) FROM chat.reports WHERE seq = 7), '2 dismissed 8 harmless, 3 dismissed 8 harmless', 'for all who reported it');
SELECT is(test.error(9, 'moderation.resolve', jsonb_build_object('report', pg_temp.report(1, 7), 'resolution', 'deleted')), 'conflict', 'what is decided is decided');
SELECT is((SELECT body FROM chat.messages WHERE conversation_id = 1 AND seq = 7), 'hello', 'and nothing else was done');
SELECT is(jsonb_path_query_array(test.ask(8, 'moderation.list', '{"state":"resolved"}'), '$.reports[*].resolution'), '["dismissed", "dismissed"]', 'the list of what was decided');
SELECT chat.index_missed(0, 1000) \g /dev/null
SELECT is(jsonb_array_length(test.ask(1, 'message.search', '{"query":"worse"}') -> 'hits'), 1, 'a message that is found');
SELECT is(test.ask(8, 'moderation.resolve', jsonb_build_object('report', pg_temp.report(1, 3), 'resolution', 'deleted')), '{}', 'deleted');
SELECT is((SELECT string_agg(concat_ws(' ', seq, type, body, extra), ', ' ORDER BY seq) FROM chat.messages WHERE conversation_id = 1 AND seq IN (3, 4)), '3 deleted, 4 edit', 'the bodies are gone, edits included');
SELECT is((SELECT concat_ws(' ', seq, type, ref, sender_id) FROM chat.messages WHERE conversation_id = 1 ORDER BY seq DESC LIMIT 1), '8 delete 3 8', 'an entry of the log says so');
SELECT is(jsonb_path_query_array(test.ask(2, 'message.history', '{"conversation":1}'), '$.messages[2].type'), '["deleted"]', 'history has a tombstone');
SELECT is(test.ask(1, 'message.search', '{"query":"worse"}') -> 'hits', '[]', 'searches do not find it');
SELECT is(test.ask(8, 'moderation.list', '{"state":"resolved"}') #> '{reports,0,message}', '{"seq":3,"type":"deleted"}', 'and moderators do not see it either');
SELECT is(test.error(1, 'moderation.report', '{"conversation":1,"seq":3}'), 'not_found', 'it cannot be reported again');
SELECT is(test.ask(9, 'moderation.resolve', jsonb_build_object('report', pg_temp.report(2, 1), 'resolution', 'suspended', 'note', 'enough')), '{}', 'suspended');
SELECT is((SELECT concat_ws(' ', status, suspended_until, suspended_by, suspended_reason) FROM chat.users WHERE id = 1), 'suspended 9 enough', 'is the author, for ever');
SELECT is(test.error(1, 'user.get'), 'unauthenticated', 'who can do nothing now');
SELECT is(test.ask(8, 'moderation.list', '{"state":"resolved"}') #>> '{reports,1,author,suspended}', 'true', 'moderators see that');
INSERT INTO chat.reports (conversation_id, seq, rule_id) VALUES (1, 2, 7), (1, 98, 7);
SELECT is(test.ask(8, 'moderation.list') #> '{reports,1}' #- '{id}' #- '{created_at}' #- '{message,sent_at}', '{"seq":2,"rule":7,"conversation":{"id":1,"type":"group"},"author":{"id":2,"username":"user2","display_name":"user2","suspended":false},
	"message":{"seq":2,"id":"00000000-0000-0000-0000-000000000002","from":2,"type":"text","body":"second"},"context":[]}', 'what a rule has flagged, without what came before');
SELECT is(test.error(8, 'moderation.resolve', jsonb_build_object('report', pg_temp.report(1, 98), 'resolution', 'suspended')), 'not_found', 'a message that is gone has no author');
SELECT is(test.ask(8, 'moderation.resolve', jsonb_build_object('report', pg_temp.report(1, 98), 'resolution', 'deleted')), '{}', 'and is deleted as it is');

-- Suspending
SELECT is(test.ask(8, 'moderation.unsuspend', '{"user":1}'), '{}', 'a suspension is lifted');
SELECT is((SELECT concat_ws(' ', status, suspended_until, suspended_by, suspended_reason) FROM chat.users WHERE id = 1), 'active', 'and forgotten');
SELECT is(test.ask(8, 'moderation.unsuspend', '{"user":1}'), '{}', 'twice');
SELECT is(test.error(8, 'moderation.unsuspend', '{"user":999}'), 'not_found', 'of nobody');
SELECT is(test.error(8, 'moderation.suspend', '{"user":999}'), 'not_found', 'nobody is suspended');
SELECT is(test.error(8, 'moderation.suspend', '{"user":8}'), 'forbidden', 'no moderator suspends themself');
SELECT is(test.error(8, 'moderation.suspend', '{"user":9}'), 'forbidden', 'or another');
SELECT is(test.error(8, 'moderation.suspend', '{"user":1,"until":1}'), 'invalid_field until', 'until yesterday');
SELECT is(test.ask(8, 'moderation.suspend', '{"user":1,"until":9007199254740991,"reason":"spam"}'), '{}', 'or for two hundred thousand years');
SELECT is((SELECT (status, suspended_by, suspended_reason)::text FROM chat.users WHERE id = 1 AND suspended_until > now()), '(suspended,8,spam)', 'until then');
SELECT is(chat.lift_suspensions(), 0, 'it is not over');
UPDATE chat.users SET suspended_until = now() - interval '1 second' WHERE id = 1;
UPDATE chat.users SET status = 'suspended' WHERE id = 2;
SELECT is(chat.lift_suspensions(), 1, 'once it is, it ends');
SELECT is((SELECT array_agg(status ORDER BY id) FROM chat.users WHERE id < 3), '{active,suspended}', 'and no other');
UPDATE chat.users SET status = 'suspended' WHERE id = 1;
SELECT is(chat.lift_suspensions(), 0, 'nor does the next one, for the time of the last');
SELECT is(test.ask(8, 'moderation.suspend', jsonb_build_object('user', 1, 'until', chat_api.ms(now() + interval '1 day'))), '{}', 'a moderator''s, for a day');
UPDATE chat.users SET status = 'suspended' WHERE id = 1;
SELECT is((SELECT (status, suspended_by, suspended_until)::text FROM chat.users WHERE id = 1), '(suspended,,)', 'an administrator''s after it is for ever');
UPDATE chat.users SET moderator = false WHERE id = 8;
SELECT is(test.error(8, 'moderation.list'), 'forbidden', 'who is a moderator no more');
SELECT throws_ok($$SELECT test.as_role('chat_plugin', 'SELECT chat.erase_message(1, 1, 1)')$$, '42501', NULL, 'nobody deletes but by a method');
DELETE FROM chat.users WHERE id = 2;
SELECT is((SELECT count(*) FROM chat.reports WHERE seq = 7), 2::bigint, 'reports outlive who made them');

SELECT * FROM finish();
ROLLBACK;
