/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_cache_internal.h: what the files of extension/cache share with each
 * other and with nobody else.
 */
#ifndef AURORA_CACHE_INTERNAL_H
#define AURORA_CACHE_INTERNAL_H

#include "postgres.h"

#include "access/xact.h"
#include "port/atomics.h"
#include "portability/instr_time.h"
#include "storage/lwlock.h"

#include "cache/aurora_pagecache.h"

/* ---- aurora_lastwritten.c ---- */
extern Size aurora_last_written_shmem_size(void);
extern void aurora_last_written_shmem_init(void);
extern void aurora_last_written_set_range(const RelFileNode *rnode,
										  BlockNumber first, BlockNumber end,
										  XLogRecPtr lsn);
extern void aurora_last_written_raise_floor(XLogRecPtr lsn);

/* ---- aurora_relsize.c ---- */
extern Size aurora_relsize_shmem_size(void);
extern void aurora_relsize_shmem_init(void);

/* ---- aurora_pagecache.c ---- */

/*
 * Counters are gathered in the process and added to the shared ones when a
 * transaction ends, so that a hit touches no shared cache line but the
 * buffer's own.
 */
extern AuroraCacheStats aurora_cache_pending;
extern void aurora_cache_xact_callback(XactEvent event, void *arg);

/*
 * Which version of a page (or, for InvalidBlockNumber, of the size) to ask
 * for.  A primary reads the newest one, not before *not_before (*read_lsn is
 * invalid), and has its own log flushed that far, else nobody would ship it.
 * A standby reads as of what it has replayed.
 */
extern void aurora_read_point(const RelFileNode *rnode, BlockNumber blk,
							  XLogRecPtr *not_before, XLogRecPtr *read_lsn);

/* Is the block in shared_buffers at this moment? */
extern bool aurora_is_cached(const RelFileNode *rnode, BlockNumber blk);

/*
 * aurora_read_buffer in two halves, for remote relations.  The first pins the
 * block if it is cached and filled, and counts a hit; else InvalidBuffer.  The
 * second reads it otherwise: it takes `page`, if that is not NULL and covers
 * the block's newest change, being complete to complete_to; else it asks
 * storage.
 */
extern Buffer aurora_read_cached(Relation rel, BlockNumber blk,
								 BufferAccessStrategy strategy);
extern Buffer aurora_read_missing(Relation rel, BlockNumber blk,
								  BufferAccessStrategy strategy,
								  const uint8 *page, XLogRecPtr complete_to);

/* Account for a wait for storage: counters, I/O timing, latencies. */
extern void aurora_wait_start(instr_time *start);
extern void aurora_wait_end(const instr_time *start, AuroraFetchKind kind);

/* ---- aurora_latency.c ---- */
extern Size aurora_latency_shmem_size(void);
extern void aurora_latency_shmem_init(void);
extern void aurora_latency_note(AuroraFetchKind kind, uint64 us);
extern void aurora_latency_flush(void);

#endif							/* AURORA_CACHE_INTERNAL_H */
