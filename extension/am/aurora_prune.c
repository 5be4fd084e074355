/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_prune.c: removal of dead tuples within one page.
 *
 * The outcome is heap's: dead members at the front of a HOT chain go, the
 * chain's root line pointer redirects to the first member that stays, or
 * becomes LP_DEAD when none does; dead heap-only tuples nobody leads to become
 * unused.  What differs is that nothing is written here: the plan becomes one
 * PRUNE operation (au_page.h), which compute, storage and replicas apply with
 * the same code.
 *
 * Invariants:
 *  1. A tuple's fate is decided once a page visit: all statuses are computed
 *     before the first chain is followed, so a transaction that ends
 *     meanwhile cannot give one tuple two verdicts.
 *  2. No line pointer is in two lists of a plan.
 *  3. A removed tuple's xids are covered by the record's conflict xid.
 *  4. Tuples removable before oldest_xmin are always removed, whatever the
 *     GlobalVisState says: VACUUM computes its freeze limits from it.
 *
 * The header fields pd_prune_xid and PD_PAGE_FULL are hints.  When there is
 * nothing to prune they are corrected in the cached page alone, without log,
 * like hint bits: au_page_mask() leaves them out of comparisons, and a page
 * that comes back from storage with the older hint is merely looked at again.
 *
 * old_snapshot_threshold does not make pages of aurora tables prunable any
 * earlier (see README.maintenance).
 */
#include "postgres.h"

#include "access/heapam_xlog.h"
#include "access/transam.h"
#include "access/xlog.h"
#include "pgstat.h"
#include "storage/lmgr.h"
#include "utils/snapmgr.h"

#include "am/aurora_am.h"

#define NO_STATUS (-1)			/* line pointer without a tuple */

typedef struct PrunePlan
{
	Relation	rel;
	Buffer		buffer;
	Page		page;
	BlockNumber blk;
	OffsetNumber maxoff;
	TransactionId oldest_xmin;	/* or InvalidTransactionId */
	struct GlobalVisState *vistest;

	/* the result */
	TransactionId next_prune_xid;	/* oldest xid that may make work later */
	TransactionId latest_removed;
	int			nremoved;		/* tuples that lose their storage */
	int			nredirect;
	int			ndead;
	int			nunused;
	OffsetNumber redirects[MaxHeapTuplesPerPage * 2];
	OffsetNumber dead[MaxHeapTuplesPerPage];
	OffsetNumber unused[MaxHeapTuplesPerPage];

	/* by offset number */
	bool		planned[MaxHeapTuplesPerPage + 1];
	int8		status[MaxHeapTuplesPerPage + 1];	/* HTSV_Result */
} PrunePlan;

static HTSV_Result
tuple_status(PrunePlan *plan, HeapTuple tuple)
{
	TransactionId dead_after;
	HTSV_Result status;

	status = aurora_tuple_vacuum_horizon(tuple, &dead_after, plan->buffer);
	if (status != HEAPTUPLE_RECENTLY_DEAD)
		return status;
	if (TransactionIdIsValid(plan->oldest_xmin) &&
		NormalTransactionIdPrecedes(dead_after, plan->oldest_xmin))
		return HEAPTUPLE_DEAD;
	if (GlobalVisTestIsRemovableXid(plan->vistest, dead_after))
		return HEAPTUPLE_DEAD;
	return HEAPTUPLE_RECENTLY_DEAD;
}

/* Fill plan->status.  From the last line pointer down: tuples mostly lie in
 * that order, so memory is read upwards. */
static void
compute_statuses(PrunePlan *plan, OffsetNumber *off_loc)
{
	for (OffsetNumber off = plan->maxoff; off >= FirstOffsetNumber; off--)
	{
		ItemId		lp = PageGetItemId(plan->page, off);
		HeapTupleData tuple;

		plan->status[off] = NO_STATUS;
		if (!ItemIdIsNormal(lp))
			continue;
		if (off_loc != NULL)
			*off_loc = off;
		tuple.t_data = (HeapTupleHeader) PageGetItem(plan->page, lp);
		tuple.t_len = ItemIdGetLength(lp);
		tuple.t_tableOid = RelationGetRelid(plan->rel);
		ItemPointerSet(&tuple.t_self, plan->blk, off);
		plan->status[off] = (int8) tuple_status(plan, &tuple);
	}
}

