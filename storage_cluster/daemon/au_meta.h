/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_meta.h: a node as member of a cluster: it joins, follows the view, has a
 * say in it (consensus by libraft), and keeps the last view it knew.
 *
 *   --cluster-init ─▶ one node's consensus ─▶ INIT, JOIN committed ┐
 *   --join ─▶ JOIN, sent to any node ─▶ its number, the view ──────┤
 *   DIR/VIEW is there ─▶ the view it knew, JOIN again (announced) ─┴▶ member
 *                                       view without it ─▶ removed
 *
 * Files: DIR/VIEW, the last view; DIR/meta/NUMBER/, libraft's.
 *
 * Everything on the loop thread.  Invariants:
 *  1. A view is handed on (au_node_set_view) only if it is of our cluster and
 *     newer than the last one, and, if we are in it, not before it is on disk;
 *     that is tried until it works.
 *  2. Only what consensus has committed becomes a view; nobody is called dead
 *     but by the leader, after it tried twice in vain to talk to it.
 *  3. Consensus members change one at a time, a voter is added before one is
 *     taken away.
 *  4. Proposals, questions, waits are bounded.
 */
#ifndef AU_META_H
#define AU_META_H

#include <jansson.h>

#include "daemon/au_daemon.h"
#include "daemon/au_text.h"

typedef struct AuMeta AuMeta;

/* Commands that this node's parts have under way, without those of others. */
#define AU_META_PROPOSALS_MAX 96
#define AU_META_DEADLINE_MS 6000	/* then a proposal's answer is AU_IO */

typedef void (*AuMetaDone) (void *ctx, const AuCommandResult *result);

/*
 * What the options and DIR/VIEW say; d->meta stays NULL if this node is and
 * becomes no member of a cluster.  Before the node listens.
 */
bool		au_meta_start(AuDaemon *d, char *err, size_t errlen);
/* Takes leave; the loop must run until au_meta_stopped. */
void		au_meta_stop(AuDaemon *d);
bool		au_meta_stopped(const AuDaemon *d);
void		au_meta_free(AuDaemon *d);

/*
 * Have the cluster take a command, wherever its leader is; tried again until
 * it is taken or refused, or the deadline is over.  done (may be NULL): not
 * before this returned; the result is good until it returns.  false: too many
 * are under way.
 */
bool		au_meta_propose(AuMeta *m, const AuViewCommand *c, AuMetaDone done, void *ctx);

/* The core's host function: a command of another node, or of auroractl. */
void		au_meta_command(void *daemon, uint64_t ticket, const AuViewCommand *c, uint8_t hops);

/* Somebody thinks that this node is dead: if we lead, see for ourselves. */
void		au_meta_suspect(AuMeta *m, uint32_t number);

/* Who is at the address (NULL: any node) has a view of this epoch: if it is
 * newer, get it soon. */
void		au_meta_heard(AuMeta *m, uint64_t epoch, const char *address);

const AuView *au_meta_view(const AuMeta *m);
uint32_t	au_meta_number(const AuMeta *m);	/* 0: none yet, or none any more */
const char *au_meta_address(const AuMeta *m);	/* where others reach this node */
uint32_t	au_meta_leader(const AuMeta *m);	/* 0: not known */

/* State for /status, a new reference. */
json_t	   *au_meta_json(const AuMeta *m);
/* ... and for /metrics. */
void		au_meta_metrics(const AuMeta *m, AuText *t);

#endif							/* AU_META_H */
