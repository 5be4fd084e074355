/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memdisk.h: a disk in memory for the landing log (au_landing_io.h) that
 * loses power and fails on purpose.
 *
 * Each file has what is synced and what was written.  A power cut decides for
 * each 512-byte sector, for the size, and for each name in the directory by
 * itself, whether the old or the new state survives: harsher than any file
 * system, and independent of the order of writes.
 */
#ifndef AU_TEST_MEMDISK_H
#define AU_TEST_MEMDISK_H

#include <errno.h>
#include <stdlib.h>

#include "store/au_landing_io.h"

#define MEMDISK_FILES 256
#define MEMDISK_SECTOR 512u

typedef struct MemBytes
{
	uint8_t    *p;
	size_t		len;
} MemBytes;

typedef struct MemFile
{
	MemBytes	now;
	MemBytes	synced;
	int			refs;			/* names and open handles */
} MemFile;

typedef struct MemName
{
	char		name[32];
	MemFile    *now;			/* NULL: no such name */
	MemFile    *synced;
} MemName;

/* The one disk. */
typedef struct MemDisk
{
	MemName		names[MEMDISK_FILES];
	int			n_names;
	uint64_t	random;
	uint64_t	free_bytes;
	int			writes_left;	/* then ENOSPC, half written; -1: never */
	int			syncs_left;		/* then EIO; -1: never */
	int			truncates_left; /* then EIO; -1: never */
	int			calls_left;		/* changes until the power fails; -1: never */
	bool		off;			/* it has failed: everything is EIO */
} MemDisk;

static MemDisk memdisk;

static inline uint64_t
memdisk_random(void)
{
	/* xorshift64* */
	memdisk.random ^= memdisk.random >> 12;
	memdisk.random ^= memdisk.random << 25;
	memdisk.random ^= memdisk.random >> 27;
	return memdisk.random * 0x2545F4914F6CDD1DULL;
}

static inline void
mem_set(MemBytes *b, const uint8_t *p, size_t len)
{
	uint8_t    *copy = malloc(len + 1);

	if (copy == NULL)
		abort();
	if (len > 0)
		memcpy(copy, p, len);
	free(b->p);
	b->p = copy;
	b->len = len;
}

static inline void
mem_resize(MemBytes *b, size_t len)
{
	b->p = realloc(b->p, len + 1);
	if (b->p == NULL)
		abort();
	if (len > b->len)
		memset(b->p + b->len, 0, len - b->len);
	b->len = len;
}

static inline void
mem_unref(MemFile *f)
{
	if (f != NULL && --f->refs == 0)
	{
		free(f->now.p);
		free(f->synced.p);
		free(f);
	}
}

/* A call that changes the disk: does it still happen? */
static inline bool
mem_power(void)
{
	if (memdisk.calls_left == 0)
		memdisk.off = true;
	if (memdisk.calls_left > 0)
		memdisk.calls_left--;
	return !memdisk.off;
}

static inline MemName *
mem_find(const char *name, bool add)
{
	for (int i = 0; i < memdisk.n_names; i++)
	{
		if (strcmp(memdisk.names[i].name, name) == 0)
			return &memdisk.names[i];
	}
	if (!add || memdisk.n_names == MEMDISK_FILES)
		return NULL;
	memset(&memdisk.names[memdisk.n_names], 0, sizeof(MemName));
	strcpy(memdisk.names[memdisk.n_names].name, name);
	return &memdisk.names[memdisk.n_names++];
}

static inline void
mem_point(MemFile **where, MemFile *f)
{
	if (f != NULL)
		f->refs++;
	mem_unref(*where);
	*where = f;
}

static int
mem_dir_open(const char *path, void **dir)
{
	(void) path;
	*dir = &memdisk;
	return 0;
}

static void
mem_dir_close(void *dir)
{
	(void) dir;
}

static int
mem_dir_list(void *dir, AuLandingNameFn each, void *ctx)
{
	(void) dir;
	for (int i = 0; i < memdisk.n_names; i++)
	{
		if (memdisk.names[i].now != NULL)
			each(ctx, memdisk.names[i].name);
	}
	return 0;
}

static int
mem_dir_free(void *dir, uint64_t *bytes)
{
	(void) dir;
	*bytes = memdisk.free_bytes;
	return 0;
}

static int
mem_dir_sync(void *dir)
{
	(void) dir;
	if (!mem_power())
		return EIO;
	for (int i = 0; i < memdisk.n_names; i++)
		mem_point(&memdisk.names[i].synced, memdisk.names[i].now);
	return 0;
}

static int
mem_remove(void *dir, const char *name)
{
	MemName    *n = mem_find(name, false);

	(void) dir;
	if (!mem_power())
		return EIO;
	if (n == NULL || n->now == NULL)
		return ENOENT;
	mem_point(&n->now, NULL);
	return 0;
}

static int
mem_rename(void *dir, const char *from, const char *to)
{
	MemName    *a = mem_find(from, false);
	MemName    *b = mem_find(to, true);

	(void) dir;
	if (!mem_power())
		return EIO;
	if (a == NULL || a->now == NULL)
		return ENOENT;
	mem_point(&b->now, a->now);
	mem_point(&a->now, NULL);
	return 0;
}

