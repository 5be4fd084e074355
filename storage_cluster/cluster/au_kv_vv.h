/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_kv_vv.h: what a key of the key-value interface has: its values and their
 * causal past, with dotted version vectors (Preguica et al. 2012, "Dotted
 * Version Vectors: Efficient Causality Tracking for Distributed Key-Value
 * Stores").  Pure.
 *
 *   record ─┬─ version vector   actor -> counter: every write that counted up
 *           │                   to there is known here, as a sibling or as
 *           │                   one that was replaced
 *           └─ siblings         (dot, value); more than one: they were written
 *                               without knowing of each other
 *
 * A dot (actor, counter) names one write.  Actors are stores (not nodes: a
 * store that is lost and made anew is another actor); a store's counter is one
 * for all keys and never goes back, so no dot is used twice.  A deletion is a
 * write whose sibling is a tombstone.
 *
 * Invariants:
 *  1. The dot of every sibling is covered by the record's vector.
 *  2. A record whose vector covers a dot that is not among its siblings knows
 *     that this write was replaced.  This needs a store that makes a dot to
 *     hold all that it wrote for that key before (au_kv.h has why it does).
 *  3. merge is commutative, associative and idempotent.
 *  4. Bounded: AU_KV_VV_MAX entries, AU_KV_MERGED_MAX siblings.  A vector that
 *     would be longer forgets an actor that no sibling is from: then a write
 *     of that one, replaced long ago, may come back as a sibling from a
 *     replica that was never told.  It takes 32 stores that coordinated
 *     writes of one key.
 *
 * Bytes of a record, little-endian, in the store and in messages:
 *
 *   0  u32 magic AU_KV_MAGIC      12 u8  entries of the vector
 *   4  u32 length, all of it      13 u8  siblings
 *   8  u32 CRC-32C of the key     14 u16 version, 1
 *      and of all from 12 on
 *   16 entries x (u64 actor, u64 counter), by actor
 *   .. siblings x (u64 actor, u64 counter, u32 flags, u32 length, bytes), by dot
 */
#ifndef AU_KV_VV_H
#define AU_KV_VV_H

#include "common/au_base.h"

#define AU_KV_KEY_MAX 1024
#define AU_KV_VALUE_MAX (64u << 10)
#define AU_KV_VV_MAX 32
#define AU_KV_SIBLINGS_MAX 8	/* a PUT that would make more is refused */
#define AU_KV_MERGED_MAX 40		/* ... but several coordinators may each allow 8 */

#define AU_KV_MAGIC 0x31564b41u /* "AKV1" in memory */
#define AU_KV_VERSION 1
#define AU_KV_HEAD 16
#define AU_KV_ENTRY 16
#define AU_KV_SIBLING_HEAD 24
#define AU_KV_RECORD_MAX \
	(AU_KV_HEAD + AU_KV_VV_MAX * AU_KV_ENTRY + \
	 AU_KV_MERGED_MAX * (AU_KV_SIBLING_HEAD + AU_KV_VALUE_MAX))

#define AU_KV_TOMBSTONE 1u		/* flag of a sibling */

typedef struct AuKvDot
{
	uint64_t	actor;
	uint64_t	counter;
} AuKvDot;

typedef struct AuKvVector
{
	uint32_t	n;
	AuKvDot		entry[AU_KV_VV_MAX];	/* by actor */
} AuKvVector;

typedef struct AuKvSibling
{
	AuKvDot		dot;
	uint32_t	flags;
	uint32_t	length;
	const uint8_t *value;		/* somebody else's memory */
} AuKvSibling;

typedef struct AuKvRecord
{
	AuKvVector	past;
	uint32_t	n;
	AuKvSibling sibling[AU_KV_MERGED_MAX];	/* by dot */
} AuKvRecord;

/* 0: nothing of that actor. */
uint64_t	au_kv_vector_get(const AuKvVector *v, uint64_t actor);
bool		au_kv_vector_covers(const AuKvVector *v, const AuKvDot *dot);
/* Every write that b knows a knows, too. */
bool		au_kv_vector_includes(const AuKvVector *a, const AuKvVector *b);

/*
 * out = what both know together; values stay where they are.  out may be a or
 * b.  false: more siblings than AU_KV_MERGED_MAX; out is then not to be used.
 */
bool		au_kv_merge(AuKvRecord *out, const AuKvRecord *a, const AuKvRecord *b);

/*
 * A new write: what `past` (that which the writer had read) covers is
 * replaced, the rest stays.  AU_FULL: it would have more than
 * AU_KV_SIBLINGS_MAX siblings, r is unchanged.
 */
AuStatus	au_kv_update(AuKvRecord *r, const AuKvVector *past, const AuKvSibling *write);

/* Same vector, same siblings. */
bool		au_kv_same(const AuKvRecord *a, const AuKvRecord *b);
/* It has siblings, and all are tombstones. */
bool		au_kv_deleted(const AuKvRecord *r);
/* All that it has was replaced, as far as v knows, or is in v's record. */
bool		au_kv_known(const AuKvRecord *r, const AuKvVector *v);

size_t		au_kv_record_size(const AuKvRecord *r);
/* Returns the length; 0: cap is too small. */
size_t		au_kv_record_encode(const AuKvRecord *r, const void *key, size_t klen,
								uint8_t *buf, size_t cap);
/* Values point into buf.  false: damaged, or of another key. */
bool		au_kv_record_decode(AuKvRecord *r, const void *key, size_t klen,
								const uint8_t *buf, size_t len);

/*
 * A context is what GET gives to the client and PUT takes back: the vector,
 * with a checksum over it and the key.  Opaque to clients.  Length 0 is the
 * context of one who knows nothing.
 */
#define AU_KV_CONTEXT_MAX (8 + AU_KV_VV_MAX * AU_KV_ENTRY)
size_t		au_kv_context_encode(const AuKvVector *v, const void *key, size_t klen,
								 uint8_t buf[AU_KV_CONTEXT_MAX]);
bool		au_kv_context_decode(AuKvVector *v, const void *key, size_t klen,
								 const uint8_t *buf, size_t len);

#endif							/* AU_KV_VV_H */
