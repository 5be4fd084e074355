/* SPDX-License-Identifier: Apache-2.0 */
/*
 * simc_node.c: a node: its gossip, the view it knows, its slices; what it does
 * as the leader of consensus.  Clients that read.
 */
#include "sim/cluster/simc.h"

#include <stdlib.h>

#define READY_EVERY_US 200000
#define PROBE_EVERY_US 2000000
#define PROBE_AGAIN_US 300000

int
simc_index_of(const Simc *s, const AuView *v, uint32_t number)
{
	const AuViewNode *n = au_view_node(v, number);

	for (int i = 0; i < SIMC_NODES_MAX && n != NULL; i++)
		if (s->nodes[i].exists && s->nodes[i].node_id == n->node_id)
			return i;
	return -1;
}

static const AuViewNode *
self(const SimcNode *n)
{
	return au_view_node_by_id(&n->view, n->node_id);
}

/* ---- gossip ----------------------------------------------------------- */

static void
host_send(void *ctx, const char *address, uint64_t id, const AuMsgGossip *m)
{
	SimcNode   *n = ctx;
	SimcFlight	f = {.from = n->index,.to = atoi(address + 1),.id = id,.kind = SIMC_GOSSIP,.gossip = *m};

	simc_fly(n->sim, &f);
}

static void
host_answer(void *ctx, uint64_t token, const AuMsgGossip *m)
{
	SimcNode   *n = ctx;
	SimcFlight	f = {.from = n->index,.to = (int) (token >> 48),
		.id = token & ((UINT64_C(1) << 48) - 1),.kind = SIMC_GOSSIP_OK,.gossip = *m
	};

	simc_fly(n->sim, &f);
}

static void
host_marks(void *ctx, AuGossipMarks *m)
{
	m->view_epoch = ((SimcNode *) ctx)->view.epoch;
}

/* Somebody does not answer: whoever leads looks at once. */
static void
host_changed(void *ctx, const AuGossipMember *m, uint8_t was)
{
	SimcNode   *n = ctx;

	(void) was;
	simc_trace(n->sim, (uint64_t) n->index << 8 | m->r.state, m->r.node_id);
	for (int i = 0; i < SIMC_NODES_MAX && m->r.state != AU_GOSSIP_ALIVE; i++)
		if (n->sim->nodes[i].node_id == m->r.node_id && n->failures[i] == 0)
			n->probe_at[i] = 0;
}

static void
expect_view(SimcNode *n)
{
	AuGossipRecord nodes[AU_VIEW_NODES_MAX] = {0};

	for (int i = 0; i < n->view.nnodes; i++)
	{
		nodes[i].node_id = n->view.nodes[i].node_id;
		memcpy(nodes[i].address, n->view.nodes[i].address, AU_ADDRESS_MAX);
	}
	au_gossip_set_cluster(n->gossip, n->view.cluster_id);
	au_gossip_expect(n->gossip, nodes, n->view.nnodes, n->sim->now);
}

void
simc_node_arrive(SimcNode *n, const SimcFlight *f)
{
	Simc	   *s = n->sim;
	SimcFlight	back = {.from = n->index,.to = f->from,.id = f->id,.kind = SIMC_GOSSIP_OK};

	if (f->kind == SIMC_GOSSIP_OK)
		au_gossip_answer(n->gossip, f->id, &f->gossip, s->now);
	else if (au_gossip_request(n->gossip, (uint64_t) f->from << 48 | f->id, &f->gossip, &back.gossip,
							   s->now) == AU_GOSSIP_NOW)
		simc_fly(s, &back);
}

/* ---- slices ----------------------------------------------------------- */

static bool
list_has(const uint32_t *list, uint32_t n, uint32_t number)
{
	for (uint32_t i = 0; i < n; i++)
		if (list[i] == number)
			return true;
	return false;
}

/* A slice that the node keeps no longer is not followed: it gets old. */
static void
heed_view(SimcNode *n)
{
	const AuViewNode *me = self(n);

	n->member |= me != NULL;
	n->voter = me != NULL;
	if (!n->member)
		return;
	for (uint32_t i = 0; i < AU_SLICES; i++)
	{
		const AuSlice *sl = &n->view.slices[i];

		if (me != NULL && (list_has(sl->owner, sl->nowners, me->number) ||
						   list_has(sl->target, sl->ntarget, me->number)))
			continue;
		n->left[i] |= n->has[i];
		n->has[i] = false;
		n->copied_at[i] = 0;
		if (simc_one_in(n->sim, 8))
			n->left[i] = false; /* its files are gone */
	}
	if (me == NULL)
	{
		simc_say(n->sim, "node %d was removed", n->index);
		n->gone = true;
		n->up = false;
	}
}

