/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_kv_back.c: what mends replicas without being asked: fetching slices, what
 * is owed, foreign records, tombstones that may go.
 *
 *   PULL     SCAN of a node, page by page ──▶ MERGE each record ──▶ kv_fetched
 *   PUSH     a record ──STORE──▶ whom it is owed to ──▶ DISOWE
 *                     └─STORE──▶ all owners (it is foreign) ──▶ DROP
 *   COLLECT  PURGE 1 to the owners, 2 to all others, 3 to the other owners, at
 *            last our own; anything but yes ends it, a later scan begins anew.
 *            An owner that lacks the tombstone is given it again: it must have
 *            it as long as somebody may send what is older.
 *   MEND     our record is damaged: READ of all other nodes ──▶ MERGE instead of
 *            it what they have together
 *
 * All are given up at the first trouble: what is still to be done is in the
 * store, and found again by the next scan.
 *
 * Serials: those of a scan's receivers are noted when it begins, before any
 * record is read; our own for PULL with each page's question.
 */
#include "cluster/au_kv_int.h"

#include <assert.h>

#define SCAN_BYTES (256u << 10)

/* ---- fetching slices -------------------------------------------------- */

static void
ask_page(AuKv *kv, KvTask *t, uint64_t now)
{
	uint8_t		set[AU_SLICES / 8];
	AuMsgKvAsk	m = {.slice = t->slice,.key = {t->klen, t->key},.len = sizeof(set),.bytes = set};
	KvReply    *r = &t->replies[0];

	for (int i = 0; i < AU_SLICES / 64; i++)
		au_put_u64(set + 8 * i, t->slices.bits[i]);
	t->serial = kv->serial;
	t->deadline = now + KV_BACKGROUND_US;
	t->fenced = false;
	r->sent_at = now;
	r->state = kv_ask(kv, r->number, AU_MSG_KV_SCAN, t->id, &m) ? KV_SENT : KV_FAILED;
}

static void
end_pull(AuKv *kv, KvTask *t, bool all)
{
	KvPeer	   *p = kv_peer(kv, t->replies[0].number);

	if (p != NULL)
	{
		p->pull = 0;
		p->pull_at = all ? 0 : kv_now(kv) + 2 * kv->opt.tick_us;
		if (all && kv->view->epoch == t->epoch)
			kv_fetched(kv, p->number, &t->slices);
	}
	kv_task_end(kv, t);
}

static void
start_pulls(AuKv *kv, uint64_t now)
{
	for (uint32_t i = 0; i < kv->npeers; i++)
	{
		KvPeer	   *p = &kv->peers[i];
		AuSliceSet	wanted;
		KvTask	   *t;

		if (p->pull != 0 && kv_task(kv, p->pull) == NULL)
			p->pull = 0;
		if (!p->up || p->pull != 0 || now < p->pull_at || !kv_wanted(kv, p, &wanted))
			continue;
		if ((t = kv_task_new(kv, KV_PULL, NULL, 0, 1)) == NULL)
			return;
		t->nreplies = 1;
		t->replies[0].number = p->number;
		t->slices = wanted;
		t->slice = 0;
		p->pull = t->id;
		ask_page(kv, t, now);
	}
}

/* All records of a page are in our store: the next one, or the same again. */
static void
page_done(AuKv *kv, KvTask *t)
{
	if (t->fenced)
		ask_page(kv, t, kv_now(kv));
	else if (t->more)
	{
		t->slice = t->next_slice;
		t->klen = t->next_klen;
		memcpy(t->key, t->next_key, t->klen);
		ask_page(kv, t, kv_now(kv));
	}
	else
		end_pull(kv, t, true);
}

static void
take_page(AuKv *kv, KvTask *t, KvReply *r, const AuMsgKvTold *m)
{
	const uint8_t *p = m->bytes;
	size_t		left = m->len;
	const uint8_t *key,
			   *record;
	uint16_t	klen;
	uint32_t	len;
	uint64_t	id = t->id;

	r->state = KV_DONE;
	if (m->status != AU_OK)
	{
		end_pull(kv, t, false);
		return;
	}
	t->more = (m->flags & AU_KV_MORE) != 0;
	t->next_slice = m->slice;
	t->next_klen = m->key.len;
	if (m->key.len > 0)
		memcpy(t->next_key, m->key.bytes, m->key.len);
	while (kv_task(kv, id) == t && au_kv_packed_next(&p, &left, &key, &klen, &record, &len))
	{
		AuKvOp	   *op = kv_op(kv, AU_KV_OP_MERGE, t, key, klen);

		if (op == NULL || !kv_op_in(kv, op, record, len))
		{
			t->fenced = true;	/* once more, when there is memory */
			break;
		}
		op->serial = t->serial;
		kv->stats.fetched++;
		kv_submit(kv, op);
	}
	if (t->ops == 0)
		page_done(kv, t);
}

