/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_ring.c: places of slices; see au_ring.h.
 *
 * The ring is not kept as a sorted list of tokens.  The slices' own hashes cut
 * it into AU_SLICES gaps, and of a node's tokens in one gap only the first one
 * matters:
 *
 *     h[0]   t   t    h[1]      t   h[2]  ...      h[i] = hash of a slice
 *      ├─────●───○─────┼────────●────┼──           ● first token of the node
 *        gap 0            gap 1
 *
 * So the walk from a slice's hash meets nodes gap by gap, within a gap by the
 * distance of their first token.
 *
 * Invariants:
 *  1. Same view, same places: integers only, ties go to the lower number.
 *  2. A slice's places are different nodes, min(rf, nodes to keep any) of them.
 */
#include "cluster/au_ring.h"

#include <assert.h>

#define FIXED 65536u			/* a slice, in fixed-point shares */
#define NO_TOKEN UINT64_MAX

/* Nodes that are to keep slices; indexes here are into these arrays. */
typedef struct Keepers
{
	uint32_t	n;
	uint32_t	k;				/* replicas of each slice */
	uint32_t	number[AU_VIEW_NODES_MAX];
	uint32_t	index[AU_VIEW_NODES_MAX];	/* in v->nodes */
	uint32_t	zone[AU_VIEW_NODES_MAX];
	uint32_t	nzones;
	bool		growing[AU_VIEW_NODES_MAX]; /* joins, or its weight changed */
	uint64_t	share[AU_VIEW_NODES_MAX];	/* slices * FIXED */
	uint32_t	bound[AU_VIEW_NODES_MAX];	/* slices */
	uint32_t	load[AU_VIEW_NODES_MAX];
	uint8_t		order[AU_SLICES][AU_VIEW_NODES_MAX];	/* as the ring is walked */
} Keepers;

/* ---- shares ----------------------------------------------------------- */

/*
 * Cut `total` into parts by weight, part i within lo[i]..hi[i]: proportional
 * parts; those beyond a limit are set to it, the rest again (of both sides the
 * one that is further off first, so that none is set too early).
 */
static void
cut_by_weight(uint32_t n, const uint64_t *weight, const uint64_t *lo, const uint64_t *hi,
			  uint64_t total, uint64_t *part)
{
	bool		fixed[AU_VIEW_NODES_MAX] = {false};

	for (uint32_t round = 0; round <= n; round++)
	{
		uint64_t	left = total,
					weights = 0,
					above = 0,
					below = 0;

		for (uint32_t i = 0; i < n; i++)
			if (fixed[i])
				left -= part[i] < left ? part[i] : left;
			else
				weights += weight[i];
		for (uint32_t i = 0; i < n; i++)
		{
			if (fixed[i])
				continue;
			part[i] = left * weight[i] / weights;
			above += part[i] > hi[i] ? part[i] - hi[i] : 0;
			below += part[i] < lo[i] ? lo[i] - part[i] : 0;
		}
		if (above == 0 && below == 0)
			break;
		for (uint32_t i = 0; i < n; i++)
		{
			if (fixed[i])
				continue;
			if (above >= below && part[i] > hi[i])
				part[i] = hi[i];
			else if (below > above && part[i] < lo[i])
				part[i] = lo[i];
			else
				continue;
			fixed[i] = true;
		}
	}
}

/*
 * Fair shares.  While there are zones enough, a slice has one replica in a
 * zone, so a zone has no more than all slices; with fewer zones than replicas
 * each zone has all slices at least once.
 */
