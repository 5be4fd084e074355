/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_kv_exec.c: the operations of a node's key-value store; au_kv_exec.h has
 * the contract.
 *
 * Invariants:
 *  1. A dot is made from a counter that is in the same batch as the record.
 *  2. A record that is damaged is never handed out, and replaced only by what
 *     all other nodes have together (MERGE with replace).
 *  3. A tombstone is removed only as it was agreed on, byte for byte.
 */
#include "cluster/au_kv_exec.h"

#include <assert.h>

#include "common/au_crc32c.h"

/* 'm': magic, version, actor, counter, starts, crc */
#define META_MAGIC 0x4d4b5541u	/* "AUKM" in memory */
#define META_VERSION 1
#define META_LEN 36

#define RAW_KEY_MAX (AU_KV_KEY_MAX + 5)
#define LIST_ENTRY_HEAD 7

uint32_t
au_kv_slice(const void *key, size_t klen)
{
	return (uint32_t) (au_mix64(au_crc32c(0, key, klen)) % AU_SLICES);
}

/* ---- keys of the map -------------------------------------------------- */

static size_t
record_key(uint8_t *raw, uint32_t slice, const uint8_t *key, size_t klen)
{
	raw[0] = 'r';
	raw[1] = (uint8_t) slice;
	memcpy(raw + 2, key, klen);
	return klen + 2;
}

static size_t
owed_key(uint8_t *raw, uint32_t number, const uint8_t *key, size_t klen)
{
	raw[0] = 'o';
	raw[1] = (uint8_t) (number >> 24);
	raw[2] = (uint8_t) (number >> 16);
	raw[3] = (uint8_t) (number >> 8);
	raw[4] = (uint8_t) number;
	memcpy(raw + 5, key, klen);
	return klen + 5;
}

/* ---- start ------------------------------------------------------------ */

static void
put_meta(const AuKvExec *x, const AuKvMap *map)
{
	uint8_t		m[META_LEN];

	au_put_u32(m, META_MAGIC);
	au_put_u32(m + 4, META_VERSION);
	au_put_u64(m + 8, x->actor);
	au_put_u64(m + 16, x->counter);
	au_put_u64(m + 24, x->starts);
	au_put_u32(m + 32, au_crc32c(0, m, 32));
	map->put(map->ctx, (const uint8_t *) "m", 1, m, META_LEN);
}

AuStatus
au_kv_exec_open(AuKvExec *x, const AuKvMap *map, uint64_t fresh, uint8_t **state, size_t *state_len)
{
	uint8_t    *m = NULL;
	size_t		len = 0;
	AuStatus	status = map->get(map->ctx, (const uint8_t *) "m", 1, &m, &len);

	memset(x, 0, sizeof(*x));
	*state = NULL;
	*state_len = 0;
	if (status == AU_NOT_FOUND)
		x->actor = fresh;
	else if (status != AU_OK)
		return status;
	else
	{
		bool		good = len == META_LEN && au_get_u32(m) == META_MAGIC &&
			au_get_u32(m + 32) == au_crc32c(0, m, 32);

		if (good && au_get_u32(m + 4) == META_VERSION)
		{
			x->actor = au_get_u64(m + 8);
			x->counter = au_get_u64(m + 16);
			x->starts = au_get_u64(m + 24);
		}
		status = !good ? AU_CORRUPT : au_get_u32(m + 4) == META_VERSION ? AU_OK : AU_UNSUPPORTED;
		map->release(map->ctx, m);
		if (status != AU_OK)
			return status;
	}
	x->starts++;
	/* no serial comes twice, also after a crash */
	x->serial = x->starts << 32;
	put_meta(x, map);
	status = map->get(map->ctx, (const uint8_t *) "s", 1, state, state_len);
	return status == AU_NOT_FOUND ? AU_OK : status;
}

/* ---- one record ------------------------------------------------------- */

