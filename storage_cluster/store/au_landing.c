/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_landing.c: appending to the landing log, making it durable, and
 * shortening it at either end.  See au_landing.h for the contract and
 * au_landing_int.h for the bytes.
 *
 *   oldest segment                        newest segment
 *  +-----+-----+----+-----+   +-----+----+    +-----+---+----+.......
 *  | hdr | e   | e  | e   |   | hdr | e  |    | hdr | e | e  | here
 *  +-----+-----+----+-----+   +-----+----+    +-----+---+----+.......
 *  ^ start                                      ^ durable    ^ end
 *
 * Invariants (besides those of au_landing.h):
 *  1. start <= durable <= end, and the segments in memory cover [start, end)
 *     without gap or overlap.
 *  2. The mark on disk is at most what has been synced; before log is cut off
 *     the mark is lowered durably.
 *  3. Segments are removed one by one, each removal durable before the next:
 *     a crash leaves no gap between those that are left.
 */
#include "store/au_landing_int.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/au_crc32c.h"

_Static_assert(ENTRY_CRC_AT + 4 == ENTRY_HEADER, "the CRC ends the entry header");
_Static_assert(SEG_CRC_AT + 4 == SEG_HEADER, "the CRC ends the segment header");

/* ---- errors ----------------------------------------------------------- */

AuStatus
landing_error(AuStatus status, char *err, size_t errlen, const char *fmt, ...)
{
	va_list		args;

	if (errlen > 0)
	{
		va_start(args, fmt);
		vsnprintf(err, errlen, fmt, args);
		va_end(args);
	}
	return status;
}

AuStatus
landing_os_error(const AuLanding *l, int os_error, const char *what,
				 const char *name, char *err, size_t errlen)
{
	AuStatus	status = AU_IO;
	if (os_error == ENOSPC || os_error == EDQUOT || os_error == EFBIG)
		status = AU_FULL;
	else if (os_error == EBUSY)
		status = AU_REFUSED;
	else if (os_error == ENOMEM)
		status = AU_NOMEM;
	return landing_error(status, err, errlen, "could not %s \"%s%s%s\": %s",
						 what, l->dir_name, name[0] != '\0' ? "/" : "", name,
						 os_error == EBUSY ? "in use by another process" :
						 strerror(os_error));
}

/* Is the log in a state to be changed? */
static AuStatus
check_usable(const AuLanding *l, char *err, size_t errlen)
{
	if (l->broken)
		return landing_error(AU_CORRUPT, err, errlen,
							 "landing log \"%s\" could not be put right after "
							 "a failed write; it must be opened again",
							 l->dir_name);
	if (atomic_load(&l->sync_failed))
		return landing_error(AU_IO, err, errlen,
							 "landing log \"%s\" is stopped since a sync "
							 "failed; check the disk and start again",
							 l->dir_name);
	return AU_OK;
}

/* ---- segments --------------------------------------------------------- */

void
landing_segment_name(char *name, AuLsn first)
{
	snprintf(name, SEG_NAME_LEN + 1, "%016" PRIX64 ".log", first);
}

LandingSegment *
landing_segment_push(AuLanding *l, AuLsn first)
{
	LandingSegment *seg;

	if (l->nsegs == l->segs_cap)
	{
		size_t		cap = l->segs_cap == 0 ? 16 : 2 * l->segs_cap;

		seg = realloc(l->segs, cap * sizeof(*seg));
		if (seg == NULL)
			return NULL;
		l->segs = seg;
		l->segs_cap = cap;
	}
	seg = &l->segs[l->nsegs++];
	*seg = (LandingSegment) {.first = first,.end = first,.size = SEG_HEADER};
	atomic_fetch_add(&l->bytes, SEG_HEADER);
	return seg;
}

void
landing_segment_pop(AuLanding *l)
{
	LandingSegment *seg = &l->segs[--l->nsegs];

	atomic_fetch_sub(&l->bytes, seg->size);
	free(seg->places);
}

