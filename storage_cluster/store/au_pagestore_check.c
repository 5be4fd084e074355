/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_pagestore_check.c: every version of a stopped store, through RocksDB
 * opened for reading only.
 */
#include <stdio.h>
#include <stdlib.h>

#include "store/au_pagestore_int.h"
#include "store/au_pagestore_verify.h"

/* Records that are no versions.  false: it is one. */
static bool
check_record(AuPageStore *ps, AuVerify *v, AuPageStoreCheck *out, const uint8_t *key, size_t klen,
			 const uint8_t *value, size_t vlen)
{
	AuStoreMeta meta;
	const char *why = NULL;

	if (klen == AU_TIMEMAP_KEY_LEN && memcmp(key, AU_TIMEMAP_KEY, klen) == 0)
	{
		if (au_timemap_decode(value, vlen, &ps->times) != AU_OK)
			why = "the map of times is damaged";
	}
	else if (klen == AU_META_KEY_LEN && memcmp(key, AU_META_KEY, klen) == 0)
	{
		if (au_ps_meta_decode(value, vlen, &meta, &why) == AU_OK)
		{
			out->applied = meta.applied;
			out->restart = meta.restart;
		}
	}
	else if (klen == AU_SLICES_KEY_LEN && memcmp(key, AU_SLICES_KEY, klen) == 0)
	{
		if (!au_slices_decode(value, vlen, &ps->slices.now))
			why = "the record of kept slices is damaged";
	}
	else if (klen == AU_IMPORT_KEY_LEN && memcmp(key, AU_IMPORT_KEY, klen) == 0)
	{
		if (!au_import_decode(value, vlen, &ps->slices.import))
			why = "the record of the import is damaged";
	}
	else
		return false;
	if (why != NULL)
	{
		v->problems++;
		v->problem(v->ctx, why);
	}
	return true;
}

/* Of a slice that comes or goes some versions may be there only. */
static bool
is_whole(const AuPageStore *ps, const uint8_t *key, size_t klen)
{
	AuPageId	page;
	AuLsn		lsn;
	uint8_t		ks;

	return !au_key_decode(key, klen, &ks, &page, &lsn) || ks != AU_KS_PAGE ||
		au_slices_readable(&ps->slices.now, &page);
}

/* Backwards through all keys: versions of a page then come oldest first. */
static AuStatus
check_all(AuPageStore *ps, AuVerify *v, AuPageStoreCheck *out, char *err, size_t errlen)
{
	rocksdb_iterator_t *it = rocksdb_create_iterator(ps->db, ps->scan_options);
	char	   *dberr = NULL;
	AuStoreMeta at_start;
	AuStatus	status = au_ps_meta_read(ps->db, ps->scan_options, &at_start, err, errlen);

	if (status == AU_OK)
		v->horizon = at_start.horizon;
	(void) au_slices_read(ps->db, ps->scan_options, &ps->slices.now, err, errlen);
	for (rocksdb_iter_seek_to_last(it); rocksdb_iter_valid(it); rocksdb_iter_prev(it))
	{
		size_t		klen,
					vlen;
		const uint8_t *key = (const uint8_t *) rocksdb_iter_key(it, &klen);
		const uint8_t *value = (const uint8_t *) rocksdb_iter_value(it, &vlen);

		if (!check_record(ps, v, out, key, klen, value, vlen) && is_whole(ps, key, klen))
			au_verify_version(v, key, klen, value, vlen);
	}
	au_verify_end_page(v);
	rocksdb_iter_get_error(it, &dberr);
	rocksdb_iter_destroy(it);
	out->versions = v->versions;
	out->pages = v->pages;
	out->relations = v->relations;
	out->problems = v->problems;
	if (dberr == NULL)
		return AU_OK;
	snprintf(err, errlen, "could not read the page store: %s", dberr);
	rocksdb_free(dberr);
	return AU_CORRUPT;
}

AuStatus
au_pagestore_check(const char *dir, void (*fn) (void *ctx, const char *problem),
				   void *ctx, AuPageStoreCheck *out, char *err, size_t errlen)
{
	AuPageStore *ps = calloc(1, sizeof(*ps));
	AuVerify   *v = calloc(1, sizeof(*v));
	char	   *dberr = NULL;
	AuStatus	status = AU_NOMEM;

	memset(out, 0, sizeof(*out));
	err[0] = '\0';
	if (ps != NULL && v != NULL)
	{
		au_ps_options(ps, NULL);
		ps->db = rocksdb_open_for_read_only(ps->options, dir, 0, &dberr);
		if (dberr == NULL)
		{
			v->problem = fn;
			v->ctx = ctx;
			status = check_all(ps, v, out, err, errlen);
			rocksdb_close(ps->db);
		}
		else
		{
			snprintf(err, errlen, "could not open page store \"%s\": %s", dir, dberr);
			rocksdb_free(dberr);
			status = AU_CORRUPT;
		}
		au_ps_free_options(ps);
	}
	free(v);
	free(ps);
	return status;
}
