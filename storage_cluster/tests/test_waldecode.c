/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_waldecode.c: the decoder on WAL made in memory (walmake.h): contents
 * of records, every kind of page border, pieces of every size, restarts,
 * switches, overwritten records, and damage.  Real WAL is compared with
 * pg_waldump by walcut_vs_waldump.sh.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "core/au_waldecode.h"
#include "tests/walmake.h"

#define BASE ((AuLsn) 0x300000000)
#define SEEN_MAX 1024
#define MIXED 400				/* records of ours in the mixed log */

typedef struct Seen
{
	AuWalRecord rec[SEEN_MAX];	/* pointers in it are not valid any more */
	AuRelId		drop[8];		/* of the last record with drops */
	uint8_t		data[65536];	/* first block's, of the last of ours */
	int			n;
	int			n_traced;
	AuLsn		refuse;			/* refuse the record that begins here */
} Seen;

static Seen *seen;

static AuStatus
note_record(void *ctx, const AuWalRecord *rec)
{
	Seen	   *s = ctx;

	if (rec->lsn == s->refuse)
		return AU_FULL;
	assert_true(s->n < SEEN_MAX);
	s->rec[s->n++] = *rec;
	for (int i = 0; i < rec->ndrop && i < 8; i++)
		s->drop[i] = rec->drop[i];
	if (rec->kind == AU_WAL_OURS && rec->nblocks > 0 && rec->blocks[0].data_len > 0)
		memcpy(s->data, rec->blocks[0].data, rec->blocks[0].data_len);
	return AU_OK;
}

static AuStatus
count_trace(void *ctx, const AuWalRecord *rec)
{
	(void) rec;
	((Seen *) ctx)->n_traced++;
	return AU_OK;
}

static AuWalDecode *
new_decoder(AuLsn lsn)
{
	AuWalDecode *d;

	memset(seen, 0, sizeof(*seen));
	d = au_waldecode_new(note_record, seen);
	assert_non_null(d);
	au_waldecode_start(d, lsn, WALMAKE_SEGMENT);
	return d;
}

static AuStatus
feed_chunks(AuWalDecode *d, const WalMake *w, size_t from, size_t chunk)
{
	while (from < w->len)
	{
		/* A private copy, so that the sanitizer sees any byte too far. */
		size_t		n = w->len - from < chunk ? w->len - from : chunk;
		uint8_t    *copy = malloc(n);
		AuStatus	status;

		assert_non_null(copy);
		memcpy(copy, w->buf + from, n);
		status = au_waldecode_feed(d, copy, n);
		free(copy);
		if (status != AU_OK)
			return status;
		from += n;
		assert_true(au_waldecode_position(d) == w->base + from);
		assert_true(au_waldecode_restart_lsn(d) <= w->base + from);
	}
	return AU_OK;
}

/* The whole log at once must fail with this in the message. */
static void
expect_failure(const WalMake *w, AuLsn start, AuStatus want, const char *text)
{
	static const size_t chunks[] = {1u << 30, 1, 100};

	for (int i = 0; i < 3; i++)
	{
		AuWalDecode *d = new_decoder(start);

		assert_int_equal(feed_chunks(d, w, (size_t) (start - w->base), chunks[i]), want);
		if (strstr(au_waldecode_error(d), text) == NULL)
			fail_msg("\"%s\" is not in \"%s\"", text, au_waldecode_error(d));
		/* and so for ever, until it is started again */
		assert_int_equal(au_waldecode_feed(d, w->buf, 1), want);
		au_waldecode_start(d, start, WALMAKE_SEGMENT);
		assert_string_equal(au_waldecode_error(d), "");
		au_waldecode_free(d);
	}
}

/* A long log with everything in it; *n_ours of ours. */
static void
make_mixed(WalMake *w, int *n_ours)
{
	uint8_t		ops[20000];

	for (size_t i = 0; i < sizeof(ops); i++)
		ops[i] = (uint8_t) (i * 7);
	walmake_start(w, BASE);
	*n_ours = 0;
	/* sizes that let records and headers end at every place on a page */
	for (uint16_t i = 0; i < MIXED; i++)
	{
		walmake_ours(w, 16384, i, ops, (uint16_t) (i * 7));
		++*n_ours;
		if (i % 100 == 50)
			walmake_main(w, 10, 0x00, i, ops, 300);
		if (i % 200 == 199)
			walmake_switch(w);
	}
	walmake_ours(w, 16384, 5000, ops, sizeof(ops));
	++*n_ours;
}

