/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_visibility.c: which tuple versions a reader sees, a writer may
 * change and VACUUM may remove.
 *
 * The answers are those of heapam_visibility.c for every kind of snapshot.
 * The way there is different: two questions are asked of a tuple,
 *
 *	inserter_state()	what became of the transaction in xmin?
 *	deleter_state()		what became of the one that deleted or replaced it?
 *
 * each answered by a WriterState, and each rule is a short table over the two
 * answers:
 *
 *	rule     inserter  deleter: NONE      OWN          RUNNING      COMMITTED
 *	MVCC     committed          visible   cmax later   visible      -
 *	         own                likewise, if cmin is before the snapshot's cid
 *	SELF     committed, own     visible   -            visible      -
 *	DIRTY    committed, own     visible   -            visible (1)  -
 *	         running            visible (2)
 *	VACUUM   committed          LIVE      DELETING     DELETING     REC. DEAD
 *	         own                INSERTING DELETING     INSERTING
 *	         running            INSERTING
 *	         aborted            DEAD
 *	(1) the deleter's xid is reported; (2) the inserter's xid and its
 *	speculative token are.  What a table leaves out is invisible.
 *
 * Invariants:
 *  1. The caller has the buffer pinned and its content locked, share at least
 *     (hint bits are set; the page must not be repacked meanwhile).
 *  2. "Running" is asked before "committed": a transaction that is neither
 *     when asked in this order has aborted or crashed.  With an MVCC snapshot
 *     "running" means running as of the snapshot, and the shared process
 *     array is not looked at.
 *  3. A hint bit says what pg_xact says, and is set only after asking it.
 *  4. HEAP_MOVED_OFF/IN come from VACUUM FULL before PostgreSQL 9.0; no
 *     aurora table is that old, so they can only be damage.
 */
#include "postgres.h"

#include "access/multixact.h"
#include "access/subtrans.h"
#include "access/transam.h"
#include "access/xact.h"
#include "am/aurora_am.h"
#include "storage/predicate.h"
#include "storage/procarray.h"
#include "utils/snapmgr.h"

typedef enum WriterState
{
	WRITER_NONE,				/* deleter only: there is none that counts */
	WRITER_OWN,					/* this transaction or a live child of it */
	WRITER_RUNNING,
	WRITER_COMMITTED,
	WRITER_ABORTED				/* inserter only */
} WriterState;

/*
 * Set hint bits.
 *
 * Heap may not hint a commit that is not flushed yet: the page could reach
 * the disk before the commit record, and after a crash claim a transaction
 * committed that never did.  A page of a permanent aurora table never reaches
 * a disk from here: its buffer is never dirty, and what storage holds comes
 * from the log alone.  A hint that does get into the log (an operation that
 * writes a tuple's whole infomask) comes after the commit record there.  So
 * for those the bits are set and nothing else: no test of the commit's LSN,
 * no WAL, no dirty flag.  The others are as volatile as in heap and only have
 * to be marked dirty.
 */
static inline void
set_hints(HeapTupleHeader tuple, Buffer buffer, uint16 infomask)
{
	tuple->t_infomask |= infomask;
	if (!BufferIsPermanent(buffer))
		MarkBufferDirtyHint(buffer, true);
}

/*
 * For the other files of the access method.  xid is the transaction known to
 * have committed, or InvalidTransactionId, as in HeapTupleSetHintBits; see
 * above for why it makes no difference here.
 */
void
aurora_set_hint_bits(HeapTupleHeader tuple, Buffer buffer, uint16 infomask,
					 TransactionId xid)
{
	set_hints(tuple, buffer, infomask);
}

static void
refuse_moved_tuple(HeapTuple htup)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("tuple (%u,%u) of table with OID %u has invalid flags 0x%04X",
					ItemPointerGetBlockNumber(&htup->t_self),
					ItemPointerGetOffsetNumber(&htup->t_self),
					htup->t_tableOid, htup->t_data->t_infomask),
			 errdetail("The flags say that a VACUUM FULL older than PostgreSQL 9.0 moved it."),
			 errhint("Compare the table with storage: SELECT * FROM aurora.verify_pages(%u).",
					 htup->t_tableOid)));
}

static inline bool
is_running(TransactionId xid, Snapshot mvcc)
{
	return mvcc ? XidInMVCCSnapshot(xid, mvcc) : TransactionIdIsInProgress(xid);
}

