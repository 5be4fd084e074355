/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_pagestore_read.c: a page as of an LSN.
 *
 * Sources are looked at from the newest back: current generation, frozen
 * generation, RocksDB.  Collecting stops at the first item that needs nothing
 * older; then the items are applied oldest first.
 *
 *     floor        base                                 lsn
 *  ─────┴───────────┴──p──p──p──┬──p──p──┬──p──p──p──────┴──▶
 *   earlier life    RocksDB     │ frozen │ current
 *
 * A frozen generation may be in RocksDB already: an item is taken only if it
 * is older than the last one taken.
 */
#include "store/au_pagestore_int.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/au_page.h"

static bool
push_ref(AuPageStore *ps, AuLsn lsn, const uint8_t *ops, uint32_t len)
{
	if (ps->nrefs == ps->refs_cap)
	{
		uint32_t	cap = ps->refs_cap == 0 ? 256 : ps->refs_cap * 2;
		AuReadRef  *bigger = realloc(ps->refs, cap * sizeof(*bigger));

		if (bigger == NULL)
			return false;
		ps->refs = bigger;
		ps->refs_cap = cap;
	}
	ps->refs[ps->nrefs++] = (AuReadRef)
	{
		lsn, ops, len
	};
	return true;
}

void
au_ps_release(AuPageStore *ps)
{
	while (ps->scratch != NULL)
	{
		AuScratch  *next = ps->scratch->next;

		free(ps->scratch);
		ps->scratch = next;
	}
	ps->scratch_bytes = 0;
	ps->nrefs = 0;
}

/* Items of a generation; *done if a base was found, or any at all if that is
 * enough (sizes). */
static AuStatus
collect_pending(AuPageStore *ps, const AuPending *g, uint8_t keyspace,
				const AuPageId *page, AuLsn lsn, AuLsn floor, AuLsn *below, bool *done)
{
	AuPendEntry *e = au_pending_find(g, keyspace, page);

	if (e == NULL)
		return AU_OK;
	for (AuPendSegment *seg = e->newest; seg != NULL; seg = seg->older)
	{
		for (AuPendItem *item = seg->newest; item != NULL; item = item->older)
		{
			if (item->lsn > lsn || item->lsn >= *below)
				continue;
			if (item->lsn <= floor)
				return AU_OK;
			if (!push_ref(ps, item->lsn, item->ops, item->len))
				return AU_NOMEM;
			*below = item->lsn;
			if (item->full || keyspace == AU_KS_SIZE)
			{
				*done = true;
				return AU_OK;
			}
		}
	}
	return AU_OK;
}

/* The value must outlive the iterator's move. */
static const uint8_t *
keep_value(AuPageStore *ps, const uint8_t *value, size_t len)
{
	AuScratch  *s;

	if (ps->scratch_bytes + len > AU_READ_SCRATCH_MAX)
		return NULL;
	s = malloc(sizeof(*s) + len);
	if (s == NULL)
		return NULL;
	s->next = ps->scratch;
	ps->scratch = s;
	ps->scratch_bytes += len;
	memcpy(s->data, value, len);
	return s->data;
}

/* Items of one bundle that count, newest first, down to its last base. */
static AuStatus
collect_bundle(AuPageStore *ps, const AuBundle *b, uint8_t keyspace,
			   AuLsn lsn, AuLsn floor, AuLsn *below, bool *done)
{
	uint32_t	first = ps->nrefs;
	size_t		pos = 0;
	AuItem		item;

	while (au_bundle_next(b, &pos, &item))
	{
		if (item.lsn > lsn || item.lsn >= *below)
			break;
		if (item.lsn <= floor)
			continue;
		if (keyspace == AU_KS_SIZE || au_ops_self_contained(item.ops, item.len))
		{
			ps->nrefs = first;
			*done = true;
		}
		if (!push_ref(ps, item.lsn, item.ops, item.len))
			return AU_NOMEM;
	}
	if (ps->nrefs > first)
		*below = ps->refs[first].lsn;
	for (uint32_t i = first, j = ps->nrefs; i + 1 < j; i++, j--)
	{
		AuReadRef	t = ps->refs[i];

		ps->refs[i] = ps->refs[j - 1];
		ps->refs[j - 1] = t;
	}
	return AU_OK;
}

