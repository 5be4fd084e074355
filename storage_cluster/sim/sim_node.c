/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_node.c: the host of one storage node: its store, its end of the
 * connections, its clock; crashes, and planted bugs.  Its disk is in sim_disk.c.
 */
#include "sim/sim.h"

#include <stdlib.h>

#include "core/au_plant.h"

static SimNode *
me(void *ctx)
{
	return ctx;
}

/* ---- time, memory, words ---------------------------------------------- */

static uint64_t
now_us(void *ctx)
{
	SimNode    *n = me(ctx);

	/* its own clock: begun at another time, faster or slower than others */
	return n->clock_ahead + n->sim->now / 1000 * n->clock_permille;
}

static void *
node_alloc(void *ctx, size_t size)
{
	me(ctx)->allocated++;
	return malloc(size);
}

static void
node_release(void *ctx, void *p)
{
	me(ctx)->allocated--;
	free(p);
}

static void
node_log(void *ctx, AuLogLevel level, const char *message)
{
	SimNode    *n = me(ctx);

	if (strstr(message, "cutting off") != NULL)
		n->sim->figures.cuts++;
	if (strstr(message, "fenced off") != NULL)
		n->sim->figures.fenced++;
	if (level > AU_LOG_DEBUG)
		sim_say(n->sim, "node %d: %s", n->index, message);
}

static void
node_fatal(void *ctx, const char *message)
{
	SimNode    *n = me(ctx);

	n->failed = true;
	snprintf(n->why, sizeof(n->why), "%s", message);
	sim_say(n->sim, "node %d stops: %s", n->index, message);
}

static const char *
status_json(void *ctx, size_t *len)
{
	(void) ctx;
	*len = 2;
	return "{}";
}

/* ---- connections ------------------------------------------------------ */

static SimSide *
side_of(void *conn, SimLink **link)
{
	uintptr_t	v = (uintptr_t) conn;

	*link = (SimLink *) (v & ~(uintptr_t) 1);
	return &(*link)->side[v & 1];
}

static uint8_t *
send_alloc(void *ctx, size_t cap)
{
	return node_alloc(ctx, cap);
}

static void
send_give(void *ctx, void *conn, uint8_t *memory, size_t len)
{
	SimLink    *l;
	SimSide    *side = side_of(conn, &l);

	sim_net_send(me(ctx)->sim, l, side == &l->side[1], memory, len);
	node_release(ctx, memory);
	au_node_conn_sent(me(ctx)->node, side->conn, len);
}

static void
send_drop(void *ctx, uint8_t *memory)
{
	node_release(ctx, memory);
}

static void
set_reading(void *ctx, void *conn, bool on)
{
	SimLink    *l;

	(void) ctx;
	side_of(conn, &l)->reading = on;
}

/* The node's close becomes final in its next tick, as in the daemon. */
static void
node_close(void *ctx, void *conn)
{
	SimLink    *l;

	(void) ctx;
	side_of(conn, &l)->told = true;
}

static void *
handle_of(SimLink *l, int k)
{
	return (void *) ((uintptr_t) l | (uintptr_t) k);
}

static void *
peer_open(void *ctx, const char *address, AuConn *conn)
{
	SimNode    *n = me(ctx);
	int			to = atoi(address + 1);
	SimLink    *l = sim_net_open(n->sim, n->index, to, conn);

	return l != NULL ? handle_of(l, 0) : NULL;
}

bool
sim_node_accept(SimNode *n, SimLink *l)
{
	if (!n->up)
		return false;
	l->side[1].conn = au_node_conn_opened(n->node, handle_of(l, 1));
	return l->side[1].conn != NULL;
}

static void
finish_closes(SimNode *n)
{
	Sim		   *s = n->sim;

	for (int i = 0; i < SIM_LINKS_MAX; i++)
		for (int k = 0; k < 2; k++)
		{
			SimSide    *side = &s->links[i].side[k];

			if (!s->links[i].used || side->who != n->index || !side->told || side->closed)
				continue;
			side->closed = true;
			if (side->conn != NULL)
				au_node_conn_closed(n->node, side->conn);
		}
}

/* ---- the store -------------------------------------------------------- */

static AuStatus
store_apply(void *ctx, void *vol, const AuWalRecord *rec)
{
	SimNode    *n = vol;

	(void) ctx;
	if (rec->end <= n->applied || rec->nblocks == 0 ||
		!sim_slices_takes(n, sim_place(rec->blocks[0].page.blk), rec->end))
		return AU_OK;
	return sim_store_apply(&n->store, rec);
}

static bool
store_full(void *ctx, void *vol)
{
	(void) ctx;
	(void) vol;
	return false;
}

