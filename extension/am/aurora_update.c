/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_update.c: replace a tuple by a new version.
 *
 *	      lock old page
 *	          |
 *	+---> may we? --no--> fail
 *	|         |yes (slept for those in the way: start over if they changed)
 *	|         |
 *	|     fits on the old page, no TOAST work ------------------------+
 *	|         |no                                                     |
 *	|     mark the old tuple as locked by us, log it, unlock          |
 *	|     TOAST the new version; find a page; lock both pages         |
 *	|         |                                                       |
 *	|     both marks made anew if another locker has joined us        |
 *	|         +<------------------------------------------------------+
 *	|     one record: new tuple added, old one's header points to it
 *
 * Invariants:
 *  1. The decision that the tuple may be replaced and the change are under
 *     one unbroken content lock; or, if the lock must be given up in between,
 *     the tuple is marked as locked by us meanwhile, and logged as such.
 *  2. Holders that still count keep their place in the old version's xmax,
 *     key-share lockers also in the new one's.
 *  3. The new version is heap-only if and only if it is on the old one's page
 *     and no indexed column changed.
 *  4. Lower block first when two pages are locked (aurora_page_for_tuple).
 */
#include "postgres.h"

#include "access/heaptoast.h"
#include "access/sysattr.h"
#include "access/visibilitymap.h"
#include "access/xact.h"
#include "am/aurora_am.h"
#include "am/aurora_write.h"
#include "nodes/bitmapset.h"
#include "pgstat.h"
#include "ship/aurora_ship.h"
#include "storage/predicate.h"
#include "utils/datum.h"
#include "utils/relcache.h"

/* A delta pays if it spares more than the numbers it needs. */
#define DELTA_OVERHEAD (15 - 5)

typedef struct Update
{
	AuroraTarget t;				/* the old version */
	HeapTuple	newtup;			/* the caller's */
	HeapTuple	stored;			/* what is stored: newtup or a TOASTed copy */
	TransactionId xid;
	CommandId	cid;
	LockTupleMode mode;
	bool		same_index_values;	/* HOT is possible */
	bool		lockers_gone;

	AuroraCmax	cmax;			/* for the old version */
	AuroraXmaxMark old_mark;
	AuroraXmaxMark new_mark;

	Buffer		newbuf;			/* t.buffer if it stays on its page */
	Buffer		vmbuffer_new;
} Update;

/* ---- which columns ---------------------------------------------------- */

/* Byte for byte: types may have several notions of equality, and no function
 * of theirs may be called under a content lock. */
static bool
column_changed(TupleDesc desc, AttrNumber attno, HeapTuple old, HeapTuple new)
{
	Datum		oldval,
				newval;
	bool		oldnull,
				newnull;
	Form_pg_attribute att;

	/*
	 * Whole-row references and system columns count as changed, but for
	 * tableoid, which cannot change.
	 */
	if (attno == TableOidAttributeNumber)
		return false;
	if (attno <= 0)
		return true;

	oldval = heap_getattr(old, attno, desc, &oldnull);
	newval = heap_getattr(new, attno, desc, &newnull);
	if (oldnull || newnull)
		return oldnull != newnull;
	att = TupleDescAttr(desc, attno - 1);
	return !datumIsEqual(oldval, newval, att->attbyval, att->attlen);
}

/* Any of these columns (a bitmap as the relcache makes them)? */
static bool
any_changed(Update *u, Bitmapset *attrs)
{
	TupleDesc	desc = RelationGetDescr(u->t.rel);
	int			bit = -1;

	while ((bit = bms_next_member(attrs, bit)) >= 0)
	{
		AttrNumber	attno = bit + FirstLowInvalidHeapAttributeNumber;

		if (column_changed(desc, attno, &u->t.tuple, u->newtup))
			return true;
	}
	return false;
}

/* ---- may we? ---------------------------------------------------------- */

/*
 * Sleeps for those who are in the way.  Content lock held before and after;
 * on TM_Ok the map page is pinned if needed.
 */
static TM_Result
decide(Update *u, Snapshot crosscheck, bool wait)
{
	AuroraTarget *t = &u->t;
	TM_Result	result;

	for (;;)
	{
		u->lockers_gone = false;
		result = aurora_tuple_satisfies_update(&t->tuple, u->cid, t->buffer);
		if (result == TM_Invisible)
		{
			aurora_target_unlock(t);
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("attempted to update invisible tuple")));
		}
		if (result == TM_BeingModified && wait)
		{
			if (!aurora_target_wait(t, u->mode, XLTW_Update, &u->lockers_gone))
				continue;
			result = aurora_xmax_verdict(&t->tuple);
		}
		/* repeatable read: referential integrity has a second snapshot */
		if (result == TM_Ok && crosscheck != InvalidSnapshot &&
			!aurora_tuple_visible(&t->tuple, crosscheck, t->buffer))
			result = TM_Updated;
		if (result != TM_Ok || aurora_target_map_ready(t))
			return result;
		/* the lock was given up to pin the map page */
	}
}

