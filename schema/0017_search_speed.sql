-- The search index for less: neighbouring messages share an entry. And searching for less: the answer is written as text, without looking for
-- what it leaves out.
--
-- An entry holds the words of a run of up to 8 messages, those that were indexed together; where messages come one by one, so do
-- entries. It says in which runs to look, and a search reads the messages of these again and decides: so two words of two messages of a
-- run are no hit, and neither are two pairs of characters that do not follow each other. Where a message leaves its run or is changed,
-- the entry is made again of what is left, in the same transaction.

-- Only the order of `id` counts, and no search goes by it.
ALTER TABLE chat.search_entries DROP CONSTRAINT search_entries_pkey, DROP CONSTRAINT search_entries_message_key,
	ADD PRIMARY KEY (conversation_id, seq), ADD COLUMN span smallint NOT NULL DEFAULT 1;
COMMENT ON TABLE chat.search_entries IS 'The words of runs of messages, filled by chat.index_messages. What is changed or erased in chat.messages leaves it at once.';
COMMENT ON COLUMN chat.search_entries.seq IS 'The last message of the run.';
COMMENT ON COLUMN chat.search_entries.span IS 'How many numbers it is long.';
COMMENT ON COLUMN chat.search_entries.words IS 'Their words, and "#" with the number of the conversation.';
-- A search reads all that is not sorted in yet, some 17 µs a page of 8 KB.
ALTER INDEX chat.search_entries_words SET (gin_pending_list_limit = 256);

-- -- what is found -----------------------------------------------------------------------------------------------------

