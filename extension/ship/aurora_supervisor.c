/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_supervisor.c: the background worker that runs the embedded storage
 * daemon (aurora.storage_nodes = '').
 *
 * Invariants:
 *  1. At most one daemon of this supervisor runs.  One left over from a
 *     postmaster that was killed stops by itself (its parent's death), and
 *     the new one waits for its directory lock.
 *  2. The daemon never outlives the supervisor for long: SIGTERM comes from
 *     the supervisor, or from the kernel when the supervisor is gone.
 *  3. At shutdown the daemon is stopped after the shipper has ended.
 *  4. The daemon inherits nothing but its log file as standard output and
 *     error: no sockets, no files, no signal mask of the server.
 */
#include "postgres.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "access/xlog.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "client/aurora_nodes.h"
#include "module/aurora_guc.h"
#include "ship/aurora_ship_state.h"

#define RESTART_DELAY_MIN_MS 100
#define RESTART_DELAY_MAX_MS 5000
/* A daemon that ran this long died of something new: back-off starts anew. */
#define GOOD_RUN_MS 10000
#define STOP_TIMEOUT_MS 30000
/* How long the daemon outlives the server's shutdown for the shipper. */
#define SHIPPER_WAIT_MS 3000
/* The daemon's log is put aside at a start when it is longer. */
#define LOG_BYTES_MAX (16 * 1024 * 1024)
#define LOG_TAIL_BYTES 700
/* After so many failures in a row they are reported only now and then. */
#define REPORTED_FAILURES 3
#define REPORT_INTERVAL_MS 30000
#define ARGS_MAX 64

typedef struct Supervisor
{
	char	   *dir;			/* absolute */
	char	   *log_path;
	char	   *socket;
	char	   *http_socket;
	char	   *program;
	char	   *options;		/* aurora.storaged_options, as in argv */
	char	   *argv[ARGS_MAX];

	pid_t		pid;			/* 0: not running */
	TimestampTz started;
	off_t		log_start;		/* length of the log before this run */

	int			failures;		/* starts in a row that came to nothing */
	TimestampTz last_report;
} Supervisor;

static Supervisor *supervisor = NULL;

static void
sigchld_handler(SIGNAL_ARGS)
{
	int			save_errno = errno;

	SetLatch(MyLatch);
	errno = save_errno;
}

/* ---- what is to be run ---- */

/* aurora_storaged stands beside the server's own program. */
static char *
program_path(void)
{
	char		dir[MAXPGPATH];

	if (aurora_storaged_path[0] != '\0')
		return aurora_ship_path(aurora_storaged_path, "");
	strlcpy(dir, my_exec_path, sizeof(dir));
	get_parent_directory(dir);
	return psprintf("%s/aurora_storaged", dir);
}

static void
add_arg(Supervisor *sup, int *n, char *arg)
{
	if (*n >= ARGS_MAX - 1)
		ereport(FATAL,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("too many arguments in aurora.storaged_options")));
	sup->argv[(*n)++] = arg;
	sup->argv[*n] = NULL;
}

/* Where things are; fixed while the server runs. */
static void
find_paths(Supervisor *sup)
{
	struct sockaddr_un un;

	sup->dir = aurora_ship_path(aurora_storage_dir, "aurora");
	sup->log_path = psprintf("%s/storaged.log", sup->dir);
	sup->socket = pstrdup(aurora_node_address(0));
	/* beside the data, if a socket's path may be that long */
	sup->http_socket = psprintf("%s/http.sock", sup->dir);
	if (strlen(sup->http_socket) >= sizeof(un.sun_path))
		sup->http_socket = psprintf("%s.http", sup->socket);
	sup->program = program_path();
}

/* The daemon's command line, from the paths and aurora.storaged_options.
 * What an older one took stays allocated: it changes by hand only. */
static void
build_command(Supervisor *sup)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	int			n = 0;
	char	   *save = NULL;
	char	   *words = pstrdup(aurora_storaged_options);

	sup->options = pstrdup(aurora_storaged_options);
	add_arg(sup, &n, sup->program);
	add_arg(sup, &n, "--dir");
	add_arg(sup, &n, sup->dir);
	add_arg(sup, &n, "--socket");
	add_arg(sup, &n, sup->socket);
	add_arg(sup, &n, "--http-socket");
	add_arg(sup, &n, sup->http_socket);
	add_arg(sup, &n, "--single-volume");
	add_arg(sup, &n, psprintf(UINT64_FORMAT, GetSystemIdentifier()));
	for (char *word = strtok_r(words, " \t\n", &save); word != NULL;
		 word = strtok_r(NULL, " \t\n", &save))
		add_arg(sup, &n, word);
	MemoryContextSwitchTo(old);
}

