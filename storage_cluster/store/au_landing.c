/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_landing.c: appending to the landing log and making it durable.  See
 * au_landing.h for the contract and au_landing_int.h for the bytes.
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
 *  2. The mark on disk is at most what has been synced.
 *  3. On a mapped disk an entry's first word is stored when the rest of it is
 *     persistent, and where it is stored there was zero before: an entry that
 *     a power cut leaves visible is whole.
 *  4. On a mapped disk nothing is acknowledged before the mark above it is
 *     persistent.
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
_Static_assert(MARK_CRC_AT + 4 == MARK_SIZE, "the CRC ends the mark");
_Static_assert(SEG_HEADER % 8 == 0, "the first entry is aligned");

/* Places of a segment for which memory is taken at once. */
#define PLACES_RESERVED_MAX 1024

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

AuStatus
landing_check_usable(const AuLanding *l, char *err, size_t errlen)
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

uint64_t
landing_segment_space(const LandingSegment *seg)
{
	return seg->size > seg->allocated ? seg->size : seg->allocated;
}

LandingSegment *
landing_segment_push(AuLanding *l, AuLsn first)
{
	LandingSegment *seg;
	/* A segment of the usual size never needs more memory in an append. */
	size_t		places = (size_t) (l->segment_bytes / INDEX_STRIDE) + 2;

	if (l->nsegs == l->segs_cap)
	{
		size_t		cap = l->segs_cap == 0 ? 16 : 2 * l->segs_cap;

		seg = realloc(l->segs, cap * sizeof(*seg));
		if (seg == NULL)
			return NULL;
		l->segs = seg;
		l->segs_cap = cap;
	}
	if (places > PLACES_RESERVED_MAX)
		places = PLACES_RESERVED_MAX;
	seg = &l->segs[l->nsegs];
	*seg = (LandingSegment) {
		.first = first,.version = LANDING_VERSION,.end = first,.size = SEG_HEADER,
		.places = malloc(places * sizeof(LandingPlace)),.places_cap = places
	};
	if (seg->places == NULL)
		return NULL;
	l->nsegs++;
	atomic_fetch_add(&l->bytes, SEG_HEADER);
	return seg;
}

void
landing_segment_pop(AuLanding *l)
{
	LandingSegment *seg = &l->segs[--l->nsegs];

	atomic_fetch_sub(&l->bytes, landing_segment_space(seg));
	free(seg->places);
}

uint64_t
landing_entry_place(const LandingSegment *seg, uint64_t end)
{
	return seg->version == LANDING_VERSION_PACKED ? end : (end + 7) & ~(uint64_t) 7;
}

bool
landing_segment_add(LandingSegment *seg, uint32_t length)
{
	uint64_t	off = landing_entry_place(seg, seg->size);

	if (seg->nplaces == 0 || off - seg->places[seg->nplaces - 1].off >= INDEX_STRIDE)
	{
		if (seg->nplaces == seg->places_cap)
		{
			size_t		cap = 2 * seg->places_cap;
			LandingPlace *p = realloc(seg->places, cap * sizeof(*p));

			if (p == NULL)
				return false;
			seg->places = p;
			seg->places_cap = cap;
		}
		seg->places[seg->nplaces++] = (LandingPlace) {.lsn = seg->end,.off = off};
	}
	seg->end += length;
	seg->size = off + ENTRY_HEADER + (uint64_t) length;
	return true;
}

AuStatus
landing_segment_create(AuLanding *l, AuLsn first, uint64_t size, void **file,
					   uint64_t *mapped, char *err, size_t errlen)
{
	char		name[SEG_NAME_LEN + 1];
	uint8_t		header[SEG_HEADER] = {0};
	const char *what = "write";
	int			e;

	landing_segment_name(name, first);
	au_put_u32(header, SEG_MAGIC);
	au_put_u32(header + SEG_VERSION_AT, LANDING_VERSION);
	au_put_u64(header + SEG_SYSID_AT, l->system_identifier);
	au_put_u64(header + SEG_FIRST_AT, first);
	au_put_u32(header + SEG_CRC_AT, au_crc32c(0, header, SEG_CRC_AT));

	*mapped = 0;
	e = l->io->file_open(l->dir, name, true, file);
	if (e != 0)
		return landing_os_error(l, e, "create", name, err, errlen);
	if (l->io->file_allocate != NULL)
	{
		what = "allocate";
		e = l->io->file_allocate(*file, size, mapped);
	}
	if (e == 0)
	{
		what = "write";
		e = landing_write_record(l, *file, 0, header, SEG_HEADER, NULL, 0);
	}
	if (e != 0)
	{
		l->io->file_close(*file);
		(void) l->io->file_remove(l->dir, name);
		return landing_os_error(l, e, what, name, err, errlen);
	}
	return AU_OK;
}

