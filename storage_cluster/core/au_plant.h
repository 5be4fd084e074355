/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_plant.h: bugs put in on purpose, in the simulator's build only, to see
 * that its checks find them.  Each name is used at one place of the code
 * under test; elsewhere AU_PLANTED() is the constant false.
 */
#ifndef AU_PLANT_H
#define AU_PLANT_H

#include <stdbool.h>

typedef enum AuPlant
{
	AU_PLANT_NONE,
	AU_PLANT_QUORUM,			/* the writer counts on one node less */
	AU_PLANT_STALE_TERM,		/* a node lets in the writer of an old term */
	AU_PLANT_RESURRECT,			/* log no quorum holds goes to other nodes as if one did */
	AU_PLANT_APPLY_EARLY,		/* log is applied before a quorum holds it */
	AU_PLANT_OLD_EPOCH,			/* a node takes part in a group that is over */
	AU_PLANT_TWO_AT_ONCE,		/* a group may change by any number of nodes */
	AU_PLANT_STALE_READY,		/* word of an earlier move of a slice counts */
	AU_PLANT_NO_OBJECTION,		/* a node that is suspected keeps silent */
	AU_PLANT_GOSSIP_STALE,		/* the last opinion heard counts, however old */
	AU_PLANT_NO_CRC,			/* an entry of the landing log is believed as it is */
	AU_PLANT_KV_EARLY,			/* a write is answered before it is on disk */
	AU_PLANT_KV_QUORUM,			/* a write counts one replica more than there is */
	AU_PLANT_KV_COMPARE,		/* the newest write of an actor is not taken for known */
	AU_PLANT_KV_PURGE,			/* tombstones go when one replica has them */
	AU_PLANT_KV_MOST,			/* a slice fetched from most of those who may have it is whole */
	AU_PLANT_MEND_OLD,			/* a new store is copied as of before its position */
	AU_PLANT_MEND_BLIND,		/* of two that differ the own one is taken for wrong */
	AU_PLANT_BEHIND_COUNTS,		/* a node that is made anew acknowledges log it has not got */
	AU_PLANT_READY_EARLY,		/* a slice counts as ready when it begins to come */
	AU_PLANT_WHOLE_EARLY,		/* a new page store counts as whole without its slices */
	AU_PLANT_GIVES_PART,		/* slices are asked of an owner that mends, too */
	AU_PLANT_LOST_VOTES,		/* a node that lost log votes as if it had not */
	AU_PLANT_TRIM_EARLY			/* log is trimmed whoever may need it */
} AuPlant;

#ifdef AU_PLANTS
extern AuPlant au_planted;
#define AU_PLANTED(name) (au_planted == (name))
#else
#define AU_PLANTED(name) false
#endif

#endif							/* AU_PLANT_H */
