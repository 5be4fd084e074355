/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_node.h: the storage node as a deterministic state machine.
 *
 * No clock, network, disk, thread or allocator in here: all of it comes
 * through AuNodeHost.  The daemon is one host (libuv, files, RocksDB), a test
 * or a simulator another.  Same calls in the same order, same results.
 *
 *   bytes of a connection ──▶ au_node_input ─┐
 *   a sync has ended ───────▶ au_node_synced │──▶ state ──▶ answers, syncs,
 *   versions are written ───▶ au_node_written│              writes, applying,
 *   pages are read ────────▶ au_node_read_done              reads
 *   time, after each batch ─▶ au_node_run ───┘
 *
 * Events only change state; long work (applying log, waking readers) is done
 * in bounded slices by au_node_run.
 *
 * Invariants:
 *  1. A term is persisted before it is granted; only the connection holding
 *     the newest term appends.
 *  2. APPEND_OK names only log that a sync has covered.
 *  3. Only log below min(commit, durable) is applied; alone, commit = durable.
 *  4. A page answered for not_before reflects all log below it, and is read
 *     at one LSN, which the answer names.
 *  5. Queues, buffers and waits are bounded (AU_NODE_* below): beyond, the
 *     connection is not read from, or gets an error.
 */
#ifndef AU_NODE_H
#define AU_NODE_H

#include "cluster/au_view.h"
#include "cluster/au_merkle.h"
#include "common/au_wire.h"
#include "core/au_hist.h"
#include "core/au_slices.h"
#include "core/au_volume.h"
#include "core/au_waldecode.h"

#define AU_NODE_VOLUMES_MAX 16
#define AU_NODE_CONN_OUT_MAX (8u << 20) /* unsent answer bytes of a connection */
#define AU_NODE_OUT_MAX ((uint64_t) 256 << 20)	/* ... of all together */
/*
 * A client that takes nothing for so long goes if memory is short, for all
 * others wait for it.  Not long: a session that stands still in the middle of
 * a cursor leaves unread what it read ahead, and does not mind.
 */
#define AU_NODE_OUT_STUCK_US ((uint64_t) 500 * 1000)
#define AU_NODE_CONN_WAITS_MAX 64	/* waiting reads of a connection */
#define AU_NODE_CONN_WAIT_BLOCKS_MAX 1024	/* ... and the blocks they ask for */
#define AU_NODE_WAITS_MAX 16384 /* waiting reads of all together */
#define AU_NODE_READING_BLOCKS_MAX 4096 /* blocks of reads under way, all together */
#define AU_NODE_WAIT_US_MAX ((uint64_t) 60 * 1000000)
#define AU_NODE_ACKS_MAX 4096	/* appends not acknowledged yet, of a volume */
#define AU_NODE_UNSYNCED_MAX ((uint64_t) 64 << 20)
#define AU_NODE_APPLY_LAG_MAX ((uint64_t) 256 << 20)
#define AU_NODE_READER_FRAME_MAX (72u << 10)	/* longest frame of one who is no writer */
#define AU_NODE_PEER_FRAME_MAX (4u << 20)	/* ... of a node: records of the key-value interface */
#define AU_NODE_RELS_MAX 200000 /* relations in one RELS answer; more are left out */
#define AU_NODE_PERSIST_BYTES ((uint64_t) 128 << 20)	/* of log between persisted positions */
#define AU_NODE_PERSIST_US ((uint64_t) 60 * 1000000)
#define AU_NODE_HOLDS_MAX 64	/* connections of a volume that hold an LSN */
/* Log kept for other nodes of the group, behind what a quorum holds, if the
 * options do not say. */
#define AU_NODE_KEEP_BYTES ((uint64_t) 1 << 30)
/* A node that gets nothing from the writer for so long, and knows that there
 * is more, asks others. */
