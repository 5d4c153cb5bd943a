/* process.c - see process.h. One thread. */
#include "process.h"
#include "check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ARGUMENTS_MAX = 64, END_MS = 20000, RUN_MS = 120000, DESCENDANTS_MAX = 256, TAIL_BYTES = 12000 };

int64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t now_ms(void)
{
	return now_ns() / 1000000;
}

int64_t allowed_ms(int64_t ms)
{
	const char *preload = getenv("CHAT_TEST_PRELOAD");
	return preload && *preload ? 5 * ms : ms;
}

void look_again_soon(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
}

struct account account_find(const char *const names[])
{
	struct account account = {.uid = getuid(), .gid = getgid()};
	struct passwd *entry = getpwuid(getuid());
	for (size_t i = 0; getuid() == 0 && names[i]; i++) {
		entry = getpwnam(names[i]);
		if (entry)
			break;
	}
	if (!entry) {
		fail_msg("no account %s", names[0]);
		return account;
	}
	check(snprintf(account.name, sizeof account.name, "%s", entry->pw_name) < (int)sizeof account.name);
	account.uid = entry->pw_uid;
	account.gid = entry->pw_gid;
	return account;
}

/* Between fork and exec: anything that fails ends the child with a line in its output. */
_Noreturn static void become(const char *const argv[], const char *const env[], const struct account *account, int output,
	int death_signal, pid_t parent)
{
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (dup2(output, 1) < 0 || dup2(output, 2) < 0)
		_exit(126);
	int nothing = open("/dev/null", O_RDONLY);
	if (nothing < 0 || dup2(nothing, 0) < 0)
		_exit(126);
	if (geteuid() == 0 && account->uid != 0) {
		if (initgroups(account->name, account->gid) || setgid(account->gid) || setuid(account->uid)) {
			perror("setuid");
			_exit(126);
		}
	}
	/* After setuid, which clears it. */
	prctl(PR_SET_PDEATHSIG, death_signal);
	if (getppid() != parent)
		_exit(126);
	for (size_t i = 0; env && env[i]; i++)
		putenv((char *)(uintptr_t)env[i]);
	execvp(argv[0], (char *const *)(uintptr_t)argv);
	fprintf(stderr, "%s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

void process_start(struct process *process, const char *name, const char *const argv[], const char *const env[],
	const struct account *account, const char *output_path, int death_signal)
{
	int output = open(output_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (output < 0)
		fail_msg("%s: %s", output_path, strerror(errno));
	pid_t parent = getpid();
	fflush(NULL);
	process->name = name;
	process->pid = fork();
	if (process->pid == 0)
		become(argv, env, account, output, death_signal, parent);
	close(output);
	if (process->pid < 0)
		fail_msg("fork: %s", strerror(errno));
}

bool process_wait(struct process *process, int64_t deadline_ms, int *status)
{
	while (process->pid > 0) {
		pid_t ended = waitpid(process->pid, status, WNOHANG);
		if (ended == process->pid || (ended < 0 && errno == ECHILD))
			process->pid = 0;
		else if (now_ms() >= deadline_ms)
			return false;
		else
			look_again_soon();
	}
	return true;
}

int process_end(struct process *process, int signal_number)
{
	int status = 0;
	if (process->pid <= 0)
		return 0;
	kill(process->pid, signal_number);
	if (!process_wait(process, now_ms() + END_MS, &status)) {
		process_signal_tree(process, SIGKILL);
		process_wait(process, now_ms() + END_MS, &status);
		fail_msg("%s did not end within %d s of signal %d", process->name, END_MS / 1000, signal_number);
	}
	return status;
}

void process_run(const char *name, const char *const argv[], const char *const env[], const struct account *account,
	const char *output_path)
{
	struct process process = {0};
	int status = -1;
	process_start(&process, name, argv, env, account, output_path, SIGKILL);
	bool ended = process_wait(&process, now_ms() + RUN_MS, &status);
	if (!ended || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		process_end(&process, SIGKILL);
		char *output = file_read(output_path);
		print_tail(output);
		free(output);
		fail_msg("%s failed (status 0x%x)", name, (unsigned)status);
	}
}

static pid_t parent_of(pid_t pid)
{
	char path[64], line[512];
	pid_t parent = 0;
	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	FILE *file = fopen(path, "re");
	if (!file)
		return 0;
	/* "pid (name) state parent": the name may hold anything, so look behind its last parenthesis. */
	if (fgets(line, sizeof line, file)) {
		char *end = strrchr(line, ')');
		if (end && strlen(end) > 4)
			parent = (pid_t)strtol(end + 4, NULL, 10);
	}
	fclose(file);
	return parent;
}

void process_signal_tree(const struct process *process, int signal_number)
{
	pid_t tree[DESCENDANTS_MAX] = {process->pid};
	size_t count = 1;
	DIR *entries = opendir("/proc");
	check(entries != NULL);
	if (process->pid > 0 && signal_number != SIGCONT)
		kill(process->pid, SIGSTOP); /* so that it has no more children while they are looked for */
	/* Pids of children may be lower than the parent's after a wrap, hence look until nothing is added. */
	for (size_t before = 0; before != count;) {
		before = count;
		rewinddir(entries);
		for (struct dirent *entry; (entry = readdir(entries)) && count < DESCENDANTS_MAX;) {
			pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10), parent = pid > 0 ? parent_of(pid) : 0;
			bool known = pid <= 0, ours = false;
			for (size_t i = 0; i < count; i++) {
				known = known || tree[i] == pid;
				ours = ours || tree[i] == parent;
			}
			if (ours && !known)
				tree[count++] = pid;
		}
	}
	closedir(entries);
	for (size_t i = 0; i < count && process->pid > 0; i++)
		kill(tree[i], signal_number);
}

void print_tail(const char *text)
{
	size_t length = strlen(text);
	fprintf(stderr, "%s\n", length > TAIL_BYTES ? text + length - TAIL_BYTES : text);
}

long file_size(const char *path)
{
	struct stat info;
	return stat(path, &info) == 0 ? (long)info.st_size : 0;
}

char *file_read(const char *path)
{
	return file_read_from(path, 0);
}

char *file_read_from(const char *path, long from)
{
	FILE *file = fopen(path, "re");
	size_t length = 0, capacity = 4096;
	char *text = malloc(capacity);
	check(text != NULL && (!file || fseek(file, from, SEEK_SET) == 0));
	while (file) {
		length += fread(text + length, 1, capacity - length - 1, file);
		if (length + 1 < capacity)
			break;
		char *larger = realloc(text, capacity *= 2);
		check(larger != NULL);
		text = larger;
	}
	if (file)
		fclose(file);
	text[length] = '\0';
	return text;
}

static void give(const char *path, mode_t mode, const struct account *owner)
{
	if (chmod(path, mode) || (owner && geteuid() == 0 && chown(path, owner->uid, owner->gid)))
		fail_msg("%s: %s", path, strerror(errno));
}

void file_write(const char *path, const char *text, mode_t mode, const struct account *owner)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		fail_msg("%s: %s", path, strerror(errno));
	close(fd);
	give(path, mode, owner);
}

void directory_make(const char *path, mode_t mode, const struct account *owner)
{
	if (mkdir(path, 0700))
		fail_msg("%s: %s", path, strerror(errno));
	give(path, mode, owner);
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *where)
{
	(void)info;
	(void)kind;
	(void)where;
	(void)remove(path);
	return 0;
}

void directory_remove(const char *path)
{
	nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

void directory_copy(const char *from, const char *to)
{
	char log[512];
	const char *argv[] = {"cp", "-a", from, to, NULL};
	struct account self = account_find((const char *const[]){"root", NULL});
	check(snprintf(log, sizeof log, "%s.log", to) < (int)sizeof log);
	directory_remove(to);
	process_run("cp", argv, NULL, &self, log);
	unlink(log);
}
