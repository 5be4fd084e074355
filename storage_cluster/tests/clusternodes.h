/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clusternodes.h: several nodes of a cluster in one process: the real core,
 * real page stores, a real view; a network of buffers, a log in memory of
 * which a crash leaves what was synced, and a clock that the test moves.
 * Node 0 keeps the log of the one volume, alone; the others follow it.
 * Include after cmocka.h.
 */
#ifndef AU_TEST_CLUSTERNODES_H
#define AU_TEST_CLUSTERNODES_H

#include <sys/stat.h>

#include "common/au_heap.h"
#include "core/au_node.h"
#include "store/au_export.h"
#include "store/au_rebuild.h"
#include "tests/testdir.h"
#include "tests/teststore.h"
#include "tests/viewmake.h"
#include "tests/walmake.h"

#define CN_NODES 5
#define CN_CONNS 200
#define CN_JOBS 16
#define CN_BUSY_LOG 3000
#define CN_SYSID 0x1122334455667788
#define CN_RETENTION ((uint64_t) 256 << 20)

typedef struct CnConn
{
	bool		used;
	int			node;			/* -1: the test */
	AuConn	   *conn;
	struct CnConn *peer;		/* NULL: gone */
	uint8_t    *in;
	size_t		in_len;
	size_t		in_cap;
	bool		reading;
	bool		closed;
} CnConn;

typedef struct CnVolume
{
	bool		exists;
	AuVolumeMeta meta;
	uint8_t    *log;			/* from log_start */
	AuLsn		log_start;
	AuLsn		log_end;
	AuLsn		log_durable;
	bool		syncing;
	AuPageStore *store;
	bool		founding;
	bool		writing;
	bool		write_persist;
	uint8_t    *import;			/* a chunk to be written */
	size_t		import_len;
	AuRebuild  *rebuild;
	AuSliceSet	rebuild_slices;
	bool		mended;			/* the new store takes the old one's place */
	AuLsn		relog;			/* ... and an empty log from here on; 0: no */
	uint8_t    *mend;			/* a chunk for it */
	size_t		mend_len;
	bool		aside;			/* what was replaced is still there */
	char		dir[240];
	char		anew[250];
} CnVolume;

typedef struct CnNode
{
	int			index;
	AuNode	   *node;			/* NULL: down */
	AuNodeHost	host;
	CnVolume	vol;
	AuExportJob *jobs[CN_JOBS];
	int			njobs;
	uint64_t	ready_epoch;	/* of slices_ready, 0: not called */
	AuSliceSet	ready;
	int			mending;		/* asked: 1 on, -1 off; 0: not */
	uint64_t	mending_epoch;
	AuDigest   *digest;			/* a step is to be done; NULL: none */
	int			bad_slice;		/* its digests fail; -1: none */
	bool		busy;			/* its store has always enough for a generation, and is
								 * not done with one before there is log for the next */
	AuViewCommand late;			/* one that comes once more; type 0: none */
	char		fatal[512];
} CnNode;

static char cn_root[200];

static struct
{
	uint64_t	now;
	uint64_t	rng;
	AuView		view;
	CnNode		nodes[CN_NODES];
	CnConn		conns[CN_CONNS];
	uint64_t	retention;
	uint64_t	sync_bytes_per_s;	/* 0: replicas are not compared */
	uint64_t	hold_limit;		/* 0: any */
	uint32_t	ready_most;		/* slices a node tells to be ready at a time; 0: any */
	uint32_t	exported;		/* chunks of pages */
	uint32_t	imported;
	bool		verbose;
} cn;

static inline uint32_t
cn_random(uint32_t n)
{
	cn.rng ^= cn.rng << 13;
	cn.rng ^= cn.rng >> 7;
	cn.rng ^= cn.rng << 17;
	return (uint32_t) (cn.rng >> 20) % n;
}

static inline uint64_t
cn_node_id(int i)
{
	return au_mix64((uint64_t) i + 1) | 1;
}

/* ---- host: basics ----------------------------------------------------- */

static inline uint64_t
cn_now(void *ctx)
{
	(void) ctx;
	return cn.now;
}

static inline void
cn_log(void *ctx, AuLogLevel level, const char *message)
{
	if (cn.verbose)
		printf("%10llu node %d: %d %s\n", (unsigned long long) cn.now,
			   ((CnNode *) ctx)->index, level, message);
}

static inline void
cn_fatal(void *ctx, const char *message)
{
	fail_msg("node %d: %s", ((CnNode *) ctx)->index, message);
}

static inline const char *
cn_status_json(void *ctx, size_t *len)
{
	(void) ctx;
	*len = 2;
	return "{}";
}

