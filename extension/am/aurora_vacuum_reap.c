/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_vacuum_reap.c: dead items on their way out.
 *
 *	first pass:  dead tuple -> LP_DEAD, its TID goes into the store
 *	reap:        1. every index drops the entries of the stored TIDs
 *				 2. LP_DEAD -> LP_UNUSED, page by page (second pass)
 *
 * Invariants:
 *  1. A line pointer becomes unused only after all indexes have dropped their
 *     entries for it in this very VACUUM: no index entry ever leads to a line
 *     pointer that may be taken by another row.
 *  2. The store holds TIDs in ascending order (binary search by index AMs)
 *     and never more than maintenance_work_mem allows.
 *  3. Once the failsafe is active no index is touched any more.
 *
 * Index vacuuming itself is stock: vac_bulkdel_one_index and friends, or the
 * parallel_vacuum_* functions, which know nothing of the table's pages.
 */
#include "postgres.h"

#include "commands/dbcommands.h"
#include "commands/progress.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/autovacuum.h"
#include "storage/freespace.h"
#include "utils/backend_progress.h"
#include "utils/memutils.h"

#include "am/aurora_vacuum_private.h"
#include "module/aurora_guc.h"
#include "ship/aurora_ship.h"

/* Dead items on fewer than this part of the table's pages, and taking less
 * memory than that, are left for the next VACUUM: reading whole indexes for
 * them does not pay. */
#define BYPASS_PAGES_FRACTION 0.02
#define BYPASS_MEMORY (32L * 1024L * 1024L)

/* ---- the store -------------------------------------------------------- */

static int
dead_items_limit(AuroraVacuum *v)
{
	int			memory_kb = maintenance_work_mem;
	int64		limit;

	/* Without indexes every page is reaped at once. */
	if (v->nindexes == 0)
		return MaxHeapTuplesPerPage;

	if (IsAutoVacuumWorkerProcess() && autovacuum_work_mem != -1)
		memory_kb = autovacuum_work_mem;
	limit = MAXDEADITEMS(memory_kb * 1024L);
	limit = Min(limit, MAXDEADITEMS(MaxAllocSize));
	limit = Min(limit, (int64) v->rel_pages * MaxHeapTuplesPerPage);
	return (int) Max(limit, MaxHeapTuplesPerPage);
}

void
aurora_vacuum_alloc_dead_items(AuroraVacuum *v, int nworkers)
{
	int			limit = dead_items_limit(v);

	if (nworkers >= 0 && v->nindexes > 1 && v->do_index_vacuuming)
	{
		if (!RelationUsesLocalBuffers(v->rel))
			v->parallel = parallel_vacuum_init(v->rel, v->indexes, v->nindexes,
											   nworkers, limit,
											   v->verbose ? INFO : DEBUG2,
											   v->bstrategy);
		else if (nworkers > 0)
			ereport(WARNING,
					(errmsg("disabling parallel option of vacuum on \"%s\" --- cannot vacuum temporary tables in parallel",
							v->relname)));
	}
	if (v->parallel != NULL)
	{
		v->dead_items = parallel_vacuum_get_dead_items(v->parallel);
		return;
	}
	v->dead_items = palloc(vac_max_items_to_alloc_size(limit));
	v->dead_items->max_items = limit;
	v->dead_items->num_items = 0;
}

/* Ends parallel mode, too.  Index statistics survive. */
void
aurora_vacuum_free_dead_items(AuroraVacuum *v)
{
	if (v->parallel != NULL)
		parallel_vacuum_end(v->parallel, v->index_stats);
	else
		pfree(v->dead_items);
	v->parallel = NULL;
	v->dead_items = NULL;
}

void
aurora_vacuum_remember_dead(AuroraVacuum *v, BlockNumber blk,
							const OffsetNumber *offs, int n)
{
	VacDeadItems *store = v->dead_items;

	if (n > store->max_items - store->num_items)
		elog(ERROR, "no room for %d dead items of block %u of \"%s\"",
			 n, blk, v->relname);
	for (int i = 0; i < n; i++)
	{
		ItemPointerSet(&store->items[store->num_items], blk, offs[i]);
		store->num_items++;
	}
	pgstat_progress_update_param(PROGRESS_VACUUM_NUM_DEAD_TUPLES,
								 store->num_items);
}

/* ---- failsafe --------------------------------------------------------- */

