/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_insert.c: new tuples, one at a time, many at a time, and
 * speculatively (INSERT … ON CONFLICT).
 *
 * Invariants:
 *  1. The bytes that go into the page, t_ctid included, are complete before
 *     they are encoded; the tuple in memory and the one on the page agree.
 *  2. The serializable check against readers of the table is made under the
 *     content lock (or after the last page), so no reader slips in between.
 *  3. A page that gets a row that not everybody sees is not all-visible, in
 *     the same record.
 */
#include "postgres.h"

#include "access/heaptoast.h"
#include "access/parallel.h"
#include "access/transam.h"
#include "access/visibilitymap.h"
#include "access/xact.h"
#include "am/aurora_am.h"
#include "am/aurora_write.h"
#include "catalog/catalog.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "ship/aurora_ship.h"
#include "storage/predicate.h"
#include "utils/snapmgr.h"

/*
 * Fill in the header of a new tuple, and move what is too big to the TOAST
 * table.  Returns tup itself or a palloc'd copy, which is what is to be
 * stored; tup's header is set in both cases.
 */
static HeapTuple
prepare(Relation rel, HeapTuple tup, TransactionId xid, CommandId cid,
		int options)
{
	HeapTupleHeader t = tup->t_data;

	/* A worker could not tell its leader about command ids it used. */
	if (IsParallelWorker())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("cannot insert tuples in a parallel worker")));

	t->t_infomask &= ~HEAP_XACT_MASK;
	t->t_infomask2 &= ~HEAP2_XACT_MASK;
	t->t_infomask |= HEAP_XMAX_INVALID;
	HeapTupleHeaderSetXmin(t, xid);
	if (options & HEAP_INSERT_FROZEN)
		HeapTupleHeaderSetXminFrozen(t);
	HeapTupleHeaderSetCmin(t, cid);
	HeapTupleHeaderSetXmax(t, InvalidTransactionId);
	tup->t_tableOid = RelationGetRelid(rel);

	if (!aurora_rel_toasts(rel))
	{
		Assert(!HeapTupleHasExternal(tup));
		return tup;
	}
	if (HeapTupleHasExternal(tup) || tup->t_len > TOAST_TUPLE_THRESHOLD)
		return aurora_toast_insert_or_update(rel, tup, NULL, options);
	return tup;
}

/* Give the tuple its place on the page and encode it. */
static void
put_tuple(AuOps *ops, AuroraRoom *room, BlockNumber blk, HeapTuple tup,
		  bool speculative)
{
	OffsetNumber off = aurora_room_take(room, tup->t_len);

	Assert(!speculative || HeapTupleHeaderIsSpeculative(tup->t_data));
	ItemPointerSet(&tup->t_self, blk, off);
	/* a speculative tuple has its token there until it is confirmed */
	if (!speculative)
		tup->t_data->t_ctid = tup->t_self;
	au_ops_add(ops, off, tup->t_len, tup->t_data);
}

void
aurora_insert(Relation rel, HeapTuple tup, CommandId cid, int options,
			  BulkInsertState bistate)
{
	TransactionId xid = GetCurrentTransactionId();
	Buffer		vmbuffer = InvalidBuffer;
	HeapTuple	stored;
	Buffer		buffer;
	AuroraRoom	room;
	AuroraChange *change;
	AuOps	   *ops;

	Assert(HeapTupleHeaderGetNatts(tup->t_data) <=
		   RelationGetNumberOfAttributes(rel));
	if (aurora_rel_is_remote(rel))
		aurora_ship_throttle();

	stored = prepare(rel, tup, xid, cid, options);
	buffer = aurora_page_for_tuple(rel, stored->t_len, InvalidBuffer, options,
								   bistate, &vmbuffer, NULL);

	/*
	 * A new row cannot conflict with row or page locks of readers, only with
	 * those on the whole table.
	 */
	CheckForSerializableConflictIn(rel, NULL, InvalidBlockNumber);

	change = aurora_change_begin(rel, AU_XLOG_INSERT);
	ops = aurora_change_page(change, buffer);
	aurora_room_start(&room, BufferGetPage(buffer));
	aurora_room_put_prologue(&room, ops);
	put_tuple(ops, &room, BufferGetBlockNumber(buffer), stored,
			  (options & HEAP_INSERT_SPECULATIVE) != 0);
	aurora_room_put_epilogue(&room, ops);
	if (PageIsAllVisible(BufferGetPage(buffer)))
		aurora_change_clear_vm(change, buffer, vmbuffer);
	aurora_change_commit(change);

	UnlockReleaseBuffer(buffer);
	if (BufferIsValid(vmbuffer))
		ReleaseBuffer(vmbuffer);

	/* speculative ones count as well, even if they are taken back */
	pgstat_count_heap_insert(rel, 1);

	if (stored != tup)
	{
		tup->t_self = stored->t_self;
		heap_freetuple(stored);
	}
}

