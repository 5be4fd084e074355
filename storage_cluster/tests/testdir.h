/* SPDX-License-Identifier: Apache-2.0 */
/*
 * testdir.h: what a test leaves below its directory goes in one call.
 */
#ifndef AU_TEST_TESTDIR_H
#define AU_TEST_TESTDIR_H

#include <ftw.h>
#include <stdio.h>

static inline int
testdir_remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void) st;
	(void) flag;
	(void) ftw;
	return remove(path);
}

/* Remove `path` and all below it; links are not followed. */
static inline void
testdir_remove(const char *path)
{
	nftw(path, testdir_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

#endif							/* AU_TEST_TESTDIR_H */
