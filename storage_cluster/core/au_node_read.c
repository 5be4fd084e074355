/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_node_read.c: pages, sizes and lists of relations, and the reads that
 * wait until enough log is applied.
 *
 * Waiting reads of a volume stand in a heap by the LSN they need (those who
 * need the same one in order of arrival), in a list by age for the time
 * limit, and in a list of their connection.
 */
#include "core/au_node_int.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#define RETRY_HINT "Try again; if that does not help look at the node's log and at \"auroractl status\"."

/* ---- the queue -------------------------------------------------------- */

static bool
before(const AuWait *a, const AuWait *b)
{
	return a->need < b->need || (a->need == b->need && a->seq < b->seq);
}

static void
place(AuVolume *v, AuWait *w, uint32_t i)
{
	v->heap[i] = w;
	w->heap_index = i;
}

static void
sift_up(AuVolume *v, AuWait *w, uint32_t i)
{
	while (i > 0 && before(w, v->heap[(i - 1) / 2]))
	{
		place(v, v->heap[(i - 1) / 2], i);
		i = (i - 1) / 2;
	}
	place(v, w, i);
}

static void
sift_down(AuVolume *v, AuWait *w, uint32_t i)
{
	for (;;)
	{
		uint32_t	child = 2 * i + 1;

		if (child >= v->heap_count)
			break;
		if (child + 1 < v->heap_count && before(v->heap[child + 1], v->heap[child]))
			child++;
		if (!before(v->heap[child], w))
			break;
		place(v, v->heap[child], i);
		i = child;
	}
	place(v, w, i);
}

static bool
heap_room(AuVolume *v)
{
	const AuNodeHost *h = &v->node->host;
	uint32_t	cap = v->heap_cap == 0 ? 64 : v->heap_cap * 2;
	AuWait	  **bigger;

	if (v->heap_count < v->heap_cap)
		return true;
	bigger = h->alloc(h->ctx, cap * sizeof(*bigger));
	if (bigger == NULL)
		return false;
	if (v->heap_count > 0)
		memcpy(bigger, v->heap, v->heap_count * sizeof(*bigger));
	if (v->heap != NULL)
		h->release(h->ctx, v->heap);
	v->heap = bigger;
	v->heap_cap = cap;
	return true;
}

/* Copy a request that has to wait.  false: no room; nothing happened. */
static bool
enqueue(AuVolume *v, AuConn *c, const AuWait *request, const uint32_t *blocks)
{
	AuNode	   *n = v->node;
	size_t		blocks_size = request->nblocks * sizeof(uint32_t);
	AuWait	   *w;

	if (n->nwaits >= AU_NODE_WAITS_MAX || !heap_room(v))
		return false;
	w = n->host.alloc(n->host.ctx, sizeof(*w) + blocks_size);
	if (w == NULL)
		return false;
	*w = *request;
	if (blocks_size > 0)
		memcpy(w->blocks, blocks, blocks_size);
	w->conn = c;
	w->vol = v;
	w->seq = n->wait_seq++;
	w->since_us = n->host.now_us(n->host.ctx);

	w->conn_prev = NULL;
	w->conn_next = c->waits;
	if (c->waits != NULL)
		c->waits->conn_prev = w;
	c->waits = w;
	c->nwaits++;
	c->wait_blocks += w->nblocks;

	w->age_next = NULL;
	w->age_prev = v->age_last;
	if (v->age_last != NULL)
		v->age_last->age_next = w;
	else
		v->age_first = w;
	v->age_last = w;

	v->heap_count++;
	sift_up(v, w, v->heap_count - 1);
	n->nwaits++;
	v->stats.waits++;
	return true;
}

