/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_meta_lead.c: what the leader of the cluster's consensus does.
 *
 *  - A new cluster gets its first commands: INIT and its own JOIN, together, so
 *    that its number is 1, as libraft was told.
 *  - One that goes on without most of its voters gets its first command: the
 *    newest view that is known, before anything is decided.
 *  - libraft's members become what the view says: all nodes follow its log, up
 *    to five of them vote.  One change at a time; a node is made a voter before
 *    another one ceases to be one; it does not demote itself, but hands over
 *    first.
 *  - It looks whether nodes are there, each every few seconds and at once when
 *    somebody suspects one, and says so when that has changed.
 */
#include "daemon/au_meta_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#define CHANGE_RETRY_MS 2000
#define PROBE_EVERY_MS 4000
#define PROBE_AGAIN_MS 300
#define PROBE_WAIT_MS 1500
#define FAILURES 2				/* in a row: it is dead */

/* ---- a new cluster ---------------------------------------------------- */

static void
on_created(struct raft_apply *req, int status, void *result)
{
	AuMeta	   *m = req->data;

	(void) status;
	(void) result;
	m->creating = false;		/* in vain: again with the next tick */
}

static void
create(AuMeta *m)
{
	AuViewCommand init = {.type = AU_VIEW_INIT,.rf = (uint8_t) m->d->config.replicas};
	AuViewCommand join = meta_join_command(m);
	struct raft_buffer bufs[2];

	if (m->creating || !m->creates ||
		getrandom(&init.cluster_id, sizeof(init.cluster_id), 0) != (ssize_t) sizeof(init.cluster_id))
		return;
	init.cluster_id |= 1;		/* never 0 */
	join.node.number = 0;		/* this very command gives it */
	if (!meta_raft_buffer(&init, &bufs[0]))
		return;
	if (!meta_raft_buffer(&join, &bufs[1]))
	{
		raft_free(bufs[0].base);
		return;
	}
	m->creating = true;
	if (raft_apply(&m->raft, &m->create, bufs, 2, on_created) != 0)
	{
		m->creating = false;
		raft_free(bufs[0].base);
		raft_free(bufs[1].base);
	}
}

/* All that our log has is applied, nothing is decided before this is. */
static void
recover(AuMeta *m)
{
	AuView	   *v;
	struct raft_buffer buf;

	if (m->creating || raft_last_applied(&m->raft) < raft_last_index(&m->raft))
		return;
	v = malloc(sizeof(*v));
	if (v == NULL)
		return;					/* again with the next tick */
	*v = m->view;
	au_view_recover(v);
	if (meta_raft_view_buffer(v, &buf))
	{
		m->creating = raft_apply(&m->raft, &m->create, &buf, 1, on_created) == 0;
		if (!m->creating)
			raft_free(buf.base);
	}
	free(v);
}

/* What was committed before we led is applied when something is committed
 * since. */
static void
on_barrier(struct raft_barrier *req, int status)
{
	AuMeta	   *m = req->data;

	(void) status;
	m->barrier_used = false;
}

static void
catch_up(AuMeta *m)
{
	if (m->barrier_used || raft_last_applied(&m->raft) >= raft_last_index(&m->raft))
		return;
	m->barrier_used = raft_barrier(&m->raft, &m->barrier, on_barrier) == 0;
}

/* ---- members of consensus --------------------------------------------- */

static const struct raft_server *
find_server(const AuMeta *m, uint64_t id)
{
	for (unsigned i = 0; i < m->raft.configuration.n; i++)
		if (m->raft.configuration.servers[i].id == id)
			return &m->raft.configuration.servers[i];
	return NULL;
}

static bool
is_voter(const AuMeta *m, uint32_t number)
{
	const struct raft_server *s = find_server(m, number);

	return s != NULL && s->role == RAFT_VOTER;
}

/* How good a voter it makes: higher is better, all differ. */
static uint32_t
rank(const AuMeta *m, const AuViewNode *n, const bool *chosen)
{
	const AuView *v = &m->log_view;
	bool		new_zone = true;

	for (int i = 0; i < v->nnodes; i++)
		if (chosen[i] && strcmp(v->nodes[i].zone, n->zone) == 0)
			new_zone = false;
	return (uint32_t) n->up << 30 | (uint32_t) new_zone << 29 |
		(uint32_t) is_voter(m, n->number) << 28 | (0x0fffffff - (n->number & 0x0fffffff));
}