/* ---- marks ------------------------------------------------------------ */

/* The old version as updated by us, the new one as locked by who remains. */
static void
make_marks(Update *u)
{
	AuroraXmax	old;

	aurora_xmax_read(u->t.tuple.t_data, &old);
	aurora_xmax_add(&old, u->xid, u->mode, true, &u->old_mark);
	aurora_xmax_inherit(&old, u->lockers_gone, &u->new_mark);
}

static void
set_new_header(Update *u, HeapTuple tup, bool heap_only)
{
	HeapTupleHeader t = tup->t_data;

	t->t_infomask &= ~HEAP_XACT_MASK;
	t->t_infomask2 &= ~HEAP2_XACT_MASK;
	t->t_infomask |= HEAP_UPDATED | u->new_mark.infomask;
	t->t_infomask2 |= u->new_mark.infomask2;
	if (heap_only)
		t->t_infomask2 |= HEAP_ONLY_TUPLE;
	HeapTupleHeaderSetXmin(t, u->xid);
	HeapTupleHeaderSetCmin(t, u->cid);
	HeapTupleHeaderSetXmax(t, u->new_mark.xmax);
}

/*
 * Keep others from changing the old version while its page is unlocked: it
 * looks locked by us, not updated yet.  This is logged, since our xid must
 * not be on a page without a record of it; if we fail before the update, it
 * is the lock of an aborted transaction.  *locked: what the header says then.
 */
static void
lock_old_version(Update *u, AuroraXmax *locked)
{
	AuroraTarget *t = &u->t;
	AuroraXmax	old;
	AuroraXmaxMark mark;
	AuroraChange *change;

	aurora_xmax_read(t->tuple.t_data, &old);
	aurora_xmax_add(&old, u->xid, u->mode, false, &mark);
	Assert(HEAP_XMAX_IS_LOCKED_ONLY(mark.infomask));

	change = aurora_change_begin(t->rel, AU_XLOG_LOCK);
	aurora_target_put_mark(t, aurora_change_page(change, t->buffer), &mark,
						   &u->cmax, false, &t->tuple.t_self);
	aurora_clear_frozen(change, t->rel, t->buffer, t->vmbuffer);
	aurora_change_commit(change);
	aurora_xmax_read(t->tuple.t_data, locked);
}

/* ---- where the new version goes --------------------------------------- */

/*
 * Both pages are unlocked.  Locks the page for the new version, and the old
 * one's if that is another.  Someone may have taken room on the old page
 * since we looked, or set its all-visible flag: then around again.
 */
static void
choose_page(Update *u, Size page_free)
{
	AuroraTarget *t = &u->t;
	Size		need = MAXALIGN(u->stored->t_len);

	/* if there was no room before, there is hardly any now */
	while (need <= page_free)
	{
		if (PageIsAllVisible(BufferGetPage(t->buffer)))
			visibilitymap_pin(t->rel, t->block, &t->vmbuffer);
		aurora_target_lock(t);
		page_free = PageGetHeapFreeSpace(BufferGetPage(t->buffer));
		if (need <= page_free && aurora_map_pin_ok(t->buffer, t->vmbuffer))
		{
			u->newbuf = t->buffer;
			return;
		}
		aurora_target_unlock(t);
	}
	u->newbuf = aurora_page_for_tuple(t->rel, u->stored->t_len, t->buffer, 0,
									  NULL, &u->vmbuffer_new, &t->vmbuffer);
}

/*
 * The new version needs TOAST work or another page, for which the old page's
 * lock is given up.
 */
static void
make_room(Update *u, bool need_toast, Size page_free)
{
	AuroraTarget *t = &u->t;
	AuroraXmax	locked;

	lock_old_version(u, &locked);
	aurora_target_unlock(t);

	if (need_toast)
	{
		set_new_header(u, u->newtup, false);
		u->stored = aurora_toast_insert_or_update(t->rel, u->newtup, &t->tuple,
												  0);
	}
	choose_page(u, page_free);

	/*
	 * Our lock let no other changer in, but FOR KEY SHARE agrees with it
	 * unless the key changes: such a locker may have joined us in a
	 * multixact, and must not lose his lock by what we made up before.
	 */
	if (aurora_xmax_changed(t->tuple.t_data, &locked))
	{
		u->lockers_gone = false;
		make_marks(u);
	}
}

