/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_writer.c: a server that writes WAL, and its log shipper around the
 * proposer.  What it has flushed it never loses, as PostgreSQL does not; what
 * it ships is flushed.  A copy of it is another one that goes its own way.
 */
#include "sim/sim.h"

#include <stdlib.h>

#include "common/au_heap.h"
#include "common/au_page.h"

static SimWriter *
me(void *ctx)
{
	return ctx;
}

static uint64_t
now_us(void *ctx)
{
	return me(ctx)->sim->now;
}

static uint64_t
host_random(void *ctx)
{
	return sim_random(me(ctx)->sim);
}

static void
host_log(void *ctx, bool warning, const char *message)
{
	(void) warning;
	sim_say(me(ctx)->sim, "writer %d: %s", me(ctx)->index, message);
}

static void
host_connect(void *ctx, uint32_t i)
{
	SimWriter  *w = me(ctx);
	SimLink    *l = sim_net_open(w->sim, SIM_WHO_WRITER + w->index,
								 atoi(au_proposer_address(w->proposer, i) + 1),
								 (void *) (uintptr_t) (i + 1));

	if (l == NULL)
		abort();				/* SIM_LINKS_MAX is generous */
	w->links[i] = l;
	w->link_serial[i] = l->serial;
}

static void
host_disconnect(void *ctx, uint32_t i)
{
	SimWriter  *w = me(ctx);

	if (w->links[i] != NULL && w->links[i]->used && w->links[i]->serial == w->link_serial[i])
		sim_net_close(w->sim, w->links[i], 0);
	w->links[i] = NULL;
}

static void
host_send(void *ctx, uint32_t i, const uint8_t *bytes, size_t len)
{
	SimWriter  *w = me(ctx);

	if (w->links[i] != NULL)
		sim_net_send(w->sim, w->links[i], 0, bytes, len);
	au_proposer_sent(w->proposer, i, len);
}

/* ---- the server ------------------------------------------------------- */

/* A transaction: one record that makes a page anew. */
static void
write_record(SimWriter *w)
{
	Sim		   *s = w->sim;
	uint8_t		memory[2048];
	uint8_t		item[600];
	AuOps		ops;
	uint16_t	len = (uint16_t) (16 + sim_below(s, sizeof(item) - 16));
	AuLsn		start;

	for (size_t i = 0; i < sizeof(item); i += 8)
	{
		uint64_t	v = sim_random(s);

		memcpy(item + i, &v, 8);
	}
	au_ops_start(&ops, memory, sizeof(memory));
	au_ops_init(&ops, 0);
	au_ops_add(&ops, 1, len, item);
	start = walmake_ours(&w->wal, SIM_REL, sim_block(s, (uint32_t) sim_below(s, SIM_BLOCKS)), ops.data,
						 (uint16_t) ops.len);
	if (w->nends == w->ends_cap)
	{
		w->ends_cap = w->ends_cap * 2 + 256;
		w->ends = realloc(w->ends, w->ends_cap * sizeof(*w->ends));
		if (w->ends == NULL)
			abort();
	}
	w->ends[w->nends++] = (SimRecordEnd)
	{
		walmake_pos(&w->wal), start
	};
}

/* Back to the state after record i (0: none). */
static void
cut_wal(SimWriter *w, size_t records)
{
	w->nends = records;
	w->wal.len = records == 0 ? 40 : (size_t) (w->ends[records - 1].end - w->wal.base);
	w->wal.prev = records == 0 ? 0 : w->ends[records - 1].prev;
	w->wal.last_end = records == 0 ? 0 : w->ends[records - 1].end;
}

void
sim_writer_init(Sim *s, int index)
{
	SimWriter  *w = &s->writers[index];

	w->sim = s;
	w->index = index;
	w->host = (AuProposerHost)
	{
		w, now_us, host_random, au_heap_alloc, au_heap_release, host_log,
		host_connect, host_disconnect, host_send
	};
	walmake_start(&w->wal, SIM_BASE);
	walmake_page(&w->wal, 0, 0);
	cut_wal(w, 0);
	w->flushed = w->fed = walmake_pos(&w->wal);
}

void
sim_writer_copy(SimWriter *w, const SimWriter *from)
{
	Sim		   *s = w->sim;
	size_t		records = 0;
	size_t		most = 0;

	while (most < from->nends && from->ends[most].end <= from->flushed)
		most++;
	records = most > 40 ? most - sim_below(s, 40) : most;
	sim_say(s, "writer %d is a copy of writer %d, up to record %zu of %zu", w->index, from->index,
			records, from->nends);
	w->exists = true;
	w->made = from->made;
	w->wal.len = 0;
	walmake_raw(&w->wal, from->wal.buf, from->wal.len);
	w->ends = realloc(w->ends, from->nends * sizeof(*w->ends) + 1);
	if (w->ends == NULL)
		abort();
	memcpy(w->ends, from->ends, from->nends * sizeof(*w->ends));
	w->ends_cap = from->nends;
	cut_wal(w, records);
	w->flushed = walmake_pos(&w->wal);
	w->start_at = s->now;
}

/* ---- its shipper ------------------------------------------------------ */

