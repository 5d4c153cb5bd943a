# table.awk - results of run.sh to a table of medians; behind results.awk. `order` names the scenarios in the order wanted.

# A line, where either arm has such a figure.
function show(scenario, title, name, format,    a, b) {
	a = median(scenario, first_arm(scenario), name)
	b = median(scenario, second_arm(scenario), name)
	if (a == "-" && b == "-")
		return
	printf "  %-36s %14s %14s   %s\n", title, a == "-" ? "-" : sprintf(format, a), b == "-" ? "-" : sprintf(format, b), ratio(scenario, name)
}

function show_asked(scenario,    names, count, i) {
	count = split("message.history message.sync message.search auth.login", names, " ")
	for (i = 1; i <= count; i++) {
		show(scenario, names[i] ", p50 ms", names[i] "_p50_ms", "%.2f")
		show(scenario, "  p99", names[i] "_p99_ms", "%.2f")
		show(scenario, "  max", names[i] "_max_ms", "%.2f")
		show(scenario, "  answered", names[i] "_count", "%.0f")
	}
	show(scenario, "bytes an answer", "request_answer_bytes", "%.0f")
}

function show_faults(scenario, arm,    names, count, i, total, text) {
	count = split("lost duplicates misordered order_differences seq_errors unknown disconnects refused marks_refused marks_unacknowledged unsent visible_missing unanswered_probe request_errors requests_unanswered", names, " ")
	for (i = 1; i <= count; i++) {
		total = sum(scenario, arm, names[i])
		if (total > 0)
			text = text " " names[i] " " total
	}
	printf "  %-36s %s\n", "faults, all rounds, " title_of(arm), text == "" ? "none" : text
}

END {
	count = split(order, scenarios, " ")
	for (s = 1; s <= count; s++) {
		scenario = scenarios[s]
		printf "\n%-38s %14s %14s   %s\n", scenario, title_of(first_arm(scenario)), title_of(second_arm(scenario)), "ratio (of single rounds)"
		show(scenario, "messages/s", "messages_per_s", "%.0f")
		show(scenario, "deliveries/s", "deliveries_per_s", "%.0f")
		show(scenario, "rows/s", "rows_per_s", "%.0f")
		show(scenario, "a call, us", "call_us", "%.0f")
		show(scenario, "publish to receive, p50 ms", "delivery_p50_ms", "%.3f")
		show(scenario, "  p90", "delivery_p90_ms", "%.3f")
		show(scenario, "  p99", "delivery_p99_ms", "%.3f")
		show(scenario, "  p99.9", "delivery_p999_ms", "%.3f")
		show(scenario, "  max", "delivery_max_ms", "%.3f")
		show(scenario, "publish to PUBACK, p50 ms", "ack_p50_ms", "%.3f")
		show(scenario, "  p99", "ack_p99_ms", "%.3f")
		show_asked(scenario)
		show(scenario, "connect: all ready after s", "wave1_ready_s", "%.2f")
		show(scenario, "  and each has got a message", "wave1_proved_s", "%.2f")
		show(scenario, "  had not got the first one in 1 s", "wave1_silent", "%.0f")
		show(scenario, "reconnect: all ready after s", "wave2_ready_s", "%.2f")
		show(scenario, "  half of them", "wave2_ready_p50_s", "%.2f")
		show(scenario, "  connections tried again", "wave2_retried", "%.0f")
		show(scenario, "  and each has got a message", "wave2_proved_s", "%.2f")
		show(scenario, "  had not got the first one in 1 s", "wave2_silent", "%.0f")
		show(scenario, "  CPU s: broker", "wave2_ready_cpu_broker_s", "%.2f")
		show(scenario, "  CPU s: PostgreSQL", "wave2_ready_cpu_postgres_s", "%.2f")
		show(scenario, "  CPU s: generator", "wave2_ready_cpu_generator_s", "%.2f")
		show(scenario, "longest answer to PINGREQ, ms", "ping_max_ms", "%.1f")
		show(scenario, "  p99", "ping_p99_ms", "%.1f")
		show(scenario, "  while all are being cut", "closing_ping_max_ms", "%.1f")
		show(scenario, "statements PostgreSQL saw", "statements", "%.0f")
		show(scenario, "resident bytes per session", "bytes_per_session_broker", "%.0f")
		show(scenario, "resident memory, MB", "resident_broker_mb", "%.1f")
		show(scenario, "CPU s while they idle: broker", "wave1_held_cpu_broker_s", "%.2f")
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
		show(scenario, "rows looked up at delivery", "visible_checked", "%.0f")
		show(scenario, "marks/s", "marks_per_s", "%.0f")
		show(scenario, "receipt publishes per message", "receipt_publishes", "%.2f")
		show(scenario, "  if each mark had its own", "receipt_publishes_naive", "%.0f")
		show(scenario, "receipt bytes per message, member", "receipt_bytes", "%.0f")
		show(scenario, "  if each mark had its own", "receipt_bytes_naive", "%.0f")
		show(scenario, "statements per message, all", "statements_per_row", "%.2f")
		show(scenario, "  chat.append_marks", "mark_statements_per_row", "%.2f")
		show(scenario, "watermarks written per message", "watermarks_per_row", "%.1f")
		show(scenario, "  of devices", "device_watermarks_per_row", "%.1f")
		show(scenario, "  if each mark wrote its own", "receipt_publishes_naive", "%.0f")
		show_faults(scenario, first_arm(scenario))
		show_faults(scenario, second_arm(scenario))
	}
}
