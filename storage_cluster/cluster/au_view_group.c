/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_view_group.c: which nodes keep the log of which volume.
 *
 * A group changes by one node at a time, and only when a writer was elected
 * in it as it is: with majorities of n and n + 1 nodes as quorums, a quorum of
 * the one group always meets one of the other (Ongaro 2014, section 4.1).
 *
 *     settled ──REPLACE a by b──▶ a, b, ...   ──SETTLED──▶ b, ...  ──SETTLED──▶
 *                                 leaving: a               a is gone    settled
 */
#include "cluster/au_view_int.h"

bool
au_view_group_has(const AuViewVolume *vol, uint32_t number)
{
	for (uint32_t i = 0; i < vol->ngroup; i++)
		if (vol->group[i] == number)
			return true;
	return false;
}

void
au_view_group(const AuView *v, const AuViewVolume *vol, AuGroup *out)
{
	memset(out, 0, sizeof(*out));
	for (uint32_t i = 0; i < vol->ngroup; i++)
	{
		const AuViewNode *n = au_view_node(v, vol->group[i]);

		if (n == NULL)
			continue;			/* not in a valid view */
		out->members[out->n].node_id = n->node_id;
		memcpy(out->members[out->n].address, n->address, AU_ADDRESS_MAX);
		out->n++;
	}
	out->epoch = vol->group_epoch;
	out->write_quorum = vol->write_quorum;
}

static uint8_t
majority(uint32_t n)
{
	return (uint8_t) (n / 2 + 1);
}

static uint32_t
count_groups(const AuView *v, uint32_t number)
{
	uint32_t	n = 0;

	for (int i = 0; i < v->nvolumes; i++)
		n += au_view_group_has(&v->volumes[i], number);
	return n;
}

static bool
group_has_zone(const AuView *v, const AuViewVolume *vol, const char *zone, uint32_t without)
{
	for (uint32_t i = 0; i < vol->ngroup; i++)
		if (vol->group[i] != without &&
			strcmp(au_view_node(v, vol->group[i])->zone, zone) == 0)
			return true;
	return false;
}

/*
 * The best node to keep the volume's log that does not yet: one that is up, in
 * a zone of its own, with few logs; then by chance that is the same everywhere.
 * `without` is to leave the group.  0: there is none.
 */
static uint32_t
best_member(const AuView *v, const AuViewVolume *vol, uint32_t without)
{
	uint32_t	best = 0;
	uint64_t	best_rank = 0;

	for (int i = 0; i < v->nnodes; i++)
	{
		const AuViewNode *n = &v->nodes[i];
		uint64_t	rank;

		if (n->state == AU_NODE_DRAINING || au_view_group_has(vol, n->number))
			continue;
		rank = au_mix64(au_mix64(n->node_id) ^ vol->system_identifier) >> 16;
		rank |= (uint64_t) (AU_VIEW_VOLUMES_MAX - count_groups(v, n->number)) << 48;
		rank |= (uint64_t) !group_has_zone(v, vol, n->zone, without) << 56;
		rank |= (uint64_t) n->up << 57;
		if (best == 0 || rank > best_rank)
		{
			best = n->number;
			best_rank = rank;
		}
	}
	return best;
}

AuStatus
au_view_volume_add(AuView *v, const AuViewCommand *c, bool *changed, char *err, size_t errlen)
{
	AuViewVolume vol = {.system_identifier = c->system_identifier, .group_epoch = 1};
	uint32_t	ngroup = c->ngroup > 0 ? c->ngroup : 3;

	if (c->system_identifier == 0 || ngroup > AU_GROUP_MAX)
		return au_view_refuse(AU_INVALID, err, errlen,
							  "a volume needs a system identifier, and its log at most %d nodes",
							  AU_GROUP_MAX);
	if (au_view_volume(v, c->system_identifier) != NULL)
		return AU_OK;
	if (v->nvolumes == AU_VIEW_VOLUMES_MAX)
		return au_view_refuse(AU_FULL, err, errlen, "the cluster has %d volumes already, that is the limit",
							  AU_VIEW_VOLUMES_MAX);
	while (vol.ngroup < ngroup)
	{
		uint32_t	number = best_member(v, &vol, 0);

		if (number == 0)
			break;
		vol.group[vol.ngroup++] = number;
	}
	if (vol.ngroup == 0 || (c->ngroup > 0 && vol.ngroup < c->ngroup))
		return au_view_refuse(AU_REFUSED, err, errlen,
							  "the log is to be kept by %u nodes, the cluster has only %u; join more first",
							  ngroup, vol.ngroup);
	vol.write_quorum = c->write_quorum > 0 ? c->write_quorum : majority(vol.ngroup);
	if (vol.write_quorum > vol.ngroup || vol.write_quorum < majority(vol.ngroup))
		return au_view_refuse(AU_REFUSED, err, errlen,
							  "a write quorum of %u among %u nodes is not possible; it must be %u to %u",
							  vol.write_quorum, vol.ngroup, majority(vol.ngroup), vol.ngroup);
	v->volumes[v->nvolumes++] = vol;
	*changed = true;
	return AU_OK;
}