/* Which nodes are to vote (au_view_voters_wanted). */
static void
choose_voters(const AuMeta *m, bool *chosen)
{
	const AuView *v = &m->log_view;
	int			candidates = 0;
	int			wanted;

	memset(chosen, 0, AU_VIEW_NODES_MAX * sizeof(*chosen));
	for (int i = 0; i < v->nnodes; i++)
		candidates += v->nodes[i].state != AU_NODE_DRAINING;
	wanted = au_view_voters_wanted(candidates);
	for (; wanted > 0; wanted--)
	{
		int			best = -1;

		for (int i = 0; i < v->nnodes; i++)
			if (!chosen[i] && v->nodes[i].state != AU_NODE_DRAINING &&
				(best < 0 || rank(m, &v->nodes[i], chosen) > rank(m, &v->nodes[best], chosen)))
				best = i;
		chosen[best] = true;
	}
}

static void
on_changed(struct raft_change *req, int status)
{
	AuMeta	   *m = req->data;

	m->changing = false;
	if (status != 0)
	{
		m->next_change = meta_now() + CHANGE_RETRY_MS;
		au_log(m->d, AU_LOG_DEBUG, "a change of the consensus's members failed: %s", raft_strerror(status));
	}
}

/* rc of raft_add, raft_assign, raft_remove, whose callback is on_changed */
static bool
begun(AuMeta *m, int rc)
{
	m->changing = rc == 0;
	if (rc != 0)
	{
		m->next_change = meta_now() + CHANGE_RETRY_MS;
		au_log(m->d, AU_LOG_DEBUG, "the consensus's members cannot be changed now: %s", raft_strerror(rc));
	}
	return true;
}

static void
on_handed_over(struct raft_transfer *req)
{
	AuMeta	   *m = req->data;

	m->handing_over = false;
}

static void
hand_over(AuMeta *m)
{
	m->handing_over = raft_transfer(&m->raft, &m->transfer, 0, on_handed_over) == 0;
	m->next_change = meta_now() + CHANGE_RETRY_MS;
}

static bool
add_missing(AuMeta *m)
{
	const AuView *v = &m->log_view;

	for (int i = 0; i < v->nnodes; i++)
	{
		const AuViewNode *n = &v->nodes[i];
		bool		taken = false;

		for (unsigned j = 0; j < m->raft.configuration.n; j++)
			taken = taken || m->raft.configuration.servers[j].id == n->number ||
				strcmp(m->raft.configuration.servers[j].address, n->meta_address) == 0;
		if (!taken)
			return begun(m, raft_add(&m->raft, &m->change, n->number, n->meta_address, on_changed));
	}
	return false;
}

/* From spare (as added) to what it is to be; those that are down later. */
static bool
promote(AuMeta *m, const bool *chosen)
{
	const AuView *v = &m->log_view;

	for (int pass = 0; pass < 2; pass++)
		for (int i = 0; i < v->nnodes; i++)
		{
			const struct raft_server *s = find_server(m, v->nodes[i].number);
			int			role = chosen[i] && pass == 0 ? RAFT_VOTER : RAFT_STANDBY;

			if (s == NULL || !v->nodes[i].up || s->role == role || s->role == RAFT_VOTER ||
				(pass == 1 && s->role != RAFT_SPARE) || (pass == 0 && !chosen[i]))
				continue;
			return begun(m, raft_assign(&m->raft, &m->change, s->id, role, on_changed));
		}
	return false;
}

/* Could the other voters agree without this one?  The change itself has to be
 * agreed on by those that it leaves. */
static bool
can_spare(const AuMeta *m, raft_id id)
{
	int			voters = 0;
	int			up = 0;

	for (unsigned i = 0; i < m->raft.configuration.n; i++)
	{
		const struct raft_server *s = &m->raft.configuration.servers[i];
		const AuViewNode *n = au_view_node(&m->log_view, (uint32_t) s->id);

		if (s->role != RAFT_VOTER || s->id == id)
			continue;
		voters++;
		up += n != NULL && n->up;
	}
	return up * 2 > voters;
}

static bool
demote(AuMeta *m, const bool *chosen)
{
	const AuView *v = &m->log_view;

	for (int i = 0; i < v->nnodes; i++)
		if (chosen[i] && v->nodes[i].up && !is_voter(m, v->nodes[i].number))
			return false;		/* first there must be enough */
	for (int i = 0; i < v->nnodes; i++)
	{
		if (chosen[i] || !is_voter(m, v->nodes[i].number) || !can_spare(m, v->nodes[i].number))
			continue;
		if (v->nodes[i].number == m->number)
			hand_over(m);
		else
			(void) begun(m, raft_assign(&m->raft, &m->change, v->nodes[i].number, RAFT_STANDBY, on_changed));
		return true;
	}
	return false;
}

/* Who is not in the view, or elsewhere now (and is added again then). */
static bool
remove_strangers(AuMeta *m)
{
	for (unsigned i = 0; i < m->raft.configuration.n; i++)
	{
		const struct raft_server *s = &m->raft.configuration.servers[i];
		const AuViewNode *n = au_view_node(&m->log_view, (uint32_t) s->id);

		if (n != NULL && strcmp(n->meta_address, s->address) == 0)
			continue;
		if (s->role == RAFT_VOTER && !can_spare(m, s->id))
			continue;
		if (s->id == m->raft.id)
			hand_over(m);
		else
			(void) begun(m, raft_remove(&m->raft, &m->change, s->id, on_changed));
		return true;
	}
	return false;
}

