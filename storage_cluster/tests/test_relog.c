/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_relog.c: log and pages are exchanged together, or not at all, wherever
 * kill -9 strikes: before each call that changes a directory or syncs, and
 * again while a start brings it to its end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/au_files.h"
#include "daemon/au_pagedirs.h"
#include "daemon/au_relog.h"
#include "store/au_landing_io.h"
#include "store/au_pagestore.h"
#include "tests/testdir.h"
#include "tests/wireclient.h"

#define SYSID 91
#define OLD_START ((AuLsn) 0x1000)
#define NEW_START ((AuLsn) 0x900000)

static int	calls;				/* that may be the last */
static int	die_at;				/* 0: never */
static int	fail_at;

/* false: it fails. */
static bool
may_die(void)
{
	if (++calls == die_at)
		kill(getpid(), SIGKILL);
	errno = EIO;
	return calls != fail_at;
}

/* In the place of libc's. */
int
rename(const char *from, const char *to)
{
	return may_die() ? (int) syscall(SYS_rename, from, to) : -1;
}

int
unlink(const char *path)
{
	return may_die() ? (int) syscall(SYS_unlink, path) : -1;
}

int
rmdir(const char *path)
{
	return may_die() ? (int) syscall(SYS_rmdir, path) : -1;
}

int
mkdir(const char *path, mode_t mode)
{
	return may_die() ? (int) syscall(SYS_mkdir, path, mode) : -1;
}

int
fsync(int fd)
{
	return may_die() ? (int) syscall(SYS_fsync, fd) : -1;
}

int
fdatasync(int fd)
{
	return may_die() ? (int) syscall(SYS_fdatasync, fd) : -1;
}

static char root[200];
static char volume[300];
static char logs[300];

static AuRelog
relog(void)
{
	return (AuRelog) {
		.dir = volume,.log = {
			.dir = logs,.system_identifier = SYSID,.segment_bytes = 1 << 20,
			.io = &au_landing_file_io
		}
	};
}

static void
put(const char *dir, const char *text)
{
	char		path[400];
	char		err[512];

	snprintf(path, sizeof(path), "%s/%s", volume, dir);
	assert_true(au_make_dir(path, err, sizeof(err)));
	assert_true(au_write_file(path, "which", text, strlen(text), err, sizeof(err)));
}

/* As after a node was away: old log with bytes, old pages, new ones complete. */
static void
make_volume(bool apart, bool damaged)
{
	AuRelog		r = relog();
	AuLanding  *l;
	char		err[512];

	testdir_remove(root);
	assert_int_equal(mkdir(root, 0700), 0);
	snprintf(volume, sizeof(volume), "%s/volume", root);
	assert_int_equal(mkdir(volume, 0700), 0);
	snprintf(logs, sizeof(logs), "%s/%s", root, apart ? "logs/7-91" : "volume/log");
	if (apart)
	{
		char		path[300];

		snprintf(path, sizeof(path), "%s/logs", root);
		assert_int_equal(mkdir(path, 0700), 0);
	}
	r.log.start_lsn = OLD_START;
	assert_int_equal(au_landing_open(&l, &r.log, err, sizeof(err)), AU_OK);
	assert_int_equal(au_landing_append(l, 1, 1, OLD_START, (const uint8_t *) "log", 3, err,
									   sizeof(err)), AU_OK);
	assert_int_equal(au_landing_sync(l, err, sizeof(err)), AU_OK);
	au_landing_close(l);
	put("pages", "old");
	put("pages.new", "new");
	if (damaged)
		put("pages.damaged", "older");
}

static bool
has(const char *dir, const char *text)
{
	char		path[400];
	char		got[16] = "";

	snprintf(path, sizeof(path), "%s/%s/which", volume, dir);
	return au_read_file(path, got, sizeof(got) - 1) >= 0 && strcmp(got, text) == 0;
}

static bool
is_there(const char *base, const char *suffix)
{
	char		path[400];

	snprintf(path, sizeof(path), "%s%s", base, suffix);
	return access(path, F_OK) == 0;
}