/* Take out of all lists; the caller frees. */
static void
dequeue(AuWait *w)
{
	AuVolume   *v = w->vol;
	AuConn	   *c = w->conn;
	AuWait	   *last = v->heap[v->heap_count - 1];
	uint32_t	i = w->heap_index;

	assert(v->heap[i] == w);
	v->heap_count--;
	if (last != w)
	{
		if (i > 0 && before(last, v->heap[(i - 1) / 2]))
			sift_up(v, last, i);
		else
			sift_down(v, last, i);
	}
	if (w->conn_prev != NULL)
		w->conn_prev->conn_next = w->conn_next;
	else
		c->waits = w->conn_next;
	if (w->conn_next != NULL)
		w->conn_next->conn_prev = w->conn_prev;
	c->nwaits--;
	c->wait_blocks -= w->nblocks;
	if (w->age_prev != NULL)
		w->age_prev->age_next = w->age_next;
	else
		v->age_first = w->age_next;
	if (w->age_next != NULL)
		w->age_next->age_prev = w->age_prev;
	else
		v->age_last = w->age_prev;
	v->node->nwaits--;
}

/* ---- answering -------------------------------------------------------- */

static void
read_failed(AuVolume *v, AuConn *c, uint64_t id, AuStatus status)
{
	AuNode	   *n = v->node;
	const char *why = n->host.store_error(n->host.ctx, v->handle);
	const char *hint = status == AU_CORRUPT ?
		"The stored version is damaged and was not used. Run \"auroractl check\" on the stopped node; restore the node's directory from a backup." :
		RETRY_HINT;

	au_n_log(n, AU_LOG_ERROR, "volume %" PRIu64 ": %s", v->meta.system_identifier, why);
	au_n_error(n, c, id, status, hint, "%s", why);
}

static void
answer_pages(AuVolume *v, AuConn *c, const AuWait *r, const uint32_t *blocks, AuLsn as_of)
{
	AuNode	   *n = v->node;
	AuMsgPages *m = &n->msg_pages;
	size_t		cap = AU_WIRE_HEADER + 10;
	AuWriter	w;

	m->as_of = as_of;
	m->nblocks = r->nblocks;
	for (uint32_t i = 0; i < r->nblocks; i++)
	{
		AuPageId	page = {.rel = r->rel,.blk = blocks[i]};
		uint8_t    *out = n->pages + (size_t) i * AU_PAGE_SIZE;
		AuStatus	status = n->host.store_read(n->host.ctx, v->handle, &page,
												r->read_lsn ? r->read_lsn : AU_LSN_MAX, out);

		if (status != AU_OK && status != AU_NOT_FOUND)
		{
			read_failed(v, c, r->id, status);
			return;
		}
		m->status[i] = (uint8_t) status;
		m->page[i] = status == AU_OK ? out : NULL;
		cap += 1 + (status == AU_OK ? AU_PAGE_SIZE : 0);
	}
	v->stats.pages += r->nblocks;
	if (au_n_reserve(n, c, &w, cap))
		au_n_send(n, c, &w, au_enc_pages(&w, r->id, m));
}

static void
answer_size(AuVolume *v, AuConn *c, const AuWait *r, AuLsn as_of)
{
	AuNode	   *n = v->node;
	AuMsgSize	m = {.as_of = as_of};
	AuStatus	status = n->host.store_size(n->host.ctx, v->handle, &r->rel,
											r->read_lsn ? r->read_lsn : AU_LSN_MAX, &m.nblocks);
	AuWriter	w;

	if (status != AU_OK)
		read_failed(v, c, r->id, status);
	else if (au_n_reserve(n, c, &w, AU_WIRE_HEADER + 64))
		au_n_send(n, c, &w, au_enc_size(&w, r->id, &m));
}

typedef struct RelList
{
	AuWriter	w;				/* no memory: only count */
	uint32_t	count;
} RelList;

static void
list_one(void *ctx, const AuRelId *rel, uint32_t nblocks)
{
	RelList    *l = ctx;

	if (l->count >= AU_NODE_RELS_MAX)
		return;
	l->count++;
	if (l->w.data != NULL)
	{
		au_w_rel(&l->w, rel);
		au_w_u32(&l->w, nblocks);
	}
}

