/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_quorum.c: term histories, groups, the VOLUME file that keeps them, and
 * the messages that carry them.  What nodes and writers make of them is the
 * simulator's (sim/).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/au_crc32c.h"
#include "common/au_wire.h"
#include "core/au_volume.h"

static AuHistory
history(const AuTerm *terms, uint32_t n)
{
	AuHistory	h = {.n = n};

	memcpy(h.terms, terms, n * sizeof(*terms));
	assert_true(au_history_valid(&h));
	return h;
}

static void
assert_same_history(const AuHistory *a, const AuHistory *b)
{
	assert_int_equal(a->n, b->n);
	for (uint32_t i = 0; i < a->n; i++)
	{
		assert_int_equal(a->terms[i].term, b->terms[i].term);
		assert_int_equal(a->terms[i].start, b->terms[i].start);
		assert_int_equal(a->terms[i].timeline, b->terms[i].timeline);
	}
}

#define HISTORY(...) \
	history((AuTerm[]) {__VA_ARGS__}, sizeof((AuTerm[]) {__VA_ARGS__}) / sizeof(AuTerm))

static void
last_term(void **state)
{
	AuHistory	h = HISTORY({3, 100, 1}, {5, 200, 1}, {9, 300, 2});

	(void) state;
	assert_int_equal(au_history_last(&h, 99), 0);
	assert_int_equal(au_history_last(&h, 100), 3);
	assert_int_equal(au_history_last(&h, 299), 5);
	assert_int_equal(au_history_last(&h, 300), 9);	/* it has reached this log */
	assert_int_equal(au_history_last(&h, AU_LSN_MAX), 9);
}

static void
push_cut_forget(void **state)
{
	AuHistory	h = {0};

	(void) state;
	assert_true(au_history_push(&h, 1, 100, 1));
	assert_false(au_history_push(&h, 1, 200, 1));	/* not newer */
	assert_true(au_history_push(&h, 2, 100, 1));	/* term 1 wrote nothing */
	assert_int_equal(h.n, 1);
	assert_true(au_history_push(&h, 4, 150, 1));
	assert_true(au_history_push(&h, 6, 120, 2));	/* term 4's log was cut off */
	assert_int_equal(h.n, 2);
	assert_int_equal(h.terms[1].term, 6);
	au_history_cut(&h, 120);
	assert_int_equal(h.n, 1);
	for (uint32_t i = 1; i < AU_HISTORY_MAX; i++)
		assert_true(au_history_push(&h, 10 + i, 200 + i, 1));
	assert_false(au_history_push(&h, 1000, 1000, 1));	/* full */
	au_history_forget(&h, 205);
	assert_int_equal(h.terms[0].start, 205);
	au_history_forget(&h, 205);
	assert_int_equal(h.terms[0].start, 205);
	assert_true(au_history_push(&h, 1000, 1000, 1));
	h.terms[1].start = h.terms[0].start;
	assert_false(au_history_valid(&h));
}

static void
common_log(void **state)
{
	AuHistory	a = HISTORY({1, 100, 1}, {2, 200, 1});
	AuHistory	b = HISTORY({1, 100, 1}, {3, 250, 1});
	AuHistory	late = HISTORY({7, 900, 1});
	AuHistory	none = {0};

	(void) state;
	assert_int_equal(au_history_common(&a, 300, &b, 100), 200);
	assert_int_equal(au_history_common(&b, 300, &a, 100), 200);
	assert_int_equal(au_history_common(&a, 150, &b, 100), 150);
	assert_int_equal(au_history_common(&a, 300, &a, 100), 300);
	/* what is held by a quorum is never cut */
	assert_int_equal(au_history_common(&a, 300, &b, 270), 270);
	/* theirs knows nothing about our end: only what is held is sure */
	assert_int_equal(au_history_common(&a, 300, &late, 120), 120);
	assert_int_equal(au_history_common(&none, 100, &a, 100), 100);
	/* a term that both know vouches for what lies below all that is known: a
	 * node that has just started, and knows of no quorum, keeps its log */
	assert_int_equal(au_history_common(&late, 1000, &late, 120), 1000);
	b = HISTORY({1, 100, 1}, {7, 900, 1}, {8, 950, 1});
	assert_int_equal(au_history_common(&late, 1000, &b, 120), 950);
	assert_int_equal(au_history_common(&b, 800, &late, 120), 800);
}

