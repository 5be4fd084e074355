/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_node.c: the node's state machine on a host in memory (fakehost.h): who
 * may write, what is acknowledged when, what is applied when, who waits and
 * who is woken, and what happens when syncs, writes and logs fail.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/fakehost.h"
#include "tests/walmake.h"

#define SYSID 77
#define BASE ((AuLsn) 0x1000000)

static FakeHost H;
static WalMake wal;
static AuLsn wal_start;
static uint8_t buf[AU_WIRE_PAYLOAD_MAX + 64];
static size_t piece = SIZE_MAX;

/* ---- helpers ---------------------------------------------------------- */

static AuLsn
add_records(int n)
{
	uint8_t		memory[256];
	AuOps		ops;

	for (int i = 0; i < n; i++)
	{
		au_ops_start(&ops, memory, sizeof(memory));
		au_ops_init(&ops, 0);
		walmake_ours(&wal, 16384, (uint32_t) i, ops.data, (uint16_t) ops.len);
	}
	return walmake_pos(&wal);
}

static void
begin_with(const AuNodeOptions *opt)
{
	fake_host_start(&H, opt);
	walmake_start(&wal, BASE);
	walmake_page(&wal, 0, 0);
	wal_start = walmake_pos(&wal);
	piece = SIZE_MAX;
}

static void
begin(bool alone)
{
	AuNodeOptions opt = {.node_id = 9,.alone = alone};

	begin_with(&opt);
}

static void
finish(void)
{
	au_node_free(H.node);
	assert_int_equal(H.allocated, 0);	/* nothing leaks */
	free(H.vol.log);
	free(wal.buf);
}

#define SEND(c, enc, ...) \
	do { \
		AuWriter w_; \
		au_writer_start(&w_, buf, sizeof(buf)); \
		assert_true(enc(&w_, __VA_ARGS__)); \
		fake_input(&H, (c), w_.data, w_.len, piece); \
	} while (0)

/* Next answer of the wanted type; the frame's payload stays valid until the
 * next call. */
static AuFrame
expect(FakeConn *c, uint16_t type)
{
	static uint8_t kept[AU_WIRE_PAYLOAD_MAX + 64];
	AuFrame		f;
	size_t		used;

	if (au_frame_parse(c->out, c->out_len, &f, &used) != AU_OK)
		fail_msg("no answer, expected type %u", type);
	memcpy(kept, c->out, used);
	memmove(c->out, c->out + used, c->out_len - used);
	c->out_len -= used;
	if (!c->closed)
		au_node_conn_sent(H.node, c->conn, used);
	assert_int_equal(au_frame_parse(kept, used, &f, &used), AU_OK);
	if (f.type != type)
	{
		AuMsgError	e;

		if (f.type == AU_MSG_ERROR && au_dec_error(&f, &e))
			fail_msg("got error %s \"%s\", expected type %u", au_status_name(e.status), e.message, type);
		fail_msg("got type %u, expected %u", f.type, type);
	}
	return f;
}

static void
expect_error(FakeConn *c, AuStatus status, const char *part)
{
	AuFrame		f = expect(c, AU_MSG_ERROR);
	AuMsgError	e;

	assert_true(au_dec_error(&f, &e));
	if (e.status != status || strstr(e.message, part) == NULL)
		fail_msg("got error %s \"%s\", expected %s \"%s\"", au_status_name(e.status), e.message,
				 au_status_name(status), part);
}

static void
expect_nothing(FakeConn *c)
{
	assert_int_equal(c->out_len, 0);
}

static void
open_as(FakeConn *c, uint8_t role)
{
	AuMsgHello	m = {.system_identifier = SYSID,.role = role,.name = "x"};

	fake_conn_open(&H, c);
	SEND(c, au_enc_hello, 1, &m);
	(void) expect(c, AU_MSG_HELLO_OK);
}

static AuMsgTerm
usual_term(void)
{
	return (AuMsgTerm)
	{
		.timeline = 1,.start_lsn = wal_start,.local_end = AU_LSN_MAX,
		.wal_segment_size = WALMAKE_SEGMENT,.may_create = 1
	};
}

static AuMsgTermOk
get_term(FakeConn *c)
{
	AuMsgTerm	m = usual_term();
	AuMsgTermOk ok;
	AuFrame		f;

	SEND(c, au_enc_term, 2, &m);
	f = expect(c, AU_MSG_TERM_OK);
	assert_true(au_dec_term_ok(&f, &ok));
	return ok;
}

static void
append(FakeConn *c, uint64_t id, uint64_t term, AuLsn from, AuLsn to, AuLsn commit)
{
	AuMsgAppend m = {
		.term = term,.timeline = 1,.lsn = from,.commit_lsn = commit,
		.length = (uint32_t) (to - from),.bytes = wal.buf + (from - wal.base)
	};

	SEND(c, au_enc_append, id, &m);
}

/* Let the node do what it can without waiting for the host. */
static void
run(void)
{
	for (int i = 0; i < 1000 && au_node_run(H.node) == 0; i++)
		;
}

/* ... and let syncs end at once. */
static void
settle(void)
{
	run();
	while (H.vol.syncing_to != 0)
	{
		fake_sync_done(&H, AU_OK);
		run();
	}
}

