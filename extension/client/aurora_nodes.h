/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_nodes.h: the storage nodes of this server, from aurora.storage_nodes:
 * their addresses, what is known of each (shared memory), and which one a
 * backend had best ask.
 *
 * The list is fixed when the server starts.  With an empty setting there is
 * one node, the embedded daemon at its socket.  Node numbers begin with 0 in
 * here, with 1 in what users see.
 *
 * Each field of AuroraNodeFigures is a figure or an opinion, nothing is
 * decided on it: the worst a stale one does is a detour.
 */
#ifndef AURORA_NODES_H
#define AURORA_NODES_H

#include "postgres.h"

#include "access/xlogdefs.h"

#include "common/au_history.h"

/* What the shipper last said of a node. */
typedef enum AuroraNodeShipping
{
	AURORA_NODE_UNKNOWN,		/* nothing yet: no shipper, or it just starts */
	AURORA_NODE_STREAM,
	AURORA_NODE_BEHIND,			/* gets log from the other nodes */
	AURORA_NODE_DOWN
} AuroraNodeShipping;

typedef struct AuroraNodeFigures
{
	AuroraNodeShipping shipping;
	uint64		node_id;		/* 0: never reached */
	XLogRecPtr	sent;
	XLogRecPtr	durable;
	XLogRecPtr	applied;
	char		problem[256];	/* why it is not STREAM, or "" */
	uint64		reads;			/* answers to backends' questions */
	uint64		errors;			/* questions that it failed to answer */
	uint32		latency_us;		/* of late; 0: not known */
} AuroraNodeFigures;

/* Take the settings apart; NULL, or what is wrong with them (a hint). */
extern const char *aurora_nodes_define(void);

extern int	aurora_nodes_count(void);	/* 1 .. AU_GROUP_MAX */
/* Nodes that must hold log before it counts. */
extern int	aurora_nodes_quorum(void);
/* "host:port", "[v6]:port", or a socket's absolute path. */
extern const char *aurora_node_address(int node);

extern Size aurora_nodes_shmem_size(void);
extern void aurora_nodes_shmem_init(void);
extern void aurora_node_figures(int node, AuroraNodeFigures *out);

/* Only the shipper: publish everything up to problem. */
extern void aurora_node_report(int node, const AuroraNodeFigures *f);

/* A backend's experience with a node. */
extern void aurora_node_answered(int node, uint64 us);
extern void aurora_node_failed(int node);

/*
 * The node to ask next: of those that are not in `avoid` (a bit for each node;
 * all: it counts for nothing) and that the shipper reaches, the fastest; now
 * and then any, so that one that was slow gets another chance.
 */
extern int	aurora_node_choose(uint32 avoid);

#endif							/* AURORA_NODES_H */
