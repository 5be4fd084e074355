/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_conn.h: the process's one connection to the storage node: opening
 * it, frames out, frames in, waiting.  Used by aurora_client.c only.
 *
 *	closed ──aurora_conn_open──▶ idle ──aurora_conn_send──▶ busy
 *	   ▲                          ▲                           │
 *	   │ any failure, or          └────aurora_conn_receive────┤
 *	   │ aurora_conn_open finds   (answer with our id)        │
 *	   │ it busy (a call was left                             │
 *	   │ by an error)                                         │
 *	   └──────────────────────────────────────────────────────┘
 *
 * Invariants:
 *  1. While busy an error may be raised from any wait (a cancel); the next
 *     call then starts with a new connection, so a late answer to an old
 *     request is never taken for one to a new request.
 *  2. Every wait ends at its deadline.
 */
#ifndef AURORA_CONN_H
#define AURORA_CONN_H

#include "postgres.h"

#include "common/au_wire.h"

/* Milliseconds of a clock that does not jump. */
extern int64 aurora_now_ms(void);

/* Cancel and termination requests raise their error from here, also while an
 * LWLock holds off interrupts.  Not in a critical section. */
extern void aurora_check_interrupts(void);

/* Sleep for ms, or until something interrupts. */
extern void aurora_nap(long ms);

/*
 * Each returns false on failure or when deadline_ms (of aurora_now_ms) is
 * past; the connection then is closed and aurora_conn_error() says why.
 * aurora_conn_open does nothing if the connection is open and idle; else it
 * connects and exchanges HELLO; *hello is what the node said when the
 * connection was opened.  An ERROR answer to HELLO is given in *refusal, with
 * status not AU_OK.
 */
extern bool aurora_conn_open(int64 deadline_ms, AuMsgHelloOk *hello,
							 AuMsgError *refusal);
extern bool aurora_conn_send(const uint8 *frame, size_t len, int64 deadline_ms);
/* The next frame that answers request id; valid until the next call. */
extern bool aurora_conn_receive(uint64 id, AuFrame *frame, int64 deadline_ms);
extern void aurora_conn_close(void);
extern const char *aurora_conn_error(void);
extern uint64 aurora_conn_next_id(void);

#endif							/* AURORA_CONN_H */
