/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_xmax.c: who holds a tuple, and how that is written into its header.
 *
 * Invariants:
 *  1. A holder that still counts (a running locker, a running or committed
 *     updater) is never lost from xmax when another is added.
 *  2. HEAP_XMAX_COMMITTED never stands beside HEAP_XMAX_IS_MULTI.
 *  3. "In progress" is asked before "committed" and "aborted": in the other
 *     order a transaction that ends in between would look crashed.
 *  4. A multixact is immutable: all who change the holders write another one,
 *     so an unchanged raw xmax means unchanged holders.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "am/aurora_am.h"
#include "am/aurora_xmax.h"
#include "storage/procarray.h"

/*
 * The four row lock modes: the lmgr lock that orders those who wait for one
 * of them (its conflict table is also the one of the modes themselves), and
 * the member status of one who locks or changes the row in that mode.
 */
typedef struct ModeInfo
{
	LOCKMODE	lmgr_mode;
	int			lock_status;
	int			update_status;	/* -1: nobody may change a row in this mode */
} ModeInfo;

static const ModeInfo mode_info[MaxLockTupleMode + 1] = {
	[LockTupleKeyShare] = {AccessShareLock, MultiXactStatusForKeyShare, -1},
	[LockTupleShare] = {RowShareLock, MultiXactStatusForShare, -1},
	[LockTupleNoKeyExclusive] = {ExclusiveLock, MultiXactStatusForNoKeyUpdate,
	MultiXactStatusNoKeyUpdate},
	[LockTupleExclusive] = {AccessExclusiveLock, MultiXactStatusForUpdate,
	MultiXactStatusUpdate},
};

static const LockTupleMode status_mode[MaxMultiXactStatus + 1] = {
	[MultiXactStatusForKeyShare] = LockTupleKeyShare,
	[MultiXactStatusForShare] = LockTupleShare,
	[MultiXactStatusForNoKeyUpdate] = LockTupleNoKeyExclusive,
	[MultiXactStatusForUpdate] = LockTupleExclusive,
	[MultiXactStatusNoKeyUpdate] = LockTupleNoKeyExclusive,
	[MultiXactStatusUpdate] = LockTupleExclusive,
};

LockTupleMode
aurora_status_mode(MultiXactStatus status)
{
	Assert(status <= MaxMultiXactStatus);
	return status_mode[status];
}

MultiXactStatus
aurora_mode_status(LockTupleMode mode, bool is_update)
{
	int			status = is_update ? mode_info[mode].update_status :
		mode_info[mode].lock_status;

	if (status < 0)
		elog(ERROR, "a row cannot be changed under row lock mode %d", mode);
	return (MultiXactStatus) status;
}

bool
aurora_status_conflict(MultiXactStatus held, MultiXactStatus wanted)
{
	return DoLockModesConflict(mode_info[status_mode[held]].lmgr_mode,
							   mode_info[status_mode[wanted]].lmgr_mode);
}

/* ---- the state of a header -------------------------------------------- */

void
aurora_xmax_read(HeapTupleHeader tuple, AuroraXmax *state)
{
	state->xmax = HeapTupleHeaderGetRawXmax(tuple);
	state->infomask = tuple->t_infomask;
	state->infomask2 = tuple->t_infomask2;
	state->ctid = tuple->t_ctid;
}

bool
aurora_xmax_changed(HeapTupleHeader tuple, const AuroraXmax *state)
{
	const uint16 holder_bits = HEAP_XMAX_IS_MULTI | HEAP_XMAX_LOCK_ONLY |
		HEAP_LOCK_MASK;

	return HeapTupleHeaderGetRawXmax(tuple) != state->xmax ||
		((tuple->t_infomask ^ state->infomask) & holder_bits) != 0;
}

TM_Result
aurora_xmax_verdict(HeapTuple tuple)
{
	HeapTupleHeader t = tuple->t_data;

	if ((t->t_infomask & HEAP_XMAX_INVALID) ||
		HEAP_XMAX_IS_LOCKED_ONLY(t->t_infomask) ||
		HeapTupleHeaderIsOnlyLocked(t))
		return TM_Ok;
	return ItemPointerEquals(&tuple->t_self, &t->t_ctid) ?
		TM_Deleted : TM_Updated;
}

