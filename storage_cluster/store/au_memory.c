/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_memory.c: the node's memory among its volumes; see au_memory.h.
 */
#include "store/au_memory_int.h"

#include <assert.h>
#include <stdlib.h>

/* A generation below this part of its size is left open even if all volumes
 * together are over; with 16 volumes they exceed by one generation. */
#define SMALL_PART 16

#define CACHE_SHARD_MIN ((uint64_t) 16 << 20)
#define CACHE_SHARD_BITS_MAX 6

void
au_memory_plan(AuMemoryPlan *plan, uint64_t total)
{
	uint64_t	part = total / 16;

	*plan = (AuMemoryPlan)
	{
		.total = total,.cache = 5 * part,.generation = part,.generations = 2 * part,
		.memtables = part,.answers = 2 * part
	};
}

/*
 * A shard of the cache takes blocks up to its own size only, and keeps
 * important ones (indexes, up to half a megabyte each) in half of it.  RocksDB
 * by itself makes shards so small that an index is dropped as soon as it was
 * read, and each read of a page loads it again.
 */
static rocksdb_cache_t *
new_cache(uint64_t bytes)
{
	rocksdb_lru_cache_options_t *o = rocksdb_lru_cache_options_create();
	rocksdb_cache_t *cache;
	int			bits = 0;

	while (bits < CACHE_SHARD_BITS_MAX && bytes >> (bits + 1) >= CACHE_SHARD_MIN)
		bits++;
	rocksdb_lru_cache_options_set_capacity(o, bytes);
	rocksdb_lru_cache_options_set_num_shard_bits(o, bits);
	cache = rocksdb_cache_create_lru_opts(o);
	rocksdb_lru_cache_options_destroy(o);
	return cache;
}

AuStoreMemory *
au_store_memory_new(uint64_t total)
{
	AuStoreMemory *m = calloc(1, sizeof(*m));

	if (m == NULL)
		return NULL;
	au_memory_plan(&m->plan, total);
	pthread_mutex_init(&m->turn, NULL);
	m->cache = new_cache(m->plan.cache);
	return m;
}

void
au_store_memory_free(AuStoreMemory *m)
{
	if (m == NULL)
		return;
	assert(m->pending == 0 && m->memtables == 0);
	rocksdb_cache_destroy(m->cache);
	if (m->batch != NULL)
		rocksdb_writebatch_destroy(m->batch);
	pthread_mutex_destroy(&m->turn);
	free(m);
}

const AuMemoryPlan *
au_store_memory_plan(const AuStoreMemory *m)
{
	return &m->plan;
}

/* Differences may be negative: the sums are modulo 2^64 and come out right. */
void
au_store_memory_pending(AuStoreMemory *m, AuMemoryShare *share, uint64_t bytes)
{
	atomic_fetch_add_explicit(&m->pending, bytes - share->pending, memory_order_relaxed);
	share->pending = bytes;
}

void
au_store_memory_memtables(AuStoreMemory *m, AuMemoryShare *share, uint64_t bytes)
{
	atomic_fetch_add_explicit(&m->memtables, bytes - share->memtables, memory_order_relaxed);
	share->memtables = bytes;
}

bool
au_store_memory_full(const AuStoreMemory *m, uint64_t own)
{
	return own >= m->plan.generation ||
		(own >= m->plan.generation / SMALL_PART &&
		 atomic_load_explicit(&m->pending, memory_order_relaxed) >= m->plan.generations);
}

bool
au_store_memory_must_flush(const AuStoreMemory *m)
{
	return atomic_load_explicit(&m->memtables, memory_order_relaxed) > m->plan.memtables;
}

void
au_store_memory_write_begin(AuStoreMemory *m)
{
	pthread_mutex_lock(&m->turn);
}

void
au_store_memory_write_end(AuStoreMemory *m)
{
	pthread_mutex_unlock(&m->turn);
}

void
au_store_memory_usage(const AuStoreMemory *m, uint64_t *cache,
					  uint64_t *pending, uint64_t *memtables)
{
	*cache = rocksdb_cache_get_usage(m->cache);
	*pending = atomic_load_explicit(&m->pending, memory_order_relaxed);
	*memtables = atomic_load_explicit(&m->memtables, memory_order_relaxed);
}
