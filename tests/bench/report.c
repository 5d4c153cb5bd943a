/* report.c - what a run found out, as `name value` lines that people and the driver script can read. See load.h. */
#include "load.h"

#include <inttypes.h>
#include <stdio.h>

static void print_latencies(const char *name, const struct histogram *histogram)
{
	static const struct {
		const char *name;
		double percent;
	} points[] = {{"p50", 50}, {"p90", 90}, {"p99", 99}, {"p999", 99.9}};
	for (size_t i = 0; i < sizeof points / sizeof *points; i++)
		printf("%s_%s_ms %.3f\n", name, points[i].name,
			(double)histogram_percentile_ns(histogram, points[i].percent) / 1e6);
	printf("%s_max_ms %.3f\n", name, (double)histogram->max_ns / 1e6);
}

static double per_message_us(double seconds, uint64_t messages)
{
	return messages == 0 ? 0 : seconds * 1e6 / (double)messages;
}

/* CPU by message that reached its receivers, of whom there may be many. */
static void print_cpu(const struct load *load, double seconds, uint64_t messages)
{
	const struct load_moment *start = &load->measure_start;
	const struct load_moment *end = &load->measure_end;
	double own_s = end->own_cpu_s - start->own_cpu_s;
	printf("cpu_generator_us %.2f\ncpu_generator_cores %.3f\n", per_message_us(own_s, messages), own_s / seconds);
	for (unsigned i = 0; i < load->settings->watched_count; i++) {
		const char *name = load->settings->watched[i].name;
		double process_s = end->watched[i].process_s - start->watched[i].process_s;
		double main_s = end->watched[i].main_thread_s - start->watched[i].main_thread_s;
		double children_s = end->watched[i].children_s - start->watched[i].children_s;
		double all_s = process_s + children_s;
		printf("cpu_%s_us %.2f\ncpu_%s_cores %.3f\n", name, per_message_us(all_s, messages), name, all_s / seconds);
		printf("cpu_%s_main_thread_us %.2f\n", name, per_message_us(main_s, messages));
	}
}

static void print_refusals(const struct load *load)
{
	uint64_t all = 0;
	for (unsigned reason = 0; reason < 256; reason++) {
		all += load->refused[reason];
		if (load->refused[reason] > 0)
			printf("refused_0x%02x %" PRIu64 "\n", reason, load->refused[reason]);
	}
	printf("refused %" PRIu64 "\n", all);
}

/* Receivers that saw another order than the first of their conversation; those that miss something are not compared. */
static unsigned count_order_differences(const struct load *load)
{
	unsigned differences = 0;
	unsigned each = load->settings->receivers;
	for (unsigned i = 0; i < load->receivers_count; i++) {
		const struct receiver *receiver = &load->receivers[i];
		const struct receiver *first = &load->receivers[i - i % each];
		if (receiver_missing(receiver) == 0 && receiver_missing(first) == 0 && receiver->digest != first->digest)
			differences++;
	}
	return differences;
}

static bool print_faults(const struct load *load)
{
	uint64_t lost = 0;
	uint64_t duplicates = 0;
	uint64_t misordered = 0;
	unsigned differences = count_order_differences(load);
	for (unsigned i = 0; i < load->receivers_count; i++) {
		const struct receiver *receiver = &load->receivers[i];
		lost += receiver_missing(receiver);
		for (unsigned s = 0; s < load->settings->publishers; s++) {
			duplicates += receiver->streams[s].duplicates;
			misordered += receiver->streams[s].misordered;
		}
	}
	printf("lost %" PRIu64 "\nduplicates %" PRIu64 "\nmisordered %" PRIu64 "\n", lost, duplicates, misordered);
	printf("order_differences %u\nseq_errors %" PRIu64 "\n", differences, load->seq_errors);
	printf("unknown %" PRIu64 "\nbehind_notices %" PRIu64 "\n", load->unknown, load->behind);
	printf("disconnects %" PRIu64 "\n", load->disconnects);
	return lost + duplicates + misordered + differences + load->seq_errors + load->unknown + load->disconnects == 0;
}

static uint64_t unsent(const struct load *load)
{
	return load->settings->rate_per_s > 0 && load->scheduled > load->counts.sent ? load->scheduled - load->counts.sent : 0;
}

bool report_print(const struct load *load)
{
	const struct load_counts *start = &load->measure_start.counts;
	const struct load_counts *end = &load->measure_end.counts;
	double seconds = (double)(load->measure_end.at_ns - load->measure_start.at_ns) / 1e9;
	uint64_t deliveries = end->received - start->received;
	uint64_t messages = deliveries / load->settings->receivers;
	printf("seconds %.3f\n", seconds);
	printf("sent_per_s %.0f\n", (double)(end->sent - start->sent) / seconds);
	printf("acked_per_s %.0f\n", (double)(end->acked - start->acked) / seconds);
	printf("messages_per_s %.0f\n", (double)deliveries / load->settings->receivers / seconds);
	printf("deliveries_per_s %.0f\n", (double)deliveries / seconds);
	print_latencies("delivery", &load->delivery);
	print_latencies("ack", &load->acknowledgement);
	print_cpu(load, seconds, messages);
	printf("drain_s %.3f\n",
		load->progress_ns > load->measure_end.at_ns ? (double)(load->progress_ns - load->measure_end.at_ns) / 1e9 : 0.0);
	printf("sent %" PRIu64 "\nacked %" PRIu64 "\nreceived %" PRIu64 "\n", load->counts.sent, load->counts.acked,
		load->counts.received);
	printf("unacknowledged %" PRIu64 "\n", load->settings->qos == 0 ? 0 : load->counts.sent - load->counts.acked);
	printf("unsent %" PRIu64 "\n", unsent(load));
	if (load->sample_fd >= 0)
		printf("sampled %" PRIu64 "\n", load->sampled);
	marks_print(load, seconds, messages);
	print_refusals(load);
	bool good = print_faults(load);
	printf("verdict %s\n", good ? "good" : "BAD");
	return good;
}
