/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_slices.c: a node's page store keeps some slices only: the host's part of
 * slices that come and go, and of a volume that begins with another node's
 * position.  What moves when, and from whom, is the node's (core/au_node_move,
 * _join, _mend, _grant).
 *
 * The state of the store is store/au_export.h's, and so is what a crash leaves
 * of it: state, positions and changes are written together; what was written
 * but not persisted is gone, deletions as well as chunks.
 *
 * Invariants:
 *  1. The store has versions of kept and incoming slices only, and in log
 *     order; what was deleted since the last persisted write is set aside, and
 *     is back after a crash.
 *  2. A chunk is taken only where the one before it ended, and at the position
 *     that is asked for.
 */
#include "sim/sim.h"

#include <assert.h>
#include <stdlib.h>

static const AuRelId relation = {1663, 5, SIM_REL, 0};

uint32_t
sim_slice_of(uint32_t place)
{
	return au_slice_of(&relation, place * AU_EXTENT_BLOCKS);
}

static bool
common(const AuSliceSet *a, const AuSliceSet *b)
{
	AuSliceSet	both = au_slices_and(a, b);

	return au_slices_any(&both);
}

/* The pages of these slices. */
static void
places_of(const AuSliceSet *set, bool places[SIM_BLOCKS])
{
	for (uint32_t i = 0; i < SIM_BLOCKS; i++)
		places[i] = au_slices_has(set, sim_slice_of(i));
}

bool
sim_slices_kept(const SimNode *n, uint32_t place)
{
	return !n->slices.now.told || au_slices_has(&n->slices.now.kept, sim_slice_of(place));
}

bool
sim_slices_lasting(const SimNode *n, uint32_t place)
{
	return !n->slices.lasting.told || au_slices_has(&n->slices.lasting.kept, sim_slice_of(place));
}

bool
sim_slices_takes(const SimNode *n, uint32_t place, AuLsn end)
{
	return sim_slices_kept(n, place) ||
		(au_slices_has(&n->slices.now.incoming, sim_slice_of(place)) && end > n->slices.now.since);
}

/* ---- state ------------------------------------------------------------ */

void
sim_slices_begin(SimNode *n, bool all)
{
	sim_store_free(&n->slices.gone);
	n->slices = (SimSlices)
	{
		.now.told = !all,.lasting.told = !all
	};
}

static void
store_slices(void *ctx, void *vol, AuSlicesState *out)
{
	const SimSlices *s = &((SimNode *) vol)->slices;

	(void) ctx;
	memset(out, 0, sizeof(*out));
	out->kept = s->now.kept;
	out->lasting = s->lasting.kept;
	if (!s->now.told)
		memset(&out->kept, 0xFF, sizeof(out->kept));
	if (!s->lasting.told)
		memset(&out->lasting, 0xFF, sizeof(out->lasting));
	out->lasting = au_slices_and(&out->lasting, &out->kept);
	out->incoming = s->now.incoming;
	out->dropping = s->now.dropping;
	out->since = s->now.since;
	au_put_u64(out->place.key, s->now.place);
	out->done = s->now.done;
	out->partial = s->now.told;
	out->unwritten = s->changes > s->changes_written;
}

static bool
store_slices_keep(void *ctx, void *vol, const AuSliceSet *slices)
{
	SimNode    *n = vol;
	SimSlices  *s = &n->slices;

	(void) ctx;
	if (!s->now.told || !au_slices_any(slices) || au_slices_any(&s->now.incoming) ||
		common(slices, &s->now.kept) || common(slices, &s->now.dropping))
		return false;
	s->now.incoming = *slices;
	s->now.since = n->applied;
	s->now.place = 0;
	s->now.done = false;
	s->keep_change = ++s->changes;
	sim_trace(n->sim, 0x6ee9, n->applied);
	return true;
}

