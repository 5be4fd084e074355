/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_node_view.c: what a node says about its cluster's view, and what it does
 * with commands for it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/au_wire_cluster.h"
#include "tests/fakenode.h"
#include "tests/viewmake.h"

static void
begin(void)
{
	AuNodeOptions opt = {.node_id = 9};

	fake_host_start(&H, &opt);
}

static void
apply(AuView *v, AuViewCommand c)
{
	char		err[256];
	bool		changed;

	assert_int_equal(au_view_apply(v, &c, &changed, err, sizeof(err)), AU_OK);
}

static void
get_view(FakeConn *c, uint64_t epoch, AuMsgView *answer)
{
	AuMsgGetView m = {.epoch = epoch};
	AuFrame		f;

	FN_SEND(c, au_enc_get_view, 5, &m);
	f = fn_answer(c, AU_MSG_VIEW, 5);
	assert_true(au_dec_view(&f, answer));
}

static void
test_view(void **state)
{
	static AuView v,
				back;
	FakeConn	c;
	AuMsgView	m;

	(void) state;
	begin();
	assert_null(au_node_view(H.node));
	assert_int_equal(fn_open(&c, AU_ROLE_READER).ring_epoch, 0);
	get_view(&c, 0, &m);
	assert_int_equal(m.epoch, 0);
	assert_int_equal(m.length, 0);
	/* it is to join one: "none" would be believed for ever */
	au_node_in_cluster(H.node);
	FN_SEND(&c, au_enc_get_view, 6, &(AuMsgGetView) {0});
	fn_answer_error(&c, 6, AU_IO, "no view of its cluster yet");
	memset(&v, 0, sizeof(v));
	apply(&v, view_init(3));
	apply(&v, view_join(1, ""));
	assert_int_equal(au_node_set_view(H.node, &v), AU_OK);
	get_view(&c, 0, &m);
	assert_int_equal(m.epoch, 2);
	assert_true(au_view_decode(&back, m.bytes, m.length));
	assert_memory_equal(&back, &v, sizeof(v));
	get_view(&c, 2, &m);
	assert_int_equal(m.epoch, 2);
	assert_int_equal(m.length, 0);
	apply(&v, view_join(2, ""));
	assert_int_equal(au_node_set_view(H.node, &v), AU_OK);
	get_view(&c, 2, &m);
	assert_int_equal(m.epoch, 3);
	assert_true(m.length > 0);
	/* one that knows more than we do */
	get_view(&c, 9, &m);
	assert_int_equal(m.length, 0);
	fake_conn_end(&H, &c);
	assert_int_equal(fn_open(&c, AU_ROLE_READER).ring_epoch, 3);
	fake_conn_end(&H, &c);
	fn_finish();
}

/* Volumes of a cluster's nodes are made for groups that the view names. */
static void
test_volume_without_view(void **state)
{
	AuMsgVote	m = {.term = 1,.writer_id = 1,.timeline = 1,.wal_segment_size = 16 << 20,
		.start_lsn = 16 << 20,.may_create = 1,
		.group = {.n = 1,.write_quorum = 1,.members = {{.node_id = 9}}}
	};
	AuNodeStats stats;
	FakeConn	c;

	(void) state;
	begin();
	au_node_in_cluster(H.node);
	(void) fn_open(&c, AU_ROLE_WRITER);
	FN_SEND(&c, au_enc_vote, 3, &m);
	fn_answer_error(&c, 3, AU_MOVED, "has to name the nodes");
	au_node_stats(H.node, &stats);
	assert_int_equal(stats.volumes, 0);
	m.group.epoch = 1;
	FN_SEND(&c, au_enc_vote, 4, &m);
	(void) fn_answer(&c, AU_MSG_VOTE_OK, 4);
	fake_conn_end(&H, &c);
	fn_finish();
}

static void
send_command(FakeConn *c, uint64_t id, const AuViewCommand *command)
{
	uint8_t		bytes[AU_VIEW_COMMAND_MAX];
	AuMsgCluster m = {.hops = 1,.bytes = bytes};

	m.length = (uint32_t) au_view_command_encode(command, bytes, sizeof(bytes));
	FN_SEND(c, au_enc_cluster, id, &m);
}

