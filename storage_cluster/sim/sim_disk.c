/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_disk.c: a node's disk: the real landing log (store/au_landing) on a disk
 * in memory (tests/memdisk.h), and the VOLUME file.
 *
 * What goes wrong: a power cut leaves any mix of old and new sectors of what
 * was not synced, pieces of sectors, lengths and names; room runs out in the
 * middle of a write; a sync fails; every call fails for a while; a sector that
 * was durable changes: a bit flips, it is zeros (a write that was lost), it is
 * another sector (a write that went astray).
 *
 * The last three only as far as a good copy is left on enough nodes: at most
 * N - W disks lack log at a time.  They must be noticed: log that is read is
 * what was written, or an error; a log that opens holds all that was synced.
 * Then what the pages have goes, or the log is begun anew, as in
 * daemon/au_loglost.c.
 */
#include "sim/sim.h"

#include <assert.h>
#include <stdlib.h>

#define MEMDISK_FILES 2048
#include "tests/memdisk.h"

#define SEGMENT_BYTES (32u << 10)

static const AuLandingIo *
disk_io(const SimNode *n)
{
	return n->sim->swarm.pmem ? &memdisk_pmem_io : &memdisk_io;
}

/* Before each call of the landing log. */
static AuLanding *
use(SimNode *n)
{
	memdisk_at = n->disk;
	memdisk.off = n->io_error_until > n->sim->now;
	memdisk.writes_left = n->full_until > n->sim->now ? 0 : -1;
	memdisk.bug = n->sim->opt.plant == SIM_PLANT_NO_SYNC ? MEM_BUG_NO_SYNC : MEM_BUG_NONE;
	return n->landing;
}

static AuStatus
open_landing(SimNode *n, AuLsn start, AuLsn needed, char *err, size_t errlen)
{
	AuLandingOptions opt = {
		.dir = "memory",.system_identifier = SIM_SYSID,.start_lsn = start,
		.needed_lsn = needed,.segment_bytes = SEGMENT_BYTES,.io = disk_io(n)
	};

	(void) use(n);
	return au_landing_open(&n->landing, &opt, err, errlen);
}

/* ---- host ------------------------------------------------------------- */

/* An empty log that begins at start. */
static AuStatus
make_volume(SimNode *n, const AuVolumeMeta *meta, AuLsn start, char *err, size_t errlen)
{
	AuStatus	status;

	memdisk_at = n->disk;
	memdisk_format(sim_random(n->sim));
	status = open_landing(n, start, AU_LSN_INVALID, err, errlen);
	if (status != AU_OK)
		return status;
	n->exists = true;
	n->meta = n->meta_before = *meta;
	n->log_base = n->log_start = n->log_end = n->log_durable = start;
	return AU_OK;
}

static AuStatus
volume_create(void *ctx, const AuVolumeMeta *meta, void **vol, char *err, size_t errlen)
{
	SimNode    *n = ctx;
	AuStatus	status;

	snprintf(err, errlen, "one volume only");
	if (n->exists)
		return AU_FULL;
	/*
	 * No trouble with the disk here: a node of the group that misses the
	 * making of a volume stays without it, and is to be replaced.
	 */
	n->full_until = n->io_error_until = 0;
	status = make_volume(n, meta, meta->start_lsn, err, errlen);
	if (status != AU_OK)
		return status;
	n->applied = n->restart = n->persisted_applied = n->persisted_restart = meta->start_lsn;
	*vol = n;
	return AU_OK;
}

static AuStatus
volume_save(void *ctx, void *vol, const AuVolumeMeta *meta, char *err, size_t errlen)
{
	SimNode    *n = vol;
	uint8_t		buf[AU_VOLUME_LEN];
	const char *why;

	(void) ctx;
	snprintf(err, errlen, "no room for VOLUME");
	if (n->full_until > n->sim->now)
		return AU_FULL;
	if (n->io_error_until > n->sim->now)
		return AU_IO;
	if (meta->term > n->meta.term)
		n->sim->figures.terms++;
	n->meta_before = n->meta;
	/* through the bytes that a disk would keep */
	au_volume_encode(buf, meta);
	if (au_volume_decode(buf, sizeof(buf), &n->meta, &why) != AU_OK)
		sim_fail(n->sim, "node %d: a VOLUME that was written cannot be read: %s", n->index, why);
	sim_trace(n->sim, meta->term, meta->history.n);
	return AU_OK;
}

