/* thread.c - see thread.h. */
#include "thread.h"

#include <signal.h>

bool thread_start(pthread_t *thread, void *(*main)(void *), void *argument)
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before); /* a thread begins with its maker's mask */
	bool started = pthread_create(thread, NULL, main, argument) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return started;
}
