/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_history.c: thousands of (page, LSN, bytes) samples, taken from a model
 * while a random load ran, are read again after everything that moves page
 * versions about: writing, compaction, garbage collection, restart, kill -9.
 * Every one inside the retention must give the same bytes, every one outside
 * is refused by the horizon and by nothing else.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/au_crc32c.h"
#include "common/au_page.h"
#include "tests/testdir.h"
#include "tests/testfixture.h"
#include "tests/teststore.h"

#define RELS 3
#define BLOCKS 30
#define RECORDS 9000
#define STEP 32
#define START ((AuLsn) 0x1000)
#define RETENTION (5000 * STEP)
#define SAMPLES 6000
#define SYSID 77


typedef struct Sample
{
	AuLsn		lsn;
	uint32_t	rel;
	uint32_t	blk;
	uint32_t	size;			/* of the relation */
	bool		exists;
	uint32_t	crc;
} Sample;

/* The model and the source of random records: the same for the same seed. */
typedef struct Load
{
	uint64_t	rng;
	int			next;			/* record */
	uint32_t	size[RELS];
	bool		live[RELS][BLOCKS];
	uint8_t		page[RELS][BLOCKS][AU_PAGE_SIZE];
	Sample		samples[SAMPLES];
	int			nsamples;
} Load;

static uint32_t
rnd(Load *l, uint32_t n)
{
	l->rng ^= l->rng << 13;
	l->rng ^= l->rng >> 7;
	l->rng ^= l->rng << 17;
	return (uint32_t) (l->rng >> 20) % n;
}

static AuLsn
lsn_of(int i)
{
	return START + (AuLsn) (i + 1) * STEP;
}

static AuRelId
rel_id(uint32_t rel)
{
	return (AuRelId) {1663, 5, 16384 + rel, 0};
}

static void
cut(Load *l, uint32_t rel, uint32_t blocks)
{
	for (uint32_t b = blocks; b < BLOCKS; b++)
		l->live[rel][b] = false;
	if (blocks < l->size[rel])
		l->size[rel] = blocks;
}

static void
change(Load *l, AuWalRecord *w, uint8_t *memory, size_t cap, uint32_t rel)
{
	/* few hot pages, many cold ones */
	uint32_t	blk = rnd(l, 3) ? rnd(l, 3) : rnd(l, BLOCKS);
	uint8_t		bytes[300];
	AuOps		ops;

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t) rnd(l, 256);
	au_ops_start(&ops, memory, cap);
	if (!l->live[rel][blk] || rnd(l, 300) == 0)
		au_ops_init(&ops, 4000);
	au_ops_patch(&ops, (uint16_t) (4500 + rnd(l, 3300)), (uint16_t) (1 + rnd(l, 300)), bytes);
	assert_false(ops.overflow);
	if (!l->live[rel][blk])
		memset(l->page[rel][blk], 0, AU_PAGE_SIZE);
	l->live[rel][blk] = true;
	assert_int_equal(au_page_apply(l->page[rel][blk], ops.data, ops.len, NULL), AU_OK);
	au_page_set_lsn(l->page[rel][blk], w->end);
	if (blk >= l->size[rel])
		l->size[rel] = blk + 1;
	w->nblocks = 1;
	w->blocks[0].page = (AuPageId) {rel_id(rel), blk};
	w->blocks[0].data = ops.data;
	w->blocks[0].data_len = ops.len;
}

/* The next record, into the model and the store; may be skipped by a store
 * that has it. */
static void
step(Load *l, AuPageStore *ps)
{
	static AuWalRecord w;
	uint8_t		memory[1024];
	uint32_t	rel = rnd(l, RELS);
	uint32_t	dice = rnd(l, 600);
	AuRelId		drop = rel_id(rel);

	memset(&w, 0, sizeof(w));
	w.lsn = lsn_of(l->next) - STEP;
	w.end = lsn_of(l->next);
	w.kind = AU_WAL_OURS;
	if (dice == 0)
	{
		w.main.flags = AU_REC_TRUNCATE;
		w.main.truncate_rel = drop;
		w.main.truncate_nblocks = rnd(l, l->size[rel] + 1);
		cut(l, rel, w.main.truncate_nblocks);
	}
	else if (dice == 1)
	{
		w.kind = AU_WAL_DROP_RELS;
		w.ndrop = 1;
		w.drop = &drop;
		cut(l, rel, 0);
	}
	else
		change(l, &w, memory, sizeof(memory), rel);
	l->next++;
	if (l->nsamples < SAMPLES && rnd(l, RECORDS) < SAMPLES)
	{
		Sample	   *s = &l->samples[l->nsamples++];

		s->lsn = w.end;
		s->rel = rnd(l, RELS);
		s->blk = rnd(l, 2) ? rnd(l, 3) : rnd(l, BLOCKS);
		s->size = l->size[s->rel];
		s->exists = l->live[s->rel][s->blk];
		s->crc = s->exists ? au_crc32c(0, l->page[s->rel][s->blk], AU_PAGE_SIZE) : 0;
	}
	if (w.end > au_pagestore_applied_lsn(ps))
		au_pagestore_set_applied(ps, w.end);
	if (au_pagestore_apply(ps, &w) != AU_OK)
		fail_msg("record %d: %s", l->next - 1, au_pagestore_error(ps));
}

