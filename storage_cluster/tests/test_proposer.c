/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_proposer.c: the writer's side of the log quorum, against nodes that
 * this test plays message by message.  What comes of it among real nodes, and
 * under faults, is the simulator's (sim/).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/au_heap.h"
#include "core/au_proposer.h"

#define BASE ((AuLsn) 0x1000000)
#define WINDOW (1u << 20)

/* What the writer sent to one place, and what the node there is. */
typedef struct Place
{
	bool		wanted;			/* connect was called */
	bool		connected;
	uint8_t		out[256 << 10];
	size_t		len;
	uint64_t	id;				/* of the last message */
	uint64_t	node_id;
	AuLsn		end;			/* of its log */
	AuLsn		commit;			/* that it tells; 0: BASE */
} Place;

typedef struct World
{
	uint64_t	now;
	Place		place[AU_GROUP_MAX];
	AuProposer *p;
} World;

static World world;

static uint64_t
now_us(void *ctx)
{
	return ((World *) ctx)->now;
}

static uint64_t
no_chance(void *ctx)
{
	(void) ctx;
	return 0;
}

static void
say(void *ctx, bool warning, const char *message)
{
	(void) ctx;
	(void) warning;
	(void) message;
}

static void
want(void *ctx, uint32_t i)
{
	((World *) ctx)->place[i].wanted = true;
}

static void
cut(void *ctx, uint32_t i)
{
	Place	   *at = &((World *) ctx)->place[i];

	at->wanted = at->connected = false;
	at->len = 0;
}

static void
take(void *ctx, uint32_t i, const uint8_t *bytes, size_t len)
{
	Place	   *at = &((World *) ctx)->place[i];

	assert_true(at->len + len <= sizeof(at->out));
	memcpy(at->out + at->len, bytes, len);
	at->len += len;
}

/* The next message to a place, which must be of this type; APPENDs that nobody
 * looked at are passed over. */
static AuFrame
got(uint32_t i, uint16_t type)
{
	static uint8_t memory[256 << 10];
	Place	   *at = &world.place[i];
	AuFrame		f;
	size_t		used;

	memcpy(memory, at->out, at->len);
	assert_int_equal(au_frame_parse(memory, at->len, &f, &used), AU_OK);
	memmove(at->out, at->out + used, at->len - used);
	at->len -= used;
	at->id = f.id;
	au_proposer_sent(world.p, i, used);
	if (f.type == AU_MSG_APPEND && type != AU_MSG_APPEND)
		return got(i, type);
	assert_int_equal(f.type, type);
	return f;
}

static uint8_t answer[32 << 10];

static void
say_back(uint32_t i, const AuWriter *w, bool encoded)
{
	assert_true(encoded);
	au_proposer_input(world.p, i, w->data, w->len);
	(void) au_proposer_run(world.p);
}

static AuGroup
group(uint32_t epoch, uint8_t quorum, const char *ids)
{
	AuGroup		g = {.epoch = epoch,.write_quorum = quorum};

	for (; *ids != '\0'; ids++)
	{
		g.members[g.n].node_id = (uint64_t) *ids;
		snprintf(g.members[g.n++].address, AU_ADDRESS_MAX, "host-%c:1", *ids);
	}
	assert_true(au_group_valid(&g));
	return g;
}

/* A group of the view, or a list; made: nodes have the volume. */
static void
begin_with(AuGroup g, const char *list, bool made)
{
	AuProposerHost host = {
		&world, now_us, no_chance, au_heap_alloc, au_heap_release, say, want, cut, take
	};
	AuProposerOptions o = {
		.system_identifier = 7,.writer_id = 9,.timeline = 1,.wal_segment_size = 1 << 24,
		.local_start = BASE,.local_end = BASE + 1000,.window_bytes = WINDOW,
		.group = g,.group_settled = true
	};

	for (; *list != '\0'; list++)
		snprintf(o.addresses[o.nodes++], AU_ADDRESS_MAX, "host-%c:1", *list);
	o.write_quorum = (uint8_t) (o.nodes / 2 + 1);
	o.may_create = !made;
	o.create_lsn = BASE;
	memset(&world, 0, sizeof(world));
	world.now = 1000000;
	world.p = au_proposer_new(&host, &o);
	assert_non_null(world.p);
	(void) au_proposer_run(world.p);
}

static void
begin(AuGroup g)
{
	begin_with(g, "", true);
}