static void
set_shares(Keepers *r, const AuView *v)
{
	uint64_t	zweight[AU_VIEW_NODES_MAX] = {0},
				zlo[AU_VIEW_NODES_MAX] = {0},
				zhi[AU_VIEW_NODES_MAX] = {0},
				zpart[AU_VIEW_NODES_MAX] = {0};
	uint32_t	members[AU_VIEW_NODES_MAX] = {0};
	uint64_t	all = (uint64_t) AU_SLICES * FIXED;
	uint32_t	per_zone = r->nzones >= r->k ? 1 : r->k - r->nzones + 1;

	for (uint32_t i = 0; i < r->n; i++)
	{
		zweight[r->zone[i]] += v->nodes[r->index[i]].weight;
		members[r->zone[i]]++;
	}
	for (uint32_t z = 0; z < r->nzones; z++)
	{
		zlo[z] = r->nzones >= r->k ? 0 : all;
		zhi[z] = all * (members[z] < per_zone ? members[z] : per_zone);
	}
	cut_by_weight(r->nzones, zweight, zlo, zhi, all * r->k, zpart);
	for (uint32_t z = 0; z < r->nzones; z++)
	{
		uint64_t	weight[AU_VIEW_NODES_MAX] = {0},
					lo[AU_VIEW_NODES_MAX] = {0},
					hi[AU_VIEW_NODES_MAX] = {0},
					part[AU_VIEW_NODES_MAX] = {0};
		uint32_t	n = 0;

		for (uint32_t i = 0; i < r->n; i++)
			if (r->zone[i] == z)
			{
				weight[n] = v->nodes[r->index[i]].weight;
				hi[n++] = all;
			}
		cut_by_weight(n, weight, lo, hi, zpart[z], part);
		n = 0;
		for (uint32_t i = 0; i < r->n; i++)
			if (r->zone[i] == z)
				r->share[i] = part[n++];
	}
	for (uint32_t i = 0; i < r->n; i++)
	{
		uint64_t	bound = (r->share[i] * 5 / 4 + FIXED - 1) / FIXED;

		r->bound[i] = (uint32_t) (bound < AU_SLICES ? bound : AU_SLICES);
	}
}

/* ---- the ring --------------------------------------------------------- */

static uint64_t
slice_hash(uint32_t slice)
{
	return au_mix64(au_mix64(slice + UINT64_C(0x9e3779b97f4a7c15)) + 1);
}

static uint64_t
token(uint64_t node_id, uint32_t i)
{
	return au_mix64(au_mix64(node_id) + (i + 1) * UINT64_C(0x9e3779b97f4a7c15));
}

/* Slices in the order of their hashes. */
static void
sort_slices(uint32_t *slice, uint64_t *hash)
{
	for (uint32_t s = 0; s < AU_SLICES; s++)
	{
		uint64_t	h = slice_hash(s);
		uint32_t	i = s;

		for (; i > 0 && hash[i - 1] > h; i--)
		{
			hash[i] = hash[i - 1];
			slice[i] = slice[i - 1];
		}
		hash[i] = h;
		slice[i] = s;
	}
}

/* The gap a token lies in: that of the last hash at or below it. */
static uint32_t
gap_of(const uint64_t *hash, uint64_t t)
{
	uint32_t	lo = 0,
				hi = AU_SLICES;

	while (lo < hi)
	{
		uint32_t	mid = (lo + hi) / 2;

		if (hash[mid] <= t)
			lo = mid + 1;
		else
			hi = mid;
	}
	return (lo + AU_SLICES - 1) % AU_SLICES;
}

typedef uint64_t FirstTokens[AU_SLICES];	/* distance from the gap's begin */

static void
find_first_tokens(const AuViewNode *node, const uint64_t *hash, uint64_t *first)
{
	uint32_t	ntokens = (uint32_t) AU_RING_VNODES * node->weight / 100;

	for (uint32_t g = 0; g < AU_SLICES; g++)
		first[g] = NO_TOKEN;
	for (uint32_t i = 0; i < (ntokens > 0 ? ntokens : 1); i++)
	{
		uint64_t	t = token(node->node_id, i);
		uint32_t	g = gap_of(hash, t);

		if (t - hash[g] < first[g])
			first[g] = t - hash[g];
	}
}

/* The nodes in the order in which a walk from gap `at` on meets them. */
static void
walk(const Keepers *r, FirstTokens *first, uint32_t at, uint8_t *order)
{
	bool		met[AU_VIEW_NODES_MAX] = {false};
	uint32_t	n = 0;

	for (uint32_t step = 0; step < AU_SLICES && n < r->n; step++)
	{
		uint32_t	g = (at + step) % AU_SLICES;
		uint32_t	begin = n;

		for (uint32_t i = 0; i < r->n; i++)
		{
			uint32_t	j = n;

			if (met[i] || first[i][g] == NO_TOKEN)
				continue;
			for (; j > begin && first[order[j - 1]][g] > first[i][g]; j--)
				order[j] = order[j - 1];
			order[j] = (uint8_t) i;
			met[i] = true;
			n++;
		}
	}
	assert(n == r->n);
}

