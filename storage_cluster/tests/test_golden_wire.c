/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_golden_wire.c: one frame of each message is what it was when
 * tests/golden/wire.txt was written: encoding gives its bytes, and what
 * decoding them finds encodes to them again.
 *
 * Values differ from field to field, and none is zero that need not be: fields
 * that change places or sizes change the bytes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/au_wire_cluster.h"
#include "common/au_wire_digest.h"
#include "common/au_wire_export.h"
#include "common/au_wire_gossip.h"
#include "common/au_wire_kv.h"
#include "tests/golden.h"

#define ID UINT64_C(0x0102030405060708)
#define LSN(n) (UINT64_C(0x11000000) + (n))
#define TYPES_MAX 128

static uint8_t first[65536];
static uint8_t again[65536];
static bool covered[TYPES_MAX];

/* The frame in `first` is the kept one; *f: that one, taken apart. */
static void
same_frame(const char *name, const AuWriter *w, uint16_t type, AuFrame *f)
{
	const uint8_t *kept = golden_check(name, w->data, w->len);
	size_t		used;

	assert_int_equal(au_frame_parse(kept, w->len, f, &used), AU_OK);
	assert_int_equal(used, w->len);
	assert_int_equal(f->type, type);
	assert_true(f->id == ID);
	assert_false(covered[type]);
	covered[type] = true;
}

/* ENC is called with these arguments and the message. */
#define MESSAGE_BY(type, T, dec, enc, ...) \
	do { \
		T		   *in_ = malloc(sizeof(T)); \
		T		   *out_ = malloc(sizeof(T)); \
		AuWriter	w_; \
		AuFrame		f_; \
		assert_true(in_ != NULL && out_ != NULL); \
		*in_ = (T) {__VA_ARGS__}; \
		memset(out_, 0xEE, sizeof(T)); \
		au_writer_start(&w_, first, sizeof(first)); \
		assert_true(enc(&w_, in_)); \
		same_frame(#type, &w_, AU_MSG_##type, &f_); \
		assert_true(dec(&f_, out_)); \
		au_writer_start(&w_, again, sizeof(again)); \
		assert_true(enc(&w_, out_)); \
		assert_memory_equal(again, first, w_.len); \
		free(in_); \
		free(out_); \
	} while (0)

#define ENCODER(name, T) \
	static bool \
	enc_##name(AuWriter *w, const T *m) \
	{ \
		return au_enc_##name(w, ID, m); \
	}

#define MESSAGE(type, name, T, ...) \
	MESSAGE_BY(type, T, au_dec_##name, enc_##name, __VA_ARGS__)

ENCODER(hello, AuMsgHello)
ENCODER(hello_ok, AuMsgHelloOk)
ENCODER(term, AuMsgTerm)
ENCODER(term_ok, AuMsgTermOk)
ENCODER(vote, AuMsgVote)
ENCODER(vote_ok, AuMsgVoteOk)
ENCODER(elect, AuMsgElect)
ENCODER(elect_ok, AuMsgElectOk)
ENCODER(get_log, AuMsgGetLog)
ENCODER(log, AuMsgLog)
ENCODER(append, AuMsgAppend)
ENCODER(append_ok, AuMsgAppendOk)
ENCODER(get_pages, AuMsgGetPages)
ENCODER(pages, AuMsgPages)
ENCODER(share, AuMsgShare)
ENCODER(share_ok, AuMsgShareOk)
ENCODER(placed, AuMsgPlaced)
ENCODER(get_size, AuMsgGetSize)
ENCODER(size, AuMsgSize)
ENCODER(list_rels, AuMsgListRels)
ENCODER(rels, AuMsgRels)
ENCODER(hold, AuMsgHold)
ENCODER(hold_ok, AuMsgHoldOk)
ENCODER(get_view, AuMsgGetView)
ENCODER(view, AuMsgView)
ENCODER(cluster, AuMsgCluster)
ENCODER(cluster_ok, AuMsgClusterOk)
ENCODER(digest, AuMsgDigest)
ENCODER(digest_ok, AuMsgDigestOk)
ENCODER(export, AuMsgExport)
ENCODER(export_ok, AuMsgExportOk)
ENCODER(gossip, AuMsgGossip)
ENCODER(gossip_ok, AuMsgGossip)
ENCODER(kv_get, AuMsgKvGet)
ENCODER(kv_get_ok, AuMsgKvGetOk)
ENCODER(kv_put, AuMsgKvPut)
ENCODER(kv_put_ok, AuMsgKvPutOk)
ENCODER(kv_list, AuMsgKvList)
ENCODER(kv_list_ok, AuMsgKvListOk)

/* READ, STORE, SCAN, PURGE have one form, and their answers another. */
#define ENCODER_OF(name, T, type) \
	static bool \
	enc_##name##_##type(AuWriter *w, const T *m) \
	{ \
		return au_enc_##name(w, AU_MSG_##type, ID, m); \
	}

ENCODER_OF(kv_ask, AuMsgKvAsk, KV_READ)
ENCODER_OF(kv_ask, AuMsgKvAsk, KV_STORE)
ENCODER_OF(kv_ask, AuMsgKvAsk, KV_SCAN)
ENCODER_OF(kv_ask, AuMsgKvAsk, KV_PURGE)
ENCODER_OF(kv_told, AuMsgKvTold, KV_READ_OK)
ENCODER_OF(kv_told, AuMsgKvTold, KV_STORE_OK)
ENCODER_OF(kv_told, AuMsgKvTold, KV_SCAN_OK)
ENCODER_OF(kv_told, AuMsgKvTold, KV_PURGE_OK)

static bool
enc_error(AuWriter *w, const AuMsgError *m)
{
	return au_enc_error(w, ID, m->status, m->message, m->hint);
}

static const uint8_t some_bytes[] = {0xB0, 0xB1, 0xB2, 0xB3, 0xB4};

#define REL {1663, 5, 16384, 0}
#define GROUP {.epoch = 0x61,.n = 2,.write_quorum = 2,.members = { \
	{0x6162636465666768, "10.0.0.1:7015"}, {0x7172737475767778, "host:7016"}}}
