/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_am.h: what the files of the table access method share.
 *
 * Tuples and pages have heap's format (HeapTupleHeader in standard pages,
 * HOT chains, line pointer redirects), so that stock slots
 * (TTSOpsBufferHeapTuple), index AMs and TIDs work as they are.  What differs
 * from heap is who may touch a page: pages are read with aurora_read_buffer,
 * changed through aurora_change_*, and hint bits are set by
 * aurora_set_hint_bits, because no stock function that marks a buffer dirty
 * may be called.
 *
 * Lock order on pages: lower block first; pins before locks; visibility map
 * pages are pinned before any content lock and locked inside
 * aurora_change_commit.
 */
#ifndef AURORA_AM_H
#define AURORA_AM_H

#include "postgres.h"

#include "access/heapam.h"
#include "access/hio.h"
#include "access/htup_details.h"
#include "access/relscan.h"
#include "access/tableam.h"
#include "utils/snapshot.h"

#include "cache/aurora_pagecache.h"
#include "wal/aurora_change.h"

/* ---- aurora_handler.c ---- */
extern const TableAmRoutine *aurora_table_routine(void);
extern bool aurora_is_aurora_rel(Relation rel); /* rd_tableam is ours */

/* ---- aurora_visibility.c: the stock rules (heapam_visibility.c) without
 * marking buffers dirty.  Buffer content lock (share or more) held. ---- */
extern void aurora_set_hint_bits(HeapTupleHeader tuple, Buffer buffer,
								 uint16 infomask, TransactionId xid);
extern bool aurora_tuple_visible(HeapTuple htup, Snapshot snapshot, Buffer buffer);
extern TM_Result aurora_tuple_satisfies_update(HeapTuple htup, CommandId curcid,
											   Buffer buffer);
extern HTSV_Result aurora_tuple_vacuum_status(HeapTuple htup, TransactionId oldest_xmin,
											  Buffer buffer);
extern HTSV_Result aurora_tuple_vacuum_horizon(HeapTuple htup, TransactionId *dead_after,
											   Buffer buffer);

/* SSI: as HeapCheckForSerializableConflictOut, without dirtying. */
extern void aurora_serializable_conflict_out(bool visible, Relation rel, HeapTuple tuple,
											 Buffer buffer, Snapshot snapshot);

/* ---- aurora_fetch.c: by TID, through HOT chains ---- */
extern bool aurora_hot_search_buffer(ItemPointer tid, Relation rel, Buffer buffer,
									 Snapshot snapshot, HeapTuple heapTuple,
									 bool *all_dead, bool first_call);
/* As heap_fetch: tuple->t_self in; buffer stays pinned on success. With
 * keep_buf also when the tuple exists but is not visible. */
extern bool aurora_fetch(Relation rel, Snapshot snapshot, HeapTuple tuple,
						 Buffer *userbuf, bool keep_buf);
extern void aurora_get_latest_tid(TableScanDesc scan, ItemPointer tid);

/* ---- aurora_hio.c ---- */
/*
 * A page with at least len free bytes (fillfactor respected), as heap's
 * RelationGetBufferForTuple: returned pinned and exclusively locked; if
 * otherBuffer is given it is locked too (caller has it pinned), in block
 * order, and the VM buffers of pages that are all-visible are pinned.
 */
extern Buffer aurora_page_for_tuple(Relation rel, Size len, Buffer otherBuffer,
									int options, BulkInsertState bistate,
									Buffer *vmbuffer, Buffer *vmbuffer_other);

/* ---- aurora_insert.c ---- */
extern void aurora_insert(Relation rel, HeapTuple tup, CommandId cid, int options,
						  BulkInsertState bistate);
extern void aurora_multi_insert(Relation rel, TupleTableSlot **slots, int ntuples,
								CommandId cid, int options, BulkInsertState bistate);
extern void aurora_finish_speculative(Relation rel, ItemPointer tid);
extern void aurora_abort_speculative(Relation rel, ItemPointer tid);

/* ---- aurora_delete.c, aurora_update.c, aurora_lock.c: as their heap_
 * namesakes (heap_delete, heap_update, heap_lock_tuple) ---- */
extern TM_Result aurora_delete(Relation rel, ItemPointer tid, CommandId cid,
							   Snapshot crosscheck, bool wait,
							   TM_FailureData *tmfd, bool changingPart);
extern TM_Result aurora_update(Relation rel, ItemPointer otid, HeapTuple newtup,
							   CommandId cid, Snapshot crosscheck, bool wait,
							   TM_FailureData *tmfd, LockTupleMode *lockmode,
							   bool *update_indexes);
extern TM_Result aurora_lock_tuple(Relation rel, HeapTuple tuple, CommandId cid,
								   LockTupleMode mode, LockWaitPolicy wait_policy,
								   bool follow_updates, Buffer *buffer,
								   TM_FailureData *tmfd);
extern void aurora_simple_delete(Relation rel, ItemPointer tid);	/* toast */

/* ---- aurora_toast.c ---- */
extern HeapTuple aurora_toast_insert_or_update(Relation rel, HeapTuple newtup,
											   HeapTuple oldtup, int options);
