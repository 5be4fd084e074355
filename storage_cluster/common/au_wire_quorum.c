/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_wire_quorum.c: the messages by which several nodes keep one log: votes,
 * elections, and log for a node that fell behind; see au_wire.h.
 */
#include "common/au_wire.h"

void
au_w_history(AuWriter *w, const AuHistory *h)
{
	au_w_u16(w, (uint16_t) h->n);
	for (uint32_t i = 0; i < h->n && i < AU_HISTORY_MAX; i++)
	{
		au_w_u64(w, h->terms[i].term);
		au_w_u64(w, h->terms[i].start);
		au_w_u32(w, h->terms[i].timeline);
	}
}

void
au_r_history(AuReader *r, AuHistory *h)
{
	memset(h, 0, sizeof(*h));
	h->n = au_r_u16(r);
	if (h->n > AU_HISTORY_MAX)
	{
		h->n = 0;
		r->bad = true;
	}
	for (uint32_t i = 0; i < h->n; i++)
	{
		h->terms[i].term = au_r_u64(r);
		h->terms[i].start = au_r_u64(r);
		h->terms[i].timeline = au_r_u32(r);
	}
	if (!au_history_valid(h))
		r->bad = true;
}

void
au_w_group(AuWriter *w, const AuGroup *g)
{
	au_w_u32(w, g->epoch);
	au_w_u8(w, g->n);
	au_w_u8(w, g->write_quorum);
	for (uint32_t i = 0; i < g->n && i < AU_GROUP_MAX; i++)
	{
		au_w_u64(w, g->members[i].node_id);
		au_w_text(w, g->members[i].address);
	}
}

void
au_r_group(AuReader *r, AuGroup *g, bool none)
{
	memset(g, 0, sizeof(*g));
	g->epoch = au_r_u32(r);
	g->n = au_r_u8(r);
	g->write_quorum = au_r_u8(r);
	if (g->n > AU_GROUP_MAX)
	{
		g->n = 0;
		r->bad = true;
	}
	for (uint32_t i = 0; i < g->n; i++)
	{
		g->members[i].node_id = au_r_u64(r);
		au_r_text(r, g->members[i].address, AU_ADDRESS_MAX);
	}
	if (none && g->n == 0 && g->write_quorum == 0 && g->epoch == 0)
		return;
	if (!au_group_valid(g))
		r->bad = true;
}

bool
au_enc_vote(AuWriter *w, uint64_t id, const AuMsgVote *m)
{
	au_frame_begin(w, AU_MSG_VOTE, id);
	au_w_u64(w, m->term);
	au_w_u64(w, m->writer_id);
	au_w_u32(w, m->timeline);
	au_w_u32(w, m->wal_segment_size);
	au_w_u64(w, m->start_lsn);
	au_w_u8(w, m->may_create);
	au_w_group(w, &m->group);
	return au_frame_end(w);
}

bool
au_dec_vote(const AuFrame *f, AuMsgVote *m)
{
	AuReader	r;

	au_dec_start(&r, f, AU_MSG_VOTE);
	m->term = au_r_u64(&r);
	m->writer_id = au_r_u64(&r);
	m->timeline = au_r_u32(&r);
	m->wal_segment_size = au_r_u32(&r);
	m->start_lsn = au_r_u64(&r);
	m->may_create = au_r_u8(&r);
	au_r_group(&r, &m->group, false);
	return au_reader_done(&r) && m->term != 0;
}

bool
au_enc_vote_ok(AuWriter *w, uint64_t id, const AuMsgVoteOk *m)
{
	au_frame_begin(w, AU_MSG_VOTE_OK, id);
	au_w_u8(w, m->granted);
	au_w_u64(w, m->term);
	au_w_u32(w, m->timeline);
	au_w_u64(w, m->start_lsn);
	au_w_u64(w, m->durable_lsn);
	au_w_u64(w, m->commit_lsn);
	au_w_history(w, &m->history);
	return au_frame_end(w);
}