void
aurora_xmax_failure(HeapTuple tuple, TM_Result result, TM_FailureData *tmfd)
{
	HeapTupleHeader t = tuple->t_data;

	Assert(result == TM_SelfModified || result == TM_Updated ||
		   result == TM_Deleted || result == TM_BeingModified ||
		   result == TM_WouldBlock);

	/*
	 * There need not be a holder: who gave up waiting may find him gone by
	 * now, and a crosscheck snapshot refuses rows that are merely too new.
	 */
	tmfd->ctid = t->t_ctid;
	tmfd->xmax = HeapTupleHeaderGetUpdateXid(t);
	/* another transaction's combo command id cannot be resolved */
	tmfd->cmax = result == TM_SelfModified ? HeapTupleHeaderGetCmax(t) :
		InvalidCommandId;
}

bool
aurora_xmax_status(uint16 infomask, uint16 infomask2, MultiXactStatus *status)
{
	bool		keys = (infomask2 & HEAP_KEYS_UPDATED) != 0;

	if (!HEAP_XMAX_IS_LOCKED_ONLY(infomask))
		*status = keys ? MultiXactStatusUpdate : MultiXactStatusNoKeyUpdate;
	else if (HEAP_XMAX_IS_KEYSHR_LOCKED(infomask))
		*status = MultiXactStatusForKeyShare;
	else if (HEAP_XMAX_IS_SHR_LOCKED(infomask))
		*status = MultiXactStatusForShare;
	else if (HEAP_XMAX_IS_EXCL_LOCKED(infomask))
		*status = keys ? MultiXactStatusForUpdate :
			MultiXactStatusForNoKeyUpdate;
	else
		return false;
	return true;
}

/* ---- marks ------------------------------------------------------------ */

/* A single xid as the only holder. */
static void
mark_single(TransactionId xid, LockTupleMode mode, bool is_update,
			AuroraXmaxMark *mark)
{
	mark->xmax = xid;
	mark->infomask = 0;
	mark->infomask2 = mode == LockTupleExclusive ? HEAP_KEYS_UPDATED : 0;
	if (is_update)
		return;

	mark->infomask = HEAP_XMAX_LOCK_ONLY;
	switch (mode)
	{
		case LockTupleKeyShare:
			mark->infomask |= HEAP_XMAX_KEYSHR_LOCK;
			break;
		case LockTupleShare:
			mark->infomask |= HEAP_XMAX_SHR_LOCK;
			break;
		case LockTupleNoKeyExclusive:
		case LockTupleExclusive:
			mark->infomask |= HEAP_XMAX_EXCL_LOCK;
			break;
	}
}

/* A multixact of this cluster: its members say which bits stand beside it. */
static void
mark_multi(MultiXactId multi, AuroraXmaxMark *mark)
{
	MultiXactMember *members;
	int			n = GetMultiXactIdMembers(multi, &members, false, false);
	LockTupleMode strongest = LockTupleKeyShare;
	bool		updated = false;

	mark->xmax = multi;
	mark->infomask = HEAP_XMAX_IS_MULTI;
	mark->infomask2 = 0;
	for (int i = 0; i < n; i++)
	{
		MultiXactStatus status = members[i].status;

		strongest = Max(strongest, status_mode[status]);
		if (ISUPDATE_from_mxstatus(status))
			updated = true;
		if (status_mode[status] == LockTupleExclusive)
			mark->infomask2 |= HEAP_KEYS_UPDATED;
	}
	if (n > 0)
		pfree(members);

	if (strongest >= LockTupleNoKeyExclusive)
		mark->infomask |= HEAP_XMAX_EXCL_LOCK;
	else if (strongest == LockTupleShare)
		mark->infomask |= HEAP_XMAX_SHR_LOCK;
	else
		mark->infomask |= HEAP_XMAX_KEYSHR_LOCK;
	if (!updated)
		mark->infomask |= HEAP_XMAX_LOCK_ONLY;
}

/* Does anything of this multixact have to be kept? */
static bool
multi_counts(MultiXactId multi, uint16 infomask)
{
	bool		lock_only = HEAP_XMAX_IS_LOCKED_ONLY(infomask);

	/* from before 9.3: cannot run any more, and must not be looked up */
	if (HEAP_LOCKED_UPGRADED(infomask))
		return false;
	if (MultiXactIdIsRunning(multi, lock_only))
		return true;
	return !lock_only &&
		TransactionIdDidCommit(aurora_multi_updater(multi, infomask));
}

