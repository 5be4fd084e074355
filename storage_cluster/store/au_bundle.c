/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_bundle.c: keys and values of the page store; see au_bundle.h.
 */
#include "store/au_bundle.h"

#include <assert.h>

#include "common/au_crc32c.h"

static void
put_be32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t) (v >> 24);
	p[1] = (uint8_t) (v >> 16);
	p[2] = (uint8_t) (v >> 8);
	p[3] = (uint8_t) v;
}

static uint32_t
get_be32(const uint8_t *p)
{
	return ((uint32_t) p[0] << 24) | ((uint32_t) p[1] << 16) |
		((uint32_t) p[2] << 8) | p[3];
}

void
au_key_encode(uint8_t *key, uint8_t keyspace, const AuPageId *page, AuLsn lsn)
{
	AuLsn		inverted = ~lsn;

	key[0] = keyspace;
	put_be32(key + 1, page->rel.spc);
	put_be32(key + 5, page->rel.db);
	put_be32(key + 9, page->rel.rel);
	put_be32(key + 13, page->rel.fork);
	put_be32(key + 17, page->blk);
	put_be32(key + 21, (uint32_t) (inverted >> 32));
	put_be32(key + 25, (uint32_t) inverted);
}

bool
au_key_decode(const uint8_t *key, size_t len, uint8_t *keyspace,
			  AuPageId *page, AuLsn *lsn)
{
	if (len != AU_KEY_LEN || (key[0] != AU_KS_PAGE && key[0] != AU_KS_SIZE))
		return false;
	*keyspace = key[0];
	page->rel.spc = get_be32(key + 1);
	page->rel.db = get_be32(key + 5);
	page->rel.rel = get_be32(key + 9);
	page->rel.fork = get_be32(key + 13);
	page->blk = get_be32(key + 17);
	*lsn = ~(((AuLsn) get_be32(key + 21) << 32) | get_be32(key + 25));
	return true;
}

AuStatus
au_bundle_parse(const uint8_t *key, const uint8_t *value, size_t len,
				AuBundle *b, const char **why)
{
	uint32_t	crc;
	size_t		pos = 0;
	uint32_t	n = 0;
	AuLsn		last = 0;
	size_t		items_len;

	*why = "the stored version is too short";
	if (len < AU_BUNDLE_OVERHEAD)
		return AU_CORRUPT;
	crc = au_crc32c(au_crc32c(0, key, AU_KEY_LEN), value, len - 4);
	*why = "the stored version's checksum is wrong";
	if (crc != au_get_u32(value + len - 4))
		return AU_CORRUPT;
	*why = "the stored version has an unknown format";
	if (au_get_u32(value) != AU_BUNDLE_MAGIC)
		return AU_CORRUPT;

	*why = "the stored version's structure is damaged";
	items_len = len - AU_BUNDLE_OVERHEAD;
	while (pos < items_len)
	{
		AuLsn		lsn;
		uint32_t	item_len;

		if (items_len - pos < AU_BUNDLE_ITEM_HEADER)
			return AU_CORRUPT;
		lsn = au_get_u64(value + AU_BUNDLE_HEADER + pos);
		item_len = au_get_u32(value + AU_BUNDLE_HEADER + pos + 8);
		if (lsn < last || item_len > items_len - pos - AU_BUNDLE_ITEM_HEADER)
			return AU_CORRUPT;
		last = lsn;
		pos += AU_BUNDLE_ITEM_HEADER + item_len;
		n++;
	}
	b->nitems = au_get_u32(value + 4);
	b->self_from = au_get_u64(value + 8);
	b->last_lsn = au_get_u64(value + 16);
	b->items = value + AU_BUNDLE_HEADER;
	b->items_len = items_len;
	if (n == 0 || n != b->nitems || last != b->last_lsn)
		return AU_CORRUPT;
	*why = NULL;
	return AU_OK;
}

bool
au_bundle_next(const AuBundle *b, size_t *pos, AuItem *item)
{
	if (*pos >= b->items_len)
		return false;
	item->lsn = au_get_u64(b->items + *pos);
	item->len = au_get_u32(b->items + *pos + 8);
	item->ops = b->items + *pos + AU_BUNDLE_ITEM_HEADER;
	*pos += AU_BUNDLE_ITEM_HEADER + item->len;
	assert(*pos <= b->items_len);
	return true;
}

size_t
au_bundle_size(uint32_t nitems, size_t total_ops)
{
	return AU_BUNDLE_OVERHEAD + (size_t) nitems * AU_BUNDLE_ITEM_HEADER + total_ops;
}

void
au_bundle_encode(uint8_t *out, const uint8_t *key,
				 const AuItem *items, uint32_t nitems, AuLsn self_from)
{
	uint8_t    *p = out + AU_BUNDLE_HEADER;

	assert(nitems > 0);
	au_put_u32(out, AU_BUNDLE_MAGIC);
	au_put_u32(out + 4, nitems);
	au_put_u64(out + 8, self_from);
	au_put_u64(out + 16, items[nitems - 1].lsn);
	for (uint32_t i = 0; i < nitems; i++)
	{
		assert(i == 0 || items[i].lsn >= items[i - 1].lsn);
		au_put_u64(p, items[i].lsn);
		au_put_u32(p + 8, items[i].len);
		if (items[i].len > 0)
			memcpy(p + AU_BUNDLE_ITEM_HEADER, items[i].ops, items[i].len);
		p += AU_BUNDLE_ITEM_HEADER + items[i].len;
	}
	au_put_u32(p, au_crc32c(au_crc32c(0, key, AU_KEY_LEN), out, (size_t) (p - out)));
}
