/* test_envelope.c - what a client may send, as tables; the content hash; the JSON that clients receive. */
#include "../../common/buffer.h"
#include "../../common/json.h"
#include "../../common/text.h"
#include "../../plugin/envelope.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ID_TEXT "9f1c6f0e-3d0b-4a53-9f0e-6f6b0a6b7c11"
#define CHARS_16                                                                                                                 \
	"\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3"   \
	"\xa4\xc3\xa4"
#define CHARS_64 CHARS_16 CHARS_16 CHARS_16 CHARS_16
#define SHA_TEXT "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const uint8_t id_bytes[16] = {
	0x9f, 0x1c, 0x6f, 0x0e, 0x3d, 0x0b, 0x4a, 0x53, 0x9f, 0x0e, 0x6f, 0x6b, 0x0a, 0x6b, 0x7c, 0x11};
static const struct envelope_limits limits = {.body_max_chars = 100000};

/* A payload as the broker gives it: no NUL behind it, and a sanitizer sees a read past its end. */
static char *exact(const char *text, size_t length)
{
	char *copy = malloc(length > 0 ? length : 1);

	assert_non_null(copy);
	memcpy(copy, text, length);
	return copy;
}

static bool same(const char *bytes, size_t length, const char *expected)
{
	return bytes != NULL && length == strlen(expected) && memcmp(bytes, expected, length) == 0;
}

/* ---- accepted ---- */

struct good_case {
	const char *payload;
	const char *type;
	const char *body;
	const char *extra; /* NULL: none */
	int64_t reply_to;
	int64_t ref;
	int64_t expires_in_s;
	bool has_id;
	bool reply;
};

static const struct good_case good_cases[] = {
	/* plain text */
	{.payload = "hello", .type = "text", .body = "hello"},
	{.payload = " ", .type = "text", .body = " "},
	{.payload = "[1,2]", .type = "text", .body = "[1,2]"},
	{.payload = "\"quoted\"", .type = "text", .body = "\"quoted\""},
	{.payload = "x{\"body\":\"a\"}", .type = "text", .body = "x{\"body\":\"a\"}"},
	{.payload = "null", .type = "text", .body = "null"},
	{.payload = "line\nline\ttab\x1b[0m", .type = "text", .body = "line\nline\ttab\x1b[0m"},
	{.payload = "gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80", .type = "text", .body = "gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80"},
	{.payload = "\xef\xbb\xbfhello", .type = "text", .body = "\xef\xbb\xbfhello"}, /* U+FEFF is a character like others */
	{.payload = "\xc2\xa0{\"body\":\"a\"}", .type = "text", .body = "\xc2\xa0{\"body\":\"a\"}"}, /* no JSON blank */

	/* envelopes */
	{.payload = "{\"body\":\"a\"}", .type = "text", .body = "a"},
	{.payload = " \t\r\n{\"body\":\"a\"} \n", .type = "text", .body = "a"},
	{.payload = "{\"type\":\"text\",\"body\":\"a\"}", .type = "text", .body = "a"},
	{.payload = "{\"body\":\"\\\"\\\\\\n\\u00e9\\ud83d\\ude00\"}", .type = "text", .body = "\"\\\n\xc3\xa9\xf0\x9f\x98\x80"},
	{.payload = "{\"body\":\"a\",\"id\":\"" ID_TEXT "\"}", .type = "text", .body = "a", .has_id = true},
	{.payload = "{\"id\":\"9F1C6F0E-3D0B-4A53-9F0E-6F6B0A6B7C11\",\"body\":\"a\"}",
		.type = "text",
		.body = "a",
		.has_id = true},
	{.payload = "{\"body\":\"a\",\"reply_to\":1001}", .type = "text", .body = "a", .reply_to = 1001},
	{.payload = "{\"body\":\"a\",\"reply_to\":9007199254740991}",
		.type = "text",
		.body = "a",
		.reply_to = INT64_C(9007199254740991)},
	{.payload = "{\"body\":\"a\",\"expires_in\":1}", .type = "text", .body = "a", .expires_in_s = 1},
	{.payload = "{\"body\":\"a\",\"expires_in\":31536000}", .type = "text", .body = "a", .expires_in_s = 31536000},
	{.payload = "{\"body\":\"a\",\"reply\":true}", .type = "text", .body = "a", .reply = true},
	{.payload = "{\"body\":\"a\",\"reply\":false}", .type = "text", .body = "a"},
	{.payload = "{\"body\":\"a\",\"mentions\":[9]}", .type = "text", .body = "a", .extra = "{\"mentions\":[9]}"},
	{.payload = "{\"body\":\"a\",\"mentions\":[]}", .type = "text", .body = "a", .extra = "{\"mentions\":[]}"},
	{.payload = "{\"body\":\"a\",\"meta\":{}}", .type = "text", .body = "a", .extra = "{\"meta\":{}}"},
	{.payload = "{\"body\":\"caption\",\"type\":\"image\",\"attachments\":[{\"key\":\"k\"}]}",
		.type = "image",
		.body = "caption",
		.extra = "{\"attachments\":[{\"key\":\"k\"}]}"},
	{.payload = "{\"id\":\"" ID_TEXT "\",\"type\":\"text\",\"body\":\"Hello!\",\n \"reply_to\":1001,\"mentions\":[9],"
		    "\"attachments\":[{\"key\":\"k/1\",\"name\":\"a.jpg\",\"type\":\"image/"
		    "jpeg\",\"size\":12345,\"sha256\":\"" SHA_TEXT "\"}],\n \"expires_in\":86400,\"meta\":{},\"reply\":true}",
		.type = "text",
		.body = "Hello!",
		.extra = "{\"attachments\":[{\"key\":\"k/1\",\"name\":\"a.jpg\",\"sha256\":\"" SHA_TEXT
			 "\",\"size\":12345,\"type\":\"image/jpeg\"}],\"mentions\":[9],\"meta\":{}}",
		.reply_to = 1001,
		.expires_in_s = 86400,
		.has_id = true,
		.reply = true},

	/* a body may be missing */
	{.payload = "{\"type\":\"image\",\"attachments\":[{\"key\":\"k\"}]}",
		.type = "image",
		.body = "",
		.extra = "{\"attachments\":[{\"key\":\"k\"}]}"},
	{.payload = "{\"body\":\"\",\"attachments\":[{\"key\":\"k\"}]}",
		.type = "text",
		.body = "",
		.extra = "{\"attachments\":[{\"key\":\"k\"}]}"},
	{.payload = "{\"type\":\"delete\",\"ref\":5}", .type = "delete", .body = "", .ref = 5},
	{.payload = "{\"type\":\"delete\",\"ref\":5,\"body\":\"\"}", .type = "delete", .body = "", .ref = 5},
	{.payload = "{\"type\":\"delete\",\"ref\":5,\"body\":\"spam\"}", .type = "delete", .body = "spam", .ref = 5},
	{.payload = "{\"type\":\"x-poke\",\"body\":\"\"}", .type = "x-poke", .body = ""},

	/* the other types */
	{.payload = "{\"type\":\"video\",\"body\":\"a\"}", .type = "video", .body = "a"},
	{.payload = "{\"type\":\"audio\",\"body\":\"a\"}", .type = "audio", .body = "a"},
	{.payload = "{\"type\":\"file\",\"body\":\"a\"}", .type = "file", .body = "a"},
	{.payload = "{\"type\":\"opaque\",\"body\":\"c2VjcmV0\"}", .type = "opaque", .body = "c2VjcmV0"},
	{.payload = "{\"type\":\"reaction\",\"body\":\"\xf0\x9f\x91\x8d\",\"ref\":5}",
		.type = "reaction",
		.body = "\xf0\x9f\x91\x8d",
		.ref = 5},
	{.payload = "{\"type\":\"reaction\",\"body\":\"+1\",\"ref\":5,\"remove\":true}",
		.type = "reaction",
		.body = "+1",
		.ref = 5,
		.extra = "{\"remove\":true}"},
	{.payload = "{\"type\":\"reaction\",\"body\":\"+1\",\"ref\":5,\"remove\":false}",
		.type = "reaction",
		.body = "+1",
		.ref = 5},
	{.payload = "{\"type\":\"reaction\",\"body\":\"+1\",\"ref\":5,\"remove\":false,\"meta\":{}}",
		.type = "reaction",
		.body = "+1",
		.ref = 5,
		.extra = "{\"meta\":{}}"},
	{.payload = "{\"type\":\"edit\",\"body\":\"better\",\"ref\":5}", .type = "edit", .body = "better", .ref = 5},
	{.payload = "{\"type\":\"x-a\",\"body\":\"b\"}", .type = "x-a", .body = "b"},
	{.payload = "{\"type\":\"x-poll-2\",\"body\":\"b\"}", .type = "x-poll-2", .body = "b"},
	{.payload = "{\"type\":\"x-567890123456789012345678901234\",\"body\":\"b\"}", /* 32 bytes */
		.type = "x-567890123456789012345678901234",
		.body = "b"},

	/* canonical: names sorted at every depth, one spelling of numbers and strings, digests in lower case */
	{.payload = "{\"body\":\"a\",\"meta\":{\"b\":{\"z\":1,\"aa\":2,\"a\":3},\"a\":[{\"y\":null,\"x\":true}, false ]}}",
		.type = "text",
		.body = "a",
		.extra = "{\"meta\":{\"a\":[{\"x\":true,\"y\":null},false],\"b\":{\"a\":3,\"aa\":2,\"z\":1}}}"},
	{.payload = "{\"body\":\"a\",\"meta\":{\"n\":[1.0,10e-1,100E-2,0.5,-0,1e3,-2.50,0.1,1e-7,3.141592653589793]}}",
		.type = "text",
		.body = "a",
		.extra = "{\"meta\":{\"n\":[1,1,1,0.5,0,1000,-2.5,0.1,1e-07,3.141592653589793]}}"},
	{.payload = "{\"body\":\"a\",\"meta\":{\"\\u00e9\":\"\\/\\u0041\\u001f\"}}",
		.type = "text",
		.body = "a",
		.extra = "{\"meta\":{\"\xc3\xa9\":\"/A\\u001f\"}}"},
	{.payload = "{\"meta\":{\"a\":1},\"remove\":true,\"mentions\":[3,1,2],\"ref\":1,\"type\":\"reaction\",\"body\":\"+1\","
		    "\"attachments\":[{\"sha256\":\"E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855\",\"key\":"
		    "\"k\","
		    "\"duration\":1500,\"height\":2,\"width\":1,\"size\":0,\"name\":\"\",\"type\":\"\"}]}",
		.type = "reaction",
		.body = "+1",
		.ref = 1,
		.extra = "{\"attachments\":[{\"duration\":1500,\"height\":2,\"key\":\"k\",\"name\":\"\",\"sha256\":\"" SHA_TEXT
			 "\",\"size\":0,\"type\":\"\",\"width\":1}],\"mentions\":[3,1,2],\"meta\":{\"a\":1},\"remove\":true}"},
};

