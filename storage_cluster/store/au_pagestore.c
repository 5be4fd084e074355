/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_pagestore.c: opening, taking records, writing generations.  Reading and
 * garbage collection have their own files; au_pagestore.h has the contract
 * and the argument why a crash loses nothing.
 */
#include "store/au_pagestore_int.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/au_crc32c.h"
#include "common/au_page.h"
#include "store/au_dbread.h"

/* So many entries of the map of times in the retention. */
#define TIMES_APART 1024

/* RocksDB's LOG gets its options at opening and nothing later: Debian's build
 * has assertions, and one of them ends the process when a full disk did not
 * take a line and another follows.  What fails is returned, and logged by the
 * node. */
#define LOG_HEADER_ONLY 5

/* So many files that RocksDB never waits because of them. */
#define AU_NEVER 1000000000

/*
 * The shape of the levels.  Each file of level 0 has keys of all key spaces,
 * since a generation has its position and sizes beside its pages; so when
 * level 0 is merged into the first level below, all of that is rewritten, and
 * it must be no larger than what comes in.  Each level below is ten times the
 * one above and has files twice as large, so that a large store has few and
 * what one table was loaded with moves down on its own.
 */
#define FILE_BYTES_MIN ((uint64_t) 4 << 20)
#define FILE_BYTES_MAX ((uint64_t) 64 << 20)
#define FILES_IN_MEMORY 6		/* so many are as large as what a volume may have in memory */
#define FILE_GROWTH 2
#define FILES_OF_FIRST_LEVEL 2

/* ---- meta record ------------------------------------------------------ */

void
au_ps_meta_encode(uint8_t *p, const AuStoreMeta *m)
{
	au_put_u32(p, AU_META_MAGIC);
	au_put_u32(p + 4, AU_META_VERSION);
	au_put_u64(p + 8, m->system_identifier);
	au_put_u64(p + 16, m->applied);
	au_put_u64(p + 24, m->restart);
	au_put_u64(p + 32, m->horizon);
	au_put_u64(p + 40, m->gc_done);
	au_put_u32(p + 48, au_crc32c(0, p, 48));
}

AuStatus
au_ps_meta_decode(const uint8_t *p, size_t len, AuStoreMeta *m, const char **why)
{
	*why = "its position record is damaged";
	if (len < 8 || au_get_u32(p) != AU_META_MAGIC)
		return AU_CORRUPT;
	*why = "it was written by a newer version of aurora_storaged";
	if (au_get_u32(p + 4) != AU_META_VERSION)
		return AU_UNSUPPORTED;
	*why = "its position record is damaged";
	if (len != AU_META_LEN || au_get_u32(p + 48) != au_crc32c(0, p, 48))
		return AU_CORRUPT;
	m->system_identifier = au_get_u64(p + 8);
	m->applied = au_get_u64(p + 16);
	m->restart = au_get_u64(p + 24);
	m->horizon = au_get_u64(p + 32);
	m->gc_done = au_get_u64(p + 40);
	if (m->restart > m->applied)
		return AU_CORRUPT;
	*why = NULL;
	return AU_OK;
}

AuStatus
au_ps_db_status(const char *dberr)
{
	if (strstr(dberr, "No space") != NULL)
		return AU_FULL;
	return strstr(dberr, "Corruption") != NULL ? AU_CORRUPT : AU_IO;
}

/* AU_NOT_FOUND: none yet. */
AuStatus
au_ps_meta_read(rocksdb_t *db, rocksdb_readoptions_t *ro, AuStoreMeta *m, char *err, size_t errlen)
{
	char	   *dberr = NULL;
	size_t		len = 0;
	char	   *value = rocksdb_get(db, ro, AU_META_KEY, AU_META_KEY_LEN, &len, &dberr);
	const char *why;
	AuStatus	status;

	if (dberr != NULL)
	{
		snprintf(err, errlen, "could not read the page store's position: %s", dberr);
		status = au_ps_db_status(dberr);
		rocksdb_free(dberr);
		return status;
	}
	if (value == NULL)
		return AU_NOT_FOUND;
	status = au_ps_meta_decode((const uint8_t *) value, len, m, &why);
	if (status != AU_OK)
		snprintf(err, errlen, "could not use the page store: %s", why);
	rocksdb_free(value);
	return status;
}

/* ---- options ---------------------------------------------------------- */

/* Files of the first level follow the memtables; each costs a descriptor, and
 * a place in memory.  Without a node's memory, as in tests, they are as small
 * as the memtables. */
static uint64_t
file_size(const AuPageStoreOptions *opt)
{
	uint64_t	size = opt->write_buffer_bytes;

	if (opt->memory != NULL)
	{
		size /= FILES_IN_MEMORY;
		if (size < FILE_BYTES_MIN)
			size = FILE_BYTES_MIN;
	}
	return size > FILE_BYTES_MAX ? FILE_BYTES_MAX : size;
}

