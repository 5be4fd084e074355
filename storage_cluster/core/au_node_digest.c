/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_node_digest.c: trees of slices and hashes of pages, for other nodes and
 * for our own comparing.
 *
 *   asked for ──▶ WAITS ◀──────────────┐
 *                   │ its turn         │ more extents
 *                   ▼                  │
 *                 READS ──au_node_digested──▶ DONE, or FAILED
 *
 * Whoever asks is told "later" and asks again.  What nobody asked for during
 * AU_NODE_DIGEST_IDLE_US is forgotten, sooner if there is no room for another;
 * of a slice that goes, at once: its deleting waits for those that may read it.
 *
 * Invariants:
 *  1. One extent of the node is read at a time, and so many bytes a second as
 *     the options say, on average.
 *  2. The LSN of a digest stays readable until it is forgotten; that is bounded.
 */
#include "core/au_node_int.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include "cluster/au_view.h"

/* What was asked for so lately is likely to be asked for again soon. */
#define BUSY_US ((uint64_t) 500 * 1000)

static void
end_job(AuDigestJob *job)
{
	const AuNodeHost *h = &job->vol->node->host;

	assert(job->state != AU_DIGEST_READS);
	h->digest_end(h->ctx, job->vol->handle, job->handle);
	if (job->pages != NULL)
		h->release(h->ctx, job->pages);
	job->vol = NULL;
}

/* Begin a step, or find that there is none left. */
static void
step(AuDigestJob *job)
{
	AuNode	   *n = job->vol->node;

	n->digesting = n->host.digest_next(n->host.ctx, job->vol->handle, job->handle);
	job->state = n->digesting ? AU_DIGEST_READS : AU_DIGEST_DONE;
	job->read = job->read || n->digesting;
}

static bool
wanted(const AuDigestJob *job, const AuVolume *v, uint32_t slice, uint32_t leaf,
	   const AuPageId *from, AuLsn lsn)
{
	return job->vol == v && job->slice == slice && job->leaf == leaf && job->lsn == lsn &&
		(leaf == AU_MERKLE_LEAVES || memcmp(&job->from, from, sizeof(*from)) == 0);
}

static AuStatus
fail(AuStatus status, char *why, size_t whylen, const char *text)
{
	snprintf(why, whylen, "%s", text);
	return status;
}

static AuStatus
begin_job(AuVolume *v, AuDigestJob *job, uint32_t slice, uint32_t leaf, const AuPageId *from,
		  AuLsn lsn, char *why, size_t whylen)
{
	const AuNodeHost *h = &v->node->host;
	AuMsgDigestOk *pages = NULL;

	if (leaf != AU_MERKLE_LEAVES && (pages = h->alloc(h->ctx, sizeof(*pages))) == NULL)
		return fail(AU_NOMEM, why, whylen, "out of memory");
	if (pages != NULL)
		memset(pages, 0, sizeof(*pages));
	*job = (AuDigestJob)
	{
		.vol = v,.slice = slice,.leaf = leaf,.from = *from,.lsn = lsn,.state = AU_DIGEST_WAITS,
		.pages = pages,.used_at = h->now_us(h->ctx)
	};
	job->handle = h->digest_begin(h->ctx, v->handle, slice, leaf, from, lsn);
	if (job->handle != NULL)
	{
		/* of an empty slice that was all */
		if (!v->node->digesting && job->used_at >= v->node->digest_at)
			step(job);
		return job->state == AU_DIGEST_DONE ? AU_OK : AU_NEED_MORE;
	}
	job->vol = NULL;
	if (pages != NULL)
		h->release(h->ctx, pages);
	return fail(AU_IO, why, whylen, h->store_error(h->ctx, v->handle));
}

/* The one that is needed least; NULL: none can go. */
static AuDigestJob *
make_room(AuNode *n, uint64_t now)
{
	AuDigestJob *oldest = NULL;

	for (AuDigestJob *job = n->digests; job < n->digests + AU_NODE_DIGESTS_MAX; job++)
		if ((job->state == AU_DIGEST_DONE || job->state == AU_DIGEST_FAILED) &&
			(!job->read || now - job->used_at >= BUSY_US) &&
			(oldest == NULL || job->used_at < oldest->used_at))
			oldest = job;
	if (oldest != NULL)
		end_job(oldest);
	return oldest;
}