/* ---- records to those that lack them ------------------------------------ */

static KvTask *
new_push(AuKv *kv, const uint8_t *key, uint16_t klen, const uint8_t *record, uint32_t len, uint32_t n)
{
	KvTask	   *t = kv_task_new(kv, KV_PUSH, key, klen, n);

	if (t == NULL)
		return NULL;
	t->deadline = kv_now(kv) + KV_BACKGROUND_US;
	if (!kv_keep(kv, &t->record, &t->len, record, len))
	{
		kv_task_end(kv, t);
		return NULL;
	}
	return t;
}

static uint64_t
noted_serial(const AuKv *kv, uint32_t number)
{
	for (uint32_t i = 0; i < kv->npeers; i++)
		if (kv->peers[i].number == number)
			return kv->scan_serial[i];
	return 0;
}

/* false: cannot be sent now */
static bool
push_to(AuKv *kv, KvTask *t, uint32_t number)
{
	KvReply    *r = &t->replies[t->nreplies++];

	r->number = number;
	r->sent_at = kv_now(kv);
	r->state = KV_SENT;
	return kv_ask_store(kv, t, number, noted_serial(kv, number), t->record, t->len);
}

static void
disowe(AuKv *kv, uint32_t number, const uint8_t *key, size_t klen, uint64_t counter)
{
	AuKvOp	   *op = kv_op(kv, AU_KV_OP_DISOWE, NULL, key, klen);

	if (op == NULL)
		return;
	op->number = number;
	op->counter = counter;
	kv_submit(kv, op);
}

static void
push_owed(AuKv *kv, const AuKvOp *op)
{
	const uint8_t *p = op->out;
	size_t		left = op->out_len;
	const uint8_t *key,
			   *record;
	uint16_t	klen;
	uint32_t	len;
	uint64_t	counter;
	KvTask	   *t;

	while (kv->npushes < KV_PUSHES_MAX &&
		   au_kv_owed_next(&p, &left, &counter, &key, &klen, &record, &len))
	{
		uint32_t	slice = au_kv_slice(key, klen);

		/* nothing there any more; or not ours any more, and so offered to all */
		if (len == 0 || !kv_owns(kv, slice, op->number) || !kv_owns(kv, slice, kv->number))
			disowe(kv, op->number, key, klen, counter);
		else if ((t = new_push(kv, key, klen, record, len, 1)) != NULL)
		{
			t->counter = counter;
			if (!push_to(kv, t, op->number))
				kv_task_end(kv, t);
		}
	}
}

static void
push_foreign(AuKv *kv, const AuKvOp *op)
{
	const uint8_t *p = op->out;
	size_t		left = op->out_len;
	const uint8_t *key,
			   *record;
	uint16_t	klen;
	uint32_t	len;

	while (kv->npushes < KV_PUSHES_MAX &&
		   au_kv_packed_next(&p, &left, &key, &klen, &record, &len))
	{
		uint32_t	owner[AU_RF_MAX];
		uint32_t	n = kv_owners(kv, au_kv_slice(key, klen), owner);
		KvTask	   *t = n > 0 ? new_push(kv, key, klen, record, len, n) : NULL;
		bool		sent = t != NULL;

		for (uint32_t i = 0; i < n && sent; i++)
			sent = push_to(kv, t, owner[i]);
		if (t != NULL && !sent)
			kv_task_end(kv, t);
	}
}

static void
take_push(AuKv *kv, KvTask *t, KvReply *r, const AuMsgKvTold *m)
{
	AuKvOp	   *op;

	/* only an owner may be left alone with it */
	if (m->status != AU_OK || (m->flags & AU_KV_OWNER) == 0)
	{
		kv_task_end(kv, t);
		return;
	}
	r->state = KV_DONE;
	for (uint32_t i = 0; i < t->nreplies; i++)
		if (t->replies[i].state != KV_DONE)
			return;
	kv->stats.delivered++;
	if (t->counter != 0)
		disowe(kv, r->number, t->key, t->klen, t->counter);
	else if (kv->view->epoch == t->epoch &&
			 (op = kv_op(kv, AU_KV_OP_DROP, NULL, t->key, t->klen)) != NULL &&
			 kv_op_in(kv, op, t->record, t->len))
		kv_submit(kv, op);
	kv_task_end(kv, t);
}

