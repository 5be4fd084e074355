/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_ring.c: where slices are to lie: balance, weights, zones, and that few
 * move when nodes come and go.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cluster/au_ring.h"
#include "tests/viewmake.h"

static uint32_t
near(double x)
{
	return (uint32_t) (x + 0.5);
}

static uint32_t
up(double x)
{
	return (uint32_t) (x + 0.999);
}

static void
apply(AuView *v, AuViewCommand c)
{
	char		err[256];
	bool		changed;

	if (au_view_apply(v, &c, &changed, err, sizeof(err)) != AU_OK)
		fail_msg("%s", err);
	assert_true(changed);
}

static void
settle(AuView *v)
{
	for (int i = 0; i < v->nnodes; i++)
	{
		AuViewCommand c = view_ready(v, v->nodes[i].number);
		char		err[256];
		bool		changed;

		assert_int_equal(au_view_apply(v, &c, &changed, err, sizeof(err)), AU_OK);
	}
	for (uint32_t s = 0; s < AU_SLICES; s++)
		assert_int_equal(v->slices[s].ntarget, 0);
}

/* n nodes that came one after the other; zone i % nzones. */
static void
make_cluster(AuView *v, uint64_t first, uint32_t n, uint8_t rf, uint32_t nzones)
{
	char		zone[16] = "";

	memset(v, 0, sizeof(*v));
	apply(v, view_init(rf));
	for (uint32_t i = 0; i < n; i++)
	{
		if (nzones > 0)
			snprintf(zone, sizeof(zone), "z%u", i % nzones);
		apply(v, view_join(first + i, zone));
		settle(v);
	}
}

/* Places in b that are none in a. */
static uint32_t
count_moves(const AuView *a, const AuView *b, uint32_t number)
{
	uint32_t	moves = 0;

	for (uint32_t s = 0; s < AU_SLICES; s++)
	{
		const AuSlice *x = &a->slices[s];
		const AuSlice *y = &b->slices[s];

		for (uint32_t i = 0; i < y->nowners; i++)
		{
			bool		had = false;

			for (uint32_t j = 0; j < x->nowners; j++)
				had = had || x->owner[j] == y->owner[i];
			moves += !had && (number == 0 || y->owner[i] == number);
		}
	}
	return moves;
}

static void
check_places(const AuView *v, const AuRingPlaces *p, uint32_t k)
{
	uint32_t	load[AU_VIEW_NODES_MAX] = {0};
	AuRingLoad	l;

	au_ring_load(v, &l);
	for (uint32_t s = 0; s < AU_SLICES; s++)
	{
		assert_int_equal(p[s].n, k);
		for (uint32_t i = 0; i < k; i++)
		{
			for (uint32_t j = 0; j < i; j++)
				assert_int_not_equal(p[s].node[i], p[s].node[j]);
			for (int n = 0; n < v->nnodes; n++)
				load[n] += v->nodes[n].number == p[s].node[i];
		}
	}
	for (int n = 0; n < v->nnodes; n++)
		if (load[n] > up(l.share[n] * 1.25))
			fail_msg("node %u of %u has %u places, its share is %.1f", v->nodes[n].number,
					 v->nnodes, load[n], l.share[n]);
}

static void
test_balance(void **state)
{
	static AuView v;
	static AuRingPlaces p[AU_SLICES],
				again[AU_SLICES];

	(void) state;
	for (uint32_t n = 1; n <= AU_VIEW_NODES_MAX; n = n < 12 ? n + 1 : n * 2 - 8)
	{
		make_cluster(&v, n * 100, n, 3, 0);
		au_ring_place(&v, p);
		check_places(&v, p, n < 3 ? n : 3);
		au_ring_place(&v, again);
		assert_memory_equal(p, again, sizeof(p));
		au_ring_plan(&v, 0, p);
		check_places(&v, p, n < 3 ? n : 3);
	}
}

/*
 * Over many clusters: the newcomer gets its share, more or less, and nothing
 * moves but what it gets.
 */
static void
test_join_moves_its_share(void **state)
{
	static AuView before,
				after;
	double		worst = 0;

	(void) state;
	for (uint32_t round = 0; round < 60; round++)
	{
		uint32_t	n = 3 + round % 14;
		AuRingLoad	load;
		uint32_t	number,
					all,
					its;

		make_cluster(&before, 10000 + round * 100, n, 3, round % 3 == 0 ? 3 : 0);
		after = before;
		apply(&after, view_join(90000 + round, round % 3 == 0 ? "z1" : ""));
		settle(&after);
		number = after.nodes[n].number;
		au_ring_load(&after, &load);
		its = count_moves(&before, &after, number);
		all = count_moves(&before, &after, 0);
		assert_int_equal(its, load.owned[n]);
		assert_in_range(its, (uint32_t) (load.share[n] * 0.6), up(load.share[n] * 1.1));
		assert_true(all <= its + AU_SLICES * 3 / 50);
		worst = all / load.share[n] > worst ? all / load.share[n] : worst;
	}
	print_message("moves of a join, at most: %.2f of the newcomer's share\n", worst);
	assert_true(worst <= 1.1);
}

