/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_node.c: the node's state machine on a host in memory (fakehost.h): who
 * may write, what is acknowledged when, what is applied when, and what happens
 * when syncs, writes and logs fail.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/au_node_int.h"
#include "tests/fakenode.h"

static void
begin(bool alone)
{
	AuNodeOptions opt = {.node_id = 9,.alone = alone};

	fake_host_start(&H, &opt);
	fn_start_log(FN_BASE);
}

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
	t = fn_open_writer(&w);
	assert_int_equal(t.term, 1);
	assert_int_equal(t.received_lsn, fn.wal_start);
	a = fn_add_records(5);
	b = fn_add_records(5);
	c = fn_add_records(5);
	fn_append(&w, 10, 1, fn.wal_start, a, 0);
	fn_append(&w, 11, 1, a, b, 0);
	fn_run();
	fn_take_nothing(&w);
	assert_int_equal(H.vol.syncs, 1);
	assert_int_equal(H.vol.syncing_to, b);
	fn_append(&w, 12, 1, b, c, 0);
	fn_run();
	assert_int_equal(H.vol.syncs, 1);
	assert_int_equal(H.vol.ntaken, 0);
	fake_sync_done(&H, AU_OK);
	f = fn_take(&w, AU_MSG_APPEND_OK);
	assert_int_equal(f.id, 11);
	assert_true(au_dec_append_ok(&f, &ok));
	assert_int_equal(ok.durable_lsn, b);
	assert_int_equal(ok.received_lsn, c);
	fn_run();
	assert_int_equal(H.vol.ntaken, 10);
	assert_int_equal(H.vol.syncing_to, c);
	fn_take_nothing(&w);
	fake_sync_done(&H, AU_OK);
	f = fn_take(&w, AU_MSG_APPEND_OK);
	assert_int_equal(f.id, 12);
	fn_run();
	assert_int_equal(H.vol.ntaken, 15);
	/* sent again: skipped, acknowledged */
	fn_append(&w, 13, 1, a, c, 0);
	f = fn_take(&w, AU_MSG_APPEND_OK);
	assert_int_equal(f.id, 13);
	assert_int_equal(H.vol.log_end, c);
	fake_conn_end(&H, &w);
	fn_finish();
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
	(void) fn_open_writer(&w);
	H.vol.sync_inline = true;
	end = fn_add_records(5);
	fn_append(&w, 10, 1, fn.wal_start, end, 0);
	fn_take_nothing(&w);			/* the group may still grow */
	(void) au_node_run(H.node);
	assert_int_equal(H.vol.syncs, 1);
	f = fn_take(&w, AU_MSG_APPEND_OK);
	assert_int_equal(f.id, 10);
	assert_true(au_dec_append_ok(&f, &ok));
	assert_int_equal(ok.durable_lsn, end);
	/* sent before pages were looked at, which took place after it */
	assert_int_equal(ok.applied_lsn, fn.wal_start);
	assert_int_equal(H.vol.ntaken, 5);
	assert_int_equal(fn_stats().syncs, 1);

	H.vol.sync_status = AU_IO;
	fn_append(&w, 11, 1, end, fn_add_records(5), 0);
	(void) au_node_run(H.node);
	fn_take_nothing(&w);
	assert_non_null(strstr(H.fatal, "sync failed"));
	assert_int_equal(H.vol.ntaken, 5);
	fake_conn_end(&H, &w);
	fn_finish();
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
	fn.piece = 1;
	(void) fn_open_writer(&w);
	end = fn_add_records(20);
	fn_append(&w, 10, 1, fn.wal_start, end, 0);
	fn_settle();
	(void) fn_take(&w, AU_MSG_APPEND_OK);
	assert_int_equal(H.vol.ntaken, 20);
	(void) fn_open(&r, AU_ROLE_READER);
	FN_SEND(&r, au_enc_get_size, 3, &m);
	(void) fn_take(&r, AU_MSG_SIZE);
	fake_conn_end(&H, &w);
	fake_conn_end(&H, &r);
	fn_finish();
	fn.piece = SIZE_MAX;
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
	(void) fn_open_writer(&w);
	a = fn_add_records(5);
	b = fn_add_records(5);
	fn_append(&w, 10, 1, fn.wal_start, b, a);
	fn_settle();
	assert_int_equal(H.vol.ntaken, 5);
	assert_int_equal(fn_stats().applied, a);
	fn_append(&w, 11, 1, b, b, b);
	fn_settle();
	assert_int_equal(H.vol.ntaken, 10);
	fake_conn_end(&H, &w);
	fn_finish();
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
	(void) fn_open_writer(&w);
	a = fn_add_records(5);
	b = fn_add_records(5);
	fn_append(&w, 10, 1, fn.wal_start, b, a);
	fn_settle();
	f = fn_take(&w, AU_MSG_APPEND_OK);
	assert_int_equal(f.id, 10);

	fn_append(&w, 11, 1, b, b, a);
	f = fn_take(&w, AU_MSG_APPEND_OK);
	assert_int_equal(f.id, 11);
	assert_true(au_dec_append_ok(&f, &ok));
	assert_int_equal(ok.applied_lsn, a);
	fn_settle();
	fn_take_nothing(&w);

	/* a later append lets it be applied, before its own log is durable */
	fn_append(&w, 12, 1, b, fn_add_records(1), b);
	fn_settle();
	f = fn_take(&w, AU_MSG_APPEND_OK);
	assert_int_equal(f.id, 11);
	assert_true(au_dec_append_ok(&f, &ok));
	assert_int_equal(ok.applied_lsn, b);
	f = fn_take(&w, AU_MSG_APPEND_OK);
	assert_int_equal(f.id, 12);
	fn_take_nothing(&w);
	fake_conn_end(&H, &w);
	fn_finish();
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
	(void) fn_open(&a, AU_ROLE_WRITER);
	m = fn_usual_term();
	m.may_create = 0;
	FN_SEND(&a, au_enc_term, 2, &m);
	fn_take_error(&a, AU_REFUSED, "is not on this node");
	m = fn_usual_term();
	m.wal_segment_size = 12345;
	FN_SEND(&a, au_enc_term, 2, &m);
	fn_take_error(&a, AU_INVALID, "no usable start");

	/* not persisted, not granted */
	H.save_status = AU_IO;
	m = fn_usual_term();
	FN_SEND(&a, au_enc_term, 2, &m);
	fn_take_error(&a, AU_IO, "could not persist");
	end = fn_add_records(3);
	fn_append(&a, 3, 1, fn.wal_start, end, 0);
	fn_take_error(&a, AU_FENCED, "");
	H.save_status = AU_OK;
	t = fn_get_term(&a);
	assert_int_equal(t.term, 1);
	assert_int_equal(H.saved_term, 1);

	/* while the first one's log is being synced, the second waits */
	fn_append(&a, 4, 1, fn.wal_start, end, 0);
	fn_run();
	assert_true(H.vol.syncing_to != 0);
	(void) fn_open(&b, AU_ROLE_WRITER);
	m = fn_usual_term();
	FN_SEND(&b, au_enc_term, 5, &m);
	fn_run();
	fn_take_nothing(&b);
	assert_false(b.reading);
	fake_sync_done(&H, AU_OK);
	(void) fn_take(&a, AU_MSG_APPEND_OK);
	fn_run();
	{
		AuFrame		f = fn_take(&b, AU_MSG_TERM_OK);

		assert_true(au_dec_term_ok(&f, &t));
	}
	assert_int_equal(t.term, 2);
	assert_int_equal(t.received_lsn, end);
	assert_true(b.reading);
	fn_append(&a, 6, 1, end, end, 0);
	fn_take_error(&a, AU_FENCED, "another writer");

	/* refusals */
	m = fn_usual_term();
	m.local_end = end - 1;
	FN_SEND(&a, au_enc_term, 7, &m);
	fn_take_error(&a, AU_REFUSED, "before what storage has acknowledged");
	m = fn_usual_term();
	m.timeline = 3;
	m.switch_lsn = end;
	FN_SEND(&a, au_enc_term, 8, &m);
	(void) fn_take(&a, AU_MSG_TERM_OK);
	m = fn_usual_term();
	m.timeline = 2;
	m.switch_lsn = end;
	FN_SEND(&b, au_enc_term, 9, &m);
	fn_take_error(&b, AU_REFUSED, "timeline 3 already");
	/* readers do not write */
	fake_conn_end(&H, &b);
	(void) fn_open(&b, AU_ROLE_READER);
	FN_SEND(&b, au_enc_term, 10, &m);
	fn_take_error(&b, AU_INVALID, "only a writer");
	fake_conn_end(&H, &a);
	fake_conn_end(&H, &b);
	fn_finish();
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
	(void) fn_open_writer(&w);
	a = fn_add_records(5);
	for (int i = 0; i < 5; i++)
		walmake_main(&fn.wal, 0, 0x30, 0, "checkpoint or so", 16);
	b = walmake_pos(&fn.wal);
	fn_append(&w, 3, 1, fn.wal_start, b, 0);
	fn_settle();
	(void) fn_take(&w, AU_MSG_APPEND_OK);
	assert_int_equal(fn_stats().applied, b);

	m = fn_usual_term();
	m.timeline = 2;
	m.switch_lsn = a - 8;
	FN_SEND(&w, au_enc_term, 4, &m);
	fn_take_error(&w, AU_REFUSED, "left the old one");

	m.switch_lsn = a;
	H.node->vols[0]->importing = true;	/* the store is in the hands of another thread */
	FN_SEND(&w, au_enc_term, 5, &m);
	fn_run();
	fn_take_nothing(&w);
	assert_false(H.vol.writing);
	H.node->vols[0]->importing = false;
	fn_run();
	fn_take_nothing(&w);		/* the store's lower position first */
	assert_true(H.vol.writing && H.vol.write_persist);
	assert_int_equal(H.vol.frozen_applied, a);
	assert_int_equal(H.vol.log_end, b);
	fake_write_done(&H, AU_OK);
	fn_run();
	assert_int_equal(H.vol.log_end, a);
	fn_run();
	f = fn_take(&w, AU_MSG_TERM_OK);
	assert_true(au_dec_term_ok(&f, &t));
	assert_int_equal(t.received_lsn, a);
	assert_int_equal(t.applied_lsn, a);
	fake_conn_end(&H, &w);
	fn_finish();
}

