/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_landing.c: what an append and its sync take, one after the other, on
 * ordinary files and on persistent memory (or on what PMEM_IS_PMEM_FORCE=1
 * makes of a file).
 *
 *   bench_landing KIND DIRECTORY [APPENDS [BYTES]]     KIND: file, pmem
 *
 * Prints p50, p99 and the longest, in microseconds, as one line of JSON.  The
 * directory is made and its log left behind.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "store/au_landing.h"
#include "store/au_landing_io.h"

#define START ((AuLsn) 0x1000000)

static double
now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double) t.tv_sec * 1e6 + (double) t.tv_nsec / 1e3;
}

static int
compare(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return (x > y) - (x < y);
}

int
main(int argc, char **argv)
{
	static uint8_t bytes[AU_LANDING_APPEND_MAX];
	bool		pmem = argc > 1 && strcmp(argv[1], "pmem") == 0;
	size_t		n = argc > 3 ? strtoul(argv[3], NULL, 10) : 20000;
	size_t		len = argc > 4 ? strtoul(argv[4], NULL, 10) : 400;
	AuLandingOptions opt = {
		.system_identifier = 1,.start_lsn = START,.segment_bytes = 64 << 20,
		.io = pmem ? &au_landing_pmem_io : &au_landing_file_io
	};
	double	   *took = calloc(n + 1, sizeof(*took));
	AuLanding  *l;
	char		err[512];

	if (argc < 3 || (!pmem && strcmp(argv[1], "file") != 0) || n == 0 || len == 0 ||
		len > sizeof(bytes) || took == NULL)
	{
		fputs("usage: bench_landing file|pmem DIRECTORY [APPENDS [BYTES]]\n", stderr);
		return 2;
	}
	opt.dir = argv[2];
	if (au_landing_open(&l, &opt, err, sizeof(err)) != AU_OK)
	{
		fprintf(stderr, "bench_landing: %s\n", err);
		return 1;
	}
	memset(bytes, 'x', len);
	for (size_t i = 0; i < n; i++)
	{
		double		from = now_us();

		if (au_landing_append(l, 1, 1, au_landing_end(l), bytes, len, err, sizeof(err)) != AU_OK ||
			au_landing_sync(l, err, sizeof(err)) != AU_OK)
		{
			fprintf(stderr, "bench_landing: %s\n", err);
			return 1;
		}
		took[i] = now_us() - from;
	}
	qsort(took, n, sizeof(*took), compare);
	printf("{\"kind\": \"%s\", \"appends\": %zu, \"bytes\": %zu, \"p50_us\": %.2f, \"p99_us\": %.2f, \"max_us\": %.1f}\n",
		   au_landing_kind(l), n, len, took[n / 2], took[n * 99 / 100], took[n - 1]);
	au_landing_close(l);
	free(took);
	return 0;
}
