/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_view.c: the state machine that all nodes of a cluster run: its nodes and
 * slices; see au_view.h for the invariants.
 *
 * A node:
 *                 DRAIN                        REMOVE, owns nothing
 *     JOIN ──▶ JOINING ─────────┬─▶ DRAINING ──────────▶ gone
 *                 │ no slice is │                          ▲
 *                 ▼ on its way  │ DRAIN                    │ REMOVE by force,
 *               ACTIVE ─────────┴──────────────────────────┘ when it is down
 *
 * A slice:
 *
 *     owners ──plan──▶ owners + target ──all targets ready──▶ target owns
 *                        ▲          │
 *                        └───plan───┘
 */
#include "cluster/au_view_int.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#include "cluster/au_ring.h"
#include "core/au_plant.h"

int
au_view_index(const AuView *v, uint32_t number)
{
	for (int i = 0; i < v->nnodes; i++)
		if (v->nodes[i].number == number)
			return i;
	return -1;
}

const AuViewNode *
au_view_node(const AuView *v, uint32_t number)
{
	int			i = au_view_index(v, number);

	return i >= 0 ? &v->nodes[i] : NULL;
}

const AuViewNode *
au_view_node_by_id(const AuView *v, uint64_t node_id)
{
	for (int i = 0; i < v->nnodes; i++)
		if (v->nodes[i].node_id == node_id)
			return &v->nodes[i];
	return NULL;
}

int
au_view_volume_index(const AuView *v, uint64_t system_identifier)
{
	for (int i = 0; i < v->nvolumes; i++)
		if (v->volumes[i].system_identifier == system_identifier)
			return i;
	return -1;
}

const AuViewVolume *
au_view_volume(const AuView *v, uint64_t system_identifier)
{
	int			i = au_view_volume_index(v, system_identifier);

	return i >= 0 ? &v->volumes[i] : NULL;
}

static bool
list_has(const uint32_t *list, uint32_t n, uint32_t number)
{
	for (uint32_t i = 0; i < n; i++)
		if (list[i] == number)
			return true;
	return false;
}

bool
au_view_is_owner(const AuSlice *s, uint32_t number)
{
	return list_has(s->owner, s->nowners, number);
}

static bool
is_target(const AuSlice *s, uint32_t number)
{
	return list_has(s->target, s->ntarget, number);
}

void
au_view_owned(const AuView *v, uint32_t number, AuSliceSet *owned, AuSliceSet *incoming)
{
	memset(owned, 0, sizeof(*owned));
	memset(incoming, 0, sizeof(*incoming));
	for (uint32_t i = 0; i < AU_SLICES; i++)
	{
		if (au_view_is_owner(&v->slices[i], number))
			au_slices_add(owned, i);
		else if (is_target(&v->slices[i], number))
			au_slices_add(incoming, i);
	}
}

static bool
slices_empty(const AuSliceSet *s)
{
	uint64_t	any = 0;

	for (uint32_t i = 0; i < AU_SLICES / 64; i++)
		any |= s->bits[i];
	return any == 0;
}

AuStatus
au_view_refuse(AuStatus status, char *err, size_t errlen, const char *fmt,...)
{
	va_list		args;

	va_start(args, fmt);
	vsnprintf(err, errlen, fmt, args);
	va_end(args);
	return status;
}

AuStatus
au_view_no_such_node(const AuView *v, uint32_t number, char *err, size_t errlen)
{
	return au_view_refuse(AU_REFUSED, err, errlen,
						  number > 0 && number < v->next_number ?
						  "node %u was removed from the cluster" :
						  "there is no node %u in the cluster; see auroractl node list", number);
}

/* ---- slices ----------------------------------------------------------- */

static bool
target_ready(const AuSlice *s)
{
	return s->ready == (1u << s->ntarget) - 1;
}

/* The target owns the slice, if it has all of it. */
bool
au_view_finish_move(AuView *v, AuSlice *s)
{
	if (s->ntarget == 0 || !target_ready(s))
		return false;
	memcpy(s->owner, s->target, sizeof(s->owner));
	s->nowners = s->ntarget;
	memset(s->target, 0, sizeof(s->target));
	s->ntarget = 0;
	s->ready = 0;
	s->since = v->epoch + 1;
	return true;
}

static bool
same_set(const uint32_t *a, uint32_t na, const uint32_t *b, uint32_t nb)
{
	if (na != nb)
		return false;
	for (uint32_t i = 0; i < na; i++)
		if (!list_has(b, nb, a[i]))
			return false;
	return true;
}