/* With opt NULL: for a read-only check. */
void
au_ps_options(AuPageStore *ps, const AuPageStoreOptions *opt)
{
	rocksdb_options_t *o = ps->options = rocksdb_options_create();
	rocksdb_block_based_table_options_t *t = ps->table_options =
		rocksdb_block_based_options_create();

	rocksdb_options_set_create_if_missing(o, opt != NULL);
	rocksdb_options_set_paranoid_checks(o, 1);
	rocksdb_options_set_max_open_files(o, 1000);
	rocksdb_options_set_max_background_jobs(o, 2);
	rocksdb_options_set_bytes_per_sync(o, 1 << 20);
	rocksdb_options_set_manifest_preallocation_size(o, 64 << 10);
	rocksdb_options_set_keep_log_file_num(o, 4);
	rocksdb_options_set_info_log_level(o, LOG_HEADER_ONLY);
	rocksdb_options_set_level_compaction_dynamic_level_bytes(o, 1);
	rocksdb_options_set_compression(o, rocksdb_lz4_compression);
	if (opt != NULL && opt->cold_zstd)
		rocksdb_options_set_bottommost_compression(o, rocksdb_zstd_compression);
	/* all versions of a page share a prefix; a bloom filter on it lets a read
	 * skip the files that hold none of them */
	rocksdb_options_set_prefix_extractor(o, rocksdb_slicetransform_create_fixed_prefix(AU_KEY_PAGE_LEN));
	rocksdb_options_set_memtable_prefix_bloom_size_ratio(o, 0.05);

	rocksdb_block_based_options_set_block_size(t, 16 * 1024);
	rocksdb_block_based_options_set_format_version(t, 5);
	rocksdb_block_based_options_set_filter_policy(t, rocksdb_filterpolicy_create_bloom_full(10));
	rocksdb_block_based_options_set_whole_key_filtering(t, 0);
	/* Compressed well, a file of 64 MB holds a gigabyte of pages.  With keys
	 * abbreviated its index stays below 500 kB; otherwise it is three times
	 * as long and a burden to the block cache (au_memory.c).  An index in
	 * parts would be lighter, but with it test_diskfull found the daemon
	 * dead more often, of an assertion in RocksDB about a failed file. */
	rocksdb_block_based_options_set_index_block_restart_interval(t, 16);
	if (opt != NULL)
	{
		au_ps_filter_install(ps);
		rocksdb_options_enable_statistics(o);
		rocksdb_options_set_write_buffer_size(o, opt->write_buffer_bytes);
		rocksdb_options_set_max_write_buffer_number(o, 3);
		/* au_pagestore_write.c does the waiting; RocksDB's could be for ever */
		rocksdb_options_set_level0_slowdown_writes_trigger(o, AU_NEVER);
		rocksdb_options_set_level0_stop_writes_trigger(o, AU_NEVER);
		rocksdb_options_set_soft_pending_compaction_bytes_limit(o, 0);
		rocksdb_options_set_hard_pending_compaction_bytes_limit(o, 0);
		rocksdb_options_set_target_file_size_base(o, file_size(opt));
		rocksdb_options_set_target_file_size_multiplier(o, FILE_GROWTH);
		rocksdb_options_set_max_bytes_for_level_base(o, file_size(opt) * FILES_OF_FIRST_LEVEL);
		rocksdb_options_set_level0_file_num_compaction_trigger(o, AU_LEVEL0_MERGED);
		if (opt->memory != NULL)
		{
			rocksdb_block_based_options_set_block_cache(t, opt->memory->cache);
			rocksdb_block_based_options_set_cache_index_and_filter_blocks(t, 1);
			rocksdb_block_based_options_set_pin_l0_filter_and_index_blocks_in_cache(t, 1);
		}
	}
	rocksdb_options_set_block_based_table_factory(o, t);

	ps->write_options = rocksdb_writeoptions_create();
	rocksdb_writeoptions_disable_WAL(ps->write_options, 1);
	ps->gc_write_options = rocksdb_writeoptions_create();
	rocksdb_writeoptions_disable_WAL(ps->gc_write_options, 1);
	rocksdb_writeoptions_set_no_slowdown(ps->gc_write_options, 1);
	ps->read_options = au_db_read_options();
	rocksdb_readoptions_set_prefix_same_as_start(ps->read_options, 1);
	ps->cached_options = au_db_read_options();
	rocksdb_readoptions_set_prefix_same_as_start(ps->cached_options, 1);
	rocksdb_readoptions_set_read_tier(ps->cached_options, AU_TIER_CACHE);
	ps->run_options = au_db_read_options();
	rocksdb_readoptions_set_total_order_seek(ps->run_options, 1);
	rocksdb_readoptions_set_readahead_size(ps->run_options, AU_READ_RUN_AHEAD);
	ps->filling_run_options = au_db_read_options();
	rocksdb_readoptions_set_total_order_seek(ps->filling_run_options, 1);
	rocksdb_readoptions_set_readahead_size(ps->filling_run_options, AU_READ_RUN_AHEAD);
	rocksdb_readoptions_set_fill_cache(ps->run_options, 0);
	ps->scan_options = au_db_read_options();
	rocksdb_readoptions_set_total_order_seek(ps->scan_options, 1);
	rocksdb_readoptions_set_fill_cache(ps->scan_options, 0);
	ps->persisted_options = au_db_read_options();
	rocksdb_readoptions_set_read_tier(ps->persisted_options, AU_TIER_PERSISTED);
}

