/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_vacuum_scan.c: VACUUM's first pass over the table.
 *
 *	plan a batch of pages (visibility map), read it in runs
 *	  for each page:
 *		cleanup lock?  yes: prune, freeze, remember LP_DEAD, set VM bits
 *					   no:  remember LP_DEAD, count (unless something must be
 *							frozen now: then wait for the lock)
 *	store full, or end of the table: reap (aurora_vacuum_reap.c)
 *
 * Invariants:
 *  1. Every page below rel_pages that may hold an xid before oldest_xmin is
 *     looked at, or skipped_allvisible is set; new_frozenxid and new_minmxid
 *     are no newer than any xid left in the pages looked at.
 *  2. Page content changes only through aurora_change_*: prune, freeze and
 *     VISIBLE records.
 *  3. A page is marked all-visible only under its exclusive lock, when all its
 *     tuples are hinted committed and older than oldest_xmin.
 *  4. No wait for storage, and none for the log's way to storage, while a page
 *     is locked.
 *
 * Decisions taken from the visibility map may be stale by a batch: another
 * backend may clear a bit at any time.  That is harmless for skipping (what
 * changed after oldest_xmin was fixed has newer xids), and setting or
 * repairing bits looks at the map again under the page's lock.
 */
#include "postgres.h"

#include "access/heapam_xlog.h"
#include "access/multixact.h"
#include "access/transam.h"
#include "commands/progress.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/freespace.h"
#include "utils/backend_progress.h"

#include "am/aurora_vacuum_private.h"
#include "module/aurora_guc.h"
#include "ship/aurora_ship.h"

/* A run of skippable pages shorter than this is read all the same: it lets
 * relfrozenxid advance more often and keeps reads in runs. */
#define SKIP_RUN_MIN 32

/* Pages planned together: full when BATCH_FULL is reached, and planning adds
 * at most a short run and the page behind it at a time. */
#define BATCH_FULL 1024
#define BATCH_MAX (BATCH_FULL - 1 + SKIP_RUN_MIN)

/* How often to look whether wraparound has come near. */
#define FAILSAFE_EVERY_PAGES \
	((BlockNumber) ((UINT64CONST(4) * 1024 * 1024 * 1024) / BLCKSZ))

/* Without indexes: how often upper levels of the free space map are brought
 * up to date.  With indexes each round of reaping does it. */
#define FSM_EVERY_PAGES \
	((BlockNumber) ((UINT64CONST(8) * 1024 * 1024 * 1024) / BLCKSZ))

typedef struct ScanState
{
	AuroraVacuum *v;
	BlockNumber next;			/* first page not planned yet */
	BlockNumber batch[BATCH_MAX];
	int			batch_len;
	int			looked;			/* entries of the batch looked at ahead */
	AuroraAhead ahead;
	Buffer		vmbuffer;
	BlockNumber fsm_done;		/* upper FSM levels are right below this */
	BlockNumber failsafe_done;
} ScanState;

/* What pruning and freezing found out about a page. */
typedef struct PageResult
{
	bool		has_tuples;		/* stands in the way of truncation */
	bool		all_visible;
	bool		all_frozen;		/* means something only if all_visible */
	TransactionId cutoff_xid;	/* newest xmin, if all_visible */
	int			nlpdead;
	OffsetNumber lpdead[MaxHeapTuplesPerPage];
} PageResult;

/* ---- which pages ------------------------------------------------------ */

/*
 * First page at or after `blk` that must be read.  There is always one: the
 * last page is read in any case, because whether it has tuples decides about
 * truncation, which takes a heavy lock.  *allvisible_only is set if some page
 * before it is all-visible but not all-frozen.
 */
static BlockNumber
next_required_page(ScanState *s, BlockNumber blk, bool *allvisible_only)
{
	AuroraVacuum *v = s->v;

	for (; blk < v->rel_pages - 1; blk++)
	{
		uint8		bits = visibilitymap_get_status(v->rel, blk, &s->vmbuffer);

		if ((bits & VISIBILITYMAP_ALL_VISIBLE) == 0 || !v->skip_with_vm)
			break;
		if ((bits & VISIBILITYMAP_ALL_FROZEN) == 0)
		{
			if (v->aggressive)
				break;
			*allvisible_only = true;
		}
		vacuum_delay_point();
	}
	return blk;
}