CREATE FUNCTION chat.has_words(type text, body text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
	SELECT body <> '' AND type NOT IN ('system', 'opaque', 'reaction', 'edit', 'delete', 'deleted')
$$;
COMMENT ON FUNCTION chat.has_words IS 'Whether an entry of a log is a message that can be found by its words.';

-- Text of one byte a character is in its form, and holds no script without spaces.
CREATE OR REPLACE FUNCTION chat.searched_text(body text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
	SELECT CASE WHEN octet_length(body) = length(body) THEN left(body, 10000) ELSE left(normalize(left(body, 10000), NFKC), 10000) END
$$;

-- "<" begins what the parser takes for markup, and that may go on in the next message of a run.
DROP FUNCTION chat.search_words(bigint, text);
CREATE FUNCTION chat.search_words(line text) RETURNS tsvector LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	IF octet_length(line) <> length(line) THEN
		line := chat.pair_up(line);
	END IF;
	RETURN to_tsvector('simple', replace(line, '<', ' '));
END $$;
COMMENT ON FUNCTION chat.search_words IS 'The words of a text, or of several with line ends between.';

CREATE FUNCTION chat.search_entry(p_conversation bigint, line text) RETURNS tsvector LANGUAGE sql IMMUTABLE AS $$
	SELECT strip(chat.search_words(line)) || array_to_tsvector(ARRAY['#' || p_conversation::text])
$$;
COMMENT ON FUNCTION chat.search_entry IS 'What a run of messages is found by.';

-- -- filling the index -------------------------------------------------------------------------------------------------

-- In one statement for all conversations, as far as their entries and bytes are enough; lengths are known without reading the bodies.
DROP FUNCTION chat.index_messages, chat.unindexed_conversations;
CREATE FUNCTION chat.index_messages(p_conversations bigint[], p_limit integer, OUT indexed integer, OUT passed_over bigint[])
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET client_min_messages = warning SET lock_timeout = '50ms'
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET jit = off AS $$
DECLARE
	-- Of a run, which a search reads for one hit.
	k_messages CONSTANT integer := 8;
	k_bytes CONSTANT integer := 8000;
	v_conversation bigint[];
	v_first bigint[];
	v_last bigint[];
	v_done bigint;
	v_bytes bigint;
BEGIN
	BEGIN
		INSERT INTO chat.search_positions (conversation_id, indexed_seq)
		SELECT id, 0 FROM chat.conversations c WHERE id = ANY (p_conversations)
			AND NOT EXISTS (SELECT FROM chat.search_positions WHERE conversation_id = c.id)
		ORDER BY id ON CONFLICT DO NOTHING;
	EXCEPTION WHEN lock_not_available THEN
		NULL; -- somebody erases in one of them: those without a row are passed over
	END;
	SELECT array_agg(conversation_id ORDER BY conversation_id), array_agg(first_seq ORDER BY conversation_id), array_agg(last_seq ORDER BY conversation_id)
	INTO v_conversation, v_first, v_last
	FROM (SELECT conversation_id, indexed_seq + 1 AS first_seq, (SELECT last_seq FROM chat.conversations WHERE id = s.conversation_id) AS last_seq
		FROM chat.search_positions s
		WHERE conversation_id = ANY (p_conversations) AND (SELECT last_seq FROM chat.conversations WHERE id = s.conversation_id) > indexed_seq
		ORDER BY conversation_id LIMIT p_limit FOR UPDATE SKIP LOCKED) held;
	WITH held AS (
		SELECT * FROM unnest(v_conversation, v_first, v_last) AS h (conversation_id, first_seq, last_seq)
	), measured AS (
		SELECT *, sum(bytes) OVER (ORDER BY conversation_id, seq) AS so_far
		FROM (SELECT m.*, held.first_seq FROM held
			CROSS JOIN LATERAL (SELECT conversation_id, seq, type, body, expires_at, coalesce(octet_length(body), 0) AS bytes FROM chat.messages
				WHERE conversation_id = held.conversation_id AND seq BETWEEN held.first_seq AND held.last_seq ORDER BY seq OFFSET 0) m
			LIMIT p_limit) m
	), taken AS MATERIALIZED (
		SELECT * FROM measured WHERE so_far - bytes < 200 * p_limit
	), entered AS (
		INSERT INTO chat.search_entries (conversation_id, seq, span, words)
		SELECT conversation_id, max(seq), max(seq) - min(seq) + 1, chat.search_entry(conversation_id, string_agg(chat.searched_text(body), E'\n'))
		FROM taken WHERE chat.has_words(type, body) AND (expires_at > now()) IS NOT FALSE
		GROUP BY conversation_id, (seq - first_seq) / k_messages, so_far / k_bytes ORDER BY conversation_id, max(seq)
	), moved AS (
		-- The last may not have been read to its end; what is missing of those before is gone.
		UPDATE chat.search_positions s SET indexed_seq = reached.seq
		FROM (SELECT held.conversation_id, held.first_seq, CASE WHEN held.conversation_id = last.conversation_id THEN last.seq ELSE held.last_seq END AS seq
			FROM held LEFT JOIN (SELECT conversation_id, seq FROM taken ORDER BY conversation_id DESC, seq DESC LIMIT 1) last ON true
			WHERE (held.conversation_id <= last.conversation_id) IS NOT FALSE OFFSET 0) reached
		WHERE s.conversation_id = ANY (ARRAY[reached.conversation_id])
		RETURNING reached.seq - reached.first_seq + 1 AS entries
	)
	SELECT coalesce(sum(entries), 0), (SELECT max(so_far) FROM taken) INTO v_done, v_bytes FROM moved;
	indexed := CASE WHEN v_bytes >= 200 * p_limit THEN greatest(v_done, p_limit) ELSE v_done END;
	passed_over := '{}';
	IF indexed < p_limit THEN
		passed_over := ARRAY(SELECT id FROM (SELECT unnest(p_conversations) AS id EXCEPT SELECT unnest(v_conversation)) w
			WHERE (SELECT last_seq FROM chat.conversations c WHERE c.id = w.id)
				> coalesce((SELECT indexed_seq FROM chat.search_positions s WHERE s.conversation_id = w.id), 0)
			ORDER BY id);
	END IF;
END $$;
COMMENT ON FUNCTION chat.index_messages IS 'Brings the search index up to date for these conversations, by so many entries '
	'at most and 200 bytes for each of that many. indexed: how many they were, and no less than so many where it stopped at a limit. passed_over: where it did not, '
	'those of the conversations that somebody else held, and that are still behind. Several may run at once.';

CREATE FUNCTION chat.index_missed(p_after bigint, p_limit integer, OUT after bigint, OUT passed_over bigint[])
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET jit = off AS $$
DECLARE
	k_conversations CONSTANT integer := 1000;
	v_behind bigint[];
	v_indexed integer;
BEGIN
	SELECT array_agg(id) FILTER (WHERE last_seq > coalesce((SELECT indexed_seq FROM chat.search_positions WHERE conversation_id = id), 0)),
		CASE WHEN count(*) = k_conversations THEN max(id) ELSE -1 END
	INTO v_behind, after
	FROM (SELECT id, last_seq FROM chat.conversations WHERE id > p_after ORDER BY id LIMIT k_conversations) c;
	SELECT i.indexed, i.passed_over INTO v_indexed, passed_over FROM chat.index_messages(coalesce(v_behind, '{}'), p_limit) i;
	IF v_indexed >= p_limit THEN
		after := p_after; -- there may be more of them
	END IF;
END $$;
COMMENT ON FUNCTION chat.index_missed IS 'chat.index_messages for those that are behind of the 1,000 conversations after one. after: the conversation to go on after, -1 '
	'at the end of all.';

-- Those of its rows that were among the words; a message that is not in the index yet is in no run.
CREATE OR REPLACE FUNCTION chat.search_forget() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
BEGIN
	-- The lock keeps the indexer from what is being removed, and waits for one that has just read it.
	INSERT INTO chat.search_positions (conversation_id, indexed_seq)
	SELECT DISTINCT conversation_id, 0 FROM before ORDER BY conversation_id ON CONFLICT DO NOTHING;
	PERFORM FROM chat.search_positions WHERE conversation_id = ANY (ARRAY(SELECT conversation_id FROM before)) ORDER BY conversation_id FOR UPDATE;
	WITH run AS MATERIALIZED (
		SELECT DISTINCT e.conversation_id, e.seq, e.span
		FROM (SELECT * FROM before WHERE chat.has_words(type, body)) b
		CROSS JOIN LATERAL (SELECT * FROM chat.search_entries WHERE conversation_id = b.conversation_id AND seq >= b.seq ORDER BY seq LIMIT 1) e
		WHERE e.seq - e.span < b.seq
	), rest AS MATERIALIZED (
		SELECT run.conversation_id, run.seq, (SELECT string_agg(chat.searched_text(m.body), E'\n')
			FROM (SELECT * FROM chat.messages WHERE conversation_id = run.conversation_id
				AND seq BETWEEN run.seq - run.span + 1 AND run.seq ORDER BY seq OFFSET 0) m
			WHERE chat.has_words(m.type, m.body) AND (m.expires_at > now()) IS NOT FALSE) AS lines
		FROM run
	), empty AS (
		DELETE FROM chat.search_entries e USING rest
		WHERE rest.lines IS NULL AND e.conversation_id = ANY (ARRAY[rest.conversation_id]) AND e.seq = rest.seq
	)
	UPDATE chat.search_entries e SET words = chat.search_entry(e.conversation_id, rest.lines)
	FROM rest
	WHERE rest.lines IS NOT NULL AND e.conversation_id = ANY (ARRAY[rest.conversation_id]) AND e.seq = rest.seq;
	RETURN NULL;
END $$;
-- Both know only what was there before.
DROP TRIGGER search_erased ON chat.messages;
CREATE TRIGGER search_erased AFTER UPDATE ON chat.messages
	REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION chat.search_forget();

-- -- answers -----------------------------------------------------------------------------------------------------------

DROP FUNCTION chat_api.search_query(text);
CREATE FUNCTION chat_api.search_query(query text, OUT words tsquery, OUT runs text[], OUT whole tsquery, OUT patterns text[])
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
	run text;
	rest text := replace(normalize(query, NFKC), '<', ' ');
BEGIN
	runs := '{}';
	IF octet_length(rest) <> length(rest) THEN
		runs := ARRAY(SELECT match[1] FROM regexp_matches(rest, chat.spaceless() || '+', 'g') AS match);
		rest := regexp_replace(rest, chat.spaceless() || '+', ' ', 'g');
	END IF;
	words := plainto_tsquery('simple', rest);
	whole := words;
	FOREACH run IN ARRAY runs LOOP
		whole := whole && CASE char_length(run) WHEN 1 THEN (quote_literal(run) || ':*')::tsquery
			-- The last character alone, which pair_up adds, would demand that the run ends there.
			ELSE plainto_tsquery('simple', regexp_replace(chat.pair_up(run), ' . $', '')) END;
	END LOOP;
	-- Of letters whose case every language changes alike.
	patterns := ARRAY(SELECT '%' || regexp_replace(lexeme, '[\\%_]', '\\\&', 'g') || '%' FROM unnest(tsvector_to_array(to_tsvector('simple', rest))) AS lexeme
		WHERE octet_length(lexeme) = length(lexeme));
END $$;
COMMENT ON FUNCTION chat_api.search_query IS 'A query''s words; its runs of scripts without spaces; what an entry of the index must have of both; and what a text of '
	'one byte a character must be like, in small letters.';

-- Other indexes would read whole conversations for a rare word: only an index of words answers with a bitmap alone.
DROP FUNCTION chat_api.search_matches(tsquery, bigint);
CREATE FUNCTION chat_api.search_matches(p_query tsquery, p_last bigint) RETURNS TABLE (id bigint, conversation_id bigint, first_seq bigint, last_seq bigint)
LANGUAGE plpgsql STABLE SET enable_indexscan = off SET enable_indexonlyscan = off AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY SELECT e.id, e.conversation_id, e.seq - e.span + 1, e.seq FROM chat.search_entries e WHERE e.words @@ p_query AND e.id <= p_last;
END $$;
COMMENT ON FUNCTION chat_api.search_matches IS 'The runs that match, up to a number; in no order.';

-- As before, but as text: the line is written as one JSON string, and then cut at the marks.
DROP FUNCTION chat_api.highlight;
CREATE FUNCTION chat_api.highlight(body text, words tsquery, runs text[], needles text[]) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
	k_before CONSTANT integer := 60;
	k_around CONSTANT integer := 200;
	line text := CASE WHEN octet_length(body) = char_length(body) THEN left(body, 10000) ELSE translate(chat.searched_text(body), U&'\E000\E001', '') END;
	lower_line text;
	part text;
	place integer;
BEGIN
	IF char_length(line) > k_before THEN
		lower_line := lower(line);
		FOREACH part IN ARRAY needles LOOP
			place := least(place, nullif(strpos(lower_line, part), 0));
		END LOOP;
		line := substr(line, greatest(1, place - k_before), k_around);
	END IF;
	IF numnode(words) > 0 THEN
		line := ts_headline('simple', line, words, U&'HighlightAll=true,StartSel=\E000,StopSel=\E001');
	END IF;
	FOREACH part IN ARRAY runs LOOP
		line := replace(line, part, U&'\E000' || part || U&'\E001');
	END LOOP;
	line := replace(replace(to_json(line)::text, U&'\E000', '"},{"text":"'), U&'\E001', '","match":true},{"text":"');
	IF cardinality(runs) > 1 THEN -- one may be a part of another
		line := replace(line, '{"text":"","match":true},', '');
	END IF;
	RETURN '[' || replace(replace(replace('{"text":' || line || '}', '{"text":""},', ''), ',{"text":""}', ''), '{"text":""}', '') || ']';
END $$;
COMMENT ON FUNCTION chat_api.highlight IS 'What is around the first place where something was found, in parts. needles: what to look for, in lower case.';

DROP FUNCTION chat_api.message_search;
CREATE FUNCTION chat_api.message_search(caller chat_api.caller, params jsonb) RETURNS text LANGUAGE plpgsql STABLE
SET client_min_messages = warning SET enable_hashjoin = on AS $$
DECLARE
	k_places CONSTANT bigint := 64; -- numbers that an entry has for the places of its messages among the results
	v_query text;
	v_before bigint;
	v_limit integer;
	v_conversation bigint; -- the one that is searched; NULL: all of the caller's
	v_first bigint;
	v_mine tsquery;
	v_needles text[];
	v_items text := '';
	v_seen integer := 0;
	v_last bigint;
	q record;
	hit record;
BEGIN
	PERFORM chat_api.expect(params, 'query', 'conversation', 'before', 'limit'), chat_api.require(params, 'query');
	v_query := chat_api.param_line(params, 'query', 1, 200);
	v_before := chat_api.param_integer(params, 'before', 1, 9007199254740991, 9007199254740991);
	v_limit := chat_api.param_integer(params, 'limit', 1, 50, 20);
	IF params ? 'conversation' THEN
		v_conversation := chat_api.param_id(params, 'conversation');
		v_first := (chat_api.readable(caller, v_conversation)).first_seq;
		v_mine := quote_literal('#' || v_conversation);
	ELSE
		SELECT string_agg(quote_literal('#' || conversation_id), '|') INTO v_mine FROM chat.conversation_participants WHERE user_id = caller.user_id;
	END IF;
	q := chat_api.search_query(v_query);
	IF numnode(q.whole) = 0 THEN
		PERFORM chat_api.refuse('invalid_field', 'query has no word to look for', 'query');
	END IF;
	v_needles := q.runs || regexp_split_to_array(lower(normalize(v_query, NFKC)), '[[:space:]]+');
	FOR hit IN
		WITH mine AS MATERIALIZED (
			SELECT c.id, chat_api.first_visible(c, p) AS first_visible
			FROM (SELECT * FROM chat.conversation_participants WHERE user_id = caller.user_id AND v_conversation IS NULL) p
			CROSS JOIN LATERAL (SELECT * FROM chat.conversations WHERE id = p.conversation_id OFFSET 0) c
			UNION ALL
			SELECT v_conversation, v_first WHERE v_conversation IS NOT NULL
		), hits AS MATERIALIZED (
			-- Run by run, each in turn read from its end, until there are enough.
			SELECT m.message, m.place
			FROM (SELECT e.*, mine.first_visible FROM chat_api.search_matches(v_mine && q.whole, v_before / k_places) e JOIN mine ON mine.id = e.conversation_id
				WHERE e.last_seq >= mine.first_visible ORDER BY e.id DESC OFFSET 0) run
			CROSS JOIN LATERAL (SELECT m AS message, run.id * k_places + k_places - 1 - (run.last_seq - m.seq) AS place
				FROM chat.messages m
				WHERE conversation_id = run.conversation_id AND seq BETWEEN greatest(run.first_seq, run.first_visible) AND run.last_seq
					AND chat.has_words(type, body) AND run.id * k_places + k_places - 1 - (run.last_seq - m.seq) < v_before
					AND (SELECT bool_and(strpos(chat.searched_text(body), part) > 0) FROM unnest(q.runs) AS part) IS NOT FALSE
					-- The words of a run of one are its own.
					AND (numnode(q.words) = 0 OR run.first_seq = run.last_seq
						OR (octet_length(body) <> length(body) OR lower(body COLLATE "C") LIKE ALL (q.patterns))
							AND chat.search_words(chat.searched_text(body)) @@ q.words)
				ORDER BY seq DESC OFFSET 0) m
			LIMIT v_limit + 1
		)
		SELECT place, (message).conversation_id, chat_api.message_head(message) AS head,
			CASE WHEN ((message).expires_at > now()) IS NOT FALSE THEN (message).body END AS body
		FROM hits
		ORDER BY place DESC
	LOOP
		v_seen := v_seen + 1;
		EXIT WHEN v_seen > v_limit;
		v_last := hit.place;
		IF hit.body IS NOT NULL THEN -- it may have expired a moment ago
			v_items := concat(v_items, CASE WHEN v_items <> '' THEN ',' END, '{"conversation":', hit.conversation_id, ',', hit.head,
				',"highlight":', chat_api.highlight(hit.body, q.words, q.runs, v_needles), '}');
		END IF;
	END LOOP;
	RETURN concat('{"hits":[', v_items, '],"more":', (v_seen > v_limit)::text, ',"before":' || v_last, '}');
END $$;

REVOKE ALL ON FUNCTION chat.has_words, chat.search_words, chat.search_entry, chat.index_messages, chat.index_missed, chat_api.search_query, chat_api.search_matches,
	chat_api.highlight, chat_api.message_search FROM PUBLIC;
GRANT EXECUTE ON FUNCTION chat.index_messages, chat.index_missed TO chat_plugin;
