/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_pagestore_batch.c: many pages as of one LSN, the slow part on any thread.
 *
 *   begin (owner)      size and floors, items in memory ──▶ r->pending
 *        │             generations pinned, horizon held
 *        ▼
 *   read_page (any)    older items from RocksDB, apply ──▶ a page
 *        │
 *        ▼
 *   end (owner)        unpin; long chains get an image, if they still end
 *                      where this read saw them end
 *
 * au_pagestore.h lists what holds while a batch is under way, and why.  No
 * lock: what begin found never moves or changes (au_pending.h), the rest of
 * the batch belongs to one thread at a time, and handing it over is the
 * caller's (a queue with a mutex).
 */
#include "store/au_pagestore_int.h"

#include <assert.h>
#include <stdlib.h>

#include "common/au_page.h"

/* One block; what is in memory of it stands at r->pending[first ..]. */
typedef struct ReadPage
{
	AuCollect	found;			/* after looking into memory */
	uint32_t	first;
	uint32_t	n;
	uint8_t    *lengthy;		/* a copy of the page, if it deserves an image */
} ReadPage;

struct AuPageRead
{
	AuPageRead *prev,
			   *next;
	AuPageStore *ps;
	AuPending  *pinned[2];
	AuRelId		rel;
	AuLsn		lsn;
	bool		newest;
	bool		fills;			/* a run that fills the block cache */
	bool		here;			/* read by the owner thread, with its iterator */
	bool		known;			/* the relation is */
	bool		sized;			/* nblocks is right; else pages[count] is the size */
	uint32_t	nblocks;		/* of the relation at lsn */
	uint64_t	freezes;		/* as begin saw it */
	AuReadRef  *pending;
	uint16_t	count;
	AuReadCtx	ctx;
	char		error[512];
	ReadPage	pages[];		/* count, and one for the size */
};

AuLsn
au_ps_oldest_read(const AuPageStore *ps)
{
	AuLsn		oldest = AU_LSN_MAX;

	for (const AuPageRead *r = ps->reads; r != NULL; r = r->next)
		oldest = r->lsn < oldest ? r->lsn : oldest;
	return oldest;
}

bool
au_ps_reads_since(const AuPageStore *ps, uint64_t freezes)
{
	for (const AuPageRead *r = ps->reads; r != NULL; r = r->next)
		if (r->freezes <= freezes)
			return true;
	return false;
}

/* ---- begin ------------------------------------------------------------ */

static AuStatus
look(AuPageRead *r, uint16_t i, uint8_t keyspace, uint32_t blk, AuLsn floor)
{
	ReadPage   *p = &r->pages[i];
	AuStatus	status;

	p->first = r->ctx.nrefs;
	p->found = (AuCollect)
	{
		keyspace, {.rel = r->rel,.blk = blk}, r->lsn, floor, AU_LSN_MAX, false, 0
	};
	status = au_rc_collect_pending(r->ps, &r->ctx, &p->found);
	p->n = r->ctx.nrefs - p->first;
	return status;
}

/* Everything in memory that counts. */
static AuStatus
look_at_all(AuPageRead *r, const uint32_t *blocks)
{
	AuRel	   *rel = au_ps_rel(r->ps, &r->rel, false);
	AuStatus	status = AU_OK;

	if (rel == NULL)
		return AU_OK;
	r->known = true;
	r->sized = r->lsn >= rel->size_lsn;
	r->nblocks = rel->nblocks;
	for (uint16_t i = 0; i < r->count && status == AU_OK; i++)
		status = look(r, i, AU_KS_PAGE, blocks[i], au_rel_floor(rel, blocks[i], r->lsn));
	if (status == AU_OK && !r->sized)
		status = look(r, r->count, AU_KS_SIZE, AU_SIZE_BLOCK, 0);
	return status;
}

static void
free_read(AuPageRead *r)
{
	for (uint16_t i = 0; i < r->count; i++)
		free(r->pages[i].lengthy);
	free(r->pending);
	au_rc_free(&r->ctx);
	free(r);
}

/* Are so many blocks, in order, so close together that an iterator had better
 * go through them? */