/* ---- network ---------------------------------------------------------- */

static inline CnConn *
cn_conn(int node)
{
	for (int i = 0; i < CN_CONNS; i++)
		if (!cn.conns[i].used)
		{
			cn.conns[i] = (CnConn)
			{
				.used = true,.node = node,.reading = true
			};
			return &cn.conns[i];
		}
	fail_msg("too many connections");
	return NULL;
}

static inline void
cn_push(CnConn *c, const uint8_t *bytes, size_t len)
{
	if (c->in_len + len > c->in_cap)
	{
		c->in_cap = (c->in_len + len) * 2;
		c->in = realloc(c->in, c->in_cap);
		assert_non_null(c->in);
	}
	memcpy(c->in + c->in_len, bytes, len);
	c->in_len += len;
}

static inline void
cn_send_give(void *ctx, void *conn, uint8_t *memory, size_t len)
{
	CnConn	   *c = conn;

	if (c->peer != NULL)
		cn_push(c->peer, memory, len);
	free(memory);
	au_node_conn_sent(((CnNode *) ctx)->node, c->conn, len);
}

static inline uint8_t *
cn_send_alloc(void *ctx, size_t cap)
{
	(void) ctx;
	return malloc(cap);
}

static inline void
cn_send_drop(void *ctx, uint8_t *memory)
{
	(void) ctx;
	free(memory);
}

static inline void
cn_set_reading(void *ctx, void *conn, bool on)
{
	(void) ctx;
	((CnConn *) conn)->reading = on;
}

static inline void
cn_close(void *ctx, void *conn)
{
	(void) ctx;
	((CnConn *) conn)->closed = true;
}

static inline void *
cn_peer_open(void *ctx, const char *address, AuConn *node_conn)
{
	int			to = atoi(address + 4);		/* "host3:7100" */
	CnConn	   *a;
	CnConn	   *b;

	if (to < 0 || to >= CN_NODES || cn.nodes[to].node == NULL)
		return NULL;
	a = cn_conn(((CnNode *) ctx)->index);
	a->conn = node_conn;
	b = cn_conn(to);
	b->conn = au_node_conn_opened(cn.nodes[to].node, b);
	assert_non_null(b->conn);
	a->peer = b;
	b->peer = a;
	return a;
}

/* Both ends hear of it. */
static inline void
cn_cut(CnConn *c)
{
	CnConn	   *peer = c->peer;

	c->peer = NULL;
	if (c->node >= 0)
	{
		au_node_conn_closed(cn.nodes[c->node].node, c->conn);
		free(c->in);
		*c = (CnConn) {0};
	}
	else
		c->closed = true;
	if (peer != NULL)
	{
		peer->peer = NULL;
		cn_cut(peer);
	}
}

static inline void
cn_deliver(void)
{
	for (int i = 0; i < CN_CONNS; i++)
	{
		CnConn	   *c = &cn.conns[i];

		if (!c->used || c->node < 0)
			continue;
		while (c->used && c->reading && !c->closed && c->in_len > 0)
		{
			size_t		need;
			size_t		used = au_node_input(cn.nodes[c->node].node, c->conn, c->in, c->in_len,
											 &need);

			memmove(c->in, c->in + used, c->in_len - used);
			c->in_len -= used;
			if (used == 0)
				break;
		}
		if (c->closed)
			cn_cut(c);
	}
}

/* ---- host: volume and log --------------------------------------------- */

static inline AuPageStoreOptions
cn_store_options(CnVolume *v)
{
	return (AuPageStoreOptions) {
		.dir = v->dir,.system_identifier = CN_SYSID,.start_lsn = v->meta.start_lsn,
		.pending_bytes = 256 * 1024,.write_buffer_bytes = 512 * 1024,
		.retention_bytes = cn.retention
	};
}

static inline void
cn_open_store(CnVolume *v)
{
	AuPageStoreOptions opt = cn_store_options(v);
	char		err[512];

	if (au_pagestore_open(&v->store, &opt, err, sizeof(err)) != AU_OK)
		fail_msg("open: %s", err);
}

static inline AuStatus
cn_volume_create(void *ctx, const AuVolumeMeta *meta, void **vol, char *err, size_t errlen)
{
	CnVolume   *v = &((CnNode *) ctx)->vol;

	snprintf(err, errlen, "one volume only");
	if (v->exists)
		return AU_FULL;
	v->exists = true;
	v->meta = *meta;
	v->log_start = v->log_end = v->log_durable = meta->start_lsn;
	testdir_remove(v->dir);
	cn_open_store(v);
	*vol = v;
	return AU_OK;
}

