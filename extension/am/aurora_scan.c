/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_scan.c: sequential scans, also parallel, backward and by TID range.
 *
 *	          enter_page                      step
 *	(start) ------------> on a page --------------------> tuple returned
 *	   ^                   ^     | no tuple left             |
 *	   |        enter_page |     v                           | next call
 *	   |                   +-- next_block <------------------+ (first step)
 *	   |                             | no block left
 *	   +-------- leave --------------+
 *
 * Semantics are heap's: which tuples are returned and in which order, where a
 * scan starts and joins others, what a change of direction does, and what is
 * told to the statistics and to serializable transactions.
 *
 * Invariants:
 *  1. At most one page is pinned by a scan; no content lock is held when a
 *     function of this file returns, reads a page or runs a qualification that
 *     is not a plain scan key.
 *  2. A page is read only if it is below nblocks, the size when the scan
 *     began.  What is appended later is not visible to an MVCC snapshot, and
 *     other snapshots come with a lock on the table.
 *  3. A page that is new has no line pointers, so it needs no case of its own.
 */
#include "postgres.h"

#include "access/syncscan.h"
#include "access/valid.h"
#include "am/aurora_scan.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "module/aurora_guc.h"
#include "pgstat.h"
#include "port/pg_bitutils.h"
#include "storage/predicate.h"

/* PARALLEL_SEQSCAN_RAMPDOWN_CHUNKS of tableam.c */
#define PARALLEL_CHUNKS_MIN 64
/* Chunks of a parallel scan, in runs of read-ahead: it begins anew with each. */
#define PARALLEL_CHUNK_RUNS 4

/* Picked blocks that follow each other: so many are a run. */
#define RUN_MIN 4

static BlockNumber next_in_order(void *arg, BlockNumber after);

/*
 * ---- Start and end ----
 */

/*
 * Where to start and how to read; at the beginning and for a rescan, which
 * keeps the start block so that a rewound cursor returns the same order.
 */
static void
init_scan(AuroraScanDesc scan, ScanKey key, bool keep_start_block)
{
	Relation	rel = scan->rel;
	uint32	   *flags = &scan->base.rs_flags;
	ParallelTableScanDesc shared = scan->base.rs_parallel;
	bool		large;
	bool		sync;

	if (shared != NULL)
		scan->nblocks = ((ParallelBlockTableScanDesc) shared)->phs_nblocks;
	else
		scan->nblocks = aurora_nblocks(rel);

	/*
	 * A scan of much of what shared_buffers can hold reads through a small
	 * ring, and joins another scan of the table where that one is.  The
	 * threshold is the one of table_block_parallelscan_initialize.
	 */
	large = !RelationUsesLocalBuffers(rel) && scan->nblocks > NBuffers / 4;

	if (large && (*flags & SO_ALLOW_STRAT))
	{
		if (scan->strategy == NULL)
			scan->strategy = GetAccessStrategy(BAS_BULKREAD);
	}
	else if (scan->strategy != NULL)
	{
		FreeAccessStrategy(scan->strategy);
		scan->strategy = NULL;
	}

	if (shared != NULL)
		sync = shared->phs_syncscan;
	else
		sync = large && (*flags & SO_ALLOW_SYNC) && synchronize_seqscans;
	if (sync)
		*flags |= SO_ALLOW_SYNC;
	else
		*flags &= ~SO_ALLOW_SYNC;

	/* parallel workers find the start block in the shared state */
	if (shared == NULL && !keep_start_block)
		scan->start_block = sync ? ss_get_location(rel, scan->nblocks) : 0;

	scan->blocks_left = InvalidBlockNumber;
	scan->started = false;
	scan->block = InvalidBlockNumber;
	scan->buffer = InvalidBuffer;
	scan->tuple.t_data = NULL;
	ItemPointerSetInvalid(&scan->tuple.t_self);
	scan->position = 0;
	scan->nvisible = 0;
	if (scan->bitmap_ahead != NULL)
		pfree(scan->bitmap_ahead);	/* the bitmap may be gone already */
	scan->bitmap_ahead = NULL;
	if (scan->picks != NULL)
		pfree(scan->picks);
	scan->picks = NULL;
	if (*flags & (SO_TYPE_BITMAPSCAN | SO_TYPE_ANALYZE))
		aurora_scan_notice_runs(scan);
	else
		aurora_scan_new_order(scan, next_in_order, scan);

	if (key != NULL && scan->base.rs_nkeys > 0)
		memcpy(scan->base.rs_key, key,
			   scan->base.rs_nkeys * sizeof(ScanKeyData));

	if (*flags & SO_TYPE_SEQSCAN)
		pgstat_count_heap_scan(rel);
}

