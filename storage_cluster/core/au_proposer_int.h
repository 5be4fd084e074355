/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_proposer_int.h: what the proposer's files share; nobody else includes it.
 */
#ifndef AU_PROPOSER_INT_H
#define AU_PROPOSER_INT_H

#include "core/au_proposer.h"

/* Answers to a writer are small; the longest is an error with its hint. */
#define AU_PNODE_IN_BYTES (8u << 10)

typedef struct AuPNode
{
	bool		used;
	uint64_t	member_id;		/* who the view says it is; 0: nobody said */
	AuProposerNodeState state;
	uint64_t	node_id;		/* who it says it is */
	bool		greeted;		/* HELLO_OK came on this connection */
	bool		volume_known;
	AuLsn		start_lsn;		/* of its volume */
	AuLsn		greeted_durable;	/* as HELLO_OK told */
	AuLsn		greeted_applied;
	AuGroup		group;			/* that keeps it; n = 0: nobody said */
	uint64_t	promised;		/* newest term it told of */
	AuMsgVoteOk vote;			/* of this campaign, if voted */
	bool		voted;
	bool		fenced;			/* it follows a newer term */
	bool		full;			/* its disk; until it takes log again */
	bool		moved;			/* it was there last, and knows a newer group */

	AuLsn		sent;
	AuLsn		commit_told;
	AuLsn		durable;		/* acknowledged in this term */
	bool		verified;		/* what it held is what the server has */
	AuLsn		verify_until;	/* its end when it accepted the term */
	uint64_t	verify_id;		/* the append that reached it; 0: not sent yet */
	AuLsn		applied;
	AuLsn		asked;			/* it will tell when it has applied log up to here */
	uint64_t	last_id;		/* of the newest request */
	uint64_t	asked_id;		/* of the newest VOTE or ELECT */
	uint64_t	acked_id;
	uint64_t	answer_due;		/* time by which an answer must have come */
	uint64_t	greeted_at;
	uint64_t	told_at;		/* last APPEND */
	uint64_t	retry_at;
	uint64_t	retry_us;		/* present pause */
	size_t		out_bytes;
	char		problem[256];
	AuStatus	problem_status;
	char		hint[AU_WIRE_TEXT_MAX];

	uint8_t		in[AU_PNODE_IN_BYTES];
	size_t		in_len;
} AuPNode;

struct AuProposer
{
	AuProposerHost host;
	AuProposerOptions opt;
	AuProposerState state;
	AuProposerKind kind;		/* why ENDED */
	char		text[AU_WIRE_TEXT_MAX];
	char		hint[AU_WIRE_TEXT_MAX];

	AuGroup		group;			/* n = 0: not known yet */
	AuGroup		next;			/* n > 0: it takes the place of group soon */
	uint64_t	next_since;		/* it could win a term since; 0: it could not */
	uint32_t	settled;		/* epoch, by this writer */
	uint32_t	view_settled;	/* epoch, by whomever */
	bool		moved;			/* nodes know a newer group than we do */
	bool		led;			/* there is a window from an earlier term */
	AuLsn		applied;		/* by a quorum, at most commit; never goes back */
	uint64_t	started;
	uint64_t	campaign_at;	/* not before */
	uint32_t	campaigns;		/* in a row that another writer was faster in */
	uint64_t	term;
	AuHistory	history;		/* the elected one */
	AuLsn		start_lsn;		/* of the volume */
	AuLsn		elected_end;	/* where our own term begins */
	AuLsn		commit;
	AuLsn		told;			/* commit, as far as it was confirmed */
	uint64_t	stuck_since;	/* 0: a quorum streams */
	bool		continues;		/* the server's WAL continues the elected log */
	bool		want_applied;

	uint8_t    *window;			/* ring; byte at LSN x is at x % size */
	AuLsn		window_start;
	AuLsn		window_end;
	uint8_t    *frame;			/* one append on its way to send */

	AuPNode		nodes[AU_GROUP_MAX];
};

/* au_proposer.c */
void		au_pr_log(AuProposer *p, bool warning, const char *fmt,...)
			__attribute__((format(printf, 3, 4)));
void		au_pr_end(AuProposer *p, AuProposerKind kind, const char *hint, const char *fmt,...)
			__attribute__((format(printf, 4, 5)));
/* Drop the connection, to be made again after a pause. */
void		au_pr_drop(AuProposer *p, uint32_t i, AuStatus status, const char *hint,
					   const char *fmt,...)
			__attribute__((format(printf, 5, 6)));
/* Send the frame that was encoded; an answer is due within us. */
void		au_pr_send(AuProposer *p, uint32_t i, const AuWriter *w, uint64_t us);
uint64_t	au_pr_now(const AuProposer *p);
/* While LEADING: a node follows a newer term. */
void		au_pr_fenced(AuProposer *p, uint32_t i, const char *what);

bool		au_pr_reachable(const AuPNode *n);
/* Votes with which a term is won. */
uint32_t	au_pr_votes_to_win(const AuProposer *p);

/* au_proposer_group.c */
/* Places for the group that the options name. */
void		au_pr_group_start(AuProposer *p);
/* Take up the next group when it is at hand. */
void		au_pr_group_run(AuProposer *p, uint64_t now);
/* A learner has said how far it is; ask again after a while. */
uint64_t	au_pr_learner_run(AuProposer *p, uint32_t i, uint64_t now);

/* au_proposer_elect.c */
void		au_pr_greeted(AuProposer *p, uint32_t i);
void		au_pr_voted(AuProposer *p, uint32_t i, const AuMsgVoteOk *m);
void		au_pr_elect_node(AuProposer *p, uint32_t i);
/* Begin a campaign if it is time; returns when it will be. */
uint64_t	au_pr_campaign(AuProposer *p, uint64_t now);

#endif							/* AU_PROPOSER_INT_H */