void
au_ps_free_options(AuPageStore *ps)
{
	rocksdb_readoptions_destroy(ps->persisted_options);
	rocksdb_readoptions_destroy(ps->scan_options);
	rocksdb_readoptions_destroy(ps->filling_run_options);
	rocksdb_readoptions_destroy(ps->run_options);
	rocksdb_readoptions_destroy(ps->cached_options);
	rocksdb_readoptions_destroy(ps->read_options);
	rocksdb_writeoptions_destroy(ps->gc_write_options);
	rocksdb_writeoptions_destroy(ps->write_options);
	rocksdb_block_based_options_destroy(ps->table_options);
	rocksdb_options_destroy(ps->options);
}

void
au_ps_drop_iter(AuPageStore *ps)
{
	au_rc_use(&ps->own, ps->read_options);
}

/* ---- relations -------------------------------------------------------- */

AuRel *
au_ps_rel(AuPageStore *ps, const AuRelId *id, bool make)
{
	AuRel	   *rel;

	if (ps->last_rel != NULL && au_rel_id_equal(&ps->last_rel_id, id))
		return ps->last_rel;
	rel = make ? au_relmap_enter(&ps->rels, id) : au_relmap_find(&ps->rels, id);
	if (rel != NULL)
	{
		ps->last_rel = rel;
		ps->last_rel_id = *id;
	}
	return rel;
}

void
au_ps_next_relation_key(uint8_t *key, uint8_t keyspace, const AuRelId *rel)
{
	AuPageId	last = {.rel = *rel,.blk = AU_SIZE_BLOCK};

	/* LSN 0 sorts last and is nobody's */
	au_key_encode(key, keyspace, &last, 0);
}

/* The events of a relation, newest first, by following prev_event. */
static AuStatus
load_events(AuPageStore *ps, AuRel *rel, AuLsn event_lsn)
{
	AuPageId	id = {.rel = rel->id,.blk = AU_SIZE_BLOCK};
	AuRelEvent *events = NULL;
	uint32_t	n = 0;
	AuStatus	status = AU_OK;

	while (event_lsn > ps->meta.gc_done && status == AU_OK)
	{
		AuSizeItem	item;
		AuRelEvent *bigger;
		uint32_t	bundles;

		status = au_ps_collect(ps, AU_KS_SIZE, &id, event_lsn, 0, &bundles);
		if (status == AU_OK &&
			(ps->own.nrefs == 0 || ps->own.refs[0].lsn != event_lsn ||
			 !au_size_item_decode(ps->own.refs[0].ops, ps->own.refs[0].len, &item) ||
			 item.kind == AU_SIZE_EXTEND || item.prev_event >= event_lsn))
		{
			snprintf(ps->error, sizeof(ps->error),
					 "the history of relation %u/%u/%u is damaged at %X/%X",
					 rel->id.spc, rel->id.db, rel->id.rel, AU_LSN_ARGS(event_lsn));
			status = AU_CORRUPT;
		}
		au_ps_release(ps);
		if (status != AU_OK)
			break;
		bigger = realloc(events, (n + 1) * sizeof(*events));
		if (bigger == NULL)
		{
			status = AU_NOMEM;
			break;
		}
		events = bigger;
		events[n++] = (AuRelEvent)
		{
			event_lsn, item.cut, item.kind
		};
		event_lsn = item.prev_event;
	}
	while (status == AU_OK && n > 0)
	{
		n--;
		if (!au_rel_add_event(rel, &events[n]) || !au_ps_gc_push(ps, &rel->id, &events[n]))
			status = AU_NOMEM;
	}
	free(events);
	return status;
}

