/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_kv.c: the key-value interface's tasks, memory and the way of messages;
 * au_kv.h has the contract.
 *
 * A task is anything that waits: a client's request, a question of another
 * node while our store works on it, a piece of background work.  Its id is in
 * the messages and operations it makes; an answer to a task that is over finds
 * nobody and is dropped.  A task that is over is freed when none of its
 * operations is under way.
 */
#include "cluster/au_kv_int.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#define TICK_US 250000
#define ERROR_CAP 4096
#define NODE_FRAME_CAP(klen, len) (AU_WIRE_HEADER + 64 + (size_t) (klen) + (len))

void
kv_log(AuKv *kv, AuLogLevel level, const char *fmt,...)
{
	char		text[512];
	va_list		args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	kv->host.log(kv->host.ctx, level, text);
}

uint64_t
kv_now(const AuKv *kv)
{
	return kv->host.now_us(kv->host.ctx);
}

/* ---- tasks ------------------------------------------------------------ */

KvTask *
kv_task(AuKv *kv, uint64_t id)
{
	KvTask	   *t = kv->tasks[id % AU_KV_TASKS_MAX];

	return t != NULL && t->id == id ? t : NULL;
}

static bool
is_push(KvTaskType type)
{
	return type == KV_PUSH || type == KV_COLLECT || type == KV_MEND;
}

KvTask *
kv_task_new(AuKv *kv, KvTaskType type, const uint8_t *key, size_t klen, uint32_t nreplies)
{
	KvTask	   *t;

	assert(klen <= AU_KV_KEY_MAX);
	if (kv->ntasks == AU_KV_TASKS_MAX)
		return NULL;
	t = kv->host.alloc(kv->host.ctx, sizeof(*t) + nreplies * sizeof(KvReply));
	if (t == NULL)
		return NULL;
	memset(t, 0, sizeof(*t) + nreplies * sizeof(KvReply));
	do
		kv->seq++;
	while (kv->tasks[kv->seq % AU_KV_TASKS_MAX] != NULL || kv->seq == 0);
	t->id = kv->seq;
	t->type = type;
	t->klen = (uint16_t) klen;
	if (klen > 0)
		memcpy(t->key, key, klen);
	t->slice = (uint16_t) au_kv_slice(key, klen);
	t->replies = (KvReply *) (t + 1);
	t->began = kv_now(kv);
	t->serial = kv->serial;
	t->epoch = kv->view != NULL ? kv->view->epoch : 0;
	kv->tasks[t->id % AU_KV_TASKS_MAX] = t;
	kv->ntasks++;
	kv->npushes += is_push(type);
	return t;
}

static void
drop_field(AuKv *kv, uint8_t **field, uint32_t *len)
{
	if (*field != NULL)
	{
		kv->bytes -= *len;
		kv->host.release(kv->host.ctx, *field);
	}
	*field = NULL;
	*len = 0;
}

bool
kv_keep(AuKv *kv, uint8_t **field, uint32_t *len, const uint8_t *bytes, size_t n)
{
	uint8_t    *copy = kv->host.alloc(kv->host.ctx, n + 1);

	drop_field(kv, field, len);
	if (copy == NULL)
		return false;
	if (n > 0)
		memcpy(copy, bytes, n);
	*field = copy;
	*len = (uint32_t) n;
	kv->bytes += n;
	return true;
}

static void
task_free(AuKv *kv, KvTask *t)
{
	drop_field(kv, &t->record, &t->len);
	for (uint32_t i = 0; i < t->nreplies; i++)
		drop_field(kv, &t->replies[i].record, &t->replies[i].len);
	kv->host.release(kv->host.ctx, t);
}

void
kv_task_end(AuKv *kv, KvTask *t)
{
	KvTask	  **slot = &kv->tasks[t->id % AU_KV_TASKS_MAX];

	if (*slot == t)
	{
		*slot = NULL;
		kv->ntasks--;
		kv->npushes -= is_push(t->type);
	}
	/* its operations find no task by their id, and need none */
	task_free(kv, t);
}

/* ---- operations ------------------------------------------------------- */

AuKvOp *
kv_op(AuKv *kv, AuKvOpType type, KvTask *t, const uint8_t *key, size_t klen)
{
	AuKvOp	   *op = kv->host.alloc(kv->host.ctx, sizeof(*op));

	if (op == NULL)
		return NULL;
	memset(op, 0, sizeof(*op));
	op->type = type;
	op->klen = (uint16_t) klen;
	if (klen > 0)
		memcpy(op->key, key, klen);
	op->slice = (uint16_t) au_kv_slice(key, klen);
	op->task = t != NULL ? t->id : 0;
	op->purpose = t != NULL ? KV_FOR_TASK : KV_FOR_NOBODY;
	return op;
}