TableScanDesc
aurora_beginscan(Relation rel, Snapshot snapshot, int nkeys,
				 struct ScanKeyData *key, ParallelTableScanDesc pscan,
				 uint32 flags)
{
	AuroraScanDesc scan;

	/* the descriptor must not outlive the relcache entry */
	RelationIncrementReferenceCount(rel);

	scan = palloc(sizeof(AuroraScanDescData));
	scan->rel = rel;
	scan->base.rs_rd = rel;
	scan->base.rs_snapshot = snapshot;
	scan->base.rs_nkeys = nkeys;
	scan->base.rs_key = nkeys > 0 ? palloc(sizeof(ScanKeyData) * nkeys) : NULL;
	scan->base.rs_flags = flags;
	scan->base.rs_parallel = pscan;
	ItemPointerSetInvalid(&scan->base.rs_mintid);
	ItemPointerSetInvalid(&scan->base.rs_maxtid);
	scan->strategy = NULL;
	aurora_ahead_init(&scan->ahead, rel, CurrentMemoryContext, false,
					  next_in_order, scan);
	scan->bitmap_node = NULL;
	scan->bitmap_ahead = NULL;
	scan->ahead_vmbuffer = InvalidBuffer;
	scan->maintenance = (flags & SO_TYPE_ANALYZE) != 0;
	scan->backward = false;
	scan->picks = NULL;
	scan->start_block = 0;
	scan->tuple.t_tableOid = RelationGetRelid(rel);

	/* These two make the executor read ahead on the local file. */
	if ((flags & (SO_TYPE_BITMAPSCAN | SO_TYPE_ANALYZE)) != 0 &&
		aurora_rel_is_remote(rel))
		scan->base.rs_rd = aurora_scan_shadow_relation(rel);

	/* What a page holds can be noted at once only for a fixed snapshot. */
	if (snapshot == NULL || !IsMVCCSnapshot(snapshot))
		scan->base.rs_flags &= ~SO_ALLOW_PAGEMODE;

	/*
	 * A serializable transaction that reads the whole table conflicts with
	 * any insert into it, and there is nothing finer to lock.  Scans that come
	 * from an index have locked what they read there.
	 */
	if (flags & (SO_TYPE_SEQSCAN | SO_TYPE_SAMPLESCAN))
	{
		Assert(snapshot);
		PredicateLockRelation(rel, snapshot);
	}

	init_scan(scan, key, false);
	return &scan->base;
}

void
aurora_rescan(TableScanDesc sscan, struct ScanKeyData *key, bool set_params,
			  bool allow_strat, bool allow_sync, bool allow_pagemode)
{
	AuroraScanDesc scan = (AuroraScanDesc) sscan;

	if (set_params)
	{
		uint32		flags = sscan->rs_flags;

		flags &= ~(SO_ALLOW_STRAT | SO_ALLOW_SYNC | SO_ALLOW_PAGEMODE);
		if (allow_strat)
			flags |= SO_ALLOW_STRAT;
		if (allow_sync)
			flags |= SO_ALLOW_SYNC;
		if (allow_pagemode && sscan->rs_snapshot &&
			IsMVCCSnapshot(sscan->rs_snapshot))
			flags |= SO_ALLOW_PAGEMODE;
		sscan->rs_flags = flags;
	}

	if (BufferIsValid(scan->buffer))
		ReleaseBuffer(scan->buffer);
	init_scan(scan, key, true);
}

void
aurora_endscan(TableScanDesc sscan)
{
	AuroraScanDesc scan = (AuroraScanDesc) sscan;

	if (BufferIsValid(scan->buffer))
		ReleaseBuffer(scan->buffer);
	aurora_ahead_end(&scan->ahead);
	if (BufferIsValid(scan->ahead_vmbuffer))
		ReleaseBuffer(scan->ahead_vmbuffer);
	if (scan->bitmap_ahead != NULL)
		pfree(scan->bitmap_ahead);
	if (scan->picks != NULL)
		pfree(scan->picks);
	RelationDecrementReferenceCount(scan->rel);

	if (sscan->rs_rd != scan->rel)
		pfree(sscan->rs_rd);
	if (sscan->rs_key)
		pfree(sscan->rs_key);
	if (scan->strategy != NULL)
		FreeAccessStrategy(scan->strategy);
	if (sscan->rs_flags & SO_TEMP_SNAPSHOT)
		UnregisterSnapshot(sscan->rs_snapshot);
	pfree(scan);
}