static bool
store_freeze(void *ctx, void *vol, AuLsn applied, AuLsn restart)
{
	SimNode    *n = vol;

	(void) ctx;
	if (n->writing)
		return false;
	n->frozen_applied = applied;
	n->frozen_restart = restart;
	sim_slices_freeze(n);
	return true;
}

static void
store_write_start(void *ctx, void *vol, bool persist)
{
	SimNode    *n = vol;

	(void) ctx;
	n->writing = true;
	n->write_persist = persist;
	n->write_due = n->sim->now + 1 + sim_below(n->sim, 20000);
}

static AuStatus
store_reopen(void *ctx, void *vol, char *err, size_t errlen)
{
	(void) ctx;
	snprintf(err, errlen, "cannot reopen");
	return sim_repair_switch(vol);
}

static void
store_positions(void *ctx, void *vol, AuLsn *applied, AuLsn *restart)
{
	(void) ctx;
	*applied = ((SimNode *) vol)->applied;
	*restart = ((SimNode *) vol)->restart;
}

static void
store_persisted(void *ctx, void *vol, AuLsn *applied, AuLsn *restart)
{
	(void) ctx;
	*applied = ((SimNode *) vol)->persisted_applied;
	*restart = ((SimNode *) vol)->persisted_restart;
}

static void
store_set_applied(void *ctx, void *vol, AuLsn applied)
{
	SimNode    *n = vol;

	(void) ctx;
	n->applied = applied;
	sim_trace(n->sim, (uint64_t) n->index, applied);
}

static AuLsn
store_horizon(void *ctx, void *vol)
{
	(void) ctx;
	return ((SimNode *) vol)->meta.start_lsn;
}

static AuLsn
store_last_change(void *ctx, void *vol)
{
	SimNode    *n = vol;

	(void) ctx;
	return n->store.n > 0 ? n->store.records[n->store.n - 1].end : n->applied;
}

static bool
store_rewind(void *ctx, void *vol, AuLsn lsn)
{
	if (store_last_change(ctx, vol) > lsn)
		return false;
	sim_slices_rewind(vol, lsn);
	return true;
}

static void
store_set_hold(void *ctx, void *vol, AuLsn lsn)
{
	(void) ctx;
	(void) vol;
	(void) lsn;
}

static bool
store_read(void *ctx, void *vol, AuPageBatch *b)
{
	(void) ctx;
	b->status = AU_OK;
	for (; b->done < b->nblocks && b->status == AU_OK; b->done++)
	{
		AuStatus	status = sim_store_read(&((SimNode *) vol)->store, sim_place(b->blocks[b->done]), b->lsn,
											au_pages_slot(&b->answer));

		if (status == AU_CORRUPT)
			b->status = status;
		else
			au_pages_add(&b->answer, status);
	}
	if (b->status != AU_OK)
	{
		snprintf(b->err, sizeof(b->err), "a version's checksum is wrong");
		return true;
	}
	if (!au_frame_end(&b->answer))
		abort();
	return true;
}

static AuStatus
store_size(void *ctx, void *vol, const AuRelId *rel, AuLsn lsn, uint32_t *nblocks)
{
	(void) ctx;
	(void) vol;
	(void) rel;
	(void) lsn;
	*nblocks = SIM_BLOCKS;
	return AU_OK;
}

static void
store_list(void *ctx, void *vol, uint32_t db,
		   void (*fn) (void *fnctx, const AuRelId *rel, uint32_t nblocks), void *fnctx)
{
	AuRelId		rel = {1663, db, SIM_REL, 0};

	(void) ctx;
	(void) vol;
	fn(fnctx, &rel, SIM_BLOCKS);
}

static bool
store_gc_step(void *ctx, void *vol)
{
	(void) ctx;
	sim_slices_step(vol);
	return false;
}

static const char *
store_error(void *ctx, void *vol)
{
	(void) ctx;
	(void) vol;
	return "the simulated store does not fail";
}

/* ---- life ------------------------------------------------------------- */

