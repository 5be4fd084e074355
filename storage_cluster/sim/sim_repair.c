/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_repair.c: page versions that go wrong on a node, and the host's part in
 * finding and mending them; who compares, who is right and what is copied from
 * whom is the node's (core/au_node_digest, _sync, _mend, _export, au_merkle).
 *
 * Three kinds of damage: a version is rotten, its checksum tells, and the store
 * refuses it; a block is wrong from a version on, with good checksums; or stale:
 * its changes from there on are lost.  Of the last two only comparing with
 * others tells.
 *
 * Invariants:
 *  1. One node is damaged, or makes its store anew, at a time: of each version
 *     all other copies are good, so nothing may be lost.
 *  2. A copy takes what is given, wrong versions as well; rotten ones are not
 *     given.
 *  3. A crash leaves the old store, or the new one; never part of it.  The log
 *     that goes with it likewise (the real files: tests/test_relog.c).
 */
#include "sim/sim.h"

#include <stdlib.h>

#include "cluster/au_merkle.h"
#include "common/au_page.h"
#include "common/au_wire_export.h"

#define CHUNK_MAX (192u << 10)
#define CHUNK_HEAD 24
#define SLICES_CHUNK_MAX (32u << 10)
#define REST_US 2000000			/* between two damages */

struct SimDigest
{
	uint32_t	slice;
	uint32_t	leaf;			/* AU_MERKLE_LEAVES: all of the slice */
	uint32_t	from;			/* block */
	uint32_t	at;				/* extents before this one are read */
	bool		finished;
	AuLsn		lsn;
	AuMerkle	tree;
	AuDigestPage pages[SIM_BLOCKS];
};

static const AuRelId relation = {1663, 5, SIM_REL, 0};

static SimNode *
node_of(void *vol)
{
	return vol;
}

/* ---- digests ----------------------------------------------------------- */

/* In a cluster an extent has one page, else one has all of them. */
static uint32_t
extents(const Sim *s)
{
	return s->views.on ? SIM_BLOCKS : 1;
}

/* The slice, or leaf, has this extent. */
static bool
has(const SimDigest *d, uint32_t number)
{
	uint32_t	blk = number * AU_EXTENT_BLOCKS;

	return d->slice == au_slice_of(&relation, blk) && blk >= d->from &&
		(d->leaf == AU_MERKLE_LEAVES || d->leaf == au_merkle_leaf(&relation, blk));
}

static void *
digest_begin(void *ctx, void *vol, uint32_t slice, uint32_t leaf, const AuPageId *from, AuLsn lsn)
{
	SimDigest  *d = malloc(sizeof(*d));

	(void) ctx;
	if (d == NULL)
		abort();
	node_of(vol)->digests++;
	node_of(vol)->slices.digests[slice]++;
	*d = (SimDigest) {.slice = slice,.leaf = leaf,.from = from->blk,.lsn = lsn};
	au_merkle_start(&d->tree);
	return d;
}

static bool
digest_next(void *ctx, void *vol, void *digest)
{
	SimNode    *n = vol;
	SimDigest  *d = digest;

	(void) ctx;
	while (d->at < extents(n->sim) && !has(d, d->at))
		d->at++;
	if (d->at == extents(n->sim))
		return false;
	d->at++;
	n->digest = d;
	n->digest_due = n->sim->now + 1 + sim_below(n->sim, 3000);
	return true;
}

static const AuMerkle *
digest_tree(void *ctx, void *vol, void *digest)
{
	SimDigest  *d = digest;

	(void) ctx;
	(void) vol;
	if (!d->finished)
		au_merkle_finish(&d->tree);
	d->finished = true;
	return &d->tree;
}

static void
digest_end(void *ctx, void *vol, void *digest)
{
	(void) ctx;
	node_of(vol)->digests--;
	node_of(vol)->slices.digests[((SimDigest *) digest)->slice]--;
	free(digest);
}

/* A page into a tree, and what a list says about it. */
static void
add_page(const Sim *s, const SimStore *st, uint32_t place, AuLsn lsn, AuMerkle *tree, AuDigestPage *p)
{
	uint8_t		page[AU_PAGE_SIZE];

	*p = (AuDigestPage) {.page = {relation, sim_block(s, place)}};
	p->status = sim_store_read(st, place, lsn, page);
	if (p->status != AU_OK)
		return;
	p->hash = au_merkle_hash(page);
	au_merkle_add(tree, &p->page, p->hash);
}

static void
digest_done(SimNode *n)
{
	SimDigest  *d = n->digest;
	uint32_t	first = d->at - 1;
	uint32_t	pages = SIM_BLOCKS / extents(n->sim);

	n->digest = NULL;
	for (uint32_t i = 0; i < pages; i++)
		add_page(n->sim, &n->store, first + i, d->lsn, &d->tree, &d->pages[i]);
	au_node_digested(n->node, n, AU_OK, d->pages, pages, "a version's checksum is wrong");
}