static AuStatus
load_relation(AuPageStore *ps, const AuRelId *id)
{
	AuPageId	page = {.rel = *id,.blk = AU_SIZE_BLOCK};
	AuSizeItem	item;
	AuRel	   *rel;
	uint32_t	bundles;
	AuStatus	status;

	status = au_ps_collect(ps, AU_KS_SIZE, &page, AU_LSN_MAX, 0, &bundles);
	if (status == AU_OK &&
		(ps->own.nrefs == 0 || !au_size_item_decode(ps->own.refs[0].ops, ps->own.refs[0].len, &item)))
	{
		snprintf(ps->error, sizeof(ps->error), "the size of relation %u/%u/%u is damaged",
				 id->spc, id->db, id->rel);
		status = AU_CORRUPT;
	}
	if (status != AU_OK)
	{
		au_ps_release(ps);
		return status;
	}
	rel = au_relmap_enter(&ps->rels, id);
	if (rel != NULL)
	{
		rel->nblocks = item.nblocks;
		rel->size_lsn = ps->own.refs[0].lsn;
		rel->last_event = item.kind == AU_SIZE_EXTEND ? item.prev_event : rel->size_lsn;
	}
	au_ps_release(ps);
	return rel == NULL ? AU_NOMEM : load_events(ps, rel, rel->last_event);
}

/* Sizes and events of all relations. */
static AuStatus
load_relations(AuPageStore *ps)
{
	rocksdb_iterator_t *it = rocksdb_create_iterator(ps->db, ps->scan_options);
	uint8_t		seek[AU_KEY_LEN] = {AU_KS_SIZE};
	AuStatus	status = AU_OK;
	char	   *dberr = NULL;

	rocksdb_iter_seek(it, (const char *) seek, 1);
	while (status == AU_OK && rocksdb_iter_valid(it))
	{
		size_t		klen;
		const uint8_t *key = (const uint8_t *) rocksdb_iter_key(it, &klen);
		AuPageId	page;
		AuLsn		lsn;
		uint8_t		ks;

		if (!au_key_decode(key, klen, &ks, &page, &lsn) || ks != AU_KS_SIZE)
		{
			snprintf(ps->error, sizeof(ps->error), "the page store holds an unknown key");
			status = AU_CORRUPT;
			break;
		}
		status = load_relation(ps, &page.rel);
		au_ps_next_relation_key(seek, AU_KS_SIZE, &page.rel);
		rocksdb_iter_seek(it, (const char *) seek, AU_KEY_LEN);
	}
	rocksdb_iter_get_error(it, &dberr);
	if (dberr != NULL)
	{
		snprintf(ps->error, sizeof(ps->error), "%s", dberr);
		status = au_ps_db_status(dberr);
		rocksdb_free(dberr);
	}
	rocksdb_iter_destroy(it);
	if (status == AU_OK)
		au_ps_gc_sort(ps);
	return status;
}

/* ---- open and close --------------------------------------------------- */

/* The map of times, if there is one and it is wanted. */
static AuStatus
load_times(AuPageStore *ps, char *err, size_t errlen)
{
	char	   *dberr = NULL;
	size_t		len = 0;
	char	   *value;
	AuStatus	status = AU_OK;

	if (ps->retention_us == 0)
		return AU_OK;
	value = rocksdb_get(ps->db, ps->scan_options, AU_TIMEMAP_KEY, AU_TIMEMAP_KEY_LEN, &len, &dberr);
	if (dberr != NULL)
	{
		snprintf(err, errlen, "could not read the page store's map of times: %s", dberr);
		status = au_ps_db_status(dberr);
		rocksdb_free(dberr);
		return status;
	}
	if (value != NULL && au_timemap_decode((const uint8_t *) value, len, &ps->times) != AU_OK)
	{
		snprintf(err, errlen, "the page store's map of times is damaged");
		status = AU_CORRUPT;
	}
	rocksdb_free(value);
	return status;
}

static AuStatus
load(AuPageStore *ps, const AuPageStoreOptions *opt, char *err, size_t errlen)
{
	AuStatus	status = au_ps_meta_read(ps->db, ps->scan_options, &ps->meta, err, errlen);

	if (status == AU_OK || status == AU_NOT_FOUND)
	{
		AuStatus	slices = au_slices_load(ps, status == AU_OK, err, errlen);

		if (slices != AU_OK)
			return slices;
	}
	if (status == AU_NOT_FOUND)
	{
		ps->meta = (AuStoreMeta)
		{
			.system_identifier = opt->system_identifier,
			.applied = opt->start_lsn,
			.restart = opt->start_lsn,
			.horizon = opt->start_lsn
		};
		status = AU_OK;
	}
	if (status != AU_OK)
		return status;
	if (ps->meta.system_identifier != opt->system_identifier)
	{
		snprintf(err, errlen, "the page store belongs to system identifier %" PRIu64
				 ", not %" PRIu64, ps->meta.system_identifier, opt->system_identifier);
		return AU_REFUSED;
	}
	ps->persisted = ps->persisted_new = ps->written = ps->meta;
	au_ps_filter_set_horizon(ps, ps->persisted.horizon);
	ps->applied_at_open = ps->last_change = ps->applied = ps->meta.applied;
	status = load_times(ps, err, errlen);
	if (status != AU_OK)
		return status;
	status = load_relations(ps);
	if (status != AU_OK)
		snprintf(err, errlen, "could not load the page store: %s", ps->error);
	return status;
}