static void
find_keepers(Keepers *r, const AuView *v, uint32_t changed)
{
	uint32_t	slice[AU_SLICES];
	uint64_t	hash[AU_SLICES];
	FirstTokens first[AU_VIEW_NODES_MAX];	/* 128 kB */

	memset(r, 0, sizeof(*r));
	sort_slices(slice, hash);
	for (uint32_t i = 0; i < v->nnodes; i++)
	{
		const AuViewNode *node = &v->nodes[i];
		uint32_t	z = 0;

		if (node->state == AU_NODE_DRAINING)
			continue;
		while (z < r->n && strcmp(v->nodes[r->index[z]].zone, node->zone) != 0)
			z++;
		r->zone[r->n] = z < r->n ? r->zone[z] : r->nzones++;
		r->number[r->n] = node->number;
		r->index[r->n] = i;
		r->growing[r->n] = node->state == AU_NODE_JOINING || node->number == changed;
		find_first_tokens(node, hash, first[r->n]);
		r->n++;
	}
	r->k = r->n < v->rf ? r->n : v->rf;
	if (r->n == 0)
		return;
	set_shares(r, v);
	for (uint32_t g = 0; g < AU_SLICES; g++)
		walk(r, first, g, r->order[slice[g]]);
}

/* ---- places ----------------------------------------------------------- */

/* Some of the keepers, those of one slice. */
typedef struct Chosen
{
	uint32_t	n;
	uint8_t		node[AU_RF_MAX];
} Chosen;

static bool
is_chosen(const Chosen *c, uint32_t i)
{
	for (uint32_t j = 0; j < c->n; j++)
		if (c->node[j] == i)
			return true;
	return false;
}

static bool
zone_taken(const Keepers *r, const Chosen *c, uint32_t zone)
{
	for (uint32_t j = 0; j < c->n; j++)
		if (r->zone[c->node[j]] == zone)
			return true;
	return false;
}

static uint32_t
count_zones(const Keepers *r, const Chosen *c)
{
	uint32_t	n = 0;

	for (uint32_t j = 0; j < c->n; j++)
	{
		Chosen		before = *c;

		before.n = j;
		n += !zone_taken(r, &before, r->zone[c->node[j]]);
	}
	return n;
}

/* a is less loaded than b, in relation to their shares. */
static bool
less_loaded(const Keepers *r, uint32_t a, uint32_t b)
{
	return r->load[a] * r->share[b] < r->load[b] * r->share[a];
}

/* One more place of a slice, which takes its load. */
static void
choose(Keepers *r, uint32_t slice, Chosen *c)
{
	bool		new_zone = count_zones(r, c) < r->nzones;
	uint32_t	best = UINT32_MAX;

	for (uint32_t i = 0; i < r->n; i++)
	{
		uint32_t	node = r->order[slice][i];

		if (is_chosen(c, node) || (new_zone && zone_taken(r, c, r->zone[node])))
			continue;
		if (r->load[node] < r->bound[node])
		{
			best = node;
			break;
		}
		if (best == UINT32_MAX || less_loaded(r, node, best))
			best = node;
	}
	assert(best != UINT32_MAX && c->n < AU_RF_MAX);
	c->node[c->n++] = (uint8_t) best;
	r->load[best]++;
}

/* In the order of the ring, which spreads who is the first one. */
static void
give_places(const Keepers *r, uint32_t slice, const Chosen *c, AuRingPlaces *out)
{
	memset(out, 0, sizeof(*out));
	for (uint32_t i = 0; i < r->n; i++)
		if (is_chosen(c, r->order[slice][i]))
			out->node[out->n++] = r->number[r->order[slice][i]];
	assert(out->n == r->k);
}

static void
choose_all(Keepers *r, Chosen *chosen)
{
	for (uint32_t s = 0; s < AU_SLICES; s++)
		while (chosen[s].n < r->k)
			choose(r, s, &chosen[s]);
}

