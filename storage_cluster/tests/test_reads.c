/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_reads.c: batches of pages read on other threads while the store takes
 * records, freezes, writes, compacts, collects and is opened again: each page
 * has the bytes it had at the batch's LSN.  `make tsan` runs it, too.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <dirent.h>
#include <pthread.h>
#include <unistd.h>

#include "tests/history.h"
#include "tests/testdir.h"

#define READERS 4
#define BATCHES 24				/* under way at a time */
#define WRITE_RECORDS 80		/* taken during a write at most */

static char dir[64];
static uint8_t model[HISTORY_BLOCKS][AU_PAGE_SIZE];

static void
start(void)
{
	snprintf(dir, sizeof(dir), "/tmp/au_test_reads_XXXXXX");
	assert_non_null(mkdtemp(dir));
	memset(model, 0, sizeof(model));
	srand(7);
}

/* With room for images in memory; memory may be NULL. */
static AuPageStore *
open_roomy(uint64_t retention, AuStoreMemory *memory)
{
	AuPageStoreOptions opt = {
		.dir = dir,.system_identifier = 7,.start_lsn = HISTORY_START,
		.pending_bytes = 4 << 20,.write_buffer_bytes = 256 * 1024,
		.retention_bytes = retention,.memory = memory
	};
	AuPageStore *ps;
	char		err[512];

	if (au_pagestore_open(&ps, &opt, err, sizeof(err)) != AU_OK)
		fail_msg("open: %s", err);
	return ps;
}

/* One page of a batch as of record i. */
static AuStatus
compare_page(AuPageRead *r, uint16_t k, uint32_t blk, int i, bool cached_only)
{
	static uint8_t pages[HISTORY_BLOCKS][AU_PAGE_SIZE];	/* until the end of the batch */
	uint8_t    *page = pages[k];
	AuStatus	status = au_pagestore_read_page(r, k, cached_only, page);
	int			maker = history_maker(blk, i);

	if (status == AU_NEED_MORE)
		return status;
	if (maker < 0)
		assert_int_equal(status, AU_NOT_FOUND);
	else if (status != AU_OK)
		fail_msg("block %u as of record %d: %s", blk, i, au_pagestore_read_error(r));
	else if (au_crc32c(0, page, AU_PAGE_SIZE) != history_crc[maker])
		fail_msg("block %u as of record %d differs (LSN %u)", blk, i,
				 (unsigned) au_page_lsn(page));
	return AU_OK;
}

static void
begin_all(AuPageStore *ps, AuPageRead **r, int i, bool newest)
{
	uint32_t	blocks[HISTORY_BLOCKS];

	for (uint32_t b = 0; b < HISTORY_BLOCKS; b++)
		blocks[b] = b;
	*r = au_pagestore_read_begin(ps, &history_rel, blocks, HISTORY_BLOCKS, history_lsn(i), newest);
	assert_non_null(*r);
}

/* What may happen to a store between begin and the reading. */
static void
test_batch_keeps_its_lsn(void **state)
{
	uint64_t	retention = HISTORY_STEP * 10;
	AuPageStore *ps;
	AuPageRead *early,
			   *late;
	AuPageStoreStats stats;
	int			n = 0;

	(void) state;
	start();
	ps = teststore_open(dir, 7, HISTORY_START, retention);
	for (; n < 400; n++)
		history_change(ps, n, model);
	teststore_write(ps, history_lsn(n - 1), true);
	for (; n < 420; n++)
		history_change(ps, n, model);
	begin_all(ps, &early, 415, false);	/* partly in memory, partly in files */
	begin_all(ps, &late, n - 1, true);

	for (; n < 900; n++)
		history_change(ps, n, model);
	/* the horizon waits for the oldest read */
	assert_int_equal(au_pagestore_horizon(ps), history_lsn(415));
	teststore_write(ps, history_lsn(n - 1), true);
	/* the generation that both look at is kept; there is no room for more */
	history_change(ps, n++, model);
	assert_false(au_pagestore_freeze(ps, history_lsn(n - 1), history_lsn(n - 1)));
	assert_false(au_pagestore_rewind(ps, history_lsn(n - 1)));
	au_pagestore_compact(ps);
	for (uint16_t b = 0; b < HISTORY_BLOCKS; b++)
	{
		assert_int_equal(compare_page(early, b, b, 415, false), AU_OK);
		assert_int_equal(compare_page(late, b, b, 419, false), AU_OK);
	}
	au_pagestore_read_rest(early);
	au_pagestore_read_end(early);
	assert_false(au_pagestore_freeze(ps, history_lsn(n - 1), history_lsn(n - 1)));
	/* an image of what was the newest then would be out of order now */
	au_pagestore_stats(ps, &stats);
	au_pagestore_read_end(late);
	{
		AuPageStoreStats after;

		au_pagestore_stats(ps, &after);
		assert_int_equal(after.images, stats.images);
	}

	/* now everything moves on */
	au_pagestore_set_applied(ps, history_lsn(n - 1));
	assert_int_equal(au_pagestore_horizon(ps), history_lsn(n - 1) - retention);
	teststore_write(ps, history_lsn(n - 1), true);
	au_pagestore_compact(ps);
	begin_all(ps, &late, n - 1, true);
	for (uint16_t b = 0; b < HISTORY_BLOCKS; b++)
		assert_int_equal(compare_page(late, b, b, n - 1, false), AU_OK);
	au_pagestore_read_end(late);
	au_pagestore_close(ps);
	testdir_remove(dir);
}

