/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_move.c: nodes join a cluster and leave it while log comes and nodes
 * crash; every page is the same at every LSN on all owners, and a read is
 * answered rightly or told that the slice has moved, never otherwise.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <unistd.h>

#include "common/au_crc32c.h"
#include "common/au_page.h"
#include "common/au_wire_export.h"
#include "tests/clusternodes.h"

#define RELS 8
#define EXTENTS 12
#define NEAR 2
#define PAGES (EXTENTS * NEAR)
#define SAMPLES_MAX 40000

typedef struct Sample
{
	AuLsn		lsn;
	uint32_t	rel;
	uint32_t	page;
	uint32_t	crc;			/* 0: the page is not there */
} Sample;

static struct
{
	char		root[200];
	WalMake		wal;
	AuLsn		start;
	AuLsn		sent;			/* to node 0 */
	AuLsn		durable;		/* there, as told */
	uint64_t	term;
	uint64_t	id;
	CnConn	   *writer;
	CnConn	   *reader;			/* one read at a time */
	int			reading;		/* sample, -1: none */
	uint32_t	read_node;
	uint32_t	answered;
	uint32_t	moved;
	Sample		samples[SAMPLES_MAX];
	int			nsamples;
	bool		live[RELS][PAGES];
	uint8_t		page[RELS][PAGES][AU_PAGE_SIZE];
} t;

static AuPageId
page_id(uint32_t rel, uint32_t page)
{
	return (AuPageId)
	{
		{1663, 5, 16384 + rel, 0}, page / NEAR * AU_EXTENT_BLOCKS + page % NEAR
	};
}

/* One more record, and a sample of what is then. */
static void
more_log(void)
{
	uint32_t	rel = cn_random(RELS);
	uint32_t	page = cn_random(PAGES);
	uint8_t		memory[1024];
	uint8_t		bytes[200];
	Sample	   *s;
	AuOps		ops;

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t) cn_random(256);
	au_ops_start(&ops, memory, sizeof(memory));
	if (!t.live[rel][page] || cn_random(200) == 0)
		au_ops_init(&ops, 4000);
	au_ops_patch(&ops, (uint16_t) (4500 + cn_random(3300)), (uint16_t) (1 + cn_random(200)), bytes);
	walmake_ours(&t.wal, 16384 + rel, page_id(rel, page).blk, ops.data, (uint16_t) ops.len);
	if (!t.live[rel][page])
		memset(t.page[rel][page], 0, AU_PAGE_SIZE);
	t.live[rel][page] = true;
	assert_int_equal(au_page_apply(t.page[rel][page], ops.data, ops.len, NULL), AU_OK);
	au_page_set_lsn(t.page[rel][page], t.wal.last_end);
	if (t.nsamples == SAMPLES_MAX)
		return;
	s = &t.samples[t.nsamples++];
	s->lsn = t.wal.last_end;
	s->rel = cn_random(RELS);
	s->page = cn_random(PAGES);
	s->crc = t.live[s->rel][s->page] ? au_crc32c(0, t.page[s->rel][s->page], AU_PAGE_SIZE) : 0;
}

/* ---- a writer and a reader -------------------------------------------- */

static CnConn *
connect_to(int node, uint8_t role)
{
	AuMsgHello	hello = {.system_identifier = CN_SYSID,.role = role,.name = "test"};
	uint8_t		memory[512];
	CnConn	   *c = cn_conn(-1);
	CnConn	   *to = cn_conn(node);
	AuWriter	w;

	to->conn = au_node_conn_opened(cn.nodes[node].node, to);
	c->peer = to;
	to->peer = c;
	au_writer_start(&w, memory, sizeof(memory));
	assert_true(au_enc_hello(&w, ++t.id, &hello));
	cn_push(to, memory, w.len);
	return c;
}

static void
hang_up(CnConn **c)
{
	if (*c == NULL)
		return;
	if ((*c)->peer != NULL)
		cn_cut(*c);
	free((*c)->in);
	**c = (CnConn) {0};
	*c = NULL;
}

static bool
next_frame(CnConn *c, AuFrame *f, size_t *used)
{
	return c->in_len > 0 && au_frame_parse(c->in, c->in_len, f, used) == AU_OK;
}

static void
consume(CnConn *c, size_t used)
{
	memmove(c->in, c->in + used, c->in_len - used);
	c->in_len -= used;
}

