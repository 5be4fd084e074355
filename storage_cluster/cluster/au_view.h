/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_view.h: what all nodes of a cluster must agree on, and no more: who
 * belongs to it, which node keeps which slice, who keeps the log of which
 * volume.
 *
 * A view is the state of a replicated state machine: commands go through a
 * consensus log (daemon/au_meta.h, on libraft), each node applies them in the
 * same order with au_view_apply and has the same view.  Pure: no clock, no
 * chance, no I/O; same commands, same bytes (au_view_encode).
 *
 *   command ──▶ consensus ──▶ au_view_apply ──▶ view, epoch + 1 ──▶ nodes,
 *                                                                   clients
 *
 * Slices.  The pages of all volumes are cut into AU_SLICES equal slices:
 * slice = hash(relation, block / AU_EXTENT_BLOCKS).  A slice has owners, which
 * have all its versions and answer reads, and, while it moves, a target: those
 * who shall own it.  A target that is no owner yet fetches the slice and says
 * so (SLICES_READY); when all targets are ready they are the owners.  So a
 * slice always has owners that have everything, whatever stops half way.
 *
 * Invariants (looked at by au_view_valid, after each command):
 *  1. The epoch grows by one with each command that changed something, and by
 *     AU_VIEW_RECOVER_EPOCHS when a cluster goes on without most of its voters.
 *  2. Node numbers are never used twice.
 *  3. Each slice has min(rf, nodes that ever joined and are not gone) owners
 *     or more nodes on their way; one at least as soon as there is a node.
 *  4. A log group changes by one node at a time, and not again before a writer
 *     was elected in it (GROUP_SETTLED): quorums of neighbours always overlap.
 *  5. A node that is in a log group, or the last owner of a slice, is not
 *     removed.
 *  6. A node that says it has a slice says so of the target as it is now: one
 *     that was target, then not, then again, has to fetch it again.
 *  7. A node that mends a volume (MENDING: its page store is damaged, and may
 *     be empty from now on) is the only owner of any of its slices that does,
 *     and not the only owner.  Until it says that it is whole it counts for
 *     nobody's having a slice: no move to it ends, and who shares its slices
 *     is not removed.
 */
#ifndef AU_VIEW_H
#define AU_VIEW_H

#include "common/au_base.h"
#include "common/au_history.h"

#define AU_SLICES 256
#define AU_EXTENT_BLOCKS 256	/* 2 MB: a run of blocks lies on one node */
#define AU_RF_MAX 5
#define AU_VIEW_NODES_MAX 64
#define AU_VIEW_VOLUMES_MAX 16	/* as AU_NODE_VOLUMES_MAX */
#define AU_ZONE_MAX 32

_Static_assert(AU_VIEW_VOLUMES_MAX <= 16, "a node's `mending` has a bit for each volume");

typedef enum AuNodeState
{
	AU_NODE_JOINING = 1,		/* slices are on their way to it */
	AU_NODE_ACTIVE,
	AU_NODE_DRAINING			/* gives all it has to others, then may be removed */
} AuNodeState;

typedef struct AuViewNode
{
	uint32_t	number;			/* from 1, given by the cluster, never again */
	uint64_t	node_id;		/* of its directory, chosen by chance */
	char		address[AU_ADDRESS_MAX];	/* for clients and other nodes */
	char		meta_address[AU_ADDRESS_MAX];	/* for consensus */
	char		http[AU_ADDRESS_MAX];	/* status; "": none */
	char		zone[AU_ZONE_MAX];	/* replicas are put in different ones; "" */
	uint16_t	weight;			/* share of slices; 100 is ordinary, 1..10000 */
	uint8_t		state;			/* AuNodeState */
	uint8_t		up;				/* 0: found dead; reads go elsewhere */
	uint8_t		voter;			/* takes part in consensus */
	uint16_t	mending;		/* bit i: its pages of volumes[i] are made anew */
	uint64_t	mending_since;	/* epoch in which that was granted last; 0: it
								 * mends nothing */
} AuViewNode;

