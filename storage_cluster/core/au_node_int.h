/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_node_int.h: what the files of the node share.  Nothing outside
 * core/au_node*.c includes it.
 */
#ifndef AU_NODE_INT_H
#define AU_NODE_INT_H

#include "common/au_wire_digest.h"
#include "common/au_wire_export.h"
#include "core/au_node.h"

/*
 * Between two looks at events log is applied in pieces until AU_NODE_SLICE_US
 * have passed, so a read that could be answered waits for no more than that
 * and one piece.  AU_NODE_SLICE_PIECES bounds it where a clock stands still.
 */
#define AU_NODE_SLICE_BYTES (64u << 10)
#define AU_NODE_SLICE_US 1000
#define AU_NODE_SLICE_PIECES 16

typedef struct AuVolume AuVolume;
typedef struct AuNodeGossip AuNodeGossip;

/* What a connection to another node is for.  answer: any frame it sends, first
 * the one to HELLO; closed: it is gone, c is freed then. */
typedef struct AuOutgoing
{
	void		(*answer) (AuNode *n, AuConn *c, const AuFrame *f);
	void		(*closed) (AuNode *n, AuConn *c);
} AuOutgoing;

/*
 * A read's stages.  WAITING: log below `need` is not applied yet.  READY: it
 * is, but there are too many reads under way.  READING: with the host, pages
 * only.
 */
typedef enum AuWaitStage
{
	AU_WAIT_NEW,				/* in no list but its connection's */
	AU_WAIT_WAITING,
	AU_WAIT_READY,
	AU_WAIT_READING
} AuWaitStage;

typedef struct AuShare AuShare;	/* au_node_share.c */

typedef struct AuWait
{
	AuConn	   *conn;			/* NULL: gone while READING */
	AuVolume   *vol;
	AuWaitStage stage;
	struct AuWait *conn_prev,
			   *conn_next;
	struct AuWait *prev,		/* of the volume's list of its stage, oldest first */
			   *next;
	uint32_t	heap_index;		/* WAITING */
	uint64_t	seq;
	AuLsn		need;
	uint64_t	since_us;		/* in its stage */
	uint64_t	ready_us;		/* could be answered since */
	uint64_t	id;
	uint16_t	type;			/* AU_MSG_GET_PAGES, ... */
	AuRelId		rel;			/* LIST_RELS: only db */
	AuLsn		read_lsn;
	AuShare    *share;			/* where its pages go; NULL: into the answer */
	uint32_t	place;			/* there, from 1 */
	uint16_t	nblocks;
	AuPageBatch batch;
	uint32_t	blocks[];
} AuWait;

typedef struct AuWaitList
{
	AuWait	   *first;
	AuWait	   *last;
	uint32_t	count;
} AuWaitList;

typedef struct AuAck
{
	uint64_t	id;
	AuLsn		end;
	uint64_t	since_us;
} AuAck;

typedef enum AuStoreState
{
	AU_STORE_OK,
	AU_STORE_WRITING,			/* a generation is on its way */
	AU_STORE_STALLED			/* wrote in vain; reopened at retry_at */
} AuStoreState;

/* A digest at hand, see au_node_digest.c. */
typedef enum AuDigestState
{
	AU_DIGEST_WAITS,			/* there is more to read */
	AU_DIGEST_READS,			/* a step is with the host */
	AU_DIGEST_DONE,
	AU_DIGEST_FAILED
} AuDigestState;

typedef struct AuDigestJob
{
	AuVolume   *vol;			/* NULL: free */
	void	   *handle;			/* the host's */
	uint32_t	slice;
	uint32_t	leaf;			/* AU_MERKLE_LEAVES: the tree */
	AuPageId	from;
	AuLsn		lsn;
	AuDigestState state;
	bool		forgotten;		/* ends with its step */
	bool		read;			/* something had to be read */
	uint64_t	used_at;
	AuMsgDigestOk *pages;		/* what a list found; NULL: a tree */
	char		why[200];		/* FAILED */
} AuDigestJob;

/* Comparing with other nodes, see au_node_sync.c. */
typedef enum AuSyncStage
{
	AU_SYNC_RESTS,
	AU_SYNC_TREES,				/* both sides compute theirs */
	AU_SYNC_DESCENDS,			/* to the leaves that differ */
	AU_SYNC_LISTS,				/* pages of an extent, of both sides */
	AU_SYNC_ASKS_THIRD			/* who is right */
} AuSyncStage;