/* Fill the batch; false when the table's end was reached before. */
static bool
plan_batch(ScanState *s)
{
	AuroraVacuum *v = s->v;

	s->batch_len = 0;
	s->looked = 0;
	while (s->next < v->rel_pages && s->batch_len < BATCH_FULL)
	{
		bool		allvisible_only = false;
		BlockNumber required = next_required_page(s, s->next, &allvisible_only);
		BlockNumber first = required;

		if (required - s->next < SKIP_RUN_MIN)
			first = s->next;
		else if (allvisible_only)
			v->skipped_allvisible = true;
		for (BlockNumber blk = first; blk <= required; blk++)
			s->batch[s->batch_len++] = blk;
		s->next = required + 1;
	}
	Assert(s->batch_len <= BATCH_MAX);
	return s->batch_len > 0;
}

/* Read-ahead goes through the batch. */
static BlockNumber
next_in_batch(void *arg, BlockNumber after)
{
	ScanState  *s = arg;

	while (s->looked < s->batch_len && s->batch[s->looked] <= after)
		s->looked++;
	return s->looked < s->batch_len ? s->batch[s->looked] : InvalidBlockNumber;
}

/* ---- visibility ------------------------------------------------------- */

void
aurora_vacuum_set_visible(AuroraVacuum *v, Buffer buffer, Buffer vmbuffer,
						  TransactionId cutoff_xid, uint8 vmbits)
{
	AuroraChange *change = aurora_change_begin(v->rel, AU_XLOG_VISIBLE);
	AuOps	   *ops = aurora_change_page(change, buffer);

	/* also if it is set: each block of a record has operations */
	au_ops_flags(ops, PD_ALL_VISIBLE, 0);
	if (TransactionIdIsNormal(cutoff_xid))
		aurora_change_conflict(change, cutoff_xid);
	aurora_change_set_vm(change, buffer, vmbuffer, vmbits);
	aurora_change_commit(change);
}

/*
 * Is this live tuple visible to every snapshot, now and later?  The hint must
 * be set already: only then is the inserter's commit known to be durable.
 */
static bool
visible_to_all(AuroraVacuum *v, HeapTupleHeader htup, TransactionId *newest_xmin)
{
	TransactionId xmin;

	if (!HeapTupleHeaderXminCommitted(htup))
		return false;
	xmin = HeapTupleHeaderGetXmin(htup);
	if (!TransactionIdPrecedes(xmin, v->oldest_xmin))
		return false;
	if (TransactionIdFollows(xmin, *newest_xmin))
		*newest_xmin = xmin;
	return true;
}

static void
tuple_at(AuroraVacuum *v, Page page, BlockNumber blk, OffsetNumber off,
		 HeapTuple tuple)
{
	ItemId		lp = PageGetItemId(page, off);

	tuple->t_data = (HeapTupleHeader) PageGetItem(page, lp);
	tuple->t_len = ItemIdGetLength(lp);
	tuple->t_tableOid = RelationGetRelid(v->rel);
	ItemPointerSet(&tuple->t_self, blk, off);
}

bool
aurora_vacuum_page_all_visible(AuroraVacuum *v, Buffer buffer,
							   TransactionId *cutoff_xid, bool *all_frozen)
{
	Page		page = BufferGetPage(buffer);
	BlockNumber blk = BufferGetBlockNumber(buffer);
	OffsetNumber maxoff = PageGetMaxOffsetNumber(page);
	bool		result = true;

	*cutoff_xid = InvalidTransactionId;
	*all_frozen = true;
	for (OffsetNumber off = FirstOffsetNumber; off <= maxoff && result; off++)
	{
		ItemId		lp = PageGetItemId(page, off);
		HeapTupleData tuple;

		v->place.off = off;
		if (!ItemIdIsUsed(lp) || ItemIdIsRedirected(lp))
			continue;
		if (ItemIdIsDead(lp))
		{
			result = false;		/* index entries may still lead here */
			break;
		}
		tuple_at(v, page, blk, off, &tuple);
		if (aurora_tuple_vacuum_status(&tuple, v->oldest_xmin, buffer) !=
			HEAPTUPLE_LIVE ||
			!visible_to_all(v, tuple.t_data, cutoff_xid))
			result = false;
		else if (heap_tuple_needs_eventual_freeze(tuple.t_data))
			*all_frozen = false;
	}
	v->place.off = InvalidOffsetNumber;
	if (!result)
		*all_frozen = false;
	return result;
}

