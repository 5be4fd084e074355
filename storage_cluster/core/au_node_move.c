/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_node_move.c: the slices that the view wants on this node come, those that
 * it does not want any more go; of each volume by itself.
 *
 *    wanted, not here                 all of them in, in files
 *   ────────────────▶ incoming ───────────────────────────────▶ kept ─▶ slices_ready
 *      P = applied       │ EXPORT ─▶ owner ─▶ EXPORT_DATA ─▶ written ─┐
 *                        └────────────────────────────────────────────┘
 *    kept, not wanted for AU_NODE_DROP_GRACE_US ─▶ dropping ─▶ gone
 *
 * Slices with the same owners come together, in the order of keys.  Any of the
 * owners can give the next chunk: one that fails, or does not answer, is
 * followed by the next.
 *
 * All chunks are as of P, so the owner that gives them holds P, as long as the
 * connection lasts and its --hold-limit-mb allows.  How many slices come
 * together is found out: half as many when P was gone before all were in, or
 * when that was near; twice as many when it took little of the limit.
 *
 * Invariants:
 *  1. What this node keeps is what its store says, not what the view says: a
 *     slice that is owned here but not kept (a disk was lost) comes again.
 *  2. No slice is dropped that the view wants here.
 *  3. slices_ready names slices that a crash does not take away any more.
 *     Nor of a volume whose log this node follows and has not caught up with:
 *     who has the log may keep no more of it.
 *  4. One chunk at a time: asked for, in memory, or being written.
 *  5. A store that writes one generation after the other, as log comes, does
 *     not keep slices from coming or going: a turn of theirs is between two.
 */
#include "core/au_node_int.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include "common/au_wire_export.h"
#include "core/au_plant.h"

#define TOGETHER_FIRST 8		/* slices that come at a time, at first */
#define TOGETHER_MAX 64
#define LOOK_AGAIN_US 20000
#define ANSWER_US ((uint64_t) 30 * 1000000)
#define READY_AGAIN_US ((uint64_t) 1000000)

enum
{
	ID_HELLO = 1,
	ID_HOLD,
	ID_CHUNK
};

uint32_t
au_o_number(const AuNode *n)
{
	const AuViewNode *self = n->view != NULL ? au_view_node_by_id(n->view, n->opt.node_id) : NULL;

	return self != NULL ? self->number : 0;
}

bool
au_o_follows(const AuVolume *v)
{
	const AuNode *n = v->node;
	const AuViewVolume *of = n->view != NULL ?
		au_view_volume(n->view, v->meta.system_identifier) : NULL;
	uint32_t	self = au_o_number(n);

	if (of == NULL || self == 0 || of->ngroup == 0)
		return false;
	for (uint32_t i = 0; i < of->ngroup; i++)
		if (of->group[i] == self)
			return false;
	return true;
}

void
au_o_refresh(AuVolume *v)
{
	const AuNodeHost *h = &v->node->host;
	AuSlicesState state;

	if (h->store_slices == NULL)
		return;
	h->store_slices(h->ctx, v->handle, &state);
	v->partial = state.partial;
	v->kept = state.kept;
}

bool
au_o_here(AuVolume *v, AuConn *c, uint64_t id, const AuRelId *rel, const uint32_t *blocks,
		  uint16_t nblocks)
{
	if (!v->partial)
		return true;
	for (uint16_t i = 0; i < nblocks; i++)
	{
		uint32_t	slice;

		if (i > 0 && blocks[i] / AU_EXTENT_BLOCKS == blocks[i - 1] / AU_EXTENT_BLOCKS)
			continue;
		slice = au_slice_of(rel, blocks[i]);
		if (au_slices_has(&v->kept, slice))
			continue;
		v->stats.moved_answers++;
		au_n_error(v->node, c, id, AU_MOVED, "Ask for the view, and then an owner of the slice.",
				   "slice %u is not on this node, as of epoch %" PRIu64 " of the cluster", slice,
				   v->node->view != NULL ? v->node->view->epoch : 0);
		return false;
	}
	return true;
}

static AuSliceSet
wanted(const AuNode *n)
{
	AuSliceSet	owned;
	AuSliceSet	incoming;

	au_view_owned(n->view, au_o_number(n), &owned, &incoming);
	return au_slices_or(&owned, &incoming);
}

