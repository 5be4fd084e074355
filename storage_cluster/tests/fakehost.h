/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fakehost.h: a host for the node's core that lives in memory: a clock that
 * stands still until it is moved, logs and stores that do what a test says,
 * syncs and writes that end when a test says.
 */
#ifndef AU_TEST_FAKEHOST_H
#define AU_TEST_FAKEHOST_H

#include <stdio.h>
#include <stdlib.h>

#include "common/au_page.h"
#include "core/au_node.h"

#define FAKE_RECORDS_MAX 20000
#define FAKE_READS_MAX 16384

typedef struct FakeConn
{
	AuConn	   *conn;			/* the node's */
	uint8_t    *out;
	size_t		out_len;
	size_t		out_cap;
	bool		reading;
	bool		closed;
	uint8_t    *in;				/* given, not consumed yet */
	size_t		in_len;
} FakeConn;

typedef struct FakeVolume
{
	AuVolumeMeta meta;
	bool		exists;

	uint8_t    *log;
	AuLsn		log_start;
	AuLsn		log_end;
	AuLsn		log_durable;
	AuLsn		syncing_to;		/* 0: no sync runs */
	int			syncs;
	bool		sync_inline;	/* as on persistent memory ... */
	AuStatus	sync_status;	/* ... with this result */
	AuLsn		trimmed;
	AuStatus	append_status;	/* of the next appends */

	AuLsn		taken[FAKE_RECORDS_MAX];	/* ends of records in the store */
	int			ntaken;
	AuLsn		applied;		/* positions a reopened store would report */
	AuLsn		restart;
	AuLsn		frozen_applied;
	AuLsn		frozen_restart;
	AuLsn		persisted_applied;
	AuLsn		persisted_restart;
	bool		writing;
	bool		write_persist;
	int			writes;
	bool		full;
	AuStatus	apply_status;
	uint64_t	apply_cost_us;	/* the clock moves so far with each record */
	AuStatus	reopen_status;
	bool		closed;			/* a reopening failed */
	int			reopens;
	AuStatus	read_status;
	bool		read_later;		/* reads end by fake_read_done */
	AuPageBatch *reads[FAKE_READS_MAX];	/* under way */
	int			nreads;
	bool		refuse_freeze;	/* as a store does that readers hold on to */
	AuLsn		horizon;
	AuLsn		hold;
} FakeVolume;

typedef struct FakeHost
{
	AuNodeHost	host;
	AuNode	   *node;
	uint64_t	now;
	long		allocated;		/* blocks */
	char		fatal[512];
	char		last_log[1024];
	FakeVolume	vol;			/* one is enough */
	AuStatus	save_status;
	int			saves;
	uint64_t	saved_term;
	uint64_t	ticket;			/* of the last command for the cluster's view */
	AuViewCommand command;
	uint8_t		command_hops;
} FakeHost;

static inline uint64_t
fake_now(void *ctx)
{
	return ((FakeHost *) ctx)->now;
}

static inline void *
fake_alloc(void *ctx, size_t size)
{
	((FakeHost *) ctx)->allocated++;
	return malloc(size);
}

static inline void
fake_release(void *ctx, void *p)
{
	((FakeHost *) ctx)->allocated--;
	free(p);
}

static inline void
fake_log(void *ctx, AuLogLevel level, const char *message)
{
	(void) level;
	snprintf(((FakeHost *) ctx)->last_log, 1024, "%s", message);
}

static inline void
fake_fatal(void *ctx, const char *message)
{
	snprintf(((FakeHost *) ctx)->fatal, 512, "%s", message);
}

static inline const char *
fake_status_json(void *ctx, size_t *len)
{
	(void) ctx;
	*len = 2;
	return "{}";
}

static inline uint8_t *
fake_send_alloc(void *ctx, size_t cap)
{
	return fake_alloc(ctx, cap);
}

static inline void
fake_send_give(void *ctx, void *conn, uint8_t *memory, size_t len)
{
	FakeConn   *c = conn;

	if (c->out_len + len > c->out_cap)
	{
		c->out_cap = (c->out_len + len) * 2;
		c->out = realloc(c->out, c->out_cap);
	}
	memcpy(c->out + c->out_len, memory, len);
	c->out_len += len;
	fake_release(ctx, memory);
}

static inline void
fake_send_drop(void *ctx, uint8_t *memory)
{
	fake_release(ctx, memory);
}

static inline void
fake_set_reading(void *ctx, void *conn, bool on)
{
	(void) ctx;
	((FakeConn *) conn)->reading = on;
}

