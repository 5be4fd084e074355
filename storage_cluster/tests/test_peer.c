/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_peer.c: a node that is behind, or whose page store cannot be used, gets
 * on with the help of others: whom it asks for log, how much at a time, and
 * what a store made anew waits for.  The node is real, its host is in memory
 * (fakehost.h), the other nodes are the test: what they have, and say, is in
 * `world`.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/au_wire_export.h"
#include "core/au_node_gossip.h"
#include "tests/fakenode.h"
#include "tests/viewmake.h"

#define BASE ((AuLsn) 0x40000000)	/* farther than the log may be ahead of pages */
#define CONNS 64
#define SELF 5					/* see view_join */

static struct
{
	FakeConn   *conn[CONNS];	/* from the node to others */
	char		address[CONNS][AU_ADDRESS_MAX];
	int			nconns;			/* so far */
	AuLsn		end[CONNS];		/* log that node hostN has */
	AuLsn		asked_from;		/* of the last GET_LOG */
	int			asked_node;		/* of whom */
	int			logs;			/* GET_LOG so far */
	bool		uncommitted;	/* no quorum is known to hold it */
	AuLsn		gone;			/* they keep no log below */
	AuLsn		upto;			/* position of the others' stores */
	bool		busy;			/* they do not tell it yet */
	int			mends;			/* mend_begin so far */
	int			ended;			/* mend_end */
	bool		asks_leave;		/* to throw its store away, or gives it back */
	bool		leave_on;
} world;

static uint64_t
id_of(int i)
{
	return view_join((uint64_t) i, "").node.node_id;
}

/* ---- the host's part ----------------------------------------------------- */

static void *
peer_open(void *ctx, const char *address, AuConn *node_conn)
{
	FakeConn   *c = calloc(1, sizeof(*c));

	(void) ctx;
	assert_true(world.nconns < CONNS);
	c->reading = true;
	c->conn = node_conn;
	snprintf(world.address[world.nconns], AU_ADDRESS_MAX, "%s", address);
	world.conn[world.nconns++] = c;
	return c;
}

static AuStatus
mend_begin(void *ctx, void *vol, const AuStorePosition *position, bool all, char *err, size_t errlen)
{
	(void) ctx;
	(void) vol;
	(void) position;
	(void) all;
	(void) err;
	(void) errlen;
	world.mends++;
	return AU_OK;
}

static bool
mend_want(void *ctx, void *vol, uint8_t *what, AuPlace *place, AuSliceSet *slices)
{
	(void) ctx;
	(void) vol;
	(void) what;
	(void) place;
	(void) slices;
	return false;				/* all is in */
}

static AuStatus
mend_end(void *ctx, void *vol, AuLsn log_start, char *err, size_t errlen)
{
	FakeVolume *v = vol;

	(void) ctx;
	(void) err;
	(void) errlen;
	world.ended++;
	if (log_start != 0)
	{
		assert_int_equal(log_start, world.upto);
		v->log_start = v->log_end = v->log_durable = log_start;
	}
	v->persisted_applied = v->persisted_restart = world.upto;
	return AU_OK;
}

static void
mend_drop(void *ctx, void *vol)
{
	(void) ctx;
	(void) vol;
}

static void
mend_whole(void *ctx, void *vol)
{
	(void) ctx;
	(void) vol;
}

/* The cluster lets it. */
static bool
mending(void *ctx, void *vol, bool on, uint64_t epoch)
{
	(void) ctx;
	(void) vol;
	(void) epoch;
	world.asks_leave = true;
	world.leave_on = on;
	return true;
}

/* The store has all that it is to have. */
static void
store_slices(void *ctx, void *vol, AuSlicesState *out)
{
	(void) ctx;
	(void) vol;
	memset(out, 0, sizeof(*out));
	memset(&out->kept, 0xff, sizeof(out->kept));
	out->lasting = out->kept;
}

static bool
store_slices_keep(void *ctx, void *vol, const AuSliceSet *slices)
{
	(void) ctx;
	(void) vol;
	(void) slices;
	return false;
}

static void
store_slices_drop(void *ctx, void *vol, const AuSliceSet *slices)
{
	(void) ctx;
	(void) vol;
	(void) slices;
}