/* ---- new and empty pages ---------------------------------------------- */

/*
 * A page storage has never heard of, or one without any line pointer.  Both
 * become (or are) an empty page that every snapshot sees alike; the first only
 * after its initialisation is logged, so that it can be used at last.
 * Lock held: share or more.  Returns false, with the lock (now exclusive), if
 * the page turned out to be in use; else the buffer is released.
 */
static bool
handle_empty_page(ScanState *s, Buffer buffer, BlockNumber blk, bool exclusive)
{
	AuroraVacuum *v = s->v;
	Page		page = BufferGetPage(buffer);
	Size		space;

	if (!exclusive)
	{
		LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
		LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
	}
	if (PageIsNew(page))
	{
		AuroraChange *change = aurora_change_begin(v->rel, AU_XLOG_EXTEND);

		au_ops_init(aurora_change_page(change, buffer), 0);
		aurora_change_commit(change);
	}
	if (!PageIsEmpty(page))
		return false;
	if (!PageIsAllVisible(page))
		aurora_vacuum_set_visible(v, buffer, s->vmbuffer, InvalidTransactionId,
								  VISIBILITYMAP_ALL_VISIBLE |
								  VISIBILITYMAP_ALL_FROZEN);
	space = PageGetHeapFreeSpace(page);
	UnlockReleaseBuffer(buffer);
	RecordPageWithFreeSpace(v->rel, blk, space);
	return true;
}

/* ---- pages under cleanup lock ----------------------------------------- */

/* The table's oldest remaining xids, as of what has been seen of this page. */
typedef struct OldestLeft
{
	TransactionId xid;
	MultiXactId multi;
} OldestLeft;

typedef struct FreezePlan
{
	int			n;
	xl_heap_freeze_tuple tuples[MaxHeapTuplesPerPage];
} FreezePlan;

/*
 * Add what must be done to freeze a tuple to the plan.  Returns whether the
 * tuple will then be frozen for good.  (PostgreSQL 16 passes these values in
 * one struct.)
 */
static bool
plan_freeze(AuroraVacuum *v, HeapTupleHeader htup, OffsetNumber off,
			FreezePlan *plan, OldestLeft *left)
{
	bool		totally_frozen;

	if (heap_prepare_freeze_tuple(htup, v->relfrozenxid, v->relminmxid,
								  v->freeze_limit, v->multi_cutoff,
								  &plan->tuples[plan->n], &totally_frozen,
								  &left->xid, &left->multi))
		plan->tuples[plan->n++].offset = off;
	return totally_frozen;
}

static void
execute_freeze(AuroraVacuum *v, Buffer buffer, const FreezePlan *plan)
{
	AuroraChange *change = aurora_change_begin(v->rel, AU_XLOG_FREEZE);
	AuOps	   *ops = aurora_change_page(change, buffer);
	Page		page = BufferGetPage(buffer);
	TransactionId conflict = v->freeze_limit;

	for (int i = 0; i < plan->n; i++)
	{
		const xl_heap_freeze_tuple *f = &plan->tuples[i];
		ItemId		lp = PageGetItemId(page, f->offset);
		HeapTupleHeader htup = (HeapTupleHeader) PageGetItem(page, lp);
		uint8		fields = AU_TH_INFOMASK;
		TransactionId xvac = InvalidTransactionId;

		/* most tuples have no xmax, before and after */
		if (f->xmax != HeapTupleHeaderGetRawXmax(htup))
			fields |= AU_TH_XMAX;
		if (f->frzflags & (XLH_FREEZE_XVAC | XLH_INVALID_XVAC))
		{
			/* t_xvac shares its place with t_cid */
			fields |= AU_TH_CID;
			if (f->frzflags & XLH_FREEZE_XVAC)
				xvac = FrozenTransactionId;
		}
		au_ops_tuphdr(ops, f->offset, fields, f->xmax, xvac,
					  f->t_infomask2, f->t_infomask, 0, 0);
	}

	/* The newest xid that may be gone now is the one before the limit. */
	TransactionIdRetreat(conflict);
	aurora_change_conflict(change, conflict);
	aurora_change_commit(change);
}

