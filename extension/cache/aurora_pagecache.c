/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_pagecache.c: read, append and cut pages of aurora tables.
 *
 * The invariants are in aurora_pagecache.h, the protocol and why it is right
 * in extension/cache/README.  The states of a remote block:
 *
 *     absent ──ReadBuffer(ZERO_AND_LOCK)──▶ new, valid, pinned by somebody
 *       ▲                                     │
 *       │ eviction, truncation,               │ fill() from storage, or
 *       │ drop (nobody has a pin)             │ aurora_extend, or INIT of a
 *       │                                     ▼ page storage never heard of
 *       └────────────────────────────────── filled ◀─┐ aurora_change_commit
 *                                             └──────┘
 *
 * "new" is pd_upper == 0, as in PageIsNew().  Both arrows into "filled" and
 * the loop are taken under the exclusive content lock only.
 */
#include "postgres.h"

#include "access/visibilitymap.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xloginsert.h"
#include "access/xlogrecovery.h"
#include "catalog/storage.h"
#include "executor/instrument.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "storage/buf_internals.h"
#include "storage/freespace.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "storage/smgr.h"
#include "utils/inval.h"
#include "utils/memutils.h"

#include "cache/aurora_cache_internal.h"
#include "client/aurora_client.h"
#include "common/au_wal_format.h"
#include "ship/aurora_ship.h"
#include "wal/aurora_change.h"

/* A standby that is asked for a page its own redo is just changing waits this
 * long before it looks again. */
#define REPLAY_WAIT_MS 1

/* One shared counter for each field of AuroraCacheStats. */
#define N_COUNTERS (sizeof(AuroraCacheStats) / sizeof(uint64))

typedef struct CacheShared
{
	pg_atomic_uint64 counter[N_COUNTERS];
} CacheShared;

static CacheShared *cache_shared = NULL;

AuroraCacheStats aurora_cache_pending;

/* ---- shared memory and counters ---- */

Size
aurora_pagecache_shmem_size(void)
{
	Size		size = MAXALIGN(sizeof(CacheShared));

	size = add_size(size, MAXALIGN(aurora_last_written_shmem_size()));
	size = add_size(size, MAXALIGN(aurora_latency_shmem_size()));
	return add_size(size, MAXALIGN(aurora_relsize_shmem_size()));
}

void
aurora_pagecache_shmem_init(void)
{
	bool		found;

	cache_shared = ShmemInitStruct("aurora cache counters",
								   sizeof(CacheShared), &found);
	if (!found)
		for (int i = 0; i < N_COUNTERS; i++)
			pg_atomic_init_u64(&cache_shared->counter[i], 0);
	aurora_last_written_shmem_init();
	aurora_latency_shmem_init();
	aurora_relsize_shmem_init();
}

static void
flush_counters(void)
{
	uint64	   *pending = (uint64 *) &aurora_cache_pending;

	for (int i = 0; i < N_COUNTERS; i++)
	{
		if (pending[i] != 0)
			pg_atomic_fetch_add_u64(&cache_shared->counter[i], pending[i]);
		pending[i] = 0;
	}
	aurora_latency_flush();
}

void
aurora_cache_xact_callback(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_PRE_COMMIT &&
		event != XACT_EVENT_PARALLEL_PRE_COMMIT &&
		event != XACT_EVENT_PRE_PREPARE)
		flush_counters();
}

void
aurora_cache_stats(AuroraCacheStats *out)
{
	uint64	   *value = (uint64 *) out;

	flush_counters();
	for (int i = 0; i < N_COUNTERS; i++)
		value[i] = pg_atomic_read_u64(&cache_shared->counter[i]);
}

/* ---- looking a block up ---- */

/*
 * May be called without content lock: true means that the page was filled
 * under an exclusive content lock that is either released or will be before
 * we get any content lock on it, and that it stays filled while we keep our
 * pin.  False means: look again under the lock.
 */
static inline bool
seems_filled(Buffer buf)
{
	return ((volatile PageHeaderData *) BufferGetPage(buf))->pd_upper != 0;
}

/*
 * ReadRecentBuffer does not raise the usage count on a first pin, so without
 * this the clock sweep would take our hottest page as soon as the coldest.
 * One attempt: if somebody else changes the state at this moment, the count
 * is of no importance.
 */
