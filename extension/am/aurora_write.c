/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_write.c: what delete, update, row lock and insert have in common.
 * extension/am/README.write explains the algorithm.
 *
 * Invariants:
 *  1. A target's page stays pinned from open to close, so its tuple stays
 *     where it is: pruning needs a cleanup lock, and a cached page is neither
 *     evicted nor replaced under a pin.
 *  2. No wait and no read of another page happens under a content lock.
 *  3. A changed page that is all-visible has its map page pinned before its
 *     content lock is taken for the last time.
 */
#include "postgres.h"

#include "access/visibilitymap.h"
#include "access/xact.h"
#include "am/aurora_am.h"
#include "am/aurora_write.h"

/* ---- the target ------------------------------------------------------- */

bool
aurora_map_pin_ok(Buffer buffer, Buffer vmbuffer)
{
	return !PageIsAllVisible(BufferGetPage(buffer)) ||
		visibilitymap_pin_ok(BufferGetBlockNumber(buffer), vmbuffer);
}

bool
aurora_target_open(AuroraTarget *t, Relation rel, ItemPointer tid)
{
	OffsetNumber offnum = ItemPointerGetOffsetNumber(tid);
	Page		page;
	ItemId		lp;

	Assert(ItemPointerIsValid(tid));
	t->rel = rel;
	t->block = ItemPointerGetBlockNumber(tid);
	t->vmbuffer = InvalidBuffer;
	t->have_turn = false;
	t->tuple.t_self = *tid;
	t->tuple.t_tableOid = RelationGetRelid(rel);
	t->tuple.t_data = NULL;
	t->tuple.t_len = 0;

	t->buffer = aurora_read_buffer(rel, t->block, NULL);
	page = BufferGetPage(t->buffer);

	/* unlocked look: right nearly always, and checked again under the lock */
	if (PageIsAllVisible(page))
		visibilitymap_pin(rel, t->block, &t->vmbuffer);
	aurora_target_lock(t);

	if (offnum < FirstOffsetNumber || offnum > PageGetMaxOffsetNumber(page))
		return false;
	lp = PageGetItemId(page, offnum);
	if (!ItemIdIsNormal(lp))
		return false;
	t->tuple.t_data = (HeapTupleHeader) PageGetItem(page, lp);
	t->tuple.t_len = ItemIdGetLength(lp);
	return true;
}

void
aurora_target_must_open(AuroraTarget *t, Relation rel, ItemPointer tid)
{
	if (!aurora_target_open(t, rel, tid))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("tuple (%u,%u) of table \"%s\" has disappeared",
						ItemPointerGetBlockNumber(tid),
						ItemPointerGetOffsetNumber(tid),
						RelationGetRelationName(rel)),
				 errhint("An index may point to rows that are gone: REINDEX the table, and compare it with storage by aurora.verify_pages().")));
}

void
aurora_target_close(AuroraTarget *t, LockTupleMode mode)
{
	ReleaseBuffer(t->buffer);
	if (BufferIsValid(t->vmbuffer))
		ReleaseBuffer(t->vmbuffer);
	aurora_turn_release(t->rel, &t->tuple.t_self, mode, &t->have_turn);
}

bool
aurora_target_map_ready(AuroraTarget *t)
{
	if (aurora_map_pin_ok(t->buffer, t->vmbuffer))
		return true;
	aurora_target_unlock(t);
	visibilitymap_pin(t->rel, t->block, &t->vmbuffer);
	aurora_target_lock(t);
	return false;
}

/*
 * Who has to wait for a multixact: not its own members for their own sake,
 * and only for members whose mode conflicts.  Our own membership also keeps
 * us from queueing: another one in the queue may be waiting for us.
 */
static bool
wait_for_multi(AuroraTarget *t, const AuroraXmax *seen, LockTupleMode mode,
			   XLTW_Oper oper, bool *lockers_gone)
{
	bool		own_member = false;
	int			remaining;

	if (!aurora_multi_conflicts(seen->xmax, seen->infomask, mode, &own_member))
		return true;

	aurora_target_unlock(t);
	if (!own_member)
		aurora_turn_take(t->rel, &t->tuple.t_self, mode, LockWaitBlock,
						 &t->have_turn);
	aurora_multi_wait(seen->xmax, aurora_mode_status(mode, true),
					  seen->infomask, false, t->rel, &t->tuple.t_self, oper,
					  &remaining);
	aurora_target_lock(t);
	*lockers_gone = remaining == 0;
	return !aurora_xmax_changed(t->tuple.t_data, seen);
}

bool
aurora_target_wait(AuroraTarget *t, LockTupleMode mode, XLTW_Oper oper,
				   bool *lockers_gone)
{
	AuroraXmax	seen;

	*lockers_gone = false;
	aurora_xmax_read(t->tuple.t_data, &seen);

	if (seen.infomask & HEAP_XMAX_IS_MULTI)
		return wait_for_multi(t, &seen, mode, oper, lockers_gone);

	/* our own lock, and a key-share lock if the key stays: no reason to wait */
	if (TransactionIdIsCurrentTransactionId(seen.xmax))
		return true;
	if (mode == LockTupleNoKeyExclusive &&
		HEAP_XMAX_IS_KEYSHR_LOCKED(seen.infomask))
		return true;

	aurora_target_unlock(t);
	aurora_turn_take(t->rel, &t->tuple.t_self, mode, LockWaitBlock,
					 &t->have_turn);
	XactLockTableWait(seen.xmax, t->rel, &t->tuple.t_self, oper);
	aurora_target_lock(t);

	/* if it had only locked the row, another may have changed it since */
	if (aurora_xmax_changed(t->tuple.t_data, &seen))
		return false;
	aurora_xmax_hint(t->tuple.t_data, t->buffer, seen.xmax);
	*lockers_gone = true;
	return true;
}

