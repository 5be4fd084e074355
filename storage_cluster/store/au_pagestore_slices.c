/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_pagestore_slices.c: which slices a store keeps, and the deleting of those
 * that it does not keep any more; au_export.h has the contract.
 *
 * A change of the state counts up `changes`; a generation takes state and
 * count with it.  What follows from a change waits until the generation that
 * took it is in RocksDB: so no item of a slice that is dropped comes behind
 * its deletion, and no chunk comes before the slice is incoming.
 */
#include "store/au_pagestore_int.h"

#include <assert.h>
#include <stdio.h>

#include "common/au_crc32c.h"

#define EXTENTS_PER_STEP 64
#define KEYS_PER_STEP 4000
#define EXTENTS_LOOKED_AT 4096

/* ---- records ---------------------------------------------------------- */

static void
put_set(uint8_t *p, const AuSliceSet *s)
{
	for (int i = 0; i < AU_SLICES / 64; i++)
		au_put_u64(p + i * 8, s->bits[i]);
}

static void
get_set(const uint8_t *p, AuSliceSet *s)
{
	for (int i = 0; i < AU_SLICES / 64; i++)
		s->bits[i] = au_get_u64(p + i * 8);
}

static bool
common_slices(const AuSliceSet *a, const AuSliceSet *b)
{
	AuSliceSet	both = au_slices_and(a, b);

	return au_slices_any(&both);
}

void
au_slices_encode(uint8_t *p, const AuSlicesRecord *r)
{
	au_put_u32(p, AU_SLICES_MAGIC);
	au_put_u32(p + 4, AU_SLICES_VERSION);
	put_set(p + 8, &r->kept);
	put_set(p + 40, &r->incoming);
	put_set(p + 72, &r->dropping);
	au_put_u64(p + 104, r->since);
	au_put_u32(p + 112, au_crc32c(0, p, 112));
}

bool
au_slices_decode(const uint8_t *p, size_t len, AuSlicesRecord *r)
{
	if (len != AU_SLICES_LEN || au_get_u32(p) != AU_SLICES_MAGIC ||
		au_get_u32(p + 4) != AU_SLICES_VERSION || au_get_u32(p + 112) != au_crc32c(0, p, 112))
		return false;
	r->told = true;
	get_set(p + 8, &r->kept);
	get_set(p + 40, &r->incoming);
	get_set(p + 72, &r->dropping);
	r->since = au_get_u64(p + 104);
	return !common_slices(&r->kept, &r->incoming) && !common_slices(&r->kept, &r->dropping) &&
		!common_slices(&r->incoming, &r->dropping);
}

void
au_import_encode(uint8_t *p, const AuImportRecord *r)
{
	au_put_u32(p, AU_IMPORT_MAGIC);
	au_put_u32(p + 4, AU_IMPORT_VERSION);
	au_put_u64(p + 8, r->since);
	au_put_u64(p + 16, r->horizon);
	p[24] = r->done;
	memcpy(p + 25, r->place.key, AU_KEY_LEN);
	au_put_u32(p + 54, au_crc32c(0, p, 54));
}

bool
au_import_decode(const uint8_t *p, size_t len, AuImportRecord *r)
{
	if (len != AU_IMPORT_LEN || au_get_u32(p) != AU_IMPORT_MAGIC ||
		au_get_u32(p + 4) != AU_IMPORT_VERSION || au_get_u32(p + 54) != au_crc32c(0, p, 54))
		return false;
	r->since = au_get_u64(p + 8);
	r->horizon = au_get_u64(p + 16);
	r->done = p[24] != 0;
	memcpy(r->place.key, p + 25, AU_KEY_LEN);
	return true;
}

/* *value: NULL if there is no such record; free it. */
static AuStatus
read_record(rocksdb_t *db, rocksdb_readoptions_t *ro, const char *key, char **value, size_t *len,
			char *err, size_t errlen)
{
	char	   *dberr = NULL;
	AuStatus	status;

	*value = rocksdb_get(db, ro, key, AU_SLICES_KEY_LEN, len, &dberr);
	if (dberr == NULL)
		return AU_OK;
	snprintf(err, errlen, "could not read which slices the page store keeps: %s", dberr);
	status = au_ps_db_status(dberr);
	rocksdb_free(dberr);
	return status;
}

