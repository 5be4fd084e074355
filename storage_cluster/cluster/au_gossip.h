/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_gossip.h: how the nodes of a cluster find each other, and who seems dead:
 * SWIM with suspicion and incarnations (Das, Gupta, Motivala 2002), over
 * requests and answers.  What it says is an opinion and decides nothing.
 *
 * Pure: time comes in, messages go out through the host's table; no clock, no
 * allocation, no chance but that of the seed.  One thread.
 *
 * Each period a node probes one other, so that each is probed within two
 * rounds of all members, whoever else fails:
 *
 *          period begins: a member not probed in this round, by chance
 *    IDLE ───────────────▶ DIRECT: PING ──── answer ───────────────▶ IDLE
 *     ▲                      │ direct_us
 *     │                      ▼
 *     │                    INDIRECT: PROXY to k others ── reached ─▶ IDLE
 *     │                      │ the period ends
 *     └──────────────────────┘ the member is suspected
 *
 * What is held of a member:
 *
 *    ALIVE(i) ── not reached, or so told ──▶ SUSPECT(i) ── (3 + log2 n) periods ──▶ DEAD(i)
 *       ▲                                        │                                    │
 *       └──── told of an incarnation above i ────┴────────────────────────────────────┘
 *
 * A node that hears that it is suspected, or dead, takes a new incarnation,
 * and tells that.  Whoever suspects somebody itself goes on pinging it, each
 * ping says so, and the answer bears the new incarnation.
 *
 * News ride on all messages, each AU_GOSSIP_LAMBDA * log2 n times, those that
 * were told least first; what room is left is filled with members by chance,
 * so that whoever missed news, or is new, learns everything in the end.  Dead
 * members and the addresses known from the start are knocked at now and then:
 * that joins what a partition has split.
 *
 * Invariants:
 *  1. Opinions are ordered by (incarnation, state); what a member is held for
 *     only moves up.  So all nodes that heard the same hold the same.
 *  2. Only the node itself makes a new incarnation of its own.
 *  3. Nobody is DEAD who was not SUSPECT for the time above, here or at another
 *     node; time in which this node itself stood still does not count.
 *  4. All is bounded: members, messages under way, bytes of a message
 *     (AU_GOSSIP_FRAME_MAX); each request is answered once.
 */
#ifndef AU_GOSSIP_H
#define AU_GOSSIP_H

#include "common/au_wire_gossip.h"
#include "core/au_hist.h"

#define AU_GOSSIP_MEMBERS_MAX 128	/* without this node */
#define AU_GOSSIP_SEEDS_MAX 64	/* addresses known from the start, and of the view */
#define AU_GOSSIP_RELAYS_MAX 16	/* nodes asked for others at a time */
#define AU_GOSSIP_PROXIES 3		/* others that are asked, SWIM's k */
#define AU_GOSSIP_LAMBDA 3
#define AU_GOSSIP_KNOCK_PERIODS 4
#define AU_GOSSIP_PERIOD_US 500000
#define AU_GOSSIP_DIRECT_US 200000
#define AU_GOSSIP_KEEP_US (UINT64_C(3600) * 1000000)	/* dead ones not in the view */

typedef struct AuGossipMember
{
	AuGossipRecord r;
	AuGossipMarks marks;		/* heartbeat 0: none heard of */
	uint64_t	since_us;		/* in this state */
	uint64_t	heard_us;		/* last word from itself; 0: never */
	uint64_t	marks_us;		/* these marks came */
	uint64_t	round;			/* probed last in */
	uint32_t	tells;			/* times this is still to be told */
	uint32_t	suspicions;		/* times it was suspected */
	bool		expected;		/* the view has it: never forgotten */
	bool		ours;			/* SUSPECT: we could not reach it */
} AuGossipMember;

/* None of these may call the gossip again. */
typedef struct AuGossipHost
{
	void	   *ctx;
	/* Send GOSSIP; an answer with this id comes to au_gossip_answer, or never.
	 * *m is the caller's, and gone afterwards. */
	void		(*send) (void *ctx, const char *address, uint64_t id, const AuMsgGossip *m);
	/* Answer a request that au_gossip_request left open. */
	void		(*answer) (void *ctx, uint64_t token, const AuMsgGossip *m);
	/* Once each period: this node's marks, but node_id and heartbeat. */
	void		(*own_marks) (void *ctx, AuGossipMarks *m);
	/* A member is new (was = 0) or held for something else than before. */
	void		(*changed) (void *ctx, const AuGossipMember *m, uint8_t was);
} AuGossipHost;

