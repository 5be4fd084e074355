/* SPDX-License-Identifier: Apache-2.0 */
/*
 * testdir.h: what a test leaves below its directory goes in one call; looking
 * at files, and damaging them.
 */
#ifndef AU_TEST_TESTDIR_H
#define AU_TEST_TESTDIR_H

#include <dirent.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

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

/* fn for each file of `dir` whose name has `part`; false: no such directory. */
static inline bool
testdir_each(const char *dir, const char *part,
			 void (*fn) (const char *path, off_t size, void *ctx), void *ctx)
{
	DIR		   *d = opendir(dir);
	struct dirent *e;

	if (d == NULL)
		return false;
	while ((e = readdir(d)) != NULL)
	{
		char		path[1200];
		struct stat st;

		snprintf(path, sizeof(path), "%.900s/%s", dir, e->d_name);
		if (strstr(e->d_name, part) != NULL && stat(path, &st) == 0)
			fn(path, st.st_size, ctx);
	}
	closedir(d);
	return true;
}

typedef struct TestFile
{
	char		path[1200];
	off_t		size;
} TestFile;

static inline void
testdir_larger(const char *path, off_t size, void *ctx)
{
	TestFile   *largest = ctx;

	if (size <= largest->size)
		return;
	largest->size = size;
	snprintf(largest->path, sizeof(largest->path), "%s", path);
}

/* The largest of them; size 0: none. */
static inline TestFile
testdir_largest(const char *dir, const char *part)
{
	TestFile	largest = {.size = 0};

	(void) testdir_each(dir, part, testdir_larger, &largest);
	return largest;
}

/* Turn bits of a byte; twice is never.  false: the file is gone. */
static inline bool
testdir_flip(const char *path, off_t at, int bits)
{
	FILE	   *f = fopen(path, "r+b");
	int			c;

	if (f == NULL)
		return false;
	fseek(f, at, SEEK_SET);
	c = fgetc(f);
	fseek(f, at, SEEK_SET);
	fputc(c ^ bits, f);
	fclose(f);
	return true;
}

#endif							/* AU_TEST_TESTDIR_H */
