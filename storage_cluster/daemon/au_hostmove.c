/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_hostmove.c: slices that move, on files: chunks are read and written by
 * worker threads; a volume that begins with another node's sizes is built
 * beside the others, as <system identifier>.new, and then renamed.
 *
 * Writing such a volume's sizes is done by the loop thread: they are few bytes
 * a relation, and it happens once in the life of a node.
 */
#include "daemon/au_daemon.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/au_files.h"
#include "daemon/au_meta.h"
#include "store/au_export.h"

/* ---- slices of a store ------------------------------------------------ */

static void
host_store_slices(void *ctx, void *vol, AuSlicesState *out)
{
	(void) ctx;
	au_pagestore_slices(((AuHostVolume *) vol)->store, out);
}

static bool
host_store_slices_keep(void *ctx, void *vol, const AuSliceSet *slices)
{
	(void) ctx;
	return au_pagestore_slices_keep(((AuHostVolume *) vol)->store, slices);
}

static void
host_store_slices_drop(void *ctx, void *vol, const AuSliceSet *slices)
{
	(void) ctx;
	au_pagestore_slices_drop(((AuHostVolume *) vol)->store, slices);
}

static AuLsn
host_store_written(void *ctx, void *vol)
{
	(void) ctx;
	return au_pagestore_written_lsn(((AuHostVolume *) vol)->store);
}

static void
host_store_position(void *ctx, void *vol, AuStorePosition *out)
{
	(void) ctx;
	au_pagestore_position(((AuHostVolume *) vol)->store, out);
}

static void
host_store_import_finish(void *ctx, void *vol)
{
	(void) ctx;
	au_pagestore_import_finish(((AuHostVolume *) vol)->store);
}

/* ---- slices that are here now ------------------------------------------ */

static void
on_told(void *ctx, const AuCommandResult *r)
{
	AuDaemon   *d = ctx;

	d->telling_ready = false;
	if (r->status != AU_OK)
		au_log(d, AU_LOG_WARNING, "the cluster was not told which slices this node has now: %s; it is told again",
			   r->message);
}

static void
host_slices_ready(void *ctx, const AuSliceSet *slices, uint64_t epoch)
{
	AuDaemon   *d = ctx;
	AuViewCommand c = {.type = AU_VIEW_SLICES_READY,.slices = *slices,.epoch = epoch};

	if (d->meta == NULL || d->telling_ready)
		return;
	c.number = au_meta_number(d->meta);
	d->telling_ready = c.number != 0 && au_meta_propose(d->meta, &c, on_told, d);
}

/* ---- chunks for others ------------------------------------------------ */

typedef struct ExportWork
{
	uv_work_t	work;
	AuHostVolume *vol;
	AuExportJob *job;
	AuExport   *export;			/* NULL: it did not begin */
	size_t		len;
} ExportWork;

static void
export_work(uv_work_t *work)
{
	ExportWork *x = work->data;
	AuExportJob *job = x->job;

	if (x->export == NULL)
		return;
	job->status = au_pagestore_export_work(x->export, job->answer.data + job->answer.len,
										   job->budget, &x->len);
	if (job->status != AU_OK)
		snprintf(job->err, sizeof(job->err), "%s", au_pagestore_export_error(x->export));
}

static void
export_done(uv_work_t *work, int status)
{
	ExportWork *x = work->data;
	AuDaemon   *d = x->vol->daemon;
	AuExportJob *job = x->job;

	(void) status;
	au_pagestore_export_end(x->export);
	job->answer.len += x->len;
	x->vol->exports--;
	d->work--;
	free(x);
	au_node_exported(d->node, job);
}

static const char *
export_refusal(AuStatus status)
{
	switch (status)
	{
		case AU_MOVED:
			return "not all of these slices are on this node";
		case AU_GONE:
			return "versions as of this position are no longer kept";
		case AU_NEED_MORE:
			return "log is not applied so far";
		default:
			return "out of memory";
	}
}

static void
host_store_export(void *ctx, void *vol, AuExportJob *job)
{
	AuDaemon   *d = ctx;
	AuHostVolume *v = vol;
	ExportWork *x = calloc(1, sizeof(*x));
	AuExportSet set = {
		.keyspace = job->sizes ? AU_KS_SIZE : AU_KS_PAGE,.slices = job->slices
	};

	if (x == NULL)
	{
		/* nothing to answer with, either */
		au_log(d, AU_LOG_ERROR, "out of memory");
		abort();
	}
	job->status = au_pagestore_export_begin(v->store, &set, job->upto, job->horizon, &job->place,
											&x->export);
	if (job->status != AU_OK)
		snprintf(job->err, sizeof(job->err), "%s", export_refusal(job->status));
	x->vol = v;
	x->job = job;
	x->work.data = x;
	v->exports++;
	d->work++;
	uv_queue_work(d->loop, &x->work, export_work, export_done);
}

/* ---- chunks for us ---------------------------------------------------- */

typedef struct ImportWork
{
	uv_work_t	work;
	AuHostVolume *vol;
	AuImported	imported;
	AuStatus	status;
	char		err[512];
	size_t		len;
	uint8_t		chunk[];
} ImportWork;

static void
import_work(uv_work_t *work)
{
	ImportWork *x = work->data;

	x->status = au_pagestore_import_write(x->vol->store, x->chunk, x->len, &x->imported, x->err,
										  sizeof(x->err));
}