/* Does the single holder have to be kept?  *running tells why. */
static bool
single_counts(const AuroraXmax *old, bool *running)
{
	*running = false;
	if (old->infomask & HEAP_XMAX_COMMITTED)
		return true;
	if (TransactionIdIsInProgress(old->xmax))
	{
		*running = true;
		return true;
	}

	/*
	 * It may have ended since the header was read.  Then a lock is void and
	 * only a committed change must be kept.
	 */
	return !HEAP_XMAX_IS_LOCKED_ONLY(old->infomask) &&
		TransactionIdDidCommit(old->xmax);
}

/*
 * Four cases, after it is known which old holders still count:
 *
 *	none               we are the only holder
 *	ourselves alone    only the stronger of our two modes counts
 *	another xid        a new multixact of it and us
 *	a multixact        one more member
 */
void
aurora_xmax_add(const AuroraXmax *old, TransactionId xid, LockTupleMode mode,
				bool is_update, AuroraXmaxMark *mark)
{
	MultiXactStatus held;
	bool		running;

	Assert(TransactionIdIsCurrentTransactionId(xid));

	if (old->infomask & HEAP_XMAX_INVALID)
	{
		mark_single(xid, mode, is_update, mark);
		return;
	}

	if (old->infomask & HEAP_XMAX_IS_MULTI)
	{
		Assert(!(old->infomask & HEAP_XMAX_COMMITTED));
		if (multi_counts(old->xmax, old->infomask))
			mark_multi(MultiXactIdExpand(old->xmax, xid,
										 aurora_mode_status(mode, is_update)),
					   mark);
		else
			mark_single(xid, mode, is_update, mark);
		return;
	}

	if (!single_counts(old, &running))
	{
		mark_single(xid, mode, is_update, mark);
		return;
	}
	if (!running)
		held = (old->infomask2 & HEAP_KEYS_UPDATED) ?
			MultiXactStatusUpdate : MultiXactStatusNoKeyUpdate;
	else if (!aurora_xmax_status(old->infomask, old->infomask2, &held))
	{
		elog(WARNING, "transaction %u holds a row lock of no mode", old->xmax);
		mark_single(xid, mode, is_update, mark);
		return;
	}

	if (running && old->xmax == xid)
	{
		/* what we had changed ourselves we would not see to change again */
		Assert(HEAP_XMAX_IS_LOCKED_ONLY(old->infomask));
		mark_single(xid, Max(mode, status_mode[held]), is_update, mark);
		return;
	}
	mark_multi(MultiXactIdCreate(old->xmax, held, xid,
								 aurora_mode_status(mode, is_update)),
			   mark);
}

void
aurora_xmax_inherit(const AuroraXmax *old, bool lockers_gone,
					AuroraXmaxMark *mark)
{
	if ((old->infomask & HEAP_XMAX_INVALID) ||
		HEAP_LOCKED_UPGRADED(old->infomask) || lockers_gone ||
		!TransactionIdIsValid(old->xmax))
	{
		mark->xmax = InvalidTransactionId;
		mark->infomask = HEAP_XMAX_INVALID;
		mark->infomask2 = 0;
	}
	else if (old->infomask & HEAP_XMAX_IS_MULTI)
		mark_multi(old->xmax, mark);
	else
	{
		/* nobody else can hold a row that is being replaced any stronger */
		mark_single(old->xmax, LockTupleKeyShare, false, mark);
	}
}

/* ---- multixacts ------------------------------------------------------- */

TransactionId
aurora_multi_updater(MultiXactId multi, uint16 infomask)
{
	TransactionId updater = InvalidTransactionId;
	MultiXactMember *members;
	int			n;

	Assert(infomask & HEAP_XMAX_IS_MULTI);
	Assert(!(infomask & HEAP_XMAX_LOCK_ONLY));

	n = GetMultiXactIdMembers(multi, &members, false, false);
	for (int i = 0; i < n; i++)
	{
		if (ISUPDATE_from_mxstatus(members[i].status))
		{
			/* there is at most one */
			Assert(!TransactionIdIsValid(updater));
			updater = members[i].xid;
		}
	}
	if (n > 0)
		pfree(members);
	return updater;
}

/* Members of a multixact as it stands in a header; <= 0: none that matter. */
static int
header_members(MultiXactId multi, uint16 infomask, MultiXactMember **members)
{
	if (HEAP_LOCKED_UPGRADED(infomask))
		return -1;
	return GetMultiXactIdMembers(multi, members, false,
								 HEAP_XMAX_IS_LOCKED_ONLY(infomask));
}

