/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_timemap.c: time and LSN; see au_timemap.h.
 */
#include "store/au_timemap.h"

#include <assert.h>

#include "common/au_crc32c.h"

void
au_timemap_add(AuTimeMap *m, int64_t time, AuLsn lsn, int64_t apart)
{
	const AuTimeEntry *last = m->count > 0 ? &m->entries[m->count - 1] : NULL;

	assert(last == NULL || lsn > last->lsn);
	for (uint32_t i = m->count; i > 0 && m->entries[i - 1].time > time; i--)
		m->entries[i - 1].time = time;
	m->newest = time;
	if (last != NULL && time - last->time < apart)
		return;
	if (m->count == AU_TIMEMAP_MAX)
	{
		m->count = AU_TIMEMAP_MAX / 2;
		for (uint32_t i = 0; i < m->count; i++)
			m->entries[i] = m->entries[i * 2];
	}
	m->entries[m->count++] = (AuTimeEntry)
	{
		time, lsn
	};
}

AuLsn
au_timemap_lsn(const AuTimeMap *m, int64_t time)
{
	uint32_t	lo = 0;
	uint32_t	hi = m->count;

	while (lo < hi)				/* first entry after `time` */
	{
		uint32_t	mid = (lo + hi) / 2;

		if (m->entries[mid].time <= time)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo > 0 ? m->entries[lo - 1].lsn : 0;
}

void
au_timemap_forget(AuTimeMap *m, AuLsn lsn)
{
	uint32_t	n = 0;

	/* the newest entry at or below stays: it says what held at lsn */
	while (n + 1 < m->count && m->entries[n + 1].lsn <= lsn)
		n++;
	if (n == 0)
		return;
	m->count -= n;
	memmove(m->entries, m->entries + n, m->count * sizeof(m->entries[0]));
}

void
au_timemap_cut(AuTimeMap *m, AuLsn lsn)
{
	while (m->count > 0 && m->entries[m->count - 1].lsn > lsn)
		m->count--;
	m->newest = m->count > 0 ? m->entries[m->count - 1].time : 0;
}

size_t
au_timemap_encode(uint8_t *out, const AuTimeMap *m)
{
	uint8_t    *p = out + 16;

	au_put_u32(out, AU_TIMEMAP_MAGIC);
	au_put_u32(out + 4, m->count);
	au_put_u64(out + 8, (uint64_t) m->newest);
	for (uint32_t i = 0; i < m->count; i++, p += 16)
	{
		au_put_u64(p, (uint64_t) m->entries[i].time);
		au_put_u64(p + 8, m->entries[i].lsn);
	}
	au_put_u32(p, au_crc32c(0, out, (size_t) (p - out)));
	return (size_t) (p - out) + 4;
}

AuStatus
au_timemap_decode(const uint8_t *p, size_t len, AuTimeMap *m)
{
	uint32_t	count;

	if (len < 20 || au_get_u32(p) != AU_TIMEMAP_MAGIC)
		return AU_CORRUPT;
	count = au_get_u32(p + 4);
	if (count > AU_TIMEMAP_MAX || len != 20 + (size_t) count * 16 ||
		au_get_u32(p + len - 4) != au_crc32c(0, p, len - 4))
		return AU_CORRUPT;
	m->count = count;
	m->newest = (int64_t) au_get_u64(p + 8);
	for (uint32_t i = 0; i < count; i++)
	{
		AuTimeEntry *e = &m->entries[i];

		e->time = (int64_t) au_get_u64(p + 16 + (size_t) i * 16);
		e->lsn = au_get_u64(p + 24 + (size_t) i * 16);
		if (e->time > m->newest ||
			(i > 0 && (e->time < e[-1].time || e->lsn <= e[-1].lsn)))
			return AU_CORRUPT;
	}
	return AU_OK;
}
