/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_readahead.c: runs of blocks are asked for before they are read.
 *
 *	  blocks in the order of reading ──────────────────────▶
 *	  read │ asked: run k      │ asked: run k+1     │ not looked at yet
 *	       ▲ first              (len entries)       ▲ last
 *
 * The window is a queue of the blocks looked at and not yet read.  An entry
 * names the run that asked for it, or none if the block was cached, or was
 * changed so lately that storage would have to wait for it.
 *
 * Invariants:
 *  1. A page from an answer enters a buffer only through aurora_read_missing,
 *     which compares last-written with what the answer was read as of, under
 *     the page's lock (see README: read-ahead).
 *  2. A request belongs to the resource owner current when it was made and may
 *     end with it at any time: pages are looked at only while
 *     aurora_client_asked says that the answer is there.
 *  3. No request waits for log that this server has not flushed, or that
 *     storage is not known to have applied, if that is known: such blocks are
 *     left out, so a page that was just changed delays nobody but its reader.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "pgstat.h"
#include "utils/memutils.h"
#include "utils/spccache.h"

#include "cache/aurora_cache_internal.h"
#include "cache/aurora_readahead.h"
#include "client/aurora_client.h"
#include "module/aurora_guc.h"
#include "ship/aurora_ship_state.h"

/* Few rows may be wanted. */
#define RUN_FIRST 4
/* After so many runs that were all cached there is nothing to be asked for. */
#define CACHED_RUNS_MAX 2
/* After so many reads in a row of blocks not announced the window is void. */
#define STRANGERS_MAX 4

#define NO_RUN (-1)
#define WINDOW_MAX (AURORA_AHEAD_RUN_MAX * (AURORA_AHEAD_RUNS_MAX + 1))

typedef struct Run
{
	uint64		id;				/* of the request; 0: none */
	int			n;
	int			unread;			/* entries of the window that name it */
	bool		taken;			/* its answer is in `pages` */
	bool		failed;
	XLogRecPtr	read_lsn;		/* as asked; Invalid: newest */
	BlockNumber blocks[AURORA_AHEAD_RUN_MAX];
	AuMsgPages	pages;			/* points into the answer */
} Run;

typedef struct Entry
{
	BlockNumber blk;
	int16		run;			/* in `runs`, or NO_RUN */
	int16		place;			/* in the run */
} Entry;

typedef struct AuroraAheadWindow
{
	int			depth;			/* runs in flight beside the one read */
	int			run_max;
	int			run_len;		/* of the run asked for last */
	int			cached_runs;	/* in a row, all cached */
	int			strangers;		/* read in a row, and not in the window */
	BlockNumber last;			/* looked at last */
	int			first;
	int			len;
	int			next_run;
	Entry		entries[WINDOW_MAX];
	Run			runs[AURORA_AHEAD_RUNS_MAX + 2];	/* depth + 2 are in use */
} AuroraAheadWindow;

void
aurora_ahead_init(AuroraAhead *ahead, Relation rel, MemoryContext context,
				  bool maintenance, AuroraAheadNext next, void *arg)
{
	ahead->rel = rel;
	ahead->context = context;
	ahead->maintenance = maintenance;
	ahead->next = next;
	ahead->arg = arg;
	ahead->window = NULL;
}

static void
forget_run(Run *run)
{
	aurora_client_forget(run->id);
	run->id = 0;
}

/* Nothing looked at, nothing asked for. */
static void
empty_window(AuroraAheadWindow *w)
{
	for (int i = 0; i < lengthof(w->runs); i++)
	{
		if (w->runs[i].id != 0)
			forget_run(&w->runs[i]);
		w->runs[i].unread = 0;
	}
	w->first = w->len = 0;
	w->strangers = 0;
}

void
aurora_ahead_end(AuroraAhead *ahead)
{
	if (ahead->window == NULL)
		return;
	empty_window(ahead->window);
	pfree(ahead->window);
	ahead->window = NULL;
	aurora_client_asked_end();
}

