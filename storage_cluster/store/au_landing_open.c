/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_landing_open.c: opening the landing log, with recovery after a crash.
 *
 *   1. The segments' names are listed and sorted.
 *   2. Each segment is read from its beginning, entry by entry.  The first
 *      thing that does not follow (no valid entry, a gap before the next
 *      segment, a header half written) is the break, at LSN x.  Zeros from the
 *      last entry to the end of the newest file are no break, and neither is
 *      whatever follows an entry at whose end the next segment begins.
 *   3. Beyond a break everything is searched for valid entries, only to learn
 *      their marks.  The highest mark, also of the file "durable", tells how
 *      far the log was durable at least.
 *   4. Mark at or below x: what is beyond the break was never synced, and is
 *      removed.  Mark above x: bytes that were durable are not there: the log
 *      is damaged, and nothing is touched.
 *   5. What was found is synced, so that all of it counts as durable.
 *   5a. With needed_lsn, all this begins with the newest segment that begins at
 *      or below it; older ones are removed when the rest was found well.
 *   6. A cut that was announced (au_landing_cut.c) is finished.  Marks above
 *      it count as the cut: what they speak of is meant to go.
 *
 * Invariants:
 *  1. A crash during recovery leaves a log that recovers to the same end.
 *  2. A log found to be damaged, of another system or of another version is
 *     left as it is.
 */
#include "store/au_landing_int.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "common/au_crc32c.h"

typedef struct Recovery
{
	AuLanding  *l;
	char	   *err;
	size_t		errlen;

	/* Segments found, by the LSN in their names. */
	AuLsn	   *found;
	size_t		nfound;
	size_t		found_cap;
	size_t		skipped;		/* of them, first ones that are not needed */
	bool		out_of_memory;

	AuLsn		mark;			/* durable at least so far */
	AuLsn		cut;			/* a truncation to here was under way; 0: none */
	bool		is_broken;		/* a break was found ... */
	size_t		break_seg;		/* ... in this segment of found ... */
	uint64_t	break_off;		/* ... at this place; 0: no valid header */
} Recovery;

/* ---- finding the segments --------------------------------------------- */

/* "%016lX.log", nothing else. */
static bool
parse_segment_name(const char *name, AuLsn *first)
{
	AuLsn		v = 0;

	if (strlen(name) != SEG_NAME_LEN || strcmp(name + 16, ".log") != 0)
		return false;
	for (int i = 0; i < 16; i++)
	{
		char		c = name[i];

		if (c >= '0' && c <= '9')
			v = v << 4 | (AuLsn) (c - '0');
		else if (c >= 'A' && c <= 'F')
			v = v << 4 | (AuLsn) (c - 'A' + 10);
		else
			return false;
	}
	*first = v;
	return true;
}

static void
note_name(void *ctx, const char *name)
{
	Recovery   *r = ctx;
	AuLsn		first;

	if (!parse_segment_name(name, &first))
		return;
	if (r->nfound == r->found_cap)
	{
		size_t		cap = r->found_cap == 0 ? 64 : 2 * r->found_cap;
		AuLsn	   *p = realloc(r->found, cap * sizeof(*p));

		if (p == NULL)
		{
			r->out_of_memory = true;
			return;
		}
		r->found = p;
		r->found_cap = cap;
	}
	r->found[r->nfound++] = first;
}

static int
compare_lsn(const void *a, const void *b)
{
	AuLsn		x = *(const AuLsn *) a;
	AuLsn		y = *(const AuLsn *) b;

	return (x > y) - (x < y);
}

static AuStatus
list_segments(Recovery *r)
{
	AuLanding  *l = r->l;
	int			e = l->io->dir_list(l->dir, note_name, r);

	if (e != 0)
		return landing_os_error(l, e, "list", "", r->err, r->errlen);
	if (r->out_of_memory)
		return landing_error(AU_NOMEM, r->err, r->errlen, "out of memory");
	if (r->nfound > 0)
		qsort(r->found, r->nfound, sizeof(*r->found), compare_lsn);
	e = l->io->file_remove(l->dir, TMP_NAME);
	if (e != 0 && e != ENOENT)
		return landing_os_error(l, e, "remove", TMP_NAME, r->err, r->errlen);
	return AU_OK;
}

