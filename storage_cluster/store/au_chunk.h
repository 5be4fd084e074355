/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_chunk.h: page versions on their way from one store into another.
 *
 * A stream of versions is cut into chunks, each of which says what it is a
 * part of, so that it can be checked and written by itself, and the next one
 * be asked of another store.  Little-endian, keys as in au_bundle.h:
 *
 *   0   u32 magic      AU_CHUNK_MAGIC "AUX1"
 *   4   u32 version    AU_CHUNK_VERSION
 *   8   u32 length     of the whole chunk
 *   12  u32 count      of versions
 *   16  u64 system_identifier
 *   24  u64 upto       items above are not in it
 *   32  u64 horizon    a reader below would miss some
 *   40  u8  done       nothing follows
 *   41  u8[29] from    place where it begins: a key, see below
 *   70  u8[29] next    ... and where the next one begins
 *   99  u8  0
 *   100 versions: u8[29] key, u32 length, value (a bundle, with its own CRC)
 *   -4  u32 crc        CRC-32C of everything before
 *
 * A place (space, page, lsn) means: of this page what is below lsn, and all
 * pages behind it.  It is made of items, not of bundles: another store may
 * have bundled them otherwise, and can go on there just the same.
 *
 * Invariants:
 *  1. Versions are in the order of keys, between `from` and `next`, whose key
 *     may be that of the last one: of its page what is below that follows.
 *  2. A version's items are at or below `upto` and below the place's LSN.
 */
#ifndef AU_CHUNK_H
#define AU_CHUNK_H

#include "core/au_slices.h"
#include "store/au_bundle.h"

_Static_assert(AU_PLACE_LEN == AU_KEY_LEN, "a place is a key");

#define AU_CHUNK_MAGIC 0x31585541u
#define AU_CHUNK_VERSION 1
#define AU_CHUNK_HEADER 100
#define AU_CHUNK_ENTRY (AU_KEY_LEN + 4)
#define AU_CHUNK_MIN (AU_CHUNK_HEADER + 4)
/* Chunks are closed at half of this; a version is far smaller than the rest. */
#define AU_CHUNK_MAX ((size_t) 2 << 20)

/* The beginning of everything of a key space (AU_KS_*). */
static inline AuPlace
au_place_first(uint8_t keyspace)
{
	AuPlace		p = {{keyspace}};

	return p;
}

static inline bool
au_place_equal(const AuPlace *a, const AuPlace *b)
{
	return memcmp(a->key, b->key, AU_KEY_LEN) == 0;
}

typedef struct AuChunk
{
	uint64_t	system_identifier;
	AuLsn		upto;
	AuLsn		horizon;
	bool		done;
	AuPlace		from;
	AuPlace		next;
	uint32_t	count;
	const uint8_t *entries;
	size_t		entries_len;
} AuChunk;

typedef struct AuChunkEntry
{
	const uint8_t *key;			/* AU_KEY_LEN bytes */
	uint8_t		keyspace;
	AuPageId	page;
	AuLsn		lsn;
	const uint8_t *value;
	size_t		len;
} AuChunkEntry;

/* Puts header and CRC around `entries_len` bytes that stand at out +
 * AU_CHUNK_HEADER; returns the length of all. */
size_t		au_chunk_finish(uint8_t *out, const AuChunk *c);

/* Checks header, CRC, each version and the invariants.  AU_OK, or AU_CORRUPT,
 * AU_UNSUPPORTED with *why. */
AuStatus	au_chunk_parse(const uint8_t *p, size_t len, AuChunk *c, const char **why);
/* Versions in order: *pos starts at 0; false at the end.  Only after parse. */
bool		au_chunk_next(const AuChunk *c, size_t *pos, AuChunkEntry *e);

#endif							/* AU_CHUNK_H */
