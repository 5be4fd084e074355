/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_slices.c: slices that come to a page store and go, while it takes log:
 * whatever is kept reads the same as in a model, at every LSN, also after
 * kill -9 in the middle of an import or of dropping; what is damaged is
 * refused.
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

#include "store/au_chunk.h"
#include "tests/slices.h"
#include "tests/testdir.h"
#include "tests/testfixture.h"

#define RECORDS 6000
#define RETENTION (4000 * SL_STEP)
#define BUDGET 20000			/* of a chunk: many of them */


/* Two stores that keep all, bundled differently, and one whose slices come
 * and go.  `rng` is of what is done; the load has its own. */
typedef struct World
{
	SlLoad	   *load;
	uint64_t	rng;
	AuPageStore *full[2];
	AuPageStore *ps;
	int			fed;			/* records that ps has taken */
	int			imports;		/* ended */
	int			drops;
	int			gone;			/* imports given up */
	int			scrubs;			/* whole walks */
	uint8_t    *chunk;
	char		dirs[3][240];
} World;

static void
open_all(World *w, uint64_t seed, uint64_t actions, const char *own)
{
	memset(w, 0, sizeof(*w));
	w->load = sl_new(seed, RECORDS);
	w->rng = actions * 0x9e3779b97f4a7c15ULL + 5;
	w->chunk = malloc(AU_CHUNK_MAX);
	assert_non_null(w->chunk);
	for (int i = 0; i < 3; i++)
		snprintf(w->dirs[i], sizeof(w->dirs[i]), "%s/%s%d", dir, i == 2 ? "own" : own, i);
	for (int i = 0; i < 2; i++)
	{
		testdir_remove(w->dirs[i]);
		w->full[i] = teststore_open(w->dirs[i], SL_SYSID, SL_START, RETENTION);
	}
	w->ps = teststore_open(w->dirs[2], SL_SYSID, SL_START, RETENTION);
	w->fed = sl_index(au_pagestore_restart_lsn(w->ps)) + 1;
}

static void
close_all(World *w)
{
	for (int i = 0; i < 2; i++)
		au_pagestore_close(w->full[i]);
	au_pagestore_close(w->ps);
	sl_free(w->load);
	free(w->chunk);
}

static void
write_store(const SlLoad *l, AuPageStore *ps, int fed, bool persist)
{
	(void) l;
	if (fed > 0 && sl_lsn(fed - 1) >= au_pagestore_applied_lsn(ps))
		teststore_write(ps, sl_lsn(fed - 1), persist);
}

/* The next chunk of what is incoming, from one of the full stores. */
static void
import_one(World *w)
{
	AuPageStore *from = w->full[sl_random(&w->rng, 2)];
	AuSlicesState state;
	AuExportSet set = {.keyspace = AU_KS_PAGE};
	AuImported imported;
	AuExport   *e;
	size_t		len;
	char		err[512];
	AuStatus	status;

	au_pagestore_slices(w->ps, &state);
	if (!au_pagestore_import_ready(w->ps))
		return;
	if (state.done)
	{
		au_pagestore_import_finish(w->ps);
		w->imports++;
		sl_compare(w->load, w->ps, sl_lsn(w->fed - 1), "imported");
		return;
	}
	set.slices = state.incoming;
	status = au_pagestore_export_begin(from, &set, state.since, au_pagestore_horizon(w->ps),
									   &state.place, &e);
	if (status == AU_NEED_MORE)
	{
		write_store(w->load, from, w->load->nrecords, false);
		return;
	}
	if (status == AU_GONE)
	{
		au_pagestore_slices_drop(w->ps, &state.incoming);
		w->gone++;
		return;
	}
	assert_int_equal(status, AU_OK);
	status = au_pagestore_export_work(e, w->chunk, BUDGET, &len);
	if (status != AU_OK)
		fail_msg("export: %s", au_pagestore_export_error(e));
	au_pagestore_export_end(e);
	assert_true(len < BUDGET + 150000);
	status = au_pagestore_import_write(w->ps, w->chunk, len, &imported, err, sizeof(err));
	if (status != AU_OK)
		fail_msg("import: %s", err);
	au_pagestore_imported(w->ps, &imported);
}