/* keep: bytes of log for others, 0: as usual */
static void
begin_keeping(bool alone, uint64_t keep)
{
	AuNodeOptions opt = {
		.node_id = id_of(SELF),.alone = alone,.mend_bytes_per_s = 1 << 20,.keep_bytes = keep
	};

	memset(&world, 0, sizeof(world));
	fake_host_start(&H, &opt);
	au_node_free(H.node);
	H.host.peer_open = peer_open;
	H.host.mend_begin = mend_begin;
	H.host.mend_want = mend_want;
	H.host.mend_end = mend_end;
	H.host.mend_drop = mend_drop;
	H.host.mend_whole = mend_whole;
	H.host.mending = mending;
	H.host.store_slices = store_slices;
	H.host.store_slices_keep = store_slices_keep;
	H.host.store_slices_drop = store_slices_drop;
	H.node = au_node_new(&H.host, &opt);
	fn_start_log(BASE);
}

static void
begin(bool alone)
{
	begin_keeping(alone, 0);
}

static void
finish(void)
{
	for (int i = 0; i < world.nconns; i++)
		if (world.conn[i] != NULL)
		{
			fake_conn_end(&H, world.conn[i]);
			free(world.conn[i]);
		}
	fn_finish();
}

/* ---- the other nodes ------------------------------------------------------ */

static void
give_log(FakeConn *c, int node, uint64_t id, const AuMsgGetLog *m)
{
	static uint8_t bytes[64 << 10];
	AuMsgLog	log = {.lsn = m->lsn,.commit_lsn = world.uncommitted ? BASE : world.end[node],.bytes = bytes};

	if (m->lsn < world.end[node])
	{
		log.length = m->length < sizeof(bytes) ? m->length : sizeof(bytes);
		if (log.length > world.end[node] - m->lsn)
			log.length = (uint32_t) (world.end[node] - m->lsn);
		if (m->lsn >= fn.wal.base && m->lsn + log.length <= walmake_pos(&fn.wal))
			log.bytes = fn.wal.buf + (m->lsn - fn.wal.base);
	}
	FN_SEND(c, au_enc_log, id, &log);
}

static void
answer(FakeConn *c, int node, const AuFrame *f)
{
	AuMsgHelloOk hello = {.node_id = id_of(node),.volume_known = 1};
	AuMsgGetLog get;
	AuMsgHold	hold;
	AuMsgHoldOk held = {0};

	if (f->type == AU_MSG_HELLO)
		FN_SEND(c, au_enc_hello_ok, f->id, &hello);
	else if (f->type == AU_MSG_GET_LOG)
	{
		assert_true(au_dec_get_log(f, &get));
		world.logs++;
		world.asked_from = get.lsn;
		world.asked_node = node;
		if (get.lsn >= world.gone)
			give_log(c, node, f->id, &get);
		else
			FN_SEND(c, au_enc_error, f->id, AU_GONE, "log is no longer kept", "");
	}
	else if (f->type == AU_MSG_HOLD_LSN)
	{
		assert_true(au_dec_hold(f, &hold));
		FN_SEND(c, au_enc_hold_ok, f->id, &held);
	}
	else if (f->type == AU_MSG_EXPORT && !world.busy)
	{
		static AuMsgExportOk ok;

		ok = (AuMsgExportOk)
		{
			.start_lsn = BASE,.log_lsn = BASE,.segment_size = WALMAKE_SEGMENT,.timeline = 1,
			.position = {
				.applied = world.upto,.restart = world.upto,.horizon = BASE,.gc_done = BASE
			}
		};
		FN_SEND(c, au_enc_export_ok, f->id, &ok);
	}
}

/* All that was asked is answered; connections that were given up end. */
static void
others_work(void)
{
	for (int i = 0; i < world.nconns; i++)
	{
		FakeConn   *c = world.conn[i];

		while (c != NULL && !c->closed && c->out_len > 0)
		{
			AuFrame		f = fn_take(c, 0);

			answer(c, atoi(world.address[i] + 4), &f);
		}
		if (c != NULL && c->closed)
		{
			fake_conn_end(&H, c);
			free(c);
			world.conn[i] = NULL;
		}
	}
}

/* us go by, in steps; the disk: everything is synced and written at once. */
static void
run(uint64_t us, bool disk)
{
	for (uint64_t end = H.now + us; H.now < end; H.now += 10000)
	{
		for (int k = 0; k < 100 && au_node_run(H.node) == 0; k++)
			;
		others_work();
		if (world.asks_leave)
		{
			world.asks_leave = false;
			au_node_mending_told(H.node, &H.vol, world.leave_on, AU_OK, NULL);
		}
		if (disk && H.vol.syncing_to != 0)
			fake_sync_done(&H, AU_OK);
		if (disk && H.vol.writing)
			fake_write_done(&H, AU_OK);
	}
}

