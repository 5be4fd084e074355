/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_wire_share.c: the messages by which a reader on the node's own machine
 * gets pages through memory that both have mapped; see au_wire.h.
 */
#include "common/au_wire.h"

bool
au_enc_share(AuWriter *w, uint64_t id, const AuMsgShare *m)
{
	au_frame_begin(w, AU_MSG_SHARE, id);
	au_w_u32(w, m->fd);
	au_w_u32(w, m->pages);
	return au_frame_end(w);
}

bool
au_dec_share(const AuFrame *f, AuMsgShare *m)
{
	AuReader	r;

	au_dec_start(&r, f, AU_MSG_SHARE);
	m->fd = au_r_u32(&r);
	m->pages = au_r_u32(&r);
	return au_reader_done(&r);
}

bool
au_enc_share_ok(AuWriter *w, uint64_t id, const AuMsgShareOk *m)
{
	au_frame_begin(w, AU_MSG_SHARE_OK, id);
	au_w_u32(w, m->pages);
	return au_frame_end(w);
}

bool
au_dec_share_ok(const AuFrame *f, AuMsgShareOk *m)
{
	AuReader	r;

	au_dec_start(&r, f, AU_MSG_SHARE_OK);
	m->pages = au_r_u32(&r);
	return au_reader_done(&r);
}

void
au_placed_begin(AuWriter *w, uint64_t id, AuLsn as_of, uint16_t nblocks)
{
	au_frame_begin(w, AU_MSG_PAGES_PLACED, id);
	au_w_u64(w, as_of);
	au_w_u16(w, nblocks);
}

bool
au_enc_placed(AuWriter *w, uint64_t id, const AuMsgPlaced *m)
{
	if (m->nblocks > AU_WIRE_BLOCKS_MAX)
	{
		w->overflow = true;
		return false;
	}
	au_placed_begin(w, id, m->as_of, m->nblocks);
	au_w_bytes(w, m->status, m->nblocks);
	return au_frame_end(w);
}

bool
au_dec_placed(const AuFrame *f, AuMsgPlaced *m)
{
	AuReader	r;
	const uint8_t *status;

	au_dec_start(&r, f, AU_MSG_PAGES_PLACED);
	m->as_of = au_r_u64(&r);
	m->nblocks = au_r_u16(&r);
	if (m->nblocks > AU_WIRE_BLOCKS_MAX)
		return false;
	status = au_r_bytes(&r, m->nblocks);
	if (!au_reader_done(&r))
		return false;
	memcpy(m->status, status, m->nblocks);
	return true;
}
