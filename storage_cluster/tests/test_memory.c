/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_memory.c: a node under load stays within --memory, the fixed overhead
 * that au_memory.h states aside: two volumes are filled with pages that do
 * not compress, while clients ask for more than they take.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/stat.h>

#include "common/au_page.h"
#include "core/au_node.h"
#include "store/au_memory.h"
#include "tests/testdir.h"
#include "tests/walmake.h"
#include "tests/wireclient.h"

#define SYSID 7000000000000000001ULL
#define REL 16384u
#define VOLUMES 2
#define IDLERS 24				/* clients that take nothing */
#define BLOCKS 12000
#define REQUEST 256u

static char root[200];
static char node_dir[256];
static char sock[256];
static char log_file[256];
static pid_t pid;

typedef struct Volume
{
	WalMake		wal;
	Client		writer;
	Client		reader;
	uint64_t	term;
	AuLsn		start;
	AuLsn		durable;
} Volume;

static Volume vols[VOLUMES];
static Client idlers[IDLERS];
static uint32_t rng = 99;

static uint32_t
rnd(uint32_t n)
{
	rng = rng * 1664525 + 1013904223;
	return (rng >> 8) % n;
}

/* The next message, which is of this type. */
static void
expect(Client *c, uint16_t type, AuFrame *f)
{
	AuMsgError	e;

	assert_true(client_receive(c, f, 60000));
	if (f->type == AU_MSG_ERROR && type != AU_MSG_ERROR && au_dec_error(f, &e))
		fail_msg("got an error: %s", e.message);
	assert_int_equal(f->type, type);
}

static void
hello(Client *c, uint8_t role, uint64_t sysid)
{
	AuMsgHello	m = {.system_identifier = sysid,.role = role,.name = "test"};
	AuFrame		f;

	assert_true(client_connect(c, sock));
	assert_true(CLIENT_SEND(c, au_enc_hello, &m));
	expect(c, AU_MSG_HELLO_OK, &f);
}

static void
take_acks(Volume *v, int timeout_ms)
{
	AuFrame		f;

	while (client_receive(&v->writer, &f, timeout_ms))
	{
		AuMsgAppendOk ok;

		if (f.type != AU_MSG_APPEND_OK)
			fail_msg("the writer got message %u", f.type);
		assert_true(au_dec_append_ok(&f, &ok));
		v->durable = ok.durable_lsn;
		if (timeout_ms > 0)
			return;
	}
}

/* What was made goes out; at most 4 MB are under way. */
static void
ship(Volume *v)
{
	size_t		done = 0;

	while (done < v->wal.len)
	{
		size_t		n = v->wal.len - done < AU_WIRE_APPEND_MAX ? v->wal.len - done : AU_WIRE_APPEND_MAX;
		AuMsgAppend m = {
			.term = v->term,.timeline = 1,.lsn = v->wal.base + done,
			.length = (uint32_t) n,.bytes = v->wal.buf + done
		};

		assert_true(CLIENT_SEND(&v->writer, au_enc_append, &m));
		done += n;
		while (v->wal.base + done - v->durable > (4u << 20))
			take_acks(v, 20000);
	}
	v->wal.base += v->wal.len;
	v->wal.len = 0;
}

/* One page in full or some bytes of a hot one. */
static void
make_change(Volume *v, bool small)
{
	uint8_t		memory[AU_OPS_MAX];
	static uint8_t bytes[7000];
	AuOps		ops;

	for (size_t i = 0; i < (small ? 64 : sizeof(bytes)); i++)
		bytes[i] = (uint8_t) rnd(256);
	au_ops_start(&ops, memory, sizeof(memory));
	if (!small)
	{
		au_ops_init(&ops, 0);
		au_ops_add(&ops, 1, sizeof(bytes), bytes);
	}
	else
		au_ops_patch(&ops, (uint16_t) (5000 + rnd(3000)), 64, bytes);
	assert_false(ops.overflow);
	walmake_ours(&v->wal, REL, small ? rnd(400) : 400 + rnd(BLOCKS), ops.data, (uint16_t) ops.len);
}

static void
begin_volume(Volume *v, int i)
{
	uint64_t	sysid = SYSID + (uint64_t) i;
	AuMsgTerm	m = {
		.writer_id = 1,.timeline = 1,.wal_segment_size = WALMAKE_SEGMENT,.may_create = 1
	};
	AuMsgTermOk ok;
	AuFrame		f;

	v->start = m.start_lsn = v->durable = walmake_begin(&v->wal, 0x1000000);
	for (uint32_t b = 0; b < 400; b++)
	{
		uint8_t		memory[64];
		AuOps		ops;

		au_ops_start(&ops, memory, sizeof(memory));
		au_ops_init(&ops, 4000);
		walmake_ours(&v->wal, REL, b, ops.data, (uint16_t) ops.len);
	}
	m.local_end = walmake_pos(&v->wal);
	hello(&v->writer, AU_ROLE_WRITER, sysid);
	assert_true(CLIENT_SEND(&v->writer, au_enc_term, &m));
	expect(&v->writer, AU_MSG_TERM_OK, &f);
	assert_true(au_dec_term_ok(&f, &ok));
	v->term = ok.term;
	/* the page header before the first record is no log of the volume */
	memmove(v->wal.buf, v->wal.buf + (v->start - v->wal.base), v->wal.len - (v->start - v->wal.base));
	v->wal.len -= v->start - v->wal.base;
	v->wal.base = v->start;
	ship(v);
	hello(&v->reader, AU_ROLE_READER, sysid);
}

