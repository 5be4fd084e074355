/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_relsize.c: how many blocks a remote relation has.
 *
 * The truth is on storage (highest block that a record registered plus one,
 * since the last truncation); this is a bounded cache of it in shared memory.
 * Sets of WAYS entries, found by hash; within a set the least recently used
 * entry gives way (second chance).  An entry may vanish at any time.
 *
 * Invariants:
 *  1. An entry is the relation's size: whoever changes the size (under the
 *     relation extension lock, or AccessExclusiveLock) publishes it here
 *     before he releases that lock, and in the same breath, under the
 *     partition lock, its LSN as the relation's last-written LSN.
 *  2. A size read from storage as of LSN x enters only if the relation's
 *     last-written LSN, read under the partition lock, is not above x: so a
 *     size fetched before a change never replaces or follows the changed one,
 *     even if the changer's entry was evicted in between.
 *  3. An entry's LSN never goes down, except that a new relation of an old
 *     relation's name starts over (aurora_size_created).
 *
 * Entries of dropped relations stay until they are evicted.  Nobody asks for
 * them: a relfilenode number comes back only through a new relation, which
 * begins with aurora_size_created, or through a new database, for which
 * aurora_size_forget_database made room.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "storage/shmem.h"
#include "storage/smgr.h"

#include "cache/aurora_cache_internal.h"
#include "client/aurora_client.h"
#include "module/aurora_guc.h"

#define WAYS 8
#define PARTITIONS 32

typedef struct SizeEntry
{
	RelFileNode rnode;			/* relNode InvalidOid: free */
	BlockNumber nblocks;
	XLogRecPtr	lsn;			/* of the change, or as of which it was read */
	pg_atomic_uint32 used;		/* looked up since the hand passed */
} SizeEntry;

typedef struct SizeSet
{
	uint32		hand;
	SizeEntry	entry[WAYS];
} SizeSet;

typedef struct RelSizes
{
	LWLockPadded lock[PARTITIONS];
	uint32		mask;			/* number of sets - 1 */
	SizeSet		set[FLEXIBLE_ARRAY_MEMBER];
} RelSizes;

static RelSizes *rel_sizes = NULL;

static uint32
set_count(void)
{
	uint32		sets = (uint32) Max(aurora_size_cache_entries, 1) / WAYS;

	return pg_nextpower2_32(Max(sets, PARTITIONS));
}

Size
aurora_relsize_shmem_size(void)
{
	return add_size(offsetof(RelSizes, set),
					mul_size(set_count(), sizeof(SizeSet)));
}

void
aurora_relsize_shmem_init(void)
{
	static int	tranche = 0;
	bool		found;

	rel_sizes = ShmemInitStruct("aurora relation sizes",
								aurora_relsize_shmem_size(), &found);
	if (found)
		return;
	if (tranche == 0)
		tranche = LWLockNewTrancheId();
	LWLockRegisterTranche(tranche, "AuroraRelationSize");
	MemSet(rel_sizes, 0, aurora_relsize_shmem_size());
	rel_sizes->mask = set_count() - 1;
	for (int i = 0; i < PARTITIONS; i++)
		LWLockInitialize(&rel_sizes->lock[i].lock, tranche);
	for (uint32 s = 0; s <= rel_sizes->mask; s++)
		for (int w = 0; w < WAYS; w++)
			pg_atomic_init_u32(&rel_sizes->set[s].entry[w].used, 0);
}

static SizeSet *
set_of(const RelFileNode *rnode, LWLock **lock)
{
	uint32		h = murmurhash32(rnode->relNode);

	h = hash_combine(h, murmurhash32(rnode->dbNode ^ (rnode->spcNode << 16)));
	h &= rel_sizes->mask;
	*lock = &rel_sizes->lock[h % PARTITIONS].lock;
	return &rel_sizes->set[h];
}

static SizeEntry *
find_entry(SizeSet *set, const RelFileNode *rnode)
{
	for (int w = 0; w < WAYS; w++)
		if (RelFileNodeEquals(set->entry[w].rnode, *rnode))
			return &set->entry[w];
	return NULL;
}

/* A place for a new entry: a free one, else the first that was not used since
 * the hand passed it.  Terminates: the second round finds all unused. */
static SizeEntry *
make_room(SizeSet *set)
{
	SizeEntry  *e;

	for (int w = 0; w < WAYS; w++)
		if (!OidIsValid(set->entry[w].rnode.relNode))
			return &set->entry[w];
	do
	{
		e = &set->entry[set->hand];
		set->hand = (set->hand + 1) % WAYS;
	} while (pg_atomic_exchange_u32(&e->used, 0) != 0);
	return e;
}

static void
fill_entry(SizeEntry *e, const RelFileNode *rnode, BlockNumber nblocks,
		   XLogRecPtr lsn)
{
	e->rnode = *rnode;
	e->nblocks = nblocks;
	e->lsn = lsn;
	pg_atomic_write_u32(&e->used, 1);
}

