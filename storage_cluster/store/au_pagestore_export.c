/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_pagestore_export.c: versions of a store as chunks for another one.
 *
 *   begin (owner)   iterator, horizon, events that are not collected yet
 *        ▼
 *   work (any)      bundles from `from` on, cut where they straddle ──▶ chunk
 *        ▼
 *   end (owner)
 *
 * Everything at or below `upto` is in RocksDB (begin sees to it), so memory
 * need not be looked at, and nothing has to be kept between two chunks: what
 * is at or below `upto` does not change any more, but for what compactions
 * and the collector remove because it is below the horizon.
 *
 * Left out, for nobody may ask for it at or above the horizon F of the chunk:
 * versions older than a whole page at or below F; versions of a life of the
 * page that a drop or truncation at or below F has ended.  The latter
 * matters: the store that imports may have forgotten that event.
 */
#include "store/au_pagestore_int.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/au_page.h"

/* A step that finds nothing to send ends after so many keys. */
#define KEYS_PER_STEP 50000
#define ENTRIES_MAX (AU_CHUNK_MAX - AU_CHUNK_MIN)

struct AuExport
{
	rocksdb_iterator_t *it;
	AuExportSet set;
	uint64_t	system_identifier;
	AuLsn		upto;
	AuLsn		horizon;
	AuPlace		from;
	AuGcEvent  *events;			/* at or below the horizon, by LSN */
	uint32_t	nevents;
	char		error[512];

	/* the page at hand */
	bool		any;
	AuPageId	page;
	AuLsn		below;			/* items at or above are not wanted */
	AuLsn		floor;			/* nor those at or below */
	bool		complete;		/* nothing older is wanted */
	AuLsn		last;			/* first LSN of the newest bundle taken, 0: none */
	size_t		page_begin;		/* in the chunk */
	uint32_t	count_begin;

	AuItem	   *items;			/* of a bundle that is cut */
	uint32_t	items_cap;
};

AuLsn
au_pagestore_written_lsn(const AuPageStore *ps)
{
	return ps->written.applied;
}

static bool
all_kept(const AuPageStore *ps, const AuExportSet *set)
{
	const AuSlicesRecord *r = &ps->slices.now;

	if (!r->told || set->keyspace == AU_KS_SIZE)
		return true;
	for (int i = 0; i < AU_SLICES / 64; i++)
		if (((set->all ? ~UINT64_C(0) : set->slices.bits[i]) & ~r->kept.bits[i]) != 0)
			return false;
	return true;
}

/* Events that are in effect at the horizon and not collected. */
static bool
copy_events(const AuPageStore *ps, AuExport *e)
{
	uint32_t	n = ps->gc_head;

	if (e->set.keyspace != AU_KS_PAGE)
		return true;
	while (n < ps->gc_count && ps->gc[n].lsn <= e->horizon)
		n++;
	n -= ps->gc_head;
	if (n == 0)
		return true;
	e->events = malloc(n * sizeof(*e->events));
	if (e->events == NULL)
		return false;
	memcpy(e->events, ps->gc + ps->gc_head, n * sizeof(*e->events));
	e->nevents = n;
	return true;
}

AuStatus
au_pagestore_export_begin(AuPageStore *ps, const AuExportSet *set, AuLsn upto, AuLsn horizon,
						  const AuPlace *from, AuExport **out)
{
	AuExport   *e;

	*out = NULL;
	if (upto > ps->written.applied)
		return AU_NEED_MORE;
	if (!all_kept(ps, set))
		return AU_MOVED;
	if (upto < ps->meta.horizon)
		return AU_GONE;
	e = calloc(1, sizeof(*e));
	if (e == NULL)
		return AU_NOMEM;
	e->set = *set;
	e->system_identifier = ps->meta.system_identifier;
	e->upto = upto;
	e->horizon = horizon > upto ? upto : horizon;
	if (e->horizon < ps->meta.horizon)
		e->horizon = ps->meta.horizon;
	e->from = *from;
	if (!copy_events(ps, e))
	{
		free(e);
		return AU_NOMEM;
	}
	e->it = rocksdb_create_iterator(ps->db, ps->scan_options);
	*out = e;
	return AU_OK;
}

void
au_pagestore_export_end(AuExport *e)
{
	if (e == NULL)
		return;
	rocksdb_iter_destroy(e->it);
	free(e->events);
	free(e->items);
	free(e);
}

const char *
au_pagestore_export_error(const AuExport *e)
{
	return e->error;
}

/* ---- a bundle --------------------------------------------------------- */