typedef struct AuSyncPeer
{
	AuMember	member;
	AuConn	   *conn;
	bool		ready;			/* HELLO was answered */
	bool		asked;
	bool		answered;
	bool		failed;			/* of no use for this slice */
	uint64_t	deadline;		/* of the answer */
	uint64_t	ask_at;			/* not before */
	AuMsgDigestOk answer;
} AuSyncPeer;

typedef struct AuSync
{
	AuSyncStage stage;
	uint64_t	at;				/* RESTS: until */
	uint32_t	slice;
	uint32_t	turn;			/* which peer is next */
	AuLsn		lsn;
	uint64_t	began;
	uint64_t	deadline;		/* of the slice */
	uint32_t	tried;			/* this slice, in vain */
	uint32_t	patience;		/* doublings of the time for a slice */
	uint32_t	skipped;		/* slices of this pass that were not compared */
	uint32_t	npeers;
	uint32_t	peer;			/* the one it is compared with */
	uint32_t	third;
	AuSyncPeer	peers[AU_GROUP_MAX];
	AuMerkleDiff diff;
	uint32_t	leaf;			/* AU_MERKLE_LEAVES: none yet */
	AuPageId	from;
	AuMsgDigestOk ours;
} AuSync;

/* A page store made anew, see au_node_mend.c. */
typedef enum AuMendStage
{
	AU_MEND_WELL,
	AU_MEND_HURT,				/* there is damage, nothing is done yet */
	AU_MEND_ASKS,				/* for a position */
	AU_MEND_COPIES,				/* the new store takes chunks */
	AU_MEND_CATCHES_UP,			/* log up to its position must be here */
	AU_MEND_SWITCHES			/* it takes the old one's place */
} AuMendStage;

typedef struct AuMend
{
	AuMendStage stage;
	char		why[300];		/* the damage found first */
	uint64_t	since;
	uint64_t	at;				/* nothing before */
	AuMember	member;			/* the one that is asked */
	uint32_t	turn;			/* whose it is next */
	uint32_t	tried;			/* in a row, in vain */
	AuConn	   *conn;
	bool		ready;			/* HELLO was answered */
	bool		held;			/* it holds our horizon */
	bool		asked;
	bool		taking;			/* a chunk is with the host */
	uint64_t	deadline;		/* of the answer */
	AuLsn		upto;			/* position of the new store */
	AuLsn		restart;
	AuLsn		horizon;
	uint64_t	bytes;
	bool		behind;			/* nothing is damaged: others keep no log for it */
	AuLsn		relog;			/* SWITCHES: the log begins here then; 0: it stays */
	char		waits[400];		/* why nothing can be done, "": it is being done */
	/* in a cluster, see au_node_grant.c */
	bool		granted;		/* the old store may go */
	bool		telling;		/* a command is under way */
	uint64_t	tell_at;		/* none before */
	bool		clean;			/* the store that was replaced is gone, too */
} AuMend;

struct AuVolume
{
	AuNode	   *node;
	void	   *handle;			/* the host's */
	AuVolumeMeta meta;
	AuConn	   *writer;			/* holds meta.term; NULL: nobody connected */

	AuLsn		commit;			/* what the quorum holds, as told */
	AuLsn		applied;		/* decoder's position */
	AuLsn		handed_on;		/* end of the last record the store took */
	AuLsn		cut;			/* log from here on is being cut off; 0: no */
	AuWalDecode *decode;
	AuStatus	apply_status;	/* of the store, from within the decoder */
	AuLsn		next_feed;		/* first byte the decoder has not seen */

	bool		syncing;
	uint64_t	sync_since;
	bool		log_full;		/* the last append found no room */
	char		full_why[512];
	AuStoreState store_state;
	bool		store_closed;	/* STALLED, and reads have to wait, too */
	bool		write_persists; /* the write under way ends in files */
	uint64_t	retry_at;
	uint64_t	persist_at;		/* last time positions were persisted */
	uint64_t	whole_at;		/* lost_before is not to be taken back before */
	AuLsn		trimmed;
	bool		trim_held;		/* for owners of slices that are away */
	uint64_t	trim_at;		/* then: look again */
	AuLsn		hold;			/* the lowest of the connections', 0: none */
	uint32_t	nholds;
	bool		failed;			/* log cannot be applied: see problem */
	char		problem[512];

	AuAck	   *acks;			/* ring of AU_NODE_ACKS_MAX */
	uint32_t	ack_head;
	uint32_t	ack_count;
	AuLsn		tell_fed;		/* tell the writer when log up to here is fed; 0: no */
	uint64_t	tell_id;