bool
kv_op_in(AuKv *kv, AuKvOp *op, const uint8_t *bytes, size_t n)
{
	op->in = kv->host.alloc(kv->host.ctx, n + 1);
	if (op->in == NULL)
	{
		kv_op_free(kv, op);
		return false;
	}
	if (bytes != NULL)
		memcpy(op->in, bytes, n);
	op->in_len = (uint32_t) n;
	kv->bytes += n;
	return true;
}

void
kv_op_free(AuKv *kv, AuKvOp *op)
{
	if (op->in != NULL)
	{
		kv->bytes -= op->in_len;
		kv->host.release(kv->host.ctx, op->in);
	}
	if (op->out != NULL)
		kv->host.release(kv->host.ctx, op->out);
	kv->host.release(kv->host.ctx, op);
}

void
kv_submit(AuKv *kv, AuKvOp *op)
{
	KvTask	   *t = op->task != 0 ? kv_task(kv, op->task) : NULL;

	if (t != NULL)
		t->ops++;
	kv->host.submit(kv->host.ctx, op);
}

/* A write that failed may be on disk all the same, or not be: notes of what is
 * owed are looked at again. */
static void
doubt(AuKv *kv, const AuKvOp *op)
{
	for (uint32_t i = 0; i < op->nowed; i++)
		kv_look_for_owed(kv, op->owed[i]);
	if (op->type != AU_KV_OP_DISOWE)
		return;
	kv_look_for_owed(kv, op->number);
	kv->off_waits = kv->off_waits || op->klen == 0;
}

void
au_kv_done(AuKv *kv, AuKvOp *op)
{
	KvTask	   *t = op->task != 0 ? kv_task(kv, op->task) : NULL;

	/* 0: it was refused before the store saw it */
	if (op->type >= AU_KV_OP_FIRST_WRITE && op->serial_now != 0)
		kv->serial = op->serial_now;
	kv->stats.damaged += op->damaged + (op->status == AU_CORRUPT);
	if (t != NULL)
		t->ops--;
	if (op->status != AU_OK)
		doubt(kv, op);
	if (op->status == AU_CORRUPT)
		kv_mend(kv, op->key, op->klen);
	else if (op->damaged > 0 && op->type != AU_KV_OP_LIST)
		kv_mend(kv, op->hurt, op->hurt_len);
	if (op->purpose == KV_FOR_SCAN)
		kv_back_scanned(kv, op);
	else if (op->purpose == KV_FOR_WIPE)
		kv_wiped(kv, op);
	else if (op->type == AU_KV_OP_DISOWE && op->more && op->status == AU_OK)
	{
		AuKvOp	   *next = kv_op(kv, AU_KV_OP_DISOWE, NULL, NULL, 0);

		if (next == NULL)
			kv->off_waits = true;
		else
		{
			next->number = op->number;
			kv_submit(kv, next);
		}
	}
	else if (op->purpose == KV_FOR_STATE)
		kv_state_saved(kv, op);
	else if (t != NULL)
		switch (t->type)
		{
			case KV_GET:
			case KV_PUT:
			case KV_FORWARD:
				kv_request_done(kv, t, op);
				break;
			case KV_LIST:
				kv_list_done(kv, t, op);
				break;
			case KV_SERVE:
				kv_serve_done(kv, t, op);
				break;
			case KV_PULL:
			case KV_PUSH:
			case KV_COLLECT:
			case KV_MEND:
				kv_back_done(kv, t, op);
				break;
		}
	kv_op_free(kv, op);
}

/* ---- nodes ------------------------------------------------------------ */

KvPeer *
kv_peer(AuKv *kv, uint32_t number)
{
	for (uint32_t i = 0; i < kv->npeers; i++)
		if (kv->peers[i].number == number)
			return &kv->peers[i];
	return NULL;
}

void
kv_look_for_owed(AuKv *kv, uint32_t number)
{
	KvPeer	   *p = kv_peer(kv, number);

	if (p != NULL)
		p->owed = true;
}

uint32_t
kv_owners(const AuKv *kv, uint32_t slice, uint32_t owner[AU_RF_MAX])
{
	const AuSlice *s;

	if (kv->view == NULL)
	{
		owner[0] = 0;
		return kv->waiting ? 0 : 1;
	}
	s = &kv->view->slices[slice];
	memcpy(owner, s->owner, s->nowners * sizeof(owner[0]));
	return s->nowners;
}

bool
kv_owns(const AuKv *kv, uint32_t slice, uint32_t number)
{
	uint32_t	owner[AU_RF_MAX];
	uint32_t	n = kv_owners(kv, slice, owner);

	for (uint32_t i = 0; i < n; i++)
		if (owner[i] == number)
			return true;
	return false;
}