static AuStatus
log_append(void *ctx, void *vol, uint64_t term, uint32_t timeline, AuLsn lsn,
		   const uint8_t *bytes, size_t len, char *err, size_t errlen)
{
	SimNode    *n = vol;
	size_t		need = (size_t) (lsn + len - n->log_base);
	AuLanding  *l = use(n);
	AuLsn		mark = au_landing_durable(l);
	AuStatus	status = AU_OK;

	(void) ctx;
	for (size_t done = 0, piece; status == AU_OK && done < len; done += piece)
	{
		piece = len - done < AU_LANDING_APPEND_MAX ? len - done : AU_LANDING_APPEND_MAX;
		status = au_landing_append(l, term, timeline, lsn + done, bytes + done, piece, err, errlen);
	}
	if (status != AU_OK)
		return status;
	n->written_mark = mark;
	if (need > n->log_cap)
	{
		n->log_cap = need * 2;
		n->log = realloc(n->log, n->log_cap);
		if (n->log == NULL)
			abort();
	}
	memcpy(n->log + (lsn - n->log_base), bytes, len);
	n->log_end = lsn + len;
	return AU_OK;
}

static AuStatus
sync_now(SimNode *n, char *err, size_t errlen)
{
	AuLanding  *l = use(n);
	AuStatus	status;

	if (n->sync_fails)
		memdisk.syncs_left = 0;
	status = au_landing_sync(l, err, errlen);
	memdisk.syncs_left = -1;
	if (status != AU_OK)
		return status;
	n->log_durable = au_landing_durable(l);
	n->synced_mark = n->written_mark;
	if (n->log_durable != n->log_end)
		sim_fail(n->sim, "node %d: log up to %X/%X is durable after a sync of log up to %X/%X", n->index,
				 AU_LSN_ARGS(n->log_durable), AU_LSN_ARGS(n->log_end));
	return AU_OK;
}

static bool
log_sync_start(void *ctx, void *vol, AuStatus *status, char *err, size_t errlen)
{
	SimNode    *n = vol;
	Sim		   *s = n->sim;
	uint64_t	us = s->swarm.sync_us * (n->slow_until > s->now ? 20 : 1);

	(void) ctx;
	n->sync_fails = !s->quiet && sim_one_in(s, s->swarm.sync_error);
	if (au_landing_sync_inline(n->landing))
	{
		*status = sync_now(n, err, errlen);
		return true;
	}
	n->syncing = true;
	n->sync_due = s->now + 1 + sim_below(s, us * 2);
	return false;
}

void
sim_disk_tick(SimNode *n)
{
	char		err[512] = "";
	AuStatus	status;

	if (!n->syncing || n->sim->now < n->sync_due)
		return;
	n->syncing = false;
	status = sync_now(n, err, sizeof(err));
	au_node_synced(n->node, n, status, err);
}

/* It must not have been served. */
static void
notice(SimNode *n)
{
	n->sim->figures.lost++;
	n->lost = !au_volume_may_lose_log(&n->meta, sim_node_id(n));
}

static AuStatus
log_read(void *ctx, void *vol, AuLsn lsn, uint8_t *buf, size_t cap, size_t *got,
		 char *err, size_t errlen)
{
	SimNode    *n = vol;
	AuStatus	status = au_landing_read(use(n), lsn, buf, cap, got, err, errlen);

	(void) ctx;
	if (status == AU_CORRUPT && n->damaged)
		notice(n);
	else if (status == AU_CORRUPT)
		sim_fail(n->sim, "node %d: log that nobody spoiled cannot be read: %s", n->index, err);
	if (status == AU_OK && (lsn + *got > n->log_end ||
							memcmp(buf, n->log + (lsn - n->log_base), *got) != 0))
		sim_fail(n->sim, "node %d reads other log at %X/%X than was written", n->index, AU_LSN_ARGS(lsn));
	return status;
}