static bool
is_run(const uint32_t *blocks, uint16_t n)
{
	for (uint16_t i = 1; i < n; i++)
		if (blocks[i] <= blocks[i - 1])
			return false;
	return n >= AU_READ_RUN_BLOCKS && blocks[n - 1] - blocks[0] < 2u * n;
}

AuPageRead *
au_pagestore_read_begin(AuPageStore *ps, const AuRelId *rel, const uint32_t *blocks,
						uint16_t nblocks, AuLsn lsn, bool newest)
{
	AuPageRead *r = calloc(1, sizeof(*r) + (nblocks + 1u) * sizeof(r->pages[0]));

	if (r == NULL)
		return NULL;
	r->ps = ps;
	r->rel = *rel;
	r->lsn = lsn;
	r->newest = newest;
	r->count = nblocks;
	r->freezes = ps->freezes;
	r->ctx.db = ps->db;
	r->ctx.error = r->error;
	r->ctx.error_len = sizeof(r->error);
	r->ctx.run = is_run(blocks, nblocks);
	r->fills = r->ctx.run && ps->runs++ % AU_READ_RUNS_FILL == 0;
	if (look_at_all(r, blocks) != AU_OK)
	{
		free_read(r);
		return NULL;
	}
	/* The context is used for one page at a time from here on. */
	r->pending = r->ctx.refs;
	r->ctx.refs = NULL;
	r->ctx.nrefs = r->ctx.refs_cap = 0;

	r->pinned[0] = ps->current;
	r->pinned[1] = ps->has_frozen ? ps->frozen : NULL;
	for (int i = 0; i < 2; i++)
		if (r->pinned[i] != NULL)
			au_pending_pin(r->pinned[i]);
	r->next = ps->reads;
	if (ps->reads != NULL)
		ps->reads->prev = r;
	ps->reads = r;
	ps->stats.pages_read += nblocks;
	return r;
}

/* ---- pages ------------------------------------------------------------ */

static const rocksdb_readoptions_t *
options_for(const AuPageRead *r, bool cached_only)
{
	if (cached_only)
		return r->ps->cached_options;
	if (!r->ctx.run)
		return r->ps->read_options;
	return r->fills ? r->ps->filling_run_options : r->ps->run_options;
}

/* With ps->own's iterator, if it has one that will do.  What it does not see,
 * because that was written since, is in a generation still: ps->own's contract. */
static void
use(AuPageRead *r, const rocksdb_readoptions_t *options)
{
	AuReadCtx  *own = &r->ps->own;

	au_rc_use(&r->ctx, options);
	if (!r->here || options != r->ps->read_options || own->options != options)
		return;
	r->ctx.iter = own->iter;
	own->iter = NULL;
}

/* Into r->ctx.refs; release afterwards. */
static AuStatus
collect(AuPageRead *r, uint16_t i, AuCollect *what)
{
	const ReadPage *p = &r->pages[i];
	AuReadCtx  *c = &r->ctx;

	assert(c->nrefs == 0);
	if (p->n > c->refs_cap)
	{
		AuReadRef  *bigger = realloc(c->refs, p->n * sizeof(*bigger));

		if (bigger == NULL)
			return au_rc_fail(c, AU_NOMEM, &p->found, r->lsn, "out of memory");
		c->refs = bigger;
		c->refs_cap = p->n;
	}
	if (p->n > 0)
		memcpy(c->refs, r->pending + p->first, p->n * sizeof(*c->refs));
	c->nrefs = p->n;
	*what = p->found;
	return what->done ? AU_OK : au_rc_collect_stored(c, what);
}

static AuStatus
find_size(AuPageRead *r)
{
	AuReadCtx  *c = &r->ctx;
	AuCollect	what;
	AuSizeItem	item;
	AuStatus	status = collect(r, r->count, &what);

	r->nblocks = 0;
	if (status == AU_OK && c->nrefs > 0)
	{
		if (au_size_item_decode(c->refs[0].ops, c->refs[0].len, &item))
			r->nblocks = item.nblocks;
		else
			status = au_rc_fail(c, AU_CORRUPT, &what, c->refs[0].lsn,
								"the stored size is damaged");
	}
	au_rc_release(c);
	r->sized = status == AU_OK;
	return status;
}