/* A slice shall be in these places. */
static void
set_target(AuView *v, AuSlice *s, const AuRingPlaces *p)
{
	AuSlice		old = *s;

	if (s->ntarget > 0 && same_set(s->target, s->ntarget, p->node, p->n))
		return;
	if (s->ntarget == 0 && same_set(s->owner, s->nowners, p->node, p->n))
		return;
	memset(s->target, 0, sizeof(s->target));
	s->ntarget = p->n;
	s->ready = 0;
	s->since = v->epoch + 1;
	for (uint32_t i = 0; i < p->n; i++)
	{
		bool		ready = au_view_is_owner(s, p->node[i]) &&
			au_view_node(v, p->node[i])->mending == 0;

		for (uint32_t j = 0; j < old.ntarget; j++)
			ready = ready || (old.target[j] == p->node[i] && (old.ready >> j & 1));
		/* nobody has anything of it: there is nothing to fetch */
		ready = ready || s->nowners == 0;
		s->target[i] = p->node[i];
		s->ready |= (uint8_t) (ready << i);
	}
	(void) au_view_finish_move(v, s);
}

/* Those on their way are here when nothing is on its way to them. */
void
au_view_promote_joined(AuView *v)
{
	for (int i = 0; i < v->nnodes; i++)
	{
		AuSliceSet	owned,
					incoming;

		if (v->nodes[i].state != AU_NODE_JOINING)
			continue;
		au_view_owned(v, v->nodes[i].number, &owned, &incoming);
		if (slices_empty(&incoming))
			v->nodes[i].state = AU_NODE_ACTIVE;
	}
}

static void
plan_moves(AuView *v, uint32_t changed)
{
	AuRingPlaces plan[AU_SLICES];

	au_ring_plan(v, changed, plan);
	for (uint32_t i = 0; i < AU_SLICES; i++)
		set_target(v, &v->slices[i], &plan[i]);
	au_view_promote_joined(v);
}

static uint32_t
count_keepers(const AuView *v)
{
	uint32_t	n = 0;

	for (int i = 0; i < v->nnodes; i++)
		n += v->nodes[i].state != AU_NODE_DRAINING;
	return n;
}

/* ---- commands --------------------------------------------------------- */

static AuStatus
apply_init(AuView *v, const AuViewCommand *c, bool *changed, char *err, size_t errlen)
{
	if (c->cluster_id == 0 || c->rf == 0 || c->rf > AU_RF_MAX)
		return au_view_refuse(AU_INVALID, err, errlen,
							  "a cluster needs an id, and 1 to %d replicas", AU_RF_MAX);
	if (v->cluster_id == c->cluster_id)
		return AU_OK;
	if (v->cluster_id != 0)
		return au_view_refuse(AU_REFUSED, err, errlen, "there is a cluster already");
	memset(v, 0, sizeof(*v));
	v->cluster_id = c->cluster_id;
	v->rf = c->rf;
	v->next_number = 1;
	*changed = true;
	return AU_OK;
}

static bool
text_fits(const char *s, size_t cap)
{
	return memchr(s, '\0', cap) != NULL;
}

static AuStatus
check_node(const AuView *v, const AuViewNode *n, char *err, size_t errlen)
{
	if (n->node_id == 0 || !text_fits(n->address, sizeof(n->address)) ||
		!text_fits(n->meta_address, sizeof(n->meta_address)) ||
		!text_fits(n->http, sizeof(n->http)) || !text_fits(n->zone, sizeof(n->zone)) ||
		n->address[0] == '\0' || n->meta_address[0] == '\0')
		return au_view_refuse(AU_INVALID, err, errlen,
							  "a node that joins needs an id and two addresses");
	if (n->weight < 1 || n->weight > 10000)
		return au_view_refuse(AU_INVALID, err, errlen, "a node's weight is 1 to 10000, not %u",
							  n->weight);
	for (int i = 0; i < v->nnodes; i++)
	{
		const AuViewNode *o = &v->nodes[i];

		if (o->node_id == n->node_id)
			continue;
		if (strcmp(o->address, n->address) == 0 || strcmp(o->meta_address, n->meta_address) == 0)
			return au_view_refuse(AU_REFUSED, err, errlen,
								  "node %u has the address %s; if it is gone for ever, remove it first: auroractl node remove %u --force",
								  o->number, strcmp(o->address, n->address) == 0 ? n->address :
								  n->meta_address, o->number);
	}
	return AU_OK;
}

