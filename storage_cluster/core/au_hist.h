/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_hist.h: a histogram of latencies in microseconds.
 *
 * Buckets grow by powers of two, four to each:
 *
 *   (0,1] (1,2] (2,3] (3,4]  (4,5] (5,6] (6,7] (7,8]  (8,10] (10,12] ...
 *
 * so a quantile is at most a quarter too high, and the number of values up to
 * 2^k us is exact (what Prometheus wants).  0 counts in the first bucket, what
 * is longer than 2^37 us in the last.
 *
 * Pure and without locks: one thread at a time.  All zero is empty.
 */
#ifndef AU_HIST_H
#define AU_HIST_H

#include "common/au_base.h"

#define AU_HIST_BUCKETS 144

typedef struct AuHist
{
	uint64_t	count;
	uint64_t	sum_us;
	uint64_t	max_us;
	uint64_t	bucket[AU_HIST_BUCKETS];
} AuHist;

/* The value less one gives the bucket, so that upper ends are part of theirs. */
static inline uint32_t
au_hist_bucket(uint64_t us)
{
	uint64_t	x = us > 0 ? us - 1 : 0;
	uint32_t	k,
				i;

	if (x < 4)
		return (uint32_t) x;
	k = 63 - (uint32_t) __builtin_clzll(x);
	i = 4 * (k - 1) + (uint32_t) ((x >> (k - 2)) & 3);
	return i < AU_HIST_BUCKETS ? i : AU_HIST_BUCKETS - 1;
}

static inline uint64_t
au_hist_upper_us(uint32_t bucket)
{
	if (bucket < 4)
		return bucket + 1;
	return (uint64_t) (5 + bucket % 4) << (bucket / 4 - 1);
}

void		au_hist_add(AuHist *h, uint64_t us);
void		au_hist_merge(AuHist *into, const AuHist *from);
/* Upper end of the bucket that holds the value at `permille` of all, never
 * above the longest one; 0 if there is none. */
uint64_t	au_hist_quantile_us(const AuHist *h, uint32_t permille);
/* Values of at most 2^k us, 2 <= k <= 36. */
uint64_t	au_hist_at_most(const AuHist *h, uint32_t k);

#endif							/* AU_HIST_H */
