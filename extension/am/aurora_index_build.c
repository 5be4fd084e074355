/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_index_build.c: the table's side of CREATE INDEX and REINDEX.
 *
 * The index gets one entry for each HOT chain, under the TID of its root,
 * with the values of the member that is alive.  An ordinary build sees every
 * tuple version (SnapshotAny) and judges it here, because older snapshots may
 * use the new index too; a concurrent build indexes what an MVCC snapshot
 * sees, and its second pass adds what came later (aurora_index_validate_scan).
 *
 * Invariants:
 *  1. The page stood on is pinned from the map of its chains to its last
 *     tuple, so nothing is pruned from it: a root found stays the root.
 *  2. No content lock is held while waiting for a transaction or calling into
 *     the index.
 *  3. A tuple counts as live here exactly if ANALYZE counts it as live.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/xact.h"
#include "am/aurora_scan.h"
#include "catalog/catalog.h"
#include "catalog/index.h"
#include "commands/progress.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "pgstat.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/tuplesort.h"

/* Evaluates the index's columns and its predicate. */
typedef struct IndexFormer
{
	IndexInfo  *info;
	EState	   *estate;
	ExprContext *econtext;
	ExprState  *predicate;		/* NULL unless partial */
	TupleTableSlot *slot;
	Datum		values[INDEX_MAX_KEYS];
	bool		isnull[INDEX_MAX_KEYS];
} IndexFormer;

/* Where each tuple's HOT chain begins, for one page. */
typedef struct RootMap
{
	BlockNumber block;			/* InvalidBlockNumber: none yet */
	OffsetNumber roots[MaxHeapTuplesPerPage];
} RootMap;

/* An ordinary build. */
typedef struct BuildScan
{
	AuroraScanDesc scan;
	IndexInfo  *info;
	TransactionId oldest_xmin;
	bool		anyvisible;
	bool		must_be_sure;	/* unique or exclusion: wait for who may decide */
	bool		shared_catalog_rules;	/* locks are given up before commit */
	double		live_tuples;
} BuildScan;

typedef enum Verdict
{
	INDEX_SKIP,
	INDEX_DEAD,					/* index it, but it violates nothing */
	INDEX_ALIVE,
	INDEX_ASK_AGAIN				/* waited for its writer; look again */
} Verdict;

/*
 * ---- Values ----
 */

static void
former_begin(IndexFormer *former, Relation rel, IndexInfo *info)
{
	former->info = info;
	former->estate = CreateExecutorState();
	former->econtext = GetPerTupleExprContext(former->estate);
	former->slot = table_slot_create(rel, NULL);
	former->econtext->ecxt_scantuple = former->slot;
	former->predicate = ExecPrepareQual(info->ii_Predicate, former->estate);
}

/* Fills in values[] and isnull[]; false if the predicate excludes the tuple. */
static bool
former_form(IndexFormer *former, HeapTuple tuple, Buffer buffer)
{
	MemoryContextReset(former->econtext->ecxt_per_tuple_memory);
	ExecStoreBufferHeapTuple(tuple, former->slot, buffer);

	if (former->predicate != NULL &&
		!ExecQual(former->predicate, former->econtext))
		return false;
	FormIndexDatum(former->info, former->slot, former->estate,
				   former->values, former->isnull);
	return true;
}

static void
former_end(IndexFormer *former)
{
	ExecDropSingleTupleTableSlot(former->slot);
	FreeExecutorState(former->estate);
	/* FormIndexDatum left pointers into the executor state here */
	former->info->ii_ExpressionsState = NIL;
	former->info->ii_PredicateState = NULL;
}

/*
 * ---- Roots ----
 */

static void
root_map_read(RootMap *map, AuroraScanDesc scan)
{
	LockBuffer(scan->buffer, BUFFER_LOCK_SHARE);
	heap_get_root_tuples(BufferGetPage(scan->buffer), map->roots);
	LockBuffer(scan->buffer, BUFFER_LOCK_UNLOCK);
	map->block = scan->block;
}