static inline AuStatus
cn_volume_save(void *ctx, void *vol, const AuVolumeMeta *meta, char *err, size_t errlen)
{
	(void) ctx;
	(void) err;
	(void) errlen;
	((CnVolume *) vol)->meta = *meta;
	return AU_OK;
}

static inline AuStatus
cn_log_append(void *ctx, void *vol, uint64_t term, uint32_t timeline, AuLsn lsn,
			  const uint8_t *bytes, size_t len, char *err, size_t errlen)
{
	CnVolume   *v = vol;

	(void) ctx;
	(void) term;
	(void) timeline;
	(void) err;
	(void) errlen;
	assert_int_equal(lsn, v->log_end);
	v->log = realloc(v->log, (size_t) (v->log_end - v->log_start) + len);
	memcpy(v->log + (lsn - v->log_start), bytes, len);
	v->log_end += len;
	return AU_OK;
}

static inline bool
cn_log_sync_start(void *ctx, void *vol, AuStatus *status, char *err, size_t errlen)
{
	(void) ctx;
	(void) status;
	(void) err;
	(void) errlen;
	((CnVolume *) vol)->syncing = true;
	return false;
}

static inline AuStatus
cn_log_read(void *ctx, void *vol, AuLsn lsn, uint8_t *buf, size_t cap, size_t *got,
			char *err, size_t errlen)
{
	CnVolume   *v = vol;

	(void) ctx;
	snprintf(err, errlen, "no such log");
	if (lsn < v->log_start || lsn >= v->log_end)
		return AU_NOT_FOUND;
	*got = v->log_end - lsn < cap ? (size_t) (v->log_end - lsn) : cap;
	memcpy(buf, v->log + (lsn - v->log_start), *got);
	return AU_OK;
}

static inline AuStatus
cn_log_trim(void *ctx, void *vol, AuLsn lsn, char *err, size_t errlen)
{
	(void) ctx;
	(void) vol;
	(void) lsn;
	(void) err;
	(void) errlen;
	return AU_OK;
}

static inline AuStatus
cn_log_truncate(void *ctx, void *vol, AuLsn lsn, char *err, size_t errlen)
{
	(void) ctx;
	(void) err;
	(void) errlen;
	((CnVolume *) vol)->log_end = ((CnVolume *) vol)->log_durable = lsn;
	return AU_OK;
}

static inline AuLsn
cn_log_start(void *ctx, void *vol)
{
	(void) ctx;
	return ((CnVolume *) vol)->log_start;
}

static inline AuLsn
cn_log_end(void *ctx, void *vol)
{
	(void) ctx;
	return ((CnVolume *) vol)->log_end;
}

static inline AuLsn
cn_log_durable(void *ctx, void *vol)
{
	(void) ctx;
	return ((CnVolume *) vol)->log_durable;
}

/* ---- host: store ------------------------------------------------------ */

#define CN_STORE(vol) (((CnVolume *) (vol))->store)

static inline AuStatus
cn_store_apply(void *ctx, void *vol, const AuWalRecord *rec)
{
	(void) ctx;
	return au_pagestore_apply(CN_STORE(vol), rec);
}

static inline bool
cn_store_full(void *ctx, void *vol)
{
	return ((CnNode *) ctx)->busy || au_pagestore_full(CN_STORE(vol));
}

static inline bool
cn_store_freeze(void *ctx, void *vol, AuLsn applied, AuLsn restart)
{
	(void) ctx;
	return au_pagestore_freeze(CN_STORE(vol), applied, restart);
}

static inline void
cn_store_write_start(void *ctx, void *vol, bool persist)
{
	CnVolume   *v = vol;

	(void) ctx;
	assert_true(!v->writing && v->import == NULL);
	v->writing = true;
	v->write_persist = persist;
}

static inline AuStatus
cn_store_reopen(void *ctx, void *vol, char *err, size_t errlen)
{
	CnVolume   *v = vol;

	if (((CnNode *) ctx)->njobs > 0)
	{
		snprintf(err, errlen, "others look at it");
		return AU_FULL;
	}
	au_pagestore_close(v->store);
	if (v->mended)
	{
		testdir_remove(v->dir);
		assert_int_equal(rename(v->anew, v->dir), 0);
		v->aside = true;
		if (v->relog != 0)
		{
			assert_false(v->syncing);
			v->log_start = v->log_end = v->log_durable = v->relog;
		}
	}
	v->mended = false;
	cn_open_store(v);
	return AU_OK;
}

static inline void
cn_store_positions(void *ctx, void *vol, AuLsn *applied, AuLsn *restart)
{
	(void) ctx;
	*applied = au_pagestore_applied_lsn(CN_STORE(vol));
	*restart = au_pagestore_restart_lsn(CN_STORE(vol));
}