#define AU_NODE_STARVED_US ((uint64_t) 100 * 1000)
#define AU_NODE_COMMANDS_MAX 32	/* for the cluster's view, under way */
/* Trees and lists of page hashes at hand (a tree: 60 kB), for others and our own
 * comparing; those that nobody asked for again go after a while.  Of each volume
 * its own and those of two peers: with fewer all may wait for a place that
 * another one waits in. */
#define AU_NODE_DIGESTS_MAX (3 * AU_NODE_VOLUMES_MAX)
#define AU_NODE_DIGEST_IDLE_US ((uint64_t) 30 * 1000000)
/* Between two comparisons of everything. */
#define AU_NODE_SYNC_REST_US ((uint64_t) 10 * 60 * 1000000)
#define AU_NODE_LOG_WAITS_MAX 256	/* nodes that wait for log to come */
#define AU_NODE_EXPORTS_MAX 2	/* chunks of versions being made for others */
#define AU_NODE_EXPORT_WAITS_MAX 64 /* ... that wait for their turn, or for log */
#define AU_NODE_EXPORT_WAIT_US ((uint64_t) 10 * 1000000)
#define AU_NODE_EXPORT_BYTES (512u << 10)	/* asked for at a time */
#define AU_NODE_CHUNK_MAX ((size_t) 2 << 20)
/* Slices that this node does not own any more stay for those who have not
 * heard of it. */
#define AU_NODE_DROP_GRACE_US ((uint64_t) 60 * 1000000)
#define AU_NODE_RETRY_US ((uint64_t) 2 * 1000000)	/* after trouble with the disk */

typedef enum AuLogLevel
{
	AU_LOG_DEBUG,
	AU_LOG_INFO,
	AU_LOG_WARNING,
	AU_LOG_ERROR
} AuLogLevel;

/*
 * Pages of one relation on their way from a store into an answer.
 *
 * The host adds the pages to `answer` (au_pages_slot, au_pages_add; with a
 * share it puts them there and only their statuses into `answer`), in the
 * order of blocks, ends the frame, and sets the fields below.  It may do so
 * on any thread: between store_read and au_node_read_done the node does not
 * touch the batch, and it stays where it is.
 */
typedef struct AuPageBatch
{
	AuRelId		rel;
	AuLsn		lsn;			/* as of this; log below it is applied */
	bool		newest;			/* lsn is the newest there is */
	uint16_t	nblocks;
	const uint32_t *blocks;
	void	   *share;			/* the host's, for the pages; NULL: they go into the answer */
	uint32_t	place;			/* of the first page in the share, from 0 */
	AuWriter	answer;			/* PAGES, begun, with room for all pages; or PAGES_PLACED */

	AuStatus	status;			/* not AU_OK: err says why, answer is of no use */
	uint16_t	done;			/* pages added */
	uint64_t	run_us;			/* spent reading, without waiting for its turn */
	char		err[200];
	void	   *read;			/* the host's */
} AuPageBatch;

/* Versions on their way from a store into an answer; as AuPageBatch. */
typedef struct AuExportJob
{
	bool		sizes;			/* of all relations; else pages of slices */
	AuSliceSet	slices;
	AuLsn		upto;
	AuLsn		horizon;
	AuPlace		place;
	uint32_t	budget;
	AuWriter	answer;			/* EXPORT_DATA, begun; room for AU_NODE_CHUNK_MAX */

	AuStatus	status;
	char		err[200];
	void	   *work;			/* the host's */
} AuExportJob;

typedef struct AuNode AuNode;
typedef struct AuConn AuConn;


/*
 * What a node needs.  `conn` and `vol` are the host's own handles.  err is
 * always terminated.  No function may call back into the node.
 */