static AuVolumeStats
stats(void)
{
	AuVolumeStats s;
	void	   *handle;

	assert_true(au_node_volume_stats(H.node, 0, &s, &handle));
	return s;
}

/* ---- tests ------------------------------------------------------------ */

/* Nothing is acknowledged or applied before a sync covers it; one sync covers
 * what came before it, what comes meanwhile waits for the next. */
static void
group_sync(void)
{
	FakeConn	w;
	AuMsgTermOk t;
	AuMsgAppendOk ok;
	AuFrame		f;
	AuLsn		a,
				b,
				c;

	begin(true);
	open_as(&w, AU_ROLE_WRITER);
	t = get_term(&w);
	assert_int_equal(t.term, 1);
	assert_int_equal(t.received_lsn, wal_start);
	a = add_records(5);
	b = add_records(5);
	c = add_records(5);
	append(&w, 10, 1, wal_start, a, 0);
	append(&w, 11, 1, a, b, 0);
	run();
	expect_nothing(&w);
	assert_int_equal(H.vol.syncs, 1);
	assert_int_equal(H.vol.syncing_to, b);
	append(&w, 12, 1, b, c, 0);
	run();
	assert_int_equal(H.vol.syncs, 1);
	assert_int_equal(H.vol.ntaken, 0);
	fake_sync_done(&H, AU_OK);
	f = expect(&w, AU_MSG_APPEND_OK);
	assert_int_equal(f.id, 11);
	assert_true(au_dec_append_ok(&f, &ok));
	assert_int_equal(ok.durable_lsn, b);
	assert_int_equal(ok.received_lsn, c);
	run();
	assert_int_equal(H.vol.ntaken, 10);
	assert_int_equal(H.vol.syncing_to, c);
	expect_nothing(&w);
	fake_sync_done(&H, AU_OK);
	f = expect(&w, AU_MSG_APPEND_OK);
	assert_int_equal(f.id, 12);
	run();
	assert_int_equal(H.vol.ntaken, 15);
	/* sent again: skipped, acknowledged */
	append(&w, 13, 1, a, c, 0);
	f = expect(&w, AU_MSG_APPEND_OK);
	assert_int_equal(f.id, 13);
	assert_int_equal(H.vol.log_end, c);
	fake_conn_end(&H, &w);
	finish();
}

static void
test_group_sync(void **state)
{
	(void) state;
	group_sync();
}

/* On persistent memory one turn stores, acknowledges and then applies. */
static void
test_inline_sync(void **state)
{
	FakeConn	w;
	AuMsgAppendOk ok;
	AuFrame		f;
	AuLsn		end;

	(void) state;
	begin(true);
	open_as(&w, AU_ROLE_WRITER);
	(void) get_term(&w);
	H.vol.sync_inline = true;
	end = add_records(5);
	append(&w, 10, 1, wal_start, end, 0);
	expect_nothing(&w);			/* the group may still grow */
	(void) au_node_run(H.node);
	assert_int_equal(H.vol.syncs, 1);
	f = expect(&w, AU_MSG_APPEND_OK);
	assert_int_equal(f.id, 10);
	assert_true(au_dec_append_ok(&f, &ok));
	assert_int_equal(ok.durable_lsn, end);
	/* sent before pages were looked at, which took place after it */
	assert_int_equal(ok.applied_lsn, wal_start);
	assert_int_equal(H.vol.ntaken, 5);
	assert_int_equal(stats().syncs, 1);

	H.vol.sync_status = AU_IO;
	append(&w, 11, 1, end, add_records(5), 0);
	(void) au_node_run(H.node);
	expect_nothing(&w);
	assert_non_null(strstr(H.fatal, "sync failed"));
	assert_int_equal(H.vol.ntaken, 5);
	fake_conn_end(&H, &w);
	finish();
}

/* The same bytes, one at a time. */
static void
test_small_pieces(void **state)
{
	FakeConn	w,
				r;
	AuMsgGetSize m = {.rel = {1663, 5, 16384, 0}};
	AuLsn		end;

	(void) state;
	begin(true);
	piece = 1;
	open_as(&w, AU_ROLE_WRITER);
	(void) get_term(&w);
	end = add_records(20);
	append(&w, 10, 1, wal_start, end, 0);
	settle();
	(void) expect(&w, AU_MSG_APPEND_OK);
	assert_int_equal(H.vol.ntaken, 20);
	open_as(&r, AU_ROLE_READER);
	SEND(&r, au_enc_get_size, 3, &m);
	(void) expect(&r, AU_MSG_SIZE);
	fake_conn_end(&H, &w);
	fake_conn_end(&H, &r);
	finish();
}

/* In a quorum only what is committed there is applied. */
static void
test_commit_limits_applying(void **state)
{
	FakeConn	w;
	AuLsn		a,
				b;

	(void) state;
	begin(false);
	open_as(&w, AU_ROLE_WRITER);
	(void) get_term(&w);
	a = add_records(5);
	b = add_records(5);
	append(&w, 10, 1, wal_start, b, a);
	settle();
	assert_int_equal(H.vol.ntaken, 5);
	assert_int_equal(stats().applied, a);
	append(&w, 11, 1, b, b, b);
	settle();
	assert_int_equal(H.vol.ntaken, 10);
	fake_conn_end(&H, &w);
	finish();
}

