/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_node_mend.c: a volume whose page store is damaged gets it anew from the
 * other nodes that keep it.
 *
 *   WELL ─damage─▶ HURT ─connected─▶ ASKS ─its position─▶ COPIES ─all is in─┐
 *     ▲             ▲                  │                   │  │ ▲           │
 *     │             └──── nobody helps, it is tried again ─┴──┘ └ chunks    │
 *     │                                                                     ▼
 *     └────────── the new store is open ── SWITCHES ◀── enough log ── CATCHES_UP
 *
 * A new store that is damaged, too, begins anew after a pause.
 *
 * In a cluster the new store has sizes only, and takes the old one's place at
 * once: its slices come then from their owners, as to a node that is new.  So
 * that these are not emptied at the same time the view says who may
 * (au_node_grant.c); and the host keeps the old store aside until all is here.
 *
 * Without one the new store is made beside the old one, which goes on
 * serving what is sound; what is damaged is refused, so that clients ask
 * another node.  Then the new one takes its place and the log is applied from
 * its position on.
 *
 * A node that was away for longer than anybody keeps log (its log ends at X) goes
 * the same way.  Its log is exchanged, too, for an empty one that begins at the
 * new store's restart position R > X: what lies below R was held by a quorum,
 * and is the same everywhere.  That is sound for one that votes, too: it is as
 * if it had cut off what no quorum is known to hold, had taken log up to R, and
 * had trimmed it, all at once.  Its promise, history and group stay, and what it
 * says of its log only grows (docs/decisions/0006-log-quorum.md).
 *
 * Invariants:
 *  1. One volume's store is made anew by one import at a time, at a bounded
 *     rate; chunks come from any node that can give the next one.
 *  2. The node that is asked holds the position that is copied, so that all
 *     chunks are of one history; each says from which LSN on it is complete.
 *  3. Log from the new store's restart position on is kept until it is open.
 *  4. A node that is alone, or in a cluster was not given leave, reports
 *     damage, says why nothing is done, and changes nothing.
 */
#include "core/au_node_int.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include "core/au_plant.h"

#define ANSWER_US ((uint64_t) 60 * 1000000)
#define AGAIN_US ((uint64_t) 30 * 1000000)
#define TRIES 6					/* in a row, of one node or another */
#define LOOK_US ((uint64_t) 100 * 1000)
#define CHUNK_BYTES (1u << 20)

enum
{
	ID_HELLO = 1,
	ID_POSITION,
	ID_HOLD,
	ID_CHUNK
};

static bool
mendable(const AuVolume *v)
{
	const AuNodeHost *h = &v->node->host;

	return h->mend_begin != NULL &&
		(v->node->in_cluster ? au_o_number(v->node) != 0 && h->mending != NULL :
		 v->meta.group.n > 1);
}

static void
begin(AuVolume *v, uint64_t now, const char *why)
{
	AuMend	   *m = &v->mend;

	m->stage = AU_MEND_HURT;
	m->clean = false;
	m->tried = 0;
	m->since = now;
	m->bytes = 0;
	if (m->at < now)
		m->at = now;
	snprintf(m->why, sizeof(m->why), "%s", why);
}

void
au_md_log_gone(AuVolume *v)
{
	AuMend	   *m = &v->mend;
	uint64_t	now = v->node->host.now_us(v->node->host.ctx);

	if (m->stage != AU_MEND_WELL || now < m->at || !mendable(v) || v->store_closed)
		return;
	begin(v, now, "it is older than the log that other nodes keep");
	m->behind = true;
	au_n_log(v->node, AU_LOG_ERROR,
			 "volume %" PRIu64 ": its log ends at %X/%X, from where no other node keeps it: pages and log are made anew from theirs",
			 v->meta.system_identifier, AU_LSN_ARGS(au_v_received(v)));
}

void
au_md_damaged(AuVolume *v, const char *why)
{
	AuMend	   *m = &v->mend;
	uint64_t	now = v->node->host.now_us(v->node->host.ctx);

	if (m->stage != AU_MEND_WELL || !mendable(v))
		return;
	begin(v, now, why);
	m->behind = false;
	v->stats.mend_damages++;
	au_n_log(v->node, AU_LOG_ERROR,
			 "volume %" PRIu64 ": its page store is damaged and will be made anew from other nodes; sound pages are served meanwhile: %s",
			 v->meta.system_identifier, m->why);
}

