/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_kv_request.c: clients' GET, PUT and DEL.
 *
 *   GET      READ to the owners ──▶ R that count ──▶ answer ──▶ all, or a while
 *                                                    later ──▶ repair
 *   PUT      UPDATE of our store ──▶ STORE to the other owners ──▶ W that count
 *                                                    ──▶ answer ──▶ as above
 *   FORWARD  an owner does it; one that refuses (AU_MOVED) gives way to the next.
 *            A PUT that was sent is not sent to another one: it may have
 *            happened.
 *
 * A replica that does not answer, or whose answer does not count, is asked
 * again every KV_RETRY_US until the deadline.  So is a node that the view has
 * made an owner meanwhile: those that were may count no more.
 */
#include "cluster/au_kv_int.h"

#include <assert.h>

static uint32_t
majority(uint32_t n)
{
	return n / 2 + 1;
}

/* ---- beginning -------------------------------------------------------- */

static bool
is_reserved(const AuKvText *key)
{
	size_t		n = strlen(AU_KV_RESERVED);

	return key->len >= n && memcmp(key->bytes, AU_KV_RESERVED, n) == 0;
}

bool
kv_refuse(AuKv *kv, void *client, uint64_t id)
{
	if (kv->removed)
		kv_error(kv, client, id, AU_REFUSED, "Ask another node.", "this node was removed from the cluster");
	else if (kv->waiting || kv->wiping)
		kv_error(kv, client, id, AU_REFUSED, "Try again when the cluster has a leader and this node has joined it.",
				 "this node does not know the cluster's view yet");
	else if (kv->ntasks >= AU_KV_TASKS_MAX / 2 || kv->bytes > AU_KV_BYTES_MAX)
		kv_error(kv, client, id, AU_FULL, "Try again, with fewer requests at a time.",
				 "too many key-value requests are under way on this node");
	else
		return false;
	return true;
}

/* How many take part and how many must; false: it was answered. */
static bool
set_numbers(AuKv *kv, KvTask *t, uint32_t n, uint32_t need, uint32_t timeout_ms)
{
	uint32_t	owner[AU_RF_MAX];
	uint32_t	owners = kv_owners(kv, t->slice, owner);

	t->n = (uint8_t) (n == 0 || n > owners ? owners : n);
	t->need = (uint8_t) (need == 0 ? majority(t->n) : need);
	if (timeout_ms == 0)
		timeout_ms = AU_KV_TIMEOUT_MS;
	if (timeout_ms > AU_KV_TIMEOUT_MAX_MS)
		timeout_ms = AU_KV_TIMEOUT_MAX_MS;
	t->deadline = kv_now(kv) + (uint64_t) timeout_ms * 1000;
	if (n <= owners && t->need <= t->n && t->n > 0)
		return true;
	kv_error(kv, t->client, t->client_id, AU_INVALID,
			 "Ask for fewer replicas, or add nodes to the cluster.",
			 "%u of %u replicas were asked for, the key has %u", need, n == 0 ? owners : n, owners);
	return false;
}

static KvTask *
new_request(AuKv *kv, KvTaskType type, void *client, const AuFrame *f, const AuKvText *key)
{
	/* each owner, and one that stands in for it */
	KvTask	   *t = kv_task_new(kv, type, key->bytes, key->len, 2 * AU_RF_MAX);

	if (t == NULL)
	{
		kv_error(kv, client, f->id, AU_NOMEM, NULL, "out of memory");
		return NULL;
	}
	t->client = client;
	t->client_id = f->id;
	t->asked = f->type;
	return t;
}

/* Place among those that take part; -1: not one of them. */
static int
place_of(const AuKv *kv, const KvTask *t, uint32_t number)
{
	uint32_t	owner[AU_RF_MAX];
	uint32_t	n = kv_owners(kv, t->slice, owner);

	for (uint32_t i = 0; i < n && i < t->n; i++)
		if (owner[i] == number)
			return (int) i;
	return -1;
}