/*
 * What became of the inserting transaction: OWN, RUNNING, COMMITTED or
 * ABORTED.  mvcc: the snapshot that decides what is running, or NULL for the
 * present.
 */
static WriterState
inserter_state_unhinted(HeapTuple htup, Buffer buffer, Snapshot mvcc)
{
	HeapTupleHeader tuple = htup->t_data;
	TransactionId xmin = HeapTupleHeaderGetRawXmin(tuple);

	if (unlikely(tuple->t_infomask & HEAP_MOVED))
		refuse_moved_tuple(htup);

	if (TransactionIdIsCurrentTransactionId(xmin))
		return WRITER_OWN;
	if (is_running(xmin, mvcc))
		return WRITER_RUNNING;
	if (TransactionIdDidCommit(xmin))
	{
		set_hints(tuple, buffer, HEAP_XMIN_COMMITTED);
		return WRITER_COMMITTED;
	}
	set_hints(tuple, buffer, HEAP_XMIN_INVALID);
	return WRITER_ABORTED;
}

static pg_attribute_always_inline WriterState
inserter_state(HeapTuple htup, Buffer buffer, Snapshot mvcc)
{
	HeapTupleHeader tuple = htup->t_data;

	Assert(ItemPointerIsValid(&htup->t_self));
	Assert(htup->t_tableOid != InvalidOid);

	if (likely(HeapTupleHeaderXminCommitted(tuple)))
	{
		/* committed by now, but perhaps not when the snapshot was taken */
		if (mvcc && !HeapTupleHeaderXminFrozen(tuple) &&
			XidInMVCCSnapshot(HeapTupleHeaderGetRawXmin(tuple), mvcc))
			return WRITER_RUNNING;
		return WRITER_COMMITTED;
	}
	if (HeapTupleHeaderXminInvalid(tuple))
		return WRITER_ABORTED;
	return inserter_state_unhinted(htup, buffer, mvcc);
}

/*
 * What became of the transaction that deleted or replaced the tuple: NONE
 * (also if it only locked it, or aborted), OWN, RUNNING or COMMITTED.
 * inserter: OWN or COMMITTED.  *xmax_p (may be NULL): the deleter's xid,
 * unless NONE.
 */
static WriterState
deleter_state_unhinted(HeapTupleHeader tuple, Buffer buffer, Snapshot mvcc,
					   WriterState inserter, TransactionId *xmax_p)
{
	bool		multi = (tuple->t_infomask & HEAP_XMAX_IS_MULTI) != 0;
	TransactionId xmax;

	xmax = multi ? HeapTupleGetUpdateXid(tuple) : HeapTupleHeaderGetRawXmax(tuple);
	Assert(TransactionIdIsValid(xmax));
	if (xmax_p)
		*xmax_p = xmax;

	if (TransactionIdIsCurrentTransactionId(xmax))
		return WRITER_OWN;

	/*
	 * Nobody else can have deleted what only we can see: that was a
	 * subtransaction of ours which has rolled back.
	 */
	if (inserter != WRITER_OWN)
	{
		if (is_running(xmax, mvcc))
			return WRITER_RUNNING;
		if (TransactionIdDidCommit(xmax))
		{
			if (!multi)
				set_hints(tuple, buffer, HEAP_XMAX_COMMITTED);
			return WRITER_COMMITTED;
		}
	}

	/* Other members of a multixact may still hold locks: no hint then. */
	if (!multi)
		set_hints(tuple, buffer, HEAP_XMAX_INVALID);
	return WRITER_NONE;
}

static pg_attribute_always_inline WriterState
deleter_state(HeapTupleHeader tuple, Buffer buffer, Snapshot mvcc,
			  WriterState inserter, TransactionId *xmax_p)
{
	uint16		infomask = tuple->t_infomask;

	if (likely(infomask & HEAP_XMAX_INVALID) ||
		HEAP_XMAX_IS_LOCKED_ONLY(infomask))
		return WRITER_NONE;

	if ((infomask & (HEAP_XMAX_COMMITTED | HEAP_XMAX_IS_MULTI)) == HEAP_XMAX_COMMITTED)
	{
		TransactionId xmax = HeapTupleHeaderGetRawXmax(tuple);

		if (xmax_p)
			*xmax_p = xmax;
		/* committed by now, but perhaps not when the snapshot was taken */
		if (mvcc && XidInMVCCSnapshot(xmax, mvcc))
			return WRITER_RUNNING;
		return WRITER_COMMITTED;
	}
	return deleter_state_unhinted(tuple, buffer, mvcc, inserter, xmax_p);
}

