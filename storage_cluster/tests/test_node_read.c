/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_node_read.c: reads of a node on a host in memory (fakehost.h): who waits
 * and who is woken, what holds keep, reads that take time, and all the bounds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/fakenode.h"

static void
begin_with(const AuNodeOptions *opt)
{
	fake_host_start(&H, opt);
	fn_start_log(FN_BASE);
}

static void
begin(void)
{
	AuNodeOptions opt = {.node_id = 9,.alone = true};

	begin_with(&opt);
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
	begin();
	(void) fn_open(&r, AU_ROLE_READER);
	fn_ask_page(&r, 1, 0, 0, 1);
	fn_take_error(&r, AU_REFUSED, "is not on this node");
	(void) fn_open_writer(&w);
	a = fn_add_records(4);
	b = fn_add_records(4);
	c = fn_add_records(4);
	(void) fn_open(&r2, AU_ROLE_READER);

	/* they wait, and are woken in the order of what they need */
	fn_ask_page(&r, 2, b, 0, 1);
	fn_ask_page(&r, 3, a, 0, 2);
	fn_ask_page(&r, 4, a, 0, 1);
	fn_ask_page(&r, 5, 0, c, 1);
	fn_ask_page(&r2, 6, c, 0, 1);
	fn_run();
	fn_take_nothing(&r);
	assert_int_equal(fn_stats().waiting, 5);
	fn_append(&w, 10, 1, fn.wal_start, a, 0);
	fn_run();
	fn_take_nothing(&r);
	fn_settle();
	f = fn_take(&r, AU_MSG_PAGES);
	assert_int_equal(f.id, 3);
	assert_true(au_dec_pages(&f, &pages));
	assert_int_equal(pages.as_of, a);
	assert_int_equal(au_page_lsn(pages.page[1]), a);
	f = fn_take(&r, AU_MSG_PAGES);
	assert_int_equal(f.id, 4);
	fn_take_nothing(&r);
	/* who is gone is not woken */
	fake_conn_end(&H, &r2);
	assert_int_equal(fn_stats().waiting, 2);
	fn_append(&w, 11, 1, a, c, 0);
	fn_settle();
	f = fn_take(&r, AU_MSG_PAGES);
	assert_int_equal(f.id, 2);
	f = fn_take(&r, AU_MSG_PAGES);
	assert_int_equal(f.id, 5);
	assert_true(au_dec_pages(&f, &pages));
	assert_int_equal(pages.as_of, c);

	/* as of an older LSN; too old; nonsense; damage */
	fn_ask_page(&r, 7, 0, b, 1);
	f = fn_take(&r, AU_MSG_PAGES);
	assert_true(au_dec_pages(&f, &pages));
	assert_int_equal(au_page_lsn(pages.page[0]), b);
	H.vol.horizon = b;
	fn_ask_page(&r, 8, 0, a, 1);
	fn_take_error(&r, AU_GONE, "older than");
	FN_SEND(&r, au_enc_get_pages, 9, &bad);
	fn_take_error(&r, AU_INVALID, "malformed");
	H.vol.read_status = AU_CORRUPT;
	fn_ask_page(&r, 10, 0, 0, 1);
	fn_take_error(&r, AU_CORRUPT, "fake trouble");
	FN_SEND(&r, au_enc_list_rels, 11, &list);
	(void) fn_take(&r, AU_MSG_RELS);

	/* nobody waits for ever */
	fn_ask_page(&r, 12, c + 1, 0, 1);
	fn_run();
	H.now += AU_NODE_WAIT_US_MAX - 1;
	fn_run();
	fn_take_nothing(&r);
	H.now += 1;
	fn_run();
	fn_take_error(&r, AU_REFUSED, "was not applied within 60 s");
	assert_int_equal(fn_stats().expired, 1);
	fake_conn_end(&H, &w);
	fake_conn_end(&H, &r);
	fn_finish();
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
	(void) fn_open_writer(&w);
	end = fn_add_records(3);
	fn_append(&w, 10, 1, fn.wal_start, end, 0);
	fn_settle();
	(void) fn_take(&w, AU_MSG_APPEND_OK);
	for (int i = 0; i < 4; i++)
	{
		(void) fn_open(&idle[i], AU_ROLE_READER);
		fn_ask_page(&idle[i], 1, 0, 0, 128);
		fn_ask_page(&idle[i], 2, 0, 0, 128);
		assert_false(idle[i].reading);
		assert_true(idle[i].out_len < 1200 * 1024);
	}
	(void) fn_open(&late, AU_ROLE_READER);
	fn_ask_page(&late, 1, 0, 0, 1);
	fn_run();
	assert_int_equal(late.out_len, 0);
	assert_true(w.reading);

	/* one takes what it was sent, the others do not */
	H.now += AU_NODE_OUT_STUCK_US - 1;
	while (idle[0].out_len > 0)
		(void) fn_take(&idle[0], AU_MSG_PAGES);
	fn_run();
	fake_offer(&H, &idle[0], SIZE_MAX);
	fake_offer(&H, &late, SIZE_MAX);
	H.now++;
	fn_run();
	for (int i = 1; i < 4; i++)
	{
		assert_true(idle[i].closed);
		fake_conn_end(&H, &idle[i]);
	}
	assert_false(idle[0].closed);
	fn_run();
	fake_offer(&H, &late, SIZE_MAX);
	(void) fn_take(&late, AU_MSG_PAGES);
	fake_conn_end(&H, &late);
	fake_conn_end(&H, &idle[0]);
	fake_conn_end(&H, &w);
	fn_finish();
}