/* Full disk, both kinds: the log's and the store's. */
static void
test_disk_full(void **state)
{
	FakeConn	w,
				r,
				other;
	AuMsgTerm	m = fn_usual_term();
	AuMsgTermOk t;
	AuLsn		a,
				b,
				c;

	(void) state;
	begin(true);
	(void) fn_open_writer(&w);
	a = fn_add_records(5);
	b = fn_add_records(5);
	c = fn_add_records(5);
	fn_append(&w, 10, 1, fn.wal_start, a, 0);
	fn_settle();
	(void) fn_take(&w, AU_MSG_APPEND_OK);
	H.vol.append_status = AU_FULL;
	fn_append(&w, 11, 1, a, b, 0);
	fn_take_error(&w, AU_FULL, "no room");
	fn_append(&w, 12, 1, b, c, 0);
	fn_take_error(&w, AU_FULL, "before this one");
	assert_string_equal(fn_stats().state, "disk full");
	H.vol.append_status = AU_OK;
	fn_append(&w, 13, 1, a, b, 0);
	fn_settle();
	(void) fn_take(&w, AU_MSG_APPEND_OK);
	assert_string_equal(fn_stats().state, "ok");

	/* the store: what was in memory is applied again from the log */
	H.now += AU_NODE_PERSIST_US;
	fn_run();
	assert_true(H.vol.writing);
	fake_write_done(&H, AU_FULL);
	fn_run();
	assert_string_equal(fn_stats().state, "store stalled");
	(void) fn_open(&r, AU_ROLE_READER);
	fn_ask_page(&r, 20, b, 0, 1);	/* memory still has it */
	(void) fn_take(&r, AU_MSG_PAGES);
	fn_append(&w, 14, 1, b, c, 0);	/* and the log takes more */
	fn_settle();
	(void) fn_take(&w, AU_MSG_APPEND_OK);
	assert_int_equal(fn_stats().applied, b);
	H.vol.reopen_status = AU_IO;
	H.now += AU_NODE_RETRY_US;
	fn_run();
	fn_ask_page(&r, 21, b, 0, 1);	/* closed: reads wait */
	fn_run();
	fn_take_nothing(&r);
	(void) fn_open(&other, AU_ROLE_WRITER);	/* ... and who wants to cut log off */
	m.timeline = 2;
	m.switch_lsn = a;
	FN_SEND(&other, au_enc_term, 22, &m);
	fn_run();
	fn_take_nothing(&other);
	H.vol.reopen_status = AU_OK;
	H.now += AU_NODE_RETRY_US;
	fn_run();
	assert_int_equal(H.vol.reopens, 1);
	assert_int_equal(H.vol.ntaken, 15);
	assert_string_equal(fn_stats().state, "ok");
	(void) fn_take(&r, AU_MSG_PAGES);
	fn_run();
	fn_take_error(&other, AU_REFUSED, "left the old one");
	fake_conn_end(&H, &other);
	assert_true(w.closed);		/* positions never go back on a connection */
	fake_conn_end(&H, &w);
	t = fn_open_writer(&w);
	assert_int_equal(t.received_lsn, c);
	fake_conn_end(&H, &w);
	fake_conn_end(&H, &r);
	fn_finish();
}