/* ---- groups and views ------------------------------------------------------ */

static AuGroup
group_of(uint32_t epoch, int n, const int *nodes)
{
	AuGroup		g = {.epoch = epoch,.n = (uint8_t) n,.write_quorum = (uint8_t) (n / 2 + 1)};

	for (int i = 0; i < n; i++)
	{
		g.members[i].node_id = id_of(nodes[i]);
		snprintf(g.members[i].address, AU_ADDRESS_MAX, "host%d:7100", nodes[i]);
	}
	return g;
}

/* Nodes 1, 2 and this one keep the log (member), or 1 to 3, and this one follows. */
static void
set_view(bool member)
{
	static AuView v;
	AuViewCommand c[] = {
		view_init(3), view_join(1, ""), view_join(2, ""), view_join(member ? SELF : 3, ""),
		{.type = AU_VIEW_VOLUME_ADD,.system_identifier = FN_SYSID,.write_quorum = 2,.ngroup = 3},
		{.type = AU_VIEW_GROUP_SETTLED,.system_identifier = FN_SYSID,.group_epoch = 1},
		view_join(member ? 3 : SELF, "")
	};
	char		err[256];
	bool		changed;

	memset(&v, 0, sizeof(v));
	for (size_t i = 0; i < sizeof(c) / sizeof(*c); i++)
		if (au_view_apply(&v, &c[i], &changed, err, sizeof(err)) != AU_OK)
			fail_msg("command %zu: %s", i, err);
	assert_int_equal(au_node_set_view(H.node, &v), AU_OK);
}

/* A volume that is found at start, with log from BASE on to `end`. */
static void
found_volume(AuLsn end, bool voted, const AuGroup *g, const char *damage)
{
	AuVolumeMeta meta = {
		.system_identifier = FN_SYSID,.start_lsn = BASE,.timeline = voted,
		.segment_size = WALMAKE_SEGMENT,.group = *g
	};
	void	   *vol;
	char		err[512];

	if (voted)
	{
		meta.term = 1;
		assert_true(au_history_push(&meta.history, 1, BASE, 1));
	}
	assert_int_equal(fake_volume_create(&H, &meta, &vol, err, sizeof(err)), AU_OK);
	H.vol.log = calloc(1, (size_t) (end - BASE) + 1);
	if (end <= walmake_pos(&fn.wal))
		memcpy(H.vol.log, fn.wal.buf + (BASE - fn.wal.base), (size_t) (end - BASE));
	H.vol.log_end = H.vol.log_durable = end;
	if (damage != NULL)
		assert_int_equal(au_node_add_damaged(H.node, &meta, vol, damage), AU_OK);
	else
		assert_int_equal(au_node_add_volume(H.node, &meta, vol, err, sizeof(err)), AU_OK);
}

/* A member whose log and pages have all there is. */
static void
begin_with_log(const AuGroup *g)
{
	begin(false);
	fn_add_records(20);
	world.upto = fn.wal.last_end;
	found_volume(walmake_pos(&fn.wal), true, g, NULL);
}

/* A writer is elected; commit: what it says the quorum holds. */
static void
elect(FakeConn *c, uint64_t term, const AuGroup *g, AuLsn commit, AuMsgVoteOk *voted)
{
	AuMsgVote	vote = {
		.term = term,.writer_id = term,.timeline = 1,.wal_segment_size = WALMAKE_SEGMENT,
		.start_lsn = BASE,.may_create = 1,.group = *g
	};
	AuMsgElect	elect = {
		.term = term,.writer_id = term,.timeline = 1,.commit_lsn = commit,.group = *g
	};
	AuFrame		f;

	(void) fn_open(c, AU_ROLE_WRITER);
	FN_SEND(c, au_enc_vote, 2, &vote);
	run(100000, true);
	f = fn_take(c, AU_MSG_VOTE_OK);
	assert_true(au_dec_vote_ok(&f, voted));
	assert_int_equal(voted->granted, 1);
	elect.history = voted->history;
	assert_true(au_history_push(&elect.history, term, voted->durable_lsn, 1));
	FN_SEND(c, au_enc_elect, 3, &elect);
	run(100000, true);
}