AuStatus
au_pagestore_open(AuPageStore **out, const AuPageStoreOptions *opt, char *err, size_t errlen)
{
	AuPageStore *ps = calloc(1, sizeof(*ps));
	char	   *dberr = NULL;
	AuStatus	status = AU_NOMEM;

	*out = NULL;
	snprintf(err, errlen, "out of memory");
	if (ps == NULL)
		return AU_NOMEM;
	pthread_mutex_init(&ps->compaction_lock, NULL);
	au_ps_options(ps, opt);
	ps->memory = opt->memory;
	ps->pending_max = opt->pending_bytes;
	ps->retention = opt->retention_bytes;
	ps->retention_us = (int64_t) opt->retention_us;
	ps->start_lsn = opt->start_lsn;
	ps->own.error = ps->error;
	ps->own.error_len = sizeof(ps->error);
	ps->current = au_pending_new();
	ps->frozen = au_pending_new();
	ps->spare = au_pending_new();
	ps->chain = malloc(AU_CHAIN_SLOTS * sizeof(*ps->chain));
	for (uint32_t i = 0; ps->chain != NULL && i < AU_CHAIN_SLOTS; i++)
		ps->chain[i] = AU_CHAIN_UNKNOWN;
	if (!au_db_is_whole(opt->dir, ps->error, sizeof(ps->error)))
	{
		snprintf(err, errlen, "could not open page store \"%s\": %s", opt->dir, ps->error);
		status = AU_CORRUPT;
	}
	else if (au_relmap_init(&ps->rels) && ps->current != NULL && ps->frozen != NULL &&
			 ps->spare != NULL && ps->chain != NULL)
	{
		ps->db = rocksdb_open(ps->options, opt->dir, &dberr);
		if (dberr != NULL)
		{
			snprintf(err, errlen, "could not open page store \"%s\": %s", opt->dir, dberr);
			status = au_ps_db_status(dberr);
			rocksdb_free(dberr);
			ps->db = NULL;
		}
		else
		{
			ps->own.db = ps->db;
			status = load(ps, opt, err, errlen);
		}
	}
	if (status != AU_OK)
	{
		au_pagestore_close(ps);
		return status;
	}
	err[0] = '\0';
	*out = ps;
	return AU_OK;
}

void
au_pagestore_close(AuPageStore *ps)
{
	if (ps == NULL)
		return;
	assert(ps->reads == NULL && ps->digests == NULL);
	au_rc_free(&ps->own);
	if (ps->db != NULL)
		rocksdb_close(ps->db);
	if (ps->memory != NULL)
	{
		au_store_memory_pending(ps->memory, &ps->share, 0);
		au_store_memory_memtables(ps->memory, &ps->share, 0);
	}
	au_ps_free_options(ps);
	au_pending_free(ps->current);
	au_pending_free(ps->frozen);
	au_pending_free(ps->spare);
	au_relmap_free(&ps->rels);
	free(ps->chain);
	free(ps->cuts);
	free(ps->gc);
	pthread_mutex_destroy(&ps->compaction_lock);
	free(ps);
}

/* ---- taking records --------------------------------------------------- */

static AuStatus
add(AuPageStore *ps, uint8_t keyspace, const AuPageId *page, AuLsn lsn,
	const uint8_t *ops, uint32_t len, bool full, bool image, AuPendEntry **entry)
{
	AuPendEntry *e = au_pending_enter(ps->current, keyspace, page);
	AuStatus	status = AU_NOMEM;

	*entry = e;
	if (e != NULL)
		status = au_pending_add(ps->current, e, lsn, ops, len, full, image);
	if (status == AU_NOMEM)
		snprintf(ps->error, sizeof(ps->error), "out of memory");
	else if (status != AU_OK)
		snprintf(ps->error, sizeof(ps->error),
				 "block %u of relation %u/%u/%u: the change at %X/%X comes after one at %X/%X",
				 page->blk, page->rel.spc, page->rel.db, page->rel.rel, AU_LSN_ARGS(lsn),
				 AU_LSN_ARGS(e->newest->newest->lsn));
	return status;
}

