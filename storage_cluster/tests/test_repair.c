/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_repair.c: three real daemons with one volume: what differs between them
 * is found, reported, and mended from the others.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/au_page.h"
#include "tests/testcluster.h"

#define REL 16390u
#define BLOCKS 700u

/* What each block's page has at byte 6000. */
static uint8_t fill[BLOCKS];
static uint8_t last_bytes[1500];	/* of the record made last */

static void
add_record(uint32_t blk)
{
	static uint8_t memory[AU_OPS_MAX];
	AuOps		ops;

	for (size_t i = 0; i < sizeof(last_bytes); i++)
		last_bytes[i] = (uint8_t) testnode_rnd(256);
	fill[blk] = last_bytes[0];
	au_ops_start(&ops, memory, sizeof(memory));
	au_ops_init(&ops, 4000);
	au_ops_patch(&ops, 6000, sizeof(last_bytes), last_bytes);
	walmake_ours(&tn.wal, REL, blk, ops.data, (uint16_t) ops.len);
}

static void
start_all(void)
{
	for (int i = 0; i < TC_NODES; i++)
		tc_start(i, "--anti-entropy-mb-per-s=500", "--scrub-mb-per-s=100");
}

/* One node got other log: its pages differ, and all are sound. */
static void
test_wrong_page(void **state)
{
	WalMake		right,
				wrong;
	AuLsn		at;

	(void) state;
	tn.rng = 5;
	testnode_start_log((AuLsn) 0x1000000);
	start_all();
	for (uint32_t b = 0; b < BLOCKS; b++)
		add_record(b);
	tc_elect();
	tc_ship();
	for (int i = 0; i < TC_NODES; i++)
	{
		tc_wait_figure(i, "sync_passes", 1);
		assert_int_equal(tc_figure(i, "sync_differences"), 0);
		assert_true(tc_figure(i, "sync_slices") >= 256);
	}

	/* node 2 takes another byte in a change of block 300 */
	right = tn.wal;
	right.buf = malloc(right.cap);
	memcpy(right.buf, tn.wal.buf, tn.wal.len);
	at = walmake_pos(&tn.wal);
	add_record(300);
	wrong = tn.wal;
	tn.wal = right;
	tn.rng = 99;
	add_record(300);
	assert_int_equal(wrong.len, tn.wal.len);
	right = tn.wal;
	tn.wal = wrong;
	(void) tc_append(2, wrong.buf + (at - wrong.base), (uint32_t) (wrong.base + wrong.len - at), 0);
	tc[2].shipped = wrong.base + wrong.len;
	tn.wal = right;
	tc_ship();
	free(wrong.buf);
	tc_writers_close();
	for (int i = 0; i < TC_NODES; i++)
		assert_int_equal(tc_end(i, SIGTERM), 0);
	start_all();
	for (int i = 0; i < TC_NODES; i++)
		tc_wait_figure(i, "sync_passes", 1);
	tc_wait_figure(2, "sync_differences", 1);
	assert_int_equal(tc_figure(2, "sync_unresolved"), 0);
	assert_true(tc_log_has(2, "block 300 of relation 1663/5/16390 at .* this one is wrong, a third node has what the other one has"));
	for (int i = 0; i < TC_NODES; i++)
		assert_int_equal(tc_end(i, SIGTERM), 0);
}

static int
setup(void **state)
{
	(void) state;
	tc_setup("repair");
	return 0;
}

static int
teardown(void **state)
{
	(void) state;
	tc_teardown();
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_wrong_page, setup, teardown),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
