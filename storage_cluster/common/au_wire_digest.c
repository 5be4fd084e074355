/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_wire_digest.c: see au_wire_digest.h.
 */
#include "common/au_wire_digest.h"

#include "cluster/au_view.h"

bool
au_enc_digest(AuWriter *w, uint64_t id, const AuMsgDigest *m)
{
	au_frame_begin(w, AU_MSG_DIGEST, id);
	au_w_u64(w, m->lsn);
	au_w_u16(w, m->slice);
	au_w_u8(w, m->what);
	au_w_u8(w, m->level);
	au_w_u32(w, m->index);
	au_w_rel(w, &m->from.rel);
	au_w_u32(w, m->from.blk);
	return au_frame_end(w);
}

bool
au_dec_digest(const AuFrame *f, AuMsgDigest *m)
{
	AuReader	r;

	au_dec_start(&r, f, AU_MSG_DIGEST);
	m->lsn = au_r_u64(&r);
	m->slice = au_r_u16(&r);
	m->what = au_r_u8(&r);
	m->level = au_r_u8(&r);
	m->index = au_r_u32(&r);
	au_r_rel(&r, &m->from.rel);
	m->from.blk = au_r_u32(&r);
	if (!au_reader_done(&r) || m->slice >= AU_SLICES)
		return false;
	if (m->what == AU_DIGEST_TREE)
		return au_merkle_node_valid(m->level, m->index);
	return m->what == AU_DIGEST_PAGES && m->index < AU_MERKLE_LEAVES;
}

bool
au_enc_digest_ok(AuWriter *w, uint64_t id, const AuMsgDigestOk *m)
{
	if (m->n > AU_DIGEST_PAGES_MAX)
		return false;
	au_frame_begin(w, AU_MSG_DIGEST_OK, id);
	au_w_u64(w, m->lsn);
	au_w_u8(w, m->what);
	au_w_u8(w, m->later);
	if (m->later == 0 && m->what == AU_DIGEST_TREE)
	{
		au_w_u64(w, m->root);
		for (int i = 0; i < AU_MERKLE_FANOUT; i++)
			au_w_u64(w, m->children[i]);
	}
	else if (m->later == 0)
	{
		au_w_rel(w, &m->first.rel);
		au_w_u32(w, m->first.blk);
		au_w_u16(w, m->n);
		for (uint16_t i = 0; i < m->n; i++)
		{
			au_w_u8(w, m->status[i]);
			au_w_u64(w, m->hash[i]);
		}
	}
	return au_frame_end(w);
}

bool
au_dec_digest_ok(const AuFrame *f, AuMsgDigestOk *m)
{
	AuReader	r;

	memset(m, 0, sizeof(*m));
	au_dec_start(&r, f, AU_MSG_DIGEST_OK);
	m->lsn = au_r_u64(&r);
	m->what = au_r_u8(&r);
	m->later = au_r_u8(&r);
	if (m->later > 1 || (m->what != AU_DIGEST_TREE && m->what != AU_DIGEST_PAGES))
		return false;
	if (m->later == 0 && m->what == AU_DIGEST_TREE)
	{
		m->root = au_r_u64(&r);
		for (int i = 0; i < AU_MERKLE_FANOUT; i++)
			m->children[i] = au_r_u64(&r);
	}
	else if (m->later == 0)
	{
		au_r_rel(&r, &m->first.rel);
		m->first.blk = au_r_u32(&r);
		m->n = au_r_u16(&r);
		if (m->n > AU_DIGEST_PAGES_MAX)
			return false;
		for (uint16_t i = 0; i < m->n; i++)
		{
			m->status[i] = au_r_u8(&r);
			m->hash[i] = au_r_u64(&r);
			if (m->status[i] != AU_OK && m->status[i] != AU_CORRUPT && m->status[i] != AU_NOT_FOUND)
				return false;
		}
	}
	return au_reader_done(&r);
}
