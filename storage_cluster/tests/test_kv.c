/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_kv.c: version vectors and records of the key-value interface, its
 * messages, the operations of a store, and the store on RocksDB: batches,
 * damage, and what is there after it was closed without a word.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <fcntl.h>
#include <glob.h>
#include <rocksdb/c.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/au_wire_kv.h"
#include "store/au_kvstore.h"
#include "tests/testdir.h"

#define KEY "key"
#define KLEN 3

static AuKvSibling
write_of(uint64_t actor, uint64_t counter, const char *value)
{
	AuKvSibling s = {.dot = {actor, counter}};

	if (value == NULL)
		s.flags = AU_KV_TOMBSTONE;
	else
	{
		s.value = (const uint8_t *) value;
		s.length = (uint32_t) strlen(value);
	}
	return s;
}

static void
put(AuKvRecord *r, const AuKvVector *past, uint64_t actor, uint64_t counter, const char *value)
{
	static const AuKvVector nothing;
	AuKvSibling s = write_of(actor, counter, value);

	assert_int_equal(au_kv_update(r, past != NULL ? past : &nothing, &s), AU_OK);
}

/* ---- records ---------------------------------------------------------- */

static void
test_update(void **state)
{
	AuKvRecord	r = {.n = 0};
	AuKvVector	seen;

	(void) state;
	put(&r, NULL, 7, 1, "one");
	seen = r.past;
	put(&r, &seen, 7, 2, "two");
	assert_int_equal(r.n, 1);	/* replaced */
	put(&r, &seen, 8, 1, "three");	/* did not know of two */
	assert_int_equal(r.n, 2);
	seen = r.past;
	put(&r, &seen, 9, 1, NULL);
	assert_true(au_kv_deleted(&r));
	assert_int_equal(au_kv_vector_get(&r.past, 7), 2);
	assert_int_equal(au_kv_vector_get(&r.past, 5), 0);
}

static void
test_siblings_bounded(void **state)
{
	AuKvRecord	r = {.n = 0};
	AuKvVector	nothing = {0};
	AuKvSibling s;

	(void) state;
	for (uint64_t i = 1; i <= AU_KV_SIBLINGS_MAX; i++)
		put(&r, NULL, 1, i, "v");
	s = write_of(1, 100, "v");
	assert_int_equal(au_kv_update(&r, &nothing, &s), AU_FULL);
	assert_int_equal(r.n, AU_KV_SIBLINGS_MAX);
}

static void
test_vector_bounded(void **state)
{
	AuKvRecord	r = {.n = 0};

	(void) state;
	for (uint64_t actor = 1; actor <= 100; actor++)
	{
		AuKvVector	seen = r.past;

		put(&r, &seen, actor, actor, "v");
		assert_int_equal(r.n, 1);
		assert_true(r.past.n <= AU_KV_VV_MAX);
		assert_int_equal(au_kv_vector_get(&r.past, actor), actor);
	}
}

/* Three records made from a few writes, at random. */
static void
some_records(AuKvRecord out[3], unsigned int seed)
{
	static uint64_t counter;

	srand(seed);
	for (int i = 0; i < 3; i++)
		out[i].n = out[i].past.n = 0;
	for (int step = 0; step < 12; step++)
	{
		int			a = rand() % 3;
		int			b = rand() % 3;

		if (rand() % 2)
			assert_true(au_kv_merge(&out[a], &out[a], &out[b]));
		else if (out[a].n < AU_KV_SIBLINGS_MAX)
		{
			AuKvVector	seen = rand() % 2 ? out[a].past : (AuKvVector) {0};

			put(&out[a], &seen, (uint64_t) a + 1, ++counter, rand() % 3 ? "x" : NULL);
		}
	}
}