static AuStatus
fail(AuPageStore *ps, AuStatus status, uint8_t keyspace, const AuPageId *page,
	 AuLsn lsn, const char *why)
{
	if (keyspace == AU_KS_SIZE)
		snprintf(ps->error, sizeof(ps->error),
				 "size of relation %u/%u/%u at %X/%X: %s",
				 page->rel.spc, page->rel.db, page->rel.rel, AU_LSN_ARGS(lsn), why);
	else
		snprintf(ps->error, sizeof(ps->error),
				 "block %u of relation %u/%u/%u at %X/%X: %s", page->blk,
				 page->rel.spc, page->rel.db, page->rel.rel, AU_LSN_ARGS(lsn), why);
	if (status == AU_CORRUPT)
		ps->stats.corrupt++;
	return status;
}

static AuStatus
iter_status(AuPageStore *ps, uint8_t keyspace, const AuPageId *page, AuLsn lsn)
{
	char	   *err = NULL;
	AuStatus	status;

	rocksdb_iter_get_error(ps->iter, &err);
	if (err == NULL)
		return AU_OK;
	status = strncmp(err, "Corruption", 10) == 0 ? AU_CORRUPT : AU_IO;
	fail(ps, status, keyspace, page, lsn, err);
	rocksdb_free(err);
	au_ps_drop_iter(ps);
	return status;
}

static AuStatus
collect_stored(AuPageStore *ps, uint8_t keyspace, const AuPageId *page,
			   AuLsn lsn, AuLsn floor, AuLsn *below, bool *done, uint32_t *bundles)
{
	uint8_t		seek[AU_KEY_LEN];
	AuLsn		from = *below <= lsn ? *below - 1 : lsn;

	if (ps->iter == NULL)
		ps->iter = rocksdb_create_iterator(ps->db, ps->read_options);
	au_key_encode(seek, keyspace, page, from);
	rocksdb_iter_seek(ps->iter, (const char *) seek, AU_KEY_LEN);
	while (!*done && rocksdb_iter_valid(ps->iter))
	{
		size_t		klen,
					vlen;
		const uint8_t *key = (const uint8_t *) rocksdb_iter_key(ps->iter, &klen);
		const uint8_t *value;
		uint8_t		key_copy[AU_KEY_LEN];
		AuBundle	b;
		AuPageId	found;
		AuLsn		key_lsn;
		uint8_t		ks;
		const char *why;
		AuStatus	status;

		if (!au_key_decode(key, klen, &ks, &found, &key_lsn) ||
			memcmp(key, seek, AU_KEY_PAGE_LEN) != 0 || key_lsn <= floor)
			break;
		memcpy(key_copy, key, AU_KEY_LEN);
		value = (const uint8_t *) rocksdb_iter_value(ps->iter, &vlen);
		if (au_bundle_parse(key_copy, value, vlen, &b, &why) != AU_OK)
			return fail(ps, AU_CORRUPT, keyspace, page, key_lsn, why);
		if (keyspace == AU_KS_PAGE && (b.self_from > lsn || b.self_from >= *below))
		{
			/* its base, if any, will not be taken: older bundles are needed
			 * too, so this one must be kept */
			value = keep_value(ps, value, vlen);
			if (value == NULL)
				return fail(ps, AU_NOMEM, keyspace, page, lsn, "out of memory");
			b.items = value + AU_BUNDLE_HEADER;
		}
		++*bundles;
		ps->stats.bundles_read++;
		status = collect_bundle(ps, &b, keyspace, lsn, floor, below, done);
		if (status != AU_OK)
			return fail(ps, status, keyspace, page, lsn, "out of memory");
		if (!*done)
			rocksdb_iter_next(ps->iter);
	}
	return *done ? AU_OK : iter_status(ps, keyspace, page, lsn);
}

/*
 * Fill ps->refs with what makes the page (or, for a size, its item) as of
 * lsn, newest first; nrefs = 0: nothing above floor.  AU_OK, AU_CORRUPT (also
 * when a base is missing), AU_IO, AU_NOMEM.  Pair with au_ps_release.
 */
