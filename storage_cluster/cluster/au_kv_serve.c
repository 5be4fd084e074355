/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_kv_serve.c: what other nodes ask of this replica: READ, STORE, SCAN,
 * PURGE.  Each is one operation of the store; the answer follows when it is
 * done, and so on disk.
 *
 * Only nodes of the view are served: one that was taken out may hold what was
 * deleted since.
 */
#include "cluster/au_kv_int.h"

#include <assert.h>

static void
tell(AuKv *kv, KvTask *t, AuMsgKvTold *m)
{
	size_t		cap = AU_WIRE_HEADER + 64 + m->key.len + (size_t) m->len;
	uint8_t    *memory = t->client != NULL ? kv->host.buffer(kv->host.ctx, cap) : NULL;
	AuWriter	w;

	if (memory == NULL)
		return;
	m->epoch = kv->view != NULL ? kv->view->epoch : 0;
	m->serial = kv->serial;
	au_writer_start(&w, memory, cap);
	if (!au_enc_kv_told(&w, (uint16_t) (t->asked + 1), t->client_id, m))
		assert(!"an answer fits its frame");
	kv->host.answer(kv->host.ctx, t->client, memory, w.len);
}

static void
tell_status(AuKv *kv, KvTask *t, AuStatus status)
{
	AuMsgKvTold m = {.status = (uint16_t) status,.flags = kv_own_flags(kv, t->slice),.slice = t->slice};

	tell(kv, t, &m);
	kv_task_end(kv, t);
}

static AuKvOp *
make_op(AuKv *kv, KvTask *t, const AuMsgKvAsk *m)
{
	static const AuKvOpType types[] = {AU_KV_OP_READ, AU_KV_OP_MERGE, AU_KV_OP_SCAN, AU_KV_OP_CHECK};
	AuKvOpType	type = types[(t->asked - AU_MSG_KV_READ) / 2];
	AuKvOp	   *op;

	if (t->asked == AU_MSG_KV_PURGE && m->slice == 3)
		type = AU_KV_OP_PURGE;
	op = kv_op(kv, type, t, m->key.bytes, m->key.len);
	if (op == NULL || !kv_op_in(kv, op, m->bytes, m->len))
		return NULL;
	op->serial = m->serial;
	op->owner = m->slice == 1;
	if (t->asked == AU_MSG_KV_SCAN)
	{
		op->slice = m->slice;
		op->limit = AU_KV_SCAN_BYTES;
		for (int i = 0; i < AU_SLICES / 64; i++)
			op->slices.bits[i] = au_get_u64(m->bytes + 8 * i);
	}
	return op;
}

/* May this be asked of us now? */
static AuStatus
look(AuKv *kv, KvTask *t, const AuMsgKvAsk *m)
{
	if (kv->view == NULL || kv->waiting || kv->wiping || kv_peer(kv, m->from) == NULL)
		return AU_MOVED;
	if (t->asked == AU_MSG_KV_SCAN)
		/* we must know, also after a crash, that the one who asks is an owner */
		return m->len != AU_SLICES / 8 ? AU_INVALID : kv->kept_epoch >= m->epoch ? AU_OK : AU_MOVED;
	if (t->asked == AU_MSG_KV_PURGE)
		return m->slice < 1 || m->slice > 3 ? AU_INVALID : kv->view->epoch != m->epoch ||
			kv->slices[t->slice].owned != (m->slice != 2) ||
			(m->slice == 1 && !kv_complete(kv, t->slice)) ? AU_MOVED : AU_OK;
	return AU_OK;
}

void
kv_serve(AuKv *kv, void *client, const AuFrame *f)
{
	AuMsgKvAsk	m;
	KvTask	   *t;
	AuKvOp	   *op;
	AuStatus	status;

	if (!au_dec_kv_ask(f, &m))
	{
		kv_error(kv, client, f->id, AU_INVALID, NULL, "malformed message of a node (type %u)", f->type);
		return;
	}
	t = kv->bytes > 2 * AU_KV_BYTES_MAX ? NULL : kv_task_new(kv, KV_SERVE, m.key.bytes, m.key.len, 0);
	if (t == NULL)
	{
		kv_error(kv, client, f->id, AU_FULL, "It is tried again.", "too much is asked of this node");
		return;
	}
	t->client = client;
	t->client_id = f->id;
	t->asked = f->type;
	t->counted_before = kv_complete(kv, t->slice);
	status = look(kv, t, &m);
	if (status != AU_OK || (m.key.len == 0 && f->type != AU_MSG_KV_SCAN))
		tell_status(kv, t, status);
	else if ((op = make_op(kv, t, &m)) == NULL)
		tell_status(kv, t, AU_NOMEM);
	else
	{
		kv_submit(kv, op);
		if (AU_PLANTED(AU_PLANT_KV_EARLY) && f->type == AU_MSG_KV_STORE)
			tell_status(kv, t, AU_OK);
	}
}

void
kv_serve_done(AuKv *kv, KvTask *t, AuKvOp *op)
{
	AuMsgKvTold m = {.status = (uint16_t) op->status,.flags = kv_own_flags(kv, t->slice),.slice = t->slice};

	if (op->type == AU_KV_OP_READ || op->type == AU_KV_OP_SCAN)
	{
		m.bytes = op->out;
		m.len = op->out_len;
		/* what was fetched meanwhile is not in the answer */
		if (!t->counted_before)
			m.flags &= (uint8_t) ~AU_KV_SYNCED;
	}
	if (op->type == AU_KV_OP_SCAN)
	{
		m.slice = op->slice;
		m.flags = op->more ? AU_KV_MORE : 0;
		m.key.len = op->klen;
		m.key.bytes = op->key;
	}
	tell(kv, t, &m);
	kv_task_end(kv, t);
}
