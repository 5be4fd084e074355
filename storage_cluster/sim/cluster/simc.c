/* SPDX-License-Identifier: Apache-2.0 */
/*
 * simc.c: one run: what a seed makes of it, messages, the model of consensus,
 * faults, the administrator.
 */
#include "sim/cluster/simc.h"

#include <stdarg.h>
#include <stdlib.h>

#include "core/au_plant.h"
#include "sim/sim_random.h"

#define FAULTS_US 40000000
#define QUIET_US 180000000
#define READS_A_TICK 4

AuPlant		au_planted;

const char *const simc_plant_names[SIMC_PLANTS] = {
	"none", "ready-early", "stale-ready", "leftover", "serve-incoming", "stale-view",
	"no-objection", "gossip-decides"
};

uint64_t
simc_random(Simc *s)
{
	return sim_random_next(s->rng);
}

void
simc_trace(Simc *s, uint64_t a, uint64_t b)
{
	s->trace = au_mix64(s->trace ^ s->now ^ (a << 32)) + b;
}

void
simc_fail(Simc *s, const char *fmt,...)
{
	va_list		args;

	if (s->broken)
		return;
	s->broken = true;
	va_start(args, fmt);
	vsnprintf(s->verdict, sizeof(s->verdict), fmt, args);
	va_end(args);
}

void
simc_say(Simc *s, const char *fmt,...)
{
	va_list		args;

	if (!s->verbose)
		return;
	printf("%10.3f  ", (double) s->now / 1e6);
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	printf("\n");
}

/* ---- messages --------------------------------------------------------- */

bool
simc_reaches(const Simc *s, int a, int b)
{
	return a == b || s->cut_until[a][b] <= s->now;
}

void
simc_fly(Simc *s, SimcFlight *f)
{
	SimcFlight **at = &s->flights;
	SimcFlight *copy;

	if (simc_below(s, 1000) < s->loss)
		return;
	copy = malloc(sizeof(*copy));
	if (copy == NULL)
		abort();
	*copy = *f;
	copy->due = s->now + 1 + simc_below(s, s->delay_us * 2);
	/* commands may be very late */
	if (f->kind == SIMC_COMMAND && !s->quiet && simc_one_in(s, 20))
		copy->due += simc_below(s, 20000000);
	while (*at != NULL && (*at)->due <= copy->due)
		at = &(*at)->next;
	copy->next = *at;
	*at = copy;
}

void
simc_propose(Simc *s, int from, const AuViewCommand *c)
{
	SimcFlight	f = {.from = from,.to = -1,.kind = SIMC_COMMAND,.command = *c};

	simc_fly(s, &f);
	if (!s->quiet && simc_one_in(s, 20))
		simc_fly(s, &f);
}

/* ---- consensus -------------------------------------------------------- */

static void
commit(Simc *s, const AuViewCommand *c)
{
	static AuView before;
	char		err[256];
	bool		changed;
	AuStatus	status;

	if (s->ncommands == SIMC_COMMANDS_MAX)
	{
		simc_fail(s, "commands without end");
		return;
	}
	before = s->head;
	status = au_view_apply(&s->head, c, &changed, err, sizeof(err));
	s->commands[s->ncommands++] = *c;
	if (status == AU_CORRUPT)
		simc_fail(s, "%s", err);
	s->hash[s->ncommands] = simc_hash(&s->head);
	s->figures.commands++;
	s->figures.changes += changed;
	s->figures.refused += status != AU_OK;
	s->figures.joins += changed && c->type == AU_VIEW_JOIN && s->head.nnodes > before.nnodes;
	s->figures.removals += changed && c->type == AU_VIEW_REMOVE;
	simc_trace(s, c->type, s->hash[s->ncommands]);
	if (c->type != AU_VIEW_SLICES_READY)
		simc_say(s, "command %u about node %u: %s%s, epoch %llu", c->type, c->number,
				 status == AU_OK ? "taken" : err, changed ? "" : ", no change",
				 (unsigned long long) s->head.epoch);
	simc_check_head(s, &before, c, changed);
}

/* As in libraft, a node that is in the view votes when it has caught up once:
 * one that stopped, and whose JOIN comes late, does not count. */
