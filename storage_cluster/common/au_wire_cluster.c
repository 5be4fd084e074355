/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_wire_cluster.c: the messages about views; see au_wire_cluster.h.
 */
#include "common/au_wire_cluster.h"

bool
au_enc_get_view(AuWriter *w, uint64_t id, const AuMsgGetView *m)
{
	au_frame_begin(w, AU_MSG_GET_VIEW, id);
	au_w_u64(w, m->epoch);
	return au_frame_end(w);
}

bool
au_dec_get_view(const AuFrame *f, AuMsgGetView *m)
{
	AuReader	r;

	au_dec_start(&r, f, AU_MSG_GET_VIEW);
	m->epoch = au_r_u64(&r);
	return au_reader_done(&r);
}

bool
au_enc_view(AuWriter *w, uint64_t id, const AuMsgView *m)
{
	au_frame_begin(w, AU_MSG_VIEW, id);
	au_w_u64(w, m->epoch);
	au_w_u32(w, m->length);
	au_w_bytes(w, m->bytes, m->length);
	return au_frame_end(w);
}

bool
au_dec_view(const AuFrame *f, AuMsgView *m)
{
	AuReader	r;

	au_dec_start(&r, f, AU_MSG_VIEW);
	m->epoch = au_r_u64(&r);
	m->length = au_r_u32(&r);
	m->bytes = au_r_bytes(&r, m->length);
	return au_reader_done(&r);
}

bool
au_enc_cluster(AuWriter *w, uint64_t id, const AuMsgCluster *m)
{
	au_frame_begin(w, AU_MSG_CLUSTER, id);
	au_w_u8(w, m->hops);
	au_w_u32(w, m->length);
	au_w_bytes(w, m->bytes, m->length);
	return au_frame_end(w);
}

bool
au_dec_cluster(const AuFrame *f, AuMsgCluster *m)
{
	AuReader	r;

	au_dec_start(&r, f, AU_MSG_CLUSTER);
	m->hops = au_r_u8(&r);
	m->length = au_r_u32(&r);
	m->bytes = au_r_bytes(&r, m->length);
	return au_reader_done(&r) && m->hops <= AU_CLUSTER_HOPS_MAX;
}

bool
au_enc_cluster_ok(AuWriter *w, uint64_t id, const AuMsgClusterOk *m)
{
	au_frame_begin(w, AU_MSG_CLUSTER_OK, id);
	au_w_u64(w, m->epoch);
	au_w_u32(w, m->number);
	return au_frame_end(w);
}

bool
au_dec_cluster_ok(const AuFrame *f, AuMsgClusterOk *m)
{
	AuReader	r;

	au_dec_start(&r, f, AU_MSG_CLUSTER_OK);
	m->epoch = au_r_u64(&r);
	m->number = au_r_u32(&r);
	return au_reader_done(&r);
}
