/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_pagestore_digest.c: hashes of a slice's pages as of one LSN; see
 * au_pagestore.h.
 *
 * Which extents exist is known from the sizes of relations, all of which are in
 * memory; the pages of one are read as any reader would read them, a batch at
 * a time.  So what is compared between nodes is what clients get.
 *
 * Invariants:
 *  1. The horizon stays at or below the LSN from begin to end.
 *  2. Memory: 20 bytes an extent (2 MB of pages) of the slice, and two extents'
 *     pages at most.
 */
#include "store/au_pagestore_int.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "cluster/au_view.h"

struct AuDigest
{
	AuDigest   *prev,
			   *next;
	AuPageStore *ps;
	AuLsn		lsn;
	uint64_t	freezes;		/* as begin saw it */
	uint32_t	slice;
	AuPageId   *extents;		/* first block of each, in order */
	uint32_t   *sizes;			/* blocks of each */
	uint32_t	count;
	uint32_t	cap;
	uint32_t	at;				/* extents taken */
	AuPageRead *read;			/* of the extent at hand */
	uint16_t	blocks;
	uint8_t    *memory;			/* one page */
	AuStatus	status;
	AuMerkle	tree;
	bool		finished;
	AuDigestPage pages[AU_EXTENT_BLOCKS];
	char		error[512];
};

AuLsn
au_ps_oldest_digest(const AuPageStore *ps)
{
	AuLsn		oldest = AU_LSN_MAX;

	for (const AuDigest *d = ps->digests; d != NULL; d = d->next)
		oldest = d->lsn < oldest ? d->lsn : oldest;
	return oldest;
}

bool
au_ps_digests_since(const AuPageStore *ps, uint64_t freezes, const AuSliceSet *slices)
{
	for (const AuDigest *d = ps->digests; d != NULL; d = d->next)
		if (d->freezes <= freezes && au_slices_has(slices, d->slice))
			return true;
	return false;
}

/* ---- which extents ---------------------------------------------------- */

static int
compare_pages(const void *a, const void *b)
{
	uint8_t		x[AU_KEY_LEN];
	uint8_t		y[AU_KEY_LEN];

	au_key_encode(x, AU_KS_PAGE, a, 0);
	au_key_encode(y, AU_KS_PAGE, b, 0);
	return memcmp(x, y, AU_KEY_LEN);
}

static bool
add_extent(AuDigest *d, const AuPageId *first)
{
	if (d->count == d->cap)
	{
		uint32_t	cap = d->cap == 0 ? 64 : d->cap * 2;
		AuPageId   *bigger = realloc(d->extents, cap * sizeof(*bigger));

		if (bigger == NULL)
			return false;
		d->extents = bigger;
		d->cap = cap;
	}
	d->extents[d->count++] = *first;
	return true;
}

/* false: out of memory */
static bool
add_relation(AuDigest *d, const AuRelId *rel, uint32_t nblocks, uint32_t slice, uint32_t leaf,
			 const AuPageId *from)
{
	for (uint64_t blk = 0; blk < nblocks; blk += AU_EXTENT_BLOCKS)
	{
		AuPageId	first = {*rel, (uint32_t) blk};

		if (au_slice_of(rel, first.blk) == slice &&
			(leaf == AU_MERKLE_LEAVES || au_merkle_leaf(rel, first.blk) == leaf) &&
			(from == NULL || compare_pages(&first, from) >= 0) && !add_extent(d, &first))
			return false;
	}
	return true;
}

/* The sizes as of d->lsn; those of blocks that an extent has go with it. */
static AuStatus
find_extents(AuDigest *d, uint32_t slice, uint32_t leaf, const AuPageId *from)
{
	AuPageStore *ps = d->ps;
	AuStatus	status = AU_OK;

	for (uint32_t b = 0; b < ps->rels.nbuckets && status == AU_OK; b++)
		for (AuRel *rel = ps->rels.buckets[b]; rel != NULL && status == AU_OK; rel = rel->hash_next)
		{
			uint32_t	nblocks;

			status = au_pagestore_size(ps, &rel->id, d->lsn, &nblocks);
			if (status == AU_OK && !add_relation(d, &rel->id, nblocks, slice, leaf, from))
				status = AU_NOMEM;
		}
	if (status != AU_OK || d->count == 0)
		return status;
	qsort(d->extents, d->count, sizeof(*d->extents), compare_pages);
	d->sizes = malloc(d->count * sizeof(*d->sizes));
	for (uint32_t i = 0; d->sizes != NULL && i < d->count && status == AU_OK; i++)
	{
		uint32_t	nblocks;

		status = au_pagestore_size(ps, &d->extents[i].rel, d->lsn, &nblocks);
		d->sizes[i] = nblocks - d->extents[i].blk < AU_EXTENT_BLOCKS ?
			nblocks - d->extents[i].blk : AU_EXTENT_BLOCKS;
	}
	return d->sizes == NULL ? AU_NOMEM : status;
}