bool
landing_segment_add(LandingSegment *seg, uint32_t length)
{
	if (seg->nplaces == 0 ||
		seg->size - seg->places[seg->nplaces - 1].off >= INDEX_STRIDE)
	{
		if (seg->nplaces == seg->places_cap)
		{
			size_t		cap = seg->places_cap == 0 ? 8 : 2 * seg->places_cap;
			LandingPlace *p = realloc(seg->places, cap * sizeof(*p));

			if (p == NULL)
				return false;
			seg->places = p;
			seg->places_cap = cap;
		}
		seg->places[seg->nplaces++] =
			(LandingPlace) {.lsn = seg->end,.off = seg->size};
	}
	seg->end += length;
	seg->size += ENTRY_HEADER + (uint64_t) length;
	return true;
}

/* Takes back what lies at or above off, where an entry with lsn begins. */
static void
segment_cut(AuLanding *l, LandingSegment *seg, AuLsn lsn, uint64_t off)
{
	while (seg->nplaces > 0 && seg->places[seg->nplaces - 1].off >= off)
		seg->nplaces--;
	atomic_fetch_sub(&l->bytes, seg->size - off);
	seg->end = lsn;
	seg->size = off;
}

AuStatus
landing_segment_create(AuLanding *l, AuLsn first, void **file,
					   char *err, size_t errlen)
{
	char		name[SEG_NAME_LEN + 1];
	uint8_t		header[SEG_HEADER] = {0};
	int			e;

	landing_segment_name(name, first);
	au_put_u32(header, SEG_MAGIC);
	au_put_u32(header + SEG_VERSION_AT, LANDING_VERSION);
	au_put_u64(header + SEG_SYSID_AT, l->system_identifier);
	au_put_u64(header + SEG_FIRST_AT, first);
	au_put_u32(header + SEG_CRC_AT, au_crc32c(0, header, SEG_CRC_AT));

	e = l->io->file_open(l->dir, name, true, file);
	if (e != 0)
		return landing_os_error(l, e, "create", name, err, errlen);
	e = l->io->file_write(*file, 0, header, SEG_HEADER, NULL, 0);
	if (e != 0)
	{
		l->io->file_close(*file);
		(void) l->io->file_remove(l->dir, name);
		return landing_os_error(l, e, "write", name, err, errlen);
	}
	return AU_OK;
}

int
landing_mark_write(AuLanding *l, AuLsn lsn, bool sync)
{
	uint8_t		mark[MARK_SIZE] = {0};
	int			e;

	au_put_u32(mark, MARK_MAGIC);
	au_put_u32(mark + 4, LANDING_VERSION);
	au_put_u64(mark + MARK_LSN_AT, lsn);
	au_put_u32(mark + MARK_CRC_AT, au_crc32c(0, mark, MARK_CRC_AT));
	e = l->io->file_write(l->mark_file, 0, mark, MARK_SIZE, NULL, 0);
	if (e == 0 && sync)
		e = l->io->file_sync(l->mark_file);
	return e;
}

/* ---- appending -------------------------------------------------------- */

/* Begins a new segment at the end of the log. */
static AuStatus
roll_over(AuLanding *l, char *err, size_t errlen)
{
	AuLsn		first = atomic_load(&l->end_lsn);
	void	   *file;
	AuStatus	status;
	bool		full;

	pthread_mutex_lock(&l->lock);
	full = (l->n_unsynced == UNSYNCED_MAX);
	pthread_mutex_unlock(&l->lock);
	if (full)
	{
		/* The syncing thread is far behind: bound what it has to do. */
		status = au_landing_sync(l, err, errlen);
		if (status != AU_OK)
			return status;
	}

	status = landing_segment_create(l, first, &file, err, errlen);
	if (status != AU_OK)
		return status;
	if (landing_segment_push(l, first) == NULL)
	{
		char		name[SEG_NAME_LEN + 1];

		landing_segment_name(name, first);
		l->io->file_close(file);
		(void) l->io->file_remove(l->dir, name);
		return landing_error(AU_NOMEM, err, errlen, "out of memory");
	}
	pthread_mutex_lock(&l->lock);
	l->unsynced[l->n_unsynced++] = l->file;
	l->file = file;
	l->dir_unsynced = true;
	pthread_mutex_unlock(&l->lock);
	return AU_OK;
}

