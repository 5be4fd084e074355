/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_crc32c.c: known values, both implementations against a bit-by-bit
 * one, and continuation at any split.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/au_base.h"
#include "common/au_crc32c.h"

typedef uint32_t (*CrcFn) (uint32_t, const void *, size_t);

static const CrcFn implementations[] = {au_crc32c, au_crc32c_portable};

/* Bit by bit, from the polynomial. */
static uint32_t
crc_reference(const uint8_t *p, size_t len)
{
	uint32_t	reg = 0xFFFFFFFFu;

	while (len-- > 0)
	{
		reg ^= *p++;
		for (int i = 0; i < 8; i++)
			reg = (reg >> 1) ^ ((reg & 1) ? 0x82F63B78u : 0);
	}
	return ~reg;
}

static void
fill_random(uint8_t *p, size_t len, unsigned int seed)
{
	srand(seed);
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t) (rand() >> 7);
}

/* RFC 3720, B.4, and the usual check value. */
static void
test_known_values(void **state)
{
	uint8_t		buf[32];

	(void) state;
	for (int f = 0; f < 2; f++)
	{
		CrcFn		crc = implementations[f];

		assert_int_equal(crc(0, "", 0), 0);
		assert_int_equal(crc(0, "123456789", 9), 0xE3069283u);
		memset(buf, 0, 32);
		assert_int_equal(crc(0, buf, 32), 0x8A9136AAu);
		memset(buf, 0xFF, 32);
		assert_int_equal(crc(0, buf, 32), 0x62A8AB43u);
		for (int i = 0; i < 32; i++)
			buf[i] = (uint8_t) i;
		assert_int_equal(crc(0, buf, 32), 0x46DD794Eu);
	}
}

/* Each length up to 200 at each alignment. */
static void
test_against_reference(void **state)
{
	uint8_t		buf[256];

	(void) state;
	fill_random(buf, sizeof(buf), 1);
	for (size_t off = 0; off < 16; off++)
	{
		for (size_t len = 0; len <= 200; len++)
		{
			uint32_t	want = crc_reference(buf + off, len);

			assert_int_equal(au_crc32c(0, buf + off, len), want);
			assert_int_equal(au_crc32c_portable(0, buf + off, len), want);
		}
	}
}

/* Long enough for the three lanes, once, several times, and with every rest. */
static void
test_long(void **state)
{
	static uint8_t buf[10000];

	(void) state;
	fill_random(buf, sizeof(buf), 3);
	for (size_t len = 1500; len <= sizeof(buf) - 8; len += len < 3200 ? 1 : 97)
	{
		size_t		off = len % 8;
		uint32_t	want = crc_reference(buf + off, len);
		uint32_t	first = crc_reference(buf + off, 5);

		assert_int_equal(au_crc32c(0, buf + off, len), want);
		assert_int_equal(au_crc32c_portable(0, buf + off, len), want);
		assert_int_equal(au_crc32c(first, buf + off + 5, len - 5), want);
	}
}

static void
test_any_split(void **state)
{
	uint8_t		buf[100];
	uint32_t	want;

	(void) state;
	fill_random(buf, sizeof(buf), 2);
	want = crc_reference(buf, sizeof(buf));
	for (size_t cut = 0; cut <= sizeof(buf); cut++)
	{
		for (int f = 0; f < 2; f++)
		{
			uint32_t	crc = implementations[f] (0, buf, cut);

			/* and one implementation goes on with the other's value */
			crc = implementations[1 - f] (crc, buf + cut, sizeof(buf) - cut);
			assert_int_equal(crc, want);
		}
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known_values),
		cmocka_unit_test(test_against_reference),
		cmocka_unit_test(test_long),
		cmocka_unit_test(test_any_split),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
