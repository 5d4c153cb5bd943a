# results.awk - reads what run.sh has measured: files named SCENARIO.ARM.ROUND with lines `name value`. For table.awk and
# chart.awk, which come behind it. A scenario has two arms; a ratio is the second's median by the first's, and behind it stand
# the smallest and the largest ratio of two runs that followed each other.

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

# The arms of a scenario, and what they are called.
function first_arm(scenario) {
	if (scenario ~ /^(requests|logins)$/)
		return "alone"
	return scenario == "receipts" ? "silent" : scenario ~ /^table/ ? "empty" : scenario ~ /^(rows|marks)$/ ? "batch500" : "plain"
}

function second_arm(scenario) {
	if (scenario ~ /^(requests|logins)$/)
		return "beside"
	return scenario == "receipts" ? "marked" : scenario ~ /^table/ ? "full" : scenario ~ /^(rows|marks)$/ ? "batch1" : "chat"
}

function title_of(arm) {
	return arm == "silent" ? "no marks" : arm == "marked" ? "all marked" : arm == "chat" ? "with plugin" : arm == "batch500" ? "batches of 500" : arm == "batch1" ? "of 1" : arm
}

# The median over the rounds, or "-".
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

function ratio(scenario, name,    first, second, a, b, i, each, low, high) {
	first = first_arm(scenario)
	second = second_arm(scenario)
	a = median(scenario, first, name)
	b = median(scenario, second, name)
	if (a == "-" || a == 0 || b == "-")
		return "-"
	for (i = 1; i <= rounds; i++) {
		if (value[scenario, first, i, name] + 0 == 0)
			continue
		each = value[scenario, second, i, name] / value[scenario, first, i, name]
		low = low == "" || each < low ? each : low
		high = high == "" || each > high ? each : high
	}
	return sprintf("%.2f  (%.2f-%.2f)", b / a, low, high)
}