static void
write_log(void)
{
	uint8_t	   *memory;
	AuMsgTerm	term = {
		.writer_id = 1,.timeline = 1,.start_lsn = t.start,.local_end = walmake_pos(&t.wal),
		.wal_segment_size = WALMAKE_SEGMENT,.may_create = 1
	};
	AuMsgAppend m = {.timeline = 1};
	AuMsgAppendOk ok;
	AuMsgTermOk term_ok;
	AuWriter	w;
	AuFrame		f;
	size_t		used;

	if (t.writer != NULL && t.writer->closed)
		hang_up(&t.writer);
	if (cn.nodes[0].node == NULL)
		return;
	memory = malloc(1 << 20);
	au_writer_start(&w, memory, 1 << 20);
	if (t.writer == NULL)
	{
		t.writer = connect_to(0, AU_ROLE_WRITER);
		t.term = 0;
		assert_true(au_enc_term(&w, ++t.id, &term));
	}
	while (next_frame(t.writer, &f, &used))
	{
		if (f.type == AU_MSG_TERM_OK && au_dec_term_ok(&f, &term_ok))
		{
			t.term = term_ok.term;
			t.sent = term_ok.durable_lsn;
		}
		else if (f.type == AU_MSG_APPEND_OK && au_dec_append_ok(&f, &ok))
			t.durable = ok.durable_lsn;
		else if (f.type == AU_MSG_ERROR)
			fail_msg("the writer was answered with an error");
		consume(t.writer, used);
	}
	if (t.term != 0 && t.sent < walmake_pos(&t.wal))
	{
		m.term = t.term;
		m.lsn = t.sent;
		m.length = (uint32_t) (walmake_pos(&t.wal) - t.sent);
		if (m.length > 100000)
			m.length = 100000;
		/* now and then within a record */
		if (m.length > 30 && cn_random(3) == 0)
			m.length -= cn_random(30);
		m.bytes = t.wal.buf + (t.sent - t.wal.base);
		assert_true(au_enc_append(&w, ++t.id, &m));
		t.sent += m.length;
	}
	if (w.len > 0)
		cn_push(t.writer->peer, memory, w.len);
	free(memory);
}

static void
check_answer(const AuFrame *f)
{
	const Sample *s = &t.samples[t.reading];
	AuMsgPages	pages;
	AuMsgError	e;

	if (f->type == AU_MSG_HELLO_OK)
		return;
	if (f->type == AU_MSG_PAGES && au_dec_pages(f, &pages))
	{
		if (s->crc == 0)
			assert_int_equal(pages.status[0], AU_NOT_FOUND);
		else if (pages.status[0] != AU_OK || au_crc32c(0, pages.page[0], AU_PAGE_SIZE) != s->crc)
			fail_msg("node %u: relation %u page %u at %X/%X: %s", t.read_node, s->rel, s->page,
					 AU_LSN_ARGS(s->lsn), au_status_name(pages.status[0]));
		t.answered++;
	}
	else
	{
		assert_int_equal(f->type, AU_MSG_ERROR);
		assert_true(au_dec_error(f, &e));
		if (e.status != AU_MOVED && e.status != AU_GONE)
			fail_msg("node %u: a read was answered: %s", t.read_node, e.message);
		t.moved++;
	}
	t.reading = -1;
}

static void
read_pages(void)
{
	uint8_t		memory[512];
	AuMsgGetPages m = {.nblocks = 1};
	const Sample *s;
	AuWriter	w;
	AuFrame		f;
	size_t		used;

	if (t.reader != NULL)
	{
		while (t.reading >= 0 && next_frame(t.reader, &f, &used))
		{
			check_answer(&f);
			consume(t.reader, used);
		}
		if (t.reader->closed)
			t.reading = -1;
		if (t.reading >= 0)
			return;
		hang_up(&t.reader);
	}
	t.read_node = cn_random(CN_NODES);
	if (cn.nodes[t.read_node].node == NULL || t.nsamples == 0)
		return;
	t.reading = t.nsamples - 1 - (int) cn_random((uint32_t) t.nsamples);
	s = &t.samples[t.reading];
	if (s->lsn > t.durable)
	{
		t.reading = -1;
		return;
	}
	t.reader = connect_to((int) t.read_node, AU_ROLE_READER);
	m.rel = page_id(s->rel, s->page).rel;
	m.read_lsn = m.not_before = s->lsn;
	m.blocks[0] = page_id(s->rel, s->page).blk;
	au_writer_start(&w, memory, sizeof(memory));
	assert_true(au_enc_get_pages(&w, ++t.id, &m));
	cn_push(t.reader->peer, memory, w.len);
}

/* ---- what all owners must have ---------------------------------------- */

/* Each node keeps what it owns, and has deleted the rest. */
static bool
all_moved(void)
{
	for (uint32_t s = 0; s < AU_SLICES; s++)
		if (cn.view.slices[s].ntarget > 0)
			return false;
	for (int i = 0; i < CN_NODES; i++)
	{
		CnNode	   *n = &cn.nodes[i];
		const AuViewNode *self = au_view_node_by_id(&cn.view, cn_node_id(i));
		AuSlicesState state;
		AuSliceSet	owned;
		AuSliceSet	incoming;

		if (n->node == NULL || self == NULL)
			continue;
		if (!n->vol.exists || n->vol.store == NULL)
			return false;
		au_view_owned(&cn.view, self->number, &owned, &incoming);
		au_pagestore_slices(n->vol.store, &state);
		if (memcmp(&state.kept, &owned, sizeof(owned)) != 0 || au_slices_any(&state.dropping))
			return false;
	}
	return true;
}

