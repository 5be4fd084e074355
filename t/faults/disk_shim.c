/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_shim.c: preloaded into aurora_storaged, makes its disk slow, full or
 * broken, as a control file says (AURORA_DISK_SHIM names it; absent or empty:
 * an ordinary disk):
 *
 *   slow MICROSECONDS [PART]   each fdatasync and fsync takes so much longer; with
 *                        PART only of files whose path contains it
 *   full                 writes and allocations fail with ENOSPC
 *   broken               fdatasync and fsync fail with EIO
 *
 * The file is looked at again every 20 ms.  Only regular files are touched,
 * and not standard output and error.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { ORDINARY, SLOW, FULL, BROKEN };

static atomic_int mode;
static atomic_long slow_us;
static atomic_long looked_ms;
static const char *slow_part;	/* NULL: all files; set once, before the first wait */

static void
look(void)
{
	const char *path = getenv("AURORA_DISK_SHIM");
	struct timespec now;
	long		ms;
	char		text[64] = "";
	FILE	   *f;

	clock_gettime(CLOCK_MONOTONIC, &now);
	ms = now.tv_sec * 1000 + now.tv_nsec / 1000000;
	if (path == NULL || ms - atomic_load(&looked_ms) < 20)
		return;
	atomic_store(&looked_ms, ms);
	f = fopen(path, "re");
	if (f != NULL)
	{
		if (fgets(text, sizeof(text), f) == NULL)
			text[0] = '\0';
		fclose(f);
	}
	if (strncmp(text, "slow ", 5) == 0)
	{
		static char part[64];

		if (slow_part == NULL && sscanf(text, "slow %*d %63s", part) == 1)
			slow_part = part;
		atomic_store(&slow_us, atol(text + 5));
		atomic_store(&mode, SLOW);
	}
	else
		atomic_store(&mode, strncmp(text, "full", 4) == 0 ? FULL :
					 strncmp(text, "broken", 6) == 0 ? BROKEN : ORDINARY);
}

/* What the disk of this descriptor is like now. */
static int
disk_of(int fd)
{
	struct stat st;

	if (fd <= 2 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
		return ORDINARY;
	look();
	return atomic_load(&mode);
}

static int
full(int fd)
{
	return disk_of(fd) == FULL;
}

/* Is it one of the files that are slow? */
static int
is_slow(int fd)
{
	char		link[64];
	char		path[512];
	ssize_t		n;

	if (slow_part == NULL)
		return 1;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	path[n > 0 ? n : 0] = '\0';
	return strstr(path, slow_part) != NULL;
}

static int
before_sync(int fd)
{
	int			m = disk_of(fd);

	if (m == SLOW && is_slow(fd))
		usleep((useconds_t) atomic_load(&slow_us));
	if (m == BROKEN)
	{
		errno = EIO;
		return -1;
	}
	return 0;
}

#define NEXT(name) ((__typeof__(&name)) dlsym(RTLD_NEXT, #name))
#define FAIL_IF_FULL(fd) do { if (full(fd)) { errno = ENOSPC; return -1; } } while (0)

int
fdatasync(int fd)
{
	return before_sync(fd) != 0 ? -1 : NEXT(fdatasync)(fd);
}

int
fsync(int fd)
{
	return before_sync(fd) != 0 ? -1 : NEXT(fsync)(fd);
}

ssize_t
write(int fd, const void *p, size_t n)
{
	FAIL_IF_FULL(fd);
	return NEXT(write)(fd, p, n);
}

ssize_t
pwrite(int fd, const void *p, size_t n, off_t at)
{
	FAIL_IF_FULL(fd);
	return NEXT(pwrite)(fd, p, n, at);
}

ssize_t
pwrite64(int fd, const void *p, size_t n, off64_t at)
{
	FAIL_IF_FULL(fd);
	return NEXT(pwrite64)(fd, p, n, at);
}

ssize_t
pwritev(int fd, const struct iovec *v, int n, off_t at)
{
	FAIL_IF_FULL(fd);
	return NEXT(pwritev)(fd, v, n, at);
}

ssize_t
writev(int fd, const struct iovec *v, int n)
{
	FAIL_IF_FULL(fd);
	return NEXT(writev)(fd, v, n);
}

int
fallocate(int fd, int how, off_t at, off_t n)
{
	FAIL_IF_FULL(fd);
	return NEXT(fallocate)(fd, how, at, n);
}

int
posix_fallocate(int fd, off_t at, off_t n)
{
	return full(fd) ? ENOSPC : NEXT(posix_fallocate)(fd, at, n);
}