typedef struct AuNodeHost
{
	void	   *ctx;

	uint64_t	(*now_us) (void *ctx);	/* monotonic */
	void	   *(*alloc) (void *ctx, size_t size);	/* NULL: out of memory */
	void		(*release) (void *ctx, void *p);
	void		(*log) (void *ctx, AuLogLevel level, const char *message);
	/* The node must not go on: the host ends it.  May return; the node then
	 * does nothing any more. */
	void		(*fatal) (void *ctx, const char *message);
	/* State as JSON, valid until the next call. */
	const char *(*status_json) (void *ctx, size_t *len);

	/* Memory for an answer of at most cap bytes (NULL: out of memory); then
	 * send its first len bytes, or drop it. */
	uint8_t    *(*send_alloc) (void *ctx, size_t cap);
	void		(*send_give) (void *ctx, void *conn, uint8_t *memory, size_t len);
	void		(*send_drop) (void *ctx, uint8_t *memory);
	/* off: give no more input until on. */
	void		(*set_reading) (void *ctx, void *conn, bool on);
	/* Close after what was sent; au_node_conn_closed must follow. */
	void		(*close) (void *ctx, void *conn);
	/* Begin to connect to another node.  What is sent meanwhile waits; if it
	 * fails, au_node_conn_closed follows, but not before this returned.
	 * node_conn: for au_node_input.  NULL: not now. */
	void	   *(*peer_open) (void *ctx, const char *address, AuConn *node_conn);

	/* Map memory that the connection's peer shares, pages * AU_PAGE_SIZE bytes;
	 * NULL: it cannot be.  share_open itself may be NULL. */
	void	   *(*share_open) (void *ctx, void *conn, uint32_t fd, uint32_t pages);
	void		(*share_close) (void *ctx, void *share);

	/* Volumes.  create makes directory, VOLUME, log and store, durably. */
	AuStatus	(*volume_create) (void *ctx, const AuVolumeMeta *meta, void **vol,
								  char *err, size_t errlen);
	AuStatus	(*volume_save) (void *ctx, void *vol, const AuVolumeMeta *meta,
								char *err, size_t errlen);

	/* Landing log, as au_landing.h.  sync_start: true: it was done at once,
	 * *status and err tell how; else au_node_synced follows.  trim and
	 * truncate are not called while a sync runs. */
	AuStatus	(*log_append) (void *ctx, void *vol, uint64_t term, uint32_t timeline,
							   AuLsn lsn, const uint8_t *bytes, size_t len,
							   char *err, size_t errlen);
	bool		(*log_sync_start) (void *ctx, void *vol, AuStatus *status,
								   char *err, size_t errlen);
	AuStatus	(*log_read) (void *ctx, void *vol, AuLsn lsn, uint8_t *buf, size_t cap,
							 size_t *got, char *err, size_t errlen);
	AuStatus	(*log_trim) (void *ctx, void *vol, AuLsn lsn, char *err, size_t errlen);
	AuStatus	(*log_truncate) (void *ctx, void *vol, AuLsn lsn, char *err, size_t errlen);
	AuLsn		(*log_start) (void *ctx, void *vol);
	AuLsn		(*log_end) (void *ctx, void *vol);
	AuLsn		(*log_durable) (void *ctx, void *vol);

	/* Page store, as au_pagestore.h.  store_write_start: au_node_written
	 * follows (the host has called au_pagestore_written by then).
	 * store_reopen: close it, open it again; tried again if it fails.
	 * AU_FULL: there is no room to try, and the store is as it was; another
	 * failure leaves it closed, and nothing else is asked of it then but
	 * store_persisted and store_horizon.  No read is under way then. */
	AuStatus	(*store_apply) (void *ctx, void *vol, const AuWalRecord *rec);
	bool		(*store_full) (void *ctx, void *vol);
	bool		(*store_freeze) (void *ctx, void *vol, AuLsn applied, AuLsn restart);
	void		(*store_write_start) (void *ctx, void *vol, bool persist);
	AuStatus	(*store_reopen) (void *ctx, void *vol, char *err, size_t errlen);
	void		(*store_positions) (void *ctx, void *vol, AuLsn *applied, AuLsn *restart);
	void		(*store_persisted) (void *ctx, void *vol, AuLsn *applied, AuLsn *restart);
	void		(*store_set_applied) (void *ctx, void *vol, AuLsn applied);
	AuLsn		(*store_horizon) (void *ctx, void *vol);
	/* Also while the store is closed: it counts from its opening on. */
	void		(*store_set_hold) (void *ctx, void *vol, AuLsn lsn);
	AuLsn		(*store_last_change) (void *ctx, void *vol);
	bool		(*store_rewind) (void *ctx, void *vol, AuLsn lsn);
	/* true: done already; else au_node_read_done follows.  The store may be
	 * applied to, frozen and written meanwhile; store_freeze may say false
	 * until the read is done. */
	bool		(*store_read) (void *ctx, void *vol, AuPageBatch *batch);
	AuStatus	(*store_size) (void *ctx, void *vol, const AuRelId *rel, AuLsn lsn, uint32_t *nblocks);
	void		(*store_list) (void *ctx, void *vol, uint32_t db,
							   void (*fn) (void *fnctx, const AuRelId *rel, uint32_t nblocks),
							   void *fnctx);
	bool		(*store_gc_step) (void *ctx, void *vol);
	const char *(*store_error) (void *ctx, void *vol);

	/* A command for the cluster's view, that was passed on `hops` times.
	 * au_node_command_done with the ticket must follow, not before this
	 * returned.  NULL: the node is in no cluster. */
	void		(*command) (void *ctx, uint64_t ticket, const AuViewCommand *c, uint8_t hops);
	/* Digests, as au_pagestore.h; digest_begin NULL: this node does not compare
	 * replicas.  digest_next: false: that was all; else the next extent is
	 * read and au_node_digested follows (the host has called take by then).
	 * One step of a node at a time.  The store is not closed before the end. */
	void	   *(*digest_begin) (void *ctx, void *vol, uint32_t slice, uint32_t leaf,
								 const AuPageId *from, AuLsn lsn);
	bool		(*digest_next) (void *ctx, void *vol, void *digest);
	const AuMerkle *(*digest_tree) (void *ctx, void *vol, void *digest);
	void		(*digest_end) (void *ctx, void *vol, void *digest);

	/*
	 * Slices, as store/au_export.h; used only with a view, store_slices NULL:
	 * the host moves none.  store_export: au_node_exported with the job
	 * follows, not before this returned; the store may be used meanwhile.
	 * store_import_start: the chunk is copied and written, au_node_imported
	 * follows; no write is started meanwhile.
	 */
	void		(*store_slices) (void *ctx, void *vol, AuSlicesState *out);
	bool		(*store_slices_keep) (void *ctx, void *vol, const AuSliceSet *slices);
	void		(*store_slices_drop) (void *ctx, void *vol, const AuSliceSet *slices);
	AuLsn		(*store_written) (void *ctx, void *vol);
	void		(*store_position) (void *ctx, void *vol, AuStorePosition *out);
	void		(*store_export) (void *ctx, void *vol, AuExportJob *job);
	void		(*store_import_start) (void *ctx, void *vol, const uint8_t *bytes, size_t len);
	void		(*store_import_finish) (void *ctx, void *vol);
	/*
	 * A volume that begins with another node's sizes.  found: begin it beside
	 * the volumes there are; an unfinished one of this name goes.  take: a
	 * chunk of sizes.  ended: it is a volume now, as after volume_create; or,
	 * with AU_OK not returned, gone.  abandon: it is not wanted any more.
	 */
	AuStatus	(*found_begin) (void *ctx, const AuVolumeMeta *meta, const AuStorePosition *position,
								void **vol, char *err, size_t errlen);
	AuStatus	(*found_take) (void *ctx, void *vol, const uint8_t *bytes, size_t len,
							   AuPlace *place, bool *done, char *err, size_t errlen);
	AuStatus	(*found_end) (void *ctx, void *vol, char *err, size_t errlen);
	void		(*found_abandon) (void *ctx, void *vol);
	/* The node has all of these slices, in files, of all volumes, and knows the
	 * view of this epoch; told again until the view says so. */
	void		(*slices_ready) (void *ctx, const AuSliceSet *slices, uint64_t epoch);
	/*
	 * A new page store beside a damaged one, as au_rebuild.h; mend_begin NULL:
	 * damage is only reported.  begin: with all slices, or none; an earlier one
	 * that was not ended goes.
	 * want: what EXPORT is to ask for next; false: all is in.  take: copies
	 * the chunk, au_node_mended follows; nothing else of these is called until
	 * then.  end: the next store_reopen puts it in the place of the old one, and
	 * with log_start an empty log that begins there in the place of the log; AU_FULL
	 * of it then: neither has happened.
	 */
	AuStatus	(*mend_begin) (void *ctx, void *vol, const AuStorePosition *position,
							   bool all_slices, char *err, size_t errlen);
	bool		(*mend_want) (void *ctx, void *vol, uint8_t *what, AuPlace *place,
							  AuSliceSet *slices);
	void		(*mend_take) (void *ctx, void *vol, const uint8_t *chunk, size_t len);
	AuStatus	(*mend_end) (void *ctx, void *vol, AuLsn log_start, char *err, size_t errlen);
	void		(*mend_drop) (void *ctx, void *vol);
	/* The store that was replaced is kept aside until this: the new one has all
	 * that it is to have.  Also called when there is none. */
	void		(*mend_whole) (void *ctx, void *vol);
	/* In a cluster: ask it for leave to throw the volume's store away (on), or
	 * say that it is whole as of the view of this epoch.  au_node_mending_told
	 * follows, not before this returned; false: not now. */
	bool		(*mending) (void *ctx, void *vol, bool on, uint64_t epoch);
} AuNodeHost;