static bool
at_rest(void)
{
	for (int i = 0; i < CN_NODES; i++)
	{
		AuVolumeStats stats;
		void	   *vol;

		if (cn.nodes[i].node != NULL && au_view_node_by_id(&cn.view, cn_node_id(i)) != NULL &&
			(!au_node_volume_stats(cn.nodes[i].node, 0, &stats, &vol) ||
			 stats.applied < t.wal.last_end))
			return false;
	}
	return all_moved();
}

static void
step(void)
{
	write_log();
	if (cn_random(3) == 0)
		read_pages();
	cn_step();
}

static void
settle(void)
{
	for (int i = 0; !at_rest(); i++)
	{
		if (i > 60000)
			fail_msg("the cluster does not come to rest");
		step();
	}
}

/* Every sample, on every owner of its slice. */
static uint32_t
compare_all(void)
{
	uint8_t		page[AU_PAGE_SIZE];
	uint32_t	compared = 0;

	for (int i = 0; i < t.nsamples; i++)
	{
		const Sample *s = &t.samples[i];
		AuPageId	id = page_id(s->rel, s->page);
		const AuSlice *slice = &cn.view.slices[au_slice_of(&id.rel, id.blk)];

		assert_true(slice->nowners > 0);
		for (int k = 0; k < CN_NODES; k++)
		{
			CnNode	   *n = &cn.nodes[k];
			const AuViewNode *self = au_view_node_by_id(&cn.view, cn_node_id(k));
			bool		owner = false;
			AuStatus	status;

			for (uint32_t o = 0; self != NULL && o < slice->nowners; o++)
				owner = owner || slice->owner[o] == self->number;
			if (!owner || n->node == NULL || s->lsn < au_pagestore_horizon(n->vol.store))
				continue;
			status = au_pagestore_read(n->vol.store, &id, s->lsn, page);
			if (status != (s->crc != 0 ? AU_OK : AU_NOT_FOUND) ||
				(s->crc != 0 && au_crc32c(0, page, AU_PAGE_SIZE) != s->crc))
				fail_msg("node %d: relation %u page %u (slice %u) at %X/%X: %s", k, s->rel, s->page,
						 au_slice_of(&id.rel, id.blk), AU_LSN_ARGS(s->lsn),
						 status == AU_OK ? "other bytes" : au_pagestore_error(n->vol.store));
			compared++;
		}
	}
	return compared;
}

/* ---- tests ------------------------------------------------------------ */

static void
begin(uint64_t seed, uint64_t retention)
{
	memset(&t, 0, sizeof(t) - sizeof(t.page));
	snprintf(t.root, sizeof(t.root), "/tmp/au_move.%ld", (long) getpid());
	cn_begin(t.root, seed);
	cn.retention = retention;
	t.reading = -1;
	t.start = walmake_begin(&t.wal, WALMAKE_SEGMENT);
}

static void
end(void)
{
	hang_up(&t.writer);
	hang_up(&t.reader);
	cn_end();
	free(t.wal.buf);
}

static void
join(int i)
{
	AuViewCommand c = view_join((uint64_t) i, "");

	if (cn.nodes[i].node == NULL)
		cn_start(i);
	cn_command(&c);
}

static void
add_volume(void)
{
	AuViewCommand c = {
		.type = AU_VIEW_VOLUME_ADD,.system_identifier = CN_SYSID,.write_quorum = 1,.ngroup = 1
	};

	cn_command(&c);
}

static void
load(int records)
{
	for (int i = 0; i < records; i++)
	{
		more_log();
		if (i % 4 == 0)
			step();
	}
}

static void
make_cluster_of(int nodes, uint8_t replicas)
{
	AuViewCommand init = view_init(replicas);

	cn_command(&init);
	for (int i = 0; i < nodes; i++)
	{
		join(i);
		if (i == 0)
			add_volume();
	}
}

static void
make_cluster(int nodes)
{
	make_cluster_of(nodes, 3);
}

/* Three owners, one more joins, one is drained, under load; any node but the
 * one that is needed for the log crashes now and then. */
static void
moving(uint64_t seed, bool crashes)
{
	AuViewCommand drain;

	begin(seed, CN_RETENTION);
	make_cluster(3);
	load(1500);
	settle();
	assert_true(compare_all() > 1000);
	join(3);
	for (int i = 0; i < 40; i++)
	{
		load(30);
		if (crashes && cn_random(3) == 0)
		{
			int			k = (int) cn_random(4);

			cn_crash(k);
			load((int) cn_random(60));
			cn_start(k);
		}
	}
	settle();
	assert_true(compare_all() > 3000);
	drain = view_about(AU_VIEW_DRAIN, 2);
	cn_command(&drain);
	for (int i = 0; i < 20; i++)
	{
		load(30);
		if (crashes && cn_random(3) == 0)
		{
			int			k = (int) cn_random(4);

			cn_crash(k);
			load((int) cn_random(60));
			cn_start(k);
		}
	}
	settle();
	assert_true(compare_all() > 5000);
	assert_true(t.answered > 100);
	/* the drained one owns nothing any more, and is asked as well */
	for (int k = 0; t.moved <= 10; k++)
	{
		assert_true(k < 10000);
		step();
	}
	end();
}

