/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_node_sync.c: anti-entropy: slice by slice the pages of this node are
 * compared with another's, as of one LSN that both have applied.
 *
 *   RESTS ─time─▶ TREES ─roots differ─▶ DESCENDS ─leaves─▶ LISTS ◀──────┐
 *     ▲             │ same                                 │ │ differs   │
 *     └─── slice + 1┴──────────────────────────────────────┘ └▶ ASKS_THIRD
 *
 * Who is right?  A side whose version fails its checksums is wrong.  Else the
 * majority of three.  Two that differ, both sound: nobody is changed, and the
 * operator is told.  Only this node is ever mended: another that is wrong finds
 * out when it compares.
 *
 * Invariants:
 *  1. Both sides are read at the same LSN, at or below what each has applied
 *     and a quorum holds: so what differs is damage, never a race.
 *  2. One question at a time to each node, one slice of a volume at a time.
 *  3. Whatever fails only ends the comparison of this slice; it is tried again
 *     with another node.
 *  4. No slice keeps those behind it from being compared: one that fails with
 *     each node, or takes longer than PATIENCE_MAX allows, is passed over, which
 *     is counted and logged; it comes again in the next pass.  A slice that is
 *     too large for SLICE_US gets more time, as long as such ones are found:
 *     meanwhile its LSN is kept readable, so that is bounded.
 */
#include "core/au_node_int.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include "cluster/au_view.h"
#include "core/au_plant.h"

#define ANSWER_US ((uint64_t) 10 * 1000000)
#define LATER_US ((uint64_t) 50 * 1000)
#define SLICE_US ((uint64_t) 15 * 60 * 1000000)
#define PATIENCE_MAX 3			/* SLICE_US << this is the longest */
#define FIRST_US ((uint64_t) 1000000)

static AuSyncPeer *
peer_of(AuSync *s, const AuConn *c)
{
	for (uint32_t i = 0; i < s->npeers; i++)
		if (s->peers[i].conn == c)
			return &s->peers[i];
	return NULL;
}

/* ---- questions -------------------------------------------------------- */

static void
peer_answered(AuNode *n, AuConn *c, const AuFrame *f)
{
	AuVolume   *v = c->vol;
	AuSyncPeer *p = peer_of(&v->sync, c);
	uint64_t	now = n->host.now_us(n->host.ctx);
	AuMsgHelloOk hello;
	AuMsgError	e;

	assert(p != NULL);
	if (f->type == AU_MSG_HELLO_OK && au_dec_hello_ok(f, &hello))
	{
		p->ready = hello.volume_known && hello.node_id == p->member.node_id;
		p->failed = !p->ready;
	}
	else if (f->type == AU_MSG_DIGEST_OK && p->asked && au_dec_digest_ok(f, &p->answer) &&
			 p->answer.lsn == v->sync.lsn)
	{
		p->answered = p->answer.later == 0;
		p->ask_at = now + LATER_US;
	}
	else
	{
		p->failed = true;
		if (f->type == AU_MSG_ERROR && au_dec_error(f, &e))
			au_n_log(n, AU_LOG_DEBUG, "volume %" PRIu64 ": not compared with %s: %s",
					 v->meta.system_identifier, c->name, e.message);
	}
	p->asked = false;
	if (p->failed)
		au_n_close(n, c);
}

static void
peer_closed(AuNode *n, AuConn *c)
{
	AuSyncPeer *p = peer_of(&c->vol->sync, c);

	(void) n;
	if (p == NULL)
		return;
	p->conn = NULL;
	p->failed = true;
	p->ready = p->asked = false;
}

/*
 * Have it answered: true when it is (or when it never will be: p->failed).
 */
