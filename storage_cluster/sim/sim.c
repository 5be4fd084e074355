/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim.c: one run: what a seed makes of it, the order within a tick, the
 * faults.
 */
#include "sim/sim.h"

#include <stdarg.h>
#include <stdlib.h>

#include "core/au_plant.h"
#include "sim/sim_random.h"

AuPlant		au_planted;

const char *const sim_plant_names[SIM_PLANTS] = {
	"none", "ack-before-persist", "quorum", "stale-term", "forgotten-vote", "no-cut",
	"resurrect", "apply-early", "no-sync", "no-crc", "old-epoch", "two-at-once",
	"no-objection", "gossip-stale", "mend-old", "mend-blind", "behind-counts", "lost-votes",
	"ready-early", "whole-early", "gives-part", "trim-early"
};

uint64_t
sim_random(Sim *s)
{
	return sim_random_next(s->rng);
}

void
sim_trace(Sim *s, uint64_t a, uint64_t b)
{
	s->trace = (s->trace ^ s->now ^ (a << 32) ^ b) * 0x100000001b3;
	s->trace ^= s->trace >> 29;
}

void
sim_fail(Sim *s, const char *fmt,...)
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
sim_say(Sim *s, const char *fmt,...)
{
	va_list		args;

	if (!s->opt.verbose)
		return;
	printf("%10.4f  ", (double) s->now / 1e6);
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	printf("\n");
}

/* ---- what a seed decides ---------------------------------------------- */

/* A kind of trouble is there in half of the runs, rare to frequent. */
static uint64_t
rate(Sim *s, uint64_t rare, uint64_t often)
{
	if (sim_one_in(s, 2))
		return 0;
	return often + sim_below(s, rare - often);
}

/*
 * Nodes of a cluster, with slices.  Of versions that are spoiled a good copy must
 * be left, see sim_repair.c: so if nodes are away besides until their log is gone, one
 * is in trouble, or behind, or made anew at a time, and the server rests while two are.
 * Otherwise all owners of a slice may be away at once.
 */
static void
choose_cluster(Sim *s)
{
	bool		planted = s->opt.plant != SIM_PLANT_NONE;

	s->nnodes = 4 + (uint32_t) sim_below(s, 3);
	s->quorum = 2;
	s->views.rf = (uint8_t) (planted ? 2 : 2 + sim_below(s, 2));
	s->views.admin = 200 + sim_below(s, planted ? 400 : 3000);
	s->views.lag = 20 + sim_below(s, 800);
	s->behind = s->opt.plant == SIM_PLANT_WHOLE_EARLY || sim_one_in(s, 2);
	if (s->opt.plant == SIM_PLANT_GIVES_PART)
		s->behind = false;		/* where it shows: nodes mend, and slices move */
	s->repair = (s->views.rf > 2 || !s->behind) && (planted || !sim_one_in(s, 4));
	if (s->opt.plant == SIM_PLANT_TRIM_EARLY)
	{
		s->behind = true;
		s->repair = false;
	}
	s->views.careful = s->behind && s->repair;
	s->swarm.damage = 0;
	s->swarm.records = 1 + sim_below(s, 2);
	s->swarm.idle = 3;
	s->swarm.persist_bytes = (16u << 10) + sim_below(s, 64u << 10);
	if (s->repair)
		s->swarm.spoil = 300 + sim_below(s, planted ? 300 : 2000);
	if (s->behind)
	{
		s->views.admin *= 3;
		s->swarm.away = 500 + sim_below(s, 2000);
		s->swarm.keep_bytes = (s->views.careful ? 400u << 10 : 32u << 10) + sim_below(s, 200u << 10);
		s->swarm.records = 1;
		s->swarm.sync_error = 0;	/* stops anybody */
	}
	sim_view_init(s);
}

