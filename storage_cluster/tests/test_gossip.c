/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_gossip.c: many nodes that gossip, on a seeded network with loss, delay,
 * duplicates and partitions; restarts, stalls, strangers; the bounds of
 * messages and tables; GOSSIP's bytes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "cluster/au_gossip.h"

#define NODES_MAX 64
#define TICK_US 10000
#define SECOND UINT64_C(1000000)

typedef struct Flight
{
	struct Flight *next;
	uint64_t	due;
	int			to;
	int			from;
	bool		request;
	uint64_t	id;
	size_t		len;
	uint8_t		bytes[AU_GOSSIP_FRAME_MAX];
} Flight;

typedef struct Net Net;

typedef struct Peer
{
	Net		   *net;
	int			index;
	bool		up;
	uint64_t	stalled_until;
	uint64_t	epoch;
	AuGossip   *g;
	char		address[32];
} Peer;

struct Net
{
	uint64_t	now;
	uint64_t	rng;
	uint32_t	n;
	uint32_t	loss;			/* per mille of messages */
	uint64_t	delay_us;
	bool		twice;			/* some messages arrive twice */
	bool		cut[NODES_MAX][NODES_MAX];	/* from, to */
	Peer		peers[NODES_MAX];
	Flight	   *flights;
	uint64_t	messages;
	size_t		longest;
	uint64_t	deaths;			/* told by any node, of any node */
	uint64_t	suspicions;
	uint64_t	token_ones;		/* answers to requests with token 1 */
};