void
sim_node_init(Sim *s, int index)
{
	SimNode    *n = &s->nodes[index];

	n->sim = s;
	n->index = index;
	n->host = (AuNodeHost)
	{
		.ctx = n,.now_us = now_us,.alloc = node_alloc,.release = node_release,.log = node_log,
		.fatal = node_fatal,.status_json = status_json,.send_alloc = send_alloc,
		.send_give = send_give,.send_drop = send_drop,.set_reading = set_reading,.close = node_close,
		.peer_open = peer_open,.store_apply = store_apply,
		.store_full = store_full,.store_freeze = store_freeze,
		.store_write_start = store_write_start,.store_reopen = store_reopen,
		.store_positions = store_positions,.store_persisted = store_persisted,
		.store_set_applied = store_set_applied,.store_horizon = store_horizon,.store_set_hold = store_set_hold,
		.store_last_change = store_last_change,.store_rewind = store_rewind,
		.store_read = store_read,.store_size = store_size,.store_list = store_list,
		.store_gc_step = store_gc_step,.store_error = store_error
	};
	n->clock_ahead = s->swarm.clock_skew ? sim_below(s, 1u << 30) : 0;
	n->clock_permille = s->swarm.clock_skew ? 900 + sim_below(s, 200) : 1000;
	if (s->repair || s->behind || s->views.on)
		sim_repair_init(n);
	sim_disk_init(n);
	if (!s->views.on)
		return;
	sim_slices_init(n);
	sim_view_init_node(n);
}

/* What somebody is held for only moves up; only the node itself begins anew. */
static void
opinion(void *ctx, const AuGossipMember *m, uint8_t was)
{
	SimNode    *n = me(ctx);
	SimOpinion *o = n->opinions;

	while (o->node_id != m->r.node_id && o->node_id != 0)
		if (++o == n->opinions + SIM_OPINIONS_MAX)
			abort();
	sim_trace(n->sim, m->r.node_id << 8 | m->r.state, m->r.incarnation);
	if (m->r.incarnation < o->incarnation ||
		(m->r.incarnation == o->incarnation && m->r.state <= o->state))
		sim_fail(n->sim, "node %d held node %llu for %s in incarnation %llu, now for %s in %llu", n->index,
				 (unsigned long long) m->r.node_id, au_gossip_state_name(was),
				 (unsigned long long) o->incarnation, au_gossip_state_name(m->r.state),
				 (unsigned long long) m->r.incarnation);
	*o = (SimOpinion) {m->r.node_id, m->r.incarnation, m->r.state};
}

static void
start_gossip(SimNode *n)
{
	AuNodeGossipHost host = {.ctx = n,.opinion = opinion};
	char		address[16];
	AuGossipOptions opt = {.address = address,.start = now_us(n),.seed = sim_random(n->sim)};

	memset(n->opinions, 0, sizeof(n->opinions));
	snprintf(address, sizeof(address), "n%d", n->index);
	if (au_node_gossip_start(n->node, &host, &opt) != AU_OK)
		abort();
	for (uint32_t i = 0; i < n->sim->nnodes; i++)
	{
		snprintf(address, sizeof(address), "n%u", i);
		(void) au_node_gossip_seed(n->node, address);
	}
}

void
sim_node_start(SimNode *n)
{
	AuNodeOptions opt = {
		.node_id = sim_node_id(n),.alone = true,.mend_bytes_per_s = 64 << 20,
		.sync_bytes_per_s = n->sim->repair ? 64 << 20 : 0,.sync_rest_us = 500000,
		.keep_bytes = n->sim->swarm.keep_bytes,.persist_bytes = n->sim->swarm.persist_bytes,
		.drop_grace_us = 1000000
	};
	char		err[512];

	if (!sim_disk_open(n))
		return;
	n->failed = false;
	n->writing = false;
	n->written = n->persisted_applied;
	n->written_restart = n->persisted_restart;
	n->node = au_node_new(&n->host, &opt);
	if (n->node == NULL)
		abort();
	start_gossip(n);
	n->up = true;
	if (n->sim->views.on)
		sim_view_start(n);
	sim_trace(n->sim, 0x57a27, (uint64_t) n->index);
	if (n->exists && au_node_add_volume(n->node, &n->meta, n, err, sizeof(err)) != AU_OK)
		sim_fail(n->sim, "node %d does not start again: %s", n->index, err);
}

/* What the node holds others for must be right some time after the faults. */
const char *
sim_node_opinions(const SimNode *n)
{
	static char text[128];
	const Sim  *s = n->sim;

	for (uint32_t i = 0; i < s->nnodes; i++)
	{
		const SimNode *other = &s->nodes[i];
		const AuGossipMember *m = au_gossip_find(au_node_gossip(n->node), sim_node_id(other));

		/* one that was never seen need not be known */
		if (other == n || (m == NULL && !other->up))
			continue;
		if (m != NULL && m->r.state == (other->up ? AU_GOSSIP_ALIVE : AU_GOSSIP_DEAD))
			continue;
		snprintf(text, sizeof(text), "node %d holds node %u for %s, which is %s", n->index, i,
				 au_gossip_state_name(m != NULL ? m->r.state : 0), other->up ? "up" : "down");
		return text;
	}
	return NULL;
}

