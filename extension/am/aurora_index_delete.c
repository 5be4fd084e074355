/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_index_delete.c: which index entries may an index AM delete right
 * away?
 *
 * Index AMs ask this when a page of theirs is about to overflow.  Two ways of
 * asking (access/tableam.h):
 *
 * - simple: the caller knows most entries to be dead.  Every TID is looked
 *   at, because the caller may delete all it marked and needs a conflict xid
 *   that covers them.
 * - bottom-up: the caller suspects version churn and wants bottomupfreespace
 *   bytes of index space back.  Table blocks are visited in the order of their
 *   promise, at most BOTTOMUP_BLOCKS_MAX of them, and we give up as soon as a
 *   block yields nothing.
 *
 * Cost: the caller holds an exclusive lock on an index page meanwhile, and a
 * table page that is not cached costs a round trip to storage.  The bounds
 * above are heap's; neighbouring blocks are fetched together, so that a run
 * costs one round trip.
 *
 * Invariants:
 *  1. No entry is reported deletable while a tuple of its HOT chain could be
 *     visible to any snapshot.
 *  2. The xid returned covers every tuple behind a TID that stays in deltids.
 *  3. One page is pinned and share-locked at a time; nothing is changed.
 */
#include "postgres.h"

#include "access/heapam_xlog.h"
#include "port/pg_bitutils.h"
#include "utils/snapmgr.h"

#include "am/aurora_am.h"
#include "cache/aurora_readahead.h"

#define BOTTOMUP_BLOCKS_MAX 6	/* table blocks one bottom-up call may read */
#define NEARBY_BLOCKS 3			/* blocks this close count as neighbours */
#define PROMISING_MIN 4			/* fewer promising TIDs are all the same to us */

/* The TIDs of one table block, a stretch of the sorted deltids array. */
typedef struct BlockGroup
{
	int			first;
	int			ntids;
	int			npromising;		/* in sorting: rounded to a power of two */
} BlockGroup;

/* Progress through the blocks. */
typedef struct DeleteState
{
	Relation	rel;
	TM_IndexDeleteOp *op;
	SnapshotData not_vacuumable;
	TransactionId latest_removed;
	Buffer		buffer;
	BlockNumber blk;
	OffsetNumber maxoff;
	AuroraAhead ahead;
	int			looked;			/* deltids looked at ahead */

	/* bottom-up only */
	int			nblocks;
	int			nfavorable;		/* blocks that do not lower the target */
	int			target_space;
	int			freed_space;
	int			freed_before;	/* when the current block was begun */
	bool		enough;
} DeleteState;

static int
by_tid(const void *a, const void *b)
{
	return ItemPointerCompare(&((TM_IndexDelete *) unconstify(void *, a))->tid,
							  &((TM_IndexDelete *) unconstify(void *, b))->tid);
}

/*
 * Most promising first; among equals the one with more TIDs; among those the
 * lower block, which makes the order of visits stable from call to call.
 * Counts are compared by their power of two: small differences are noise.
 */
static int
by_promise(const void *a, const void *b)
{
	const BlockGroup *ga = a;
	const BlockGroup *gb = b;
	uint32		ta = pg_nextpower2_32((uint32) ga->ntids);
	uint32		tb = pg_nextpower2_32((uint32) gb->ntids);

	if (ga->npromising != gb->npromising)
		return ga->npromising > gb->npromising ? -1 : 1;
	if (ta != tb)
		return ta > tb ? -1 : 1;
	return ga->first < gb->first ? -1 : 1;
}

static BlockNumber
tid_block(const TM_IndexDelete *del)
{
	return ItemPointerGetBlockNumber(&del->tid);
}

/* Cut the sorted deltids into groups by block; returns how many. */
static int
group_by_block(TM_IndexDeleteOp *op, BlockGroup *groups)
{
	int			n = 0;

	for (int i = 0; i < op->ndeltids; i++)
	{
		TM_IndexDelete *del = &op->deltids[i];

		if (i == 0 || tid_block(del) != tid_block(del - 1))
		{
			groups[n].first = i;
			groups[n].ntids = 0;
			groups[n].npromising = 0;
			n++;
		}
		groups[n - 1].ntids++;
		if (op->status[del->id].promising)
			groups[n - 1].npromising++;
	}
	return n;
}