/* Who asks for positions is told again when his log has been applied, once. */
static void
test_tells_when_applied(void **state)
{
	FakeConn	w;
	AuFrame		f;
	AuMsgAppendOk ok;
	AuLsn		a,
				b;

	(void) state;
	begin(false);
	open_as(&w, AU_ROLE_WRITER);
	(void) get_term(&w);
	a = add_records(5);
	b = add_records(5);
	append(&w, 10, 1, wal_start, b, a);
	settle();
	f = expect(&w, AU_MSG_APPEND_OK);
	assert_int_equal(f.id, 10);

	append(&w, 11, 1, b, b, a);
	f = expect(&w, AU_MSG_APPEND_OK);
	assert_int_equal(f.id, 11);
	assert_true(au_dec_append_ok(&f, &ok));
	assert_int_equal(ok.applied_lsn, a);
	settle();
	expect_nothing(&w);

	/* a later append lets it be applied, before its own log is durable */
	append(&w, 12, 1, b, add_records(1), b);
	settle();
	f = expect(&w, AU_MSG_APPEND_OK);
	assert_int_equal(f.id, 11);
	assert_true(au_dec_append_ok(&f, &ok));
	assert_int_equal(ok.applied_lsn, b);
	f = expect(&w, AU_MSG_APPEND_OK);
	assert_int_equal(f.id, 12);
	expect_nothing(&w);
	fake_conn_end(&H, &w);
	finish();
}

static void
test_terms(void **state)
{
	FakeConn	a,
				b;
	AuMsgTerm	m;
	AuMsgTermOk t;
	AuLsn		end;

	(void) state;
	begin(true);
	open_as(&a, AU_ROLE_WRITER);
	m = usual_term();
	m.may_create = 0;
	SEND(&a, au_enc_term, 2, &m);
	expect_error(&a, AU_REFUSED, "is not on this node");
	m = usual_term();
	m.wal_segment_size = 12345;
	SEND(&a, au_enc_term, 2, &m);
	expect_error(&a, AU_INVALID, "no usable start");

	/* not persisted, not granted */
	H.save_status = AU_IO;
	m = usual_term();
	SEND(&a, au_enc_term, 2, &m);
	expect_error(&a, AU_IO, "could not persist");
	end = add_records(3);
	append(&a, 3, 1, wal_start, end, 0);
	expect_error(&a, AU_FENCED, "");
	H.save_status = AU_OK;
	t = get_term(&a);
	assert_int_equal(t.term, 1);
	assert_int_equal(H.saved_term, 1);

	/* while the first one's log is being synced, the second waits */
	append(&a, 4, 1, wal_start, end, 0);
	run();
	assert_true(H.vol.syncing_to != 0);
	open_as(&b, AU_ROLE_WRITER);
	m = usual_term();
	SEND(&b, au_enc_term, 5, &m);
	run();
	expect_nothing(&b);
	assert_false(b.reading);
	fake_sync_done(&H, AU_OK);
	(void) expect(&a, AU_MSG_APPEND_OK);
	run();
	{
		AuFrame		f = expect(&b, AU_MSG_TERM_OK);

		assert_true(au_dec_term_ok(&f, &t));
	}
	assert_int_equal(t.term, 2);
	assert_int_equal(t.received_lsn, end);
	assert_true(b.reading);
	append(&a, 6, 1, end, end, 0);
	expect_error(&a, AU_FENCED, "another writer");

	/* refusals */
	m = usual_term();
	m.local_end = end - 1;
	SEND(&a, au_enc_term, 7, &m);
	expect_error(&a, AU_REFUSED, "before what storage has acknowledged");
	m = usual_term();
	m.timeline = 3;
	m.switch_lsn = end;
	SEND(&a, au_enc_term, 8, &m);
	(void) expect(&a, AU_MSG_TERM_OK);
	m = usual_term();
	m.timeline = 2;
	m.switch_lsn = end;
	SEND(&b, au_enc_term, 9, &m);
	expect_error(&b, AU_REFUSED, "timeline 3 already");
	/* readers do not write */
	fake_conn_end(&H, &b);
	open_as(&b, AU_ROLE_READER);
	SEND(&b, au_enc_term, 10, &m);
	expect_error(&b, AU_INVALID, "only a writer");
	fake_conn_end(&H, &a);
	fake_conn_end(&H, &b);
	finish();
}

