/* small_spool.h - the spool with segments of 64 KiB, for tests that open thousands of them.
 *
 * Its functions are compiled into the program that includes this, so the library's, with their size of a segment, stay out.
 */
#ifndef CHAT_TESTS_SMALL_SPOOL_H
#define CHAT_TESTS_SMALL_SPOOL_H

#define SPOOL_SEGMENT_BYTES ((size_t)1 << 16)

#include "../../plugin/spool.c"           // NOLINT: the variant, not the library's
#include "../../plugin/spool_files.c"     // NOLINT
#include "../../plugin/spool_positions.c" // NOLINT
#include "../../plugin/spool_recover.c"   // NOLINT

#endif