typedef struct AuNodeOptions
{
	uint64_t	node_id;
	uint64_t	single_volume;	/* only this system identifier; 0: any */
	bool		alone;			/* volumes without a group: commit = durable */
	uint64_t	out_bytes_max;	/* unsent answers of all connections, 0 or at most
								 * AU_NODE_OUT_MAX; one has a quarter, at most
								 * AU_NODE_CONN_OUT_MAX */
	uint64_t	hold_limit_bytes;	/* log a hold may keep; 0: any */
	uint64_t	mend_bytes_per_s;	/* taken from other nodes for a new page store */
	uint64_t	sync_bytes_per_s;	/* pages read for comparing replicas; 0: never */
	uint64_t	sync_rest_us;	/* between two comparisons; 0: AU_NODE_SYNC_REST_US */
	uint64_t	move_bytes_per_s;	/* slices that come in; 0: as fast as may be */
	uint64_t	drop_grace_us;	/* 0: AU_NODE_DROP_GRACE_US */
	uint64_t	keep_bytes;		/* log kept for other nodes; 0: AU_NODE_KEEP_BYTES */
	uint64_t	persist_bytes;	/* 0: AU_NODE_PERSIST_BYTES */
} AuNodeOptions;

/* The host table is copied.  NULL: out of memory. */
AuNode	   *au_node_new(const AuNodeHost *host, const AuNodeOptions *options);
/* No read may be under way. */
void		au_node_free(AuNode *node);

