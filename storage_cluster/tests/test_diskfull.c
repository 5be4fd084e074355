/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_diskfull.c: a real disk that is really full: a small tmpfs under the
 * daemon's directory (needs the right to mount; else the test is skipped).
 * The log or the page store hits the end; the writer is told; when there is
 * room again everything goes on, and every page is right.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ftw.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "common/au_page.h"
#include "tests/walmake.h"
#include "tests/wireclient.h"

#define SYSID 42424242ULL
#define REL 16384u
#define BLOCKS 400
#define LOG_BYTES (70u << 20)
#define FILLER_BYTES (95u << 20)

static char root[200];
static char disk[256];
static char node_dir[300];
static char sock[256];
static char log_file[256];
static bool mounted;
static pid_t pid;

static WalMake wal;
static AuLsn wal_start;
static uint8_t (*pages)[AU_PAGE_SIZE];
static uint32_t rng = 4711;

static uint32_t
rnd(uint32_t n)
{
	rng = rng * 1664525 + 1013904223;
	return (rng >> 8) % n;
}

/* Incompressible changes; the model keeps the newest pages. */
static void
make_log(void)
{
	uint8_t		memory[AU_OPS_MAX];
	uint8_t		bytes[3000];
	AuOps		ops;

	pages = calloc(BLOCKS, AU_PAGE_SIZE);
	walmake_start(&wal, 0x1000000);
	walmake_page(&wal, 0, 0);
	wal_start = walmake_pos(&wal);
	while (wal.len < LOG_BYTES)
	{
		uint32_t	blk = rnd(BLOCKS);

		for (size_t i = 0; i < sizeof(bytes); i++)
			bytes[i] = (uint8_t) rnd(256);
		au_ops_start(&ops, memory, sizeof(memory));
		if (au_page_is_new(pages[blk]))
			au_ops_init(&ops, 4000);
		au_ops_patch(&ops, (uint16_t) (4200 + rnd(900)), sizeof(bytes), bytes);
		walmake_ours(&wal, REL, blk, ops.data, (uint16_t) ops.len);
		assert_int_equal(au_page_apply(pages[blk], ops.data, ops.len, NULL), AU_OK);
		au_page_set_lsn(pages[blk], wal.last_end);
	}
}

static bool
fill(const char *path, size_t bytes)
{
	static const char zeros[65536];
	int			fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	bool		ok = fd >= 0;

	for (size_t n = 0; ok && n < bytes; n += sizeof(zeros))
		ok = write(fd, zeros, sizeof(zeros)) == (ssize_t) sizeof(zeros);
	if (fd >= 0)
		close(fd);
	return ok;
}

/* Connect as the writer; where to go on. */
static void
connect_writer(Client *c, AuMsgTermOk *ok)
{
	AuMsgHello	h = {.system_identifier = SYSID,.role = AU_ROLE_WRITER,.name = "writer"};
	AuMsgTerm	t = {
		.writer_id = 1,.timeline = 1,.start_lsn = wal_start,.local_end = walmake_pos(&wal),
		.wal_segment_size = WALMAKE_SEGMENT,.may_create = 1
	};
	AuFrame		f;

	assert_true(client_connect(c, sock));
	assert_true(CLIENT_SEND(c, au_enc_hello, &h));
	assert_true(client_receive(c, &f, 20000));
	assert_int_equal(f.type, AU_MSG_HELLO_OK);
	assert_true(CLIENT_SEND(c, au_enc_term, &t));
	assert_true(client_receive(c, &f, 20000));
	assert_int_equal(f.type, AU_MSG_TERM_OK);
	assert_true(au_dec_term_ok(&f, ok));
}

typedef enum Outcome
{
	ALL_SHIPPED,
	FULL,
	GONE						/* closed, or silent */
} Outcome;

/* One append at a time until all is durable or something is wrong. */
static Outcome
ship(Client *c, AuMsgTermOk *t)
{
	AuLsn		from = t->received_lsn;
	AuLsn		end = walmake_pos(&wal);

	while (from < end)
	{
		uint32_t	n = end - from < 200000 ? (uint32_t) (end - from) : 200000;
		AuMsgAppend m = {
			.term = t->term,.timeline = 1,.lsn = from,.length = n,.bytes = wal.buf + (from - wal.base)
		};
		AuFrame		f;
		AuMsgError	e;

		if (!CLIENT_SEND(c, au_enc_append, &m) || !client_receive(c, &f, 5000))
			return GONE;
		if (f.type == AU_MSG_ERROR)
		{
			assert_true(au_dec_error(&f, &e));
			if (e.status != AU_FULL)
				fail_msg("got %s: %s", au_status_name(e.status), e.message);
			return FULL;
		}
		assert_int_equal(f.type, AU_MSG_APPEND_OK);
		from += n;
	}
	return ALL_SHIPPED;
}

