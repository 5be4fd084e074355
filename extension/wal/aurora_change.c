/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_change.c: apply page operations to cached pages and log the same
 * bytes, in one critical section (see aurora_change.h).
 *
 * Invariants:
 *  1. What is logged is what was applied: both read the same AuOps.
 *  2. A remote page's buffer is not marked dirty; a local one's always is.
 *  3. When the critical section is left, the last-written cache holds the
 *     record's LSN for every remote page of the record, and the caller still
 *     holds the pages' content locks.
 *  4. Nothing that can fail runs in the critical section: operations that
 *     overflowed are refused before, and an operation that does not fit its
 *     page is a bug in the access method that must stop the server rather
 *     than let compute and storage drift apart (PANIC).
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/visibilitymap.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xloginsert.h"
#include "common/au_page.h"
#include "miscadmin.h"
#include "storage/bufpage.h"

#include "cache/aurora_pagecache.h"
#include "wal/aurora_change.h"

/* au_page.c knows PostgreSQL's page layout by numbers; here they meet. */
StaticAssertDecl(BLCKSZ == AU_PAGE_SIZE, "aurora needs 8 kB pages");
StaticAssertDecl(SizeOfPageHeaderData == 24, "page header layout");
StaticAssertDecl(offsetof(PageHeaderData, pd_flags) == 10, "page header layout");
StaticAssertDecl(offsetof(PageHeaderData, pd_lower) == 12, "page header layout");
StaticAssertDecl(offsetof(PageHeaderData, pd_prune_xid) == 20, "page header layout");
StaticAssertDecl(PG_PAGE_LAYOUT_VERSION == 4, "page layout version");
StaticAssertDecl(PD_VALID_FLAG_BITS == 0x0007, "page flags");
StaticAssertDecl(sizeof(ItemIdData) == 4, "line pointer layout");
StaticAssertDecl(SizeofHeapTupleHeader == 23, "tuple header layout");
StaticAssertDecl(offsetof(HeapTupleHeaderData, t_ctid) == 12, "tuple header layout");
StaticAssertDecl(offsetof(HeapTupleHeaderData, t_infomask) == 20, "tuple header layout");
StaticAssertDecl(HEAP_XMIN_FROZEN == 0x0300, "tuple hint bits");
StaticAssertDecl((HEAP_XMAX_COMMITTED | HEAP_XMAX_INVALID) == 0x0C00, "tuple hint bits");
#ifdef WORDS_BIGENDIAN
#error "aurora pages and records are little-endian"
#endif

typedef struct ChangedPage
{
	Buffer		buffer;
	BlockNumber blk;
	AuOps		ops;
	Buffer		vmbuffer;		/* whose bits are cleared, or InvalidBuffer */
	uint8		vmbits;			/* VISIBILITYMAP_* to clear */
} ChangedPage;

struct AuroraChange
{
	Relation	rel;
	uint8		info;
	int			npages;
	ChangedPage pages[AURORA_CHANGE_MAX_PAGES];
	TransactionId conflict_xid;

	/* VISIBLE: bits to set for pages[0] */
	Buffer		set_vmbuffer;
	uint8		set_vmbits;
};

static AuroraChange the_change;
static uint8 ops_memory[AURORA_CHANGE_MAX_PAGES][AU_OPS_MAX];

AuroraChange *
aurora_change_begin(Relation rel, uint8 info)
{
	AuroraChange *c = &the_change;

	Assert((info & XLR_INFO_MASK) == 0);
	c->rel = rel;
	c->info = info;
	c->npages = 0;
	c->conflict_xid = InvalidTransactionId;
	c->set_vmbuffer = InvalidBuffer;
	c->set_vmbits = 0;
	return c;
}

static ChangedPage *
find_page(AuroraChange *c, Buffer buffer)
{
	for (int i = 0; i < c->npages; i++)
		if (c->pages[i].buffer == buffer)
			return &c->pages[i];
	return NULL;
}

