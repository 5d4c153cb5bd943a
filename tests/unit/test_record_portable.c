/* test_record_portable.c - test_record.c once more, over the checksum that machines without the instruction use. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* What record.c asks for; no system header comes behind this. Its functions are here, so the library's stay out. */
#undef __x86_64__
#include "../../plugin/record.c" // NOLINT: the variant, not the library's

#include "test_record.c" // NOLINT: the same cases