/* A dead timeline's end is cut off only if no page has seen it. */
static void
test_timeline_cut(void **state)
{
	FakeConn	w;
	AuMsgTerm	m;
	AuMsgTermOk t;
	AuFrame		f;
	AuLsn		a,
				b;

	(void) state;
	begin(true);
	open_as(&w, AU_ROLE_WRITER);
	(void) get_term(&w);
	a = add_records(5);
	for (int i = 0; i < 5; i++)
		walmake_main(&wal, 0, 0x30, 0, "checkpoint or so", 16);
	b = walmake_pos(&wal);
	append(&w, 3, 1, wal_start, b, 0);
	settle();
	(void) expect(&w, AU_MSG_APPEND_OK);
	assert_int_equal(stats().applied, b);

	m = usual_term();
	m.timeline = 2;
	m.switch_lsn = a - 8;
	SEND(&w, au_enc_term, 4, &m);
	expect_error(&w, AU_REFUSED, "left the old one");

	m.switch_lsn = a;
	SEND(&w, au_enc_term, 5, &m);
	run();
	expect_nothing(&w);			/* the store's lower position first */
	assert_true(H.vol.writing && H.vol.write_persist);
	assert_int_equal(H.vol.frozen_applied, a);
	assert_int_equal(H.vol.log_end, b);
	fake_write_done(&H, AU_OK);
	run();
	assert_int_equal(H.vol.log_end, a);
	run();
	f = expect(&w, AU_MSG_TERM_OK);
	assert_true(au_dec_term_ok(&f, &t));
	assert_int_equal(t.received_lsn, a);
	assert_int_equal(t.applied_lsn, a);
	fake_conn_end(&H, &w);
	finish();
}

static void
ask_page(FakeConn *c, uint64_t id, AuLsn not_before, AuLsn read_lsn, uint16_t n)
{
	AuMsgGetPages m = {
		.rel = {1663, 5, 16384, 0},.not_before = not_before,.read_lsn = read_lsn,.nblocks = n
	};

	SEND(c, au_enc_get_pages, id, &m);
}

static void
test_reads(void **state)
{
	static AuMsgPages pages;
	FakeConn	w,
				r,
				r2;
	AuMsgGetPages bad = {.nblocks = 0};
	AuMsgListRels list = {.db = 5};
	AuFrame		f;
	AuLsn		a,
				b,
				c;

	(void) state;
	begin(true);
	open_as(&r, AU_ROLE_READER);
	ask_page(&r, 1, 0, 0, 1);
	expect_error(&r, AU_REFUSED, "is not on this node");
	open_as(&w, AU_ROLE_WRITER);
	(void) get_term(&w);
	a = add_records(4);
	b = add_records(4);
	c = add_records(4);
	open_as(&r2, AU_ROLE_READER);

	/* they wait, and are woken in the order of what they need */
	ask_page(&r, 2, b, 0, 1);
	ask_page(&r, 3, a, 0, 2);
	ask_page(&r, 4, a, 0, 1);
	ask_page(&r, 5, 0, c, 1);
	ask_page(&r2, 6, c, 0, 1);
	run();
	expect_nothing(&r);
	assert_int_equal(stats().waiting, 5);
	append(&w, 10, 1, wal_start, a, 0);
	run();
	expect_nothing(&r);
	settle();
	f = expect(&r, AU_MSG_PAGES);
	assert_int_equal(f.id, 3);
	assert_true(au_dec_pages(&f, &pages));
	assert_int_equal(pages.as_of, a);
	assert_int_equal(au_page_lsn(pages.page[1]), a);
	f = expect(&r, AU_MSG_PAGES);
	assert_int_equal(f.id, 4);
	expect_nothing(&r);
	/* who is gone is not woken */
	fake_conn_end(&H, &r2);
	assert_int_equal(stats().waiting, 2);
	append(&w, 11, 1, a, c, 0);
	settle();
	f = expect(&r, AU_MSG_PAGES);
	assert_int_equal(f.id, 2);
	f = expect(&r, AU_MSG_PAGES);
	assert_int_equal(f.id, 5);
	assert_true(au_dec_pages(&f, &pages));
	assert_int_equal(pages.as_of, c);

	/* as of an older LSN; too old; nonsense; damage */
	ask_page(&r, 7, 0, b, 1);
	f = expect(&r, AU_MSG_PAGES);
	assert_true(au_dec_pages(&f, &pages));
	assert_int_equal(au_page_lsn(pages.page[0]), b);
	H.vol.horizon = b;
	ask_page(&r, 8, 0, a, 1);
	expect_error(&r, AU_GONE, "older than");
	SEND(&r, au_enc_get_pages, 9, &bad);
	expect_error(&r, AU_INVALID, "malformed");
	H.vol.read_status = AU_CORRUPT;
	ask_page(&r, 10, 0, 0, 1);
	expect_error(&r, AU_CORRUPT, "fake trouble");
	SEND(&r, au_enc_list_rels, 11, &list);
	(void) expect(&r, AU_MSG_RELS);

	/* nobody waits for ever */
	ask_page(&r, 12, c + 1, 0, 1);
	run();
	H.now += AU_NODE_WAIT_US_MAX - 1;
	run();
	expect_nothing(&r);
	H.now += 1;
	run();
	expect_error(&r, AU_REFUSED, "was not applied within 60 s");
	assert_int_equal(stats().expired, 1);
	fake_conn_end(&H, &w);
	fake_conn_end(&H, &r);
	finish();
}

/* Answers of all connections together: readers wait, the writer does not, and
 * who takes nothing is put out. */