void
aurora_scan_set_range(AuroraScanDesc scan, BlockNumber start,
					  BlockNumber nblocks)
{
	Assert(!scan->started);
	Assert(!(scan->base.rs_flags & SO_ALLOW_SYNC));
	Assert(start == 0 || start < scan->nblocks);

	scan->start_block = start;
	scan->blocks_left = nblocks;
}

/*
 * ---- Pages ----
 */

void
aurora_scan_new_order(AuroraScanDesc scan, AuroraAheadNext next, void *arg)
{
	aurora_ahead_end(&scan->ahead);
	aurora_ahead_init(&scan->ahead, scan->rel, scan->ahead.context,
					  scan->maintenance, next, arg);
}

void
aurora_scan_for_maintenance(AuroraScanDesc scan)
{
	Assert(!scan->started);
	scan->maintenance = true;
	aurora_scan_new_order(scan, next_in_order, scan);
}

Buffer
aurora_scan_read(AuroraScanDesc scan, BlockNumber block,
				 BufferAccessStrategy strategy)
{
	scan->reading = block;
	return aurora_ahead_read(&scan->ahead, block, strategy);
}

/*
 * The block that follows in a parallel scan: of those still to come in this
 * process's chunk.
 */
static BlockNumber
next_in_chunk(AuroraScanDesc scan, BlockNumber after)
{
	ParallelBlockTableScanDesc shared =
	(ParallelBlockTableScanDesc) scan->base.rs_parallel;
	BlockNumber done = after >= scan->reading ? after - scan->reading :
	after + (scan->nblocks - scan->reading);
	BlockNumber next = after + 1 < scan->nblocks ? after + 1 : 0;

	/* the last chunk may reach beyond the end of the round */
	if (done >= scan->worker.phsw_chunk_remaining ||
		next == shared->phs_startblock)
		return InvalidBlockNumber;
	return next;
}

/* The block that follows in a sequential scan, as next_block finds it; but
 * nothing is changed here. */
static BlockNumber
next_in_order(void *arg, BlockNumber after)
{
	AuroraScanDesc scan = arg;
	BlockNumber last;

	if (scan->base.rs_parallel != NULL)
		return next_in_chunk(scan, after);
	if (scan->backward)
	{
		if (after == scan->start_block)
			return InvalidBlockNumber;
		return (after > 0 ? after : scan->nblocks) - 1;
	}
	if (scan->blocks_left != InvalidBlockNumber)
	{
		last = scan->reading + scan->blocks_left - 1;
		if (after >= last)
			return InvalidBlockNumber;
	}
	after = after + 1 < scan->nblocks ? after + 1 : 0;
	return after == scan->start_block ? InvalidBlockNumber : after;
}

/*
 * Picked blocks of which nobody says which is next: if some have followed each
 * other it is likely that more do, as many again.
 */
static BlockNumber
next_in_run(void *arg, BlockNumber after)
{
	AuroraScanDesc scan = arg;

	if (scan->run_length < RUN_MIN || after + 1 >= scan->nblocks ||
		after < scan->reading || after - scan->reading >= scan->run_length)
		return InvalidBlockNumber;
	return after + 1;
}

void
aurora_scan_notice_runs(AuroraScanDesc scan)
{
	scan->run_next = InvalidBlockNumber;
	scan->run_length = 0;
	aurora_scan_new_order(scan, next_in_run, scan);
}

Buffer
aurora_scan_read_picked(AuroraScanDesc scan, BlockNumber block,
						BufferAccessStrategy strategy)
{
	scan->run_length = block == scan->run_next ? scan->run_length + 1 : 0;
	scan->run_next = block + 1;
	return aurora_scan_read(scan, block, strategy);
}