/* Both are old, or both are new; which? */
static bool
is_new(bool damaged)
{
	AuRelog		r = relog();
	AuLanding  *l;
	AuLsn		start;
	AuLsn		end;
	bool		anew = has("pages", "new");
	char		err[512];

	if (au_landing_open(&l, &r.log, err, sizeof(err)) != AU_OK)
		fail_msg("the log: %s", err);
	start = au_landing_start(l);
	end = au_landing_end(l);
	au_landing_close(l);
	assert_int_equal(start, anew ? NEW_START : OLD_START);
	assert_int_equal(end, anew ? NEW_START : OLD_START + 3);
	assert_true(has("pages", anew ? "new" : "old"));
	assert_true(has("pages.damaged", "older") == damaged);
	if (anew)
		assert_true(has(damaged ? "pages.dropped" : "pages.damaged", "old"));
	assert_false(is_there(volume, "/" AU_RELOG_FILE));
	assert_false(is_there(logs, ".new"));
	assert_false(is_there(logs, ".old"));
	return anew;
}

/* A process that does it, killed at its n-th call; false: it came to its end. */
static bool
killed_at(int n, bool begin)
{
	pid_t		pid = fork();
	int			st;

	if (pid == 0)
	{
		AuRelog		r = relog();
		char		err[512];

		calls = 0;
		die_at = n;
		if (begin && au_relog_begin(&r, NEW_START, err, sizeof(err)) != AU_OK)
			_exit(1);
		_exit(au_relog_roll(&r, err, sizeof(err)) != AU_OK);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &st, 0), pid);
	if (WIFSIGNALED(st))
		return true;
	assert_int_equal(WEXITSTATUS(st), 0);
	return false;
}

static void
every_kill(bool apart, bool damaged)
{
	AuRelog		r = relog();
	char		err[512];
	int			was_new = 0;
	int			n = 1;

	for (;; n++)
	{
		bool		died;
		bool		marked;

		make_volume(apart, damaged);
		died = killed_at(n, true);
		marked = is_there(volume, "/" AU_RELOG_FILE);
		/* starts, which are killed, too */
		for (int k = 1; died && k < 4; k++)
			(void) killed_at(1 + (n * 5 + k * 7) % 9, false);
		if (au_relog_roll(&r, err, sizeof(err)) != AU_OK)
			fail_msg("killed at call %d: %s", n, err);
		if (is_new(damaged))
			was_new++;
		else
		{
			assert_false(marked);
			assert_int_equal(was_new, 0);	/* once new, always new */
		}
		if (!died)
			break;
	}
	assert_true(n > 10 && was_new > 5 && was_new < n - 3);
	print_message("killed at each of %d calls, new after %d of them\n", n - 1, was_new);
}

static void
test_killed(void **state)
{
	(void) state;
	every_kill(false, false);
	every_kill(false, true);
	every_kill(true, false);
}

/* A rename or a sync that fails: the next attempt goes on, and the new pages
 * are never what is put away. */
static void
test_failed(void **state)
{
	AuPageDirs	p;
	char		err[512];
	bool		ok = false;
	int			failures = 0;

	(void) state;
	for (int n = 1; !ok; n++, failures++)
	{
		make_volume(false, false);
		au_pagedirs(volume, &p);
		calls = 0;
		fail_at = n;
		ok = au_pagedirs_switch(&p, err, sizeof(err));
		fail_at = 0;
		if (!au_pagedirs_switch(&p, err, sizeof(err)))
			fail_msg("after failure %d: %s", n, err);
		assert_true(has("pages", "new") && has("pages.damaged", "old"));
		assert_false(is_there(volume, "/pages.new"));
	}
	assert_int_equal(failures, 5);	/* two renames, two syncs, none */

	testdir_remove(p.pages);	/* neither: no reason for an empty one */
	assert_false(au_pagedirs_switch(&p, err, sizeof(err)));
}

/* The new log is elsewhere: nothing is exchanged, and it goes on when it is
 * given. */