static AuStatus
log_trim(void *ctx, void *vol, AuLsn lsn, char *err, size_t errlen)
{
	SimNode    *n = vol;
	AuStatus	status = au_landing_trim(use(n), lsn, err, errlen);

	(void) ctx;
	n->log_start = au_landing_start(n->landing);
	return status;
}

static AuStatus
log_truncate(void *ctx, void *vol, AuLsn lsn, char *err, size_t errlen)
{
	SimNode    *n = vol;
	AuStatus	status;

	(void) ctx;
	if (n->sim->opt.plant == SIM_PLANT_NO_CUT)
		return AU_OK;
	status = au_landing_truncate(use(n), lsn, err, errlen);
	if (status != AU_OK)
		return status;
	n->log_end = n->log_durable = lsn;
	if (n->synced_mark > lsn)
		n->synced_mark = lsn;
	if (n->written_mark > lsn)
		n->written_mark = lsn;
	return AU_OK;
}

static AuLsn
log_start(void *ctx, void *vol)
{
	(void) ctx;
	return ((SimNode *) vol)->log_start;
}

static AuLsn
log_end(void *ctx, void *vol)
{
	(void) ctx;
	return ((SimNode *) vol)->log_end;
}

static AuLsn
log_durable(void *ctx, void *vol)
{
	SimNode    *n = vol;

	(void) ctx;
	return n->sim->opt.plant == SIM_PLANT_ACK_BEFORE_PERSIST ? n->log_end : n->log_durable;
}

/* ---- life ------------------------------------------------------------- */

void
sim_disk_init(SimNode *n)
{
	AuNodeHost *h = &n->host;

	h->volume_create = volume_create;
	h->volume_save = volume_save;
	h->log_append = log_append;
	h->log_sync_start = log_sync_start;
	h->log_read = log_read;
	h->log_trim = log_trim;
	h->log_truncate = log_truncate;
	h->log_start = log_start;
	h->log_end = log_end;
	h->log_durable = log_durable;
	n->disk = calloc(1, sizeof(MemDisk));
	if (n->disk == NULL)
		abort();
}

/* kill -9 leaves what was written, a power cut what it likes. */
void
sim_disk_crash(SimNode *n)
{
	Sim		   *s = n->sim;
	uint64_t	how = sim_below(s, 8);

	n->syncing = false;
	if (!n->exists)
		return;
	(void) use(n);
	au_landing_close(n->landing);
	n->landing = NULL;
	memdisk.cut = how < 3 ? MEM_CUT_KEEP : how < 4 ? MEM_CUT_LOSE : how < 6 ? MEM_CUT_LINES : MEM_CUT_RANDOM;
	/* a failed sync may have dropped anything that was not synced */
	if (n->sync_fails && memdisk.cut == MEM_CUT_KEEP)
		memdisk.cut = MEM_CUT_RANDOM;
	memdisk_power_cut(memdisk.cut == MEM_CUT_LINES || s->swarm.pmem);
}

/* What was found is what was written, and has all that was synced. */
static void
check_recovered(SimNode *n)
{
	Sim		   *s = n->sim;
	AuLsn		start = au_landing_start(n->landing);
	AuLsn		end = au_landing_end(n->landing);
	uint8_t		buf[16384];
	char		err[512];

	if (end < n->log_durable || end > n->log_end || (start > n->log_start && !n->shortened))
		sim_fail(s, "node %d: a landing log from %X/%X to %X/%X, durable to %X/%X, was opened as %X/%X to %X/%X",
				 n->index, AU_LSN_ARGS(n->log_start), AU_LSN_ARGS(n->log_end), AU_LSN_ARGS(n->log_durable),
				 AU_LSN_ARGS(start), AU_LSN_ARGS(end));
	n->log_start = start;
	n->log_end = n->log_durable = end;
	n->shortened = false;
	for (AuLsn at = start; at < end && !s->broken;)
	{
		size_t		got;

		if (log_read(NULL, n, at, buf, sizeof(buf), &got, err, sizeof(err)) != AU_OK)
			break;				/* said by log_read */
		at += got;
	}
}