static AuMsgHoldOk
hold_at(FakeConn *c, uint64_t id, AuLsn lsn)
{
	AuMsgHold	m = {.lsn = lsn};
	AuMsgHoldOk ok;
	AuFrame		f;

	FN_SEND(c, au_enc_hold, id, &m);
	f = fn_take(c, AU_MSG_HOLD_OK);
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
	(void) fn_open_writer(&w);
	end = fn_add_records(3);
	fn_append(&w, 10, 1, fn.wal_start, end, 0);
	fn_settle();
	(void) fn_take(&w, AU_MSG_APPEND_OK);
	(void) fn_open(&a, AU_ROLE_READER);
	(void) fn_open(&b, AU_ROLE_READER);
	H.vol.horizon = 20;
	FN_SEND(&a, au_enc_hold, 1, &m);
	fn_take_error(&a, AU_GONE, "cannot be held");
	assert_int_equal(hold_at(&a, 2, end).horizon, 20);
	assert_int_equal(H.vol.hold, end);
	(void) hold_at(&b, 3, end - 8);
	assert_int_equal(H.vol.hold, end - 8);
	assert_int_equal(fn_stats().holds, 2);
	(void) hold_at(&b, 4, end + 8);
	assert_int_equal(H.vol.hold, end);
	fake_conn_end(&H, &a);
	assert_int_equal(H.vol.hold, end + 8);
	(void) hold_at(&b, 5, 0);
	assert_int_equal(H.vol.hold, 0);

	/* not more than so many */
	for (int i = 0; i < AU_NODE_HOLDS_MAX; i++)
	{
		(void) fn_open(&many[i], AU_ROLE_READER);
		(void) hold_at(&many[i], 6, end + (AuLsn) i);
	}
	m.lsn = end;
	FN_SEND(&b, au_enc_hold, 7, &m);
	fn_take_error(&b, AU_FULL, "hold old LSNs already");
	for (int i = 2; i < AU_NODE_HOLDS_MAX; i++)
		fake_conn_end(&H, &many[i]);

	/* one that keeps too much is broken, and told so when it reads */
	(void) hold_at(&many[1], 8, end + 4096);
	more = fn_add_records(100);
	assert_in_range(more, end + 4097, end + 8000);
	fn_append(&w, 11, 1, end, more, 0);
	fn_settle();
	assert_int_equal(fn_stats().holds_broken, 1);
	assert_int_equal(H.vol.hold, end + 4096);
	assert_non_null(strstr(H.last_log, "is broken"));
	H.vol.horizon = end + 100;
	fn_ask_page(&many[0], 9, 0, end, 1);
	fn_take_error(&many[0], AU_GONE, "is older than");
	fake_conn_end(&H, &many[0]);
	fake_conn_end(&H, &many[1]);
	assert_int_equal(H.vol.hold, 0);
	fake_conn_end(&H, &b);
	fake_conn_end(&H, &w);
	fn_finish();
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
	begin();
	(void) fn_open_writer(&w);
	end = fn_add_records(3);
	fn_append(&w, 10, 1, fn.wal_start, end, 0);
	fn_settle();
	(void) fn_take(&w, AU_MSG_APPEND_OK);
	(void) fn_open(&r, AU_ROLE_READER);
	for (int i = 0; i < 100; i++)
		fn_ask_page(&r, 100 + (uint64_t) i, end + 8, 0, 1);
	assert_false(r.reading);
	assert_int_equal(fn_stats().waiting, AU_NODE_CONN_WAITS_MAX);
	H.now += AU_NODE_WAIT_US_MAX;
	fn_run();
	assert_true(r.reading);
	fake_offer(&H, &r, SIZE_MAX);
	assert_int_equal(fn_stats().waiting, 100 - AU_NODE_CONN_WAITS_MAX);
	fake_conn_end(&H, &r);

	/* eight megabytes of answers that nobody takes */
	(void) fn_open(&r, AU_ROLE_READER);
	for (int i = 0; i < 20; i++)
		fn_ask_page(&r, 200 + (uint64_t) i, 0, 0, 128);
	assert_false(r.reading);
	assert_true(r.out_len < AU_NODE_CONN_OUT_MAX + 2 * 1024 * 1024);
	fn_run();
	assert_false(r.reading);
	while (r.out_len > 0)
		(void) fn_take(&r, AU_MSG_PAGES);
	fn_run();
	assert_true(r.reading);
	fake_offer(&H, &r, SIZE_MAX);
	while (r.out_len > 0)
		(void) fn_take(&r, AU_MSG_PAGES);
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

			FN_SEND(&w, au_enc_append, id++, &m);
			from += sizeof(zeros);
			(void) au_node_run(H.node);
		}
		assert_false(w.reading);
		assert_true(H.vol.log_end - H.vol.log_durable <= AU_NODE_UNSYNCED_MAX + AU_WIRE_APPEND_MAX);
	}
	fake_conn_end(&H, &w);
	fn_finish();
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
	begin();
	(void) fn_open_writer(&w);
	a = fn_add_records(4);
	fn_append(&w, 10, 1, fn.wal_start, a, 0);
	fn_settle();
	(void) fn_take(&w, AU_MSG_APPEND_OK);
	(void) fn_open(&r, AU_ROLE_READER);
	(void) fn_open(&gone, AU_ROLE_READER);
	H.vol.read_later = true;

	/* more is applied meanwhile, and others are answered first */
	fn_ask_page(&r, 1, a, 0, 1);
	fn_ask_page(&r, 2, a, 0, 2);
	fn_ask_page(&gone, 3, a, 0, 1);
	assert_int_equal(fn_stats().reading, 3);
	b = fn_add_records(4);
	fn_append(&w, 11, 1, a, b, 0);
	fn_settle();
	(void) fn_take(&w, AU_MSG_APPEND_OK);
	assert_int_equal(fn_stats().applied, b);
	fake_read_done(&H, 1);
	f = fn_take(&r, AU_MSG_PAGES);
	assert_int_equal(f.id, 2);
	assert_true(au_dec_pages(&f, &pages));
	assert_int_equal(pages.as_of, a);	/* one LSN, fixed at the start */
	assert_int_equal(au_page_lsn(pages.page[0]), a);

	/* nobody is left to be answered */
	fake_conn_end(&H, &gone);
	fake_read_done(&H, 1);
	fake_read_done(&H, 0);
	f = fn_take(&r, AU_MSG_PAGES);
	assert_int_equal(f.id, 1);

	/* the store is to be opened again: not before the reads are done */
	fn_ask_page(&r, 4, b, 0, 1);
	H.now += AU_NODE_PERSIST_US;
	fn_run();
	fake_write_done(&H, AU_IO);
	H.now += AU_NODE_RETRY_US;
	fn_run();
	assert_int_equal(H.vol.reopens, 0);
	fn_ask_page(&r, 5, b, 0, 1);	/* a new one does not start */
	assert_int_equal(H.vol.nreads, 1);
	fake_read_done(&H, 0);
	fn_run();
	assert_int_equal(H.vol.reopens, 1);
	f = fn_take(&r, AU_MSG_PAGES);
	assert_int_equal(f.id, 4);
	fn_settle();
	assert_int_equal(H.vol.nreads, 1);	/* what it needs is applied again */
	fake_read_done(&H, 0);
	f = fn_take(&r, AU_MSG_PAGES);
	assert_int_equal(f.id, 5);
	assert_true(au_dec_pages(&f, &pages));
	assert_true(pages.as_of >= b);

	/* readers may keep a store from freezing: the write comes after them */
	fake_conn_end(&H, &w);
	(void) fn_open_writer(&w);
	H.vol.refuse_freeze = true;
	H.now += AU_NODE_PERSIST_US;
	fn_run();
	assert_false(H.vol.writing);
	H.vol.refuse_freeze = false;
	fn_run();
	assert_true(H.vol.writing);
	fake_write_done(&H, AU_OK);

	/* a clean stop waits for them */
	fn_ask_page(&r, 6, b, 0, 1);
	au_node_stop(H.node);
	fake_conn_end(&H, &r);
	fake_conn_end(&H, &w);
	fn_run();
	assert_false(au_node_stopped(H.node));
	fake_read_done(&H, 0);
	fn_run();
	assert_true(au_node_stopped(H.node));
	fn_finish();
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
	begin();
	(void) fn_open_writer(&w);
	from = fn.wal_start;
	end = fn_add_records(8000);
	for (uint64_t id = 10; from < end; id++)
	{
		AuLsn		to = end - from < 100000 ? end : from + 100000;

		fn_append(&w, id, 1, from, to, 0);
		from = to;
	}
	H.vol.apply_cost_us = 1;
	fn_run();
	fake_sync_done(&H, AU_OK);
	do
	{
		uint64_t	start = H.now;

		(void) au_node_run(H.node);
		longest = H.now - start > longest ? H.now - start : longest;
		runs++;
	} while (fn_stats().applied < end && runs < 1000);
	assert_int_equal(fn_stats().applied, end);
	/* 64 kB are some 1,000 records of a microsecond each */
	assert_true(longest <= 2500);
	assert_true(runs >= 4 && runs <= 16);
	fake_conn_end(&H, &w);
	fn_finish();
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
	(void) fn_open_writer(&w);
	a = fn_add_records(4);
	fn_append(&w, 10, 1, fn.wal_start, a, 0);
	fn_settle();
	(void) fn_take(&w, AU_MSG_APPEND_OK);
	H.vol.read_later = true;
	for (int i = 0; i < 4; i++)
	{
		(void) fn_open(&r[i], AU_ROLE_READER);
		for (int k = 0; k < 12; k++, asked++)
			fn_ask_page(&r[i], 1, a, 0, 10);
	}
	/* 10 pages of 8 kB each, a megabyte together */
	assert_true(H.vol.nreads > 1 && H.vol.nreads <= 12);
	while (H.vol.nreads > 0)
	{
		fake_read_done(&H, H.vol.nreads / 2);
		for (int i = 0; i < 4; i++)
			for (; r[i].out_len > 0; answered++)
				(void) fn_take(&r[i], AU_MSG_PAGES);
		fn_run();
	}
	assert_int_equal(answered, asked);
	for (int i = 0; i < 4; i++)
		fake_conn_end(&H, &r[i]);
	fake_conn_end(&H, &w);
	fn_finish();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reads),
		cmocka_unit_test(test_answers_of_all),
		cmocka_unit_test(test_holds),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_reads_under_way),
		cmocka_unit_test(test_slices),
		cmocka_unit_test(test_reads_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
