/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_page.c: page operations: each one's effect, what each refuses, and
 * that long random sequences keep a page valid, equal on two sides, and equal
 * to a model that knows only items by number.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/au_page.h"

#define TUPLE_MAX 600

static uint8_t memory[AU_OPS_MAX];

static void
ops_start(AuOps *ops)
{
	au_ops_start(ops, memory, sizeof(memory));
}

static void
apply_ok(uint8_t *page, const AuOps *ops)
{
	const char *why = NULL;

	assert_false(ops->overflow);
	assert_int_equal(au_ops_check(ops->data, ops->len, &why), AU_OK);
	if (au_page_apply(page, ops->data, ops->len, &why) != AU_OK)
		fail_msg("apply: %s", why);
	if (!au_page_valid(page, &why))
		fail_msg("page: %s", why);
}

static void
apply_fails(const uint8_t *page, const AuOps *ops, const char *expected)
{
	uint8_t		copy[AU_PAGE_SIZE];
	const char *why = NULL;

	memcpy(copy, page, AU_PAGE_SIZE);
	assert_int_equal(au_page_apply(copy, ops->data, ops->len, &why), AU_CORRUPT);
	assert_string_equal(why, expected);
}

static void
init_page(uint8_t *page)
{
	AuOps		ops;

	memset(page, 0xA5, AU_PAGE_SIZE);
	ops_start(&ops);
	au_ops_init(&ops, 0);
	apply_ok(page, &ops);
}

static void
add_tuple(uint8_t *page, uint16_t offnum, uint16_t len, uint8_t fill)
{
	uint8_t		tuple[TUPLE_MAX];
	AuOps		ops;

	memset(tuple, fill, len);
	ops_start(&ops);
	au_ops_add(&ops, offnum, len, tuple);
	apply_ok(page, &ops);
}

static uint32_t
lp_of(const uint8_t *page, int offnum)
{
	return au_get_u32(page + 24 + (offnum - 1) * 4);
}

static const uint8_t *
item_of(const uint8_t *page, int offnum)
{
	return page + (lp_of(page, offnum) & 0x7FFF);
}

static void
test_init_and_image(void **state)
{
	uint8_t		a[AU_PAGE_SIZE];
	uint8_t		b[AU_PAGE_SIZE];
	AuOps		ops;

	(void) state;
	init_page(a);
	assert_false(au_page_is_new(a));
	assert_int_equal(au_page_lsn(a), 0);
	for (int i = 24; i < AU_PAGE_SIZE; i++)
		assert_int_equal(a[i], 0);

	add_tuple(a, 1, 100, 7);
	au_page_set_lsn(a, 0x1122334455667788);
	assert_true(au_page_lsn(a) == 0x1122334455667788);
	ops_start(&ops);
	au_ops_image(&ops, a);
	assert_true(au_ops_self_contained(ops.data, ops.len));
	assert_true(ops.len < 300);	/* the hole is not carried */
	memset(b, 0x5A, sizeof(b));
	apply_ok(b, &ops);
	assert_int_equal(au_page_lsn(b), 0);
	au_page_set_lsn(b, au_page_lsn(a));
	assert_memory_equal(a, b, AU_PAGE_SIZE);
}

static void
test_add(void **state)
{
	uint8_t		page[AU_PAGE_SIZE];
	uint8_t		tuple[TUPLE_MAX] = {0};
	uint8_t		new_page[AU_PAGE_SIZE] = {0};
	AuOps		ops;

	(void) state;
	init_page(page);
	add_tuple(page, 1, 29, 1);
	add_tuple(page, 2, 40, 2);
	assert_int_equal(lp_of(page, 1) >> 17, 29);
	assert_int_equal(item_of(page, 1) - page, AU_PAGE_SIZE - 32);
	assert_int_equal(item_of(page, 1)[28], 1);
	assert_int_equal(item_of(page, 1)[29], 0);	/* padding */

	ops_start(&ops);
	au_ops_add(&ops, 2, 40, tuple);
	apply_fails(page, &ops, "item number is in use");
	ops_start(&ops);
	au_ops_add(&ops, 4, 40, tuple);
	apply_fails(page, &ops, "item number is out of bounds");
	ops_start(&ops);
	au_ops_add(&ops, 3, 0, tuple);
	apply_fails(page, &ops, "item length is out of bounds");
	ops_start(&ops);
	au_ops_add(&ops, 1, 40, tuple);
	apply_fails(new_page, &ops, "page was never initialised");

	for (int i = 3; i <= 14; i++)
		add_tuple(page, (uint16_t) i, 600, (uint8_t) i);
	ops_start(&ops);
	au_ops_add(&ops, 15, 600, tuple);
	apply_ok(page, &ops);
	ops_start(&ops);
	au_ops_add(&ops, 16, 600, tuple);
	apply_fails(page, &ops, "no room for the item");
}

