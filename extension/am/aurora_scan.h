/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_scan.h: private to the files that scan a table (aurora_scan.c,
 * aurora_scan_*.c, aurora_index_build.c, aurora_fetch.c).
 *
 * The current page of a scan is pinned for as long as the scan stands on it,
 * so that what it returned stays where it is.  Two ways to walk over a page:
 *
 *	page mode (MVCC snapshots)	one visit under the share lock notes the
 *						offsets of all visible tuples in vis_offsets[];
 *						afterwards no lock is taken.  `position` is an
 *						index into vis_offsets[].
 *	tuple mode (all others)	the share lock is taken for each step.
 *						`position` is an offset number.
 *
 * `position` is that of the last tuple returned; on a page just entered it
 * stands before the first or behind the last, by the direction.
 */
#ifndef AURORA_SCAN_H
#define AURORA_SCAN_H

#include "am/aurora_am.h"
#include "cache/aurora_readahead.h"
#include "utils/snapmgr.h"

struct AuroraScanDescData
{
	/*
	 * What the executor knows about.  base.rs_rd may be a shadow of the
	 * relation (see aurora_scan_shadow.c): our own code uses `rel`.
	 */
	TableScanDescData base;

	Relation	rel;
	BufferAccessStrategy strategy;	/* bulk-read ring, or NULL */

	BlockNumber nblocks;		/* size of the relation when the scan began */
	BlockNumber start_block;
	BlockNumber blocks_left;	/* range scans: what is left of it, the current
								 * block included; else InvalidBlockNumber */

	bool		started;		/* standing on a page */
	BlockNumber block;			/* the page stood on, or InvalidBlockNumber */
	Buffer		buffer;			/* its buffer, pinned, or InvalidBuffer */
	HeapTupleData tuple;		/* the current tuple; t_data NULL if none */
	ParallelBlockTableScanWorkerData worker;	/* parallel scans */

	/* read-ahead */
	AuroraAhead ahead;
	bool		maintenance;	/* depth by maintenance_io_concurrency */
	bool		backward;
	BlockNumber reading;		/* the block being read, or read last */
	BlockNumber run_next;		/* picked blocks: what continues the run */
	BlockNumber run_length;		/* picked blocks: length of the run so far */
	struct AuroraScanPicks *picks;	/* aurora_scan_picks.c; or NULL */
	struct BitmapHeapScanState *bitmap_node;	/* whose scan it is, or NULL */
	struct TBMIterator *bitmap_ahead;	/* runs ahead of the executor's */
	BlockNumber bitmap_next;	/* what it has come to */
	Buffer		ahead_vmbuffer;

	/* the current page */
	int			position;
	int			nvisible;
	OffsetNumber vis_offsets[MaxHeapTuplesPerPage];
};

typedef AuroraScanDescData *AuroraScanDesc;

#define aurora_scan_page_mode(scan) \
	(((scan)->base.rs_flags & SO_ALLOW_PAGEMODE) != 0)

/* "Snapshot too old", which is gone in PostgreSQL 17. */
#if PG_VERSION_NUM < 170000
#define aurora_test_old_snapshot(snapshot, rel, page) \
	TestForOldSnapshot(snapshot, rel, page)
#else
#define aurora_test_old_snapshot(snapshot, rel, page) ((void) 0)
#endif

/* Fill in a tuple from a normal line pointer. */
static inline void
aurora_tuple_at(HeapTuple tuple, Relation rel, Page page, ItemId lp,
				BlockNumber block, OffsetNumber offnum)
{
	tuple->t_data = (HeapTupleHeader) PageGetItem(page, lp);
	tuple->t_len = ItemIdGetLength(lp);
	tuple->t_tableOid = RelationGetRelid(rel);
	ItemPointerSet(&tuple->t_self, block, offnum);
}

/* ---- aurora_scan.c ---- */

/* Trade the current page for another one: pinned, and in page mode pruned and
 * its visible tuples noted. */
extern void aurora_scan_enter_page(AuroraScanDesc scan, BlockNumber block);
/* The scan is over: nothing pinned, ready to start afresh. */
extern void aurora_scan_leave(AuroraScanDesc scan);
/* Pin a block, reading ahead in the scan's order. */
extern Buffer aurora_scan_read(AuroraScanDesc scan, BlockNumber block,
							   BufferAccessStrategy strategy);
/* The same for a picked block: unless a better order was given, runs are
 * noticed. */
extern Buffer aurora_scan_read_picked(AuroraScanDesc scan, BlockNumber block,
									  BufferAccessStrategy strategy);
/* Read ahead as far as maintenance_io_concurrency says; not started yet. */
extern void aurora_scan_for_maintenance(AuroraScanDesc scan);
/* Blocks picked by a rule that nobody knows. */
extern void aurora_scan_notice_runs(AuroraScanDesc scan);
/* From here on blocks come in another order than before. */
extern void aurora_scan_new_order(AuroraScanDesc scan, AuroraAheadNext next,
								  void *arg);
/* Limit a scan that has not started to a range of blocks. */
extern void aurora_scan_set_range(AuroraScanDesc scan, BlockNumber start,
								  BlockNumber nblocks);
/* How many blocks are done, for progress reports. */
extern BlockNumber aurora_scan_blocks_done(AuroraScanDesc scan);

/* ---- aurora_scan_picks.c ---- */

/* The size of a table was asked for, maybe by ANALYZE. */
extern void aurora_scan_size_asked(Relation rel);
/* An ANALYZE scan begins: foresee which blocks it will sample. */
extern void aurora_scan_foresee_analyze(AuroraScanDesc scan);
/* Is this the next block that was foreseen?  True if none was. */
extern bool aurora_scan_foreseen(AuroraScanDesc scan, BlockNumber block);
/* The next block that a sampling method picks. */
extern BlockNumber aurora_scan_pick(AuroraScanDesc scan,
									struct SampleScanState *scanstate);

/* ---- aurora_scan_shadow.c ---- */
extern Relation aurora_scan_shadow_relation(Relation rel);

#endif							/* AURORA_SCAN_H */