/* Understands one slot; one that says nothing counts for nothing: it is only a
 * help. */
static void
take_mark(Recovery *r, const uint8_t *mark)
{
	uint64_t	serial = au_get_u64(mark + MARK_SERIAL_AT);

	if (au_get_u32(mark) != MARK_MAGIC || au_get_u32(mark + 4) != MARK_VERSION ||
		au_get_u32(mark + MARK_CRC_AT) != au_crc32c(0, mark, MARK_CRC_AT) ||
		serial <= r->l->mark_serial)
		return;
	r->l->mark_serial = serial;
	r->mark = au_get_u64(mark + MARK_LSN_AT);
	r->cut = au_get_u64(mark + MARK_CUT_AT);
}

/* Opens the file "durable", makes it if need be, and reads the mark. */
static AuStatus
open_mark(Recovery *r)
{
	AuLanding  *l = r->l;
	uint8_t		mark[MARK_SIZE];
	uint64_t	mapped;
	size_t		got;
	const char *what = "open";
	int			e = l->io->file_open(l->dir, MARK_NAME, false, &l->mark_file);

	if (e == ENOENT)
		e = l->io->file_open(l->dir, MARK_NAME, true, &l->mark_file);
	if (e != 0)
		l->mark_file = NULL;
	for (int i = 0; i < 2 && e == 0; i++)
	{
		what = "read";
		e = l->io->file_read(l->mark_file, (uint64_t) i * MARK_SLOT_SPACE, mark, MARK_SIZE, &got);
		if (e == 0 && got == MARK_SIZE)
			take_mark(r, mark);
	}
	if (e == 0 && l->io->file_allocate != NULL)
	{
		what = "allocate";
		e = l->io->file_allocate(l->mark_file, MARK_SLOT_SPACE + MARK_SIZE, &mapped);
	}
	return e == 0 ? AU_OK : landing_os_error(l, e, what, MARK_NAME, r->err, r->errlen);
}

/* ---- reading the segments --------------------------------------------- */

static void
note_break(Recovery *r, size_t seg, uint64_t off)
{
	r->is_broken = true;
	r->break_seg = seg;
	r->break_off = off;
}

/* *version is 0 if there is no header; that of another log is an error. */
static AuStatus
check_segment_header(Recovery *r, void *file, AuLsn first, const char *name,
					 uint32_t *version)
{
	AuLanding  *l = r->l;
	const uint8_t *h;
	size_t		got;
	int			e = landing_window_get(l, file, 0, SEG_HEADER, &h, &got);

	*version = 0;
	if (e != 0)
		return landing_os_error(l, e, "read", name, r->err, r->errlen);
	if (got < SEG_HEADER || au_get_u32(h) != SEG_MAGIC)
		return AU_OK;
	if (au_get_u32(h + SEG_VERSION_AT) > LANDING_VERSION)
		return landing_error(AU_UNSUPPORTED, r->err, r->errlen,
							 "landing log \"%s/%s\" has format version %" PRIu32
							 ", this build knows %d: use a newer build",
							 l->dir_name, name,
							 au_get_u32(h + SEG_VERSION_AT), LANDING_VERSION);
	if (au_get_u32(h + SEG_VERSION_AT) == 0 ||
		au_get_u32(h + SEG_CRC_AT) != au_crc32c(0, h, SEG_CRC_AT))
		return AU_OK;
	if (au_get_u64(h + SEG_SYSID_AT) != l->system_identifier)
		return landing_error(AU_REFUSED, r->err, r->errlen,
							 "landing log \"%s/%s\" belongs to system %" PRIu64
							 ", not to %" PRIu64, l->dir_name, name,
							 au_get_u64(h + SEG_SYSID_AT), l->system_identifier);
	if (au_get_u64(h + SEG_FIRST_AT) != first)
		return landing_error(AU_CORRUPT, r->err, r->errlen,
							 "landing log \"%s/%s\" was written under another "
							 "name; give it back", l->dir_name, name);
	*version = au_get_u32(h + SEG_VERSION_AT);
	return AU_OK;
}