static void
test_answers_of_all(void **state)
{
	AuNodeOptions opt = {.node_id = 1,.alone = true,.out_bytes_max = 4 << 20};
	FakeConn	w,
				idle[4],
				late;
	AuLsn		end;

	(void) state;
	begin_with(&opt);
	open_as(&w, AU_ROLE_WRITER);
	(void) get_term(&w);
	end = add_records(3);
	append(&w, 10, 1, wal_start, end, 0);
	settle();
	(void) expect(&w, AU_MSG_APPEND_OK);
	for (int i = 0; i < 4; i++)
	{
		open_as(&idle[i], AU_ROLE_READER);
		ask_page(&idle[i], 1, 0, 0, 128);
		ask_page(&idle[i], 2, 0, 0, 128);
		assert_false(idle[i].reading);
		assert_true(idle[i].out_len < 1200 * 1024);
	}
	open_as(&late, AU_ROLE_READER);
	ask_page(&late, 1, 0, 0, 1);
	run();
	assert_int_equal(late.out_len, 0);
	assert_true(w.reading);

	/* one takes what it was sent, the others do not */
	H.now += AU_NODE_OUT_STUCK_US - 1;
	while (idle[0].out_len > 0)
		(void) expect(&idle[0], AU_MSG_PAGES);
	run();
	fake_offer(&H, &idle[0], SIZE_MAX);
	fake_offer(&H, &late, SIZE_MAX);
	H.now++;
	run();
	for (int i = 1; i < 4; i++)
	{
		assert_true(idle[i].closed);
		fake_conn_end(&H, &idle[i]);
	}
	assert_false(idle[0].closed);
	run();
	fake_offer(&H, &late, SIZE_MAX);
	(void) expect(&late, AU_MSG_PAGES);
	fake_conn_end(&H, &late);
	fake_conn_end(&H, &idle[0]);
	fake_conn_end(&H, &w);
	finish();
}

static AuMsgHoldOk
hold_at(FakeConn *c, uint64_t id, AuLsn lsn)
{
	AuMsgHold	m = {.lsn = lsn};
	AuMsgHoldOk ok;
	AuFrame		f;

	SEND(c, au_enc_hold, id, &m);
	f = expect(c, AU_MSG_HOLD_OK);
	assert_true(au_dec_hold_ok(&f, &ok));
	assert_int_equal(ok.lsn, lsn);
	return ok;
}

/* Holds: the lowest counts, and only while its connection has it. */
static void
test_holds(void **state)
{
	AuNodeOptions opt = {.node_id = 1,.alone = true,.hold_limit_bytes = 4096};
	FakeConn	w,
				a,
				b,
				many[AU_NODE_HOLDS_MAX];
	AuMsgHold	m = {.lsn = 10};
	AuLsn		end;
	AuLsn		more;

	(void) state;
	begin_with(&opt);
	open_as(&w, AU_ROLE_WRITER);
	(void) get_term(&w);
	end = add_records(3);
	append(&w, 10, 1, wal_start, end, 0);
	settle();
	(void) expect(&w, AU_MSG_APPEND_OK);
	open_as(&a, AU_ROLE_READER);
	open_as(&b, AU_ROLE_READER);
	H.vol.horizon = 20;
	SEND(&a, au_enc_hold, 1, &m);
	expect_error(&a, AU_GONE, "cannot be held");
	assert_int_equal(hold_at(&a, 2, end).horizon, 20);
	assert_int_equal(H.vol.hold, end);
	(void) hold_at(&b, 3, end - 8);
	assert_int_equal(H.vol.hold, end - 8);
	assert_int_equal(stats().holds, 2);
	(void) hold_at(&b, 4, end + 8);
	assert_int_equal(H.vol.hold, end);
	fake_conn_end(&H, &a);
	assert_int_equal(H.vol.hold, end + 8);
	(void) hold_at(&b, 5, 0);
	assert_int_equal(H.vol.hold, 0);

	/* not more than so many */
	for (int i = 0; i < AU_NODE_HOLDS_MAX; i++)
	{
		open_as(&many[i], AU_ROLE_READER);
		(void) hold_at(&many[i], 6, end + (AuLsn) i);
	}
	m.lsn = end;
	SEND(&b, au_enc_hold, 7, &m);
	expect_error(&b, AU_FULL, "hold old LSNs already");
	for (int i = 2; i < AU_NODE_HOLDS_MAX; i++)
		fake_conn_end(&H, &many[i]);

	/* one that keeps too much is broken, and told so when it reads */
	(void) hold_at(&many[1], 8, end + 4096);
	more = add_records(100);
	assert_in_range(more, end + 4097, end + 8000);
	append(&w, 11, 1, end, more, 0);
	settle();
	assert_int_equal(stats().holds_broken, 1);
	assert_int_equal(H.vol.hold, end + 4096);
	assert_non_null(strstr(H.last_log, "is broken"));
	H.vol.horizon = end + 100;
	ask_page(&many[0], 9, 0, end, 1);
	expect_error(&many[0], AU_GONE, "is older than");
	fake_conn_end(&H, &many[0]);
	fake_conn_end(&H, &many[1]);
	assert_int_equal(H.vol.hold, 0);
	fake_conn_end(&H, &b);
	fake_conn_end(&H, &w);
	finish();
}

