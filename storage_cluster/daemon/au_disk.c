/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_disk.c: the node's share of the disk (--disk-limit): what it uses and
 * will use for log that it has taken already, over all volumes.
 *
 *   used = landing logs + files of page versions
 *          + log taken but not in those files yet
 *          + the key-value store
 *
 * At the limit no more log is taken: the writer waits, reads go on, and as
 * soon as there is room again so does the writer.  From nine tenths on the
 * scrubber no longer goes gently, because it is what finds old versions that
 * nobody may ask for.
 *
 * Beyond the limit for a while: a compaction writes its result before it
 * removes what it read.
 */
#include <inttypes.h>
#include <stdio.h>

#include "daemon/au_daemon.h"

#define AU_DISK_FRESH_MS 200	/* so old may the figure be, but for appends since */

static uint64_t
volume_bytes(const AuHostVolume *v)
{
	uint64_t	bytes = au_landing_bytes(v->landing);
	AuLsn		end = au_landing_end(v->landing);

	if (v->store != NULL)
		bytes += au_pagestore_disk_bytes(v->store);
	if (end > v->persisted_applied)
		bytes += end - v->persisted_applied;
	return bytes;
}

uint64_t
au_disk_used(AuDaemon *d)
{
	uint64_t	now = uv_hrtime() / 1000000;

	if (d->disk_used_at != 0 && now - d->disk_used_at < AU_DISK_FRESH_MS)
		return d->disk_used;
	d->disk_used = au_kv_disk_bytes(d);
	for (const AuHostVolume *v = d->volumes; v != NULL; v = v->next)
		d->disk_used += volume_bytes(v);
	d->disk_used_at = now;
	return d->disk_used;
}

bool
au_disk_room(AuDaemon *d, uint64_t more, char *err, size_t errlen)
{
	uint64_t	limit = d->config.disk_limit_mb * 1024 * 1024;
	uint64_t	used = limit > 0 ? au_disk_used(d) : 0;

	if (limit == 0 || used + more <= limit)
	{
		/* in the landing log, and later in files */
		d->disk_used += 2 * more;
		return true;
	}
	snprintf(err, errlen,
			 "disk limit reached: %" PRIu64 " MB of --disk-limit %" PRIu64 " MB are in use or needed for log that was taken; raise it, or keep less (--retention-mb, --retention-seconds, holds)",
			 used >> 20, d->config.disk_limit_mb);
	return false;
}

bool
au_disk_short(AuDaemon *d)
{
	uint64_t	limit = d->config.disk_limit_mb * 1024 * 1024;

	return limit > 0 && au_disk_used(d) > limit - limit / 10;
}