/* Now and then slices go, or others are wanted. */
static void
change_slices(World *w)
{
	AuSlicesState state;
	AuSliceSet	set = {{0}};
	uint32_t	part = 2 + sl_random(&w->rng, 6);
	bool		drop = sl_random(&w->rng, 2);

	au_pagestore_slices(w->ps, &state);
	for (uint32_t s = 0; s < AU_SLICES; s++)
		if (sl_random(&w->rng, part) == 0 &&
			au_slices_has(&state.kept, s) == drop && !au_slices_has(&state.dropping, s) &&
			!au_slices_has(&state.incoming, s))
			au_slices_add(&set, s);
	if (drop)
	{
		/* sometimes an import is given up */
		if (sl_random(&w->rng, 4) == 0)
			for (int i = 0; i < AU_SLICES / 64; i++)
				set.bits[i] |= state.incoming.bits[i];
		au_pagestore_slices_drop(w->ps, &set);
		w->drops++;
	}
	else if (!au_pagestore_slices_keep(w->ps, &set))
		return;
	if (sl_random(&w->rng, 2))
		write_store(w->load, w->ps, w->fed, false);
}

static void
note(void *ctx, const char *problem)
{
	fail_msg("%s says: %s", (const char *) ctx, problem);
}

/* A step of the scrubber, of one page: the next one begins at any page, also
 * of slices that come meanwhile. */
static void
scrub_one(World *w)
{
	AuPageScrub *s = au_pagestore_scrub_begin(w->ps);

	assert_non_null(s);
	(void) au_pagestore_scrub_work(s, 1);
	w->scrubs += au_pagestore_scrub_end(s, note, "the scrubber");
}

/* Feeds what there is, and does what a node would do. */
static void
act(World *w)
{
	while (w->fed < w->load->nrecords)
	{
		sl_apply(w->load, w->ps, w->fed++);
		if (sl_random(&w->rng, 40) == 0)
			write_store(w->load, w->ps, w->fed, sl_random(&w->rng, 3) == 0);
	}
	if (sl_random(&w->rng, 100) == 0)
		write_store(w->load, w->ps, w->fed, sl_random(&w->rng, 3) == 0);
	if (sl_random(&w->rng, 8) == 0)
		import_one(w);
	if (sl_random(&w->rng, 150) == 0)
		change_slices(w);
	if (sl_random(&w->rng, 10) == 0)
		(void) au_pagestore_slices_step(w->ps);
	if (sl_random(&w->rng, 20) == 0)
		(void) au_pagestore_gc_step(w->ps);
	if (sl_random(&w->rng, 900) == 0)
		au_pagestore_compact(w->ps);
	if (sl_random(&w->rng, 1500) == 0)
		sl_compare(w->load, w->ps, sl_lsn(w->fed - 1), "meanwhile");
	scrub_one(w);
}

static void
run(World *w, int upto, bool with_own)
{
	while (w->load->nrecords < upto)
	{
		int			i = w->load->nrecords;

		sl_more(w->load);
		for (int k = 0; k < 2; k++)
		{
			sl_apply(w->load, w->full[k], i);
			if (i % (k == 0 ? 211 : 89) == 0)
				write_store(w->load, w->full[k], i + 1, false);
			if (i % (k == 0 ? 70 : 700) == 0)
				(void) au_pagestore_gc_step(w->full[k]);
		}
		if (with_own)
			act(w);
	}
}

/* Everything that is still to come in or go. */
static void
settle(World *w)
{
	AuSlicesState state;
	AuSliceSet	none = {{0}};
	AuSliceSet	want;
	int			rounds = 0;

	for (;;)
	{
		assert_true(++rounds < 100000);
		write_store(w->load, w->ps, w->fed, false);
		while (au_pagestore_slices_step(w->ps))
			;
		write_store(w->load, w->ps, w->fed, false);
		import_one(w);
		au_pagestore_slices(w->ps, &state);
		if (memcmp(&state.dropping, &none, sizeof(none)) != 0 ||
			memcmp(&state.incoming, &none, sizeof(none)) != 0)
			continue;
		for (int i = 0; i < AU_SLICES / 64; i++)
			want.bits[i] = ~state.kept.bits[i];
		if (memcmp(&want, &none, sizeof(none)) == 0)
			return;
		assert_true(au_pagestore_slices_keep(w->ps, &want));
	}
}

