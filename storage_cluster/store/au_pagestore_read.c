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
 *
 * Functions au_rc_* work on an AuReadCtx and, but for au_rc_collect_pending,
 * run on any thread; those with an AuPageStore belong to the owner thread.
 */
#include "store/au_pagestore_int.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/au_page.h"

static bool
push_ref(AuReadCtx *c, AuLsn lsn, const uint8_t *ops, uint32_t len)
{
	if (c->nrefs == c->refs_cap)
	{
		uint32_t	cap = c->refs_cap == 0 ? 256 : c->refs_cap * 2;
		AuReadRef  *bigger = realloc(c->refs, cap * sizeof(*bigger));

		if (bigger == NULL)
			return false;
		c->refs = bigger;
		c->refs_cap = cap;
	}
	c->refs[c->nrefs++] = (AuReadRef)
	{
		lsn, ops, len
	};
	return true;
}

void
au_rc_release(AuReadCtx *c)
{
	while (c->scratch != NULL)
	{
		AuScratch  *next = c->scratch->next;

		free(c->scratch);
		c->scratch = next;
	}
	c->scratch_bytes = 0;
	c->nrefs = 0;
}

/* With a new iterator from here on. */
void
au_rc_use(AuReadCtx *c, const rocksdb_readoptions_t *options)
{
	if (c->iter != NULL)
		rocksdb_iter_destroy(c->iter);
	c->iter = NULL;
	c->options = options;
}

void
au_rc_free(AuReadCtx *c)
{
	au_rc_use(c, NULL);
	au_rc_release(c);
	free(c->refs);
	c->refs = NULL;
	c->refs_cap = 0;
}

AuStatus
au_rc_fail(AuReadCtx *c, AuStatus status, const AuCollect *what, AuLsn lsn, const char *why)
{
	const AuPageId *page = &what->page;

	if (what->keyspace == AU_KS_SIZE)
		snprintf(c->error, c->error_len, "size of relation %u/%u/%u at %X/%X: %s",
				 page->rel.spc, page->rel.db, page->rel.rel, AU_LSN_ARGS(lsn), why);
	else
		snprintf(c->error, c->error_len, "block %u of relation %u/%u/%u at %X/%X: %s",
				 page->blk, page->rel.spc, page->rel.db, page->rel.rel, AU_LSN_ARGS(lsn), why);
	if (status == AU_CORRUPT)
		c->corrupt++;
	return status;
}

/* ---- in memory -------------------------------------------------------- */

static AuStatus
collect_generation(AuReadCtx *c, const AuPending *g, AuCollect *what)
{
	AuPendEntry *e = au_pending_find(g, what->keyspace, &what->page);

	if (e == NULL)
		return AU_OK;
	for (AuPendSegment *seg = e->newest; seg != NULL; seg = seg->older)
	{
		for (AuPendItem *item = seg->newest; item != NULL; item = item->older)
		{
			if (item->lsn > what->lsn || item->lsn >= what->below)
				continue;
			if (item->lsn <= what->floor)
				return AU_OK;
			if (!push_ref(c, item->lsn, item->ops, item->len))
				return AU_NOMEM;
			what->below = item->lsn;
			if (item->full || what->keyspace == AU_KS_SIZE)
			{
				what->done = true;
				return AU_OK;
			}
		}
	}
	return AU_OK;
}

AuStatus
au_rc_collect_pending(AuPageStore *ps, AuReadCtx *c, AuCollect *what)
{
	AuStatus	status = collect_generation(c, ps->current, what);

	if (status == AU_OK && !what->done && ps->has_frozen)
		status = collect_generation(c, ps->frozen, what);
	if (status != AU_OK)
		return au_rc_fail(c, status, what, what->lsn, "out of memory");
	return AU_OK;
}

/* ---- in RocksDB ------------------------------------------------------- */

#ifdef __SANITIZE_THREAD__
/* RocksDB's memory: ThreadSanitizer has not seen who filled it, nor how it
 * came to this thread, so all of it is copied where it does not look. */
#define COPY_ALWAYS true
__attribute__((no_sanitize("thread")))
static void
copy_out(uint8_t *to, const uint8_t *from, size_t len)
{
	for (size_t i = 0; i < len; i++)
		to[i] = *(volatile const uint8_t *) &from[i];
}
#else
#define COPY_ALWAYS false
#define copy_out(to, from, len) memcpy(to, from, len)
#endif

/* The value must outlive the iterator's move. */
static const uint8_t *
keep_value(AuReadCtx *c, const uint8_t *value, size_t len)
{
	AuScratch  *s;

	if (c->scratch_bytes + len > AU_READ_SCRATCH_MAX)
		return NULL;
	s = malloc(sizeof(*s) + len);
	if (s == NULL)
		return NULL;
	s->next = c->scratch;
	c->scratch = s;
	c->scratch_bytes += len;
	copy_out(s->data, value, len);
	return s->data;
}