static void
compare_all(void)
{
	static AuMsgPages got;
	AuMsgHello	h = {.system_identifier = SYSID,.role = AU_ROLE_READER,.name = "reader"};
	Client		c;
	AuFrame		f;

	assert_true(client_connect(&c, sock));
	assert_true(CLIENT_SEND(&c, au_enc_hello, &h));
	assert_true(client_receive(&c, &f, 20000));
	for (uint32_t first = 0; first < BLOCKS; first += 100)
	{
		AuMsgGetPages m = {
			.rel = {1663, 5, REL, 0},.not_before = walmake_pos(&wal),.nblocks = 100
		};

		for (uint32_t i = 0; i < 100; i++)
			m.blocks[i] = first + i;
		assert_true(CLIENT_SEND(&c, au_enc_get_pages, &m));
		assert_true(client_receive(&c, &f, 60000));
		if (f.type != AU_MSG_PAGES)
		{
			AuMsgError	e;

			fail_msg("no pages: %s", au_dec_error(&f, &e) ? e.message : "?");
		}
		assert_true(au_dec_pages(&f, &got));
		for (uint32_t i = 0; i < 100; i++)
		{
			assert_int_equal(got.status[i], AU_OK);
			assert_memory_equal(got.page[i], pages[first + i], AU_PAGE_SIZE);
		}
	}
	client_close(&c);
}

static void
test_full_disk(void **state)
{
	char	   *args[] = {
		"--dir", node_dir, "--socket", sock, "--memory", "32", "--disk-reserve-mb", "8", NULL
	};
	char		filler[300];
	Client		c;
	AuMsgTermOk t;
	Outcome		outcome;
	int			tries = 0;

	(void) state;
	if (mount("tmpfs", disk, "tmpfs", 0, "size=160m") != 0)
		skip();
	mounted = true;
	make_log();
	snprintf(filler, sizeof(filler), "%s/filler", disk);
	assert_true(fill(filler, FILLER_BYTES));
	pid = daemon_start(args, log_file);
	assert_true(daemon_wait_socket(sock));
	connect_writer(&c, &t);
	outcome = ship(&c, &t);
	client_close(&c);
	assert_int_not_equal(outcome, ALL_SHIPPED); /* else the disk is too large */
	sleep(3);					/* it stays alive, trying */
	assert_int_equal(kill(pid, 0), 0);
	unlink(filler);
	do
	{
		assert_true(tries++ < 20);
		sleep(1);
		connect_writer(&c, &t);
		outcome = ship(&c, &t);
		client_close(&c);
	} while (outcome != ALL_SHIPPED);
	compare_all();
	/* and what is on disk is complete */
	assert_int_equal(daemon_end(pid, SIGKILL), SIGKILL);
	pid = daemon_start(args, log_file);
	assert_true(daemon_wait_socket(sock));
	compare_all();
	assert_int_equal(daemon_end(pid, SIGTERM), 0);
	pid = 0;
}

static int
remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void) st;
	(void) flag;
	(void) ftw;
	return remove(path);
}

static int
setup(void **state)
{
	(void) state;
	snprintf(root, sizeof(root), "/tmp/au_diskfull.%ld", (long) getpid());
	snprintf(disk, sizeof(disk), "%s/disk", root);
	snprintf(node_dir, sizeof(node_dir), "%s/node", disk);
	snprintf(sock, sizeof(sock), "%s/sock", root);
	snprintf(log_file, sizeof(log_file), "%s/log", root);
	mkdir(root, 0700);
	return mkdir(disk, 0700);
}

static int
teardown(void **state)
{
	char		command[512];

	(void) state;
	if (pid > 0)
	{
		daemon_end(pid, SIGKILL);
		snprintf(command, sizeof(command), "tail -20 %s", log_file);
		(void) !system(command);
	}
	if (mounted)
		umount(disk);
	nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(pages);
	free(wal.buf);
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_full_disk),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, setup, teardown);
}
