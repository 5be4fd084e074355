/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_node_export.c: page versions for other nodes: positions of a volume at
 * once, chunks of versions as soon as they can be made.
 *
 *   EXPORT ──▶ waits ── applied and written up to `upto`, a place is free ──▶
 *              with the host ──▶ EXPORT_DATA
 *
 * One question at a time of a connection.  Whoever waits in vain is told so
 * after AU_NODE_EXPORT_WAIT_US; one whose connection goes while the host works
 * is answered to nobody.
 */
#include "core/au_node_int.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include "common/au_wire_export.h"

#define LOOK_AGAIN_US 10000

typedef struct AuExporting
{
	struct AuExporting *next;
	AuConn	   *conn;			/* NULL: gone */
	AuVolume   *vol;
	uint64_t	id;
	uint64_t	until;
	bool		working;
	bool		finished;		/* to be forgotten */
	AuExportJob job;
} AuExporting;

/*
 * Who begins with our pages begins with an empty log.  So that it has some that
 * a server can be compared with, before it has all that a writer was elected
 * with, that begins a little below what the pages need: where a record does.
 */
static AuLsn
compare_from(AuVolume *v, AuLsn restart)
{
	const AuNodeHost *h = &v->node->host;
	AuLsn		from = h->log_start(h->ctx, v->handle);
	AuLsn		record;
	uint8_t    *page = v->node->slice;
	char		ignored[512];
	size_t		got;

	if (restart > AU_VOLUME_COMPARE_BYTES && from < restart - AU_VOLUME_COMPARE_BYTES)
		from = restart - AU_VOLUME_COMPARE_BYTES;
	from += AU_WAL_PAGE_SIZE - 1;
	for (from -= from % AU_WAL_PAGE_SIZE; from < restart; from += AU_WAL_PAGE_SIZE)
		if (h->log_read(h->ctx, v->handle, from, page, AU_WAL_PAGE_SIZE, &got, ignored,
						sizeof(ignored)) == AU_OK &&
			au_waldecode_first_record(page, got, from, v->meta.segment_size, &record))
			return record < restart ? record : restart;
	return restart;
}

static void
send_position(AuNode *n, AuConn *c, uint64_t id)
{
	const AuNodeHost *h = &n->host;
	AuVolume   *v = c->vol;
	AuMsgExportOk *m = h->alloc(h->ctx, sizeof(*m));
	AuWriter	w;

	if (m == NULL)
	{
		au_n_error(n, c, id, AU_NOMEM, NULL, "out of memory");
		return;
	}
	memset(m, 0, sizeof(*m));
	m->start_lsn = v->meta.start_lsn;
	m->log_lsn = h->log_start(h->ctx, v->handle);
	m->segment_size = v->meta.segment_size;
	m->timeline = v->meta.timeline;
	m->group = v->meta.group;
	h->store_position(h->ctx, v->handle, &m->position);
	m->position.restart = compare_from(v, m->position.restart);
	if (au_n_reserve(n, c, &w, AU_EXPORT_OK_CAP))
		au_n_send(n, c, &w, au_enc_export_ok(&w, id, m));
	h->release(h->ctx, m);
}

void
au_x_export(AuNode *n, AuConn *c, const AuFrame *f)
{
	const AuNodeHost *h = &n->host;
	AuVolume   *v = c->vol;
	AuMsgExport m;
	AuExporting *x;

	if (c->role != AU_ROLE_NODE || !au_dec_export(f, &m))
		au_n_error(n, c, f->id, AU_INVALID, NULL, c->role != AU_ROLE_NODE ?
				   "only a storage node may ask for page versions" : "malformed EXPORT");
	else if (v == NULL || h->store_export == NULL)
		au_n_error(n, c, f->id, AU_REFUSED, NULL,
				   "volume %" PRIu64 " is not on this node", c->system_identifier);
	else if (v->store_closed)
		au_n_error(n, c, f->id, AU_REFUSED, "Ask another node.", "%s", v->problem);
	else if (m.what == AU_EXPORT_POSITION)
		send_position(n, c, f->id);
	else if (c->exporting != NULL || n->nexports == AU_NODE_EXPORT_WAITS_MAX ||
			 (x = h->alloc(h->ctx, sizeof(*x))) == NULL)
		au_n_error(n, c, f->id, AU_FULL, "Ask again, or another node.",
				   "too many nodes want page versions of this one");
	else
	{
		memset(x, 0, sizeof(*x));
		x->conn = c;
		x->vol = v;
		x->id = f->id;
		x->until = h->now_us(h->ctx) + AU_NODE_EXPORT_WAIT_US;
		x->job.sizes = m.what == AU_EXPORT_SIZES;
		x->job.slices = m.slices;
		x->job.upto = m.upto;
		x->job.horizon = m.horizon;
		x->job.place = m.place;
		x->job.budget = m.budget < AU_NODE_CHUNK_MAX / 4 ? m.budget : AU_NODE_CHUNK_MAX / 4;
		x->next = n->exports;
		n->exports = x;
		n->nexports++;
		c->exporting = x;
	}
}

