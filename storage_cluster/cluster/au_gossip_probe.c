/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_gossip_probe.c: probing, directly and through others; suspicion that
 * comes of it; see au_gossip.h for the states.
 */
#include "cluster/au_gossip_int.h"

#include <assert.h>

#define KNOCKED_SUSPECTS 3		/* pinged in a period besides the probe */

static uint64_t
send_ping(AuGossip *g, const char *address, uint64_t to)
{
	AuMsgGossip m;
	uint64_t	id = ++g->last_id;

	au_gossip_fill(g, &m, AU_GOSSIP_PING, to);
	g->figures.sent++;
	g->host.send(g->host.ctx, address, id, &m);
	return id;
}

/* ---- a probe ---------------------------------------------------------- */

/* One not probed in this round, by chance; NULL: there are none. */
static AuGossipMember *
next_target(AuGossip *g)
{
	uint32_t	from;

	if (g->nmembers == 0)
		return NULL;
	from = (uint32_t) au_gossip_chance(g, g->nmembers);
	for (int again = 0; again < 2; again++, g->round++)
		for (uint32_t i = 0; i < g->nmembers; i++)
		{
			AuGossipMember *m = &g->members[(from + i) % g->nmembers];

			if (m->r.state != AU_GOSSIP_DEAD && m->round < g->round)
				return m;
		}
	return NULL;
}

static void
begin_probe(AuGossip *g, uint64_t now)
{
	AuGossipMember *m = next_target(g);

	memset(&g->probe, 0, sizeof(g->probe));
	if (m == NULL)
		return;
	m->round = g->round;
	g->probe.node_id = m->r.node_id;
	g->probe.began_us = now;
	g->probe.id = send_ping(g, m->r.address, m->r.node_id);
}

/* Others, by chance, ask for us. */
static void
ask_others(AuGossip *g)
{
	const AuGossipMember *target = au_gossip_find(g, g->probe.node_id);
	uint32_t	asked = 0;
	uint32_t	from;

	g->probe.indirect = true;
	if (target == NULL)
		return;
	from = (uint32_t) au_gossip_chance(g, g->nmembers);
	for (uint32_t i = 0; i < g->nmembers && asked < AU_GOSSIP_PROXIES; i++)
	{
		const AuGossipMember *m = &g->members[(from + i) % g->nmembers];
		AuMsgGossip msg;

		if (m == target || m->r.state != AU_GOSSIP_ALIVE)
			continue;
		au_gossip_fill(g, &msg, AU_GOSSIP_PROXY, m->r.node_id);
		msg.target = target->r;
		g->probe.proxy_id[asked++] = ++g->last_id;
		g->figures.sent++;
		g->host.send(g->host.ctx, m->r.address, g->last_id, &msg);
	}
}

static void
probe_failed(AuGossip *g, uint64_t now)
{
	AuGossipMember *m = au_gossip_member(g, g->probe.node_id);

	g->figures.probes_failed++;
	g->probe.node_id = 0;
	if (m != NULL && m->r.state == AU_GOSSIP_ALIVE)
		au_gossip_worse(g, m, AU_GOSSIP_SUSPECT, now);
	else if (m != NULL)
		m->ours = true;
}

static void
probe_answered(AuGossip *g, uint64_t id, const AuMsgGossip *m, uint64_t now)
{
	if (g->probe.node_id == 0)
		return;
	if (id == g->probe.id && m->self.node_id == g->probe.node_id)
	{
		au_hist_add(&g->figures.round_trip, now - g->probe.began_us);
		g->probe.node_id = 0;
		return;
	}
	for (int i = 0; i < AU_GOSSIP_PROXIES; i++)
		if (id == g->probe.proxy_id[i] && m->reached && m->target.node_id == g->probe.node_id)
		{
			g->figures.proxied++;
			g->probe.node_id = 0;
			return;
		}
}

/* ---- for others ------------------------------------------------------- */

static void
end_relay(AuGossip *g, uint32_t i, bool reached)
{
	const AuGossipMember *m = au_gossip_find(g, g->relays[i].target.node_id);
	AuMsgGossip msg;

	au_gossip_fill(g, &msg, AU_GOSSIP_PROXY, 0);
	msg.target = m != NULL ? m->r : g->relays[i].target;
	msg.reached = reached;
	g->relays[i].id = 0;
	g->host.answer(g->host.ctx, g->relays[i].token, &msg);
}

static bool
begin_relay(AuGossip *g, uint64_t token, const AuGossipRecord *target, uint64_t now)
{
	for (uint32_t i = 0; i < AU_GOSSIP_RELAYS_MAX; i++)
	{
		if (g->relays[i].id != 0)
			continue;
		g->relays[i].token = token;
		g->relays[i].target = *target;
		/* whoever asks waits for what is left of its period */
		g->relays[i].until_us = now + (g->period_us - g->direct_us);
		g->relays[i].id = send_ping(g, target->address, target->node_id);
		return true;
	}
	return false;
}

AuGossipReply
au_gossip_request(AuGossip *g, uint64_t token, const AuMsgGossip *m, AuMsgGossip *answer,
				  uint64_t now)
{
	if (!au_gossip_take(g, m, now) && m->self.node_id != g->self.node_id)
		return AU_GOSSIP_STRANGER;
	if (m->kind == AU_GOSSIP_PROXY && m->target.node_id != g->self.node_id &&
		begin_relay(g, token, &m->target, now))
		return AU_GOSSIP_LATER;
	au_gossip_fill(g, answer, m->kind, m->self.node_id);
	if (m->kind == AU_GOSSIP_PROXY)
	{
		answer->reached = m->target.node_id == g->self.node_id;
		answer->target = answer->reached ? g->self : m->target;
	}
	return AU_GOSSIP_NOW;
}

