/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_fileends.c: the first or the last block of one of RocksDB's files cannot
 * be read: it is damaged, or not in the cache for a read that goes no further.
 * Iterators come to it from the file before or behind.  No page is served, and
 * no version is exported, merged, scrubbed, checked or collected as if the
 * versions in it, or those of the rest of the level, had never been.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>
#include <sys/stat.h>

#include "store/au_export.h"
#include "store/au_pagestore_int.h"
#include "tests/history.h"
#include "tests/testfixture.h"

#define SYSID 9
#define FILES_MAX 200
#define RETENTION ((uint64_t) 1 << 30)
#define PATIENCE_S 60
/* So small that a file is a few blocks, and three levels fill. */
#define FILE_BYTES (16 * 1024)

static uint8_t model[HISTORY_BLOCKS][AU_PAGE_SIZE];
static char origin[260];
static char copy[260];
static char files[FILES_MAX][40];	/* of levels 1 and below */
static int	nfiles;
static int	reported;

static AuStatus
open_store(const char *path, uint64_t retention, AuPageStore **ps)
{
	AuPageStoreOptions opt = {
		.dir = path,.system_identifier = SYSID,.start_lsn = HISTORY_START,
		.pending_bytes = 64 * 1024,.write_buffer_bytes = FILE_BYTES,
		.retention_bytes = retention
	};
	char		err[512];

	return au_pagestore_open(ps, &opt, err, sizeof(err));
}

static AuPageStore *
must_open(const char *path, uint64_t retention)
{
	AuPageStore *ps;

	assert_int_equal(open_store(path, retention, &ps), AU_OK);
	return ps;
}

static void
changes(AuPageStore *ps, int from, int to)
{
	for (int i = from; i < to; i++)
	{
		history_change(ps, i, model);
		if (i % 100 == 99)
			teststore_write(ps, history_lsn(i), true);
	}
}

static void
wait_idle(AuPageStore *ps)
{
	int			i = 0;

	while (au_ps_property(ps, "rocksdb.compaction-pending") > 0 ||
		   au_ps_property(ps, "rocksdb.num-running-compactions") > 0)
	{
		assert_true(++i < PATIENCE_S * 100);
		usleep(10 * 1000);
	}
}

static void
list_files(AuPageStore *ps)
{
	const rocksdb_livefiles_t *live = rocksdb_livefiles(ps->db);
	int			n = rocksdb_livefiles_count(live);

	nfiles = 0;
	for (int i = 0; i < n; i++)
	{
		if (rocksdb_livefiles_level(live, i) == 0)
			continue;
		assert_true(nfiles < FILES_MAX);
		snprintf(files[nfiles++], sizeof(files[0]), "%s", rocksdb_livefiles_name(live, i));
	}
	rocksdb_livefiles_destroy(live);
}

/* A level with another one below it, and several files in both. */
static int
setup(void **state)
{
	AuPageStore *ps;

	testfixture_setup(state);
	assert_int_equal(mkdir(dir, 0700), 0);
	snprintf(origin, sizeof(origin), "%s/origin", dir);
	srand(4);
	ps = must_open(origin, RETENTION);
	changes(ps, 0, HISTORY_RECORDS / 2);
	au_pagestore_compact(ps);
	changes(ps, HISTORY_RECORDS / 2, HISTORY_RECORDS);
	wait_idle(ps);
	list_files(ps);
	au_pagestore_close(ps);
	return 0;
}

/* ---- damage ------------------------------------------------------------ */

static void
copy_store(const char *from)
{
	static int	n;
	char		command[600];

	testdir_remove(copy);
	/* a test that failed has not closed its own */
	snprintf(copy, sizeof(copy), "%s/copy%d", dir, n++);
	snprintf(command, sizeof(command), "cp -r '%s' '%s'", from, copy);
	assert_int_equal(system(command), 0);
}

