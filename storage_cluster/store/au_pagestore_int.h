/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_pagestore_int.h: what the files of the page store share.  Nothing
 * outside store/au_pagestore*.c includes it.
 */
#ifndef AU_PAGESTORE_INT_H
#define AU_PAGESTORE_INT_H

#include <pthread.h>
#include <rocksdb/c.h>
#include <stdatomic.h>

#include "store/au_bundle.h"
#include "store/au_export.h"
#include "store/au_memory_int.h"
#include "store/au_pagestore.h"
#include "store/au_pending.h"
#include "store/au_relmap.h"
#include "store/au_timemap.h"

/*
 * Meta record, under the key AU_META_KEY:
 *
 *   0  u32 magic        AU_META_MAGIC "AUM1"
 *   4  u32 version      AU_META_VERSION
 *   8  u64 system_identifier
 *   16 u64 applied
 *   24 u64 restart
 *   32 u64 horizon      nothing below may be asked for
 *   40 u64 gc_done      events at or below are collected
 *   48 u32 crc          of bytes 0..47
 */
#define AU_META_MAGIC 0x314D5541u
#define AU_META_VERSION 1
#define AU_META_LEN 52
#define AU_META_KEY "\0meta"
#define AU_META_KEY_LEN 5

/* So many files in level 0 start a compaction. */
#define AU_LEVEL0_MERGED 4

typedef struct AuStoreMeta
{
	uint64_t	system_identifier;
	AuLsn		applied;
	AuLsn		restart;
	AuLsn		horizon;
	AuLsn		gc_done;
} AuStoreMeta;

/*
 * Which slices are kept (au_export.h), under AU_SLICES_KEY; absent: all.
 *
 *   0   u32 magic       AU_SLICES_MAGIC "AUO1"
 *   4   u32 version     AU_SLICES_VERSION
 *   8   u8[32] kept, u8[32] incoming, u8[32] dropping: bit s of byte s / 8
 *   104 u64 since       of those incoming
 *   112 u32 crc         of bytes 0..111
 *
 * How far an import is, under AU_IMPORT_KEY; of interest if `since` is the
 * same.
 *
 *   0   u32 magic       AU_IMPORT_MAGIC "AUI1"
 *   4   u32 version     AU_IMPORT_VERSION
 *   8   u64 since
 *   16  u64 horizon     highest of the chunks
 *   24  u8  done
 *   25  u8[29] place
 *   54  u32 crc         of bytes 0..53
 */
#define AU_SLICES_MAGIC 0x314F5541u
#define AU_SLICES_VERSION 1
#define AU_SLICES_LEN 116
#define AU_SLICES_KEY "\0own"
#define AU_SLICES_KEY_LEN 4
#define AU_IMPORT_MAGIC 0x31495541u
#define AU_IMPORT_VERSION 1
#define AU_IMPORT_LEN 58
#define AU_IMPORT_KEY "\0imp"
#define AU_IMPORT_KEY_LEN 4

typedef struct AuSlicesRecord
{
	bool		told;			/* false: all are kept, nothing is stored */
	AuSliceSet	kept;
	AuSliceSet	incoming;
	AuSliceSet	dropping;
	AuLsn		since;
} AuSlicesRecord;

typedef struct AuImportRecord
{
	AuLsn		since;
	AuLsn		horizon;
	bool		done;
	AuPlace		place;
} AuImportRecord;

/* Slices of a store while it is open. */
typedef struct AuSlices
{
	AuSlicesRecord now;
	AuSlicesRecord frozen;		/* goes with the frozen generation */
	bool		frozen_begins;	/* an import begins with it: the last one's record goes */
	AuSlicesRecord persisted_new;	/* what the writer found in files */
	AuSlicesRecord persisted;
	AuImportRecord import;
	bool		founding;		/* the import is one of sizes */
	/* Changes of `now` are counted; those up to these are in the frozen
	 * generation, in RocksDB. */
	uint64_t	changes;
	uint64_t	changes_frozen;
	uint64_t	changes_written;
	uint64_t	keep_change;	/* the one that began the import */
	uint64_t	drop_change;	/* the last one that dropped anything */
	uint64_t	drop_freezes;	/* reads begun with this or less may look at it */
	AuPlace		drop_place;
	uint64_t	bytes;			/* imported */
} AuSlices;

