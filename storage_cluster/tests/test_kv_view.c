/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_kv_view.c: the key-value interface of one node when its store fails at
 * what a new view makes it write, when the cluster takes it out, and when it
 * comes back with a view that is older than it should be; the bytes of what it
 * keeps of a view.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cluster/au_kv.h"
#include "tests/golden.h"
#include "tests/viewmake.h"

#define SECOND UINT64_C(1000000)
#define WAITS AU_NOMEM			/* a question that has no answer yet */

static struct
{
	AuKv	   *kv;
	uint64_t	now;
	AuKvOp	   *ops;			/* submitted, oldest first */
	bool		nomem;
	uint64_t	asked;			/* bit n: node n was asked for the key, as question `question` */
	uint64_t	question;
	uint8_t		answer[4096];	/* the last */
	size_t		answer_len;
} T;

/* ---- its host --------------------------------------------------------- */

static uint64_t
now_us(void *ctx)
{
	(void) ctx;
	return T.now;
}

static void *
alloc(void *ctx, size_t size)
{
	(void) ctx;
	return T.nomem ? NULL : malloc(size);
}

static void
release(void *ctx, void *p)
{
	(void) ctx;
	free(p);
}

static void
say(void *ctx, AuLogLevel level, const char *message)
{
	(void) ctx;
	(void) level;
	(void) message;
}

static void
submit(void *ctx, AuKvOp *op)
{
	AuKvOp	  **end = &T.ops;

	(void) ctx;
	while (*end != NULL)
		end = &(*end)->next;
	op->next = NULL;
	*end = op;
}

/* It goes out, and nothing comes back by itself. */
static bool
send_out(void *ctx, uint32_t number, uint8_t *buffer, size_t len)
{
	AuFrame		f;
	AuMsgKvAsk	m;
	size_t		used;

	(void) ctx;
	assert_int_equal(au_frame_parse(buffer, len, &f, &used), AU_OK);
	if ((f.type == AU_MSG_KV_READ || f.type == AU_MSG_KV_STORE) && au_dec_kv_ask(&f, &m) && m.key.len > 0)
	{
		T.asked |= UINT64_C(1) << number;
		T.question = f.id;
	}
	free(buffer);
	return true;
}

static void
answer(void *ctx, void *client, uint8_t *buffer, size_t len)
{
	(void) ctx;
	(void) client;
	assert_true(len <= sizeof(T.answer));
	memcpy(T.answer, buffer, len);
	T.answer_len = len;
	free(buffer);
}

static uint8_t *
buffer(void *ctx, size_t cap)
{
	(void) ctx;
	return malloc(cap);
}

/* A node without a past, or with this state kept. */
static void
start(const uint8_t *state, size_t len)
{
	AuKvHost	host = {
		.now_us = now_us,.alloc = alloc,.release = release,.log = say,.submit = submit,
		.buffer = buffer,.send = send_out,.answer = answer
	};
	AuKvOptions opt = {.cluster = true};
	AuKvExec	x = {.actor = 1,.starts = 1,.serial = 5};

	memset(&T, 0, sizeof(T));
	T.now = 100 * SECOND;
	T.kv = au_kv_new(&host, &opt, &x, state, len);
	assert_non_null(T.kv);
}

/* The node's first write of the key. */
static void
make_record(AuKvOp *op)
{
	AuKvRecord	r = {.past = {1, {{1, 1}}},.n = 1,.sibling = {{.dot = {1, 1},.value = op->in,.length = op->in_len}}};

	op->counter = 1;
	op->out = malloc(au_kv_record_size(&r));
	op->out_len = (uint32_t) au_kv_record_encode(&r, op->key, op->klen, op->out, au_kv_record_size(&r));
	assert_true(op->out_len > 0);
}

/* All operations end, those of a type with this status; how many of it. */
static int
end_ops(AuKvOpType type, AuStatus status)
{
	AuKvOp	   *list = T.ops;
	int			n = 0;

	T.ops = NULL;
	while (list != NULL)
	{
		AuKvOp	   *op = list;

		list = op->next;
		n += op->type == type;
		op->status = op->type == type ? status : op->type == AU_KV_OP_READ ? AU_NOT_FOUND : AU_OK;
		op->serial_now = 5;
		if (op->type == AU_KV_OP_UPDATE)
			make_record(op);
		au_kv_done(T.kv, op);
	}
	return n;
}

