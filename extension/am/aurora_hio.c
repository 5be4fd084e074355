/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_hio.c: find a page with room for a new tuple.
 *
 * Candidates are asked in this order, as heap does:
 *
 *	the page of the last insertion -> free space map -> last page -> new page
 *	        |                             ^    |
 *	        +--- too full: tell the map --+----+
 *
 * Each candidate that proves too full has its true free space recorded in the
 * map before the next one is asked for, so the search ends.
 *
 * Invariants:
 *  1. Pages are read, map pages pinned and the free space map asked without
 *     holding a content lock; then both pages are locked, lower block first,
 *     and everything that was looked at before is looked at again.  (A bulk
 *     load of frozen rows pins the map page of a page that it has just added
 *     while it holds that page's lock, which nobody waits for.)
 *  2. On return the page has room for the tuple, and every returned page that
 *     is all-visible has its map page pinned.
 *  3. The map is a local file that may be ahead of the relation after a crash
 *     (or behind it); a block it names is used only if it exists.
 */
#include "postgres.h"

#include "access/visibilitymap.h"
#include "am/aurora_am.h"
#include "am/aurora_write.h"
#include "storage/freespace.h"
#include "storage/lmgr.h"

/* Pages added for others who wait for the extension lock, each, and at most. */
#define EXTRA_PAGES_PER_WAITER 4
#define EXTRA_PAGES_MAX 64

/* One search. */
typedef struct PageSearch
{
	Relation	rel;
	Size		len;			/* of the tuple, aligned */
	Size		target_free;	/* what a page must offer: fillfactor included */
	bool		use_fsm;
	bool		frozen;			/* HEAP_INSERT_FROZEN */
	BulkInsertState bistate;
	Buffer		other;			/* a second page to lock, or InvalidBuffer */
	Buffer	   *vmbuffer;
	Buffer	   *vmbuffer_other;
} PageSearch;

static void
search_start(PageSearch *s, Relation rel, Size len, Buffer other, int options,
			 BulkInsertState bistate, Buffer *vmbuffer, Buffer *vmbuffer_other)
{
	Size		fill_reserve;
	Size		nearly_empty;

	s->rel = rel;
	s->len = MAXALIGN(len);
	s->use_fsm = !(options & HEAP_INSERT_SKIP_FSM);
	s->frozen = (options & HEAP_INSERT_FROZEN) != 0;
	s->bistate = bistate;
	s->other = other;
	s->vmbuffer = vmbuffer;
	s->vmbuffer_other = vmbuffer_other;

	if (s->len > MaxHeapTupleSize)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("row is too big: size %zu, maximum size %zu",
						s->len, MaxHeapTupleSize)));

	/*
	 * Leave the fillfactor's part free, but not when that would ask for more
	 * than an empty page has.  A page counts as empty even with some line
	 * pointers left over from tuples that are gone.
	 */
	fill_reserve = RelationGetTargetPageFreeSpace(rel, HEAP_DEFAULT_FILLFACTOR);
	nearly_empty = MaxHeapTupleSize -
		(MaxHeapTuplesPerPage / 8 * sizeof(ItemIdData));
	if (s->len + fill_reserve > nearly_empty)
		s->target_free = Max(s->len, nearly_empty);
	else
		s->target_free = s->len + fill_reserve;
}

/* ---- which block ------------------------------------------------------ */

/* A block the free space map names, or InvalidBlockNumber.  Entries beyond
 * the end are corrected on the way. */
static BlockNumber
existing_block(PageSearch *s, BlockNumber blk)
{
	while (BlockNumberIsValid(blk) && blk >= aurora_nblocks(s->rel))
		blk = RecordAndGetPageWithFreeSpace(s->rel, blk, 0, s->target_free);
	return blk;
}

static BlockNumber
first_candidate(PageSearch *s)
{
	BlockNumber blk;
	BlockNumber nblocks;

	if (s->bistate && BufferIsValid(s->bistate->current_buf))
		return BufferGetBlockNumber(s->bistate->current_buf);
	blk = RelationGetTargetBlock(s->rel);
	if (BlockNumberIsValid(blk))
		return blk;
	if (s->use_fsm)
	{
		blk = existing_block(s, GetPageWithFreeSpace(s->rel, s->target_free));
		if (BlockNumberIsValid(blk))
			return blk;
	}
	/* the map may know nothing yet: don't start a page for every session */
	nblocks = aurora_nblocks(s->rel);
	return nblocks > 0 ? nblocks - 1 : InvalidBlockNumber;
}

