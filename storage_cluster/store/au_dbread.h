/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_dbread.h: how RocksDB is opened and read.  Every database is looked at
 * before it is opened, every iterator in the project goes with options made here.
 */
#ifndef AU_DBREAD_H
#define AU_DBREAD_H

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <rocksdb/c.h>

/*
 * false, with a reason: files of a database are in `dir`, but CURRENT, which says
 * which of them count, is not.  RocksDB that may create one makes an empty one
 * then and deletes those it knows nothing of, at once or when it is opened again.
 * (A crash while one is created leaves neither tables nor a log.)  The reason has
 * the word Corruption, as RocksDB's own.
 */
static inline bool
au_db_is_whole(const char *dir, char *why, size_t whylen)
{
	DIR		   *d = opendir(dir);
	struct dirent *e;
	bool		current = false,
				files = false;

	if (d == NULL)
		return true;			/* none yet, or RocksDB says what is wrong */
	while ((e = readdir(d)) != NULL)
	{
		size_t		digits = strspn(e->d_name, "0123456789");
		const char *end = e->d_name + digits;

		current = current || strcmp(e->d_name, "CURRENT") == 0;
		files = files || (digits > 0 && (strcmp(end, ".sst") == 0 || strcmp(end, ".log") == 0));
	}
	closedir(d);
	if (current || !files)
		return true;
	snprintf(why, whylen, "Corruption: file CURRENT is missing, and other files are there");
	return false;
}

/*
 * Range deletions are not looked at, and so must not be written.
 *
 * An iterator that looks for them stops at the end of each file of level 1 or
 * below, and up to RocksDB 8.4 takes no notice if the next file's first block
 * (its last one, going back) cannot be read then: the rest of the level is
 * missing, and there is no error.  It may be damaged, or not in the cache for a
 * read that goes no further.  (8.5.0's release notes: "an error reading from
 * offset 0 of a file from L1+".)  Without them it says what it could not read;
 * test_fileends.c fails where it does not.
 */
static inline rocksdb_readoptions_t *
au_db_read_options(void)
{
	rocksdb_readoptions_t *ro = rocksdb_readoptions_create();

	rocksdb_readoptions_set_ignore_range_deletions(ro, 1);
	return ro;
}

#endif							/* AU_DBREAD_H */
