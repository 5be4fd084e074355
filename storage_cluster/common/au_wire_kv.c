/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_wire_kv.c: the messages of the key-value interface; see au_wire_kv.h.
 */
#include "common/au_wire_kv.h"

_Static_assert(AU_KV_FRAME_MAX <= AU_WIRE_HEADER + AU_WIRE_PAYLOAD_MAX,
			   "the longest message of a node fits a frame");
_Static_assert(AU_KV_LIST_MAX * (AU_KV_KEY_MAX + 7) + 64 <= AU_WIRE_PAYLOAD_MAX,
			   "the longest list fits a frame");

static void
w_bytes16(AuWriter *w, const AuKvText *t)
{
	au_w_u16(w, t->len);
	au_w_bytes(w, t->bytes, t->len);
}

static void
r_bytes16(AuReader *r, AuKvText *t, uint32_t max)
{
	t->len = au_r_u16(r);
	t->bytes = au_r_bytes(r, t->len);
	if (t->len > max)
		r->bad = true;
}

static void
w_bytes32(AuWriter *w, const uint8_t *bytes, uint32_t len)
{
	au_w_u32(w, len);
	au_w_bytes(w, bytes, len);
}

static const uint8_t *
r_bytes32(AuReader *r, uint32_t *len, uint32_t max)
{
	*len = au_r_u32(r);
	if (*len > max)
		r->bad = true;
	return au_r_bytes(r, *len);
}

static bool
fits(const AuKvText *key, const AuKvText *context)
{
	return key->len <= AU_KV_KEY_MAX && (context == NULL || context->len <= AU_KV_CONTEXT_MAX);
}

bool
au_enc_kv_get(AuWriter *w, uint64_t id, const AuMsgKvGet *m)
{
	if (!fits(&m->key, NULL))
		return false;
	au_frame_begin(w, AU_MSG_KV_GET, id);
	au_w_u8(w, m->n);
	au_w_u8(w, m->r);
	au_w_u8(w, m->flags);
	au_w_u32(w, m->timeout_ms);
	w_bytes16(w, &m->key);
	return au_frame_end(w);
}

bool
au_dec_kv_get(const AuFrame *f, AuMsgKvGet *m)
{
	AuReader	r;

	au_dec_start(&r, f, AU_MSG_KV_GET);
	m->n = au_r_u8(&r);
	m->r = au_r_u8(&r);
	m->flags = au_r_u8(&r);
	m->timeout_ms = au_r_u32(&r);
	r_bytes16(&r, &m->key, AU_KV_KEY_MAX);
	return au_reader_done(&r) && m->key.len > 0;
}

bool
au_enc_kv_get_ok(AuWriter *w, uint64_t id, const AuMsgKvGetOk *m)
{
	au_frame_begin(w, AU_MSG_KV_GET_OK, id);
	au_w_u8(w, m->replicas);
	w_bytes16(w, &m->context);
	au_w_u8(w, m->n);
	for (uint32_t i = 0; i < m->n && i < AU_KV_MERGED_MAX; i++)
		w_bytes32(w, m->value[i].bytes, m->value[i].len);
	return au_frame_end(w);
}

bool
au_dec_kv_get_ok(const AuFrame *f, AuMsgKvGetOk *m)
{
	AuReader	r;

	au_dec_start(&r, f, AU_MSG_KV_GET_OK);
	m->replicas = au_r_u8(&r);
	r_bytes16(&r, &m->context, AU_KV_CONTEXT_MAX);
	m->n = au_r_u8(&r);
	if (m->n > AU_KV_MERGED_MAX)
		return false;
	for (uint32_t i = 0; i < m->n; i++)
		m->value[i].bytes = r_bytes32(&r, &m->value[i].len, AU_KV_VALUE_MAX);
	return au_reader_done(&r);
}