/* Note the offsets of the page's visible tuples; share lock held. */
static void
note_visible_tuples(AuroraScanDesc scan)
{
	Relation	rel = scan->rel;
	Snapshot	snapshot = scan->base.rs_snapshot;
	Page		page = BufferGetPage(scan->buffer);
	OffsetNumber maxoff = PageGetMaxOffsetNumber(page);
	bool		check_conflict;
	bool		all_visible;
	int			n = 0;

	/*
	 * Visible to all on the primary need not mean visible to a snapshot of a
	 * standby, which can lag behind what the page says.
	 */
	all_visible = PageIsAllVisible(page) && !snapshot->takenDuringRecovery;
	check_conflict = CheckForSerializableConflictOutNeeded(rel, snapshot);

	for (OffsetNumber offnum = FirstOffsetNumber; offnum <= maxoff; offnum++)
	{
		ItemId		lp = PageGetItemId(page, offnum);
		HeapTupleData tuple;
		bool		visible = true;

		if (!ItemIdIsNormal(lp))
			continue;
		if (!all_visible || check_conflict)
		{
			aurora_tuple_at(&tuple, rel, page, lp, scan->block, offnum);
			if (!all_visible)
				visible = aurora_tuple_visible(&tuple, snapshot, scan->buffer);
			if (check_conflict)
				aurora_serializable_conflict_out(visible, rel, &tuple,
												 scan->buffer, snapshot);
		}
		if (visible)
			scan->vis_offsets[n++] = offnum;
	}

	Assert(n <= MaxHeapTuplesPerPage);
	scan->nvisible = n;
}

void
aurora_scan_enter_page(AuroraScanDesc scan, BlockNumber block)
{
	Assert(block < scan->nblocks);

	if (BufferIsValid(scan->buffer))
	{
		ReleaseBuffer(scan->buffer);
		scan->buffer = InvalidBuffer;
	}

	/* A scan can go over many pages before it finds something to return. */
	CHECK_FOR_INTERRUPTS();

	scan->buffer = aurora_scan_read(scan, block, scan->strategy);
	scan->block = block;

	if (!aurora_scan_page_mode(scan))
		return;

	aurora_prune_opt(scan->rel, scan->buffer);

	/* What is found visible under the lock stays there under the pin. */
	LockBuffer(scan->buffer, BUFFER_LOCK_SHARE);
	aurora_test_old_snapshot(scan->base.rs_snapshot, scan->rel,
							 BufferGetPage(scan->buffer));
	note_visible_tuples(scan);
	LockBuffer(scan->buffer, BUFFER_LOCK_UNLOCK);
}

void
aurora_scan_leave(AuroraScanDesc scan)
{
	if (BufferIsValid(scan->buffer))
		ReleaseBuffer(scan->buffer);
	scan->buffer = InvalidBuffer;
	scan->block = InvalidBlockNumber;
	scan->tuple.t_data = NULL;
	scan->started = false;
}

/*
 * Counts the blocks given to this scan so far; in a parallel scan, roughly
 * those given to all.
 */
BlockNumber
aurora_scan_blocks_done(AuroraScanDesc scan)
{
	BlockNumber start = scan->start_block;

	if (scan->base.rs_parallel != NULL)
		start = ((ParallelBlockTableScanDesc) scan->base.rs_parallel)->phs_startblock;

	if (scan->block > start)
		return scan->block - start;
	return scan->nblocks - start + scan->block; /* wrapped around */
}

/*
 * ---- The order of blocks ----
 */

static BlockNumber
next_parallel_block(AuroraScanDesc scan)
{
	return table_block_parallelscan_nextpage(scan->rel, &scan->worker,
											 (ParallelBlockTableScanDesc) scan->base.rs_parallel);
}

/*
 * Each process takes a chunk of blocks at a time.  Stock makes 2,048 chunks of
 * a table, which may be single blocks; we want them as long as some runs of
 * read-ahead, if that still makes PARALLEL_CHUNKS_MIN of them: when so many
 * are left, chunks begin to get shorter so that all processes end together.
 */
static void
start_parallel(AuroraScanDesc scan)
{
	uint32		chunk = 0;

	if (aurora_rel_is_remote(scan->rel))
		chunk = Min(aurora_scan_prefetch_pages * PARALLEL_CHUNK_RUNS,
					scan->nblocks / PARALLEL_CHUNKS_MIN);

	table_block_parallelscan_startblock_init(scan->rel, &scan->worker,
											 (ParallelBlockTableScanDesc) scan->base.rs_parallel);
	if (chunk > 0)
		chunk = pg_prevpower2_32(chunk);
	if (chunk > scan->worker.phsw_chunk_size)
		scan->worker.phsw_chunk_size = chunk;
}