/* A volume found at start; the host opened its log and store. */
AuStatus	au_node_add_volume(AuNode *node, const AuVolumeMeta *meta, void *vol,
							   char *err, size_t errlen);

/* One whose page store cannot be opened, because of damage; it is made anew from
 * other nodes that keep the volume.  AU_REFUSED: this host makes none anew. */
AuStatus	au_node_add_damaged(AuNode *node, const AuVolumeMeta *meta, void *vol, const char *why);

/* Connections.  opened: NULL if out of memory (close it). */
AuConn	   *au_node_conn_opened(AuNode *node, void *conn);
/*
 * Bytes that arrived and were not consumed before.  Returns how many are
 * consumed now; *need: total bytes the next frame needs, as far as known (the
 * host's buffer must hold that much).  Consumes nothing while reading is off.
 */
size_t		au_node_input(AuNode *node, AuConn *conn, const uint8_t *buf, size_t len, size_t *need);
/* `bytes` of what was sent left the host's buffers; may be called from within
 * send_give. */
void		au_node_conn_sent(AuNode *node, AuConn *conn, size_t bytes);
void		au_node_conn_closed(AuNode *node, AuConn *conn);

void		au_node_synced(AuNode *node, void *vol, AuStatus status, const char *err);
void		au_node_written(AuNode *node, void *vol, AuStatus status, const char *err);
void		au_node_read_done(AuNode *node, AuPageBatch *batch);
void		au_node_mended(AuNode *node, void *vol, AuStatus status, const char *err);
/* What the cluster said; why: unless AU_OK. */
void		au_node_mending_told(AuNode *node, void *vol, bool on, AuStatus status,
								 const char *why);