#define HISTORY {.n = 2,.terms = {{0x81, LSN(1), 1}, {0x83, LSN(0x99), 2}}}
#define TEXT(s) {sizeof(s) - 1, (const uint8_t *) (s)}
#define SLICES {{1, 2, 4, UINT64_C(1) << 63}}

/* ---- a server and a node ---------------------------------------------- */

static void
test_server(void **state)
{
	uint8_t		page[AU_PAGE_SIZE];
	uint8_t		rel[AU_WIRE_REL_ENTRY] = {0x7F, 0x06, 0, 0, 5, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 77, 0, 0, 0};

	(void) state;
	memset(page, 0x5A, sizeof(page));
	MESSAGE(ERROR, error, AuMsgError,.status = AU_REFUSED,.message = "what", .hint = "the way out");
	MESSAGE(HELLO, hello, AuMsgHello,.system_identifier = 0xF1F2F3F4F5F6F7F8,.role = AU_ROLE_WRITER,
			.name = "shipper");
	MESSAGE(HELLO_OK, hello_ok, AuMsgHelloOk,.node_id = 0xA1A2A3A4A5A6A7A8,.ring_epoch = 0x21,
			.volume_known = 1,.start_lsn = LSN(1),.durable_lsn = LSN(3),.applied_lsn = LSN(2),
			.term = 0x22,.group = GROUP);
	MESSAGE(TERM, term, AuMsgTerm,.writer_id = 0x31,.timeline = 3,.switch_lsn = LSN(7),
			.start_lsn = LSN(1),.local_end = LSN(9),.wal_segment_size = 16 << 20,.may_create = 1);
	MESSAGE(TERM_OK, term_ok, AuMsgTermOk,.term = 0x22,.received_lsn = LSN(4),.durable_lsn = LSN(3),
			.applied_lsn = LSN(2));
	MESSAGE(APPEND, append, AuMsgAppend,.term = 0x22,.timeline = 3,.lsn = LSN(4),.commit_lsn = LSN(2),
			.length = sizeof(some_bytes),.bytes = some_bytes);
	MESSAGE(APPEND_OK, append_ok, AuMsgAppendOk,.term = 0x22,.received_lsn = LSN(4),
			.durable_lsn = LSN(3),.applied_lsn = LSN(2));
	MESSAGE(GET_PAGES, get_pages, AuMsgGetPages,.rel = REL,.not_before = LSN(1),.read_lsn = LSN(2),
			.place = 0x41,.nblocks = 2,.blocks = {7, 9});
	MESSAGE(PAGES, pages, AuMsgPages,.as_of = LSN(2),.nblocks = 2,.status = {AU_OK, AU_NOT_FOUND},
			.page = {page, NULL});
	MESSAGE(GET_SIZE, get_size, AuMsgGetSize,.rel = REL,.not_before = LSN(1),.read_lsn = LSN(2));
	MESSAGE(SIZE, size, AuMsgSize,.as_of = LSN(2),.nblocks = 77);
	MESSAGE(LIST_RELS, list_rels, AuMsgListRels,.db = 5,.not_before = LSN(1));
	MESSAGE(RELS, rels, AuMsgRels,.as_of = LSN(2),.count = 1,.entries = rel);
	MESSAGE(HOLD_LSN, hold, AuMsgHold,.lsn = LSN(2));
	MESSAGE(HOLD_OK, hold_ok, AuMsgHoldOk,.lsn = LSN(2),.horizon = LSN(1));
	MESSAGE(SHARE, share, AuMsgShare,.fd = 17,.pages = 256);
	MESSAGE(SHARE_OK, share_ok, AuMsgShareOk,.pages = 256);
	MESSAGE(PAGES_PLACED, placed, AuMsgPlaced,.as_of = LSN(2),.nblocks = 2,
			.status = {AU_OK, AU_NOT_FOUND});
}

