/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_rmgr.c: replaying our records on a compute node.
 *
 * Table pages are not replayed here: storage does that.  What is left:
 *
 *	crash recovery:  visibility map bits (a local file's), the map files'
 *					 length after a truncation.  No page work, so it is fast.
 *	hot standby:	 besides, conflicts with running queries, the size cache,
 *					 and the pages that happen to be in shared_buffers.
 *
 * Invariants:
 *  1. A main-fork block of ours is never read through the local file:
 *     XLogReadBufferForRedo would look for it there, find it missing and call
 *     the cluster damaged.
 *  2. The order on a standby is: publish the record's LSN as the page's
 *     last-written one, then look for the page in the cache, then lock it.  A
 *     reader puts its (new, empty) buffer into the mapping first and compares
 *     last-written with the LSN it read as of before it installs what it
 *     fetched.  So either redo sees the reader's buffer filled, or the reader
 *     sees redo's LSN; a page never misses a record.
 *  3. A cached page gets a record's operations only if its LSN is below the
 *     record's end: it may have been fetched after.
 *  4. Redo does not wait for the pin of somebody who waits for redo: a page
 *     that is still new is left to its reader (invariant 2) before a cleanup
 *     lock is asked for.
 *  5. Before queries can be let in (not InHotStandby) nothing of ours is in
 *     shared memory, neither pages nor sizes, and nothing is put there.  What
 *     is replayed then needs no last-written LSN: a standby's first reader
 *     reads as of a later one, and a primary's floor is the end of recovery.
 *
 * The free space map is brought up to date only for cached pages.  A promoted
 * standby thus begins with a sparse one, which the next VACUUM fills in.
 */
#include "postgres.h"

#include "access/visibilitymap.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogutils.h"
#include "common/au_page.h"
#include "common/au_wal_format.h"
#include "storage/bufmgr.h"
#include "storage/freespace.h"
#include "storage/smgr.h"
#include "storage/standby.h"

#include "cache/aurora_pagecache.h"
#include "wal/aurora_change.h"
#include "wal/aurora_rmgr.h"

/* PANIC: the record passed its CRC, so this is a newer or a broken writer's. */
static void
decode_main(XLogReaderState *record, AuRecMain *m)
{
	AuStatus	status = au_rec_main_decode((const uint8_t *) XLogRecGetData(record),
											XLogRecGetDataLen(record), m);

	if (status == AU_UNSUPPORTED)
		ereport(PANIC,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("WAL record at %X/%X was written by a newer version of aurora",
						LSN_FORMAT_ARGS(record->ReadRecPtr)),
				 errhint("Install at least the version of aurora that the primary runs.")));
	if (status != AU_OK)
		ereport(PANIC,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("aurora WAL record at %X/%X is damaged: %s",
						LSN_FORMAT_ARGS(record->ReadRecPtr),
						au_status_name(status))));
}

/* Wait for, or cancel, queries that may still need what the record removes. */
static void
resolve_conflict(XLogReaderState *record, const AuRecMain *m)
{
	RelFileNode rnode;

	if (!InHotStandby || (m->flags & AU_REC_CONFLICT) == 0 ||
		!XLogRecHasBlockRef(record, 0))
		return;
	XLogRecGetBlockTag(record, 0, &rnode, NULL, NULL);
	ResolveRecoveryConflictWithSnapshot(m->conflict_xid, rnode);
}

/* ---- visibility map --------------------------------------------------- */

static void
clear_vm_bits(const RelFileNode *rnode, BlockNumber blk)
{
	Relation	rel;
	Buffer		vmbuffer = InvalidBuffer;

	/* No map, no bits: and don't make one for a table dropped later on. */
	if (!smgrexists(smgropen(*rnode, InvalidBackendId), VISIBILITYMAP_FORKNUM))
		return;
	rel = CreateFakeRelcacheEntry(*rnode);
	visibilitymap_pin(rel, blk, &vmbuffer);
	visibilitymap_clear(rel, blk, vmbuffer, VISIBILITYMAP_VALID_BITS);
	ReleaseBuffer(vmbuffer);
	FreeFakeRelcacheEntry(rel);
}

