/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_waldecode.c: cuts the WAL stream into records.
 *
 * The stream is a sequence of 8 kB pages, each with a header; a record that
 * does not end on its page goes on after the next page's header:
 *
 *	 page                       page                       page
 *	+------+------+----+------+------+--------------------+------+---
 *	| hdr  | rec  |rec | rec..| hdr  | ..rec continued .. | hdr  | ..rec
 *	+------+------+----+------+------+--------------------+------+---
 *	                   ^ gather_lsn                        ^ overwritten here?
 *
 * At any byte the decoder is in one of these states, told by its fields:
 *
 *	 skipping    pos < skip_to       bytes of no interest: padding before the
 *	                                 start, the rest of a switched segment
 *	 header      pos % 8192 == 0 or  a page header is due or half there
 *	             header_have > 0
 *	 gathering   gathering           a record is put together from pieces
 *	 between     else                the next byte begins a record
 *
 * A record that lies on one page and in one chunk is read where it is; only
 * others are copied, into `gather`.
 *
 * Invariants (besides those of au_waldecode.h):
 *  1. pos only moves over bytes that were consumed: when a feed fails, the
 *     record concerned starts at au_waldecode_restart_lsn.
 *  2. gather holds at most AU_WAL_RECORD_MAX bytes and grows with what has
 *     arrived, not with what a length field promises; its memory is given
 *     back after an unusually long record.
 *  3. Nothing is taken from a record but its length before its CRC is right,
 *     apart from early checks that can only refuse it.
 */
#include "core/au_waldecode.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/au_crc32c.h"
#include "core/au_walrecord.h"

#define WAL_PAGE_SIZE AU_WAL_PAGE_SIZE
#define PAGE_HEADER_SHORT 24u
#define PAGE_HEADER_LONG 40u

/* Page header fields (xlog_internal.h) and flags. */
#define XLP_MAGIC 0
#define XLP_INFO 2
#define XLP_TLI 4
#define XLP_PAGEADDR 8
#define XLP_REM_LEN 16
#define XLP_SEG_SIZE 32
#define XLP_BLCKSZ 36
#define XLP_IS_CONTRECORD 0x0001
#define XLP_IS_LONG 0x0002
#define XLP_IS_OVERWRITE 0x0008
#define XLP_ALL_FLAGS 0x000F

#define GATHER_MIN (2 * WAL_PAGE_SIZE)
#define GATHER_KEEP (1u << 20)	/* memory kept between records */

struct AuWalDecode
{
	AuWalRecordFn fn;
	void	   *ctx;
	AuWalRecordFn trace;		/* NULL: none */
	void	   *trace_ctx;

	const AuWalVersion *version;	/* by the last page header */
	uint32_t	segment_size;
	AuLsn		pos;			/* next byte fed */
	AuLsn		skip_to;		/* bytes below are passed over */
	AuLsn		switch_lsn;		/* the XLOG_SWITCH that is being skipped, or 0 */
	AuLsn		prev;			/* start of the last record, 0 after a start */
	AuLsn		overwritten;	/* start of the record just given up, or 0 */
	uint32_t	timeline;		/* of the last page header, 0 after a start */

	uint8_t		header[PAGE_HEADER_LONG];
	uint32_t	header_have;

	bool		gathering;
	AuLsn		gather_lsn;
	uint8_t    *gather;
	size_t		gather_have;
	size_t		gather_cap;

	AuWalDrops	drops;
	AuWalRecord rec;
	AuStatus	status;			/* not AU_OK: stopped */
	char		error[256];
};

static uint64_t
align8(uint64_t v)
{
	return (v + 7) & ~(uint64_t) 7;
}

/* Stop with a reason; `at` is where. */
static AuStatus
fail(AuWalDecode *d, AuStatus status, AuLsn at, const char *why)
{
	d->status = status;
	snprintf(d->error, sizeof(d->error), "WAL at %X/%X: %s",
			 AU_LSN_ARGS(at), why);
	return status;
}