static void
test_merge_laws(void **state)
{
	(void) state;
	for (unsigned int seed = 1; seed < 3000; seed++)
	{
		AuKvRecord	r[3],
					ab,
					ba,
					abc,
					bca;

		some_records(r, seed);
		assert_true(au_kv_merge(&ab, &r[0], &r[1]) && au_kv_merge(&ba, &r[1], &r[0]));
		assert_true(au_kv_same(&ab, &ba));
		assert_true(au_kv_merge(&abc, &ab, &r[2]) && au_kv_merge(&bca, &r[1], &r[2]) &&
					au_kv_merge(&bca, &bca, &r[0]));
		assert_true(au_kv_same(&abc, &bca));
		assert_true(au_kv_merge(&ba, &ab, &ab) && au_kv_same(&ba, &ab));
		assert_true(au_kv_vector_includes(&abc.past, &r[0].past));
	}
}

static void
test_bytes(void **state)
{
	static uint8_t buf[AU_KV_RECORD_MAX];
	AuKvRecord	r = {.n = 0},
				back;
	uint8_t		context[AU_KV_CONTEXT_MAX];
	AuKvVector	v;
	size_t		len;

	(void) state;
	put(&r, NULL, 3, 9, "nine");
	put(&r, NULL, 2, 4, "");
	put(&r, NULL, 2, 5, NULL);
	len = au_kv_record_encode(&r, KEY, KLEN, buf, sizeof(buf));
	assert_int_equal(len, au_kv_record_size(&r));
	assert_int_equal(au_kv_record_encode(&r, KEY, KLEN, buf, len - 1), 0);
	assert_true(au_kv_record_decode(&back, KEY, KLEN, buf, len));
	assert_true(au_kv_same(&back, &r));
	assert_memory_equal(back.sibling[2].value, "nine", 4);
	assert_false(au_kv_record_decode(&back, "kez", KLEN, buf, len));
	for (size_t i = 0; i < len; i++)
		for (int bit = 0; bit < 8; bit++)
		{
			buf[i] ^= (uint8_t) (1 << bit);
			assert_false(au_kv_record_decode(&back, KEY, KLEN, buf, len));
			buf[i] ^= (uint8_t) (1 << bit);
		}
	for (size_t i = 0; i < len; i++)
		assert_false(au_kv_record_decode(&back, KEY, KLEN, buf, i));

	len = au_kv_context_encode(&r.past, KEY, KLEN, context);
	assert_true(au_kv_context_decode(&v, KEY, KLEN, context, len) && v.n == r.past.n);
	assert_false(au_kv_context_decode(&v, "kez", KLEN, context, len));
	context[len - 1] ^= 1;
	assert_false(au_kv_context_decode(&v, KEY, KLEN, context, len));
	assert_true(au_kv_context_decode(&v, KEY, KLEN, NULL, 0) && v.n == 0);
}

/* ---- messages --------------------------------------------------------- */

static void
test_messages(void **state)
{
	static uint8_t buf[AU_WIRE_PAYLOAD_MAX + 64];
	static uint8_t value[AU_KV_VALUE_MAX];
	AuKvText	key = {KLEN, (const uint8_t *) KEY};
	AuMsgKvPut	p = {.n = 3,.w = 2,.key = key,.len = sizeof(value),.value = value},
				pb;
	AuMsgKvGetOk g = {.n = AU_KV_MERGED_MAX},
				gb;
	AuMsgKvAsk	a = {.from = 2,.epoch = 3,.serial = 4,.slice = 255,.key = key,.len = 5,.bytes = value},
				ab;
	AuWriter	w;
	AuFrame		f;
	size_t		used;

	(void) state;
	au_writer_start(&w, buf, AU_KV_CLIENT_FRAME_MAX);
	assert_true(au_enc_kv_put(&w, 1, &p));
	assert_int_equal(au_frame_parse(buf, w.len, &f, &used), AU_OK);
	assert_true(au_dec_kv_put(&f, &pb) && pb.len == sizeof(value) && pb.key.len == KLEN);
	p.len++;
	au_writer_start(&w, buf, sizeof(buf));
	assert_false(au_enc_kv_put(&w, 1, &p));

	for (int i = 0; i < AU_KV_MERGED_MAX; i++)
	{
		g.value[i].bytes = value;
		g.value[i].len = sizeof(value);
	}
	au_writer_start(&w, buf, sizeof(buf));
	assert_true(au_enc_kv_get_ok(&w, 1, &g));
	assert_int_equal(au_frame_parse(buf, w.len, &f, &used), AU_OK);
	assert_true(au_dec_kv_get_ok(&f, &gb) && gb.n == AU_KV_MERGED_MAX);

	au_writer_start(&w, buf, sizeof(buf));
	assert_true(au_enc_kv_ask(&w, AU_MSG_KV_STORE, 1, &a));
	assert_int_equal(au_frame_parse(buf, w.len, &f, &used), AU_OK);
	assert_true(au_dec_kv_ask(&f, &ab) && ab.slice == 255 && ab.len == 5 && ab.serial == 4);
	buf[AU_WIRE_HEADER + 21] = 1;	/* slice 511 */
	f.payload = buf + AU_WIRE_HEADER;
	assert_false(au_dec_kv_ask(&f, &ab));
}

