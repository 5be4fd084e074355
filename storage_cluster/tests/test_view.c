/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_view.c: the view's state machine: each command, what it refuses, and
 * its invariants over thousands of random commands; bytes of views, commands
 * and the messages that carry them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/au_crc32c.h"
#include "common/au_wire_cluster.h"
#include "tests/viewmake.h"

static char err[256];

/* AU_OK: whether the view is another one now. */
static AuStatus
try(AuView *v, AuViewCommand c, bool *changed)
{
	AuView	   *before = malloc(sizeof(*before));
	AuStatus	status;
	char		why[128];

	assert_non_null(before);
	*before = *v;
	status = au_view_apply(v, &c, changed, err, sizeof(err));
	if (!au_view_valid(v, why, sizeof(why)))
		fail_msg("command %u made a view that is not valid: %s", c.type, why);
	assert_int_not_equal(status, AU_CORRUPT);
	assert_int_equal(v->epoch, before->epoch + *changed);
	assert_int_equal(status == AU_OK, err[0] == '\0');
	if (!*changed)
		assert_memory_equal(v, before, sizeof(*v));
	else
		assert_memory_not_equal(v, before, sizeof(*v));
	free(before);
	return status;
}

static void
apply(AuView *v, AuViewCommand c)
{
	bool		changed;

	if (try(v, c, &changed) != AU_OK)
		fail_msg("%s", err);
	assert_true(changed);
}

static void
nothing_new(AuView *v, AuViewCommand c)
{
	bool		changed;

	assert_int_equal(try(v, c, &changed), AU_OK);
	assert_false(changed);
}

static void
refused(AuView *v, AuViewCommand c, AuStatus status, const char *message)
{
	bool		changed;

	assert_int_equal(try(v, c, &changed), status);
	if (strstr(err, message) == NULL)
		fail_msg("refused with \"%s\", not \"%s\"", err, message);
}

static void
make_cluster(AuView *v, uint32_t n)
{
	memset(v, 0, sizeof(*v));
	apply(v, view_init(3));
	for (uint32_t i = 1; i <= n; i++)
	{
		apply(v, view_join(i, ""));
		if (i > 1)
			apply(v, view_ready(v, i));
		assert_int_equal(au_view_node(v, i)->state, AU_NODE_ACTIVE);
	}
}

static AuViewCommand
add_volume(uint64_t system_identifier, uint8_t ngroup, uint8_t quorum)
{
	return (AuViewCommand)
	{
		.type = AU_VIEW_VOLUME_ADD,.system_identifier = system_identifier,
		.ngroup = ngroup,.write_quorum = quorum
	};
}

static AuViewCommand
replace(uint64_t system_identifier, uint32_t number, uint32_t with)
{
	return (AuViewCommand)
	{
		.type = AU_VIEW_GROUP_REPLACE,.system_identifier = system_identifier,
		.number = number,.with = with
	};
}

static AuViewCommand
settled(uint64_t system_identifier, uint32_t epoch)
{
	return (AuViewCommand)
	{
		.type = AU_VIEW_GROUP_SETTLED,.system_identifier = system_identifier,
		.group_epoch = epoch
	};
}

static AuViewCommand
flag(AuViewCommandType type, uint32_t number, uint8_t on)
{
	AuViewCommand c = view_about(type, number);

	c.up = on;
	return c;
}

static AuViewCommand
mending(uint32_t number, uint64_t system_identifier, uint8_t on)
{
	AuViewCommand c = flag(AU_VIEW_MENDING, number, on);

	c.system_identifier = system_identifier;
	return c;
}

static void
test_init(void **state)
{
	static AuView v;
	AuViewCommand other = view_init(3);

	(void) state;
	memset(&v, 0, sizeof(v));
	refused(&v, view_join(1, ""), AU_REFUSED, "no cluster yet");
	refused(&v, view_init(0), AU_INVALID, "1 to 5 replicas");
	refused(&v, view_init(6), AU_INVALID, "1 to 5 replicas");
	apply(&v, view_init(3));
	assert_int_equal(v.epoch, 1);
	nothing_new(&v, view_init(3));
	other.cluster_id++;
	refused(&v, other, AU_REFUSED, "cluster already");
	refused(&v, view_about((AuViewCommandType) 77, 1), AU_INVALID, "type 77");
}

