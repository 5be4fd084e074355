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
#include "store/au_pagestore.h"
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

/* ---- damage ---------------------------------------------------------------- */

typedef enum Damage
{
	FLIP_MIDDLE,				/* of the largest file of page versions */
	FLIP_END,					/* its index, its footer */
	CUT,						/* half of it is missing */
	REMOVE,
	FLIP_MANIFEST,
	NO_CURRENT,					/* RocksDB would begin an empty store */
	DAMAGES
} Damage;

/* Of a node that does not run. */
static void
damage(int i, Damage what)
{
	char		dir[600];
	TestFile	f;

	snprintf(dir, sizeof(dir), "%s/volumes/%llu/pages", tc[i].dir, (unsigned long long) TC_SYSID);
	f = testdir_largest(dir, what == FLIP_MANIFEST ? "MANIFEST" : ".sst");
	assert_true(f.size > 100);
	switch (what)
	{
		case FLIP_END:
			for (off_t k = 1; k < 50; k++)
				assert_true(testdir_flip(f.path, f.size - k, 1));
			break;
		case CUT:
			assert_int_equal(truncate(f.path, f.size / 2), 0);
			break;
		case NO_CURRENT:
			snprintf(f.path, sizeof(f.path), "%s/CURRENT", dir);
			assert_int_equal(unlink(f.path), 0);
			break;
		case REMOVE:
			assert_int_equal(unlink(f.path), 0);
			break;
		default:
			assert_true(testdir_flip(f.path, f.size / 2, 1));
	}
}

/* ---- reading --------------------------------------------------------------- */

static Client reader[TC_NODES];

static void
readers_open(void)
{
	for (int i = 0; i < TC_NODES; i++)
	{
		AuMsgHelloOk hello;

		snprintf(tn.sock, sizeof(tn.sock), "%s", tc[i].sock);
		testnode_hello(&reader[i], AU_ROLE_READER, TC_SYSID, &hello);
	}
}

static void
readers_close(void)
{
	for (int i = 0; i < TC_NODES; i++)
		client_close(&reader[i]);
}

/* AU_OK, AU_NOT_FOUND with a page of zeros, or the error's status. */
static AuStatus
read_page(int i, uint32_t blk, AuLsn lsn, uint8_t *page)
{
	static AuMsgPages pages;
	AuMsgGetPages m = {
		.rel = {1663, 5, REL, 0},.read_lsn = lsn,.nblocks = 1,.blocks = {blk},
		.not_before = lsn == 0 ? tn.wal.last_end : 0
	};
	AuFrame		f;
	AuMsgError	e;

	memset(page, 0, AU_PAGE_SIZE);
	assert_true(CLIENT_SEND(&reader[i], au_enc_get_pages, &m));
	assert_true(client_receive(&reader[i], &f, 70000));
	if (f.type == AU_MSG_ERROR)
	{
		assert_true(au_dec_error(&f, &e));
		return (AuStatus) e.status;
	}
	assert_true(au_dec_pages(&f, &pages));
	if (pages.status[0] == AU_OK)
		memcpy(page, pages.page[0], AU_PAGE_SIZE);
	return (AuStatus) pages.status[0];
}

/* The same bytes on node i as on node k, at this LSN (0: newest); `refused`
 * counts those that node i refuses as damaged. */
static void
compare_nodes(int i, int k, AuLsn lsn, int *refused)
{
	static uint8_t ours[AU_PAGE_SIZE],
				theirs[AU_PAGE_SIZE];

	for (uint32_t b = 0; b < BLOCKS; b++)
	{
		AuStatus	x = read_page(i, b, lsn, ours);
		AuStatus	y = read_page(k, b, lsn, theirs);

		if (x == AU_CORRUPT)
		{
			(*refused)++;
			continue;
		}
		if (x != y || memcmp(ours, theirs, AU_PAGE_SIZE) != 0)
			fail_msg("block %u at %X/%X: node %d says %s, node %d %s", b, AU_LSN_ARGS(lsn), i,
					 au_status_name(x), k, au_status_name(y));
	}
}

static void
note_problem(void *ctx, const char *problem)
{
	(void) ctx;
	fail_msg("the check says: %s", problem);
}

static void
check_offline(int i)
{
	char		dir[600];
	char		err[512];
	AuPageStoreCheck out;

	snprintf(dir, sizeof(dir), "%s/volumes/%llu/pages", tc[i].dir, (unsigned long long) TC_SYSID);
	if (au_pagestore_check(dir, note_problem, NULL, &out, err, sizeof(err)) != AU_OK)
		fail_msg("check of node %d: %s", i, err);
	assert_int_equal(out.problems, 0);
}

/* The relation is cut to so many blocks. */
static AuLsn
add_truncation(uint32_t nblocks)
{
	AuRecMain	m = {
		.flags = AU_REC_TRUNCATE,.truncate_rel = {1663, 5, REL, 0},.truncate_nblocks = nblocks
	};
	uint8_t		bytes[AU_REC_MAIN_MAX];

	walmake_main(&tn.wal, AU_RMGR_ID, AU_XLOG_TRUNCATE, 77, bytes,
				 (uint32_t) au_rec_main_encode(bytes, &m));
	return tn.wal.last_end;
}

/*
 * Pages changed again and again; then blocks are cut off, and only some of
 * them come back: what was in the others before must not.  lsns: moments to
 * read at.
 */
