/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_diskfull.c: a real disk that is really full: a small tmpfs under the
 * daemon's directory (needs the right to mount; else the test is skipped).
 * The log or the page store hits the end; the writer is told; when there is
 * room again everything goes on, and every page is right.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/mount.h>

#include "common/au_page.h"
#include "tests/testnode.h"

#define SYSID 42424242ULL
#define REL 16384u
#define BLOCKS 400
#define LOG_BYTES (70u << 20)
#define FILLER_BYTES (95u << 20)

static char disk[256];
static bool mounted;
static uint8_t (*pages)[AU_PAGE_SIZE];

/* Incompressible changes; the model keeps the newest pages. */
static void
make_log(void)
{
	uint8_t		memory[AU_OPS_MAX];
	uint8_t		bytes[3000];
	AuOps		ops;

	pages = calloc(BLOCKS, AU_PAGE_SIZE);
	testnode_start_log(0x1000000);
	while (tn.wal.len < LOG_BYTES)
	{
		uint32_t	blk = testnode_rnd(BLOCKS);

		for (size_t i = 0; i < sizeof(bytes); i++)
			bytes[i] = (uint8_t) testnode_rnd(256);
		au_ops_start(&ops, memory, sizeof(memory));
		if (au_page_is_new(pages[blk]))
			au_ops_init(&ops, 4000);
		au_ops_patch(&ops, (uint16_t) (4200 + testnode_rnd(900)), sizeof(bytes), bytes);
		walmake_ours(&tn.wal, REL, blk, ops.data, (uint16_t) ops.len);
		assert_int_equal(au_page_apply(pages[blk], ops.data, ops.len, NULL), AU_OK);
		au_page_set_lsn(pages[blk], tn.wal.last_end);
	}
}

static bool
fill(const char *path, size_t bytes)
{
	static const char zeros[65536];
	int			fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	bool		ok = fd >= 0;

	for (size_t n = 0; ok && n < bytes; n += sizeof(zeros))
		ok = write(fd, zeros, sizeof(zeros)) == (ssize_t) sizeof(zeros);
	if (fd >= 0)
		close(fd);
	return ok;
}

/* Connect as the writer; where to go on. */
static void
connect_writer(Client *c, AuMsgTermOk *ok)
{
	AuMsgHelloOk hello;

	testnode_hello(c, AU_ROLE_WRITER, SYSID, &hello);
	testnode_term(c, ok);
}

typedef enum Outcome
{
	ALL_SHIPPED,
	FULL,
	GONE						/* closed, or silent */
} Outcome;

/* One append at a time until all is durable or something is wrong. */
static Outcome
ship(Client *c, AuMsgTermOk *t)
{
	AuLsn		from = t->received_lsn;
	AuLsn		end = walmake_pos(&tn.wal);

	while (from < end)
	{
		uint32_t	n = end - from < 200000 ? (uint32_t) (end - from) : 200000;
		AuFrame		f;
		AuMsgError	e;

		if (!testnode_append(c, t->term, from, n) || !client_receive(c, &f, 5000))
			return GONE;
		if (f.type == AU_MSG_ERROR)
		{
			assert_true(au_dec_error(&f, &e));
			if (e.status != AU_FULL)
				fail_msg("got %s: %s", au_status_name(e.status), e.message);
			return FULL;
		}
		assert_int_equal(f.type, AU_MSG_APPEND_OK);
		from += n;
	}
	return ALL_SHIPPED;
}

static void
compare_all(void)
{
	static AuMsgPages got;
	AuMsgHelloOk hello;
	Client		c;
	AuFrame		f;

	testnode_hello(&c, AU_ROLE_READER, SYSID, &hello);
	for (uint32_t first = 0; first < BLOCKS; first += 100)
	{
		AuMsgGetPages m = {
			.rel = {1663, 5, REL, 0},.not_before = walmake_pos(&tn.wal),.nblocks = 100
		};

		for (uint32_t i = 0; i < 100; i++)
			m.blocks[i] = first + i;
		assert_true(CLIENT_SEND(&c, au_enc_get_pages, &m));
		testnode_expect(&c, &f, AU_MSG_PAGES, "GET_PAGES");
		assert_true(au_dec_pages(&f, &got));
		for (uint32_t i = 0; i < 100; i++)
		{
			assert_int_equal(got.status[i], AU_OK);
			assert_memory_equal(got.page[i], pages[first + i], AU_PAGE_SIZE);
		}
	}
	client_close(&c);
}

static void
test_full_disk(void **state)
{
	char		filler[300];
	Client		c;
	AuMsgTermOk t;
	Outcome		outcome;
	int			tries = 0;

	(void) state;
	if (mount("tmpfs", disk, "tmpfs", 0, "size=160m") != 0)
		skip();
	mounted = true;
	make_log();
	snprintf(filler, sizeof(filler), "%s/filler", disk);
	assert_true(fill(filler, FILLER_BYTES));
	testnode_start("--disk-reserve-mb", "8");
	connect_writer(&c, &t);
	outcome = ship(&c, &t);
	client_close(&c);
	assert_int_not_equal(outcome, ALL_SHIPPED); /* else the disk is too large */
	sleep(3);					/* it stays alive, trying */
	assert_int_equal(kill(tn.pid, 0), 0);
	unlink(filler);
	do
	{
		assert_true(tries++ < 20);
		sleep(1);
		connect_writer(&c, &t);
		outcome = ship(&c, &t);
		client_close(&c);
	} while (outcome != ALL_SHIPPED);
	compare_all();
	/* and what is on disk is complete */
	assert_int_equal(testnode_end(SIGKILL), SIGKILL);
	testnode_start("--disk-reserve-mb", "8");
	compare_all();
	assert_int_equal(testnode_end(SIGTERM), 0);
}

static int
setup(void **state)
{
	(void) state;
	tn.rng = 4711;
	if (testnode_setup("diskfull", "/disk") != 0)
		return -1;
	snprintf(disk, sizeof(disk), "%s/disk", tn.root);
	return mkdir(disk, 0700);
}

static int
teardown(void **state)
{
	(void) state;
	if (mounted)
		umount2(disk, MNT_DETACH);	/* a failed test's daemon may still run */
	testnode_teardown();
	free(pages);
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_full_disk),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, setup, teardown);
}