/* Text into a zeroed field: what follows the end stays zero. */
static void
set_text(char *field, size_t cap, const char *text)
{
	memset(field, 0, cap);
	memcpy(field, text, strlen(text));
}

static void
set_places_of_node(AuViewNode *to, const AuViewNode *from)
{
	set_text(to->address, sizeof(to->address), from->address);
	set_text(to->meta_address, sizeof(to->meta_address), from->meta_address);
	set_text(to->http, sizeof(to->http), from->http);
	set_text(to->zone, sizeof(to->zone), from->zone);
}

/* A node that is known says where it is now. */
static void
rejoin(AuView *v, AuViewNode *known, const AuViewNode *n, bool *changed)
{
	AuViewNode	old = *known;

	set_places_of_node(known, n);
	known->up = 1;
	*changed = old.up != known->up || strcmp(old.address, known->address) != 0 ||
		strcmp(old.meta_address, known->meta_address) != 0 ||
		strcmp(old.http, known->http) != 0 || strcmp(old.zone, known->zone) != 0;
	if (strcmp(old.zone, known->zone) != 0)
		plan_moves(v, 0);
}

/* Of the numbers from there on one was given to a node that is gone. */
static bool
gave_up_since(const AuView *v, uint32_t number)
{
	for (; number < v->next_number; number++)
		if (au_view_index(v, number) < 0)
			return true;
	return false;
}

static AuStatus
apply_join(AuView *v, const AuViewCommand *c, bool *changed, char *err, size_t errlen)
{
	const AuViewNode *known = au_view_node_by_id(v, c->node.node_id);
	AuStatus	status;
	AuViewNode *n;

	/* One that was given up and does not know: its slices, and its part in
	 * consensus, are not what it thinks. */
	if (c->node.number != 0 && (known == NULL || known->number != c->node.number))
		return au_view_refuse(AU_REFUSED, err, errlen,
							  "it is not node %u any more, which was removed; give it an empty --dir to join again",
							  c->node.number);
	status = check_node(v, &c->node, err, errlen);
	if (status != AU_OK)
		return status;
	for (int i = 0; i < v->nnodes; i++)
		if (v->nodes[i].node_id == c->node.node_id)
		{
			rejoin(v, &v->nodes[i], &c->node, changed);
			return AU_OK;
		}
	if (c->with != 0 && gave_up_since(v, c->with))
		return au_view_refuse(AU_REFUSED, err, errlen,
							  "a node was removed since this one asked to join, maybe itself; it asks again with the view as it is now");
	if (v->nnodes == AU_VIEW_NODES_MAX)
		return au_view_refuse(AU_FULL, err, errlen, "the cluster has %d nodes already, that is the limit",
							  AU_VIEW_NODES_MAX);
	n = &v->nodes[v->nnodes++];
	memset(n, 0, sizeof(*n));
	n->number = v->next_number++;
	n->node_id = c->node.node_id;
	set_places_of_node(n, &c->node);
	n->weight = c->node.weight;
	n->state = AU_NODE_JOINING;
	n->up = 1;
	plan_moves(v, n->number);
	*changed = true;
	return AU_OK;
}

static AuStatus
apply_drain(AuView *v, uint32_t number, bool *changed, char *err, size_t errlen)
{
	AuViewNode *n = (AuViewNode *) au_view_node(v, number);

	if (n == NULL)
		return au_view_no_such_node(v, number, err, errlen);
	if (n->state == AU_NODE_DRAINING)
		return AU_OK;
	if (count_keepers(v) == 1)
		return au_view_refuse(AU_REFUSED, err, errlen,
							  "node %u is the only one that keeps slices; join another one first", number);
	n->state = AU_NODE_DRAINING;
	plan_moves(v, 0);
	*changed = true;
	return AU_OK;
}

/* Somebody else is an owner, and not about to get the slice anew. */
static bool
others_have(const AuView *v, const AuSlice *s, uint32_t number)
{
	for (uint32_t i = 0; i < s->nowners; i++)
		if (s->owner[i] != number && au_view_node(v, s->owner[i])->mending == 0)
			return true;
	return false;
}

int
au_view_voters_wanted(int nodes)
{
	return nodes >= 5 ? 5 : nodes >= 3 ? 3 : nodes;
}

/* A node that is up and goes takes its vote along: those that stay must be able
 * to agree on that, and on what comes after it. */
