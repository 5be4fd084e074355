/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_memory.h: one setting (--memory) divided among everything that grows
 * with load, over all volumes of a node.
 *
 *   16/16 ─┬─ 5  block cache, with the files' index and filter blocks
 *          ├─ 3  gathered changes of all volumes (au_pending.h)
 *          ├─ 2  the write batch: one at a time on a node
 *          ├─ 2  RocksDB's memtables of all volumes
 *          ├─ 2  answers that clients have not taken yet
 *          └─ 2  what the allocator and compactions need besides
 *
 * RocksDB's C interface (7.8) offers no write buffer manager, so the store
 * counts memtables itself and flushes its own when all together are too
 * much.  Not in the setting, because it does not grow with load: the program
 * itself, AU_MEMORY_FIXED bytes; AU_MEMORY_VOLUME bytes a volume; about 200
 * bytes a relation; a WAL record while it is put together.
 *
 * Invariants:
 *  1. The shares add up to no more than the setting.
 *  2. Writers hold the turn while they have a batch, so there is one batch.
 *
 * Threads: any, but for new and free.
 */
#ifndef AU_MEMORY_H
#define AU_MEMORY_H

#include "common/au_base.h"

#define AU_MEMORY_MIN ((uint64_t) 32 << 20)
#define AU_MEMORY_FIXED ((uint64_t) 40 << 20)
#define AU_MEMORY_VOLUME ((uint64_t) 4 << 20)

typedef struct AuMemoryPlan
{
	uint64_t	total;
	uint64_t	cache;
	uint64_t	generation;		/* of changes; a volume has two at most */
	uint64_t	generations;	/* all of all volumes: small ones are closed beyond */
	uint64_t	memtables;		/* of all volumes, when no write is under way */
	uint64_t	answers;
} AuMemoryPlan;

void		au_memory_plan(AuMemoryPlan *plan, uint64_t total);

typedef struct AuStoreMemory AuStoreMemory;

/* What a volume has counted in; all zero at first. */
typedef struct AuMemoryShare
{
	uint64_t	pending;
	uint64_t	memtables;
} AuMemoryShare;

/* total is at least AU_MEMORY_MIN.  NULL: out of memory. */
AuStoreMemory *au_store_memory_new(uint64_t total);
void		au_store_memory_free(AuStoreMemory *m);
const AuMemoryPlan *au_store_memory_plan(const AuStoreMemory *m);

/* Count in what a volume has now instead of what it had. */
void		au_store_memory_pending(AuStoreMemory *m, AuMemoryShare *share, uint64_t bytes);
void		au_store_memory_memtables(AuStoreMemory *m, AuMemoryShare *share, uint64_t bytes);

/* `own` bytes of changes in the current generation: time to close it? */
bool		au_store_memory_full(const AuStoreMemory *m, uint64_t own);
/* The memtables of all volumes are too much. */
bool		au_store_memory_must_flush(const AuStoreMemory *m);

/* A write begins and ends; begin waits for the node's other volumes. */
void		au_store_memory_write_begin(AuStoreMemory *m);
void		au_store_memory_write_end(AuStoreMemory *m);

/* In use now: block cache; gathered changes; memtables. */
void		au_store_memory_usage(const AuStoreMemory *m, uint64_t *cache,
								  uint64_t *pending, uint64_t *memtables);

#endif							/* AU_MEMORY_H */
