/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_pagestore_figures.c: what RocksDB counts, as numbers.
 *
 * The C interface of 7.8 gives its statistics as text only, one line each:
 *
 *   rocksdb.block.cache.hit COUNT : 12345
 *
 * so the lines that are wanted are looked for.  A line that is missing counts
 * as 0.
 */
#include "store/au_pagestore_int.h"

#include <stddef.h>
#include <stdlib.h>

typedef struct Line
{
	const char *name;
	size_t		offset;
} Line;

static const Line lines[] = {
	{"rocksdb.block.cache.hit", offsetof(AuPageStoreFiles, cache_hits)},
	{"rocksdb.block.cache.miss", offsetof(AuPageStoreFiles, cache_misses)},
	{"rocksdb.compact.read.bytes", offsetof(AuPageStoreFiles, compaction_read_bytes)},
	{"rocksdb.compact.write.bytes", offsetof(AuPageStoreFiles, compaction_write_bytes)},
	{"rocksdb.flush.write.bytes", offsetof(AuPageStoreFiles, flush_bytes)},
	{"rocksdb.stall.micros", offsetof(AuPageStoreFiles, stall_us)},
};

void
au_pagestore_files(AuPageStore *ps, AuPageStoreFiles *out)
{
	char	   *text = rocksdb_options_statistics_get_string(ps->options);

	memset(out, 0, sizeof(*out));
	for (const char *p = text; p != NULL && *p != '\0';)
	{
		const char *end = strchr(p, '\n');
		size_t		len = strcspn(p, " \n");

		for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
			if (len == strlen(lines[i].name) && memcmp(p, lines[i].name, len) == 0 &&
				strncmp(p + len, " COUNT : ", 9) == 0)
			{
				uint64_t	v = strtoull(p + len + 9, NULL, 10);

				memcpy((char *) out + lines[i].offset, &v, sizeof(v));
			}
		p = end != NULL ? end + 1 : NULL;
	}
	rocksdb_free(text);
}