void
au_node_damaged(AuNode *n, void *handle, const char *why)
{
	AuVolume   *v = au_n_volume_of(n, handle);

	if (v != NULL && !n->dead)
		au_md_damaged(v, why);
}

/* ---- the other node ---------------------------------------------------- */

static void
close_peer(AuVolume *v)
{
	AuMend	   *m = &v->mend;

	m->ready = m->held = m->asked = false;
	if (m->conn != NULL)
		au_n_close(v->node, m->conn);
}

/* This one is of no use, now: the next one goes on, unless all were asked. */
static void
peer_failed(AuVolume *v, const char *why)
{
	AuMend	   *m = &v->mend;
	const AuNodeHost *h = &v->node->host;

	close_peer(v);
	m->at = h->now_us(h->ctx) + LOOK_US;
	if (++m->tried < TRIES)
		return;
	if (m->stage == AU_MEND_COPIES)
		h->mend_drop(h->ctx, v->handle);
	m->stage = AU_MEND_HURT;
	m->tried = 0;
	m->at += AGAIN_US;
	snprintf(m->waits, sizeof(m->waits), "the page store is %s, and no node can give what a new one needs; it is tried again every 30 s: %.250s",
			 m->behind ? "left behind" : "damaged", why);
	au_n_log(v->node, AU_LOG_ERROR, "volume %" PRIu64 ": %s", v->meta.system_identifier, m->waits);
}

/* Not its horizon: that has moved on already, under load. */
static void
hold_position(AuVolume *v, uint64_t now)
{
	AuMend	   *m = &v->mend;

	if (!au_h_ask(v->node, m->conn, ID_HOLD, m->upto))
		return;
	m->asked = true;
	m->deadline = now + ANSWER_US;
}

static void
got_position(AuVolume *v, const AuFrame *f)
{
	AuMend	   *m = &v->mend;
	AuNode	   *n = v->node;
	const AuNodeHost *h = &n->host;
	AuMsgExportOk *ok = h->alloc(h->ctx, sizeof(*ok));
	char		err[512] = "malformed position";
	bool		known = ok != NULL && au_dec_export_ok(f, ok);
	AuStatus	status = AU_INVALID;

	if (known && m->behind && ok->position.restart <= au_v_received(v))
		snprintf(err, sizeof(err), "it is no further");
	else if (known)
		/* In a cluster slices come as to a node that is new (au_node_move.c). */
		status = h->mend_begin(h->ctx, v->handle, &ok->position, !n->in_cluster, err,
							   sizeof(err));
	if (status != AU_OK)
	{
		if (ok != NULL)
			h->release(h->ctx, ok);
		peer_failed(v, err);
		return;
	}
	m->stage = AU_MEND_COPIES;
	m->upto = ok->position.applied;
	m->restart = ok->position.restart;
	m->horizon = ok->position.horizon;
	h->release(h->ctx, ok);
	au_n_log(n, AU_LOG_INFO, "volume %" PRIu64 ": a new page store is made as of %X/%X, from %s",
			 v->meta.system_identifier, AU_LSN_ARGS(m->upto), m->conn->name);
	hold_position(v, h->now_us(h->ctx));
}

static void
peer_answered(AuNode *n, AuConn *c, const AuFrame *f)
{
	AuVolume   *v = c->vol;
	AuMend	   *m = &v->mend;
	AuMsgHelloOk hello;
	AuMsgError	e;

	if (m->conn != c || c->closing || !m->asked)
		return;
	m->asked = false;
	if (f->type == AU_MSG_HELLO_OK && au_dec_hello_ok(f, &hello) && hello.volume_known &&
		hello.node_id == m->member.node_id)
		m->ready = true;
	else if (f->type == AU_MSG_EXPORT_OK && m->stage == AU_MEND_ASKS)
		got_position(v, f);
	else if (f->type == AU_MSG_HOLD_OK && m->stage == AU_MEND_COPIES)
		m->held = true;
	else if (f->type == AU_MSG_EXPORT_DATA && m->stage == AU_MEND_COPIES)
	{
		m->taking = true;
		m->bytes += f->length;
		m->at = n->host.now_us(n->host.ctx) +
			(uint64_t) f->length * 1000000 / n->opt.mend_bytes_per_s;
		n->host.mend_take(n->host.ctx, v->handle, f->payload, f->length);
	}
	else
		peer_failed(v, f->type == AU_MSG_ERROR && au_dec_error(f, &e) ? e.message :
					"it does not keep the volume");
}

