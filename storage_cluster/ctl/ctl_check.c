/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ctl_check.c: looks at every byte of a stopped node's files: NODE, VIEW, VOLUME,
 * the landing log (every entry's CRC, no gap), every stored version (CRC,
 * structure), whether each page's chain of changes applies, the key-value
 * store.  Not those of libraft, in meta/: it looks at them when it starts, and
 * what is in them is in the other voters' as well.
 */
#include "ctl/ctl.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cluster/au_view.h"
#include "daemon/au_files.h"
#include "store/au_kvstore.h"
#include "store/au_landing.h"
#include "store/au_pagestore.h"

#define PROBLEMS_PRINTED_MAX 50

typedef struct Report
{
	uint64_t	problems;
} Report;

static void
problem(void *ctx, const char *text)
{
	Report	   *r = ctx;

	r->problems++;
	if (r->problems <= PROBLEMS_PRINTED_MAX)
		printf("  PROBLEM: %s\n", text);
	else if (r->problems == PROBLEMS_PRINTED_MAX + 1)
		printf("  PROBLEM: ... more, only counted from here on\n");
}

/* Read all of the landing log; its CRCs are checked by that. */
static void
check_log(Report *r, const char *dir, const AuVolumeMeta *meta, AuLsn *start, AuLsn *end)
{
	AuLandingOptions opt = {
		.dir = dir,.system_identifier = meta->system_identifier,
		.start_lsn = AU_LSN_INVALID,.segment_bytes = 64 << 20
	};
	AuLanding  *l;
	char		err[512];
	uint8_t    *buf;
	AuLsn		lsn;

	*start = *end = 0;
	if (!au_is_there(dir))
	{
		snprintf(err, sizeof(err), "the landing log is not in \"%.400s\"; give the daemon's --log-dir", dir);
		problem(r, err);
		return;
	}
	if (au_landing_open(&l, &opt, err, sizeof(err)) != AU_OK)
	{
		problem(r, err);
		return;
	}
	*start = lsn = au_landing_start(l);
	*end = au_landing_end(l);
	buf = malloc(AU_LANDING_APPEND_MAX);
	while (buf != NULL && lsn < *end)
	{
		size_t		got = 0;

		if (au_landing_read(l, lsn, buf, AU_LANDING_APPEND_MAX, &got, err, sizeof(err)) != AU_OK ||
			got == 0)
		{
			problem(r, err);
			break;
		}
		lsn += got;
	}
	printf("  landing log: %X/%X to %X/%X, %" PRIu64 " bytes on disk\n", AU_LSN_ARGS(*start),
		   AU_LSN_ARGS(*end), au_landing_bytes(l));
	free(buf);
	au_landing_close(l);
}

static void
check_pages(Report *r, const char *dir, const AuVolumeMeta *meta, AuLsn log_start, AuLsn log_end)
{
	/* as when it starts (core/au_node_volume.c): it may have begun with another
	 * node's pages, and not have got the log up to there */
	bool		may_be_behind = meta->group.n > 0 && meta->history.n == 0;
	AuPageStoreCheck c;
	char		err[512];

	if (au_pagestore_check(dir, problem, r, &c, err, sizeof(err)) != AU_OK)
	{
		problem(r, err);
		return;
	}
	printf("  page store: %" PRIu64 " versions of %" PRIu64 " pages, %" PRIu64
		   " relations, applied up to %X/%X\n", c.versions, c.pages, c.relations,
		   AU_LSN_ARGS(c.applied));
	if (c.applied != 0 && log_end != 0 &&
		(c.restart < log_start ||
		 (c.applied > log_end && c.restart != log_start && !may_be_behind)))
		problem(r, "the landing log does not hold what the page store needs to go on");
}