static void
test_pieces_of_any_size(void **state)
{
	static const size_t chunks[] = {1, 2, 7, 24, 100, 8191, 8192, 8193, 65536, 1u << 30};
	WalMake		w;
	int			n_ours;

	(void) state;
	make_mixed(&w, &n_ours);
	for (size_t i = 0; i < sizeof(chunks) / sizeof(chunks[0]); i++)
	{
		AuWalDecode *d = new_decoder(BASE);

		au_waldecode_set_trace(d, count_trace, seen);
		assert_int_equal(feed_chunks(d, &w, 0, chunks[i]), AU_OK);
		assert_int_equal(seen->n, n_ours);
		assert_int_equal(seen->n_traced, n_ours + MIXED / 100 + MIXED / 200);
		for (int r = 0; r < seen->n; r++)
		{
			const AuWalRecord *rec = &seen->rec[r];

			assert_int_equal(rec->kind, AU_WAL_OURS);
			assert_int_equal(rec->nblocks, 1);
			assert_int_equal(rec->blocks[0].page.blk, r < MIXED ? r : 5000);
			assert_int_equal(rec->blocks[0].data_len, r < MIXED ? r * 7 : 20000);
			assert_int_equal(rec->end % 8, 0);
			if (r > 0)
				assert_true(rec->lsn >= seen->rec[r - 1].end);
		}
		for (int b = 0; b < 20000; b++)
			assert_int_equal(seen->data[b], (uint8_t) (b * 7));
		assert_true(au_waldecode_position(d) == walmake_pos(&w));
		assert_true(au_waldecode_restart_lsn(d) == walmake_pos(&w));
		au_waldecode_free(d);
	}
	free(w.buf);
}

/* Stopped at any byte and started again at restart_lsn, nothing is missed;
 * only what was in progress is handed on once. */
static void
test_restart_at_any_byte(void **state)
{
	WalMake		w;
	uint8_t		ops[3000] = {1};

	(void) state;
	walmake_start(&w, BASE + WALMAKE_SEGMENT - 3 * WALMAKE_PAGE);
	for (int i = 0; i < 12; i++)
		walmake_ours(&w, 1, (uint32_t) i, ops, (uint16_t) (i * 250));
	walmake_switch(&w);
	walmake_ours(&w, 1, 12, ops, 10);
	walmake_ours(&w, 1, 13, ops, 3000);
	for (size_t cut = 0; cut <= w.len; cut += (cut < 9000 ? 1 : 61))
	{
		AuWalDecode *d = new_decoder(w.base);
		AuLsn		restart;

		assert_int_equal(au_waldecode_feed(d, w.buf, cut), AU_OK);
		for (int i = 0; i < seen->n; i++)
			assert_true(seen->rec[i].end <= au_waldecode_position(d));
		restart = au_waldecode_restart_lsn(d);
		au_waldecode_start(d, restart, WALMAKE_SEGMENT);
		assert_int_equal(feed_chunks(d, &w, (size_t) (restart - w.base), 4096), AU_OK);
		assert_int_equal(seen->n, 14);
		for (int i = 0; i < 14; i++)
			assert_int_equal(seen->rec[i].blocks[0].page.blk, i);
		au_waldecode_free(d);
	}
	free(w.buf);
}

/* Start in the padding before a record, and in a page header. */
static void
test_start_positions(void **state)
{
	WalMake		w;
	AuWalDecode *d;
	AuLsn		second;

	(void) state;
	walmake_start(&w, BASE);
	walmake_ours(&w, 1, 0, "", 1);	/* leaves padding */
	second = walmake_ours(&w, 1, 1, "abc", 3);
	for (AuLsn lsn = BASE; lsn <= BASE + 40; lsn++)
	{
		d = new_decoder(lsn);
		assert_int_equal(feed_chunks(d, &w, (size_t) (lsn - BASE), 10), AU_OK);
		assert_int_equal(seen->n, 2);
		au_waldecode_free(d);
	}
	for (AuLsn lsn = second - 7; lsn <= second; lsn++)
	{
		d = new_decoder(lsn);
		assert_int_equal(feed_chunks(d, &w, (size_t) (lsn - BASE), 10), AU_OK);
		assert_int_equal(seen->n, 1);
		assert_true(seen->rec[0].lsn == second);
		au_waldecode_free(d);
	}
	free(w.buf);

	d = au_waldecode_new(note_record, seen);
	assert_int_equal(au_waldecode_feed(d, (const uint8_t *) "x", 1), AU_INVALID);
	au_waldecode_start(d, BASE, 12345);
	assert_int_equal(au_waldecode_feed(d, (const uint8_t *) "x", 1), AU_CORRUPT);
	au_waldecode_free(d);
}

/* ---- what records say ------------------------------------------------- */

