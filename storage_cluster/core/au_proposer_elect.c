/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_proposer_elect.c: winning a term, and which log it continues.
 *
 * The elected log is that of the voter whose last term is newest, and among
 * those the longest (Raft 5.4.1).  It may be cut to what this server has, as
 * far as no quorum can hold more:
 *
 *   d = newest last term among the votes, begun at S
 *   x may be held by a quorum  if  x <= S,
 *      or  (votes with last term d that reach x) + (nodes that did not vote) >= quorum
 *
 * That counts nodes of one group.  Before a group is settled log may be held by
 * a quorum of the one before, whose nodes are not all asked: then all of the
 * elected log may be.
 */
#include "core/au_proposer_int.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

static uint32_t
count_nodes(const AuProposer *p, bool (*which) (const AuPNode *n))
{
	uint32_t	count = 0;

	for (uint32_t i = 0; i < p->opt.nodes; i++)
		count += which(&p->nodes[i]);
	return count;
}

static bool
has_volume(const AuPNode *n)
{
	return n->greeted && n->volume_known;
}

static bool
has_voted(const AuPNode *n)
{
	return n->voted;
}

static void
refuse_old_copy(AuProposer *p, AuLsn held)
{
	au_pr_end(p, AU_PROPOSER_REFUSED,
			  "Start the server whose data directory is current. To keep this older copy, give it an empty storage directory of its own and load its tables from a dump.",
			  "the server's WAL ends at %X/%X, before what storage has acknowledged (%X/%X): it was restored from an older copy, or lost WAL in a crash",
			  AU_LSN_ARGS(p->opt.local_end), AU_LSN_ARGS(held));
}

/* ---- the campaign ----------------------------------------------------- */

/* false: a learner, or somebody else, who was dropped. */
static bool
takes_part(AuProposer *p, uint32_t i)
{
	uint64_t	id = p->nodes[i].node_id;

	if (au_group_find(&p->group, id) >= 0)
		return true;
	if (au_group_find(&p->next, id) < 0)
		au_pr_drop(p, i, AU_REFUSED,
				   "Name the nodes that keep the volume in aurora.storage_nodes.",
				   "node %" PRIX64 " does not keep this server's volume", id);
	return false;
}

static void
ask_vote(AuProposer *p, uint32_t i)
{
	AuPNode    *n = &p->nodes[i];
	AuMsgVote	m = {
		.term = p->term,.writer_id = p->opt.writer_id,.timeline = p->opt.timeline,
		.wal_segment_size = p->opt.wal_segment_size,.start_lsn = p->start_lsn,
		.may_create = p->opt.may_create,.group = p->group
	};
	AuWriter	w;

	if (!takes_part(p, i))
		return;
	/* Who lost the volume must not be given an empty one. */
	if (!n->volume_known && !p->opt.may_create)
	{
		au_pr_drop(p, i, AU_REFUSED,
				   "Give the storage node its data directory back, or replace it by another one.",
				   "it does not hold the volume of this server (system identifier %" PRIu64 ")",
				   p->opt.system_identifier);
		return;
	}
	au_writer_start(&w, p->frame, AU_WIRE_APPEND_MAX);
	n->asked_id = ++n->last_id;
	if (!au_enc_vote(&w, n->asked_id, &m))
		assert(false);
	n->state = AU_PNODE_VOTING;
	n->answer_due = 0;
	/* A connection that was in use may have come to a halt unnoticed; one that
	 * is new may first have to make the volume. */
	au_pr_send(p, i, &w, p->led ? AU_PROPOSER_ANSWER_US : AU_PROPOSER_ELECT_US);
}

bool
au_pr_reachable(const AuPNode *n)
{
	return n->greeted && n->state != AU_PNODE_DOWN;
}

/*
 * The group that keeps the volume, from whoever knows it; a volume that is
 * still to be made is kept by all nodes of the list.  false: not known yet, or
 * the list is wrong (ENDED).
 */