AuStatus
au_d_get(AuVolume *v, uint32_t slice, uint32_t leaf, const AuPageId *from, AuLsn lsn,
		 AuDigestJob **out, char *why, size_t whylen)
{
	AuNode	   *n = v->node;
	const AuNodeHost *h = &n->host;
	AuDigestJob *free_one = NULL;
	uint64_t	now = h->now_us(h->ctx);
	AuStatus	status;

	*out = NULL;
	if (n->opt.sync_bytes_per_s == 0 || h->digest_begin == NULL)
		return fail(AU_REFUSED, why, whylen, "this node does not compare its pages (--anti-entropy-mb-per-s)");
	if (v->partial && !au_slices_has(&v->kept, slice))
		return fail(AU_MOVED, why, whylen, "that slice is not on this node");
	if (lsn == 0 || v->applied < lsn || v->store_closed || v->draining)
		return AU_NEED_MORE;
	for (AuDigestJob *job = n->digests; job < n->digests + AU_NODE_DIGESTS_MAX; job++)
	{
		if (job->vol == NULL)
			free_one = job;
		else if (!job->forgotten && wanted(job, v, slice, leaf, from, lsn))
		{
			job->used_at = now;
			if (job->state == AU_DIGEST_FAILED)
				return fail(AU_IO, why, whylen, job->why);
			*out = job;
			return job->state == AU_DIGEST_DONE ? AU_OK : AU_NEED_MORE;
		}
	}
	if (lsn < h->store_horizon(h->ctx, v->handle))
		return fail(AU_GONE, why, whylen, "that LSN is no longer kept");
	if (free_one == NULL && (free_one = make_room(n, now)) == NULL)
		return AU_NEED_MORE;
	status = begin_job(v, free_one, slice, leaf, from, lsn, why, whylen);
	if (status == AU_OK)
		*out = free_one;
	return status;
}

void
au_d_release(AuDigestJob *job)
{
	assert(job->state == AU_DIGEST_DONE);
	end_job(job);
}

bool
au_d_end_slices(AuVolume *v, const AuSliceSet *slices)
{
	AuNode	   *n = v->node;
	bool		reads = false;

	for (AuDigestJob *job = n->digests; job < n->digests + AU_NODE_DIGESTS_MAX; job++)
	{
		if (job->vol != v || (slices != NULL && !au_slices_has(slices, job->slice)))
			continue;
		job->forgotten = true;
		if (job->state == AU_DIGEST_READS)
			reads = true;
		else
			end_job(job);
	}
	return reads;
}

/* ---- reading ---------------------------------------------------------- */

void
au_node_digested(AuNode *n, void *vol, AuStatus status, const AuDigestPage *pages,
				 uint32_t npages, const char *err)
{
	AuDigestJob *job = n->digests;

	assert(n->digesting);
	while (job < n->digests + AU_NODE_DIGESTS_MAX &&
		   (job->vol == NULL || job->state != AU_DIGEST_READS))
		job++;
	assert(job < n->digests + AU_NODE_DIGESTS_MAX && job->vol->handle == vol);
	(void) vol;
	n->digesting = false;
	n->digest_at = n->host.now_us(n->host.ctx) +
		(uint64_t) npages * AU_PAGE_SIZE * 1000000 / n->opt.sync_bytes_per_s;
	job->vol->stats.sync_pages += npages;
	for (uint32_t i = 0; i < npages && status == AU_OK; i++)
		if (pages[i].status == AU_CORRUPT)
			au_md_damaged(job->vol, err);
	job->state = AU_DIGEST_WAITS;
	if (status != AU_OK)
	{
		job->state = AU_DIGEST_FAILED;
		snprintf(job->why, sizeof(job->why), "%s", err);
	}
	else if (job->pages != NULL && npages > 0)
	{
		assert(npages <= AU_DIGEST_PAGES_MAX);
		job->state = AU_DIGEST_DONE;
		job->pages->first = pages[0].page;
		job->pages->n = (uint16_t) npages;
		for (uint32_t i = 0; i < npages; i++)
		{
			job->pages->status[i] = (uint8_t) pages[i].status;
			job->pages->hash[i] = pages[i].status == AU_OK ? pages[i].hash : 0;
		}
	}
	if (job->forgotten)
		end_job(job);
}

