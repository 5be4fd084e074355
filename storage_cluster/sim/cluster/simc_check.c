/* SPDX-License-Identifier: Apache-2.0 */
/*
 * simc_check.c: what must hold in a cluster; see simc.h.
 */
#include "sim/cluster/simc.h"

#include "common/au_crc32c.h"

static uint8_t bytes[AU_VIEW_ENCODED_MAX];

uint64_t
simc_hash(const AuView *v)
{
	size_t		len = au_view_encode(v, bytes, sizeof(bytes));

	return (uint64_t) au_crc32c(0, bytes, len) << 32 | (uint32_t) v->epoch;
}

void
simc_check_applied(SimcNode *n)
{
	Simc	   *s = n->sim;

	if (simc_hash(&n->view) != s->hash[n->applied])
		simc_fail(s, "node %d has another view than others after %u commands", n->index, n->applied);
}

static bool
in(const uint32_t *list, uint32_t n, uint32_t number)
{
	for (uint32_t i = 0; i < n; i++)
		if (list[i] == number)
			return true;
	return false;
}

static bool
at_rest(const AuView *v)
{
	for (uint32_t i = 0; i < AU_SLICES; i++)
		if (v->slices[i].ntarget != 0)
			return false;
	return true;
}

/* Places in `after` of nodes that had none in `before`; *others: of nodes other
 * than the one given. */
static uint32_t
new_places(const AuView *before, const AuView *after, uint32_t number, uint32_t *others)
{
	uint32_t	count = 0;

	*others = 0;
	for (uint32_t i = 0; i < AU_SLICES; i++)
	{
		const AuSlice *b = &before->slices[i];
		const AuSlice *a = &after->slices[i];

		for (uint32_t k = 0; k < a->ntarget; k++)
			if (!in(b->owner, b->nowners, a->target[k]) && !in(b->target, b->ntarget, a->target[k]))
			{
				count++;
				*others += a->target[k] != number;
			}
	}
	return count;
}

/* A node that joins takes its share, with the ring's bound, and from all; one
 * in a zone of its own may get more, and so do all when one weighs more than
 * a whole copy: it cannot have a slice twice. */
static void
check_moves(Simc *s, const AuView *before, const AuViewCommand *c)
{
	const AuViewNode *joined = au_view_node_by_id(&s->head, c->node.node_id);
	uint32_t	weights = 0;
	uint32_t	heaviest = 0;
	uint32_t	others;
	uint32_t	moved = new_places(before, &s->head, joined != NULL ? joined->number : 0, &others);
	uint32_t	places;

	s->figures.moved += moved;
	if (s->zones || c->type != AU_VIEW_JOIN || !at_rest(before) || joined == NULL || before->nnodes <= s->head.rf ||
		before->nnodes == s->head.nnodes)
		return;
	for (int i = 0; i < s->head.nnodes; i++)
		if (s->head.nodes[i].state != AU_NODE_DRAINING)
		{
			weights += s->head.nodes[i].weight;
			if (s->head.nodes[i].weight > heaviest)
				heaviest = s->head.nodes[i].weight;
		}
	if (heaviest * s->head.rf > weights)
		return;
	places = AU_SLICES * s->head.rf;
	if (moved - others > places * joined->weight / weights * 5 / 4 + 8)
		simc_fail(s, "node %u joined and took %u of %u places, with weight %u of %u", joined->number,
				  moved - others, places, joined->weight, weights);
	if (others > places / 10)
		simc_fail(s, "node %u joined and %u places moved between others", joined->number, others);
}

static bool
really_has(Simc *s, const AuView *v, uint32_t number, uint32_t slice)
{
	int			i = simc_index_of(s, v, number);

	return i >= 0 && !s->nodes[i].lost && s->nodes[i].has[slice];
}

static void
check_owners(Simc *s, const AuView *before)
{
	for (uint32_t i = 0; i < AU_SLICES; i++)
	{
		const AuSlice *b = &before->slices[i];
		const AuSlice *a = &s->head.slices[i];
		uint32_t	good = 0;

		for (uint32_t k = 0; k < a->nowners; k++)
		{
			int			index = simc_index_of(s, &s->head, a->owner[k]);
			bool		has = really_has(s, &s->head, a->owner[k], i);

			good += has;
			if (!has && index >= 0 && !s->nodes[index].lost && b->nowners > 0 &&
				!in(b->owner, b->nowners, a->owner[k]))
				simc_fail(s, "node %u became an owner of slice %u without having it", a->owner[k], i);
		}
		if (b->nowners > 0 && good == 0)
			simc_fail(s, "slice %u has no owner any more that has it", i);
	}
}

