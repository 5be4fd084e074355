/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kv_sim.h: nodes of the key-value interface in one process, on a seeded clock,
 * network and disk.
 *
 *   clients ──GET, PUT, DEL──▶ cluster/au_kv*.c of 3 to 5 nodes ◀──▶ each other
 *                                        │
 *                              cluster/au_kv_exec.c on a map in memory; what
 *                              was not executed when a node dies did not happen
 *
 * Faults: messages lost, late, twice and in any order; partitions, one-way too,
 * noticed or not; crashes with lost operations; slow disks, writes that fail, or
 * seem to; damaged records; nodes that join and drain, with views that arrive late.  Then quiet, in which
 * replicas must become the same.
 *
 * What must hold (checked with the dots of all writes, which the simulator sees
 * being made):
 *  1. With R + W > N a GET returns each acknowledged write, or one that
 *     replaced it is known.
 *  2. A GET never returns what an acknowledged write or deletion replaced.
 *  3. Of two values returned together neither was written knowing the other.
 *  4. After the quiet: every owner has the same records; none is owed, none is
 *     foreign; deleted keys have left no trace.
 */
#ifndef AU_KV_SIM_H
#define AU_KV_SIM_H

#include <stdio.h>

#include "cluster/au_kv.h"
#include "core/au_plant.h"

#define SIM_NODES 5
#define SIM_CLIENTS 5
#define SIM_KEYS 8
#define SIM_STEP_US 1000
#define SIM_WRITES_MAX 20000

typedef struct SimEntry
{
	uint8_t    *key;
	size_t		klen;
	uint8_t    *value;
	size_t		len;
} SimEntry;

typedef struct SimNode
{
	struct Sim *sim;
	uint32_t	index;
	uint32_t	number;			/* 0: not in the cluster yet */
	bool		up;
	bool		gone;			/* drained and removed */
	uint64_t	life;			/* grows with each start */
	uint64_t	start_at;
	uint64_t	view_at;		/* the newest view arrives */
	AuKv	   *kv;
	AuKvExec	exec;
	SimEntry   *map;
	uint32_t	nmap;
	uint32_t	cap;
	AuKvOp	   *reads;			/* oldest first */
	AuKvOp	   *writes;
	uint64_t	reads_at;		/* they are done */
	uint64_t	writes_at;
	uint64_t	epoch;			/* of its view */
	bool		linked[SIM_NODES];	/* it thinks it can send there */
	bool		cut[SIM_NODES];	/* what it sends there is lost */
} SimNode;

typedef struct SimMessage
{
	struct SimMessage *next;
	uint64_t	at;
	uint64_t	life;			/* of the receiver */
	int			from;
	int			to;				/* node; clients from 100 on */
	bool		answer;
	uint64_t	client;			/* whom the question is from, for the answer */
	uint8_t    *bytes;
	size_t		len;
} SimMessage;

/* A write that happened: a dot. */
typedef struct SimWrite
{
	AuKvDot		dot;
	uint32_t	key;
	uint64_t	id;				/* of its value; 0: a deletion */
	AuKvVector	past;
	uint64_t	at;
	uint64_t	acked;			/* 0: nobody was told */
	uint32_t	w;				/* replicas that count, 0: with those that stand in */
	bool		superseded;		/* by a write that happened */
	uint64_t	superseded_at[4];	/* by one acknowledged then by so many (0: any); 0: none */
} SimWrite;

typedef struct SimClient
{
	bool		busy;
	uint64_t	asked;			/* time */
	uint64_t	request;
	uint32_t	key;
	uint16_t	type;
	bool		del;
	bool		sloppy;
	bool		final;
	uint32_t	r;
	uint32_t	w;
	uint64_t	id;
	uint64_t	next_at;
	uint32_t	node;
	struct
	{
		uint8_t		bytes[AU_KV_CONTEXT_MAX];
		size_t		len;
	}			context[SIM_KEYS];
	AuKvVector	past;			/* of the PUT under way */
} SimClient;

typedef struct SimOptions
{
	uint64_t	seed;
	AuPlant		plant;
	bool		verbose;
} SimOptions;

typedef struct SimFigures
{
	uint64_t	puts;
	uint64_t	acked;
	uint64_t	gets;
	uint64_t	read;			/* GETs that were answered */
	uint64_t	conflicts;
	uint64_t	crashes;
	uint64_t	partitions;
	uint64_t	views;
	uint64_t	damaged;
	uint64_t	failed_writes;	/* batches */
	uint64_t	repairs;
	uint64_t	hints;
	uint64_t	delivered;
	uint64_t	fetched;
	uint64_t	collected;
} SimFigures;

typedef struct Sim
{
	SimOptions	opt;
	uint64_t	random;
	uint64_t	now;
	uint64_t	trace;
	AuView		view;
	AuKvHost	host;			/* but for its ctx */
	SimNode		nodes[SIM_NODES];
	SimClient	clients[SIM_CLIENTS];
	SimMessage *messages;
	SimWrite   *writes;
	uint32_t	nwrites;
	uint64_t	next_id;
	uint32_t	replicas;
	uint32_t	loss;			/* one message in so many; 0: none */
	bool		quiet;
	bool		failed;
	char		verdict[400];
	SimFigures	figures;
} Sim;

uint64_t	sim_random(Sim *s);
static inline uint64_t
sim_below(Sim *s, uint64_t n)
{
	return n == 0 ? 0 : sim_random(s) % n;
}
static inline bool
sim_one_in(Sim *s, uint64_t n)
{
	return n != 0 && sim_below(s, n) == 0;
}
void		sim_fail(Sim *s, const char *fmt,...) __attribute__((format(printf, 2, 3)));
void		sim_trace(Sim *s, uint64_t what, uint64_t value);

/* kv_sim_node.c */
void		sim_node_start(Sim *s, uint32_t i);
void		sim_node_stop(Sim *s, uint32_t i);
void		sim_node_step(Sim *s, uint32_t i);
void		sim_node_free(Sim *s, uint32_t i);
void		sim_link(Sim *s, uint32_t a, uint32_t b, bool up);
void		sim_send(Sim *s, int from, int to, bool answer, uint64_t client, uint8_t *bytes, size_t len);
void		sim_deliver(Sim *s);
void		sim_fill_host(Sim *s);
const char *sim_key(uint32_t key);
/* Record of a key on a node; NULL: none. */
const SimEntry *sim_record(const SimNode *n, uint32_t key);

/* kv_sim_check.c */
void		sim_client_step(Sim *s, uint32_t c);
void		sim_client_told(Sim *s, uint32_t c, const AuFrame *f);
void		sim_wrote(Sim *s, const AuKvExec *x, const AuKvOp *op);
void		sim_check_end(Sim *s);

/* kv_sim.c; false: failed, verdict says why. */
bool		sim_run(Sim *s, const SimOptions *opt);

#endif							/* AU_KV_SIM_H */
