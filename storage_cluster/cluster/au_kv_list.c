/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_kv_list.c: LIST: keys with a prefix, in order.
 *
 * Each slice is listed by one of its owners, which must have all of it; what
 * they give is merged.  So a list shows what one replica of each key knows: a
 * key written or deleted a moment ago may be missing or still there.
 */
#include "cluster/au_kv_int.h"

#include <assert.h>

/* Which of a slice's owners is asked; phase counts the attempts. */
static uint32_t
lister(AuKv *kv, const KvTask *t, uint32_t slice)
{
	uint32_t	owner[AU_RF_MAX];
	uint32_t	n = kv_owners(kv, slice, owner);

	for (uint32_t i = 0; i < n; i++)
	{
		uint32_t	number = owner[(i + t->phase) % n];
		KvPeer	   *p = kv_peer(kv, number);

		if (number == kv->number ? kv_complete(kv, slice) : p != NULL && p->up)
			return number;
	}
	return UINT32_MAX;
}

static bool
send_list(AuKv *kv, KvTask *t, uint32_t number, const AuSliceSet *slices)
{
	AuMsgKvList m = {.flags = AU_KV_FORWARDED,.limit = t->limit,.timeout_ms = 1000,.slices = *slices,
		.prefix = {t->klen, t->key},.after = {(uint16_t) t->len, t->record}
	};
	size_t		cap = AU_WIRE_HEADER + 128 + 2 * AU_KV_KEY_MAX;
	uint8_t    *memory;
	AuKvOp	   *op;
	AuWriter	w;

	if (number != kv->number)
	{
		if ((memory = kv->host.buffer(kv->host.ctx, cap)) == NULL)
			return false;
		au_writer_start(&w, memory, cap);
		if (!au_enc_kv_list(&w, t->id, &m))
			assert(!"a question fits its frame");
		return kv->host.send(kv->host.ctx, number, memory, w.len);
	}
	op = kv_op(kv, AU_KV_OP_LIST, t, t->key, t->klen);
	if (op == NULL || !kv_op_in(kv, op, t->record, t->len))
		return false;
	op->slices = *slices;
	op->limit = t->limit;
	kv_submit(kv, op);
	return true;
}

/* Ask one owner of each slice; what cannot be asked now is tried again. */
static void
ask_all(AuKv *kv, KvTask *t, uint64_t now)
{
	AuSliceSet	sets[AU_VIEW_NODES_MAX];

	t->next_try = now + KV_RETRY_US;
	for (uint32_t i = 0; i < t->nreplies; i++)
	{
		KvReply    *r = &t->replies[i];

		if (r->record != NULL)
		{
			kv->bytes -= r->len;
			kv->host.release(kv->host.ctx, r->record);
			r->record = NULL;
			r->len = 0;
		}
	}
	t->nreplies = 0;
	t->more = false;
	for (uint32_t s = 0; s < AU_SLICES; s++)
	{
		uint32_t	number = lister(kv, t, s);
		uint32_t	i = 0;

		if (number == UINT32_MAX)
		{
			t->nreplies = 0;
			return;
		}
		while (i < t->nreplies && t->replies[i].number != number)
			i++;
		if (i == t->nreplies)
		{
			memset(&sets[i], 0, sizeof(sets[i]));
			memset(&t->replies[i], 0, sizeof(t->replies[i]));
			t->replies[i].number = number;
			t->nreplies++;
		}
		au_slices_add(&sets[i], s);
	}
	for (uint32_t i = 0; i < t->nreplies; i++)
	{
		KvReply    *r = &t->replies[i];

		r->sent_at = now;
		r->state = send_list(kv, t, r->number, &sets[i]) ? KV_SENT : KV_FAILED;
	}
}

/* ---- the answer ------------------------------------------------------- */

typedef struct Part
{
	const uint8_t *p;
	size_t		left;
	AuKvText	key;			/* the next one */
	const uint8_t *entry;
	size_t		size;
	bool		any;
} Part;

static void
advance(Part *part)
{
	uint8_t		siblings;
	uint32_t	bytes;

	part->entry = part->p;
	part->any = au_kv_list_next(&part->p, &part->left, &part->key, &siblings, &bytes);
	part->size = (size_t) (part->p - part->entry);
}

static bool
before(const Part *a, const Part *b)
{
	size_t		n = a->key.len < b->key.len ? a->key.len : b->key.len;
	int			c = memcmp(a->key.bytes, b->key.bytes, n);

	return c < 0 || (c == 0 && a->key.len < b->key.len);
}

static void
answer_list(AuKv *kv, KvTask *t)
{
	AuMsgKvListOk m = {.more = t->more};
	Part		parts[AU_VIEW_NODES_MAX];
	uint8_t    *entries,
			   *memory;
	size_t		cap = 0;
	AuWriter	w;

	for (uint32_t i = 0; i < t->nreplies; i++)
	{
		parts[i].p = t->replies[i].record;
		parts[i].left = t->replies[i].len;
		cap += t->replies[i].len;
		advance(&parts[i]);
	}
	entries = kv->host.alloc(kv->host.ctx, cap + 1);
	for (;;)
	{
		Part	   *first = NULL;

		for (uint32_t i = 0; i < t->nreplies; i++)
			if (parts[i].any && (first == NULL || before(&parts[i], first)))
				first = &parts[i];
		if (first == NULL || entries == NULL)
			break;
		if (m.n == t->limit)
		{
			m.more = 1;
			break;
		}
		memcpy(entries + m.len, first->entry, first->size);
		m.len += (uint32_t) first->size;
		m.n++;
		advance(first);
	}
	m.entries = entries;
	memory = entries != NULL && t->client != NULL ?
		kv->host.buffer(kv->host.ctx, AU_WIRE_HEADER + 64 + m.len) : NULL;
	if (memory != NULL)
	{
		au_writer_start(&w, memory, AU_WIRE_HEADER + 64 + m.len);
		if (!au_enc_kv_list_ok(&w, t->client_id, &m))
			assert(!"a list fits its frame");
		kv->host.answer(kv->host.ctx, t->client, memory, w.len);
	}
	kv_answered(kv, t, AU_KV_LISTS);
	if (entries != NULL)
		kv->host.release(kv->host.ctx, entries);
	kv_task_end(kv, t);
}