/* Settings may change between two scans; a window keeps what it began with. */
static AuroraAheadWindow *
make_window(AuroraAhead *ahead)
{
	Oid			spc = ahead->rel->rd_rel->reltablespace;
	int			depth = ahead->maintenance ?
	get_tablespace_maintenance_io_concurrency(spc) :
	get_tablespace_io_concurrency(spc);
	AuroraAheadWindow *w;

	if (depth > 0)
		depth = Min(Max(depth, AURORA_AHEAD_RUNS_MIN), AURORA_AHEAD_RUNS_MAX);
	w = MemoryContextAlloc(ahead->context, sizeof(AuroraAheadWindow));
	w->depth = aurora_scan_prefetch_pages > 1 ? depth : 0;
	w->run_max = aurora_scan_prefetch_pages;
	for (int i = 0; i < lengthof(w->runs); i++)
		w->runs[i].id = 0;
	w->next_run = 0;
	empty_window(w);
	return w;
}

/* ---- looking ahead ---- */

/*
 * Should this block be asked for?  If so, *not_before is raised to what its
 * read has to cover.
 */
static bool
worth_asking(const RelFileNode *rnode, BlockNumber blk, XLogRecPtr applied,
			 XLogRecPtr *not_before)
{
	XLogRecPtr	lsn;

	if (aurora_is_cached(rnode, blk))
		return false;
	if (XLogRecPtrIsInvalid(applied))
		return true;			/* a standby */
	lsn = aurora_last_written_get(rnode, blk);
	if (lsn > applied)
		return false;
	*not_before = Max(*not_before, lsn);
	return true;
}

/* Up to which LSN nobody has to wait for long; 0 on a standby, which reads
 * what it has replayed, and so has storage. */
static XLogRecPtr
applied_on_storage(bool standby)
{
	XLogRecPtr	flushed;
	XLogRecPtr	applied;

	if (standby)
		return InvalidXLogRecPtr;
	flushed = GetFlushRecPtr(NULL);
	applied = pg_atomic_read_u64(&aurora_ship->applied_lsn);
	return XLogRecPtrIsInvalid(applied) ? flushed : Min(applied, flushed);
}

static void
push(AuroraAheadWindow *w, BlockNumber blk, int run, int place)
{
	Entry	   *e = &w->entries[(w->first + w->len) % WINDOW_MAX];

	Assert(w->len < WINDOW_MAX);
	e->blk = blk;
	e->run = run;
	e->place = place;
	w->len++;
	w->last = blk;
}

/*
 * Look at the next `want` blocks, beginning with `blk`, and ask for those that
 * are missing.
 */
static void
ask_run(AuroraAhead *ahead, BlockNumber blk, int want)
{
	AuroraAheadWindow *w = ahead->window;
	const RelFileNode *rnode = &ahead->rel->rd_node;
	Run		   *run = &w->runs[w->next_run];
	bool		standby = RecoveryInProgress();
	XLogRecPtr	applied = applied_on_storage(standby);
	XLogRecPtr	not_before = InvalidXLogRecPtr;
	int			n = 0;

	Assert(run->unread == 0);
	if (run->id != 0)
		forget_run(run);
	run->read_lsn = InvalidXLogRecPtr;
	if (standby)
		aurora_read_point(rnode, blk, &not_before, &run->read_lsn);
	want = Min(want, WINDOW_MAX - w->len);
	for (int i = 0; i < want && BlockNumberIsValid(blk); i++)
	{
		bool		ask = worth_asking(rnode, blk, applied, &not_before);

		push(w, blk, ask ? w->next_run : NO_RUN, n);
		if (ask)
			run->blocks[n++] = blk;
		blk = ahead->next(ahead->arg, blk);
	}
	w->run_len = want;
	w->cached_runs = n == 0 ? w->cached_runs + 1 : 0;
	if (n == 0)
		return;
	run->n = run->unread = n;
	run->taken = run->failed = false;
	run->id = aurora_client_ask_pages(rnode, run->blocks, n, not_before,
									  run->read_lsn);
	w->next_run = (w->next_run + 1) % (w->depth + 2);
}

/* A run was begun: have the next ones on their way. */
static void
look_ahead(AuroraAhead *ahead)
{
	AuroraAheadWindow *w = ahead->window;
	BlockNumber blk;

	if (w->len > w->run_len * w->depth || w->len == WINDOW_MAX ||
		w->runs[w->next_run].unread > 0 ||
		w->cached_runs >= CACHED_RUNS_MAX)
		return;
	blk = ahead->next(ahead->arg, w->last);
	if (BlockNumberIsValid(blk))
		ask_run(ahead, blk, Min(2 * w->run_len, w->run_max));
}

/* ---- reading ---- */

