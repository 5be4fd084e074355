/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_wire.c: frames (also arriving byte by byte, cut, damaged), writer and
 * reader bounds, and each message there and back, with every prefix and one
 * byte too many refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/au_crc32c.h"
#include "common/au_wire.h"

#define BUF_SIZE (AU_WIRE_PAYLOAD_MAX + 1024)

static uint8_t *buf;

static int
setup(void **state)
{
	(void) state;
	buf = malloc(BUF_SIZE);
	return buf == NULL;
}

static int
teardown(void **state)
{
	(void) state;
	free(buf);
	return 0;
}

static AuFrame
parse_whole(const AuWriter *w)
{
	AuFrame		f;
	size_t		used;

	assert_int_equal(au_frame_parse(w->data, w->len, &f, &used), AU_OK);
	assert_int_equal(used, w->len);
	return f;
}

/* ---- frames ----------------------------------------------------------- */

static void
test_frame_layout(void **state)
{
	static const uint8_t want[20] = {
		'A', 'U', 'R', '1', 1, 0, 15, 0,
		8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0, 0,
	};
	AuWriter	w;

	(void) state;
	au_writer_start(&w, buf, BUF_SIZE);
	assert_true(au_enc_empty(&w, AU_MSG_PING, 0x0102030405060708));
	assert_int_equal(w.len, AU_WIRE_HEADER);
	assert_memory_equal(buf, want, sizeof(want));
	assert_int_equal(au_get_u32(buf + 20), au_crc32c(0, want, sizeof(want)));
}

static void
test_frame_prefixes(void **state)
{
	AuWriter	w;
	AuFrame		f;
	size_t		used;

	(void) state;
	au_writer_start(&w, buf, BUF_SIZE);
	assert_true(au_enc_text(&w, AU_MSG_STATUS_OK, 7, "{\"a\": 1}", 8));
	for (size_t n = 0; n < w.len; n++)
	{
		assert_int_equal(au_frame_parse(buf, n, &f, &used), AU_NEED_MORE);
		assert_int_equal(used, n < AU_WIRE_HEADER ? 0 : w.len);
	}
	/* what follows belongs to the next frame */
	assert_int_equal(au_frame_parse(buf, w.len + 10, &f, &used), AU_OK);
	assert_int_equal(used, w.len);
	assert_int_equal(f.type, AU_MSG_STATUS_OK);
	assert_int_equal(f.id, 7);
	assert_int_equal(f.length, 8);
	assert_memory_equal(f.payload, "{\"a\": 1}", 8);
}

/* No flipped bit goes unnoticed. */
static void
test_frame_damage(void **state)
{
	AuWriter	w;

	(void) state;
	au_writer_start(&w, buf, BUF_SIZE);
	assert_true(au_enc_text(&w, AU_MSG_STATUS_OK, 7, "text", 4));
	for (size_t bit = 0; bit < w.len * 8; bit++)
	{
		AuFrame		f;
		size_t		used;

		buf[bit / 8] ^= (uint8_t) (1 << (bit % 8));
		assert_int_not_equal(au_frame_parse(buf, w.len, &f, &used), AU_OK);
		buf[bit / 8] ^= (uint8_t) (1 << (bit % 8));
	}
}

static void
test_frame_refused(void **state)
{
	AuWriter	w;
	AuFrame		f;
	size_t		used;

	(void) state;
	/* another protocol is recognised from four bytes */
	assert_int_equal(au_frame_parse((const uint8_t *) "GET ", 4, &f, &used), AU_CORRUPT);

	au_writer_start(&w, buf, BUF_SIZE);
	assert_true(au_enc_empty(&w, AU_MSG_PING, 1));
	au_put_u16(buf + 4, AU_WIRE_VERSION + 1);
	assert_int_equal(au_frame_parse(buf, 6, &f, &used), AU_UNSUPPORTED);

	au_writer_start(&w, buf, BUF_SIZE);
	assert_true(au_enc_empty(&w, AU_MSG_PING, 1));
	au_put_u32(buf + 16, AU_WIRE_PAYLOAD_MAX + 1);
	assert_int_equal(au_frame_parse(buf, w.len, &f, &used), AU_CORRUPT);
}

