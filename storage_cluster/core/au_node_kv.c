/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_node_kv.c: connections and frames of a node's key-value interface.
 *
 *   clients, nodes ──au_k_question──▶ AuKv ──answer──▶ the connection it came on
 *                                      │ ▲
 *                                 send ▼ │ au_kv_told
 *                               one connection to each node of the view
 */
#include "core/au_node_int.h"

#include <assert.h>
#include <stdio.h>

#include "core/au_node_kv.h"

typedef struct KvLink
{
	uint32_t	number;			/* 0: free */
	uint64_t	node_id;
	char		address[AU_ADDRESS_MAX];
	AuConn	   *conn;			/* NULL: none */
	bool		known;			/* it said that it is that node */
	uint64_t	retry_at;
} KvLink;

struct AuNodeKv
{
	AuNode	   *node;
	AuNodeKvHost host;
	AuKv	   *kv;				/* NULL: not started */
	KvLink		links[AU_VIEW_NODES_MAX];
	uint64_t	due;			/* of AuKv */
};

static uint64_t
now_us(const AuNode *n)
{
	return n->host.now_us(n->host.ctx);
}

/* ---- AuKv's host ------------------------------------------------------ */

static uint64_t
kv_now(void *ctx)
{
	return now_us(((AuNodeKv *) ctx)->node);
}

static void *
kv_alloc(void *ctx, size_t size)
{
	AuNode	   *n = ((AuNodeKv *) ctx)->node;

	return n->host.alloc(n->host.ctx, size);
}

static void
kv_release(void *ctx, void *p)
{
	AuNode	   *n = ((AuNodeKv *) ctx)->node;

	n->host.release(n->host.ctx, p);
}

static void
kv_log(void *ctx, AuLogLevel level, const char *message)
{
	au_n_log(((AuNodeKv *) ctx)->node, level, "%s", message);
}

static void
kv_submit(void *ctx, AuKvOp *op)
{
	AuNodeKv   *k = ctx;

	k->host.submit(k->host.ctx, op);
}

static uint8_t *
kv_buffer(void *ctx, size_t cap)
{
	AuNode	   *n = ((AuNodeKv *) ctx)->node;

	return n->host.send_alloc(n->host.ctx, cap);
}

/* Memory of kv_buffer goes out on a connection. */
static void
give(AuNode *n, AuConn *c, uint8_t *buffer, size_t len)
{
	AuWriter	w;

	au_writer_start(&w, buffer, len);
	w.len = len;
	au_n_send(n, c, &w, true);
}

static bool
kv_send(void *ctx, uint32_t number, uint8_t *buffer, size_t len)
{
	AuNodeKv   *k = ctx;

	for (uint32_t i = 0; i < AU_VIEW_NODES_MAX; i++)
	{
		KvLink	   *l = &k->links[i];

		if (l->number != number || l->conn == NULL || !l->known || l->conn->closing ||
			l->conn->out_bytes > AU_NODE_KV_UNSENT)
			continue;
		give(k->node, l->conn, buffer, len);
		return true;
	}
	k->node->host.send_drop(k->node->host.ctx, buffer);
	return false;
}

/* client: a connection; the node itself asks as k */
static void
kv_answer(void *ctx, void *client, uint8_t *buffer, size_t len)
{
	AuNodeKv   *k = ctx;
	AuConn	   *c = client;
	AuFrame		f;
	size_t		used;

	if (client != k && !c->closing)
	{
		give(k->node, c, buffer, len);
		return;
	}
	if (client == k && au_frame_parse(buffer, len, &f, &used) == AU_OK)
		k->host.told(k->host.ctx, &f);
	k->node->host.send_drop(k->node->host.ctx, buffer);
}

/* ---- connections to the view's nodes ------------------------------------ */

