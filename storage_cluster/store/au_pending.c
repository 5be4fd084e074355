/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_pending.c: a generation of pending patches; see au_pending.h.
 *
 * Chunks of CHUNK_BYTES are filled one after another; an object larger than
 * that gets a chunk of its own.  The hash table doubles when it is full, so a
 * chain stays short; it is kept between rounds up to KEEP_BUCKETS.
 */
#include "store/au_pending.h"

#include <assert.h>
#include <stdlib.h>

#define CHUNK_BYTES (256 * 1024)
#define MIN_BUCKETS 1024
#define KEEP_BUCKETS 65536
#define KEEP_CHUNKS 16

typedef struct Chunk
{
	struct Chunk *next;
	size_t		used;
	size_t		size;
	_Alignas(16) uint8_t data[];
} Chunk;

struct AuPending
{
	Chunk	   *chunks;			/* the one being filled comes first */
	Chunk	   *spare;			/* of CHUNK_BYTES each */
	uint32_t	nspare;
	size_t		bytes;			/* of chunks in use */
	uint32_t	pins;
	AuPendEntry **buckets;
	uint32_t	nbuckets;		/* a power of two */
	uint32_t	nentries;
	AuPendEntry *all;
};

uint64_t
au_page_hash(uint8_t keyspace, const AuPageId *page)
{
	uint64_t	h = ((uint64_t) page->rel.rel << 32) | page->blk;

	h ^= ((uint64_t) page->rel.db << 20) ^ ((uint64_t) page->rel.spc << 40) ^
		((uint64_t) page->rel.fork << 60) ^ ((uint64_t) keyspace << 56);
	h ^= h >> 33;
	h *= 0xff51afd7ed558ccdULL;
	h ^= h >> 33;
	h *= 0xc4ceb9fe1a85ec53ULL;
	h ^= h >> 33;
	return h;
}

static bool
same_page(const AuPageId *a, const AuPageId *b)
{
	return a->blk == b->blk && a->rel.rel == b->rel.rel && a->rel.db == b->rel.db &&
		a->rel.spc == b->rel.spc && a->rel.fork == b->rel.fork;
}

AuPending *
au_pending_new(void)
{
	AuPending  *g = calloc(1, sizeof(*g));

	if (g == NULL)
		return NULL;
	g->nbuckets = MIN_BUCKETS;
	g->buckets = calloc(g->nbuckets, sizeof(*g->buckets));
	if (g->buckets == NULL)
	{
		free(g);
		return NULL;
	}
	return g;
}

static void
free_chunks(Chunk *c)
{
	while (c != NULL)
	{
		Chunk	   *next = c->next;

		free(c);
		c = next;
	}
}

void
au_pending_free(AuPending *g)
{
	if (g == NULL)
		return;
	free_chunks(g->chunks);
	free_chunks(g->spare);
	free(g->buckets);
	free(g);
}

void
au_pending_pin(AuPending *g)
{
	g->pins++;
}

void
au_pending_unpin(AuPending *g)
{
	assert(g->pins > 0);
	g->pins--;
}

bool
au_pending_pinned(const AuPending *g)
{
	return g->pins > 0;
}

void
au_pending_reset(AuPending *g)
{
	Chunk	   *c = g->chunks;

	assert(g->pins == 0);
	while (c != NULL)
	{
		Chunk	   *next = c->next;

		if (c->size == CHUNK_BYTES && g->nspare < KEEP_CHUNKS)
		{
			c->next = g->spare;
			g->spare = c;
			g->nspare++;
		}
		else
			free(c);
		c = next;
	}
	g->chunks = NULL;
	g->bytes = 0;
	g->nentries = 0;
	g->all = NULL;
	if (g->nbuckets > KEEP_BUCKETS)
	{
		AuPendEntry **smaller = calloc(MIN_BUCKETS, sizeof(*smaller));

		if (smaller != NULL)
		{
			free(g->buckets);
			g->buckets = smaller;
			g->nbuckets = MIN_BUCKETS;
			return;
		}
	}
	memset(g->buckets, 0, g->nbuckets * sizeof(*g->buckets));
}