static void
choose_swarm(Sim *s)
{
	static const uint8_t sizes[][2] = {{3, 2}, {3, 2}, {3, 2}, {5, 3}, {5, 4}, {1, 1}, {4, 3}, {2, 2}};
	uint32_t	kind = (uint32_t) sim_below(s, 8);

	if (s->opt.plant != SIM_PLANT_NONE)
		kind = kind % 3 == 2 ? 3 : 0;	/* three or five nodes */
	s->views.on = s->opt.plant >= SIM_PLANT_READY_EARLY ||
		(s->opt.plant == SIM_PLANT_NONE && s->opt.groups <= 0 && s->opt.repair <= 0 && s->opt.behind <= 0 &&
		 (s->opt.slices > 0 ||
		  (s->opt.slices == 0 && (s->opt.seed * UINT64_C(0x94d049bb133111eb)) >> 61 == 0)));
	s->nnodes = sizes[kind][0];
	s->quorum = sizes[kind][1];
	s->swarm = (SimSwarm)
	{
		.crash_node = rate(s, 8000, 600),.crash_writer = rate(s, 10000, 800),
		.crash_all = rate(s, 20000, 4000),.pause = rate(s, 8000, 800),
		.partition = rate(s, 6000, 600),.reset = rate(s, 40000, 4000),
		.corrupt = rate(s, 20000, 2000),.disk_full = rate(s, 12000, 2000),
		.slow_disk = rate(s, 8000, 2000),.sync_error = rate(s, 8000, 2000),
		.io_error = rate(s, 12000, 2000),.damage = rate(s, 8000, 500),
		.twice = rate(s, 8000, 500),.clock_skew = sim_one_in(s, 2),.pmem = sim_one_in(s, 3),
		.copy = rate(s, 20000, 3000),.latency_us = 100 + sim_below(s, 3000),
		.sync_us = 100 + sim_below(s, 4000),.records = 1 + sim_below(s, 6)
	};
	if (s->opt.plant != SIM_PLANT_NONE)
	{
		/* where such bugs show */
		s->swarm.copy = 1500;
		s->swarm.partition = 800;
		s->swarm.crash_node = 2000;
		s->swarm.damage = 1000;
	}
	if (s->views.on)
	{
		choose_cluster(s);
		return;
	}
	s->groups.on = s->opt.plant == SIM_PLANT_OLD_EPOCH || s->opt.plant == SIM_PLANT_TWO_AT_ONCE ||
		(s->opt.plant == SIM_PLANT_NONE &&
		 (s->opt.groups > 0 || (s->opt.groups == 0 && (s->opt.seed * UINT64_C(0x9e3779b97f4a7c15)) >> 63)));
	s->groups.on = s->groups.on && s->opt.repair <= 0 && s->opt.behind <= 0;
	s->repair = s->nnodes > 1 && !s->groups.on &&
		(s->opt.plant == SIM_PLANT_MEND_OLD || s->opt.plant == SIM_PLANT_MEND_BLIND ||
		 (s->opt.plant == SIM_PLANT_NONE &&
		  (s->opt.repair > 0 || (s->opt.repair == 0 && (s->opt.seed * UINT64_C(0xda942042e4dd58b5)) >> 61 == 0))));
	if (s->repair)
	{
		/* one thing that spoils data at a time: a good copy must be left */
		s->swarm.damage = 0;
		s->swarm.spoil = 300 + sim_below(s, 2000);
	}
	s->behind = s->nnodes > s->quorum && !s->groups.on && !s->repair &&
		(s->opt.plant == SIM_PLANT_BEHIND_COUNTS ||
		 (s->opt.plant == SIM_PLANT_NONE &&
		  (s->opt.behind > 0 || (s->opt.behind == 0 && (s->opt.seed * UINT64_C(0xbf58476d1ce4e5b9)) >> 61 == 0))));
	if (s->behind)
	{
		s->swarm.damage = 0;
		s->swarm.away = 1500 + sim_below(s, 3000);
		s->swarm.keep_bytes = s->swarm.persist_bytes = (16u << 10) + sim_below(s, 256u << 10);
	}
	sim_group_init(s, s->nnodes, s->quorum);
}

/* ---- faults ----------------------------------------------------------- */

