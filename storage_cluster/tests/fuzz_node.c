/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_node.c: the node's state machine under any order of events: three
 * connections saying anything, syncs and writes ending well or badly at any
 * moment, time passing.  The input is a script, a byte an event.  Assertions
 * in the core, leaks and the invariants below are what may fail:
 *
 *  1. Nothing is acknowledged that no sync has covered.
 *  2. Nothing is applied that is not durable.
 *  3. Terms only grow, and are saved before they are granted.
 */
#include <assert.h>

#include "tests/fakehost.h"
#include "tests/walmake.h"

#define CONNS 3
#define SYSID 77

static FakeHost H;
static FakeConn conns[CONNS];
static WalMake wal;
static AuLsn wal_start;
static uint8_t frame[70000];

static void
make_wal(void)
{
	uint8_t		memory[256];
	AuOps		ops;

	wal_start = walmake_begin(&wal, 0x1000000);
	for (int i = 0; i < 300; i++)
	{
		au_ops_start(&ops, memory, sizeof(memory));
		au_ops_init(&ops, 0);
		walmake_ours(&wal, 16384, (uint32_t) i % 40, ops.data, (uint16_t) ops.len);
	}
}

/* Answers: look at them, forget them. */
static void
drain(FakeConn *c)
{
	size_t		pos = 0;

	while (pos < c->out_len)
	{
		AuFrame		f;
		size_t		used;

		if (au_frame_parse(c->out + pos, c->out_len - pos, &f, &used) != AU_OK)
			abort();			/* the node sends whole, valid frames */
		if (f.type == AU_MSG_APPEND_OK)
		{
			AuMsgAppendOk ok;

			if (!au_dec_append_ok(&f, &ok) || ok.durable_lsn > H.vol.log_durable ||
				ok.applied_lsn > H.vol.log_durable)
				abort();
		}
		if (f.type == AU_MSG_TERM_OK)
		{
			AuMsgTermOk ok;

			if (!au_dec_term_ok(&f, &ok) || ok.term > H.saved_term)
				abort();
		}
		pos += used;
	}
	if (c->out_len > 0 && !c->closed)
		au_node_conn_sent(H.node, c->conn, c->out_len);
	c->out_len = 0;
}

static void
input(FakeConn *c, const AuWriter *w)
{
	if (c->conn == NULL || c->closed || w->overflow || c->in_len > 1000000)
		return;
	fake_input(&H, c, w->data, w->len, SIZE_MAX);
}

static void
say_something(FakeConn *c, uint8_t what, uint8_t arg)
{
	AuMsgHello	hello = {.system_identifier = SYSID,.role = (uint8_t) (1 + arg % 3),.name = "f"};
	AuMsgTerm	term = {
		.timeline = 1 + (arg >> 6),.switch_lsn = arg & 32 ? H.vol.log_end : wal_start + arg * 64u,
		.start_lsn = wal_start,.local_end = arg & 16 ? 0 : AU_LSN_MAX,
		.wal_segment_size = WALMAKE_SEGMENT,.may_create = 1
	};
	AuLsn		from = H.vol.exists ? H.vol.log_end : wal_start;
	AuMsgAppend append = {.term = H.saved_term - (arg == 255),.timeline = H.vol.meta.timeline};
	AuMsgGetPages pages = {.rel = {1663, 5, 16384, 0},.nblocks = (uint16_t) (1 + arg % 200)};
	AuMsgGetSize size = {.rel = {1663, 5, 16384, 0}};
	AuMsgListRels list = {.db = arg};
	AuWriter	w;

	au_writer_start(&w, frame, sizeof(frame));
	switch (what % 8)
	{
		case 0:
			au_enc_hello(&w, arg, &hello);
			break;
		case 1:
			au_enc_term(&w, arg, &term);
			break;
		case 2:
			if (arg % 8 == 7 && from > wal_start + 64)
				from -= 64;
			append.lsn = from + (arg % 16 == 15 ? 8 : 0);
			append.length = arg * 16u;
			append.commit_lsn = from;
			if (append.lsn + append.length + 8 > walmake_pos(&wal))
				append.length = 0;
			append.bytes = append.length > 0 ? wal.buf + (append.lsn - wal.base) : NULL;
			if (arg == 253 && append.bytes != NULL)
				append.bytes += 8;	/* a damaged log */
			au_enc_append(&w, arg, &append);
			break;
		case 3:
			pages.not_before = from + arg - 128;
			au_enc_get_pages(&w, arg, &pages);
			break;
		case 4:
			pages.read_lsn = wal_start + arg * 64u;
			au_enc_get_pages(&w, arg, &pages);
			break;
		case 5:
			size.not_before = from + arg - 128;
			au_enc_get_size(&w, arg, &size);
			break;
		case 6:
			if (arg & 1)
				au_enc_list_rels(&w, arg, &list);
			else
				au_enc_hold(&w, arg, &(AuMsgHold) {.lsn = arg & 2 ? 0 : wal_start + arg * 64u});
			break;
		default:
			if (arg > 250)
				au_w_u64(&w, arg);	/* no frame at all */
			else
				au_enc_empty(&w, arg & 1 ? AU_MSG_PING : AU_MSG_STATUS, arg);
			break;
	}
	input(c, &w);
}

