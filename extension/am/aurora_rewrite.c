/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_rewrite.c: the new table of CLUSTER and VACUUM FULL.
 *
 * Tuples arrive in any order.  Older versions that some snapshot may still
 * need are copied, too, and their t_ctid must lead to the new place of the
 * version that replaced them:
 *
 *		old table					new table
 *		A (xmax x) --ctid--> B (xmin x)
 *
 *	A arrives first:  B's new place is unknown; A waits in `waiting`, under
 *					  the key (x, B's old TID).  When B is stored, A gets its
 *					  ctid and is stored next, then whoever waits for A, ...
 *	B arrives first:  its new place goes into `placed`, under the same key, if
 *					  anything may still point to it.  A finds it there.
 *
 * The xid in the key keeps apart a version and a later tenant of its TID.
 *
 * Pages are built in private memory.  Of a permanent table each full page goes
 * into the log as an image and nowhere else; the cache will fetch it from
 * storage when it is wanted.  Of an unlogged or temporary one it is appended
 * to the file, as heap's rewrite does.
 *
 * Invariants:
 *  1. Each tuple handed in is stored exactly once, unless
 *     aurora_rewrite_dead_tuple dropped it.
 *  2. A stored tuple's t_ctid is its own TID or that of its successor; no
 *     tuple has HOT flags (all get index entries of their own).
 *  3. A page is written once, when it is full or at the end.
 */
#include "postgres.h"

#include "access/heaptoast.h"
#include "access/transam.h"
#include "storage/smgr.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "am/aurora_am.h"
#include "am/aurora_rewrite.h"
#include "wal/aurora_image.h"

typedef struct ChainKey
{
	TransactionId xmin;			/* of the newer version */
	ItemPointerData tid;		/* where it was in the old table */
} ChainKey;

typedef struct WaitingTuple
{
	ChainKey	key;
	ItemPointerData old_tid;	/* of the older version, the one that waits */
	HeapTuple	tuple;			/* its copy for the new table */
} WaitingTuple;

typedef struct PlacedTuple
{
	ChainKey	key;
	ItemPointerData new_tid;
} PlacedTuple;

struct AuroraRewrite
{
	Relation	old_rel;
	Relation	new_rel;
	TransactionId oldest_xmin;
	TransactionId freeze_limit;
	MultiXactId multi_cutoff;
	MemoryContext cxt;			/* everything; deleted at the end */
	MemoryContext tuple_cxt;	/* reset after each tuple handed in */
	HTAB	   *waiting;
	HTAB	   *placed;
	Page		page;			/* being built */
	BlockNumber blk;			/* where it will go */
	bool		page_used;
	Size		keep_free;		/* a page's bytes left by fillfactor */
};

static ChainKey
chain_key(TransactionId xmin, const ItemPointerData *tid)
{
	ChainKey	key;

	memset(&key, 0, sizeof(key));	/* padding is hashed as well */
	key.xmin = xmin;
	key.tid = *tid;
	return key;
}

static HTAB *
make_table(AuroraRewrite *rw, const char *name, Size entrysize)
{
	HASHCTL		ctl = {0};

	ctl.keysize = sizeof(ChainKey);
	ctl.entrysize = entrysize;
	ctl.hcxt = rw->cxt;
	return hash_create(name, 128, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

AuroraRewrite *
aurora_rewrite_begin(Relation old_rel, Relation new_rel,
					 TransactionId oldest_xmin, TransactionId freeze_limit,
					 MultiXactId multi_cutoff)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext,
											  "aurora rewrite",
											  ALLOCSET_DEFAULT_SIZES);
	AuroraRewrite *rw = MemoryContextAllocZero(cxt, sizeof(AuroraRewrite));

	rw->old_rel = old_rel;
	rw->new_rel = new_rel;
	rw->oldest_xmin = oldest_xmin;
	rw->freeze_limit = freeze_limit;
	rw->multi_cutoff = multi_cutoff;
	rw->cxt = cxt;
	rw->tuple_cxt = AllocSetContextCreate(cxt, "aurora rewrite tuple",
										  ALLOCSET_DEFAULT_SIZES);
	rw->waiting = make_table(rw, "aurora rewrite: waiting", sizeof(WaitingTuple));
	rw->placed = make_table(rw, "aurora rewrite: placed", sizeof(PlacedTuple));
	rw->page = MemoryContextAlloc(cxt, BLCKSZ);
	rw->blk = aurora_nblocks(new_rel);
	rw->keep_free = RelationGetTargetPageFreeSpace(new_rel,
												   HEAP_DEFAULT_FILLFACTOR);
	return rw;
}

/* ---- pages ------------------------------------------------------------ */

static void
write_page(AuroraRewrite *rw)
{
	if (!BlockNumberIsValid(rw->blk))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("cannot extend relation \"%s\" beyond %u blocks",
						RelationGetRelationName(rw->new_rel), MaxBlockNumber)));
	if (aurora_rel_is_remote(rw->new_rel))
		aurora_log_page_image(&rw->new_rel->rd_node, rw->blk, rw->page);
	else
	{
		/* The checkpointer makes it durable: ask for the sync. */
		PageSetChecksumInplace(rw->page, rw->blk);
		smgrextend(RelationGetSmgr(rw->new_rel), MAIN_FORKNUM, rw->blk,
				   (char *) rw->page, false);
	}
	rw->blk++;
	rw->page_used = false;
}