/* The writer has log up to here, and sends none. */
static void
writer_tells(FakeConn *c, uint64_t term, AuLsn lsn, AuLsn commit)
{
	AuMsgAppend m = {.term = term,.timeline = 1,.lsn = lsn,.commit_lsn = commit};

	FN_SEND(c, au_enc_append, 9, &m);
}

/* ---- tests ----------------------------------------------------------------- */

/* A member that was away does not wait for its disk before it asks for more,
 * but does not get ahead of it without bound. */
static void
test_catches_up(void **state)
{
	AuGroup		g = group_of(0, 3, (int[]) {SELF, 1, 2});
	AuMsgVoteOk voted;
	FakeConn	w;
	int			logs;

	(void) state;
	begin(false);
	elect(&w, 1, &g, 0, &voted);
	world.end[1] = world.end[2] = BASE + (200 << 20);
	world.uncommitted = true;
	writer_tells(&w, 1, world.end[1], 0);
	run(20000000, false);
	assert_true(H.vol.log_end - BASE > AU_NODE_UNSYNCED_MAX / 4);
	assert_true(H.vol.log_end - BASE <= AU_NODE_UNSYNCED_MAX / 2);
	logs = world.logs;
	run(1000000, false);
	assert_int_equal(world.logs, logs);	/* waits for the disk */
	fake_sync_done(&H, AU_OK);
	run(1000000, false);
	assert_true(world.logs > logs);
	fake_conn_end(&H, &w);
	finish();
}

/* Node i says by gossip how much of the log it has. */
static void
tell_durable(FakeConn *c, int i, uint64_t heartbeat, AuLsn durable)
{
	static AuMsgGossip m;

	m = (AuMsgGossip)
	{
		.kind = AU_GOSSIP_PING,.cluster_id = 0xc1,.self = {id_of(i), 7, AU_GOSSIP_ALIVE, ""},
		.nmarks = 1,.marks = {{.node_id = id_of(i),.heartbeat = heartbeat,.nvolumes = 1,
		.volumes = {{FN_SYSID, durable, durable, durable}}}}
	};
	snprintf(m.self.address, sizeof(m.self.address), "host%d:7100", i);
	FN_SEND(c, au_enc_gossip, 1 + heartbeat, &m);
	run(3000000, true);
}

/* A member may answer and get nothing; readers, or others' marks, know better. */
static void
follower(bool reader)
{
	AuGroup		g = group_of(1, 3, (int[]) {1, 2, 3});
	AuGossipOptions go = {.address = "host5:7100",.start = 500,.seed = 1};
	AuNodeGossipHost gh = {0};
	AuMsgHello	hello = {.system_identifier = FN_SYSID,.role = AU_ROLE_READER,.name = "r"};
	AuMsgGetPages get = {.rel = {1663, 5, 16384, 0},.nblocks = 1};
	FakeConn	r;
	AuLsn		at;
	int			deaf;

	begin(false);
	fn_add_records(10);
	at = walmake_pos(&fn.wal);
	fn_add_records(10);
	set_view(false);
	assert_int_equal(au_node_gossip_start(H.node, &gh, &go), AU_OK);
	found_volume(at, false, &g, NULL);
	for (int i = 1; i <= 3; i++)
		world.end[i] = at;
	run(3000000, true);
	assert_true(world.logs > 0);
	deaf = world.asked_node;
	run(3000000, true);
	assert_int_equal(world.asked_node, deaf);	/* it has all there is */
	for (int i = 1; i <= 3; i++)
		world.end[i] = i == deaf ? at : walmake_pos(&fn.wal);
	run(3000000, true);
	assert_int_equal(world.asked_node, deaf);
	assert_true(fn_stats().applied <= at);
	fake_conn_open(&H, &r);
	if (reader)
	{
		get.read_lsn = get.not_before = walmake_pos(&fn.wal);
		FN_SEND(&r, au_enc_hello, 1, &hello);
		FN_SEND(&r, au_enc_get_pages, 2, &get);
	}
	else
	{
		hello.role = AU_ROLE_NODE;
		hello.system_identifier = 0;
		FN_SEND(&r, au_enc_hello, 1, &hello);
		tell_durable(&r, 1, 3, walmake_pos(&fn.wal));
	}
	run(3000000, true);
	assert_int_not_equal(world.asked_node, deaf);
	assert_int_equal(H.vol.log_end, walmake_pos(&fn.wal));
	assert_int_equal(fn_stats().applied, fn.wal.last_end);
	fake_conn_end(&H, &r);
	finish();
}

