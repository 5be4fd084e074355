/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_lock.c: lock a row in one of the four modes (SELECT FOR KEY SHARE,
 * SHARE, NO KEY UPDATE, UPDATE, and what foreign keys and ON CONFLICT do).
 *
 *	      lock page
 *	          |
 *	+---> may we? --no holders--> mark --> unlock --> done
 *	|         |  \--already replaced, or invisible--> fail
 *	|      holders: unlock
 *	|         |--we hold as much already--> done
 *	|         |--modes agree--> lock page --still so?--> mark ...
 *	|         |--they don't--> queue, sleep, lock page --still so?--> mark ...
 *	|                                                       |
 *	+--------------------------no: the holders changed------+
 *
 * Invariants:
 *  1. What was learned of the holders before the content lock was given up is
 *     compared with the header when it is back; unless it still justifies the
 *     step, everything starts over.
 *  2. When a replaced version is locked and the caller asked for it, all its
 *     successors are locked too, so that nobody can take the key away from
 *     under the lock.  They are locked while no content lock is held.
 *  3. Nobody queues for the tuple while he holds a lock on it: who is first
 *     in the queue may be waiting for him.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/visibilitymap.h"
#include "access/xact.h"
#include "am/aurora_am.h"
#include "am/aurora_write.h"
#include "am/aurora_xmax.h"
#include "miscadmin.h"
#include "storage/procarray.h"
#include "utils/snapmgr.h"

/* ---- the successors of a replaced version ----------------------------- */

typedef struct ChainLock
{
	Relation	rel;
	LockTupleMode mode;
	TransactionId xid;			/* ours */
	TransactionId prior_xmax;	/* who made the next version, if valid */
	ItemPointerData next;		/* where it is */
	Buffer		vmbuffer;
} ChainLock;

typedef enum HolderRelation
{
	HOLDER_HARMLESS,			/* gone, or its mode agrees with ours */
	HOLDER_SELF,				/* our own transaction */
	HOLDER_RUNNING,				/* runs, and its mode conflicts */
	HOLDER_CHANGED				/* has committed a conflicting change */
} HolderRelation;

static HolderRelation
judge_holder(TransactionId xid, MultiXactStatus status, LockTupleMode mode)
{
	MultiXactStatus wanted = aurora_mode_status(mode, false);

	if (TransactionIdIsCurrentTransactionId(xid))
		return HOLDER_SELF;
	if (TransactionIdIsInProgress(xid))
		return aurora_status_conflict(status, wanted) ? HOLDER_RUNNING :
			HOLDER_HARMLESS;
	/* a lock ends with its transaction; what it changed remains */
	if (ISUPDATE_from_mxstatus(status) && TransactionIdDidCommit(xid) &&
		aurora_status_conflict(status, wanted))
		return HOLDER_CHANGED;
	return HOLDER_HARMLESS;
}

/* The first holder that is not harmless decides; *xid: which one. */
static HolderRelation
judge_holders(const AuroraXmax *seen, LockTupleMode mode, TransactionId *xid)
{
	HolderRelation verdict = HOLDER_HARMLESS;
	MultiXactMember *members;
	MultiXactStatus status;
	int			n;

	if (seen->infomask & HEAP_XMAX_INVALID)
		return HOLDER_HARMLESS;
	if (!(seen->infomask & HEAP_XMAX_IS_MULTI))
	{
		*xid = seen->xmax;
		if (!aurora_xmax_status(seen->infomask, seen->infomask2, &status))
			elog(ERROR, "invalid lock status in tuple");
		return judge_holder(*xid, status, mode);
	}

	/* a successor cannot be from before 9.3, as the first version might */
	Assert(!HEAP_LOCKED_UPGRADED(seen->infomask));
	n = GetMultiXactIdMembers(seen->xmax, &members, false,
							  HEAP_XMAX_IS_LOCKED_ONLY(seen->infomask));
	for (int i = 0; i < n && verdict == HOLDER_HARMLESS; i++)
	{
		*xid = members[i].xid;
		verdict = judge_holder(*xid, members[i].status, mode);
	}
	if (n > 0)
		pfree(members);
	return verdict;
}

/* Lock the page of a version, its map page pinned if needed. */
static void
lock_version_page(ChainLock *c, Buffer buffer)
{
	for (;;)
	{
		if (PageIsAllVisible(BufferGetPage(buffer)))
			visibilitymap_pin(c->rel, BufferGetBlockNumber(buffer),
							  &c->vmbuffer);
		LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
		if (aurora_map_pin_ok(buffer, c->vmbuffer))
			return;
		LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
	}
}