/* What it tells others that it has. */
static bool
claims(const SimcNode *n, uint32_t i)
{
	return n->has[i] || n->sim->plant == SIMC_PLANT_READY_EARLY ||
		(n->left[i] && n->sim->plant == SIMC_PLANT_LEFTOVER);
}

static void
begin_copy(SimcNode *n, uint32_t i)
{
	Simc	   *s = n->sim;
	const AuSlice *sl = &n->view.slices[i];
	int			from = sl->nowners == 0 ? -1 :
		simc_index_of(s, &n->view, sl->owner[simc_below(s, sl->nowners)]);

	if (from < 0 || from == n->index)
		return;
	n->source[i] = from;
	n->copied_at[i] = s->now + 20000 + simc_below(s, 400000);
}

/* Does it say that it has the slice? */
static bool
serves(const SimcNode *n, uint32_t i)
{
	const AuViewNode *me = self(n);
	const AuSlice *sl = &n->view.slices[i];

	return me != NULL && (list_has(sl->owner, sl->nowners, me->number) ||
						  (n->sim->plant == SIMC_PLANT_SERVE_INCOMING &&
						   list_has(sl->target, sl->ntarget, me->number)));
}

static void
end_copy(SimcNode *n, uint32_t i)
{
	Simc	   *s = n->sim;
	const SimcNode *from = &s->nodes[n->source[i]];

	n->copied_at[i] = 0;
	if (!from->up || from->paused_until > s->now || !simc_reaches(s, n->index, from->index) ||
		!simc_reaches(s, from->index, n->index) || !serves(from, i))
		return;					/* again, from somebody */
	if (!from->has[i])
		simc_fail(s, "node %d gives slice %u, which it does not have, to node %d", from->index, i,
				  n->index);
	n->has[i] = true;
	n->left[i] = false;
	s->figures.copies++;
}

static void
copy_slices(SimcNode *n)
{
	Simc	   *s = n->sim;
	const AuViewNode *me = self(n);
	int			under_way = 0;

	for (uint32_t i = 0; i < AU_SLICES && me != NULL; i++)
	{
		const AuSlice *sl = &n->view.slices[i];

		if (claims(n, i) || !list_has(sl->target, sl->ntarget, me->number))
			continue;
		if (n->copied_at[i] == 0 && under_way < 16)
			begin_copy(n, i);
		under_way += n->copied_at[i] != 0;
		if (n->copied_at[i] != 0 && n->copied_at[i] <= s->now)
			end_copy(n, i);
	}
}

static void
tell_ready(SimcNode *n)
{
	Simc	   *s = n->sim;
	const AuViewNode *me = self(n);
	AuViewCommand c = {.type = AU_VIEW_SLICES_READY,.epoch = n->view.epoch};
	bool		any = false;

	if (me == NULL || s->now < n->ready_at)
		return;
	n->ready_at = s->now + READY_EVERY_US;
	c.number = me->number;
	for (uint32_t i = 0; i < AU_SLICES; i++)
	{
		const AuSlice *sl = &n->view.slices[i];

		for (uint32_t k = 0; k < sl->ntarget; k++)
			if (sl->target[k] == me->number && !(sl->ready >> k & 1) && claims(n, i))
			{
				au_slices_add(&c.slices, i);
				any = true;
			}
	}
	if (any)
		simc_propose(s, n->index, &c);
}

/* ---- as the leader ---------------------------------------------------- */

static void
look(SimcNode *n, int i)
{
	Simc	   *s = n->sim;
	const SimcNode *o = &s->nodes[i];
	const AuViewNode *v = au_view_node_by_id(&n->view, o->node_id);
	AuViewCommand c = {.type = AU_VIEW_UP};
	bool		there;

	if (v == NULL || s->now < n->probe_at[i])
		return;
	there = i == n->index || (o->up && o->paused_until <= s->now && simc_reaches(s, n->index, i) &&
							  simc_reaches(s, i, n->index));
	n->failures[i] = there ? 0 : n->failures[i] < 2 ? n->failures[i] + 1 : 2;
	n->probe_at[i] = s->now + (n->failures[i] == 1 ? PROBE_AGAIN_US : PROBE_EVERY_US);
	c.number = v->number;
	c.up = there;
	if (there && s->plant == SIMC_PLANT_GOSSIP_DECIDES)
		return;
	if (v->up != c.up && (there || n->failures[i] == 2))
		simc_propose(s, n->index, &c);
}

/* A node whose JOIN came after it was removed, and replaced: nobody is there. */
static void
look_for_ghosts(SimcNode *n)
{
	for (int i = 0; i < n->view.nnodes; i++)
	{
		const AuViewNode *v = &n->view.nodes[i];
		AuViewCommand c = {.type = AU_VIEW_UP,.number = v->number};

		if (v->up && simc_index_of(n->sim, &n->view, v->number) < 0 && simc_one_in(n->sim, 100))
			simc_propose(n->sim, n->index, &c);
	}
}

