/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_handler.c: the table access method's routine: which function of ours
 * serves which callback of access/tableam.h, and the callbacks that are only
 * a few lines.
 *
 * Invariants:
 *  1. Writers pass aurora_ship_throttle() before they hold any lock on a
 *     page, so the log that storage has not got yet stays bounded.
 *  2. No permanent aurora table comes into being before the log is kept for
 *     storage (aurora_ship_require_ready).
 */
#include "postgres.h"

#include "access/heaptoast.h"
#include "access/multixact.h"
#include "access/tableam.h"
#include "catalog/catalog.h"
#include "catalog/storage.h"
#include "catalog/storage_xlog.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "postmaster/bgworker.h"
#include "storage/smgr.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "am/aurora_am.h"
#include "am/aurora_scan.h"
#include "am/aurora_fetch.h"
#include "am/aurora_tuple_lock.h"
#include "module/aurora_module.h"
#include "ship/aurora_ship.h"

PG_FUNCTION_INFO_V1(aurora_tableam_handler);

/* ---- slots ---- */

static const TupleTableSlotOps *
slot_callbacks(Relation rel)
{
	return &TTSOpsBufferHeapTuple;
}

/* ---- writing: slots in, tuples on ---- */

static inline void
throttle(Relation rel)
{
	if (aurora_rel_is_remote(rel))
		aurora_ship_throttle();
}

/* The slot's tuple, stamped with the table; *should_free as for
 * ExecFetchSlotHeapTuple. */
static HeapTuple
slot_tuple(Relation rel, TupleTableSlot *slot, bool *should_free)
{
	HeapTuple	tuple = ExecFetchSlotHeapTuple(slot, true, should_free);

	slot->tts_tableOid = RelationGetRelid(rel);
	tuple->t_tableOid = slot->tts_tableOid;
	return tuple;
}

static void
tuple_insert(Relation rel, TupleTableSlot *slot, CommandId cid, int options,
			 BulkInsertState bistate)
{
	bool		should_free;
	HeapTuple	tuple;

	throttle(rel);
	tuple = slot_tuple(rel, slot, &should_free);
	aurora_insert(rel, tuple, cid, options, bistate);
	slot->tts_tid = tuple->t_self;
	if (should_free)
		pfree(tuple);
}

static void
tuple_insert_speculative(Relation rel, TupleTableSlot *slot, CommandId cid,
						 int options, BulkInsertState bistate, uint32 token)
{
	bool		should_free;
	HeapTuple	tuple;

	throttle(rel);
	tuple = slot_tuple(rel, slot, &should_free);
	HeapTupleHeaderSetSpeculativeToken(tuple->t_data, token);
	aurora_insert(rel, tuple, cid, options | HEAP_INSERT_SPECULATIVE, bistate);
	slot->tts_tid = tuple->t_self;
	if (should_free)
		pfree(tuple);
}

static void
tuple_complete_speculative(Relation rel, TupleTableSlot *slot, uint32 token,
						   bool succeeded)
{
	if (succeeded)
		aurora_finish_speculative(rel, &slot->tts_tid);
	else
		aurora_abort_speculative(rel, &slot->tts_tid);
}

static void
multi_insert(Relation rel, TupleTableSlot **slots, int nslots, CommandId cid,
			 int options, BulkInsertState bistate)
{
	throttle(rel);
	aurora_multi_insert(rel, slots, nslots, cid, options, bistate);
}

static TM_Result
tuple_delete(Relation rel, ItemPointer tid, CommandId cid, Snapshot snapshot,
			 Snapshot crosscheck, bool wait, TM_FailureData *tmfd,
			 bool changing_part)
{
	throttle(rel);
	return aurora_delete(rel, tid, cid, crosscheck, wait, tmfd, changing_part);
}

static TM_Result
tuple_update(Relation rel, ItemPointer otid, TupleTableSlot *slot,
			 CommandId cid, Snapshot snapshot, Snapshot crosscheck, bool wait,
			 TM_FailureData *tmfd, LockTupleMode *lockmode,
			 bool *update_indexes)
{
	bool		should_free;
	HeapTuple	tuple;
	TM_Result	result;

	throttle(rel);
	tuple = slot_tuple(rel, slot, &should_free);
	result = aurora_update(rel, otid, tuple, cid, crosscheck, wait, tmfd,
						   lockmode, update_indexes);
	slot->tts_tid = tuple->t_self;
	if (should_free)
		pfree(tuple);
	return result;
}