/* ---- pins and locks --------------------------------------------------- */

/* The bulk insert state keeps its own pin on the page it fills. */
static void
bistate_remember(BulkInsertState bistate, Buffer buffer)
{
	if (BufferIsValid(bistate->current_buf))
		ReleaseBuffer(bistate->current_buf);
	IncrBufferRefCount(buffer);
	bistate->current_buf = buffer;
}

static Buffer
read_candidate(PageSearch *s, BlockNumber blk)
{
	BulkInsertState bistate = s->bistate;
	Buffer		buffer;

	if (bistate == NULL)
		return aurora_read_buffer(s->rel, blk, NULL);

	if (BufferIsValid(bistate->current_buf))
	{
		if (BufferGetBlockNumber(bistate->current_buf) == blk)
		{
			IncrBufferRefCount(bistate->current_buf);
			return bistate->current_buf;
		}
		ReleaseBuffer(bistate->current_buf);
		bistate->current_buf = InvalidBuffer;
	}
	buffer = aurora_read_buffer(s->rel, blk, bistate->strategy);
	bistate_remember(bistate, buffer);
	return buffer;
}

static void
lock_pages(PageSearch *s, Buffer buffer)
{
	Buffer		first = buffer;
	Buffer		second = s->other;

	if (!BufferIsValid(second) || second == buffer)
	{
		LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
		return;
	}
	if (BufferGetBlockNumber(second) < BufferGetBlockNumber(first))
	{
		first = s->other;
		second = buffer;
	}
	LockBuffer(first, BUFFER_LOCK_EXCLUSIVE);
	LockBuffer(second, BUFFER_LOCK_EXCLUSIVE);
}

static void
unlock_pages(PageSearch *s, Buffer buffer)
{
	LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
	if (BufferIsValid(s->other) && s->other != buffer)
		LockBuffer(s->other, BUFFER_LOCK_UNLOCK);
}

/* An unlocked look.  If both are the same page it is pinned for both: the
 * caller may use either. */
static void
pin_maps(PageSearch *s, Buffer buffer)
{
	if (PageIsAllVisible(BufferGetPage(buffer)))
		visibilitymap_pin(s->rel, BufferGetBlockNumber(buffer), s->vmbuffer);
	if (BufferIsValid(s->other) &&
		PageIsAllVisible(BufferGetPage(s->other)))
		visibilitymap_pin(s->rel, BufferGetBlockNumber(s->other),
						  s->vmbuffer_other);
}

static bool
maps_ready(PageSearch *s, Buffer buffer)
{
	return aurora_map_pin_ok(buffer, *s->vmbuffer) &&
		(!BufferIsValid(s->other) ||
		 aurora_map_pin_ok(s->other, *s->vmbuffer_other));
}

/*
 * The pages are locked; one may have become all-visible since it was looked
 * at without the lock.  Then the locks are given up to pin its map page, for
 * which a page may have to be read.  A second round is the most it takes.
 */
static void
settle_maps(PageSearch *s, Buffer buffer)
{
	while (!maps_ready(s, buffer))
	{
		unlock_pages(s, buffer);
		pin_maps(s, buffer);
		lock_pages(s, buffer);
	}
}

/*
 * Pin and lock a candidate (and the other page).  Returns the buffer if it
 * has room; else InvalidBuffer, all locks and the pin released, and *free the
 * room it has.
 */
static Buffer
try_candidate(PageSearch *s, BlockNumber blk, Size *free)
{
	bool		is_other = BufferIsValid(s->other) &&
		BufferGetBlockNumber(s->other) == blk;
	Buffer		buffer = is_other ? s->other : read_candidate(s, blk);

	pin_maps(s, buffer);
	/* a bulk load may want to set the bits of an empty page later on */
	if (s->frozen && PageGetMaxOffsetNumber(BufferGetPage(buffer)) == 0)
		visibilitymap_pin(s->rel, blk, s->vmbuffer);
	lock_pages(s, buffer);
	settle_maps(s, buffer);

	*free = aurora_page_free(BufferGetPage(buffer));
	if (*free >= s->target_free)
		return buffer;

	unlock_pages(s, buffer);
	if (!is_other)
		ReleaseBuffer(buffer);
	return InvalidBuffer;
}

/* ---- a new page ------------------------------------------------------- */