/* Bounds: waiting reads, unsent answers, log not yet durable. */
static void
test_bounds(void **state)
{
	FakeConn	w,
				r;
	AuLsn		end;
	AuLsn		from;

	(void) state;
	begin(true);
	open_as(&w, AU_ROLE_WRITER);
	(void) get_term(&w);
	end = add_records(3);
	append(&w, 10, 1, wal_start, end, 0);
	settle();
	(void) expect(&w, AU_MSG_APPEND_OK);
	open_as(&r, AU_ROLE_READER);
	for (int i = 0; i < 100; i++)
		ask_page(&r, 100 + (uint64_t) i, end + 8, 0, 1);
	assert_false(r.reading);
	assert_int_equal(stats().waiting, AU_NODE_CONN_WAITS_MAX);
	H.now += AU_NODE_WAIT_US_MAX;
	run();
	assert_true(r.reading);
	fake_offer(&H, &r, SIZE_MAX);
	assert_int_equal(stats().waiting, 100 - AU_NODE_CONN_WAITS_MAX);
	fake_conn_end(&H, &r);

	/* eight megabytes of answers that nobody takes */
	open_as(&r, AU_ROLE_READER);
	for (int i = 0; i < 20; i++)
		ask_page(&r, 200 + (uint64_t) i, 0, 0, 128);
	assert_false(r.reading);
	assert_true(r.out_len < AU_NODE_CONN_OUT_MAX + 2 * 1024 * 1024);
	run();
	assert_false(r.reading);
	while (r.out_len > 0)
		(void) expect(&r, AU_MSG_PAGES);
	run();
	assert_true(r.reading);
	fake_offer(&H, &r, SIZE_MAX);
	while (r.out_len > 0)
		(void) expect(&r, AU_MSG_PAGES);
	fake_conn_end(&H, &r);

	/* a sync that does not end */
	{
		static uint8_t zeros[AU_WIRE_APPEND_MAX];
		uint64_t	id = 1000;

		from = end;
		for (int i = 0; i < 80; i++)
		{
			AuMsgAppend m = {
				.term = 1,.timeline = 1,.lsn = from,.length = sizeof(zeros),.bytes = zeros
			};

			SEND(&w, au_enc_append, id++, &m);
			from += sizeof(zeros);
			(void) au_node_run(H.node);
		}
		assert_false(w.reading);
		assert_true(H.vol.log_end - H.vol.log_durable <= AU_NODE_UNSYNCED_MAX + AU_WIRE_APPEND_MAX);
	}
	fake_conn_end(&H, &w);
	finish();
}

/* Full disk, both kinds: the log's and the store's. */
static void
test_disk_full(void **state)
{
	FakeConn	w,
				r,
				other;
	AuMsgTerm	m = usual_term();
	AuMsgTermOk t;
	AuLsn		a,
				b,
				c;

	(void) state;
	begin(true);
	open_as(&w, AU_ROLE_WRITER);
	(void) get_term(&w);
	a = add_records(5);
	b = add_records(5);
	c = add_records(5);
	append(&w, 10, 1, wal_start, a, 0);
	settle();
	(void) expect(&w, AU_MSG_APPEND_OK);
	H.vol.append_status = AU_FULL;
	append(&w, 11, 1, a, b, 0);
	expect_error(&w, AU_FULL, "no room");
	append(&w, 12, 1, b, c, 0);
	expect_error(&w, AU_FULL, "before this one");
	assert_string_equal(stats().state, "disk full");
	H.vol.append_status = AU_OK;
	append(&w, 13, 1, a, b, 0);
	settle();
	(void) expect(&w, AU_MSG_APPEND_OK);
	assert_string_equal(stats().state, "ok");

	/* the store: what was in memory is applied again from the log */
	H.now += AU_NODE_PERSIST_US;
	run();
	assert_true(H.vol.writing);
	fake_write_done(&H, AU_FULL);
	run();
	assert_string_equal(stats().state, "store stalled");
	open_as(&r, AU_ROLE_READER);
	ask_page(&r, 20, b, 0, 1);	/* memory still has it */
	(void) expect(&r, AU_MSG_PAGES);
	append(&w, 14, 1, b, c, 0);	/* and the log takes more */
	settle();
	(void) expect(&w, AU_MSG_APPEND_OK);
	assert_int_equal(stats().applied, b);
	H.vol.reopen_status = AU_IO;
	H.now += AU_NODE_RETRY_US;
	run();
	ask_page(&r, 21, b, 0, 1);	/* closed: reads wait */
	run();
	expect_nothing(&r);
	open_as(&other, AU_ROLE_WRITER);	/* ... and who wants to cut log off */
	m.timeline = 2;
	m.switch_lsn = a;
	SEND(&other, au_enc_term, 22, &m);
	run();
	expect_nothing(&other);
	H.vol.reopen_status = AU_OK;
	H.now += AU_NODE_RETRY_US;
	run();
	assert_int_equal(H.vol.reopens, 1);
	assert_int_equal(H.vol.ntaken, 15);
	assert_string_equal(stats().state, "ok");
	(void) expect(&r, AU_MSG_PAGES);
	run();
	expect_error(&other, AU_REFUSED, "left the old one");
	fake_conn_end(&H, &other);
	assert_true(w.closed);		/* positions never go back on a connection */
	fake_conn_end(&H, &w);
	open_as(&w, AU_ROLE_WRITER);
	t = get_term(&w);
	assert_int_equal(t.received_lsn, c);
	fake_conn_end(&H, &w);
	fake_conn_end(&H, &r);
	finish();
}

