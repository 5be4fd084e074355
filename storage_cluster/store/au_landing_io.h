/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_landing_io.h: what the landing log asks of the operating system.
 *
 * One table of functions, so that the same log can run on ordinary files
 * (au_landing_file.c), on persistent memory, and on a test's or simulator's
 * disk that fails on purpose.
 *
 * Each function returns 0 or an errno value.  Handles are opaque.  Functions
 * on different files, and file_sync beside file_write and file_read of the
 * same file, may run on two threads at once.
 */
#ifndef AU_LANDING_IO_H
#define AU_LANDING_IO_H

#include "common/au_base.h"

typedef void (*AuLandingNameFn) (void *ctx, const char *name);

typedef struct AuLandingIo
{
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
	int			(*file_truncate) (void *file, uint64_t size);

	/* The durability primitive: everything written before survives. */
	int			(*file_sync) (void *file);
} AuLandingIo;

extern const AuLandingIo au_landing_file_io;

#endif							/* AU_LANDING_IO_H */