/*
 * Block reference `id` is the map's page; its data are the bits for the heap
 * block that is block reference 0.  A map page whose LSN is past the record
 * stays as it is: a bit lost that way is set by the next VACUUM.
 */
static void
set_vm_bits(XLogReaderState *record, uint8 id)
{
	Buffer		vmbuffer;
	BlockNumber blk;

	if (XLogReadBufferForRedoExtended(record, id, RBM_ZERO_ON_ERROR, false,
									  &vmbuffer) == BLK_NEEDS_REDO)
	{
		Page		page = BufferGetPage(vmbuffer);
		Size		len;
		char	   *bits = XLogRecGetBlockData(record, id, &len);

		if (len != 1)
			elog(PANIC, "aurora WAL record at %X/%X has %zu bytes of visibility bits",
				 LSN_FORMAT_ARGS(record->ReadRecPtr), len);
		XLogRecGetBlockTag(record, 0, NULL, NULL, &blk);
		if (PageIsNew(page))
			PageInit(page, BLCKSZ, 0);
		aurora_vm_page_set_bits(page, blk, (uint8) bits[0]);
		PageSetLSN(page, record->EndRecPtr);
		MarkBufferDirty(vmbuffer);
	}
	if (BufferIsValid(vmbuffer))
		UnlockReleaseBuffer(vmbuffer);
}

/* ---- cached pages ----------------------------------------------------- */

/*
 * Recovery prefetch asks the storage manager for the main fork's length, gets
 * 0, and has it remembered, which in recovery means: no buffers to drop when
 * the table is dropped or truncated.  Ours are there nonetheless, so the length
 * must not be known.
 */
static SMgrRelation
forget_file_length(const RelFileNode *rnode)
{
	SMgrRelation smgr = smgropen(*rnode, InvalidBackendId);

	smgr->smgr_cached_nblocks[MAIN_FORKNUM] = InvalidBlockNumber;
	return smgr;
}

/* Tuples move within the page: nobody may hold pointers to them. */
static bool
needs_cleanup_lock(uint8 info)
{
	return info == AU_XLOG_PRUNE;
}

/* Does the locked page lack the record? */
static bool
needs_record(Page page, XLogReaderState *record, const uint8_t *ops, Size len)
{
	/* A page that is still new will be filled by whoever waits for it, with
	 * the record's effect (invariant 2).  If the record says all there is to
	 * say about the page, that is better still. */
	if (PageIsNew(page))
		return au_ops_self_contained(ops, len);
	return PageGetLSN(page) < record->EndRecPtr;
}

static void
replay_on_cached(XLogReaderState *record, uint8 id, const RelFileNode *rnode,
				 BlockNumber blk)
{
	uint8		info = XLogRecGetInfo(record) & ~XLR_INFO_MASK;
	Size		len = 0;
	const uint8_t *ops = (const uint8_t *) XLogRecGetBlockData(record, id, &len);
	Buffer		buffer = aurora_find_cached(rnode, blk);
	bool		record_space = false;
	Size		space = 0;
	Page		page;

	if (!BufferIsValid(buffer))
		return;
	page = BufferGetPage(buffer);
	LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
	if (needs_record(page, record, ops, len) && needs_cleanup_lock(info))
	{
		/* our pin keeps the page from becoming new again */
		LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
		LockBufferForCleanup(buffer);
	}
	if (needs_record(page, record, ops, len))
	{
		const char *why;

		if (len > 0 && au_page_apply((uint8_t *) page, ops, len, &why) != AU_OK)
			elog(PANIC, "could not replay aurora WAL record at %X/%X on block %u of relation %u/%u/%u: %s",
				 LSN_FORMAT_ARGS(record->ReadRecPtr), blk,
				 rnode->spcNode, rnode->dbNode, rnode->relNode, why);
		PageSetLSN(page, record->EndRecPtr);
		record_space = info == AU_XLOG_PRUNE || info == AU_XLOG_VACUUM ||
			info == AU_XLOG_VISIBLE;
		space = PageGetHeapFreeSpace(page);
	}
	UnlockReleaseBuffer(buffer);
	if (record_space)
		XLogRecordPageWithFreeSpace(*rnode, blk, space);
}

/*
 * Only where somebody may be reading, or read soon after what is replayed now
 * (invariant 5).
 */