static void
test_command(void **state)
{
	static AuView v;
	AuViewCommand drain = view_about(AU_VIEW_DRAIN, 3);
	AuCommandResult ok = {.status = AU_OK,.epoch = 12,.number = 3};
	AuCommandResult no = {.status = AU_REFUSED,.message = "no such luck",.hint = "Wait."};
	AuMsgCluster bad = {.length = 4,.bytes = (const uint8_t *) "what"};
	AuMsgClusterOk answer;
	uint64_t	first;
	FakeConn	c,
				reader;
	AuFrame		f;

	(void) state;
	begin();
	(void) fn_open(&c, AU_ROLE_ADMIN);
	send_command(&c, 7, &drain);
	fn_answer_error(&c, 7, AU_REFUSED, "in no cluster");
	au_node_in_cluster(H.node);
	send_command(&c, 7, &drain);
	fn_answer_error(&c, 7, AU_IO, "no view of its cluster yet");
	memset(&v, 0, sizeof(v));
	apply(&v, view_init(3));
	assert_int_equal(au_node_set_view(H.node, &v), AU_OK);
	(void) fn_open(&reader, AU_ROLE_READER);
	send_command(&reader, 8, &drain);
	fn_answer_error(&reader, 8, AU_INVALID, "only nodes and administrators");
	FN_SEND(&c, au_enc_cluster, 9, &bad);
	fn_answer_error(&c, 9, AU_INVALID, "malformed");
	/* answers in another order than questions */
	send_command(&c, 10, &drain);
	first = H.ticket;
	assert_int_equal(H.command.type, AU_VIEW_DRAIN);
	assert_int_equal(H.command.number, 3);
	assert_int_equal(H.command_hops, 1);
	send_command(&c, 11, &drain);
	assert_true(H.ticket != first);
	assert_int_equal(c.out_len, 0);
	au_node_command_done(H.node, H.ticket, &no);
	fn_answer_error(&c, 11, AU_REFUSED, "no such luck");
	au_node_command_done(H.node, first, &ok);
	f = fn_answer(&c, AU_MSG_CLUSTER_OK, 10);
	assert_true(au_dec_cluster_ok(&f, &answer));
	assert_int_equal(answer.epoch, 12);
	assert_int_equal(answer.number, 3);
	au_node_command_done(H.node, first, &ok);	/* nobody waits */
	assert_int_equal(c.out_len, 0);
	fake_conn_end(&H, &c);
	fake_conn_end(&H, &reader);
	fn_finish();
}

static void
test_command_bound(void **state)
{
	static AuView v;
	AuViewCommand drain = view_about(AU_VIEW_DRAIN, 3);
	AuCommandResult ok = {.status = AU_OK};
	FakeConn	c,
				other;

	(void) state;
	begin();
	memset(&v, 0, sizeof(v));
	apply(&v, view_init(3));
	assert_int_equal(au_node_set_view(H.node, &v), AU_OK);
	(void) fn_open(&c, AU_ROLE_NODE);
	(void) fn_open(&other, AU_ROLE_NODE);
	for (int i = 0; i < AU_NODE_COMMANDS_MAX; i++)
		send_command(&c, 100 + (uint64_t) i, &drain);
	send_command(&other, 7, &drain);
	fn_answer_error(&other, 7, AU_IO, "under way");
	/* who goes away is not answered, but what it asked for is still under way */
	fake_conn_end(&H, &c);
	send_command(&other, 8, &drain);
	fn_answer_error(&other, 8, AU_IO, "under way");
	au_node_command_done(H.node, H.ticket, &ok);
	send_command(&other, 9, &drain);
	assert_int_equal(other.out_len, 0);
	au_node_command_done(H.node, H.ticket, &ok);
	(void) fn_answer(&other, AU_MSG_CLUSTER_OK, 9);
	fake_conn_end(&H, &other);
	fn_finish();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_view),
		cmocka_unit_test(test_volume_without_view),
		cmocka_unit_test(test_command),
		cmocka_unit_test(test_command_bound),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
