/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_landing_file.c: the landing log on ordinary files.  Durable is what
 * fdatasync has returned for; the directory's lock keeps a second process
 * out for as long as it is open.
 *
 * Invariants:
 *  1. A write returns 0 only if all its bytes were taken.
 *  2. EINTR never reaches the caller.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE				/* pwritev */
#endif
#include "store/au_landing_io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

/* A handle is the descriptor itself; +1 so that it is never NULL. */
static void *
to_handle(int fd)
{
	return (void *) (intptr_t) (fd + 1);
}

static int
to_fd(void *handle)
{
	return (int) (intptr_t) handle - 1;
}

static int
posix_dir_open(const char *path, void **dir)
{
	int			fd;

	if (mkdir(path, 0700) != 0 && errno != EEXIST)
		return errno;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	if (flock(fd, LOCK_EX | LOCK_NB) != 0)
	{
		int			e = (errno == EWOULDBLOCK) ? EBUSY : errno;

		close(fd);
		return e;
	}
	*dir = to_handle(fd);
	return 0;
}

static void
posix_close(void *handle)
{
	/* Whatever had to be kept was synced before; nothing to learn here. */
	(void) close(to_fd(handle));
}

static int
posix_dir_list(void *dir, AuLandingNameFn each, void *ctx)
{
	int			fd = openat(to_fd(dir), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR		   *d;
	struct dirent *ent;
	int			e;

	if (fd < 0)
		return errno;
	d = fdopendir(fd);
	if (d == NULL)
	{
		e = errno;
		close(fd);
		return e;
	}
	while (errno = 0, (ent = readdir(d)) != NULL)
		each(ctx, ent->d_name);
	e = errno;
	closedir(d);
	return e;
}

static int
posix_dir_free(void *dir, uint64_t *bytes)
{
	struct statvfs vfs;

	if (fstatvfs(to_fd(dir), &vfs) != 0)
		return errno;
	*bytes = (uint64_t) vfs.f_bavail * vfs.f_frsize;
	return 0;
}

static int
posix_dir_sync(void *dir)
{
	return fsync(to_fd(dir)) == 0 ? 0 : errno;
}

static int
posix_remove(void *dir, const char *name)
{
	return unlinkat(to_fd(dir), name, 0) == 0 ? 0 : errno;
}

static int
posix_rename(void *dir, const char *from, const char *to)
{
	return renameat(to_fd(dir), from, to_fd(dir), to) == 0 ? 0 : errno;
}

static int
posix_file_open(void *dir, const char *name, bool create, void **file)
{
	int			flags = O_RDWR | O_CLOEXEC | (create ? O_CREAT | O_TRUNC : 0);
	int			fd = openat(to_fd(dir), name, flags, 0600);

	if (fd < 0)
		return errno;
	*file = to_handle(fd);
	return 0;
}

static int
posix_file_size(void *file, uint64_t *size)
{
	struct stat st;

	if (fstat(to_fd(file), &st) != 0)
		return errno;
	*size = (uint64_t) st.st_size;
	return 0;
}

static int
posix_read(void *file, uint64_t off, void *buf, size_t len, size_t *got)
{
	*got = 0;
	while (*got < len)
	{
		ssize_t		n = pread(to_fd(file), (char *) buf + *got, len - *got,
							  (off_t) (off + *got));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno;
		if (n == 0)
			break;
		*got += (size_t) n;
	}
	return 0;
}

static int
posix_write(void *file, uint64_t off, const void *a, size_t alen,
			const void *b, size_t blen)
{
	size_t		done = 0;

	while (done < alen + blen)
	{
		struct iovec iov[2];
		int			n = 0;
		ssize_t		rc;
		size_t		b_done = done > alen ? done - alen : 0;

		if (done < alen)
			iov[n++] = (struct iovec) {(char *) a + done, alen - done};
		if (b_done < blen)
			iov[n++] = (struct iovec) {(char *) b + b_done, blen - b_done};
		rc = pwritev(to_fd(file), iov, n, (off_t) (off + done));
		if (rc < 0 && errno == EINTR)
			continue;
		if (rc < 0)
			return errno;
		if (rc == 0)
			return ENOSPC;		/* no reason was given: nothing fits */
		done += (size_t) rc;
	}
	return 0;
}

static int
posix_truncate(void *file, uint64_t size)
{
	int			rc;

	do
		rc = ftruncate(to_fd(file), (off_t) size);
	while (rc != 0 && errno == EINTR);
	return rc == 0 ? 0 : errno;
}

static int
posix_sync(void *file)
{
	/* Not repeated on failure: the kernel may have forgotten the pages. */
	return fdatasync(to_fd(file)) == 0 ? 0 : errno;
}

const AuLandingIo au_landing_file_io = {
	.kind = "file",
	.dir_open = posix_dir_open,
	.dir_close = posix_close,
	.dir_list = posix_dir_list,
	.dir_free = posix_dir_free,
	.dir_sync = posix_dir_sync,
	.file_remove = posix_remove,
	.file_rename = posix_rename,
	.file_open = posix_file_open,
	.file_close = posix_close,
	.file_size = posix_file_size,
	.file_read = posix_read,
	.file_write = posix_write,
	.file_truncate = posix_truncate,
	.file_sync = posix_sync,
};
