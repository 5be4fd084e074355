/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_pagestore.c: the page store against a model that keeps every version
 * of every page: random changes, truncations and drops, read back at random
 * LSNs, across writes, reopenings, kill -9, garbage collection; damage.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <rocksdb/c.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/au_page.h"
#include "store/au_bundle.h"
#include "tests/testdir.h"
#include "tests/testfixture.h"
#include "tests/teststore.h"

#define RELS 3
#define BLOCKS 12
#define SYSID 4242
#define START ((AuLsn) 1000)
#define STEP 16					/* between the ends of two records */

/* ---- a log of random records, reproducible by seed -------------------- */

typedef struct Rec
{
	AuLsn		end;
	int			kind;			/* 0 change, 1 truncate, 2 drop, 3 drop database,
								 * 4 file made anew */
	uint32_t	rel;
	uint32_t	blk[2];
	int			nblocks;
	uint32_t	cut;
	uint8_t    *ops[2];
	uint32_t	len[2];
} Rec;

typedef struct Log
{
	Rec		   *recs;
	int			n;
	uint64_t	rng;
	/* while generating: what exists */
	uint32_t	size[RELS];
	bool		live[RELS][BLOCKS];
	uint16_t	items[RELS][BLOCKS];
} Log;

static uint32_t
rnd(Log *log, uint32_t n)
{
	log->rng ^= log->rng << 13;
	log->rng ^= log->rng >> 7;
	log->rng ^= log->rng << 17;
	return (uint32_t) (log->rng >> 20) % n;
}

static AuRelId
rel_id(uint32_t rel)
{
	return (AuRelId) {1663, rel == 0 ? 5 : 6, 16384 + rel, 0};
}

/* A change of a block: its birth, or bytes somewhere in it. */
static void
make_ops(Log *log, Rec *r, int i, uint32_t rel, uint32_t blk)
{
	uint8_t		memory[4096];
	uint8_t		bytes[600];
	AuOps		ops;

	au_ops_start(&ops, memory, sizeof(memory));
	for (size_t k = 0; k < sizeof(bytes); k++)
		bytes[k] = (uint8_t) rnd(log, 256);
	if (!log->live[rel][blk] || log->items[rel][blk] >= 12)
	{
		au_ops_init(&ops, 0);
		log->live[rel][blk] = true;
		log->items[rel][blk] = 0;
	}
	if (rnd(log, 3) == 0 || log->items[rel][blk] == 0)
		au_ops_add(&ops, ++log->items[rel][blk], (uint16_t) (40 + rnd(log, 500)), bytes);
	else
		au_ops_patch(&ops, (uint16_t) (8192 - 40 + rnd(log, 20)), (uint16_t) (1 + rnd(log, 16)), bytes);
	assert_false(ops.overflow);
	r->len[i] = ops.len;
	r->ops[i] = malloc(ops.len);
	memcpy(r->ops[i], ops.data, ops.len);
}

static void
make_rec(Log *log, Rec *r, int index, bool with_drops)
{
	uint32_t	dice = rnd(log, 200);
	uint32_t	rel = rnd(log, RELS);
	/* some pages are much hotter than others, so their chains get long */
	uint32_t	max = rnd(log, 4) == 0 ? BLOCKS : 2;

	memset(r, 0, sizeof(*r));
	r->end = START + (AuLsn) (index + 1) * STEP;
	r->rel = rel;
	if (dice == 0 && log->size[rel] > 0)
	{
		r->kind = 1;
		r->cut = rnd(log, log->size[rel] + 1);
		for (uint32_t b = r->cut; b < BLOCKS; b++)
			log->live[rel][b] = false;
		log->size[rel] = r->cut;
		return;
	}
	if (with_drops && dice <= 3)
	{
		r->kind = dice == 3 ? 4 : dice == 1 ? 2 : 3;
		for (uint32_t other = 0; other < RELS; other++)
			if (other == rel || (r->kind == 3 && (other == 0) == (rel == 0)))
			{
				memset(log->live[other], 0, sizeof(log->live[other]));
				log->size[other] = 0;
			}
		return;
	}
	r->nblocks = 1 + (rnd(log, 4) == 0);
	r->blk[0] = rnd(log, max);
	r->blk[1] = (r->blk[0] + 1 + rnd(log, BLOCKS - 1)) % BLOCKS;
	for (int i = 0; i < r->nblocks; i++)
	{
		make_ops(log, r, i, rel, r->blk[i]);
		if (r->blk[i] >= log->size[rel])
			log->size[rel] = r->blk[i] + 1;
	}
}

