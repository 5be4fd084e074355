/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_kv_view.c: what a new view means for a node's slices of the key-value
 * interface, and what of it is kept.
 *
 *              view: owner               fetched from all who may have it
 *   not owned ─────────────▶ incomplete ──────────────────────────────────▶ complete
 *       ▲                        │                                             │
 *       └────────────────────────┴────────── view: owner no more ◀─────────────┘
 *
 * Who may have it: those that owned the slice when this node last did not, and
 * those that own it now; if that was never seen, every node.  Each must answer
 * in the epoch of our view or a later one: then it knows that we are an owner,
 * and writes that it coordinates from then on come to us.
 *
 * All of them, not most, since each request chooses its R and W: of a PUT with
 * W = 1 only the one that was not asked may have the record; who was not asked
 * may still answer a GET with R = 1 as the owner it was.  And the dots that this
 * node made for a key when it owned it before may be with that one only: it
 * would make a newer one that seems to replace them (invariant 3 of au_kv.h).
 * AU_PLANT_KV_MOST does it, and values are lost with R = W = 2 of 3, too.  One
 * that is gone for ever is waited for until it is removed from the view.
 *
 * That knowledge must not be lost in a crash: a view older than the kept epoch is
 * not taken, and nobody fetches from us before ours is kept.
 *
 * The kept state ('s' of the store): magic, version, cluster, number, epoch, for
 * each slice u8 complete, u8 owners before, AU_RF_MAX x u32, CRC.
 */
#include "cluster/au_kv_int.h"

#include "common/au_crc32c.h"

#define STATE_MAGIC 0x534b5541u /* "AUKS" in memory */
#define STATE_VERSION 1
#define STATE_HEAD 28
#define STATE_SLICE (2 + 4 * AU_RF_MAX)
#define STATE_LEN (STATE_HEAD + AU_SLICES * STATE_SLICE + 4)

bool
kv_load_state(AuKv *kv, const uint8_t *state, size_t len)
{
	const uint8_t *p = state + STATE_HEAD;

	if (len != STATE_LEN || au_get_u32(state) != STATE_MAGIC ||
		au_get_u32(state + 4) != STATE_VERSION ||
		au_get_u32(state + STATE_LEN - 4) != au_crc32c(0, state, STATE_LEN - 4))
		return false;
	kv->kept_cluster = au_get_u64(state + 8);
	kv->kept_number = au_get_u32(state + 16);
	kv->kept_epoch = au_get_u64(state + 20);
	for (uint32_t i = 0; i < AU_SLICES; i++, p += STATE_SLICE)
	{
		KvSlice    *s = &kv->slices[i];

		s->complete = p[0] == 1;
		s->owned = s->complete;
		s->nbefore = p[1] <= AU_RF_MAX ? p[1] : KV_UNKNOWN;
		for (int k = 0; k < AU_RF_MAX; k++)
			s->before[k] = au_get_u32(p + 2 + 4 * k);
	}
	return true;
}

void
kv_save_state(AuKv *kv)
{
	AuKvOp	   *op = kv_op(kv, AU_KV_OP_STATE, NULL, NULL, 0);
	uint8_t		state[STATE_LEN];
	uint8_t    *p = state + STATE_HEAD;

	if (op == NULL)
		return;					/* kv_view_tick tries again */
	memset(state, 0, sizeof(state));
	au_put_u32(state, STATE_MAGIC);
	au_put_u32(state + 4, STATE_VERSION);
	au_put_u64(state + 8, kv->kept_cluster);
	au_put_u32(state + 16, kv->kept_number);
	au_put_u64(state + 20, kv->view->epoch);
	for (uint32_t i = 0; i < AU_SLICES; i++, p += STATE_SLICE)
	{
		const KvSlice *s = &kv->slices[i];

		p[0] = s->owned && s->complete;
		p[1] = s->nbefore;
		for (int k = 0; k < AU_RF_MAX && k < s->nbefore; k++)
			au_put_u32(p + 2 + 4 * k, s->before[k]);
	}
	au_put_u32(state + STATE_LEN - 4, au_crc32c(0, state, STATE_LEN - 4));
	op->purpose = KV_FOR_STATE;
	op->arg = kv->view->epoch;
	if (!kv_op_in(kv, op, state, sizeof(state)))
		return;
	kv->saving = true;
	kv_submit(kv, op);
}

void
kv_state_saved(AuKv *kv, const AuKvOp *op)
{
	kv->saving = false;
	kv->again_at = kv_now(kv) + KV_AGAIN_US;
	if (op->status == AU_OK && op->arg > kv->kept_epoch)
		kv->kept_epoch = op->arg;
}

/* ---- records that go -------------------------------------------------- */