static void
test_moving(void **state)
{
	(void) state;
	moving(1, false);
}

static void
test_crashes(void **state)
{
	const char *seeds = getenv("AU_TEST_SEEDS");
	uint64_t	n = seeds != NULL ? strtoull(seeds, NULL, 10) : 4;

	(void) state;
	for (uint64_t seed = 2; seed < 2 + n; seed++)
		moving(seed, true);
}

/* The node is started anew, and has no log from the beginning, as after a long
 * time: who joins cannot make all pages from log. */
static void
forget_log(int i)
{
	CnVolume   *v = &cn.nodes[i].vol;
	AuLsn		keep;

	cn_crash(i);
	cn_open_store(v);
	keep = au_pagestore_restart_lsn(v->store);
	assert_true(keep > v->log_start);
	memmove(v->log, v->log + (keep - v->log_start), (size_t) (v->log_end - keep));
	v->log_start = keep;
	au_pagestore_close(v->store);
	v->store = NULL;
	cn_start(i);
}

/* Log from the volume's start is gone: sizes and positions come from another
 * node, then slices.  Short retention, so that the horizon moves meanwhile. */
static void
test_founding(void **state)
{
	(void) state;
	begin(50, 400000);
	make_cluster(1);
	load(3000);
	settle();
	forget_log(0);
	join(1);
	load(300);
	join(2);
	for (int i = 0; i < 20; i++)
	{
		load(30);
		if (cn_random(3) == 0)
		{
			int			k = 1 + (int) cn_random(2);

			cn_crash(k);
			load((int) cn_random(60));
			cn_start(k);
		}
	}
	settle();
	assert_true(cn.nodes[1].vol.log_start > t.start && cn.nodes[2].vol.log_start > t.start);
	assert_true(compare_all() > 1000);
	end();
}

/* A node that begins with another one's pages is elected into a log group at
 * once, and is lost before the log that these pages need is durable: it starts
 * all the same, and follows. */
static void
test_elected_at_once(void **state)
{
	CnVolume   *v = &cn.nodes[1].vol;
	int			tries = 0;

	(void) state;
	begin(100, CN_RETENTION);
	make_cluster(1);
	load(2000);
	settle();
	forget_log(0);
	join(1);
	for (;;)
	{
		AuLsn		applied;

		while (!v->exists)
		{
			more_log();
			step();
		}
		cn_crash(1);
		cn_open_store(v);
		applied = au_pagestore_applied_lsn(v->store);
		au_pagestore_close(v->store);
		v->store = NULL;
		if (applied > v->log_end)
			break;
		/* the other one's store ended with a record */
		assert_true(++tries < 50);
		v->exists = false;
		load(40);
		cn_start(1);
	}
	assert_true(au_history_push(&v->meta.history, 1, t.start, 1));
	cn_start(1);
	settle();
	assert_true(compare_all() > 1000);
	end();
}

/* The node that the others get their log from is gone for a moment: they ask others
 * at once and come back, and do not pause as after trouble (3 s, then). */
static void
test_source_gone(void **state)
{
	(void) state;
	for (uint64_t seed = 0; seed < 5; seed++)
	{
		uint64_t	since;

		begin(30 + seed, CN_RETENTION);
		make_cluster(3);
		load(300);
		settle();
		cn_crash(0);
		cn_start(0);
		since = cn.now;
		more_log();
		while (cn_stats(1).applied < t.wal.last_end || cn_stats(2).applied < t.wal.last_end)
		{
			assert_true(cn.now - since < 2000000);
			step();
		}
		settle();
		end();
	}
}

static const char *
state_of(int i, const char **problem)
{
	static AuVolumeStats stats;

	stats = cn_stats(i);
	*problem = stats.problem;
	return stats.state;
}

/* A node comes back, and nobody keeps the log that it needs: it says so, and not
 * before all were asked. */