/* The record and its memory (NULL: there is none; r is then empty). */
static AuStatus
get_record(const AuKvMap *map, const AuKvOp *op, AuKvRecord *r, uint8_t **memory, size_t *len)
{
	uint8_t		raw[RAW_KEY_MAX];
	AuStatus	status;

	r->n = 0;
	r->past.n = 0;
	*memory = NULL;
	*len = 0;
	status = map->get(map->ctx, raw, record_key(raw, op->slice, op->key, op->klen), memory, len);
	if (status == AU_NOT_FOUND)
		return AU_OK;
	if (status != AU_OK)
		return status;
	if (au_kv_record_decode(r, op->key, op->klen, *memory, *len))
		return AU_OK;
	map->release(map->ctx, *memory);
	*memory = NULL;
	r->n = 0;
	r->past.n = 0;
	return AU_CORRUPT;
}

/* Into the map, and into out. */
static AuStatus
put_record(const AuKvMap *map, AuKvOp *op, const AuKvRecord *r)
{
	uint8_t		raw[RAW_KEY_MAX];
	size_t		size = au_kv_record_size(r);

	op->out = map->alloc(map->ctx, size);
	if (op->out == NULL)
		return AU_NOMEM;
	op->out_len = (uint32_t) au_kv_record_encode(r, op->key, op->klen, op->out, size);
	map->put(map->ctx, raw, record_key(raw, op->slice, op->key, op->klen), op->out, op->out_len);
	return AU_OK;
}

static void
del_record(const AuKvMap *map, const AuKvOp *op)
{
	uint8_t		raw[RAW_KEY_MAX];

	map->del(map->ctx, raw, record_key(raw, op->slice, op->key, op->klen));
}

static void
read_record(const AuKvMap *map, AuKvOp *op)
{
	AuKvRecord	r;
	size_t		len;

	op->status = get_record(map, op, &r, &op->out, &len);
	op->out_len = (uint32_t) len;
	if (op->status == AU_OK && op->out == NULL)
		op->status = AU_NOT_FOUND;
	else if (op->status != AU_OK)
		op->out_len = 0;
}

static void
update(AuKvExec *x, const AuKvMap *map, AuKvOp *op)
{
	AuKvSibling write = {.flags = op->flags,.length = op->in_len,.value = op->in};
	AuKvRecord	r;
	uint8_t    *memory;
	uint8_t		raw[RAW_KEY_MAX];
	uint8_t		counter[8];
	size_t		len;

	write.dot.actor = x->actor;
	write.dot.counter = x->counter + 1;
	op->status = get_record(map, op, &r, &memory, &len);
	if (op->status == AU_OK)
		op->status = au_kv_update(&r, &op->past, &write);
	if (op->status == AU_OK)
		op->status = put_record(map, op, &r);
	if (memory != NULL)
		map->release(map->ctx, memory);
	if (op->status != AU_OK)
		return;
	op->counter = ++x->counter;
	put_meta(x, map);
	au_put_u64(counter, op->counter);
	for (uint32_t i = 0; i < op->nowed; i++)
		map->put(map->ctx, raw, owed_key(raw, op->owed[i], op->key, op->klen), counter, 8);
}

static void
merge(AuKvExec *x, const AuKvMap *map, AuKvOp *op)
{
	AuKvRecord	theirs,
				ours,
				both;
	uint8_t    *memory = NULL;
	size_t		len;

	if (op->serial != x->serial)
	{
		op->status = AU_FENCED;
		return;
	}
	theirs.n = 0;
	theirs.past.n = 0;
	if (!(op->replace && op->in_len == 0) &&
		!au_kv_record_decode(&theirs, op->key, op->klen, op->in, op->in_len))
	{
		op->status = AU_INVALID;
		return;
	}
	op->status = get_record(map, op, &ours, &memory, &len);
	if (op->status == AU_CORRUPT && op->replace)
	{
		op->status = AU_OK;
		if (theirs.past.n == 0)
			del_record(map, op);
		else
			op->status = put_record(map, op, &theirs);
	}
	else if (op->status == AU_OK && !op->replace)
	{
		if (!au_kv_merge(&both, &ours, &theirs))
			op->status = AU_FULL;
		else if (memory == NULL || !au_kv_same(&both, &ours))
			op->status = put_record(map, op, &both);
	}
	if (memory != NULL)
		map->release(map->ctx, memory);
}


