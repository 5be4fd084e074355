/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_pending.h: patches that are applied to no stored page yet, gathered per
 * page in memory until they are written as bundles.
 *
 * A "generation" is one such set.  Items are never removed one by one: a
 * generation is written as a whole and then emptied.  Memory comes from
 * chunks, so an item costs a bump of a pointer.
 *
 *   entry (page) ──▶ newest segment ──▶ older segment ──▶ NULL
 *                         │
 *                    newest item ──▶ older item ──▶ NULL
 *
 * A segment becomes one bundle (au_bundle.h); items are linked newest first
 * because readers look from the newest back to a whole page.  Segments are
 * linked both ways: bundles are written oldest first.
 *
 * One thread changes a generation.  A frozen one (nobody changes it) may be
 * read by several; of a current one others may read items that the owner
 * thread showed them (au_pending_pin).
 */
#ifndef AU_PENDING_H
#define AU_PENDING_H

#include "common/au_base.h"

/* A segment is closed when it holds this much, so that bundles stay small. */
#define AU_SEGMENT_BYTES_MAX (48 * 1024)
#define AU_SEGMENT_ITEMS_MAX 512

typedef struct AuPendItem
{
	struct AuPendItem *older;
	AuLsn		lsn;
	uint32_t	len;
	bool		full;			/* needs nothing older: INIT, IMAGE */
	uint8_t		ops[];
} AuPendItem;

typedef struct AuPendSegment
{
	struct AuPendSegment *older;
	struct AuPendSegment *newer;
	AuPendItem *newest;
	AuLsn		first_lsn;
	AuLsn		self_from;		/* as in a bundle */
	uint32_t	nitems;
	uint32_t	bytes;			/* of operations */
} AuPendSegment;

typedef struct AuPendEntry
{
	struct AuPendEntry *hash_next;
	struct AuPendEntry *all_next;
	AuPageId	page;
	uint8_t		keyspace;
	/* The page's chain as its owner counts it (au_chain_units): longest in
	 * here; at the last item; since the last whole page in here. */
	uint16_t	units_max;
	uint16_t	units_last;
	uint16_t	units_memory;
	AuPendSegment *newest;
	AuPendSegment *oldest;
} AuPendEntry;

typedef struct AuPending AuPending;

AuPending  *au_pending_new(void);	/* NULL: out of memory */
void		au_pending_free(AuPending *g);
/* Forget everything; keeps a little memory for the next round.  Nobody may
 * have it pinned. */
void		au_pending_reset(AuPending *g);

/*
 * A pinned generation is not reset: readers on other threads use its items.
 * An item never moves or changes once it was added, so they need no lock for
 * those that were there when they pinned.  Owner thread only.
 */
void		au_pending_pin(AuPending *g);
void		au_pending_unpin(AuPending *g);
bool		au_pending_pinned(const AuPending *g);

AuPendEntry *au_pending_find(const AuPending *g, uint8_t keyspace, const AuPageId *page);
/* Finds or makes; NULL: out of memory. */
AuPendEntry *au_pending_enter(AuPending *g, uint8_t keyspace, const AuPageId *page);

/*
 * Add an item.  new_life: the item begins a new history of the page (opens a
 * segment).  image: it shows the page as of lsn, which may equal the newest
 * item's LSN.  AU_INVALID if the LSN goes backwards (nothing is added),
 * AU_NOMEM.
 */
AuStatus	au_pending_add(AuPending *g, AuPendEntry *e, AuLsn lsn,
						   const uint8_t *ops, uint32_t len,
						   bool full, bool image);

size_t		au_pending_bytes(const AuPending *g);	/* memory in use */
uint32_t	au_pending_entries(const AuPending *g);
AuPendEntry *au_pending_first(const AuPending *g);	/* then ->all_next */

uint64_t	au_page_hash(uint8_t keyspace, const AuPageId *page);

#endif							/* AU_PENDING_H */