static void
test_join(void **state)
{
	static AuView v;
	AuViewCommand c = view_join(1, "");
	AuSliceSet	owned,
				incoming;

	(void) state;
	memset(&v, 0, sizeof(v));
	apply(&v, view_init(3));
	apply(&v, view_join(1, "a"));
	/* the first one has nobody to fetch from */
	assert_int_equal(v.nodes[0].state, AU_NODE_ACTIVE);
	apply(&v, view_join(2, "b"));
	assert_int_equal(v.nodes[1].state, AU_NODE_JOINING);
	au_view_owned(&v, 2, &owned, &incoming);
	for (uint32_t s = 0; s < AU_SLICES; s++)
	{
		assert_false(au_slices_has(&owned, s));
		assert_true(au_slices_has(&incoming, s));
	}
	nothing_new(&v, view_join(2, "b"));
	/* the same node elsewhere */
	c = view_join(9, "c");
	c.node.node_id = v.nodes[1].node_id;
	apply(&v, c);
	assert_string_equal(au_view_node(&v, 2)->address, "host9:7100");
	assert_int_equal(v.nnodes, 2);
	/* another node at its place */
	c.node.node_id++;
	refused(&v, c, AU_REFUSED, "node 2 has the address host9:7100");
	c = view_join(3, "");
	c.node.weight = 0;
	refused(&v, c, AU_INVALID, "weight is 1 to 10000");
	c = view_join(3, "");
	c.node.meta_address[0] = '\0';
	refused(&v, c, AU_INVALID, "two addresses");
	for (uint32_t i = 3; i <= AU_VIEW_NODES_MAX; i++)
		apply(&v, view_join(100 + i, ""));
	refused(&v, view_join(1000, ""), AU_FULL, "64 nodes");
}

/* A JOIN that is in the log twice, the second time after its node was removed,
 * makes no member that nobody is. */
static void
test_join_again_later(void **state)
{
	static AuView v;
	AuViewCommand join = view_join(4, "");

	(void) state;
	make_cluster(&v, 3);
	join.with = v.next_number;
	apply(&v, join);
	nothing_new(&v, join);		/* the leader changed meanwhile */
	apply(&v, view_about(AU_VIEW_DRAIN, 4));
	for (uint32_t i = 1; i <= 4; i++)
	{
		AuViewCommand ready = view_ready(&v, i);
		bool		changed;

		(void) try(&v, ready, &changed);
	}
	apply(&v, view_about(AU_VIEW_REMOVE, 4));
	refused(&v, join, AU_REFUSED, "was removed since this one asked to join");
	join = view_join(5, "");	/* nor who may be the one */
	join.with = 4;
	refused(&v, join, AU_REFUSED, "it asks again");
	join.with = v.next_number;	/* it has seen that */
	apply(&v, join);
	assert_int_equal(au_view_node_by_id(&v, join.node.node_id)->number, 5);
	join = view_join(6, "");	/* another one joined, none was removed */
	join.with = 5;
	apply(&v, join);
	join = view_join(4, "");	/* from a log of before `with` */
	apply(&v, join);
}

/* Only those who say so of the target as it is now have a slice. */
static void
test_ready(void **state)
{
	static AuView v;
	AuViewCommand early,
				half;

	(void) state;
	make_cluster(&v, 3);
	apply(&v, view_join(4, ""));
	half = early = view_ready(&v, 4);
	memset(&half.slices, 0, sizeof(half.slices));
	nothing_new(&v, half);
	for (uint32_t s = 0; s < AU_SLICES / 2; s++)
		if (au_slices_has(&early.slices, s))
			au_slices_add(&half.slices, s);
	apply(&v, half);
	assert_int_equal(v.nodes[3].state, AU_NODE_JOINING);
	nothing_new(&v, half);
	/* drained and taken back: not in this history, so another target */
	apply(&v, view_about(AU_VIEW_DRAIN, 4));
	refused(&v, view_about(AU_VIEW_REMOVE, 4), AU_REFUSED, "has slices");
	nothing_new(&v, early);
	for (int i = 1; i <= 3; i++)
	{
		AuViewCommand c = view_ready(&v, (uint32_t) i);
		bool		changed;

		assert_int_equal(try(&v, c, &changed), AU_OK);
	}
	apply(&v, view_about(AU_VIEW_REMOVE, 4));
	refused(&v, early, AU_REFUSED, "node 4 was removed");
	refused(&v, view_ready(&v, 9), AU_REFUSED, "no node 9");
}

/*
 * A slice that was on its way, then not, then again: what was said of the
 * first way is not believed of the second one.
 */
static void
test_stale_ready(void **state)
{
	static AuView v;
	AuViewCommand stale,
				c;
	bool		changed;

	(void) state;
	make_cluster(&v, 3);
	apply(&v, view_join(4, ""));
	stale = view_ready(&v, 4);
	for (int turn = 0; turn < 2; turn++)
	{
		c = view_about(AU_VIEW_WEIGHT, 4);
		c.node.weight = turn == 0 ? 1 : 100;
		apply(&v, c);
	}
	assert_int_equal(v.nodes[3].state, AU_NODE_JOINING);
	assert_int_equal(try(&v, stale, &changed), AU_OK);
	assert_int_equal(v.nodes[3].state, AU_NODE_JOINING);
	apply(&v, view_ready(&v, 4));
	assert_int_equal(v.nodes[3].state, AU_NODE_ACTIVE);
}