/* ---- forgetting ------------------------------------------------------- */

static void
forget(AuKvExec *x, const AuKvMap *map, AuKvOp *op)
{
	AuKvRecord	ours,
				given;
	uint8_t    *memory = NULL;
	size_t		len;
	bool		same,
				agreed;

	if (!au_kv_record_decode(&given, op->key, op->klen, op->in, op->in_len))
	{
		op->status = AU_INVALID;
		return;
	}
	op->status = get_record(map, op, &ours, &memory, &len);
	if (op->status != AU_OK)
		return;
	same = memory != NULL && au_kv_same(&ours, &given);
	if (op->type == AU_KV_OP_CHECK && op->owner)
		agreed = same;
	else if (op->type == AU_KV_OP_CHECK)
		agreed = memory == NULL || au_kv_known(&ours, &given.past);
	else
		agreed = same || memory == NULL;
	if (agreed && memory != NULL && !(op->type == AU_KV_OP_CHECK && op->owner))
		del_record(map, op);
	if (agreed && op->type != AU_KV_OP_DROP)
		x->serial++;
	op->status = agreed ? AU_OK : AU_REFUSED;
	if (memory != NULL)
		map->release(map->ctx, memory);
}

typedef struct Wipe
{
	const AuKvMap *map;
	const uint8_t *prefix;		/* of owed entries; NULL: records, too */
	uint32_t	n;
} Wipe;

static bool
wipe_one(void *ctx, const uint8_t *key, size_t klen, const uint8_t *value, size_t len)
{
	Wipe	   *w = ctx;

	(void) value;
	(void) len;
	if (w->n == AU_KV_SCAN_STEPS || (w->prefix == NULL ? key[0] != 'o' && key[0] != 'r' :
									  klen < 5 || memcmp(key, w->prefix, 5) != 0))
		return false;
	w->map->del(w->map->ctx, key, klen);
	w->n++;
	return true;
}

static void
wipe(AuKvExec *x, const AuKvMap *map, AuKvOp *op)
{
	Wipe		w = {.map = map};

	op->status = map->scan(map->ctx, (const uint8_t *) "o", 1, wipe_one, &w);
	op->more = w.n == AU_KV_SCAN_STEPS;
	x->serial++;
}

static void
disowe(const AuKvMap *map, AuKvOp *op)
{
	uint8_t		raw[RAW_KEY_MAX];
	size_t		rlen = owed_key(raw, op->number, op->key, op->klen);
	Wipe		w = {map, raw, 0};
	uint8_t    *value;
	size_t		len;

	if (op->klen == 0)
	{
		op->status = map->scan(map->ctx, raw, rlen, wipe_one, &w);
		op->more = w.n == AU_KV_SCAN_STEPS;
		return;
	}
	op->status = map->get(map->ctx, raw, rlen, &value, &len);
	if (op->status != AU_OK)
		return;
	if (len != 8 || au_get_u64(value) <= op->counter)
		map->del(map->ctx, raw, rlen);
	map->release(map->ctx, value);
}

/* ---- scans ------------------------------------------------------------ */

typedef struct Scan
{
	const AuKvMap *map;
	AuKvOp	   *op;
	uint32_t	steps;
	uint32_t	cap;
	uint8_t		first[5];		/* OWED: that node's entries */
} Scan;

static uint8_t *
out_room(Scan *s, size_t n)
{
	AuKvOp	   *op = s->op;
	uint8_t    *p;

	if (op->out_len + n > s->cap)
	{
		uint32_t	cap = (uint32_t) (op->out_len + n) * 2;
		uint8_t    *bigger = s->map->alloc(s->map->ctx, cap);

		if (bigger == NULL)
		{
			op->status = AU_NOMEM;
			return NULL;
		}
		if (op->out != NULL)
		{
			memcpy(bigger, op->out, op->out_len);
			s->map->release(s->map->ctx, op->out);
		}
		op->out = bigger;
		s->cap = cap;
	}
	p = op->out + op->out_len;
	op->out_len += (uint32_t) n;
	return p;
}