/* Where a file's filter begins, which is behind its last block of data. */
static long
end_of_data(const uint8_t *bytes, size_t len)
{
	static const char name[] = "fullfilter.rocksdb.BuiltinBloomFilter";
	const uint8_t *at = memmem(bytes, len, name, sizeof(name) - 1);
	long		offset = 0;

	assert_non_null(at);
	at += sizeof(name) - 1;
	for (int shift = 0;; shift += 7)
	{
		offset |= (long) (*at & 0x7F) << shift;
		if ((*at++ & 0x80) == 0)
			return offset;
	}
}

/* Turns a bit in the first or the last block of a file of the copy; twice is
 * never. */
static void
turn_bit(int i, bool last)
{
	static uint8_t bytes[1 << 20];
	char		path[400];
	size_t		len;
	FILE	   *f;
	long		at;

	snprintf(path, sizeof(path), "%s%s", copy, files[i]);
	f = fopen(path, "r+b");
	if (f == NULL)
		fail_msg("%s has gone, and what was in it", path);
	len = fread(bytes, 1, sizeof(bytes), f);
	assert_in_range(len, 1000, sizeof(bytes) - 1);
	at = last ? end_of_data(bytes, len) - 20 : 20;
	fseek(f, at, SEEK_SET);
	fputc(bytes[at] ^ 0x10, f);
	fclose(f);
}

/* false: with this file damaged it does not open, and says so. */
static bool
open_damaged(int i, bool last, uint64_t retention, AuPageStore **ps)
{
	AuStatus	status;

	turn_bit(i, last);
	status = open_store(copy, retention, ps);
	if (status != AU_OK)
		assert_int_equal(status, AU_CORRUPT);
	return status == AU_OK;
}

/* ---- reads -------------------------------------------------------------- */

static bool
is_right(const uint8_t *page, uint32_t blk, int i)
{
	return au_crc32c(0, page, AU_PAGE_SIZE) == history_crc[history_maker(blk, i)];
}

/* Right, or refused; returns how often it was refused. */
static int
read_single(AuPageStore *ps)
{
	uint8_t		page[AU_PAGE_SIZE];
	int			refused = 0;

	for (int i = HISTORY_RECORDS - 1; i > 100; i -= 7)
	{
		AuPageId	id = {history_rel, history_block[i]};
		AuStatus	status = au_pagestore_read(ps, &id, history_lsn(i), page);

		if (status == AU_OK)
			assert_true(is_right(page, id.blk, i));
		else
			assert_int_equal(status, AU_CORRUPT);
		refused += status != AU_OK;
	}
	return refused;
}

static int
read_runs(AuPageStore *ps)
{
	uint32_t	blocks[HISTORY_BLOCKS];
	uint8_t		page[AU_PAGE_SIZE];
	int			refused = 0;

	for (uint32_t b = 0; b < HISTORY_BLOCKS; b++)
		blocks[b] = b;
	for (int i = HISTORY_RECORDS - 1; i > 100; i -= 53)
	{
		AuPageRead *r = au_pagestore_read_begin(ps, &history_rel, blocks, HISTORY_BLOCKS,
												history_lsn(i), true);

		assert_non_null(r);
		for (uint16_t b = 0; b < HISTORY_BLOCKS; b++)
		{
			AuStatus	status = au_pagestore_read_page(r, b, false, page);

			if (status == AU_OK)
				assert_true(is_right(page, b, i));
			else
				assert_int_equal(status, AU_CORRUPT);
			refused += status != AU_OK;
		}
		au_pagestore_read_rest(r);
		au_pagestore_read_end(r);
	}
	return refused;
}

static void
test_reads(void **state)
{
	AuPageStore *ps;
	int			refused = 0;

	(void) state;
	for (int i = 0; i < nfiles; i++)
	{
		copy_store(origin);
		if (!open_damaged(i, false, RETENTION, &ps))
			continue;
		refused += read_single(ps);
		refused += read_runs(ps);
		au_pagestore_close(ps);
	}
	assert_true(refused > nfiles);
}

