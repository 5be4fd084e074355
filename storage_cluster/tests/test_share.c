/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_share.c: pages through memory that a reader shares with a real daemon:
 * they are the same as those that come in the answer, they go where they were
 * asked to go and nowhere else, what must not be mapped is refused, and who
 * shares much leaves room for others.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/au_page.h"
#include "tests/testnode.h"

#define SYSID 7000000000000000021ULL
#define PAGES 64u
#define BLOCKS 20

#define REL 16384

static int
some_memory(uint32_t pages, uint32_t there, int seals)
{
	int			fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t) pages * AU_PAGE_SIZE), 0);
	assert_int_equal(posix_fallocate(fd, 0, (off_t) there * AU_PAGE_SIZE), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static int
sealed_memory(uint32_t pages, int seals)
{
	return some_memory(pages, pages, seals);
}

/* How many pages the daemon takes. */
static uint32_t
offer(Client *c, int fd, uint32_t pages)
{
	AuMsgShare	m = {.fd = (uint32_t) fd,.pages = pages};
	AuMsgShareOk ok;
	AuFrame		f;

	assert_true(CLIENT_SEND(c, au_enc_share, &m));
	testnode_expect(c, &f, AU_MSG_SHARE_OK, "SHARE");
	assert_int_equal(f.id, c->id);
	assert_true(au_dec_share_ok(&f, &ok));
	return ok.pages;
}

/* BLOCKS pages, each with another tuple. */
static void
ship(Client *w)
{
	AuMsgHelloOk hello;
	AuMsgTermOk t;
	AuFrame		f;

	testnode_start_log(0x1000000);
	for (uint32_t i = 0; i < BLOCKS; i++)
	{
		uint8_t		memory[AU_OPS_MAX];
		uint8_t		tuple[100];
		AuOps		ops;

		memset(tuple, (int) i + 1, sizeof(tuple));
		au_ops_start(&ops, memory, sizeof(memory));
		au_ops_init(&ops, 0);
		au_ops_add(&ops, 1, sizeof(tuple), tuple);
		walmake_ours(&tn.wal, REL, i, ops.data, (uint16_t) ops.len);
	}
	testnode_hello(w, AU_ROLE_WRITER, SYSID, &hello);
	testnode_term(w, &t);
	assert_true(testnode_append(w, t.term, tn.wal_start,
								(uint32_t) (walmake_pos(&tn.wal) - tn.wal_start)));
	testnode_expect(w, &f, AU_MSG_APPEND_OK, "APPEND");
}

static AuMsgGetPages
want(uint16_t nblocks, uint32_t place)
{
	AuMsgGetPages m = {
		.rel = {1663, 5, REL, 0},.not_before = walmake_pos(&tn.wal),.place = place,.nblocks = nblocks
	};

	for (uint32_t i = 0; i < nblocks; i++)
		m.blocks[i] = i;
	return m;
}

/* The first BLOCKS blocks as they come in an answer. */
static void
pages_in_answer(Client *c, uint8_t *pages)
{
	AuMsgGetPages m = want(BLOCKS, 0);
	static AuMsgPages got;
	AuFrame		f;

	assert_true(CLIENT_SEND(c, au_enc_get_pages, &m));
	testnode_expect(c, &f, AU_MSG_PAGES, "GET_PAGES");
	assert_true(au_dec_pages(&f, &got));
	assert_int_equal(got.nblocks, BLOCKS);
	for (int i = 0; i < BLOCKS; i++)
	{
		assert_int_equal(got.status[i], AU_OK);
		memcpy(pages + i * AU_PAGE_SIZE, got.page[i], AU_PAGE_SIZE);
	}
}

static void
expect_error(Client *c, uint32_t place, uint16_t nblocks)
{
	AuMsgGetPages m = want(nblocks, place);
	AuMsgError	e;
	AuFrame		f;

	assert_true(CLIENT_SEND(c, au_enc_get_pages, &m));
	testnode_expect(c, &f, AU_MSG_ERROR, "GET_PAGES");
	assert_true(au_dec_error(&f, &e));
	assert_int_equal(e.status, AU_INVALID);
}

/* Blocks 0 .. n-1 at `place`, from 1, as they are in `expected`, the one behind
 * the last does not exist; memory around is as it was. */
static void
check_placed(Client *c, uint8_t *shared, uint32_t place, const uint8_t *expected)
{
	AuMsgGetPages m = want(BLOCKS + 1, place);
	static AuMsgPlaced got;
	AuFrame		f;

	memset(shared, 0xEE, PAGES * AU_PAGE_SIZE);
	assert_true(CLIENT_SEND(c, au_enc_get_pages, &m));
	testnode_expect(c, &f, AU_MSG_PAGES_PLACED, "GET_PAGES");
	assert_true(f.length < 100);
	assert_true(au_dec_placed(&f, &got));
	assert_int_equal(got.nblocks, BLOCKS + 1);
	assert_true(got.as_of >= m.not_before);
	for (uint32_t i = 0; i < PAGES; i++)
	{
		const uint8_t *page = shared + i * AU_PAGE_SIZE;

		if (i + 1 >= place && i + 1 < place + BLOCKS)
		{
			assert_int_equal(got.status[i + 1 - place], AU_OK);
			assert_memory_equal(page, expected + (i + 1 - place) * AU_PAGE_SIZE, AU_PAGE_SIZE);
		}
		else
			for (uint32_t k = 0; k < AU_PAGE_SIZE; k++)
				assert_int_equal(page[k], 0xEE);
	}
	assert_int_equal(got.status[BLOCKS], AU_NOT_FOUND);
}

static void
test_placed(void **state)
{
	static uint8_t expected[BLOCKS * AU_PAGE_SIZE];
	AuMsgHelloOk hello;
	Client		w,
				r;
	int			fd = sealed_memory(PAGES, F_SEAL_SHRINK);
	uint8_t    *shared = mmap(NULL, PAGES * AU_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	(void) state;
	assert_true(shared != MAP_FAILED);
	testnode_start(NULL, NULL);
	ship(&w);
	testnode_hello(&r, AU_ROLE_READER, SYSID, &hello);
	pages_in_answer(&r, expected);

	expect_error(&r, 1, 1);		/* nothing is shared yet */
	assert_int_equal(offer(&r, fd, PAGES), PAGES);
	close(fd);
	check_placed(&r, shared, 1, expected);
	check_placed(&r, shared, 30, expected);
	check_placed(&r, shared, PAGES - BLOCKS, expected);

	/* outside, in each way */
	expect_error(&r, PAGES - BLOCKS + 2, BLOCKS);
	expect_error(&r, PAGES + 1, 1);
	expect_error(&r, PAGES + 2, 1);
	expect_error(&r, UINT32_MAX, 2);

	/* given up */
	assert_int_equal(offer(&r, 0, 0), 0);
	expect_error(&r, 1, 1);
	munmap(shared, PAGES * AU_PAGE_SIZE);
	client_close(&r);
	client_close(&w);
	assert_int_equal(testnode_end(SIGTERM), 0);
}

static void
test_refused(void **state)
{
	AuMsgHelloOk hello;
	Client		r,
				many[8];
	int			fd = sealed_memory(PAGES, F_SEAL_GROW);
	int			taken = 0;

	(void) state;
	testnode_start(NULL, NULL);
	testnode_hello(&r, AU_ROLE_READER, SYSID, &hello);
	assert_int_equal(offer(&r, fd, PAGES), 0);	/* it might shrink */
	close(fd);
	assert_int_equal(offer(&r, fd, PAGES), 0);	/* it is not open */
	fd = open(tn.log, O_RDWR);
	assert_int_equal(offer(&r, fd, 1), 0);	/* an ordinary file */
	close(fd);
	fd = some_memory(PAGES, PAGES / 2, F_SEAL_SHRINK);
	assert_int_equal(offer(&r, fd, PAGES), 0);	/* not allocated yet: the node would do it */
	close(fd);
	fd = sealed_memory(PAGES, F_SEAL_SHRINK);
	assert_int_equal(offer(&r, fd, PAGES + 1), 0);	/* larger than it is */
	assert_int_equal(offer(&r, fd, UINT32_MAX), 0);
	assert_int_equal(offer(&r, fd, PAGES), PAGES);
	client_close(&r);
	close(fd);

	/* with --memory 32 there is 2 MB for all who share */
	fd = sealed_memory(100, F_SEAL_SHRINK);
	for (int i = 0; i < 8; i++)
	{
		uint32_t	got;

		testnode_hello(&many[i], AU_ROLE_READER, SYSID, &hello);
		got = offer(&many[i], fd, 100);
		assert_true(got == 0 || got == 100);
		taken += got == 100;
	}
	assert_int_equal(taken, 2);
	/* one that goes makes room */
	client_close(&many[0]);
	while (offer(&many[7], fd, 100) == 0)
		usleep(10000);
	for (int i = 1; i < 8; i++)
		client_close(&many[i]);
	close(fd);
	assert_int_equal(testnode_end(SIGTERM), 0);
}

/* Connections end while their pages are being made. */
static void
test_sudden_end(void **state)
{
	AuMsgHelloOk hello;
	AuMsgGetPages m;
	Client		w,
				r;

	(void) state;
	testnode_start(NULL, NULL);
	ship(&w);
	for (int i = 0; i < 200; i++)
	{
		int			fd = sealed_memory(PAGES, F_SEAL_SHRINK);

		testnode_hello(&r, AU_ROLE_READER, SYSID, &hello);
		while (offer(&r, fd, PAGES) == 0)	/* earlier ones may not have ended yet */
			usleep(1000);
		close(fd);
		for (uint32_t k = 0; k < 3; k++)
		{
			m = want(BLOCKS, 1 + k * BLOCKS);
			assert_true(CLIENT_SEND(&r, au_enc_get_pages, &m));
		}
		if (i % 2 == 0)
		{
			AuMsgShare	none = {0};

			assert_true(CLIENT_SEND(&r, au_enc_share, &none));
		}
		client_close(&r);
	}
	/* it still works, and gave back what was shared */
	testnode_hello(&r, AU_ROLE_READER, SYSID, &hello);
	for (int tries = 0;; tries++)
	{
		int			fd = sealed_memory(200, F_SEAL_SHRINK);
		uint32_t	got = offer(&r, fd, 200);

		close(fd);
		if (got == 200)
			break;
		assert_true(tries < 6000);
		usleep(10000);
	}
	client_close(&r);
	client_close(&w);
	assert_int_equal(testnode_end(SIGTERM), 0);
}

static int
setup(void **state)
{
	(void) state;
	return testnode_setup("share", "");
}

static int
teardown(void **state)
{
	(void) state;
	testnode_teardown();
	tn.wal.buf = NULL;
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_placed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sudden_end, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