static KvReply *
add_reply(AuKv *kv, KvTask *t, uint32_t number)
{
	KvReply    *r = &t->replies[t->nreplies++];
	KvPeer	   *p = kv_peer(kv, number);

	assert(t->nreplies <= 2 * AU_RF_MAX);
	memset(r, 0, sizeof(*r));
	r->number = number;
	r->newcomer = place_of(kv, t, number) < 0;
	r->serial = number == kv->number ? t->serial : p != NULL ? p->serial : 0;
	return r;
}

static KvReply *
own_reply(AuKv *kv, KvTask *t)
{
	for (uint32_t i = 0; i < t->nreplies; i++)
		if (t->replies[i].number == kv->number)
			return &t->replies[i];
	return NULL;
}

/*
 * Of the owners as they were when the request began, or of those of now, which
 * are more: never some that are owners no more together with some that came for
 * them.  W = 2 of a, b, c and of one that came for a: a GET of b and c misses
 * what only those two have.  (What an owner has that counted before the other
 * came, that one fetches from it before it counts.)
 */
static uint32_t
counted(const AuKv *kv, const KvTask *t)
{
	uint32_t	planted = AU_PLANTED(AU_PLANT_KV_QUORUM) && t->type == KV_PUT ? 1 : 0;
	uint32_t	before = planted;
	uint32_t	now = planted;

	for (uint32_t i = 0; i < t->nreplies; i++)
	{
		const KvReply *r = &t->replies[i];

		before += r->counts && (r->stands_in || !r->newcomer);
		now += r->counts && (r->stands_in || place_of(kv, t, r->number) >= 0);
	}
	return now > before ? now : before;
}

/* ---- those that stand in ---------------------------------------------- */

static bool
asked_already(const KvTask *t, uint32_t number)
{
	for (uint32_t i = 0; i < t->nreplies; i++)
		if (t->replies[i].number == number)
			return true;
	return false;
}

/*
 * The next node on the slice's ring that can be reached and has nothing to do
 * with it; each slice has an order of its own.  NULL: none, or `gone` has one.
 */
static KvReply *
add_stand_in(AuKv *kv, KvTask *t, KvReply *gone)
{
	uint32_t	best = 0;
	uint64_t	best_hash = 0;
	KvReply    *r;

	if (gone->stands_in || gone->replaced || t->nreplies == 2 * AU_RF_MAX)
		return NULL;
	for (uint32_t i = 0; i < kv->npeers; i++)
	{
		uint32_t	number = kv->peers[i].number;
		uint64_t	hash = au_mix64((uint64_t) t->slice << 32 | number);

		if (kv->peers[i].up && !kv_owns(kv, t->slice, number) && !asked_already(t, number) && hash >= best_hash)
		{
			best = number;
			best_hash = hash;
		}
	}
	if (best == 0)
		return NULL;
	gone->replaced = true;
	r = add_reply(kv, t, best);
	/* what is sent now was read before: as if we knew no serial */
	if (t->type == KV_PUT && !t->fresh)
		r->serial = 0;
	r->stands_in = true;
	return r;
}

/* ---- GET -------------------------------------------------------------- */

/* What all that answered know together; false: too many siblings. */
static bool
merged(const KvTask *t, AuKvRecord *out)
{
	out->n = 0;
	out->past.n = 0;
	for (uint32_t i = 0; i < t->nreplies; i++)
	{
		const KvReply *r = &t->replies[i];
		AuKvRecord	one;

		if (r->record != NULL && r->len > 0 &&
			au_kv_record_decode(&one, t->key, t->klen, r->record, r->len) &&
			!au_kv_merge(out, out, &one))
			return false;
	}
	return true;
}

