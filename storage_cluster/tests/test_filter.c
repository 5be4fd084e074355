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

#include "tests/history.h"
#include "tests/testdir.h"

#define RETENTION (HISTORY_STEP * 1500)

static char dir[] = "/tmp/au_test_filter_XXXXXX";

/* Every page at every LSN that may be asked for; returns how many. */
static int
compare_all(AuPageStore *ps)
{
	uint8_t		page[AU_PAGE_SIZE];
	int			compared = 0;

	for (int i = 0; i < HISTORY_RECORDS; i++)
	{
		AuPageId	id = {history_rel, history_block[i]};

		if (history_lsn(i) < au_pagestore_horizon(ps))
			continue;
		if (au_pagestore_read(ps, &id, history_lsn(i), page) != AU_OK)
			fail_msg("block %u at %u: %s", id.blk, (unsigned) history_lsn(i), au_pagestore_error(ps));
		assert_int_equal(au_crc32c(0, page, AU_PAGE_SIZE), history_crc[i]);
		compared++;
	}
	return compared;
}

static void
test_history_survives_compaction(void **state)
{
	static uint8_t model[HISTORY_BLOCKS][AU_PAGE_SIZE];
	uint8_t		page[AU_PAGE_SIZE];
	AuPageStore *ps;
	AuPageStoreStats stats;
	uint64_t	disk_before;
	int			readable;

	(void) state;
	assert_non_null(mkdtemp(dir));
	srand(20);
	ps = teststore_open(dir, 7, HISTORY_START, RETENTION);
	for (int i = 0; i < HISTORY_RECORDS; i++)
	{
		history_change(ps, i, model);
		if (i % 97 == 96 || au_pagestore_full(ps))
			teststore_write(ps, history_lsn(i), i % 10 == 0);
	}
	teststore_write(ps, history_lsn(HISTORY_RECORDS - 1), true);
	readable = compare_all(ps);
	assert_true(readable >= RETENTION / HISTORY_STEP);
	assert_true(readable < HISTORY_RECORDS);

	/* a page that is written no more keeps its only base */
	for (uint32_t blk = 0; blk < HISTORY_BLOCKS; blk++)
	{
		AuPageId	id = {history_rel, blk};

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

	ps = teststore_open(dir, 7, HISTORY_START, RETENTION);
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
