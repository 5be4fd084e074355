/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_store.c: a page store that keeps every record and replays them for each
 * read; slow and obviously right.
 */
#include "sim/sim.h"

#include <stdlib.h>

#include "common/au_page.h"

void
sim_store_add(SimStore *st, AuLsn end, uint32_t blk, const uint8_t *ops, uint32_t len)
{
	if (st->n == st->cap)
	{
		st->cap = st->cap * 2 + 256;
		st->records = realloc(st->records, st->cap * sizeof(*st->records));
	}
	if (st->bytes_len + len > st->bytes_cap)
	{
		st->bytes_cap = (st->bytes_len + len) * 2 + 4096;
		st->bytes = realloc(st->bytes, st->bytes_cap);
	}
	if (st->records == NULL || st->bytes == NULL)
		abort();
	memcpy(st->bytes + st->bytes_len, ops, len);
	st->records[st->n++] = (SimRecord)
	{
		end, blk, len, st->bytes_len, false
	};
	st->bytes_len += len;
}

AuStatus
sim_store_apply(SimStore *st, const AuWalRecord *rec)
{
	if (rec->kind != AU_WAL_OURS)
		return AU_OK;
	for (int i = 0; i < rec->nblocks; i++)
		sim_store_add(st, rec->end, sim_place(rec->blocks[i].page.blk), rec->blocks[i].data,
					  rec->blocks[i].data_len);
	return AU_OK;
}

AuStatus
sim_store_read(const SimStore *st, uint32_t blk, AuLsn lsn, uint8_t *page)
{
	size_t		i = st->n;
	AuStatus	status;

	/* each record of a page begins it anew: the newest one is enough */
	if (st->wrong[blk] == SIM_STALE && lsn >= st->wrong_from[blk])
		lsn = st->wrong_from[blk] - 1;
	while (i > 0 && (st->records[i - 1].end > lsn || st->records[i - 1].blk != blk))
		i--;
	memset(page, 0, AU_PAGE_SIZE);
	if (i == 0)
		return AU_NOT_FOUND;
	if (st->records[i - 1].rot)
		return AU_CORRUPT;
	status = au_page_apply(page, st->bytes + st->records[i - 1].ops, st->records[i - 1].len, NULL);
	au_page_set_lsn(page, st->records[i - 1].end);
	if (st->wrong[blk] == SIM_WRONG && lsn >= st->wrong_from[blk])
		page[AU_PAGE_SIZE - 1] ^= 0x55;
	return status;
}

void
sim_store_cut(SimStore *st, AuLsn lsn)
{
	while (st->n > 0 && st->records[st->n - 1].end > lsn)
		st->bytes_len = st->records[--st->n].ops;
	for (uint32_t blk = 0; blk < SIM_BLOCKS; blk++)
		if (st->wrong_from[blk] > lsn)
			st->wrong[blk] = SIM_SOUND;
}

void
sim_store_copy(SimStore *to, const SimStore *from, AuLsn upto)
{
	sim_store_free(to);
	*to = *from;
	to->cap = from->n + 1;
	to->bytes_cap = from->bytes_len + 1;
	to->records = malloc(to->cap * sizeof(*to->records));
	to->bytes = malloc(to->bytes_cap);
	if (to->records == NULL || to->bytes == NULL)
		abort();
	memcpy(to->records, from->records, from->n * sizeof(*to->records));
	memcpy(to->bytes, from->bytes, from->bytes_len);
	sim_store_cut(to, upto);
}

void
sim_store_take(SimStore *to, const SimStore *from, size_t i)
{
	const SimRecord *r = &from->records[i];

	sim_store_add(to, r->end, r->blk, from->bytes + r->ops, r->len);
	to->records[to->n - 1].rot = r->rot;
}

void
sim_store_merge(SimStore *st, SimStore *more)
{
	SimStore	both = {0};
	size_t		i = 0;

	for (uint32_t blk = 0; blk < SIM_BLOCKS; blk++)
	{
		const SimStore *from = st->wrong[blk] != SIM_SOUND ? st : more;

		both.wrong[blk] = from->wrong[blk];
		both.wrong_from[blk] = from->wrong_from[blk];
	}
	for (size_t k = 0; k < more->n; k++)
	{
		while (i < st->n && st->records[i].end < more->records[k].end)
			sim_store_take(&both, st, i++);
		sim_store_take(&both, more, k);
	}
	while (i < st->n)
		sim_store_take(&both, st, i++);
	sim_store_free(st);
	sim_store_free(more);
	*st = both;
}

void
sim_store_split(SimStore *st, const bool places[SIM_BLOCKS], SimStore *gone)
{
	SimStore	left = {0};

	memset(gone, 0, sizeof(*gone));
	for (size_t i = 0; i < st->n; i++)
		sim_store_take(places[st->records[i].blk] ? gone : &left, st, i);
	for (uint32_t blk = 0; blk < SIM_BLOCKS; blk++)
	{
		SimStore   *to = places[blk] ? gone : &left;

		to->wrong[blk] = st->wrong[blk];
		to->wrong_from[blk] = st->wrong_from[blk];
	}
	sim_store_free(st);
	*st = left;
}

void
sim_store_free(SimStore *st)
{
	free(st->records);
	free(st->bytes);
	memset(st, 0, sizeof(*st));
}
