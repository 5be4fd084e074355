/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_view.c: the cluster that the nodes are in: the real view and its state
 * machine (cluster/au_view), consensus as a list of commands, and who hears of
 * it when.  Three nodes keep the log of the volume, always the same; all of them
 * have slices of its pages, and the others join, are drained, removed and come
 * back empty.
 *
 * Commands arrive late, twice, after the process that sent them; the answer
 * gets lost.  Nodes have old views, or after a start none.  Who is cut off from
 * most others neither sends nor hears anything.  (How views come about is
 * sim/cluster's.)
 *
 * Invariant: whoever the view calls an owner of a slice, and not mending, has
 * all its committed versions up to its position, in files.
 */
#include "sim/sim.h"

#include <stdlib.h>

#define GROUP 3

static uint32_t
number_of(const SimNode *n)
{
	const AuViewNode *v = au_view_node_by_id(&n->sim->views.head, sim_node_id(n));

	return v != NULL ? v->number : 0;
}

bool
sim_view_has(const SimNode *n)
{
	return number_of(n) != 0;
}

bool
sim_view_mends(const SimNode *n)
{
	return n->sim->views.on && au_view_mends(&n->sim->views.head, number_of(n), SIM_SYSID);
}

static SimNode *
node_of(Sim *s, uint32_t number)
{
	for (uint32_t i = 0; i < s->nnodes; i++)
		if (number_of(&s->nodes[i]) == number)
			return &s->nodes[i];
	return NULL;
}

/* It can talk to most of the nodes. */
static bool
reaches(const SimNode *n)
{
	const Sim  *s = n->sim;
	uint32_t	with = 0;

	for (uint32_t i = 0; i < s->nnodes; i++)
		with += s->nodes[i].up && s->blocked_until[n->index][i] <= s->now &&
			s->blocked_until[i][n->index] <= s->now;
	return n->up && n->paused_until <= s->now && with * 2 > s->nnodes;
}

/* ---- what must hold ---------------------------------------------------- */

/* All committed versions of a page up to its persisted position. */
static bool
has_all(const SimNode *n, uint32_t place)
{
	const SimStore *a = &n->store;
	const SimStore *b = &n->sim->model;
	size_t		i = 0;

	for (size_t k = 0; k < b->n && b->records[k].end <= n->persisted_applied; k++)
	{
		if (b->records[k].blk != place)
			continue;
		while (i < a->n && (a->records[i].blk != place || a->records[i].end < b->records[k].end))
			i++;
		if (i == a->n || a->records[i].end != b->records[k].end ||
			memcmp(a->bytes + a->records[i].ops, b->bytes + b->records[k].ops, b->records[k].len) != 0)
			return false;
	}
	return true;
}

static void
check_owner(Sim *s, uint32_t place, uint32_t number, bool all)
{
	const SimNode *n = node_of(s, number);

	if (au_view_mends(&s->views.head, number, SIM_SYSID))
		return;
	if (n == NULL || !n->exists || !sim_slices_lasting(n, place))
		sim_fail(s, "node %d owns slice %u, as of epoch %llu, and does not have it in files",
				 n != NULL ? n->index : -1, sim_slice_of(place), (unsigned long long) s->views.head.epoch);
	else if (all && !has_all(n, place))
		sim_fail(s, "node %d owns slice %u, as of epoch %llu, and lacks versions of it", n->index,
				 sim_slice_of(place), (unsigned long long) s->views.head.epoch);
}

static void
check_owners(Sim *s, const AuView *before, bool all)
{
	for (uint32_t place = 0; place < SIM_BLOCKS && s->views.begun && !s->broken; place++)
	{
		const AuSlice *now = &s->views.head.slices[sim_slice_of(place)];
		const AuSlice *was = &before->slices[sim_slice_of(place)];
		bool		moved = memcmp(now->owner, was->owner, sizeof(now->owner)) != 0;

		s->figures.moves += moved;
		for (uint32_t i = 0; i < now->nowners; i++)
			check_owner(s, place, now->owner[i], all || moved);
	}
}

/* ---- consensus ----------------------------------------------------------- */

static AuStatus
commit(Sim *s, const AuViewCommand *c, char *err, size_t errlen)
{
	static AuView before;
	bool		changed = false;
	AuStatus	status;

	before = s->views.head;
	err[0] = '\0';
	status = au_view_apply(&s->views.head, c, &changed, err, errlen);
	if (status == AU_CORRUPT)
		sim_fail(s, "%s", err);
	if (c->type != AU_VIEW_SLICES_READY || changed)
		sim_say(s, "view %llu: command %u about node %u%s %s", (unsigned long long) s->views.head.epoch,
				c->type, c->number, changed ? "" : ": no change", err);
	if (!changed)
		return status;
	sim_trace(s, 0x71e3 + c->type, s->views.head.epoch);
	check_owners(s, &before, c->type == AU_VIEW_MENDING && !c->up);
	return status;
}

static void
commit_simply(Sim *s, const AuViewCommand *c)
{
	char		err[512];

	(void) commit(s, c, err, sizeof(err));
}

static SimCommandOn *
fly(SimNode *n, const AuViewCommand *c, uint64_t delay)
{
	Sim		   *s = n->sim;

	for (SimCommandOn *f = s->views.on_way; f < s->views.on_way + SIM_COMMANDS_MAX; f++)
		if (f->node == NULL)
		{
			*f = (SimCommandOn)
			{
				.node = n,.process = n->process,.due = s->now + 1 + sim_below(s, delay),.command = *c
			};
			f->command.number = n->view_number;
			return f;
		}
	return NULL;
}

/* It is sent once or twice, if the node reaches anybody; NULL: it does not. */
static SimCommandOn *
propose(SimNode *n, const AuViewCommand *c)
{
	Sim		   *s = n->sim;
	bool		late = !s->quiet && sim_one_in(s, 10);

	if (n->view_number == 0 || !reaches(n))
		return NULL;
	if (!s->quiet && sim_one_in(s, 10))
		(void) fly(n, c, 3000000);
	return fly(n, c, late ? 2000000 : 20000);
}

static void
arrive(Sim *s, SimCommandOn *f)
{
	SimNode    *n = f->node;

	if (!f->taken)
	{
		f->taken = true;
		f->status = commit(s, &f->command, f->err, sizeof(f->err));
		if (!s->quiet && sim_one_in(s, 5))
		{
			f->status = AU_IO;
			snprintf(f->err, sizeof(f->err), "nobody knows whether it was taken");
		}
	}
	if (f->answer && n->up && n->process == f->process)
	{
		if (n->paused_until > s->now)
			return;
		au_node_mending_told(n->node, n, f->command.up, f->status, f->err);
	}
	f->node = NULL;
}

/* ---- the node's side --------------------------------------------------------- */

static void
slices_ready(void *ctx, const AuSliceSet *slices, uint64_t epoch)
{
	AuViewCommand c = {.type = AU_VIEW_SLICES_READY,.slices = *slices,.epoch = epoch};

	(void) propose(ctx, &c);
}

static bool
mending(void *ctx, void *vol, bool on, uint64_t epoch)
{
	AuViewCommand c = {
		.type = AU_VIEW_MENDING,.system_identifier = SIM_SYSID,.up = on,.epoch = epoch
	};
	SimCommandOn *f = propose(ctx, &c);

	(void) vol;
	if (f != NULL)
		f->answer = true;
	return f != NULL;
}

static void
give_view(SimNode *n)
{
	const AuViewNode *self = au_view_node_by_id(&n->view, sim_node_id(n));

	if (au_node_set_view(n->node, &n->view) != AU_OK)
		abort();
	n->view_number = self != NULL ? self->number : 0;
	n->heard = n->view.epoch;
}

void
sim_view_init_node(SimNode *n)
{
	n->host.slices_ready = slices_ready;
	n->host.mending = mending;
}

/* What it knew is on its disk; or only a part of it that is of no use yet. */
void
sim_view_start(SimNode *n)
{
	n->process++;
	n->view_number = 0;
	au_node_in_cluster(n->node);
	n->heard = 0;
	if (n->view.cluster_id != 0 && sim_one_in(n->sim, 2))
		give_view(n);
}

static void
hear(SimNode *n)
{
	Sim		   *s = n->sim;

	if (n->heard == s->views.head.epoch || !sim_one_in(s, s->views.lag) || !reaches(n))
		return;
	n->view = s->views.head;
	give_view(n);
}

/* Others find out, late, whether it is there. */
static void
look_after(SimNode *n)
{
	const AuViewNode *v = au_view_node_by_id(&n->sim->views.head, sim_node_id(n));
	AuViewCommand c = {.type = AU_VIEW_UP,.up = reaches(n)};

	if (v == NULL || v->up == c.up || !sim_one_in(n->sim, 400))
		return;
	c.number = v->number;
	commit_simply(n->sim, &c);
}

/* ---- the administrator ------------------------------------------------------- */

static void
join(SimNode *n)
{
	AuViewCommand c = {.type = AU_VIEW_JOIN};

	c.node.node_id = sim_node_id(n);
	c.node.weight = 100;
	snprintf(c.node.address, sizeof(c.node.address), "n%d", n->index);
	snprintf(c.node.meta_address, sizeof(c.node.meta_address), "m%d", n->index);
	commit_simply(n->sim, &c);
}

/* It may go, if it has nothing left, or by force if others have all it had; it
 * comes back another day, as a new one.  (Not while a single one that is left
 * may be away until its log is gone.) */
static void
remove_node(SimNode *n, bool force)
{
	AuViewCommand c = {.type = AU_VIEW_REMOVE,.number = number_of(n),.up = force};

	commit_simply(n->sim, &c);
	if (!sim_view_has(n))
		sim_node_wipe(n);
}

static uint32_t
staying(const Sim *s)
{
	uint32_t	count = 0;

	for (int i = 0; i < s->views.head.nnodes; i++)
		count += s->views.head.nodes[i].state != AU_NODE_DRAINING;
	return count;
}

static void
administer(Sim *s)
{
	SimNode    *n = &s->nodes[sim_below(s, s->nnodes)];
	const AuViewNode *v = au_view_node_by_id(&s->views.head, sim_node_id(n));
	AuViewCommand c = {.number = number_of(n)};

	if (sim_repair_wrong(s))
		return;					/* nothing copies what only comparing finds */
	if (v == NULL && n->up)
		join(n);
	else if (v != NULL && v->state == AU_NODE_DRAINING)
		remove_node(n, false);
	else if (v != NULL && !v->up && !n->up && n->index >= GROUP && !s->behind && !sim_repair_hurt(s))
		remove_node(n, true);
	else if (v != NULL && n->index >= GROUP && sim_one_in(s, 2) && staying(s) > s->views.head.rf)
	{
		c.type = AU_VIEW_DRAIN;
		commit_simply(s, &c);
	}
	else if (v != NULL)
	{
		c.type = AU_VIEW_WEIGHT;
		c.node.weight = (uint16_t) (30 + sim_below(s, 300));
		commit_simply(s, &c);
	}
}

/* ---- a run ------------------------------------------------------------------- */

bool
sim_view_at_rest(const Sim *s)
{
	const AuView *v = &s->views.head;

	for (uint32_t i = 0; i < AU_SLICES; i++)
		if (v->slices[i].ntarget > 0)
			return false;
	for (int i = 0; i < v->nnodes; i++)
		if (v->nodes[i].mending != 0)
			return false;
	return true;
}

void
sim_view_init(Sim *s)
{
	SimViews   *v = &s->views;
	AuViewCommand init = {.type = AU_VIEW_INIT,.cluster_id = 0xc1,.rf = v->rf};
	AuViewCommand volume = {
		.type = AU_VIEW_VOLUME_ADD,.system_identifier = SIM_SYSID,.write_quorum = 2,.ngroup = GROUP
	};

	commit_simply(s, &init);
	for (uint32_t i = 0; i < s->nnodes; i++)
	{
		s->nodes[i].sim = s;
		s->nodes[i].index = (int) i;
		if (i == GROUP)
			commit_simply(s, &volume);
		if (i < GROUP + 1 || sim_one_in(s, 2))
			join(&s->nodes[i]);
	}
	s->groups.on = true;
	s->groups.epoch = s->groups.checked = 1;
	s->groups.leaving = -1;
	au_view_group(&v->head, au_view_volume(&v->head, SIM_SYSID), &s->groups.was[0]);
}

/* Nodes that are behind, soon will be, or are made anew; apart from this one. */
uint32_t
sim_view_lag(const Sim *s, const SimNode *n)
{
	AuLsn		end = SIM_BASE + s->truth_len;
	uint32_t	count = 0;

	for (uint32_t i = 0; i < s->nnodes; i++)
	{
		const SimNode *o = &s->nodes[i];

		if (o != n && sim_view_has(o) &&
			(!reaches(o) || sim_view_mends(o) || o->full_until > s->now || o->io_error_until > s->now ||
			 o->log_durable + s->swarm.keep_bytes / 4 < end))
			count++;
	}
	return count;
}

void
sim_view_tick(Sim *s)
{
	SimViews   *v = &s->views;
	bool		all = true;

	for (SimCommandOn *f = v->on_way; f < v->on_way + SIM_COMMANDS_MAX; f++)
		if (f->node != NULL && s->now >= f->due)
			arrive(s, f);
	for (uint32_t i = 0; i < s->nnodes; i++)
	{
		all = all && (s->nodes[i].exists || !sim_view_has(&s->nodes[i]));
		look_after(&s->nodes[i]);
		hear(&s->nodes[i]);
	}
	/* who becomes an owner before anybody has the volume has nothing to fetch */
	v->begun = v->begun || (all && sim_view_at_rest(s));
	if (v->begun && !s->quiet && sim_one_in(s, v->admin))
		administer(s);
	if (s->figures.ticks % 200 == 0)
		check_owners(s, &v->head, false);
}

const char *
sim_view_missing(const SimNode *n)
{
	static char text[200];
	const SimKept *k = &n->slices.now;
	AuSliceSet	kept = k->kept;
	AuSliceSet	owned,
				incoming;

	if (!k->told)
		memset(&kept, 0xFF, sizeof(kept));
	if (!sim_view_at_rest(n->sim))
		return "slices move, or nodes mend";
	au_view_owned(&n->sim->views.head, number_of(n), &owned, &incoming);
	if (!n->exists || memcmp(&kept, &owned, sizeof(owned)) != 0 ||
		au_slices_any(&k->incoming) || au_slices_any(&k->dropping))
	{
		snprintf(text, sizeof(text), "node %d keeps %u slices and owns %u, %u come, %u go", n->index,
				 au_slices_count(&kept), au_slices_count(&owned), au_slices_count(&k->incoming),
				 au_slices_count(&k->dropping));
		return text;
	}
	return NULL;
}

void
sim_view_check_end(Sim *s)
{
	check_owners(s, &s->views.head, true);
}