/* Take values out of line if the tuple is too long, or belong to another
 * table's TOAST. */
static HeapTuple
toast_if_needed(AuroraRewrite *rw, HeapTuple tuple)
{
	if (rw->new_rel->rd_rel->relkind == RELKIND_TOASTVALUE)
	{
		Assert(!HeapTupleHasExternal(tuple));
		return tuple;
	}
	if (!HeapTupleHasExternal(tuple) && tuple->t_len <= TOAST_TUPLE_THRESHOLD)
		return tuple;
	return aurora_toast_insert_or_update(rw->new_rel, tuple, NULL,
										 HEAP_INSERT_SKIP_FSM |
										 HEAP_INSERT_NO_LOGICAL);
}

/* Store the tuple; an invalid t_ctid becomes its own TID.  Returns the TID. */
static ItemPointerData
store_tuple(AuroraRewrite *rw, HeapTuple tuple)
{
	HeapTuple	stored = toast_if_needed(rw, tuple);
	Size		len = MAXALIGN(stored->t_len);
	OffsetNumber off;
	ItemPointerData tid;

	if (len > MaxHeapTupleSize)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("row is too big: size %zu, maximum size %zu",
						len, MaxHeapTupleSize)));
	if (rw->page_used && len + rw->keep_free > PageGetHeapFreeSpace(rw->page))
		write_page(rw);
	if (!rw->page_used)
	{
		PageInit(rw->page, BLCKSZ, 0);
		rw->page_used = true;
	}

	off = PageAddItem(rw->page, (Item) stored->t_data, stored->t_len,
					  InvalidOffsetNumber, false, true);
	if (!OffsetNumberIsValid(off))
		elog(ERROR, "could not add a tuple of %u bytes to block %u of \"%s\"",
			 stored->t_len, rw->blk, RelationGetRelationName(rw->new_rel));
	ItemPointerSet(&tid, rw->blk, off);
	if (!ItemPointerIsValid(&stored->t_data->t_ctid))
	{
		ItemId		lp = PageGetItemId(rw->page, off);

		((HeapTupleHeader) PageGetItem(rw->page, lp))->t_ctid = tid;
	}
	if (stored != tuple)
		heap_freetuple(stored);
	return tid;
}

/* ---- chains ----------------------------------------------------------- */

/* Give the copy the original's visibility, frozen where it can be. */
static void
copy_visibility(AuroraRewrite *rw, HeapTupleHeader from, HeapTupleHeader to)
{
	to->t_choice.t_heap = from->t_choice.t_heap;
	to->t_infomask &= ~HEAP_XACT_MASK;
	to->t_infomask |= from->t_infomask & HEAP_XACT_MASK;
	to->t_infomask2 &= ~HEAP2_XACT_MASK;	/* no HOT flags */
	heap_freeze_tuple(to, rw->old_rel->rd_rel->relfrozenxid,
					  rw->old_rel->rd_rel->relminmxid,
					  rw->freeze_limit, rw->multi_cutoff);
	ItemPointerSetInvalid(&to->t_ctid);
}

/* Does another version follow this tuple in the old table? */
static bool
has_successor(HeapTuple tuple)
{
	HeapTupleHeader htup = tuple->t_data;

	if ((htup->t_infomask & HEAP_XMAX_INVALID) ||
		HeapTupleHeaderIsOnlyLocked(htup) ||
		HeapTupleHeaderIndicatesMovedPartitions(htup))
		return false;
	return !ItemPointerEquals(&tuple->t_self, &htup->t_ctid);
}

/*
 * Lead new_tuple to its successor's new place.  False if that is not known
 * yet: then a copy of it waits.
 */