static void accepted(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(good_cases); i++) {
		const struct good_case *expected = &good_cases[i];
		size_t length = strlen(expected->payload);
		char *payload = exact(expected->payload, length);
		struct envelope envelope;
		struct error_detail error;
		if (!envelope_parse(payload, length, &limits, &envelope, &error)) {
			fail_msg("%s: %s: %s", expected->payload, error_code_name(error.code), error.message);
		}
		bool extra_ok = expected->extra == NULL ? envelope.extra == NULL
							: same(envelope.extra, envelope.extra_length, expected->extra);
		if (!extra_ok) {
			fail_msg("%s: extra %.*s", expected->payload, (int)envelope.extra_length, envelope.extra);
		}
		bool ok = same(envelope.type, envelope.type_length, expected->type) &&
			  same(envelope.body, envelope.body_length, expected->body) && envelope.reply_to == expected->reply_to &&
			  envelope.ref == expected->ref && envelope.expires_in_s == expected->expires_in_s &&
			  envelope.has_id == expected->has_id && envelope.reply == expected->reply;
		if (!ok) {
			fail_msg("%s: another envelope", expected->payload);
		}
		if (expected->has_id) {
			assert_memory_equal(envelope.id, id_bytes, 16);
		}
		envelope_free(&envelope);
		free(payload);
	}
}

/* ---- refused ---- */

struct bad_case {
	const char *payload;
	enum error_code code;
	const char *field; /* NULL: none */
};

#define ATTACHMENT(members) "{\"body\":\"a\",\"attachments\":[{" members "}]}"

