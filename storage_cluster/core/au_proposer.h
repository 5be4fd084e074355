/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_proposer.h: the writer's side of a log that several nodes keep, as a
 * deterministic state machine.  It wins a term, sends the log to every node of
 * the group, and says how far a quorum holds it.  No clock, network or
 * allocator in here: the log shipper is one host, the simulator another.
 *
 *   CONNECTING ──enough nodes──▶ VOTING ──enough promises──▶ LEADING
 *       ▲                          │ a newer term               │
 *       └──────────────────────────┘                            │
 *   ENDED ◀── fenced off, refused (see au_proposer_trouble) ◀───┘
 *
 * A node, once there is a leader:
 *
 *   DOWN ─▶ GREETED ─▶ ELECTING ─▶ STREAM ◀──▶ BEHIND
 *     ▲________________________________│  (log of the window / from its peers)
 *
 * The group may change while all this goes on (au_proposer_set_group).  Its new
 * members are connected to at first only to see how far they are; when enough
 * of the new group is there the writer seeks a term that only the new group's
 * nodes promise.  Nothing is committed from then on until that term is won;
 * what was committed before stays so, and the window is kept.
 *
 *   LEADING ──next group is at hand──▶ CONNECTING ─▶ VOTING ─▶ LEADING
 *
 * Losing nodes does not end a term: they are connected to again, for ever.
 * While fewer than the quorum are there nothing is committed.
 *
 * Invariants:
 *  1. A term is sought with a number above all that any reached node has
 *     promised, and is won by the votes of a majority that meets every quorum.
 *  2. The elected log contains everything a quorum may hold.
 *  3. commit only grows, is held durably by a quorum that has accepted this
 *     term, and never lies below the elected log's end when it first moves
 *     (Raft 5.4.2).
 *  4. No node counts before it has compared the end of the log it holds with
 *     the server's: a copy of the server that went another way is told nothing
 *     of what the right one has written, and can add nothing to it.
 *  5. A term is won, and log committed, by nodes of one group only, that of the
 *     newest epoch this writer has taken up; a group counts as settled when a
 *     quorum of it holds the log in a term won in it.
 *  6. Log that was sent is the window [start, end); its size is bounded; only
 *     log that is committed leaves it.
 *  7. A node counts once, wherever it answers: in a list whose addresses lead to
 *     other nodes than before, what it voted and acknowledged goes with it.
 */
#ifndef AU_PROPOSER_H
#define AU_PROPOSER_H

#include "common/au_wire.h"

/* Unsent bytes in the host's buffer of one node, beyond which it gets no more. */
#define AU_PROPOSER_OUT_MAX (2u << 20)
/* Log before a node's end that is sent once more, so that the node can see
 * whether the server continues the log it holds. */
#define AU_PROPOSER_OVERLAP (64u << 10)
/* A node to which nothing was sent for so long is told the commit position;
 * before, the log that follows most probably does. */
#define AU_PROPOSER_TELL_US ((uint64_t) 2 * 1000)
#define AU_PROPOSER_HEARTBEAT_US ((uint64_t) 500 * 1000)
#define AU_PROPOSER_ANSWER_US ((uint64_t) 10 * 1000000)
/* More patience for ELECT: a node may have to read its log again. */
#define AU_PROPOSER_ELECT_US ((uint64_t) 120 * 1000000)
#define AU_PROPOSER_RETRY_MIN_US ((uint64_t) 50 * 1000)
#define AU_PROPOSER_RETRY_MAX_US ((uint64_t) 2 * 1000000)
/* Wait so long for the last nodes before going ahead without them. */
#define AU_PROPOSER_GRACE_US ((uint64_t) 300 * 1000)
#define AU_PROPOSER_CAMPAIGNS_MAX 10
#define AU_PROPOSER_STUCK_US ((uint64_t) 5 * 1000000)

typedef struct AuProposerHost
{
	void	   *ctx;
	uint64_t	(*now_us) (void *ctx);	/* monotonic */
	uint64_t	(*random) (void *ctx);
	void	   *(*alloc) (void *ctx, size_t size);	/* NULL: out of memory */
	void		(*release) (void *ctx, void *p);
	void		(*log) (void *ctx, bool warning, const char *message);

	/* Begin to connect; au_proposer_connected or _closed follows, not from
	 * within. */
	void		(*connect) (void *ctx, uint32_t node);
	/* Close at once; nothing follows. */
	void		(*disconnect) (void *ctx, uint32_t node);
	/* Queue; au_proposer_sent tells when it left.  May not call back. */
	void		(*send) (void *ctx, uint32_t node, const uint8_t *bytes, size_t len);
} AuProposerHost;

typedef struct AuProposerOptions
{
	uint64_t	system_identifier;
	uint64_t	writer_id;		/* random, new for each process */
	char		name[64];
	uint32_t	nodes;			/* 1 .. AU_GROUP_MAX */
	uint8_t		write_quorum;
	char		addresses[AU_GROUP_MAX][AU_ADDRESS_MAX];
	AuGroup		group;			/* n > 0: what the view says, instead of the three
								 * above; epoch > 0 */
	bool		group_settled;	/* the view says so */
	uint32_t	timeline;
	AuLsn		switch_lsn;		/* where this timeline began; 0: the first */
	uint32_t	wal_segment_size;
	AuLsn		local_start;	/* first log the server still has */
	AuLsn		local_end;		/* last that it has flushed */
	bool		may_create;		/* the volume was never made */
	AuLsn		create_lsn;		/* where it would begin */
	size_t		window_bytes;	/* at least 4 * AU_PROPOSER_OVERLAP */
} AuProposerOptions;

