/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_merkle.h: one number for all pages of a slice, and a way down to those
 * that differ between two nodes (Merkle 1987).  Pure: no I/O, no allocation.
 *
 *   level 0                    root
 *                    ┌──────────┼── ... ──┐
 *   level 1          0          1         15
 *                 ┌──┼─...──┐
 *   level 2       0  1      15  ...             256
 *   level 3       leaves                        4,096
 *
 * A leaf stands for the extents (AU_EXTENT_BLOCKS blocks of a relation) that
 * hash to it; its number is the sum of hash(page, bytes of the page), so the
 * order in which pages are added does not count.  A node's number is a hash of
 * its children's.  Pages that do not exist are not added: a page that one side
 * has and the other has not makes them differ, as one with other bytes does.
 *
 * Invariants:
 *  1. Two trees of the same set of (page, bytes) are the same, node by node.
 *  2. A comparison asks for one group of AU_MERKLE_FANOUT numbers at a time,
 *     and only below nodes that differ.
 *
 * The numbers tell accidents, not attacks.  They are part of the protocol: all
 * nodes must compute the same.
 */
#ifndef AU_MERKLE_H
#define AU_MERKLE_H

#include "common/au_base.h"

#define AU_MERKLE_FANOUT 16
#define AU_MERKLE_LEVELS 3		/* below the root */
#define AU_MERKLE_LEAVES 4096
#define AU_MERKLE_NODES (1 + 16 + 256 + 4096)

_Static_assert(AU_MERKLE_LEAVES == AU_MERKLE_FANOUT * AU_MERKLE_FANOUT * AU_MERKLE_FANOUT,
			   "three levels below the root");

typedef struct AuMerkle
{
	uint64_t	pages;			/* added */
	uint64_t	node[AU_MERKLE_NODES];	/* level by level */
} AuMerkle;

/* A page as it is compared. */
typedef struct AuDigestPage
{
	AuPageId	page;
	AuStatus	status;			/* AU_OK, AU_CORRUPT, AU_NOT_FOUND: does not exist */
	uint64_t	hash;			/* AU_OK */
} AuDigestPage;

/* Of a page's AU_PAGE_SIZE bytes. */
uint64_t	au_merkle_hash(const uint8_t *page);
/* The leaf of a page: the same for all blocks of an extent. */
uint32_t	au_merkle_leaf(const AuRelId *rel, uint32_t blk);

void		au_merkle_start(AuMerkle *t);
void		au_merkle_add(AuMerkle *t, const AuPageId *page, uint64_t hash);
/* All pages were added: compute the levels above the leaves.  Once. */
void		au_merkle_finish(AuMerkle *t);

uint64_t	au_merkle_root(const AuMerkle *t);
/* The AU_MERKLE_FANOUT children of a node; level below AU_MERKLE_LEVELS,
 * index below AU_MERKLE_FANOUT to the power of it. */
const uint64_t *au_merkle_children(const AuMerkle *t, uint32_t level, uint32_t index);
/* (Inline: decoders use it, which the extension links without the tree.) */
static inline bool
au_merkle_node_valid(uint32_t level, uint32_t index)
{
	return level < AU_MERKLE_LEVELS && index < UINT32_C(1) << (4 * level);
}

/*
 * Comparing: start with the root of the other side; while want says true, get
 * the other side's children of that node and take them.  Then leaf gives those
 * that differ, in ascending order, each once.
 */
typedef struct AuMerkleDiff
{
	const AuMerkle *ours;
	bool		open;			/* there is a node to ask about */
	uint32_t	level;
	uint32_t	index;
	uint16_t	left[AU_MERKLE_LEVELS]; /* by level: children not looked into */
	uint64_t	leaves[AU_MERKLE_LEAVES / 64];
	uint32_t	nleaves;
} AuMerkleDiff;

void		au_merkle_diff_start(AuMerkleDiff *d, const AuMerkle *ours, uint64_t their_root);
bool		au_merkle_diff_want(const AuMerkleDiff *d, uint32_t *level, uint32_t *index);
void		au_merkle_diff_take(AuMerkleDiff *d, const uint64_t *theirs);
/* The next leaf that differs and takes it away; false: there is none. */
bool		au_merkle_diff_leaf(AuMerkleDiff *d, uint32_t *leaf);

#endif							/* AU_MERKLE_H */