static const struct bad_case bad_cases[] = {
	{"", ERROR_INVALID_FIELD, "body"},
	/* threat 36 */
	{"\xff", ERROR_INVALID_FIELD, "body"},
	{"abc\xc3", ERROR_INVALID_FIELD, "body"},
	{"\xc0\xaf", ERROR_INVALID_FIELD, "body"},
	{"\xed\xa0\x80", ERROR_INVALID_FIELD, "body"},
	{"\xf4\x90\x80\x80", ERROR_INVALID_FIELD, "body"},
	{"{\"body\":\"\xff\"}", ERROR_INVALID_JSON, NULL},
	{"{\"body\":\"\\u0000\"}", ERROR_INVALID_JSON, NULL},
	{"{\"body\":\"\\ud800\"}", ERROR_INVALID_JSON, NULL},

	/* threat 33 */
	{"{", ERROR_INVALID_JSON, NULL},
	{"{\"body\":\"a\"", ERROR_INVALID_JSON, NULL},
	{"{\"body\":\"a\"}x", ERROR_INVALID_JSON, NULL},
	{"{\"body\":\"a\"}{\"body\":\"b\"}", ERROR_INVALID_JSON, NULL},
	{"{\"body\":\"a\",}", ERROR_INVALID_JSON, NULL},
	{"{'body':'a'}", ERROR_INVALID_JSON, NULL},
	{"{body:\"a\"}", ERROR_INVALID_JSON, NULL},
	{"{\"body\":\"a\"} // comment", ERROR_INVALID_JSON, NULL},
	{"{\"body\":\"a\nb\"}", ERROR_INVALID_JSON, NULL},
	{"\xef\xbb\xbf{\"body\":\"a\"}", ERROR_INVALID_JSON, NULL},
	{"\xef\xbb\xbf {\"body\":\"a\"}", ERROR_INVALID_JSON, NULL},
	{"{\"body\":\"a\",\"body\":\"b\"}", ERROR_INVALID_JSON, NULL},
	{"{\"body\":\"a\",\"b\\u006fdy\":\"b\"}", ERROR_INVALID_JSON, NULL},
	{"{\"body\":\"a\",\"meta\":{\"x\":1,\"x\":2}}", ERROR_INVALID_JSON, NULL},
	{"{\"body\":\"a\",\"reply_to\":012}", ERROR_INVALID_JSON, NULL},
	{"{\"body\":\"a\",\"reply_to\":1e999}", ERROR_INVALID_JSON, NULL},
	{"{\"body\":\"a\",\"meta\":{\"a\":[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]}}", ERROR_INVALID_JSON, NULL}, /* threat 34: depth */

	/* unknown fields are not named: they are a stranger's text */
	{"{\"body\":\"a\",\"bodi\":\"b\"}", ERROR_INVALID_FIELD, NULL},
	{"{\"body\":\"a\",\"Body\":\"b\"}", ERROR_INVALID_FIELD, NULL},
	{"{\"body\":\"a\",\"\":1}", ERROR_INVALID_FIELD, NULL},
	{"{\"body\":\"a\",\"from\":8}", ERROR_INVALID_FIELD, NULL},
	{"{\"body\":\"a\",\"seq\":8}", ERROR_INVALID_FIELD, NULL},
	{"{\"body\":\"a\",\"sent_at\":8}", ERROR_INVALID_FIELD, NULL},
	{"{\"body\":\"a\",\"conversation\":8}", ERROR_INVALID_FIELD, NULL},

	{"{}", ERROR_INVALID_FIELD, "body"},
	{"{\"body\":\"\"}", ERROR_INVALID_FIELD, "body"},
	{"{\"body\":null}", ERROR_INVALID_FIELD, "body"},
	{"{\"body\":5}", ERROR_INVALID_FIELD, "body"},
	{"{\"body\":{}}", ERROR_INVALID_FIELD, "body"},
	{"{\"body\":[\"a\"]}", ERROR_INVALID_FIELD, "body"},
	{"{\"type\":\"image\"}", ERROR_INVALID_FIELD, "body"},
	{"{\"type\":\"image\",\"attachments\":[]}", ERROR_INVALID_FIELD, "body"},
	{"{\"type\":\"opaque\",\"body\":\"\"}", ERROR_INVALID_FIELD, "body"},
	{"{\"type\":\"edit\",\"ref\":5,\"body\":\"\"}", ERROR_INVALID_FIELD, "body"},
	{"{\"type\":\"reaction\",\"ref\":5}", ERROR_INVALID_FIELD, "body"},
	{"{\"type\":\"reaction\",\"ref\":5,\"body\":\"" CHARS_64 "\xc3\xa4\"}", ERROR_TOO_LONG, "body"},
	{"{\"type\":\"reaction\",\"ref\":5,\"body\":\"" CHARS_64 "\xc3\xa4\",\"remove\":true}", ERROR_TOO_LONG, "body"},
	{"{\"type\":\"reaction\",\"ref\":5,\"body\":\"\"}", ERROR_INVALID_FIELD, "body"},
	{"{\"type\":\"reaction\",\"ref\":5,\"remove\":false}", ERROR_INVALID_FIELD, "body"},
	{"{\"type\":\"reaction\",\"ref\":5,\"remove\":true}", ERROR_INVALID_FIELD, "body"},
	{"{\"type\":\"x-poke\"}", ERROR_INVALID_FIELD, "body"},

	{"{\"body\":\"a\",\"type\":\"system\"}", ERROR_INVALID_FIELD, "type"},
	{"{\"body\":\"a\",\"type\":\"Text\"}", ERROR_INVALID_FIELD, "type"},
	{"{\"body\":\"a\",\"type\":\"\"}", ERROR_INVALID_FIELD, "type"},
	{"{\"body\":\"a\",\"type\":\"text \"}", ERROR_INVALID_FIELD, "type"},
	{"{\"body\":\"a\",\"type\":\"sticker\"}", ERROR_INVALID_FIELD, "type"},
	{"{\"body\":\"a\",\"type\":\"x-\"}", ERROR_INVALID_FIELD, "type"},
	{"{\"body\":\"a\",\"type\":\"x-A\"}", ERROR_INVALID_FIELD, "type"},
	{"{\"body\":\"a\",\"type\":\"x-a_b\"}", ERROR_INVALID_FIELD, "type"},
	{"{\"body\":\"a\",\"type\":\"x-a.b\"}", ERROR_INVALID_FIELD, "type"},
	{"{\"body\":\"a\",\"type\":\"X-a\"}", ERROR_INVALID_FIELD, "type"},
	{"{\"body\":\"a\",\"type\":\"x-5678901234567890123456789012345\"}", ERROR_INVALID_FIELD, "type"}, /* 33 bytes */
	{"{\"body\":\"a\",\"type\":null}", ERROR_INVALID_FIELD, "type"},
	{"{\"body\":\"a\",\"type\":1}", ERROR_INVALID_FIELD, "type"},

	/* threat 32 */
	{"{\"body\":\"a\",\"id\":\"\"}", ERROR_INVALID_FIELD, "id"},
	{"{\"body\":\"a\",\"id\":7}", ERROR_INVALID_FIELD, "id"},
	{"{\"body\":\"a\",\"id\":null}", ERROR_INVALID_FIELD, "id"},
	{"{\"body\":\"a\",\"id\":\"9f1c6f0e3d0b4a539f0e6f6b0a6b7c11\"}", ERROR_INVALID_FIELD, "id"},
	{"{\"body\":\"a\",\"id\":\"{" ID_TEXT "}\"}", ERROR_INVALID_FIELD, "id"},
	{"{\"body\":\"a\",\"id\":\"" ID_TEXT " \"}", ERROR_INVALID_FIELD, "id"},
	{"{\"body\":\"a\",\"id\":\"9f1c6f0e-3d0b-4a53-9f0e-6f6b0a6b7c1g\"}", ERROR_INVALID_FIELD, "id"},

	/* threat 39 */
	{"{\"body\":\"a\",\"reply_to\":0}", ERROR_INVALID_FIELD, "reply_to"},
	{"{\"body\":\"a\",\"reply_to\":-1}", ERROR_INVALID_FIELD, "reply_to"},
	{"{\"body\":\"a\",\"reply_to\":1.5}", ERROR_INVALID_FIELD, "reply_to"},
	{"{\"body\":\"a\",\"reply_to\":\"1\"}", ERROR_INVALID_FIELD, "reply_to"},
	{"{\"body\":\"a\",\"reply_to\":null}", ERROR_INVALID_FIELD, "reply_to"},
	{"{\"body\":\"a\",\"expires_in\":0}", ERROR_INVALID_FIELD, "expires_in"},
	{"{\"body\":\"a\",\"expires_in\":-5}", ERROR_INVALID_FIELD, "expires_in"},
	{"{\"body\":\"a\",\"expires_in\":31536001}", ERROR_INVALID_FIELD, "expires_in"},
	{"{\"body\":\"a\",\"expires_in\":0.5}", ERROR_INVALID_FIELD, "expires_in"},
	{"{\"body\":\"a\",\"expires_in\":\"1h\"}", ERROR_INVALID_FIELD, "expires_in"},
	{"{\"type\":\"edit\",\"ref\":5,\"body\":\"a\",\"expires_in\":60}", ERROR_INVALID_FIELD, "expires_in"},
	{"{\"type\":\"delete\",\"ref\":5,\"expires_in\":60}", ERROR_INVALID_FIELD, "expires_in"},
	{"{\"body\":\"a\",\"reply\":1}", ERROR_INVALID_FIELD, "reply"},
	{"{\"body\":\"a\",\"reply\":\"true\"}", ERROR_INVALID_FIELD, "reply"},
	{"{\"body\":\"a\",\"reply\":null}", ERROR_INVALID_FIELD, "reply"},

	{"{\"body\":\"a\",\"ref\":5}", ERROR_INVALID_FIELD, "ref"},
	{"{\"body\":\"a\",\"type\":\"image\",\"ref\":5}", ERROR_INVALID_FIELD, "ref"},
	{"{\"body\":\"a\",\"type\":\"x-a\",\"ref\":5}", ERROR_INVALID_FIELD, "ref"},
	{"{\"body\":\"a\",\"type\":\"edit\"}", ERROR_INVALID_FIELD, "ref"},
	{"{\"type\":\"delete\"}", ERROR_INVALID_FIELD, "ref"},
	{"{\"body\":\"+1\",\"type\":\"reaction\"}", ERROR_INVALID_FIELD, "ref"},
	{"{\"type\":\"delete\",\"ref\":0}", ERROR_INVALID_FIELD, "ref"},
	{"{\"type\":\"delete\",\"ref\":\"5\"}", ERROR_INVALID_FIELD, "ref"},
	{"{\"type\":\"delete\",\"ref\":5,\"remove\":true}", ERROR_INVALID_FIELD, "remove"},
	{"{\"body\":\"a\",\"remove\":true}", ERROR_INVALID_FIELD, "remove"},
	{"{\"body\":\"a\",\"remove\":false}", ERROR_INVALID_FIELD, "remove"},
	{"{\"type\":\"reaction\",\"ref\":5,\"remove\":1}", ERROR_INVALID_FIELD, "remove"},

	{"{\"body\":\"a\",\"mentions\":9}", ERROR_INVALID_FIELD, "mentions"},
	{"{\"body\":\"a\",\"mentions\":{\"9\":true}}", ERROR_INVALID_FIELD, "mentions"},
	{"{\"body\":\"a\",\"mentions\":[9,9]}", ERROR_INVALID_FIELD, "mentions"},
	{"{\"body\":\"a\",\"mentions\":[9,1,9e0]}", ERROR_INVALID_FIELD, "mentions"},
	{"{\"body\":\"a\",\"mentions\":[0]}", ERROR_INVALID_FIELD, "mentions"},
	{"{\"body\":\"a\",\"mentions\":[-1]}", ERROR_INVALID_FIELD, "mentions"},
	{"{\"body\":\"a\",\"mentions\":[\"9\"]}", ERROR_INVALID_FIELD, "mentions"},
	{"{\"body\":\"a\",\"mentions\":[[9]]}", ERROR_INVALID_FIELD, "mentions"},
	{"{\"body\":\"a\",\"mentions\":null}", ERROR_INVALID_FIELD, "mentions"},
	{"{\"body\":\"a\",\"meta\":[]}", ERROR_INVALID_FIELD, "meta"},
	{"{\"body\":\"a\",\"meta\":\"x\"}", ERROR_INVALID_FIELD, "meta"},
	{"{\"body\":\"a\",\"meta\":null}", ERROR_INVALID_FIELD, "meta"},

	{"{\"body\":\"a\",\"attachments\":{}}", ERROR_INVALID_FIELD, "attachments"},
	{"{\"body\":\"a\",\"attachments\":[\"k\"]}", ERROR_INVALID_FIELD, "attachments"},
	{"{\"body\":\"a\",\"attachments\":[[]]}", ERROR_INVALID_FIELD, "attachments"},
	{"{\"body\":\"a\",\"attachments\":null}", ERROR_INVALID_FIELD, "attachments"},
	{ATTACHMENT(""), ERROR_INVALID_FIELD, "attachments"},
	{ATTACHMENT("\"name\":\"a\""), ERROR_INVALID_FIELD, "attachments"},
	{ATTACHMENT("\"key\":\"\""), ERROR_INVALID_FIELD, "attachments"},
	{ATTACHMENT("\"key\":7"), ERROR_INVALID_FIELD, "attachments"},
	{ATTACHMENT("\"key\":\"k\",\"url\":\"http://x\""), ERROR_INVALID_FIELD, "attachments"},
	{ATTACHMENT("\"key\":\"k\",\"size\":-1"), ERROR_INVALID_FIELD, "attachments"},
	{ATTACHMENT("\"key\":\"k\",\"size\":1.5"), ERROR_INVALID_FIELD, "attachments"},
	{ATTACHMENT("\"key\":\"k\",\"size\":\"1\""), ERROR_INVALID_FIELD, "attachments"},
	{ATTACHMENT("\"key\":\"k\",\"name\":null"), ERROR_INVALID_FIELD, "attachments"},
	{ATTACHMENT("\"key\":\"k\",\"type\":{}"), ERROR_INVALID_FIELD, "attachments"},
	{ATTACHMENT("\"key\":\"k\",\"width\":0"), ERROR_INVALID_FIELD, "attachments"},
	{ATTACHMENT("\"key\":\"k\",\"height\":1000001"), ERROR_INVALID_FIELD, "attachments"},
	{ATTACHMENT("\"key\":\"k\",\"duration\":-1"), ERROR_INVALID_FIELD, "attachments"},
	{ATTACHMENT("\"key\":\"k\",\"sha256\":\"\""), ERROR_INVALID_FIELD, "attachments"},
	{ATTACHMENT("\"key\":\"k\",\"sha256\":\"" SHA_TEXT "0\""), ERROR_INVALID_FIELD, "attachments"},
	{ATTACHMENT("\"key\":\"k\",\"sha256\":\"g3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\""),
		ERROR_INVALID_FIELD, "attachments"},
};

