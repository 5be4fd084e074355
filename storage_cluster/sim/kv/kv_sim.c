/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kv_sim.c: a run: faults, then quiet, then the checks.
 */
#include "sim/kv/kv_sim.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>

#define FAULTS_US 8000000
#define SETTLE_US 6000000		/* hints are delivered, slices fetched, ... */
#define READ_US 12000000		/* the final reads are answered */
#define END_US 20000000			/* what they repaired has settled, too */

AuPlant		au_planted;

uint64_t
sim_random(Sim *s)
{
	s->random += UINT64_C(0x9e3779b97f4a7c15);
	return au_mix64(s->random);
}

void
sim_trace(Sim *s, uint64_t what, uint64_t value)
{
	s->trace = au_mix64(s->trace ^ au_mix64(what) ^ (value + s->now * 31));
}

void
sim_fail(Sim *s, const char *fmt,...)
{
	va_list		args;

	if (s->failed)
		return;
	s->failed = true;
	va_start(args, fmt);
	vsnprintf(s->verdict, sizeof(s->verdict), fmt, args);
	va_end(args);
}

/* ---- faults ----------------------------------------------------------- */

static bool
apply(Sim *s, AuViewCommand *c)
{
	bool		changed = false;
	char		err[256];

	if (au_view_apply(&s->view, c, &changed, err, sizeof(err)) != AU_OK)
		return false;
	s->figures.views += changed;
	return true;
}

static void
join(Sim *s, uint32_t i)
{
	AuViewCommand c = {.type = AU_VIEW_JOIN};

	c.node.node_id = 100 + i;
	snprintf(c.node.address, sizeof(c.node.address), "n%u:1", i);
	snprintf(c.node.meta_address, sizeof(c.node.meta_address), "n%u:2", i);
	c.node.weight = 100;
	if (apply(s, &c))
		s->nodes[i].number = au_view_node_by_id(&s->view, 100 + i)->number;
	if (!s->nodes[i].up)
		sim_node_start(s, i);
}

/* A node joins, leaves, or has left. */
static void
change_members(Sim *s)
{
	uint32_t	i = (uint32_t) sim_below(s, SIM_NODES);
	SimNode    *n = &s->nodes[i];
	AuViewCommand c = {.type = AU_VIEW_DRAIN,.number = n->number};
	uint32_t	keepers = 0;

	if (n->gone)
		return;
	for (uint32_t k = 0; k < s->view.nnodes; k++)
		keepers += s->view.nodes[k].state != AU_NODE_DRAINING;
	if (n->number == 0)
		join(s, i);
	else if (keepers > 3)
		(void) apply(s, &c);
	/* it has nothing, and nobody is to get anything from it */
	c.type = AU_VIEW_REMOVE;
	if (n->number != 0 && n->up && n->epoch == s->view.epoch && s->view.nnodes > 3)
	{
		for (uint32_t k = 0; k < n->nmap; k++)
			if (n->map[k].key[0] == 'r' || n->map[k].key[0] == 'o')
				return;
		if (au_view_node(&s->view, n->number)->state != AU_NODE_DRAINING || !apply(s, &c))
			return;
		sim_node_stop(s, i);
		n->gone = true;
	}
}

/* One byte of a record that all other owners have alike. */
static void
damage(Sim *s)
{
	uint32_t	key = (uint32_t) sim_below(s, SIM_KEYS);
	const AuSlice *sl = &s->view.slices[au_kv_slice(sim_key(key), strlen(sim_key(key)))];
	const SimEntry *e[AU_RF_MAX];
	uint32_t	n = 0;

	if (sl->ntarget != 0 || sl->nowners < 3)
		return;
	for (uint32_t k = 0; k < sl->nowners; k++)
		for (uint32_t i = 0; i < SIM_NODES; i++)
			if (s->nodes[i].number == sl->owner[k] && (e[n] = sim_record(&s->nodes[i], key)) != NULL)
				n++;
	if (n != sl->nowners)
		return;
	for (uint32_t k = 1; k < n; k++)
		if (e[k]->len != e[0]->len || memcmp(e[k]->value, e[0]->value, e[0]->len) != 0)
			return;
	n = (uint32_t) sim_below(s, n);
	e[n]->value[sim_below(s, e[n]->len)] ^= (uint8_t) (1 << sim_below(s, 8));
	s->figures.damaged++;
}