static bool
votes(const Simc *s, int i)
{
	const SimcNode *n = &s->nodes[i];

	return n->exists && n->voter && au_view_node_by_id(&s->head, n->node_id) != NULL;
}

static int
voters(const Simc *s)
{
	int			count = 0;

	for (int i = 0; i < SIMC_NODES_MAX; i++)
		count += votes(s, i);
	return count;
}

/* Can it lead: is it there, and can it talk to most? */
static bool
can_lead(const Simc *s, int i)
{
	const SimcNode *n = &s->nodes[i];
	int			with = 0;

	if (!n->exists || !n->up || n->paused_until > s->now)
		return false;
	if (voters(s) == 0)
		return i == 0;
	for (int k = 0; k < SIMC_NODES_MAX; k++)
	{
		const SimcNode *o = &s->nodes[k];

		with += votes(s, k) && o->up && o->paused_until <= s->now &&
			simc_reaches(s, i, k) && simc_reaches(s, k, i);
	}
	return votes(s, i) && with * 2 > voters(s);
}

static void
tick_leader(Simc *s)
{
	int			from = (int) simc_below(s, SIMC_NODES_MAX);

	if (s->leader >= 0 && can_lead(s, s->leader))
		return;
	if (s->leader >= 0)
	{
		simc_say(s, "node %d leads no longer", s->leader);
		s->leader = -1;
		s->elect_at = s->now + 200000 + simc_below(s, 1500000);
	}
	for (int i = 0; i < SIMC_NODES_MAX && s->leader < 0 && s->now >= s->elect_at; i++)
		if (can_lead(s, (from + i) % SIMC_NODES_MAX))
		{
			s->leader = (from + i) % SIMC_NODES_MAX;
			simc_say(s, "node %d leads", s->leader);
		}
}

static void
deliver(Simc *s)
{
	SimcFlight *late = NULL;

	while (s->flights != NULL && s->flights->due <= s->now)
	{
		SimcFlight *f = s->flights;
		int			to = f->kind == SIMC_COMMAND ? s->leader : f->to;
		bool		there = to >= 0 && s->nodes[to].exists && s->nodes[to].up &&
			(f->from < 0 || simc_reaches(s, f->from, to));

		s->flights = f->next;
		if (there && s->nodes[to].paused_until > s->now)
		{
			f->next = late;
			late = f;
			continue;
		}
		if (there && f->kind == SIMC_COMMAND)
			commit(s, &f->command);
		else if (there)
			simc_node_arrive(&s->nodes[to], f);
		free(f);
	}
	while (late != NULL)
	{
		SimcFlight *f = late;

		late = f->next;
		f->next = s->flights;
		s->flights = f;
	}
}

/* ---- faults ----------------------------------------------------------- */

static SimcNode *
some_node(Simc *s)
{
	SimcNode   *n = &s->nodes[simc_below(s, SIMC_NODES_MAX)];

	return n->exists && n->up ? n : NULL;
}

static void
cut(Simc *s)
{
	uint64_t	until = s->now + 100000 + simc_below(s, 15000000);
	uint64_t	side = simc_random(s);
	bool		one_way = simc_one_in(s, 3);
	bool		one_link = simc_one_in(s, 3);
	uint64_t	a = simc_below(s, SIMC_NODES_MAX);
	uint64_t	b = simc_below(s, SIMC_NODES_MAX);

	for (uint64_t i = 0; i < SIMC_NODES_MAX; i++)
		for (uint64_t k = 0; k < SIMC_NODES_MAX; k++)
			if (one_link ? (i == a && k == b) || (!one_way && i == b && k == a) :
				((side >> i ^ side >> k) & 1) && ((side >> i & 1) || !one_way))
				s->cut_until[i][k] = until;
	simc_say(s, "%s cut%s", one_link ? "a link is" : "groups are", one_way ? " one way" : "");
	s->figures.faults++;
}

