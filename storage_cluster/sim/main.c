/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c: au_simulate, the command: runs seeds, says which fail.  Arguments as
 * in sim_main.h, and
 *
 *   [--seconds S] [--groups always|never] [--repair always|never]
 *   [--behind always|never] [--slices always|never]
 */
#include "sim/sim.h"
#include "sim/sim_main.h"

static Sim	sim;
static SimOptions opt = {.fault_us = 6000000,.quiet_us = 30000000};
static SimFigures sum;

static void
add(const SimFigures *f)
{
	sum.faults += f->faults;
	sum.acked_records += f->acked_records;
	sum.reads += f->reads;
	sum.terms += f->terms;
	sum.cuts += f->cuts;
	sum.fenced += f->fenced;
	sum.refused += f->refused;
	sum.damaged += f->damaged;
	sum.lost += f->lost;
	sum.relogs += f->relogs;
	sum.regroups += f->regroups;
	sum.spoiled += f->spoiled;
	sum.repairs += f->repairs;
	sum.remade += f->remade;
	sum.moves += f->moves;
	sum.moved += f->moved;
	sum.chunks += f->chunks;
	sum.founded += f->founded;
}

static bool
run(void *ctx, uint64_t seed, bool twice)
{
	const SimCommand *c = ctx;
	uint64_t	trace;
	bool		ok;

	opt.seed = seed;
	opt.plant = (SimPlant) c->plant;
	opt.verbose = c->verbose;
	ok = sim_run(&sim, &opt);
	trace = sim.trace;
	if (!ok)
		sim_tell(c, seed, sim.verdict);
	add(&sim.figures);
	sim_free(&sim);
	if (!ok || !twice)
		return ok;
	ok = sim_run(&sim, &opt) && sim.trace == trace;
	if (!ok)
		sim_tell(c, seed, "a second run gave another trace");
	sim_free(&sim);
	return ok;
}

static int
when(const char *value)
{
	return strcmp(value, "always") == 0 ? 1 : strcmp(value, "never") == 0 ? -1 : 0;
}

static bool
option(void *ctx, const char *name, const char *value)
{
	(void) ctx;
	if (strcmp(name, "--groups") == 0)
		opt.groups = when(value);
	else if (strcmp(name, "--repair") == 0)
		opt.repair = when(value);
	else if (strcmp(name, "--behind") == 0)
		opt.behind = when(value);
	else if (strcmp(name, "--slices") == 0)
		opt.slices = when(value);
	else if (strcmp(name, "--seconds") == 0)
		opt.fault_us = strtoull(value, NULL, 10) * 1000000;
	else
		return false;
	return true;
}

int
main(int argc, char **argv)
{
	SimCommand	c = {.plants = sim_plant_names,.nplants = SIM_PLANTS,.option = option,.run = run};
	int			status;

	c.ctx = &c;
	sim_arguments(&c, argc, argv, "sim/main.c");
	if (!sim_run_seeds(&c, &status))
		return status;
	printf("%" PRIu64 " seeds from %" PRIu64 ", %.1f seeds/s: %" PRIu64 " faults, %" PRIu64
		   " records acknowledged, %" PRIu64 " pages read, %" PRIu64 " promises, %" PRIu64
		   " logs cut, %" PRIu64 " writers fenced, %" PRIu64 " refused, %" PRIu64
		   " disks spoiled, %" PRIu64 " noticed, %" PRIu64 " logs begun anew, %" PRIu64
		   " log groups changed, %" PRIu64
		   " page versions spoiled, %" PRIu64 " stores repaired, %" PRIu64 " nodes left behind made anew, %" PRIu64
		   " slices with other owners, %" PRIu64 " came in %" PRIu64 " chunks, %" PRIu64
		   " volumes begun with another node's sizes; %" PRIu64 " seeds failed\n",
		   c.seeds, c.from, (double) c.seeds / c.seconds, sum.faults, sum.acked_records, sum.reads,
		   sum.terms, sum.cuts, sum.fenced, sum.refused, sum.damaged, sum.lost, sum.relogs, sum.regroups,
		   sum.spoiled, sum.repairs, sum.remade, sum.moves, sum.moved, sum.chunks, sum.founded, c.failed);
	return c.failed != 0;
}
