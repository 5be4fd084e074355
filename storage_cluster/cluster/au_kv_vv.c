/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_kv_vv.c: version vectors and records of the key-value interface;
 * au_kv_vv.h has the contract, the invariants and the bytes.
 */
#include "cluster/au_kv_vv.h"

#include <assert.h>

#include "common/au_crc32c.h"
#include "core/au_plant.h"

#define AT_LENGTH 4
#define AT_CRC 8
#define AT_NVECTOR 12
#define AT_NSIBLINGS 13
#define AT_VERSION 14

_Static_assert(AT_VERSION + 2 == AU_KV_HEAD, "the version ends the head");
_Static_assert(AU_KV_VV_MAX <= UINT8_MAX && AU_KV_MERGED_MAX <= UINT8_MAX, "counts are bytes");

/* ---- vectors ---------------------------------------------------------- */

/* Index of the actor, or where it belongs. */
static uint32_t
place(const AuKvVector *v, uint64_t actor)
{
	uint32_t	i = 0;

	while (i < v->n && v->entry[i].actor < actor)
		i++;
	return i;
}

uint64_t
au_kv_vector_get(const AuKvVector *v, uint64_t actor)
{
	uint32_t	i = place(v, actor);

	return i < v->n && v->entry[i].actor == actor ? v->entry[i].counter : 0;
}

bool
au_kv_vector_covers(const AuKvVector *v, const AuKvDot *dot)
{
	uint64_t	known = au_kv_vector_get(v, dot->actor);

	if (AU_PLANTED(AU_PLANT_KV_COMPARE))
		return dot->counter < known;
	return dot->counter <= known;
}

bool
au_kv_vector_includes(const AuKvVector *a, const AuKvVector *b)
{
	for (uint32_t i = 0; i < b->n; i++)
		if (!au_kv_vector_covers(a, &b->entry[i]))
			return false;
	return true;
}

static bool
is_sibling_of(const AuKvRecord *r, uint64_t actor)
{
	for (uint32_t i = 0; i < r->n; i++)
		if (r->sibling[i].dot.actor == actor)
			return true;
	return false;
}

/* Make room by forgetting an actor that no sibling of r is from. */
static void
forget_one(AuKvVector *v, const AuKvRecord *r)
{
	uint32_t	victim = 0;

	while (victim < v->n - 1 && r != NULL && is_sibling_of(r, v->entry[victim].actor))
		victim++;
	v->n--;
	memmove(&v->entry[victim], &v->entry[victim + 1], (v->n - victim) * sizeof(v->entry[0]));
}

/* The vector knows the dot, and all before it. */
static void
raise_to(AuKvVector *v, const AuKvDot *dot, const AuKvRecord *r)
{
	uint32_t	i = place(v, dot->actor);

	if (i < v->n && v->entry[i].actor == dot->actor)
	{
		if (v->entry[i].counter < dot->counter)
			v->entry[i].counter = dot->counter;
		return;
	}
	if (v->n == AU_KV_VV_MAX)
	{
		forget_one(v, r);
		i = place(v, dot->actor);
	}
	memmove(&v->entry[i + 1], &v->entry[i], (v->n - i) * sizeof(v->entry[0]));
	v->entry[i] = *dot;
	v->n++;
}

/* ---- records ---------------------------------------------------------- */

static int
compare_dots(const AuKvDot *a, const AuKvDot *b)
{
	if (a->actor != b->actor)
		return a->actor < b->actor ? -1 : 1;
	return a->counter < b->counter ? -1 : a->counter > b->counter;
}

static bool
has_dot(const AuKvRecord *r, const AuKvDot *dot)
{
	for (uint32_t i = 0; i < r->n; i++)
		if (compare_dots(&r->sibling[i].dot, dot) == 0)
			return true;
	return false;
}

/* Keeps the order; false: full. */
static bool
add_sibling(AuKvRecord *r, const AuKvSibling *s)
{
	uint32_t	i = r->n;

	if (r->n == AU_KV_MERGED_MAX)
		return false;
	while (i > 0 && compare_dots(&r->sibling[i - 1].dot, &s->dot) > 0)
	{
		r->sibling[i] = r->sibling[i - 1];
		i--;
	}
	r->sibling[i] = *s;
	r->n++;
	return true;
}

