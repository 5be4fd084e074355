/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_proposer_group.c: the nodes the writer works with, and the change from
 * one log group to the next; see au_proposer.h.
 *
 *   set_group ──▶ next: its new members are connected to, as learners
 *     ──▶ enough of it is at hand ──▶ group = next, a term is sought in it
 *
 * "At hand" means, while the present group can commit: as many nodes as win a
 * term, and as make a quorum, have the volume and a log that the window
 * continues, so that commits go on after some round trips.  When the present
 * group cannot commit anyway, or a new member does not get there (it was one
 * before, and has log of its own), votes are enough; it then gets its log as
 * every node does that is behind.
 *
 * Safety does not depend on when this happens, only on what au_node_vote.c
 * persists; docs/decisions/0006-log-quorum.md has the argument.
 */
#include "core/au_proposer_int.h"

#include <assert.h>
#include <stdio.h>

/* How far a learner is, is asked so often (by a new HELLO). */
#define LEARNER_US ((uint64_t) 500 * 1000)
#define PATIENCE_US ((uint64_t) 10 * 1000000)

static void
set_address(AuProposer *p, uint32_t i, const AuMember *m)
{
	memset(p->opt.addresses[i], 0, AU_ADDRESS_MAX);
	snprintf(p->opt.addresses[i], AU_ADDRESS_MAX, "%s", m->address);
}

/* The place of a node; AU_GROUP_MAX: it has none. */
static uint32_t
place_of(const AuProposer *p, uint64_t node_id)
{
	for (uint32_t i = 0; i < AU_GROUP_MAX; i++)
		if (p->nodes[i].used && p->nodes[i].member_id == node_id)
			return i;
	return AU_GROUP_MAX;
}

static void
empty_place(AuProposer *p, uint32_t i)
{
	if (p->nodes[i].state != AU_PNODE_DOWN)
		p->host.disconnect(p->host.ctx, i);
	memset(&p->nodes[i], 0, sizeof(p->nodes[i]));
}

/* false: all places are taken. */
static bool
take_place(AuProposer *p, const AuMember *m)
{
	for (uint32_t i = 0; i < AU_GROUP_MAX; i++)
	{
		if (p->nodes[i].used)
			continue;
		p->nodes[i].used = true;
		p->nodes[i].member_id = m->node_id;
		set_address(p, i, m);
		if (i >= p->opt.nodes)
			p->opt.nodes = i + 1;
		return true;
	}
	return false;
}

void
au_pr_group_start(AuProposer *p)
{
	if (p->opt.group.n == 0)
	{
		for (uint32_t i = 0; i < p->opt.nodes; i++)
			p->nodes[i].used = true;
		return;
	}
	p->group = p->opt.group;
	p->view_settled = p->opt.group_settled ? p->group.epoch : 0;
	p->opt.nodes = 0;
	p->opt.write_quorum = p->group.write_quorum;
	for (uint32_t i = 0; i < p->group.n; i++)
		(void) take_place(p, &p->group.members[i]);
}

/* The present group's time is over. */
static void
take_up(AuProposer *p, uint64_t now)
{
	p->group = p->next;
	p->next.n = 0;
	p->opt.write_quorum = p->group.write_quorum;
	for (uint32_t i = 0; i < AU_GROUP_MAX; i++)
		if (p->nodes[i].used && au_group_find(&p->group, p->nodes[i].member_id) < 0)
			empty_place(p, i);
	for (uint32_t i = 0; i < p->group.n; i++)
		if (place_of(p, p->group.members[i].node_id) == AU_GROUP_MAX &&
			!take_place(p, &p->group.members[i]))
			assert(false);
	for (uint32_t i = 0; i < p->opt.nodes; i++)
	{
		AuPNode    *n = &p->nodes[i];

		/* What it held and acknowledged it tells with its vote. */
		n->voted = n->verified = n->fenced = n->moved = false;
		n->durable = 0;
		if (au_pr_reachable(n))
			n->state = AU_PNODE_GREETED;
	}
	/* All that the window has the server has flushed. */
	if (p->window_end > p->opt.local_end)
		p->opt.local_end = p->window_end;
	p->state = AU_PROPOSER_CONNECTING;
	p->campaigns = 0;
	p->campaign_at = now;
	p->moved = false;
	p->stuck_since = 0;
	au_pr_log(p, false, "the log group is number %u from now on: %u nodes, write quorum %u",
			  p->group.epoch, p->group.n, p->group.write_quorum);
}