static void
test_add_delta(void **state)
{
	uint8_t		page[AU_PAGE_SIZE];
	uint8_t		old[64];
	uint8_t		expected[70];
	AuOps		ops;

	(void) state;
	for (int i = 0; i < 64; i++)
		old[i] = (uint8_t) i;
	init_page(page);
	ops_start(&ops);
	au_ops_add(&ops, 1, 64, old);
	apply_ok(page, &ops);

	/* head 24 + old[24..34) + mid 16 + last 20 */
	memset(expected, 0xEE, 24);
	memcpy(expected + 24, old + 24, 10);
	memset(expected + 34, 0xDD, 16);
	memcpy(expected + 50, old + 44, 20);
	ops_start(&ops);
	au_ops_add_delta(&ops, 2, 1, 24, 10, 20, 24, expected, 16, expected + 34);
	apply_ok(page, &ops);
	assert_int_equal(lp_of(page, 2) >> 17, 70);
	assert_memory_equal(item_of(page, 2), expected, 70);
	assert_memory_equal(item_of(page, 1), old, 64);

	ops_start(&ops);
	au_ops_add_delta(&ops, 3, 1, 60, 10, 0, 24, expected, 0, NULL);
	apply_fails(page, &ops, "delta reaches outside its source");
	ops_start(&ops);
	au_ops_add_delta(&ops, 3, 9, 0, 1, 0, 24, expected, 0, NULL);
	apply_fails(page, &ops, "item number is out of bounds");
}

static void
test_tuple_header(void **state)
{
	uint8_t		page[AU_PAGE_SIZE];
	const uint8_t *t;
	AuOps		ops;

	(void) state;
	init_page(page);
	add_tuple(page, 1, 40, 0x11);
	add_tuple(page, 2, 20, 0x22);	/* too short for a tuple */
	ops_start(&ops);
	au_ops_tuphdr(&ops, 1, AU_TH_ALL, 1000, 7, 0x2005, 0x0902, 0x00030004, 9);
	au_ops_prunable(&ops, 1000);
	au_ops_flags(&ops, 0x0002, 0x0004);
	apply_ok(page, &ops);
	t = item_of(page, 1);
	assert_int_equal(au_get_u32(t), 0x11111111);	/* xmin untouched */
	assert_int_equal(au_get_u32(t + 4), 1000);
	assert_int_equal(au_get_u32(t + 8), 7);
	assert_int_equal(au_get_u16(t + 12), 3);
	assert_int_equal(au_get_u16(t + 14), 4);
	assert_int_equal(au_get_u16(t + 16), 9);
	assert_int_equal(au_get_u16(t + 18), 0x2005);
	assert_int_equal(au_get_u16(t + 20), 0x0902);
	assert_int_equal(au_get_u32(page + 20), 1000);
	assert_int_equal(au_get_u16(page + 10), 2);

	/* the older xid wins, also across the wrap */
	ops_start(&ops);
	au_ops_prunable(&ops, 2000);
	apply_ok(page, &ops);
	assert_int_equal(au_get_u32(page + 20), 1000);
	ops_start(&ops);
	au_ops_prunable(&ops, 4294967000u);
	apply_ok(page, &ops);
	assert_true(au_get_u32(page + 20) == 4294967000u);

	ops_start(&ops);
	au_ops_tuphdr(&ops, 2, AU_TH_XMAX, 1, 0, 0, 0, 0, 0);
	apply_fails(page, &ops, "item is too short for a tuple");
	ops_start(&ops);
	au_ops_flags(&ops, 0x0010, 0);
	apply_fails(page, &ops, "unknown page flags");
	ops_start(&ops);
	au_ops_prunable(&ops, 2);
	apply_fails(page, &ops, "prunable xid is not a normal one");
}

