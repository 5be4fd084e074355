/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_landing_io.h: what the landing log asks of the operating system.
 *
 * One table of functions, so that the same log can run on ordinary files
 * (au_landing_file.c), on persistent memory (au_landing_pmem.c), and on a
 * test's or simulator's disk that fails on purpose.
 *
 * Two kinds of disk.  On an ordinary one files grow as they are written, and
 * file_sync is expensive.  On a mapped one (file_allocate and file_store8 are
 * there) a file gets its blocks first; then writes are stores and file_sync
 * waits until those of the calling thread have reached the medium: no system
 * call in either.
 *
 * Each function returns 0 or an errno value.  Handles are opaque.  Functions
 * on different files, and (ordinary disks) file_sync beside file_write and
 * file_read of the same file, may run on two threads at once.
 */
#ifndef AU_LANDING_IO_H
#define AU_LANDING_IO_H

#include "common/au_base.h"

typedef void (*AuLandingNameFn) (void *ctx, const char *name);

typedef struct AuLandingIo
{
	const char *kind;			/* "file", "pmem": for people */

	/* Makes the directory if absent; EBUSY if another process has it. */
	int			(*dir_open) (const char *path, void **dir);
	void		(*dir_close) (void *dir);
	int			(*dir_list) (void *dir, AuLandingNameFn each, void *ctx);
	int			(*dir_free) (void *dir, uint64_t *bytes);	/* room on disk */

	/* Makes earlier creations, renames and removals durable. */
	int			(*dir_sync) (void *dir);

	int			(*file_remove) (void *dir, const char *name);
	int			(*file_rename) (void *dir, const char *from, const char *to);

	/* create: an empty file, whatever was there. */
	int			(*file_open) (void *dir, const char *name, bool create, void **file);
	void		(*file_close) (void *file);
	int			(*file_size) (void *file, uint64_t *size);

	/* *got is less than len only at the end of the file. */
	int			(*file_read) (void *file, uint64_t off, void *buf, size_t len, size_t *got);

	/* Two pieces, one after the other; part may be written on failure. */
	int			(*file_write) (void *file, uint64_t off,
							   const void *a, size_t alen,
							   const void *b, size_t blen);

	/* Nothing of what was written at or above size is ever seen again, once
	 * the next file_sync has returned; the file may keep zeros there. */
	int			(*file_truncate) (void *file, uint64_t size);

	/* The durability primitive: everything written before survives. */
	int			(*file_sync) (void *file);

	/*
	 * Mapped disks only, else NULL.
	 *
	 * file_allocate: the file has at least `size` bytes, zeros where nothing
	 * was written, each with its block on the disk, all of that durable; it
	 * can be written through this handle up to *mapped.  On failure it may
	 * have grown by zeros, and this handle can do what it could.
	 *
	 * file_store8: stores 8 bytes at an offset divisible by 8; after a power
	 * cut all of them are there or none.
	 */
	int			(*file_allocate) (void *file, uint64_t size, uint64_t *mapped);
	int			(*file_store8) (void *file, uint64_t off, const void *word);
} AuLandingIo;

extern const AuLandingIo au_landing_file_io;
extern const AuLandingIo au_landing_pmem_io;

/*
 * Is a file in this directory (which must exist) persistent memory, so that
 * au_landing_pmem_io can be used?  libpmem decides; PMEM_IS_PMEM_FORCE=1 in
 * the environment makes it say yes everywhere, for tests.  If not, why says
 * so.
 */
bool		au_landing_pmem_usable(const char *dir, char *why, size_t whylen);

#endif							/* AU_LANDING_IO_H */
