/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_main.h: what the commands of the simulators have in common: which seeds,
 * which planted bug, the loop over them and how it ends.
 *
 *   COMMAND [--seeds N] [--from SEED] [--plant NAME]
 *   COMMAND --seed SEED [--plant NAME] [-v]     one run, told in full
 *
 * Without --from it begins at a seed nobody has seen.  Each hundredth seed is
 * run twice: the trace must be the same.  With --plant the bug of that name is
 * built in and must be found within the seeds given.
 */
#ifndef SIM_MAIN_H
#define SIM_MAIN_H

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct SimCommand
{
	const char *const *plants;	/* names; the first one is none */
	int			nplants;
	/* An option of this command alone; NULL: it has none.  false: no such one. */
	bool		(*option) (void *ctx, const char *name, const char *value);
	/* One seed, to be run twice or not; says what failed.  false: it did. */
	bool		(*run) (void *ctx, uint64_t seed, bool twice);
	void	   *ctx;

	/* as the arguments say */
	uint64_t	from;
	uint64_t	seeds;
	int			plant;
	bool		verbose;

	uint64_t	failed;
	double		seconds;
} SimCommand;

static inline double
sim_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}

static inline int
sim_plant_of(const SimCommand *c, const char *name)
{
	for (int i = 0; i < c->nplants; i++)
		if (strcmp(name, c->plants[i]) == 0)
			return i;
	fprintf(stderr, "no bug \"%s\" can be planted; there are:", name);
	for (int i = 1; i < c->nplants; i++)
		fprintf(stderr, " %s", c->plants[i]);
	fprintf(stderr, "\n");
	exit(2);
}

/* Ends the process if the arguments are wrong; head: where they are told. */
static inline void
sim_arguments(SimCommand *c, int argc, char **argv, const char *head)
{
	c->seeds = 100;
	c->from = (uint64_t) time(NULL) * 1000000 % 1000000000000;
	for (int i = 1; i < argc; i++)
	{
		const char *value = i + 1 < argc ? argv[i + 1] : "";

		if (strcmp(argv[i], "-v") == 0)
		{
			c->verbose = true;
			continue;
		}
		if (strcmp(argv[i], "--seeds") == 0)
			c->seeds = strtoull(value, NULL, 10);
		else if (strcmp(argv[i], "--from") == 0)
			c->from = strtoull(value, NULL, 10);
		else if (strcmp(argv[i], "--seed") == 0)
		{
			c->from = strtoull(value, NULL, 10);
			c->seeds = 1;
		}
		else if (strcmp(argv[i], "--plant") == 0)
			c->plant = sim_plant_of(c, value);
		else if (c->option == NULL || !c->option(c->ctx, argv[i], value))
		{
			fprintf(stderr, "%s: \"%s\" is no option; see the head of %s\n", argv[0], argv[i], head);
			exit(2);
		}
		i++;
	}
}

/* false: a bug was planted, and *status is how the process ends. */
static inline bool
sim_run_seeds(SimCommand *c, int *status)
{
	double		began = sim_seconds();

	for (uint64_t i = 0; i < c->seeds; i++)
	{
		if (c->run(c->ctx, c->from + i, c->plant == 0 && i % 100 == 0))
			continue;
		c->failed++;
		*status = 0;
		if (c->plant != 0)
			return false;
	}
	c->seconds = sim_seconds() - began;
	*status = 1;
	if (c->plant == 0)
		return true;
	printf("planted bug \"%s\" was not found in %" PRIu64 " seeds\n", c->plants[c->plant], c->seeds);
	return false;
}

static inline void
sim_tell(const SimCommand *c, uint64_t seed, const char *verdict)
{
	if (c->plant == 0)
		printf("seed %" PRIu64 " FAILED: %s\n", seed, verdict);
	else
		printf("planted bug \"%s\" found with seed %" PRIu64 ": %s\n", c->plants[c->plant], seed,
			   verdict);
}

#endif							/* SIM_MAIN_H */