void
simc_check_head(Simc *s, const AuView *before, const AuViewCommand *c, bool changed)
{
	static AuView back;
	char		why[256];
	size_t		len;

	if (s->head.epoch != before->epoch + changed)
		simc_fail(s, "epoch %llu follows %llu", (unsigned long long) s->head.epoch,
				  (unsigned long long) before->epoch);
	if (!au_view_valid(&s->head, why, sizeof(why)))
		simc_fail(s, "no valid view: %s", why);
	len = au_view_encode(&s->head, bytes, sizeof(bytes));
	if (len == 0 || !au_view_decode(&back, bytes, len) || memcmp(&back, &s->head, sizeof(back)) != 0)
		simc_fail(s, "a view is another one after it was written and read");
	if (!changed)
		return;
	/* the first owner of all has all there is: nothing */
	for (uint32_t i = 0; i < AU_SLICES; i++)
		for (uint32_t k = 0; k < s->head.slices[i].nowners && before->slices[i].nowners == 0; k++)
			s->nodes[simc_index_of(s, &s->head, s->head.slices[i].owner[k])].has[i] = true;
	check_owners(s, before);
	check_moves(s, before, c);
}

static const char *
check_node_quiet(Simc *s, const SimcNode *n)
{
	static char text[256];

	if (n->applied != s->ncommands)
		return "a node has not applied all commands";
	for (int k = 0; k < SIMC_NODES_MAX; k++)
	{
		const SimcNode *o = &s->nodes[k];
		const AuGossipMember *m = au_gossip_find(n->gossip, o->node_id);

		if (o == n || !o->exists || (m == NULL && !o->up))
			continue;
		if (m != NULL && m->r.state == (o->up ? AU_GOSSIP_ALIVE : AU_GOSSIP_DEAD))
			continue;
		snprintf(text, sizeof(text), "node %d holds node %d for %s, which is %s", n->index, k,
				 au_gossip_state_name(m != NULL ? m->r.state : 0), o->up ? "up" : "down");
		return text;
	}
	return NULL;
}

/* What a node waits for that is to come, or to go. */
static const char *
stuck(const Simc *s, const AuViewNode *n)
{
	static char text[256];
	int			len = snprintf(text, sizeof(text), "node %u is still %s", n->number,
							   n->state == AU_NODE_JOINING ? "joining" : "draining");

	for (uint32_t i = 0; i < AU_SLICES; i++)
	{
		const AuSlice *sl = &s->head.slices[i];

		if (!in(sl->owner, sl->nowners, n->number) && !in(sl->target, sl->ntarget, n->number))
			continue;
		len += snprintf(text + len, sizeof(text) - (size_t) len, ", slice %u owned by", i);
		for (uint32_t k = 0; k < sl->nowners; k++)
			len += snprintf(text + len, sizeof(text) - (size_t) len, " %u", sl->owner[k]);
		len += snprintf(text + len, sizeof(text) - (size_t) len, ", ready %x of", sl->ready);
		for (uint32_t k = 0; k < sl->ntarget; k++)
			len += snprintf(text + len, sizeof(text) - (size_t) len, " %u", sl->target[k]);
		break;
	}
	return text;
}

const char *
simc_check_quiet(Simc *s)
{
	static char text[256];

	for (int i = 0; i < SIMC_NODES_MAX; i++)
	{
		const SimcNode *n = &s->nodes[i];
		const AuViewNode *v = au_view_node_by_id(&s->head, n->node_id);
		const char *wrong;

		if (!n->exists)
			continue;
		snprintf(text, sizeof(text), "node %d is %s, in the view %s", i,
				 n->lost ? "lost" : n->gone ? "removed" : n->up ? "up" : "down",
				 v == NULL ? "not at all" : v->up ? "up" : "down");
		if (n->lost || n->gone ? v != NULL : !n->up || v == NULL || !v->up)
			return text;
		if (v != NULL && v->state != AU_NODE_ACTIVE)
			return stuck(s, v);
		wrong = n->up ? check_node_quiet(s, n) : NULL;
		if (wrong != NULL)
			return wrong;
	}
	return at_rest(&s->head) ? NULL : "slices still move";
}