/* ---- the change ------------------------------------------------------- */

/*
 * Encode the new version.  On the old one's page only what differs is logged:
 * a header, and what is between the longest common beginning and end.  Both
 * are counted from behind the fixed header, which holds hint bits.
 */
static void
put_new_version(Update *u, AuOps *ops, OffsetNumber off)
{
	const char *old = (const char *) u->t.tuple.t_data;
	const char *new = (const char *) u->stored->t_data;
	Size		oldlen = u->t.tuple.t_len;
	Size		newlen = u->stored->t_len;
	Size		common = Min(oldlen, newlen) - SizeofHeapTupleHeader;
	Size		prefix = 0;
	Size		suffix = 0;

	if (u->newbuf == u->t.buffer)
	{
		const char *oldbody = old + SizeofHeapTupleHeader;
		const char *newbody = new + SizeofHeapTupleHeader;

		while (prefix < common && oldbody[prefix] == newbody[prefix])
			prefix++;
		while (suffix < common - prefix &&
			   old[oldlen - suffix - 1] == new[newlen - suffix - 1])
			suffix++;
	}
	if (prefix + suffix <= DELTA_OVERHEAD)
	{
		au_ops_add(ops, off, newlen, new);
		return;
	}
	au_ops_add_delta(ops, off, ItemPointerGetOffsetNumber(&u->t.tuple.t_self),
					 SizeofHeapTupleHeader, prefix, suffix,
					 SizeofHeapTupleHeader, new,
					 newlen - SizeofHeapTupleHeader - prefix - suffix,
					 new + SizeofHeapTupleHeader + prefix);
}

/* Both pages are locked, their map pages pinned if needed, and there is room. */
static void
write_update(Update *u, bool hot)
{
	AuroraTarget *t = &u->t;
	Page		oldpage = BufferGetPage(t->buffer);
	Page		newpage = BufferGetPage(u->newbuf);
	AuroraRoom	room;
	OffsetNumber off;
	AuroraChange *change;
	AuOps	   *oldops;
	AuOps	   *newops;

	set_new_header(u, u->stored, hot);
	if (u->stored != u->newtup)
		set_new_header(u, u->newtup, hot);

	change = aurora_change_begin(t->rel, hot ? AU_XLOG_HOT_UPDATE :
								 AU_XLOG_UPDATE);
	oldops = aurora_change_page(change, t->buffer);
	newops = aurora_change_page(change, u->newbuf);

	aurora_room_start(&room, newpage);
	if (u->newbuf != t->buffer)
		aurora_room_put_prologue(&room, newops);
	off = aurora_room_take(&room, u->stored->t_len);
	ItemPointerSet(&u->stored->t_self, BufferGetBlockNumber(u->newbuf), off);
	u->stored->t_data->t_ctid = u->stored->t_self;
	put_new_version(u, newops, off);
	aurora_room_put_epilogue(&room, newops);

	/* dead sooner or later, if we commit; and else pruning finds nothing */
	aurora_put_prunable(oldops, oldpage, u->xid);
	/* hint: the next reader might do well to prune it */
	if (u->newbuf != t->buffer && !PageIsFull(oldpage))
		au_ops_flags(oldops, PD_PAGE_FULL, 0);
	aurora_target_put_mark(t, oldops, &u->old_mark, &u->cmax, hot,
						   &u->stored->t_self);

	if (PageIsAllVisible(oldpage))
		aurora_change_clear_vm(change, t->buffer, t->vmbuffer);
	if (u->newbuf != t->buffer && PageIsAllVisible(newpage))
		aurora_change_clear_vm(change, u->newbuf, u->vmbuffer_new);
	aurora_change_commit(change);
}

/* From the decision to the change.  Returns with the pages unlocked. */
static void
replace(Update *u)
{
	AuroraTarget *t = &u->t;
	Size		page_free = PageGetHeapFreeSpace(BufferGetPage(t->buffer));
	bool		need_toast = false;
	bool		hot;

	make_marks(u);
	HeapTupleHeaderAdjustCmax(t->tuple.t_data, &u->cmax.cid, &u->cmax.iscombo);

	if (aurora_rel_toasts(t->rel))
		need_toast = HeapTupleHasExternal(&t->tuple) ||
			HeapTupleHasExternal(u->newtup) ||
			u->newtup->t_len > TOAST_TUPLE_THRESHOLD;
	u->stored = u->newtup;
	u->newbuf = t->buffer;
	if (need_toast || MAXALIGN(u->newtup->t_len) > page_free)
		make_room(u, need_toast, page_free);

	/*
	 * Under the locks until the change is made: no reader slips in between.
	 * The check of the old row covers the table, and so the new row.
	 */
	CheckForSerializableConflictIn(t->rel, &t->tuple.t_self, t->block);

	hot = u->newbuf == t->buffer && u->same_index_values;
	write_update(u, hot);

	if (u->newbuf != t->buffer)
		LockBuffer(u->newbuf, BUFFER_LOCK_UNLOCK);
	aurora_target_unlock(t);
	if (u->newbuf != t->buffer)
		ReleaseBuffer(u->newbuf);
	if (BufferIsValid(u->vmbuffer_new))
		ReleaseBuffer(u->vmbuffer_new);
}