bool
kv_complete(const AuKv *kv, uint32_t slice)
{
	return !kv->wiping && !kv->waiting && kv->slices[slice].owned && kv->slices[slice].complete;
}

uint8_t
kv_own_flags(const AuKv *kv, uint32_t slice)
{
	return (kv->slices[slice].owned ? AU_KV_OWNER : 0) | (kv_complete(kv, slice) ? AU_KV_SYNCED : 0);
}

void
kv_answered(AuKv *kv, KvTask *t, AuKvRequest what)
{
	t->answered = true;
	if ((t->flags & AU_KV_FORWARDED) == 0)
		au_hist_add(&kv->latency[what], kv_now(kv) - t->began);
}

bool
kv_ask(AuKv *kv, uint32_t number, uint16_t type, uint64_t id, AuMsgKvAsk *m)
{
	KvPeer	   *p = kv_peer(kv, number);
	size_t		cap = NODE_FRAME_CAP(m->key.len, m->len);
	uint8_t    *memory;
	AuWriter	w;

	if (p == NULL || !p->up || (memory = kv->host.buffer(kv->host.ctx, cap)) == NULL)
		return false;
	m->from = kv->number;
	m->epoch = kv->view->epoch;
	au_writer_start(&w, memory, cap);
	if (!au_enc_kv_ask(&w, type, id, m))
		assert(!"a question fits its frame");
	return kv->host.send(kv->host.ctx, number, memory, w.len);
}

bool
kv_ask_store(AuKv *kv, KvTask *t, uint32_t number, uint64_t serial,
			 const uint8_t *record, uint32_t len)
{
	AuMsgKvAsk	m = {.serial = serial,.slice = t->slice,
		.key = {t->klen, t->key},.len = len,.bytes = record
	};

	return kv_ask(kv, number, AU_MSG_KV_STORE, t->id, &m);
}

void
kv_error(AuKv *kv, void *client, uint64_t id, AuStatus status, const char *hint, const char *fmt,...)
{
	char		text[AU_WIRE_TEXT_MAX];
	uint8_t    *memory;
	va_list		args;
	AuWriter	w;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	kv->stats.failed++;
	memory = client != NULL ? kv->host.buffer(kv->host.ctx, ERROR_CAP) : NULL;
	if (memory == NULL)
		return;
	au_writer_start(&w, memory, ERROR_CAP);
	if (!au_enc_error(&w, id, status, text, hint))
		assert(!"an error fits its frame");
	kv->host.answer(kv->host.ctx, client, memory, w.len);
}

void
au_kv_peer(AuKv *kv, uint32_t number, bool up)
{
	KvPeer	   *p = kv_peer(kv, number);
	AuMsgKvAsk	hello = {0};

	if (p == NULL)
		return;
	p->up = up;
	p->pull_at = 0;
	if (up)
	{
		p->owed = true;
		(void) kv_ask(kv, number, AU_MSG_KV_READ, 0, &hello);
		return;
	}
	for (uint32_t i = 0; i < AU_KV_TASKS_MAX; i++)
	{
		KvTask	   *t = kv->tasks[i];

		for (uint32_t k = 0; t != NULL && t == kv->tasks[i] && k < t->nreplies; k++)
			if (t->replies[k].number == number && t->replies[k].state == KV_SENT)
			{
				t->replies[k].state = KV_FAILED;
				if (t->type == KV_FORWARD)
					kv_request_lost(kv, t, &t->replies[k]);
			}
	}
}

/* ---- messages --------------------------------------------------------- */

void
au_kv_question(AuKv *kv, void *client, uint8_t role, const AuFrame *f)
{
	switch (f->type)
	{
		case AU_MSG_KV_GET:
		case AU_MSG_KV_PUT:
			kv_request(kv, client, role, f);
			break;
		case AU_MSG_KV_LIST:
			kv_list(kv, client, role, f);
			break;
		case AU_MSG_KV_READ:
		case AU_MSG_KV_STORE:
		case AU_MSG_KV_SCAN:
		case AU_MSG_KV_PURGE:
			if (role == AU_ROLE_NODE)
			{
				kv_serve(kv, client, f);
				break;
			}
			/* FALLTHROUGH */
		default:
			kv_error(kv, client, f->id, AU_INVALID, NULL, "message %u is not one of a client", f->type);
			break;
	}
}

void
au_kv_client_gone(AuKv *kv, void *client)
{
	for (uint32_t i = 0; i < AU_KV_TASKS_MAX; i++)
		if (kv->tasks[i] != NULL && kv->tasks[i]->client == client)
			kv->tasks[i]->client = NULL;
}