static void
test_block_references(void **state)
{
	WalMake		w;
	AuWalDecode *d;
	uint8_t		body[400];
	uint8_t    *p = body;
	const AuWalRecord *rec;

	(void) state;
	/* origin, top-level xid */
	*p++ = 253;
	au_put_u16(p, 9);
	p += 2;
	*p++ = 252;
	au_put_u32(p, 99);
	p += 4;
	/* block 0: compressed image with a hole (12 bytes), data (3 bytes) */
	*p++ = 0;
	*p++ = 0x30;
	au_put_u16(p, 3);
	au_put_u16(p + 2, 12);
	au_put_u16(p + 4, 100);
	p[6] = 0x01 | 0x02 | 0x08;
	au_put_u16(p + 7, 4000);
	au_put_u32(p + 9, 1663);
	au_put_u32(p + 13, 5);
	au_put_u32(p + 17, 16384);
	au_put_u32(p + 21, 7);
	p += 25;
	/* block 1: same relation, image without hole compressed (5), no data */
	*p++ = 1;
	*p++ = 0x90;
	au_put_u16(p, 0);
	au_put_u16(p + 2, 5);
	au_put_u16(p + 4, 0);
	p[6] = 0x10;
	au_put_u32(p + 7, 8);
	p += 11;
	/* block 5: visibility map of the same relation, one byte of data */
	*p++ = 5;
	*p++ = 0xA2;
	au_put_u16(p, 1);
	au_put_u32(p + 2, 0);
	p += 6;
	*p++ = 255;
	*p++ = 3;
	memset(p, 'I', 12);
	memcpy(p + 12, "abc", 3);
	memset(p + 15, 'J', 5);
	p[20] = 3;
	p[21] = AU_REC_VERSION;		/* main: VM_CLEAR of block 0 */
	p[22] = AU_REC_VM_CLEAR;
	p[23] = 1;
	p += 24;

	walmake_start(&w, BASE);
	walmake_record(&w, AU_RMGR_ID, AU_XLOG_DELETE | 0x02, 77, body, (uint32_t) (p - body));
	d = new_decoder(BASE);
	assert_int_equal(feed_chunks(d, &w, 0, 1u << 20), AU_OK);
	assert_int_equal(seen->n, 1);
	rec = &seen->rec[0];
	assert_int_equal(rec->xid, 77);
	assert_int_equal(rec->info, AU_XLOG_DELETE);
	assert_int_equal(rec->main.flags, AU_REC_VM_CLEAR);
	assert_int_equal(rec->main.vm_clear_blocks, 1);
	assert_int_equal(rec->nblocks, 3);
	assert_int_equal(rec->blocks[0].id, 0);
	assert_true(rec->blocks[0].has_image);
	assert_int_equal(rec->blocks[0].page.blk, 7);
	assert_int_equal(rec->blocks[0].data_len, 3);
	assert_memory_equal(seen->data, "abc", 3);
	assert_int_equal(rec->blocks[1].page.rel.rel, 16384);
	assert_int_equal(rec->blocks[1].page.blk, 8);
	assert_int_equal(rec->blocks[1].data_len, 0);
	assert_int_equal(rec->blocks[2].id, 5);
	assert_int_equal(rec->blocks[2].page.rel.fork, 2);
	assert_int_equal(rec->blocks[2].data_len, 1);
	au_waldecode_free(d);
	free(w.buf);
}

/* A record of ours with this body must be refused. */
static void
refuse_body(const uint8_t *body, uint32_t len, AuStatus want, const char *text)
{
	WalMake		w;

	walmake_start(&w, BASE);
	walmake_record(&w, AU_RMGR_ID, 0, 1, body, len);
	expect_failure(&w, BASE, want, text);
	free(w.buf);
}

static void
test_bad_bodies(void **state)
{
	uint8_t		b[64] = {0};

	(void) state;
	refuse_body((const uint8_t *) "\377\2\1\2", 4, AU_CORRUPT, "main data");
	refuse_body((const uint8_t *) "\377\2\1\0x", 5, AU_CORRUPT, "fill");
	refuse_body((const uint8_t *) "\377\4\1\0", 4, AU_CORRUPT, "fill");
	refuse_body((const uint8_t *) "\377\2\2\0", 4, AU_UNSUPPORTED, "newer");
	refuse_body((const uint8_t *) "\377\2\1\20", 4, AU_CORRUPT, "main data");
	refuse_body((const uint8_t *) "\310\0", 2, AU_CORRUPT, "block id");
	refuse_body((const uint8_t *) "\0\200\0\0\0\0\0\0", 8, AU_CORRUPT, "no relation");
	refuse_body((const uint8_t *) "\0\40\0\0", 4, AU_CORRUPT, "flag");
	refuse_body((const uint8_t *) "\0\0\1\0", 4, AU_CORRUPT, "flag");
	refuse_body((const uint8_t *) "\0\20\0\0\1\40\0\0\0", 9, AU_CORRUPT, "longer than a page");
	refuse_body(b, 10, AU_CORRUPT, "fill");
	/* block 0 twice */
	b[1] = 0;
	refuse_body(b, 21 + 21, AU_CORRUPT, "out of order");
}