/*
 * ---- The rules, one a kind of snapshot ----
 */

static pg_attribute_always_inline bool
visible_mvcc(HeapTuple htup, Snapshot snapshot, Buffer buffer)
{
	HeapTupleHeader tuple = htup->t_data;
	WriterState inserter = inserter_state(htup, buffer, snapshot);

	if (inserter == WRITER_RUNNING || inserter == WRITER_ABORTED)
		return false;
	if (inserter == WRITER_OWN &&
		HeapTupleHeaderGetCmin(tuple) >= snapshot->curcid)
		return false;			/* inserted after the scan began */

	switch (deleter_state(tuple, buffer, snapshot, inserter, NULL))
	{
		case WRITER_OWN:
			/* deleted after the scan began? */
			return HeapTupleHeaderGetCmax(tuple) >= snapshot->curcid;
		case WRITER_COMMITTED:
			return false;
		default:
			return true;
	}
}

static bool
visible_self(HeapTuple htup, Buffer buffer)
{
	WriterState inserter = inserter_state(htup, buffer, NULL);
	WriterState deleter;

	if (inserter == WRITER_RUNNING || inserter == WRITER_ABORTED)
		return false;
	deleter = deleter_state(htup->t_data, buffer, NULL, inserter, NULL);
	return deleter == WRITER_NONE || deleter == WRITER_RUNNING;
}

/* Tells the caller through the snapshot whom it may have to wait for. */
static bool
visible_dirty(HeapTuple htup, Snapshot snapshot, Buffer buffer)
{
	HeapTupleHeader tuple = htup->t_data;
	WriterState inserter;
	TransactionId xmax;

	snapshot->xmin = snapshot->xmax = InvalidTransactionId;
	snapshot->speculativeToken = 0;

	inserter = inserter_state(htup, buffer, NULL);
	if (inserter == WRITER_ABORTED)
		return false;
	if (inserter == WRITER_RUNNING)
	{
		/* An insertion that may yet be taken back on its own says so. */
		if (HeapTupleHeaderIsSpeculative(tuple))
		{
			snapshot->speculativeToken =
				HeapTupleHeaderGetSpeculativeToken(tuple);
			Assert(snapshot->speculativeToken != 0);
		}
		snapshot->xmin = HeapTupleHeaderGetRawXmin(tuple);
		return true;
	}

	switch (deleter_state(tuple, buffer, NULL, inserter, &xmax))
	{
		case WRITER_NONE:
			return true;
		case WRITER_RUNNING:
			snapshot->xmax = xmax;
			return true;
		default:
			return false;
	}
}

/*
 * A TOAST chunk is good if the row that points to it is.  Only what a
 * cancelled speculative insertion or an abort left behind is filtered out.
 */
static bool
visible_toast(HeapTuple htup)
{
	HeapTupleHeader tuple = htup->t_data;

	if (HeapTupleHeaderXminCommitted(tuple))
		return true;
	if (HeapTupleHeaderXminInvalid(tuple))
		return false;
	if (unlikely(tuple->t_infomask & HEAP_MOVED))
		refuse_moved_tuple(htup);
	return TransactionIdIsValid(HeapTupleHeaderGetRawXmin(tuple));
}

static bool
visible_nonvacuumable(HeapTuple htup, Snapshot snapshot, Buffer buffer)
{
	TransactionId dead_after;

	switch (aurora_tuple_vacuum_horizon(htup, &dead_after, buffer))
	{
		case HEAPTUPLE_DEAD:
			return false;
		case HEAPTUPLE_RECENTLY_DEAD:
			return !GlobalVisTestIsRemovableXid(snapshot->vistest, dead_after);
		default:
			return true;
	}
}

/* Does the snapshot see this tuple?  As HeapTupleSatisfiesVisibility. */
bool
aurora_tuple_visible(HeapTuple htup, Snapshot snapshot, Buffer buffer)
{
	switch (snapshot->snapshot_type)
	{
		case SNAPSHOT_MVCC:
			return visible_mvcc(htup, snapshot, buffer);
		case SNAPSHOT_SELF:
			return visible_self(htup, buffer);
		case SNAPSHOT_ANY:
			return true;
		case SNAPSHOT_TOAST:
			return visible_toast(htup);
		case SNAPSHOT_DIRTY:
			return visible_dirty(htup, snapshot, buffer);
		case SNAPSHOT_NON_VACUUMABLE:
			return visible_nonvacuumable(htup, snapshot, buffer);
		case SNAPSHOT_HISTORIC_MVCC:

			/*
			 * Only catalogs and tables with user_catalog_table are read while
			 * WAL is decoded, and it would take heap's records to find the
			 * command ids of that time.
			 */
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot read table with OID %u during logical decoding",
							htup->t_tableOid),
					 errdetail("A table that uses the access method \"aurora\" cannot serve as a user catalog table."),
					 errhint("Move it to heap with ALTER TABLE ... SET ACCESS METHOD heap.")));
	}
	return false;				/* not reached */
}