uint64_t
sim_repair_root(const SimNode *n, const SimStore *st, AuLsn lsn)
{
	static AuMerkle tree;
	AuDigestPage page;

	au_merkle_start(&tree);
	for (uint32_t i = 0; i < SIM_BLOCKS; i++)
		if (sim_slices_kept(n, i))
			add_page(n->sim, st, i, lsn, &tree, &page);
	au_merkle_finish(&tree);
	return au_merkle_root(&tree);
}

/* ---- for others ---------------------------------------------------------- */

static void
store_position(void *ctx, void *vol, AuStorePosition *out)
{
	const SimNode *n = vol;

	(void) ctx;
	memset(out, 0, sizeof(*out));
	out->applied = n->applied;
	out->restart = n->written_restart;
	out->horizon = out->gc_done = n->meta.start_lsn;
}

static AuLsn
store_written(void *ctx, void *vol)
{
	(void) ctx;
	return node_of(vol)->written;
}

static void
store_export(void *ctx, void *vol, AuExportJob *job)
{
	SimNode    *n = vol;

	(void) ctx;
	for (int i = 0; i < AU_NODE_EXPORTS_MAX; i++)
		if (n->exports[i] == NULL)
		{
			n->exports[i] = job;
			n->export_due[i] = n->sim->now + 1 + sim_below(n->sim, 20000);
			return;
		}
	abort();
}

/* All that is asked for is here. */
static bool
gives(const SimNode *n, const AuExportJob *job)
{
	AuSliceSet	missing = au_slices_without(&job->slices, &n->slices.now.kept);

	return job->sizes || !n->slices.now.told || !au_slices_any(&missing) ||
		n->sim->opt.plant == SIM_PLANT_GIVES_PART;
}

/* u64 next place (0: that was all), u64 upto, u64 this place, then the records:
 * u64 end, u32 page, u32 length, u8 SimWrong, bytes.  Sizes are not simulated. */
static void
make_chunk(const SimNode *n, AuExportJob *job)
{
	size_t		begin = job->answer.len;
	AuLsn		from = au_get_u64(job->place.key);
	size_t		most = n->sim->views.on ? SLICES_CHUNK_MAX : CHUNK_MAX;

	job->status = gives(n, job) ? AU_OK : AU_MOVED;
	au_w_u64(&job->answer, 0);
	au_w_u64(&job->answer, job->upto);
	au_w_u64(&job->answer, from);
	if (job->status != AU_OK)
		snprintf(job->err, sizeof(job->err), "a slice is not on this node");
	if (job->sizes || job->status != AU_OK)
		return;
	for (size_t i = 0; i < n->store.n && n->store.records[i].end <= job->upto; i++)
	{
		const SimRecord *r = &n->store.records[i];

		if (r->end <= from || !au_slices_has(&job->slices, au_slice_of(&relation, sim_block(n->sim, r->blk))))
			continue;
		if (job->answer.len - begin > most && r->end > n->store.records[i - 1].end)
		{
			au_put_u64(job->answer.data + begin, n->store.records[i - 1].end);
			return;
		}
		if (r->rot)
		{
			job->status = AU_CORRUPT;
			snprintf(job->err, sizeof(job->err), "a version's checksum is wrong");
			return;
		}
		au_w_u64(&job->answer, r->end);
		au_w_u32(&job->answer, r->blk);
		au_w_u32(&job->answer, r->len);
		au_w_u8(&job->answer, r->end >= n->store.wrong_from[r->blk] ? n->store.wrong[r->blk] : SIM_SOUND);
		au_w_bytes(&job->answer, n->store.bytes + r->ops, r->len);
	}
}

/* ---- the new store -------------------------------------------------------- */

static void
mend_drop(void *ctx, void *vol)
{
	SimNode    *n = vol;

	(void) ctx;
	sim_store_free(&n->fresh);
	free(n->chunk);
	n->chunk = NULL;
	n->fresh_all = n->fresh_ready = false;
}

static AuStatus
mend_begin(void *ctx, void *vol, const AuStorePosition *position, bool all, char *err, size_t errlen)
{
	SimNode    *n = vol;

	(void) err;
	(void) errlen;
	if (all == n->sim->views.on)
		abort();
	mend_drop(ctx, vol);
	memset(&n->fresh_place, 0, sizeof(n->fresh_place));
	n->fresh_applied = position->applied;
	n->fresh_restart = position->restart;
	return AU_OK;
}