static inline void
cn_store_persisted(void *ctx, void *vol, AuLsn *applied, AuLsn *restart)
{
	(void) ctx;
	*applied = au_pagestore_persisted_applied(CN_STORE(vol));
	*restart = au_pagestore_persisted_restart(CN_STORE(vol));
}

static inline void
cn_store_set_applied(void *ctx, void *vol, AuLsn applied)
{
	(void) ctx;
	au_pagestore_set_applied(CN_STORE(vol), applied);
}

static inline AuLsn
cn_store_horizon(void *ctx, void *vol)
{
	(void) ctx;
	return au_pagestore_horizon(CN_STORE(vol));
}

static inline void
cn_store_set_hold(void *ctx, void *vol, AuLsn lsn)
{
	(void) ctx;
	au_pagestore_set_hold(CN_STORE(vol), lsn);
}

static inline AuLsn
cn_store_last_change(void *ctx, void *vol)
{
	(void) ctx;
	return au_pagestore_last_change(CN_STORE(vol));
}

static inline bool
cn_store_rewind(void *ctx, void *vol, AuLsn lsn)
{
	(void) ctx;
	return au_pagestore_rewind(CN_STORE(vol), lsn);
}

static inline bool
cn_store_read(void *ctx, void *vol, AuPageBatch *b)
{
	(void) ctx;
	for (; b->done < b->nblocks && b->status == AU_OK; b->done++)
	{
		AuPageId	page = {b->rel, b->blocks[b->done]};
		AuStatus	status = au_pagestore_read(CN_STORE(vol), &page, b->lsn,
											   au_pages_slot(&b->answer));

		if (status != AU_OK && status != AU_NOT_FOUND)
			fail_msg("read: %s", au_pagestore_error(CN_STORE(vol)));
		au_pages_add(&b->answer, status);
	}
	assert_true(au_frame_end(&b->answer));
	return true;
}

static inline AuStatus
cn_store_size(void *ctx, void *vol, const AuRelId *rel, AuLsn lsn, uint32_t *nblocks)
{
	(void) ctx;
	return au_pagestore_size(CN_STORE(vol), rel, lsn, nblocks);
}

static inline void
cn_store_list(void *ctx, void *vol, uint32_t db,
			  void (*fn) (void *fnctx, const AuRelId *rel, uint32_t nblocks), void *fnctx)
{
	(void) ctx;
	au_pagestore_list(CN_STORE(vol), db, fn, fnctx);
}

static inline bool
cn_store_gc_step(void *ctx, void *vol)
{
	bool		more = au_pagestore_gc_step(CN_STORE(vol));

	(void) ctx;
	return au_pagestore_slices_step(CN_STORE(vol)) || more;
}

static inline const char *
cn_store_error(void *ctx, void *vol)
{
	(void) ctx;
	return au_pagestore_error(CN_STORE(vol));
}

/* ---- host: slices ----------------------------------------------------- */

static inline void
cn_store_slices(void *ctx, void *vol, AuSlicesState *out)
{
	(void) ctx;
	au_pagestore_slices(CN_STORE(vol), out);
}

static inline bool
cn_store_slices_keep(void *ctx, void *vol, const AuSliceSet *slices)
{
	(void) ctx;
	return au_pagestore_slices_keep(CN_STORE(vol), slices);
}

static inline void
cn_store_slices_drop(void *ctx, void *vol, const AuSliceSet *slices)
{
	(void) ctx;
	au_pagestore_slices_drop(CN_STORE(vol), slices);
}

static inline AuLsn
cn_store_written(void *ctx, void *vol)
{
	(void) ctx;
	return au_pagestore_written_lsn(CN_STORE(vol));
}

static inline void
cn_store_position(void *ctx, void *vol, AuStorePosition *out)
{
	(void) ctx;
	au_pagestore_position(CN_STORE(vol), out);
}

static inline void
cn_store_export(void *ctx, void *vol, AuExportJob *job)
{
	CnNode	   *n = ctx;

	(void) vol;
	assert_true(n->njobs < CN_JOBS);
	n->jobs[n->njobs++] = job;
}

static inline void
cn_store_import_start(void *ctx, void *vol, const uint8_t *bytes, size_t len)
{
	CnVolume   *v = vol;

	(void) ctx;
	assert_true(!v->writing && v->import == NULL);
	v->import = malloc(len);
	memcpy(v->import, bytes, len);
	v->import_len = len;
	cn.imported++;
}

static inline void
cn_store_import_finish(void *ctx, void *vol)
{
	(void) ctx;
	au_pagestore_import_finish(CN_STORE(vol));
}