static void
log_make(Log *log, uint64_t seed, int n, bool with_drops)
{
	memset(log, 0, sizeof(*log));
	log->rng = seed * 0x9e3779b97f4a7c15ULL + 1;
	log->recs = calloc((size_t) n, sizeof(Rec));
	log->n = n;
	for (int i = 0; i < n; i++)
		make_rec(log, &log->recs[i], i, with_drops);
}

static void
log_free(Log *log)
{
	for (int i = 0; i < log->n; i++)
		for (int k = 0; k < log->recs[i].nblocks; k++)
			free(log->recs[i].ops[k]);
	free(log->recs);
}

/* ---- the model -------------------------------------------------------- */

/* Page as of lsn by applying the log from its beginning; false: none. */
static bool
model_page(const Log *log, uint32_t rel, uint32_t blk, AuLsn lsn, uint8_t *page, uint32_t *size)
{
	bool		exists = false;

	*size = 0;
	for (int i = 0; i < log->n && log->recs[i].end <= lsn; i++)
	{
		const Rec  *r = &log->recs[i];

		if (r->kind == 3 && (r->rel == 0) == (rel == 0))
		{
			*size = 0;
			exists = false;
		}
		if (r->rel != rel || r->kind == 3)
			continue;
		if (r->kind != 0)
		{
			uint32_t	cut = r->kind == 1 ? r->cut : 0;

			*size = cut < *size ? cut : *size;
			exists = exists && blk < cut;
			continue;
		}
		for (int k = 0; k < r->nblocks; k++)
		{
			if (r->blk[k] >= *size)
				*size = r->blk[k] + 1;
			if (r->blk[k] != blk)
				continue;
			if (!exists)
				memset(page, 0, AU_PAGE_SIZE);
			exists = true;
			assert_int_equal(au_page_apply(page, r->ops[k], r->len[k], NULL), AU_OK);
			au_page_set_lsn(page, r->end);
		}
	}
	return exists;
}

static void
compare_at(AuPageStore *ps, const Log *log, uint32_t rel, uint32_t blk, AuLsn lsn, bool newest)
{
	uint8_t		want[AU_PAGE_SIZE],
				got[AU_PAGE_SIZE];
	uint32_t	want_size,
				size;
	AuPageId	id = {rel_id(rel), blk};
	bool		exists = model_page(log, rel, blk, lsn, want, &want_size);
	AuStatus	status;

	if (au_pagestore_size(ps, &id.rel, newest ? AU_LSN_MAX : lsn, &size) != AU_OK)
		fail_msg("size: %s", au_pagestore_error(ps));
	if (size != want_size)
		fail_msg("relation %u at %u: size %u, expected %u", rel, (unsigned) lsn, size, want_size);
	status = au_pagestore_read(ps, &id, newest ? AU_LSN_MAX : lsn, got);
	if (status != (exists ? AU_OK : AU_NOT_FOUND))
		fail_msg("relation %u block %u at %u: %s (%s), expected %s", rel, blk, (unsigned) lsn,
				 au_status_name(status), au_pagestore_error(ps), exists ? "a page" : "none");
	if (exists && memcmp(want, got, AU_PAGE_SIZE) != 0)
		fail_msg("relation %u block %u at %u: page differs (LSN %u, expected %u)", rel, blk,
				 (unsigned) lsn, (unsigned) au_page_lsn(got), (unsigned) au_page_lsn(want));
}

static void
compare_all(AuPageStore *ps, const Log *log, AuLsn lsn)
{
	for (uint32_t rel = 0; rel < RELS; rel++)
		for (uint32_t blk = 0; blk < BLOCKS; blk++)
			compare_at(ps, log, rel, blk, lsn, true);
}

/* ---- driving the store ------------------------------------------------ */


static AuPageStore *
store_open(uint64_t retention)
{
	return teststore_open(dir, SYSID, START, retention);
}