static void
groups(void **state)
{
	AuGroup		g = {.n = 3,.write_quorum = 2,.members = {{1, "a"}, {2, "b"}, {3, "c"}}};
	AuGroup		h = {.n = 3,.write_quorum = 2,.members = {{3, "x"}, {1, ""}, {2, "b"}}};

	(void) state;
	assert_true(au_group_valid(&g));
	assert_true(au_group_same(&g, &h));
	assert_int_equal(au_group_find(&h, 2), 2);
	assert_int_equal(au_group_find(&h, 9), -1);
	assert_int_equal(au_group_votes(&g), 2);
	h.members[0].node_id = 4;
	assert_false(au_group_same(&g, &h));
	h.members[0].node_id = 1;
	assert_false(au_group_valid(&h));	/* twice the same */
	g.write_quorum = 1;
	assert_false(au_group_valid(&g));	/* two quorums need not meet */
	g.write_quorum = 3;
	assert_int_equal(au_group_votes(&g), 2);	/* a majority, though one would meet */
	g.write_quorum = 4;
	assert_false(au_group_valid(&g));
}

/* At most one node at a time, and never back. */
static void
group_changes(void **state)
{
	AuGroup		g = {.epoch = 4,.n = 3,.write_quorum = 2,.members = {{1, "a"}, {2, "b"}, {3, "c"}}};
	AuGroup		h = g;

	(void) state;
	h.members[0] = (AuMember){3, "x"};
	h.members[2] = (AuMember){1, "y"};
	assert_true(au_group_may_follow(&g, &h));	/* the same */
	h.members[2].node_id = 4;
	assert_false(au_group_may_follow(&g, &h));	/* another one of this epoch */
	h.epoch = 5;
	assert_false(au_group_may_follow(&g, &h));	/* one comes and one goes */
	h = g;
	h.epoch = 5;
	h.n = 4;
	h.write_quorum = 3;
	h.members[3] = (AuMember){4, "d"};
	assert_true(au_group_may_follow(&g, &h));	/* one comes */
	assert_false(au_group_may_follow(&h, &g));	/* back */
	g.epoch = 6;
	assert_true(au_group_may_follow(&h, &g));	/* one goes */
	h.n = 5;
	h.members[4] = (AuMember){5, "e"};
	assert_false(au_group_may_follow(&h, &g));	/* two go */
	g.epoch = 9;
	assert_true(au_group_may_follow(&h, &g));	/* nobody here saw what lies between */
}

static AuVolumeMeta
some_volume(void)
{
	AuVolumeMeta m = {
		.system_identifier = 7,.start_lsn = 100,.term = 12,.voted_for = 99,.timeline = 2,
		.segment_size = 1 << 24,
		.group = {.epoch = 4,.n = 3,.write_quorum = 2,.members = {{1, "a:1"}, {2, "b:2"}, {3, "/c"}}}
	};

	m.history = HISTORY({3, 100, 1}, {9, 300, 2});
	return m;
}

