/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_hostvol.c: the node's volumes on files: the landing log, RocksDB, and
 * the work that runs in worker threads.
 *
 * Of each volume at most one sync and one write run at a time (the node sees
 * to that).  A landing log is appended to and read by the loop thread while
 * another thread syncs it; au_landing.h allows that.
 */
#include "daemon/au_daemon.h"

#include <assert.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/au_files.h"
#include "store/au_export.h"

/* ---- opening ---------------------------------------------------------- */

void
au_volume_store_options(const AuHostVolume *v, const char *dir, AuPageStoreOptions *opt)
{
	AuDaemon   *d = v->daemon;
	const AuMemoryPlan *plan = au_store_memory_plan(d->memory);

	*opt = (AuPageStoreOptions)
	{
		.dir = dir,.system_identifier = v->system_identifier,.start_lsn = v->start_lsn,
		.pending_bytes = plan->generation,
		/* never reached: memtables are flushed when all together are too much */
		.write_buffer_bytes = plan->memtables + 2 * plan->generation,
		.retention_bytes = d->config.retention_mb * 1024 * 1024,
		.retention_us = d->config.retention_seconds * 1000000,
		.cold_zstd = d->config.cold_zstd,.memory = d->memory
	};
}

static AuStatus
open_store(AuHostVolume *v, char *err, size_t errlen)
{
	char		dir[sizeof(v->dir) + 16];
	AuPageStoreOptions opt;
	AuStatus	status;

	snprintf(dir, sizeof(dir), "%s/pages", v->dir);
	au_volume_store_options(v, dir, &opt);
	status = au_pagestore_open(&v->store, &opt, err, errlen);
	if (status == AU_OK)
	{
		au_pagestore_set_hold(v->store, v->hold);
		v->persisted_applied = au_pagestore_persisted_applied(v->store);
		v->persisted_restart = au_pagestore_persisted_restart(v->store);
	}
	return status;
}

static void
free_volume(AuHostVolume *v)
{
	au_rebuild_end(v->rebuild);
	if (v->store != NULL)
		au_pagestore_close(v->store);
	if (v->landing != NULL)
		au_landing_close(v->landing);
	free(v);
}

/* Log that was acknowledged is not here: the node may have nothing to say any
 * more when the log is agreed on, so it cannot go on with what is left. */
static void
tell_way_out(bool others, char *err, size_t errlen)
{
	size_t		len = strlen(err);

	snprintf(err + len, errlen - len, "; %s", others ?
			 "other nodes keep this log, too: let a new node take this one's place, see \"A node's landing log is damaged\" in docs/operation.md" :
			 "restore the node's directory from a backup");
}

/* A damaged log is rescued if the pages are well, and tell what is needed. */
static AuStatus
open_log(AuHostVolume *v, AuVolumeMeta *meta, bool others, char *err, size_t errlen)
{
	AuStatus	status = au_log_open(v, AU_LSN_INVALID, err, errlen);
	char		ignored[512];

	if (status == AU_CORRUPT && meta != NULL && open_store(v, ignored, sizeof(ignored)) == AU_OK)
	{
		au_pagestore_close(v->store);
		v->store = NULL;
		status = au_log_rescue(v, meta, v->persisted_restart, err, errlen);
	}
	if (status == AU_CORRUPT)
		tell_way_out(others, err, errlen);
	if (status == AU_OK && meta != NULL && meta->lost_before == 0)
		au_log_forget_damaged(v);
	return status;
}

AuStatus
au_volume_open_files(AuHostVolume *v, AuVolumeMeta *meta, bool others, char *err, size_t errlen)
{
	AuRelog		relog;
	AuStatus	status;

	au_log_relog(v, &relog);
	status = au_relog_roll(&relog, err, errlen);
	if (status == AU_OK && !au_mend_finish(v, err, errlen))
		status = AU_IO;
	if (status == AU_OK)
		status = open_log(v, meta, others, err, errlen);
	if (status == AU_OK)
		status = open_store(v, err, errlen);
	if (status != AU_OK && !(others && status == AU_CORRUPT && v->landing != NULL))
	{
		free_volume(v);
		return status;
	}
	v->next = v->daemon->volumes;
	v->daemon->volumes = v;
	return AU_OK;
}

