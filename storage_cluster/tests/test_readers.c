/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_readers.c: where requests for pages are read: short ones from files in a
 * thread, until files have shown that they are fast, then on the loop thread, a
 * few in each turn; long ones always in a thread.  All with the right bytes.
 *
 * The clock is a machine's that is so busy that each read takes 10 ms: files
 * are fast all the same, as long as nobody sleeps for them.
 */
#include <setjmp.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/au_page.h"
#include "common/au_wire.h"
#include "daemon/au_readers.h"
#include "tests/testfixture.h"
#include "tests/teststore.h"

#define SYSID 4244
#define START ((AuLsn) 1000)
#define PAGES 4000u				/* more than what RocksDB caches by itself */
#define TUPLE 2000
#define PATIENCE_S 60

static const AuRelId rel = {1663, 5, 16384, 0};
static AuPageStore *store;
static uint64_t finished;

/* libuv's, for what is tested here. */
uint64_t
uv_hrtime(void)
{
	static _Atomic uint64_t now;

	return atomic_fetch_add(&now, 10000000);
}

static void
fill_tuple(uint8_t *tuple, uint32_t blk, int k)
{
	uint32_t	x = blk * 2654435761u + (uint32_t) k;

	for (int i = 0; i < TUPLE; i++)
	{
		x = x * 1664525 + 1013904223;
		tuple[i] = (uint8_t) (x >> 24);
	}
}

/* Pages that do not compress: two or three in a block of a file. */
static void
make_pages(void)
{
	static AuWalRecord w;
	static uint8_t memory[AU_OPS_MAX];
	uint8_t		tuple[TUPLE];
	AuOps		ops;

	for (uint32_t blk = 0; blk < PAGES; blk++)
	{
		au_ops_start(&ops, memory, sizeof(memory));
		au_ops_init(&ops, 0);
		for (int k = 1; k <= 3; k++)
		{
			fill_tuple(tuple, blk, k);
			au_ops_add(&ops, (uint16_t) k, TUPLE, tuple);
		}
		w = (AuWalRecord)
		{
			.kind = AU_WAL_OURS,.lsn = START + blk * 16,.end = START + (blk + 1) * 16,.nblocks = 1
		};
		w.blocks[0].page = (AuPageId)
		{
			rel, blk
		};
		w.blocks[0].data = ops.data;
		w.blocks[0].data_len = ops.len;
		if (au_pagestore_apply(store, &w) != AU_OK)
			fail_msg("%s", au_pagestore_error(store));
		if (blk % 100 == 99)
			teststore_write(store, w.end, true);
	}
}

static void
check_pages(const AuPageBatch *b)
{
	uint8_t		tuple[TUPLE];
	AuFrame		f;
	size_t		used;
	static AuMsgPages got;

	assert_int_equal(b->status, AU_OK);
	assert_int_equal(au_frame_parse(b->answer.data, b->answer.len, &f, &used), AU_OK);
	assert_true(au_dec_pages(&f, &got));
	assert_int_equal(got.nblocks, b->nblocks);
	for (int i = 0; i < got.nblocks; i++)
	{
		fill_tuple(tuple, b->blocks[i], 1);
		assert_int_equal(got.status[i], AU_OK);
		assert_memory_equal(got.page[i] + AU_PAGE_SIZE - TUPLE, tuple, TUPLE);
	}
}

static void
on_done(void *ctx, AuPageBatch *b)
{
	(void) ctx;
	check_pages(b);
	finished++;
}

/* Reads n blocks from first on; true: done at once. */
static bool
read_blocks(AuReaders *r, uv_loop_t *loop, uint32_t first, uint16_t n)
{
	static uint8_t memory[AU_PAGES_CAP(16)];
	static uint32_t blocks[16];
	static AuPageBatch b;
	uint64_t	before = finished;
	bool		at_once;

	for (uint16_t i = 0; i < n; i++)
		blocks[i] = first + i;
	b = (AuPageBatch)
	{
		.rel = rel,.lsn = START + PAGES * 16,.newest = true,.nblocks = n,.blocks = blocks
	};
	au_writer_start(&b.answer, memory, sizeof(memory));
	au_pages_begin(&b.answer, 1, b.lsn, n);
	at_once = au_readers_read(r, store, &b);
	if (at_once)
		check_pages(&b);
	while (!at_once && finished == before)
		uv_run(loop, UV_RUN_ONCE);
	return at_once;
}

static void
test_where(void **state)
{
	char		err[512];
	uv_loop_t	loop;
	AuReaders  *r;
	uint32_t	blk = 0;
	time_t		end = time(NULL) + PATIENCE_S;

	(void) state;
	store = teststore_open(dir, SYSID, START, 0);
	make_pages();
	au_pagestore_close(store);
	store = teststore_open(dir, SYSID, START, 0);
	assert_int_equal(uv_loop_init(&loop), 0);
	r = au_readers_start(&loop, on_done, NULL, err, sizeof(err));
	assert_non_null(r);

	/* in threads, until enough of them were fast */
	for (; finished < AU_READ_FAST_ROW; blk += 7)
	{
		assert_int_equal(au_readers_inline(r), 0);
		(void) read_blocks(r, &loop, blk, 1);
	}
	while (au_readers_inline(r) == 0)
	{
		/* a page was read here, or by a thread; a slow disk takes longer */
		au_readers_turn(r);
		blk = (blk + 7) % PAGES;
		(void) read_blocks(r, &loop, blk, 1);
		if (time(NULL) > end)
			fail_msg("files were not found fast within %d s", PATIENCE_S);
	}

	/* so many in a turn, and no long ones */
	for (int tries = 0; tries < 50; tries++)
	{
		uint64_t	before = au_readers_inline(r);

		au_readers_turn(r);
		for (int i = 0; i < 10; i++)
		{
			blk = (blk + 7) % (PAGES - 16);
			(void) read_blocks(r, &loop, blk, 1);
		}
		assert_true(au_readers_inline(r) - before <= AU_READ_INLINE_TURN);
		au_readers_turn(r);
		before = au_readers_inline(r);
		assert_false(read_blocks(r, &loop, blk, 16));
		assert_int_equal(au_readers_inline(r), before);
	}
	au_readers_stop(r);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
	au_pagestore_close(store);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_where, testfixture_setup, testfixture_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