static void
check_offline(World *w)
{
	AuPageStoreCheck out;
	char		err[512];

	au_pagestore_close(w->ps);
	assert_int_equal(au_pagestore_check(w->dirs[2], note, "the check", &out, err, sizeof(err)), AU_OK);
	assert_int_equal(out.problems, 0);
	w->ps = teststore_open(w->dirs[2], SL_SYSID, SL_START, RETENTION);
	w->fed = sl_index(au_pagestore_restart_lsn(w->ps)) + 1;
}

static void
test_moving(void **state)
{
	int			imports = 0;
	int			compared = 0;

	(void) state;
	for (uint64_t seed = 1; seed <= 2; seed++)
	{
		World		w;

		testdir_remove(dir);
		assert_int_equal(mkdir(dir, 0700), 0);
		open_all(&w, seed, seed, "full");
		run(&w, RECORDS / 2, true);
		check_offline(&w);
		run(&w, RECORDS, true);
		compared += sl_compare(w.load, w.ps, sl_lsn(RECORDS - 1), "at the end");
		imports += w.imports;
		assert_true(w.scrubs >= 10);
		settle(&w);
		au_pagestore_compact(w.ps);
		while (au_pagestore_gc_step(w.ps))
			;
		compared += sl_compare(w.load, w.ps, sl_lsn(RECORDS - 1), "settled");
		check_offline(&w);
		close_all(&w);
	}
	assert_true(imports >= 10);
	assert_true(compared > 6000);
}

/* A process of its own, which kills itself in the middle. */
static void
child(uint64_t seed, uint64_t actions, int upto)
{
	World		w;

	open_all(&w, seed, actions, "child");
	run(&w, upto, true);
	kill(getpid(), SIGKILL);
}

static void
run_child(uint64_t seed, uint64_t actions, int upto)
{
	char		texts[3][32];
	char	   *args[] = {"test_slices", "child", dir, texts[0], texts[1], texts[2], NULL};

	snprintf(texts[0], sizeof(texts[0]), "%u", (unsigned) seed);
	snprintf(texts[1], sizeof(texts[1]), "%u", (unsigned) actions);
	snprintf(texts[2], sizeof(texts[2]), "%d", upto);
	testfixture_run_child(args);
}

static void
test_killed(void **state)
{
	(void) state;
	for (uint64_t seed = 11; seed <= 12; seed++)
	{
		World		w;

		testdir_remove(dir);
		assert_int_equal(mkdir(dir, 0700), 0);
		for (int i = 1; i <= 6; i++)
			run_child(seed, seed * 100 + (uint64_t) i, 700 * i + (int) (seed * 37 * (uint64_t) i) % 400);
		open_all(&w, seed, seed, "full");
		run(&w, 5000, false);
		act(&w);
		sl_compare(w.load, w.ps, sl_lsn(w.fed - 1), "after the kills");
		run(&w, RECORDS, true);
		settle(&w);
		assert_true(sl_compare(w.load, w.ps, sl_lsn(RECORDS - 1), "settled") > 2000);
		check_offline(&w);
		close_all(&w);
	}
}

/* Versions behind the place where the next chunk begins would be there twice:
 * bundled otherwise, perhaps, if another store gives that one. */
static void
check_beyond(World *w, size_t len)
{
	uint8_t    *copy = malloc(len);
	AuImported	imported;
	AuChunkEntry first;
	AuChunk		c;
	const char *why;
	size_t		pos = 0;
	char		err[512];

	assert_non_null(copy);
	memcpy(copy, w->chunk, len);
	assert_int_equal(au_chunk_parse(copy, len, &c, &why), AU_OK);
	assert_true(c.count > 1 && au_chunk_next(&c, &pos, &first));
	memcpy(c.next.key, first.key, AU_KEY_LEN);
	assert_int_equal(au_chunk_finish(copy, &c), len);
	assert_int_equal(au_pagestore_import_write(w->ps, copy, len, &imported, err, sizeof(err)),
					 AU_CORRUPT);
	assert_non_null(strstr(err, "out of place"));
	free(copy);
}