static bool
learn_group(AuProposer *p)
{
	AuGroup		g = {0};

	if (p->group.epoch > 0)
		return true;			/* the view said */
	for (uint32_t i = 0; i < p->opt.nodes; i++)
		for (uint32_t j = 0; j < i; j++)
			if (p->nodes[i].node_id != 0 && p->nodes[i].node_id == p->nodes[j].node_id)
			{
				au_pr_end(p, AU_PROPOSER_REFUSED, "Name each node once in aurora.storage_nodes.",
						  "\"%s\" and \"%s\" are the same storage node",
						  p->opt.addresses[j], p->opt.addresses[i]);
				return false;
			}
	for (uint32_t i = 0; i < p->opt.nodes && g.n == 0; i++)
		if (has_volume(&p->nodes[i]))
			g = p->nodes[i].group;
	if (g.epoch > 0)
	{
		au_pr_end(p, AU_PROPOSER_MOVED, "Point aurora.storage_nodes at nodes of that cluster.",
				  "the volume's log is kept by a group of nodes that a cluster has chosen, and its view is not here yet");
		return false;
	}
	if (g.n == 0)
	{
		g.n = (uint8_t) p->opt.nodes;
		g.write_quorum = p->opt.write_quorum;
		for (uint32_t i = 0; i < p->opt.nodes; i++)
			g.members[i].node_id = p->nodes[i].node_id;
	}
	else if (g.n != p->opt.nodes || g.write_quorum != p->opt.write_quorum)
	{
		au_pr_end(p, AU_PROPOSER_REFUSED,
				  "Set aurora.storage_nodes to all nodes that keep the volume, and aurora.write_quorum to its quorum.",
				  "the volume is kept by %u nodes with a write quorum of %u, but %u nodes with a quorum of %u are configured",
				  g.n, g.write_quorum, p->opt.nodes, p->opt.write_quorum);
		return false;
	}
	for (uint32_t i = 0; i < p->opt.nodes; i++)
	{
		int			at = p->nodes[i].node_id != 0 ? au_group_find(&g, p->nodes[i].node_id) : -1;

		if (at >= 0)
		{
			memset(g.members[at].address, 0, AU_ADDRESS_MAX);
			snprintf(g.members[at].address, AU_ADDRESS_MAX, "%s", p->opt.addresses[i]);
		}
		else if (au_pr_reachable(&p->nodes[i]))
			au_pr_drop(p, i, AU_REFUSED,
					   "Name the nodes that keep the volume in aurora.storage_nodes.",
					   "node %" PRIX64 " does not keep this server's volume", p->nodes[i].node_id);
	}
	if (!au_group_valid(&g))
		return false;			/* not all of a new volume's nodes are known */
	p->group = g;
	return true;
}

/*
 * A volume that is still to be made is made on all nodes of the list: later,
 * one that missed it looks like one that has lost it, and nobody gives it
 * another one.  (In a group of a cluster's view it takes it from the others.)
 */
uint32_t
au_pr_votes_to_win(const AuProposer *p)
{
	return p->opt.may_create && p->group.epoch == 0 ? p->group.n : au_group_votes(&p->group);
}

static bool
ready(AuProposer *p, uint64_t now)
{
	uint32_t	here;

	if (!learn_group(p))
		return false;
	here = count_nodes(p, au_pr_reachable);
	if (here == p->group.n)
		return true;
	if (here < au_pr_votes_to_win(p) || count_nodes(p, has_volume) < au_group_votes(&p->group))
		return false;
	return p->led || now - p->started >= AU_PROPOSER_GRACE_US;
}

/*
 * An old copy of the server must not fence off the right one only to be
 * refused afterwards: what the nodes told already shows most of them.
 */