	AuWait	  **heap;			/* by need, then seq */
	uint32_t	heap_count;
	uint32_t	heap_cap;
	AuWaitList	waiting;
	AuWaitList	ready;
	AuWaitList	reading;
	bool		draining;		/* start no reads: the store is to be closed */

	/* log from other nodes, see au_node_peer.c */
	AuConn	   *peer;			/* NULL: nobody is asked */
	uint32_t	peer_index;		/* of au_p_source */
	uint64_t	peer_id;		/* its node */
	uint64_t	peer_retry_at;
	uint64_t	fed_at;			/* last log from the writer, or from a peer */
	AuLsn		wanted;			/* the writer says that there is log up to here */
	uint64_t	peer_term;		/* in which it was asked */
	AuLsn		gone_at;		/* our log's end, which one of them keeps no log from */
	uint32_t	gone_rounds;	/* all were asked so often since */
	char		gone_why[512];	/* a text for people */
	bool		peer_asked;		/* GET_LOG is under way */
	bool		peer_waits;		/* ... with a wait */
	AuLsn		caught_up;		/* all log that a quorum held once, when it was asked
								 * for more; 0: never */

	/* slices, see au_node_move.c */
	bool		partial;		/* only those in `kept` can be read */
	AuSliceSet	kept;
	AuSliceSet	unwanted;		/* kept, and dropped when the grace is over: none was
								 * wanted since ... */
	uint64_t	unwanted_since;
	bool		importing;		/* a chunk is being written */
	uint8_t    *chunk;			/* it came while a generation was written, and is next;
								 * NULL: none */
	size_t		chunk_len;
	AuConn	   *mover;			/* that slices come from; NULL: nobody */
	bool		mover_asked;
	bool		mover_held;		/* it keeps what is still to come */
	uint32_t	mover_together; /* slices that come at a time; 0: none came yet */
	uint32_t	mover_turn;
	uint64_t	mover_at;		/* not asked before; asked: no answer after is none */

	AuSync		sync;
	AuMend		mend;
	uint32_t	corrupt_writes; /* of the store failed because of damage */

	AuVolumeStats stats;
	AuHist		latency[AU_STAGE_COUNT];
	uint64_t	apply_us;		/* of the records of the piece being decoded */
	uint64_t	write_since;
};

struct AuConn
{
	AuConn	   *prev,
			   *next;
	void	   *handle;			/* the host's */
	bool		hello;
	bool		closing;
	bool		paused;
	uint8_t		role;
	uint64_t	system_identifier;
	char		name[64];
	AuVolume   *vol;			/* NULL: not (yet) on this node */
	size_t		out_bytes;
	uint64_t	send_since;		/* there are unsent bytes since */
	uint64_t	out_since;		/* when it last took something, or got the first bytes */
	AuWait	   *waits;
	uint32_t	nwaits;
	uint32_t	wait_blocks;
	AuShare    *share;			/* offered for its pages; NULL: none */
	AuLsn		hold;			/* 0: none */
	bool		hold_broken;	/* it was, by the limit */
	bool		append_failed;	/* later appends of the pipeline fail alike */
	const AuOutgoing *outgoing; /* to another node; NULL: it came to us */
	void	   *outgoing_ctx;	/* the user's */
	bool		waits_log;		/* GET_LOG, see au_node_peer.c */
	uint64_t	log_id;
	uint64_t	log_until;
	AuMsgGetLog log;
	struct AuExporting *exporting;	/* EXPORT, see au_node_export.c; NULL: none */
	uint16_t	asking;			/* TERM, VOTE or ELECT waits for a sync or a cut; else 0 */
	uint64_t	ask_id;
	union
	{
		AuMsgTerm	term;
		AuMsgVote	vote;
		AuMsgElect	elect;
	}			ask;
};

/* A command for the view whose answer somebody waits for. */
typedef struct AuPendingCommand
{
	uint64_t	ticket;			/* 0: free */
	AuConn	   *conn;			/* NULL: gone */
	uint64_t	id;
} AuPendingCommand;

