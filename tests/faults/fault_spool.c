/* fault_spool.c - the spool is full: by its bound, or because its disk is. */
#include "fault.h"
#include "small_disk.h"

#include <stdio.h>
#include <string.h>

enum { FAILURE = 0x80, LAND_MS = 60000, SEGMENT_BYTES = 4 << 20, DISK_BYTES = 2 * SEGMENT_BYTES + (1 << 20) };

static char spool[PATH_SIZE];

/* Two segments are soon full. */
static void shape(const struct stage *stage, struct workload_options *options)
{
	(void)stage;
	options->body_max = 8000;
}

static const char *begin_bound(struct stage *stage)
{
	const char *options[] = {"spool_max_bytes 8M", NULL};
	stage_restart_broker(stage, options);
	return NULL;
}

static void end_bound(struct stage *stage)
{
	stage_restart_broker(stage, NULL);
}

static const char *begin_disk(struct stage *stage)
{
	struct fixture *fixture = stage->fixture;
	if (!small_disk_allowed())
		return "a small disk can be made by root alone";
	check(snprintf(spool, sizeof spool, "%s/spool", fixture->broker.directory) < (int)sizeof spool);
	broker_stop(&fixture->broker);
	small_disk_mount(spool, DISK_BYTES, &fixture->broker.account);
	stage_restart_broker(stage, NULL);
	return NULL;
}

static void end_disk(struct stage *stage)
{
	broker_stop(&stage->fixture->broker);
	small_disk_unmount(spool);
	stage_restart_broker(stage, NULL);
}

/* Clients of the test's own, who say what they see. Each message is as long as the longest of the load, so that what does not
 * fit is theirs, too. */
struct witness {
	struct client *modern, *old;
	const char *topic;
	char body[8001];
};

static void make_witness(struct stage *stage, struct witness *witness)
{
	struct fixture *fixture = stage->fixture;
	int64_t user = fixture_user(fixture), group = GROUP_OF(fixture, user);
	witness->modern = fixture_client(fixture, user, 5);
	witness->old = fixture_client(fixture, user, 4);
	witness->topic = topic_of(group, "send");
	memset(witness->body, 'x', sizeof witness->body - 1);
	witness->body[sizeof witness->body - 1] = '\0';
}

static bool is_taken(struct witness *witness)
{
	int reason = client_publish(witness->modern, witness->topic, witness->body, 1);
	return reason >= 0 && reason < FAILURE;
}

static bool wait_until_taken(struct stage *stage, struct witness *witness, bool taken)
{
	int64_t deadline_ms = now_ms() + allowed_ms(LAND_MS);
	while (is_taken(witness) != taken) {
		if (now_ms() > deadline_ms)
			return false;
		if (!client_is_connected(witness->modern)) {
			stage_complain(stage, "a client of MQTT 5 was disconnected by a full spool");
			return false;
		}
		clients_turn(5);
	}
	return true;
}

/* The database goes until nothing is taken any more. False: that did not come. */
static bool fill(struct stage *stage, struct witness *witness)
{
	make_witness(stage, witness);
	stage_wait_random_acks(stage, 300);
	stage_note(stage, "spool_full");
	postgres_stop(&stage->fixture->postgres);
	bool landed = wait_until_taken(stage, witness, false);
	if (landed && client_publish(witness->old, witness->topic, witness->body, 1) != CLOSED)
		stage_complain(stage, "a client of MQTT 3.1.1 has a PUBACK for what did not fit");
	return landed;
}

static void empty(struct stage *stage, struct witness *witness)
{
	postgres_start(&stage->fixture->postgres);
	stage_note(stage, "postgres_is_up");
	if (!wait_until_taken(stage, witness, true))
		stage_complain(stage, "there is room again, and nothing is taken");
	stage_wait_acks(stage, 200);
	clients_close_all();
}

static bool strike_bound(struct stage *stage, unsigned round)
{
	struct witness witness;
	(void)round;
	bool landed = fill(stage, &witness);
	empty(stage, &witness);
	return landed;
}

/* Each other time the disk is made larger before the database is back. */
static bool strike_disk(struct stage *stage, unsigned round)
{
	struct witness witness;
	small_disk_leave(spool, SEGMENT_BYTES);
	bool landed = fill(stage, &witness);
	if (round % 2 == 0) {
		small_disk_leave(spool, 4 * SEGMENT_BYTES);
		if (!wait_until_taken(stage, &witness, true))
			stage_complain(stage, "the disk has room again, and nothing is taken");
	}
	empty(stage, &witness);
	return landed;
}

const struct fault spool_faults[] = {
	{"spool_full", "the spool has reached spool_max_bytes", false, 3, begin_bound, shape, strike_bound, end_bound},
	{"disk_full", "the spool's disk is full", false, 3, begin_disk, shape, strike_disk, end_disk},
	{.name = NULL},
};