static void
answer_get(AuKv *kv, KvTask *t)
{
	AuMsgKvGetOk m = {.replicas = (uint8_t) counted(kv, t)};
	uint8_t		context[AU_KV_CONTEXT_MAX];
	AuKvRecord	all;
	size_t		cap;
	uint8_t    *memory;
	AuWriter	w;

	if (t->deadline > kv_now(kv) + KV_LINGER_US)
		t->deadline = kv_now(kv) + KV_LINGER_US;
	if (!merged(t, &all))
	{
		t->answered = true;
		kv_error(kv, t->client, t->client_id, AU_FULL, "Delete the key without a context and write it anew.",
				 "the replicas have more than %d values of this key", AU_KV_MERGED_MAX);
		return;
	}
	kv_answered(kv, t, AU_KV_GETS);
	m.context.bytes = context;
	m.context.len = (uint16_t) au_kv_context_encode(&all.past, t->key, t->klen, context);
	for (uint32_t i = 0; i < all.n; i++)
		if ((all.sibling[i].flags & AU_KV_TOMBSTONE) == 0)
		{
			m.value[m.n].bytes = all.sibling[i].value;
			m.value[m.n].len = all.sibling[i].length;
			m.n++;
		}
	kv->stats.conflicts += m.n > 1;
	cap = AU_WIRE_HEADER + AU_KV_CONTEXT_MAX + 64 + au_kv_record_size(&all);
	memory = t->client != NULL ? kv->host.buffer(kv->host.ctx, cap) : NULL;
	if (memory == NULL)
		return;
	au_writer_start(&w, memory, cap);
	if (!au_enc_kv_get_ok(&w, t->client_id, &m))
		assert(!"an answer fits its frame");
	kv->host.answer(kv->host.ctx, t->client, memory, w.len);
}

static void
repair_one(AuKv *kv, KvTask *t, KvReply *r, const uint8_t *bytes, uint32_t len)
{
	AuKvOp	   *op;

	kv->stats.repairs++;
	if (r->number != kv->number)
	{
		(void) kv_ask_store(kv, t, r->number, r->serial, bytes, len);
		return;
	}
	op = kv_op(kv, AU_KV_OP_MERGE, NULL, t->key, t->klen);
	if (op == NULL || !kv_op_in(kv, op, bytes, len))
		return;
	op->serial = r->serial;
	kv_submit(kv, op);
}

/* Give what all have together to those that have less. */
static void
repair(AuKv *kv, KvTask *t)
{
	AuKvRecord	all,
				one;
	uint8_t    *bytes;
	size_t		size;

	if (!merged(t, &all) || all.past.n == 0)
		return;
	size = au_kv_record_size(&all);
	bytes = kv->host.alloc(kv->host.ctx, size);
	if (bytes == NULL)
		return;
	(void) au_kv_record_encode(&all, t->key, t->klen, bytes, size);
	for (uint32_t i = 0; i < t->nreplies; i++)
	{
		KvReply    *r = &t->replies[i];

		/* one whose record is damaged asks all others by itself */
		if (r->state != KV_DONE || r->stands_in || r->corrupt)
			continue;
		if (r->len > 0 &&
			au_kv_record_decode(&one, t->key, t->klen, r->record, r->len) && au_kv_same(&one, &all))
			continue;
		repair_one(kv, t, r, bytes, (uint32_t) size);
	}
	kv->host.release(kv->host.ctx, bytes);
}

static void
send_get(AuKv *kv, KvTask *t, KvReply *r, uint64_t now)
{
	AuMsgKvAsk	m = {.slice = t->slice,.key = {t->klen, t->key}};
	AuKvOp	   *op;

	r->sent_at = now;
	r->state = KV_SENT;
	if (r->number == kv->number)
	{
		t->counted_before = kv_complete(kv, t->slice);
		if ((op = kv_op(kv, AU_KV_OP_READ, t, t->key, t->klen)) != NULL)
			kv_submit(kv, op);
		else
			r->state = KV_FAILED;
	}
	else if (!kv_ask(kv, r->number, AU_MSG_KV_READ, t->id, &m))
	{
		r->state = KV_FAILED;
		if ((t->flags & AU_KV_SLOPPY) != 0 && (r = add_stand_in(kv, t, r)) != NULL)
			send_get(kv, t, r, now);
	}
}

static void
ask_owners(AuKv *kv, KvTask *t)
{
	uint32_t	owner[AU_RF_MAX];
	uint32_t	owners = kv_owners(kv, t->slice, owner);
	uint64_t	id = t->id;

	t->next_try = kv_now(kv) + KV_RETRY_US;
	for (uint32_t i = 0; i < t->n && i < owners; i++)
		(void) add_reply(kv, t, owner[i]);
	for (uint32_t i = 0; kv_task(kv, id) == t && i < t->n && i < owners; i++)
		send_get(kv, t, &t->replies[i], kv_now(kv));
}

