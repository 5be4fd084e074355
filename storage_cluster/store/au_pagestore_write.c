/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_pagestore_write.c: a generation of gathered changes becomes one RocksDB
 * batch; au_pagestore.h says why one.
 *
 * The batch is as large as the generation, so of all volumes of a node only
 * one has a batch at a time (au_memory.h).  After a large one its memory stays
 * for the next: to grow it anew from nothing, doubling by doubling, costs each
 * large write twice its bytes in page faults and copies.  After a small one,
 * as when nothing much is going on, it goes back.  After each write the memtables
 * are counted; if they are too much this volume's are flushed to files at
 * once, by the same worker thread.
 *
 * A write waits while compactions are behind, as RocksDB would have it; but
 * not RocksDB does that: its flush waits for compactions even when they fail
 * because the disk is full, and what would make room, trimming the log, waits
 * for the flush.  Here the wait is short once a compaction failed, and the
 * flush goes on; so until there is room each write adds a file to level 0, up
 * to a limit beyond which writes fail.
 */
#include "store/au_pagestore_int.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Compactions are behind when level 0 has so many files, or when so many bytes
 * await compaction. */
#define LEVEL0_BEHIND 20
#define BYTES_BEHIND ((uint64_t) 64 << 30)
/* With compactions that fail, level 0 may grow to this; each read looks at
 * all its files' filters. */
#define LEVEL0_MAX 400
#define LOOK_AGAIN_US 10000
#define FAILING_WAIT_US 1000000

/* A batch of this part of a generation is large: its memory is kept. */
#define BATCH_KEPT_PART 4

bool
au_pagestore_freeze(AuPageStore *ps, AuLsn applied, AuLsn restart)
{
	AuPending  *t = ps->current;

	/* Three generations at most: a write waits for the readers of the one
	 * written before. */
	if (ps->has_frozen || ps->retired != NULL)
		return false;
	assert(restart <= applied);
	au_pagestore_set_applied(ps, applied);
	ps->meta.applied = applied;
	ps->meta.restart = restart;
	ps->frozen_meta = ps->meta;
	ps->frozen_times_len = ps->times_changed ?
		au_timemap_encode(ps->frozen_times, &ps->times) : 0;
	ps->times_changed = false;
	ps->slices.frozen = ps->slices.now;
	ps->slices.changes_frozen = ps->slices.changes;
	/* No chunk of it is in: none is taken before this is written. */
	ps->slices.frozen_begins = au_slices_any(&ps->slices.now.incoming) &&
		!au_pagestore_import_ready(ps);
	ps->current = ps->frozen;
	ps->frozen = t;
	ps->has_frozen = true;
	ps->freezes++;
	return true;
}

/* Memory for one bundle at a time; grows. */
typedef struct Encoder
{
	uint8_t    *value;
	size_t		value_cap;
	AuItem	   *items;			/* oldest first, images included */
	uint32_t	items_cap;
	AuCutter	cut;
} Encoder;

/* The segment's items, and images where the chain is long.  Returns how many,
 * 0: out of memory. */
static uint32_t
gather_items(Encoder *enc, uint8_t keyspace, const AuPendSegment *seg, size_t *bytes, AuLsn *self_from)
{
	uint32_t	n = seg->nitems;
	uint32_t	out = 0;

	if (2 * n > enc->items_cap)
	{
		free(enc->items);
		enc->items_cap = 4 * n;
		enc->items = malloc(enc->items_cap * sizeof(*enc->items));
		if (enc->items == NULL)
			return 0;
	}
	/* to the far end, so that images find room as the rest moves down */
	for (const AuPendItem *item = seg->newest; item != NULL; item = item->older)
	{
		assert(n > 0);
		enc->items[seg->nitems + --n] = (AuItem)
		{
			item->lsn, item->len, item->ops
		};
	}
	assert(n == 0);
	*bytes = seg->bytes;
	*self_from = seg->self_from;
	for (uint32_t i = 0; i < seg->nitems; i++)
	{
		AuItem		item = enc->items[seg->nitems + i];

		if (keyspace == AU_KS_PAGE)
		{
			*bytes -= item.len;
			au_cut_flatten(&enc->cut, &item);
			*bytes += item.len;
		}
		enc->items[out++] = item;
		if (!enc->cut.wanted || !au_cut_item(&enc->cut, &item, &enc->items[out]))
			continue;
		*bytes += enc->items[out].len;
		if (*self_from > item.lsn)
			*self_from = item.lsn;
		out++;
	}
	return out;
}

