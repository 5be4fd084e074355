/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_node_gossip.c: messages of gossip to and from other nodes; see
 * au_node_gossip.h.
 *
 * Invariants:
 *  1. At most one connection to an address; what it has not taken is bounded.
 *     A message too many is lost, which gossip allows for.
 *  2. A request that is answered later is answered on the connection it came
 *     on, or on none if that is gone.
 */
#include "core/au_node_gossip.h"

#include <inttypes.h>
#include <stdio.h>

#include "core/au_node_int.h"

typedef struct Peer
{
	char		address[AU_ADDRESS_MAX];
	AuConn	   *conn;			/* NULL: free */
	uint64_t	used_us;		/* something was sent last */
	uint64_t	owes_us;		/* asked since, and nothing was heard; 0: nothing */
} Peer;

typedef struct Asked
{
	uint64_t	ticket;			/* 0: free */
	AuConn	   *conn;
	uint64_t	id;
} Asked;

struct AuNodeGossip
{
	AuNode	   *node;
	AuNodeGossipHost host;
	uint64_t	due_us;			/* of the next tick */
	uint64_t	last_ticket;
	uint64_t	told_period;	/* newer_view */
	Peer		peers[AU_NODE_GOSSIP_PEERS];
	Asked		asked[AU_GOSSIP_RELAYS_MAX];
	AuMsgGossip in;				/* large: not on the stack */
	AuMsgGossip out;
	AuGossip	g;
};

static uint64_t
now_us(const AuNode *n)
{
	return n->host.now_us(n->host.ctx);
}

/* ---- connections ------------------------------------------------------ */

static void
peer_answer(AuNode *n, AuConn *c, const AuFrame *f)
{
	AuNodeGossip *gs = n->gossip;
	Peer	   *p = c->outgoing_ctx;

	p->owes_us = 0;
	if (f->type == AU_MSG_GOSSIP_OK && au_dec_gossip_ok(f, &gs->in))
	{
		au_gossip_answer(&gs->g, f->id, &gs->in, now_us(n));
		gs->due_us = 0;
	}
	else if (f->type != AU_MSG_HELLO_OK && f->type != AU_MSG_ERROR)
		au_n_close(n, c);
}

static void
peer_closed(AuNode *n, AuConn *c)
{
	Peer	   *p = c->outgoing_ctx;

	(void) n;
	p->conn = NULL;
}

/* The connection to an address, if need be a new one in the place of the one
 * that is idle for longest; NULL: not now. */
static Peer *
peer_at(AuNodeGossip *gs, const char *address)
{
	static const AuOutgoing use = {peer_answer, peer_closed};
	Peer	   *best = NULL;

	for (int i = 0; i < AU_NODE_GOSSIP_PEERS; i++)
	{
		Peer	   *p = &gs->peers[i];

		if (p->conn != NULL && strcmp(p->address, address) == 0)
			return p;
		if (best == NULL || (best->conn != NULL && (p->conn == NULL || p->used_us < best->used_us)))
			best = p;
	}
	if (best->conn != NULL)
	{
		/* free as soon as that is closed */
		au_n_close(gs->node, best->conn);
		return NULL;
	}
	snprintf(best->address, sizeof(best->address), "%s", address);
	best->owes_us = 0;
	best->conn = au_n_connect(gs->node, 0, NULL, 0, address, &use, best);
	return best->conn != NULL ? best : NULL;
}

static void
send(void *ctx, const char *address, uint64_t id, const AuMsgGossip *m)
{
	AuNodeGossip *gs = ctx;
	AuNode	   *n = gs->node;
	Peer	   *p = peer_at(gs, address);
	uint64_t	now = now_us(n);
	AuWriter	w;

	if (p == NULL || p->conn->closing)
		return;
	if (p->owes_us != 0 && now - p->owes_us >= AU_NODE_GOSSIP_SILENT_US)
	{
		au_n_close(n, p->conn);
		return;
	}
	if (p->conn->out_bytes > AU_NODE_GOSSIP_UNSENT)
		return;
	p->used_us = now;
	if (p->owes_us == 0)
		p->owes_us = now;
	if (au_n_reserve(n, p->conn, &w, AU_GOSSIP_FRAME_MAX))
		au_n_send(n, p->conn, &w, au_enc_gossip(&w, id, m));
}

