/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_kv_int.h: what the files of the key-value interface share.  Nothing
 * outside cluster/au_kv*.c includes it.
 */
#ifndef AU_KV_INT_H
#define AU_KV_INT_H

#include "cluster/au_kv.h"
#include "core/au_plant.h"

#define KV_SWEEP_US 20000		/* tasks' times are looked at so often */
#define KV_RETRY_US 200000		/* a replica that gave no answer that counts is asked again */
#define KV_LOST_US 1000000		/* an answer that does not come by then is lost */
#define KV_LINGER_US 1000000	/* after the client has its answer, for the other replicas */
#define KV_PUSHES_MAX 64			/* records on their way in the background */
#define KV_AGAIN_US 1000000		/* between writes of STATE, or WIPE, that fail */
#define KV_BACKGROUND_US 5000000	/* a background task gives up */

typedef enum KvTaskType
{
	KV_GET,
	KV_PUT,						/* coordinated here */
	KV_FORWARD,					/* a PUT that an owner coordinates */
	KV_LIST,
	KV_SERVE,					/* a node's question */
	KV_PULL,					/* fetch slices from a node */
	KV_PUSH,					/* a record to those that lack it */
	KV_COLLECT,					/* a tombstone is to go */
	KV_MEND						/* our record is damaged */
} KvTaskType;

typedef enum KvReplyState
{
	KV_TODO,
	KV_SENT,
	KV_DONE,
	KV_FAILED
} KvReplyState;

/* What one node is asked for within a task. */
typedef struct KvReply
{
	uint32_t	number;
	KvReplyState state;
	bool		counts;
	bool		stands_in;		/* for an owner that cannot be reached */
	bool		newcomer;		/* it did not take part when the request began */
	bool		replaced;		/* another one stands in for it */
	bool		corrupt;		/* its record is damaged */
	uint64_t	serial;			/* the node's, known before the record was read */
	uint64_t	sent_at;
	uint8_t    *record;			/* GET: its record; LIST: its entries */
	uint32_t	len;
} KvReply;

typedef struct KvTask
{
	uint64_t	id;
	KvTaskType	type;
	void	   *client;			/* NULL: nobody waits */
	uint64_t	client_id;
	uint16_t	asked;			/* type of the question */
	uint8_t		flags;
	uint8_t		n;				/* owners that take part */
	uint8_t		need;
	bool		answered;
	bool		again;			/* GET: for the second time, see torn() */
	bool		fresh;			/* PUT: the record was written just now */
	bool		counted_before; /* SERVE: what it says counted when it was read */
	uint8_t		phase;
	uint16_t	klen;
	uint16_t	slice;
	uint8_t		key[AU_KV_KEY_MAX];
	uint32_t	ops;			/* under way */
	uint64_t	began;
	uint64_t	deadline;
	uint64_t	next_try;
	uint64_t	epoch;
	uint64_t	serial;			/* ours, at its beginning */
	uint64_t	counter;		/* PUT, PUSH: of the write that is owed */
	uint8_t    *record;			/* what is sent; PUT before that: the value */
	uint32_t	len;
	AuKvVector	past;			/* PUT, FORWARD */
	AuSliceSet	slices;			/* PULL, LIST */
	uint16_t	limit;			/* LIST */
	AuKvText	after;			/* LIST: in record */
	bool		more;			/* PULL, LIST */
	bool		fenced;			/* PULL: this page once more */
	uint16_t	next_slice;		/* PULL: after this page */
	uint16_t	next_klen;
	uint8_t		next_key[AU_KV_KEY_MAX];
	uint32_t	nreplies;
	KvReply    *replies;
} KvTask;

typedef struct KvPeer
{
	uint32_t	number;
	bool		up;
	bool		owed;			/* it may be owed something */
	uint64_t	serial;			/* newest known; 0: none */
	uint64_t	pull;			/* id of the task that fetches from it; 0: none */
	uint64_t	pull_at;		/* not before */
	uint16_t	owed_klen;		/* where the scan goes on */
	uint8_t		owed_key[AU_KV_KEY_MAX];
} KvPeer;

