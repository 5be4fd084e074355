/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_node_read.c: pages, sizes and lists of relations, and the reads that
 * wait until enough log is applied.
 *
 *                applied < need                    too many under way
 *   request ──▶ WAITING ──applied──▶ pages? ──▶ READY ──▶ READING ──▶ answer
 *      │           │                   │ no                  ▲
 *      │           │ 60 s, failed      └──▶ answer           │
 *      └─ enough is applied, room ───────────────────────────┘
 *
 * Waiting reads of a volume stand in a heap by the LSN they need (those who
 * need the same one in order of arrival) and in a list by age for the time
 * limit.  Every kept read is in a list of its connection; one whose
 * connection goes while the host reads for it is answered to nobody.
 *
 * A read of pages is as of one LSN, fixed when it starts.  A store is closed
 * (to be opened again) only while none is under way: `draining` holds new
 * ones back until then.
 */
#include "core/au_node_int.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

/* Reads started by one au_r_wake, so that events are looked at again. */
#define WAKE_MAX 64

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

static void
list_add(AuWaitList *l, AuWait *w)
{
	w->next = NULL;
	w->prev = l->last;
	if (l->last != NULL)
		l->last->next = w;
	else
		l->first = w;
	l->last = w;
	l->count++;
}

static void
list_remove(AuWaitList *l, AuWait *w)
{
	if (w->prev != NULL)
		w->prev->next = w->next;
	else
		l->first = w->next;
	if (w->next != NULL)
		w->next->prev = w->prev;
	else
		l->last = w->prev;
	l->count--;
}

static void
heap_remove(AuVolume *v, AuWait *w)
{
	AuWait	   *last = v->heap[v->heap_count - 1];
	uint32_t	i = w->heap_index;

	assert(v->heap[i] == w);
	v->heap_count--;
	if (last == w)
		return;
	if (i > 0 && before(last, v->heap[(i - 1) / 2]))
		sift_up(v, last, i);
	else
		sift_down(v, last, i);
}

/* Out of its stage's list, into none. */
static void
leave_stage(AuWait *w)
{
	AuVolume   *v = w->vol;

	switch (w->stage)
	{
		case AU_WAIT_NEW:
			break;
		case AU_WAIT_WAITING:
			heap_remove(v, w);
			list_remove(&v->waiting, w);
			break;
		case AU_WAIT_READY:
			list_remove(&v->ready, w);
			break;
		case AU_WAIT_READING:
			list_remove(&v->reading, w);
			v->node->reading_blocks -= w->nblocks;
			break;
	}
	w->stage = AU_WAIT_NEW;
}

static void
enter_stage(AuWait *w, AuWaitStage stage, AuWaitList *list)
{
	leave_stage(w);
	w->stage = stage;
	w->since_us = w->vol->node->host.now_us(w->vol->node->host.ctx);
	list_add(list, w);
}

static void
leave_conn(AuWait *w)
{
	AuConn	   *c = w->conn;

	if (c == NULL)
		return;
	if (w->conn_prev != NULL)
		w->conn_prev->conn_next = w->conn_next;
	else
		c->waits = w->conn_next;
	if (w->conn_next != NULL)
		w->conn_next->conn_prev = w->conn_prev;
	c->nwaits--;
	c->wait_blocks -= w->nblocks;
	w->conn = NULL;
}

static void
forget(AuWait *w)
{
	const AuNodeHost *h = &w->vol->node->host;

	leave_stage(w);
	leave_conn(w);
	au_m_leave(w->share);
	w->vol->node->nwaits--;
	h->release(h->ctx, w);
}

/* Copy a request.  NULL: no room; it is answered so. */
static AuWait *
keep(AuVolume *v, AuConn *c, const AuWait *request, const uint32_t *blocks)
{
	AuNode	   *n = v->node;
	size_t		blocks_size = request->nblocks * sizeof(uint32_t);
	AuWait	   *w = NULL;

	if (n->nwaits < AU_NODE_WAITS_MAX)
		w = n->host.alloc(n->host.ctx, sizeof(*w) + blocks_size);
	if (w == NULL)
	{
		au_n_error(n, c, request->id, AU_REFUSED, RETRY_HINT,
				   "too many reads (%u) wait for log to be applied", n->nwaits);
		return NULL;
	}
	*w = *request;
	if (blocks_size > 0)
		memcpy(w->blocks, blocks, blocks_size);
	w->conn = c;
	w->vol = v;
	w->share = au_m_use(request->share);
	w->stage = AU_WAIT_NEW;
	w->seq = n->wait_seq++;
	w->conn_prev = NULL;
	w->conn_next = c->waits;
	if (c->waits != NULL)
		c->waits->conn_prev = w;
	c->waits = w;
	c->nwaits++;
	c->wait_blocks += w->nblocks;
	n->nwaits++;
	return w;
}