AuWalDecode *
au_waldecode_new(AuWalRecordFn fn, void *ctx)
{
	AuWalDecode *d = calloc(1, sizeof(*d));

	if (d == NULL)
		return NULL;
	d->fn = fn;
	d->ctx = ctx;
	d->version = au_wal_version_default();
	/* Bytes fed before a start have no address. */
	d->status = AU_INVALID;
	return d;
}

void
au_waldecode_free(AuWalDecode *d)
{
	if (d == NULL)
		return;
	free(d->gather);
	free(d->drops.rels);
	free(d);
}

static uint32_t
page_header_size(uint32_t segment_size, AuLsn page)
{
	return (page & (segment_size - 1)) == 0 ?
		PAGE_HEADER_LONG : PAGE_HEADER_SHORT;
}

void
au_waldecode_start(AuWalDecode *d, AuLsn lsn, uint32_t segment_size)
{
	uint32_t	offset = (uint32_t) (lsn % WAL_PAGE_SIZE);

	d->segment_size = segment_size;
	d->pos = lsn;
	d->skip_to = align8(lsn);
	d->switch_lsn = 0;
	d->prev = 0;
	d->overwritten = 0;
	d->timeline = 0;
	d->header_have = 0;
	d->gathering = false;
	d->gather_have = 0;
	d->status = AU_OK;
	d->error[0] = '\0';

	if (segment_size < (1u << 20) || segment_size > (1u << 30) ||
		(segment_size & (segment_size - 1)) != 0)
	{
		d->segment_size = 1u << 20;
		(void) fail(d, AU_CORRUPT, lsn, "impossible WAL segment size");
		return;
	}
	/* In the middle of a page header: what is left of it says nothing. */
	if (offset > 0 && offset < page_header_size(d->segment_size, lsn - offset))
		d->skip_to = lsn - offset + page_header_size(d->segment_size, lsn - offset);
}

void
au_waldecode_set_trace(AuWalDecode *d, AuWalRecordFn fn, void *ctx)
{
	d->trace = fn;
	d->trace_ctx = ctx;
}

AuLsn
au_waldecode_position(const AuWalDecode *d)
{
	return d->pos;
}

AuLsn
au_waldecode_restart_lsn(const AuWalDecode *d)
{
	if (d->gathering)
		return d->gather_lsn;
	if (d->switch_lsn != 0)
		return d->switch_lsn;
	return d->pos - d->header_have;
}

bool
au_waldecode_first_record(const uint8_t *bytes, size_t len, AuLsn at, uint32_t segment_size,
						  AuLsn *record)
{
	uint64_t	offset = page_header_size(segment_size, at);
	uint16_t	info;

	if (len < offset || at % WAL_PAGE_SIZE != 0 || au_get_u64(bytes + XLP_PAGEADDR) != at ||
		au_wal_version_find(au_get_u16(bytes + XLP_MAGIC)) == NULL)
		return false;
	info = au_get_u16(bytes + XLP_INFO);
	if ((info & ~XLP_ALL_FLAGS) || (offset == PAGE_HEADER_LONG) != ((info & XLP_IS_LONG) != 0))
		return false;
	if (info & XLP_IS_CONTRECORD)
		offset += align8(au_get_u32(bytes + XLP_REM_LEN));
	/* Nothing follows an XLOG_SWITCH that ends here. */
	if (offset + 4 > len || au_get_u32(bytes + offset) < AU_WAL_RECORD_HEADER)
		return false;
	*record = at + offset;
	return true;
}

const char *
au_waldecode_error(const AuWalDecode *d)
{
	return d->error;
}

static void
gather_end(AuWalDecode *d)
{
	d->gathering = false;
	d->gather_have = 0;
	if (d->gather_cap > GATHER_KEEP)
	{
		free(d->gather);
		d->gather = NULL;
		d->gather_cap = 0;
	}
}

/* ---- page headers ----------------------------------------------------- */

