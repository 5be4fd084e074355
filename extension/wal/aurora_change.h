/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_change.h: the only way a page of an aurora table is changed.
 *
 *	c = aurora_change_begin(rel, AU_XLOG_DELETE);
 *	ops = aurora_change_page(c, buffer);
 *	au_ops_tuphdr(ops, ...);
 *	aurora_change_clear_vm(c, buffer, vmbuffer);	-- if all-visible
 *	lsn = aurora_change_commit(c);
 *
 * aurora_change_commit enters a critical section, applies the operations to
 * the cached pages with au_page_apply, writes one WAL record with the same
 * bytes, sets the pages' LSNs, remembers them as last written, and leaves the
 * critical section.  For a temporary or unlogged relation it applies the
 * operations and marks the buffers dirty instead; no WAL.
 *
 * One change at a time a backend (there is one, static); begin resets it, so
 * an error between begin and commit needs no clean-up.  Nothing between begin
 * and commit may start another change (no toasting, no extension).
 */
#ifndef AURORA_CHANGE_H
#define AURORA_CHANGE_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"

#include "common/au_page.h"
#include "common/au_wal_format.h"

#define AURORA_CHANGE_MAX_PAGES 2

typedef struct AuroraChange AuroraChange;

extern AuroraChange *aurora_change_begin(Relation rel, uint8 info);

/* The page will be changed: caller holds the exclusive content lock (pruning:
 * the cleanup lock) until after commit.  Same buffer twice: the same ops. */
extern AuOps *aurora_change_page(AuroraChange *c, Buffer buffer);

/* Clear PD_ALL_VISIBLE of a page of this change and its bits (flags as for
 * visibilitymap_clear) in the pinned, unlocked VM buffer; redo does it too.  Call only if the page is
 * all-visible. */
extern void aurora_change_clear_vm(AuroraChange *c, Buffer buffer, Buffer vmbuffer);
/* Clear VM bits only (e.g. VISIBILITYMAP_ALL_FROZEN on a row lock); the page's
 * own flag stays unless it is in the ops. */
extern void aurora_change_clear_vm_bits(AuroraChange *c, Buffer buffer, Buffer vmbuffer, uint8 vmbits);

/* Set VM bits for the page of this change (VISIBLE record); vmbuffer pinned,
 * unlocked. */
extern void aurora_change_set_vm(AuroraChange *c, Buffer buffer, Buffer vmbuffer, uint8 vmbits);

/* Rows removed by this change were last visible to this xid (standby conflict). */
extern void aurora_change_conflict(AuroraChange *c, TransactionId latest_removed_xid);

/* Returns the record's LSN (InvalidXLogRecPtr for local relations).  Raises
 * an error (before the critical section) if the operations overflowed. */
extern XLogRecPtr aurora_change_commit(AuroraChange *c);

/* Set bits for heap block blk in a visibility map page (already the right
 * one, exclusively locked); true if that changed it.  For redo as well. */
extern bool aurora_vm_page_set_bits(Page vmpage, BlockNumber blk, uint8 bits);

#endif							/* AURORA_CHANGE_H */