static inline AuStatus
cn_found_begin(void *ctx, const AuVolumeMeta *meta, const AuStorePosition *position,
			   void **vol, char *err, size_t errlen)
{
	CnVolume   *v = &((CnNode *) ctx)->vol;
	AuPageStoreOptions opt;

	assert_false(v->exists);
	v->meta = *meta;
	v->founding = true;
	v->log_start = v->log_end = v->log_durable = position->restart;
	testdir_remove(v->dir);
	opt = cn_store_options(v);
	*vol = v;
	return au_pagestore_found(&v->store, &opt, position, err, errlen);
}

static inline AuStatus
cn_found_take(void *ctx, void *vol, const uint8_t *bytes, size_t len, AuPlace *place,
			  bool *done, char *err, size_t errlen)
{
	AuImported	imported;
	AuStatus	status = au_pagestore_import_write(CN_STORE(vol), bytes, len, &imported, err,
												   errlen);

	(void) ctx;
	if (status != AU_OK)
		return status;
	au_pagestore_imported(CN_STORE(vol), &imported);
	*place = imported.place;
	*done = imported.done;
	return AU_OK;
}

static inline void
cn_found_abandon(void *ctx, void *vol)
{
	CnVolume   *v = vol;

	(void) ctx;
	au_pagestore_close(v->store);
	v->store = NULL;
	v->founding = false;
}

static inline AuStatus
cn_found_end(void *ctx, void *vol, char *err, size_t errlen)
{
	CnVolume   *v = vol;
	AuStatus	status = au_pagestore_found_end(v->store, err, errlen);

	cn_found_abandon(ctx, vol);
	if (status != AU_OK)
		return status;
	cn_open_store(v);
	v->exists = true;
	return AU_OK;
}

static inline AuStatus
cn_mend_begin(void *ctx, void *vol, const AuStorePosition *position, bool all_slices,
			  char *err, size_t errlen)
{
	CnVolume   *v = vol;
	AuPageStoreOptions opt = cn_store_options(v);

	(void) ctx;
	assert_null(v->mend);
	au_rebuild_end(v->rebuild);
	snprintf(v->anew, sizeof(v->anew), "%s.new", v->dir);
	testdir_remove(v->anew);
	opt.dir = v->anew;
	memset(&v->rebuild_slices, all_slices ? 0xFF : 0, sizeof(v->rebuild_slices));
	return au_rebuild_begin(&v->rebuild, &opt, position, &v->rebuild_slices, err, errlen);
}

static inline bool
cn_mend_want(void *ctx, void *vol, uint8_t *what, AuPlace *place, AuSliceSet *slices)
{
	CnVolume   *v = vol;
	uint8_t		keyspace;
	bool		more = au_rebuild_want(v->rebuild, &keyspace, place);

	(void) ctx;
	*what = keyspace == AU_KS_SIZE ? AU_EXPORT_SIZES : AU_EXPORT_PAGES;
	*slices = v->rebuild_slices;
	return more;
}

static inline void
cn_mend_take(void *ctx, void *vol, const uint8_t *chunk, size_t len)
{
	CnVolume   *v = vol;

	(void) ctx;
	assert_null(v->mend);
	v->mend = malloc(len);
	memcpy(v->mend, chunk, len);
	v->mend_len = len;
}

static inline AuStatus
cn_mend_end(void *ctx, void *vol, AuLsn log_start, char *err, size_t errlen)
{
	CnVolume   *v = vol;

	(void) ctx;
	(void) err;
	(void) errlen;
	au_rebuild_end(v->rebuild);
	v->rebuild = NULL;
	v->mended = true;
	v->relog = log_start;
	return AU_OK;
}

static inline void
cn_mend_drop(void *ctx, void *vol)
{
	CnVolume   *v = vol;

	(void) ctx;
	au_rebuild_end(v->rebuild);
	v->rebuild = NULL;
	v->mended = false;
}

/* What was replaced goes: then all must be here that is owned. */
static inline void
cn_mend_whole(void *ctx, void *vol)
{
	CnVolume   *v = vol;
	const AuViewNode *self = au_view_node_by_id(&cn.view, cn_node_id(((CnNode *) ctx)->index));
	AuSlicesState state;
	AuSliceSet	owned,
				incoming;

	v->aside = false;
	if (self == NULL)
		return;
	au_view_owned(&cn.view, self->number, &owned, &incoming);
	au_pagestore_slices(v->store, &state);
	owned = au_slices_without(&owned, &state.lasting);
	assert_false(au_slices_any(&owned));
}