static void
test_left_behind(void **state)
{
	const char *problem;
	AuLsn		begins;
	int			steps = 0;

	(void) state;
	begin(90, CN_RETENTION);
	make_cluster(3);
	load(1000);
	settle();
	cn_crash(2);
	load(3000);
	settle();
	forget_log(0);
	cn_start(2);
	/* node 1 still has it */
	for (int i = 0; i < 3000; i++)
	{
		step();
		assert_string_equal(state_of(2, &problem), "ok");
	}
	settle();
	cn_crash(2);
	load(3000);
	settle();
	forget_log(0);
	forget_log(1);
	cn_start(2);
	while (strcmp(state_of(2, &problem), "left behind") != 0)
	{
		assert_true(++steps < 3000);
		step();
	}
	assert_non_null(strstr(problem, "are made anew from theirs"));
	assert_non_null(strstr(problem, "is no longer kept"));
	assert_string_equal(state_of(1, &problem), "ok");
	begins = cn.nodes[2].vol.log_end;
	settle();
	assert_string_equal(state_of(2, &problem), "ok");
	assert_true(cn.nodes[2].vol.log_start > begins);
	assert_int_equal(cn_stats(2).mends, 1);
	assert_true(compare_all() > 3000);
	end();
}

/* ... and crashes meanwhile, while log comes, and others move on. */
static void
test_left_behind_crashes(void **state)
{
	AuLsn		begins;
	uint64_t	mended = 0;

	(void) state;
	for (uint64_t seed = 0; seed < 6; seed++)
	{
		begin(91 + seed, seed % 2 == 0 ? CN_RETENTION : 100000);
		make_cluster(3);
		load(500);
		settle();
		cn_crash(2);
		begins = cn.nodes[2].vol.log_end;
		load(1500);
		settle();
		forget_log(0);
		forget_log(1);
		cn_start(2);
		for (int round = 0; round < 12; round++)
		{
			load((int) cn_random(120));
			for (uint32_t k = cn_random(400); k > 0; k--)
				step();
			mended += cn_stats(2).mends;
			cn_crash(2);
			load((int) cn_random(20));
			cn_start(2);
		}
		settle();
		mended += cn_stats(2).mends;
		assert_true(cn.nodes[2].vol.log_start > begins);
		assert_true(compare_all() > 500);
		end();
	}
	assert_true(mended >= 6);
}

/* Bytes of all page versions of a store, as they are sent. */
static uint64_t
all_bytes(AuPageStore *ps)
{
	AuExportSet set = {.keyspace = AU_KS_PAGE,.all = true};
	AuPlace		place = au_place_first(AU_KS_PAGE);
	uint8_t    *memory = malloc(AU_CHUNK_MAX);
	uint64_t	bytes = 0;
	bool		done = false;

	while (!done)
	{
		AuExport   *e;
		AuChunk		chunk;
		const char *why;
		size_t		len;

		assert_int_equal(au_pagestore_export_begin(ps, &set, au_pagestore_written_lsn(ps), 0,
												   &place, &e), AU_OK);
		assert_int_equal(au_pagestore_export_work(e, memory, 30000, &len), AU_OK);
		au_pagestore_export_end(e);
		assert_int_equal(au_chunk_parse(memory, len, &chunk, &why), AU_OK);
		bytes += len;
		place = chunk.next;
		done = chunk.done;
	}
	free(memory);
	return bytes;
}

/* A fourth node joins three, each of which has all: it gets a quarter of the
 * copies, nobody else gets anything, and meanwhile log is taken and pages are
 * read. */
static void
test_join_moves_a_quarter(void **state)
{
	AuSliceSet	owned;
	AuSliceSet	incoming;
	AuLsn		durable;
	uint64_t	total;
	uint32_t	answered;
	double		part;

	(void) state;
	begin(80, CN_RETENTION);
	make_cluster(3);
	load(4000);
	settle();
	forget_log(0);
	total = 3 * all_bytes(cn.nodes[1].vol.store);
	durable = t.durable;
	answered = t.answered;
	join(3);
	do
	{
		more_log();
		step();
		step();
		step();
		au_view_owned(&cn.view, 4, &owned, &incoming);
	} while (!au_slices_any(&owned) || au_slices_any(&incoming));
	answered = t.answered - answered;
	durable = t.durable - durable;
	settle();
	part = (double) cn_stats(3).moved_bytes / (double) total;
	print_message("a fourth node: %u of %d copies of slices, %.1f %% of %.1f MB; meanwhile %.2f MB of log, %u reads answered\n",
				  au_slices_count(&owned), 3 * AU_SLICES, 100 * part, (double) total / 1e6,
				  (double) durable / 1e6, answered);
	assert_in_range(au_slices_count(&owned), 3 * AU_SLICES / 4 * 9 / 10, 3 * AU_SLICES / 4 * 11 / 10);
	assert_true(part > 0.2 && part < 0.3);
	for (int i = 0; i < 3; i++)
		assert_int_equal(cn_stats(i).moved_bytes, 0);
	assert_true(durable > 10000 && answered > 50);
	assert_true(compare_all() > 3000);
	end();
}

/* The first volume of the view is on no node: its server was never started.  The
 * second one comes all the same. */
static void
test_volume_nobody_has(void **state)
{
	AuViewCommand init = view_init(3);
	AuViewCommand other = {
		.type = AU_VIEW_VOLUME_ADD,.system_identifier = CN_SYSID - 1,.write_quorum = 1,.ngroup = 1
	};

	(void) state;
	begin(70, CN_RETENTION);
	cn_command(&init);
	join(0);
	cn_command(&other);
	add_volume();
	load(300);
	join(1);
	settle();
	assert_int_equal(cn.view.nvolumes, 2);
	assert_true(compare_all() > 100);
	end();
}

