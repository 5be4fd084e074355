/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_scan_analyze.c: the rows that ANALYZE samples.
 *
 * What is counted follows heap: as if no transaction that is still running
 * had happened, except our own.  When one of them commits it reports its own
 * counts, so they must not be in ours yet.
 *
 *	tuple							live	dead	sampled
 *	live							x				x
 *	dead, dead line pointer					x
 *	being inserted by us			x				x
 *	being inserted by another
 *	being deleted by us						x
 *	being deleted by another		x				x
 *
 * The share lock is kept from the page's first tuple to its last, across
 * calls: little is done in between, and no other page is read.  Here
 * `position` is the next offset to look at.
 */
#include "postgres.h"

#include "access/xact.h"
#include "am/aurora_scan.h"
#include "executor/tuptable.h"

/* Pins and locks the block; each of them can hold tuples. */
bool
aurora_scan_analyze_next_block(TableScanDesc sscan, BlockNumber blockno,
							   BufferAccessStrategy bstrategy)
{
	AuroraScanDesc scan = (AuroraScanDesc) sscan;

	if (!scan->started)
	{
		scan->started = true;
		aurora_scan_foresee_analyze(scan);
	}
	if (!aurora_scan_foreseen(scan, blockno))
	{
		pfree(scan->picks);
		scan->picks = NULL;
		aurora_scan_notice_runs(scan);
	}
	scan->buffer = aurora_scan_read_picked(scan, blockno, bstrategy);
	scan->block = blockno;
	scan->position = FirstOffsetNumber;
	LockBuffer(scan->buffer, BUFFER_LOCK_SHARE);
	return true;
}

/* Counts the tuple; is it a row to sample? */
static bool
count_tuple(HeapTuple tuple, Buffer buffer, TransactionId oldest_xmin,
			double *liverows, double *deadrows)
{
	HeapTupleHeader header = tuple->t_data;

	switch (aurora_tuple_vacuum_status(tuple, oldest_xmin, buffer))
	{
		case HEAPTUPLE_LIVE:
			break;

		case HEAPTUPLE_DEAD:
		case HEAPTUPLE_RECENTLY_DEAD:
			*deadrows += 1;
			return false;

		case HEAPTUPLE_INSERT_IN_PROGRESS:
			if (!TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(header)))
				return false;
			break;

		case HEAPTUPLE_DELETE_IN_PROGRESS:
			if (TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetUpdateXid(header)))
			{
				*deadrows += 1;
				return false;
			}
			break;
	}
	*liverows += 1;
	return true;
}

bool
aurora_scan_analyze_next_tuple(TableScanDesc sscan, TransactionId OldestXmin,
							   double *liverows, double *deadrows,
							   TupleTableSlot *slot)
{
	AuroraScanDesc scan = (AuroraScanDesc) sscan;
	HeapTuple	tuple = &((BufferHeapTupleTableSlot *) slot)->base.tupdata;
	Page		page = BufferGetPage(scan->buffer);
	int			maxoff = PageGetMaxOffsetNumber(page);

	Assert(TTS_IS_BUFFERTUPLE(slot));

	while (scan->position <= maxoff)
	{
		OffsetNumber offnum = (OffsetNumber) scan->position++;
		ItemId		lp = PageGetItemId(page, offnum);

		if (!ItemIdIsNormal(lp))
		{
			/* work for VACUUM, unlike an unused or redirected one */
			if (ItemIdIsDead(lp))
				*deadrows += 1;
			continue;
		}

		aurora_tuple_at(tuple, scan->rel, page, lp, scan->block, offnum);
		if (count_tuple(tuple, scan->buffer, OldestXmin, liverows, deadrows))
		{
			ExecStoreBufferHeapTuple(tuple, slot, scan->buffer);
			return true;		/* the page stays locked */
		}
	}

	UnlockReleaseBuffer(scan->buffer);
	scan->buffer = InvalidBuffer;
	ExecClearTuple(slot);		/* it may have the page pinned */
	return false;
}
