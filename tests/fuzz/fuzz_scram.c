/* fuzz_scram.c - any bytes as a verifier and as the messages of a SCRAM exchange.
 *
 * Beyond memory errors: a verifier that is accepted is written again as it was; and no bytes prove a password.
 */
#include "../../plugin/scram.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
	if (!condition) {
		abort();
	}
}

static void check_verifier(const char *text, size_t length)
{
	struct scram_verifier verifier;
	struct buffer again;

	if (!scram_verifier_parse(text, length, &verifier)) {
		return;
	}
	buffer_init(&again, SCRAM_TEXT_MAX * 2);
	require(scram_verifier_format(&verifier, &again));
	require(again.length == length && memcmp(again.data, text, length) == 0);
	buffer_free(&again);
}

static void check_exchange(const char *text, size_t length)
{
	/* The keys of nobody. */
	static const struct scram_verifier verifier = {.iterations = 4096, .salt_length = 16};
	static const uint8_t nonce[SCRAM_NONCE_BYTES] = {1};
	static struct scram_exchange exchange;
	char final[SCRAM_FINAL_MAX];
	size_t final_length;
	const char *end = memchr(text, '\n', length);
	size_t first_length = end ? (size_t)(end - text) : length;

	if (!scram_read_first(text, first_length, &exchange)) {
		return;
	}
	require(exchange.name_length > 0 && exchange.name_length < first_length);
	require(scram_write_first(&exchange, &verifier, nonce));
	if (end) {
		require(!scram_read_final(&exchange, &verifier, end + 1, length - first_length - 1, final, &final_length));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1); /* of its own, so that a read beyond it shows */
	require(text != NULL);
	memcpy(text, data, size);
	check_verifier(text, size);
	check_exchange(text, size);
	free(text);
	return 0;
}