/* Nobody: not the one that was chosen, now. */
static SimNode *
some_node(Sim *s)
{
	SimNode    *n = &s->nodes[sim_below(s, s->nnodes)];

	if (!s->views.on)
		return n;
	return s->views.begun && !(s->views.careful && sim_view_lag(s, n) > 0) ? n : &s->nobody;
}

static void
partition(Sim *s)
{
	uint64_t	until = s->now + 10000 + sim_below(s, 3000000);
	SimNode    *alone = s->views.on ? some_node(s) : NULL;
	uint32_t	cut = s->views.on && s->behind ? 1u << alone->index :
		(uint32_t) sim_below(s, 1u << s->nnodes);
	bool		one_way = sim_one_in(s, 3);
	bool		with_writers = sim_one_in(s, 2);

	if (alone == &s->nobody)
		return;
	for (uint32_t a = 0; a < SIM_NODES_MAX + 2; a++)
		for (uint32_t b = 0; b < SIM_NODES_MAX + 2; b++)
		{
			bool		in_a = a < s->nnodes ? (cut >> a) & 1 : with_writers;
			bool		in_b = b < s->nnodes ? (cut >> b) & 1 : with_writers;

			if (in_a != in_b && (in_a || !one_way))
				s->blocked_until[a][b] = until;
		}
	sim_say(s, "partition %x%s until %.3f", cut, one_way ? ", one way" : "", (double) until / 1e6);
}

static void
copy_writer(Sim *s)
{
	SimWriter  *from = NULL;
	SimWriter  *to = NULL;

	for (int i = 0; i < SIM_WRITERS_MAX; i++)
	{
		SimWriter  *w = &s->writers[i];

		if (w->exists && !w->stopped)
			from = w;
		if (!w->exists)
			to = w;
	}
	if (from != NULL && to != NULL && from->nends > 0 && from->made)
		sim_writer_copy(to, from);
}

/* Until the others keep no log for it any more. */
static void
send_away(SimNode *n)
{
	Sim		   *s = n->sim;

	if (s->views.careful && (sim_view_lag(s, NULL) > 0 || sim_repair_hurt(s)))
		return;
	sim_node_crash(n);
	n->start_at += (s->views.on ? 4000000 : 0) + sim_below(s, 5000000);
}

static void
crash_all(Sim *s)
{
	if (s->views.on && some_node(s) == &s->nobody)
		return;
	for (uint32_t i = 0; i < s->nnodes; i++)
	{
		sim_node_crash(&s->nodes[i]);
		if (s->behind && s->views.on)
			s->nodes[i].start_at = s->nodes[0].start_at;
	}
}

static void
inject(Sim *s)
{
	uint64_t	before = s->figures.faults;
	const SimSwarm *w = &s->swarm;

	if (sim_one_in(s, w->crash_node))
	{
		sim_node_crash(some_node(s));
		s->figures.faults++;
	}
	if (sim_one_in(s, w->crash_writer))
	{
		sim_writer_crash(&s->writers[sim_below(s, SIM_WRITERS_MAX)]);
		s->figures.faults++;
	}
	if (sim_one_in(s, w->crash_all))
	{
		crash_all(s);
		s->figures.faults++;
	}
	if (sim_one_in(s, w->pause))
	{
		uint64_t	until = s->now + 1000 + sim_below(s, 2000000);

		if (sim_one_in(s, 3))
			s->writers[sim_below(s, SIM_WRITERS_MAX)].paused_until = until;
		else
			some_node(s)->paused_until = until;
		s->figures.faults++;
	}
	if (sim_one_in(s, w->partition))
	{
		partition(s);
		s->figures.faults++;
	}
	if (sim_one_in(s, w->disk_full))
	{
		some_node(s)->full_until = s->now + sim_below(s, 3000000);
		s->figures.faults++;
	}
	if (sim_one_in(s, w->slow_disk))
	{
		some_node(s)->slow_until = s->now + sim_below(s, 3000000);
		s->figures.faults++;
	}
	if (sim_one_in(s, w->io_error))
	{
		/* once, or for a while */
		some_node(s)->io_error_until = s->now + (sim_one_in(s, 2) ? 1 : sim_below(s, 3000000));
		s->figures.faults++;
	}
	if (sim_one_in(s, w->damage) && sim_disk_damage(some_node(s)))
		s->figures.faults++;
	if (sim_one_in(s, w->spoil) && sim_repair_damage(some_node(s)))
		s->figures.faults++;
	if (sim_one_in(s, w->away))
	{
		send_away(some_node(s));
		s->figures.faults++;
	}
	if (sim_one_in(s, w->copy))
	{
		copy_writer(s);
		s->figures.faults++;
	}
	if (s->figures.faults != before)
		sim_trace(s, 0xfa017, s->figures.faults);
}