static void check_refused(const char *payload, size_t length, enum error_code code, const char *field)
{
	char *copy = exact(payload, length);
	struct envelope envelope;
	struct error_detail error;
	bool ok = envelope_parse(copy, length, &limits, &envelope, &error);
	bool same_field = field == NULL ? error.field == NULL : error.field != NULL && strcmp(error.field, field) == 0;

	if (ok || error.code != code || !same_field) {
		fail_msg("%.200s: %s, field %s", payload, ok ? "accepted" : error_code_name(error.code),
			error.field != NULL ? error.field : "none");
	}
	assert_non_null(error.message);
	assert_null(envelope.memory);
	assert_null(envelope.extra);
	free(copy);
}

static void refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(bad_cases); i++) {
		check_refused(bad_cases[i].payload, strlen(bad_cases[i].payload), bad_cases[i].code, bad_cases[i].field);
	}
	check_refused("a\0b", 3, ERROR_INVALID_FIELD, "body");
	check_refused("{\"body\":\"a\"}\0", 13, ERROR_INVALID_JSON, NULL);
	check_refused("{\"body\":\"a\0b\"}", 14, ERROR_INVALID_JSON, NULL);
}

/* A refusal can be answered by the message's own id, wherever in the envelope that stands. */
static void refused_with_id(void **state)
{
	static const char *const payloads[] = {
		"{\"id\":\"" ID_TEXT "\",\"body\":\"\"}",
		"{\"bodi\":1,\"id\":\"" ID_TEXT "\"}",
		"{\"body\":7,\"meta\":{\"id\":\"x\"},\"id\":\"" ID_TEXT "\"}",
		"{\"body\":\"a\",\"type\":\"system\",\"id\":\"" ID_TEXT "\"}",
		"{\"body\":\"a\",\"mentions\":[1],\"meta\":[],\"id\":\"" ID_TEXT "\"}",
	};

	(void)state;
	for (size_t i = 0; i < COUNT(payloads); i++) {
		struct envelope envelope;
		struct error_detail error;
		assert_false(envelope_parse(payloads[i], strlen(payloads[i]), &limits, &envelope, &error));
		assert_true(envelope.has_id);
		assert_memory_equal(envelope.id, id_bytes, 16);
		assert_null(envelope.memory);
	}
	struct envelope envelope;
	struct error_detail error;
	assert_false(envelope_parse("{\"id\":\"nonsense\",\"body\":\"a\"}", 29, &limits, &envelope, &error));
	assert_false(envelope.has_id);
	assert_false(envelope_parse("{\"id\":\"" ID_TEXT "\",", 46, &limits, &envelope, &error));
	assert_false(envelope.has_id); /* no JSON, no id */
}