static void
test_frame_bounds(void **state)
{
	AuWriter	w;
	char	   *text = calloc(1, AU_WIRE_PAYLOAD_MAX + 1);

	(void) state;
	assert_non_null(text);
	au_writer_start(&w, buf, BUF_SIZE);
	assert_true(au_enc_text(&w, AU_MSG_STATUS_OK, 1, text, AU_WIRE_PAYLOAD_MAX));
	(void) parse_whole(&w);
	au_writer_start(&w, buf, BUF_SIZE);
	assert_false(au_enc_text(&w, AU_MSG_STATUS_OK, 1, text, AU_WIRE_PAYLOAD_MAX + 1));
	assert_true(w.overflow);
	assert_int_equal(w.len, 0);
	free(text);
}

/* An overflow takes its own frame back and no other, at every capacity. */
static void
test_overflow_keeps_earlier_frames(void **state)
{
	AuMsgSize	m = {.as_of = 5,.nblocks = 6};
	size_t		one = AU_WIRE_HEADER + 12;

	(void) state;
	for (size_t cap = one; cap < 2 * one; cap++)
	{
		AuWriter	w;

		memset(buf, 0xEE, 3 * one);
		au_writer_start(&w, buf, cap);
		assert_true(au_enc_size(&w, 1, &m));
		assert_false(au_enc_size(&w, 2, &m));
		assert_true(w.overflow);
		assert_int_equal(w.len, one);
		assert_int_equal(parse_whole(&w).id, 1);
		assert_int_equal(buf[cap], 0xEE);
		/* and it stays overflowed */
		assert_false(au_enc_empty(&w, AU_MSG_PING, 3));
	}
}

/* ---- reader ----------------------------------------------------------- */

static void
test_reader_bounds(void **state)
{
	static const uint8_t bytes[] = {1, 2, 3, 4, 5};
	AuReader	r;
	char		text[4];

	(void) state;
	au_reader_start(&r, bytes, sizeof(bytes));
	assert_int_equal(au_r_u32(&r), 0x04030201);
	assert_false(au_reader_done(&r));
	assert_int_equal(au_r_u16(&r), 0);
	assert_true(r.bad);
	assert_int_equal(au_r_u8(&r), 0);	/* once bad, for ever */
	assert_null(au_r_bytes(&r, 0));
	assert_false(au_reader_done(&r));

	au_reader_start(&r, NULL, 0);
	assert_true(au_reader_done(&r));
	assert_non_null(au_r_bytes(&r, 0));

	/* text: fits exactly, one too long, zero inside, longer than the input */
	au_reader_start(&r, (const uint8_t *) "\3\0abc", 5);
	au_r_text(&r, text, 4);
	assert_true(au_reader_done(&r));
	assert_string_equal(text, "abc");
	au_reader_start(&r, (const uint8_t *) "\4\0abcd", 6);
	au_r_text(&r, text, 4);
	assert_true(r.bad);
	assert_string_equal(text, "");
	au_reader_start(&r, (const uint8_t *) "\2\0a\0", 4);
	au_r_text(&r, text, 4);
	assert_true(r.bad);
	au_reader_start(&r, (const uint8_t *) "\7\0a", 3);
	au_r_text(&r, text, 4);
	assert_true(r.bad);
	assert_string_equal(text, "");
}

/* ---- messages --------------------------------------------------------- */

/*
 * Decoding must fail for each shorter payload, for a longer one, and for
 * another type.  DEC is au_dec_x, T its struct.
 */
#define CHECK_STRICT(w, dec, T) \
	do { \
		AuFrame		f_ = parse_whole(w); \
		T		   *m_ = malloc(sizeof(T)); \
		uint32_t	len_ = f_.length; \
		uint32_t	step_ = len_ > 4096 ? 997 : 1; \
		assert_non_null(m_); \
		for (f_.length = 0; f_.length < len_; f_.length += step_) \
			assert_false(dec(&f_, m_)); \
		f_.length = len_ + 1; \
		assert_false(dec(&f_, m_)); \
		f_.length = len_; \
		f_.type += 2; \
		assert_false(dec(&f_, m_)); \
		free(m_); \
	} while (0)

