/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_write.h: what the files of the write path share (private to it).
 *
 * AuroraTarget is the one existing tuple that an operation is about: found by
 * TID, its page pinned and locked, and its place in the queue for the tuple.
 * AuroraRoom answers where new tuples go on a page that is not changed yet:
 * operations are encoded first and applied together at commit.
 */
#ifndef AURORA_WRITE_H
#define AURORA_WRITE_H

#include "postgres.h"

#include "access/htup_details.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "storage/lmgr.h"
#include "utils/rel.h"

#include "am/aurora_xmax.h"
#include "common/au_page.h"
#include "wal/aurora_change.h"

typedef struct AuroraTarget
{
	Relation	rel;
	BlockNumber block;
	Buffer		buffer;			/* pinned from open to close */
	Buffer		vmbuffer;		/* its map page pinned, or InvalidBuffer */
	HeapTupleData tuple;		/* points into the buffer; the pin keeps it
								 * where it is */
	bool		have_turn;		/* we are first in the queue for the tuple */
} AuroraTarget;

/*
 * Pin and exclusively lock the page of tid and find the tuple.  False if
 * there is no tuple at tid any more (the page is pinned and locked, tuple not
 * set).  If the page is all-visible, its map page is pinned; but see
 * aurora_target_map_ready.
 */
extern bool aurora_target_open(AuroraTarget *t, Relation rel, ItemPointer tid);

/* As above for one that must be there: raises an error if it is not. */
extern void aurora_target_must_open(AuroraTarget *t, Relation rel,
									ItemPointer tid);

static inline void
aurora_target_lock(AuroraTarget *t)
{
	LockBuffer(t->buffer, BUFFER_LOCK_EXCLUSIVE);
}

static inline void
aurora_target_unlock(AuroraTarget *t)
{
	LockBuffer(t->buffer, BUFFER_LOCK_UNLOCK);
}

/* Drop pins and the turn; the page is not locked any more. */
extern void aurora_target_close(AuroraTarget *t, LockTupleMode mode);

/*
 * True if the map page is pinned or not needed.  Else it has been pinned now,
 * for which the content lock was given up for a moment: the caller starts
 * over with what it knows of the tuple.  The lock is held before and after.
 */
extern bool aurora_target_map_ready(AuroraTarget *t);

/*
 * Sleep until no other transaction holds the tuple in a way that keeps us
 * from changing it in `mode`.  Content lock held before and after, not while
 * sleeping.  False if the holders changed in the meantime: start over.
 * *lockers_gone: no holder is left, ours included.
 */
extern bool aurora_target_wait(AuroraTarget *t, LockTupleMode mode,
							   XLTW_Oper oper, bool *lockers_gone);

/* Encode a header change of the target.  cmax may be NULL: leave t_cid. */
typedef struct AuroraCmax
{
	CommandId	cid;
	bool		iscombo;
} AuroraCmax;

extern void aurora_target_put_mark(AuroraTarget *t, AuOps *ops,
								   const AuroraXmaxMark *mark,
								   const AuroraCmax *cmax, bool hot_updated,
								   const ItemPointerData *ctid);

/* The page's oldest prunable xid becomes at most xid. */
extern void aurora_put_prunable(AuOps *ops, Page page, TransactionId xid);

/*
 * A row lock does not change what is visible, so the page stays all-visible;
 * but it is not all-frozen any more.  Map page pinned if all-visible.
 */
extern void aurora_clear_frozen(AuroraChange *change, Relation rel,
								Buffer buffer, Buffer vmbuffer);

/* Does this relation have a TOAST table of its own making (else it is one)? */
static inline bool
aurora_rel_toasts(Relation rel)
{
	return rel->rd_rel->relkind == RELKIND_RELATION ||
		rel->rd_rel->relkind == RELKIND_MATVIEW;
}

/* Is the right map page pinned, if one is needed? */
extern bool aurora_map_pin_ok(Buffer buffer, Buffer vmbuffer);

/* ---- room on a page --------------------------------------------------- */

typedef struct AuroraRoom
{
	Page		page;
	bool		is_new;			/* all zeros: INIT comes first */
	OffsetNumber max;			/* highest line pointer so far */
	OffsetNumber next_unused;	/* where to look for an unused one; 0: none */
	bool		stale_hint;		/* PD_HAS_FREE_LINES promised too much */
	Size		hole;			/* bytes between line pointers and tuples */
} AuroraRoom;

extern void aurora_room_start(AuroraRoom *room, Page page);

/* Bytes for one more tuple, line pointer not counted (as
 * PageGetHeapFreeSpace). */
extern Size aurora_room_free(AuroraRoom *room);

/* Line pointer for the next tuple of len bytes; it must fit. */
extern OffsetNumber aurora_room_take(AuroraRoom *room, Size len);

/* Operations that come before / after the ADDs of this page. */
extern void aurora_room_put_prologue(const AuroraRoom *room, AuOps *ops);
extern void aurora_room_put_epilogue(const AuroraRoom *room, AuOps *ops);

/* Free bytes of a page right now; a new page counts as empty. */
extern Size aurora_page_free(Page page);

#endif							/* AURORA_WRITE_H */
