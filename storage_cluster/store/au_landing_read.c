/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_landing_read.c: reading the landing log by LSN.
 *
 * From the LSN to the bytes: the segment by binary search, in it the nearest
 * remembered place at or before (one for each INDEX_STRIDE bytes of file),
 * from there entry by entry.  Who reads on where the last read ended does not
 * walk: the last entry's place is remembered, too.
 *
 * Invariants:
 *  1. Log bytes are handed out only from an entry whose CRC was right when it
 *     was read from the file.
 *  2. Whoever closes or shortens a file forgets the window first, for a file
 *     opened later may have the same handle; whoever appends forgets what was
 *     read (zeros) where the entry goes.
 */
#include "store/au_landing_int.h"

#include <stdlib.h>

#include "common/au_crc32c.h"
#include "core/au_plant.h"

/* Read at least so much at once. */
#define READ_AHEAD (256u << 10)

void
landing_window_forget(LandingWindow *w)
{
	w->file = NULL;
	w->len = 0;
	w->last.length = 0;
}

void
landing_window_limit(AuLanding *l, const LandingSegment *seg, uint64_t off)
{
	LandingWindow *w = &l->window;

	if (w->file == NULL || w->file != l->read_file || l->read_first != seg->first)
		return;
	if (off <= w->off)
		landing_window_forget(w);
	else if (w->len > off - w->off)
		w->len = (size_t) (off - w->off);
}

int
landing_window_get(AuLanding *l, void *file, uint64_t off, size_t need,
				   const uint8_t **bytes, size_t *got)
{
	LandingWindow *w = &l->window;
	size_t		want = need > READ_AHEAD ? need : READ_AHEAD;
	int			e;

	if (w->file != file || off < w->off || off - w->off > w->len ||
		need > w->len - (size_t) (off - w->off))
	{
		landing_window_forget(w);
		e = l->io->file_read(file, off, w->buf, want, &w->len);
		if (e != 0)
		{
			w->len = 0;
			return e;
		}
		w->file = file;
		w->off = off;
	}
	*bytes = w->buf + (off - w->off);
	*got = w->len - (size_t) (off - w->off);
	return 0;
}

AuStatus
landing_entry_at(AuLanding *l, void *file, uint64_t off,
				 LandingEntry *entry, int *os_error)
{
	const uint8_t *p;
	size_t		got;
	uint32_t	crc;

	*os_error = landing_window_get(l, file, off, ENTRY_HEADER, &p, &got);
	if (*os_error != 0)
		return AU_IO;
	if (got < ENTRY_HEADER || au_get_u32(p) != ENTRY_MAGIC)
		return AU_CORRUPT;
	entry->length = au_get_u32(p + ENTRY_LENGTH_AT);
	if (entry->length == 0 || entry->length > AU_LANDING_APPEND_MAX)
		return AU_CORRUPT;

	*os_error = landing_window_get(l, file, off, ENTRY_HEADER + entry->length,
								   &p, &got);
	if (*os_error != 0)
		return AU_IO;
	if (got < ENTRY_HEADER + (size_t) entry->length)
		return AU_CORRUPT;
	crc = au_crc32c(0, p, ENTRY_CRC_AT);
	crc = au_crc32c(crc, p + ENTRY_HEADER, entry->length);
	if (crc != au_get_u32(p + ENTRY_CRC_AT) && !AU_PLANTED(AU_PLANT_NO_CRC))
		return AU_CORRUPT;

	entry->lsn = au_get_u64(p + ENTRY_LSN_AT);
	entry->term = au_get_u64(p + ENTRY_TERM_AT);
	entry->durable = au_get_u64(p + ENTRY_DURABLE_AT);
	entry->timeline = au_get_u32(p + ENTRY_TIMELINE_AT);
	entry->bytes = p + ENTRY_HEADER;
	if (entry->lsn > AU_LSN_MAX - entry->length || entry->durable > entry->lsn)
		return AU_CORRUPT;
	return AU_OK;
}

void
landing_read_forget(AuLanding *l)
{
	landing_window_forget(&l->window);
	if (l->read_file != NULL)
		l->io->file_close(l->read_file);
	l->read_file = NULL;
	l->last_off = 0;
}