/* A chunk with any byte changed, or of the wrong place, is not taken. */
static void
test_damage(void **state)
{
	AuExportSet set = {.keyspace = AU_KS_PAGE,.all = true};
	AuPlace		from = au_place_first(AU_KS_PAGE);
	AuSliceSet	all;
	AuImported imported;
	AuExport   *e;
	World		w;
	size_t		len;
	char		err[512];

	(void) state;
	testdir_remove(dir);
	assert_int_equal(mkdir(dir, 0700), 0);
	open_all(&w, 21, 21, "full");
	run(&w, 600, false);
	/* what is applied, but in memory only, is not exported */
	assert_int_equal(au_pagestore_export_begin(w.full[0], &set, sl_lsn(599), 0, &from, &e),
					 AU_NEED_MORE);
	write_store(w.load, w.full[0], 600, false);
	while (w.fed < 600)
		sl_apply(w.load, w.ps, w.fed++);
	memset(&all, 0xFF, sizeof(all));
	au_pagestore_slices_drop(w.ps, &all);
	write_store(w.load, w.ps, w.fed, false);
	while (au_pagestore_slices_step(w.ps))
		;
	assert_true(au_pagestore_slices_keep(w.ps, &all));
	assert_int_equal(au_pagestore_export_begin(w.full[0], &set, sl_lsn(599) + 1, 0, &from, &e),
					 AU_NEED_MORE);
	assert_int_equal(au_pagestore_export_begin(w.ps, &set, sl_lsn(599), 0, &from, &e), AU_MOVED);
	assert_int_equal(au_pagestore_export_begin(w.full[0], &set, sl_lsn(599), 0, &from, &e), AU_OK);
	assert_int_equal(au_pagestore_export_work(e, w.chunk, BUDGET, &len), AU_OK);
	au_pagestore_export_end(e);

	/* not before the state is written */
	assert_int_equal(au_pagestore_import_write(w.ps, w.chunk, len, &imported, err, sizeof(err)),
					 AU_INVALID);
	write_store(w.load, w.ps, w.fed, false);
	for (int i = 0; i < 3000; i++)
	{
		size_t		at = sl_random(&w.rng, (uint32_t) len);
		uint8_t		was = w.chunk[at];

		w.chunk[at] ^= (uint8_t) (1 + sl_random(&w.rng, 255));
		assert_int_not_equal(au_pagestore_import_write(w.ps, w.chunk, len, &imported, err,
													   sizeof(err)), AU_OK);
		w.chunk[at] = was;
		assert_int_not_equal(au_pagestore_import_write(w.ps, w.chunk,
													   sl_random(&w.rng, (uint32_t) len), &imported,
													   err, sizeof(err)), AU_OK);
	}
	check_beyond(&w, len);
	assert_int_equal(au_pagestore_import_write(w.ps, w.chunk, len, &imported, err, sizeof(err)),
					 AU_OK);
	au_pagestore_imported(w.ps, &imported);
	/* the same once more is out of place */
	assert_int_equal(au_pagestore_import_write(w.ps, w.chunk, len, &imported, err, sizeof(err)),
					 AU_INVALID);
	settle(&w);
	assert_true(sl_compare(w.load, w.ps, sl_lsn(599), "imported") > 500);
	close_all(&w);
}

static void
keep_half(World *w, uint32_t first)
{
	AuSliceSet	half = {{0}};

	for (uint32_t i = first; i < first + AU_SLICES / 2; i++)
		au_slices_add(&half, i);
	assert_true(au_pagestore_slices_keep(w->ps, &half));
	write_store(w->load, w->ps, w->fed, true);
}

/* These slices go, until nothing of them is left. */
static void
drop_slices(World *w, const AuSliceSet *slices)
{
	AuSlicesState now;

	au_pagestore_slices_drop(w->ps, slices);
	do
	{
		write_store(w->load, w->ps, w->fed, true);
		while (au_pagestore_slices_step(w->ps))
			;
		au_pagestore_slices(w->ps, &now);
	} while (au_slices_any(&now.dropping));
	write_store(w->load, w->ps, w->fed, true);
}

/* Two imports at one position, of a server that does nothing; the store is
 * closed before anything of the second came.  That the first one was ended must
 * not be taken for the second one's end. */
