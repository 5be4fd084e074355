/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slices.h: relations of many extents that change at random, as a log that
 * any number of stores can be fed from, and samples (page, LSN, bytes) that
 * each of them must answer alike for the slices it keeps.  Include after
 * cmocka.h.
 */
#ifndef AU_TEST_SLICES_H
#define AU_TEST_SLICES_H

#include <stdlib.h>

#include "cluster/au_view.h"
#include "common/au_crc32c.h"
#include "common/au_page.h"
#include "store/au_export.h"
#include "tests/teststore.h"

#define SL_RELS 6
#define SL_EXTENTS 8
#define SL_NEAR 3				/* blocks of an extent that are used */
#define SL_PAGES (SL_EXTENTS * SL_NEAR)
#define SL_STEP 32
#define SL_START ((AuLsn) 0x1000)
#define SL_SYSID 78
#define SL_OPS 700

typedef struct SlRecord
{
	uint8_t		kind;
	bool		truncate;
	uint32_t	rel;
	uint32_t	page;			/* of the model; truncate: blocks */
	uint16_t	len;
	uint8_t		ops[SL_OPS];
} SlRecord;

typedef struct SlSample
{
	AuLsn		lsn;
	uint32_t	rel;
	uint32_t	page;
	uint32_t	size;			/* of the relation */
	bool		exists;
	uint32_t	crc;
} SlSample;

typedef struct SlLoad
{
	uint64_t	rng;
	int			nrecords;
	int			cap;
	SlRecord   *records;
	int			nsamples;
	SlSample   *samples;
	uint32_t	size[SL_RELS];
	bool		live[SL_RELS][SL_PAGES];
	uint8_t		page[SL_RELS][SL_PAGES][AU_PAGE_SIZE];
} SlLoad;

static inline uint32_t
sl_random(uint64_t *rng, uint32_t n)
{
	*rng ^= *rng << 13;
	*rng ^= *rng >> 7;
	*rng ^= *rng << 17;
	return (uint32_t) (*rng >> 20) % n;
}

static inline AuLsn
sl_lsn(int i)
{
	return SL_START + (AuLsn) (i + 1) * SL_STEP;
}

/* The last record that ends at or below. */
static inline int
sl_index(AuLsn lsn)
{
	return (int) ((int64_t) (lsn - SL_START) / SL_STEP) - 1;
}

static inline AuPageId
sl_page(uint32_t rel, uint32_t page)
{
	return (AuPageId)
	{
		{1663, 5, 16384 + rel, 0}, page / SL_NEAR * AU_EXTENT_BLOCKS + page % SL_NEAR
	};
}

static inline SlLoad *
sl_new(uint64_t seed, int records)
{
	SlLoad	   *l = calloc(1, sizeof(*l));

	assert_non_null(l);
	l->rng = seed * 0x9e3779b97f4a7c15ULL + 11;
	l->cap = records;
	l->records = calloc((size_t) records, sizeof(*l->records));
	l->samples = calloc((size_t) records, sizeof(*l->samples));
	assert_true(l->records != NULL && l->samples != NULL);
	return l;
}

static inline void
sl_free(SlLoad *l)
{
	free(l->records);
	free(l->samples);
	free(l);
}

static inline void
sl_cut(SlLoad *l, uint32_t rel, uint32_t blocks)
{
	for (uint32_t p = 0; p < SL_PAGES; p++)
		if (sl_page(rel, p).blk >= blocks)
			l->live[rel][p] = false;
	if (blocks < l->size[rel])
		l->size[rel] = blocks;
}

static inline void
sl_change(SlLoad *l, SlRecord *r)
{
	uint8_t		bytes[300];
	uint8_t    *model;
	AuOps		ops;

	r->kind = AU_WAL_OURS;
	r->page = sl_random(&l->rng, 4) ? sl_random(&l->rng, SL_PAGES) : sl_random(&l->rng, 3);
	model = l->page[r->rel][r->page];
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t) sl_random(&l->rng, 256);
	au_ops_start(&ops, r->ops, sizeof(r->ops));
	if (!l->live[r->rel][r->page] || sl_random(&l->rng, 300) == 0)
		au_ops_init(&ops, 4000);
	au_ops_patch(&ops, (uint16_t) (4500 + sl_random(&l->rng, 3300)),
				 (uint16_t) (1 + sl_random(&l->rng, 300)), bytes);
	assert_false(ops.overflow);
	r->len = (uint16_t) ops.len;
	if (!l->live[r->rel][r->page])
		memset(model, 0, AU_PAGE_SIZE);
	l->live[r->rel][r->page] = true;
	assert_int_equal(au_page_apply(model, r->ops, r->len, NULL), AU_OK);
	au_page_set_lsn(model, sl_lsn(l->nrecords));
	if (sl_page(r->rel, r->page).blk >= l->size[r->rel])
		l->size[r->rel] = sl_page(r->rel, r->page).blk + 1;
}

