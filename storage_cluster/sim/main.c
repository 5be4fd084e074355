/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c: au_simulate, the command: runs seeds, says which fail.
 *
 *   au_simulate [--seeds N] [--from SEED] [--plant NAME] [--seconds S]
 *               [--groups always|never] [--repair always|never]
 *   au_simulate --seed SEED [--plant NAME] [-v]     one run, told in full
 *
 * Without --from it begins at a seed nobody has seen.  Each hundredth seed is
 * run twice: the trace must be the same.  With --plant the bug of that name is
 * built in and must be found within the seeds given.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

#include "sim/sim.h"

static Sim	sim;

static SimPlant
plant_of(const char *name)
{
	for (int i = 0; i < SIM_PLANTS; i++)
		if (strcmp(name, sim_plant_names[i]) == 0)
			return (SimPlant) i;
	fprintf(stderr, "no bug \"%s\" can be planted; there are:", name);
	for (int i = 1; i < SIM_PLANTS; i++)
		fprintf(stderr, " %s", sim_plant_names[i]);
	fprintf(stderr, "\n");
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
run_one(const SimOptions *opt, SimFigures *sum, bool twice)
{
	bool		ok = sim_run(&sim, opt);
	uint64_t	trace = sim.trace;
	char		verdict[sizeof(sim.verdict)];
	SimFigures	f = sim.figures;

	memcpy(verdict, sim.verdict, sizeof(verdict));
	sim_free(&sim);
	if (ok && twice)
	{
		ok = sim_run(&sim, opt) && sim.trace == trace;
		snprintf(verdict, sizeof(verdict), "a second run gave another trace");
		sim_free(&sim);
	}
	if (!ok && opt->plant == SIM_PLANT_NONE)
		printf("seed %" PRIu64 " FAILED: %s\n", opt->seed, verdict);
	else if (!ok)
		printf("planted bug \"%s\" found with seed %" PRIu64 ": %s\n", sim_plant_names[opt->plant],
			   opt->seed, verdict);
	sum->ticks += f.ticks;
	sum->faults += f.faults;
	sum->acked_records += f.acked_records;
	sum->reads += f.reads;
	sum->terms += f.terms;
	sum->cuts += f.cuts;
	sum->fenced += f.fenced;
	sum->refused += f.refused;
	sum->damaged += f.damaged;
	sum->lost += f.lost;
	sum->regroups += f.regroups;
	sum->spoiled += f.spoiled;
	sum->repairs += f.repairs;
	return ok;
}

int
main(int argc, char **argv)
{
	SimOptions	opt = {.fault_us = 6000000,.quiet_us = 30000000};
	SimFigures	sum = {0};
	uint64_t	seeds = 100;
	uint64_t	from = (uint64_t) time(NULL) * 1000000 % 1000000000000;
	uint64_t	failed = 0;
	uint64_t	done = 0;
	double		began = seconds();

	for (int i = 1; i < argc; i++)
	{
		const char *value = i + 1 < argc ? argv[i + 1] : "";

		if (strcmp(argv[i], "-v") == 0)
		{
			opt.verbose = true;
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
			opt.plant = plant_of(value);
		else if (strcmp(argv[i], "--groups") == 0)
			opt.groups = strcmp(value, "always") == 0 ? 1 : strcmp(value, "never") == 0 ? -1 : 0;
		else if (strcmp(argv[i], "--repair") == 0)
			opt.repair = strcmp(value, "always") == 0 ? 1 : strcmp(value, "never") == 0 ? -1 : 0;
		else if (strcmp(argv[i], "--seconds") == 0)
			opt.fault_us = strtoull(value, NULL, 10) * 1000000;
		else
		{
			fprintf(stderr, "usage: au_simulate [--seeds N] [--from SEED] [--seed SEED] [--plant NAME] [--seconds S] [-v]\n");
			return 2;
		}
		i++;
	}
	for (; done < seeds; done++)
	{
		opt.seed = from + done;
		if (run_one(&opt, &sum, opt.plant == SIM_PLANT_NONE && done % 100 == 0))
			continue;
		failed++;
		if (opt.plant != SIM_PLANT_NONE)
			return 0;
	}
	if (opt.plant != SIM_PLANT_NONE)
	{
		printf("planted bug \"%s\" was not found in %" PRIu64 " seeds\n", sim_plant_names[opt.plant], seeds);
		return 1;
	}
	printf("%" PRIu64 " seeds from %" PRIu64 ", %.1f seeds/s: %" PRIu64 " faults, %" PRIu64
		   " records acknowledged, %" PRIu64 " pages read, %" PRIu64 " promises, %" PRIu64
		   " logs cut, %" PRIu64 " writers fenced, %" PRIu64 " refused, %" PRIu64
		   " disks spoiled, %" PRIu64 " noticed, %" PRIu64 " log groups changed, %" PRIu64
		   " page versions spoiled, %" PRIu64 " stores repaired; %" PRIu64 " seeds failed\n",
		   done, from, (double) done / (seconds() - began), sum.faults, sum.acked_records, sum.reads,
		   sum.terms, sum.cuts, sum.fenced, sum.refused, sum.damaged, sum.lost, sum.regroups,
		   sum.spoiled, sum.repairs, failed);
	return failed != 0;
}