/* Nothing but zeros from off to the end of the file? */
static int
is_blank(Recovery *r, void *file, uint64_t off, bool *blank)
{
	*blank = true;
	for (;;)
	{
		const uint8_t *p;
		size_t		got;
		int			e = landing_window_get(r->l, file, off, 1, &p, &got);

		if (e != 0 || got == 0)
			return e;
		if (p[0] != 0 || memcmp(p, p + 1, got - 1) != 0)
		{
			*blank = false;
			return 0;
		}
		off += got;
	}
}

/* There is no entry at off: the end of the log, of the segment, or a break? */
static AuStatus
end_entries(Recovery *r, size_t i, void *file, const LandingSegment *seg,
			uint64_t off, const char *name)
{
	bool		blank = false;
	int			e = 0;

	if (i + 1 < r->nfound && r->found[i + 1] == seg->end)
		return AU_OK;
	if (i + 1 == r->nfound)
		e = is_blank(r, file, off, &blank);
	if (e != 0)
		return landing_os_error(r->l, e, "read", name, r->err, r->errlen);
	if (!blank)
		note_break(r, i, off);
	return AU_OK;
}

/* Entries one after the other, to the end of the file or the break. */
static AuStatus
read_entries(Recovery *r, size_t i, void *file, LandingSegment *seg,
			 const char *name)
{
	AuLanding  *l = r->l;
	uint64_t	size;
	uint64_t	off = seg->size;
	int			e = l->io->file_size(file, &size);

	if (e != 0)
		return landing_os_error(l, e, "read the size of", name, r->err, r->errlen);
	while (off < size)
	{
		uint64_t	before = landing_segment_space(seg);
		LandingEntry entry;
		AuStatus	status = landing_entry_at(l, file, off, &entry, &e);

		if (status == AU_IO)
			return landing_os_error(l, e, "read", name, r->err, r->errlen);
		if (status != AU_OK || entry.lsn != seg->end)
		{
			status = end_entries(r, i, file, seg, off, name);
			if (status != AU_OK)
				return status;
			break;
		}
		if (!landing_segment_add(seg, entry.length))
			return landing_error(AU_NOMEM, r->err, r->errlen, "out of memory");
		atomic_fetch_add(&l->bytes, landing_segment_space(seg) - before);
		if (entry.durable > r->mark)
			r->mark = entry.durable;
		off = landing_entry_place(seg, seg->size);
	}
	/* What is beyond a break is cut off, or this log is not opened. */
	landing_segment_grown(l, seg, r->is_broken ? 0 : size);
	return AU_OK;
}

/* Reads segment i of those found; it goes into memory if its header is
 * good.  A break is noted. */
static AuStatus
read_segment(Recovery *r, size_t i)
{
	AuLanding  *l = r->l;
	AuLsn		first = r->found[i];
	char		name[SEG_NAME_LEN + 1];
	LandingSegment *seg;
	void	   *file;
	uint32_t	version;
	AuStatus	status;
	int			e;

	if (l->nsegs > 0 && l->segs[l->nsegs - 1].end != first)
	{
		note_break(r, i, 0);
		return AU_OK;
	}
	landing_segment_name(name, first);
	e = l->io->file_open(l->dir, name, false, &file);
	if (e != 0)
		return landing_os_error(l, e, "open", name, r->err, r->errlen);
	status = check_segment_header(r, file, first, name, &version);
	if (status == AU_OK && version == 0)
		note_break(r, i, 0);
	else if (status == AU_OK)
	{
		seg = landing_segment_push(l, first);
		if (seg == NULL)
			status = landing_error(AU_NOMEM, r->err, r->errlen, "out of memory");
		else
		{
			seg->version = version;
			status = read_entries(r, i, file, seg, name);
		}
	}
	landing_window_forget(&l->window);
	l->io->file_close(file);
	return status;
}

/* ---- beyond a break --------------------------------------------------- */

