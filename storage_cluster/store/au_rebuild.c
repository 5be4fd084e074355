/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_rebuild.c: see au_rebuild.h.
 */
#include "store/au_rebuild.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

struct AuRebuild
{
	AuPageStoreOptions opt;
	char	   *dir;			/* opt.dir */
	AuSliceSet	slices;
	AuPageStore *ps;
	uint8_t		keyspace;		/* of what comes now; AU_KS_META: all is in */
	AuPlace		place;
	AuLsn		applied;
	AuLsn		restart;
	uint64_t	bytes;
};

AuStatus
au_rebuild_begin(AuRebuild **out, const AuPageStoreOptions *opt, const AuStorePosition *position,
				 const AuSliceSet *slices, char *err, size_t errlen)
{
	AuRebuild  *r = calloc(1, sizeof(*r));
	AuStatus	status = AU_NOMEM;

	*out = NULL;
	snprintf(err, errlen, "out of memory");
	if (r == NULL)
		return AU_NOMEM;
	r->opt = *opt;
	r->opt.dir = r->dir = strdup(opt->dir);
	r->slices = *slices;
	r->applied = position->applied;
	r->restart = position->restart;
	r->keyspace = AU_KS_SIZE;
	r->place = au_place_first(AU_KS_SIZE);
	if (r->dir != NULL)
		status = au_pagestore_found(&r->ps, &r->opt, position, err, errlen);
	if (status != AU_OK)
	{
		au_rebuild_end(r);
		return status;
	}
	*out = r;
	return AU_OK;
}

bool
au_rebuild_want(const AuRebuild *r, uint8_t *keyspace, AuPlace *place)
{
	*keyspace = r->keyspace;
	*place = r->place;
	return r->keyspace != AU_KS_META;
}

uint64_t
au_rebuild_bytes(const AuRebuild *r)
{
	return r->bytes;
}

static AuStatus
write_state(AuRebuild *r, bool persist, char *err, size_t errlen)
{
	bool		frozen = au_pagestore_freeze(r->ps, r->applied, r->restart);
	AuStatus	status;

	assert(frozen);
	(void) frozen;
	status = au_pagestore_write(r->ps, persist, err, errlen);
	au_pagestore_written(r->ps, status);
	return status;
}

/* All sizes are in: it is a store, with no slice yet. */
static AuStatus
begin_pages(AuRebuild *r, char *err, size_t errlen)
{
	AuStatus	status = au_pagestore_found_end(r->ps, err, errlen);

	if (status != AU_OK)
		return status;
	au_pagestore_close(r->ps);
	r->ps = NULL;
	if (!au_slices_any(&r->slices))
	{
		r->keyspace = AU_KS_META;
		return AU_OK;
	}
	status = au_pagestore_open(&r->ps, &r->opt, err, errlen);
	if (status != AU_OK)
		return status;
	if (!au_pagestore_slices_keep(r->ps, &r->slices))
	{
		snprintf(err, errlen, "the new page store takes no slices");
		return AU_INVALID;
	}
	r->keyspace = AU_KS_PAGE;
	r->place = au_place_first(AU_KS_PAGE);
	return write_state(r, false, err, errlen);
}

static AuStatus
end_pages(AuRebuild *r, char *err, size_t errlen)
{
	au_pagestore_import_finish(r->ps);
	r->keyspace = AU_KS_META;
	return write_state(r, true, err, errlen);
}

AuStatus
au_rebuild_take(AuRebuild *r, const uint8_t *chunk, size_t len, char *err, size_t errlen)
{
	AuImported	imported;
	AuStatus	status;

	assert(r->keyspace != AU_KS_META && r->ps != NULL);
	status = au_pagestore_import_write(r->ps, chunk, len, &imported, err, errlen);
	if (status != AU_OK)
		return status;
	au_pagestore_imported(r->ps, &imported);
	r->bytes += len;
	r->place = imported.place;
	if (!imported.done)
		return AU_OK;
	status = r->keyspace == AU_KS_SIZE ? begin_pages(r, err, errlen) : end_pages(r, err, errlen);
	/* that is not the chunk's fault: another node's would not help */
	return status == AU_CORRUPT || status == AU_INVALID ? AU_IO : status;
}

void
au_rebuild_end(AuRebuild *r)
{
	if (r == NULL)
		return;
	au_pagestore_close(r->ps);
	free(r->dir);
	free(r);
}