static void
test_drain_moves_what_it_has(void **state)
{
	static AuView before,
				after;

	(void) state;
	for (uint32_t round = 0; round < 30; round++)
	{
		uint32_t	n = 4 + round % 10;
		AuRingLoad	load;
		uint32_t	moves;

		make_cluster(&before, 20000 + round * 100, n, 3, 0);
		after = before;
		au_ring_load(&before, &load);
		apply(&after, view_about(AU_VIEW_DRAIN, before.nodes[1].number));
		settle(&after);
		moves = count_moves(&before, &after, 0);
		assert_in_range(moves, load.owned[1], load.owned[1] + AU_SLICES * 3 / 50);
		au_ring_load(&after, &load);
		assert_int_equal(load.owned[1], 0);
		for (uint32_t i = 0; i < n; i++)
			assert_true(i == 1 || load.owned[i] <= up(load.share[i] * 1.25));
	}
}

/* Every slice in as many zones as there are, up to rf. */
static void
test_zones(void **state)
{
	static AuView v;

	(void) state;
	for (uint32_t nzones = 1; nzones <= 5; nzones++)
		for (uint32_t n = nzones; n <= nzones + 6; n++)
		{
			make_cluster(&v, 30000 + n * 100 + nzones, n, 3, nzones);
			for (uint32_t s = 0; s < AU_SLICES; s++)
			{
				uint32_t	seen = 0;

				for (uint32_t i = 0; i < v.slices[s].nowners; i++)
					seen |= 1u << (au_view_node(&v, v.slices[s].owner[i])->zone[1] - '0');
				assert_int_equal(__builtin_popcount(seen), nzones < 3 ? nzones : 3);
			}
		}
}

/* A node in a new zone gets one replica of each slice if there were too few. */
static void
test_new_zone(void **state)
{
	static AuView v;
	AuRingLoad	load;

	(void) state;
	make_cluster(&v, 40000, 6, 3, 2);
	apply(&v, view_join(40100, "z7"));
	settle(&v);
	au_ring_load(&v, &load);
	assert_int_equal(load.owned[6], AU_SLICES);
	assert_int_equal(near(load.share[6]), AU_SLICES);
}

static void
test_weights(void **state)
{
	static AuView v;
	AuViewCommand c;
	AuRingLoad	load;

	(void) state;
	make_cluster(&v, 50000, 6, 3, 0);
	c = view_about(AU_VIEW_WEIGHT, 2);
	c.node.weight = 200;
	apply(&v, c);
	settle(&v);
	au_ring_load(&v, &load);
	assert_int_equal(near(load.share[1]), near(768.0 * 2 / 7));
	assert_in_range(load.owned[1], near(load.share[1] * 0.8), up(load.share[1] * 1.25));
	c.node.weight = 50;
	apply(&v, c);
	settle(&v);
	au_ring_load(&v, &load);
	assert_int_equal(near(load.share[1]), near(768.0 * 0.5 / 5.5));
	assert_in_range(load.owned[1], near(load.share[1] * 0.6), up(load.share[1] * 1.3));
	/* so heavy that it has all there is; the others share the rest */
	c.node.weight = 10000;
	apply(&v, c);
	settle(&v);
	au_ring_load(&v, &load);
	assert_int_equal(near(load.share[1]), AU_SLICES);
	assert_in_range(load.owned[1], AU_SLICES * 9 / 10, AU_SLICES);
	assert_int_equal(near(load.share[0]), near(512.0 / 5));
}

/* Placement is part of what all nodes must agree on, whatever built them. */
static void
test_known_places(void **state)
{
	static AuView v;
	static AuRingPlaces p[AU_SLICES];
	uint64_t	sum = 0;

	(void) state;
	make_cluster(&v, 1, 7, 3, 2);
	au_ring_place(&v, p);
	for (uint32_t s = 0; s < AU_SLICES; s++)
		for (uint32_t i = 0; i < p[s].n; i++)
			sum = au_mix64(sum ^ p[s].node[i]) + s;
	assert_true(sum == UINT64_C(0xd6420e8652784756));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_balance),
		cmocka_unit_test(test_join_moves_its_share),
		cmocka_unit_test(test_drain_moves_what_it_has),
		cmocka_unit_test(test_zones),
		cmocka_unit_test(test_new_zone),
		cmocka_unit_test(test_weights),
		cmocka_unit_test(test_known_places),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
