/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_scrub.c: the walk through a running store: clean stores are found
 * clean, damage is found, named and never served, garbage goes; and how files
 * are compressed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>
#include <rocksdb/c.h>
#include <sys/stat.h>

#include "common/au_page.h"
#include "store/au_bundle.h"
#include "tests/testdir.h"
#include "tests/testfixture.h"
#include "tests/teststore.h"

#define START ((AuLsn) 0x1000)
#define STEP 64
#define BLOCKS 300
#define SYSID 3

static uint32_t rng;
static uint8_t model[BLOCKS][AU_PAGE_SIZE];
static bool born[BLOCKS];
static int	nrecords;

static int	reported;
static char report_text[1024];

static uint32_t
rnd(uint32_t n)
{
	rng = rng * 1664525 + 1013904223;
	return (rng >> 8) % n;
}

static AuPageId
page_id(uint32_t blk)
{
	return (AuPageId) {{1663, 5, 16384 + blk % 2, 0}, blk / 2};
}

static void
report(void *ctx, const char *text)
{
	(void) ctx;
	reported++;
	snprintf(report_text, sizeof(report_text), "%s", text);
}

static void
begin(void)
{
	testdir_remove(dir);
	memset(model, 0, sizeof(model));
	memset(born, 0, sizeof(born));
	nrecords = 0;
	rng = 4711;
}

static AuLsn
last_lsn(void)
{
	return START + (AuLsn) nrecords * STEP;
}

static void
change(AuPageStore *ps, uint32_t blk)
{
	static AuWalRecord w;
	uint8_t		memory[1024];
	uint8_t		bytes[500];
	AuOps		ops;

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t) (rnd(2) ? rnd(256) : 7);
	au_ops_start(&ops, memory, sizeof(memory));
	if (!born[blk])
		au_ops_init(&ops, 4000);
	au_ops_patch(&ops, (uint16_t) (4500 + rnd(3000)), sizeof(bytes), bytes);
	born[blk] = true;
	nrecords++;
	memset(&w, 0, sizeof(w));
	w.kind = AU_WAL_OURS;
	w.lsn = last_lsn() - STEP;
	w.end = last_lsn();
	w.nblocks = 1;
	w.blocks[0].page = page_id(blk);
	w.blocks[0].data = ops.data;
	w.blocks[0].data_len = ops.len;
	assert_int_equal(au_page_apply(model[blk], ops.data, ops.len, NULL), AU_OK);
	au_page_set_lsn(model[blk], w.end);
	if (au_pagestore_apply(ps, &w) != AU_OK)
		fail_msg("apply: %s", au_pagestore_error(ps));
	au_pagestore_set_applied(ps, w.end);
}

/* n changes all over the place. */
static void
load(AuPageStore *ps, int n)
{
	for (int i = 0; i < n; i++)
	{
		change(ps, i < BLOCKS && !born[i] ? (uint32_t) i : rnd(BLOCKS));
		if (au_pagestore_full(ps))
			teststore_write(ps, last_lsn(), false);
	}
	teststore_write(ps, last_lsn(), true);
}

/* One whole walk, in steps of this many bytes; returns how many. */
static int
walk(AuPageStore *ps, uint64_t budget)
{
	int			steps = 0;
	bool		finished = false;

	reported = 0;
	while (!finished)
	{
		AuPageScrub *s = au_pagestore_scrub_begin(ps);

		assert_non_null(s);
		(void) au_pagestore_scrub_work(s, budget);
		finished = au_pagestore_scrub_end(s, report, NULL);
		assert_true(++steps < 100000);
	}
	return steps;
}

/* Every page is as it should be, or said to be damaged; returns how many are. */
static int
damaged_pages(AuPageStore *ps)
{
	int			damaged = 0;

	for (uint32_t b = 0; b < BLOCKS; b++)
	{
		uint8_t		page[AU_PAGE_SIZE];
		AuPageId	id = page_id(b);
		AuStatus	status = au_pagestore_read(ps, &id, AU_LSN_MAX, page);

		if (status == AU_OK)
			assert_memory_equal(page, model[b], AU_PAGE_SIZE);
		else if (status == AU_CORRUPT)
			damaged++;
		else
			fail_msg("block %u: %s", b, au_pagestore_error(ps));
	}
	return damaged;
}