static bool
check_volume(Report *r, const char *dir, const char *name, const char *log_dir,
			 uint64_t node_id)
{
	AuVolumeMeta meta;
	char		path[4700];
	char		err[1024];
	AuLsn		start,
				end;

	printf("volume %s\n", name);
	if (au_volume_read(dir, &meta, err, sizeof(err)) != AU_OK)
	{
		problem(r, err);
		return false;
	}
	printf("  VOLUME: term %" PRIu64 ", timeline %u, log began at %X/%X\n", meta.term,
		   meta.timeline, AU_LSN_ARGS(meta.start_lsn));
	if (meta.system_identifier != strtoull(name, NULL, 10))
		problem(r, "VOLUME names another system identifier than the directory");
	au_log_path(path, sizeof(path), log_dir, dir, node_id, meta.system_identifier);
	check_log(r, path, &meta, &start, &end);
	snprintf(path, sizeof(path), "%s/pages", dir);
	check_pages(r, path, &meta, start, end);
	return true;
}

/* DIR/VIEW, if the node is in a cluster. */
static void
check_view(Report *r, const char *dir)
{
	static uint8_t bytes[AU_VIEW_ENCODED_MAX + 1];
	static AuView view;
	char		path[4200];
	char		meta[4200];
	char		text[4400];
	long		n;

	snprintf(path, sizeof(path), "%.4096s/VIEW", dir);
	snprintf(meta, sizeof(meta), "%.4096s/meta", dir);
	n = au_read_file(path, bytes, sizeof(bytes));
	if (n >= 0 && au_view_decode(&view, bytes, (size_t) n))
		printf("cluster %016" PRIX64 ": view %" PRIu64 "\n", view.cluster_id, view.epoch);
	else if (n >= 0)
	{
		snprintf(text, sizeof(text), "\"%s\" is damaged, or of another version", path);
		problem(r, text);
	}
	else if (errno != ENOENT || au_is_there(meta))
	{
		snprintf(text, sizeof(text), "could not read \"%s\": %s", path, strerror(errno));
		problem(r, text);
	}
}

/* DIR/kv, if the node has ever used it. */
static void
check_kv(Report *r, const char *dir)
{
	char		path[4600];
	char		err[512];
	uint64_t	keys,
				owed;

	snprintf(path, sizeof(path), "%.4096s/kv", dir);
	if (!au_is_there(path))
		return;
	printf("key-value store\n");
	if (au_kvstore_check(path, problem, r, &keys, &owed, err, sizeof(err)) != AU_OK)
		problem(r, err);
	else
		printf("  %" PRIu64 " keys, %" PRIu64 " records owed to other nodes\n", keys, owed);
}

int
ctl_check(const char *dir, const char *log_dir)
{
	Report		r = {0};
	char		top[4200];
	char		path[4600];
	char		err[512];
	DIR		   *d;
	struct dirent *e;
	uint64_t	node_id;
	int			lock;
	int			n = 0;

	if (au_dir_in_use(dir))
	{
		fprintf(stderr, "auroractl: an aurora_storaged runs on \"%s\"; stop it first\n", dir);
		return 2;
	}
	snprintf(top, sizeof(top), "%.4096s/volumes", dir);
	d = opendir(top);
	if (d == NULL)
	{
		fprintf(stderr, "auroractl: \"%s\" is no directory of an aurora_storaged: %s\n", dir,
				strerror(errno));
		return 2;
	}
	lock = au_lock_dir(dir, err, sizeof(err));
	if (lock < 0)
	{
		fprintf(stderr, "auroractl: %s\n", err);
		closedir(d);
		return 2;
	}
	if (!au_node_identity(dir, &node_id, err, sizeof(err)))
	{
		problem(&r, err);
		node_id = 0;
	}
	check_view(&r, dir);
	while ((e = readdir(d)) != NULL)
	{
		if (e->d_name[strspn(e->d_name, "0123456789")] != '\0')
			continue;
		snprintf(path, sizeof(path), "%.4200s/%.255s", top, e->d_name);
		check_volume(&r, path, e->d_name, log_dir, node_id);
		n++;
	}
	closedir(d);
	check_kv(&r, dir);
	close(lock);
	if (r.problems > 0)
		printf("%" PRIu64 " problem(s) in %d volume(s)\n", r.problems, n);
	else
		printf("no problems in %d volume(s)\n", n);
	return r.problems > 0 ? 1 : 0;
}