/* ---- the store -------------------------------------------------------- */

static char dir[64];

static const char *
make_dir(void)
{
	snprintf(dir, sizeof(dir), "/tmp/test_kv.XXXXXX");
	assert_non_null(mkdtemp(dir));
	return dir;
}

static AuKvOp *
new_op(AuKvOpType type, const char *key, const void *in, size_t len)
{
	AuKvOp	   *op = calloc(1, sizeof(*op));

	assert_non_null(op);
	op->type = type;
	op->klen = (uint16_t) strlen(key);
	memcpy(op->key, key, op->klen);
	op->slice = (uint16_t) au_kv_slice(key, op->klen);
	if (in != NULL)
	{
		op->in = malloc(len + 1);
		memcpy(op->in, in, len);
		op->in_len = (uint32_t) len;
	}
	return op;
}

static void
free_op(AuKvOp *op)
{
	free(op->in);
	free(op->out);
	free(op);
}

static AuKvOp *
run(AuKvStore *s, AuKvOp *op)
{
	char		err[512] = "";

	if (op->type >= AU_KV_OP_FIRST_WRITE)
	{
		if (!au_kvstore_write(s, op, err, sizeof(err)))
			fail_msg("%s", err);
	}
	else
		au_kvstore_read(s, op);
	return op;
}

static AuKvStore *
open_store(const char *dir, AuKvExec *x)
{
	char		err[512] = "";
	uint8_t    *st = NULL;
	size_t		len;
	AuKvStore  *s = au_kvstore_open(dir, NULL, err, sizeof(err));

	if (s == NULL || au_kvstore_begin(s, 42, x, &st, &len, err, sizeof(err)) != AU_OK)
		fail_msg("%s", err);
	free(st);
	return s;
}

/* Value of the only sibling, "" for none. */
static void
assert_value(AuKvStore *s, const char *key, const char *want)
{
	AuKvOp	   *op = run(s, new_op(AU_KV_OP_READ, key, NULL, 0));
	AuKvRecord	r;

	if (want == NULL)
		assert_int_equal(op->status, AU_NOT_FOUND);
	else
	{
		assert_int_equal(op->status, AU_OK);
		assert_true(au_kv_record_decode(&r, key, strlen(key), op->out, op->out_len));
		assert_int_equal(r.n, 1);
		assert_int_equal(r.sibling[0].length, strlen(want));
		assert_memory_equal(r.sibling[0].value, want, strlen(want));
	}
	free_op(op);
}