static void
begin_session(SimWriter *w)
{
	Sim		   *s = w->sim;
	AuProposerOptions o = {
		.system_identifier = SIM_SYSID,.nodes = s->nnodes,.write_quorum = s->quorum,
		.timeline = 1,.wal_segment_size = WALMAKE_SEGMENT,
		.local_start = w->wal.base,.local_end = w->flushed,.may_create = !w->made,
		.create_lsn = SIM_BASE,.window_bytes = SIM_WINDOW
	};

	o.writer_id = sim_random(s);
	snprintf(o.name, sizeof(o.name), "writer %d", w->index);
	/* the list may be in any order */
	for (uint32_t i = 0; i < s->nnodes; i++)
		snprintf(o.addresses[i], sizeof(o.addresses[i]), "n%d", (int) ((i + (uint32_t) w->index) % s->nnodes));
	if (s->groups.on)
	{
		/* whoever it asks may be behind */
		uint32_t	epoch = !s->quiet && sim_one_in(s, 3) ?
			1 + (uint32_t) sim_below(s, s->groups.epoch) : s->groups.epoch;

		o.group = *sim_group(s, epoch);
		o.group_settled = epoch < s->groups.epoch || s->groups.settled;
	}
	memset(w->links, 0, sizeof(w->links));
	w->proposer = au_proposer_new(&w->host, &o);
	if (w->proposer == NULL)
		abort();
	w->fed = 0;
	w->up = true;
}

static void
end_session(SimWriter *w)
{
	if (w->proposer != NULL)
		au_proposer_free(w->proposer);
	w->proposer = NULL;
	sim_net_cut(w->sim, SIM_WHO_WRITER + w->index);
}

void
sim_writer_crash(SimWriter *w)
{
	size_t		records = w->nends;

	if (!w->up)
		return;
	sim_say(w->sim, "writer %d crashes", w->index);
	sim_trace(w->sim, 0xdead, (uint64_t) w->index);
	end_session(w);
	w->up = false;
	w->start_at = w->sim->now + 1000 + sim_below(w->sim, 2000000);
	while (records > 0 && w->ends[records - 1].end > w->flushed)
		records--;
	cut_wal(w, records);
	w->flushed = walmake_pos(&w->wal);
}

static void
feed(SimWriter *w)
{
	size_t		room;

	if (w->fed == 0)
		w->fed = au_proposer_next(w->proposer);
	room = au_proposer_room(w->proposer);
	if (w->flushed > w->fed && room > 0)
	{
		size_t		n = w->flushed - w->fed < room ? (size_t) (w->flushed - w->fed) : room;

		au_proposer_log(w->proposer, w->wal.buf + (w->fed - w->wal.base), n);
		w->fed += n;
	}
}

/* It looks at the view now and then, and tells it what it has done. */
static void
see_group(SimWriter *w)
{
	Sim		   *s = w->sim;

	if (sim_one_in(s, 400))
		au_proposer_set_group(w->proposer, sim_group(s, 0), s->groups.settled);
	if (au_proposer_settled(w->proposer) != 0)
		sim_group_settled(s, au_proposer_settled(w->proposer));
}

static void
session_tick(SimWriter *w)
{
	Sim		   *s = w->sim;
	const char *text;
	const char *hint;
	AuLsn		commit;

	(void) au_proposer_run(w->proposer);
	if (s->groups.on)
		see_group(w);
	if (au_proposer_state(w->proposer) == AU_PROPOSER_LEADING)
	{
		w->made = true;
		feed(w);
		(void) au_proposer_run(w->proposer);
		commit = au_proposer_commit(w->proposer);
		if (commit > w->acked)
		{
			sim_check_committed(s, w, commit);
			w->acked = commit;
		}
	}
	if (au_proposer_state(w->proposer) == AU_PROPOSER_ENDED)
	{
		AuProposerKind kind = au_proposer_trouble(w->proposer, &text, &hint);

		sim_say(s, "writer %d ended (%d): %s", w->index, (int) kind, text);
		sim_trace(s, 0xe4d, kind);
		w->ended_kinds[kind]++;
		end_session(w);
		if (kind == AU_PROPOSER_REFUSED)
			s->figures.refused++;
		w->stopped = kind != AU_PROPOSER_AGAIN;
		w->retry_at = s->now + 10000;
	}
}

void
sim_writer_tick(SimWriter *w)
{
	Sim		   *s = w->sim;

	if (!w->exists || w->stopped || w->paused_until > s->now)
		return;
	if (!w->up)
	{
		if (s->now < w->start_at)
			return;
		w->up = true;
	}
	if (w->proposer == NULL)
	{
		if (s->now >= w->retry_at)
			begin_session(w);
		return;
	}
	/* PostgreSQL holds writers back when storage is far behind. */
	if (walmake_pos(&w->wal) - w->acked < (s->views.on ? 60000 : 400000) && !s->quiet &&
		(s->swarm.idle == 0 || sim_one_in(s, s->swarm.idle)) &&
		!(s->views.careful && sim_view_lag(s, NULL) > 1))
		for (uint64_t i = sim_below(s, s->swarm.records + 1); i > 0; i--)
			write_record(w);
	if (s->quiet || sim_one_in(s, 3))
		w->flushed = walmake_pos(&w->wal);
	session_tick(w);
}

void
sim_writer_free(SimWriter *w)
{
	end_session(w);
	free(w->wal.buf);
	free(w->ends);
}