/* Looks for valid entries in a file, wherever they begin, for their marks. */
static int
search_marks(Recovery *r, void *file, uint64_t off, AuLsn at_least)
{
	for (;;)
	{
		const uint8_t *p;
		const uint8_t *hit;
		size_t		got;
		LandingEntry entry;
		int			e = landing_window_get(r->l, file, off, ENTRY_HEADER, &p, &got);

		if (e != 0 || got < ENTRY_HEADER)
			return e;
		hit = memchr(p, ENTRY_MAGIC & 0xFF, got);
		if (hit == NULL || (size_t) (hit - p) > got - 4)
		{
			off += (hit == NULL) ? got : (size_t) (hit - p);
			continue;
		}
		off += (uint64_t) (hit - p);
		if (au_get_u32(hit) != ENTRY_MAGIC ||
			landing_entry_at(r->l, file, off, &entry, &e) != AU_OK ||
			entry.lsn < at_least)
		{
			if (e != 0)
				return e;
			off++;
			continue;
		}
		if (entry.durable > r->mark)
			r->mark = entry.durable;
		off += ENTRY_HEADER + (uint64_t) entry.length;
	}
}

static AuStatus
search_beyond_break(Recovery *r, AuLsn end)
{
	AuLanding  *l = r->l;

	for (size_t i = r->break_seg; i < r->nfound; i++)
	{
		char		name[SEG_NAME_LEN + 1];
		void	   *file;
		int			e;

		landing_segment_name(name, r->found[i]);
		e = l->io->file_open(l->dir, name, false, &file);
		if (e == 0)
		{
			e = search_marks(r, file, i == r->break_seg ? r->break_off : 0, end);
			landing_window_forget(&l->window);
			l->io->file_close(file);
		}
		if (e != 0)
			return landing_os_error(l, e, "read", name, r->err, r->errlen);
	}
	return AU_OK;
}

/* Removes what is beyond the break, from the end backwards. */
static AuStatus
remove_beyond_break(Recovery *r)
{
	AuLanding  *l = r->l;
	/* With no valid header the segment of the break goes as a whole. */
	size_t		keep = r->break_seg + (r->break_off > 0 ? 1 : 0);
	char		name[SEG_NAME_LEN + 1];
	void	   *file;
	int			e = 0;

	for (size_t i = r->nfound; i > keep && e == 0; i--)
	{
		landing_segment_name(name, r->found[i - 1]);
		e = l->io->file_remove(l->dir, name);
		if (e == 0)
			e = l->io->dir_sync(l->dir);
	}
	if (e == 0 && r->break_off > 0)
	{
		landing_segment_name(name, r->found[r->break_seg]);
		e = l->io->file_open(l->dir, name, false, &file);
		if (e == 0)
		{
			e = l->io->file_truncate(file, r->break_off);
			if (e == 0)
				e = l->io->file_sync(file);
			l->io->file_close(file);
		}
	}
	if (e != 0)
		return landing_os_error(l, e, "cut off the unsynced end of", name,
								r->err, r->errlen);
	return AU_OK;
}

/* ---- putting it together ---------------------------------------------- */

static AuStatus
recover_segments(Recovery *r)
{
	AuLanding  *l = r->l;
	AuStatus	status = AU_OK;
	AuLsn		end;

	for (size_t i = r->skipped; i < r->nfound && status == AU_OK && !r->is_broken; i++)
		status = read_segment(r, i);
	if (status != AU_OK)
		return status;
	if (l->nsegs == 0)
	{
		char		name[SEG_NAME_LEN + 1];

		/* The oldest segment was durable before the first append, so this is
		 * damage; a first segment that did not get so far is not here. */
		landing_segment_name(name, r->found[r->skipped]);
		return landing_error(AU_CORRUPT, r->err, r->errlen,
							 "landing log \"%s/%s\" has no valid header",
							 l->dir_name, name);
	}
	end = l->segs[l->nsegs - 1].end;
	if (r->is_broken)
	{
		status = search_beyond_break(r, end);
		if (status != AU_OK)
			return status;
	}
	if (r->cut != 0 && r->mark > r->cut)
		r->mark = r->cut;
	if (r->mark > end)
	{
		char		name[SEG_NAME_LEN + 1];

		landing_segment_name(name, r->found[r->is_broken ? r->break_seg : r->nfound - 1]);
		return landing_error(AU_CORRUPT, r->err, r->errlen,
							 "landing log \"%s/%s\" is damaged or incomplete "
							 "at %X/%X, but the log was durable up to %X/%X",
							 l->dir_name, name, AU_LSN_ARGS(end),
							 AU_LSN_ARGS(r->mark));
	}
	return r->is_broken ? remove_beyond_break(r) : AU_OK;
}