static AuStatus
store_take(AuPageStore *ps, const Rec *r)
{
	static const int kinds[] = {
		AU_WAL_OURS, AU_WAL_OURS, AU_WAL_DROP_RELS, AU_WAL_DROP_DB, AU_WAL_NEW_REL
	};
	static AuWalRecord w;
	AuRelId		drop = rel_id(r->rel);

	memset(&w, 0, sizeof(w));
	w.end = r->end;
	w.lsn = r->end - STEP;
	w.kind = kinds[r->kind];
	if (r->kind >= 2)
	{
		if (r->kind == 3)
			drop.rel = 0;
		w.ndrop = 1;
		w.drop = &drop;
	}
	if (r->kind == 1)
	{
		w.main.flags = AU_REC_TRUNCATE;
		w.main.truncate_rel = drop;
		w.main.truncate_nblocks = r->cut;
	}
	w.nblocks = r->nblocks;
	for (int k = 0; k < r->nblocks; k++)
	{
		w.blocks[k].page = (AuPageId) {drop, r->blk[k]};
		w.blocks[k].data = r->ops[k];
		w.blocks[k].data_len = r->len[k];
	}
	au_pagestore_set_applied(ps, r->end);
	return au_pagestore_apply(ps, &w);
}

/* Index of the first record that is not in the store. */
static int
next_record(const AuPageStore *ps)
{
	return (int) ((au_pagestore_applied_lsn(ps) - START) / STEP);
}

/* ---- tests ------------------------------------------------------------ */

static void
random_history(uint64_t seed, int n, int write_every)
{
	Log			log;
	AuPageStore *ps;

	log_make(&log, seed, n, true);
	testdir_remove(dir);
	ps = store_open(1 << 30);
	for (int i = 0; i < n; i++)
	{
		if (store_take(ps, &log.recs[i]) != AU_OK)
			fail_msg("record %d: %s", i, au_pagestore_error(ps));
		if (rnd(&log, (uint32_t) write_every) == 0)
			teststore_write(ps, log.recs[i].end, rnd(&log, 3) == 0);
		for (int k = 0; k < 2; k++)
		{
			int			at = (int) rnd(&log, (uint32_t) (i + 1));

			compare_at(ps, &log, rnd(&log, RELS), rnd(&log, BLOCKS), log.recs[at].end, false);
		}
		if (i % 97 == 0)
			compare_all(ps, &log, log.recs[i].end);
		if (rnd(&log, 400) == 0)
		{
			/* a clean restart: everything written */
			teststore_write(ps, log.recs[i].end, true);
			au_pagestore_close(ps);
			ps = store_open(1 << 30);
			assert_int_equal(next_record(ps), i + 1);
		}
	}
	compare_all(ps, &log, log.recs[n - 1].end);
	au_pagestore_close(ps);
	log_free(&log);
}

static void
test_random_history(void **state)
{
	(void) state;
	for (uint64_t seed = 1; seed <= 6; seed++)
		random_history(seed, 1500, seed % 2 ? 20 : 150);
}

/* A frozen generation is read while it is (not yet, or already) in RocksDB. */
static void
test_reads_while_writing(void **state)
{
	Log			log;
	AuPageStore *ps;
	char		err[512];

	(void) state;
	log_make(&log, 77, 900, true);
	testdir_remove(dir);
	ps = store_open(1 << 30);
	for (int i = 0; i < log.n; i++)
	{
		assert_int_equal(store_take(ps, &log.recs[i]), AU_OK);
		if (i % 150 == 100)
			assert_true(au_pagestore_freeze(ps, log.recs[i].end, log.recs[i].end));
		if (i % 150 == 120)
			assert_int_equal(au_pagestore_write(ps, false, err, sizeof(err)), AU_OK);
		if (i % 150 == 140)
			au_pagestore_written(ps, AU_OK);
		if (i % 10 == 0)
			for (int k = 0; k < 20; k++)
				compare_at(ps, &log, rnd(&log, RELS), rnd(&log, BLOCKS),
						   log.recs[rnd(&log, (uint32_t) i + 1)].end, false);
	}
	compare_all(ps, &log, log.recs[log.n - 1].end);
	au_pagestore_close(ps);
	log_free(&log);
}

/* What the child does until it kills itself; its memtables are then gone.  A
 * process of its own (RocksDB's threads do not survive a fork). */
static void
child(uint64_t seed, int upto)
{
	Log			log;
	AuPageStore *ps;

	log_make(&log, seed, 1200, true);
	log.rng += (uint64_t) upto;
	ps = store_open(1 << 30);
	for (int i = next_record(ps); i < upto; i++)
	{
		if (store_take(ps, &log.recs[i]) != AU_OK)
			_exit(9);
		if (rnd(&log, 30) == 0)
			teststore_write(ps, log.recs[i].end, rnd(&log, 4) == 0);
		if (i % 13 == 0)
		{
			uint8_t		page[AU_PAGE_SIZE];
			AuPageId	id = {rel_id(rnd(&log, RELS)), rnd(&log, BLOCKS)};

			(void) au_pagestore_read(ps, &id, AU_LSN_MAX, page);
		}
	}
	kill(getpid(), SIGKILL);
}

