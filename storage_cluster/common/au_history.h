/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_history.h: which writer wrote which part of a volume's log, and the group
 * of nodes that keeps it.  Pure; shared by storage nodes and the writer.
 *
 * A log is told from another one by its history, a list of terms:
 *
 *      term 3        term 5            term 9
 *   ──┼─────────────┼─────────────────┼──────────▶ end
 *     start         start             start
 *
 * Entry i covers log from its start to the next entry's start, the last one to
 * the log's end.  Below the first entry's start the history says nothing: that
 * log is known to be held by a quorum, and so is the same everywhere.
 *
 * Invariants (those of Raft's log, see docs/decisions/0006-log-quorum.md):
 *  1. Terms grow strictly, starts grow strictly; a term that wrote nothing is
 *     replaced by the next one.
 *  2. (term, LSN) names one byte: two logs whose histories agree on the term
 *     of some LSN hold the same bytes up to there.
 */
#ifndef AU_HISTORY_H
#define AU_HISTORY_H

#include "common/au_base.h"

/* Terms that wrote log which is not yet known to be held by a quorum. */
#define AU_HISTORY_MAX 64
#define AU_GROUP_MAX 7			/* nodes that keep the log of one volume */
#define AU_ADDRESS_MAX 128		/* "host:port", terminated */

typedef struct AuTerm
{
	uint64_t	term;
	AuLsn		start;
	uint32_t	timeline;
} AuTerm;

typedef struct AuHistory
{
	uint32_t	n;
	AuTerm		terms[AU_HISTORY_MAX];
} AuHistory;

/* Terms and starts grow. */
bool		au_history_valid(const AuHistory *h);

/* The last term of a log that ends at `end` and has this history; 0: none.  An
 * entry that begins at `end` counts: its writer has reached this log. */
uint64_t	au_history_last(const AuHistory *h, AuLsn end);

/* Log from `start` on is written in this term; what the history said about
 * log from there on is forgotten.  false: no room (nothing changed), or the
 * term is not newer than all before. */
bool		au_history_push(AuHistory *h, uint64_t term, AuLsn start, uint32_t timeline);

/* The log was cut off at `end`: forget terms that begin at or above. */
void		au_history_cut(AuHistory *h, AuLsn end);

/* Log below `floor` is held by a quorum: forget what only tells about it. */
void		au_history_forget(AuHistory *h, AuLsn floor);

/*
 * How far a log with history `ours`, ending at `end`, is the same as one with
 * history `theirs`: the returned LSN is at most `end`.  `held` is a position
 * up to which ours is known to be held by a quorum, and the least answer: when
 * they know no term in common, only that much is sure.
 */
AuLsn		au_history_common(const AuHistory *ours, AuLsn end,
							  const AuHistory *theirs, AuLsn held);

/* ---- the group -------------------------------------------------------- */

typedef struct AuMember
{
	uint64_t	node_id;
	/* "" if nobody may ask it; what follows the terminator is zero */
	char		address[AU_ADDRESS_MAX];
} AuMember;

/* n = 0: nobody has said; the node is alone. */
typedef struct AuGroup
{
	/* 0: the group that the server's settings named; from 1 on: what the view
	 * of a cluster says, one more with each change */
	uint32_t	epoch;
	uint8_t		n;
	uint8_t		write_quorum;	/* so many hold log before it counts */
	AuMember	members[AU_GROUP_MAX];
} AuGroup;

/* Members differ from each other, quorum in 1 .. n and more than half of n:
 * two quorums, and a quorum and an election, always share a node. */
bool		au_group_valid(const AuGroup *g);
/* The same nodes and quorum, in whatever order and at whatever address. */
bool		au_group_same(const AuGroup *a, const AuGroup *b);
/*
 * May a node that has taken part in group `from` take part in `to`?  Of the
 * same epoch only if it is the same group; of the next one if at most one node
 * differs (so that a quorum of the one and an election in the other always
 * share a node, decision 6).  What is further ahead a node cannot judge: each
 * step on the way there was the next one to those who took it.
 */
bool		au_group_may_follow(const AuGroup *from, const AuGroup *to);
/* Index of a node; -1: no member. */
int			au_group_find(const AuGroup *g, uint64_t node_id);
/* Votes that win a term. */
uint32_t	au_group_votes(const AuGroup *g);

#endif							/* AU_HISTORY_H */