static bool
ask(AuVolume *v, AuSyncPeer *p, const AuMsgDigest *m, uint64_t now)
{
	static const AuOutgoing use = {peer_answered, peer_closed};
	AuWriter	w;

	if (p->failed || p->answered)
		return true;
	if (p->conn == NULL)
	{
		p->conn = au_n_connect(v->node, v->meta.system_identifier, v, p->member.node_id, p->member.address, &use, v);
		p->failed = p->conn == NULL;
		p->asked = true;
		p->ready = false;
		p->deadline = now + ANSWER_US;
		return p->failed;
	}
	if (p->asked && now >= p->deadline)
	{
		p->failed = true;
		au_n_close(v->node, p->conn);
		return true;
	}
	if (p->asked || !p->ready || p->conn->closing || now < p->ask_at)
		return false;
	if (au_n_reserve(v->node, p->conn, &w, AU_WIRE_HEADER + 64))
	{
		p->asked = true;
		p->deadline = now + ANSWER_US;
		au_n_send(v->node, p->conn, &w, au_enc_digest(&w, 2, m));
	}
	return false;
}

/* ---- slices ----------------------------------------------------------- */

uint32_t
au_s_others(const AuVolume *v, uint32_t slice, AuMember *out)
{
	const AuView *view = au_o_number(v->node) != 0 ? v->node->view : NULL;
	const AuGroup *g = &v->meta.group;
	uint32_t	n = 0;

	for (uint32_t i = 0; view == NULL && i < g->n; i++)
		if (g->members[i].node_id != v->node->opt.node_id && g->members[i].address[0] != '\0')
			out[n++] = g->members[i];
	for (uint32_t i = 0; view != NULL && i < view->nnodes && n < AU_GROUP_MAX; i++)
	{
		const AuViewNode *node = &view->nodes[i];
		bool		keeps = slice == AU_SLICES;

		for (uint32_t k = 0; !keeps && k < view->slices[slice].nowners; k++)
			keeps = view->slices[slice].owner[k] == node->number;
		if (!keeps || !node->up || node->node_id == v->node->opt.node_id ||
			node->address[0] == '\0' || au_gr_mends(v, node->number))
			continue;
		out[n].node_id = node->node_id;
		snprintf(out[n++].address, AU_ADDRESS_MAX, "%s", node->address);
	}
	return n;
}

static bool
same_peers(const AuSync *s, const AuMember *m, uint32_t n)
{
	for (uint32_t i = 0; i < n && n == s->npeers; i++)
		if (s->peers[i].member.node_id != m[i].node_id ||
			strcmp(s->peers[i].member.address, m[i].address) != 0)
			return false;
	return n == s->npeers;
}

/* The others that keep this slice.  Connections stay while it is the same
 * ones; false: to other nodes they must end first. */
static bool
find_peers(AuVolume *v)
{
	AuSync	   *s = &v->sync;
	AuMember	others[AU_GROUP_MAX];
	uint32_t	n = au_s_others(v, s->slice, others);
	bool		busy = false;

	if (same_peers(s, others, n))
		return true;
	for (uint32_t i = 0; i < s->npeers; i++)
		if (s->peers[i].conn != NULL)
		{
			busy = true;
			au_n_close(v->node, s->peers[i].conn);
		}
	if (busy)
		return false;
	memset(s->peers, 0, sizeof(s->peers));
	s->npeers = n;
	for (uint32_t i = 0; i < n; i++)
		s->peers[i].member = others[i];
	return true;
}

static void
rest(AuVolume *v, uint64_t at)
{
	AuSync	   *s = &v->sync;

	s->stage = AU_SYNC_RESTS;
	s->at = at;
	for (uint32_t i = 0; i < s->npeers; i++)
		if (s->peers[i].conn != NULL)
			au_n_close(v->node, s->peers[i].conn);
}

/* On to the next one; after the last one there is a rest. */
static void
go_on(AuVolume *v, uint64_t now)
{
	AuSync	   *s = &v->sync;

	s->stage = AU_SYNC_RESTS;
	s->at = now;
	s->tried = 0;
	if (++s->slice < AU_SLICES)
		return;
	s->slice = 0;
	if (s->skipped > 0)
		au_n_log(v->node, AU_LOG_WARNING,
				 "volume %" PRIu64 ": %u of %d slices could not be compared with other nodes this time",
				 v->meta.system_identifier, s->skipped, AU_SLICES);
	s->skipped = 0;
	v->stats.sync_passes++;
	rest(v, now + (v->node->opt.sync_rest_us != 0 ? v->node->opt.sync_rest_us : AU_NODE_SYNC_REST_US));
}