/* ---- tombstones ------------------------------------------------------- */

/* Phase 4 is ours: if it goes wrong before, we have it and begin anew. */
static bool
is_asked(const AuKv *kv, const KvTask *t, uint32_t number)
{
	bool		owner = kv_owns(kv, t->slice, number);

	switch (t->phase)
	{
		case 1:
			return owner;
		case 2:
			return !owner;
		case 3:
			return owner && number != kv->number;
		default:
			return number == kv->number;
	}
}

static void
ask_purge(AuKv *kv, KvTask *t, uint8_t phase)
{
	AuMsgKvAsk	m = {.slice = phase,.key = {t->klen, t->key},.len = t->len,.bytes = t->record};
	AuKvOp	   *op;
	uint64_t	id = t->id;

	t->phase = phase;
	t->nreplies = 0;
	for (uint32_t i = 0; i < kv->view->nnodes && kv_task(kv, id) == t; i++)
	{
		uint32_t	number = kv->view->nodes[i].number;
		KvReply    *r = &t->replies[t->nreplies];

		if (!is_asked(kv, t, number))
			continue;
		t->nreplies++;
		r->number = number;
		r->serial = noted_serial(kv, number);
		r->state = KV_SENT;
		if (number != kv->number)
		{
			if (!kv_ask(kv, number, AU_MSG_KV_PURGE, t->id, &m))
				kv_task_end(kv, t);
			continue;
		}
		op = kv_op(kv, phase == 4 ? AU_KV_OP_PURGE : AU_KV_OP_CHECK, t, t->key, t->klen);
		if (op == NULL || !kv_op_in(kv, op, t->record, t->len))
		{
			kv_task_end(kv, t);
			return;
		}
		op->owner = phase == 1;
		kv_submit(kv, op);
	}
}

static void
take_purge(AuKv *kv, KvTask *t, KvReply *r, AuStatus status)
{
	uint64_t	id = t->id;

	if (status != AU_OK || kv->view->epoch != t->epoch)
	{
		/* the serial was noted when the tombstone was read */
		if (status == AU_REFUSED && t->phase == 1 && r->number != kv->number)
			(void) kv_ask_store(kv, t, r->number, r->serial, t->record, t->len);
		kv_task_end(kv, t);
		return;
	}
	r->state = KV_DONE;
	for (uint32_t i = 0; i < t->nreplies; i++)
		if (t->replies[i].state != KV_DONE)
			return;
	kv->stats.collected += t->phase == 4;
	if (t->phase == 4)
		kv_task_end(kv, t);
	else
		do
			ask_purge(kv, t, t->phase + 1);
		while (kv_task(kv, id) == t && t->nreplies == 0);
}

static void
collect(AuKv *kv, const AuKvOp *op)
{
	const uint8_t *p = op->out;
	size_t		left = op->out_len;
	const uint8_t *key,
			   *record;
	uint16_t	klen;
	uint32_t	len;

	while (kv->npushes < KV_PUSHES_MAX && au_kv_packed_next(&p, &left, &key, &klen, &record, &len))
	{
		KvTask	   *t = kv_task_new(kv, KV_COLLECT, key, klen, AU_VIEW_NODES_MAX);

		if (t == NULL)
			return;
		t->deadline = kv_now(kv) + KV_BACKGROUND_US;
		if (!kv_keep(kv, &t->record, &t->len, record, len))
			kv_task_end(kv, t);
		else
			ask_purge(kv, t, AU_PLANTED(AU_PLANT_KV_PURGE) ? 3 : 1);
	}
}

/* ---- damage ----------------------------------------------------------- */

