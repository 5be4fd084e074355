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

typedef struct Job
{
	struct Job *next;
	AuPageBatch *batch;
	AuPageRead *read;
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

static void *
reader_thread(void *arg)
{
	AuReaders  *r = arg;

	pthread_mutex_lock(&r->lock);
	while (!r->stop)
	{
		Job		   *job = pop(&r->queue);

		if (job == NULL)
		{
			pthread_cond_wait(&r->work, &r->lock);
			continue;
		}
		pthread_mutex_unlock(&r->lock);
		(void) read_on(job->batch, job->read, false);
		pthread_mutex_lock(&r->lock);
		push(&r->results, job);
		uv_async_send(&r->finished);
	}
	pthread_mutex_unlock(&r->lock);
	return NULL;
}

/* A batch was read from files. */
static void
note_time(AuReaders *r, const AuPageBatch *b)
{
	if (b->nblocks > AU_READ_INLINE_BLOCKS)
		return;
	r->fast = b->run_us <= AU_READ_FAST_US ? r->fast + 1 : 0;
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

/* On the loop thread, if that is likely to be short.  false: not done. */
static bool
try_here(AuReaders *r, AuPageBatch *b, AuPageRead *read)
{
	if (b->nblocks > AU_READ_INLINE_BLOCKS)
		return false;
	if (r->fast < AU_READ_FAST_ROW || r->turn >= AU_READ_INLINE_TURN)
		return read_on(b, read, true);
	r->turn++;
	r->inlined++;
	(void) read_on(b, read, false);
	note_time(r, b);
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

		note_time(r, batch);
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
	pthread_cond_signal(&r->work);
	pthread_mutex_unlock(&r->lock);
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
