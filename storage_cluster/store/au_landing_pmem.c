/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_landing_pmem.c: the landing log on persistent memory, through libpmem.
 *
 *   file_allocate   pmem_map_file, which allocates the blocks; fsync
 *   file_write      copied past the CPU's caches, or flushed out of them
 *   file_store8     one aligned store, flushed
 *   file_sync       pmem_drain: what the lines above sent has arrived
 *
 * Directories are those of au_landing_file.c.  Files are read through their
 * descriptors, not the mapping: a damaged place of the medium is then EIO
 * instead of a signal.
 *
 * Invariants:
 *  1. Each store into a mapping goes through libpmem and is flushed by the
 *     function that makes it; only the drain is left to file_sync.
 *  2. Nothing is mapped for writing that has no block on the disk, so a full
 *     disk is an error in file_allocate and never a SIGBUS.
 *  3. A file that libpmem does not take for persistent memory is refused
 *     (ENOTSUP): there a drain would promise what it cannot keep.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "store/au_landing_io.h"

#include <errno.h>
#include <fcntl.h>
#include <libpmem.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define PROBE_NAME "probe.tmp"

typedef struct PmemDir
{
	void	   *posix;			/* handle of au_landing_file_io */
	char		path[];
} PmemDir;

typedef struct PmemFile
{
	void	   *posix;			/* handle of au_landing_file_io */
	uint8_t    *map;			/* NULL: not allocated through this handle */
	size_t		mapped;
	uint64_t	used;			/* nothing was stored above this, while mapped */
	char		path[];
} PmemFile;

/* ---- directories ------------------------------------------------------ */

static int
pmem_dir_open(const char *path, void **dir)
{
	PmemDir    *d = malloc(sizeof(*d) + strlen(path) + 1);
	int			e;

	if (d == NULL)
		return ENOMEM;
	strcpy(d->path, path);
	e = au_landing_file_io.dir_open(path, &d->posix);
	if (e != 0)
	{
		free(d);
		return e;
	}
	*dir = d;
	return 0;
}

static void
pmem_dir_close(void *dir)
{
	au_landing_file_io.dir_close(((PmemDir *) dir)->posix);
	free(dir);
}

static int
pmem_dir_list(void *dir, AuLandingNameFn each, void *ctx)
{
	return au_landing_file_io.dir_list(((PmemDir *) dir)->posix, each, ctx);
}

static int
pmem_dir_free(void *dir, uint64_t *bytes)
{
	return au_landing_file_io.dir_free(((PmemDir *) dir)->posix, bytes);
}

static int
pmem_dir_sync(void *dir)
{
	return au_landing_file_io.dir_sync(((PmemDir *) dir)->posix);
}

static int
pmem_file_remove(void *dir, const char *name)
{
	return au_landing_file_io.file_remove(((PmemDir *) dir)->posix, name);
}

static int
pmem_file_rename(void *dir, const char *from, const char *to)
{
	return au_landing_file_io.file_rename(((PmemDir *) dir)->posix, from, to);
}

/* ---- files ------------------------------------------------------------ */

static int
pmem_file_open(void *dir, const char *name, bool create, void **file)
{
	PmemDir    *d = dir;
	size_t		len = strlen(d->path) + strlen(name) + 2;
	PmemFile   *f = calloc(1, sizeof(*f) + len);
	int			e;

	if (f == NULL)
		return ENOMEM;
	snprintf(f->path, len, "%s/%s", d->path, name);
	e = au_landing_file_io.file_open(d->posix, name, create, &f->posix);
	if (e != 0)
	{
		free(f);
		return e;
	}
	*file = f;
	return 0;
}

static void
unmap(PmemFile *f)
{
	if (f->map != NULL)
		(void) pmem_unmap(f->map, f->mapped);
	f->map = NULL;
	f->mapped = 0;
}

static void
pmem_file_close(void *file)
{
	PmemFile   *f = file;

	unmap(f);
	au_landing_file_io.file_close(f->posix);
	free(f);
}

static int
pmem_file_size(void *file, uint64_t *size)
{
	return au_landing_file_io.file_size(((PmemFile *) file)->posix, size);
}

static int
pmem_file_read(void *file, uint64_t off, void *buf, size_t len, size_t *got)
{
	return au_landing_file_io.file_read(((PmemFile *) file)->posix, off, buf, len, got);
}

/* Maps at least `size` bytes and the whole file, all of it allocated: a copied
 * file may have holes, and a store into one could find the disk full. */
static int
map_file(const PmemFile *f, uint64_t size, void **map, size_t *len)
{
	uint64_t	now;
	int			is_pmem;
	int			e = au_landing_file_io.file_size(f->posix, &now);

	if (e != 0)
		return e;
	if (size < now)
		size = now;
	*map = pmem_map_file(f->path, (size_t) size, PMEM_FILE_CREATE, 0600, len, &is_pmem);
	if (*map == NULL)
		return errno != 0 ? errno : EIO;
	if (is_pmem && *len >= size)
		return 0;
	(void) pmem_unmap(*map, *len);
	return is_pmem ? EIO : ENOTSUP;
}