void
kv_mend(AuKv *kv, const uint8_t *key, uint16_t klen)
{
	AuMsgKvAsk	m = {.key = {klen, key}};
	KvTask	   *t;
	uint64_t	id;

	for (uint32_t i = 0; i < AU_KV_TASKS_MAX; i++)
		if (kv->tasks[i] != NULL && kv->tasks[i]->type == KV_MEND && kv->tasks[i]->klen == klen &&
			memcmp(kv->tasks[i]->key, key, klen) == 0)
			return;
	if (kv->view == NULL || kv->npushes >= KV_PUSHES_MAX ||
		(t = kv_task_new(kv, KV_MEND, key, klen, AU_VIEW_NODES_MAX)) == NULL)
		return;
	id = t->id;
	m.slice = t->slice;
	t->deadline = kv_now(kv) + KV_BACKGROUND_US;
	t->nreplies = kv->npeers;
	for (uint32_t i = 0; i < kv->npeers; i++)
	{
		t->replies[i].number = kv->peers[i].number;
		t->replies[i].state = KV_SENT;
	}
	for (uint32_t i = 0; i < kv->npeers && kv_task(kv, id) == t; i++)
		if (!kv_ask(kv, kv->peers[i].number, AU_MSG_KV_READ, t->id, &m))
			kv_task_end(kv, t);
}

/* All others have said what they have: that is what we have now. */
static void
mend_done(AuKv *kv, KvTask *t)
{
	AuKvOp	   *op = kv_op(kv, AU_KV_OP_MERGE, NULL, t->key, t->klen);
	AuKvRecord	all = {.n = 0},
				one;
	bool		good = op != NULL;
	bool		lost = false;

	for (uint32_t i = 0; i < t->nreplies; i++)
		lost = lost || t->replies[i].corrupt;
	for (uint32_t i = 0; i < t->nreplies && good; i++)
		if (t->replies[i].len > 0)
			good = au_kv_record_decode(&one, t->key, t->klen, t->replies[i].record, t->replies[i].len) &&
				au_kv_merge(&all, &all, &one);
	/* damaged everywhere: an error is better than to say that there is nothing */
	good = good && (all.past.n > 0 || !lost);
	if (good && all.past.n > 0)
	{
		good = kv_op_in(kv, op, NULL, au_kv_record_size(&all));
		if (!good)
			op = NULL;
		else
			(void) au_kv_record_encode(&all, t->key, t->klen, op->in, op->in_len);
	}
	if (good)
	{
		kv_log(kv, AU_LOG_WARNING, "key-value store: a damaged record was replaced by what the other nodes have%s",
			   all.past.n == 0 ? ": nothing" : "");
		op->serial = t->serial;
		op->replace = true;
		kv->stats.repairs++;
		kv_submit(kv, op);
	}
	else if (op != NULL)
		kv_op_free(kv, op);
	kv_task_end(kv, t);
}

static void
take_mend(AuKv *kv, KvTask *t, KvReply *r, const AuMsgKvTold *m)
{
	if ((m->status != AU_OK && m->status != AU_NOT_FOUND && m->status != AU_CORRUPT) ||
		(m->status == AU_OK && !kv_keep(kv, &r->record, &r->len, m->bytes, m->len)))
	{
		kv_task_end(kv, t);
		return;
	}
	r->state = KV_DONE;
	r->corrupt = m->status == AU_CORRUPT;
	for (uint32_t i = 0; i < t->nreplies; i++)
		if (t->replies[i].state != KV_DONE)
			return;
	mend_done(kv, t);
}

/* ---- scans of our own store --------------------------------------------- */

/* The slices a scan is about; false: none. */
static bool
scan_slices(const AuKv *kv, KvScan what, AuSliceSet *out)
{
	bool		any = false;

	memset(out, 0, sizeof(*out));
	for (uint32_t i = 0; i < AU_SLICES; i++)
	{
		const AuSlice *s = &kv->view->slices[i];
		bool		in = what == KV_SCAN_FOREIGN ? !kv->slices[i].owned :
			kv_complete(kv, i) && s->nowners > 0 && s->owner[0] == kv->number;

		if (in)
			au_slices_add(out, i);
		any = any || in;
	}
	return any;
}

/* Somebody who is up and may be owed something, in turn. */
static KvPeer *
next_creditor(AuKv *kv)
{
	for (uint32_t i = 0; i < kv->npeers; i++)
	{
		KvPeer	   *p = &kv->peers[kv->scan_peer++ % kv->npeers];

		if (p->up && p->owed)
			return p;
	}
	return NULL;
}

