/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_ship_link.h: the shipper's connection to a storage node.
 *
 *	link = aurora_link_create();              -- once a process
 *	aurora_link_open(link, ...);              -- connect, HELLO
 *	aurora_link_term(link, ...);              -- the right to append
 *	aurora_link_append(link, ...), aurora_link_flush, aurora_link_receive
 *	aurora_link_close(link);                  -- then open again
 *
 * Nothing here blocks but open and term, which can be interrupted.  All
 * memory is allocated by create.
 */
#ifndef AURORA_SHIP_LINK_H
#define AURORA_SHIP_LINK_H

#include "postgres.h"

#include "access/xlogdefs.h"

#include "common/au_wire.h"
#include "ship/aurora_ship_state.h"

/* Frames of appends that are encoded but not yet taken by the socket. */
#define AURORA_LINK_OUT_BYTES (2 * (AU_WIRE_APPEND_MAX + 256))
/* Answers to a writer are small: the longest is an error with its hint. */
#define AURORA_LINK_IN_BYTES (16 * 1024)

typedef enum AuroraLinkTrouble
{
	AURORA_LINK_OK,
	AURORA_LINK_LOST,			/* not reachable, closed, timed out: try again */
	AURORA_LINK_FULL,			/* the node cannot take more: try again later */
	AURORA_LINK_FENCED,			/* another writer has the volume */
	AURORA_LINK_REFUSED			/* somebody must do something first */
} AuroraLinkTrouble;

/* Put a failure into words; returns kind. */
extern AuroraLinkTrouble aurora_trouble(AuroraShipFailure *failure,
										AuroraLinkTrouble kind,
										const char *hint, const char *fmt,...)
			__attribute__((format(printf, 4, 5)));

typedef struct AuroraLink
{
	int			sock;			/* -1: closed */

	/* What the node said in HELLO_OK */
	uint64		node_id;
	bool		volume_known;
	XLogRecPtr	start_lsn;

	/* TERM_OK and every APPEND_OK */
	uint64		term;
	XLogRecPtr	received;
	XLogRecPtr	durable;
	XLogRecPtr	applied;

	/* Appends follow each other from here. */
	XLogRecPtr	sent;
	uint64		last_id;		/* of the newest request */
	uint64		acked_id;		/* newest that was answered */
	TimestampTz last_answer;	/* or when the oldest unanswered was sent */

	AuroraShipFailure failure;	/* text of the last trouble */

	uint8	   *out;
	size_t		out_start;
	size_t		out_end;
	uint8	   *in;
	size_t		in_len;
} AuroraLink;

extern AuroraLink *aurora_link_create(void);
extern void aurora_link_close(AuroraLink *link);

/* Connect and say HELLO.  Fills volume_known and start_lsn. */
extern AuroraLinkTrouble aurora_link_open(AuroraLink *link, uint64 system_identifier);

/* Ask for a term; then sent = received is where to go on. */
extern AuroraLinkTrouble aurora_link_term(AuroraLink *link, const AuMsgTerm *m);

/* True if an append of any permitted size fits. */
extern bool aurora_link_has_room(const AuroraLink *link);

/* Queue log bytes that begin at link->sent.  len 0 asks for the positions. */
extern void aurora_link_append(AuroraLink *link, TimeLineID timeline,
							   const uint8 *bytes, size_t len);

/* Send what the socket takes.  pending tells whether something is left. */
extern AuroraLinkTrouble aurora_link_flush(AuroraLink *link);
static inline bool
aurora_link_pending(const AuroraLink *link)
{
	return link->out_start < link->out_end;
}

/* Take the answers that have arrived. */
extern AuroraLinkTrouble aurora_link_receive(AuroraLink *link);

#endif							/* AURORA_SHIP_LINK_H */