extern void aurora_toast_delete(Relation rel, HeapTuple oldtup, bool is_speculative);

/* ---- aurora_scan.c: sequential, parallel, TID range, bitmap, sample,
 * analyze ---- */
typedef struct AuroraScanDescData AuroraScanDescData;
extern TableScanDesc aurora_beginscan(Relation rel, Snapshot snapshot, int nkeys,
									  struct ScanKeyData *key,
									  ParallelTableScanDesc pscan, uint32 flags);
extern void aurora_rescan(TableScanDesc sscan, struct ScanKeyData *key, bool set_params,
						  bool allow_strat, bool allow_sync, bool allow_pagemode);
extern void aurora_endscan(TableScanDesc sscan);
extern bool aurora_getnextslot(TableScanDesc sscan, ScanDirection direction,
							   TupleTableSlot *slot);
extern void aurora_set_tidrange(TableScanDesc sscan, ItemPointer mintid, ItemPointer maxtid);
extern bool aurora_getnextslot_tidrange(TableScanDesc sscan, ScanDirection direction,
										TupleTableSlot *slot);
extern bool aurora_scan_bitmap_next_block(TableScanDesc scan, struct TBMIterateResult *tbmres);
extern bool aurora_scan_bitmap_next_tuple(TableScanDesc scan, struct TBMIterateResult *tbmres,
										  TupleTableSlot *slot);
/* From _PG_init. */
extern void aurora_scan_bitmap_install(void);
extern bool aurora_scan_sample_next_block(TableScanDesc scan, struct SampleScanState *scanstate);
extern bool aurora_scan_sample_next_tuple(TableScanDesc scan, struct SampleScanState *scanstate,
										  TupleTableSlot *slot);
extern bool aurora_scan_analyze_next_block(TableScanDesc scan, BlockNumber blockno,
										   BufferAccessStrategy bstrategy);
extern bool aurora_scan_analyze_next_tuple(TableScanDesc scan, TransactionId OldestXmin,
										   double *liverows, double *deadrows,
										   TupleTableSlot *slot);
/* Next raw tuple of a scan, NULL at the end; the tuple points into the
 * scan's pinned buffer *buffer.  For index builds and copies with SnapshotAny. */
extern HeapTuple aurora_getnext(TableScanDesc sscan, ScanDirection direction, Buffer *buffer);

/* ---- aurora_index_build.c ---- */
struct IndexInfo;
struct ValidateIndexState;
extern double aurora_index_build_range_scan(Relation heapRelation, Relation indexRelation,
											struct IndexInfo *indexInfo, bool allow_sync,
											bool anyvisible, bool progress,
											BlockNumber start_blockno, BlockNumber numblocks,
											IndexBuildCallback callback,
											void *callback_state, TableScanDesc scan);
extern void aurora_index_validate_scan(Relation heapRelation, Relation indexRelation,
									   struct IndexInfo *indexInfo, Snapshot snapshot,
									   struct ValidateIndexState *state);

/* ---- aurora_prune.c ---- */
/* Prune the page if it looks worth it and a cleanup lock is to be had at
 * once.  Buffer pinned, not locked. */
extern void aurora_prune_opt(Relation rel, Buffer buffer);
/* Prune now; cleanup lock held.  Returns the number of tuples removed;
 * *nnewlpdead the line pointers that became LP_DEAD; *off_loc for error
 * context, may be NULL.  oldest_xmin (VACUUM's cutoff, else
 * InvalidTransactionId): what died before it is removed whatever vistest
 * says. */
struct GlobalVisState;
extern int	aurora_page_prune(Relation rel, Buffer buffer, TransactionId oldest_xmin,
							  struct GlobalVisState *vistest,
							  int *nnewlpdead, OffsetNumber *off_loc);

/* ---- aurora_index_delete.c: as heap_index_delete_tuples ---- */
extern TransactionId aurora_index_delete_tuples(Relation rel, TM_IndexDeleteOp *delstate);

/* ---- aurora_vacuum.c ---- */
struct VacuumParams;
extern void aurora_vacuum_rel(Relation rel, struct VacuumParams *params,
							  BufferAccessStrategy bstrategy);
/* With old_snapshot_threshold the server's cutoffs may lie ahead of running
 * snapshots, and our readers don't check for that: take back to safe values. */
extern void aurora_vacuum_clamp_cutoffs(Relation rel, TransactionId *oldest_xmin,
										TransactionId *freeze_limit);

/* ---- aurora_copy.c: whole-relation copies ---- */
extern void aurora_relation_copy_data(Relation rel, const RelFileNode *newrnode);
extern void aurora_relation_copy_for_cluster(Relation OldTable, Relation NewTable,
											 Relation OldIndex, bool use_sort,
											 TransactionId OldestXmin,
											 TransactionId *xid_cutoff,
											 MultiXactId *multi_cutoff,
											 double *num_tuples, double *tups_vacuumed,
											 double *tups_recently_dead);

#endif							/* AURORA_AM_H */