/* Those that are nothing but their type, or bytes as they come. */
static void
test_plain(void **state)
{
	static const struct
	{
		const char *name;
		uint16_t	type;
		const char *text;
	}			plain[] = {
		{"STATUS", AU_MSG_STATUS, NULL}, {"STATUS_OK", AU_MSG_STATUS_OK, "{\"a\": 1}"},
		{"PING", AU_MSG_PING, NULL}, {"PONG", AU_MSG_PONG, NULL},
		{"EXPORT_DATA", AU_MSG_EXPORT_DATA, "a chunk"},
	};

	(void) state;
	for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++)
	{
		const char *text = plain[i].text;
		AuWriter	w;
		AuFrame		f;

		au_writer_start(&w, first, sizeof(first));
		assert_true(text == NULL ? au_enc_empty(&w, plain[i].type, ID)
					: au_enc_text(&w, plain[i].type, ID, text, strlen(text)));
		same_frame(plain[i].name, &w, plain[i].type, &f);
		assert_int_equal(f.length, text != NULL ? strlen(text) : 0);
		assert_memory_equal(f.payload, text, f.length);
	}
}

/* ---- the log quorum --------------------------------------------------- */

static void
test_quorum(void **state)
{
	(void) state;
	MESSAGE(VOTE, vote, AuMsgVote,.term = 0x22,.writer_id = 0x31,.timeline = 3,
			.wal_segment_size = 16 << 20,.start_lsn = LSN(1),.may_create = 1,.group = GROUP);
	MESSAGE(VOTE_OK, vote_ok, AuMsgVoteOk,.granted = 1,.term = 0x22,.timeline = 3,.start_lsn = LSN(1),
			.durable_lsn = LSN(0x103),.commit_lsn = LSN(0x102),.history = HISTORY);
	MESSAGE(ELECT, elect, AuMsgElect,.term = 0x83,.writer_id = 0x31,.timeline = 3,
			.commit_lsn = LSN(2),.history = HISTORY,.group = GROUP);
	MESSAGE(ELECT_OK, elect_ok, AuMsgElectOk,.term = 0x22,.received_lsn = LSN(4),.applied_lsn = LSN(2));
	MESSAGE(GET_LOG, get_log, AuMsgGetLog,.term = 0x22,.lsn = LSN(4),.length = 8192,.wait_ms = 250);
	MESSAGE(LOG, log, AuMsgLog,.lsn = LSN(4),.commit_lsn = LSN(2),.length = sizeof(some_bytes),
			.bytes = some_bytes);
}