bool
aurora_vacuum_check_failsafe(AuroraVacuum *v)
{
	if (v->failsafe)
		return true;
	if (likely(!vacuum_xid_failsafe_check(v->relfrozenxid, v->relminmxid)))
		return false;

	v->failsafe = true;
	v->do_index_vacuuming = false;
	v->do_index_cleanup = false;
	v->do_truncate = false;
	ereport(WARNING,
			(errmsg("bypassing nonessential maintenance of table \"%s.%s.%s\" as a failsafe after %d index scans",
					get_database_name(MyDatabaseId), v->nspname, v->relname,
					v->num_index_scans),
			 errdetail("The table's relfrozenxid or relminmxid is too far in the past."),
			 errhint("Consider increasing configuration parameter \"maintenance_work_mem\" or \"autovacuum_work_mem\".\n"
					 "You might also need to consider other ways for VACUUM to keep up with the allocation of transaction IDs.")));

	/* From now on nothing holds us up. */
	VacuumCostActive = false;
	VacuumCostBalance = 0;
	return true;
}

/* ---- indexes ---------------------------------------------------------- */

static void
index_info(AuroraVacuum *v, int i, IndexVacuumInfo *info)
{
	memset(info, 0, sizeof(*info));
	info->index = v->indexes[i];
	info->message_level = DEBUG2;
	info->strategy = v->bstrategy;
}

static VacuumPlace
enter_index(AuroraVacuum *v, VacuumPhase phase, int i)
{
	VacuumPlace before = vacuum_enter(v, phase, InvalidBlockNumber);

	/* a copy: the error may be about the relcache entry's end */
	v->place.index_name = pstrdup(RelationGetRelationName(v->indexes[i]));
	return before;
}

static void
leave_index(AuroraVacuum *v, VacuumPlace before)
{
	pfree(v->place.index_name);
	v->place = before;
}

/* Remove the stored TIDs from all indexes; false if the failsafe cut it
 * short. */
static bool
reap_indexes(AuroraVacuum *v)
{
	bool		complete = true;

	if (aurora_vacuum_check_failsafe(v))
		return false;
	pgstat_progress_update_param(PROGRESS_VACUUM_PHASE,
								 PROGRESS_VACUUM_PHASE_VACUUM_INDEX);
	if (v->parallel != NULL)
	{
		parallel_vacuum_bulkdel_all_indexes(v->parallel, v->old_live_tuples,
											v->num_index_scans);
		complete = !aurora_vacuum_check_failsafe(v);
	}
	else
	{
		for (int i = 0; complete && i < v->nindexes; i++)
		{
			IndexVacuumInfo info;
			VacuumPlace before = enter_index(v, VACUUM_PHASE_INDEX, i);

			index_info(v, i, &info);
			info.estimated_count = true;
			info.num_heap_tuples = v->old_live_tuples;
			v->index_stats[i] = vac_bulkdel_one_index(&info, v->index_stats[i],
													  v->dead_items);
			leave_index(v, before);
			complete = !aurora_vacuum_check_failsafe(v);
		}
	}

	/* a round that was begun counts */
	v->num_index_scans++;
	pgstat_progress_update_param(PROGRESS_VACUUM_NUM_INDEX_VACUUMS,
								 v->num_index_scans);
	return complete;
}

void
aurora_vacuum_cleanup_indexes(AuroraVacuum *v)
{
	bool		estimated = v->scanned_pages < v->rel_pages;

	pgstat_progress_update_param(PROGRESS_VACUUM_PHASE,
								 PROGRESS_VACUUM_PHASE_INDEX_CLEANUP);
	if (v->parallel != NULL)
	{
		parallel_vacuum_cleanup_all_indexes(v->parallel, v->new_rel_tuples,
											v->num_index_scans, estimated);
		return;
	}
	for (int i = 0; i < v->nindexes; i++)
	{
		IndexVacuumInfo info;
		VacuumPlace before = enter_index(v, VACUUM_PHASE_INDEX_CLEANUP, i);

		index_info(v, i, &info);
		info.estimated_count = estimated;
		info.num_heap_tuples = v->new_rel_tuples;
		v->index_stats[i] = vac_cleanup_one_index(&info, v->index_stats[i]);
		leave_index(v, before);
	}
}

/* ---- second pass ------------------------------------------------------ */

/* Line pointers gone, the page may have become all-visible. */
static void
consider_visible(AuroraVacuum *v, Buffer buffer, BlockNumber blk, Buffer vmbuffer)
{
	TransactionId cutoff_xid;
	bool		all_frozen;
	uint8		have;
	uint8		want = VISIBILITYMAP_ALL_VISIBLE;

	if (!aurora_vacuum_page_all_visible(v, buffer, &cutoff_xid, &all_frozen))
		return;
	if (all_frozen)
		want |= VISIBILITYMAP_ALL_FROZEN;
	have = visibilitymap_get_status(v->rel, blk, &vmbuffer);
	if ((want & ~have) != 0 || !PageIsAllVisible(BufferGetPage(buffer)))
		aurora_vacuum_set_visible(v, buffer, vmbuffer, cutoff_xid, want);
}