/* No more trouble; who waits for somebody to look after it gets somebody. */
static void
calm(Sim *s)
{
	bool		one = false;
	SimWriter  *right = NULL;

	s->quiet = true;
	sim_say(s, "quiet");
	memset(s->blocked_until, 0, sizeof(s->blocked_until));
	for (uint32_t i = 0; i < s->nnodes; i++)
	{
		SimNode    *n = &s->nodes[i];

		n->paused_until = n->full_until = n->slow_until = n->io_error_until = 0;
		n->sync_fails = false;
		if (!n->up && !n->lost && n->start_at > s->now)
			n->start_at = s->now;
	}
	for (int i = 0; i < SIM_WRITERS_MAX; i++)
	{
		s->writers[i].paused_until = 0;
		one = one || (s->writers[i].exists && !s->writers[i].stopped);
	}
	/*
	 * Copies may have ended each other.  A DBA then starts the right one: one
	 * whose log holds everything that was acknowledged.  Another such one if
	 * that is refused: storage may hold more than it told anybody.
	 */
	for (int i = 0; i < SIM_WRITERS_MAX && !one; i++)
	{
		SimWriter  *w = &s->writers[i];

		if (w->exists && w->flushed >= SIM_BASE + s->truth_len &&
			memcmp(w->wal.buf, s->truth, s->truth_len) == 0 &&
			(right == NULL || w->started < right->started))
			right = w;
	}
	if (right != NULL)
	{
		sim_say(s, "writer %d is started again", right->index);
		right->started++;
		right->stopped = false;
		one = true;
	}
	if (!one)
		sim_fail(s, "no server is left that has all acknowledged log");
}

static void
tick(Sim *s)
{
	s->now += SIM_TICK_US;
	s->figures.ticks++;
	if (!s->quiet)
		inject(s);
	sim_net_tick(s);
	for (uint32_t i = 0; i < s->nnodes; i++)
		sim_node_tick(&s->nodes[i]);
	for (int i = 0; i < SIM_WRITERS_MAX; i++)
		sim_writer_tick(&s->writers[i]);
	if (s->groups.on)
		sim_group_tick(s);
	if (s->views.on)
		sim_view_tick(s);
	for (int i = 0; i < SIM_READERS; i++)
		sim_reader_tick(s, i);
	sim_check_tick(s);
}

/* If the writers that are left stop in the quiet phase as well. */
static bool
nobody_writes(const Sim *s)
{
	for (int i = 0; i < SIM_WRITERS_MAX; i++)
		if (s->writers[i].exists && !s->writers[i].stopped)
			return false;
	return true;
}

