/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_history.c: term histories and groups; see au_history.h.
 */
#include "common/au_history.h"

#include <assert.h>

bool
au_history_valid(const AuHistory *h)
{
	if (h->n > AU_HISTORY_MAX)
		return false;
	for (uint32_t i = 0; i < h->n; i++)
	{
		if (h->terms[i].term == 0)
			return false;
		if (i > 0 && (h->terms[i].term <= h->terms[i - 1].term ||
					  h->terms[i].start <= h->terms[i - 1].start))
			return false;
	}
	return true;
}

uint64_t
au_history_last(const AuHistory *h, AuLsn end)
{
	for (uint32_t i = h->n; i > 0; i--)
		if (h->terms[i - 1].start <= end)
			return h->terms[i - 1].term;
	return 0;
}

void
au_history_cut(AuHistory *h, AuLsn end)
{
	while (h->n > 0 && h->terms[h->n - 1].start >= end)
		h->n--;
}

bool
au_history_push(AuHistory *h, uint64_t term, AuLsn start, uint32_t timeline)
{
	uint32_t	n = h->n;

	if (n > 0 && h->terms[n - 1].term >= term)
		return false;
	while (n > 0 && h->terms[n - 1].start >= start)
		n--;
	if (n == AU_HISTORY_MAX)
		return false;
	h->terms[n] = (AuTerm)
	{
		term, start, timeline
	};
	h->n = n + 1;
	assert(au_history_valid(h));
	return true;
}

void
au_history_forget(AuHistory *h, AuLsn floor)
{
	uint32_t	gone = 0;

	while (gone + 1 < h->n && h->terms[gone + 1].start <= floor)
		gone++;
	if (gone == 0)
		return;
	h->n -= gone;
	memmove(h->terms, h->terms + gone, h->n * sizeof(h->terms[0]));
}

/* Where term i of a history ends, in a log that ends at `end`. */
static AuLsn
until(const AuHistory *h, uint32_t i, AuLsn end)
{
	return i + 1 < h->n && h->terms[i + 1].start < end ? h->terms[i + 1].start : end;
}

/*
 * Invariant 2: a term that both know vouches for all log up to where either of
 * them leaves it, also for that below what either has forgotten.
 */
AuLsn
au_history_common(const AuHistory *ours, AuLsn end, const AuHistory *theirs, AuLsn held)
{
	AuLsn		common = held;

	assert(held <= end);
	for (uint32_t i = 0, j = 0; i < ours->n && j < theirs->n;)
	{
		AuLsn		our_until = until(ours, i, end);
		AuLsn		their_until = until(theirs, j, end);
		AuLsn		both = our_until < their_until ? our_until : their_until;

		if (ours->terms[i].term < theirs->terms[j].term)
			i++;
		else if (ours->terms[i].term > theirs->terms[j].term)
			j++;
		else
		{
			if (both > common)
				common = both;
			i++;
			j++;
		}
	}
	return common;
}

/* ---- the group -------------------------------------------------------- */

bool
au_group_valid(const AuGroup *g)
{
	if (g->n == 0 || g->n > AU_GROUP_MAX || g->write_quorum > g->n ||
		g->write_quorum * 2 <= g->n)
		return false;
	for (uint32_t i = 0; i < g->n; i++)
	{
		if (g->members[i].node_id == 0)
			return false;
		for (uint32_t j = 0; j < i; j++)
			if (g->members[i].node_id == g->members[j].node_id)
				return false;
	}
	return true;
}

bool
au_group_may_follow(const AuGroup *from, const AuGroup *to)
{
	uint32_t	stay = 0;

	if (to->epoch == from->epoch)
		return au_group_same(from, to);
	if (to->epoch != from->epoch + 1)
		return to->epoch > from->epoch;
	for (uint32_t i = 0; i < from->n; i++)
		stay += au_group_find(to, from->members[i].node_id) >= 0;
	return (uint32_t) from->n + to->n - 2 * stay <= 1;
}

int
au_group_find(const AuGroup *g, uint64_t node_id)
{
	for (uint32_t i = 0; i < g->n; i++)
		if (g->members[i].node_id == node_id)
			return (int) i;
	return -1;
}

bool
au_group_same(const AuGroup *a, const AuGroup *b)
{
	if (a->n != b->n || a->write_quorum != b->write_quorum)
		return false;
	for (uint32_t i = 0; i < a->n; i++)
		if (au_group_find(b, a->members[i].node_id) < 0)
			return false;
	return true;
}

uint32_t
au_group_votes(const AuGroup *g)
{
	uint32_t	meets_quorum = g->n - g->write_quorum + 1u;
	uint32_t	majority = g->n / 2u + 1u;

	return meets_quorum > majority ? meets_quorum : majority;
}