/* A quorum stays as far above the majority as it was. */
static void
next_epoch(AuViewVolume *vol, uint8_t old_n)
{
	uint32_t	quorum = majority(vol->ngroup) + (vol->write_quorum - majority(old_n));

	vol->write_quorum = (uint8_t) (quorum < vol->ngroup ? quorum : vol->ngroup);
	vol->group_epoch++;
	vol->settled = 0;
}

static void
add_member(AuViewVolume *vol, uint32_t number)
{
	vol->group[vol->ngroup++] = number;
	next_epoch(vol, (uint8_t) (vol->ngroup - 1));
}

static void
remove_member(AuViewVolume *vol, uint32_t number)
{
	uint8_t		n = 0;

	for (uint8_t i = 0; i < vol->ngroup; i++)
		if (vol->group[i] != number)
			vol->group[n++] = vol->group[i];
	vol->group[n] = 0;
	vol->ngroup = n;
	vol->leaving = 0;
	next_epoch(vol, (uint8_t) (n + 1));
}

static AuViewVolume *
find_volume(AuView *v, uint64_t system_identifier, char *err, size_t errlen)
{
	AuViewVolume *vol = (AuViewVolume *) au_view_volume(v, system_identifier);

	if (vol == NULL)
		(void) au_view_refuse(AU_REFUSED, err, errlen, "the cluster has no volume %llu",
							  (unsigned long long) system_identifier);
	return vol;
}

static AuStatus
check_replace(const AuView *v, const AuViewVolume *vol, const AuViewCommand *c,
			  char *err, size_t errlen)
{
	const AuViewNode *with = au_view_node(v, c->with);

	if (c->number == 0 && c->with == 0)
		return au_view_refuse(AU_INVALID, err, errlen, "name a node to add or one to remove");
	if (c->number != 0 && !au_view_group_has(vol, c->number))
		return au_view_refuse(AU_REFUSED, err, errlen, "node %u does not keep the log of volume %llu",
							  c->number, (unsigned long long) vol->system_identifier);
	if (c->with != 0 && with == NULL)
		return au_view_refuse(AU_REFUSED, err, errlen, "there is no node %u in the cluster", c->with);
	if (c->with != 0 && (with->state == AU_NODE_DRAINING || au_view_group_has(vol, c->with)))
		return au_view_refuse(AU_REFUSED, err, errlen, with->state == AU_NODE_DRAINING ?
							  "node %u is being drained; choose another one" :
							  "node %u keeps the volume's log already", c->with);
	if (c->with != 0 && vol->ngroup == AU_GROUP_MAX)
		return au_view_refuse(AU_FULL, err, errlen, "the log is kept by %d nodes already; remove one first",
							  AU_GROUP_MAX);
	if (c->with == 0 && vol->ngroup == 1)
		return au_view_refuse(AU_REFUSED, err, errlen, "node %u is the only one that keeps the log of volume %llu; add another one first",
							  c->number, (unsigned long long) vol->system_identifier);
	if (!vol->settled)
		return au_view_refuse(AU_REFUSED, err, errlen,
							  "the last change of the volume's group is not done; it is when the volume's writer was elected in it, try again then");
	return AU_OK;
}

AuStatus
au_view_group_replace(AuView *v, const AuViewCommand *c, bool *changed, char *err, size_t errlen)
{
	AuViewVolume *vol = find_volume(v, c->system_identifier, err, errlen);
	AuStatus	status;

	if (vol == NULL)
		return AU_REFUSED;
	status = check_replace(v, vol, c, err, errlen);
	if (status != AU_OK)
		return status;
	if (c->with != 0)
	{
		vol->leaving = c->number;
		add_member(vol, c->with);
	}
	else
		remove_member(vol, c->number);
	*changed = true;
	return AU_OK;
}

AuStatus
au_view_group_settled(AuView *v, const AuViewCommand *c, bool *changed, char *err, size_t errlen)
{
	AuViewVolume *vol = find_volume(v, c->system_identifier, err, errlen);

	if (vol == NULL)
		return AU_REFUSED;
	if (c->group_epoch > vol->group_epoch)
		return au_view_refuse(AU_INVALID, err, errlen,
							  "there is no epoch %u of the group of volume %llu yet", c->group_epoch,
							  (unsigned long long) vol->system_identifier);
	if (c->group_epoch < vol->group_epoch || vol->settled)
		return AU_OK;			/* said before */
	vol->settled = 1;
	if (vol->leaving != 0)
		remove_member(vol, vol->leaving);
	*changed = true;
	return AU_OK;
}

bool
au_view_groups_tend(AuView *v)
{
	bool		changed = false;

	for (int i = 0; i < v->nvolumes; i++)
	{
		AuViewVolume *vol = &v->volumes[i];
		uint32_t	draining = 0;
		uint32_t	with;

		if (!vol->settled)
			continue;
		for (uint32_t j = 0; j < vol->ngroup && draining == 0; j++)
			if (au_view_node(v, vol->group[j])->state == AU_NODE_DRAINING)
				draining = vol->group[j];
		if (draining == 0)
			continue;
		with = vol->ngroup < AU_GROUP_MAX ? best_member(v, vol, draining) : 0;
		if (with != 0)
		{
			vol->leaving = draining;
			add_member(vol, with);
		}
		else if (vol->ngroup > 1)
			remove_member(vol, draining);
		else
			continue;
		changed = true;
	}
	return changed;
}
