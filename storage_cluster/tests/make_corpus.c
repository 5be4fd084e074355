/* SPDX-License-Identifier: Apache-2.0 */
/*
 * make_corpus.c: writes seeds for the fuzzers.
 *
 *	make_corpus DIRECTORY
 *
 * Seeds of fuzzer X go to DIRECTORY/X.corpus, which is where `make fuzz`
 * looks for them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "common/au_page.h"
#include "common/au_wire_cluster.h"
#include "common/au_wire_export.h"
#include "common/au_wire_gossip.h"
#include "tests/viewmake.h"
#include "tests/walmake.h"

/* as in fuzz_wal.c */
#define WAL_BASE ((AuLsn) 0x100000000 - 3 * WALMAKE_PAGE)

static const char *top;

static void
seed(const char *fuzzer, const char *name, const void *bytes, size_t len)
{
	char		path[1024];
	FILE	   *f;

	snprintf(path, sizeof(path), "%s/%s.corpus", top, fuzzer);
	(void) mkdir(path, 0777);
	snprintf(path, sizeof(path), "%s/%s.corpus/%s", top, fuzzer, name);
	f = fopen(path, "wb");
	if (f == NULL || fwrite(bytes, 1, len, f) != len || fclose(f) != 0)
	{
		perror(path);
		exit(1);
	}
}

/* ---- fuzz_wal --------------------------------------------------------- */

/* As bytes of a log, pages and all. */
static void
seed_log(const char *name, const WalMake *w)
{
	uint8_t    *b = malloc(w->len + 2);

	if (b == NULL)
		abort();
	b[0] = 1;
	b[1] = 60;
	memcpy(b + 2, w->buf, w->len);
	seed("fuzz_wal", name, b, w->len + 2);
	free(b);
}

/* As rmid, info, length, body. */
static void
seed_record(const char *name, uint8_t rmid, uint8_t info, const void *body, uint16_t len)
{
	uint8_t		b[1024] = {2, 60, rmid, info};

	au_put_u16(b + 4, len);
	memcpy(b + 6, body, len);
	seed("fuzz_wal", name, b, 6u + len);
}

static void
wal_seeds(void)
{
	uint8_t		ops[9000] = {AU_OP_PRUNABLE, 9};
	uint8_t		body[256] = {0};
	uint8_t		note[16] = {0};
	AuLsn		aborted;
	WalMake		w;

	walmake_start(&w, WAL_BASE);
	walmake_ours(&w, 16384, 7, ops, 5);
	walmake_ours(&w, 16384, 8, ops, 9000);
	walmake_main(&w, 10, 0, 5, ops, 40);
	seed_log("records", &w);
	free(w.buf);

	walmake_start(&w, WAL_BASE);
	walmake_ours(&w, 16384, 7, ops, 5);
	aborted = walmake_record_part(&w, 21, 0, 9, ops, 9000, 0);
	walmake_page(&w, 8, 0);
	au_put_u64(note, aborted);
	walmake_main(&w, 0, 0xD0, 0, note, 16);
	seed_log("overwritten", &w);
	free(w.buf);

	/* ours: image, data, same relation, main data with all flags */
	memcpy(body, "\0\x30\x02\0\x04\0\x10\0\x07\x10\0", 11);
	memcpy(body + 11, "\x7f\6\0\0\5\0\0\0\0\x40\0\0\7\0\0\0", 16);
	memcpy(body + 27, "\1\xA0\1\0\x08\0\0\0", 8);
	memcpy(body + 35, "\377\027imgxdd1", 9);
	body[44] = AU_REC_VERSION;
	body[45] = AU_REC_FLAGS_KNOWN;
	seed_record("ours", AU_RMGR_ID, AU_XLOG_INSERT, body, 44 + 23);

	/* commit with every section */
	memset(body, 0, sizeof(body));
	body[0] = 255;
	body[1] = 8 + 4 + 8 + 8 + 16 + 16 + 20 + 4;
	au_put_u32(body + 10, 0x1F | 0x100);
	body[22] = 1;				/* subtransactions */
	body[30] = 1;				/* relations */
	body[46] = 1;				/* statistics */
	body[62] = 1;				/* invalidations */
	seed_record("commit", 1, 0xB0, body, (uint16_t) (2 + body[1]));

	memset(body, 0, sizeof(body));
	body[0] = 255;
	body[1] = 12;
	body[6] = 1;
	seed_record("drop_database", 4, 0x20, body, 14);
	seed_record("switch", 0, 0x40, body, 0);
}

