/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_wal_format.c: encoder and decoder of the main data of our WAL records.
 *
 * Invariants:
 *  1. What the encoder writes is at most AU_REC_MAIN_MAX bytes long, and the
 *     decoder gives back the same values.
 *  2. The decoder takes exactly what the flags announce: a byte too few or
 *     too many is corruption, never a guess.  A field that is not flagged
 *     decodes as zero.
 *  3. No bytes are no flags; the two bytes that say the same are taken, too.
 */
#include "common/au_wal_format.h"

_Static_assert(AU_REC_MAIN_MAX == 23, "longest main data: all flags set");

static size_t
main_length(uint8_t flags)
{
	size_t		len = 2;

	if (flags & AU_REC_CONFLICT)
		len += 4;
	if (flags & AU_REC_VM_CLEAR)
		len += 1;
	if (flags & AU_REC_TRUNCATE)
		len += 16;
	return len;
}

size_t
au_rec_main_encode(uint8_t *buf, const AuRecMain *m)
{
	uint8_t    *p = buf;

	if (m->flags == 0)
		return 0;
	*p++ = AU_REC_VERSION;
	*p++ = m->flags;
	if (m->flags & AU_REC_CONFLICT)
	{
		au_put_u32(p, m->conflict_xid);
		p += 4;
	}
	if (m->flags & AU_REC_VM_CLEAR)
		*p++ = m->vm_clear_blocks;
	if (m->flags & AU_REC_TRUNCATE)
	{
		au_put_u32(p, m->truncate_rel.spc);
		au_put_u32(p + 4, m->truncate_rel.db);
		au_put_u32(p + 8, m->truncate_rel.rel);
		au_put_u32(p + 12, m->truncate_nblocks);
		p += 16;
	}
	return (size_t) (p - buf);
}

AuStatus
au_rec_main_decode(const uint8_t *data, size_t len, AuRecMain *m)
{
	const uint8_t *p = data;

	memset(m, 0, sizeof(*m));
	if (len == 0)
		return AU_OK;
	if (p[0] == 0)
		return AU_CORRUPT;
	/* A newer version may have another layout: look at nothing else. */
	if (p[0] > AU_REC_VERSION)
		return AU_UNSUPPORTED;
	if (len < 2 || (p[1] & ~AU_REC_FLAGS_KNOWN) != 0 ||
		len != main_length(p[1]))
		return AU_CORRUPT;

	m->flags = p[1];
	p += 2;
	if (m->flags & AU_REC_CONFLICT)
	{
		m->conflict_xid = au_get_u32(p);
		p += 4;
	}
	if (m->flags & AU_REC_VM_CLEAR)
		m->vm_clear_blocks = *p++;
	if (m->flags & AU_REC_TRUNCATE)
	{
		m->truncate_rel.spc = au_get_u32(p);
		m->truncate_rel.db = au_get_u32(p + 4);
		m->truncate_rel.rel = au_get_u32(p + 8);
		m->truncate_nblocks = au_get_u32(p + 12);
	}
	return AU_OK;
}

const char *
au_record_kind_name(uint8_t info)
{
	/* The low four bits are PostgreSQL's own. */
	switch (info & 0xF0)
	{
#define AU_X(name, code) \
		case code: \
			return #name;
			AU_RECORD_KINDS(AU_X)
#undef AU_X
	}
	return NULL;
}
