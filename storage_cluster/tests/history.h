/* SPDX-License-Identifier: Apache-2.0 */
/*
 * history.h: one relation whose blocks change at random in a page store, and
 * what each record left behind, so that any (block, LSN) can be compared.
 * Include after cmocka.h.
 */
#ifndef AU_TEST_HISTORY_H
#define AU_TEST_HISTORY_H

#include <stdlib.h>

#include "common/au_crc32c.h"
#include "common/au_page.h"
#include "tests/teststore.h"

#define HISTORY_BLOCKS 8
#define HISTORY_ITEM 4000		/* bytes of the one item that changes */
#define HISTORY_START ((AuLsn) 1000)
#define HISTORY_STEP 16			/* between the ends of two records */
#define HISTORY_RECORDS 4000

static const AuRelId history_rel = {1663, 5, 16384, 0};

/* What each record left behind: block and CRC of the whole page. */
static uint32_t history_block[HISTORY_RECORDS];
static uint32_t history_crc[HISTORY_RECORDS];

static inline AuLsn
history_lsn(int i)
{
	return HISTORY_START + (AuLsn) (i + 1) * HISTORY_STEP;
}

/* Record i: one change of one block, on the model's page and in the store. */
static inline void
history_change(AuPageStore *ps, int i, uint8_t (*model)[AU_PAGE_SIZE])
{
	static AuWalRecord w;
	static const uint8_t item[HISTORY_ITEM];
	uint8_t		memory[HISTORY_ITEM + 2048];
	uint8_t		bytes[200];
	uint32_t	blk = (uint32_t) rand() % HISTORY_BLOCKS;
	uint16_t	len = (uint16_t) (1 + rand() % 200);
	AuOps		ops;

	au_ops_start(&ops, memory, sizeof(memory));
	for (int k = 0; k < len; k++)
		bytes[k] = (uint8_t) rand();
	if (au_page_is_new(model[blk]) || rand() % 500 == 0)
	{
		au_ops_init(&ops, 0);
		au_ops_add(&ops, 1, HISTORY_ITEM, item);
	}
	au_ops_patch(&ops, (uint16_t) (AU_PAGE_SIZE - HISTORY_ITEM + rand() % (HISTORY_ITEM - 200)),
				 len, bytes);

	memset(&w, 0, sizeof(w));
	w.kind = AU_WAL_OURS;
	w.lsn = history_lsn(i) - HISTORY_STEP;
	w.end = history_lsn(i);
	w.nblocks = 1;
	w.blocks[0].page = (AuPageId) {history_rel, blk};
	w.blocks[0].data = ops.data;
	w.blocks[0].data_len = ops.len;
	assert_int_equal(au_page_apply(model[blk], ops.data, ops.len, NULL), AU_OK);
	au_page_set_lsn(model[blk], w.end);
	history_block[i] = blk;
	history_crc[i] = au_crc32c(0, model[blk], AU_PAGE_SIZE);
	if (au_pagestore_apply(ps, &w) != AU_OK)
		fail_msg("apply: %s", au_pagestore_error(ps));
	au_pagestore_set_applied(ps, w.end);
}

/* The record that made the block what it is as of record i; -1: none. */
static inline int
history_maker(uint32_t blk, int i)
{
	while (i >= 0 && history_block[i] != blk)
		i--;
	return i;
}

#endif							/* AU_TEST_HISTORY_H */
