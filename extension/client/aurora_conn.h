/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_conn.h: the process's connections to storage nodes: choosing the node,
 * opening them, frames out, frames in, waiting.  Used by aurora_client.c only.
 *
 * There are a few, to one node each; most of the time one is used, the current
 * one.  aurora_conn_open chooses it, what follows is about it (but for
 * aurora_conn_take, which makes that of the request the current one).  Each:
 *
 *	closed ──aurora_conn_open──▶ open ◀──┐ send, receive, keep, take
 *	   ▲                          │  └───────┘
 *	   │ any failure; or          │
 *	   │ aurora_conn_open finds   │
 *	   │ what errors have left:   │
 *	   └── half a frame sent, ◀───┘
 *	       too many answers that nobody waits for
 *
 * Requests are pipelined: several may be out, answers come in any order and
 * are matched by id.  An answer can be waited for at once (receive), or kept
 * (keep, before the request is sent) and taken later; meanwhile it waits in
 * the socket or, when a later answer is read before it, in memory of its own.
 *
 * Invariants:
 *  1. Ids are never used twice in a process, so a late answer to a request
 *     that was given up (a cancel may raise its error from any wait) is never
 *     taken for one to a new request: it is read and dropped.
 *  2. Every wait ends at its deadline.
 *  3. A kept request is forgotten by aurora_conn_forget or when the resource
 *     owner ends that was current when it was made, whichever comes first.
 *  4. Memory: AURORA_CONN_KEPT_MAX frames at most, one a connection, and what is
 *	   shared with a node (aurora_share.h).
 */
#ifndef AURORA_CONN_H
#define AURORA_CONN_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "portability/instr_time.h"

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
/* The frame that answers request id; valid until the next call. */
extern bool aurora_conn_receive(uint64 id, AuFrame *frame, int64 deadline_ms);

/*
 * The same, but if there is no answer by late_ms another one of the nodes that
 * may be asked gets the request as well (aurora.hedge_delay, and only a small
 * part of all requests); the first answer of this type counts, and its node's
 * connection is the current one then.  Only nodes that seem well are asked, and
 * no more than HEDGE_OPEN_MS are spent on a connection to one: meanwhile the first
 * one's answer is not looked at.  *asked_at is moved to when that node was asked.
 */
extern bool aurora_conn_receive_hedged(uint64 id, uint16 type, const uint8 *request,
									   size_t len, AuFrame *frame,
									   int64 late_ms, int64 deadline_ms,
									   instr_time *asked_at);

/*
 * Answers that are taken later.  aurora_conn_keep is called before the
 * request is sent; false: too many are kept.  aurora_conn_take waits for the
 * answer; it stays valid until forgotten.  False: it will not come (the
 * connection broke, or it was forgotten), or it is late (then the connection
 * is closed).  aurora_conn_kept: not forgotten yet.
 *
 * *place: where in the memory shared with the node the answer's npages pages
 * are to go, for the request; 0: nowhere, they come in the answer.
 * aurora_conn_placed: that memory, good until the request is forgotten; what is
 * in it counts once the answer is taken.
 */
#define AURORA_CONN_KEPT_MAX 16
extern bool aurora_conn_keep(uint64 id, int npages, uint32 *place);
extern bool aurora_conn_kept(uint64 id);
/* Wait for a kept answer until then; false: it is late, nothing else happened. */
extern bool aurora_conn_kept_in_time(uint64 id, int64 until_ms);
extern bool aurora_conn_take(uint64 id, AuFrame *frame, int64 deadline_ms);
extern const uint8 *aurora_conn_placed(uint64 id);
extern void aurora_conn_forget(uint64 id);
/* Share memory with the node of the open connection, if it is on this machine
 * and agrees, until aurora_conn_forget_memory.  False: the connection broke. */
extern bool aurora_conn_share(int64 deadline_ms);
/* Give memory back, if nothing is kept. */
extern void aurora_conn_forget_memory(void);

extern void aurora_conn_close(void);
extern const char *aurora_conn_error(void);

/*
 * Several nodes.  aurora_conn_want says which ones may be asked from now on
 * (node >= 0: only that one, false if there is none (any more); nodes: bits of
 * places, 0 for all; aurora.read_node goes before), and has a look at the map; aurora_conn_open goes by it, and
 * aurora_conn_choices counts them.  aurora_conn_leave closes a connection whose
 * node failed; another one is asked next, if there is one.  A failure that these
 * functions see by themselves does the same.
 *
 * aurora_conn_hold: the current connection holds this LSN on its node
 * (InvalidXLogRecPtr: no more); it is not given up for a faster one, and those
 * opened from now on hold it, too.  Ends with aurora_conn_close_all.
 */
extern bool aurora_conn_want(int node, uint64 nodes);
extern int	aurora_conn_choices(void);
extern void aurora_conn_leave(void);
/* The same, for the node does not know our volume.  True: it is of a cluster and may
 * get it yet; it counts as one that does not answer, aurora_conn_error says why. */
extern bool aurora_conn_leave_without_volume(void);
/* Ask others for a while, if there are any; the connection stays open. */
extern void aurora_conn_pass(void);
extern void aurora_conn_hold(XLogRecPtr lsn);
extern void aurora_conn_close_all(void);
extern int	aurora_conn_node(void);	/* asked now, or last */
extern uint64 aurora_conn_node_id(void);	/* who it said it is */
extern const char *aurora_conn_target(void);	/* its address */
extern uint64 aurora_conn_next_id(void);
/* What this process is to the nodes (AU_ROLE_READER if it does not say). */
extern void aurora_conn_role(uint8 role);

#endif							/* AURORA_CONN_H */