static void
test_follower_reader(void **state)
{
	(void) state;
	follower(true);
}

static void
test_follower_gossip(void **state)
{
	(void) state;
	follower(false);
}

/* However little log is kept for others: what no owner of a slice is known to have
 * stays.  (Node 1 owns all slices, the others are yet to copy them.) */
static void
test_kept_for_owners(void **state)
{
	AuGroup		g = group_of(1, 3, (int[]) {1, 2, SELF});
	AuGossipOptions go = {.address = "host5:7100",.start = 500,.seed = 1};
	AuNodeGossipHost gh = {0};
	AuMsgHello	hello = {.role = AU_ROLE_NODE,.name = "r"};
	AuMsgVoteOk voted;
	FakeConn	r,
				w;
	AuLsn		some;

	(void) state;
	begin_keeping(false, 1);
	fn_add_records(10);
	some = walmake_pos(&fn.wal);
	fn_add_records(10);
	set_view(true);
	assert_int_equal(au_node_gossip_start(H.node, &gh, &go), AU_OK);
	found_volume(walmake_pos(&fn.wal), true, &g, NULL);
	elect(&w, 2, &g, walmake_pos(&fn.wal), &voted);
	run(70000000, true);
	assert_true(H.vol.persisted_restart > some);
	assert_int_equal(H.vol.trimmed, 0);
	fake_conn_open(&H, &r);
	FN_SEND(&r, au_enc_hello, 1, &hello);
	tell_durable(&r, 2, 3, walmake_pos(&fn.wal));
	assert_int_equal(H.vol.trimmed, 0);
	tell_durable(&r, 1, 3, some);
	assert_int_equal(H.vol.trimmed, some);
	tell_durable(&r, 1, 4, walmake_pos(&fn.wal));
	assert_int_equal(H.vol.trimmed, H.vol.persisted_restart - 1);
	fake_conn_end(&H, &r);
	fake_conn_end(&H, &w);
	finish();
}

/* A follower, or one that was in the group once, whose page store cannot be
 * opened at the start gets log nevertheless, and a new store. */
static void
damaged_follower(bool voted)
{
	AuGroup		g = group_of(1, 3, voted ? (int[]) {1, 2, SELF} : (int[]) {1, 2, 3});
	AuLsn		at;

	begin(false);
	fn_add_records(10);
	at = walmake_pos(&fn.wal);
	fn_add_records(10);
	world.upto = fn.wal.last_end;
	for (int i = 1; i <= 3; i++)
		world.end[i] = walmake_pos(&fn.wal);
	set_view(false);
	found_volume(at, voted, &g, "its MANIFEST is damaged");
	run(5000000, true);
	assert_int_equal(H.vol.log_end, walmake_pos(&fn.wal));
	assert_int_equal(world.ended, 1);
	assert_int_equal(fn_stats().mends, 1);
	assert_string_equal(fn_stats().state, "ok");
	assert_int_equal(fn_stats().applied, fn.wal.last_end);
	finish();
}

static void
test_damaged_follower(void **state)
{
	(void) state;
	damaged_follower(false);
}

static void
test_damaged_former_member(void **state)
{
	(void) state;
	damaged_follower(true);
}

/*
 * One that votes was away until nobody keeps the log that it needs: as long as
 * pages and log are not exchanged it has what it had, a part of which no quorum
 * held; then it has more, and all that it promised.
 */
