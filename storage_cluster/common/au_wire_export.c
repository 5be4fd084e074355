/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_wire_export.c: see au_wire_export.h.
 */
#include "common/au_wire_export.h"

bool
au_enc_export(AuWriter *w, uint64_t id, const AuMsgExport *m)
{
	au_frame_begin(w, AU_MSG_EXPORT, id);
	au_w_u8(w, m->what);
	au_w_u64(w, m->upto);
	au_w_u64(w, m->horizon);
	au_w_bytes(w, m->place.key, AU_PLACE_LEN);
	for (int i = 0; i < AU_SLICES / 64; i++)
		au_w_u64(w, m->slices.bits[i]);
	au_w_u32(w, m->budget);
	return au_frame_end(w);
}

bool
au_dec_export(const AuFrame *f, AuMsgExport *m)
{
	AuReader	r;
	const uint8_t *place;

	au_dec_start(&r, f, AU_MSG_EXPORT);
	m->what = au_r_u8(&r);
	m->upto = au_r_u64(&r);
	m->horizon = au_r_u64(&r);
	place = au_r_bytes(&r, AU_PLACE_LEN);
	if (place != NULL)
		memcpy(m->place.key, place, AU_PLACE_LEN);
	for (int i = 0; i < AU_SLICES / 64; i++)
		m->slices.bits[i] = au_r_u64(&r);
	m->budget = au_r_u32(&r);
	return au_reader_done(&r) && m->what >= AU_EXPORT_POSITION && m->what <= AU_EXPORT_PAGES;
}

bool
au_enc_export_ok(AuWriter *w, uint64_t id, const AuMsgExportOk *m)
{
	const AuStorePosition *p = &m->position;

	au_frame_begin(w, AU_MSG_EXPORT_OK, id);
	au_w_u64(w, m->start_lsn);
	au_w_u64(w, m->log_lsn);
	au_w_u32(w, m->segment_size);
	au_w_u32(w, m->timeline);
	au_w_group(w, &m->group);
	au_w_u64(w, p->applied);
	au_w_u64(w, p->restart);
	au_w_u64(w, p->horizon);
	au_w_u64(w, p->gc_done);
	au_w_u32(w, p->times_len);
	au_w_bytes(w, p->times, p->times_len);
	return au_frame_end(w);
}

bool
au_dec_export_ok(const AuFrame *f, AuMsgExportOk *m)
{
	AuStorePosition *p = &m->position;
	const uint8_t *times;
	AuReader	r;

	au_dec_start(&r, f, AU_MSG_EXPORT_OK);
	m->start_lsn = au_r_u64(&r);
	m->log_lsn = au_r_u64(&r);
	m->segment_size = au_r_u32(&r);
	m->timeline = au_r_u32(&r);
	au_r_group(&r, &m->group, true);
	p->applied = au_r_u64(&r);
	p->restart = au_r_u64(&r);
	p->horizon = au_r_u64(&r);
	p->gc_done = au_r_u64(&r);
	p->times_len = au_r_u32(&r);
	if (p->times_len > sizeof(p->times))
		return false;
	times = au_r_bytes(&r, p->times_len);
	if (times != NULL)
		memcpy(p->times, times, p->times_len);
	return au_reader_done(&r) && p->restart <= p->applied && p->horizon <= p->applied &&
		m->start_lsn <= p->restart;
}