/* Take the window's first entry off it. */
static void
pop(AuroraAheadWindow *w, Entry *e)
{
	*e = w->entries[w->first];
	w->first = (w->first + 1) % WINDOW_MAX;
	w->len--;
	if (e->run != NO_RUN)
		w->runs[e->run].unread--;
}

/*
 * Take blk, and what comes before it, off the window; *found is its entry.
 * False: it is not there.  A reader may leave out some of what it announced,
 * and read some of what it has not; but if that goes on for a while, the
 * window is of no use.
 */
static bool
pop_to(AuroraAheadWindow *w, BlockNumber blk, Entry *found)
{
	for (int i = 0; i < w->len; i++)
	{
		if (w->entries[(w->first + i) % WINDOW_MAX].blk != blk)
			continue;
		do
			pop(w, found);
		while (i-- > 0);
		w->strangers = 0;
		return true;
	}
	if (++w->strangers >= STRANGERS_MAX)
		empty_window(w);
	return false;
}

/*
 * The page that an answer brought, waiting for the answer if it is not there
 * yet; NULL if there is none that can be used.  *complete_to: all changes up
 * to there are in it.
 */
static const uint8 *
answered_page(AuroraAheadWindow *w, const RelFileNode *rnode, const Entry *e,
			  XLogRecPtr *complete_to)
{
	Run		   *run;

	if (e->run == NO_RUN)
		return NULL;
	run = &w->runs[e->run];
	if (run->blocks[e->place] != e->blk)
		elog(ERROR, "read-ahead of block %u was confused with block %u",
			 e->blk, run->blocks[e->place]);
	if (run->failed || !aurora_client_asked(run->id))
		return NULL;
	if (!run->taken)
	{
		instr_time	start;

		aurora_wait_start(&start);
		run->failed = true;		/* also if an error is raised in here */
		run->failed = !aurora_client_take_pages(run->id, rnode, run->blocks,
												run->n, &run->pages);
		run->taken = true;
		aurora_wait_end(&start, AURORA_FETCH_AHEAD);
		if (!run->failed)
			aurora_cache_pending.fetched_pages += run->n;
	}
	if (run->failed || run->pages.status[e->place] != AU_OK)
		return NULL;
	*complete_to = XLogRecPtrIsInvalid(run->read_lsn) ?
		run->pages.as_of : run->read_lsn;
	return run->pages.page[e->place];
}

/* The block is not cached; find out what an answer says about it. */
static const uint8 *
find_page(AuroraAhead *ahead, BlockNumber blk, XLogRecPtr *complete_to)
{
	AuroraAheadWindow *w = ahead->window;
	Entry		e;

	if (w == NULL)
		w = ahead->window = make_window(ahead);
	if (w->depth == 0)
		return NULL;
	if (w->len == 0)
	{
		/* begin, or begin again, unless there is only this one */
		if (!BlockNumberIsValid(ahead->next(ahead->arg, blk)))
			return NULL;
		w->cached_runs = 0;
		w->strangers = 0;
		ask_run(ahead, blk, Min(RUN_FIRST, w->run_max));
		pop(w, &e);
		Assert(e.blk == blk);
	}
	else if (pop_to(w, blk, &e))
	{
		/* the run that has our page must stay, even if all else is read */
		if (e.run != NO_RUN)
			w->runs[e.run].unread++;
		look_ahead(ahead);
		if (e.run != NO_RUN)
			w->runs[e.run].unread--;
	}
	else
		return NULL;
	return answered_page(w, &ahead->rel->rd_node, &e, complete_to);
}

Buffer
aurora_ahead_read(AuroraAhead *ahead, BlockNumber blk,
				  BufferAccessStrategy strategy)
{
	AuroraAheadWindow *w = ahead->window;
	const uint8 *page;
	XLogRecPtr	complete_to = InvalidXLogRecPtr;
	Buffer		buf;

	if (!aurora_rel_is_remote(ahead->rel))
		return aurora_read_buffer(ahead->rel, blk, strategy);
	buf = aurora_read_cached(ahead->rel, blk, strategy);
	if (BufferIsValid(buf))
	{
		Entry		e;

		if (w != NULL && w->len > 0 && pop_to(w, blk, &e))
			look_ahead(ahead);
		return buf;
	}
	page = find_page(ahead, blk, &complete_to);
	return aurora_read_missing(ahead->rel, blk, strategy, page, complete_to);
}
