/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_diskfull.c: a real disk that is really full: a small tmpfs under the
 * daemon's directory (needs the right to mount; else the tests are skipped).
 * The log or the page store hits the end; the writer is told; when there is
 * room again everything goes on, and every page is right.  A page store with
 * room for a write but none for compactions goes on writing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <sys/mount.h>
#include <sys/statvfs.h>

#include "common/au_page.h"
#include "store/au_pagestore_int.h"
#include "tests/testnode.h"
#include "tests/teststore.h"

#define SYSID 42424242ULL
#define REL 16384u
#define BLOCKS 400
#define LOG_BYTES (70u << 20)
#define FILLER_BYTES (255u << 20)

static char disk[256];
static bool mounted;
static uint8_t (*pages)[AU_PAGE_SIZE];

/* Incompressible changes; the model keeps the newest pages. */
static void
make_log(void)
{
	uint8_t		memory[AU_OPS_MAX];
	uint8_t		bytes[3000];
	AuOps		ops;

	pages = calloc(BLOCKS, AU_PAGE_SIZE);
	testnode_start_log(0x1000000);
	while (tn.wal.len < LOG_BYTES)
	{
		uint32_t	blk = testnode_rnd(BLOCKS);

		for (size_t i = 0; i < sizeof(bytes); i++)
			bytes[i] = (uint8_t) testnode_rnd(256);
		au_ops_start(&ops, memory, sizeof(memory));
		if (au_page_is_new(pages[blk]))
			au_ops_init(&ops, 4000);
		au_ops_patch(&ops, (uint16_t) (4200 + testnode_rnd(900)), sizeof(bytes), bytes);
		walmake_ours(&tn.wal, REL, blk, ops.data, (uint16_t) ops.len);
		assert_int_equal(au_page_apply(pages[blk], ops.data, ops.len, NULL), AU_OK);
		au_page_set_lsn(pages[blk], tn.wal.last_end);
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
	AuMsgHelloOk hello;

	testnode_hello(c, AU_ROLE_WRITER, SYSID, &hello);
	testnode_term(c, ok);
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
	AuLsn		end = walmake_pos(&tn.wal);

	while (from < end)
	{
		uint32_t	n = end - from < 200000 ? (uint32_t) (end - from) : 200000;
		AuFrame		f;
		AuMsgError	e;

		if (!testnode_append(c, t->term, from, n) || !client_receive(c, &f, 5000))
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
	AuMsgHelloOk hello;
	Client		c;
	AuFrame		f;

	testnode_hello(&c, AU_ROLE_READER, SYSID, &hello);
	for (uint32_t first = 0; first < BLOCKS; first += 100)
	{
		AuMsgGetPages m = {
			.rel = {1663, 5, REL, 0},.not_before = walmake_pos(&tn.wal),.nblocks = 100
		};

		for (uint32_t i = 0; i < 100; i++)
			m.blocks[i] = first + i;
		assert_true(CLIENT_SEND(&c, au_enc_get_pages, &m));
		testnode_expect(&c, &f, AU_MSG_PAGES, "GET_PAGES");
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
	char		filler[300];
	Client		c;
	AuMsgTermOk t;
	Outcome		outcome;
	int			tries = 0;

	(void) state;
	if (mount("tmpfs", disk, "tmpfs", 0, "size=320m") != 0)
		skip();
	mounted = true;
	make_log();
	snprintf(filler, sizeof(filler), "%s/filler", disk);
	assert_true(fill(filler, FILLER_BYTES));
	testnode_start("--disk-reserve-mb", "8");
	connect_writer(&c, &t);
	outcome = ship(&c, &t);
	client_close(&c);
	assert_int_not_equal(outcome, ALL_SHIPPED); /* else the disk is too large */
	sleep(3);					/* it stays alive, trying */
	assert_int_equal(kill(tn.pid, 0), 0);
	unlink(filler);
	do
	{
		assert_true(tries++ < 60);
		sleep(1);
		connect_writer(&c, &t);
		outcome = ship(&c, &t);
		client_close(&c);
	} while (outcome != ALL_SHIPPED);
	compare_all();
	/* and what is on disk is complete */
	assert_int_equal(testnode_end(SIGKILL), SIGKILL);
	testnode_start("--disk-reserve-mb", "8");
	compare_all();
	assert_int_equal(testnode_end(SIGTERM), 0);
}

/* ---- room for a write, none for a compaction --------------------------- */

#define STORE_BLOCKS 90
#define STORE_ITEM 7000			/* random bytes of each block */
#define STORE_FREE (3u << 19)	/* two generations and a bit */
#define STORE_WRITES 26			/* RocksDB alone would wait at 20 files */
#define STORE_WAIT_S 120

static const AuRelId store_rel = {1663, 5, REL, 0};
static uint8_t (*store_pages)[AU_PAGE_SIZE];
static AuLsn store_lsn = 0x1000000;

/* The one write that never ends. */
static void
give_up(int sig)
{
	static const char why[] = "a write waits for a compaction that has no room\n";

	(void) sig;
	(void) !write(STDERR_FILENO, why, sizeof(why) - 1);
	umount2(disk, MNT_DETACH);
	_exit(1);
}

/* Every block once, new. */
static void
store_change_all(AuPageStore *ps)
{
	static AuWalRecord w;
	uint8_t		memory[AU_OPS_MAX];
	uint8_t		item[STORE_ITEM];

	for (uint32_t blk = 0; blk < STORE_BLOCKS; blk++)
	{
		AuOps		ops;

		for (size_t i = 0; i < sizeof(item); i++)
			item[i] = (uint8_t) testnode_rnd(256);
		au_ops_start(&ops, memory, sizeof(memory));
		au_ops_init(&ops, 0);
		au_ops_add(&ops, 1, sizeof(item), item);
		memset(&w, 0, sizeof(w));
		w.kind = AU_WAL_OURS;
		w.lsn = store_lsn;
		w.end = store_lsn += 8000;
		w.nblocks = 1;
		w.blocks[0].page = (AuPageId) {store_rel, blk};
		w.blocks[0].data = ops.data;
		w.blocks[0].data_len = ops.len;
		assert_int_equal(au_page_apply(store_pages[blk], ops.data, ops.len, NULL), AU_OK);
		au_page_set_lsn(store_pages[blk], w.end);
		assert_int_equal(au_pagestore_apply(ps, &w), AU_OK);
		au_pagestore_set_applied(ps, w.end);
	}
}

static void
store_compare_all(AuPageStore *ps)
{
	uint8_t		page[AU_PAGE_SIZE];

	for (uint32_t blk = 0; blk < STORE_BLOCKS; blk++)
	{
		AuPageId	id = {store_rel, blk};

		assert_int_equal(au_pagestore_read(ps, &id, AU_LSN_MAX, page), AU_OK);
		assert_memory_equal(page, store_pages[blk], AU_PAGE_SIZE);
	}
}

/* Let the filler grow or shrink by what it takes to leave so much free, never
 * more in between.  A compaction may write meanwhile: again, then. */
static void
leave_free(const char *filler, off_t bytes)
{
	int			fd = open(filler, O_WRONLY | O_CREAT, 0600);
	int			result = ENOSPC;

	assert_true(fd >= 0);
	for (int i = 0; i < 1000 && result == ENOSPC; i++)
	{
		struct statvfs fs;
		off_t		size = lseek(fd, 0, SEEK_END);
		off_t		more;

		assert_int_equal(statvfs(disk, &fs), 0);
		more = (off_t) (fs.f_bavail * fs.f_bsize) - bytes;
		if (more <= 0)
			result = ftruncate(fd, size + more) == 0 ? 0 : errno;
		else
			result = posix_fallocate(fd, size, more);
		usleep(result == 0 ? 0 : 10000);
	}
	assert_int_equal(result, 0);
	close(fd);
}

static AuPageStore *
store_open(const char *dir)
{
	AuPageStoreOptions opt = {
		.dir = dir,.system_identifier = SYSID,.start_lsn = store_lsn,
		.pending_bytes = 8 << 20,.write_buffer_bytes = 4 << 20,.retention_bytes = 64 << 20
	};
	AuPageStore *ps;
	char		err[512];

	if (au_pagestore_open(&ps, &opt, err, sizeof(err)) != AU_OK)
		fail_msg("open: %s", err);
	return ps;
}

static void
test_no_room_for_compactions(void **state)
{
	char		dir[300];
	char		filler[300];
	AuPageStore *ps;

	(void) state;
	if (mount("tmpfs", disk, "tmpfs", 0, "size=64m") != 0)
		skip();
	mounted = true;
	store_pages = calloc(STORE_BLOCKS, AU_PAGE_SIZE);
	snprintf(dir, sizeof(dir), "%s/pages", disk);
	snprintf(filler, sizeof(filler), "%s/filler", disk);
	signal(SIGALRM, give_up);
	alarm(STORE_WAIT_S);
	ps = store_open(dir);
	for (int i = 0; i < STORE_WRITES; i++)
	{
		store_change_all(ps);
		leave_free(filler, STORE_FREE);
		teststore_write(ps, store_lsn, true);
		assert_int_equal(au_pagestore_persisted_applied(ps), store_lsn);
		/* so many files: a compaction starts, and fails; none will start again */
		while (i == AU_LEVEL0_MERGED - 1 && au_ps_property(ps, "rocksdb.background-errors") == 0)
			usleep(10000);
	}
	store_compare_all(ps);
	au_pagestore_close(ps);
	ps = store_open(dir);
	store_compare_all(ps);

	/* with room they catch up, and writes go on */
	assert_int_equal(unlink(filler), 0);
	for (int i = 0; i < 3; i++)
	{
		store_change_all(ps);
		teststore_write(ps, store_lsn, true);
	}
	alarm(0);
	store_compare_all(ps);
	au_pagestore_close(ps);
	free(store_pages);
	umount2(disk, MNT_DETACH);
	mounted = false;
}

static int
setup(void **state)
{
	(void) state;
	tn.rng = 4711;
	if (testnode_setup("diskfull", "/disk") != 0)
		return -1;
	snprintf(disk, sizeof(disk), "%s/disk", tn.root);
	return mkdir(disk, 0700);
}

static int
teardown(void **state)
{
	(void) state;
	if (mounted)
		umount2(disk, MNT_DETACH);	/* a failed test's daemon may still run */
	testnode_teardown();
	free(pages);
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_room_for_compactions),
		cmocka_unit_test(test_full_disk),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, setup, teardown);
}
