/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_hist.c: the latency histogram against the values themselves.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/au_hist.h"

#define N 5000

static int
compare(const void *a, const void *b)
{
	uint64_t	x = *(const uint64_t *) a,
				y = *(const uint64_t *) b;

	return x < y ? -1 : x > y;
}

static void
test_against_values(void **state)
{
	static uint64_t v[N];
	static AuHist h,
				halves[2],
				empty;
	uint64_t	sum = 0;

	(void) state;
	srand(3);
	for (int i = 0; i < N; i++)
	{
		v[i] = (uint64_t) rand() >> (rand() % 31);
		sum += v[i];
		au_hist_add(&h, v[i]);
		au_hist_add(&halves[i % 2], v[i]);
	}
	qsort(v, N, sizeof(v[0]), compare);
	assert_int_equal(h.count, N);
	assert_int_equal(h.sum_us, sum);
	assert_int_equal(h.max_us, v[N - 1]);
	for (uint32_t p = 1; p <= 1000; p++)
	{
		uint64_t	right = v[(N * p + 999) / 1000 - 1];
		uint64_t	got = au_hist_quantile_us(&h, p);

		if (got < right || got > right + right / 4 + 1)
			fail_msg("%u of 1000: %lu, expected %lu", p, (unsigned long) got, (unsigned long) right);
	}
	for (uint32_t k = 2; k <= 36; k++)
	{
		uint64_t	n = 0;

		while (n < N && v[n] <= (uint64_t) 1 << k)
			n++;
		assert_int_equal(au_hist_at_most(&h, k), n);
	}
	au_hist_merge(&halves[0], &halves[1]);
	assert_memory_equal(&halves[0], &h, sizeof(h));
	assert_int_equal(au_hist_quantile_us(&empty, 500), 0);
}

static void
test_ends(void **state)
{
	AuHist		h = {0};

	(void) state;
	au_hist_add(&h, UINT64_MAX / 2);
	assert_int_equal(au_hist_quantile_us(&h, 1000), (uint64_t) 1 << 37);
	assert_int_equal(au_hist_at_most(&h, 36), 0);
	au_hist_add(&h, 0);
	assert_int_equal(au_hist_quantile_us(&h, 500), 1);
	for (uint32_t k = 2; k <= 36; k++)
	{
		AuHist		edge = {0};

		au_hist_add(&edge, (uint64_t) 1 << k);
		au_hist_add(&edge, ((uint64_t) 1 << k) + 1);
		assert_int_equal(au_hist_at_most(&edge, k), 1);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_against_values),
		cmocka_unit_test(test_ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