/* Its disk is gone for ever, if others have all it has, and enough are left. */
static void
lose(Simc *s, SimcNode *n)
{
	const AuViewNode *v = au_view_node_by_id(&s->head, n->node_id);
	int			lost = 1;
	int			stay = 0;

	if (v == NULL || n->lost)
		return;
	for (int i = 0; i < SIMC_NODES_MAX; i++)
	{
		const AuViewNode *o = au_view_node_by_id(&s->head, s->nodes[i].node_id);

		lost += s->nodes[i].lost && o != NULL;
		/* who drains goes, perhaps before anybody knows that this one is lost */
		stay += votes(s, i) && o->state != AU_NODE_DRAINING;
	}
	if (lost * 2 >= stay || lost >= s->head.rf)
		return;
	for (uint32_t i = 0; i < AU_SLICES; i++)
	{
		const AuSlice *sl = &s->head.slices[i];
		int			others = 0;

		for (uint32_t k = 0; k < sl->nowners; k++)
		{
			int			index = simc_index_of(s, &s->head, sl->owner[k]);

			others += index != n->index && !s->nodes[index].lost && s->nodes[index].has[i];
		}
		if (others == 0)
			return;
	}
	simc_node_crash(n);
	n->lost = true;
	s->figures.losses++;
	s->figures.faults++;
	simc_say(s, "node %d is lost for ever", n->index);
}

static void
inject(Simc *s)
{
	SimcNode   *n;

	if (simc_one_in(s, s->crash) && (n = some_node(s)) != NULL)
	{
		simc_node_crash(n);
		s->figures.faults++;
	}
	if (simc_one_in(s, s->pause) && (n = some_node(s)) != NULL)
	{
		n->paused_until = s->now + 100000 + simc_below(s, 15000000);
		simc_say(s, "node %d stands still until %.3f", n->index, (double) n->paused_until / 1e6);
		s->figures.faults++;
	}
	if (simc_one_in(s, s->partition))
		cut(s);
	if (simc_one_in(s, s->lose) && (n = some_node(s)) != NULL)
		lose(s, n);
}

/* ---- the administrator ------------------------------------------------ */

static void
add_node(Simc *s)
{
	for (int i = 0; i < SIMC_NODES_MAX; i++)
	{
		SimcNode   *n = &s->nodes[i];

		if (n->exists && !n->gone &&
			!(n->lost && au_view_node_by_id(&s->head, n->node_id) == NULL))
			continue;
		free(n->gossip);
		simc_node_make(s, i);
		simc_say(s, "node %d is new", i);
		return;
	}
}

/* Somebody is lost, and the cluster is about to find out. */
static bool
loss_unknown(const Simc *s)
{
	for (int i = 0; i < SIMC_NODES_MAX; i++)
	{
		const AuViewNode *v = au_view_node_by_id(&s->head, s->nodes[i].node_id);

		if (s->nodes[i].exists && s->nodes[i].lost && v != NULL && v->up)
			return true;
	}
	return false;
}

/* Those that were drained, or are lost and called so, can go.  (One lost and one
 * removed in the same moment can be half of all: no consensus survives that.) */
static void
clean_up(Simc *s)
{
	if (loss_unknown(s))
		return;
	for (int i = 0; i < s->head.nnodes; i++)
	{
		const AuViewNode *v = &s->head.nodes[i];
		AuViewCommand c = {.type = AU_VIEW_REMOVE,.number = v->number};
		int			index = simc_index_of(s, &s->head, v->number);

		/* by force: also one whose JOIN came late, after it was removed */
		c.up = index < 0 || s->nodes[index].lost || s->nodes[index].gone;
		if (v->state == AU_NODE_DRAINING || c.up)
			simc_propose(s, -1, &c);
	}
}

static void
administer(Simc *s)
{
	AuViewCommand c = {0};

	if (s->head.nnodes == 0)
		return;
	c.number = s->head.nodes[simc_below(s, s->head.nnodes)].number;
	switch (simc_below(s, 6))
	{
		case 0:
		case 1:
			add_node(s);
			break;
		case 2:
			c.type = AU_VIEW_DRAIN;
			if (s->head.nnodes > s->head.rf)
				simc_propose(s, -1, &c);
			break;
		case 3:
			c.type = AU_VIEW_WEIGHT;
			c.node.weight = (uint16_t) (50 + simc_below(s, 150));
			simc_propose(s, -1, &c);
			break;
		default:
			clean_up(s);
			break;
	}
}

