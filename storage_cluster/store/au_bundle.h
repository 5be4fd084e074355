/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_bundle.h: what a page version looks like in RocksDB: keys, and the
 * bundles of patches that are their values.
 *
 * Key, big-endian so that keys sort by relation, block, newest first:
 *
 *   0  u8  keyspace    AU_KS_*
 *   1  u32 spc, u32 db, u32 rel, u32 fork, u32 block
 *   21 u64 ~lsn        complement of the LSN of the bundle's first item
 *
 * Value, little-endian:
 *
 *   0  u32 magic       AU_BUNDLE_MAGIC "AUB1"
 *   4  u32 nitems      at least 1
 *   8  u64 self_from   LSN of the first item that needs nothing older
 *                      (INIT or IMAGE), AU_LSN_MAX if there is none
 *   16 u64 last_lsn    LSN of the last item
 *   24 items: u64 lsn, u32 length, bytes[length]
 *   -4 u32 crc         CRC-32C of the key, then of everything before
 *
 * The CRC covers the key, so a value found under another key is noticed.
 *
 * Invariants:
 *  1. Items are in LSN order; two neighbours have the same LSN only if the
 *     later one is a whole page as of that LSN (a materialised image).
 *  2. Bundles of one page follow each other in LSN order; only an image that
 *     opens a bundle may repeat the LSN that closed the one before.
 *  3. An item that needs nothing older than itself and is not an image of the
 *     page's own history (so: the page begins a new life) opens a bundle.
 *
 * Relation sizes are kept the same way in their own keyspace, under block
 * AU_SIZE_BLOCK, with items of AU_SIZE_ITEM bytes (see au_relmap.h).
 */
#ifndef AU_BUNDLE_H
#define AU_BUNDLE_H

#include "common/au_base.h"

#define AU_KS_META 0
#define AU_KS_PAGE 1
#define AU_KS_SIZE 2

#define AU_KEY_LEN 29
#define AU_KEY_REL_LEN 17		/* keyspace and relation */
#define AU_KEY_PAGE_LEN 21		/* ... and block */
#define AU_SIZE_BLOCK 0xFFFFFFFFu

#define AU_BUNDLE_MAGIC 0x31425541u /* "AUB1" in memory */
#define AU_BUNDLE_HEADER 24
#define AU_BUNDLE_ITEM_HEADER 12
#define AU_BUNDLE_OVERHEAD (AU_BUNDLE_HEADER + 4)

/* Longest single item: a page image as an operation. */
#define AU_IMAGE_OP_MAX (AU_PAGE_SIZE + 16)

void		au_key_encode(uint8_t *key, uint8_t keyspace, const AuPageId *page, AuLsn lsn);
/* false: not a key of this format */
bool		au_key_decode(const uint8_t *key, size_t len, uint8_t *keyspace,
						  AuPageId *page, AuLsn *lsn);

/* Checked view of a value; pointers point into it. */
typedef struct AuBundle
{
	uint32_t	nitems;
	AuLsn		self_from;
	AuLsn		last_lsn;
	const uint8_t *items;
	size_t		items_len;
} AuBundle;

typedef struct AuItem
{
	AuLsn		lsn;
	uint32_t	len;
	const uint8_t *ops;
} AuItem;

/* Checks magic, CRC and structure.  AU_OK or AU_CORRUPT with *why. */
AuStatus	au_bundle_parse(const uint8_t *key, const uint8_t *value, size_t len,
							AuBundle *b, const char **why);

/* Items in order: *pos starts at 0; false at the end.  Only after parse. */
bool		au_bundle_next(const AuBundle *b, size_t *pos, AuItem *item);

/* Length of the value for nitems items of total_ops bytes. */
size_t		au_bundle_size(uint32_t nitems, size_t total_ops);
/* Encodes into out (au_bundle_size bytes); items in LSN order. */
void		au_bundle_encode(uint8_t *out, const uint8_t *key,
							 const AuItem *items, uint32_t nitems, AuLsn self_from);

#endif							/* AU_BUNDLE_H */
