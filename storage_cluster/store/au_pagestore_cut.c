/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_pagestore_cut.c: cuts long chains of changes by page images, where a
 * generation becomes bundles: in the writer's thread, so that neither those
 * who read nor the one who applies log waits for it.
 *
 *   stored:  IMAGE p p p p p p │ this generation:  p p p p p p p p p
 *                              │ written:          p p IMAGE p p p p IMAGE p
 *
 * An image is put behind the change after which the chain counts more than
 * AU_CHAIN_UNITS_MAX, with that change's LSN (au_bundle.h, invariant 1).  So
 * a read as of any LSN finds an image within so many units, and the work is
 * bounded by the log: at most one image for so many units of changes.
 *
 * Besides, a record that fills a new page (COPY's) is stored as the page that
 * it makes: as long, but copied by its readers instead of being made again.
 *
 * Which pages are worth it the owner thread noted (AuPendEntry.units_max, an
 * estimate from counters that pages share); what is really stored is looked
 * up here.
 */
#include "store/au_pagestore_int.h"

#include <stdlib.h>

#include "common/au_page.h"

/* A page that was filled by as many bytes of operations is stored as it then
 * is: to make it anew would cost each of its readers as much as unpacking it. */
#define FLATTEN_FROM 2048

void
au_cut_start(AuCutter *c, AuPageStore *ps)
{
	memset(c, 0, sizeof(*c));
	c->ps = ps;
	c->ctx.db = ps->db;
	c->ctx.options = ps->read_options;
	c->ctx.error = c->error;
	c->ctx.error_len = sizeof(c->error);
}

/* The page as it is stored, before the generation's first change. */
static bool
find_base(AuCutter *c, const AuPendEntry *e)
{
	AuCollect	what = {
		AU_KS_PAGE, e->page, e->oldest->first_lsn - 1, 0, AU_LSN_MAX, false, 0
	};
	AuStatus	status = au_rc_collect_stored(&c->ctx, &what);
	bool		lengthy;

	c->units = 0;
	for (uint32_t i = 0; status == AU_OK && i + 1 < c->ctx.nrefs; i++)
		c->units += au_chain_units(c->ctx.refs[i].len);
	if (status == AU_OK)
		status = au_rc_build(&c->ctx, &what, c->page, &lengthy);
	au_rc_release(&c->ctx);
	return status == AU_OK;
}

/* Its readers complain about a page that cannot be built; here it is left. */
void
au_cut_page(AuCutter *c, const AuPendEntry *e)
{
	const AuPendItem *first = e->oldest->newest;

	c->known = false;
	c->wanted = e->keyspace == AU_KS_PAGE && e->units_max > AU_CHAIN_UNITS_MAX;
	if (!c->wanted)
		return;
	while (first->older != NULL)
		first = first->older;
	c->known = first->full || find_base(c, e);
}

static const uint8_t *
make_image(AuCutter *c, uint32_t *len)
{
	AuScratch  *s = malloc(sizeof(*s) + AU_IMAGE_OP_MAX);
	AuOps		ops;

	if (s == NULL)
		return NULL;
	s->next = c->images;
	c->images = s;
	au_ops_start(&ops, s->data, AU_IMAGE_OP_MAX);
	au_ops_image(&ops, c->page);
	*len = ops.len;
	return ops.overflow ? NULL : s->data;
}

void
au_cut_flatten(AuCutter *c, AuItem *item)
{
	const uint8_t *image;
	uint32_t	len;

	if (item->len < FLATTEN_FROM || item->ops[0] != AU_OP_INIT ||
		au_page_apply(c->page, item->ops, item->len, NULL) != AU_OK)
		return;
	image = make_image(c, &len);
	if (image == NULL)
		return;
	item->ops = image;
	item->len = len;
}

bool
au_cut_item(AuCutter *c, const AuItem *item, AuItem *image)
{
	bool		full = au_ops_self_contained(item->ops, item->len);

	if (full)
	{
		memset(c->page, 0, AU_PAGE_SIZE);
		c->known = true;
		c->units = 0;
	}
	else
		c->units += au_chain_units(item->len);
	if (!c->known)
		return false;
	if (au_page_apply(c->page, item->ops, item->len, NULL) != AU_OK)
	{
		c->known = false;
		return false;
	}
	au_page_set_lsn(c->page, item->lsn);
	if (c->units <= AU_CHAIN_UNITS_MAX)
		return false;
	image->lsn = item->lsn;
	image->ops = make_image(c, &image->len);
	if (image->ops == NULL)
		return false;
	c->units = 0;
	c->made++;
	return true;
}

void
au_cut_segment_done(AuCutter *c)
{
	while (c->images != NULL)
	{
		AuScratch  *next = c->images->next;

		free(c->images);
		c->images = next;
	}
}

/* What the counters of this page are to say.  Without memory they stay high,
 * and the page is looked at again next time. */
void
au_cut_page_done(AuCutter *c, const AuPendEntry *e)
{
	AuPageStore *ps = c->ps;

	if (!c->wanted || !c->known)
		return;
	if (ps->ncuts == ps->cuts_cap)
	{
		uint32_t	cap = ps->cuts_cap == 0 ? 256 : ps->cuts_cap * 2;
		AuChainCut *bigger = realloc(ps->cuts, cap * sizeof(*bigger));

		if (bigger == NULL)
			return;
		ps->cuts = bigger;
		ps->cuts_cap = cap;
	}
	ps->cuts[ps->ncuts++] = (AuChainCut)
	{
		(uint32_t) (au_page_hash(AU_KS_PAGE, &e->page) & (AU_CHAIN_SLOTS - 1)),
		e->units_last, (uint16_t) c->units
	};
}

void
au_cut_end(AuCutter *c)
{
	au_cut_segment_done(c);
	c->ps->cuts_made = c->made;
	au_rc_free(&c->ctx);
}

/* Owner thread, the generation is written: counters go down by what was cut. */
void
au_cut_written(AuPageStore *ps)
{
	for (uint32_t i = 0; i < ps->ncuts; i++)
	{
		const AuChainCut *cut = &ps->cuts[i];
		uint16_t   *chain = &ps->chain[cut->slot];
		uint16_t	since = *chain > cut->before ? (uint16_t) (*chain - cut->before) : 0;

		/* an image on a read may have been first */
		if (*chain >= cut->before)
			*chain = (uint16_t) (since + cut->after);
	}
	ps->ncuts = 0;
	ps->stats.images += ps->cuts_made;
	ps->cuts_made = 0;
}
