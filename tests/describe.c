/* describe.c - prints what the code knows: options, topics and error codes, for tests/check_docs.sh.
 *
 *   describe options    name TAB default TAB reloadable|fixed TAB help
 *   describe topics     chat/{conversation}/send, ...
 *   describe errors     one code a line
 *   describe notifier   the notifier's options: name TAB providers TAB default TAB help
 *
 * Nothing is listed here that is listed in the code: topics are found by asking topic_parse() what it knows.
 */
#include "buffer.h"
#include "config.h"
#include "error.h"
#include "options.h"
#include "topic.h"

#include <stdio.h>
#include <string.h>

static int describe_options(void)
{
	struct buffer out;
	buffer_init(&out, 65536);
	options_describe(&out);
	if (!out.failed)
		fwrite(out.data, 1, out.length, stdout);
	buffer_free(&out);
	return out.failed;
}

/* Where a topic of this kind stands: under a conversation or a user; or it carries a name. */
static void describe_topic(enum topic_kind kind)
{
	char text[TOPIC_TEXT_MAX];
	topic_format(kind, 42, text);
	const char *word = strrchr(text, '/') + 1;
	bool of_user = strncmp(text, "chat/user/", 10) == 0;
	if (topic_parse(text).kind != kind)
		printf("topic_format and topic_parse differ for kind %d\n", (int)kind);
	printf("chat/%s/%s\n", of_user ? "user/{user}" : "{conversation}", word);
}

static int describe_topics(void)
{
	for (enum topic_kind kind = TOPIC_SEND; kind <= TOPIC_RESPONSE; kind++) {
		if (kind == TOPIC_REQUEST || kind == TOPIC_RESPONSE)
			continue;
		describe_topic(kind);
	}
	if (topic_parse("chat/request/message.send").kind == TOPIC_REQUEST)
		printf("chat/request/{method}\n");
	if (topic_parse("chat/response/tv-1").kind == TOPIC_RESPONSE)
		printf("chat/response/{client id}\n");
	return 0;
}

static int describe_errors(void)
{
	for (enum error_code code = ERROR_NONE + 1; code < ERROR_CODES; code++)
		printf("%s\n", error_code_name(code));
	return 0;
}

static int describe_notifier(void)
{
	for (const struct config_option *option = config_options(); option->name; option++)
		printf("%s\t%s\t%s\t%s\n", option->name, option->section ? option->section : "-",
			option->fallback ? option->fallback : "-", option->help);
	return 0;
}

int main(int argc, char **argv)
{
	const char *what = argc == 2 ? argv[1] : "";
	if (!strcmp(what, "options"))
		return describe_options();
	if (!strcmp(what, "topics"))
		return describe_topics();
	if (!strcmp(what, "errors"))
		return describe_errors();
	if (!strcmp(what, "notifier"))
		return describe_notifier();
	fprintf(stderr, "usage: %s options|topics|errors|notifier\n", argv[0]);
	return 2;
}