/* The view tells who votes, for those who only know the view. */
static void
tell_voters(AuMeta *m)
{
	for (int i = 0; i < m->log_view.nnodes; i++)
	{
		const AuViewNode *n = &m->log_view.nodes[i];
		AuViewCommand c = {.type = AU_VIEW_VOTER,.number = n->number};

		c.up = is_voter(m, n->number);
		if (c.up != n->voter)
			(void) au_meta_propose(m, &c, NULL, NULL);
	}
}

static void
tend_members(AuMeta *m, uint64_t now)
{
	bool		chosen[AU_VIEW_NODES_MAX];

	if (m->changing || m->handing_over || now < m->next_change ||
		m->raft.configuration_uncommitted_index != 0)
		return;
	m->next_change = now + META_TICK_MS;
	choose_voters(m, chosen);
	if (add_missing(m) || promote(m, chosen) || demote(m, chosen) || remove_strangers(m))
		return;
	tell_voters(m);
	m->next_change = now + 5 * META_TICK_MS;
}

/* ---- who is there ----------------------------------------------------- */

static MetaProbe *
find_probe(AuMeta *m, uint32_t number)
{
	MetaProbe  *unused = NULL;

	for (int i = 0; i < AU_VIEW_NODES_MAX; i++)
	{
		if (m->probes[i].number == number)
			return &m->probes[i];
		if (unused == NULL && !m->probes[i].asking &&
			(m->probes[i].number == 0 || au_view_node(&m->log_view, m->probes[i].number) == NULL))
			unused = &m->probes[i];
	}
	if (unused != NULL)
		*unused = (MetaProbe)
		{
			.meta = m,.number = number
		};
	return unused;
}

static void
say_up(AuMeta *m, uint32_t number, bool up)
{
	const AuViewNode *n = au_view_node(&m->log_view, number);
	AuViewCommand c = {.type = AU_VIEW_UP,.number = number,.up = up};

	if (n != NULL && n->up != up && meta_raft_leads(m))
		(void) au_meta_propose(m, &c, NULL, NULL);
}

static void
on_pong(void *ctx, const AuFrame *f, const char *why)
{
	MetaProbe  *p = ctx;

	p->asking = false;
	if (f != NULL && f->type == AU_MSG_PONG)
	{
		p->failures = 0;
		p->next = meta_now() + PROBE_EVERY_MS;
		say_up(p->meta, p->number, true);
		return;
	}
	if (p->failures < FAILURES && ++p->failures == FAILURES)
		au_log(p->meta->d, AU_LOG_WARNING, "node %u of the cluster does not answer: %s", p->number,
			   f != NULL ? "it said something else" : why);
	p->next = meta_now() + (p->failures < FAILURES ? PROBE_AGAIN_MS : PROBE_EVERY_MS / 2);
	if (p->failures == FAILURES)
		say_up(p->meta, p->number, false);
}

static void
probe_nodes(AuMeta *m, uint64_t now)
{
	for (int i = 0; i < m->log_view.nnodes; i++)
	{
		const AuViewNode *n = &m->log_view.nodes[i];
		MetaProbe  *p;
		uint8_t		frame[64];
		AuWriter	w;

		if (n->number == m->number)
			continue;
		p = find_probe(m, n->number);
		if (p == NULL || p->asking || now < p->next)
			continue;
		au_writer_start(&w, frame, sizeof(frame));
		p->asking = true;
		if (!au_enc_empty(&w, AU_MSG_PING, AU_ASK_ID) ||
			!au_ask(m->d, n->address, n->node_id, PROBE_WAIT_MS, w.data, w.len, on_pong, p))
		{
			p->asking = false;
			p->next = now + PROBE_EVERY_MS;
		}
	}
}

void
meta_lead_begins(AuMeta *m)
{
	/* what was found when we led before does not count */
	for (int i = 0; i < AU_VIEW_NODES_MAX; i++)
		m->probes[i].failures = 0;
}

void
au_meta_suspect(AuMeta *m, uint32_t number)
{
	MetaProbe  *p;

	if (!meta_raft_leads(m) || number == m->number || au_view_node(&m->log_view, number) == NULL)
		return;
	p = find_probe(m, number);
	if (p != NULL && !p->asking && p->failures == 0)
		p->next = 0;
}

void
meta_lead_tick(AuMeta *m, uint64_t now)
{
	catch_up(m);
	if (meta_recovering(m))
	{
		recover(m);
		return;
	}
	if (m->log_view.cluster_id == 0)
	{
		create(m);
		return;
	}
	tend_members(m, now);
	say_up(m, m->number, true);
	probe_nodes(m, now);
}
