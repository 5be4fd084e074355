/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_copy.c: copies of whole tables.
 *
 *	ALTER TABLE SET TABLESPACE   page by page, TIDs stay:
 *								 aurora_relation_copy_data
 *	CLUSTER, VACUUM FULL		 row by row, TIDs change:
 *								 aurora_relation_copy_for_cluster
 *
 * Invariants:
 *  1. The new storage is made by this transaction, so an abort drops it on
 *     storage and compute alike, and nobody else reads it before the commit.
 *  2. A permanent table's new pages exist as IMAGE records only; its new main
 *     fork's file stays empty.
 *  3. The old table does not change meanwhile: AccessExclusiveLock.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/multixact.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/storage.h"
#include "catalog/storage_xlog.h"
#include "commands/progress.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "storage/smgr.h"
#include "utils/backend_progress.h"
#include "utils/tuplesort.h"

#include "am/aurora_am.h"
#include "am/aurora_rewrite.h"
#include "am/aurora_scan.h"
#include "cache/aurora_readahead.h"
#include "wal/aurora_image.h"

/* ---- page by page ----------------------------------------------------- */

/* Block order of a copy; arg: the number of blocks. */
static BlockNumber
next_to_copy(void *arg, BlockNumber after)
{
	BlockNumber nblocks = *(BlockNumber *) arg;

	return after + 1 < nblocks ? after + 1 : InvalidBlockNumber;
}

static void
copy_remote_pages(Relation rel, const RelFileNode *newrnode)
{
	BlockNumber nblocks = aurora_nblocks(rel);
	BufferAccessStrategy ring = GetAccessStrategy(BAS_BULKREAD);
	AuroraAhead ahead;
	PGAlignedBlock page;

	aurora_size_created(newrnode);
	aurora_ahead_init(&ahead, rel, CurrentMemoryContext, true, next_to_copy,
					  &nblocks);
	for (BlockNumber blk = 0; blk < nblocks; blk++)
	{
		Buffer		buffer;

		CHECK_FOR_INTERRUPTS();
		buffer = aurora_ahead_read(&ahead, blk, ring);
		LockBuffer(buffer, BUFFER_LOCK_SHARE);
		memcpy(page.data, BufferGetPage(buffer), BLCKSZ);
		UnlockReleaseBuffer(buffer);
		aurora_log_page_image(newrnode, blk, page.data);
	}
	aurora_ahead_end(&ahead);
	FreeAccessStrategy(ring);
}

/* Copy a fork that lives in a local file. */
static void
copy_local_fork(Relation rel, SMgrRelation dst, const RelFileNode *newrnode,
				ForkNumber fork)
{
	char		persistence = rel->rd_rel->relpersistence;

	if (fork != MAIN_FORKNUM)
	{
		smgrcreate(dst, fork, false);
		if (persistence == RELPERSISTENCE_PERMANENT ||
			(persistence == RELPERSISTENCE_UNLOGGED && fork == INIT_FORKNUM))
			log_smgrcreate(newrnode, fork);
	}
	RelationCopyStorage(RelationGetSmgr(rel), dst, fork, persistence);
}

void
aurora_relation_copy_data(Relation rel, const RelFileNode *newrnode)
{
	SMgrRelation dst;

	/* Local forks are copied file to file: bring the files up to date.  (Of a
	 * remote main fork no buffer is dirty.) */
	FlushRelationBuffers(rel);

	dst = RelationCreateStorage(*newrnode, rel->rd_rel->relpersistence, true);
	if (aurora_rel_is_remote(rel))
		copy_remote_pages(rel, newrnode);
	else
		copy_local_fork(rel, dst, newrnode, MAIN_FORKNUM);
	for (ForkNumber fork = MAIN_FORKNUM + 1; fork <= MAX_FORKNUM; fork++)
		if (smgrexists(RelationGetSmgr(rel), fork))
			copy_local_fork(rel, dst, newrnode, fork);

	RelationDropStorage(rel);
	smgrclose(dst);
}

/* ---- row by row ------------------------------------------------------- */