static uint32_t
place_of(char node)
{
	char		address[16];

	snprintf(address, sizeof(address), "host-%c:1", node);
	for (uint32_t i = 0; i < AU_GROUP_MAX; i++)
	{
		AuProposerNode n;

		au_proposer_node(world.p, i, &n);
		if (n.used && strcmp(au_proposer_address(world.p, i), address) == 0)
			return i;
	}
	fail_msg("node %c has no place", node);
	return 0;
}

/* What is at a place answers HELLO; its log ends here. */
static void
say_hello(uint32_t i, const AuMsgHelloOk *ok, AuLsn end)
{
	AuWriter	w;

	assert_true(world.place[i].wanted);
	world.place[i].connected = true;
	world.place[i].end = end;
	au_proposer_connected(world.p, i);
	(void) got(i, AU_MSG_HELLO);
	au_writer_start(&w, answer, sizeof(answer));
	say_back(i, &w, au_enc_hello_ok(&w, world.place[i].id, ok));
}

/* A node answers HELLO at a place. */
static void
greet_at(uint32_t i, char node, AuLsn end, uint32_t epoch)
{
	AuMsgHelloOk ok = {
		.node_id = (uint64_t) node,.volume_known = 1,.start_lsn = BASE,.durable_lsn = end,
		.applied_lsn = BASE,.term = 3,.group = group(epoch, 2, "abc")
	};

	say_hello(i, &ok, end);
}

/* The node is where it should be. */
static void
greet(char node, AuLsn end)
{
	greet_at(place_of(node), node, end, 1);
}

/* It is asked for its vote in the group of this epoch, and gives it. */
static void
vote_at(uint32_t i, char node, uint32_t epoch)
{
	AuMsgVoteOk ok = {
		.granted = 1,.timeline = 1,.start_lsn = BASE,.durable_lsn = world.place[i].end,
		.commit_lsn = world.place[i].commit != 0 ? world.place[i].commit : BASE,
		.history = {1, {{2, BASE, 1}}}
	};
	AuFrame		f = got(i, AU_MSG_VOTE);
	AuMsgVote	m;
	AuWriter	w;

	assert_true(au_dec_vote(&f, &m));
	assert_int_equal(m.group.epoch, epoch);
	assert_true(au_group_find(&m.group, (uint64_t) node) >= 0);
	ok.term = m.term;
	au_writer_start(&w, answer, sizeof(answer));
	say_back(i, &w, au_enc_vote_ok(&w, f.id, &ok));
}

/* The node is there, without the volume. */
static void
greet_empty(char node)
{
	AuMsgHelloOk ok = {.node_id = (uint64_t) node};

	say_hello(place_of(node), &ok, BASE);
}

static void
vote(char node, uint32_t epoch)
{
	vote_at(place_of(node), node, epoch);
}

/* It answers what it is asked with an error. */
static void
say_error(char node, uint16_t asked, AuStatus status)
{
	uint32_t	i = place_of(node);
	AuFrame		f = got(i, asked);
	AuWriter	w;

	au_writer_start(&w, answer, sizeof(answer));
	say_back(i, &w, au_enc_error(&w, f.id, status, "no", ""));
}

/* It has promised a newer term to another writer. */
static void
refuse_vote(char node)
{
	uint32_t	i = place_of(node);
	AuMsgVoteOk no = {.term = 99,.timeline = 1,.start_lsn = BASE,.durable_lsn = BASE,.commit_lsn = BASE,
		.history = {1, {{2, BASE, 1}}}
	};
	AuFrame		f = got(i, AU_MSG_VOTE);
	AuWriter	w;

	au_writer_start(&w, answer, sizeof(answer));
	say_back(i, &w, au_enc_vote_ok(&w, f.id, &no));
}

static void
let_in(char node, uint32_t epoch)
{
	uint32_t	i = place_of(node);
	AuFrame		f = got(i, AU_MSG_ELECT);
	AuMsgElect	m;
	AuMsgElectOk ok = {.received_lsn = world.place[i].end,.applied_lsn = BASE};
	AuWriter	w;

	assert_true(au_dec_elect(&f, &m));
	assert_int_equal(m.group.epoch, epoch);
	ok.term = m.term;
	au_writer_start(&w, answer, sizeof(answer));
	say_back(i, &w, au_enc_elect_ok(&w, f.id, &ok));
}