void
au_ring_place(const AuView *v, AuRingPlaces places[AU_SLICES])
{
	Keepers		r;
	Chosen		chosen[AU_SLICES] = {0};

	find_keepers(&r, v, 0);
	choose_all(&r, chosen);
	for (uint32_t s = 0; s < AU_SLICES; s++)
		give_places(&r, s, &chosen[s], &places[s]);
}

/* ---- from where they are ---------------------------------------------- */

static void
take_present(Keepers *r, const AuView *v, Chosen *present)
{
	for (uint32_t s = 0; s < AU_SLICES; s++)
	{
		const AuSlice *slice = &v->slices[s];
		bool		moving = slice->ntarget > 0;
		uint32_t	n = moving ? slice->ntarget : slice->nowners;

		present[s].n = 0;
		for (uint32_t j = 0; j < n && present[s].n < r->k; j++)
			for (uint32_t i = 0; i < r->n; i++)
				if (r->number[i] == (moving ? slice->target[j] : slice->owner[j]))
				{
					present[s].node[present[s].n++] = (uint8_t) i;
					r->load[i]++;
				}
	}
}

static bool
worth_moving(const Keepers *r, uint32_t from, uint32_t to)
{
	if (!r->growing[to] && !r->growing[from] && r->load[from] <= r->bound[from])
		return false;
	return (r->load[to] + 1) * r->share[from] <= r->load[from] * r->share[to];
}

/* Give one place of a slice to `to`, which the ring proposes and which has
 * none, if that is for the better. */
static void
move_one(Keepers *r, const Chosen *ideal, Chosen *c, uint32_t to)
{
	uint32_t	zones = count_zones(r, c);
	uint32_t	best = UINT32_MAX;
	bool		best_spreads = false;

	for (uint32_t j = 0; j < c->n; j++)
	{
		uint32_t	from = c->node[j];
		Chosen		after = *c;
		bool		spreads;

		if (is_chosen(ideal, from))
			continue;
		after.node[j] = (uint8_t) to;
		if (count_zones(r, &after) < zones)
			continue;
		spreads = count_zones(r, &after) > zones;
		if (!spreads && !worth_moving(r, from, to))
			continue;
		if (best == UINT32_MAX || spreads > best_spreads ||
			(spreads == best_spreads && less_loaded(r, c->node[best], from)))
		{
			best = j;
			best_spreads = spreads;
		}
	}
	if (best == UINT32_MAX)
		return;
	r->load[c->node[best]]--;
	r->load[to]++;
	c->node[best] = (uint8_t) to;
}

void
au_ring_plan(const AuView *v, uint32_t changed, AuRingPlaces plan[AU_SLICES])
{
	Keepers		r;
	Chosen		ideal[AU_SLICES] = {0};
	Chosen		chosen[AU_SLICES];

	find_keepers(&r, v, changed);
	choose_all(&r, ideal);
	memset(r.load, 0, sizeof(r.load));
	take_present(&r, v, chosen);
	choose_all(&r, chosen);
	for (uint32_t s = 0; s < AU_SLICES; s++)
	{
		for (uint32_t i = 0; i < ideal[s].n; i++)
			if (!is_chosen(&chosen[s], ideal[s].node[i]))
				move_one(&r, &ideal[s], &chosen[s], ideal[s].node[i]);
		give_places(&r, s, &chosen[s], &plan[s]);
	}
}

void
au_ring_load(const AuView *v, AuRingLoad *out)
{
	Keepers		r;

	memset(out, 0, sizeof(*out));
	find_keepers(&r, v, 0);
	for (uint32_t i = 0; i < r.n; i++)
		out->share[r.index[i]] = (double) r.share[i] / FIXED;
	for (uint32_t i = 0; i < v->nnodes; i++)
		for (uint32_t s = 0; s < AU_SLICES; s++)
		{
			const AuSlice *slice = &v->slices[s];
			uint32_t	number = v->nodes[i].number;
			bool		owns = false,
						wanted = false;

			for (uint32_t j = 0; j < slice->nowners; j++)
				owns = owns || slice->owner[j] == number;
			for (uint32_t j = 0; j < slice->ntarget; j++)
				wanted = wanted || slice->target[j] == number;
			out->owned[i] += owns;
			out->wanted[i] += slice->ntarget > 0 ? wanted : owns;
		}
}