static int
waiting_ops(AuKvOpType type)
{
	int			n = 0;

	for (const AuKvOp *op = T.ops; op != NULL; op = op->next)
		n += op->type == type;
	return n;
}

/* Time goes by in small steps; how many operations of a type were asked for. */
static int
wait_ops(uint64_t us, AuKvOpType type, AuStatus status)
{
	uint64_t	end = T.now + us;
	int			n = 0;

	for (; T.now < end; T.now += 10000)
	{
		(void) au_kv_run(T.kv);
		n += end_ops(type, status);
	}
	return n;
}

static void
finish(void)
{
	(void) end_ops(AU_KV_OP_STATE, AU_OK);
	(void) end_ops(AU_KV_OP_STATE, AU_OK);
	au_kv_free(T.kv);
}

/* ---- views ------------------------------------------------------------ */

static void
apply(AuView *v, const AuViewCommand *c)
{
	bool		changed;
	char		err[256];

	assert_int_equal(au_view_apply(v, c, &changed, err, sizeof(err)), AU_OK);
	assert_true(changed);
}

static void
join(AuView *v, uint64_t id)
{
	AuViewCommand c = view_join(id, "");
	AuViewCommand ready;

	apply(v, &c);
	if (v->nnodes == 1)
		return;
	ready = view_ready(v, v->next_number - 1);
	apply(v, &ready);
}

static AuView
one_node(void)
{
	AuView		v;
	AuViewCommand init = view_init(2);

	memset(&v, 0, sizeof(v));
	apply(&v, &init);
	join(&v, 1);
	return v;
}

static AuView
two_nodes(void)
{
	AuView		v = one_node();

	join(&v, 2);
	return v;
}

/* The state that waits to be kept. */
static void
waiting_state(uint8_t *state, size_t *len)
{
	assert_int_equal(waiting_ops(AU_KV_OP_STATE), 1);
	for (const AuKvOp *op = T.ops; op != NULL; op = op->next)
		if (op->type == AU_KV_OP_STATE)
		{
			memcpy(state, op->in, op->in_len);
			*len = op->in_len;
		}
}

/* The state that the node kept of a view, as its only one. */
static void
kept_state(const AuView *v, uint8_t *state, size_t *len)
{
	start(NULL, 0);
	au_kv_set_view(T.kv, v, 1);
	waiting_state(state, len);
	finish();
}

static uint32_t
complete(void)
{
	AuKvStats	st;

	au_kv_stats(T.kv, &st);
	return st.slices_complete;
}

/* ---- questions -------------------------------------------------------- */

static AuStatus
ask(AuWriter *w, uint8_t role)
{
	AuFrame		f;
	AuMsgError	e;
	AuMsgKvTold told;
	size_t		used;

	T.answer_len = 0;
	assert_int_equal(au_frame_parse(w->data, w->len, &f, &used), AU_OK);
	au_kv_question(T.kv, &T, role, &f);
	(void) end_ops(AU_KV_OP_UPDATE, AU_OK);
	if (T.answer_len == 0)
		return WAITS;
	assert_int_equal(au_frame_parse(T.answer, T.answer_len, &f, &used), AU_OK);
	if (f.type == AU_MSG_ERROR)
		return au_dec_error(&f, &e) ? (AuStatus) e.status : AU_INVALID;
	if (role == AU_ROLE_NODE && au_dec_kv_told(&f, &told))
		return (AuStatus) told.status;
	return AU_OK;
}

static AuStatus
ask_get(uint8_t replicas)
{
	AuMsgKvGet	m = {.r = replicas,.n = replicas,.key = {1, (const uint8_t *) "k"}};
	uint8_t		memory[256];
	AuWriter	w;

	au_writer_start(&w, memory, sizeof(memory));
	assert_true(au_enc_kv_get(&w, 7, &m));
	return ask(&w, AU_ROLE_READER);
}

