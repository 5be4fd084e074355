/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_wire.c: frames and messages of the protocol, written and read.
 *
 * Invariants:
 *  1. The writer never goes beyond its capacity and the reader never beyond
 *     its input, whatever the bytes; an item that does not fit is not written
 *     or read in part.
 *  2. A decoder says true only if the payload is of its message type, is
 *     consumed to the last byte, and keeps every limit of au_wire.h.  What
 *     one side's encoder writes the other's decoder accepts.
 *  3. A frame is handed on only after its CRC has been checked.
 */
#include "common/au_wire.h"

#include "common/au_crc32c.h"

/* Where the header's fields are. */
#define FRAME_MAGIC 0
#define FRAME_VERSION 4
#define FRAME_TYPE 6
#define FRAME_ID 8
#define FRAME_LENGTH 16
#define FRAME_CRC 20

_Static_assert(FRAME_CRC + 4 == AU_WIRE_HEADER, "the CRC ends the header");
_Static_assert(AU_WIRE_APPEND_MAX + 64 <= AU_WIRE_PAYLOAD_MAX,
			   "the longest APPEND fits a frame");
_Static_assert(AU_WIRE_BLOCKS_MAX * (AU_PAGE_SIZE + 1) + 64 <= AU_WIRE_PAYLOAD_MAX,
			   "the longest PAGES fits a frame");

static uint32_t
frame_crc(const uint8_t *frame, size_t payload_len)
{
	uint32_t	crc = au_crc32c(0, frame, FRAME_CRC);

	return au_crc32c(crc, frame + AU_WIRE_HEADER, payload_len);
}

AuStatus
au_frame_parse(const uint8_t *buf, size_t len, AuFrame *frame, size_t *used)
{
	uint32_t	length;

	*used = 0;
	if (len < FRAME_VERSION)
		return AU_NEED_MORE;
	/* Say at once that the peer speaks something else; it may never send
	 * the 24 bytes of a header. */
	if (au_get_u32(buf + FRAME_MAGIC) != AU_WIRE_MAGIC)
		return AU_CORRUPT;
	if (len < FRAME_TYPE)
		return AU_NEED_MORE;
	if (au_get_u16(buf + FRAME_VERSION) != AU_WIRE_VERSION)
		return AU_UNSUPPORTED;
	if (len < AU_WIRE_HEADER)
		return AU_NEED_MORE;

	length = au_get_u32(buf + FRAME_LENGTH);
	if (length > AU_WIRE_PAYLOAD_MAX)
		return AU_CORRUPT;
	*used = AU_WIRE_HEADER + (size_t) length;
	if (len < *used)
		return AU_NEED_MORE;
	if (au_get_u32(buf + FRAME_CRC) != frame_crc(buf, length))
		return AU_CORRUPT;

	frame->type = au_get_u16(buf + FRAME_TYPE);
	frame->id = au_get_u64(buf + FRAME_ID);
	frame->payload = buf + AU_WIRE_HEADER;
	frame->length = length;
	return AU_OK;
}

/* ---- writer ----------------------------------------------------------- */

void
au_writer_start(AuWriter *w, uint8_t *memory, size_t cap)
{
	w->data = memory;
	w->len = 0;
	w->cap = cap;
	w->frame = 0;
	w->overflow = false;
}

/* Room for n bytes, or NULL and `overflow`. */
static uint8_t *
writer_reserve(AuWriter *w, size_t n)
{
	uint8_t    *p;

	if (w->overflow || n > w->cap - w->len)
	{
		w->overflow = true;
		return NULL;
	}
	p = w->data + w->len;
	w->len += n;
	return p;
}

void
au_w_u8(AuWriter *w, uint8_t v)
{
	uint8_t    *p = writer_reserve(w, 1);

	if (p != NULL)
		*p = v;
}

void
au_w_u16(AuWriter *w, uint16_t v)
{
	uint8_t    *p = writer_reserve(w, 2);

	if (p != NULL)
		au_put_u16(p, v);
}

void
au_w_u32(AuWriter *w, uint32_t v)
{
	uint8_t    *p = writer_reserve(w, 4);

	if (p != NULL)
		au_put_u32(p, v);
}

