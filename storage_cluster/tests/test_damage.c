/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_damage.c: a byte of a file of page versions is flipped under a real
 * daemon: its scrubber finds it and says so, the pages concerned are refused,
 * all others are served, and the writer goes on; also when a merge of files meets it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/au_page.h"
#include "tests/testnode.h"

#define SYSID 7123456789012345679ULL
#define REL 16390u
#define BLOCKS 600u

/* What each block's page has at byte 6000; a page has 1,500 such bytes. */
static uint8_t fill[BLOCKS];

static void
add_record(uint32_t blk)
{
	uint8_t		memory[AU_OPS_MAX];
	uint8_t		bytes[1500];
	AuOps		ops;

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t) testnode_rnd(256);
	fill[blk] = bytes[0];
	au_ops_start(&ops, memory, sizeof(memory));
	au_ops_init(&ops, 4000);
	au_ops_patch(&ops, 6000, sizeof(bytes), bytes);
	assert_false(ops.overflow);
	walmake_ours(&tn.wal, REL, blk, ops.data, (uint16_t) ops.len);
}

/* From `from` to the end of the log, acknowledged.  false: the node has ended the
 * connection, as it does with its writer's when it opens the store again. */
static bool
ship(Client *w, uint64_t term, AuLsn from)
{
	AuLsn		end = walmake_pos(&tn.wal);
	AuLsn		durable = 0;

	while (from < end)
	{
		uint32_t	n = end - from < 100000 ? (uint32_t) (end - from) : 100000;

		if (!testnode_append(w, term, from, n))
			return false;
		from += n;
	}
	while (durable < end)
	{
		AuFrame		f;
		AuMsgAppendOk ok;

		if (!client_receive(w, &f, 60000))
			return false;
		assert_int_equal(f.type, AU_MSG_APPEND_OK);
		assert_true(au_dec_append_ok(&f, &ok));
		durable = ok.durable_lsn;
	}
	return true;
}

/* Each page by itself; returns how many are refused as damaged. */
static int
read_all(Client *r, AuLsn not_before)
{
	static AuMsgPages pages;
	int			damaged = 0;

	for (uint32_t b = 0; b < BLOCKS; b++)
	{
		AuMsgGetPages m = {.rel = {1663, 5, REL, 0},.not_before = not_before,.nblocks = 1,.blocks = {b}};
		AuFrame		f;
		AuMsgError	e;

		assert_true(CLIENT_SEND(r, au_enc_get_pages, &m));
		assert_true(client_receive(r, &f, 60000));
		if (f.type == AU_MSG_ERROR)
		{
			assert_true(au_dec_error(&f, &e));
			assert_int_equal(e.status, AU_CORRUPT);
			assert_non_null(strstr(e.message, "of relation 1663/5/16390"));
			damaged++;
			continue;
		}
		assert_true(au_dec_pages(&f, &pages));
		assert_int_equal(pages.status[0], AU_OK);
		assert_int_equal(pages.page[0][6000], fill[b]);
	}
	return damaged;
}

static void
wait_status(const char *text)
{
	for (int i = 0; i < 600 && !testnode_status_has(text); i++)
		usleep(100 * 1000);
	if (!testnode_status_has(text))
		fail_msg("the status never said %s", text);
}

/* Of the page store. */
static TestFile
largest_file(void)
{
	char		dir[600];
	TestFile	f;

	snprintf(dir, sizeof(dir), "%s/volumes/%llu/pages", tn.dir, (unsigned long long) SYSID);
	f = testdir_largest(dir, ".sst");
	assert_true(f.size > 100000);
	return f;
}

static bool
log_has(const char *text)
{
	char		command[600];

	snprintf(command, sizeof(command), "grep -q '%s' %s", text, tn.log);
	return system(command) == 0;
}