int
landing_write_record(AuLanding *l, void *file, uint64_t off,
					 const uint8_t *header, size_t header_len,
					 const uint8_t *bytes, size_t len)
{
	int			e;

	/* Without alignment (an older file's) the CRC has to tell. */
	if (l->io->file_store8 == NULL || off % 8 != 0)
		return l->io->file_write(file, off, header, header_len, bytes, len);
	e = l->io->file_write(file, off + 8, header + 8, header_len - 8, bytes, len);
	if (e == 0)
		e = l->io->file_sync(file);
	if (e == 0)
		e = l->io->file_store8(file, off, header);
	return e;
}

int
landing_mark_write(AuLanding *l, AuLsn lsn, AuLsn cut, bool sync)
{
	uint8_t		mark[MARK_SIZE] = {0};
	uint64_t	serial = l->mark_serial + 1;
	int			e;

	au_put_u32(mark, MARK_MAGIC);
	au_put_u32(mark + 4, MARK_VERSION);
	au_put_u64(mark + MARK_SERIAL_AT, serial);
	au_put_u64(mark + MARK_LSN_AT, lsn);
	au_put_u64(mark + MARK_CUT_AT, cut);
	au_put_u32(mark + MARK_CRC_AT, au_crc32c(0, mark, MARK_CRC_AT));
	e = l->io->file_write(l->mark_file, serial % 2 * MARK_SLOT_SPACE, mark, MARK_SIZE,
						  NULL, 0);
	if (e == 0 && sync)
		e = l->io->file_sync(l->mark_file);
	if (e == 0)
		l->mark_serial = serial;
	return e;
}

int
landing_mark_write_both(AuLanding *l, AuLsn lsn)
{
	int			e = landing_mark_write(l, lsn, 0, true);

	return e == 0 ? landing_mark_write(l, lsn, 0, true) : e;
}

/* ---- appending -------------------------------------------------------- */

/* AU_FULL if less than the reserve would be left. */
static AuStatus
check_room(AuLanding *l, uint64_t need, char *err, size_t errlen)
{
	uint64_t	free_bytes;
	int			e = l->io->dir_free(l->dir, &free_bytes);

	if (e != 0)
		return landing_os_error(l, e, "ask for the free space of", "", err, errlen);
	if (free_bytes < l->disk_reserve_bytes ||
		free_bytes - l->disk_reserve_bytes < need)
		return landing_error(AU_FULL, err, errlen,
							 "disk of landing log \"%s\" is full: %" PRIu64
							 " bytes free, %" PRIu64 " are kept in reserve, %" PRIu64
							 " are needed", l->dir_name, free_bytes,
							 l->disk_reserve_bytes, need);
	return AU_OK;
}

/* The file of a segment has at least so many bytes now. */
void
landing_segment_grown(AuLanding *l, LandingSegment *seg, uint64_t allocated)
{
	uint64_t	before = landing_segment_space(seg);

	seg->allocated = allocated;
	atomic_fetch_add(&l->bytes, landing_segment_space(seg) - before);
}

/* The size that a segment gets on a mapped disk, if one entry ends there. */
static uint64_t
mapped_size(const AuLanding *l, uint64_t end)
{
	return end > l->segment_bytes ? end : l->segment_bytes;
}

/* Begins a new segment at the end of the log, for an entry of len bytes. */
static AuStatus
roll_over(AuLanding *l, size_t len, char *err, size_t errlen)
{
	AuLsn		first = atomic_load(&l->end_lsn);
	uint64_t	size = mapped_size(l, SEG_HEADER + ENTRY_HEADER + (uint64_t) len);
	uint64_t	mapped;
	LandingSegment *seg;
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

	status = check_room(l, l->io->file_allocate != NULL ? size : ENTRY_HEADER + len,
						err, errlen);
	if (status == AU_OK)
		status = landing_segment_create(l, first, size, &file, &mapped, err, errlen);
	if (status != AU_OK)
		return status;
	seg = landing_segment_push(l, first);
	if (seg == NULL)
	{
		char		name[SEG_NAME_LEN + 1];

		landing_segment_name(name, first);
		l->io->file_close(file);
		(void) l->io->file_remove(l->dir, name);
		return landing_error(AU_NOMEM, err, errlen, "out of memory");
	}
	landing_segment_grown(l, seg, mapped);
	l->mapped = mapped;
	pthread_mutex_lock(&l->lock);
	l->unsynced[l->n_unsynced++] = l->file;
	l->file = file;
	l->dir_unsynced = true;
	pthread_mutex_unlock(&l->lock);
	return AU_OK;
}