static void
test_two_at_one_position(void **state)
{
	AuSlicesState now;
	AuSliceSet	all;
	AuPlace		first = au_place_first(AU_KS_PAGE);
	World		w;

	(void) state;
	testdir_remove(dir);
	assert_int_equal(mkdir(dir, 0700), 0);
	open_all(&w, 7, 7, "full");
	run(&w, 600, false);
	while (w.fed < 600)
		sl_apply(w.load, w.ps, w.fed++);
	memset(&all, 0xFF, sizeof(all));
	drop_slices(&w, &all);
	keep_half(&w, 0);
	while (w.imports == 0)
		import_one(&w);
	write_store(w.load, w.ps, w.fed, true);
	keep_half(&w, AU_SLICES / 2);
	au_pagestore_close(w.ps);
	w.ps = teststore_open(w.dirs[2], SL_SYSID, SL_START, RETENTION);
	w.fed = sl_index(au_pagestore_restart_lsn(w.ps)) + 1;
	au_pagestore_slices(w.ps, &now);
	assert_true(au_slices_any(&now.incoming));
	assert_false(now.done);
	assert_memory_equal(&now.place, &first, sizeof(first));
	settle(&w);
	assert_true(sl_compare(w.load, w.ps, sl_lsn(599), "imported") > 500);
	close_all(&w);
}

/* All chunks of what is incoming, for a store that nobody reads below `horizon`. */
static void
import_all(World *w, AuLsn horizon)
{
	AuExportSet set = {.keyspace = AU_KS_PAGE};
	AuSlicesState now;
	AuImported imported;
	AuExport   *e;
	size_t		len;
	char		err[512];

	for (au_pagestore_slices(w->ps, &now); !now.done; au_pagestore_slices(w->ps, &now))
	{
		set.slices = now.incoming;
		assert_int_equal(au_pagestore_export_begin(w->full[0], &set, now.since, horizon, &now.place,
												   &e), AU_OK);
		assert_int_equal(au_pagestore_export_work(e, w->chunk, BUDGET, &len), AU_OK);
		au_pagestore_export_end(e);
		assert_int_equal(au_pagestore_import_write(w->ps, w->chunk, len, &imported, err,
												   sizeof(err)), AU_OK);
		au_pagestore_imported(w->ps, &imported);
	}
}

/* Feeds records up to `upto` to all three stores. */
static void
feed(World *w, int upto)
{
	run(w, upto, false);
	while (w->fed < upto)
	{
		sl_apply(w->load, w->ps, w->fed++);
		if (w->fed % 50 == 0)
			write_store(w->load, w->ps, w->fed, false);
	}
	write_store(w->load, w->full[0], w->fed, false);
}

/* The scrubber is anywhere in its walk, also among pages of which a part is
 * there, when their slices become whole: it finds nothing wrong. */
static void
test_scrub_meanwhile(void **state)
{
	AuSliceSet	half = {{0}};
	World		w;
	int			steps;

	(void) state;
	testdir_remove(dir);
	assert_int_equal(mkdir(dir, 0700), 0);
	open_all(&w, 13, 13, "full");
	for (uint32_t s = 0; s < AU_SLICES / 2; s++)
		au_slices_add(&half, s);
	feed(&w, RECORDS / 2);
	for (int round = 1; round <= 12; round++)
	{
		int			walks = w.scrubs;

		drop_slices(&w, &half);
		keep_half(&w, 0);
		/* the log above, and every other time what is below as well */
		feed(&w, w.fed + RECORDS / 30);
		if (round % 2 == 0)
			import_all(&w, 0);
		/* each page is passed over as a whole: a step for each, no more */
		for (steps = 0; w.scrubs < walks + 2; steps++)
		{
			assert_true(steps < 2 * (SL_RELS * (SL_PAGES + 1) + 1));
			scrub_one(&w);
		}
		for (steps = 0; steps < round * 10; steps++)
			scrub_one(&w);
		import_all(&w, 0);
		au_pagestore_import_finish(w.ps);
		while (w.scrubs < walks + 4)
			scrub_one(&w);
	}
	assert_true(sl_compare(w.load, w.ps, sl_lsn(w.fed - 1), "scrubbed") > 500);
	close_all(&w);
}

