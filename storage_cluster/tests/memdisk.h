/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memdisk.h: a disk in memory for the landing log (au_landing_io.h) that
 * loses power and fails on purpose.
 *
 * Each file has what is synced and what was written.  A power cut decides for
 * each piece, for the size, and for each name in the directory by itself,
 * whether the old or the new state survives: harsher than any file system, and
 * independent of the order of writes.  A piece is
 *
 *   memdisk_io       a sector of 512 bytes
 *   memdisk_pmem_io  8 bytes, or a cache line of 64: stores that were flushed
 *                    and not drained (the log flushes what it stores), or that
 *                    the cache evicted by itself
 *
 * memdisk.bug plants a mistake, for tests that want to know whether they would
 * notice it.
 */
#ifndef AU_TEST_MEMDISK_H
#define AU_TEST_MEMDISK_H

#include <errno.h>
#include <stdlib.h>

#include "store/au_landing_io.h"

#ifndef MEMDISK_FILES
#define MEMDISK_FILES 256
#endif
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

/* What a careless log would do. */
typedef enum MemBug
{
	MEM_BUG_NONE,
	MEM_BUG_NO_SYNC,			/* segments are not synced (not drained) */
	MEM_BUG_NO_ORDER,			/* no drain before an entry's first word */
	MEM_BUG_NO_MARK_SYNC,		/* the mark is never synced */
	MEM_BUG_NO_DIR_SYNC,
	MEM_BUG_NO_TRUNCATE,		/* what was cut off stays in the file */
	MEM_BUGS
} MemBug;

/* Which pieces survive a power cut. */
typedef enum MemCut
{
	MEM_CUT_RANDOM,
	MEM_CUT_LINES,				/* random, but whole lines of 64 bytes */
	MEM_CUT_LOSE,				/* nothing that was not synced */
	MEM_CUT_KEEP				/* everything */
} MemCut;

typedef struct MemHandle
{
	MemFile    *f;
	uint64_t	mapped;			/* memdisk_pmem_io: 0: not */
	bool		is_log;
	bool		is_mark;
	bool		wrote;			/* and nothing since */
} MemHandle;

typedef struct MemName
{
	char		name[32];
	MemFile    *now;			/* NULL: no such name */
	MemFile    *synced;
} MemName;

/* A disk. */
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
	int			calls;			/* changes so far */
	MemBug		bug;
	MemCut		cut;
} MemDisk;

/* The one in use; the simulator has many and changes it. */
static MemDisk memdisk_one;
static MemDisk *memdisk_at = &memdisk_one;
#define memdisk (*memdisk_at)

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
	memdisk.calls++;
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
	for (int i = 0; i < memdisk.n_names && add; i++)
	{
		MemName    *n = &memdisk.names[i];

		if (n->now == NULL && n->synced == NULL)
		{
			strcpy(n->name, name);
			return n;
		}
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
	if (memdisk.bug == MEM_BUG_NO_DIR_SYNC)
		return 0;
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
	MemHandle  *h;

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
	h = calloc(1, sizeof(*h));
	if (h == NULL)
		abort();
	mem_point(&h->f, n->now);
	h->is_log = strstr(name, ".log") != NULL;
	h->is_mark = strcmp(name, "durable") == 0;
	*file = h;
	return 0;
}

static void
mem_file_close(void *file)
{
	mem_unref(((MemHandle *) file)->f);
	free(file);
}

static int
mem_file_size(void *file, uint64_t *size)
{
	*size = ((MemHandle *) file)->f->now.len;
	return 0;
}

static int
mem_file_read(void *file, uint64_t off, void *buf, size_t len, size_t *got)
{
	MemBytes   *b = &((MemHandle *) file)->f->now;

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
	MemBytes   *m = &((MemHandle *) file)->f->now;
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
	if (len == 0)
		return e;
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
	if (memdisk.bug != MEM_BUG_NO_TRUNCATE)
		mem_resize(&((MemHandle *) file)->f->now, (size_t) size);
	return 0;
}

static inline bool
mem_sync_forgotten(const MemHandle *h)
{
	switch (memdisk.bug)
	{
		case MEM_BUG_NO_SYNC:
			return h->is_log;
		case MEM_BUG_NO_ORDER:
			return h->is_log && h->mapped > 0 && h->wrote;
		case MEM_BUG_NO_MARK_SYNC:
			return h->is_mark;
		default:
			return false;
	}
}

static int
mem_file_sync(void *file)
{
	MemHandle  *h = file;
	MemFile    *f = h->f;
	bool		forgotten = mem_sync_forgotten(h);

	if (!mem_power())
		return EIO;
	if (memdisk.syncs_left == 0)
		return EIO;
	if (memdisk.syncs_left > 0)
		memdisk.syncs_left--;
	h->wrote = false;
	if (!forgotten)
		mem_set(&f->synced, f->now.p, f->now.len);
	return 0;
}