static void
mark_version(ChainLock *c, HeapTuple tup, Buffer buffer, const AuroraXmax *seen)
{
	AuroraXmaxMark mark;
	AuroraChange *change;

	aurora_xmax_add(seen, c->xid, c->mode, false, &mark);
	change = aurora_change_begin(c->rel, AU_XLOG_LOCK);
	au_ops_tuphdr(aurora_change_page(change, buffer),
				  ItemPointerGetOffsetNumber(&tup->t_self),
				  AU_TH_XMAX | AU_TH_INFOMASK, mark.xmax, 0,
				  (seen->infomask2 & ~HEAP_KEYS_UPDATED) | mark.infomask2,
				  (seen->infomask & ~HEAP_XMAX_BITS) | mark.infomask, 0, 0);
	aurora_clear_frozen(change, c->rel, buffer, c->vmbuffer);
	aurora_change_commit(change);
}

/* Is there another version after this one?  Then c->next is set to it. */
static bool
find_next(ChainLock *c, HeapTuple tup)
{
	HeapTupleHeader t = tup->t_data;

	if ((t->t_infomask & HEAP_XMAX_INVALID) ||
		HeapTupleHeaderIndicatesMovedPartitions(t) ||
		ItemPointerEquals(&tup->t_self, &t->t_ctid) ||
		HeapTupleHeaderIsOnlyLocked(t))
		return false;
	c->prior_xmax = HeapTupleHeaderGetUpdateXid(t);
	c->next = t->t_ctid;
	return true;
}

/*
 * Lock one version (pinned).  *result: TM_Ok, or why it cannot be locked.
 * Returns true if there is another one.
 */
static bool
lock_version(ChainLock *c, HeapTuple tup, Buffer buffer, TM_Result *result)
{
	HeapTupleHeader t = tup->t_data;
	bool		more = false;

	*result = TM_Ok;
	for (;;)
	{
		AuroraXmax	seen;
		TransactionId xid = InvalidTransactionId;

		CHECK_FOR_INTERRUPTS();
		lock_version_page(c, buffer);

		/*
		 * The end of the chain: the tuple here is another row's, in a place
		 * that became free; or its maker aborted, and the version before it
		 * is the last one.
		 */
		if ((TransactionIdIsValid(c->prior_xmax) &&
			 HeapTupleHeaderGetXmin(t) != c->prior_xmax) ||
			TransactionIdDidAbort(HeapTupleHeaderGetXmin(t)))
			break;

		aurora_xmax_read(t, &seen);
		switch (judge_holders(&seen, c->mode, &xid))
		{
			case HOLDER_RUNNING:
				LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
				XactLockTableWait(xid, c->rel, &tup->t_self, XLTW_LockUpdated);
				continue;
			case HOLDER_CHANGED:
				*result = ItemPointerEquals(&tup->t_self, &t->t_ctid) ?
					TM_Deleted : TM_Updated;
				break;
			case HOLDER_SELF:
				/* an earlier round, started over since, got here */
				more = find_next(c, tup);
				break;
			case HOLDER_HARMLESS:
				mark_version(c, tup, buffer, &seen);
				more = find_next(c, tup);
				break;
		}
		break;
	}
	LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
	return more;
}

/*
 * Lock the successors of a version whose holders are *seen.  No content lock
 * is held.  Sleeps for those whose lock conflicts; nobody queues for these
 * tuples: to be here, one must have started from an old version, which is
 * too rare for anyone to starve.
 */
static TM_Result
lock_successors(Relation rel, const AuroraXmax *seen, LockTupleMode mode)
{
	ChainLock	c;
	TM_Result	result = TM_Ok;
	bool		more = true;

	/* moved to another partition: gone, as far as this table is concerned */
	if (ItemPointerIndicatesMovedPartitions(&seen->ctid))
		return TM_Ok;

	MultiXactIdSetOldestMember();
	c.rel = rel;
	c.mode = mode;
	c.xid = GetCurrentTransactionId();
	c.prior_xmax = (seen->infomask & HEAP_XMAX_IS_MULTI) ?
		aurora_multi_updater(seen->xmax, seen->infomask) : seen->xmax;
	c.next = seen->ctid;
	c.vmbuffer = InvalidBuffer;
	while (more)
	{
		HeapTupleData tup;
		Buffer		buffer;

		/* pruned away: its maker aborted, so the chain ended before it */
		tup.t_self = c.next;
		if (!aurora_fetch(rel, SnapshotAny, &tup, &buffer, false))
			break;
		more = lock_version(&c, &tup, buffer, &result);
		ReleaseBuffer(buffer);
	}
	if (BufferIsValid(c.vmbuffer))
		ReleaseBuffer(c.vmbuffer);
	return result;
}