int
aurora_vacuum_reap_page(AuroraVacuum *v, Buffer buffer, int index,
						Buffer vmbuffer)
{
	VacDeadItems *store = v->dead_items;
	Page		page = BufferGetPage(buffer);
	BlockNumber blk = BufferGetBlockNumber(buffer);
	VacuumPlace before = vacuum_enter(v, VACUUM_PHASE_REAP, blk);
	OffsetNumber offs[MaxHeapTuplesPerPage];
	int			n = 0;
	AuroraChange *change;

	pgstat_progress_update_param(PROGRESS_VACUUM_HEAP_BLKS_VACUUMED, blk);
	for (; index < store->num_items &&
		 ItemPointerGetBlockNumber(&store->items[index]) == blk; index++)
	{
		OffsetNumber off = ItemPointerGetOffsetNumber(&store->items[index]);

		if (n >= MaxHeapTuplesPerPage || off > PageGetMaxOffsetNumber(page) ||
			!ItemIdIsDead(PageGetItemId(page, off)))
			elog(ERROR, "item %u of block %u of \"%s\" was found dead, but is not any more",
				 off, blk, v->relname);
		offs[n++] = off;
	}
	Assert(n > 0);

	change = aurora_change_begin(v->rel, AU_XLOG_VACUUM);
	au_ops_unused(aurora_change_page(change, buffer), offs, n);
	aurora_change_commit(change);

	consider_visible(v, buffer, blk, vmbuffer);
	v->place = before;
	return index;
}

/* Read-ahead goes through the pages of the dead items. */
typedef struct ReapOrder
{
	VacDeadItems *store;
	int			looked;
} ReapOrder;

static BlockNumber
next_to_reap(void *arg, BlockNumber after)
{
	ReapOrder  *o = arg;

	for (; o->looked < o->store->num_items; o->looked++)
	{
		BlockNumber blk = ItemPointerGetBlockNumber(&o->store->items[o->looked]);

		if (blk > after)
			return blk;
	}
	return InvalidBlockNumber;
}

static void
reap_pages(AuroraVacuum *v)
{
	VacuumPlace before = vacuum_enter(v, VACUUM_PHASE_REAP, InvalidBlockNumber);
	Buffer		vmbuffer = InvalidBuffer;
	BlockNumber npages = 0;
	int			index = 0;
	ReapOrder	order = {.store = v->dead_items};
	AuroraAhead ahead;

	aurora_ahead_init(&ahead, v->rel, CurrentMemoryContext, true, next_to_reap,
					  &order);
	pgstat_progress_update_param(PROGRESS_VACUUM_PHASE,
								 PROGRESS_VACUUM_PHASE_VACUUM_HEAP);
	while (index < v->dead_items->num_items)
	{
		BlockNumber blk = ItemPointerGetBlockNumber(&v->dead_items->items[index]);
		Buffer		buffer;
		Size		space;

		vacuum_delay_point();
		if (aurora_rel_is_remote(v->rel))
			aurora_ship_throttle();

		v->place.blk = blk;
		visibilitymap_pin(v->rel, blk, &vmbuffer);
		buffer = aurora_ahead_read(&ahead, blk, v->bstrategy);
		LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
		index = aurora_vacuum_reap_page(v, buffer, index, vmbuffer);
		vacuum_charge_change(v);
		space = PageGetHeapFreeSpace(BufferGetPage(buffer));
		UnlockReleaseBuffer(buffer);
		RecordPageWithFreeSpace(v->rel, blk, space);
		npages++;
	}
	aurora_ahead_end(&ahead);
	if (BufferIsValid(vmbuffer))
		ReleaseBuffer(vmbuffer);

	ereport(DEBUG2,
			(errmsg_internal("table \"%s\": removed %d dead item identifiers in %u pages",
							 v->relname, index, npages)));
	v->place = before;
}

/* ---- both ------------------------------------------------------------- */

/* So few dead items that they may wait? */
static bool
few_dead_items(AuroraVacuum *v)
{
	BlockNumber threshold;

	if (!v->may_bypass_indexes || v->rel_pages == 0)
		return false;
	Assert(v->num_index_scans == 0);
	threshold = (BlockNumber) (v->rel_pages * BYPASS_PAGES_FRACTION);
	return v->lpdead_pages < threshold &&
		v->lpdead_items < (int64) MAXDEADITEMS(BYPASS_MEMORY);
}

void
aurora_vacuum_reap(AuroraVacuum *v)
{
	Assert(v->nindexes > 0);
	if (v->do_index_vacuuming)
	{
		if (few_dead_items(v))
			v->do_index_vacuuming = false;
		else if (reap_indexes(v))
			reap_pages(v);
	}
	v->dead_items->num_items = 0;
}