/* All that was appended is durable. */
static void
acknowledge(char node)
{
	uint32_t	i = place_of(node);
	AuMsgAppendOk ok = {0};
	AuWriter	w;

	while (world.place[i].len > 0)
	{
		AuFrame		f = got(i, AU_MSG_APPEND);
		AuMsgAppend m;

		assert_true(au_dec_append(&f, &m));
		ok.term = m.term;
		if (m.length > 0 && m.lsn + m.length > world.place[i].end)
			world.place[i].end = m.lsn + m.length;
	}
	assert_int_not_equal(ok.term, 0);
	ok.received_lsn = ok.durable_lsn = world.place[i].end;
	ok.applied_lsn = BASE;
	au_writer_start(&w, answer, sizeof(answer));
	say_back(i, &w, au_enc_append_ok(&w, world.place[i].id, &ok));
}

/* The server gives log up to here. */
static void
write_log(AuLsn upto)
{
	static uint8_t zeros[4096];
	AuLsn		from = au_proposer_next(world.p);

	assert_true(upto >= from && upto - from <= sizeof(zeros));
	au_proposer_log(world.p, zeros, (size_t) (upto - from));
	(void) au_proposer_run(world.p);
}

/* A term in group 1, {a, b, c}; all hold BASE + 1000. */
static void
lead(void)
{
	begin(group(1, 2, "abc"));
	for (const char *n = "abc"; *n != '\0'; n++)
		greet(*n, BASE + 1000);
	for (const char *n = "abc"; *n != '\0'; n++)
		vote(*n, 1);
	for (const char *n = "abc"; *n != '\0'; n++)
		let_in(*n, 1);
	assert_int_equal(au_proposer_state(world.p), AU_PROPOSER_LEADING);
	assert_int_equal(au_proposer_commit(world.p), 0);	/* nobody has compared */
	write_log(BASE + 1000);
	acknowledge('a');
	assert_int_equal(au_proposer_settled(world.p), 0);
	acknowledge('b');
	assert_int_equal(au_proposer_settled(world.p), 1);
	assert_int_equal(au_proposer_commit(world.p), BASE + 1000);
	acknowledge('c');
}

static void
the_second_node_commits(void **state)
{
	(void) state;
	lead();
	write_log(BASE + 1500);
	acknowledge('c');
	assert_int_equal(au_proposer_commit(world.p), BASE + 1000);
	acknowledge('a');
	assert_int_equal(au_proposer_commit(world.p), BASE + 1500);
	au_proposer_free(world.p);
}

/* A new member is looked at first; the present group goes on meanwhile. */
static void
a_node_is_added(void **state)
{
	AuGroup		g = group(2, 3, "abcd");

	(void) state;
	lead();
	au_proposer_set_group(world.p, &g, false);
	(void) au_proposer_run(world.p);
	assert_int_equal(au_proposer_epoch(world.p), 2);	/* a, b, c are enough */
	for (const char *n = "abc"; *n != '\0'; n++)
		vote(*n, 2);
	for (const char *n = "abc"; *n != '\0'; n++)
		let_in(*n, 2);
	assert_int_equal(au_proposer_commit(world.p), BASE + 1000);	/* still */
	acknowledge('a');
	acknowledge('b');
	assert_int_equal(au_proposer_settled(world.p), 1);
	acknowledge('c');			/* three hold it */
	assert_int_equal(au_proposer_settled(world.p), 2);
	au_proposer_free(world.p);
}