static void
wipe(AuKv *kv)
{
	AuKvOp	   *op = kv_op(kv, AU_KV_OP_WIPE, NULL, NULL, 0);

	kv->wipe_waits = op == NULL;
	if (op == NULL)
		return;
	op->purpose = KV_FOR_WIPE;
	kv_submit(kv, op);
}

/* It goes on until nothing is left; after a failure a while later. */
void
kv_wiped(AuKv *kv, const AuKvOp *op)
{
	kv->wiping = op->status != AU_OK || op->more;
	kv->again_at = kv_now(kv) + KV_AGAIN_US;
	if (!kv->wiping)
		kv_save_state(kv);
	else if (op->status == AU_OK)
		wipe(kv);
	else
		kv->wipe_waits = true;
}

/* ---- what is to be fetched -------------------------------------------- */

static bool
may_have(const KvSlice *s, const AuSlice *owners, uint32_t number)
{
	if (s->nbefore == KV_UNKNOWN)
		return true;
	for (uint32_t i = 0; i < s->nbefore; i++)
		if (s->before[i] == number)
			return true;
	for (uint32_t i = 0; i < owners->nowners; i++)
		if (owners->owner[i] == number)
			return true;
	return false;
}

static uint64_t
bit_of(const AuKv *kv, uint32_t number)
{
	for (uint32_t i = 0; i < kv->view->nnodes; i++)
		if (kv->view->nodes[i].number == number)
			return UINT64_C(1) << i;
	return 0;
}

/* true: it is complete now */
static bool
look_whether_complete(AuKv *kv, uint32_t slice)
{
	KvSlice    *s = &kv->slices[slice];
	uint32_t	have = 0;
	uint32_t	lacking = 0;

	if (!s->owned || s->complete)
		return false;
	for (uint32_t i = 0; i < kv->view->nnodes; i++)
	{
		uint32_t	number = kv->view->nodes[i].number;

		if (number == kv->number || !may_have(s, &kv->view->slices[slice], number))
			continue;
		if (s->fetched >> i & 1)
			have++;
		else
			lacking++;
	}
	s->complete = lacking == 0 || (AU_PLANTED(AU_PLANT_KV_MOST) && have > lacking);
	return s->complete;
}

bool
kv_wanted(const AuKv *kv, const KvPeer *p, AuSliceSet *out)
{
	uint64_t	bit = bit_of(kv, p->number);
	bool		any = false;

	memset(out, 0, sizeof(*out));
	for (uint32_t i = 0; i < AU_SLICES; i++)
	{
		const KvSlice *s = &kv->slices[i];

		if (s->owned && !s->complete && (s->fetched & bit) == 0 &&
			may_have(s, &kv->view->slices[i], p->number))
		{
			au_slices_add(out, i);
			any = true;
		}
	}
	return any;
}

void
kv_fetched(AuKv *kv, uint32_t number, const AuSliceSet *slices)
{
	uint64_t	bit = bit_of(kv, number);
	bool		changed = false;

	for (uint32_t i = 0; i < AU_SLICES; i++)
		if (au_slices_has(slices, i) && kv->slices[i].owned)
		{
			kv->slices[i].fetched |= bit;
			changed = look_whether_complete(kv, i) || changed;
		}
	if (changed)
		kv_save_state(kv);
}

/* ---- a new view ------------------------------------------------------- */

/* Bits of nodes move with their places in the list. */
static uint64_t
moved_bits(const AuView *from, const AuView *to, uint64_t bits)
{
	uint64_t	out = 0;

	for (uint32_t i = 0; from != NULL && i < from->nnodes; i++)
		for (uint32_t k = 0; (bits >> i & 1) != 0 && k < to->nnodes; k++)
			if (to->nodes[k].number == from->nodes[i].number)
				out |= UINT64_C(1) << k;
	return out;
}

static void
take_peers(AuKv *kv, const AuView *v)
{
	KvPeer		old[AU_VIEW_NODES_MAX];
	uint32_t	nold = kv->npeers;

	memcpy(old, kv->peers, nold * sizeof(old[0]));
	kv->npeers = 0;
	for (uint32_t i = 0; i < v->nnodes; i++)
	{
		KvPeer	   *p = &kv->peers[kv->npeers];

		if (v->nodes[i].number == kv->number)
			continue;
		kv->npeers++;
		memset(p, 0, sizeof(*p));
		p->number = v->nodes[i].number;
		p->owed = true;
		for (uint32_t k = 0; k < nold; k++)
			if (old[k].number == p->number)
				*p = old[k];
	}
}