typedef struct ClusterCopy
{
	Relation	old_rel;
	Relation	new_rel;
	TransactionId oldest_xmin;
	AuroraRewrite *rewrite;
	Tuplesortstate *sort;		/* or NULL */
	Datum	   *values;
	bool	   *isnull;
	double		ntuples;		/* to be copied */
	double		nremoved;
	double		nrecently_dead;
} ClusterCopy;

/* Hand the tuple on in the new table's shape: dropped columns become null,
 * missing ones are filled in. */
static void
copy_tuple(ClusterCopy *c, HeapTuple tuple)
{
	TupleDesc	new_desc = RelationGetDescr(c->new_rel);
	HeapTuple	copy;

	heap_deform_tuple(tuple, RelationGetDescr(c->old_rel), c->values, c->isnull);
	for (int i = 0; i < new_desc->natts; i++)
		if (TupleDescAttr(new_desc, i)->attisdropped)
			c->isnull[i] = true;
	copy = heap_form_tuple(new_desc, c->values, c->isnull);
	aurora_rewrite_tuple(c->rewrite, tuple, copy);
	heap_freetuple(copy);
}

/* With the exclusive lock held only our own transaction can have tuples in
 * progress. */
static void
warn_if_foreign(ClusterCopy *c, TransactionId xid, const char *what)
{
	if (!TransactionIdIsCurrentTransactionId(xid))
		ereport(WARNING,
				(errmsg_internal("concurrent %s in progress within table \"%s\"",
								 what, RelationGetRelationName(c->old_rel))));
}

/* Must the tuple be copied?  Takes and releases the share lock. */
static bool
wanted(ClusterCopy *c, HeapTuple tuple, Buffer buffer)
{
	HTSV_Result status;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	status = aurora_tuple_vacuum_status(tuple, c->oldest_xmin, buffer);
	LockBuffer(buffer, BUFFER_LOCK_UNLOCK);

	switch (status)
	{
		case HEAPTUPLE_DEAD:
			return false;
		case HEAPTUPLE_LIVE:
			break;
		case HEAPTUPLE_RECENTLY_DEAD:
			c->nrecently_dead++;
			break;
		case HEAPTUPLE_INSERT_IN_PROGRESS:
			warn_if_foreign(c, HeapTupleHeaderGetXmin(tuple->t_data), "insert");
			break;
		case HEAPTUPLE_DELETE_IN_PROGRESS:
			warn_if_foreign(c, HeapTupleHeaderGetUpdateXid(tuple->t_data), "delete");
			c->nrecently_dead++;
			break;
	}
	return true;
}

static void
take_tuple(ClusterCopy *c, HeapTuple tuple, Buffer buffer)
{
	if (!wanted(c, tuple, buffer))
	{
		c->nremoved++;
		if (aurora_rewrite_dead_tuple(c->rewrite, tuple))
		{
			/* an older version had been counted as recently dead */
			c->nremoved++;
			c->nrecently_dead--;
		}
		return;
	}

	c->ntuples++;
	if (c->sort != NULL)
	{
		tuplesort_putheaptuple(c->sort, tuple);
		pgstat_progress_update_param(PROGRESS_CLUSTER_HEAP_TUPLES_SCANNED,
									 (int64) c->ntuples);
	}
	else
	{
		const int	params[] = {
			PROGRESS_CLUSTER_HEAP_TUPLES_SCANNED,
			PROGRESS_CLUSTER_HEAP_TUPLES_WRITTEN
		};
		const int64 values[] = {(int64) c->ntuples, (int64) c->ntuples};

		copy_tuple(c, tuple);
		pgstat_progress_update_multi_param(2, params, values);
	}
}