/* One of the group is gone: the new one has to be there, and not far behind. */
static void
a_lost_node_is_replaced(void **state)
{
	AuGroup		four = group(2, 3, "abcd");
	AuGroup		three = group(3, 2, "abd");
	AuProposerNode n;

	(void) state;
	lead();
	au_proposer_closed(world.p, place_of('c'), "gone");
	world.place[place_of('c')].connected = false;
	au_proposer_set_group(world.p, &four, false);
	(void) au_proposer_run(world.p);
	assert_int_equal(au_proposer_epoch(world.p), 1);
	write_log(BASE + 1200);
	acknowledge('a');
	acknowledge('b');
	assert_int_equal(au_proposer_commit(world.p), BASE + 1200);	/* goes on */
	greet('d', BASE + 1200);
	assert_int_equal(au_proposer_epoch(world.p), 2);
	for (const char *m = "abd"; *m != '\0'; m++)
		vote(*m, 2);
	for (const char *m = "abd"; *m != '\0'; m++)
		let_in(*m, 2);
	write_log(BASE + 1300);
	acknowledge('a');			/* it agrees with the server: the rest follows */
	acknowledge('a');
	acknowledge('b');
	assert_int_equal(au_proposer_commit(world.p), BASE + 1200);
	acknowledge('d');
	assert_int_equal(au_proposer_commit(world.p), BASE + 1300);
	assert_int_equal(au_proposer_settled(world.p), 2);

	/* c goes: its place is empty, and nobody connects to it */
	au_proposer_set_group(world.p, &three, false);
	(void) au_proposer_run(world.p);
	for (const char *m = "abd"; *m != '\0'; m++)
		vote(*m, 3);
	for (uint32_t i = 0; i < AU_GROUP_MAX; i++)
	{
		au_proposer_node(world.p, i, &n);
		assert_true(!n.used || strcmp(au_proposer_address(world.p, i), "host-c:1") != 0);
	}
	for (const char *m = "abd"; *m != '\0'; m++)
		let_in(*m, 3);
	acknowledge('a');
	acknowledge('d');
	assert_int_equal(au_proposer_settled(world.p), 3);
	au_proposer_free(world.p);
}

/* Acknowledgements of the old term say nothing about the new one, and are no
 * reason to end a connection; nor are votes of a campaign that is over. */
static void
late_answers(void **state)
{
	AuGroup		g = group(2, 3, "abcd");
	AuMsgAppendOk ok = {.term = 4,.received_lsn = BASE + 1000,.durable_lsn = BASE + 1000};
	AuMsgVoteOk old = {.granted = 1,.term = 4,.timeline = 1,.start_lsn = BASE,.durable_lsn = BASE + 9000,
	.commit_lsn = BASE,.history = {1, {{2, BASE, 1}}}};
	uint32_t	a;
	AuWriter	w;

	(void) state;
	lead();
	a = place_of('a');
	assert_int_equal(au_proposer_term(world.p), 4);
	au_proposer_set_group(world.p, &g, false);
	(void) au_proposer_run(world.p);
	au_writer_start(&w, answer, sizeof(answer));
	say_back(a, &w, au_enc_append_ok(&w, 1, &ok));
	au_writer_start(&w, answer, sizeof(answer));
	say_back(a, &w, au_enc_vote_ok(&w, 1, &old));
	assert_true(world.place[a].connected);
	for (const char *n = "abc"; *n != '\0'; n++)
		vote(*n, 2);
	assert_int_equal(au_proposer_state(world.p), AU_PROPOSER_LEADING);
	au_proposer_free(world.p);
}

/*
 * Meanwhile another writer had committed log of its own.  This one is told of
 * nothing before a node has compared its log with it.
 */
static void
others_committed_meanwhile(void **state)
{
	AuGroup		g = group(2, 3, "abcd");

	(void) state;
	lead();
	write_log(BASE + 1400);
	for (const char *n = "abc"; *n != '\0'; n++)
		world.place[place_of(*n)].commit = world.place[place_of(*n)].end = BASE + 1300;
	au_proposer_set_group(world.p, &g, false);
	(void) au_proposer_run(world.p);
	for (const char *n = "abc"; *n != '\0'; n++)
		vote(*n, 2);
	assert_int_equal(au_proposer_state(world.p), AU_PROPOSER_LEADING);
	assert_int_equal(au_proposer_commit(world.p), BASE + 1000);
	for (const char *n = "abc"; *n != '\0'; n++)
		let_in(*n, 2);
	acknowledge('a');
	assert_int_equal(au_proposer_commit(world.p), BASE + 1000);
	acknowledge('b');
	acknowledge('c');			/* all three agree with the server after all */
	assert_in_range(au_proposer_commit(world.p), BASE + 1300, BASE + 1400);
	au_proposer_free(world.p);
}

