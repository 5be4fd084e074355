/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_node_share.c: memory that a reader shares with the node, for its pages.
 *
 * A share belongs to a connection and to the reads whose pages go there; the
 * last one to end closes it.  So a connection may give its share up, take
 * another, or close, while the host still writes into it.
 *
 * Shares count against the memory for answers, half of which they may take;
 * who gets none is answered through the connection.
 */
#include "core/au_node_int.h"

#include <assert.h>

struct AuShare
{
	AuNode	   *node;
	void	   *handle;			/* the host's */
	uint32_t	pages;
	uint32_t	refs;
};

AuShare *
au_m_use(AuShare *s)
{
	if (s != NULL)
		s->refs++;
	return s;
}

void
au_m_leave(AuShare *s)
{
	AuNode	   *n;

	if (s == NULL || --s->refs > 0)
		return;
	n = s->node;
	n->host.share_close(n->host.ctx, s->handle);
	n->shared_bytes -= (uint64_t) s->pages * AU_PAGE_SIZE;
	n->host.release(n->host.ctx, s);
}

bool
au_m_holds(const AuShare *s, uint32_t place, uint32_t pages)
{
	return s != NULL && place > 0 && place - 1 <= s->pages && pages <= s->pages - (place - 1);
}

void *
au_m_handle(const AuShare *s)
{
	return s->handle;
}

static AuShare *
open_share(AuNode *n, AuConn *c, const AuMsgShare *m)
{
	const AuNodeHost *h = &n->host;
	uint64_t	bytes = (uint64_t) m->pages * AU_PAGE_SIZE;
	AuShare    *s;

	if (h->share_open == NULL || m->pages == 0 || c->role != AU_ROLE_READER ||
		n->shared_bytes + bytes > n->out_max / 2)
		return NULL;
	s = h->alloc(h->ctx, sizeof(*s));
	if (s == NULL)
		return NULL;
	*s = (AuShare)
	{
		.node = n,.pages = m->pages,.refs = 1,
		.handle = h->share_open(h->ctx, c->handle, m->fd, m->pages)
	};
	if (s->handle == NULL)
	{
		h->release(h->ctx, s);
		return NULL;
	}
	n->shared_bytes += bytes;
	return s;
}

void
au_m_share(AuNode *n, AuConn *c, const AuFrame *f)
{
	AuMsgShare	m;
	AuMsgShareOk ok;
	AuWriter	w;

	if (!au_dec_share(f, &m))
	{
		au_n_error(n, c, f->id, AU_INVALID, NULL, "malformed SHARE");
		return;
	}
	au_m_leave(c->share);
	c->share = open_share(n, c, &m);
	ok.pages = c->share != NULL ? m.pages : 0;
	if (f->id != 0 && au_n_reserve(n, c, &w, AU_WIRE_HEADER + 64))
		au_n_send(n, c, &w, au_enc_share_ok(&w, f->id, &ok));
}

void
au_m_forget_conn(AuConn *c)
{
	au_m_leave(c->share);
	c->share = NULL;
}