static int
pmem_file_allocate(void *file, uint64_t size, uint64_t *mapped)
{
	PmemFile   *f = file;
	uint64_t	now;
	void	   *map;
	size_t		len;
	int			e = pmem_file_size(f, &now);

	if (e == 0)
		e = map_file(f, size, &map, &len);
	if (e != 0)
		return e;
	e = au_landing_file_io.file_sync(f->posix);
	if (e != 0)
	{
		(void) pmem_unmap(map, len);
		return e;
	}
	unmap(f);
	f->map = map;
	f->mapped = len;
	f->used = now;
	*mapped = len;
	return 0;
}

/* Sends bytes on their way; where to is inside the mapping. */
static void
store(PmemFile *f, uint64_t off, const void *bytes, size_t len)
{
	if (len > 0)
		(void) pmem_memcpy(f->map + off, bytes, len, PMEM_F_MEM_NODRAIN);
	if (off + len > f->used)
		f->used = off + len;
}

static bool
inside(const PmemFile *f, uint64_t off, size_t len)
{
	return f->map != NULL && off <= f->mapped && len <= f->mapped - off;
}

static int
pmem_file_write(void *file, uint64_t off, const void *a, size_t alen,
				const void *b, size_t blen)
{
	if (!inside(file, off, alen + blen))
		return EFBIG;
	store(file, off, a, alen);
	store(file, off + alen, b, blen);
	return 0;
}

static int
pmem_file_store8(void *file, uint64_t off, const void *word)
{
	PmemFile   *f = file;
	uint64_t	v;

	if (off % sizeof(v) != 0 || !inside(f, off, sizeof(v)))
		return EINVAL;
	memcpy(&v, word, sizeof(v));
	atomic_store_explicit((_Atomic uint64_t *) (void *) (f->map + off), v, memory_order_relaxed);
	pmem_flush(f->map + off, sizeof(v));
	if (off + sizeof(v) > f->used)
		f->used = off + sizeof(v);
	return 0;
}

static int
pmem_file_truncate(void *file, uint64_t size)
{
	PmemFile   *f = file;

	if (f->map == NULL)
		return au_landing_file_io.file_truncate(f->posix, size);
	if (size < f->used)
		(void) pmem_memset(f->map + size, 0, (size_t) (f->used - size), PMEM_F_MEM_NODRAIN);
	return 0;
}

/*
 * Through another handle or by a process that died, stores may have been made
 * and not flushed: they are seen, but would not survive.  fsync does not look
 * for those of a MAP_SYNC mapping, so all of the file is flushed.
 */
static int
sync_unmapped(PmemFile *f)
{
	void	   *map;
	size_t		len;
	uint64_t	size;
	int			e = pmem_file_size(f, &size);

	if (e == 0 && size > 0)
	{
		e = map_file(f, size, &map, &len);
		if (e == 0)
		{
			pmem_persist(map, len);
			(void) pmem_unmap(map, len);
		}
	}
	return e == 0 ? au_landing_file_io.file_sync(f->posix) : e;
}

static int
pmem_file_sync(void *file)
{
	PmemFile   *f = file;

	if (f->map == NULL)
		return sync_unmapped(f);
	pmem_drain();
	return 0;
}

const AuLandingIo au_landing_pmem_io = {
	.kind = "pmem",
	.dir_open = pmem_dir_open,
	.dir_close = pmem_dir_close,
	.dir_list = pmem_dir_list,
	.dir_free = pmem_dir_free,
	.dir_sync = pmem_dir_sync,
	.file_remove = pmem_file_remove,
	.file_rename = pmem_file_rename,
	.file_open = pmem_file_open,
	.file_close = pmem_file_close,
	.file_size = pmem_file_size,
	.file_read = pmem_file_read,
	.file_write = pmem_file_write,
	.file_truncate = pmem_file_truncate,
	.file_sync = pmem_file_sync,
	.file_allocate = pmem_file_allocate,
	.file_store8 = pmem_file_store8,
};

/* ---- is it? ----------------------------------------------------------- */

bool
au_landing_pmem_usable(const char *dir, char *why, size_t whylen)
{
	size_t		len = strlen(dir) + sizeof(PROBE_NAME) + 1;
	char	   *path = malloc(len);
	size_t		mapped;
	int			is_pmem = 0;
	void	   *map;

	if (path == NULL)
	{
		snprintf(why, whylen, "out of memory");
		return false;
	}
	snprintf(path, len, "%s/%s", dir, PROBE_NAME);
	map = pmem_map_file(path, 4096, PMEM_FILE_CREATE, 0600, &mapped, &is_pmem);
	if (map == NULL)
		snprintf(why, whylen, "could not map a file in \"%s\": %s", dir, strerror(errno));
	else
	{
		(void) pmem_unmap(map, mapped);
		if (!is_pmem)
			snprintf(why, whylen, "\"%s\" is not on persistent memory (a file system mounted with dax)",
					 dir);
	}
	(void) unlink(path);
	free(path);
	return map != NULL && is_pmem;
}