static void
test_drain_remove(void **state)
{
	static AuView v;
	AuViewCommand c;
	AuSliceSet	owned,
				incoming;

	(void) state;
	make_cluster(&v, 4);
	refused(&v, view_about(AU_VIEW_REMOVE, 2), AU_REFUSED, "drain it first");
	refused(&v, view_about(AU_VIEW_REMOVE, 7), AU_REFUSED, "no node 7");
	refused(&v, view_about(AU_VIEW_DRAIN, 7), AU_REFUSED, "no node 7");
	apply(&v, view_about(AU_VIEW_DRAIN, 2));
	nothing_new(&v, view_about(AU_VIEW_DRAIN, 2));
	refused(&v, view_about(AU_VIEW_REMOVE, 2), AU_REFUSED, "node 2 has slices");
	for (uint32_t i = 1; i <= 4; i++)
		if (i != 2)
			apply(&v, view_ready(&v, i));
	au_view_owned(&v, 2, &owned, &incoming);
	for (uint32_t s = 0; s < AU_SLICES; s++)
		assert_false(au_slices_has(&owned, s) || au_slices_has(&incoming, s));
	apply(&v, view_about(AU_VIEW_REMOVE, 2));
	assert_null(au_view_node(&v, 2));
	refused(&v, view_about(AU_VIEW_DRAIN, 2), AU_REFUSED, "was removed");
	/* its number is not given again, not even to itself: what it was it is not any more; with an empty directory it is a new one */
	c = view_join(2, "");
	c.node.number = 2;
	refused(&v, c, AU_REFUSED, "not node 2 any more");
	c = view_join(1, "");
	c.node.number = 3;
	refused(&v, c, AU_REFUSED, "not node 3 any more");
	c.node.number = 1;
	nothing_new(&v, c);
	apply(&v, view_join(2, ""));
	assert_int_equal(au_view_node_by_id(&v, view_join(2, "").node.node_id)->number, 5);
	for (uint32_t i = 1; i <= 4; i++)
		if (i != 2)
			apply(&v, view_about(AU_VIEW_DRAIN, i));
	refused(&v, view_about(AU_VIEW_DRAIN, 5), AU_REFUSED, "the only one that keeps slices");
}

/* A command that would break the view, here because it is broken already: no
 * node takes it, and none ends. */
static void
test_broken(void **state)
{
	static AuView v,
				before;
	AuViewCommand c = view_about(AU_VIEW_WEIGHT, 2);
	char		why[256];
	bool		changed;

	(void) state;
	make_cluster(&v, 3);
	v.next_number = 2;
	before = v;
	c.node.weight = 50;
	assert_int_equal(au_view_apply(&v, &c, &changed, why, sizeof(why)), AU_CORRUPT);
	assert_false(changed);
	assert_non_null(strstr(why, "would break the view"));
	assert_memory_equal(&v, &before, sizeof(v));
}

/* One of three is down: another one that leaves would leave half. */
static void
test_remove_needs_votes(void **state)
{
	static AuView v;

	(void) state;
	make_cluster(&v, 3);
	apply(&v, view_about(AU_VIEW_DRAIN, 2));
	apply(&v, flag(AU_VIEW_UP, 3, 0));
	refused(&v, view_about(AU_VIEW_REMOVE, 2), AU_REFUSED, "only 1 of 2 nodes would be up");
	apply(&v, flag(AU_VIEW_UP, 2, 0));
	apply(&v, view_about(AU_VIEW_REMOVE, 2));
	assert_int_equal(au_view_voters_wanted(2), 2);
	assert_int_equal(au_view_voters_wanted(4), 3);
	assert_int_equal(au_view_voters_wanted(9), 5);
}

static void
test_remove_by_force(void **state)
{
	static AuView v;

	(void) state;
	make_cluster(&v, 4);
	refused(&v, flag(AU_VIEW_REMOVE, 3, 1), AU_REFUSED, "node 3 is up");
	apply(&v, flag(AU_VIEW_UP, 3, 0));
	nothing_new(&v, flag(AU_VIEW_UP, 3, 0));
	refused(&v, flag(AU_VIEW_UP, 3, 2), AU_INVALID, "up or not");
	refused(&v, view_about(AU_VIEW_REMOVE, 3), AU_REFUSED, "drain it first");
	apply(&v, flag(AU_VIEW_REMOVE, 3, 1));
	for (uint32_t s = 0; s < AU_SLICES; s++)
		assert_true(v.slices[s].nowners >= 2);
	make_cluster(&v, 1);
	apply(&v, view_join(2, ""));
	apply(&v, flag(AU_VIEW_UP, 1, 0));
	refused(&v, flag(AU_VIEW_REMOVE, 1, 1), AU_REFUSED, "the only one that has slice 0");
}