/* The host found damage in a page store. */
void		au_node_damaged(AuNode *node, void *vol, const char *why);
/* n pages of an extent were read; not AU_OK: they were not, err says why. */
void		au_node_digested(AuNode *node, void *vol, AuStatus status, const AuDigestPage *pages,
							 uint32_t n, const char *err);
void		au_node_exported(AuNode *node, AuExportJob *job);
/* AU_INVALID, AU_CORRUPT: the chunk was of no use. */
void		au_node_imported(AuNode *node, void *vol, AuStatus status, const char *err);

/* This node is, or becomes, one of a cluster's: until it has the view it says
 * "not yet" to GET_VIEW and CLUSTER, not that it is in none; and never makes a
 * volume for a log group that is not of a view. */
void		au_node_in_cluster(AuNode *node);

/* The cluster's view from now on; it is copied.  AU_NOMEM: only possible the
 * first time.  Then GET_VIEW is answered with it, and HELLO_OK has its epoch. */
AuStatus	au_node_set_view(AuNode *node, const AuView *view);
/* Good until the next event; NULL: none was set. */
const AuView *au_node_view(const AuNode *node);

typedef struct AuCommandResult
{
	AuStatus	status;
	uint64_t	epoch;			/* of the view with it */
	uint32_t	number;			/* of the node it was about, 0: none */
	const char *message;		/* unless AU_OK */
	const char *hint;			/* NULL: none */
} AuCommandResult;

void		au_node_command_done(AuNode *node, uint64_t ticket, const AuCommandResult *result);

/* Do a slice of what there is to do.  Returns microseconds after which it
 * wants to run again at the latest; 0: at once. */
uint64_t	au_node_run(AuNode *node);

/* Clean stop: closes the connections, writes everything, persists. */
void		au_node_stop(AuNode *node);
bool		au_node_stopped(const AuNode *node);

/* ---- figures ---------------------------------------------------------- */

/* Stages whose latencies the node measures: the name, what is one of them. */
#define AU_STAGES(X) \
	X(APPEND, "append", "an append, from its arrival until it is durable") \
	X(PERSIST, "persist", "a sync of the landing log") \
	X(DECODE, "decode", "a piece of log cut into records") \
	X(APPLY, "apply", "the records of a piece of log put into the page store") \
	X(TURN, "apply_turn", "pieces of log decoded and applied before requests are looked at") \
	X(GC, "gc", "a step of removing what was dropped, truncated or given away") \
	X(WRITE, "write", "a generation of changes written to RocksDB") \
	X(READ, "read", "a request, from when it can be answered until it is") \
	X(READ_WAIT, "read_wait", "a read waiting for log to be applied") \
	X(READ_EXECUTE, "read_execute", "pages read and built, without waiting for a thread") \
	X(SEND, "send", "answers of a connection, until its peer took all of them")

