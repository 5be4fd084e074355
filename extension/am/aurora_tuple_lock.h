/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_tuple_lock.h: the tuple_lock callback; see access/tableam.h,
 * table_tuple_lock(), for its contract.
 */
#ifndef AURORA_TUPLE_LOCK_H
#define AURORA_TUPLE_LOCK_H

#include "postgres.h"

#include "access/tableam.h"

extern TM_Result aurora_tuple_lock(Relation rel, ItemPointer tid,
								   Snapshot snapshot, TupleTableSlot *slot,
								   CommandId cid, LockTupleMode mode,
								   LockWaitPolicy wait_policy, uint8 flags,
								   TM_FailureData *tmfd);

#endif							/* AURORA_TUPLE_LOCK_H */