static void
take_slice(AuKv *kv, const AuView *v, uint32_t i)
{
	KvSlice    *s = &kv->slices[i];
	const AuSlice *owners = &v->slices[i];
	bool		owned = false;

	for (uint32_t k = 0; k < owners->nowners; k++)
		owned = owned || owners->owner[k] == kv->number;
	/*
	 * The first view since the start, and the owners have changed since the
	 * one that was kept: we may have lost the slice and got it back, without
	 * a word of it on disk.
	 */
	if (kv->view == NULL && s->owned && owned && kv->kept_epoch != 0 && owners->since > kv->kept_epoch + 1)
	{
		s->complete = false;
		s->nbefore = KV_UNKNOWN;
	}
	s->fetched = owned && s->owned ? moved_bits(kv->view, v, s->fetched) : 0;
	s->owned = owned;
	if (owned)
		return;
	s->complete = false;
	if (owners->nowners > 0)
	{
		s->nbefore = owners->nowners;
		memcpy(s->before, owners->owner, owners->nowners * sizeof(s->before[0]));
	}
}

/*
 * The store's records are of another cluster, or of this one, which has taken
 * this node out since: what was deleted meanwhile is not known here, so they
 * go.  Those of a node that was alone are its own, and are offered.
 */
static void
look_whose(AuKv *kv, const AuView *v, uint32_t number)
{
	bool		alone = kv->kept_number == 0;

	if (kv->kept_number == number && kv->kept_cluster == v->cluster_id)
		return;
	kv->kept_number = number;
	kv->kept_cluster = v->cluster_id;
	kv->kept_epoch = 0;
	for (uint32_t i = 0; i < AU_SLICES; i++)
	{
		KvSlice    *s = &kv->slices[i];

		s->nbefore = KV_UNKNOWN;
		s->complete = false;
		s->fetched = 0;
		/* the first of all: nobody else has anything */
		s->owned = s->complete = alone && v->nnodes == 1;
	}
	if (alone)
		return;
	kv_log(kv, AU_LOG_WARNING, "key-value store: this node was taken out of the cluster and is back as node %u; records from before are given up", number);
	kv->wiping = true;
	wipe(kv);
}

/* Nodes that were taken out, of `before` or (NULL) ever, are owed nothing. */
static void
write_off(AuKv *kv, const AuView *v, const AuView *before)
{
	for (uint32_t number = 1; number < v->next_number; number++)
	{
		AuKvOp	   *op;

		if (number == kv->number || au_view_node(v, number) != NULL ||
			(before != NULL && au_view_node(before, number) == NULL && number < before->next_number))
			continue;
		if ((op = kv_op(kv, AU_KV_OP_DISOWE, NULL, NULL, 0)) == NULL)
		{
			kv->off_waits = true;
			continue;
		}
		op->number = number;
		kv_submit(kv, op);
	}
}

void
kv_view_tick(AuKv *kv, uint64_t now)
{
	if (now < kv->again_at)
		return;
	if (kv->wipe_waits)
		wipe(kv);
	else if (!kv->wiping && !kv->saving && kv->kept_epoch < kv->view->epoch)
		kv_save_state(kv);
	if (!kv->off_waits)
		return;
	kv->off_waits = false;
	kv->again_at = now + KV_AGAIN_US;
	write_off(kv, kv->view, NULL);
}

void
au_kv_set_view(AuKv *kv, const AuView *view, uint32_t number)
{
	AuView	   *copy;

	if (number == 0 || (kv->view != NULL && view->epoch <= kv->view->epoch) ||
		(kv->kept_cluster == view->cluster_id && view->epoch < kv->kept_epoch) ||
		(copy = kv->host.alloc(kv->host.ctx, sizeof(*copy))) == NULL)
		return;
	*copy = *view;
	look_whose(kv, copy, number);
	kv->number = number;
	take_peers(kv, copy);
	for (uint32_t i = 0; i < AU_SLICES; i++)
		take_slice(kv, copy, i);
	write_off(kv, copy, kv->view);
	if (kv->view != NULL)
		kv->host.release(kv->host.ctx, kv->view);
	kv->view = copy;
	kv->waiting = kv->removed = false;
	kv->tick_at = 0;
	for (uint32_t i = 0; i < AU_SLICES; i++)
		(void) look_whether_complete(kv, i);
	for (uint32_t i = 0; i < KV_SCANS; i++)
	{
		kv->cursor_slice[i] = 0;
		kv->cursor_klen[i] = 0;
	}
	if (!kv->wiping)
		kv_save_state(kv);
}

void
au_kv_leave(AuKv *kv, uint64_t cluster_id)
{
	if (kv->removed || kv->kept_number == 0 || kv->kept_cluster != cluster_id)
		return;
	kv_log(kv, AU_LOG_WARNING, "key-value store: this node was taken out of the cluster; requests are refused");
	kv->waiting = kv->removed = true;
}