static void
peer_closed(AuNode *n, AuConn *c)
{
	AuMend	   *m = &c->vol->mend;

	(void) n;
	if (m->conn != c)
		return;
	m->conn = NULL;
	m->ready = m->held = m->asked = false;
}

/* The next other node; false: not now. */
static bool
connect_peer(AuVolume *v, uint64_t now)
{
	static const AuOutgoing use = {peer_answered, peer_closed};
	AuMend	   *m = &v->mend;
	AuMember	others[AU_GROUP_MAX];
	uint32_t	n = au_s_others(v, AU_SLICES, others);

	if (n == 0)
		return false;
	m->member = others[m->turn++ % n];
	m->conn = au_n_connect(v->node, v->meta.system_identifier, v, m->member.node_id,
						   m->member.address, &use, v);
	m->asked = m->conn != NULL;
	m->deadline = now + ANSWER_US;
	return m->conn != NULL;
}

/* ---- copying ------------------------------------------------------------ */

static void
ask(AuVolume *v, uint64_t now, const AuMsgExport *q, uint64_t id)
{
	AuMend	   *m = &v->mend;
	AuWriter	w;

	if (!au_n_reserve(v->node, m->conn, &w, AU_WIRE_HEADER + 128))
		return;
	m->asked = true;
	m->deadline = now + ANSWER_US;
	au_n_send(v->node, m->conn, &w, au_enc_export(&w, id, q));
}

static void
copy(AuVolume *v, uint64_t now)
{
	AuMend	   *m = &v->mend;
	const AuNodeHost *h = &v->node->host;
	AuMsgExport q = {.upto = m->upto,.horizon = m->horizon,.budget = CHUNK_BYTES};

	if (AU_PLANTED(AU_PLANT_MEND_OLD))
		q.upto -= 20000;
	if (m->taking)
		return;
	if (!h->mend_want(h->ctx, v->handle, &q.what, &q.place, &q.slices))
	{
		close_peer(v);
		m->stage = AU_MEND_CATCHES_UP;
	}
	else if (m->held)
		ask(v, now, &q, ID_CHUNK);
	else
		hold_position(v, now);
}

void
au_node_mended(AuNode *n, void *handle, AuStatus status, const char *err)
{
	AuVolume   *v = au_n_volume_of(n, handle);
	AuMend	   *m;

	if (v == NULL)
		return;
	m = &v->mend;
	assert(m->taking && m->stage == AU_MEND_COPIES);
	m->taking = false;
	if (status == AU_OK)
	{
		m->tried = 0;
		m->waits[0] = '\0';
	}
	if (status == AU_OK || n->dead)
		return;
	/* a chunk that was not taken is asked of the next one; trouble of our own
	 * begins anew */
	if (status != AU_INVALID && status != AU_CORRUPT)
		m->tried = TRIES;
	peer_failed(v, err);
}

/* ---- taking its place ---------------------------------------------------- */

/*
 * Where the log is to begin anew, with the new store; 0: it stays.  A quorum held
 * all that is below, and this node holds, and has acknowledged, nothing above.
 */
static AuLsn
log_to_begin(const AuVolume *v)
{
	return au_p_log_gone(v) != NULL && v->mend.restart > au_v_received(v) ? v->mend.restart : 0;
}

/* Somebody gave log after all: nothing is to be made anew. */
static void
log_came(AuVolume *v)
{
	AuMend	   *m = &v->mend;

	v->node->host.mend_drop(v->node->host.ctx, v->handle);
	m->stage = AU_MEND_WELL;
	m->behind = false;
	m->relog = 0;
	m->why[0] = m->waits[0] = '\0';
}