/* NULL with err and *status set on failure. */
static AuHostVolume *
open_volume(AuDaemon *d, const char *dir, AuVolumeMeta *meta, AuStatus *status,
			char *err, size_t errlen)
{
	AuHostVolume *v = calloc(1, sizeof(*v));
	char		view[sizeof(d->config.dir) + 16];

	*status = AU_NOMEM;
	snprintf(err, errlen, "out of memory");
	if (v == NULL)
		return NULL;
	v->daemon = d;
	v->system_identifier = meta->system_identifier;
	v->start_lsn = meta->start_lsn;
	snprintf(v->dir, sizeof(v->dir), "%s", dir);
	snprintf(view, sizeof(view), "%s/VIEW", d->config.dir);
	*status = au_volume_open_files(v, meta, meta->group.n > 1 || au_is_there(view), err, errlen);
	return *status == AU_OK ? v : NULL;
}

static bool
open_found(AuDaemon *d, const char *dir, uint64_t named, char *err, size_t errlen)
{
	AuVolumeMeta meta;
	AuHostVolume *v;
	AuStatus	status;
	char		why[512];

	if (au_volume_read(dir, &meta, err, errlen) != AU_OK)
		return false;
	if (meta.system_identifier != named)
	{
		snprintf(err, errlen, "directory \"%s\" holds volume %" PRIu64 "; give it that name back",
				 dir, meta.system_identifier);
		return false;
	}
	if (d->config.single_volume != 0 && named != d->config.single_volume)
	{
		snprintf(err, errlen, "\"%s\" is the volume of another server than %" PRIu64 " (--single-volume); use another directory, or remove this one if that server is gone",
				 dir, d->config.single_volume);
		return false;
	}
	v = open_volume(d, dir, &meta, &status, why, sizeof(why));
	if (v != NULL && v->store == NULL)
	{
		au_log(d, AU_LOG_ERROR, "volume %" PRIu64 ": %s", named, why);
		if (au_node_add_damaged(d->node, &meta, v, why) == AU_OK)
			return true;
		snprintf(err, errlen, "could not open volume \"%s\": %s", dir, why);
		return false;
	}
	if (v == NULL || au_node_add_volume(d->node, &meta, v, why, sizeof(why)) != AU_OK)
	{
		snprintf(err, errlen, "could not open volume \"%s\": %s", dir, why);
		return false;
	}
	au_log(d, AU_LOG_INFO, "volume %" PRIu64 ": log up to %X/%X, pages up to %X/%X; landing log on %s in \"%s\"",
		   named, AU_LSN_ARGS(au_landing_end(v->landing)),
		   AU_LSN_ARGS(au_pagestore_applied_lsn(v->store)), au_landing_kind(v->landing),
		   v->log_dir);
	return true;
}

bool
au_volumes_open(AuDaemon *d, char *err, size_t errlen)
{
	char		top[sizeof(d->config.dir) + 16];
	char		path[4400];
	DIR		   *dir;
	struct dirent *entry;
	bool		ok = true;

	snprintf(top, sizeof(top), "%s/volumes", d->config.dir);
	if (!au_make_dir(top, err, errlen))
		return false;
	dir = opendir(top);
	if (dir == NULL)
	{
		snprintf(err, errlen, "could not open directory \"%s\": %s", top, strerror(errno));
		return false;
	}
	while (ok && (entry = readdir(dir)) != NULL)
	{
		char	   *end;
		uint64_t	id;

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%.4120s/%.255s", top, entry->d_name);
		errno = 0;
		id = strtoull(entry->d_name, &end, 10);
		if (strcmp(end, ".new") == 0 && id != 0)
			ok = au_remove_tree(path, err, errlen); /* half made in a crash */
		else if (*end != '\0' || id == 0 || errno != 0)
			au_log(d, AU_LOG_WARNING, "\"%s\" is no volume: ignored", path);
		else
			ok = open_found(d, path, id, err, errlen);
	}
	closedir(dir);
	return ok;
}

void
au_volumes_close(AuDaemon *d)
{
	while (d->volumes != NULL)
	{
		AuHostVolume *v = d->volumes;

		d->volumes = v->next;
		free_volume(v);
	}
}

/* ---- host: volumes ---------------------------------------------------- */