static void
mark_planned(PrunePlan *plan, OffsetNumber off)
{
	Assert(!plan->planned[off]);
	plan->planned[off] = true;
}

static void
plan_unused(PrunePlan *plan, OffsetNumber off)
{
	mark_planned(plan, off);
	plan->unused[plan->nunused++] = off;
	plan->nremoved++;
}

static void
plan_dead(PrunePlan *plan, OffsetNumber off)
{
	mark_planned(plan, off);
	plan->dead[plan->ndead++] = off;
}

static void
plan_redirect(PrunePlan *plan, OffsetNumber from, OffsetNumber to)
{
	mark_planned(plan, from);
	mark_planned(plan, to);
	plan->redirects[2 * plan->nredirect] = from;
	plan->redirects[2 * plan->nredirect + 1] = to;
	plan->nredirect++;
}

/* The page deserves another look once xid is old enough. */
static void
note_prunable_later(PrunePlan *plan, TransactionId xid)
{
	Assert(TransactionIdIsNormal(xid));
	if (!TransactionIdIsValid(plan->next_prune_xid) ||
		TransactionIdPrecedes(xid, plan->next_prune_xid))
		plan->next_prune_xid = xid;
}

/*
 * Note what a chain member's status means.  Returns true if a dead member may
 * still follow it: only tuples that are dead or about to be can precede one.
 */
static bool
note_member(PrunePlan *plan, OffsetNumber off, HeapTupleHeader htup)
{
	switch ((HTSV_Result) plan->status[off])
	{
		case HEAPTUPLE_DEAD:
			HeapTupleHeaderAdvanceLatestRemovedXid(htup, &plan->latest_removed);
			return true;
		case HEAPTUPLE_RECENTLY_DEAD:
			note_prunable_later(plan, HeapTupleHeaderGetUpdateXid(htup));
			return true;
		case HEAPTUPLE_DELETE_IN_PROGRESS:
			note_prunable_later(plan, HeapTupleHeaderGetUpdateXid(htup));
			return false;
		case HEAPTUPLE_LIVE:
		case HEAPTUPLE_INSERT_IN_PROGRESS:
			return false;
	}
	elog(ERROR, "unexpected tuple status %d at (%u,%u) in \"%s\"",
		 plan->status[off], plan->blk, off, RelationGetRelationName(plan->rel));
}

/*
 * A heap-only tuple that no chain has claimed yet.  The leftover of an aborted
 * HOT update may have no predecessor that points to it any more, so it must be
 * taken here; one that leads on to another version waits for its chain.
 */
static void
plan_heap_only(PrunePlan *plan, OffsetNumber off, HeapTupleHeader htup)
{
	if (plan->status[off] != HEAPTUPLE_DEAD ||
		HeapTupleHeaderIsHotUpdated(htup))
		return;
	HeapTupleHeaderAdvanceLatestRemovedXid(htup, &plan->latest_removed);
	plan_unused(plan, off);
}

/*
 * Follow the HOT chain from `off` and append its members.  *upto_dead becomes
 * the number of entries of members[] up to and including the last dead one, 0
 * if none is.  Returns the number of entries.
 */
