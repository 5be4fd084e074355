/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_node_peer.c: log from and for the other nodes of a volume's group.
 *
 * A node that was away, or is slow, gets what it missed from the others, so
 * that the writer need not keep it:
 *
 *   there is log above what we hold, and the writer sends nothing
 *     ──▶ connect to the next member, HELLO ──▶ GET_LOG ──▶ LOG ──┐
 *                    ▲                            ▲───── more ────┘
 *                    └── trouble, after a pause
 *
 * Invariants:
 *  1. Log that a quorum holds is the same whoever sends it and whatever becomes
 *     of the writer.  It is taken while all that this node holds is below its
 *     own commit position, and so the beginning of what a quorum holds.
 *  2. Nodes that have let in the writer of one term have cut off what differs
 *     from its log: what one of them has, the other may take, as long as both
 *     are still in that term.
 *  3. One question at a time to one node.
 */
#include "core/au_node_int.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include "core/au_plant.h"

#define GET_LOG_BYTES (256u << 10)

static AuLsn
held_by_quorum(const AuVolume *v)
{
	AuLsn		durable = au_v_durable(v);

	return v->commit < durable ? v->commit : durable;
}

/* The term of the writer that was let in last; 0: none. */
static uint64_t
let_in(const AuVolume *v)
{
	return au_history_last(&v->meta.history, AU_LSN_MAX);
}

/* ---- for others ------------------------------------------------------- */

void
au_p_get_log(AuNode *n, AuConn *c, const AuFrame *f)
{
	AuVolume   *v = c->vol;
	AuMsgGetLog m;
	AuMsgLog	log = {0};
	AuWriter	w;
	char		err[512];
	size_t		got = 0;
	AuLsn		limit;

	if (c->role != AU_ROLE_NODE || !au_dec_get_log(f, &m))
	{
		au_n_error(n, c, f->id, AU_INVALID, NULL, c->role != AU_ROLE_NODE ?
				   "only a storage node may ask for log" : "malformed GET_LOG");
		return;
	}
	if (v == NULL)
	{
		au_n_error(n, c, f->id, AU_REFUSED, NULL,
				   "volume %" PRIu64 " is not on this node", c->system_identifier);
		return;
	}
	if (m.lsn < n->host.log_start(n->host.ctx, v->handle))
	{
		au_n_error(n, c, f->id, AU_GONE,
				   "Rebuild the node that asks: remove its directory and let it join again.",
				   "log at %X/%X is no longer kept, only from %X/%X on", AU_LSN_ARGS(m.lsn),
				   AU_LSN_ARGS(n->host.log_start(n->host.ctx, v->handle)));
		return;
	}
	limit = held_by_quorum(v);
	if ((m.term == let_in(v) && m.term != 0) || AU_PLANTED(AU_PLANT_RESURRECT))
		limit = au_v_durable(v);
	if (m.lsn < limit)
	{
		AuLsn		want = limit - m.lsn < m.length ? limit - m.lsn : m.length;
		AuStatus	status;

		if (want > AU_NODE_SLICE_BYTES)
			want = AU_NODE_SLICE_BYTES;
		status = n->host.log_read(n->host.ctx, v->handle, m.lsn, n->slice, (size_t) want, &got,
								  err, sizeof(err));
		if (status != AU_OK)
		{
			au_n_error(n, c, f->id, status, NULL, "%s", err);
			return;
		}
	}
	log.lsn = m.lsn;
	log.commit_lsn = AU_PLANTED(AU_PLANT_RESURRECT) ? limit : held_by_quorum(v);
	log.length = (uint32_t) got;
	log.bytes = n->slice;
	if (au_n_reserve(n, c, &w, AU_WIRE_HEADER + 64 + got))
		au_n_send(n, c, &w, au_enc_log(&w, f->id, &log));
}

/* ---- for us ----------------------------------------------------------- */

static bool
starved(const AuVolume *v, uint64_t now)
{
	return !v->failed && v->cut == 0 && au_v_received(v) == au_v_durable(v) &&
		now - v->fed_at >= AU_NODE_STARVED_US;
}

static void
ask(AuVolume *v)
{
	AuNode	   *n = v->node;
	AuMsgGetLog m = {.term = let_in(v),.lsn = au_v_received(v),.length = GET_LOG_BYTES};
	AuWriter	w;

	assert(!v->peer_asked);
	if (au_n_reserve(n, v->peer, &w, AU_WIRE_HEADER + 64))
	{
		v->peer_asked = true;
		v->peer_term = m.term;
		au_n_send(n, v->peer, &w, au_enc_get_log(&w, 2, &m));
	}
}

