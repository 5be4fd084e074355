/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_raft_frame.c: what may go on to libraft, and what may not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "cluster/au_raft_frame.h"

static uint8_t b[4096];
static size_t len;

static void
put(uint64_t word)
{
	au_put_u64(b + len, word);
	len += 8;
}

static void
put_text(const char *s)
{
	memset(b + len, 0, strlen(s) + 9);
	memcpy(b + len, s, strlen(s) + 1);
	len += (strlen(s) + 8) / 8 * 8;
}

static AuStatus
check_now(size_t *used)
{
	AuRaftFrame f;

	return au_raft_frame_check(b, len, &f, used);
}

static AuStatus
check_it(void)
{
	size_t		used;

	return check_now(&used);
}

/* Whole, and NEED_MORE for each shorter piece, which asks for no more than there is. */
static void
assert_good(uint16_t type, uint64_t term)
{
	AuRaftFrame f;
	size_t		used;

	assert_int_equal(au_raft_frame_check(b, len, &f, &used), AU_OK);
	assert_int_equal(used, len);
	assert_int_equal(f.type, type);
	assert_int_equal(f.term, term);
	for (size_t n = 0; n < len; n++)
	{
		assert_int_equal(au_raft_frame_check(b, n, &f, &used), AU_NEED_MORE);
		assert_in_range(used, n + 1, len);
	}
}

/* ---- greeting --------------------------------------------------------- */

static AuStatus
hello(uint64_t version, uint64_t number, const char *text, AuRaftHello *h)
{
	size_t		used;
	AuStatus	status;

	len = 0;
	put(version);
	put(number);
	put((strlen(text) + 8) / 8 * 8);
	put_text(text);
	status = au_raft_hello_parse(b, len, h, &used);
	if (status == AU_OK)
	{
		assert_int_equal(used, len);
		for (size_t n = 0; n < len; n++)
			assert_int_equal(au_raft_hello_parse(b, n, h, &used), AU_NEED_MORE);
		status = au_raft_hello_parse(b, len, h, &used);
	}
	return status;
}

static void
test_hello(void **state)
{
	static const char *const bad[] = {
		"", "127.0.0.1:7101", "127.0.0.1:7101/1/2",
		"127.0.0.1:7101/00000000000000C1/000000000000000", "127.0.0.1:7101/00000000000000C1-0000000000000009",
		"127.0.0.1:7101/00000000000000C1/00000000000000099", "127.0.0.1:7101/00000000000000g1/0000000000000009",
		"127.0.0.256:7101/00000000000000C1/0000000000000009", "127.0.0.1:0/00000000000000C1/0000000000000009",
		"127.0.0.1/00000000000000C1/0000000000000009", "host:7101/00000000000000C1/0000000000000009",
		"127.0.0.1:71011/00000000000000C1/0000000000000009 ", "/00000000000000C1/0000000000000009"
	};
	char		text[AU_RAFT_TEXT_MAX];
	AuRaftHello h;
	size_t		used;

	(void) state;
	assert_true(au_raft_hello_text(text, sizeof(text), "127.0.0.1:7101", 0xfedcba9876543210, 9));
	assert_int_equal(hello(1, 3, text, &h), AU_OK);
	assert_int_equal(h.number, 3);
	assert_int_equal(h.cluster_id, 0xfedcba9876543210);
	assert_int_equal(h.node_id, 9);
	assert_string_equal(h.address, "127.0.0.1:7101");
	assert_int_equal(hello(2, 3, text, &h), AU_CORRUPT);
	assert_int_equal(hello(1, 0, text, &h), AU_CORRUPT);
	assert_int_equal(hello(1, UINT64_C(1) << 32, text, &h), AU_CORRUPT);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(hello(1, 3, bad[i], &h), AU_CORRUPT);
	assert_int_equal(au_raft_hello_parse((const uint8_t *) "GET / HTTP/1.0\r\n", 16, &h, &used), AU_CORRUPT);
	/* lengths that nobody would allocate */
	(void) hello(1, 3, text, &h);
	au_put_u64(b + 16, UINT64_MAX);
	assert_int_equal(au_raft_hello_parse(b, len, &h, &used), AU_CORRUPT);
	au_put_u64(b + 16, 0);
	assert_int_equal(au_raft_hello_parse(b, len, &h, &used), AU_CORRUPT);
	/* an address without an end */
	(void) hello(1, 3, text, &h);
	memset(b + 24, '1', len - 24);
	assert_int_equal(au_raft_hello_parse(b, len, &h, &used), AU_CORRUPT);
	assert_false(au_raft_hello_text(text, 20, "127.0.0.1:7101", 1, 2));
}

/* ---- messages --------------------------------------------------------- */

static void
begin(uint64_t type, uint64_t header)
{
	len = 0;
	put(type);
	put(header);
}