bool
au_enc_kv_put(AuWriter *w, uint64_t id, const AuMsgKvPut *m)
{
	if (!fits(&m->key, &m->context) || m->len > AU_KV_VALUE_MAX)
		return false;
	au_frame_begin(w, AU_MSG_KV_PUT, id);
	au_w_u8(w, m->n);
	au_w_u8(w, m->w);
	au_w_u8(w, m->flags);
	au_w_u32(w, m->timeout_ms);
	w_bytes16(w, &m->key);
	w_bytes16(w, &m->context);
	w_bytes32(w, m->value, m->len);
	return au_frame_end(w);
}

bool
au_dec_kv_put(const AuFrame *f, AuMsgKvPut *m)
{
	AuReader	r;

	au_dec_start(&r, f, AU_MSG_KV_PUT);
	m->n = au_r_u8(&r);
	m->w = au_r_u8(&r);
	m->flags = au_r_u8(&r);
	m->timeout_ms = au_r_u32(&r);
	r_bytes16(&r, &m->key, AU_KV_KEY_MAX);
	r_bytes16(&r, &m->context, AU_KV_CONTEXT_MAX);
	m->value = r_bytes32(&r, &m->len, AU_KV_VALUE_MAX);
	return au_reader_done(&r) && m->key.len > 0 && ((m->flags & AU_KV_DELETE) == 0 || m->len == 0);
}

bool
au_enc_kv_put_ok(AuWriter *w, uint64_t id, const AuMsgKvPutOk *m)
{
	au_frame_begin(w, AU_MSG_KV_PUT_OK, id);
	au_w_u8(w, m->replicas);
	au_w_u8(w, m->siblings);
	w_bytes16(w, &m->context);
	return au_frame_end(w);
}

bool
au_dec_kv_put_ok(const AuFrame *f, AuMsgKvPutOk *m)
{
	AuReader	r;

	au_dec_start(&r, f, AU_MSG_KV_PUT_OK);
	m->replicas = au_r_u8(&r);
	m->siblings = au_r_u8(&r);
	r_bytes16(&r, &m->context, AU_KV_CONTEXT_MAX);
	return au_reader_done(&r);
}

bool
au_enc_kv_list(AuWriter *w, uint64_t id, const AuMsgKvList *m)
{
	if (!fits(&m->prefix, NULL) || !fits(&m->after, NULL) || m->limit > AU_KV_LIST_MAX)
		return false;
	au_frame_begin(w, AU_MSG_KV_LIST, id);
	au_w_u8(w, m->flags);
	au_w_u16(w, m->limit);
	au_w_u32(w, m->timeout_ms);
	for (int i = 0; i < AU_SLICES / 64; i++)
		au_w_u64(w, m->slices.bits[i]);
	w_bytes16(w, &m->prefix);
	w_bytes16(w, &m->after);
	return au_frame_end(w);
}

bool
au_dec_kv_list(const AuFrame *f, AuMsgKvList *m)
{
	AuReader	r;

	au_dec_start(&r, f, AU_MSG_KV_LIST);
	m->flags = au_r_u8(&r);
	m->limit = au_r_u16(&r);
	m->timeout_ms = au_r_u32(&r);
	for (int i = 0; i < AU_SLICES / 64; i++)
		m->slices.bits[i] = au_r_u64(&r);
	r_bytes16(&r, &m->prefix, AU_KV_KEY_MAX);
	r_bytes16(&r, &m->after, AU_KV_KEY_MAX);
	return au_reader_done(&r) && m->limit <= AU_KV_LIST_MAX;
}

bool
au_enc_kv_list_ok(AuWriter *w, uint64_t id, const AuMsgKvListOk *m)
{
	au_frame_begin(w, AU_MSG_KV_LIST_OK, id);
	au_w_u8(w, m->more);
	au_w_u16(w, m->n);
	w_bytes32(w, m->entries, m->len);
	return au_frame_end(w);
}