/* Have it wait until enough log is applied; without memory it is answered. */
static void
start_waiting(AuWait *w)
{
	AuVolume   *v = w->vol;

	if (!heap_room(v))
	{
		au_n_error(v->node, w->conn, w->id, AU_NOMEM, RETRY_HINT, "out of memory");
		forget(w);
		return;
	}
	enter_stage(w, AU_WAIT_WAITING, &v->waiting);
	v->heap_count++;
	sift_up(v, w, v->heap_count - 1);
	v->stats.waits++;
}

/* ---- answering -------------------------------------------------------- */

static void
read_failed(AuVolume *v, AuConn *c, uint64_t id, AuStatus status, const char *why)
{
	AuNode	   *n = v->node;
	const char *hint = status != AU_CORRUPT ? RETRY_HINT :
		v->meta.group.n > 1 || au_o_number(n) != 0 ?
		"The stored version is damaged and was not used; other nodes have it, and this one gets its pages anew from them." :
		"The stored version is damaged and was not used. Run \"auroractl check\" on the stopped node; restore the node's directory from a backup.";

	au_n_log(n, AU_LOG_ERROR, "volume %" PRIu64 ": %s", v->meta.system_identifier, why);
	au_n_error(n, c, id, status, hint, "%s", why);
	if (status == AU_CORRUPT)
		au_md_damaged(v, why);
}

/* Only LSNs above the horizon can be read.  false: answered. */
static bool
readable(AuVolume *v, AuConn *c, const AuWait *r)
{
	AuNode	   *n = v->node;
	AuLsn		horizon = n->host.store_horizon(n->host.ctx, v->handle);

	if (r->read_lsn == 0 || r->read_lsn >= horizon)
		return true;
	au_n_error(n, c, r->id, AU_GONE, c->hold_broken ?
			   "This connection's hold kept more log than --hold-limit-mb and was broken." :
			   "Storage keeps readable what --retention-mb or --retention-seconds asks for.",
			   "LSN %X/%X is older than what storage keeps (%X/%X)",
			   AU_LSN_ARGS(r->read_lsn), AU_LSN_ARGS(horizon));
	return false;
}

/* ---- pages ------------------------------------------------------------ */

static void
finish_pages(AuNode *n, AuWait *w)
{
	AuPageBatch *b = &w->batch;
	AuVolume   *v = w->vol;
	AuConn	   *c = w->conn;

	v->stats.reads++;
	v->stats.pages += b->done;
	v->stats.read_us += b->run_us;
	au_hist_add(&v->latency[AU_STAGE_READ_EXECUTE], b->run_us);
	au_hist_add(&v->latency[AU_STAGE_READ], n->host.now_us(n->host.ctx) - w->ready_us);
	if (b->status == AU_OK && c != NULL && !c->closing)
		au_n_send(n, c, &b->answer, true);
	else
	{
		n->host.send_drop(n->host.ctx, b->answer.data);
		if (b->status != AU_OK && c != NULL)
			read_failed(v, c, w->id, b->status, b->err);
	}
	forget(w);
}

void
au_node_read_done(AuNode *n, AuPageBatch *batch)
{
	AuWait	   *w = (AuWait *) ((char *) batch - offsetof(AuWait, batch));

	assert(w->stage == AU_WAIT_READING);
	finish_pages(n, w);
}

static bool
may_read_pages(const AuVolume *v, const AuWait *w)
{
	const AuNode *n = v->node;
	uint32_t	blocks = n->reading_blocks + w->nblocks;

	if (v->store_closed || v->draining)
		return false;
	if (w->share != NULL)
		return n->reading_blocks == 0 || blocks <= AU_NODE_READING_BLOCKS_MAX;
	/* their answers count, too; but one must be able to go on */
	return !au_n_out_full(n) &&
		(n->reading_blocks == 0 ||
		 (blocks <= AU_NODE_READING_BLOCKS_MAX &&
		  n->out_bytes + n->shared_bytes + (uint64_t) blocks * AU_PAGE_SIZE <= n->out_max));
}

