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
 * A node of the cluster that is not in the group follows the log in the same
 * way, all the time: it asks with a wait, and is answered as soon as a quorum
 * holds more.
 *
 * Invariants:
 *  1. Log that a quorum holds is the same whoever sends it and whatever becomes
 *     of the writer.  It is taken while all that this node holds is below its
 *     own commit position, and so the beginning of what a quorum holds.
 *  2. Nodes that have let in the writer of one term have cut off what differs
 *     from its log: what one of them has, the other may take, as long as both
 *     are still in that term.
 *  3. One question at a time to one node; what it brought need not be durable
 *     before the next one, but no more than CATCH_UP_MAX is unsynced.
 *  4. A follower stays with a node that has all it knows of.  A member may get
 *     nothing any more and answer all the same (its disk is full, the writer
 *     does not reach it): then another one is asked.
 */
#include "core/au_node_int.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include "core/au_plant.h"

#define CATCH_UP_MAX (AU_NODE_UNSYNCED_MAX / 4)
/* All are asked once between two turns. */
#define GONE_ROUNDS 2

static AuLsn
held_by_quorum(const AuVolume *v)
{
	AuLsn		durable = au_v_durable(v);

	return au_v_alone(v) || v->commit >= durable ? durable : v->commit;
}

/* The term of the writer that was let in last; 0: none. */
static uint64_t
let_in(const AuVolume *v)
{
	return au_history_last(&v->meta.history, AU_LSN_MAX);
}

/* ---- for others ------------------------------------------------------- */

/* How far this node gives its log to one that asks so. */
static AuLsn
limit_for(const AuVolume *v, const AuMsgGetLog *m)
{
	if ((m->term == let_in(v) && m->term != 0) || AU_PLANTED(AU_PLANT_RESURRECT))
		return au_v_durable(v);
	return held_by_quorum(v);
}

static void
send_log(AuNode *n, AuConn *c, uint64_t id, const AuMsgGetLog *m)
{
	AuVolume   *v = c->vol;
	AuLsn		limit = limit_for(v, m);
	AuMsgLog	log = {0};
	AuWriter	w;
	char		err[512];
	size_t		got = 0;

	if (m->lsn < limit)
	{
		AuLsn		want = limit - m->lsn < m->length ? limit - m->lsn : m->length;
		AuStatus	status;

		if (want > AU_NODE_SLICE_BYTES)
			want = AU_NODE_SLICE_BYTES;
		status = n->host.log_read(n->host.ctx, v->handle, m->lsn, n->slice, (size_t) want, &got,
								  err, sizeof(err));
		if (status != AU_OK)
		{
			au_n_error(n, c, id, status, NULL, "%s", err);
			if (status == AU_CORRUPT)
				(void) au_v_log_damaged(v, err);
			return;
		}
	}
	log.lsn = m->lsn;
	log.commit_lsn = AU_PLANTED(AU_PLANT_RESURRECT) ? limit : held_by_quorum(v);
	log.length = (uint32_t) got;
	log.bytes = n->slice;
	if (au_n_reserve(n, c, &w, AU_WIRE_HEADER + 64 + got))
		au_n_send(n, c, &w, au_enc_log(&w, id, &log));
}

void
au_p_get_log(AuNode *n, AuConn *c, const AuFrame *f)
{
	AuVolume   *v = c->vol;
	AuMsgGetLog m;

	if (c->role != AU_ROLE_NODE || !au_dec_get_log(f, &m))
		au_n_error(n, c, f->id, AU_INVALID, NULL, c->role != AU_ROLE_NODE ?
				   "only a storage node may ask for log" : "malformed GET_LOG");
	else if (v == NULL)
		au_n_error(n, c, f->id, AU_REFUSED, NULL,
				   "volume %" PRIu64 " is not on this node", c->system_identifier);
	else if (m.lsn < n->host.log_start(n->host.ctx, v->handle))
		au_n_error(n, c, f->id, AU_GONE,
				   "The node that asks makes its pages and its log anew from other nodes.",
				   "log at %X/%X is no longer kept, only from %X/%X on", AU_LSN_ARGS(m.lsn),
				   AU_LSN_ARGS(n->host.log_start(n->host.ctx, v->handle)));
	else if (m.wait_ms > 0 && m.lsn >= limit_for(v, &m) && !c->waits_log &&
			 n->nlog_waits < AU_NODE_LOG_WAITS_MAX)
	{
		c->waits_log = true;
		c->log = m;
		c->log_id = f->id;
		c->log_until = n->host.now_us(n->host.ctx) + (uint64_t) m.wait_ms * 1000;
		n->nlog_waits++;
	}
	else
		send_log(n, c, f->id, &m);
}

uint64_t
au_p_wake(AuNode *n, uint64_t now)
{
	uint64_t	wait = UINT64_MAX;

	for (AuConn *c = n->conns; c != NULL && n->nlog_waits > 0; c = c->next)
	{
		if (!c->waits_log || c->closing)
			continue;
		if (c->log.lsn < limit_for(c->vol, &c->log) || now >= c->log_until)
		{
			c->waits_log = false;
			n->nlog_waits--;
			send_log(n, c, c->log_id, &c->log);
		}
		else if (c->log_until - now < wait)
			wait = c->log_until - now;
	}
	return wait;
}