static bool
is_old_copy(AuProposer *p)
{
	AuLsn		held = 0;
	AuLsn		limit = p->opt.local_end;

	for (uint32_t i = 0; i < p->opt.nodes; i++)
	{
		const AuPNode *n = &p->nodes[i];
		uint32_t	reach = 0;

		if (!has_volume(n))
			continue;
		for (uint32_t j = 0; j < p->opt.nodes; j++)
			reach += has_volume(&p->nodes[j]) &&
				p->nodes[j].greeted_durable >= n->greeted_durable;
		if (reach >= p->opt.write_quorum && n->greeted_durable > held)
			held = n->greeted_durable;
		if (n->greeted_applied > held)
			held = n->greeted_applied;
	}
	/* A new timeline is for the votes to judge. */
	if (p->opt.switch_lsn != 0 || limit >= held)
		return false;
	refuse_old_copy(p, held);
	return true;
}

static void
begin_campaign(AuProposer *p)
{
	uint64_t	newest = p->term;

	if (is_old_copy(p))
		return;
	p->start_lsn = p->opt.create_lsn;
	for (uint32_t i = 0; i < p->opt.nodes; i++)
	{
		if (p->nodes[i].promised > newest)
			newest = p->nodes[i].promised;
		if (has_volume(&p->nodes[i]))
			p->start_lsn = p->nodes[i].start_lsn;
		p->nodes[i].voted = false;
	}
	p->term = newest + 1;
	p->moved = false;
	p->state = AU_PROPOSER_VOTING;
	for (uint32_t i = 0; i < p->opt.nodes; i++)
		if (au_pr_reachable(&p->nodes[i]))
			ask_vote(p, i);
}

uint64_t
au_pr_campaign(AuProposer *p, uint64_t now)
{
	if (p->state == AU_PROPOSER_CONNECTING && now >= p->campaign_at && ready(p, now))
		begin_campaign(p);
	if (p->state != AU_PROPOSER_CONNECTING)
		return UINT64_MAX;
	if (now < p->campaign_at)
		return p->campaign_at - now;
	return now - p->started < AU_PROPOSER_GRACE_US ?
		AU_PROPOSER_GRACE_US - (now - p->started) : AU_PROPOSER_GRACE_US;
}

/* Somebody was faster: once more, later. */
static void
campaign_again(AuProposer *p)
{
	if (++p->campaigns >= AU_PROPOSER_CAMPAIGNS_MAX)
	{
		au_pr_end(p, AU_PROPOSER_FENCED, NULL,
				  "another writer asks for the volume at the same time, and got a newer term %u times",
				  p->campaigns);
		return;
	}
	p->state = AU_PROPOSER_CONNECTING;
	p->campaign_at = au_pr_now(p) + AU_PROPOSER_RETRY_MIN_US +
		p->host.random(p->host.ctx) % (AU_PROPOSER_RETRY_MIN_US * 4);
}

/* ---- the elected log -------------------------------------------------- */

static uint64_t
last_term(const AuPNode *n)
{
	return au_history_last(&n->vote.history, n->vote.durable_lsn);
}

/* Index of the voter whose log is elected. */
static uint32_t
choose_donor(const AuProposer *p)
{
	uint32_t	best = UINT32_MAX;

	for (uint32_t i = 0; i < p->opt.nodes; i++)
	{
		const AuPNode *n = &p->nodes[i];

		if (!n->voted)
			continue;
		if (best == UINT32_MAX || last_term(n) > last_term(&p->nodes[best]) ||
			(last_term(n) == last_term(&p->nodes[best]) &&
			 n->vote.durable_lsn > p->nodes[best].vote.durable_lsn))
			best = i;
	}
	assert(best != UINT32_MAX);
	return best;
}