static void
test_error(void **state)
{
	AuWriter	w;
	AuFrame		f;
	AuMsgError	out;
	char		longtext[3000];

	(void) state;
	au_writer_start(&w, buf, BUF_SIZE);
	assert_true(au_enc_error(&w, 9, AU_REFUSED, "no", NULL));
	f = parse_whole(&w);
	assert_true(au_dec_error(&f, &out));
	assert_int_equal(out.status, AU_REFUSED);
	assert_string_equal(out.message, "no");
	assert_string_equal(out.hint, "");
	CHECK_STRICT(&w, au_dec_error, AuMsgError);

	/* cut before the character that does not fit: 1022 bytes, then two */
	memset(longtext, 'x', sizeof(longtext));
	memcpy(longtext + 1022, "\xC3\xA4", 2);
	longtext[2999] = '\0';
	au_writer_start(&w, buf, BUF_SIZE);
	assert_true(au_enc_error(&w, 9, AU_IO, longtext, longtext));
	f = parse_whole(&w);
	assert_true(au_dec_error(&f, &out));
	assert_int_equal(strlen(out.message), 1022);

	/* an error that says "ok" is none */
	au_writer_start(&w, buf, BUF_SIZE);
	assert_true(au_enc_error(&w, 9, AU_OK, "", ""));
	f = parse_whole(&w);
	assert_false(au_dec_error(&f, &out));
}

static void
test_hello(void **state)
{
	AuMsgHello	in = {.system_identifier = 0xF0E0D0C0B0A09080,.role = AU_ROLE_WRITER,
	.name = "shipper"};
	AuMsgHello	out;
	AuMsgHelloOk ok = {.node_id = 1,.ring_epoch = 2,.volume_known = 1,
	.start_lsn = 3,.durable_lsn = 4,.applied_lsn = 5};
	AuMsgHelloOk ok_out;
	AuWriter	w;
	AuFrame		f;

	(void) state;
	au_writer_start(&w, buf, BUF_SIZE);
	assert_true(au_enc_hello(&w, 1, &in));
	f = parse_whole(&w);
	assert_true(au_dec_hello(&f, &out));
	assert_true(out.system_identifier == in.system_identifier);
	assert_int_equal(out.role, in.role);
	assert_string_equal(out.name, "shipper");
	CHECK_STRICT(&w, au_dec_hello, AuMsgHello);

	in.role = 0;
	au_writer_start(&w, buf, BUF_SIZE);
	assert_true(au_enc_hello(&w, 1, &in));
	f = parse_whole(&w);
	assert_false(au_dec_hello(&f, &out));

	/* a name without terminator is cut, not read over */
	in.role = AU_ROLE_READER;
	memset(in.name, 'n', sizeof(in.name));
	au_writer_start(&w, buf, BUF_SIZE);
	assert_true(au_enc_hello(&w, 1, &in));
	f = parse_whole(&w);
	assert_true(au_dec_hello(&f, &out));
	assert_int_equal(strlen(out.name), 63);

	au_writer_start(&w, buf, BUF_SIZE);
	assert_true(au_enc_hello_ok(&w, 1, &ok));
	f = parse_whole(&w);
	assert_true(au_dec_hello_ok(&f, &ok_out));
	assert_int_equal(ok_out.node_id, 1);
	assert_int_equal(ok_out.ring_epoch, 2);
	assert_int_equal(ok_out.volume_known, 1);
	assert_int_equal(ok_out.start_lsn, 3);
	assert_int_equal(ok_out.durable_lsn, 4);
	assert_int_equal(ok_out.applied_lsn, 5);
	CHECK_STRICT(&w, au_dec_hello_ok, AuMsgHelloOk);
}