static void
test_clean(void **state)
{
	AuPageStore *ps;
	AuPageStoreStats stats;
	uint64_t	versions;

	(void) state;
	begin();
	ps = teststore_open(dir, SYSID, START, 1 << 30);
	assert_int_equal(walk(ps, 1 << 20), 1); /* empty */
	load(ps, 5000);
	assert_int_equal(walk(ps, UINT64_MAX), 1);
	au_pagestore_stats(ps, &stats);
	versions = stats.scrub_versions;
	assert_true(versions > BLOCKS);
	/* in small steps the same versions, each once */
	assert_true(walk(ps, 4096) > 50);
	au_pagestore_stats(ps, &stats);
	assert_int_equal(stats.scrub_versions, 2 * versions);
	assert_int_equal(stats.scrub_passes, 3);
	assert_int_equal(stats.scrub_damaged, 0);
	assert_int_equal(reported, 0);
	/* while things move: never a false alarm */
	for (int round = 0; round < 40; round++)
	{
		AuPageScrub *s = au_pagestore_scrub_begin(ps);

		load(ps, 100);
		if (round % 10 == 0)
			au_pagestore_compact(ps);
		(void) au_pagestore_scrub_work(s, 100000);
		(void) au_pagestore_scrub_end(s, report, NULL);
	}
	assert_int_equal(reported, 0);
	au_pagestore_close(ps);
}

static void
flip_file(const char *path, off_t size, void *ctx)
{
	(void) ctx;
	for (off_t at = 20000; at < size / 4 * 3; at += 1000)
		assert_true(testdir_flip(path, at, 0x10));
}

/* In each of RocksDB's files, but not where the position is, nor in the index at the end. */
static void
flip_everywhere(void)
{
	assert_true(testdir_each(dir, ".sst", flip_file, NULL));
}

static void
test_flipped_byte(void **state)
{
	AuPageStore *ps;
	AuPageStoreStats stats;
	TestFile	largest;
	int			damaged;

	(void) state;
	begin();
	ps = teststore_open(dir, SYSID, START, 1 << 30);
	load(ps, 5000);
	au_pagestore_compact(ps);
	assert_int_equal(damaged_pages(ps), 0);
	au_pagestore_close(ps);
	largest = testdir_largest(dir, ".sst");
	assert_true(largest.size > 0);
	assert_true(testdir_flip(largest.path, largest.size / 3, 0x10));

	ps = teststore_open(dir, SYSID, START, 1 << 30);
	(void) walk(ps, 64 * 1024);
	assert_int_equal(reported, 1);
	assert_non_null(strstr(report_text, "Corruption"));
	assert_non_null(strstr(report_text, " of relation 1663/5/1638"));
	assert_non_null(strstr(au_pagestore_scrub_problem(ps), "Corruption"));
	au_pagestore_stats(ps, &stats);
	assert_int_equal(stats.scrub_damaged, 1);
	/* most pages lie elsewhere and are served, and so are new ones */
	damaged = damaged_pages(ps);
	assert_true(damaged > 0 && damaged < BLOCKS / 4);
	for (uint32_t b = 0; b < BLOCKS; b++)
		change(ps, b);
	teststore_write(ps, last_lsn(), true);
	assert_int_equal(damaged_pages(ps), damaged);
	au_pagestore_close(ps);
}

/* Unreadable from one relation into the next: what can be read behind that is
 * far away, as keys go, and must be found all the same. */
static void
test_flipped_across_relations(void **state)
{
	AuPageStore *ps;
	AuPageStoreStats stats;
	(void) state;
	begin();
	ps = teststore_open(dir, SYSID, START, 1 << 30);
	load(ps, 5000);
	au_pagestore_compact(ps);
	au_pagestore_close(ps);
	flip_everywhere();

	ps = teststore_open(dir, SYSID, START, 1 << 30);
	(void) walk(ps, 64 * 1024);
	assert_true(reported >= 1);
	assert_non_null(strstr(report_text, "Corruption"));
	au_pagestore_stats(ps, &stats);
	assert_int_equal(stats.scrub_damaged, reported);
	assert_int_equal(stats.scrub_percent, 100);
	au_pagestore_close(ps);
}

/* A version that RocksDB takes for good, but is not. */
static void
test_wrong_bytes(void **state)
{
	rocksdb_options_t *o = rocksdb_options_create();
	rocksdb_writeoptions_t *wo = rocksdb_writeoptions_create();
	rocksdb_readoptions_t *ro = rocksdb_readoptions_create();
	rocksdb_iterator_t *it;
	rocksdb_t  *db;
	AuPageStore *ps;
	AuPageId	id = page_id(40);
	uint8_t		seek[AU_KEY_LEN];
	char	   *dberr = NULL;
	const char *value;
	char	   *copy;
	const char *key;
	char		key_copy[AU_KEY_LEN];
	size_t		klen,
				vlen;
	char		want[128];
	AuPageId	found;
	AuLsn		lsn;
	uint8_t		ks;

	(void) state;
	begin();
	ps = teststore_open(dir, SYSID, START, 1 << 30);
	load(ps, 1000);
	au_pagestore_close(ps);
	db = rocksdb_open(o, dir, &dberr);
	assert_null(dberr);
	it = rocksdb_create_iterator(db, ro);
	au_key_encode(seek, AU_KS_PAGE, &id, AU_LSN_MAX);
	rocksdb_iter_seek(it, (const char *) seek, AU_KEY_LEN);
	key = rocksdb_iter_key(it, &klen);
	memcpy(key_copy, key, klen);
	assert_true(au_key_decode((const uint8_t *) key, klen, &ks, &found, &lsn));
	value = rocksdb_iter_value(it, &vlen);
	copy = malloc(vlen);
	memcpy(copy, value, vlen);
	copy[vlen - 10] ^= 1;
	rocksdb_iter_destroy(it);
	rocksdb_put(db, wo, key_copy, klen, copy, vlen, &dberr);
	assert_null(dberr);
	free(copy);
	rocksdb_close(db);
	rocksdb_readoptions_destroy(ro);
	rocksdb_writeoptions_destroy(wo);
	rocksdb_options_destroy(o);

	ps = teststore_open(dir, SYSID, START, 1 << 30);
	(void) walk(ps, 1 << 20);
	assert_int_equal(reported, 1);
	snprintf(want, sizeof(want), "block 20 of relation 1663/5/16384 at %X/%X: ", AU_LSN_ARGS(lsn));
	assert_ptr_equal(strstr(report_text, want), report_text);
	assert_non_null(strstr(report_text, "checksum"));
	assert_int_equal(damaged_pages(ps), 1);
	au_pagestore_close(ps);
}

