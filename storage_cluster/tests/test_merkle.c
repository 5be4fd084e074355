/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_merkle.c: trees of random sets of pages: the order of adding does not
 * count, each difference is found and nothing else, in few questions.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "cluster/au_merkle.h"
#include "cluster/au_view.h"

#define N 3000

typedef struct Entry
{
	AuPageId	page;
	uint64_t	hash;
	bool		there;
} Entry;

static Entry a[N],
			b[N];
static AuMerkle ta,
			tb;

static uint64_t
rnd(void)
{
	return (uint64_t) rand() << 33 ^ (uint64_t) rand() << 11 ^ (uint64_t) rand();
}

/* Distinct pages of some relations, in extents. */
static void
random_set(Entry *e, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		e[i] = (Entry)
		{
			{{1663, 5, 16384 + i % 7, 0}, i / 7 * 3}, rnd(), true
		};
}

static void
build(AuMerkle *t, const Entry *e, uint32_t n, bool backwards)
{
	au_merkle_start(t);
	for (uint32_t i = 0; i < n; i++)
	{
		const Entry *x = &e[backwards ? n - 1 - i : i];

		if (x->there)
			au_merkle_add(t, &x->page, x->hash);
	}
	au_merkle_finish(t);
}

/* Leaves that differ, as told by the comparison; returns its questions. */
static uint32_t
compare(const AuMerkle *ours, const AuMerkle *theirs, bool *leaves)
{
	AuMerkleDiff d;
	uint32_t	level,
				index,
				leaf,
				asked = 0;
	int64_t		last = -1;

	memset(leaves, 0, AU_MERKLE_LEAVES * sizeof(*leaves));
	au_merkle_diff_start(&d, ours, au_merkle_root(theirs));
	while (au_merkle_diff_want(&d, &level, &index))
	{
		assert_true(au_merkle_node_valid(level, index));
		au_merkle_diff_take(&d, au_merkle_children(theirs, level, index));
		assert_true(++asked <= 1 + 16 + 256);
	}
	while (au_merkle_diff_leaf(&d, &leaf))
	{
		assert_true((int64_t) leaf > last);
		last = leaf;
		leaves[leaf] = true;
	}
	assert_int_equal(d.nleaves, 0);
	return asked;
}

static void
test_order(void **state)
{
	static bool leaves[AU_MERKLE_LEAVES];

	(void) state;
	srand(1);
	for (uint32_t n = 0; n < N; n = n * 2 + 1)
	{
		random_set(a, n);
		build(&ta, a, n, false);
		build(&tb, a, n, true);
		assert_memory_equal(&ta, &tb, sizeof(ta));
		assert_int_equal(ta.pages, n);
		assert_int_equal(compare(&ta, &tb, leaves), 0);
	}
}

/* Some pages other, missing, or there in vain. */
static void
test_differences(void **state)
{
	static bool found[AU_MERKLE_LEAVES];
	static bool expected[AU_MERKLE_LEAVES];

	(void) state;
	for (unsigned seed = 1; seed <= 60; seed++)
	{
		uint32_t	changes = seed % 4 == 0 ? 0 : seed % 4 == 1 ? 1 : seed * 2;
		uint32_t	asked;
		uint32_t	leaves = 0;

		srand(seed);
		random_set(a, N);
		for (int i = 0; i < N; i += 11)
			a[i].there = false;
		memcpy(b, a, sizeof(a));
		memset(expected, 0, sizeof(expected));
		for (uint32_t i = 0; i < changes; i++)
		{
			Entry	   *e = &b[rnd() % N];
			bool		same;

			if (rnd() % 3 == 0)
				e->there = !e->there;
			else
				e->hash ^= UINT64_C(1) << rnd() % 64;
			same = a[e - b].there == e->there && (!e->there || a[e - b].hash == e->hash);
			if (!same)
				expected[au_merkle_leaf(&e->page.rel, e->page.blk)] = true;
		}
		build(&ta, a, N, false);
		build(&tb, b, N, true);
		for (int i = 0; i < AU_MERKLE_LEAVES; i++)
			leaves += expected[i];
		asked = compare(&ta, &tb, found);
		/* a change that was taken back leaves an expectation too many */
		for (int i = 0; i < AU_MERKLE_LEAVES; i++)
			if (found[i])
				assert_true(expected[i]);
		for (int i = 0; i < N; i++)
			if (a[i].there != b[i].there || (a[i].there && a[i].hash != b[i].hash))
				assert_true(found[au_merkle_leaf(&a[i].page.rel, a[i].page.blk)]);
		assert_true(asked <= 1 + 2 * leaves);
		if (changes == 1)
			assert_true(asked == 3 || asked == 0);
	}
}

static void
test_swapped_pages(void **state)
{
	static bool leaves[AU_MERKLE_LEAVES];

	(void) state;
	/* two pages of one extent with each other's bytes, and a page moved to
	 * another block */
	srand(9);
	random_set(a, 40);
	memcpy(b, a, sizeof(a));
	b[0].hash = a[7].hash;
	b[7].hash = a[0].hash;
	build(&ta, a, 40, false);
	build(&tb, b, 40, false);
	assert_int_equal(compare(&ta, &tb, leaves), 3);
	memcpy(b, a, sizeof(a));
	b[0].page.blk = 1;
	build(&tb, b, 40, false);
	assert_int_equal(compare(&ta, &tb, leaves), 3);
	assert_true(leaves[au_merkle_leaf(&a[0].page.rel, 0)]);
}

static void
test_hash(void **state)
{
	static uint8_t page[8192];
	uint64_t	first;

	(void) state;
	srand(2);
	for (size_t i = 0; i < sizeof(page); i++)
		page[i] = (uint8_t) rand();
	first = au_merkle_hash(page);
	for (size_t i = 0; i < sizeof(page) * 8; i += 97)
	{
		page[i / 8] ^= (uint8_t) (1u << (i % 8));
		assert_true(au_merkle_hash(page) != first);
		page[i / 8] ^= (uint8_t) (1u << (i % 8));
	}
	assert_true(au_merkle_hash(page) == first);
	memset(page, 0, sizeof(page));
	/* part of the protocol: must never change */
	assert_int_equal(au_merkle_hash(page), UINT64_C(0xdd89e6cf4a503abe));
}

static void
test_leaves(void **state)
{
	static uint32_t count[AU_MERKLE_LEAVES];
	uint32_t	most = 0;

	(void) state;
	for (uint32_t i = 0; i < 40960; i++)
	{
		AuRelId		rel = {1663, 5, 16384 + i / 1000, 0};
		uint32_t	blk = i % 1000 * AU_EXTENT_BLOCKS;
		uint32_t	leaf = au_merkle_leaf(&rel, blk);

		assert_int_equal(leaf, au_merkle_leaf(&rel, blk + AU_EXTENT_BLOCKS - 1));
		count[leaf]++;
	}
	for (int i = 0; i < AU_MERKLE_LEAVES; i++)
		most = count[i] > most ? count[i] : most;
	assert_in_range(most, 11, 40);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_differences),
		cmocka_unit_test(test_swapped_pages),
		cmocka_unit_test(test_hash),
		cmocka_unit_test(test_leaves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