/* See the head of this file. */
static AuLsn
perhaps_committed(const AuProposer *p, const AuPNode *donor)
{
	uint64_t	d = last_term(donor);
	bool		settled = p->group.epoch == p->settled || p->group.epoch == p->view_settled;
	AuLsn		most = settled ? p->start_lsn : donor->vote.durable_lsn;
	uint32_t	silent = p->group.n - count_nodes(p, has_voted);

	for (uint32_t i = 0; i < donor->vote.history.n; i++)
		if (donor->vote.history.terms[i].term == d && donor->vote.history.terms[i].start > most)
			most = donor->vote.history.terms[i].start;
	for (uint32_t i = 0; i < p->opt.nodes; i++)
	{
		const AuPNode *n = &p->nodes[i];
		uint32_t	reach = silent;

		if (!n->voted)
			continue;
		if (n->vote.commit_lsn > most)
			most = n->vote.commit_lsn;
		if (last_term(n) != d)
			continue;
		for (uint32_t j = 0; j < p->opt.nodes; j++)
			reach += p->nodes[j].voted && last_term(&p->nodes[j]) == d &&
				p->nodes[j].vote.durable_lsn >= n->vote.durable_lsn;
		if (reach >= p->opt.write_quorum && n->vote.durable_lsn > most)
			most = n->vote.durable_lsn;
	}
	return most;
}

/* false: ENDED */
static bool
server_may_continue(AuProposer *p, const AuPNode *donor, AuLsn held, AuLsn *end)
{
	bool		switched = p->opt.timeline > donor->vote.timeline && p->opt.switch_lsn != 0;
	AuLsn		limit = switched && p->opt.switch_lsn < p->opt.local_end ?
		p->opt.switch_lsn : p->opt.local_end;

	*end = donor->vote.durable_lsn < limit ? donor->vote.durable_lsn : limit;
	if (*end < held && switched && p->opt.switch_lsn < held)
		au_pr_end(p, AU_PROPOSER_REFUSED,
				  "Use a server that has the whole log of the old timeline, or restore storage to a point before the switch.",
				  "timeline %u left the old one at %X/%X, but storage may have acknowledged log up to %X/%X",
				  p->opt.timeline, AU_LSN_ARGS(p->opt.switch_lsn), AU_LSN_ARGS(held));
	else if (*end < held)
		refuse_old_copy(p, held);
	else if (*end < p->opt.local_start)
		au_pr_end(p, AU_PROPOSER_REFUSED,
				  "Copy the missing segments from the WAL archive into pg_wal, or restore server and storage from a backup. To avoid this, keep the replication slot and leave max_slot_wal_keep_size at -1.",
				  "the volume cannot be continued: it ends at %X/%X, and that WAL has been removed from this server",
				  AU_LSN_ARGS(*end));
	else
		return true;
	return false;
}

/* Where sending begins: early enough for most nodes, and for a check that
 * server and storage agree; nodes further behind ask others. */
static AuLsn
choose_window(const AuProposer *p, AuLsn end)
{
	AuLsn		from = end;
	AuLsn		least = p->opt.local_start > p->start_lsn ? p->opt.local_start : p->start_lsn;

	for (uint32_t i = 0; i < p->opt.nodes; i++)
		if (p->nodes[i].voted && p->nodes[i].vote.durable_lsn < from)
			from = p->nodes[i].vote.durable_lsn;
	if (end - from > p->opt.window_bytes / 2)
		from = end - p->opt.window_bytes / 2;
	from = from > AU_PROPOSER_OVERLAP ? from - AU_PROPOSER_OVERLAP : 0;
	return from > least ? from : least;
}