static AuStatus
check_room(AuLanding *l, size_t len, char *err, size_t errlen)
{
	uint64_t	free_bytes;
	int			e = l->io->dir_free(l->dir, &free_bytes);

	if (e != 0)
		return landing_os_error(l, e, "ask for the free space of", "", err, errlen);
	if (free_bytes < l->disk_reserve_bytes ||
		free_bytes - l->disk_reserve_bytes < ENTRY_HEADER + len)
		return landing_error(AU_FULL, err, errlen,
							 "disk of landing log \"%s\" is full: %" PRIu64
							 " bytes free, %" PRIu64 " are kept in reserve",
							 l->dir_name, free_bytes, l->disk_reserve_bytes);
	return AU_OK;
}

/* A failed write may have left part of an entry behind. */
static AuStatus
undo_write(AuLanding *l, const LandingSegment *seg, int os_error,
		   char *err, size_t errlen)
{
	char		name[SEG_NAME_LEN + 1];

	landing_segment_name(name, seg->first);
	if (l->io->file_truncate(l->file, seg->size) != 0)
	{
		l->broken = true;
		return check_usable(l, err, errlen);
	}
	return landing_os_error(l, os_error, "write", name, err, errlen);
}

static void
encode_entry(uint8_t *header, AuLsn lsn, uint64_t term, uint32_t timeline,
			 AuLsn durable, const uint8_t *bytes, uint32_t len)
{
	uint32_t	crc;

	au_put_u32(header, ENTRY_MAGIC);
	au_put_u32(header + ENTRY_LENGTH_AT, len);
	au_put_u64(header + ENTRY_LSN_AT, lsn);
	au_put_u64(header + ENTRY_TERM_AT, term);
	au_put_u64(header + ENTRY_DURABLE_AT, durable);
	au_put_u32(header + ENTRY_TIMELINE_AT, timeline);
	crc = au_crc32c(0, header, ENTRY_CRC_AT);
	au_put_u32(header + ENTRY_CRC_AT, au_crc32c(crc, bytes, len));
}

AuStatus
au_landing_append(AuLanding *l, uint64_t term, uint32_t timeline, AuLsn lsn,
				  const uint8_t *bytes, size_t len, char *err, size_t errlen)
{
	AuLsn		end = atomic_load(&l->end_lsn);
	uint8_t		header[ENTRY_HEADER];
	LandingSegment *seg;
	AuStatus	status;
	int			e;

	status = check_usable(l, err, errlen);
	if (status != AU_OK)
		return status;
	if (lsn != end || len > AU_LANDING_APPEND_MAX || len > AU_LSN_MAX - lsn)
		return landing_error(AU_INVALID, err, errlen,
							 "append of %zu bytes at %X/%X to a log that ends "
							 "at %X/%X", len, AU_LSN_ARGS(lsn), AU_LSN_ARGS(end));
	if (len == 0)
		return AU_OK;
	status = check_room(l, len, err, errlen);
	if (status != AU_OK)
		return status;
	if (l->segs[l->nsegs - 1].size >= l->segment_bytes &&
		l->segs[l->nsegs - 1].end > l->segs[l->nsegs - 1].first)
	{
		status = roll_over(l, err, errlen);
		if (status != AU_OK)
			return status;
	}

	seg = &l->segs[l->nsegs - 1];
	encode_entry(header, lsn, term, timeline, atomic_load(&l->durable_lsn),
				 bytes, (uint32_t) len);
	e = l->io->file_write(l->file, seg->size, header, ENTRY_HEADER, bytes, len);
	if (e != 0)
		return undo_write(l, seg, e, err, errlen);
	if (!landing_segment_add(seg, (uint32_t) len))
		return undo_write(l, seg, ENOMEM, err, errlen);
	atomic_fetch_add(&l->bytes, ENTRY_HEADER + len);

	/* The syncing thread takes `end_lsn` and `file` together. */
	pthread_mutex_lock(&l->lock);
	atomic_store(&l->end_lsn, lsn + len);
	pthread_mutex_unlock(&l->lock);
	return AU_OK;
}

