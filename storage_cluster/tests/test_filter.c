/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_filter.c: thousands of (page, LSN) pairs, remembered while random
 * changes were made, read back before and after compactions dropped what lies
 * below the horizon, and after a restart: the same bytes each time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <unistd.h>

#include "common/au_crc32c.h"
#include "common/au_page.h"
#include "tests/testdir.h"
#include "tests/teststore.h"

#define BLOCKS 8
#define ITEM 4000				/* bytes of the one item that changes */
#define RECORDS 4000
#define START ((AuLsn) 1000)
#define STEP 16
#define RETENTION (STEP * 1500)

static const AuRelId rel = {1663, 5, 16384, 0};
static char dir[] = "/tmp/au_test_filter_XXXXXX";

/* What each record left behind: block and CRC of the whole page. */
static uint32_t block_of[RECORDS];
static uint32_t crc_of[RECORDS];

static AuLsn
lsn_of(int i)
{
	return START + (AuLsn) (i + 1) * STEP;
}

/* One change of one block, on the model's page and in the store. */
static void
change(AuPageStore *ps, int i, uint8_t (*model)[AU_PAGE_SIZE])
{
	static AuWalRecord w;
	static const uint8_t item[ITEM];
	uint8_t		memory[ITEM + 2048];
	uint8_t		bytes[200];
	uint32_t	blk = (uint32_t) rand() % BLOCKS;
	uint16_t	len = (uint16_t) (1 + rand() % 200);
	AuOps		ops;

	au_ops_start(&ops, memory, sizeof(memory));
	for (int k = 0; k < len; k++)
		bytes[k] = (uint8_t) rand();
	if (au_page_is_new(model[blk]) || rand() % 500 == 0)
	{
		au_ops_init(&ops, 0);
		au_ops_add(&ops, 1, ITEM, item);
	}
	au_ops_patch(&ops, (uint16_t) (AU_PAGE_SIZE - ITEM + rand() % (ITEM - 200)), len, bytes);

	memset(&w, 0, sizeof(w));
	w.kind = AU_WAL_OURS;
	w.lsn = lsn_of(i) - STEP;
	w.end = lsn_of(i);
	w.nblocks = 1;
	w.blocks[0].page = (AuPageId) {rel, blk};
	w.blocks[0].data = ops.data;
	w.blocks[0].data_len = ops.len;
	assert_int_equal(au_page_apply(model[blk], ops.data, ops.len, NULL), AU_OK);
	au_page_set_lsn(model[blk], w.end);
	block_of[i] = blk;
	crc_of[i] = au_crc32c(0, model[blk], AU_PAGE_SIZE);
	au_pagestore_set_applied(ps, w.end);
	if (au_pagestore_apply(ps, &w) != AU_OK)
		fail_msg("apply: %s", au_pagestore_error(ps));
}

/* Every page at every LSN that may be asked for; returns how many. */
static int
compare_all(AuPageStore *ps)
{
	uint8_t		page[AU_PAGE_SIZE];
	int			compared = 0;

	for (int i = 0; i < RECORDS; i++)
	{
		AuPageId	id = {rel, block_of[i]};

		if (lsn_of(i) < au_pagestore_horizon(ps))
			continue;
		if (au_pagestore_read(ps, &id, lsn_of(i), page) != AU_OK)
			fail_msg("block %u at %u: %s", id.blk, (unsigned) lsn_of(i), au_pagestore_error(ps));
		assert_int_equal(au_crc32c(0, page, AU_PAGE_SIZE), crc_of[i]);
		compared++;
	}
	return compared;
}

static void
test_history_survives_compaction(void **state)
{
	static uint8_t model[BLOCKS][AU_PAGE_SIZE];
	uint8_t		page[AU_PAGE_SIZE];
	AuPageStore *ps;
	AuPageStoreStats stats;
	uint64_t	disk_before;
	int			readable;

	(void) state;
	assert_non_null(mkdtemp(dir));
	srand(20);
	ps = teststore_open(dir, 7, START, RETENTION);
	for (int i = 0; i < RECORDS; i++)
	{
		change(ps, i, model);
		if (i % 97 == 96 || au_pagestore_full(ps))
			teststore_write(ps, lsn_of(i), i % 10 == 0);
	}
	teststore_write(ps, lsn_of(RECORDS - 1), true);
	readable = compare_all(ps);
	assert_true(readable >= RETENTION / STEP);
	assert_true(readable < RECORDS);

	/* a page that is written no more keeps its only base */
	for (uint32_t blk = 0; blk < BLOCKS; blk++)
	{
		AuPageId	id = {rel, blk};

		assert_int_equal(au_pagestore_read(ps, &id, AU_LSN_MAX, page), AU_OK);
	}

	au_pagestore_stats(ps, &stats);
	disk_before = stats.disk_bytes;
	au_pagestore_compact(ps);
	au_pagestore_stats(ps, &stats);
	assert_true(stats.gc_versions > 0);
	assert_true(stats.disk_bytes < disk_before);
	assert_int_equal(compare_all(ps), readable);
	au_pagestore_close(ps);

	ps = teststore_open(dir, 7, START, RETENTION);
	assert_int_equal(compare_all(ps), readable);
	au_pagestore_compact(ps);
	assert_int_equal(compare_all(ps), readable);
	au_pagestore_close(ps);
	testdir_remove(dir);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_history_survives_compaction),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