/*
 * ---- What a writer may do with the tuple ----
 */

/* The tuple's xmax only locks it: is anybody still holding the lock? */
static bool
lock_is_held(HeapTupleHeader tuple, Buffer buffer)
{
	uint16		infomask = tuple->t_infomask;
	TransactionId xmax = HeapTupleHeaderGetRawXmax(tuple);
	bool		held;

	if (infomask & HEAP_XMAX_COMMITTED)
		return false;
	if (!(infomask & HEAP_XMAX_IS_MULTI))
		held = TransactionIdIsInProgress(xmax);
	else if (HEAP_LOCKED_UPGRADED(infomask))
		return false;			/* a locker of 9.2 or before, long gone */
	else
		held = MultiXactIdIsRunning(xmax, true);

	if (!held)
		set_hints(tuple, buffer, HEAP_XMAX_INVALID);
	return held;
}

/* Our own transaction deleted it: before or after command curcid began? */
static inline TM_Result
deleted_by_self(HeapTupleHeader tuple, CommandId curcid)
{
	return HeapTupleHeaderGetCmax(tuple) >= curcid ?
		TM_SelfModified : TM_Invisible;
}

/* As HeapTupleSatisfiesUpdate. */
TM_Result
aurora_tuple_satisfies_update(HeapTuple htup, CommandId curcid, Buffer buffer)
{
	HeapTupleHeader tuple = htup->t_data;
	WriterState inserter = inserter_state(htup, buffer, NULL);
	WriterState deleter;

	if (inserter == WRITER_RUNNING || inserter == WRITER_ABORTED)
		return TM_Invisible;
	if (inserter == WRITER_OWN && HeapTupleHeaderGetCmin(tuple) >= curcid)
		return TM_Invisible;	/* inserted after the scan began */

	if (tuple->t_infomask & HEAP_XMAX_INVALID)
		return TM_Ok;

	/*
	 * Even a tuple of our own may be locked by others, who locked the version
	 * that we replaced.  A lock of our own counts as held too.
	 */
	if (HEAP_XMAX_IS_LOCKED_ONLY(tuple->t_infomask))
		return lock_is_held(tuple, buffer) ? TM_BeingModified : TM_Ok;

	if (tuple->t_infomask & HEAP_XMAX_IS_MULTI)
	{
		TransactionId xmax = HeapTupleGetUpdateXid(tuple);

		if (TransactionIdIsCurrentTransactionId(xmax))
			return deleted_by_self(tuple, curcid);
		/* whatever became of the updater, lockers may be left */
		if (MultiXactIdIsRunning(HeapTupleHeaderGetRawXmax(tuple), false))
			return TM_BeingModified;
		if (!TransactionIdDidCommit(xmax))
		{
			set_hints(tuple, buffer, HEAP_XMAX_INVALID);
			return TM_Ok;
		}
		deleter = WRITER_COMMITTED;
	}
	else
		deleter = deleter_state(tuple, buffer, NULL, inserter, NULL);

	switch (deleter)
	{
		case WRITER_OWN:
			return deleted_by_self(tuple, curcid);
		case WRITER_RUNNING:
			return TM_BeingModified;
		case WRITER_COMMITTED:
			/* a deleted tuple's ctid points to itself */
			return ItemPointerEquals(&htup->t_self, &tuple->t_ctid) ?
				TM_Deleted : TM_Updated;
		default:
			return TM_Ok;
	}
}

/*
 * ---- What VACUUM may do with the tuple ----
 */

/*
 * As HeapTupleSatisfiesVacuumHorizon: on HEAPTUPLE_RECENTLY_DEAD *dead_after
 * is the xid that must be older than the horizon for the tuple to go; else it
 * is InvalidTransactionId.
 */