static void
finish(AuExporting *x)
{
	x->finished = true;
	if (x->conn != NULL)
		x->conn->exporting = NULL;
	x->conn = NULL;
}

static void
start(AuNode *n, AuExporting *x)
{
	const AuNodeHost *h = &n->host;
	size_t		cap = AU_WIRE_HEADER + AU_NODE_CHUNK_MAX;
	uint8_t    *memory = h->send_alloc(h->ctx, cap);

	if (memory == NULL)
	{
		au_n_error(n, x->conn, x->id, AU_NOMEM, NULL, "out of memory");
		finish(x);
		return;
	}
	au_writer_start(&x->job.answer, memory, cap);
	au_frame_begin(&x->job.answer, AU_MSG_EXPORT_DATA, x->id);
	x->working = true;
	n->nexporting++;
	h->store_export(h->ctx, x->vol->handle, &x->job);
}

/* It waits: can it begin, or was it in vain? */
static void
look_at(AuNode *n, AuExporting *x, uint64_t now)
{
	const AuNodeHost *h = &n->host;
	AuVolume   *v = x->vol;
	/* while one runs the store is not opened again */
	bool		closed = v->store_closed || v->draining || v->store_state == AU_STORE_STALLED;

	if (!closed && h->store_written(h->ctx, v->handle) >= x->job.upto)
	{
		if (n->nexporting < AU_NODE_EXPORTS_MAX)
			start(n, x);
	}
	else if (!closed && v->applied >= x->job.upto)
		(void) au_v_write(v, false);
	if (!x->working && !x->finished && now >= x->until)
	{
		au_n_error(n, x->conn, x->id, AU_REFUSED, "Ask again, or another node.",
				   "this node has applied log up to %X/%X, not %X/%X, or is too busy",
				   AU_LSN_ARGS(v->applied), AU_LSN_ARGS(x->job.upto));
		finish(x);
	}
}

uint64_t
au_x_run(AuNode *n, uint64_t now)
{
	AuExporting **at = &n->exports;
	bool		waits = false;

	while (*at != NULL)
	{
		AuExporting *x = *at;

		if (x->conn != NULL && !x->working && !x->conn->closing)
			look_at(n, x, now);
		if (x->finished || (x->conn == NULL && !x->working))
		{
			*at = x->next;
			n->nexports--;
			n->host.release(n->host.ctx, x);
			continue;
		}
		waits = waits || !x->working;
		at = &x->next;
	}
	return waits ? LOOK_AGAIN_US : UINT64_MAX;
}

void
au_node_exported(AuNode *n, AuExportJob *job)
{
	AuExporting *x = (AuExporting *) ((char *) job - offsetof(AuExporting, job));
	AuConn	   *c = x->conn;

	assert(x->working);
	x->working = false;
	n->nexporting--;
	if (job->status == AU_OK && c != NULL && !c->closing)
	{
		x->vol->stats.exported_bytes += job->answer.len;
		au_n_send(n, c, &job->answer, au_frame_end(&job->answer));
	}
	else
	{
		n->host.send_drop(n->host.ctx, job->answer.data);
		if (job->status != AU_OK && c != NULL)
		{
			if (job->status == AU_CORRUPT || job->status == AU_IO)
				au_n_log(n, AU_LOG_ERROR, "volume %" PRIu64 ": page versions for %s: %s",
						 x->vol->meta.system_identifier, c->name, job->err);
			au_n_error(n, c, x->id, job->status, NULL, "%s", job->err);
		}
	}
	finish(x);
}

void
au_x_free(AuNode *n)
{
	while (n->exports != NULL)
	{
		AuExporting *x = n->exports;

		assert(!x->working);
		n->exports = x->next;
		n->host.release(n->host.ctx, x);
	}
}

void
au_x_forget_conn(AuConn *c)
{
	if (c->exporting != NULL)
		c->exporting->conn = NULL;
	c->exporting = NULL;
}