AuOps *
aurora_change_page(AuroraChange *c, Buffer buffer)
{
	ChangedPage *p = find_page(c, buffer);

	if (p != NULL)
		return &p->ops;
	if (c->npages >= AURORA_CHANGE_MAX_PAGES)
		elog(ERROR, "too many pages in one aurora change");
	p = &c->pages[c->npages];
	p->buffer = buffer;
	p->blk = BufferGetBlockNumber(buffer);
	p->vmbuffer = InvalidBuffer;
	p->vmbits = 0;
	au_ops_start(&p->ops, ops_memory[c->npages], AU_OPS_MAX);
	c->npages++;
	return &p->ops;
}

void
aurora_change_clear_vm(AuroraChange *c, Buffer buffer, Buffer vmbuffer)
{
	AuOps	   *ops = aurora_change_page(c, buffer);

	Assert(PageIsAllVisible(BufferGetPage(buffer)));
	au_ops_flags(ops, 0, PD_ALL_VISIBLE);
	aurora_change_clear_vm_bits(c, buffer, vmbuffer, VISIBILITYMAP_VALID_BITS);
}

void
aurora_change_clear_vm_bits(AuroraChange *c, Buffer buffer, Buffer vmbuffer,
							uint8 vmbits)
{
	ChangedPage *p = find_page(c, buffer);

	if (p == NULL)
		elog(ERROR, "visibility bits of a page that is not part of the change");
	Assert(visibilitymap_pin_ok(p->blk, vmbuffer));
	p->vmbuffer = vmbuffer;
	p->vmbits |= vmbits;
}

void
aurora_change_set_vm(AuroraChange *c, Buffer buffer, Buffer vmbuffer,
					 uint8 vmbits)
{
	if (c->npages != 1 || c->pages[0].buffer != buffer)
		elog(ERROR, "visibility bits are set for the first and only page of a change");
	Assert(visibilitymap_pin_ok(c->pages[0].blk, vmbuffer));
	c->set_vmbuffer = vmbuffer;
	c->set_vmbits = vmbits;
}

void
aurora_change_conflict(AuroraChange *c, TransactionId latest_removed_xid)
{
	c->conflict_xid = latest_removed_xid;
}

/*
 * The map's layout: two bits a heap block, four blocks a byte, the first byte
 * right after the page header (access/heap/visibilitymap.c).
 */
bool
aurora_vm_page_set_bits(Page vmpage, BlockNumber blk, uint8 bits)
{
	const uint32 per_byte = BITS_PER_BYTE / BITS_PER_HEAPBLOCK;
	const uint32 per_page = (BLCKSZ - MAXALIGN(SizeOfPageHeaderData)) * per_byte;
	uint8	   *map = (uint8 *) PageGetContents(vmpage);
	uint8	   *byte = &map[(blk % per_page) / per_byte];
	int			shift = (blk % per_byte) * BITS_PER_HEAPBLOCK;

	if (((*byte >> shift) & VISIBILITYMAP_VALID_BITS) == bits)
		return false;
	*byte |= bits << shift;
	return true;
}

/* Step 1 of the critical section: the pages and the visibility map. */
static void
apply_change(AuroraChange *c, bool remote)
{
	for (int i = 0; i < c->npages; i++)
	{
		ChangedPage *p = &c->pages[i];
		const char *why;

		if (au_page_apply((uint8 *) BufferGetPage(p->buffer), p->ops.data,
						  p->ops.len, &why) != AU_OK)
			elog(PANIC, "could not apply change 0x%02X to block %u of \"%s\": %s",
				 c->info, p->blk, RelationGetRelationName(c->rel), why);
		if (!remote)
			MarkBufferDirty(p->buffer);
		if (BufferIsValid(p->vmbuffer))
			visibilitymap_clear(c->rel, p->blk, p->vmbuffer, p->vmbits);
	}
	if (BufferIsValid(c->set_vmbuffer))
	{
		aurora_vm_page_set_bits(BufferGetPage(c->set_vmbuffer),
								c->pages[0].blk, c->set_vmbits);
		MarkBufferDirty(c->set_vmbuffer);
	}
}