/*
 * One has values of the key, another nothing at all: it may never have got
 * them; or they were deleted, and the tombstone has gone since the first one
 * was read.  All owners had the tombstone before it went, so who is read from
 * now on tells which.
 */
static bool
torn(const KvTask *t)
{
	AuKvRecord	all;
	bool		none = false;
	bool		value = false;

	if (!merged(t, &all))
		return false;
	for (uint32_t i = 0; i < t->nreplies; i++)
		none = none || (t->replies[i].counts && t->replies[i].len == 0);
	for (uint32_t i = 0; i < all.n; i++)
		value = value || (all.sibling[i].flags & AU_KV_TOMBSTONE) == 0;
	return none && value;
}

/* From the beginning: answers to the first questions find no task any more. */
static void
get_again(AuKv *kv, KvTask *before)
{
	KvTask	   *t = kv_task_new(kv, KV_GET, before->key, before->klen, 2 * AU_RF_MAX);

	if (t == NULL)
		kv_error(kv, before->client, before->client_id, AU_NOMEM, NULL, "out of memory");
	else
	{
		t->client = before->client;
		t->client_id = before->client_id;
		t->asked = before->asked;
		t->flags = before->flags;
		t->n = before->n;
		t->need = before->need;
		t->deadline = before->deadline;
		t->began = before->began;
		t->again = true;
	}
	kv_task_end(kv, before);
	if (t != NULL)
		ask_owners(kv, t);
}

static void
take_get(AuKv *kv, KvTask *t, KvReply *r, AuStatus status, bool counts, const uint8_t *bytes, size_t len)
{
	bool		waiting = false;

	r->state = KV_DONE;
	r->corrupt = status == AU_CORRUPT;
	r->counts = (status == AU_OK || status == AU_NOT_FOUND) && (counts || r->stands_in);
	if (status == AU_OK && !kv_keep(kv, &r->record, &r->len, bytes, len))
		r->counts = false;
	if (!t->answered && counted(kv, t) >= t->need)
	{
		if (!t->again && torn(t))
		{
			get_again(kv, t);
			return;
		}
		answer_get(kv, t);
	}
	for (uint32_t i = 0; i < t->nreplies; i++)
		waiting = waiting || t->replies[i].state != KV_DONE;
	if (t->answered && !waiting)
	{
		repair(kv, t);
		kv_task_end(kv, t);
	}
}

static void
start_get(AuKv *kv, void *client, const AuFrame *f)
{
	AuMsgKvGet	m;
	KvTask	   *t;

	if (!au_dec_kv_get(f, &m))
	{
		kv_error(kv, client, f->id, AU_INVALID, NULL, "malformed KV_GET");
		return;
	}
	if ((t = new_request(kv, KV_GET, client, f, &m.key)) == NULL)
		return;
	kv->stats.gets++;
	t->flags = m.flags;
	if (set_numbers(kv, t, m.n, m.r, m.timeout_ms))
		ask_owners(kv, t);
	else
		kv_task_end(kv, t);
}

/* ---- PUT, coordinated here --------------------------------------------- */

static void
answer_put(AuKv *kv, KvTask *t, const AuKvRecord *r)
{
	AuMsgKvPutOk m = {.replicas = (uint8_t) counted(kv, t)};
	uint8_t		context[AU_KV_CONTEXT_MAX];
	size_t		cap = AU_WIRE_HEADER + AU_KV_CONTEXT_MAX + 64;
	uint8_t    *memory = t->client != NULL ? kv->host.buffer(kv->host.ctx, cap) : NULL;
	AuWriter	w;

	kv_answered(kv, t, AU_KV_PUTS);
	if (t->deadline > kv_now(kv) + KV_LINGER_US)
		t->deadline = kv_now(kv) + KV_LINGER_US;
	if (memory == NULL)
		return;
	for (uint32_t i = 0; i < r->n; i++)
		m.siblings += (r->sibling[i].flags & AU_KV_TOMBSTONE) == 0;
	m.context.bytes = context;
	m.context.len = (uint16_t) au_kv_context_encode(&r->past, t->key, t->klen, context);
	au_writer_start(&w, memory, cap);
	if (!au_enc_kv_put_ok(&w, t->client_id, &m))
		assert(!"an answer fits its frame");
	kv->host.answer(kv->host.ctx, t->client, memory, w.len);
}