/* See needed_lsn. */
static void
skip_older(Recovery *r, AuLsn needed)
{
	while (r->skipped + 1 < r->nfound && r->found[r->skipped + 1] <= needed)
		r->skipped++;
}

/* The rest is well. */
static AuStatus
remove_older(Recovery *r)
{
	AuLanding  *l = r->l;

	for (size_t i = 0; i < r->skipped; i++)
	{
		char		name[SEG_NAME_LEN + 1];
		int			e;

		landing_segment_name(name, r->found[i]);
		e = l->io->file_remove(l->dir, name);
		if (e != 0)
			return landing_os_error(l, e, "remove", name, r->err, r->errlen);
	}
	return AU_OK;
}

/* Everything that may not be durable yet becomes so. */
static AuStatus
sync_recovered(Recovery *r)
{
	AuLanding  *l = r->l;

	for (size_t i = 0; i < l->nsegs; i++)
	{
		char		name[SEG_NAME_LEN + 1];
		bool		newest = (i == l->nsegs - 1);
		void	   *file;
		int			e;

		if (l->segs[i].end <= r->mark && !newest)
			continue;
		landing_segment_name(name, l->segs[i].first);
		e = l->io->file_open(l->dir, name, false, &file);
		if (e == 0)
		{
			e = l->io->file_sync(file);
			if (e != 0 || !newest)
				l->io->file_close(file);
			else
				l->file = file;
		}
		if (e != 0)
			return landing_os_error(l, e, "sync", name, r->err, r->errlen);
	}
	return AU_OK;
}

/* No segment: a new log.  Its first segment is durable when this returns. */
static AuStatus
begin_log(Recovery *r, AuLsn start)
{
	AuLanding  *l = r->l;
	LandingSegment *seg;
	AuStatus	status;
	int			e;

	if (r->mark > start)
		return landing_error(AU_CORRUPT, r->err, r->errlen,
							 "landing log \"%s\" has lost its segments: it was "
							 "durable up to %X/%X",
							 l->dir_name, AU_LSN_ARGS(r->mark));
	if (start == AU_LSN_INVALID)
		return landing_error(AU_INVALID, r->err, r->errlen,
							 "landing log \"%s\" is empty, and it is not the "
							 "time to begin one", l->dir_name);
	status = landing_segment_create(l, start, l->segment_bytes, &l->file, &l->mapped,
									r->err, r->errlen);
	if (status != AU_OK)
	{
		l->file = NULL;
		return status;
	}
	seg = landing_segment_push(l, start);
	if (seg == NULL)
		return landing_error(AU_NOMEM, r->err, r->errlen, "out of memory");
	landing_segment_grown(l, seg, l->mapped);
	e = l->io->file_sync(l->file);
	if (e != 0)
		return landing_os_error(l, e, "sync", "", r->err, r->errlen);
	return AU_OK;
}

/*
 * A crash while the very first segment was made leaves a file without header,
 * entries and mark.  It goes, as if it had never been there.  (On a mapped
 * disk the header's first word is stored last.)
 */
