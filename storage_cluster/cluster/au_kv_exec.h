/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_kv_exec.h: what the key-value interface asks of a node's store, and how it
 * is done on top of an ordered map of bytes.  Pure: the map, its durability and
 * its threads are the host's (store/au_kvstore.h; a simulator has its own).
 *
 * Keys of the map:
 *
 *   'm'                              actor, last counter, starts
 *   'o' node (u32, big-endian) key   that node is owed the record (u64 counter
 *                                    of the write)
 *   'r' slice (u8) key               record, au_kv_vv.h
 *   's'                              which slices are complete (au_kv.c)
 *
 * Operations are of two classes.  Those that write are executed one after the
 * other, by one thread at a time; several make one batch, which is on disk
 * before any of them counts as done.  Those that read see what is on disk and
 * may be executed by another thread meanwhile.
 *
 * The serial.  A store that agrees that a tombstone may go (CHECK), or removes
 * it (PURGE), takes a new serial.  MERGE with another serial than the store's
 * is refused (AU_FENCED): the record may have been read before.
 */
#ifndef AU_KV_EXEC_H
#define AU_KV_EXEC_H

#include "cluster/au_kv_vv.h"
#include "cluster/au_view.h"

typedef enum AuKvOpType
{
	/* these read */
	AU_KV_OP_READ,				/* key: its record */
	AU_KV_OP_OWED,				/* records that node `number` is owed, after key */
	AU_KV_OP_SCAN,				/* records of slices, after slice, key */
	AU_KV_OP_LIST,				/* keys of slices with a prefix (key), after `in` */
	/* these write */
	AU_KV_OP_UPDATE,			/* a client's write; this store is the actor */
	AU_KV_OP_MERGE,				/* a record from another node */
	AU_KV_OP_DISOWE,			/* node `number` has the record as of `counter`; without a
								 * key: it is gone, and owed nothing (`more`: there is) */
	AU_KV_OP_DROP,				/* forget the record, if it is still this one */
	AU_KV_OP_CHECK,				/* may this tombstone go? */
	AU_KV_OP_PURGE,				/* it goes */
	AU_KV_OP_STATE,				/* keep the bytes */
	AU_KV_OP_WIPE				/* forget some records; `more`: there are others */
} AuKvOpType;

#define AU_KV_OP_FIRST_WRITE AU_KV_OP_UPDATE

/* What a SCAN looks for. */
#define AU_KV_SCAN_ALL 0
#define AU_KV_SCAN_DELETED 1	/* only records of which nothing but tombstones is left */
#define AU_KV_SCAN_STEPS 1000	/* records that one operation looks at */

typedef struct AuKvOp
{
	AuKvOpType	type;
	uint16_t	klen;
	uint16_t	slice;
	uint8_t		key[AU_KV_KEY_MAX];

	uint8_t    *in;				/* record, value, bytes; alloc'ed, the op's own */
	uint32_t	in_len;
	AuKvVector	past;			/* UPDATE */
	uint32_t	flags;			/* UPDATE: of the sibling; SCAN: AU_KV_SCAN_* */
	uint32_t	owed[AU_RF_MAX];	/* UPDATE: numbers of nodes to be owed */
	uint32_t	nowed;
	uint64_t	serial;			/* MERGE */
	bool		replace;		/* MERGE: only instead of a damaged record; may be nothing */
	bool		owner;			/* CHECK: we must have it, else we must not */
	uint32_t	number;			/* OWED, DISOWE */
	uint64_t	counter;		/* DISOWE; UPDATE: that of the dot, when done */
	AuSliceSet	slices;			/* SCAN, LIST */
	uint32_t	limit;			/* bytes of SCAN and OWED, keys of LIST */

	AuStatus	status;
	uint8_t    *out;			/* alloc'ed, the op's own; UPDATE, READ: the record */
	uint32_t	out_len;
	uint32_t	found;			/* records, keys in out */
	uint32_t	damaged;		/* records that were passed over; in hurt the last one */
	uint16_t	hurt_len;
	uint8_t		hurt[AU_KV_KEY_MAX];
	bool		more;			/* go on after slice, key */
	uint64_t	serial_now;		/* of operations that write */

	/* the requester's */
	uint64_t	task;
	uint32_t	purpose;
	uint64_t	arg;
	struct AuKvOp *next;
} AuKvOp;

/* The map.  Memory that get gives is the caller's. */
typedef struct AuKvMap
{
	void	   *ctx;
	void	   *(*alloc) (void *ctx, size_t size);
	void		(*release) (void *ctx, void *p);
	/* Sees what was put before in the same batch.  AU_NOT_FOUND: no such key. */
	AuStatus	(*get) (void *ctx, const uint8_t *key, size_t klen, uint8_t **value, size_t *len);
	void		(*put) (void *ctx, const uint8_t *key, size_t klen, const uint8_t *value, size_t len);
	void		(*del) (void *ctx, const uint8_t *key, size_t klen);
	/* Keys in order from `from` on, until fn says false; the batch's own
	 * changes need not be seen. */
	AuStatus	(*scan) (void *ctx, const uint8_t *from, size_t flen,
						 bool (*fn) (void *fnctx, const uint8_t *key, size_t klen,
									 const uint8_t *value, size_t len), void *fnctx);
} AuKvMap;

/* What the thread that writes keeps between batches. */
typedef struct AuKvExec
{
	uint64_t	actor;
	uint64_t	counter;
	uint64_t	starts;
	uint64_t	serial;
} AuKvExec;

/*
 * At start: reads what the store is, or makes it (as `fresh`, a number from
 * chance), and counts the start; the batch must be made durable.  *state:
 * the bytes kept by STATE, alloc'ed, NULL: none.  AU_CORRUPT: damaged, unusable.
 */
AuStatus	au_kv_exec_open(AuKvExec *x, const AuKvMap *map, uint64_t fresh,
							uint8_t **state, size_t *state_len);
/* Execute; what went wrong is in op->status.  x is NULL for those that read. */
void		au_kv_exec(AuKvExec *x, const AuKvMap *map, AuKvOp *op);

/* Slice of a key; part of the format. */
uint32_t	au_kv_slice(const void *key, size_t klen);

/* Take the next record out of what SCAN found; false: the end, or malformed. */
bool		au_kv_packed_next(const uint8_t **p, size_t *left, const uint8_t **key, uint16_t *klen,
							  const uint8_t **record, uint32_t *len);
/* Entries of OWED have the counter in front. */
bool		au_kv_owed_next(const uint8_t **p, size_t *left, uint64_t *counter, const uint8_t **key,
							uint16_t *klen, const uint8_t **record, uint32_t *len);

#endif							/* AU_KV_EXEC_H */