static AuStatus
ask_put(uint8_t replicas)
{
	AuMsgKvPut	m = {
		.w = replicas,.n = replicas,.key = {1, (const uint8_t *) "k"},
		.value = (const uint8_t *) "x",.len = 1
	};
	uint8_t		memory[256];
	AuWriter	w;

	au_writer_start(&w, memory, sizeof(memory));
	assert_true(au_enc_kv_put(&w, 7, &m));
	return ask(&w, AU_ROLE_READER);
}

/* What node 2 asks: for the key; all it has. */
static AuStatus
ask_as_node(uint16_t type, uint64_t epoch)
{
	uint8_t		set[AU_SLICES / 8] = {0xff};
	AuMsgKvAsk	m = {.from = 2,.epoch = epoch,.key = {1, (const uint8_t *) "k"}};
	uint8_t		memory[256];
	AuWriter	w;

	if (type == AU_MSG_KV_SCAN)
	{
		m.key.len = 0;
		m.bytes = set;
		m.len = sizeof(set);
	}
	au_writer_start(&w, memory, sizeof(memory));
	assert_true(au_enc_kv_ask(&w, type, 8, &m));
	return ask(&w, AU_ROLE_NODE);
}

/* ---- tests ------------------------------------------------------------ */

/* Nobody may fetch from this node until the view's epoch is on its disk; a
 * write that failed is repeated, and not all the time. */
static void
test_state_again(void **state)
{
	AuView		v = two_nodes();
	int			n;

	(void) state;
	start(NULL, 0);
	au_kv_set_view(T.kv, &v, 1);
	assert_int_equal(end_ops(AU_KV_OP_STATE, AU_IO), 1);
	assert_int_equal(waiting_ops(AU_KV_OP_STATE), 0);
	assert_int_equal(ask_as_node(AU_MSG_KV_SCAN, v.epoch), AU_MOVED);
	n = wait_ops(10 * SECOND, AU_KV_OP_STATE, AU_IO);
	assert_in_range(n, 5, 10);
	assert_int_equal(wait_ops(3 * SECOND, AU_KV_OP_STATE, AU_OK), 1);
	assert_int_equal(ask_as_node(AU_MSG_KV_SCAN, v.epoch), AU_OK);
	finish();
}

/* Also if there was no memory for it. */
static void
test_state_nomem(void **state)
{
	AuView		v = two_nodes();
	AuView		next;
	AuViewCommand c = view_about(AU_VIEW_DRAIN, 2);

	(void) state;
	start(NULL, 0);
	au_kv_set_view(T.kv, &v, 1);
	assert_int_equal(end_ops(AU_KV_OP_STATE, AU_OK), 1);
	next = v;
	apply(&next, &c);
	au_kv_set_view(T.kv, &next, 1);
	/* the worker's answer is that of a store without memory */
	assert_int_equal(end_ops(AU_KV_OP_STATE, AU_NOMEM), 1);
	T.nomem = true;
	assert_int_equal(wait_ops(3 * SECOND, AU_KV_OP_STATE, AU_OK), 0);
	T.nomem = false;
	assert_int_equal(wait_ops(3 * SECOND, AU_KV_OP_STATE, AU_OK), 1);
	finish();
}

/* A store that cannot forget its records is asked again, and not at once. */
static void
test_wipe_again(void **state)
{
	static uint8_t kept[1 << 14];
	size_t		len = 0;
	AuView		v = two_nodes();
	int			n;

	(void) state;
	kept_state(&v, kept, &len);
	start(kept, len);
	join(&v, 3);
	au_kv_set_view(T.kv, &v, 3);	/* back under another number */
	assert_int_equal(end_ops(AU_KV_OP_WIPE, AU_IO), 1);
	assert_int_equal(waiting_ops(AU_KV_OP_WIPE), 0);
	assert_int_equal(ask_get(1), AU_REFUSED);
	n = wait_ops(10 * SECOND, AU_KV_OP_WIPE, AU_IO);
	assert_in_range(n, 5, 10);
	T.nomem = true;
	assert_int_equal(wait_ops(3 * SECOND, AU_KV_OP_WIPE, AU_OK), 0);
	T.nomem = false;
	assert_int_equal(wait_ops(3 * SECOND, AU_KV_OP_WIPE, AU_OK), 1);
	assert_int_equal(ask_get(1), WAITS);
	finish();
}