/* ---- the row itself --------------------------------------------------- */

typedef struct RowLock
{
	AuroraTarget t;
	LockTupleMode mode;
	LockWaitPolicy policy;
	bool		follow_updates;
	bool		own_checked;	/* first round is over */
	bool		must_not_queue; /* we hold a weaker lock in a multixact */
	AuroraXmax	seen;			/* the holders when the lock was given up */
	TM_Result	result;
} RowLock;

typedef enum RowStep
{
	ROW_AGAIN,					/* page locked; start over */
	ROW_DECIDED,				/* page locked; result says what */
	ROW_HELD,					/* page not locked; we had the lock before */
	ROW_SLEEP					/* page not locked; holders are in the way */
} RowStep;

static inline bool
holders_changed(RowLock *r)
{
	return aurora_xmax_changed(r->t.tuple.t_data, &r->seen);
}

/* Back to the page, with this result. */
static RowStep
decided(RowLock *r, TM_Result result)
{
	r->result = result;
	aurora_target_lock(&r->t);
	return ROW_DECIDED;
}

/* Back to the page: it may be locked without sleeping, if the holders are
 * those that made us think so. */
static RowStep
free_if_unchanged(RowLock *r)
{
	aurora_target_lock(&r->t);
	if (holders_changed(r))
		return ROW_AGAIN;
	r->result = TM_Ok;
	return ROW_DECIDED;
}

/*
 * Does our transaction hold the row as strongly as is asked for?  Then we
 * must not try again, for we would deadlock with others that wait in the
 * queue for us.
 */
static bool
own_lock_suffices(RowLock *r)
{
	uint16		infomask = r->seen.infomask;
	MultiXactMember *members;
	bool		suffices = false;
	int			n;

	if (!(infomask & HEAP_XMAX_IS_MULTI))
	{
		if (!TransactionIdIsCurrentTransactionId(r->seen.xmax))
			return false;
		switch (r->mode)
		{
			case LockTupleKeyShare:
				return true;
			case LockTupleShare:
				return HEAP_XMAX_IS_SHR_LOCKED(infomask) ||
					HEAP_XMAX_IS_EXCL_LOCKED(infomask);
			case LockTupleNoKeyExclusive:
				return HEAP_XMAX_IS_EXCL_LOCKED(infomask);
			case LockTupleExclusive:
				return HEAP_XMAX_IS_EXCL_LOCKED(infomask) &&
					(r->seen.infomask2 & HEAP_KEYS_UPDATED);
		}
		return false;
	}

	n = GetMultiXactIdMembers(r->seen.xmax, &members, false,
							  HEAP_XMAX_IS_LOCKED_ONLY(infomask));
	for (int i = 0; i < n && !suffices; i++)
	{
		if (!TransactionIdIsCurrentTransactionId(members[i].xid))
			continue;
		if (aurora_status_mode(members[i].status) >= r->mode)
			suffices = true;
		else
			r->must_not_queue = true;
	}
	if (n > 0)
		pfree(members);
	return suffices;
}

static bool
has_successor(RowLock *r)
{
	return r->follow_updates && !HEAP_XMAX_IS_LOCKED_ONLY(r->seen.infomask) &&
		!ItemPointerEquals(&r->t.tuple.t_self, &r->seen.ctid);
}

/*
 * FOR KEY SHARE agrees with everything but a change of the key.  Successors
 * are locked before we return to the page: that may have to sleep.
 *
 * The holders may be others by then, as long as there is still no change of
 * the key, and no successor that we did not see.
 */