/* Positions are persisted by time, and the log is cut below them. */
static void
test_persist_and_trim(void **state)
{
	FakeConn	w;
	AuLsn		end;

	(void) state;
	begin(true);
	open_as(&w, AU_ROLE_WRITER);
	(void) get_term(&w);
	end = add_records(50);
	append(&w, 10, 1, wal_start, end, 0);
	settle();
	assert_false(H.vol.writing);
	H.now += AU_NODE_PERSIST_US;
	run();
	assert_true(H.vol.writing && H.vol.write_persist);
	assert_int_equal(H.vol.frozen_applied, end);
	assert_true(H.vol.trimmed <= wal_start);
	fake_write_done(&H, AU_OK);
	run();
	/* but for what a server that comes back is compared with */
	assert_int_equal(H.vol.trimmed, end - AU_NODE_COMPARE_BYTES);
	/* nothing new: nothing to write */
	H.now += 10 * AU_NODE_PERSIST_US;
	run();
	assert_int_equal(H.vol.writes, 1);
	/* a clean stop writes the rest */
	{
		AuLsn		more = add_records(5);

		append(&w, 11, 1, end, more, 0);
		settle();
		au_node_stop(H.node);
		assert_true(w.closed);
		run();
		assert_false(au_node_stopped(H.node));
		assert_true(H.vol.writing);
		fake_write_done(&H, AU_OK);
		run();
		assert_true(au_node_stopped(H.node));
		assert_int_equal(H.vol.persisted_applied, more);
	}
	fake_conn_end(&H, &w);
	finish();
}

/* What must end the node, and what must end a volume. */
static void
test_fatal(void **state)
{
	FakeConn	w,
				r;
	AuLsn		a,
				end;

	(void) state;
	begin(true);
	open_as(&w, AU_ROLE_WRITER);
	(void) get_term(&w);
	end = add_records(5);
	append(&w, 10, 1, wal_start, end, 0);
	run();
	fake_sync_done(&H, AU_IO);
	assert_non_null(strstr(H.fatal, "sync failed"));
	expect_nothing(&w);
	assert_true(au_node_run(H.node) == UINT64_MAX);
	fake_conn_end(&H, &w);
	finish();

	begin(true);
	open_as(&w, AU_ROLE_WRITER);
	(void) get_term(&w);
	end = add_records(5);
	H.vol.apply_status = AU_INVALID;
	append(&w, 10, 1, wal_start, end, 0);
	settle();
	assert_non_null(strstr(H.fatal, "fake trouble"));
	fake_conn_end(&H, &w);
	finish();

	/* damaged log: this volume takes no more, and says so */
	begin(true);
	open_as(&w, AU_ROLE_WRITER);
	(void) get_term(&w);
	a = add_records(5);
	end = add_records(5);
	wal.buf[a - wal.base + 30] ^= 1;
	open_as(&r, AU_ROLE_READER);
	ask_page(&r, 5, end, 0, 1);
	append(&w, 10, 1, wal_start, end, 0);
	settle();
	(void) expect(&w, AU_MSG_APPEND_OK);
	expect_error(&r, AU_CORRUPT, "cannot be applied");
	assert_string_equal(stats().state, "failed");
	append(&w, 11, 1, end, end, 0);
	expect_error(&w, AU_CORRUPT, "");
	ask_page(&r, 6, a, 0, 1);	/* what is below is still there */
	(void) expect(&r, AU_MSG_PAGES);
	assert_int_equal(H.fatal[0], 0);
	fake_conn_end(&H, &w);
	fake_conn_end(&H, &r);
	finish();
}

