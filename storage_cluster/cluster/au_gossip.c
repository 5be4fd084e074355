/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_gossip.c: see au_gossip.h.  What is held of members, and what is told of
 * them, is here; probing is in au_gossip_probe.c.
 */
#include "cluster/au_gossip_int.h"

#include <assert.h>

#include "core/au_plant.h"

/* ---- small things ----------------------------------------------------- */

uint64_t
au_gossip_chance(AuGossip *g, uint64_t n)
{
	uint64_t	z = (g->chance += UINT64_C(0x9e3779b97f4a7c15));

	assert(n > 0);
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);	/* splitmix64 */
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return (z ^ (z >> 31)) % n;
}

static void
copy_address(char *to, const char *from)
{
	size_t		len = strnlen(from, AU_ADDRESS_MAX - 1);

	memset(to, 0, AU_ADDRESS_MAX);	/* records are compared and sent as a whole */
	memcpy(to, from, len);
}

/* Members that are not dead, and this node, as a power of two. */
static uint32_t
log2_alive(const AuGossip *g)
{
	uint32_t	n = 1;
	uint32_t	log = 0;

	for (uint32_t i = 0; i < g->nmembers; i++)
		n += g->members[i].r.state != AU_GOSSIP_DEAD;
	while ((UINT32_C(1) << log) < n)
		log++;
	return log;
}

uint64_t
au_gossip_suspicion_us(const AuGossip *g)
{
	return (3 + log2_alive(g)) * g->period_us;
}

const char *
au_gossip_state_name(uint8_t state)
{
	return state == AU_GOSSIP_ALIVE ? "alive" : state == AU_GOSSIP_SUSPECT ? "suspect" :
		state == AU_GOSSIP_DEAD ? "dead" : "unknown";
}

AuGossipMember *
au_gossip_member(AuGossip *g, uint64_t node_id)
{
	for (uint32_t i = 0; i < g->nmembers; i++)
		if (g->members[i].r.node_id == node_id)
			return &g->members[i];
	return NULL;
}

const AuGossipMember *
au_gossip_find(const AuGossip *g, uint64_t node_id)
{
	for (uint32_t i = 0; i < g->nmembers; i++)
		if (g->members[i].r.node_id == node_id)
			return &g->members[i];
	return NULL;
}

uint64_t
au_gossip_view_epoch(const AuGossip *g, const AuGossipMember **who)
{
	uint64_t	newest = 0;

	*who = NULL;
	for (uint32_t i = 0; i < g->nmembers; i++)
		if (g->members[i].marks.view_epoch > newest && g->members[i].r.state == AU_GOSSIP_ALIVE)
		{
			newest = g->members[i].marks.view_epoch;
			*who = &g->members[i];
		}
	return newest;
}

/* ---- what is held of members ------------------------------------------ */

static void
set_state(AuGossip *g, AuGossipMember *m, const AuGossipRecord *r, uint64_t now)
{
	uint8_t		was = m->r.state;

	m->r.incarnation = r->incarnation;
	m->r.state = r->state;
	copy_address(m->r.address, r->address);
	m->tells = AU_GOSSIP_LAMBDA * (1 + log2_alive(g));
	m->ours = false;
	if (was == r->state)
		return;
	m->since_us = now;
	if (r->state == AU_GOSSIP_SUSPECT)
	{
		m->suspicions++;
		g->figures.suspicions++;
	}
	else if (r->state == AU_GOSSIP_DEAD)
		g->figures.deaths++;
	else if (was != 0)
		g->figures.refuted++;
	g->host.changed(g->host.ctx, m, was);
}

static void
remove_member(AuGossip *g, uint32_t i)
{
	g->members[i] = g->members[--g->nmembers];
}

/* The longest dead one makes room for a new one; NULL: nobody is. */
static AuGossipMember *
add_member(AuGossip *g, const AuGossipRecord *r)
{
	AuGossipMember *m;

	if (g->nmembers == AU_GOSSIP_MEMBERS_MAX)
	{
		uint32_t	oldest = AU_GOSSIP_MEMBERS_MAX;

		for (uint32_t i = 0; i < g->nmembers; i++)
			if (g->members[i].r.state == AU_GOSSIP_DEAD && !g->members[i].expected &&
				(oldest == AU_GOSSIP_MEMBERS_MAX ||
				 g->members[i].since_us < g->members[oldest].since_us))
				oldest = i;
		if (oldest == AU_GOSSIP_MEMBERS_MAX)
		{
			g->figures.dropped++;
			return NULL;
		}
		remove_member(g, oldest);
	}
	m = &g->members[g->nmembers++];
	memset(m, 0, sizeof(*m));
	m->r.node_id = r->node_id;
	return m;
}