static void
member_left_behind(bool cluster)
{
	AuGroup		g = group_of(cluster, 3, (int[]) {1, 2, SELF});
	AuMsgVoteOk voted;
	FakeConn	w,
				w2,
				w3;
	AuLsn		at;

	begin(false);
	fn_add_records(10);
	at = walmake_pos(&fn.wal);
	fn_add_records(10);
	world.gone = world.upto = fn.wal.last_end;
	fn_add_records(10);
	for (int i = 1; i <= 3; i++)
		world.end[i] = walmake_pos(&fn.wal);
	world.busy = true;
	if (cluster)
		set_view(true);
	found_volume(at, true, &g, NULL);
	elect(&w, 2, &g, BASE, &voted);
	writer_tells(&w, 2, walmake_pos(&fn.wal), walmake_pos(&fn.wal));
	run(10000000, true);
	assert_string_equal(fn_stats().state, "left behind");
	assert_non_null(strstr(fn_stats().problem, "are made anew from theirs"));
	elect(&w2, 3, &g, BASE, &voted);
	assert_int_equal(voted.durable_lsn, at);
	assert_int_equal(world.ended, 0);
	world.busy = false;
	run(100000000, true);
	assert_int_equal(world.ended, 1);
	assert_string_equal(fn_stats().state, "ok");
	assert_int_equal(H.vol.log_start, world.upto);
	assert_int_equal(H.vol.log_end, walmake_pos(&fn.wal));
	assert_int_equal(fn_stats().applied, fn.wal.last_end);
	assert_int_equal(H.vol.meta.term, 3);
	/* the connection that has seen other positions is over */
	assert_true(w2.closed);
	elect(&w3, 4, &g, BASE, &voted);
	assert_int_equal(voted.durable_lsn, walmake_pos(&fn.wal));
	assert_int_equal(au_history_last(&voted.history, voted.durable_lsn), 3);
	fake_conn_end(&H, &w);
	fake_conn_end(&H, &w2);
	fake_conn_end(&H, &w3);
	finish();
}

static void
test_listed_member_left_behind(void **state)
{
	(void) state;
	member_left_behind(false);
}

static void
test_cluster_member_left_behind(void **state)
{
	(void) state;
	member_left_behind(true);
}

/* Log that only this node is known to have is not what a new store is put on. */
static void
test_log_vouched_for(void **state)
{
	AuGroup		g = group_of(0, 3, (int[]) {SELF, 1, 2});
	AuMsgVoteOk voted;
	FakeConn	w;

	(void) state;
	begin_with_log(&g);
	au_node_damaged(H.node, &H.vol, "a page is damaged");
	run(5000000, true);
	assert_int_equal(world.mends, 1);
	assert_int_equal(world.ended, 0);
	elect(&w, 2, &g, walmake_pos(&fn.wal), &voted);
	run(5000000, true);
	assert_int_equal(world.ended, 1);
	assert_int_equal(fn_stats().mends, 1);
	fake_conn_end(&H, &w);
	finish();
}

/* The disk that damaged the old store damages the new one. */
static void
test_not_opened(void **state)
{
	AuGroup		g = group_of(0, 3, (int[]) {SELF, 1, 2});
	AuMsgVoteOk voted;
	FakeConn	w;

	(void) state;
	begin_with_log(&g);
	elect(&w, 2, &g, walmake_pos(&fn.wal), &voted);
	H.vol.reopen_status = AU_CORRUPT;
	au_node_damaged(H.node, &H.vol, "a page is damaged");
	run(10000000, true);
	assert_int_equal(world.ended, 1);
	assert_string_equal(fn_stats().state, "store stalled");
	H.vol.reopen_status = AU_OK;
	H.vol.persisted_applied = H.vol.persisted_restart = BASE - 1;	/* nor does it fit the log */
	run(20000000, true);
	assert_int_equal(world.mends, 1);
	run(80000000, true);
	assert_true(world.mends >= 2);
	assert_int_equal(fn_stats().mends, 1);
	assert_string_equal(fn_stats().state, "ok");
	fake_conn_end(&H, &w);
	finish();
}

static void
ask_vote(FakeConn *c, uint64_t id, uint64_t term, const AuGroup *g)
{
	AuMsgVote	m = {
		.term = term,.writer_id = term,.timeline = 1,.wal_segment_size = WALMAKE_SEGMENT,
		.start_lsn = BASE,.may_create = 1,.group = *g
	};

	FN_SEND(c, au_enc_vote, id, &m);
	run(100000, true);
}

static void
let_in(FakeConn *c, uint64_t id, uint64_t term, AuLsn start, const AuGroup *g)
{
	AuMsgElect	m = {
		.term = term,.writer_id = term,.timeline = 1,.commit_lsn = BASE,.group = *g
	};

	assert_true(au_history_push(&m.history, 1, BASE, 1));
	assert_true(au_history_push(&m.history, term, start, 1));
	FN_SEND(c, au_enc_elect, id, &m);
	run(100000, true);
}

/*
 * Its landing log was damaged, and is begun anew: it has no vote, and lets in
 * nobody of a term that it may have voted in; one who was elected without it
 * gives it its log, and with that its vote.
 */
