/* process.h - child processes of a test: started as another account, waited for with a deadline, never left behind.
 *
 * A child dies with the test program (PR_SET_PDEATHSIG), whatever ends that. Failures end the running test.
 */
#ifndef CHAT_TESTS_PROCESS_H
#define CHAT_TESTS_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct account {
	char name[64];
	uid_t uid;
	gid_t gid;
};

struct process {
	const char *name; /* static */
	pid_t pid;        /* 0: not running */
};

/* The first of `names` that exists, where we are root; otherwise whoever we are. */
struct account account_find(const char *const names[]);

/* argv and env (NAME=VALUE, added to ours) end with NULL; env may be NULL. Output goes to the end of output_path.
 * death_signal is what the child gets when the test program dies. */
void process_start(struct process *process, const char *name, const char *const argv[], const char *const env[],
	const struct account *account, const char *output_path, int death_signal);
/* True where the process has ended by then (or was not running); *status as from waitpid. */
bool process_wait(struct process *process, int64_t deadline_ms, int *status);
/* Sends the signal and waits up to 20 s for the end; where that does not come: SIGKILL, and the test fails. Returns the status.
 */
int process_end(struct process *process, int signal_number);
/* Runs to completion and fails the test, with the output, where the exit status is not 0. */
void process_run(const char *name, const char *const argv[], const char *const env[], const struct account *account,
	const char *output_path);
/* Sends a signal to the process and all its descendants. */
void process_signal_tree(const struct process *process, int signal_number);

/* Monotonic time for deadlines. */
int64_t now_ms(void);
int64_t now_ns(void);
/* A time that the tested program may take, in ms: more of it under a sanitizer. */
int64_t allowed_ms(int64_t ms);
/* The pause between two looks at a condition that nothing can be waited on for: 2 ms. */
void look_again_soon(void);

/* The end of a long text to stderr (cmocka's own printing stops at 1,024 bytes). */
void print_tail(const char *text);
/* The whole file as a NUL-terminated string to free(); "" where it does not exist. */
char *file_read(const char *path);
char *file_read_from(const char *path, long from);
long file_size(const char *path);
void file_write(const char *path, const char *text, mode_t mode, const struct account *owner);
void directory_make(const char *path, mode_t mode, const struct account *owner);
void directory_remove(const char *path);
/* With owners and modes; what is at `to` is removed first. */
void directory_copy(const char *from, const char *to);

#endif
