/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_landing.c: the landing log.  On real files, and through libpmem on files
 * that it is told to take for persistent memory: contents, segments, every
 * torn tail, flipped bits, the file size limit, a small disk.  On a disk in
 * memory (memdisk.h): write, sync and cut failures.  Power cuts are in
 * test_landing_power.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/au_crc32c.h"
#include "store/au_landing.h"
#include "tests/memdisk.h"
#include "tests/testdir.h"

#define SYSID 0x1234567890ABCDEFull
#define START ((AuLsn) 0x5000028)
#define LOG_MAX (8u << 20)

static const AuLandingIo *io = &au_landing_file_io;
static uint8_t *stream;			/* what log bytes are: stream[lsn - START] */
static char err[512];
static char dir[64];
static char copy[80];

#define assert_ok(expr) \
	do { \
		AuStatus s_ = (expr); \
		if (s_ != AU_OK) \
			fail_msg("%s: %s: %s", #expr, "failed", err); \
	} while (0)

static int
setup(void **state)
{
	(void) state;
	stream = malloc(LOG_MAX);
	if (stream == NULL)
		return 1;
	srand(1);
	for (size_t i = 0; i < LOG_MAX; i++)
		stream[i] = (uint8_t) (rand() >> 8);
	/* in memory: hundreds of segments are made and synced */
	snprintf(dir, sizeof(dir), "%s/test_landing.XXXXXX",
			 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	if (mkdtemp(dir) == NULL)
		return 1;
	snprintf(copy, sizeof(copy), "%s.copy", dir);
	return 0;
}

static void
empty_dir(const char *path)
{
	DIR		   *d = opendir(path);
	struct dirent *ent;
	char		name[400];

	if (d == NULL)
		return;
	while ((ent = readdir(d)) != NULL)
	{
		snprintf(name, sizeof(name), "%s/%s", path, ent->d_name);
		(void) unlink(name);
	}
	closedir(d);
}

static int
teardown(void **state)
{
	(void) state;
	(void) umount(dir);			/* if the small disk's test failed */
	empty_dir(dir);
	empty_dir(copy);
	rmdir(dir);
	rmdir(copy);
	memdisk_format(1);
	free(stream);
	return 0;
}

static void
copy_dir(void)
{
	DIR		   *d = opendir(dir);
	struct dirent *ent;
	static uint8_t buf[1 << 20];

	mkdir(copy, 0700);
	empty_dir(copy);
	assert_non_null(d);
	while ((ent = readdir(d)) != NULL)
	{
		char		from[400];
		char		to[400];
		FILE	   *f;
		FILE	   *t;
		size_t		n;

		if (ent->d_name[0] == '.')
			continue;
		snprintf(from, sizeof(from), "%s/%s", dir, ent->d_name);
		snprintf(to, sizeof(to), "%s/%s", copy, ent->d_name);
		f = fopen(from, "rb");
		t = fopen(to, "wb");
		assert_true(f != NULL && t != NULL);
		while ((n = fread(buf, 1, sizeof(buf), f)) > 0)
			assert_int_equal(fwrite(buf, 1, n, t), n);
		fclose(f);
		fclose(t);
	}
	closedir(d);
}

static AuLandingOptions
options(const char *where)
{
	return (AuLandingOptions) {
		.dir = where,
		.system_identifier = SYSID,
		.start_lsn = START,
		.segment_bytes = 32 + 20 * 1040,	/* 20 appends of 1000 */
		.io = io,
	};
}

static AuLanding *
open_dir(const char *where)
{
	AuLandingOptions opt = options(where);
	AuLanding  *l;

	assert_ok(au_landing_open(&l, &opt, err, sizeof(err)));
	return l;
}

static AuStatus
try_open(const char *where)
{
	AuLandingOptions opt = options(where);
	AuLanding  *l;
	AuStatus	status = au_landing_open(&l, &opt, err, sizeof(err));

	if (status == AU_OK)
		au_landing_close(l);
	else
	{
		assert_null(l);
		assert_true(err[0] != '\0');
	}
	return status;
}

static AuLanding *
new_log(void)
{
	empty_dir(dir);
	return open_dir(dir);
}

static AuStatus
append(AuLanding *l, size_t len)
{
	AuLsn		lsn = au_landing_end(l);

	return au_landing_append(l, 3, 1, lsn, stream + (lsn - START), len,
							 err, sizeof(err));
}

/* Everything the log says it holds must be there and right, whatever the size
 * and the place of reads. */
static void
check_contents(AuLanding *l, size_t cap, size_t step)
{
	static uint8_t buf[1 << 20];
	AuLsn		lsn = au_landing_start(l);
	size_t		got;

	while (lsn < au_landing_end(l))
	{
		assert_ok(au_landing_read(l, lsn, buf, cap, &got, err, sizeof(err)));
		assert_true(got > 0 && got <= cap);
		assert_true(lsn + got <= au_landing_end(l));
		assert_memory_equal(buf, stream + (lsn - START), got);
		lsn += (step == 0 || got < step) ? got : step;
	}
	assert_int_equal(au_landing_read(l, lsn, buf, 1, &got, err, sizeof(err)), AU_NOT_FOUND);
	assert_int_equal(au_landing_read(l, au_landing_start(l) - 1, buf, 1, &got,
									 err, sizeof(err)), AU_NOT_FOUND);
}

static void
add_size(const char *path, off_t size, void *sum)
{
	(void) path;
	*(uint64_t *) sum += (uint64_t) size;
}

static uint64_t
bytes_on_disk(const char *where)
{
	uint64_t	sum = 0;

	assert_true(testdir_each(where, ".log", add_size, &sum));
	return sum;
}

/* ---- the ordinary way ------------------------------------------------- */

static void
test_append_and_read(void **state)
{
	AuLanding  *l = new_log();

	(void) state;
	assert_true(au_landing_start(l) == START);
	assert_true(au_landing_end(l) == START);
	assert_true(au_landing_durable(l) == START);
	assert_ok(append(l, 0));
	for (size_t i = 1; i < 300; i++)
	{
		assert_ok(append(l, i * 3));
		if (i % 50 == 0)
		{
			assert_ok(au_landing_sync(l, err, sizeof(err)));
			assert_true(au_landing_durable(l) == au_landing_end(l));
			check_contents(l, 1000, 0);
		}
	}
	check_contents(l, 300, 1);
	assert_ok(append(l, AU_LANDING_APPEND_MAX));
	assert_ok(append(l, 1));
	assert_true(au_landing_durable(l) < au_landing_end(l));
	check_contents(l, 1 << 20, 0);
	check_contents(l, 77, 0);
	assert_int_equal(au_landing_bytes(l), bytes_on_disk(dir));
	au_landing_close(l);

	l = open_dir(dir);
	assert_true(au_landing_start(l) == START);
	assert_true(au_landing_end(l) == START + 299 * 150 * 3 + AU_LANDING_APPEND_MAX + 1);
	assert_true(au_landing_durable(l) == au_landing_end(l));
	assert_int_equal(au_landing_bytes(l), bytes_on_disk(dir));
	check_contents(l, 4096, 0);
	assert_ok(append(l, 100));
	check_contents(l, 4096, 0);
	au_landing_close(l);
}

static void
test_wrong_appends(void **state)
{
	AuLanding  *l = new_log();

	(void) state;
	assert_ok(append(l, 100));
	assert_int_equal(au_landing_append(l, 1, 1, START + 99, stream, 1, err, sizeof(err)), AU_INVALID);
	assert_int_equal(au_landing_append(l, 1, 1, START + 101, stream, 1, err, sizeof(err)), AU_INVALID);
	assert_int_equal(append(l, AU_LANDING_APPEND_MAX + 1), AU_INVALID);
	check_contents(l, 1000, 0);
	au_landing_close(l);
}

static void
test_refusals(void **state)
{
	AuLandingOptions opt = options(dir);
	AuLanding  *l = new_log();
	AuLanding  *other;

	(void) state;
	/* one process at a time */
	assert_int_equal(au_landing_open(&other, &opt, err, sizeof(err)), AU_REFUSED);
	assert_non_null(strstr(err, "in use"));
	assert_ok(append(l, 100));
	au_landing_close(l);

	opt.system_identifier++;
	assert_int_equal(au_landing_open(&other, &opt, err, sizeof(err)), AU_REFUSED);
	assert_non_null(strstr(err, "belongs to system"));

	/* the start is the log's own, not the option's */
	opt.system_identifier--;
	opt.start_lsn = START + 1000;
	assert_ok(au_landing_open(&l, &opt, err, sizeof(err)));
	assert_true(au_landing_start(l) == START);
	au_landing_close(l);

	empty_dir(dir);
	opt.start_lsn = 0;
	assert_int_equal(au_landing_open(&l, &opt, err, sizeof(err)), AU_INVALID);
	opt.dir = "/nonexistent/below";
	assert_int_equal(au_landing_open(&l, &opt, err, sizeof(err)), AU_IO);
}

static void
test_trim(void **state)
{
	AuLanding  *l = new_log();
	AuLsn		middle;
	uint64_t	before;

	(void) state;
	for (int i = 0; i < 200; i++)
	{
		assert_ok(append(l, 1000));
		/* what is not durable is never trimmed */
		assert_ok(au_landing_trim(l, au_landing_end(l), err, sizeof(err)));
		assert_true(au_landing_start(l) <= au_landing_durable(l));
	}
	/* so many segments waited that one append had to sync */
	assert_true(au_landing_durable(l) > START);
	au_landing_close(l);

	l = new_log();
	for (int i = 0; i < 200; i++)
		assert_ok(append(l, 1000));
	assert_ok(au_landing_sync(l, err, sizeof(err)));

	before = au_landing_bytes(l);
	middle = START + 100000;
	check_contents(l, 5000, 0);
	assert_ok(au_landing_trim(l, middle, err, sizeof(err)));
	assert_true(au_landing_start(l) > START && au_landing_start(l) <= middle);
	assert_true(middle - au_landing_start(l) < 30000);
	assert_true(au_landing_bytes(l) < before);
	assert_int_equal(au_landing_bytes(l), bytes_on_disk(dir));
	check_contents(l, 5000, 0);
	au_landing_close(l);

	l = open_dir(dir);
	check_contents(l, 5000, 0);
	/* the newest segment stays, for the next append */
	assert_ok(au_landing_trim(l, AU_LSN_MAX, err, sizeof(err)));
	assert_true(au_landing_start(l) < au_landing_end(l));
	assert_ok(append(l, 1000));
	check_contents(l, 5000, 0);
	au_landing_close(l);
}

static int removals;			/* files and directories a disk had to do with */

static int
counted_remove(void *d, const char *name)
{
	removals++;
	return au_landing_file_io.file_remove(d, name);
}

static int
counted_sync(void *d)
{
	removals++;
	return au_landing_file_io.dir_sync(d);
}

/* NULL: all went well. */
static void *
remove_all(void *l)
{
	static char why[512];

	for (int i = 0; i < 200; i++)
		if (au_landing_remove(l, why, sizeof(why)) != AU_OK)
			return why;
	return NULL;
}

/* Who appends and reads forgets log without touching a disk; files go later, in
 * another thread meanwhile, and a crash in between only leaves some. */
static void
test_forget(void **state)
{
	AuLandingIo counted = au_landing_file_io;
	AuLanding  *l;
	AuLsn		middle = START + 100000;
	uint64_t	before;
	pthread_t	thread;
	void	   *failed;
	bool		more = true;

	(void) state;
	counted.file_remove = counted_remove;
	counted.dir_sync = counted_sync;
	io = &counted;
	l = new_log();
	assert_ok(au_landing_forget(l, START, &more, err, sizeof(err)));
	assert_false(more);
	for (int i = 0; i < 200; i++)
		assert_ok(append(l, 1000));
	assert_ok(au_landing_sync(l, err, sizeof(err)));
	before = au_landing_bytes(l);
	removals = 0;
	assert_ok(au_landing_forget(l, middle, &more, err, sizeof(err)));
	assert_true(more);
	assert_int_equal(removals, 0);
	assert_true(au_landing_start(l) > START);
	check_contents(l, 5000, 0);
	/* the room is not free yet */
	assert_int_equal(au_landing_bytes(l), before);
	assert_int_equal(before, bytes_on_disk(dir));
	au_landing_close(l);		/* a crash, to what is on the disk */
	l = open_dir(dir);
	assert_int_equal(au_landing_start(l), START);
	check_contents(l, 5000, 0);

	assert_int_equal(pthread_create(&thread, NULL, remove_all, l), 0);
	for (int i = 0; i < 190; i++)
	{
		AuLsn		lsn = START + (AuLsn) i * 1000;

		assert_ok(append(l, 1000));
		assert_ok(au_landing_sync(l, err, sizeof(err)));
		assert_ok(au_landing_forget(l, lsn, &more, err, sizeof(err)));
	}
	pthread_join(thread, &failed);
	assert_null(failed);
	assert_ok(au_landing_remove(l, err, sizeof(err)));
	assert_true(removals > 0);
	assert_int_equal(au_landing_bytes(l), bytes_on_disk(dir));
	check_contents(l, 5000, 0);
	au_landing_close(l);
	io = &au_landing_file_io;
}

static void
test_truncate(void **state)
{
	/* between entries, in one, at a segment's begin, at the very start */
	static const size_t cuts[] = {150000, 149999, 100001, 60000, 20001, 1000, 999, 1, 0};
	AuLanding  *l = new_log();

	(void) state;
	for (int i = 0; i < 200; i++)
		assert_ok(append(l, 1000));
	for (size_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++)
	{
		AuLsn		cut = START + cuts[i];

		check_contents(l, 3000, 0);
		assert_ok(au_landing_truncate(l, cut, err, sizeof(err)));
		assert_true(au_landing_end(l) == cut);
		assert_true(au_landing_durable(l) == cut);
		assert_int_equal(au_landing_bytes(l), bytes_on_disk(dir));
		check_contents(l, 3000, 0);
		if (i % 2)
		{
			au_landing_close(l);
			l = open_dir(dir);
			assert_true(au_landing_end(l) == cut);
			check_contents(l, 3000, 0);
		}
		assert_ok(append(l, 500));
		assert_ok(au_landing_truncate(l, au_landing_end(l) + 5, err, sizeof(err)));
		assert_true(au_landing_end(l) == cut + 500);
	}
	assert_int_equal(au_landing_truncate(l, START - 1, err, sizeof(err)), AU_INVALID);
	au_landing_close(l);
}

/* ---- damage on real files --------------------------------------------- */

/* A log of two segments whose last sync was at *synced. */
static void
make_two_segments(AuLsn *synced, AuLsn *end, char *last_name, size_t cap)
{
	AuLanding  *l = new_log();

	for (int i = 0; i < 21; i++)
		assert_ok(append(l, 1000));
	assert_ok(append(l, 104));	/* no padding after it */
	assert_ok(au_landing_sync(l, err, sizeof(err)));
	*synced = au_landing_end(l);
	assert_ok(append(l, 200));
	assert_ok(append(l, 50));
	*end = au_landing_end(l);
	au_landing_close(l);
	snprintf(last_name, cap, "%s/%016llX.log", copy, (unsigned long long) (START + 20000));
}

static void
set_size(const char *name, size_t size)
{
	assert_int_equal(truncate(name, (off_t) size), 0);
}

/* The last file cut at every length: what was synced must be there, what was
 * not may be gone, whole entries at a time. */
static void
test_every_prefix(void **state)
{
	AuLsn		synced;
	AuLsn		end;
	char		last[200];
	char		mark[200];
	struct stat st;

	(void) state;
	make_two_segments(&synced, &end, last, sizeof(last));
	snprintf(mark, sizeof(mark), "%s/durable", copy);
	copy_dir();
	assert_int_equal(stat(last, &st), 0);
	for (int with_mark = 0; with_mark < 2; with_mark++)
	{
		for (size_t size = 0; size <= (size_t) st.st_size; size++)
		{
			size_t		synced_size = (size_t) st.st_size - 2 * 40 - 250;
			AuLanding  *l;
			AuStatus	status;

			copy_dir();
			set_size(last, size);
			if (!with_mark)
				unlink(mark);
			if (with_mark && size < synced_size)
			{
				status = try_open(copy);
				assert_int_equal(status, AU_CORRUPT);
				assert_non_null(strstr(err, "durable up to"));
				continue;
			}
			l = open_dir(copy);
			check_contents(l, 30000, 0);
			if (size == (size_t) st.st_size)
				assert_true(au_landing_end(l) == end);
			else if (size >= synced_size + 240)
				assert_true(au_landing_end(l) == end - 50);
			else if (size >= synced_size)
				assert_true(au_landing_end(l) == synced);
			else
				assert_true(au_landing_end(l) < synced);
			assert_ok(append(l, 10));
			check_contents(l, 30000, 0);
			au_landing_close(l);
		}
	}
}

/* One bit anywhere: refused if it was synced, else cut off; never wrong. */
static void
test_flipped_bits(void **state)
{
	AuLsn		synced;
	AuLsn		end;
	char		last[200];
	char		first[200];
	struct stat st;

	(void) state;
	make_two_segments(&synced, &end, last, sizeof(last));
	snprintf(first, sizeof(first), "%s/%016llX.log", copy, (unsigned long long) START);
	for (int which = 0; which < 2; which++)
	{
		const char *name = which ? last : first;

		copy_dir();
		assert_int_equal(stat(name, &st), 0);
		for (long at = 0; at < st.st_size; at += (at < 100 || which ? 1 : 97))
		{
			long		unsynced_at = which ? st.st_size - 2 * 40 - 250 : st.st_size;
			uint8_t		byte;
			int			fd;
			AuStatus	status;

			copy_dir();
			fd = open(name, O_RDWR);
			assert_true(fd >= 0);
			assert_int_equal(pread(fd, &byte, 1, at), 1);
			byte ^= (uint8_t) (1 << (at % 8));
			assert_int_equal(pwrite(fd, &byte, 1, at), 1);
			close(fd);
			if (at >= unsynced_at)
			{
				AuLanding  *l = open_dir(copy);

				assert_true(au_landing_end(l) >= synced && au_landing_end(l) < end);
				check_contents(l, 30000, 0);
				au_landing_close(l);
				continue;
			}
			status = try_open(copy);
			assert_true(status == AU_CORRUPT || status == AU_UNSUPPORTED);
		}
	}
}

/* Damage is noticed without the file "durable", too, if a later entry tells
 * that the place was durable. */
static void
test_marks_in_entries(void **state)
{
	AuLanding  *l = new_log();
	char		name[200];
	char		mark[200];
	struct stat st;

	(void) state;
	assert_ok(append(l, 1000));
	assert_ok(append(l, 1000));
	assert_ok(au_landing_sync(l, err, sizeof(err)));
	assert_ok(append(l, 1000));
	au_landing_close(l);
	snprintf(name, sizeof(name), "%s/%016llX.log", dir, (unsigned long long) START);
	snprintf(mark, sizeof(mark), "%s/durable", dir);
	unlink(mark);
	{
		int			fd = open(name, O_RDWR);

		assert_int_equal(pwrite(fd, "!", 1, 32 + 1040 + 500), 1);
		close(fd);
	}
	assert_int_equal(stat(name, &st), 0);
	assert_int_equal(try_open(dir), AU_CORRUPT);
	/* and nothing was touched */
	{
		struct stat now;

		assert_int_equal(stat(name, &now), 0);
		assert_int_equal(now.st_size, st.st_size);
	}
}

static void
test_lost_files(void **state)
{
	AuLsn		synced;
	AuLsn		end;
	char		last[200];
	char		first[200];
	char		other[200];

	(void) state;
	make_two_segments(&synced, &end, last, sizeof(last));
	snprintf(first, sizeof(first), "%s/%016llX.log", copy, (unsigned long long) START);
	snprintf(other, sizeof(other), "%s/%016llX.log", copy, (unsigned long long) (START + 500));

	copy_dir();
	unlink(last);
	assert_int_equal(try_open(copy), AU_CORRUPT);
	copy_dir();
	unlink(first);
	unlink(last);
	assert_int_equal(try_open(copy), AU_CORRUPT);
	assert_non_null(strstr(err, "lost its segments"));
	/* without the oldest it begins later, as after a trim */
	copy_dir();
	unlink(first);
	{
		AuLanding  *l = open_dir(copy);

		assert_true(au_landing_start(l) == START + 20000);
		au_landing_close(l);
	}
	/* under another name */
	copy_dir();
	unlink(last);
	assert_int_equal(rename(first, other), 0);
	assert_int_equal(try_open(copy), AU_CORRUPT);
	assert_non_null(strstr(err, "another name"));
	/* files that are none of ours stay */
	copy_dir();
	snprintf(other, sizeof(other), "%s/README.log", copy);
	close(open(other, O_CREAT | O_WRONLY, 0600));
	assert_ok(try_open(copy));
	assert_int_equal(access(other, F_OK), 0);
}

static void
test_damage_found_while_reading(void **state)
{
	AuLanding  *l = new_log();
	char		name[200];
	uint8_t		buf[3000];
	size_t		got;
	int			fd;

	(void) state;
	for (int i = 0; i < 3; i++)
		assert_ok(append(l, 1000));
	snprintf(name, sizeof(name), "%s/%016llX.log", dir, (unsigned long long) START);
	fd = open(name, O_RDWR);
	assert_int_equal(pwrite(fd, "!", 1, 32 + 1040 + 500), 1);
	close(fd);
	/* what is good comes first */
	assert_ok(au_landing_read(l, START, buf, sizeof(buf), &got, err, sizeof(err)));
	assert_int_equal(got, 1000);
	assert_int_equal(au_landing_read(l, START + 1000, buf, sizeof(buf), &got,
									 err, sizeof(err)), AU_CORRUPT);
	assert_non_null(strstr(err, "damaged"));
	au_landing_close(l);
}

/* Damage in segments that nobody needs any more costs these only; in one that is
 * needed, wherever in it, nothing is touched. */
static void
test_needed(void **state)
{
	AuLanding  *l = new_log();
	AuLandingOptions opt = options(dir);
	AuLsn		first[4];
	char		name[200];
	uint64_t	bytes;
	int			fd;

	(void) state;
	for (int i = 0; i < 4; i++)
	{
		first[i] = au_landing_end(l);
		for (int n = 0; n < 20; n++)
			assert_ok(append(l, 1000));
	}
	assert_ok(au_landing_sync(l, err, sizeof(err)));
	au_landing_close(l);
	snprintf(name, sizeof(name), "%s/%016llX.log", dir, (unsigned long long) first[1]);
	fd = open(name, O_RDWR);
	assert_int_equal(pwrite(fd, "!", 1, 32 + 3 * 1040 + 500), 1);
	close(fd);
	bytes = bytes_on_disk(dir);
	assert_int_equal(try_open(dir), AU_CORRUPT);
	for (opt.needed_lsn = first[0]; opt.needed_lsn < first[2]; opt.needed_lsn += 5000)
		assert_int_equal(au_landing_open(&l, &opt, err, sizeof(err)), AU_CORRUPT);
	opt.needed_lsn = first[2] - 1;
	assert_int_equal(au_landing_open(&l, &opt, err, sizeof(err)), AU_CORRUPT);
	assert_int_equal(bytes_on_disk(dir), bytes);
	opt.needed_lsn = first[3] - 1;
	assert_ok(au_landing_open(&l, &opt, err, sizeof(err)));
	assert_int_equal(au_landing_start(l), first[2]);
	assert_int_equal(au_landing_end(l), first[3] + 20 * 1000);
	check_contents(l, 4096, 4096);
	assert_ok(append(l, 1000));
	assert_ok(au_landing_sync(l, err, sizeof(err)));
	au_landing_close(l);
	l = open_dir(dir);
	assert_int_equal(au_landing_start(l), first[2]);
	check_contents(l, 4096, 4096);
	au_landing_close(l);
}

/* ---- persistent memory ------------------------------------------------ */

static int
on_pmem(void **state)
{
	(void) state;
	io = &au_landing_pmem_io;
	return 0;
}

static int
on_files(void **state)
{
	(void) state;
	io = &au_landing_file_io;
	return 0;
}

static void
test_pmem_is_shown(void **state)
{
	AuLanding  *l = new_log();

	(void) state;
	assert_true(au_landing_pmem_usable(dir, err, sizeof(err)));
	assert_string_equal(au_landing_kind(l), "pmem");
	assert_true(au_landing_sync_inline(l));
	/* a segment has its blocks before the first append */
	assert_true(au_landing_bytes(l) >= options(dir).segment_bytes);
	assert_int_equal(au_landing_bytes(l), bytes_on_disk(dir));
	au_landing_close(l);
	assert_false(au_landing_pmem_usable("/nonexistent", err, sizeof(err)));
	assert_non_null(strstr(err, "No such file"));
}

/* A log goes from one kind of disk to the other and back. */
static void
test_move_between_kinds(void **state)
{
	static const AuLandingIo *const kinds[] = {&au_landing_file_io, &au_landing_pmem_io};
	AuLanding  *l = new_log();
	AuLsn		end = START;

	(void) state;
	for (int i = 0; i < 8; i++)
	{
		for (int n = 0; n < 15; n++)
			assert_ok(append(l, 333));
		assert_ok(au_landing_sync(l, err, sizeof(err)));
		end += 15 * 333;
		check_contents(l, 1000, 0);
		if (i % 4 == 3)
		{
			end -= 1000;
			assert_ok(au_landing_truncate(l, end, err, sizeof(err)));
		}
		au_landing_close(l);
		io = kinds[i % 2];
		l = open_dir(dir);
		assert_true(au_landing_end(l) == end);
		assert_int_equal(au_landing_bytes(l), bytes_on_disk(dir));
		check_contents(l, 1000, 0);
	}
	au_landing_close(l);
}

/*
 * Appends and syncs without any system call: in strict mode the kernel kills a
 * process at its first one, except read, write and exit.
 */
static void
test_no_system_call(void **state)
{
	AuLanding  *l = new_log();
	int			status;
	pid_t		pid;

	(void) state;
	assert_ok(append(l, 100));
	assert_ok(au_landing_sync(l, err, sizeof(err)));
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
	{
		int			rc = 1;

		if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0)
			syscall(SYS_exit, 77);
		for (int i = 0; i < 15; i++)
		{
			if (append(l, 1000) != AU_OK || append(l, 1) != AU_OK ||
				au_landing_sync(l, err, sizeof(err)) != AU_OK)
				break;
			rc = i == 14 ? 0 : 1;
		}
		syscall(SYS_exit, rc);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	au_landing_close(l);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
	{
		print_message("no seccomp here, skipped\n");
		skip();
	}
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	l = open_dir(dir);
	assert_true(au_landing_end(l) == START + 100 + 15 * 1001);
	check_contents(l, 3000, 0);
	au_landing_close(l);
}

/* A disk without room: an error at the roll-over, not a signal at a store. */
static void
test_pmem_small_disk(void **state)
{
	AuLandingOptions opt = options(dir);
	AuLanding  *l;
	int			n = 0;

	(void) state;
	empty_dir(dir);
	if (mount("tmpfs", dir, "tmpfs", 0, "size=300k") != 0)
	{
		print_message("no mount allowed, skipped\n");
		skip();
	}
	opt.segment_bytes = 100000;
	assert_ok(au_landing_open(&l, &opt, err, sizeof(err)));
	while (append(l, 3000) == AU_OK)
		n++;
	assert_int_equal(n, 2 * (100000 / 3040));	/* two segments */
	assert_int_equal(append(l, 3000), AU_FULL);
	assert_ok(au_landing_sync(l, err, sizeof(err)));
	check_contents(l, 7000, 0);
	/* also after a restart: what there is can be read and trimmed */
	au_landing_close(l);
	assert_ok(au_landing_open(&l, &opt, err, sizeof(err)));
	assert_int_equal(append(l, 3000), AU_FULL);
	assert_ok(au_landing_trim(l, START + 100000, err, sizeof(err)));
	assert_ok(append(l, 3000));
	check_contents(l, 7000, 0);
	au_landing_close(l);

	/* the reserve is looked at where room is taken: for the next segment */
	opt.disk_reserve_bytes = 150000;
	assert_ok(au_landing_open(&l, &opt, err, sizeof(err)));
	while (append(l, 3000) == AU_OK)
		;
	assert_int_equal(append(l, 3000), AU_FULL);
	assert_non_null(strstr(err, "in reserve"));
	au_landing_close(l);
	assert_int_equal(umount(dir), 0);
}

/* A log of the first version, whose entries are not aligned, goes on. */
static void
test_version_1(void **state)
{
	AuLanding  *l = new_log();
	char		name[200];
	uint8_t		header[32];
	int			fd;

	(void) state;
	assert_ok(append(l, 1000));
	au_landing_close(l);
	snprintf(name, sizeof(name), "%s/%016llX.log", dir, (unsigned long long) START);
	fd = open(name, O_RDWR);
	assert_int_equal(pread(fd, header, 32, 0), 32);
	assert_int_equal(au_get_u32(header + 4), 2);
	au_put_u32(header + 4, 1);
	au_put_u32(header + 28, au_crc32c(0, header, 28));
	assert_int_equal(pwrite(fd, header, 32, 0), 32);
	close(fd);
	for (int i = 0; i < 40; i++)
	{
		io = i % 2 ? &au_landing_pmem_io : &au_landing_file_io;
		l = open_dir(dir);
		assert_ok(append(l, 501));
		assert_ok(append(l, 502));
		if (i == 0)
			assert_int_equal(au_landing_bytes(l), 32 + 1040 + 541 + 542);
		if (i == 20)
			assert_ok(au_landing_truncate(l, au_landing_end(l) - 700, err, sizeof(err)));
		check_contents(l, 3000, 0);
		au_landing_close(l);
	}
	l = open_dir(dir);
	assert_true(au_landing_end(l) == START + 1000 + 40 * 1003 - 700);
	check_contents(l, 3000, 0);
	au_landing_close(l);
}

/* ---- disks that are full ---------------------------------------------- */

static void
test_file_size_limit(void **state)
{
	AuLandingOptions opt = options(dir);
	AuLanding  *l;
	struct rlimit old;
	struct rlimit limit;
	int			n = 0;
	AuLsn		end;

	(void) state;
	empty_dir(dir);
	opt.segment_bytes = 1 << 30;
	assert_ok(au_landing_open(&l, &opt, err, sizeof(err)));
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	limit = old;
	limit.rlim_cur = 100000;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	while (append(l, 3000) == AU_OK)
		n++;
	end = au_landing_end(l);
	assert_int_equal(n, (100000 - 32) / 3040);
	assert_int_equal(append(l, 3000), AU_FULL);
	assert_non_null(strstr(err, "File too large"));
	check_contents(l, 7000, 0);
	assert_int_equal(au_landing_bytes(l), bytes_on_disk(dir));
	/* what fits goes on, and all of it later */
	assert_ok(append(l, 100));
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_ok(append(l, 3000));
	assert_ok(au_landing_sync(l, err, sizeof(err)));
	check_contents(l, 7000, 0);
	au_landing_close(l);
	l = open_dir(dir);
	assert_true(au_landing_end(l) == end + 3100);
	check_contents(l, 7000, 0);
	au_landing_close(l);
}

static void
test_small_disk(void **state)
{
	AuLandingOptions opt = options(dir);
	AuLanding  *l;
	int			n = 0;

	(void) state;
	empty_dir(dir);
	if (mount("tmpfs", dir, "tmpfs", 0, "size=1m") != 0)
	{
		print_message("no mount allowed, skipped\n");
		skip();
	}
	assert_ok(au_landing_open(&l, &opt, err, sizeof(err)));
	while (append(l, 3000) == AU_OK)
		n++;
	assert_true(n > 250);
	assert_int_equal(append(l, 3000), AU_FULL);
	check_contents(l, 7000, 0);
	assert_ok(au_landing_sync(l, err, sizeof(err)));
	/* room is made by trimming, also after a restart on the full disk */
	au_landing_close(l);
	assert_ok(au_landing_open(&l, &opt, err, sizeof(err)));
	assert_int_equal(append(l, 30000), AU_FULL);
	assert_ok(au_landing_trim(l, START + 300000, err, sizeof(err)));
	assert_ok(append(l, 30000));
	check_contents(l, 7000, 0);
	au_landing_close(l);

	opt.disk_reserve_bytes = 500000;
	assert_ok(au_landing_open(&l, &opt, err, sizeof(err)));
	assert_int_equal(append(l, 3000), AU_FULL);
	assert_non_null(strstr(err, "in reserve"));
	au_landing_close(l);
	assert_int_equal(umount(dir), 0);
}

/* ---- the disk in memory ----------------------------------------------- */

static AuStatus
open_mem(AuLanding **l)
{
	AuLandingOptions opt = options("memory");

	opt.io = &memdisk_io;
	return au_landing_open(l, &opt, err, sizeof(err));
}

static void
test_failing_writes(void **state)
{
	AuLanding  *l;

	(void) state;
	memdisk_format(1);
	assert_ok(open_mem(&l));
	for (int i = 0; i < 200; i++)
	{
		AuLsn		before = au_landing_end(l);

		/* each second append fails, also those that begin a segment */
		memdisk.writes_left = 0;
		assert_int_equal(append(l, 700), AU_FULL);
		assert_true(au_landing_end(l) == before);
		memdisk.writes_left = 1;
		(void) append(l, 700);
		memdisk.writes_left = -1;
	}
	check_contents(l, 3000, 0);
	au_landing_close(l);
	assert_ok(open_mem(&l));
	check_contents(l, 3000, 0);

	/* not even the cut succeeds: the log must be opened again */
	memdisk.writes_left = 0;
	memdisk.truncates_left = 0;
	assert_int_equal(append(l, 700), AU_CORRUPT);
	memdisk.writes_left = -1;
	memdisk.truncates_left = -1;
	assert_int_equal(append(l, 700), AU_CORRUPT);
	au_landing_close(l);
	assert_ok(open_mem(&l));
	assert_ok(append(l, 700));
	check_contents(l, 3000, 0);
	au_landing_close(l);
}

static void
test_failed_sync_is_final(void **state)
{
	AuLanding  *l;
	AuLsn		durable;

	(void) state;
	memdisk_format(1);
	assert_ok(open_mem(&l));
	assert_ok(append(l, 700));
	assert_ok(au_landing_sync(l, err, sizeof(err)));
	durable = au_landing_durable(l);
	assert_ok(append(l, 700));
	memdisk.syncs_left = 0;
	assert_int_equal(au_landing_sync(l, err, sizeof(err)), AU_IO);
	memdisk.syncs_left = -1;
	assert_int_equal(au_landing_sync(l, err, sizeof(err)), AU_IO);
	assert_int_equal(append(l, 700), AU_IO);
	assert_int_equal(au_landing_truncate(l, START, err, sizeof(err)), AU_IO);
	assert_int_equal(au_landing_trim(l, durable, err, sizeof(err)), AU_IO);
	assert_true(au_landing_durable(l) == durable);
	check_contents(l, 3000, 0);
	au_landing_close(l);
}

/* A disk that is full when the log is cut in the middle of an entry. */
static void
test_truncate_without_room(void **state)
{
	AuLanding  *l;

	(void) state;
	memdisk_format(1);
	assert_ok(open_mem(&l));
	for (int i = 0; i < 40; i++)
		assert_ok(append(l, 1000));
	assert_ok(au_landing_sync(l, err, sizeof(err)));
	memdisk.writes_left = 0;
	assert_int_equal(au_landing_truncate(l, START + 5500, err, sizeof(err)), AU_FULL);
	memdisk.writes_left = -1;
	assert_true(au_landing_end(l) == START + 40000);
	assert_ok(append(l, 1000));
	check_contents(l, 3000, 0);
	au_landing_close(l);
}

/* ---- two threads ------------------------------------------------------ */

static void *
sync_often(void *arg)
{
	AuLanding  *l = arg;
	char		why[512];
	AuLsn		last = 0;

	while (last < START + 3000000)
	{
		if (au_landing_sync(l, why, sizeof(why)) != AU_OK ||
			au_landing_durable(l) < last)
			return (void *) 1;
		last = au_landing_durable(l);
	}
	return NULL;
}

static void
test_sync_on_another_thread(void **state)
{
	AuLanding  *l = new_log();
	pthread_t	thread;
	void	   *result;
	uint8_t		buf[5000];
	AuLsn		applied = START;

	(void) state;
	assert_int_equal(pthread_create(&thread, NULL, sync_often, l), 0);
	while (au_landing_end(l) < START + 3000000)
	{
		assert_ok(append(l, 1 + (size_t) (au_landing_end(l) % 4001)));
		assert_true(au_landing_durable(l) <= au_landing_end(l));
		while (applied < au_landing_durable(l))
		{
			size_t		got;

			assert_ok(au_landing_read(l, applied, buf, sizeof(buf), &got, err, sizeof(err)));
			assert_memory_equal(buf, stream + (applied - START), got);
			applied += got;
		}
		if (applied > START + 100000)
			assert_ok(au_landing_trim(l, applied - 100000, err, sizeof(err)));
	}
	assert_int_equal(pthread_join(thread, &result), 0);
	assert_null(result);
	check_contents(l, 5000, 0);
	au_landing_close(l);
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_append_and_read, on_pmem),
		cmocka_unit_test_setup(test_refusals, on_pmem),
		cmocka_unit_test_setup(test_trim, on_pmem),
		cmocka_unit_test_setup(test_truncate, on_pmem),
		cmocka_unit_test_setup(test_damage_found_while_reading, on_pmem),
		cmocka_unit_test_setup(test_needed, on_pmem),
		cmocka_unit_test_setup(test_pmem_is_shown, on_pmem),
		cmocka_unit_test_setup(test_no_system_call, on_pmem),
		cmocka_unit_test_setup(test_pmem_small_disk, on_pmem),
		cmocka_unit_test_setup(test_move_between_kinds, on_pmem),
		cmocka_unit_test_setup(test_version_1, on_files),
		cmocka_unit_test_setup(test_append_and_read, on_files),
		cmocka_unit_test(test_wrong_appends),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_trim),
		cmocka_unit_test(test_forget),
		cmocka_unit_test(test_truncate),
		cmocka_unit_test(test_every_prefix),
		cmocka_unit_test(test_flipped_bits),
		cmocka_unit_test(test_marks_in_entries),
		cmocka_unit_test(test_lost_files),
		cmocka_unit_test(test_damage_found_while_reading),
		cmocka_unit_test(test_needed),
		cmocka_unit_test(test_file_size_limit),
		cmocka_unit_test(test_small_disk),
		cmocka_unit_test(test_failing_writes),
		cmocka_unit_test(test_failed_sync_is_final),
		cmocka_unit_test(test_truncate_without_room),
		cmocka_unit_test(test_sync_on_another_thread),
	};

	/* libpmem looks at its switch when it is loaded. */
	if (getenv("PMEM_IS_PMEM_FORCE") == NULL)
	{
		setenv("PMEM_IS_PMEM_FORCE", "1", 1);
		(void) argc;
		execv("/proc/self/exe", argv);
		return 1;
	}
	return cmocka_run_group_tests(tests, setup, teardown);
}