/* ---- limits ---- */

/* Text that grows, for payloads too long to be written down. */
static struct buffer built;

static void begin(const char *text)
{
	buffer_init(&built, 16 << 20);
	assert_true(buffer_append_text(&built, text));
}

static void repeat(const char *text, size_t times)
{
	for (size_t i = 0; i < times; i++) {
		assert_true(buffer_append_text(&built, text));
	}
}

static void expect(const struct envelope_limits *with, enum error_code code, const char *field)
{
	char *payload = exact(built.data, built.length);
	struct envelope envelope;
	struct error_detail error;
	bool ok = envelope_parse(payload, built.length, with, &envelope, &error);

	if (ok) {
		envelope_free(&envelope);
	}
	if (ok != (code == ERROR_NONE) || error.code != code) {
		fail_msg("%.40s... (%zu bytes): %s", payload, built.length, ok ? "accepted" : error_code_name(error.code));
	}
	if (code != ERROR_NONE) {
		assert_true(field == NULL ? error.field == NULL : error.field != NULL && strcmp(error.field, field) == 0);
	}
	free(payload);
	buffer_free(&built);
}

/* Threat 35: code points are counted, after decoding, and the limit itself is accepted whole. */
static void body_length(void **state)
{
	static const struct {
		const char *character;
		size_t code_points;
		bool plain; /* may stand in a plain text */
	} characters[] = {
		{"a", 1, true},
		{"\xc3\xa9", 1, true},
		{"\xe2\x82\xac", 1, true},
		{"\xf0\x9f\x98\x80", 1, true},
		{"e\xcc\x81", 2, true},                                    /* combining */
		{"\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x92\xbb", 3, true}, /* joined by U+200D */
		{"\\n", 1, false},
		{"\\u00e9", 1, false},
		{"\\ud83d\\ude00", 1, false},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(characters); i++) {
		const char *character = characters[i].character;
		size_t times = 100000 / characters[i].code_points;
		size_t rest = 100000 - times * characters[i].code_points;
		for (unsigned over = 0; over < 2; over++) {
			enum error_code code = over ? ERROR_TOO_LONG : ERROR_NONE;
			begin("{\"body\":\"");
			repeat(character, times);
			repeat("z", rest + over);
			repeat("\"}", 1);
			expect(&limits, code, "body");
			if (characters[i].plain) {
				begin("");
				repeat(character, times);
				repeat("z", rest + over);
				expect(&limits, code, "body");
			}
		}
	}
}

static void body_length_is_an_option(void **state)
{
	static const struct envelope_limits three = {.body_max_chars = 3};

	(void)state;
	begin("abc");
	expect(&three, ERROR_NONE, NULL);
	begin("\xf0\x9f\x98\x80\xf0\x9f\x98\x80\xf0\x9f\x98\x80");
	expect(&three, ERROR_NONE, NULL);
	begin("abcd");
	expect(&three, ERROR_TOO_LONG, "body");
	begin("{\"body\":\"\\u00e9\\u00e9\\u00e9\"}");
	expect(&three, ERROR_NONE, NULL);
	begin("{\"body\":\"\xc3\xa9\xc3\xa9\xc3\xa9z\"}");
	expect(&three, ERROR_TOO_LONG, "body");
}

static void bytes_in_all(void **state)
{
	(void)state;
	begin("{\"body\":\"a\"}");
	repeat(" ", ENVELOPE_BYTES_MAX - built.length);
	expect(&limits, ERROR_NONE, NULL);
	begin("{\"body\":\"a\"}");
	repeat(" ", ENVELOPE_BYTES_MAX - built.length + 1);
	expect(&limits, ERROR_TOO_LONG, NULL);
	begin("");
	repeat("a", ENVELOPE_BYTES_MAX + 1);
	expect(&(struct envelope_limits){.body_max_chars = SIZE_MAX}, ERROR_TOO_LONG, NULL);
}