/* Begin a step of the next one that waits. */
static void
start_step(AuNode *n)
{
	for (uint32_t i = 0; i < AU_NODE_DIGESTS_MAX && !n->digesting; i++)
	{
		AuDigestJob *job = &n->digests[n->digest_turn];

		n->digest_turn = (n->digest_turn + 1) % AU_NODE_DIGESTS_MAX;
		if (job->vol == NULL || job->state != AU_DIGEST_WAITS)
			continue;
		step(job);
	}
}

uint64_t
au_d_run(AuNode *n, uint64_t now)
{
	bool		waits = false;
	bool		any = false;

	for (AuDigestJob *job = n->digests; job < n->digests + AU_NODE_DIGESTS_MAX; job++)
	{
		if (job->vol == NULL)
			continue;
		if (job->state != AU_DIGEST_READS &&
			(n->stopping || now - job->used_at >= AU_NODE_DIGEST_IDLE_US))
			end_job(job);
		any = any || job->vol != NULL;
		waits = waits || (job->vol != NULL && job->state == AU_DIGEST_WAITS);
	}
	if (waits && !n->digesting && now >= n->digest_at && !au_n_out_full(n))
		start_step(n);
	if (waits && !n->digesting)
		return n->digest_at > now ? n->digest_at - now : 1000;
	return any ? AU_NODE_DIGEST_IDLE_US : UINT64_MAX;
}

/* ---- for others ------------------------------------------------------- */

static void
answer(AuNode *n, AuConn *c, uint64_t id, const AuMsgDigest *m, const AuDigestJob *job)
{
	const AuNodeHost *h = &n->host;
	AuMsgDigestOk *ok = &n->msg_digest;
	AuWriter	w;

	memset(ok, 0, sizeof(*ok));
	if (job == NULL)
		ok->later = 1;
	else if (job->pages != NULL)
		*ok = *job->pages;
	else
	{
		const AuMerkle *t = h->digest_tree(h->ctx, job->vol->handle, job->handle);

		ok->root = au_merkle_root(t);
		memcpy(ok->children, au_merkle_children(t, m->level, m->index), sizeof(ok->children));
	}
	ok->lsn = m->lsn;
	ok->what = m->what;
	if (au_n_reserve(n, c, &w, AU_DIGEST_OK_CAP))
		au_n_send(n, c, &w, au_enc_digest_ok(&w, id, ok));
}

void
au_d_digest(AuNode *n, AuConn *c, const AuFrame *f)
{
	AuMsgDigest m;
	AuDigestJob *job;
	AuStatus	status;
	char		why[256];

	if (c->role != AU_ROLE_NODE || !au_dec_digest(f, &m))
	{
		au_n_error(n, c, f->id, AU_INVALID, NULL, c->role != AU_ROLE_NODE ?
				   "only a storage node may ask for digests" : "malformed DIGEST");
		return;
	}
	if (c->vol == NULL)
	{
		au_n_error(n, c, f->id, AU_REFUSED, NULL,
				   "volume %" PRIu64 " is not on this node", c->system_identifier);
		return;
	}
	status = au_d_get(c->vol, m.slice, m.what == AU_DIGEST_TREE ? AU_MERKLE_LEAVES : m.index,
					  &m.from, m.lsn, &job, why, sizeof(why));
	if (status == AU_OK || status == AU_NEED_MORE)
		answer(n, c, f->id, &m, status == AU_OK ? job : NULL);
	else
		au_n_error(n, c, f->id, status, NULL, "%s", why);
}