/* Two owners of a slice never throw their pages away at once. */
static void
test_mending(void **state)
{
	static AuView v,
				copy;
	static uint8_t bytes[AU_VIEW_ENCODED_MAX];
	AuViewCommand whole;

	(void) state;
	make_cluster(&v, 3);
	refused(&v, mending(1, 7, 1), AU_REFUSED, "does not know volume 7");
	apply(&v, add_volume(7, 0, 0));
	apply(&v, add_volume(8, 0, 0));
	refused(&v, mending(9, 7, 1), AU_REFUSED, "no node 9");
	refused(&v, mending(1, 7, 2), AU_INVALID, "");
	nothing_new(&v, mending(1, 7, 0));
	(void) au_view_encode(&v, bytes, sizeof(bytes));
	assert_int_equal(au_get_u16(bytes + 4), 1);	/* older nodes read it */
	apply(&v, mending(1, 7, 1));
	assert_true(au_view_mends(&v, 1, 7));
	assert_false(au_view_mends(&v, 1, 8));
	refused(&v, mending(2, 7, 1), AU_REFUSED, "node 1 makes its pages anew");
	refused(&v, mending(3, 7, 1), AU_REFUSED, "node 1 makes its pages anew");
	assert_true(au_view_decode(&copy, bytes, au_view_encode(&v, bytes, sizeof(bytes))));
	assert_int_equal(au_get_u16(bytes + 4), 2);
	assert_memory_equal(&copy, &v, sizeof(v));
	/* of another volume it is another matter */
	apply(&v, mending(2, 8, 1));
	/* asked again, it is another grant: what was said of the first is late */
	whole = mending(1, 7, 0);
	whole.epoch = v.epoch;
	apply(&v, mending(1, 7, 1));
	nothing_new(&v, whole);
	whole.epoch = v.epoch;
	apply(&v, whole);
	assert_false(au_view_mends(&v, 1, 7));
	apply(&v, mending(2, 7, 1));
}

/* Others must be there, and be up. */
static void
test_mending_needs_others(void **state)
{
	static AuView v;

	(void) state;
	make_cluster(&v, 2);
	apply(&v, add_volume(7, 0, 0));
	apply(&v, flag(AU_VIEW_UP, 2, 0));
	refused(&v, mending(1, 7, 1), AU_REFUSED, "no other node that is up has slice 0");
	apply(&v, flag(AU_VIEW_UP, 2, 1));
	apply(&v, mending(1, 7, 1));
	make_cluster(&v, 1);
	apply(&v, add_volume(7, 0, 0));
	refused(&v, mending(1, 7, 1), AU_REFUSED, "no other node that is up has slice 0");
}

/* What mends has nothing: nobody goes because of it, no move ends with it. */
static void
test_mending_counts_for_nothing(void **state)
{
	static AuView v;
	AuViewCommand whole = mending(1, 7, 0);
	AuViewCommand late;

	(void) state;
	make_cluster(&v, 2);
	apply(&v, add_volume(7, 1, 0));
	apply(&v, settled(7, 1));
	if (v.volumes[0].group[0] == 2)
	{
		apply(&v, replace(7, 2, 1));
		apply(&v, settled(7, 2));
		apply(&v, settled(7, 3));
	}
	apply(&v, mending(1, 7, 1));
	/* node 2 has the only copy now */
	apply(&v, flag(AU_VIEW_UP, 2, 0));
	refused(&v, flag(AU_VIEW_REMOVE, 2, 1), AU_REFUSED, "the only one that has slice 0");
	apply(&v, flag(AU_VIEW_UP, 2, 1));
	apply(&v, view_about(AU_VIEW_DRAIN, 2));
	for (uint32_t s = 0; s < AU_SLICES; s++)
		assert_int_equal(v.slices[s].nowners, 2);
	late = view_ready(&v, 1);
	memset(&late.slices, 0xFF, sizeof(late.slices));
	nothing_new(&v, late);
	refused(&v, view_about(AU_VIEW_REMOVE, 2), AU_REFUSED, "has slices");
	whole.epoch = v.epoch;
	apply(&v, whole);
	for (uint32_t s = 0; s < AU_SLICES; s++)
		assert_int_equal(v.slices[s].nowners, 1);
	apply(&v, view_about(AU_VIEW_REMOVE, 2));
}

