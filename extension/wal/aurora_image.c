/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_image.c: whole pages into the log, and out of the world (see
 * aurora_image.h).
 *
 * Invariants:
 *  1. The page's bytes between pd_lower and pd_upper are not logged and so
 *     must be zero, as au_page.h wants them.
 *  2. No critical section: nothing shared is changed before the record, and
 *     if publishing could fail, the transaction's abort would drop a relation
 *     nobody else has seen.
 */
#include "postgres.h"

#include "access/xloginsert.h"
#include "common/au_page.h"
#include "common/au_wal_format.h"

#include "cache/aurora_pagecache.h"
#include "ship/aurora_ship.h"
#include "wal/aurora_image.h"

/* The operation's header and all of a page. */
#define IMAGE_OPS_MAX (5 + AU_PAGE_SIZE)

XLogRecPtr
aurora_log_page_image(const RelFileNode *rnode, BlockNumber blk, Page page)
{
	RelFileNode relnode = *rnode;	/* XLogRegisterBlock wants it writable */
	uint8		image[IMAGE_OPS_MAX];
	AuOps		ops;
	XLogRecPtr	lsn;

	aurora_ship_throttle();

	au_ops_start(&ops, image, sizeof(image));
	au_ops_image(&ops, (const uint8 *) page);
	if (ops.overflow)
		elog(ERROR, "image of block %u does not fit its buffer", blk);

	XLogBeginInsert();
	XLogRegisterBlock(0, &relnode, MAIN_FORKNUM, blk, page,
					  REGBUF_NO_IMAGE | REGBUF_STANDARD);
	XLogRegisterBufData(0, (char *) ops.data, (int) ops.len);
	lsn = XLogInsert(AU_RMGR_ID, AU_XLOG_IMAGE);

	if (!PageIsNew(page))
		PageSetLSN(page, lsn);
	aurora_last_written_set(rnode, blk, lsn);
	aurora_size_bump(rnode, blk + 1, lsn);
	return lsn;
}

/* Redo of the record drops what a standby has cached, and cuts map files if
 * there are any. */
void
aurora_log_no_pages(const RelFileNode *rnode)
{
	AuRecMain	main_data = {0};
	uint8		encoded[AU_REC_MAIN_MAX];
	XLogRecPtr	lsn;

	main_data.flags = AU_REC_TRUNCATE;
	main_data.truncate_rel.spc = rnode->spcNode;
	main_data.truncate_rel.db = rnode->dbNode;
	main_data.truncate_rel.rel = rnode->relNode;
	main_data.truncate_rel.fork = MAIN_FORKNUM;
	XLogBeginInsert();
	XLogRegisterData((char *) encoded,
					 (int) au_rec_main_encode(encoded, &main_data));
	lsn = XLogInsert(AU_RMGR_ID, AU_XLOG_TRUNCATE | XLR_SPECIAL_REL_UPDATE);
	aurora_size_set(rnode, 0, lsn);
}