/* Log of this node can be continued from the window. */
static bool
up_to_date(const AuProposer *p, const AuPNode *n)
{
	return n->state == AU_PNODE_STREAM ||
		(n->state == AU_PNODE_GREETED && n->greeted_durable >= p->window_start);
}

static bool
at_hand(AuProposer *p, uint64_t now)
{
	uint32_t	here = 0;
	uint32_t	fit = 0;
	const char *text;
	const char *hint;

	if (p->state != AU_PROPOSER_LEADING)
		return true;
	for (uint32_t i = 0; i < p->next.n; i++)
	{
		uint32_t	place = place_of(p, p->next.members[i].node_id);
		const AuPNode *n = &p->nodes[place % AU_GROUP_MAX];

		if (place == AU_GROUP_MAX || !(au_pr_reachable(n) || n->moved) || !n->volume_known)
			continue;
		here++;
		fit += up_to_date(p, n);
	}
	if (here < au_group_votes(&p->next))
		return false;
	if (fit >= au_group_votes(&p->next) && fit >= p->next.write_quorum)
		return true;
	if (p->next_since == 0)
		p->next_since = now;
	return now - p->next_since >= PATIENCE_US ||
		au_proposer_trouble(p, &text, &hint) != AU_PROPOSER_OK;
}

void
au_pr_group_run(AuProposer *p, uint64_t now)
{
	if (p->state != AU_PROPOSER_ENDED && at_hand(p, now))
		take_up(p, now);
}

uint64_t
au_pr_learner_run(AuProposer *p, uint32_t i, uint64_t now)
{
	AuPNode    *n = &p->nodes[i];
	uint64_t	age = now - n->greeted_at;

	if (p->state != AU_PROPOSER_LEADING || au_group_find(&p->next, n->node_id) < 0)
		return UINT64_MAX;
	if (age < LEARNER_US)
		return LEARNER_US - age;
	p->host.disconnect(p->host.ctx, i);
	n->state = AU_PNODE_DOWN;
	n->greeted = false;
	n->in_len = n->out_bytes = 0;
	n->answer_due = 0;
	n->retry_at = now;
	return 0;
}

/* The group that is known already may have moved to other addresses. */
static void
take_addresses(AuProposer *p, AuGroup *known, const AuGroup *group)
{
	if (group->epoch != known->epoch || !au_group_same(known, group))
		return;
	*known = *group;
	for (uint32_t i = 0; i < group->n; i++)
	{
		uint32_t	place = place_of(p, group->members[i].node_id);

		if (place < AU_GROUP_MAX)
			set_address(p, place, &group->members[i]);
	}
}

void
au_proposer_set_group(AuProposer *p, const AuGroup *group, bool settled)
{
	AuGroup    *known = p->next.n > 0 ? &p->next : &p->group;

	assert(au_group_valid(group) && group->epoch > 0);
	if (p->group.epoch == 0 || p->state == AU_PROPOSER_ENDED)
		return;
	if (settled && group->epoch > p->view_settled)
		p->view_settled = group->epoch;
	take_addresses(p, known, group);
	if (group->epoch <= known->epoch)
		return;
	/* What was to come and is not taken up yet is of no interest any more. */
	for (uint32_t i = 0; i < AU_GROUP_MAX; i++)
		if (p->nodes[i].used && au_group_find(&p->group, p->nodes[i].member_id) < 0)
			empty_place(p, i);
	p->next = *group;
	p->next_since = 0;
	for (uint32_t i = 0; i < group->n; i++)
		if (place_of(p, group->members[i].node_id) == AU_GROUP_MAX &&
			!take_place(p, &group->members[i]))
		{
			/* No place for both groups: it cannot be prepared. */
			take_up(p, au_pr_now(p));
			return;
		}
}

uint32_t
au_proposer_epoch(const AuProposer *p)
{
	return p->group.epoch;
}

uint32_t
au_proposer_settled(const AuProposer *p)
{
	return p->settled;
}

const char *
au_proposer_address(const AuProposer *p, uint32_t i)
{
	return p->opt.addresses[i];
}
