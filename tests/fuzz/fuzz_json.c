/* fuzz_json.c - json_parse on any bytes.
 *
 * Beyond not crashing: what is accepted is UTF-8 and whole (one more bracket makes it no JSON), holds only finite numbers and
 * UTF-8 strings, and means the same after cJSON has written it and after our own writer has written its strings.
 */
#include "buffer.h"
#include "json.h"
#include "text.h"

#include <math.h>
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

static void check_string(const char *string)
{
	struct buffer json;
	const char *why;

	require(text_check_utf8(string, strlen(string), NULL));
	buffer_init(&json, SIZE_MAX / 2);
	require(buffer_append_json_string(&json, string, strlen(string)));
	cJSON *again = json_parse(json.data, json.length, 0, &why);
	require(again != NULL && strcmp(again->valuestring, string) == 0);
	cJSON_Delete(again);
	buffer_free(&json);
}

static void check_tree(const cJSON *tree)
{
	int64_t integer;

	if (tree->string != NULL) {
		check_string(tree->string);
	}
	if (cJSON_IsString(tree)) {
		check_string(tree->valuestring);
	}
	if (cJSON_IsNumber(tree)) {
		require(isfinite(tree->valuedouble));
		require(!json_integer(tree, -TEXT_ID_MAX, TEXT_ID_MAX, &integer) || (double)integer == tree->valuedouble);
	}
	for (const cJSON *item = tree->child; item != NULL; item = item->next) {
		check_tree(item);
	}
}

static void check_rewritten(const cJSON *tree)
{
	const char *why;
	char *text = cJSON_PrintUnformatted(tree);

	require(text != NULL);
	cJSON *again = json_parse(text, strlen(text), JSON_DEPTH_MAX, &why);
	require(again != NULL && cJSON_Compare(tree, again, true));
	cJSON_Delete(again);
	free(text);
}

static void check_one_byte_more(const uint8_t *data, size_t size)
{
	const char *why;
	char *longer = malloc(size + 1);

	require(longer != NULL);
	memcpy(longer, data, size);
	longer[size] = ']';
	require(json_parse(longer, size + 1, JSON_DEPTH_MAX, &why) == NULL);
	free(longer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *why = NULL;
	cJSON *tree = json_parse((const char *)data, size, JSON_DEPTH_MAX, &why);

	if (tree == NULL) {
		require(why != NULL);
		return 0;
	}
	require(text_check_utf8((const char *)data, size, NULL));
	check_tree(tree);
	check_rewritten(tree);
	check_one_byte_more(data, size);
	cJSON_Delete(tree);
	return 0;
}
