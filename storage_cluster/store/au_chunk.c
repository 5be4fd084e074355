/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_chunk.c: see au_chunk.h.
 */
#include "store/au_chunk.h"

#include <assert.h>

#include "common/au_crc32c.h"

_Static_assert(AU_CHUNK_HEADER == 41 + 2 * AU_KEY_LEN + 1, "layout of a chunk");

size_t
au_chunk_finish(uint8_t *out, const AuChunk *c)
{
	size_t		len = AU_CHUNK_HEADER + c->entries_len;

	assert(len + 4 <= AU_CHUNK_MAX);
	memset(out, 0, AU_CHUNK_HEADER);
	au_put_u32(out, AU_CHUNK_MAGIC);
	au_put_u32(out + 4, AU_CHUNK_VERSION);
	au_put_u32(out + 8, (uint32_t) len + 4);
	au_put_u32(out + 12, c->count);
	au_put_u64(out + 16, c->system_identifier);
	au_put_u64(out + 24, c->upto);
	au_put_u64(out + 32, c->horizon);
	out[40] = c->done;
	memcpy(out + 41, c->from.key, AU_KEY_LEN);
	memcpy(out + 41 + AU_KEY_LEN, c->next.key, AU_KEY_LEN);
	au_put_u32(out + len, au_crc32c(0, out, len));
	return len + 4;
}

bool
au_chunk_next(const AuChunk *c, size_t *pos, AuChunkEntry *e)
{
	const uint8_t *p = c->entries + *pos;

	if (c->entries_len - *pos < AU_CHUNK_ENTRY)
		return false;
	e->key = p;
	e->len = au_get_u32(p + AU_KEY_LEN);
	e->value = p + AU_CHUNK_ENTRY;
	if (e->len > c->entries_len - *pos - AU_CHUNK_ENTRY ||
		!au_key_decode(p, AU_KEY_LEN, &e->keyspace, &e->page, &e->lsn))
		return false;
	*pos += AU_CHUNK_ENTRY + e->len;
	return true;
}

/* Items of the place's own page end below its LSN, all others at upto. */
static bool
in_place(const AuChunk *c, const AuChunkEntry *e, const AuBundle *b)
{
	AuPageId	page;
	AuLsn		below;
	uint8_t		ks;

	if (b->last_lsn > c->upto)
		return false;
	if (memcmp(e->key, c->from.key, AU_KEY_PAGE_LEN) != 0)
		return memcmp(e->key, c->from.key, AU_KEY_LEN) > 0;
	return au_key_decode(c->from.key, AU_KEY_LEN, &ks, &page, &below) && b->last_lsn < below;
}

AuStatus
au_chunk_parse(const uint8_t *p, size_t len, AuChunk *c, const char **why)
{
	const uint8_t *last = NULL;
	AuChunkEntry e;
	size_t		pos = 0;
	uint32_t	n = 0;

	*why = "it is damaged";
	if (len < AU_CHUNK_MIN || len > AU_CHUNK_MAX || au_get_u32(p) != AU_CHUNK_MAGIC)
		return AU_CORRUPT;
	*why = "it has a format of another version";
	if (au_get_u32(p + 4) != AU_CHUNK_VERSION)
		return AU_UNSUPPORTED;
	*why = "its checksum is wrong";
	if (au_get_u32(p + 8) != len || au_get_u32(p + len - 4) != au_crc32c(0, p, len - 4))
		return AU_CORRUPT;
	c->count = au_get_u32(p + 12);
	c->system_identifier = au_get_u64(p + 16);
	c->upto = au_get_u64(p + 24);
	c->horizon = au_get_u64(p + 32);
	c->done = p[40] != 0;
	memcpy(c->from.key, p + 41, AU_KEY_LEN);
	memcpy(c->next.key, p + 41 + AU_KEY_LEN, AU_KEY_LEN);
	c->entries = p + AU_CHUNK_HEADER;
	c->entries_len = len - AU_CHUNK_MIN;
	*why = "its structure is damaged";
	if (memcmp(c->from.key, c->next.key, AU_KEY_LEN) > 0)
		return AU_CORRUPT;
	for (; au_chunk_next(c, &pos, &e); n++)
	{
		AuBundle	b;

		if (au_bundle_parse(e.key, e.value, e.len, &b, why) != AU_OK)
			return AU_CORRUPT;
		*why = "its versions are out of place";
		if ((last != NULL && memcmp(last, e.key, AU_KEY_LEN) >= 0) || !in_place(c, &e, &b) ||
			memcmp(e.key, c->next.key, AU_KEY_LEN) > 0)
			return AU_CORRUPT;
		last = e.key;
	}
	*why = "its structure is damaged";
	if (pos != c->entries_len || n != c->count)
		return AU_CORRUPT;
	*why = NULL;
	return AU_OK;
}