/* A long chain gets an image behind its newest change, once. */
static void
test_images(void **state)
{
	AuPageStore *ps;
	AuPageRead *a,
			   *b;
	AuPageStoreStats stats;
	uint32_t	blk;
	uint64_t	before;
	uint8_t		page[2][AU_PAGE_SIZE];
	int			n = 0;

	(void) state;
	start();
	ps = open_roomy((uint64_t) 1 << 30, NULL);
	for (; n < 400; n++)
		history_change(ps, n, model);
	blk = history_block[n - 1];
	au_pagestore_stats(ps, &stats);
	before = stats.images;
	a = au_pagestore_read_begin(ps, &history_rel, &blk, 1, history_lsn(n - 1), true);
	b = au_pagestore_read_begin(ps, &history_rel, &blk, 1, history_lsn(n - 1), true);
	assert_int_equal(au_pagestore_read_page(a, 0, false, page[0]), AU_OK);
	assert_int_equal(au_pagestore_read_page(b, 0, true, page[1]), AU_OK);
	assert_memory_equal(page[0], page[1], AU_PAGE_SIZE);
	au_pagestore_read_end(a);
	au_pagestore_read_end(b);
	au_pagestore_stats(ps, &stats);
	assert_int_equal(stats.images, before + 1);
	begin_all(ps, &a, n - 1, true);
	for (uint16_t k = 0; k < HISTORY_BLOCKS; k++)
		assert_int_equal(compare_page(a, k, k, n - 1, true), AU_OK);
	au_pagestore_read_end(a);
	au_pagestore_close(ps);
	testdir_remove(dir);
}

/* A reader that may not use files says so, and can go on with them. */
static void
test_cached_only(void **state)
{
	AuStoreMemory *memory = au_store_memory_new((uint64_t) 64 << 20);
	AuPageStore *ps;
	AuPageRead *r;
	int			n = 0,
				missed = 0;

	(void) state;
	start();
	ps = teststore_open(dir, 7, HISTORY_START, (uint64_t) 1 << 30);
	for (; n < 500; n++)
		history_change(ps, n, model);
	teststore_write(ps, history_lsn(n - 1), true);
	au_pagestore_close(ps);

	/* a fresh cache: nothing of the blocks is in it */
	ps = open_roomy((uint64_t) 1 << 30, memory);
	begin_all(ps, &r, n - 1, true);
	for (uint16_t b = 0; b < HISTORY_BLOCKS; b++)
	{
		if (compare_page(r, b, b, n - 1, true) == AU_NEED_MORE)
			missed++;
		assert_int_equal(compare_page(r, b, b, n - 1, false), AU_OK);
		assert_int_equal(compare_page(r, b, b, n - 1, true), AU_OK);
	}
	assert_true(missed > 0);
	au_pagestore_read_end(r);

	/* sizes as of an older LSN are found without the owner thread, too */
	begin_all(ps, &r, 3, false);
	for (uint16_t b = 0; b < HISTORY_BLOCKS; b++)
		assert_int_equal(compare_page(r, b, b, 3, false), AU_OK);
	au_pagestore_read_end(r);
	au_pagestore_close(ps);
	au_store_memory_free(memory);
	testdir_remove(dir);
}

static int
table_files(void)
{
	DIR		   *d = opendir(dir);
	struct dirent *e;
	int			n = 0;

	assert_non_null(d);
	while ((e = readdir(d)) != NULL)
		n += strstr(e->d_name, ".sst") != NULL;
	closedir(d);
	return n;
}

static void
read_here(AuPageStore *ps, uint32_t blk, int i)
{
	AuPageRead *r = au_pagestore_read_begin(ps, &history_rel, &blk, 1, history_lsn(i), true);

	assert_non_null(r);
	au_pagestore_read_here(r);
	assert_int_equal(compare_page(r, 0, blk, i, false), AU_OK);
	au_pagestore_read_rest(r);
	au_pagestore_read_end(r);
}