/* ---- durability ------------------------------------------------------- */

/* au_landing_sync under sync_lock. */
static AuStatus
sync_locked(AuLanding *l, char *err, size_t errlen)
{
	void	   *rolled[UNSYNCED_MAX];
	void	   *newest;
	int			n;
	bool		dir;
	AuLsn		target;
	int			e = 0;

	pthread_mutex_lock(&l->lock);
	target = atomic_load(&l->end_lsn);
	n = l->n_unsynced;
	memcpy(rolled, l->unsynced, sizeof(rolled));
	newest = l->file;
	dir = l->dir_unsynced;
	pthread_mutex_unlock(&l->lock);

	if (target == atomic_load(&l->durable_lsn))
		return AU_OK;
	for (int i = 0; i < n && e == 0; i++)
		e = l->io->file_sync(rolled[i]);
	if (e == 0)
		e = l->io->file_sync(newest);
	if (e == 0 && dir)
		e = l->io->dir_sync(l->dir);
	if (e != 0)
	{
		atomic_store(&l->sync_failed, true);
		/* Never AU_FULL: what was written may be lost, nothing can be
		 * repeated. */
		(void) landing_os_error(l, e, "sync", "", err, errlen);
		return AU_IO;
	}

	pthread_mutex_lock(&l->lock);
	l->n_unsynced -= n;
	memmove(l->unsynced, l->unsynced + n,
			(size_t) l->n_unsynced * sizeof(l->unsynced[0]));
	/* A segment created meanwhile comes after `newest`. */
	if (l->file == newest)
		l->dir_unsynced = false;
	pthread_mutex_unlock(&l->lock);
	for (int i = 0; i < n; i++)
		l->io->file_close(rolled[i]);

	atomic_store(&l->durable_lsn, target);
	/* Only a note for recovery: without it less damage is noticed. */
	(void) landing_mark_write(l, target, false);
	return AU_OK;
}

AuStatus
au_landing_sync(AuLanding *l, char *err, size_t errlen)
{
	AuStatus	status;

	pthread_mutex_lock(&l->sync_lock);
	if (atomic_load(&l->sync_failed))
		status = landing_error(AU_IO, err, errlen,
							   "landing log \"%s\" is stopped since a sync "
							   "failed; check the disk and start again",
							   l->dir_name);
	else
		status = sync_locked(l, err, errlen);
	pthread_mutex_unlock(&l->sync_lock);
	return status;
}

/* ---- positions -------------------------------------------------------- */

AuLsn
au_landing_start(const AuLanding *l)
{
	return atomic_load(&l->start_lsn);
}

AuLsn
au_landing_end(const AuLanding *l)
{
	return atomic_load(&l->end_lsn);
}

AuLsn
au_landing_durable(const AuLanding *l)
{
	return atomic_load(&l->durable_lsn);
}

uint64_t
au_landing_bytes(const AuLanding *l)
{
	return atomic_load(&l->bytes);
}

/* ---- shortening ------------------------------------------------------- */

/* Removes a segment's file, durably. */
static AuStatus
remove_segment_file(AuLanding *l, AuLsn first, char *err, size_t errlen)
{
	char		name[SEG_NAME_LEN + 1];
	int			e;

	landing_segment_name(name, first);
	landing_read_forget(l);
	e = l->io->file_remove(l->dir, name);
	if (e != 0 && e != ENOENT)	/* gone after an earlier attempt is fine */
		return landing_os_error(l, e, "remove", name, err, errlen);
	e = l->io->dir_sync(l->dir);
	if (e != 0)
		return landing_os_error(l, e, "sync", "", err, errlen);
	return AU_OK;
}