/* A failed write may have left part of an entry behind. */
static AuStatus
undo_write(AuLanding *l, LandingSegment *seg, int os_error,
		   char *err, size_t errlen)
{
	char		name[SEG_NAME_LEN + 1];

	landing_segment_name(name, seg->first);
	if (l->io->file_truncate(l->file, seg->size) != 0 ||
		(l->io->file_store8 != NULL && l->io->file_sync(l->file) != 0))
	{
		l->broken = true;
		return landing_check_usable(l, err, errlen);
	}
	if (l->io->file_allocate == NULL)
		landing_segment_grown(l, seg, 0);
	return landing_os_error(l, os_error, "write", name, err, errlen);
}

void
landing_encode_entry(uint8_t *header, AuLsn lsn, uint64_t term, uint32_t timeline,
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

/* Makes sure that the newest segment can take an entry of len bytes, or that
 * there is a new one that can. */
static AuStatus
prepare_segment(AuLanding *l, size_t len, char *err, size_t errlen)
{
	LandingSegment *seg = &l->segs[l->nsegs - 1];
	uint64_t	end = landing_entry_place(seg, seg->size) + ENTRY_HEADER + (uint64_t) len;
	char		name[SEG_NAME_LEN + 1];
	uint64_t	size;
	AuStatus	status;
	int			e;

	if (end > l->segment_bytes && seg->end > seg->first)
		return roll_over(l, len, err, errlen);
	if (l->io->file_allocate == NULL)
		return check_room(l, ENTRY_HEADER + (uint64_t) len, err, errlen);
	if (end <= l->mapped)
		return AU_OK;

	/* Opened again, or an entry longer than a segment. */
	size = mapped_size(l, end);
	status = check_room(l, size > seg->allocated ? size - seg->allocated : 0, err, errlen);
	if (status != AU_OK)
		return status;
	e = l->io->file_allocate(l->file, size, &l->mapped);
	if (e != 0)
	{
		landing_segment_name(name, seg->first);
		return landing_os_error(l, e, "allocate", name, err, errlen);
	}
	landing_segment_grown(l, seg, l->mapped);
	return AU_OK;
}

AuStatus
au_landing_append(AuLanding *l, uint64_t term, uint32_t timeline, AuLsn lsn,
				  const uint8_t *bytes, size_t len, char *err, size_t errlen)
{
	AuLsn		end = atomic_load(&l->end_lsn);
	uint8_t		header[ENTRY_HEADER];
	LandingSegment *seg;
	uint64_t	before;
	uint64_t	off;
	AuStatus	status;
	int			e;

	status = landing_check_usable(l, err, errlen);
	if (status != AU_OK)
		return status;
	if (lsn != end || len > AU_LANDING_APPEND_MAX || len > AU_LSN_MAX - lsn)
		return landing_error(AU_INVALID, err, errlen,
							 "append of %zu bytes at %X/%X to a log that ends "
							 "at %X/%X", len, AU_LSN_ARGS(lsn), AU_LSN_ARGS(end));
	if (len == 0)
		return AU_OK;
	status = prepare_segment(l, len, err, errlen);
	if (status != AU_OK)
		return status;

	seg = &l->segs[l->nsegs - 1];
	before = landing_segment_space(seg);
	off = landing_entry_place(seg, seg->size);
	landing_window_limit(l, seg, off);
	landing_encode_entry(header, lsn, term, timeline, atomic_load(&l->durable_lsn),
						 bytes, (uint32_t) len);
	e = landing_write_record(l, l->file, off, header, ENTRY_HEADER, bytes, len);
	if (e != 0)
		return undo_write(l, seg, e, err, errlen);
	if (!landing_segment_add(seg, (uint32_t) len))
		return undo_write(l, seg, ENOMEM, err, errlen);
	atomic_fetch_add(&l->bytes, landing_segment_space(seg) - before);

	/* The syncing thread takes `end_lsn` and `file` together. */
	pthread_mutex_lock(&l->lock);
	atomic_store(&l->end_lsn, lsn + len);
	pthread_mutex_unlock(&l->lock);
	return AU_OK;
}

/* ---- durability ------------------------------------------------------- */

AuStatus
landing_sync_locked(AuLanding *l, char *err, size_t errlen)
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
	/* Where it costs next to nothing the mark is durable before anybody hears
	 * of what it covers. */
	if (e == 0 && au_landing_sync_inline(l))
		e = landing_mark_write(l, target, 0, true);
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
	/* Else it is a note for recovery, durable with some later sync of the
	 * kernel's: without it less damage is noticed. */
	if (!au_landing_sync_inline(l))
		(void) landing_mark_write(l, target, 0, false);
	return AU_OK;
}

bool
au_landing_sync_inline(const AuLanding *l)
{
	return l->io->file_store8 != NULL;
}

const char *
au_landing_kind(const AuLanding *l)
{
	return l->io->kind;
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
		status = landing_sync_locked(l, err, errlen);
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

/* ---- the end ---------------------------------------------------------- */

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
	free(l->gone);
	free(l->window.buf);
	free(l->dir_name);
	free(l);
}
