/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_fetch.c: single tuples by TID, from an index, or along ctid links.
 *
 * Words: a HOT chain begins at a line pointer that indexes know, its root
 * (a tuple, or a redirect to one), and goes on through ctid to heap-only
 * tuples on the same page.  Each member's xmin is its predecessor's xmax; if
 * it is not, the line pointer was used again and the chain has ended.
 *
 * Invariants:
 *  1. A line pointer taken from anywhere but the page itself may be gone:
 *     it is checked under the page's lock before it is followed.
 *  2. Functions that return a tuple leave its page pinned, in the slot or in
 *     the caller's buffer variable, and unlocked.
 *  3. Which pages an index scan returns depends on the index alone; what it
 *     seems to be doing decides only which of them are asked for ahead.
 */
#include "postgres.h"

#include "am/aurora_fetch.h"
#include "am/aurora_scan.h"
#include "miscadmin.h"
#include "storage/predicate.h"
#include "storage/procarray.h"

/* The normal line pointer at offnum, or NULL if there is no such tuple. */
static inline ItemId
normal_item(Page page, OffsetNumber offnum)
{
	ItemId		lp;

	if (offnum < FirstOffsetNumber || offnum > PageGetMaxOffsetNumber(page))
		return NULL;
	lp = PageGetItemId(page, offnum);
	return ItemIdIsNormal(lp) ? lp : NULL;
}

/* The offset to begin at: that of the root's tuple, if the root redirects. */
static inline OffsetNumber
follow_redirect(Page page, OffsetNumber offnum, bool *redirected)
{
	*redirected = false;
	if (offnum >= FirstOffsetNumber && offnum <= PageGetMaxOffsetNumber(page))
	{
		ItemId		lp = PageGetItemId(page, offnum);

		if (ItemIdIsRedirected(lp))
		{
			*redirected = true;
			return ItemIdGetRedirect(lp);
		}
	}
	return offnum;
}

/*
 * Search the HOT chain that tid is part of for the next member that the
 * snapshot sees.  first_call: tid is the chain's root; else it is the member
 * that the last call returned, and the search goes on behind it.
 *
 * Found: returns true, *heapTuple is the member (t_self included) and tid has
 * its offset.  Else returns false, tid is unchanged and *heapTuple undefined.
 * *all_dead (may be NULL): no member can be seen by anyone any more; only a
 * search of the whole chain can tell.
 *
 * The buffer is pinned and share-locked by the caller, before and after.
 */
bool
aurora_hot_search_buffer(ItemPointer tid, Relation rel, Buffer buffer,
						 Snapshot snapshot, HeapTuple heapTuple, bool *all_dead,
						 bool first_call)
{
	Page		page = BufferGetPage(buffer);
	BlockNumber block = ItemPointerGetBlockNumber(tid);
	OffsetNumber offnum = ItemPointerGetOffsetNumber(tid);
	TransactionId prev_xmax = InvalidTransactionId;
	GlobalVisState *vistest = NULL;
	bool		dead_so_far = first_call && all_dead != NULL;
	bool		at_root = first_call;
	bool		skip = !first_call;
	bool		found = false;

	Assert(TransactionIdIsValid(RecentXmin));
	Assert(BufferGetBlockNumber(buffer) == block);

	if (first_call)
	{
		bool		redirected;

		offnum = follow_redirect(page, offnum, &redirected);
		at_root = !redirected;
	}

	for (;;)
	{
		ItemId		lp = normal_item(page, offnum);
		HeapTupleHeader header;

		if (lp == NULL)
			break;

		aurora_tuple_at(heapTuple, rel, page, lp, block, offnum);
		header = heapTuple->t_data;

		/* a chain doesn't begin with a heap-only tuple */
		if (at_root && HeapTupleHeaderIsHeapOnly(header))
			break;
		if (TransactionIdIsValid(prev_xmax) &&
			!TransactionIdEquals(prev_xmax, HeapTupleHeaderGetXmin(header)))
			break;

		if (!skip)
		{
			bool		visible = aurora_tuple_visible(heapTuple, snapshot, buffer);

			aurora_serializable_conflict_out(visible, rel, heapTuple, buffer,
											 snapshot);
			if (visible)
			{
				ItemPointerSetOffsetNumber(tid, offnum);
				PredicateLockTID(rel, &heapTuple->t_self, snapshot,
								 HeapTupleHeaderGetXmin(header));
				dead_so_far = false;
				found = true;
				break;
			}
		}
		skip = false;

		/* Can't see it.  Can anyone?  Hint bits have just been set. */
		if (dead_so_far)
		{
			if (vistest == NULL)
				vistest = GlobalVisTestFor(rel);
			dead_so_far = HeapTupleIsSurelyDead(heapTuple, vistest);
		}

		if (!HeapTupleHeaderIsHotUpdated(header))
			break;
		Assert(ItemPointerGetBlockNumber(&header->t_ctid) == block);
		offnum = ItemPointerGetOffsetNumber(&header->t_ctid);
		prev_xmax = HeapTupleHeaderGetUpdateXid(header);
		at_root = false;
	}

	if (all_dead)
		*all_dead = dead_so_far;
	return found;
}