/* The log is damaged: what is not needed goes, or all of it. */
static AuStatus
rescue(SimNode *n, char *err, size_t errlen)
{
	Sim		   *s = n->sim;
	AuVolumeMeta lost = n->meta;
	AuLsn		start;
	AuStatus	status;

	notice(n);
	au_volume_lose_log(&lost, n->persisted_restart, &start);
	n->shortened = true;
	status = open_landing(n, AU_LSN_INVALID, start, err, errlen);
	if (status == AU_OK)
	{
		sim_say(s, "node %d: log below %X/%X was damaged, and is not needed", n->index,
				AU_LSN_ARGS(au_landing_start(n->landing)));
		check_recovered(n);
	}
	else if (status == AU_CORRUPT && !n->lost &&
			 (n->io_error_until > s->now || n->full_until > s->now))
		status = AU_IO;			/* begun anew as a whole or not at all */
	else if (status == AU_CORRUPT && !n->lost)
	{
		sim_say(s, "node %d: the log is begun anew at %X/%X", n->index, AU_LSN_ARGS(start));
		n->shortened = false;
		n->written_mark = n->synced_mark = 0;
		n->lost_end = n->log_durable > n->lost_end ? n->log_durable : n->lost_end;
		status = make_volume(n, &lost, start, err, errlen);
		s->figures.relogs += status == AU_OK;
	}
	n->damaged = status != AU_OK;
	return status;
}

bool
sim_disk_open(SimNode *n)
{
	Sim		   *s = n->sim;
	char		err[512];
	AuStatus	status;

	if (!n->exists)
		return true;
	status = open_landing(n, AU_LSN_INVALID, AU_LSN_INVALID, err, sizeof(err));
	if (status == AU_OK)
	{
		n->damaged = n->damaged && !n->shortened;
		check_recovered(n);
		return true;
	}
	sim_say(s, "node %d does not start: %s", n->index, err);
	sim_trace(s, 0xd15c, (uint64_t) status);
	if (status == AU_CORRUPT && n->damaged)
		status = rescue(n, err, sizeof(err));
	if (status == AU_OK)
		return true;
	if (status == AU_CORRUPT && n->lost)
		n->start_at = UINT64_MAX;
	else if (status == AU_CORRUPT || (n->io_error_until <= s->now && n->full_until <= s->now))
		sim_fail(s, "node %d does not start again: %s", n->index, err);
	else
		n->start_at = s->now + 100000;
	return false;
}

void
sim_disk_free(SimNode *n)
{
	if (n->landing != NULL)
	{
		(void) use(n);
		au_landing_close(n->landing);
	}
	memdisk_at = n->disk;
	memdisk_format(0);
	memdisk_at = &memdisk_one;
	free(n->disk);
	free(n->log);
}

/* ---- nodes that come and go ------------------------------------------- */

void
sim_disk_wipe(SimNode *n)
{
	assert(n->landing == NULL);
	memdisk_at = n->disk;
	memdisk_format(0);
	n->exists = n->damaged = n->lost = n->shortened = false;
	n->meta.lost_before = 0;
	n->written_mark = n->synced_mark = n->lost_end = 0;
	n->log_base = n->log_start = n->log_end = n->log_durable = 0;
	if (n->start_at == UINT64_MAX)
		n->start_at = n->sim->now;
}

bool
sim_disk_relog(SimNode *n, AuLsn start)
{
	char		err[512];

	if (n->syncing || n->full_until > n->sim->now || n->io_error_until > n->sim->now)
		return false;
	if (start <= n->log_end || start > n->fresh_applied)
		sim_fail(n->sim, "node %d throws log up to %X/%X away for one that begins at %X/%X, with pages as of %X/%X",
				 n->index, AU_LSN_ARGS(n->log_end), AU_LSN_ARGS(start), AU_LSN_ARGS(n->fresh_applied));
	(void) use(n);
	au_landing_close(n->landing);
	n->landing = NULL;
	n->written_mark = n->synced_mark = 0;
	if (make_volume(n, &n->meta, start, err, sizeof(err)) != AU_OK)
		sim_fail(n->sim, "node %d: no log was made by a disk that is well: %s", n->index, err);
	return true;
}