static void
test_term(void **state)
{
	AuMsgTerm	in = {.writer_id = 1,.timeline = 2,.switch_lsn = 3,.start_lsn = 4,
	.local_end = 5,.wal_segment_size = 6,.may_create = 7};
	AuMsgTerm	out;
	AuMsgTermOk ok = {.term = 1,.received_lsn = 2,.durable_lsn = 3,.applied_lsn = 4};
	AuMsgTermOk ok_out;
	AuWriter	w;
	AuFrame		f;

	(void) state;
	au_writer_start(&w, buf, BUF_SIZE);
	assert_true(au_enc_term(&w, 1, &in));
	f = parse_whole(&w);
	assert_true(au_dec_term(&f, &out));
	assert_int_equal(out.writer_id, 1);
	assert_int_equal(out.timeline, 2);
	assert_int_equal(out.switch_lsn, 3);
	assert_int_equal(out.start_lsn, 4);
	assert_int_equal(out.local_end, 5);
	assert_int_equal(out.wal_segment_size, 6);
	assert_int_equal(out.may_create, 7);
	CHECK_STRICT(&w, au_dec_term, AuMsgTerm);

	au_writer_start(&w, buf, BUF_SIZE);
	assert_true(au_enc_term_ok(&w, 1, &ok));
	f = parse_whole(&w);
	assert_true(au_dec_term_ok(&f, &ok_out));
	assert_int_equal(ok_out.term, 1);
	assert_int_equal(ok_out.received_lsn, 2);
	assert_int_equal(ok_out.durable_lsn, 3);
	assert_int_equal(ok_out.applied_lsn, 4);
	CHECK_STRICT(&w, au_dec_term_ok, AuMsgTermOk);
}

static void
test_append(void **state)
{
	uint8_t    *log = malloc(AU_WIRE_APPEND_MAX + 1);
	AuMsgAppend in = {.term = 1,.timeline = 2,.lsn = 3,.commit_lsn = 4,.bytes = log};
	AuMsgAppend out;
	AuMsgAppendOk ok = {.term = 1,.received_lsn = 2,.durable_lsn = 3,.applied_lsn = 4};
	AuMsgAppendOk ok_out;
	AuWriter	w;
	AuFrame		f;
	const uint32_t lengths[] = {0, 1, 8192, AU_WIRE_APPEND_MAX};

	(void) state;
	assert_non_null(log);
	memset(log, 0x5A, AU_WIRE_APPEND_MAX + 1);
	for (int i = 0; i < 4; i++)
	{
		in.length = lengths[i];
		au_writer_start(&w, buf, BUF_SIZE);
		assert_true(au_enc_append(&w, 1, &in));
		f = parse_whole(&w);
		assert_true(au_dec_append(&f, &out));
		assert_int_equal(out.term, 1);
		assert_int_equal(out.timeline, 2);
		assert_int_equal(out.lsn, 3);
		assert_int_equal(out.commit_lsn, 4);
		assert_int_equal(out.length, lengths[i]);
		assert_memory_equal(out.bytes, log, lengths[i]);
		CHECK_STRICT(&w, au_dec_append, AuMsgAppend);
	}
	in.length = AU_WIRE_APPEND_MAX + 1;
	au_writer_start(&w, buf, BUF_SIZE);
	assert_false(au_enc_append(&w, 1, &in));

	/* a run that goes beyond the last LSN */
	in.length = 8;
	in.lsn = AU_LSN_MAX - 7;
	au_writer_start(&w, buf, BUF_SIZE);
	assert_true(au_enc_append(&w, 1, &in));
	f = parse_whole(&w);
	assert_false(au_dec_append(&f, &out));

	au_writer_start(&w, buf, BUF_SIZE);
	assert_true(au_enc_append_ok(&w, 1, &ok));
	f = parse_whole(&w);
	assert_true(au_dec_append_ok(&f, &ok_out));
	assert_int_equal(ok_out.received_lsn, 2);
	assert_int_equal(ok_out.durable_lsn, 3);
	assert_int_equal(ok_out.applied_lsn, 4);
	CHECK_STRICT(&w, au_dec_append_ok, AuMsgAppendOk);
	free(log);
}

