/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_net.c: connections as TCP gives them: bytes in order, late, in pieces of
 * any size; stalled by a partition, one-way or two-way; reset; now and then
 * with a bit flipped, which the frames' checksums must find, or twice.
 */
#include "sim/sim.h"

#include <stdlib.h>

static uint32_t
place(int who)
{
	return who < SIM_WHO_WRITER ? (uint32_t) who :
		who < SIM_WHO_READER ? SIM_NODES_MAX : SIM_NODES_MAX + 1;
}

static bool
blocked(const Sim *s, int from, int to)
{
	return s->blocked_until[place(from)][place(to)] > s->now;
}

SimLink *
sim_net_open(Sim *s, int from, int to, void *conn)
{
	for (int i = 0; i < SIM_LINKS_MAX; i++)
	{
		SimLink    *l = &s->links[i];

		if (l->used)
			continue;
		memset(l, 0, sizeof(*l));
		l->used = true;
		l->serial = ++s->link_serial;
		l->opened_at = s->now;
		l->side[0].who = from;
		l->side[0].conn = conn;
		l->side[0].reading = l->side[1].reading = true;
		l->side[1].who = to;
		return l;
	}
	return NULL;
}

static void
push_chunk(SimSide *to, SimChunk *c)
{
	if (to->last != NULL)
		to->last->next = c;
	else
		to->first = c;
	to->last = c;
}

void
sim_net_send(Sim *s, SimLink *l, int side, const uint8_t *bytes, size_t len)
{
	SimSide    *to = &l->side[!side];

	while (len > 0)
	{
		size_t		n = sim_one_in(s, 8) ? 1 + sim_below(s, len) : len;
		SimChunk   *c = malloc(sizeof(*c) + n);

		if (c == NULL)
			abort();
		c->next = NULL;
		c->due = s->now + 1 + sim_below(s, s->swarm.latency_us * 2);
		if (to->last != NULL && to->last->due > c->due)
			c->due = to->last->due;
		c->len = n;
		memcpy(c->bytes, bytes, n);
		if (!s->quiet && sim_one_in(s, s->swarm.corrupt))
		{
			s->figures.faults++;
			c->bytes[sim_below(s, n)] ^= (uint8_t) (1u << sim_below(s, 8));
		}
		push_chunk(to, c);
		/* whole messages that arrive twice: who repeats itself does no harm */
		if (n == len && !s->quiet && sim_one_in(s, s->swarm.twice))
		{
			SimChunk   *again = malloc(sizeof(*again) + n);

			if (again == NULL)
				abort();
			memcpy(again, c, sizeof(*c) + n);
			s->figures.faults++;
			push_chunk(to, again);
		}
		bytes += n;
		len -= n;
	}
}

void
sim_net_close(Sim *s, SimLink *l, int side)
{
	(void) s;
	l->side[side].closed = true;
	l->side[side].told = true;
}

void
sim_net_cut(Sim *s, int who)
{
	for (int i = 0; i < SIM_LINKS_MAX; i++)
		for (int k = 0; k < 2; k++)
			if (s->links[i].used && s->links[i].side[k].who == who)
				sim_net_close(s, &s->links[i], k);
}

/* ---- delivering ------------------------------------------------------- */

static void
free_link(SimLink *l)
{
	for (int k = 0; k < 2; k++)
	{
		while (l->side[k].first != NULL)
		{
			SimChunk   *c = l->side[k].first;

			l->side[k].first = c->next;
			free(c);
		}
		free(l->side[k].in);
	}
	l->used = false;
}

static SimWriter *
writer_of(Sim *s, SimLink *l, uint32_t *slot)
{
	SimWriter  *w = &s->writers[l->side[0].who - SIM_WHO_WRITER];

	*slot = (uint32_t) ((uintptr_t) l->side[0].conn - 1);
	return w->proposer != NULL && w->links[*slot] == l && w->link_serial[*slot] == l->serial ? w : NULL;
}

static void
node_input(Sim *s, SimLink *l, int k, const uint8_t *bytes, size_t len)
{
	SimSide    *me = &l->side[k];
	SimNode    *n = &s->nodes[me->who];
	size_t		need;
	size_t		used;

	me->in = realloc(me->in, me->in_len + len);
	if (me->in == NULL && me->in_len + len > 0)
		abort();
	if (len > 0)
		memcpy(me->in + me->in_len, bytes, len);
	me->in_len += len;
	if (!n->up || !me->reading || me->closed || me->in_len == 0)
		return;
	used = au_node_input(n->node, me->conn, me->in, me->in_len, &need);
	memmove(me->in, me->in + used, me->in_len - used);
	me->in_len -= used;
}

