/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_slices.h: what the node's core and a page store tell each other about
 * slices that move; store/au_export.h has what it means.
 */
#ifndef AU_SLICES_H
#define AU_SLICES_H

#include "cluster/au_view.h"

#define AU_PLACE_LEN 29

/* A place in the order of a store's versions (store/au_chunk.h). */
typedef struct AuPlace
{
	uint8_t		key[AU_PLACE_LEN];
} AuPlace;

typedef struct AuSlicesState
{
	AuSliceSet	kept;
	AuSliceSet	lasting;		/* kept according to files: what a crash leaves */
	AuSliceSet	incoming;
	AuSliceSet	dropping;
	AuLsn		since;			/* P of those that are incoming */
	AuPlace		place;			/* up to here they are in */
	bool		done;			/* all of them is in: call finish */
	bool		partial;		/* not all slices are kept */
	bool		unwritten;		/* something changed since the last write */
	uint64_t	bytes;			/* imported since open */
} AuSlicesState;

/* Positions of a store, and its map of times as stored, to begin another. */
#define AU_POSITION_TIMES_MAX (32u + 2048u * 16u)

typedef struct AuStorePosition
{
	AuLsn		applied;		/* sizes are exported up to here */
	AuLsn		restart;		/* decoding begins here */
	AuLsn		horizon;
	AuLsn		gc_done;
	uint32_t	times_len;		/* 0: none */
	uint8_t		times[AU_POSITION_TIMES_MAX];
} AuStorePosition;

static inline bool
au_slices_any(const AuSliceSet *s)
{
	uint64_t	any = 0;

	for (int i = 0; i < AU_SLICES / 64; i++)
		any |= s->bits[i];
	return any != 0;
}

static inline AuSliceSet
au_slices_and(const AuSliceSet *a, const AuSliceSet *b)
{
	AuSliceSet	r;

	for (int i = 0; i < AU_SLICES / 64; i++)
		r.bits[i] = a->bits[i] & b->bits[i];
	return r;
}

static inline AuSliceSet
au_slices_or(const AuSliceSet *a, const AuSliceSet *b)
{
	AuSliceSet	r;

	for (int i = 0; i < AU_SLICES / 64; i++)
		r.bits[i] = a->bits[i] | b->bits[i];
	return r;
}

/* Those of a that are not in b. */
static inline AuSliceSet
au_slices_without(const AuSliceSet *a, const AuSliceSet *b)
{
	AuSliceSet	r;

	for (int i = 0; i < AU_SLICES / 64; i++)
		r.bits[i] = a->bits[i] & ~b->bits[i];
	return r;
}

static inline uint32_t
au_slices_count(const AuSliceSet *s)
{
	uint32_t	n = 0;

	for (uint32_t i = 0; i < AU_SLICES; i++)
		n += au_slices_has(s, i);
	return n;
}

#endif							/* AU_SLICES_H */