static void
test_get_pages(void **state)
{
	AuMsgGetPages in = {.rel = {1, 2, 3, 0},.not_before = 4,.read_lsn = 5};
	AuMsgGetPages out;
	AuWriter	w;
	AuFrame		f;

	(void) state;
	for (int i = 0; i < AU_WIRE_BLOCKS_MAX; i++)
		in.blocks[i] = (uint32_t) (i * 77);
	in.nblocks = AU_WIRE_BLOCKS_MAX;
	au_writer_start(&w, buf, BUF_SIZE);
	assert_true(au_enc_get_pages(&w, 1, &in));
	f = parse_whole(&w);
	assert_true(au_dec_get_pages(&f, &out));
	assert_int_equal(out.rel.rel, 3);
	assert_int_equal(out.not_before, 4);
	assert_int_equal(out.read_lsn, 5);
	assert_int_equal(out.nblocks, AU_WIRE_BLOCKS_MAX);
	assert_memory_equal(out.blocks, in.blocks, sizeof(in.blocks));
	CHECK_STRICT(&w, au_dec_get_pages, AuMsgGetPages);

	in.nblocks++;
	au_writer_start(&w, buf, BUF_SIZE);
	assert_false(au_enc_get_pages(&w, 1, &in));

	/* the same count from a peer */
	au_writer_start(&w, buf, BUF_SIZE);
	au_frame_begin(&w, AU_MSG_GET_PAGES, 1);
	au_w_rel(&w, &in.rel);
	au_w_u64(&w, 0);
	au_w_u64(&w, 0);
	au_w_u16(&w, AU_WIRE_BLOCKS_MAX + 1);
	for (int i = 0; i <= AU_WIRE_BLOCKS_MAX; i++)
		au_w_u32(&w, 0);
	assert_true(au_frame_end(&w));
	f = parse_whole(&w);
	assert_false(au_dec_get_pages(&f, &out));
}

static void
test_pages(void **state)
{
	static AuMsgPages in;
	static AuMsgPages out;
	static uint8_t page[2][AU_PAGE_SIZE];
	AuWriter	w;
	AuFrame		f;

	(void) state;
	memset(page[0], 1, AU_PAGE_SIZE);
	memset(page[1], 2, AU_PAGE_SIZE);
	in.as_of = 99;
	in.nblocks = AU_WIRE_BLOCKS_MAX;
	for (int i = 0; i < AU_WIRE_BLOCKS_MAX; i++)
	{
		in.status[i] = (i % 3 == 2) ? AU_NOT_FOUND : AU_OK;
		in.page[i] = page[i % 2];
	}
	au_writer_start(&w, buf, BUF_SIZE);
	assert_true(au_enc_pages(&w, 1, &in));
	f = parse_whole(&w);
	assert_true(au_dec_pages(&f, &out));
	assert_int_equal(out.as_of, 99);
	assert_int_equal(out.nblocks, AU_WIRE_BLOCKS_MAX);
	for (int i = 0; i < AU_WIRE_BLOCKS_MAX; i++)
	{
		assert_int_equal(out.status[i], in.status[i]);
		if (i % 3 == 2)
			assert_null(out.page[i]);
		else
			assert_memory_equal(out.page[i], page[i % 2], AU_PAGE_SIZE);
	}
	CHECK_STRICT(&w, au_dec_pages, AuMsgPages);
	in.nblocks++;
	au_writer_start(&w, buf, BUF_SIZE);
	assert_false(au_enc_pages(&w, 1, &in));
}

