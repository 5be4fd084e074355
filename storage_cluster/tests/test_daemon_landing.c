/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_daemon_landing.c: the daemon's --landing and --log-dir: what they
 * refuse, that a log which is not in its place is never begun anew, and that
 * what was acknowledged on (emulated) persistent memory survives kill -9.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <sys/wait.h>
#include <unistd.h>

#include "common/au_page.h"
#include "tests/testnode.h"

#define SYSID 7123456789012345678ull
#define BASE 0x3000000

static char config[300];		/* file for --config */
static char logs[300];			/* for --log-dir */

static void
configure(const char *landing, const char *log_dir)
{
	FILE	   *f = fopen(config, "w");

	assert_non_null(f);
	fprintf(f, "landing = %s\n", landing);
	if (log_dir != NULL)
		fprintf(f, "log-dir = %s\n", log_dir);
	fclose(f);
}

static void
emulate(bool on)
{
	if (on)
		setenv("PMEM_IS_PMEM_FORCE", "1", 1);
	else
		unsetenv("PMEM_IS_PMEM_FORCE");
}

static bool
log_says(const char *text)
{
	static char content[1 << 16];
	FILE	   *f = fopen(tn.log, "r");
	size_t		n = f != NULL ? fread(content, 1, sizeof(content) - 1, f) : 0;

	if (f != NULL)
		fclose(f);
	content[n] = '\0';
	return strstr(content, text) != NULL;
}

/* The daemon must not start, and say why. */
static void
expect_refusal(const char *why)
{
	char	   *args[] = {"--dir", tn.dir, "--socket", tn.sock, "--config", config, NULL};
	pid_t		pid;
	int			status;

	(void) unlink(tn.log);
	pid = daemon_start(args, tn.log);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 1);
	if (!log_says(why))
		fail_msg("\"%s\" is not in %s", why, tn.log);
}

static void
start(void)
{
	(void) unlink(tn.log);
	testnode_start("--config", config);
}

/* As a writer: where the log ends.  Then `n` more records, each acknowledged
 * before the next is sent. */
static AuLsn
write_some(int n)
{
	Client		c;
	AuMsgHelloOk hello;
	AuMsgTermOk term;
	AuLsn		from;

	testnode_hello(&c, AU_ROLE_WRITER, SYSID, &hello);
	testnode_term(&c, &term);
	from = term.received_lsn;
	assert_int_equal(from, walmake_pos(&tn.wal));
	for (int i = 0; i < n; i++)
	{
		AuFrame		f;
		AuMsgAppendOk ok;
		uint8_t		memory[64];
		AuOps		ops;
		AuLsn		end;

		au_ops_start(&ops, memory, sizeof(memory));
		au_ops_init(&ops, 0);
		walmake_ours(&tn.wal, 16400, (uint32_t) i, ops.data, (uint16_t) ops.len);
		end = walmake_pos(&tn.wal);
		assert_true(testnode_append(&c, term.term, from, (uint32_t) (end - from)));
		testnode_expect(&c, &f, AU_MSG_APPEND_OK, "APPEND");
		assert_true(au_dec_append_ok(&f, &ok));
		assert_int_equal(ok.durable_lsn, end);
		from = end;
	}
	client_close(&c);
	return from;
}

static void
test_refused(void **state)
{
	(void) state;
	emulate(false);
	configure("pmem", NULL);
	expect_refusal("not on persistent memory");
	configure("auto", "/nonexistent/logs");
	expect_refusal("is its device mounted?");
}

static void
test_auto(void **state)
{
	(void) state;
	emulate(false);
	configure("auto", NULL);
	start();
	assert_true(log_says("landing logs on file"));
	testnode_end(SIGTERM);
	emulate(true);
	start();
	assert_true(log_says("landing logs on pmem"));
	assert_true(log_says("WARNING"));
	testnode_end(SIGTERM);
	configure("file", NULL);
	start();
	assert_true(log_says("landing logs on file"));
	testnode_end(SIGTERM);
}

static void
test_kill_on_pmem(void **state)
{
	(void) state;
	emulate(true);
	assert_int_equal(mkdir(logs, 0700), 0);
	configure("pmem", logs);
	testnode_start_log(BASE);
	for (int i = 0; i < 10; i++)
	{
		start();
		write_some(1 + (int) testnode_rnd(200));
		testnode_end(SIGKILL);
	}
}

static void
test_log_in_its_place(void **state)
{
	char		other[400];
	char		command[9000];

	(void) state;
	emulate(false);
	configure("file", NULL);
	expect_refusal("start with the --log-dir that it was kept in");
	snprintf(other, sizeof(other), "%s/other", tn.root);
	assert_int_equal(mkdir(other, 0700), 0);
	configure("file", other);
	expect_refusal("give the --log-dir that it was kept in, or mount its device");
	snprintf(command, sizeof(command), "%s check --dir %s >/dev/null", daemon_path("auroractl"), tn.dir);
	assert_int_not_equal(system(command), 0);
	snprintf(command, sizeof(command), "%s check --dir %s --log-dir %s >/dev/null",
			 daemon_path("auroractl"), tn.dir, logs);
	assert_int_equal(system(command), 0);

	/* moved to the default place */
	snprintf(command, sizeof(command), "mv %s/* %s/volumes/%llu/log", logs, tn.dir,
			 (unsigned long long) SYSID);
	assert_int_equal(system(command), 0);
	configure("file", logs);
	expect_refusal("move the directory there, or start without --log-dir");
	configure("file", NULL);
	start();
	write_some(50);
	testnode_end(SIGKILL);
	start();
	write_some(1);
	testnode_end(SIGTERM);
	/* a log without its segments is no new one */
	snprintf(command, sizeof(command), "rm %s/volumes/%llu/log/*", tn.dir, (unsigned long long) SYSID);
	assert_int_equal(system(command), 0);
	expect_refusal("landing log");
}

/* A volume that was removed and its log was not: not taken for a new one. */
static void
test_log_without_volume(void **state)
{
	char		command[9000];
	Client		c;
	AuMsgHelloOk hello;
	AuMsgTerm	m;
	AuFrame		f;
	AuMsgError	e;

	(void) state;
	snprintf(command, sizeof(command), "rm -r %s/volumes/%llu", tn.dir, (unsigned long long) SYSID);
	assert_int_equal(system(command), 0);
	configure("file", logs);
	free(tn.wal.buf);
	tn.wal.buf = NULL;
	testnode_start_log(BASE);
	start();
	write_some(10);
	testnode_end(SIGTERM);
	assert_int_equal(system(command), 0);
	start();
	testnode_hello(&c, AU_ROLE_WRITER, SYSID, &hello);
	m = testnode_usual_term();
	assert_true(CLIENT_SEND(&c, au_enc_term, &m));
	testnode_expect(&c, &f, AU_MSG_ERROR, "TERM");
	assert_true(au_dec_error(&f, &e));
	assert_int_equal(e.status, AU_REFUSED);
	assert_non_null(strstr(e.message, "holds log of this server"));
	client_close(&c);
	testnode_end(SIGTERM);
}

static int
setup(void **state)
{
	(void) state;
	tn.rng = 5;
	if (testnode_setup("landing", "") != 0)
		return 1;
	snprintf(config, sizeof(config), "%s/config", tn.root);
	snprintf(logs, sizeof(logs), "%s/logs", tn.root);
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_auto),
		cmocka_unit_test(test_kill_on_pmem),
		cmocka_unit_test(test_log_in_its_place),
		cmocka_unit_test(test_log_without_volume),
	};

	return cmocka_run_group_tests(tests, setup, testnode_fixture_teardown);
}
