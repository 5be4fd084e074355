/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_digest.c: the node's digests of page stores: each step's reading on a
 * worker thread.
 */
#include <stdio.h>

#include "daemon/au_daemon.h"

static void *
host_digest_begin(void *ctx, void *vol, uint32_t slice, uint32_t leaf, const AuPageId *from,
				  AuLsn lsn)
{
	(void) ctx;
	return au_pagestore_digest_begin(((AuHostVolume *) vol)->store, slice, leaf, from, lsn);
}

static void
work(uv_work_t *w)
{
	AuHostVolume *v = w->data;

	(void) au_pagestore_digest_work(v->digest);
}

static void
done(uv_work_t *w, int uv_status)
{
	AuHostVolume *v = w->data;
	AuDigest   *d = v->digest;
	const AuDigestPage *pages;
	uint32_t	n;
	AuStatus	status = au_pagestore_digest_take(d, &pages, &n);

	(void) uv_status;
	v->daemon->work--;
	au_node_digested(v->daemon->node, v, status, pages, n, au_pagestore_digest_error(d));
}

static bool
host_digest_next(void *ctx, void *vol, void *digest)
{
	AuDaemon   *d = ctx;
	AuHostVolume *v = vol;

	if (!au_pagestore_digest_next(digest))
		return false;
	v->digest = digest;
	v->digest_work.data = v;
	d->work++;
	uv_queue_work(d->loop, &v->digest_work, work, done);
	return true;
}

static const AuMerkle *
host_digest_tree(void *ctx, void *vol, void *digest)
{
	(void) ctx;
	(void) vol;
	return au_pagestore_digest_tree(digest);
}

static void
host_digest_end(void *ctx, void *vol, void *digest)
{
	(void) ctx;
	(void) vol;
	au_pagestore_digest_end(digest);
}

void
au_digest_fill_host(AuNodeHost *h)
{
	h->digest_begin = host_digest_begin;
	h->digest_next = host_digest_next;
	h->digest_tree = host_digest_tree;
	h->digest_end = host_digest_end;
}