void
au_w_u64(AuWriter *w, uint64_t v)
{
	uint8_t    *p = writer_reserve(w, 8);

	if (p != NULL)
		au_put_u64(p, v);
}

void
au_w_bytes(AuWriter *w, const void *bytes, size_t n)
{
	uint8_t    *p = writer_reserve(w, n);

	if (p != NULL && n > 0)
		memcpy(p, bytes, n);
}

static void
write_text_len(AuWriter *w, const char *s, size_t n)
{
	uint8_t    *p;

	if (n > UINT16_MAX)
	{
		w->overflow = true;
		return;
	}
	/* One reservation, so that a length never stands without its bytes. */
	p = writer_reserve(w, 2 + n);
	if (p != NULL)
	{
		au_put_u16(p, (uint16_t) n);
		if (n > 0)
			memcpy(p + 2, s, n);
	}
}

void
au_w_text(AuWriter *w, const char *s)
{
	write_text_len(w, s, strlen(s));
}

/*
 * Text for a reader whose buffer has `cap` bytes with the terminator: cut to
 * fit, not in the middle of a UTF-8 character.
 */
static void
write_text_cut(AuWriter *w, const char *s, size_t cap)
{
	const char *end = memchr(s, '\0', cap);
	size_t		n;

	if (end != NULL)
		n = (size_t) (end - s);
	else
	{
		n = cap - 1;
		while (n > 0 && ((uint8_t) s[n] & 0xC0) == 0x80)
			n--;
	}
	write_text_len(w, s, n);
}

void
au_w_rel(AuWriter *w, const AuRelId *rel)
{
	uint8_t    *p = writer_reserve(w, 16);

	if (p != NULL)
	{
		au_put_u32(p, rel->spc);
		au_put_u32(p + 4, rel->db);
		au_put_u32(p + 8, rel->rel);
		au_put_u32(p + 12, rel->fork);
	}
}

void
au_frame_begin(AuWriter *w, uint16_t type, uint64_t id)
{
	uint8_t    *p;

	w->frame = w->len;
	p = writer_reserve(w, AU_WIRE_HEADER);
	if (p != NULL)
	{
		au_put_u32(p + FRAME_MAGIC, AU_WIRE_MAGIC);
		au_put_u16(p + FRAME_VERSION, AU_WIRE_VERSION);
		au_put_u16(p + FRAME_TYPE, type);
		au_put_u64(p + FRAME_ID, id);
		au_put_u32(p + FRAME_LENGTH, 0);
		au_put_u32(p + FRAME_CRC, 0);
	}
}

bool
au_frame_end(AuWriter *w)
{
	uint8_t    *p;
	size_t		length;

	if (!w->overflow &&
		w->len - w->frame - AU_WIRE_HEADER > AU_WIRE_PAYLOAD_MAX)
		w->overflow = true;
	if (w->overflow)
	{
		w->len = w->frame;
		return false;
	}
	p = w->data + w->frame;
	length = w->len - w->frame - AU_WIRE_HEADER;
	au_put_u32(p + FRAME_LENGTH, (uint32_t) length);
	au_put_u32(p + FRAME_CRC, frame_crc(p, length));
	return true;
}

/* ---- reader ----------------------------------------------------------- */

void
au_reader_start(AuReader *r, const uint8_t *p, size_t len)
{
	static const uint8_t nothing;

	/* Arithmetic on NULL is undefined, even of zero bytes. */
	r->p = p != NULL ? p : &nothing;
	r->left = len;
	r->bad = false;
}

const uint8_t *
au_r_bytes(AuReader *r, size_t n)
{
	const uint8_t *p = r->p;

	if (r->bad || n > r->left)
	{
		r->bad = true;
		return NULL;
	}
	r->p += n;
	r->left -= n;
	return p;
}

uint8_t
au_r_u8(AuReader *r)
{
	const uint8_t *p = au_r_bytes(r, 1);

	return p != NULL ? *p : 0;
}

uint16_t
au_r_u16(AuReader *r)
{
	const uint8_t *p = au_r_bytes(r, 2);

	return p != NULL ? au_get_u16(p) : 0;
}