static void
answer(void *ctx, uint64_t token, const AuMsgGossip *m)
{
	AuNodeGossip *gs = ctx;
	AuWriter	w;

	for (int i = 0; i < AU_GOSSIP_RELAYS_MAX; i++)
	{
		Asked	   *a = &gs->asked[i];

		if (a->ticket != token)
			continue;
		a->ticket = 0;
		if (a->conn != NULL && au_n_reserve(gs->node, a->conn, &w, AU_GOSSIP_FRAME_MAX))
			au_n_send(gs->node, a->conn, &w, au_enc_gossip_ok(&w, a->id, m));
	}
}

void
au_g_request(AuNode *n, AuConn *c, const AuFrame *f)
{
	AuNodeGossip *gs = n->gossip;
	Asked	   *a;
	AuWriter	w;

	if (c->role != AU_ROLE_NODE || gs == NULL || !au_dec_gossip(f, &gs->in))
	{
		au_n_error(n, c, f->id, gs == NULL ? AU_REFUSED : AU_INVALID, NULL, gs == NULL ?
				   "this node is in no cluster" : "malformed GOSSIP, or not from a node");
		return;
	}
	a = gs->asked;
	while (a->ticket != 0 && a < gs->asked + AU_GOSSIP_RELAYS_MAX - 1)
		a++;
	switch (au_gossip_request(&gs->g, gs->last_ticket + 1, &gs->in, &gs->out, now_us(n)))
	{
		case AU_GOSSIP_NOW:
			if (au_n_reserve(n, c, &w, AU_GOSSIP_FRAME_MAX))
				au_n_send(n, c, &w, au_enc_gossip_ok(&w, f->id, &gs->out));
			break;
		case AU_GOSSIP_LATER:
			/* as many as gossip leaves open, so this one is free */
			*a = (Asked) {++gs->last_ticket, c, f->id};
			break;
		case AU_GOSSIP_STRANGER:
			au_n_error(n, c, f->id, AU_REFUSED,
					   "Each node gossips with nodes of its own cluster: check the addresses of both.",
					   "this node is of another cluster");
			break;
	}
	gs->due_us = 0;
}

void
au_g_forget_conn(AuNode *n, const AuConn *c)
{
	if (n->gossip == NULL)
		return;
	for (int i = 0; i < AU_GOSSIP_RELAYS_MAX; i++)
		if (n->gossip->asked[i].conn == c)
			n->gossip->asked[i].conn = NULL;
}

/* ---- opinions and marks ----------------------------------------------- */

static void
own_marks(void *ctx, AuGossipMarks *m)
{
	AuNodeGossip *gs = ctx;
	const AuNode *n = gs->node;

	m->view_epoch = n->view != NULL ? n->view->epoch : 0;
	m->reads = 0;
	m->nvolumes = (uint8_t) n->nvols;
	for (uint32_t i = 0; i < n->nvols; i++)
	{
		const AuVolume *v = n->vols[i];

		m->reads += v->waiting.count + v->ready.count + v->reading.count;
		m->volumes[i] = (AuGossipVolume)
		{
			v->meta.system_identifier, au_v_received(v), au_v_durable(v), v->applied
		};
	}
	if (gs->host.disk != NULL)
		gs->host.disk(gs->host.ctx, &m->disk_used, &m->disk_limit);
}

static void
changed(void *ctx, const AuGossipMember *m, uint8_t was)
{
	AuNodeGossip *gs = ctx;

	if (was != 0 || m->r.incarnation != 0)
		au_n_log(gs->node, m->r.state == AU_GOSSIP_ALIVE ? AU_LOG_INFO : AU_LOG_WARNING,
				 "gossip: node %016" PRIX64 " at \"%s\" %s", m->r.node_id, m->r.address,
				 m->r.state == AU_GOSSIP_SUSPECT ? "does not answer" :
				 m->r.state == AU_GOSSIP_DEAD ? "seems dead" :
				 was == 0 ? "is there" : "is alive again");
	if (gs->host.opinion != NULL)
		gs->host.opinion(gs->host.ctx, m, was);
}

static void
look_for_newer_view(AuNodeGossip *gs)
{
	const AuNode *n = gs->node;
	const AuGossipMember *who;
	uint64_t	newest = au_gossip_view_epoch(&gs->g, &who);

	if (gs->told_period == gs->g.figures.periods || gs->host.newer_view == NULL)
		return;
	gs->told_period = gs->g.figures.periods;
	if (newest > (n->view != NULL ? n->view->epoch : 0))
		gs->host.newer_view(gs->host.ctx, newest, who->r.address);
}

/* ---- life ------------------------------------------------------------- */