/* A page's chain of patches is cut by an image beyond this many units when a
 * generation is written, and beyond many more while it gathers; a
 * patch counts one unit, plus one for each 256 bytes. */
#define AU_CHAIN_UNITS_MAX 128
#define AU_CHAIN_UNITS_MEMORY 2048
#define AU_CHAIN_UNKNOWN (AU_CHAIN_UNITS_MAX / 2)	/* after open: assume this */
#define AU_CHAIN_COUNT_MAX 60000

static inline uint32_t
au_chain_units(uint32_t len)
{
	return 1 + len / 256;
}

#define AU_CHAIN_SLOTS (512 * 1024)	/* a power of two */
/* ... and when a read had to look at more than this. */
#define AU_READ_ITEMS_LONG 32
#define AU_READ_BYTES_LONG (32 * 1024)
#define AU_READ_BUNDLES_LONG 8

/* So many reads with one iterator: what has become of the files meanwhile is
 * seen by the next, and these can go. */
#define AU_READ_KEPT_MAX 256

/* A read that needs more than this is refused (never seen in practice). */
#define AU_READ_SCRATCH_MAX ((size_t) 256 << 20)

/* RocksDB's read tiers */
#define AU_TIER_ALL 0
#define AU_TIER_CACHE 1			/* memtables and block cache */
#define AU_TIER_PERSISTED 2

/* A batch is a run if it asks for so many blocks, in order, and at least for
 * every other one between the first and the last: then one iterator goes
 * through all files once, and each page is found by a few steps forward. */
#define AU_READ_RUN_BLOCKS 8
#define AU_READ_RUN_STEPS 8
/* Read from a file at once: 4 pages that do not compress, sixty that do.
 * What a batch does not use of it is copied for nothing. */
#define AU_READ_RUN_AHEAD (32 * 1024)
/* What runs read goes past the block cache: it costs a third of their time to
 * put it there, and a scan would push out what single reads come back to.  But
 * indexes of files must get there, and RocksDB knows one switch for both: so
 * one run in so many fills the cache. */
#define AU_READ_RUNS_FILL 16

/* One item that a read has to apply; the bytes are in a generation, in the
 * iterator's current value or in scratch memory. */
typedef struct AuReadRef
{
	AuLsn		lsn;
	const uint8_t *ops;
	uint32_t	len;
} AuReadRef;

typedef struct AuScratch
{
	struct AuScratch *next;
	uint8_t		data[];
} AuScratch;

/*
 * What one reader collects into.  The owner thread has one (ps->own), each
 * batch another; of the store itself only `db` and the read options are used
 * through it, which any thread may do.
 */
typedef struct AuReadCtx
{
	rocksdb_t  *db;
	const rocksdb_readoptions_t *options;
	rocksdb_iterator_t *iter;	/* made when needed, with `options` */
	bool		run;			/* iter goes on from page to page */
	uint8_t		sought[AU_KEY_LEN]; /* in a run: iter has passed nothing behind it */
	AuReadRef  *refs;			/* newest first */
	uint32_t	nrefs;
	uint32_t	refs_cap;
	AuScratch  *scratch;
	size_t		scratch_bytes;
	uint64_t	items_applied;
	uint64_t	bundles_read;
	uint64_t	corrupt;
	char	   *error;
	size_t		error_len;
} AuReadCtx;

/* How far back a page is collected. */
typedef struct AuCollect
{
	uint8_t		keyspace;
	AuPageId	page;
	AuLsn		lsn;			/* items above do not count */
	AuLsn		floor;			/* items at or below do not count */
	AuLsn		below;			/* the oldest item taken; only older ones are missing */
	bool		done;			/* nothing older is needed */
	uint32_t	bundles;		/* looked at in RocksDB */
} AuCollect;

typedef struct AuGcEvent
{
	AuLsn		lsn;
	AuRelId		rel;
	uint32_t	cut;
	uint8_t		kind;
} AuGcEvent;

