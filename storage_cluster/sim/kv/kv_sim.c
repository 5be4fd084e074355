/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kv_sim.c: a run: faults, then quiet, then the checks; and the command.
 *
 *   au_simulate_kv [--seeds N] [--from SEED] [--plant NAME]
 *   au_simulate_kv --seed SEED [--plant NAME] [-v]
 *
 * Without --from it begins at a seed nobody has seen.  Each hundredth seed runs
 * twice: the trace must be the same.  With --plant the bug must be found.
 */
#include "sim/kv/kv_sim.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>

#define FAULTS_US 8000000
#define SETTLE_US 6000000		/* hints are delivered, slices fetched, ... */
#define READ_US 12000000		/* the final reads are answered */
#define END_US 20000000			/* what they repaired has settled, too */

AuPlant		au_planted;

static const struct
{
	const char *name;
	AuPlant		plant;
}			plants[] = {
	{"kv-early", AU_PLANT_KV_EARLY}, {"kv-quorum", AU_PLANT_KV_QUORUM},
	{"kv-compare", AU_PLANT_KV_COMPARE}, {"kv-purge", AU_PLANT_KV_PURGE}
};

#define NPLANTS (sizeof(plants) / sizeof(plants[0]))

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

/* ---- the command ------------------------------------------------------ */

static Sim	sim;

static void
add(SimFigures *sum, const SimFigures *f)
{
	uint64_t   *a = (uint64_t *) sum;
	const uint64_t *b = (const uint64_t *) f;

	for (size_t i = 0; i < sizeof(*f) / sizeof(*b); i++)
		a[i] += b[i];
}

static bool
run_seed(SimOptions *opt, SimFigures *sum, bool twice)
{
	bool		ok = sim_run(&sim, opt);
	uint64_t	trace = sim.trace;

	add(sum, &sim.figures);
	if (ok && twice && (!sim_run(&sim, opt) || sim.trace != trace))
	{
		ok = false;
		snprintf(sim.verdict, sizeof(sim.verdict), "a second run gave another trace");
	}
	if (!ok && (opt->plant == AU_PLANT_NONE || opt->verbose))
		printf("kv seed %" PRIu64 " FAILED: %s\n", opt->seed, sim.verdict);
	return ok;
}

static AuPlant
plant_of(const char *name)
{
	for (size_t i = 0; i < NPLANTS; i++)
		if (strcmp(name, plants[i].name) == 0)
			return plants[i].plant;
	fprintf(stderr, "no bug \"%s\" can be planted\n", name);
	exit(2);
}

static double
seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}

int
main(int argc, char **argv)
{
	SimOptions	opt = {0};
	SimFigures	f = {0};
	const char *plant = NULL;
	uint64_t	seeds = 200;
	uint64_t	from = (uint64_t) time(NULL) * 1000;
	uint64_t	failed = 0,
				done = 0;
	double		start = seconds();

	for (int i = 1; i < argc; i++)
	{
		const char *value = i + 1 < argc ? argv[i + 1] : "";

		if (strcmp(argv[i], "-v") == 0)
		{
			opt.verbose = true;
			continue;
		}
		i++;
		if (strcmp(argv[i - 1], "--seeds") == 0)
			seeds = strtoull(value, NULL, 10);
		else if (strcmp(argv[i - 1], "--from") == 0)
			from = strtoull(value, NULL, 10);
		else if (strcmp(argv[i - 1], "--seed") == 0)
		{
			from = strtoull(value, NULL, 10);
			seeds = 1;
		}
		else if (strcmp(argv[i - 1], "--plant") == 0)
			opt.plant = plant_of(plant = value);
		else
		{
			fprintf(stderr, "au_simulate_kv: see the head of sim/kv/kv_sim.c\n");
			return 2;
		}
	}
	for (; done < seeds && (plant == NULL || failed == 0); done++)
	{
		opt.seed = from + done;
		failed += !run_seed(&opt, &f, done % 100 == 0);
	}
	if (plant != NULL)
	{
		printf("kv planted bug %s: %s after %" PRIu64 " seed(s)\n", plant,
			   failed > 0 ? "found" : "NOT FOUND", done);
		return failed > 0 ? 0 : 1;
	}
	printf("key-value simulator: %" PRIu64 " seeds from %" PRIu64 ", %" PRIu64 " failed, %.1f seeds/s: "
		   "%" PRIu64 " writes, %" PRIu64 " acknowledged; %" PRIu64 " of %" PRIu64 " reads answered, %"
		   PRIu64 " with siblings; %" PRIu64 " crashes, %" PRIu64 " partitions, %" PRIu64 " views, %"
		   PRIu64 " records damaged, %" PRIu64 " batches failed; %" PRIu64 " repairs, %" PRIu64 " hints, %" PRIu64
		   " delivered later, %" PRIu64 " fetched, %" PRIu64 " tombstones collected\n",
		   done, from, failed, (double) done / (seconds() - start), f.puts, f.acked, f.read, f.gets,
		   f.conflicts, f.crashes, f.partitions, f.views, f.damaged, f.failed_writes, f.repairs, f.hints, f.delivered,
		   f.fetched, f.collected);
	return failed > 0 ? 1 : 0;
}