static void
link_answer(AuNode *n, AuConn *c, const AuFrame *f)
{
	AuNodeKv   *k = n->kv;
	KvLink	   *l = c->outgoing_ctx;
	AuMsgHelloOk ok;

	k->due = 0;
	if (l->known)
		au_kv_told(k->kv, l->number, f);
	else if (f->type == AU_MSG_HELLO_OK && au_dec_hello_ok(f, &ok) && ok.node_id == l->node_id)
	{
		l->known = true;
		au_kv_peer(k->kv, l->number, true);
	}
	else
		au_n_close(n, c);
}

static void
link_closed(AuNode *n, AuConn *c)
{
	KvLink	   *l = c->outgoing_ctx;
	bool		known = l->known;

	l->conn = NULL;
	l->known = false;
	l->retry_at = now_us(n) + AU_NODE_KV_RETRY_US;
	if (known && n->kv->kv != NULL)
		au_kv_peer(n->kv->kv, l->number, false);
}

static uint64_t
connect_links(AuNodeKv *k, uint64_t now)
{
	static const AuOutgoing use = {link_answer, link_closed};
	uint64_t	wait = UINT64_MAX;

	for (uint32_t i = 0; i < AU_VIEW_NODES_MAX && !k->node->stopping; i++)
	{
		KvLink	   *l = &k->links[i];

		if (l->number == 0 || l->conn != NULL)
			continue;
		if (now >= l->retry_at)
		{
			l->retry_at = now + AU_NODE_KV_RETRY_US;
			l->conn = au_n_connect(k->node, 0, NULL, l->node_id, l->address, &use, l);
		}
		if (l->conn == NULL && l->retry_at - now < wait)
			wait = l->retry_at - now;
	}
	return wait;
}

static bool
same_node(const KvLink *l, const AuViewNode *v)
{
	return l->number == v->number && strcmp(l->address, v->address) == 0;
}

/* One link for each other node of the view; NULL: none. */
static void
take_links(AuNodeKv *k, const AuView *v)
{
	for (uint32_t i = 0; i < AU_VIEW_NODES_MAX; i++)
	{
		KvLink	   *l = &k->links[i];
		bool		stays = l->number == 0;

		for (uint32_t j = 0; v != NULL && j < v->nnodes; j++)
			stays = stays || same_node(l, &v->nodes[j]);
		if (stays)
			continue;
		if (l->known)
			au_kv_peer(k->kv, l->number, false);
		l->known = false;
		/* its place is free when the connection is closed */
		if (l->conn != NULL)
			au_n_close(k->node, l->conn);
		l->number = 0;
	}
	for (uint32_t j = 0; v != NULL && j < v->nnodes; j++)
	{
		KvLink	   *free = NULL;
		bool		there = v->nodes[j].node_id == k->node->opt.node_id;

		for (uint32_t i = 0; i < AU_VIEW_NODES_MAX; i++)
		{
			there = there || same_node(&k->links[i], &v->nodes[j]);
			if (k->links[i].number == 0 && k->links[i].conn == NULL)
				free = &k->links[i];
		}
		if (there || free == NULL)
			continue;
		memset(free, 0, sizeof(*free));
		free->number = v->nodes[j].number;
		free->node_id = v->nodes[j].node_id;
		memcpy(free->address, v->nodes[j].address, sizeof(free->address));
	}
}

/* ---- from the node ---------------------------------------------------- */

void
au_k_question(AuNode *n, AuConn *c, const AuFrame *f)
{
	AuNodeKv   *k = n->kv;
	char		err[512];

	if (k == NULL || n->stopping)
		au_n_error(n, c, f->id, AU_UNSUPPORTED, NULL, "this node has no key-value interface");
	else if (k->kv == NULL && (!k->host.open(k->host.ctx, err, sizeof(err)) || k->kv == NULL))
		au_n_error(n, c, f->id, AU_IO, "The node's log says more.", "%s", err);
	else
	{
		k->due = 0;
		au_kv_question(k->kv, c, c->role, f);
	}
}