/* ---- many at a time --------------------------------------------------- */

/*
 * Put as many of the n tuples as fit on the locked page, in one record;
 * the first one does.  Returns how many.
 */
static int
fill_page(Relation rel, Buffer buffer, Buffer vmbuffer, HeapTuple *tuples,
		  int n, int options)
{
	Size		reserve = RelationGetTargetPageFreeSpace(rel,
														 HEAP_DEFAULT_FILLFACTOR);
	Page		page = BufferGetPage(buffer);
	BlockNumber blk = BufferGetBlockNumber(buffer);
	bool		frozen = (options & HEAP_INSERT_FROZEN) != 0;
	bool		set_map;
	int			done = 0;
	AuroraRoom	room;
	AuroraChange *change;
	AuOps	   *ops;

	/* frozen rows alone on a page: everybody sees them all */
	set_map = frozen && PageGetMaxOffsetNumber(page) == 0 &&
		visibilitymap_pin_ok(blk, vmbuffer);

	change = aurora_change_begin(rel, AU_XLOG_MULTI_INSERT);
	ops = aurora_change_page(change, buffer);
	aurora_room_start(&room, page);
	aurora_room_put_prologue(&room, ops);
	do
	{
		put_tuple(ops, &room, blk, tuples[done], false);
		done++;
	} while (done < n &&
			 aurora_room_free(&room) >= MAXALIGN(tuples[done]->t_len) + reserve);
	aurora_room_put_epilogue(&room, ops);
	if (PageIsAllVisible(page) && !frozen)
		aurora_change_clear_vm(change, buffer, vmbuffer);
	aurora_change_commit(change);

	if (set_map)
	{
		change = aurora_change_begin(rel, AU_XLOG_VISIBLE);
		ops = aurora_change_page(change, buffer);
		if (!PageIsAllVisible(page))
			au_ops_flags(ops, PD_ALL_VISIBLE, 0);
		aurora_change_set_vm(change, buffer, vmbuffer,
							 VISIBILITYMAP_ALL_VISIBLE | VISIBILITYMAP_ALL_FROZEN);
		aurora_change_commit(change);
	}
	return done;
}

void
aurora_multi_insert(Relation rel, TupleTableSlot **slots, int ntuples,
					CommandId cid, int options, BulkInsertState bistate)
{
	TransactionId xid = GetCurrentTransactionId();
	Buffer		vmbuffer = InvalidBuffer;
	HeapTuple  *tuples;
	int			done = 0;

	Assert(!(options & HEAP_INSERT_NO_LOGICAL));
	if (aurora_rel_is_remote(rel))
		aurora_ship_throttle();

	tuples = palloc(ntuples * sizeof(HeapTuple));
	for (int i = 0; i < ntuples; i++)
	{
		HeapTuple	tuple = ExecFetchSlotHeapTuple(slots[i], true, NULL);

		slots[i]->tts_tableOid = RelationGetRelid(rel);
		tuple->t_tableOid = slots[i]->tts_tableOid;
		tuples[i] = prepare(rel, tuple, xid, cid, options);
	}

	/* Not needed here, but a conflict found now saves the work. */
	CheckForSerializableConflictIn(rel, NULL, InvalidBlockNumber);

	while (done < ntuples)
	{
		Buffer		buffer;

		CHECK_FOR_INTERRUPTS();
		buffer = aurora_page_for_tuple(rel, tuples[done]->t_len, InvalidBuffer,
									   options, bistate, &vmbuffer, NULL);
		done += fill_page(rel, buffer, vmbuffer, tuples + done, ntuples - done,
						  options);
		UnlockReleaseBuffer(buffer);
	}
	/* kept until now: the pages are likely to share a map page */
	if (BufferIsValid(vmbuffer))
		ReleaseBuffer(vmbuffer);

	/*
	 * This check is the one that counts: a reader that locked the table after
	 * the first one and scanned it before the rows were there is found now.
	 */
	CheckForSerializableConflictIn(rel, NULL, InvalidBlockNumber);

	for (int i = 0; i < ntuples; i++)
		slots[i]->tts_tid = tuples[i]->t_self;
	pgstat_count_heap_insert(rel, ntuples);
}