static void
test_store(void **state)
{
	AuKvExec	x,
				again;
	AuKvStore  *s;
	AuKvOp	   *a,
			   *b;
	AuKvRecord	r;

	(void) state;
	s = open_store(make_dir(), &x);
	assert_int_equal(x.actor, 42);
	/* two writes of one key in one batch: the second sees the first */
	a = new_op(AU_KV_OP_UPDATE, "k", "one", 3);
	b = new_op(AU_KV_OP_UPDATE, "k", "two", 3);
	a->owed[0] = 9;
	a->nowed = 1;
	a->next = b;
	(void) run(s, a);
	assert_int_equal(a->counter, 1);
	assert_int_equal(b->counter, 2);
	assert_true(au_kv_record_decode(&r, "k", 1, b->out, b->out_len) && r.n == 2);
	free_op(b);
	/* it is owed until it is struck off with a counter that is not older */
	b = new_op(AU_KV_OP_OWED, "", NULL, 0);
	b->number = 9;
	b->limit = 1000;
	assert_int_equal(run(s, b)->found, 1);
	free_op(b);
	b = new_op(AU_KV_OP_DISOWE, "k", NULL, 0);
	b->number = 9;
	(void) run(s, b);
	b->counter = 1;
	free(b->out);
	(void) run(s, b);
	assert_int_equal(b->status, AU_OK);
	free_op(b);
	b = new_op(AU_KV_OP_OWED, "", NULL, 0);
	b->number = 9;
	b->limit = 1000;
	assert_int_equal(run(s, b)->found, 0);
	free_op(b);
	free_op(a);
	a = new_op(AU_KV_OP_UPDATE, "k", "three", 5);
	a->past = r.past;
	(void) run(s, a);
	free_op(a);
	assert_value(s, "k", "three");
	au_kvstore_close(s);
	s = open_store(dir, &again);
	assert_int_equal(again.counter, 3);
	assert_true(again.serial > x.serial);
	assert_value(s, "k", "three");
	assert_value(s, "nothing", NULL);
	au_kvstore_close(s);
	testdir_remove(dir);
}

/* A serial from before a tombstone was agreed on is not accepted. */
static void
test_serial(void **state)
{
	AuKvExec	x;
	AuKvStore  *s = open_store(make_dir(), &x);
	AuKvOp	   *dead = new_op(AU_KV_OP_UPDATE, "k", NULL, 0);
	AuKvOp	   *check,
			   *old;
	uint64_t	before = x.serial;

	(void) state;
	dead->flags = AU_KV_TOMBSTONE;
	(void) run(s, dead);
	check = new_op(AU_KV_OP_CHECK, "k", dead->out, dead->out_len);
	check->owner = true;
	assert_int_equal(run(s, check)->status, AU_OK);
	assert_true(check->serial_now > before);
	old = new_op(AU_KV_OP_MERGE, "k", dead->out, dead->out_len);
	old->serial = before;
	assert_int_equal(run(s, old)->status, AU_FENCED);
	free_op(old);
	check->type = AU_KV_OP_PURGE;
	assert_int_equal(run(s, check)->status, AU_OK);
	assert_value(s, "k", NULL);
	old = new_op(AU_KV_OP_MERGE, "k", dead->out, dead->out_len);
	old->serial = check->serial_now;
	assert_int_equal(run(s, old)->status, AU_OK);
	free_op(old);
	free_op(check);
	free_op(dead);
	au_kvstore_close(s);
	testdir_remove(dir);
}

static void
test_list(void **state)
{
	AuKvExec	x;
	AuKvStore  *s = open_store(make_dir(), &x);
	AuKvOp	   *op;
	AuKvText	key;
	const uint8_t *p;
	size_t		left;
	uint8_t		siblings;
	uint32_t	bytes;

	(void) state;
	for (int i = 0; i < 50; i++)
	{
		char		name[16];

		snprintf(name, sizeof(name), i < 40 ? "a%02d" : "b%02d", i);
		op = new_op(AU_KV_OP_UPDATE, name, "v", 1);
		op->flags = i == 7 ? AU_KV_TOMBSTONE : 0;
		op->in_len = i == 7 ? 0 : 1;
		free_op(run(s, op));
	}
	op = new_op(AU_KV_OP_LIST, "a", "a03", 3);
	memset(&op->slices, 0xff, sizeof(op->slices));
	op->limit = 5;
	(void) run(s, op);
	assert_int_equal(op->found, 5);
	assert_true(op->more);
	p = op->out;
	left = op->out_len;
	for (int i = 4; i < 10; i++)
	{
		char		name[16];

		if (i == 7)
			continue;
		snprintf(name, sizeof(name), "a%02d", i);
		assert_true(au_kv_list_next(&p, &left, &key, &siblings, &bytes));
		assert_memory_equal(key.bytes, name, 3);
	}
	free_op(op);
	au_kvstore_close(s);
	testdir_remove(dir);
}