/* Hand it to the host. */
static void
start_pages(AuWait *w)
{
	AuVolume   *v = w->vol;
	AuNode	   *n = v->node;
	const AuNodeHost *h = &n->host;
	AuPageBatch *b = &w->batch;
	AuLsn		as_of = w->read_lsn ? w->read_lsn : v->applied;
	uint8_t    *memory;
	size_t		cap;

	assert(v->applied >= w->need);
	if (!au_o_here(v, w->conn, w->id, &w->rel, w->blocks, w->nblocks) || !readable(v, w->conn, w))
	{
		forget(w);
		return;
	}
	cap = w->share != NULL ? AU_PLACED_CAP(w->nblocks) : AU_PAGES_CAP(w->nblocks);
	memory = h->send_alloc(h->ctx, cap);
	if (memory == NULL)
	{
		au_n_error(n, w->conn, w->id, AU_NOMEM, RETRY_HINT, "out of memory");
		forget(w);
		return;
	}
	*b = (AuPageBatch)
	{
		.rel = w->rel, .lsn = as_of, .newest = w->read_lsn == 0,
		.nblocks = w->nblocks, .blocks = w->blocks
	};
	au_writer_start(&b->answer, memory, cap);
	if (w->share != NULL)
	{
		b->share = au_m_handle(w->share);
		b->place = w->place - 1;
		au_placed_begin(&b->answer, w->id, as_of, w->nblocks);
	}
	else
		au_pages_begin(&b->answer, w->id, as_of, w->nblocks);
	enter_stage(w, AU_WAIT_READING, &v->reading);
	n->reading_blocks += w->nblocks;
	if (h->store_read(h->ctx, v->handle, b))
		finish_pages(n, w);
}

/* Enough log is applied for it; those that came before go first, unless they
 * wait for memory that this one does not need. */
static void
pages_ready(AuWait *w)
{
	w->ready_us = w->vol->node->host.now_us(w->vol->node->host.ctx);
	if ((w->vol->ready.count == 0 || w->share != NULL) && may_read_pages(w->vol, w))
		start_pages(w);
	else
		enter_stage(w, AU_WAIT_READY, &w->vol->ready);
}

/* ---- sizes and lists -------------------------------------------------- */

