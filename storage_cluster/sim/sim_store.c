/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_store.c: a page store that keeps every record and replays them for each
 * read; slow and obviously right.
 */
#include "sim/sim.h"

#include <stdlib.h>

#include "common/au_page.h"

AuStatus
sim_store_apply(SimStore *st, const AuWalRecord *rec)
{
	if (rec->kind != AU_WAL_OURS)
		return AU_OK;
	for (int i = 0; i < rec->nblocks; i++)
	{
		const AuWalBlock *b = &rec->blocks[i];

		if (st->n == st->cap)
		{
			st->cap = st->cap * 2 + 256;
			st->records = realloc(st->records, st->cap * sizeof(*st->records));
		}
		if (st->bytes_len + b->data_len > st->bytes_cap)
		{
			st->bytes_cap = (st->bytes_len + b->data_len) * 2 + 4096;
			st->bytes = realloc(st->bytes, st->bytes_cap);
		}
		if (st->records == NULL || st->bytes == NULL)
			abort();
		memcpy(st->bytes + st->bytes_len, b->data, b->data_len);
		st->records[st->n++] = (SimRecord)
		{
			rec->end, b->page.blk, b->data_len, st->bytes_len
		};
		st->bytes_len += b->data_len;
	}
	return AU_OK;
}

AuStatus
sim_store_read(const SimStore *st, uint32_t blk, AuLsn lsn, uint8_t *page)
{
	size_t		i = st->n;
	AuStatus	status;

	/* each record of a page begins it anew: the newest one is enough */
	while (i > 0 && (st->records[i - 1].end > lsn || st->records[i - 1].blk != blk))
		i--;
	memset(page, 0, AU_PAGE_SIZE);
	if (i == 0)
		return AU_NOT_FOUND;
	status = au_page_apply(page, st->bytes + st->records[i - 1].ops, st->records[i - 1].len, NULL);
	au_page_set_lsn(page, st->records[i - 1].end);
	return status;
}

void
sim_store_cut(SimStore *st, AuLsn lsn)
{
	while (st->n > 0 && st->records[st->n - 1].end > lsn)
		st->bytes_len = st->records[--st->n].ops;
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
sim_store_free(SimStore *st)
{
	free(st->records);
	free(st->bytes);
	memset(st, 0, sizeof(*st));
}
