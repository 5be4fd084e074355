/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_share.h: memory that this process shares with a storage node on the
 * same machine, so that pages need not go through the socket.
 *
 *	  base ─▶ │ slot 0: pages of one answer │ slot 1 │ … │
 *
 * Invariants:
 *  1. A slot is in use from aurora_share_take until the answer has come and its
 *     pages are looked at no more; a request that was given up keeps its slot
 *     until its answer is read and dropped.
 *  2. A share belongs to one connection: after that is closed the node may still
 *     write there, so no slot is taken any more; the memory stays mapped until
 *     the last answer in it was forgotten.
 */
#ifndef AURORA_SHARE_H
#define AURORA_SHARE_H

#include "postgres.h"

/* As many as read-ahead has in flight by default, and the one being read. */
#define AURORA_SHARE_SLOTS 5
#define AURORA_SHARE_SLOT_PAGES 64

typedef struct AuroraShare AuroraShare;

/* NULL: not possible here.  *fd names the memory to the node; the caller closes
 * it.  One user: leave ends it. */
extern AuroraShare *aurora_share_new(int *fd);
extern void aurora_share_use(AuroraShare *share);
extern void aurora_share_leave(AuroraShare *share);	/* NULL is allowed */

/* A slot for the answer to request id; -1: all are in use. */
extern int	aurora_share_take(AuroraShare *share, uint64 id);
/* The answer to id is there and is not, or no more, looked at. */
extern void aurora_share_done(AuroraShare *share, uint64 id);
extern uint8 *aurora_share_memory(AuroraShare *share, int slot);

#endif							/* AURORA_SHARE_H */