static AuStatus
host_volume_create(void *ctx, const AuVolumeMeta *meta, void **vol, char *err, size_t errlen)
{
	AuDaemon   *d = ctx;
	char		top[sizeof(d->config.dir) + 16];
	char		temp[4400];
	char		path[4400];
	AuVolumeMeta made = *meta;
	AuHostVolume *v;
	AuStatus	status;

	if (au_disk_free(d->config.dir) < d->config.disk_reserve_mb * 1024 * 1024)
	{
		snprintf(err, errlen, "less than %" PRIu64 " MB are free on \"%s\"",
				 d->config.disk_reserve_mb, d->config.dir);
		return AU_FULL;
	}
	snprintf(top, sizeof(top), "%s/volumes", d->config.dir);
	snprintf(path, sizeof(path), "%.4120s/%" PRIu64, top, meta->system_identifier);
	snprintf(temp, sizeof(temp), "%.4120s/%" PRIu64 ".new", top, meta->system_identifier);
	if (!au_remove_tree(temp, err, errlen) || !au_make_dir(temp, err, errlen) ||
		!au_volume_write(temp, meta, err, errlen))
		return AU_IO;
	status = au_log_make(d, temp, meta, err, errlen);
	if (status != AU_OK)
		return status;
	if (rename(temp, path) != 0)
	{
		snprintf(err, errlen, "could not rename \"%s\": %s", temp, strerror(errno));
		return AU_IO;
	}
	if (!au_sync_dir(top, err, errlen))
		return AU_IO;
	v = open_volume(d, path, &made, &status, err, errlen);
	if (v == NULL)
	{
		char		ignored[256];

		(void) au_remove_tree(path, ignored, sizeof(ignored));
		return status;
	}
	au_log(d, AU_LOG_INFO, "volume %" PRIu64 ": landing log on %s in \"%s\"",
		   meta->system_identifier, au_landing_kind(v->landing), v->log_dir);
	*vol = v;
	return AU_OK;
}

static AuStatus
host_volume_save(void *ctx, void *vol, const AuVolumeMeta *meta, char *err, size_t errlen)
{
	AuHostVolume *v = vol;

	(void) ctx;
	return au_volume_write(v->dir, meta, err, errlen) ? AU_OK : AU_IO;
}

/* ---- host: landing log ------------------------------------------------ */

static AuStatus
host_log_append(void *ctx, void *vol, uint64_t term, uint32_t timeline, AuLsn lsn,
				const uint8_t *bytes, size_t len, char *err, size_t errlen)
{
	if (!au_disk_room(ctx, len, err, errlen))
		return AU_FULL;
	return au_landing_append(((AuHostVolume *) vol)->landing, term, timeline, lsn, bytes, len,
							 err, errlen);
}

static void
sync_work(uv_work_t *work)
{
	AuHostVolume *v = work->data;

	v->sync_status = au_landing_sync(v->landing, v->sync_err, sizeof(v->sync_err));
}

static void
sync_done(uv_work_t *work, int status)
{
	AuHostVolume *v = work->data;

	(void) status;
	v->daemon->work--;
	au_node_synced(v->daemon->node, v, v->sync_status, v->sync_err);
}

static bool
host_log_sync_start(void *ctx, void *vol, AuStatus *status, char *err, size_t errlen)
{
	AuDaemon   *d = ctx;
	AuHostVolume *v = vol;

	if (au_landing_sync_inline(v->landing))
	{
		*status = au_landing_sync(v->landing, err, errlen);
		return true;
	}
	v->sync_work.data = v;
	d->work++;
	uv_queue_work(d->loop, &v->sync_work, sync_work, sync_done);
	return false;
}

static AuStatus
host_log_read(void *ctx, void *vol, AuLsn lsn, uint8_t *buf, size_t cap, size_t *got,
			  char *err, size_t errlen)
{
	(void) ctx;
	return au_landing_read(((AuHostVolume *) vol)->landing, lsn, buf, cap, got, err, errlen);
}

static void
remove_work(uv_work_t *work)
{
	AuHostVolume *v = work->data;

	v->remove_err[0] = '\0';
	(void) au_landing_remove(v->landing, v->remove_err, sizeof(v->remove_err));
}

static void remove_start(AuHostVolume *v);

static void
remove_done(uv_work_t *work, int status)
{
	AuHostVolume *v = work->data;

	(void) status;
	v->daemon->work--;
	v->removing = false;
	if (v->remove_err[0] != '\0')
		au_log(v->daemon, AU_LOG_WARNING, "volume %" PRIu64 ": could not trim the landing log: %s",
			   v->system_identifier, v->remove_err);
	else if (v->remove_again)
		remove_start(v);
	au_wake(v->daemon);
}

/* A file of 64 MB takes tens of milliseconds: too long for the loop. */
static void
remove_start(AuHostVolume *v)
{
	v->remove_again = v->removing;
	if (v->removing)
		return;
	v->removing = true;
	v->remove_work.data = v;
	v->daemon->work++;
	uv_queue_work(v->daemon->loop, &v->remove_work, remove_work, remove_done);
}

static AuStatus
host_log_trim(void *ctx, void *vol, AuLsn lsn, char *err, size_t errlen)
{
	AuHostVolume *v = vol;
	bool		more = false;
	AuStatus	status = au_landing_forget(v->landing, lsn, &more, err, errlen);

	(void) ctx;
	if (more)
		remove_start(v);
	return status;
}