uint32_t
au_r_u32(AuReader *r)
{
	const uint8_t *p = au_r_bytes(r, 4);

	return p != NULL ? au_get_u32(p) : 0;
}

uint64_t
au_r_u64(AuReader *r)
{
	const uint8_t *p = au_r_bytes(r, 8);

	return p != NULL ? au_get_u64(p) : 0;
}

void
au_r_text(AuReader *r, char *buf, size_t cap)
{
	size_t		n = au_r_u16(r);
	const uint8_t *p = au_r_bytes(r, n);

	/* A zero byte inside would make the text seem shorter than it is. */
	if (p != NULL && (n >= cap || memchr(p, 0, n) != NULL))
		r->bad = true;
	if (r->bad)
		n = 0;
	if (n > 0)
		memcpy(buf, p, n);
	if (cap > 0)
		buf[n] = '\0';
}

void
au_r_rel(AuReader *r, AuRelId *rel)
{
	rel->spc = au_r_u32(r);
	rel->db = au_r_u32(r);
	rel->rel = au_r_u32(r);
	rel->fork = au_r_u32(r);
}

bool
au_reader_done(const AuReader *r)
{
	return !r->bad && r->left == 0;
}

/* Begin to decode: the reader is bad at once if the type is another. */
void
au_dec_start(AuReader *r, const AuFrame *f, uint16_t type)
{
	au_reader_start(r, f->payload, f->length);
	if (f->type != type)
		r->bad = true;
}

/* A struct that breaks a limit: nothing is written. */
static bool
enc_refuse(AuWriter *w)
{
	w->overflow = true;
	return false;
}

/* ---- messages --------------------------------------------------------- */

bool
au_enc_error(AuWriter *w, uint64_t id, AuStatus status,
			 const char *message, const char *hint)
{
	au_frame_begin(w, AU_MSG_ERROR, id);
	au_w_u16(w, (uint16_t) status);
	write_text_cut(w, message != NULL ? message : "", AU_WIRE_TEXT_MAX);
	write_text_cut(w, hint != NULL ? hint : "", AU_WIRE_TEXT_MAX);
	return au_frame_end(w);
}

bool
au_dec_error(const AuFrame *f, AuMsgError *m)
{
	AuReader	r;

	au_dec_start(&r, f, AU_MSG_ERROR);
	m->status = au_r_u16(&r);
	au_r_text(&r, m->message, sizeof(m->message));
	au_r_text(&r, m->hint, sizeof(m->hint));
	/* An error with status "ok" would be taken for success. */
	return au_reader_done(&r) && m->status != AU_OK;
}

bool
au_enc_hello(AuWriter *w, uint64_t id, const AuMsgHello *m)
{
	au_frame_begin(w, AU_MSG_HELLO, id);
	au_w_u64(w, m->system_identifier);
	au_w_u8(w, m->role);
	write_text_cut(w, m->name, sizeof(m->name));
	return au_frame_end(w);
}

bool
au_dec_hello(const AuFrame *f, AuMsgHello *m)
{
	AuReader	r;

	au_dec_start(&r, f, AU_MSG_HELLO);
	m->system_identifier = au_r_u64(&r);
	m->role = au_r_u8(&r);
	au_r_text(&r, m->name, sizeof(m->name));
	return au_reader_done(&r) &&
		m->role >= AU_ROLE_READER && m->role <= AU_ROLE_NODE;
}

bool
au_enc_hello_ok(AuWriter *w, uint64_t id, const AuMsgHelloOk *m)
{
	au_frame_begin(w, AU_MSG_HELLO_OK, id);
	au_w_u64(w, m->node_id);
	au_w_u64(w, m->ring_epoch);
	au_w_u8(w, m->volume_known);
	au_w_u64(w, m->start_lsn);
	au_w_u64(w, m->durable_lsn);
	au_w_u64(w, m->applied_lsn);
	au_w_u64(w, m->term);
	au_w_group(w, &m->group);
	return au_frame_end(w);
}

