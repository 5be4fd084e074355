/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_nodes.h: the storage nodes of this server: their addresses, who keeps
 * which pages, what is known of each (shared memory), and which one a backend
 * had best ask.
 *
 * Nodes have places, 0 .. AURORA_NODES_MAX - 1; users see them as numbers from 1
 * on.  At first they are what aurora.storage_nodes lists, or the embedded daemon
 * at its socket.  When those turn out to be nodes of a cluster the watcher
 * (ship/aurora_watcher.c) puts the cluster's nodes there instead, and from then
 * on keeps the map as the view says; a node keeps its place as long as it
 * is in the view.
 *
 *	  watcher ──aurora_nodes_publish──▶ shared map ──aurora_nodes_look──▶ a process' copy
 *
 * The copy changes only within aurora_nodes_look.  All of it is opinion: who
 * goes by an old map makes a detour.
 */
#ifndef AURORA_NODES_H
#define AURORA_NODES_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "storage/block.h"
#include "storage/relfilenode.h"

#include "cluster/au_view.h"
#include "common/au_history.h"

#define AURORA_NODES_MAX AU_VIEW_NODES_MAX

/* What the shipper last said of a node. */
typedef enum AuroraNodeShipping
{
	AURORA_NODE_UNKNOWN,		/* nothing yet: no shipper, or it is just asked */
	AURORA_NODE_STREAM,
	AURORA_NODE_BEHIND,			/* gets log from the other nodes */
	AURORA_NODE_DOWN,
	AURORA_NODE_FOLLOWS			/* not in the log group: gets log from it */
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
	uint64		hedges;			/* questions that another node was asked, too, for
								 * its answer was late */
	uint64		hedge_wins;		/* such questions of another node's that it answered
								 * first */
	uint32		latency_us;		/* of late; 0: not known */
} AuroraNodeFigures;

/* Are the nodes those of a cluster? */
typedef enum AuroraClusterState
{
	AURORA_CLUSTER_UNKNOWN,		/* no node has said */
	AURORA_CLUSTER_NONE,		/* no: each keeps everything */
	AURORA_CLUSTER_VIEW			/* yes: the view says who keeps what */
} AuroraClusterState;

typedef struct AuroraNodePlace
{
	bool		used;
	bool		up;				/* the view says so */
	uint32		number;			/* in the view; 0: there is none */
	uint64		node_id;		/* likewise */
	char		address[AU_ADDRESS_MAX];
} AuroraNodePlace;

typedef struct AuroraNodeMap
{
	AuroraClusterState state;
	uint64		cluster_id;		/* whose view it is; VIEW only */
	uint64		epoch;			/* of the view */
	int			count;			/* places above are empty */
	AuroraNodePlace place[AURORA_NODES_MAX];
	uint64		owners[AU_SLICES];	/* bits of places; VIEW only */
	AuGroup		group;			/* that keeps our log; VIEW only */
	bool		settled;		/* ... the view knows a writer in it */
} AuroraNodeMap;

/* Take the settings apart; NULL, or what is wrong with them (a hint). */
extern const char *aurora_nodes_define(void);
/* What they list. */
extern int	aurora_nodes_configured(void);
/* Nodes of those that must hold log before it counts. */
extern int	aurora_nodes_quorum(void);

extern Size aurora_nodes_shmem_size(void);
extern void aurora_nodes_shmem_init(void);

/* ---- the map ---- */

/* Look whether there is a newer one; true: this process' copy has changed. */
extern bool aurora_nodes_look(void);
extern const AuroraNodeMap *aurora_nodes_map(void);
/* Only the watcher: this is the map now.  Places of other nodes than before
 * begin anew with their figures. */
extern void aurora_nodes_publish(const AuroraNodeMap *map);
/* A node said that pages are elsewhere: wake the watcher. */
extern void aurora_nodes_moved(void);
/* Only the watcher: its latch is the one to set. */
extern void aurora_nodes_watch(bool on);
/* The shipper to the watcher: this epoch of the log group is settled. */
extern void aurora_nodes_set_settled(uint32 epoch);
extern uint32 aurora_nodes_settled(void);
/* The watcher to the shipper: why it is not known yet what the nodes are ("" =
 * nothing to tell).  aurora_nodes_said copies at most len bytes. */
extern void aurora_nodes_say(const char *why);
extern void aurora_nodes_said(char *why, size_t len);

extern int	aurora_nodes_count(void);	/* places in use are below */
extern bool aurora_node_used(int node);
/* "host:port", "[v6]:port", or a socket's absolute path. */
extern const char *aurora_node_address(int node);
/* Places of a view's node; -1: none. */
extern int	aurora_node_place(uint64 node_id);
/* Bits of places whose nodes can answer for this block; never 0. */
extern uint64 aurora_node_owners(const RelFileNode *rnode, BlockNumber blk);
extern uint64 aurora_nodes_all(void);
/* Those that the view and the shipper hold for alive. */
extern uint64 aurora_nodes_alive(void);

/* ---- figures ---- */

extern void aurora_node_figures(int node, AuroraNodeFigures *out);

/* Only the shipper: publish everything up to problem. */
extern void aurora_node_report(int node, const AuroraNodeFigures *f);

/* A backend's experience with a node. */
extern void aurora_node_answered(int node, uint64 us);
extern void aurora_node_failed(int node);

/*
 * Hedging: when to ask a second node.  aurora_hedge_ms: after so long without an
 * answer; from aurora.hedge_delay, or twice what one of a hundred answers took
 * of late.  aurora_hedge_allowed: one more is within bounds (a small part of the
 * questions), and is counted.
 */
extern int64 aurora_hedge_ms(void);
extern bool aurora_hedge_allowed(void);
extern void aurora_node_hedged(int node, uint64 us);	/* it was late */
extern void aurora_node_hedge_won(int node);

/*
 * The node to ask next: of those in `among` the fastest that is up, that the
 * shipper reaches, and that is not in `avoid` (all: it counts for nothing); now
 * and then any, so that one that was slow gets another chance.  For things of
 * the log group or of each node all the same: aurora_nodes_all.
 */
extern int	aurora_node_choose(uint64 among, uint64 avoid);

#endif							/* AURORA_NODES_H */