static inline void *
cn_digest_begin(void *ctx, void *vol, uint32_t slice, uint32_t leaf, const AuPageId *from, AuLsn lsn)
{
	if (((CnNode *) ctx)->bad_slice == (int) slice)
		return NULL;
	return au_pagestore_digest_begin(CN_STORE(vol), slice, leaf, from, lsn);
}

static inline bool
cn_digest_next(void *ctx, void *vol, void *digest)
{
	CnNode	   *n = ctx;

	(void) vol;
	assert_null(n->digest);
	if (!au_pagestore_digest_next(digest))
		return false;
	n->digest = digest;
	return true;
}

static inline const AuMerkle *
cn_digest_tree(void *ctx, void *vol, void *digest)
{
	(void) ctx;
	(void) vol;
	return au_pagestore_digest_tree(digest);
}

static inline void
cn_digest_end(void *ctx, void *vol, void *digest)
{
	(void) ctx;
	(void) vol;
	au_pagestore_digest_end(digest);
}

static inline void
cn_do_digest(CnNode *n)
{
	AuDigest   *d = n->digest;
	const AuDigestPage *pages;
	uint32_t	count;
	AuStatus	status;

	(void) au_pagestore_digest_work(d);
	status = au_pagestore_digest_take(d, &pages, &count);
	n->digest = NULL;
	au_node_digested(n->node, &n->vol, status, pages, count, au_pagestore_digest_error(d));
}

static inline bool
cn_mending(void *ctx, void *vol, bool on, uint64_t epoch)
{
	CnNode	   *n = ctx;

	(void) vol;
	assert_int_equal(n->mending, 0);
	n->mending = on ? 1 : -1;
	n->mending_epoch = epoch;
	return true;
}

static inline void
cn_slices_ready(void *ctx, const AuSliceSet *slices, uint64_t epoch)
{
	CnNode	   *n = ctx;
	uint32_t	count = 0;

	memset(&n->ready, 0, sizeof(n->ready));
	for (uint32_t s = 0; s < AU_SLICES; s++)
		if (au_slices_has(slices, s) && (cn.ready_most == 0 || count++ < cn.ready_most))
			au_slices_add(&n->ready, s);
	n->ready_epoch = epoch;
}

/* ---- nodes ------------------------------------------------------------ */

static inline void
cn_fill_host(CnNode *n)
{
	n->host = (AuNodeHost)
	{
		.ctx = n,.now_us = cn_now,.alloc = au_heap_alloc,.release = au_heap_release,.log = cn_log,
		.fatal = cn_fatal,.status_json = cn_status_json,.send_alloc = cn_send_alloc,
		.send_give = cn_send_give,.send_drop = cn_send_drop,.set_reading = cn_set_reading,
		.close = cn_close,.peer_open = cn_peer_open,.volume_create = cn_volume_create,
		.volume_save = cn_volume_save,.log_append = cn_log_append,
		.log_sync_start = cn_log_sync_start,.log_read = cn_log_read,.log_trim = cn_log_trim,
		.log_truncate = cn_log_truncate,.log_start = cn_log_start,.log_end = cn_log_end,
		.log_durable = cn_log_durable,.store_apply = cn_store_apply,.store_full = cn_store_full,
		.store_freeze = cn_store_freeze,.store_write_start = cn_store_write_start,
		.store_reopen = cn_store_reopen,.store_positions = cn_store_positions,
		.store_persisted = cn_store_persisted,.store_set_applied = cn_store_set_applied,
		.store_horizon = cn_store_horizon,.store_set_hold = cn_store_set_hold,
		.store_last_change = cn_store_last_change,.store_rewind = cn_store_rewind,
		.store_read = cn_store_read,.store_size = cn_store_size,.store_list = cn_store_list,
		.store_gc_step = cn_store_gc_step,.store_error = cn_store_error,
		.store_slices = cn_store_slices,.store_slices_keep = cn_store_slices_keep,
		.store_slices_drop = cn_store_slices_drop,.store_written = cn_store_written,
		.store_position = cn_store_position,.store_export = cn_store_export,
		.store_import_start = cn_store_import_start,.store_import_finish = cn_store_import_finish,
		.found_begin = cn_found_begin,.found_take = cn_found_take,.found_end = cn_found_end,
		.found_abandon = cn_found_abandon,.slices_ready = cn_slices_ready,
		.mend_begin = cn_mend_begin,.mend_want = cn_mend_want,.mend_take = cn_mend_take,
		.mend_end = cn_mend_end,.mend_drop = cn_mend_drop,.mend_whole = cn_mend_whole,
		.mending = cn_mending,.digest_begin = cn_digest_begin,.digest_next = cn_digest_next,
		.digest_tree = cn_digest_tree,.digest_end = cn_digest_end
	};
}