bool
au_dec_hello_ok(const AuFrame *f, AuMsgHelloOk *m)
{
	AuReader	r;

	au_dec_start(&r, f, AU_MSG_HELLO_OK);
	m->node_id = au_r_u64(&r);
	m->ring_epoch = au_r_u64(&r);
	m->volume_known = au_r_u8(&r);
	m->start_lsn = au_r_u64(&r);
	m->durable_lsn = au_r_u64(&r);
	m->applied_lsn = au_r_u64(&r);
	m->term = au_r_u64(&r);
	au_r_group(&r, &m->group, true);
	return au_reader_done(&r);
}

bool
au_enc_term(AuWriter *w, uint64_t id, const AuMsgTerm *m)
{
	au_frame_begin(w, AU_MSG_TERM, id);
	au_w_u64(w, m->writer_id);
	au_w_u32(w, m->timeline);
	au_w_u64(w, m->switch_lsn);
	au_w_u64(w, m->start_lsn);
	au_w_u64(w, m->local_end);
	au_w_u32(w, m->wal_segment_size);
	au_w_u8(w, m->may_create);
	return au_frame_end(w);
}

bool
au_dec_term(const AuFrame *f, AuMsgTerm *m)
{
	AuReader	r;

	au_dec_start(&r, f, AU_MSG_TERM);
	m->writer_id = au_r_u64(&r);
	m->timeline = au_r_u32(&r);
	m->switch_lsn = au_r_u64(&r);
	m->start_lsn = au_r_u64(&r);
	m->local_end = au_r_u64(&r);
	m->wal_segment_size = au_r_u32(&r);
	m->may_create = au_r_u8(&r);
	return au_reader_done(&r);
}

bool
au_enc_term_ok(AuWriter *w, uint64_t id, const AuMsgTermOk *m)
{
	au_frame_begin(w, AU_MSG_TERM_OK, id);
	au_w_u64(w, m->term);
	au_w_u64(w, m->received_lsn);
	au_w_u64(w, m->durable_lsn);
	au_w_u64(w, m->applied_lsn);
	return au_frame_end(w);
}

bool
au_dec_term_ok(const AuFrame *f, AuMsgTermOk *m)
{
	AuReader	r;

	au_dec_start(&r, f, AU_MSG_TERM_OK);
	m->term = au_r_u64(&r);
	m->received_lsn = au_r_u64(&r);
	m->durable_lsn = au_r_u64(&r);
	m->applied_lsn = au_r_u64(&r);
	return au_reader_done(&r);
}

bool
au_enc_append(AuWriter *w, uint64_t id, const AuMsgAppend *m)
{
	if (m->length > AU_WIRE_APPEND_MAX)
		return enc_refuse(w);
	au_frame_begin(w, AU_MSG_APPEND, id);
	au_w_u64(w, m->term);
	au_w_u32(w, m->timeline);
	au_w_u64(w, m->lsn);
	au_w_u64(w, m->commit_lsn);
	au_w_u32(w, m->length);
	au_w_bytes(w, m->bytes, m->length);
	return au_frame_end(w);
}

bool
au_dec_append(const AuFrame *f, AuMsgAppend *m)
{
	AuReader	r;

	au_dec_start(&r, f, AU_MSG_APPEND);
	m->term = au_r_u64(&r);
	m->timeline = au_r_u32(&r);
	m->lsn = au_r_u64(&r);
	m->commit_lsn = au_r_u64(&r);
	m->length = au_r_u32(&r);
	m->bytes = au_r_bytes(&r, m->length);
	/* The end of the run must be an LSN, too. */
	return au_reader_done(&r) && m->length <= AU_WIRE_APPEND_MAX &&
		m->lsn <= AU_LSN_MAX - m->length;
}

bool
au_enc_append_ok(AuWriter *w, uint64_t id, const AuMsgAppendOk *m)
{
	au_frame_begin(w, AU_MSG_APPEND_OK, id);
	au_w_u64(w, m->term);
	au_w_u64(w, m->received_lsn);
	au_w_u64(w, m->durable_lsn);
	au_w_u64(w, m->applied_lsn);
	return au_frame_end(w);
}