/* Positions are persisted by time, and the log is cut below them. */
static void
test_persist_and_trim(void **state)
{
	FakeConn	w;
	AuLsn		end;

	(void) state;
	begin(true);
	(void) fn_open_writer(&w);
	end = fn_add_records(50);
	fn_append(&w, 10, 1, fn.wal_start, end, 0);
	fn_settle();
	assert_false(H.vol.writing);
	H.now += AU_NODE_PERSIST_US;
	fn_run();
	assert_true(H.vol.writing && H.vol.write_persist);
	assert_int_equal(H.vol.frozen_applied, end);
	assert_true(H.vol.trimmed <= fn.wal_start);
	fake_write_done(&H, AU_OK);
	fn_run();
	/* but for what a server that comes back is compared with */
	assert_int_equal(H.vol.trimmed, end - AU_VOLUME_COMPARE_BYTES);
	/* nothing new: nothing to write */
	H.now += 10 * AU_NODE_PERSIST_US;
	fn_run();
	assert_int_equal(H.vol.writes, 1);
	/* a clean stop writes the rest */
	{
		AuLsn		more = fn_add_records(5);

		fn_append(&w, 11, 1, end, more, 0);
		fn_settle();
		au_node_stop(H.node);
		assert_true(w.closed);
		fn_run();
		assert_false(au_node_stopped(H.node));
		assert_true(H.vol.writing);
		fake_write_done(&H, AU_OK);
		fn_run();
		assert_true(au_node_stopped(H.node));
		assert_int_equal(H.vol.persisted_applied, more);
	}
	fake_conn_end(&H, &w);
	fn_finish();
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
	(void) fn_open_writer(&w);
	end = fn_add_records(5);
	fn_append(&w, 10, 1, fn.wal_start, end, 0);
	fn_run();
	fake_sync_done(&H, AU_IO);
	assert_non_null(strstr(H.fatal, "sync failed"));
	fn_take_nothing(&w);
	assert_true(au_node_run(H.node) == UINT64_MAX);
	fake_conn_end(&H, &w);
	fn_finish();

	begin(true);
	(void) fn_open_writer(&w);
	end = fn_add_records(5);
	H.vol.apply_status = AU_INVALID;
	fn_append(&w, 10, 1, fn.wal_start, end, 0);
	fn_settle();
	assert_non_null(strstr(H.fatal, "fake trouble"));
	fake_conn_end(&H, &w);
	fn_finish();

	/* damaged log: this volume takes no more, and says so */
	begin(true);
	(void) fn_open_writer(&w);
	a = fn_add_records(5);
	end = fn_add_records(5);
	fn.wal.buf[a - fn.wal.base + 30] ^= 1;
	(void) fn_open(&r, AU_ROLE_READER);
	fn_ask_page(&r, 5, end, 0, 1);
	fn_append(&w, 10, 1, fn.wal_start, end, 0);
	fn_settle();
	(void) fn_take(&w, AU_MSG_APPEND_OK);
	fn_take_error(&r, AU_CORRUPT, "cannot be applied");
	assert_string_equal(fn_stats().state, "failed");
	fn_append(&w, 11, 1, end, end, 0);
	fn_take_error(&w, AU_CORRUPT, "");
	fn_ask_page(&r, 6, a, 0, 1);	/* what is below is still there */
	(void) fn_take(&r, AU_MSG_PAGES);
	assert_int_equal(H.fatal[0], 0);
	fake_conn_end(&H, &w);
	fake_conn_end(&H, &r);
	fn_finish();
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
		cmocka_unit_test(test_disk_full),
		cmocka_unit_test(test_persist_and_trim),
		cmocka_unit_test(test_fatal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