static AuStatus
forget_unborn(Recovery *r)
{
	AuLanding  *l = r->l;
	char		name[SEG_NAME_LEN + 1];
	const uint8_t *h;
	size_t		got = 0;
	bool		blank = true;
	void	   *file;
	AuStatus	status;
	int			e;

	if (r->nfound != 1 || r->mark != 0)
		return AU_OK;
	landing_segment_name(name, r->found[0]);
	e = l->io->file_open(l->dir, name, false, &file);
	if (e == 0)
	{
		e = landing_window_get(l, file, 0, SEG_HEADER, &h, &got);
		/* Anything but a short file or zeros was something once. */
		if (e == 0 && got >= SEG_HEADER)
			blank = au_get_u64(h) == 0;
		landing_window_forget(&l->window);
		l->io->file_close(file);
	}
	if (e != 0)
		return landing_os_error(l, e, "read", name, r->err, r->errlen);
	if (!blank)
		return AU_OK;
	status = search_beyond_break(r, 0);
	if (status != AU_OK || r->mark != 0)
		return status;
	e = l->io->file_remove(l->dir, name);
	if (e != 0)
		return landing_os_error(l, e, "remove", name, r->err, r->errlen);
	r->nfound = 0;
	return AU_OK;
}

static AuStatus
recover(Recovery *r, const AuLandingOptions *opt)
{
	AuLanding  *l = r->l;
	AuStatus	status = list_segments(r);
	AuLsn		end;
	int			e;

	if (status == AU_OK)
		status = open_mark(r);
	if (status == AU_OK)
		status = forget_unborn(r);
	if (status != AU_OK)
		return status;
	if (r->nfound == 0)
		status = begin_log(r, opt->start_lsn);
	else
	{
		skip_older(r, opt->needed_lsn);
		status = recover_segments(r);
		if (status == AU_OK)
			status = remove_older(r);
		if (status == AU_OK)
			status = sync_recovered(r);
	}
	if (status != AU_OK)
		return status;

	end = l->segs[l->nsegs - 1].end;
	atomic_store(&l->start_lsn, l->segs[0].first);
	atomic_store(&l->end_lsn, end);
	atomic_store(&l->durable_lsn, end);
	/* A mark tells that there is something: first the names, then the mark. */
	e = l->io->dir_sync(l->dir);
	if (e != 0)
		return landing_os_error(l, e, "sync", "", r->err, r->errlen);
	if (r->cut != 0 && r->cut < end)
		return au_landing_truncate(l, r->cut, r->err, r->errlen);
	e = landing_mark_write_both(l, end);
	if (e != 0)
		return landing_os_error(l, e, "write", MARK_NAME, r->err, r->errlen);
	return AU_OK;
}

static AuLanding *
landing_new(const AuLandingOptions *opt)
{
	AuLanding  *l = calloc(1, sizeof(*l));

	if (l == NULL)
		return NULL;
	l->io = opt->io != NULL ? opt->io : &au_landing_file_io;
	l->system_identifier = opt->system_identifier;
	l->segment_bytes = opt->segment_bytes;
	l->disk_reserve_bytes = opt->disk_reserve_bytes;
	pthread_mutex_init(&l->lock, NULL);
	pthread_mutex_init(&l->sync_lock, NULL);
	l->window.cap = ENTRY_MAX;
	l->window.buf = malloc(l->window.cap);
	l->dir_name = malloc(strlen(opt->dir) + 1);
	if (l->window.buf == NULL || l->dir_name == NULL)
	{
		au_landing_close(l);
		return NULL;
	}
	strcpy(l->dir_name, opt->dir);
	return l;
}

AuStatus
au_landing_open(AuLanding **out, const AuLandingOptions *opt,
				char *err, size_t errlen)
{
	AuLanding  *l = landing_new(opt);
	Recovery	r = {.l = l,.err = err,.errlen = errlen};
	AuStatus	status;
	int			e;

	*out = NULL;
	if (errlen > 0)
		err[0] = '\0';
	if (l == NULL)
		return landing_error(AU_NOMEM, err, errlen, "out of memory");
	e = l->io->dir_open(opt->dir, &l->dir);
	if (e != 0)
	{
		l->dir = NULL;
		status = landing_os_error(l, e, "open", "", err, errlen);
	}
	else
		status = recover(&r, opt);
	free(r.found);
	if (status != AU_OK)
	{
		au_landing_close(l);
		return status;
	}
	*out = l;
	return AU_OK;
}
