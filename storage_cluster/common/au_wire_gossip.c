/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_wire_gossip.c: GOSSIP and GOSSIP_OK as bytes; see au_wire_gossip.h.
 */
#include "common/au_wire_gossip.h"

static void
write_record(AuWriter *w, const AuGossipRecord *r)
{
	au_w_u64(w, r->node_id);
	au_w_u64(w, r->incarnation);
	au_w_u8(w, r->state);
	au_w_text(w, r->address);
}

static void
read_record(AuReader *r, AuGossipRecord *out)
{
	memset(out, 0, sizeof(*out));
	out->node_id = au_r_u64(r);
	out->incarnation = au_r_u64(r);
	out->state = au_r_u8(r);
	au_r_text(r, out->address, sizeof(out->address));
	if (out->node_id == 0 || out->state < AU_GOSSIP_ALIVE || out->state > AU_GOSSIP_DEAD ||
		out->address[0] == '\0' || out->incarnation > AU_GOSSIP_INCARNATION_MAX)
		r->bad = true;
}

static void
write_marks(AuWriter *w, const AuGossipMarks *m)
{
	au_w_u64(w, m->node_id);
	au_w_u64(w, m->heartbeat);
	au_w_u64(w, m->view_epoch);
	au_w_u32(w, m->reads);
	au_w_u64(w, m->disk_used);
	au_w_u64(w, m->disk_limit);
	au_w_u8(w, m->nvolumes);
	for (uint32_t i = 0; i < m->nvolumes && i < AU_GOSSIP_VOLUMES_MAX; i++)
	{
		au_w_u64(w, m->volumes[i].system_identifier);
		au_w_u64(w, m->volumes[i].received);
		au_w_u64(w, m->volumes[i].durable);
		au_w_u64(w, m->volumes[i].applied);
	}
}

static void
read_marks(AuReader *r, AuGossipMarks *m)
{
	memset(m, 0, sizeof(*m));
	m->node_id = au_r_u64(r);
	m->heartbeat = au_r_u64(r);
	m->view_epoch = au_r_u64(r);
	m->reads = au_r_u32(r);
	m->disk_used = au_r_u64(r);
	m->disk_limit = au_r_u64(r);
	m->nvolumes = au_r_u8(r);
	if (m->node_id == 0 || m->heartbeat > AU_GOSSIP_INCARNATION_MAX || m->nvolumes > AU_GOSSIP_VOLUMES_MAX)
	{
		r->bad = true;
		m->nvolumes = 0;
	}
	for (uint32_t i = 0; i < m->nvolumes; i++)
	{
		m->volumes[i].system_identifier = au_r_u64(r);
		m->volumes[i].received = au_r_u64(r);
		m->volumes[i].durable = au_r_u64(r);
		m->volumes[i].applied = au_r_u64(r);
	}
}

static bool
encode(AuWriter *w, uint16_t type, uint64_t id, const AuMsgGossip *m)
{
	if (m->nrecords > AU_GOSSIP_RECORDS_MAX || m->nmarks > AU_GOSSIP_MARKS_MAX)
		return false;
	au_frame_begin(w, type, id);
	au_w_u8(w, m->kind);
	au_w_u8(w, m->reached);
	au_w_u64(w, m->cluster_id);
	write_record(w, &m->self);
	if (m->kind == AU_GOSSIP_PROXY)
		write_record(w, &m->target);
	au_w_u8(w, m->nrecords);
	for (uint32_t i = 0; i < m->nrecords; i++)
		write_record(w, &m->records[i]);
	au_w_u8(w, m->nmarks);
	for (uint32_t i = 0; i < m->nmarks; i++)
		write_marks(w, &m->marks[i]);
	return au_frame_end(w);
}

static bool
decode(const AuFrame *f, uint16_t type, AuMsgGossip *m)
{
	AuReader	r;

	memset(m, 0, sizeof(*m));
	au_dec_start(&r, f, type);
	m->kind = au_r_u8(&r);
	m->reached = au_r_u8(&r);
	m->cluster_id = au_r_u64(&r);
	read_record(&r, &m->self);
	if (m->kind == AU_GOSSIP_PROXY)
		read_record(&r, &m->target);
	m->nrecords = au_r_u8(&r);
	if (m->nrecords > AU_GOSSIP_RECORDS_MAX)
		return false;
	for (uint32_t i = 0; i < m->nrecords && !r.bad; i++)
		read_record(&r, &m->records[i]);
	m->nmarks = au_r_u8(&r);
	if (m->nmarks > AU_GOSSIP_MARKS_MAX)
		return false;
	for (uint32_t i = 0; i < m->nmarks && !r.bad; i++)
		read_marks(&r, &m->marks[i]);
	return au_reader_done(&r) && (m->kind == AU_GOSSIP_PING || m->kind == AU_GOSSIP_PROXY) &&
		m->reached <= 1 && m->self.state == AU_GOSSIP_ALIVE && m->self.incarnation != 0;
}

bool
au_enc_gossip(AuWriter *w, uint64_t id, const AuMsgGossip *m)
{
	return encode(w, AU_MSG_GOSSIP, id, m);
}

bool
au_enc_gossip_ok(AuWriter *w, uint64_t id, const AuMsgGossip *m)
{
	return encode(w, AU_MSG_GOSSIP_OK, id, m);
}

bool
au_dec_gossip(const AuFrame *f, AuMsgGossip *m)
{
	return decode(f, AU_MSG_GOSSIP, m);
}

bool
au_dec_gossip_ok(const AuFrame *f, AuMsgGossip *m)
{
	return decode(f, AU_MSG_GOSSIP_OK, m);
}