/* What was on its way to it, and had come, has to come again. */
static void
test_mending_target(void **state)
{
	static AuView v;
	AuViewCommand late;
	AuViewCommand whole = mending(3, 7, 0);

	(void) state;
	make_cluster(&v, 2);
	apply(&v, add_volume(7, 0, 0));
	apply(&v, view_join(3, ""));
	late = view_ready(&v, 3);
	apply(&v, mending(3, 7, 1));
	nothing_new(&v, late);
	whole.epoch = v.epoch;
	apply(&v, whole);
	nothing_new(&v, late);
	apply(&v, view_ready(&v, 3));
	assert_int_equal(v.slices[0].nowners, 3);
}

static void
test_group(void **state)
{
	static AuView v;
	const AuViewVolume *vol;
	AuGroup		g;

	(void) state;
	make_cluster(&v, 5);
	refused(&v, add_volume(0, 0, 0), AU_INVALID, "system identifier");
	refused(&v, add_volume(7, 6, 0), AU_REFUSED, "only 5");
	refused(&v, add_volume(7, 3, 1), AU_REFUSED, "must be 2 to 3");
	apply(&v, add_volume(7, 0, 0));
	nothing_new(&v, add_volume(7, 5, 0));
	vol = au_view_volume(&v, 7);
	assert_int_equal(vol->ngroup, 3);
	assert_int_equal(vol->write_quorum, 2);
	au_view_group(&v, vol, &g);
	assert_true(au_group_valid(&g));
	assert_string_equal(g.members[0].address, au_view_node(&v, vol->group[0])->address);
	refused(&v, replace(7, vol->group[0], 0), AU_REFUSED, "not done");
	refused(&v, settled(7, 2), AU_INVALID, "no epoch 2");
	refused(&v, settled(8, 1), AU_REFUSED, "no volume 8");
	apply(&v, settled(7, 1));
	nothing_new(&v, settled(7, 1));
	refused(&v, replace(7, 0, 0), AU_INVALID, "name a node");
	refused(&v, replace(7, 0, vol->group[0]), AU_REFUSED, "already");
	refused(&v, replace(7, 0, 9), AU_REFUSED, "no node 9");
	refused(&v, flag(AU_VIEW_REMOVE, vol->group[0], 0), AU_REFUSED, "keeps the log");
	for (uint32_t i = 1; i <= 5; i++)
	{
		bool		in = false;
		uint32_t	out = vol->group[0];

		for (uint32_t j = 0; j < vol->ngroup; j++)
			in = in || vol->group[j] == i;
		if (in)
			continue;
		refused(&v, replace(7, i, 0), AU_REFUSED, "does not keep");
		/* one goes, one comes: two changes, one after the other */
		apply(&v, replace(7, out, i));
		assert_int_equal(vol->ngroup, 4);
		assert_int_equal(vol->write_quorum, 3);
		assert_int_equal(vol->leaving, out);
		refused(&v, replace(7, 0, out), AU_REFUSED, "already");
		apply(&v, settled(7, 2));
		assert_int_equal(vol->ngroup, 3);
		assert_int_equal(vol->write_quorum, 2);
		assert_int_equal(vol->leaving, 0);
		assert_int_equal(vol->group_epoch, 3);
		nothing_new(&v, settled(7, 2));
		apply(&v, settled(7, 3));
		return;
	}
	fail();
}

/* A node that drains leaves the groups as soon as they may change. */
static void
test_drain_leaves_groups(void **state)
{
	static AuView v;
	const AuViewVolume *vol;
	uint32_t	number;

	(void) state;
	make_cluster(&v, 4);
	apply(&v, add_volume(7, 3, 3));
	vol = au_view_volume(&v, 7);
	number = vol->group[1];
	apply(&v, view_about(AU_VIEW_DRAIN, number));
	assert_int_equal(vol->ngroup, 3);
	apply(&v, settled(7, 1));
	assert_int_equal(vol->ngroup, 4);
	assert_int_equal(vol->leaving, number);
	assert_int_equal(vol->write_quorum, 4);
	refused(&v, view_about(AU_VIEW_REMOVE, number), AU_REFUSED, "keeps the log of volume 7");
	apply(&v, settled(7, 2));
	assert_int_equal(vol->ngroup, 3);
	assert_int_equal(vol->write_quorum, 3);
	for (uint32_t i = 1; i <= 4; i++)
		if (i != number)
			apply(&v, view_ready(&v, i));
	apply(&v, view_about(AU_VIEW_REMOVE, number));
}

/* ---- random commands -------------------------------------------------- */