static void
begin_slice(AuVolume *v, uint64_t now)
{
	AuSync	   *s = &v->sync;

	/* While the store is made anew there is no use in comparing the old one. */
	if (v->failed || v->store_closed || v->applied == 0 || v->mend.stage != AU_MEND_WELL ||
		!find_peers(v))
	{
		s->at = now + AU_NODE_RETRY_US / 20;
		return;
	}
	if (s->npeers == 0 || (v->partial && !au_slices_has(&v->kept, s->slice)))
	{
		go_on(v, now);
		return;
	}
	s->peer = s->turn++ % s->npeers;
	s->third = (s->peer + 1) % s->npeers;
	s->lsn = v->applied;
	s->began = now;
	s->deadline = now + (SLICE_US << s->patience);
	s->stage = AU_SYNC_TREES;
	for (uint32_t i = 0; i < s->npeers; i++)
		s->peers[i].failed = s->peers[i].answered = false;
}

static void
slice_done(AuVolume *v, uint64_t now)
{
	AuSync	   *s = &v->sync;

	v->stats.sync_slices++;
	v->stats.sync_lsn = s->lsn;
	if (s->patience > 0 && now - s->began < SLICE_US << (s->patience - 1))
		s->patience--;
	go_on(v, now);
}

/* Again, with another node or with more time; or not in this pass. */
static void
slice_failed(AuVolume *v, uint64_t now)
{
	AuSync	   *s = &v->sync;
	bool		late = now >= s->deadline;

	rest(v, now + AU_NODE_RETRY_US);
	if (late && s->patience < PATIENCE_MAX)
	{
		s->patience++;
		return;
	}
	if (!late && ++s->tried <= s->npeers)
		return;
	v->stats.sync_skipped++;
	if (s->skipped++ == 0)
		au_n_log(v->node, AU_LOG_WARNING,
				 "volume %" PRIu64 ": slice %u could not be compared with other nodes (%s); the next ones are",
				 v->meta.system_identifier, s->slice,
				 late ? "it takes too long, see --anti-entropy-mb-per-s" : "each of them failed");
	go_on(v, now + AU_NODE_RETRY_US);
}

/* ---- pages that differ ------------------------------------------------- */

static int
compare_extents(const AuPageId *a, const AuPageId *b)
{
	const uint32_t x[] = {a->rel.spc, a->rel.db, a->rel.rel, a->rel.fork, a->blk};
	const uint32_t y[] = {b->rel.spc, b->rel.db, b->rel.rel, b->rel.fork, b->blk};

	for (int i = 0; i < 5; i++)
		if (x[i] != y[i])
			return x[i] < y[i] ? -1 : 1;
	return 0;
}

/* What a side said about block i of the extent. */
static AuStatus
said(const AuMsgDigestOk *m, const AuPageId *extent, uint16_t i, uint64_t *hash)
{
	*hash = 0;
	if (i >= m->n || compare_extents(&m->first, extent) != 0)
		return AU_NOT_FOUND;
	*hash = m->hash[i];
	return (AuStatus) m->status[i];
}

static bool
same(const AuMsgDigestOk *a, const AuMsgDigestOk *b, const AuPageId *extent, uint16_t i)
{
	uint64_t	x,
				y;

	return said(a, extent, i, &x) == said(b, extent, i, &y) && x == y;
}

/* The next extent that one of them has; false: neither. */
static bool
next_extent(const AuSync *s, const AuMsgDigestOk *theirs, AuPageId *extent)
{
	if (s->ours.n == 0 && theirs->n == 0)
		return false;
	if (theirs->n == 0 || (s->ours.n > 0 && compare_extents(&s->ours.first, &theirs->first) < 0))
		*extent = s->ours.first;
	else
		*extent = theirs->first;
	return true;
}

static void
report(AuVolume *v, const AuPageId *page, const AuSyncPeer *p, const char *verdict)
{
	au_n_log(v->node, AU_LOG_ERROR,
			 "volume %" PRIu64 ": block %u of relation %u/%u/%u at %X/%X is not the same here and on node %" PRIX64 ": %s",
			 v->meta.system_identifier, page->blk, page->rel.spc, page->rel.db, page->rel.rel,
			 AU_LSN_ARGS(v->sync.lsn), p->member.node_id, verdict);
}