/* ---- life ------------------------------------------------------------- */

void
simc_node_make(Simc *s, int index)
{
	SimcNode   *n = &s->nodes[index];

	memset(n, 0, sizeof(*n));
	n->sim = s;
	n->index = index;
	n->exists = true;
	n->node_id = simc_random(s) | 1;
	snprintf(n->address, sizeof(n->address), "c%d", index);
	n->gossip = malloc(sizeof(*n->gossip));
	if (n->gossip == NULL)
		abort();
	simc_node_start(n);
}

void
simc_node_start(SimcNode *n)
{
	Simc	   *s = n->sim;
	AuGossipHost host = {n, host_send, host_answer, host_marks, host_changed};
	AuGossipOptions opt = {.node_id = n->node_id,.address = n->address,.start = s->now,
		.seed = simc_random(s)
	};

	au_gossip_init(n->gossip, &host, &opt, s->now);
	(void) au_gossip_seed(n->gossip, "c0");
	n->up = true;
	n->view = n->kept;
	n->applied = n->kept_applied;
	memset(n->copied_at, 0, sizeof(n->copied_at));
	memset(n->failures, 0, sizeof(n->failures));
	expect_view(n);
	simc_trace(s, 0x57a27, (uint64_t) n->index);
}

void
simc_node_crash(SimcNode *n)
{
	if (!n->up)
		return;
	n->up = false;
	n->start_at = n->sim->now + 100000 + simc_below(n->sim, 15000000);
	simc_say(n->sim, "node %d crashes", n->index);
}

static void
follow(SimcNode *n)
{
	Simc	   *s = n->sim;
	char		err[256];
	bool		changed;

	if (s->leader < 0 || !simc_reaches(s, s->leader, n->index) || !simc_reaches(s, n->index, s->leader))
		return;
	while (n->up && n->applied < s->ncommands && !simc_one_in(s, 3))
	{
		(void) au_view_apply(&n->view, &s->commands[n->applied++], &changed, err, sizeof(err));
		simc_check_applied(n);
		expect_view(n);
		/* before anything is done about it: what was thrown away because of a
		 * view must not be wanted again because of an older one */
		if (s->plant != SIMC_PLANT_STALE_VIEW || simc_one_in(s, 4))
		{
			n->kept = n->view;
			n->kept_applied = n->applied;
		}
		heed_view(n);
	}
}

void
simc_node_tick(SimcNode *n)
{
	Simc	   *s = n->sim;
	AuViewCommand join = {.type = AU_VIEW_JOIN};

	if (!n->up && !n->lost && !n->gone && s->now >= n->start_at)
		simc_node_start(n);
	if (!n->up || n->paused_until > s->now)
		return;
	(void) au_gossip_tick(n->gossip, s->now);
	follow(n);
	if (!n->up)
		return;					/* it was removed */
	if (!n->member && s->now >= n->join_at)
	{
		n->join_at = s->now + 1000000;
		join.node.node_id = n->node_id;
		join.node.weight = 100;
		snprintf(join.node.address, sizeof(join.node.address), "c%d", n->index);
		snprintf(join.node.meta_address, sizeof(join.node.meta_address), "m%d", n->index);
		snprintf(join.node.zone, sizeof(join.node.zone), "z%d",
				 s->zones ? n->index % 3 : 0);
		simc_propose(s, n->index, &join);
	}
	copy_slices(n);
	tell_ready(n);
	for (int i = 0; i < SIMC_NODES_MAX && s->leader == n->index; i++)
		if (s->nodes[i].exists)
			look(n, i);
	if (s->leader == n->index)
		look_for_ghosts(n);
}

/* A client with an old view asks somebody whom it takes for an owner. */
void
simc_read(Simc *s)
{
	const SimcNode *known = &s->nodes[simc_below(s, SIMC_NODES_MAX)];
	uint32_t	slice = (uint32_t) simc_below(s, AU_SLICES);
	const AuSlice *sl = &known->view.slices[slice];
	int			at;

	if (!known->exists || sl->nowners == 0)
		return;
	at = simc_index_of(s, &known->view, s->plant == SIMC_PLANT_SERVE_INCOMING && sl->ntarget > 0 ?
					   sl->target[simc_below(s, sl->ntarget)] : sl->owner[simc_below(s, sl->nowners)]);
	if (at < 0 || !s->nodes[at].up || s->nodes[at].paused_until > s->now || !serves(&s->nodes[at], slice))
		return;
	s->figures.reads++;
	if (!s->nodes[at].has[slice])
		simc_fail(s, "node %d answers for slice %u, which it does not have", at, slice);
}