/* Pages that rest keep no versions that nobody may ask for. */
static void
test_garbage(void **state)
{
	AuPageStore *ps;
	AuPageStoreStats before,
				after;

	(void) state;
	begin();
	ps = teststore_open(dir, SYSID, START, 10 * STEP);
	/* a hold: all of it goes down to the last level, where no compaction
	 * comes by any more */
	au_pagestore_set_hold(ps, START + STEP);
	load(ps, 20000);
	au_pagestore_compact(ps);
	au_pagestore_set_hold(ps, 0);
	nrecords++;
	change(ps, 0);
	teststore_write(ps, last_lsn(), true);
	au_pagestore_stats(ps, &before);
	(void) walk(ps, 256 * 1024);
	au_pagestore_stats(ps, &after);
	assert_true(after.scrub_compactions > 0);
	assert_true(after.gc_versions > before.gc_versions);
	print_message("%u kB before the walk, %u kB after\n", (unsigned) (before.disk_bytes >> 10),
				  (unsigned) (after.disk_bytes >> 10));
	assert_true(after.disk_bytes < before.disk_bytes * 2 / 3);
	assert_int_equal(damaged_pages(ps), 0);
	/* once is enough */
	before = after;
	(void) walk(ps, 256 * 1024);
	au_pagestore_stats(ps, &after);
	assert_int_equal(after.scrub_compactions, before.scrub_compactions);
	assert_int_equal(reported, 0);
	au_pagestore_close(ps);
}

typedef struct Named
{
	const char *text;
	int			files;
} Named;

static void
look_into(const char *path, off_t size, void *ctx)
{
	Named	   *n = ctx;
	char	   *bytes = malloc((size_t) size);
	FILE	   *f = fopen(path, "rb");

	assert_non_null(f);
	assert_int_equal(fread(bytes, 1, (size_t) size, f), size);
	fclose(f);
	n->files += memmem(bytes, (size_t) size, n->text, strlen(n->text)) != NULL;
	free(bytes);
}

/* Files whose properties name this compression. */
static int
files_with(const char *compression)
{
	Named		n = {.text = compression};

	assert_true(testdir_each(dir, ".sst", look_into, &n));
	return n.files;
}

static void
test_compression(void **state)
{
	for (int zstd = 0; zstd <= 1; zstd++)
	{
		AuPageStoreOptions opt = {
			.dir = dir,.system_identifier = SYSID,.start_lsn = START,.cold_zstd = zstd,
			.pending_bytes = 64 * 1024,.write_buffer_bytes = 256 * 1024,
			.retention_bytes = 1 << 30
		};
		AuPageStore *ps;
		char		err[512];

		testdir_remove(dir);
		begin();
		assert_int_equal(au_pagestore_open(&ps, &opt, err, sizeof(err)), AU_OK);
		for (uint32_t b = 0; b < BLOCKS; b++)
			change(ps, b);
		teststore_write(ps, last_lsn(), true);
		assert_true(files_with("ressionLZ4") > 0);
		assert_int_equal(files_with("ressionZSTD"), 0);
		au_pagestore_compact(ps);
		assert_true(files_with(zstd ? "ressionZSTD" : "ressionLZ4") > 0);
		assert_int_equal(files_with(zstd ? "ressionLZ4" : "ressionZSTD"), 0);
		au_pagestore_close(ps);
	}
	(void) state;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_clean),
		cmocka_unit_test(test_flipped_byte),
		cmocka_unit_test(test_flipped_across_relations),
		cmocka_unit_test(test_wrong_bytes),
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_compression),
	};

	return cmocka_run_group_tests(tests, testfixture_setup, testfixture_teardown);
}
