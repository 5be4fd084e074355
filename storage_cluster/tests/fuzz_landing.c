/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_landing.c: opening a landing log whose files hold anything.
 *
 * Input: u8 flags (1: persistent memory; 2: mend), then files: u8 which (of
 * NAMES), u16 length, bytes.  Mending puts magic numbers, identities and CRCs
 * right, and the LSNs of entries unless an entry's term is odd, so that what
 * lies behind the checks is reached, too.
 *
 * Whatever is opened must be readable as far as it says, and go on: cut,
 * appended to, synced, opened again, with the same bytes.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/au_crc32c.h"
#include "store/au_landing.h"
#include "tests/memdisk.h"

#define SYSID 42u
#define START ((AuLsn) 0x1000)
#define KEPT_MAX (1u << 20)

static const char *const names[] = {
	"0000000000001000.log", "0000000000001064.log", "0000000000001400.log", "durable",
	"rewrite.tmp"
};

#define NAMES (sizeof(names) / sizeof(names[0]))

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check(bool ok, const char *what)
{
	if (!ok)
	{
		fprintf(stderr, "%s\n", what);
		abort();
	}
}

static void
mend_segment(uint8_t *p, size_t len, AuLsn first)
{
	AuLsn		lsn = first;
	size_t		off = 32;
	bool		packed;

	if (len < 32)
		return;
	packed = p[4] % 4 == 0;
	memcpy(p, "AULG", 4);
	au_put_u32(p + 4, packed ? 1 : 2);
	au_put_u64(p + 8, SYSID);
	au_put_u64(p + 16, first);
	au_put_u32(p + 28, au_crc32c(0, p, 28));
	while (off + 41 <= len)
	{
		uint8_t    *e = p + off;
		uint32_t	n = 1 + au_get_u32(e + 4) % 200;

		if (e[0] == 0 || off + 40 + n > len)
			return;				/* a tail of zeros, or torn */
		memcpy(e, "AULE", 4);
		au_put_u32(e + 4, n);
		if (e[16] % 2 == 0)
			au_put_u64(e + 8, lsn);
		lsn += n;
		if (e[17] % 8 != 0)
			au_put_u64(e + 24, START + au_get_u64(e + 24) % (lsn - START));
		au_put_u32(e + 36, au_crc32c(au_crc32c(0, e, 36), e + 40, n));
		off += 40 + n;
		if (!packed)
			off = (off + 7) & ~(size_t) 7;
	}
}

static void
mend_mark(uint8_t *p, size_t len)
{
	for (size_t at = 0; at < 2 * 4096 && at + 40 <= len; at += 4096)
	{
		memcpy(p + at, "AULD", 4);
		au_put_u32(p + at + 4, 2);
		au_put_u64(p + at + 16, START + p[at + 16]);
		if (p[at + 24] != 0)
			au_put_u64(p + at + 24, START + p[at + 24]);
		au_put_u32(p + at + 36, au_crc32c(0, p + at, 36));
	}
}

static void
put_file(unsigned which, const uint8_t *data, size_t len, bool mend)
{
	uint8_t    *copy = malloc(len + 1);
	void	   *file;

	if (copy == NULL)
		abort();
	memcpy(copy, data, len);
	if (mend && which < 3)
		mend_segment(copy, len, strtoull(names[which], NULL, 16));
	else if (mend && which == 3)
		mend_mark(copy, len);
	check(memdisk_io.file_open(&memdisk, names[which], true, &file) == 0, "create");
	(void) memdisk_io.file_write(file, 0, copy, len, NULL, 0);
	(void) memdisk_io.file_sync(file);
	memdisk_io.file_close(file);
	free(copy);
}

/* Bytes from the log's start, at most KEPT_MAX; false: it is damaged. */
static bool
read_all(AuLanding *l, uint8_t *buf, size_t *len)
{
	char		err[512];
	AuLsn		lsn = au_landing_start(l);

	for (*len = 0; lsn + *len < au_landing_end(l) && *len < KEPT_MAX;)
	{
		size_t		got = 0;

		if (au_landing_read(l, lsn + *len, buf + *len, KEPT_MAX - *len, &got, err,
							sizeof(err)) != AU_OK)
			return false;
		check(got > 0, "nothing was read");
		*len += got;
	}
	return true;
}

static void
go_on(AuLandingOptions *opt, AuLanding *l)
{
	static uint8_t before[KEPT_MAX];
	static uint8_t after[KEPT_MAX];
	uint8_t		more[300] = {1, 2, 3};
	char		err[512];
	AuLsn		start = au_landing_start(l);
	AuLsn		end = au_landing_end(l);
	size_t		n;
	size_t		m;

	check(read_all(l, before, &n), "what was opened cannot be read");
	if (n > 1)
	{
		end = start + n / 2;
		check(au_landing_truncate(l, end, err, sizeof(err)) == AU_OK, err);
	}
	check(au_landing_append(l, 1, 1, end, more, sizeof(more), err, sizeof(err)) == AU_OK, err);
	check(au_landing_sync(l, err, sizeof(err)) == AU_OK, err);
	au_landing_close(l);
	check(au_landing_open(&l, opt, err, sizeof(err)) == AU_OK, err);
	check(au_landing_start(l) == start && au_landing_end(l) == end + sizeof(more), "another end");
	check(read_all(l, after, &m) && m == (size_t) (end - start) + sizeof(more), "another length");
	check(memcmp(before, after, (size_t) (end - start)) == 0 &&
		  memcmp(after + (end - start), more, sizeof(more)) == 0, "other bytes");
	au_landing_close(l);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	AuLandingOptions opt = {
		.dir = "memory",.system_identifier = SYSID,.start_lsn = START,.segment_bytes = 1000
	};
	AuLanding  *l;
	char		err[512];
	size_t		at = 1;

	if (size < 1)
		return 0;
	memdisk_format(1);
	opt.io = data[0] & 1 ? &memdisk_pmem_io : &memdisk_io;
	while (at + 3 <= size)
	{
		size_t		len = au_get_u16(data + at + 1);

		if (len > size - at - 3)
			len = size - at - 3;
		put_file(data[at] % NAMES, data + at + 3, len, (data[0] & 2) != 0);
		at += 3 + len;
	}
	if (au_landing_open(&l, &opt, err, sizeof(err)) == AU_OK)
		go_on(&opt, l);
	else
		check(err[0] != '\0', "refused without a reason");
	return 0;
}