/* Into the cache goes what a key is found with, and nothing behind it. */
static void
warm(AuPageStore *ps, const AuPageId *page, AuLsn lsn)
{
	rocksdb_iterator_t *it = rocksdb_create_iterator(ps->db, ps->read_options);
	uint8_t		key[AU_KEY_LEN];

	au_key_encode(key, AU_KS_PAGE, page, lsn);
	rocksdb_iter_seek(it, (const char *) key, AU_KEY_LEN);
	rocksdb_iter_destroy(it);
}

/* Blocks come into the cache in the order of the keys, so what a page needs of
 * the next file is not there. */
static void
test_cached(void **state)
{
	AuPageStore *ps;
	uint8_t		page[AU_PAGE_SIZE];
	int			right = 0;
	int			more = 0;

	(void) state;
	copy_store(origin);
	ps = must_open(copy, RETENTION);
	for (uint32_t blk = 0; blk < HISTORY_BLOCKS; blk++)
		for (int i = HISTORY_RECORDS - 1; i > 100; i--)
		{
			AuPageId	id = {history_rel, blk};
			AuPageRead *r;
			AuStatus	status;

			if (history_block[i] != blk)
				continue;
			warm(ps, &id, history_lsn(i));
			r = au_pagestore_read_begin(ps, &history_rel, &blk, 1, history_lsn(i), false);
			assert_non_null(r);
			status = au_pagestore_read_page(r, 0, true, page);
			if (status == AU_OK)
				assert_true(is_right(page, blk, i));
			else
				assert_int_equal(status, AU_NEED_MORE);
			right += status == AU_OK;
			more += status != AU_OK;
			au_pagestore_read_rest(r);
			au_pagestore_read_end(r);
		}
	au_pagestore_close(ps);
	print_message("from the cache alone: %d pages, not %d\n", right, more);
	assert_true(right > 100 && more > 20);
}

/* ---- walks --------------------------------------------------------------- */

static AuStatus
export_all(AuPageStore *ps)
{
	AuExportSet set = {.keyspace = AU_KS_PAGE,.all = true};
	AuPlace		place = au_place_first(AU_KS_PAGE);
	static uint8_t chunk[AU_CHUNK_MAX];
	AuExport   *e;
	AuStatus	status;
	size_t		len;

	assert_int_equal(au_pagestore_export_begin(ps, &set, history_lsn(HISTORY_RECORDS - 1), 0,
											   &place, &e), AU_OK);
	status = au_pagestore_export_work(e, chunk, AU_CHUNK_MAX / 2, &len);
	au_pagestore_export_end(e);
	return status;
}

static void
report(void *ctx, const char *text)
{
	(void) ctx;
	(void) text;
	reported++;
}

static void
scrub_all(AuPageStore *ps)
{
	AuPageScrub *s = au_pagestore_scrub_begin(ps);

	assert_non_null(s);
	(void) au_pagestore_scrub_work(s, UINT64_MAX);
	assert_true(au_pagestore_scrub_end(s, report, NULL));
}

static void
test_walks(void **state)
{
	int			walked = 0;

	(void) state;
	for (int i = 0; i < 2 * nfiles; i += 3)
	{
		AuPageStoreCheck check;
		AuPageStore *ps;
		char		err[512];

		copy_store(origin);
		if (!open_damaged(i / 2, i % 2 != 0, RETENTION, &ps))
			continue;
		assert_int_equal(export_all(ps), AU_CORRUPT);
		reported = 0;
		scrub_all(ps);
		assert_true(reported > 0);
		au_pagestore_close(ps);
		assert_int_equal(au_pagestore_check(copy, report, NULL, &check, err, sizeof(err)), AU_CORRUPT);
		walked++;
	}
	assert_true(walked > 3);
}

/* ---- merging, collecting --------------------------------------------------- */