/* Step 2: the record. */
static XLogRecPtr
log_change(AuroraChange *c)
{
	AuRecMain	main_data = {0};
	uint8		encoded[AU_REC_MAIN_MAX];
	size_t		encoded_len;

	for (int i = 0; i < c->npages; i++)
		if (BufferIsValid(c->pages[i].vmbuffer))
		{
			main_data.flags |= AU_REC_VM_CLEAR;
			main_data.vm_clear_blocks |= 1 << i;
		}
	if (TransactionIdIsValid(c->conflict_xid))
	{
		main_data.flags |= AU_REC_CONFLICT;
		main_data.conflict_xid = c->conflict_xid;
	}
	encoded_len = au_rec_main_encode(encoded, &main_data);

	XLogBeginInsert();
	XLogSetRecordFlags(XLOG_INCLUDE_ORIGIN);
	if (encoded_len > 0)
		XLogRegisterData((char *) encoded, encoded_len);
	for (int i = 0; i < c->npages; i++)
	{
		ChangedPage *p = &c->pages[i];
		uint8		flags = REGBUF_NO_IMAGE | REGBUF_STANDARD;

		/* REGBUF_WILL_INIT would allow nothing more and hide the ops' kind */
		XLogRegisterBlock(i, &c->rel->rd_node, MAIN_FORKNUM, p->blk,
						  BufferGetPage(p->buffer), flags);
		XLogRegisterBufData(i, (char *) p->ops.data, p->ops.len);
	}
	if (BufferIsValid(c->set_vmbuffer))
	{
		/* the map is a local file's page: full-page images as usual */
		XLogRegisterBuffer(c->npages, c->set_vmbuffer, 0);
		XLogRegisterBufData(c->npages, (char *) &c->set_vmbits, 1);
	}
	return XLogInsert(AU_RMGR_ID, c->info);
}

XLogRecPtr
aurora_change_commit(AuroraChange *c)
{
	bool		remote = aurora_rel_is_remote(c->rel);
	XLogRecPtr	lsn = InvalidXLogRecPtr;

	Assert(c->npages > 0);
	for (int i = 0; i < c->npages; i++)
	{
		if (c->pages[i].ops.overflow)
			elog(ERROR, "change 0x%02X of block %u of \"%s\" does not fit a WAL record",
				 c->info, c->pages[i].blk, RelationGetRelationName(c->rel));
		/* storage takes a block without operations for a damaged record */
		if (c->pages[i].ops.len == 0)
			elog(ERROR, "change 0x%02X of block %u of \"%s\" has no operations",
				 c->info, c->pages[i].blk, RelationGetRelationName(c->rel));
	}
	if (BufferIsValid(c->set_vmbuffer))
		LockBuffer(c->set_vmbuffer, BUFFER_LOCK_EXCLUSIVE);

	START_CRIT_SECTION();
	apply_change(c, remote);
	if (remote)
	{
		lsn = log_change(c);
		for (int i = 0; i < c->npages; i++)
		{
			PageSetLSN(BufferGetPage(c->pages[i].buffer), lsn);
			aurora_last_written_set(&c->rel->rd_node, c->pages[i].blk, lsn);
		}
		if (BufferIsValid(c->set_vmbuffer))
			PageSetLSN(BufferGetPage(c->set_vmbuffer), lsn);
	}
	END_CRIT_SECTION();

	if (BufferIsValid(c->set_vmbuffer))
		LockBuffer(c->set_vmbuffer, BUFFER_LOCK_UNLOCK);
	c->rel = NULL;
	return lsn;
}