static void
partition(Sim *s)
{
	uint32_t	a = (uint32_t) sim_below(s, SIM_NODES);
	bool		noticed = sim_one_in(s, 2);
	bool		one_way = sim_one_in(s, 3);

	s->figures.partitions++;
	for (uint32_t b = 0; b < SIM_NODES; b++)
	{
		if (b == a || !sim_one_in(s, 2))
			continue;
		s->nodes[a].cut[b] = true;
		s->nodes[b].cut[a] = !one_way;
		if (noticed)
		{
			sim_link(s, a, b, false);
			sim_link(s, b, a, false);
		}
	}
}

static void
heal(Sim *s)
{
	for (uint32_t a = 0; a < SIM_NODES; a++)
		memset(s->nodes[a].cut, 0, sizeof(s->nodes[a].cut));
}

static void
faults(Sim *s)
{
	for (uint32_t i = 0; i < SIM_NODES; i++)
	{
		SimNode    *n = &s->nodes[i];

		if (n->up && sim_one_in(s, 4000))
		{
			s->figures.crashes++;
			sim_node_stop(s, i);
			n->start_at = s->now + sim_below(s, 1500000);
		}
	}
	if (sim_one_in(s, 2000))
		partition(s);
	if (sim_one_in(s, 1000))
		heal(s);
	if (sim_one_in(s, 900))
		change_members(s);
	if (sim_one_in(s, 1500))
		damage(s);
}

/* ---- a run ------------------------------------------------------------ */

static void
begin_quiet(Sim *s)
{
	s->quiet = true;
	heal(s);
}

static void
begin_final_reads(Sim *s)
{
	s->replicas = s->view.slices[0].nowners;
	for (uint32_t c = 0; c < SIM_CLIENTS; c++)
	{
		s->clients[c].final = true;
		s->clients[c].busy = false;
		s->clients[c].type = AU_MSG_KV_GET;
		s->clients[c].key = c;
		s->clients[c].next_at = s->now + c * 1000;
	}
}

static void
step(Sim *s, uint64_t started)
{
	uint64_t	since = s->now - started;

	sim_deliver(s);
	for (uint32_t i = 0; i < SIM_NODES; i++)
	{
		SimNode    *n = &s->nodes[i];

		if (!n->up && n->number != 0 && !n->gone && (s->quiet || s->now >= n->start_at))
			sim_node_start(s, i);
		sim_node_step(s, i);
	}
	if (!s->quiet)
		faults(s);
	/* each client reads two keys at the end, so all are read */
	for (uint32_t c = 0; c < SIM_CLIENTS; c++)
		if (since < FAULTS_US || (since >= FAULTS_US + SETTLE_US && since < FAULTS_US + READ_US))
		{
			if (s->clients[c].final && !s->clients[c].busy)
				s->clients[c].key = (s->clients[c].key + 1) % SIM_KEYS;
			sim_client_step(s, c);
		}
}

static void
add_figures(Sim *s)
{
	for (uint32_t i = 0; i < SIM_NODES; i++)
		if (s->nodes[i].kv != NULL)
		{
			AuKvStats	st;

			au_kv_stats(s->nodes[i].kv, &st);
			s->figures.repairs += st.repairs;
			s->figures.hints += st.hints;
			s->figures.delivered += st.delivered;
			s->figures.fetched += st.fetched;
			s->figures.collected += st.collected;
		}
}

static void
sim_free(Sim *s)
{
	for (uint32_t i = 0; i < SIM_NODES; i++)
		sim_node_free(s, i);
	while (s->messages != NULL)
	{
		SimMessage *next = s->messages->next;

		free(s->messages->bytes);
		free(s->messages);
		s->messages = next;
	}
	free(s->writes);
}

bool
sim_run(Sim *s, const SimOptions *opt)
{
	AuViewCommand init = {.type = AU_VIEW_INIT,.cluster_id = 77,.rf = 3};
	uint64_t	started = 1000000;

	memset(s, 0, sizeof(*s));
	s->opt = *opt;
	s->random = opt->seed * 77 + 5;
	s->now = started;
	s->replicas = 3;
	s->loss = sim_one_in(s, 3) ? 0 : 20 + (uint32_t) sim_below(s, 300);
	s->writes = calloc(SIM_WRITES_MAX, sizeof(SimWrite));
	au_planted = opt->plant;
	sim_fill_host(s);
	(void) apply(s, &init);
	for (uint32_t i = 0; i < 3; i++)
		join(s, i);
	while (s->now - started < FAULTS_US + END_US && !s->failed)
	{
		uint64_t	since = s->now - started;

		if (since == FAULTS_US)
			begin_quiet(s);
		if (since == FAULTS_US + SETTLE_US)
			begin_final_reads(s);
		step(s, started);
		s->now += SIM_STEP_US;
	}
	if (!s->failed)
		sim_check_end(s);
	add_figures(s);
	sim_free(s);
	return !s->failed;
}