static void
test_log_lost(void **state)
{
	AuGroup		g = group_of(0, 3, (int[]) {SELF, 1, 2});
	AuVolumeMeta meta = {
		.system_identifier = FN_SYSID,.start_lsn = BASE,.timeline = 1,.term = 4,.voted_for = 4,
		.segment_size = WALMAKE_SEGMENT,.group = g,.lost_before = 5
	};
	AuMsgVoteOk voted;
	AuMsgElectOk in;
	AuFrame		f;
	FakeConn	w,
				w2;
	AuLsn		elected;
	void	   *vol;
	char		err[512];

	(void) state;
	begin(false);
	fn_add_records(100);
	elected = walmake_pos(&fn.wal);
	world.end[1] = world.end[2] = BASE; /* not yet */
	assert_true(au_history_push(&meta.history, 1, BASE, 1));
	assert_int_equal(fake_volume_create(&H, &meta, &vol, err, sizeof(err)), AU_OK);
	H.vol.log = calloc(1, 1);
	/* the pages need log from above where it begins, and have more than there is */
	H.vol.applied = H.vol.restart = H.vol.persisted_applied = H.vol.persisted_restart = fn.wal.last_end;
	assert_int_equal(au_node_add_volume(H.node, &meta, vol, err, sizeof(err)), AU_OK);
	assert_string_equal(fn_stats().state, "log lost");

	(void) fn_open(&w, AU_ROLE_WRITER);
	ask_vote(&w, 2, 5, &g);
	fn_answer_error(&w, 2, AU_LOST, "it has no vote before a server gets term 5");
	let_in(&w, 3, 4, elected, &g);
	fn_answer_error(&w, 3, AU_LOST, "no vote");
	assert_int_equal(H.vol.meta.term, 4);
	let_in(&w, 4, 5, elected, &g);
	f = fn_answer(&w, AU_MSG_ELECT_OK, 4);
	assert_true(au_dec_elect_ok(&f, &in));
	assert_int_equal(in.received_lsn, BASE);
	world.end[1] = world.end[2] = elected;
	/* the log comes, but the disk cannot say so yet */
	H.save_status = AU_FULL;
	writer_tells(&w, 5, elected, elected);
	run(5000000, true);
	assert_int_equal(fn_stats().durable, elected);
	assert_string_equal(fn_stats().state, "log lost");
	H.save_status = AU_OK;
	run(3000000, true);
	assert_string_equal(fn_stats().state, "ok");
	assert_int_equal(H.vol.meta.lost_before, 0);
	elect(&w2, 6, &g, elected, &voted);
	assert_int_equal(voted.durable_lsn, elected);
	assert_int_equal(au_history_last(&voted.history, voted.durable_lsn), 5);
	fake_conn_end(&H, &w);
	fake_conn_end(&H, &w2);
	finish();
}

/* What a node held alone counts as held when others come to its group. */
static void
test_alone_no_more(void **state)
{
	AuGroup		g = group_of(0, 1, (int[]) {SELF});
	AuGroup		more = group_of(1, 2, (int[]) {SELF, 1});
	AuMsgAppend m = {.term = 1,.timeline = 1,.lsn = BASE};
	AuMsgVoteOk voted;
	FakeConn	w,
				w2;

	(void) state;
	begin(true);
	elect(&w, 1, &g, 0, &voted);
	fn_add_records(20);
	m.bytes = fn.wal.buf + (BASE - fn.wal.base);
	m.length = (uint32_t) (walmake_pos(&fn.wal) - BASE);
	FN_SEND(&w, au_enc_append, 9, &m);
	run(100000, true);
	assert_int_equal(fn_stats().applied, fn.wal.last_end);
	elect(&w2, 2, &more, 0, &voted);
	assert_int_equal(voted.commit_lsn, walmake_pos(&fn.wal));
	assert_true(fn_stats().commit >= fn_stats().applied);
	fake_conn_end(&H, &w);
	fake_conn_end(&H, &w2);
	finish();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_catches_up),
		cmocka_unit_test(test_follower_reader),
		cmocka_unit_test(test_follower_gossip),
		cmocka_unit_test(test_kept_for_owners),
		cmocka_unit_test(test_damaged_follower),
		cmocka_unit_test(test_damaged_former_member),
		cmocka_unit_test(test_listed_member_left_behind),
		cmocka_unit_test(test_cluster_member_left_behind),
		cmocka_unit_test(test_log_vouched_for),
		cmocka_unit_test(test_not_opened),
		cmocka_unit_test(test_log_lost),
		cmocka_unit_test(test_alone_no_more),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
