/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_pagestore_scrub.c: walks through everything that is stored, a step at a
 * time, from the last key to the first and then again: verifies each version
 * (au_pagestore_verify.h), has long chains cut, and compacts where
 * much lies about that nobody may ask for.
 *
 *   begin (owner)   iterator, horizon, place of the last step
 *        ▼
 *   work (any)      versions up to the budget, whole pages; maybe a compaction
 *        ▼
 *   end (owner)     place, counts; problems are handed on
 *
 * Invariants:
 *  1. A step ends between two pages, also where they are passed over, and the
 *     next one begins with the oldest version that its page has by then: so
 *     each page is verified as a whole, also if its slice comes meanwhile.
 *  2. The horizon is read before the iterator is made and never after: no
 *     compaction that the iterator sees has dropped by a newer one.
 *  3. A block that RocksDB cannot read is reported once and stepped over; what
 *     lies behind it is looked at.
 *  4. Nothing is cached: foreground reads lose no memory to the walk.
 */
#include "store/au_pagestore_int.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "store/au_pagestore_verify.h"

/* Garbage is looked at over so much that was walked; compacted if this part
 * of it is. */
#define REGION_BYTES ((uint64_t) 32 << 20)
#define REGION_GARBAGE_MIN ((uint64_t) 1 << 20)
#define REGION_GARBAGE_PART 4
/* Chains cut in one step. */
#define CUTS_PER_STEP 16

struct AuPageScrub
{
	AuPageStore *ps;
	rocksdb_iterator_t *it;
	AuSlicesRecord slices;		/* as begin saw it: others are not whole */
	AuScrubPlace place;			/* where this step begins, then where it ended */
	bool		finished;		/* the walk is through */
	AuVerify	v;
	char		problems[AU_SCRUB_PROBLEMS][AU_SCRUB_TEXT];
	uint32_t	nproblems;		/* kept; v.problems counts all */
	uint32_t	percent;

	/* a step between others that cuts chains, and walks nowhere */
	AuPageRead *cuts[CUTS_PER_STEP];
	uint32_t	ncuts;
	uint8_t    *cut_pages;		/* as read, one after another */
};

static void
note_problem(void *ctx, const char *text)
{
	AuPageScrub *s = ctx;

	if (s->nproblems < AU_SCRUB_PROBLEMS)
		snprintf(s->problems[s->nproblems++], AU_SCRUB_TEXT, "%s", text);
}

static void
page_done(void *ctx, const AuPageId *page, uint32_t units, uint64_t bytes, uint64_t garbage)
{
	AuPageScrub *s = ctx;

	s->place.region_bytes += bytes;
	s->place.region_garbage += garbage;
	if (units > AU_CHAIN_UNITS_MAX && s->place.nlong < AU_SCRUB_LONG_MAX)
		s->place.long_pages[s->place.nlong++] = *page;
}

/* The pages with long chains that were found.  false: there is no memory; they
 * are found again. */
static bool
begin_cuts(AuPageScrub *s)
{
	AuPageStore *ps = s->ps;
	AuScrubPlace *p = &s->place;

	s->cut_pages = malloc((size_t) CUTS_PER_STEP * AU_PAGE_SIZE);
	if (s->cut_pages == NULL)
		return false;
	while (p->nlong > 0 && s->ncuts < CUTS_PER_STEP)
	{
		const AuPageId *page = &p->long_pages[--p->nlong];
		AuPageRead *r = au_slices_readable(&s->slices, page) ?
			au_pagestore_read_begin(ps, &page->rel, &page->blk, 1, ps->applied, true) : NULL;

		if (r != NULL)
			s->cuts[s->ncuts++] = r;
	}
	return true;
}

AuPageScrub *
au_pagestore_scrub_begin(AuPageStore *ps)
{
	AuPageScrub *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return NULL;
	s->ps = ps;
	s->slices = ps->slices.now;
	s->place = ps->scrub_place;
	s->v.problem = note_problem;
	s->v.page_done = page_done;
	s->v.ctx = s;
	s->v.horizon = ps->meta.horizon;
	if (s->place.nlong == 0 || !begin_cuts(s))
		s->it = rocksdb_create_iterator(ps->db, ps->scan_options);
	return s;
}