/* What is wrong with the complete page header, or NULL. */
static const char *
check_page_header(AuWalDecode *d, AuLsn page)
{
	const uint8_t *h = d->header;
	uint16_t	info = au_get_u16(h + XLP_INFO);
	uint32_t	timeline = au_get_u32(h + XLP_TLI);
	bool		first = (page & (d->segment_size - 1)) == 0;

	if (info & ~XLP_ALL_FLAGS)
		return "unknown flags in the page header";
	if (first != ((info & XLP_IS_LONG) != 0))
		return "wrong kind of page header";
	if (au_get_u64(h + XLP_PAGEADDR) != page)
		return "page header holds another address";
	if (first && au_get_u32(h + XLP_SEG_SIZE) != d->segment_size)
		return "page header holds another segment size";
	if (first && au_get_u32(h + XLP_BLCKSZ) != WAL_PAGE_SIZE)
		return "page header holds another page size";
	if (timeline < d->timeline)
		return "timeline goes backwards";
	d->timeline = timeline;
	return NULL;
}

/* Does the new page go on with the record being gathered, as it must? */
static const char *
check_continuation(AuWalDecode *d)
{
	uint16_t	info = au_get_u16(d->header + XLP_INFO);
	uint32_t	rem_len = au_get_u32(d->header + XLP_REM_LEN);

	if (!d->gathering)
	{
		if (info & XLP_IS_CONTRECORD)
			return "page continues a record that did not begin";
		return NULL;
	}
	if (info & XLP_IS_OVERWRITE)
	{
		/* The server crashed before the record was complete.  It began
		 * anew here, and says so in its next record. */
		d->overwritten = d->gather_lsn;
		gather_end(d);
		return NULL;
	}
	if (!(info & XLP_IS_CONTRECORD))
		return "page does not continue the record before it";
	/* At least 8 bytes were gathered, with them the length. */
	if (rem_len == 0 ||
		d->gather_have + rem_len != au_get_u32(d->gather + AU_XL_TOT_LEN))
		return "remaining length in the page header is wrong";
	return NULL;
}

/* Consumes header bytes; the header is looked at once it is complete. */
static AuStatus
feed_header(AuWalDecode *d, const uint8_t *bytes, size_t len, size_t *used)
{
	AuLsn		page = d->pos - d->header_have;
	uint32_t	need = page_header_size(d->segment_size, page);
	size_t		n = need - d->header_have;
	const char *why;

	if (n > len)
		n = len;
	memcpy(d->header + d->header_have, bytes, n);
	*used = n;
	if (d->header_have + n < need)
	{
		d->header_have += (uint32_t) n;
		d->pos += n;
		return AU_OK;
	}

	d->version = au_wal_version_find(au_get_u16(d->header + XLP_MAGIC));
	if (d->version == NULL)
	{
		char		text[80];
		uint16_t	magic = au_get_u16(d->header + XLP_MAGIC);

		d->version = au_wal_version_default();
		snprintf(text, sizeof(text), "page magic %04X is not one of a "
				 "supported PostgreSQL release", magic);
		/* All releases' magics begin with D0 or D1; anything else never was
		 * a page header. */
		return fail(d, (magic >> 9) == 0x68 ? AU_UNSUPPORTED : AU_CORRUPT,
					page, text);
	}
	why = check_page_header(d, page);
	if (why == NULL)
		why = check_continuation(d);
	if (why != NULL)
		return fail(d, AU_CORRUPT, page, why);
	d->pos += n;
	d->header_have = 0;
	return AU_OK;
}

/* ---- records ---------------------------------------------------------- */

static const char *
check_total_len(uint32_t total)
{
	if (total < AU_WAL_RECORD_HEADER)
		return total == 0 ? "no record where one must begin" :
			"record is shorter than its header";
	if (total > AU_WAL_RECORD_MAX)
		return "record is longer than any may be";
	return NULL;
}

/* Early check of a record's header: cheaper than the CRC, and it refuses a
 * wrong length before its bytes are gathered. */