static bool
link_to_successor(AuroraRewrite *rw, HeapTuple old_tuple, HeapTuple new_tuple)
{
	ChainKey	key = chain_key(HeapTupleHeaderGetUpdateXid(old_tuple->t_data),
								&old_tuple->t_data->t_ctid);
	PlacedTuple *placed = hash_search(rw->placed, &key, HASH_FIND, NULL);
	WaitingTuple *waiting;
	MemoryContext before;
	bool		found;

	if (placed != NULL)
	{
		new_tuple->t_data->t_ctid = placed->new_tid;
		hash_search(rw->placed, &key, HASH_REMOVE, NULL);
		return true;
	}

	waiting = hash_search(rw->waiting, &key, HASH_ENTER, &found);
	if (found)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("two row versions of \"%s\" claim the same successor (%u,%u)",
						RelationGetRelationName(rw->old_rel),
						ItemPointerGetBlockNumber(&key.tid),
						ItemPointerGetOffsetNumber(&key.tid))));
	before = MemoryContextSwitchTo(rw->cxt);
	waiting->old_tid = old_tuple->t_self;
	waiting->tuple = heap_copytuple(new_tuple);
	MemoryContextSwitchTo(before);
	return false;
}

/*
 * Could an older version of this row be copied, too?  The older one's xmax is
 * this one's xmin, so it is dead to all if that is old enough.
 */
static bool
may_have_predecessor(AuroraRewrite *rw, HeapTupleHeader htup)
{
	return (htup->t_infomask & HEAP_UPDATED) != 0 &&
		!TransactionIdPrecedes(HeapTupleHeaderGetXmin(htup), rw->oldest_xmin);
}

/* Store a tuple, then whoever waited for it, and so on up the chain. */
static void
store_chain(AuroraRewrite *rw, ItemPointerData old_tid, HeapTuple tuple)
{
	HeapTuple	waited = NULL;	/* to be freed: `tuple` came from `waiting` */

	for (;;)
	{
		ItemPointerData new_tid = store_tuple(rw, tuple);
		ChainKey	key;
		WaitingTuple *waiting;
		HeapTuple	next = NULL;

		if (may_have_predecessor(rw, tuple->t_data))
		{
			key = chain_key(HeapTupleHeaderGetXmin(tuple->t_data), &old_tid);
			waiting = hash_search(rw->waiting, &key, HASH_FIND, NULL);
			if (waiting != NULL)
			{
				next = waiting->tuple;
				next->t_data->t_ctid = new_tid;
				old_tid = waiting->old_tid;
				hash_search(rw->waiting, &key, HASH_REMOVE, NULL);
			}
			else
			{
				PlacedTuple *placed = hash_search(rw->placed, &key,
												  HASH_ENTER, NULL);

				placed->new_tid = new_tid;
			}
		}
		if (waited != NULL)
			heap_freetuple(waited);
		if (next == NULL)
			break;
		tuple = waited = next;
	}
}

void
aurora_rewrite_tuple(AuroraRewrite *rw, HeapTuple old_tuple, HeapTuple new_tuple)
{
	MemoryContext before = MemoryContextSwitchTo(rw->tuple_cxt);

	copy_visibility(rw, old_tuple->t_data, new_tuple->t_data);
	if (!has_successor(old_tuple) || link_to_successor(rw, old_tuple, new_tuple))
		store_chain(rw, old_tuple->t_self, new_tuple);
	MemoryContextSwitchTo(before);
	MemoryContextReset(rw->tuple_cxt);
}

/*
 * A dead tuple's predecessor looked only recently dead if its xmax is newer
 * than this one's: valid, though odd.  The opposite order of arrival leaves a
 * tuple in `waiting` until the end, as does a successor that was vacuumed.
 */
bool
aurora_rewrite_dead_tuple(AuroraRewrite *rw, HeapTuple old_tuple)
{
	ChainKey	key = chain_key(HeapTupleHeaderGetXmin(old_tuple->t_data),
								&old_tuple->t_self);
	WaitingTuple *waiting = hash_search(rw->waiting, &key, HASH_FIND, NULL);

	if (waiting == NULL)
		return false;
	heap_freetuple(waiting->tuple);
	hash_search(rw->waiting, &key, HASH_REMOVE, NULL);
	return true;
}

void
aurora_rewrite_end(AuroraRewrite *rw)
{
	HASH_SEQ_STATUS seq;
	WaitingTuple *waiting;

	/* Most likely dead, but nobody proved it: keep them, as ends of chains. */
	hash_seq_init(&seq, rw->waiting);
	while ((waiting = hash_seq_search(&seq)) != NULL)
	{
		ItemPointerSetInvalid(&waiting->tuple->t_data->t_ctid);
		store_tuple(rw, waiting->tuple);
	}
	if (rw->page_used)
		write_page(rw);
	MemoryContextDelete(rw->cxt);
}
