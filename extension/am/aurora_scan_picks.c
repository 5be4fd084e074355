/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_scan_picks.c: which blocks ANALYZE and TABLESAMPLE are going to pick.
 *
 * Both hand the access method one block at a time.  To read ahead it has to
 * know more:
 *
 *	TABLESAMPLE SYSTEM	picks blocks without looking at what was read, so it
 *						is asked for some of them in advance.  Of other
 *						methods that pick blocks nobody knows whether they
 *						bear that; they are asked for one at a time.
 *	ANALYZE				draws its seed right after it has asked for the
 *						table's size, and the number of blocks follows from
 *						the columns' statistics targets.  So the state of the
 *						random number generator is noted whenever the size is
 *						asked for, and the sampler is run a second time.  What
 *						comes is compared with what was foreseen; when that is
 *						wrong (a partition gets a share of its parent's
 *						sample) nothing is foreseen any more.
 *
 * Invariant: what is returned as picked is what the method picked, in its
 * order; only read-ahead depends on what was foreseen.
 */
#include "postgres.h"

#include "access/tsmapi.h"
#include "am/aurora_scan.h"
#include "commands/vacuum.h"
#include "common/pg_prng.h"
#include "nodes/execnodes.h"
#include "utils/fmgroids.h"
#include "utils/sampling.h"

/* Blocks that a sampling method is asked for in advance. */
#define PICKS_MAX (2 * AURORA_AHEAD_RUN_MAX * (AURORA_AHEAD_RUNS_MAX + 1))

/* The rows that ANALYZE wants for a statistics target. */
#define ROWS_PER_TARGET 300
#define ROWS_MIN 100

typedef struct AuroraScanPicks
{
	/* ANALYZE: what is asked for next, and what has to come next */
	BlockSamplerData sampler;
	BlockSamplerData check;
	BlockNumber next;			/* of sampler */

	/* TABLESAMPLE: blocks [used, picked) are in the ring */
	struct SampleScanState *state;
	uint32		used;
	uint32		looked;			/* next_sample has come to */
	uint32		picked;
	bool		ended;
	BlockNumber ring[PICKS_MAX];
} AuroraScanPicks;

/* The generator when a table's size was last asked for, and of which one. */
static pg_prng_state size_prng;
static Oid	size_rel = InvalidOid;

void
aurora_scan_size_asked(Relation rel)
{
	size_prng = pg_global_prng_state;
	size_rel = RelationGetRelid(rel);
}

static AuroraScanPicks *
make_picks(AuroraScanDesc scan)
{
	scan->picks = MemoryContextAllocZero(scan->ahead.context,
										 sizeof(AuroraScanPicks));
	return scan->picks;
}

/* ---- ANALYZE ---- */

static BlockNumber
next_sampled(void *arg, BlockNumber after)
{
	AuroraScanPicks *picks = ((AuroraScanDesc) arg)->picks;

	while (picks->next <= after)
	{
		if (!BlockSampler_HasMore(&picks->sampler))
			return InvalidBlockNumber;
		picks->next = BlockSampler_Next(&picks->sampler);
	}
	return picks->next;
}

/* How many rows ANALYZE of all columns wants. */
static int
rows_wanted(Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);
	int			rows = ROWS_MIN;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		int			target = att->attstattarget;

		if (att->attisdropped)
			continue;
		if (target < 0)
			target = default_statistics_target;
		rows = Max(rows, ROWS_PER_TARGET * target);
	}
	return rows;
}

void
aurora_scan_foresee_analyze(AuroraScanDesc scan)
{
	AuroraScanPicks *picks;
	uint32		seed;

	if (!aurora_rel_is_remote(scan->rel) ||
		size_rel != RelationGetRelid(scan->rel))
		return;
	size_rel = InvalidOid;
	seed = pg_prng_uint32(&size_prng);
	picks = make_picks(scan);
	(void) BlockSampler_Init(&picks->sampler, scan->nblocks,
							 rows_wanted(scan->rel), seed);
	picks->check = picks->sampler;
	if (BlockSampler_HasMore(&picks->sampler))
		picks->next = BlockSampler_Next(&picks->sampler);
	aurora_scan_new_order(scan, next_sampled, scan);
}

bool
aurora_scan_foreseen(AuroraScanDesc scan, BlockNumber block)
{
	AuroraScanPicks *picks = scan->picks;

	if (picks == NULL)
		return true;			/* nothing was said */
	return BlockSampler_HasMore(&picks->check) &&
		BlockSampler_Next(&picks->check) == block;
}

/* ---- TABLESAMPLE ---- */

/* Ask the method for one more. */
static bool
pick_one(AuroraScanDesc scan)
{
	AuroraScanPicks *p = scan->picks;
	BlockNumber block;

	if (p->ended || p->picked - p->used == PICKS_MAX)
		return false;
	block = p->state->tsmroutine->NextSampleBlock(p->state, scan->nblocks);
	if (BlockNumberIsValid(block))
		p->ring[p->picked++ % PICKS_MAX] = block;
	else
		p->ended = true;
	return !p->ended;
}

static BlockNumber
next_sample(void *arg, BlockNumber after)
{
	AuroraScanDesc scan = arg;
	AuroraScanPicks *p = scan->picks;

	p->looked = Max(p->looked, p->used);
	for (;; p->looked++)
	{
		if (p->looked == p->picked && !pick_one(scan))
			return InvalidBlockNumber;
		if (p->ring[p->looked % PICKS_MAX] > after)
			return p->ring[p->looked % PICKS_MAX];
	}
}

BlockNumber
aurora_scan_pick(AuroraScanDesc scan, SampleScanState *state)
{
	SampleScan *plan = (SampleScan *) state->ss.ps.plan;
	AuroraScanPicks *p = scan->picks;

	if (plan->tablesample->tsmhandler != F_SYSTEM ||
		!aurora_rel_is_remote(scan->rel))
		return state->tsmroutine->NextSampleBlock(state, scan->nblocks);
	if (p == NULL)
	{
		p = make_picks(scan);
		p->state = state;
		aurora_scan_new_order(scan, next_sample, scan);
	}
	if (p->used == p->picked && !pick_one(scan))
		return InvalidBlockNumber;
	return p->ring[p->used++ % PICKS_MAX];
}
