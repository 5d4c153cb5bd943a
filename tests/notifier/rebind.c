/* rebind.c - preloaded into the notifier by a test: every name under rebind.example.org resolves to 127.0.0.1, as an attacker's
 * DNS may say at any time, and nothing else resolves.
 */
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

__attribute__((visibility("default"))) int getaddrinfo(const char *restrict node, const char *restrict service,
	const struct addrinfo *restrict hints, struct addrinfo **restrict result);

int getaddrinfo(const char *restrict node, const char *restrict service, const struct addrinfo *restrict hints,
	struct addrinfo **restrict result)
{
	struct whole {
		struct addrinfo info;
		struct sockaddr_in address;
	} *whole = NULL;

	(void)hints;
	if (node == NULL || strstr(node, ".rebind.example.org") == NULL) {
		return EAI_NONAME;
	}
	whole = calloc(1, sizeof(*whole));
	if (whole == NULL) {
		return EAI_MEMORY;
	}
	whole->address.sin_family = AF_INET;
	whole->address.sin_port = htons((uint16_t)(service != NULL ? strtoul(service, NULL, 10) : 443));
	whole->address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	whole->info.ai_family = AF_INET;
	whole->info.ai_socktype = SOCK_STREAM;
	whole->info.ai_addrlen = sizeof(whole->address);
	whole->info.ai_addr = (struct sockaddr *)(void *)&whole->address;
	*result = &whole->info;
	return 0;
}