/* The TID to index the scan's current tuple under. */
static ItemPointerData
root_of_current(RootMap *map, AuroraScanDesc scan)
{
	ItemPointerData tid = scan->tuple.t_self;
	OffsetNumber offnum = ItemPointerGetOffsetNumber(&tid);

	if (!HeapTupleIsHeapOnly(&scan->tuple))
		return tid;

	/* With a weak table lock, a chain may have grown since the map was made. */
	if (!OffsetNumberIsValid(map->roots[offnum - 1]))
		root_map_read(map, scan);
	if (!OffsetNumberIsValid(map->roots[offnum - 1]))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("heap-only tuple (%u,%u) of table \"%s\" belongs to no chain",
						ItemPointerGetBlockNumber(&tid), offnum,
						RelationGetRelationName(scan->rel)),
				 errhint("Compare the table with storage: SELECT * FROM aurora.verify_pages(%u).",
						 RelationGetRelid(scan->rel))));

	ItemPointerSetOffsetNumber(&tid, map->roots[offnum - 1]);
	return tid;
}

/*
 * ---- What to index ----
 */

/* The transaction that must end before the tuple can be judged. */
static Verdict
wait_and_ask_again(BuildScan *build, TransactionId xid)
{
	LockBuffer(build->scan->buffer, BUFFER_LOCK_UNLOCK);
	XactLockTableWait(xid, build->scan->rel, &build->scan->tuple.t_self,
					  XLTW_InsertIndexUnique);
	CHECK_FOR_INTERRUPTS();
	LockBuffer(build->scan->buffer, BUFFER_LOCK_SHARE);
	return INDEX_ASK_AGAIN;
}

/*
 * The caller's table lock keeps writers out, so somebody else's change in
 * progress is a surprise, except where locks are given up before commit.
 */
static void
warn_of_concurrent_change(BuildScan *build, const char *what)
{
	if (!build->shared_catalog_rules)
		elog(WARNING, "concurrent %s in progress within table \"%s\"",
			 what, RelationGetRelationName(build->scan->rel));
}

static Verdict
judge_insert_in_progress(BuildScan *build)
{
	TransactionId xid = HeapTupleHeaderGetXmin(build->scan->tuple.t_data);

	if (build->anyvisible || TransactionIdIsCurrentTransactionId(xid))
	{
		build->live_tuples += 1;
		return INDEX_ALIVE;
	}

	warn_of_concurrent_change(build, "insert");
	/* If it rolls back there is no violation. */
	if (build->must_be_sure)
		return wait_and_ask_again(build, xid);
	return INDEX_ALIVE;
}

static Verdict
judge_delete_in_progress(BuildScan *build)
{
	HeapTuple	tuple = &build->scan->tuple;
	TransactionId xid;

	if (build->anyvisible)
	{
		build->live_tuples += 1;
		return INDEX_DEAD;
	}

	xid = HeapTupleHeaderGetUpdateXid(tuple->t_data);
	if (TransactionIdIsCurrentTransactionId(xid))
	{
		/* As good as dead: if we roll back there is no index either. */
		if (!HeapTupleIsHotUpdated(tuple))
			return INDEX_DEAD;
		build->info->ii_BrokenHotChain = true;
		return INDEX_SKIP;
	}

	warn_of_concurrent_change(build, "delete");

	/*
	 * If it rolls back, the tuple is alive: there may be a violation, and in a
	 * HOT chain this is then the member to index.
	 */
	if (build->must_be_sure || HeapTupleIsHotUpdated(tuple))
		return wait_and_ask_again(build, xid);
	build->live_tuples += 1;
	return INDEX_DEAD;
}

static Verdict
judge_locked(BuildScan *build)
{
	HeapTuple	tuple = &build->scan->tuple;

	switch (aurora_tuple_vacuum_status(tuple, build->oldest_xmin,
									   build->scan->buffer))
	{
		case HEAPTUPLE_DEAD:
			return INDEX_SKIP;

		case HEAPTUPLE_LIVE:
			build->live_tuples += 1;
			return INDEX_ALIVE;

		case HEAPTUPLE_RECENTLY_DEAD:

			/*
			 * An older snapshot may look for it through the index.  But in a
			 * HOT chain only the live member can have the entry; then such
			 * snapshots must not use the index.
			 */
			if (!HeapTupleIsHotUpdated(tuple))
				return INDEX_DEAD;
			build->info->ii_BrokenHotChain = true;
			return INDEX_SKIP;

		case HEAPTUPLE_INSERT_IN_PROGRESS:
			return judge_insert_in_progress(build);

		case HEAPTUPLE_DELETE_IN_PROGRESS:
			return judge_delete_in_progress(build);
	}
	pg_unreachable();
}