static void
judge(AuVolume *v, const AuPageId *extent, uint16_t i, const AuSyncPeer *p, const AuSyncPeer *third)
{
	AuSync	   *s = &v->sync;
	AuPageId	page = {extent->rel, extent->blk + i};
	bool		three = third != NULL && third->answered;
	uint64_t	hash;

	v->stats.sync_differences++;
	if (said(&p->answer, extent, i, &hash) == AU_CORRUPT)
		report(v, &page, p, "the other one is damaged");
	else if (said(&s->ours, extent, i, &hash) == AU_CORRUPT)
		report(v, &page, p, "this one is damaged");
	else if (three && same(&third->answer, &s->ours, extent, i) && !AU_PLANTED(AU_PLANT_MEND_BLIND))
		report(v, &page, p, "the other one is wrong, a third node has what is here");
	else if ((three && same(&third->answer, &p->answer, extent, i)) || AU_PLANTED(AU_PLANT_MEND_BLIND))
	{
		report(v, &page, p, "this one is wrong, a third node has what the other one has");
		au_md_damaged(v, "a page is not what two other nodes have");
	}
	else
	{
		v->stats.sync_unresolved++;
		report(v, &page, p, "both are sound, and no majority tells which is right; nothing was changed");
	}
}

static void
judge_extent(AuVolume *v, const AuPageId *extent)
{
	AuSync	   *s = &v->sync;
	const AuSyncPeer *p = &s->peers[s->peer];
	const AuSyncPeer *third = s->third != s->peer ? &s->peers[s->third] : NULL;

	for (uint16_t i = 0; i < AU_DIGEST_PAGES_MAX; i++)
		if (!same(&s->ours, &p->answer, extent, i))
			judge(v, extent, i, p, third);
}

/* ---- stages ------------------------------------------------------------ */

static void
next_leaf(AuSync *s)
{
	memset(&s->from, 0, sizeof(s->from));
	if (!au_merkle_diff_leaf(&s->diff, &s->leaf))
		s->leaf = AU_MERKLE_LEAVES;
}

static void
go_down(AuVolume *v, uint64_t now)
{
	AuSync	   *s = &v->sync;
	AuSyncPeer *p = &s->peers[s->peer];
	AuMsgDigest m = {.lsn = s->lsn,.slice = (uint16_t) s->slice,.what = AU_DIGEST_TREE};
	uint32_t	level;

	if (!au_merkle_diff_want(&s->diff, &level, &m.index))
	{
		next_leaf(s);
		s->stage = AU_SYNC_LISTS;
		p->answered = false;
		return;
	}
	m.level = (uint8_t) level;
	if (!ask(v, p, &m, now) || p->failed)
		return;
	p->answered = false;
	p->ask_at = now;
	au_merkle_diff_take(&s->diff, p->answer.children);
}

static void
compare_trees(AuVolume *v, uint64_t now)
{
	AuSync	   *s = &v->sync;
	AuSyncPeer *p = &s->peers[s->peer];
	AuMsgDigest m = {.lsn = s->lsn,.slice = (uint16_t) s->slice,.what = AU_DIGEST_TREE};
	const AuPageId none = {0};
	AuDigestJob *job;
	uint32_t	level,
				index;
	char		why[256];
	AuStatus	status = au_d_get(v, s->slice, AU_MERKLE_LEAVES, &none, s->lsn, &job, why, sizeof(why));

	if (status != AU_OK && status != AU_NEED_MORE)
	{
		p->failed = true;
		return;
	}
	if (!ask(v, p, &m, now) || p->failed || status != AU_OK)
		return;
	au_merkle_diff_start(&s->diff, v->node->host.digest_tree(v->node->host.ctx, v->handle, job->handle),
						 p->answer.root);
	p->answered = false;
	p->ask_at = now;
	if (!au_merkle_diff_want(&s->diff, &level, &index))
	{
		au_d_release(job);
		slice_done(v, now);
		return;
	}
	au_merkle_diff_take(&s->diff, p->answer.children);
	s->stage = AU_SYNC_DESCENDS;
}

