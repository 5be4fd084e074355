/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_readers.c: see au_readers.h.
 *
 *   loop thread: begin ─▶ in memory? ─yes─▶ done
 *                              │ no
 *                              ▼
 *                      files are fast? ─yes─▶ done
 *                              │ no
 *                              ▼
 *                            queue ──▶ a reader thread ──▶ finished
 *                                                             │ uv_async
 *   loop thread: end, done ◀──────────────────────────────────┘
 *
 * A batch belongs to the thread that took it from a list; the mutex of the
 * lists is what hands its contents over.
 */
#include "daemon/au_readers.h"
#include "daemon/au_share.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* What a read from files cost the thread that did it. */
typedef struct Cost
{
	bool		slept;			/* for a disk, or a lock */
	uint64_t	cpu_us;
} Cost;

typedef struct Job
{
	struct Job *next;
	AuPageBatch *batch;
	AuPageRead *read;
	Cost		cost;
} Job;

typedef struct JobList
{
	Job		   *first;
	Job		   *last;
} JobList;

struct AuReaders
{
	uv_async_t	finished;
	void		(*done) (void *ctx, AuPageBatch *batch);
	void	   *ctx;
	pthread_t	threads[AU_READ_THREADS];
	int			nthreads;
	uint32_t	fast;			/* short reads from files in a row that were */
	uint32_t	turn;			/* of them on the loop thread in this turn */
	uint32_t	missed;			/* tries in a row that the cache was not enough for */
	uint64_t	inlined;		/* ... ever */
	pthread_mutex_t lock;		/* of all below */
	pthread_cond_t work;
	JobList		queue;
	JobList		results;
	bool		stop;
};

static void
push(JobList *list, Job *job)
{
	job->next = NULL;
	if (list->last != NULL)
		list->last->next = job;
	else
		list->first = job;
	list->last = job;
}

static Job *
pop(JobList *list)
{
	Job		   *job = list->first;

	if (job == NULL)
		return NULL;
	list->first = job->next;
	if (list->first == NULL)
		list->last = NULL;
	return job;
}

/* Go on with a batch.  false: it cannot go on without files. */
static bool
read_on(AuPageBatch *b, AuPageRead *read, bool cached_only)
{
	static _Thread_local uint8_t page[AU_PAGE_SIZE];
	uint64_t	start = uv_hrtime();
	bool		finished = true;

	while (b->done < b->nblocks && b->status == AU_OK && finished)
	{
		uint8_t    *slot = b->share != NULL ? page : au_pages_slot(&b->answer);
		AuStatus	status;

		assert(slot != NULL);
		status = au_pagestore_read_page(read, b->done, cached_only, slot);
		if (status == AU_NEED_MORE)
			finished = false;
		else if (status != AU_OK && status != AU_NOT_FOUND)
		{
			b->status = status;
			snprintf(b->err, sizeof(b->err), "%s", au_pagestore_read_error(read));
		}
		else
		{
			if (b->share == NULL)
				au_pages_add(&b->answer, status);
			else
			{
				/* whoever shares it may write there, too: pages are made elsewhere */
				if (status == AU_OK)
					memcpy(au_share_page(b->share, b->place + b->done), page, AU_PAGE_SIZE);
				au_w_u8(&b->answer, (uint8_t) status);
			}
			b->done++;
		}
	}
	au_pagestore_read_rest(read);
	if (finished && b->status == AU_OK && !au_frame_end(&b->answer))
	{
		b->status = AU_INVALID;
		snprintf(b->err, sizeof(b->err), "the pages do not fit into an answer");
	}
	b->run_us += (uv_hrtime() - start) / 1000;
	return finished;
}

static uint64_t
us_of(const struct timeval *t)
{
	return (uint64_t) t->tv_sec * 1000000 + (uint64_t) t->tv_usec;
}

/*
 * To the end.  Time on the clock would also count what others had the
 * processor for, and so send every read of a busy machine through two more
 * switches of threads.
 */
static void
read_files(AuPageBatch *b, AuPageRead *read, Cost *cost)
{
	struct rusage before,
				after;

	getrusage(RUSAGE_THREAD, &before);
	(void) read_on(b, read, false);
	getrusage(RUSAGE_THREAD, &after);
	cost->slept = after.ru_nvcsw != before.ru_nvcsw;
	cost->cpu_us = us_of(&after.ru_utime) - us_of(&before.ru_utime) +
		us_of(&after.ru_stime) - us_of(&before.ru_stime);
}

static void *
reader_thread(void *arg)
{
	AuReaders  *r = arg;

	pthread_mutex_lock(&r->lock);
	while (!r->stop)
	{
		Job		   *job = pop(&r->queue);
		bool		first;

		if (job == NULL)
		{
			pthread_cond_wait(&r->work, &r->lock);
			continue;
		}
		pthread_mutex_unlock(&r->lock);
		read_files(job->batch, job->read, &job->cost);
		pthread_mutex_lock(&r->lock);
		first = r->results.first == NULL;
		push(&r->results, job);
		if (first)
		{
			/* without the lock: whoever wakes up wants it.  (The loop is not
			 * closed meanwhile: it waits for this job.) */
			pthread_mutex_unlock(&r->lock);
			uv_async_send(&r->finished);
			pthread_mutex_lock(&r->lock);
		}
	}
	pthread_mutex_unlock(&r->lock);
	return NULL;
}