/* ---- speculative insertion -------------------------------------------- */

/* The token in t_ctid gives way to the tuple's own TID. */
void
aurora_finish_speculative(Relation rel, ItemPointer tid)
{
	AuroraTarget t;
	AuroraChange *change;

	aurora_target_must_open(&t, rel, tid);
	if (!HeapTupleHeaderIsSpeculative(t.tuple.t_data))
		elog(ERROR, "tuple (%u,%u) of \"%s\" is not a speculative insertion",
			 t.block, ItemPointerGetOffsetNumber(tid),
			 RelationGetRelationName(rel));

	change = aurora_change_begin(rel, AU_XLOG_CONFIRM);
	au_ops_tuphdr(aurora_change_page(change, t.buffer),
				  ItemPointerGetOffsetNumber(tid), AU_TH_CTID, 0, 0, 0, 0,
				  t.block, ItemPointerGetOffsetNumber(tid));
	aurora_change_commit(change);

	aurora_target_unlock(&t);
	aurora_target_close(&t, LockTupleExclusive);
}

/* An xid for pd_prune_xid of a tuple that is dead to everybody at once: the
 * oldest one that cannot be too old for the table. */
static TransactionId
oldest_prune_xid(Relation rel)
{
	TransactionId frozen = rel->rd_rel->relfrozenxid;

	Assert(TransactionIdIsValid(TransactionXmin));
	return TransactionIdPrecedes(TransactionXmin, frozen) ? frozen :
		TransactionXmin;
}

/*
 * Take back what we inserted speculatively, and its TOAST chunks.  xmin
 * becomes invalid, so the tuple is dead to everybody at once, ourselves
 * included: others who met it in the index need not wait for our transaction
 * but only for the token, which prevents deadlocks that users could do
 * nothing about.
 */
void
aurora_abort_speculative(Relation rel, ItemPointer tid)
{
	TransactionId nobody = InvalidTransactionId;
	AuroraTarget t;
	HeapTupleHeader tup;
	Page		page;
	AuroraChange *change;
	AuOps	   *ops;

	aurora_target_must_open(&t, rel, tid);
	tup = t.tuple.t_data;
	page = BufferGetPage(t.buffer);
	/* we have just inserted into it and are still running */
	Assert(!PageIsAllVisible(page));
	Assert(!HeapTupleHeaderIsHeapOnly(tup));
	if (HeapTupleHeaderGetRawXmin(tup) != GetCurrentTransactionId())
		elog(ERROR, "attempted to kill a tuple inserted by another transaction");
	if (!IsToastRelation(rel) && !HeapTupleHeaderIsSpeculative(tup))
		elog(ERROR, "attempted to kill a non-speculative tuple");

	change = aurora_change_begin(rel, AU_XLOG_DELETE);
	ops = aurora_change_page(change, t.buffer);
	aurora_put_prunable(ops, page, oldest_prune_xid(rel));
	au_ops_patch(ops, (char *) &tup->t_choice.t_heap.t_xmin - (char *) page,
				 sizeof(TransactionId), &nobody);
	au_ops_tuphdr(ops, ItemPointerGetOffsetNumber(tid),
				  AU_TH_INFOMASK | AU_TH_CTID, 0, 0,
				  tup->t_infomask2 & ~HEAP_KEYS_UPDATED,
				  tup->t_infomask & ~HEAP_XMAX_BITS,
				  t.block, ItemPointerGetOffsetNumber(tid));
	aurora_change_commit(change);
	aurora_target_unlock(&t);

	if (HeapTupleHasExternal(&t.tuple))
		aurora_toast_delete(rel, &t.tuple, true);
	aurora_target_close(&t, LockTupleExclusive);

	/* as the insertion was counted */
	pgstat_count_heap_delete(rel);
}