static void
answer_size(AuVolume *v, AuConn *c, const AuWait *r, AuLsn as_of)
{
	AuNode	   *n = v->node;
	AuMsgSize	m = {.as_of = as_of};
	AuStatus	status = n->host.store_size(n->host.ctx, v->handle, &r->rel,
											r->read_lsn ? r->read_lsn : AU_LSN_MAX, &m.nblocks);
	AuWriter	w;

	if (status != AU_OK)
		read_failed(v, c, r->id, status, n->host.store_error(n->host.ctx, v->handle));
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

/* What is not about pages is in memory, or nearly. */
static void
answer(AuVolume *v, AuConn *c, const AuWait *r)
{
	const AuNodeHost *h = &v->node->host;
	AuLsn		as_of = r->read_lsn ? r->read_lsn : v->applied;
	uint64_t	start = h->now_us(h->ctx);

	assert(v->applied >= r->need);
	if (!readable(v, c, r))
		return;
	if (r->type == AU_MSG_GET_SIZE)
		answer_size(v, c, r, as_of);
	else
	{
		assert(r->type == AU_MSG_LIST_RELS);
		answer_rels(v, c, r, as_of);
	}
	start = h->now_us(h->ctx) - start;
	v->stats.reads++;
	v->stats.read_us += start;
	au_hist_add(&v->latency[AU_STAGE_READ], start);
}

/* Answer now or later. */
static void
serve(AuNode *n, AuConn *c, AuWait *r, AuLsn not_before, const uint32_t *blocks)
{
	AuVolume   *v = c->vol;
	bool		ready;
	AuWait	   *w;

	if (v == NULL && n->view != NULL && au_view_volume(n->view, c->system_identifier) != NULL)
	{
		au_n_error(n, c, r->id, AU_MOVED, "Ask another node of the cluster.",
				   "volume %" PRIu64 " has not come to this node yet", c->system_identifier);
		return;
	}
	if (v == NULL)
	{
		au_n_error(n, c, r->id, AU_REFUSED,
				   "Check aurora.storage_nodes, and that the log shipper has connected once.",
				   "volume %" PRIu64 " is not on this node", c->system_identifier);
		return;
	}
	r->need = r->read_lsn > not_before ? r->read_lsn : not_before;
	ready = v->applied >= r->need && !v->store_closed;
	if (!ready && v->failed)
		au_n_error(n, c, r->id, AU_CORRUPT, "See the node's log.",
				   "log up to %X/%X cannot be applied: %s", AU_LSN_ARGS(r->need), v->problem);
	else if (v->store_closed && v->mend.stage != AU_MEND_WELL)
		au_n_error(n, c, r->id, AU_CORRUPT, "Ask another node.",
				   "the page store of this node is damaged and is made anew from other nodes");
	else if (ready && r->type != AU_MSG_GET_PAGES)
		answer(v, c, r);
	else if ((w = keep(v, c, r, blocks)) == NULL)
		return;
	else if (ready)
		pages_ready(w);
	else
		start_waiting(w);
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
	if (m->place != 0 && !au_m_holds(c->share, m->place, m->nblocks))
	{
		au_n_error(n, c, f->id, AU_INVALID, NULL, "GET_PAGES names a place outside of what is shared");
		return;
	}
	r.rel = m->rel;
	r.read_lsn = m->read_lsn;
	r.nblocks = m->nblocks;
	r.place = m->place;
	r.share = m->place != 0 ? c->share : NULL;
	if (c->vol != NULL && !au_o_here(c->vol, c, f->id, &m->rel, m->blocks, m->nblocks))
		return;
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

/* What it waited for has come. */
static void
wake_one(AuVolume *v, AuWait *w)
{
	uint64_t	waited = v->node->host.now_us(v->node->host.ctx) - w->since_us;

	v->stats.wait_us += waited;
	au_hist_add(&v->latency[AU_STAGE_READ_WAIT], waited);
	leave_stage(w);
	if (w->type == AU_MSG_GET_PAGES && !w->conn->closing)
	{
		pages_ready(w);
		return;
	}
	if (!w->conn->closing)
		answer(v, w->conn, w);
	forget(w);
}

bool
au_r_wake(AuVolume *v)
{
	int			left = WAKE_MAX;

	/* a store that was opened again may have gone back */
	while (v->ready.first != NULL &&
		   (v->store_closed || v->ready.first->need > v->applied))
		start_waiting(v->ready.first);
	while (v->ready.first != NULL && may_read_pages(v, v->ready.first) && left-- > 0)
		start_pages(v->ready.first);
	while (v->heap_count > 0 && v->heap[0]->need <= v->applied && !v->store_closed &&
		   !au_n_out_full(v->node) && left-- > 0)
		wake_one(v, v->heap[0]);
	return left < 0;
}

uint64_t
au_r_expire(AuVolume *v, uint64_t now)
{
	while (v->waiting.first != NULL)
	{
		AuWait	   *w = v->waiting.first;
		uint64_t	age = now - w->since_us;

		if (age < AU_NODE_WAIT_US_MAX)
			return AU_NODE_WAIT_US_MAX - age;
		v->stats.expired++;
		v->stats.wait_us += age;
		au_hist_add(&v->latency[AU_STAGE_READ_WAIT], age);
		if (!w->conn->closing)
			au_n_error(v->node, w->conn, w->id, AU_REFUSED, RETRY_HINT,
					   "log up to %X/%X was not applied within %d s: storage has received up to %X/%X, applied up to %X/%X%s%s",
					   AU_LSN_ARGS(w->need), (int) (AU_NODE_WAIT_US_MAX / 1000000),
					   AU_LSN_ARGS(au_v_received(v)), AU_LSN_ARGS(v->applied),
					   v->problem[0] ? ": " : "", v->problem);
		forget(w);
	}
	return UINT64_MAX;
}

void
au_r_fail_all(AuVolume *v, AuStatus status, const char *why)
{
	while (v->waiting.first != NULL)
	{
		AuWait	   *w = v->waiting.first;

		if (!w->conn->closing)
			au_n_error(v->node, w->conn, w->id, status, "See the node's log.",
					   "log up to %X/%X cannot be applied: %s", AU_LSN_ARGS(w->need), why);
		forget(w);
	}
}

void
au_r_forget_conn(AuConn *c)
{
	while (c->waits != NULL)
	{
		AuWait	   *w = c->waits;

		/* what the host has in hand comes back by au_node_read_done */
		if (w->stage == AU_WAIT_READING)
			leave_conn(w);
		else
			forget(w);
	}
	assert(c->nwaits == 0 && c->wait_blocks == 0);
}