static AuStatus
host_log_truncate(void *ctx, void *vol, AuLsn lsn, char *err, size_t errlen)
{
	(void) ctx;
	return au_landing_truncate(((AuHostVolume *) vol)->landing, lsn, err, errlen);
}

static AuLsn
host_log_start(void *ctx, void *vol)
{
	(void) ctx;
	return au_landing_start(((AuHostVolume *) vol)->landing);
}

static AuLsn
host_log_end(void *ctx, void *vol)
{
	(void) ctx;
	return au_landing_end(((AuHostVolume *) vol)->landing);
}

static AuLsn
host_log_durable(void *ctx, void *vol)
{
	(void) ctx;
	return au_landing_durable(((AuHostVolume *) vol)->landing);
}

/* ---- host: page store ------------------------------------------------- */

static AuStatus
host_store_apply(void *ctx, void *vol, const AuWalRecord *rec)
{
	(void) ctx;
	return au_pagestore_apply(((AuHostVolume *) vol)->store, rec);
}

static bool
host_store_full(void *ctx, void *vol)
{
	(void) ctx;
	return au_pagestore_full(((AuHostVolume *) vol)->store);
}

static bool
host_store_freeze(void *ctx, void *vol, AuLsn applied, AuLsn restart)
{
	(void) ctx;
	return au_pagestore_freeze(((AuHostVolume *) vol)->store, applied, restart);
}

static void
write_work(uv_work_t *work)
{
	AuHostVolume *v = work->data;

	v->write_status = au_pagestore_write(v->store, v->write_persist, v->write_err,
										 sizeof(v->write_err));
}

static void
write_done(uv_work_t *work, int status)
{
	AuHostVolume *v = work->data;

	(void) status;
	v->daemon->work--;
	au_pagestore_written(v->store, v->write_status);
	v->persisted_applied = au_pagestore_persisted_applied(v->store);
	v->persisted_restart = au_pagestore_persisted_restart(v->store);
	au_node_written(v->daemon->node, v, v->write_status, v->write_err);
}

static void
host_store_write_start(void *ctx, void *vol, bool persist)
{
	AuDaemon   *d = ctx;
	AuHostVolume *v = vol;

	v->write_work.data = v;
	v->write_persist = persist;
	d->work++;
	uv_queue_work(d->loop, &v->write_work, write_work, write_done);
}

/* Log and page store are exchanged together.  AU_FULL: nothing has happened.
 * Once it is begun there is no way back: a start brings it to its end. */
static AuStatus
exchange_all(AuHostVolume *v, char *err, size_t errlen)
{
	AuDaemon   *d = v->daemon;
	AuRelog		r;
	AuStatus	status;

	au_log_relog(v, &r);
	if (au_relog_begin(&r, v->relog, err, errlen) != AU_OK)
		return AU_FULL;
	if (v->store != NULL)
		au_pagestore_close(v->store);
	v->store = NULL;
	au_landing_close(v->landing);
	v->landing = NULL;
	status = au_relog_roll(&r, err, errlen);
	if (status == AU_OK)
		status = au_log_open(v, AU_LSN_INVALID, err, errlen);
	if (status != AU_OK)
		d->host.fatal(d, err);
	v->relog = 0;
	v->mended = false;
	return status;
}

static AuStatus
host_store_reopen(void *ctx, void *vol, char *err, size_t errlen)
{
	AuDaemon   *d = ctx;
	AuHostVolume *v = vol;
	uint64_t	free_mb = au_disk_free(v->dir) / (1024 * 1024);
	AuStatus	status;

	if (v->scrub != NULL || v->exports > 0)
	{
		snprintf(err, errlen, "%s is still looking at the page store",
				 v->scrub != NULL ? "the scrubber" : "another node");
		return AU_FULL;
	}
	/* RocksDB would fail again at once. */
	if (free_mb < d->config.disk_reserve_mb)
	{
		snprintf(err, errlen, "only %" PRIu64 " MB are free on \"%s\", %" PRIu64 " MB are wanted; make room",
				 free_mb, v->dir, d->config.disk_reserve_mb);
		return AU_FULL;
	}
	if (v->relog != 0)
	{
		/* a worker has the log that would be closed */
		if (v->removing)
		{
			snprintf(err, errlen, "old files of the landing log are being removed");
			return AU_FULL;
		}
		status = exchange_all(v, err, errlen);
		if (status != AU_OK)
			return status;
	}
	if (v->store != NULL)
		au_pagestore_close(v->store);
	v->store = NULL;
	if (!au_mend_switch(v, err, errlen))
		return AU_IO;
	status = open_store(v, err, errlen);
	return status == AU_FULL ? AU_IO : status;
}