/* Main data of a commit: time, then the caller's. */
static uint32_t
commit_data(uint8_t *p, const void *rest, uint32_t n)
{
	au_put_u64(p, 123456789);
	memcpy(p + 8, rest, n);
	return 8 + n;
}

static const AuWalRecord *
decode_one(uint8_t rmid, uint8_t info, const void *data, uint32_t len)
{
	WalMake		w;
	AuWalDecode *d;

	walmake_start(&w, BASE);
	walmake_main(&w, rmid, info, 55, data, len);
	d = new_decoder(BASE);
	assert_int_equal(feed_chunks(d, &w, 0, 33), AU_OK);
	au_waldecode_free(d);
	free(w.buf);
	return seen->n == 1 ? &seen->rec[0] : NULL;
}

static void
test_commit_and_abort(void **state)
{
	uint8_t		sections[512];
	uint8_t    *p = sections;
	uint8_t		data[600];
	uint32_t	len;
	const AuWalRecord *rec;

	(void) state;
	rec = decode_one(1, 0x00, data, commit_data(data, "", 0));
	assert_int_equal(rec->kind, AU_WAL_XACT_END);
	assert_true(rec->is_commit);
	assert_int_equal(rec->xact_time, 123456789);
	assert_int_equal(rec->xid, 55);
	rec = decode_one(1, 0x20, data, commit_data(data, "", 0));
	assert_int_equal(rec->kind, AU_WAL_XACT_END);
	assert_false(rec->is_commit);

	/* everything: dbinfo, 2 subxacts, 2 rels, 1 stats, 1 inval, 2PC, gid */
	au_put_u32(p, 0x001 | 0x002 | 0x004 | 0x100 | 0x008 | 0x010 | 0x080);
	p += 4 + 8;
	au_put_u32(p, 2);
	p += 4 + 8;
	au_put_u32(p, 2);
	for (int i = 0; i < 6; i++)
		au_put_u32(p + 4 + 4 * i, (uint32_t) (100 + i));
	p += 4 + 24;
	au_put_u32(p, 1);
	p += 4 + 12;
	au_put_u32(p, 1);
	p += 4 + 16;
	au_put_u32(p, 777);
	p += 4;
	memcpy(p, "gid", 4);
	p += 4;
	len = commit_data(data, sections, (uint32_t) (p - sections));
	rec = decode_one(1, 0x30 | 0x80, data, len);
	assert_int_equal(rec->kind, AU_WAL_DROP_RELS);
	assert_true(rec->is_commit);
	assert_int_equal(rec->xid, 777);
	assert_int_equal(rec->ndrop, 2);
	assert_int_equal(seen->drop[0].spc, 100);
	assert_int_equal(seen->drop[0].db, 101);
	assert_int_equal(seen->drop[0].rel, 102);
	assert_int_equal(seen->drop[1].rel, 105);

	/* prepared transactions, assignments and the like end nothing */
	assert_null(decode_one(1, 0x10, data, len));
	assert_null(decode_one(1, 0x50, data, len));
}

/* a relation's file is made: only the main fork's is handed on */
static void
test_new_relation(void **state)
{
	uint8_t		data[16];
	const AuWalRecord *rec;

	(void) state;
	for (int i = 0; i < 3; i++)
		au_put_u32(data + 4 * i, (uint32_t) (100 + i));
	au_put_u32(data + 12, 0);
	rec = decode_one(2, 0x10, data, 16);
	assert_int_equal(rec->kind, AU_WAL_NEW_REL);
	assert_int_equal(rec->ndrop, 1);
	assert_int_equal(seen->drop[0].spc, 100);
	assert_int_equal(seen->drop[0].db, 101);
	assert_int_equal(seen->drop[0].rel, 102);
	au_put_u32(data + 12, 2);
	assert_null(decode_one(2, 0x10, data, 16));
	assert_null(decode_one(2, 0x20, data, 16));
}

