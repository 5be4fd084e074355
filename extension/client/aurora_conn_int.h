/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_conn_int.h: what the files behind aurora_conn.h share; nobody else
 * includes it.
 *
 *	  aurora_conn.c    the connections: which node, opening, greeting, closing
 *	  aurora_socket.c  from an address to a socket
 *	  aurora_frames.c  frames out and in, waiting
 *	  aurora_kept.c    answers that are taken later, memory shared with the node
 *	  aurora_hedge.c   a second node is asked the same
 *
 * One connection is the current one; functions without a Conn are about that.
 */
#ifndef AURORA_CONN_INT_H
#define AURORA_CONN_INT_H

#include "postgres.h"

#include "storage/latch.h"
#include "utils/resowner.h"

#include "client/aurora_conn.h"
#include "client/aurora_nodes.h"
#include "client/aurora_share.h"
#include "common/au_wire.h"

/* Nodes that a process is connected to at a time. */
#define AURORA_CONNS_MAX 8
#define AURORA_CONN_FIRST_BUFFER (16 * 1024)

typedef struct Conn
{
	int			fd;				/* -1: closed */
	int			node;			/* place of its node */
	char		address[AU_ADDRESS_MAX];	/* which was there then */
	uint64		used;			/* when it was current last, in calls */
	bool		stay;			/* this connection holds something */
	int64		chosen_at;		/* when the node was chosen, ms */
	bool		greeted;		/* HELLO is answered */
	bool		halfway;		/* in the middle of a frame sent */
	int			unanswered;		/* requests sent, no answer yet */
	WaitEventSet *waits;		/* latch, postmaster death, fd */
	int			fd_pos;			/* of fd in waits */
	AuMsgHelloOk hello;
	AuroraShare *share;			/* offered to the node; NULL: none */
	int			share_fd;		/* of it, until the node has answered; else -1 */
	bool		share_usable;	/* the node has it */
	bool		share_tried;	/* it was offered, whatever came of it */
	uint8	   *in;				/* received, not yet consumed */
	size_t		in_len;
	size_t		in_cap;
	size_t		in_done;		/* bytes of the frame given out last */
} Conn;

/* A request whose answer is taken later. */
typedef struct Kept
{
	uint64		id;				/* 0: unused */
	Conn	   *conn;			/* which brings the answer */
	ResourceOwner owner;		/* whose end forgets it */
	enum
	{
		KEPT_AWAITED,
		KEPT_HERE,				/* frame is valid, in memory */
		KEPT_LOST				/* the connection broke */
	}			state;
	AuFrame		frame;
	AuroraShare *share;			/* where its pages go; NULL: into the frame */
	int			slot;			/* in it */
	uint8	   *memory;			/* stays allocated while unused */
	size_t		cap;
} Kept;

/* aurora_conn.c */
extern Conn aurora_conns[AURORA_CONNS_MAX];
extern Conn *aurora_conn_now;	/* the current one */
extern uint64 aurora_conns_among;	/* places of nodes that may be asked */
/* When nodes that failed us may be asked again, aurora_now_ms(). */
extern int64 aurora_conns_avoid_until[AURORA_NODES_MAX];
/* Bits of places whose nodes failed us just now. */
extern uint64 aurora_conns_avoided(int64 now);

/* aurora_socket.c: a connected, non-blocking, close-on-exec socket; -1 with *err
 * (palloc'd). */
extern int	aurora_open_socket(int node, int timeout_ms, char **err);
/* How long the next wait may be; 0 when the deadline is past. */
extern long aurora_slice_until(int64 deadline_ms);

/* aurora_frames.c */
extern char aurora_conn_error_text[AU_WIRE_TEXT_MAX];	/* of the last failure */
/* Remember why, close; always false. */
extern bool aurora_conn_fail(const char *fmt,...) __attribute__((format(printf, 1, 2)));
/* Make the input buffer `need` bytes long, at least. */
extern void aurora_frames_reserve(size_t need);
/* Read what there is, without waiting, after aurora_frames_next has made room.
 * *got: something came.  false: the connection failed. */
extern bool aurora_frames_receive(bool *got);
/* The next frame that answers `id` from the input; see there. */
extern AuStatus aurora_frames_next(uint64 id, AuFrame *frame);
/* Receive until the answer to request id is there, or kept. */
extern bool aurora_frames_await(uint64 id, AuFrame *frame, int64 deadline_ms);

/* aurora_kept.c */
extern Kept aurora_kept[AURORA_CONN_KEPT_MAX];
extern int	aurora_nkept;		/* in use */
extern Kept *aurora_kept_find(uint64 id);	/* NULL: none */
/* The frame at the start of the input, `used` bytes, is the answer. */
extern void aurora_kept_take_in(Kept *k, const AuFrame *frame, size_t used);
/* The connection shares memory no more; also if there is none. */
extern void aurora_kept_drop_share(void);
/* Answers still to come that nobody waits for. */
extern int	aurora_kept_abandoned(void);

#endif							/* AURORA_CONN_INT_H */
