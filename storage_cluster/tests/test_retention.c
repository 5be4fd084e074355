/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_retention.c: how long page versions stay: by bytes of log, by time
 * (with a clock that jumps), and for those who registered a hold.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/au_page.h"
#include "store/au_timemap.h"
#include "tests/testdir.h"
#include "tests/testfixture.h"
#include "tests/teststore.h"

#define START ((AuLsn) 0x1000)
#define STEP 1000
#define SECOND ((int64_t) 1000000)
#define T0 (700000000 * SECOND)
#define RECORDS 2000

static const AuRelId rel = {1663, 5, 16384, 0};

static AuLsn
lsn_of(int i)
{
	return START + (AuLsn) (i + 1) * STEP;
}

static void
test_map(void **state)
{
	static AuTimeMap m,
				copy;
	static uint8_t bytes[AU_TIMEMAP_BYTES_MAX];
	size_t		len;

	(void) state;
	assert_int_equal(au_timemap_lsn(&m, T0), 0);
	for (int i = 0; i < 100000; i++)
		au_timemap_add(&m, T0 + i * SECOND, lsn_of(i), SECOND);
	assert_true(m.count <= AU_TIMEMAP_MAX);
	for (int i = 0; i < 100000; i += 7)
		assert_true(au_timemap_lsn(&m, T0 + i * SECOND) <= lsn_of(i));
	m.count = 0;
	for (int i = 0; i < 100000; i++)
		au_timemap_add(&m, T0 + i * SECOND, lsn_of(i), 60 * SECOND);
	for (int i = 0; i < 100000; i += 7)
	{
		AuLsn		lsn = au_timemap_lsn(&m, T0 + i * SECOND);

		/* never younger than the truth, and not much older */
		assert_true(lsn <= lsn_of(i) && lsn + 60 * STEP >= lsn_of(i));
	}
	assert_int_equal(au_timemap_lsn(&m, T0 - 1), 0);

	/* there and back; any flipped bit is noticed */
	len = au_timemap_encode(bytes, &m);
	assert_int_equal(au_timemap_decode(bytes, len, &copy), AU_OK);
	assert_int_equal(copy.count, m.count);
	assert_memory_equal(copy.entries, m.entries, m.count * sizeof(m.entries[0]));
	for (size_t i = 0; i < len; i += 61)
	{
		bytes[i] ^= 4;
		assert_int_equal(au_timemap_decode(bytes, len, &copy), AU_CORRUPT);
		bytes[i] ^= 4;
	}
	assert_int_equal(au_timemap_decode(bytes, len - 1, &copy), AU_CORRUPT);

	/* the clock is set back by an hour: nothing counts as older for that */
	au_timemap_add(&m, T0 + (99999 - 3600) * SECOND, lsn_of(100000), 60 * SECOND);
	assert_int_equal(au_timemap_lsn(&m, m.newest), m.entries[m.count - 1].lsn);
	assert_true(au_timemap_lsn(&m, m.newest - 2 * SECOND) <= lsn_of(99999 - 3600));

	/* what was forgotten is not needed for LSNs from there on */
	au_timemap_forget(&m, lsn_of(90000));
	assert_true(m.entries[0].lsn <= lsn_of(90000) && m.entries[1].lsn > lsn_of(90000));
	au_timemap_cut(&m, lsn_of(95000));
	assert_true(m.entries[m.count - 1].lsn <= lsn_of(95000));
	assert_int_equal(m.newest, m.entries[m.count - 1].time);
}

static AuPageStore *
open_with(uint64_t bytes, uint64_t seconds)
{
	AuPageStoreOptions opt = {
		.dir = dir,.system_identifier = 1,.start_lsn = START,
		.pending_bytes = 64 * 1024,.write_buffer_bytes = 256 * 1024,
		.retention_bytes = bytes,.retention_us = seconds * 1000000
	};
	AuPageStore *ps;
	char		err[512];

	if (au_pagestore_open(&ps, &opt, err, sizeof(err)) != AU_OK)
		fail_msg("open: %s", err);
	return ps;
}

/* Record i: even ones change block 0, odd ones commit at this time. */
static void
take(AuPageStore *ps, int i, int64_t time)
{
	static AuWalRecord w;
	uint8_t		memory[64];
	AuOps		ops;

	memset(&w, 0, sizeof(w));
	w.lsn = lsn_of(i) - STEP;
	w.end = lsn_of(i);
	if (i % 2 != 0)
	{
		w.kind = AU_WAL_XACT_END;
		w.is_commit = true;
		w.xact_time = time;
	}
	else
	{
		uint32_t	value = (uint32_t) i;

		au_ops_start(&ops, memory, sizeof(memory));
		if (i == 0)
			au_ops_init(&ops, 4000);
		au_ops_patch(&ops, 5000, sizeof(value), (const uint8_t *) &value);
		w.kind = AU_WAL_OURS;
		w.nblocks = 1;
		w.blocks[0].page = (AuPageId) {rel, 0};
		w.blocks[0].data = ops.data;
		w.blocks[0].data_len = ops.len;
	}
	if (au_pagestore_apply(ps, &w) != AU_OK)
		fail_msg("apply: %s", au_pagestore_error(ps));
	if (w.end > au_pagestore_applied_lsn(ps))
		au_pagestore_set_applied(ps, w.end);
}

