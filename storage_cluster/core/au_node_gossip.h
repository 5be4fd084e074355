/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_node_gossip.h: gossip (cluster/au_gossip.h) of a node: over connections
 * to other nodes that are kept, one an address, opened when there is something
 * to say.  The node's marks, the view's nodes and the cluster's id come from
 * the node itself; what is made of opinions is the host's.
 */
#ifndef AU_NODE_GOSSIP_H
#define AU_NODE_GOSSIP_H

#include "cluster/au_gossip.h"
#include "core/au_node.h"

#define AU_NODE_GOSSIP_PEERS 96	/* connections; beyond that the idlest is closed */
#define AU_NODE_GOSSIP_UNSENT (64u << 10)	/* more is not queued for a node */
/* A connection that owes an answer for so long is opened anew. */
#define AU_NODE_GOSSIP_SILENT_US ((uint64_t) 3 * 1000000)

/* None of these may call the node again; each may be NULL. */
typedef struct AuNodeGossipHost
{
	void	   *ctx;
	/* As AuGossipHost.changed. */
	void		(*opinion) (void *ctx, const AuGossipMember *m, uint8_t was);
	/* A node at this address has a newer view than ours; told each period until
	 * it is here. */
	void		(*newer_view) (void *ctx, uint64_t epoch, const char *address);
	/* Bytes used and allowed (0: no limit). */
	void		(*disk) (void *ctx, uint64_t *used, uint64_t *limit);
} AuNodeGossipHost;

/*
 * Begin to gossip; node_id and cluster_id of the options are the node's and
 * its view's.  host is copied.  AU_NOMEM, or AU_INVALID: it does already.
 */
AuStatus	au_node_gossip_start(AuNode *node, const AuNodeGossipHost *host,
								 const AuGossipOptions *opt);
/* An address to find others at; false: too many, or no gossip. */
bool		au_node_gossip_seed(AuNode *node, const char *address);
/* NULL: it does not gossip.  Good until the node is freed. */
const AuGossip *au_node_gossip(const AuNode *node);

#endif							/* AU_NODE_GOSSIP_H */