/* The segment that holds lsn, which is in the log. */
static size_t
find_segment(const AuLanding *l, AuLsn lsn)
{
	size_t		low = 0;
	size_t		high = l->nsegs;

	while (high - low > 1)
	{
		size_t		mid = low + (high - low) / 2;

		if (l->segs[mid].first <= lsn)
			low = mid;
		else
			high = mid;
	}
	return low;
}

/* The best place to walk from. */
static LandingPlace
find_place(const AuLanding *l, const LandingSegment *seg, AuLsn lsn)
{
	LandingPlace place = {.lsn = seg->first,.off = SEG_HEADER};
	size_t		low = 0;
	size_t		high = seg->nplaces;

	while (low < high)
	{
		size_t		mid = low + (high - low) / 2;

		if (seg->places[mid].lsn <= lsn)
		{
			place = seg->places[mid];
			low = mid + 1;
		}
		else
			high = mid;
	}
	if (l->last_off != 0 && l->last_lsn <= lsn && l->last_lsn > place.lsn)
		place = (LandingPlace) {.lsn = l->last_lsn,.off = l->last_off};
	return place;
}

AuStatus
landing_find(AuLanding *l, AuLsn lsn, size_t *seg_index, uint64_t *off,
			 LandingEntry *entry, char *err, size_t errlen)
{
	size_t		i = find_segment(l, lsn);
	const LandingSegment *seg = &l->segs[i];
	char		name[SEG_NAME_LEN + 1];
	LandingPlace place;
	int			e;

	/* Read in small pieces, an entry is checked once. */
	if (lsn >= l->window.last.lsn && lsn - l->window.last.lsn < l->window.last.length)
	{
		*entry = l->window.last;
		*seg_index = i;
		*off = l->last_off;
		return AU_OK;
	}
	landing_segment_name(name, seg->first);
	if (l->read_file == NULL || l->read_first != seg->first)
	{
		landing_read_forget(l);
		e = l->io->file_open(l->dir, name, false, &l->read_file);
		if (e != 0)
		{
			l->read_file = NULL;
			return landing_os_error(l, e, "open", name, err, errlen);
		}
		l->read_first = seg->first;
	}

	place = find_place(l, seg, lsn);
	for (;;)
	{
		AuStatus	status = landing_entry_at(l, l->read_file, place.off, entry, &e);

		if (status == AU_IO)
			return landing_os_error(l, e, "read", name, err, errlen);
		if (status != AU_OK || entry->lsn != place.lsn)
			return landing_error(AU_CORRUPT, err, errlen,
								 "landing log \"%s/%s\" is damaged at %X/%X",
								 l->dir_name, name, AU_LSN_ARGS(place.lsn));
		if (lsn - entry->lsn < entry->length)
			break;
		place.lsn += entry->length;
		place.off = landing_entry_place(seg, place.off + ENTRY_HEADER + entry->length);
	}
	l->window.last = *entry;
	l->last_lsn = place.lsn;
	l->last_off = place.off;
	*seg_index = i;
	*off = place.off;
	return AU_OK;
}

AuStatus
au_landing_read(AuLanding *l, AuLsn lsn, uint8_t *buf, size_t cap,
				size_t *got, char *err, size_t errlen)
{
	AuLsn		end = atomic_load(&l->end_lsn);

	*got = 0;
	if (l->broken)
		return landing_error(AU_CORRUPT, err, errlen,
							 "landing log \"%s\" must be opened again",
							 l->dir_name);
	if (lsn < atomic_load(&l->start_lsn) || lsn >= end)
		return landing_error(AU_NOT_FOUND, err, errlen,
							 "landing log \"%s\" holds %X/%X to %X/%X, not %X/%X",
							 l->dir_name,
							 AU_LSN_ARGS(atomic_load(&l->start_lsn)),
							 AU_LSN_ARGS(end), AU_LSN_ARGS(lsn));
	while (*got < cap && lsn < end)
	{
		LandingEntry entry;
		size_t		seg;
		uint64_t	off;
		size_t		skip;
		size_t		n;
		AuStatus	status = landing_find(l, lsn, &seg, &off, &entry, err, errlen);

		/* What was good is handed out first; the next read says the rest. */
		if (status != AU_OK)
			return *got > 0 ? AU_OK : status;
		skip = (size_t) (lsn - entry.lsn);
		n = entry.length - skip;
		if (n > cap - *got)
			n = cap - *got;
		memcpy(buf + *got, entry.bytes + skip, n);
		*got += n;
		lsn += n;
	}
	return AU_OK;
}
