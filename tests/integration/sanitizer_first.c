/* sanitizer_first.c - wakes a preloaded sanitizer before any other library's constructor runs; itself not sanitized.
 *
 * A sanitizer's library starts at the first malloc. In the broker that is inside bindtextdomain(), which libgpg-error's
 * constructor calls and which holds glibc's lock of message catalogues then. The start asks dlsym() for a symbol that is not
 * there, whose error text is translated, under the same lock: what is then locked twice is unlocked once too often, and the
 * next bindtextdomain(), libpq's, waits for ever. Linked with -z initfirst, this library is the first to call malloc.
 */
#include <stdlib.h>

__attribute__((constructor)) static void wake(void)
{
	void *volatile memory = malloc(1);
	free(memory);
}