static void
store_slices_drop(void *ctx, void *vol, const AuSliceSet *slices)
{
	SimSlices  *s = &((SimNode *) vol)->slices;
	AuSliceSet	gone = *slices;

	(void) ctx;
	if (!s->now.told)
	{
		s->now.told = true;
		memset(&s->now.kept, 0xFF, sizeof(s->now.kept));
	}
	if (common(slices, &s->now.incoming))
	{
		gone = au_slices_or(&gone, &s->now.incoming);
		memset(&s->now.incoming, 0, sizeof(s->now.incoming));
	}
	s->now.kept = au_slices_without(&s->now.kept, &gone);
	s->now.dropping = au_slices_or(&s->now.dropping, &gone);
	s->drop_change = ++s->changes;
}

void
sim_slices_rewind(SimNode *n, AuLsn lsn)
{
	AuSliceSet	incoming = n->slices.now.incoming;

	if (au_slices_any(&incoming) && n->slices.now.since > lsn)
		store_slices_drop(n, n, &incoming);
}

/* Delete what is dropped, when that was written and no digest looks at it. */
void
sim_slices_step(SimNode *n)
{
	SimSlices  *s = &n->slices;
	bool		places[SIM_BLOCKS];
	SimStore	gone;

	if (!au_slices_any(&s->now.dropping) || s->changes_written < s->drop_change)
		return;
	for (uint32_t i = 0; i < AU_SLICES; i++)
		if (s->digests[i] > 0 && au_slices_has(&s->now.dropping, i))
			return;
	places_of(&s->now.dropping, places);
	sim_store_split(&n->store, places, &gone);
	sim_store_merge(&s->gone, &gone);
	s->was_gone = au_slices_or(&s->was_gone, &s->now.dropping);
	memset(&s->now.dropping, 0, sizeof(s->now.dropping));
	s->changes++;
}

/* ---- writing, and what a crash leaves ---------------------------------- */

void
sim_slices_freeze(SimNode *n)
{
	n->slices.frozen = n->slices.now;
	n->slices.changes_frozen = n->slices.changes;
}

void
sim_slices_written(SimNode *n, bool persisted)
{
	SimSlices  *s = &n->slices;

	s->changes_written = s->changes_frozen;
	if (!persisted)
		return;
	s->lasting = s->frozen;
	sim_store_free(&s->gone);
	memset(&s->was_gone, 0, sizeof(s->was_gone));
}

/* Chunks of what was incoming then, behind the place that lasts. */
static void
cut_incoming(SimNode *n)
{
	const SimKept *k = &n->slices.now;
	SimStore	left = {0};

	memcpy(left.wrong, n->store.wrong, sizeof(left.wrong));
	memcpy(left.wrong_from, n->store.wrong_from, sizeof(left.wrong_from));
	for (size_t i = 0; i < n->store.n; i++)
	{
		const SimRecord *r = &n->store.records[i];

		if (!au_slices_has(&k->incoming, sim_slice_of(r->blk)) || r->end > k->since || r->end <= k->place)
			sim_store_take(&left, &n->store, i);
	}
	sim_store_free(&n->store);
	n->store = left;
}

/* Before the store is cut at its persisted position. */
void
sim_slices_crash(SimNode *n)
{
	SimSlices  *s = &n->slices;
	SimStore	lost;
	AuSliceSet	has;
	bool		places[SIM_BLOCKS];

	if (!n->sim->views.on)
		return;
	free(s->chunk);
	places_of(&s->was_gone, places);
	sim_store_split(&n->store, places, &lost);
	sim_store_free(&lost);
	sim_store_merge(&n->store, &s->gone);
	*s = (SimSlices)
	{
		.now = s->lasting,.frozen = s->lasting,.lasting = s->lasting
	};
	if (!s->now.told)
		return;
	has = au_slices_or(&s->now.kept, &s->now.incoming);
	places_of(&has, places);
	for (uint32_t i = 0; i < SIM_BLOCKS; i++)
		places[i] = !places[i];
	sim_store_split(&n->store, places, &lost);
	sim_store_free(&lost);
	cut_incoming(n);
}

/* ---- chunks that come ---------------------------------------------------- */