void
au_kv_told(AuKv *kv, uint32_t number, const AuFrame *f)
{
	KvTask	   *t = kv_task(kv, f->id);
	KvPeer	   *p = kv_peer(kv, number);
	AuMsgKvTold m;

	if (p == NULL)
		return;
	if (f->type >= AU_MSG_KV_READ && f->type <= AU_MSG_KV_PURGE_OK && au_dec_kv_told(f, &m) &&
		m.serial > p->serial)
		p->serial = m.serial;
	if (t == NULL)
		return;
	for (uint32_t i = 0; i < t->nreplies; i++)
		if (t->replies[i].number == number && t->replies[i].state == KV_SENT)
		{
			KvReply    *r = &t->replies[i];

			if (t->type == KV_LIST)
				kv_list_told(kv, t, r, f);
			else if (t->type == KV_GET || t->type == KV_PUT || t->type == KV_FORWARD)
				kv_request_told(kv, t, r, f);
			else
				kv_back_told(kv, t, r, f);
			return;
		}
}

/* ---- life ------------------------------------------------------------- */

AuKv *
au_kv_new(const AuKvHost *host, const AuKvOptions *options, const AuKvExec *x,
		  const uint8_t *state, size_t state_len)
{
	AuKv	   *kv = host->alloc(host->ctx, sizeof(*kv));

	if (kv == NULL)
		return NULL;
	memset(kv, 0, sizeof(*kv));
	kv->host = *host;
	kv->opt = *options;
	if (kv->opt.tick_us == 0)
		kv->opt.tick_us = TICK_US;
	kv->serial = x->serial;
	kv->seq = x->starts << 32;
	for (uint32_t i = 0; i < AU_SLICES; i++)
	{
		kv->slices[i].nbefore = KV_UNKNOWN;
		kv->slices[i].owned = kv->slices[i].complete = true;
	}
	if (!kv_load_state(kv, state, state_len) && state_len > 0)
		kv_log(kv, AU_LOG_WARNING, "key-value store: what slices are complete cannot be read; they are fetched again");
	kv->waiting = options->cluster || kv->kept_number != 0;
	return kv;
}

void
au_kv_free(AuKv *kv)
{
	for (uint32_t i = 0; i < AU_KV_TASKS_MAX; i++)
		if (kv->tasks[i] != NULL)
			kv_task_end(kv, kv->tasks[i]);
	if (kv->view != NULL)
		kv->host.release(kv->host.ctx, kv->view);
	kv->host.release(kv->host.ctx, kv);
}

static void
sweep(AuKv *kv, uint64_t now)
{
	for (uint32_t i = 0; i < AU_KV_TASKS_MAX && kv->ntasks > 0; i++)
	{
		KvTask	   *t = kv->tasks[i];

		if (t == NULL)
			continue;
		switch (t->type)
		{
			case KV_GET:
			case KV_PUT:
			case KV_FORWARD:
				kv_request_step(kv, t, now);
				break;
			case KV_LIST:
				kv_list_step(kv, t, now);
				break;
			case KV_SERVE:		/* ends with its operation */
				break;
			case KV_PULL:
			case KV_PUSH:
			case KV_COLLECT:
			case KV_MEND:
				kv_back_step(kv, t, now);
				break;
		}
	}
}

uint64_t
au_kv_run(AuKv *kv)
{
	uint64_t	now = kv_now(kv);
	uint64_t	at;

	if (kv->ntasks > 0 && now >= kv->sweep_at)
	{
		kv->sweep_at = now + KV_SWEEP_US;
		sweep(kv, now);
	}
	if (kv->view != NULL && now >= kv->tick_at)
	{
		kv->tick_at = now + kv->opt.tick_us;
		kv_back_tick(kv, now);
	}
	at = kv->view != NULL ? kv->tick_at : UINT64_MAX;
	if (kv->ntasks > 0 && kv->sweep_at < at)
		at = kv->sweep_at;
	return at == UINT64_MAX ? UINT64_MAX : at > now ? at - now : 0;
}

void
au_kv_stats(const AuKv *kv, AuKvStats *out)
{
	*out = kv->stats;
	out->latency = kv->latency;
	out->tasks = kv->ntasks;
	out->slices_owned = out->slices_complete = 0;
	for (uint32_t i = 0; i < AU_SLICES; i++)
	{
		out->slices_owned += kv->slices[i].owned && !kv->waiting;
		out->slices_complete += kv_complete(kv, i);
	}
	out->owes = false;
	for (uint32_t i = 0; i < kv->npeers; i++)
		out->owes = out->owes || kv->peers[i].owed;
}
