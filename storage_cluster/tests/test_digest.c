/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_digest.c: stores that took the same log, and wrote, compacted and
 * collected it each in its own way, have the same trees at every LSN that both
 * can read; what is dropped or cut off is absent; a page that differs makes
 * the trees differ; one that is damaged is told.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "cluster/au_view.h"
#include "common/au_page.h"
#include "tests/testdir.h"
#include "tests/teststore.h"

#define START ((AuLsn) 1000)
#define STEP 16
#define RELS 6
#define BLOCKS 600				/* three extents */
#define RECORDS 5000

static char dirs[2][200];
static AuPageStore *stores[2];
static AuMerkle trees[2][AU_SLICES];

static AuLsn
lsn_of(int i)
{
	return START + (AuLsn) (i + 1) * STEP;
}

static AuRelId
rel_of(int r)
{
	return (AuRelId)
	{
		1663, 5, (uint32_t) (16384 + r), 0
	};
}

/* The i-th record of the one history: changes, now and then a truncation or a
 * drop.  `other`: block 0 of relation 0 gets other bytes. */
static void
take(AuPageStore *ps, int i, bool other)
{
	static AuWalRecord w;
	static uint8_t memory[4096];
	uint8_t		bytes[40];
	int			r = rand() % RELS;
	uint32_t	blk = (uint32_t) (rand() % BLOCKS);
	int			what = rand() % 1000;
	AuOps		ops;

	for (size_t k = 0; k < sizeof(bytes); k++)
		bytes[k] = (uint8_t) rand();
	memset(&w, 0, sizeof(w));
	w.lsn = lsn_of(i) - STEP;
	w.end = lsn_of(i);
	w.kind = AU_WAL_OURS;
	if (what == 0)
	{
		w.kind = AU_WAL_DROP_RELS;
		w.ndrop = 1;
		w.drop = malloc(sizeof(AuRelId));
		*(AuRelId *) w.drop = rel_of(r);
	}
	else if (what < 4)
	{
		w.main.flags = AU_REC_TRUNCATE;
		w.main.truncate_rel = rel_of(r);
		w.main.truncate_nblocks = blk / 2;
	}
	else
	{
		if (other)
		{
			r = 0;
			blk = 0;
			bytes[7] ^= 1;
		}
		au_ops_start(&ops, memory, sizeof(memory));
		au_ops_init(&ops, 4000);
		au_ops_patch(&ops, 5000, sizeof(bytes), bytes);
		w.nblocks = 1;
		w.blocks[0].page = (AuPageId)
		{
			rel_of(r), blk
		};
		w.blocks[0].data = ops.data;
		w.blocks[0].data_len = ops.len;
	}
	if (au_pagestore_apply(ps, &w) != AU_OK)
		fail_msg("apply: %s", au_pagestore_error(ps));
	au_pagestore_set_applied(ps, w.end);
	if (what == 0)
		free((void *) w.drop);
}

/* Each in its own rhythm. */
static void
run(AuPageStore *ps, int from, int to, int every, int compact, bool collect)
{
	for (int i = from; i < to; i++)
	{
		srand((unsigned) i);
		take(ps, i, false);
		if (i % every == 0 || au_pagestore_full(ps))
			teststore_write(ps, lsn_of(i), i % (3 * every) == 0);
		if (compact > 0 && i % compact == 0)
			au_pagestore_compact(ps);
		while (collect && au_pagestore_gc_step(ps))
			;
	}
}

/* Damaged pages seen. */
static int
digest(AuPageStore *ps, uint32_t slice, AuLsn lsn, AuMerkle *tree)
{
	AuDigest   *d = au_pagestore_digest_begin(ps, slice, AU_MERKLE_LEAVES, NULL, lsn);
	const AuDigestPage *pages;
	uint32_t	n;
	int			damaged = 0;

	assert_non_null(d);
	while (au_pagestore_digest_next(d))
	{
		assert_true(au_pagestore_digest_work(d) > 0);
		assert_int_equal(au_pagestore_digest_take(d, &pages, &n), AU_OK);
		assert_in_range(n, 1, AU_EXTENT_BLOCKS);
		for (uint32_t i = 0; i < n; i++)
		{
			assert_int_equal(au_slice_of(&pages[i].page.rel, pages[i].page.blk), slice);
			damaged += pages[i].status == AU_CORRUPT;
		}
	}
	*tree = *au_pagestore_digest_tree(d);
	au_pagestore_digest_end(d);
	return damaged;
}

static uint64_t
compare(AuLsn lsn, int *different)
{
	uint64_t	pages = 0;

	*different = 0;
	for (uint32_t s = 0; s < AU_SLICES; s++)
	{
		for (int k = 0; k < 2; k++)
			assert_int_equal(digest(stores[k], s, lsn, &trees[k][s]), 0);
		*different += memcmp(&trees[0][s], &trees[1][s], sizeof(AuMerkle)) != 0;
		pages += trees[0][s].pages;
	}
	return pages;
}

static void
open_both(void)
{
	for (int k = 0; k < 2; k++)
	{
		snprintf(dirs[k], sizeof(dirs[k]), "/tmp/au_digest.%ld.%d", (long) getpid(), k);
		testdir_remove(dirs[k]);
		stores[k] = teststore_open(dirs[k], 1, START, RECORDS / 4 * STEP);
	}
}

static void
close_both(void)
{
	for (int k = 0; k < 2; k++)
	{
		au_pagestore_close(stores[k]);
		testdir_remove(dirs[k]);
	}
}