/* Append a size item and keep the map in step.  cut only with an event. */
static AuStatus
set_size(AuPageStore *ps, AuRel *rel, AuLsn lsn, uint32_t nblocks, uint8_t kind, uint32_t cut)
{
	AuPageId	page = {.rel = rel->id,.blk = AU_SIZE_BLOCK};
	AuSizeItem	item = {nblocks, kind, cut, rel->last_event};
	AuPendEntry *entry;
	uint8_t		bytes[AU_SIZE_ITEM];
	AuStatus	status;

	au_size_item_encode(bytes, &item);
	status = add(ps, AU_KS_SIZE, &page, lsn, bytes, sizeof(bytes), false, false, &entry);
	if (status != AU_OK)
		return status;
	rel->nblocks = nblocks;
	rel->size_lsn = lsn;
	if (kind != AU_SIZE_EXTEND)
	{
		AuRelEvent	event = {lsn, cut, kind};

		rel->last_event = lsn;
		if (!au_rel_add_event(rel, &event) || !au_ps_gc_push(ps, &rel->id, &event))
		{
			snprintf(ps->error, sizeof(ps->error), "out of memory");
			return AU_NOMEM;
		}
	}
	return AU_OK;
}

/* The chain of a page, by this many units longer, or new after a whole page. */
static void
count_units(AuPageStore *ps, AuPendEntry *e, uint32_t units, bool full)
{
	uint16_t   *chain = &ps->chain[au_page_hash(AU_KS_PAGE, &e->page) & (AU_CHAIN_SLOTS - 1)];

	*chain = full ? 0 : (uint16_t) (*chain + units > AU_CHAIN_COUNT_MAX ?
									AU_CHAIN_COUNT_MAX : *chain + units);
	e->units_last = *chain;
	if (*chain > e->units_max)
		e->units_max = *chain;
	e->units_memory = full ? 0 : (uint16_t) (e->units_memory + units > AU_CHAIN_COUNT_MAX ?
											 AU_CHAIN_COUNT_MAX : e->units_memory + units);
}

void
au_ps_add_image(AuPageStore *ps, const AuPageId *page, const uint8_t *bytes)
{
	uint8_t		ops_memory[AU_IMAGE_OP_MAX];
	AuPendEntry *e;
	AuOps		ops;

	/* its slice may have been dropped while it was read */
	if (!au_slices_readable(&ps->slices.now, page))
		return;
	au_ops_start(&ops, ops_memory, sizeof(ops_memory));
	au_ops_image(&ops, bytes);
	if (ops.overflow)
		return;
	/* failing only leaves the chain long */
	if (add(ps, AU_KS_PAGE, page, au_page_lsn(bytes), ops.data, ops.len, true, true, &e) != AU_OK)
		return;
	count_units(ps, e, 0, true);
	ps->stats.images++;
}

/* Materialise a page's newest version; one that cannot be built is left for
 * its reader to complain about. */
static void
cut_chain(AuPageStore *ps, const AuPageId *page)
{
	uint8_t		bytes[AU_PAGE_SIZE];
	uint64_t	images = ps->stats.images;
	uint64_t	start = au_ps_now_us();

	if (au_pagestore_read(ps, page, AU_LSN_MAX, bytes) == AU_OK &&
		ps->stats.images == images)
		au_ps_add_image(ps, page, bytes);
	au_hist_add(&ps->materialise, au_ps_now_us() - start);
}

static AuStatus
add_patch(AuPageStore *ps, const AuWalRecord *rec, const AuWalBlock *block)
{
	bool		full = au_ops_self_contained(block->data, block->data_len);
	bool		whole;
	AuPendEntry *e;
	AuStatus	status;

	if (!au_ps_takes(ps, &block->page, rec->end, &whole))
		return AU_OK;
	status = add(ps, AU_KS_PAGE, &block->page, rec->end, block->data, block->data_len,
				 full, false, &e);
	if (status != AU_OK)
		return status;
	ps->stats.patches++;
	ps->stats.patch_bytes += block->data_len;
	if (!whole)
		return AU_OK;			/* nothing to make an image of, yet */
	count_units(ps, e, au_chain_units(block->data_len), full);
	/* Long chains are cut when the generation is written; only what would be
	 * slow to read until then is cut here. */
	if (e->units_memory > AU_CHAIN_UNITS_MEMORY)
	{
		e->units_memory = 0;
		cut_chain(ps, &block->page);
	}
	return AU_OK;
}

