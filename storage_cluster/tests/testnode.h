/* SPDX-License-Identifier: Apache-2.0 */
/*
 * testnode.h: one real daemon in a directory of its own, the log that a test
 * ships to it, and the first two messages of a connection.  Include after
 * cmocka.h.  One node a test program; a failed test's daemon is ended, the end
 * of its log shown and its files removed by testnode_teardown.
 */
#ifndef AU_TEST_TESTNODE_H
#define AU_TEST_TESTNODE_H

#include <errno.h>
#include <sys/stat.h>

#include "tests/testdir.h"
#include "tests/walmake.h"
#include "tests/wireclient.h"

static struct
{
	char		root[200];		/* everything is below */
	char		dir[300];		/* the daemon's --dir */
	char		sock[256];
	char		log[256];		/* what it prints */
	pid_t		pid;			/* 0: none runs */
	uint32_t	rng;			/* of testnode_rnd; a test sets its seed */
	WalMake		wal;
	AuLsn		wal_start;		/* first record */
} tn;

static inline uint32_t
testnode_rnd(uint32_t n)
{
	tn.rng = tn.rng * 1664525 + 1013904223;
	return (tn.rng >> 8) % n;
}

/* Paths below /tmp/au_NAME.PID; `below` is a directory in between, or "". */
static inline int
testnode_setup(const char *name, const char *below)
{
	snprintf(tn.root, sizeof(tn.root), "/tmp/au_%s.%ld", name, (long) getpid());
	snprintf(tn.dir, sizeof(tn.dir), "%s%s/node", tn.root, below);
	snprintf(tn.sock, sizeof(tn.sock), "%s/sock", tn.root);
	snprintf(tn.log, sizeof(tn.log), "%s/log", tn.root);
	return mkdir(tn.root, 0700);
}

static inline int
testnode_end(int sig)
{
	int			st = daemon_end(tn.pid, sig);

	tn.pid = 0;
	return st;
}

static inline void
testnode_teardown(void)
{
	char		command[512];

	if (tn.pid > 0)				/* a test failed half-way */
	{
		testnode_end(SIGKILL);
		snprintf(command, sizeof(command), "tail -20 %s", tn.log);
		(void) !system(command);
	}
	testdir_remove(tn.root);
	free(tn.wal.buf);
}

/* For cmocka, with the program's name as NAME. */
static inline int
testnode_fixture_setup(void **state)
{
	(void) state;
	return testnode_setup(program_invocation_short_name, "");
}

static inline int
testnode_fixture_teardown(void **state)
{
	(void) state;
	testnode_teardown();
	return 0;
}

/* Start with one more option and its value (or NULL), wait for the socket. */
static inline void
testnode_start(const char *extra, const char *extra_value)
{
	char	   *args[] = {
		"--dir", tn.dir, "--socket", tn.sock, "--memory", "32",
		(char *) extra, (char *) extra_value, NULL
	};

	tn.pid = daemon_start(args, tn.log);
	assert_true(tn.pid > 0);
	if (!daemon_wait_socket(tn.sock))
		fail_msg("the daemon did not come up, see %s", tn.log);
}

/* An empty log; the first record goes to tn.wal_start. */
static inline void
testnode_start_log(AuLsn base)
{
	tn.wal_start = walmake_begin(&tn.wal, base);
}

/* The next frame; an ERROR, or none, fails the test with what `what` was. */
static inline void
testnode_expect(Client *c, AuFrame *f, uint8_t type, const char *what)
{
	AuMsgError	e;

	if (!client_receive(c, f, 60000))
		fail_msg("%s: no answer", what);
	if (f->type == AU_MSG_ERROR && type != AU_MSG_ERROR)
		fail_msg("%s: %s", what, au_dec_error(f, &e) ? e.message : "?");
	assert_int_equal(f->type, type);
}

static inline void
testnode_hello(Client *c, uint8_t role, uint64_t sysid, AuMsgHelloOk *ok)
{
	AuMsgHello	m = {.system_identifier = sysid,.role = role,.name = "test"};
	AuFrame		f;

	assert_true(client_connect(c, tn.sock));
	assert_true(CLIENT_SEND(c, au_enc_hello, &m));
	testnode_expect(c, &f, AU_MSG_HELLO_OK, "HELLO");
	assert_int_equal(f.id, c->id);
	assert_true(au_dec_hello_ok(&f, ok));
}

/* The TERM of a writer whose log is tn.wal and who may make the volume. */
static inline AuMsgTerm
testnode_usual_term(void)
{
	return (AuMsgTerm)
	{
		.writer_id = 1,.timeline = 1,.start_lsn = tn.wal_start,.local_end = walmake_pos(&tn.wal),
		.wal_segment_size = WALMAKE_SEGMENT,.may_create = 1
	};
}

static inline void
testnode_term(Client *c, AuMsgTermOk *ok)
{
	AuMsgTerm	m = testnode_usual_term();
	AuFrame		f;

	assert_true(CLIENT_SEND(c, au_enc_term, &m));
	testnode_expect(c, &f, AU_MSG_TERM_OK, "TERM");
	assert_true(au_dec_term_ok(&f, ok));
}

/* What the node says of itself, until the next call. */
static inline const char *
testnode_status(void)
{
	static char text[1 << 16];
	Client		c;
	AuMsgHelloOk hello;
	AuFrame		f;
	AuWriter	out;

	testnode_hello(&c, AU_ROLE_ADMIN, 0, &hello);
	au_writer_start(&out, c.out, CLIENT_BUF);
	assert_true(au_enc_empty(&out, AU_MSG_STATUS, 99) && client_send_raw(&c, out.data, out.len));
	testnode_expect(&c, &f, AU_MSG_STATUS_OK, "STATUS");
	assert_true(f.length < sizeof(text));
	memcpy(text, f.payload, f.length);
	text[f.length] = '\0';
	client_close(&c);
	return text;
}

static inline bool
testnode_status_has(const char *text)
{
	return strstr(testnode_status(), text) != NULL;
}

/* `len` bytes of the log from `lsn` on; does not wait for the answer. */
static inline bool
testnode_append(Client *c, uint64_t term, AuLsn lsn, uint32_t len)
{
	AuMsgAppend m = {
		.term = term,.timeline = 1,.lsn = lsn,.length = len,
		.bytes = len > 0 ? tn.wal.buf + (lsn - tn.wal.base) : NULL
	};

	return CLIENT_SEND(c, au_enc_append, &m);
}

#endif							/* AU_TEST_TESTNODE_H */