typedef struct PageCounts
{
	int			deleted;
	int			live;
	int			recently_dead;
} PageCounts;

/*
 * Look at a tuple that survived pruning.  Returns false if it is dead now: an
 * inserter has aborted since, and the page must be pruned again.
 */
static bool
examine_survivor(AuroraVacuum *v, Buffer buffer, HeapTuple tuple,
				 PageResult *r, PageCounts *counts)
{
	/* The counts must agree with ANALYZE's idea of live and dead. */
	switch (aurora_tuple_vacuum_status(tuple, v->oldest_xmin, buffer))
	{
		case HEAPTUPLE_DEAD:
			return false;
		case HEAPTUPLE_LIVE:
			counts->live++;
			if (r->all_visible)
				r->all_visible = visible_to_all(v, tuple->t_data, &r->cutoff_xid);
			break;
		case HEAPTUPLE_RECENTLY_DEAD:
			counts->recently_dead++;
			r->all_visible = false;
			break;
		case HEAPTUPLE_INSERT_IN_PROGRESS:
			/* the inserter counts it when it commits */
			r->all_visible = false;
			break;
		case HEAPTUPLE_DELETE_IN_PROGRESS:
			/* the deleter subtracts it when it commits */
			counts->live++;
			r->all_visible = false;
			break;
	}
	return true;
}

/* Prune and look at every item once.  False: look again from the start. */
static bool
examine_page(AuroraVacuum *v, Buffer buffer, PageResult *r, PageCounts *counts,
			 FreezePlan *freeze, OldestLeft *left)
{
	Page		page = BufferGetPage(buffer);
	BlockNumber blk = BufferGetBlockNumber(buffer);
	OffsetNumber maxoff;
	int			nnewlpdead;

	memset(counts, 0, sizeof(*counts));
	freeze->n = 0;
	left->xid = v->new_frozenxid;
	left->multi = v->new_minmxid;
	r->has_tuples = false;
	r->all_visible = r->all_frozen = true;
	r->cutoff_xid = InvalidTransactionId;
	r->nlpdead = 0;

	counts->deleted = aurora_page_prune(v->rel, buffer, v->oldest_xmin,
										v->vistest, &nnewlpdead, &v->place.off);
	maxoff = PageGetMaxOffsetNumber(page);
	for (OffsetNumber off = FirstOffsetNumber; off <= maxoff; off++)
	{
		ItemId		lp = PageGetItemId(page, off);
		HeapTupleData tuple;

		v->place.off = off;
		if (!ItemIdIsUsed(lp))
			continue;
		if (ItemIdIsRedirected(lp))
		{
			r->has_tuples = true;
			continue;
		}
		if (ItemIdIsDead(lp))
		{
			/* will be gone before we think of truncation */
			r->lpdead[r->nlpdead++] = off;
			r->all_visible = false;
			continue;
		}
		tuple_at(v, page, blk, off, &tuple);
		if (!examine_survivor(v, buffer, &tuple, r, counts))
			return false;
		r->has_tuples = true;
		if (!plan_freeze(v, tuple.t_data, off, freeze, left))
			r->all_frozen = false;
	}
	v->place.off = InvalidOffsetNumber;
	return true;
}

