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

#endif							/* AURORA_CACHE_INTERNAL_H */
