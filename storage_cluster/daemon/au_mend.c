/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_mend.c: a page store made anew in VOLUME/pages.new, and how it takes the
 * place of VOLUME/pages (au_pagedirs.h); au_mend_finish brings to its end what a
 * crash stopped.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/au_wire_export.h"
#include "daemon/au_daemon.h"
#include "daemon/au_files.h"
#include "daemon/au_meta.h"
#include "daemon/au_pagedirs.h"

/* What is left over does no harm but take room. */
static void
remove_left(const AuHostVolume *v, const char *path)
{
	char		err[512];

	if (au_is_there(path) && !au_remove_tree(path, err, sizeof(err)))
		au_log(v->daemon, AU_LOG_WARNING, "%s", err);
}

bool
au_mend_finish(AuHostVolume *v, char *err, size_t errlen)
{
	AuPageDirs	p;

	au_pagedirs(v->dir, &p);
	if (!au_is_there(p.pages) && (au_is_there(p.damaged) || au_is_there(p.dropped)) &&
		!au_rename_durably(p.anew, p.pages, err, errlen))
		return false;
	remove_left(v, p.anew);
	remove_left(v, p.dropped);
	return true;
}

bool
au_mend_switch(AuHostVolume *v, char *err, size_t errlen)
{
	AuPageDirs	p;

	if (!v->mended)
		return true;
	au_pagedirs(v->dir, &p);
	if (!au_pagedirs_switch(&p, err, errlen))
		return false;
	remove_left(v, p.dropped);
	v->mended = false;
	return true;
}

/* ---- what was replaced ---------------------------------------------------- */

typedef struct Removal
{
	uv_work_t	work;
	AuHostVolume *vol;
	AuPageDirs	dirs;
	char		err[512];
	bool		ok;
} Removal;

static void
remove_work(uv_work_t *w)
{
	Removal    *r = w->data;

	r->ok = au_remove_tree(r->dirs.damaged, r->err, sizeof(r->err));
}

static void
remove_done(uv_work_t *w, int status)
{
	Removal    *r = w->data;

	(void) status;
	r->vol->daemon->work--;
	if (!r->ok)
		au_log(r->vol->daemon, AU_LOG_WARNING, "%s", r->err);
	free(r);
}

static void
host_mend_whole(void *ctx, void *vol)
{
	AuHostVolume *v = vol;
	Removal    *r = calloc(1, sizeof(*r));

	if (r == NULL)
		return;					/* the next start does it */
	au_pagedirs(v->dir, &r->dirs);
	if (!au_is_there(r->dirs.damaged))
	{
		free(r);
		return;
	}
	r->work.data = r;
	r->vol = v;
	((AuDaemon *) ctx)->work++;
	uv_queue_work(((AuDaemon *) ctx)->loop, &r->work, remove_work, remove_done);
}

/* ---- leave ---------------------------------------------------------------- */

static void
told(AuHostVolume *v, bool on, const AuCommandResult *r)
{
	au_node_mending_told(v->daemon->node, v, on, r->status, r->message);
}

static void
told_on(void *ctx, const AuCommandResult *r)
{
	told(ctx, true, r);
}

static void
told_off(void *ctx, const AuCommandResult *r)
{
	told(ctx, false, r);
}

static bool
host_mending(void *ctx, void *vol, bool on, uint64_t epoch)
{
	AuDaemon   *d = ctx;
	AuViewCommand c = {
		.type = AU_VIEW_MENDING,.up = on,.epoch = epoch,
		.system_identifier = ((AuHostVolume *) vol)->system_identifier
	};

	if (d->meta == NULL)
		return false;
	c.number = au_meta_number(d->meta);
	return c.number != 0 && au_meta_propose(d->meta, &c, on ? told_on : told_off, vol);
}

/* ---- the new one ---------------------------------------------------------- */