/* Taken out by force: not even a request for one replica is answered from what
 * is here, and other nodes get nothing of it. */
static void
test_leave(void **state)
{
	AuView		v = one_node(),
				back;

	(void) state;
	start(NULL, 0);
	au_kv_set_view(T.kv, &v, 1);
	assert_int_equal(complete(), AU_SLICES);
	assert_int_equal(ask_get(1), AU_OK);
	au_kv_leave(T.kv, v.cluster_id + 1);	/* another cluster's */
	assert_int_equal(ask_get(1), AU_OK);
	join(&v, 2);
	au_kv_set_view(T.kv, &v, 1);
	assert_int_equal(ask_as_node(AU_MSG_KV_READ, v.epoch), AU_NOT_FOUND);
	(void) end_ops(AU_KV_OP_STATE, AU_OK);

	au_kv_leave(T.kv, v.cluster_id);
	assert_int_equal(ask_get(1), AU_REFUSED);
	assert_int_equal(ask_as_node(AU_MSG_KV_READ, v.epoch), AU_MOVED);
	assert_int_equal(complete(), 0);
	assert_int_equal(wait_ops(SECOND, AU_KV_OP_OWED, AU_OK), 0);
	assert_int_equal(wait_ops(SECOND, AU_KV_OP_SCAN, AU_OK), 0);

	back = v;
	join(&back, 3);
	au_kv_set_view(T.kv, &back, 3);	/* it has joined again */
	assert_int_equal(wait_ops(SECOND, AU_KV_OP_WIPE, AU_OK), 1);
	assert_int_equal(ask_get(1), WAITS);	/* it has yet to fetch all */
	finish();
}

/* One that was told so before it was stopped knows it when it starts. */
static void
test_left_before(void **state)
{
	static uint8_t kept[1 << 14];
	size_t		len = 0;
	AuView		v = two_nodes();

	(void) state;
	kept_state(&v, kept, &len);
	start(kept, len);
	au_kv_leave(T.kv, v.cluster_id);
	assert_int_equal(ask_get(1), AU_REFUSED);
	assert_non_null(memmem(T.answer, T.answer_len, "was removed", 11));
	finish();
}

/* Of two changes of a slice's owners none was kept: it may have been lost and
 * got back, so what is here need not be all. */
static void
test_kept_old(void **state)
{
	static uint8_t kept[1 << 14];
	size_t		len = 0;
	AuView		v = one_node(),
				later;
	AuViewCommand drain = view_about(AU_VIEW_DRAIN, 2);

	(void) state;
	kept_state(&v, kept, &len);
	start(kept, len);
	au_kv_set_view(T.kv, &v, 1);
	assert_int_equal(complete(), AU_SLICES);	/* nothing has happened since */
	finish();

	later = v;
	join(&later, 2);
	apply(&later, &drain);
	start(kept, len);
	au_kv_set_view(T.kv, &later, 1);
	assert_int_equal(complete(), 0);
	finish();
}

/* The bytes are those that earlier builds kept, and say what they said. */
static void
test_state_bytes(void **state)
{
	static uint8_t bytes[1 << 14];
	const uint8_t *kept;
	size_t		len = 0;
	AuView		one = one_node();
	AuView		three = two_nodes();
	uint32_t	owned;

	(void) state;
	join(&three, 3);
	start(NULL, 0);
	au_kv_set_view(T.kv, &one, 1);
	assert_int_equal(end_ops(AU_KV_OP_STATE, AU_OK), 1);
	au_kv_set_view(T.kv, &three, 1);
	owned = complete();
	assert_in_range(owned, 100, 250);
	waiting_state(bytes, &len);
	finish();
	kept = golden_check("state of the key-value interface", bytes, len);

	/* without the state it would have to fetch all of them */
	start(kept, len);
	au_kv_set_view(T.kv, &three, 1);
	assert_int_equal(complete(), owned);
	finish();
	start(NULL, 0);
	au_kv_set_view(T.kv, &three, 1);
	assert_int_equal(complete(), 0);
	finish();
}

