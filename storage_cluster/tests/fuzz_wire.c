/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_wire.c: frames and messages from a hostile peer.
 *
 * The first byte chooses: odd: the rest is a stream of frames as it is; even:
 * the rest (u8 type, payload) is put into a frame with a right CRC first.
 *
 * Checked: nothing is read outside the input; a message that decodes, encoded
 * again, gives the same bytes.
 */
#include <stdlib.h>

#include "common/au_wire_cluster.h"
#include "common/au_wire_digest.h"
#include "common/au_wire_export.h"
#include "common/au_wire_gossip.h"
#include "common/au_wire_kv.h"

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(cond) do { if (!(cond)) __builtin_trap(); } while (0)

static uint8_t out[AU_WIRE_PAYLOAD_MAX + 64];

/* Decode; if that works encode again and compare. */
#define ROUND_TRIP(name, T) \
	do { \
		static T	m_; \
		if (!au_dec_##name(f, &m_)) \
			return; \
		au_writer_start(&w, out, sizeof(out)); \
		CHECK(au_enc_##name(&w, f->id, &m_)); \
		CHECK(w.len == AU_WIRE_HEADER + (size_t) f->length); \
		CHECK(memcmp(out + AU_WIRE_HEADER, f->payload, f->length) == 0); \
	} while (0)

/* Questions and answers between nodes, and the record that may be in them. */
static void
check_kv_ask(const AuFrame *f)
{
	AuMsgKvAsk	m;
	AuKvRecord	r;
	AuWriter	w;

	if (!au_dec_kv_ask(f, &m))
		return;
	au_writer_start(&w, out, sizeof(out));
	CHECK(au_enc_kv_ask(&w, f->type, f->id, &m));
	CHECK(w.len == AU_WIRE_HEADER + (size_t) f->length);
	CHECK(memcmp(out + AU_WIRE_HEADER, f->payload, f->length) == 0);
	if (au_kv_record_decode(&r, m.key.bytes, m.key.len, m.bytes, m.len))
	{
		CHECK(au_kv_record_encode(&r, m.key.bytes, m.key.len, out, sizeof(out)) == m.len);
		CHECK(memcmp(out, m.bytes, m.len) == 0);
	}
}

static void
check_kv_told(const AuFrame *f)
{
	AuMsgKvTold m;
	AuWriter	w;

	if (!au_dec_kv_told(f, &m))
		return;
	au_writer_start(&w, out, sizeof(out));
	CHECK(au_enc_kv_told(&w, f->type, f->id, &m));
	CHECK(w.len == AU_WIRE_HEADER + (size_t) f->length);
	CHECK(memcmp(out + AU_WIRE_HEADER, f->payload, f->length) == 0);
}

static void
check_message(const AuFrame *f)
{
	AuWriter	w;
	static AuMsgError e;

	switch (f->type)
	{
		case AU_MSG_ERROR:
			if (!au_dec_error(f, &e))
				return;
			au_writer_start(&w, out, sizeof(out));
			CHECK(au_enc_error(&w, f->id, (AuStatus) e.status, e.message, e.hint));
			CHECK(w.len == AU_WIRE_HEADER + (size_t) f->length);
			CHECK(memcmp(out + AU_WIRE_HEADER, f->payload, f->length) == 0);
			(void) au_status_name((AuStatus) e.status);
			break;
		case AU_MSG_HELLO:
			ROUND_TRIP(hello, AuMsgHello);
			break;
		case AU_MSG_HELLO_OK:
			ROUND_TRIP(hello_ok, AuMsgHelloOk);
			break;
		case AU_MSG_TERM:
			ROUND_TRIP(term, AuMsgTerm);
			break;
		case AU_MSG_TERM_OK:
			ROUND_TRIP(term_ok, AuMsgTermOk);
			break;
		case AU_MSG_APPEND:
			ROUND_TRIP(append, AuMsgAppend);
			break;
		case AU_MSG_APPEND_OK:
			ROUND_TRIP(append_ok, AuMsgAppendOk);
			break;
		case AU_MSG_GET_PAGES:
			ROUND_TRIP(get_pages, AuMsgGetPages);
			break;
		case AU_MSG_PAGES:
			ROUND_TRIP(pages, AuMsgPages);
			break;
		case AU_MSG_SHARE:
			ROUND_TRIP(share, AuMsgShare);
			break;
		case AU_MSG_SHARE_OK:
			ROUND_TRIP(share_ok, AuMsgShareOk);
			break;
		case AU_MSG_PAGES_PLACED:
			ROUND_TRIP(placed, AuMsgPlaced);
			break;
		case AU_MSG_GET_SIZE:
			ROUND_TRIP(get_size, AuMsgGetSize);
			break;
		case AU_MSG_SIZE:
			ROUND_TRIP(size, AuMsgSize);
			break;
		case AU_MSG_DIGEST:
			ROUND_TRIP(digest, AuMsgDigest);
			break;
		case AU_MSG_DIGEST_OK:
			ROUND_TRIP(digest_ok, AuMsgDigestOk);
			break;
		case AU_MSG_HOLD_LSN:
			ROUND_TRIP(hold, AuMsgHold);
			break;
		case AU_MSG_HOLD_OK:
			ROUND_TRIP(hold_ok, AuMsgHoldOk);
			break;
		case AU_MSG_LIST_RELS:
			ROUND_TRIP(list_rels, AuMsgListRels);
			break;
		case AU_MSG_RELS:
			ROUND_TRIP(rels, AuMsgRels);
			break;
		case AU_MSG_KV_GET:
			ROUND_TRIP(kv_get, AuMsgKvGet);
			break;
		case AU_MSG_KV_GET_OK:
			ROUND_TRIP(kv_get_ok, AuMsgKvGetOk);
			break;
		case AU_MSG_KV_PUT:
			ROUND_TRIP(kv_put, AuMsgKvPut);
			break;
		case AU_MSG_KV_PUT_OK:
			ROUND_TRIP(kv_put_ok, AuMsgKvPutOk);
			break;
		case AU_MSG_KV_LIST:
			ROUND_TRIP(kv_list, AuMsgKvList);
			break;
		case AU_MSG_KV_LIST_OK:
			ROUND_TRIP(kv_list_ok, AuMsgKvListOk);
			break;
		case AU_MSG_KV_READ:
		case AU_MSG_KV_STORE:
		case AU_MSG_KV_SCAN:
		case AU_MSG_KV_PURGE:
			check_kv_ask(f);
			break;
		case AU_MSG_KV_READ_OK:
		case AU_MSG_KV_STORE_OK:
		case AU_MSG_KV_SCAN_OK:
		case AU_MSG_KV_PURGE_OK:
			check_kv_told(f);
			break;
		case AU_MSG_GOSSIP:
			ROUND_TRIP(gossip, AuMsgGossip);
			break;
		case AU_MSG_GOSSIP_OK:
			ROUND_TRIP(gossip_ok, AuMsgGossip);
			break;
		case AU_MSG_EXPORT:
			ROUND_TRIP(export, AuMsgExport);
			break;
		case AU_MSG_EXPORT_OK:
			ROUND_TRIP(export_ok, AuMsgExportOk);
			break;
		case AU_MSG_GET_VIEW:
			ROUND_TRIP(get_view, AuMsgGetView);
			break;
		case AU_MSG_VIEW:
			ROUND_TRIP(view, AuMsgView);
			break;
		case AU_MSG_CLUSTER:
			ROUND_TRIP(cluster, AuMsgCluster);
			break;
		case AU_MSG_CLUSTER_OK:
			ROUND_TRIP(cluster_ok, AuMsgClusterOk);
			break;
		default:
			break;
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	AuFrame		f;
	size_t		used;
	uint8_t    *made = NULL;
	AuWriter	w;

	if (size < 2)
		return 0;
	if (data[0] % 2 == 0)
	{
		size_t		cap = AU_WIRE_HEADER + size;

		/* exactly as long as the frame, so that a byte too far is seen */
		made = malloc(cap - 2);
		CHECK(made != NULL);
		au_writer_start(&w, made, cap - 2);
		au_frame_begin(&w, data[1], 77);
		au_w_bytes(&w, data + 2, size - 2);
		CHECK(au_frame_end(&w));
		data = made;
		size = w.len;
	}
	else
	{
		data++;
		size--;
	}
	while (au_frame_parse(data, size, &f, &used) == AU_OK)
	{
		CHECK(used == AU_WIRE_HEADER + (size_t) f.length && used <= size);
		check_message(&f);
		data += used;
		size -= used;
	}
	CHECK(used == 0 || used >= AU_WIRE_HEADER);
	free(made);
	return 0;
}