/*
 * A server that writes more log than is kept readable while slices come: the
 * owner holds what is to come, and what is too much for the limit of holds
 * comes in fewer slices.  Returns how many came at a time at least and most.
 */
static void
moving_under_load(uint64_t retention, uint64_t hold_limit, uint64_t *fewest, uint64_t *most)
{
	AuVolumeStats stats;
	AuSliceSet	owned;
	AuSliceSet	incoming;
	AuSlicesState slices;
	void	   *vol;

	begin(60, retention);
	cn.hold_limit = hold_limit;
	make_cluster(1);
	load(4000);
	settle();
	forget_log(0);
	join(1);
	*fewest = AU_SLICES;
	*most = 0;
	for (int i = 0;; i++)
	{
		if (i == 8000)
			fail_msg("slices do not come: %u are here", au_slices_count(&slices.kept));
		more_log();
		more_log();
		more_log();
		step();
		if (!au_node_volume_stats(cn.nodes[1].node, 0, &stats, &vol))
			continue;
		if (stats.slices_incoming > 0 && stats.slices_missing > 0)
		{
			*fewest = stats.slices_incoming < *fewest ? stats.slices_incoming : *fewest;
			*most = stats.slices_incoming > *most ? stats.slices_incoming : *most;
		}
		au_view_owned(&cn.view, 2, &owned, &incoming);
		au_pagestore_slices(cn.nodes[1].vol.store, &slices);
		if (au_slices_count(&owned) > 100 && !au_slices_any(&incoming) &&
			memcmp(&slices.kept, &owned, sizeof(owned)) == 0)
			break;
	}
	settle();
	assert_true(compare_all() > 10);
	end();
}

static void
test_history_is_held(void **state)
{
	uint64_t	fewest;
	uint64_t	most;

	(void) state;
	moving_under_load(10000, 0, &fewest, &most);
	assert_int_equal(most, 64);
}

static void
test_fewer_slices(void **state)
{
	uint64_t	fewest;
	uint64_t	most;

	(void) state;
	moving_under_load(10000, 60000, &fewest, &most);
	print_message("%llu to %llu slices at a time\n", (unsigned long long) fewest,
				  (unsigned long long) most);
	assert_true(fewest <= 4 && most < 64);
}

static void
test_messages(void **state)
{
	AuMsgExport m = {
		.what = AU_EXPORT_PAGES,.upto = 7,.horizon = 3,.budget = 1000,
		.place = {{1, 2, 3}},.slices = {{1, 2, 3, 4}}
	};
	AuMsgExport back;
	AuMsgExportOk *ok = calloc(1, sizeof(*ok));
	AuMsgExportOk *ok_back = calloc(1, sizeof(*ok));
	uint8_t    *memory = malloc(AU_EXPORT_OK_CAP);
	AuWriter	w;
	AuFrame		f;
	size_t		used;

	(void) state;
	au_writer_start(&w, memory, AU_EXPORT_OK_CAP);
	assert_true(au_enc_export(&w, 3, &m));
	assert_int_equal(au_frame_parse(memory, w.len, &f, &used), AU_OK);
	assert_true(au_dec_export(&f, &back));
	assert_int_equal(back.what, m.what);
	assert_int_equal(back.upto, 7);
	assert_int_equal(back.horizon, 3);
	assert_int_equal(back.budget, 1000);
	assert_memory_equal(&back.place, &m.place, sizeof(m.place));
	assert_memory_equal(&back.slices, &m.slices, sizeof(m.slices));
	f.length--;
	assert_false(au_dec_export(&f, &back));

	ok->start_lsn = 5;
	ok->log_lsn = 6;
	ok->segment_size = 1 << 24;
	ok->timeline = 2;
	ok->position.applied = 90;
	ok->position.restart = 80;
	ok->position.horizon = 70;
	ok->position.gc_done = 60;
	ok->position.times_len = AU_POSITION_TIMES_MAX;
	ok->group.n = AU_GROUP_MAX;
	ok->group.write_quorum = 4;
	for (uint64_t i = 0; i < AU_GROUP_MAX; i++)
	{
		ok->group.members[i].node_id = i + 1;
		memset(ok->group.members[i].address, 'x', AU_ADDRESS_MAX - 1);
	}
	au_writer_start(&w, memory, AU_EXPORT_OK_CAP);
	assert_true(au_enc_export_ok(&w, 3, ok));
	assert_int_equal(au_frame_parse(memory, w.len, &f, &used), AU_OK);
	assert_true(au_dec_export_ok(&f, ok_back));
	assert_memory_equal(ok, ok_back, sizeof(*ok));
	ok->position.restart = 91;
	au_writer_start(&w, memory, AU_EXPORT_OK_CAP);
	assert_true(au_enc_export_ok(&w, 3, ok));
	assert_int_equal(au_frame_parse(memory, w.len, &f, &used), AU_OK);
	assert_false(au_dec_export_ok(&f, ok_back));
	free(memory);
	free(ok);
	free(ok_back);
}