static void
make_directory(const char *dir, const char *setting)
{
	struct stat sb;

	if (mkdir(dir, S_IRWXU) == 0)
	{
		char		parent[MAXPGPATH];

		strlcpy(parent, dir, sizeof(parent));
		get_parent_directory(parent);
		fsync_fname(parent, true);
		return;
	}
	if (errno != EEXIST)
		ereport(FATAL,
				(errcode_for_file_access(),
				 errmsg("could not create directory \"%s\" for aurora_storaged: %m",
						dir),
				 errhint("Make it yourself, or set %s to a place where this server may write.",
						 setting)));
	if (stat(dir, &sb) != 0 || !S_ISDIR(sb.st_mode))
		ereport(FATAL,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a directory", dir),
				 errhint("Set %s to a place where this server may write.",
						 setting)));
}

/* The directory of the data, and that of the socket. */
static void
make_directories(const Supervisor *sup)
{
	char		dir[MAXPGPATH];

	make_directory(sup->dir, "aurora.storage_directory");
	strlcpy(dir, sup->socket, sizeof(dir));
	get_parent_directory(dir);
	if (strcmp(dir, sup->dir) != 0)
		make_directory(dir, "aurora.storage_socket");
}

/* Keep the log short: one older part beside it. */
static void
rotate_log(const Supervisor *sup)
{
	struct stat sb;
	char	   *old;

	if (stat(sup->log_path, &sb) != 0 || sb.st_size <= LOG_BYTES_MAX)
		return;
	old = psprintf("%s.1", sup->log_path);
	if (rename(sup->log_path, old) != 0)
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not rename file \"%s\" to \"%s\": %m",
						sup->log_path, old)));
	pfree(old);
}

/* ---- start and end of a daemon ---- */

/*
 * In the child: become the daemon.  Only async-signal-safe calls, as there is
 * nobody to clean up after anything else.
 */
static void pg_attribute_noreturn()
become_daemon(const Supervisor *sup, pid_t parent, int log_fd, int error_fd)
{
	struct sigaction dfl;
	sigset_t	none;
	int			err;

	/* The postmaster signals process groups: the daemon has its own. */
	(void) setsid();
	memset(&dfl, 0, sizeof(dfl));
	dfl.sa_handler = SIG_DFL;
	for (int sig = 1; sig < NSIG; sig++)
		(void) sigaction(sig, &dfl, NULL);	/* some cannot be set: fine */
	sigemptyset(&none);
	(void) sigprocmask(SIG_SETMASK, &none, NULL);

	if (prctl(PR_SET_PDEATHSIG, SIGTERM) != 0 || getppid() != parent)
		_exit(1);				/* the supervisor died meanwhile */

	if (dup2(log_fd, STDOUT_FILENO) < 0 || dup2(log_fd, STDERR_FILENO) < 0 ||
		dup2(error_fd, 3) < 0)
		_exit(1);
#ifdef SYS_close_range
	if (syscall(SYS_close_range, 4u, ~0u, 0u) != 0)
#endif
	{
		long		max = sysconf(_SC_OPEN_MAX);

		for (int fd = 4; fd < (max > 0 ? max : 1024); fd++)
			(void) close(fd);
	}
	(void) fcntl(3, F_SETFD, FD_CLOEXEC);

	(void) execv(sup->program, sup->argv);
	err = errno;
	if (write(3, &err, sizeof(err)) < 0)
		_exit(126);
	_exit(127);
}

/* Does what happens now go into the log? */
static bool
worth_reporting(Supervisor *sup)
{
	TimestampTz now = GetCurrentTimestamp();

	if (sup->failures >= REPORTED_FAILURES &&
		!TimestampDifferenceExceeds(sup->last_report, now, REPORT_INTERVAL_MS))
		return false;
	sup->last_report = now;
	return true;
}

/*
 * Start the daemon.  False (with the reason in the log and the view) if it
 * cannot even be executed.
 */