static void
test_sizes_and_rels(void **state)
{
	AuMsgGetSize get = {.rel = {1, 2, 3, 4},.not_before = 5,.read_lsn = 6};
	AuMsgGetSize get_out;
	AuMsgSize	size = {.as_of = 7,.nblocks = 0xFFFFFFFE};
	AuMsgSize	size_out;
	AuMsgHold	hold = {.lsn = 11},
				hold_out;
	AuMsgHoldOk held = {.lsn = 11,.horizon = 9},
				held_out;
	AuMsgListRels list = {.db = 5,.not_before = 6};
	AuMsgListRels list_out;
	uint8_t		entries[3 * AU_WIRE_REL_ENTRY];
	AuMsgRels	rels = {.as_of = 8,.count = 3,.entries = entries};
	AuMsgRels	rels_out;
	AuWriter	w;
	AuFrame		f;

	(void) state;
	au_writer_start(&w, buf, BUF_SIZE);
	assert_true(au_enc_get_size(&w, 1, &get));
	f = parse_whole(&w);
	assert_true(au_dec_get_size(&f, &get_out));
	assert_memory_equal(&get_out.rel, &get.rel, sizeof(get.rel));
	assert_int_equal(get_out.not_before, 5);
	assert_int_equal(get_out.read_lsn, 6);
	CHECK_STRICT(&w, au_dec_get_size, AuMsgGetSize);

	au_writer_start(&w, buf, BUF_SIZE);
	assert_true(au_enc_size(&w, 1, &size));
	f = parse_whole(&w);
	assert_true(au_dec_size(&f, &size_out));
	assert_int_equal(size_out.as_of, 7);
	assert_int_equal(size_out.nblocks, 0xFFFFFFFE);
	CHECK_STRICT(&w, au_dec_size, AuMsgSize);

	au_writer_start(&w, buf, BUF_SIZE);
	assert_true(au_enc_list_rels(&w, 1, &list));
	f = parse_whole(&w);
	assert_true(au_dec_list_rels(&f, &list_out));
	assert_int_equal(list_out.db, 5);
	assert_int_equal(list_out.not_before, 6);
	CHECK_STRICT(&w, au_dec_list_rels, AuMsgListRels);

	au_writer_start(&w, buf, BUF_SIZE);
	assert_true(au_enc_hold(&w, 1, &hold));
	f = parse_whole(&w);
	assert_true(au_dec_hold(&f, &hold_out));
	assert_int_equal(hold_out.lsn, 11);
	CHECK_STRICT(&w, au_dec_hold, AuMsgHold);

	au_writer_start(&w, buf, BUF_SIZE);
	assert_true(au_enc_hold_ok(&w, 1, &held));
	f = parse_whole(&w);
	assert_true(au_dec_hold_ok(&f, &held_out));
	assert_int_equal(held_out.lsn, 11);
	assert_int_equal(held_out.horizon, 9);
	CHECK_STRICT(&w, au_dec_hold_ok, AuMsgHoldOk);

	memset(entries, 3, sizeof(entries));
	au_writer_start(&w, buf, BUF_SIZE);
	assert_true(au_enc_rels(&w, 1, &rels));
	f = parse_whole(&w);
	assert_true(au_dec_rels(&f, &rels_out));
	assert_int_equal(rels_out.as_of, 8);
	assert_int_equal(rels_out.count, 3);
	assert_memory_equal(rels_out.entries, entries, sizeof(entries));
	CHECK_STRICT(&w, au_dec_rels, AuMsgRels);

	/* a count whose product would overflow 32 bits */
	au_writer_start(&w, buf, BUF_SIZE);
	au_frame_begin(&w, AU_MSG_RELS, 1);
	au_w_u64(&w, 0);
	au_w_u32(&w, 0x40000000);
	assert_true(au_frame_end(&w));
	f = parse_whole(&w);
	assert_false(au_dec_rels(&f, &rels_out));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_frame_layout),
		cmocka_unit_test(test_frame_prefixes),
		cmocka_unit_test(test_frame_damage),
		cmocka_unit_test(test_frame_refused),
		cmocka_unit_test(test_frame_bounds),
		cmocka_unit_test(test_overflow_keeps_earlier_frames),
		cmocka_unit_test(test_reader_bounds),
		cmocka_unit_test(test_error),
		cmocka_unit_test(test_hello),
		cmocka_unit_test(test_term),
		cmocka_unit_test(test_append),
		cmocka_unit_test(test_get_pages),
		cmocka_unit_test(test_pages),
		cmocka_unit_test(test_sizes_and_rels),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
