/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_group.c: the log group of the volume as a cluster's view names it, and
 * its changes: nodes are added, removed, replaced while all the other trouble
 * goes on.  Nodes that were removed lose their directories now and then, as
 * they may; writers learn of a change late, or go by an old view.
 *
 * A newcomer copies the volume and follows the log until a writer lets it in,
 * as the daemon does; both are played here by the simulator itself.
 *
 * The rule of the view (cluster/au_view.h) is kept here as well: one node at a
 * time, and not again before a writer was elected.
 */
#include "sim/sim.h"

#include <stdlib.h>

const AuGroup *
sim_group(const Sim *s, uint32_t epoch)
{
	return &s->groups.was[(epoch != 0 ? epoch : s->groups.epoch) - 1];
}

bool
sim_group_has(const AuGroup *g, const SimNode *n)
{
	return au_group_find(g, sim_node_id(n)) >= 0;
}

static void
add(AuGroup *g, const SimNode *n)
{
	AuMember   *m = &g->members[g->n++];

	memset(m, 0, sizeof(*m));
	m->node_id = sim_node_id(n);
	snprintf(m->address, sizeof(m->address), "n%d", n->index);
}

static void
drop(AuGroup *g, const SimNode *n)
{
	int			at = au_group_find(g, sim_node_id(n));

	g->members[at] = g->members[--g->n];
	memset(&g->members[g->n], 0, sizeof(g->members[0]));
}

void
sim_group_init(Sim *s, uint32_t nodes, uint8_t quorum)
{
	SimGroups  *v = &s->groups;

	v->epoch = v->checked = 1;
	v->leaving = -1;
	for (uint32_t i = 0; i < nodes; i++)
	{
		s->nodes[i].index = (int) i;
		add(&v->was[0], &s->nodes[i]);
	}
	v->was[0].write_quorum = quorum;
	if (!v->on)
		return;
	v->was[0].epoch = 1;
	s->nnodes = SIM_NODES_MAX;
	/* a node that does not come back must not keep a group from changing */
	s->swarm.damage = 0;
	s->swarm.regroup = 200 + sim_below(s, 2000);
	if (s->opt.plant == SIM_PLANT_OLD_EPOCH)
	{
		s->swarm.regroup = 100;
		s->swarm.crash_writer = 600;
	}
}

/* Some node that is in the group, or one that is not. */
static SimNode *
some(Sim *s, const AuGroup *g, bool member)
{
	uint32_t	first = (uint32_t) sim_below(s, s->nnodes);

	for (uint32_t i = 0; i < s->nnodes; i++)
	{
		SimNode    *n = &s->nodes[(first + i) % s->nnodes];

		if (sim_group_has(g, n) == member)
			return n;
	}
	return NULL;
}

/* A node that is in no group may have lost everything. */
static void
forget_some(Sim *s, const AuGroup *g)
{
	for (uint32_t i = 0; i < s->nnodes; i++)
		if (s->nodes[i].exists && !sim_group_has(g, &s->nodes[i]) && sim_one_in(s, 2))
			sim_node_wipe(&s->nodes[i]);
}

static void
change(Sim *s)
{
	SimGroups  *v = &s->groups;
	AuGroup		g = *sim_group(s, 0);
	SimNode    *out = v->leaving >= 0 ? &s->nodes[v->leaving] : NULL;
	SimNode    *in = NULL;

	if (v->epoch == SIM_GROUPS_MAX)
		return;
	if (s->opt.plant != SIM_PLANT_OLD_EPOCH)
		forget_some(s, &g);
	if (s->opt.plant == SIM_PLANT_TWO_AT_ONCE)
	{
		for (int i = 0; i < 2 && (in = some(s, &g, false)) != NULL; i++)
		{
			drop(&g, some(s, &g, true));
			add(&g, in);
		}
	}
	else if (out != NULL && sim_group_has(&g, out) && g.n > 1)
		drop(&g, out);
	else if (g.n > 2 && sim_one_in(s, 4))
		drop(&g, some(s, &g, true));
	else if ((in = some(s, &g, false)) != NULL && g.n < AU_GROUP_MAX)
		add(&g, in);
	v->leaving = in != NULL && sim_one_in(s, 2) ? some(s, sim_group(s, 0), true)->index : -1;
	g.write_quorum = (uint8_t) (g.n / 2 + 1 + (g.n > 2 && sim_one_in(s, 4)));
	g.epoch = ++v->epoch;
	v->was[g.epoch - 1] = g;
	v->settled = false;
	s->figures.regroups++;
	sim_trace(s, 0x67, g.n);
	sim_say(s, "log group %u: %u nodes, quorum %u", g.epoch, g.n, g.write_quorum);
	for (uint32_t i = 0; i < g.n; i++)
		sim_say(s, "    node %s", g.members[i].address);
}

void
sim_group_settled(Sim *s, uint32_t epoch)
{
	SimGroups  *v = &s->groups;

	if (epoch > v->checked)
		v->checked = epoch;
	if (epoch == v->epoch && !v->settled && sim_one_in(s, 100))
	{
		v->settled = true;
		sim_say(s, "log group %u is settled", epoch);
	}
}

void
sim_group_tick(Sim *s)
{
	SimGroups  *v = &s->groups;
	const AuGroup *g = sim_group(s, 0);

	/* Newcomers copy the volume; the first nodes are given it by the writer. */
	if (v->epoch > 1 && sim_one_in(s, 100))
		for (uint32_t i = 0; i < s->nnodes; i++)
			if (sim_group_has(g, &s->nodes[i]) && !s->nodes[i].exists)
				(void) sim_node_adopt(&s->nodes[i], some(s, sim_group(s, v->epoch - 1), true), g);
	for (uint32_t i = 0; i < s->nnodes; i++)
		if (v->epoch > 1 && sim_one_in(s, 50))
			sim_node_follow(&s->nodes[i]);
	if (v->settled && !s->quiet && sim_one_in(s, s->swarm.regroup))
		change(s);
}