static int
follow_chain(PrunePlan *plan, OffsetNumber off, OffsetNumber *members, int n,
			 int *upto_dead)
{
	TransactionId prev_xmax = InvalidTransactionId;

	*upto_dead = 0;

	/* A chain may lead past the line pointer array (its end was unused and
	 * cut off) or to an item that has been reused for something else.  A
	 * damaged one may lead in circles: members[] is the bound. */
	while (off >= FirstOffsetNumber && off <= plan->maxoff &&
		   !plan->planned[off] && n <= MaxHeapTuplesPerPage)
	{
		ItemId		lp = PageGetItemId(plan->page, off);
		HeapTupleHeader htup;

		if (!ItemIdIsNormal(lp))
			break;
		htup = (HeapTupleHeader) PageGetItem(plan->page, lp);
		if (TransactionIdIsValid(prev_xmax) &&
			!TransactionIdEquals(HeapTupleHeaderGetXmin(htup), prev_xmax))
			break;

		members[n++] = off;
		if (!note_member(plan, off, htup))
			break;
		if (plan->status[off] == HEAPTUPLE_DEAD)
			*upto_dead = n;
		if (!HeapTupleHeaderIsHotUpdated(htup))
			break;

		Assert(ItemPointerGetBlockNumber(&htup->t_ctid) == plan->blk);
		off = ItemPointerGetOffsetNumber(&htup->t_ctid);
		prev_xmax = HeapTupleHeaderGetUpdateXid(htup);
	}
	return n;
}

/* Plan the fate of the chain that starts at line pointer `root`. */
static void
plan_chain(PrunePlan *plan, OffsetNumber root)
{
	ItemId		rootlp = PageGetItemId(plan->page, root);
	OffsetNumber members[MaxHeapTuplesPerPage + 1];
	OffsetNumber first = root;
	int			n = 0;
	int			upto_dead;

	if (ItemIdIsRedirected(rootlp))
	{
		members[n++] = root;
		first = ItemIdGetRedirect(rootlp);
	}
	else
	{
		HeapTupleHeader htup = (HeapTupleHeader) PageGetItem(plan->page, rootlp);

		if (HeapTupleHeaderIsHeapOnly(htup))
		{
			plan_heap_only(plan, root, htup);
			return;
		}
	}

	n = follow_chain(plan, first, members, n, &upto_dead);
	if (upto_dead > 0)
	{
		/* members[0] is the root: it stays, as redirect or as LP_DEAD */
		for (int i = 1; i < upto_dead; i++)
			plan_unused(plan, members[i]);
		if (ItemIdIsNormal(rootlp))
			plan->nremoved++;
		if (upto_dead < n)
			plan_redirect(plan, root, members[upto_dead]);
		else
			plan_dead(plan, root);
	}
	else if (n == 1 && ItemIdIsRedirected(rootlp))
	{
		/* a redirect whose target went as an orphan before we came here */
		plan_dead(plan, root);
	}
}

static void
make_plan(PrunePlan *plan, OffsetNumber *off_loc)
{
	if (plan->maxoff > MaxHeapTuplesPerPage)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("block %u of \"%s\" has %u line pointers, more than any page may have",
						plan->blk, RelationGetRelationName(plan->rel),
						plan->maxoff)));

	compute_statuses(plan, off_loc);
	for (OffsetNumber off = FirstOffsetNumber; off <= plan->maxoff; off++)
	{
		ItemId		lp = PageGetItemId(plan->page, off);

		if (plan->planned[off] || !ItemIdIsUsed(lp) || ItemIdIsDead(lp))
			continue;
		if (off_loc != NULL)
			*off_loc = off;
		plan_chain(plan, off);
	}
	if (off_loc != NULL)
		*off_loc = InvalidOffsetNumber;
}

static void
execute_plan(PrunePlan *plan)
{
	PageHeader	header = (PageHeader) plan->page;
	AuroraChange *change = aurora_change_begin(plan->rel, AU_XLOG_PRUNE);
	AuOps	   *ops = aurora_change_page(change, plan->buffer);

	au_ops_prune(ops, plan->redirects, plan->nredirect,
				 plan->dead, plan->ndead, plan->unused, plan->nunused);
	if (header->pd_prune_xid != plan->next_prune_xid)
		au_ops_patch(ops, offsetof(PageHeaderData, pd_prune_xid),
					 sizeof(header->pd_prune_xid), &plan->next_prune_xid);
	if (PageIsFull(plan->page))
		au_ops_flags(ops, 0, PD_PAGE_FULL);
	aurora_change_conflict(change, plan->latest_removed);
	aurora_change_commit(change);
}

