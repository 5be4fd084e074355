/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_hist.c: see au_hist.h.
 */
#include "core/au_hist.h"

#include <assert.h>

void
au_hist_add(AuHist *h, uint64_t us)
{
	h->count++;
	h->sum_us += us;
	if (us > h->max_us)
		h->max_us = us;
	h->bucket[au_hist_bucket(us)]++;
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
			return au_hist_upper_us(i) < h->max_us ? au_hist_upper_us(i) : h->max_us;
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
