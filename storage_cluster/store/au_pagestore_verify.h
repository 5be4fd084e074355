/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_pagestore_verify.h: looks at stored versions, a page's oldest first:
 * CRC and structure of each, that its changes apply to the page they are made
 * to, and that what comes out is a page.  For the check of a stopped store
 * and the scrubber of a running one.  Nothing outside store/ includes it.
 *
 * One thread at a time.
 */
#ifndef AU_PAGESTORE_VERIFY_H
#define AU_PAGESTORE_VERIFY_H

#include "store/au_bundle.h"

typedef struct AuVerify
{
	/* set by the user */
	void		(*problem) (void *ctx, const char *text);
	/* All versions of a page were seen: its newest chain in units (as
	 * AU_CHAIN_UNITS_MAX counts), bytes of its versions, and how many of them
	 * nobody may ask for any more.  NULL: not of interest. */
	void		(*page_done) (void *ctx, const AuPageId *page, uint32_t units,
							  uint64_t bytes, uint64_t garbage);
	void	   *ctx;
	AuLsn		horizon;

	/* counted */
	uint64_t	versions;
	uint64_t	pages;
	uint64_t	relations;
	uint64_t	problems;

	/* the page at hand */
	AuPageId	page;
	bool		any;
	bool		based;			/* a whole page was seen */
	bool		broken;			/* reported already */
	AuLsn		orphan;			/* of an item before the first base, 0: none */
	AuLsn		lsn;
	uint32_t	units;
	uint64_t	page_bytes;
	uint64_t	garbage;
	AuRelId		rel;			/* of sizes */
	bool		any_rel;
	uint8_t		bytes[AU_PAGE_SIZE];
} AuVerify;

/* The next version, in descending order of keys. */
void		au_verify_version(AuVerify *v, const uint8_t *key, size_t klen,
							  const uint8_t *value, size_t vlen);
/* No more versions of the page at hand will come. */
void		au_verify_end_page(AuVerify *v);

#endif							/* AU_PAGESTORE_VERIFY_H */
