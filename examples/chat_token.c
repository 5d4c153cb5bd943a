/* chat_token.c - chat-token: makes a token and prints it, for the examples, for tests and for a first look.
 *
 *   chat-token --key FILE --user N [--device N] [--device-token] [--lifetime SECONDS] [--issuer S] [--audience S]
 *
 * FILE is a private key in PEM, or hs256: and a file with a secret; its base name becomes the token's kid, so the broker's
 * token_keys must name a file of the same base name. An application makes its tokens in its own server, with any JWT library.
 * The token goes to standard output, anything else to standard error; the exit status is 0, 1 (failed) or 2 (used wrongly).
 */
#include "buffer.h"
#include "clock.h"
#include "text.h"
#include "token.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIFETIME_S_DEFAULT (INT64_C(24) * 3600)
#define LIFETIME_S_MAX (INT64_C(100) * 366 * 24 * 3600) /* a hundred years: beyond that it is a typing mistake */

struct request {
	const char *key_spec;
	int64_t lifetime_s;
	struct token_rules rules;
	struct token_claims claims;
};

enum {
	OPTION_KEY = 1,
	OPTION_USER,
	OPTION_DEVICE,
	OPTION_DEVICE_TOKEN,
	OPTION_LIFETIME,
	OPTION_ISSUER,
	OPTION_AUDIENCE,
	OPTION_HELP
};

static const struct option options[] = {
	{"key", required_argument, NULL, OPTION_KEY},
	{"user", required_argument, NULL, OPTION_USER},
	{"device", required_argument, NULL, OPTION_DEVICE},
	{"device-token", no_argument, NULL, OPTION_DEVICE_TOKEN},
	{"lifetime", required_argument, NULL, OPTION_LIFETIME},
	{"issuer", required_argument, NULL, OPTION_ISSUER},
	{"audience", required_argument, NULL, OPTION_AUDIENCE},
	{"help", no_argument, NULL, OPTION_HELP},
	{NULL, 0, NULL, 0},
};

static const char usage[] = "usage: chat-token --key FILE --user N [--device N] [--device-token]\n"
			    "                  [--lifetime SECONDS] [--issuer S] [--audience S]\n"
			    "\n"
			    "  --key FILE          private key in PEM (P-256, RSA, Ed25519), or hs256:FILE with a secret\n"
			    "  --user N            the user's id\n"
			    "  --device N          the device's id\n"
			    "  --device-token      a device token (needs --device)\n"
			    "  --lifetime SECONDS  until it expires, 86400 by default\n"
			    "  --issuer S          iss, where token_issuer is set\n"
			    "  --audience S        aud, where token_audience is set\n";

static _Noreturn void refuse(const char *option, const char *value, const char *wanted)
{
	(void)fprintf(stderr, "chat-token: --%s %s: must be %s\n", option, value, wanted);
	exit(2);
}

static int64_t parse_number(const char *option, const char *value, int64_t max)
{
	int64_t number = 0;

	if (!text_parse_integer(value, strlen(value), 1, max, &number)) {
		refuse(option, value, "a whole number from 1");
	}
	return number;
}

static const char *parse_text(const char *option, const char *value)
{
	if (!text_check_utf8(value, strlen(value), NULL)) {
		refuse(option, value, "UTF-8");
	}
	return value;
}

static _Noreturn void show_usage(FILE *stream, int status)
{
	(void)fputs(usage, stream);
	exit(status);
}

/* Exits where the command line is wrong. */
static struct request parse_command_line(int argc, char **argv)
{
	struct request request = {.lifetime_s = LIFETIME_S_DEFAULT};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case OPTION_KEY:
			request.key_spec = optarg;
			break;
		case OPTION_USER:
			request.claims.user_id = parse_number("user", optarg, TEXT_ID_MAX);
			break;
		case OPTION_DEVICE:
			request.claims.device_id = parse_number("device", optarg, TEXT_ID_MAX);
			break;
		case OPTION_DEVICE_TOKEN:
			request.claims.device_token = true;
			break;
		case OPTION_LIFETIME:
			request.lifetime_s = parse_number("lifetime", optarg, LIFETIME_S_MAX);
			break;
		case OPTION_ISSUER:
			request.rules.issuer = parse_text("issuer", optarg);
			break;
		case OPTION_AUDIENCE:
			request.rules.audience = parse_text("audience", optarg);
			break;
		case OPTION_HELP:
			show_usage(stdout, 0);
		default:
			show_usage(stderr, 2);
		}
	}
	if (optind < argc || request.key_spec == NULL || request.claims.user_id == 0) {
		show_usage(stderr, 2);
	}
	if (request.claims.device_token && request.claims.device_id == 0) {
		(void)fputs("chat-token: a device token belongs to a device: add --device N\n", stderr);
		exit(2);
	}
	return request;
}

static bool print_token(const struct request *request, const struct signing_key *key)
{
	struct buffer token;

	buffer_init(&token, TOKEN_MAX);
	bool made = token_make(key, &request->rules, &request->claims, &token);
	if (!made) {
		(void)fprintf(stderr,
			"chat-token: a token could not be made (at most %d bytes: are issuer and audience that long?)\n",
			TOKEN_MAX);
	} else if (printf("%.*s\n", (int)token.length, token.data) < 0 || fflush(stdout) != 0) {
		perror("chat-token: standard output");
		made = false;
	}
	buffer_free(&token);
	return made;
}

int main(int argc, char **argv)
{
	struct request request = parse_command_line(argc, argv);
	char error[SIGNING_ERROR_SIZE];
	struct signing_key *key = signing_key_load(request.key_spec, error, sizeof(error));

	if (key == NULL) {
		(void)fprintf(stderr, "chat-token: %s\n", error);
		return 1;
	}
	bool printed = false;
	if (!signing_key_can_sign(key)) {
		(void)fprintf(stderr, "chat-token: %s holds a public key: name the private one\n", request.key_spec);
	} else {
		request.claims.issued_at_s = clock_wall_ms() / 1000;
		request.claims.expires_at_s = request.claims.issued_at_s + request.lifetime_s;
		printed = print_token(&request, key);
	}
	signing_key_free(key);
	return printed ? 0 : 1;
}