typedef struct World
{
	uint64_t	rng;
	AuView		view;
	AuViewVolume old[AU_VIEW_VOLUMES_MAX];
	uint32_t	applied[AU_VIEW_MENDING + 1];
	uint32_t	moves;
} World;

static uint32_t
rnd(World *w, uint32_t n)
{
	w->rng += UINT64_C(0x9e3779b97f4a7c15);
	return (uint32_t) (au_mix64(w->rng) % n);
}

static uint32_t
some_node(World *w)
{
	if (w->view.nnodes == 0 || rnd(w, 30) == 0)
		return rnd(w, 100);
	return w->view.nodes[rnd(w, w->view.nnodes)].number;
}

static AuViewCommand
some_replace(World *w, uint64_t volume)
{
	const AuViewVolume *vol = au_view_volume(&w->view, volume);
	uint32_t	out = vol != NULL ? vol->group[rnd(w, vol->ngroup)] : some_node(w);

	return replace(volume, rnd(w, 2) ? out : 0, rnd(w, 3) ? some_node(w) : 0);
}

static AuViewCommand
some_settled(World *w, uint64_t volume)
{
	const AuViewVolume *vol = au_view_volume(&w->view, volume);

	return settled(volume, vol != NULL ? vol->group_epoch + (rnd(w, 4) == 0) - (rnd(w, 4) == 0) : 1);
}

static AuViewCommand
some_command(World *w)
{
	static const char *const zones[] = {"", "a", "b", "c"};
	AuView	   *v = &w->view;
	AuViewCommand c = view_about(AU_VIEW_WEIGHT, some_node(w));
	uint64_t	volume = 1 + rnd(w, 6);

	c.node.weight = (uint16_t) (rnd(w, 20) == 0 ? rnd(w, 12000) : 50 + rnd(w, 200));
	switch (rnd(w, 18))
	{
		case 0:
		case 1:
			return view_join(rnd(w, v->nnodes < 12 ? 40 : 12), zones[rnd(w, 4)]);
		case 2:
			return view_about(AU_VIEW_DRAIN, some_node(w));
		case 3:
			return flag(AU_VIEW_REMOVE, some_node(w), (uint8_t) rnd(w, 2));
		case 4:
			return c;
		case 5:
			return flag(AU_VIEW_UP, some_node(w), rnd(w, 3) > 0);
		case 6:
			return flag(AU_VIEW_VOTER, some_node(w), (uint8_t) rnd(w, 2));
		case 7:
			return add_volume(volume, (uint8_t) rnd(w, 6), (uint8_t) rnd(w, 4));
		case 8:
		case 9:
			return some_replace(w, volume);
		case 10:
		case 11:
			return some_settled(w, volume);
		case 12:
		case 13:
			c = mending(some_node(w), volume, (uint8_t) rnd(w, 2));
			c.epoch = v->epoch - rnd(w, rnd(w, 5) == 0 ? (uint32_t) v->epoch + 1 : 1);
			return c;
		default:
			c = view_ready(v, some_node(w));
			for (uint32_t s = 0; s < AU_SLICES; s++)
				if (rnd(w, 4) == 0)
					au_slices_remove(&c.slices, s);
			if (rnd(w, 5) == 0)
				c.epoch -= rnd(w, (uint32_t) v->epoch + 1);
			return c;
	}
}

/* Each quorum of one group meets each of the other (decision 7): with
 * majorities it is enough that they differ by one node. */
static void
check_group_step(const AuViewVolume *a, const AuViewVolume *b)
{
	uint32_t	common = 0;

	if (a->group_epoch == b->group_epoch)
	{
		assert_memory_equal(a->group, b->group, sizeof(a->group));
		return;
	}
	for (uint32_t i = 0; i < a->ngroup; i++)
		for (uint32_t j = 0; j < b->ngroup; j++)
			common += a->group[i] == b->group[j];
	/* the smallest quorums on either side have to overlap in what is common */
	assert_true(a->settled || b->group_epoch == a->group_epoch + 1);
	assert_int_equal(a->ngroup + b->ngroup - 2 * common,
					 b->group_epoch - a->group_epoch);
}

/* A slice's new owners had it: as owner, or as target that said so. */
static void
check_slices(World *w, const AuView *before, const AuViewCommand *c)
{
	for (uint32_t s = 0; s < AU_SLICES && before->nnodes > 0; s++)
	{
		const AuSlice *x = &before->slices[s];
		const AuSlice *y = &w->view.slices[s];

		for (uint32_t i = 0; i < y->nowners; i++)
		{
			bool		had = false;

			for (uint32_t j = 0; j < x->nowners; j++)
				had = had || x->owner[j] == y->owner[i];
			if (had)
				continue;
			w->moves++;
			for (uint32_t j = 0; j < x->ntarget; j++)
				if (x->target[j] == y->owner[i])
					had = (x->ready >> j & 1) ||
						(c->type == AU_VIEW_SLICES_READY && c->number == y->owner[i] &&
						 au_slices_has(&c->slices, s) && c->epoch >= x->since);
			assert_true(had);
		}
	}
}