/* InvalidBlockNumber if there is nothing to scan. */
static BlockNumber
first_block(AuroraScanDesc scan, bool backward)
{
	if (scan->nblocks == 0 || scan->blocks_left == 0)
		return InvalidBlockNumber;

	if (scan->base.rs_parallel != NULL)
	{
		Assert(!backward);
		start_parallel(scan);
		return next_parallel_block(scan);
	}

	if (!backward)
		return scan->start_block;

	/* nobody goes this way with us */
	scan->base.rs_flags &= ~SO_ALLOW_SYNC;
	if (scan->blocks_left != InvalidBlockNumber)
		return (scan->start_block + scan->blocks_left - 1) % scan->nblocks;
	return (scan->start_block > 0 ? scan->start_block : scan->nblocks) - 1;
}

/* InvalidBlockNumber if the current block was the last. */
static BlockNumber
next_block(AuroraScanDesc scan, bool backward)
{
	BlockNumber next;
	bool		finished;

	if (scan->base.rs_parallel != NULL)
	{
		next = next_parallel_block(scan);
		finished = next == InvalidBlockNumber;
	}
	else if (backward)
	{
		finished = scan->block == scan->start_block;
		next = (scan->block > 0 ? scan->block : scan->nblocks) - 1;
	}
	else
	{
		next = scan->block + 1;
		if (next >= scan->nblocks)
			next = 0;
		finished = next == scan->start_block;
	}

	if (scan->base.rs_parallel == NULL)
	{
		if (scan->blocks_left != InvalidBlockNumber && --scan->blocks_left == 0)
			finished = true;

		/*
		 * Report the position even at the end, where it is the start block
		 * again: so the start does not wander when a query is repeated.
		 */
		if (!backward && (scan->base.rs_flags & SO_ALLOW_SYNC))
			ss_report_location(scan->rel, next);
	}
	return finished ? InvalidBlockNumber : next;
}

/* Stand before the page's first tuple, or behind its last. */
static void
enter_from(AuroraScanDesc scan, BlockNumber block, bool backward)
{
	if (scan->backward != backward)
	{
		scan->backward = backward;
		aurora_scan_new_order(scan, next_in_order, scan);
	}
	aurora_scan_enter_page(scan, block);

	if (aurora_scan_page_mode(scan))
		scan->position = backward ? scan->nvisible : -1;
	else
		scan->position = backward ? (int) MaxOffsetNumber : 0;
}

/*
 * ---- Tuples ----
 */

static inline bool
key_matches(AuroraScanDesc scan)
{
	bool		matches = true;

	if (scan->base.rs_nkeys > 0)
		HeapKeyTest(&scan->tuple, RelationGetDescr(scan->rel),
					scan->base.rs_nkeys, scan->base.rs_key, matches);
	return matches;
}

/* Next tuple of the page in page mode; false if there is none left. */
static inline bool
step_page_mode(AuroraScanDesc scan, int step)
{
	Page		page = BufferGetPage(scan->buffer);
	int			position = scan->position;

	aurora_test_old_snapshot(scan->base.rs_snapshot, scan->rel, page);

	for (position += step; position >= 0 && position < scan->nvisible;
		 position += step)
	{
		OffsetNumber offnum = scan->vis_offsets[position];
		ItemId		lp = PageGetItemId(page, offnum);

		Assert(ItemIdIsNormal(lp));
		aurora_tuple_at(&scan->tuple, scan->rel, page, lp, scan->block, offnum);
		if (key_matches(scan))
		{
			scan->position = position;
			return true;
		}
	}
	return false;
}

/* The same in tuple mode. */
static bool
step_tuple_mode(AuroraScanDesc scan, int step)
{
	Snapshot	snapshot = scan->base.rs_snapshot;
	Page		page = BufferGetPage(scan->buffer);
	bool		found = false;
	int			maxoff;
	int			offnum;

	LockBuffer(scan->buffer, BUFFER_LOCK_SHARE);
	aurora_test_old_snapshot(snapshot, scan->rel, page);
	maxoff = PageGetMaxOffsetNumber(page);

	/* The last tuple returned may have been removed since, and the line
	 * pointer array cut short. */
	offnum = scan->position + step;
	if (step < 0)
		offnum = Min(offnum, maxoff);

	for (; offnum >= FirstOffsetNumber && offnum <= maxoff; offnum += step)
	{
		ItemId		lp = PageGetItemId(page, offnum);
		bool		visible;

		if (!ItemIdIsNormal(lp))
			continue;
		aurora_tuple_at(&scan->tuple, scan->rel, page, lp, scan->block, offnum);
		visible = aurora_tuple_visible(&scan->tuple, snapshot, scan->buffer);
		aurora_serializable_conflict_out(visible, scan->rel, &scan->tuple,
										 scan->buffer, snapshot);
		if (visible && key_matches(scan))
		{
			scan->position = offnum;
			found = true;
			break;
		}
	}

	LockBuffer(scan->buffer, BUFFER_LOCK_UNLOCK);
	return found;
}