bool
au_dec_append_ok(const AuFrame *f, AuMsgAppendOk *m)
{
	AuReader	r;

	au_dec_start(&r, f, AU_MSG_APPEND_OK);
	m->term = au_r_u64(&r);
	m->received_lsn = au_r_u64(&r);
	m->durable_lsn = au_r_u64(&r);
	m->applied_lsn = au_r_u64(&r);
	return au_reader_done(&r);
}

bool
au_enc_get_pages(AuWriter *w, uint64_t id, const AuMsgGetPages *m)
{
	if (m->nblocks > AU_WIRE_BLOCKS_MAX)
		return enc_refuse(w);
	au_frame_begin(w, AU_MSG_GET_PAGES, id);
	au_w_rel(w, &m->rel);
	au_w_u64(w, m->not_before);
	au_w_u64(w, m->read_lsn);
	au_w_u32(w, m->place);
	au_w_u16(w, m->nblocks);
	for (int i = 0; i < m->nblocks; i++)
		au_w_u32(w, m->blocks[i]);
	return au_frame_end(w);
}

bool
au_dec_get_pages(const AuFrame *f, AuMsgGetPages *m)
{
	AuReader	r;

	au_dec_start(&r, f, AU_MSG_GET_PAGES);
	au_r_rel(&r, &m->rel);
	m->not_before = au_r_u64(&r);
	m->read_lsn = au_r_u64(&r);
	m->place = au_r_u32(&r);
	m->nblocks = au_r_u16(&r);
	if (m->nblocks > AU_WIRE_BLOCKS_MAX)
		return false;
	for (int i = 0; i < m->nblocks; i++)
		m->blocks[i] = au_r_u32(&r);
	return au_reader_done(&r);
}

void
au_pages_begin(AuWriter *w, uint64_t id, AuLsn as_of, uint16_t nblocks)
{
	au_frame_begin(w, AU_MSG_PAGES, id);
	au_w_u64(w, as_of);
	au_w_u16(w, nblocks);
}

uint8_t *
au_pages_slot(AuWriter *w)
{
	/* behind the status byte */
	if (w->overflow || w->cap - w->len < 1 + AU_PAGE_SIZE)
		return NULL;
	return w->data + w->len + 1;
}

void
au_pages_add(AuWriter *w, AuStatus status)
{
	au_w_u8(w, (uint8_t) status);
	if (status == AU_OK)
		(void) writer_reserve(w, AU_PAGE_SIZE);
}

bool
au_enc_pages(AuWriter *w, uint64_t id, const AuMsgPages *m)
{
	if (m->nblocks > AU_WIRE_BLOCKS_MAX)
		return enc_refuse(w);
	au_pages_begin(w, id, m->as_of, m->nblocks);
	for (int i = 0; i < m->nblocks; i++)
	{
		au_w_u8(w, m->status[i]);
		if (m->status[i] == AU_OK)
			au_w_bytes(w, m->page[i], AU_PAGE_SIZE);
	}
	return au_frame_end(w);
}

bool
au_dec_pages(const AuFrame *f, AuMsgPages *m)
{
	AuReader	r;

	au_dec_start(&r, f, AU_MSG_PAGES);
	m->as_of = au_r_u64(&r);
	m->nblocks = au_r_u16(&r);
	if (m->nblocks > AU_WIRE_BLOCKS_MAX)
		return false;
	for (int i = 0; i < m->nblocks; i++)
	{
		m->status[i] = au_r_u8(&r);
		m->page[i] = NULL;
		/* A short read gives status 0: `bad` tells it from AU_OK. */
		if (m->status[i] == AU_OK)
			m->page[i] = au_r_bytes(&r, AU_PAGE_SIZE);
	}
	return au_reader_done(&r);
}

bool
au_enc_get_size(AuWriter *w, uint64_t id, const AuMsgGetSize *m)
{
	au_frame_begin(w, AU_MSG_GET_SIZE, id);
	au_w_rel(w, &m->rel);
	au_w_u64(w, m->not_before);
	au_w_u64(w, m->read_lsn);
	return au_frame_end(w);
}

