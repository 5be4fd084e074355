/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_wire_kv.h: messages of the key-value interface: those of clients (GET,
 * PUT, LIST) and those between nodes (READ, STORE, SCAN, PURGE).  Frames,
 * writer and reader are au_wire.h's; docs/protocol.md has the tables.
 *
 * Encoders append a whole frame, false on overflow or a broken limit; decoders
 * return false for what is malformed, pointers point into the payload.
 */
#ifndef AU_WIRE_KV_H
#define AU_WIRE_KV_H

#include "cluster/au_kv_vv.h"
#include "cluster/au_view.h"
#include "common/au_wire.h"

#define AU_MSG_KV_GET 49
#define AU_MSG_KV_GET_OK 50
#define AU_MSG_KV_PUT 51		/* and DEL: AU_KV_DELETE */
#define AU_MSG_KV_PUT_OK 52
#define AU_MSG_KV_LIST 53
#define AU_MSG_KV_LIST_OK 54
#define AU_MSG_KV_READ 55
#define AU_MSG_KV_READ_OK 56
#define AU_MSG_KV_STORE 57
#define AU_MSG_KV_STORE_OK 58
#define AU_MSG_KV_SCAN 59
#define AU_MSG_KV_SCAN_OK 60
#define AU_MSG_KV_PURGE 61
#define AU_MSG_KV_PURGE_OK 62

#define AU_KV_TIMEOUT_MS 5000	/* if the client says 0 */
#define AU_KV_TIMEOUT_MAX_MS 60000
#define AU_KV_LIST_MAX 1000
#define AU_KV_SCAN_BYTES (512u << 10)	/* records in one SCAN_OK: until there is so much */

/* What a key is asked with: in GET, PUT and LIST. */
#define AU_KV_DELETE 1u			/* PUT: a deletion, without value */
#define AU_KV_SLOPPY 2u			/* nodes that stand in for dead ones count, too */
#define AU_KV_FORWARDED 4u		/* from a node: answer or refuse, do not pass on */
#define AU_KV_INTERNAL 8u		/* may write below "aurora/"; only nodes' */

typedef struct AuKvText
{
	uint16_t	len;
	const uint8_t *bytes;
} AuKvText;

typedef struct AuMsgKvGet
{
	uint8_t		n;				/* replicas that take part, 0: all */
	uint8_t		r;				/* ... must have answered, 0: more than half */
	uint8_t		flags;
	uint32_t	timeout_ms;
	AuKvText	key;
} AuMsgKvGet;

/* No value: there is none (or it was deleted; then there is a context). */
typedef struct AuMsgKvGetOk
{
	uint8_t		replicas;		/* that answered */
	AuKvText	context;
	uint8_t		n;
	struct
	{
		uint32_t	len;
		const uint8_t *bytes;
	}			value[AU_KV_MERGED_MAX];
} AuMsgKvGetOk;

typedef struct AuMsgKvPut
{
	uint8_t		n;
	uint8_t		w;				/* replicas that must have it on disk */
	uint8_t		flags;
	uint32_t	timeout_ms;
	AuKvText	key;
	AuKvText	context;
	uint32_t	len;
	const uint8_t *value;
} AuMsgKvPut;

typedef struct AuMsgKvPutOk
{
	uint8_t		replicas;
	uint8_t		siblings;		/* that the key has now */
	AuKvText	context;		/* of what is there now, for the next PUT */
} AuMsgKvPutOk;

typedef struct AuMsgKvList
{
	uint8_t		flags;
	uint16_t	limit;
	uint32_t	timeout_ms;
	AuSliceSet	slices;			/* between nodes; clients: ignored */
	AuKvText	prefix;
	AuKvText	after;
} AuMsgKvList;

/* Keys in order; entries are packed: u16 length, key, u8 siblings, u32 bytes. */
typedef struct AuMsgKvListOk
{
	uint8_t		more;
	uint16_t	n;
	uint32_t	len;
	const uint8_t *entries;
} AuMsgKvListOk;