/* Answer if W have it; the end, if all have. */
static void
look_put(AuKv *kv, KvTask *t)
{
	AuKvRecord	r;

	if (!t->answered && counted(kv, t) >= t->need &&
		au_kv_record_decode(&r, t->key, t->klen, t->record, t->len))
		answer_put(kv, t, &r);
	for (uint32_t i = 0; i < t->nreplies; i++)
		if (t->replies[i].state != KV_DONE)
			return;
	if (t->answered)
		kv_task_end(kv, t);
}

static void
send_put(AuKv *kv, KvTask *t, KvReply *r, uint64_t now)
{
	r->sent_at = now;
	r->state = kv_ask_store(kv, t, r->number, r->serial, t->record, t->len) ? KV_SENT : KV_FAILED;
	if (r->state == KV_FAILED && (r = add_stand_in(kv, t, r)) != NULL)
	{
		kv->stats.hints++;
		send_put(kv, t, r, now);
	}
}

static void
updated(AuKv *kv, KvTask *t, AuKvOp *op)
{
	uint32_t	owner[AU_RF_MAX];
	uint32_t	n = kv_owners(kv, t->slice, owner);
	KvReply    *self;

	if (op->status != AU_OK)
	{
		kv_error(kv, t->client, t->client_id, op->status, op->status == AU_FULL ?
				 "Read the key, and write with the context that came with it." : NULL,
				 op->status == AU_FULL ? "the key has %d values that were written without knowing of each other, or the disk is full" :
				 "could not write the key-value store", AU_KV_SIBLINGS_MAX);
		kv_task_end(kv, t);
		return;
	}
	t->counter = op->counter;
	if (!kv_keep(kv, &t->record, &t->len, op->out, op->out_len))
	{
		kv_error(kv, t->client, t->client_id, AU_NOMEM, NULL, "out of memory");
		kv_task_end(kv, t);
		return;
	}
	self = add_reply(kv, t, kv->number);
	self->state = KV_DONE;
	self->counts = kv_complete(kv, t->slice) && place_of(kv, t, kv->number) >= 0;
	for (uint32_t i = 0; i < n; i++)
		if (owner[i] != kv->number)
			(void) add_reply(kv, t, owner[i]);
	/* the view may have changed since */
	for (uint32_t i = 0; i < op->nowed; i++)
		if (!asked_already(t, op->owed[i]))
			kv_look_for_owed(kv, op->owed[i]);
	t->next_try = kv_now(kv) + KV_RETRY_US;
	n = t->nreplies;
	t->fresh = true;
	for (uint32_t i = 1; i < n; i++)
		send_put(kv, t, &t->replies[i], kv_now(kv));
	t->fresh = false;
	look_put(kv, t);
}

static void
coordinate(AuKv *kv, KvTask *t)
{
	AuKvOp	   *op = kv_op(kv, AU_KV_OP_UPDATE, t, t->key, t->klen);
	uint32_t	owner[AU_RF_MAX];
	uint32_t	n = kv_owners(kv, t->slice, owner);

	t->type = KV_PUT;
	t->nreplies = 0;
	if (op == NULL || !kv_op_in(kv, op, t->record, t->len))
	{
		kv_error(kv, t->client, t->client_id, AU_NOMEM, NULL, "out of memory");
		kv_task_end(kv, t);
		return;
	}
	op->past = t->past;
	op->flags = (t->flags & AU_KV_DELETE) != 0 ? AU_KV_TOMBSTONE : 0;
	for (uint32_t i = 0; i < n; i++)
		if (owner[i] != kv->number)
			op->owed[op->nowed++] = owner[i];
	kv_submit(kv, op);
}