static inline void
cn_start(int i)
{
	CnNode	   *n = &cn.nodes[i];
	AuNodeOptions opt = {
		.node_id = cn_node_id(i),.alone = true,.mend_bytes_per_s = 64 << 20,
		.sync_bytes_per_s = cn.sync_bytes_per_s,.drop_grace_us = 3 * 1000000,
		.hold_limit_bytes = cn.hold_limit
	};
	char		err[512];

	assert_null(n->node);
	n->index = i;
	n->bad_slice = -1;
	snprintf(n->vol.dir, sizeof(n->vol.dir), "%s/node%d", cn_root, i);
	cn_fill_host(n);
	n->node = au_node_new(&n->host, &opt);
	assert_non_null(n->node);
	if (n->vol.exists)
	{
		cn_open_store(&n->vol);
		if (au_node_add_volume(n->node, &n->vol.meta, &n->vol, err, sizeof(err)) != AU_OK)
			fail_msg("node %d: %s", i, err);
	}
	if (cn.view.cluster_id != 0)
		assert_int_equal(au_node_set_view(n->node, &cn.view), AU_OK);
}

/* Chunks that nobody waits for any more come to an end. */
static inline void
cn_end_jobs(CnNode *n)
{
	while (n->njobs > 0)
	{
		AuExportJob *job = n->jobs[--n->njobs];

		job->status = AU_IO;
		au_node_exported(n->node, job);
	}
}

/* It is gone with all that was not synced or written. */
static inline void
cn_crash(int i)
{
	CnNode	   *n = &cn.nodes[i];
	CnVolume   *v = &n->vol;

	for (int k = 0; k < CN_CONNS; k++)
		if (cn.conns[k].used && cn.conns[k].node == i)
			cn_cut(&cn.conns[k]);
	cn_end_jobs(n);
	au_node_free(n->node);
	n->node = NULL;
	if (v->store != NULL)
		au_pagestore_close(v->store);
	v->store = NULL;
	v->writing = v->syncing = v->founding = false;
	free(v->import);
	free(v->mend);
	au_rebuild_end(v->rebuild);
	v->import = v->mend = NULL;
	v->rebuild = NULL;
	v->mended = false;
	n->mending = 0;
	v->log_end = v->log_durable;
	n->ready_epoch = 0;
}

static inline void
cn_do_export(CnNode *n)
{
	AuExportJob *job = n->jobs[--n->njobs];
	AuExportSet set = {
		.keyspace = job->sizes ? AU_KS_SIZE : AU_KS_PAGE,.slices = job->slices
	};
	AuExport   *e;
	size_t		len = 0;

	/* small chunks, so that there are many */
	job->status = au_pagestore_export_begin(n->vol.store, &set, job->upto, job->horizon,
											&job->place, &e);
	if (job->status == AU_OK)
		job->status = au_pagestore_export_work(e, job->answer.data + job->answer.len,
											   job->sizes ? 10 : 30000, &len);
	if (job->status == AU_CORRUPT || job->status == AU_IO)
		fail_msg("export: %s", au_pagestore_export_error(e));
	au_pagestore_export_end(e);
	job->answer.len += len;
	cn.exported += job->status == AU_OK && !job->sizes;
	snprintf(job->err, sizeof(job->err), "%s", au_status_name(job->status));
	au_node_exported(n->node, job);
}

/* What runs in other threads of a daemon comes to an end, sooner or later. */
static inline void
cn_work(CnNode *n)
{
	CnVolume   *v = &n->vol;
	char		err[512] = "";
	AuStatus	status;

	if (v->syncing && cn_random(2))
	{
		v->syncing = false;
		v->log_durable = v->log_end;
		au_node_synced(n->node, v, AU_OK, "");
	}
	if (v->writing && cn_random(3) == 0 &&
		(!n->busy || v->log_durable - au_pagestore_applied_lsn(v->store) >= CN_BUSY_LOG))
	{
		v->writing = false;
		status = au_pagestore_write(v->store, v->write_persist, err, sizeof(err));
		if (status != AU_OK)
			fail_msg("write: %s", err);
		au_pagestore_written(v->store, status);
		au_node_written(n->node, v, status, err);
	}
	if (v->import != NULL && cn_random(3) == 0)
	{
		AuImported	imported;

		status = au_pagestore_import_write(v->store, v->import, v->import_len, &imported, err,
										   sizeof(err));
		if (status == AU_OK)
			au_pagestore_imported(v->store, &imported);
		else
			fail_msg("import: %s", err);
		free(v->import);
		v->import = NULL;
		au_node_imported(n->node, v, status, err);
	}
	if (v->mend != NULL && cn_random(3) == 0)
	{
		uint8_t    *chunk = v->mend;

		status = au_rebuild_take(v->rebuild, chunk, v->mend_len, err, sizeof(err));
		v->mend = NULL;
		au_node_mended(n->node, v, status, err);
		free(chunk);
	}
	if (n->njobs > 0 && cn_random(3) == 0)
		cn_do_export(n);
	if (n->digest != NULL)
		cn_do_digest(n);
}