static bool
start_scan(AuKv *kv, KvScan what)
{
	KvPeer	   *p = what == KV_SCAN_OWED ? next_creditor(kv) : NULL;
	AuSliceSet	slices = {{0}};
	AuKvOp	   *op;

	if (what == KV_SCAN_OWED ? p == NULL : !scan_slices(kv, what, &slices))
		return false;
	op = what == KV_SCAN_OWED ? kv_op(kv, AU_KV_OP_OWED, NULL, p->owed_key, p->owed_klen) :
		kv_op(kv, AU_KV_OP_SCAN, NULL, kv->cursor_key[what], kv->cursor_klen[what]);
	if (op == NULL)
		return false;
	op->purpose = KV_FOR_SCAN;
	op->arg = what;
	op->limit = SCAN_BYTES;
	op->slices = slices;
	if (what == KV_SCAN_OWED)
		op->number = p->number;
	else
	{
		op->slice = kv->cursor_slice[what];
		op->flags = what == KV_SCAN_TOMBS ? AU_KV_SCAN_DELETED : AU_KV_SCAN_ALL;
	}
	kv->scanning = true;
	kv->scan_epoch = kv->view->epoch;
	for (uint32_t i = 0; i < kv->npeers; i++)
		kv->scan_serial[i] = kv->peers[i].serial;
	kv_submit(kv, op);
	return true;
}

void
kv_back_scanned(AuKv *kv, AuKvOp *op)
{
	KvScan		what = (KvScan) op->arg;
	KvPeer	   *p;

	kv->scanning = false;
	if (op->status != AU_OK || kv->view->epoch != kv->scan_epoch)
		return;
	if (what == KV_SCAN_OWED)
	{
		p = kv_peer(kv, op->number);
		if (p != NULL)
		{
			p->owed_klen = op->more ? op->klen : 0;
			memcpy(p->owed_key, op->key, op->klen);
			/* all struck off, or looked at again from the beginning */
			p->owed = op->more || op->found > 0;
		}
		push_owed(kv, op);
		return;
	}
	kv->cursor_slice[what] = op->more ? op->slice : 0;
	kv->cursor_klen[what] = op->more ? op->klen : 0;
	memcpy(kv->cursor_key[what], op->key, op->klen);
	if (what == KV_SCAN_FOREIGN)
		push_foreign(kv, op);
	else
		collect(kv, op);
}

void
kv_back_tick(AuKv *kv, uint64_t now)
{
	kv_view_tick(kv, now);
	if (kv->wiping || kv->waiting)
		return;
	start_pulls(kv, now);
	for (uint32_t i = 0; i < KV_SCANS && !kv->scanning && kv->npushes < KV_PUSHES_MAX; i++)
		(void) start_scan(kv, (KvScan) (kv->scan_turn++ % KV_SCANS));
}

/* ---- what comes back, or does not ---------------------------------------- */

void
kv_back_told(AuKv *kv, KvTask *t, KvReply *r, const AuFrame *f)
{
	AuMsgKvTold m;
	bool		good = f->type >= AU_MSG_KV_READ && f->type <= AU_MSG_KV_PURGE_OK && au_dec_kv_told(f, &m);

	if (!good)
	{
		m.status = AU_INVALID;
		m.flags = 0;
	}
	if (t->type == KV_PULL)
		take_page(kv, t, r, &m);
	else if (t->type == KV_PUSH)
		take_push(kv, t, r, &m);
	else if (t->type == KV_MEND)
		take_mend(kv, t, r, &m);
	else
		take_purge(kv, t, r, (AuStatus) m.status);
}

void
kv_back_done(AuKv *kv, KvTask *t, AuKvOp *op)
{
	if (t->type == KV_PULL)
	{
		if (op->status == AU_FENCED || op->status == AU_CORRUPT)
			t->fenced = t->fenced || op->status == AU_FENCED;
		else if (op->status != AU_OK)
		{
			end_pull(kv, t, false);
			return;
		}
		if (t->ops == 0 && t->replies[0].state == KV_DONE)
			page_done(kv, t);
		return;
	}
	for (uint32_t i = 0; i < t->nreplies; i++)
		if (t->replies[i].number == kv->number && t->replies[i].state == KV_SENT)
		{
			take_purge(kv, t, &t->replies[i], op->status);
			return;
		}
}

void
kv_back_step(AuKv *kv, KvTask *t, uint64_t now)
{
	bool		over = now >= t->deadline;

	for (uint32_t i = 0; i < t->nreplies; i++)
		over = over || t->replies[i].state == KV_FAILED;
	if (!over || (t->type == KV_PULL && t->ops > 0))
		return;
	if (t->type == KV_PULL)
		end_pull(kv, t, false);
	else
		kv_task_end(kv, t);
}