static RowStep
key_share_without_sleep(RowLock *r)
{
	HeapTupleHeader tup = r->t.tuple.t_data;
	bool		was_updated = !HEAP_XMAX_IS_LOCKED_ONLY(r->seen.infomask);

	if (r->seen.infomask2 & HEAP_KEYS_UPDATED)
		return ROW_SLEEP;
	if (has_successor(r))
	{
		TM_Result	res = lock_successors(r->t.rel, &r->seen, r->mode);

		if (res != TM_Ok)
			return decided(r, res);
	}
	aurora_target_lock(&r->t);
	if (!HeapTupleHeaderIsOnlyLocked(tup) &&
		((tup->t_infomask2 & HEAP_KEYS_UPDATED) || !was_updated))
		return ROW_AGAIN;
	r->result = TM_Ok;
	return ROW_DECIDED;
}

/* FOR SHARE agrees with those who share; the holders may be others of that
 * kind by the time we are back. */
static RowStep
share_without_sleep(RowLock *r)
{
	HeapTupleHeader tup = r->t.tuple.t_data;

	if (!HEAP_XMAX_IS_LOCKED_ONLY(r->seen.infomask) ||
		HEAP_XMAX_IS_EXCL_LOCKED(r->seen.infomask))
		return ROW_SLEEP;
	aurora_target_lock(&r->t);
	if (!HEAP_XMAX_IS_LOCKED_ONLY(tup->t_infomask) ||
		HEAP_XMAX_IS_EXCL_LOCKED(tup->t_infomask))
		return ROW_AGAIN;
	r->result = TM_Ok;
	return ROW_DECIDED;
}

/* FOR NO KEY UPDATE agrees with key-share lockers only. */
static RowStep
no_key_update_without_sleep(RowLock *r)
{
	bool		agrees;

	if (r->seen.infomask & HEAP_XMAX_IS_MULTI)
		agrees = !aurora_multi_conflicts(r->seen.xmax, r->seen.infomask,
										 r->mode, NULL);
	else
		agrees = HEAP_XMAX_IS_KEYSHR_LOCKED(r->seen.infomask);
	return agrees ? free_if_unchanged(r) : ROW_SLEEP;
}

static RowStep
try_without_sleep(RowLock *r)
{
	RowStep		step = ROW_SLEEP;

	switch (r->mode)
	{
		case LockTupleKeyShare:
			step = key_share_without_sleep(r);
			break;
		case LockTupleShare:
			step = share_without_sleep(r);
			break;
		case LockTupleNoKeyExclusive:
			step = no_key_update_without_sleep(r);
			break;
		case LockTupleExclusive:
			break;
	}
	/* a weaker lock of our own, and nobody else's */
	if (step == ROW_SLEEP && !(r->seen.infomask & HEAP_XMAX_IS_MULTI) &&
		TransactionIdIsCurrentTransactionId(r->seen.xmax))
		step = free_if_unchanged(r);
	return step;
}

/* Wait for the holders; false if LockWaitSkip says not to. */
static bool
wait_for_holders(RowLock *r)
{
	ItemPointer tid = &r->t.tuple.t_self;
	bool		nowait = r->policy != LockWaitBlock;
	bool		done = true;

	if (r->seen.infomask & HEAP_XMAX_IS_MULTI)
		done = aurora_multi_wait(r->seen.xmax,
								 aurora_mode_status(r->mode, false),
								 r->seen.infomask, nowait, r->t.rel, tid,
								 nowait ? XLTW_None : XLTW_Lock, NULL);
	else if (nowait)
		done = aurora_xact_wait_conditional(r->seen.xmax);
	else
		XactLockTableWait(r->seen.xmax, r->t.rel, tid, XLTW_Lock);

	if (!done && r->policy == LockWaitError)
		aurora_row_not_available(r->t.rel);
	return done;
}

static RowStep
sleep_for_holders(RowLock *r)
{
	/* a committed change will not go away, however long we wait */
	if (r->result == TM_Updated || r->result == TM_Deleted)
		return decided(r, r->result);

	if (!r->must_not_queue &&
		!aurora_turn_take(r->t.rel, &r->t.tuple.t_self, r->mode, r->policy,
						  &r->t.have_turn))
		return decided(r, TM_WouldBlock);
	if (!wait_for_holders(r))
		return decided(r, TM_WouldBlock);
	if (has_successor(r))
	{
		TM_Result	res = lock_successors(r->t.rel, &r->seen, r->mode);

		if (res != TM_Ok)
			return decided(r, res);
	}

	aurora_target_lock(&r->t);
	if (holders_changed(r))
		return ROW_AGAIN;

	/* of a multixact some may still run: those who do not conflict */
	if (!(r->seen.infomask & HEAP_XMAX_IS_MULTI))
		aurora_xmax_hint(r->t.tuple.t_data, r->t.buffer, r->seen.xmax);
	r->result = aurora_xmax_verdict(&r->t.tuple);
	return ROW_DECIDED;
}