bool
au_dec_get_size(const AuFrame *f, AuMsgGetSize *m)
{
	AuReader	r;

	au_dec_start(&r, f, AU_MSG_GET_SIZE);
	au_r_rel(&r, &m->rel);
	m->not_before = au_r_u64(&r);
	m->read_lsn = au_r_u64(&r);
	return au_reader_done(&r);
}

bool
au_enc_size(AuWriter *w, uint64_t id, const AuMsgSize *m)
{
	au_frame_begin(w, AU_MSG_SIZE, id);
	au_w_u64(w, m->as_of);
	au_w_u32(w, m->nblocks);
	return au_frame_end(w);
}

bool
au_dec_size(const AuFrame *f, AuMsgSize *m)
{
	AuReader	r;

	au_dec_start(&r, f, AU_MSG_SIZE);
	m->as_of = au_r_u64(&r);
	m->nblocks = au_r_u32(&r);
	return au_reader_done(&r);
}

bool
au_enc_list_rels(AuWriter *w, uint64_t id, const AuMsgListRels *m)
{
	au_frame_begin(w, AU_MSG_LIST_RELS, id);
	au_w_u32(w, m->db);
	au_w_u64(w, m->not_before);
	return au_frame_end(w);
}

bool
au_dec_list_rels(const AuFrame *f, AuMsgListRels *m)
{
	AuReader	r;

	au_dec_start(&r, f, AU_MSG_LIST_RELS);
	m->db = au_r_u32(&r);
	m->not_before = au_r_u64(&r);
	return au_reader_done(&r);
}

bool
au_enc_hold(AuWriter *w, uint64_t id, const AuMsgHold *m)
{
	au_frame_begin(w, AU_MSG_HOLD_LSN, id);
	au_w_u64(w, m->lsn);
	return au_frame_end(w);
}

bool
au_dec_hold(const AuFrame *f, AuMsgHold *m)
{
	AuReader	r;

	au_dec_start(&r, f, AU_MSG_HOLD_LSN);
	m->lsn = au_r_u64(&r);
	return au_reader_done(&r);
}

bool
au_enc_hold_ok(AuWriter *w, uint64_t id, const AuMsgHoldOk *m)
{
	au_frame_begin(w, AU_MSG_HOLD_OK, id);
	au_w_u64(w, m->lsn);
	au_w_u64(w, m->horizon);
	return au_frame_end(w);
}

bool
au_dec_hold_ok(const AuFrame *f, AuMsgHoldOk *m)
{
	AuReader	r;

	au_dec_start(&r, f, AU_MSG_HOLD_OK);
	m->lsn = au_r_u64(&r);
	m->horizon = au_r_u64(&r);
	return au_reader_done(&r);
}

bool
au_enc_rels(AuWriter *w, uint64_t id, const AuMsgRels *m)
{
	if (m->count > AU_WIRE_PAYLOAD_MAX / AU_WIRE_REL_ENTRY)
		return enc_refuse(w);
	au_frame_begin(w, AU_MSG_RELS, id);
	au_w_u64(w, m->as_of);
	au_w_u32(w, m->count);
	au_w_bytes(w, m->entries, (size_t) m->count * AU_WIRE_REL_ENTRY);
	return au_frame_end(w);
}

bool
au_dec_rels(const AuFrame *f, AuMsgRels *m)
{
	AuReader	r;

	au_dec_start(&r, f, AU_MSG_RELS);
	m->as_of = au_r_u64(&r);
	m->count = au_r_u32(&r);
	if (m->count > AU_WIRE_PAYLOAD_MAX / AU_WIRE_REL_ENTRY)
		return false;
	m->entries = au_r_bytes(&r, (size_t) m->count * AU_WIRE_REL_ENTRY);
	return au_reader_done(&r);
}

bool
au_enc_text(AuWriter *w, uint16_t type, uint64_t id,
			const char *text, size_t len)
{
	au_frame_begin(w, type, id);
	au_w_bytes(w, text, len);
	return au_frame_end(w);
}

bool
au_enc_empty(AuWriter *w, uint16_t type, uint64_t id)
{
	au_frame_begin(w, type, id);
	return au_frame_end(w);
}