_Static_assert(AU_SLICES_KEY_LEN == AU_IMPORT_KEY_LEN, "keys of equal length");

AuStatus
au_slices_read(rocksdb_t *db, rocksdb_readoptions_t *ro, AuSlicesRecord *r,
			   char *err, size_t errlen)
{
	char	   *value;
	size_t		len = 0;
	AuStatus	status = read_record(db, ro, AU_SLICES_KEY, &value, &len, err, errlen);

	memset(r, 0, sizeof(*r));
	if (status == AU_OK && value != NULL && !au_slices_decode((const uint8_t *) value, len, r))
	{
		snprintf(err, errlen, "the page store's record of kept slices is damaged");
		status = AU_CORRUPT;
	}
	rocksdb_free(value);
	return status;
}

AuStatus
au_slices_load(AuPageStore *ps, bool has_meta, char *err, size_t errlen)
{
	AuSlices   *s = &ps->slices;
	AuImportRecord import;
	char	   *value;
	size_t		len = 0;
	AuStatus	status = au_slices_read(ps->db, ps->scan_options, &s->now, err, errlen);

	if (status == AU_OK)
		status = read_record(ps->db, ps->scan_options, AU_IMPORT_KEY, &value, &len, err, errlen);
	if (status != AU_OK)
		return status;
	s->import.since = s->now.since;
	s->import.place = au_place_first(AU_KS_PAGE);
	if (value != NULL && !has_meta)
	{
		snprintf(err, errlen, "the page store was begun with another node's positions, but this was not ended: remove it");
		status = AU_CORRUPT;
	}
	else if (value != NULL && au_import_decode((const uint8_t *) value, len, &import) &&
			 import.since == s->now.since)
		s->import = import;
	rocksdb_free(value);
	s->frozen = s->persisted = s->persisted_new = s->now;
	/* what was under way goes on at once: the state is stored */
	s->drop_place = au_place_first(AU_KS_PAGE);
	return status;
}

/* ---- state ------------------------------------------------------------ */

bool
au_ps_takes(const AuPageStore *ps, const AuPageId *page, AuLsn lsn, bool *whole)
{
	const AuSlicesRecord *r = &ps->slices.now;
	uint32_t	slice;

	*whole = true;
	if (!r->told)
		return true;
	slice = au_slice_of(&page->rel, page->blk);
	*whole = au_slices_has(&r->kept, slice);
	return *whole || (au_slices_has(&r->incoming, slice) && lsn > r->since);
}

void
au_pagestore_slices(const AuPageStore *ps, AuSlicesState *out)
{
	const AuSlices *s = &ps->slices;

	memset(out, 0, sizeof(*out));
	if (!s->now.told)
		memset(&out->kept, 0xFF, sizeof(out->kept));
	else
		out->kept = s->now.kept;
	if (!s->persisted.told)
		memset(&out->lasting, 0xFF, sizeof(out->lasting));
	else
		out->lasting = s->persisted.kept;
	out->lasting = au_slices_and(&out->lasting, &out->kept);
	out->partial = s->now.told;
	out->unwritten = s->changes > s->changes_written;
	out->incoming = s->now.incoming;
	out->dropping = s->now.dropping;
	out->since = s->now.since;
	out->place = s->import.place;
	out->done = s->import.done;
	out->bytes = s->bytes;
}

bool
au_pagestore_slice_kept(const AuPageStore *ps, uint32_t slice)
{
	return !ps->slices.now.told || au_slices_has(&ps->slices.now.kept, slice);
}