typedef struct KvSlice
{
	bool		owned;
	bool		complete;
	uint8_t		nbefore;		/* KV_UNKNOWN: anybody */
	uint32_t	before[AU_RF_MAX];	/* who owned it when we last did not */
	uint64_t	fetched;		/* bit i: from view->nodes[i], see au_kv_view.c */
} KvSlice;

#define KV_UNKNOWN 255

typedef enum KvScan
{
	KV_SCAN_OWED,
	KV_SCAN_FOREIGN,
	KV_SCAN_TOMBS,
	KV_SCANS
} KvScan;

struct AuKv
{
	AuKvHost	host;
	AuKvOptions opt;
	AuView	   *view;			/* NULL: alone, or none yet */
	uint32_t	number;			/* 0: alone */
	bool		waiting;		/* for the first view */
	uint64_t	kept_cluster;	/* what the store's records belong to */
	uint32_t	kept_number;
	uint64_t	kept_epoch;		/* a view at least as new was kept */
	bool		removed;		/* waiting: the cluster took this node out */
	bool		wiping;
	bool		wipe_waits;		/* no WIPE is under way; it is due at again_at */
	bool		saving;			/* a STATE is under way */
	bool		off_waits;		/* notes for nodes that were taken out may be left */
	uint64_t	again_at;		/* what could not be written is tried again */
	uint64_t	serial;			/* of our store, as far as we were told */
	KvSlice		slices[AU_SLICES];
	KvPeer		peers[AU_VIEW_NODES_MAX];	/* as view->nodes, but ourselves */
	uint32_t	npeers;

	KvTask	   *tasks[AU_KV_TASKS_MAX];
	uint32_t	ntasks;
	uint32_t	npushes;
	uint64_t	seq;
	uint64_t	bytes;			/* of tasks' records, and of what operations were given */
	uint64_t	sweep_at;

	uint64_t	tick_at;
	bool		scanning;
	uint32_t	scan_turn;
	uint32_t	scan_peer;
	uint64_t	scan_epoch;
	uint64_t	scan_serial[AU_VIEW_NODES_MAX];	/* as peers, when it began */
	uint16_t	cursor_slice[KV_SCANS];
	uint16_t	cursor_klen[KV_SCANS];
	uint8_t		cursor_key[KV_SCANS][AU_KV_KEY_MAX];
	AuKvStats	stats;
	AuHist		latency[AU_KV_REQUESTS];
};

/* What an operation was for (AuKvOp.purpose). */
enum
{
	KV_FOR_TASK,
	KV_FOR_REREAD,				/* PUT: send what is there now; arg: index of the reply */
	KV_FOR_NOBODY,
	KV_FOR_SCAN,				/* arg: KvScan */
	KV_FOR_WIPE,
	KV_FOR_STATE				/* arg: epoch */
};

/* au_kv.c */
KvTask	   *kv_task(AuKv *kv, uint64_t id);	/* NULL: it is over */
KvTask	   *kv_task_new(AuKv *kv, KvTaskType type, const uint8_t *key, size_t klen, uint32_t nreplies);
/* It is over; freed now, or when its operations are done. */
void		kv_task_end(AuKv *kv, KvTask *t);
/* Copy bytes into a field, counted; false: out of memory. */
bool		kv_keep(AuKv *kv, uint8_t **field, uint32_t *len, const uint8_t *bytes, size_t n);
/* NULL: out of memory. */
AuKvOp	   *kv_op(AuKv *kv, AuKvOpType type, KvTask *t, const uint8_t *key, size_t klen);
/* Give it a copy of the bytes, or (NULL) room for so many; false: out of memory,
 * and the op is freed. */