/* Nodes that are in a newer group say so: nothing is ended, the view is awaited. */
static void
an_old_view(void **state)
{
	AuGroup		g = group(2, 3, "abcd");
	const char *text;
	const char *hint;

	(void) state;
	begin(group(1, 2, "abc"));
	for (const char *n = "abc"; *n != '\0'; n++)
		greet(*n, BASE + 1000);
	for (const char *n = "ab"; *n != '\0'; n++)
		say_error(*n, AU_MSG_VOTE, AU_MOVED);
	assert_int_equal(au_proposer_trouble(world.p, &text, &hint), AU_PROPOSER_MOVED);
	assert_int_not_equal(au_proposer_state(world.p), AU_PROPOSER_ENDED);
	au_proposer_set_group(world.p, &g, false);
	world.now += AU_PROPOSER_RETRY_MAX_US;
	(void) au_proposer_run(world.p);
	for (const char *n = "abd"; *n != '\0'; n++)
		greet(*n, BASE + 1000);
	world.now += AU_PROPOSER_GRACE_US;
	(void) au_proposer_run(world.p);
	for (const char *n = "abd"; *n != '\0'; n++)
		vote(*n, 2);
	assert_int_equal(au_proposer_state(world.p), AU_PROPOSER_LEADING);
	au_proposer_free(world.p);
}

/* Who answers at a member's address is not the member. */
static void
a_stranger(void **state)
{
	AuMsgHelloOk ok = {.node_id = 'x'};
	AuProposerNode n;
	AuWriter	w;

	(void) state;
	begin(group(1, 2, "abc"));
	au_proposer_connected(world.p, 0);
	(void) got(0, AU_MSG_HELLO);
	au_writer_start(&w, answer, sizeof(answer));
	say_back(0, &w, au_enc_hello_ok(&w, world.place[0].id, &ok));
	au_proposer_node(world.p, 0, &n);
	assert_int_equal(n.state, AU_PNODE_DOWN);
	assert_non_null(strstr(n.problem, "is to keep this server's log"));
	au_proposer_free(world.p);
}

/* All nodes of a list. */
static void
greet_list(void)
{
	AuGroup		none = {0};

	begin_with(none, "abc", true);
	for (const char *n = "abc"; *n != '\0'; n++)
		greet_at(place_of(*n), *n, BASE + 1000, 0);
}

static void
lose(uint32_t i)
{
	cut(&world, i);
	au_proposer_closed(world.p, i, "gone");
}

/* The pause before the next attempt is over. */
static void
try_again(void)
{
	world.now += AU_PROPOSER_RETRY_MAX_US;
	(void) au_proposer_run(world.p);
}

/* An address of a list leads to another node of it: what that one holds counts
 * once, whatever it acknowledged where it was before. */
static void
one_node_at_two_places(void **state)
{
	AuProposerNode n;

	(void) state;
	greet_list();
	for (const char *v = "abc"; *v != '\0'; v++)
		vote(*v, 0);
	for (const char *v = "abc"; *v != '\0'; v++)
		let_in(*v, 0);
	write_log(BASE + 1500);
	for (const char *v = "abc"; *v != '\0'; v++)
		acknowledge(*v);
	assert_int_equal(au_proposer_commit(world.p), BASE + 1500);
	write_log(BASE + 1600);
	acknowledge('b');
	assert_int_equal(au_proposer_commit(world.p), BASE + 1500);	/* b alone has it */

	/* c's address leads to b, which is still connected at its own */
	lose(2);
	world.place[0].len = 0;		/* a is slow */
	try_again();
	greet_at(2, 'b', BASE + 1600, 0);
	au_proposer_node(world.p, 2, &n);
	assert_int_equal(n.state, AU_PNODE_DOWN);
	assert_non_null(strstr(n.problem, "\"host-b:1\" and \"host-c:1\" are the same storage node"));

	/* ... and then is at c's address only */
	lose(1);
	try_again();
	greet_at(2, 'b', BASE + 1600, 0);
	world.place[2].end = BASE + 1600;
	let_in('c', 0);
	(void) au_proposer_run(world.p);
	acknowledge('c');
	assert_int_equal(au_proposer_commit(world.p), BASE + 1500);
	au_proposer_free(world.p);
}

static void
one_node_votes_twice(void **state)
{
	(void) state;
	greet_list();
	vote('b', 0);
	lose(2);
	lose(1);
	world.now += AU_PROPOSER_RETRY_MIN_US;
	(void) au_proposer_run(world.p);
	greet_at(2, 'b', BASE + 1000, 0);
	vote_at(2, 'b', 0);
	assert_int_not_equal(au_proposer_state(world.p), AU_PROPOSER_LEADING);
	vote('a', 0);
	assert_int_equal(au_proposer_state(world.p), AU_PROPOSER_LEADING);
	au_proposer_free(world.p);
}