static const char *
check_record_header(const AuWalDecode *d, const uint8_t *h, AuLsn lsn)
{
	AuLsn		prev = au_get_u64(h + AU_XL_PREV);
	uint8_t		rmid = h[AU_XL_RMID];

	if (rmid > d->version->rmid_max && rmid < AU_RM_CUSTOM_MIN)
		return "unknown resource manager";
	if (d->prev == 0 ? prev >= lsn : prev != d->prev)
		return "record does not chain to the one before it";
	return NULL;
}

/* The first record after an incomplete one must be the note that says so. */
static const char *
check_overwrite(const AuWalDecode *d, const AuWalMain *main)
{
	if (d->rec.rmid != AU_RM_XLOG ||
		d->rec.info != AU_XLOG_OVERWRITE_CONTRECORD)
		return "incomplete record is not followed by a note of it";
	if (main->len < 8 || au_get_u64(main->data) != d->overwritten)
		return "note of an incomplete record names another one";
	return NULL;
}

/*
 * A whole record, header already checked.  On AU_OK the fields that follow
 * the chain of records are set for the next one.
 */
static AuStatus
hand_on(AuWalDecode *d, const uint8_t *bytes, AuLsn lsn, AuLsn end)
{
	uint32_t	total = au_get_u32(bytes + AU_XL_TOT_LEN);
	AuWalMain	main;
	const char *why = NULL;
	uint32_t	crc;
	bool		is_switch;
	AuStatus	status;

	/* The CRC field comes last in the header, the header last in the CRC. */
	crc = au_crc32c(0, bytes + AU_WAL_RECORD_HEADER, total - AU_WAL_RECORD_HEADER);
	crc = au_crc32c(crc, bytes, AU_XL_CRC);
	if (crc != au_get_u32(bytes + AU_XL_CRC))
		return fail(d, AU_CORRUPT, lsn, "record has a wrong CRC");

	is_switch = bytes[AU_XL_RMID] == AU_RM_XLOG &&
		(bytes[AU_XL_INFO] & 0xF0) == AU_XLOG_SWITCH;
	if (is_switch)
		end = (end + d->segment_size - 1) & ~(AuLsn) (d->segment_size - 1);
	d->rec.lsn = lsn;
	d->rec.end = end;
	status = au_walrecord_parse(d->version, bytes, total, d->trace != NULL,
								&d->drops, &d->rec, &main, &why);
	if (status == AU_NOMEM)
		return d->status = status;
	if (status != AU_OK)
		return fail(d, status, lsn, why);
	if (d->overwritten != 0 && (why = check_overwrite(d, &main)) != NULL)
		return fail(d, AU_CORRUPT, lsn, why);

	if (d->trace != NULL)
		status = d->trace(d->trace_ctx, &d->rec);
	if (status == AU_OK && d->rec.kind != AU_WAL_OTHER)
		status = d->fn(d->ctx, &d->rec);
	if (status != AU_OK)
		return d->status = status;

	d->overwritten = 0;
	d->prev = lsn;
	d->skip_to = end;
	d->switch_lsn = is_switch ? lsn : 0;
	return AU_OK;
}

/* Room for `need` bytes, by doubling, at most the longest record. */
static bool
gather_reserve(AuWalDecode *d, size_t need)
{
	size_t		cap = d->gather_cap == 0 ? GATHER_MIN : d->gather_cap;
	uint8_t    *p;

	if (need <= d->gather_cap)
		return true;
	while (cap < need)
		cap *= 2;
	if (cap > align8(AU_WAL_RECORD_MAX))
		cap = align8(AU_WAL_RECORD_MAX);
	p = realloc(d->gather, cap);
	if (p == NULL)
		return false;
	d->gather = p;
	d->gather_cap = cap;
	return true;
}

/*
 * Adds to the record being gathered.  avail: bytes of the chunk that are on
 * this page.  Steps: the length, the rest of the header, the rest (with the
 * padding, so that a record is handed on when pos has reached its end).
 */