AuStatus
au_ps_collect(AuPageStore *ps, uint8_t keyspace, const AuPageId *page,
			  AuLsn lsn, AuLsn floor, uint32_t *bundles)
{
	AuLsn		below = AU_LSN_MAX;
	bool		done = false;
	AuStatus	status;

	assert(ps->nrefs == 0 && ps->scratch == NULL);
	*bundles = 0;
	status = collect_pending(ps, ps->current, keyspace, page, lsn, floor, &below, &done);
	if (status == AU_OK && !done && ps->has_frozen)
		status = collect_pending(ps, ps->frozen, keyspace, page, lsn, floor, &below, &done);
	if (status != AU_OK)
		return fail(ps, status, keyspace, page, lsn, "out of memory");
	if (!done)
		status = collect_stored(ps, keyspace, page, lsn, floor, &below, &done, bundles);
	if (status != AU_OK)
		return status;
	if (!done && ps->nrefs > 0)
		return fail(ps, AU_CORRUPT, keyspace, page, ps->refs[ps->nrefs - 1].lsn,
					"its first version is missing");
	return AU_OK;
}

static AuStatus
size_item_at(AuPageStore *ps, const AuRelId *rel, AuLsn lsn, AuSizeItem *item, bool *found)
{
	AuPageId	id = {.rel = *rel,.blk = AU_SIZE_BLOCK};
	uint32_t	bundles;
	AuStatus	status = au_ps_collect(ps, AU_KS_SIZE, &id, lsn, 0, &bundles);

	*found = status == AU_OK && ps->nrefs > 0;
	if (*found && !au_size_item_decode(ps->refs[0].ops, ps->refs[0].len, item))
		status = fail(ps, AU_CORRUPT, AU_KS_SIZE, &id, ps->refs[0].lsn,
					  "the stored size is damaged");
	au_ps_release(ps);
	return status;
}

AuStatus
au_pagestore_size(AuPageStore *ps, const AuRelId *id, AuLsn lsn, uint32_t *nblocks)
{
	AuRel	   *rel = au_ps_rel(ps, id, false);
	AuSizeItem	item;
	bool		found;
	AuStatus	status;

	*nblocks = 0;
	if (rel == NULL)
		return AU_OK;
	if (lsn >= rel->size_lsn)
	{
		*nblocks = rel->nblocks;
		return AU_OK;
	}
	status = size_item_at(ps, id, lsn, &item, &found);
	if (status == AU_OK && found)
		*nblocks = item.nblocks;
	return status;
}

static AuStatus
apply_refs(AuPageStore *ps, const AuPageId *page, uint8_t *out, uint64_t *bytes)
{
	AuLsn		lsn = 0;

	*bytes = 0;
	for (uint32_t i = ps->nrefs; i > 0; i--)
	{
		const AuReadRef *ref = &ps->refs[i - 1];
		const char *why = NULL;

		assert(ref->lsn > lsn);
		if (au_page_apply(out, ref->ops, ref->len, &why) != AU_OK)
			return fail(ps, AU_CORRUPT, AU_KS_PAGE, page, ref->lsn,
						why ? why : "a change does not fit the page");
		lsn = ref->lsn;
		*bytes += ref->len;
	}
	au_page_set_lsn(out, lsn);
	ps->stats.items_applied += ps->nrefs;
	return AU_OK;
}

AuStatus
au_pagestore_read(AuPageStore *ps, const AuPageId *page, AuLsn lsn, uint8_t *out)
{
	AuRel	   *rel = au_ps_rel(ps, &page->rel, false);
	uint32_t	nblocks,
				bundles;
	uint64_t	bytes;
	AuStatus	status;
	bool		lengthy;

	ps->stats.pages_read++;
	status = au_pagestore_size(ps, &page->rel, lsn, &nblocks);
	if (status != AU_OK)
		return status;
	if (rel == NULL || page->blk >= nblocks)
		return AU_NOT_FOUND;
	status = au_ps_collect(ps, AU_KS_PAGE, page, lsn,
						   au_rel_floor(rel, page->blk, lsn), &bundles);
	if (status == AU_OK && ps->nrefs == 0)
		status = AU_NOT_FOUND;
	if (status == AU_OK)
	{
		memset(out, 0, AU_PAGE_SIZE);
		status = apply_refs(ps, page, out, &bytes);
	}
	lengthy = status == AU_OK && lsn == AU_LSN_MAX &&
		(ps->nrefs > AU_READ_ITEMS_LONG || bytes > AU_READ_BYTES_LONG ||
		 bundles > AU_READ_BUNDLES_LONG);
	au_ps_release(ps);
	if (lengthy && !au_pagestore_full(ps))
		au_ps_add_image(ps, page, out);
	return status;
}
