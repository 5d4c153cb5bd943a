-- The search index for less: text of one byte a character needs no normalisation and holds no script without spaces, and more of
-- what is new is sorted in at once.

CREATE OR REPLACE FUNCTION chat.search_words(p_conversation bigint, body text) RETURNS tsvector LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	IF octet_length(body) = length(body) THEN
		RETURN to_tsvector('simple', left(body, 10000)) || array_to_tsvector(ARRAY['#' || p_conversation]);
	END IF;
	RETURN to_tsvector('simple', chat.pair_up(chat.searched_text(body))) || array_to_tsvector(ARRAY['#' || p_conversation]);
END $$;

-- A search reads what is not sorted in yet, 2 MB at most.
ALTER INDEX chat.search_entries_words SET (gin_pending_list_limit = 2048);