static TM_Result
tuple_lock(Relation rel, ItemPointer tid, Snapshot snapshot,
		   TupleTableSlot *slot, CommandId cid, LockTupleMode mode,
		   LockWaitPolicy wait_policy, uint8 flags, TM_FailureData *tmfd)
{
	throttle(rel);
	return aurora_tuple_lock(rel, tid, snapshot, slot, cid, mode, wait_policy,
							 flags, tmfd);
}

/* ---- DDL ---- */

static void
relation_set_new_filenode(Relation rel, const RelFileNode *newrnode,
						  char persistence, TransactionId *freeze_xid,
						  MultiXactId *min_multi)
{
	SMgrRelation smgr;

	if (persistence == RELPERSISTENCE_PERMANENT)
		aurora_ship_require_ready();

	/* nothing older can get into a table that is only just made */
	*freeze_xid = RecentXmin;
	*min_multi = GetOldestMultiXactId();

	smgr = RelationCreateStorage(*newrnode, persistence, true);
	if (persistence == RELPERSISTENCE_PERMANENT)
		aurora_size_created(newrnode);
	else if (persistence == RELPERSISTENCE_UNLOGGED)
	{
		/*
		 * After a crash the empty init fork becomes the table.  Its file is
		 * made behind the back of shared_buffers and checkpoints, hence the
		 * record and the immediate sync.
		 */
		smgrcreate(smgr, INIT_FORKNUM, false);
		log_smgrcreate(newrnode, INIT_FORKNUM);
		smgrimmedsync(smgr, INIT_FORKNUM);
	}
	smgrclose(smgr);
}

static void
relation_nontransactional_truncate(Relation rel)
{
	aurora_truncate(rel, 0);
}

/* ---- sizes ---- */

/*
 * pg_prewarm's worker that loads what was cached before a restart reads with
 * stock functions, which would fail at our first block and give up on the
 * database.  It leaves out blocks beyond a relation's end.
 */
static bool
in_autoprewarm(void)
{
	return MyBgworkerEntry != NULL &&
		strcmp(MyBgworkerEntry->bgw_function_name,
			   "autoprewarm_database_main") == 0;
}

static uint64
fork_bytes(Relation rel, ForkNumber fork)
{
	if (fork == MAIN_FORKNUM && aurora_rel_is_remote(rel) && in_autoprewarm())
		return 0;
	if (fork == MAIN_FORKNUM)
		return (uint64) aurora_nblocks(rel) * BLCKSZ;
	if (!smgrexists(RelationGetSmgr(rel), fork))
		return 0;
	return (uint64) smgrnblocks(RelationGetSmgr(rel), fork) * BLCKSZ;
}

static uint64
relation_size(Relation rel, ForkNumber fork)
{
	uint64		bytes = 0;

	if (fork != InvalidForkNumber)
	{
		if (fork == MAIN_FORKNUM)
			aurora_scan_size_asked(rel);
		return fork_bytes(rel, fork);
	}
	for (int f = MAIN_FORKNUM; f <= MAX_FORKNUM; f++)
		bytes += fork_bytes(rel, f);
	return bytes;
}

static void
relation_estimate_size(Relation rel, int32 *attr_widths, BlockNumber *pages,
					   double *tuples, double *allvisfrac)
{
	table_block_relation_estimate_size(rel, attr_widths, pages, tuples,
									   allvisfrac,
									   MAXALIGN(SizeofHeapTupleHeader) +
									   sizeof(ItemIdData),
									   BLCKSZ - SizeOfPageHeaderData);
}

/* ---- TOAST ---- */

/*
 * A table needs a TOAST table if a row of it may get longer than what is kept
 * in line and there is a column whose values can be moved out.
 */
