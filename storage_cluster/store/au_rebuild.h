/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_rebuild.h: a page store made anew beside a damaged one, from what other
 * nodes have (au_export.h).
 *
 *   begin ──▶ SIZES ──chunks──▶ PAGES ──chunks──▶ COMPLETE ──end──▶ (a store)
 *
 * It is as of the position that it was begun with: what is above comes from
 * the log when it is opened in the damaged one's place.  Until then that one
 * goes on serving what is sound.
 *
 * Invariants:
 *  1. Nothing of the damaged store is looked at: no deleted or truncated thing
 *     comes back from it, and none comes from the other node that is collected
 *     there (a chunk leaves out what is below its horizon, and so does the new
 *     store's).
 *  2. Only one that is complete, in files, may take the place of another.
 *
 * Threads: one at a time.
 */
#ifndef AU_REBUILD_H
#define AU_REBUILD_H

#include "store/au_export.h"

typedef struct AuRebuild AuRebuild;

/* In opt->dir, which does not exist or is empty; for these slices (none: only
 * sizes come in).  opt->dir is copied, what else opt points to must stay. */
AuStatus	au_rebuild_begin(AuRebuild **out, const AuPageStoreOptions *opt,
							 const AuStorePosition *position, const AuSliceSet *slices,
							 char *err, size_t errlen);
/* The chunk that is wanted next: of AU_KS_SIZE or AU_KS_PAGE, from this place,
 * at or below the position's applied LSN.  false: all is in. */
bool		au_rebuild_want(const AuRebuild *r, uint8_t *keyspace, AuPlace *place);
/* AU_INVALID, AU_CORRUPT: the chunk was not taken, another may be. */
AuStatus	au_rebuild_take(AuRebuild *r, const uint8_t *chunk, size_t len,
							char *err, size_t errlen);
uint64_t	au_rebuild_bytes(const AuRebuild *r);	/* of chunks taken */
/* Close it and free; what is in its directory is a store if all was in, and to
 * be removed otherwise. */
void		au_rebuild_end(AuRebuild *r);

#endif							/* AU_REBUILD_H */