static void
test_short_ones(void **state)
{
	static const struct
	{
		uint64_t	type,
					header;
		bool		good;
	}			cases[] = {
		{AU_RAFT_VOTE, 40, true}, {AU_RAFT_VOTE, 32, true}, {AU_RAFT_VOTE, 24, false},
		{AU_RAFT_VOTE_RESULT, 24, true}, {AU_RAFT_VOTE_RESULT, 16, true}, {AU_RAFT_VOTE_RESULT, 8, false},
		{AU_RAFT_APPEND_RESULT, 24, true}, {AU_RAFT_APPEND_RESULT, 16, false},
		{AU_RAFT_TIMEOUT_NOW, 24, true}, {AU_RAFT_TIMEOUT_NOW, 8, false},
		{AU_RAFT_APPEND, 32, false}, {AU_RAFT_SNAPSHOT, 48, false},
		{0, 24, false}, {7, 24, false}, {UINT64_C(1) << 32 | 3, 40, false},
		{AU_RAFT_VOTE, 0, false}, {AU_RAFT_VOTE, 41, false}, {AU_RAFT_VOTE, UINT64_MAX - 7, false}
	};

	(void) state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		begin(cases[i].type, cases[i].header);
		for (uint64_t n = 0; n < 8; n++)
			put(77);
		if (cases[i].good)
		{
			len = 16 + cases[i].header;
			assert_good((uint16_t) cases[i].type, 77);
		}
		else
			assert_int_equal(check_it(), AU_CORRUPT);
	}
}

static void
put_entry(uint8_t type, uint32_t bytes)
{
	put(5);
	memset(b + len, 0, 8);
	b[len] = type;
	au_put_u32(b + len + 4, bytes);
	len += 8;
}

static void
begin_append(uint64_t n)
{
	begin(AU_RAFT_APPEND, 48 + 16 * n);
	put(6);
	put(10);
	put(5);
	put(9);
	put(n);
}

/* Two servers; returns their bytes. */
static size_t
put_servers(uint64_t second, const char *address)
{
	size_t		start = len;

	memset(b + len, 0, 100);
	b[len] = 1;
	au_put_u64(b + len + 1, 2);
	len += 9;
	au_put_u64(b + len, 1);
	memcpy(b + len + 8, "a:1", 4);
	len += 13;
	au_put_u64(b + len, second);
	memcpy(b + len + 8, address, strlen(address) + 1);
	b[len + 9 + strlen(address)] = 2;
	len += 10 + strlen(address);
	len = start + (len - start + 7) / 8 * 8;
	return len - start;
}

static void
test_append(void **state)
{
	size_t		bytes,
				used;

	(void) state;
	begin_append(0);			/* a heartbeat */
	put(0);
	assert_good(AU_RAFT_APPEND, 6);
	begin_append(3);
	put_entry(1, 16);
	put_entry(2, 8);
	put_entry(3, 40);
	put(0);
	len += 24;
	bytes = put_servers(2, "b:1");
	assert_int_equal(bytes, 40);
	assert_good(AU_RAFT_APPEND, 6);
	/* a configuration that names a server twice, or has none, or no end */
	len -= bytes;
	(void) put_servers(1, "b:1");
	assert_int_equal(check_it(), AU_CORRUPT);
	len -= bytes;
	(void) put_servers(2, "a:1");
	assert_int_equal(check_it(), AU_CORRUPT);
	au_put_u64(b + len - bytes + 1, 0);
	assert_int_equal(check_it(), AU_CORRUPT);
	au_put_u64(b + len - bytes + 1, UINT64_MAX);
	assert_int_equal(check_it(), AU_CORRUPT);
	/* the frame that made libraft crash */
	begin_append(1);
	put_entry(0, 8);
	put(0);
	put(0);
	assert_int_equal(check_it(), AU_CORRUPT);
	begin_append(1);
	put_entry(1, 12);			/* no whole words */
	put(0);
	assert_int_equal(check_it(), AU_CORRUPT);
	begin_append(1);
	put_entry(1, UINT32_MAX - 7);
	put(0);
	assert_int_equal(check_it(), AU_CORRUPT);
	/* more entries than the header has room for */
	begin_append(1);
	au_put_u64(b + 16 + 32, UINT64_C(1) << 40);
	put_entry(1, 8);
	put(0);
	assert_int_equal(check_it(), AU_CORRUPT);
	/* two in a row: the first is found */
	begin_append(0);
	put(0);
	bytes = len;
	memcpy(b + len, b, len);
	len *= 2;
	assert_int_equal(check_now(&used), AU_OK);
	assert_int_equal(used, bytes);
}

static void
test_snapshot(void **state)
{
	size_t		bytes;

	(void) state;
	begin(AU_RAFT_SNAPSHOT, 40 + 40 + 16);
	put(6);
	put(100);
	put(5);
	put(1);
	put(40);
	bytes = put_servers(2, "b:1");
	put(64);
	put(0);
	len += 64;
	assert_good(AU_RAFT_SNAPSHOT, 6);
	au_put_u64(b + 16 + 40 + bytes, 0);
	assert_int_equal(check_it(), AU_CORRUPT);
	au_put_u64(b + 16 + 40 + bytes, UINT64_MAX);
	assert_int_equal(check_it(), AU_CORRUPT);
	au_put_u64(b + 16 + 32, 56);	/* the length behind it is outside */
	assert_int_equal(check_it(), AU_CORRUPT);
	au_put_u64(b + 16 + 32, UINT64_MAX - 7);
	assert_int_equal(check_it(), AU_CORRUPT);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hello),
		cmocka_unit_test(test_short_ones),
		cmocka_unit_test(test_append),
		cmocka_unit_test(test_snapshot),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