static AuStatus
check_votes(const AuView *v, const AuViewNode *leaves, char *err, size_t errlen)
{
	int			stay = 0;
	int			up = 0;

	for (int i = 0; i < v->nnodes; i++)
	{
		const AuViewNode *n = &v->nodes[i];

		if (n == leaves || n->state == AU_NODE_DRAINING)
			continue;
		stay++;
		up += n->up;
	}
	if (!leaves->up || up * 2 > au_view_voters_wanted(stay))
		return AU_OK;
	return au_view_refuse(AU_REFUSED, err, errlen,
						  "without node %u only %d of %d nodes would be up, too few for the cluster to agree on anything; bring others back first, or remove those that are gone for ever: auroractl node remove NUMBER --force",
						  leaves->number, up, stay);
}

/* May the node go?  by force: its slices have other owners. */
static AuStatus
check_remove(const AuView *v, const AuViewNode *n, bool force, char *err, size_t errlen)
{
	for (int i = 0; i < v->nvolumes; i++)
		if (au_view_group_has(&v->volumes[i], n->number))
			return au_view_refuse(AU_REFUSED, err, errlen,
								  "node %u keeps the log of volume %llu; %s", n->number,
								  (unsigned long long) v->volumes[i].system_identifier,
								  n->state == AU_NODE_DRAINING ?
								  "it is replaced when the volume's writer has taken the change, wait for that" :
								  "drain it first: auroractl node drain");
	if (force && n->up)
		return au_view_refuse(AU_REFUSED, err, errlen,
							  "node %u is up; drain it, then remove it without force", n->number);
	if (n->state != AU_NODE_DRAINING && count_keepers(v) == 1)
		return au_view_refuse(AU_REFUSED, err, errlen,
							  "node %u is the only one that keeps slices; join another one first", n->number);
	if (check_votes(v, n, err, errlen) != AU_OK)
		return AU_REFUSED;
	for (uint32_t i = 0; i < AU_SLICES; i++)
	{
		const AuSlice *s = &v->slices[i];

		if (!au_view_is_owner(s, n->number))
			continue;
		if (!force)
			return au_view_refuse(AU_REFUSED, err, errlen,
								  "node %u has slices; drain it first: auroractl node drain %u",
								  n->number, n->number);
		if (!others_have(v, s, n->number))
			return au_view_refuse(AU_REFUSED, err, errlen,
								  "node %u is the only one that has slice %u; bring it back", n->number, i);
	}
	return AU_OK;
}

static AuStatus
apply_remove(AuView *v, uint32_t number, bool force, bool *changed, char *err, size_t errlen)
{
	int			index = au_view_index(v, number);
	AuStatus	status;

	if (index < 0)
		return au_view_no_such_node(v, number, err, errlen);
	status = check_remove(v, &v->nodes[index], force, err, errlen);
	if (status != AU_OK)
		return status;
	for (uint32_t i = 0; i < AU_SLICES; i++)
	{
		AuSlice    *s = &v->slices[i];
		uint8_t		n = 0;

		for (uint8_t j = 0; j < s->nowners; j++)
			if (s->owner[j] != number)
				s->owner[n++] = s->owner[j];
		for (uint8_t j = n; j < s->nowners; j++)
			s->owner[j] = 0;
		s->nowners = n;
	}
	v->nnodes--;
	memmove(&v->nodes[index], &v->nodes[index + 1],
			(size_t) (v->nnodes - index) * sizeof(v->nodes[0]));
	memset(&v->nodes[v->nnodes], 0, sizeof(v->nodes[0]));
	plan_moves(v, 0);
	*changed = true;
	return AU_OK;
}

static AuStatus
apply_weight(AuView *v, const AuViewCommand *c, bool *changed, char *err, size_t errlen)
{
	AuViewNode *n = (AuViewNode *) au_view_node(v, c->number);

	if (n == NULL)
		return au_view_no_such_node(v, c->number, err, errlen);
	if (c->node.weight < 1 || c->node.weight > 10000)
		return au_view_refuse(AU_INVALID, err, errlen, "a node's weight is 1 to 10000, not %u",
							  c->node.weight);
	if (n->weight == c->node.weight)
		return AU_OK;
	n->weight = c->node.weight;
	plan_moves(v, c->number);
	*changed = true;
	return AU_OK;
}

