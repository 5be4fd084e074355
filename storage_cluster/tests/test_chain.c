/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_chain.c: how much a read has to apply: for any page at any LSN what is
 * in files is at most AU_CHAIN_UNITS_MAX units of changes behind an image, as
 * images are put between them when a generation is written.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/au_crc32c.h"
#include "common/au_page.h"
#include "store/au_pagestore_int.h"
#include "tests/testdir.h"
#include "tests/testfixture.h"
#include "tests/teststore.h"

#define START ((AuLsn) 0x1000)
#define STEP 64
#define PAGES 6
#define RECORDS 40000
#define SYSID 9

static uint8_t model[PAGES][AU_PAGE_SIZE];
static uint32_t crc_of[RECORDS];
static uint32_t page_of[RECORDS];
static uint32_t rng = 31;

static uint32_t
rnd(uint32_t n)
{
	rng = rng * 1664525 + 1013904223;
	return (rng >> 8) % n;
}

static AuLsn
lsn_of(int i)
{
	return START + (AuLsn) (i + 1) * STEP;
}

static AuPageStore *
open_with(uint64_t pending_bytes)
{
	AuPageStoreOptions opt = {
		.dir = dir,.system_identifier = SYSID,.start_lsn = START,
		.pending_bytes = pending_bytes,.write_buffer_bytes = 4 << 20,
		.retention_bytes = 1 << 30
	};
	AuPageStore *ps;
	char		err[512];

	if (au_pagestore_open(&ps, &opt, err, sizeof(err)) != AU_OK)
		fail_msg("open: %s", err);
	return ps;
}

static void
change(AuPageStore *ps, int i)
{
	static AuWalRecord w;
	uint8_t		memory[1024];
	uint8_t		bytes[700];
	uint32_t	blk = rnd(3) ? 0 : rnd(PAGES);
	uint16_t	len = (uint16_t) (1 + rnd(rnd(20) ? 30 : 700));
	AuOps		ops;

	for (int k = 0; k < len; k++)
		bytes[k] = (uint8_t) rnd(256);
	au_ops_start(&ops, memory, sizeof(memory));
	if (au_page_is_new(model[blk]) || rnd(5000) == 0)
		au_ops_init(&ops, 4000);
	au_ops_patch(&ops, (uint16_t) (4400 + rnd(3000)), len, bytes);
	memset(&w, 0, sizeof(w));
	w.kind = AU_WAL_OURS;
	w.lsn = lsn_of(i) - STEP;
	w.end = lsn_of(i);
	w.nblocks = 1;
	w.blocks[0].page = (AuPageId) {{1663, 5, 16384, 0}, blk};
	w.blocks[0].data = ops.data;
	w.blocks[0].data_len = ops.len;
	assert_int_equal(au_page_apply(model[blk], ops.data, ops.len, NULL), AU_OK);
	au_page_set_lsn(model[blk], w.end);
	page_of[i] = blk;
	crc_of[i] = au_crc32c(0, model[blk], AU_PAGE_SIZE);
	if (au_pagestore_apply(ps, &w) != AU_OK)
		fail_msg("apply: %s", au_pagestore_error(ps));
	au_pagestore_set_applied(ps, w.end);
}

/* Changes applied for one read; the page must be right. */
static uint64_t
read_cost(AuPageStore *ps, int i)
{
	uint8_t		page[AU_PAGE_SIZE];
	AuPageId	id = {{1663, 5, 16384, 0}, page_of[i]};
	AuPageStoreStats before,
				after;

	au_pagestore_stats(ps, &before);
	if (au_pagestore_read(ps, &id, lsn_of(i), page) != AU_OK)
		fail_msg("read: %s", au_pagestore_error(ps));
	assert_int_equal(au_crc32c(0, page, AU_PAGE_SIZE), crc_of[i]);
	au_pagestore_stats(ps, &after);
	return after.items_applied - before.items_applied;
}

static void
chains(uint64_t pending_bytes)
{
	AuPageStore *ps;
	AuPageStoreStats stats;
	uint64_t	worst_memory = 0;
	uint64_t	worst = 0;

	testdir_remove(dir);
	memset(model, 0, sizeof(model));
	ps = open_with(pending_bytes);
	for (int i = 0; i < RECORDS; i++)
	{
		change(ps, i);
		if (au_pagestore_full(ps))
			teststore_write(ps, lsn_of(i), false);
		if (i % 1000 == 999)
		{
			uint64_t	cost = read_cost(ps, i);

			worst_memory = cost > worst_memory ? cost : worst_memory;
		}
	}
	teststore_write(ps, lsn_of(RECORDS - 1), true);
	au_pagestore_stats(ps, &stats);
	for (int i = 0; i < RECORDS; i += 7)
	{
		uint64_t	cost = read_cost(ps, i);

		worst = cost > worst ? cost : worst;
	}
	print_message("generations of %u kB: %u images; at most %u changes for a read from files, %u while they gather\n",
				  (unsigned) (pending_bytes >> 10), (unsigned) stats.images, (unsigned) worst,
				  (unsigned) worst_memory);
	/* an image, and changes of at least a unit each */
	assert_true(worst <= 1 + AU_CHAIN_UNITS_MAX);
	assert_true(worst_memory <= 1 + AU_CHAIN_UNITS_MAX + AU_CHAIN_UNITS_MEMORY);
	/* not more of them than the changes ask for */
	assert_true(stats.images <= (uint64_t) RECORDS * 2 / AU_CHAIN_UNITS_MAX);
	au_pagestore_close(ps);
}

static void
test_small_generations(void **state)
{
	(void) state;
	chains(64 * 1024);
}

static void
report(void *ctx, const char *problem)
{
	(void) ctx;
	fail_msg("%s", problem);
}

static AuPageScrub *
begin_and_work(AuPageStore *ps)
{
	AuPageScrub *s = au_pagestore_scrub_begin(ps);

	assert_non_null(s);
	(void) au_pagestore_scrub_work(s, 1 << 20);
	return s;
}

static void
test_one_large_generation(void **state)
{
	(void) state;
	chains(64 << 20);
}

/* Counters forget at a restart; what so became too long the scrubber cuts. */
static void
test_restarts(void **state)
{
	AuPageStore *ps;
	AuPageStoreStats stats;
	bool		finished = false;
	int			n = 0;

	(void) state;
	testdir_remove(dir);
	memset(model, 0, sizeof(model));
	for (int round = 0; round < 15; round++)
	{
		ps = open_with(1 << 20);
		for (int k = 0; k < 50; k++)
			change(ps, n++);
		teststore_write(ps, lsn_of(n - 1), true);
		au_pagestore_close(ps);
	}
	ps = open_with(1 << 20);
	au_pagestore_stats(ps, &stats);
	assert_int_equal(stats.images, 0);
	while (!finished)
		finished = au_pagestore_scrub_end(begin_and_work(ps), report, NULL);
	/* found at the end of the walk, cut by the next step */
	(void) au_pagestore_scrub_end(begin_and_work(ps), report, NULL);
	au_pagestore_stats(ps, &stats);
	assert_true(stats.scrub_cuts > 0);
	teststore_write(ps, lsn_of(n - 1) + STEP, true);
	assert_true(read_cost(ps, n - 1) <= 1 + AU_CHAIN_UNITS_MAX);
	au_pagestore_close(ps);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_small_generations),
		cmocka_unit_test(test_one_large_generation),
		cmocka_unit_test(test_restarts),
	};

	return cmocka_run_group_tests(tests, testfixture_setup, testfixture_teardown);
}
