# chart.awk - results of run.sh to an SVG; behind results.awk. `order` names the scenarios, `caption` stands below.
#
# A panel for each kind of figure. In a panel each scenario has two bars, one below the other, by the larger of the two; numbers
# stand beside them, since scenarios differ by orders of magnitude.

function escape(text) {
	gsub(/&/, "\\&amp;", text)
	gsub(/</, "\\&lt;", text)
	return text
}

function text(x, y, class, anchor, content) {
	body = body sprintf("<text x=\"%d\" y=\"%d\" class=\"%s\" text-anchor=\"%s\">%s</text>\n", x, y, class, anchor, escape(content))
}

function number(amount) {
	return amount >= 100 ? sprintf("%.0f", amount) : amount >= 1 ? sprintf("%.1f", amount) : sprintf("%.2f", amount)
}

function bar(y, class, amount, largest, label) {
	body = body sprintf("<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"11\" class=\"%s\"/>\n", LEFT, y, WIDTH * amount / largest, class)
	text(LEFT + WIDTH * amount / largest + 6, y + 10, "small", "start", number(amount) "  " label)
}

function panel(title, name,    s, scenario, a, b, largest, any) {
	any = 0
	for (s = 1; s <= count; s++) {
		scenario = scenarios[s]
		a = median(scenario, first_arm(scenario), name)
		b = median(scenario, second_arm(scenario), name)
		if (a == "-" || b == "-")
			continue
		if (!any++) {
			text(20, height += 34, "title", "start", title)
			height += 8
		}
		largest = a > b ? a : b
		if (largest == 0)
			continue
		text(LEFT - 10, height + 18, "name", "end", scenario)
		bar(height, "first", a, largest, title_of(first_arm(scenario)))
		bar(height + 13, "second", b, largest, title_of(second_arm(scenario)) (a > 0 ? sprintf("  (x %.2f)", b / a) : ""))
		height += 34
	}
}

END {
	LEFT = 130
	WIDTH = 420
	height = 10
	count = split(order, scenarios, " ")
	panel("messages delivered to all their receivers, a second", "messages_per_s")
	panel("rows stored, a second", "rows_per_s")
	panel("publish to receive: half are faster than, ms", "delivery_p50_ms")
	panel("publish to receive: of 100, 99 are faster than, ms", "delivery_p99_ms")
	panel("all sessions connected and subscribed again after, s", "wave2_ready_s")
	panel("longest time without an answer from the broker, ms", "ping_max_ms")
	panel("resident memory of a session, bytes", "bytes_per_session_broker")
	text(20, height += 24, "small", "start", caption)
	printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"800\" height=\"%d\" viewBox=\"0 0 800 %d\">\n", height + 16, height + 16
	print "<style>text{font-family:sans-serif;fill:#222}.title{font-size:15px;font-weight:bold}.name{font-size:13px}.small{font-size:11px}"
	print ".first{fill:#9aa7b5}.second{fill:#2f6f9f}</style>"
	print "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>"
	printf "%s</svg>\n", body
}
