/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_wire_cluster.h: the messages about views: who wants to know it, who wants
 * to change it.  What is in a view or a command this header does not know:
 * their bytes are those of cluster/au_view.h.
 */
#ifndef AU_WIRE_CLUSTER_H
#define AU_WIRE_CLUSTER_H

#include "common/au_wire.h"

/*
 * GET_VIEW: anyone asks any node for the view.  `epoch` is that of the view one
 * has (0: none); if the node's is no newer, VIEW comes at once without
 * bytes.  VIEW's epoch is the node's; 0: it is in no cluster.  ERROR with AU_IO:
 * it is in one, or shall be, and does not know the view yet: ask again, or ask
 * another.  AU_UNSUPPORTED: of a version that knows no clusters.
 */
typedef struct AuMsgGetView
{
	uint64_t	epoch;
} AuMsgGetView;

typedef struct AuMsgView
{
	uint64_t	epoch;
	uint32_t	length;
	const uint8_t *bytes;		/* au_view_encode; NULL if length is 0 */
} AuMsgView;

/*
 * CLUSTER: a command for the view.  A node that does not lead the consensus
 * passes it on (hops tells how often that was done; at AU_CLUSTER_HOPS_MAX
 * it is refused).  CLUSTER_OK when it is committed: the view's epoch then, and
 * the number of the node it was about (a node that joined: its own).  ERROR:
 * it was refused and nothing has changed (AU_REFUSED, AU_INVALID, AU_FULL, AU_CORRUPT), or
 * nobody knows (AU_IO: there is no leader, or it went away): ask again, all
 * commands may be repeated.
 */
#define AU_CLUSTER_HOPS_MAX 3

typedef struct AuMsgCluster
{
	uint8_t		hops;
	uint32_t	length;
	const uint8_t *bytes;		/* au_view_command_encode */
} AuMsgCluster;

typedef struct AuMsgClusterOk
{
	uint64_t	epoch;
	uint32_t	number;			/* 0: it was about no node */
} AuMsgClusterOk;

/* As those of au_wire.h. */
bool		au_enc_get_view(AuWriter *w, uint64_t id, const AuMsgGetView *m);
bool		au_enc_view(AuWriter *w, uint64_t id, const AuMsgView *m);
bool		au_enc_cluster(AuWriter *w, uint64_t id, const AuMsgCluster *m);
bool		au_enc_cluster_ok(AuWriter *w, uint64_t id, const AuMsgClusterOk *m);
bool		au_dec_get_view(const AuFrame *f, AuMsgGetView *m);
bool		au_dec_view(const AuFrame *f, AuMsgView *m);
bool		au_dec_cluster(const AuFrame *f, AuMsgCluster *m);
bool		au_dec_cluster_ok(const AuFrame *f, AuMsgClusterOk *m);

#endif							/* AU_WIRE_CLUSTER_H */
