/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_delete.c: delete a tuple.
 *
 * Invariants:
 *  1. The decision that the tuple may be deleted and the change are under one
 *     unbroken content lock; whenever the lock was given up in between (to
 *     sleep, to pin the map page), the decision is made anew.
 *  2. Once first in the queue for the tuple we stay there until the deletion
 *     is on the page or refused.
 */
#include "postgres.h"

#include "access/xact.h"
#include "am/aurora_am.h"
#include "am/aurora_write.h"
#include "pgstat.h"
#include "ship/aurora_ship.h"
#include "storage/predicate.h"

/*
 * May we delete it?  Sleeps for those who are in the way, if `wait`.  Content
 * lock held before and after; on TM_Ok the map page is pinned if needed.
 */
static TM_Result
decide(AuroraTarget *t, CommandId cid, Snapshot crosscheck, bool wait)
{
	TM_Result	result;
	bool		lockers_gone;

	for (;;)
	{
		/* before the decision, so that it need not be made twice */
		while (!aurora_target_map_ready(t))
			;
		result = aurora_tuple_satisfies_update(&t->tuple, cid, t->buffer);
		if (result == TM_Invisible)
		{
			aurora_target_unlock(t);
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("attempted to delete invisible tuple")));
		}
		if (result != TM_BeingModified || !wait)
			break;
		if (!aurora_target_wait(t, LockTupleExclusive, XLTW_Delete,
								&lockers_gone))
			continue;
		/* the page may have become all-visible while we slept */
		if (!aurora_map_pin_ok(t->buffer, t->vmbuffer))
			continue;
		result = aurora_xmax_verdict(&t->tuple);
		break;
	}

	/* repeatable read: referential integrity looks with a second snapshot */
	if (result == TM_Ok && crosscheck != InvalidSnapshot &&
		!aurora_tuple_visible(&t->tuple, crosscheck, t->buffer))
		result = TM_Updated;
	return result;
}

static void
delete_target(AuroraTarget *t, CommandId cid, bool changingPart)
{
	TransactionId xid = GetCurrentTransactionId();
	Page		page = BufferGetPage(t->buffer);
	AuroraXmax	old;
	AuroraXmaxMark mark;
	AuroraCmax	cmax = {cid, false};
	ItemPointerData ctid = t->tuple.t_self;
	AuroraChange *change;
	AuOps	   *ops;

	/* under the lock until the change is made: no reader slips in between */
	CheckForSerializableConflictIn(t->rel, &t->tuple.t_self, t->block);

	HeapTupleHeaderAdjustCmax(t->tuple.t_data, &cmax.cid, &cmax.iscombo);

	/*
	 * Others may make our xid a member of a multixact as soon as it is on the
	 * page; none older than the oldest one as of now.
	 */
	MultiXactIdSetOldestMember();
	aurora_xmax_read(t->tuple.t_data, &old);
	aurora_xmax_add(&old, xid, LockTupleExclusive, true, &mark);
	if (changingPart)
		ItemPointerSet(&ctid, MovedPartitionsBlockNumber,
					   MovedPartitionsOffsetNumber);

	change = aurora_change_begin(t->rel, AU_XLOG_DELETE);
	ops = aurora_change_page(change, t->buffer);
	aurora_put_prunable(ops, page, xid);
	aurora_target_put_mark(t, ops, &mark, &cmax, false, &ctid);
	if (PageIsAllVisible(page))
		aurora_change_clear_vm(change, t->buffer, t->vmbuffer);
	aurora_change_commit(change);
}

TM_Result
aurora_delete(Relation rel, ItemPointer tid, CommandId cid,
			  Snapshot crosscheck, bool wait, TM_FailureData *tmfd,
			  bool changingPart)
{
	AuroraTarget t;
	TM_Result	result;

	/* Workers could not tell each other about combo command ids. */
	if (IsInParallelMode())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("cannot delete tuples during a parallel operation")));
	if (aurora_rel_is_remote(rel))
		aurora_ship_throttle();
	(void) GetCurrentTransactionId();

	aurora_target_must_open(&t, rel, tid);
	result = decide(&t, cid, crosscheck, wait);
	if (result != TM_Ok)
	{
		aurora_xmax_failure(&t.tuple, result, tmfd);
		aurora_target_unlock(&t);
		aurora_target_close(&t, LockTupleExclusive);
		return result;
	}

	delete_target(&t, cid, changingPart);
	aurora_target_unlock(&t);

	/* the pin keeps the old tuple readable without the lock */
	Assert(aurora_rel_toasts(rel) || !HeapTupleHasExternal(&t.tuple));
	if (HeapTupleHasExternal(&t.tuple))
		aurora_toast_delete(rel, &t.tuple, false);

	aurora_target_close(&t, LockTupleExclusive);
	pgstat_count_heap_delete(rel);
	return TM_Ok;
}

/* For rows that nobody else should be changing (TOAST chunks). */
void
aurora_simple_delete(Relation rel, ItemPointer tid)
{
	TM_FailureData tmfd;
	TM_Result	result = aurora_delete(rel, tid, GetCurrentCommandId(true),
									   InvalidSnapshot, true, &tmfd, false);

	switch (result)
	{
		case TM_Ok:
			break;
		case TM_SelfModified:
			elog(ERROR, "tuple already updated by self");
			break;
		case TM_Updated:
			elog(ERROR, "tuple concurrently updated");
			break;
		case TM_Deleted:
			elog(ERROR, "tuple concurrently deleted");
			break;
		default:
			elog(ERROR, "unrecognized aurora_delete status: %u", result);
			break;
	}
}