/* au_pagestore_cut.c: long chains of a generation that is being written. */
typedef struct AuCutter
{
	AuPageStore *ps;
	AuReadCtx	ctx;
	bool		wanted;			/* the page at hand is worth it */
	bool		known;			/* `page` is it as of the last item */
	uint32_t	units;			/* since the last whole page */
	uint64_t	made;
	AuScratch  *images;			/* of this segment */
	char		error[512];
	uint8_t		page[AU_PAGE_SIZE];
} AuCutter;

typedef struct AuChainCut
{
	uint32_t	slot;			/* of AuPageStore.chain */
	uint16_t	before;			/* as counted when the generation was frozen */
	uint16_t	after;
} AuChainCut;

/* Of the scrubber: where it is, and what it has not finished with. */
#define AU_SCRUB_PROBLEMS 16	/* reported of one step; all are counted */
#define AU_SCRUB_TEXT 512
#define AU_SCRUB_LONG_MAX 64
#define AU_COMPACT_BOTTOM_FORCED 2	/* BottommostLevelCompaction::kForce */

typedef struct AuScrubPlace
{
	bool		started;
	uint8_t		key[AU_KEY_LEN];	/* the next step begins here, going down */
	uint8_t		region_end[AU_KEY_LEN]; /* garbage is counted from here down */
	uint64_t	region_bytes;
	uint64_t	region_garbage;
	uint64_t	versions;		/* of this walk */
	uint64_t	problems;
	uint64_t	compactions;	/* since open */
	AuPageId	long_pages[AU_SCRUB_LONG_MAX];	/* found, not cut yet */
	uint32_t	nlong;
} AuScrubPlace;

struct AuPageStore
{
	/* RocksDB and its options */
	rocksdb_t  *db;
	rocksdb_options_t *options;
	rocksdb_block_based_table_options_t *table_options;
	rocksdb_writeoptions_t *write_options;
	rocksdb_writeoptions_t *gc_write_options;	/* never waits */
	rocksdb_readoptions_t *read_options;	/* within one page */
	rocksdb_readoptions_t *scan_options;	/* across pages */
	rocksdb_readoptions_t *persisted_options;
	rocksdb_readoptions_t *cached_options;	/* within one page, no files */
	rocksdb_readoptions_t *run_options; /* over many pages, in order: a run */
	rocksdb_readoptions_t *filling_run_options; /* the same, into the block cache */
	uint32_t	runs;			/* counts them */

	AuStoreMemory *memory;		/* NULL: this store counts by itself */
	AuMemoryShare share;
	uint64_t	pending_max;
	uint64_t	retention;
	int64_t		retention_us;	/* 0: by bytes alone */
	AuLsn		hold;			/* the horizon stays at or below; 0: none */
	AuLsn		start_lsn;

	AuPending  *current;
	AuPending  *frozen;
	bool		has_frozen;		/* frozen holds a generation being written */
	AuPending  *retired;		/* written, but pinned by readers; or NULL */
	AuPending  *spare;			/* empty, takes frozen's place then; or NULL */
	uint64_t	freezes;		/* counts them */
	AuPageRead *reads;			/* batches under way */
	AuDigest   *digests;		/* likewise */
	AuStoreMeta frozen_meta;	/* goes with it */
	AuStoreMeta persisted_new;	/* what the writer found in files */

	AuStoreMeta meta;			/* as of the last freeze */
	AuStoreMeta written;		/* of the newest generation in RocksDB */
	AuStoreMeta persisted;		/* in files */
	AuLsn		applied_at_open;
	AuLsn		applied;		/* as last told */
	AuLsn		last_change;	/* end of the last record taken */

	AuTimeMap	times;			/* empty unless retention_us */
	bool		times_changed;	/* since the last freeze */
	size_t		frozen_times_len;	/* 0: as stored */
	uint8_t		frozen_times[AU_TIMEMAP_BYTES_MAX];

	AuSlices	slices;

	AuRelMap	rels;
	AuRelId		last_rel_id;	/* one-entry cache of the map */
	AuRel	   *last_rel;
	uint16_t   *chain;			/* AU_CHAIN_SLOTS counters of chain units */
	AuChainCut *cuts;			/* by the writer, for the owner's counters */
	uint32_t	ncuts;
	uint32_t	cuts_cap;
	uint64_t	cuts_made;		/* images */