/* ---- between nodes ---------------------------------------------------- */

static void
test_nodes(void **state)
{
	(void) state;
	MESSAGE(GET_VIEW, get_view, AuMsgGetView,.epoch = 0x51);
	MESSAGE(VIEW, view, AuMsgView,.epoch = 0x52,.length = sizeof(some_bytes),.bytes = some_bytes);
	MESSAGE(CLUSTER, cluster, AuMsgCluster,.hops = 2,.length = sizeof(some_bytes),.bytes = some_bytes);
	MESSAGE(CLUSTER_OK, cluster_ok, AuMsgClusterOk,.epoch = 0x52,.number = 3);
	MESSAGE(EXPORT, export, AuMsgExport,.what = AU_EXPORT_PAGES,.upto = LSN(3),.horizon = LSN(1),
			.place = {{1, 2, 3, 4}},.slices = SLICES,.budget = 65536);
	MESSAGE(EXPORT_OK, export_ok, AuMsgExportOk,.start_lsn = LSN(1),.log_lsn = LSN(2),
			.segment_size = 16 << 20,.timeline = 3,.group = GROUP,.position = {.applied = LSN(9),
				.restart = LSN(8),.horizon = LSN(5),.gc_done = LSN(4),.times_len = 3,.times = {7, 8, 9}});
	MESSAGE(DIGEST, digest, AuMsgDigest,.lsn = LSN(3),.slice = 200,.what = AU_DIGEST_PAGES,
			.index = 6,.from = {REL, 512});
	MESSAGE(DIGEST_OK, digest_ok, AuMsgDigestOk,.lsn = LSN(3),.what = AU_DIGEST_PAGES,
			.first = {REL, 512},.n = 2,.status = {AU_OK, AU_CORRUPT},.hash = {0xC1C2, 0xD1D2});
	MESSAGE(GOSSIP, gossip, AuMsgGossip,.kind = AU_GOSSIP_PROXY,.cluster_id = 0xE1E2,
			.self = {0x91, 0x92, AU_GOSSIP_ALIVE, "10.0.0.1:7015"},
			.target = {0x93, 0x94, AU_GOSSIP_SUSPECT, "10.0.0.2:7015"},
			.nrecords = 1,.records = {{0x95, 0x96, AU_GOSSIP_DEAD, "10.0.0.3:7015"}},
			.nmarks = 1,.marks = {{.node_id = 0x91,.heartbeat = 0x97,.view_epoch = 0x52,.reads = 5,
					.disk_used = 0x98,.disk_limit = 0x99,.nvolumes = 1,
					.volumes = {{0xF1F2, LSN(4), LSN(3), LSN(2)}}}});
	MESSAGE(GOSSIP_OK, gossip_ok, AuMsgGossip,.kind = AU_GOSSIP_PROXY,.reached = 1,.cluster_id = 0xE1E2,
			.self = {0x91, 0x92, AU_GOSSIP_ALIVE, "10.0.0.1:7015"},
			.target = {0x93, 0x94, AU_GOSSIP_SUSPECT, "10.0.0.2:7015"});
}

/* The other answer to DIGEST, a part of the tree. */
static void
test_digest_tree(void **state)
{
	AuMsgDigestOk m = {.lsn = LSN(3),.what = AU_DIGEST_TREE,.root = 0xAA,.children = {1, 2, 3, [15] = 16}};
	AuMsgDigestOk out;
	AuFrame		f;
	AuWriter	w;

	(void) state;
	covered[AU_MSG_DIGEST_OK] = false;
	au_writer_start(&w, first, sizeof(first));
	assert_true(au_enc_digest_ok(&w, ID, &m));
	same_frame("DIGEST_OK of a tree", &w, AU_MSG_DIGEST_OK, &f);
	assert_true(au_dec_digest_ok(&f, &out));
	au_writer_start(&w, again, sizeof(again));
	assert_true(au_enc_digest_ok(&w, ID, &out));
	assert_memory_equal(again, first, w.len);
}