static const AuLandingIo memdisk_io = {
	.kind = "memory",
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

/* ---- persistent memory ------------------------------------------------ */

/* Only the size is durable afterwards, and zeros where nothing was. */
static int
mem_file_allocate(void *file, uint64_t size, uint64_t *mapped)
{
	MemHandle  *h = file;
	MemFile    *f = h->f;

	if (!mem_power())
		return EIO;
	if (memdisk.writes_left == 0)
		return ENOSPC;
	if (memdisk.writes_left > 0)
		memdisk.writes_left--;
	if (f->synced.len > f->now.len)
		mem_resize(&f->synced, f->now.len);
	if (size < f->now.len)
		size = f->now.len;
	mem_resize(&f->now, (size_t) size);
	mem_resize(&f->synced, (size_t) size);
	*mapped = h->mapped = size;
	return 0;
}

static int
mem_pmem_write(void *file, uint64_t off, const void *a, size_t alen,
			   const void *b, size_t blen)
{
	MemHandle  *h = file;

	if (!mem_power())
		return EIO;
	if (off > h->mapped || alen + blen > h->mapped - off)
		return EFBIG;
	memcpy(h->f->now.p + off, a, alen);
	if (blen > 0)
		memcpy(h->f->now.p + off + alen, b, blen);
	h->wrote = true;
	return 0;
}

static int
mem_pmem_store8(void *file, uint64_t off, const void *word)
{
	int			e = off % 8 == 0 ? mem_pmem_write(file, off, word, 8, NULL, 0) : EINVAL;

	((MemHandle *) file)->wrote = false;
	return e;
}

static int
mem_pmem_truncate(void *file, uint64_t size)
{
	MemHandle  *h = file;

	if (h->mapped == 0)
		return mem_file_truncate(file, size);
	if (!mem_power())
		return EIO;
	if (size < h->mapped && memdisk.bug != MEM_BUG_NO_TRUNCATE)
		memset(h->f->now.p + size, 0, (size_t) (h->mapped - size));
	return 0;
}

static const AuLandingIo memdisk_pmem_io = {
	.kind = "mapped memory",
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
	.file_write = mem_pmem_write,
	.file_truncate = mem_pmem_truncate,
	.file_sync = mem_file_sync,
	.file_allocate = mem_file_allocate,
	.file_store8 = mem_pmem_store8,
};

/* ---- the power cut ---------------------------------------------------- */

static inline bool
mem_survives(void)
{
	return memdisk.cut == MEM_CUT_KEEP ||
		(memdisk.cut != MEM_CUT_LOSE && memdisk_random() % 2);
}

static inline size_t
mem_cut_size(const MemFile *f)
{
	size_t		low = f->synced.len < f->now.len ? f->synced.len : f->now.len;
	size_t		high = f->synced.len < f->now.len ? f->now.len : f->synced.len;

	/* somewhere between, for an ordinary file that grew */
	if (memdisk.cut == MEM_CUT_RANDOM && f->now.len == high && memdisk_random() % 3 == 0)
		return low + (size_t) (memdisk_random() % (high - low + 1));
	return mem_survives() ? f->now.len : f->synced.len;
}

/* What is left of a file. */
static inline void
mem_cut_file(MemFile *f, bool pmem)
{
	size_t		size = mem_cut_size(f);
	size_t		piece = !pmem ? MEMDISK_SECTOR : memdisk.cut == MEM_CUT_LINES ? 64 : 8;
	MemBytes	left = {0};

	mem_resize(&left, size);
	for (size_t off = 0; off < size; off += piece)
	{
		size_t		n = size - off < piece ? size - off : piece;
		const MemBytes *from = &f->synced;

		/* A choice is made only where there is one. */
		if (f->now.len >= off + n && f->synced.len >= off + n &&
			memcmp(f->now.p + off, f->synced.p + off, n) == 0)
			from = &f->now;
		else if (pmem && f->now.len <= off)
			from = &f->synced;	/* a file's end moves at once, not in pieces */
		else if (mem_survives())
			from = &f->now;
		if (from->len > off)
			memcpy(left.p + off, from->p + off,
				   from->len - off < n ? from->len - off : n);
	}
	mem_set(&f->now, left.p, left.len);
	mem_set(&f->synced, left.p, left.len);
	free(left.p);
}

/* All handles must be closed.  pmem: the log ran on memdisk_pmem_io. */
static inline void
memdisk_power_cut(bool pmem)
{
	for (int i = 0; i < memdisk.n_names; i++)
	{
		MemName    *n = &memdisk.names[i];

		if (n->now != n->synced)
			mem_point(&n->now, mem_survives() ? n->now : n->synced);
		mem_point(&n->synced, n->now);
	}
	for (int i = 0; i < memdisk.n_names; i++)
	{
		if (memdisk.names[i].now != NULL)
			mem_cut_file(memdisk.names[i].now, pmem);
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