AuStatus
au_pagestore_read_page(AuPageRead *r, uint16_t i, bool cached_only, uint8_t *out)
{
	const rocksdb_readoptions_t *options = options_for(r, cached_only);
	AuCollect	what;
	AuStatus	status;
	bool		lengthy = false;

	assert(i < r->count);
	if (!r->known)
		return AU_NOT_FOUND;
	if (r->ctx.options != options)
		use(r, options);
	if (!r->sized)
	{
		status = find_size(r);
		if (status != AU_OK)
			return status;
	}
	if (r->pages[i].found.page.blk >= r->nblocks)
		return AU_NOT_FOUND;
	status = collect(r, i, &what);
	if (status == AU_OK)
		status = au_rc_build(&r->ctx, &what, out, &lengthy);
	au_rc_release(&r->ctx);
	/* without memory it gets none */
	if (lengthy && r->newest && r->pages[i].lengthy == NULL)
		r->pages[i].lengthy = malloc(AU_PAGE_SIZE);
	if (lengthy && r->pages[i].lengthy != NULL)
		memcpy(r->pages[i].lengthy, out, AU_PAGE_SIZE);
	return status;
}

void
au_pagestore_read_here(AuPageRead *r)
{
	assert(r->ctx.iter == NULL && r->count < AU_READ_RUN_BLOCKS);
	r->here = true;
}

void
au_pagestore_read_rest(AuPageRead *r)
{
	AuPageStore *ps = r->ps;

	if (r->here && r->ctx.iter != NULL && r->ctx.options == ps->read_options &&
		ps->own_reads++ < AU_READ_KEPT_MAX)
	{
		au_rc_use(&ps->own, ps->read_options);
		ps->own.iter = r->ctx.iter;
		r->ctx.iter = NULL;
		ps->own_used = true;
	}
	else if (r->here)
		ps->own_reads = 0;
	au_rc_use(&r->ctx, NULL);
}

void
au_pagestore_turn(AuPageStore *ps)
{
	if (!ps->own_used && ps->own.iter != NULL)
		au_ps_drop_iter(ps);
	ps->own_used = false;
}

const char *
au_pagestore_read_error(const AuPageRead *r)
{
	return r->error;
}

/* ---- end -------------------------------------------------------------- */

/*
 * Is what was read still the page's newest version, and may an image of it
 * follow what is in the current generation?  Not after a freeze: what came
 * after the read may then be in RocksDB, where the image would be out of
 * order.
 */
static bool
still_newest(AuPageRead *r, const ReadPage *p)
{
	AuPageStore *ps = r->ps;
	AuRel	   *rel = au_ps_rel(ps, &r->rel, false);
	AuPendEntry *e;

	if (ps->freezes != r->freezes || rel == NULL || p->found.page.blk >= rel->nblocks ||
		au_rel_floor(rel, p->found.page.blk, AU_LSN_MAX) != p->found.floor)
		return false;
	e = au_pending_find(ps->current, AU_KS_PAGE, &p->found.page);
	return e == NULL || (e->newest->newest->lsn == au_page_lsn(p->lengthy) &&
						 !e->newest->newest->full);
}

static void
retire(AuPageStore *ps)
{
	if (ps->retired == NULL || au_pending_pinned(ps->retired))
		return;
	au_pending_reset(ps->retired);
	ps->spare = ps->retired;
	ps->retired = NULL;
}

void
au_pagestore_read_end(AuPageRead *r)
{
	AuPageStore *ps = r->ps;

	for (uint16_t i = 0; i < r->count; i++)
		if (r->pages[i].lengthy != NULL && !au_pagestore_full(ps) &&
			still_newest(r, &r->pages[i]))
		{
			uint64_t	start = au_ps_now_us();

			au_ps_add_image(ps, &r->pages[i].found.page, r->pages[i].lengthy);
			au_hist_add(&ps->materialise, au_ps_now_us() - start);
		}
	for (int i = 0; i < 2; i++)
		if (r->pinned[i] != NULL)
			au_pending_unpin(r->pinned[i]);
	retire(ps);
	if (r->prev != NULL)
		r->prev->next = r->next;
	else
		ps->reads = r->next;
	if (r->next != NULL)
		r->next->prev = r->prev;
	ps->own.items_applied += r->ctx.items_applied;
	ps->own.bundles_read += r->ctx.bundles_read;
	ps->own.corrupt += r->ctx.corrupt;
	free_read(r);
}