static void
volume_file(void **state)
{
	AuVolumeMeta m = some_volume();
	AuVolumeMeta back;
	uint8_t		buf[AU_VOLUME_LEN];
	const char *why;

	(void) state;
	au_volume_encode(buf, &m);
	assert_int_equal(au_volume_decode(buf, sizeof(buf), &back, &why), AU_OK);
	assert_same_history(&back.history, &m.history);
	assert_true(au_group_same(&back.group, &m.group));
	assert_string_equal(back.group.members[1].address, "b:2");
	assert_int_equal(back.voted_for, 99);
	assert_int_equal(back.group.epoch, 4);
	for (size_t i = 0; i < sizeof(buf); i += 7)
	{
		buf[i] ^= 0x10;
		assert_int_not_equal(au_volume_decode(buf, sizeof(buf), &back, &why), AU_OK);
		assert_non_null(why);
		buf[i] ^= 0x10;
	}
	m.term = 8;					/* a history that is ahead of every promise */
	au_volume_encode(buf, &m);
	assert_int_equal(au_volume_decode(buf, sizeof(buf), &back, &why), AU_CORRUPT);
}

static void
seal(uint8_t *buf)
{
	au_put_u32(buf + AU_VOLUME_LEN - 4, au_crc32c(0, buf, AU_VOLUME_LEN - 4));
}

/* A file of version 2 knows no epochs of groups. */
static void
older_volume_file(void **state)
{
	AuVolumeMeta m = some_volume();
	AuVolumeMeta back;
	uint8_t		buf[AU_VOLUME_LEN];
	const char *why;

	(void) state;
	m.group.epoch = 0;
	au_volume_encode(buf, &m);
	buf[8] = 2;
	seal(buf);
	assert_int_equal(au_volume_decode(buf, sizeof(buf), &back, &why), AU_OK);
	assert_true(au_group_same(&back.group, &m.group));
	buf[2288] = 1;				/* such a file has no epoch */
	seal(buf);
	assert_int_equal(au_volume_decode(buf, sizeof(buf), &back, &why), AU_CORRUPT);
	buf[2288] = 0;
	for (uint8_t version = 1; version <= 5; version += 4)
	{
		buf[8] = version;
		seal(buf);
		assert_int_equal(au_volume_decode(buf, sizeof(buf), &back, &why), AU_UNSUPPORTED);
	}
}

/* A log that was lost is told in version 4, and nowhere else. */
static void
lost_log_file(void **state)
{
	AuVolumeMeta m = some_volume();
	AuVolumeMeta back;
	uint8_t		buf[AU_VOLUME_LEN];
	const char *why;

	(void) state;
	m.lost_before = 1234;
	au_volume_encode(buf, &m);
	assert_int_equal(buf[8], 4);
	assert_int_equal(au_volume_decode(buf, sizeof(buf), &back, &why), AU_OK);
	assert_int_equal(back.lost_before, 1234);
	buf[8] = 3;
	seal(buf);
	assert_int_equal(au_volume_decode(buf, sizeof(buf), &back, &why), AU_CORRUPT);
	m.lost_before = 0;
	au_volume_encode(buf, &m);
	assert_int_equal(buf[8], 3);
	buf[8] = 4;
	seal(buf);
	assert_int_equal(au_volume_decode(buf, sizeof(buf), &back, &why), AU_CORRUPT);
}

static void
lost_log(void **state)
{
	AuVolumeMeta m = {.start_lsn = 1000,.term = 7,.history = HISTORY({3, 1000, 1}, {7, 5000, 1})};
	AuLsn		start;

	(void) state;
	/* nobody else has it */
	assert_false(au_volume_may_lose_log(&m, 1));
	m.group = (AuGroup) {.n = 1,.write_quorum = 1,.members = {{1, ""}}};
	assert_false(au_volume_may_lose_log(&m, 1));
	assert_true(au_volume_may_lose_log(&m, 2));	/* a follower */
	/* two of two have to vote */
	m.group = (AuGroup) {.n = 2,.write_quorum = 2,.members = {{1, ""}, {2, "b"}}};
	assert_false(au_volume_may_lose_log(&m, 1));
	m.group = (AuGroup) {.n = 3,.write_quorum = 2,.members = {{1, ""}, {2, "b"}, {3, "c"}}};
	assert_true(au_volume_may_lose_log(&m, 1));

	/* enough is left to compare a server with */
	au_volume_lose_log(&m, 1000000, &start);
	assert_int_equal(start, 1000000 - AU_VOLUME_COMPARE_BYTES);
	au_volume_lose_log(&m, 20000, &start);
	assert_int_equal(start, 1000);
	assert_int_equal(m.lost_before, 8);

	/* a newer term, and all that it elected */
	assert_false(au_volume_log_whole(&m, true, AU_LSN_MAX, 4000));
	assert_true(au_history_push(&m.history, 8, 6000, 1));
	m.term = 8;
	assert_false(au_volume_log_whole(&m, true, 5999, 4000));
	assert_true(au_volume_log_whole(&m, true, 6000, 4000));
	/* one that follows has to have what its pages have */
	assert_false(au_volume_log_whole(&m, false, 3999, 4000));
	assert_true(au_volume_log_whole(&m, false, 4000, 4000));
	/* once more, in that term: what was promised before is too old again */
	au_volume_lose_log(&m, 20000, &start);
	assert_false(au_volume_log_whole(&m, true, AU_LSN_MAX, 4000));
}

