/* test_scram.c - SCRAM-SHA-256: RFC 7677's example, verifiers as text, and what is refused. */
#include "../../plugin/scram.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* RFC 7677 section 3. */
#define FIRST "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
#define NONCE "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
#define SERVER_FIRST "r=" NONCE ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
#define WITHOUT_PROOF "c=biws,r=" NONCE
#define FINAL WITHOUT_PROOF ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
#define SERVER_FINAL "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

static void make(struct scram_verifier *verifier)
{
	static const uint8_t salt[] = {
		0x5b, 0x6d, 0x99, 0x68, 0x9d, 0x12, 0x35, 0x8e, 0xec, 0xa0, 0x4b, 0x14, 0x12, 0x36, 0xfa, 0x81};
	assert_true(scram_verifier_make("pencil", 6, salt, sizeof(salt), 4096, NULL, verifier));
}

/* The exchange after the server's first message, which in the example has a nonce of its own. */
static void begin(struct scram_exchange *exchange)
{
	memset(exchange, 0, sizeof(*exchange));
	assert_true(scram_read_first(FIRST, strlen(FIRST), exchange));
	exchange->nonce_length = strlen(NONCE);
	memcpy(exchange->nonce, NONCE, exchange->nonce_length);
	exchange->first_length = strlen(SERVER_FIRST);
	memcpy(exchange->first, SERVER_FIRST, exchange->first_length);
}

static void test_example_of_rfc_7677(void **state)
{
	struct scram_verifier verifier;
	struct scram_exchange exchange;
	char final[SCRAM_FINAL_MAX];
	size_t length;
	(void)state;

	make(&verifier);
	begin(&exchange);
	assert_int_equal(exchange.name_length, 4);
	assert_memory_equal(exchange.name, "user", 4);
	assert_true(scram_read_final(&exchange, &verifier, FINAL, strlen(FINAL), final, &length));
	assert_int_equal(length, strlen(SERVER_FINAL));
	assert_memory_equal(final, SERVER_FINAL, length);
}

static void test_server_first(void **state)
{
	struct scram_verifier verifier;
	struct scram_exchange exchange;
	uint8_t nonce[SCRAM_NONCE_BYTES] = {0};
	const char *wanted = "r=rOprNGfwEbeRWgbNEkqOAAAAAAAAAAAAAAAAAAAAAAAA,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
	(void)state;

	make(&verifier);
	assert_true(scram_read_first(FIRST, strlen(FIRST), &exchange));
	assert_true(scram_write_first(&exchange, &verifier, nonce));
	assert_int_equal(exchange.first_length, strlen(wanted));
	assert_memory_equal(exchange.first, wanted, exchange.first_length);
}

static void test_first_messages(void **state)
{
	static const struct {
		const char *message, *name; /* NULL: refused */
	} cases[] = {
		{"n,,n=a,r=b", "a"},
		{"y,,n=a,r=b", "a"},
		{"n,,n==2C=3D=2C,r=b", ",=,"},
		{"n,,n=\xc3\xa9,r=b", "\xc3\xa9"},
		{"", NULL},
		{"n", NULL},
		{"n,,", NULL},
		{"n,,n=,r=b", NULL},
		{"n,,n=a", NULL},
		{"n,,n=a,", NULL},
		{"n,,n=a,r=", NULL},
		{"n,,n=a,r=b,", NULL},
		{"n,,n=a,r=b,x=y", NULL},
		{"n,,m=x,n=a,r=b", NULL},
		{"n,,r=b,n=a", NULL},
		{"n,a=other,n=a,r=b", NULL},
		{"p=tls-unique,,n=a,r=b", NULL},
		{"x,,n=a,r=b", NULL},
		{"n,,n=a=2,r=b", NULL},
		{"n,,n=a=2c,r=b", NULL},
		{"n,,n=a=3C,r=b", NULL},
		{"n,,n=a=2D,r=b", NULL},
		{"n,,n=a=41,r=b", NULL},
		{"n,,n=\xff,r=b", NULL},
		{"n,,n=a,r=b c", NULL},
		{"n,,n=a,r=\x7f", NULL},
	};
	char huge[SCRAM_MESSAGE_MAX + 1];
	struct scram_exchange exchange;
	(void)state;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		print_message("%s\n", cases[i].message);
		assert_int_equal(scram_read_first(cases[i].message, strlen(cases[i].message), &exchange), cases[i].name != NULL);
		if (cases[i].name) {
			assert_int_equal(exchange.name_length, strlen(cases[i].name));
			assert_memory_equal(exchange.name, cases[i].name, exchange.name_length);
		}
	}
	memset(huge, 'a', sizeof(huge));
	memcpy(huge, "n,,n=a,r=", 9);
	assert_false(scram_read_first(huge, sizeof(huge), &exchange));
	assert_false(scram_read_first(huge, SCRAM_MESSAGE_MAX, &exchange));
	assert_true(scram_read_first(huge, SCRAM_MESSAGE_MAX - 1, &exchange));
}