static bool
relation_needs_toast_table(Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);
	Size		header = SizeofHeapTupleHeader + BITMAPLEN(desc->natts);
	Size		data = 0;
	bool		toastable = false;
	bool		unbounded = false;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		int32		width;

		if (att->attisdropped)
			continue;
		data = att_align_nominal(data, att->attalign);
		width = att->attlen > 0 ? att->attlen :
			type_maximum_size(att->atttypid, att->atttypmod);
		if (width < 0)
			unbounded = true;
		else
			data += width;
		if (att->attlen < 0 && att->attstorage != TYPSTORAGE_PLAIN)
			toastable = true;
	}
	if (!toastable)
		return false;
	return unbounded ||
		MAXALIGN(header) + MAXALIGN(data) > TOAST_TUPLE_THRESHOLD;
}

/* The TOAST table of an aurora table is an aurora table. */
static Oid
relation_toast_am(Relation rel)
{
	return rel->rd_rel->relam;
}

/* ---- the routine ---- */

static const TableAmRoutine aurora_routine = {
	.type = T_TableAmRoutine,

	.slot_callbacks = slot_callbacks,

	.scan_begin = aurora_beginscan,
	.scan_end = aurora_endscan,
	.scan_rescan = aurora_rescan,
	.scan_getnextslot = aurora_getnextslot,
	.scan_set_tidrange = aurora_set_tidrange,
	.scan_getnextslot_tidrange = aurora_getnextslot_tidrange,

	.parallelscan_estimate = table_block_parallelscan_estimate,
	.parallelscan_initialize = table_block_parallelscan_initialize,
	.parallelscan_reinitialize = table_block_parallelscan_reinitialize,

	.index_fetch_begin = aurora_index_fetch_begin,
	.index_fetch_reset = aurora_index_fetch_reset,
	.index_fetch_end = aurora_index_fetch_end,
	.index_fetch_tuple = aurora_index_fetch_tuple,

	.tuple_fetch_row_version = aurora_fetch_row_version,
	.tuple_tid_valid = aurora_tid_valid,
	.tuple_get_latest_tid = aurora_get_latest_tid,
	.tuple_satisfies_snapshot = aurora_tuple_satisfies_snapshot,
	.index_delete_tuples = aurora_index_delete_tuples,

	.tuple_insert = tuple_insert,
	.tuple_insert_speculative = tuple_insert_speculative,
	.tuple_complete_speculative = tuple_complete_speculative,
	.multi_insert = multi_insert,
	.tuple_delete = tuple_delete,
	.tuple_update = tuple_update,
	.tuple_lock = tuple_lock,

	.relation_set_new_filenode = relation_set_new_filenode,
	.relation_nontransactional_truncate = relation_nontransactional_truncate,
	.relation_copy_data = aurora_relation_copy_data,
	.relation_copy_for_cluster = aurora_relation_copy_for_cluster,
	.relation_vacuum = aurora_vacuum_rel,
	.scan_analyze_next_block = aurora_scan_analyze_next_block,
	.scan_analyze_next_tuple = aurora_scan_analyze_next_tuple,
	.index_build_range_scan = aurora_index_build_range_scan,
	.index_validate_scan = aurora_index_validate_scan,

	.relation_size = relation_size,
	.relation_needs_toast_table = relation_needs_toast_table,
	.relation_toast_am = relation_toast_am,
	/* reads chunks through their index and the table AM: stock's will do */
	.relation_fetch_toast_slice = heap_fetch_toast_slice,

	.relation_estimate_size = relation_estimate_size,

	.scan_bitmap_next_block = aurora_scan_bitmap_next_block,
	.scan_bitmap_next_tuple = aurora_scan_bitmap_next_tuple,
	.scan_sample_next_block = aurora_scan_sample_next_block,
	.scan_sample_next_tuple = aurora_scan_sample_next_tuple
};

const TableAmRoutine *
aurora_table_routine(void)
{
	return &aurora_routine;
}

bool
aurora_is_aurora_rel(Relation rel)
{
	return rel->rd_tableam == &aurora_routine;
}

Datum
aurora_tableam_handler(PG_FUNCTION_ARGS)
{
	aurora_require_preloaded();
	PG_RETURN_POINTER(&aurora_routine);
}