typedef struct AuSlice
{
	uint8_t		nowners;
	uint8_t		ntarget;		/* 0: at rest */
	uint32_t	owner[AU_RF_MAX];	/* node numbers */
	uint32_t	target[AU_RF_MAX];
	uint8_t		ready;			/* bit i: target[i] has it all */
	uint64_t	since;			/* epoch in which the target, or its end, was set */
} AuSlice;

typedef struct AuViewVolume
{
	uint64_t	system_identifier;
	uint32_t	group_epoch;	/* from 1; with each change of the group */
	uint8_t		settled;		/* a writer was elected in this epoch */
	uint8_t		ngroup;
	uint8_t		write_quorum;
	uint32_t	leaving;		/* goes when this epoch is settled; 0: nobody */
	uint32_t	group[AU_GROUP_MAX];	/* node numbers */
} AuViewVolume;

typedef struct AuView
{
	uint64_t	cluster_id;		/* 0: no cluster yet */
	uint64_t	epoch;
	uint32_t	next_number;
	uint8_t		rf;				/* replicas of a slice */
	uint8_t		nnodes;
	uint8_t		nvolumes;
	AuViewNode	nodes[AU_VIEW_NODES_MAX];	/* by number */
	AuViewVolume volumes[AU_VIEW_VOLUMES_MAX];
	AuSlice		slices[AU_SLICES];
} AuView;

/* ---- where things are ------------------------------------------------- */