static void
test_same_log(void **state)
{
	int			different;

	(void) state;
	open_both();
	for (int part = 0; part < 5; part++)
	{
		int			to = (part + 1) * RECORDS / 5;
		AuLsn		low;

		run(stores[0], part * RECORDS / 5, to, 40, 0, false);
		run(stores[1], part * RECORDS / 5, to, 333, 500, true);
		low = au_pagestore_horizon(stores[1]);
		low = au_pagestore_horizon(stores[0]) > low ? au_pagestore_horizon(stores[0]) : low;
		assert_true(compare(lsn_of(to - 1), &different) > 50);
		assert_int_equal(different, 0);
		compare(low, &different);
		assert_int_equal(different, 0);
		compare(low + (lsn_of(to - 1) - low) / 2 / STEP * STEP, &different);
		assert_int_equal(different, 0);
	}
	close_both();
}

/* Absent: pages of a dropped relation, and beyond a truncated one's size; they
 * are there as of an LSN before. */
static void
test_dropped(void **state)
{
	static AuWalRecord w;
	AuRelId		rel = rel_of(0);
	uint64_t	before,
				after;
	int			different;
	uint32_t	size;

	(void) state;
	open_both();
	for (int k = 0; k < 2; k++)
		run(stores[k], 0, 400, 100, 0, k == 1);
	before = compare(lsn_of(399), &different);
	assert_int_equal(au_pagestore_size(stores[0], &rel, AU_LSN_MAX, &size), AU_OK);
	assert_true(size > 100);
	for (int k = 0; k < 2; k++)
	{
		memset(&w, 0, sizeof(w));
		w.kind = AU_WAL_DROP_RELS;
		w.lsn = lsn_of(399);
		w.end = lsn_of(400);
		w.ndrop = 1;
		w.drop = &rel;
		assert_int_equal(au_pagestore_apply(stores[k], &w), AU_OK);
		au_pagestore_set_applied(stores[k], w.end);
	}
	teststore_write(stores[1], lsn_of(400), true);
	after = compare(lsn_of(400), &different);
	assert_int_equal(different, 0);
	assert_true(after < before);
	assert_int_equal(compare(lsn_of(399), &different), before);
	assert_int_equal(different, 0);
	close_both();
}

static void
test_difference(void **state)
{
	AuRelId		rel = rel_of(0);
	uint32_t	slice = au_slice_of(&rel, 0);
	uint32_t	leaf = au_merkle_leaf(&rel, 0);
	uint64_t	hash[2];
	AuMerkleDiff diff;
	uint32_t	level,
				index,
				found;
	int			different;

	(void) state;
	open_both();
	for (int k = 0; k < 2; k++)
	{
		run(stores[k], 0, 600, 100, 0, false);
		srand(77);
		take(stores[k], 600, true);
		srand(77);
		if (k == 0)
			rand();
		take(stores[k], 601, true);
	}
	compare(lsn_of(600), &different);
	assert_int_equal(different, 0);
	compare(lsn_of(601), &different);
	assert_int_equal(different, 1);
	au_merkle_diff_start(&diff, &trees[0][slice], au_merkle_root(&trees[1][slice]));
	while (au_merkle_diff_want(&diff, &level, &index))
		au_merkle_diff_take(&diff, au_merkle_children(&trees[1][slice], level, index));
	assert_true(au_merkle_diff_leaf(&diff, &found));
	assert_int_equal(found, leaf);
	assert_false(au_merkle_diff_leaf(&diff, &found));

	/* the pages below that leaf, and where a list begins */
	for (int k = 0; k < 2; k++)
	{
		AuDigest   *d = au_pagestore_digest_begin(stores[k], slice, leaf, NULL, lsn_of(601));
		AuPageId	first = {rel, 0};
		const AuDigestPage *pages;
		uint32_t	n;

		assert_true(au_pagestore_digest_next(d));
		(void) au_pagestore_digest_work(d);
		assert_int_equal(au_pagestore_digest_take(d, &pages, &n), AU_OK);
		assert_int_equal(pages[0].page.blk, 0);
		hash[k] = pages[0].hash;
		assert_false(au_pagestore_digest_next(d));
		au_pagestore_digest_end(d);
		first.blk = 1;
		d = au_pagestore_digest_begin(stores[k], slice, leaf, &first, lsn_of(601));
		assert_false(au_pagestore_digest_next(d));
		au_pagestore_digest_end(d);
	}
	assert_true(hash[0] != hash[1]);
	close_both();
}

/* The horizon stays while a digest is under way. */
static void
test_horizon(void **state)
{
	AuDigest   *d;
	AuLsn		at;

	(void) state;
	open_both();
	run(stores[0], 0, 2000, 100, 0, false);
	at = au_pagestore_horizon(stores[0]);
	d = au_pagestore_digest_begin(stores[0], 0, AU_MERKLE_LEAVES, NULL, at);
	run(stores[0], 2000, 3000, 100, 500, true);
	assert_int_equal(au_pagestore_horizon(stores[0]), at);
	au_pagestore_digest_end(d);
	run(stores[0], 3000, 3001, 100, 0, true);
	assert_true(au_pagestore_horizon(stores[0]) > at);
	close_both();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_log),
		cmocka_unit_test(test_dropped),
		cmocka_unit_test(test_difference),
		cmocka_unit_test(test_horizon),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