static void
win(AuProposer *p)
{
	const AuPNode *donor = &p->nodes[choose_donor(p)];
	char		epoch[32] = "";
	AuLsn		held = perhaps_committed(p, donor);
	AuLsn		end;

	if (p->led && donor->vote.durable_lsn > p->window_end)
	{
		au_pr_end(p, AU_PROPOSER_AGAIN, NULL, "another writer has sent log meanwhile");
		return;
	}
	if (p->commit > held)
		held = p->commit;
	if (!server_may_continue(p, donor, held, &end))
		return;
	p->history = donor->vote.history;
	au_history_cut(&p->history, end);
	if (p->history.n > AU_HISTORY_MAX / 2)
		au_history_forget(&p->history, donor->vote.commit_lsn);
	if (!au_history_push(&p->history, p->term, end, p->opt.timeline))
	{
		au_pr_end(p, AU_PROPOSER_AGAIN, NULL, "%d writers in a row could not reach a quorum",
				  AU_HISTORY_MAX);
		return;
	}
	p->elected_end = end;
	for (uint32_t i = 0; i < p->opt.nodes; i++)
		if (p->nodes[i].voted && p->nodes[i].vote.commit_lsn > p->commit)
			p->commit = p->nodes[i].vote.commit_lsn;
	assert(p->commit <= held && held <= end);
	if (!p->led)
		p->window_start = p->window_end = choose_window(p, end);
	p->led = true;
	p->continues = false;
	p->state = AU_PROPOSER_LEADING;
	p->campaigns = 0;
	if (p->group.epoch == 0)
		p->opt.may_create = false;	/* who does not have it from now on has lost it */
	if (p->group.epoch > 0)
		snprintf(epoch, sizeof(epoch), " (log group %u)", p->group.epoch);
	au_pr_log(p, false, "won term %" PRIu64 " of timeline %u with the votes of %u of %u nodes%s; the log goes on at %X/%X",
			  p->term, p->opt.timeline, count_nodes(p, has_voted), p->group.n, epoch, AU_LSN_ARGS(end));
	for (uint32_t i = 0; i < p->opt.nodes; i++)
		if (p->nodes[i].state == AU_PNODE_VOTED)
			au_pr_elect_node(p, i);
}

void
au_pr_voted(AuProposer *p, uint32_t i, const AuMsgVoteOk *m)
{
	AuPNode    *n = &p->nodes[i];

	if (m->term > n->promised)
		n->promised = m->term;
	n->volume_known = true;
	n->start_lsn = m->start_lsn;
	n->state = AU_PNODE_GREETED;
	if (m->granted)
	{
		n->state = AU_PNODE_VOTED;
		n->voted = true;
		n->vote = *m;
	}
	if (p->state == AU_PROPOSER_LEADING)
	{
		if (m->granted)
			au_pr_elect_node(p, i);
		else
			au_pr_fenced(p, i, "it has promised a newer term to another writer");
		return;
	}
	if (p->state != AU_PROPOSER_VOTING)
		return;
	if (!m->granted)
		campaign_again(p);
	else if (count_nodes(p, has_voted) >= au_pr_votes_to_win(p))
		win(p);
}

void
au_pr_elect_node(AuProposer *p, uint32_t i)
{
	AuPNode    *n = &p->nodes[i];
	AuMsgElect	m = {
		.term = p->term,.writer_id = p->opt.writer_id,.timeline = p->opt.timeline,
		.commit_lsn = p->commit,.history = p->history,.group = p->group
	};
	AuWriter	w;

	assert(p->state == AU_PROPOSER_LEADING);
	au_writer_start(&w, p->frame, AU_WIRE_APPEND_MAX);
	n->asked_id = ++n->last_id;
	if (!au_enc_elect(&w, n->asked_id, &m))
		assert(false);
	n->state = AU_PNODE_ELECTING;
	n->answer_due = 0;
	au_pr_send(p, i, &w, AU_PROPOSER_ELECT_US);
}

void
au_pr_greeted(AuProposer *p, uint32_t i)
{
	if (p->state == AU_PROPOSER_VOTING)
		ask_vote(p, i);
	else if (p->state == AU_PROPOSER_LEADING)
	{
		if (!takes_part(p, i))
			return;
		if (!p->nodes[i].volume_known)
			ask_vote(p, i);		/* drops it, or makes the volume */
		else
			au_pr_elect_node(p, i);
	}
}