static void
test_bad_commits(void **state)
{
	uint8_t		rest[8 + 4] = {0};
	uint8_t		data[64];
	WalMake		w;

	(void) state;
	/* a billion relations */
	au_put_u32(rest, 0x004);
	au_put_u32(rest + 4, 1000000000);
	walmake_start(&w, BASE);
	walmake_main(&w, 1, 0x80, 1, data, commit_data(data, rest, 12));
	expect_failure(&w, BASE, AU_CORRUPT, "too short");
	free(w.buf);

	/* a prepared one that does not say which */
	walmake_start(&w, BASE);
	walmake_main(&w, 1, 0x30, 1, data, commit_data(data, rest, 0));
	expect_failure(&w, BASE, AU_CORRUPT, "too short");
	free(w.buf);

	walmake_start(&w, BASE);
	walmake_main(&w, 1, 0x00, 1, data, 7);
	expect_failure(&w, BASE, AU_CORRUPT, "too short");
	free(w.buf);
}

static void
test_drop_database(void **state)
{
	uint8_t		data[16];
	const AuWalRecord *rec;
	WalMake		w;

	(void) state;
	au_put_u32(data, 5);
	au_put_u32(data + 4, 2);
	au_put_u32(data + 8, 1663);
	au_put_u32(data + 12, 1700);
	rec = decode_one(4, 0x20, data, 16);
	assert_int_equal(rec->kind, AU_WAL_DROP_DB);
	assert_int_equal(rec->ndrop, 2);
	assert_int_equal(seen->drop[0].db, 5);
	assert_int_equal(seen->drop[0].spc, 1663);
	assert_int_equal(seen->drop[0].rel, 0);
	assert_int_equal(seen->drop[1].spc, 1700);
	assert_null(decode_one(4, 0x10, data, 16));

	au_put_u32(data + 4, 0x40000002);
	walmake_start(&w, BASE);
	walmake_main(&w, 4, 0x20, 1, data, 16);
	expect_failure(&w, BASE, AU_CORRUPT, "drop database");
	free(w.buf);
}

/* ---- ends of segments and of incomplete records ----------------------- */

static void
test_switch(void **state)
{
	WalMake		w;
	AuWalDecode *d;
	AuLsn		at;
	AuLsn		after;

	(void) state;
	walmake_start(&w, BASE);
	walmake_ours(&w, 1, 0, "a", 1);
	at = walmake_switch(&w);
	after = walmake_ours(&w, 1, 1, "b", 1);
	d = new_decoder(BASE);
	assert_int_equal(au_waldecode_feed(d, w.buf, 5000), AU_OK);
	/* in the zeros: they mean something only after the switch */
	assert_true(au_waldecode_restart_lsn(d) == at);
	assert_int_equal(au_waldecode_feed(d, w.buf + 5000, WALMAKE_SEGMENT - 5000), AU_OK);
	assert_true(au_waldecode_restart_lsn(d) == BASE + WALMAKE_SEGMENT);
	assert_int_equal(au_waldecode_feed(d, w.buf + WALMAKE_SEGMENT, w.len - WALMAKE_SEGMENT), AU_OK);
	assert_int_equal(seen->n, 2);
	assert_true(seen->rec[1].lsn == after);
	assert_true(after == BASE + WALMAKE_SEGMENT + 40);
	au_waldecode_free(d);
	free(w.buf);
}

/* A switch record that fills its segment to the last byte. */
static void
test_switch_at_segment_end(void **state)
{
	WalMake		w;
	AuWalDecode *d;
	uint8_t		ops[8192] = {0};
	size_t		room = WALMAKE_PAGE - 24 - 24;	/* page header, switch */
	uint16_t	len = (uint16_t) (room - 24 - 19 - 2 - 2);

	(void) state;
	walmake_start(&w, BASE + WALMAKE_SEGMENT - WALMAKE_PAGE);
	walmake_ours(&w, 1, 0, ops, (uint16_t) (len - 3));
	assert_int_equal(walmake_pos(&w) % WALMAKE_PAGE, WALMAKE_PAGE - 24);
	walmake_switch(&w);
	assert_int_equal(walmake_pos(&w), BASE + WALMAKE_SEGMENT);
	walmake_ours(&w, 1, 1, ops, 3);
	d = new_decoder(w.base);
	assert_int_equal(feed_chunks(d, &w, 0, 1u << 20), AU_OK);
	assert_int_equal(seen->n, 2);
	assert_true(au_waldecode_restart_lsn(d) == walmake_pos(&w));
	au_waldecode_free(d);
	free(w.buf);
}