AuDigest *
au_pagestore_digest_begin(AuPageStore *ps, uint32_t slice, uint32_t leaf,
						  const AuPageId *from, AuLsn lsn)
{
	AuDigest   *d = calloc(1, sizeof(*d));
	AuStatus	status;

	assert(lsn >= ps->meta.horizon);
	if (d == NULL)
		return NULL;
	d->ps = ps;
	d->lsn = lsn;
	d->freezes = ps->freezes;
	d->slice = slice;
	au_merkle_start(&d->tree);
	d->memory = malloc(AU_PAGE_SIZE);
	status = d->memory == NULL ? AU_NOMEM : find_extents(d, slice, leaf, from);
	d->next = ps->digests;
	if (ps->digests != NULL)
		ps->digests->prev = d;
	ps->digests = d;
	if (status != AU_OK)
	{
		if (status == AU_NOMEM)
			snprintf(ps->error, sizeof(ps->error), "out of memory");
		au_pagestore_digest_end(d);
		return NULL;
	}
	return d;
}

/* ---- an extent at a time ---------------------------------------------- */

bool
au_pagestore_digest_next(AuDigest *d)
{
	uint32_t	blocks[AU_EXTENT_BLOCKS];
	const AuPageId *first = &d->extents[d->at];

	assert(d->read == NULL);
	if (d->at == d->count)
		return false;
	d->blocks = (uint16_t) d->sizes[d->at];
	for (uint16_t i = 0; i < d->blocks; i++)
	{
		blocks[i] = first->blk + i;
		d->pages[i] = (AuDigestPage)
		{
			{first->rel, blocks[i]}, AU_NOT_FOUND, 0
		};
	}
	d->status = AU_OK;
	d->read = au_pagestore_read_begin(d->ps, &first->rel, blocks, d->blocks, d->lsn, false);
	if (d->read == NULL)
	{
		d->status = AU_NOMEM;
		snprintf(d->error, sizeof(d->error), "out of memory");
	}
	return true;
}

uint64_t
au_pagestore_digest_work(AuDigest *d)
{
	for (uint16_t i = 0; i < d->blocks && d->status == AU_OK; i++)
	{
		AuStatus	status = au_pagestore_read_page(d->read, i, false, d->memory);

		d->pages[i].status = status;
		if (status == AU_OK)
			d->pages[i].hash = au_merkle_hash(d->memory);
		else if (status != AU_NOT_FOUND)
		{
			snprintf(d->error, sizeof(d->error), "%s", au_pagestore_read_error(d->read));
			if (status != AU_CORRUPT)
				d->status = status;
		}
	}
	if (d->read != NULL)
		au_pagestore_read_rest(d->read);
	return (uint64_t) d->blocks * AU_PAGE_SIZE;
}

AuStatus
au_pagestore_digest_take(AuDigest *d, const AuDigestPage **pages, uint32_t *n)
{
	if (d->read != NULL)
		au_pagestore_read_end(d->read);
	d->read = NULL;
	d->at++;
	for (uint16_t i = 0; i < d->blocks; i++)
		if (d->pages[i].status == AU_OK)
			au_merkle_add(&d->tree, &d->pages[i].page, d->pages[i].hash);
	*pages = d->pages;
	*n = d->blocks;
	return d->status;
}

const AuMerkle *
au_pagestore_digest_tree(AuDigest *d)
{
	assert(d->at == d->count);
	if (!d->finished)
		au_merkle_finish(&d->tree);
	d->finished = true;
	return &d->tree;
}

const char *
au_pagestore_digest_error(const AuDigest *d)
{
	return d->error;
}

void
au_pagestore_digest_end(AuDigest *d)
{
	if (d->read != NULL)
		au_pagestore_read_end(d->read);
	if (d->prev != NULL)
		d->prev->next = d->next;
	else
		d->ps->digests = d->next;
	if (d->next != NULL)
		d->next->prev = d->prev;
	free(d->extents);
	free(d->sizes);
	free(d->memory);
	free(d);
}