static void
answer_rels(AuVolume *v, AuConn *c, const AuWait *r, AuLsn as_of)
{
	AuNode	   *n = v->node;
	const AuNodeHost *h = &n->host;
	RelList		l = {0};
	AuMsgRels	m = {.as_of = as_of};
	uint8_t    *entries;
	AuWriter	w;

	h->store_list(h->ctx, v->handle, r->rel.db, list_one, &l);
	m.count = l.count;
	entries = h->alloc(h->ctx, (size_t) m.count * 20 + 1);
	if (entries == NULL)
	{
		au_n_error(n, c, r->id, AU_NOMEM, RETRY_HINT, "out of memory");
		return;
	}
	au_writer_start(&l.w, entries, (size_t) m.count * 20);
	l.count = 0;
	h->store_list(h->ctx, v->handle, r->rel.db, list_one, &l);
	assert(l.count == m.count && !l.w.overflow);
	m.entries = entries;
	if (au_n_reserve(n, c, &w, AU_WIRE_HEADER + 64 + (size_t) m.count * 20))
		au_n_send(n, c, &w, au_enc_rels(&w, r->id, &m));
	h->release(h->ctx, entries);
}

static void
answer(AuVolume *v, AuConn *c, const AuWait *r, const uint32_t *blocks)
{
	AuNode	   *n = v->node;
	AuLsn		as_of = r->read_lsn ? r->read_lsn : v->applied;
	AuLsn		horizon = n->host.store_horizon(n->host.ctx, v->handle);
	uint64_t	start = n->host.now_us(n->host.ctx);

	assert(v->applied >= r->need);
	if (r->read_lsn != 0 && r->read_lsn < horizon)
	{
		au_n_error(n, c, r->id, AU_GONE, c->hold_broken ?
				   "This connection's hold kept more log than --hold-limit-mb and was broken." :
				   "Storage keeps readable what --retention-mb or --retention-seconds asks for.",
				   "LSN %X/%X is older than what storage keeps (%X/%X)",
				   AU_LSN_ARGS(r->read_lsn), AU_LSN_ARGS(horizon));
		return;
	}
	switch (r->type)
	{
		case AU_MSG_GET_PAGES:
			answer_pages(v, c, r, blocks, as_of);
			break;
		case AU_MSG_GET_SIZE:
			answer_size(v, c, r, as_of);
			break;
		default:
			assert(r->type == AU_MSG_LIST_RELS);
			answer_rels(v, c, r, as_of);
			break;
	}
	v->stats.reads++;
	v->stats.read_us += n->host.now_us(n->host.ctx) - start;
}

/* Answer now or later. */
static void
serve(AuNode *n, AuConn *c, AuWait *r, AuLsn not_before, const uint32_t *blocks)
{
	AuVolume   *v = c->vol;

	if (v == NULL)
	{
		au_n_error(n, c, r->id, AU_REFUSED,
				   "Check aurora.storage_nodes, and that the log shipper has connected once.",
				   "volume %" PRIu64 " is not on this node", c->system_identifier);
		return;
	}
	r->need = r->read_lsn > not_before ? r->read_lsn : not_before;
	if (v->applied >= r->need && !v->store_closed)
		answer(v, c, r, blocks);
	else if (v->failed)
		au_n_error(n, c, r->id, AU_CORRUPT, "See the node's log.",
				   "log up to %X/%X cannot be applied: %s", AU_LSN_ARGS(r->need), v->problem);
	else if (!enqueue(v, c, r, blocks))
		au_n_error(n, c, r->id, AU_REFUSED, RETRY_HINT,
				   "too many reads (%u) wait for log to be applied", n->nwaits);
}

static void
malformed(AuNode *n, AuConn *c, const AuFrame *f, const char *what)
{
	au_n_error(n, c, f->id, AU_INVALID, NULL, "malformed %s", what);
}

