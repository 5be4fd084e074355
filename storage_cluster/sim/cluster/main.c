/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c: au_simulate_cluster, the command; as au_simulate (sim/main.c).
 *
 *   au_simulate_cluster [--seeds N] [--from SEED] [--plant NAME]
 *   au_simulate_cluster --seed SEED [--plant NAME] [-v]
 */
#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

#include "sim/cluster/simc.h"

static Simc sim;

static SimcPlant
plant_of(const char *name)
{
	for (int i = 0; i < SIMC_PLANTS; i++)
		if (strcmp(name, simc_plant_names[i]) == 0)
			return (SimcPlant) i;
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

/* false: failed, or not the same twice */
static bool
run_one(uint64_t seed, SimcPlant plant, bool verbose, bool twice, SimcFigures *sum)
{
	bool		ok = simc_run(&sim, seed, plant, verbose);
	uint64_t	trace = sim.trace;
	SimcFigures f = sim.figures;

	if (!ok && plant == SIMC_PLANT_NONE)
		printf("seed %" PRIu64 " FAILED: %s\n", seed, sim.verdict);
	else if (!ok)
		printf("planted bug \"%s\" found with seed %" PRIu64 ": %s\n", simc_plant_names[plant], seed,
			   sim.verdict);
	simc_free(&sim);
	if (ok && twice)
	{
		ok = simc_run(&sim, seed, plant, false) && sim.trace == trace;
		simc_free(&sim);
		if (!ok)
			printf("seed %" PRIu64 " FAILED: a second run gave another trace\n", seed);
	}
	sum->faults += f.faults;
	sum->commands += f.commands;
	sum->changes += f.changes;
	sum->joins += f.joins;
	sum->removals += f.removals;
	sum->losses += f.losses;
	sum->copies += f.copies;
	sum->reads += f.reads;
	return ok;
}

int
main(int argc, char **argv)
{
	SimcPlant	plant = SIMC_PLANT_NONE;
	SimcFigures sum = {0};
	uint64_t	seeds = 100;
	uint64_t	from = (uint64_t) time(NULL) * 1000000 % 1000000000000;
	uint64_t	failed = 0;
	bool		verbose = false;
	double		began = seconds();

	for (int i = 1; i < argc; i++)
	{
		const char *value = i + 1 < argc ? argv[i + 1] : "";

		if (strcmp(argv[i], "-v") == 0)
		{
			verbose = true;
			continue;
		}
		if (strcmp(argv[i], "--seeds") == 0)
			seeds = strtoull(value, NULL, 10);
		else if (strcmp(argv[i], "--from") == 0)
			from = strtoull(value, NULL, 10);
		else if (strcmp(argv[i], "--seed") == 0)
		{
			from = strtoull(value, NULL, 10);
			seeds = 1;
		}
		else if (strcmp(argv[i], "--plant") == 0)
			plant = plant_of(value);
		else
		{
			fprintf(stderr, "usage: au_simulate_cluster [--seeds N] [--from SEED] [--seed SEED] [--plant NAME] [-v]\n");
			return 2;
		}
		i++;
	}
	for (uint64_t i = 0; i < seeds; i++)
	{
		if (run_one(from + i, plant, verbose, plant == SIMC_PLANT_NONE && i % 100 == 0, &sum))
			continue;
		failed++;
		if (plant != SIMC_PLANT_NONE)
			return 0;
	}
	if (plant != SIMC_PLANT_NONE)
	{
		printf("planted bug \"%s\" was not found in %" PRIu64 " seeds\n", simc_plant_names[plant], seeds);
		return 1;
	}
	printf("membership: %" PRIu64 " seeds from %" PRIu64 ", %.1f seeds/s: %" PRIu64 " faults, %" PRIu64
		   " commands, %" PRIu64 " changes, %" PRIu64 " nodes joined, %" PRIu64 " removed, %" PRIu64
		   " lost for ever, %" PRIu64 " slices copied, %" PRIu64 " reads; %" PRIu64 " seeds failed\n",
		   seeds, from, (double) seeds / (seconds() - began), sum.faults, sum.commands, sum.changes,
		   sum.joins, sum.removals, sum.losses, sum.copies, sum.reads, failed);
	return failed != 0;
}