/* What is to become of the scan's current tuple? */
static Verdict
judge(BuildScan *build)
{
	Verdict		verdict;

	LockBuffer(build->scan->buffer, BUFFER_LOCK_SHARE);
	do
		verdict = judge_locked(build);
	while (verdict == INDEX_ASK_AGAIN);
	LockBuffer(build->scan->buffer, BUFFER_LOCK_UNLOCK);
	return verdict;
}

/*
 * ---- The build ----
 */

/* Report progress when it has changed. */
static void
report_blocks_done(BlockNumber done, BlockNumber *reported)
{
	if (done != *reported)
		pgstat_progress_update_param(PROGRESS_SCAN_BLOCKS_DONE, done);
	*reported = done;
}

/*
 * As table_index_build_range_scan.  scan: given by a parallel build, which
 * has chosen its snapshot by the same rule; NULL to begin one here.  Returns
 * the number of live tuples.
 */
double
aurora_index_build_range_scan(Relation heapRelation, Relation indexRelation,
							  struct IndexInfo *indexInfo, bool allow_sync,
							  bool anyvisible, bool progress,
							  BlockNumber start_blockno, BlockNumber numblocks,
							  IndexBuildCallback callback, void *callback_state,
							  TableScanDesc scan)
{
	BuildScan	build = {0};
	IndexFormer former;
	RootMap		map = {.block = InvalidBlockNumber};
	BlockNumber reported = InvalidBlockNumber;
	Snapshot	own_snapshot = NULL;
	Buffer		buffer;

	build.info = indexInfo;
	build.anyvisible = anyvisible;
	build.must_be_sure = indexInfo->ii_Unique || indexInfo->ii_ExclusionOps != NULL;
	build.shared_catalog_rules = IsSystemRelation(heapRelation);
	Assert(!(anyvisible && build.must_be_sure));

	if (!indexInfo->ii_Concurrent)
		build.oldest_xmin = GetOldestNonRemovableTransactionId(heapRelation);

	if (scan == NULL)
	{
		if (indexInfo->ii_Concurrent)
			own_snapshot = RegisterSnapshot(GetTransactionSnapshot());
		scan = table_beginscan_strat(heapRelation,
									 own_snapshot ? own_snapshot : SnapshotAny,
									 0, NULL, true, allow_sync);
	}
	build.scan = (AuroraScanDesc) scan;
	aurora_scan_for_maintenance(build.scan);
	Assert((scan->rs_snapshot == SnapshotAny) == TransactionIdIsValid(build.oldest_xmin));
	Assert(scan->rs_snapshot == SnapshotAny || !anyvisible);

	if (!allow_sync)
		aurora_scan_set_range(build.scan, start_blockno, numblocks);
	else
		Assert(start_blockno == 0 && numblocks == InvalidBlockNumber);

	if (progress)
		pgstat_progress_update_param(PROGRESS_SCAN_BLOCKS_TOTAL,
									 build.scan->nblocks);

	former_begin(&former, heapRelation, indexInfo);

	while (aurora_getnext(scan, ForwardScanDirection, &buffer) != NULL)
	{
		Verdict		verdict = INDEX_ALIVE;
		ItemPointerData tid;

		CHECK_FOR_INTERRUPTS();
		if (progress)
			report_blocks_done(aurora_scan_blocks_done(build.scan), &reported);

		if (build.scan->block != map.block)
			root_map_read(&map, build.scan);

		if (scan->rs_snapshot == SnapshotAny)
			verdict = judge(&build);
		else
			build.live_tuples += 1;

		if (verdict == INDEX_SKIP ||
			!former_form(&former, &build.scan->tuple, buffer))
			continue;

		tid = root_of_current(&map, build.scan);
		callback(indexRelation, &tid, former.values, former.isnull,
				 verdict == INDEX_ALIVE, callback_state);
	}

	if (progress)
		report_blocks_done(build.scan->nblocks, &reported);

	table_endscan(scan);
	if (own_snapshot)
		UnregisterSnapshot(own_snapshot);
	former_end(&former);
	return build.live_tuples;
}

