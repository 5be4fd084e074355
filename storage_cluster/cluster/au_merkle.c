/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_merkle.c: see au_merkle.h.
 */
#include "cluster/au_merkle.h"

#include <assert.h>

#include "cluster/au_view.h"
#include "common/au_page.h"

/* Where a level begins in node[]. */
static const uint32_t level_start[AU_MERKLE_LEVELS + 1] = {0, 1, 17, 273};
static const uint32_t level_nodes[AU_MERKLE_LEVELS + 1] = {1, 16, 256, 4096};

static inline uint64_t
rotate(uint64_t x, int n)
{
	return x << n | x >> (64 - n);
}

/* Four lanes, so that a core does four words at a time. */
uint64_t
au_merkle_hash(const uint8_t *page)
{
	uint64_t	lane[4] = {
		UINT64_C(0x9e3779b97f4a7c15), UINT64_C(0xbf58476d1ce4e5b9),
		UINT64_C(0x94d049bb133111eb), UINT64_C(0xd6e8feb86659fd93)
	};
	uint64_t	h = AU_PAGE_SIZE;

	for (size_t i = 0; i < AU_PAGE_SIZE; i += 32)
		for (int k = 0; k < 4; k++)
			lane[k] = rotate((lane[k] ^ au_get_u64(page + i + (size_t) k * 8)) *
							 UINT64_C(0x9fb21c651e98df25), 29);
	for (int k = 0; k < 4; k++)
		h = au_mix64(h ^ lane[k]);
	return h;
}

static uint64_t
hash_rel(const AuRelId *rel)
{
	uint64_t	h = au_mix64(((uint64_t) rel->spc << 32 | rel->db) + 1);

	return au_mix64(h ^ ((uint64_t) rel->rel << 32 | rel->fork));
}

uint32_t
au_merkle_leaf(const AuRelId *rel, uint32_t blk)
{
	/* other bits than those that au_slice_of takes */
	return (uint32_t) (au_mix64(hash_rel(rel) + blk / AU_EXTENT_BLOCKS) >> 52) % AU_MERKLE_LEAVES;
}

void
au_merkle_start(AuMerkle *t)
{
	memset(t, 0, sizeof(*t));
}

void
au_merkle_add(AuMerkle *t, const AuPageId *page, uint64_t hash)
{
	uint32_t	leaf = au_merkle_leaf(&page->rel, page->blk);

	t->pages++;
	t->node[level_start[AU_MERKLE_LEVELS] + leaf] +=
		au_mix64(au_mix64(hash_rel(&page->rel) + page->blk) ^ hash);
}

void
au_merkle_finish(AuMerkle *t)
{
	for (uint32_t level = AU_MERKLE_LEVELS; level-- > 0;)
		for (uint32_t i = 0; i < level_nodes[level]; i++)
		{
			const uint64_t *child = au_merkle_children(t, level, i);
			uint64_t	h = level;

			for (int k = 0; k < AU_MERKLE_FANOUT; k++)
				h = au_mix64(h ^ child[k]) + (uint64_t) k;
			t->node[level_start[level] + i] = h;
		}
}

uint64_t
au_merkle_root(const AuMerkle *t)
{
	return t->node[0];
}

const uint64_t *
au_merkle_children(const AuMerkle *t, uint32_t level, uint32_t index)
{
	assert(au_merkle_node_valid(level, index));
	return &t->node[level_start[level + 1] + index * AU_MERKLE_FANOUT];
}

/* ---- comparing -------------------------------------------------------- */

void
au_merkle_diff_start(AuMerkleDiff *d, const AuMerkle *ours, uint64_t their_root)
{
	memset(d, 0, sizeof(*d));
	d->ours = ours;
	d->open = au_merkle_root(ours) != their_root;
}

bool
au_merkle_diff_want(const AuMerkleDiff *d, uint32_t *level, uint32_t *index)
{
	*level = d->level;
	*index = d->index;
	return d->open;
}

/* To the next node that differs: down, aside, or up and aside. */
static void
move_on(AuMerkleDiff *d)
{
	for (;;)
	{
		uint16_t   *left = &d->left[d->level];

		if (*left != 0)
		{
			uint32_t	child = (uint32_t) __builtin_ctz(*left);

			*left &= (uint16_t) (*left - 1);
			d->index = d->index * AU_MERKLE_FANOUT + child;
			d->level++;
			return;
		}
		if (d->level == 0)
			break;
		d->level--;
		d->index /= AU_MERKLE_FANOUT;
	}
	d->open = false;
}

void
au_merkle_diff_take(AuMerkleDiff *d, const uint64_t *theirs)
{
	const uint64_t *ours = au_merkle_children(d->ours, d->level, d->index);
	uint16_t	differ = 0;

	assert(d->open);
	for (int k = 0; k < AU_MERKLE_FANOUT; k++)
		if (ours[k] != theirs[k])
			differ |= (uint16_t) (1u << k);
	if (d->level + 1 < AU_MERKLE_LEVELS)
		d->left[d->level] = differ;
	else
		for (uint32_t k = 0; k < AU_MERKLE_FANOUT; k++)
			if (differ >> k & 1)
			{
				uint32_t	leaf = d->index * AU_MERKLE_FANOUT + k;

				d->leaves[leaf / 64] |= UINT64_C(1) << (leaf % 64);
				d->nleaves++;
			}
	move_on(d);
}

bool
au_merkle_diff_leaf(AuMerkleDiff *d, uint32_t *leaf)
{
	for (uint32_t i = 0; i < AU_MERKLE_LEAVES / 64; i++)
		if (d->leaves[i] != 0)
		{
			*leaf = i * 64 + (uint32_t) __builtin_ctzll(d->leaves[i]);
			d->leaves[i] &= d->leaves[i] - 1;
			d->nleaves--;
			return true;
		}
	return false;
}