/* ---- a run ------------------------------------------------------------ */

static uint64_t
rate(Simc *s, uint64_t rare, uint64_t often)
{
	return simc_one_in(s, 2) ? 0 : often + simc_below(s, rare - often);
}

static void
begin(Simc *s)
{
	AuViewCommand init = {.type = AU_VIEW_INIT};
	uint64_t	nodes;

	sim_random_seed(s->rng, s->seed);
	s->now = 1000000;
	s->leader = -1;
	s->loss = simc_one_in(s, 2) ? 0 : simc_below(s, 100);
	s->zones = simc_one_in(s, 3);
	s->delay_us = 500 + simc_below(s, 20000);
	s->crash = rate(s, 2000, 100);
	s->pause = rate(s, 2000, 100);
	s->partition = rate(s, 2000, 100);
	s->admin = 30 + simc_below(s, 500);
	s->lose = rate(s, 3000, 500);
	init.cluster_id = simc_random(s) | 1;
	init.rf = (uint8_t) (1 + simc_below(s, 3));
	if (s->plant != SIMC_PLANT_NONE)
	{
		/* where such bugs show */
		init.rf = 2;
		s->crash = 300;
		s->pause = 300;
		s->admin = 40;
	}
	au_planted = s->plant == SIMC_PLANT_STALE_READY ? AU_PLANT_STALE_READY :
		s->plant == SIMC_PLANT_NO_OBJECTION ? AU_PLANT_NO_OBJECTION : AU_PLANT_NONE;
	s->hash[0] = simc_hash(&s->head);
	commit(s, &init);
	nodes = 1 + simc_below(s, 6);
	for (uint64_t i = 0; i < nodes; i++)
		add_node(s);
	simc_say(s, "seed %llu: %llu nodes, %u replicas", (unsigned long long) s->seed,
			 (unsigned long long) nodes, init.rf);
}

static void
tick(Simc *s)
{
	s->now += SIMC_TICK_US;
	s->figures.ticks++;
	if (!s->quiet)
	{
		inject(s);
		if (simc_one_in(s, s->admin))
			administer(s);
	}
	else if (s->figures.ticks % 100 == 0)
		clean_up(s);
	deliver(s);
	tick_leader(s);
	for (int i = 0; i < SIMC_NODES_MAX; i++)
		if (s->nodes[i].exists)
			simc_node_tick(&s->nodes[i]);
	for (int i = 0; i < READS_A_TICK; i++)
		simc_read(s);
}

static void
calm(Simc *s)
{
	s->quiet = true;
	s->loss = 0;
	memset(s->cut_until, 0, sizeof(s->cut_until));
	simc_say(s, "quiet");
	for (int i = 0; i < SIMC_NODES_MAX; i++)
	{
		s->nodes[i].paused_until = 0;
		s->nodes[i].start_at = s->now;
	}
}

bool
simc_run(Simc *s, uint64_t seed, SimcPlant plant, bool verbose)
{
	const char *missing = "nothing was tried";
	uint64_t	end;

	memset(s, 0, sizeof(*s));
	s->seed = seed;
	s->plant = plant;
	s->verbose = verbose;
	begin(s);
	end = s->now + FAULTS_US;
	while (s->now < end && !s->broken)
		tick(s);
	calm(s);
	end = s->now + QUIET_US;
	while (s->now < end && !s->broken && missing != NULL)
	{
		for (int i = 0; i < 50 && !s->broken; i++)
			tick(s);
		missing = simc_check_quiet(s);
	}
	if (!s->broken && missing != NULL)
		simc_fail(s, "%d s after the last fault: %s", QUIET_US / 1000000, missing);
	return !s->broken;
}

void
simc_free(Simc *s)
{
	while (s->flights != NULL)
	{
		SimcFlight *f = s->flights;

		s->flights = f->next;
		free(f);
	}
	for (int i = 0; i < SIMC_NODES_MAX; i++)
		free(s->nodes[i].gossip);
}
