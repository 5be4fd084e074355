/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_relmap.h: the relations of a volume, their newest size, and the events
 * (truncations, drops) after which older page versions no longer count.
 *
 * A page version with lsn <= floor(relation, block, L), the newest event at
 * or before L that cut the block off, belongs to an earlier life of the block
 * and is not visible at L.
 *
 * Stored form: items under (AU_KS_SIZE, relation, AU_SIZE_BLOCK), each
 * AU_SIZE_ITEM bytes:
 *
 *   0  u32 nblocks      size from this LSN on
 *   4  u8  kind         AU_SIZE_*
 *   5  u32 cut          for an event: blocks >= cut are gone
 *   9  u64 prev_event   LSN of the event before this item, 0 for none
 *
 * so the newest item leads to all events without reading the others.
 *
 * Events stay in memory until the garbage collector removed what they cut
 * off (in LSN order, so one watermark says how far it is).
 */
#ifndef AU_RELMAP_H
#define AU_RELMAP_H

#include "common/au_base.h"

#define AU_SIZE_EXTEND 0
#define AU_SIZE_TRUNCATE 1
#define AU_SIZE_DROP 2

#define AU_SIZE_ITEM 17

typedef struct AuSizeItem
{
	uint32_t	nblocks;
	uint8_t		kind;
	uint32_t	cut;
	AuLsn		prev_event;
} AuSizeItem;

void		au_size_item_encode(uint8_t *p, const AuSizeItem *item);
bool		au_size_item_decode(const uint8_t *p, size_t len, AuSizeItem *item);

typedef struct AuRelEvent
{
	AuLsn		lsn;
	uint32_t	cut;
	uint8_t		kind;
} AuRelEvent;

typedef struct AuRel
{
	struct AuRel *hash_next;
	AuRelId		id;
	uint32_t	nblocks;
	AuLsn		size_lsn;		/* LSN of the newest size item */
	AuLsn		last_event;		/* newest event ever, 0 for none */
	AuRelEvent *events;			/* those in memory, ascending by LSN */
	uint32_t	nevents;
	uint32_t	events_cap;
} AuRel;

typedef struct AuRelMap
{
	AuRel	  **buckets;
	uint32_t	nbuckets;
	uint32_t	count;
} AuRelMap;

bool		au_relmap_init(AuRelMap *m);	/* false: out of memory */
void		au_relmap_free(AuRelMap *m);
AuRel	   *au_relmap_find(const AuRelMap *m, const AuRelId *id);
AuRel	   *au_relmap_enter(AuRelMap *m, const AuRelId *id);	/* NULL: out of memory */
void		au_relmap_remove(AuRelMap *m, const AuRelId *id);

/* Events must come in LSN order.  false: out of memory. */
bool		au_rel_add_event(AuRel *rel, const AuRelEvent *event);
/* Forget events at or below lsn. */
void		au_rel_forget_events(AuRel *rel, AuLsn lsn);
AuLsn		au_rel_floor(const AuRel *rel, uint32_t blk, AuLsn lsn);

bool		au_rel_id_equal(const AuRelId *a, const AuRelId *b);

#endif							/* AU_RELMAP_H */
