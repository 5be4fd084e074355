/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_pagecache.h: aurora pages in stock shared_buffers, never dirty.
 *
 * Pages of permanent aurora tables ("remote" relations) live in the storage
 * cluster; a shared buffer is only a cache.  See extension/cache/README for
 * the protocol and its proof.  Pages of temporary and unlogged aurora tables
 * are ordinary local pages: every function here takes the stock path for
 * them.
 *
 * Invariants:
 *  1. A remote page's buffer is never marked dirty, so nothing ever writes it
 *     to the local file, which stays 0 bytes.
 *  2. Before the content lock of a changed remote page is released, its LSN
 *     is in the last-written cache (aurora_change_commit does it).
 *  3. A page fetched from storage is installed only under its exclusive
 *     content lock, only into a buffer whose page is new, and only if it was
 *     read as of an LSN not below the page's newest change: either the buffer
 *     was pinned and new before last-written(page) was read and the fetch
 *     began, or last-written(page) is still <= that LSN under the lock.  So
 *     no older version ever replaces a newer one.
 *  4. No network wait happens in a critical section, and none holds a lock of
 *     this module.
 */
#ifndef AURORA_PAGECACHE_H
#define AURORA_PAGECACHE_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "storage/block.h"
#include "storage/bufmgr.h"
#include "storage/relfilenode.h"
#include "utils/rel.h"

/* Its pages are in the storage cluster (else: ordinary local pages). */
#define aurora_rel_is_remote(rel) \
	((rel)->rd_rel->relpersistence == RELPERSISTENCE_PERMANENT)

/*
 * Pin block blk of the main fork; returns without a content lock.  blk must
 * be below aurora_nblocks().  On a miss waits for storage: cancellable, bounded
 * by aurora.storage_timeout, raises an error on failure.  strategy may be NULL.
 *
 * Must not be called in a critical section.  Call it without content locks on
 * other table pages: pin first, lock afterwards.  (Index AMs may hold a lock
 * on an index page; then the wait notices cancel requests by itself.)
 *
 * A returned page may be PageIsNew(): a block that was never initialised
 * (crash between extension and its WAL).  Treat it as empty; do not insert
 * into it without au_ops_init first.
 */
extern Buffer aurora_read_buffer(Relation rel, BlockNumber blk,
								 BufferAccessStrategy strategy);

/*
 * Append one page to the relation.  Takes and releases the relation extension
 * lock.  Returns the new buffer pinned and exclusively locked, its page
 * initialised and (remote) its EXTEND record logged and the size published.
 */
extern Buffer aurora_extend(Relation rel, BufferAccessStrategy strategy);

/* Size of the main fork in blocks.  May ask storage (then the same rules as
 * aurora_read_buffer apply). */
extern BlockNumber aurora_nblocks(Relation rel);

/*
 * Cut the main fork to nblocks (VACUUM, nontransactional TRUNCATE): logs the
 * TRUNCATE record, drops cached pages beyond, truncates the local FSM and VM
 * forks, publishes the size.  Caller holds AccessExclusiveLock.
 */
extern void aurora_truncate(Relation rel, BlockNumber nblocks);

/* A relation's storage was made (size 0, no pages) / the size is known
 * to be nblocks as of lsn (COPY_DATA-like bulk paths, redo). */
extern void aurora_size_created(const RelFileNode *rnode);
extern void aurora_size_set(const RelFileNode *rnode, BlockNumber nblocks, XLogRecPtr lsn);
/* During redo on a standby: size becomes max(size, nblocks) if known. */
extern void aurora_size_bump(const RelFileNode *rnode, BlockNumber nblocks, XLogRecPtr lsn);

/* Find a cached remote page without reading: pinned buffer or InvalidBuffer.
 * For redo and verify. */
extern Buffer aurora_find_cached(const RelFileNode *rnode, BlockNumber blk);

/* A database was dropped by the record that ends at lsn: its Oid may name
 * another one some day. */
extern void aurora_size_forget_database(Oid db, XLogRecPtr lsn);

/*
 * Last-written LSNs: a fixed array of LSNs indexed by a hash of the page;
 * several pages may share a slot, which can only make the value higher.
 * Never below the floor (end of recovery).
 */
extern void aurora_last_written_set(const RelFileNode *rnode, BlockNumber blk, XLogRecPtr lsn);
extern XLogRecPtr aurora_last_written_get(const RelFileNode *rnode, BlockNumber blk);

/* Shared memory. */
extern Size aurora_pagecache_shmem_size(void);
extern void aurora_pagecache_shmem_init(void);

/* Counters since start, all backends. */
typedef struct AuroraCacheStats
{
	uint64		hits;
	uint64		misses;
	uint64		fetched_pages;	/* pages that came from storage, read-ahead included */
	uint64		prefetched;		/* misses that read-ahead had the page for */
	uint64		stale_retries;	/* fetched, but changed meanwhile: fetched again */
	uint64		read_waits_us;	/* time spent waiting for storage */
	uint64		size_hits;
	uint64		size_misses;
	uint64		extends;
} AuroraCacheStats;
extern void aurora_cache_stats(AuroraCacheStats *out);

/* Waits for storage, by what is waited for. */
typedef enum AuroraFetchKind
{
	AURORA_FETCH_PAGE,			/* one page */
	AURORA_FETCH_AHEAD,			/* the answer to a request made ahead */
	AURORA_FETCH_SIZE,			/* a relation's size */
	AURORA_FETCH_KINDS
} AuroraFetchKind;

/* How long waits of one kind took; percentiles are within 1/16. */
typedef struct AuroraLatency
{
	uint64		count;
	uint64		sum_us;
	uint64		max_us;
	double		p50_us;
	double		p90_us;
	double		p99_us;
} AuroraLatency;
extern void aurora_latency(AuroraFetchKind kind, AuroraLatency *out);

#endif							/* AURORA_PAGECACHE_H */