static void
run_child(uint64_t seed, int upto)
{
	char		seed_text[32];
	char		upto_text[32];
	char	   *args[] = {"test_pagestore", "child", dir, seed_text, upto_text, NULL};

	snprintf(seed_text, sizeof(seed_text), "%u", (unsigned) seed);
	snprintf(upto_text, sizeof(upto_text), "%d", upto);
	testfixture_run_child(args);
}

static void
test_kill(void **state)
{
	int			lost = 0;

	(void) state;
	for (uint64_t seed = 100; seed < 106; seed++)
	{
		Log			log;
		AuPageStore *ps;
		int			progress = 0;

		log_make(&log, seed, 1200, true);
		testdir_remove(dir);
		for (int round = 0; round < 8; round++)
		{
			int			upto = progress + 1 + (int) rnd(&log, 400);

			upto = upto > log.n ? log.n : upto;
			run_child(seed, upto);
			/* what is there is a prefix, right at every LSN */
			ps = store_open(1 << 30);
			progress = next_record(ps);
			lost += upto - progress;
			for (int k = 0; k < 150 && progress > 0; k++)
				compare_at(ps, &log, rnd(&log, RELS), rnd(&log, BLOCKS),
						   log.recs[rnd(&log, (uint32_t) progress)].end, false);
			if (progress > 0)
				compare_all(ps, &log, log.recs[progress - 1].end);
			au_pagestore_close(ps);
		}
		/* the rest of the log, and everything is as it should be */
		ps = store_open(1 << 30);
		for (int i = next_record(ps); i < log.n; i++)
			assert_int_equal(store_take(ps, &log.recs[i]), AU_OK);
		compare_all(ps, &log, log.recs[log.n - 1].end);
		for (int k = 0; k < 300; k++)
			compare_at(ps, &log, rnd(&log, RELS), rnd(&log, BLOCKS),
					   log.recs[rnd(&log, (uint32_t) log.n)].end, false);
		au_pagestore_close(ps);
		log_free(&log);
	}
	assert_true(lost > 0);		/* else the kills tested nothing */
}

static void
check_problem(void *ctx, const char *problem)
{
	(void) ctx;
	print_message("%s\n", problem);
}

/* With a short retention what was dropped goes, and nothing else. */
static void
test_gc(void **state)
{
	Log			log;
	AuPageStore *ps;
	AuPageStoreStats stats;
	AuPageStoreCheck check;
	char		err[512];

	(void) state;
	log_make(&log, 5, 4000, true);
	testdir_remove(dir);
	ps = store_open(100 * STEP);
	for (int i = 0; i < log.n; i++)
	{
		AuLsn		horizon;

		assert_int_equal(store_take(ps, &log.recs[i]), AU_OK);
		if (i % 40 == 0)
			teststore_write(ps, log.recs[i].end, true);
		(void) au_pagestore_gc_step(ps);
		horizon = au_pagestore_horizon(ps);
		for (int k = 0; k < 3; k++)
		{
			AuLsn		lsn = log.recs[rnd(&log, (uint32_t) i + 1)].end;

			if (lsn >= horizon)
				compare_at(ps, &log, rnd(&log, RELS), rnd(&log, BLOCKS), lsn, false);
		}
		if (i % 500 == 499)
		{
			teststore_write(ps, log.recs[i].end, true);
			au_pagestore_close(ps);
			ps = store_open(100 * STEP);
			compare_all(ps, &log, log.recs[i].end);
		}
	}
	/* everything dropped, far in the past: nothing is left */
	for (uint32_t rel = 0; rel < RELS; rel++)
	{
		Rec			r = {.end = log.recs[log.n - 1].end + (rel + 1) * STEP,.kind = 2,.rel = rel};

		assert_int_equal(store_take(ps, &r), AU_OK);
	}
	teststore_write(ps, log.recs[log.n - 1].end + 2000 * STEP, true);
	while (au_pagestore_gc_step(ps))
		;
	au_pagestore_stats(ps, &stats);
	assert_int_equal(stats.relations, 0);
	assert_int_equal(stats.gc_waiting, 0);
	teststore_write(ps, log.recs[log.n - 1].end + 2001 * STEP, true);
	au_pagestore_close(ps);
	assert_int_equal(au_pagestore_check(dir, check_problem, NULL, &check, err, sizeof(err)), AU_OK);
	assert_int_equal(check.versions, 0);
	assert_int_equal(check.problems, 0);
	log_free(&log);
}