static void
read_all_here(AuPageStore *ps, int i)
{
	for (uint32_t b = 0; b < HISTORY_BLOCKS; b++)
		read_here(ps, b, i);
}

/* A read here, a compaction that replaces files, which the read's iterator keeps;
 * then nothing is read.  Have files gone because of that? */
static bool
files_go(AuPageStore *ps, int *n)
{
	int			kept,
				left;

	for (int k = 0; k < 6; k++, ++*n)
	{
		history_change(ps, *n, model);
		teststore_write(ps, history_lsn(*n), true);
		read_here(ps, history_block[*n], *n);
	}
	usleep(20000);
	au_pagestore_turn(ps);
	kept = table_files();
	au_pagestore_turn(ps);
	left = table_files();
	return left < kept;
}

/* The owner thread's reads keep their iterator, but not once there are no reads
 * any more; what is written is seen at once. */
static void
test_here(void **state)
{
	AuPageStore *ps;
	char		err[512];
	int			n = 0;

	(void) state;
	start();
	ps = teststore_open(dir, 7, HISTORY_START, (uint64_t) 1 << 30);
	for (; n < 500; n++)
	{
		history_change(ps, n, model);
		read_all_here(ps, n);
		if (n % 10 != 0)
			continue;
		/* what an iterator of before the write does not see is in memory
		 * until there is another */
		assert_true(au_pagestore_freeze(ps, history_lsn(n), history_lsn(n)));
		read_all_here(ps, n);
		assert_int_equal(au_pagestore_write(ps, n % 20 == 0, err, sizeof(err)), AU_OK);
		read_all_here(ps, n);
		au_pagestore_written(ps, AU_OK);
		read_all_here(ps, n);
	}
	teststore_write(ps, history_lsn(n - 1), true);
	while (!files_go(ps, &n))
		assert_true(n < HISTORY_RECORDS - 10);
	au_pagestore_close(ps);
	testdir_remove(dir);
}

/* ---- many threads ----------------------------------------------------- */

typedef struct Batch
{
	struct Batch *next;
	AuPageRead *read;
	int			as_of;			/* record */
	uint32_t	blocks[HISTORY_BLOCKS];
	uint16_t	nblocks;
	uint8_t		pages[HISTORY_BLOCKS][AU_PAGE_SIZE];
} Batch;

static struct
{
	pthread_mutex_t lock;
	pthread_cond_t changed;
	Batch	   *todo;
	Batch	   *done;
	bool		stop;
	bool		failed;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER,.changed = PTHREAD_COND_INITIALIZER};

/* cmocka's assertions belong to the main thread. */
static bool
right(Batch *b, uint16_t k)
{
	uint8_t    *page = b->pages[k];
	int			maker = history_maker(b->blocks[k], b->as_of);
	AuStatus	status = au_pagestore_read_page(b->read, k, b->as_of % 3 == 0, page);

	if (status == AU_NEED_MORE)
		status = au_pagestore_read_page(b->read, k, false, page);
	if (maker < 0)
		return status == AU_NOT_FOUND;
	return status == AU_OK && au_crc32c(0, page, AU_PAGE_SIZE) == history_crc[maker];
}

static void *
reader(void *arg)
{
	(void) arg;
	pthread_mutex_lock(&pool.lock);
	while (!pool.stop)
	{
		Batch	   *b = pool.todo;
		bool		ok = true;

		if (b == NULL)
		{
			pthread_cond_wait(&pool.changed, &pool.lock);
			continue;
		}
		pool.todo = b->next;
		pthread_mutex_unlock(&pool.lock);
		for (uint16_t k = 0; k < b->nblocks; k++)
			ok = right(b, k) && ok;
		au_pagestore_read_rest(b->read);
		pthread_mutex_lock(&pool.lock);
		pool.failed = pool.failed || !ok;
		b->next = pool.done;
		pool.done = b;
		pthread_cond_broadcast(&pool.changed);
	}
	pthread_mutex_unlock(&pool.lock);
	return NULL;
}

static int
collect(bool wait)
{
	Batch	   *b;
	int			n = 0;

	pthread_mutex_lock(&pool.lock);
	while (wait && pool.done == NULL)
		pthread_cond_wait(&pool.changed, &pool.lock);
	b = pool.done;
	pool.done = NULL;
	pthread_mutex_unlock(&pool.lock);
	while (b != NULL)
	{
		Batch	   *next = b->next;

		au_pagestore_read_end(b->read);
		free(b);
		b = next;
		n++;
	}
	return n;
}

