/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walmake.h: writes WAL as PostgreSQL 15 would, into memory, for tests and
 * seeds of fuzzers.  Independent of the decoder, but for the CRC.
 */
#ifndef AU_TEST_WALMAKE_H
#define AU_TEST_WALMAKE_H

#include <stdlib.h>

#include "common/au_crc32c.h"
#include "common/au_wal_format.h"

#define WALMAKE_SEGMENT (1u << 20)
#define WALMAKE_PAGE 8192u

typedef struct WalMake
{
	uint8_t    *buf;			/* log from `base` */
	size_t		len;
	size_t		cap;
	AuLsn		base;
	AuLsn		prev;			/* start of the last record */
	AuLsn		last_end;		/* and its end */
	uint16_t	magic;
	uint32_t	timeline;
} WalMake;

static inline AuLsn
walmake_pos(const WalMake *w)
{
	return w->base + w->len;
}

static inline void
walmake_raw(WalMake *w, const void *p, size_t n)
{
	if (w->len + n > w->cap)
	{
		w->cap = (w->len + n) * 2;
		w->buf = realloc(w->buf, w->cap);
		if (w->buf == NULL)
			abort();
	}
	if (p != NULL)
		memcpy(w->buf + w->len, p, n);
	else
		memset(w->buf + w->len, 0, n);
	w->len += n;
}

/* base: a page's address. */
static inline void
walmake_start(WalMake *w, AuLsn base)
{
	*w = (WalMake) {.base = base,.magic = 0xD110,.timeline = 1};
}

/* If a page is due: its header, with these flags and remaining length. */
static inline void
walmake_page(WalMake *w, uint16_t flags, uint32_t rem_len)
{
	uint8_t		h[40] = {0};
	AuLsn		pos = walmake_pos(w);
	bool		first = pos % WALMAKE_SEGMENT == 0;

	if (pos % WALMAKE_PAGE != 0)
		return;
	au_put_u16(h, w->magic);
	au_put_u16(h + 2, (uint16_t) (flags | (first ? 2 : 0)));
	au_put_u32(h + 4, w->timeline);
	au_put_u64(h + 8, pos);
	au_put_u32(h + 16, rem_len);
	au_put_u64(h + 24, 0x1122334455667788);
	au_put_u32(h + 32, WALMAKE_SEGMENT);
	au_put_u32(h + 36, WALMAKE_PAGE);
	walmake_raw(w, h, first ? 40 : 24);
}

/* A log that begins at base, a page's address: where its first record goes. */
static inline AuLsn
walmake_begin(WalMake *w, AuLsn base)
{
	walmake_start(w, base);
	walmake_page(w, 0, 0);
	return walmake_pos(w);
}

static inline void
walmake_seal(uint8_t *rec, uint32_t total)
{
	uint32_t	crc = au_crc32c(0, rec + 24, total - 24);

	au_put_u32(rec + 20, au_crc32c(crc, rec, 20));
}

/*
 * A record of this body (block headers, payloads).  stop_after: that many
 * pages are begun, then the writer "crashes" (UINT32_MAX: none).  Returns its
 * start.
 */
static inline AuLsn
walmake_record_part(WalMake *w, uint8_t rmid, uint8_t info, uint32_t xid,
					const void *body, uint32_t body_len, uint32_t stop_after)
{
	uint32_t	total = 24 + body_len;
	uint8_t    *rec = calloc(1, total);
	uint32_t	done = 0;
	AuLsn		start;

	if (rec == NULL)
		abort();
	walmake_page(w, 0, 0);
	start = walmake_pos(w);
	au_put_u32(rec, total);
	au_put_u32(rec + 4, xid);
	au_put_u64(rec + 8, w->prev);
	rec[16] = info;
	rec[17] = rmid;
	if (body_len > 0)
		memcpy(rec + 24, body, body_len);
	walmake_seal(rec, total);
	while (done < total)
	{
		uint32_t	room = WALMAKE_PAGE - (uint32_t) (walmake_pos(w) % WALMAKE_PAGE);
		uint32_t	n = total - done < room ? total - done : room;

		walmake_raw(w, rec + done, n);
		done += n;
		if (done < total && stop_after-- == 0)
		{
			free(rec);
			return start;
		}
		if (done < total)
			walmake_page(w, 1, total - done);
	}
	walmake_raw(w, NULL, (8 - total % 8) % 8);
	free(rec);
	w->prev = start;
	w->last_end = walmake_pos(w);
	return start;
}

static inline AuLsn
walmake_record(WalMake *w, uint8_t rmid, uint8_t info, uint32_t xid,
			   const void *body, uint32_t body_len)
{
	return walmake_record_part(w, rmid, info, xid, body, body_len, UINT32_MAX);
}

/* A record of main data only. */
static inline AuLsn
walmake_main(WalMake *w, uint8_t rmid, uint8_t info, uint32_t xid,
			 const void *data, uint32_t len)
{
	uint8_t    *body = malloc(len + 5);
	uint32_t	head = len > 255 ? 5 : 2;
	AuLsn		lsn;

	if (body == NULL)
		abort();
	if (len > 255)
	{
		body[0] = 254;
		au_put_u32(body + 1, len);
	}
	else
	{
		body[0] = 255;
		body[1] = (uint8_t) len;
	}
	if (len > 0)
		memcpy(body + head, data, len);
	lsn = walmake_record(w, rmid, info, xid, body, len > 0 ? head + len : 0);
	free(body);
	return lsn;
}

/* One of ours: one block with `len` bytes of operations. */
static inline AuLsn
walmake_ours(WalMake *w, uint32_t rel, uint32_t blk, const void *ops, uint16_t len)
{
	uint8_t		body[64 + 65536];
	uint8_t    *p = body;
	AuRecMain	main = {0};
	uint8_t		main_data[AU_REC_MAIN_MAX];
	size_t		main_len = au_rec_main_encode(main_data, &main);

	*p++ = 0;
	*p++ = len > 0 ? 0x20 : 0;
	au_put_u16(p, len);
	au_put_u32(p + 2, 1663);
	au_put_u32(p + 6, 5);
	au_put_u32(p + 10, rel);
	au_put_u32(p + 14, blk);
	p += 18;
	*p++ = 255;
	*p++ = (uint8_t) main_len;
	if (len > 0)
		memcpy(p, ops, len);
	p += len;
	memcpy(p, main_data, main_len);
	p += main_len;
	return walmake_record(w, AU_RMGR_ID, AU_XLOG_INSERT, 77, body, (uint32_t) (p - body));
}

/* XLOG_SWITCH, and zeros to the segment's end. */
static inline AuLsn
walmake_switch(WalMake *w)
{
	AuLsn		lsn = walmake_record(w, 0, 0x40, 0, NULL, 0);
	AuLsn		end = (walmake_pos(w) + WALMAKE_SEGMENT - 1) & ~(AuLsn) (WALMAKE_SEGMENT - 1);

	walmake_raw(w, NULL, (size_t) (end - walmake_pos(w)));
	w->last_end = end;
	return lsn;
}

#endif							/* AU_TEST_WALMAKE_H */
