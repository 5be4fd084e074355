/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_node_view.c: the view of the cluster that this node is in: who asks for
 * it, and who wants it changed.
 *
 * The node only keeps the view it was given last.  Commands go through the host
 * to whoever decides; meanwhile their connections are remembered by ticket:
 * AU_NODE_COMMANDS_MAX of them, beyond that one is asked to come again.
 */
#include "core/au_node_int.h"

#include "common/au_wire_cluster.h"

void
au_node_in_cluster(AuNode *n)
{
	n->in_cluster = true;
}

AuStatus
au_node_set_view(AuNode *n, const AuView *view)
{
	n->in_cluster = true;
	if (n->view == NULL)
	{
		n->view = n->host.alloc(n->host.ctx, sizeof(*n->view) + AU_VIEW_ENCODED_MAX);
		if (n->view == NULL)
			return AU_NOMEM;
		n->view_bytes = (uint8_t *) (n->view + 1);
	}
	*n->view = *view;
	n->view_length = (uint32_t) au_view_encode(view, n->view_bytes, AU_VIEW_ENCODED_MAX);
	au_g_view_changed(n);
	au_k_view_changed(n);
	return AU_OK;
}

const AuView *
au_node_view(const AuNode *n)
{
	return n->view;
}

/* Not "in no cluster": who hears that goes on without one, for ever. */
static void
no_view_yet(AuNode *n, AuConn *c, uint64_t id)
{
	au_n_error(n, c, id, AU_IO, "Ask again, or ask another node.",
			   "this node has no view of its cluster yet");
}

void
au_c_get_view(AuNode *n, AuConn *c, const AuFrame *f)
{
	AuMsgGetView m;
	AuMsgView	answer = {0};
	AuWriter	w;

	if (!au_dec_get_view(f, &m))
	{
		au_n_error(n, c, f->id, AU_INVALID, NULL, "malformed GET_VIEW");
		return;
	}
	if (n->view == NULL && n->in_cluster)
	{
		no_view_yet(n, c, f->id);
		return;
	}
	if (n->view != NULL)
	{
		answer.epoch = n->view->epoch;
		if (m.epoch < answer.epoch)
		{
			answer.length = n->view_length;
			answer.bytes = n->view_bytes;
		}
	}
	if (au_n_reserve(n, c, &w, AU_WIRE_HEADER + 12 + answer.length))
		au_n_send(n, c, &w, au_enc_view(&w, f->id, &answer));
}

void
au_c_command(AuNode *n, AuConn *c, const AuFrame *f)
{
	AuMsgCluster m;
	AuViewCommand command;
	uint32_t	slot = 0;

	if ((c->role != AU_ROLE_ADMIN && c->role != AU_ROLE_NODE) || !au_dec_cluster(f, &m) ||
		!au_view_command_decode(&command, m.bytes, m.length))
	{
		au_n_error(n, c, f->id, AU_INVALID, NULL,
				   c->role == AU_ROLE_ADMIN || c->role == AU_ROLE_NODE ? "malformed CLUSTER" :
				   "only nodes and administrators may change the cluster");
		return;
	}
	if (n->in_cluster && n->view == NULL)
	{
		no_view_yet(n, c, f->id);
		return;
	}
	if (n->host.command == NULL || n->view == NULL)
	{
		au_n_error(n, c, f->id, AU_REFUSED,
				   "Start the first node with --cluster-init, others with --join.",
				   "this node is in no cluster");
		return;
	}
	while (slot < AU_NODE_COMMANDS_MAX && n->commands[slot].ticket != 0)
		slot++;
	if (slot == AU_NODE_COMMANDS_MAX)
	{
		au_n_error(n, c, f->id, AU_IO, "Try again.",
				   "%d commands for the cluster are under way already", AU_NODE_COMMANDS_MAX);
		return;
	}
	n->commands[slot] = (AuPendingCommand)
	{
		.ticket = ++n->last_ticket,.conn = c,.id = f->id
	};
	n->host.command(n->host.ctx, n->last_ticket, &command, m.hops);
}

void
au_node_command_done(AuNode *n, uint64_t ticket, const AuCommandResult *r)
{
	for (uint32_t i = 0; i < AU_NODE_COMMANDS_MAX; i++)
	{
		AuPendingCommand p = n->commands[i];
		AuMsgClusterOk ok = {.epoch = r->epoch,.number = r->number};
		AuWriter	w;

		if (p.ticket != ticket)
			continue;
		n->commands[i].ticket = 0;
		if (p.conn == NULL)
			return;				/* nobody waits any more */
		if (r->status != AU_OK)
			au_n_error(n, p.conn, p.id, r->status, r->hint, "%s", r->message);
		else if (au_n_reserve(n, p.conn, &w, AU_WIRE_HEADER + 12))
			au_n_send(n, p.conn, &w, au_enc_cluster_ok(&w, p.id, &ok));
		return;
	}
}

void
au_c_forget_conn(AuNode *n, const AuConn *c)
{
	for (uint32_t i = 0; i < AU_NODE_COMMANDS_MAX; i++)
		if (n->commands[i].conn == c)
			n->commands[i].conn = NULL;
}