static inline void
raise_usage(Buffer buf, BufferAccessStrategy strategy)
{
	BufferDesc *desc = GetBufferDescriptor(buf - 1);
	uint32		state = pg_atomic_read_u32(&desc->state);
	uint32		limit = strategy == NULL ? BM_MAX_USAGE_COUNT : 1;

	if (BUF_STATE_GET_USAGECOUNT(state) < limit && (state & BM_LOCKED) == 0)
		(void) pg_atomic_compare_exchange_u32(&desc->state, &state,
											  state + BUF_USAGECOUNT_ONE);
}

/* The buffer that holds the block at this moment (InvalidBuffer: none); not
 * pinned, so it may have been evicted by the time the caller looks. */
static Buffer
lookup(const RelFileNode *rnode, BlockNumber blk)
{
	BufferTag	tag;
	uint32		hash;
	LWLock	   *partition;
	int			id;

	INIT_BUFFERTAG(tag, *rnode, MAIN_FORKNUM, blk);
	hash = BufTableHashCode(&tag);
	partition = BufMappingPartitionLock(hash);
	LWLockAcquire(partition, LW_SHARED);
	id = BufTableLookup(&tag, hash);
	LWLockRelease(partition);
	return id < 0 ? InvalidBuffer : id + 1;
}

bool
aurora_is_cached(const RelFileNode *rnode, BlockNumber blk)
{
	return BufferIsValid(lookup(rnode, blk));
}

Buffer
aurora_find_cached(const RelFileNode *rnode, BlockNumber blk)
{
	Buffer		buf = lookup(rnode, blk);

	if (BufferIsValid(buf) &&
		ReadRecentBuffer(*rnode, MAIN_FORKNUM, blk, buf))
		return buf;
	return InvalidBuffer;
}

/* As aurora_find_cached, counted as stock counts a hit. */
static inline Buffer
pin_cached(Relation rel, BlockNumber blk, BufferAccessStrategy strategy)
{
	Buffer		buf = aurora_find_cached(&rel->rd_node, blk);

	if (BufferIsValid(buf))
	{
		raise_usage(buf, strategy);
		VacuumPageHit++;
		if (VacuumCostActive)
			VacuumCostBalance += VacuumCostPageHit;
	}
	return buf;
}

/*
 * Pin the block's buffer whatever it takes: an absent block gets a zeroed
 * buffer.  This never looks at the relation's file, whatever its length.
 * Returns whether it is filled, be it by us from `page`.
 */
static bool
pin_or_zero(const RelFileNode *rnode, BlockNumber blk,
			BufferAccessStrategy strategy, const uint8 *page,
			XLogRecPtr complete_to, bool *from_page, Buffer *buf)
{
	bool		filled;

	*buf = ReadBufferWithoutRelcache(*rnode, MAIN_FORKNUM, blk,
									 RBM_ZERO_AND_LOCK, strategy, true);
	filled = !PageIsNew(BufferGetPage(*buf));
	*from_page = false;
	if (!filled && page != NULL)
	{
		if (aurora_last_written_get(rnode, blk) <= complete_to)
		{
			/* looked at when it is ours: nobody else writes there any more */
			memcpy(BufferGetPage(*buf), page, BLCKSZ);
			*from_page = filled =
				aurora_client_page_usable((uint8 *) BufferGetPage(*buf), complete_to);
			if (!filled)
				MemSet(BufferGetPage(*buf), 0, BLCKSZ);
		}
		else
			aurora_cache_pending.stale_retries++;
	}
	LockBuffer(*buf, BUFFER_LOCK_UNLOCK);
	return filled;
}

/* ---- reading from storage ---- */

void
aurora_read_point(const RelFileNode *rnode, BlockNumber blk,
				  XLogRecPtr *not_before, XLogRecPtr *read_lsn)
{
	if (RecoveryInProgress())
	{
		*read_lsn = GetXLogReplayRecPtr(NULL);
		*not_before = *read_lsn;
		return;
	}
	*read_lsn = InvalidXLogRecPtr;
	*not_before = aurora_last_written_get(rnode, blk);
	if (XLogNeedsFlush(*not_before))
		XLogFlush(*not_before);
	aurora_ship_want(*not_before, false);
}