/* Pages are read as anybody would read them; what read_end does with one that
 * took long is what is wanted. */
static void
read_cuts(AuPageScrub *s)
{
	for (uint32_t i = 0; i < s->ncuts; i++)
	{
		(void) au_pagestore_read_page(s->cuts[i], 0, false, s->cut_pages + (size_t) i * AU_PAGE_SIZE);
		au_pagestore_read_rest(s->cuts[i]);
	}
}

static void
end_cuts(AuPageScrub *s)
{
	uint64_t	images = s->ps->stats.images;

	for (uint32_t i = 0; i < s->ncuts; i++)
		au_pagestore_read_end(s->cuts[i]);
	free(s->cut_pages);
	s->ps->stats.scrub_cuts += s->ps->stats.images - images;
}

/* ---- stepping over what cannot be read -------------------------------- */

/* Keys as numbers of AU_KEY_LEN bytes: the middle of two, rounded down.  false:
 * there is none between them. */
static bool
key_between(const uint8_t *low, const uint8_t *high, uint8_t *middle)
{
	uint32_t	carry = 0;
	uint32_t	sum[AU_KEY_LEN];

	for (int i = AU_KEY_LEN - 1; i >= 0; i--)
	{
		sum[i] = (uint32_t) low[i] + high[i] + carry;
		carry = sum[i] >> 8;
		sum[i] &= 0xFF;
	}
	for (int i = 0; i < AU_KEY_LEN; i++)
	{
		uint32_t	part = carry << 8 | sum[i];

		middle[i] = (uint8_t) (part >> 1);
		carry = part & 1;
	}
	return memcmp(middle, low, AU_KEY_LEN) != 0;
}

/* key - 2^bit; false: that is below all keys. */
static bool
key_minus(const uint8_t *key, uint32_t bit, uint8_t *out)
{
	int			i = AU_KEY_LEN - 1 - (int) (bit / 8);
	uint32_t	take = 1u << (bit % 8);

	memcpy(out, key, AU_KEY_LEN);
	for (; i >= 0; i--)
	{
		uint32_t	had = out[i];

		out[i] = (uint8_t) (had - take);
		if (had >= take)
			return true;
		take = 1;
	}
	return false;
}

static bool
take_error(AuPageScrub *s, char *why, size_t len)
{
	char	   *dberr = NULL;

	rocksdb_iter_get_error(s->it, &dberr);
	if (dberr == NULL)
		return false;
	snprintf(why, len, "%s", dberr);
	rocksdb_free(dberr);
	return true;
}

static bool
is_version(const uint8_t *key, size_t klen)
{
	return klen == AU_KEY_LEN && (key[0] == AU_KS_PAGE || key[0] == AU_KS_SIZE);
}

/* The version that the walk is at; NULL: at none (any more). */
static const uint8_t *
version_at(const AuPageScrub *s)
{
	const uint8_t *key;
	size_t		klen;

	if (!rocksdb_iter_valid(s->it))
		return NULL;
	key = (const uint8_t *) rocksdb_iter_key(s->it, &klen);
	return is_version(key, klen) ? key : NULL;
}

/* false: what lies there cannot be read; why says so. */
static bool
seek_below(AuPageScrub *s, const uint8_t *key, char *why, size_t len)
{
	rocksdb_iter_seek_for_prev(s->it, (const char *) key, AU_KEY_LEN);
	return !take_error(s, why, len);
}

/*
 * The iterator met something unreadable below place.key: report it, go on
 * behind it.  Strides that double find something readable, a binary search then
 * the first of it, in at most two seeks for each bit of a key: what is unreadable may
 * hold few pages, but also the gap between two relations, or all that there is.
 * false: nothing more can be read.
 */
