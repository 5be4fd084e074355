/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c: au_simulate_kv, the command; arguments as in sim/sim_main.h.
 */
#include "sim/kv/kv_sim.h"
#include "sim/sim_main.h"

static const char *const plant_names[] = {"none", "kv-early", "kv-quorum", "kv-compare", "kv-purge",
	"kv-most"};
static const AuPlant plants[] = {
	AU_PLANT_NONE, AU_PLANT_KV_EARLY, AU_PLANT_KV_QUORUM, AU_PLANT_KV_COMPARE, AU_PLANT_KV_PURGE,
	AU_PLANT_KV_MOST
};

#define NPLANTS (sizeof(plants) / sizeof(plants[0]))

_Static_assert(NPLANTS == sizeof(plant_names) / sizeof(plant_names[0]), "a name for each");

static Sim	sim;
static SimFigures sum;

static void
add(const SimFigures *f)
{
	uint64_t   *a = (uint64_t *) &sum;
	const uint64_t *b = (const uint64_t *) f;

	for (size_t i = 0; i < sizeof(*f) / sizeof(*b); i++)
		a[i] += b[i];
}

static bool
run(void *ctx, uint64_t seed, bool twice)
{
	const SimCommand *c = ctx;
	SimOptions	opt = {.seed = seed,.plant = plants[c->plant],.verbose = c->verbose};
	bool		ok = sim_run(&sim, &opt);
	uint64_t	trace = sim.trace;

	if (!ok)
		sim_tell(c, seed, sim.verdict);
	add(&sim.figures);
	if (!ok || !twice)
		return ok;
	opt.verbose = false;
	ok = sim_run(&sim, &opt) && sim.trace == trace;
	if (!ok)
		sim_tell(c, seed, "a second run gave another trace");
	return ok;
}

int
main(int argc, char **argv)
{
	SimCommand	c = {.plants = plant_names,.nplants = NPLANTS,.run = run};
	int			status;

	c.ctx = &c;
	sim_arguments(&c, argc, argv, "sim/sim_main.h");
	if (!sim_run_seeds(&c, &status))
		return status;
	printf("key-value: %" PRIu64 " seeds from %" PRIu64 ", %.1f seeds/s: "
		   "%" PRIu64 " writes, %" PRIu64 " acknowledged; %" PRIu64 " of %" PRIu64 " reads answered, %"
		   PRIu64 " with siblings; %" PRIu64 " crashes, %" PRIu64 " partitions, %" PRIu64 " views, %"
		   PRIu64 " records damaged, %" PRIu64 " batches failed; %" PRIu64 " repairs, %" PRIu64 " hints, %" PRIu64
		   " delivered later, %" PRIu64 " fetched, %" PRIu64 " tombstones collected; %" PRIu64 " seeds failed\n",
		   c.seeds, c.from, (double) c.seeds / c.seconds, sum.puts, sum.acked, sum.read, sum.gets,
		   sum.conflicts, sum.crashes, sum.partitions, sum.views, sum.damaged, sum.failed_writes,
		   sum.repairs, sum.hints, sum.delivered, sum.fetched, sum.collected, c.failed);
	return c.failed != 0;
}