/* Nothing to prune: say so in the page's header, so that the next visitor
 * need not try.  A hint: see the top of this file. */
static void
correct_hints(PrunePlan *plan)
{
	PageHeader	header = (PageHeader) plan->page;

	if (header->pd_prune_xid == plan->next_prune_xid &&
		!PageIsFull(plan->page))
		return;
	header->pd_prune_xid = plan->next_prune_xid;
	PageClearFull(plan->page);
	if (!aurora_rel_is_remote(plan->rel))
		MarkBufferDirtyHint(plan->buffer, true);
}

int
aurora_page_prune(Relation rel, Buffer buffer, TransactionId oldest_xmin,
				  struct GlobalVisState *vistest, int *nnewlpdead,
				  OffsetNumber *off_loc)
{
	PrunePlan	plan;

	plan.rel = rel;
	plan.buffer = buffer;
	plan.page = BufferGetPage(buffer);
	plan.blk = BufferGetBlockNumber(buffer);
	plan.maxoff = PageGetMaxOffsetNumber(plan.page);
	plan.oldest_xmin = oldest_xmin;
	plan.vistest = vistest;
	plan.next_prune_xid = InvalidTransactionId;
	plan.latest_removed = InvalidTransactionId;
	plan.nremoved = 0;
	plan.nredirect = plan.ndead = plan.nunused = 0;
	memset(plan.planned, 0, sizeof(plan.planned));

	make_plan(&plan, off_loc);
	if (plan.nredirect > 0 || plan.ndead > 0 || plan.nunused > 0)
		execute_plan(&plan);
	else
		correct_hints(&plan);

	*nnewlpdead = plan.ndead;
	return plan.nremoved;
}

/* Is space short enough on this page to make pruning worth its while?  Also
 * asked without a lock: a torn read makes a wrong guess, no more. */
static bool
space_is_short(Relation rel, Page page)
{
	Size		wanted = RelationGetTargetPageFreeSpace(rel,
														HEAP_DEFAULT_FILLFACTOR);

	wanted = Max(wanted, BLCKSZ / 10);
	return PageIsFull(page) || PageGetHeapFreeSpace(page) < wanted;
}

/*
 * CLUSTER and VACUUM FULL copy rows that were only recently dead when they
 * began, with their TOAST values.  The horizon moves on meanwhile, past the
 * chunks of these values; they must stay until the copy is made.  Such a
 * command keeps everybody else off the TOAST table, so only its own reads
 * could remove them.
 */
static bool
is_being_rewritten(Relation rel)
{
	return rel->rd_rel->relkind == RELKIND_TOASTVALUE &&
		CheckRelationLockedByMe(rel, AccessExclusiveLock, false);
}

void
aurora_prune_opt(Relation rel, Buffer buffer)
{
	Page		page = BufferGetPage(buffer);
	TransactionId prune_xid = ((PageHeader) page)->pd_prune_xid;
	struct GlobalVisState *vistest;

	/* Called for every page a scan visits: leave early. */
	if (!TransactionIdIsValid(prune_xid) || RecoveryInProgress())
		return;
	vistest = GlobalVisTestFor(rel);
	if (!GlobalVisTestIsRemovableXid(vistest, prune_xid))
		return;
	if (!space_is_short(rel, page) || is_being_rewritten(rel) ||
		!ConditionalLockBufferForCleanup(buffer))
		return;

	/* Now the figures are exact: look again. */
	if (space_is_short(rel, page))
	{
		int			nnewlpdead;
		int			nremoved;

		nremoved = aurora_page_prune(rel, buffer, InvalidTransactionId,
									 vistest, &nnewlpdead, NULL);

		/* LP_DEAD items still wait for VACUUM: they stay in the count. */
		if (nremoved > nnewlpdead)
			pgstat_update_heap_dead_tuples(rel, nremoved - nnewlpdead);
	}
	LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
}