static bool
step_over(AuPageScrub *s, const char *why)
{
	uint8_t		low[AU_KEY_LEN] = {0};
	uint8_t		high[AU_KEY_LEN];
	uint8_t		middle[AU_KEY_LEN];
	const uint8_t *key;
	AuPageId	from = {0},
				to = {0};
	AuLsn		lsn = 0;
	AuLsn		any;
	uint8_t		ks = AU_KS_SIZE;
	char		text[AU_SCRUB_TEXT];
	char		again[AU_SCRUB_TEXT];
	bool		more;

	memcpy(high, s->place.key, AU_KEY_LEN);
	(void) au_key_decode(high, AU_KEY_LEN, &ks, &from, &lsn);
	for (uint32_t bit = 0; bit < AU_KEY_LEN * 8 && key_minus(high, bit, middle); bit++)
	{
		if (seek_below(s, middle, again, sizeof(again)))
		{
			memcpy(low, middle, AU_KEY_LEN);
			break;
		}
		memcpy(high, middle, AU_KEY_LEN);
	}
	while (key_between(low, high, middle))
		memcpy(seek_below(s, middle, again, sizeof(again)) ? low : high, middle, AU_KEY_LEN);
	/* The page there may have versions in what is unreadable: not that one. */
	key = seek_below(s, low, again, sizeof(again)) ? version_at(s) : NULL;
	more = key != NULL;
	if (more)
		memcpy(high, key, AU_KEY_LEN);
	for (; key != NULL && memcmp(key, high, AU_KEY_PAGE_LEN) == 0; key = version_at(s))
	{
		memcpy(s->place.key, key, AU_KEY_LEN);
		rocksdb_iter_prev(s->it);
	}
	if (key != NULL)
		(void) au_key_decode(key, AU_KEY_LEN, &ks, &to, &any);
	snprintf(text, sizeof(text),
			 "blocks above %u of relation %u/%u/%u, up to block %u of relation %u/%u/%u, at %X/%X or before: %.200s",
			 to.blk, to.rel.spc, to.rel.db, to.rel.rel, from.blk, from.rel.spc,
			 from.rel.db, from.rel.rel, AU_LSN_ARGS(s->v.horizon > lsn ? s->v.horizon : lsn), why);
	s->v.problems++;
	note_problem(s, text);
	return more;
}

/* ---- the walk --------------------------------------------------------- */

/* Where the region's garbage is, compact; by the worker thread, which waits. */
static void
end_region(AuPageScrub *s)
{
	AuScrubPlace *p = &s->place;

	if (p->region_garbage >= REGION_GARBAGE_MIN &&
		p->region_garbage >= p->region_bytes / REGION_GARBAGE_PART && s->v.problems == 0)
	{
		rocksdb_compactoptions_t *o = rocksdb_compactoptions_create();

		rocksdb_compactoptions_set_exclusive_manual_compaction(o, 0);
		rocksdb_compactoptions_set_bottommost_level_compaction(o, AU_COMPACT_BOTTOM_FORCED);
		rocksdb_compact_range_opt(s->ps->db, o, (const char *) p->key, AU_KEY_LEN,
								  (const char *) p->region_end, AU_KEY_LEN);
		rocksdb_compactoptions_destroy(o);
		p->compactions++;
	}
	p->region_bytes = p->region_garbage = 0;
	memcpy(p->region_end, p->key, AU_KEY_LEN);
}

static void
find_percent(AuPageScrub *s)
{
	static const char first[] = {AU_KS_PAGE};
	static const char last[] = {AU_KS_SIZE + 1};
	const char *from[2] = {first, first};
	const char *to[2] = {last, (const char *) s->place.key};
	size_t		from_len[2] = {1, 1};
	size_t		to_len[2] = {1, AU_KEY_LEN};
	uint64_t	sizes[2] = {0, 0};
	char	   *dberr = NULL;

	rocksdb_approximate_sizes(s->ps->db, 2, from, from_len, to, to_len, sizes, &dberr);
	rocksdb_free(dberr);
	if (sizes[0] > 0 && sizes[1] <= sizes[0])
		s->percent = (uint32_t) (100 - sizes[1] * 100 / sizes[0]);
}

/* A page whose slice comes or goes has some of its versions only. */
static bool
is_whole(const AuSlicesRecord *slices, const uint8_t *key)
{
	AuPageId	page;
	AuLsn		lsn;
	uint8_t		ks;

	return !slices->told || !au_key_decode(key, AU_KEY_LEN, &ks, &page, &lsn) ||
		ks != AU_KS_PAGE || au_slices_readable(slices, &page);
}