static void
catch_up(AuVolume *v, uint64_t now)
{
	AuMend	   *m = &v->mend;
	const AuNodeHost *h = &v->node->host;
	AuLsn		relog = log_to_begin(v);
	char		err[512];

	if (m->upto > v->wanted)
		v->wanted = m->upto;
	if (m->behind && relog == 0)
	{
		log_came(v);
		return;
	}
	if (relog == 0 && h->log_start(h->ctx, v->handle) > m->restart)
	{
		h->mend_drop(h->ctx, v->handle);
		m->stage = AU_MEND_HURT;
		m->at = now + AGAIN_US;
		au_n_log(v->node, AU_LOG_ERROR,
				 "volume %" PRIu64 ": log from %X/%X on, which the new page store needs, is no longer kept here; it is tried again in 30 s",
				 v->meta.system_identifier, AU_LSN_ARGS(m->restart));
		return;
	}
	/* What is durable here need not be what a quorum held there: a writer or a
	 * peer of its term has to vouch for it. */
	if ((relog == 0 &&
		 (au_v_durable(v) < m->upto || (!au_v_alone(v) && v->commit < m->upto))) ||
		v->store_state == AU_STORE_WRITING || v->cut != 0 || v->importing ||
		!au_gr_granted(v, now))
		return;
	if (h->mend_end(h->ctx, v->handle, relog, err, sizeof(err)) != AU_OK)
	{
		m->stage = AU_MEND_HURT;
		m->at = now + AGAIN_US;
		au_n_log(v->node, AU_LOG_ERROR, "volume %" PRIu64 ": %s", v->meta.system_identifier, err);
		return;
	}
	m->stage = AU_MEND_SWITCHES;
	m->relog = relog;
	v->store_state = AU_STORE_STALLED;
	v->retry_at = now;
	snprintf(v->problem, sizeof(v->problem), "the page store is exchanged for one made anew");
}

bool
au_md_may_switch(AuVolume *v)
{
	AuMend	   *m = &v->mend;

	if (m->stage != AU_MEND_SWITCHES || m->relog == 0)
		return true;
	if (log_to_begin(v) == 0)
	{
		log_came(v);			/* the old store is opened again */
		return true;
	}
	return !v->syncing && au_v_received(v) == au_v_durable(v);
}

void
au_md_not_opened(AuVolume *v, const char *why)
{
	AuMend	   *m = &v->mend;

	if (m->stage != AU_MEND_SWITCHES)
		return;
	m->stage = AU_MEND_WELL;
	m->at = v->node->host.now_us(v->node->host.ctx) + AGAIN_US;
	au_md_damaged(v, why);
}

void
au_md_reopened(AuVolume *v)
{
	AuMend	   *m = &v->mend;
	const AuNodeHost *h = &v->node->host;
	uint64_t	now = h->now_us(h->ctx);

	if (m->stage != AU_MEND_SWITCHES)
		return;
	m->stage = AU_MEND_WELL;
	m->at = now + AGAIN_US;
	v->corrupt_writes = 0;
	v->stats.mends++;
	m->waits[0] = '\0';
	au_n_log(v->node, AU_LOG_INFO,
			 "volume %" PRIu64 ": the page store was made anew from other nodes: %" PRIu64 " MB in %" PRIu64 " s; it was %s: %s",
			 v->meta.system_identifier, m->bytes >> 20, (now - m->since) / 1000000,
			 m->behind ? "left behind" : "damaged", m->why);
	if (m->relog != 0)
	{
		v->trimmed = v->wanted = v->caught_up = 0;
		if (v->peer != NULL)
			au_n_close(v->node, v->peer);
	}
	m->behind = false;
	m->relog = 0;
}

bool
au_md_keeps_log(const AuVolume *v, AuLsn *from)
{
	*from = v->mend.restart;
	return v->mend.stage >= AU_MEND_COPIES;
}

uint64_t
au_md_run(AuVolume *v, uint64_t now)
{
	AuMend	   *m = &v->mend;
	AuMsgExport q = {.what = AU_EXPORT_POSITION};

	if (v->node->stopping)
		return UINT64_MAX;
	if (m->stage == AU_MEND_WELL)
		return au_gr_tend(v, now);
	if (m->stage == AU_MEND_CATCHES_UP)
		catch_up(v, now);
	if (m->stage >= AU_MEND_CATCHES_UP || m->taking)
		return LOOK_US;
	if (now < m->at)
		return m->at - now;
	if ((m->conn != NULL && m->conn->closing) || !au_gr_granted(v, now))
		return LOOK_US;
	if (m->conn == NULL)
	{
		if (m->stage == AU_MEND_HURT)
			m->stage = AU_MEND_ASKS;
		if (!connect_peer(v, now))
			peer_failed(v, "no other node can be reached");
	}
	else if (m->asked)
	{
		if (now >= m->deadline)
			peer_failed(v, "it does not answer");
	}
	else if (!m->ready)
		peer_failed(v, "it does not answer");
	else if (m->stage == AU_MEND_ASKS)
		ask(v, now, &q, ID_POSITION);
	else
		copy(v, now);
	return m->at > now ? m->at - now : LOOK_US;
}