static void
load_history(AuLsn lsns[6])
{
	tn.rng = 7;
	testnode_start_log((AuLsn) 0x1000000);
	start_all();
	for (uint32_t b = 0; b < BLOCKS; b++)
		add_record(b);
	lsns[0] = tn.wal.last_end;
	tc_elect();
	tc_ship();
	for (int k = 0; k < 600; k++)
		add_record(testnode_rnd(BLOCKS));
	lsns[1] = tn.wal.last_end;
	lsns[2] = add_truncation(BLOCKS / 3);
	add_record(BLOCKS - 1);
	lsns[3] = tn.wal.last_end;
	for (int k = 0; k < 200; k++)
		add_record(testnode_rnd(BLOCKS / 2));
	lsns[4] = tn.wal.last_end;
	lsns[5] = 0;
	tc_ship();
}

static void
stop_all(void)
{
	for (int i = 0; i < TC_NODES; i++)
		if (tc[i].pid > 0)
			assert_int_equal(tc_end(i, SIGTERM), 0);
}

/* One node got other log: its pages differ, and all are sound. */
static void
test_wrong_page(void **state)
{
	WalMake		right,
				wrong;
	AuLsn		at;
	int			refused = 0;

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

	/* the page is taken from the others */
	tc_wait_figure(2, "repairs", 1);
	tc_tell_commit();
	readers_open();
	compare_nodes(2, 0, 0, &refused);
	assert_int_equal(refused, 0);
	readers_close();
	stop_all();
}

/* Each kind of damage: never served, found, mended; then the same history. */
static void
test_damage(void **state)
{
	AuLsn		lsns[6];
	int			refused = 0;

	(void) state;
	load_history(lsns);
	tc_writers_close();
	for (int what = 0; what < DAMAGES; what++)
	{
		assert_int_equal(tc_end(1, SIGTERM), 0);
		damage(1, (Damage) what);
		tc_start(1, "--anti-entropy-mb-per-s=500", "--scrub-mb-per-s=100");
		tc_tell_commit();
		readers_open();
		for (int k = 0; k < 6; k++)
			compare_nodes(1, 0, lsns[k], &refused);
		tc_wait_figure(1, "repairs", 1);
		assert_true(tc_log_has(1, "the page store was made anew from other nodes"));
		refused = 0;
		for (int k = 0; k < 6; k++)
			compare_nodes(1, 0, lsns[k], &refused);
		assert_int_equal(refused, 0);
		readers_close();
		assert_int_equal(tc_figure(1, "scrub_damaged"), 0);
		assert_int_equal(truncate(tc[1].log, 0), 0);
	}

	/* the writer goes on, and the nodes agree */
	tc_elect();
	for (int k = 0; k < 300; k++)
		add_record(testnode_rnd(BLOCKS));
	tc_ship();
	tc_writers_close();
	readers_open();
	compare_nodes(1, 2, 0, &refused);
	assert_int_equal(refused, 0);
	readers_close();
	stop_all();
	for (int i = 0; i < TC_NODES; i++)
		check_offline(i);
}

/* Killed in the middle of it, more than once. */
static void
test_killed(void **state)
{
	AuLsn		lsns[6];
	int			refused = 0;

	(void) state;
	load_history(lsns);
	tc_writers_close();
	assert_int_equal(tc_end(1, SIGTERM), 0);
	damage(1, FLIP_MIDDLE);
	for (int k = 0; k < 6; k++)
	{
		tc_start(1, "--anti-entropy-mb-per-s=500", "--scrub-mb-per-s=100");
		for (int wait = 0; wait < 200 && tc_figure(1, "repair_damages") < 1; wait++)
			usleep(10 * 1000);
		usleep((useconds_t) (k * 60 * 1000));
		tc_end(1, SIGKILL);
	}
	tc_start(1, "--anti-entropy-mb-per-s=500", "--scrub-mb-per-s=100");
	tc_tell_commit();
	tc_wait_figure(1, "scrub_passes", 1);
	for (int k = 0; k < 600 && tc_figure(1, "scrub_damaged") > 0; k++)
		usleep(100 * 1000);
	assert_int_equal(tc_figure(1, "scrub_damaged"), 0);
	readers_open();
	for (int k = 0; k < 6; k++)
		compare_nodes(1, 2, lsns[k], &refused);
	assert_int_equal(refused, 0);
	readers_close();
	stop_all();
	check_offline(1);
}

/* Nobody looks for damage; a merge of files meets it. */
static void
test_compaction(void **state)
{
	AuLsn		lsns[6];
	int			refused = 0;
	char		command[600];

	(void) state;
	load_history(lsns);
	tc_writers_close();
	assert_int_equal(tc_end(1, SIGTERM), 0);
	damage(1, FLIP_MIDDLE);
	tc_elect();
	for (int k = 0; k < 25000; k++)
		add_record(testnode_rnd(BLOCKS));
	tc_ship();
	tc_writers_close();
	tc_start(1, "--anti-entropy-mb-per-s=0", "--scrub-mb-per-s=0");
	tc_tell_commit();			/* it gets the log from the others */
	tc_wait_figure(1, "repairs", 1);
	assert_true(tc_log_has(1, "could not write page versions.*: Corruption: .*; the page store is opened again in 2 s"));
	snprintf(command, sizeof(command), "test $(grep -c ERROR %s) -lt 20", tc[1].log);
	assert_int_equal(system(command), 0);
	tc_tell_commit();
	readers_open();
	compare_nodes(1, 0, 0, &refused);
	assert_int_equal(refused, 0);
	readers_close();
	stop_all();
	check_offline(1);
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
		cmocka_unit_test_setup_teardown(test_damage, setup, teardown),
		cmocka_unit_test_setup_teardown(test_killed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_compaction, setup, teardown),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
