/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_disklimit.c: --disk-limit: a writer that ships for ever is told to
 * wait before the directory is larger than that, reads go on, and with a
 * higher limit, or a shorter retention, the writer goes on as well.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/au_page.h"
#include "tests/testnode.h"

#define SYSID 7123456789012345680ULL
#define REL 16384u
#define BLOCKS 3000u
#define LIMIT_MB 180

static uint64_t measured;

static int
measure_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void) path;
	(void) flag;
	(void) ftw;
	measured += (uint64_t) st->st_blocks * 512;
	return 0;
}

static uint64_t
directory_bytes(void)
{
	measured = 0;
	nftw(tn.dir, measure_one, 16, FTW_PHYS);
	return measured;
}

/* Once compactions under way are through, the directory is within the limit. */
static void
settle(void)
{
	for (int i = 0; i < 600 && directory_bytes() > (uint64_t) LIMIT_MB << 20; i++)
		usleep(100 * 1000);
	assert_in_range(directory_bytes(), 0, (uint64_t) LIMIT_MB << 20);
}

/* About a megabyte of log that does not compress; what was there is gone. */
static void
make_log(void)
{
	tn.wal.base += tn.wal.len;
	tn.wal.len = 0;
	while (tn.wal.len < 1024 * 1024)
	{
		uint8_t		memory[AU_OPS_MAX];
		uint8_t		bytes[3500];
		AuOps		ops;

		for (size_t i = 0; i < sizeof(bytes); i++)
			bytes[i] = (uint8_t) testnode_rnd(256);
		au_ops_start(&ops, memory, sizeof(memory));
		au_ops_init(&ops, 4000);
		au_ops_patch(&ops, 4500, sizeof(bytes), bytes);
		walmake_ours(&tn.wal, REL, testnode_rnd(BLOCKS), ops.data, (uint16_t) ops.len);
	}
}

/* Ship tn.wal; false: told that there is no room. */
static bool
ship(Client *w, uint64_t term, AuLsn from)
{
	AuLsn		end = walmake_pos(&tn.wal);
	AuLsn		durable = 0;

	while (durable < end)
	{
		uint32_t	n = end - from < 200000 ? (uint32_t) (end - from) : 200000;
		AuMsgAppendOk ok;
		AuMsgError	e;
		AuFrame		f;

		if (n > 0)
			assert_true(testnode_append(w, term, from, n));
		from += n;
		if (from < end)
			continue;
		assert_true(client_receive(w, &f, 60000));
		if (f.type == AU_MSG_ERROR)
		{
			assert_true(au_dec_error(&f, &e));
			assert_int_equal(e.status, AU_FULL);
			assert_non_null(strstr(e.message, "disk limit reached"));
			return false;
		}
		assert_int_equal(f.type, AU_MSG_APPEND_OK);
		assert_true(au_dec_append_ok(&f, &ok));
		durable = ok.durable_lsn;
	}
	return true;
}

/* Connect as the writer; where it is to go on. */
static AuLsn
connect_writer(Client *w, uint64_t *term)
{
	AuMsgHelloOk hello;
	AuMsgTermOk ok;

	testnode_hello(w, AU_ROLE_WRITER, SYSID, &hello);
	testnode_term(w, &ok);
	*term = ok.term;
	return ok.received_lsn;
}

/* The node with this limit and hardly any retention. */
static void
start_short(char *limit)
{
	char	   *args[] = {
		"--dir", tn.dir, "--socket", tn.sock, "--memory", "32",
		"--disk-limit", limit, "--retention-mb", "1", NULL
	};

	tn.pid = daemon_start(args, tn.log);
	assert_true(tn.pid > 0 && daemon_wait_socket(tn.sock));
}

static void
test_limit(void **state)
{
	char		limit[16];
	Client		w,
				r;
	AuMsgHelloOk hello;
	AuMsgGetPages m = {.rel = {1663, 5, REL, 0},.nblocks = 1};
	AuFrame		f;
	uint64_t	term;
	AuLsn		from;
	uint64_t	largest = 0;
	int			tries;

	(void) state;
	tn.rng = 77;
	snprintf(limit, sizeof(limit), "%d", LIMIT_MB);
	testnode_start_log((AuLsn) 0x1000000);
	testnode_start("--disk-limit", limit);
	from = connect_writer(&w, &term);
	/* the first record comes behind the page's header */
	make_log();
	while (ship(&w, term, from))
	{
		uint64_t	bytes = directory_bytes();

		largest = bytes > largest ? bytes : largest;
		from = walmake_pos(&tn.wal);
		make_log();
		assert_true(from < ((AuLsn) LIMIT_MB << 20) * 2);
	}
	print_message("limit %d MB: told after %.1f MB of log, directory at most %.1f MB\n", LIMIT_MB,
				  (double) (from - tn.wal_start) / 1048576, (double) largest / 1048576);
	/* more only while a compaction has its input and its output */
	assert_true(largest <= ((uint64_t) LIMIT_MB << 20) * 3 / 2);
	settle();
	assert_true(from - tn.wal_start > 30 << 20);
	assert_true(testnode_status_has("disk limit reached"));
	testnode_hello(&r, AU_ROLE_READER, SYSID, &hello);
	assert_true(CLIENT_SEND(&r, au_enc_get_pages, &m));
	testnode_expect(&r, &f, AU_MSG_PAGES, "GET_PAGES");
	client_close(&r);
	client_close(&w);
	assert_int_equal(testnode_end(SIGTERM), 0);

	/* a shorter retention: what is old goes, by itself, and that is enough */
	start_short(limit);
	for (tries = 0; tries < 60; tries++)
	{
		from = connect_writer(&w, &term);
		if (ship(&w, term, from))
			break;
		client_close(&w);
		usleep(500 * 1000);
	}
	assert_true(tries < 60);
	settle();
	client_close(&w);
	assert_int_equal(testnode_end(SIGTERM), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_limit),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, testnode_fixture_setup, testnode_fixture_teardown);
}
