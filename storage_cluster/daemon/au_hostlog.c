/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_hostlog.c: where the landing logs of a node are, and on what: ordinary
 * files or persistent memory.  All of a node's are alike.
 *
 * A log is made once, before its volume gets its name.  A volume whose log is
 * not where it should be is not opened: beginning an empty one would lose what
 * was acknowledged.
 */
#include "daemon/au_daemon.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "daemon/au_files.h"
#include "store/au_landing_io.h"

bool
au_logs_choose(AuDaemon *d, char *err, size_t errlen)
{
	const AuConfig *c = &d->config;
	const char *dir = c->log_dir[0] != '\0' ? c->log_dir : c->dir;
	char		why[512];

	/* Not made if absent: below a mount point that would be the wrong disk. */
	if (c->log_dir[0] != '\0' && access(c->log_dir, R_OK | W_OK | X_OK) != 0)
	{
		snprintf(err, errlen, "could not use --log-dir \"%s\": %s; is its device mounted?",
				 c->log_dir, strerror(errno));
		return false;
	}
	d->landing_io = &au_landing_file_io;
	if (c->landing != AU_LANDING_FILE)
	{
		if (au_landing_pmem_usable(dir, why, sizeof(why)))
			d->landing_io = &au_landing_pmem_io;
		else if (c->landing == AU_LANDING_PMEM)
		{
			snprintf(err, errlen, "--landing pmem cannot be had: %s; use --landing file, or give --log-dir a directory on persistent memory",
					 why);
			return false;
		}
		else
			au_log(d, AU_LOG_DEBUG, "landing logs go to ordinary files: %s", why);
	}
	if (d->landing_io == &au_landing_pmem_io && getenv("PMEM_IS_PMEM_FORCE") != NULL)
		au_log(d, AU_LOG_WARNING, "PMEM_IS_PMEM_FORCE is set: \"%s\" is used as if it was persistent memory; if it is not, a power cut loses what was acknowledged",
			   dir);
	return true;
}

static AuLandingOptions
log_options(const AuDaemon *d, const char *path, uint64_t system_identifier, AuLsn start)
{
	return (AuLandingOptions) {
		.dir = path,.system_identifier = system_identifier,.start_lsn = start,
		.segment_bytes = AU_LANDING_SEGMENT_BYTES,
		.disk_reserve_bytes = d->config.disk_reserve_mb * 1024 * 1024,
		.io = d->landing_io
	};
}

AuStatus
au_log_make(AuDaemon *d, const char *dir, const AuVolumeMeta *meta, char *err, size_t errlen)
{
	char		path[4500];
	AuLandingOptions lo = log_options(d, path, meta->system_identifier, meta->start_lsn);

	au_log_path(path, sizeof(path), d->config.log_dir, dir, d->node_id, meta->system_identifier);
	for (int i = 0;; i++)
	{
		AuLanding  *l;
		AuLsn		start;
		AuLsn		end;
		AuStatus	status = au_landing_open(&l, &lo, err, errlen);

		if (status != AU_OK)
			return status;
		start = au_landing_start(l);
		end = au_landing_end(l);
		au_landing_close(l);
		if (start == meta->start_lsn && end == start)
			return AU_OK;
		if (end != start || i > 0)
		{
			snprintf(err, errlen, "\"%s\" holds log of this server up to %X/%X, but the volume is not in \"%s\"; restore the volume, or remove that directory if storage is meant to begin anew",
					 path, AU_LSN_ARGS(end), d->config.dir);
			return AU_REFUSED;
		}
		/* left by an attempt that a crash ended */
		if (!au_remove_tree(path, err, errlen))
			return AU_IO;
	}
}

void
au_log_relog(AuHostVolume *v, AuRelog *r)
{
	AuDaemon   *d = v->daemon;

	au_log_path(v->log_dir, sizeof(v->log_dir), d->config.log_dir, v->dir, d->node_id,
				v->system_identifier);
	r->dir = v->dir;
	r->log = log_options(d, v->log_dir, v->system_identifier, AU_LSN_INVALID);
}

AuStatus
au_log_open(AuHostVolume *v, AuLsn needed, char *err, size_t errlen)
{
	AuDaemon   *d = v->daemon;
	AuLandingOptions lo = log_options(d, v->log_dir, v->system_identifier, AU_LSN_INVALID);
	char		other[sizeof(v->dir) + 16];

	au_log_path(v->log_dir, sizeof(v->log_dir), d->config.log_dir, v->dir, d->node_id,
				v->system_identifier);
	lo.needed_lsn = needed;
	if (au_is_there(v->log_dir))
		return au_landing_open(&v->landing, &lo, err, errlen);
	snprintf(other, sizeof(other), "%s/log", v->dir);
	if (d->config.log_dir[0] == '\0')
		snprintf(err, errlen, "its landing log is not in \"%s\": start with the --log-dir that it was kept in",
				 v->log_dir);
	else if (au_is_there(other))
		snprintf(err, errlen, "its landing log is in \"%s\", not in \"%s\": move the directory there, or start without --log-dir",
				 other, v->log_dir);
	else
		snprintf(err, errlen, "its landing log is not in \"%s\": give the --log-dir that it was kept in, or mount its device",
				 v->log_dir);
	return AU_REFUSED;
}