	/* garbage collection, events in LSN order from gc_head on */
	AuGcEvent  *gc;
	uint32_t	gc_head;
	uint32_t	gc_count;
	uint32_t	gc_cap;
	bool		gc_started;		/* cursor of the event at gc_head is valid */
	uint8_t		gc_cursor[AU_KEY_LEN];

	uint64_t	unread_until_us;	/* versions to be deleted cannot be read: not before */

	/* versions left out by compactions, which run on RocksDB's threads */
	_Atomic AuLsn filter_horizon;	/* persisted.horizon */
	_Atomic uint64_t filter_dropped;

	AuReadCtx	own;			/* of the owner thread; iter is dropped after any
								 * write, and does not outlive a slice of log */
	uint32_t	own_reads;		/* batches that own.iter was used for */
	bool		own_used;		/* ... in this turn */

	AuScrubPlace scrub_place;
	char		scrub_problem[AU_SCRUB_TEXT];

	AuHist		materialise;
	pthread_mutex_t compaction_lock;	/* RocksDB's threads add, the owner reads */
	AuHist		compaction;

	AuPageStoreStats stats;
	char		error[512];
};

uint64_t	au_ps_now_us(void);	/* monotonic, for histograms and AU_PS_STEP_US */

/* What is done in steps by the thread that reads wait for ends a step after so long. */
#define AU_PS_STEP_US 500

/* au_pagestore.c */
void		au_ps_options(AuPageStore *ps, const AuPageStoreOptions *opt);
void		au_ps_free_options(AuPageStore *ps);
void		au_ps_drop_iter(AuPageStore *ps);
AuRel	   *au_ps_rel(AuPageStore *ps, const AuRelId *id, bool make);
void		au_ps_meta_encode(uint8_t *p, const AuStoreMeta *m);	/* AU_META_LEN bytes */
AuStatus	au_ps_meta_decode(const uint8_t *p, size_t len, AuStoreMeta *m, const char **why);
/* What RocksDB's error means: AU_FULL, AU_CORRUPT, AU_IO. */
AuStatus	au_ps_db_status(const char *dberr);
/* AU_NOT_FOUND: there is none yet. */
AuStatus	au_ps_meta_read(rocksdb_t *db, rocksdb_readoptions_t *ro, AuStoreMeta *m,
							char *err, size_t errlen);
/* Tells ps->memory how much the generations hold now. */
void		au_ps_count_pending(AuPageStore *ps);
uint64_t	au_ps_property(AuPageStore *ps, const char *name);	/* RocksDB's; 0: unknown */
/* Adds an image of the page as of its newest LSN to the current generation. */
void		au_ps_add_image(AuPageStore *ps, const AuPageId *page, const uint8_t *bytes);

void		au_ps_next_relation_key(uint8_t *key, uint8_t keyspace, const AuRelId *rel);

/* au_pagestore_read.c: collect into ps->own.refs; see there */
AuStatus	au_ps_collect(AuPageStore *ps, uint8_t keyspace, const AuPageId *page,
						  AuLsn lsn, AuLsn floor, uint32_t *bundles);
void		au_ps_release(AuPageStore *ps);
/* The two halves of it, for batches: what is in memory (owner thread), what
 * is in RocksDB (any thread; AU_NEED_MORE: not in memory either, and the
 * options allow no files). */
AuStatus	au_rc_collect_pending(AuPageStore *ps, AuReadCtx *c, AuCollect *what);
AuStatus	au_rc_collect_stored(AuReadCtx *c, AuCollect *what);
/* What was collected, applied.  AU_NOT_FOUND: nothing was.  *lengthy: an
 * image would save much. */
AuStatus	au_rc_build(AuReadCtx *c, const AuCollect *what, uint8_t *out, bool *lengthy);
AuStatus	au_rc_fail(AuReadCtx *c, AuStatus status, const AuCollect *what, AuLsn lsn,
					   const char *why);
void		au_rc_use(AuReadCtx *c, const rocksdb_readoptions_t *options);
void		au_rc_release(AuReadCtx *c);	/* what was collected */
void		au_rc_free(AuReadCtx *c);

/* au_pagestore_batch.c: the oldest LSN a batch under way reads at, else
 * AU_LSN_MAX. */
AuLsn		au_ps_oldest_read(const AuPageStore *ps);