static void
event(uint8_t op, uint8_t arg)
{
	static const AuStatus trouble[] = {AU_OK, AU_OK, AU_OK, AU_FULL, AU_OK, AU_IO, AU_OK, AU_OK};
	FakeConn   *c = &conns[op % CONNS];

	switch ((op / CONNS) % 12)
	{
		case 0:
			if (c->conn != NULL)
				fake_conn_end(&H, c);
			else
			{
				fake_conn_open(&H, c);
				if (c->conn == NULL)
					memset(c, 0, sizeof(*c));
			}
			break;
		case 1:
			if (H.vol.syncing_to != 0)
				fake_sync_done(&H, arg > 250 ? AU_IO : AU_OK);
			break;
		case 2:
			if (H.vol.writing)
				fake_write_done(&H, trouble[arg % 8]);
			break;
		case 3:
			H.now += (uint64_t) arg * 1000000;
			break;
		case 4:
			H.vol.append_status = trouble[arg % 8];
			H.vol.reopen_status = trouble[arg / 8 % 8];
			H.save_status = arg > 240 ? AU_IO : AU_OK;
			H.vol.full = arg & 64;
			H.vol.read_status = arg % 32 == 31 ? AU_CORRUPT : AU_OK;
			H.vol.read_later = arg & 128;
			break;
		case 5:
			if (c->conn != NULL && !c->closed)
				fake_offer(&H, c, 1 + arg);
			if (H.vol.nreads > 0)
				fake_read_done(&H, arg % H.vol.nreads);
			break;
		default:
			say_something(c, (uint8_t) (op / CONNS / 12 + arg), arg);
			break;
	}
}

static void
check(void)
{
	AuVolumeStats s;
	void	   *handle;

	if (H.vol.exists && au_node_volume_stats(H.node, 0, &s, &handle))
		if (s.applied > s.durable || s.durable > s.received || s.meta.term > H.saved_term)
			abort();
	for (int i = 0; i < CONNS; i++)
		if (conns[i].conn != NULL)
		{
			drain(&conns[i]);
			if (conns[i].closed)
				fake_conn_end(&H, &conns[i]);
		}
}

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	AuNodeOptions opt = {.node_id = 9,.alone = len % 2 == 0};

	if (wal.buf == NULL)
		make_wal();
	fake_host_start(&H, &opt);
	memset(conns, 0, sizeof(conns));
	if (len > 0 && data[0] % 4 != 0)
	{
		/* mostly: a volume with a writer, so that there is less to guess */
		fake_conn_open(&H, &conns[0]);
		say_something(&conns[0], 0, 1);
		say_something(&conns[0], 1, 0);
	}
	for (size_t i = 0; i + 1 < len && i < 2000; i += 2)
	{
		event(data[i], data[i + 1]);
		(void) au_node_run(H.node);
		check();
	}
	for (int i = 0; i < CONNS; i++)
		if (conns[i].conn != NULL)
			fake_conn_end(&H, &conns[i]);
	while (H.vol.nreads > 0)
		fake_read_done(&H, 0);
	au_node_free(H.node);
	if (H.allocated != 0)
		abort();
	free(H.vol.log);
	return 0;
}