bool		kv_op_in(AuKv *kv, AuKvOp *op, const uint8_t *bytes, size_t n);
void		kv_submit(AuKv *kv, AuKvOp *op);
void		kv_op_free(AuKv *kv, AuKvOp *op);
void		kv_log(AuKv *kv, AuLogLevel level, const char *fmt,...)
			__attribute__((format(printf, 3, 4)));
uint64_t	kv_now(const AuKv *kv);

KvPeer	   *kv_peer(AuKv *kv, uint32_t number);	/* NULL: not in the view */
/* The node may be owed what nobody is about to send. */
void		kv_look_for_owed(AuKv *kv, uint32_t number);
uint32_t	kv_owners(const AuKv *kv, uint32_t slice, uint32_t owner[AU_RF_MAX]);
bool		kv_owns(const AuKv *kv, uint32_t slice, uint32_t number);
bool		kv_complete(const AuKv *kv, uint32_t slice);	/* we own it and have all of it */
uint8_t		kv_own_flags(const AuKv *kv, uint32_t slice);

/* The request was answered, and well. */
void		kv_answered(AuKv *kv, KvTask *t, AuKvRequest what);
/* Send a question; false: not sent. */
bool		kv_ask(AuKv *kv, uint32_t number, uint16_t type, uint64_t id, AuMsgKvAsk *m);
bool		kv_ask_store(AuKv *kv, KvTask *t, uint32_t number, uint64_t serial,
						 const uint8_t *record, uint32_t len);
void		kv_error(AuKv *kv, void *client, uint64_t id, AuStatus status, const char *hint,
					 const char *fmt,...) __attribute__((format(printf, 6, 7)));

/* au_kv_view.c */
bool		kv_load_state(AuKv *kv, const uint8_t *state, size_t len);
void		kv_save_state(AuKv *kv);
/* Repeat what could not be written. */
void		kv_view_tick(AuKv *kv, uint64_t now);
void		kv_wiped(AuKv *kv, const AuKvOp *op);
void		kv_state_saved(AuKv *kv, const AuKvOp *op);
/* Slices to fetch from that peer; false: none. */
bool		kv_wanted(const AuKv *kv, const KvPeer *p, AuSliceSet *out);
void		kv_fetched(AuKv *kv, uint32_t number, const AuSliceSet *slices);

/* au_kv_request.c: clients' */
void		kv_request(AuKv *kv, void *client, uint8_t role, const AuFrame *f);
/* Refused for want of room or of a view; true: it was answered. */
bool		kv_refuse(AuKv *kv, void *client, uint64_t id);
void		kv_request_step(AuKv *kv, KvTask *t, uint64_t now);	/* by time */
void		kv_request_told(AuKv *kv, KvTask *t, KvReply *r, const AuFrame *f);
void		kv_request_done(AuKv *kv, KvTask *t, AuKvOp *op);
void		kv_request_lost(AuKv *kv, KvTask *t, KvReply *r);	/* the connection broke */

/* au_kv_list.c */
void		kv_list(AuKv *kv, void *client, uint8_t role, const AuFrame *f);
void		kv_list_step(AuKv *kv, KvTask *t, uint64_t now);
void		kv_list_told(AuKv *kv, KvTask *t, KvReply *r, const AuFrame *f);
void		kv_list_done(AuKv *kv, KvTask *t, AuKvOp *op);

/* au_kv_serve.c: nodes' */
void		kv_serve(AuKv *kv, void *client, const AuFrame *f);
void		kv_serve_done(AuKv *kv, KvTask *t, AuKvOp *op);

/* au_kv_back.c */
void		kv_mend(AuKv *kv, const uint8_t *key, uint16_t klen);
void		kv_back_tick(AuKv *kv, uint64_t now);
void		kv_back_told(AuKv *kv, KvTask *t, KvReply *r, const AuFrame *f);
void		kv_back_done(AuKv *kv, KvTask *t, AuKvOp *op);
void		kv_back_scanned(AuKv *kv, AuKvOp *op);
void		kv_back_step(AuKv *kv, KvTask *t, uint64_t now);

#endif							/* AU_KV_INT_H */