/* Merging files leaves nothing out that it could not read.  That is RocksDB's own
 * doing: 7.8 does it right, some later release before 8.5 did not. */
static void
test_merged(void **state)
{
	int			merged = 0;

	(void) state;
	for (int i = 0; i < nfiles; i += 3)
	{
		AuPageStore *ps;
		bool		last = i % 2 != 0;

		copy_store(origin);
		if (!open_damaged(i, last, RETENTION, &ps))
			continue;
		au_pagestore_compact(ps);
		au_pagestore_close(ps);
		turn_bit(i, last);
		ps = must_open(copy, RETENTION);
		assert_int_equal(read_single(ps), 0);
		assert_int_equal(read_runs(ps), 0);
		au_pagestore_close(ps);
		merged++;
	}
	assert_true(merged > 1);
}

static void
collect_all(AuPageStore *ps)
{
	AuLsn		applied = au_pagestore_applied_lsn(ps);
	char		err[512];

	while (au_pagestore_gc_step(ps))
		;
	/* may fail, if files were merged meanwhile */
	assert_true(au_pagestore_freeze(ps, applied, applied));
	au_pagestore_written(ps, au_pagestore_write(ps, true, err, sizeof(err)));
	au_pagestore_close(ps);
}

/* A relation is dropped, and its versions cannot be read when they are to be
 * deleted: they are deleted when they can be. */
static void
test_collected(void **state)
{
	static AuWalRecord w = {
		.kind = AU_WAL_DROP_RELS,.ndrop = 1,.drop = &history_rel
	};
	AuPageStore *ps;
	char		dropped[300];
	int			collected = 0;

	(void) state;
	snprintf(dropped, sizeof(dropped), "%s/dropped", dir);
	copy_store(origin);
	assert_int_equal(rename(copy, dropped), 0);
	ps = must_open(dropped, 1000);
	w.lsn = history_lsn(HISTORY_RECORDS - 1);
	w.end = history_lsn(HISTORY_RECORDS);
	assert_int_equal(au_pagestore_apply(ps, &w), AU_OK);
	au_pagestore_set_applied(ps, w.end + 100000);
	teststore_write(ps, w.end + 100000, true);
	wait_idle(ps);
	list_files(ps);
	au_pagestore_close(ps);
	for (int i = 0; i < nfiles; i += 2)
	{
		AuPageStoreCheck check;
		char		err[512];

		copy_store(dropped);
		if (!open_damaged(i, false, 1000, &ps))
			continue;
		collect_all(ps);
		turn_bit(i, false);
		collect_all(must_open(copy, 1000));
		assert_int_equal(au_pagestore_check(copy, report, NULL, &check, err, sizeof(err)), AU_OK);
		assert_int_equal(check.versions, 0);
		collected++;
	}
	assert_true(collected > 1);
}

/* RocksDB would begin an empty store where CURRENT is missing, and delete the
 * tables of the old one. */
static void
test_no_current(void **state)
{
	char		current[300],
				away[300];
	AuPageStore *ps;

	(void) state;
	copy_store(origin);
	snprintf(current, sizeof(current), "%s/CURRENT", copy);
	snprintf(away, sizeof(away), "%s/away", copy);
	assert_int_equal(rename(current, away), 0);
	assert_int_equal(open_store(copy, RETENTION, &ps), AU_CORRUPT);
	assert_int_equal(open_store(copy, RETENTION, &ps), AU_CORRUPT);
	assert_int_equal(rename(away, current), 0);
	ps = must_open(copy, RETENTION);
	list_files(ps);
	assert_true(nfiles > 1);
	au_pagestore_close(ps);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reads),
		cmocka_unit_test(test_cached),
		cmocka_unit_test(test_walks),
		cmocka_unit_test(test_merged),
		cmocka_unit_test(test_collected),
		cmocka_unit_test(test_no_current),
	};

	return cmocka_run_group_tests(tests, setup, testfixture_teardown);
}