/* Elections that come to nothing because connections break are nobody's fault:
 * they do not count as another writer's. */
static void
broken_elections(void **state)
{
	(void) state;
	begin(group(1, 2, "abc"));
	for (int i = 0; i < AU_PROPOSER_CAMPAIGNS_MAX; i++)
	{
		for (const char *n = "abc"; *n != '\0'; n++)
			greet(*n, BASE + 1000);
		for (uint32_t k = 0; k < 3; k++)
			lose(k);
		try_again();
	}
	for (const char *n = "abc"; *n != '\0'; n++)
		greet(*n, BASE + 1000);
	refuse_vote('a');
	assert_int_not_equal(au_proposer_state(world.p), AU_PROPOSER_ENDED);
	au_proposer_free(world.p);
}

/*
 * Log that one node has may be held by a quorum as long as the group is not
 * settled; after that it is not, and the server need not have it.
 */
static void
before_a_group_is_settled(void **state)
{
	(void) state;
	for (int settled = 0; settled < 2; settled++)
	{
		AuGroup		g = group(2, 3, "abc");

		begin(group(1, 2, "abc"));
		au_proposer_set_group(world.p, &g, settled);
		for (const char *n = "abc"; *n != '\0'; n++)
			greet(*n, *n == 'a' ? BASE + 2000 : BASE + 1000);
		vote('a', 2);
		vote('b', 2);
		assert_int_equal(au_proposer_state(world.p), settled ? AU_PROPOSER_LEADING : AU_PROPOSER_ENDED);
		au_proposer_free(world.p);
	}
}

static void
go_away(char node)
{
	uint32_t	i = place_of(node);

	world.place[i].connected = world.place[i].wanted = false;
	world.place[i].len = 0;
	au_proposer_closed(world.p, i, "gone");
	(void) au_proposer_run(world.p);
}

static void
wait_s(uint32_t seconds)
{
	for (uint32_t n = 0; n < seconds * 10; n++)
	{
		world.now += 100000;
		(void) au_proposer_run(world.p);
	}
}

/* Another writer has taken the members of the next group, and is gone: these answer
 * `moved`, one after the other, and are there all the same. */
static void
test_members_have_moved(void **state)
{
	AuGroup		g = group(2, 2, "bc");

	(void) state;
	lead();
	go_away('b');
	go_away('c');
	au_proposer_set_group(world.p, &g, false);
	for (const char *n = "bc"; *n != '\0'; n++)
	{
		assert_int_equal(au_proposer_state(world.p), AU_PROPOSER_LEADING);
		world.now += AU_PROPOSER_RETRY_MAX_US;
		(void) au_proposer_run(world.p);
		greet(*n, BASE + 1000);
		say_error(*n, AU_MSG_ELECT, AU_MOVED);
	}
	assert_int_not_equal(au_proposer_state(world.p), AU_PROPOSER_LEADING);
	world.now += AU_PROPOSER_RETRY_MAX_US;
	(void) au_proposer_run(world.p);
	for (const char *n = "bc"; *n != '\0'; n++)
		greet(*n, BASE + 1000);
	for (const char *n = "bc"; *n != '\0'; n++)
		vote(*n, 2);
	assert_int_equal(au_proposer_state(world.p), AU_PROPOSER_LEADING);
	au_proposer_free(world.p);
}

/*
 * A node that lost log takes part again in a term that is won without it: so a
 * writer whom the others suffice for seeks one, and another one stays where it
 * is.  What the node had acknowledged before does not count against it.
 */
static void
test_lost_log(void **state)
{
	AuProposerNode n;
	const char *text;
	const char *hint;

	(void) state;
	lead();
	go_away('c');
	wait_s(3);
	greet('c', BASE);
	say_error('c', AU_MSG_ELECT, AU_LOST);
	assert_int_equal(au_proposer_state(world.p), AU_PROPOSER_ENDED);
	assert_int_equal(au_proposer_trouble(world.p, &text, &hint), AU_PROPOSER_AGAIN);
	au_proposer_free(world.p);

	lead();
	go_away('b');
	go_away('c');
	wait_s(3);
	greet('c', BASE);
	say_error('c', AU_MSG_ELECT, AU_LOST);
	assert_int_equal(au_proposer_state(world.p), AU_PROPOSER_LEADING);
	au_proposer_node(world.p, place_of('c'), &n);
	assert_int_equal(n.durable, 0);
	au_proposer_free(world.p);

	/* in an election it is no vote, and no hindrance */
	begin(group(1, 2, "abc"));
	greet('a', BASE + 1000);
	greet('b', BASE + 1000);
	greet('c', BASE);
	vote('a', 1);
	say_error('c', AU_MSG_VOTE, AU_LOST);
	assert_int_not_equal(au_proposer_state(world.p), AU_PROPOSER_LEADING);
	vote('b', 1);
	assert_int_equal(au_proposer_state(world.p), AU_PROPOSER_LEADING);
	au_proposer_free(world.p);
}