static void
take_put(AuKv *kv, KvTask *t, KvReply *r, const AuMsgKvTold *m)
{
	AuKvOp	   *op;

	r->state = KV_FAILED;
	if (m->status == AU_FENCED)
	{
		/* what we have may be older than what it knows: read again */
		if ((op = kv_op(kv, AU_KV_OP_READ, t, t->key, t->klen)) == NULL)
			return;
		r->state = KV_SENT;
		op->serial = m->serial;
		op->purpose = KV_FOR_REREAD;
		op->arg = (uint64_t) (r - t->replies);
		kv_submit(kv, op);
		return;
	}
	if (m->status != AU_OK)
		return;
	r->state = KV_DONE;
	if (r->stands_in)
		r->counts = (t->flags & AU_KV_SLOPPY) != 0;
	else
	{
		r->counts = (m->flags & AU_KV_OWNER) != 0 && (m->flags & AU_KV_SYNCED) != 0 &&
			place_of(kv, t, r->number) >= 0;
		if ((op = kv_op(kv, AU_KV_OP_DISOWE, NULL, t->key, t->klen)) != NULL)
		{
			op->number = r->number;
			op->counter = t->counter;
			kv_submit(kv, op);
		}
	}
	look_put(kv, t);
}

/* ---- PUT, coordinated by another node ----------------------------------- */

static void
forward(AuKv *kv, KvTask *t, uint64_t now)
{
	AuMsgKvPut	m = {.n = t->n,.w = t->need,.flags = t->flags | AU_KV_FORWARDED,
		.key = {t->klen, t->key},.len = t->len,.value = t->record
	};
	uint8_t		context[AU_KV_CONTEXT_MAX];
	uint32_t	owner[AU_RF_MAX];
	uint32_t	n = kv_owners(kv, t->slice, owner);

	t->next_try = now + KV_RETRY_US;
	if (kv_complete(kv, t->slice) && place_of(kv, t, kv->number) >= 0)
	{
		coordinate(kv, t);
		return;
	}
	m.context.bytes = context;
	m.context.len = (uint16_t) au_kv_context_encode(&t->past, t->key, t->klen, context);
	m.timeout_ms = (uint32_t) ((t->deadline - now) / 1000 + 1);
	/* the next owner each time, beginning anywhere */
	for (uint32_t i = 0; i < n && i < t->n; i++)
	{
		uint32_t	number = owner[(t->phase++ + t->id) % (n < t->n ? n : t->n)];
		KvPeer	   *p = kv_peer(kv, number);
		size_t		cap = AU_KV_CLIENT_FRAME_MAX;
		uint8_t    *memory;
		AuWriter	w;

		if (p == NULL || !p->up || (memory = kv->host.buffer(kv->host.ctx, cap)) == NULL)
			continue;
		au_writer_start(&w, memory, cap);
		if (!au_enc_kv_put(&w, t->id, &m))
			assert(!"a request fits its frame");
		if (kv->host.send(kv->host.ctx, number, memory, w.len))
		{
			t->nreplies = 0;
			add_reply(kv, t, number)->state = KV_SENT;
			return;
		}
	}
}

static void
answer_forward(AuKv *kv, KvTask *t, const AuMsgKvPutOk *ok)
{
	size_t		cap = AU_WIRE_HEADER + 64 + AU_KV_CONTEXT_MAX;
	uint8_t    *memory = t->client != NULL ? kv->host.buffer(kv->host.ctx, cap) : NULL;
	AuWriter	w;

	kv_answered(kv, t, AU_KV_PUTS);
	if (memory == NULL)
		return;
	au_writer_start(&w, memory, cap);
	if (!au_enc_kv_put_ok(&w, t->client_id, ok))
		assert(!"an answer fits its frame");
	kv->host.answer(kv->host.ctx, t->client, memory, w.len);
}

static void
take_forward(AuKv *kv, KvTask *t, KvReply *r, const AuFrame *f)
{
	AuMsgKvPutOk ok;
	AuMsgError	e;

	if (f->type == AU_MSG_ERROR && au_dec_error(f, &e) && e.status == AU_MOVED)
	{
		r->state = KV_FAILED;
		t->next_try = kv_now(kv) + KV_SWEEP_US;
		return;
	}
	if (f->type == AU_MSG_ERROR && au_dec_error(f, &e))
		kv_error(kv, t->client, t->client_id, (AuStatus) e.status, e.hint, "%s", e.message);
	else if (!au_dec_kv_put_ok(f, &ok))
		kv_error(kv, t->client, t->client_id, AU_INVALID, NULL, "node %u sent a malformed answer", r->number);
	else
		answer_forward(kv, t, &ok);
	kv_task_end(kv, t);
}