static AuStatus
apply_ours(AuPageStore *ps, const AuWalRecord *rec)
{
	AuStatus	status;

	if (rec->main.flags & AU_REC_TRUNCATE)
	{
		AuRel	   *rel = au_ps_rel(ps, &rec->main.truncate_rel, true);
		uint32_t	cut = rec->main.truncate_nblocks;

		if (rel == NULL)
			return AU_NOMEM;
		status = set_size(ps, rel, rec->end, cut < rel->nblocks ? cut : rel->nblocks,
						  AU_SIZE_TRUNCATE, cut);
		if (status != AU_OK)
			return status;
		ps->last_change = rec->end;
	}
	for (int i = 0; i < rec->nblocks; i++)
	{
		const AuWalBlock *block = &rec->blocks[i];
		AuRel	   *rel;
		uint32_t	nblocks;

		if (block->page.rel.fork != 0)
			continue;			/* a visibility map block: local to compute */
		rel = au_ps_rel(ps, &block->page.rel, true);
		if (rel == NULL)
			return AU_NOMEM;
		/* one size item a record: the highest of its blocks */
		nblocks = rel->nblocks;
		for (int j = i; j < rec->nblocks; j++)
			if (au_rel_id_equal(&rec->blocks[j].page.rel, &rel->id) &&
				rec->blocks[j].page.blk >= nblocks)
				nblocks = rec->blocks[j].page.blk + 1;
		if (nblocks != rel->nblocks)
		{
			status = set_size(ps, rel, rec->end, nblocks, AU_SIZE_EXTEND, 0);
			if (status != AU_OK)
				return status;
		}
		status = add_patch(ps, rec, block);
		if (status != AU_OK)
			return status;
		ps->last_change = rec->end;
	}
	return AU_OK;
}

static AuStatus
drop_rel(AuPageStore *ps, AuRel *rel, AuLsn lsn)
{
	/* dropped before, and nothing came back: no second event */
	if (rel->nblocks == 0 && rel->nevents > 0 &&
		rel->events[rel->nevents - 1].kind == AU_SIZE_DROP)
		return AU_OK;
	ps->last_change = lsn;
	return set_size(ps, rel, lsn, 0, AU_SIZE_DROP, 0);
}

static AuStatus
apply_drops(AuPageStore *ps, const AuWalRecord *rec)
{
	for (int i = 0; i < rec->ndrop; i++)
	{
		const AuRelId *drop = &rec->drop[i];
		AuStatus	status = AU_OK;

		if (rec->kind != AU_WAL_DROP_DB)
		{
			AuRel	   *rel = au_ps_rel(ps, drop, false);

			if (rel != NULL)
				status = drop_rel(ps, rel, rec->end);
		}
		else
		{
			for (uint32_t b = 0; b < ps->rels.nbuckets && status == AU_OK; b++)
				for (AuRel *rel = ps->rels.buckets[b]; rel != NULL && status == AU_OK;
					 rel = rel->hash_next)
					if (rel->id.db == drop->db && rel->id.spc == drop->spc)
						status = drop_rel(ps, rel, rec->end);
		}
		if (status != AU_OK)
			return status;
	}
	return AU_OK;
}

AuStatus
au_pagestore_apply(AuPageStore *ps, const AuWalRecord *rec)
{
	bool		ours = rec->kind == AU_WAL_OURS;
	AuStatus	status;

	if (rec->xact_time != 0 && ps->retention_us > 0 && rec->end > ps->applied_at_open &&
		(ps->times.count == 0 || rec->end > ps->times.entries[ps->times.count - 1].lsn))
	{
		au_timemap_add(&ps->times, rec->xact_time, rec->end, ps->retention_us / TIMES_APART);
		ps->times_changed = true;
	}
	if (!ours && rec->kind != AU_WAL_DROP_RELS && rec->kind != AU_WAL_NEW_REL &&
		rec->kind != AU_WAL_DROP_DB)
		return AU_OK;
	if (rec->end <= ps->applied_at_open)
		return AU_OK;			/* replayed: it is in */
	if (rec->end <= ps->last_change)
	{
		snprintf(ps->error, sizeof(ps->error),
				 "the record ending at %X/%X comes after one ending at %X/%X",
				 AU_LSN_ARGS(rec->end), AU_LSN_ARGS(ps->last_change));
		return AU_INVALID;
	}
	snprintf(ps->error, sizeof(ps->error), "out of memory");
	status = ours ? apply_ours(ps, rec) : apply_drops(ps, rec);
	if (status != AU_OK)
		return status;
	ps->stats.records++;
	return AU_OK;
}

bool
au_pagestore_rewind(AuPageStore *ps, AuLsn lsn)
{
	if (ps->last_change > lsn || ps->has_frozen || ps->retired != NULL)
		return false;
	if (ps->applied_at_open > lsn)
		ps->applied_at_open = lsn;
	au_slices_rewind(ps, lsn);
	au_timemap_cut(&ps->times, lsn);
	ps->times_changed = true;
	return true;
}

void
au_ps_count_pending(AuPageStore *ps)
{
	if (ps->memory != NULL)
		au_store_memory_pending(ps->memory, &ps->share, au_pending_bytes(ps->current) +
								(ps->has_frozen ? au_pending_bytes(ps->frozen) : 0) +
								(ps->retired != NULL ? au_pending_bytes(ps->retired) : 0));
}

