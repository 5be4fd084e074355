/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_pagestore.h: page versions of one volume: patches gathered in memory,
 * bundles of patches in RocksDB, any LSN since the horizon readable.
 *
 *   records ──▶ current generation ──freeze──▶ frozen generation
 *               (one thread)                   (read only)
 *                                                  │ write: ONE batch, on
 *                                                  ▼ a worker thread
 *                                RocksDB memtable ──flush──▶ files
 *
 * How a crash is survived without RocksDB's own log (it is off: the landing
 * log is the only log):
 *
 *  1. Everything a generation holds goes into RocksDB in one write batch,
 *     together with the meta record: applied LSN (all records ending at or
 *     below it are in), restart LSN (where decoding must start again so that
 *     the next record is seen whole).
 *  2. A batch is never split between memtables, and there is one column
 *     family, whose memtables reach disk in order.  So what RocksDB recovers
 *     is the result of the first n batches for some n: an exact prefix.  Its
 *     meta record describes exactly the data beside it.
 *  3. After a crash the node feeds the landing log from the restart LSN;
 *     records that end at or below the applied LSN are skipped.  Nothing is
 *     applied twice, nothing is missed.
 *  4. The landing log is cut only below a restart LSN that is known to be in
 *     files (read back with the "persisted" read tier).
 *
 * Writes besides these batches (garbage collection) only delete what nobody
 * may read any more according to a meta record that is in files already.
 *
 * Images.  Long chains of patches are cut by whole-page items, behind the
 * newest patch of their LSN: when a generation is written, by the writer's
 * thread, so that a read from files applies at most 128 units of changes (a
 * patch counts one, plus one for each 256 bytes), whatever its LSN; and in the
 * current generation, after a read that had much to apply, or when 2,048
 * units have gathered.  If the page has no patches there, the image opens a
 * bundle whose key may equal that of a stored bundle.  That one holds only the
 * patch of this very LSN (L is the page's newest), perhaps with an image of it
 * as well, so replacing it loses nothing.
 *
 * Batches.  Reads from files would stop the owner thread, so a batch of pages
 * is read in three steps: begin (owner thread) looks at everything that only
 * the owner thread may look at, au_pagestore_read_page (any thread) does the
 * rest, end (owner thread) gives back.  While a batch is under way:
 *
 *  5. It sees the pages as of its LSN, whatever is applied, frozen, written,
 *     compacted or collected meanwhile: items in memory are those found by
 *     begin, from RocksDB only older ones are taken, and none above its LSN.
 *  6. The generations that its items are in are pinned.  One that was written
 *     meanwhile is kept; until it is free again, freeze and rewind say false.
 *     So there are three generations at most, and no waiting in begin.
 *  7. The horizon stays at or below its LSN, so neither compaction nor
 *     collection removes what it reads.
 *  8. The store is not closed: end all batches first.
 *
 * Errors: AU_CORRUPT is never served as data; au_pagestore_error() names page
 * and LSN.  Threads: one owner thread, except au_pagestore_write and
 * au_pagestore_read_page.
 */
#ifndef AU_PAGESTORE_H
#define AU_PAGESTORE_H

#include "cluster/au_merkle.h"
#include "common/au_base.h"
#include "core/au_hist.h"
#include "core/au_waldecode.h"
#include "store/au_memory.h"

typedef struct AuPageStore AuPageStore;
typedef struct AuPageRead AuPageRead;

typedef struct AuPageStoreOptions
{
	const char *dir;			/* made if absent */
	uint64_t	system_identifier;	/* checked against the stored one */
	AuLsn		start_lsn;		/* of the volume; used when the store is empty */
	uint64_t	pending_bytes;	/* a generation is full at this size; there are two */
	uint64_t	write_buffer_bytes; /* of one RocksDB memtable, three at most */
	/* An LSN stays readable while either wants it: it is within so much log
	 * behind applied, or within so much time (0: none) before the newest
	 * commit. */
	uint64_t	retention_bytes;
	uint64_t	retention_us;
	bool		cold_zstd;		/* the last level is compressed by zstd, not by lz4 */
	AuStoreMemory *memory;		/* shared by the node's volumes: its block cache is used,
								 * and its limits hold beside those above; may be NULL */
} AuPageStoreOptions;

typedef struct AuPageStoreStats
{
	uint64_t	records;
	uint64_t	patches;
	uint64_t	patch_bytes;
	uint64_t	pages_read;
	uint64_t	items_applied;	/* for reads and images */
	uint64_t	bundles_read;	/* from RocksDB */
	uint64_t	images;			/* materialised */
	uint64_t	corrupt;
	uint64_t	gc_keys;		/* deleted one by one */
	uint64_t	gc_relations;	/* deleted as a range */
	uint64_t	gc_versions;	/* below the horizon, left out by compactions */
	uint64_t	pending_bytes;	/* both generations */
	uint64_t	relations;		/* known, dropped ones within the horizon included */
	uint64_t	gc_waiting;		/* events not collected yet */
	uint64_t	disk_bytes;		/* RocksDB's live files */
	uint64_t	memory_bytes;	/* memtables and table readers */
	uint64_t	scrub_passes;	/* whole walks */
	uint64_t	scrub_versions; /* looked at */
	uint64_t	scrub_percent;	/* of this walk */
	uint64_t	scrub_damaged;	/* problems of the last walk, or of this if more */
	uint64_t	scrub_compactions;	/* of ranges with much garbage */
	uint64_t	scrub_cuts;		/* long chains it found and had cut */
} AuPageStoreStats;

/* err (always terminated) describes failures. */
AuStatus	au_pagestore_open(AuPageStore **out, const AuPageStoreOptions *opt,
							  char *err, size_t errlen);
/* What is not written and persisted is replayed at the next start. */
void		au_pagestore_close(AuPageStore *ps);

/* Where decoding starts after open. */
AuLsn		au_pagestore_restart_lsn(const AuPageStore *ps);
/* Records ending at or below are in the store already. */
AuLsn		au_pagestore_applied_lsn(const AuPageStore *ps);

/*
 * Take a record, in log order: OURS, DROP_RELS, NEW_REL, DROP_DB change pages
 * and sizes; the time of commits and aborts is noted; others are ignored.  AU_INVALID: an invariant is broken (LSN goes backwards on a page):
 * stop the node.  AU_NOMEM.
 */
AuStatus	au_pagestore_apply(AuPageStore *ps, const AuWalRecord *rec);

/* The current generation is full, or those of all volumes together are too
 * much: freeze before applying more. */
bool		au_pagestore_full(AuPageStore *ps);
/* Something is in the current generation. */
bool		au_pagestore_dirty(const AuPageStore *ps);

/*
 * Writing, in three steps.  freeze: the current generation with these
 * positions becomes the frozen one (false while there is one already).
 * write: the frozen generation into RocksDB, then, with persist, RocksDB's
 * memtables into files; may run on any one thread.  written: back on the
 * owner thread, with write's status.  If that was not AU_OK the store takes
 * no more: close and open it again.
 */
bool		au_pagestore_freeze(AuPageStore *ps, AuLsn applied, AuLsn restart);
AuStatus	au_pagestore_write(AuPageStore *ps, bool persist, char *err, size_t errlen);
void		au_pagestore_written(AuPageStore *ps, AuStatus status);

/* Positions known to be in files. */
AuLsn		au_pagestore_persisted_applied(const AuPageStore *ps);
AuLsn		au_pagestore_persisted_restart(const AuPageStore *ps);

/* Oldest LSN that may be asked for. */
AuLsn		au_pagestore_horizon(const AuPageStore *ps);
/* Tell how far the log is applied (moves the horizon). */
void		au_pagestore_set_applied(AuPageStore *ps, AuLsn applied);
/* Somebody may still ask for LSNs from here on: the horizon does not pass it
 * (what it has passed already is gone).  0: nobody. */
void		au_pagestore_set_hold(AuPageStore *ps, AuLsn lsn);
/* End of the last record that changed anything here since open, else the
 * applied LSN found at open. */
AuLsn		au_pagestore_last_change(const AuPageStore *ps);

/* Log at and above lsn was cut off: take records from there again.  false if
 * something from there is in (or a generation is being written).  A freeze,
 * write, persist at this position must follow. */
bool		au_pagestore_rewind(AuPageStore *ps, AuLsn lsn);

/*
 * Page as of lsn (AU_LSN_MAX: newest), 8192 bytes.  AU_OK, AU_NOT_FOUND,
 * AU_CORRUPT, AU_IO, AU_NOMEM.  The caller checked the horizon.
 */
AuStatus	au_pagestore_read(AuPageStore *ps, const AuPageId *page, AuLsn lsn, uint8_t *out);

/*
 * A batch: blocks of one relation as of lsn, which is at or above the horizon;
 * newest: lsn is the applied LSN.  NULL: out of memory.
 */
AuPageRead *au_pagestore_read_begin(AuPageStore *ps, const AuRelId *rel,
									const uint32_t *blocks, uint16_t nblocks,
									AuLsn lsn, bool newest);
/*
 * Its i-th page, as au_pagestore_read; any thread, one at a time.  cached_only:
 * AU_NEED_MORE if it would have to look into files.  out is left alone until
 * the end if lsn was the newest.
 */
AuStatus	au_pagestore_read_page(AuPageRead *r, uint16_t i, bool cached_only, uint8_t *out);
const char *au_pagestore_read_error(const AuPageRead *r);
/* Said before its first page: the owner thread reads all of it before it does
 * anything else with the store.  Its pages are found with an iterator that is
 * kept from read to read, until au_pagestore_turn finds it unused. */
void		au_pagestore_read_here(AuPageRead *r);
/* The owner thread calls this often, also while nothing is read: files that a
 * compaction has replaced go only when no iterator has them. */
void		au_pagestore_turn(AuPageStore *ps);
/* No page is asked for now: give files back (that may take a while).  Any
 * thread, as read_page. */
void		au_pagestore_read_rest(AuPageRead *r);
void		au_pagestore_read_end(AuPageRead *r);

/* Blocks of a relation as of lsn; 0 for one never heard of. */
AuStatus	au_pagestore_size(AuPageStore *ps, const AuRelId *rel, AuLsn lsn, uint32_t *nblocks);
/* Relations with blocks, of database db (0: all). */
void		au_pagestore_list(AuPageStore *ps, uint32_t db,
							  void (*fn) (void *ctx, const AuRelId *rel, uint32_t nblocks),
							  void *ctx);

/* A bounded step of removing what was dropped or truncated away before the
 * horizon; true if there is more to do now. */
bool		au_pagestore_gc_step(AuPageStore *ps);

/* Compact everything now, versions below the horizon go; takes as long as it
 * takes.  Compactions otherwise run by themselves. */
void		au_pagestore_compact(AuPageStore *ps);

/*
 * The scrubber, a step: begin (NULL: out of memory), work on any one thread:
 * about `budget` bytes of versions, returns how many; end: hands each problem
 * found to fn, with page and LSN (at most 16 of a step; all are counted), and
 * returns whether a walk through everything is finished.  One step at a time;
 * the store is not closed meanwhile.
 */
typedef struct AuPageScrub AuPageScrub;

AuPageScrub *au_pagestore_scrub_begin(AuPageStore *ps);
uint64_t	au_pagestore_scrub_work(AuPageScrub *s, uint64_t budget);
bool		au_pagestore_scrub_end(AuPageScrub *s, void (*fn) (void *ctx, const char *problem),
								   void *ctx);
/* What is damaged, as known by now (the first of it); "": nothing. */
const char *au_pagestore_scrub_problem(const AuPageStore *ps);

/*
 * The tree of the pages of a slice as of one LSN (au_merkle.h), or the hashes of
 * the pages below one of its leaves; for comparing replicas.  A page at or beyond
 * its relation's size at that LSN does not count, nor one of a relation that is
 * dropped then.  An extent at a time:
 *
 *   begin (owner)            which extents there are
 *     │
 *     ├──▶ next (owner)      an extent is chosen; false: that was all
 *     │      ▼
 *     │    work (any)        its pages are read and hashed; bytes of pages
 *     │      ▼
 *     └─── take (owner)      into the tree; *n pages of it, in order, until the
 *                            next call.  Not AU_OK: of no use, see error.
 *
 * From begin to end the LSN stays readable, and the store is not closed.
 * begin: lsn is at or above the horizon and not above what is applied; leaf =
 * AU_MERKLE_LEAVES: all.  `from`: only extents that begin there or behind, NULL: all.
 * NULL: out of memory, or the sizes could not be read (au_pagestore_error).
 * Pages that are damaged are handed out so, and are not in the tree.
 */
typedef struct AuDigest AuDigest;

AuDigest   *au_pagestore_digest_begin(AuPageStore *ps, uint32_t slice, uint32_t leaf,
									  const AuPageId *from, AuLsn lsn);
bool		au_pagestore_digest_next(AuDigest *d);
uint64_t	au_pagestore_digest_work(AuDigest *d);
AuStatus	au_pagestore_digest_take(AuDigest *d, const AuDigestPage **pages, uint32_t *n);
const AuMerkle *au_pagestore_digest_tree(AuDigest *d);	/* after the last one */
const char *au_pagestore_digest_error(const AuDigest *d);
void		au_pagestore_digest_end(AuDigest *d);

uint64_t	au_pagestore_disk_bytes(AuPageStore *ps);	/* of RocksDB's files */
void		au_pagestore_stats(AuPageStore *ps, AuPageStoreStats *out);

/* RocksDB's own counters since the store was opened; takes some 100 us. */
typedef struct AuPageStoreFiles
{
	uint64_t	cache_hits;		/* blocks found in the block cache */
	uint64_t	cache_misses;	/* ... that had to be read */
	uint64_t	compaction_read_bytes;
	uint64_t	compaction_write_bytes;
	uint64_t	flush_bytes;
	uint64_t	stall_us;		/* writes waited for flushes and compactions */
} AuPageStoreFiles;

void		au_pagestore_files(AuPageStore *ps, AuPageStoreFiles *out);
/* Time it took to make images of pages, and compactions of files. */
void		au_pagestore_latency(AuPageStore *ps, AuHist *materialise, AuHist *compaction);
const char *au_pagestore_error(const AuPageStore *ps);

/*
 * Offline check of a stopped store: CRC and structure of every version, and
 * that every page's chain applies.  Each problem is reported through fn.
 */
typedef struct AuPageStoreCheck
{
	AuLsn		applied;
	AuLsn		restart;
	uint64_t	versions;
	uint64_t	pages;
	uint64_t	relations;
	uint64_t	problems;
} AuPageStoreCheck;

AuStatus	au_pagestore_check(const char *dir, void (*fn) (void *ctx, const char *problem),
							   void *ctx, AuPageStoreCheck *out, char *err, size_t errlen);

#endif							/* AU_PAGESTORE_H */
