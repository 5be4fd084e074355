/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_meta_propose.c: commands for the view on their way to the leader.
 *
 *                       ┌──▶ libraft, if we lead ──committed──▶ result
 *   propose ──▶ try ────┼──▶ CLUSTER to the leader, or to a voter ──▶ its answer
 *                ▲      └──▶ nobody
 *                └── after META_RETRY_MS, until the deadline ── no answer
 *
 * All commands may be repeated: a node that joins again joins once, and not any
 * more after it was removed (AuViewCommand.with).  What other
 * nodes pass on to us is tried once, for they try again themselves.
 */
#include "daemon/au_meta_int.h"

#include <stdio.h>

#include "common/au_wire_cluster.h"

static const char no_leader[] = "the cluster has no leader at the moment";
static const char no_leader_hint[] =
	"More than half of its voting nodes must run and reach each other; see auroractl node list.";

static void
set_result(MetaProposal *p, AuStatus status, const char *message, const char *hint)
{
	p->status = status;
	snprintf(p->message, sizeof(p->message), "%s", message);
	snprintf(p->hint, sizeof(p->hint), "%s", hint);
	p->ended = true;
	meta_soon(p->meta);
}

/* Nobody took it: again, or say so. */
static void
try_later(MetaProposal *p)
{
	uint64_t	now = meta_now();

	p->busy = false;
	p->next_try = now + META_RETRY_MS;
	if (p->once || now >= p->deadline || p->meta->state == META_STOPPING)
		set_result(p, AU_IO, no_leader, no_leader_hint);
}

static void
tell(MetaProposal *p)
{
	AuCommandResult r = {
		.status = p->status,.epoch = p->epoch,.number = p->number,
		.message = p->message,.hint = p->hint[0] != '\0' ? p->hint : NULL
	};
	AuMeta	   *m = p->meta;

	if (p->ticket != 0)
		au_node_command_done(m->d->node, p->ticket, &r);
	else if (p->done != NULL)
		p->done(p->ctx, &r);
	p->used = false;
	au_wake(m->d);
}

/* ---- as the leader ---------------------------------------------------- */

static void
on_applied(struct raft_apply *req, int status, void *result)
{
	MetaProposal *p = req->data;
	const MetaResult *r = result;

	if (status != 0 || r == NULL)
	{
		try_later(p);			/* not the leader any more */
		return;
	}
	p->busy = false;
	p->epoch = r->epoch;
	p->number = r->number;
	set_result(p, r->status, r->message, "");
}

static bool
try_here(MetaProposal *p)
{
	AuMeta	   *m = p->meta;
	struct raft_buffer buf;

	if (!meta_raft_leads(m) || m->log_view.nnodes == 0 || meta_recovering(m) ||
		!meta_raft_buffer(&p->command, &buf))
		return false;
	p->apply.data = p;
	if (raft_apply(&m->raft, &p->apply, &buf, 1, on_applied) != 0)
	{
		raft_free(buf.base);
		return false;
	}
	p->busy = true;
	return true;
}

/* ---- through another node --------------------------------------------- */

static void
on_answer(void *ctx, const AuFrame *f, const char *why)
{
	MetaProposal *p = ctx;
	AuMsgClusterOk ok;
	AuMsgError	e;

	(void) why;
	if (f != NULL && au_dec_cluster_ok(f, &ok))
	{
		p->busy = false;
		p->epoch = ok.epoch;
		p->number = ok.number;
		set_result(p, AU_OK, "", "");
		au_meta_heard(p->meta, ok.epoch, NULL);
	}
	else if (f != NULL && au_dec_error(f, &e) &&
			 (e.status == AU_REFUSED || e.status == AU_INVALID || e.status == AU_UNSUPPORTED ||
			  e.status == AU_FULL || e.status == AU_CORRUPT))
	{
		p->busy = false;
		set_result(p, (AuStatus) e.status, e.message, e.hint);
	}
	else
		try_later(p);
}

/* The leader, or if nobody knows it the voters in turn, those that are up
 * first.  NULL: nobody but us. */