static inline void
cn_set_view(void)
{
	for (int i = 0; i < CN_NODES; i++)
		if (cn.nodes[i].node != NULL)
			assert_int_equal(au_node_set_view(cn.nodes[i].node, &cn.view), AU_OK);
}

static inline void
cn_command(const AuViewCommand *c)
{
	bool		changed;
	char		err[512];

	if (au_view_apply(&cn.view, c, &changed, err, sizeof(err)) != AU_OK)
		fail_msg("command %d: %s", c->type, err);
	if (changed)
		cn_set_view();
}

/* As the daemon proposes it. */
static inline void
cn_take_ready(CnNode *n)
{
	const AuViewNode *self = au_view_node_by_id(&cn.view, cn_node_id(n->index));
	AuViewCommand c = {.type = AU_VIEW_SLICES_READY};
	bool		changed;
	char		err[512];

	if (n->ready_epoch == 0 || self == NULL)
		return;
	c.number = self->number;
	c.slices = n->ready;
	c.epoch = n->ready_epoch;
	n->ready_epoch = 0;
	if (au_view_apply(&cn.view, &c, &changed, err, sizeof(err)) == AU_OK && changed)
		cn_set_view();
}

/* As consensus takes them: late, more than once, and without the answer. */
static inline void
cn_take_mending(CnNode *n)
{
	const AuViewNode *self = au_view_node_by_id(&cn.view, cn_node_id(n->index));
	AuViewCommand c = {
		.type = AU_VIEW_MENDING,.system_identifier = CN_SYSID,.up = n->mending > 0,
		.epoch = n->mending_epoch
	};
	AuStatus	status;
	bool		changed;
	bool		late = n->late.type != 0 && cn_random(50) == 0;
	char		err[512] = "";

	if (late)
	{
		if (au_view_apply(&cn.view, &n->late, &changed, err, sizeof(err)) == AU_OK && changed)
			cn_set_view();
		n->late.type = 0;
	}
	if (n->mending == 0 || self == NULL || cn_random(10) != 0)
		return;
	c.number = self->number;
	if (cn_random(3) == 0)
		n->late = c;
	status = au_view_apply(&cn.view, &c, &changed, err, sizeof(err));
	if (status == AU_OK && changed)
		cn_set_view();
	if (cn_random(4) == 0)
	{
		status = AU_IO;
		snprintf(err, sizeof(err), "nobody knows");
	}
	n->mending = 0;
	au_node_mending_told(n->node, &n->vol, c.up, status, err);
}

/* Some milliseconds go by. */
static inline void
cn_step(void)
{
	cn.now += 1000 + cn_random(20000);
	cn_deliver();
	for (int i = 0; i < CN_NODES; i++)
	{
		CnNode	   *n = &cn.nodes[i];

		if (n->node == NULL)
			continue;
		cn_work(n);
		for (int k = 0; k < 20 && au_node_run(n->node) == 0; k++)
			;
		cn_take_ready(n);
		cn_take_mending(n);
	}
}

/* Of a node that has the volume. */
static inline AuVolumeStats
cn_stats(int i)
{
	AuVolumeStats stats;
	void	   *vol;

	assert_true(au_node_volume_stats(cn.nodes[i].node, 0, &stats, &vol));
	return stats;
}

static inline void
cn_begin(const char *root, uint64_t seed)
{
	memset(&cn, 0, sizeof(cn));
	snprintf(cn_root, sizeof(cn_root), "%s", root);
	testdir_remove(cn_root);
	assert_int_equal(mkdir(cn_root, 0700), 0);
	cn.now = 1000000;
	cn.rng = seed * 0x9e3779b97f4a7c15ULL + 3;
	cn.retention = CN_RETENTION;
	cn.verbose = getenv("AU_TEST_VERBOSE") != NULL;
}

static inline void
cn_end(void)
{
	for (int i = 0; i < CN_NODES; i++)
	{
		if (cn.nodes[i].node != NULL)
			cn_crash(i);
		free(cn.nodes[i].vol.log);
	}
	for (int i = 0; i < CN_CONNS; i++)
		free(cn.conns[i].in);
	testdir_remove(cn_root);
}

#endif							/* AU_TEST_CLUSTERNODES_H */
