# capacity.awk - what a number of people takes in machines, from what run.sh has measured. docs/capacity.md explains it.
#
#   awk -f tests/bench/capacity.awk                                  the two cases of that page
#   awk -v name=mine -v connections=200000 -v peak=5000 -f tests/bench/capacity.awk
#
# Whatever is named in BEGIN can be given with -v: first what you expect, then what things cost, then what a machine may carry.

function given(name, value) {
	return name == "" ? value : name
}

function up(amount) {
	return amount == int(amount) ? amount : int(amount) + 1
}

function larger(a, b) {
	return a > b ? a : b
}

function human(amount, unit,    i) {
	i = 1
	while (amount >= 1000 && i < 6) {
		amount /= 1000
		i++
	}
	return sprintf(amount >= 100 || amount == int(amount) ? "%.0f %s%s" : "%.1f %s%s", amount, substr(" kMGTP", i, 1), unit)
}

function bytes(amount) {
	amount = human(amount, "B")
	gsub(/  /, " ", amount)
	return amount
}

function line(what, formula, amount) {
	out[what] = amount
	if (!(what in seen)) {
		seen[what] = 1
		order[++lines] = what
		how[what] = formula
	}
	cell[what, cases] = amount
}

function estimate(title, daily, connections, peak, per_user,    day, rate, cpu_thread, cpu_plugin, cpu_postgres, by_load, by_people, brokers, memory, wal_each_message, disk, wal, network, by_cpu, by_disk, cpu_index, cpu_requests) {
	titles[++cases] = title
	day = daily * per_user
	rate = peak > 0 ? peak : day / 86400 * peak_factor
	line("people a day", "", human(daily, ""))
	line("connections at a time", "`C`", human(connections, ""))
	line("messages a day", "people x `per_user`", human(day, ""))
	line("messages/s at peak", "`M`: messages a day / 86,400 x `peak_factor`, unless given", human(rate, ""))
	line("deliveries/s at peak", "`M x fan_out`", human(rate * fan_out, ""))

	cpu_thread = rate * (message_us * (1 + marks) + fan_out * delivery_us) / 1e6
	by_load = cpu_thread / thread_load
	by_people = connections / connections_each
	brokers = up(larger(by_load, by_people))
	line("broker threads, busy", "`M x (message_us x (1 + marks) + fan_out x delivery_us)`", sprintf("%.1f", cpu_thread))
	line("**brokers**", "the larger of that / `thread_load` and `C / connections_each`", brokers)
	line("other threads of the plugin, cores", "`M x (1 + marks) x plugin_us`", sprintf("%.1f", rate * (1 + marks) * plugin_us / 1e6))
	memory = session_bytes + memberships * membership_bytes + subscriptions * subscription_bytes + socket_bytes
	line("memory of a connection", "`session_bytes + memberships x membership_bytes + subscriptions x subscription_bytes + socket_bytes`", bytes(memory))
	line("memory of all brokers", "`C` x that", bytes(connections * memory))
	line("all of a broker's clients are back after, s", "`C / brokers x sign_in_us`", sprintf("%.0f", connections / brokers * sign_in_us / 1e6))

	cpu_postgres = rate * (postgres_us + first_us / repeats + marks * mark_us) / 1e6
	cpu_index = rate * index_us / 1e6
	cpu_requests = rate * requests * request_us / 1e6
	disk = day * days_kept * (row_bytes + index_bytes) * copies
	wal_each_message = wal_bytes + first_wal_bytes / repeats + marks * mark_wal_bytes + index_wal_bytes
	wal = rate * wal_each_message
	by_cpu = (cpu_postgres + cpu_index + cpu_requests) / (postgres_cores * postgres_load)
	by_disk = day * days_kept * (row_bytes + index_bytes) / disk_each
	line("PostgreSQL, cores busy with storing", "`M x (postgres_us + first_us / repeats + marks x mark_us)`", sprintf("%.1f", cpu_postgres))
	line("cores busy with the search index", "`M x index_us`", sprintf("%.1f", cpu_index))
	line("cores busy with requests", "`M x requests x request_us`", sprintf("%.1f", cpu_requests))
	line("messages kept", "messages a day x `days_kept`", human(day * days_kept, ""))
	line("disk, all copies", "that x `(row_bytes + index_bytes) x copies`", bytes(disk))
	line("WAL at peak, /s", "`M x (wal_bytes + first_wal_bytes / repeats + marks x mark_wal_bytes + index_wal_bytes)`", bytes(wal))
	line("WAL a day", "messages a day x the same", bytes(day * wal_each_message))
	line("**PostgreSQL servers**, without copies", "the largest of cores / (`postgres_cores x postgres_load`), disk of one copy / `disk_each`, WAL / `wal_each`", \
		up(larger(larger(by_cpu, by_disk), wal / wal_each)))

	network = rate * (message_bytes * (1 + marks) + fan_out * delivery_bytes)
	line("network of the brokers at peak, bit/s", "`M x (message_bytes x (1 + marks) + fan_out x delivery_bytes) x 8`", human(network * 8, "bit"))
	line("network between brokers and databases at peak, bit/s", "`M x (record_bytes + answer_bytes) x 8`", human(rate * (record_bytes + answer_bytes) * 8, "bit"))
}