struct AuNode
{
	AuNodeHost	host;
	AuNodeOptions opt;
	AuConn	   *conns;
	AuVolume   *vols[AU_NODE_VOLUMES_MAX];
	uint32_t	nvols;
	uint64_t	out_bytes;
	uint64_t	shared_bytes;	/* of all shares; count against out_max, too */
	uint64_t	out_max;
	uint64_t	conn_out_max;
	uint32_t	npaused;
	uint32_t	nasking;		/* connections that are asking */
	uint32_t	nwaits;			/* in any stage */
	uint32_t	reading_blocks; /* of those that are READING */
	uint64_t	wait_seq;
	bool		dead;			/* fatal was called */
	bool		stopping;
	bool		stopped;
	uint8_t    *slice;			/* AU_NODE_SLICE_BYTES: log on its way to the decoder */
	AuMsgGetPages msg_get;
	bool		in_cluster;		/* au_node_in_cluster */
	AuView	   *view;			/* of the cluster; NULL: none, or not yet */
	uint8_t    *view_bytes;		/* the same, as it is sent */
	uint32_t	view_length;
	AuPendingCommand commands[AU_NODE_COMMANDS_MAX];
	uint64_t	last_ticket;
	AuNodeGossip *gossip;	/* NULL: it does not */
	struct AuNodeKv *kv;	/* key-value interface; NULL: none */
	AuDigestJob digests[AU_NODE_DIGESTS_MAX];
	bool		digesting;		/* a step is with the host */
	AuMsgDigestOk msg_digest;	/* an answer being made */
	uint32_t	digest_turn;
	uint64_t	digest_at;		/* the next step, not before */
	uint32_t	nlog_waits;
	struct AuExporting *exports;	/* all of them */
	uint32_t	nexports;
	uint32_t	nexporting;		/* ... that the host works on */
	struct AuJoining *joining;	/* see au_node_join.c */
	uint64_t	ready_at;		/* slices_ready is not called before */
	AuNodeStats stats;
};

/* au_node.c */
void		au_n_log(AuNode *n, AuLogLevel level, const char *fmt,...)
			__attribute__((format(printf, 3, 4)));
void		au_n_fatal(AuNode *n, const char *fmt,...)
			__attribute__((format(printf, 2, 3)));
void		au_n_error(AuNode *n, AuConn *c, uint64_t id, AuStatus status,
					   const char *hint, const char *fmt,...)
			__attribute__((format(printf, 6, 7)));
/* Memory for an answer; NULL (connection is then closed) if there is none. */
bool		au_n_reserve(AuNode *n, AuConn *c, AuWriter *w, size_t cap);
void		au_n_send(AuNode *n, AuConn *c, AuWriter *w, bool encoded);
void		au_n_close(AuNode *n, AuConn *c);
/* Begin to connect to another node: HELLO (id 1) is sent.  About no volume:
 * system_identifier 0; about one that is not here: v = NULL.  NULL: not now. */
AuConn	   *au_n_connect(AuNode *n, uint64_t system_identifier, AuVolume *v, uint64_t node_id,
						 const char *address, const AuOutgoing *use, void *ctx);
/* No more answers fit in memory: those who wait for one must wait on. */
bool		au_n_out_full(const AuNode *n);
AuVolume   *au_n_volume(AuNode *n, uint64_t system_identifier);
AuVolume   *au_n_volume_of(AuNode *n, void *handle);

/* au_node_volume.c */
AuVolume   *au_v_new(AuNode *n, const AuVolumeMeta *meta, void *handle);	/* NULL: out of memory */
void		au_v_free(AuVolume *v);
AuStatus	au_v_start(AuVolume *v, char *err, size_t errlen);
void		au_v_start_closed(AuVolume *v, const char *why);	/* its store cannot be opened */
void		au_v_append(AuVolume *v, AuConn *c, uint64_t id, const AuMsgAppend *m);
/* Slice of syncing, applying, writing; returns when it wants to run again. */
uint64_t	au_v_run(AuVolume *v);
bool		au_v_writer_must_wait(const AuVolume *v);
/* More log lies between this and what is applied than may be. */
bool		au_v_lags(const AuVolume *v, AuLsn lsn);
/* The landing log cannot be read.  true: the node stops, to begin it anew when it
 * starts again. */
bool		au_v_log_damaged(AuVolume *v, const char *why);
bool		au_v_stopped(const AuVolume *v);
AuLsn		au_v_received(const AuVolume *v);
AuLsn		au_v_durable(const AuVolume *v);
void		au_v_state(const AuVolume *v, const char **state, const char **problem);

/* Nobody else keeps this log: what is durable here counts. */
bool		au_v_alone(const AuVolume *v);
/* Log bytes at the end of what is held, as log_append of the host.  AU_CORRUPT:
 * the node is stopped. */
