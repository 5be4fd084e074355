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

	/* read-ahead, see aurora_scan_read_ahead() */
	int			ahead_pages;	/* length of the next window; 0 = none */
	int			ahead_pages_max;
	BlockNumber ahead_from;		/* the window last asked for, */
	BlockNumber ahead_to;		/* [from, to) */
	BlockNumber run_next;		/* picked blocks: what continues the run */
	int			run_length;		/* picked blocks: length of the run so far */

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
/* About to read this block of a forward sequential scan. */
extern void aurora_scan_read_ahead(AuroraScanDesc scan, BlockNumber block);
/* About to read this block of a scan that picks its blocks in ascending
 * order: read ahead if they turn out to follow each other. */
extern void aurora_scan_read_ahead_run(AuroraScanDesc scan, BlockNumber block,
									   BufferAccessStrategy strategy);
/* Limit a scan that has not started to a range of blocks. */
extern void aurora_scan_set_range(AuroraScanDesc scan, BlockNumber start,
								  BlockNumber nblocks);
/* How many blocks are done, for progress reports. */
extern BlockNumber aurora_scan_blocks_done(AuroraScanDesc scan);

/* ---- aurora_scan_shadow.c ---- */
extern Relation aurora_scan_shadow_relation(Relation rel);

#endif							/* AURORA_SCAN_H */