static bool
cached_size(const RelFileNode *rnode, BlockNumber *nblocks)
{
	LWLock	   *lock;
	SizeSet    *set = set_of(rnode, &lock);
	SizeEntry  *e;

	LWLockAcquire(lock, LW_SHARED);
	e = find_entry(set, rnode);
	if (e != NULL)
	{
		*nblocks = e->nblocks;
		if (pg_atomic_read_u32(&e->used) == 0)
			pg_atomic_write_u32(&e->used, 1);
	}
	LWLockRelease(lock);
	return e != NULL;
}

/*
 * Offer a size read from storage as of as_of; false if it may be outdated.
 * *nblocks becomes the cached size if there is one: it is newer or the same.
 */
static bool
offer_size(const RelFileNode *rnode, BlockNumber *nblocks, XLogRecPtr as_of)
{
	LWLock	   *lock;
	SizeSet    *set = set_of(rnode, &lock);
	SizeEntry  *e;
	bool		good = true;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	e = find_entry(set, rnode);
	if (e != NULL)
		*nblocks = e->nblocks;
	else if (aurora_last_written_get(rnode, InvalidBlockNumber) > as_of)
		good = false;
	else
		fill_entry(make_room(set), rnode, *nblocks, as_of);
	LWLockRelease(lock);
	return good;
}

static BlockNumber
remote_size(const RelFileNode *rnode)
{
	BlockNumber nblocks;

	if (cached_size(rnode, &nblocks))
	{
		aurora_cache_pending.size_hits++;
		return nblocks;
	}
	aurora_cache_pending.size_misses++;

	for (int tries = 0;; tries++)
	{
		XLogRecPtr	not_before;
		XLogRecPtr	read_lsn;
		XLogRecPtr	as_of;
		instr_time	start;

		CHECK_FOR_INTERRUPTS();
		aurora_read_point(rnode, InvalidBlockNumber, &not_before, &read_lsn);
		aurora_wait_start(&start);
		nblocks = aurora_client_get_size(rnode, not_before, read_lsn, &as_of);
		aurora_wait_end(&start, AURORA_FETCH_SIZE);
		if (offer_size(rnode, &nblocks, as_of))
			return nblocks;

		/*
		 * Somebody extended the relation, or another one that shares its
		 * last-written slot, since we looked.  The size was right when it was
		 * read; what callers need beyond that (an extender: the exact size)
		 * the lock they hold gives them: with it held no change of *this*
		 * relation can have come between.  So after a few tries the answer is
		 * used without being cached.
		 */
		if (tries >= 3)
			return nblocks;
	}
}

BlockNumber
aurora_nblocks(Relation rel)
{
	if (!aurora_rel_is_remote(rel))
		return smgrnblocks(RelationGetSmgr(rel), MAIN_FORKNUM);
	return remote_size(&rel->rd_node);
}

/* Publish under the partition lock.  start_over: whatever was known by this
 * name was another relation; bump: only upwards, and only if known. */
static void
publish(const RelFileNode *rnode, BlockNumber nblocks, XLogRecPtr lsn,
		bool start_over, bool bump)
{
	LWLock	   *lock;
	SizeSet    *set = set_of(rnode, &lock);
	SizeEntry  *e;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	aurora_last_written_set(rnode, InvalidBlockNumber, lsn);
	e = find_entry(set, rnode);
	if (e == NULL)
	{
		if (!bump)
			fill_entry(make_room(set), rnode, nblocks, lsn);
	}
	else if (start_over)
		fill_entry(e, rnode, nblocks, lsn);
	else if (e->lsn <= lsn)
		fill_entry(e, rnode, bump ? Max(e->nblocks, nblocks) : nblocks, lsn);
	LWLockRelease(lock);
}

/*
 * The relation's file was just made (RelationCreateStorage), so our own last
 * WAL record is its creation; it lies above any record that dropped an older
 * relation of this name, and a size read from storage not before it is the
 * new relation's.
 */
void
aurora_size_created(const RelFileNode *rnode)
{
	XLogRecPtr	lsn = XactLastRecEnd;

	if (XLogRecPtrIsInvalid(lsn))
		lsn = GetXLogWriteRecPtr();
	publish(rnode, 0, lsn, true, false);
}

void
aurora_size_set(const RelFileNode *rnode, BlockNumber nblocks, XLogRecPtr lsn)
{
	publish(rnode, nblocks, lsn, false, false);
}

void
aurora_size_bump(const RelFileNode *rnode, BlockNumber nblocks, XLogRecPtr lsn)
{
	publish(rnode, nblocks, lsn, false, true);
}

/* A database is gone; lsn is the end of the record that says so. */
void
aurora_size_forget_database(Oid db, XLogRecPtr lsn)
{
	aurora_last_written_raise_floor(lsn);
	for (int p = 0; p < PARTITIONS; p++)
	{
		LWLockAcquire(&rel_sizes->lock[p].lock, LW_EXCLUSIVE);
		for (uint32 s = p; s <= rel_sizes->mask; s += PARTITIONS)
			for (int w = 0; w < WAYS; w++)
				if (rel_sizes->set[s].entry[w].rnode.dbNode == db)
					MemSet(&rel_sizes->set[s].entry[w].rnode, 0,
						   sizeof(RelFileNode));
		LWLockRelease(&rel_sizes->lock[p].lock);
	}
}
