/* thread.h - starting a thread that leaves the process's signals to the thread that had them. */
#ifndef CHAT_COMMON_THREAD_H
#define CHAT_COMMON_THREAD_H

#include <pthread.h>
#include <stdbool.h>

/* As pthread_create(), with all signals blocked in the new thread: they are the broker's. False: there is no thread. */
__attribute__((warn_unused_result)) bool thread_start(pthread_t *thread, void *(*main)(void *), void *argument);

#endif
