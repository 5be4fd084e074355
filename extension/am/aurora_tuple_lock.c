/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_tuple_lock.c: lock a row, and if asked to, its newest version.
 *
 * aurora_lock_tuple locks one version of a row.  READ COMMITTED wants the
 * newest: when the version was updated meanwhile, its update chain (t_ctid) is
 * followed to the end and locking is tried there.
 *
 *	             updated                    last version, nobody at it
 *	try to lock ────────▶ find_newest ─────────────────────────┐
 *	   ▲                    │      ▲                           │
 *	   │                    │      └── somebody at it: waited  │
 *	   │                    └────────▶ row is gone, or ...     │
 *	   └───────────────────────────────────────────────────────┘
 *
 * A version belongs to the chain only if its xmin is the xmax of the one
 * before it: a line pointer may have been recycled for another row, which
 * tells that the row we look for was deleted.
 */
#include "postgres.h"

#include "access/xact.h"
#include "am/aurora_am.h"
#include "am/aurora_tuple_lock.h"
#include "storage/lmgr.h"
#include "utils/snapmgr.h"

/* One step along the chain. */
typedef enum ChainStep
{
	CHAIN_NEXT,					/* *tid and *xmin are those of the next one */
	CHAIN_AGAIN,				/* we waited; look at the same one again */
	CHAIN_LOCK,					/* this is it: try to lock it */
	CHAIN_DONE					/* the result is known */
} ChainStep;

/* Somebody changes the version at this moment: wait for his transaction, or
 * do what the policy says instead. */
static ChainStep
wait_for_changer(Relation rel, ItemPointer tid, TransactionId xid,
				 LockWaitPolicy wait_policy, TM_Result *result)
{
	switch (wait_policy)
	{
		case LockWaitBlock:
			XactLockTableWait(xid, rel, tid, XLTW_FetchUpdated);
			break;
		case LockWaitSkip:
			if (!ConditionalXactLockTableWait(xid))
			{
				*result = TM_WouldBlock;
				return CHAIN_DONE;
			}
			break;
		case LockWaitError:
			if (!ConditionalXactLockTableWait(xid))
				ereport(ERROR,
						(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
						 errmsg("could not obtain lock on row in relation \"%s\"",
								RelationGetRelationName(rel))));
			break;
	}
	return CHAIN_AGAIN;
}

/* The version is visible to a dirty snapshot, so nobody has replaced it for
 * good yet.  buffer is pinned. */
static ChainStep
newest_so_far(Relation rel, HeapTuple tuple, SnapshotData *dirty,
			  TransactionId xmin, CommandId cid, LockWaitPolicy wait_policy,
			  TM_FailureData *tmfd, Buffer buffer, TM_Result *result)
{
	if (TransactionIdIsValid(dirty->xmin))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg_internal("row version (%u,%u) of table \"%s\" follows a committed one but was made by transaction %u, which is in progress",
								 ItemPointerGetBlockNumber(&tuple->t_self),
								 ItemPointerGetOffsetNumber(&tuple->t_self),
								 RelationGetRelationName(rel), dirty->xmin)));
	if (TransactionIdIsValid(dirty->xmax))
	{
		ReleaseBuffer(buffer);
		return wait_for_changer(rel, &tuple->t_self, dirty->xmax,
								wait_policy, result);
	}

	/* made by a later command of ours: this command must not see it */
	if (TransactionIdIsCurrentTransactionId(xmin) &&
		HeapTupleHeaderGetCmin(tuple->t_data) >= cid)
	{
		tmfd->xmax = xmin;
		tmfd->cmax = HeapTupleHeaderGetCmin(tuple->t_data);
		ReleaseBuffer(buffer);
		*result = TM_SelfModified;
		return CHAIN_DONE;
	}
	ReleaseBuffer(buffer);
	return CHAIN_LOCK;
}

/*
 * Look at the version at *tid, whose xmin should be *xmin.  Xmin of an
 * existing tuple, and xmax and t_ctid of one that is finally dead, do not
 * change, so our pin is enough to read them.
 */
static ChainStep
follow_chain(Relation rel, HeapTuple tuple, ItemPointer tid,
			 TransactionId *xmin, CommandId cid, LockWaitPolicy wait_policy,
			 TM_FailureData *tmfd, TM_Result *result)
{
	SnapshotData dirty;
	Buffer		buffer;
	bool		visible;
	ChainStep	step = CHAIN_NEXT;

	if (ItemPointerIndicatesMovedPartitions(tid))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("tuple to be locked was already moved to another partition due to concurrent update")));

	InitDirtySnapshot(dirty);
	tuple->t_self = *tid;
	visible = aurora_fetch(rel, &dirty, tuple, &buffer, true);
	*result = TM_Deleted;
	if (!visible && tuple->t_data == NULL)
		return CHAIN_DONE;		/* nothing there any more */

	if (!TransactionIdEquals(HeapTupleHeaderGetXmin(tuple->t_data), *xmin))
		step = CHAIN_DONE;		/* another row by now */
	else if (visible)
		return newest_so_far(rel, tuple, &dirty, *xmin, cid, wait_policy,
							 tmfd, buffer, result);
	else if (ItemPointerEquals(&tuple->t_self, &tuple->t_data->t_ctid))
		step = CHAIN_DONE;		/* deleted, not updated */
	else
	{
		*tid = tuple->t_data->t_ctid;
		*xmin = HeapTupleHeaderGetUpdateXid(tuple->t_data);
	}
	ReleaseBuffer(buffer);
	return step;
}

TM_Result
aurora_tuple_lock(Relation rel, ItemPointer tid, Snapshot snapshot,
				  TupleTableSlot *slot, CommandId cid, LockTupleMode mode,
				  LockWaitPolicy wait_policy, uint8 flags,
				  TM_FailureData *tmfd)
{
	BufferHeapTupleTableSlot *bslot = (BufferHeapTupleTableSlot *) slot;
	HeapTuple	tuple = &bslot->base.tupdata;
	bool		follow = (flags & TUPLE_LOCK_FLAG_LOCK_UPDATE_IN_PROGRESS) != 0;
	TM_Result	result;
	Buffer		buffer;

	Assert(TTS_IS_BUFFERTUPLE(slot));
	tmfd->traversed = false;

	for (;;)
	{
		TransactionId xmin;
		ChainStep	step;

		tuple->t_self = *tid;
		result = aurora_lock_tuple(rel, tuple, cid, mode, wait_policy,
								   follow, &buffer, tmfd);
		if (result != TM_Updated ||
			(flags & TUPLE_LOCK_FLAG_FIND_LAST_VERSION) == 0)
			break;

		Assert(!HeapTupleHeaderIsSpeculative(tuple->t_data));
		ReleaseBuffer(buffer);
		if (ItemPointerEquals(&tmfd->ctid, &tuple->t_self))
			return TM_Deleted;

		*tid = tmfd->ctid;
		xmin = tmfd->xmax;
		tmfd->traversed = true;
		do
		{
			step = follow_chain(rel, tuple, tid, &xmin, cid, wait_policy,
								tmfd, &result);
		} while (step == CHAIN_NEXT || step == CHAIN_AGAIN);
		if (step == CHAIN_DONE)
			return result;
	}

	slot->tts_tableOid = RelationGetRelid(rel);
	tuple->t_tableOid = slot->tts_tableOid;
	ExecStorePinnedBufferHeapTuple(tuple, slot, buffer);
	return result;
}