/* Prune and freeze; fills *r and remembers LP_DEAD items. */
static void
process_page(AuroraVacuum *v, Buffer buffer, BlockNumber blk, PageResult *r)
{
	PageCounts	counts;
	FreezePlan	freeze;
	OldestLeft	left;
	int64		deleted = 0;

	/* Each repetition has removed tuples of an aborted transaction: it ends. */
	while (!examine_page(v, buffer, r, &counts, &freeze, &left))
		deleted += counts.deleted;

	v->new_frozenxid = left.xid;
	v->new_minmxid = left.multi;
	if (freeze.n > 0)
		execute_freeze(v, buffer, &freeze);
	if (r->nlpdead > 0)
	{
		v->lpdead_pages++;
		aurora_vacuum_remember_dead(v, blk, r->lpdead, r->nlpdead);
	}

	v->tuples_deleted += deleted + counts.deleted;
	v->lpdead_items += r->nlpdead;
	v->live_tuples += counts.live;
	v->recently_dead_tuples += counts.recently_dead;
}

/*
 * Bring the page's VM bits into line with what we found out about it.  They
 * change only under the page's lock, which we hold, so what the map says now
 * is exact.
 */
static void
update_visibility(ScanState *s, Buffer buffer, BlockNumber blk,
				  const PageResult *r)
{
	AuroraVacuum *v = s->v;
	Page		page = BufferGetPage(buffer);
	uint8		have = visibilitymap_get_status(v->rel, blk, &s->vmbuffer);
	uint8		want = 0;
	bool		map_ahead = (have != 0 && !PageIsAllVisible(page));

	/* Tuples that do not look visible to all on an all-visible page are no
	 * contradiction: oldest_xmin may lag behind the truth.  Dead items are. */
	if (map_ahead || (r->nlpdead > 0 && PageIsAllVisible(page)))
	{
		AuroraChange *change = aurora_change_begin(v->rel, AU_XLOG_VISIBLE);
		AuOps	   *ops = aurora_change_page(change, buffer);

		ereport(WARNING,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 map_ahead ?
				 errmsg("block %u of \"%s\" is not marked all-visible, but its visibility map bits are set; clearing them",
						blk, v->relname) :
				 errmsg("block %u of \"%s\" is marked all-visible, but has dead items; clearing the mark",
						blk, v->relname)));
		au_ops_flags(ops, 0, PD_ALL_VISIBLE);
		aurora_change_clear_vm_bits(change, buffer, s->vmbuffer,
									VISIBILITYMAP_VALID_BITS);
		aurora_change_commit(change);
		have = 0;
	}

	if (r->all_visible)
		want = VISIBILITYMAP_ALL_VISIBLE |
			(r->all_frozen ? VISIBILITYMAP_ALL_FROZEN : 0);

	/* Freezing what everybody saw already is no conflict on a standby. */
	if ((want & ~have) != 0)
		aurora_vacuum_set_visible(v, buffer, s->vmbuffer,
								  (have & VISIBILITYMAP_ALL_VISIBLE) ?
								  InvalidTransactionId : r->cutoff_xid,
								  want);
}

static void
vacuum_fsm(ScanState *s, BlockNumber upto)
{
	FreeSpaceMapVacuumRange(s->v->rel, s->fsm_done, upto);
	s->fsm_done = upto;
}

/* The cleanup lock is held: everything there is to do. */
static void
vacuum_page(ScanState *s, Buffer buffer, BlockNumber blk)
{
	AuroraVacuum *v = s->v;
	Page		page = BufferGetPage(buffer);
	XLogRecPtr	lsn_before = PageGetLSN(page);
	PageResult	r;
	bool		reap_later = false;
	Size		space;

	process_page(v, buffer, blk, &r);
	if (r.has_tuples)
		v->nonempty_pages = blk + 1;

	if (v->nindexes == 0 && r.nlpdead > 0)
	{
		/* No index leads here: the line pointers may go at once. */
		aurora_vacuum_reap_page(v, buffer, 0, s->vmbuffer);
		v->dead_items->num_items = 0;
	}
	else
	{
		update_visibility(s, buffer, blk, &r);
		reap_later = r.nlpdead > 0 && v->do_index_vacuuming;
	}

	if (PageGetLSN(page) != lsn_before)
		vacuum_charge_change(v);

	/* If the page will be reaped, its free space is recorded then. */
	space = PageGetHeapFreeSpace(page);
	UnlockReleaseBuffer(buffer);
	if (!reap_later)
		RecordPageWithFreeSpace(v->rel, blk, space);
	if (v->nindexes == 0 && blk - s->fsm_done >= FSM_EVERY_PAGES)
		vacuum_fsm(s, blk);
}