/* ---- damage ------------------------------------------------------------ */

/* Somewhere each slice is whole, whatever is emptied elsewhere. */
static void
check_not_lost(void)
{
	AuSliceSet	all = {{0}};

	for (int i = 0; i < CN_NODES; i++)
	{
		CnVolume   *v = &cn.nodes[i].vol;
		AuSlicesState state;

		if (cn.nodes[i].node == NULL || v->store == NULL || !v->exists)
			continue;
		au_pagestore_slices(v->store, &state);
		all = au_slices_or(&all, &state.lasting);
	}
	if (au_slices_count(&all) != AU_SLICES)
		fail_msg("%u slices are left of %d", au_slices_count(&all), AU_SLICES);
}

static void
damage_all(void)
{
	for (int i = 0; i < 3; i++)
		au_node_damaged(cn.nodes[i].node, &cn.nodes[i].vol, "a test says so");
}

/* Are all whole, and is nothing kept aside?  *waited counts who has to wait. */
static bool
all_whole(uint32_t *waited)
{
	bool		whole = true;

	for (int i = 0; i < 3; i++)
	{
		AuVolumeStats stats = cn_stats(i);

		*waited += strcmp(stats.state, "damaged") == 0 &&
			strstr(stats.problem, "makes its pages anew, and shares slice") != NULL;
		whole = whole && stats.mend_why[0] == '\0' && !cn.nodes[i].vol.aside &&
			!au_view_mends(&cn.view, (uint32_t) i + 1, CN_SYSID);
	}
	return whole;
}

/* All owners of a slice are found damaged at the same time: one after the other
 * gets its pages anew. */
static void
test_damaged(void **state)
{
	uint32_t	waited = 0;

	(void) state;
	begin(11, CN_RETENTION);
	make_cluster_of(3, 2);
	load(1500);
	settle();
	damage_all();
	for (int k = 0; !all_whole(&waited); k++)
	{
		if (k > 60000)
			fail_msg("the damage is not mended");
		if (k % 20 == 0)
			more_log();
		step();
		check_not_lost();
	}
	settle();
	for (int i = 0; i < 3; i++)
		assert_int_equal(cn_stats(i).mends, 1);
	assert_true(waited > 0);
	assert_true(compare_all() > 1000);
	end();
}

/* ... and nodes crash meanwhile, and are damaged again. */
static void
test_damaged_crashes(void **state)
{
	uint32_t	waited = 0;
	uint64_t	mended = 0;

	(void) state;
	begin(12, CN_RETENTION);
	make_cluster_of(3, 2);
	load(1000);
	settle();
	for (int round = 0; round < 15; round++)
	{
		int			i = (int) cn_random(3);

		damage_all();
		for (uint32_t k = cn_random(800); k > 0; k--)
		{
			step();
			check_not_lost();
		}
		mended += cn_stats(i).mends;
		cn_crash(i);
		load(10);
		cn_start(i);
		check_not_lost();
	}
	for (int k = 0; !all_whole(&waited); k++)
	{
		if (k > 60000)
			fail_msg("the damage is not mended");
		step();
		check_not_lost();
	}
	settle();
	assert_true(mended > 0);
	assert_true(compare_all() > 1000);
	end();
}

/* ---- comparing ---------------------------------------------------------- */

/* A slice that cannot be compared, because this node or each other one fails, or
 * because it takes too long, does not keep the others from it. */
static void
test_passed_over(void **state)
{
	(void) state;
	begin(21, CN_RETENTION);
	cn.sync_bytes_per_s = 512 << 20;
	make_cluster(3);
	cn.nodes[0].bad_slice = 7;
	load(800);
	settle();
	/* a pass when nobody else was there compares nothing */
	for (int k = 0; cn_stats(0).sync_slices < AU_SLICES - 1 || cn_stats(1).sync_slices < AU_SLICES; k++)
	{
		if (k > 100000)
			fail_msg("%d slices are compared, %d passed over", (int) cn_stats(0).sync_slices,
					 (int) cn_stats(0).sync_skipped);
		step();
	}
	assert_true(cn_stats(0).sync_skipped > 0);
	/* the others compare it with each other */
	assert_int_equal(cn_stats(1).sync_skipped, 0);
	assert_int_equal(cn_stats(1).sync_differences, 0);
	end();
}

/* ---- going -------------------------------------------------------------- */

/* A fourth node has joined: until all is done.  Both are the longest of any
 * node: that it kept a slice which others own now, and that it took to delete
 * what it had dropped. */
typedef struct Going
{
	uint64_t	unwanted_us;
	uint64_t	dropping_us;
} Going;