/* Items of one bundle that count, newest first, down to its last base. */
static AuStatus
collect_bundle(AuReadCtx *c, const AuBundle *b, AuCollect *what)
{
	uint32_t	first = c->nrefs;
	size_t		pos = 0;
	AuItem		item;

	while (au_bundle_next(b, &pos, &item))
	{
		if (item.lsn > what->lsn || item.lsn >= what->below)
			break;
		if (item.lsn <= what->floor)
			continue;
		if (what->keyspace == AU_KS_SIZE || au_ops_self_contained(item.ops, item.len))
		{
			c->nrefs = first;
			what->done = true;
		}
		if (!push_ref(c, item.lsn, item.ops, item.len))
			return AU_NOMEM;
	}
	if (c->nrefs > first)
		what->below = c->refs[first].lsn;
	for (uint32_t i = first, j = c->nrefs; i + 1 < j; i++, j--)
	{
		AuReadRef	t = c->refs[i];

		c->refs[i] = c->refs[j - 1];
		c->refs[j - 1] = t;
	}
	return AU_OK;
}

static AuStatus
iter_status(AuReadCtx *c, const AuCollect *what)
{
	char	   *err = NULL;
	AuStatus	status;

	rocksdb_iter_get_error(c->iter, &err);
	if (err == NULL)
		return AU_OK;
	if (strncmp(err, "Result incomplete", 17) == 0)
		status = AU_NEED_MORE;
	else
	{
		status = strncmp(err, "Corruption", 10) == 0 ? AU_CORRUPT : AU_IO;
		au_rc_fail(c, status, what, what->lsn, err);
	}
	rocksdb_free(err);
	au_rc_use(c, c->options);
	return status;
}

/* A few steps forward to the first key at or behind the wanted one. */
static bool
step_to(AuReadCtx *c, const uint8_t *seek)
{
	for (int i = 0; i < AU_READ_RUN_STEPS && rocksdb_iter_valid(c->iter); i++)
	{
		size_t		klen;
		const uint8_t *at = (const uint8_t *) rocksdb_iter_key(c->iter, &klen);
		uint8_t		key[AU_KEY_LEN];

		if (klen != AU_KEY_LEN)
			return false;
		copy_out(key, at, AU_KEY_LEN);
		if (memcmp(key, seek, AU_KEY_LEN) >= 0)
			return true;
		rocksdb_iter_next(c->iter);
	}
	return false;
}

/* In a run the wanted key is usually the next one, and a step costs a small
 * part of a seek, which searches every file. */
static void
find_key(AuReadCtx *c, const uint8_t *seek)
{
	bool		onward = c->run && c->iter != NULL && memcmp(c->sought, seek, AU_KEY_LEN) < 0;

	if (c->iter == NULL)
		c->iter = rocksdb_create_iterator(c->db, c->options);
	if (!onward || !step_to(c, seek))
		rocksdb_iter_seek(c->iter, (const char *) seek, AU_KEY_LEN);
	memcpy(c->sought, seek, AU_KEY_LEN);
}

AuStatus
au_rc_collect_stored(AuReadCtx *c, AuCollect *what)
{
	uint8_t		seek[AU_KEY_LEN];
	AuLsn		from = what->below <= what->lsn ? what->below - 1 : what->lsn;

	au_key_encode(seek, what->keyspace, &what->page, from);
	find_key(c, seek);
	while (!what->done && rocksdb_iter_valid(c->iter))
	{
		size_t		klen,
					vlen;
		const uint8_t *found_key = (const uint8_t *) rocksdb_iter_key(c->iter, &klen);
		const uint8_t *value;
		uint8_t		key[AU_KEY_LEN];
		AuBundle	b;
		AuPageId	found;
		AuLsn		key_lsn;
		uint8_t		ks;
		const char *why;
		AuStatus	status;

		if (klen != AU_KEY_LEN)
			return AU_OK;
		copy_out(key, found_key, AU_KEY_LEN);
		if (!au_key_decode(key, klen, &ks, &found, &key_lsn) ||
			memcmp(key, seek, AU_KEY_PAGE_LEN) != 0 || key_lsn <= what->floor)
			return AU_OK;
		value = (const uint8_t *) rocksdb_iter_value(c->iter, &vlen);
		if (COPY_ALWAYS && (value = keep_value(c, value, vlen)) == NULL)
			return au_rc_fail(c, AU_NOMEM, what, what->lsn, "out of memory");
		if (au_bundle_parse(key, value, vlen, &b, &why) != AU_OK)
			return au_rc_fail(c, AU_CORRUPT, what, key_lsn, why);
		if (!COPY_ALWAYS && what->keyspace == AU_KS_PAGE && (b.self_from > what->lsn || b.self_from >= what->below))
		{
			/* its base, if any, will not be taken: older bundles are needed
			 * too, so this one must be kept */
			value = keep_value(c, value, vlen);
			if (value == NULL)
				return au_rc_fail(c, AU_NOMEM, what, what->lsn, "out of memory");
			b.items = value + AU_BUNDLE_HEADER;
		}
		what->bundles++;
		c->bundles_read++;
		status = collect_bundle(c, &b, what);
		if (status != AU_OK)
			return au_rc_fail(c, status, what, what->lsn, "out of memory");
		if (!what->done)
			rocksdb_iter_next(c->iter);
	}
	return what->done ? AU_OK : iter_status(c, what);
}