/* The next member that can be asked; false: there is none. */
static bool
next_member(AuVolume *v)
{
	const AuGroup *g = &v->meta.group;

	for (uint32_t i = 0; i < g->n; i++)
	{
		v->peer_index = (v->peer_index + 1) % g->n;
		if (g->members[v->peer_index].node_id != v->node->opt.node_id &&
			g->members[v->peer_index].address[0] != '\0')
			return true;
	}
	return false;
}

static void
closed(AuNode *n, AuConn *c)
{
	AuVolume   *v = c->vol;

	(void) n;
	assert(v->peer == c);
	v->peer = NULL;
	v->peer_asked = false;
}

/* false: this peer is of no use */
static bool
take_log(AuVolume *v, const AuMsgLog *m)
{
	AuLsn		received = au_v_received(v);
	char		err[512];

	/* The writer may have sent it meanwhile, or another one was let in. */
	if (m->lsn != received || v->peer_term != let_in(v) || v->cut != 0)
		return true;
	if (m->length == 0)
		return false;
	/* Beyond what a quorum holds the term must vouch for what we have. */
	if (received > v->commit && v->peer_term == 0)
		return false;
	if (au_v_log_append(v, v->meta.term, v->meta.timeline, m->bytes, m->length,
						err, sizeof(err)) != AU_OK)
		return false;
	v->stats.peer_bytes += m->length;
	if (m->commit_lsn > v->commit && received <= v->commit)
		v->commit = m->commit_lsn;
	return true;
}

/* How far there is log, as far as we know. */
static AuLsn
known_end(const AuVolume *v)
{
	return v->commit > v->wanted ? v->commit : v->wanted;
}

static void
answer(AuNode *n, AuConn *c, const AuFrame *f)
{
	AuVolume   *v = c->vol;
	AuMsgHelloOk ok;
	AuMsgLog	log;
	AuMsgError	e;
	uint64_t	now = n->host.now_us(n->host.ctx);
	bool		useful = false;

	v->peer_asked = false;
	if (f->type == AU_MSG_HELLO_OK && au_dec_hello_ok(f, &ok))
		useful = ok.volume_known &&
			ok.node_id == v->meta.group.members[v->peer_index].node_id;
	else if (f->type == AU_MSG_LOG && au_dec_log(f, &log))
		useful = take_log(v, &log);
	else if (f->type == AU_MSG_ERROR && au_dec_error(f, &e))
		au_n_log(n, AU_LOG_WARNING, "volume %" PRIu64 ": no log from %s: %s",
				 v->meta.system_identifier, c->name, e.message);
	/* The next question is asked by au_p_run, when this log is durable. */
	v->peer_retry_at = now + AU_NODE_RETRY_US;
	if (!useful)
		au_n_close(n, c);
	else if (f->type == AU_MSG_LOG)
		v->fed_at = now - AU_NODE_STARVED_US;	/* go on at once */
}

static void
connect_peer(AuVolume *v, uint64_t now)
{
	static const AuOutgoing use = {answer, closed};
	const AuMember *m;

	v->peer_retry_at = now + AU_NODE_RETRY_US;
	if (!next_member(v))
		return;
	m = &v->meta.group.members[v->peer_index];
	v->peer = au_n_connect(v->node, v, m->node_id, m->address, &use, v);
	v->peer_asked = v->peer != NULL;	/* HELLO */
}

uint64_t
au_p_run(AuVolume *v, uint64_t now)
{
	uint64_t	since = now - v->fed_at;

	if (v->meta.group.n <= 1 || v->node->stopping)
		return UINT64_MAX;
	if (v->peer != NULL && v->peer_asked)
	{
		/* An answer that does not come is one from nobody. */
		if (now >= v->peer_retry_at)
			au_n_close(v->node, v->peer);
		return v->peer_retry_at > now ? v->peer_retry_at - now : UINT64_MAX;
	}
	if (known_end(v) <= au_v_received(v))
	{
		if (v->peer != NULL)
			au_n_close(v->node, v->peer);
		return UINT64_MAX;
	}
	if (!starved(v, now))
		return since < AU_NODE_STARVED_US ? AU_NODE_STARVED_US - since : AU_NODE_STARVED_US;
	if (v->peer != NULL)
	{
		if (!v->peer->closing)
			ask(v);
	}
	else if (now >= v->peer_retry_at)
		connect_peer(v, now);
	return v->peer_retry_at > now ? v->peer_retry_at - now : AU_NODE_STARVED_US;
}
