/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_latency.c: how long backends wait for storage, as histograms.
 *
 * Buckets have 1/8 of the width of their power of two, so that a percentile
 * read from them is off by 1/16 at most:
 *
 *	us       0..15    16..31   32..63  ...
 *	bucket   0..15    16..23   24..31  ...    (width 1, 2, 4, ...)
 *
 * A process counts for itself and adds to shared memory when its transaction
 * ends (aurora_cache_xact_callback).
 */
#include "postgres.h"

#include "port/pg_bitutils.h"
#include "storage/shmem.h"

#include "cache/aurora_cache_internal.h"

#define STEPS 8					/* buckets of one power of two */
#define BUCKETS 240				/* the last begins at 33 minutes */

typedef struct SharedHistogram
{
	pg_atomic_uint64 sum_us;
	pg_atomic_uint64 max_us;
	pg_atomic_uint64 count[BUCKETS];
} SharedHistogram;

typedef struct PendingHistogram
{
	uint64		sum_us;
	uint64		max_us;
	int			low;			/* buckets in use are [low, high] */
	int			high;
	uint32		count[BUCKETS];
} PendingHistogram;

static SharedHistogram *shared = NULL;
static PendingHistogram pending[AURORA_FETCH_KINDS];
static bool any_pending = false;

Size
aurora_latency_shmem_size(void)
{
	return mul_size(AURORA_FETCH_KINDS, sizeof(SharedHistogram));
}

void
aurora_latency_shmem_init(void)
{
	bool		found;

	shared = ShmemInitStruct("aurora fetch latencies",
							 aurora_latency_shmem_size(), &found);
	if (found)
		return;
	for (int k = 0; k < AURORA_FETCH_KINDS; k++)
	{
		pg_atomic_init_u64(&shared[k].sum_us, 0);
		pg_atomic_init_u64(&shared[k].max_us, 0);
		for (int i = 0; i < BUCKETS; i++)
			pg_atomic_init_u64(&shared[k].count[i], 0);
	}
}

static int
bucket_of(uint64 us)
{
	int			power;
	int			i;

	if (us < 2 * STEPS)
		return (int) us;
	power = pg_leftmost_one_pos64(us);	/* 4 or more */
	i = (power - 2) * STEPS + (int) ((us >> (power - 3)) & (STEPS - 1));
	return Min(i, BUCKETS - 1);
}

/* The middle of a bucket. */
static double
bucket_us(int i)
{
	int			power;
	double		width;

	if (i < 2 * STEPS)
		return i;
	power = i / STEPS + 2;
	width = (double) (UINT64CONST(1) << (power - 3));
	return (STEPS + i % STEPS + 0.5) * width;
}

void
aurora_latency_note(AuroraFetchKind kind, uint64 us)
{
	PendingHistogram *h = &pending[kind];
	int			i = bucket_of(us);

	if (h->count[h->low] == 0)
		h->low = h->high = i;
	h->low = Min(h->low, i);
	h->high = Max(h->high, i);
	h->count[i]++;
	h->sum_us += us;
	h->max_us = Max(h->max_us, us);
	any_pending = true;
}

static void
flush_one(PendingHistogram *h, SharedHistogram *to)
{
	uint64		max_us = pg_atomic_read_u64(&to->max_us);

	for (int i = h->low; i <= h->high; i++)
		if (h->count[i] != 0)
			pg_atomic_fetch_add_u64(&to->count[i], h->count[i]);
	pg_atomic_fetch_add_u64(&to->sum_us, h->sum_us);
	while (max_us < h->max_us &&
		   !pg_atomic_compare_exchange_u64(&to->max_us, &max_us, h->max_us))
		;
	memset(h, 0, sizeof(*h));
}

void
aurora_latency_flush(void)
{
	if (!any_pending)
		return;
	any_pending = false;
	for (int k = 0; k < AURORA_FETCH_KINDS; k++)
		flush_one(&pending[k], &shared[k]);
}

/* Where `share` of all waits are done. */
static double
percentile(const uint64 *count, uint64 total, double share)
{
	uint64		rank = (uint64) (share * (total - 1)) + 1;
	int			i = 0;

	for (uint64 seen = count[0]; seen < rank && i < BUCKETS - 1;)
		seen += count[++i];
	return bucket_us(i);
}

void
aurora_latency(AuroraFetchKind kind, AuroraLatency *out)
{
	SharedHistogram *h = &shared[kind];
	uint64		count[BUCKETS];

	aurora_latency_flush();
	memset(out, 0, sizeof(*out));
	for (int i = 0; i < BUCKETS; i++)
		out->count += count[i] = pg_atomic_read_u64(&h->count[i]);
	if (out->count == 0)
		return;
	out->sum_us = pg_atomic_read_u64(&h->sum_us);
	out->max_us = pg_atomic_read_u64(&h->max_us);
	out->p50_us = Min(percentile(count, out->count, 0.50), out->max_us);
	out->p90_us = Min(percentile(count, out->count, 0.90), out->max_us);
	out->p99_us = Min(percentile(count, out->count, 0.99), out->max_us);
}
