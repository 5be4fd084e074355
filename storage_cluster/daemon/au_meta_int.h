/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_meta_int.h: what the files of au_meta share:
 *
 *   au_meta.c          life: start, join, views, the file, end
 *   au_meta_listen.c   whom libraft listens to
 *   au_meta_raft.c     libraft: the state machine it drives, start and end
 *   au_meta_propose.c  commands on their way to the leader
 *   au_meta_lead.c     what the leader does: members of consensus, who is up
 *   au_meta_json.c     status
 */
#ifndef AU_META_INT_H
#define AU_META_INT_H

#include <raft.h>
#include <raft/uv.h>

#include "cluster/au_raft_frame.h"
#include "daemon/au_ask.h"
#include "daemon/au_meta.h"

#define META_TICK_MS 100
#define META_POLL_MS 2000		/* asking others for a newer view, to be sure */
#define META_POLL_REMOVED_MS 10000
#define META_POLL_LOST_MS 400	/* ... while there is no leader to be seen */
#define META_ASK_MS 2000		/* wait for an answer of another node */
#define META_RETRY_MS 300		/* a command that nobody took */
#define META_COMPLAIN_MS 10000	/* between messages about the same trouble */
#define META_OTHERS_MAX AU_NODE_COMMANDS_MAX	/* commands of others */

typedef enum MetaState
{
	META_JOINING,				/* no number yet */
	META_MEMBER,
	META_REMOVED,
	META_STOPPING
} MetaState;

/* A command on its way. */
typedef struct MetaProposal
{
	AuMeta	   *meta;
	bool		used;
	bool		busy;			/* with libraft or another node */
	bool		once;			/* its sender tries again, not we */
	bool		ended;			/* result is set, tell */
	uint8_t		hops;
	uint64_t	ticket;			/* the core's; 0: ours */
	AuMetaDone	done;
	void	   *ctx;
	uint64_t	deadline;		/* ms */
	uint64_t	next_try;		/* ms */
	uint32_t	tries;
	AuViewCommand command;
	struct raft_apply apply;
	AuStatus	status;
	uint64_t	epoch;
	uint32_t	number;
	char		message[AU_WIRE_TEXT_MAX];
	char		hint[AU_WIRE_TEXT_MAX];
} MetaProposal;

/* What came of a command; what the state machine hands to who proposed it. */
typedef struct MetaResult
{
	AuStatus	status;
	uint64_t	epoch;
	uint32_t	number;
	char		message[512];
} MetaResult;

/* The leader's look at one node. */
typedef struct MetaProbe
{
	AuMeta	   *meta;
	uint32_t	number;			/* 0: free */
	bool		asking;
	uint8_t		failures;		/* in a row */
	uint64_t	next;			/* ms */
} MetaProbe;

typedef struct MetaPeer MetaPeer;	/* a connection to libraft; au_meta_listen.c */

struct AuMeta
{
	AuDaemon   *d;
	MetaState	state;
	bool		creates;		/* this node makes the cluster */
	bool		recovers;		/* ... or goes on without the other voters */
	uint64_t	recovered_from; /* RECOVERED: the epoch with which it did so; 0: never */
	uint32_t	number;
	char		address[AU_ADDRESS_MAX];	/* for others */
	char		meta_address[AU_ADDRESS_MAX];
	char		meta_bind[AU_ADDRESS_MAX];
	AuView		view;			/* the newest known */
	bool		unsaved;		/* it is not on disk yet, and so not handed on */
	uint64_t	next_save;		/* ms */
	uint64_t	next_unsaved;	/* ms; when to tell of it again */
	AuView		log_view;		/* what this node's consensus log made */
	MetaResult	result;			/* of the command that was applied last */
	uv_timer_t	tick;
	bool		tick_open;

	struct raft raft;
	struct raft_io io;
	struct raft_uv_transport transport;
	int			(*their_init) (struct raft_uv_transport *t, raft_id id, const char *address);
	void		(*their_close) (struct raft_uv_transport *t, raft_uv_transport_close_cb cb);
	raft_uv_accept_cb accept;	/* libraft's; NULL: it does not listen */
	uv_tcp_t	listener;
	bool		listener_open;
	MetaPeer   *peers;			/* the newest first */
	uint64_t	strangers;		/* connections that were closed for what they said */
	uint64_t	next_stranger;	/* ms; when to tell of one again */
	char		greeting[AU_RAFT_TEXT_MAX];	/* who we are, said to other nodes' ports */
	struct raft_fsm fsm;
	bool		raft_open;		/* raft_init succeeded, raft_close not done */
	bool		raft_closing;
	int			raft_state;		/* as of the last tick */
	uint32_t	leader;			/* as of the last tick */

	MetaProposal proposals[AU_META_PROPOSALS_MAX + META_OTHERS_MAX];

	bool		announced;		/* our JOIN was taken, or refused */
	bool		asking_join;
	bool		polling;
	uint64_t	next_poll;		/* ms */
	uint32_t	poll_index;
	char		told_by[AU_ADDRESS_MAX];	/* whom to ask next; "": any node of the view */
	uint64_t	next_complaint; /* ms; about what fails again and again */

	/* leader */
	bool		creating;		/* the first commands, or that of recovery, are under way */
	struct raft_apply create;	/* or recover */
	bool		changing;
	struct raft_change change;
	bool		handing_over;
	struct raft_transfer transfer;
	struct raft_barrier barrier;
	bool		barrier_used;
	uint64_t	next_change;	/* ms */
	MetaProbe	probes[AU_VIEW_NODES_MAX];
};

uint64_t	meta_now(void);		/* ms */

/* au_meta.c */
void		meta_take_view(AuMeta *m, const AuView *v);
void		meta_soon(AuMeta *m);	/* the next tick is now */
AuViewCommand meta_join_command(const AuMeta *m);

/* au_meta_raft.c.  close: ends in m->raft_open = false. */
bool		meta_raft_start(AuMeta *m, char *err, size_t errlen);
void		meta_raft_close(AuMeta *m);
bool		meta_raft_leads(const AuMeta *m);
/* A command, a view, as libraft wants it; false: out of memory. */
bool		meta_raft_buffer(const AuViewCommand *c, struct raft_buffer *out);
bool		meta_raft_view_buffer(const AuView *v, struct raft_buffer *out);
/* Consensus was made anew by --cluster-recover, and its log does not have yet
 * the view from which it goes on. */
bool		meta_recovering(const AuMeta *m);

/* au_meta_listen.c.  wrap: libraft's transport, between raft_uv_tcp_init and
 * raft_uv_init.  greeting: our cluster, or our address, is known now. */
void		meta_listen_wrap(AuMeta *m);
void		meta_listen_greeting(AuMeta *m);
void		meta_listen_tick(AuMeta *m, uint64_t now);

/* au_meta_propose.c */
void		meta_proposals_tick(AuMeta *m, uint64_t now);

/* au_meta_lead.c */
void		meta_lead_begins(AuMeta *m);
void		meta_lead_tick(AuMeta *m, uint64_t now);

#endif							/* AU_META_INT_H */
