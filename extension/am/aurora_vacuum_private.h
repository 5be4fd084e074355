/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_vacuum_private.h: what the files of VACUUM share.  Nobody else
 * includes it.
 *
 *	aurora_vacuum.c           set-up, statistics, the report
 *	aurora_vacuum_scan.c      first pass: which pages, prune, freeze, VM bits
 *	aurora_vacuum_reap.c      dead item store, indexes, second pass, failsafe
 *	aurora_vacuum_truncate.c  giving empty pages at the end back
 */
#ifndef AURORA_VACUUM_PRIVATE_H
#define AURORA_VACUUM_PRIVATE_H

#include "postgres.h"

#include "access/genam.h"
#include "access/visibilitymap.h"
#include "commands/vacuum.h"
#include "miscadmin.h"

#include "am/aurora_am.h"
#include "cache/aurora_readahead.h"

/* What VACUUM is at, for the error context. */
typedef enum VacuumPhase
{
	VACUUM_PHASE_NONE,
	VACUUM_PHASE_SCAN,
	VACUUM_PHASE_INDEX,
	VACUUM_PHASE_REAP,
	VACUUM_PHASE_INDEX_CLEANUP,
	VACUUM_PHASE_TRUNCATE
} VacuumPhase;

typedef struct VacuumPlace
{
	VacuumPhase phase;
	BlockNumber blk;			/* or InvalidBlockNumber */
	OffsetNumber off;			/* or InvalidOffsetNumber */
	char	   *index_name;		/* in the index phases */
} VacuumPlace;

typedef struct AuroraVacuum
{
	Relation	rel;
	char	   *nspname;		/* copies: needed while catalogs may not be */
	char	   *relname;
	Relation   *indexes;
	int			nindexes;
	BufferAccessStrategy bstrategy;
	bool		verbose;
	VacuumPlace place;

	/* what to do */
	bool		aggressive;		/* must freeze all xids before the limits */
	bool		skip_with_vm;
	bool		may_bypass_indexes; /* leave a handful of dead items alone */
	bool		do_index_vacuuming;
	bool		do_index_cleanup;
	bool		do_truncate;
	bool		failsafe;		/* wraparound is near: only freeze */

	/* cutoffs, fixed at the start */
	TransactionId oldest_xmin;
	struct GlobalVisState *vistest;
	TransactionId freeze_limit;
	MultiXactId multi_cutoff;
	TransactionId relfrozenxid; /* before */
	MultiXactId relminmxid;
	double		old_live_tuples;

	/* oldest xids left in the table, for its new relfrozenxid */
	TransactionId new_frozenxid;
	MultiXactId new_minmxid;
	bool		skipped_allvisible; /* then they are not known */

	/* dead items between the passes */
	VacDeadItems *dead_items;
	ParallelVacuumState *parallel;	/* or NULL */
	IndexBulkDeleteResult **index_stats;

	/* pages */
	BlockNumber rel_pages;
	BlockNumber scanned_pages;
	BlockNumber removed_pages;
	BlockNumber lpdead_pages;	/* had LP_DEAD items */
	BlockNumber missed_pages;	/* had dead tuples but no cleanup lock */
	BlockNumber nonempty_pages; /* last page with tuples + 1 */

	/* tuples of scanned pages */
	int64		tuples_deleted;
	int64		lpdead_items;
	int64		live_tuples;
	int64		recently_dead_tuples;
	int64		missed_dead_tuples;

	/* estimates for the whole table */
	double		new_live_tuples;
	double		new_rel_tuples; /* live and dead */
	int			num_index_scans;
} AuroraVacuum;

/* Enter a place for error reports; returns the one before, to go back to. */
static inline VacuumPlace
vacuum_enter(AuroraVacuum *v, VacuumPhase phase, BlockNumber blk)
{
	VacuumPlace before = v->place;

	v->place.phase = phase;
	v->place.blk = blk;
	v->place.off = InvalidOffsetNumber;
	return before;
}

/* Cost-based delay: the log a page's change costs counts as a page dirtied.
 * (MarkBufferDirty does that for local relations.) */
static inline void
vacuum_charge_change(AuroraVacuum *v)
{
	if (VacuumCostActive && aurora_rel_is_remote(v->rel))
		VacuumCostBalance += VacuumCostPageDirty;
}

/* aurora_vacuum_scan.c */

/* The whole of the work on pages and indexes: first pass, and what it calls
 * of the rest when the dead item store is full and at the end. */
extern void aurora_vacuum_scan(AuroraVacuum *v);

/* Set VM bits (and PD_ALL_VISIBLE) for an exclusively locked page.
 * cutoff_xid: newest xmin on it, for standby conflicts, or invalid. */
extern void aurora_vacuum_set_visible(AuroraVacuum *v, Buffer buffer, Buffer vmbuffer,
									  TransactionId cutoff_xid, uint8 vmbits);

/* Do all snapshots see all tuples of this locked page? */
extern bool aurora_vacuum_page_all_visible(AuroraVacuum *v, Buffer buffer,
										   TransactionId *cutoff_xid,
										   bool *all_frozen);

/* aurora_vacuum_reap.c */

extern void aurora_vacuum_alloc_dead_items(AuroraVacuum *v, int nworkers);
extern void aurora_vacuum_free_dead_items(AuroraVacuum *v);
extern void aurora_vacuum_remember_dead(AuroraVacuum *v, BlockNumber blk,
										const OffsetNumber *offs, int n);
/* Remove the stored dead items from indexes and table; empties the store. */
extern void aurora_vacuum_reap(AuroraVacuum *v);
/* One page of it: the page is locked, exclusively, vmbuffer holds its map
 * page.  Returns the index of the first dead item behind those of this page. */
extern int	aurora_vacuum_reap_page(AuroraVacuum *v, Buffer buffer, int index,
									Buffer vmbuffer);
extern void aurora_vacuum_cleanup_indexes(AuroraVacuum *v);
extern bool aurora_vacuum_check_failsafe(AuroraVacuum *v);

/* aurora_vacuum_truncate.c */

extern void aurora_vacuum_truncate(AuroraVacuum *v);

#endif							/* AURORA_VACUUM_PRIVATE_H */
