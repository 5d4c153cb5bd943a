-- content.sql - conversations with something in them to be read and found: groups :first … :first + :people - 1 of the users of the same
-- numbers, each user in 10 of them (or as many as there are) and each of them with :each messages, made of 3 to 20 words of several
-- languages, some common and most rare, as words are. For psql, as superuser: -v first=N -v people=N -v each=N. Users must be there.
-- Nothing is indexed for search yet: chat.index_missed does that.
--
-- The functions stay, for whoever asks about these conversations: bench_word(random), bench_text(random).
SET session_replication_role = replica; -- no triggers: the rows below agree with each other
SET synchronous_commit = off;

CREATE OR REPLACE FUNCTION public.bench_word(place double precision) RETURNS text LANGUAGE sql IMMUTABLE AS $$
	-- A quarter of all words is one of the first; the rest are 20,000 made-up ones, the low numbers more often.
	SELECT CASE WHEN place < 0.25 THEN (ARRAY['the', 'you', 'tomorrow', 'meeting', 'yes', 'no', 'thanks', 'when', 'photo', 'und', 'nicht', 'morgen', 'danke', 'heute',
		'Straße', 'merci', 'demain', 'été', 'café', 'où', 'gracias', 'mañana', 'когда', 'завтра', 'спасибо', 'привет', 'αύριο', 'ευχαριστώ', 'غدا', 'شكرا', 'कल', 'धन्यवाद',
		'明天见', '谢谢你', '在哪里', '会议', 'ありがとう', '明日', '東京駅', '내일', 'ขอบคุณ'])[1 + floor(place * 4 * 41)::integer]
	ELSE translate((1000 + 20000 * ((place - 0.25) / 0.75) ^ 3)::bigint::text, '0123456789', 'aeioukrtsn') END
$$;
CREATE OR REPLACE FUNCTION public.bench_text(place double precision) RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT string_agg(public.bench_word(random()), ' ') FROM generate_series(1, 3 + floor(17 * place)::integer)
$$;

INSERT INTO chat.conversations (id, type, name, last_seq, last_ordinal) SELECT id, 'group', 'bench', :each, :each FROM generate_series(:first::bigint, :first + :people - 1) id;
INSERT INTO chat.conversation_participants (conversation_id, user_id, role, joined_seq, first_visible_seq)
SELECT c, :first + (c - :first + n) % :people, (CASE n WHEN 0 THEN 'owner' ELSE 'member' END)::chat.participant_role, 0, 1
FROM generate_series(:first::bigint, :first + :people - 1) c, generate_series(0, least(10, :people) - 1) n;
INSERT INTO chat.participant_watermarks (conversation_id, user_id, delivered_seq, read_seq, read_ordinal)
SELECT conversation_id, user_id, 0, 0, 0 FROM chat.conversation_participants WHERE conversation_id BETWEEN :first AND :first + :people - 1;
-- Written in turn, so that a conversation's messages lie as far apart as they do in life.
INSERT INTO chat.messages (conversation_id, seq, ordinal, sender_id, client_id, content_hash, type, body)
SELECT c, seq, seq, :first + (c - :first + seq % least(10, :people)) % :people, gen_random_uuid(), gen_random_uuid(), 'text', public.bench_text(random())
FROM generate_series(1, :each) seq, generate_series(:first::bigint, :first + :people - 1) c;
SET session_replication_role = origin;