/* One more record, and one more sample. */
static inline void
sl_more(SlLoad *l)
{
	SlRecord   *r = &l->records[l->nrecords];
	SlSample   *s = &l->samples[l->nsamples++];
	uint32_t	dice = sl_random(&l->rng, 400);

	assert_true(l->nrecords < l->cap);
	r->rel = sl_random(&l->rng, SL_RELS);
	if (dice == 0)
	{
		r->kind = AU_WAL_OURS;
		r->truncate = true;
		r->page = sl_random(&l->rng, l->size[r->rel] + 1);
		sl_cut(l, r->rel, r->page);
	}
	else if (dice == 1)
	{
		r->kind = AU_WAL_DROP_RELS;
		sl_cut(l, r->rel, 0);
	}
	else
		sl_change(l, r);
	s->lsn = sl_lsn(l->nrecords);
	s->rel = sl_random(&l->rng, SL_RELS);
	s->page = sl_random(&l->rng, SL_PAGES);
	s->size = l->size[s->rel];
	s->exists = l->live[s->rel][s->page];
	s->crc = s->exists ? au_crc32c(0, l->page[s->rel][s->page], AU_PAGE_SIZE) : 0;
	l->nrecords++;
}

/* Record i into a store. */
static inline void
sl_apply(const SlLoad *l, AuPageStore *ps, int i)
{
	static AuWalRecord w;
	const SlRecord *r = &l->records[i];
	AuRelId		rel = sl_page(r->rel, 0).rel;

	memset(&w, 0, sizeof(w));
	w.lsn = sl_lsn(i) - SL_STEP;
	w.end = sl_lsn(i);
	w.kind = r->kind;
	if (r->truncate)
	{
		w.main.flags = AU_REC_TRUNCATE;
		w.main.truncate_rel = rel;
		w.main.truncate_nblocks = r->page;
	}
	else if (r->kind == AU_WAL_DROP_RELS)
	{
		w.ndrop = 1;
		w.drop = &rel;
	}
	else
	{
		w.nblocks = 1;
		w.blocks[0].page = sl_page(r->rel, r->page);
		w.blocks[0].data = r->ops;
		w.blocks[0].data_len = r->len;
	}
	if (au_pagestore_apply(ps, &w) != AU_OK)
		fail_msg("record %d: %s", i, au_pagestore_error(ps));
	if (w.end > au_pagestore_applied_lsn(ps))
		au_pagestore_set_applied(ps, w.end);
}

/* All samples that the store can answer; returns how many. */
static inline int
sl_compare(const SlLoad *l, AuPageStore *ps, AuLsn upto, const char *when)
{
	uint8_t		page[AU_PAGE_SIZE];
	AuLsn		horizon = au_pagestore_horizon(ps);
	int			compared = 0;

	for (int i = 0; i < l->nsamples; i++)
	{
		const SlSample *s = &l->samples[i];
		AuPageId	id = sl_page(s->rel, s->page);
		uint32_t	size;
		AuStatus	status;

		if (s->lsn < horizon || s->lsn > upto)
			continue;
		assert_int_equal(au_pagestore_size(ps, &id.rel, s->lsn, &size), AU_OK);
		if (size != s->size)
			fail_msg("%s: relation %u at record %d: size %u, not %u", when, s->rel,
					 sl_index(s->lsn), size, s->size);
		if (!au_pagestore_slice_kept(ps, au_slice_of(&id.rel, id.blk)))
			continue;
		status = au_pagestore_read(ps, &id, s->lsn, page);
		if (status != (s->exists ? AU_OK : AU_NOT_FOUND) ||
			(s->exists && au_crc32c(0, page, AU_PAGE_SIZE) != s->crc))
			fail_msg("%s: relation %u page %u (slice %u) at record %d of %d: %s: %s", when, s->rel,
					 s->page, au_slice_of(&id.rel, id.blk), sl_index(s->lsn), sl_index(upto),
					 au_status_name(status), status == AU_OK ? "other bytes" : au_pagestore_error(ps));
		compared++;
	}
	return compared;
}

#endif							/* AU_TEST_SLICES_H */