static void
redo_page(XLogReaderState *record, uint8 id, const RelFileNode *rnode,
		  BlockNumber blk)
{
	Assert(InHotStandby);
	aurora_last_written_set(rnode, blk, record->EndRecPtr);
	aurora_size_bump(rnode, blk + 1, record->EndRecPtr);
	forget_file_length(rnode);
	replay_on_cached(record, id, rnode, blk);
}

/* ---- truncation ------------------------------------------------------- */

/*
 * The main fork is cut on storage; here its cached pages go and the map files
 * are cut.  A map must never be longer than its table: bits left behind would
 * speak for pages added later.  The main fork's file is not needed, and not made
 * if it is missing: the record may be about a name that no relation has now.
 */
static void
redo_truncate(XLogReaderState *record, const AuRecMain *m)
{
	RelFileNode rnode;
	SMgrRelation smgr;
	Relation	rel;
	ForkNumber	main_fork = MAIN_FORKNUM;
	ForkNumber	forks[2];
	BlockNumber nblocks = m->truncate_nblocks;
	BlockNumber lengths[2];
	int			nforks = 0;
	bool		fsm_cut = false;

	rnode.spcNode = m->truncate_rel.spc;
	rnode.dbNode = m->truncate_rel.db;
	rnode.relNode = m->truncate_rel.rel;

	smgr = forget_file_length(&rnode);
	DropRelFileNodeBuffers(smgr, &main_fork, 1, &nblocks);
	if (InHotStandby)
		aurora_size_set(&rnode, nblocks, record->EndRecPtr);

	/* Once a file is cut there is no way back to before this record. */
	XLogFlush(record->EndRecPtr);

	rel = CreateFakeRelcacheEntry(rnode);
	if (smgrexists(smgr, FSM_FORKNUM))
	{
		lengths[nforks] = FreeSpaceMapPrepareTruncateRel(rel, nblocks);
		if (BlockNumberIsValid(lengths[nforks]))
		{
			forks[nforks++] = FSM_FORKNUM;
			fsm_cut = true;
		}
	}
	if (smgrexists(smgr, VISIBILITYMAP_FORKNUM))
	{
		lengths[nforks] = visibilitymap_prepare_truncate(rel, nblocks);
		if (BlockNumberIsValid(lengths[nforks]))
			forks[nforks++] = VISIBILITYMAP_FORKNUM;
	}
	if (nforks > 0)
		smgrtruncate(smgr, forks, nforks, lengths);
	if (fsm_cut)
		FreeSpaceMapVacuumRange(rel, nblocks, InvalidBlockNumber);
	FreeFakeRelcacheEntry(rel);
}

/* ---- the resource manager --------------------------------------------- */

static void
aurora_redo(XLogReaderState *record)
{
	AuRecMain	m;

	decode_main(record, &m);
	resolve_conflict(record, &m);
	if (m.flags & AU_REC_TRUNCATE)
		redo_truncate(record, &m);

	for (int id = 0; id <= XLogRecMaxBlockId(record); id++)
	{
		RelFileNode rnode;
		ForkNumber	fork;
		BlockNumber blk;

		if (!XLogRecHasBlockRef(record, id))
			continue;
		XLogRecGetBlockTag(record, id, &rnode, &fork, &blk);
		if (fork == VISIBILITYMAP_FORKNUM)
		{
			set_vm_bits(record, (uint8) id);
			continue;
		}
		if (m.flags & AU_REC_VM_CLEAR && m.vm_clear_blocks & (1 << id))
			clear_vm_bits(&rnode, blk);
		if (InHotStandby)
			redo_page(record, (uint8) id, &rnode, blk);
	}
}

static void
aurora_mask(char *pagedata, BlockNumber blkno)
{
	au_page_mask((uint8_t *) pagedata);
}

static RmgrData aurora_rmgr = {
	.rm_name = AU_RMGR_NAME,
	.rm_redo = aurora_redo,
	.rm_desc = aurora_rmgr_desc,
	.rm_identify = aurora_rmgr_identify,
	.rm_mask = aurora_mask,
};

void
aurora_rmgr_register(void)
{
	RegisterCustomRmgr(AU_RMGR_ID, &aurora_rmgr);
}
