/* endpoint.c - see endpoint.h. */
#include "endpoint.h"

#include "text.h"

#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define HOST_MAX 253 /* RFC 1035 section 2.3.4, less the dots at both ends */

/* ---- URLs ---- */

static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_name_character(char c)
{
	return (c >= 'a' && c <= 'z') || is_digit(c) || c == '-' || c == '.' || c == '_';
}

/* Programs that turn names into addresses take 127.1, 0x7f000001, 017700000001 and 2130706433 for addresses: whatever ends in a
 * label that begins with a digit is none of a name's business (top-level domains begin with a letter). */
static const char *check_name(const char *host, size_t length)
{
	static const char *const local[] = {
		"localhost", "local", "internal", "intranet", "lan", "home", "corp", "arpa", "test", "invalid"};
	const char *dot = memrchr(host, '.', length);

	if (!dot || host[0] == '.' || dot == host + length - 1 || memmem(host, length, "..", 2)) {
		return "the host is no full domain name";
	}
	const char *last = dot + 1;
	size_t last_length = (size_t)(host + length - last);
	if (is_digit(last[0]) || last[0] == '-') {
		return "the host is an address";
	}
	for (size_t i = 0; i < sizeof(local) / sizeof(local[0]); i++) {
		if (strlen(local[i]) == last_length && memcmp(local[i], last, last_length) == 0) {
			return "the host is a local name";
		}
	}
	return NULL;
}

const char *endpoint_check(const char *url, size_t length, bool any_host, char origin[ENDPOINT_ORIGIN_SIZE])
{
	static const char scheme[] = "https://";
	char host[HOST_MAX + 1];
	size_t at = sizeof(scheme) - 1, host_length = 0;
	int64_t port = 443;

	if (length > ENDPOINT_MAX) {
		return "longer than 1000 bytes";
	}
	for (size_t i = 0; i < length; i++) {
		if (url[i] <= ' ' || url[i] > '~' || strchr("\\#\"<>^`{|}", url[i])) {
			return "a character that no URL of a push service has";
		}
	}
	if (length < at || strncasecmp(url, scheme, at) != 0) {
		return "not https";
	}
	for (; at < length && url[at] != '/' && url[at] != ':' && url[at] != '?'; at++) {
		char c = lower(url[at]);
		if (!is_name_character(c) || host_length == HOST_MAX) {
			return "a character that no host name has, or too long a name";
		}
		host[host_length++] = c;
	}
	host[host_length] = '\0';
	if (at < length && url[at] == ':') {
		size_t start = ++at;
		while (at < length && is_digit(url[at])) {
			at++;
		}
		if (!text_parse_integer(url + start, at - start, 1, 65535, &port) || (port != 443 && !any_host)) {
			return "another port than 443";
		}
	}
	if (at == length || url[at] != '/') {
		return "no path";
	}
	const char *wrong = any_host && host_length > 0 ? NULL : check_name(host, host_length);
	if (wrong) {
		return wrong;
	}
	(void)snprintf(origin, ENDPOINT_ORIGIN_SIZE, port == 443 ? "https://%s" : "https://%s:%d", host, (int)port);
	return NULL;
}

/* ---- addresses ---- */

struct prefix4 {
	uint32_t network;
	unsigned bits;
};

/* IANA's registry of special-purpose IPv4 addresses: what is not globally reachable, and multicast. */
static const struct prefix4 special4[] = {
	{0x00000000, 8},  /* 0.0.0.0/8, this network */
	{0x0a000000, 8},  /* 10.0.0.0/8 */
	{0x64400000, 10}, /* 100.64.0.0/10, shared by carriers */
	{0x7f000000, 8},  /* 127.0.0.0/8 */
	{0xa9fe0000, 16}, /* 169.254.0.0/16, link-local, clouds' metadata */
	{0xac100000, 12}, /* 172.16.0.0/12 */
	{0xc0000000, 24}, /* 192.0.0.0/24 */
	{0xc0000200, 24}, /* 192.0.2.0/24, documentation */
	{0xc0586300, 24}, /* 192.88.99.0/24, 6to4 relays */
	{0xc0a80000, 16}, /* 192.168.0.0/16 */
	{0xc6120000, 15}, /* 198.18.0.0/15, benchmarks */
	{0xc6336400, 24}, /* 198.51.100.0/24, documentation */
	{0xcb007100, 24}, /* 203.0.113.0/24, documentation */
	{0xe0000000, 3},  /* 224.0.0.0/3: multicast, reserved, broadcast */
};

static bool is_public4(uint32_t address)
{
	for (size_t i = 0; i < sizeof(special4) / sizeof(special4[0]); i++) {
		if (((address ^ special4[i].network) >> (32 - special4[i].bits)) == 0) {
			return false;
		}
	}
	return true;
}

static uint32_t read32(const uint8_t *at)
{
	return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* Only 2000::/3 is handed out (RFC 4291 section 2.4); of that, what carries another address in it or is special is left out. An
 * IPv4 address in NAT64's prefix is as public as it is itself. */
static bool is_public6(const uint8_t address[16])
{
	static const uint8_t nat64[12] = {0x00, 0x64, 0xff, 0x9b};
	uint32_t first = read32(address);

	if (memcmp(address, nat64, sizeof(nat64)) == 0) {
		return is_public4(read32(address + 12));
	}
	if (first >> 29 != 1) {
		return false; /* ::1, ::ffff:10.0.0.1, fc00::/7, fe80::/10, ff00::/8 and all the rest */
	}
	if (first >> 9 == 0x20010000 >> 9 || first == 0x20010db8 || first >> 16 == 0x2002) {
		return false; /* 2001::/23 (Teredo among them), 2001:db8::/32 documentation, 2002::/16 6to4 */
	}
	return first >> 12 != 0x3fff0; /* 3fff::/20, documentation */
}

bool endpoint_address_is_public(const struct sockaddr *address)
{
	if (address->sa_family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)address;
		return is_public4(ntohl(in->sin_addr.s_addr));
	}
	if (address->sa_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)address;
		return is_public6(in6->sin6_addr.s6_addr);
	}
	return false;
}