void
aurora_target_put_mark(AuroraTarget *t, AuOps *ops, const AuroraXmaxMark *mark,
					   const AuroraCmax *cmax, bool hot_updated,
					   const ItemPointerData *ctid)
{
	HeapTupleHeader tup = t->tuple.t_data;

	/* What the page says already, here and on storage alike, is not logged. */
	uint16		infomask = tup->t_infomask & ~HEAP_XMAX_BITS;
	uint16		infomask2 = tup->t_infomask2 & ~HEAP_KEYS_UPDATED;
	uint8		fields = AU_TH_XMAX | AU_TH_INFOMASK;

	infomask |= mark->infomask;
	infomask2 |= mark->infomask2;
	if (hot_updated)
		infomask2 |= HEAP_HOT_UPDATED;
	else
		infomask2 &= ~HEAP_HOT_UPDATED;
	if (cmax != NULL)
	{
		if (HeapTupleHeaderGetRawCommandId(tup) != cmax->cid)
			fields |= AU_TH_CID;
		if (cmax->iscombo)
			infomask |= HEAP_COMBOCID;
		else
			infomask &= ~HEAP_COMBOCID;
	}
	if (!ItemPointerEquals(unconstify(ItemPointerData *, ctid), &tup->t_ctid))
		fields |= AU_TH_CTID;
	au_ops_tuphdr(ops, ItemPointerGetOffsetNumber(&t->tuple.t_self), fields,
				  mark->xmax, cmax != NULL ? cmax->cid : 0,
				  infomask2, infomask,
				  ItemPointerGetBlockNumberNoCheck(ctid),
				  ItemPointerGetOffsetNumberNoCheck(ctid));
}

void
aurora_put_prunable(AuOps *ops, Page page, TransactionId xid)
{
	TransactionId old = ((PageHeader) page)->pd_prune_xid;

	if (!TransactionIdIsValid(old) || TransactionIdPrecedes(xid, old))
		au_ops_prunable(ops, xid);
}

void
aurora_clear_frozen(AuroraChange *change, Relation rel, Buffer buffer,
					Buffer vmbuffer)
{
	BlockNumber blk = BufferGetBlockNumber(buffer);

	/* bits of this page are set under its content lock only: no race */
	if (PageIsAllVisible(BufferGetPage(buffer)) &&
		(visibilitymap_get_status(rel, blk, &vmbuffer) &
		 VISIBILITYMAP_ALL_FROZEN))
		aurora_change_clear_vm_bits(change, buffer, vmbuffer,
									VISIBILITYMAP_ALL_FROZEN);
}

/* ---- room on a page --------------------------------------------------- */

/* Move on to the next unused line pointer at or after `from`; 0: none. */
static void
find_unused(AuroraRoom *room, OffsetNumber from)
{
	for (OffsetNumber off = from; off <= room->max; off++)
	{
		ItemId		lp = PageGetItemId(room->page, off);

		if (!ItemIdIsUsed(lp) && !ItemIdHasStorage(lp))
		{
			room->next_unused = off;
			return;
		}
	}
	room->next_unused = InvalidOffsetNumber;
	room->stale_hint = true;
}

void
aurora_room_start(AuroraRoom *room, Page page)
{
	room->page = page;
	room->is_new = PageIsNew(page);
	room->next_unused = InvalidOffsetNumber;
	room->stale_hint = false;
	if (room->is_new)
	{
		room->max = 0;
		room->hole = BLCKSZ - SizeOfPageHeaderData;
		return;
	}
	room->max = PageGetMaxOffsetNumber(page);
	room->hole = PageGetExactFreeSpace(page);
	if (PageHasFreeLinePointers(page))
		find_unused(room, FirstOffsetNumber);
}

Size
aurora_room_free(AuroraRoom *room)
{
	if (room->hole < sizeof(ItemIdData))
		return 0;
	if (room->max >= MaxHeapTuplesPerPage &&
		!OffsetNumberIsValid(room->next_unused))
		return 0;
	return room->hole - sizeof(ItemIdData);
}

OffsetNumber
aurora_room_take(AuroraRoom *room, Size len)
{
	OffsetNumber off = room->next_unused;

	Assert(MAXALIGN(len) <= aurora_room_free(room));
	room->hole -= MAXALIGN(len);
	if (OffsetNumberIsValid(off))
		find_unused(room, OffsetNumberNext(off));
	else
	{
		off = ++room->max;
		room->hole -= sizeof(ItemIdData);
	}
	return off;
}

/*
 * A page without line pointers starts afresh: the record then does not
 * depend on what was there before, and storage need not look for it.  Not if
 * the page is all-visible, which INIT would make it forget.
 */
void
aurora_room_put_prologue(const AuroraRoom *room, AuOps *ops)
{
	if (room->is_new ||
		(PageGetMaxOffsetNumber(room->page) == 0 &&
		 !PageIsAllVisible(room->page)))
		au_ops_init(ops, 0);
}

void
aurora_room_put_epilogue(const AuroraRoom *room, AuOps *ops)
{
	if (room->stale_hint && PageHasFreeLinePointers(room->page) &&
		PageGetMaxOffsetNumber(room->page) > 0)
		au_ops_flags(ops, 0, PD_HAS_FREE_LINES);
}

Size
aurora_page_free(Page page)
{
	AuroraRoom	room;

	aurora_room_start(&room, page);
	return aurora_room_free(&room);
}