static AuStatus
check_based(AuReadCtx *c, const AuCollect *what)
{
	if (!what->done && c->nrefs > 0)
		return au_rc_fail(c, AU_CORRUPT, what, c->refs[c->nrefs - 1].lsn,
						  "its first version is missing");
	return AU_OK;
}

/* ---- building --------------------------------------------------------- */

AuStatus
au_rc_build(AuReadCtx *c, const AuCollect *what, uint8_t *out, bool *lengthy)
{
	AuLsn		lsn = 0;
	uint64_t	bytes = 0;
	AuStatus	status = check_based(c, what);

	*lengthy = false;
	if (status != AU_OK)
		return status;
	if (c->nrefs == 0)
		return AU_NOT_FOUND;
	/* INIT and IMAGE write all of the page */
	if (!au_ops_self_contained(c->refs[c->nrefs - 1].ops, c->refs[c->nrefs - 1].len))
		memset(out, 0, AU_PAGE_SIZE);
	for (uint32_t i = c->nrefs; i > 0; i--)
	{
		const AuReadRef *ref = &c->refs[i - 1];
		const char *why = NULL;

		assert(ref->lsn > lsn);
		if (au_page_apply(out, ref->ops, ref->len, &why) != AU_OK)
			return au_rc_fail(c, AU_CORRUPT, what, ref->lsn,
							  why ? why : "a change does not fit the page");
		lsn = ref->lsn;
		bytes += ref->len;
	}
	au_page_set_lsn(out, lsn);
	c->items_applied += c->nrefs;
	*lengthy = c->nrefs > AU_READ_ITEMS_LONG || bytes > AU_READ_BYTES_LONG ||
		what->bundles > AU_READ_BUNDLES_LONG;
	return AU_OK;
}

/* ---- the owner thread's reads ----------------------------------------- */

void
au_ps_release(AuPageStore *ps)
{
	au_rc_release(&ps->own);
}

static AuStatus
collect_all(AuPageStore *ps, AuCollect *what)
{
	AuStatus	status;

	assert(ps->own.nrefs == 0 && ps->own.scratch == NULL);
	if (ps->own.options == NULL)
		au_rc_use(&ps->own, ps->read_options);
	status = au_rc_collect_pending(ps, &ps->own, what);
	if (status == AU_OK && !what->done)
		status = au_rc_collect_stored(&ps->own, what);
	return status;
}

/*
 * Fill ps->own.refs with what makes the page (or, for a size, its item) as of
 * lsn, newest first; nrefs = 0: nothing above floor.  AU_OK, AU_CORRUPT (also
 * when a base is missing), AU_IO, AU_NOMEM.  Pair with au_ps_release.
 */
AuStatus
au_ps_collect(AuPageStore *ps, uint8_t keyspace, const AuPageId *page,
			  AuLsn lsn, AuLsn floor, uint32_t *bundles)
{
	AuCollect	what = {keyspace, *page, lsn, floor, AU_LSN_MAX, false, 0};
	AuStatus	status = collect_all(ps, &what);

	*bundles = what.bundles;
	return status == AU_OK ? check_based(&ps->own, &what) : status;
}

static AuStatus
size_item_at(AuPageStore *ps, const AuRelId *rel, AuLsn lsn, AuSizeItem *item, bool *found)
{
	AuPageId	id = {.rel = *rel,.blk = AU_SIZE_BLOCK};
	uint32_t	bundles;
	AuStatus	status = au_ps_collect(ps, AU_KS_SIZE, &id, lsn, 0, &bundles);

	*found = status == AU_OK && ps->own.nrefs > 0;
	if (*found && !au_size_item_decode(ps->own.refs[0].ops, ps->own.refs[0].len, item))
	{
		AuCollect	what = {.keyspace = AU_KS_SIZE,.page = id};

		status = au_rc_fail(&ps->own, AU_CORRUPT, &what, ps->own.refs[0].lsn,
							"the stored size is damaged");
	}
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

AuStatus
au_pagestore_read(AuPageStore *ps, const AuPageId *page, AuLsn lsn, uint8_t *out)
{
	AuRel	   *rel = au_ps_rel(ps, &page->rel, false);
	AuCollect	what = {AU_KS_PAGE, *page, lsn, 0, AU_LSN_MAX, false, 0};
	uint32_t	nblocks;
	AuStatus	status;
	bool		lengthy = false;

	ps->stats.pages_read++;
	status = au_pagestore_size(ps, &page->rel, lsn, &nblocks);
	if (status != AU_OK)
		return status;
	if (rel == NULL || page->blk >= nblocks)
		return AU_NOT_FOUND;
	what.floor = au_rel_floor(rel, page->blk, lsn);
	status = collect_all(ps, &what);
	if (status == AU_OK)
		status = au_rc_build(&ps->own, &what, out, &lengthy);
	au_ps_release(ps);
	if (lengthy && lsn == AU_LSN_MAX && !au_pagestore_full(ps))
		au_ps_add_image(ps, page, out);
	return status;
}
