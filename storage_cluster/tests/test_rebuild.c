/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_rebuild.c: a page store made anew from another one's chunks has the same
 * history, with drops and truncations in it.  A repair that resurrects, planted
 * here, is found by what compares replicas.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/au_page.h"
#include "store/au_rebuild.h"
#include "tests/slices.h"
#include "tests/testdir.h"
#include "tests/teststore.h"

#define RECORDS 3000
#define RETENTION (500 * SL_STEP)

static char dir[200];
static char dirs[3][256];
static uint8_t chunk[AU_CHUNK_MAX];
static uint8_t careless[AU_CHUNK_MAX];
static uint8_t stale[AU_CHUNK_MAX];

static size_t
export_chunk(AuPageStore *from, uint8_t keyspace, const AuPlace *place, AuLsn upto, size_t budget,
			 uint8_t *out)
{
	AuExportSet set = {.keyspace = keyspace,.all = true};
	AuExport   *e;
	size_t		len;

	assert_int_equal(au_pagestore_export_begin(from, &set, upto, 0, place, &e), AU_OK);
	assert_int_equal(au_pagestore_export_work(e, out, budget, &len), AU_OK);
	au_pagestore_export_end(e);
	return len;
}

/* What a careless node would send: pages of `chunk`, and those that were cut
 * off since the `stale` one was made. */
static size_t
resurrect(size_t len, size_t stale_len, int *added)
{
	AuChunk		now,
				old;
	AuChunkEntry a,
				b;
	size_t		pa = 0,
				pb = 0,
				at = AU_CHUNK_HEADER;
	const char *why;
	uint8_t		last[AU_KEY_PAGE_LEN] = {0};
	bool		has_a,
				has_b;

	*added = 0;
	assert_int_equal(au_chunk_parse(chunk, len, &now, &why), AU_OK);
	assert_int_equal(au_chunk_parse(stale, stale_len, &old, &why), AU_OK);
	assert_true(now.done && old.done);
	now.count = 0;
	has_a = au_chunk_next(&now, &pa, &a);
	has_b = au_chunk_next(&old, &pb, &b);
	while (has_a || has_b)
	{
		int			order = !has_b ? -1 : !has_a ? 1 : memcmp(a.key, b.key, AU_KEY_PAGE_LEN);
		const AuChunkEntry *e = order <= 0 ? &a : &b;

		/* of pages that are still there, nothing old */
		if (order <= 0 || memcmp(last, b.key, AU_KEY_PAGE_LEN) != 0)
		{
			size_t		n = AU_CHUNK_ENTRY + e->len;

			memcpy(careless + at, e->key, n);
			at += n;
			now.count++;
			*added += order > 0;
		}
		if (order <= 0)
		{
			memcpy(last, a.key, AU_KEY_PAGE_LEN);
			has_a = au_chunk_next(&now, &pa, &a);
		}
		else
			has_b = au_chunk_next(&old, &pb, &b);
	}
	now.entries_len = at - AU_CHUNK_HEADER;
	return au_chunk_finish(careless, &now);
}

/* stale_len > 0: with the mistake.  Returns pages that came back. */
static int
rebuild(AuPageStore *from, const char *to, size_t budget, size_t stale_len)
{
	AuPageStoreOptions opt = {
		.dir = to,.system_identifier = SL_SYSID,.start_lsn = SL_START,
		.pending_bytes = 64 * 1024,.write_buffer_bytes = 256 * 1024,.retention_bytes = RETENTION
	};
	AuStorePosition *position = calloc(1, sizeof(*position));
	AuSliceSet	all;
	AuRebuild  *r;
	AuPlace		place;
	uint8_t		keyspace;
	char		err[512];
	int			added = 0;

	memset(&all, 0xFF, sizeof(all));
	au_pagestore_position(from, position);
	testdir_remove(to);
	if (au_rebuild_begin(&r, &opt, position, &all, err, sizeof(err)) != AU_OK)
		fail_msg("begin: %s", err);
	while (au_rebuild_want(r, &keyspace, &place))
	{
		bool		bad = stale_len > 0 && keyspace == AU_KS_PAGE;
		size_t		len = export_chunk(from, keyspace, &place, position->applied,
									   bad ? AU_CHUNK_MAX / 2 : budget, chunk);
		AuStatus	status;

		if (bad)
			len = resurrect(len, stale_len, &added);
		status = au_rebuild_take(r, bad ? careless : chunk, len, err, sizeof(err));
		if (status != AU_OK)
			fail_msg("take: %s", err);
	}
	assert_true(au_rebuild_bytes(r) > 0);
	au_rebuild_end(r);
	free(position);
	return added;
}