static const AuViewNode *
whom_to_ask(const MetaProposal *p)
{
	const AuMeta *m = p->meta;
	const AuView *v = &m->view;
	const AuViewNode *leader = m->leader != m->number ? au_view_node(v, m->leader) : NULL;
	uint32_t	wanted;

	if (leader != NULL && p->tries % 3 != 2)
		return leader;
	for (int round = 0; round < 3; round++)
	{
		uint32_t	n = 0;

		for (int pass = 0; pass < 2; pass++)
		{
			wanted = n > 0 ? p->tries % n : 0;
			n = 0;
			for (int i = 0; i < v->nnodes; i++)
			{
				const AuViewNode *o = &v->nodes[i];

				if (o->number == m->number || (round < 2 && !o->voter) || (round < 1 && !o->up))
					continue;
				if (pass == 1 && n == wanted)
					return o;
				n++;
			}
		}
	}
	return NULL;
}

static bool
try_elsewhere(MetaProposal *p)
{
	AuMeta	   *m = p->meta;
	const AuViewNode *n = whom_to_ask(p);
	uint8_t		bytes[AU_VIEW_COMMAND_MAX];
	uint8_t		frame[AU_VIEW_COMMAND_MAX + 64];
	AuMsgCluster msg = {.hops = (uint8_t) (p->hops + 1),.bytes = bytes};
	AuWriter	w;

	if (n == NULL || p->hops >= AU_CLUSTER_HOPS_MAX)
		return false;
	msg.length = (uint32_t) au_view_command_encode(&p->command, bytes, sizeof(bytes));
	au_writer_start(&w, frame, sizeof(frame));
	if (!au_enc_cluster(&w, AU_ASK_ID, &msg))
		return false;
	p->busy = au_ask(m->d, n->address, n->node_id, META_ASK_MS * 2, w.data, w.len, on_answer, p);
	return p->busy;
}

/* ---- from outside ----------------------------------------------------- */

static MetaProposal *
find_free(AuMeta *m, int from, int to)
{
	for (int i = from; i < to; i++)
		if (!m->proposals[i].used)
			return &m->proposals[i];
	return NULL;
}

static void
begin(AuMeta *m, MetaProposal *p, const AuViewCommand *c)
{
	memset(p, 0, sizeof(*p));
	p->meta = m;
	p->used = true;
	p->command = *c;
	p->deadline = meta_now() + AU_META_DEADLINE_MS;
	meta_soon(m);
}

/* The view we have says so already: that need not go through consensus again
 * (a node repeats what slices it has until all others are ready, too). */
static bool
is_known(const AuMeta *m, const AuViewCommand *c)
{
	static AuView v;			/* loop thread only */
	char		err[256];
	bool		changed;

	if (c->type != AU_VIEW_SLICES_READY)
		return false;
	v = m->view;
	return au_view_apply(&v, c, &changed, err, sizeof(err)) == AU_OK && !changed;
}

bool
au_meta_propose(AuMeta *m, const AuViewCommand *c, AuMetaDone done, void *ctx)
{
	MetaProposal *p = m->state == META_STOPPING ? NULL : find_free(m, 0, AU_META_PROPOSALS_MAX);

	if (p == NULL)
		return false;
	begin(m, p, c);
	p->done = done;
	p->ctx = ctx;
	if (is_known(m, c))
	{
		p->epoch = m->view.epoch;
		set_result(p, AU_OK, "", "");
	}
	return true;
}

void
au_meta_command(void *daemon, uint64_t ticket, const AuViewCommand *c, uint8_t hops)
{
	AuMeta	   *m = ((AuDaemon *) daemon)->meta;
	MetaProposal *p = find_free(m, AU_META_PROPOSALS_MAX, AU_META_PROPOSALS_MAX + META_OTHERS_MAX);

	/* the core has no more tickets than there are places */
	begin(m, p, c);
	p->ticket = ticket;
	p->hops = hops;
	p->once = hops > 0;
	if (c->type == AU_VIEW_INIT || c->type == AU_VIEW_VOTER || c->type == AU_VIEW_UP)
		set_result(p, AU_INVALID, "only the leader itself may say that", "");
}

void
meta_proposals_tick(AuMeta *m, uint64_t now)
{
	for (int i = 0; i < AU_META_PROPOSALS_MAX + META_OTHERS_MAX; i++)
	{
		MetaProposal *p = &m->proposals[i];

		if (!p->used || p->busy)
			continue;
		if (p->ended)
			tell(p);
		else if (m->state == META_STOPPING)
			try_later(p);
		else if (now >= p->next_try)
		{
			if (!try_here(p) && !try_elsewhere(p))
				try_later(p);
			p->tries++;
		}
	}
}