static void
test_prune(void **state)
{
	uint8_t		page[AU_PAGE_SIZE];
	uint16_t	redirects[] = {1, 3};
	uint16_t	dead[] = {2};
	uint16_t	unused[] = {5, 6};
	uint16_t	reclaim[] = {2};
	AuOps		ops;

	(void) state;
	init_page(page);
	for (int i = 1; i <= 6; i++)
		add_tuple(page, (uint16_t) i, 100, (uint8_t) i);
	ops_start(&ops);
	au_ops_prune(&ops, redirects, 1, dead, 1, unused, 2);
	apply_ok(page, &ops);
	assert_int_equal(au_get_u16(page + 12), 24 + 4 * 4);	/* 5, 6 are gone */
	assert_int_equal(au_get_u16(page + 14), AU_PAGE_SIZE - 2 * 104);
	assert_int_equal(lp_of(page, 1) & 0x7FFF, 3);
	assert_int_equal((lp_of(page, 1) >> 15) & 3, 2);
	assert_int_equal((lp_of(page, 2) >> 15) & 3, 3);
	assert_int_equal(item_of(page, 3)[0], 3);
	assert_int_equal(item_of(page, 4)[99], 4);
	for (int i = au_get_u16(page + 12); i < au_get_u16(page + 14); i++)
		assert_int_equal(page[i], 0);

	ops_start(&ops);
	au_ops_unused(&ops, reclaim, 1);
	apply_ok(page, &ops);
	assert_int_equal(lp_of(page, 2), 0);
	assert_int_equal(au_get_u16(page + 10) & 1, 1);	/* has free lines */
	add_tuple(page, 2, 200, 9);
	assert_int_equal(item_of(page, 2)[199], 9);

	/* item 3 is what item 1 points to */
	reclaim[0] = 3;
	redirects[0] = 4;
	ops_start(&ops);
	au_ops_prune(&ops, NULL, 0, NULL, 0, redirects, 1);
	au_ops_unused(&ops, reclaim, 1);
	apply_fails(page, &ops, "line pointer redirects out of bounds");

	redirects[0] = 1;
	redirects[1] = 99;
	ops_start(&ops);
	au_ops_prune(&ops, redirects, 1, NULL, 0, NULL, 0);
	apply_fails(page, &ops, "redirect is out of bounds");

	/* two items that overlap are found when the page is packed */
	au_put_u32(page + 24 + 2 * 4, lp_of(page, 4));
	ops_start(&ops);
	au_ops_prune(&ops, NULL, 0, NULL, 0, NULL, 0);
	apply_fails(page, &ops, "items overlap or are out of bounds");
}

static void
test_patch(void **state)
{
	uint8_t		page[AU_PAGE_SIZE];
	uint16_t	bad = 0xFFF0;
	AuOps		ops;

	(void) state;
	init_page(page);
	add_tuple(page, 1, 64, 1);
	ops_start(&ops);
	au_ops_patch(&ops, AU_PAGE_SIZE - 4, 4, "abcd");
	apply_ok(page, &ops);
	assert_memory_equal(page + AU_PAGE_SIZE - 4, "abcd", 4);
	ops_start(&ops);
	au_ops_patch(&ops, AU_PAGE_SIZE - 3, 4, "abcd");
	apply_fails(page, &ops, "patch is out of bounds");
	ops_start(&ops);
	au_ops_patch(&ops, 0, 4, "abcd");
	apply_fails(page, &ops, "patch is out of bounds");
	ops_start(&ops);
	au_ops_patch(&ops, 4000, 4, "abcd");
	apply_fails(page, &ops, "patch reaches into the page's free space");
	ops_start(&ops);
	au_ops_patch(&ops, 14, 2, &bad);
	apply_fails(page, &ops, "page header bounds are out of order");
}

static void
test_cut_short(void **state)
{
	uint8_t		page[AU_PAGE_SIZE];
	uint8_t		tuple[50] = {0};
	AuOps		ops;

	(void) state;
	init_page(page);
	ops_start(&ops);
	au_ops_add(&ops, 1, 50, tuple);
	au_ops_tuphdr(&ops, 1, AU_TH_ALL, 1, 2, 3, 4, 5, 6);
	au_ops_prunable(&ops, 10);
	for (uint32_t len = 0; len <= ops.len; len++)
	{
		/* whole operations only: after the first, second and third */
		bool		whole = len == 55 || len == 55 + 22 || len == 55 + 22 + 5;

		assert_int_equal(au_ops_check(ops.data, len, NULL) == AU_OK, whole);
	}

	au_ops_start(&ops, memory, 10);
	au_ops_add(&ops, 1, 50, tuple);
	assert_true(ops.overflow);
	assert_int_equal(ops.len, 0);
	au_ops_prunable(&ops, 10);	/* sticky: nothing slips in behind */
	assert_int_equal(ops.len, 0);
}

