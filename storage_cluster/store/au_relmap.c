/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_relmap.c: relations of a volume in memory; see au_relmap.h.
 */
#include "store/au_relmap.h"

#include <assert.h>
#include <stdlib.h>

#define MIN_BUCKETS 1024

void
au_size_item_encode(uint8_t *p, const AuSizeItem *item)
{
	au_put_u32(p, item->nblocks);
	p[4] = item->kind;
	au_put_u32(p + 5, item->cut);
	au_put_u64(p + 9, item->prev_event);
}

bool
au_size_item_decode(const uint8_t *p, size_t len, AuSizeItem *item)
{
	if (len != AU_SIZE_ITEM || p[4] > AU_SIZE_DROP)
		return false;
	item->nblocks = au_get_u32(p);
	item->kind = p[4];
	item->cut = au_get_u32(p + 5);
	item->prev_event = au_get_u64(p + 9);
	return true;
}

bool
au_rel_id_equal(const AuRelId *a, const AuRelId *b)
{
	return a->rel == b->rel && a->db == b->db && a->spc == b->spc && a->fork == b->fork;
}

static uint32_t
rel_hash(const AuRelId *id)
{
	uint64_t	h = ((uint64_t) id->db << 32) | id->rel;

	h ^= ((uint64_t) id->spc << 13) ^ ((uint64_t) id->fork << 61);
	h *= 0x9e3779b97f4a7c15ULL;
	return (uint32_t) (h >> 32);
}

bool
au_relmap_init(AuRelMap *m)
{
	m->count = 0;
	m->nbuckets = MIN_BUCKETS;
	m->buckets = calloc(m->nbuckets, sizeof(*m->buckets));
	return m->buckets != NULL;
}

static void
free_rel(AuRel *rel)
{
	free(rel->events);
	free(rel);
}

void
au_relmap_free(AuRelMap *m)
{
	for (uint32_t i = 0; m->buckets != NULL && i < m->nbuckets; i++)
	{
		AuRel	   *rel = m->buckets[i];

		while (rel != NULL)
		{
			AuRel	   *next = rel->hash_next;

			free_rel(rel);
			rel = next;
		}
	}
	free(m->buckets);
	m->buckets = NULL;
	m->nbuckets = m->count = 0;
}

AuRel *
au_relmap_find(const AuRelMap *m, const AuRelId *id)
{
	AuRel	   *rel = m->buckets[rel_hash(id) & (m->nbuckets - 1)];

	while (rel != NULL && !au_rel_id_equal(&rel->id, id))
		rel = rel->hash_next;
	return rel;
}

static void
grow(AuRelMap *m)
{
	uint32_t	n = m->nbuckets * 2;
	AuRel	  **buckets = calloc(n, sizeof(*buckets));

	if (buckets == NULL)
		return;					/* only slower */
	for (uint32_t i = 0; i < m->nbuckets; i++)
	{
		AuRel	   *rel = m->buckets[i];

		while (rel != NULL)
		{
			AuRel	   *next = rel->hash_next;
			AuRel	  **slot = &buckets[rel_hash(&rel->id) & (n - 1)];

			rel->hash_next = *slot;
			*slot = rel;
			rel = next;
		}
	}
	free(m->buckets);
	m->buckets = buckets;
	m->nbuckets = n;
}

AuRel *
au_relmap_enter(AuRelMap *m, const AuRelId *id)
{
	AuRel	   *rel = au_relmap_find(m, id);
	AuRel	  **slot;

	if (rel != NULL)
		return rel;
	rel = calloc(1, sizeof(*rel));
	if (rel == NULL)
		return NULL;
	if (m->count >= m->nbuckets)
		grow(m);
	rel->id = *id;
	slot = &m->buckets[rel_hash(id) & (m->nbuckets - 1)];
	rel->hash_next = *slot;
	*slot = rel;
	m->count++;
	return rel;
}

void
au_relmap_remove(AuRelMap *m, const AuRelId *id)
{
	AuRel	  **slot = &m->buckets[rel_hash(id) & (m->nbuckets - 1)];

	while (*slot != NULL)
	{
		AuRel	   *rel = *slot;

		if (au_rel_id_equal(&rel->id, id))
		{
			*slot = rel->hash_next;
			free_rel(rel);
			m->count--;
			return;
		}
		slot = &rel->hash_next;
	}
}

bool
au_rel_add_event(AuRel *rel, const AuRelEvent *event)
{
	assert(rel->nevents == 0 || rel->events[rel->nevents - 1].lsn < event->lsn);
	if (rel->nevents == rel->events_cap)
	{
		uint32_t	cap = rel->events_cap == 0 ? 2 : rel->events_cap * 2;
		AuRelEvent *bigger = realloc(rel->events, cap * sizeof(*bigger));

		if (bigger == NULL)
			return false;
		rel->events = bigger;
		rel->events_cap = cap;
	}
	rel->events[rel->nevents++] = *event;
	return true;
}

void
au_rel_forget_events(AuRel *rel, AuLsn lsn)
{
	uint32_t	n = 0;

	while (n < rel->nevents && rel->events[n].lsn <= lsn)
		n++;
	if (n == 0)
		return;
	rel->nevents -= n;
	memmove(rel->events, rel->events + n, rel->nevents * sizeof(*rel->events));
	if (rel->nevents == 0)
	{
		free(rel->events);
		rel->events = NULL;
		rel->events_cap = 0;
	}
}

AuLsn
au_rel_floor(const AuRel *rel, uint32_t blk, AuLsn lsn)
{
	for (uint32_t i = rel->nevents; i > 0; i--)
	{
		const AuRelEvent *event = &rel->events[i - 1];

		if (event->lsn <= lsn && blk >= event->cut)
			return event->lsn;
	}
	return 0;
}
