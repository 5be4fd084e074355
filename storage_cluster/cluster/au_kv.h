/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_kv.h: the key-value interface of a node: coordinator of clients'
 * requests, replica, and what mends replicas in the background.  After Dynamo
 * (DeCandia et al. 2007) with dotted version vectors (au_kv_vv.h).  Pure: no
 * clock, network, disk or thread but through AuKvHost.
 *
 *   client ──GET, PUT, LIST──▶ any node ──READ, STORE──▶ owners of the slice
 *                                 │                          │
 *                                 │ PUT: an owner does it    ▼
 *                                 └──────────────▶ AuKvOp, the node's store
 *
 * slice = au_kv_slice(key); its owners are those of the view.  N of them take
 * part (all, if not told), R have answered a GET, W have a PUT on disk.
 *
 * PUT and DEL are coordinated by an owner: it makes the dot, has the record on
 * its own disk first, with a note of whom it is owed to, then sends it to the
 * others, and strikes off those that have it.  Notes that stay are worked off
 * when the other node is back.  For a dead owner the record also goes to the
 * next node on the ring, which has no business with the slice: it keeps it
 * (a hint) until all owners have it.
 *
 * A record in a slice that the node does not own, a hint or what is left from
 * before the view changed, is a foreign one: offered to all owners, forgotten
 * when each has it.
 *
 * An owner counts (for R and W) once it is complete: it has fetched the slice
 * from those that owned it before and those that own it now, each of which
 * knew that it is an owner.  Until then it takes what it is sent, and its
 * answers do not count.  A request that goes on while owners change counts
 * those it began with, or those of now, never some of both (au_kv_request.c).
 *
 * Tombstones go when all owners have the same (PURGE 1), then all other nodes
 * have nothing older of that key (PURGE 2), then the owners remove it
 * (PURGE 3).  What was read before and is still on its way cannot come back:
 * it carries the receiver's serial, known before it was read, and the receiver
 * took a new one with its agreement.
 *
 * Invariants:
 *  1. A replica's answer to STORE means: it is on disk.
 *  2. With R + W > N, and without AU_KV_SLOPPY, a GET sees each PUT that was
 *     acknowledged before it, or one that replaced it.
 *     (Where one replica has values and another nothing a GET is begun once
 *     more: a tombstone may have gone between the two reads.)
 *  3. A store holds all dots it made for a key, or they were replaced; so
 *     only complete owners make dots.
 *  4. What is deleted everywhere does not come back.
 *  5. Bounded: AU_KV_TASKS_MAX requests, AU_KV_BYTES_MAX of their records;
 *     beyond, new ones are refused (AU_FULL).  All waits end.
 *
 * Threads: one.
 */
#ifndef AU_KV_H
#define AU_KV_H

#include "cluster/au_kv_exec.h"
#include "common/au_wire_kv.h"
#include "core/au_hist.h"
#include "core/au_node.h"

#define AU_KV_TASKS_MAX 1024
#define AU_KV_BYTES_MAX ((uint64_t) 32 << 20)
#define AU_KV_RESERVED "aurora/"	/* keys that only nodes write */

typedef struct AuKv AuKv;

/* No function may call back into AuKv. */
typedef struct AuKvHost
{
	void	   *ctx;
	uint64_t	(*now_us) (void *ctx);	/* monotonic */
	void	   *(*alloc) (void *ctx, size_t size);
	void		(*release) (void *ctx, void *p);
	void		(*log) (void *ctx, AuLogLevel level, const char *message);
	/* Execute (au_kv_exec); au_kv_done follows.  The op is the host's until
	 * then.  Its memory is of alloc. */
	void		(*submit) (void *ctx, AuKvOp *op);
	/* Memory for a frame of at most cap bytes; NULL: there is none. */
	uint8_t    *(*buffer) (void *ctx, size_t cap);
	/* Takes over memory of buffer.  send: false: no connection to that node,
	 * or it takes nothing; the host connects by itself. */
	bool		(*send) (void *ctx, uint32_t number, uint8_t *buffer, size_t len);
	void		(*answer) (void *ctx, void *client, uint8_t *buffer, size_t len);
} AuKvHost;

typedef struct AuKvOptions
{
	bool		cluster;		/* there will be a view: do nothing without one */
	uint64_t	tick_us;		/* of background work, 0: 250 ms */
} AuKvOptions;

typedef enum AuKvRequest
{
	AU_KV_GETS,
	AU_KV_PUTS,					/* with deletions */
	AU_KV_LISTS,
	AU_KV_REQUESTS
} AuKvRequest;

typedef struct AuKvStats
{
	/* of clients, not those that another node's client asked for */
	uint64_t	gets;
	uint64_t	puts;			/* with deletions */
	uint64_t	lists;
	uint64_t	failed;			/* requests, nodes' too, answered with an error */
	const AuHist *latency;		/* of those answered without one, by AuKvRequest;
								 * good until AuKv is used again */
	uint64_t	conflicts;		/* GETs that gave more than one value */
	uint64_t	repairs;		/* records sent to replicas that were behind */
	uint64_t	hints;			/* records given to a node that stands in */
	uint64_t	delivered;		/* records that were owed or foreign, delivered */
	uint64_t	fetched;		/* records fetched with slices */
	uint64_t	collected;		/* tombstones that are gone */
	uint64_t	damaged;		/* records found damaged */
	uint32_t	tasks;			/* now */
	uint32_t	slices_owned;
	uint32_t	slices_complete;
	bool		owes;			/* some node is owed records, as far as known */
} AuKvStats;

/* state: what au_kv_exec_open gave; x: its result.  NULL: out of memory. */
AuKv	   *au_kv_new(const AuKvHost *host, const AuKvOptions *options, const AuKvExec *x,
					  const uint8_t *state, size_t state_len);
/* No operation may be under way. */
void		au_kv_free(AuKv *kv);

/* A newer view; number: of this node. */
void		au_kv_set_view(AuKv *kv, const AuView *view, uint32_t number);
/* A view of that cluster without this node.  If it was in one of them before, it
 * was taken out: clients' requests are refused, and nobody is served, until a
 * view has it again. */
void		au_kv_leave(AuKv *kv, uint64_t cluster_id);
/* A connection to that node was made, was lost. */
void		au_kv_peer(AuKv *kv, uint32_t number, bool up);
/* A question of a client or of another node; role as in HELLO. */
void		au_kv_question(AuKv *kv, void *client, uint8_t role, const AuFrame *f);
/* ... which is gone: no answers any more. */
void		au_kv_client_gone(AuKv *kv, void *client);
/* An answer of another node. */
void		au_kv_told(AuKv *kv, uint32_t number, const AuFrame *f);
void		au_kv_done(AuKv *kv, AuKvOp *op);

/* What there is to do by time; returns microseconds until it wants to run
 * again at the latest. */
uint64_t	au_kv_run(AuKv *kv);

void		au_kv_stats(const AuKv *kv, AuKvStats *out);

#endif							/* AU_KV_H */