/* ---- fuzz_wire -------------------------------------------------------- */

static void
seed_frame(const char *name, const AuWriter *w)
{
	uint8_t		b[65536];

	/* as it is, and as type and payload */
	b[0] = 1;
	memcpy(b + 1, w->data, w->len);
	seed("fuzz_wire", name, b, w->len + 1);
	b[0] = 0;
	b[1] = w->data[6];
	memcpy(b + 2, w->data + AU_WIRE_HEADER, w->len - AU_WIRE_HEADER);
	{
		char		other[64];

		snprintf(other, sizeof(other), "%s_payload", name);
		seed("fuzz_wire", other, b, w->len - AU_WIRE_HEADER + 2);
	}
}

#define SEED_MESSAGE(name, T, ...) \
	do { \
		T		m_ = {__VA_ARGS__}; \
		au_writer_start(&w, memory, sizeof(memory)); \
		if (!au_enc_##name(&w, 1, &m_)) \
			abort(); \
		seed_frame(#name, &w); \
	} while (0)

static void
wire_seeds(void)
{
	static uint8_t memory[60000];
	static uint8_t page[AU_PAGE_SIZE];
	AuWriter	w;

	SEED_MESSAGE(hello, AuMsgHello,.system_identifier = 1,.role = AU_ROLE_WRITER,.name = "shipper");
	SEED_MESSAGE(hello_ok, AuMsgHelloOk,.node_id = 1,.durable_lsn = 2);
	SEED_MESSAGE(term, AuMsgTerm,.writer_id = 1,.timeline = 1,.wal_segment_size = 1 << 24);
	SEED_MESSAGE(term_ok, AuMsgTermOk,.term = 1);
	SEED_MESSAGE(append, AuMsgAppend,.term = 1,.lsn = 8,.length = 9,.bytes = (const uint8_t *) "log bytes");
	SEED_MESSAGE(append_ok, AuMsgAppendOk,.term = 1);
	SEED_MESSAGE(get_pages, AuMsgGetPages,.nblocks = 2,.blocks = {7, 8});
	SEED_MESSAGE(pages, AuMsgPages,.as_of = 5,.nblocks = 2,.status = {AU_OK, AU_NOT_FOUND},.page = {page});
	SEED_MESSAGE(get_size, AuMsgGetSize,.not_before = 1);
	SEED_MESSAGE(size, AuMsgSize,.nblocks = 1);
	SEED_MESSAGE(hold, AuMsgHold,.lsn = 4096);
	SEED_MESSAGE(hold_ok, AuMsgHoldOk,.lsn = 4096,.horizon = 1024);
	SEED_MESSAGE(list_rels, AuMsgListRels,.db = 5);
	SEED_MESSAGE(rels, AuMsgRels,.count = 2,.entries = page);
	SEED_MESSAGE(gossip, AuMsgGossip,.kind = AU_GOSSIP_PROXY,.self = {1, 2, AU_GOSSIP_ALIVE, "a:1"},
				 .target = {2, 0, AU_GOSSIP_ALIVE, "b:1"},.nrecords = 1,
				 .records = {{3, 4, AU_GOSSIP_DEAD, "c:1"}},.nmarks = 1,
				 .marks = {{.node_id = 1,.heartbeat = 9,.nvolumes = 1,.volumes = {{5, 6, 7, 8}}}});
	SEED_MESSAGE(export, AuMsgExport,.what = AU_EXPORT_PAGES,.upto = 9,.budget = 1000);
	SEED_MESSAGE(export_ok, AuMsgExportOk,.start_lsn = 1,.log_lsn = 2,
				 .position = {.applied = 9,.restart = 8,.times_len = 20});
	SEED_MESSAGE(gossip_ok, AuMsgGossip,.kind = AU_GOSSIP_PING,.self = {1, 2, AU_GOSSIP_ALIVE, "a:1"});
	SEED_MESSAGE(get_view, AuMsgGetView,.epoch = 3);
	SEED_MESSAGE(view, AuMsgView,.epoch = 3,.length = 9,.bytes = (const uint8_t *) "view here");
	SEED_MESSAGE(cluster, AuMsgCluster,.hops = 1,.length = 9,.bytes = (const uint8_t *) "a command");
	SEED_MESSAGE(cluster_ok, AuMsgClusterOk,.epoch = 4,.number = 2);
	au_writer_start(&w, memory, sizeof(memory));
	if (!au_enc_error(&w, 1, AU_REFUSED, "refused", "ask again"))
		abort();
	seed_frame("error", &w);
}

/* ---- fuzz_page -------------------------------------------------------- */

static void
page_seeds(void)
{
	uint8_t		memory[AU_OPS_MAX + 3] = {4 | 1, 20, 0};
	static const uint8_t bytes[64];
	static const uint16_t numbers[] = {1, 2, 3, 4, 5, 6};
	AuOps		ops;

	au_ops_start(&ops, memory + 3, AU_OPS_MAX);
	au_ops_add(&ops, 21, 64, bytes);
	au_ops_add_delta(&ops, 22, 3, 0, 8, 8, 4, bytes, 4, bytes);
	au_ops_tuphdr(&ops, 1, AU_TH_ALL, 7, 8, 9, 10, 11, 12);
	au_ops_prunable(&ops, 700);
	au_ops_flags(&ops, 4, 2);
	au_ops_patch(&ops, 8100, 16, bytes);
	au_ops_prune(&ops, numbers, 1, numbers + 2, 2, numbers + 4, 2);
	au_ops_unused(&ops, numbers + 2, 2);
	seed("fuzz_page", "all", memory, 3 + ops.len);

	memory[0] = 4;
	memory[1] = 0;
	au_ops_start(&ops, memory + 3, AU_OPS_MAX);
	au_ops_init(&ops, 0);
	au_ops_add(&ops, 1, 30, bytes);
	au_ops_add(&ops, 2, 33, bytes);
	seed("fuzz_page", "new", memory, 3 + ops.len);
}

/* ---- fuzz_landing ----------------------------------------------------- */

/* Two segments that follow each other and a mark, to be mended. */
static void
landing_seeds(void)
{
	static uint8_t b[1024];
	size_t		at = 1;

	for (uint8_t which = 0; which < 2; which++)
	{
		int			entries = which == 0 ? 2 : 1;
		size_t		len = 32 + (size_t) entries * 96 + (which == 1 ? 64 : 0);

		b[at] = which;
		au_put_u16(b + at + 1, (uint16_t) len);
		at += 3;
		b[at + 4] = 1;
		for (int i = 0; i < entries; i++)
		{
			uint8_t    *e = b + at + 32 + i * 96;

			e[0] = 1;
			e[4] = 49;			/* 50 bytes: 0x1064 is the end of two */
			e[17] = 1;
		}
		at += len;
	}
	b[at] = 3;
	au_put_u16(b + at + 1, 40);
	b[at + 3 + 8] = 1;
	b[at + 3 + 16] = 60;
	at += 43;
	for (uint8_t flags = 2; flags < 4; flags++)
	{
		b[0] = flags;
		seed("fuzz_landing", flags & 1 ? "pmem" : "files", b, at);
	}
	b[at - 40 + 24] = 20;		/* a cut under way */
	seed("fuzz_landing", "cut", b, at);
}

/* ---- fuzz_view -------------------------------------------------------- */

/* Whole, and as a body that gets a header again. */
static void
seed_body(const char *name, uint8_t kind, uint8_t *bytes, size_t len)
{
	char		other[64];

	/* bytes has one free byte before */
	bytes[-1] = 2;
	seed("fuzz_view", name, bytes - 1, len + 1);
	snprintf(other, sizeof(other), "%s_body", name);
	bytes[11] = kind;
	seed("fuzz_view", other, bytes + 11, len - 12 - 4 + 1);
}

static void
view_seeds(void)
{
	static AuView v;
	static uint8_t b[1 + AU_VIEW_ENCODED_MAX];
	/* init, joins, ready, drain, a volume, its group changes */
	static const uint8_t commands[] = {
		3, 3, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 2, 2, 1, 0, 0, 0, 0, 0,
		8, 2, 0, 0, 255, 0, 0, 0, 2, 3, 2, 0, 0, 0, 0, 0, 8, 3, 0, 0, 255, 0, 0, 0,
		9, 0, 0, 0, 2, 2, 0, 7, 11, 0, 0, 0, 0, 0, 1, 7, 3, 1, 0, 0, 0, 0, 0, 0
	};
	char		err[128];
	bool		changed;

	for (uint32_t i = 0; i < 4; i++)
	{
		AuViewCommand c = i == 0 ? view_init(2) : view_join(i, i % 2 ? "a" : "b");

		if (au_view_apply(&v, &c, &changed, err, sizeof(err)) != AU_OK)
			abort();
		if (i == 3)
			seed_body("command", 1, b + 1, au_view_command_encode(&c, b + 1, sizeof(b) - 1));
	}
	seed_body("view", 0, b + 1, au_view_encode(&v, b + 1, sizeof(b) - 1));
	seed("fuzz_view", "commands", commands, sizeof(commands));
}

/* ---- fuzz_raft -------------------------------------------------------- */

static size_t
put_words(uint8_t *b, size_t at, const uint64_t *words, size_t n)
{
	for (size_t i = 0; i < n; i++)
		au_put_u64(b + at + 8 * i, words[i]);
	return at + 8 * n;
}

/* A configuration of one server: 24 bytes. */
static size_t
put_server(uint8_t *b, size_t at)
{
	memset(b + at, 0, 24);
	b[at] = 1;
	b[at + 1] = 1;
	b[at + 9] = 1;
	memcpy(b + at + 17, "a:1", 3);
	return at + 24;
}

static void
raft_seeds(void)
{
	static const uint64_t hello[] = {1, 2, 56};
	static const uint64_t vote[] = {3, 40, 6, 2, 10, 5, 1};
	/* term, index, its term, commit, entries; a command of 8 bytes, and a change */
	static const uint64_t append[] = {
		1, 80, 6, 10, 5, 9, 2, 5, UINT64_C(8) << 32 | 1, 5, UINT64_C(24) << 32 | 3, 0, 77
	};
	static const uint64_t snapshot[] = {5, 80, 6, 100, 5, 1, 24};
	static const uint64_t data[] = {16, 0, 1, 2};
	uint8_t		b[256] = {0};
	size_t		at = put_words(b, 0, hello, 3);

	memcpy(b + at, "127.0.0.1:7101/00000000000000C1/0000000000000009", 49);
	seed("fuzz_raft", "hello", b, at + 56);
	seed("fuzz_raft", "vote", b, put_words(b, 0, vote, 7));
	seed("fuzz_raft", "append", b, put_server(b, put_words(b, 0, append, 13)));
	at = put_server(b, put_words(b, 0, snapshot, 7));
	seed("fuzz_raft", "snapshot", b, put_words(b, at, data, 4));
}

int
main(int argc, char **argv)
{
	if (argc != 2)
	{
		fputs("usage: make_corpus DIRECTORY\n", stderr);
		return 2;
	}
	top = argv[1];
	(void) mkdir(top, 0777);
	wal_seeds();
	wire_seeds();
	view_seeds();
	page_seeds();
	landing_seeds();
	raft_seeds();
	return 0;
}