static void
finish_digest(AuDigest *d, AuMerkle *tree)
{
	const AuDigestPage *pages;
	uint32_t	n;

	while (au_pagestore_digest_next(d))
	{
		assert_true(au_pagestore_digest_work(d) > 0);
		assert_int_equal(au_pagestore_digest_take(d, &pages, &n), AU_OK);
		for (uint32_t i = 0; i < n; i++)
			if (pages[i].status == AU_CORRUPT)
				fail_msg("%s", au_pagestore_digest_error(d));
	}
	*tree = *au_pagestore_digest_tree(d);
	au_pagestore_digest_end(d);
}

/* Digests are under way while an import ends, and what came may only be read
 * above their LSN: what they read stays. */
static void
test_digest_meanwhile(void **state)
{
	AuLsn		at = sl_lsn(RECORDS - 3000);
	AuDigest   *under_way[AU_SLICES] = {NULL};
	AuSliceSet	half = {{0}};
	AuMerkle	own,
				other;
	World		w;

	(void) state;
	testdir_remove(dir);
	assert_int_equal(mkdir(dir, 0700), 0);
	open_all(&w, 9, 9, "full");
	feed(&w, RECORDS);
	for (uint32_t s = 0; s < AU_SLICES / 2; s++)
		au_slices_add(&half, s);
	drop_slices(&w, &half);
	write_store(w.load, w.full[0], w.fed, true);
	keep_half(&w, 0);
	for (uint32_t s = AU_SLICES / 2; s < AU_SLICES; s++)
		under_way[s] = au_pagestore_digest_begin(w.ps, s, AU_MERKLE_LEAVES, NULL, at);
	import_all(&w, sl_lsn(RECORDS - 1));
	au_pagestore_import_finish(w.ps);
	assert_int_equal(au_pagestore_horizon(w.ps), sl_lsn(RECORDS - 1));
	write_store(w.load, w.ps, w.fed, true);
	au_pagestore_compact(w.ps);
	while (au_pagestore_gc_step(w.ps))
		;
	au_pagestore_compact(w.ps);
	for (uint32_t s = AU_SLICES / 2; s < AU_SLICES; s++)
	{
		finish_digest(under_way[s], &own);
		finish_digest(au_pagestore_digest_begin(w.full[0], s, AU_MERKLE_LEAVES, NULL, at), &other);
		assert_memory_equal(&own, &other, sizeof(own));
	}
	/* then it goes */
	write_store(w.load, w.ps, w.fed, true);
	while (au_pagestore_gc_step(w.ps))
		;
	au_pagestore_compact(w.ps);
	assert_true(sl_compare(w.load, w.ps, sl_lsn(RECORDS - 1), "afterwards") > 0);
	close_all(&w);
}

/* Not where the table's own blocks are. */
static void
flip_file(const char *path, off_t size, void *ctx)
{
	(void) ctx;
	for (off_t at = 30000; at < size * 9 / 10; at += 90000)
		assert_true(testdir_flip(path, at, 1));
}

/* Every so often a byte of the files of page versions; twice is never. */
static void
flip_bytes(const char *path)
{
	assert_true(testdir_each(path, ".sst", flip_file, NULL));
}

typedef struct Damaged
{
	const char *store;
	int			times;			/* it was not opened */
} Damaged;

/* Opened with bits turned here and there in one file. */
static void
open_damaged(const char *path, off_t size, void *ctx)
{
	Damaged    *d = ctx;
	AuPageStoreOptions opt = {
		.dir = d->store,.system_identifier = SL_SYSID,.start_lsn = SL_START,
		.pending_bytes = 64 * 1024,.write_buffer_bytes = 256 * 1024,
		.retention_bytes = RETENTION,.retention_us = 1000000
	};

	for (off_t at = 7; at < size; at += size / 50 + 1)
	{
		AuPageStore *ps;
		AuStatus	status;
		char		err[512];

		if (!testdir_flip(path, at, 1))
			break;				/* merged with others meanwhile */
		status = au_pagestore_open(&ps, &opt, err, sizeof(err));
		if (status == AU_OK)
			au_pagestore_close(ps);
		else if (status != AU_CORRUPT)
			fail_msg("byte %ld of %s: %s: %s", (long) at, path, au_status_name(status), err);
		d->times += status == AU_CORRUPT;
		(void) testdir_flip(path, at, 1);
	}
}