/* ---- slices that come ------------------------------------------------- */

static bool
owns(const AuSlice *s, uint32_t number)
{
	for (uint32_t i = 0; i < s->nowners; i++)
		if (s->owner[i] == number)
			return true;
	return false;
}

static bool
owns_all(const AuView *view, const AuSliceSet *slices, uint32_t number)
{
	for (uint32_t s = 0; s < AU_SLICES; s++)
		if (au_slices_has(slices, s) && !owns(&view->slices[s], number))
			return false;
	return true;
}

static uint32_t
first_slice(const AuSliceSet *set)
{
	uint32_t	s = 0;

	while (s < AU_SLICES && !au_slices_has(set, s))
		s++;
	return s;
}

/* At most so many that have the same owners as the first: each of them has all. */
static AuSliceSet
together(const AuView *view, const AuSliceSet *missing, uint32_t most)
{
	uint32_t	first = first_slice(missing);
	const AuSlice *like = &view->slices[first];
	AuSliceSet	r = {{0}};
	uint32_t	n = 0;

	for (uint32_t s = first; s < AU_SLICES && n < most; s++)
	{
		const AuSlice *slice = &view->slices[s];
		bool		same = slice->nowners == like->nowners;

		for (uint32_t i = 0; same && i < like->nowners; i++)
			same = owns(slice, like->owner[i]);
		if (!au_slices_has(missing, s) || !same)
			continue;
		au_slices_add(&r, s);
		n++;
	}
	return r;
}

/* The next node that has all that is incoming; NULL: there is none.
 * *none: not even one that is down. */
static const AuViewNode *
next_owner(AuVolume *v, const AuSliceSet *incoming, bool *none)
{
	const AuView *view = v->node->view;
	const AuSlice *slice = &view->slices[first_slice(incoming)];
	uint32_t	self = au_o_number(v->node);

	*none = true;
	for (uint32_t i = 0; i < slice->nowners; i++)
	{
		uint32_t	number = slice->owner[++v->mover_turn % slice->nowners];
		const AuViewNode *node = au_view_node(view, number);

		if (number == self || node == NULL || !owns_all(view, incoming, number))
			continue;
		*none = false;
		if (node->up && (!au_gr_mends(v, number) || AU_PLANTED(AU_PLANT_GIVES_PART)))
			return node;
	}
	return NULL;
}

/* Fewer at a time next, or more. */
static void
fewer_together(AuVolume *v, uint32_t slices)
{
	v->mover_together = slices > 1 ? slices / 2 : 1;
}

/* They are in, and this much log came meanwhile; the owners allow about as much
 * as this node does. */
static void
all_in(AuVolume *v, uint32_t slices, uint64_t log)
{
	uint64_t	limit = v->node->opt.hold_limit_bytes;

	if (limit > 0 && log > limit / 2)
		fewer_together(v, slices);
	else if ((limit == 0 || log <= limit / 8) && slices >= v->mover_together)
		v->mover_together = slices < TOGETHER_MAX / 2 ? slices * 2 : TOGETHER_MAX;
}

/* What comes now is of no use any more; it is begun anew. */
static void
give_up(AuVolume *v, const AuSlicesState *state, const char *why)
{
	const AuNodeHost *h = &v->node->host;

	au_n_log(v->node, AU_LOG_WARNING, "volume %" PRIu64 ": %u slices that were coming are begun anew: %s",
			 v->meta.system_identifier, au_slices_count(&state->incoming), why);
	h->store_slices_drop(h->ctx, v->handle, &state->incoming);
	au_o_refresh(v);
}

static void
mover_closed(AuNode *n, AuConn *c)
{
	AuVolume   *v = c->outgoing_ctx;

	assert(v->mover == c);
	v->mover = NULL;
	if (v->mover_asked)
		v->mover_at = n->host.now_us(n->host.ctx) + AU_NODE_RETRY_US;
	v->mover_asked = v->mover_held = false;
}

static void
forget_chunk(AuVolume *v)
{
	if (v->chunk != NULL)
		v->node->host.release(v->node->host.ctx, v->chunk);
	v->chunk = NULL;
}

static void
import(AuVolume *v, const uint8_t *bytes, size_t len)
{
	v->importing = true;
	v->node->host.store_import_start(v->node->host.ctx, v->handle, bytes, len);
}