/*
 * A node of the list misses the making of the volume: it gets it when it is
 * back, for there is no writer before that.  Once there is one, who comes
 * without the volume has lost it, and is given none.
 */
static void
test_made_on_all(void **state)
{
	(void) state;
	begin_with((AuGroup) {0}, "abc", false);
	for (const char *n = "abc"; *n != '\0'; n++)
		greet_empty(*n);
	vote('a', 0);
	vote('b', 0);
	go_away('c');
	assert_int_not_equal(au_proposer_state(world.p), AU_PROPOSER_LEADING);
	wait_s(30);
	assert_int_not_equal(au_proposer_state(world.p), AU_PROPOSER_LEADING);
	greet_empty('c');
	wait_s(3);
	for (const char *n = "abc"; *n != '\0'; n++)
		vote(*n, 0);
	assert_int_equal(au_proposer_state(world.p), AU_PROPOSER_LEADING);
	for (const char *n = "abc"; *n != '\0'; n++)
		let_in(*n, 0);
	go_away('c');
	wait_s(3);
	greet_empty('c');
	assert_int_equal(world.place[place_of('c')].len, 0);
	assert_false(world.place[place_of('c')].connected);
	au_proposer_free(world.p);
}

/* A node answers ELECT: it has promised a newer term meanwhile. */
static void
fence(char node)
{
	uint32_t	i = place_of(node);
	AuFrame		f = got(i, AU_MSG_ELECT);
	AuWriter	w;

	au_writer_start(&w, answer, sizeof(answer));
	say_back(i, &w, au_enc_error(&w, f.id, AU_FENCED, "a newer term was promised", ""));
}

/*
 * A term is won, and another one is promised while the nodes are still brought
 * to the same log: nothing of it was acknowledged, and nothing is.  As long as
 * the others could be a quorum it is worth another try, else it is over.
 */
static void
fenced_while_logs_are_compared(void **state)
{
	const char *text;
	const char *hint;

	(void) state;
	for (uint8_t quorum = 2; quorum <= 3; quorum++)
	{
		begin(group(1, quorum, "abc"));
		for (const char *n = "abc"; *n != '\0'; n++)
			greet(*n, BASE + 1000);
		for (const char *n = "abc"; *n != '\0'; n++)
			vote(*n, 1);
		let_in('a', 1);
		write_log(BASE + 1000);
		acknowledge('a');
		assert_int_equal(au_proposer_state(world.p), AU_PROPOSER_LEADING);
		fence('b');
		assert_int_equal(au_proposer_state(world.p), AU_PROPOSER_ENDED);
		assert_int_equal(au_proposer_trouble(world.p, &text, &hint),
						 quorum == 2 ? AU_PROPOSER_AGAIN : AU_PROPOSER_FENCED);
		assert_non_null(strstr(text, "a newer term was promised"));
		assert_int_equal(au_proposer_commit(world.p), 0);
		au_proposer_free(world.p);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_members_have_moved),
		cmocka_unit_test(test_lost_log),
		cmocka_unit_test(test_made_on_all),
		cmocka_unit_test(the_second_node_commits),
		cmocka_unit_test(a_node_is_added),
		cmocka_unit_test(a_lost_node_is_replaced),
		cmocka_unit_test(late_answers),
		cmocka_unit_test(others_committed_meanwhile),
		cmocka_unit_test(an_old_view),
		cmocka_unit_test(a_stranger),
		cmocka_unit_test(one_node_at_two_places),
		cmocka_unit_test(one_node_votes_twice),
		cmocka_unit_test(broken_elections),
		cmocka_unit_test(before_a_group_is_settled),
		cmocka_unit_test(fenced_while_logs_are_compared),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