/* ---- key-value -------------------------------------------------------- */

#define ASK(type) \
	MESSAGE_BY(type, AuMsgKvAsk, au_dec_kv_ask, enc_kv_ask_##type,.from = 3,.epoch = 0x52,.serial = 0x53, \
			   .slice = 2,.key = TEXT("k"),.len = sizeof(some_bytes),.bytes = some_bytes)
#define TOLD(type) \
	MESSAGE_BY(type, AuMsgKvTold, au_dec_kv_told, enc_kv_told_##type,.status = AU_NOT_FOUND, \
			   .flags = AU_KV_OWNER | AU_KV_MORE,.epoch = 0x52,.serial = 0x53,.slice = 2,.key = TEXT("k"), \
			   .len = sizeof(some_bytes),.bytes = some_bytes)

static void
test_kv(void **state)
{
	static const uint8_t entry[] = {1, 0, 'k', 1, 3, 0, 0, 0};

	(void) state;
	MESSAGE(KV_GET, kv_get, AuMsgKvGet,.n = 3,.r = 2,.flags = AU_KV_SLOPPY,.timeout_ms = 1500,
			.key = TEXT("key"));
	MESSAGE(KV_GET_OK, kv_get_ok, AuMsgKvGetOk,.replicas = 2,.context = TEXT("context"),.n = 2,
			.value = {{3, (const uint8_t *) "one"}, {5, (const uint8_t *) "other"}});
	MESSAGE(KV_PUT, kv_put, AuMsgKvPut,.n = 3,.w = 2,.flags = AU_KV_SLOPPY,.timeout_ms = 1500,
			.key = TEXT("key"),.context = TEXT("context"),.len = 5,.value = (const uint8_t *) "value");
	MESSAGE(KV_PUT_OK, kv_put_ok, AuMsgKvPutOk,.replicas = 2,.siblings = 1,.context = TEXT("context"));
	MESSAGE(KV_LIST, kv_list, AuMsgKvList,.flags = AU_KV_FORWARDED,.limit = 100,.timeout_ms = 1500,
			.slices = SLICES,.prefix = TEXT("pre"),.after = TEXT("prefix1"));
	MESSAGE(KV_LIST_OK, kv_list_ok, AuMsgKvListOk,.more = 1,.n = 1,.len = sizeof(entry),.entries = entry);
	ASK(KV_READ);
	ASK(KV_STORE);
	ASK(KV_SCAN);
	ASK(KV_PURGE);
	TOLD(KV_READ_OK);
	TOLD(KV_STORE_OK);
	TOLD(KV_SCAN_OK);
	TOLD(KV_PURGE_OK);
}

/* Each message that a header numbers was here. */
static void
test_all_covered(void **state)
{
	static const char *const headers[] = {"common/au_wire.h", "common/au_wire_kv.h"};
	int			n = 0;

	(void) state;
	for (int i = 0; i < 2; i++)
	{
		FILE	   *f = fopen(headers[i], "r");
		char		line[256];
		char		name[64];
		unsigned int type;

		assert_non_null(f);
		while (fgets(line, sizeof(line), f) != NULL)
		{
			if (sscanf(line, "#define AU_MSG_%60s %u", name, &type) != 2)
				continue;
			assert_true(type < TYPES_MAX);
			if (!covered[type])
				fail_msg("no frame of AU_MSG_%s is kept", name);
			n++;
		}
		fclose(f);
	}
	assert_true(n >= 53);
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_server),
		cmocka_unit_test(test_plain),
		cmocka_unit_test(test_quorum),
		cmocka_unit_test(test_nodes),
		cmocka_unit_test(test_digest_tree),
		cmocka_unit_test(test_kv),
		cmocka_unit_test(test_all_covered),
		cmocka_unit_test(golden_all_seen),
	};

	if (!golden_begin(argc, argv, "wire.txt"))
		return 1;
	return golden_end(cmocka_run_group_tests(tests, NULL, NULL));
}