static uint64_t
chance(Net *net, uint64_t n)
{
	uint64_t	z = (net->rng += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return (z ^ (z >> 31)) % n;
}

/* ---- the host --------------------------------------------------------- */

static void
fly(Net *net, int from, int to, bool request, uint64_t id, const AuMsgGossip *m)
{
	Flight	   *f;
	Flight	  **at = &net->flights;
	AuWriter	w;

	net->messages++;
	if (chance(net, 1000) < net->loss)
		return;
	f = calloc(1, sizeof(*f));
	assert_non_null(f);
	f->to = to;
	f->from = from;
	f->request = request;
	f->id = id;
	f->due = net->now + 200 + chance(net, net->delay_us * 2);
	au_writer_start(&w, f->bytes, sizeof(f->bytes));
	assert_true(request ? au_enc_gossip(&w, id, m) : au_enc_gossip_ok(&w, id, m));
	f->len = w.len;
	if (w.len > net->longest)
		net->longest = w.len;
	while (*at != NULL && (*at)->due <= f->due)
		at = &(*at)->next;
	f->next = *at;
	*at = f;
}

static void
host_send(void *ctx, const char *address, uint64_t id, const AuMsgGossip *m)
{
	Peer	   *p = ctx;
	int			to = atoi(address + 1);

	assert_true(to >= 0 && to < NODES_MAX);
	fly(p->net, p->index, to, true, id, m);
	if (p->net->twice && chance(p->net, 4) == 0)
		fly(p->net, p->index, to, true, id, m);
}

/* token: who asked, and its id */
static void
host_answer(void *ctx, uint64_t token, const AuMsgGossip *m)
{
	Peer	   *p = ctx;

	p->net->token_ones += token == 1;
	fly(p->net, p->index, (int) (token >> 48), false, token & ((UINT64_C(1) << 48) - 1), m);
}

static void
host_marks(void *ctx, AuGossipMarks *m)
{
	m->view_epoch = ((Peer *) ctx)->epoch;
	m->nvolumes = AU_GOSSIP_VOLUMES_MAX;
	m->volumes[0].system_identifier = 77;
	m->volumes[0].durable = m->heartbeat;
}

static void
host_changed(void *ctx, const AuGossipMember *m, uint8_t was)
{
	Peer	   *p = ctx;

	(void) was;
	p->net->deaths += m->r.state == AU_GOSSIP_DEAD;
	p->net->suspicions += m->r.state == AU_GOSSIP_SUSPECT;
}

/* ---- the net ---------------------------------------------------------- */

static void
boot(Net *net, int i, bool know_first)
{
	Peer	   *p = &net->peers[i];
	AuGossipHost host = {p, host_send, host_answer, host_marks, host_changed};
	AuGossipOptions opt = {.node_id = 1000 + (uint64_t) i,.address = p->address,
		.cluster_id = 5,.start = net->now,.seed = chance(net, UINT64_MAX)
	};

	p->net = net;
	p->index = i;
	snprintf(p->address, sizeof(p->address), "n%d", i);
	if (p->g == NULL)
		p->g = malloc(sizeof(*p->g));
	assert_non_null(p->g);
	au_gossip_init(p->g, &host, &opt, net->now);
	if (know_first)
		assert_true(au_gossip_seed(p->g, "n0"));
	p->up = true;
}

static Net *
net_new(uint64_t seed, uint32_t n)
{
	Net		   *net = calloc(1, sizeof(*net));

	assert_non_null(net);
	net->rng = seed;
	net->n = n;
	net->now = 1000 * SECOND;
	net->delay_us = 2000;
	for (uint32_t i = 0; i < n; i++)
		boot(net, (int) i, true);
	return net;
}

static void
net_free(Net *net)
{
	while (net->flights != NULL)
	{
		Flight	   *f = net->flights;

		net->flights = f->next;
		free(f);
	}
	for (int i = 0; i < NODES_MAX; i++)
		free(net->peers[i].g);
	free(net);
}

static void
arrive(Net *net, Flight *f)
{
	Peer	   *p = &net->peers[f->to];
	AuMsgGossip m;
	AuMsgGossip answer;
	AuFrame		frame;
	size_t		used;

	if (!p->up || net->cut[f->from][f->to])
		return;
	assert_int_equal(au_frame_parse(f->bytes, f->len, &frame, &used), AU_OK);
	if (!f->request)
	{
		assert_true(au_dec_gossip_ok(&frame, &m));
		au_gossip_answer(p->g, f->id, &m, net->now);
		return;
	}
	assert_true(au_dec_gossip(&frame, &m));
	switch (au_gossip_request(p->g, (uint64_t) f->from << 48 | f->id, &m, &answer, net->now))
	{
		case AU_GOSSIP_NOW:
			fly(net, f->to, f->from, false, f->id, &answer);
			break;
		case AU_GOSSIP_LATER:
		case AU_GOSSIP_STRANGER:
			break;
	}
}

static void
step(Net *net)
{
	Flight	   *late = NULL;

	net->now += TICK_US;
	while (net->flights != NULL && net->flights->due <= net->now)
	{
		Flight	   *f = net->flights;

		net->flights = f->next;
		if (net->peers[f->to].stalled_until > net->now)
		{
			f->next = late;		/* the kernel keeps it */
			late = f;
			continue;
		}
		arrive(net, f);
		free(f);
	}
	while (late != NULL)
	{
		Flight	   *f = late;

		late = f->next;
		f->next = net->flights;
		net->flights = f;
	}
	for (uint32_t i = 0; i < net->n; i++)
		if (net->peers[i].up && net->peers[i].stalled_until <= net->now)
			(void) au_gossip_tick(net->peers[i].g, net->now);
}

static uint8_t
held(const Net *net, uint32_t by, uint32_t of)
{
	const AuGossipMember *m = au_gossip_find(net->peers[by].g, 1000 + (uint64_t) of);

	return m == NULL ? 0 : m->r.state;
}

/* All nodes that are up hold all others for what they are. */
static bool
settled(const Net *net)
{
	for (uint32_t a = 0; a < net->n; a++)
		for (uint32_t b = 0; b < net->n && net->peers[a].up; b++)
			if (a != b && held(net, a, b) != (net->peers[b].up ? AU_GOSSIP_ALIVE : AU_GOSSIP_DEAD))
				return false;
	return true;
}

/* Seconds until settled, by tenths; fails beyond the limit. */
static double
settle(Net *net, double limit_s)
{
	uint64_t	began = net->now;

	while (!settled(net))
	{
		step(net);
		if (net->now - began > (uint64_t) (limit_s * 1e6))
			fail_msg("not settled after %.1f s", limit_s);
	}
	return (double) (net->now - began) / 1e6;
}

static void
run(Net *net, double s)
{
	for (uint64_t end = net->now + (uint64_t) (s * 1e6); net->now < end;)
		step(net);
}

/* ---- cases ------------------------------------------------------------ */

static void
found_from_one_address(void **state)
{
	static const uint32_t sizes[] = {2, 3, 5, 16, 64};

	(void) state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		for (uint64_t seed = 1; seed <= 10; seed++)
		{
			Net		   *net = net_new(seed, sizes[i]);

			net->loss = seed > 5 ? 100 : 0;
			settle(net, 20);
			/* a newcomer, too */
			if (net->n < NODES_MAX)
			{
				boot(net, (int) net->n, true);
				net->n++;
				settle(net, 10);
			}
			net_free(net);
		}
}

static void
no_false_death(void **state)
{
	uint64_t	suspected = 0;

	(void) state;
	for (uint64_t seed = 1; seed <= 30; seed++)
	{
		Net		   *net = net_new(seed, 3 + (uint32_t) (seed % 5) * 3);

		settle(net, 20);
		net->loss = 100;
		net->twice = seed % 2;
		net->delay_us = 30000;
		run(net, 60);
		assert_int_equal(net->deaths, 0);
		suspected += net->suspicions;
		/* and objections count */
		net->loss = 0;
		net->delay_us = 2000;
		settle(net, 10);
		net_free(net);
	}
	assert_true(suspected > 100);	/* else nothing was shown */
}

static void
the_dead_are_found(void **state)
{
	static const uint32_t sizes[] = {2, 3, 5, 16, 64};

	(void) state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		for (uint64_t seed = 1; seed <= 10; seed++)
		{
			Net		   *net = net_new(seed, sizes[i]);
			uint32_t	dead = (uint32_t) chance(net, net->n);
			double		s;

			settle(net, 20);
			net->loss = seed % 2 == 0 ? 50 : 0;
			net->peers[dead].up = false;
			/* a round, the suspicion, and the word goes round */
			s = settle(net, sizes[i] <= 5 ? 8 : 15);
			assert_true(s > 2);
			/* back, by another incarnation */
			net->loss = 0;
			boot(net, (int) dead, true);
			settle(net, 10);
			run(net, 10);
			assert_true(settled(net));
			net_free(net);
		}
}

/* Its clock was set back: the incarnation is an old one at first. */
static void
restarted_with_an_old_clock(void **state)
{
	Net		   *net = net_new(7, 5);
	uint64_t	now;

	(void) state;
	settle(net, 20);
	net->peers[3].up = false;
	settle(net, 10);
	now = net->now;
	net->now = 5 * SECOND;		/* only start is of that clock */
	boot(net, 3, true);
	net->now = now;
	net->peers[3].g->ticked_us = net->peers[3].g->period_at = now;
	settle(net, 15);
	assert_true(net->peers[3].g->figures.objections > 0);
	/* its marks count again, too */
	run(net, 20);
	net->peers[3].epoch = 9;
	run(net, 20);
	assert_int_equal(au_gossip_find(net->peers[0].g, 1003)->marks.view_epoch, 9);
	net_free(net);
}

static void
stalls_are_forgiven(void **state)
{
	Net		   *net = net_new(11, 5);
	uint64_t	deaths;

	(void) state;
	settle(net, 20);
	net->peers[2].stalled_until = net->now + 60 * SECOND;
	run(net, 20);
	for (uint32_t i = 0; i < 5; i++)
		assert_true(i == 2 || held(net, i, 2) == AU_GOSSIP_DEAD);
	deaths = net->deaths;
	run(net, 42);
	settle(net, 10);
	/* the one that stood still took nobody for dead */
	assert_int_equal(net->deaths, deaths);
	assert_true(net->peers[2].g->figures.stalls > 0);
	net_free(net);
}

static void
partitions_heal(void **state)
{
	(void) state;
	for (uint64_t seed = 1; seed <= 10; seed++)
	{
		Net		   *net = net_new(seed, 5 + (uint32_t) seed);

		settle(net, 20);
		for (uint32_t a = 0; a < net->n; a++)
			for (uint32_t b = 0; b < net->n; b++)
				net->cut[a][b] = (a < 2) != (b < 2);
		run(net, 60);
		for (uint32_t b = 2; b < net->n; b++)
		{
			assert_int_equal(held(net, 0, b), AU_GOSSIP_DEAD);
			assert_int_equal(held(net, b, 0), AU_GOSSIP_DEAD);
			assert_int_equal(held(net, b, net->n - 1 - (b == net->n - 1)), AU_GOSSIP_ALIVE);
		}
		memset(net->cut, 0, sizeof(net->cut));
		settle(net, 20);
		net_free(net);
	}
}

/* One link is down, both ways or one way: others reach the node. */
static void
others_are_asked(void **state)
{
	(void) state;
	for (uint64_t seed = 1; seed <= 10; seed++)
	{
		Net		   *net = net_new(seed, 5);

		settle(net, 20);
		net->cut[1][2] = true;
		net->cut[2][1] = seed % 2 == 0;
		run(net, 60);
		assert_int_equal(net->deaths, 0);
		assert_true(settled(net));
		assert_true(net->peers[1].g->figures.proxied > 3);
		net_free(net);
	}
}

static void
marks_go_round(void **state)
{
	Net		   *net = net_new(3, 20);
	const AuGossipMember *who;

	(void) state;
	settle(net, 20);
	net->peers[4].epoch = 12;
	run(net, 10);
	for (uint32_t i = 0; i < net->n; i++)
	{
		if (i == 4)
			continue;
		assert_int_equal(au_gossip_view_epoch(net->peers[i].g, &who), 12);
		assert_int_equal(who->r.node_id, 1004);
		for (uint32_t k = 0; k < net->n; k++)
		{
			const AuGossipMember *m = au_gossip_find(net->peers[i].g, 1000 + k);

			if (k == i)
				continue;
			assert_int_equal(m->marks.volumes[0].system_identifier, 77);
			/* not older than ten periods */
			assert_true(m->marks.heartbeat + 10 >= net->peers[k].g->marks.heartbeat);
		}
	}
	assert_in_range(net->longest, AU_GOSSIP_FRAME_MAX / 2, AU_GOSSIP_FRAME_MAX);
	net_free(net);
}

/* Nodes of the view that nobody has ever heard of are dead in the end. */
static void
expected_ones(void **state)
{
	Net		   *net = net_new(5, 3);
	AuGossipRecord view[5];

	(void) state;
	for (uint32_t i = 0; i < 5; i++)
	{
		view[i] = (AuGossipRecord) {.node_id = 1000 + i};
		snprintf(view[i].address, AU_ADDRESS_MAX, "n%u", i);
	}
	for (uint32_t i = 0; i < 3; i++)
		au_gossip_expect(net->peers[i].g, view, 5, net->now);
	run(net, 15);
	for (uint32_t i = 0; i < 3; i++)
		assert_true(held(net, i, 3) == AU_GOSSIP_DEAD && held(net, i, 4) == AU_GOSSIP_DEAD);
	/* even after a long time; and they are found as soon as they are there */
	run(net, 4000);
	assert_int_equal(held(net, 0, 3), AU_GOSSIP_DEAD);
	boot(net, 3, false);
	boot(net, 4, false);
	net->n = 5;
	settle(net, 20);
	/* one that left the view and died is forgotten in the end */
	for (uint32_t i = 0; i < 5; i++)
		au_gossip_expect(net->peers[i].g, view, 4, net->now);
	net->peers[4].up = false;
	settle(net, 10);
	run(net, 3700);
	for (uint32_t i = 0; i < 4; i++)
		assert_null(au_gossip_find(net->peers[i].g, 1004));
	net_free(net);
}

static void
strangers_and_twins(void **state)
{
	Net		   *net = net_new(9, 3);

	(void) state;
	au_gossip_set_cluster(net->peers[2].g, 6);
	run(net, 20);
	assert_int_equal(held(net, 0, 1), AU_GOSSIP_ALIVE);
	assert_int_equal(held(net, 0, 2), 0);
	assert_int_equal(held(net, 2, 0), 0);
	assert_true(net->peers[0].g->figures.strangers > 0);
	/* one that belongs to none yet is found */
	au_gossip_set_cluster(net->peers[2].g, 0);
	settle(net, 20);
	assert_int_equal(net->peers[0].g->figures.twins, 0);
	net->peers[2].g->self.node_id = 1001;
	run(net, 5);
	assert_true(net->peers[1].g->figures.twins > 0);
	net_free(net);
}

/* A node at the address of another one does not answer for it. */
static void
wrong_node_at_the_address(void **state)
{
	Net		   *net = net_new(13, 4);

	(void) state;
	settle(net, 20);
	net->peers[3].up = false;
	run(net, 1);
	boot(net, 3, true);
	net->peers[3].g->self.node_id = net->peers[3].g->marks.node_id = 2000;
	run(net, 12);
	for (uint32_t i = 0; i < 3; i++)
	{
		assert_int_equal(held(net, i, 3), AU_GOSSIP_DEAD);
		assert_int_equal(au_gossip_find(net->peers[i].g, 2000)->r.state, AU_GOSSIP_ALIVE);
	}
	net_free(net);
}

static void
bounds(void **state)
{
	Net		   *net = net_new(17, 2);
	AuGossip   *g = net->peers[0].g;
	AuMsgGossip m = {.kind = AU_GOSSIP_PROXY};
	AuMsgGossip answer;
	AuGossipRecord r = {.state = AU_GOSSIP_ALIVE};
	uint64_t	open = 0;

	(void) state;
	/* more nodes than there is room for */
	m.self = (AuGossipRecord) {1001, net->now, AU_GOSSIP_ALIVE, "n1"};
	m.kind = AU_GOSSIP_PING;
	for (uint64_t i = 0; i < 400; i++)
	{
		r.node_id = 5000 + i;
		r.incarnation = 1;
		snprintf(r.address, sizeof(r.address), "n%u", (unsigned) (2 + i % 60));
		m.nrecords = 1;
		m.records[0] = r;
		assert_int_equal(au_gossip_request(g, 1, &m, &answer, net->now), AU_GOSSIP_NOW);
		assert_true(answer.nrecords <= AU_GOSSIP_RECORDS_MAX);
	}
	assert_int_equal(g->nmembers, AU_GOSSIP_MEMBERS_MAX);
	assert_true(g->figures.dropped > 200);
	/* more questions for others than there is room for */
	m.kind = AU_GOSSIP_PROXY;
	m.nrecords = 0;
	m.target = r;
	for (uint64_t i = 0; i < 50; i++)
		if (au_gossip_request(g, 1, &m, &answer, net->now) == AU_GOSSIP_LATER)
			open++;
		else
			assert_int_equal(answer.reached, 0);
	assert_int_equal(open, AU_GOSSIP_RELAYS_MAX);
	run(net, 3);
	assert_int_equal(net->token_ones, open);	/* each once */
	/* the dead make room: all of these but n1 are */
	run(net, 600);
	assert_true(settled(net));
	m.kind = AU_GOSSIP_PING;
	m.target.node_id = 0;
	m.nrecords = 1;
	m.records[0].node_id = 9999;
	(void) au_gossip_request(g, 1, &m, &answer, net->now);
	assert_non_null(au_gossip_find(g, 9999));
	net_free(net);
}

/* News are told a bounded number of times. */
static void
tells_are_bounded(void **state)
{
	Net		   *net = net_new(19, 16);
	uint64_t	before;

	(void) state;
	settle(net, 20);
	run(net, 60);
	for (uint32_t i = 0; i < net->n; i++)
		for (uint32_t k = 0; k < net->peers[i].g->nmembers; k++)
			assert_int_equal(net->peers[i].g->members[k].tells, 0);
	/* a ping and its answer a node and period, a knock now and then */
	before = net->messages;
	run(net, 100);
	assert_in_range(net->messages - before, 16 * 200 * 2 * 9 / 10, 16 * 200 * 2 * 14 / 10);
	net_free(net);
}

static void
same_seed_same_run(void **state)
{
	uint64_t	messages[2];

	(void) state;
	for (int i = 0; i < 2; i++)
	{
		Net		   *net = net_new(23, 9);

		net->loss = 200;
		run(net, 30);
		messages[i] = net->messages * 1000 + net->suspicions;
		net_free(net);
	}
	assert_int_equal(messages[0], messages[1]);
}

static void
bytes(void **state)
{
	static AuMsgGossip m;
	static AuMsgGossip got;
	uint8_t		buf[AU_GOSSIP_FRAME_MAX];
	AuWriter	w;
	AuFrame		f;
	size_t		used;

	(void) state;
	memset(&m, 0, sizeof(m));
	m.kind = AU_GOSSIP_PROXY;
	m.reached = 1;
	m.cluster_id = 3;
	m.self = (AuGossipRecord) {1, 2, AU_GOSSIP_ALIVE, "a:1"};
	memset(m.self.address, 'x', AU_ADDRESS_MAX - 1);
	m.target = m.self;
	m.nrecords = AU_GOSSIP_RECORDS_MAX;
	for (int i = 0; i < AU_GOSSIP_RECORDS_MAX; i++)
	{
		m.records[i] = m.self;
		m.records[i].state = (uint8_t) (1 + i % 3);
	}
	m.nmarks = AU_GOSSIP_MARKS_MAX;
	for (int i = 0; i < AU_GOSSIP_MARKS_MAX; i++)
	{
		m.marks[i] = (AuGossipMarks) {.node_id = 4,.heartbeat = 5,.view_epoch = 6,.reads = 7,
			.disk_used = 8,.disk_limit = 9,.nvolumes = AU_GOSSIP_VOLUMES_MAX};
		for (int k = 0; k < AU_GOSSIP_VOLUMES_MAX; k++)
			m.marks[i].volumes[k] = (AuGossipVolume) {10, 11, 12, 13};
	}
	au_writer_start(&w, buf, sizeof(buf));
	assert_true(au_enc_gossip_ok(&w, 99, &m));
	assert_int_equal(w.len, AU_GOSSIP_FRAME_MAX);	/* the longest there is */
	assert_int_equal(au_frame_parse(buf, w.len, &f, &used), AU_OK);
	assert_false(au_dec_gossip(&f, &got));
	assert_true(au_dec_gossip_ok(&f, &got));
	assert_memory_equal(&m, &got, sizeof(m));
	/* cut anywhere */
	for (uint32_t n = 0; n < f.length; n += 7)
	{
		AuFrame		cut = f;

		cut.length = n;
		assert_false(au_dec_gossip_ok(&cut, &got));
	}
	m.nrecords++;
	au_writer_start(&w, buf, sizeof(buf));
	assert_false(au_enc_gossip(&w, 99, &m));
	assert_int_equal(w.len, 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(found_from_one_address),
		cmocka_unit_test(no_false_death),
		cmocka_unit_test(the_dead_are_found),
		cmocka_unit_test(restarted_with_an_old_clock),
		cmocka_unit_test(stalls_are_forgiven),
		cmocka_unit_test(partitions_heal),
		cmocka_unit_test(others_are_asked),
		cmocka_unit_test(marks_go_round),
		cmocka_unit_test(expected_ones),
		cmocka_unit_test(strangers_and_twins),
		cmocka_unit_test(wrong_node_at_the_address),
		cmocka_unit_test(bounds),
		cmocka_unit_test(tells_are_bounded),
		cmocka_unit_test(same_seed_same_run),
		cmocka_unit_test(bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