static bool
mend_want(void *ctx, void *vol, uint8_t *what, AuPlace *place, AuSliceSet *slices)
{
	SimNode    *n = vol;

	(void) ctx;
	*what = n->sim->views.on ? AU_EXPORT_SIZES : AU_EXPORT_PAGES;
	*place = n->fresh_place;
	memset(slices, 0xff, sizeof(*slices));
	return !n->fresh_all;
}

static void
mend_take(void *ctx, void *vol, const uint8_t *chunk, size_t len)
{
	SimNode    *n = vol;

	(void) ctx;
	n->chunk = malloc(len);
	if (n->chunk == NULL)
		abort();
	memcpy(n->chunk, chunk, len);
	n->chunk_len = len;
	n->chunk_due = n->sim->now + 1 + sim_below(n->sim, 20000);
}

AuLsn
sim_repair_take(SimStore *st, const uint8_t *chunk, size_t chunk_len)
{
	for (size_t at = CHUNK_HEAD; at < chunk_len;)
	{
		const uint8_t *p = chunk + at;
		AuLsn		end = au_get_u64(p);
		uint32_t	blk = au_get_u32(p + 8);
		uint32_t	len = au_get_u32(p + 12);

		sim_store_add(st, end, blk, p + 17, len);
		if (p[16] != SIM_SOUND && st->wrong[blk] == SIM_SOUND)
		{
			st->wrong[blk] = (SimWrong) p[16];
			st->wrong_from[blk] = end;
		}
		at += 17 + len;
	}
	return au_get_u64(chunk);
}

static void
chunk_done(SimNode *n)
{
	AuLsn		next = sim_repair_take(&n->fresh, n->chunk, n->chunk_len);

	free(n->chunk);
	n->chunk = NULL;
	n->fresh_all = next == 0;
	au_put_u64(n->fresh_place.key, next);
	au_node_mended(n->node, n, AU_OK, "");
}

static AuStatus
mend_end(void *ctx, void *vol, AuLsn log_start, char *err, size_t errlen)
{
	(void) ctx;
	(void) err;
	(void) errlen;
	node_of(vol)->fresh_ready = true;
	node_of(vol)->fresh_log = log_start;
	return AU_OK;
}

/* Nothing of the old store was kept aside. */
static void
mend_whole(void *ctx, void *vol)
{
	(void) ctx;
	(void) vol;
}

AuStatus
sim_repair_switch(SimNode *n)
{
	if (!n->fresh_ready)
		return AU_IO;
	if (n->fresh_log != 0 && !sim_disk_relog(n, n->fresh_log))
		return AU_FULL;
	sim_store_free(&n->store);
	n->store = n->fresh;
	memset(&n->fresh, 0, sizeof(n->fresh));
	n->fresh_all = n->fresh_ready = false;
	n->applied = n->persisted_applied = n->written = n->fresh_applied;
	n->restart = n->persisted_restart = n->written_restart = n->fresh_restart;
	sim_slices_begin(n, !n->sim->views.on);
	if (n->fresh_log != 0)
		n->sim->figures.remade++;
	else
		n->sim->figures.repairs++;
	n->fresh_log = 0;
	sim_trace(n->sim, 0x4e3a1, n->applied);
	return AU_OK;
}

/* ---- damage ---------------------------------------------------------------- */

/* The newest version of a block; SIZE_MAX: none. */
static size_t
newest(const SimStore *st, uint32_t blk)
{
	size_t		i = st->n;

	while (i > 0 && st->records[i - 1].blk != blk)
		i--;
	return i - 1;
}

static bool
rotten(const SimStore *st)
{
	for (size_t i = 0; i < st->n; i++)
		if (st->records[i].rot)
			return true;
	return false;
}

static bool
wrong(const SimStore *st)
{
	for (uint32_t blk = 0; blk < SIM_BLOCKS; blk++)
		if (st->wrong[blk] != SIM_SOUND)
			return true;
	return false;
}

static bool
hurt(const SimNode *n)
{
	AuVolumeStats stats;
	void	   *vol;

	return rotten(&n->store) || wrong(&n->store) ||
		(n->up && n->exists && au_node_volume_stats(n->node, 0, &stats, &vol) && stats.mend_why[0] != '\0');
}

bool
sim_repair_wrong(const Sim *s)
{
	for (uint32_t i = 0; i < s->nnodes; i++)
		if (wrong(&s->nodes[i].store))
			return true;
	return false;
}

bool
sim_repair_hurt(const Sim *s)
{
	for (uint32_t i = 0; i < s->nnodes; i++)
		if (hurt(&s->nodes[i]) || sim_view_mends(&s->nodes[i]))
			return true;
	return false;
}