/* u16 klen, u32 len, key, record */
static bool
pack(Scan *s, const uint8_t *key, size_t klen, const uint8_t *record, size_t len)
{
	uint8_t    *p = out_room(s, 6 + klen + len);

	if (p == NULL)
		return false;
	au_put_u16(p, (uint16_t) klen);
	au_put_u32(p + 2, (uint32_t) len);
	memcpy(p + 6, key, klen);
	memcpy(p + 6 + klen, record, len);
	s->op->found++;
	return true;
}

bool
au_kv_packed_next(const uint8_t **p, size_t *left, const uint8_t **key, uint16_t *klen,
				  const uint8_t **record, uint32_t *len)
{
	if (*left < 6)
		return false;
	*klen = au_get_u16(*p);
	*len = au_get_u32(*p + 2);
	if (*klen == 0 || *klen > AU_KV_KEY_MAX || *len > *left - 6 || *klen > *left - 6 - *len)
		return false;
	*key = *p + 6;
	*record = *p + 6 + *klen;
	*p += 6 + (size_t) *klen + *len;
	*left -= 6 + (size_t) *klen + *len;
	return true;
}

bool
au_kv_owed_next(const uint8_t **p, size_t *left, uint64_t *counter, const uint8_t **key,
				uint16_t *klen, const uint8_t **record, uint32_t *len)
{
	if (*left < 8)
		return false;
	*counter = au_get_u64(*p);
	*p += 8;
	*left -= 8;
	return au_kv_packed_next(p, left, key, klen, record, len);
}

static void
note_damage(AuKvOp *op)
{
	op->damaged++;
	op->hurt_len = op->klen;
	memcpy(op->hurt, op->key, op->klen);
}

static bool
scan_one(void *ctx, const uint8_t *raw, size_t rlen, const uint8_t *value, size_t len)
{
	Scan	   *s = ctx;
	AuKvOp	   *op = s->op;
	AuKvRecord	r;

	if (rlen < 3 || rlen > AU_KV_KEY_MAX + 2 || raw[0] != 'r' || raw[1] != op->slice)
		return false;
	if (s->steps == AU_KV_SCAN_STEPS || op->out_len >= op->limit)
	{
		op->more = true;
		return false;
	}
	s->steps++;
	if (op->klen == rlen - 2 && memcmp(op->key, raw + 2, op->klen) == 0)
		return true;			/* the one to go on after */
	op->klen = (uint16_t) (rlen - 2);
	memcpy(op->key, raw + 2, op->klen);
	if (!au_kv_record_decode(&r, op->key, op->klen, value, len))
		note_damage(op);
	else if (op->flags != AU_KV_SCAN_DELETED || au_kv_deleted(&r))
		return pack(s, op->key, op->klen, value, len);
	return true;
}

/* Goes from slice to slice; what it stops at stays in slice and key. */
static void
scan_records(const AuKvMap *map, AuKvOp *op)
{
	Scan		s = {.map = map,.op = op};
	uint8_t		raw[RAW_KEY_MAX];

	op->status = AU_OK;
	while (op->status == AU_OK)
	{
		if (au_slices_has(&op->slices, op->slice))
		{
			AuStatus	status = map->scan(map->ctx, raw, record_key(raw, op->slice, op->key, op->klen),
										   scan_one, &s);

			if (status != AU_OK)
				op->status = status;
			if (op->status != AU_OK || op->more)
				return;
		}
		if (op->slice == AU_SLICES - 1)
			return;
		op->slice++;
		op->klen = 0;
	}
}