static void
deliver(Sim *s, SimLink *l, int k, const uint8_t *bytes, size_t len)
{
	SimSide    *me = &l->side[k];
	uint32_t	slot;
	SimWriter  *w;

	sim_trace(s, l->serial * 2 + (uint64_t) k, len);
	if (me->who < SIM_WHO_WRITER)
		node_input(s, l, k, bytes, len);
	else if (me->who < SIM_WHO_READER)
	{
		w = writer_of(s, l, &slot);
		if (w != NULL)
			au_proposer_input(w->proposer, slot, bytes, len);
	}
	else
		sim_reader_input(s, me->who - SIM_WHO_READER, bytes, len);
}

/* The other side is gone. */
static void
tell_closed(Sim *s, SimLink *l, int k)
{
	SimSide    *me = &l->side[k];
	uint32_t	slot;
	SimWriter  *w;

	me->told = true;
	sim_trace(s, l->serial, 77);
	if (me->who < SIM_WHO_WRITER)
	{
		if (s->nodes[me->who].up && me->conn != NULL && !me->closed)
			au_node_conn_closed(s->nodes[me->who].node, me->conn);
	}
	else if (me->who < SIM_WHO_READER)
	{
		w = writer_of(s, l, &slot);
		if (w != NULL)
		{
			w->links[slot] = NULL;
			au_proposer_closed(w->proposer, slot, "connection lost");
		}
	}
	else
		sim_reader_closed(s, me->who - SIM_WHO_READER);
	me->closed = true;
}

static bool
paused(const Sim *s, int who)
{
	if (who < SIM_WHO_WRITER)
		return s->nodes[who].paused_until > s->now;
	if (who < SIM_WHO_READER)
		return s->writers[who - SIM_WHO_WRITER].paused_until > s->now;
	return false;
}

static void
connect_now(Sim *s, SimLink *l)
{
	SimSide    *from = &l->side[0];
	uint32_t	slot;
	SimWriter  *w;

	if (!sim_node_accept(&s->nodes[l->side[1].who], l))
	{
		l->side[1].closed = l->side[1].told = true;
		return;
	}
	from->connected = l->side[1].connected = true;
	if (from->who >= SIM_WHO_WRITER && from->who < SIM_WHO_READER &&
		(w = writer_of(s, l, &slot)) != NULL)
		au_proposer_connected(w->proposer, slot);
}

static void
tick_side(Sim *s, SimLink *l, int k)
{
	SimSide    *me = &l->side[k];
	SimSide    *other = &l->side[!k];

	if (me->closed || paused(s, me->who))
		return;
	while ((k == 0 || me->connected) && me->first != NULL && me->first->due <= s->now &&
		   !blocked(s, other->who, me->who) && !me->closed)
	{
		SimChunk   *c = me->first;

		me->first = c->next;
		if (me->first == NULL)
			me->last = NULL;
		deliver(s, l, k, c->bytes, c->len);
		free(c);
	}
	/* a node that reads again */
	if (me->who < SIM_WHO_WRITER && !me->closed && me->in_len > 0)
		node_input(s, l, k, NULL, 0);
	if (other->closed && !me->closed && me->first == NULL && !blocked(s, other->who, me->who))
		tell_closed(s, l, k);
}

void
sim_net_tick(Sim *s)
{
	for (int i = 0; i < SIM_LINKS_MAX; i++)
	{
		SimLink    *l = &s->links[i];

		if (!l->used)
			continue;
		if (!l->side[1].connected && !l->side[0].closed && !l->side[1].closed &&
			s->now >= l->opened_at + s->swarm.latency_us && !paused(s, l->side[1].who))
		{
			bool		lost = blocked(s, l->side[0].who, l->side[1].who) ||
				blocked(s, l->side[1].who, l->side[0].who);

			if (!lost)
				connect_now(s, l);
			else if (s->now > l->opened_at + 1000000)
				l->side[1].closed = l->side[1].told = true;
		}
		if (!s->quiet && l->side[1].connected && sim_one_in(s, s->swarm.reset))
		{
			s->figures.faults++;
			for (int k = 0; k < 2; k++)
				if (!l->side[k].closed)
					tell_closed(s, l, k);
		}
		for (int k = 0; k < 2; k++)
			tick_side(s, l, k);
		if (l->side[0].closed && l->side[1].closed && l->side[0].told && l->side[1].told)
			free_link(l);
	}
}