static void
start_put(AuKv *kv, void *client, uint8_t role, const AuFrame *f)
{
	AuMsgKvPut	m;
	AuKvVector	past;
	KvTask	   *t;

	if (!au_dec_kv_put(f, &m))
	{
		kv_error(kv, client, f->id, AU_INVALID, NULL, "malformed KV_PUT");
		return;
	}
	if (role != AU_ROLE_NODE)
		m.flags &= AU_KV_DELETE | AU_KV_SLOPPY;
	if (is_reserved(&m.key) && (m.flags & AU_KV_INTERNAL) == 0)
	{
		kv_error(kv, client, f->id, AU_INVALID, "Use keys that begin otherwise.",
				 "keys below \"" AU_KV_RESERVED "\" are the cluster's own");
		return;
	}
	if (!au_kv_context_decode(&past, m.key.bytes, m.key.len, m.context.bytes, m.context.len))
	{
		kv_error(kv, client, f->id, AU_INVALID, "Use the context that came with this key's values.",
				 "the context is damaged or of another key");
		return;
	}
	if ((t = new_request(kv, KV_FORWARD, client, f, &m.key)) == NULL)
		return;
	kv->stats.puts += (m.flags & AU_KV_FORWARDED) == 0;
	t->flags = m.flags;
	t->past = past;
	if (!set_numbers(kv, t, m.n, m.w, m.timeout_ms))
		kv_task_end(kv, t);
	else if (!kv_keep(kv, &t->record, &t->len, m.value, m.len))
	{
		kv_error(kv, client, f->id, AU_NOMEM, NULL, "out of memory");
		kv_task_end(kv, t);
	}
	else if ((m.flags & AU_KV_FORWARDED) != 0 &&
			 !(kv_complete(kv, t->slice) && place_of(kv, t, kv->number) >= 0))
	{
		kv_error(kv, client, f->id, AU_MOVED, NULL, "this node does not own the key's slice, or has not all of it yet");
		kv_task_end(kv, t);
	}
	else
		forward(kv, t, kv_now(kv));
}

void
kv_request(AuKv *kv, void *client, uint8_t role, const AuFrame *f)
{
	if (kv_refuse(kv, client, f->id))
		return;
	if (f->type == AU_MSG_KV_GET)
		start_get(kv, client, f);
	else
		start_put(kv, client, role, f);
}

/* ---- what comes back, or does not --------------------------------------- */

void
kv_request_told(AuKv *kv, KvTask *t, KvReply *r, const AuFrame *f)
{
	AuMsgKvTold m;

	if (t->type == KV_FORWARD)
	{
		if (f->type == AU_MSG_ERROR || f->type == AU_MSG_KV_PUT_OK)
			take_forward(kv, t, r, f);
		return;
	}
	if (f->type != (t->type == KV_GET ? AU_MSG_KV_READ_OK : AU_MSG_KV_STORE_OK) || !au_dec_kv_told(f, &m))
		return;
	if (t->type == KV_PUT)
		take_put(kv, t, r, &m);
	else
		take_get(kv, t, r, (AuStatus) m.status,
				 (m.flags & AU_KV_OWNER) != 0 && (m.flags & AU_KV_SYNCED) != 0 &&
				 place_of(kv, t, r->number) >= 0, m.bytes, m.len);
}

void
kv_request_done(AuKv *kv, KvTask *t, AuKvOp *op)
{
	KvReply    *r;

	if (op->purpose == KV_FOR_REREAD)
	{
		r = &t->replies[op->arg];
		if (op->status == AU_NOT_FOUND)
		{
			/* deleted and collected: there is nothing to send */
			r->state = KV_DONE;
			kv_look_for_owed(kv, r->number);
		}
		else if (op->status != AU_OK || !kv_keep(kv, &t->record, &t->len, op->out, op->out_len))
			r->state = KV_FAILED;
		else
		{
			/* only now: the record was read after the serial was known */
			r->serial = op->serial;
			send_put(kv, t, r, kv_now(kv));
		}
	}
	else if (t->type == KV_PUT)
		updated(kv, t, op);
	else if ((r = own_reply(kv, t)) != NULL)
		take_get(kv, t, r, op->status, t->counted_before && kv_complete(kv, t->slice) &&
				 place_of(kv, t, kv->number) >= 0, op->out, op->out_len);
}