BEGIN {
	# What you expect.
	peak_factor = given(peak_factor, 3)      # the busiest second by the average
	fan_out = given(fan_out, 2.5)            # connections that a message is delivered to, the sender's own among them
	marks = given(marks, 1)                  # "delivered / read up to here" sent for a message, one for many counted as a part
	repeats = given(repeats, 5)              # messages of a conversation between two checkpoints
	requests = given(requests, 0.5)          # history, sync and search for a message
	memberships = given(memberships, 20)     # conversations of a person
	subscriptions = given(subscriptions, 20) # of them, those a connection listens to
	days_kept = given(days_kept, 365)
	copies = given(copies, 2)                # of the database, the first included

	# What things cost, as measured (docs/performance.md).
	message_us = given(message_us, 12)       # broker thread, a message in
	delivery_us = given(delivery_us, 6.3)    # broker thread, a delivery out and its acknowledgement
	plugin_us = given(plugin_us, 2.3)        # the plugin's other threads, a message
	sign_in_us = given(sign_in_us, 220)      # broker process, CONNECT with ES256 and 20 subscriptions
	postgres_us = given(postgres_us, 15.3)     # a message in batches of 500, pages at hand
	wal_bytes = given(wal_bytes, 540)        # likewise
	first_us = given(first_us, 70)           # more for a conversation's first message after a checkpoint: its pages go to the WAL whole
	first_wal_bytes = given(first_wal_bytes, 13090)
	mark_us = given(mark_us, 14.0)             # a mark in batches of 500
	mark_wal_bytes = given(mark_wal_bytes, 220)
	index_us = given(index_us, 60)           # an entry of the search index
	index_wal_bytes = given(index_wal_bytes, 1500)
	index_bytes = given(index_bytes, 350)    # on disk
	request_us = given(request_us, 800)      # a request
	row_bytes = given(row_bytes, 260)        # a stored message of 40 characters with its two indexes
	session_bytes = given(session_bytes, 1680)
	membership_bytes = given(membership_bytes, 27)
	subscription_bytes = given(subscription_bytes, 222)
	# Computed or estimated, not measured.
	socket_bytes = given(socket_bytes, 4096)   # the kernel's, of an idle TCP connection without TLS
	message_bytes = given(message_bytes, 320)  # on the wire: PUBLISH of 100 characters, PUBACK, TCP and IP
	delivery_bytes = given(delivery_bytes, 450)
	record_bytes = given(record_bytes, 250)
	answer_bytes = given(answer_bytes, 60)

	# What a machine may carry.
	thread_load = given(thread_load, 0.6)
	connections_each = given(connections_each, 100000)
	postgres_cores = given(postgres_cores, 16)
	postgres_load = given(postgres_load, 0.5)
	disk_each = given(disk_each, 2e13)
	wal_each = given(wal_each, 1e8)

	if (name != "") {
		estimate(name, given(daily, 0), given(connections, 0), given(peak, 0), given(per_user, 20))
	} else {
		estimate("50 M people a day", 50e6, 1e6, 0, given(per_user, 20))
		estimate("500 M people", 500e6, 50e6, 1e6, given(per_user, 50))
	}
	printf "| |"
	for (c = 1; c <= cases; c++) printf " %s |", titles[c]
	printf " how |\n| --- |"
	for (c = 1; c <= cases; c++) printf " ---: |"
	print " --- |"
	for (i = 1; i <= lines; i++) {
		printf "| %s |", order[i]
		for (c = 1; c <= cases; c++) printf " %s |", cell[order[i], c]
		printf " %s |\n", how[order[i]]
	}
}