/*
 * Onto the oldest version of the page where the last step ended.  It may be
 * older than the one that was the oldest then: the page's slice may have come
 * meanwhile.
 */
static void
seek_place(AuPageScrub *s)
{
	uint8_t		from[AU_KEY_LEN];
	AuPageId	page;
	AuLsn		lsn;
	uint8_t		ks;

	memcpy(from, s->place.key, AU_KEY_LEN);
	if (au_key_decode(s->place.key, AU_KEY_LEN, &ks, &page, &lsn))
		au_key_encode(from, ks, &page, 0);
	rocksdb_iter_seek_for_prev(s->it, (const char *) from, AU_KEY_LEN);
}

uint64_t
au_pagestore_scrub_work(AuPageScrub *s, uint64_t budget)
{
	AuScrubPlace *p = &s->place;
	uint64_t	done = 0;
	char		why[AU_SCRUB_TEXT];

	if (s->it == NULL)
	{
		read_cuts(s);
		return (uint64_t) s->ncuts * AU_PAGE_SIZE;
	}
	if (!p->started)
	{
		memset(p->key, 0xFF, AU_KEY_LEN);
		memcpy(p->region_end, p->key, AU_KEY_LEN);
		p->started = true;
		rocksdb_iter_seek_to_last(s->it);
	}
	else
		seek_place(s);
	for (;;)
	{
		size_t		klen,
					vlen;
		const uint8_t *key,
				   *value;

		if (!rocksdb_iter_valid(s->it))
		{
			au_verify_end_page(&s->v);
			if (take_error(s, why, sizeof(why)) && step_over(s, why))
				continue;
			s->finished = true;
			break;
		}
		key = (const uint8_t *) rocksdb_iter_key(s->it, &klen);
		if (!is_version(key, klen))
		{
			/* the records before all versions */
			s->finished = true;
			break;
		}
		if (done >= budget && memcmp(key, p->key, AU_KEY_PAGE_LEN) != 0)
		{
			/* the next step begins with this page */
			memcpy(p->key, key, AU_KEY_LEN);
			break;
		}
		value = (const uint8_t *) rocksdb_iter_value(s->it, &vlen);
		if (is_whole(&s->slices, key))
			au_verify_version(&s->v, key, klen, value, vlen);
		memcpy(p->key, key, AU_KEY_LEN);
		done += klen + vlen;
		rocksdb_iter_prev(s->it);
	}
	au_verify_end_page(&s->v);
	rocksdb_iter_destroy(s->it);
	s->it = NULL;
	if (p->region_bytes >= REGION_BYTES || s->finished)
		end_region(s);
	if (!s->finished)
		find_percent(s);
	return done;
}

bool
au_pagestore_scrub_end(AuPageScrub *s, void (*fn) (void *ctx, const char *problem), void *ctx)
{
	AuPageStore *ps = s->ps;
	AuPageStoreStats *st = &ps->stats;
	bool		finished = s->finished;

	if (s->it != NULL)
		rocksdb_iter_destroy(s->it);	/* work was not called */
	if (s->cut_pages != NULL)
		end_cuts(s);
	s->place.versions += s->v.versions;
	s->place.problems += s->v.problems;
	for (uint32_t i = 0; i < s->nproblems; i++)
		fn(ctx, s->problems[i]);
	if (s->nproblems > 0)
		snprintf(ps->scrub_problem, sizeof(ps->scrub_problem), "%s", s->problems[0]);
	st->scrub_versions += s->v.versions;
	st->scrub_compactions = s->place.compactions;
	if (s->cut_pages == NULL)
		st->scrub_percent = finished ? 100 : s->percent;
	/* what the last whole walk found counts until this one found more */
	if (finished || s->place.problems > st->scrub_damaged)
		st->scrub_damaged = s->place.problems;
	ps->scrub_place = s->place;
	if (finished)
	{
		st->scrub_passes++;
		if (st->scrub_damaged == 0)
			ps->scrub_problem[0] = '\0';
		ps->scrub_place.started = false;
		ps->scrub_place.versions = ps->scrub_place.problems = 0;
	}
	free(s);
	return finished;
}

const char *
au_pagestore_scrub_problem(const AuPageStore *ps)
{
	return ps->scrub_problem;
}