void
au_p_forget_conn(AuNode *n, AuConn *c)
{
	n->nlog_waits -= c->waits_log;
	c->waits_log = false;
}

/* ---- for us ----------------------------------------------------------- */

bool
au_p_source(const AuNode *n, uint64_t system_identifier, const AuGroup *group, uint32_t i,
			AuMember *out)
{
	const AuViewVolume *of = n->view != NULL ? au_view_volume(n->view, system_identifier) : NULL;
	AuGroup		current = *group;

	if (of != NULL && of->ngroup > 0)
		au_view_group(n->view, of, &current);
	if (i < current.n)
	{
		*out = current.members[i];
		return true;
	}
	i -= current.n;
	if (n->view == NULL || i >= n->view->nnodes)
		return false;
	*out = (AuMember)
	{
		.node_id = n->view->nodes[i].node_id
	};
	if (n->view->nodes[i].up)
		memcpy(out->address, n->view->nodes[i].address, sizeof(out->address));
	return true;
}

const char *
au_p_log_gone(const AuVolume *v)
{
	if (v->gone_at == 0 || v->gone_at != au_v_received(v) || v->gone_rounds < GONE_ROUNDS)
		return NULL;
	return v->gone_why;
}

/* It keeps no log from our end on; another one may. */
static void
note_gone(AuVolume *v, const AuConn *c, const AuMsgError *e)
{
	if (v->gone_at != au_v_received(v))
		v->gone_rounds = 0;
	else if (v->gone_rounds > 0)
		return;					/* it is known, and was logged */
	v->gone_at = au_v_received(v);
	snprintf(v->gone_why, sizeof(v->gone_why),
			 "this node was away for longer than the others keep log; %s: %.250s",
			 v->node->host.mend_begin == NULL ? "it cannot catch up, and needs a newer copy of its directory" :
			 "its pages and its log are made anew from theirs", e->message);
	au_n_log(v->node, AU_LOG_WARNING, "volume %" PRIu64 ": no log from %s: %s",
			 v->meta.system_identifier, c->name, e->message);
}

static bool
starved(const AuVolume *v, uint64_t now)
{
	return !v->failed && v->cut == 0 &&
		au_v_received(v) - au_v_durable(v) <= CATCH_UP_MAX &&
		now - v->fed_at >= AU_NODE_STARVED_US;
}

static void
ask(AuVolume *v)
{
	AuNode	   *n = v->node;
	AuMsgGetLog m = {.term = let_in(v),.lsn = au_v_received(v),.length = AU_NODE_SLICE_BYTES};
	AuWriter	w;

	v->peer_waits = au_o_follows(v);
	m.wait_ms = v->peer_waits ? AU_GET_LOG_WAIT_MS : 0;

	assert(!v->peer_asked);
	if (au_n_reserve(n, v->peer, &w, AU_WIRE_HEADER + 64))
	{
		v->peer_asked = true;
		v->peer_term = m.term;
		au_n_send(n, v->peer, &w, au_enc_get_log(&w, 2, &m));
	}
}

/* The next node that can be asked; false: there is none. */
static bool
next_source(AuVolume *v, AuMember *m)
{
	for (uint32_t i = 0; i <= AU_GROUP_MAX + AU_VIEW_NODES_MAX; i++)
	{
		v->peer_index++;
		if (!au_p_source(v->node, v->meta.system_identifier, &v->meta.group, v->peer_index, m))
		{
			v->peer_index = 0;
			v->gone_rounds++;
			if (!au_p_source(v->node, v->meta.system_identifier, &v->meta.group, 0, m))
				return false;
		}
		if (m->node_id != v->node->opt.node_id && m->address[0] != '\0')
			return true;
	}
	return false;
}

static void
closed(AuNode *n, AuConn *c)
{
	AuVolume   *v = c->vol;
	uint64_t	soon = n->host.now_us(n->host.ctx) + AU_NODE_STARVED_US;

	assert(v->peer == c);
	v->peer = NULL;
	v->peer_asked = false;
	/* It is gone: the next one is asked, not this one after a pause. */
	if (!c->closing && v->peer_retry_at > soon)
		v->peer_retry_at = soon;
}

static bool
is_member(const AuVolume *v, uint64_t node_id)
{
	AuMember	m;

	for (uint32_t i = 0; i < AU_GROUP_MAX; i++)
	{
		const AuView *view = v->node->view;
		const AuViewVolume *of = au_view_volume(view, v->meta.system_identifier);

		if (of == NULL || i >= of->ngroup ||
			!au_p_source(v->node, v->meta.system_identifier, &v->meta.group, i, &m))
			return false;
		if (m.node_id == node_id)
			return true;
	}
	return false;
}

