/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_scan_bitmap.c: bitmap heap scans.
 *
 * The bitmap gives a block and, unless it ran short of memory, the offsets
 * that the index knows about.  One visit to the page notes what is visible;
 * the tuples are then handed out without a lock.  Here `position` is the
 * index of the next one to hand out.
 *
 * Read-ahead needs to know which blocks come next.  The executor does not say,
 * but the bitmap is complete before the first block is asked for, and may be
 * iterated over as often as one likes: so we have an iterator of our own that
 * runs ahead.  A hook tells each scan the executor node it belongs to, and
 * turns the node's own read-ahead off, which would look for the local file.
 * The bitmap of a parallel scan deals its blocks out to whoever comes first;
 * there, and in rechecks of EvalPlanQual, only runs are noticed.
 */
#include "postgres.h"

#include "access/visibilitymap.h"
#include "access/xact.h"
#include "am/aurora_scan.h"
#include "executor/executor.h"
#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "nodes/nodeFuncs.h"
#include "nodes/tidbitmap.h"
#include "pgstat.h"
#include "storage/predicate.h"

static ExecutorStart_hook_type prev_executor_start = NULL;

/* ---- looking ahead ---- */

static bool
tell_scans(PlanState *node, void *arg)
{
	if (IsA(node, BitmapHeapScanState))
	{
		BitmapHeapScanState *bitmap = (BitmapHeapScanState *) node;
		Relation	rel = bitmap->ss.ss_currentRelation;

		if (rel != NULL && aurora_is_aurora_rel(rel) &&
			aurora_rel_is_remote(rel) && bitmap->ss.ss_currentScanDesc != NULL)
		{
			((AuroraScanDesc) bitmap->ss.ss_currentScanDesc)->bitmap_node = bitmap;
			bitmap->prefetch_maximum = 0;
		}
	}
	return planstate_tree_walker(node, tell_scans, arg);
}

static void
executor_start(QueryDesc *queryDesc, int eflags)
{
	if (prev_executor_start)
		prev_executor_start(queryDesc, eflags);
	else
		standard_ExecutorStart(queryDesc, eflags);
	if (queryDesc->planstate != NULL)
		(void) tell_scans(queryDesc->planstate, NULL);
}

void
aurora_scan_bitmap_install(void)
{
	prev_executor_start = ExecutorStart_hook;
	ExecutorStart_hook = executor_start;
}

/* The executor does not read a page of which it needs nothing but how many
 * tuples it has, and which it knows to be visible to all. */
static bool
page_not_needed(AuroraScanDesc scan, const TBMIterateResult *entry)
{
	return scan->bitmap_node->can_skip_fetch && !entry->recheck &&
		VM_ALL_VISIBLE(scan->rel, entry->blockno, &scan->ahead_vmbuffer);
}

static BlockNumber
next_in_bitmap(void *arg, BlockNumber after)
{
	AuroraScanDesc scan = arg;

	while (scan->bitmap_next == InvalidBlockNumber || scan->bitmap_next <= after)
	{
		TBMIterateResult *entry = tbm_iterate(scan->bitmap_ahead);

		if (entry == NULL)
		{
			/* so it stays: an iterator at its end does not move */
			scan->bitmap_next = InvalidBlockNumber;
			break;
		}
		if (entry->blockno < scan->nblocks && !page_not_needed(scan, entry))
			scan->bitmap_next = entry->blockno;
	}
	return scan->bitmap_next;
}

/* The first block of a bitmap comes; the iterator's memory is the scan's. */
static void
look_at_bitmap(AuroraScanDesc scan)
{
	BitmapHeapScanState *node = scan->bitmap_node;
	MemoryContext old;

	if (node == NULL || node->pstate != NULL || node->tbm == NULL)
		return;
	old = MemoryContextSwitchTo(scan->ahead.context);
	scan->bitmap_ahead = tbm_begin_iterate(node->tbm);
	MemoryContextSwitchTo(old);
	scan->bitmap_next = InvalidBlockNumber;
	aurora_scan_new_order(scan, next_in_bitmap, scan);
}

/* ---- pages ---- */