/* Reads that take time: what may happen before they end. */
static void
test_reads_under_way(void **state)
{
	static AuMsgPages pages;
	FakeConn	w,
				r,
				gone;
	AuFrame		f;
	AuLsn		a,
				b;

	(void) state;
	begin(true);
	open_as(&w, AU_ROLE_WRITER);
	(void) get_term(&w);
	a = add_records(4);
	append(&w, 10, 1, wal_start, a, 0);
	settle();
	(void) expect(&w, AU_MSG_APPEND_OK);
	open_as(&r, AU_ROLE_READER);
	open_as(&gone, AU_ROLE_READER);
	H.vol.read_later = true;

	/* more is applied meanwhile, and others are answered first */
	ask_page(&r, 1, a, 0, 1);
	ask_page(&r, 2, a, 0, 2);
	ask_page(&gone, 3, a, 0, 1);
	assert_int_equal(stats().reading, 3);
	b = add_records(4);
	append(&w, 11, 1, a, b, 0);
	settle();
	(void) expect(&w, AU_MSG_APPEND_OK);
	assert_int_equal(stats().applied, b);
	fake_read_done(&H, 1);
	f = expect(&r, AU_MSG_PAGES);
	assert_int_equal(f.id, 2);
	assert_true(au_dec_pages(&f, &pages));
	assert_int_equal(pages.as_of, a);	/* one LSN, fixed at the start */
	assert_int_equal(au_page_lsn(pages.page[0]), a);

	/* nobody is left to be answered */
	fake_conn_end(&H, &gone);
	fake_read_done(&H, 1);
	fake_read_done(&H, 0);
	f = expect(&r, AU_MSG_PAGES);
	assert_int_equal(f.id, 1);

	/* the store is to be opened again: not before the reads are done */
	ask_page(&r, 4, b, 0, 1);
	H.now += AU_NODE_PERSIST_US;
	run();
	fake_write_done(&H, AU_IO);
	H.now += AU_NODE_RETRY_US;
	run();
	assert_int_equal(H.vol.reopens, 0);
	ask_page(&r, 5, b, 0, 1);	/* a new one does not start */
	assert_int_equal(H.vol.nreads, 1);
	fake_read_done(&H, 0);
	run();
	assert_int_equal(H.vol.reopens, 1);
	f = expect(&r, AU_MSG_PAGES);
	assert_int_equal(f.id, 4);
	settle();
	assert_int_equal(H.vol.nreads, 1);	/* what it needs is applied again */
	fake_read_done(&H, 0);
	f = expect(&r, AU_MSG_PAGES);
	assert_int_equal(f.id, 5);
	assert_true(au_dec_pages(&f, &pages));
	assert_true(pages.as_of >= b);

	/* readers may keep a store from freezing: the write comes after them */
	fake_conn_end(&H, &w);
	open_as(&w, AU_ROLE_WRITER);
	(void) get_term(&w);
	H.vol.refuse_freeze = true;
	H.now += AU_NODE_PERSIST_US;
	run();
	assert_false(H.vol.writing);
	H.vol.refuse_freeze = false;
	run();
	assert_true(H.vol.writing);
	fake_write_done(&H, AU_OK);

	/* a clean stop waits for them */
	ask_page(&r, 6, b, 0, 1);
	au_node_stop(H.node);
	fake_conn_end(&H, &r);
	fake_conn_end(&H, &w);
	run();
	assert_false(au_node_stopped(H.node));
	fake_read_done(&H, 0);
	run();
	assert_true(au_node_stopped(H.node));
	finish();
}

/* A read never waits for more than a slice of applying and one piece of log,
 * however much there is to apply. */
static void
test_slices(void **state)
{
	FakeConn	w;
	AuLsn		from,
				end;
	uint64_t	longest = 0;
	int			runs = 0;

	(void) state;
	begin(true);
	open_as(&w, AU_ROLE_WRITER);
	(void) get_term(&w);
	from = wal_start;
	end = add_records(8000);
	for (uint64_t id = 10; from < end; id++)
	{
		AuLsn		to = end - from < 100000 ? end : from + 100000;

		append(&w, id, 1, from, to, 0);
		from = to;
	}
	H.vol.apply_cost_us = 1;
	run();
	fake_sync_done(&H, AU_OK);
	do
	{
		uint64_t	start = H.now;

		(void) au_node_run(H.node);
		longest = H.now - start > longest ? H.now - start : longest;
		runs++;
	} while (stats().applied < end && runs < 1000);
	assert_int_equal(stats().applied, end);
	/* 64 kB are some 1,000 records of a microsecond each */
	assert_true(longest <= 2500);
	assert_true(runs >= 4 && runs <= 16);
	fake_conn_end(&H, &w);
	finish();
}

/* Not all reads are under way at a time; none is forgotten. */
static void
test_reads_bounded(void **state)
{
	AuNodeOptions opt = {.node_id = 1,.alone = true,.out_bytes_max = 1 << 20};
	FakeConn	w,
				r[4];
	AuLsn		a;
	uint32_t	asked = 0,
				answered = 0;

	(void) state;
	begin_with(&opt);
	open_as(&w, AU_ROLE_WRITER);
	(void) get_term(&w);
	a = add_records(4);
	append(&w, 10, 1, wal_start, a, 0);
	settle();
	(void) expect(&w, AU_MSG_APPEND_OK);
	H.vol.read_later = true;
	for (int i = 0; i < 4; i++)
	{
		open_as(&r[i], AU_ROLE_READER);
		for (int k = 0; k < 12; k++, asked++)
			ask_page(&r[i], 1, a, 0, 10);
	}
	/* 10 pages of 8 kB each, a megabyte together */
	assert_true(H.vol.nreads > 1 && H.vol.nreads <= 12);
	while (H.vol.nreads > 0)
	{
		fake_read_done(&H, H.vol.nreads / 2);
		for (int i = 0; i < 4; i++)
			for (; r[i].out_len > 0; answered++)
				(void) expect(&r[i], AU_MSG_PAGES);
		run();
	}
	assert_int_equal(answered, asked);
	for (int i = 0; i < 4; i++)
		fake_conn_end(&H, &r[i]);
	fake_conn_end(&H, &w);
	finish();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_group_sync),
		cmocka_unit_test(test_inline_sync),
		cmocka_unit_test(test_small_pieces),
		cmocka_unit_test(test_commit_limits_applying),
		cmocka_unit_test(test_tells_when_applied),
		cmocka_unit_test(test_terms),
		cmocka_unit_test(test_timeline_cut),
		cmocka_unit_test(test_reads),
		cmocka_unit_test(test_holds),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_answers_of_all),
		cmocka_unit_test(test_disk_full),
		cmocka_unit_test(test_persist_and_trim),
		cmocka_unit_test(test_fatal),
		cmocka_unit_test(test_reads_under_way),
		cmocka_unit_test(test_reads_bounded),
		cmocka_unit_test(test_slices),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