void
aurora_wait_start(instr_time *start)
{
	INSTR_TIME_SET_CURRENT(*start);
}

void
aurora_wait_end(const instr_time *start, AuroraFetchKind kind)
{
	instr_time	took;
	uint64		us;

	INSTR_TIME_SET_CURRENT(took);
	INSTR_TIME_SUBTRACT(took, *start);
	us = INSTR_TIME_GET_MICROSEC(took);
	aurora_latency_note(kind, us);
	if (kind == AURORA_FETCH_SIZE)
		return;					/* no block is read */
	aurora_cache_pending.read_waits_us += us;
	if (track_io_timing)
	{
		pgstat_count_buffer_read_time(us);
		INSTR_TIME_ADD(pgBufferUsage.blk_read_time, took);
	}
}

/* One page from storage, with the wait accounted for. */
static void
fetch(const RelFileNode *rnode, BlockNumber blk, XLogRecPtr not_before,
	  XLogRecPtr read_lsn, char *page, uint8 *status)
{
	instr_time	start;

	aurora_wait_start(&start);
	(void) aurora_client_get_pages(rnode, &blk, 1, not_before, read_lsn,
								   page, status);
	aurora_wait_end(&start, AURORA_FETCH_PAGE);
	aurora_cache_pending.fetched_pages++;
}

/*
 * Fill the pinned buffer, whose page was new when we last saw it under its
 * lock.
 *
 * On a primary one fetch is enough.  From the moment that we saw the page new
 * (with our pin on it) until we hold its lock and see it new again, nobody
 * can have changed the block: a change needs a filled page, and a filled page
 * does not become new while it is pinned.  So last-written, read after that
 * moment, covers the block's newest change.
 *
 * On a standby redo skips a page that is new.  It publishes its LSN before it
 * looks at the buffer, so if it skipped ours, last-written is above what we
 * read as of, and we read again.
 */
static void
fill(const RelFileNode *rnode, BlockNumber blk, Buffer buf)
{
	static PGAlignedBlock page;
	bool		done = false;

	Assert(CritSectionCount == 0);
	while (!done)
	{
		XLogRecPtr	not_before;
		XLogRecPtr	read_lsn;
		uint8		status;

		CHECK_FOR_INTERRUPTS();
		aurora_read_point(rnode, blk, &not_before, &read_lsn);
		fetch(rnode, blk, not_before, read_lsn, page.data, &status);

		LockBuffer(buf, BUFFER_LOCK_EXCLUSIVE);
		done = !PageIsNew(BufferGetPage(buf)) ||
			XLogRecPtrIsInvalid(read_lsn) ||
			aurora_last_written_get(rnode, blk) <= read_lsn;
		if (done && status == AU_OK && PageIsNew(BufferGetPage(buf)))
			memcpy(BufferGetPage(buf), page.data, BLCKSZ);
		LockBuffer(buf, BUFFER_LOCK_UNLOCK);

		if (!done)
		{
			aurora_cache_pending.stale_retries++;
			(void) WaitLatch(MyLatch, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 REPLAY_WAIT_MS, PG_WAIT_EXTENSION);
		}
	}
}

static inline Buffer
count_hit(Relation rel, Buffer buf)
{
	pgstat_count_buffer_read(rel);
	pgstat_count_buffer_hit(rel);
	aurora_cache_pending.hits++;
	return buf;
}

Buffer
aurora_read_cached(Relation rel, BlockNumber blk, BufferAccessStrategy strategy)
{
	int64		hits = pgBufferUsage.shared_blks_hit;
	Buffer		buf;

	Assert(BlockNumberIsValid(blk) && aurora_rel_is_remote(rel));
	buf = pin_cached(rel, blk, strategy);
	if (!BufferIsValid(buf))
		return InvalidBuffer;
	if (unlikely(!seems_filled(buf)))
	{
		bool		filled;

		/* somebody is just installing it, or nobody has yet */
		LockBuffer(buf, BUFFER_LOCK_SHARE);
		filled = !PageIsNew(BufferGetPage(buf));
		LockBuffer(buf, BUFFER_LOCK_UNLOCK);
		if (!filled)
		{
			/* found but empty is no hit */
			pgBufferUsage.shared_blks_hit = hits;
			ReleaseBuffer(buf);
			return InvalidBuffer;
		}
	}
	return count_hit(rel, buf);
}

