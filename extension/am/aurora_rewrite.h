/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_rewrite.h: copy tuples of one aurora table into a new, invisible one
 * with their visibility information and update chains (CLUSTER, VACUUM FULL).
 */
#ifndef AURORA_REWRITE_H
#define AURORA_REWRITE_H

#include "postgres.h"

#include "access/htup.h"
#include "access/multixact.h"
#include "utils/rel.h"

typedef struct AuroraRewrite AuroraRewrite;

/*
 * Both tables locked exclusively.  oldest_xmin: what the caller tells dead
 * tuples by; freeze_limit, multi_cutoff: xids before them are frozen.
 */
extern AuroraRewrite *aurora_rewrite_begin(Relation old_rel, Relation new_rel,
										   TransactionId oldest_xmin,
										   TransactionId freeze_limit,
										   MultiXactId multi_cutoff);

/* Store new_tuple, whose data is a private copy and is scribbled on, with the
 * visibility of old_tuple (t_self set; a page of the old table or a copy). */
extern void aurora_rewrite_tuple(AuroraRewrite *rw, HeapTuple old_tuple,
								 HeapTuple new_tuple);

/* A dead tuple, not to be copied, was met.  True if this shows that an older
 * version handed in before is dead as well, and it was dropped. */
extern bool aurora_rewrite_dead_tuple(AuroraRewrite *rw, HeapTuple old_tuple);

/* Store what still waits, write the last page, free everything. */
extern void aurora_rewrite_end(AuroraRewrite *rw);

#endif							/* AURORA_REWRITE_H */