bool
au_pagestore_slices_keep(AuPageStore *ps, const AuSliceSet *slices)
{
	AuSlices   *s = &ps->slices;

	if (!s->now.told || !au_slices_any(slices) || au_slices_any(&s->now.incoming) ||
		common_slices(slices, &s->now.kept) || common_slices(slices, &s->now.dropping))
		return false;
	s->now.incoming = *slices;
	s->now.since = ps->applied;
	s->import = (AuImportRecord)
	{
		.since = ps->applied,.place = au_place_first(AU_KS_PAGE)
	};
	s->keep_change = ++s->changes;
	return true;
}

void
au_pagestore_slices_drop(AuPageStore *ps, const AuSliceSet *slices)
{
	AuSlices   *s = &ps->slices;
	AuSliceSet	gone = *slices;

	if (!s->now.told)
	{
		s->now.told = true;
		memset(&s->now.kept, 0xFF, sizeof(s->now.kept));
	}
	if (common_slices(slices, &s->now.incoming))
	{
		gone = au_slices_or(&gone, &s->now.incoming);
		memset(&s->now.incoming, 0, sizeof(s->now.incoming));
	}
	s->now.kept = au_slices_without(&s->now.kept, &gone);
	s->now.dropping = au_slices_or(&s->now.dropping, &gone);
	s->drop_change = ++s->changes;
	s->drop_freezes = ps->freezes;
	s->drop_place = au_place_first(AU_KS_PAGE);
}

/* An import up to a position whose log was replaced is of no use. */
void
au_slices_rewind(AuPageStore *ps, AuLsn lsn)
{
	AuSlicesRecord *now = &ps->slices.now;

	if (au_slices_any(&now->incoming) && now->since > lsn)
	{
		AuSliceSet	incoming = now->incoming;

		au_pagestore_slices_drop(ps, &incoming);
	}
}

bool
au_pagestore_import_ready(const AuPageStore *ps)
{
	const AuSlices *s = &ps->slices;

	return s->founding ||
		(au_slices_any(&s->now.incoming) && s->changes_written >= s->keep_change);
}

void
au_pagestore_import_finish(AuPageStore *ps)
{
	AuSlices   *s = &ps->slices;

	assert(s->import.done && !s->founding);
	s->now.kept = au_slices_or(&s->now.kept, &s->now.incoming);
	memset(&s->now.incoming, 0, sizeof(s->now.incoming));
	if (s->import.horizon > ps->meta.horizon)
		ps->meta.horizon = s->import.horizon;
	/* the chains that came are of unknown length */
	for (uint32_t i = 0; i < AU_CHAIN_SLOTS; i++)
		if (ps->chain[i] < AU_CHAIN_UNKNOWN)
			ps->chain[i] = AU_CHAIN_UNKNOWN;
	s->changes++;
}

/* ---- deleting --------------------------------------------------------- */

void
au_ps_next_page_key(uint8_t *key, uint8_t keyspace, const AuPageId *page)
{
	AuPageId	next = *page;

	if (page->blk == AU_SIZE_BLOCK)
	{
		au_ps_next_relation_key(key, keyspace, &page->rel);
		return;
	}
	next.blk++;
	au_key_encode(key, keyspace, &next, AU_LSN_MAX);
}

void
au_ps_next_extent_key(uint8_t *key, const AuPageId *page, const AuSliceSet *set)
{
	uint32_t	extent = page->blk / AU_EXTENT_BLOCKS;
	AuPageId	at = {.rel = page->rel};

	for (int i = 0; i < EXTENTS_LOOKED_AT; i++)
	{
		if (extent == UINT32_MAX / AU_EXTENT_BLOCKS)
		{
			au_ps_next_relation_key(key, AU_KS_PAGE, &page->rel);
			return;
		}
		at.blk = ++extent * AU_EXTENT_BLOCKS;
		if (au_slices_has(set, au_slice_of(&at.rel, at.blk)))
			break;
	}
	au_key_encode(key, AU_KS_PAGE, &at, AU_LSN_MAX);
}

/*
 * The versions of an extent from the iterator's place on, one by one
 * (au_pagestore_gc.c says why).  *left counts down; false: there are more than
 * that, drop_place is where they go on.
 */