static void
ask(Client *c, AuLsn not_before)
{
	AuMsgGetPages m = {.rel = {1663, 5, REL, 0},.not_before = not_before,.nblocks = REQUEST};

	for (uint32_t i = 0; i < REQUEST; i++)
		m.blocks[i] = rnd(BLOCKS);
	assert_true(CLIENT_SEND(c, au_enc_get_pages, &m));
}

static uint64_t
high_water_mark(void)
{
	char		path[64];
	char		line[256];
	unsigned long kb = 0;
	FILE	   *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int) pid);
	f = fopen(path, "r");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f) != NULL)
		if (sscanf(line, "VmHWM: %lu kB", &kb) == 1)
			break;
	fclose(f);
	assert_true(kb > 0);
	return (uint64_t) kb << 10;
}

/* megabytes: log of each volume */
static void
load(unsigned megabytes)
{
	for (unsigned mb = 0; mb < megabytes; mb++)
		for (int i = 0; i < VOLUMES; i++)
		{
			Volume	   *v = &vols[i];
			bool		small = mb % 4 == 3;
			AuFrame		f;

			while (v->wal.len < 1024 * 1024)
				make_change(v, small);
			ship(v);
			take_acks(v, 0);
			if (mb % 4 != 2)
				continue;
			ask(&v->reader, v->durable & ~(AuLsn) 8191);
			expect(&v->reader, AU_MSG_PAGES, &f);
		}
}

static void
within(unsigned memory_mb, unsigned log_mb)
{
	char		memory[16];
	char	   *args[] = {
		"--dir", node_dir, "--socket", sock, "--memory", memory,
		"--retention-mb", "16", NULL
	};
	uint64_t	limit = ((uint64_t) memory_mb << 20) + AU_MEMORY_FIXED + VOLUMES * AU_MEMORY_VOLUME;
	uint64_t	used;
	int			st;

	snprintf(memory, sizeof(memory), "%u", memory_mb);
	pid = daemon_start(args, log_file);
	assert_true(pid > 0 && daemon_wait_socket(sock));
	for (int i = 0; i < VOLUMES; i++)
		begin_volume(&vols[i], i);
	load(log_mb / 2);
	for (int i = 0; i < IDLERS; i++)
	{
		hello(&idlers[i], AU_ROLE_READER, SYSID + (uint64_t) (i % VOLUMES));
		for (int k = 0; k < 8; k++)
			ask(&idlers[i], 0);
	}
	/* they are in the way for AU_NODE_OUT_STUCK_US: this writes, reads wait */
	for (int i = 0; i < VOLUMES; i++)
	{
		while (vols[i].wal.len < 1024 * 1024)
			make_change(&vols[i], true);
		ship(&vols[i]);
	}
	used = high_water_mark();
	for (int i = 0; i < IDLERS; i++)
		client_close(&idlers[i]);
	load(log_mb - log_mb / 2);
	used = high_water_mark() > used ? high_water_mark() : used;
	print_message("--memory %u: at most %.1f MB resident, allowed %.1f MB\n", memory_mb,
				  (double) used / 1048576, (double) limit / 1048576);
#ifndef __SANITIZE_ADDRESS__
	if (used > limit)
		fail_msg("--memory %u: %.1f MB resident, more than %.1f MB", memory_mb,
				 (double) used / 1048576, (double) limit / 1048576);
#endif
	for (int i = 0; i < VOLUMES; i++)
	{
		client_close(&vols[i].writer);
		client_close(&vols[i].reader);
		free(vols[i].wal.buf);
	}
	st = daemon_end(pid, SIGTERM);
	pid = 0;
	assert_true(WIFEXITED(st) && WEXITSTATUS(st) == 0);
}

static void
test_smallest(void **state)
{
	(void) state;
	within(32, 100);
}

static void
test_larger(void **state)
{
	(void) state;
	if (pid > 0)
		(void) daemon_end(pid, SIGKILL);
	testdir_remove(node_dir);
	within(128, 120);
}

/* The shares never add up to more than the whole. */
static void
test_plan(void **state)
{
	(void) state;
	for (uint64_t mb = 32; mb < 70000; mb = mb * 2 + 1)
	{
		AuMemoryPlan p;

		au_memory_plan(&p, mb << 20);
		assert_int_equal(p.total, mb << 20);
		/* generations exceed by one, a batch takes two, memtables grow by one */
		assert_true(p.cache + p.generations + p.generation + 2 * p.generation +
					p.memtables + p.generation + p.answers <= p.total - p.total / 8);
		assert_true(p.generation >= 1 << 20 && p.answers >= REQUEST * AU_PAGE_SIZE);
	}
}

static int
setup(void **state)
{
	(void) state;
	snprintf(root, sizeof(root), "%s/au_memory.%ld", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp",
			 (long) getpid());
	mkdir(root, 0700);
	snprintf(node_dir, sizeof(node_dir), "%s/node", root);
	snprintf(sock, sizeof(sock), "%s/s", root);
	snprintf(log_file, sizeof(log_file), "%s/log", root);
	return 0;
}

static int
teardown(void **state)
{
	(void) state;
	if (pid > 0)
		(void) daemon_end(pid, SIGKILL);
	testdir_remove(root);
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plan),
		cmocka_unit_test(test_smallest),
		cmocka_unit_test(test_larger),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