/* Siblings of a that b has, too, or has never heard of. */
static bool
take_survivors(AuKvRecord *out, const AuKvRecord *a, const AuKvRecord *b)
{
	for (uint32_t i = 0; i < a->n; i++)
	{
		const AuKvSibling *s = &a->sibling[i];

		if (!has_dot(b, &s->dot) && au_kv_vector_covers(&b->past, &s->dot))
			continue;
		if (!has_dot(out, &s->dot) && !add_sibling(out, s))
			return false;
	}
	return true;
}

bool
au_kv_merge(AuKvRecord *out, const AuKvRecord *a, const AuKvRecord *b)
{
	AuKvRecord	m;

	m.n = 0;
	if (!take_survivors(&m, a, b) || !take_survivors(&m, b, a))
		return false;
	m.past = a->past;
	for (uint32_t i = 0; i < b->past.n; i++)
		raise_to(&m.past, &b->past.entry[i], &m);
	*out = m;
	return true;
}

AuStatus
au_kv_update(AuKvRecord *r, const AuKvVector *past, const AuKvSibling *write)
{
	AuKvRecord	u;

	assert(!has_dot(r, &write->dot));
	u.past = r->past;
	u.n = 0;
	for (uint32_t i = 0; i < r->n; i++)
		if (!au_kv_vector_covers(past, &r->sibling[i].dot))
			(void) add_sibling(&u, &r->sibling[i]);
	if (u.n >= AU_KV_SIBLINGS_MAX)
		return AU_FULL;
	(void) add_sibling(&u, write);
	for (uint32_t i = 0; i < past->n; i++)
		raise_to(&u.past, &past->entry[i], &u);
	raise_to(&u.past, &write->dot, &u);
	*r = u;
	return AU_OK;
}

bool
au_kv_same(const AuKvRecord *a, const AuKvRecord *b)
{
	if (a->n != b->n || a->past.n != b->past.n ||
		memcmp(a->past.entry, b->past.entry, a->past.n * sizeof(AuKvDot)) != 0)
		return false;
	for (uint32_t i = 0; i < a->n; i++)
		if (compare_dots(&a->sibling[i].dot, &b->sibling[i].dot) != 0)
			return false;
	return true;
}

bool
au_kv_deleted(const AuKvRecord *r)
{
	for (uint32_t i = 0; i < r->n; i++)
		if ((r->sibling[i].flags & AU_KV_TOMBSTONE) == 0)
			return false;
	return r->n > 0;
}

bool
au_kv_known(const AuKvRecord *r, const AuKvVector *v)
{
	for (uint32_t i = 0; i < r->n; i++)
		if (!au_kv_vector_covers(v, &r->sibling[i].dot))
			return false;
	return true;
}

/* ---- bytes ------------------------------------------------------------ */

size_t
au_kv_record_size(const AuKvRecord *r)
{
	size_t		size = AU_KV_HEAD + r->past.n * AU_KV_ENTRY + r->n * AU_KV_SIBLING_HEAD;

	for (uint32_t i = 0; i < r->n; i++)
		size += r->sibling[i].length;
	return size;
}

static uint8_t *
put_vector(uint8_t *p, const AuKvVector *v)
{
	for (uint32_t i = 0; i < v->n; i++, p += AU_KV_ENTRY)
	{
		au_put_u64(p, v->entry[i].actor);
		au_put_u64(p + 8, v->entry[i].counter);
	}
	return p;
}

/* The bytes are there; false: not in order. */
static bool
get_vector(AuKvVector *v, uint32_t n, const uint8_t *p)
{
	v->n = n;
	for (uint32_t i = 0; i < n; i++, p += AU_KV_ENTRY)
	{
		v->entry[i].actor = au_get_u64(p);
		v->entry[i].counter = au_get_u64(p + 8);
		if (v->entry[i].counter == 0 || (i > 0 && v->entry[i - 1].actor >= v->entry[i].actor))
			return false;
	}
	return true;
}

static uint32_t
record_crc(const void *key, size_t klen, const uint8_t *buf, size_t len)
{
	return au_crc32c(au_crc32c(0, key, klen), buf + AT_NVECTOR, len - AT_NVECTOR);
}