void
au_gossip_answer(AuGossip *g, uint64_t id, const AuMsgGossip *m, uint64_t now)
{
	if (!au_gossip_take(g, m, now))
		return;
	probe_answered(g, id, m, now);
	for (uint32_t i = 0; i < AU_GOSSIP_RELAYS_MAX; i++)
		if (g->relays[i].id == id && id != 0 &&
			m->self.node_id == g->relays[i].target.node_id)
			end_relay(g, i, true);
}

/* ---- time ------------------------------------------------------------- */

/* Time in which this node did not run is nobody's fault. */
static void
forgive_stall(AuGossip *g, uint64_t now)
{
	uint64_t	gap = now - g->ticked_us;

	if (gap <= g->period_us)
		return;
	g->figures.stalls++;
	g->probe.node_id = 0;
	for (uint32_t i = 0; i < g->nmembers; i++)
	{
		AuGossipMember *m = &g->members[i];

		/* it may have been heard after the gap, before this tick */
		if (m->r.state == AU_GOSSIP_SUSPECT)
			m->since_us = m->since_us + gap < now ? m->since_us + gap : now;
	}
}

static void
bury(AuGossip *g, uint64_t now)
{
	uint64_t	limit = au_gossip_suspicion_us(g);

	for (uint32_t i = 0; i < g->nmembers; i++)
	{
		AuGossipMember *m = &g->members[i];

		if (m->r.state == AU_GOSSIP_SUSPECT && now - m->since_us >= limit)
			au_gossip_worse(g, m, AU_GOSSIP_DEAD, now);
	}
}

/* Those we suspect shall have every chance to object. */
static void
ask_suspects(AuGossip *g)
{
	uint32_t	asked = 0;
	uint32_t	from = g->nmembers > 0 ? (uint32_t) au_gossip_chance(g, g->nmembers) : 0;

	for (uint32_t i = 0; i < g->nmembers && asked < KNOCKED_SUSPECTS; i++)
	{
		const AuGossipMember *m = &g->members[(from + i) % g->nmembers];

		if (m->r.state != AU_GOSSIP_SUSPECT || !m->ours || m->r.node_id == g->probe.node_id)
			continue;
		(void) send_ping(g, m->r.address, m->r.node_id);
		asked++;
	}
}

static bool
lives_at(const AuGossip *g, const char *address)
{
	if (strcmp(address, g->self.address) == 0)
		return true;
	for (uint32_t i = 0; i < g->nmembers; i++)
		if (g->members[i].r.state != AU_GOSSIP_DEAD &&
			strcmp(g->members[i].r.address, address) == 0)
			return true;
	return false;
}

/* One of the dead, or an address nobody is known at. */
static void
knock(AuGossip *g)
{
	uint32_t	all = g->nmembers + g->nseeds;
	uint32_t	from = all > 0 ? (uint32_t) au_gossip_chance(g, all) : 0;

	for (uint32_t i = 0; i < all; i++)
	{
		uint32_t	k = (from + i) % all;

		if (k < g->nmembers && g->members[k].r.state == AU_GOSSIP_DEAD)
			(void) send_ping(g, g->members[k].r.address, g->members[k].r.node_id);
		else if (k >= g->nmembers && !lives_at(g, g->seeds[k - g->nmembers]))
			(void) send_ping(g, g->seeds[k - g->nmembers], 0);
		else
			continue;
		return;
	}
}

static void
begin_period(AuGossip *g, uint64_t now)
{
	bool		alone = true;

	g->period_at = now + g->period_us;
	g->figures.periods++;
	if (g->probe.node_id != 0)
		probe_failed(g, now);
	au_gossip_forget_old(g, now);
	g->marks.heartbeat++;
	g->host.own_marks(g->host.ctx, &g->marks);
	begin_probe(g, now);
	ask_suspects(g);
	for (uint32_t i = 0; i < g->nmembers; i++)
		alone &= g->members[i].r.state == AU_GOSSIP_DEAD;
	if (alone || g->figures.periods % AU_GOSSIP_KNOCK_PERIODS == 0)
		knock(g);
}

uint64_t
au_gossip_tick(AuGossip *g, uint64_t now)
{
	uint64_t	next;

	forgive_stall(g, now);
	g->ticked_us = now;
	for (uint32_t i = 0; i < AU_GOSSIP_RELAYS_MAX; i++)
		if (g->relays[i].id != 0 && now >= g->relays[i].until_us)
			end_relay(g, i, false);
	if (g->probe.node_id != 0 && !g->probe.indirect && now >= g->probe.began_us + g->direct_us)
		ask_others(g);
	bury(g, now);
	if (now >= g->period_at)
		begin_period(g, now);
	next = g->period_at - now;
	if (g->probe.node_id != 0 && !g->probe.indirect &&
		g->probe.began_us + g->direct_us - now < next)
		next = g->probe.began_us + g->direct_us - now;
	for (uint32_t i = 0; i < AU_GOSSIP_RELAYS_MAX; i++)
		if (g->relays[i].id != 0 && g->relays[i].until_us - now < next)
			next = g->relays[i].until_us - now;
	return next;
}