/* au_pagestore_digest.c: likewise, of digests. */
AuLsn		au_ps_oldest_digest(const AuPageStore *ps);

/* au_pagestore_cut.c: for each page of the generation: cut_page, then for its
 * items from the oldest on cut_item (true: *image is to follow; its bytes are
 * valid until cut_segment_done), cut_page_done; cut_written on the owner's
 * thread afterwards. */
void		au_cut_start(AuCutter *c, AuPageStore *ps);
void		au_cut_page(AuCutter *c, const AuPendEntry *e);
bool		au_cut_item(AuCutter *c, const AuItem *item, AuItem *image);
/* An item that fills a new page becomes an image of it, which is as long;
 * before cut_item, and as long-lived as *image. */
void		au_cut_flatten(AuCutter *c, AuItem *item);
void		au_cut_segment_done(AuCutter *c);
void		au_cut_page_done(AuCutter *c, const AuPendEntry *e);
void		au_cut_end(AuCutter *c);
void		au_cut_written(AuPageStore *ps);

/* au_pagestore_gc.c */
/* Deleting that met what cannot be read is tried again after so long. */
#define AU_PS_UNREAD_US ((uint64_t) 10 * 1000000)
/* The iterator is at a key, or at the end of all: nothing kept it from going on. */
bool		au_ps_iter_sound(rocksdb_iterator_t *it);
bool		au_ps_gc_push(AuPageStore *ps, const AuRelId *rel, const AuRelEvent *event);
void		au_ps_gc_sort(AuPageStore *ps);

/* au_pagestore_slices.c */
/* A slice that can be read. */
static inline bool
au_slices_readable(const AuSlicesRecord *r, const AuPageId *page)
{
	return !r->told || au_slices_has(&r->kept, au_slice_of(&page->rel, page->blk));
}

/* Does the store take this change?  *whole: what was before it is in, too. */
bool		au_ps_takes(const AuPageStore *ps, const AuPageId *page, AuLsn lsn, bool *whole);
/* AU_LEN bytes each; decode: false, damaged. */
void		au_slices_encode(uint8_t *p, const AuSlicesRecord *r);
void		au_import_encode(uint8_t *p, const AuImportRecord *r);
bool		au_slices_decode(const uint8_t *p, size_t len, AuSlicesRecord *r);
bool		au_import_decode(const uint8_t *p, size_t len, AuImportRecord *r);
/* AU_OK also if there is none: all are kept. */
AuStatus	au_slices_read(rocksdb_t *db, rocksdb_readoptions_t *ro, AuSlicesRecord *r,
						   char *err, size_t errlen);
/* At open.  has_meta: the store has positions. */
AuStatus	au_slices_load(AuPageStore *ps, bool has_meta, char *err, size_t errlen);
/* Log from lsn on was cut off. */
void		au_slices_rewind(AuPageStore *ps, AuLsn lsn);
/* Key behind all versions of a page. */
void		au_ps_next_page_key(uint8_t *key, uint8_t keyspace, const AuPageId *page);
/* First key of the next extent behind this page whose slice is in the set,
 * or some key before it. */
void		au_ps_next_extent_key(uint8_t *key, const AuPageId *page, const AuSliceSet *set);

/* au_pagestore_batch.c: a batch begun after `freezes` freezes or fewer is
 * under way. */
bool		au_ps_reads_since(const AuPageStore *ps, uint64_t freezes);

/* au_pagestore_digest.c: the same of digests of these slices */
bool		au_ps_digests_since(const AuPageStore *ps, uint64_t freezes, const AuSliceSet *slices);

/* au_pagestore_write.c: a batch of other origin, with all that goes with a
 * generation's. */
AuStatus	au_ps_write_batch(AuPageStore *ps, rocksdb_writebatch_t *batch, bool persist,
							  const char *what, char *err, size_t errlen);
/* In files, and nobody reads below: what is older may go. */
AuLsn		au_ps_unread_horizon(const AuPageStore *ps);

/* au_pagestore_filter.c */
void		au_ps_filter_install(AuPageStore *ps);
void		au_ps_filter_set_horizon(AuPageStore *ps, AuLsn horizon);

#endif							/* AU_PAGESTORE_INT_H */