static void
count_problem(void *ctx, const char *text)
{
	assert_non_null(strstr(text, "\"bad\" is damaged"));
	(*(int *) ctx)++;
}

/* A damaged record is never given out, and auroractl check finds it. */
static void
test_damage(void **state)
{
	AuKvExec	x;
	AuKvStore  *s = open_store(make_dir(), &x);
	rocksdb_options_t *o = rocksdb_options_create();
	rocksdb_writeoptions_t *wo = rocksdb_writeoptions_create();
	char	   *dberr = NULL;
	rocksdb_t  *db;
	uint8_t		raw[5] = {'r', (uint8_t) au_kv_slice("bad", 3), 'b', 'a', 'd'};
	char		err[512];
	uint64_t	keys,
				owed;
	int			problems = 0;
	AuKvOp	   *op;

	(void) state;
	free_op(run(s, new_op(AU_KV_OP_UPDATE, "good", "v", 1)));
	op = run(s, new_op(AU_KV_OP_UPDATE, "bad", "value", 5));
	au_kvstore_close(s);
	op->out[op->out_len - 1] ^= 1;
	db = rocksdb_open(o, dir, &dberr);
	assert_null(dberr);
	rocksdb_put(db, wo, (char *) raw, 5, (char *) op->out, op->out_len, &dberr);
	assert_null(dberr);
	rocksdb_close(db);
	free_op(op);
	assert_int_equal(au_kvstore_check(dir, count_problem, &problems, &keys, &owed, err, sizeof(err)), AU_OK);
	assert_int_equal(problems, 1);
	assert_int_equal(keys, 1);

	s = open_store(dir, &x);
	op = run(s, new_op(AU_KV_OP_READ, "bad", NULL, 0));
	assert_int_equal(op->status, AU_CORRUPT);
	assert_null(op->out);
	free_op(op);
	op = run(s, new_op(AU_KV_OP_UPDATE, "bad", "new", 3));
	assert_int_equal(op->status, AU_CORRUPT);
	free_op(op);
	/* what the other nodes have, instead: nothing */
	op = new_op(AU_KV_OP_MERGE, "bad", NULL, 0);
	op->serial = x.serial;
	op->replace = true;
	assert_int_equal(run(s, op)->status, AU_OK);
	free_op(op);
	assert_value(s, "bad", NULL);
	assert_value(s, "good", "v");
	au_kvstore_close(s);
	rocksdb_writeoptions_destroy(wo);
	rocksdb_options_destroy(o);
	testdir_remove(dir);
}

/* ---- RocksDB's log ---------------------------------------------------- */

/* Path of the newest one with records; its length. */
static long
log_path(char *path, size_t cap)
{
	glob_t		g;
	char		pattern[100];
	long		len = 0;

	snprintf(pattern, sizeof(pattern), "%s/*.log", dir);
	assert_int_equal(glob(pattern, 0, NULL, &g), 0);
	for (size_t i = 0; i < g.gl_pathc; i++)
	{
		struct stat st;

		assert_int_equal(stat(g.gl_pathv[i], &st), 0);
		if (st.st_size == 0)
			continue;
		len = (long) st.st_size;
		snprintf(path, cap, "%s", g.gl_pathv[i]);
	}
	globfree(&g);
	assert_true(len > 0);
	return len;
}