/*
 * The tuple at exactly tuple->t_self, HOT chains not followed.
 *
 * Returns true if the snapshot sees it: *tuple is filled in and *userbuf
 * pinned.  If it is there but not visible, returns false, and with keep_buf
 * the rest as for true.  Otherwise t_data is NULL and *userbuf
 * InvalidBuffer.  The block must exist; the line pointer need not.
 */
bool
aurora_fetch(Relation rel, Snapshot snapshot, HeapTuple tuple, Buffer *userbuf,
			 bool keep_buf)
{
	BlockNumber block = ItemPointerGetBlockNumber(&tuple->t_self);
	OffsetNumber offnum = ItemPointerGetOffsetNumber(&tuple->t_self);
	Buffer		buffer = aurora_read_buffer(rel, block, NULL);
	Page		page = BufferGetPage(buffer);
	bool		visible = false;
	ItemId		lp;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	aurora_test_old_snapshot(snapshot, rel, page);

	lp = normal_item(page, offnum);
	if (lp != NULL)
	{
		aurora_tuple_at(tuple, rel, page, lp, block, offnum);
		visible = aurora_tuple_visible(tuple, snapshot, buffer);
		if (visible)
			PredicateLockTID(rel, &tuple->t_self, snapshot,
							 HeapTupleHeaderGetXmin(tuple->t_data));
		aurora_serializable_conflict_out(visible, rel, tuple, buffer, snapshot);
	}

	LockBuffer(buffer, BUFFER_LOCK_UNLOCK);

	if (visible || (keep_buf && lp != NULL))
		*userbuf = buffer;
	else
	{
		ReleaseBuffer(buffer);
		*userbuf = InvalidBuffer;
		tuple->t_data = NULL;
	}
	return visible;
}

/*
 * Look at one version on the way to the latest.  Returns true if *ctid and
 * *prev_xmax have been moved on to the next version; *tid becomes this one if
 * the scan's snapshot sees it.
 */
static bool
follow_ctid(TableScanDesc sscan, ItemPointer ctid, TransactionId *prev_xmax,
			ItemPointer tid)
{
	Relation	rel = ((AuroraScanDesc) sscan)->rel;
	BlockNumber block = ItemPointerGetBlockNumber(ctid);
	OffsetNumber offnum = ItemPointerGetOffsetNumber(ctid);
	Buffer		buffer = aurora_read_buffer(rel, block, NULL);
	Page		page = BufferGetPage(buffer);
	bool		more = false;
	ItemId		lp;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	aurora_test_old_snapshot(sscan->rs_snapshot, rel, page);

	lp = normal_item(page, offnum);
	if (lp != NULL)
	{
		HeapTupleData tuple;
		HeapTupleHeader header;

		aurora_tuple_at(&tuple, rel, page, lp, block, offnum);
		header = tuple.t_data;

		/* an unrelated tuple may have taken the successor's place */
		if (!TransactionIdIsValid(*prev_xmax) ||
			TransactionIdEquals(*prev_xmax, HeapTupleHeaderGetXmin(header)))
		{
			bool		visible;

			visible = aurora_tuple_visible(&tuple, sscan->rs_snapshot, buffer);
			aurora_serializable_conflict_out(visible, rel, &tuple, buffer,
											 sscan->rs_snapshot);
			if (visible)
				*tid = *ctid;

			if (!(header->t_infomask & HEAP_XMAX_INVALID) &&
				!HeapTupleHeaderIsOnlyLocked(header) &&
				!HeapTupleHeaderIndicatesMovedPartitions(header) &&
				!ItemPointerEquals(&tuple.t_self, &header->t_ctid))
			{
				*ctid = header->t_ctid;
				*prev_xmax = HeapTupleHeaderGetUpdateXid(header);
				more = true;
			}
		}
	}

	UnlockReleaseBuffer(buffer);
	return more;
}

