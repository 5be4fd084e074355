/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_landing_cut.c: shortening the landing log at either end.
 *
 * Trimming removes whole segments, oldest first: from memory by the thread that
 * appends, their files later by another one, for that may wait for the disk.
 * Truncating:
 *
 *   copy of the entry that is cut in two ──▶ TMP_NAME, durable
 *   mark lowered, with "cut at lsn"      ──▶ durable: from here on the cut is
 *                                            certain
 *   segments above removed, newest first; the file ended, or TMP_NAME renamed
 *   mark without "cut", in both slots    ──▶ durable: done
 *
 * Opening finishes a cut that it finds announced.
 *
 * Invariants:
 *  1. Before log is cut off the mark is lowered durably, and as long as the
 *     cut is not finished the newest mark announces it.
 *  2. Segments are removed one by one, each removal durable before the next:
 *     a crash leaves no gap between those that are left.
 */
#include "store/au_landing_int.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

/* Removes a segment's file, durably; nobody reads it. */
static AuStatus
remove_segment_file(AuLanding *l, AuLsn first, char *err, size_t errlen)
{
	char		name[SEG_NAME_LEN + 1];
	int			e;

	landing_segment_name(name, first);
	e = l->io->file_remove(l->dir, name);
	if (e != 0 && e != ENOENT)	/* gone after an earlier attempt is fine */
		return landing_os_error(l, e, "remove", name, err, errlen);
	e = l->io->dir_sync(l->dir);
	if (e != 0)
		return landing_os_error(l, e, "sync", "", err, errlen);
	return AU_OK;
}

/* Takes back what lies at or above off, where an entry with lsn begins. */
static void
segment_cut(AuLanding *l, LandingSegment *seg, AuLsn lsn, uint64_t off)
{
	uint64_t	before = landing_segment_space(seg);

	while (seg->nplaces > 0 && seg->places[seg->nplaces - 1].off >= off)
		seg->nplaces--;
	seg->end = lsn;
	seg->size = off;
	seg->allocated = 0;
	atomic_fetch_sub(&l->bytes, before - off);
}

/* The oldest segment's file is to be removed; false: out of memory. */
static bool
forget_oldest(AuLanding *l)
{
	LandingSegment *seg = &l->segs[0];
	bool		ok = true;

	pthread_mutex_lock(&l->lock);
	if (l->ngone == l->gone_cap)
	{
		size_t		cap = l->gone_cap == 0 ? 8 : 2 * l->gone_cap;
		LandingGone *bigger = realloc(l->gone, cap * sizeof(*bigger));

		ok = bigger != NULL;
		if (ok)
		{
			l->gone = bigger;
			l->gone_cap = cap;
		}
	}
	if (ok)
		l->gone[l->ngone++] = (LandingGone)
		{
			seg->first, landing_segment_space(seg)
		};
	pthread_mutex_unlock(&l->lock);
	return ok;
}

AuStatus
au_landing_forget(AuLanding *l, AuLsn lsn, bool *more, char *err, size_t errlen)
{
	AuLsn		limit = atomic_load(&l->durable_lsn);
	AuStatus	status = landing_check_usable(l, err, errlen);

	if (lsn < limit)
		limit = lsn;
	/* The segment that becomes the oldest must be durable itself, be it only
	 * its header: so there has to be something durable in it. */
	while (status == AU_OK && l->nsegs > 1 && l->segs[0].end <= limit &&
		   l->segs[0].end < atomic_load(&l->durable_lsn))
	{
		if (!forget_oldest(l))
		{
			status = landing_error(AU_NOMEM, err, errlen, "out of memory");
			break;
		}
		landing_read_forget(l);
		free(l->segs[0].places);
		l->nsegs--;
		memmove(l->segs, l->segs + 1, l->nsegs * sizeof(l->segs[0]));
		atomic_store(&l->start_lsn, l->segs[0].first);
	}
	pthread_mutex_lock(&l->lock);
	*more = l->ngone > 0;
	pthread_mutex_unlock(&l->lock);
	return status;
}

AuStatus
au_landing_remove(AuLanding *l, char *err, size_t errlen)
{
	AuStatus	status = AU_OK;

	pthread_mutex_lock(&l->lock);
	while (status == AU_OK && l->ngone > 0)
	{
		LandingGone oldest = l->gone[0];

		pthread_mutex_unlock(&l->lock);
		status = remove_segment_file(l, oldest.first, err, errlen);
		pthread_mutex_lock(&l->lock);
		if (status != AU_OK)
			break;
		l->ngone--;
		memmove(l->gone, l->gone + 1, l->ngone * sizeof(l->gone[0]));
		atomic_fetch_sub(&l->bytes, oldest.space);
	}
	pthread_mutex_unlock(&l->lock);
	return status;
}

AuStatus
au_landing_trim(AuLanding *l, AuLsn lsn, char *err, size_t errlen)
{
	bool		more;
	AuStatus	status = au_landing_forget(l, lsn, &more, err, errlen);

	return status == AU_OK && more ? au_landing_remove(l, err, errlen) : status;
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
	uint64_t	mapped;
	void	   *file;
	int			e = l->io->file_open(l->dir, TMP_NAME, true, &file);

	if (e != 0)
		return landing_os_error(l, e, "create", TMP_NAME, err, errlen);
	if (l->io->file_allocate != NULL)
		e = l->io->file_allocate(file, off + ENTRY_HEADER + keep, &mapped);
	/* The entry's bytes are in the window: write them before it moves. */
	landing_encode_entry(header, entry->lsn, entry->term, entry->timeline,
				 entry->durable, entry->bytes, keep);
	if (e == 0)
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
	LandingSegment *seg = &l->segs[l->nsegs - 1];
	char		name[SEG_NAME_LEN + 1];
	uint64_t	size;
	void	   *file;
	int			e;

	landing_segment_name(name, seg->first);
	e = l->io->file_open(l->dir, name, false, &file);
	if (e == 0)
	{
		e = l->io->file_size(file, &size);
		if (e != 0)
			l->io->file_close(file);
	}
	if (e != 0)
		return landing_os_error(l, e, "open", name, err, errlen);
	pthread_mutex_lock(&l->lock);
	l->io->file_close(l->file);
	l->file = file;
	pthread_mutex_unlock(&l->lock);
	l->mapped = 0;				/* until the next append */
	landing_segment_grown(l, seg, size);
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
	landing_segment_grown(l, seg, off);
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
	e = landing_mark_write(l, lsn, lsn, true);
	if (e != 0)
		return landing_os_error(l, e, "write", MARK_NAME, err, errlen);

	l->broken = true;			/* until all is done */
	landing_read_forget(l);
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
	e = landing_mark_write_both(l, lsn);
	if (e != 0)
		return landing_os_error(l, e, "write", MARK_NAME, err, errlen);
	atomic_store(&l->end_lsn, lsn);
	atomic_store(&l->durable_lsn, lsn);
	l->broken = false;
	return AU_OK;
}

AuStatus
au_landing_truncate(AuLanding *l, AuLsn lsn, char *err, size_t errlen)
{
	AuStatus	status = landing_check_usable(l, err, errlen);

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
	status = landing_sync_locked(l, err, errlen);
	if (status == AU_OK)
		status = truncate_locked(l, lsn, err, errlen);
	pthread_mutex_unlock(&l->sync_lock);
	return status;
}