static void
host_store_positions(void *ctx, void *vol, AuLsn *applied, AuLsn *restart)
{
	AuHostVolume *v = vol;

	(void) ctx;
	*applied = au_pagestore_applied_lsn(v->store);
	*restart = au_pagestore_restart_lsn(v->store);
}

static void
host_store_persisted(void *ctx, void *vol, AuLsn *applied, AuLsn *restart)
{
	AuHostVolume *v = vol;

	(void) ctx;
	*applied = v->persisted_applied;
	*restart = v->persisted_restart;
}

static void
host_store_set_applied(void *ctx, void *vol, AuLsn applied)
{
	(void) ctx;
	au_pagestore_set_applied(((AuHostVolume *) vol)->store, applied);
}

/* Figures may be asked for while the store is closed. */
static AuLsn
host_store_horizon(void *ctx, void *vol)
{
	AuHostVolume *v = vol;

	(void) ctx;
	return v->store != NULL ? au_pagestore_horizon(v->store) : 0;
}

static void
host_store_set_hold(void *ctx, void *vol, AuLsn lsn)
{
	AuHostVolume *v = vol;

	(void) ctx;
	v->hold = lsn;
	if (v->store != NULL)
		au_pagestore_set_hold(v->store, lsn);
}

static AuLsn
host_store_last_change(void *ctx, void *vol)
{
	(void) ctx;
	return au_pagestore_last_change(((AuHostVolume *) vol)->store);
}

static bool
host_store_rewind(void *ctx, void *vol, AuLsn lsn)
{
	(void) ctx;
	return au_pagestore_rewind(((AuHostVolume *) vol)->store, lsn);
}

static bool
host_store_read(void *ctx, void *vol, AuPageBatch *batch)
{
	AuDaemon   *d = ctx;

	if (au_readers_read(d->readers, ((AuHostVolume *) vol)->store, batch))
		return true;
	d->work++;
	return false;
}

void
au_volumes_read_done(void *daemon, AuPageBatch *batch)
{
	AuDaemon   *d = daemon;

	d->work--;
	au_node_read_done(d->node, batch);
}

void
au_volumes_turn(AuDaemon *d)
{
	for (AuHostVolume *v = d->volumes; v != NULL; v = v->next)
		if (v->store != NULL)
			au_pagestore_turn(v->store);
}

static AuStatus
host_store_size(void *ctx, void *vol, const AuRelId *rel, AuLsn lsn, uint32_t *nblocks)
{
	(void) ctx;
	return au_pagestore_size(((AuHostVolume *) vol)->store, rel, lsn, nblocks);
}

static void
host_store_list(void *ctx, void *vol, uint32_t db,
				void (*fn) (void *fnctx, const AuRelId *rel, uint32_t nblocks), void *fnctx)
{
	(void) ctx;
	au_pagestore_list(((AuHostVolume *) vol)->store, db, fn, fnctx);
}

static bool
host_store_gc_step(void *ctx, void *vol)
{
	AuPageStore *store = ((AuHostVolume *) vol)->store;
	bool		more = au_pagestore_gc_step(store);

	(void) ctx;
	return au_pagestore_slices_step(store) || more;
}

static const char *
host_store_error(void *ctx, void *vol)
{
	(void) ctx;
	return au_pagestore_error(((AuHostVolume *) vol)->store);
}

void
au_volumes_fill_host(AuNodeHost *h)
{
	h->volume_create = host_volume_create;
	h->volume_save = host_volume_save;
	h->log_append = host_log_append;
	h->log_sync_start = host_log_sync_start;
	h->log_read = host_log_read;
	h->log_trim = host_log_trim;
	h->log_truncate = host_log_truncate;
	h->log_start = host_log_start;
	h->log_end = host_log_end;
	h->log_durable = host_log_durable;
	h->store_apply = host_store_apply;
	h->store_full = host_store_full;
	h->store_freeze = host_store_freeze;
	h->store_write_start = host_store_write_start;
	h->store_reopen = host_store_reopen;
	h->store_positions = host_store_positions;
	h->store_persisted = host_store_persisted;
	h->store_set_applied = host_store_set_applied;
	h->store_horizon = host_store_horizon;
	h->store_set_hold = host_store_set_hold;
	h->store_last_change = host_store_last_change;
	h->store_rewind = host_store_rewind;
	h->store_read = host_store_read;
	h->store_size = host_store_size;
	h->store_list = host_store_list;
	h->store_gc_step = host_store_gc_step;
	h->store_error = host_store_error;
	au_moves_fill_host(h);
}
