/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_landing_shim.c: the stores of au_landing_pmem.c themselves.  This
 * program brings its own libpmem, which maps files and keeps beside each
 * mapping what would have reached the medium: bytes that were flushed, once
 * they are drained.  Everything below the durable position must be there
 * after each sync, and no entry's first word may be flushed while another
 * byte of it is still on its way.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <libpmem.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/au_landing.h"
#include "store/au_landing_io.h"
#include "tests/testdir.h"

#define MAPS 16
#define START ((AuLsn) 0x1000)

typedef struct Map
{
	uint8_t    *p;
	uint8_t    *medium;			/* what would survive */
	uint8_t    *flushed;		/* a byte each: on its way */
	size_t		len;
	bool		is_log;
} Map;

static Map maps[MAPS];
static bool forget_flushes;		/* a planted mistake */
static bool early_word;			/* a first word overtook its entry */
static char err[512];

/* ---- this program's libpmem ------------------------------------------- */

void *
pmem_map_file(const char *path, size_t len, int flags, mode_t mode, size_t *mapped, int *is_pmem)
{
	int			fd = open(path, O_RDWR | (flags & PMEM_FILE_CREATE ? O_CREAT : 0), mode);
	Map		   *m = maps;

	while (m < maps + MAPS && m->p != NULL)
		m++;
	assert_true(fd >= 0 && m < maps + MAPS && len > 0);
	assert_int_equal(ftruncate(fd, (off_t) len), 0);
	m->p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(m->p != MAP_FAILED);
	close(fd);
	m->medium = malloc(len);
	m->flushed = calloc(1, len);
	m->len = len;
	m->is_log = strstr(path, ".log") != NULL;
	assert_true(m->medium != NULL && m->flushed != NULL);
	memcpy(m->medium, m->p, len);
	*mapped = len;
	*is_pmem = 1;
	return m->p;
}

static Map *
map_of(const void *p, size_t len)
{
	for (Map *m = maps; m < maps + MAPS; m++)
		if (m->p != NULL && (const uint8_t *) p >= m->p && (const uint8_t *) p + len <= m->p + m->len)
			return m;
	fail_msg("a store beside all mappings");
	return NULL;
}

int
pmem_unmap(void *p, size_t len)
{
	Map		   *m = map_of(p, len);

	munmap(m->p, m->len);
	free(m->medium);
	free(m->flushed);
	*m = (Map) {0};
	return 0;
}

void
pmem_flush(const void *p, size_t len)
{
	Map		   *m = map_of(p, len);
	size_t		off = (size_t) ((const uint8_t *) p - m->p);

	if (m->is_log && len == 8)
		for (size_t i = off; i < m->len; i++)
			early_word = early_word || (m->flushed[i] != 0 && i >= off + 8);
	if (!forget_flushes)
		memset(m->flushed + off, 1, len);
}

void
pmem_drain(void)
{
	for (Map *m = maps; m < maps + MAPS; m++)
		for (size_t i = 0; m->p != NULL && i < m->len; i++)
			if (m->flushed[i])
			{
				m->medium[i] = m->p[i];
				m->flushed[i] = 0;
			}
}

void
pmem_persist(const void *p, size_t len)
{
	pmem_flush(p, len);
	pmem_drain();
}

void *
pmem_memcpy(void *to, const void *from, size_t len, unsigned flags)
{
	memcpy(to, from, len);
	if (!(flags & PMEM_F_MEM_NOFLUSH))
		memset(map_of(to, len)->flushed + ((uint8_t *) to - map_of(to, len)->p), 1, len);
	if (!(flags & (PMEM_F_MEM_NODRAIN | PMEM_F_MEM_NOFLUSH)))
		pmem_drain();
	return to;
}

void *
pmem_memset(void *to, int c, size_t len, unsigned flags)
{
	memset(to, c, len);
	if (!(flags & PMEM_F_MEM_NOFLUSH))
		memset(map_of(to, len)->flushed + ((uint8_t *) to - map_of(to, len)->p), 1, len);
	return to;
}

/* ---- the test --------------------------------------------------------- */

static bool
all_persistent(void)
{
	for (Map *m = maps; m < maps + MAPS; m++)
		if (m->p != NULL && memcmp(m->p, m->medium, m->len) != 0)
			return false;
	return true;
}

/* Appends, syncs, roll-overs, cuts; returns how many syncs left something
 * behind. */
static int
run(void)
{
	char		dir[] = "/tmp/test_shim.XXXXXX";
	AuLandingOptions opt = {
		.dir = dir,.system_identifier = 1,.start_lsn = START,.segment_bytes = 3000,
		.io = &au_landing_pmem_io
	};
	uint8_t		bytes[1000];
	AuLanding  *l;
	int			bad = 0;

	early_word = false;
	assert_non_null(mkdtemp(dir));
	assert_int_equal(au_landing_open(&l, &opt, err, sizeof(err)), AU_OK);
	for (int i = 0; i < 60; i++)
	{
		memset(bytes, i + 1, sizeof(bytes));
		assert_int_equal(au_landing_append(l, 1, 1, au_landing_end(l), bytes,
										   1 + (size_t) (i * 37 % 1000), err, sizeof(err)), AU_OK);
		if (i % 3 != 0)
			continue;
		assert_int_equal(au_landing_sync(l, err, sizeof(err)), AU_OK);
		bad += !all_persistent();
		if (i % 12 == 0)
			assert_int_equal(au_landing_truncate(l, au_landing_end(l) - 1, err, sizeof(err)), AU_OK);
		bad += !all_persistent();
	}
	au_landing_close(l);
	testdir_remove(dir);
	return bad;
}

static void
test_everything_is_flushed(void **state)
{
	(void) state;
	forget_flushes = false;
	assert_int_equal(run(), 0);
	assert_false(early_word);
	/* ... and the test would notice */
	forget_flushes = true;
	assert_int_not_equal(run(), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_everything_is_flushed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
