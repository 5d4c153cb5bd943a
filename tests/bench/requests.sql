-- requests.sql - lines for `mqtt_load requests` about the conversations of content.sql: of 100 questions 60 are message.history, half of them for
-- the newest page and half somewhere in the log, 20 message.sync with cursors for all of the user's conversations, a third of them some
-- messages behind, and 20 message.search for one word or two, in one conversation or in all. For psql: -v first=N -v people=N -v each=N -v lines=N.
WITH lines AS MATERIALIZED (
	SELECT n, floor(:people * random())::bigint AS client, random() AS method, random() AS one, random() AS other, random() AS third
	FROM generate_series(1, :lines) n
), own AS (
	SELECT lines.*, :first + (client - floor(least(10, :people) * third)::bigint + :people) % :people AS conversation FROM lines
)
SELECT format('%s %s %s', client,
	CASE WHEN method < 0.6 THEN 'message.history' WHEN method < 0.8 THEN 'message.sync' ELSE 'message.search' END,
	CASE WHEN method < 0.3 THEN jsonb_build_object('conversation', conversation)
	WHEN method < 0.6 THEN jsonb_build_object('conversation', conversation, 'before', 1 + ceil(:each * one))
	WHEN method < 0.8 THEN (SELECT jsonb_build_object('cursors', jsonb_object_agg(conversation_id, :each - CASE WHEN random() < 0.33 THEN ceil(20 * random()) ELSE 0 END))
		FROM chat.conversation_participants WHERE user_id = :first + client)
	ELSE jsonb_strip_nulls(jsonb_build_object('query', public.bench_word(one) || CASE WHEN method < 0.9 THEN ' ' || public.bench_word(other) ELSE '' END,
		'conversation', CASE WHEN third < 0.3 THEN conversation END)) END)
FROM own ORDER BY n;