void
au_r_get_pages(AuNode *n, AuConn *c, const AuFrame *f)
{
	AuMsgGetPages *m = &n->msg_get;
	AuWait		r = {.id = f->id,.type = AU_MSG_GET_PAGES};

	if (!au_dec_get_pages(f, m) || m->nblocks == 0 || m->nblocks > AU_WIRE_BLOCKS_MAX)
	{
		malformed(n, c, f, "GET_PAGES");
		return;
	}
	r.rel = m->rel;
	r.read_lsn = m->read_lsn;
	r.nblocks = m->nblocks;
	serve(n, c, &r, m->not_before, m->blocks);
}

void
au_r_get_size(AuNode *n, AuConn *c, const AuFrame *f)
{
	AuMsgGetSize m;
	AuWait		r = {.id = f->id,.type = AU_MSG_GET_SIZE};

	if (!au_dec_get_size(f, &m))
	{
		malformed(n, c, f, "GET_SIZE");
		return;
	}
	r.rel = m.rel;
	r.read_lsn = m.read_lsn;
	serve(n, c, &r, m.not_before, NULL);
}

void
au_r_list_rels(AuNode *n, AuConn *c, const AuFrame *f)
{
	AuMsgListRels m;
	AuWait		r = {.id = f->id,.type = AU_MSG_LIST_RELS};

	if (!au_dec_list_rels(f, &m))
	{
		malformed(n, c, f, "LIST_RELS");
		return;
	}
	r.rel.db = m.db;
	serve(n, c, &r, m.not_before, NULL);
}

/* ---- waking ----------------------------------------------------------- */

static void
release(AuWait *w)
{
	const AuNodeHost *h = &w->vol->node->host;

	h->release(h->ctx, w);
}

void
au_r_wake(AuVolume *v)
{
	while (v->heap_count > 0 && v->heap[0]->need <= v->applied && !v->store_closed &&
		   !au_n_out_full(v->node))
	{
		AuWait	   *w = v->heap[0];

		dequeue(w);
		v->stats.wait_us += v->node->host.now_us(v->node->host.ctx) - w->since_us;
		if (!w->conn->closing)
			answer(v, w->conn, w, w->blocks);
		release(w);
	}
}

uint64_t
au_r_expire(AuVolume *v, uint64_t now)
{
	while (v->age_first != NULL)
	{
		AuWait	   *w = v->age_first;
		uint64_t	age = now - w->since_us;

		if (age < AU_NODE_WAIT_US_MAX)
			return AU_NODE_WAIT_US_MAX - age;
		dequeue(w);
		v->stats.expired++;
		v->stats.wait_us += age;
		if (!w->conn->closing)
			au_n_error(v->node, w->conn, w->id, AU_REFUSED, RETRY_HINT,
					   "log up to %X/%X was not applied within %d s: storage has received up to %X/%X, applied up to %X/%X%s%s",
					   AU_LSN_ARGS(w->need), (int) (AU_NODE_WAIT_US_MAX / 1000000),
					   AU_LSN_ARGS(au_v_received(v)), AU_LSN_ARGS(v->applied),
					   v->problem[0] ? ": " : "", v->problem);
		release(w);
	}
	return UINT64_MAX;
}

void
au_r_fail_all(AuVolume *v, AuStatus status, const char *why)
{
	while (v->age_first != NULL)
	{
		AuWait	   *w = v->age_first;

		dequeue(w);
		if (!w->conn->closing)
			au_n_error(v->node, w->conn, w->id, status, "See the node's log.",
					   "log up to %X/%X cannot be applied: %s", AU_LSN_ARGS(w->need), why);
		release(w);
	}
}

void
au_r_forget_conn(AuNode *n, AuConn *c)
{
	(void) n;
	while (c->waits != NULL)
	{
		AuWait	   *w = c->waits;

		dequeue(w);
		release(w);
	}
	assert(c->nwaits == 0 && c->wait_blocks == 0);
}