void
kv_request_lost(AuKv *kv, KvTask *t, KvReply *r)
{
	kv_error(kv, t->client, t->client_id, AU_IO, "Read the key to see what became of it.",
			 "the connection to node %u broke; the write may or may not have happened", r->number);
	kv_task_end(kv, t);
}

/* The time is up. */
static void
expire(AuKv *kv, KvTask *t)
{
	if (!t->answered && t->type == KV_FORWARD && (t->nreplies == 0 || t->replies[0].state != KV_SENT))
		kv_error(kv, t->client, t->client_id, AU_REFUSED, "Check the nodes with auroractl status.",
				 "no owner of the key's slice could be reached; nothing was written");
	else if (!t->answered && t->type == KV_GET)
		kv_error(kv, t->client, t->client_id, AU_REFUSED, "Check the nodes with auroractl status, or ask for fewer replicas.",
				 "only %u of %u replicas answered in time", counted(kv, t), t->need);
	else if (!t->answered)
		kv_error(kv, t->client, t->client_id, AU_IO, "Read the key to see what became of it.",
				 "only %u of %u replicas have the write; it may or may not stay",
				 t->type == KV_PUT ? counted(kv, t) : 0, t->need);
	if (t->type == KV_GET && t->answered)
		repair(kv, t);
	for (uint32_t i = 0; i < t->nreplies && t->type == KV_PUT; i++)
		if (t->replies[i].state != KV_DONE)
			kv_look_for_owed(kv, t->replies[i].number);
	kv_task_end(kv, t);
}

/* The view is another one than when the request began. */
static void
ask_new_owners(AuKv *kv, KvTask *t, uint64_t now)
{
	uint32_t	owner[AU_RF_MAX];
	uint32_t	owners = kv_owners(kv, t->slice, owner);
	uint64_t	id = t->id;
	KvReply    *r;

	if (t->type == KV_GET && t->n < owners)
		owners = t->n;
	for (uint32_t i = 0; i < owners && kv_task(kv, id) == t && !t->answered; i++)
	{
		if (asked_already(t, owner[i]) || t->nreplies == 2 * AU_RF_MAX)
			continue;
		r = add_reply(kv, t, owner[i]);
		r->newcomer = true;
		if (t->type == KV_GET)
			send_get(kv, t, r, now);
		else
		{
			r->serial = 0;		/* the record was read before */
			send_put(kv, t, r, now);
		}
	}
}

void
kv_request_step(AuKv *kv, KvTask *t, uint64_t now)
{
	uint64_t	id = t->id;
	uint32_t	n = t->nreplies;

	if (now >= t->deadline)
	{
		/* the store's answer is worth waiting for: it tells what is there */
		if (t->type != KV_PUT || t->ops == 0)
			expire(kv, t);
		return;
	}
	if (now < t->next_try)
		return;
	t->next_try = now + KV_RETRY_US;
	if (t->type == KV_FORWARD)
	{
		if (n == 0 || t->replies[0].state == KV_FAILED)
			forward(kv, t, now);
		return;
	}
	for (uint32_t i = 0; i < n && kv_task(kv, id) == t; i++)
	{
		KvReply    *r = &t->replies[i];
		bool		again = r->state == KV_FAILED || (r->state == KV_SENT && now - r->sent_at > KV_LOST_US) ||
			(r->state == KV_DONE && !r->counts && !t->answered && !r->stands_in);

		if (!again || (r->number == kv->number && t->type == KV_PUT))
			continue;
		if (t->type == KV_GET)
			send_get(kv, t, r, now);
		else
			send_put(kv, t, r, now);
	}
	if (kv_task(kv, id) == t && (t->type == KV_GET || n > 0))
		ask_new_owners(kv, t, now);
}