size_t
au_kv_record_encode(const AuKvRecord *r, const void *key, size_t klen, uint8_t *buf, size_t cap)
{
	size_t		size = au_kv_record_size(r);
	uint8_t    *p;

	if (size > cap)
		return 0;
	au_put_u32(buf, AU_KV_MAGIC);
	au_put_u32(buf + AT_LENGTH, (uint32_t) size);
	buf[AT_NVECTOR] = (uint8_t) r->past.n;
	buf[AT_NSIBLINGS] = (uint8_t) r->n;
	au_put_u16(buf + AT_VERSION, AU_KV_VERSION);
	p = put_vector(buf + AU_KV_HEAD, &r->past);
	for (uint32_t i = 0; i < r->n; i++)
	{
		const AuKvSibling *s = &r->sibling[i];

		au_put_u64(p, s->dot.actor);
		au_put_u64(p + 8, s->dot.counter);
		au_put_u32(p + 16, s->flags);
		au_put_u32(p + 20, s->length);
		if (s->length > 0)
			memcpy(p + AU_KV_SIBLING_HEAD, s->value, s->length);
		p += AU_KV_SIBLING_HEAD + s->length;
	}
	assert(p == buf + size);
	au_put_u32(buf + AT_CRC, record_crc(key, klen, buf, size));
	return size;
}

static bool
get_siblings(AuKvRecord *r, uint32_t n, const uint8_t *p, const uint8_t *end)
{
	r->n = n;
	for (uint32_t i = 0; i < n; i++)
	{
		AuKvSibling *s = &r->sibling[i];

		if ((size_t) (end - p) < AU_KV_SIBLING_HEAD)
			return false;
		s->dot.actor = au_get_u64(p);
		s->dot.counter = au_get_u64(p + 8);
		s->flags = au_get_u32(p + 16);
		s->length = au_get_u32(p + 20);
		p += AU_KV_SIBLING_HEAD;
		if (s->length > AU_KV_VALUE_MAX || s->length > (size_t) (end - p) ||
			s->flags > AU_KV_TOMBSTONE || (s->flags == AU_KV_TOMBSTONE && s->length != 0) ||
			s->dot.counter == 0 || s->dot.counter > au_kv_vector_get(&r->past, s->dot.actor) ||
			(i > 0 && compare_dots(&r->sibling[i - 1].dot, &s->dot) >= 0))
			return false;
		s->value = p;
		p += s->length;
	}
	return p == end;
}

bool
au_kv_record_decode(AuKvRecord *r, const void *key, size_t klen, const uint8_t *buf, size_t len)
{
	uint32_t	nvector;

	if (len < AU_KV_HEAD || len > AU_KV_RECORD_MAX || au_get_u32(buf) != AU_KV_MAGIC ||
		au_get_u32(buf + AT_LENGTH) != len || au_get_u16(buf + AT_VERSION) != AU_KV_VERSION ||
		au_get_u32(buf + AT_CRC) != record_crc(key, klen, buf, len))
		return false;
	nvector = buf[AT_NVECTOR];
	if (nvector > AU_KV_VV_MAX || buf[AT_NSIBLINGS] > AU_KV_MERGED_MAX ||
		len < AU_KV_HEAD + nvector * AU_KV_ENTRY)
		return false;
	return get_vector(&r->past, nvector, buf + AU_KV_HEAD) &&
		get_siblings(r, buf[AT_NSIBLINGS], buf + AU_KV_HEAD + nvector * AU_KV_ENTRY, buf + len);
}

/* u32 CRC of the key and the rest, u16 version, u16 entries, entries */
size_t
au_kv_context_encode(const AuKvVector *v, const void *key, size_t klen,
					 uint8_t buf[AU_KV_CONTEXT_MAX])
{
	size_t		len = (size_t) (put_vector(buf + 8, v) - buf);

	if (v->n == 0)
		return 0;
	au_put_u16(buf + 4, AU_KV_VERSION);
	au_put_u16(buf + 6, (uint16_t) v->n);
	au_put_u32(buf, au_crc32c(au_crc32c(0, key, klen), buf + 4, len - 4));
	return len;
}

bool
au_kv_context_decode(AuKvVector *v, const void *key, size_t klen, const uint8_t *buf, size_t len)
{
	v->n = 0;
	if (len == 0)
		return true;
	if (len < 8 || len > AU_KV_CONTEXT_MAX ||
		au_get_u32(buf) != au_crc32c(au_crc32c(0, key, klen), buf + 4, len - 4) ||
		au_get_u16(buf + 4) != AU_KV_VERSION || len != 8 + (size_t) au_get_u16(buf + 6) * AU_KV_ENTRY)
		return false;
	return get_vector(v, au_get_u16(buf + 6), buf + 8);
}
