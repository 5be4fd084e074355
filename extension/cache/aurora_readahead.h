/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_readahead.h: read many blocks of a table in an order known in
 * advance, with requests to storage in flight while pages are worked on.
 *
 *	aurora_ahead_init ──▶ asleep ──a block is missing──▶ awake
 *	                        ▲                              │ each run asked for
 *	                        └── two runs all in cache, ◀───┘ when the one before
 *	                            or nothing more to come      is begun
 *
 * The reader says, through a callback, which blocks it is going to read.
 * Those that are not cached are asked for in runs: the first of 4 blocks, each
 * next one twice as long, up to aurora.scan_prefetch; and as many runs in
 * flight, beside the one that is being read, as effective_io_concurrency (or
 * maintenance_io_concurrency) of the table's tablespace says, but at least
 * AURORA_AHEAD_RUNS_MIN (the default, 1, is meant for a disk; storage has
 * several readers) and at most AURORA_AHEAD_RUNS_MAX.  0 turns read-ahead off.
 *
 * Answers wait in private memory, long ones where the node put them
 * (client/aurora_share.h).  A page goes into shared_buffers when it is
 * read, so read-ahead pushes nothing out of a small cache or of a ring, and is
 * counted once, as a page that was read.
 *
 * A hint throughout: what does not come (storage trouble, a changed page, too
 * many requests) is read page by page, and that is where errors are raised.
 *
 * Of local relations, and in state asleep, aurora_ahead_read is
 * aurora_read_buffer.
 */
#ifndef AURORA_READAHEAD_H
#define AURORA_READAHEAD_H

#include "postgres.h"

#include "cache/aurora_pagecache.h"

/* Longest run, in blocks; also the maximum of aurora.scan_prefetch. */
#define AURORA_AHEAD_RUN_MAX 64
#define AURORA_AHEAD_RUNS_MIN 3
#define AURORA_AHEAD_RUNS_MAX 8

/*
 * The next block after `after` that will be read, InvalidBlockNumber if there
 * is none or it is not known.  `after` only moves forward in the order of
 * reading, until aurora_ahead_end; blocks may be passed over.  It may read local forks (visibility map), but no page of the table, and
 * must not start another read-ahead.
 */
typedef BlockNumber (*AuroraAheadNext) (void *arg, BlockNumber after);

struct AuroraAheadWindow;

typedef struct AuroraAhead
{
	Relation	rel;
	MemoryContext context;		/* outlives the reader's use of it */
	bool		maintenance;	/* which of the two settings */
	AuroraAheadNext next;
	void	   *arg;
	struct AuroraAheadWindow *window;	/* NULL: asleep since ever */
} AuroraAhead;

/* Allocates nothing. */
extern void aurora_ahead_init(AuroraAhead *ahead, Relation rel,
							  MemoryContext context, bool maintenance,
							  AuroraAheadNext next, void *arg);

/* As aurora_read_buffer, for a block that comes in the order announced (one
 * that does not is read as well). */
extern Buffer aurora_ahead_read(AuroraAhead *ahead, BlockNumber blk,
								BufferAccessStrategy strategy);

/* Forget what was asked for, give memory back; it may be used again, for
 * another order.  Not needed in an abort. */
extern void aurora_ahead_end(AuroraAhead *ahead);

#endif							/* AURORA_READAHEAD_H */