/* false: read here already. */
static bool
hand_out(AuPageStore *ps, int n)
{
	Batch	   *b = calloc(1, sizeof(*b));
	AuLsn		horizon = au_pagestore_horizon(ps);
	int			oldest = (int) ((horizon - HISTORY_START) / HISTORY_STEP);
	bool		newest = rand() % 2 == 0;
	bool		run;

	assert_non_null(b);
	b->as_of = newest || oldest > n - 1 ? n - 1 : oldest + rand() % (n - oldest);
	run = rand() % 4 == 0;		/* one iterator for all */
	b->nblocks = (uint16_t) (run ? HISTORY_BLOCKS : 1 + rand() % HISTORY_BLOCKS);
	for (uint16_t k = 0; k < b->nblocks; k++)
		b->blocks[k] = run ? k : (uint32_t) rand() % HISTORY_BLOCKS;
	b->read = au_pagestore_read_begin(ps, &history_rel, b->blocks, b->nblocks,
									  history_lsn(b->as_of), b->as_of == n - 1);
	assert_non_null(b->read);
	if (b->nblocks < 8 && rand() % 3 == 0)	/* no run */
	{
		au_pagestore_read_here(b->read);
		for (uint16_t k = 0; k < b->nblocks; k++)
			assert_true(right(b, k));
		au_pagestore_read_rest(b->read);
		au_pagestore_read_end(b->read);
		free(b);
		if (rand() % 4 == 0)
			au_pagestore_turn(ps);
		return false;
	}
	pthread_mutex_lock(&pool.lock);
	b->next = pool.todo;
	pool.todo = b;
	pthread_cond_broadcast(&pool.changed);
	pthread_mutex_unlock(&pool.lock);
	return true;
}

typedef struct Write
{
	AuPageStore *ps;
	pthread_t	thread;
	bool		running;
	int			since;			/* record */
	bool		persist;
	_Atomic bool ended;
	AuStatus	status;
} Write;

static void *
writer(void *arg)
{
	Write	   *w = arg;
	char		err[512];

	w->status = au_pagestore_write(w->ps, w->persist, err, sizeof(err));
	w->ended = true;
	return NULL;
}

static void
end_write(Write *w)
{
	pthread_join(w->thread, NULL);
	assert_int_equal(w->status, AU_OK);
	au_pagestore_written(w->ps, w->status);
	w->running = false;
}

static void
start_write(Write *w, int n)
{
	if (!au_pagestore_freeze(w->ps, history_lsn(n - 1), history_lsn(n - 1)))
		return;
	w->persist = rand() % 3 == 0;
	w->ended = false;
	w->running = true;
	w->since = n;
	assert_int_equal(pthread_create(&w->thread, NULL, writer, w), 0);
}

static void
test_threads(void **state)
{
	pthread_t	readers[READERS];
	Write		w = {0};
	int			under_way = 0,
				writes = 0;

	(void) state;
	start();
	w.ps = open_roomy(HISTORY_STEP * 300, NULL);
	for (int i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&readers[i], NULL, reader, NULL), 0);
	for (int n = 0; n < HISTORY_RECORDS;)
	{
		for (int k = 0; k < 8 && n < HISTORY_RECORDS; k++)
			history_change(w.ps, n++, model);
		under_way -= collect(under_way == BATCHES);
		while (under_way < BATCHES && rand() % 4 != 0)
			under_way += hand_out(w.ps, n);
		if (w.running && (w.ended || n - w.since > WRITE_RECORDS))
		{
			end_write(&w);
			if (rand() % 8 == 0)
				au_pagestore_compact(w.ps);
		}
		else if (!w.running && (rand() % 8 == 0 || n - w.since > 2 * WRITE_RECORDS))
		{
			/* readers may hold on to what was written before: let them go */
			while (n - w.since > 2 * WRITE_RECORDS && under_way > 0)
				under_way -= collect(true);
			start_write(&w, n);
			writes += w.running;
		}
		if (rand() % 150 == 0)
		{
			/* as after trouble: nobody reads any more, then close and open */
			while (under_way > 0)
				under_way -= collect(true);
			if (w.running)
				end_write(&w);
			teststore_write(w.ps, history_lsn(n - 1), true);
			au_pagestore_close(w.ps);
			w.ps = open_roomy(HISTORY_STEP * 300, NULL);
		}
	}
	while (under_way > 0)
		under_way -= collect(true);
	if (w.running)
		end_write(&w);
	pthread_mutex_lock(&pool.lock);
	pool.stop = true;
	pthread_cond_broadcast(&pool.changed);
	pthread_mutex_unlock(&pool.lock);
	for (int i = 0; i < READERS; i++)
		pthread_join(readers[i], NULL);
	assert_false(pool.failed);
	assert_true(writes > 10);
	au_pagestore_close(w.ps);
	testdir_remove(dir);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_batch_keeps_its_lsn),
		cmocka_unit_test(test_images),
		cmocka_unit_test(test_cached_only),
		cmocka_unit_test(test_here),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
