/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_xmax.h: who holds a tuple, and how that is written into its header.
 *
 * A tuple's xmax names its holders: nobody, one transaction that locked,
 * updated or deleted it, or a multixact of several.  Heap has the rules
 * static in heapam.c (README.tuplock there explains the protocol); these are
 * the same rules for aurora tables.
 *
 * Words:
 *   holder   a transaction in xmax (or a member of the multixact in xmax)
 *   mark     xmax and infomask bits to be written for a new set of holders
 *   turn     the lmgr lock on a TID that queues those who must sleep for it
 *
 * Nothing here changes a page; only aurora_xmax_hint sets hint bits.
 */
#ifndef AURORA_XMAX_H
#define AURORA_XMAX_H

#include "postgres.h"

#include "access/htup_details.h"
#include "access/multixact.h"
#include "nodes/lockoptions.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/rel.h"

/* What a header said about its holders when its page was last locked. */
typedef struct AuroraXmax
{
	TransactionId xmax;			/* raw: an xid or a multixact */
	uint16		infomask;
	uint16		infomask2;
	ItemPointerData ctid;
} AuroraXmax;

/* What to write for the new set of holders: goes in place of xmax, of
 * HEAP_XMAX_BITS in infomask and of HEAP_KEYS_UPDATED in infomask2. */
typedef struct AuroraXmaxMark
{
	TransactionId xmax;
	uint16		infomask;
	uint16		infomask2;
} AuroraXmaxMark;

extern void aurora_xmax_read(HeapTupleHeader tuple, AuroraXmax *state);

/* Have the holders changed since *state was read?  (New hint bits are no
 * change.)  Buffer content lock held. */
extern bool aurora_xmax_changed(HeapTupleHeader tuple, const AuroraXmax *state);

/* May a transaction that had to wait for the holders go on to change or lock
 * the tuple: TM_Ok; or has it been replaced or deleted for good. */
extern TM_Result aurora_xmax_verdict(HeapTuple tuple);

/* tmfd for a tuple that may not be changed; content lock held. */
extern void aurora_xmax_failure(HeapTuple tuple, TM_Result result,
								TM_FailureData *tmfd);

/*
 * The mark for adding own transaction xid, which locks (is_update false) or
 * changes (true) the tuple in `mode`, to the holders in *old.  Call
 * MultiXactIdSetOldestMember() first.  May create a multixact; raises errors;
 * not for critical sections.
 */
extern void aurora_xmax_add(const AuroraXmax *old, TransactionId xid,
							LockTupleMode mode, bool is_update,
							AuroraXmaxMark *mark);

/*
 * The mark that a new version inherits from the holders of the one it
 * replaces: its key-share lockers, who must keep their lock.
 */
extern void aurora_xmax_inherit(const AuroraXmax *old, bool lockers_gone,
								AuroraXmaxMark *mark);

/*
 * The way a single xid (not a multixact) holds the tuple.  False if the bits
 * make no sense, which only a pg_upgrade from before 9.3 leaves behind.
 */
extern bool aurora_xmax_status(uint16 infomask, uint16 infomask2,
							   MultiXactStatus *status);

/* Do a held and a wanted status exclude each other? */
extern bool aurora_status_conflict(MultiXactStatus held, MultiXactStatus wanted);
extern LockTupleMode aurora_status_mode(MultiXactStatus status);
extern MultiXactStatus aurora_mode_status(LockTupleMode mode, bool is_update);

/* The updater among a multixact's members, or InvalidTransactionId; infomask
 * as in the header that holds it, without HEAP_XMAX_LOCK_ONLY. */
extern TransactionId aurora_multi_updater(MultiXactId multi, uint16 infomask);

/* Does a live member that is not ours stand in the way of `mode`?
 * *own_member (may be NULL) is set if we are a member; else left alone. */
extern bool aurora_multi_conflicts(MultiXactId multi, uint16 infomask,
								   LockTupleMode mode, bool *own_member);

/*
 * Sleep until no member that conflicts with `wanted` runs any more; members
 * of our own transaction are not waited for.  With nowait return false
 * instead of sleeping.  *remaining (may be NULL): members still running or
 * ours; not to be trusted after false.  Holds no content lock.
 */
extern bool aurora_multi_wait(MultiXactId multi, MultiXactStatus wanted,
							  uint16 infomask, bool nowait, Relation rel,
							  ItemPointer tid, XLTW_Oper oper, int *remaining);

/* As XactLockTableWait, but return false instead of sleeping. */
extern bool aurora_xact_wait_conditional(TransactionId xid);

/*
 * The single holder xid, which we have waited for, has ended: set
 * HEAP_XMAX_INVALID if it aborted or had only locked, else
 * HEAP_XMAX_COMMITTED.  Exclusive content lock held.
 */
extern void aurora_xmax_hint(HeapTupleHeader tuple, Buffer buffer,
							 TransactionId xid);

/*
 * Queue for the tuple.  Those who are about to sleep for its holders take
 * the lmgr lock on its TID first, so that they get the tuple in the order
 * they came.  Nothing happens if *have is set already; true when we have it,
 * false only under LockWaitSkip; LockWaitError raises an error.
 */
extern bool aurora_turn_take(Relation rel, ItemPointer tid, LockTupleMode mode,
							 LockWaitPolicy policy, bool *have);
extern void aurora_turn_release(Relation rel, ItemPointer tid,
								LockTupleMode mode, bool *have);

extern void aurora_row_not_available(Relation rel) pg_attribute_noreturn();

#endif							/* AURORA_XMAX_H */