/* A relation with thousands of versions goes in steps of at most 2,000; then
 * nothing is left of it. */
static void
test_gc_steps(void **state)
{
	enum
	{
		VERSIONS = 7000
	};
	AuPageStore *ps;
	AuPageStoreStats stats;
	AuPageStoreCheck check;
	AuLsn		end = START;
	uint8_t		memory[AU_OPS_MAX];
	AuOps		ops;
	Rec			put = {.kind = 0,.nblocks = 1};
	Rec			drop = {.kind = 2};
	uint64_t	keys = 0;
	int			steps = 0;
	char		err[512];

	(void) state;
	testdir_remove(dir);
	ps = store_open(100 * STEP);
	au_ops_start(&ops, memory, sizeof(memory));
	au_ops_init(&ops, 0);
	put.ops[0] = ops.data;
	put.len[0] = (uint16_t) ops.len;
	for (uint32_t i = 0; i < VERSIONS; i++)
	{
		put.end = end += STEP;
		put.blk[0] = i;
		assert_int_equal(store_take(ps, &put), AU_OK);
		if (i % 700 == 699)
			teststore_write(ps, end, true);
	}
	drop.end = end += STEP;
	assert_int_equal(store_take(ps, &drop), AU_OK);
	end += 1000 * STEP;
	teststore_write(ps, end, true);
	for (bool more = true; more;)
	{
		more = au_pagestore_gc_step(ps);
		au_pagestore_stats(ps, &stats);
		assert_true(stats.gc_keys - keys <= 2000);
		keys = stats.gc_keys;
		steps += more;
	}
	assert_true(steps >= VERSIONS / 2000);
	assert_int_equal(stats.gc_keys, VERSIONS);
	assert_int_equal(stats.relations, 0);
	assert_int_equal(stats.gc_waiting, 0);
	teststore_write(ps, end + STEP, true);
	au_pagestore_close(ps);
	assert_int_equal(au_pagestore_check(dir, check_problem, NULL, &check, err, sizeof(err)), AU_OK);
	assert_int_equal(check.versions, 0);
	assert_int_equal(check.problems, 0);
}

/* A clean store passes the offline check and counts what is there. */
static void
test_check(void **state)
{
	Log			log;
	AuPageStore *ps;
	AuPageStoreCheck check;
	char		err[512];

	(void) state;
	log_make(&log, 9, 1500, false);
	testdir_remove(dir);
	ps = store_open(1 << 30);
	for (int i = 0; i < log.n; i++)
	{
		assert_int_equal(store_take(ps, &log.recs[i]), AU_OK);
		if (i % 100 == 99)
			teststore_write(ps, log.recs[i].end, true);
	}
	au_pagestore_close(ps);
	assert_int_equal(au_pagestore_check(dir, check_problem, NULL, &check, err, sizeof(err)), AU_OK);
	assert_int_equal(check.problems, 0);
	assert_int_equal(check.relations, RELS);
	assert_int_equal(check.pages, RELS * BLOCKS);
	assert_int_equal(check.applied, log.recs[log.n - 1].end);
	log_free(&log);
}

/* Each stored version of a page, damaged in turn: reads that need it say so,
 * and name page and LSN; other pages are read as ever. */