/* How many groups from the start lie near one another. */
static int
count_favorable(const BlockGroup *groups, int ngroups,
				const TM_IndexDelete *deltids)
{
	int			n;

	for (n = 1; n < ngroups; n++)
	{
		int64		before = tid_block(&deltids[groups[n - 1].first]);
		int64		here = tid_block(&deltids[groups[n].first]);

		if (here < before - NEARBY_BLOCKS || here > before + NEARBY_BLOCKS)
			break;
	}
	return n;
}

/*
 * Bottom-up: reorder deltids (sorted by TID) by the promise of their blocks
 * and drop those of blocks we shall not visit.  Returns the number of
 * favorable blocks at the front.
 */
static int
choose_blocks(TM_IndexDeleteOp *op)
{
	BlockGroup *groups = palloc(sizeof(BlockGroup) * op->ndeltids);
	TM_IndexDelete *chosen = palloc(sizeof(TM_IndexDelete) * op->ndeltids);
	int			ngroups = group_by_block(op, groups);
	int			nchosen = 0;
	int			nfavorable;

	for (int i = 0; i < ngroups; i++)
		groups[i].npromising = groups[i].npromising <= PROMISING_MIN ?
			PROMISING_MIN :
			(int) pg_nextpower2_32((uint32) groups[i].npromising);
	qsort(groups, ngroups, sizeof(BlockGroup), by_promise);
	ngroups = Min(ngroups, BOTTOMUP_BLOCKS_MAX);
	nfavorable = count_favorable(groups, ngroups, op->deltids);

	for (int i = 0; i < ngroups; i++)
	{
		memcpy(chosen + nchosen, op->deltids + groups[i].first,
			   sizeof(TM_IndexDelete) * groups[i].ntids);
		nchosen += groups[i].ntids;
	}
	memcpy(op->deltids, chosen, sizeof(TM_IndexDelete) * nchosen);
	op->ndeltids = nchosen;
	pfree(chosen);
	pfree(groups);
	return nfavorable;
}

/*
 * Bottom-up: is another block worth reading?  Each must have freed something,
 * and each one that is not near its predecessor halves what we still hope for.
 */
static bool
next_block_worthwhile(DeleteState *s)
{
	if (s->enough)
		return false;
	if (s->nblocks > 0 && s->freed_space == s->freed_before)
		return false;
	s->freed_before = s->freed_space;
	if (s->nfavorable > 0)
		s->nfavorable--;
	else
		s->target_space /= 2;
	return true;
}

/* Read-ahead: the blocks of deltids, which are sorted and all visited; but
 * bottom-up each block decides whether there is a next one. */
static BlockNumber
next_block_of_tids(void *arg, BlockNumber after)
{
	DeleteState *s = arg;

	if (s->op->bottomup)
		return InvalidBlockNumber;
	while (s->looked < s->op->ndeltids &&
		   tid_block(&s->op->deltids[s->looked]) <= after)
		s->looked++;
	return s->looked < s->op->ndeltids ?
		tid_block(&s->op->deltids[s->looked]) : InvalidBlockNumber;
}

static void
release_page(DeleteState *s)
{
	if (BufferIsValid(s->buffer))
		UnlockReleaseBuffer(s->buffer);
	s->buffer = InvalidBuffer;
}

static void
enter_block(DeleteState *s, int i)
{
	release_page(s);
	s->blk = tid_block(&s->op->deltids[i]);
	s->buffer = aurora_ahead_read(&s->ahead, s->blk, NULL);
	s->nblocks++;
	LockBuffer(s->buffer, BUFFER_LOCK_SHARE);
	s->maxoff = PageGetMaxOffsetNumber(BufferGetPage(s->buffer));
}

/* A TID in an index must name the start of a HOT chain; anything else is
 * damage to the index and worth an error. */
static void
check_tid(DeleteState *s, ItemPointer tid, TM_IndexStatus *status)
{
	OffsetNumber off = ItemPointerGetOffsetNumber(tid);
	Page		page = BufferGetPage(s->buffer);
	const char *problem = NULL;

	if (off > s->maxoff)
		problem = "points past the line pointers of its table block";
	else
	{
		ItemId		lp = PageGetItemId(page, off);

		if (!ItemIdIsUsed(lp))
			problem = "points to an unused line pointer";
		else if (ItemIdHasStorage(lp) &&
				 HeapTupleHeaderIsHeapOnly((HeapTupleHeader) PageGetItem(page, lp)))
			problem = "points to a heap-only tuple";
	}
	if (unlikely(problem != NULL))
		ereport(ERROR,
				(errcode(ERRCODE_INDEX_CORRUPTED),
				 errmsg("index \"%s\" does not fit its table \"%s\": entry %u of block %u %s",
						RelationGetRelationName(s->op->irel),
						RelationGetRelationName(s->rel),
						status->idxoffnum, s->op->iblknum, problem),
				 errdetail("The entry's TID is (%u,%u).", s->blk, off),
				 errhint("REINDEX INDEX rebuilds the index.")));
}

