/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_node_gossip.c: what a node says to GOSSIP, what its marks are, whom the
 * view makes it look for, and what it tells its host.  That many of them find
 * each other over bad networks is test_gossip's and the simulator's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/au_node_gossip.h"
#include "tests/fakenode.h"
#include "tests/viewmake.h"

static AuMsgGossip in;
static int	dead;
static uint64_t heard_epoch;
static char heard_at[AU_ADDRESS_MAX];

static void
opinion(void *ctx, const AuGossipMember *m, uint8_t was)
{
	(void) ctx;
	(void) was;
	dead += m->r.state == AU_GOSSIP_DEAD;
}

static void
newer_view(void *ctx, uint64_t epoch, const char *address)
{
	(void) ctx;
	heard_epoch = epoch;
	snprintf(heard_at, sizeof(heard_at), "%s", address);
}

static void
disk(void *ctx, uint64_t *used, uint64_t *limit)
{
	(void) ctx;
	*used = 11;
	*limit = 22;
}

static void
begin(FakeConn *c, uint8_t role, bool gossip)
{
	AuNodeOptions opt = {.node_id = 9};
	AuNodeGossipHost host = {NULL, opinion, newer_view, disk};
	AuGossipOptions g = {.address = "me:1",.start = 500,.seed = 1};
	AuMsgHello	m = {.role = role,.name = "x"};

	dead = 0;
	heard_epoch = 0;
	fake_host_start(&H, &opt);
	if (gossip)
		assert_int_equal(au_node_gossip_start(H.node, &host, &g), AU_OK);
	fake_conn_open(&H, c);
	FN_SEND(c, au_enc_hello, 1, &m);
	(void) fn_take(c, AU_MSG_HELLO_OK);
}

static void
finish(FakeConn *c)
{
	fake_conn_end(&H, c);
	fn_finish();
}

static AuMsgGossip
ping(uint64_t cluster_id)
{
	AuMsgGossip m = {.kind = AU_GOSSIP_PING,.cluster_id = cluster_id,
		.self = {77, 400, AU_GOSSIP_ALIVE, "other:1"},.nmarks = 1,
		.marks = {{.node_id = 77,.heartbeat = 400,.view_epoch = 8}}
	};

	return m;
}

static void
test_not_for_everybody(void **state)
{
	FakeConn	c;
	AuMsgGossip m = ping(0);

	(void) state;
	begin(&c, AU_ROLE_NODE, false);
	FN_SEND(&c, au_enc_gossip, 2, &m);
	fn_take_error(&c, AU_REFUSED, "in no cluster");
	assert_null(au_node_gossip(H.node));
	assert_false(au_node_gossip_seed(H.node, "a:1"));
	finish(&c);
	begin(&c, AU_ROLE_READER, true);
	FN_SEND(&c, au_enc_gossip, 2, &m);
	fn_take_error(&c, AU_INVALID, "not from a node");
	finish(&c);
}

static void
test_answers(void **state)
{
	FakeConn	c;
	AuMsgGossip m = ping(0);
	AuFrame		f;
	uint64_t	wait;

	(void) state;
	begin(&c, AU_ROLE_NODE, true);
	wait = au_node_run(H.node);
	assert_in_range(wait, 1, AU_GOSSIP_PERIOD_US);
	FN_SEND(&c, au_enc_gossip, 7, &m);
	f = fn_take(&c, AU_MSG_GOSSIP_OK);
	assert_int_equal(f.id, 7);
	assert_true(au_dec_gossip_ok(&f, &in));
	assert_int_equal(in.self.node_id, 9);
	assert_int_equal(in.self.incarnation, 500);
	assert_string_equal(in.self.address, "me:1");
	assert_int_equal(in.marks[0].node_id, 9);
	assert_int_equal(in.marks[0].disk_used, 11);
	assert_int_equal(in.marks[0].disk_limit, 22);
	assert_int_equal(au_gossip_find(au_node_gossip(H.node), 77)->r.state, AU_GOSSIP_ALIVE);
	/* its newer view is told to the host */
	H.now += AU_GOSSIP_PERIOD_US;
	(void) au_node_run(H.node);
	assert_int_equal(heard_epoch, 8);
	assert_string_equal(heard_at, "other:1");
	/* PROXY: nobody answers, so the answer comes when time is up */
	m.kind = AU_GOSSIP_PROXY;
	m.target = (AuGossipRecord) {88, 0, AU_GOSSIP_ALIVE, "gone:1"};
	FN_SEND(&c, au_enc_gossip, 8, &m);
	assert_int_equal(c.out_len, 0);
	H.now += AU_GOSSIP_PERIOD_US;
	(void) au_node_run(H.node);
	f = fn_take(&c, AU_MSG_GOSSIP_OK);
	assert_int_equal(f.id, 8);
	assert_true(au_dec_gossip_ok(&f, &in));
	assert_int_equal(in.reached, 0);
	assert_int_equal(in.target.node_id, 88);
	/* and goes nowhere if the connection is gone */
	FN_SEND(&c, au_enc_gossip, 9, &m);
	fake_conn_end(&H, &c);
	H.now += AU_GOSSIP_PERIOD_US;
	(void) au_node_run(H.node);
	fn_finish();
}

/* The view's nodes are looked for; those that are not there are dead. */
static void
test_view(void **state)
{
	static AuView v;
	FakeConn	c;
	AuMsgGossip m = ping(5);
	AuViewCommand commands[] = {view_init(3), view_join(1, ""), view_join(2, "")};
	char		err[256];
	bool		is_new;

	(void) state;
	memset(&v, 0, sizeof(v));
	begin(&c, AU_ROLE_NODE, true);
	for (int i = 0; i < 3; i++)
		assert_int_equal(au_view_apply(&v, &commands[i], &is_new, err, sizeof(err)), AU_OK);
	assert_int_equal(au_node_set_view(H.node, &v), AU_OK);
	/* of another cluster */
	FN_SEND(&c, au_enc_gossip, 2, &m);
	fn_take_error(&c, AU_REFUSED, "another cluster");
	assert_int_equal(au_node_gossip(H.node)->nmembers, 2);
	for (int i = 0; i < 200; i++)
	{
		H.now += AU_GOSSIP_PERIOD_US / 10;
		(void) au_node_run(H.node);
	}
	assert_int_equal(dead, 2);
	finish(&c);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_not_for_everybody),
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_view),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