static void
test_damage(void **state)
{
	Log			log;
	AuPageStore *ps;
	AuPageStoreCheck check;
	rocksdb_options_t *o;
	rocksdb_writeoptions_t *wo;
	rocksdb_readoptions_t *ro;
	rocksdb_iterator_t *it;
	rocksdb_t  *db;
	char	   *dberr = NULL;
	char		err[512];
	AuPageId	id = {rel_id(1), 0};
	uint8_t		prefix[AU_KEY_LEN];
	uint8_t		page[AU_PAGE_SIZE];
	int			damaged = 0;

	(void) state;
	log_make(&log, 11, 400, false);
	testdir_remove(dir);
	ps = store_open(1 << 30);
	for (int i = 0; i < log.n; i++)
	{
		assert_int_equal(store_take(ps, &log.recs[i]), AU_OK);
		if (i % 50 == 49)
			teststore_write(ps, log.recs[i].end, true);
	}
	teststore_write(ps, log.recs[log.n - 1].end, true);
	au_pagestore_close(ps);

	o = rocksdb_options_create();
	db = rocksdb_open(o, dir, &dberr);
	assert_null(dberr);
	ro = rocksdb_readoptions_create();
	wo = rocksdb_writeoptions_create();
	it = rocksdb_create_iterator(db, ro);
	au_key_encode(prefix, AU_KS_PAGE, &id, AU_LSN_MAX);
	for (rocksdb_iter_seek(it, (char *) prefix, AU_KEY_LEN); rocksdb_iter_valid(it); rocksdb_iter_next(it))
	{
		size_t		klen,
					vlen;
		const char *key = rocksdb_iter_key(it, &klen);
		const char *value = rocksdb_iter_value(it, &vlen);
		char	   *copy;

		if (memcmp(key, prefix, AU_KEY_PAGE_LEN) != 0)
			break;
		copy = malloc(vlen);
		memcpy(copy, value, vlen);
		copy[vlen / 2] ^= 1;
		rocksdb_put(db, wo, key, klen, copy, vlen, &dberr);
		assert_null(dberr);
		free(copy);
		damaged++;
	}
	assert_true(damaged > 1);
	rocksdb_iter_destroy(it);
	rocksdb_readoptions_destroy(ro);
	rocksdb_writeoptions_destroy(wo);
	rocksdb_close(db);
	rocksdb_options_destroy(o);

	ps = store_open(1 << 30);
	assert_int_equal(au_pagestore_read(ps, &id, AU_LSN_MAX, page), AU_CORRUPT);
	assert_non_null(strstr(au_pagestore_error(ps), "block 0 of relation 1663/6/16385"));
	assert_non_null(strstr(au_pagestore_error(ps), "checksum"));
	compare_at(ps, &log, 0, 0, log.recs[log.n - 1].end, true);
	compare_at(ps, &log, 2, 1, log.recs[log.n - 1].end, true);
	au_pagestore_close(ps);
	assert_int_equal(au_pagestore_check(dir, check_problem, NULL, &check, err, sizeof(err)), AU_OK);
	assert_int_equal(check.problems, damaged);
	log_free(&log);
}

static void
test_refusals(void **state)
{
	AuPageStoreOptions opt = {
		.dir = dir,.system_identifier = SYSID + 1,.start_lsn = START,
		.pending_bytes = 1 << 20,.write_buffer_bytes = 1 << 20
	};
	AuPageStore *ps;
	Log			log;
	char		err[512];

	(void) state;
	log_make(&log, 21, 20, false);
	testdir_remove(dir);
	ps = store_open(0);
	for (int i = 0; i < log.n; i++)
		assert_int_equal(store_take(ps, &log.recs[i]), AU_OK);
	/* backwards in the log */
	assert_int_equal(store_take(ps, &log.recs[10]), AU_INVALID);
	assert_non_null(strstr(au_pagestore_error(ps), "comes after"));
	teststore_write(ps, log.recs[19].end, true);
	assert_int_equal(au_pagestore_persisted_applied(ps), log.recs[19].end);
	au_pagestore_close(ps);
	/* another system's */
	assert_int_equal(au_pagestore_open(&ps, &opt, err, sizeof(err)), AU_REFUSED);
	assert_non_null(strstr(err, "belongs to system identifier 4242"));
	/* replayed records are skipped */
	ps = store_open(0);
	for (int i = 0; i < log.n; i++)
		assert_int_equal(store_take(ps, &log.recs[i]), AU_OK);
	assert_false(au_pagestore_dirty(ps));
	au_pagestore_close(ps);
	log_free(&log);
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_history),
		cmocka_unit_test(test_reads_while_writing),
		cmocka_unit_test(test_kill),
		cmocka_unit_test(test_gc),
		cmocka_unit_test(test_gc_steps),
		cmocka_unit_test(test_check),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_refusals),
	};

	if (argc == 5 && strcmp(argv[1], "child") == 0)
	{
		snprintf(dir, sizeof(dir), "%s", argv[2]);
		child(strtoull(argv[3], NULL, 10), atoi(argv[4]));
	}
	return cmocka_run_group_tests(tests, testfixture_setup, testfixture_teardown);
}