static void
import_done(uv_work_t *work, int status)
{
	ImportWork *x = work->data;
	AuHostVolume *v = x->vol;

	(void) status;
	if (x->status == AU_OK)
		au_pagestore_imported(v->store, &x->imported);
	v->daemon->work--;
	au_node_imported(v->daemon->node, v, x->status, x->err);
	free(x);
}

static void
host_store_import_start(void *ctx, void *vol, const uint8_t *bytes, size_t len)
{
	AuDaemon   *d = ctx;
	ImportWork *x = malloc(sizeof(*x) + len);

	if (x == NULL)
	{
		au_log(d, AU_LOG_ERROR, "out of memory");
		abort();
	}
	x->vol = vol;
	x->status = AU_OK;
	x->err[0] = '\0';
	x->len = len;
	memcpy(x->chunk, bytes, len);
	x->work.data = x;
	d->work++;
	uv_queue_work(d->loop, &x->work, import_work, import_done);
}

/* ---- a volume that begins with another node's sizes -------------------- */

static void
paths(const AuDaemon *d, uint64_t system_identifier, char *top, char *temp, char *path, size_t len)
{
	snprintf(top, len, "%.4000s/volumes", d->config.dir);
	snprintf(path, len, "%.4100s/%" PRIu64, top, system_identifier);
	snprintf(temp, len, "%.4100s/%" PRIu64 ".new", top, system_identifier);
}

static AuStatus
host_found_begin(void *ctx, const AuVolumeMeta *meta, const AuStorePosition *position,
				 void **vol, char *err, size_t errlen)
{
	AuDaemon   *d = ctx;
	AuHostVolume *v = calloc(1, sizeof(*v));
	AuVolumeMeta log = *meta;
	AuPageStoreOptions opt;
	char		top[4200];
	char		path[4400];
	char		pages[sizeof(v->dir) + 16];
	AuStatus	status;

	if (v == NULL)
	{
		snprintf(err, errlen, "out of memory");
		return AU_NOMEM;
	}
	paths(d, meta->system_identifier, top, v->dir, path, sizeof(top));
	v->daemon = d;
	v->system_identifier = meta->system_identifier;
	v->start_lsn = meta->start_lsn;
	log.start_lsn = position->restart;
	status = AU_IO;
	if (au_remove_tree(v->dir, err, errlen) && au_make_dir(v->dir, err, errlen) &&
		au_volume_write(v->dir, meta, err, errlen))
		status = au_log_make(d, v->dir, &log, err, errlen);
	if (status == AU_OK)
	{
		snprintf(pages, sizeof(pages), "%s/pages", v->dir);
		au_volume_store_options(v, pages, &opt);
		status = au_pagestore_found(&v->store, &opt, position, err, errlen);
	}
	if (status != AU_OK)
	{
		free(v);
		return status;
	}
	*vol = v;
	return AU_OK;
}

static AuStatus
host_found_take(void *ctx, void *vol, const uint8_t *bytes, size_t len, AuPlace *place,
				bool *done, char *err, size_t errlen)
{
	AuHostVolume *v = vol;
	AuImported	imported;
	AuStatus	status = au_pagestore_import_write(v->store, bytes, len, &imported, err, errlen);

	(void) ctx;
	if (status != AU_OK)
		return status;
	au_pagestore_imported(v->store, &imported);
	*place = imported.place;
	*done = imported.done;
	return AU_OK;
}

static void
host_found_abandon(void *ctx, void *vol)
{
	AuHostVolume *v = vol;
	char		ignored[512];

	(void) ctx;
	au_pagestore_close(v->store);
	(void) au_remove_tree(v->dir, ignored, sizeof(ignored));
	free(v);
}

/* The handle stays the same: it is the volume's now. */
static AuStatus
host_found_end(void *ctx, void *vol, char *err, size_t errlen)
{
	AuDaemon   *d = ctx;
	AuHostVolume *v = vol;
	char		top[4200];
	char		temp[4400];
	char		path[4400];
	AuStatus	status = au_pagestore_found_end(v->store, err, errlen);

	if (status != AU_OK)
	{
		host_found_abandon(ctx, vol);
		return status;
	}
	au_pagestore_close(v->store);
	v->store = NULL;
	paths(d, v->system_identifier, top, temp, path, sizeof(top));
	if (rename(temp, path) != 0)
	{
		snprintf(err, errlen, "could not rename \"%s\": %s", temp, strerror(errno));
		free(v);
		return AU_IO;
	}
	snprintf(v->dir, sizeof(v->dir), "%s", path);
	if (!au_sync_dir(top, err, errlen))
	{
		free(v);
		return AU_IO;
	}
	return au_volume_open_files(v, NULL, false, err, errlen);
}

void
au_moves_fill_host(AuNodeHost *h)
{
	h->store_slices = host_store_slices;
	h->store_slices_keep = host_store_slices_keep;
	h->store_slices_drop = host_store_slices_drop;
	h->store_written = host_store_written;
	h->store_position = host_store_position;
	h->store_export = host_store_export;
	h->store_import_start = host_store_import_start;
	h->store_import_finish = host_store_import_finish;
	h->found_begin = host_found_begin;
	h->found_take = host_found_take;
	h->found_end = host_found_end;
	h->found_abandon = host_found_abandon;
	h->slices_ready = host_slices_ready;
}
