/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_ask.h: one question to another node, on a connection of its own: connect,
 * HELLO, the question, its answer, close.  For what is asked seldom: views,
 * commands, whether somebody is there.  All on the loop thread.
 *
 * Invariants:
 *  1. `done` is called once, not before au_ask returned: with the answer (also
 *     ERROR), or with NULL and why there is none, after timeout_ms at the
 *     latest.  The frame is good until `done` returns.
 *  2. At most AU_ASKS_MAX are under way; they are d->asks.
 */
#ifndef AU_ASK_H
#define AU_ASK_H

#include "daemon/au_daemon.h"

#define AU_ASKS_MAX 256
#define AU_ASK_ID 2				/* the id the question must have */

typedef void (*AuAskDone) (void *ctx, const AuFrame *answer, const char *why);

/* The question: a whole frame, copied.  node_id: whose answer is wanted, for
 * another node may have its address by now; 0: anybody's.  false: not now (bad
 * address, out of memory, too many); `done` is not called then. */
bool		au_ask(AuDaemon *d, const char *address, uint64_t node_id, uint32_t timeout_ms,
				   const uint8_t *frame, size_t len, AuAskDone done, void *ctx);
/* Give up all questions; their `done` is called on the way. */
void		au_asks_stop(AuDaemon *d);

#endif							/* AU_ASK_H */