static void
round_trip(const AuView *v)
{
	static uint8_t buf[AU_VIEW_ENCODED_MAX],
				again[AU_VIEW_ENCODED_MAX];
	static AuView back;
	size_t		len = au_view_encode(v, buf, sizeof(buf));

	assert_true(len > 0);
	assert_true(au_view_decode(&back, buf, len));
	assert_memory_equal(&back, v, sizeof(back));
	assert_int_equal(au_view_encode(&back, again, sizeof(again)), len);
	assert_memory_equal(buf, again, len);
	assert_int_equal(au_view_encode(v, again, len - 1), 0);
}

static void
live(uint64_t seed, uint32_t commands, World *w)
{
	static AuView before;

	w->rng = seed;
	memset(&w->view, 0, sizeof(w->view));
	apply(&w->view, view_init((uint8_t) (1 + seed % AU_RF_MAX)));
	for (uint32_t i = 0; i < commands; i++)
	{
		AuViewCommand c = some_command(w);
		bool		changed;

		before = w->view;
		(void) try(&w->view, c, &changed);
		w->applied[c.type] += changed;
		if (!changed)
			continue;
		check_slices(w, &before, &c);
		for (int j = 0; j < before.nvolumes; j++)
			check_group_step(&before.volumes[j],
							 au_view_volume(&w->view, before.volumes[j].system_identifier));
		if (i % 16 == 0)
			round_trip(&w->view);
	}
}

static void
test_random(void **state)
{
	static World w;
	static AuView first;

	(void) state;
	for (uint64_t seed = 1; seed <= 40; seed++)
		live(seed * 7919, 400, &w);
	/* the same commands, the same bytes */
	live(4711, 300, &w);
	first = w.view;
	live(4711, 300, &w);
	assert_memory_equal(&first, &w.view, sizeof(first));
	/* a test that does not get far shows nothing */
	for (int type = AU_VIEW_JOIN; type <= AU_VIEW_MENDING; type++)
		if (w.applied[type] < 50)
			fail_msg("commands of type %d changed something only %u times", type, w.applied[type]);
	assert_true(w.moves > 10000);
}

/* ---- bytes ------------------------------------------------------------ */

/* A recovered cluster's log knows less than the node that goes on: nothing that
 * was given out, seen or not, is given out again. */
static void
test_recovered(void **state)
{
	static AuView v,
				log,
				known;
	uint8_t		bytes[AU_VIEW_ENCODED_MAX];

	(void) state;
	make_cluster(&v, 3);
	log = v;					/* its log ends here */
	apply(&v, view_join(4, ""));
	apply(&v, view_about(AU_VIEW_DRAIN, 2));
	known = v;
	au_view_recover(&known);
	assert_true(au_view_decode(&v, bytes, au_view_encode(&known, bytes, sizeof(bytes))));
	assert_memory_equal(&v, &known, sizeof(v));

	assert_true(au_view_apply_recovered(&log, &known));
	assert_memory_equal(&log, &known, sizeof(log));
	assert_int_equal(au_view_node(&log, 2)->state, AU_NODE_DRAINING);
	apply(&log, view_join(5, ""));
	assert_true(log.epoch > AU_VIEW_RECOVER_EPOCHS);
	assert_int_equal(au_view_node_by_id(&log, view_join(5, "").node.node_id)->number,
					 5 + AU_VIEW_RECOVER_NUMBERS);

	v = log;
	assert_false(au_view_apply_recovered(&log, &known));	/* it was, and went on */
	known = log;
	au_view_recover(&known);
	known.cluster_id++;
	assert_false(au_view_apply_recovered(&log, &known));
	assert_memory_equal(&log, &v, sizeof(log));
	memset(&log, 0, sizeof(log));	/* a log of which nothing is left */
	assert_true(au_view_apply_recovered(&log, &known));
}

static void
test_command_bytes(void **state)
{
	static World w;
	uint8_t		buf[AU_VIEW_COMMAND_MAX];

	(void) state;
	live(5, 100, &w);
	for (int i = 0; i < 300; i++)
	{
		AuViewCommand c = some_command(&w);
		AuViewCommand back;
		size_t		len = au_view_command_encode(&c, buf, sizeof(buf));

		assert_true(len > 0);
		assert_int_equal(au_view_command_encode(&c, buf, len - 1), 0);
		(void) au_view_command_encode(&c, buf, sizeof(buf));
		assert_true(au_view_command_decode(&back, buf, len));
		assert_memory_equal(&back.slices, &c.slices, sizeof(c.slices));
		assert_string_equal(back.node.address, c.node.address);
		assert_int_equal(back.type, c.type);
		assert_int_equal(back.epoch, c.epoch);
		assert_int_equal(back.number, c.number);
		assert_false(au_view_command_decode(&back, buf, len - 1));
		buf[rnd(&w, (uint32_t) len)] ^= (uint8_t) (1u << rnd(&w, 8));
		assert_false(au_view_command_decode(&back, buf, len));
	}
}