static bool
delete_extent(AuPageStore *ps, rocksdb_iterator_t *it, rocksdb_writebatch_t *batch,
			  const AuPageId *page, uint32_t *left)
{
	AuPageId	last = {page->rel, page->blk | (AU_EXTENT_BLOCKS - 1)};
	uint8_t		end[AU_KEY_LEN];

	au_ps_next_page_key(end, AU_KS_PAGE, &last);
	for (; rocksdb_iter_valid(it); rocksdb_iter_next(it))
	{
		size_t		klen;
		const char *key = rocksdb_iter_key(it, &klen);

		if (klen != AU_KEY_LEN || memcmp(key, end, AU_KEY_LEN) >= 0)
			break;
		if (*left == 0)
		{
			memcpy(ps->slices.drop_place.key, key, AU_KEY_LEN);
			return false;
		}
		rocksdb_writebatch_delete(batch, key, klen);
		--*left;
	}
	return true;
}

/*
 * Extents of dropped slices from drop_place on; *done: there are no more.
 * false: something there cannot be read.  The slices are being dropped for as
 * long as that lasts, and cannot come back: what is behind it would still be
 * there, and mix with what comes.
 */
static bool
find_extents(AuPageStore *ps, rocksdb_writebatch_t *batch, bool *done)
{
	AuSlices   *s = &ps->slices;
	rocksdb_iterator_t *it = rocksdb_create_iterator(ps->db, ps->scan_options);
	uint32_t	left = KEYS_PER_STEP;
	uint64_t	since_us = au_ps_now_us();
	bool		readable = true;

	*done = false;
	for (int n = 0; n < EXTENTS_PER_STEP && (n == 0 || au_ps_now_us() - since_us < AU_PS_STEP_US); n++)
	{
		size_t		klen;
		const uint8_t *key;
		AuPageId	page;
		AuLsn		lsn;
		uint8_t		ks;

		rocksdb_iter_seek(it, (const char *) s->drop_place.key, AU_KEY_LEN);
		if (!rocksdb_iter_valid(it))
		{
			*done = readable = au_ps_iter_sound(it);
			break;
		}
		key = (const uint8_t *) rocksdb_iter_key(it, &klen);
		if (!au_key_decode(key, klen, &ks, &page, &lsn) || ks != AU_KS_PAGE)
		{
			*done = true;
			break;
		}
		if (au_slices_has(&s->now.dropping, au_slice_of(&page.rel, page.blk)))
		{
			if (!delete_extent(ps, it, batch, &page, &left))
				break;
			readable = au_ps_iter_sound(it);
			if (!readable)
				break;
		}
		au_ps_next_extent_key(s->drop_place.key, &page, &s->now.dropping);
	}
	rocksdb_iter_destroy(it);
	return readable;
}

bool
au_pagestore_slices_step(AuPageStore *ps)
{
	AuSlices   *s = &ps->slices;
	AuPlace		place = s->drop_place;
	rocksdb_writebatch_t *batch;
	char	   *dberr = NULL;
	bool		readable;
	bool		done;

	if (!au_slices_any(&s->now.dropping) || s->changes_written < s->drop_change ||
		au_ps_reads_since(ps, s->drop_freezes) ||
		au_ps_digests_since(ps, s->drop_freezes, &s->now.dropping) ||
		au_ps_now_us() < ps->unread_until_us)
		return false;
	batch = rocksdb_writebatch_create();
	readable = find_extents(ps, batch, &done);
	if (rocksdb_writebatch_count(batch) > 0)
		rocksdb_write(ps->db, ps->gc_write_options, batch, &dberr);
	rocksdb_writebatch_destroy(batch);
	au_ps_drop_iter(ps);
	if (dberr != NULL)
	{
		/* busy, or in trouble: again later */
		rocksdb_free(dberr);
		s->drop_place = place;
		return false;
	}
	if (!readable)
	{
		ps->unread_until_us = au_ps_now_us() + AU_PS_UNREAD_US;
		return false;
	}
	if (!done)
		return true;
	memset(&s->now.dropping, 0, sizeof(s->now.dropping));
	s->changes++;
	return false;
}