HTSV_Result
aurora_tuple_vacuum_horizon(HeapTuple htup, TransactionId *dead_after,
							Buffer buffer)
{
	HeapTupleHeader tuple = htup->t_data;
	WriterState inserter;
	WriterState deleter;
	TransactionId xmax;

	*dead_after = InvalidTransactionId;

	inserter = inserter_state(htup, buffer, NULL);
	if (inserter == WRITER_ABORTED)
		return HEAPTUPLE_DEAD;
	if (inserter == WRITER_RUNNING)
		return HEAPTUPLE_INSERT_IN_PROGRESS;

	deleter = deleter_state(tuple, buffer, NULL, inserter, &xmax);
	if (inserter == WRITER_OWN)
		return deleter == WRITER_OWN ?
			HEAPTUPLE_DELETE_IN_PROGRESS : HEAPTUPLE_INSERT_IN_PROGRESS;

	switch (deleter)
	{
		case WRITER_OWN:
		case WRITER_RUNNING:
			return HEAPTUPLE_DELETE_IN_PROGRESS;

		case WRITER_COMMITTED:

			/*
			 * Lockers in the same multixact may still be there; they hold the
			 * newer version too, so this one may go all the same.
			 */
			*dead_after = xmax;
			return HEAPTUPLE_RECENTLY_DEAD;

		default:
			break;
	}

	/*
	 * Live.  If what is left in xmax is over (a lock, or a multixact whose
	 * updater aborted), say so, to spare later readers the question.
	 */
	if (!(tuple->t_infomask & HEAP_XMAX_INVALID))
	{
		if (HEAP_XMAX_IS_LOCKED_ONLY(tuple->t_infomask))
			(void) lock_is_held(tuple, buffer);
		else if (!MultiXactIdIsRunning(HeapTupleHeaderGetRawXmax(tuple), false))
			set_hints(tuple, buffer, HEAP_XMAX_INVALID);
	}
	return HEAPTUPLE_LIVE;
}

/* As HeapTupleSatisfiesVacuum: the same against a fixed horizon. */
HTSV_Result
aurora_tuple_vacuum_status(HeapTuple htup, TransactionId oldest_xmin,
						   Buffer buffer)
{
	TransactionId dead_after;
	HTSV_Result status;

	status = aurora_tuple_vacuum_horizon(htup, &dead_after, buffer);
	if (status == HEAPTUPLE_RECENTLY_DEAD &&
		TransactionIdPrecedes(dead_after, oldest_xmin))
		status = HEAPTUPLE_DEAD;
	return status;
}

/*
 * ---- Serializable transactions ----
 */

/*
 * A serializable transaction has read this tuple (visible) or passed it over
 * (not visible): report a read-write conflict with the concurrent transaction
 * that deleted or inserted it, if there is one.  As
 * HeapCheckForSerializableConflictOut.
 */
void
aurora_serializable_conflict_out(bool visible, Relation rel, HeapTuple tuple,
								 Buffer buffer, Snapshot snapshot)
{
	TransactionId xid;

	if (!CheckForSerializableConflictOutNeeded(rel, snapshot))
		return;

	switch (aurora_tuple_vacuum_status(tuple, TransactionXmin, buffer))
	{
		case HEAPTUPLE_LIVE:
			if (visible)
				return;
			xid = HeapTupleHeaderGetXmin(tuple->t_data);
			break;

		case HEAPTUPLE_RECENTLY_DEAD:
		case HEAPTUPLE_DELETE_IN_PROGRESS:
			if (visible)
				xid = HeapTupleHeaderGetUpdateXid(tuple->t_data);
			else
				xid = HeapTupleHeaderGetXmin(tuple->t_data);
			/* older than all concurrent transactions: as good as dead */
			if (TransactionIdPrecedes(xid, TransactionXmin))
			{
				Assert(!visible);
				return;
			}
			break;

		case HEAPTUPLE_INSERT_IN_PROGRESS:
			xid = HeapTupleHeaderGetXmin(tuple->t_data);
			break;

		case HEAPTUPLE_DEAD:
		default:
			Assert(!visible);
			return;
	}

	Assert(TransactionIdIsValid(xid));
	Assert(TransactionIdFollowsOrEquals(xid, TransactionXmin));

	/* Conflicts are kept by top-level transaction; not with ourselves. */
	if (TransactionIdEquals(xid, GetTopTransactionIdIfAny()))
		return;
	xid = SubTransGetTopmostTransaction(xid);
	if (TransactionIdPrecedes(xid, TransactionXmin))
		return;

	CheckForSerializableConflictOut(rel, xid, snapshot);
}