typedef enum AuStage
{
#define AU_STAGE_ID(id, name, help) AU_STAGE_##id,
	AU_STAGES(AU_STAGE_ID)
#undef AU_STAGE_ID
	AU_STAGE_COUNT
} AuStage;

typedef struct AuVolumeStats
{
	AuVolumeMeta meta;
	const char *state;			/* "ok", "disk full", "store stalled", "damaged", "left behind",
								 * "log lost", "failed" */
	const char *problem;		/* text if not ok */
	const char *writer;			/* name of the connected writer, "" if none */
	AuLsn		received;
	AuLsn		durable;
	AuLsn		commit;
	AuLsn		applied;
	AuLsn		persisted;
	AuLsn		horizon;
	uint64_t	appends;
	uint64_t	append_bytes;
	uint64_t	syncs;
	uint64_t	sync_us;		/* sum */
	uint64_t	sync_us_max;
	uint64_t	records;		/* handed on by the decoder */
	uint64_t	reads;			/* requests: pages, sizes, lists */
	uint64_t	pages;
	uint64_t	read_us;		/* sum, without waiting */
	uint64_t	waits;			/* reads that had to wait */
	uint64_t	wait_us;		/* sum */
	uint64_t	expired;		/* reads that waited in vain */
	uint64_t	waiting;		/* now */
	uint64_t	reading;		/* reads of pages under way now */
	uint64_t	store_writes;
	uint64_t	store_reopens;
	AuLsn		hold;			/* lowest LSN that a connection holds, 0: none */
	uint64_t	holds;			/* connections that do */
	uint64_t	holds_broken;	/* by the limit */
	uint64_t	peer_bytes;		/* log that came from other nodes */
	uint64_t	sync_slices;	/* compared with another node's */
	uint64_t	sync_passes;	/* all slices */
	uint64_t	sync_pages;		/* hashed, for others, too */
	uint64_t	sync_differences;	/* pages that were not the same */
	uint64_t	sync_unresolved;	/* ... and no majority says which is right */
	uint64_t	sync_skipped;	/* slices that could not be compared in a pass */
	AuLsn		sync_lsn;		/* of the last comparison */
	uint64_t	slices;			/* kept */
	uint64_t	slices_incoming;
	uint64_t	slices_missing; /* wanted, not incoming yet */
	uint64_t	slices_dropping;
	uint64_t	moved_bytes;	/* versions that came from other nodes */
	uint64_t	exported_bytes; /* ... and went to them */
	uint64_t	moved_answers;	/* reads of slices that are not here */
	uint64_t	mend_damages;	/* times damage was found that other nodes can mend */
	uint64_t	mends;			/* page stores made anew */
	uint64_t	mend_bytes;		/* taken for the one under way */
	const char *mend_why;		/* what is damaged, "": nothing */
	const char *mend_waits;		/* why it is not repaired now, "": it is */
} AuVolumeStats;

typedef struct AuNodeStats
{
	uint64_t	node_id;
	uint32_t	volumes;
	uint32_t	connections;
	uint64_t	connections_total;
	uint64_t	frames;
	uint64_t	errors;			/* ERROR answers */
	uint64_t	out_bytes;		/* unsent now */
	uint64_t	shared_bytes;	/* that readers share for their pages */
} AuNodeStats;

void		au_node_stats(const AuNode *node, AuNodeStats *out);
/* *vol: the host's handle.  false: no such index. */
bool		au_node_volume_stats(const AuNode *node, uint32_t index, AuVolumeStats *out, void **vol);
/* AU_STAGE_COUNT histograms, good until the next event; NULL: no such index. */
const AuHist *au_node_volume_latency(const AuNode *node, uint32_t index);

#endif							/* AU_NODE_H */
