/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_node_hold.c: connections that may still ask for pages as of an old LSN
 * hold the horizon there.
 *
 * A hold ends with its connection, when it is given up, or when it keeps more
 * log than the node allows (a reader that forgot must not fill the disk):
 * then it is broken, and the next read below the horizon says so.
 *
 * A node that copies page versions as of one LSN holds that LSN where they
 * come from (au_h_ask).
 *
 * Invariant: the store's hold is the lowest of the volume's connections', or
 * 0 if none has one, whenever the store may move the horizon.
 */
#include "core/au_node_int.h"

#include <assert.h>

static void
find_lowest(AuVolume *v)
{
	const AuNodeHost *h = &v->node->host;

	v->hold = 0;
	v->nholds = 0;
	for (const AuConn *c = v->node->conns; c != NULL; c = c->next)
	{
		if (c->vol != v || c->hold == 0)
			continue;
		v->nholds++;
		if (v->hold == 0 || c->hold < v->hold)
			v->hold = c->hold;
	}
	/* a closed store learns it from the host when it is opened */
	h->store_set_hold(h->ctx, v->handle, v->hold);
}

void
au_h_hold(AuNode *n, AuConn *c, const AuFrame *f)
{
	AuMsgHold	m;
	AuMsgHoldOk ok;
	AuVolume   *v = c->vol;
	AuWriter	w;

	if (!au_dec_hold(f, &m))
	{
		au_n_error(n, c, f->id, AU_INVALID, NULL, "malformed HOLD_LSN");
		return;
	}
	if (v == NULL)
	{
		au_n_error(n, c, f->id, AU_REFUSED, NULL, "this node does not hold the volume");
		return;
	}
	ok.horizon = n->host.store_horizon(n->host.ctx, v->handle);
	if (m.lsn != 0 && m.lsn < ok.horizon)
	{
		au_n_error(n, c, f->id, AU_GONE,
				   "Storage keeps readable what --retention-mb or --retention-seconds asks for.",
				   "LSN %X/%X cannot be held: it is older than what storage keeps (%X/%X)",
				   AU_LSN_ARGS(m.lsn), AU_LSN_ARGS(ok.horizon));
		return;
	}
	if (m.lsn != 0 && c->hold == 0 && v->nholds >= AU_NODE_HOLDS_MAX)
	{
		au_n_error(n, c, f->id, AU_FULL, "Try again when another reader is through.",
				   "%u connections hold old LSNs already", v->nholds);
		return;
	}
	c->hold = m.lsn;
	c->hold_broken = false;
	find_lowest(v);
	ok.lsn = c->hold;
	if (au_n_reserve(n, c, &w, AU_WIRE_HEADER + 64))
		au_n_send(n, c, &w, au_enc_hold_ok(&w, f->id, &ok));
}

void
au_h_forget_conn(AuConn *c)
{
	if (c->hold == 0)
		return;
	c->hold = 0;
	if (c->vol != NULL)
		find_lowest(c->vol);
}

bool
au_h_ask(AuNode *n, AuConn *c, uint64_t id, AuLsn lsn)
{
	AuMsgHold	m = {.lsn = lsn};
	AuWriter	w;

	if (!au_n_reserve(n, c, &w, AU_WIRE_HEADER + 64))
		return false;
	au_n_send(n, c, &w, au_enc_hold(&w, id, &m));
	return true;
}

void
au_h_break(AuVolume *v)
{
	AuNode	   *n = v->node;
	uint64_t	limit = n->opt.hold_limit_bytes;

	if (v->hold == 0 || limit == 0 || v->applied <= v->hold || v->applied - v->hold <= limit)
		return;
	for (AuConn *c = n->conns; c != NULL; c = c->next)
	{
		if (c->vol != v || c->hold == 0 || v->applied <= c->hold || v->applied - c->hold <= limit)
			continue;
		au_n_log(n, AU_LOG_WARNING,
				 "volume %llu: the hold of %s at %X/%X is broken: it keeps more than %llu MB of log (--hold-limit-mb)",
				 (unsigned long long) v->meta.system_identifier,
				 c->name[0] ? c->name : "a reader", AU_LSN_ARGS(c->hold),
				 (unsigned long long) (limit >> 20));
		c->hold = 0;
		c->hold_broken = true;
		v->stats.holds_broken++;
	}
	find_lowest(v);
}