AuStatus	au_v_log_append(AuVolume *v, uint64_t term, uint32_t timeline,
							const uint8_t *bytes, size_t len, char *err, size_t errlen);

/* Write what is gathered, now; false: not possible now. */
bool		au_v_write(AuVolume *v, bool persist);
/* The store took something in vain: it is opened again. */
void		au_v_stall(AuVolume *v, AuStatus status, const char *why);

/* au_node_term.c, au_node_vote.c: false: not decided yet, ask again after the
 * next event */
bool		au_t_decide(AuNode *n, AuConn *c);
bool		au_t_decide_vote(AuNode *n, AuConn *c);
bool		au_t_decide_elect(AuNode *n, AuConn *c);
/* Makes the volume of a connection that knows none; false: answered. */
bool		au_t_create(AuNode *n, AuConn *c, const AuVolumeMeta *meta, bool may_create);
/* A writer's segment size and timeline fit the volume, and it is sound; else
 * an error was answered. */
bool		au_t_fits(AuNode *n, AuConn *c, const AuVolume *v,
					  uint32_t segment_size, uint32_t timeline);

/* au_node_peer.c */
void		au_p_get_log(AuNode *n, AuConn *c, const AuFrame *f);
uint64_t	au_p_run(AuVolume *v, uint64_t now);	/* as au_v_run */
uint64_t	au_p_wake(AuNode *n, uint64_t now); /* those that wait for log */
void		au_p_forget_conn(AuNode *n, AuConn *c);
/* May a quorum have counted on log that this node holds, or held? */
bool		au_p_counts(const AuVolume *v);
/* No node that can be asked keeps the log that is needed next: this one was away
 * for too long.  A text for people; NULL: not so. */
const char *au_p_log_gone(const AuVolume *v);
/* The i-th node that may have a volume's log, members of its group first;
 * false: there are not so many.  Empty address: not to be asked. */
bool		au_p_source(const AuNode *n, uint64_t system_identifier, const AuGroup *group,
						uint32_t i, AuMember *out);

/* au_node_export.c */
void		au_x_export(AuNode *n, AuConn *c, const AuFrame *f);
uint64_t	au_x_run(AuNode *n, uint64_t now);
void		au_x_forget_conn(AuConn *c);
void		au_x_free(AuNode *n);	/* nobody is connected any more */

/* au_node_move.c; refresh: after the store was opened */
void		au_o_refresh(AuVolume *v);
uint64_t	au_o_run(AuVolume *v, uint64_t now);
void		au_o_reopened(AuVolume *v);	/* the store: what was asked for before is not for it */
uint64_t	au_o_ready(AuNode *n, uint64_t now);
void		au_o_figures(const AuVolume *v, AuVolumeStats *out);
/* All of these blocks are kept here; else it was answered. */
bool		au_o_here(AuVolume *v, AuConn *c, uint64_t id, const AuRelId *rel,
					  const uint32_t *blocks, uint16_t nblocks);
/* Number of this node in the view; 0: it is in none. */
uint32_t	au_o_number(const AuNode *n);
/* A volume of the view that this node does not vote for. */
bool		au_o_follows(const AuVolume *v);

/* au_node_join.c */
uint64_t	au_j_run(AuNode *n, uint64_t now);
void		au_j_free(AuNode *n);
/* Nobody has this volume of the view. */
bool		au_j_unknown(const AuNode *n, uint64_t system_identifier);

/*
 * au_node_digest.c.  get: the digest of (slice, leaf, from) at lsn, made if
 * need be.  AU_OK: *job has it.  AU_NEED_MORE: not yet.  AU_GONE, AU_REFUSED,
 * AU_IO: never, why says why.  end_slices: those of a volume's slices (NULL: all),
 * true: one is still read, and ends then.
 */
void		au_d_digest(AuNode *n, AuConn *c, const AuFrame *f);
AuStatus	au_d_get(AuVolume *v, uint32_t slice, uint32_t leaf, const AuPageId *from, AuLsn lsn,
					 AuDigestJob **job, char *why, size_t whylen);
void		au_d_release(AuDigestJob *job); /* one that is done: not needed any more */
bool		au_d_end_slices(AuVolume *v, const AuSliceSet *slices);
uint64_t	au_d_run(AuNode *n, uint64_t now);

/* au_node_sync.c */
uint64_t	au_s_run(AuVolume *v, uint64_t now);	/* as au_v_run */
/* Other nodes that keep this slice of it (AU_SLICES: its sizes), at most
 * AU_GROUP_MAX; how many. */