static bool
owed_one(void *ctx, const uint8_t *raw, size_t rlen, const uint8_t *value, size_t len)
{
	Scan	   *s = ctx;
	AuKvOp	   *op = s->op;
	AuKvOp		get = {.klen = (uint16_t) (rlen - 5)};
	AuKvRecord	r;
	uint8_t    *memory;
	uint8_t    *p;
	size_t		rec_len;

	if (rlen < 6 || rlen > RAW_KEY_MAX || memcmp(raw, s->first, 5) != 0)
		return false;
	if (s->steps == AU_KV_SCAN_STEPS || op->out_len >= op->limit)
	{
		op->more = true;
		return false;
	}
	s->steps++;
	if (op->klen == get.klen && memcmp(op->key, raw + 5, op->klen) == 0)
		return true;
	memcpy(get.key, raw + 5, get.klen);
	get.slice = (uint16_t) au_kv_slice(get.key, get.klen);
	op->klen = get.klen;
	memcpy(op->key, get.key, get.klen);
	/* gone: an entry without a record, so that it is struck off */
	if (get_record(s->map, &get, &r, &memory, &rec_len) != AU_OK)
	{
		op->found++;			/* owed still, when it is mended */
		note_damage(op);
		return true;
	}
	if ((p = out_room(s, 8)) == NULL)
	{
		if (memory != NULL)
			s->map->release(s->map->ctx, memory);
		return false;
	}
	au_put_u64(p, len == 8 ? au_get_u64(value) : UINT64_MAX);
	(void) pack(s, op->key, op->klen, memory != NULL ? memory : raw, memory != NULL ? rec_len : 0);
	if (memory != NULL)
		s->map->release(s->map->ctx, memory);
	return op->status == AU_OK;
}

static void
scan_owed(const AuKvMap *map, AuKvOp *op)
{
	Scan		s = {.map = map,.op = op};
	uint8_t		raw[RAW_KEY_MAX];
	size_t		rlen = owed_key(raw, op->number, op->key, op->klen);
	AuStatus	status;

	memcpy(s.first, raw, 5);
	op->status = AU_OK;
	status = map->scan(map->ctx, raw, rlen, owed_one, &s);
	if (status != AU_OK)
		op->status = status;
}

/* ---- lists ------------------------------------------------------------ */

typedef struct List
{
	const AuKvMap *map;
	AuKvOp	   *op;
	uint8_t   **entry;			/* packed as in LIST_OK, in order of keys */
	uint32_t	n;
	bool		more;
} List;

static int
compare_keys(const uint8_t *a, size_t alen, const uint8_t *b, size_t blen)
{
	size_t		n = alen < blen ? alen : blen;
	int			c = n == 0 ? 0 : memcmp(a, b, n);

	return c != 0 ? c : alen < blen ? -1 : alen > blen;
}

/* The smallest `limit` keys are kept; false: this slice has no smaller ones. */
static bool
list_add(List *l, const uint8_t *key, size_t klen, const AuKvRecord *r)
{
	uint32_t	at = l->n;
	uint32_t	bytes = 0;
	uint8_t		siblings = 0;
	uint8_t    *e;

	while (at > 0 && compare_keys(l->entry[at - 1] + 2, au_get_u16(l->entry[at - 1]), key, klen) > 0)
		at--;
	if (at == l->op->limit)
	{
		l->more = true;
		return false;
	}
	e = l->map->alloc(l->map->ctx, LIST_ENTRY_HEAD + klen);
	if (e == NULL)
	{
		l->op->status = AU_NOMEM;
		return false;
	}
	for (uint32_t i = 0; i < r->n; i++)
		if ((r->sibling[i].flags & AU_KV_TOMBSTONE) == 0)
		{
			siblings++;
			bytes += r->sibling[i].length;
		}
	au_put_u16(e, (uint16_t) klen);
	memcpy(e + 2, key, klen);
	e[2 + klen] = siblings;
	au_put_u32(e + 3 + klen, bytes);
	if (l->n == l->op->limit)
	{
		l->map->release(l->map->ctx, l->entry[--l->n]);
		l->more = true;
	}
	memmove(&l->entry[at + 1], &l->entry[at], (l->n - at) * sizeof(l->entry[0]));
	l->entry[at] = e;
	l->n++;
	return true;
}