static AuFrame
parse(const AuWriter *w)
{
	AuFrame		f;
	size_t		used;

	assert_int_equal(au_frame_parse(w->data, w->len, &f, &used), AU_OK);
	assert_int_equal(used, w->len);
	return f;
}

static void
messages(void **state)
{
	static uint8_t memory[8192];
	AuVolumeMeta v = some_volume();
	AuMsgVote	vote = {.term = 5,.writer_id = 6,.timeline = 1,.wal_segment_size = 1 << 24,
	.start_lsn = 100,.may_create = 1,.group = v.group};
	AuMsgVoteOk voted = {.granted = 1,.term = 5,.timeline = 1,.start_lsn = 100,.durable_lsn = 400,
	.commit_lsn = 350,.history = v.history};
	AuMsgElect	elect = {.term = 9,.writer_id = 6,.timeline = 2,.commit_lsn = 350,.history = v.history,
	.group = v.group};
	AuMsgVote	vote2;
	AuMsgVoteOk voted2;
	AuMsgElect	elect2;
	AuFrame		f;
	AuWriter	w;

	(void) state;
	au_writer_start(&w, memory, sizeof(memory));
	assert_true(au_enc_vote(&w, 1, &vote));
	f = parse(&w);
	assert_true(au_dec_vote(&f, &vote2));
	assert_true(au_group_same(&vote2.group, &v.group));
	assert_string_equal(vote2.group.members[2].address, "/c");
	for (uint32_t cut = 1; cut <= f.length; cut++)
	{
		AuFrame		less = f;

		less.length -= cut;
		assert_false(au_dec_vote(&less, &vote2));
	}
	au_writer_start(&w, memory, sizeof(memory));
	assert_true(au_enc_vote_ok(&w, 1, &voted));
	f = parse(&w);
	assert_true(au_dec_vote_ok(&f, &voted2));
	assert_same_history(&voted2.history, &v.history);
	au_writer_start(&w, memory, sizeof(memory));
	assert_true(au_enc_elect(&w, 1, &elect));
	f = parse(&w);
	assert_true(au_dec_elect(&f, &elect2));
	assert_int_equal(elect2.group.epoch, 4);
	assert_false(au_dec_vote(&f, &vote2));	/* of another type */
	elect.term = 10;			/* not that of its history */
	au_writer_start(&w, memory, sizeof(memory));
	assert_true(au_enc_elect(&w, 1, &elect));
	f = parse(&w);
	assert_false(au_dec_elect(&f, &elect2));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(last_term),
		cmocka_unit_test(push_cut_forget),
		cmocka_unit_test(common_log),
		cmocka_unit_test(groups),
		cmocka_unit_test(group_changes),
		cmocka_unit_test(volume_file),
		cmocka_unit_test(older_volume_file),
		cmocka_unit_test(lost_log_file),
		cmocka_unit_test(lost_log),
		cmocka_unit_test(messages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