/* A lock ends with its transaction, a change only if that aborted. */
static bool
member_counts(const MultiXactMember *member)
{
	if (ISUPDATE_from_mxstatus(member->status))
		return !TransactionIdDidAbort(member->xid);
	return TransactionIdIsInProgress(member->xid);
}

bool
aurora_multi_conflicts(MultiXactId multi, uint16 infomask, LockTupleMode mode,
					   bool *own_member)
{
	LOCKMODE	wanted = mode_info[mode].lmgr_mode;
	MultiXactMember *members;
	bool		conflict = false;
	int			n = header_members(multi, infomask, &members);

	for (int i = 0; i < n; i++)
	{
		LOCKMODE	held = mode_info[status_mode[members[i].status]].lmgr_mode;

		if (TransactionIdIsCurrentTransactionId(members[i].xid))
		{
			if (own_member != NULL)
				*own_member = true;
		}
		else if (!conflict && DoLockModesConflict(held, wanted))
			conflict = member_counts(&members[i]);
	}
	if (n > 0)
		pfree(members);
	return conflict;
}

bool
aurora_multi_wait(MultiXactId multi, MultiXactStatus wanted, uint16 infomask,
				  bool nowait, Relation rel, ItemPointer tid, XLTW_Oper oper,
				  int *remaining)
{
	MultiXactMember *members;
	int			n = header_members(multi, infomask, &members);
	int			remain = 0;
	bool		done = true;

	for (int i = 0; i < n && done; i++)
	{
		TransactionId xid = members[i].xid;

		if (TransactionIdIsCurrentTransactionId(xid))
			remain++;
		else if (!aurora_status_conflict(members[i].status, wanted))
		{
			if (remaining != NULL && TransactionIdIsInProgress(xid))
				remain++;
		}
		else if (nowait)
			done = aurora_xact_wait_conditional(xid);
		else
			XactLockTableWait(xid, rel, tid, oper);
	}
	if (n > 0)
		pfree(members);
	if (remaining != NULL)
		*remaining = remain;
	return done;
}

bool
aurora_xact_wait_conditional(TransactionId xid)
{
#if PG_VERSION_NUM >= 180000
	return ConditionalXactLockTableWait(xid, false);
#else
	return ConditionalXactLockTableWait(xid);
#endif
}

void
aurora_xmax_hint(HeapTupleHeader tuple, Buffer buffer, TransactionId xid)
{
	Assert(HeapTupleHeaderGetRawXmax(tuple) == xid);
	Assert(!(tuple->t_infomask & HEAP_XMAX_IS_MULTI));

	if (tuple->t_infomask & (HEAP_XMAX_COMMITTED | HEAP_XMAX_INVALID))
		return;
	if (!HEAP_XMAX_IS_LOCKED_ONLY(tuple->t_infomask) &&
		TransactionIdDidCommit(xid))
		aurora_set_hint_bits(tuple, buffer, HEAP_XMAX_COMMITTED, xid);
	else
		aurora_set_hint_bits(tuple, buffer, HEAP_XMAX_INVALID,
							 InvalidTransactionId);
}

/* ---- queueing --------------------------------------------------------- */

void
aurora_row_not_available(Relation rel)
{
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("could not obtain lock on row in relation \"%s\"",
					RelationGetRelationName(rel))));
}

static bool
turn_take_conditional(Relation rel, ItemPointer tid, LOCKMODE mode)
{
#if PG_VERSION_NUM >= 180000
	return ConditionalLockTuple(rel, tid, mode, false);
#else
	return ConditionalLockTuple(rel, tid, mode);
#endif
}

bool
aurora_turn_take(Relation rel, ItemPointer tid, LockTupleMode mode,
				 LockWaitPolicy policy, bool *have)
{
	LOCKMODE	lmgr_mode = mode_info[mode].lmgr_mode;

	if (*have)
		return true;
	if (policy == LockWaitBlock)
		LockTuple(rel, tid, lmgr_mode);
	else if (!turn_take_conditional(rel, tid, lmgr_mode))
	{
		if (policy == LockWaitError)
			aurora_row_not_available(rel);
		return false;
	}
	*have = true;
	return true;
}

void
aurora_turn_release(Relation rel, ItemPointer tid, LockTupleMode mode,
					bool *have)
{
	if (*have)
		UnlockTuple(rel, tid, mode_info[mode].lmgr_mode);
	*have = false;
}