static void
expect_readable(AuPageStore *ps, int from, int upto)
{
	for (int i = from; i < upto; i++)
	{
		uint8_t		page[AU_PAGE_SIZE];
		AuPageId	id = {rel, 0};
		uint32_t	value;

		assert_true(au_pagestore_horizon(ps) <= lsn_of(i));
		if (au_pagestore_read(ps, &id, lsn_of(i), page) != AU_OK)
			fail_msg("record %d: %s", i, au_pagestore_error(ps));
		memcpy(&value, page + 5000, sizeof(value));
		assert_int_equal(value, i - i % 2);
	}
}

static void
write_and_compact(AuPageStore *ps, int upto)
{
	teststore_write(ps, lsn_of(upto - 1), true);
	au_pagestore_compact(ps);
}

/* A record a second; 300 s are wanted, or 100 records of log. */
static void
test_by_time(void **state)
{
	AuPageStore *ps;
	AuPageStoreStats stats;

	(void) state;
	testdir_remove(dir);
	ps = open_with(100 * STEP, 300);
	for (int i = 0; i < RECORDS; i++)
	{
		take(ps, i, T0 + i * SECOND);
		if (i % 50 == 49)
			teststore_write(ps, lsn_of(i), true);
	}
	write_and_compact(ps, RECORDS);
	au_pagestore_stats(ps, &stats);
	assert_true(stats.gc_versions > 0);
	expect_readable(ps, RECORDS - 300, RECORDS);
	assert_true(au_pagestore_horizon(ps) > lsn_of(RECORDS - 310));

	/* the map survives, so the next start knows as much */
	au_pagestore_close(ps);
	ps = open_with(100 * STEP, 300);
	for (int i = RECORDS; i < RECORDS + 200; i++)
		take(ps, i, T0 + i * SECOND);
	write_and_compact(ps, RECORDS + 200);
	expect_readable(ps, RECORDS - 100, RECORDS + 200);
	assert_true(au_pagestore_horizon(ps) > lsn_of(RECORDS - 110));

	/* without time it is the bytes again, and far more of them than time */
	au_pagestore_close(ps);
	ps = open_with(50 * STEP, 0);
	take(ps, RECORDS + 200, 0);
	assert_int_equal(au_pagestore_horizon(ps), lsn_of(RECORDS + 150));
	au_pagestore_close(ps);
}

/* Bytes hold what time would let go. */
static void
test_bytes_and_time(void **state)
{
	AuPageStore *ps;

	(void) state;
	testdir_remove(dir);
	ps = open_with(500 * STEP, 10);
	for (int i = 0; i < RECORDS; i++)
		take(ps, i, T0 + i * SECOND);
	assert_int_equal(au_pagestore_horizon(ps), lsn_of(RECORDS - 501));
	write_and_compact(ps, RECORDS);
	expect_readable(ps, RECORDS - 501, RECORDS);
	au_pagestore_close(ps);
}

static void
test_hold(void **state)
{
	AuPageStore *ps;

	(void) state;
	testdir_remove(dir);
	ps = open_with(100 * STEP, 0);
	for (int i = 0; i < RECORDS; i++)
	{
		take(ps, i, 0);
		if (i == 500)
			au_pagestore_set_hold(ps, lsn_of(450));
		if (i % 100 == 99)
			teststore_write(ps, lsn_of(i), true);
	}
	write_and_compact(ps, RECORDS);
	assert_int_equal(au_pagestore_horizon(ps), lsn_of(450));
	expect_readable(ps, 450, RECORDS);
	/* let go: the next position moves the horizon */
	au_pagestore_set_hold(ps, 0);
	take(ps, RECORDS, 0);
	assert_int_equal(au_pagestore_horizon(ps), lsn_of(RECORDS - 100));
	/* one that is below does not bring back what is gone */
	au_pagestore_set_hold(ps, lsn_of(10));
	take(ps, RECORDS + 1, 0);
	assert_int_equal(au_pagestore_horizon(ps), lsn_of(RECORDS - 100));
	au_pagestore_close(ps);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_map),
		cmocka_unit_test(test_by_time),
		cmocka_unit_test(test_bytes_and_time),
		cmocka_unit_test(test_hold),
	};

	return cmocka_run_group_tests(tests, testfixture_setup, testfixture_teardown);
}
