/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_store.c: what the store and the node read from their files: bundles,
 * size items, keys, the VOLUME file, chunks of other stores.  Any bytes are parsed or refused; what is
 * taken for a bundle is encoded to the same bytes again.
 */
#include <assert.h>
#include <stdlib.h>

#include "common/au_crc32c.h"
#include "core/au_volume.h"
#include "store/au_bundle.h"
#include "store/au_chunk.h"
#include "store/au_relmap.h"

#define ITEMS_MAX 4096

static void
bundle(const uint8_t *key, const uint8_t *value, size_t len)
{
	static AuItem items[ITEMS_MAX];
	AuBundle	b;
	const char *why;
	size_t		pos = 0;
	uint32_t	n = 0;
	uint8_t    *again;

	if (au_bundle_parse(key, value, len, &b, &why) != AU_OK)
	{
		if (why == NULL)
			abort();
		return;
	}
	while (n < ITEMS_MAX && au_bundle_next(&b, &pos, &items[n]))
	{
		AuSizeItem	size;

		(void) au_size_item_decode(items[n].ops, items[n].len, &size);
		n++;
	}
	if (n != b.nitems)
		return;					/* more than fit */
	again = malloc(len);
	au_bundle_encode(again, key, items, n, b.self_from);
	if (memcmp(again, value, len) != 0)
		abort();
	free(again);
}

/* As sent, and with the checksum put right. */
static void
chunk(const uint8_t *data, size_t len)
{
	uint8_t    *copy = malloc(len);

	memcpy(copy, data, len);
	for (int i = 0; i < 2; i++)
	{
		AuChunk		c;
		AuChunkEntry e;
		const char *why;
		size_t		pos = 0;
		uint32_t	n = 0;

		if (au_chunk_parse(copy, len, &c, &why) == AU_OK)
		{
			while (au_chunk_next(&c, &pos, &e))
				n++;
			if (n != c.count)
				abort();
		}
		else if (why == NULL)
			abort();
		au_put_u32(copy, AU_CHUNK_MAGIC);
		au_put_u32(copy + 4, AU_CHUNK_VERSION);
		au_put_u32(copy + 8, (uint32_t) len);
		au_put_u32(copy + len - 4, au_crc32c(0, copy, len - 4));
	}
	free(copy);
}

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	AuVolumeMeta meta;
	AuPageId	page;
	AuLsn		lsn;
	uint8_t		ks;
	const char *why;
	uint8_t    *copy;

	if (au_volume_decode(data, len, &meta, &why) != AU_OK && why == NULL)
		abort();
	if (len >= AU_CHUNK_MIN)
		chunk(data, len);
	if (len < AU_KEY_LEN + AU_BUNDLE_OVERHEAD)
		return 0;
	if (au_key_decode(data, AU_KEY_LEN, &ks, &page, &lsn))
	{
		uint8_t		key[AU_KEY_LEN];

		au_key_encode(key, ks, &page, lsn);
		if (memcmp(key, data, AU_KEY_LEN) != 0)
			abort();
	}
	bundle(data, data + AU_KEY_LEN, len - AU_KEY_LEN);

	/* the same with what stands in the way of a fuzzer put right */
	copy = malloc(len);
	memcpy(copy, data, len);
	au_put_u32(copy + AU_KEY_LEN, AU_BUNDLE_MAGIC);
	au_put_u32(copy + len - 4, au_crc32c(0, copy, len - 4));
	bundle(copy, copy + AU_KEY_LEN, len - AU_KEY_LEN);
	if (len >= AU_VOLUME_LEN)
	{
		memcpy(copy, AU_VOLUME_MAGIC, 8);
		au_put_u32(copy + 8, AU_VOLUME_VERSION);
		au_put_u32(copy + AU_VOLUME_LEN - 4, au_crc32c(0, copy, AU_VOLUME_LEN - 4));
		if (au_volume_decode(copy, AU_VOLUME_LEN, &meta, &why) == AU_OK)
		{
			uint8_t		again[AU_VOLUME_LEN];

			au_volume_encode(again, &meta);
			if (memcmp(again, copy, AU_VOLUME_LEN) != 0)
				abort();
		}
	}
	free(copy);
	return 0;
}