/* Take the next entry; false: the end, or malformed. */
bool		au_kv_list_next(const uint8_t **p, size_t *left, AuKvText *key, uint8_t *siblings,
							uint32_t *bytes);

/*
 * Between nodes: one form of question (READ, STORE, SCAN, PURGE) and one of
 * answer for each.
 *
 *   READ   key; empty: only tell the serial
 *   STORE  key, bytes: a record; serial: the receiver's, known before the
 *          record was read (au_kv.h); else AU_FENCED
 *   SCAN   slice, key: go on after it; bytes: an AuSliceSet
 *   PURGE  key, bytes: the tombstone's record; slice: the phase, 1 to 3 (au_kv.h)
 */
typedef struct AuMsgKvAsk
{
	uint32_t	from;			/* number of the node that asks */
	uint64_t	epoch;			/* of its view */
	uint64_t	serial;
	uint16_t	slice;
	AuKvText	key;
	uint32_t	len;
	const uint8_t *bytes;
} AuMsgKvAsk;

#define AU_KV_OWNER 1u			/* the one that answers owns the slice */
#define AU_KV_SYNCED 2u			/* ... and has all of it: its answer counts */
#define AU_KV_MORE 4u			/* SCAN: go on from slice, key */

typedef struct AuMsgKvTold
{
	uint16_t	status;			/* AuStatus */
	uint8_t		flags;
	uint64_t	epoch;
	uint64_t	serial;
	uint16_t	slice;
	AuKvText	key;
	uint32_t	len;
	const uint8_t *bytes;		/* READ: the record; SCAN: u16 length, u32 length, key, record, .. */
} AuMsgKvTold;

/* Frames of these lengths hold any message of a node, of a client. */
#define AU_KV_FRAME_MAX (AU_WIRE_HEADER + 128 + AU_KV_KEY_MAX + AU_KV_RECORD_MAX + AU_KV_SCAN_BYTES)
#define AU_KV_CLIENT_FRAME_MAX (AU_WIRE_HEADER + 64 + AU_KV_KEY_MAX + AU_KV_CONTEXT_MAX + AU_KV_VALUE_MAX)

bool		au_enc_kv_get(AuWriter *w, uint64_t id, const AuMsgKvGet *m);
bool		au_enc_kv_get_ok(AuWriter *w, uint64_t id, const AuMsgKvGetOk *m);
bool		au_enc_kv_put(AuWriter *w, uint64_t id, const AuMsgKvPut *m);
bool		au_enc_kv_put_ok(AuWriter *w, uint64_t id, const AuMsgKvPutOk *m);
bool		au_enc_kv_list(AuWriter *w, uint64_t id, const AuMsgKvList *m);
bool		au_enc_kv_list_ok(AuWriter *w, uint64_t id, const AuMsgKvListOk *m);
bool		au_enc_kv_ask(AuWriter *w, uint16_t type, uint64_t id, const AuMsgKvAsk *m);
bool		au_enc_kv_told(AuWriter *w, uint16_t type, uint64_t id, const AuMsgKvTold *m);

bool		au_dec_kv_get(const AuFrame *f, AuMsgKvGet *m);
bool		au_dec_kv_get_ok(const AuFrame *f, AuMsgKvGetOk *m);
bool		au_dec_kv_put(const AuFrame *f, AuMsgKvPut *m);
bool		au_dec_kv_put_ok(const AuFrame *f, AuMsgKvPutOk *m);
bool		au_dec_kv_list(const AuFrame *f, AuMsgKvList *m);
bool		au_dec_kv_list_ok(const AuFrame *f, AuMsgKvListOk *m);
bool		au_dec_kv_ask(const AuFrame *f, AuMsgKvAsk *m);
bool		au_dec_kv_told(const AuFrame *f, AuMsgKvTold *m);

#endif							/* AU_WIRE_KV_H */