static bool
encode_segment(Encoder *enc, const AuPendEntry *e, const AuPendSegment *seg,
			   rocksdb_writebatch_t *batch)
{
	uint8_t		key[AU_KEY_LEN];
	size_t		bytes;
	size_t		size;
	AuLsn		self_from;
	uint32_t	n = gather_items(enc, e->keyspace, seg, &bytes, &self_from);

	if (n == 0)
		return false;
	size = au_bundle_size(n, bytes);
	if (size > enc->value_cap)
	{
		free(enc->value);
		enc->value_cap = size * 2;
		enc->value = malloc(enc->value_cap);
	}
	if (enc->value == NULL)
		return false;
	au_key_encode(key, e->keyspace, &e->page, seg->first_lsn);
	au_bundle_encode(enc->value, key, enc->items, n, self_from);
	au_cut_segment_done(&enc->cut);
	rocksdb_writebatch_put(batch, (const char *) key, AU_KEY_LEN,
						   (const char *) enc->value, size);
	return true;
}

static AuStatus
db_failed(char *dberr, const char *what, char *err, size_t errlen)
{
	AuStatus	status = au_ps_db_status(dberr);

	snprintf(err, errlen, "could not %s: %s", what, dberr);
	rocksdb_free(dberr);
	return status;
}

static bool
encode_all(Encoder *enc, const AuPending *g, rocksdb_writebatch_t *batch)
{
	for (const AuPendEntry *e = au_pending_first(g); e != NULL; e = e->all_next)
	{
		au_cut_page(&enc->cut, e);
		for (const AuPendSegment *seg = e->oldest; seg != NULL; seg = seg->newer)
			if (!encode_segment(enc, e, seg, batch))
				return false;
		au_cut_page_done(&enc->cut, e);
	}
	return true;
}

/* The node's, emptied, or a new one.  Only with the turn. */
static rocksdb_writebatch_t *
take_batch(AuPageStore *ps)
{
	rocksdb_writebatch_t *batch = ps->memory != NULL ? ps->memory->batch : NULL;

	if (batch == NULL)
		return rocksdb_writebatch_create();
	ps->memory->batch = NULL;
	return batch;
}

static void
give_batch(AuPageStore *ps, rocksdb_writebatch_t *batch)
{
	size_t		size;

	rocksdb_writebatch_data(batch, &size);
	if (ps->memory == NULL || size < ps->memory->plan.generation / BATCH_KEPT_PART)
	{
		rocksdb_writebatch_destroy(batch);
		return;
	}
	assert(ps->memory->batch == NULL);
	rocksdb_writebatch_clear(batch);
	ps->memory->batch = batch;
}

static AuStatus
write_batch(AuPageStore *ps, char *err, size_t errlen)
{
	rocksdb_writebatch_t *batch = take_batch(ps);
	Encoder    *enc = calloc(1, sizeof(*enc));
	uint8_t		meta[AU_META_LEN];
	uint8_t		slices[AU_SLICES_LEN];
	char	   *dberr = NULL;
	bool		fits = false;

	if (enc != NULL)
	{
		au_cut_start(&enc->cut, ps);
		fits = encode_all(enc, ps->frozen, batch);
		au_cut_end(&enc->cut);
		free(enc->value);
		free(enc->items);
		free(enc);
	}
	au_ps_meta_encode(meta, &ps->frozen_meta);
	rocksdb_writebatch_put(batch, AU_META_KEY, AU_META_KEY_LEN, (const char *) meta, AU_META_LEN);
	if (ps->frozen_times_len > 0)
		rocksdb_writebatch_put(batch, AU_TIMEMAP_KEY, AU_TIMEMAP_KEY_LEN,
							   (const char *) ps->frozen_times, ps->frozen_times_len);
	if (ps->slices.frozen.told)
	{
		au_slices_encode(slices, &ps->slices.frozen);
		rocksdb_writebatch_put(batch, AU_SLICES_KEY, AU_SLICES_KEY_LEN, (const char *) slices,
							   AU_SLICES_LEN);
		if (ps->slices.frozen_begins)
			rocksdb_writebatch_delete(batch, AU_IMPORT_KEY, AU_IMPORT_KEY_LEN);
	}
	if (fits)
		rocksdb_write(ps->db, ps->write_options, batch, &dberr);
	give_batch(ps, batch);
	if (!fits)
	{
		snprintf(err, errlen, "could not write page versions: out of memory");
		return AU_NOMEM;
	}
	return dberr == NULL ? AU_OK : db_failed(dberr, "write page versions", err, errlen);
}

static uint64_t
level0_files(AuPageStore *ps)
{
	char	   *value = rocksdb_property_value(ps->db, "rocksdb.num-files-at-level0");
	uint64_t	n = value != NULL ? strtoull(value, NULL, 10) : 0;

	rocksdb_free(value);
	return n;
}

