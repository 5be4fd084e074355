/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_readcost.c: what a read of one page from files loads, and what a run of
 * pages asks of RocksDB.  The pages compress so well that all are in one file
 * with a large index: it must stay in the block cache.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/au_page.h"
#include "tests/testdir.h"
#include "tests/teststore.h"

#define BLOCKS 48000u			/* of 8 kB; two to a block of a file */
#define ITEM 8000
#define START ((AuLsn) 1000)
#define STEP 16
#define READS 400u
#define RUN 32u

static const AuRelId rel = {1663, 5, 16384, 0};
static uint8_t page[AU_PAGE_SIZE];

static AuLsn
lsn_of(uint32_t blk)
{
	return START + (AuLsn) (blk + 1) * STEP;
}

static void
fill(AuPageStore *ps)
{
	static const uint8_t item[ITEM];
	static AuWalRecord w;
	uint8_t		memory[ITEM + 2048];

	for (uint32_t blk = 0; blk < BLOCKS; blk++)
	{
		AuOps		ops;

		au_ops_start(&ops, memory, sizeof(memory));
		au_ops_init(&ops, 0);
		au_ops_add(&ops, 1, ITEM, item);
		memset(&w, 0, sizeof(w));
		w.kind = AU_WAL_OURS;
		w.lsn = lsn_of(blk) - STEP;
		w.end = lsn_of(blk);
		w.nblocks = 1;
		w.blocks[0].page = (AuPageId) {rel, blk};
		w.blocks[0].data = ops.data;
		w.blocks[0].data_len = ops.len;
		if (au_pagestore_apply(ps, &w) != AU_OK)
			fail_msg("apply: %s", au_pagestore_error(ps));
		if (au_pagestore_full(ps) || blk == BLOCKS - 1)
			teststore_write(ps, w.end, blk == BLOCKS - 1);
	}
	au_pagestore_compact(ps);
}

static void
read_some(AuPageStore *ps, const uint32_t *blocks, uint16_t n)
{
	AuPageRead *r = au_pagestore_read_begin(ps, &rel, blocks, n, lsn_of(BLOCKS - 1), true);

	assert_non_null(r);
	for (uint16_t i = 0; i < n; i++)
	{
		assert_int_equal(au_pagestore_read_page(r, i, false, page), AU_OK);
		assert_int_equal(au_page_lsn(page), lsn_of(blocks[i]));
	}
	au_pagestore_read_rest(r);
	au_pagestore_read_end(r);
}

/* Blocks of files that were asked for, and how many were not in the cache. */
static uint64_t
blocks_asked(AuPageStore *ps, uint64_t *missed)
{
	AuPageStoreFiles f;

	au_pagestore_files(ps, &f);
	*missed = f.cache_misses;
	return f.cache_hits + f.cache_misses;
}

static void
test_read_cost(void **state)
{
	AuStoreMemory *memory = au_store_memory_new(AU_MEMORY_MIN);
	char		dir[64] = "/tmp/au_test_readcost_XXXXXX";
	AuPageStoreOptions opt = {
		.dir = dir,.system_identifier = 7,.start_lsn = START,.pending_bytes = 2 << 20,
		.write_buffer_bytes = 2 << 20,.retention_bytes = 1 << 20,.memory = memory
	};
	AuPageStore *ps;
	char		err[512];
	uint64_t	asked,
				missed,
				after;
	uint32_t	run[RUN];

	(void) state;
	assert_non_null(memory);
	assert_non_null(mkdtemp(dir));
	if (au_pagestore_open(&ps, &opt, err, sizeof(err)) != AU_OK)
		fail_msg("open: %s", err);
	fill(ps);

	/* far apart: one block of data each has to be loaded, and hardly ever
	 * anything else */
	read_some(ps, &(uint32_t) {0}, 1);
	blocks_asked(ps, &missed);
	for (uint32_t i = 1; i <= READS; i++)
		read_some(ps, &(uint32_t) {(uint32_t) ((uint64_t) i * 28657 % BLOCKS)}, 1);
	blocks_asked(ps, &after);
	assert_in_range(after - missed, READS / 2, READS + READS / 10);

	/* a run looks into index and filter once, then goes from block to block */
	for (uint32_t i = 0; i < RUN; i++)
		run[i] = 1001 + i;
	asked = blocks_asked(ps, &missed);
	read_some(ps, run, RUN);
	asked = blocks_asked(ps, &missed) - asked;
	assert_in_range(asked, RUN / 2, RUN / 2 + 8);

	au_pagestore_close(ps);
	au_store_memory_free(memory);
	testdir_remove(dir);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_read_cost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