void
au_g_view_changed(AuNode *n)
{
	AuGossipRecord nodes[AU_VIEW_NODES_MAX];

	if (n->gossip == NULL || n->view == NULL)
		return;
	memset(nodes, 0, sizeof(nodes));
	for (uint32_t i = 0; i < n->view->nnodes; i++)
	{
		nodes[i].node_id = n->view->nodes[i].node_id;
		memcpy(nodes[i].address, n->view->nodes[i].address, AU_ADDRESS_MAX);
	}
	au_gossip_set_cluster(&n->gossip->g, n->view->cluster_id);
	au_gossip_expect(&n->gossip->g, nodes, n->view->nnodes, now_us(n));
}

AuStatus
au_node_gossip_start(AuNode *n, const AuNodeGossipHost *host, const AuGossipOptions *opt)
{
	AuGossipHost table = {NULL, send, answer, own_marks, changed};
	AuGossipOptions o = *opt;

	if (n->gossip != NULL)
		return AU_INVALID;
	n->gossip = n->host.alloc(n->host.ctx, sizeof(*n->gossip));
	if (n->gossip == NULL)
		return AU_NOMEM;
	memset(n->gossip, 0, sizeof(*n->gossip));
	n->gossip->node = n;
	n->gossip->host = *host;
	table.ctx = n->gossip;
	o.node_id = n->opt.node_id;
	o.cluster_id = 0;
	au_gossip_init(&n->gossip->g, &table, &o, now_us(n));
	au_g_view_changed(n);
	return AU_OK;
}

bool
au_node_gossip_seed(AuNode *n, const char *address)
{
	return n->gossip != NULL && au_gossip_seed(&n->gossip->g, address);
}

const AuGossip *
au_node_gossip(const AuNode *n)
{
	return n->gossip != NULL ? &n->gossip->g : NULL;
}

/* What a node said of a volume; NULL: nothing. */
static const AuGossipVolume *
volume_of(const AuGossipMarks *m, uint64_t system_identifier)
{
	for (uint32_t k = 0; m->heartbeat != 0 && k < m->nvolumes; k++)
		if (m->volumes[k].system_identifier == system_identifier)
			return &m->volumes[k];
	return NULL;
}

AuLsn
au_g_applied(const AuNode *n, uint64_t system_identifier)
{
	AuLsn		applied = 0;

	for (uint32_t i = 0; n->gossip != NULL && i < n->gossip->g.nmembers; i++)
	{
		const AuGossipVolume *of = volume_of(&n->gossip->g.members[i].marks, system_identifier);

		if (of != NULL && of->applied > applied)
			applied = of->applied;
	}
	return applied;
}

/* How far a node of the view holds the volume's log, as it was heard. */
static AuLsn
durable_at(const AuVolume *v, const AuViewNode *node)
{
	const AuNode *n = v->node;

	if (node->node_id == n->opt.node_id)
		return au_v_durable(v);
	for (uint32_t i = 0; i < n->gossip->g.nmembers; i++)
	{
		const AuGossipMarks *m = &n->gossip->g.members[i].marks;
		const AuGossipVolume *of = m->node_id == node->node_id ?
			volume_of(m, v->meta.system_identifier) : NULL;

		if (of != NULL)
			return of->durable;
	}
	return 0;
}

AuLsn
au_g_owners_have(const AuVolume *v, uint32_t *slice)
{
	const AuNode *n = v->node;
	const AuView *view = n->view;
	AuLsn		at[AU_VIEW_NODES_MAX];
	AuLsn		least = AU_LSN_MAX;

	if (n->gossip == NULL || view == NULL || view->nnodes < 2 ||
		au_view_volume(view, v->meta.system_identifier) == NULL)
		return AU_LSN_MAX;
	for (uint32_t i = 0; i < view->nnodes; i++)
		at[i] = au_view_mends(view, view->nodes[i].number, v->meta.system_identifier) ? 0 :
			durable_at(v, &view->nodes[i]);
	for (uint32_t s = 0; s < AU_SLICES; s++)
	{
		AuLsn		best = 0;

		for (uint32_t o = 0; o < view->slices[s].nowners; o++)
		{
			const AuViewNode *owner = au_view_node(view, view->slices[s].owner[o]);

			if (owner != NULL && at[owner - view->nodes] > best)
				best = at[owner - view->nodes];
		}
		if (best < least && view->slices[s].nowners > 0)
		{
			least = best;
			*slice = s;
		}
	}
	return least;
}

uint64_t
au_g_run(AuNode *n, uint64_t now)
{
	AuNodeGossip *gs = n->gossip;

	if (gs == NULL || n->stopping)
		return UINT64_MAX;
	if (now >= gs->due_us)
	{
		gs->due_us = now + au_gossip_tick(&gs->g, now);
		look_for_newer_view(gs);
	}
	return gs->due_us - now;
}