/* Behind the generation that is being written; without memory it comes again. */
static void
take_chunk(AuVolume *v, const AuFrame *f, uint64_t now)
{
	AuNode	   *n = v->node;
	const AuNodeHost *h = &n->host;

	/* It came late: the store is in trouble; or twice. */
	if (v->store_state == AU_STORE_STALLED || v->importing || v->chunk != NULL ||
		v->store_closed || v->draining)
		return;
	if (n->opt.move_bytes_per_s > 0)
		v->mover_at = now + (uint64_t) f->length * 1000000 / n->opt.move_bytes_per_s;
	if (v->store_state == AU_STORE_OK)
		import(v, f->payload, f->length);
	else if ((v->chunk = h->alloc(h->ctx, f->length)) != NULL)
	{
		memcpy(v->chunk, f->payload, f->length);
		v->chunk_len = f->length;
	}
}

static void
mover_answer(AuNode *n, AuConn *c, const AuFrame *f)
{
	AuVolume   *v = c->outgoing_ctx;
	uint64_t	now = n->host.now_us(n->host.ctx);
	AuSlicesState state;
	AuMsgHelloOk ok;
	AuMsgError	e;

	v->mover_asked = false;
	v->mover_at = now;
	if (f->type == AU_MSG_EXPORT_DATA)
	{
		take_chunk(v, f, now);
		return;
	}
	if (f->type == AU_MSG_HELLO_OK && au_dec_hello_ok(f, &ok) && ok.volume_known)
		return;
	if (f->type == AU_MSG_HOLD_OK)
	{
		v->mover_held = true;
		return;
	}
	v->mover_at = now + AU_NODE_RETRY_US;
	if (f->type == AU_MSG_ERROR && au_dec_error(f, &e))
	{
		au_n_log(n, AU_LOG_WARNING, "volume %" PRIu64 ": no slices from %s: %s",
				 v->meta.system_identifier, c->name, e.message);
		if (e.status == AU_GONE && !v->store_closed && !v->importing)
		{
			n->host.store_slices(n->host.ctx, v->handle, &state);
			if (au_slices_any(&state.incoming))
			{
				fewer_together(v, au_slices_count(&state.incoming));
				give_up(v, &state, "they took longer than old versions are kept");
			}
		}
	}
	au_n_close(n, c);
}

static void
connect_owner(AuVolume *v, const AuSlicesState *state, uint64_t now)
{
	static const AuOutgoing use = {mover_answer, mover_closed};
	const AuViewNode *node;
	bool		none;

	v->mover_at = now + AU_NODE_RETRY_US;
	node = next_owner(v, &state->incoming, &none);
	if (none)
		give_up(v, state, "their owners are others now");
	if (node == NULL)
		return;
	v->mover = au_n_connect(v->node, v->meta.system_identifier, v, node->node_id, node->address,
							&use, v);
	v->mover_asked = v->mover != NULL;	/* HELLO */
	v->mover_at = now + (v->mover != NULL ? ANSWER_US : AU_NODE_RETRY_US);
}

static void
ask_owner(AuVolume *v, const AuSlicesState *state, uint64_t now)
{
	AuNode	   *n = v->node;
	AuMsgExport m = {
		.what = AU_EXPORT_PAGES,.upto = state->since,
		.horizon = n->host.store_horizon(n->host.ctx, v->handle),.place = state->place,
		.slices = state->incoming,.budget = AU_NODE_EXPORT_BYTES
	};
	AuWriter	w;

	if (!v->mover_held)
	{
		if (!au_h_ask(n, v->mover, ID_HOLD, state->since))
			return;
		v->mover_asked = true;
		v->mover_at = now + ANSWER_US;
		return;
	}
	if (!au_n_reserve(n, v->mover, &w, AU_WIRE_HEADER + 128))
		return;
	v->mover_asked = true;
	v->mover_at = now + ANSWER_US;
	au_n_send(n, v->mover, &w, au_enc_export(&w, ID_CHUNK, &m));
}