typedef enum AuProposerState
{
	AU_PROPOSER_CONNECTING,
	AU_PROPOSER_VOTING,
	AU_PROPOSER_LEADING,
	AU_PROPOSER_ENDED
} AuProposerState;

typedef enum AuProposerKind
{
	AU_PROPOSER_OK,
	AU_PROPOSER_LOST,			/* too few nodes are there: it goes on by itself */
	AU_PROPOSER_FULL,			/* ... because disks are full */
	AU_PROPOSER_AGAIN,			/* ENDED: begin anew at once */
	AU_PROPOSER_MOVED,			/* nodes know a newer group; ENDED only if this
								 * writer was given none: ask for the view */
	AU_PROPOSER_FENCED,			/* ENDED: another writer has the volume */
	AU_PROPOSER_REFUSED			/* ENDED: somebody must do something first */
} AuProposerKind;

typedef enum AuProposerNodeState
{
	AU_PNODE_DOWN,				/* connected to again at retry_at */
	AU_PNODE_CONNECTING,
	AU_PNODE_HELLO,				/* said, not answered */
	AU_PNODE_GREETED,
	AU_PNODE_VOTING,
	AU_PNODE_VOTED,
	AU_PNODE_ELECTING,
	AU_PNODE_STREAM,
	AU_PNODE_BEHIND				/* gets log from other nodes */
} AuProposerNodeState;

/* What is shown of a node. */
typedef struct AuProposerNode
{
	bool		used;			/* false: this place is empty */
	AuProposerNodeState state;
	uint64_t	node_id;		/* 0: never reached */
	uint64_t	member_id;		/* who the group says it is; 0: nobody does */
	AuLsn		sent;
	AuLsn		durable;
	AuLsn		applied;
	char		problem[256];	/* why it is not STREAM, or "" */
} AuProposerNode;

typedef struct AuProposer AuProposer;

/* NULL: out of memory.  Nothing happens before au_proposer_run. */
AuProposer *au_proposer_new(const AuProposerHost *host, const AuProposerOptions *options);
void		au_proposer_free(AuProposer *p);	/* disconnects */

void		au_proposer_connected(AuProposer *p, uint32_t node);
void		au_proposer_closed(AuProposer *p, uint32_t node, const char *why);
void		au_proposer_input(AuProposer *p, uint32_t node, const uint8_t *bytes, size_t len);
void		au_proposer_sent(AuProposer *p, uint32_t node, size_t bytes);

/* Bytes of log that may be given now; LEADING, or while the group changes. */
size_t		au_proposer_room(const AuProposer *p);
/* The log from au_proposer_next() on; at most au_proposer_room bytes. */
void		au_proposer_log(AuProposer *p, const uint8_t *bytes, size_t len);
/* Where the log that is wanted begins. */
AuLsn		au_proposer_next(const AuProposer *p);

/* Send, time out, connect.  Call after events; returns microseconds after
 * which it wants to run again at the latest. */
uint64_t	au_proposer_run(AuProposer *p);

AuProposerState au_proposer_state(const AuProposer *p);
/* Why it ENDED; or, while it is not, why nothing can be committed now (LOST,
 * FULL, REFUSED: nodes are asked again, but somebody must do something first),
 * OK if it can.  The texts stay until the next call. */
AuProposerKind au_proposer_trouble(AuProposer *p, const char **text, const char **hint);
uint64_t	au_proposer_term(const AuProposer *p);
AuLsn		au_proposer_start_lsn(const AuProposer *p);	/* of the volume */
/* Somebody waits for pages: nodes are asked to tell when they have applied what
 * they hold. */
void		au_proposer_want_applied(AuProposer *p, bool on);
/* A quorum holds, and has applied, this much of the server's log; 0: not known
 * yet. */
AuLsn		au_proposer_commit(const AuProposer *p);
AuLsn		au_proposer_applied(const AuProposer *p);
void		au_proposer_node(const AuProposer *p, uint32_t node, AuProposerNode *out);

/* Nodes have places, 0 .. AU_GROUP_MAX - 1, which the host's calls name.  With
 * the group a place may become empty, and be another node's later. */
const char *au_proposer_address(const AuProposer *p, uint32_t node);

/*
 * The group that the view names now (epoch > 0), and whether it is settled.
 * Of one that is not newer than what is known only new addresses are taken.
 */
void		au_proposer_set_group(AuProposer *p, const AuGroup *group, bool settled);
/* Epoch of the group in use. */
uint32_t	au_proposer_epoch(const AuProposer *p);
/* The newest epoch that is settled; 0: none in this writer's life. */
uint32_t	au_proposer_settled(const AuProposer *p);

#endif							/* AU_PROPOSER_H */