void
au_gossip_forget_old(AuGossip *g, uint64_t now)
{
	for (uint32_t i = g->nmembers; i-- > 0;)
		if (g->members[i].r.state == AU_GOSSIP_DEAD && !g->members[i].expected &&
			now - g->members[i].since_us >= AU_GOSSIP_KEEP_US)
			remove_member(g, i);
}

/* Somebody says this of us. */
static void
hear_of_self(AuGossip *g, const AuGossipRecord *r)
{
	if (r->incarnation < g->self.incarnation ||
		(r->incarnation == g->self.incarnation && r->state == AU_GOSSIP_ALIVE) ||
		r->incarnation >= AU_GOSSIP_INCARNATION_MAX || AU_PLANTED(AU_PLANT_NO_OBJECTION))
		return;
	g->self.incarnation = r->incarnation + 1;
	g->figures.objections++;
}

void
au_gossip_hear(AuGossip *g, const AuGossipRecord *r, uint64_t now)
{
	AuGossipMember *m;

	if (r->node_id == g->self.node_id)
	{
		hear_of_self(g, r);
		return;
	}
	m = au_gossip_member(g, r->node_id);
	if (m == NULL)
	{
		/* of the dead nothing need be known */
		if (r->state == AU_GOSSIP_DEAD || (m = add_member(g, r)) == NULL)
			return;
	}
	else if (r->incarnation < m->r.incarnation && !AU_PLANTED(AU_PLANT_GOSSIP_STALE))
		return;
	else if (r->incarnation == m->r.incarnation && r->state <= m->r.state &&
			 !AU_PLANTED(AU_PLANT_GOSSIP_STALE))
		return;
	set_state(g, m, r, now);
}

/* We could not reach it, or it has not objected in time. */
void
au_gossip_worse(AuGossip *g, AuGossipMember *m, AuGossipState state, uint64_t now)
{
	AuGossipRecord r = m->r;

	assert(state > m->r.state && state <= AU_GOSSIP_DEAD);
	assert(state != AU_GOSSIP_DEAD || m->r.state == AU_GOSSIP_SUSPECT);
	r.state = (uint8_t) state;
	set_state(g, m, &r, now);
	m->ours = state == AU_GOSSIP_SUSPECT;
}

/* ---- what is told ----------------------------------------------------- */

static bool
tells_already(const AuMsgGossip *m, uint64_t node_id)
{
	for (uint32_t i = 0; i < m->nrecords; i++)
		if (m->records[i].node_id == node_id)
			return true;
	return false;
}

/* News that were told least. */
static AuGossipMember *
next_news(AuGossip *g, const AuMsgGossip *msg)
{
	AuGossipMember *best = NULL;

	for (uint32_t i = 0; i < g->nmembers; i++)
	{
		AuGossipMember *m = &g->members[i];

		if (m->tells > 0 && (best == NULL || m->tells > best->tells) &&
			!tells_already(msg, m->r.node_id))
			best = m;
	}
	return best;
}

static void
tell_members(AuGossip *g, AuMsgGossip *msg, uint64_t to)
{
	AuGossipMember *m = au_gossip_member(g, to);
	uint32_t	from = g->nmembers > 0 ? (uint32_t) au_gossip_chance(g, g->nmembers) : 0;

	/* whoever is held for worse than alive must hear it to object */
	if (m != NULL && m->r.state != AU_GOSSIP_ALIVE)
		msg->records[msg->nrecords++] = m->r;
	while (msg->nrecords < AU_GOSSIP_RECORDS_MAX && (m = next_news(g, msg)) != NULL)
	{
		m->tells--;
		msg->records[msg->nrecords++] = m->r;
	}
	for (uint32_t i = 0; i < g->nmembers && msg->nrecords < AU_GOSSIP_RECORDS_MAX; i++)
	{
		m = &g->members[(from + i) % g->nmembers];
		if (m->r.incarnation != 0 && !tells_already(msg, m->r.node_id))
			msg->records[msg->nrecords++] = m->r;
	}
}

static void
tell_marks(AuGossip *g, AuMsgGossip *msg)
{
	uint32_t	from = g->nmembers > 0 ? (uint32_t) au_gossip_chance(g, g->nmembers) : 0;

	msg->marks[msg->nmarks++] = g->marks;
	for (uint32_t i = 0; i < g->nmembers && msg->nmarks < AU_GOSSIP_MARKS_MAX; i++)
	{
		const AuGossipMember *m = &g->members[(from + i) % g->nmembers];

		if (m->marks.heartbeat != 0)
			msg->marks[msg->nmarks++] = m->marks;
	}
}