static AuStatus
host_mend_begin(void *ctx, void *vol, const AuStorePosition *position, bool all_slices,
				char *err, size_t errlen)
{
	AuHostVolume *v = vol;
	AuPageDirs	dirs;
	AuPageStoreOptions opt;

	(void) ctx;
	au_rebuild_end(v->rebuild);
	v->rebuild = NULL;
	v->mended = false;
	v->relog = 0;
	memset(&v->rebuild_slices, all_slices ? 0xFF : 0, sizeof(v->rebuild_slices));
	au_pagedirs(v->dir, &dirs);
	if (!au_remove_tree(dirs.anew, err, errlen))
		return AU_IO;
	au_volume_store_options(v, dirs.anew, &opt);
	return au_rebuild_begin(&v->rebuild, &opt, position, &v->rebuild_slices, err, errlen);
}

static bool
host_mend_want(void *ctx, void *vol, uint8_t *what, AuPlace *place, AuSliceSet *slices)
{
	AuHostVolume *v = vol;
	uint8_t		keyspace;
	bool		more = au_rebuild_want(v->rebuild, &keyspace, place);

	(void) ctx;
	*what = keyspace == AU_KS_SIZE ? AU_EXPORT_SIZES : AU_EXPORT_PAGES;
	*slices = v->rebuild_slices;
	return more;
}

static void
work(uv_work_t *w)
{
	AuHostVolume *v = w->data;

	if (au_disk_free(v->dir) < v->daemon->config.disk_reserve_mb * 1024 * 1024 + v->mend_len)
	{
		v->mend_status = AU_FULL;
		snprintf(v->mend_err, sizeof(v->mend_err),
				 "too little room for a new page store beside the damaged one; make room in \"%.300s\"", v->dir);
		return;
	}
	v->mend_status = au_rebuild_take(v->rebuild, v->mend_chunk, v->mend_len, v->mend_err,
									 sizeof(v->mend_err));
}

static void
done(uv_work_t *w, int status)
{
	AuHostVolume *v = w->data;

	(void) status;
	free(v->mend_chunk);
	v->mend_chunk = NULL;
	v->daemon->work--;
	au_node_mended(v->daemon->node, v, v->mend_status, v->mend_err);
}

static void
host_mend_take(void *ctx, void *vol, const uint8_t *chunk, size_t len)
{
	AuDaemon   *d = ctx;
	AuHostVolume *v = vol;

	v->mend_chunk = malloc(len > 0 ? len : 1);
	v->mend_len = v->mend_chunk != NULL ? len : 0;
	if (v->mend_chunk != NULL)
		memcpy(v->mend_chunk, chunk, len);
	v->mend_work.data = v;
	d->work++;
	uv_queue_work(d->loop, &v->mend_work, work, done);
}

static AuStatus
host_mend_end(void *ctx, void *vol, AuLsn log_start, char *err, size_t errlen)
{
	AuHostVolume *v = vol;
	AuPlace		place;
	uint8_t		keyspace;

	(void) ctx;
	if (v->rebuild == NULL || au_rebuild_want(v->rebuild, &keyspace, &place))
	{
		snprintf(err, errlen, "the new page store is not complete");
		return AU_INVALID;
	}
	au_rebuild_end(v->rebuild);
	v->rebuild = NULL;
	v->mended = true;
	v->relog = log_start;
	return AU_OK;
}

static void
host_mend_drop(void *ctx, void *vol)
{
	AuHostVolume *v = vol;
	AuPageDirs	dirs;
	char		err[512];

	(void) ctx;
	au_rebuild_end(v->rebuild);
	v->rebuild = NULL;
	v->mended = false;
	v->relog = 0;
	au_pagedirs(v->dir, &dirs);
	if (!au_remove_tree(dirs.anew, err, sizeof(err)))
		au_log(v->daemon, AU_LOG_WARNING, "%s", err);
}

void
au_mend_fill_host(AuNodeHost *h)
{
	h->mend_begin = host_mend_begin;
	h->mend_want = host_mend_want;
	h->mend_take = host_mend_take;
	h->mend_end = host_mend_end;
	h->mend_drop = host_mend_drop;
	h->mend_whole = host_mend_whole;
	h->mending = host_mending;
}