/* The bitmap names offsets: each may be the root of a HOT chain. */
static int
note_exact(AuroraScanDesc scan, TBMIterateResult *tbmres)
{
	int			n = 0;

	for (int i = 0; i < tbmres->ntuples; i++)
	{
		ItemPointerData tid;
		HeapTupleData tuple;

		ItemPointerSet(&tid, scan->block, tbmres->offsets[i]);
		if (aurora_hot_search_buffer(&tid, scan->rel, scan->buffer,
									 scan->base.rs_snapshot, &tuple, NULL, true))
			scan->vis_offsets[n++] = ItemPointerGetOffsetNumber(&tid);
	}
	return n;
}

/* The bitmap names only the page: all its tuples, chains or not, are looked
 * at, and the executor checks the condition again. */
static int
note_lossy(AuroraScanDesc scan)
{
	Snapshot	snapshot = scan->base.rs_snapshot;
	Page		page = BufferGetPage(scan->buffer);
	OffsetNumber maxoff = PageGetMaxOffsetNumber(page);
	int			n = 0;

	for (OffsetNumber offnum = FirstOffsetNumber; offnum <= maxoff; offnum++)
	{
		ItemId		lp = PageGetItemId(page, offnum);
		HeapTupleData tuple;
		bool		visible;

		if (!ItemIdIsNormal(lp))
			continue;
		aurora_tuple_at(&tuple, scan->rel, page, lp, scan->block, offnum);
		visible = aurora_tuple_visible(&tuple, snapshot, scan->buffer);
		if (visible)
		{
			scan->vis_offsets[n++] = offnum;
			PredicateLockTID(scan->rel, &tuple.t_self, snapshot,
							 HeapTupleHeaderGetXmin(tuple.t_data));
		}
		aurora_serializable_conflict_out(visible, scan->rel, &tuple,
										 scan->buffer, snapshot);
	}
	return n;
}

/* Go to the bitmap's next page; false if nothing on it is visible. */
bool
aurora_scan_bitmap_next_block(TableScanDesc sscan,
							  struct TBMIterateResult *tbmres)
{
	AuroraScanDesc scan = (AuroraScanDesc) sscan;
	BlockNumber block = tbmres->blockno;

	scan->position = 0;
	scan->nvisible = 0;

	/*
	 * What was appended since the scan began is not visible to it.  A
	 * serializable transaction must look at it all the same: passing it over
	 * is a conflict.
	 */
	if (block >= scan->nblocks && !IsolationIsSerializable())
		return false;

	if (!BufferIsValid(scan->buffer) || scan->block != block)
	{
		if (BufferIsValid(scan->buffer))
		{
			ReleaseBuffer(scan->buffer);
			scan->buffer = InvalidBuffer;
		}
		if (!scan->started)
		{
			scan->started = true;
			look_at_bitmap(scan);
		}
		scan->buffer = aurora_scan_read_picked(scan, block, NULL);
		scan->block = block;
	}

	aurora_prune_opt(scan->rel, scan->buffer);

	LockBuffer(scan->buffer, BUFFER_LOCK_SHARE);
	scan->nvisible = tbmres->ntuples >= 0 ?
		note_exact(scan, tbmres) : note_lossy(scan);
	LockBuffer(scan->buffer, BUFFER_LOCK_UNLOCK);

	Assert(scan->nvisible <= MaxHeapTuplesPerPage);
	return scan->nvisible > 0;
}

bool
aurora_scan_bitmap_next_tuple(TableScanDesc sscan,
							  struct TBMIterateResult *tbmres,
							  TupleTableSlot *slot)
{
	AuroraScanDesc scan = (AuroraScanDesc) sscan;
	OffsetNumber offnum;
	Page		page;

	if (scan->position >= scan->nvisible)
		return false;

	page = BufferGetPage(scan->buffer);
	offnum = scan->vis_offsets[scan->position++];
	Assert(ItemIdIsNormal(PageGetItemId(page, offnum)));
	aurora_tuple_at(&scan->tuple, scan->rel, page, PageGetItemId(page, offnum),
					scan->block, offnum);

	pgstat_count_heap_fetch(scan->rel);
	ExecStoreBufferHeapTuple(&scan->tuple, slot, scan->buffer);
	return true;
}