static uint64_t
pump(AuVolume *v, const AuSlicesState *state, uint64_t now)
{
	if (v->mover != NULL && v->mover_asked)
	{
		if (now >= v->mover_at)
			au_n_close(v->node, v->mover);
	}
	else if (now >= v->mover_at)
	{
		if (v->mover == NULL)
			connect_owner(v, state, now);
		else if (!v->mover->closing)
			ask_owner(v, state, now);
	}
	return v->mover_at > now ? v->mover_at - now : LOOK_AGAIN_US;
}

void
au_node_imported(AuNode *n, void *handle, AuStatus status, const char *err)
{
	AuVolume   *v = au_n_volume_of(n, handle);

	if (v == NULL || n->dead)
		return;
	assert(v->importing);
	v->importing = false;
	if (status == AU_OK)
		return;
	if (status != AU_INVALID && status != AU_CORRUPT && status != AU_UNSUPPORTED)
	{
		au_v_stall(v, status, err);
		return;
	}
	au_n_log(n, AU_LOG_ERROR, "volume %" PRIu64 ": from %s: %s", v->meta.system_identifier,
			 v->mover != NULL ? v->mover->name : "a node that is gone", err);
	v->mover_at = n->host.now_us(n->host.ctx) + AU_NODE_RETRY_US;
	if (v->mover != NULL)
		au_n_close(n, v->mover);
}

/* ---- what is to be done ----------------------------------------------- */

/* Each of them was unwanted for as long as the grace, and less than twice as
 * long: what becomes unwanted meanwhile is for the next time. */
static uint64_t
drop_unwanted(AuVolume *v, const AuSlicesState *state, const AuSliceSet *want, uint64_t now)
{
	const AuNodeHost *h = &v->node->host;
	uint64_t	grace = v->node->opt.drop_grace_us > 0 ?
		v->node->opt.drop_grace_us : AU_NODE_DROP_GRACE_US;
	AuSliceSet	gone = au_slices_without(&state->kept, want);

	v->unwanted = au_slices_and(&v->unwanted, &gone);
	if (!au_slices_any(&v->unwanted))
	{
		v->unwanted = gone;
		v->unwanted_since = now;
	}
	if (!au_slices_any(&gone))
		return UINT64_MAX;
	if (now - v->unwanted_since < grace)
		return grace - (now - v->unwanted_since);
	au_n_log(v->node, AU_LOG_INFO, "volume %" PRIu64 ": drops %u slices, which other nodes have",
			 v->meta.system_identifier, au_slices_count(&v->unwanted));
	h->store_slices_drop(h->ctx, v->handle, &v->unwanted);
	(void) au_d_end_slices(v, &v->unwanted);	/* they would hold it up */
	memset(&v->unwanted, 0, sizeof(v->unwanted));
	au_o_refresh(v);
	return 0;
}

static uint64_t
bring_in(AuVolume *v, const AuSlicesState *state, const AuSliceSet *want, uint64_t now)
{
	const AuNodeHost *h = &v->node->host;
	AuSliceSet	missing = au_slices_without(want, &state->kept);
	AuSliceSet	now_in;
	bool		none;

	missing = au_slices_without(&missing, &state->dropping);
	if (au_slices_any(&state->incoming))
	{
		if (!state->done)
			return pump(v, state, now);
		h->store_import_finish(h->ctx, v->handle);
		all_in(v, au_slices_count(&state->incoming), v->applied - state->since);
		au_n_log(v->node, AU_LOG_INFO, "volume %" PRIu64 ": %u slices have come, while %" PRIu64 " MB of log did",
				 v->meta.system_identifier, au_slices_count(&state->incoming),
				 (v->applied - state->since) >> 20);
		au_o_refresh(v);
		return 0;
	}
	if (!au_slices_any(&missing))
	{
		if (v->mover != NULL)
			au_n_close(v->node, v->mover);
		return UINT64_MAX;
	}
	if (now < v->mover_at)
		return v->mover_at - now;	/* P is to be held at once */
	if (v->mover_together == 0)
		v->mover_together = TOGETHER_FIRST;
	now_in = together(v->node->view, &missing, v->mover_together);
	(void) next_owner(v, &now_in, &none);
	if (none || !h->store_slices_keep(h->ctx, v->handle, &now_in))
		return AU_NODE_RETRY_US;
	if (v->mover != NULL)
		au_n_close(v->node, v->mover);	/* it may have others */
	return 0;
}