static int
mem_file_open(void *dir, const char *name, bool create, void **file)
{
	MemName    *n = mem_find(name, create);

	(void) dir;
	if (n == NULL || (n->now == NULL && !create))
		return n == NULL && create ? ENOSPC : ENOENT;
	if (create)
	{
		if (!mem_power())
			return EIO;
		if (n->now == NULL)
		{
			MemFile    *f = calloc(1, sizeof(*f));

			if (f == NULL)
				abort();
			mem_point(&n->now, f);
		}
		else
			mem_resize(&n->now->now, 0);
	}
	n->now->refs++;
	*file = n->now;
	return 0;
}

static void
mem_file_close(void *file)
{
	mem_unref(file);
}

static int
mem_file_size(void *file, uint64_t *size)
{
	*size = ((MemFile *) file)->now.len;
	return 0;
}

static int
mem_file_read(void *file, uint64_t off, void *buf, size_t len, size_t *got)
{
	MemBytes   *b = &((MemFile *) file)->now;

	*got = 0;
	if (off < b->len)
		*got = b->len - off < len ? (size_t) (b->len - off) : len;
	if (*got > 0)
		memcpy(buf, b->p + off, *got);
	return 0;
}

static int
mem_file_write(void *file, uint64_t off, const void *a, size_t alen,
			   const void *b, size_t blen)
{
	MemBytes   *m = &((MemFile *) file)->now;
	size_t		len = alen + blen;
	int			e = 0;

	if (!mem_power())
		return EIO;
	if (memdisk.writes_left == 0)
	{
		e = ENOSPC;
		len /= 2;
	}
	else if (memdisk.writes_left > 0)
		memdisk.writes_left--;
	if (off + len > m->len)
		mem_resize(m, (size_t) (off + len));
	memcpy(m->p + off, a, alen < len ? alen : len);
	if (len > alen)
		memcpy(m->p + off + alen, b, len - alen);
	return e;
}

static int
mem_file_truncate(void *file, uint64_t size)
{
	if (!mem_power())
		return EIO;
	if (memdisk.truncates_left == 0)
		return EIO;
	mem_resize(&((MemFile *) file)->now, (size_t) size);
	return 0;
}

static int
mem_file_sync(void *file)
{
	MemFile    *f = file;

	if (!mem_power())
		return EIO;
	if (memdisk.syncs_left == 0)
		return EIO;
	if (memdisk.syncs_left > 0)
		memdisk.syncs_left--;
	mem_set(&f->synced, f->now.p, f->now.len);
	return 0;
}

static const AuLandingIo memdisk_io = {
	.dir_open = mem_dir_open,
	.dir_close = mem_dir_close,
	.dir_list = mem_dir_list,
	.dir_free = mem_dir_free,
	.dir_sync = mem_dir_sync,
	.file_remove = mem_remove,
	.file_rename = mem_rename,
	.file_open = mem_file_open,
	.file_close = mem_file_close,
	.file_size = mem_file_size,
	.file_read = mem_file_read,
	.file_write = mem_file_write,
	.file_truncate = mem_file_truncate,
	.file_sync = mem_file_sync,
};

/* What is left of a file. */
static inline void
mem_cut_file(MemFile *f)
{
	size_t		sizes[3];
	size_t		size;
	MemBytes	left = {0};

	sizes[0] = f->synced.len;
	sizes[1] = f->now.len;
	sizes[2] = sizes[0] < sizes[1] ?
		sizes[0] + memdisk_random() % (sizes[1] - sizes[0] + 1) : sizes[1];
	size = sizes[memdisk_random() % 3];
	mem_resize(&left, size);
	for (size_t off = 0; off < size; off += MEMDISK_SECTOR)
	{
		const MemBytes *from = memdisk_random() % 2 ? &f->now : &f->synced;
		size_t		n = size - off < MEMDISK_SECTOR ? size - off : MEMDISK_SECTOR;

		if (from->len > off)
			memcpy(left.p + off, from->p + off,
				   from->len - off < n ? from->len - off : n);
	}
	mem_set(&f->now, left.p, left.len);
	mem_set(&f->synced, left.p, left.len);
	free(left.p);
}

/* All handles must be closed. */
static inline void
memdisk_power_cut(void)
{
	for (int i = 0; i < memdisk.n_names; i++)
	{
		MemName    *n = &memdisk.names[i];

		if (n->now != n->synced)
			mem_point(&n->now, memdisk_random() % 2 ? n->now : n->synced);
		mem_point(&n->synced, n->now);
	}
	for (int i = 0; i < memdisk.n_names; i++)
	{
		if (memdisk.names[i].now != NULL)
			mem_cut_file(memdisk.names[i].now);
	}
	memdisk.off = false;
	memdisk.calls_left = -1;
}

/* A new, empty disk. */
static inline void
memdisk_format(uint64_t seed)
{
	for (int i = 0; i < memdisk.n_names; i++)
	{
		mem_point(&memdisk.names[i].now, NULL);
		mem_point(&memdisk.names[i].synced, NULL);
	}
	memset(&memdisk, 0, sizeof(memdisk));
	memdisk.random = seed * 2 + 1;
	memdisk.free_bytes = UINT64_MAX;
	memdisk.writes_left = -1;
	memdisk.syncs_left = -1;
	memdisk.truncates_left = -1;
	memdisk.calls_left = -1;
	for (int i = 0; i < 10; i++)
		(void) memdisk_random();
}

#endif							/* AU_TEST_MEMDISK_H */
