/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_scan_sample.c: TABLESAMPLE.
 *
 * The sampling method picks blocks (or leaves it at all of them, in order)
 * and then offsets on each; what it picks is returned if it is visible.  In
 * page mode (see aurora_scan.h) `position` is where in vis_offsets[] the last
 * pick was looked for: methods mostly pick in ascending order.
 */
#include "postgres.h"

#include "access/syncscan.h"
#include "access/tsmapi.h"
#include "am/aurora_scan.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "pgstat.h"

/* All blocks from the start block on; InvalidBlockNumber when round. */
static BlockNumber
next_sequential_block(AuroraScanDesc scan)
{
	BlockNumber next;

	if (scan->block == InvalidBlockNumber)
		return scan->start_block;

	next = scan->block + 1;
	if (next >= scan->nblocks)
		next = 0;
	/* also at the end, as aurora_scan.c does */
	if (scan->base.rs_flags & SO_ALLOW_SYNC)
		ss_report_location(scan->rel, next);
	return next == scan->start_block ? InvalidBlockNumber : next;
}

bool
aurora_scan_sample_next_block(TableScanDesc sscan,
							  struct SampleScanState *scanstate)
{
	AuroraScanDesc scan = (AuroraScanDesc) sscan;
	TsmRoutine *tsm = scanstate->tsmroutine;
	BlockNumber block;

	if (scan->nblocks == 0)
		return false;

	if (tsm->NextSampleBlock)
		block = aurora_scan_pick(scan, scanstate);
	else
		block = next_sequential_block(scan);

	if (!BlockNumberIsValid(block))
	{
		aurora_scan_leave(scan);
		return false;
	}

	aurora_scan_enter_page(scan, block);
	scan->position = 0;
	scan->started = true;
	return true;
}

/* Page mode: is this offset among those noted as visible? */
static bool
noted_visible(AuroraScanDesc scan, OffsetNumber offnum)
{
	int			i = scan->position;

	if (i >= scan->nvisible || scan->vis_offsets[i] > offnum)
		i = 0;
	while (i < scan->nvisible && scan->vis_offsets[i] < offnum)
		i++;
	scan->position = i;
	return i < scan->nvisible && scan->vis_offsets[i] == offnum;
}

/* Tuple mode: look at the tuple now; it goes to scan->tuple if visible. */
static bool
visible_now(AuroraScanDesc scan, OffsetNumber offnum)
{
	Snapshot	snapshot = scan->base.rs_snapshot;
	Page		page = BufferGetPage(scan->buffer);
	bool		visible = false;

	LockBuffer(scan->buffer, BUFFER_LOCK_SHARE);
	/* VACUUM may have cut dead line pointers off meanwhile */
	if (offnum <= PageGetMaxOffsetNumber(page) &&
		ItemIdIsNormal(PageGetItemId(page, offnum)))
	{
		aurora_tuple_at(&scan->tuple, scan->rel, page,
						PageGetItemId(page, offnum), scan->block, offnum);
		visible = aurora_tuple_visible(&scan->tuple, snapshot, scan->buffer);
		aurora_serializable_conflict_out(visible, scan->rel, &scan->tuple,
										 scan->buffer, snapshot);
	}
	LockBuffer(scan->buffer, BUFFER_LOCK_UNLOCK);
	return visible;
}

bool
aurora_scan_sample_next_tuple(TableScanDesc sscan,
							  struct SampleScanState *scanstate,
							  TupleTableSlot *slot)
{
	AuroraScanDesc scan = (AuroraScanDesc) sscan;
	TsmRoutine *tsm = scanstate->tsmroutine;
	Page		page = BufferGetPage(scan->buffer);
	OffsetNumber maxoff = PageGetMaxOffsetNumber(page);

	for (;;)
	{
		OffsetNumber offnum;

		CHECK_FOR_INTERRUPTS();

		offnum = tsm->NextSampleTuple(scanstate, scan->block, maxoff);
		if (!OffsetNumberIsValid(offnum))
		{
			ExecClearTuple(slot);
			return false;
		}

		if (!aurora_scan_page_mode(scan))
		{
			if (!visible_now(scan, offnum))
				continue;
		}
		else
		{
			if (!noted_visible(scan, offnum))
				continue;
			aurora_tuple_at(&scan->tuple, scan->rel, page,
							PageGetItemId(page, offnum), scan->block, offnum);
		}

		ExecStoreBufferHeapTuple(&scan->tuple, slot, scan->buffer);
		pgstat_count_heap_getnext(scan->rel);
		return true;
	}
}