typedef struct AuGossipOptions
{
	uint64_t	node_id;
	const char *address;		/* where others reach this node; copied */
	uint64_t	cluster_id;		/* 0: none yet */
	uint64_t	start;			/* not 0; higher than at any earlier start, as far as
								 * known: real time in microseconds */
	uint64_t	seed;			/* of chance */
	uint64_t	period_us;		/* 0: as above */
	uint64_t	direct_us;		/* less than the period */
} AuGossipOptions;

typedef struct AuGossipFigures
{
	uint64_t	periods;
	uint64_t	probes_failed;	/* neither directly nor through others */
	uint64_t	proxied;		/* reached through others only */
	uint64_t	suspicions;		/* members that came to be suspected */
	uint64_t	refuted;		/* suspected or dead members that came back */
	uint64_t	deaths;
	uint64_t	objections;		/* new incarnations of our own */
	uint64_t	stalls;			/* times this node itself stood still */
	uint64_t	sent;
	uint64_t	strangers;		/* messages of another cluster */
	uint64_t	twins;			/* messages of another node with our node_id */
	uint64_t	dropped;		/* members there was no room for */
	AuHist		round_trip;		/* of direct probes that were answered */
} AuGossipFigures;

typedef struct AuGossip
{
	AuGossipHost host;
	AuGossipFigures figures;
	AuGossipRecord self;
	AuGossipMarks marks;
	uint64_t	cluster_id;
	uint64_t	period_us;
	uint64_t	direct_us;
	uint64_t	chance;
	uint64_t	last_id;
	uint64_t	ticked_us;
	uint64_t	round;
	uint32_t	nmembers;
	AuGossipMember members[AU_GOSSIP_MEMBERS_MAX];
	uint32_t	nseeds;
	char		seeds[AU_GOSSIP_SEEDS_MAX][AU_ADDRESS_MAX];

	uint64_t	period_at;		/* the next one begins */
	struct
	{
		uint64_t	node_id;	/* 0: IDLE */
		uint64_t	id;			/* of the PING */
		uint64_t	proxy_id[AU_GOSSIP_PROXIES];
		uint64_t	began_us;
		bool		indirect;
	}			probe;
	struct
	{
		uint64_t	id;			/* of our PING; 0: free */
		uint64_t	token;
		AuGossipRecord target;
		uint64_t	until_us;
	}			relays[AU_GOSSIP_RELAYS_MAX];
} AuGossip;

/* The host's table is copied. */
void		au_gossip_init(AuGossip *g, const AuGossipHost *host, const AuGossipOptions *opt,
						   uint64_t now_us);
void		au_gossip_set_cluster(AuGossip *g, uint64_t cluster_id);

/* An address to knock at; false: no room.  Again: nothing happens. */
bool		au_gossip_seed(AuGossip *g, const char *address);

/* Who is in the view (records' node_id and address count; n at most
 * AU_GOSSIP_MEMBERS_MAX): those not heard of are members now, to be probed;
 * those who were in it and are no more are ordinary ones again. */
void		au_gossip_expect(AuGossip *g, const AuGossipRecord *nodes, uint32_t n, uint64_t now_us);

/* Do what is due; returns microseconds until there is more. */
uint64_t	au_gossip_tick(AuGossip *g, uint64_t now_us);

typedef enum AuGossipReply
{
	AU_GOSSIP_NOW,				/* *answer is to be sent */
	AU_GOSSIP_LATER,			/* through host.answer, once */
	AU_GOSSIP_STRANGER			/* of another cluster: an error is to be sent */
} AuGossipReply;

/* A GOSSIP that came in; token: what host.answer is to be told. */
AuGossipReply au_gossip_request(AuGossip *g, uint64_t token, const AuMsgGossip *m,
								AuMsgGossip *answer, uint64_t now_us);
/* A GOSSIP_OK that came in. */
void		au_gossip_answer(AuGossip *g, uint64_t id, const AuMsgGossip *m, uint64_t now_us);

/* NULL: not heard of, or this node. */
const AuGossipMember *au_gossip_find(const AuGossip *g, uint64_t node_id);
const char *au_gossip_state_name(uint8_t state);
/* How long a member is suspected before it counts as dead, as of now. */
uint64_t	au_gossip_suspicion_us(const AuGossip *g);
/* Newest view that anybody is known to have. */
uint64_t	au_gossip_view_epoch(const AuGossip *g, const AuGossipMember **who);

#endif							/* AU_GOSSIP_H */