void
au_k_forget_conn(AuNode *n, AuConn *c)
{
	if (n->kv != NULL && n->kv->kv != NULL)
		au_kv_client_gone(n->kv->kv, c);
}

void
au_k_view_changed(AuNode *n)
{
	AuNodeKv   *k = n->kv;
	const AuViewNode *self = n->view != NULL ? au_view_node_by_id(n->view, n->opt.node_id) : NULL;
	char		err[512];

	if (k != NULL && k->kv != NULL && n->view != NULL && self == NULL)
	{
		take_links(k, NULL);
		au_kv_leave(k->kv, n->view->cluster_id);
	}
	if (k == NULL || self == NULL)
		return;					/* not in it yet, or not any more */
	if (k->kv == NULL)
	{
		/* comes back to here */
		(void) k->host.open(k->host.ctx, err, sizeof(err));
		return;
	}
	take_links(k, n->view);
	au_kv_set_view(k->kv, n->view, self->number);
	for (uint32_t i = 0; i < AU_VIEW_NODES_MAX; i++)
		if (k->links[i].number != 0 && k->links[i].known)
			au_kv_peer(k->kv, k->links[i].number, true);
	k->due = 0;
}

uint64_t
au_k_run(AuNode *n, uint64_t now)
{
	AuNodeKv   *k = n->kv;
	uint64_t	wait,
				links;

	if (k == NULL || k->kv == NULL || n->stopping)
		return UINT64_MAX;
	links = connect_links(k, now);
	if (now >= k->due)
	{
		wait = au_kv_run(k->kv);
		k->due = wait == UINT64_MAX ? UINT64_MAX : now + wait;
	}
	wait = k->due == UINT64_MAX ? UINT64_MAX : k->due > now ? k->due - now : 0;
	return links < wait ? links : wait;
}

void
au_k_free(AuNode *n)
{
	if (n->kv == NULL)
		return;
	if (n->kv->kv != NULL)
		au_kv_free(n->kv->kv);
	n->host.release(n->host.ctx, n->kv);
	n->kv = NULL;
}

/* ---- from the host ---------------------------------------------------- */

AuStatus
au_node_kv_host(AuNode *n, const AuNodeKvHost *host)
{
	if (n->kv != NULL)
		return AU_INVALID;
	n->kv = n->host.alloc(n->host.ctx, sizeof(*n->kv));
	if (n->kv == NULL)
		return AU_NOMEM;
	memset(n->kv, 0, sizeof(*n->kv));
	n->kv->node = n;
	n->kv->host = *host;
	return AU_OK;
}

AuStatus
au_node_kv_start(AuNode *n, const AuKvOptions *opt, const AuKvExec *x,
				 const uint8_t *state, size_t state_len)
{
	AuKvHost	host = {
		.ctx = n->kv,.now_us = kv_now,.alloc = kv_alloc,.release = kv_release,.log = kv_log,
		.submit = kv_submit,.buffer = kv_buffer,.send = kv_send,.answer = kv_answer
	};

	assert(n->kv != NULL && n->kv->kv == NULL);
	n->kv->kv = au_kv_new(&host, opt, x, state, state_len);
	if (n->kv->kv == NULL)
		return AU_NOMEM;
	au_k_view_changed(n);
	return AU_OK;
}

void
au_node_kv_done(AuNode *n, AuKvOp *op)
{
	n->kv->due = 0;
	au_kv_done(n->kv->kv, op);
}

void
au_node_kv_ask(AuNode *n, const uint8_t *frame, size_t len)
{
	AuFrame		f;
	size_t		used;

	if (n->kv == NULL || n->kv->kv == NULL || au_frame_parse(frame, len, &f, &used) != AU_OK)
		return;
	n->kv->due = 0;
	au_kv_question(n->kv->kv, n->kv, AU_ROLE_NODE, &f);
}

const AuKv *
au_node_kv(const AuNode *n)
{
	return n->kv != NULL ? n->kv->kv : NULL;
}