/* Wait until compactions have caught up; not for long once one failed. */
static AuStatus
wait_for_compactions(AuPageStore *ps, char *err, size_t errlen)
{
	uint64_t	files;
	uint64_t	waited_us = 0;

	while ((files = level0_files(ps)) >= LEVEL0_BEHIND ||
		   au_ps_property(ps, "rocksdb.estimate-pending-compaction-bytes") >= BYTES_BEHIND)
	{
		if (waited_us < FAILING_WAIT_US || au_ps_property(ps, "rocksdb.background-errors") == 0)
		{
			usleep(LOOK_AGAIN_US);
			waited_us += LOOK_AGAIN_US;
			continue;
		}
		if (files < LEVEL0_MAX)
			return AU_OK;
		snprintf(err, errlen, "could not write page versions: %" PRIu64 " files wait to be merged, which fails; it needs room on the disk",
				 files);
		return AU_FULL;
	}
	return AU_OK;
}

static AuStatus
flush_memtables(AuPageStore *ps, char *err, size_t errlen)
{
	rocksdb_flushoptions_t *fo = rocksdb_flushoptions_create();
	char	   *dberr = NULL;

	rocksdb_flushoptions_set_wait(fo, 1);
	rocksdb_flush(ps->db, fo, &dberr);
	rocksdb_flushoptions_destroy(fo);
	return dberr == NULL ? AU_OK :
		db_failed(dberr, "write page versions to files", err, errlen);
}

static void
count_memtables(AuPageStore *ps)
{
	au_store_memory_memtables(ps->memory, &ps->share,
							  au_ps_property(ps, "rocksdb.cur-size-all-mem-tables"));
}

/* Of a generation (batch NULL), or of other origin. */
static AuStatus
write_turn(AuPageStore *ps, rocksdb_writebatch_t *batch, bool persist, const char *what,
		   char *err, size_t errlen)
{
	char	   *dberr = NULL;
	AuStatus	status;

	status = wait_for_compactions(ps, err, errlen);
	if (status != AU_OK)
		return status;
	if (ps->memory != NULL)
		au_store_memory_write_begin(ps->memory);
	if (batch == NULL)
		status = write_batch(ps, err, errlen);
	else
	{
		rocksdb_write(ps->db, ps->write_options, batch, &dberr);
		if (dberr != NULL)
			status = db_failed(dberr, what, err, errlen);
	}
	if (ps->memory != NULL)
	{
		count_memtables(ps);
		persist = persist || au_store_memory_must_flush(ps->memory);
	}
	if (status == AU_OK && persist)
		status = flush_memtables(ps, err, errlen);
	if (ps->memory != NULL)
	{
		count_memtables(ps);
		au_store_memory_write_end(ps->memory);
	}
	return status;
}

AuStatus
au_ps_write_batch(AuPageStore *ps, rocksdb_writebatch_t *batch, bool persist, const char *what,
				  char *err, size_t errlen)
{
	assert(batch != NULL);
	return write_turn(ps, batch, persist, what, err, errlen);
}

AuStatus
au_pagestore_write(AuPageStore *ps, bool persist, char *err, size_t errlen)
{
	AuStatus	status;

	assert(ps->has_frozen);
	status = write_turn(ps, NULL, persist, NULL, err, errlen);
	if (status != AU_OK)
		return status;
	status = au_ps_meta_read(ps->db, ps->persisted_options, &ps->persisted_new, err, errlen);
	if (status == AU_OK)
		return au_slices_read(ps->db, ps->persisted_options, &ps->slices.persisted_new, err,
							  errlen);
	return status == AU_NOT_FOUND ? AU_OK : status;
}

/* An import's end raises the horizon past what is being read. */
AuLsn
au_ps_unread_horizon(const AuPageStore *ps)
{
	AuLsn		horizon = ps->persisted.horizon;
	AuLsn		read = au_ps_oldest_read(ps);
	AuLsn		compared = au_ps_oldest_digest(ps);

	horizon = read < horizon ? read : horizon;
	return compared < horizon ? compared : horizon;
}

void
au_pagestore_written(AuPageStore *ps, AuStatus status)
{
	assert(ps->has_frozen);
	if (status != AU_OK)
		return;
	ps->persisted = ps->persisted_new;
	ps->written = ps->frozen_meta;
	ps->slices.persisted = ps->slices.persisted_new;
	ps->slices.changes_written = ps->slices.changes_frozen;
	au_ps_filter_set_horizon(ps, au_ps_unread_horizon(ps));
	au_cut_written(ps);
	if (au_pending_pinned(ps->frozen))
	{
		assert(ps->retired == NULL && ps->spare != NULL);
		ps->retired = ps->frozen;
		ps->frozen = ps->spare;
		ps->spare = NULL;
	}
	else
		au_pending_reset(ps->frozen);
	ps->has_frozen = false;
	au_ps_drop_iter(ps);
	au_ps_count_pending(ps);
}
