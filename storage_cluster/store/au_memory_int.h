/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_memory_int.h: what the page store needs to see of au_memory.c.  Nothing
 * outside store/ includes it.
 */
#ifndef AU_MEMORY_INT_H
#define AU_MEMORY_INT_H

#include <pthread.h>
#include <rocksdb/c.h>
#include <stdatomic.h>

#include "store/au_memory.h"

struct AuStoreMemory
{
	AuMemoryPlan plan;
	rocksdb_cache_t *cache;
	_Atomic uint64_t pending;
	_Atomic uint64_t memtables;
	pthread_mutex_t turn;
	rocksdb_writebatch_t *batch;	/* whoever has the turn may take it; or NULL */
};

#endif							/* AU_MEMORY_INT_H */
