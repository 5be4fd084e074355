/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_pagestore_filter.c: page versions that nobody may ask for any more are
 * left out when RocksDB compacts.
 *
 * The horizon H is the oldest LSN that may be read.  A read at x >= H starts
 * at the newest item at or below x that needs nothing older (a base).  So
 * once a page has a base at or below H, every bundle older than the one that
 * holds this base is out of reach, for good: H only advances.
 *
 * RocksDB hands over the keys of one compaction in order, so a page's bundles
 * come newest first.  If the newer bundle with the base is not part of this
 * compaction, its older ones are kept; a later compaction sees both.
 *
 * Invariants:
 *  1. The newest base at or below the horizon is never dropped, nor anything
 *     newer.  (It is an input of this compaction, and kept by it, so no crash
 *     can lose it and keep the effect of dropping what is older.)
 *  2. The horizon used is one that is in RocksDB's files already: after a
 *     crash the store does not offer an older one.
 *  3. A bundle whose CRC or structure is wrong counts as no base.
 */
#include "store/au_pagestore_int.h"

#include <stdlib.h>
#include <string.h>

/* One compaction's place in the keys; used by one thread. */
typedef struct Filter
{
	AuPageStore *ps;
	AuLsn		horizon;
	bool		based;			/* a base at or below horizon was seen of ... */
	uint8_t		page[AU_KEY_PAGE_LEN];
	uint64_t	dropped;
	uint64_t	since_us;		/* the compaction's begin */
} Filter;

static const char *
filter_name(void *state)
{
	(void) state;
	return "aurora.horizon";
}

static void
filter_destroy(void *state)
{
	Filter	   *f = state;

	atomic_fetch_add_explicit(&f->ps->filter_dropped, f->dropped,
							  memory_order_relaxed);
	pthread_mutex_lock(&f->ps->compaction_lock);
	au_hist_add(&f->ps->compaction, au_ps_now_us() - f->since_us);
	pthread_mutex_unlock(&f->ps->compaction_lock);
	free(f);
}

/* Nonzero: leave this entry out. */
static unsigned char
filter_entry(void *state, int level, const char *key, size_t key_len,
			 const char *value, size_t value_len, char **new_value,
			 size_t *new_value_len, unsigned char *value_changed)
{
	Filter	   *f = state;
	const char *why;
	AuBundle	b;

	(void) level;
	(void) new_value;
	(void) new_value_len;
	*value_changed = 0;
	if (key_len != AU_KEY_LEN || (uint8_t) key[0] != AU_KS_PAGE)
		return 0;
	if (memcmp(f->page, key, AU_KEY_PAGE_LEN) != 0)
	{
		memcpy(f->page, key, AU_KEY_PAGE_LEN);
		f->based = false;
	}
	if (f->based)
	{
		f->dropped++;
		return 1;
	}
	f->based = au_bundle_parse((const uint8_t *) key, (const uint8_t *) value,
							   value_len, &b, &why) == AU_OK &&
		b.self_from <= f->horizon;
	return 0;
}

static rocksdb_compactionfilter_t *
factory_create(void *state, rocksdb_compactionfiltercontext_t *context)
{
	AuPageStore *ps = state;
	Filter	   *f = calloc(1, sizeof(*f));

	(void) context;
	/* without memory nothing is dropped this time */
	if (f == NULL)
		return NULL;
	f->ps = ps;
	f->since_us = au_ps_now_us();
	f->horizon = atomic_load_explicit(&ps->filter_horizon, memory_order_acquire);
	return rocksdb_compactionfilter_create(f, filter_destroy, filter_entry,
										   filter_name);
}

static void
factory_destroy(void *state)
{
	(void) state;				/* the store outlives its database */
}

void
au_ps_filter_install(AuPageStore *ps)
{
	rocksdb_options_set_compaction_filter_factory(ps->options,
												  rocksdb_compactionfilterfactory_create(ps, factory_destroy,
																						 factory_create,
																						 filter_name));
}

void
au_ps_filter_set_horizon(AuPageStore *ps, AuLsn horizon)
{
	atomic_store_explicit(&ps->filter_horizon, horizon, memory_order_release);
}

void
au_pagestore_compact(AuPageStore *ps)
{
	au_ps_drop_iter(ps);
	rocksdb_compact_range(ps->db, NULL, 0, NULL, 0);
}
