/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_golden_disk.c: what is written to disks is what it was when
 * tests/golden/disk.txt was made: files, values in RocksDB, records of the log,
 * views; where pages and keys are put.  Encoding gives the kept bytes, and what
 * is found in them encodes to them again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cluster/au_kv_exec.h"
#include "cluster/au_raft_frame.h"
#include "common/au_crc32c.h"
#include "common/au_heap.h"
#include "common/au_page.h"
#include "common/au_wal_format.h"
#include "daemon/au_files.h"
#include "daemon/au_relog.h"
#include "store/au_chunk.h"
#include "store/au_landing_io.h"
#include "store/au_pagestore_int.h"
#include "tests/golden.h"
#include "tests/testfixture.h"
#include "tests/viewmake.h"

#define SYSID UINT64_C(0xF1F2F3F4F5F6F7F8)
#define LSN(n) (UINT64_C(0x11000000) + (n))

static const AuRelId rel = {1663, 5, 16384, 0};
static uint8_t buf[AU_VIEW_ENCODED_MAX];
static uint8_t again[AU_VIEW_ENCODED_MAX];
static char err[512];

/* A path below the test's directory, which is made. */
static const char *
below(const char *name)
{
	static char path[300];

	(void) mkdir(dir, 0700);
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static size_t
read_whole(const char *path)
{
	long		n = au_read_file(path, buf, sizeof(buf));

	assert_in_range(n, 1, sizeof(buf) - 1);
	return (size_t) n;
}

static void
write_whole(const char *directory, const char *name, const void *bytes, size_t len)
{
	if (!au_write_file(directory, name, bytes, len, err, sizeof(err)))
		fail_msg("%s", err);
}

/* ---- the node's directory ------------------------------------------------ */

static void
test_node_file(void **state)
{
	uint64_t	id = UINT64_C(0xA1A2A3A4A5A6A7A8);
	uint64_t	found;
	const uint8_t *kept;

	(void) state;
	/* one is made: but for the number, which comes from chance, it is the kept one */
	(void) below("");
	assert_true(au_node_identity(dir, &found, err, sizeof(err)));
	assert_int_equal(read_whole(below("NODE")), AU_NODE_FILE_LEN);
	assert_true(au_get_u64(buf + 12) == found);
	au_put_u64(buf + 12, id);
	assert_int_not_equal(au_get_u32(buf + 20), 0);
	au_put_u32(buf + 20, au_crc32c(0, buf, 20));
	kept = golden_check("NODE", buf, AU_NODE_FILE_LEN);
	write_whole(dir, "NODE", kept, AU_NODE_FILE_LEN);
	assert_true(au_node_identity(dir, &found, err, sizeof(err)));
	assert_true(found == id);
}

static void
test_volume_file(void **state)
{
	AuVolumeMeta m = {
		.system_identifier = SYSID,.start_lsn = LSN(1),.term = 0x83,.voted_for = 0x31,.timeline = 3,
		.segment_size = 16 << 20,
		.history = {.n = 2,.terms = {{0x81, LSN(2), 1}, {0x83, LSN(0x99), 2}}},
		.group = {.epoch = 0x61,.n = 2,.write_quorum = 2,
			.members = {{0x6162636465666768, "10.0.0.1:7015"}, {0x7172737475767778, "host:7016"}}}
	};
	AuVolumeMeta out;
	const uint8_t *kept;
	const char *why;

	(void) state;
	au_volume_encode(buf, &m);
	kept = golden_check("VOLUME", buf, AU_VOLUME_LEN);
	assert_int_equal(au_volume_decode(kept, AU_VOLUME_LEN, &out, &why), AU_OK);
	au_volume_encode(again, &out);
	assert_memory_equal(again, kept, AU_VOLUME_LEN);
	m.lost_before = 0x84;
	au_volume_encode(buf, &m);
	kept = golden_check("VOLUME, log lost", buf, AU_VOLUME_LEN);
	assert_int_equal(au_volume_decode(kept, AU_VOLUME_LEN, &out, &why), AU_OK);
	assert_int_equal(out.lost_before, 0x84);
}

/* ---- the landing log ------------------------------------------------------ */

static AuLanding *
open_log(const char *path, AuLsn start)
{
	AuLandingOptions opt = {
		.dir = path,.system_identifier = SYSID,.start_lsn = start,.segment_bytes = 1 << 20
	};
	AuLanding  *l;

	if (au_landing_open(&l, &opt, err, sizeof(err)) != AU_OK)
		fail_msg("%s", err);
	return l;
}

static void
test_landing_log(void **state)
{
	static const char text[] = "bytes of the server's log";
	static const char segment[] = "0000000011000000.log";
	char		log[300];
	char		path[400];
	const uint8_t *kept;
	const uint8_t *kept_mark;
	AuLanding  *l;
	size_t		len;
	size_t		mark_len;

	(void) state;
	snprintf(log, sizeof(log), "%s", below("log"));
	l = open_log(log, LSN(0));
	for (int i = 0; i < 2; i++)
	{
		assert_int_equal(au_landing_append(l, 0x83, 3, LSN(i * sizeof(text)), (const uint8_t *) text,
										   sizeof(text), err, sizeof(err)), AU_OK);
		assert_int_equal(au_landing_sync(l, err, sizeof(err)), AU_OK);
	}
	au_landing_close(l);
	snprintf(path, sizeof(path), "%s/%s", log, segment);
	len = read_whole(path);
	kept = golden_check("landing log", buf, len);
	snprintf(path, sizeof(path), "%s/durable", log);
	mark_len = read_whole(path);
	kept_mark = golden_check("landing log, durable", buf, mark_len);

	/* The kept files are a log that can be read, and goes on. */
	testdir_remove(log);
	assert_true(au_make_dir(log, err, sizeof(err)));
	write_whole(log, segment, kept, len);
	write_whole(log, "durable", kept_mark, mark_len);
	l = open_log(log, AU_LSN_INVALID);
	assert_true(au_landing_start(l) == LSN(0));
	assert_true(au_landing_durable(l) == LSN(2 * sizeof(text)));
	assert_int_equal(au_landing_read(l, LSN(sizeof(text)), buf, sizeof(buf), &len, err, sizeof(err)), AU_OK);
	assert_int_equal(len, sizeof(text));
	assert_string_equal((char *) buf, text);
	assert_int_equal(au_landing_append(l, 0x84, 3, LSN(2 * sizeof(text)), (const uint8_t *) "x", 1, err,
									   sizeof(err)), AU_OK);
	au_landing_close(l);
}

/* REBUILT: log and pages are being exchanged. */
static void
test_rebuilt(void **state)
{
	char		volume[300];
	char		log[320];
	AuRelog		r = {.dir = volume,.log = {.dir = log,.system_identifier = SYSID,.segment_bytes = 1 << 20,
			.io = &au_landing_file_io}};
	const uint8_t *kept;
	size_t		len;

	(void) state;
	snprintf(volume, sizeof(volume), "%s", below("volume"));
	snprintf(log, sizeof(log), "%s/log", volume);
	assert_int_equal(mkdir(volume, 0700), 0);
	assert_int_equal(mkdir(log, 0700), 0);
	assert_int_equal(mkdir(below("volume/pages"), 0700), 0);
	assert_int_equal(mkdir(below("volume/pages.new"), 0700), 0);
	assert_int_equal(au_relog_begin(&r, LSN(0x4000), err, sizeof(err)), AU_OK);
	len = read_whole(below("volume/" AU_RELOG_FILE));
	kept = golden_check("REBUILT", buf, len);
	write_whole(volume, AU_RELOG_FILE, kept, len);
	if (au_relog_roll(&r, err, sizeof(err)) != AU_OK)
		fail_msg("%s", err);
	assert_int_equal(access(below("volume/" AU_RELOG_FILE), F_OK), -1);
	au_landing_close(open_log(log, AU_LSN_INVALID));
}

/* ---- the page store --------------------------------------------------------- */

static void
test_bundle(void **state)
{
	AuItem		items[] = {{LSN(1), 4, (const uint8_t *) "init"}, {LSN(5), 5, (const uint8_t *) "patch"}};
	AuPageId	page = {rel, 7};
	AuPageId	found;
	AuItem		item[2];
	AuBundle	b;
	AuLsn		lsn;
	uint8_t		keyspace;
	const uint8_t *key;
	const uint8_t *kept;
	const char *why;
	size_t		len = au_bundle_size(2, 9);
	size_t		pos = 0;

	(void) state;
	au_key_encode(buf, AU_KS_PAGE, &page, LSN(1));
	key = golden_check("page store, key", buf, AU_KEY_LEN);
	au_bundle_encode(buf, key, items, 2, LSN(1));
	kept = golden_check("page store, bundle", buf, len);
	assert_true(au_key_decode(key, AU_KEY_LEN, &keyspace, &found, &lsn));
	au_key_encode(again, keyspace, &found, lsn);
	assert_memory_equal(again, key, AU_KEY_LEN);
	assert_int_equal(au_bundle_parse(key, kept, len, &b, &why), AU_OK);
	assert_true(au_bundle_next(&b, &pos, &item[0]) && au_bundle_next(&b, &pos, &item[1]));
	assert_false(au_bundle_next(&b, &pos, &item[1]));
	au_bundle_encode(again, key, item, b.nitems, b.self_from);
	assert_memory_equal(again, kept, len);
}

static void
test_store_records(void **state)
{
	AuSizeItem	size = {.nblocks = 77,.kind = AU_SIZE_TRUNCATE,.cut = 9,.prev_event = LSN(3)};
	AuSizeItem	size_out;
	AuStoreMeta meta = {.system_identifier = SYSID,.applied = LSN(9),.restart = LSN(8),.horizon = LSN(5),
	.gc_done = LSN(4)};
	AuStoreMeta meta_out;
	AuSlicesRecord slices = {.told = true,.kept = {{1, 2, 4, 8}},.incoming = {{16, 32, 64, 128}},
		.dropping = {{256, 512, 1024, UINT64_C(1) << 63}},.since = LSN(3)};
	AuSlicesRecord slices_out;
	AuImportRecord import = {.since = LSN(3),.horizon = LSN(2),.done = true,.place = {{1, 2, 3, [28] = 29}}};
	AuImportRecord import_out;
	static AuTimeMap times = {.newest = 999,.count = 2,.entries = {{777, LSN(6)}, {888, LSN(7)}}};
	static AuTimeMap times_out;
	const uint8_t *kept;
	const char *why;
	size_t		len;

	(void) state;
	au_size_item_encode(buf, &size);
	kept = golden_check("page store, size", buf, AU_SIZE_ITEM);
	assert_true(au_size_item_decode(kept, AU_SIZE_ITEM, &size_out));
	au_size_item_encode(again, &size_out);
	assert_memory_equal(again, kept, AU_SIZE_ITEM);

	au_ps_meta_encode(buf, &meta);
	kept = golden_check("page store, meta", buf, AU_META_LEN);
	assert_int_equal(au_ps_meta_decode(kept, AU_META_LEN, &meta_out, &why), AU_OK);
	au_ps_meta_encode(again, &meta_out);
	assert_memory_equal(again, kept, AU_META_LEN);

	au_slices_encode(buf, &slices);
	kept = golden_check("page store, own", buf, AU_SLICES_LEN);
	assert_true(au_slices_decode(kept, AU_SLICES_LEN, &slices_out));
	au_slices_encode(again, &slices_out);
	assert_memory_equal(again, kept, AU_SLICES_LEN);

	au_import_encode(buf, &import);
	kept = golden_check("page store, imp", buf, AU_IMPORT_LEN);
	assert_true(au_import_decode(kept, AU_IMPORT_LEN, &import_out));
	au_import_encode(again, &import_out);
	assert_memory_equal(again, kept, AU_IMPORT_LEN);

	len = au_timemap_encode(buf, &times);
	kept = golden_check("page store, time", buf, len);
	assert_int_equal(au_timemap_decode(kept, len, &times_out), AU_OK);
	assert_int_equal(au_timemap_encode(again, &times_out), len);
	assert_memory_equal(again, kept, len);
}

static void
test_chunk(void **state)
{
	AuItem		item = {LSN(1), 4, (const uint8_t *) "init"};
	AuPageId	page = {rel, 7};
	AuChunk		c = {.system_identifier = SYSID,.upto = LSN(9),.horizon = LSN(1),
		.from = au_place_first(AU_KS_PAGE),.count = 1};
	AuChunk		out;
	uint8_t    *entry = buf + AU_CHUNK_HEADER;
	const uint8_t *kept;
	const char *why;
	size_t		len;

	(void) state;
	page.blk = 8;
	au_key_encode(c.next.key, AU_KS_PAGE, &page, LSN(9));
	page.blk = 7;
	au_key_encode(entry, AU_KS_PAGE, &page, LSN(1));
	au_put_u32(entry + AU_KEY_LEN, (uint32_t) au_bundle_size(1, 4));
	au_bundle_encode(entry + AU_CHUNK_ENTRY, entry, &item, 1, LSN(1));
	c.entries_len = AU_CHUNK_ENTRY + au_bundle_size(1, 4);
	len = au_chunk_finish(buf, &c);
	kept = golden_check("chunk", buf, len);
	if (au_chunk_parse(kept, len, &out, &why) != AU_OK)
		fail_msg("%s", why);
	memcpy(again + AU_CHUNK_HEADER, out.entries, out.entries_len);
	assert_int_equal(au_chunk_finish(again, &out), len);
	assert_memory_equal(again, kept, len);
}

/* ---- the log's records ------------------------------------------------------ */

static void
test_wal_record(void **state)
{
	AuRecMain	m = {.flags = AU_REC_FLAGS_KNOWN,.conflict_xid = 0x01020304,.vm_clear_blocks = 5,
		.truncate_rel = {1663, 5, 16384, 0},.truncate_nblocks = 77};
	AuRecMain	out;
	size_t		len = au_rec_main_encode(buf, &m);
	const uint8_t *kept = golden_check("WAL record, main data", buf, len);

	(void) state;
	assert_int_equal(au_rec_main_decode(kept, len, &out), AU_OK);
	assert_int_equal(au_rec_main_encode(again, &out), len);
	assert_memory_equal(again, kept, len);
	len = 0;
	for (int i = 0; i < 16; i++)
	{
		const char *name = au_record_kind_name((uint8_t) (i << 4));

		len += (size_t) sprintf((char *) buf + len, "%s ", name != NULL ? name : "-");
	}
	(void) golden_check("WAL record, names of kinds", buf, len);
}

/* All operations: their bytes, and what they make of a page. */
static void
test_page_operations(void **state)
{
	uint8_t		page[AU_PAGE_SIZE] = {0};
	uint8_t		image[AU_PAGE_SIZE] = {0};
	uint8_t		tuple[40];
	const uint16_t redirect[] = {1, 2};
	const uint16_t dead[] = {3};
	const uint16_t unused[] = {4};
	const uint8_t *kept;
	const char *why = "";
	AuOps		ops;

	(void) state;
	for (size_t i = 0; i < sizeof(tuple); i++)
		tuple[i] = (uint8_t) (0x40 + i);
	au_ops_start(&ops, again, sizeof(again));
	au_ops_init(&ops, 0);
	for (uint16_t i = 1; i <= 5; i++)
		au_ops_add(&ops, i, sizeof(tuple), tuple);
	au_ops_add_delta(&ops, 6, 5, 26, 3, 4, 24, tuple, 2, "mi");
	au_ops_tuphdr(&ops, 5, 0x0F, 0x51, 0x52, 0x53, 0x54, 7, 6);
	au_ops_prunable(&ops, 0x61);
	au_ops_flags(&ops, 4, 1);
	au_ops_patch(&ops, 8000, 5, "patch");
	au_ops_prune(&ops, redirect, 1, dead, 1, unused, 1);
	au_ops_unused(&ops, dead, 1);
	assert_false(ops.overflow);
	kept = golden_check("page operations", ops.data, ops.len);
	if (au_page_apply(page, kept, ops.len, &why) != AU_OK)
		fail_msg("%s", why);
	(void) golden_check("page operations, the page", page, sizeof(page));

	au_ops_start(&ops, again, sizeof(again));
	au_ops_image(&ops, page);
	kept = golden_check("page operations, image", ops.data, ops.len);
	assert_int_equal(au_page_apply(image, kept, ops.len, &why), AU_OK);
	assert_memory_equal(image, page, sizeof(page));
}

/* ---- what nodes agree on ----------------------------------------------------- */

static void
apply(AuView *v, const AuViewCommand *c)
{
	bool		changed;

	if (au_view_apply(v, c, &changed, err, sizeof(err)) != AU_OK)
		fail_msg("%s", err);
}

static void
same_view(const char *name, const AuView *v)
{
	static AuView out;
	size_t		len = au_view_encode(v, buf, sizeof(buf));
	const uint8_t *kept = golden_check(name, buf, len);

	assert_true(au_view_decode(&out, kept, len));
	assert_int_equal(au_view_encode(&out, again, sizeof(again)), len);
	assert_memory_equal(again, kept, len);
}

/* Also how the ring puts slices: it made these views. */
static void
test_views(void **state)
{
	static AuView v;
	AuViewCommand c = view_init(2);

	(void) state;
	memset(&v, 0, sizeof(v));
	apply(&v, &c);
	for (uint64_t id = 1; id <= 3; id++)
	{
		c = view_join(id, id == 2 ? "east" : "west");
		snprintf(c.node.http, sizeof(c.node.http), "host%u:7102", (unsigned) id);
		c.node.weight = (uint16_t) (50 * id);
		apply(&v, &c);
		if (id == 3)
			break;				/* its slices are on their way to it */
		c = view_ready(&v, (uint32_t) id);
		apply(&v, &c);
	}
	c = (AuViewCommand) {.type = AU_VIEW_VOLUME_ADD,.system_identifier = SYSID,.write_quorum = 2,.ngroup = 2};
	apply(&v, &c);
	same_view("view", &v);
	c = (AuViewCommand) {.type = AU_VIEW_MENDING,.number = 1,.system_identifier = SYSID,.up = 1};
	apply(&v, &c);
	same_view("view, a node mends", &v);
}

static void
test_command(void **state)
{
	AuViewCommand c = view_join(1, "west");
	AuViewCommand out;
	const uint8_t *kept;
	size_t		len;

	(void) state;
	snprintf(c.node.http, sizeof(c.node.http), "host1:7102");
	c.rf = 3;
	c.up = 1;
	c.ngroup = 5;
	c.write_quorum = 4;
	c.number = 6;
	c.with = 7;
	c.group_epoch = 8;
	c.cluster_id = 0xC1;
	c.system_identifier = SYSID;
	c.epoch = 9;
	c.slices = (AuSliceSet) {{1, 2, 4, UINT64_C(1) << 63}};
	len = au_view_command_encode(&c, buf, sizeof(buf));
	kept = golden_check("command", buf, len);
	assert_true(au_view_command_decode(&out, kept, len));
	assert_int_equal(au_view_command_encode(&out, again, sizeof(again)), len);
	assert_memory_equal(again, kept, len);
}

/* A greeting at the port for consensus (libraft's form, our text). */
static void
test_greeting(void **state)
{
	char		text[AU_RAFT_TEXT_MAX];
	AuRaftHello h;
	const uint8_t *kept;
	size_t		used;
	size_t		len;

	(void) state;
	assert_true(au_raft_hello_text(text, sizeof(text), "127.0.0.1:7101", 0xC1, 0xA1A2A3A4A5A6A7A8));
	len = strlen(text) / 8 * 8 + 8;
	memset(buf, 0, 24 + len);
	au_put_u64(buf, 1);
	au_put_u64(buf + 8, 3);
	au_put_u64(buf + 16, len);
	memcpy(buf + 24, text, strlen(text));
	kept = golden_check("greeting", buf, 24 + len);
	assert_int_equal(au_raft_hello_parse(kept, 24 + len, &h, &used), AU_OK);
	assert_int_equal(used, 24 + len);
	assert_int_equal(h.number, 3);
	assert_true(h.cluster_id == 0xC1 && h.node_id == 0xA1A2A3A4A5A6A7A8);
	assert_string_equal(h.address, "127.0.0.1:7101");
}

/* Which slices some pages and keys are in. */
static void
test_places(void **state)
{
	char		key[16];

	(void) state;
	for (uint32_t i = 0; i < 64; i++)
	{
		AuRelId		r = {1663 + i % 2, 5 + i % 3, 16384 + i, i % 5};

		buf[i] = (uint8_t) au_slice_of(&r, i * 1000);
		buf[64 + i] = (uint8_t) au_kv_slice(key, (size_t) sprintf(key, "key %u", (unsigned) i));
	}
	(void) golden_check("slices of pages", buf, 64);
	(void) golden_check("slices of keys", buf + 64, 64);
}

/* ---- the key-value store ------------------------------------------------------ */

static void
test_kv_record(void **state)
{
	AuKvRecord	r = {
		.past = {.n = 2,.entry = {{0x71, 9}, {0x72, 5}}},.n = 2,
		.sibling = {{{0x71, 9}, 0, 5, (const uint8_t *) "value"}, {{0x72, 4}, AU_KV_TOMBSTONE, 0, NULL}}
	};
	AuKvRecord	out;
	AuKvVector	past;
	const uint8_t *kept;
	size_t		len = au_kv_record_encode(&r, "key", 3, buf, sizeof(buf));

	(void) state;
	kept = golden_check("key-value record", buf, len);
	assert_true(au_kv_record_decode(&out, "key", 3, kept, len));
	assert_int_equal(au_kv_record_encode(&out, "key", 3, again, sizeof(again)), len);
	assert_memory_equal(again, kept, len);

	len = au_kv_context_encode(&r.past, "key", 3, buf);
	kept = golden_check("key-value context", buf, len);
	assert_true(au_kv_context_decode(&past, "key", 3, kept, len));
	assert_int_equal(au_kv_context_encode(&past, "key", 3, again), len);
	assert_memory_equal(again, kept, len);
}

#define PAIRS_MAX 8

/* A map of few keys. */
static struct
{
	uint8_t		key[PAIRS_MAX][64];
	size_t		klen[PAIRS_MAX];
	uint8_t		value[PAIRS_MAX][256];
	size_t		len[PAIRS_MAX];
	int			n;
} pairs;

static int
map_find(const uint8_t *key, size_t klen)
{
	for (int i = 0; i < pairs.n; i++)
		if (pairs.klen[i] == klen && memcmp(pairs.key[i], key, klen) == 0)
			return i;
	return -1;
}

static AuStatus
map_get(void *ctx, const uint8_t *key, size_t klen, uint8_t **value, size_t *len)
{
	int			i = map_find(key, klen);

	(void) ctx;
	if (i < 0)
		return AU_NOT_FOUND;
	*value = malloc(pairs.len[i] + 1);
	*len = pairs.len[i];
	memcpy(*value, pairs.value[i], pairs.len[i]);
	return AU_OK;
}

static void
map_put(void *ctx, const uint8_t *key, size_t klen, const uint8_t *value, size_t len)
{
	int			i = map_find(key, klen);

	(void) ctx;
	if (i < 0)
		i = pairs.n++;
	assert_true(i < PAIRS_MAX && klen <= sizeof(pairs.key[0]) && len <= sizeof(pairs.value[0]));
	pairs.klen[i] = klen;
	memcpy(pairs.key[i], key, klen);
	pairs.len[i] = len;
	memcpy(pairs.value[i], value, len);
}

static void
map_del(void *ctx, const uint8_t *key, size_t klen)
{
	(void) ctx;
	(void) key;
	(void) klen;
	fail();
}

static AuStatus
map_scan(void *ctx, const uint8_t *from, size_t flen,
		 bool (*fn) (void *fnctx, const uint8_t *key, size_t klen, const uint8_t *value, size_t len),
		 void *fnctx)
{
	(void) ctx;
	(void) from;
	(void) flen;
	(void) fn;
	(void) fnctx;
	return AU_OK;
}

/* Keys and values of a store in which one value was put. */
static void
test_kv_store(void **state)
{
	const AuKvMap map = {.alloc = au_heap_alloc,.release = au_heap_release,.get = map_get,.put = map_put,
	.del = map_del,.scan = map_scan};
	AuKvOp		op = {.type = AU_KV_OP_UPDATE,.klen = 3,.key = "key",.in_len = 5,.owed = {2},.nowed = 1};
	AuKvExec	x;
	uint8_t    *st;
	size_t		len;

	(void) state;
	assert_int_equal(au_kv_exec_open(&x, &map, 0x71, &st, &len), AU_OK);
	op.slice = (uint16_t) au_kv_slice(op.key, op.klen);
	op.in = (uint8_t *) strdup("value");
	au_kv_exec(&x, &map, &op);
	assert_int_equal(op.status, AU_OK);
	free(op.in);
	free(op.out);
	for (int i = 0; i < pairs.n; i++)
	{
		char		name[64];
		const uint8_t *kept;

		snprintf(name, sizeof(name), "key-value store, key %c", pairs.key[i][0]);
		(void) golden_check(name, pairs.key[i], pairs.klen[i]);
		snprintf(name, sizeof(name), "key-value store, value of %c", pairs.key[i][0]);
		kept = golden_check(name, pairs.value[i], pairs.len[i]);
		memcpy(pairs.value[i], kept, pairs.len[i]);
	}
	assert_int_equal(pairs.n, 3);

	/* the next start finds all of it */
	assert_int_equal(au_kv_exec_open(&x, &map, 0x99, &st, &len), AU_OK);
	assert_true(x.actor == 0x71 && x.counter >= 1 && x.starts == 2);
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_node_file),
		cmocka_unit_test(test_volume_file),
		cmocka_unit_test(test_landing_log),
		cmocka_unit_test(test_rebuilt),
		cmocka_unit_test(test_bundle),
		cmocka_unit_test(test_store_records),
		cmocka_unit_test(test_chunk),
		cmocka_unit_test(test_wal_record),
		cmocka_unit_test(test_page_operations),
		cmocka_unit_test(test_views),
		cmocka_unit_test(test_command),
		cmocka_unit_test(test_greeting),
		cmocka_unit_test(test_places),
		cmocka_unit_test(test_kv_record),
		cmocka_unit_test(test_kv_store),
		cmocka_unit_test(golden_all_seen),
	};

	if (!golden_begin(argc, argv, "disk.txt"))
		return 1;
	return golden_end(cmocka_run_group_tests(tests, testfixture_setup, testfixture_teardown));
}