static void counts(void **state)
{
	(void)state;
	for (unsigned over = 0; over < 2; over++) {
		begin("{\"body\":\"a\",\"attachments\":[{\"key\":\"k\"}");
		repeat(",{\"key\":\"k\"}", 9 + over);
		repeat("]}", 1);
		expect(&limits, over ? ERROR_TOO_LONG : ERROR_NONE, "attachments");

		begin("{\"body\":\"a\",\"mentions\":[1");
		for (int i = 2; i <= 50 + (int)over; i++) {
			assert_true(buffer_append_format(&built, ",%d", i));
		}
		repeat("]}", 1);
		expect(&limits, over ? ERROR_TOO_LONG : ERROR_NONE, "mentions");

		begin("{\"body\":\"a\",\"attachments\":[{\"key\":\"");
		repeat("k", 512 + over);
		repeat("\"}]}", 1);
		expect(&limits, over ? ERROR_INVALID_FIELD : ERROR_NONE, "attachments");

		begin("{\"body\":\"a\",\"attachments\":[{\"key\":\"k\",\"name\":\"");
		repeat("\xf0\x9f\x98\x80", 255 + over);
		repeat("\"}]}", 1);
		expect(&limits, over ? ERROR_INVALID_FIELD : ERROR_NONE, "attachments");

		begin("{\"body\":\"a\",\"attachments\":[{\"key\":\"k\",\"type\":\"");
		repeat("t", 255 + over);
		repeat("\"}]}", 1);
		expect(&limits, over ? ERROR_INVALID_FIELD : ERROR_NONE, "attachments");

		begin("{\"body\":\"a\",\"meta\":{\"k\":\"");
		repeat("m", 4096 - 8 + over);
		repeat("\"}}", 1);
		expect(&limits, over ? ERROR_TOO_LONG : ERROR_NONE, "meta");

		begin("{\"body\":\"a\",\"meta\" : { \"k\"  :  \""); /* blanks do not count */
		repeat("m", 4096 - 8 + over);
		repeat("\"  }  }", 1);
		expect(&limits, over ? ERROR_TOO_LONG : ERROR_NONE, "meta");
	}
}

/* All that may be large at once: accepted, and within the memory that was set aside for it. */
static void everything_large(void **state)
{
	(void)state;
	begin("{\"body\":\"a\",\"attachments\":[");
	for (int i = 0; i < 10; i++) {
		repeat(i > 0 ? ",{\"key\":\"" : "{\"key\":\"", 1);
		repeat("\\u0001", 512);
		repeat("\",\"name\":\"", 1);
		repeat("\\u0002", 255);
		repeat("\",\"type\":\"", 1);
		repeat("\\u0003", 255);
		repeat("\"}", 1);
	}
	repeat("],\"meta\":{\"k\":\"", 1);
	repeat("\\u0004", 681);
	repeat("\"}}", 1);
	expect(&limits, ERROR_NONE, NULL);
}

/* jsonb spells numbers out: what is small here must not be large when it comes back. */
static void meta_counts_what_comes_back(void **state)
{
	(void)state;
	begin("{\"body\":\"a\",\"meta\":{\"k\":[1e-300");
	repeat(",1e-300", 11);
	repeat("]}}", 1);
	expect(&limits, ERROR_NONE, NULL);
	begin("{\"body\":\"a\",\"meta\":{\"k\":[1e-300");
	repeat(",1e-300", 13);
	repeat("]}}", 1);
	expect(&limits, ERROR_TOO_LONG, "meta");
	begin("{\"body\":\"a\",\"meta\":{\"k\":[1e15"); /* grows when written out */
	repeat(",1e15", 50000);
	repeat("]}}", 1);
	char *payload = exact(built.data, built.length);
	struct envelope envelope;
	struct error_detail error;
	assert_false(envelope_parse(payload, built.length, &limits, &envelope, &error));
	assert_true(error.code == ERROR_TOO_LONG || error.code == ERROR_INVALID_JSON); /* JSON has a limit of values, too */
	free(payload);
	buffer_free(&built);
}

/* Every cut of a good envelope is refused, and none is read beyond its end. */
static void every_truncation(void **state)
{
	const char *payload = good_cases[COUNT(good_cases) - 1].payload;

	(void)state;
	for (size_t length = 1; length < strlen(payload); length++) {
		check_refused(payload, length, ERROR_INVALID_JSON, NULL);
	}
}

/* ---- the hash ---- */

static void hash_of(const char *payload, uint8_t out[16])
{
	struct envelope envelope;
	struct error_detail error;

	assert_true(envelope_parse(payload, strlen(payload), &limits, &envelope, &error));
	envelope_content_hash(envelope.type, envelope.type_length, envelope.body, envelope.body_length, envelope.reply_to,
		envelope.ref, envelope.extra, envelope.extra_length, envelope.expires_in_s, out);
	envelope_free(&envelope);
}

/* Threat 30. The same content however it is spelt, and nothing else, has the same hash. */
static void hash_by_content(void **state)
{
	static const char *const same_groups[][4] = {
		{"hello", "{\"body\":\"hello\"}", "{\"type\":\"text\",\"body\":\"h\\u0065llo\"}",
			"{\"body\":\"hello\",\"id\":\"" ID_TEXT "\",\"reply\":true}"},
		{"{\"body\":\"hello\",\"meta\":{\"a\":1,\"b\":[1,2]}}", "{\"meta\":{\"b\":[1,2],\"a\":1.0},\"body\":\"hello\"}",
			" {\"meta\" : {\"b\":[1 ,2],\"a\":10e-1},\"body\":\"hello\"}",
			"{\"body\":\"hello\",\"meta\":{\"\\u0061\":1,\"b\":[1,2]},\"reply\":false}"},
		{"{\"type\":\"reaction\",\"ref\":5,\"body\":\"+1\"}",
			"{\"type\":\"reaction\",\"ref\":5,\"body\":\"+1\",\"remove\":false}",
			"{\"ref\":5.0,\"body\":\"+1\",\"type\":\"reaction\"}",
			"{\"ref\":50e-1,\"body\":\"\\u002b1\",\"type\":\"reaction\"}"},
	};
	static const char *const different[] = {
		"hello",
		"hello ",
		"Hello",
		"{\"type\":\"x-a\",\"body\":\"hello\"}",
		"{\"body\":\"hello\",\"reply_to\":1}",
		"{\"body\":\"hello\",\"reply_to\":2}",
		"{\"body\":\"hello\",\"expires_in\":1}",
		"{\"body\":\"hello\",\"expires_in\":2}",
		"{\"body\":\"hello\",\"mentions\":[1]}",
		"{\"body\":\"hello\",\"mentions\":[1,2]}",
		"{\"body\":\"hello\",\"mentions\":[2,1]}",
		"{\"body\":\"hello\",\"meta\":{}}",
		"{\"body\":\"hello\",\"meta\":{\"a\":1}}",
		"{\"body\":\"hello\",\"meta\":{\"a\":\"1\"}}",
		"{\"type\":\"edit\",\"ref\":1,\"body\":\"hello\"}",
		"{\"type\":\"edit\",\"ref\":2,\"body\":\"hello\"}",
		"{\"type\":\"edit\",\"ref\":2,\"reply_to\":1,\"body\":\"hello\"}",
		"{\"type\":\"edit\",\"ref\":1,\"reply_to\":2,\"body\":\"hello\"}",
		"{\"type\":\"reaction\",\"ref\":1,\"body\":\"hello\"}",
		"{\"type\":\"reaction\",\"ref\":1,\"body\":\"hello\",\"remove\":true}",
		"{\"type\":\"delete\",\"ref\":1}",
	};
	uint8_t hashes[COUNT(different)][16];

	(void)state;
	for (size_t i = 0; i < COUNT(same_groups); i++) {
		uint8_t first[16];
		hash_of(same_groups[i][0], first);
		for (size_t j = 1; j < 4; j++) {
			uint8_t other[16];
			hash_of(same_groups[i][j], other);
			assert_memory_equal(first, other, 16);
		}
	}
	for (size_t i = 0; i < COUNT(different); i++) {
		hash_of(different[i], hashes[i]);
		for (size_t j = 0; j < i; j++) {
			assert_memory_not_equal(hashes[i], hashes[j], 16);
		}
	}
}

