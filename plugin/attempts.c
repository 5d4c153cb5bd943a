/* attempts.c - see attempts.h. The mutex guards the tables and limits; it is held for a few instructions. */
#include "attempts.h"

#include "text.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define PLACES 4096

/* An account at an address from which it was signed in to. */
struct pair {
	uint64_t who; /* 0: nobody */
	struct rate_bucket failures;
};

struct attempts {
	pthread_mutex_t mutex;
	uint64_t seed;
	struct rate_limit account_limit, address_limit;
	struct rate_bucket accounts[PLACES], addresses[PLACES];
	struct pair pairs[PLACES];
};

struct attempts *attempts_new(void)
{
	struct attempts *attempts = calloc(1, sizeof(*attempts));
	if (attempts) {
		pthread_mutex_init(&attempts->mutex, NULL);
		if (getrandom(&attempts->seed, sizeof(attempts->seed), 0) != sizeof(attempts->seed)) {
			attempts_free(attempts);
			attempts = NULL;
		}
	}
	return attempts;
}

void attempts_free(struct attempts *attempts)
{
	if (attempts) {
		pthread_mutex_destroy(&attempts->mutex);
		free(attempts);
	}
}

void attempts_set_limits(struct attempts *attempts, const struct rate_limit *account, const struct rate_limit *address)
{
	pthread_mutex_lock(&attempts->mutex);
	attempts->account_limit = *account;
	attempts->address_limit = *address;
	pthread_mutex_unlock(&attempts->mutex);
}

/* ---- who ---- */

uint64_t attempts_address(const struct attempts *attempts, const char *address)
{
	if (!address) {
		return 0;
	}
	size_t length = strlen(address);
	if (strncmp(address, "::ffff:", 7) == 0) {
		return text_hash(attempts->seed, address + 7, length - 7);
	}
	if (strchr(address, ':')) {
		size_t groups = 0, at = 0;
		for (; at < length && groups < 4; at++) {
			groups += address[at] == ':';
		}
		length = at;
	}
	return text_hash(attempts->seed, address, length);
}

uint64_t attempts_account(const struct attempts *attempts, const char *name, size_t length)
{
	return text_hash(attempts->seed, name, length);
}

/* ---- counting; with the mutex held ---- */

static struct pair *pair_place(struct attempts *attempts, uint64_t account, uint64_t address, uint64_t *who)
{
	*who = text_hash(account, &address, sizeof(address));
	return &attempts->pairs[*who % PLACES];
}

static struct rate_bucket *account_bucket(struct attempts *attempts, uint64_t account, uint64_t address)
{
	uint64_t who;
	struct pair *pair = pair_place(attempts, account, address, &who);
	return pair->who == who ? &pair->failures : &attempts->accounts[account % PLACES];
}

static bool address_take(struct attempts *attempts, uint64_t address, int64_t now_ms, int64_t *retry_after_ms)
{
	*retry_after_ms = 0;
	return address == 0 ||
	       rate_bucket_take(&attempts->addresses[address % PLACES], &attempts->address_limit, now_ms, retry_after_ms);
}

bool attempts_address_is_limited(struct attempts *attempts, uint64_t address, int64_t now_ms)
{
	pthread_mutex_lock(&attempts->mutex);
	struct rate_bucket copy = attempts->addresses[address % PLACES];
	bool limited = address != 0 && !rate_bucket_take(&copy, &attempts->address_limit, now_ms, NULL);
	pthread_mutex_unlock(&attempts->mutex);
	return limited;
}

void attempts_address_failed(struct attempts *attempts, uint64_t address, int64_t now_ms)
{
	int64_t retry_after_ms;
	pthread_mutex_lock(&attempts->mutex);
	(void)address_take(attempts, address, now_ms, &retry_after_ms);
	pthread_mutex_unlock(&attempts->mutex);
}

void attempts_address_give_back(struct attempts *attempts, uint64_t address)
{
	if (address != 0) {
		pthread_mutex_lock(&attempts->mutex);
		rate_bucket_give_back(&attempts->addresses[address % PLACES]);
		pthread_mutex_unlock(&attempts->mutex);
	}
}

bool attempts_begin(struct attempts *attempts, uint64_t account, uint64_t address, int64_t now_ms, int64_t *retry_after_ms)
{
	pthread_mutex_lock(&attempts->mutex);
	bool taken = address_take(attempts, address, now_ms, retry_after_ms);
	if (taken &&
		!rate_bucket_take(account_bucket(attempts, account, address), &attempts->account_limit, now_ms, retry_after_ms)) {
		rate_bucket_give_back(&attempts->addresses[address % PLACES]);
		taken = false;
	}
	pthread_mutex_unlock(&attempts->mutex);
	return taken;
}

void attempts_succeeded(struct attempts *attempts, uint64_t account, uint64_t address, int64_t now_ms)
{
	uint64_t who;

	pthread_mutex_lock(&attempts->mutex);
	rate_bucket_give_back(account_bucket(attempts, account, address));
	if (address != 0) {
		rate_bucket_give_back(&attempts->addresses[address % PLACES]);
		struct pair *pair = pair_place(attempts, account, address, &who);
		if (pair->who != who) {
			*pair = (struct pair){.who = who, .failures = {.updated_ms = now_ms}};
		}
	}
	pthread_mutex_unlock(&attempts->mutex);
}