static AuStatus
apply_flag(AuView *v, const AuViewCommand *c, bool *changed, char *err, size_t errlen)
{
	AuViewNode *n = (AuViewNode *) au_view_node(v, c->number);
	uint8_t    *flag;

	if (n == NULL)
		return au_view_no_such_node(v, c->number, err, errlen);
	if (c->up > 1)
		return au_view_refuse(AU_INVALID, err, errlen, "a node is up or not, not %u", c->up);
	flag = c->type == AU_VIEW_UP ? &n->up : &n->voter;
	*changed = *flag != c->up;
	*flag = c->up;
	return AU_OK;
}

static AuStatus
apply_ready(AuView *v, const AuViewCommand *c, bool *changed, char *err, size_t errlen)
{
	if (au_view_node(v, c->number) == NULL)
		return au_view_no_such_node(v, c->number, err, errlen);
	if (au_view_node(v, c->number)->mending != 0)
		return AU_OK;			/* it may throw away what it has */
	for (uint32_t i = 0; i < AU_SLICES; i++)
	{
		AuSlice    *s = &v->slices[i];

		if (!au_slices_has(&c->slices, i) ||
			(c->epoch < s->since && !AU_PLANTED(AU_PLANT_STALE_READY)))
			continue;
		for (uint32_t j = 0; j < s->ntarget; j++)
			if (s->target[j] == c->number && !(s->ready >> j & 1))
			{
				s->ready |= (uint8_t) (1u << j);
				*changed = true;
			}
		(void) au_view_finish_move(v, s);
	}
	if (*changed)
		au_view_promote_joined(v);
	return AU_OK;
}

static AuStatus
apply_one(AuView *v, const AuViewCommand *c, bool *changed, char *err, size_t errlen)
{
	if (c->type != AU_VIEW_INIT && v->cluster_id == 0)
		return au_view_refuse(AU_REFUSED, err, errlen, "there is no cluster yet");
	switch ((AuViewCommandType) c->type)
	{
		case AU_VIEW_INIT:
			return apply_init(v, c, changed, err, errlen);
		case AU_VIEW_JOIN:
			return apply_join(v, c, changed, err, errlen);
		case AU_VIEW_DRAIN:
			return apply_drain(v, c->number, changed, err, errlen);
		case AU_VIEW_REMOVE:
			return apply_remove(v, c->number, c->up != 0, changed, err, errlen);
		case AU_VIEW_WEIGHT:
			return apply_weight(v, c, changed, err, errlen);
		case AU_VIEW_UP:
		case AU_VIEW_VOTER:
			return apply_flag(v, c, changed, err, errlen);
		case AU_VIEW_SLICES_READY:
			return apply_ready(v, c, changed, err, errlen);
		case AU_VIEW_VOLUME_ADD:
			return au_view_volume_add(v, c, changed, err, errlen);
		case AU_VIEW_GROUP_REPLACE:
			return au_view_group_replace(v, c, changed, err, errlen);
		case AU_VIEW_GROUP_SETTLED:
			return au_view_group_settled(v, c, changed, err, errlen);
		case AU_VIEW_MENDING:
			return au_view_mending(v, c, changed, err, errlen);
	}
	return au_view_refuse(AU_INVALID, err, errlen, "there is no command of type %u", c->type);
}

AuStatus
au_view_apply(AuView *v, const AuViewCommand *c, bool *changed, char *err, size_t errlen)
{
	const AuView old = *v;
	AuStatus	status;
	char		why[128] = "";

	*changed = false;
	if (errlen > 0)
		err[0] = '\0';
	status = apply_one(v, c, changed, err, errlen);
	assert(status == AU_OK || !*changed);
	if (!*changed)
		return status;
	(void) au_view_groups_tend(v);
	v->epoch++;
	if (!au_view_valid(v, why, sizeof(why)))
	{
		/* A mistake of ours.  The command is in the log of all nodes for good:
		 * to end here would be to end all of them, at each start. */
		*v = old;
		*changed = false;
		return au_view_refuse(AU_CORRUPT, err, errlen,
							  "the command would break the view (%s); please report this", why);
	}
	return AU_OK;
}

/* ---- most voters are lost ---------------------------------------------- */

void
au_view_recover(AuView *v)
{
	v->epoch += AU_VIEW_RECOVER_EPOCHS;
	v->next_number += AU_VIEW_RECOVER_NUMBERS;
}

bool
au_view_apply_recovered(AuView *v, const AuView *recovered)
{
	if ((v->cluster_id != 0 && v->cluster_id != recovered->cluster_id) ||
		recovered->epoch <= v->epoch || recovered->next_number < v->next_number)
		return false;
	*v = *recovered;
	return true;
}