bool
au_pagestore_full(AuPageStore *ps)
{
	uint64_t	own = au_pending_bytes(ps->current);

	au_ps_count_pending(ps);
	return own >= ps->pending_max ||
		(ps->memory != NULL && au_store_memory_full(ps->memory, own));
}

bool
au_pagestore_dirty(const AuPageStore *ps)
{
	return au_pending_entries(ps->current) > 0 ||
		ps->slices.changes > ps->slices.changes_written;
}

/* ---- positions and figures -------------------------------------------- */

AuLsn
au_pagestore_restart_lsn(const AuPageStore *ps)
{
	return ps->meta.restart;
}

AuLsn
au_pagestore_applied_lsn(const AuPageStore *ps)
{
	return ps->meta.applied;
}

AuLsn
au_pagestore_persisted_applied(const AuPageStore *ps)
{
	return ps->persisted.applied;
}

AuLsn
au_pagestore_persisted_restart(const AuPageStore *ps)
{
	return ps->persisted.restart;
}

AuLsn
au_pagestore_horizon(const AuPageStore *ps)
{
	return ps->meta.horizon;
}

AuLsn
au_pagestore_last_change(const AuPageStore *ps)
{
	return ps->last_change;
}

void
au_pagestore_set_applied(AuPageStore *ps, AuLsn applied)
{
	AuLsn		horizon = applied > ps->retention ? applied - ps->retention : 0;
	AuLsn		oldest = au_ps_oldest_read(ps);
	AuLsn		compared = au_ps_oldest_digest(ps);

	oldest = compared < oldest ? compared : oldest;
	if (ps->retention_us > 0)
	{
		AuLsn		by_time = au_timemap_lsn(&ps->times, ps->times.newest - ps->retention_us);

		au_timemap_forget(&ps->times, by_time);
		horizon = by_time < horizon ? by_time : horizon;
	}
	if (ps->hold != 0 && ps->hold < horizon)
		horizon = ps->hold;
	if (horizon > oldest)
		horizon = oldest;
	if (horizon > ps->meta.horizon)
		ps->meta.horizon = horizon;
	ps->applied = applied;
	/* an iterator kept while nothing happens would keep dead files */
	au_ps_drop_iter(ps);
}

void
au_pagestore_set_hold(AuPageStore *ps, AuLsn lsn)
{
	ps->hold = lsn;
}

void
au_pagestore_list(AuPageStore *ps, uint32_t db,
				  void (*fn) (void *ctx, const AuRelId *rel, uint32_t nblocks), void *ctx)
{
	for (uint32_t b = 0; b < ps->rels.nbuckets; b++)
		for (AuRel *rel = ps->rels.buckets[b]; rel != NULL; rel = rel->hash_next)
			if (rel->nblocks > 0 && (db == 0 || rel->id.db == db))
				fn(ctx, &rel->id, rel->nblocks);
}

uint64_t
au_ps_property(AuPageStore *ps, const char *name)
{
	uint64_t	v = 0;

	return rocksdb_property_int(ps->db, name, &v) == 0 ? v : 0;
}

uint64_t
au_pagestore_disk_bytes(AuPageStore *ps)
{
	return au_ps_property(ps, "rocksdb.total-sst-files-size");
}

void
au_pagestore_stats(AuPageStore *ps, AuPageStoreStats *out)
{
	*out = ps->stats;
	out->items_applied = ps->own.items_applied;
	out->bundles_read = ps->own.bundles_read;
	out->corrupt = ps->own.corrupt;
	out->pending_bytes = au_pending_bytes(ps->current) + au_pending_bytes(ps->frozen) +
		(ps->retired != NULL ? au_pending_bytes(ps->retired) : 0);
	out->relations = ps->rels.count;
	out->gc_versions = atomic_load(&ps->filter_dropped);
	out->gc_waiting = ps->gc_count - ps->gc_head;
	out->disk_bytes = au_pagestore_disk_bytes(ps);
	out->memory_bytes = au_ps_property(ps, "rocksdb.cur-size-all-mem-tables") +
		au_ps_property(ps, "rocksdb.estimate-table-readers-mem");
}

uint64_t
au_ps_now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t) t.tv_sec * 1000000 + (uint64_t) t.tv_nsec / 1000;
}

void
au_pagestore_latency(AuPageStore *ps, AuHist *materialise, AuHist *compaction)
{
	*materialise = ps->materialise;
	pthread_mutex_lock(&ps->compaction_lock);
	*compaction = ps->compaction;
	pthread_mutex_unlock(&ps->compaction_lock);
}

const char *
au_pagestore_error(const AuPageStore *ps)
{
	return ps->error;
}