/* Comparing tells who is right, and nobody copies before it has. */
static bool
may_be_wrong(const Sim *s)
{
	if (!s->views.on)
		return s->nnodes > 2;
	return s->views.rf > 2 && !s->behind && sim_view_at_rest(s);
}

/* One that it does not own any more is not compared, and not missed; and another
 * node must have it. */
static bool
owned(const SimNode *n, uint32_t place)
{
	const AuViewNode *v = au_view_node_by_id(&n->sim->views.head, sim_node_id(n));
	AuSliceSet	mine,
				incoming;

	if (!n->sim->views.on)
		return true;
	if (v == NULL || n->sim->views.head.slices[sim_slice_of(place)].nowners < 2)
		return false;
	au_view_owned(&n->sim->views.head, v->number, &mine, &incoming);
	return au_slices_has(&mine, sim_slice_of(place)) && sim_slices_lasting(n, place) &&
		sim_slices_kept(n, place);
}

bool
sim_repair_damage(SimNode *n)
{
	Sim		   *s = n->sim;
	uint64_t	kind = may_be_wrong(s) ? sim_below(s, 3) : SIM_SOUND;
	SimRecord  *r;
	size_t		at;

	if (sim_repair_hurt(s))
	{
		s->hurt_at = s->now;
		return false;
	}
	if (s->now < s->hurt_at + REST_US || n->store.n == 0)
		return false;
	at = kind == SIM_SOUND ? (size_t) sim_below(s, n->store.n) :
		newest(&n->store, (uint32_t) sim_below(s, SIM_BLOCKS));
	if (at == SIZE_MAX || !owned(n, n->store.records[at].blk))
		return false;
	r = &n->store.records[at];
	r->rot = kind == SIM_SOUND;
	n->store.wrong[r->blk] = (SimWrong) kind;
	n->store.wrong_from[r->blk] = kind == SIM_SOUND ? 0 : r->end;
	n->wrong_at = kind == SIM_SOUND ? n->wrong_at : s->now;
	s->figures.spoiled++;
	sim_trace(s, 0xda3a6e, at);
	sim_say(s, "node %d: block %u %s %X/%X", n->index, r->blk, kind == SIM_SOUND ? "is rotten at" :
			kind == SIM_WRONG ? "is wrong from" : "lost its changes from", AU_LSN_ARGS(r->end));
	return true;
}

const char *
sim_repair_missing(const SimNode *n)
{
	static char text[200];
	AuVolumeStats stats;
	void	   *vol;

	if (!n->sim->repair || !n->up || !au_node_volume_stats(n->node, 0, &stats, &vol) || !hurt(n))
		return NULL;
	snprintf(text, sizeof(text), "node %d is damaged: %s", n->index,
			 stats.mend_why[0] != '\0' ? stats.mend_why : "nobody has noticed");
	return text;
}

/* ---- a node's life ----------------------------------------------------------- */

void
sim_repair_init(SimNode *n)
{
	AuNodeHost *h = &n->host;

	h->digest_begin = digest_begin;
	h->digest_next = digest_next;
	h->digest_tree = digest_tree;
	h->digest_end = digest_end;
	h->store_position = store_position;
	h->store_written = store_written;
	h->store_export = store_export;
	h->mend_begin = mend_begin;
	h->mend_want = mend_want;
	h->mend_take = mend_take;
	h->mend_end = mend_end;
	h->mend_drop = mend_drop;
	h->mend_whole = mend_whole;
}

void
sim_repair_tick(SimNode *n)
{
	Sim		   *s = n->sim;

	if (n->digest != NULL && s->now >= n->digest_due)
		digest_done(n);
	for (int i = 0; i < AU_NODE_EXPORTS_MAX; i++)
		if (n->exports[i] != NULL && s->now >= n->export_due[i])
		{
			AuExportJob *job = n->exports[i];

			n->exports[i] = NULL;
			make_chunk(n, job);
			au_node_exported(n->node, job);
		}
	if (n->chunk != NULL && s->now >= n->chunk_due)
		chunk_done(n);
	if (s->figures.ticks % 100 != 0)
		return;
	if (wrong(&n->store))
		n->wrong_at = s->now;
	/* the scrubber comes across it, some time */
	if (rotten(&n->store) && sim_one_in(s, 20))
		au_node_damaged(n->node, n, "a version's checksum is wrong");
}

/* Before the node's memory goes: what was with the host ends. */
void
sim_repair_crash(SimNode *n)
{
	if (n->digest != NULL)
		digest_done(n);
	for (int i = 0; i < AU_NODE_EXPORTS_MAX; i++)
		if (n->exports[i] != NULL)
		{
			n->exports[i]->status = AU_IO;
			au_node_exported(n->node, n->exports[i]);
			n->exports[i] = NULL;
		}
	mend_drop(n, n);
}
