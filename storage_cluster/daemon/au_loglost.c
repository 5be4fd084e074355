/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_loglost.c: a start finds the landing log damaged.
 *
 *   log is whole from below what the pages need ──▶ older segments go
 *   others keep the log, too ──▶ VOLUME says that log is lost ──▶ an empty log,
 *                                log.damaged
 *   else ──▶ the volume is not opened
 *
 * In the second case VOLUME comes first: were it the other way round, a crash
 * would leave an empty log that votes (docs/decisions/0006-log-quorum.md).
 * log.damaged stays until the first start at which nothing is lost any more:
 * should the others fail meanwhile, it holds what nobody else may have.
 */
#include <inttypes.h>
#include <stdio.h>

#include "daemon/au_daemon.h"
#include "daemon/au_files.h"

typedef char Damaged[sizeof(((AuHostVolume *) NULL)->log_dir) + 16];

static void
name_damaged(const AuHostVolume *v, Damaged path)
{
	snprintf(path, sizeof(Damaged), "%s.damaged", v->log_dir);
}

void
au_log_forget_damaged(AuHostVolume *v)
{
	Damaged		path;
	char		err[512];

	name_damaged(v, path);
	if (au_is_there(path) && !au_remove_tree(path, err, sizeof(err)))
		au_log(v->daemon, AU_LOG_WARNING, "%s", err);
}

static AuStatus
begin_anew(AuHostVolume *v, const AuVolumeMeta *lost, AuLsn start, char *err, size_t errlen)
{
	AuRelog		r;
	Damaged		path;
	AuStatus	status;

	name_damaged(v, path);
	au_log_relog(v, &r);
	if (!au_volume_write(v->dir, lost, err, errlen) || !au_remove_tree(path, err, errlen))
		return AU_IO;
	status = au_relog_begin(&r, start, err, errlen);
	if (status == AU_OK && !au_rename_durably(v->log_dir, path, err, errlen))
		status = AU_IO;
	if (status == AU_OK)
		status = au_relog_roll(&r, err, errlen);
	return status == AU_OK ? au_log_open(v, AU_LSN_INVALID, err, errlen) : status;
}

AuStatus
au_log_rescue(AuHostVolume *v, AuVolumeMeta *meta, AuLsn restart, char *err, size_t errlen)
{
	AuDaemon   *d = v->daemon;
	AuVolumeMeta lost = *meta;
	AuLsn		start;
	char		why[512];
	AuStatus	status;

	au_volume_lose_log(&lost, restart, &start);
	status = au_log_open(v, start, why, sizeof(why));
	if (status == AU_OK)
	{
		au_log(d, AU_LOG_WARNING, "volume %" PRIu64 ": %s; what is left, from %X/%X on, is all that is needed",
			   v->system_identifier, err, AU_LSN_ARGS(au_landing_start(v->landing)));
		return AU_OK;
	}
	if (status == AU_CORRUPT && !au_volume_may_lose_log(meta, d->node_id))
		return AU_CORRUPT;
	if (status == AU_CORRUPT)
	{
		au_log(d, AU_LOG_WARNING, "volume %" PRIu64 ": %s; the log is fetched from the other nodes, from %X/%X on, and this one has no vote until it is here; what is damaged is kept in \"%s.damaged\" until then",
			   v->system_identifier, err, AU_LSN_ARGS(start), v->log_dir);
		status = begin_anew(v, &lost, start, why, sizeof(why));
	}
	if (status == AU_OK)
		*meta = lost;
	else
		snprintf(err, errlen, "%s", why);
	return status;
}
