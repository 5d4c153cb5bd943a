-- Searching for less. The index: text of one byte a character needs no normalisation and holds no script without spaces. The answer: written
-- as text, without looking for what it leaves out.

CREATE OR REPLACE FUNCTION chat.search_words(p_conversation bigint, body text) RETURNS tsvector LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	IF octet_length(body) = length(body) THEN
		RETURN to_tsvector('simple', left(body, 10000)) || array_to_tsvector(ARRAY['#' || p_conversation]);
	END IF;
	RETURN to_tsvector('simple', chat.pair_up(chat.searched_text(body))) || array_to_tsvector(ARRAY['#' || p_conversation]);
END $$;

-- A search reads all that is not sorted in yet, some 17 µs a page of 8 KB.
ALTER INDEX chat.search_entries_words SET (gin_pending_list_limit = 256);

-- -- answers -----------------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION chat_api.search_query(query text, OUT words tsquery, OUT runs text[], OUT whole tsquery) LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
	run text;
BEGIN
	query := normalize(query, NFKC);
	runs := '{}';
	IF query !~ chat.spaceless() THEN
		words := plainto_tsquery('simple', query);
		whole := words;
		RETURN;
	END IF;
	words := plainto_tsquery('simple', regexp_replace(query, chat.spaceless() || '+', ' ', 'g'));
	runs := ARRAY(SELECT match[1] FROM regexp_matches(query, chat.spaceless() || '+', 'g') AS match);
	whole := words;
	FOREACH run IN ARRAY runs LOOP
		whole := whole && CASE char_length(run) WHEN 1 THEN (quote_literal(run) || ':*')::tsquery
			-- The last character alone, which pair_up adds, would demand that the run ends there.
			ELSE phraseto_tsquery('simple', regexp_replace(chat.pair_up(run), ' . $', '')) END;
	END LOOP;
END $$;

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
			SELECT e.id, e.conversation_id, e.seq FROM chat_api.search_matches(v_mine && q.whole, v_before) e JOIN mine ON mine.id = e.conversation_id
			WHERE e.seq >= mine.first_visible
			ORDER BY e.id DESC LIMIT v_limit + 1
		)
		SELECT hits.id AS place, m.conversation_id, chat_api.message_head(m) AS head,
			CASE WHEN m.type NOT IN ('deleted', 'expired') AND (m.expires_at > now()) IS NOT FALSE THEN m.body END AS body
		FROM hits
		CROSS JOIN LATERAL (SELECT * FROM chat.messages WHERE conversation_id = hits.conversation_id AND seq BETWEEN hits.seq AND hits.seq ORDER BY seq OFFSET 0) m
		ORDER BY hits.id DESC
	LOOP
		v_seen := v_seen + 1;
		EXIT WHEN v_seen > v_limit;
		v_last := hit.place;
		IF hit.body IS NOT NULL THEN -- it may have been deleted, or have expired, a moment ago
			v_items := concat(v_items, CASE WHEN v_items <> '' THEN ',' END, '{"conversation":', hit.conversation_id, ',', hit.head,
				',"highlight":', chat_api.highlight(hit.body, q.words, q.runs, v_needles), '}');
		END IF;
	END LOOP;
	RETURN concat('{"hits":[', v_items, '],"more":', (v_seen > v_limit)::text, ',"before":' || v_last, '}');
END $$;

REVOKE ALL ON FUNCTION chat_api.highlight, chat_api.message_search FROM PUBLIC;