static inline void
fake_close(void *ctx, void *conn)
{
	(void) ctx;
	((FakeConn *) conn)->closed = true;
}

/* There are no other nodes. */
static inline void *
fake_peer_open(void *ctx, const char *address, AuConn *conn)
{
	(void) ctx;
	(void) address;
	(void) conn;
	return NULL;
}

/* ---- volume ----------------------------------------------------------- */

static inline AuStatus
fake_volume_create(void *ctx, const AuVolumeMeta *meta, void **vol, char *err, size_t errlen)
{
	FakeHost   *h = ctx;
	FakeVolume *v = &h->vol;

	snprintf(err, errlen, "one volume only");
	if (v->exists)
		return AU_FULL;
	v->exists = true;
	v->meta = *meta;
	v->log_start = v->log_end = v->log_durable = meta->start_lsn;
	v->applied = v->restart = v->persisted_applied = v->persisted_restart = meta->start_lsn;
	*vol = v;
	return AU_OK;
}

static inline AuStatus
fake_volume_save(void *ctx, void *vol, const AuVolumeMeta *meta, char *err, size_t errlen)
{
	FakeHost   *h = ctx;

	snprintf(err, errlen, "cannot save");
	if (h->save_status != AU_OK)
		return h->save_status;
	((FakeVolume *) vol)->meta = *meta;
	h->saves++;
	h->saved_term = meta->term;
	return AU_OK;
}

static inline AuStatus
fake_log_append(void *ctx, void *vol, uint64_t term, uint32_t timeline, AuLsn lsn,
				const uint8_t *bytes, size_t len, char *err, size_t errlen)
{
	FakeVolume *v = vol;

	(void) ctx;
	(void) term;
	(void) timeline;
	snprintf(err, errlen, "no room for log");
	if (v->append_status != AU_OK)
		return v->append_status;
	if (lsn != v->log_end)
		return AU_INVALID;
	v->log = realloc(v->log, (size_t) (v->log_end - v->meta.start_lsn) + len);
	memcpy(v->log + (lsn - v->meta.start_lsn), bytes, len);
	v->log_end += len;
	return AU_OK;
}

static inline bool
fake_log_sync_start(void *ctx, void *vol, AuStatus *status, char *err, size_t errlen)
{
	FakeVolume *v = vol;

	(void) ctx;
	v->syncs++;
	if (!v->sync_inline)
	{
		v->syncing_to = v->log_end;
		return false;
	}
	*status = v->sync_status;
	snprintf(err, errlen, "sync failed");
	if (*status == AU_OK)
		v->log_durable = v->log_end;
	return true;
}

static inline AuStatus
fake_log_read(void *ctx, void *vol, AuLsn lsn, uint8_t *buf, size_t cap, size_t *got,
			  char *err, size_t errlen)
{
	FakeVolume *v = vol;

	(void) ctx;
	snprintf(err, errlen, "cannot read the log");
	if (lsn < v->log_start || lsn >= v->log_end)
		return AU_NOT_FOUND;
	*got = v->log_end - lsn < cap ? (size_t) (v->log_end - lsn) : cap;
	memcpy(buf, v->log + (lsn - v->meta.start_lsn), *got);
	return AU_OK;
}

static inline AuStatus
fake_log_trim(void *ctx, void *vol, AuLsn lsn, char *err, size_t errlen)
{
	(void) ctx;
	(void) err;
	(void) errlen;
	((FakeVolume *) vol)->trimmed = lsn;
	return AU_OK;
}

static inline AuStatus
fake_log_truncate(void *ctx, void *vol, AuLsn lsn, char *err, size_t errlen)
{
	FakeVolume *v = vol;

	(void) ctx;
	(void) err;
	(void) errlen;
	v->log_end = v->log_durable = lsn;
	return AU_OK;
}

static inline AuLsn
fake_log_start(void *ctx, void *vol)
{
	(void) ctx;
	return ((FakeVolume *) vol)->log_start;
}

static inline AuLsn
fake_log_end(void *ctx, void *vol)
{
	(void) ctx;
	return ((FakeVolume *) vol)->log_end;
}

static inline AuLsn
fake_log_durable(void *ctx, void *vol)
{
	(void) ctx;
	return ((FakeVolume *) vol)->log_durable;
}

static inline AuStatus
fake_store_apply(void *ctx, void *vol, const AuWalRecord *rec)
{
	FakeVolume *v = vol;

	((FakeHost *) ctx)->now += v->apply_cost_us;
	if (v->apply_status != AU_OK)
		return v->apply_status;
	if (rec->kind == AU_WAL_OURS && rec->end > v->applied && v->ntaken < FAKE_RECORDS_MAX)
		v->taken[v->ntaken++] = rec->end;
	return AU_OK;
}

