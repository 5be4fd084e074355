/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_view_mend.c: which nodes throw a damaged page store away, to get it anew
 * from the other owners of its slices.
 *
 *   whole ──MENDING on, granted──▶ mends ──MENDING off──▶ whole
 *
 * Two damaged nodes that share a slice both ask; consensus puts one first, and
 * the other one is refused until that is whole: so a copy is left of each
 * slice, whatever either of them believed.  (au_view.h, invariant 7)
 *
 * Answers get lost and commands come late or twice.  Each grant has an epoch of
 * its own, also a repeated one, and what takes it back must have known it: an
 * old MENDING off cannot end a new grant.  An old MENDING on only makes the
 * node say once more that it is whole.
 */
#include "cluster/au_view_int.h"

#include <assert.h>

bool
au_view_mends(const AuView *v, uint32_t number, uint64_t system_identifier)
{
	const AuViewNode *n = au_view_node(v, number);
	int			volume = au_view_volume_index(v, system_identifier);

	return n != NULL && volume >= 0 && (n->mending >> volume & 1);
}

/* May this owner of the slice lose it? */
static AuStatus
check_slice(const AuView *v, uint32_t slice, uint32_t number, int volume, char *err, size_t errlen)
{
	const AuSlice *s = &v->slices[slice];
	bool		other = false;

	for (uint32_t i = 0; i < s->nowners; i++)
	{
		const AuViewNode *n = au_view_node(v, s->owner[i]);

		if (n->number == number)
			continue;
		if (n->mending >> volume & 1)
			return au_view_refuse(AU_REFUSED, err, errlen,
								  "node %u makes its pages anew, and shares slice %u with node %u, which has to wait until that is done",
								  n->number, slice, number);
		other = other || n->up;
	}
	if (other)
		return AU_OK;
	return au_view_refuse(AU_REFUSED, err, errlen,
						  "no other node that is up has slice %u of node %u; bring its other owners back",
						  slice, number);
}

/* What a target has does not count while it mends, does again afterwards. */
static void
set_ready(AuView *v, uint32_t number, bool whole)
{
	for (uint32_t i = 0; i < AU_SLICES; i++)
	{
		AuSlice    *s = &v->slices[i];
		bool		waits = false;

		for (uint32_t j = 0; j < s->ntarget; j++)
			if (s->target[j] == number)
			{
				if (!whole)
					s->ready &= (uint8_t) ~(1u << j);
				else if (au_view_is_owner(s, number))
					s->ready |= (uint8_t) (1u << j);
				waits = true;
			}
		if (waits && !whole)
			s->since = v->epoch + 1;	/* a READY under way is of no use any more */
		else if (waits)
			(void) au_view_finish_move(v, s);
	}
	if (whole)
		au_view_promote_joined(v);
}

AuStatus
au_view_mending(AuView *v, const AuViewCommand *c, bool *changed, char *err, size_t errlen)
{
	int			index = au_view_index(v, c->number);
	int			volume = au_view_volume_index(v, c->system_identifier);
	AuViewNode *n;
	uint16_t	bit;

	if (index < 0)
		return au_view_no_such_node(v, c->number, err, errlen);
	if (volume < 0 || c->up > 1)
		return au_view_refuse(volume < 0 ? AU_REFUSED : AU_INVALID, err, errlen,
							  "the cluster does not know volume %llu",
							  (unsigned long long) c->system_identifier);
	n = &v->nodes[index];
	bit = (uint16_t) (1u << volume);
	if (c->up)
	{
		for (uint32_t i = 0; i < AU_SLICES && !(n->mending & bit); i++)
		{
			AuStatus	status = au_view_is_owner(&v->slices[i], n->number) ?
				check_slice(v, i, n->number, volume, err, errlen) : AU_OK;

			if (status != AU_OK)
				return status;
		}
		n->mending |= bit;
		n->mending_since = v->epoch + 1;
		set_ready(v, n->number, false);
		*changed = true;
		return AU_OK;
	}
	if (!(n->mending & bit) || c->epoch < n->mending_since)
		return AU_OK;
	n->mending &= (uint16_t) ~bit;
	if (n->mending == 0)
	{
		n->mending_since = 0;
		set_ready(v, n->number, true);
	}
	*changed = true;
	return AU_OK;
}
