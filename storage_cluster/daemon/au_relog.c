/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_relog.c: see au_relog.h.
 *
 *   REBUILT   0  "AURORARB"
 *             8  u32 version
 *            12  u64 LSN that the new log begins at
 *            20  u32 CRC of the 20 bytes before
 */
#include "daemon/au_relog.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/au_base.h"
#include "common/au_crc32c.h"
#include "daemon/au_files.h"
#include "daemon/au_pagedirs.h"

#define PATH_CAP 4600

/* "%s/name" of the volume, or "%s.name" of the log. */
typedef struct Names
{
	char		mark[PATH_CAP];
	char		log_new[PATH_CAP];
	char		log_old[PATH_CAP];
	AuPageDirs	pages;
} Names;

static Names *
make_names(const AuRelog *r, char *err, size_t errlen)
{
	Names	   *n = malloc(sizeof(*n));

	if (n == NULL)
	{
		snprintf(err, errlen, "out of memory");
		return NULL;
	}
	snprintf(n->mark, PATH_CAP, "%s/" AU_RELOG_FILE, r->dir);
	snprintf(n->log_new, PATH_CAP, "%s.new", r->log.dir);
	snprintf(n->log_old, PATH_CAP, "%s.old", r->log.dir);
	au_pagedirs(r->dir, &n->pages);
	return n;
}

static bool
remove_mark(const Names *n, const AuRelog *r, char *err, size_t errlen)
{
	if (unlink(n->mark) == 0 || errno == ENOENT)
		return au_sync_dir(r->dir, err, errlen);
	snprintf(err, errlen, "could not remove \"%s\": %s", n->mark, strerror(errno));
	return false;
}

/* Where a log begins; start: it is made. */
static AuStatus
look_at_log(const AuRelog *r, const char *path, AuLsn start, AuLsn *begins, char *err, size_t errlen)
{
	AuLandingOptions lo = r->log;
	AuLanding  *l;
	AuStatus	status;

	lo.dir = path;
	lo.start_lsn = start;
	status = au_landing_open(&l, &lo, err, errlen);
	if (status != AU_OK)
		return status;
	*begins = au_landing_start(l);
	au_landing_close(l);
	return AU_OK;
}

AuStatus
au_relog_begin(const AuRelog *r, AuLsn start, char *err, size_t errlen)
{
	Names	   *n = make_names(r, err, errlen);
	uint8_t		mark[AU_RELOG_LEN];
	AuLsn		begins;
	AuStatus	status = AU_IO;

	if (n == NULL)
		return AU_NOMEM;
	memcpy(mark, AU_RELOG_MAGIC, 8);
	au_put_u32(mark + 8, AU_RELOG_VERSION);
	au_put_u64(mark + 12, start);
	au_put_u32(mark + 20, au_crc32c(0, mark, 20));
	if (au_remove_tree(n->log_new, err, errlen) && au_remove_tree(n->log_old, err, errlen))
		status = look_at_log(r, n->log_new, start, &begins, err, errlen);
	if (status == AU_OK &&
		(!au_sync_parent(n->log_new, err, errlen) ||
		 !au_write_file(r->dir, AU_RELOG_FILE, mark, sizeof(mark), err, errlen)))
		status = AU_IO;
	if (status != AU_OK)
	{
		char		ignored[512];

		(void) remove_mark(n, r, ignored, sizeof(ignored));
		(void) au_remove_tree(n->log_new, ignored, sizeof(ignored));
	}
	free(n);
	return status;
}

/* *start: where the new log begins; 0: there is no REBUILT. */
static AuStatus
read_mark(const Names *n, AuLsn *start, char *err, size_t errlen)
{
	uint8_t		mark[AU_RELOG_LEN + 1];
	long		got = au_read_file(n->mark, mark, sizeof(mark));

	*start = 0;
	if (got < 0 && errno == ENOENT)
		return AU_OK;
	if (got < 0)
	{
		snprintf(err, errlen, "could not read \"%s\": %s", n->mark, strerror(errno));
		return AU_IO;
	}
	if (got != AU_RELOG_LEN || memcmp(mark, AU_RELOG_MAGIC, 8) != 0 ||
		au_get_u32(mark + 8) != AU_RELOG_VERSION || au_get_u32(mark + 20) != au_crc32c(0, mark, 20))
	{
		snprintf(err, errlen, "\"%s\" is damaged; restore the node's directory from a backup, or make a new node of it",
				 n->mark);
		return AU_CORRUPT;
	}
	*start = au_get_u64(mark + 12);
	return AU_OK;
}

/* The new log is where the old one was. */
static AuStatus
roll_log(const AuRelog *r, const Names *n, AuLsn start, char *err, size_t errlen)
{
	AuLsn		begins;
	AuStatus	status;

	if (au_is_there(n->log_new) &&
		((au_is_there(r->log.dir) && !au_rename_durably(r->log.dir, n->log_old, err, errlen)) ||
		 !au_rename_durably(n->log_new, r->log.dir, err, errlen)))
		return AU_IO;
	if (!au_is_there(r->log.dir))
	{
		snprintf(err, errlen, "its landing log is not in \"%s\": start with the --log-dir that it was kept in",
				 r->log.dir);
		return AU_REFUSED;
	}
	status = look_at_log(r, r->log.dir, AU_LSN_INVALID, &begins, err, errlen);
	if (status == AU_OK && begins != start)
	{
		snprintf(err, errlen, "the landing log in \"%s\" is not the one that was begun at %X/%X: start with the --log-dir that it was kept in",
				 r->log.dir, AU_LSN_ARGS(start));
		status = AU_REFUSED;
	}
	return status;
}

AuStatus
au_relog_roll(const AuRelog *r, char *err, size_t errlen)
{
	Names	   *n = make_names(r, err, errlen);
	AuLsn		start;
	AuStatus	status;

	if (n == NULL)
		return AU_NOMEM;
	status = read_mark(n, &start, err, errlen);
	if (status == AU_OK && start != 0)
	{
		status = roll_log(r, n, start, err, errlen);
		if (status == AU_OK &&
			(!au_pagedirs_switch(&n->pages, err, errlen) || !remove_mark(n, r, err, errlen)))
			status = AU_IO;
	}
	if (status == AU_OK &&
		(!au_remove_tree(n->log_new, err, errlen) || !au_remove_tree(n->log_old, err, errlen)))
		status = AU_IO;
	free(n);
	return status;
}