static AuStatus
fail(AuExport *e, AuStatus status, const AuPageId *page, AuLsn lsn, const char *why)
{
	snprintf(e->error, sizeof(e->error), "block %u of relation %u/%u/%u at %X/%X: %s", page->blk,
			 page->rel.spc, page->rel.db, page->rel.rel, AU_LSN_ARGS(lsn), why);
	return status;
}

/* Items that are wanted; their number, UINT32_MAX: out of memory. */
static uint32_t
wanted_items(AuExport *e, const AuBundle *b, AuLsn limit, size_t *bytes, AuLsn *self_from)
{
	AuItem		item;
	size_t		pos = 0;
	uint32_t	n = 0;

	if (b->nitems > e->items_cap)
	{
		free(e->items);
		e->items_cap = b->nitems * 2;
		e->items = malloc(e->items_cap * sizeof(*e->items));
		if (e->items == NULL)
		{
			e->items_cap = 0;
			return UINT32_MAX;
		}
	}
	*bytes = 0;
	*self_from = AU_LSN_MAX;
	while (au_bundle_next(b, &pos, &item))
	{
		if (item.lsn > limit || item.lsn <= e->floor)
			continue;
		if (*self_from == AU_LSN_MAX && e->set.keyspace == AU_KS_PAGE &&
			au_ops_self_contained(item.ops, item.len))
			*self_from = item.lsn;
		*bytes += item.len;
		e->items[n++] = item;
	}
	return n;
}

typedef struct Out
{
	uint8_t    *p;
	size_t		len;
	uint32_t	count;
} Out;

/*
 * Adds what is wanted of a bundle.  AU_FULL: there is no room, or no memory
 * (then with an error).
 */
static AuStatus
add_bundle(AuExport *e, Out *out, const uint8_t *key, AuLsn first, const AuBundle *b,
		   const uint8_t *value, size_t vlen)
{
	AuLsn		limit = e->below - 1 < e->upto ? e->below - 1 : e->upto;
	uint8_t    *to = out->p + out->len;
	AuLsn		self_from = b->self_from;
	size_t		len = vlen;
	uint32_t	n = b->nitems;
	size_t		bytes = 0;
	bool		cut = b->last_lsn > limit || first <= e->floor;

	if (cut)
	{
		n = wanted_items(e, b, limit, &bytes, &self_from);
		if (n == UINT32_MAX)
			return fail(e, AU_NOMEM, &e->page, first, "out of memory");
		len = au_bundle_size(n, bytes);
	}
	if (out->len + AU_CHUNK_ENTRY + len > ENTRIES_MAX)
		return AU_FULL;
	if (n > 0)
	{
		memcpy(to, key, AU_KEY_LEN);
		if (cut)
		{
			au_key_encode(to, e->set.keyspace, &e->page, e->items[0].lsn);
			au_bundle_encode(to + AU_CHUNK_ENTRY, to, e->items, n, self_from);
		}
		else
			memcpy(to + AU_CHUNK_ENTRY, value, vlen);
		au_put_u32(to + AU_KEY_LEN, (uint32_t) len);
		out->len += AU_CHUNK_ENTRY + len;
		out->count++;
		e->last = cut ? e->items[0].lsn : first;
	}
	e->complete = first <= e->floor || self_from <= e->horizon;
	return AU_OK;
}

/* ---- the walk --------------------------------------------------------- */

static AuLsn
floor_of(const AuExport *e, const AuPageId *page)
{
	for (uint32_t i = e->nevents; i > 0; i--)
	{
		const AuGcEvent *event = &e->events[i - 1];

		if (au_rel_id_equal(&event->rel, &page->rel) && page->blk >= event->cut)
			return event->lsn;
	}
	return 0;
}

static void
begin_page(AuExport *e, const Out *out, const AuPageId *page)
{
	AuPageId	first;
	uint8_t		ks;

	e->any = true;
	e->page = *page;
	e->floor = floor_of(e, page);
	e->below = AU_LSN_MAX;
	e->complete = false;
	e->last = 0;
	e->page_begin = out->len;
	e->count_begin = out->count;
	if (au_key_decode(e->from.key, AU_KEY_LEN, &ks, &first, &e->below) &&
		(first.blk != page->blk || !au_rel_id_equal(&first.rel, &page->rel)))
		e->below = AU_LSN_MAX;
}

/* The chunk ends with or before the page at hand. */
static void
end_within(AuExport *e, Out *out, AuPlace *next)
{
	if (e->page_begin > 0 || e->last == 0)
	{
		/* without it: then it begins the next one, as a whole */
		out->len = e->page_begin;
		out->count = e->count_begin;
		au_key_encode(next->key, e->set.keyspace, &e->page, e->below);
	}
	else
		au_key_encode(next->key, e->set.keyspace, &e->page, e->last);
}

