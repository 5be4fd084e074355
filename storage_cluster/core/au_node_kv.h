/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_node_kv.h: the key-value interface (cluster/au_kv.h) of a node: its
 * messages come over the node's connections, and for each node of the view
 * there is a connection of our own, kept open.  The store is the host's.
 */
#ifndef AU_NODE_KV_H
#define AU_NODE_KV_H

#include "cluster/au_kv.h"
#include "core/au_node.h"

/* A connection that fails is tried again after so long. */
#define AU_NODE_KV_RETRY_US ((uint64_t) 500 * 1000)
#define AU_NODE_KV_UNSENT (8u << 20)	/* more is not queued for a node */

typedef struct AuNodeKvHost
{
	void	   *ctx;
	/* As AuKvHost.submit; au_node_kv_done follows. */
	void		(*submit) (void *ctx, AuKvOp *op);
	/*
	 * The store is needed and was not opened yet (the node is alone): open it
	 * and call au_node_kv_start.  false: it cannot be; err and the log say why.
	 */
	bool		(*open) (void *ctx, char *err, size_t errlen);
	/* The answer to au_node_kv_ask; good for the call only. */
	void		(*told) (void *ctx, const AuFrame *f);
} AuNodeKvHost;

/* Who is called for; copied.  AU_NOMEM, or AU_INVALID: said already. */
AuStatus	au_node_kv_host(AuNode *node, const AuNodeKvHost *host);
/* The store is open: begin. */
AuStatus	au_node_kv_start(AuNode *node, const AuKvOptions *opt, const AuKvExec *x,
							 const uint8_t *state, size_t state_len);
void		au_node_kv_done(AuNode *node, AuKvOp *op);
/* Ask for the node itself: a whole frame, KV_GET, KV_PUT or KV_LIST. */
void		au_node_kv_ask(AuNode *node, const uint8_t *frame, size_t len);
/* NULL: not started. */
const AuKv *au_node_kv(const AuNode *node);

#endif							/* AU_NODE_KV_H */