/* Wherever a file is damaged: the store opens, or it is damage that keeps it from
 * opening, which other nodes can repair, and nothing else. */
static void
test_damaged_start(void **state)
{
	AuSliceSet	half = {{0}};
	Damaged		damaged = {0};
	World		w;

	(void) state;
	testdir_remove(dir);
	assert_int_equal(mkdir(dir, 0700), 0);
	open_all(&w, 3, 3, "full");
	run(&w, 600, false);
	for (uint32_t i = 0; i < AU_SLICES / 2; i++)
		au_slices_add(&half, i);
	au_pagestore_slices_drop(w.ps, &half);
	/* what is read at the start lies in several files */
	for (int i = 0; i < 3; i++)
	{
		while (w.fed < 200 * (i + 1))
			sl_apply(w.load, w.ps, w.fed++);
		write_store(w.load, w.ps, w.fed, true);
	}
	close_all(&w);
	damaged.store = w.dirs[2];
	assert_true(testdir_each(w.dirs[2], ".sst", open_damaged, &damaged));
	assert_true(damaged.times > 0);
}

/* Half of the relations lose all blocks: what they had is read as of before. */
static void
truncate_half(World *w)
{
	SlLoad	   *l = w->load;

	for (uint32_t rel = 0; rel < SL_RELS; rel += 2)
	{
		int			i = l->nrecords++;

		l->records[i] = (SlRecord)
		{
			.kind = AU_WAL_OURS,.truncate = true,.rel = rel
		};
		sl_cut(l, rel, 0);
		l->samples[l->nsamples++] = (SlSample)
		{
			.lsn = sl_lsn(i),.rel = rel
		};
		for (int k = 0; k < 2; k++)
			sl_apply(l, w->full[k], i);
	}
}

/* Slices are dropped while parts of the files cannot be read: they do not come
 * back before those can be, and nothing is left of them, which would mix with
 * what comes. */
static void
test_unreadable_dropped(void **state)
{
	AuSlicesState now;
	AuSliceSet	all;
	World		w;
	int			left = 0;

	(void) state;
	testdir_remove(dir);
	assert_int_equal(mkdir(dir, 0700), 0);
	open_all(&w, 5, 5, "full");
	run(&w, RECORDS - SL_RELS, false);
	truncate_half(&w);
	run(&w, RECORDS, false);
	while (w.fed < RECORDS)
	{
		sl_apply(w.load, w.ps, w.fed++);
		if (w.fed % 50 == 0)
			write_store(w.load, w.ps, w.fed, false);
	}
	write_store(w.load, w.ps, w.fed, true);
	au_pagestore_compact(w.ps);
	memset(&all, 0xFF, sizeof(all));
	au_pagestore_slices_drop(w.ps, &all);
	write_store(w.load, w.ps, w.fed, true);
	au_pagestore_close(w.ps);
	flip_bytes(w.dirs[2]);
	w.ps = teststore_open(w.dirs[2], SL_SYSID, SL_START, RETENTION);
	for (int i = 0; i < 2000; i++)
		(void) au_pagestore_slices_step(w.ps);
	au_pagestore_slices(w.ps, &now);
	assert_true(au_slices_any(&now.dropping));
	assert_false(au_pagestore_slices_keep(w.ps, &all));
	write_store(w.load, w.ps, w.fed, true);
	au_pagestore_close(w.ps);
	flip_bytes(w.dirs[2]);
	w.ps = teststore_open(w.dirs[2], SL_SYSID, SL_START, RETENTION);
	while (au_pagestore_slices_step(w.ps))
		;
	au_pagestore_slices(w.ps, &now);
	assert_false(au_slices_any(&now.dropping));
	for (uint32_t rel = 0; rel < SL_RELS; rel++)
		for (uint32_t page = 0; page < SL_PAGES; page++)
		{
			AuPageId	id = sl_page(rel, page);
			uint8_t		bytes[AU_PAGE_SIZE];

			left += au_pagestore_read(w.ps, &id, sl_lsn(RECORDS - SL_RELS - 1), bytes) != AU_NOT_FOUND;
		}
	assert_int_equal(left, 0);
	w.fed = sl_index(au_pagestore_restart_lsn(w.ps)) + 1;
	settle(&w);
	assert_true(sl_compare(w.load, w.ps, sl_lsn(RECORDS - 1), "come again") > 2000);
	close_all(&w);
}