/* Columns that any index looks at.  (PostgreSQL 16 keeps those of summarizing
 * indexes apart, since they need not prevent HOT there; here they do.) */
static Bitmapset *
indexed_columns(Relation rel)
{
#if PG_VERSION_NUM >= 160000
	return bms_join(RelationGetIndexAttrBitmap(rel, INDEX_ATTR_BITMAP_HOT_BLOCKING),
					RelationGetIndexAttrBitmap(rel, INDEX_ATTR_BITMAP_SUMMARIZED));
#else
	return RelationGetIndexAttrBitmap(rel, INDEX_ATTR_BITMAP_ALL);
#endif
}

/* Open the target and learn from the columns which lock it takes. */
static bool
start(Update *u, Relation rel, ItemPointer otid)
{
	Bitmapset  *hot_attrs;
	Bitmapset  *key_attrs;
	bool		found;

	/* before any content lock: these may have to read catalogs */
	hot_attrs = indexed_columns(rel);
	key_attrs = RelationGetIndexAttrBitmap(rel, INDEX_ATTR_BITMAP_KEY);

	found = aurora_target_open(&u->t, rel, otid);
	if (found)
	{
		u->newtup->t_tableOid = RelationGetRelid(rel);

		/* a weaker lock, if it can be: foreign key checks need not wait */
		u->mode = any_changed(u, key_attrs) ? LockTupleExclusive :
			LockTupleNoKeyExclusive;
		u->same_index_values = !any_changed(u, hot_attrs);

		/*
		 * Others may make our xid a member of a multixact as soon as it is on
		 * the page; none older than the oldest one as of now.
		 */
		MultiXactIdSetOldestMember();
	}
	bms_free(hot_attrs);
	bms_free(key_attrs);
	return found;
}

/* As heap_update.  newtup->t_self receives the new version's TID; otid may
 * point there. */
TM_Result
aurora_update(Relation rel, ItemPointer otid, HeapTuple newtup, CommandId cid,
			  Snapshot crosscheck, bool wait, TM_FailureData *tmfd,
			  LockTupleMode *lockmode, bool *update_indexes)
{
	ItemPointerData oldtid = *otid;
	Update		u = {0};
	TM_Result	result;

	Assert(HeapTupleHeaderGetNatts(newtup->t_data) <=
		   RelationGetNumberOfAttributes(rel));
	*update_indexes = false;

	/* Workers could not tell each other about combo command ids. */
	if (IsInParallelMode())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("cannot update tuples during a parallel operation")));
	if (aurora_rel_is_remote(rel))
		aurora_ship_throttle();

	u.xid = GetCurrentTransactionId();
	u.cid = cid;
	u.cmax.cid = cid;
	u.newtup = newtup;
	u.mode = LockTupleExclusive;
	if (start(&u, rel, &oldtid))
		result = decide(&u, crosscheck, wait);
	else
	{
		/* pruned away; its successor, if any, cannot be told any more */
		tmfd->ctid = oldtid;
		tmfd->xmax = InvalidTransactionId;
		tmfd->cmax = InvalidCommandId;
		result = TM_Deleted;
	}
	*lockmode = u.mode;

	if (result != TM_Ok)
	{
		if (u.t.tuple.t_data != NULL)
			aurora_xmax_failure(&u.t.tuple, result, tmfd);
		aurora_target_unlock(&u.t);
		aurora_target_close(&u.t, u.mode);
		return result;
	}

	replace(&u);
	aurora_target_close(&u.t, u.mode);

	*update_indexes = !HeapTupleIsHeapOnly(u.stored);
#if PG_VERSION_NUM >= 160000
	pgstat_count_heap_update(rel, HeapTupleIsHeapOnly(u.stored),
							 u.newbuf != u.t.buffer);
#else
	pgstat_count_heap_update(rel, HeapTupleIsHeapOnly(u.stored));
#endif
	if (u.stored != newtup)
	{
		newtup->t_self = u.stored->t_self;
		heap_freetuple(u.stored);
	}
	return TM_Ok;
}
