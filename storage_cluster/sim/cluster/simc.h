/* SPDX-License-Identifier: Apache-2.0 */
/*
 * simc.h: a cluster's membership on a seeded clock and network: views, slices
 * that move, gossip; joins, drains, removals, losses for ever, all the while
 * nodes crash, stand still and are cut off from each other.
 *
 *   au_gossip ──▶ the leader looks itself ──▶ UP ─┐
 *   administrator: JOIN DRAIN REMOVE WEIGHT ──────┼─▶ consensus ─▶ au_view of
 *   node has copied a slice ──▶ SLICES_READY ─────┘   (a model)    each node
 *
 * The views and the gossip are the real code (cluster/).  Consensus is a model:
 * a list of commands, which a leader adds to while it reaches a majority, and
 * which nodes apply in order, late.  Commands on their way to it may be lost,
 * late, or arrive twice.  A slice of a node is a model, too: complete or not.
 * The log quorum has a simulator of its own (sim/).
 *
 * What must hold (simc_check.c):
 *  1. Each node that has applied k commands has the same view; epochs grow by
 *     one with each change; a view survives its bytes.
 *  2. Whoever becomes the owner of a slice has all of it.
 *  3. Each slice has an owner that has it and is not lost.
 *  4. A read that is answered comes from a node that has the slice.
 *  5. A node that joins takes about its share, and nothing else moves.
 *  6. When it is quiet: all views are the newest, nothing moves any more, who
 *     is there is up, who is gone is not; and so gossip holds.
 */
#ifndef SIMC_H
#define SIMC_H

#include <stdio.h>

#include "cluster/au_gossip.h"
#include "cluster/au_ring.h"
#include "cluster/au_view.h"

#define SIMC_NODES_MAX 12
#define SIMC_TICK_US 10000
#define SIMC_COMMANDS_MAX 16384

typedef enum SimcPlant
{
	SIMC_PLANT_NONE,
	SIMC_PLANT_READY_EARLY,		/* a node says that it has what it is yet to copy */
	SIMC_PLANT_STALE_READY,		/* a slice's move ends by a word about an earlier one */
	SIMC_PLANT_LEFTOVER,		/* what is left of a slice counts as the slice */
	SIMC_PLANT_SERVE_INCOMING,	/* a node answers for a slice it is yet to copy */
	SIMC_PLANT_STALE_VIEW,		/* a node acts on a view before it keeps it */
	SIMC_PLANT_NO_OBJECTION,	/* a node that is suspected keeps silent */
	SIMC_PLANT_GOSSIP_DECIDES,	/* nobody looks whether a dead node is back */
	SIMC_PLANTS
} SimcPlant;

extern const char *const simc_plant_names[SIMC_PLANTS];

typedef struct SimcFlight
{
	struct SimcFlight *next;
	uint64_t	due;
	int			from;
	int			to;
	uint64_t	id;
	enum
	{
		SIMC_GOSSIP, SIMC_GOSSIP_OK, SIMC_COMMAND
	}			kind;
	union
	{
		AuMsgGossip gossip;
		AuViewCommand command;
	};
} SimcFlight;

typedef struct Simc Simc;

typedef struct SimcNode
{
	Simc	   *sim;
	int			index;
	bool		exists;
	bool		up;
	bool		lost;			/* with its disk, for ever */
	bool		member;			/* it is in the view it knows, or was */
	bool		gone;			/* it was removed, and has stopped */
	bool		voter;			/* of the consensus: it has caught up with it once */
	uint64_t	start_at;
	uint64_t	paused_until;
	uint64_t	node_id;
	char		address[16];
	AuGossip   *gossip;
	AuView		view;
	uint32_t	applied;		/* commands */
	AuView		kept;			/* on disk */
	uint32_t	kept_applied;

	/* slices: what is there, and whether that is all (survive crashes) */
	bool		has[AU_SLICES];
	bool		left[AU_SLICES];	/* of a slice that is not kept any more */
	uint64_t	copied_at[AU_SLICES];	/* 0: no copying */
	int			source[AU_SLICES];
	uint64_t	ready_at;		/* to be told again */
	uint64_t	join_at;
	uint64_t	probe_at[SIMC_NODES_MAX];	/* as a leader */
	uint8_t		failures[SIMC_NODES_MAX];
} SimcNode;

typedef struct SimcFigures
{
	uint64_t	ticks;
	uint64_t	faults;
	uint64_t	commands;
	uint64_t	changes;
	uint64_t	refused;
	uint64_t	joins;
	uint64_t	removals;
	uint64_t	losses;
	uint64_t	copies;
	uint64_t	reads;
	uint64_t	moved;			/* places that the ring gave to somebody else */
} SimcFigures;

struct Simc
{
	uint64_t	seed;
	SimcPlant	plant;
	bool		verbose;
	uint64_t	rng[4];
	uint64_t	now;
	uint64_t	trace;
	bool		quiet;
	bool		zones;			/* nodes lie in three */
	uint64_t	loss;			/* per mille */
	uint64_t	delay_us;
	uint64_t	crash,
				pause,
				partition,
				admin,
				lose;			/* once in so many ticks; 0: never */
	SimcNode	nodes[SIMC_NODES_MAX];
	uint64_t	cut_until[SIMC_NODES_MAX][SIMC_NODES_MAX];	/* from, to */
	SimcFlight *flights;

	int			leader;			/* -1: none */
	uint64_t	elect_at;
	AuView		head;
	uint32_t	ncommands;
	AuViewCommand commands[SIMC_COMMANDS_MAX];
	uint64_t	hash[SIMC_COMMANDS_MAX + 1];	/* of the view after so many */

	SimcFigures figures;
	bool		broken;
	char		verdict[512];
};

/* simc.c */
uint64_t	simc_random(Simc *s);
static inline uint64_t
simc_below(Simc *s, uint64_t n)
{
	return n == 0 ? 0 : simc_random(s) % n;
}
static inline bool
simc_one_in(Simc *s, uint64_t n)
{
	return n != 0 && simc_below(s, n) == 0;
}
void		simc_trace(Simc *s, uint64_t a, uint64_t b);
void		simc_fail(Simc *s, const char *fmt,...) __attribute__((format(printf, 2, 3)));
void		simc_say(Simc *s, const char *fmt,...) __attribute__((format(printf, 2, 3)));
bool		simc_run(Simc *s, uint64_t seed, SimcPlant plant, bool verbose);
void		simc_free(Simc *s);
/* Messages of a may reach b now. */
bool		simc_reaches(const Simc *s, int a, int b);
void		simc_fly(Simc *s, SimcFlight *f);	/* copied */
/* A command for the leader, from a node or (-1) an administrator. */
void		simc_propose(Simc *s, int from, const AuViewCommand *c);

/* simc_node.c */
void		simc_node_make(Simc *s, int index);
void		simc_node_start(SimcNode *n);
void		simc_node_crash(SimcNode *n);
void		simc_node_tick(SimcNode *n);
void		simc_node_arrive(SimcNode *n, const SimcFlight *f);
void		simc_read(Simc *s);	/* a client reads something somewhere */
int			simc_index_of(const Simc *s, const AuView *v, uint32_t number);

/* simc_check.c */
uint64_t	simc_hash(const AuView *v);
void		simc_check_applied(SimcNode *n);
void		simc_check_head(Simc *s, const AuView *before, const AuViewCommand *c, bool changed);
const char *simc_check_quiet(Simc *s);

#endif							/* SIMC_H */