static void
test_flipped_byte(void **state)
{
	Client		w,
				r;
	AuMsgHelloOk hello;
	AuMsgTermOk term;
	AuLsn		shipped;
	TestFile	f;
	int			damaged;

	(void) state;
	tn.rng = 5;
	testnode_start_log((AuLsn) 0x1000000);
	for (uint32_t b = 0; b < BLOCKS; b++)
		add_record(b);
	testnode_start("--scrub-mb-per-s", "100");
	testnode_hello(&w, AU_ROLE_WRITER, SYSID, &hello);
	testnode_term(&w, &term);
	assert_true(ship(&w, term.term, tn.wal_start));
	wait_status("\"scrub_passes\":1");
	assert_true(testnode_status_has("\"scrub_damaged\":0"));
	client_close(&w);
	assert_int_equal(testnode_end(SIGTERM), 0);

	f = largest_file();
	assert_true(testdir_flip(f.path, f.size / 2, 1));
	testnode_start("--scrub-mb-per-s", "100");
	wait_status("\"scrub_damaged\":1");
	wait_status("\"scrub_passes\":1");
	assert_true(testnode_status_has("\"damage\":\"blocks above "));
	assert_true(log_has("damage found by the scrubber: .* of relation 1663/5/16390"));
	testnode_hello(&r, AU_ROLE_READER, SYSID, &hello);
	damaged = read_all(&r, 0);
	assert_in_range(damaged, 1, BLOCKS / 10);

	/* new log is taken, new versions are served */
	testnode_hello(&w, AU_ROLE_WRITER, SYSID, &hello);
	testnode_term(&w, &term);
	shipped = walmake_pos(&tn.wal);
	for (uint32_t b = 0; b < BLOCKS; b += 2)
		add_record(b);
	assert_true(ship(&w, term.term, shipped));
	assert_in_range(read_all(&r, walmake_pos(&tn.wal)), 1, damaged);
	client_close(&r);
	client_close(&w);
	assert_int_equal(testnode_end(SIGTERM), 0);
	assert_true(testdir_flip(f.path, f.size / 2, 1));
}

/* What the node does not have; false: as of ship. */
static bool
ship_rest(void)
{
	AuMsgTerm	m = testnode_usual_term();
	AuMsgHelloOk hello;
	AuMsgTermOk term;
	AuFrame		f;
	Client		w;
	bool		done;

	testnode_hello(&w, AU_ROLE_WRITER, SYSID, &hello);
	done = CLIENT_SEND(&w, au_enc_term, &m) && client_receive(&w, &f, 60000);
	if (done)
	{
		assert_int_equal(f.type, AU_MSG_TERM_OK);
		assert_true(au_dec_term_ok(&f, &term));
		done = ship(&w, term.term, term.received_lsn);
	}
	client_close(&w);
	return done;
}

/* New versions of all blocks, acknowledged. */
static void
ship_all(void)
{
	int			tries = 0;

	for (uint32_t b = 0; b < BLOCKS; b++)
		add_record(b);
	while (!ship_rest())
		assert_true(++tries < 60);
}

static void
ship_until(const char *text)
{
	for (int i = 0; i < 600 && !log_has(text); i++)
	{
		ship_all();
		usleep(100 * 1000);
	}
	assert_true(log_has(text));
}

/* A merge of files meets the damage: the log is taken all the same, the store is
 * opened again and again, and once the file can be read again nothing is missing. */
static void
test_merged(void **state)
{
	AuMsgHelloOk hello;
	TestFile	f;
	Client		r;

	(void) state;
	testnode_start(NULL, NULL);
	for (int i = 0; i < 3; i++)
	{
		/* each time a file is written that waits for a fourth to be merged with */
		ship_all();
		assert_int_equal(testnode_end(SIGTERM), 0);
		if (i < 2)
			testnode_start(NULL, NULL);
	}
	f = largest_file();
	assert_true(testdir_flip(f.path, f.size / 2, 1));
	testnode_start(NULL, NULL);
	ship_until("Corruption: .*the page store is opened again in 2 s");
	ship_until("Corruption: .*the page store is opened again in 4 s");
	assert_true(testdir_flip(f.path, f.size / 2, 1));
	ship_all();
	testnode_hello(&r, AU_ROLE_READER, SYSID, &hello);
	assert_int_equal(read_all(&r, walmake_pos(&tn.wal)), 0);
	client_close(&r);
	assert_int_equal(testnode_end(SIGTERM), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_flipped_byte),
		cmocka_unit_test(test_merged),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, testnode_fixture_setup, testnode_fixture_teardown);
}
