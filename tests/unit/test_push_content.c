/* test_push_content.c - what a push says: levels, languages, and what is cut. */
#include "content.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static char title[204], body[1004], error[200];

static const char german[] = "# texts\n"
			     "[de]\n"
			     "body_sender = Neue Nachricht von {sender}\n"
			     "more =  ({count} neue)\n"
			     "image = Bild\r\n"
			     "\n"
			     "[de-AT]\n"
			     "image = A Büdl\n";

static void expect(
	struct content_templates *templates, struct content_message message, const char *wanted_title, const char *wanted_body)
{
	content_make(templates, &message, title, body);
	assert_string_equal(title, wanted_title);
	assert_string_equal(body, wanted_body);
}

static const struct content_message direct = {
	.conversation_type = "direct", .sender_name = "Alice", .type = "text", .body = "Hi", .count = 1};
static const struct content_message group = {.conversation_type = "group",
	.conversation_name = "Lunch",
	.sender_name = "Alice",
	.type = "text",
	.body = "Hi",
	.count = 1};

static struct content_message with_level(struct content_message message, enum content_level level)
{
	message.level = level;
	return message;
}

static struct content_message with_type(struct content_message message, const char *type, const char *text)
{
	message.type = type;
	message.body = text;
	return message;
}

static struct content_message with_language(struct content_message message, const char *language)
{
	message.language = language;
	return message;
}

static void levels(void **state)
{
	struct content_templates *templates = content_parse(NULL, 0, error, sizeof(error));
	struct content_message many = group;
	(void)state;
	expect(templates, direct, "Alice", "Hi");
	expect(templates, group, "Lunch", "Alice: Hi");
	expect(templates, with_level(group, CONTENT_SENDER), "Lunch", "New message from Alice");
	expect(templates, with_level(group, CONTENT_NONE), "Chat", "New message");
	expect(templates, (struct content_message){.test = true}, "Test", "Notifications reach this device.");
	many.count = 3;
	expect(templates, many, "Lunch (3 new)", "Alice: Hi");
	content_free(templates);
}

static void types(void **state)
{
	struct content_templates *templates = content_parse(NULL, 0, error, sizeof(error));
	(void)state;
	expect(templates, with_type(direct, "opaque", "c2VjcmV0"), "Alice", "New message from Alice");
	expect(templates, with_type(direct, "image", NULL), "Alice", "Photo");
	expect(templates, with_type(direct, "image", "the cat"), "Alice", "the cat");
	expect(templates, with_type(direct, "x-dice", "{\"eyes\":6}"), "Alice", "New message");
	expect(templates, with_type(direct, NULL, NULL), "Alice", "New message");
	content_free(templates);
}

static void nameless(void **state)
{
	struct content_templates *templates = content_parse(NULL, 0, error, sizeof(error));
	const struct content_message message = {.type = "text", .body = "{sender} {unknown} {", .count = 1};
	(void)state;
	/* What a user writes is no template. */
	expect(templates, message, "Group", "Someone: {sender} {unknown} {");
	content_free(templates);
}

static void languages(void **state)
{
	struct content_templates *templates = content_parse(german, strlen(german), error, sizeof(error));
	struct content_message image = with_language(with_type(direct, "image", NULL), "de-AT");
	(void)state;
	assert_non_null(templates);
	expect(templates, image, "Alice", "A Büdl");
	expect(templates, with_language(image, "de-CH-1996"), "Alice", "Bild");
	expect(templates, with_language(image, "DE"), "Alice", "Bild");
	expect(templates, with_language(image, "fr"), "Alice", "Photo");
	expect(templates, with_language(image, ""), "Alice", "Photo");
	image.count = 2;
	expect(templates, with_language(with_level(image, CONTENT_SENDER), "de"), "Alice (2 neue)", "Neue Nachricht von Alice");
	content_free(templates);
}

static void cut_at_characters(void **state)
{
	struct content_templates *templates = content_parse(NULL, 0, error, sizeof(error));
	char sender[302], text[1202];
	struct content_message message = direct;
	(void)state;
	for (size_t i = 0; i < 300; i += 3) {
		memcpy(sender + i, "\xe2\x82\xac", 3); /* a euro sign */
	}
	sender[300] = '\0';
	memset(text, 'x', 1200);
	text[500] = '\n';
	text[1200] = '\0';
	message.sender_name = sender;
	message.body = text;
	content_make(templates, &message, title, body);
	assert_int_equal(strlen(title), 198 + 3); /* 66 whole ones, and the ellipsis */
	assert_memory_equal(title + 195, "\xe2\x82\xac\xe2\x80\xa6", 6);
	assert_int_equal(strlen(body), 1003);
	assert_int_equal(body[500], ' ');
	content_free(templates);
}

static void mistakes(void **state)
{
	static const char *const wrong[] = {"image = x\n", "[de]\nimages = x\n", "[de]\nimage\n", "[de]\nimage = a\nimage = b\n",
		"[]\n", "[a-tag-that-is-too-long]\n", "[de]\nimage = \xff\n"};
	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		assert_null(content_parse(wrong[i], strlen(wrong[i]), error, sizeof(error)));
		assert_memory_equal(error, "line ", 5);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(levels), cmocka_unit_test(types), cmocka_unit_test(nameless),
		cmocka_unit_test(languages), cmocka_unit_test(cut_at_characters), cmocka_unit_test(mistakes)};
	return cmocka_run_group_tests_name("push_content", tests, NULL, NULL);
}