bool
au_dec_vote_ok(const AuFrame *f, AuMsgVoteOk *m)
{
	AuReader	r;

	au_dec_start(&r, f, AU_MSG_VOTE_OK);
	m->granted = au_r_u8(&r);
	m->term = au_r_u64(&r);
	m->timeline = au_r_u32(&r);
	m->start_lsn = au_r_u64(&r);
	m->durable_lsn = au_r_u64(&r);
	m->commit_lsn = au_r_u64(&r);
	au_r_history(&r, &m->history);
	return au_reader_done(&r) && m->granted <= 1;
}

bool
au_enc_elect(AuWriter *w, uint64_t id, const AuMsgElect *m)
{
	au_frame_begin(w, AU_MSG_ELECT, id);
	au_w_u64(w, m->term);
	au_w_u64(w, m->writer_id);
	au_w_u32(w, m->timeline);
	au_w_u64(w, m->commit_lsn);
	au_w_history(w, &m->history);
	au_w_group(w, &m->group);
	return au_frame_end(w);
}

bool
au_dec_elect(const AuFrame *f, AuMsgElect *m)
{
	AuReader	r;

	au_dec_start(&r, f, AU_MSG_ELECT);
	m->term = au_r_u64(&r);
	m->writer_id = au_r_u64(&r);
	m->timeline = au_r_u32(&r);
	m->commit_lsn = au_r_u64(&r);
	au_r_history(&r, &m->history);
	au_r_group(&r, &m->group, false);
	return au_reader_done(&r) && m->term != 0 &&
		au_history_last(&m->history, AU_LSN_MAX) == m->term;
}

bool
au_enc_elect_ok(AuWriter *w, uint64_t id, const AuMsgElectOk *m)
{
	au_frame_begin(w, AU_MSG_ELECT_OK, id);
	au_w_u64(w, m->term);
	au_w_u64(w, m->received_lsn);
	au_w_u64(w, m->applied_lsn);
	return au_frame_end(w);
}

bool
au_dec_elect_ok(const AuFrame *f, AuMsgElectOk *m)
{
	AuReader	r;

	au_dec_start(&r, f, AU_MSG_ELECT_OK);
	m->term = au_r_u64(&r);
	m->received_lsn = au_r_u64(&r);
	m->applied_lsn = au_r_u64(&r);
	return au_reader_done(&r);
}

bool
au_enc_get_log(AuWriter *w, uint64_t id, const AuMsgGetLog *m)
{
	au_frame_begin(w, AU_MSG_GET_LOG, id);
	au_w_u64(w, m->term);
	au_w_u64(w, m->lsn);
	au_w_u32(w, m->length);
	au_w_u32(w, m->wait_ms);
	return au_frame_end(w);
}

bool
au_dec_get_log(const AuFrame *f, AuMsgGetLog *m)
{
	AuReader	r;

	au_dec_start(&r, f, AU_MSG_GET_LOG);
	m->term = au_r_u64(&r);
	m->lsn = au_r_u64(&r);
	m->length = au_r_u32(&r);
	m->wait_ms = au_r_u32(&r);
	return au_reader_done(&r) && m->length > 0 && m->length <= AU_WIRE_APPEND_MAX &&
		m->wait_ms <= AU_GET_LOG_WAIT_MS;
}

bool
au_enc_log(AuWriter *w, uint64_t id, const AuMsgLog *m)
{
	au_frame_begin(w, AU_MSG_LOG, id);
	au_w_u64(w, m->lsn);
	au_w_u64(w, m->commit_lsn);
	au_w_u32(w, m->length);
	au_w_bytes(w, m->bytes, m->length);
	return au_frame_end(w);
}

bool
au_dec_log(const AuFrame *f, AuMsgLog *m)
{
	AuReader	r;

	au_dec_start(&r, f, AU_MSG_LOG);
	m->lsn = au_r_u64(&r);
	m->commit_lsn = au_r_u64(&r);
	m->length = au_r_u32(&r);
	m->bytes = au_r_bytes(&r, m->length);
	return au_reader_done(&r) && m->length <= AU_WIRE_APPEND_MAX &&
		m->lsn <= AU_LSN_MAX - m->length;
}