/*
 * Replace *tid by that of the row's latest version which the scan's snapshot
 * sees; unchanged if it sees none.  tid must be valid for the scan.
 */
void
aurora_get_latest_tid(TableScanDesc scan, ItemPointer tid)
{
	ItemPointerData ctid = *tid;
	TransactionId prev_xmax = InvalidTransactionId;

	Assert(ItemPointerIsValid(tid));

	while (follow_ctid(scan, &ctid, &prev_xmax, tid))
		CHECK_FOR_INTERRUPTS();
}

/*
 * ---- From an index ----
 *
 * We are given one TID at a time.  But an index in whose order rows were
 * written (keys that grow, times) leads through the table block by block, but
 * for rows that have moved.  That is noticed, and read ahead of.
 */

/* Blocks left out (all-visible, to an index-only scan) do not end a stream. */
#define STREAM_GAP 4
/* So many steps in one direction make one: random ones hardly ever do. */
#define STREAM_STEPS 4
/* So many blocks from elsewhere in a row end it.  (Rows that an update has moved
 * come between, each with the key of the one that stayed.) */
#define STREAM_STRANGERS 16

typedef struct AuroraIndexFetch
{
	IndexFetchHeapData heap;
	BlockNumber head;			/* where the stream is; Invalid: nowhere */
	int			step;			/* 1 forward, -1 backward, 0: not known yet */
	int			steps;
	int			strangers;
	BlockNumber nblocks;		/* of the table, when the stream began */
	AuroraAhead ahead;
} AuroraIndexFetch;

static BlockNumber
next_in_stream(void *arg, BlockNumber after)
{
	AuroraIndexFetch *fetch = arg;

	if (fetch->step < 0)
		return after > 0 ? after - 1 : InvalidBlockNumber;
	return after + 1 < fetch->nblocks ? after + 1 : InvalidBlockNumber;
}

/* Does the block go on in the stream that there is? */
static bool
in_stream(AuroraIndexFetch *fetch, BlockNumber block)
{
	int64		distance = (int64) block - fetch->head;
	int			step = distance > 0 ? 1 : -1;

	if (block == fetch->head)
	{
		fetch->strangers = 0;
		return false;			/* it was just here */
	}
	if (BlockNumberIsValid(fetch->head) && distance * step <= STREAM_GAP &&
		(fetch->step == 0 || fetch->step == step))
	{
		fetch->head = block;
		fetch->step = step;
		fetch->strangers = 0;
		if (fetch->steps < STREAM_STEPS && ++fetch->steps == STREAM_STEPS)
			fetch->nblocks = aurora_nblocks(fetch->heap.xs_base.rel);
		return fetch->steps == STREAM_STEPS;
	}
	if (!BlockNumberIsValid(fetch->head) || ++fetch->strangers > STREAM_STRANGERS)
	{
		aurora_ahead_end(&fetch->ahead);
		fetch->head = block;
		fetch->step = fetch->steps = fetch->strangers = 0;
	}
	return false;
}

IndexFetchTableData *
aurora_index_fetch_begin(Relation rel)
{
	AuroraIndexFetch *fetch = palloc0(sizeof(AuroraIndexFetch));

	fetch->heap.xs_base.rel = rel;
	fetch->heap.xs_cbuf = InvalidBuffer;
	fetch->head = InvalidBlockNumber;
	aurora_ahead_init(&fetch->ahead, rel, CurrentMemoryContext, false,
					  next_in_stream, fetch);
	return &fetch->heap.xs_base;
}

/* A stream goes on: the inner side of a join begins anew with each outer row. */
void
aurora_index_fetch_reset(IndexFetchTableData *data)
{
	IndexFetchHeapData *fetch = (IndexFetchHeapData *) data;

	if (BufferIsValid(fetch->xs_cbuf))
		ReleaseBuffer(fetch->xs_cbuf);
	fetch->xs_cbuf = InvalidBuffer;
}