bool
au_kv_list_next(const uint8_t **p, size_t *left, AuKvText *key, uint8_t *siblings, uint32_t *bytes)
{
	size_t		klen;

	if (*left < 7)
		return false;
	klen = au_get_u16(*p);
	if (klen == 0 || klen > AU_KV_KEY_MAX || *left < klen + 7)
		return false;
	key->len = (uint16_t) klen;
	key->bytes = *p + 2;
	*siblings = (*p)[2 + klen];
	*bytes = au_get_u32(*p + 3 + klen);
	*p += klen + 7;
	*left -= klen + 7;
	return true;
}

bool
au_dec_kv_list_ok(const AuFrame *f, AuMsgKvListOk *m)
{
	AuReader	r;
	AuKvText	key;
	const uint8_t *p;
	size_t		left;
	uint32_t	bytes;
	uint8_t		siblings;
	uint32_t	n = 0;

	au_dec_start(&r, f, AU_MSG_KV_LIST_OK);
	m->more = au_r_u8(&r);
	m->n = au_r_u16(&r);
	m->entries = r_bytes32(&r, &m->len, AU_WIRE_PAYLOAD_MAX);
	if (!au_reader_done(&r) || m->more > 1 || m->n > AU_KV_LIST_MAX)
		return false;
	p = m->entries;
	left = m->len;
	while (au_kv_list_next(&p, &left, &key, &siblings, &bytes))
		n++;
	return left == 0 && n == m->n;
}

/* What a node's question and the answer end with: u64 serial, u16 slice, key, bytes. */
static bool
end_with(AuWriter *w, uint64_t serial, uint16_t slice, const AuKvText *key,
		 const uint8_t *bytes, uint32_t len)
{
	au_w_u64(w, serial);
	au_w_u16(w, slice);
	w_bytes16(w, key);
	w_bytes32(w, bytes, len);
	return au_frame_end(w);
}

/* Gives the bytes. */
static const uint8_t *
read_end(AuReader *r, uint64_t *serial, uint16_t *slice, AuKvText *key, uint32_t *len, uint32_t max)
{
	*serial = au_r_u64(r);
	*slice = au_r_u16(r);
	r_bytes16(r, key, AU_KV_KEY_MAX);
	return r_bytes32(r, len, max);
}

bool
au_enc_kv_ask(AuWriter *w, uint16_t type, uint64_t id, const AuMsgKvAsk *m)
{
	if (!fits(&m->key, NULL) || m->len > AU_KV_RECORD_MAX)
		return false;
	au_frame_begin(w, type, id);
	au_w_u32(w, m->from);
	au_w_u64(w, m->epoch);
	return end_with(w, m->serial, m->slice, &m->key, m->bytes, m->len);
}

bool
au_dec_kv_ask(const AuFrame *f, AuMsgKvAsk *m)
{
	AuReader	r;

	au_dec_start(&r, f, f->type);
	m->from = au_r_u32(&r);
	m->epoch = au_r_u64(&r);
	m->bytes = read_end(&r, &m->serial, &m->slice, &m->key, &m->len, AU_KV_RECORD_MAX);
	return au_reader_done(&r) && m->slice < AU_SLICES;
}

bool
au_enc_kv_told(AuWriter *w, uint16_t type, uint64_t id, const AuMsgKvTold *m)
{
	if (!fits(&m->key, NULL))
		return false;
	au_frame_begin(w, type, id);
	au_w_u16(w, m->status);
	au_w_u8(w, m->flags);
	au_w_u64(w, m->epoch);
	return end_with(w, m->serial, m->slice, &m->key, m->bytes, m->len);
}

bool
au_dec_kv_told(const AuFrame *f, AuMsgKvTold *m)
{
	AuReader	r;

	au_dec_start(&r, f, f->type);
	m->status = au_r_u16(&r);
	m->flags = au_r_u8(&r);
	m->epoch = au_r_u64(&r);
	m->bytes = read_end(&r, &m->serial, &m->slice, &m->key, &m->len, AU_WIRE_PAYLOAD_MAX);
	return au_reader_done(&r) && m->slice < AU_SLICES;
}