static void
take_list(AuKv *kv, KvTask *t, KvReply *r, const uint8_t *entries, uint32_t len, bool more)
{
	if (!kv_keep(kv, &r->record, &r->len, entries, len))
	{
		r->state = KV_FAILED;
		return;
	}
	r->state = KV_DONE;
	t->more = t->more || more;
	for (uint32_t i = 0; i < t->nreplies; i++)
		if (t->replies[i].state != KV_DONE)
			return;
	answer_list(kv, t);
}

void
kv_list_told(AuKv *kv, KvTask *t, KvReply *r, const AuFrame *f)
{
	AuMsgKvListOk m;

	(void) kv;
	if (f->type == AU_MSG_KV_LIST_OK && au_dec_kv_list_ok(f, &m))
		take_list(kv, t, r, m.entries, m.len, m.more);
	else if (f->type == AU_MSG_ERROR)
		r->state = KV_FAILED;
}

void
kv_list_done(AuKv *kv, KvTask *t, AuKvOp *op)
{
	for (uint32_t i = 0; i < t->nreplies; i++)
		if (t->replies[i].number == kv->number && t->replies[i].state == KV_SENT)
		{
			if (op->status == AU_OK)
				take_list(kv, t, &t->replies[i], op->out, op->out_len, op->more);
			else
				t->replies[i].state = KV_FAILED;
			return;
		}
}

void
kv_list_step(AuKv *kv, KvTask *t, uint64_t now)
{
	bool		failed = t->nreplies == 0;

	if (now >= t->deadline)
	{
		kv_error(kv, t->client, t->client_id, AU_REFUSED, "Check the nodes with auroractl status.",
				 "not every slice has an owner that answers");
		kv_task_end(kv, t);
		return;
	}
	for (uint32_t i = 0; i < t->nreplies; i++)
		failed = failed || t->replies[i].state == KV_FAILED || now - t->replies[i].sent_at > KV_LOST_US;
	/* an answer to our own store's operation is not lost, only slow */
	if (failed && t->ops == 0 && now >= t->next_try)
	{
		t->phase++;
		ask_all(kv, t, now);
	}
}

/* Another node asks for what is here of some slices. */
static void
list_here(AuKv *kv, KvTask *t, const AuMsgKvList *m)
{
	t->nreplies = 1;
	t->replies[0].number = kv->number;
	t->replies[0].state = KV_SENT;
	t->replies[0].sent_at = kv_now(kv);
	for (uint32_t s = 0; s < AU_SLICES; s++)
		if (au_slices_has(&m->slices, s) && !kv_complete(kv, s))
		{
			kv_error(kv, t->client, t->client_id, AU_MOVED, NULL, "slice %u is not complete on this node", s);
			kv_task_end(kv, t);
			return;
		}
	if (!send_list(kv, t, kv->number, &m->slices))
		kv_task_end(kv, t);
}

void
kv_list(AuKv *kv, void *client, uint8_t role, const AuFrame *f)
{
	AuMsgKvList m;
	KvTask	   *t;
	uint32_t	timeout;
	bool		forwarded;

	if (!au_dec_kv_list(f, &m))
	{
		kv_error(kv, client, f->id, AU_INVALID, NULL, "malformed KV_LIST");
		return;
	}
	forwarded = role == AU_ROLE_NODE && (m.flags & AU_KV_FORWARDED) != 0;
	if (kv_refuse(kv, client, f->id))
		return;
	t = kv_task_new(kv, KV_LIST, m.prefix.bytes, m.prefix.len, AU_VIEW_NODES_MAX);
	if (t == NULL || !kv_keep(kv, &t->record, &t->len, m.after.bytes, m.after.len))
	{
		kv_error(kv, client, f->id, AU_NOMEM, NULL, "out of memory");
		if (t != NULL)
			kv_task_end(kv, t);
		return;
	}
	kv->stats.lists += !forwarded;
	t->flags = forwarded ? AU_KV_FORWARDED : 0;
	t->client = client;
	t->client_id = f->id;
	t->asked = f->type;
	t->limit = m.limit == 0 ? AU_KV_LIST_MAX : m.limit;
	timeout = m.timeout_ms == 0 ? AU_KV_TIMEOUT_MS : m.timeout_ms;
	t->deadline = kv_now(kv) + (uint64_t) (timeout < AU_KV_TIMEOUT_MAX_MS ? timeout : AU_KV_TIMEOUT_MAX_MS) * 1000;
	if (forwarded)
		list_here(kv, t, &m);
	else
		ask_all(kv, t, kv_now(kv));
}
