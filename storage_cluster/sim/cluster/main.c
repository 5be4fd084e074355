/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c: au_simulate_cluster, the command; arguments as in sim/sim_main.h.
 */
#include "sim/cluster/simc.h"
#include "sim/sim_main.h"

static Simc sim;
static SimcFigures sum;

static void
add(const SimcFigures *f)
{
	sum.faults += f->faults;
	sum.commands += f->commands;
	sum.changes += f->changes;
	sum.joins += f->joins;
	sum.removals += f->removals;
	sum.losses += f->losses;
	sum.copies += f->copies;
	sum.reads += f->reads;
}

static bool
run(void *ctx, uint64_t seed, bool twice)
{
	const SimCommand *c = ctx;
	bool		ok = simc_run(&sim, seed, (SimcPlant) c->plant, c->verbose);
	uint64_t	trace = sim.trace;

	if (!ok)
		sim_tell(c, seed, sim.verdict);
	add(&sim.figures);
	simc_free(&sim);
	if (!ok || !twice)
		return ok;
	ok = simc_run(&sim, seed, (SimcPlant) c->plant, false) && sim.trace == trace;
	if (!ok)
		sim_tell(c, seed, "a second run gave another trace");
	simc_free(&sim);
	return ok;
}

int
main(int argc, char **argv)
{
	SimCommand	c = {.plants = simc_plant_names,.nplants = SIMC_PLANTS,.run = run};
	int			status;

	c.ctx = &c;
	sim_arguments(&c, argc, argv, "sim/sim_main.h");
	if (!sim_run_seeds(&c, &status))
		return status;
	printf("membership: %" PRIu64 " seeds from %" PRIu64 ", %.1f seeds/s: %" PRIu64 " faults, %" PRIu64
		   " commands, %" PRIu64 " changes, %" PRIu64 " nodes joined, %" PRIu64 " removed, %" PRIu64
		   " lost for ever, %" PRIu64 " slices copied, %" PRIu64 " reads; %" PRIu64 " seeds failed\n",
		   c.seeds, c.from, (double) c.seeds / c.seconds, sum.faults, sum.commands, sum.changes,
		   sum.joins, sum.removals, sum.losses, sum.copies, sum.reads, c.failed);
	return c.failed != 0;
}