uint32_t	au_s_others(const AuVolume *v, uint32_t slice, AuMember *out);

/* au_node_share.c; use, leave: count those who use it, may be NULL; holds: so
 * many pages from a place (from 1) on */
void		au_m_share(AuNode *n, AuConn *c, const AuFrame *f);
void		au_m_forget_conn(AuConn *c);
AuShare    *au_m_use(AuShare *s);
void		au_m_leave(AuShare *s);
bool		au_m_holds(const AuShare *s, uint32_t place, uint32_t pages);
void	   *au_m_handle(const AuShare *s);

/* au_node_mend.c: damage was found; a store that was made anew cannot be opened
 * (any other: nothing happens); the store is open again; log from *from on is
 * needed by the new store (false: there is none) */
void		au_md_damaged(AuVolume *v, const char *why);
void		au_md_not_opened(AuVolume *v, const char *why);
void		au_md_reopened(AuVolume *v);
/* Nobody keeps the log that is needed next (au_p_log_gone). */
void		au_md_log_gone(AuVolume *v);
/* The store may be opened again now. */
bool		au_md_may_switch(AuVolume *v);
bool		au_md_keeps_log(const AuVolume *v, AuLsn *from);
uint64_t	au_md_run(AuVolume *v, uint64_t now);	/* as au_v_run */

/* au_node_grant.c; granted: the old store may go; if not it is asked for, when
 * it is time to.  tend: while there is no damage: as au_v_run.  mends: the view
 * says that this node, or another one, may have nothing of the volume */
bool		au_gr_granted(AuVolume *v, uint64_t now);
uint64_t	au_gr_tend(AuVolume *v, uint64_t now);
bool		au_gr_mends(const AuVolume *v, uint32_t number);

/* au_node_hold.c; break: give up holds beyond the limit */
void		au_h_hold(AuNode *n, AuConn *c, const AuFrame *f);
void		au_h_forget_conn(AuConn *c);
void		au_h_break(AuVolume *v);
/* Have the node that an outgoing connection leads to keep its volume readable
 * as of lsn while the connection is open; 0: not any more.  It answers HOLD_OK,
 * or an error: AU_GONE if it cannot.  false: nothing was asked. */
bool		au_h_ask(AuNode *n, AuConn *c, uint64_t id, AuLsn lsn);

/* au_node_view.c */
void		au_c_get_view(AuNode *n, AuConn *c, const AuFrame *f);
void		au_c_command(AuNode *n, AuConn *c, const AuFrame *f);
void		au_c_forget_conn(AuNode *n, const AuConn *c);

/* au_node_gossip.c; run: as au_v_run */
void		au_g_request(AuNode *n, AuConn *c, const AuFrame *f);
void		au_g_forget_conn(AuNode *n, const AuConn *c);
void		au_g_view_changed(AuNode *n);
uint64_t	au_g_run(AuNode *n, uint64_t now);
/* The farthest that any node says it has applied a volume's log, which a quorum
 * held then; 0: none was heard of. */
AuLsn		au_g_applied(const AuNode *n, uint64_t system_identifier);
/* Each slice has an owner that was heard to hold log up to here, or more; *slice:
 * one of which none has more.  AU_LSN_MAX: there are no slices. */
AuLsn		au_g_owners_have(const AuVolume *v, uint32_t *slice);

/* au_node_kv.c; run: as au_v_run */
typedef struct AuNodeKv AuNodeKv;
void		au_k_question(AuNode *n, AuConn *c, const AuFrame *f);
void		au_k_forget_conn(AuNode *n, AuConn *c);
void		au_k_view_changed(AuNode *n);
uint64_t	au_k_run(AuNode *n, uint64_t now);
void		au_k_free(AuNode *n);

/* au_node_read.c */
void		au_r_get_pages(AuNode *n, AuConn *c, const AuFrame *f);
void		au_r_get_size(AuNode *n, AuConn *c, const AuFrame *f);
void		au_r_list_rels(AuNode *n, AuConn *c, const AuFrame *f);
/* Start or answer what can be; true: call it again soon. */
bool		au_r_wake(AuVolume *v);
uint64_t	au_r_expire(AuVolume *v, uint64_t now); /* us until the next one, UINT64_MAX: none */
void		au_r_fail_all(AuVolume *v, AuStatus status, const char *why);
void		au_r_forget_conn(AuConn *c);

#endif							/* AU_NODE_INT_H */
