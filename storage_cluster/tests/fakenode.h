/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fakenode.h: one node on the host in memory (fakehost.h), what tests send to
 * it and what it answers, and the log that they make for it.  Include after
 * cmocka.h.
 */
#ifndef AU_TEST_FAKENODE_H
#define AU_TEST_FAKENODE_H

#include "tests/fakehost.h"
#include "tests/walmake.h"

#define FN_SYSID 77
#define FN_BASE ((AuLsn) 0x1000000)

static FakeHost H;				/* fake_host_start, then H.node */

static struct
{
	uint8_t		sent[AU_WIRE_PAYLOAD_MAX + 64];
	uint8_t		kept[AU_WIRE_PAYLOAD_MAX + 64]; /* the answer of fn_take */
	size_t		piece;			/* bytes that arrive at a time */
	WalMake		wal;
	AuLsn		wal_start;		/* first record */
} fn = {.piece = SIZE_MAX};

/* FN_SEND(c, au_enc_..., id, &m) */
#define FN_SEND(c, enc, ...) \
	do { \
		AuWriter w_; \
		au_writer_start(&w_, fn.sent, sizeof(fn.sent)); \
		assert_true(enc(&w_, __VA_ARGS__)); \
		fake_input(&H, (c), w_.data, w_.len, fn.piece); \
	} while (0)

/* An empty log; the first record goes to fn.wal_start. */
static inline void
fn_start_log(AuLsn base)
{
	fn.wal_start = walmake_begin(&fn.wal, base);
}

/* Where they end. */
static inline AuLsn
fn_add_records(int n)
{
	uint8_t		memory[256];
	AuOps		ops;

	for (int i = 0; i < n; i++)
	{
		au_ops_start(&ops, memory, sizeof(memory));
		au_ops_init(&ops, 0);
		walmake_ours(&fn.wal, 16384, (uint32_t) i, ops.data, (uint16_t) ops.len);
	}
	return walmake_pos(&fn.wal);
}

/* All connections have ended. */
static inline void
fn_finish(void)
{
	au_node_free(H.node);
	assert_int_equal(H.allocated, 0);	/* nothing leaks */
	free(H.vol.log);
	free(fn.wal.buf);
	fn.wal.buf = NULL;
}

/* ---- answers ---------------------------------------------------------- */

/* The next one, of the type wanted (0: any); its payload stays valid until the
 * next call. */
static inline AuFrame
fn_take(FakeConn *c, uint16_t type)
{
	AuFrame		f;
	size_t		used;

	if (au_frame_parse(c->out, c->out_len, &f, &used) != AU_OK)
		fail_msg("no answer, expected type %u", type);
	memcpy(fn.kept, c->out, used);
	memmove(c->out, c->out + used, c->out_len - used);
	c->out_len -= used;
	if (!c->closed)
		au_node_conn_sent(H.node, c->conn, used);
	assert_int_equal(au_frame_parse(fn.kept, used, &f, &used), AU_OK);
	if (type != 0 && f.type != type)
	{
		AuMsgError	e;

		if (f.type == AU_MSG_ERROR && au_dec_error(&f, &e))
			fail_msg("got error %s \"%s\", expected type %u", au_status_name(e.status), e.message, type);
		fail_msg("got type %u, expected %u", f.type, type);
	}
	return f;
}

/* ... which answers request `id`. */
static inline AuFrame
fn_answer(FakeConn *c, uint16_t type, uint64_t id)
{
	AuFrame		f = fn_take(c, type);

	assert_int_equal(f.id, id);
	return f;
}

static inline void
fn_check_error(const AuFrame *f, AuStatus status, const char *part)
{
	AuMsgError	e;

	assert_true(au_dec_error(f, &e));
	if (e.status != status || strstr(e.message, part) == NULL)
		fail_msg("got error %s \"%s\", expected %s \"%s\"", au_status_name(e.status), e.message,
				 au_status_name(status), part);
}

static inline void
fn_take_error(FakeConn *c, AuStatus status, const char *part)
{
	AuFrame		f = fn_take(c, AU_MSG_ERROR);

	fn_check_error(&f, status, part);
}

static inline void
fn_answer_error(FakeConn *c, uint64_t id, AuStatus status, const char *part)
{
	AuFrame		f = fn_answer(c, AU_MSG_ERROR, id);

	fn_check_error(&f, status, part);
}

static inline void
fn_take_nothing(const FakeConn *c)
{
	assert_int_equal(c->out_len, 0);
}

/* ---- connections ------------------------------------------------------ */

/* Opened and greeted, for the volume FN_SYSID. */
static inline AuMsgHelloOk
fn_open(FakeConn *c, uint8_t role)
{
	AuMsgHello	m = {.system_identifier = FN_SYSID,.role = role,.name = "x"};
	AuMsgHelloOk ok;
	AuFrame		f;

	fake_conn_open(&H, c);
	FN_SEND(c, au_enc_hello, 1, &m);
	f = fn_answer(c, AU_MSG_HELLO_OK, 1);
	assert_true(au_dec_hello_ok(&f, &ok));
	return ok;
}

/* The TERM of a writer whose log is fn.wal and who may make the volume. */
static inline AuMsgTerm
fn_usual_term(void)
{
	return (AuMsgTerm)
	{
		.timeline = 1,.start_lsn = fn.wal_start,.local_end = AU_LSN_MAX,
		.wal_segment_size = WALMAKE_SEGMENT,.may_create = 1
	};
}

static inline AuMsgTermOk
fn_get_term(FakeConn *c)
{
	AuMsgTerm	m = fn_usual_term();
	AuMsgTermOk ok;
	AuFrame		f;

	FN_SEND(c, au_enc_term, 2, &m);
	f = fn_take(c, AU_MSG_TERM_OK);
	assert_true(au_dec_term_ok(&f, &ok));
	return ok;
}

/* As the writer, with the usual term. */
static inline AuMsgTermOk
fn_open_writer(FakeConn *c)
{
	(void) fn_open(c, AU_ROLE_WRITER);
	return fn_get_term(c);
}

static inline void
fn_append(FakeConn *c, uint64_t id, uint64_t term, AuLsn from, AuLsn to, AuLsn commit)
{
	AuMsgAppend m = {
		.term = term,.timeline = 1,.lsn = from,.commit_lsn = commit,
		.length = (uint32_t) (to - from),.bytes = fn.wal.buf + (from - fn.wal.base)
	};

	FN_SEND(c, au_enc_append, id, &m);
}

static inline void
fn_ask_page(FakeConn *c, uint64_t id, AuLsn not_before, AuLsn read_lsn, uint16_t n)
{
	AuMsgGetPages m = {
		.rel = {1663, 5, 16384, 0},.not_before = not_before,.read_lsn = read_lsn,.nblocks = n
	};

	FN_SEND(c, au_enc_get_pages, id, &m);
}

/* ---- the node's turn -------------------------------------------------- */

/* What it can do without waiting for the host. */
static inline void
fn_run(void)
{
	for (int i = 0; i < 1000 && au_node_run(H.node) == 0; i++)
		;
}

/* ... and syncs end at once. */
static inline void
fn_settle(void)
{
	fn_run();
	while (H.vol.syncing_to != 0)
	{
		fake_sync_done(&H, AU_OK);
		fn_run();
	}
}

static inline AuVolumeStats
fn_stats(void)
{
	AuVolumeStats s;
	void	   *handle;

	assert_true(au_node_volume_stats(H.node, 0, &s, &handle));
	return s;
}

#endif							/* AU_TEST_FAKENODE_H */