static inline bool
fake_store_full(void *ctx, void *vol)
{
	(void) ctx;
	return ((FakeVolume *) vol)->full;
}

static inline bool
fake_store_freeze(void *ctx, void *vol, AuLsn applied, AuLsn restart)
{
	FakeVolume *v = vol;

	(void) ctx;
	if (v->writing || v->refuse_freeze)
		return false;
	v->frozen_applied = applied;
	v->frozen_restart = restart;
	v->full = false;
	return true;
}

static inline void
fake_store_write_start(void *ctx, void *vol, bool persist)
{
	FakeVolume *v = vol;

	(void) ctx;
	v->writing = true;
	v->write_persist = persist;
	v->writes++;
}

static inline AuStatus
fake_store_reopen(void *ctx, void *vol, char *err, size_t errlen)
{
	FakeVolume *v = vol;

	(void) ctx;
	if (v->nreads > 0)
		abort();				/* the node promised */
	snprintf(err, errlen, "cannot reopen");
	v->closed = v->reopen_status != AU_OK && v->reopen_status != AU_FULL;
	if (v->reopen_status != AU_OK)
		return v->reopen_status;
	v->reopens++;
	v->applied = v->persisted_applied;
	v->restart = v->persisted_restart;
	while (v->ntaken > 0 && v->taken[v->ntaken - 1] > v->applied)
		v->ntaken--;
	return AU_OK;
}

static inline void
fake_store_positions(void *ctx, void *vol, AuLsn *applied, AuLsn *restart)
{
	(void) ctx;
	*applied = ((FakeVolume *) vol)->applied;
	*restart = ((FakeVolume *) vol)->restart;
}

static inline void
fake_store_persisted(void *ctx, void *vol, AuLsn *applied, AuLsn *restart)
{
	(void) ctx;
	*applied = ((FakeVolume *) vol)->persisted_applied;
	*restart = ((FakeVolume *) vol)->persisted_restart;
}

static inline void
fake_store_set_applied(void *ctx, void *vol, AuLsn applied)
{
	(void) ctx;
	(void) vol;
	(void) applied;
}

static inline AuLsn
fake_store_horizon(void *ctx, void *vol)
{
	(void) ctx;
	return ((FakeVolume *) vol)->horizon;
}

static inline AuLsn
fake_store_last_change(void *ctx, void *vol)
{
	FakeVolume *v = vol;

	(void) ctx;
	if (v->closed)
		abort();				/* there is no store */
	return v->ntaken > 0 ? v->taken[v->ntaken - 1] : v->applied;
}

static inline bool
fake_store_rewind(void *ctx, void *vol, AuLsn lsn)
{
	return fake_store_last_change(ctx, vol) <= lsn;
}

/* Pages that tell which record was the newest. */
static inline void
fake_read_now(FakeVolume *v, AuPageBatch *b)
{
	AuLsn		newest = 0;

	b->status = v->read_status;
	snprintf(b->err, sizeof(b->err), "fake trouble");
	if (b->status != AU_OK)
		return;
	for (int i = 0; i < v->ntaken && v->taken[i] <= b->lsn; i++)
		newest = v->taken[i];
	for (; b->done < b->nblocks; b->done++)
	{
		uint8_t    *page = au_pages_slot(&b->answer);

		if (b->blocks[b->done] == 999 || newest == 0)
			au_pages_add(&b->answer, AU_NOT_FOUND);
		else
		{
			memset(page, (int) b->blocks[b->done], AU_PAGE_SIZE);
			au_page_set_lsn(page, newest);
			au_pages_add(&b->answer, AU_OK);
		}
	}
	if (!au_frame_end(&b->answer))
		abort();
}

static inline bool
fake_store_read(void *ctx, void *vol, AuPageBatch *b)
{
	FakeVolume *v = vol;

	(void) ctx;
	if (v->read_later && v->nreads < FAKE_READS_MAX)
	{
		v->reads[v->nreads++] = b;
		return false;
	}
	fake_read_now(v, b);
	return true;
}

static inline AuStatus
fake_store_size(void *ctx, void *vol, const AuRelId *rel, AuLsn lsn, uint32_t *nblocks)
{
	(void) ctx;
	(void) vol;
	(void) rel;
	(void) lsn;
	*nblocks = 17;
	return AU_OK;
}

static inline void
fake_store_list(void *ctx, void *vol, uint32_t db,
				void (*fn) (void *fnctx, const AuRelId *rel, uint32_t nblocks), void *fnctx)
{
	AuRelId		rel = {1663, db, 16384, 0};

	(void) ctx;
	(void) vol;
	fn(fnctx, &rel, 17);
}