/* A record begun before a crash, overwritten after it. */
static void
make_overwritten(WalMake *w, AuLsn *aborted, uint32_t whole_pages, AuLsn named)
{
	uint8_t    *ops = calloc(1, 60000);
	uint8_t		note[16] = {0};

	assert_non_null(ops);
	walmake_start(w, BASE);
	walmake_ours(w, 1, 0, ops, 100);
	*aborted = walmake_record_part(w, 21, 0, 9, ops, 60000, whole_pages);
	free(ops);
	assert_int_equal(walmake_pos(w) % WALMAKE_PAGE, 0);
	walmake_page(w, 0x08, 0);
	au_put_u64(note, named != 0 ? named : *aborted);
	walmake_main(w, 0, 0xD0, 0, note, 16);
	walmake_ours(w, 1, 1, "x", 1);
}

static void
test_overwritten_record(void **state)
{
	static const size_t chunks[] = {1, 13, 8192, 1u << 20};

	(void) state;
	for (uint32_t pages = 0; pages < 4; pages++)
	{
		for (int c = 0; c < 4; c++)
		{
			WalMake		w;
			AuWalDecode *d;
			AuLsn		aborted;
			AuLsn		restart;

			make_overwritten(&w, &aborted, pages, 0);
			d = new_decoder(BASE);
			assert_int_equal(feed_chunks(d, &w, 0, chunks[c]), AU_OK);
			assert_int_equal(seen->n, 2);
			au_waldecode_free(d);

			/* also when started again in the middle of it */
			d = new_decoder(BASE);
			assert_int_equal(au_waldecode_feed(d, w.buf, 8192 * pages + 4096), AU_OK);
			restart = au_waldecode_restart_lsn(d);
			assert_true(restart == aborted);
			au_waldecode_start(d, restart, WALMAKE_SEGMENT);
			assert_int_equal(feed_chunks(d, &w, (size_t) (restart - BASE), chunks[c]), AU_OK);
			assert_int_equal(seen->n, 2);
			au_waldecode_free(d);
			free(w.buf);
		}
	}
}

static void
test_overwrite_must_be_noted(void **state)
{
	WalMake		w;
	AuLsn		aborted;

	(void) state;
	make_overwritten(&w, &aborted, 1, 0x1234);
	expect_failure(&w, BASE, AU_CORRUPT, "names another");
	free(w.buf);

	walmake_start(&w, BASE);
	{
		uint8_t    *ops = calloc(1, 30000);

		walmake_record_part(&w, 21, 0, 9, ops, 30000, 0);
		free(ops);
	}
	walmake_page(&w, 0x08, 0);
	walmake_ours(&w, 1, 1, "x", 1);
	expect_failure(&w, BASE, AU_CORRUPT, "not followed by a note");
	free(w.buf);
}

/* ---- damage ----------------------------------------------------------- */

/* No flipped bit in a record or page header passes for a record. */
static void
test_flipped_bits(void **state)
{
	WalMake		w;
	AuWalDecode *d = new_decoder(BASE);

	(void) state;
	walmake_start(&w, BASE + WALMAKE_SEGMENT - WALMAKE_PAGE);
	walmake_ours(&w, 1, 0, "12345678", 8);
	walmake_raw(&w, NULL, 0);
	{
		uint8_t		ops[9000] = {3};

		walmake_ours(&w, 1, 1, ops, 9000);
	}
	walmake_ours(&w, 1, 2, "12345678", 8);
	for (size_t bit = 0; bit < w.len * 8; bit += (bit < 2000 ? 1 : 13))
	{
		AuStatus	status;

		seen->n = 0;
		w.buf[bit / 8] ^= (uint8_t) (1 << (bit % 8));
		au_waldecode_start(d, w.base, WALMAKE_SEGMENT);
		status = au_waldecode_feed(d, w.buf, w.len);
		w.buf[bit / 8] ^= (uint8_t) (1 << (bit % 8));
		/* What was handed on is right.  AU_OK with fewer records: a length
		 * that asks for more log.  Padding and the header fields that we do
		 * not look at may change. */
		for (int i = 0; i < seen->n; i++)
			assert_int_equal(seen->rec[i].blocks[0].page.blk, i);
		if (status != AU_OK)
			assert_true(status == AU_CORRUPT || status == AU_UNSUPPORTED);
	}
	au_waldecode_free(d);
	free(w.buf);
}