/* Caller holds the relation extension lock. */
static void
add_pages_for_waiters(PageSearch *s)
{
	int			n = RelationExtensionLockWaiterCount(s->rel);
	BlockNumber first = InvalidBlockNumber;
	BlockNumber blk = InvalidBlockNumber;

	n = Min(n * EXTRA_PAGES_PER_WAITER, EXTRA_PAGES_MAX);
	while (n-- > 0)
	{
		Buffer		buffer = aurora_extend(s->rel,
										   s->bistate ? s->bistate->strategy : NULL);
		Size		free = aurora_page_free(BufferGetPage(buffer));

		blk = BufferGetBlockNumber(buffer);
		if (!BlockNumberIsValid(first))
			first = blk;
		UnlockReleaseBuffer(buffer);
		/* at once, so that those who wait find it when their turn comes */
		RecordPageWithFreeSpace(s->rel, blk, free);
	}
	if (BlockNumberIsValid(first))
		FreeSpaceMapVacuumRange(s->rel, first, blk + 1);
}

/*
 * The relation has to grow.  If others are growing it, wait for them and see
 * whether they left a page; returns that block, or InvalidBlockNumber if we
 * must add our own.
 */
static BlockNumber
wait_for_extenders(PageSearch *s)
{
	BlockNumber blk;

	if (RELATION_IS_LOCAL(s->rel) || !s->use_fsm)
		return InvalidBlockNumber;
	if (!ConditionalLockRelationForExtension(s->rel, ExclusiveLock))
	{
		LockRelationForExtension(s->rel, ExclusiveLock);
		blk = existing_block(s, GetPageWithFreeSpace(s->rel, s->target_free));
		if (BlockNumberIsValid(blk))
		{
			UnlockRelationForExtension(s->rel, ExclusiveLock);
			return blk;
		}
		add_pages_for_waiters(s);
	}
	UnlockRelationForExtension(s->rel, ExclusiveLock);
	return InvalidBlockNumber;
}

/*
 * Add a page and return it locked, the other one as well; InvalidBuffer, with
 * nothing locked, in the rare case that others filled it already.
 */
static Buffer
extend(PageSearch *s)
{
	Buffer		buffer;

	buffer = aurora_extend(s->rel, s->bistate ? s->bistate->strategy : NULL);
	if (s->bistate)
		bistate_remember(s->bistate, buffer);
	if (s->frozen)
		visibilitymap_pin(s->rel, BufferGetBlockNumber(buffer), s->vmbuffer);
	if (!BufferIsValid(s->other))
		return buffer;

	/*
	 * The other page is the lower one and should be locked first; but that
	 * would leave our new page open to others.  Without waiting no deadlock
	 * can come of the wrong order, and it succeeds nearly always.
	 */
	Assert(BufferGetBlockNumber(s->other) < BufferGetBlockNumber(buffer));
	if (!ConditionalLockBuffer(s->other))
	{
		LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
		lock_pages(s, buffer);
	}
	settle_maps(s, buffer);
	if (aurora_page_free(BufferGetPage(buffer)) >= s->len)
		return buffer;

	unlock_pages(s, buffer);
	ReleaseBuffer(buffer);
	return InvalidBuffer;
}

/*
 * Raises errors, so it must be called before anything is changed.
 */
Buffer
aurora_page_for_tuple(Relation rel, Size len, Buffer otherBuffer, int options,
					  BulkInsertState bistate, Buffer *vmbuffer,
					  Buffer *vmbuffer_other)
{
	PageSearch	s;
	BlockNumber blk;
	Buffer		buffer = InvalidBuffer;
	Size		free;

	Assert(!BufferIsValid(otherBuffer) || bistate == NULL);
	search_start(&s, rel, len, otherBuffer, options, bistate, vmbuffer,
				 vmbuffer_other);

	blk = first_candidate(&s);
	for (;;)
	{
		while (BlockNumberIsValid(blk))
		{
			buffer = try_candidate(&s, blk, &free);
			if (BufferIsValid(buffer))
				break;
			if (!s.use_fsm)
				blk = InvalidBlockNumber;
			else
				blk = existing_block(&s,
									 RecordAndGetPageWithFreeSpace(rel, blk, free,
																   s.target_free));
		}
		if (BufferIsValid(buffer))
			break;
		blk = wait_for_extenders(&s);
		if (BlockNumberIsValid(blk))
			continue;
		buffer = extend(&s);
		if (BufferIsValid(buffer))
			break;
	}

	/*
	 * A new page is not put into the free space map yet: this session will
	 * most likely fill it.
	 */
	RelationSetTargetBlock(rel, BufferGetBlockNumber(buffer));
	return buffer;
}