AuStatus
au_landing_trim(AuLanding *l, AuLsn lsn, char *err, size_t errlen)
{
	AuLsn		limit = atomic_load(&l->durable_lsn);
	AuStatus	status = check_usable(l, err, errlen);

	if (lsn < limit)
		limit = lsn;
	/* The segment that becomes the oldest must be durable itself, be it only
	 * its header: so there has to be something durable in it. */
	while (status == AU_OK && l->nsegs > 1 && l->segs[0].end <= limit &&
		   l->segs[0].end < atomic_load(&l->durable_lsn))
	{
		status = remove_segment_file(l, l->segs[0].first, err, errlen);
		if (status != AU_OK)
			break;
		atomic_fetch_sub(&l->bytes, l->segs[0].size);
		free(l->segs[0].places);
		l->nsegs--;
		memmove(l->segs, l->segs + 1, l->nsegs * sizeof(l->segs[0]));
		atomic_store(&l->start_lsn, l->segs[0].first);
	}
	return status;
}

/*
 * The segment that keeps [first, lsn) after an entry is cut in two: its
 * entries below `off`, then the first `keep` bytes of the one at off.  Made
 * under another name, durable.
 */
static AuStatus
write_shortened(AuLanding *l, void *from, uint64_t off,
				const LandingEntry *entry, uint32_t keep,
				char *err, size_t errlen)
{
	uint8_t		header[ENTRY_HEADER];
	uint64_t	done = 0;
	void	   *file;
	int			e = l->io->file_open(l->dir, TMP_NAME, true, &file);

	if (e != 0)
		return landing_os_error(l, e, "create", TMP_NAME, err, errlen);
	/* The entry's bytes are in the window: write them before it moves. */
	encode_entry(header, entry->lsn, entry->term, entry->timeline,
				 entry->durable, entry->bytes, keep);
	e = l->io->file_write(file, off, header, ENTRY_HEADER, entry->bytes, keep);
	while (e == 0 && done < off)
	{
		const uint8_t *bytes;
		uint64_t	left = off - done;
		size_t		want = left < ENTRY_MAX ? (size_t) left : ENTRY_MAX;
		size_t		got;

		e = landing_window_get(l, from, done, want, &bytes, &got);
		if (e == 0 && got < want)
			e = EIO;
		if (e == 0)
			e = l->io->file_write(file, done, bytes, want, NULL, 0);
		done += want;
	}
	if (e == 0)
		e = l->io->file_sync(file);
	l->io->file_close(file);
	if (e != 0)
	{
		(void) l->io->file_remove(l->dir, TMP_NAME);
		return landing_os_error(l, e, "write", TMP_NAME, err, errlen);
	}
	return AU_OK;
}

/* Opens the newest segment's file anew, for appends. */
static AuStatus
reopen_newest(AuLanding *l, char *err, size_t errlen)
{
	char		name[SEG_NAME_LEN + 1];
	void	   *file;
	int			e;

	landing_segment_name(name, l->segs[l->nsegs - 1].first);
	e = l->io->file_open(l->dir, name, false, &file);
	if (e != 0)
		return landing_os_error(l, e, "open", name, err, errlen);
	pthread_mutex_lock(&l->lock);
	l->io->file_close(l->file);
	l->file = file;
	pthread_mutex_unlock(&l->lock);
	return AU_OK;
}

/*
 * The cut itself, in the newest segment, at the entry at off, of which the
 * first `keep` bytes stay.  Returns durable.
 */
static AuStatus
cut_newest(AuLanding *l, uint64_t off, AuLsn entry_lsn, uint32_t keep,
		   char *err, size_t errlen)
{
	LandingSegment *seg = &l->segs[l->nsegs - 1];
	char		name[SEG_NAME_LEN + 1];
	AuStatus	status;
	int			e;

	landing_segment_name(name, seg->first);
	landing_read_forget(l);
	segment_cut(l, seg, entry_lsn, off);
	if (keep > 0)
	{
		e = l->io->file_rename(l->dir, TMP_NAME, name);
		if (e == 0)
			e = l->io->dir_sync(l->dir);
		if (e != 0)
			return landing_os_error(l, e, "rename to", name, err, errlen);
		if (!landing_segment_add(seg, keep))
			return landing_error(AU_NOMEM, err, errlen, "out of memory");
		atomic_fetch_add(&l->bytes, ENTRY_HEADER + (uint64_t) keep);
	}
	status = reopen_newest(l, err, errlen);
	if (status != AU_OK || keep > 0)
		return status;
	e = l->io->file_truncate(l->file, off);
	if (e == 0)
		e = l->io->file_sync(l->file);
	if (e != 0)
		return landing_os_error(l, e, "cut", name, err, errlen);
	return AU_OK;
}