/* Ten acknowledged writes that are in RocksDB's log alone. */
static void
fill_log(void)
{
	AuKvExec	x;
	AuKvStore  *s = open_store(make_dir(), &x);
	char		key[16];

	for (int i = 0; i < 10; i++)
	{
		snprintf(key, sizeof(key), "key%d", i);
		free_op(run(s, new_op(AU_KV_OP_UPDATE, key, "value", 5)));
	}
	au_kvstore_close(s);		/* RocksDB keeps them in its log */
}

static void
no_problem(void *ctx, const char *text)
{
	(void) ctx;
	fail_msg("%s", text);
}

/* One flipped bit among acknowledged writes: those that follow must not vanish
 * without a word, nor the counter go back. */
static void
test_log_damage(void **state)
{
	char		path[300];
	char		err[512] = "";
	long		len;
	int			fd;
	uint8_t		byte;
	uint64_t	keys,
				owed;

	(void) state;
	fill_log();
	len = log_path(path, sizeof(path));
	fd = open(path, O_RDWR);
	assert_int_equal(pread(fd, &byte, 1, len / 2), 1);
	byte ^= 4;
	assert_int_equal(pwrite(fd, &byte, 1, len / 2), 1);
	assert_null(au_kvstore_open(dir, NULL, err, sizeof(err)));
	assert_non_null(strstr(err, "Corruption"));
	assert_int_equal(au_kvstore_check(dir, no_problem, NULL, &keys, &owed, err, sizeof(err)), AU_IO);
	/* nothing was changed by that: with the byte as it was all is there */
	byte ^= 4;
	assert_int_equal(pwrite(fd, &byte, 1, len / 2), 1);
	close(fd);
	assert_int_equal(au_kvstore_check(dir, no_problem, NULL, &keys, &owed, err, sizeof(err)), AU_OK);
	assert_int_equal(keys, 10);
	testdir_remove(dir);
}

/* RocksDB makes an empty database where CURRENT is missing: not at the first
 * time, when it finds its log, but at the second. */
static void
test_current_lost(void **state)
{
	char		current[300],
				away[300];
	char		err[512] = "";
	AuKvExec	x;
	AuKvStore  *s;

	(void) state;
	fill_log();
	au_kvstore_close(open_store(dir, &x));	/* in tables now */
	snprintf(current, sizeof(current), "%s/CURRENT", dir);
	snprintf(away, sizeof(away), "%s/away", dir);
	assert_int_equal(rename(current, away), 0);
	for (int i = 0; i < 3; i++)
	{
		assert_null(au_kvstore_open(dir, NULL, err, sizeof(err)));
		assert_non_null(strstr(err, "CURRENT"));
	}
	assert_int_equal(rename(away, current), 0);
	s = open_store(dir, &x);
	assert_value(s, "key0", "value");
	assert_value(s, "key9", "value");
	au_kvstore_close(s);
	testdir_remove(dir);
}

/* A crash in the middle of a write leaves less of it than there should be, or
 * zeros: nobody was told of that write, all others are there. */
static void
test_log_end(void **state)
{
	(void) state;
	for (int zeros = 0; zeros < 2; zeros++)
	{
		char		path[300];
		AuKvExec	x;
		AuKvStore  *s;
		long		len;

		fill_log();
		len = log_path(path, sizeof(path));
		assert_int_equal(truncate(path, zeros ? len + 4096 : len - 3), 0);
		s = open_store(dir, &x);
		assert_value(s, "key0", "value");
		assert_value(s, "key8", "value");
		assert_value(s, "key9", zeros ? "value" : NULL);
		au_kvstore_close(s);
		testdir_remove(dir);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_update),
		cmocka_unit_test(test_siblings_bounded),
		cmocka_unit_test(test_vector_bounded),
		cmocka_unit_test(test_merge_laws),
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_messages),
		cmocka_unit_test(test_store),
		cmocka_unit_test(test_serial),
		cmocka_unit_test(test_list),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_log_damage),
		cmocka_unit_test(test_current_lost),
		cmocka_unit_test(test_log_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