/* The page is locked and the tuple has holders (result says which kind). */
static RowStep
settle_with_holders(RowLock *r)
{
	RowStep		step;

	aurora_xmax_read(r->t.tuple.t_data, &r->seen);
	aurora_target_unlock(&r->t);
	if (!r->own_checked)
	{
		/* once is enough: what we hold does not grow while we wait */
		r->own_checked = true;
		if (own_lock_suffices(r))
			return ROW_HELD;
	}
	step = try_without_sleep(r);
	return step == ROW_SLEEP ? sleep_for_holders(r) : step;
}

/*
 * Until the row may be marked, may not be, or need not be.  On ROW_DECIDED
 * the page is locked and, if result is TM_Ok, the map page pinned if needed.
 */
static RowStep
decide(RowLock *r, CommandId cid)
{
	for (;;)
	{
		r->result = aurora_tuple_satisfies_update(&r->t.tuple, cid, r->t.buffer);
		if (r->result == TM_BeingModified || r->result == TM_Updated ||
			r->result == TM_Deleted)
		{
			RowStep		step = settle_with_holders(r);

			if (step == ROW_HELD)
				return step;
			if (step == ROW_AGAIN)
				continue;
		}
		if (r->result != TM_Ok || aurora_target_map_ready(&r->t))
			return ROW_DECIDED;
	}
}

static void
mark_row(RowLock *r)
{
	AuroraXmax	old;
	AuroraXmaxMark mark;
	AuroraChange *change;
	HeapTupleHeader tup = r->t.tuple.t_data;
	ItemPointer ctid = &tup->t_ctid;
	bool		hot_updated;

	/*
	 * Others may make our xid a member of a multixact as soon as it is on the
	 * page; none older than the oldest one as of now.
	 */
	MultiXactIdSetOldestMember();
	aurora_xmax_read(tup, &old);
	aurora_xmax_add(&old, GetCurrentTransactionId(), r->mode, false, &mark);

	/* a version that has a successor keeps the link to it */
	hot_updated = (tup->t_infomask2 & HEAP_HOT_UPDATED) != 0;
	if (HEAP_XMAX_IS_LOCKED_ONLY(mark.infomask))
	{
		ctid = &r->t.tuple.t_self;
		hot_updated = false;
	}

	/*
	 * cmax stays: it means nothing for a lock, and if the tuple was updated
	 * it is the updater's.
	 */
	change = aurora_change_begin(r->t.rel, AU_XLOG_LOCK);
	aurora_target_put_mark(&r->t, aurora_change_page(change, r->t.buffer),
						   &mark, NULL, hot_updated, ctid);
	aurora_clear_frozen(change, r->t.rel, r->t.buffer, r->t.vmbuffer);
	aurora_change_commit(change);
}

/*
 * As heap_lock_tuple: tuple->t_self says which; the rest of *tuple is filled
 * in.  *buffer is its page, pinned, in all cases; the caller releases it.
 */
TM_Result
aurora_lock_tuple(Relation rel, HeapTuple tuple, CommandId cid,
				  LockTupleMode mode, LockWaitPolicy wait_policy,
				  bool follow_updates, Buffer *buffer, TM_FailureData *tmfd)
{
	RowLock		r;
	RowStep		step;

	aurora_target_must_open(&r.t, rel, &tuple->t_self);
	r.mode = mode;
	r.policy = wait_policy;
	r.follow_updates = follow_updates;
	r.own_checked = false;
	r.must_not_queue = false;
	*tuple = r.t.tuple;

	step = decide(&r, cid);
	if (step == ROW_HELD)
		r.result = TM_Ok;
	else
	{
		if (r.result == TM_Ok)
			mark_row(&r);
		else if (r.result != TM_Invisible)
			aurora_xmax_failure(&r.t.tuple, r.result, tmfd);
		aurora_target_unlock(&r.t);
	}

	*buffer = r.t.buffer;
	IncrBufferRefCount(*buffer);	/* the caller's pin outlives the target */
	aurora_target_close(&r.t, mode);
	return r.result;
}