/*
 * Put the next tuple into scan->tuple; false at the end.  At the end the scan
 * forgets where it was: a call in the other direction starts from that side,
 * which is what a cursor needs.
 */
static bool
advance(AuroraScanDesc scan, ScanDirection direction)
{
	bool		backward = ScanDirectionIsBackward(direction);
	bool		page_mode = aurora_scan_page_mode(scan);
	int			step = backward ? -1 : 1;
	BlockNumber block;

	if (ScanDirectionIsNoMovement(direction))
		return scan->started;	/* the pin has kept it where it was */

	if (!scan->started)
	{
		block = first_block(scan, backward);
		if (block == InvalidBlockNumber)
		{
			Assert(!BufferIsValid(scan->buffer));
			scan->tuple.t_data = NULL;
			return false;
		}
		enter_from(scan, block, backward);
		scan->started = true;
	}

	while (!(page_mode ? step_page_mode(scan, step) :
			 step_tuple_mode(scan, step)))
	{
		block = next_block(scan, backward);
		if (block == InvalidBlockNumber)
		{
			aurora_scan_leave(scan);
			return false;
		}
		enter_from(scan, block, backward);
	}
	return true;
}

HeapTuple
aurora_getnext(TableScanDesc sscan, ScanDirection direction, Buffer *buffer)
{
	AuroraScanDesc scan = (AuroraScanDesc) sscan;

	if (!advance(scan, direction))
	{
		*buffer = InvalidBuffer;
		return NULL;
	}
	pgstat_count_heap_getnext(scan->rel);
	*buffer = scan->buffer;
	return &scan->tuple;
}

bool
aurora_getnextslot(TableScanDesc sscan, ScanDirection direction,
				   TupleTableSlot *slot)
{
	AuroraScanDesc scan = (AuroraScanDesc) sscan;

	if (!advance(scan, direction))
	{
		ExecClearTuple(slot);
		return false;
	}
	pgstat_count_heap_getnext(scan->rel);
	ExecStoreBufferHeapTuple(&scan->tuple, slot, scan->buffer);
	return true;
}

/*
 * ---- TID ranges ----
 */

/*
 * Limit the scan to TIDs from mintid to maxtid, both included.  An empty
 * table needs no limit.
 */
void
aurora_set_tidrange(TableScanDesc sscan, ItemPointer mintid, ItemPointer maxtid)
{
	AuroraScanDesc scan = (AuroraScanDesc) sscan;
	ItemPointerData low;
	ItemPointerData high;
	BlockNumber first;

	if (scan->nblocks == 0)
		return;

	/* the part of the range that can exist */
	ItemPointerSet(&low, 0, FirstOffsetNumber);
	if (ItemPointerCompare(mintid, &low) > 0)
		low = *mintid;
	ItemPointerSet(&high, scan->nblocks - 1, MaxOffsetNumber);
	if (ItemPointerCompare(maxtid, &high) < 0)
		high = *maxtid;

	if (ItemPointerCompare(&high, &low) < 0)
	{
		aurora_scan_set_range(scan, 0, 0);
		return;
	}

	first = ItemPointerGetBlockNumberNoCheck(&low);
	aurora_scan_set_range(scan, first,
						  ItemPointerGetBlockNumberNoCheck(&high) - first + 1);
	sscan->rs_mintid = low;
	sscan->rs_maxtid = high;
}

bool
aurora_getnextslot_tidrange(TableScanDesc sscan, ScanDirection direction,
							TupleTableSlot *slot)
{
	AuroraScanDesc scan = (AuroraScanDesc) sscan;

	/* The pages at both ends of the range hold tuples outside of it. */
	while (advance(scan, direction))
	{
		ItemPointer tid = &scan->tuple.t_self;
		bool		below = ItemPointerCompare(tid, &sscan->rs_mintid) < 0;

		if (!below && ItemPointerCompare(tid, &sscan->rs_maxtid) <= 0)
		{
			pgstat_count_heap_getnext(scan->rel);
			ExecStoreBufferHeapTuple(&scan->tuple, slot, scan->buffer);
			return true;
		}
		/* beyond the end of the range, all that follows is too */
		if (below == ScanDirectionIsBackward(direction))
			break;
	}
	ExecClearTuple(slot);
	return false;
}
