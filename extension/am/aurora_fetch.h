/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_fetch.h: callbacks of the TableAmRoutine that fetch single tuples.
 * Signatures and contracts are those of the members in access/tableam.h.
 */
#ifndef AURORA_FETCH_H
#define AURORA_FETCH_H

#include "postgres.h"

#include "access/relscan.h"
#include "access/tableam.h"
#include "executor/tuptable.h"
#include "utils/snapshot.h"

/* .index_fetch_begin, _reset, _end, _tuple */
extern IndexFetchTableData *aurora_index_fetch_begin(Relation rel);
extern void aurora_index_fetch_reset(IndexFetchTableData *data);
extern void aurora_index_fetch_end(IndexFetchTableData *data);
extern bool aurora_index_fetch_tuple(IndexFetchTableData *data, ItemPointer tid,
									 Snapshot snapshot, TupleTableSlot *slot,
									 bool *call_again, bool *all_dead);

/* .tuple_fetch_row_version */
extern bool aurora_fetch_row_version(Relation rel, ItemPointer tid,
									 Snapshot snapshot, TupleTableSlot *slot);

/* .tuple_tid_valid */
extern bool aurora_tid_valid(TableScanDesc scan, ItemPointer tid);

/* .tuple_satisfies_snapshot */
extern bool aurora_tuple_satisfies_snapshot(Relation rel, TupleTableSlot *slot,
											Snapshot snapshot);

#endif							/* AURORA_FETCH_H */
