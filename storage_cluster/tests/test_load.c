/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_load.c: what loading a table costs the store, with the memory and the
 * files of a daemon: how often its pages are rewritten by compactions, and
 * that the batch's memory stays while generation follows generation.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <unistd.h>

#include "common/au_page.h"
#include "store/au_pagestore_int.h"
#include "tests/testdir.h"
#include "tests/teststore.h"

#define SYSID 7
#define START ((AuLsn) 1000)
#define STEP 16
#define ITEM 8000				/* random bytes of each page */
#define BLOCKS 10000u
/* Merged into the first level, and from there into the last. */
#define REWRITTEN_MAX 4
#define WAIT_S 60

static AuPageStore *ps;
static uint32_t seed = 1;
static uint32_t loaded;

/* A page of a table's load; returns the end of its record. */
static AuLsn
load_page(void)
{
	static AuWalRecord w;
	uint8_t		memory[ITEM + 64];
	uint8_t		item[ITEM];
	AuOps		ops;

	for (size_t i = 0; i < sizeof(item); i++)
		item[i] = (uint8_t) ((seed = seed * 1664525 + 1013904223) >> 24);
	au_ops_start(&ops, memory, sizeof(memory));
	au_ops_init(&ops, 0);
	au_ops_add(&ops, 1, sizeof(item), item);
	assert_false(ops.overflow);
	memset(&w, 0, sizeof(w));
	w.kind = AU_WAL_OURS;
	w.lsn = START + (AuLsn) loaded * STEP;
	w.end = w.lsn + STEP;
	w.nblocks = 1;
	w.blocks[0].page = (AuPageId) {{1663, 5, 16384, 0}, loaded++};
	w.blocks[0].data = ops.data;
	w.blocks[0].data_len = ops.len;
	assert_int_equal(au_pagestore_apply(ps, &w), AU_OK);
	return w.end;
}

static void
wait_for_compactions(void)
{
	for (int i = 0; i < WAIT_S * 100; i++)
	{
		if (au_ps_property(ps, "rocksdb.compaction-pending") == 0 &&
			au_ps_property(ps, "rocksdb.num-running-compactions") == 0)
			return;
		usleep(10000);
	}
	fail_msg("compactions still run after %d s", WAIT_S);
}

static void
test_load(void **state)
{
	AuStoreMemory *memory = au_store_memory_new(AU_MEMORY_MIN);
	const AuMemoryPlan *plan = au_store_memory_plan(memory);
	char		dir[64] = "/tmp/au_test_load_XXXXXX";
	AuPageStoreOptions opt = {
		.dir = dir,.system_identifier = SYSID,.start_lsn = START,
		.pending_bytes = plan->generation,
		.write_buffer_bytes = plan->memtables + 2 * plan->generation,
		.retention_bytes = 1 << 30,.memory = memory
	};
	AuPageStoreFiles files;
	char		err[512];

	(void) state;
	assert_non_null(mkdtemp(dir));
	if (au_pagestore_open(&ps, &opt, err, sizeof(err)) != AU_OK)
		fail_msg("open: %s", err);
	while (loaded < BLOCKS)
	{
		AuLsn		end = load_page();

		if (!au_pagestore_full(ps))
			continue;
		teststore_write(ps, end, false);
		/* the next one need not grow a batch from nothing */
		assert_non_null(memory->batch);
		/* each is alone, so what they rewrite hangs on no timing */
		wait_for_compactions();
	}
	/* nothing much happens: its memory goes back */
	teststore_write(ps, load_page(), true);
	teststore_write(ps, load_page(), true);
	assert_null(memory->batch);

	wait_for_compactions();
	au_pagestore_files(ps, &files);
	assert_true(files.flush_bytes >= (uint64_t) BLOCKS * ITEM);
	if (files.compaction_write_bytes > REWRITTEN_MAX * files.flush_bytes)
		fail_msg("%llu bytes were written to files, and %llu rewritten",
				 (unsigned long long) files.flush_bytes,
				 (unsigned long long) files.compaction_write_bytes);
	au_pagestore_close(ps);
	au_store_memory_free(memory);
	testdir_remove(dir);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_load),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