/* kill -9, or the power. */
void
sim_node_crash(SimNode *n)
{
	Sim		   *s = n->sim;

	if (!n->up)
		return;
	sim_say(s, "node %d crashes", n->index);
	sim_trace(s, 0xc4a54, (uint64_t) n->index);
	for (int i = 0; i < SIM_LINKS_MAX; i++)
		for (int k = 0; k < 2; k++)
		{
			SimSide    *side = &s->links[i].side[k];

			/* the memory of the dead node's connections */
			if (s->links[i].used && side->who == n->index && !side->closed && side->conn != NULL)
				au_node_conn_closed(n->node, side->conn);
		}
	sim_net_cut(s, n->index);
	sim_repair_crash(n);
	au_node_free(n->node);
	if (n->digests != 0)
		sim_fail(s, "node %d leaks %d digests", n->index, n->digests);
	n->node = NULL;
	n->up = false;
	n->start_at = s->now + 1000 + sim_below(s, 3000000);
	if (n->allocated != 0)
		sim_fail(s, "node %d leaks %ld blocks of memory", n->index, n->allocated);

	sim_disk_crash(n);
	if (s->opt.plant == SIM_PLANT_FORGOTTEN_VOTE && n->exists)
		n->meta = n->meta_before;
	sim_slices_crash(n);
	sim_store_cut(&n->store, n->persisted_applied);
	n->applied = n->persisted_applied;
	n->restart = n->persisted_restart;
}

void
sim_node_wipe(SimNode *n)
{
	sim_node_crash(n);
	sim_say(n->sim, "node %d has lost its directory", n->index);
	sim_trace(n->sim, 0x3153, (uint64_t) n->index);
	n->life++;
	sim_disk_wipe(n);
	sim_store_cut(&n->store, 0);
	sim_slices_begin(n, true);
	memset(&n->view, 0, sizeof(n->view));
	n->applied = n->restart = n->persisted_applied = n->persisted_restart = 0;
}

bool
sim_node_adopt(SimNode *n, const SimNode *from, const AuGroup *group)
{
	char		err[512];
	AuVolumeMeta meta = {
		.system_identifier = from->meta.system_identifier,.start_lsn = from->meta.start_lsn,
		.timeline = from->meta.timeline,.segment_size = from->meta.segment_size,.group = *group
	};

	if (!n->up || !from->exists || from->persisted_restart < from->log_start ||
		!sim_disk_adopt(n, &meta, from))
		return false;
	sim_store_copy(&n->store, &from->store, from->persisted_applied);
	n->applied = n->persisted_applied = from->persisted_applied;
	n->restart = n->persisted_restart = from->persisted_restart;
	sim_say(n->sim, "node %d has copied node %d, up to %X/%X", n->index, from->index,
			AU_LSN_ARGS(n->applied));
	sim_trace(n->sim, 0xad097, n->applied);
	if (au_node_add_volume(n->node, &n->meta, n, err, sizeof(err)) != AU_OK)
		sim_fail(n->sim, "node %d does not take the copy: %s", n->index, err);
	return true;
}

void
sim_node_follow(SimNode *n)
{
	Sim		   *s = n->sim;
	AuLsn		end = SIM_BASE + s->truth_len;

	if (n->up && n->exists && n->meta.term == 0 && n->paused_until <= s->now && n->log_end < end)
		sim_disk_put(n, s->truth + (n->log_end - SIM_BASE), (size_t) (end - n->log_end));
}

void
sim_node_tick(SimNode *n)
{
	Sim		   *s = n->sim;

	if (!n->up)
	{
		if (s->now >= n->start_at)
			sim_node_start(n);
		return;
	}
	if (n->paused_until > s->now)
		return;
	finish_closes(n);
	sim_disk_tick(n);
	if (s->repair || s->behind || s->views.on)
		sim_repair_tick(n);
	sim_slices_tick(n);
	if (n->writing && s->now >= n->write_due)
	{
		n->writing = false;
		n->written = n->frozen_applied;
		n->written_restart = n->frozen_restart;
		if (n->write_persist)
		{
			n->persisted_applied = n->frozen_applied;
			n->persisted_restart = n->frozen_restart;
		}
		sim_slices_written(n, n->write_persist);
		au_node_written(n->node, n, AU_OK, "");
	}
	for (int i = 0; i < 4 && !n->failed; i++)
		if (au_node_run(n->node) != 0)
			break;
	if (n->failed)
		sim_node_crash(n);
}

void
sim_node_free(SimNode *n)
{
	if (n->up)
		sim_node_crash(n);
	sim_disk_free(n);
	sim_store_free(&n->store);
	sim_store_free(&n->slices.gone);
}
