/* SPDX-License-Identifier: Apache-2.0 */
/*
 * golden.h: bytes of formats that are kept as text below tests/golden/, so
 * that a change of a format is seen.  Include after cmocka.h; once a program.
 *
 *   NAME
 *   	41555231 0100 5a*8192 ...   hexadecimal; "xx*n": a byte n times
 *
 * A program runs its tests against the file, or, with the argument --write,
 * makes the file anew from what the tests encode (tests/golden/README).
 */
#ifndef AU_TEST_GOLDEN_H
#define AU_TEST_GOLDEN_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GOLDEN_ENTRIES_MAX 128
#define GOLDEN_RUN 12			/* so many equal bytes are written as a run */
#define GOLDEN_WIDTH 76			/* characters of a line */

typedef struct GoldenEntry
{
	char		name[64];
	uint8_t    *bytes;
	size_t		len;
	bool		seen;
} GoldenEntry;

static struct
{
	char		path[128];
	bool		writing;
	GoldenEntry entries[GOLDEN_ENTRIES_MAX];
	int			n;
} golden;

static inline GoldenEntry *
golden_find(const char *name)
{
	for (int i = 0; i < golden.n; i++)
		if (strcmp(golden.entries[i].name, name) == 0)
			return &golden.entries[i];
	return NULL;
}

static inline void
golden_add_byte(GoldenEntry *e, unsigned int byte, size_t times)
{
	e->bytes = realloc(e->bytes, e->len + times);
	if (e->bytes == NULL)
		abort();
	memset(e->bytes + e->len, (int) byte, times);
	e->len += times;
}

/* A word of a line: hexadecimal digits, or a run. */
static inline bool
golden_add_word(GoldenEntry *e, const char *word)
{
	unsigned int byte;
	size_t		times;
	char		end;

	if (sscanf(word, "%2x*%zu%c", &byte, &times, &end) == 2)
		golden_add_byte(e, byte, times);
	else
	{
		for (; word[0] != '\0'; word += 2)
		{
			if (sscanf(word, "%2x", &byte) != 1 || word[1] == '\0')
				return false;
			golden_add_byte(e, byte, 1);
		}
	}
	return true;
}

static inline bool
golden_load(void)
{
	FILE	   *f = fopen(golden.path, "r");
	char		line[256];
	bool		good = f != NULL;

	while (good && fgets(line, sizeof(line), f) != NULL)
	{
		GoldenEntry *e = golden.n > 0 ? &golden.entries[golden.n - 1] : NULL;

		line[strcspn(line, "\n")] = '\0';
		if (line[0] == '\0' || line[0] == '#')
			continue;
		if (line[0] != '\t')
		{
			good = golden.n < GOLDEN_ENTRIES_MAX && golden_find(line) == NULL;
			if (good)
				snprintf(golden.entries[golden.n++].name, sizeof(e->name), "%.63s", line);
			continue;
		}
		for (char *w = strtok(line, "\t "); good && w != NULL; w = strtok(NULL, " "))
			good = e != NULL && golden_add_word(e, w);
	}
	if (f != NULL)
		fclose(f);
	if (!good)
		fprintf(stderr, "%s cannot be read, or is not well-formed\n", golden.path);
	return good;
}

/* A word as long as it fits, at *pos; returns its length. */
static inline int
golden_word(char *word, const GoldenEntry *e, size_t *pos)
{
	size_t		run = 1;
	int			n = 0;

	while (*pos + run < e->len && e->bytes[*pos + run] == e->bytes[*pos])
		run++;
	if (run >= GOLDEN_RUN)
	{
		n = sprintf(word, "%02x*%zu", e->bytes[*pos], run);
		*pos += run;
		return n;
	}
	for (; *pos < e->len && n < 8; n += 2, (*pos)++)
		sprintf(word + n, "%02x", e->bytes[*pos]);
	return n;
}

static inline bool
golden_save(void)
{
	FILE	   *f = fopen(golden.path, "w");

	if (f == NULL)
		return false;
	fprintf(f, "# Bytes of formats; what they are and who makes them: README.\n");
	for (int i = 0; i < golden.n; i++)
	{
		const GoldenEntry *e = &golden.entries[i];
		int			column = 0;
		char		word[40];

		fprintf(f, "%s", e->name);
		for (size_t pos = 0; pos < e->len;)
		{
			int			n = golden_word(word, e, &pos);

			if (column == 0 || column + n + 1 > GOLDEN_WIDTH)
				column = fprintf(f, "\n\t%s", word) - 1;
			else
				column += fprintf(f, " %s", word);
		}
		fputc('\n', f);
	}
	return fclose(f) == 0;
}

/*
 * These bytes are those that are kept under this name, which are returned (for
 * decoding): another copy, good until the program ends.
 */
static inline const uint8_t *
golden_check(const char *name, const void *bytes, size_t len)
{
	GoldenEntry *e = golden_find(name);
	size_t		i = 0;

	if (golden.writing)
	{
		assert_null(e);
		assert_true(golden.n < GOLDEN_ENTRIES_MAX);
		e = &golden.entries[golden.n++];
		snprintf(e->name, sizeof(e->name), "%s", name);
		e->bytes = malloc(len);
		e->len = len;
		assert_non_null(e->bytes);
		memcpy(e->bytes, bytes, len);
	}
	if (e == NULL)
		fail_msg("\"%s\" is not in %s, see tests/golden/README", name, golden.path);
	while (i < len && i < e->len && ((const uint8_t *) bytes)[i] == e->bytes[i])
		i++;
	if (len != e->len || i != len)
		fail_msg("\"%s\": %zu bytes, kept are %zu; they differ from byte %zu on: a format was "
				 "changed, see \"When a format changes\" in docs/formats.md", name, len, e->len, i);
	e->seen = true;
	return e->bytes;
}

/* The last test: nothing is kept that no test knows. */
static inline void
golden_all_seen(void **state)
{
	(void) state;
	for (int i = 0; i < golden.n; i++)
		if (!golden.entries[i].seen)
			fail_msg("nobody makes \"%s\" of %s any more", golden.entries[i].name, golden.path);
}

/* Before the tests run; false: exit.  file: below tests/golden/. */
static inline bool
golden_begin(int argc, char **argv, const char *file)
{
	snprintf(golden.path, sizeof(golden.path), "tests/golden/%s", file);
	golden.writing = argc > 1 && strcmp(argv[1], "--write") == 0;
	return golden.writing || golden_load();
}

/* After them, with what they returned; the program's exit status. */
static inline int
golden_end(int failed)
{
	if (golden.writing && failed == 0 && !golden_save())
	{
		perror(golden.path);
		failed = 1;
	}
	for (int i = 0; i < golden.n; i++)
		free(golden.entries[i].bytes);
	return failed;
}

#endif							/* AU_TEST_GOLDEN_H */
