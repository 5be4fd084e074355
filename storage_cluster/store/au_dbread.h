/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_dbread.h: how RocksDB is read.  Every iterator in the project goes with
 * options made here.
 */
#ifndef AU_DBREAD_H
#define AU_DBREAD_H

#include <rocksdb/c.h>

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