static void
test_page_headers(void **state)
{
	/* offset in the first header, bytes, what is said */
	static const struct
	{
		size_t		off;
		uint32_t	value;
		AuStatus	status;
		const char *text;
	}			cases[] = {
		{0, 0x0002D118, AU_UNSUPPORTED, "D118"},
		{0, 0x00020000, AU_CORRUPT, "0000"},
		{2, 0x00010012, AU_CORRUPT, "unknown flags"},
		{2, 0x00010000, AU_CORRUPT, "wrong kind"},
		{2, 0x00010003, AU_CORRUPT, "did not begin"},
		{8, 0x00002000, AU_CORRUPT, "another address"},
		{32, 1u << 24, AU_CORRUPT, "another segment size"},
		{36, 4096, AU_CORRUPT, "another page size"},
	};

	(void) state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		WalMake		w;

		walmake_start(&w, BASE);
		walmake_ours(&w, 1, 0, "a", 1);
		au_put_u32(w.buf + cases[i].off, cases[i].value);
		expect_failure(&w, BASE, cases[i].status, cases[i].text);
		free(w.buf);
	}
}

static void
test_continuations(void **state)
{
	uint8_t		ops[9000] = {0};
	WalMake		w;

	(void) state;
	walmake_start(&w, BASE);
	walmake_ours(&w, 1, 0, ops, 9000);
	au_put_u32(w.buf + 8192 + 16, 1);
	expect_failure(&w, BASE, AU_CORRUPT, "remaining length");
	au_put_u16(w.buf + 8192 + 2, 0);
	expect_failure(&w, BASE, AU_CORRUPT, "does not continue");
	free(w.buf);

	/* timelines only go up */
	walmake_start(&w, BASE);
	w.timeline = 3;
	walmake_page(&w, 0, 0);
	w.timeline = 2;
	walmake_ours(&w, 1, 0, ops, 9000);
	expect_failure(&w, BASE, AU_CORRUPT, "timeline");
	free(w.buf);
}

static void
test_record_headers(void **state)
{
	WalMake		w;
	size_t		at;

	(void) state;
	walmake_start(&w, BASE);
	walmake_ours(&w, 1, 0, "a", 1);
	at = (size_t) (walmake_ours(&w, 1, 1, "a", 1) - BASE);

	w.buf[at + 20] ^= 1;
	expect_failure(&w, BASE, AU_CORRUPT, "CRC");
	w.buf[at + 20] ^= 1;
	au_put_u64(w.buf + at + 8, BASE);
	expect_failure(&w, BASE, AU_CORRUPT, "chain");
	/* of the first record only the direction is known */
	au_put_u64(w.buf + at + 8, BASE + at);
	expect_failure(&w, BASE + at, AU_CORRUPT, "chain");
	w.buf[at + 17] = 22;
	expect_failure(&w, BASE, AU_CORRUPT, "resource manager");
	au_put_u32(w.buf + at, 23);
	expect_failure(&w, BASE, AU_CORRUPT, "shorter");
	au_put_u32(w.buf + at, 0);
	expect_failure(&w, BASE, AU_CORRUPT, "no record");
	au_put_u32(w.buf + at, AU_WAL_RECORD_MAX + 1);
	expect_failure(&w, BASE, AU_CORRUPT, "longer");
	free(w.buf);
}

/* ---- refusal, size ---------------------------------------------------- */

static void
test_refused_record_comes_again(void **state)
{
	static const size_t chunks[] = {1, 64, 1u << 20};

	(void) state;
	for (int c = 0; c < 3; c++)
	{
		WalMake		w;
		AuWalDecode *d;
		AuLsn		second;

		walmake_start(&w, BASE);
		walmake_ours(&w, 1, 0, "a", 1);
		second = walmake_ours(&w, 1, 1, "b", 1);
		walmake_ours(&w, 1, 2, "c", 1);
		d = new_decoder(BASE);
		seen->refuse = second;
		assert_int_equal(feed_chunks(d, &w, 0, chunks[c]), AU_FULL);
		assert_int_equal(seen->n, 1);
		assert_string_equal(au_waldecode_error(d), "");
		assert_true(au_waldecode_restart_lsn(d) == second);
		seen->refuse = 0;
		au_waldecode_start(d, second, WALMAKE_SEGMENT);
		assert_int_equal(feed_chunks(d, &w, (size_t) (second - BASE), chunks[c]), AU_OK);
		assert_int_equal(seen->n, 3);
		au_waldecode_free(d);
		free(w.buf);
	}
}

/* A record over several segments, then a small one. */
static void
test_long_record(void **state)
{
	uint32_t	len = 5u << 20;
	uint8_t    *data = malloc(len);
	WalMake		w;
	AuWalDecode *d;

	(void) state;
	assert_non_null(data);
	for (uint32_t i = 0; i < len; i++)
		data[i] = (uint8_t) (i >> 3);
	walmake_start(&w, BASE);
	walmake_main(&w, 21, 0, 1, data, len);
	walmake_ours(&w, 1, 1, "x", 1);
	d = new_decoder(BASE);
	assert_int_equal(feed_chunks(d, &w, 0, 100000), AU_OK);
	assert_int_equal(seen->n, 1);
	assert_int_equal(seen->rec[0].blocks[0].page.blk, 1);
	au_waldecode_free(d);
	free(w.buf);
	free(data);
}