void
au_gossip_fill(AuGossip *g, AuMsgGossip *msg, uint8_t kind, uint64_t to)
{
	memset(msg, 0, sizeof(*msg));
	msg->kind = kind;
	msg->cluster_id = g->cluster_id;
	msg->self = g->self;
	tell_members(g, msg, to);
	tell_marks(g, msg);
	assert(msg->nrecords <= AU_GOSSIP_RECORDS_MAX && msg->nmarks <= AU_GOSSIP_MARKS_MAX);
}

/* ---- what is heard ---------------------------------------------------- */

static void
hear_marks(AuGossip *g, const AuGossipMarks *marks, uint64_t now)
{
	AuGossipMember *m;

	if (marks->node_id == g->self.node_id)
	{
		/* an earlier start of ours, by a clock that was ahead */
		if (marks->heartbeat > g->marks.heartbeat &&
			marks->heartbeat < AU_GOSSIP_INCARNATION_MAX)
			g->marks.heartbeat = marks->heartbeat;
		return;
	}
	m = au_gossip_member(g, marks->node_id);
	if (m != NULL && marks->heartbeat > m->marks.heartbeat)
	{
		m->marks = *marks;
		m->marks_us = now;
	}
}

/* false: it is not for us */
bool
au_gossip_take(AuGossip *g, const AuMsgGossip *msg, uint64_t now)
{
	AuGossipMember *m;

	if (msg->cluster_id != 0 && g->cluster_id != 0 && msg->cluster_id != g->cluster_id)
	{
		g->figures.strangers++;
		return false;
	}
	if (msg->self.node_id == g->self.node_id)
	{
		if (strcmp(msg->self.address, g->self.address) != 0)
			g->figures.twins++;
		return false;
	}
	au_gossip_hear(g, &msg->self, now);
	m = au_gossip_member(g, msg->self.node_id);
	if (m != NULL)
		m->heard_us = now;
	for (uint32_t i = 0; i < msg->nrecords; i++)
		au_gossip_hear(g, &msg->records[i], now);
	if (msg->target.node_id != 0 && msg->reached)
		au_gossip_hear(g, &msg->target, now);
	for (uint32_t i = 0; i < msg->nmarks; i++)
		hear_marks(g, &msg->marks[i], now);
	return true;
}

/* ---- who is there ----------------------------------------------------- */

void
au_gossip_init(AuGossip *g, const AuGossipHost *host, const AuGossipOptions *opt, uint64_t now)
{
	assert(opt->node_id != 0 && opt->start != 0 && opt->start < AU_GOSSIP_INCARNATION_MAX);
	assert(opt->address[0] != '\0');
	memset(g, 0, sizeof(*g));
	g->host = *host;
	g->self.node_id = g->marks.node_id = opt->node_id;
	g->self.incarnation = g->marks.heartbeat = opt->start;
	g->self.state = AU_GOSSIP_ALIVE;
	copy_address(g->self.address, opt->address);
	g->cluster_id = opt->cluster_id;
	g->period_us = opt->period_us != 0 ? opt->period_us : AU_GOSSIP_PERIOD_US;
	g->direct_us = opt->direct_us != 0 ? opt->direct_us : AU_GOSSIP_DIRECT_US;
	assert(g->direct_us < g->period_us);
	g->chance = opt->seed;
	g->round = 1;
	g->ticked_us = g->period_at = now;
}

void
au_gossip_set_cluster(AuGossip *g, uint64_t cluster_id)
{
	g->cluster_id = cluster_id;
}

bool
au_gossip_seed(AuGossip *g, const char *address)
{
	for (uint32_t i = 0; i < g->nseeds; i++)
		if (strcmp(g->seeds[i], address) == 0)
			return true;
	if (g->nseeds == AU_GOSSIP_SEEDS_MAX || address[0] == '\0')
		return false;
	copy_address(g->seeds[g->nseeds++], address);
	return true;
}

void
au_gossip_expect(AuGossip *g, const AuGossipRecord *nodes, uint32_t n, uint64_t now)
{
	assert(n <= AU_GOSSIP_MEMBERS_MAX);
	for (uint32_t i = 0; i < g->nmembers; i++)
		g->members[i].expected = false;
	for (uint32_t i = 0; i < n; i++)
	{
		AuGossipRecord r = nodes[i];
		AuGossipMember *m;

		if (r.node_id == g->self.node_id || r.address[0] == '\0')
			continue;
		m = au_gossip_member(g, r.node_id);
		if (m == NULL)
		{
			r.incarnation = 0;
			r.state = AU_GOSSIP_ALIVE;
			au_gossip_hear(g, &r, now);
			m = au_gossip_member(g, r.node_id);
		}
		else if (m->r.incarnation == 0)
			copy_address(m->r.address, r.address);
		if (m != NULL)
			m->expected = true;
	}
}