/*
 * ---- CREATE INDEX CONCURRENTLY: the second pass ----
 */

/*
 * The TIDs that the index has, sorted, walked along with the table.  The
 * table's tuples come in the order of their own TIDs, but are looked for by
 * their root's, which may lie behind the walk, though only on the same page:
 * passed[] remembers what was passed on the current page.
 */
typedef struct IndexWalk
{
	Tuplesortstate *sorted;
	bool		at_end;
	bool		started;
	ItemPointerData tid;		/* if started and not at_end */
	bool		passed[MaxHeapTuplesPerPage];
} IndexWalk;

static void
walk_next(IndexWalk *walk)
{
	Datum		value;
	bool		isnull;

	walk->started = true;
#if PG_VERSION_NUM >= 160000
	walk->at_end = !tuplesort_getdatum(walk->sorted, true, false, &value,
									   &isnull, NULL);
#else
	walk->at_end = !tuplesort_getdatum(walk->sorted, true, &value, &isnull,
									   NULL);
#endif
	if (walk->at_end)
		return;

	Assert(!isnull);
	itemptr_decode(&walk->tid, DatumGetInt64(value));
#ifndef USE_FLOAT8_BYVAL
	pfree(DatumGetPointer(value));
#endif
}

/* Does the index have an entry for this root? */
static bool
walk_to(IndexWalk *walk, ItemPointer root)
{
	BlockNumber block = ItemPointerGetBlockNumber(root);

	while (!walk->at_end &&
		   (!walk->started || ItemPointerCompare(&walk->tid, root) < 0))
	{
		if (walk->started && ItemPointerGetBlockNumber(&walk->tid) == block)
			walk->passed[ItemPointerGetOffsetNumber(&walk->tid) - 1] = true;
		walk_next(walk);
	}

	if (!walk->at_end && ItemPointerEquals(&walk->tid, root))
		return true;
	return walk->passed[ItemPointerGetOffsetNumber(root) - 1];
}

/*
 * As table_index_validate_scan: insert what the snapshot sees and the index
 * does not have.
 */
void
aurora_index_validate_scan(Relation heapRelation, Relation indexRelation,
						   struct IndexInfo *indexInfo, Snapshot snapshot,
						   struct ValidateIndexState *state)
{
	IndexFormer former;
	RootMap		map = {.block = InvalidBlockNumber};
	IndexWalk	walk = {.sorted = state->tuplesort};
	BlockNumber reported = InvalidBlockNumber;
	AuroraScanDesc scan;
	TableScanDesc sscan;
	Buffer		buffer;

	former_begin(&former, heapRelation, indexInfo);

	/* from block 0 on, as the sorted TIDs are: no synchronized scan */
	sscan = table_beginscan_strat(heapRelation, snapshot, 0, NULL, true, false);
	scan = (AuroraScanDesc) sscan;
	aurora_scan_for_maintenance(scan);
	pgstat_progress_update_param(PROGRESS_SCAN_BLOCKS_TOTAL, scan->nblocks);

	while (aurora_getnext(sscan, ForwardScanDirection, &buffer) != NULL)
	{
		ItemPointerData root;

		CHECK_FOR_INTERRUPTS();
		state->htups += 1;
		report_blocks_done(scan->block, &reported);

		if (scan->block != map.block)
		{
			root_map_read(&map, scan);
			memset(walk.passed, 0, sizeof(walk.passed));
		}

		root = root_of_current(&map, scan);
		if (walk_to(&walk, &root) ||
			!former_form(&former, &scan->tuple, buffer))
			continue;

		/*
		 * Check uniqueness even if the tuple has been deleted since: the entry
		 * stands for the whole chain, and the update that replaced the tuple
		 * relied on it.
		 */
		index_insert(indexRelation, former.values, former.isnull, &root,
					 heapRelation,
					 indexInfo->ii_Unique ? UNIQUE_CHECK_YES : UNIQUE_CHECK_NO,
					 false, indexInfo);
		state->tups_inserted += 1;
	}

	table_endscan(sscan);
	former_end(&former);
}
