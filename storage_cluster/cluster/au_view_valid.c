/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_view_valid.c: the invariants of a view, checked after each command and
 * of each view that comes from a file or another node.
 */
#include "cluster/au_view_int.h"

#include <stdarg.h>
#include <stdio.h>

static bool wrong(char *why, size_t whylen, const char *fmt,...)
			__attribute__((format(printf, 3, 4)));

static bool
wrong(char *why, size_t whylen, const char *fmt,...)
{
	va_list		args;

	va_start(args, fmt);
	vsnprintf(why, whylen, fmt, args);
	va_end(args);
	return false;
}

static bool
nodes_valid(const AuView *v, char *why, size_t whylen)
{
	for (int i = 0; i < v->nnodes; i++)
	{
		const AuViewNode *n = &v->nodes[i];

		if (n->number == 0 || n->number >= v->next_number ||
			(i > 0 && n->number <= n[-1].number))
			return wrong(why, whylen, "node numbers do not grow at %u", n->number);
		if (n->node_id == 0 || n->address[0] == '\0' || n->meta_address[0] == '\0' ||
			n->weight < 1 || n->weight > 10000 || n->state < AU_NODE_JOINING ||
			n->state > AU_NODE_DRAINING || n->up > 1 || n->voter > 1)
			return wrong(why, whylen, "node %u is not one", n->number);
		if (n->mending >> v->nvolumes != 0 || n->mending_since > v->epoch ||
			(n->mending == 0) != (n->mending_since == 0))
			return wrong(why, whylen, "node %u mends what is not there", n->number);
		for (int j = 0; j < i; j++)
			if (v->nodes[j].node_id == n->node_id)
				return wrong(why, whylen, "nodes %u and %u are the same", v->nodes[j].number, n->number);
	}
	return true;
}

/* Known nodes, each once, and only zeros behind them. */
static bool
list_valid(const AuView *v, const uint32_t *list, uint32_t n, uint32_t max)
{
	if (n > max)
		return false;
	for (uint32_t i = 0; i < max; i++)
	{
		if (i >= n ? list[i] != 0 : au_view_node(v, list[i]) == NULL)
			return false;
		for (uint32_t j = 0; j < i && i < n; j++)
			if (list[i] == list[j])
				return false;
	}
	return true;
}

static bool
mends(const AuView *v, uint32_t number)
{
	return au_view_node(v, number)->mending != 0;
}

/* One of the owners at most mends a volume, and never the only one. */
static bool
mending_valid(const AuView *v, const AuSlice *s)
{
	uint16_t	any = 0,
				twice = 0;

	for (uint32_t i = 0; i < s->nowners; i++)
	{
		uint16_t	mending = au_view_node(v, s->owner[i])->mending;

		twice |= any & mending;
		any |= mending;
	}
	return twice == 0 && (any == 0 || s->nowners > 1);
}

/* An owner has what it owns, and one that mends has nothing for sure. */
static bool
ready_valid(const AuView *v, const AuSlice *s)
{
	if (s->ready >= (1u << s->ntarget))
		return false;
	if (s->ntarget > 0 && s->ready == (1u << s->ntarget) - 1)
		return false;			/* they would own it */
	for (uint32_t i = 0; i < s->ntarget; i++)
		for (uint32_t j = 0; j < s->nowners; j++)
			if (s->target[i] == s->owner[j] && !(s->ready >> i & 1) && !mends(v, s->target[i]))
				return false;
	for (uint32_t i = 0; i < s->ntarget; i++)
		if ((s->ready >> i & 1) && mends(v, s->target[i]))
			return false;
	return true;
}

static bool
slices_valid(const AuView *v, char *why, size_t whylen)
{
	uint32_t	keepers = 0;
	uint32_t	wanted;

	for (int i = 0; i < v->nnodes; i++)
		keepers += v->nodes[i].state != AU_NODE_DRAINING;
	wanted = keepers < v->rf ? keepers : v->rf;
	if (v->nnodes > 0 && wanted == 0)
		return wrong(why, whylen, "no node is to keep slices");
	for (uint32_t i = 0; i < AU_SLICES; i++)
	{
		const AuSlice *s = &v->slices[i];

		if (!list_valid(v, s->owner, s->nowners, AU_RF_MAX) ||
			!list_valid(v, s->target, s->ntarget, AU_RF_MAX) || s->since > v->epoch)
			return wrong(why, whylen, "slice %u has owners or targets that are none", i);
		if (v->nnodes > 0 && s->nowners == 0)
			return wrong(why, whylen, "slice %u has no owner", i);
		if ((s->ntarget > 0 ? s->ntarget : s->nowners) != wanted)
			return wrong(why, whylen, "slice %u is not to have %u owners", i, wanted);
		if (!mending_valid(v, s))
			return wrong(why, whylen, "slice %u may be on none of its owners", i);
		if (!ready_valid(v, s))
			return wrong(why, whylen, "slice %u: who is ready makes no sense", i);
		for (uint32_t j = 0; j < s->ntarget; j++)
			if (au_view_node(v, s->target[j])->state == AU_NODE_DRAINING)
				return wrong(why, whylen, "slice %u moves to a node that drains", i);
	}
	return true;
}

static bool
volumes_valid(const AuView *v, char *why, size_t whylen)
{
	for (int i = 0; i < v->nvolumes; i++)
	{
		const AuViewVolume *vol = &v->volumes[i];
		bool		leaving_is_in = vol->leaving == 0 || au_view_group_has(vol, vol->leaving);

		if (vol->system_identifier == 0 || vol->group_epoch == 0 || vol->settled > 1 ||
			vol->ngroup == 0 || !list_valid(v, vol->group, vol->ngroup, AU_GROUP_MAX) ||
			vol->write_quorum > vol->ngroup || vol->write_quorum * 2 <= vol->ngroup ||
			!leaving_is_in || (vol->leaving != 0 && vol->settled))
			return wrong(why, whylen, "the group of volume %llu is none",
						 (unsigned long long) vol->system_identifier);
		for (int j = 0; j < i; j++)
			if (v->volumes[j].system_identifier == vol->system_identifier)
				return wrong(why, whylen, "volume %llu is there twice",
							 (unsigned long long) vol->system_identifier);
	}
	return true;
}

bool
au_view_valid(const AuView *v, char *why, size_t whylen)
{
	if (v->nnodes > AU_VIEW_NODES_MAX || v->nvolumes > AU_VIEW_VOLUMES_MAX)
		return wrong(why, whylen, "too many nodes or volumes");
	if (v->cluster_id == 0)
	{
		if (v->epoch != 0 || v->nnodes != 0 || v->nvolumes != 0 || v->rf != 0 ||
			v->next_number != 0)
			return wrong(why, whylen, "there is no cluster, but something of it");
	}
	else if (v->epoch == 0 || v->rf == 0 || v->rf > AU_RF_MAX || v->next_number == 0)
		return wrong(why, whylen, "the cluster has no epoch or replicas");
	return nodes_valid(v, why, whylen) && slices_valid(v, why, whylen) &&
		volumes_valid(v, why, whylen);
}
