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

/* The term of the byte at lsn, and where that term's log ends. */
static uint64_t
term_at(const AuHistory *h, AuLsn lsn, AuLsn *until)
{
	uint64_t	term = 0;

	*until = AU_LSN_MAX;
	for (uint32_t i = 0; i < h->n; i++)
	{
		if (h->terms[i].start > lsn)
		{
			*until = h->terms[i].start;
			break;
		}
		term = h->terms[i].term;
	}
	return term;
}

AuLsn
au_history_common(const AuHistory *ours, AuLsn end, const AuHistory *theirs, AuLsn held)
{
	AuLsn		at = held;

	assert(held <= end);
	if (ours->n == 0 || theirs->n == 0)
		return held;
	while (at < end)
	{
		AuLsn		our_until,
					their_until;
		uint64_t	our_term = term_at(ours, at, &our_until);
		uint64_t	their_term = term_at(theirs, at, &their_until);

		/*
		 * Below the first of their terms they know nothing but that a quorum
		 * holds it; whether we hold the same only `held` tells.
		 */
		if (our_term == 0 || their_term == 0 || our_term != their_term)
			break;
		at = our_until < their_until ? our_until : their_until;
	}
	return at < end ? at : end;
}

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