/* Moving a byte from one part to the next is another message. */
static void hash_is_unambiguous(void **state)
{
	uint8_t first[16];
	uint8_t other[16];

	(void)state;
	envelope_content_hash("x-ab", 4, "c", 1, 0, 0, NULL, 0, 0, first);
	envelope_content_hash("x-a", 3, "bc", 2, 0, 0, NULL, 0, 0, other);
	assert_memory_not_equal(first, other, 16);
	envelope_content_hash("text", 4, "a{}", 3, 0, 0, NULL, 0, 0, first);
	envelope_content_hash("text", 4, "a", 1, 0, 0, "{}", 2, 0, other);
	assert_memory_not_equal(first, other, 16);
	envelope_content_hash("text", 4, "a", 1, 5, 0, NULL, 0, 0, first);
	envelope_content_hash("text", 4, "a", 1, 0, 5, NULL, 0, 0, other);
	assert_memory_not_equal(first, other, 16);
	envelope_content_hash("text", 4, "a", 1, 0, 0, NULL, 0, 5, other);
	assert_memory_not_equal(first, other, 16);
}

/* These bytes are in tables: a new version of this code must make the same ones, or every resend is a conflict. */
static void hash_stays(void **state)
{
	static const uint8_t expected[16] = {
		0x7e, 0x94, 0x13, 0x06, 0xf9, 0xbc, 0x86, 0x27, 0x5c, 0x9e, 0x45, 0x4f, 0x19, 0x1a, 0x05, 0x36};
	uint8_t hash[16];

	(void)state;
	hash_of("{\"body\":\"hello\",\"reply_to\":7,\"meta\":{\"b\":1,\"a\":[0.5,true,null,\"\\u00e9\"]},\"expires_in\":60}",
		hash);
	assert_memory_equal(hash, expected, 16);
}

/* ---- as clients receive it ---- */

static void expect_view(const struct message_view *view, const char *expected)
{
	struct buffer out;

	buffer_init(&out, 1 << 20);
	assert_true(message_view_append(&out, view));
	if (!same(out.data, out.length, expected)) {
		fail_msg("%.*s", (int)out.length, out.data);
	}
	assert_int_equal(message_view_seq(out.data, out.length), view->seq);
	buffer_free(&out);
}

static void views(void **state)
{
	struct message_view view = {
		.conversation_id = 42,
		.seq = 1017,
		.id = id_bytes,
		.sender_id = 7,
		.sent_at_ms = INT64_C(1790000000123),
		.type = "text!",
		.type_length = 4,
		.body = "Hello!?",
		.body_length = 6,
	};

	(void)state;
	expect_view(&view, "{\"conversation\":42,\"seq\":1017,\"id\":\"" ID_TEXT
			   "\",\"from\":7,\"sent_at\":1790000000123,\"type\":\"text\",\"body\":\"Hello!\"}");
	view.body = "\"\\\n\x01\xc3\xa9/";
	view.body_length = 7;
	view.id = NULL;
	view.sender_id = 0;
	expect_view(&view, "{\"conversation\":42,\"seq\":1017,\"sent_at\":1790000000123,\"type\":\"text\","
			   "\"body\":\"\\\"\\\\\\n\\u0001\xc3\xa9/\"}");
	view.body = "";
	view.body_length = 0;
	view.reply_to = 5;
	view.ref = 6;
	view.expires_at_ms = 9;
	view.extra = "{\"mentions\":[9]}";
	view.extra_length = strlen(view.extra);
	expect_view(&view, "{\"conversation\":42,\"seq\":1017,\"sent_at\":1790000000123,\"type\":\"text\",\"body\":\"\","
			   "\"reply_to\":5,\"ref\":6,\"mentions\":[9],\"expires_at\":9}");
	view.body = NULL;
	view.extra = " { \"meta\": {\"a\": 1} } \n"; /* as jsonb prints, and worse */
	view.extra_length = strlen(view.extra);
	view.reply_to = view.ref = view.expires_at_ms = 0;
	expect_view(
		&view, "{\"conversation\":42,\"seq\":1017,\"sent_at\":1790000000123,\"type\":\"text\",\"meta\": {\"a\": 1} }");
}

/* Whatever stands in the column, what goes out is JSON. */
static void views_with_odd_extra(void **state)
{
	static const char *const extras[] = {"", "{}", "{ }", " ", "[]", "null", "7", "{", "}", "xyz}", "{]", "\"{}\""};

	(void)state;
	for (size_t i = 0; i < COUNT(extras); i++) {
		struct message_view view = {.conversation_id = 1,
			.seq = 2,
			.type = "system",
			.type_length = 6,
			.extra = extras[i],
			.extra_length = strlen(extras[i])};
		expect_view(&view, "{\"conversation\":1,\"seq\":2,\"sent_at\":0,\"type\":\"system\"}");
	}
}

static void view_that_does_not_fit(void **state)
{
	struct message_view view = {
		.conversation_id = 1, .seq = 2, .type = "text", .type_length = 4, .body = "abc", .body_length = 3};
	struct buffer whole;
	size_t length;

	(void)state;
	buffer_init(&whole, 1000);
	assert_true(message_view_append(&whole, &view));
	length = whole.length;
	buffer_free(&whole);
	for (size_t room = 0; room <= length; room++) {
		struct buffer out;
		buffer_init(&out, 2 + room);
		assert_true(buffer_append_text(&out, "[\n"));
		assert_int_equal(message_view_append(&out, &view), room == length);
		assert_int_equal(out.length, room == length ? 2 + length : 2);
		buffer_free(&out);
	}
}

