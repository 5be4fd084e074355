/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_pagestore_import.c: chunks of another store's versions into this one.
 * au_export.h has the contract, and why a crash at any moment is survived.
 *
 * A chunk is looked at as a whole before a byte of it is written (au_chunk.h:
 * CRC of it and of each version, order, LSNs; here: that it goes on where the
 * last one ended, and that it holds nothing that was not asked for).
 */
#include "store/au_pagestore_int.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

static AuStatus
refuse(char *err, size_t errlen, AuStatus status, const char *why)
{
	snprintf(err, errlen, "could not take a chunk of page versions: %s", why);
	return status;
}

static AuStatus
parse(const AuPageStore *ps, const uint8_t *bytes, size_t len, AuChunk *c, char *err, size_t errlen)
{
	const char *why;
	AuStatus	status = au_chunk_parse(bytes, len, c, &why);

	if (status != AU_OK)
		return refuse(err, errlen, status, why);
	if (c->system_identifier != ps->meta.system_identifier)
		return refuse(err, errlen, AU_INVALID, "it belongs to another volume");
	return AU_OK;
}

/* It goes on with what is incoming, and holds nothing else. */
static AuStatus
check_import(const AuPageStore *ps, const AuChunk *c, char *err, size_t errlen)
{
	const AuSlices *s = &ps->slices;
	AuChunkEntry e;
	size_t		pos = 0;

	if (!au_pagestore_import_ready(ps) || s->import.done)
		return refuse(err, errlen, AU_INVALID, "none is expected");
	if (c->upto != s->import.since || !au_place_equal(&c->from, &s->import.place))
		return refuse(err, errlen, AU_INVALID, "it is not the one that is expected");
	while (au_chunk_next(c, &pos, &e))
	{
		if (e.keyspace != (s->founding ? AU_KS_SIZE : AU_KS_PAGE) ||
			(!s->founding && !au_slices_has(&s->now.incoming, au_slice_of(&e.page.rel, e.page.blk))))
			return refuse(err, errlen, AU_INVALID, "it holds what was not asked for");
	}
	return AU_OK;
}

static void
put_entry(rocksdb_writebatch_t *batch, const AuChunkEntry *e)
{
	rocksdb_writebatch_put(batch, (const char *) e->key, AU_KEY_LEN, (const char *) e->value, e->len);
}

AuStatus
au_pagestore_import_write(AuPageStore *ps, const uint8_t *bytes, size_t len, AuImported *out,
						  char *err, size_t errlen)
{
	AuImportRecord record = ps->slices.import;
	uint8_t		encoded[AU_IMPORT_LEN];
	rocksdb_writebatch_t *batch;
	AuChunkEntry e;
	AuChunk		c;
	size_t		pos = 0;
	AuStatus	status = parse(ps, bytes, len, &c, err, errlen);

	if (status == AU_OK)
		status = check_import(ps, &c, err, errlen);
	if (status != AU_OK)
		return status;
	if (c.horizon > record.horizon)
		record.horizon = c.horizon;
	record.place = c.next;
	record.done = c.done;
	batch = rocksdb_writebatch_create();
	while (au_chunk_next(&c, &pos, &e))
		put_entry(batch, &e);
	au_import_encode(encoded, &record);
	rocksdb_writebatch_put(batch, AU_IMPORT_KEY, AU_IMPORT_KEY_LEN, (const char *) encoded,
						   AU_IMPORT_LEN);
	status = au_ps_write_batch(ps, batch, false, "write page versions of another node", err, errlen);
	rocksdb_writebatch_destroy(batch);
	*out = (AuImported)
	{
		record.place, record.done, record.horizon, len
	};
	return status;
}

void
au_pagestore_imported(AuPageStore *ps, const AuImported *imported)
{
	AuSlices   *s = &ps->slices;

	s->import.place = imported->place;
	s->import.done = imported->done;
	s->import.horizon = imported->horizon;
	s->bytes += imported->len;
	au_ps_drop_iter(ps);
}

/* ---- a store that begins with another one's sizes ---------------------- */

void
au_pagestore_position(const AuPageStore *ps, AuStorePosition *out)
{
	AuTimeMap	times = ps->times;

	*out = (AuStorePosition)
	{
		.applied = ps->written.applied,.restart = ps->written.restart,
		.horizon = ps->meta.horizon < ps->written.applied ? ps->meta.horizon : ps->written.applied,
		.gc_done = ps->meta.gc_done
	};
	_Static_assert(sizeof(out->times) >= AU_TIMEMAP_BYTES_MAX, "room for the map of times");
	if (ps->retention_us == 0)
		return;
	au_timemap_cut(&times, out->applied);
	out->times_len = (uint32_t) au_timemap_encode(out->times, &times);
}

AuStatus
au_pagestore_found(AuPageStore **out, const AuPageStoreOptions *opt,
				   const AuStorePosition *position, char *err, size_t errlen)
{
	AuPageStoreOptions begun = *opt;
	AuStatus	status;
	AuPageStore *ps;

	begun.start_lsn = position->applied;
	status = au_pagestore_open(&ps, &begun, err, errlen);
	if (status != AU_OK)
		return status;
	if (ps->slices.now.told || ps->rels.count > 0 || ps->meta.applied != position->applied)
	{
		au_pagestore_close(ps);
		snprintf(err, errlen, "could not begin page store \"%s\": there is one already", opt->dir);
		return AU_REFUSED;
	}
	if (position->times_len > 0 &&
		au_timemap_decode(position->times, position->times_len, &ps->times) != AU_OK)
	{
		au_pagestore_close(ps);
		snprintf(err, errlen, "the map of times that another node sent is damaged");
		return AU_CORRUPT;
	}
	ps->meta.restart = position->restart;
	ps->meta.horizon = position->horizon;
	ps->meta.gc_done = position->gc_done;
	ps->slices.now.told = true;
	ps->slices.founding = true;
	ps->slices.import = (AuImportRecord)
	{
		.since = position->applied,.place = au_place_first(AU_KS_SIZE)
	};
	*out = ps;
	return AU_OK;
}

AuStatus
au_pagestore_found_end(AuPageStore *ps, char *err, size_t errlen)
{
	rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
	uint8_t		meta[AU_META_LEN];
	uint8_t		slices[AU_SLICES_LEN];
	uint8_t		times[AU_TIMEMAP_BYTES_MAX];
	AuStatus	status;

	assert(ps->slices.founding && ps->slices.import.done);
	/* the other one may have collected meanwhile what its position still had */
	if (ps->slices.import.horizon > ps->meta.horizon)
		ps->meta.horizon = ps->slices.import.horizon;
	au_ps_meta_encode(meta, &ps->meta);
	au_slices_encode(slices, &ps->slices.now);
	rocksdb_writebatch_put(batch, AU_META_KEY, AU_META_KEY_LEN, (const char *) meta, AU_META_LEN);
	rocksdb_writebatch_put(batch, AU_SLICES_KEY, AU_SLICES_KEY_LEN, (const char *) slices,
						   AU_SLICES_LEN);
	if (ps->retention_us > 0)
		rocksdb_writebatch_put(batch, AU_TIMEMAP_KEY, AU_TIMEMAP_KEY_LEN, (const char *) times,
							   au_timemap_encode(times, &ps->times));
	rocksdb_writebatch_delete(batch, AU_IMPORT_KEY, AU_IMPORT_KEY_LEN);
	status = au_ps_write_batch(ps, batch, true, "write the positions of a new page store", err,
							   errlen);
	rocksdb_writebatch_destroy(batch);
	return status;
}