static void
store_import_start(void *ctx, void *vol, const uint8_t *bytes, size_t len)
{
	SimNode    *n = vol;
	SimSlices  *s = &n->slices;

	(void) ctx;
	assert(!n->writing && s->chunk == NULL);
	s->chunk = malloc(len);
	if (s->chunk == NULL)
		abort();
	memcpy(s->chunk, bytes, len);
	s->chunk_len = len;
	s->chunk_due = n->sim->now + 1 + sim_below(n->sim, 20000);
}

void
sim_slices_tick(SimNode *n)
{
	SimSlices  *s = &n->slices;
	SimStore	more = {0};
	uint8_t    *chunk = s->chunk;
	size_t		len = s->chunk_len;
	AuLsn		next;
	bool		fits;

	if (chunk == NULL || n->sim->now < s->chunk_due)
		return;
	s->chunk = NULL;
	next = sim_repair_take(&more, chunk, len);
	fits = au_slices_any(&s->now.incoming) && s->changes_written >= s->keep_change && !s->now.done &&
		au_get_u64(chunk + 8) == s->now.since && au_get_u64(chunk + 16) == s->now.place;
	for (size_t i = 0; i < more.n && fits; i++)
		fits = au_slices_has(&s->now.incoming, sim_slice_of(more.records[i].blk));
	free(chunk);
	if (fits)
	{
		sim_store_merge(&n->store, &more);
		s->now.place = next;
		s->now.done = next == 0;
		n->sim->figures.chunks++;
		sim_trace(n->sim, 0xc4a4, next);
	}
	sim_store_free(&more);
	au_node_imported(n->node, n, fits ? AU_OK : AU_INVALID, "it is not the chunk that is expected");
}

static void
store_import_finish(void *ctx, void *vol)
{
	SimNode    *n = vol;
	SimSlices  *s = &n->slices;

	(void) ctx;
	n->sim->figures.moved += au_slices_count(&s->now.incoming);
	s->now.kept = au_slices_or(&s->now.kept, &s->now.incoming);
	memset(&s->now.incoming, 0, sizeof(s->now.incoming));
	s->changes++;
}

/* ---- a volume that begins with another node's position ------------------- */

static AuStatus
found_begin(void *ctx, const AuVolumeMeta *meta, const AuStorePosition *position, void **vol,
			char *err, size_t errlen)
{
	SimNode    *n = ctx;

	(void) err;
	(void) errlen;
	assert(!n->exists);
	n->found_meta = *meta;
	n->fresh_applied = position->applied;
	n->fresh_restart = position->restart;
	*vol = n;
	return AU_OK;
}

/* Sizes are not simulated. */
static AuStatus
found_take(void *ctx, void *vol, const uint8_t *bytes, size_t len, AuPlace *place, bool *done,
		   char *err, size_t errlen)
{
	(void) ctx;
	(void) vol;
	(void) bytes;
	(void) len;
	(void) place;
	(void) err;
	(void) errlen;
	*done = true;
	return AU_OK;
}

static AuStatus
found_end(void *ctx, void *vol, char *err, size_t errlen)
{
	SimNode    *n = vol;
	AuVolumeMeta log = n->found_meta;
	void	   *same;
	AuStatus	status;

	log.start_lsn = n->fresh_restart;
	status = n->host.volume_create(ctx, &log, &same, err, errlen);
	if (status != AU_OK)
		return status;
	n->meta = n->meta_before = n->found_meta;
	sim_slices_begin(n, false);
	n->applied = n->persisted_applied = n->written = n->fresh_applied;
	n->restart = n->persisted_restart = n->written_restart = n->fresh_restart;
	n->sim->figures.founded++;
	return AU_OK;
}

static void
found_abandon(void *ctx, void *vol)
{
	(void) ctx;
	(void) vol;
}

void
sim_slices_init(SimNode *n)
{
	AuNodeHost *h = &n->host;

	h->store_slices = store_slices;
	h->store_slices_keep = store_slices_keep;
	h->store_slices_drop = store_slices_drop;
	h->store_import_start = store_import_start;
	h->store_import_finish = store_import_finish;
	h->found_begin = found_begin;
	h->found_take = found_take;
	h->found_end = found_end;
	h->found_abandon = found_abandon;
}
