/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_image.h: whole pages into the log, for bulk copies and rewrites that
 * build pages in private memory.
 */
#ifndef AURORA_IMAGE_H
#define AURORA_IMAGE_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "storage/block.h"
#include "storage/bufpage.h"
#include "storage/relfilenode.h"

/*
 * Log the page as block blk of a permanent relation's main fork and publish
 * it: last-written LSN, and the relation's size, if known, grows to blk + 1.
 * Waits first while too much log is under way to storage; so call it without
 * locks on pages.
 *
 * The relation must be invisible to others (its storage made by this
 * transaction), and the block not in shared_buffers: nothing here looks.
 * Sets the page's LSN; returns it.
 */
extern XLogRecPtr aurora_log_page_image(const RelFileNode *rnode,
										BlockNumber blk, Page page);

/*
 * Log that no relation has this name any more and no pages are left under it;
 * publish size 0.  Nobody may have its pages in shared_buffers.  Does not
 * wait; may be called while a transaction aborts.
 */
extern void aurora_log_no_pages(const RelFileNode *rnode);

#endif							/* AURORA_IMAGE_H */