/* Somebody knows of log above this: readers, or nodes that applied it. */
static bool
more_is_known(const AuVolume *v, AuLsn lsn)
{
	return (v->heap_count > 0 && v->heap[0]->need > lsn) ||
		au_g_applied(v->node, v->meta.system_identifier) > lsn;
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
	if (m->lsn + m->length >= m->commit_lsn && !more_is_known(v, m->commit_lsn))
		v->caught_up = m->commit_lsn;
	if (m->length == 0)
	{
		if (!v->peer_waits)
			return false;
		if (is_member(v, v->peer_id))
			return !more_is_known(v, received);
		/* Of one outside of the group nothing may ever come. */
		v->peer_index = UINT32_MAX;
		return false;
	}
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
	bool		gone = false;

	v->peer_asked = false;
	if (f->type == AU_MSG_HELLO_OK && au_dec_hello_ok(f, &ok))
		useful = ok.volume_known && ok.node_id == v->peer_id;
	else if (f->type == AU_MSG_LOG && au_dec_log(f, &log))
		useful = take_log(v, &log);
	else if (f->type == AU_MSG_ERROR && au_dec_error(f, &e))
	{
		gone = e.status == AU_GONE;
		if (gone)
			note_gone(v, c, &e);
		else
			au_n_log(n, AU_LOG_WARNING, "volume %" PRIu64 ": no log from %s: %s",
					 v->meta.system_identifier, c->name, e.message);
	}
	/* The next question is asked by au_p_run.  One that waited for log in vain
	 * has taken its time; that log is gone here is no trouble, while not all
	 * have said so; other trouble calls for a pause. */
	v->peer_retry_at = now + (f->type == AU_MSG_LOG && v->peer_waits ? 0 :
							  gone && au_p_log_gone(v) == NULL ? AU_NODE_STARVED_US :
							  AU_NODE_RETRY_US);
	if (!useful)
		au_n_close(n, c);
	else if (f->type == AU_MSG_LOG)
		v->fed_at = now - AU_NODE_STARVED_US;	/* go on at once */
}

static void
connect_peer(AuVolume *v, uint64_t now)
{
	static const AuOutgoing use = {answer, closed};
	AuMember	m;

	v->peer_retry_at = now + AU_NODE_RETRY_US;
	if (!next_source(v, &m))
		return;
	v->peer_id = m.node_id;
	v->peer = au_n_connect(v->node, v->meta.system_identifier, v, m.node_id, m.address, &use, v);
	v->peer_asked = v->peer != NULL;	/* HELLO */
}

/* Once a group without this node is settled nobody counts on its log. */
bool
au_p_counts(const AuVolume *v)
{
	const AuViewVolume *of;

	if (!au_o_follows(v))
		return au_group_find(&v->meta.group, v->node->opt.node_id) >= 0;
	of = au_view_volume(v->node->view, v->meta.system_identifier);
	return !of->settled || of->group_epoch < v->meta.group.epoch;
}

/*
 * What a node that was in the group holds beyond the commit position it knows
 * may not be what the group holds there.  When it does not count any more, a
 * quorum of the others has what was committed of it, and gives it back.
 */
static void
cut_own_end(AuVolume *v)
{
	if (au_p_counts(v) || v->writer != NULL ||
		v->syncing || au_v_received(v) != au_v_durable(v))
		return;
	assert(v->next_feed <= v->commit && v->applied <= v->commit);
	au_n_log(v->node, AU_LOG_INFO, "volume %" PRIu64 ": no longer in the log group: cutting off log from %X/%X to %X/%X, and following the group",
			 v->meta.system_identifier, AU_LSN_ARGS(v->commit), AU_LSN_ARGS(au_v_received(v)));
	v->cut = v->commit;
}

/* As it stands outside of the group it asks all the time. */
static uint64_t
follow(AuVolume *v, uint64_t now)
{
	if (v->failed || v->cut != 0)
		return UINT64_MAX;
	if (au_v_received(v) > v->commit)
	{
		cut_own_end(v);
		return AU_NODE_STARVED_US;
	}
	if (v->peer != NULL && !v->peer_asked && !v->peer->closing)
	{
		if (au_v_received(v) - au_v_durable(v) > AU_NODE_UNSYNCED_MAX ||
			au_v_lags(v, au_v_durable(v)))
			return AU_NODE_STARVED_US;	/* not more than it can swallow */
		v->peer_retry_at = now + AU_NODE_RETRY_US;
		ask(v);
	}
	else if (v->peer == NULL && now >= v->peer_retry_at)
		connect_peer(v, now);
	return v->peer_retry_at > now ? v->peer_retry_at - now : AU_NODE_STARVED_US;
}

uint64_t
au_p_run(AuVolume *v, uint64_t now)
{
	uint64_t	since = now - v->fed_at;

	if (au_p_log_gone(v) != NULL)
		au_md_log_gone(v);
	if (v->node->stopping || (v->meta.group.n <= 1 && !au_o_follows(v)))
		return UINT64_MAX;
	if (v->peer != NULL && v->peer_asked)
	{
		/* An answer that does not come is one from nobody. */
		if (now >= v->peer_retry_at)
			au_n_close(v->node, v->peer);
		return v->peer_retry_at > now ? v->peer_retry_at - now : UINT64_MAX;
	}
	if (au_o_follows(v))
		return follow(v, now);
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