static bool
start_daemon(Supervisor *sup)
{
	int			log_fd;
	int			null_fd;
	int			pipe_fd[2];
	int			err = 0;
	ssize_t		n;
	pid_t		parent = getpid();
	pid_t		pid;

	rotate_log(sup);
	log_fd = open(sup->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (log_fd < 0)
		ereport(FATAL,
				(errcode_for_file_access(),
				 errmsg("could not open file \"%s\": %m", sup->log_path)));
	sup->log_start = lseek(log_fd, 0, SEEK_END);
	/* Keep descriptor 0 busy, so that no pipe end lands there. */
	null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (pipe(pipe_fd) != 0)
		ereport(FATAL, (errmsg("could not create a pipe: %m")));
	(void) fcntl(pipe_fd[0], F_SETFD, FD_CLOEXEC);
	(void) fcntl(pipe_fd[1], F_SETFD, FD_CLOEXEC);

	fflush(stdout);
	fflush(stderr);
	PG_SETMASK(&BlockSig);		/* no handler of ours runs in the child */
	pid = fork();
	if (pid == 0)
	{
		if (null_fd >= 0)
			(void) dup2(null_fd, STDIN_FILENO);
		become_daemon(sup, parent, log_fd, pipe_fd[1]);
	}
	err = errno;
	PG_SETMASK(&UnBlockSig);
	close(log_fd);
	close(pipe_fd[1]);
	if (null_fd >= 0)
		close(null_fd);
	if (pid < 0)
	{
		close(pipe_fd[0]);
		errno = err;
		ereport(LOG, (errmsg("could not fork for aurora_storaged: %m")));
		return false;
	}

	/* The pipe closes when exec succeeds; else it says why not. */
	err = 0;
	do
		n = read(pipe_fd[0], &err, sizeof(err));
	while (n < 0 && errno == EINTR);
	close(pipe_fd[0]);
	if (n == sizeof(err))
	{
		char	   *why;

		(void) waitpid(pid, NULL, 0);
		why = psprintf("could not execute \"%s\": %s", sup->program, strerror(err));
		aurora_ship_set_daemon(0, false, why);
		if (worth_reporting(sup))
			ereport(LOG,
					(errmsg("%s", why),
					 errhint("Install aurora_storaged there, set aurora.storaged_path, or name running storage nodes in aurora.storage_nodes.")));
		pfree(why);
		return false;
	}

	sup->pid = pid;
	sup->started = GetCurrentTimestamp();
	aurora_ship_set_daemon(pid, true, NULL);
	if (sup->failures < REPORTED_FAILURES)
		ereport(LOG,
				(errmsg("started aurora_storaged with PID %d", (int) pid),
				 errdetail("Its log is \"%s\".", sup->log_path)));
	return true;
}

/* The last lines the daemon wrote in this run, or "". */
static char *
log_tail(const Supervisor *sup)
{
	char	   *buf = palloc0(LOG_TAIL_BYTES + 1);
	char	   *text = buf;
	struct stat sb;
	int			fd = open(sup->log_path, O_RDONLY | O_CLOEXEC);
	ssize_t		n = 0;

	if (fd >= 0)
	{
		if (fstat(fd, &sb) == 0)
		{
			off_t		from = Max(sup->log_start, sb.st_size - LOG_TAIL_BYTES);

			n = pread(fd, buf, LOG_TAIL_BYTES, from);
			if (n > 0 && from > sup->log_start && strchr(buf, '\n') != NULL)
				text = strchr(buf, '\n') + 1;	/* not half a line */
		}
		close(fd);
	}
	while (n > 0 && (buf[n - 1] == '\n' || buf[n - 1] == '\0'))
		buf[--n] = '\0';
	for (char *p = buf; *p; p++)	/* whatever it wrote, one text */
		if ((unsigned char) *p < ' ' && *p != '\n' && *p != '\t')
			*p = '?';
	return text;
}

/* Has the daemon ended?  Then report it, unless we asked it to. */
static bool
reap_daemon(Supervisor *sup, bool expected)
{
	int			status;
	pid_t		rc;
	char	   *tail;
	char	   *how;
	const char *last_line;

	do
		rc = waitpid(sup->pid, &status, WNOHANG);
	while (rc < 0 && errno == EINTR);
	if (rc == 0)
		return false;

	sup->pid = 0;
	if (rc > 0 && WIFEXITED(status))
		how = psprintf("aurora_storaged ended with exit code %d", WEXITSTATUS(status));
	else if (rc > 0 && WIFSIGNALED(status))
		how = psprintf("aurora_storaged was terminated by signal %d: %s",
					   WTERMSIG(status), pg_strsignal(WTERMSIG(status)));
	else
		how = pstrdup("aurora_storaged ended");
	tail = log_tail(sup);
	if (expected && rc > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0)
		ereport(LOG, (errmsg("aurora_storaged has stopped")));
	else if (worth_reporting(sup))
		ereport(LOG,
				(errmsg("%s", how),
				 tail[0] ? errdetail("The end of \"%s\":\n%s", sup->log_path, tail) :
				 errdetail("It wrote nothing to \"%s\".", sup->log_path)));
	last_line = strrchr(tail, '\n');
	last_line = last_line ? last_line + 1 : tail;
	how = psprintf("%s%s%s", how, last_line[0] ? "; its last words: " : "", last_line);
	aurora_ship_set_daemon(0, false, how);
	return true;
}

/* Sleep until the latch is set or the time is up. */
static void
nap(long ms)
{
	(void) WaitLatch(MyLatch,
					 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (ms >= 0 ? WL_TIMEOUT : 0),
					 ms, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
}

/*
 * SIGTERM, and SIGKILL when it does not listen.  (A killed daemon loses
 * nothing either, it only takes longer to start.)
 */
static void
stop_daemon(Supervisor *sup)
{
	TimestampTz start;

	if (sup->pid == 0 || reap_daemon(sup, true))
		return;
	kill(sup->pid, SIGTERM);
	start = GetCurrentTimestamp();
	while (!reap_daemon(sup, true))
	{
		if (TimestampDifferenceExceeds(start, GetCurrentTimestamp(), STOP_TIMEOUT_MS))
		{
			ereport(LOG,
					(errmsg("aurora_storaged did not stop within %d s and is killed",
							STOP_TIMEOUT_MS / 1000)));
			kill(sup->pid, SIGKILL);
			while (!reap_daemon(sup, true))
				nap(100);
			return;
		}
		nap(100);
	}
}

/* For new options. */
static void
restart_daemon(Supervisor *sup)
{
	ereport(LOG,
			(errmsg("parameter \"aurora.storaged_options\" has changed, restarting aurora_storaged")));
	stop_daemon(sup);
}

/* At shutdown the shipper ends first, so that what it has in hand is still
 * taken. */
static void
wait_for_shipper(void)
{
	TimestampTz start = GetCurrentTimestamp();
	AuroraShipStatus st;

	for (;;)
	{
		aurora_ship_status(&st);
		if (st.pid == 0 ||
			TimestampDifferenceExceeds(start, GetCurrentTimestamp(), SHIPPER_WAIT_MS))
			break;
		nap(10);
	}
}

/* When the supervisor ends by an error of its own. */
static void
supervisor_exit(int code, Datum arg)
{
	if (supervisor->pid != 0)
		kill(supervisor->pid, SIGTERM);
	aurora_ship_set_daemon(0, false, NULL);
}

/* When to try again after a failure: 100 ms, twice that, ... */
static TimestampTz
next_try(Supervisor *sup, TimestampTz now)
{
	int			delay_ms = RESTART_DELAY_MIN_MS << Min(sup->failures, 10);

	sup->failures++;
	return TimestampTzPlusMilliseconds(now, Min(delay_ms, RESTART_DELAY_MAX_MS));
}

void
aurora_supervisor_main(Datum arg)
{
	Supervisor *sup;
	TimestampTz next_start = 0;
	MemoryContext loop_cxt;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	pqsignal(SIGCHLD, sigchld_handler);
	sup = supervisor = MemoryContextAllocZero(TopMemoryContext, sizeof(Supervisor));
	before_shmem_exit(supervisor_exit, (Datum) 0);
	BackgroundWorkerUnblockSignals();

	MemoryContextSwitchTo(TopMemoryContext);
	find_paths(sup);
	build_command(sup);
	make_directories(sup);
	loop_cxt = AllocSetContextCreate(TopMemoryContext, "aurora supervisor",
									 ALLOCSET_SMALL_SIZES);
	MemoryContextSwitchTo(loop_cxt);

	while (!ShutdownRequestPending)
	{
		TimestampTz now = GetCurrentTimestamp();

		MemoryContextReset(loop_cxt);
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			if (strcmp(sup->options, aurora_storaged_options) != 0)
			{
				build_command(sup);
				restart_daemon(sup);
			}
		}
		if (sup->pid != 0 && reap_daemon(sup, false))
		{
			if (TimestampDifferenceExceeds(sup->started, now, GOOD_RUN_MS))
				sup->failures = 0;
			next_start = next_try(sup, now);
		}
		if (sup->pid == 0 && now >= next_start && !start_daemon(sup))
			next_start = next_try(sup, now);
		nap(sup->pid != 0 ? -1 :
			TimestampDifferenceMilliseconds(now, next_start));
	}

	wait_for_shipper();
	stop_daemon(sup);
	proc_exit(1);				/* 0 would mean: never start again */
}