static AuStatus
feed_gather(AuWalDecode *d, const uint8_t *bytes, size_t avail, size_t *used)
{
	size_t		have = d->gather_have;
	const char *why = NULL;
	size_t		goal;
	size_t		n;
	AuStatus	status;

	if (have < 4)
		goal = 4;
	else if (have < AU_WAL_RECORD_HEADER)
		goal = AU_WAL_RECORD_HEADER;
	else
		goal = align8(au_get_u32(d->gather + AU_XL_TOT_LEN));
	n = goal - have < avail ? goal - have : avail;
	if (!gather_reserve(d, have + n))
		return d->status = AU_NOMEM;
	memcpy(d->gather + have, bytes, n);

	have += n;
	if (have == 4)
		why = check_total_len(au_get_u32(d->gather + AU_XL_TOT_LEN));
	else if (have == AU_WAL_RECORD_HEADER)
		why = check_record_header(d, d->gather, d->gather_lsn);
	if (why != NULL)
		return fail(d, AU_CORRUPT, d->gather_lsn, why);

	if (have >= AU_WAL_RECORD_HEADER &&
		have == align8(au_get_u32(d->gather + AU_XL_TOT_LEN)))
	{
		status = hand_on(d, d->gather, d->gather_lsn, d->pos + n);
		if (status != AU_OK)
			return status;
		gather_end(d);
	}
	else
		d->gather_have = have;
	d->pos += n;
	*used = n;
	return AU_OK;
}

/*
 * A record begins at pos.  If all of it is here it is handed on where it
 * lies; else gathering begins.
 */
static AuStatus
feed_record(AuWalDecode *d, const uint8_t *bytes, size_t avail, size_t *used)
{
	uint32_t	total;
	const char *why;
	AuStatus	status;

	*used = 0;
	if (avail >= AU_WAL_RECORD_HEADER)
	{
		total = au_get_u32(bytes + AU_XL_TOT_LEN);
		why = check_total_len(total);
		if (why == NULL)
			why = check_record_header(d, bytes, d->pos);
		if (why != NULL)
			return fail(d, AU_CORRUPT, d->pos, why);
		if (align8(total) <= avail)
		{
			status = hand_on(d, bytes, d->pos, d->pos + align8(total));
			if (status != AU_OK)
				return status;
			d->pos += align8(total);
			*used = align8(total);
			return AU_OK;
		}
	}
	d->gathering = true;
	d->gather_lsn = d->pos;
	d->gather_have = 0;
	return AU_OK;
}

/* One step: consumes *used bytes, or changes the state (then *used is 0). */
static AuStatus
feed_step(AuWalDecode *d, const uint8_t *bytes, size_t len, size_t *used)
{
	size_t		page_left = WAL_PAGE_SIZE - (size_t) (d->pos % WAL_PAGE_SIZE);
	size_t		avail = len < page_left ? len : page_left;

	if (d->pos < d->skip_to)
	{
		AuLsn		left = d->skip_to - d->pos;

		*used = left < len ? (size_t) left : len;
		d->pos += *used;
		if (d->pos == d->skip_to)
			d->switch_lsn = 0;
		return AU_OK;
	}
	/* A switch record that ends its segment leaves nothing to skip. */
	d->switch_lsn = 0;
	if (d->header_have > 0 || d->pos % WAL_PAGE_SIZE == 0)
		return feed_header(d, bytes, len, used);
	if (d->gathering)
		return feed_gather(d, bytes, avail, used);
	return feed_record(d, bytes, avail, used);
}

AuStatus
au_waldecode_feed(AuWalDecode *d, const uint8_t *bytes, size_t len)
{
	if (d->status != AU_OK)
		return d->status;
	if (len > AU_LSN_MAX - d->pos)
		return fail(d, AU_CORRUPT, d->pos, "log goes beyond the last LSN");
	while (len > 0)
	{
		size_t		used = 0;
		AuStatus	status = feed_step(d, bytes, len, &used);

		if (status != AU_OK)
			return status;
		bytes += used;
		len -= used;
	}
	return AU_OK;
}