static inline bool
fake_store_gc_step(void *ctx, void *vol)
{
	(void) ctx;
	(void) vol;
	return false;
}

static inline const char *
fake_store_error(void *ctx, void *vol)
{
	(void) ctx;
	(void) vol;
	return "fake trouble";
}

static inline void
fake_store_set_hold(void *ctx, void *vol, AuLsn lsn)
{
	(void) ctx;
	((FakeVolume *) vol)->hold = lsn;
}

static inline void
fake_command(void *ctx, uint64_t ticket, const AuViewCommand *c, uint8_t hops)
{
	FakeHost   *h = ctx;

	h->ticket = ticket;
	h->command = *c;
	h->command_hops = hops;
}

static inline void
fake_host_start(FakeHost *h, const AuNodeOptions *opt)
{
	memset(h, 0, sizeof(*h));
	h->now = 1000000;
	h->host = (AuNodeHost)
	{
		h, fake_now, fake_alloc, fake_release, fake_log, fake_fatal, fake_status_json,
		fake_send_alloc, fake_send_give, fake_send_drop, fake_set_reading, fake_close, fake_peer_open, NULL, NULL,
		fake_volume_create, fake_volume_save,
		fake_log_append, fake_log_sync_start, fake_log_read, fake_log_trim, fake_log_truncate,
		fake_log_start, fake_log_end, fake_log_durable,
		fake_store_apply, fake_store_full, fake_store_freeze, fake_store_write_start,
		fake_store_reopen, fake_store_positions, fake_store_persisted, fake_store_set_applied,
		fake_store_horizon, fake_store_set_hold, fake_store_last_change, fake_store_rewind, fake_store_read,
		fake_store_size, fake_store_list, fake_store_gc_step, fake_store_error, fake_command,
		NULL, NULL, NULL, NULL,
		NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
		NULL, NULL, NULL, NULL, NULL, NULL, NULL
	};
	h->node = au_node_new(&h->host, opt);
}

/* The sync under way ends. */
static inline void
fake_sync_done(FakeHost *h, AuStatus status)
{
	FakeVolume *v = &h->vol;
	AuLsn		to = v->syncing_to;

	v->syncing_to = 0;
	if (status == AU_OK)
		v->log_durable = to;
	au_node_synced(h->node, v, status, "sync failed");
}

/* The i-th read under way ends. */
static inline void
fake_read_done(FakeHost *h, int i)
{
	FakeVolume *v = &h->vol;
	AuPageBatch *b = v->reads[i];

	memmove(&v->reads[i], &v->reads[i + 1], (size_t) (--v->nreads - i) * sizeof(b));
	fake_read_now(v, b);
	au_node_read_done(h->node, b);
}

static inline void
fake_write_done(FakeHost *h, AuStatus status)
{
	FakeVolume *v = &h->vol;

	v->writing = false;
	if (status == AU_OK && v->write_persist)
	{
		v->persisted_applied = v->frozen_applied;
		v->persisted_restart = v->frozen_restart;
	}
	au_node_written(h->node, v, status, "write failed");
}

static inline void
fake_conn_open(FakeHost *h, FakeConn *c)
{
	memset(c, 0, sizeof(*c));
	c->reading = true;
	c->conn = au_node_conn_opened(h->node, c);
}

static inline void
fake_conn_end(FakeHost *h, FakeConn *c)
{
	au_node_conn_closed(h->node, c->conn);
	free(c->out);
	free(c->in);
	c->conn = NULL;
}

/* Offer what is there, in pieces of at most `piece` bytes more at a time. */
static inline void
fake_offer(FakeHost *h, FakeConn *c, size_t piece)
{
	size_t		visible = 0;

	while (c->reading && !c->closed && c->in_len > 0)
	{
		size_t		need;
		size_t		used;

		visible = visible + piece < c->in_len ? visible + piece : c->in_len;
		used = au_node_input(h->node, c->conn, c->in, visible, &need);
		memmove(c->in, c->in + used, c->in_len - used);
		c->in_len -= used;
		visible -= used;
		if (used == 0 && visible == c->in_len)
			break;
	}
}

static inline void
fake_input(FakeHost *h, FakeConn *c, const uint8_t *bytes, size_t len, size_t piece)
{
	c->in = realloc(c->in, c->in_len + len);
	memcpy(c->in + c->in_len, bytes, len);
	c->in_len += len;
	fake_offer(h, c, piece);
}

#endif							/* AU_TEST_FAKEHOST_H */