static int
compare(AuPageStore *ps, const Load *l, const char *when)
{
	uint8_t		page[AU_PAGE_SIZE];
	AuLsn		horizon = au_pagestore_horizon(ps);
	int			compared = 0;

	for (int i = 0; i < l->nsamples; i++)
	{
		const Sample *s = &l->samples[i];
		AuPageId	id = {rel_id(s->rel), s->blk};
		uint32_t	size;
		AuStatus	status;

		if (s->lsn < horizon)
			continue;
		assert_int_equal(au_pagestore_size(ps, &id.rel, s->lsn, &size), AU_OK);
		status = au_pagestore_read(ps, &id, s->lsn, page);
		if (size != s->size || status != (s->exists ? AU_OK : AU_NOT_FOUND) ||
			(s->exists && au_crc32c(0, page, AU_PAGE_SIZE) != s->crc))
			fail_msg("%s: relation %u block %u at %u: size %u (want %u), %s: %s", when, s->rel,
					 s->blk, (unsigned) s->lsn, size, s->size, au_status_name(status),
					 status == AU_OK ? "other bytes" : au_pagestore_error(ps));
		compared++;
	}
	return compared;
}

static void
write_now(Load *l, AuPageStore *ps, bool persist)
{
	if (lsn_of(l->next - 1) > au_pagestore_applied_lsn(ps))
		teststore_write(ps, lsn_of(l->next - 1), persist);
}

/* The way of `upto` records into the store, with all that a node does. */
static void
run(Load *l, AuPageStore *ps, int upto)
{
	while (l->next < upto)
	{
		step(l, ps);
		if (au_pagestore_full(ps) || l->next % 211 == 0)
			write_now(l, ps, l->next % 5 == 0);
		if (l->next % 50 == 0)
			(void) au_pagestore_gc_step(ps);
	}
}

static Load *
new_load(uint64_t seed)
{
	Load	   *l = calloc(1, sizeof(*l));

	assert_non_null(l);
	l->rng = seed * 0x9e3779b97f4a7c15ULL + 7;
	return l;
}

/* A process of its own, which kills itself with records in memory. */
static void
child(uint64_t seed, int upto)
{
	Load	   *l = new_load(seed);
	AuPageStore *ps = teststore_open(dir, SYSID, START, RETENTION);

	run(l, ps, upto);
	kill(getpid(), SIGKILL);
}

static void
run_child(uint64_t seed, int upto)
{
	char		seed_text[32];
	char		upto_text[32];
	char	   *args[] = {"test_history", "child", dir, seed_text, upto_text, NULL};

	snprintf(seed_text, sizeof(seed_text), "%u", (unsigned) seed);
	snprintf(upto_text, sizeof(upto_text), "%d", upto);
	testfixture_run_child(args);
}

static void
history(uint64_t seed)
{
	Load	   *l = new_load(seed);
	AuPageStore *ps;
	AuPageStoreStats stats;
	int			want;

	testdir_remove(dir);
	for (int i = 1; i <= 3; i++)
		run_child(seed, RECORDS * i / 4);
	ps = teststore_open(dir, SYSID, START, RETENTION);
	assert_true(au_pagestore_applied_lsn(ps) < lsn_of(RECORDS * 3 / 4));
	run(l, ps, RECORDS);
	want = compare(ps, l, "after the load");
	assert_true(want >= 2500 && want < l->nsamples);
	write_now(l, ps, true);
	assert_int_equal(compare(ps, l, "written"), want);
	au_pagestore_compact(ps);
	au_pagestore_stats(ps, &stats);
	assert_true(stats.gc_versions > 0);
	assert_int_equal(compare(ps, l, "compacted"), want);
	while (au_pagestore_gc_step(ps))
		;
	assert_int_equal(compare(ps, l, "collected"), want);
	au_pagestore_close(ps);
	ps = teststore_open(dir, SYSID, START, RETENTION);
	assert_int_equal(compare(ps, l, "restarted"), want);
	au_pagestore_compact(ps);
	assert_int_equal(compare(ps, l, "compacted again"), want);
	au_pagestore_close(ps);
	free(l);
}

static void
test_history(void **state)
{
	(void) state;
	for (uint64_t seed = 1; seed <= 3; seed++)
		history(seed);
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_history),
	};

	if (argc == 5 && strcmp(argv[1], "child") == 0)
	{
		snprintf(dir, sizeof(dir), "%s", argv[2]);
		child(strtoull(argv[3], NULL, 10), atoi(argv[4]));
	}
	return cmocka_run_group_tests(tests, testfixture_setup, testfixture_teardown);
}
