/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_ring.h: which nodes shall keep a slice: consistent hashing with virtual
 * nodes (Karger et al. 1997; DeCandia et al. 2007), weights and zones.  Pure.
 *
 * Each node has AU_RING_VNODES tokens for a weight of 100, more or fewer for
 * others, at hash(node_id, i).  From hash(slice) on the ring is walked; the
 * first nodes that differ are taken, and while there are zones not taken yet,
 * those in new zones.  So a node that joins takes about its share of slices,
 * from all others, and nothing moves between the others.
 *
 * Bounded loads: no node gets more than its share times 1.25 (Mirrokni et al.
 * 2018), the walk goes on to the next one then; only that replicas lie in
 * different zones counts more.
 *
 * Integers only: all nodes must come to the same places.
 */
#ifndef AU_RING_H
#define AU_RING_H

#include "cluster/au_view.h"

#define AU_RING_VNODES 128

typedef struct AuRingPlaces
{
	uint8_t		n;
	uint32_t	node[AU_RF_MAX];	/* numbers, in the order of the ring */
} AuRingPlaces;

/* Places of every slice, over the nodes that are to keep any (joining and
 * active ones); n is less than rf if there are fewer of them. */
void		au_ring_place(const AuView *v, AuRingPlaces places[AU_SLICES]);

/*
 * As au_ring_place, but from where the slices are (their targets, or owners)
 * and with as few moves as it takes: places of nodes that are no longer to keep
 * any are given to others; node `changed` (0: none) and those that join take or
 * give up to their share; others only what is above the bound, or what puts
 * replicas into more zones.
 */
void		au_ring_plan(const AuView *v, uint32_t changed, AuRingPlaces plan[AU_SLICES]);

/* Slices of each node (index as in v->nodes): as owner, and once all slices
 * are where they shall be. */
typedef struct AuRingLoad
{
	uint32_t	owned[AU_VIEW_NODES_MAX];
	uint32_t	wanted[AU_VIEW_NODES_MAX];
	double		share[AU_VIEW_NODES_MAX];	/* fair number of slices, by weight */
} AuRingLoad;

void		au_ring_load(const AuView *v, AuRingLoad *out);

#endif							/* AU_RING_H */