uint64_t
au_o_run(AuVolume *v, uint64_t now)
{
	AuNode	   *n = v->node;
	const AuNodeHost *h = &n->host;
	AuSlicesState state;
	AuSliceSet	want;
	AuSliceSet	fresh;
	uint64_t	wait,
				w;

	if (n->view == NULL || h->store_slices == NULL || n->dead || n->stopping || v->failed ||
		v->store_state == AU_STORE_STALLED || v->store_closed || v->cut != 0 || v->importing ||
		au_o_number(n) == 0)
		return UINT64_MAX;
	if (v->chunk != NULL)
	{
		/* the end of what is being written comes here */
		if (v->store_state == AU_STORE_OK)
		{
			import(v, v->chunk, v->chunk_len);
			forget_chunk(v);
		}
		return UINT64_MAX;
	}
	h->store_slices(h->ctx, v->handle, &state);
	fresh = au_slices_without(&state.kept, &state.lasting);
	if (v->store_state == AU_STORE_WRITING)
		return au_slices_any(&state.incoming) && !state.done && !state.unwritten &&
			!au_slices_any(&fresh) ? pump(v, &state, now) : UINT64_MAX;
	if (state.unwritten || au_slices_any(&fresh))
	{
		/* what follows from a change waits until it is written */
		(void) au_v_write(v, au_slices_any(&fresh) && !au_slices_any(&state.incoming));
		return LOOK_AGAIN_US;
	}
	want = wanted(n);
	wait = drop_unwanted(v, &state, &want, now);
	if (wait == 0)
		return 0;
	w = bring_in(v, &state, &want, now);
	wait = w < wait ? w : wait;
	if (au_slices_any(&state.dropping) && LOOK_AGAIN_US < wait)
		wait = LOOK_AGAIN_US;
	return wait;
}

void
au_o_reopened(AuVolume *v)
{
	forget_chunk(v);
	if (v->mover != NULL)
		au_n_close(v->node, v->mover);
}

void
au_o_figures(const AuVolume *v, AuVolumeStats *out)
{
	const AuNodeHost *h = &v->node->host;
	AuSlicesState state;
	AuSliceSet	missing = {{0}};

	out->slices = AU_SLICES;
	if (h->store_slices == NULL || v->store_closed)
		return;
	h->store_slices(h->ctx, v->handle, &state);
	if (au_o_number(v->node) != 0)
	{
		missing = wanted(v->node);
		missing = au_slices_without(&missing, &state.kept);
		missing = au_slices_without(&missing, &state.incoming);
	}
	out->slices = au_slices_count(&state.kept);
	out->slices_incoming = au_slices_count(&state.incoming);
	out->slices_dropping = au_slices_count(&state.dropping);
	out->slices_missing = au_slices_count(&missing);
	out->moved_bytes = state.bytes;
}

/* The slices that the view waits for, as far as all volumes have them. */
uint64_t
au_o_ready(AuNode *n, uint64_t now)
{
	const AuNodeHost *h = &n->host;
	uint32_t	self = au_o_number(n);
	AuSliceSet	owned;
	AuSliceSet	ready;
	AuSlicesState state;

	if (self == 0 || h->slices_ready == NULL)
		return UINT64_MAX;
	if (now < n->ready_at)
		return n->ready_at - now;
	n->ready_at = now + READY_AGAIN_US;
	au_view_owned(n->view, self, &owned, &ready);
	for (uint32_t i = 0; i < n->view->nvolumes && au_slices_any(&ready); i++)
	{
		AuVolume   *v = au_n_volume(n, n->view->volumes[i].system_identifier);

		if (v == NULL && au_j_unknown(n, n->view->volumes[i].system_identifier))
			continue;
		if (v == NULL || v->store_closed ||
			(au_o_follows(v) && (v->caught_up == 0 || v->next_feed < v->caught_up)))
			return READY_AGAIN_US;
		h->store_slices(h->ctx, v->handle, &state);
		if (AU_PLANTED(AU_PLANT_READY_EARLY))
			state.lasting = au_slices_or(&state.lasting, &state.incoming);
		ready = au_slices_and(&ready, &state.lasting);
	}
	if (au_slices_any(&ready))
		h->slices_ready(h->ctx, &ready, n->view->epoch);
	return READY_AGAIN_US;
}