bool
sim_disk_put(SimNode *n, const uint8_t *bytes, size_t len)
{
	char		err[512];

	return !n->syncing && n->full_until <= n->sim->now && n->io_error_until <= n->sim->now &&
		log_append(NULL, n, n->meta.term, n->meta.timeline, n->log_end, bytes, len,
				   err, sizeof(err)) == AU_OK &&
		sync_now(n, err, sizeof(err)) == AU_OK;
}

bool
sim_disk_adopt(SimNode *n, const AuVolumeMeta *meta, const SimNode *from)
{
	char		err[512];

	if (n->exists || n->full_until > n->sim->now || n->io_error_until > n->sim->now ||
		make_volume(n, meta, from->persisted_restart, err, sizeof(err)) != AU_OK)
		return false;
	n->sync_fails = false;
	if (from->persisted_applied > from->persisted_restart &&
		!sim_disk_put(n, from->log + (n->log_base - from->log_base),
					  (size_t) (from->persisted_applied - from->persisted_restart)))
		sim_fail(n->sim, "node %d: log was not taken over by a disk that is well", n->index);
	return true;
}

/* ---- damage ----------------------------------------------------------- */

static int
by_name(const void *a, const void *b)
{
	return strcmp((*(MemName *const *) a)->name, (*(MemName *const *) b)->name);
}

/* A segment that lies below the synced mark, by chance; NULL: there is none. */
static MemFile *
old_segment(SimNode *n)
{
	MemName    *found[MEMDISK_FILES];
	int			count = 0;
	int			old = 0;

	for (int i = 0; i < memdisk.n_names; i++)
		if (memdisk.names[i].now != NULL && memdisk.names[i].now == memdisk.names[i].synced &&
			strstr(memdisk.names[i].name, ".log") != NULL)
			found[count++] = &memdisk.names[i];
	qsort(found, (size_t) count, sizeof(found[0]), by_name);
	while (old + 1 < count && strtoull(found[old + 1]->name, NULL, 16) <= n->synced_mark)
		old++;
	return old > 0 ? found[sim_below(n->sim, (uint64_t) old)]->now : NULL;
}

static void
spoil(MemBytes *b, size_t off, uint64_t how, uint64_t bit, const uint8_t *other)
{
	size_t		len = off < b->len ? b->len - off : 0;

	if (len > MEMDISK_SECTOR)
		len = MEMDISK_SECTOR;
	if (how == 0 && bit / 8 < len)
		b->p[off + bit / 8] ^= (uint8_t) (1u << (bit % 8));
	else if (how == 1)
		memset(b->p + off, 0, len);
	else if (how == 2)
		memcpy(b->p + off, other, len);
}

bool
sim_disk_damage(SimNode *n)
{
	static const char *const names[] = {"a bit flips", "a sector is lost", "a sector is another one"};
	Sim		   *s = n->sim;
	uint32_t	damaged = 0;
	uint64_t	how = sim_below(s, 3);
	uint64_t	bit = sim_below(s, MEMDISK_SECTOR * 8);
	uint8_t		other[MEMDISK_SECTOR] = {0};
	MemFile    *f;
	size_t		off;

	for (uint32_t i = 0; i < s->nnodes; i++)
		damaged += s->nodes[i].damaged || s->nodes[i].meta.lost_before != 0;
	if (!n->exists || n->damaged || n->meta.lost_before != 0 || damaged >= s->nnodes - s->quorum)
		return false;
	memdisk_at = n->disk;
	f = old_segment(n);
	if (f == NULL || f->now.len < MEMDISK_SECTOR * 2 || f->synced.len != f->now.len)
		return false;
	off = (size_t) sim_below(s, f->now.len / MEMDISK_SECTOR) * MEMDISK_SECTOR;
	memcpy(other, f->now.p + (size_t) sim_below(s, f->now.len / MEMDISK_SECTOR) * MEMDISK_SECTOR,
		   MEMDISK_SECTOR);
	spoil(&f->now, off, how, bit, other);
	spoil(&f->synced, off, how, bit, other);
	n->damaged = true;
	s->figures.damaged++;
	sim_say(s, "node %d: %s", n->index, names[how]);
	return true;
}