static inline uint64_t
au_mix64(uint64_t x)			/* splitmix64's finaliser (Steele et al. 2014) */
{
	x ^= x >> 30;
	x *= UINT64_C(0xbf58476d1ce4e5b9);
	x ^= x >> 27;
	x *= UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

/* Slice of a page; part of the format: stored data is placed by it. */
static inline uint32_t
au_slice_of(const AuRelId *rel, uint32_t blk)
{
	uint64_t	h = au_mix64(((uint64_t) rel->spc << 32 | rel->db) + UINT64_C(0x9e3779b97f4a7c15));

	h = au_mix64(h ^ ((uint64_t) rel->rel << 32 | rel->fork));
	h = au_mix64(h ^ (blk / AU_EXTENT_BLOCKS));
	return (uint32_t) (h % AU_SLICES);
}

/* A set of slices, e.g. those a node keeps. */
typedef struct AuSliceSet
{
	uint64_t	bits[AU_SLICES / 64];
} AuSliceSet;

static inline bool
au_slices_has(const AuSliceSet *s, uint32_t slice)
{
	return (s->bits[slice / 64] >> (slice % 64)) & 1;
}

static inline void
au_slices_add(AuSliceSet *s, uint32_t slice)
{
	s->bits[slice / 64] |= UINT64_C(1) << (slice % 64);
}

static inline void
au_slices_remove(AuSliceSet *s, uint32_t slice)
{
	s->bits[slice / 64] &= ~(UINT64_C(1) << (slice % 64));
}

/* NULL: no such node. */
const AuViewNode *au_view_node(const AuView *v, uint32_t number);
const AuViewNode *au_view_node_by_id(const AuView *v, uint64_t node_id);
const AuViewVolume *au_view_volume(const AuView *v, uint64_t system_identifier);
/* Slices the node owns, and those it is a target of but does not own. */
void		au_view_owned(const AuView *v, uint32_t number, AuSliceSet *owned, AuSliceSet *incoming);
/* How many of so many nodes are to vote: five, or three, or all there are. */
int			au_view_voters_wanted(int nodes);
/* Its pages of the volume are made anew: it may have nothing of its slices. */
bool		au_view_mends(const AuView *v, uint32_t number, uint64_t system_identifier);
/* The group that keeps a volume's log, with addresses. */
void		au_view_group(const AuView *v, const AuViewVolume *vol, AuGroup *out);

/* ---- commands --------------------------------------------------------- */

typedef enum AuViewCommandType
{
	AU_VIEW_INIT = 1,			/* cluster_id, rf; the first command there is */
	AU_VIEW_JOIN,				/* node: node_id, addresses, zone, weight; again: new addresses.
								 * number: 0, or the one it has already: refused if the
								 * cluster has given that up.  0 and with: the next number
								 * of a view before it joined; refused if a number from
								 * there on was given up, for that may have been its own and
								 * this an old copy of its JOIN.  with 0: not known (logs
								 * from before it was told) */
	AU_VIEW_DRAIN,				/* number */
	AU_VIEW_REMOVE,				/* number; force: also one that is down and not drained,
								 * if each of its slices has another owner */
	AU_VIEW_WEIGHT,				/* number, weight */
	AU_VIEW_UP,					/* number, up */
	AU_VIEW_VOTER,				/* number, voter: told by consensus */
	AU_VIEW_SLICES_READY,		/* number, slices, epoch: it has all of these now, and had
								 * the view of that epoch when it found so; of slices
								 * whose target is younger nothing is taken */
	AU_VIEW_VOLUME_ADD,			/* system_identifier, write_quorum, ngroup (0: 3 or as many
								 * as there are); again: nothing happens */
	AU_VIEW_GROUP_REPLACE,		/* system_identifier, number -> with (0: only add / only
								 * remove).  Both: `with` is added now, `number` is
								 * removed when that is settled: a swap in one step
								 * would leave quorums without a common node */
	AU_VIEW_GROUP_SETTLED,		/* system_identifier, group_epoch: a writer was elected in
								 * it.  A member that drains is replaced then */
	AU_VIEW_MENDING				/* number, system_identifier, up (1: its page store of the
								 * volume is damaged, it asks to throw it away; 0: it has all
								 * its slices again, as of the view of `epoch`; of an older
								 * grant than that nothing is taken back).  Taken: the
								 * answer, not the view, is the grant */
} AuViewCommandType;

typedef struct AuViewCommand
{
	uint8_t		type;
	uint8_t		rf;
	uint8_t		up;				/* or voter, or force */
	uint8_t		ngroup;
	uint8_t		write_quorum;
	uint32_t	number;
	uint32_t	with;
	uint32_t	group_epoch;
	uint64_t	cluster_id;
	uint64_t	system_identifier;
	uint64_t	epoch;
	AuViewNode	node;
	AuSliceSet	slices;
} AuViewCommand;

/*
 * Take a command.  AU_OK: *changed tells whether the view is another one now.
 * AU_REFUSED, AU_FULL, AU_INVALID: it is the same, err says why and what to do.
 * A joined node's number: au_view_node_by_id.  AU_CORRUPT: as those, but it is a
 * mistake in this code: the view that came of it broke an invariant.
 */
AuStatus	au_view_apply(AuView *v, const AuViewCommand *c, bool *changed, char *err, size_t errlen);
bool		au_view_valid(const AuView *v, char *why, size_t whylen);

/*
 * A cluster goes on without most of its voters, from the newest view that is
 * known: the lost ones may have decided more, and nodes and clients may have
 * seen it.  So it leaves out all the epochs and node numbers that they can have
 * given out meanwhile.
 */
#define AU_VIEW_RECOVER_EPOCHS (UINT64_C(1) << 20)
#define AU_VIEW_RECOVER_NUMBERS AU_VIEW_NODES_MAX	/* more never joined at once */
void		au_view_recover(AuView *v);
/* ... and its consensus log, which may not reach so far, takes that view as a
 * command.  false: it is another cluster's, or no newer one; v is the same. */
bool		au_view_apply_recovered(AuView *v, const AuView *recovered);

/* Bytes of a command, of a whole view (magic, version, length, CRC-32C).
 * encode returns the length, 0 if cap is too small.  decode: false, malformed. */
#define AU_VIEW_COMMAND_MAX 1024
#define AU_VIEW_ENCODED_MAX (64u << 10)
size_t		au_view_command_encode(const AuViewCommand *c, uint8_t *buf, size_t cap);
bool		au_view_command_decode(AuViewCommand *c, const uint8_t *buf, size_t len);
size_t		au_view_encode(const AuView *v, uint8_t *buf, size_t cap);
bool		au_view_decode(AuView *v, const uint8_t *buf, size_t len);

#endif							/* AU_VIEW_H */
