/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_hist.c: see au_hist.h.  A bucket's number comes from the value less one,
 * so that upper ends are part of their buckets.
 */
#include "core/au_hist.h"

#include <assert.h>

static uint32_t
bucket_of(uint64_t us)
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

static uint64_t
upper_end(uint32_t i)
{
	if (i < 4)
		return i + 1;
	return (uint64_t) (5 + i % 4) << (i / 4 - 1);
}

void
au_hist_add(AuHist *h, uint64_t us)
{
	h->count++;
	h->sum_us += us;
	if (us > h->max_us)
		h->max_us = us;
	h->bucket[bucket_of(us)]++;
}

void
au_hist_merge(AuHist *into, const AuHist *from)
{
	into->count += from->count;
	into->sum_us += from->sum_us;
	if (from->max_us > into->max_us)
		into->max_us = from->max_us;
	for (uint32_t i = 0; i < AU_HIST_BUCKETS; i++)
		into->bucket[i] += from->bucket[i];
}

uint64_t
au_hist_quantile_us(const AuHist *h, uint32_t permille)
{
	uint64_t	rank = (h->count * permille + 999) / 1000;
	uint64_t	seen = 0;

	assert(permille <= 1000);
	for (uint32_t i = 0; i < AU_HIST_BUCKETS; i++)
	{
		seen += h->bucket[i];
		if (seen >= rank && seen > 0)
			return upper_end(i) < h->max_us ? upper_end(i) : h->max_us;
	}
	return 0;
}

uint64_t
au_hist_at_most(const AuHist *h, uint32_t k)
{
	uint64_t	n = 0;

	assert(k >= 2 && k <= 36);
	for (uint32_t i = 0; i < 4 * (k - 1); i++)
		n += h->bucket[i];
	return n;
}