/* The tree must stay: the comparison points into it. */
static bool
still_there(AuVolume *v)
{
	const AuPageId none = {0};
	AuDigestJob *job;
	char		why[256];

	/* one of an empty slice is there again at once, but it is another one */
	return au_d_get(v, v->sync.slice, AU_MERKLE_LEAVES, &none, v->sync.lsn, &job, why,
					sizeof(why)) == AU_OK &&
		v->node->host.digest_tree(v->node->host.ctx, v->handle, job->handle) == v->sync.diff.ours;
}

static void
extent_done(AuSync *s, const AuPageId *extent, uint64_t now)
{
	s->from = *extent;
	s->from.blk++;
	s->stage = AU_SYNC_LISTS;
	for (uint32_t i = 0; i < s->npeers; i++)
	{
		s->peers[i].answered = false;
		s->peers[i].ask_at = now;
	}
}

static void
compare_lists(AuVolume *v, uint64_t now)
{
	AuSync	   *s = &v->sync;
	AuSyncPeer *p = &s->peers[s->peer];
	AuMsgDigest m = {
		.lsn = s->lsn,.slice = (uint16_t) s->slice,.what = AU_DIGEST_PAGES,.index = s->leaf,
		.from = s->from
	};
	AuDigestJob *job;
	AuPageId	extent;
	AuStatus	status;
	char		why[256];

	if (s->leaf == AU_MERKLE_LEAVES)
	{
		slice_done(v, now);
		return;
	}
	status = au_d_get(v, s->slice, s->leaf, &s->from, s->lsn, &job, why, sizeof(why));
	if (status != AU_OK && status != AU_NEED_MORE)
	{
		p->failed = true;
		return;
	}
	if (!ask(v, p, &m, now) || p->failed || status != AU_OK)
		return;
	s->ours = *job->pages;
	au_d_release(job);
	if (!next_extent(s, &p->answer, &extent))
	{
		p->answered = false;
		p->ask_at = now;
		next_leaf(s);
		return;
	}
	for (uint16_t i = 0; i < AU_DIGEST_PAGES_MAX; i++)
		if (!same(&s->ours, &p->answer, &extent, i))
		{
			s->stage = AU_SYNC_ASKS_THIRD;
			s->from = extent;
			return;
		}
	extent_done(s, &extent, now);
}

static void
ask_third(AuVolume *v, uint64_t now)
{
	AuSync	   *s = &v->sync;
	AuPageId	extent = s->from;
	AuMsgDigest m = {
		.lsn = s->lsn,.slice = (uint16_t) s->slice,.what = AU_DIGEST_PAGES,.index = s->leaf,
		.from = extent
	};

	if (s->third != s->peer && !ask(v, &s->peers[s->third], &m, now))
		return;
	judge_extent(v, &extent);
	extent_done(s, &extent, now);
}

uint64_t
au_s_run(AuVolume *v, uint64_t now)
{
	AuSync	   *s = &v->sync;

	if (v->node->opt.sync_bytes_per_s == 0 || v->node->host.digest_begin == NULL ||
		v->node->stopping || (v->meta.group.n <= 1 && au_o_number(v->node) == 0))
		return UINT64_MAX;
	if (s->at == 0)
		s->at = now + FIRST_US;
	if (s->stage == AU_SYNC_RESTS)
	{
		if (now >= s->at)
			begin_slice(v, now);
		return s->stage == AU_SYNC_RESTS && s->at > now ? s->at - now : 0;
	}
	if (s->stage != AU_SYNC_TREES && !still_there(v))
		s->peers[s->peer].failed = true;
	else if (s->stage == AU_SYNC_TREES)
		compare_trees(v, now);
	else if (s->stage == AU_SYNC_DESCENDS)
		go_down(v, now);
	else if (s->stage == AU_SYNC_LISTS)
		compare_lists(v, now);
	else
		ask_third(v, now);
	if (s->stage != AU_SYNC_RESTS && (s->peers[s->peer].failed || now >= s->deadline))
		slice_failed(v, now);
	return s->stage == AU_SYNC_RESTS && s->at <= now ? 0 : LATER_US / 5;
}
