/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_golden_dir.c: a daemon of this build starts from a node's directory
 * that an earlier one left (tests/golden/node.tar.gz), and serves what is in it.
 *
 * That node kept a volume alone, made a cluster of one, was given a value for
 * a key, stopped cleanly, took more log and was killed: so its page store, its
 * landing log, its view and consensus log, and its key-value store all count.
 * The log is made here anew by the same rule, with each page after each record.
 *
 * With the argument --write the directory is made (tests/golden/README).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cluster/au_view.h"
#include "common/au_page.h"
#include "common/au_wire_cluster.h"
#include "common/au_wire_kv.h"
#include "tests/testnode.h"

#define ARCHIVE "tests/golden/node.tar.gz"
#define SYSID UINT64_C(7123456789012345999)
#define BASE ((AuLsn) 0x3000000)
#define REL 16384u
#define BLOCKS 6
#define RECORDS 80				/* of the directory; as many follow in the test */
#define KEY "golden"
#define VALUE "what was put"

static struct
{
	AuLsn		lsn;
	uint8_t		page[BLOCKS][AU_PAGE_SIZE];
} model[2 * RECORDS + 1];		/* [n]: after n records */

static bool writing;

/* ---- the log ---------------------------------------------------------------- */

static void
add_record(int i)
{
	uint32_t	blk = (uint32_t) i % BLOCKS;
	uint8_t		memory[256];
	uint8_t		bytes[60];
	AuOps		ops;

	memset(bytes, 1 + i, sizeof(bytes));
	au_ops_start(&ops, memory, sizeof(memory));
	if (i < BLOCKS)
		au_ops_init(&ops, 4000);
	au_ops_patch(&ops, (uint16_t) (5000 + i * 7), sizeof(bytes), bytes);
	walmake_ours(&tn.wal, REL, blk, ops.data, (uint16_t) ops.len);
	model[i + 1] = model[i];
	model[i + 1].lsn = tn.wal.last_end;
	assert_int_equal(au_page_apply(model[i + 1].page[blk], ops.data, ops.len, NULL), AU_OK);
	au_page_set_lsn(model[i + 1].page[blk], tn.wal.last_end);
}

static void
make_log(void)
{
	testnode_start_log(BASE);
	model[0].lsn = tn.wal_start;
	for (int i = 0; i < 2 * RECORDS; i++)
		add_record(i);
}

/* From the end of the n-th record to that of the m-th. */
static void
ship(int n, int m)
{
	Client		c;
	AuMsgHelloOk hello;
	AuMsgTermOk term;
	AuMsgAppendOk ok;
	AuFrame		f;

	testnode_hello(&c, AU_ROLE_WRITER, SYSID, &hello);
	testnode_term(&c, &term);
	assert_true(term.received_lsn == model[n].lsn);
	assert_true(testnode_append(&c, term.term, model[n].lsn, (uint32_t) (model[m].lsn - model[n].lsn)));
	testnode_expect(&c, &f, AU_MSG_APPEND_OK, "APPEND");
	assert_true(au_dec_append_ok(&f, &ok));
	assert_true(ok.durable_lsn == model[m].lsn);
	client_close(&c);
}

/* All blocks as of the end of the n-th record. */
static void
compare(Client *c, int n)
{
	static AuMsgPages pages;
	AuMsgGetPages m = {.rel = {1663, 5, REL, 0},.read_lsn = model[n].lsn,.nblocks = BLOCKS};
	AuFrame		f;

	for (uint32_t b = 0; b < BLOCKS; b++)
		m.blocks[b] = b;
	assert_true(CLIENT_SEND(c, au_enc_get_pages, &m));
	testnode_expect(c, &f, AU_MSG_PAGES, "GET_PAGES");
	assert_true(au_dec_pages(&f, &pages));
	for (int b = 0; b < BLOCKS; b++)
	{
		assert_int_equal(pages.status[b], b < n ? AU_OK : AU_NOT_FOUND);
		if (b < n && memcmp(pages.page[b], model[n].page[b], AU_PAGE_SIZE) != 0)
			fail_msg("block %d as of %X/%X differs", b, AU_LSN_ARGS(model[n].lsn));
	}
}

/* ---- the daemon --------------------------------------------------------------- */

/* At an address of loopback that no other test has. */
static void
start(const char *cluster)
{
	unsigned int p = (unsigned int) getpid();
	char		listen[64];
	char		meta[64];
	char	   *args[] = {
		"--dir", tn.dir, "--socket", tn.sock, "--listen", listen, "--meta-listen", meta,
		"--memory", "32", (char *) cluster, NULL
	};

	snprintf(listen, sizeof(listen), "127.%u.%u.%u:7015", 1 + (p >> 16) % 250, (p >> 8) % 256, p % 256);
	snprintf(meta, sizeof(meta), "127.%u.%u.%u:7016", 1 + (p >> 16) % 250, (p >> 8) % 256, p % 256);
	tn.pid = daemon_start(args, tn.log);
	assert_true(tn.pid > 0);
	if (!daemon_wait_socket(tn.sock))
		fail_msg("the daemon did not come up, see %s", tn.log);
}