/* ---- pages without cleanup lock --------------------------------------- */

/*
 * Count tuples and remember LP_DEAD items under a share lock.  Returns false,
 * nothing having been counted, if an aggressive VACUUM must freeze something
 * here and so needs the cleanup lock after all.
 */
static bool
count_page(AuroraVacuum *v, Buffer buffer, BlockNumber blk, bool *record_space)
{
	Page		page = BufferGetPage(buffer);
	OffsetNumber maxoff = PageGetMaxOffsetNumber(page);
	OldestLeft	left = {v->new_frozenxid, v->new_minmxid};
	OffsetNumber lpdead[MaxHeapTuplesPerPage];
	int			nlpdead = 0;
	int			live = 0;
	int			recently_dead = 0;
	int			missed = 0;
	bool		has_tuples = false;

	for (OffsetNumber off = FirstOffsetNumber; off <= maxoff; off++)
	{
		ItemId		lp = PageGetItemId(page, off);
		HeapTupleData tuple;

		v->place.off = off;
		if (!ItemIdIsUsed(lp))
			continue;
		if (ItemIdIsDead(lp))
		{
			lpdead[nlpdead++] = off;
			continue;
		}
		has_tuples = true;
		if (ItemIdIsRedirected(lp))
			continue;

		tuple_at(v, page, blk, off, &tuple);
		if (heap_tuple_would_freeze(tuple.t_data, v->freeze_limit,
									v->multi_cutoff, &left.xid, &left.multi) &&
			v->aggressive)
		{
			v->place.off = InvalidOffsetNumber;
			return false;
		}
		switch (aurora_tuple_vacuum_status(&tuple, v->oldest_xmin, buffer))
		{
			case HEAPTUPLE_LIVE:
			case HEAPTUPLE_DELETE_IN_PROGRESS:
				live++;
				break;
			case HEAPTUPLE_DEAD:
				missed++;
				break;
			case HEAPTUPLE_RECENTLY_DEAD:
				recently_dead++;
				break;
			case HEAPTUPLE_INSERT_IN_PROGRESS:
				break;
		}
	}
	v->place.off = InvalidOffsetNumber;
	v->new_frozenxid = left.xid;
	v->new_minmxid = left.multi;

	*record_space = true;
	if (nlpdead > 0 && v->nindexes == 0)
	{
		/* There is no second pass to leave them to. */
		has_tuples = true;
		missed += nlpdead;
	}
	else if (nlpdead > 0)
	{
		v->lpdead_pages++;
		v->lpdead_items += nlpdead;
		aurora_vacuum_remember_dead(v, blk, lpdead, nlpdead);
		*record_space = false;
	}
	if (has_tuples)
		v->nonempty_pages = blk + 1;
	v->live_tuples += live;
	v->recently_dead_tuples += recently_dead;
	v->missed_dead_tuples += missed;
	if (missed > 0)
		v->missed_pages++;
	return true;
}

/* ---- the pass --------------------------------------------------------- */

/* Make room for a page's dead items: reap what is stored. */
static void
reap_if_full(ScanState *s, BlockNumber blk)
{
	AuroraVacuum *v = s->v;

	if (v->dead_items->max_items - v->dead_items->num_items >=
		MaxHeapTuplesPerPage)
		return;

	/* do not hold a pin across a long, unrelated operation */
	if (BufferIsValid(s->vmbuffer))
		ReleaseBuffer(s->vmbuffer);
	s->vmbuffer = InvalidBuffer;

	v->may_bypass_indexes = false;
	aurora_vacuum_reap(v);
	vacuum_fsm(s, blk);
	pgstat_progress_update_param(PROGRESS_VACUUM_PHASE,
								 PROGRESS_VACUUM_PHASE_SCAN_HEAP);
}