/* What node `number` answers to the question that went out last. */
static void
tell(uint32_t number, uint16_t type, const AuView *v)
{
	AuMsgKvTold told = {
		.status = type == AU_MSG_KV_READ_OK ? AU_NOT_FOUND : AU_OK,.epoch = v->epoch,
		.flags = AU_KV_OWNER | AU_KV_SYNCED,.key = {1, (const uint8_t *) "k"},
		.slice = (uint16_t) au_kv_slice((const uint8_t *) "k", 1)
	};
	uint8_t		memory[256];
	AuFrame		f;
	size_t		used;
	AuWriter	w;

	au_writer_start(&w, memory, sizeof(memory));
	assert_true(au_enc_kv_told(&w, type, T.question, &told));
	assert_int_equal(au_frame_parse(w.data, w.len, &f, &used), AU_OK);
	au_kv_told(T.kv, number, &f);
}

/*
 * A request waits for an owner that does not answer, and the view replaces
 * another one, which has answered: the new one is asked.  Its answer does not
 * count together with that of the one it came for, only with those of the
 * other owners.
 */
static void
goes_on(bool put)
{
	uint16_t	type = put ? AU_MSG_KV_STORE_OK : AU_MSG_KV_READ_OK;
	AuView		v = {0};
	AuViewCommand c = view_init(3);
	AuFrame		f;
	size_t		used;
	bool		changed;
	char		err[256];

	apply(&v, &c);
	join(&v, 1);
	start(NULL, 0);
	au_kv_set_view(T.kv, &v, 1);
	(void) end_ops(AU_KV_OP_STATE, AU_OK);
	join(&v, 2);
	join(&v, 3);
	au_kv_set_view(T.kv, &v, 1);
	au_kv_peer(T.kv, 2, true);
	au_kv_peer(T.kv, 3, true);
	(void) end_ops(AU_KV_OP_STATE, AU_OK);
	assert_int_equal(put ? ask_put(3) : ask_get(3), WAITS);
	assert_int_equal(T.asked, 1 << 2 | 1 << 3);
	tell(2, type, &v);
	(void) wait_ops(SECOND, AU_KV_OP_STATE, AU_OK);
	assert_int_equal(T.answer_len, 0);

	join(&v, 4);
	c = view_about(AU_VIEW_DRAIN, 2);
	apply(&v, &c);
	for (uint32_t number = 1; number <= 4; number++)
	{
		c = view_ready(&v, number);
		assert_int_equal(au_view_apply(&v, &c, &changed, err, sizeof(err)), AU_OK);
	}
	T.asked = 0;
	au_kv_set_view(T.kv, &v, 1);
	au_kv_peer(T.kv, 4, true);
	(void) wait_ops(SECOND, AU_KV_OP_STATE, AU_OK);
	assert_true((T.asked & 1 << 4) != 0);
	tell(4, type, &v);
	assert_int_equal(T.answer_len, 0);
	(void) wait_ops(SECOND, AU_KV_OP_STATE, AU_OK);
	assert_int_equal(T.answer_len, 0);
	tell(3, type, &v);
	assert_true(T.answer_len > 0);
	assert_int_equal(au_frame_parse(T.answer, T.answer_len, &f, &used), AU_OK);
	assert_int_equal(f.type, put ? AU_MSG_KV_PUT_OK : AU_MSG_KV_GET_OK);
	finish();
}

static void
test_get_goes_on(void **state)
{
	(void) state;
	goes_on(false);
}

static void
test_put_goes_on(void **state)
{
	(void) state;
	goes_on(true);
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_state_again),
		cmocka_unit_test(test_state_nomem),
		cmocka_unit_test(test_wipe_again),
		cmocka_unit_test(test_leave),
		cmocka_unit_test(test_left_before),
		cmocka_unit_test(test_kept_old),
		cmocka_unit_test(test_get_goes_on),
		cmocka_unit_test(test_put_goes_on),
		cmocka_unit_test(test_state_bytes),
		cmocka_unit_test(golden_all_seen),
	};

	if (!golden_begin(argc, argv, "kv_state.txt"))
		return 1;
	return golden_end(cmocka_run_group_tests(tests, NULL, NULL));
}