/* Advance the conflict xid over the tuples of the HOT chain at `off`, a dead
 * one.  An LP_DEAD item's xids are in the record that pruned it. */
static void
cover_chain(DeleteState *s, OffsetNumber off)
{
	Page		page = BufferGetPage(s->buffer);
	TransactionId prev_xmax = InvalidTransactionId;
	int			nmembers = 0;

	while (off >= FirstOffsetNumber && off <= s->maxoff &&
		   nmembers++ <= MaxHeapTuplesPerPage)
	{
		ItemId		lp = PageGetItemId(page, off);
		HeapTupleHeader htup;

		if (ItemIdIsRedirected(lp))
		{
			off = ItemIdGetRedirect(lp);
			continue;
		}
		if (!ItemIdIsNormal(lp))
			break;
		htup = (HeapTupleHeader) PageGetItem(page, lp);
		if (TransactionIdIsValid(prev_xmax) &&
			!TransactionIdEquals(HeapTupleHeaderGetXmin(htup), prev_xmax))
			break;
		HeapTupleHeaderAdvanceLatestRemovedXid(htup, &s->latest_removed);
		if (!HeapTupleHeaderIsHotUpdated(htup))
			break;
		Assert(ItemPointerGetBlockNumber(&htup->t_ctid) == s->blk);
		off = ItemPointerGetOffsetNumber(&htup->t_ctid);
		prev_xmax = HeapTupleHeaderGetUpdateXid(htup);
	}
}

/* Judge one entry on the current block; true if it may be deleted. */
static bool
judge_entry(DeleteState *s, TM_IndexDelete *del)
{
	TM_IndexStatus *status = &s->op->status[del->id];

	check_tid(s, &del->tid, status);
	if (!status->knowndeletable)
	{
		ItemPointerData tid = del->tid;
		HeapTupleData tuple;

		if (aurora_hot_search_buffer(&tid, s->rel, s->buffer,
									 &s->not_vacuumable, &tuple, NULL, true))
			return false;
		status->knowndeletable = true;
		if (s->op->bottomup)
		{
			s->freed_space += status->freespace;
			if (s->freed_space >= s->target_space)
				s->enough = true;
		}
	}
	cover_chain(s, ItemPointerGetOffsetNumber(&del->tid));
	return true;
}

TransactionId
aurora_index_delete_tuples(Relation rel, TM_IndexDeleteOp *delstate)
{
	DeleteState s = {0};
	int			ndeletable = 0;

	Assert(delstate->ndeltids > 0);
	s.rel = rel;
	s.op = delstate;
	s.latest_removed = InvalidTransactionId;
	s.buffer = InvalidBuffer;
	s.blk = InvalidBlockNumber;
	aurora_ahead_init(&s.ahead, rel, CurrentMemoryContext, false,
					  next_block_of_tids, &s);
	s.target_space = delstate->bottomupfreespace;
	InitNonVacuumableSnapshot(s.not_vacuumable, GlobalVisTestFor(rel));

	qsort(delstate->deltids, delstate->ndeltids, sizeof(TM_IndexDelete), by_tid);
	if (delstate->bottomup)
		s.nfavorable = choose_blocks(delstate);

	for (int i = 0; i < delstate->ndeltids; i++)
	{
		TM_IndexDelete *del = &delstate->deltids[i];

		if (tid_block(del) != s.blk)
		{
			if (delstate->bottomup && !next_block_worthwhile(&s))
				break;
			enter_block(&s, i);
		}
		if (judge_entry(&s, del))
			ndeletable = i + 1;
	}
	release_page(&s);
	aurora_ahead_end(&s.ahead);

	/* What stands behind the last deletable entry need not be looked at by
	 * the caller; a bottom-up one copes with none at all. */
	Assert(ndeletable > 0 || delstate->bottomup);
	delstate->ndeltids = ndeletable;
	return s.latest_removed;
}