static void
test_damaged_view(void **state)
{
	static World w;
	static AuView back;
	static uint8_t buf[AU_VIEW_ENCODED_MAX];
	size_t		len;

	(void) state;
	live(6, 200, &w);
	len = au_view_encode(&w.view, buf, sizeof(buf));
	for (size_t i = 0; i < len; i += 13)
	{
		buf[i] ^= 0x10;
		assert_false(au_view_decode(&back, buf, len));
		buf[i] ^= 0x10;
		assert_false(au_view_decode(&back, buf, i));
	}
	/* whole, but what it says cannot be: next_number below a node's */
	au_put_u32(buf + 12 + 16, 1);
	au_put_u32(buf + len - 4, au_crc32c(0, buf, len - 4));
	assert_false(au_view_decode(&back, buf, len));
}

static void
test_messages(void **state)
{
	uint8_t		memory[4096];
	uint8_t		bytes[100];
	AuWriter	w;
	AuFrame		f;
	size_t		used;
	AuMsgGetView gv = {.epoch = 7};
	AuMsgView	vw = {.epoch = 8,.length = sizeof(bytes),.bytes = bytes};
	AuMsgCluster cl = {.hops = 2,.length = 50,.bytes = bytes};
	AuMsgClusterOk ok = {.epoch = 9,.number = 4};

	(void) state;
	memset(bytes, 0x5a, sizeof(bytes));
#define THERE_AND_BACK(name, m, type_) \
	do { \
		au_writer_start(&w, memory, sizeof(memory)); \
		assert_true(au_enc_##name(&w, 3, &m)); \
		memset(&m, 0, sizeof(m)); \
		assert_int_equal(au_frame_parse(memory, w.len, &f, &used), AU_OK); \
		assert_int_equal(f.type, type_); \
		f.length--; \
		assert_false(au_dec_##name(&f, &m)); \
		f.length++; \
		assert_true(au_dec_##name(&f, &m)); \
		f.type++; \
		assert_false(au_dec_##name(&f, &m)); \
		f.type--; \
		assert_true(au_dec_##name(&f, &m)); \
	} while (0)

	THERE_AND_BACK(get_view, gv, AU_MSG_GET_VIEW);
	assert_int_equal(gv.epoch, 7);
	THERE_AND_BACK(view, vw, AU_MSG_VIEW);
	assert_int_equal(vw.epoch, 8);
	assert_int_equal(vw.length, sizeof(bytes));
	assert_memory_equal(vw.bytes, bytes, sizeof(bytes));
	THERE_AND_BACK(cluster, cl, AU_MSG_CLUSTER);
	assert_int_equal(cl.hops, 2);
	assert_memory_equal(cl.bytes, bytes, 50);
	THERE_AND_BACK(cluster_ok, ok, AU_MSG_CLUSTER_OK);
	assert_int_equal(ok.epoch, 9);
	assert_int_equal(ok.number, 4);
	cl.hops = AU_CLUSTER_HOPS_MAX + 1;
	au_writer_start(&w, memory, sizeof(memory));
	assert_true(au_enc_cluster(&w, 3, &cl));
	assert_int_equal(au_frame_parse(memory, w.len, &f, &used), AU_OK);
	assert_false(au_dec_cluster(&f, &cl));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_init),
		cmocka_unit_test(test_join),
		cmocka_unit_test(test_join_again_later),
		cmocka_unit_test(test_ready),
		cmocka_unit_test(test_stale_ready),
		cmocka_unit_test(test_drain_remove),
		cmocka_unit_test(test_remove_needs_votes),
		cmocka_unit_test(test_remove_by_force),
		cmocka_unit_test(test_broken),
		cmocka_unit_test(test_group),
		cmocka_unit_test(test_drain_leaves_groups),
		cmocka_unit_test(test_mending),
		cmocka_unit_test(test_mending_needs_others),
		cmocka_unit_test(test_mending_counts_for_nothing),
		cmocka_unit_test(test_mending_target),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_recovered),
		cmocka_unit_test(test_command_bytes),
		cmocka_unit_test(test_damaged_view),
		cmocka_unit_test(test_messages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