static bool
list_one(void *ctx, const uint8_t *raw, size_t rlen, const uint8_t *value, size_t len)
{
	List	   *l = ctx;
	AuKvOp	   *op = l->op;
	AuKvRecord	r;

	if (rlen < 3 || rlen > AU_KV_KEY_MAX + 2 || raw[0] != 'r' || raw[1] != op->slice ||
		rlen - 2 < op->klen || memcmp(raw + 2, op->key, op->klen) != 0)
		return false;
	if (compare_keys(raw + 2, rlen - 2, op->in, op->in_len) <= 0)
		return true;
	if (!au_kv_record_decode(&r, raw + 2, rlen - 2, value, len))
	{
		op->damaged++;
		r.n = 0;
	}
	else if (au_kv_deleted(&r))
		return true;
	return list_add(l, raw + 2, rlen - 2, &r);
}

static void
list(const AuKvMap *map, AuKvOp *op)
{
	List		l = {.map = map,.op = op};
	Scan		s = {.map = map,.op = op};
	uint8_t		raw[RAW_KEY_MAX];
	bool		after = compare_keys(op->in, op->in_len, op->key, op->klen) > 0;

	op->status = op->limit == 0 ? AU_INVALID : AU_OK;
	l.entry = map->alloc(map->ctx, (op->limit + 1) * sizeof(l.entry[0]));
	if (l.entry == NULL)
		op->status = AU_NOMEM;
	for (op->slice = 0; op->slice < AU_SLICES && op->status == AU_OK; op->slice++)
		if (au_slices_has(&op->slices, op->slice))
		{
			AuStatus	status = map->scan(map->ctx, raw, after ?
										   record_key(raw, op->slice, op->in, op->in_len) :
										   record_key(raw, op->slice, op->key, op->klen), list_one, &l);

			if (status != AU_OK)
				op->status = status;
		}
	for (uint32_t i = 0; i < l.n; i++)
	{
		size_t		size = LIST_ENTRY_HEAD + au_get_u16(l.entry[i]);
		uint8_t    *p = op->status == AU_OK ? out_room(&s, size) : NULL;

		if (p != NULL)
			memcpy(p, l.entry[i], size);
		map->release(map->ctx, l.entry[i]);
	}
	if (l.entry != NULL)
		map->release(map->ctx, l.entry);
	op->found = l.n;
	op->more = l.more;
}

void
au_kv_exec(AuKvExec *x, const AuKvMap *map, AuKvOp *op)
{
	assert((op->type >= AU_KV_OP_FIRST_WRITE) == (x != NULL));
	op->out = NULL;
	op->out_len = 0;
	op->found = op->damaged = 0;
	op->more = false;
	switch (op->type)
	{
		case AU_KV_OP_READ:
			read_record(map, op);
			break;
		case AU_KV_OP_OWED:
			scan_owed(map, op);
			break;
		case AU_KV_OP_SCAN:
			scan_records(map, op);
			break;
		case AU_KV_OP_LIST:
			list(map, op);
			break;
		case AU_KV_OP_UPDATE:
			update(x, map, op);
			break;
		case AU_KV_OP_MERGE:
			merge(x, map, op);
			break;
		case AU_KV_OP_DISOWE:
			disowe(map, op);
			break;
		case AU_KV_OP_DROP:
		case AU_KV_OP_CHECK:
		case AU_KV_OP_PURGE:
			forget(x, map, op);
			break;
		case AU_KV_OP_STATE:
			map->put(map->ctx, (const uint8_t *) "s", 1, op->in, op->in_len);
			op->status = AU_OK;
			break;
		case AU_KV_OP_WIPE:
			wipe(x, map, op);
			break;
	}
	if (x != NULL)
		op->serial_now = x->serial;
}
