/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_wal.c: the WAL decoder, fed anything in pieces of any size.
 *
 * Byte 0 of the input chooses:
 *   bit 0: the rest is a log as it is (pages and all), from a page's begin
 *   else:  the rest is cut into bodies of records that are put into well
 *          formed pages with right CRCs and chains, to get behind them
 *   bit 1: trace on (block references of all records are parsed)
 * Byte 1: size of the pieces.
 *
 * Checked: what is handed on lies in the input, in order, and the same comes
 * out whatever the pieces; position and restart LSN keep their order.
 */
#include "core/au_waldecode.h"
#include "tests/walmake.h"

/* three pages before the end of a segment: a switch is cheap, and a long page
 * header comes soon */
#define BASE ((AuLsn) 0x100000000 - 3 * WALMAKE_PAGE)

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct Sum
{
	AuLsn		last_end;
	uint64_t	n;
	uint32_t	crc;			/* over all that was handed on */
} Sum;

#define CHECK(cond) do { if (!(cond)) __builtin_trap(); } while (0)

static AuStatus
sum_record(void *ctx, const AuWalRecord *rec)
{
	Sum		   *s = ctx;
	AuLsn		lsns[2] = {rec->lsn, rec->end};

	CHECK(rec->kind != AU_WAL_OTHER);
	CHECK(rec->lsn >= s->last_end && rec->end > rec->lsn);
	CHECK(rec->nblocks >= 0 && rec->nblocks <= AU_WAL_BLOCKS_MAX);
	CHECK(rec->ndrop == 0 || rec->drop != NULL);
	s->last_end = rec->end;
	s->n++;
	s->crc = au_crc32c(s->crc, lsns, sizeof(lsns));
	for (int i = 0; i < rec->nblocks; i++)
	{
		CHECK(rec->blocks[i].data_len == 0 || rec->blocks[i].data != NULL);
		s->crc = au_crc32c(s->crc, rec->blocks[i].data, rec->blocks[i].data_len);
	}
	for (int i = 0; i < rec->ndrop; i++)
		s->crc = au_crc32c(s->crc, &rec->drop[i], sizeof(rec->drop[i]));
	return AU_OK;
}

static AuStatus
ignore_record(void *ctx, const AuWalRecord *rec)
{
	(void) ctx;
	CHECK(rec->nblocks >= 0 && rec->nblocks <= AU_WAL_BLOCKS_MAX);
	return AU_OK;
}

static AuStatus
decode(const uint8_t *log, size_t len, size_t piece, bool trace, Sum *sum)
{
	AuWalDecode *d = au_waldecode_new(sum_record, sum);
	AuStatus	status = AU_OK;
	size_t		off = 0;

	CHECK(d != NULL);
	memset(sum, 0, sizeof(*sum));
	if (trace)
		au_waldecode_set_trace(d, ignore_record, NULL);
	au_waldecode_start(d, BASE, WALMAKE_SEGMENT);
	while (off < len && status == AU_OK)
	{
		size_t		n = len - off < piece ? len - off : piece;

		status = au_waldecode_feed(d, log + off, n);
		off += n;
		CHECK(au_waldecode_restart_lsn(d) <= au_waldecode_position(d));
		CHECK(au_waldecode_position(d) <= BASE + off);
		CHECK(status != AU_OK || au_waldecode_position(d) == BASE + off);
		CHECK(status == AU_OK || au_waldecode_error(d)[0] != '\0');
	}
	au_waldecode_free(d);
	return status;
}

/* Records: rmid, info, u16 length, body. */
static void
wrap(WalMake *w, const uint8_t *p, size_t left)
{
	bool		switched = false;

	walmake_start(w, BASE);
	while (left >= 4)
	{
		uint32_t	len = au_get_u16(p + 2);

		if (len > left - 4)
			len = (uint32_t) (left - 4);
		if (p[0] == 0 && (p[1] & 0xF0) == 0x40)
		{
			/* One is enough: it costs a megabyte. */
			if (switched)
				return;
			switched = true;
			walmake_switch(w);
		}
		else
			walmake_record(w, p[0], p[1], 1, p + 4, len);
		p += 4 + len;
		left -= 4 + len;
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	WalMake		w = {0};
	const uint8_t *log;
	size_t		len;
	Sum			pieces;
	Sum			whole;
	AuStatus	a;
	AuStatus	b;

	if (size < 2)
		return 0;
	if (data[0] & 1)
	{
		log = data + 2;
		len = size - 2;
	}
	else
	{
		wrap(&w, data + 2, size - 2);
		log = w.buf;
		len = w.len;
	}
	a = decode(log, len, (size_t) data[1] * 16 + 1, (data[0] & 2) != 0, &pieces);
	b = decode(log, len, len + 1, (data[0] & 2) != 0, &whole);
	CHECK(a == b);
	CHECK(pieces.n == whole.n && pieces.crc == whole.crc);
	free(w.buf);
	return 0;
}