/* Every bit of the final message counts. */
static void test_final_messages(void **state)
{
	static const char *const bad[] = {"", "c=biws", WITHOUT_PROOF, WITHOUT_PROOF ",", WITHOUT_PROOF ",p=", FINAL ",",
		FINAL ",x=y", "c=eSws,r=" NONCE ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
		"r=" NONCE ",c=biws,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
		"c=biws,r=rOprNGfwEbeRWgbNEkqO,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
		WITHOUT_PROOF ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ", WITHOUT_PROOF ",p=AAAA"};
	struct scram_verifier verifier;
	struct scram_exchange exchange;
	char final[SCRAM_FINAL_MAX], message[256];
	size_t length;
	(void)state;

	make(&verifier);
	begin(&exchange);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		print_message("%s\n", bad[i]);
		assert_false(scram_read_final(&exchange, &verifier, bad[i], strlen(bad[i]), final, &length));
	}
	for (size_t i = 0; i < strlen(FINAL) * 8; i++) {
		memcpy(message, FINAL, strlen(FINAL));
		message[i / 8] = (char)(message[i / 8] ^ (1 << i % 8));
		assert_false(scram_read_final(&exchange, &verifier, message, strlen(FINAL), final, &length));
	}
	verifier.stored_key[0] ^= 1;
	assert_false(scram_read_final(&exchange, &verifier, FINAL, strlen(FINAL), final, &length));
}

static void test_verifier_as_text(void **state)
{
	/* In the form of pg_authid.rolpassword, for the salt of the example. */
	static const char *const good = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
					":wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
	static const char *const bad[] = {"", "SCRAM-SHA-256$", "SCRAM-SHA-1$4096:AAAA$BBBB:CCCC", "md5abc",
		"SCRAM-SHA-256$4095:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
		"wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
		"SCRAM-SHA-256$99999999:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
		"wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
		"SCRAM-SHA-256$4096:$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
		"SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gR==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
		"wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
		"SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4q==:"
		"wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
		"SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="};
	struct scram_verifier verifier, made;
	struct buffer text;
	(void)state;

	assert_true(scram_verifier_parse(good, strlen(good), &verifier));
	make(&made);
	assert_memory_equal(verifier.stored_key, made.stored_key, SCRAM_KEY_BYTES);
	assert_memory_equal(verifier.server_key, made.server_key, SCRAM_KEY_BYTES);
	buffer_init(&text, SCRAM_TEXT_MAX);
	assert_true(scram_verifier_format(&verifier, &text));
	assert_int_equal(text.length, strlen(good));
	assert_memory_equal(text.data, good, text.length);
	buffer_free(&text);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_false(scram_verifier_parse(bad[i], strlen(bad[i]), &verifier));
	}
	for (size_t length = 0; length < strlen(good); length++) {
		assert_false(scram_verifier_parse(good, length, &verifier));
	}
}

static unsigned rests;

static void count_rest(void)
{
	rests++;
}

/* While it is hashed others get to run, as often for every verifier. */
static void test_rests(void **state)
{
	struct scram_verifier verifier;
	(void)state;
	make(&verifier);
	assert_true(scram_verifier_matches(&verifier, "pencil", 6, count_rest));
	assert_in_range(rests, SCRAM_ITERATIONS / SCRAM_REST_AFTER - 2, SCRAM_ITERATIONS / SCRAM_REST_AFTER);
}

static void test_matches(void **state)
{
	struct scram_verifier verifier;
	(void)state;
	make(&verifier);
	assert_true(scram_verifier_matches(&verifier, "pencil", 6, NULL));
	assert_false(scram_verifier_matches(&verifier, "pencil ", 7, NULL));
	assert_false(scram_verifier_matches(&verifier, "", 0, NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_example_of_rfc_7677),
		cmocka_unit_test(test_server_first),
		cmocka_unit_test(test_first_messages),
		cmocka_unit_test(test_final_messages),
		cmocka_unit_test(test_verifier_as_text),
		cmocka_unit_test(test_matches),
		cmocka_unit_test(test_rests),
	};
	return cmocka_run_group_tests_name("scram", tests, NULL, NULL);
}
