/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_pagestore_gc.c: gives back the space of dropped relations and truncated
 * blocks, in small steps.
 *
 * Events (drops and truncations) are collected in LSN order.  One may be
 * collected when it lies at or below the horizon and the applied LSN that are
 * both in RocksDB's files: then neither a reader nor a crash can make the
 * versions it cut off visible again.  meta.gc_done remembers how far that is.
 *
 * Versions are deleted one by one, never as a range (au_dbread.h).  If some of
 * them cannot be read the event waits until they can be: once it was through
 * they would count again.
 *
 * Deleting is done with the batch's owner thread and without waiting: if
 * RocksDB asks to slow down, the step is tried again later.
 */
#include "store/au_pagestore_int.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>


#define GC_KEYS_PER_STEP 2000	/* or AU_PS_STEP_US, after GC_KEYS_LEAST */
#define GC_KEYS_LEAST 32

bool
au_ps_iter_sound(rocksdb_iterator_t *it)
{
	char	   *dberr = NULL;

	if (rocksdb_iter_valid(it))
		return true;
	rocksdb_iter_get_error(it, &dberr);
	rocksdb_free(dberr);
	return dberr == NULL;
}

bool
au_ps_gc_push(AuPageStore *ps, const AuRelId *rel, const AuRelEvent *event)
{
	if (ps->gc_count == ps->gc_cap)
	{
		uint32_t	cap;
		AuGcEvent  *bigger;

		if (ps->gc_head > ps->gc_cap / 2)
		{
			ps->gc_count -= ps->gc_head;
			memmove(ps->gc, ps->gc + ps->gc_head, ps->gc_count * sizeof(*ps->gc));
			ps->gc_head = 0;
		}
		else
		{
			cap = ps->gc_cap == 0 ? 64 : ps->gc_cap * 2;
			bigger = realloc(ps->gc, cap * sizeof(*bigger));
			if (bigger == NULL)
				return false;
			ps->gc = bigger;
			ps->gc_cap = cap;
		}
	}
	ps->gc[ps->gc_count++] = (AuGcEvent)
	{
		event->lsn, *rel, event->cut, event->kind
	};
	return true;
}

static int
compare_events(const void *a, const void *b)
{
	AuLsn		x = ((const AuGcEvent *) a)->lsn;
	AuLsn		y = ((const AuGcEvent *) b)->lsn;

	return x < y ? -1 : x > y;
}

void
au_ps_gc_sort(AuPageStore *ps)
{
	if (ps->gc_count > 1)
		qsort(ps->gc, ps->gc_count, sizeof(*ps->gc), compare_events);
}

/* The step has lasted long enough. */
static bool
step_over(int n, uint64_t since_us)
{
	return n >= GC_KEYS_PER_STEP ||
		(n > 0 && n % GC_KEYS_LEAST == 0 && au_ps_now_us() - since_us >= AU_PS_STEP_US);
}

/* What `it` came to is deleted.  false: RocksDB is busy or in trouble, and
 * nothing was; or what is behind it cannot be read. */
static bool
write_gc(AuPageStore *ps, rocksdb_iterator_t *it, rocksdb_writebatch_t *batch)
{
	bool		sound = au_ps_iter_sound(it);
	char	   *dberr = NULL;

	rocksdb_iter_destroy(it);
	if (!sound)
		ps->unread_until_us = au_ps_now_us() + AU_PS_UNREAD_US;
	if (rocksdb_writebatch_count(batch) == 0)
		return sound;
	rocksdb_write(ps->db, ps->gc_write_options, batch, &dberr);
	au_ps_drop_iter(ps);
	if (dberr == NULL)
		return sound;
	rocksdb_free(dberr);
	return false;
}

/*
 * The relation's last event is this drop, it has not come back, and its pages
 * are deleted: what is left under its name goes.  *done: all of it is gone.
 */