/*
 * au_landing_truncate under sync_lock, everything synced.  What can fail for
 * want of room comes first; after the mark is lowered a failure leaves memory
 * and disk apart.
 */
static AuStatus
truncate_locked(AuLanding *l, AuLsn lsn, char *err, size_t errlen)
{
	size_t		i = 0;
	uint64_t	off = SEG_HEADER;
	LandingEntry entry = {.lsn = lsn};
	uint32_t	keep;
	AuStatus	status;
	int			e;

	/* At the very start there may be no entry: the first segment is emptied. */
	if (lsn > l->segs[0].first)
	{
		status = landing_find(l, lsn, &i, &off, &entry, err, errlen);
		if (status != AU_OK)
			return status;
	}
	keep = (uint32_t) (lsn - entry.lsn);
	if (keep > 0)
	{
		status = write_shortened(l, l->read_file, off, &entry, keep, err, errlen);
		if (status != AU_OK)
			return status;
	}
	e = landing_mark_write(l, lsn, true);
	if (e != 0)
		return landing_os_error(l, e, "write", MARK_NAME, err, errlen);

	l->broken = true;			/* until all is done */
	while (l->nsegs > i + 1)
	{
		status = remove_segment_file(l, l->segs[l->nsegs - 1].first, err, errlen);
		if (status != AU_OK)
			return status;
		landing_segment_pop(l);
	}
	status = cut_newest(l, off, entry.lsn, keep, err, errlen);
	if (status != AU_OK)
		return status;
	atomic_store(&l->end_lsn, lsn);
	atomic_store(&l->durable_lsn, lsn);
	l->broken = false;
	return AU_OK;
}

AuStatus
au_landing_truncate(AuLanding *l, AuLsn lsn, char *err, size_t errlen)
{
	AuStatus	status = check_usable(l, err, errlen);

	if (status != AU_OK)
		return status;
	if (lsn < atomic_load(&l->start_lsn))
		return landing_error(AU_INVALID, err, errlen,
							 "landing log \"%s\" begins at %X/%X and cannot be "
							 "cut at %X/%X", l->dir_name,
							 AU_LSN_ARGS(atomic_load(&l->start_lsn)),
							 AU_LSN_ARGS(lsn));
	if (lsn >= atomic_load(&l->end_lsn))
		return AU_OK;

	pthread_mutex_lock(&l->sync_lock);
	/* What stays has to be durable, and no file may wait for its sync. */
	status = sync_locked(l, err, errlen);
	if (status == AU_OK)
		status = truncate_locked(l, lsn, err, errlen);
	pthread_mutex_unlock(&l->sync_lock);
	return status;
}

void
au_landing_close(AuLanding *l)
{
	if (l == NULL)
		return;
	while (l->nsegs > 0)
		landing_segment_pop(l);
	for (int i = 0; i < l->n_unsynced; i++)
		l->io->file_close(l->unsynced[i]);
	if (l->file != NULL)
		l->io->file_close(l->file);
	if (l->read_file != NULL)
		l->io->file_close(l->read_file);
	if (l->mark_file != NULL)
		l->io->file_close(l->mark_file);
	if (l->dir != NULL)
		l->io->dir_close(l->dir);
	pthread_mutex_destroy(&l->lock);
	pthread_mutex_destroy(&l->sync_lock);
	free(l->segs);
	free(l->window.buf);
	free(l->dir_name);
	free(l);
}