/* It is so now, or not: how long has it been? */
static uint64_t
how_long(uint64_t *since, bool now)
{
	if (!now)
		*since = 0;
	else if (*since == 0)
		*since = cn.now;
	return now ? cn.now - *since : 0;
}

static Going
watch_going(void)
{
	static uint64_t unwanted[CN_NODES][AU_SLICES];
	uint64_t	dropping[CN_NODES] = {0};
	Going		g = {0};

	memset(unwanted, 0, sizeof(unwanted));
	for (int k = 0; !all_moved(); k++)
	{
		if (k > 20000)
			fail_msg("slices do not come, or go");
		more_log();
		step();
		for (int i = 0; i < 3; i++)
		{
			const AuViewNode *self = au_view_node_by_id(&cn.view, cn_node_id(i));
			AuSlicesState state;
			AuSliceSet	owned;
			AuSliceSet	incoming;
			uint64_t	us;

			au_pagestore_slices(cn.nodes[i].vol.store, &state);
			au_view_owned(&cn.view, self->number, &owned, &incoming);
			owned = au_slices_without(&state.kept, &owned);
			us = how_long(&dropping[i], au_slices_any(&state.dropping));
			g.dropping_us = us > g.dropping_us ? us : g.dropping_us;
			for (uint32_t s = 0; s < AU_SLICES; s++)
			{
				us = how_long(&unwanted[i][s], au_slices_has(&owned, s));
				g.unwanted_us = us > g.unwanted_us ? us : g.unwanted_us;
			}
		}
	}
	return g;
}

/* What others have compared a slice with, and may ask for again, does not keep
 * it from going. */
static void
test_drop_beside_comparing(void **state)
{
	Going		g;

	(void) state;
	begin(22, CN_RETENTION);
	cn.sync_bytes_per_s = 512 << 20;
	make_cluster(3);
	load(800);
	settle();
	join(3);
	g = watch_going();
	print_message("dropped slices were gone after %d ms at most\n", (int) (g.dropping_us / 1000));
	assert_true(g.dropping_us > 0 && g.dropping_us < 1000000);
	end();
}

/* Slices that become others' one after the other do not wait for the last. */
static void
test_drop_meanwhile(void **state)
{
	Going		g;

	(void) state;
	begin(23, CN_RETENTION);
	make_cluster(3);
	load(400);
	settle();
	cn.ready_most = 12;		/* a second */
	join(3);
	g = watch_going();
	print_message("slices were gone after %d ms at most\n", (int) (g.unwanted_us / 1000));
	assert_true(g.unwanted_us >= 3 * 1000000 && g.unwanted_us < 7 * 1000000);
	end();
}

/* Stores that write one generation after the other, for as long as log comes. */
static void
test_busy(void **state)
{
	uint64_t	since;
	Going		g;
	AuLsn		behind = 0;

	(void) state;
	begin(24, CN_RETENTION);
	make_cluster(3);
	load(800);
	settle();
	forget_log(0);
	join(3);
	/* not before what the new one begins with is behind it */
	for (int k = 0; !cn.nodes[3].vol.exists || cn_stats(3).applied < behind || cn_stats(0).applied < behind; k++)
	{
		if (k == 0 || !cn.nodes[3].vol.exists)
			behind = walmake_pos(&t.wal);
		assert_true(k < 5000);
		more_log();
		step();
	}
	for (int i = 0; i < 4; i++)
		cn.nodes[i].busy = true;
	cn.imported = cn.exported = 0;
	since = cn.now;
	g = watch_going();
	print_message("slices moved between generations in %d s, in %u chunks, and were gone in %d ms\n",
				  (int) ((cn.now - since) / 1000000), cn.imported, (int) (g.dropping_us / 1000));
	assert_int_equal(cn.imported, cn.exported);	/* none came in vain */
	assert_true(cn.now - since < 30 * 1000000);
	assert_true(g.dropping_us < 3500000);
	for (int i = 0; i < 4; i++)
		cn.nodes[i].busy = false;
	settle();
	assert_true(compare_all() > 1000);
	end();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_messages),
		cmocka_unit_test(test_moving),
		cmocka_unit_test(test_crashes),
		cmocka_unit_test(test_founding),
		cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_passed_over),
		cmocka_unit_test(test_drop_beside_comparing),
		cmocka_unit_test(test_drop_meanwhile),
		cmocka_unit_test(test_busy),
		cmocka_unit_test(test_damaged_crashes),
		cmocka_unit_test(test_elected_at_once),
		cmocka_unit_test(test_source_gone),
		cmocka_unit_test(test_left_behind),
		cmocka_unit_test(test_left_behind_crashes),
		cmocka_unit_test(test_join_moves_a_quarter),
		cmocka_unit_test(test_volume_nobody_has),
		cmocka_unit_test(test_history_is_held),
		cmocka_unit_test(test_fewer_slices),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