/* SnapshotAny: recently dead versions are wanted as well. */
static void
scan_by_index(ClusterCopy *c, Relation index)
{
	const int	params[] = {
		PROGRESS_CLUSTER_PHASE,
		PROGRESS_CLUSTER_INDEX_RELID
	};
	const int64 values[] = {
		PROGRESS_CLUSTER_PHASE_INDEX_SCAN_HEAP,
		RelationGetRelid(index)
	};
	TupleTableSlot *slot = table_slot_create(c->old_rel, NULL);
	IndexScanDesc scan;

	pgstat_progress_update_multi_param(2, params, values);
	scan = index_beginscan(c->old_rel, index, SnapshotAny, 0, 0);
	index_rescan(scan, NULL, 0, NULL, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		if (scan->xs_recheck)
			elog(ERROR, "CLUSTER does not support lossy index conditions");
		take_tuple(c, ExecFetchSlotHeapTuple(slot, false, NULL),
				   ((BufferHeapTupleTableSlot *) slot)->buffer);
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
}

static void
scan_by_block(ClusterCopy *c)
{
	BlockNumber nblocks = aurora_nblocks(c->old_rel);
	BlockNumber reported = InvalidBlockNumber;
	TableScanDesc scan;
	HeapTuple	tuple;
	Buffer		buffer;

	pgstat_progress_update_param(PROGRESS_CLUSTER_PHASE,
								 PROGRESS_CLUSTER_PHASE_SEQ_SCAN_HEAP);
	pgstat_progress_update_param(PROGRESS_CLUSTER_TOTAL_HEAP_BLKS, nblocks);

	/* Not synchronised with other scans: there are none, and VACUUM FULL
	 * keeps the rows in order. */
	scan = table_beginscan_strat(c->old_rel, SnapshotAny, 0, NULL, true, false);
	aurora_scan_for_maintenance((AuroraScanDesc) scan);
	while ((tuple = aurora_getnext(scan, ForwardScanDirection, &buffer)) != NULL)
	{
		BlockNumber blk = ItemPointerGetBlockNumber(&tuple->t_self);

		CHECK_FOR_INTERRUPTS();
		if (blk != reported)
			pgstat_progress_update_param(PROGRESS_CLUSTER_HEAP_BLKS_SCANNED,
										 blk + 1);
		reported = blk;
		take_tuple(c, tuple, buffer);
	}
	table_endscan(scan);
	pgstat_progress_update_param(PROGRESS_CLUSTER_HEAP_BLKS_SCANNED, nblocks);
}

static void
write_sorted(ClusterCopy *c)
{
	double		nwritten = 0;
	HeapTuple	tuple;

	pgstat_progress_update_param(PROGRESS_CLUSTER_PHASE,
								 PROGRESS_CLUSTER_PHASE_SORT_TUPLES);
	tuplesort_performsort(c->sort);
	pgstat_progress_update_param(PROGRESS_CLUSTER_PHASE,
								 PROGRESS_CLUSTER_PHASE_WRITE_NEW_HEAP);
	while ((tuple = tuplesort_getheaptuple(c->sort, true)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		copy_tuple(c, tuple);
		nwritten++;
		pgstat_progress_update_param(PROGRESS_CLUSTER_HEAP_TUPLES_WRITTEN,
									 (int64) nwritten);
	}
	tuplesort_end(c->sort);
}

void
aurora_relation_copy_for_cluster(Relation OldTable, Relation NewTable,
								 Relation OldIndex, bool use_sort,
								 TransactionId OldestXmin,
								 TransactionId *xid_cutoff,
								 MultiXactId *multi_cutoff,
								 double *num_tuples, double *tups_vacuumed,
								 double *tups_recently_dead)
{
	ClusterCopy c = {0};
	int			natts = RelationGetDescr(NewTable)->natts;

	aurora_vacuum_clamp_cutoffs(OldTable, &OldestXmin, xid_cutoff);
	c.old_rel = OldTable;
	c.new_rel = NewTable;
	c.oldest_xmin = OldestXmin;
	c.values = palloc(natts * sizeof(Datum));
	c.isnull = palloc(natts * sizeof(bool));
	c.rewrite = aurora_rewrite_begin(OldTable, NewTable, OldestXmin,
									 *xid_cutoff, *multi_cutoff);
	if (use_sort)
		c.sort = tuplesort_begin_cluster(RelationGetDescr(OldTable), OldIndex,
										 maintenance_work_mem, NULL,
										 TUPLESORT_NONE);

	if (OldIndex != NULL && !use_sort)
		scan_by_index(&c, OldIndex);
	else
		scan_by_block(&c);
	if (c.sort != NULL)
		write_sorted(&c);
	aurora_rewrite_end(c.rewrite);

	*num_tuples += c.ntuples;
	*tups_vacuumed += c.nremoved;
	*tups_recently_dead += c.nrecently_dead;
	pfree(c.values);
	pfree(c.isnull);
}