static void numbers_of_views(void **state)
{
	static const struct {
		const char *json;
		int64_t seq;
	} rows[] = {
		{"{\"conversation\":1,\"seq\":1}", 1},
		{"{\"conversation\":9007199254740991,\"seq\":9007199254740991,\"x\":2}", TEXT_ID_MAX},
		{"{\"conversation\":42,\"behind\":true,\"last_seq\":61017}", 0},
		{"{\"conversation\":42,\"seq\":", 0},
		{"{\"conversation\":42", 0},
		{"{\"conversation\":", 0},
		{"{\"seq\":7}", 0},
		{"", 0},
	};
	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		size_t length = strlen(rows[i].json);
		char *copy = malloc(length + !length); /* so that a sanitizer sees a step too far */
		memcpy(copy, rows[i].json, length);
		assert_int_equal(message_view_seq(copy, length), rows[i].seq);
		free(copy);
	}
}

/* A live delivery and a later fetch of the same message mean the same: what PostgreSQL's jsonb does to `extra` (order by length
 * of name, blanks, numbers spelt out) changes no value. */
static void live_and_stored_mean_the_same(void **state)
{
	static const char payload[] =
		"{\"body\":\"a\",\"mentions\":[3,1],\"meta\":{\"bb\":1e-7,\"a\":[true,null,\"x\\ny\"],\"c\":12345678901234},"
		"\"attachments\":[{\"key\":\"k\",\"size\":5,\"name\":\"n\"}]}";
	static const char from_jsonb[] =
		"{\"meta\": {\"a\": [true, null, \"x\\ny\"], \"c\": 12345678901234, \"bb\": 0.0000001}, \"mentions\": [3, 1], "
		"\"attachments\": [{\"key\": \"k\", \"name\": \"n\", \"size\": 5}]}";
	struct envelope envelope;
	struct error_detail error;
	struct buffer live;
	struct buffer stored;
	const char *why;

	(void)state;
	assert_true(envelope_parse(payload, strlen(payload), &limits, &envelope, &error));
	struct message_view view = {.conversation_id = 1,
		.seq = 2,
		.type = envelope.type,
		.type_length = envelope.type_length,
		.body = envelope.body,
		.body_length = envelope.body_length,
		.extra = envelope.extra,
		.extra_length = envelope.extra_length};
	buffer_init(&live, 10000);
	buffer_init(&stored, 10000);
	assert_true(message_view_append(&live, &view));
	view.extra = from_jsonb;
	view.extra_length = strlen(from_jsonb);
	assert_true(message_view_append(&stored, &view));
	cJSON *left = json_parse(live.data, live.length, JSON_DEPTH_MAX, &why);
	cJSON *right = json_parse(stored.data, stored.length, JSON_DEPTH_MAX, &why);
	assert_non_null(left);
	assert_non_null(right);
	assert_true(cJSON_Compare(left, right, true));
	cJSON_Delete(left);
	cJSON_Delete(right);
	buffer_free(&live);
	buffer_free(&stored);
	envelope_free(&envelope);
}

/* free twice, free of what was plain text: nothing happens. */
static void freeing(void **state)
{
	struct envelope envelope;
	struct error_detail error;

	(void)state;
	assert_true(envelope_parse("{\"body\":\"a\",\"meta\":{}}", 22, &limits, &envelope, &error));
	envelope_free(&envelope);
	envelope_free(&envelope);
	assert_int_equal(envelope.body_length, 0);
	assert_true(envelope_parse("plain", 5, &limits, &envelope, &error));
	assert_null(envelope.memory);
	envelope_free(&envelope);
}

/* ---- no memory ---- */

static int allocations_left; /* until cJSON gets none */
static int allocations_live;

static void *scarce_malloc(size_t size)
{
	void *memory = allocations_left > 0 ? malloc(size) : NULL;

	allocations_left--;
	allocations_live += memory != NULL;
	return memory;
}

static void scarce_free(void *memory)
{
	allocations_live -= memory != NULL;
	free(memory);
}

/* Whichever allocation of the tree fails: the sender is told to send again, and nothing is left behind. */
static void no_memory(void **state)
{
	const char *payload = good_cases[COUNT(good_cases) - 1].payload;
	cJSON_Hooks scarce = {.malloc_fn = scarce_malloc, .free_fn = scarce_free};
	struct envelope envelope;
	struct error_detail error;
	bool ok = false;
	int allowed;

	(void)state;
	cJSON_InitHooks(&scarce);
	for (allowed = 0; !ok && allowed < 1000; allowed++) {
		allocations_left = allowed;
		ok = envelope_parse(payload, strlen(payload), &limits, &envelope, &error);
		if (!ok) {
			assert_int_equal(error.code, ERROR_UNAVAILABLE);
			assert_int_equal(allocations_live, 0);
		}
	}
	assert_true(ok);
	assert_in_range(allowed, 20, 999); /* it did fail in many places */
	envelope_free(&envelope);
	assert_int_equal(allocations_live, 0);
	cJSON_InitHooks(NULL);
}

static void mentions_are_found(void **state)
{
	static const struct {
		const char *extra;
		size_t count;
	} cases[] = {
		{"", 0},
		{"{\"meta\":{\"mentions\":[1]}}", 0},
		{"{\"attachments\":[{\"name\":\"\\\"mentions\\\":[1]\"}]}", 0},
		{"{\"mentions\":[9]}", 1},
		{"{\"mentions\":[9,9007199254740991],\"meta\":{\"mentions\":[1,2,3]}}", 2},
		{"{\"mentions\":[]}", 0},
	};
	int64_t users[ENVELOPE_MENTIONS_MAX];
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(envelope_mentions(cases[i].extra, strlen(cases[i].extra), users), cases[i].count);
	}
	assert_int_equal(envelope_mentions("{\"mentions\":[9]}", 16, users), 1);
	assert_int_equal(users[0], 9);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(accepted),
		cmocka_unit_test(refused),
		cmocka_unit_test(refused_with_id),
		cmocka_unit_test(body_length),
		cmocka_unit_test(body_length_is_an_option),
		cmocka_unit_test(bytes_in_all),
		cmocka_unit_test(counts),
		cmocka_unit_test(everything_large),
		cmocka_unit_test(meta_counts_what_comes_back),
		cmocka_unit_test(every_truncation),
		cmocka_unit_test(mentions_are_found),
		cmocka_unit_test(hash_by_content),
		cmocka_unit_test(hash_is_unambiguous),
		cmocka_unit_test(hash_stays),
		cmocka_unit_test(views),
		cmocka_unit_test(numbers_of_views),
		cmocka_unit_test(views_with_odd_extra),
		cmocka_unit_test(view_that_does_not_fit),
		cmocka_unit_test(live_and_stored_mean_the_same),
		cmocka_unit_test(freeing),
		cmocka_unit_test(no_memory),
	};

	return cmocka_run_group_tests_name("envelope", tests, NULL, NULL);
}
