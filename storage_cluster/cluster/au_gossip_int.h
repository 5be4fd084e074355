/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_gossip_int.h: what au_gossip.c and au_gossip_probe.c share; nothing else
 * includes it.
 */
#ifndef AU_GOSSIP_INT_H
#define AU_GOSSIP_INT_H

#include "cluster/au_gossip.h"

/* 0 .. n - 1 */
uint64_t	au_gossip_chance(AuGossip *g, uint64_t n);
AuGossipMember *au_gossip_member(AuGossip *g, uint64_t node_id);
/* An opinion, wherever it comes from; members may move in memory. */
void		au_gossip_hear(AuGossip *g, const AuGossipRecord *r, uint64_t now);
/* Our own opinion: SUSPECT of one alive, DEAD of a suspect. */
void		au_gossip_worse(AuGossip *g, AuGossipMember *m, AuGossipState state, uint64_t now);
void		au_gossip_forget_old(AuGossip *g, uint64_t now);
/* A message to `to` (0: not known who that is), with what there is to tell. */
void		au_gossip_fill(AuGossip *g, AuMsgGossip *msg, uint8_t kind, uint64_t to);
/* All that a message says; false: it is of a stranger, or our own. */
bool		au_gossip_take(AuGossip *g, const AuMsgGossip *msg, uint64_t now);

#endif							/* AU_GOSSIP_INT_H */