/* A new store from another one's positions and sizes, then its slices. */
static void
test_founding(void **state)
{
	AuPageStoreOptions opt = {
		.dir = NULL,.system_identifier = SL_SYSID,.start_lsn = SL_START,
		.pending_bytes = 64 * 1024,.write_buffer_bytes = 256 * 1024,.retention_bytes = RETENTION
	};
	AuExportSet set = {.keyspace = AU_KS_SIZE};
	AuPlace		place = au_place_first(AU_KS_SIZE);
	AuStorePosition *position = calloc(1, sizeof(*position));
	AuPageStore *ps;
	World		w;
	AuLsn		highest = 0;
	bool		done = false;
	char		err[512];

	(void) state;
	testdir_remove(dir);
	assert_int_equal(mkdir(dir, 0700), 0);
	open_all(&w, 31, 31, "full");
	run(&w, 4100, false);
	au_pagestore_close(w.ps);
	testdir_remove(w.dirs[2]);
	opt.dir = w.dirs[2];
	write_store(w.load, w.full[0], 4100, false);
	au_pagestore_position(w.full[0], position);
	assert_int_equal(position->applied, sl_lsn(4099));
	assert_int_equal(au_pagestore_found(&ps, &opt, position, err, sizeof(err)), AU_OK);
	while (!done)
	{
		AuImported imported;
		AuExport   *e;
		size_t		len;

		run(&w, w.load->nrecords + 20, false);
		assert_int_equal(au_pagestore_export_begin(w.full[0], &set, position->applied, 0, &place, &e),
						 AU_OK);
		assert_int_equal(au_pagestore_export_work(e, w.chunk, 1000, &len), AU_OK);
		au_pagestore_export_end(e);
		assert_int_equal(au_pagestore_import_write(ps, w.chunk, len, &imported, err, sizeof(err)),
						 AU_OK);
		au_pagestore_imported(ps, &imported);
		highest = imported.horizon;
		place = imported.place;
		done = imported.done;
		if (place.key[0] == AU_KS_SIZE && sl_random(&w.rng, 3) == 0)
		{
			/* one that was not ended is refused */
			au_pagestore_close(ps);
			assert_int_equal(au_pagestore_open(&ps, &opt, err, sizeof(err)), AU_CORRUPT);
			testdir_remove(w.dirs[2]);
			assert_int_equal(au_pagestore_found(&ps, &opt, position, err, sizeof(err)), AU_OK);
			place = au_place_first(AU_KS_SIZE);
			done = false;
		}
	}
	assert_int_equal(au_pagestore_found_end(ps, err, sizeof(err)), AU_OK);
	au_pagestore_close(ps);
	w.ps = teststore_open(w.dirs[2], SL_SYSID, SL_START, RETENTION);
	assert_int_equal(au_pagestore_applied_lsn(w.ps), position->applied);
	assert_true(highest > position->horizon);
	assert_true(au_pagestore_horizon(w.ps) >= highest);
	w.fed = sl_index(au_pagestore_restart_lsn(w.ps)) + 1;
	run(&w, RECORDS, true);
	settle(&w);
	assert_true(w.imports > 0);
	assert_true(sl_compare(w.load, w.ps, sl_lsn(RECORDS - 1), "settled") > 2000);
	check_offline(&w);
	close_all(&w);
	free(position);
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_moving),
		cmocka_unit_test(test_killed),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_two_at_one_position),
		cmocka_unit_test(test_scrub_meanwhile),
		cmocka_unit_test(test_digest_meanwhile),
		cmocka_unit_test(test_unreadable_dropped),
		cmocka_unit_test(test_damaged_start),
		cmocka_unit_test(test_founding),
	};

	if (argc == 6 && strcmp(argv[1], "child") == 0)
	{
		snprintf(dir, sizeof(dir), "%s", argv[2]);
		child(strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10), atoi(argv[5]));
	}
	return cmocka_run_group_tests(tests, testfixture_setup, testfixture_teardown);
}