Buffer
aurora_read_missing(Relation rel, BlockNumber blk,
					BufferAccessStrategy strategy,
					const uint8 *page, XLogRecPtr complete_to)
{
	int64		hits = pgBufferUsage.shared_blks_hit;
	bool		from_page;
	Buffer		buf;

	if (pin_or_zero(&rel->rd_node, blk, strategy, page, complete_to,
					&from_page, &buf) && !from_page)
		return count_hit(rel, buf); /* somebody was faster */

	pgBufferUsage.shared_blks_hit = hits;
	pgBufferUsage.shared_blks_read++;
	pgstat_count_buffer_read(rel);
	aurora_cache_pending.misses++;
	if (from_page)
		aurora_cache_pending.prefetched++;
	else
		fill(&rel->rd_node, blk, buf);
	return buf;
}

Buffer
aurora_read_buffer(Relation rel, BlockNumber blk, BufferAccessStrategy strategy)
{
	Buffer		buf;

	if (!aurora_rel_is_remote(rel))
		return ReadBufferExtended(rel, MAIN_FORKNUM, blk, RBM_NORMAL, strategy);
	buf = aurora_read_cached(rel, blk, strategy);
	if (likely(BufferIsValid(buf)))
		return buf;
	return aurora_read_missing(rel, blk, strategy, NULL, InvalidXLogRecPtr);
}

/* ---- growing and shrinking ---- */

static Buffer
extend_local(Relation rel, BufferAccessStrategy strategy)
{
	Buffer		buf;
	AuroraChange *change;

	buf = ReadBufferExtended(rel, MAIN_FORKNUM, P_NEW, RBM_ZERO_AND_LOCK,
							 strategy);
	change = aurora_change_begin(rel, AU_XLOG_EXTEND);
	au_ops_init(aurora_change_page(change, buf), 0);
	(void) aurora_change_commit(change);
	return buf;
}

static Buffer
extend_remote(Relation rel, BufferAccessStrategy strategy)
{
	BlockNumber blk = aurora_nblocks(rel);
	Buffer		buf;
	AuroraChange *change;
	XLogRecPtr	lsn;

	if (blk == MaxBlockNumber)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("cannot extend relation \"%s\" beyond %u blocks",
						RelationGetRelationName(rel), MaxBlockNumber)));

	/*
	 * A bulk write's ring of buffers spares what others have in memory, and
	 * the pages it gives up have to come back from storage, whom we would keep
	 * busy with what it has just been given.  As long as there are buffers
	 * that nobody uses, none need be given up.
	 */
	if (strategy != NULL && have_free_buffer())
		strategy = NULL;
	buf = ReadBufferWithoutRelcache(rel->rd_node, MAIN_FORKNUM, blk,
									RBM_ZERO_AND_LOCK, strategy, true);
	if (!PageIsNew(BufferGetPage(buf)))
	{
		UnlockReleaseBuffer(buf);
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("unexpected data beyond the end of relation \"%s\": block %u is in use",
						RelationGetRelationName(rel), blk),
				 errdetail("The relation's size is known as %u blocks.", blk)));
	}

	change = aurora_change_begin(rel, AU_XLOG_EXTEND);
	au_ops_init(aurora_change_page(change, buf), 0);
	lsn = aurora_change_commit(change);
	aurora_size_set(&rel->rd_node, blk + 1, lsn);
	pgBufferUsage.shared_blks_written++;
	aurora_cache_pending.extends++;
	return buf;
}

Buffer
aurora_extend(Relation rel, BufferAccessStrategy strategy)
{
	bool		need_lock = !RELATION_IS_LOCAL(rel);
	Buffer		buf;

	if (need_lock)
		LockRelationForExtension(rel, ExclusiveLock);
	if (aurora_rel_is_remote(rel))
		buf = extend_remote(rel, strategy);
	else
		buf = extend_local(rel, strategy);
	if (need_lock)
		UnlockRelationForExtension(rel, ExclusiveLock);
	return buf;
}

/* The FSM and VM forks, which are ordinary files, and where to cut them. */
typedef struct MapCut
{
	int			nforks;
	ForkNumber	forks[2];
	BlockNumber before[2];
	BlockNumber after[2];
	bool		fsm;			/* the FSM is one of them */
} MapCut;

