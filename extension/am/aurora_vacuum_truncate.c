/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_vacuum_truncate.c: VACUUM gives empty pages at the table's end back.
 *
 * Needs AccessExclusiveLock, so it is polite: it takes the lock only when free
 * for the asking within a bounded time, looks regularly whether somebody
 * waits behind it, lets go then, and comes back for the rest.
 *
 * Invariants:
 *  1. Only pages seen empty under AccessExclusiveLock are cut off.
 *  2. The lock is waited for no longer than LOCK_TIMEOUT_MS, and once somebody
 *     waits for it, held no longer than WAITER_CHECK_MS and one read-ahead.
 */
#include "postgres.h"

#include "commands/progress.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/backend_progress.h"
#include "utils/snapmgr.h"
#include "utils/wait_event.h"

#include "am/aurora_vacuum_private.h"

/* It must be worth the lock: this many pages or this part of the table. */
#define WORTHWHILE_PAGES 1000
#define WORTHWHILE_FRACTION 16

#define LOCK_RETRY_MS 50
#define LOCK_TIMEOUT_MS 5000
#define WAITER_CHECK_MS 20
#define LOOK_ROUND_PAGES 16		/* how often the time is asked for */

static bool
worthwhile(AuroraVacuum *v)
{
	BlockNumber freeable = v->rel_pages - v->nonempty_pages;

	/* With old_snapshot_threshold a scan that cannot find a page any more
	 * could not tell that its snapshot is too old: as heap, leave it. */
	if (!v->do_truncate || v->failsafe || old_snapshot_threshold >= 0)
		return false;
	return freeable > 0 &&
		(freeable >= WORTHWHILE_PAGES ||
		 freeable >= v->rel_pages / WORTHWHILE_FRACTION);
}

static bool
lock_within_bounds(AuroraVacuum *v)
{
	for (int waited_ms = 0;; waited_ms += LOCK_RETRY_MS)
	{
		if (ConditionalLockRelation(v->rel, AccessExclusiveLock))
			return true;
		CHECK_FOR_INTERRUPTS();
		if (waited_ms >= LOCK_TIMEOUT_MS)
			break;
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 LOCK_RETRY_MS, WAIT_EVENT_VACUUM_TRUNCATE);
		ResetLatch(MyLatch);
	}
	ereport(v->verbose ? INFO : DEBUG2,
			(errmsg("\"%s\": stopping truncate due to conflicting lock request",
					v->relname)));
	return false;
}

/* Any line pointer in use, even a dead one, keeps the page: index entries may
 * lead to it. */
static bool
page_in_use(AuroraVacuum *v, AuroraAhead *ahead, BlockNumber blk)
{
	Buffer		buffer = aurora_ahead_read(ahead, blk, v->bstrategy);
	Page		page = BufferGetPage(buffer);
	bool		in_use = false;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	if (!PageIsNew(page))
	{
		OffsetNumber maxoff = PageGetMaxOffsetNumber(page);

		for (OffsetNumber off = FirstOffsetNumber; off <= maxoff && !in_use; off++)
			in_use = ItemIdIsUsed(PageGetItemId(page, off));
	}
	UnlockReleaseBuffer(buffer);
	return in_use;
}

/* Does anybody wait for our lock?  Asked at most every WAITER_CHECK_MS. */
static bool
somebody_waits(AuroraVacuum *v, instr_time *asked)
{
	instr_time	now;
	instr_time	elapsed;

	INSTR_TIME_SET_CURRENT(now);
	elapsed = now;
	INSTR_TIME_SUBTRACT(elapsed, *asked);
	if (INSTR_TIME_GET_MILLISEC(elapsed) < WAITER_CHECK_MS)
		return false;
	*asked = now;
	return LockHasWaitersRelation(v->rel, AccessExclusiveLock);
}

/* Read-ahead goes back from the end to the last page known to be in use. */
static BlockNumber
next_backwards(void *arg, BlockNumber after)
{
	AuroraVacuum *v = arg;

	return after > v->nonempty_pages ? after - 1 : InvalidBlockNumber;
}

/*
 * Going back from the end, find the last page in use; returns the length the
 * table can be cut to.  *interrupted: we stopped early because somebody waits.
 * No cost-based delay here: the lock is in everybody's way.
 */
static BlockNumber
find_new_end(AuroraVacuum *v, AuroraAhead *ahead, bool *interrupted)
{
	BlockNumber end = v->rel_pages;
	instr_time	asked;

	INSTR_TIME_SET_CURRENT(asked);
	while (end > v->nonempty_pages)
	{
		BlockNumber blk = end - 1;

		CHECK_FOR_INTERRUPTS();
		if (blk % LOOK_ROUND_PAGES == 0 && somebody_waits(v, &asked))
		{
			ereport(v->verbose ? INFO : DEBUG2,
					(errmsg("table \"%s\": suspending truncate due to conflicting lock request",
							v->relname)));
			*interrupted = true;
			return end;
		}
		if (page_in_use(v, ahead, blk))
			return end;
		end = blk;
	}
	return end;
}

/* One try under the lock.  True if it was cut short and should be repeated. */
static bool
truncate_once(AuroraVacuum *v)
{
	BlockNumber old_end = v->rel_pages;
	BlockNumber new_end;
	bool		interrupted = false;
	AuroraAhead ahead;

	if (!lock_within_bounds(v))
		return false;

	/* Pages added meanwhile surely have tuples. */
	if (aurora_nblocks(v->rel) != old_end)
	{
		UnlockRelation(v->rel, AccessExclusiveLock);
		return false;
	}
	aurora_ahead_init(&ahead, v->rel, CurrentMemoryContext, true,
					  next_backwards, v);
	new_end = find_new_end(v, &ahead, &interrupted);
	aurora_ahead_end(&ahead);
	v->place.blk = new_end;
	if (new_end < old_end)
		aurora_truncate(v->rel, new_end);
	UnlockRelation(v->rel, AccessExclusiveLock);
	if (new_end >= old_end)
		return false;

	v->removed_pages += old_end - new_end;
	v->rel_pages = new_end;
	ereport(v->verbose ? INFO : DEBUG2,
			(errmsg("table \"%s\": truncated %u to %u pages",
					v->relname, old_end, new_end)));
	return interrupted && new_end > v->nonempty_pages;
}

void
aurora_vacuum_truncate(AuroraVacuum *v)
{
	if (!worthwhile(v))
		return;
	pgstat_progress_update_param(PROGRESS_VACUUM_PHASE,
								 PROGRESS_VACUUM_PHASE_TRUNCATE);
	vacuum_enter(v, VACUUM_PHASE_TRUNCATE, v->nonempty_pages);
	while (truncate_once(v))
		;
}
