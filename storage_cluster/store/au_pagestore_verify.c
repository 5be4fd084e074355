/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_pagestore_verify.c: see au_pagestore_verify.h.
 */
#include "store/au_pagestore_verify.h"

#include <stdio.h>

#include "common/au_page.h"
#include "store/au_pagestore_int.h"

static void
problem(AuVerify *v, const AuPageId *page, AuLsn lsn, const char *why)
{
	char		text[512];

	if (page->blk == AU_SIZE_BLOCK)
		snprintf(text, sizeof(text), "size of relation %u/%u/%u at %X/%X: %s", page->rel.spc,
				 page->rel.db, page->rel.rel, AU_LSN_ARGS(lsn), why);
	else
		snprintf(text, sizeof(text), "block %u of relation %u/%u/%u at %X/%X: %s", page->blk,
				 page->rel.spc, page->rel.db, page->rel.rel, AU_LSN_ARGS(lsn), why);
	v->problems++;
	v->problem(v->ctx, text);
}

/* Changes without the version they are made to. */
static void
report_orphan(AuVerify *v)
{
	if (v->orphan != 0)
		problem(v, &v->page, v->orphan, "its first version is missing");
	v->orphan = 0;
}

static void
verify_item(AuVerify *v, const AuItem *item)
{
	const char *why = NULL;
	bool		full = au_ops_self_contained(item->ops, item->len);

	v->units = full ? 0 : v->units + au_chain_units(item->len);
	if (v->broken && !full)
		return;
	if (full)
	{
		/* Compactions drop what lies below a base at or below the horizon,
		 * but not always all of it. */
		if (item->lsn > v->horizon)
			report_orphan(v);
		v->orphan = 0;
		v->based = true;
		v->broken = false;
		memset(v->bytes, 0, AU_PAGE_SIZE);
	}
	if (!v->based)
	{
		if (v->orphan == 0)
			v->orphan = item->lsn;
		return;
	}
	if (item->lsn < v->lsn)
		why = "its versions are out of order";
	else if (au_page_apply(v->bytes, item->ops, item->len, &why) != AU_OK)
		why = why ? why : "a change does not fit the page";
	else if (!au_page_valid(v->bytes, &why))
		why = why ? why : "the page's structure is wrong";
	if (why != NULL)
	{
		v->broken = true;
		problem(v, &v->page, item->lsn, why);
	}
	v->lsn = item->lsn;
}

/* Whether this key belongs to another page than the last one. */
static bool
new_page(const AuVerify *v, const uint8_t *key, size_t klen)
{
	AuPageId	page;
	AuLsn		lsn;
	uint8_t		ks;

	if (!v->any || !au_key_decode(key, klen, &ks, &page, &lsn))
		return true;
	return ks != AU_KS_PAGE || page.blk != v->page.blk || !au_rel_id_equal(&page.rel, &v->page.rel);
}

void
au_verify_end_page(AuVerify *v)
{
	if (!v->any)
		return;
	report_orphan(v);
	if (v->page_done != NULL)
		v->page_done(v->ctx, &v->page, v->units, v->page_bytes, v->garbage);
	v->any = v->based = v->broken = false;
	v->lsn = 0;
	v->units = 0;
	v->page_bytes = v->garbage = 0;
}

static void
begin(AuVerify *v, uint8_t keyspace, const AuPageId *page)
{
	if (keyspace == AU_KS_SIZE && (!v->any_rel || !au_rel_id_equal(&v->rel, &page->rel)))
	{
		v->any_rel = true;
		v->rel = page->rel;
		v->relations++;
	}
	if (keyspace == AU_KS_PAGE && !v->any)
	{
		v->any = true;
		v->page = *page;
		v->pages++;
	}
}

void
au_verify_version(AuVerify *v, const uint8_t *key, size_t klen,
				  const uint8_t *value, size_t vlen)
{
	AuPageId	page;
	AuLsn		lsn;
	uint8_t		ks;
	AuBundle	b;
	AuItem		item;
	size_t		pos = 0;
	const char *why;

	v->versions++;
	if (new_page(v, key, klen))
		au_verify_end_page(v);
	if (!au_key_decode(key, klen, &ks, &page, &lsn))
	{
		v->problems++;
		v->problem(v->ctx, "the page store holds an unknown key");
		return;
	}
	begin(v, ks, &page);
	if (au_bundle_parse(key, value, vlen, &b, &why) != AU_OK)
	{
		v->broken = ks == AU_KS_PAGE;
		problem(v, &page, lsn, why);
		return;
	}
	if (ks == AU_KS_PAGE)
	{
		if (b.self_from <= v->horizon)
			v->garbage = v->page_bytes;
		v->page_bytes += klen + vlen;
	}
	while (au_bundle_next(&b, &pos, &item))
	{
		AuSizeItem	size;

		if (ks == AU_KS_PAGE)
			verify_item(v, &item);
		else if (!au_size_item_decode(item.ops, item.len, &size))
			problem(v, &page, item.lsn, "the stored size is damaged");
	}
}