static void
add_map(Relation rel, MapCut *cut, ForkNumber fork, BlockNumber after)
{
	if (!BlockNumberIsValid(after))
		return;					/* nothing to be cut off */
	cut->forks[cut->nforks] = fork;
	cut->before[cut->nforks] = smgrnblocks(RelationGetSmgr(rel), fork);
	cut->after[cut->nforks++] = after;
	cut->fsm = cut->fsm || fork == FSM_FORKNUM;
}

/* Clears what is to be forgotten on the maps' last pages, with WAL of its
 * own. */
static void
prepare_maps(Relation rel, BlockNumber nblocks, MapCut *cut)
{
	cut->nforks = 0;
	cut->fsm = false;
	if (smgrexists(RelationGetSmgr(rel), FSM_FORKNUM))
		add_map(rel, cut, FSM_FORKNUM,
				FreeSpaceMapPrepareTruncateRel(rel, nblocks));
	if (smgrexists(RelationGetSmgr(rel), VISIBILITYMAP_FORKNUM))
		add_map(rel, cut, VISIBILITYMAP_FORKNUM,
				visibilitymap_prepare_truncate(rel, nblocks));
}

/* In a critical section.  Redo of this record cuts the maps as well. */
static XLogRecPtr
log_truncate(Relation rel, BlockNumber nblocks)
{
	AuRecMain	m = {0};
	uint8		buf[AU_REC_MAIN_MAX];
	size_t		len;

	m.flags = AU_REC_TRUNCATE;
	m.truncate_rel.spc = rel->rd_node.spcNode;
	m.truncate_rel.db = rel->rd_node.dbNode;
	m.truncate_rel.rel = rel->rd_node.relNode;
	m.truncate_rel.fork = MAIN_FORKNUM;
	m.truncate_nblocks = nblocks;
	len = au_rec_main_encode(buf, &m);
	XLogBeginInsert();
	XLogRegisterData((char *) buf, len);
	return XLogInsert(AU_RMGR_ID, AU_XLOG_TRUNCATE | XLR_SPECIAL_REL_UPDATE);
}

/*
 * What RelationTruncate does, with the main fork's part replaced: no file is
 * cut, a record tells storage, and cached pages beyond the end are dropped.
 * The same rules hold for checkpoints: one must not begin between our record
 * and the truncation of the map files, nor complete before those are cut.
 */
void
aurora_truncate(Relation rel, BlockNumber nblocks)
{
	ForkNumber	main_fork = MAIN_FORKNUM;
	MapCut		cut;
	SMgrRelation smgr;
	BlockNumber old_nblocks;
	XLogRecPtr	lsn;

	if (!aurora_rel_is_remote(rel))
	{
		RelationTruncate(rel, nblocks);
		return;
	}

	old_nblocks = aurora_nblocks(rel);
	smgr = RelationGetSmgr(rel);
	smgr->smgr_targblock = InvalidBlockNumber;
	for (int f = 0; f <= MAX_FORKNUM; f++)
		smgr->smgr_cached_nblocks[f] = InvalidBlockNumber;
	prepare_maps(rel, nblocks, &cut);
	smgr = RelationGetSmgr(rel);

	MyProc->delayChkptFlags |= DELAY_CHKPT_START | DELAY_CHKPT_COMPLETE;
	START_CRIT_SECTION();

	lsn = log_truncate(rel, nblocks);
	/* a map must not be cut before the record that says so is durable */
	XLogFlush(lsn);
	aurora_last_written_set_range(&rel->rd_node, nblocks, old_nblocks, lsn);
	DropRelFileNodeBuffers(smgr, &main_fork, 1, &nblocks);
	/* others must forget their target blocks, even if no map is cut */
	CacheInvalidateSmgr(smgr->smgr_rnode);
	if (cut.nforks > 0)
		smgrtruncate2(smgr, cut.forks, cut.nforks, cut.before, cut.after);
	aurora_size_set(&rel->rd_node, nblocks, lsn);

	END_CRIT_SECTION();
	MyProc->delayChkptFlags &= ~(DELAY_CHKPT_START | DELAY_CHKPT_COMPLETE);

	if (cut.fsm)
		FreeSpaceMapVacuumRange(rel, nblocks, InvalidBlockNumber);
}
