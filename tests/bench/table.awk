# table.awk - results of run.sh to a table of medians. Reads files named SCENARIO.ARM.ROUND with lines `name value`.
# `order` names the scenarios in the order wanted. A ratio is the plugin's median by plain Mosquitto's, and behind it the
# smallest and largest ratio of two runs that followed each other.

FNR == 1 {
	n = split(FILENAME, parts, "/")
	split(parts[n], parts, ".")
	scenario = parts[1]
	arm = parts[2]
	round = parts[3]
	if (round > rounds)
		rounds = round
}

{
	value[scenario, arm, round, $1] = $2
}

function median(scenario, arm, name,    count, i, j, list, swap) {
	count = 0
	for (i = 1; i <= rounds; i++)
		if ((scenario, arm, i, name) in value)
			list[++count] = value[scenario, arm, i, name] + 0
	for (i = 2; i <= count; i++)
		for (j = i; j > 1 && list[j - 1] > list[j]; j--) {
			swap = list[j]
			list[j] = list[j - 1]
			list[j - 1] = swap
		}
	if (count == 0)
		return "-"
	return count % 2 ? list[(count + 1) / 2] : (list[count / 2] + list[count / 2 + 1]) / 2
}

function sum(scenario, arm, name,    i, total) {
	for (i = 1; i <= rounds; i++)
		total += value[scenario, arm, i, name]
	return total + 0
}

function ratio(scenario, name,    plain, i, each, low, high) {
	plain = median(scenario, "plain", name)
	if (plain == "-" || plain == 0)
		return "-"
	for (i = 1; i <= rounds; i++) {
		if (value[scenario, "plain", i, name] + 0 == 0)
			continue
		each = value[scenario, "chat", i, name] / value[scenario, "plain", i, name]
		low = low == "" || each < low ? each : low
		high = high == "" || each > high ? each : high
	}
	return sprintf("%.2f  (%.2f-%.2f)", median(scenario, "chat", name) / plain, low, high)
}

function show(scenario, title, name, format,    plain, chat) {
	plain = median(scenario, "plain", name)
	chat = median(scenario, "chat", name)
	printf "  %-36s %12s %12s   %s\n", title, plain == "-" ? "-" : sprintf(format, plain), chat == "-" ? "-" : sprintf(format, chat), ratio(scenario, name)
}

function show_faults(scenario, arm,    names, count, i, total, text) {
	count = split("lost duplicates misordered order_differences seq_errors unknown disconnects refused unsent", names, " ")
	for (i = 1; i <= count; i++) {
		total = sum(scenario, arm, names[i])
		if (total > 0)
			text = text " " names[i] " " total
	}
	printf "  %-36s %s\n", "faults, all rounds, " arm, text == "" ? "none" : text
}

END {
	count = split(order, scenarios, " ")
	for (s = 1; s <= count; s++) {
		scenario = scenarios[s]
		printf "\n%-38s %12s %12s   %s\n", scenario, "plain", "with plugin", "ratio (of single rounds)"
		show(scenario, "messages/s", "messages_per_s", "%.0f")
		show(scenario, "deliveries/s", "deliveries_per_s", "%.0f")
		show(scenario, "publish to receive, p50 ms", "delivery_p50_ms", "%.3f")
		show(scenario, "  p90", "delivery_p90_ms", "%.3f")
		show(scenario, "  p99", "delivery_p99_ms", "%.3f")
		show(scenario, "  p99.9", "delivery_p999_ms", "%.3f")
		show(scenario, "  max", "delivery_max_ms", "%.3f")
		show(scenario, "publish to PUBACK, p50 ms", "ack_p50_ms", "%.3f")
		show(scenario, "  p99", "ack_p99_ms", "%.3f")
		show(scenario, "CPU us/message: broker", "cpu_broker_us", "%.1f")
		show(scenario, "  of it, broker thread", "cpu_broker_main_thread_us", "%.1f")
		show(scenario, "CPU us/message: PostgreSQL", "cpu_postgres_us", "%.1f")
		show(scenario, "CPU us/message: generator", "cpu_generator_us", "%.1f")
		show(scenario, "cores: broker", "cpu_broker_cores", "%.2f")
		show(scenario, "cores: PostgreSQL", "cpu_postgres_cores", "%.2f")
		show(scenario, "cores: generator", "cpu_generator_cores", "%.2f")
		show(scenario, "drained after s", "drain_s", "%.2f")
		show(scenario, "rows per transaction", "rows_per_transaction", "%.1f")
		show(scenario, "WAL bytes per row", "wal_bytes_per_row", "%.0f")
		show_faults(scenario, "plain")
		show_faults(scenario, "chat")
	}
}