/* A batch was read from files.  One that was not fast takes half of what they
 * are trusted for: a page in a hundred that has to come from the disk is no
 * reason to hand over all. */
static void
note_cost(AuReaders *r, const AuPageBatch *b, const Cost *cost)
{
	if (b->nblocks > AU_READ_INLINE_BLOCKS)
		return;
	if (cost->slept || cost->cpu_us > AU_READ_FAST_US)
		r->fast /= 2;
	else if (r->fast < 2 * AU_READ_FAST_ROW)
		r->fast++;
}

void
au_readers_turn(AuReaders *r)
{
	r->turn = 0;
}

uint64_t
au_readers_inline(const AuReaders *r)
{
	return r->inlined;
}

/* From the cache alone, unless that has been in vain so often that only now and
 * then a try is worth what it costs: a third of the read. */
static bool
try_cache(AuReaders *r, AuPageBatch *b, AuPageRead *read)
{
	if (r->missed >= AU_READ_MISSED_ROW && r->missed++ % AU_READ_MISSED_ROW != 0)
		return false;
	if (read_on(b, read, true))
	{
		r->missed = 0;
		return true;
	}
	if (r->missed < AU_READ_MISSED_ROW)
		r->missed++;
	return false;
}

/* On the loop thread, if that is likely to be short.  false: not done. */
static bool
try_here(AuReaders *r, AuPageBatch *b, AuPageRead *read)
{
	Cost		cost;

	if (b->nblocks > AU_READ_INLINE_BLOCKS)
		return false;
	if (r->fast < AU_READ_FAST_ROW || r->turn >= AU_READ_INLINE_TURN)
		return try_cache(r, b, read);
	r->turn++;
	r->inlined++;
	au_pagestore_read_here(read);
	read_files(b, read, &cost);
	note_cost(r, b, &cost);
	return true;
}

static void
on_finished(uv_async_t *async)
{
	AuReaders  *r = async->data;
	JobList		list;
	Job		   *job;

	pthread_mutex_lock(&r->lock);
	list = r->results;
	r->results = (JobList)
	{
		NULL, NULL
	};
	pthread_mutex_unlock(&r->lock);
	while ((job = pop(&list)) != NULL)
	{
		AuPageBatch *batch = job->batch;

		note_cost(r, batch, &job->cost);
		au_pagestore_read_end(job->read);
		free(job);
		r->done(r->ctx, batch);
	}
}

bool
au_readers_read(AuReaders *r, AuPageStore *store, AuPageBatch *b)
{
	AuPageRead *read = au_pagestore_read_begin(store, &b->rel, b->blocks, b->nblocks,
											   b->lsn, b->newest);
	Job		   *job = NULL;

	if (read != NULL)
	{
		if (try_here(r, b, read))
		{
			au_pagestore_read_end(read);
			return true;
		}
		job = malloc(sizeof(*job));
	}
	if (job == NULL)
	{
		b->status = AU_NOMEM;
		snprintf(b->err, sizeof(b->err), "out of memory");
		if (read != NULL)
			au_pagestore_read_end(read);
		return true;
	}
	job->batch = b;
	job->read = read;
	pthread_mutex_lock(&r->lock);
	push(&r->queue, job);
	pthread_mutex_unlock(&r->lock);
	/* without the lock: whoever wakes up wants it */
	pthread_cond_signal(&r->work);
	return false;
}

/* ---- start and end ---------------------------------------------------- */

static void
on_async_closed(uv_handle_t *handle)
{
	AuReaders  *r = handle->data;

	pthread_mutex_destroy(&r->lock);
	pthread_cond_destroy(&r->work);
	free(r);
}

AuReaders *
au_readers_start(uv_loop_t *loop, void (*done) (void *ctx, AuPageBatch *batch), void *ctx,
				 char *err, size_t errlen)
{
	AuReaders  *r = calloc(1, sizeof(*r));
	int			rc = 0;

	if (r == NULL)
	{
		snprintf(err, errlen, "out of memory");
		return NULL;
	}
	r->done = done;
	r->ctx = ctx;
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->work, NULL);
	uv_async_init(loop, &r->finished, on_finished);
	r->finished.data = r;
	while (r->nthreads < AU_READ_THREADS && rc == 0)
	{
		rc = pthread_create(&r->threads[r->nthreads], NULL, reader_thread, r);
		if (rc == 0)
			r->nthreads++;
	}
	if (rc == 0)
		return r;
	snprintf(err, errlen, "could not start a reader thread: %s", strerror(rc));
	au_readers_stop(r);
	return NULL;
}

void
au_readers_stop(AuReaders *r)
{
	if (r == NULL)
		return;
	pthread_mutex_lock(&r->lock);
	assert(r->queue.first == NULL && r->results.first == NULL);
	r->stop = true;
	pthread_cond_broadcast(&r->work);
	pthread_mutex_unlock(&r->lock);
	for (int i = 0; i < r->nthreads; i++)
		pthread_join(r->threads[i], NULL);
	uv_close((uv_handle_t *) &r->finished, on_async_closed);
}