/* Where the iterator stands is of no interest: the key of what may be. */
static bool
skip_to(AuExport *e, const AuPageId *page, AuLsn lsn, uint8_t *seek)
{
	AuLsn		limit = e->below - 1 < e->upto ? e->below - 1 : e->upto;

	if (e->set.keyspace == AU_KS_PAGE && !e->set.all &&
		!au_slices_has(&e->set.slices, au_slice_of(&page->rel, page->blk)))
		au_ps_next_extent_key(seek, page, &e->set.slices);
	else if (e->complete)
		au_ps_next_page_key(seek, e->set.keyspace, page);
	else if (lsn > limit)
		au_key_encode(seek, e->set.keyspace, page, limit);
	else
		return false;
	return true;
}

static bool
behind_last(const AuExport *e, const uint8_t *key)
{
	uint8_t		end[AU_KEY_LEN];

	if (!e->set.ranged)
		return false;
	au_ps_next_page_key(end, e->set.keyspace, &e->set.last);
	return memcmp(key, end, AU_KEY_LEN) >= 0;
}

static AuStatus
iterator_error(AuExport *e)
{
	char	   *dberr = NULL;
	AuStatus	status;

	rocksdb_iter_get_error(e->it, &dberr);
	if (dberr == NULL)
		return AU_OK;
	status = strncmp(dberr, "Corruption", 10) == 0 ? AU_CORRUPT : AU_IO;
	snprintf(e->error, sizeof(e->error), "could not read the page store: %s", dberr);
	rocksdb_free(dberr);
	return status;
}

/* From e->from on.  AU_OK: *next is set unless there is no more (*done). */
static AuStatus
walk(AuExport *e, Out *out, size_t budget, AuPlace *next, bool *done)
{
	uint8_t		seek[AU_KEY_LEN];

	*done = false;
	rocksdb_iter_seek(e->it, (const char *) e->from.key, AU_KEY_LEN);
	for (uint32_t n = 0; rocksdb_iter_valid(e->it); n++)
	{
		size_t		klen,
					vlen;
		const uint8_t *key = (const uint8_t *) rocksdb_iter_key(e->it, &klen);
		const uint8_t *value;
		AuPageId	page;
		AuBundle	b;
		AuLsn		lsn;
		uint8_t		ks;
		const char *why;
		AuStatus	status;

		if (!au_key_decode(key, klen, &ks, &page, &lsn) || ks != e->set.keyspace ||
			behind_last(e, key))
			break;
		if (!e->any || e->page.blk != page.blk || !au_rel_id_equal(&e->page.rel, &page.rel))
		{
			if (e->any && (out->len >= budget || n >= KEYS_PER_STEP))
			{
				au_key_encode(next->key, ks, &page, AU_LSN_MAX);
				return AU_OK;
			}
			begin_page(e, out, &page);
		}
		if (skip_to(e, &page, lsn, seek))
		{
			rocksdb_iter_seek(e->it, (const char *) seek, AU_KEY_LEN);
			continue;
		}
		value = (const uint8_t *) rocksdb_iter_value(e->it, &vlen);
		if (au_bundle_parse(key, value, vlen, &b, &why) != AU_OK)
			return fail(e, AU_CORRUPT, &page, lsn, why);
		status = add_bundle(e, out, key, lsn, &b, value, vlen);
		if (status == AU_FULL && out->len == 0)
			return fail(e, AU_FULL, &page, lsn, "the version is too large to be sent");
		if (status == AU_FULL)
		{
			end_within(e, out, next);
			return AU_OK;
		}
		if (status != AU_OK)
			return status;
		rocksdb_iter_next(e->it);
	}
	*done = true;
	return iterator_error(e);
}

AuStatus
au_pagestore_export_work(AuExport *e, uint8_t *out, size_t budget, size_t *len)
{
	Out			entries = {out + AU_CHUNK_HEADER, 0, 0};
	AuChunk		chunk = {
		.system_identifier = e->system_identifier,.upto = e->upto,
		.horizon = e->horizon,.from = e->from
	};
	AuStatus	status = walk(e, &entries, budget, &chunk.next, &chunk.done);

	*len = 0;
	if (status != AU_OK)
		return status;
	if (chunk.done)
		memset(chunk.next.key, 0xFF, AU_KEY_LEN);
	chunk.count = entries.count;
	chunk.entries_len = entries.len;
	*len = au_chunk_finish(out, &chunk);
	return AU_OK;
}