static void
test_other_log_dir(void **state)
{
	AuRelog		r = relog();
	char		err[512];
	char		other[300];

	(void) state;
	make_volume(true, false);
	assert_int_equal(au_relog_begin(&r, NEW_START, err, sizeof(err)), AU_OK);
	snprintf(other, sizeof(other), "%s/volume/log", root);
	r.log.dir = other;
	assert_int_equal(au_relog_roll(&r, err, sizeof(err)), AU_REFUSED);
	assert_non_null(strstr(err, "--log-dir"));
	assert_true(has("pages", "old"));
	r.log.dir = logs;
	assert_int_equal(au_relog_roll(&r, err, sizeof(err)), AU_OK);
	assert_true(is_new(false));
}

/* A damaged REBUILT is no reason to guess. */
static void
test_damaged_mark(void **state)
{
	AuRelog		r = relog();
	char		err[512];

	(void) state;
	make_volume(false, false);
	assert_true(au_write_file(volume, AU_RELOG_FILE, "AURORARBxxxxxxxxxxxxxxxx", AU_RELOG_LEN, err,
							  sizeof(err)));
	assert_int_equal(au_relog_roll(&r, err, sizeof(err)), AU_CORRUPT);
	assert_true(has("pages", "old"));
}

/* A node that was made anew, and stopped before it got more log: an empty log
 * that begins at `log_start`, pages that are further and need log from NEW_START
 * on.  What auroractl check says. */
static int
check_behind(AuLsn log_start)
{
	AuVolumeMeta meta = {
		.system_identifier = SYSID,.start_lsn = OLD_START,.term = 3,.timeline = 1,
		.segment_size = 16 << 20,.history = {.n = 1,.terms = {{1, OLD_START, 1}}},
		.group = {.n = 3,.write_quorum = 2,.members = {{.node_id = 1}, {.node_id = 2}, {.node_id = 3}}}
	};
	AuRelog		r = relog();
	AuPageStoreOptions opt = {
		.system_identifier = SYSID,.start_lsn = OLD_START,.pending_bytes = 64 * 1024,
		.write_buffer_bytes = 256 * 1024
	};
	AuPageStore *ps;
	AuLanding  *l;
	uint64_t	node_id;
	char		path[400];
	char		command[5000];
	char		err[512];

	testdir_remove(root);
	snprintf(volume, sizeof(volume), "%s/volumes/%d", root, SYSID);
	snprintf(logs, sizeof(logs), "%.280s/log", volume);
	snprintf(path, sizeof(path), "%s/volumes", root);
	assert_true(au_make_dir(root, err, sizeof(err)) && au_make_dir(path, err, sizeof(err)) &&
				au_make_dir(volume, err, sizeof(err)));
	assert_true(au_node_identity(root, &node_id, err, sizeof(err)));
	assert_true(au_volume_write(volume, &meta, err, sizeof(err)));
	r.log.start_lsn = log_start;
	assert_int_equal(au_landing_open(&l, &r.log, err, sizeof(err)), AU_OK);
	au_landing_close(l);
	snprintf(path, sizeof(path), "%s/pages", volume);
	opt.dir = path;
	assert_int_equal(au_pagestore_open(&ps, &opt, err, sizeof(err)), AU_OK);
	assert_true(au_pagestore_freeze(ps, NEW_START + 0x100000, NEW_START));
	assert_int_equal(au_pagestore_write(ps, true, err, sizeof(err)), AU_OK);
	au_pagestore_written(ps, AU_OK);
	au_pagestore_close(ps);
	snprintf(command, sizeof(command), "%s check --dir %s >/dev/null", daemon_path("auroractl"), root);
	return WEXITSTATUS(system(command));
}

/* Log that ends before the pages is no damage where it begins as they need it. */
static void
test_checked(void **state)
{
	(void) state;
	assert_int_equal(check_behind(NEW_START), 0);
	assert_int_equal(check_behind(NEW_START + 0x1000), 1);	/* a gap */
	assert_int_equal(check_behind(NEW_START - 0x1000), 1);	/* its end is lost */
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_killed),
		cmocka_unit_test(test_failed),
		cmocka_unit_test(test_other_log_dir),
		cmocka_unit_test(test_damaged_mark),
		cmocka_unit_test(test_checked),
	};
	int			rc;

	snprintf(root, sizeof(root), "/tmp/au_relog.%ld", (long) getpid());
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	testdir_remove(root);
	return rc;
}
