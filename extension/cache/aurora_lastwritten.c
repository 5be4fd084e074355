/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_lastwritten.c: how new a page must be when it is read from storage.
 *
 * A fixed array of LSNs in shared memory, indexed by a hash of (relation,
 * block).  Block InvalidBlockNumber stands for the relation's size.
 *
 * Invariants:
 *  1. aurora_last_written_get(p) is at least the LSN of the newest record
 *     that changed p, once that record's writer has released the page's
 *     content lock (for a size: the size entry's partition lock).
 *  2. A slot never goes down.  Pages that share a slot only make a reader
 *     wait for a little more log than it needs.
 *  3. What was written before this server started is covered by the floor: a
 *     position that was flushed after recovery had ended.
 *
 * During recovery there is no floor yet: a standby reads as of its replay
 * position (see aurora_read_point), and only compares.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "storage/shmem.h"

#include "cache/aurora_cache_internal.h"
#include "module/aurora_guc.h"

typedef struct LastWritten
{
	pg_atomic_uint64 floor;
	pg_atomic_uint32 floor_known;	/* floor covers everything before us */
	uint32		mask;			/* number of slots - 1, a power of two - 1 */
	pg_atomic_uint64 slot[FLEXIBLE_ARRAY_MEMBER];
} LastWritten;

static LastWritten *last_written = NULL;

static uint32
slot_count(void)
{
	return pg_nextpower2_32((uint32) Max(aurora_last_written_slots, 1024));
}

Size
aurora_last_written_shmem_size(void)
{
	return add_size(offsetof(LastWritten, slot),
					mul_size(slot_count(), sizeof(pg_atomic_uint64)));
}

void
aurora_last_written_shmem_init(void)
{
	bool		found;
	uint32		n = slot_count();

	last_written = ShmemInitStruct("aurora last-written LSNs",
								   aurora_last_written_shmem_size(), &found);
	if (found)
		return;
	pg_atomic_init_u64(&last_written->floor, InvalidXLogRecPtr);
	pg_atomic_init_u32(&last_written->floor_known, 0);
	last_written->mask = n - 1;
	for (uint32 i = 0; i < n; i++)
		pg_atomic_init_u64(&last_written->slot[i], InvalidXLogRecPtr);
}

static pg_atomic_uint64 *
slot_of(const RelFileNode *rnode, BlockNumber blk)
{
	/* Two multiplications by odd constants, of which the high halves count:
	 * this is done for each change of a row. */
	uint64		h = ((uint64) rnode->relNode << 32 | blk) *
		UINT64CONST(0x9E3779B97F4A7C15);

	h ^= h >> 32;
	h = (h ^ rnode->dbNode ^ ((uint64) rnode->spcNode << 32)) *
		UINT64CONST(0xD6E8FEB86659FD93);
	return &last_written->slot[(h >> 32) & last_written->mask];
}

/* *p becomes at least lsn.  Full memory barrier when it changes. */
static void
raise_to(pg_atomic_uint64 *p, XLogRecPtr lsn)
{
	uint64		cur = pg_atomic_read_u64(p);

	while (cur < lsn && !pg_atomic_compare_exchange_u64(p, &cur, lsn))
		;
}

/*
 * The first caller after recovery decides: whatever is flushed by now
 * includes everything that recovery has found.  Two first callers may both
 * raise the floor; either value would do.
 */
static XLogRecPtr
floor_lsn(void)
{
	if (pg_atomic_read_u32(&last_written->floor_known) == 0 &&
		!RecoveryInProgress())
	{
		raise_to(&last_written->floor, GetFlushRecPtr(NULL));
		pg_write_barrier();
		pg_atomic_write_u32(&last_written->floor_known, 1);
	}
	pg_read_barrier();
	return pg_atomic_read_u64(&last_written->floor);
}

/* May be called in a critical section. */
void
aurora_last_written_set(const RelFileNode *rnode, BlockNumber blk,
						XLogRecPtr lsn)
{
	Assert(!XLogRecPtrIsInvalid(lsn));
	raise_to(slot_of(rnode, blk), lsn);
}

XLogRecPtr
aurora_last_written_get(const RelFileNode *rnode, BlockNumber blk)
{
	XLogRecPtr	floor = floor_lsn();
	XLogRecPtr	lsn = pg_atomic_read_u64(slot_of(rnode, blk));

	return Max(lsn, floor);
}

/*
 * Blocks [first, end) of a relation were cut off by the record that ends at
 * lsn.  A long range raises the floor instead of that many slots.
 */
void
aurora_last_written_set_range(const RelFileNode *rnode, BlockNumber first,
							  BlockNumber end, XLogRecPtr lsn)
{
	if (end <= first)
		return;
	if (end - first > last_written->mask / 8)
	{
		raise_to(&last_written->floor, lsn);
		return;
	}
	for (BlockNumber blk = first; blk < end; blk++)
		raise_to(slot_of(rnode, blk), lsn);
}

/* Nothing may be read from before lsn any more (a database was dropped: its
 * Oid, and with it the names of its pages, may come again). */
void
aurora_last_written_raise_floor(XLogRecPtr lsn)
{
	raise_to(&last_written->floor, lsn);
}