bool
sim_run(Sim *s, const SimOptions *opt)
{
	const char *missing = "nothing was tried";
	uint64_t	quiet;
	uint64_t	end;

	memset(s, 0, sizeof(*s));
	s->opt = *opt;
	s->nobody.sim = s;
	s->now = 1000000;
	s->visible = SIM_BASE;
	sim_random_seed(s->rng, opt->seed);
	choose_swarm(s);
	au_planted = opt->plant == SIM_PLANT_QUORUM ? AU_PLANT_QUORUM :
		opt->plant == SIM_PLANT_STALE_TERM ? AU_PLANT_STALE_TERM :
		opt->plant == SIM_PLANT_RESURRECT ? AU_PLANT_RESURRECT :
		opt->plant == SIM_PLANT_APPLY_EARLY ? AU_PLANT_APPLY_EARLY :
		opt->plant == SIM_PLANT_NO_CRC ? AU_PLANT_NO_CRC :
		opt->plant == SIM_PLANT_OLD_EPOCH ? AU_PLANT_OLD_EPOCH :
		opt->plant == SIM_PLANT_TWO_AT_ONCE ? AU_PLANT_TWO_AT_ONCE :
		opt->plant == SIM_PLANT_NO_OBJECTION ? AU_PLANT_NO_OBJECTION :
		opt->plant == SIM_PLANT_GOSSIP_STALE ? AU_PLANT_GOSSIP_STALE :
		opt->plant == SIM_PLANT_MEND_OLD ? AU_PLANT_MEND_OLD :
		opt->plant == SIM_PLANT_MEND_BLIND ? AU_PLANT_MEND_BLIND :
		opt->plant == SIM_PLANT_BEHIND_COUNTS ? AU_PLANT_BEHIND_COUNTS :
		opt->plant == SIM_PLANT_READY_EARLY ? AU_PLANT_READY_EARLY :
		opt->plant == SIM_PLANT_WHOLE_EARLY ? AU_PLANT_WHOLE_EARLY :
		opt->plant == SIM_PLANT_GIVES_PART ? AU_PLANT_GIVES_PART :
		opt->plant == SIM_PLANT_LOST_VOTES ? AU_PLANT_LOST_VOTES :
		opt->plant == SIM_PLANT_TRIM_EARLY ? AU_PLANT_TRIM_EARLY : AU_PLANT_NONE;
	for (uint32_t i = 0; i < s->nnodes; i++)
	{
		sim_node_init(s, (int) i);
		sim_node_start(&s->nodes[i]);
	}
	for (int i = 0; i < SIM_WRITERS_MAX; i++)
		sim_writer_init(s, i);
	s->writers[0].exists = true;
	sim_say(s, "seed %llu: %u nodes, quorum %u", (unsigned long long) opt->seed, s->nnodes, s->quorum);

	end = s->now + opt->fault_us * (s->behind || s->views.on ? 2 : 1);
	while (s->now < end && !s->broken)
		tick(s);
	if (!s->broken)
		calm(s);
	/* a repair that failed is tried again after a while */
	quiet = opt->quiet_us * (s->repair || s->behind || s->views.on ? 5 : 1);
	end = s->now + quiet;
	while (s->now < end && !s->broken && missing != NULL)
	{
		for (int i = 0; i < 20 && !s->broken; i++)
			tick(s);
		if (nobody_writes(s))
			calm(s);
		missing = s->truth_len == 0 ? "nothing was ever committed" : sim_check_quiet(s);
	}
	if (!s->broken && missing != NULL)
		sim_fail(s, "%.0f s after the last fault: %s", (double) quiet / 1e6, missing);
	if (!s->broken)
		sim_check_end(s);
	return !s->broken;
}

void
sim_free(Sim *s)
{
	for (uint32_t i = 0; i < s->nnodes; i++)
		sim_node_free(&s->nodes[i]);
	for (int i = 0; i < SIM_WRITERS_MAX; i++)
		sim_writer_free(&s->writers[i]);
	for (int i = 0; i < SIM_READERS; i++)
	{
		free(s->readers[i].in);
		s->readers[i].link = NULL;
	}
	for (int i = 0; i < SIM_LINKS_MAX; i++)
		for (int k = 0; k < 2 && s->links[i].used; k++)
		{
			SimSide    *side = &s->links[i].side[k];

			while (side->first != NULL)
			{
				SimChunk   *c = side->first;

				side->first = c->next;
				free(c);
			}
			free(side->in);
		}
	sim_store_free(&s->model);
	au_waldecode_free(s->decode);
	free(s->truth);
}