static void *
arena_alloc(AuPending *g, size_t size)
{
	Chunk	   *c = g->chunks;
	void	   *p;

	size = (size + 7) & ~(size_t) 7;
	if (c == NULL || c->size - c->used < size)
	{
		if (size <= CHUNK_BYTES && g->spare != NULL)
		{
			c = g->spare;
			g->spare = c->next;
			g->nspare--;
		}
		else
		{
			size_t		want = size > CHUNK_BYTES ? size : CHUNK_BYTES;

			c = malloc(sizeof(Chunk) + want);
			if (c == NULL)
				return NULL;
			c->size = want;
		}
		c->used = 0;
		c->next = g->chunks;
		g->chunks = c;
		g->bytes += c->size;
	}
	p = c->data + c->used;
	c->used += size;
	return p;
}

AuPendEntry *
au_pending_find(const AuPending *g, uint8_t keyspace, const AuPageId *page)
{
	uint64_t	h = au_page_hash(keyspace, page);
	AuPendEntry *e = g->buckets[h & (g->nbuckets - 1)];

	while (e != NULL && (e->keyspace != keyspace || !same_page(&e->page, page)))
		e = e->hash_next;
	return e;
}

/* A table that cannot grow only gets slower. */
static void
grow(AuPending *g)
{
	uint32_t	n = g->nbuckets * 2;
	AuPendEntry **buckets = calloc(n, sizeof(*buckets));

	if (buckets == NULL)
		return;
	for (AuPendEntry *e = g->all; e != NULL; e = e->all_next)
	{
		AuPendEntry **slot = &buckets[au_page_hash(e->keyspace, &e->page) & (n - 1)];

		e->hash_next = *slot;
		*slot = e;
	}
	free(g->buckets);
	g->buckets = buckets;
	g->nbuckets = n;
}

AuPendEntry *
au_pending_enter(AuPending *g, uint8_t keyspace, const AuPageId *page)
{
	AuPendEntry *e = au_pending_find(g, keyspace, page);
	AuPendEntry **slot;

	if (e != NULL)
		return e;
	e = arena_alloc(g, sizeof(*e));
	if (e == NULL)
		return NULL;
	if (g->nentries >= g->nbuckets)
		grow(g);
	slot = &g->buckets[au_page_hash(keyspace, page) & (g->nbuckets - 1)];
	*e = (AuPendEntry)
	{
		.hash_next = *slot, .all_next = g->all, .page = *page, .keyspace = keyspace
	};
	*slot = e;
	g->all = e;
	g->nentries++;
	return e;
}

AuStatus
au_pending_add(AuPending *g, AuPendEntry *e, AuLsn lsn,
			   const uint8_t *ops, uint32_t len, bool full, bool image)
{
	AuPendSegment *seg = e->newest;
	AuPendItem *item;

	assert(full || !image);
	if (seg != NULL &&
		(lsn < seg->newest->lsn || (lsn == seg->newest->lsn && !image)))
		return AU_INVALID;

	item = arena_alloc(g, sizeof(*item) + len);
	if (item == NULL)
		return AU_NOMEM;
	if (seg == NULL ||
		(!image && (full || seg->nitems >= AU_SEGMENT_ITEMS_MAX ||
					(seg->bytes > 0 && seg->bytes + len > AU_SEGMENT_BYTES_MAX))))
	{
		/* An image of a moment stays behind the patch it shows; only in an
		 * empty entry it opens a segment (au_pagestore.h says why its key
		 * then destroys nothing). */
		seg = arena_alloc(g, sizeof(*seg));
		if (seg == NULL)
			return AU_NOMEM;
		*seg = (AuPendSegment)
		{
			.older = e->newest, .first_lsn = lsn, .self_from = AU_LSN_MAX
		};
		if (e->newest != NULL)
			e->newest->newer = seg;
		else
			e->oldest = seg;
		e->newest = seg;
	}
	item->older = seg->newest;
	item->lsn = lsn;
	item->len = len;
	item->full = full;
	if (len > 0)
		memcpy(item->ops, ops, len);
	seg->newest = item;
	seg->nitems++;
	seg->bytes += len;
	if (full && seg->self_from == AU_LSN_MAX)
		seg->self_from = lsn;
	return AU_OK;
}

size_t
au_pending_bytes(const AuPending *g)
{
	return g->bytes;
}

uint32_t
au_pending_entries(const AuPending *g)
{
	return g->nentries;
}

AuPendEntry *
au_pending_first(const AuPending *g)
{
	return g->all;
}