static int
differences(AuPageStore *a, AuPageStore *b, AuLsn lsn)
{
	int			n = 0;

	for (uint32_t s = 0; s < AU_SLICES; s++)
	{
		AuPageStore *both[2] = {a, b};
		uint64_t	root[2];

		for (int k = 0; k < 2; k++)
		{
			AuDigest   *d = au_pagestore_digest_begin(both[k], s, AU_MERKLE_LEAVES, NULL, lsn);
			const AuDigestPage *pages;
			uint32_t	count;

			assert_non_null(d);
			while (au_pagestore_digest_next(d))
			{
				(void) au_pagestore_digest_work(d);
				assert_int_equal(au_pagestore_digest_take(d, &pages, &count), AU_OK);
			}
			root[k] = au_merkle_root(au_pagestore_digest_tree(d));
			au_pagestore_digest_end(d);
		}
		n += root[0] != root[1];
	}
	return n;
}

/* All relations grow beyond their ends, by one block that leaves a hole: what
 * was in the hole before must not come back.  Returns the LSN. */
static AuLsn
extend_all(AuPageStore *ps)
{
	static AuWalRecord w;
	uint8_t		memory[64];
	AuOps		ops;

	for (uint32_t r = 0; r < SL_RELS; r++)
	{
		memset(&w, 0, sizeof(w));
		au_ops_start(&ops, memory, sizeof(memory));
		au_ops_init(&ops, 4000);
		w.kind = AU_WAL_OURS;
		w.end = sl_lsn(RECORDS + (int) r);
		w.lsn = w.end - SL_STEP;
		w.nblocks = 1;
		w.blocks[0].page = sl_page(r, SL_PAGES - 1);
		w.blocks[0].page.blk += 1;
		w.blocks[0].data = ops.data;
		w.blocks[0].data_len = ops.len;
		assert_int_equal(au_pagestore_apply(ps, &w), AU_OK);
		au_pagestore_set_applied(ps, w.end);
	}
	teststore_write(ps, w.end, true);
	return w.end;
}

/* `stale` is what a node had a third of the log ago, drops and truncations that
 * are collected by now not yet among it. */
static void
test_rebuild(void **state)
{
	int			resurrected = 0;
	int			found = 0;
	AuPlace		first = au_place_first(AU_KS_PAGE);

	(void) state;
	/* what came back is to be seen only where a relation grew over it */
	for (uint64_t seed = 1; seed <= 40 && found == 0; seed++)
	{
		SlLoad	   *load = sl_new(seed, RECORDS);
		AuPageStore *from,
				   *anew;
		size_t		stale_len = 0;
		AuLsn		last;

		testdir_remove(dir);
		assert_int_equal(mkdir(dir, 0700), 0);
		from = teststore_open(dirs[0], SL_SYSID, SL_START, RETENTION);
		for (int i = 0; i < RECORDS; i++)
		{
			sl_more(load);
			sl_apply(load, from, i);
			if (au_pagestore_full(from) || i % 500 == 499)
				teststore_write(from, sl_lsn(i), i % 1000 == 999);
			if (i == RECORDS - 1001)
				stale_len = export_chunk(from, AU_KS_PAGE, &first, au_pagestore_written_lsn(from),
										 AU_CHUNK_MAX / 2, stale);
		}
		last = extend_all(from);
		while (au_pagestore_gc_step(from))
			;
		rebuild(from, dirs[1], 3000, 0);
		anew = teststore_open(dirs[1], SL_SYSID, SL_START, RETENTION);
		assert_int_equal(au_pagestore_applied_lsn(anew), last);
		assert_true(sl_compare(load, anew, sl_lsn(RECORDS - 1), "made anew") > 50);
		for (int i = RECORDS - 400; i < RECORDS; i += 57)
			assert_int_equal(differences(from, anew, sl_lsn(i)), 0);
		assert_int_equal(differences(from, anew, last), 0);
		au_pagestore_close(anew);

		/* with the mistake */
		resurrected += rebuild(from, dirs[2], 3000, stale_len);
		anew = teststore_open(dirs[2], SL_SYSID, SL_START, RETENTION);
		found += differences(from, anew, last);
		au_pagestore_close(anew);
		au_pagestore_close(from);
		sl_free(load);
	}
	printf("%d versions came back, %d slices differ\n", resurrected, found);
	assert_true(resurrected > 0);
	assert_true(found > 0);
	testdir_remove(dir);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rebuild),
	};

	snprintf(dir, sizeof(dir), "/tmp/au_rebuild.%ld", (long) getpid());
	for (int i = 0; i < 3; i++)
		snprintf(dirs[i], sizeof(dirs[i]), "%s/%d", dir, i);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