static void
scan_page(ScanState *s, BlockNumber blk)
{
	AuroraVacuum *v = s->v;
	Buffer		buffer;
	Page		page;

	visibilitymap_pin(v->rel, blk, &s->vmbuffer);
	buffer = aurora_ahead_read(&s->ahead, blk, v->bstrategy);
	page = BufferGetPage(buffer);

	if (!ConditionalLockBufferForCleanup(buffer))
	{
		bool		record_space;

		LockBuffer(buffer, BUFFER_LOCK_SHARE);
		if ((PageIsNew(page) || PageIsEmpty(page)) &&
			handle_empty_page(s, buffer, blk, false))
			return;
		if (count_page(v, buffer, blk, &record_space))
		{
			Size		space = PageGetHeapFreeSpace(page);

			UnlockReleaseBuffer(buffer);
			if (record_space)
				RecordPageWithFreeSpace(v->rel, blk, space);
			return;
		}
		Assert(v->aggressive);
		LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
		LockBufferForCleanup(buffer);
	}

	if ((PageIsNew(page) || PageIsEmpty(page)) &&
		handle_empty_page(s, buffer, blk, true))
		return;
	vacuum_page(s, buffer, blk);
}

static void
scan_batch(ScanState *s)
{
	AuroraVacuum *v = s->v;

	for (int i = 0; i < s->batch_len; i++)
	{
		BlockNumber blk = s->batch[i];

		v->scanned_pages++;
		pgstat_progress_update_param(PROGRESS_VACUUM_HEAP_BLKS_SCANNED, blk);
		vacuum_enter(v, VACUUM_PHASE_SCAN, blk);

		vacuum_delay_point();
		if (aurora_rel_is_remote(v->rel))
			aurora_ship_throttle();
		if (blk - s->failsafe_done >= FAILSAFE_EVERY_PAGES)
		{
			aurora_vacuum_check_failsafe(v);
			s->failsafe_done = blk;
		}
		reap_if_full(s, blk);
		scan_page(s, blk);
	}
}

static void
report_scan_start(AuroraVacuum *v)
{
	const int	params[] = {
		PROGRESS_VACUUM_PHASE,
		PROGRESS_VACUUM_TOTAL_HEAP_BLKS,
		PROGRESS_VACUUM_MAX_DEAD_TUPLES
	};
	const int64 values[] = {
		PROGRESS_VACUUM_PHASE_SCAN_HEAP,
		v->rel_pages,
		v->dead_items->max_items
	};

	pgstat_progress_update_multi_param(lengthof(params), params, values);
}

void
aurora_vacuum_scan(AuroraVacuum *v)
{
	ScanState	s = {0};

	s.v = v;
	s.vmbuffer = InvalidBuffer;
	report_scan_start(v);
	aurora_ahead_init(&s.ahead, v->rel, CurrentMemoryContext, true,
					  next_in_batch, &s);

	while (plan_batch(&s))
		scan_batch(&s);
	Assert(s.next >= v->rel_pages);
	aurora_ahead_end(&s.ahead);

	v->place.blk = InvalidBlockNumber;
	if (BufferIsValid(s.vmbuffer))
		ReleaseBuffer(s.vmbuffer);
	pgstat_progress_update_param(PROGRESS_VACUUM_HEAP_BLKS_SCANNED, v->rel_pages);

	v->new_live_tuples = vac_estimate_reltuples(v->rel, v->rel_pages,
												v->scanned_pages,
												v->live_tuples);
	v->new_rel_tuples = Max(v->new_live_tuples, 0) +
		v->recently_dead_tuples + v->missed_dead_tuples;

	if (v->dead_items->num_items > 0)
		aurora_vacuum_reap(v);
	if (v->rel_pages > s.fsm_done)
		vacuum_fsm(&s, v->rel_pages);
	pgstat_progress_update_param(PROGRESS_VACUUM_HEAP_BLKS_VACUUMED, v->rel_pages);

	if (v->nindexes > 0 && v->do_index_cleanup)
		aurora_vacuum_cleanup_indexes(v);
}
