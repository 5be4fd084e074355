/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_flatten.c: a record that fills a new page is stored as the page's image,
 * whatever stands before and behind it; what is read is the same at each LSN.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>
#include <rocksdb/c.h>

#include "common/au_page.h"
#include "store/au_bundle.h"
#include "tests/testdir.h"
#include "tests/testfixture.h"
#include "tests/teststore.h"

#define SYSID 4243
#define START ((AuLsn) 1000)
#define STEP 16
#define PAGES 3
#define RECORDS (PAGES * 3)

static uint8_t versions[RECORDS][AU_PAGE_SIZE];

static AuPageId
page_id(uint32_t blk)
{
	return (AuPageId)
	{
		{1663, 5, 16384, 0}, blk
	};
}

/* Record i changes page i % PAGES: first it is made (as small, full, full with
 * a special space and flags), then it gets a tuple, then another one. */
static void
take(AuPageStore *ps, int i)
{
	static AuWalRecord w;
	uint8_t		memory[AU_OPS_MAX];
	uint8_t		tuple[200];
	AuOps		ops;
	uint32_t	blk = (uint32_t) i % PAGES;
	uint16_t	n = i >= PAGES ? 1 : blk == 0 ? 2 : 30;
	uint8_t    *page = versions[i];

	if (i >= PAGES)
		memcpy(page, versions[i - PAGES], AU_PAGE_SIZE);
	au_ops_start(&ops, memory, sizeof(memory));
	if (i < PAGES)
		au_ops_init(&ops, blk == 2 ? 64 : 0);
	for (uint16_t k = 1; k <= n; k++)
	{
		memset(tuple, i * 31 + k, sizeof(tuple));
		au_ops_add(&ops, i < PAGES ? k : (uint16_t) ((blk == 0 ? 2 : 30) + i / PAGES),
				   sizeof(tuple), tuple);
	}
	if (blk == 2)
		au_ops_flags(&ops, 4, 0);
	assert_false(ops.overflow);
	assert_int_equal(au_page_apply(page, ops.data, ops.len, NULL), AU_OK);
	w = (AuWalRecord)
	{
		.kind = AU_WAL_OURS,.lsn = START + (AuLsn) i * STEP,.end = START + (AuLsn) (i + 1) * STEP,
		.nblocks = 1
	};
	w.blocks[0].page = page_id(blk);
	w.blocks[0].data = ops.data;
	w.blocks[0].data_len = ops.len;
	au_page_set_lsn(page, w.end);
	if (au_pagestore_apply(ps, &w) != AU_OK)
		fail_msg("%s", au_pagestore_error(ps));
}

static void
check_all(AuPageStore *ps)
{
	uint8_t		page[AU_PAGE_SIZE];

	for (int i = 0; i < RECORDS; i++)
	{
		AuPageId	id = page_id((uint32_t) i % PAGES);

		assert_int_equal(au_pagestore_read(ps, &id, START + (AuLsn) (i + 1) * STEP, page), AU_OK);
		assert_memory_equal(page, versions[i], AU_PAGE_SIZE);
	}
}

/* The first operation of the page's oldest stored item. */
static uint8_t
stored_as(uint32_t blk)
{
	rocksdb_options_t *o = rocksdb_options_create();
	rocksdb_readoptions_t *ro = rocksdb_readoptions_create();
	rocksdb_t  *db;
	rocksdb_iterator_t *it;
	AuPageId	id = page_id(blk);
	uint8_t		seek[AU_KEY_LEN];
	uint8_t		code = 0;
	char	   *err = NULL;

	db = rocksdb_open_for_read_only(o, dir, 0, &err);
	assert_null(err);
	it = rocksdb_create_iterator(db, ro);
	au_key_encode(seek, AU_KS_PAGE, &id, AU_LSN_MAX);
	for (rocksdb_iter_seek(it, (const char *) seek, AU_KEY_LEN); rocksdb_iter_valid(it);
		 rocksdb_iter_next(it))
	{
		size_t		klen,
					vlen,
					pos = 0;
		const uint8_t *key = (const uint8_t *) rocksdb_iter_key(it, &klen);
		const uint8_t *value = (const uint8_t *) rocksdb_iter_value(it, &vlen);
		const char *why;
		AuBundle	b;
		AuItem		item;

		if (klen != AU_KEY_LEN || memcmp(key, seek, AU_KEY_PAGE_LEN) != 0)
			break;
		assert_int_equal(au_bundle_parse(key, value, vlen, &b, &why), AU_OK);
		assert_true(au_bundle_next(&b, &pos, &item));
		code = item.ops[0];
	}
	rocksdb_iter_destroy(it);
	rocksdb_close(db);
	rocksdb_readoptions_destroy(ro);
	rocksdb_options_destroy(o);
	return code;
}

static void
test_flatten(void **state)
{
	/* the later records go with the first ones, or into bundles of their own */
	for (int at_once = 0; at_once <= 1; at_once++)
	{
		AuPageStore *ps;

		(void) state;
		testdir_remove(dir);
		memset(versions, 0, sizeof(versions));
		ps = teststore_open(dir, SYSID, START, 1 << 30);
		for (int i = 0; i < RECORDS; i++)
		{
			take(ps, i);
			if (!at_once && i % PAGES == PAGES - 1)
				teststore_write(ps, START + (AuLsn) (i + 1) * STEP, true);
		}
		check_all(ps);
		if (at_once)
			teststore_write(ps, START + RECORDS * STEP, true);
		check_all(ps);
		au_pagestore_close(ps);
		assert_int_equal(stored_as(0), AU_OP_INIT);
		assert_int_equal(stored_as(1), AU_OP_IMAGE);
		assert_int_equal(stored_as(2), AU_OP_IMAGE);
		ps = teststore_open(dir, SYSID, START, 1 << 30);
		check_all(ps);
		au_pagestore_compact(ps);
		check_all(ps);
		au_pagestore_close(ps);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_flatten, testfixture_setup, testfixture_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
