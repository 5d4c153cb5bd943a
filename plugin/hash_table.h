/* hash_table.h - uthash (its user guide is at https://troydhanson.github.io/uthash/), set up for this project: want of memory is
 * an answer, hh.tbl NULL after HASH_ADD, and no exit().
 */
#ifndef CHAT_PLUGIN_HASH_TABLE_H
#define CHAT_PLUGIN_HASH_TABLE_H

#include <stdlib.h>

#define uthash_malloc(size) malloc(size)
#define HASH_NONFATAL_OOM 1
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#include <uthash.h>
#pragma GCC diagnostic pop

#endif