void
aurora_index_fetch_end(IndexFetchTableData *data)
{
	aurora_index_fetch_reset(data);
	aurora_ahead_end(&((AuroraIndexFetch *) data)->ahead);
	pfree(data);
}

/*
 * Consecutive index entries often point to the same page: keep it pinned.
 * (Found in the cache, a page costs no more than in heap; not found, it is
 * waited for here, where no table page is locked.)
 */
static void
switch_page(AuroraIndexFetch *index_fetch, BlockNumber block)
{
	IndexFetchHeapData *fetch = &index_fetch->heap;
	Relation	rel = fetch->xs_base.rel;
	Buffer		old = fetch->xs_cbuf;

	if (BufferIsValid(old))
	{
		if (BufferGetBlockNumber(old) == block)
			return;
		fetch->xs_cbuf = InvalidBuffer;
		ReleaseBuffer(old);
	}
	fetch->xs_cbuf = in_stream(index_fetch, block) ?
		aurora_ahead_read(&index_fetch->ahead, block, NULL) :
		aurora_read_buffer(rel, block, NULL);
	aurora_prune_opt(rel, fetch->xs_cbuf);
}

bool
aurora_index_fetch_tuple(IndexFetchTableData *data, ItemPointer tid,
						 Snapshot snapshot, TupleTableSlot *slot,
						 bool *call_again, bool *all_dead)
{
	IndexFetchHeapData *fetch = (IndexFetchHeapData *) data;
	HeapTuple	tuple = &((BufferHeapTupleTableSlot *) slot)->base.tupdata;
	bool		found;

	Assert(TTS_IS_BUFFERTUPLE(slot));

	/* in the middle of a chain we are on the right page already */
	if (!*call_again)
		switch_page((AuroraIndexFetch *) data, ItemPointerGetBlockNumber(tid));

	LockBuffer(fetch->xs_cbuf, BUFFER_LOCK_SHARE);
	found = aurora_hot_search_buffer(tid, fetch->xs_base.rel, fetch->xs_cbuf,
									 snapshot, tuple, all_dead, !*call_again);
	tuple->t_self = *tid;
	LockBuffer(fetch->xs_cbuf, BUFFER_LOCK_UNLOCK);

	/* An MVCC snapshot sees at most one member of a chain. */
	*call_again = found && !IsMVCCSnapshot(snapshot);
	if (found)
	{
		slot->tts_tableOid = RelationGetRelid(fetch->xs_base.rel);
		ExecStoreBufferHeapTuple(tuple, slot, fetch->xs_cbuf);
	}
	return found;
}

/*
 * ---- Rows the executor has a TID or a slot of ----
 */

bool
aurora_fetch_row_version(Relation rel, ItemPointer tid, Snapshot snapshot,
						 TupleTableSlot *slot)
{
	HeapTuple	tuple = &((BufferHeapTupleTableSlot *) slot)->base.tupdata;
	Buffer		buffer;

	Assert(TTS_IS_BUFFERTUPLE(slot));

	tuple->t_self = *tid;
	if (!aurora_fetch(rel, snapshot, tuple, &buffer, false))
		return false;

	/* the slot takes over our pin */
	ExecStorePinnedBufferHeapTuple(tuple, slot, buffer);
	slot->tts_tableOid = RelationGetRelid(rel);
	return true;
}

bool
aurora_tid_valid(TableScanDesc scan, ItemPointer tid)
{
	return ItemPointerIsValid(tid) &&
		ItemPointerGetBlockNumber(tid) < ((AuroraScanDesc) scan)->nblocks;
}

bool
aurora_tuple_satisfies_snapshot(Relation rel, TupleTableSlot *slot,
								Snapshot snapshot)
{
	BufferHeapTupleTableSlot *bslot = (BufferHeapTupleTableSlot *) slot;
	bool		visible;

	Assert(TTS_IS_BUFFERTUPLE(slot));
	Assert(BufferIsValid(bslot->buffer));

	LockBuffer(bslot->buffer, BUFFER_LOCK_SHARE);
	visible = aurora_tuple_visible(bslot->base.tuple, snapshot, bslot->buffer);
	LockBuffer(bslot->buffer, BUFFER_LOCK_UNLOCK);
	return visible;
}