static void
test_mask(void **state)
{
	uint8_t		a[AU_PAGE_SIZE];
	uint8_t		b[AU_PAGE_SIZE];
	uint8_t    *infomask;

	(void) state;
	init_page(a);
	add_tuple(a, 1, 40, 0);
	memcpy(b, a, AU_PAGE_SIZE);
	infomask = b + (item_of(b, 1) - b) + 20;
	au_put_u16(infomask, 0x0100 | 0x0800);	/* xmin committed, xmax invalid */
	au_put_u32(b + 20, 77);
	b[10] |= 3;
	au_page_set_lsn(b, 99);
	b[100] = 1;					/* in the hole */
	assert_memory_not_equal(a, b, AU_PAGE_SIZE);
	au_page_mask(a);
	au_page_mask(b);
	assert_memory_equal(a, b, AU_PAGE_SIZE);

	/* frozen is no hint, nor is all-visible */
	au_put_u16(infomask, 0x0300);
	au_page_mask(b);
	assert_memory_not_equal(a, b, AU_PAGE_SIZE);
	au_put_u16(infomask, 0);
	b[10] |= 4;
	au_page_mask(b);
	assert_memory_not_equal(a, b, AU_PAGE_SIZE);
}

/* A model page: items by number. */
typedef struct ModelItem
{
	uint16_t	len;			/* 0: unused or dead */
	uint8_t		state;			/* LP state */
	uint8_t		bytes[TUPLE_MAX];
} ModelItem;

static void
check_model(const uint8_t *page, const ModelItem *model, int max)
{
	assert_int_equal((au_get_u16(page + 12) - 24) / 4, max);
	for (int i = 1; i <= max; i++)
	{
		assert_int_equal((lp_of(page, i) >> 15) & 3, model[i].state);
		if (model[i].state == 1)
		{
			assert_int_equal(lp_of(page, i) >> 17, model[i].len);
			assert_memory_equal(item_of(page, i), model[i].bytes, model[i].len);
		}
	}
}

/* Random adds, header changes and prunes on two pages that see only the
 * operations, checked against the model after each step. */
static void
test_random_against_model(void **state)
{
	static ModelItem model[2100];
	uint8_t		a[AU_PAGE_SIZE];
	uint8_t		b[AU_PAGE_SIZE];

	(void) state;
	for (unsigned seed = 1; seed <= 200; seed++)
	{
		int			max = 0;

		srand(seed);
		init_page(a);
		memcpy(b, a, AU_PAGE_SIZE);
		memset(model, 0, sizeof(model));
		for (int step = 0; step < 200; step++)
		{
			AuOps		ops;
			int			room = au_get_u16(a + 14) - au_get_u16(a + 12);
			uint16_t	len = (uint16_t) (24 + rand() % 200);

			ops_start(&ops);
			if (rand() % 10 < 7 && room >= len + 16)
			{
				int			n = max + 1;

				for (int i = 1; i <= max && rand() % 2; i++)
					if (model[i].state == 0)
						n = i;
				if (n > max)
					max = n;
				model[n].state = 1;
				model[n].len = len;
				for (int i = 0; i < len; i++)
					model[n].bytes[i] = (uint8_t) rand();
				au_ops_add(&ops, (uint16_t) n, len, model[n].bytes);
			}
			else
			{
				uint16_t	dead[300];
				uint16_t	unused[300];
				int			ndead = 0;
				int			nunused = 0;

				for (int i = 1; i <= max; i++)
				{
					if (model[i].state == 1 && rand() % 3 == 0)
					{
						dead[ndead++] = (uint16_t) i;
						model[i].state = 3;
					}
					else if (model[i].state == 3 && rand() % 2 == 0)
					{
						unused[nunused++] = (uint16_t) i;
						model[i].state = 0;
					}
				}
				au_ops_prune(&ops, NULL, 0, dead, ndead, unused, nunused);
				while (max > 0 && model[max].state == 0)
					max--;
			}
			apply_ok(a, &ops);
			apply_ok(b, &ops);
			assert_memory_equal(a, b, AU_PAGE_SIZE);
			check_model(a, model, max);
		}
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_init_and_image),
		cmocka_unit_test(test_add),
		cmocka_unit_test(test_add_delta),
		cmocka_unit_test(test_tuple_header),
		cmocka_unit_test(test_prune),
		cmocka_unit_test(test_patch),
		cmocka_unit_test(test_cut_short),
		cmocka_unit_test(test_mask),
		cmocka_unit_test(test_random_against_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