static AuLsn record_starts[SEEN_MAX * 2];
static int	n_record_starts;

static AuStatus
note_start(void *ctx, const AuWalRecord *rec)
{
	(void) ctx;
	assert_true(n_record_starts < SEEN_MAX * 2);
	record_starts[n_record_starts++] = rec->lsn;
	return AU_OK;
}

/* On each page the first record is found by the page alone, and no other place. */
static void
check_first_records(const WalMake *w)
{
	AuWalDecode *d = new_decoder(w->base);
	int			found = 0;

	n_record_starts = 0;
	au_waldecode_set_trace(d, note_start, NULL);
	assert_int_equal(feed_chunks(d, w, 0, 1u << 30), AU_OK);
	au_waldecode_set_trace(d, NULL, NULL);
	for (AuLsn page = w->base; page + AU_WAL_PAGE_SIZE <= walmake_pos(w); page += AU_WAL_PAGE_SIZE)
	{
		const uint8_t *bytes = w->buf + (page - w->base);
		AuLsn		record = 0;
		int			i = 0;

		while (i < n_record_starts && record_starts[i] < page)
			i++;
		if (!au_waldecode_first_record(bytes, AU_WAL_PAGE_SIZE, page, WALMAKE_SEGMENT, &record))
		{
			assert_true(i == n_record_starts || record_starts[i] >= page + AU_WAL_PAGE_SIZE);
			continue;
		}
		found++;
		assert_true(i < n_record_starts);
		assert_int_equal(record, record_starts[i]);
		assert_false(au_waldecode_first_record(bytes, (size_t) (record - page), page, WALMAKE_SEGMENT,
											   &record));
		assert_false(au_waldecode_first_record(bytes, AU_WAL_PAGE_SIZE, page + AU_WAL_PAGE_SIZE,
											   WALMAKE_SEGMENT, &record));
		memset(seen, 0, sizeof(*seen));
		au_waldecode_start(d, record, WALMAKE_SEGMENT);
		assert_int_equal(feed_chunks(d, w, (size_t) (record - w->base), 1u << 30), AU_OK);
	}
	assert_true(found > 0);
	au_waldecode_free(d);
}

static void
test_first_record(void **state)
{
	static uint8_t ops[AU_WAL_PAGE_SIZE];
	WalMake		w;
	int			n_ours;
	uint16_t	len = 0;

	(void) state;
	make_mixed(&w, &n_ours);
	check_first_records(&w);
	free(w.buf);
	/* an XLOG_SWITCH that ends on the next page: nothing follows it there */
	for (;; len += 8)
	{
		walmake_start(&w, BASE);
		walmake_ours(&w, 1, 1, ops, len);
		if (walmake_pos(&w) % AU_WAL_PAGE_SIZE == AU_WAL_PAGE_SIZE - 8)
			break;
		free(w.buf);
		assert_true(len < sizeof(ops) - 8);
	}
	walmake_switch(&w);
	walmake_ours(&w, 1, 2, ops, 100);
	walmake_ours(&w, 1, 3, ops, AU_WAL_PAGE_SIZE - 1);
	check_first_records(&w);
	free(w.buf);
}

static int
setup(void **state)
{
	(void) state;
	seen = malloc(sizeof(*seen));
	return seen == NULL;
}

static int
teardown(void **state)
{
	(void) state;
	free(seen);
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pieces_of_any_size),
		cmocka_unit_test(test_restart_at_any_byte),
		cmocka_unit_test(test_start_positions),
		cmocka_unit_test(test_block_references),
		cmocka_unit_test(test_bad_bodies),
		cmocka_unit_test(test_commit_and_abort),
		cmocka_unit_test(test_new_relation),
		cmocka_unit_test(test_bad_commits),
		cmocka_unit_test(test_drop_database),
		cmocka_unit_test(test_switch),
		cmocka_unit_test(test_switch_at_segment_end),
		cmocka_unit_test(test_overwritten_record),
		cmocka_unit_test(test_overwrite_must_be_noted),
		cmocka_unit_test(test_flipped_bits),
		cmocka_unit_test(test_page_headers),
		cmocka_unit_test(test_continuations),
		cmocka_unit_test(test_record_headers),
		cmocka_unit_test(test_refused_record_comes_again),
		cmocka_unit_test(test_long_record),
		cmocka_unit_test(test_first_record),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