/* Asks until there is a view; returns it. */
static const AuView *
view_of(Client *c)
{
	static AuView v;
	AuMsgGetView m = {.epoch = 0};

	for (int i = 0; i < 600; i++)
	{
		AuMsgView	view;
		AuFrame		f;

		assert_true(CLIENT_SEND(c, au_enc_get_view, &m));
		assert_true(client_receive(c, &f, 60000));
		if (f.type == AU_MSG_VIEW && au_dec_view(&f, &view) && view.length > 0)
		{
			assert_true(au_view_decode(&v, view.bytes, view.length));
			return &v;
		}
		usleep(100 * 1000);
	}
	fail_msg("no view within 60 s");
	return NULL;
}

/* Repeats a question of the key-value interface until it is not refused. */
#define ASK_KV(c, f, enc, m, wanted) \
	do { \
		for (int i_ = 0; ; i_++) \
		{ \
			assert_true(CLIENT_SEND(c, enc, m)); \
			assert_true(client_receive(c, f, 60000)); \
			if ((f)->type == (wanted)) \
				break; \
			if (i_ == 600) \
				fail_msg("the key-value interface does not answer within 60 s"); \
			usleep(100 * 1000); \
		} \
	} while (0)

static void
run_command(const char *command)
{
	if (system(command) != 0)
		fail_msg("failed: %s", command);
}

/* ---- making it, and finding all in it ------------------------------------------ */

static void
make_directory(void)
{
	AuMsgKvPut	put = {.key = {strlen(KEY), (const uint8_t *) KEY},.len = strlen(VALUE),
		.value = (const uint8_t *) VALUE};
	char		command[600];
	AuMsgHelloOk hello;
	Client		c;
	AuFrame		f;

	start(NULL);
	ship(0, RECORDS / 2);
	testnode_end(SIGTERM);
	start("--cluster-init");
	testnode_hello(&c, AU_ROLE_ADMIN, 0, &hello);
	assert_int_equal(view_of(&c)->nnodes, 1);
	ASK_KV(&c, &f, au_enc_kv_put, &put, AU_MSG_KV_PUT_OK);
	client_close(&c);
	ship(RECORDS / 2, RECORDS);
	testnode_end(SIGKILL);
	snprintf(command, sizeof(command), "tar -C %s --exclude='LOG*' --exclude=LOCK --sort=name "
			 "--owner=0 --group=0 --numeric-owner -cf - node | gzip -9n > " ARCHIVE, tn.root);
	run_command(command);
}

static void
test_directory(void **state)
{
	AuMsgKvGet	get = {.key = {strlen(KEY), (const uint8_t *) KEY}};
	AuMsgKvGetOk got;
	AuMsgHelloOk hello;
	const AuView *v;
	char		command[600];
	Client		c;
	AuFrame		f;

	(void) state;
	make_log();
	if (writing)
	{
		make_directory();
		testdir_remove(tn.dir);
	}
	snprintf(command, sizeof(command), "tar -C %s --no-same-owner -xzf " ARCHIVE, tn.root);
	run_command(command);
	start(NULL);

	/* all of the log is there, and applied: every page at every LSN */
	testnode_hello(&c, AU_ROLE_READER, SYSID, &hello);
	v = view_of(&c);
	assert_int_equal(hello.volume_known, 1);
	assert_true(hello.start_lsn == model[0].lsn);
	assert_true(hello.durable_lsn == model[RECORDS].lsn);
	for (int n = 1; n <= RECORDS; n++)
		compare(&c, n);

	/* the cluster, and what was put */
	assert_int_equal(v->nnodes, 1);
	assert_true(v->nodes[0].node_id == hello.node_id);
	ASK_KV(&c, &f, au_enc_kv_get, &get, AU_MSG_KV_GET_OK);
	assert_true(au_dec_kv_get_ok(&f, &got));
	assert_int_equal(got.n, 1);
	assert_int_equal(got.value[0].len, strlen(VALUE));
	assert_memory_equal(got.value[0].bytes, VALUE, strlen(VALUE));
	client_close(&c);

	/* it goes on, and a crash later all of it is there */
	ship(RECORDS, 2 * RECORDS);
	testnode_end(SIGKILL);
	start(NULL);
	testnode_hello(&c, AU_ROLE_READER, SYSID, &hello);
	(void) view_of(&c);
	assert_true(hello.durable_lsn == model[2 * RECORDS].lsn);
	for (int n = 1; n <= 2 * RECORDS; n += 13)
		compare(&c, n);
	client_close(&c);
	assert_int_equal(testnode_end(SIGTERM), 0);
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_directory),
	};

	writing = argc > 1 && strcmp(argv[1], "--write") == 0;
	return cmocka_run_group_tests(tests, testnode_fixture_setup, testnode_fixture_teardown);
}
