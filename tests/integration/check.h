/* check.h - cmocka with the headers it wants first, and a check for what is no assertion about the product. */
#ifndef CHAT_TESTS_CHECK_H
#define CHAT_TESTS_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* Something the test itself depends on. */
#define check(condition)                                                                                                         \
	do {                                                                                                                     \
		if (!(condition))                                                                                                \
			fail_msg("the test's own ground gave way: %s", #condition);                                              \
	} while (0)

#endif