static bool
delete_relation(AuPageStore *ps, const AuRelId *rel, bool *done)
{
	uint64_t	since_us = au_ps_now_us();
	rocksdb_iterator_t *it = rocksdb_create_iterator(ps->db, ps->scan_options);
	rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
	AuPageId	first = {.rel = *rel,.blk = 0};
	uint8_t		from[AU_KEY_LEN];
	uint8_t		to[AU_KEY_LEN];
	bool		ok;
	int			n = 0;

	*done = true;
	au_key_encode(from, AU_KS_SIZE, &first, AU_LSN_MAX);
	au_ps_next_relation_key(to, AU_KS_SIZE, rel);
	for (rocksdb_iter_seek(it, (const char *) from, AU_KEY_LEN); rocksdb_iter_valid(it);
		 rocksdb_iter_next(it))
	{
		size_t		klen;
		const char *key = rocksdb_iter_key(it, &klen);

		if (klen != AU_KEY_LEN || memcmp(key, to, AU_KEY_LEN) >= 0)
			break;
		if (step_over(n++, since_us))
		{
			*done = false;
			break;
		}
		rocksdb_writebatch_delete(batch, key, klen);
	}
	ok = write_gc(ps, it, batch);
	rocksdb_writebatch_destroy(batch);
	if (!ok || !*done)
		return ok;
	for (uint8_t ks = AU_KS_PAGE; ks <= AU_KS_SIZE; ks++)
	{
		char	   *dberr = NULL;

		/* only makes the space come back sooner; all is deleted */
		au_key_encode(from, ks, &first, AU_LSN_MAX);
		au_ps_next_relation_key(to, ks, rel);
		rocksdb_suggest_compact_range(ps->db, (const char *) from, AU_KEY_LEN,
									  (const char *) to, AU_KEY_LEN, &dberr);
		rocksdb_free(dberr);
	}
	if (ps->last_rel != NULL && au_rel_id_equal(&ps->last_rel_id, rel))
		ps->last_rel = NULL;
	au_relmap_remove(&ps->rels, rel);
	ps->stats.gc_relations++;
	return true;
}

/*
 * Delete versions of blocks >= cut that are older than the event, key by key,
 * going on at gc_cursor.  *done at the end of the relation.
 */
static bool
delete_versions(AuPageStore *ps, const AuGcEvent *event, bool *done)
{
	rocksdb_iterator_t *it = rocksdb_create_iterator(ps->db, ps->scan_options);
	rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
	AuPageId	start = {.rel = event->rel,.blk = event->cut};
	uint8_t		cursor[AU_KEY_LEN];
	uint64_t	deleted = 0;
	uint64_t	since_us = au_ps_now_us();
	bool		ok;
	int			n = 0;

	if (ps->gc_started)
		memcpy(cursor, ps->gc_cursor, AU_KEY_LEN);
	else
		au_key_encode(cursor, AU_KS_PAGE, &start, AU_LSN_MAX);
	*done = true;
	for (rocksdb_iter_seek(it, (const char *) cursor, AU_KEY_LEN);
		 rocksdb_iter_valid(it); rocksdb_iter_next(it))
	{
		size_t		klen;
		const uint8_t *key = (const uint8_t *) rocksdb_iter_key(it, &klen);
		AuPageId	page;
		AuLsn		lsn;
		uint8_t		ks;

		if (!au_key_decode(key, klen, &ks, &page, &lsn) || ks != AU_KS_PAGE ||
			!au_rel_id_equal(&page.rel, &event->rel))
			break;
		memcpy(cursor, key, AU_KEY_LEN);
		if (step_over(n++, since_us))
		{
			*done = false;
			break;
		}
		if (lsn < event->lsn)
		{
			rocksdb_writebatch_delete(batch, (const char *) key, klen);
			deleted++;
		}
	}
	ok = write_gc(ps, it, batch);
	rocksdb_writebatch_destroy(batch);
	if (!ok)
		return false;
	ps->stats.gc_keys += deleted;
	memcpy(ps->gc_cursor, cursor, AU_KEY_LEN);
	ps->gc_started = true;		/* until the event is through */
	return true;
}

bool
au_pagestore_gc_step(AuPageStore *ps)
{
	AuLsn		horizon = au_ps_unread_horizon(ps);
	AuLsn		limit = horizon < ps->persisted.applied ? horizon : ps->persisted.applied;
	const AuGcEvent *event;
	AuRel	   *rel;
	bool		done = true;

	if (ps->gc_head == ps->gc_count || ps->gc[ps->gc_head].lsn > limit)
		return false;
	if (au_slices_any(&ps->slices.now.incoming) || au_ps_now_us() < ps->unread_until_us)
		return false;			/* au_export.h, 4 */
	event = &ps->gc[ps->gc_head];
	rel = au_relmap_find(&ps->rels, &event->rel);
	if (rel != NULL)
	{
		bool		gone = event->kind == AU_SIZE_DROP && rel->nblocks == 0 &&
			rel->last_event == event->lsn;

		if (!delete_versions(ps, event, &done) ||
			(done && gone && !delete_relation(ps, &event->rel, &done)))
			return false;
		if (done && !gone)
			au_rel_forget_events(rel, event->lsn);
	}
	if (done)
	{
		ps->gc_started = false;
		ps->gc_head++;
		/* several events may share an LSN: all of them must be through */
		if (ps->gc_head == ps->gc_count || ps->gc[ps->gc_head].lsn > event->lsn)
			ps->meta.gc_done = event->lsn;
	}
	return true;
}
