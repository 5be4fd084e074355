/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_export.h: which slices a page store keeps, and how versions come from
 * another one: slices that move, stores that begin anew.
 *
 *           keep (at P)            all is in           drop
 *   none ──────────────▶ incoming ──────────▶ kept ──────────▶ dropping ──▶ none
 *                            └─────────────────────────────────────▲
 *
 * A store that was never told keeps all slices, and pays nothing.  Sizes,
 * drops and times are those of all relations, whatever is kept.
 *
 * kept: the store has all that may be read.  incoming: changes above P are
 * taken from the log, those at or below come as chunks (au_chunk.h) from
 * stores that keep the slice; it is not read.  dropping: nothing is taken,
 * what is stored is deleted in steps.
 *
 * How a crash is survived (au_pagestore.h, 1 to 4):
 *
 *  1. What is kept is stored in the batch of each generation, with positions.
 *     So a replay takes exactly the changes it must.
 *  2. Nothing is imported or deleted before a batch with the state that asks
 *     for it was written; what RocksDB recovers is a prefix, so never a
 *     chunk of a slice that is not incoming, nor a kept slice with a hole.
 *  3. A chunk and the place behind it are one batch: an import goes on after
 *     a crash where it was, from any store.
 *  4. While slices are incoming nothing that was dropped or truncated away is
 *     collected: it could come in behind the collector.
 *
 * Reading at LSN x >= horizon gives the same bytes as where it came from:
 * chunks leave out what nobody may ask for at or above their horizon, and
 * this store's horizon is raised to the highest of them.
 *
 * Threads as in au_pagestore.h: the owner's, except where a function says
 * otherwise.
 */
#ifndef AU_EXPORT_H
#define AU_EXPORT_H

#include "core/au_slices.h"
#include "store/au_chunk.h"
#include "store/au_pagestore.h"

/* ---- from a store ----------------------------------------------------- */

/* What is exported. */
typedef struct AuExportSet
{
	uint8_t		keyspace;		/* AU_KS_PAGE, or AU_KS_SIZE: sizes of all relations */
	bool		all;			/* pages of all slices, else of `slices` */
	AuSliceSet	slices;
	bool		ranged;			/* nothing behind `last` */
	AuPageId	last;
} AuExportSet;

typedef struct AuExport AuExport;

/* Applied LSN of the newest generation that is in RocksDB: export needs it to
 * be at or above `upto`, so freeze and write before. */
AuLsn		au_pagestore_written_lsn(const AuPageStore *ps);

/*
 * The next chunk: versions at or below `upto` from `from` on, for a store
 * whose horizon is `horizon`.  In three steps, as the scrubber: begin, work
 * on any one thread, end.  The store is not closed meanwhile.
 *
 * begin: AU_OK; AU_NEED_MORE: not written that far; AU_MOVED: a slice of the
 * set is not kept here; AU_GONE: upto is below the horizon; AU_NOMEM.
 */
AuStatus	au_pagestore_export_begin(AuPageStore *ps, const AuExportSet *set, AuLsn upto,
									  AuLsn horizon, const AuPlace *from, AuExport **out);
/*
 * Fills out (AU_CHUNK_MAX bytes) with a chunk of about `budget` bytes of
 * versions (at most AU_CHUNK_MAX / 2); *len is its length.  AU_CORRUPT, AU_IO,
 * AU_NOMEM: see au_pagestore_export_error; damaged versions are not sent.
 */
AuStatus	au_pagestore_export_work(AuExport *e, uint8_t *out, size_t budget, size_t *len);
const char *au_pagestore_export_error(const AuExport *e);
void		au_pagestore_export_end(AuExport *e);

/* ---- slices of a store ------------------------------------------------ */

void		au_pagestore_slices(const AuPageStore *ps, AuSlicesState *out);
bool		au_pagestore_slice_kept(const AuPageStore *ps, uint32_t slice);

/*
 * These slices, none of which is known here (neither kept nor dropping), are
 * incoming from now on; P is the LSN last given to au_pagestore_set_applied.
 * false: other slices are incoming.  Chunks are taken as soon as
 * au_pagestore_import_ready says so, which needs a freeze and a write.
 */
bool		au_pagestore_slices_keep(AuPageStore *ps, const AuSliceSet *slices);
/* These slices are not kept any more; those incoming only all together.  They
 * must not be read from now on. */
void		au_pagestore_slices_drop(AuPageStore *ps, const AuSliceSet *slices);
/* A bounded step of deleting; true: there is more to do now.  It waits for a
 * freeze and a write, for reads begun before, for digests of these slices (end
 * them), and, with slices still dropping, until what is to be deleted can be
 * read. */
bool		au_pagestore_slices_step(AuPageStore *ps);

/* ---- into a store ----------------------------------------------------- */

bool		au_pagestore_import_ready(const AuPageStore *ps);
/*
 * Write a chunk: of incoming slices, beginning at their place.  On any one
 * thread, but not while a generation is written; nothing else of the import
 * is asked meanwhile.  AU_INVALID, AU_CORRUPT: not written, err says why.
 * Others: as au_pagestore_write.  *place, *done: where it ended, for imported
 * (owner's thread).
 */
typedef struct AuImported
{
	AuPlace		place;
	bool		done;
	AuLsn		horizon;
	size_t		len;
} AuImported;

AuStatus	au_pagestore_import_write(AuPageStore *ps, const uint8_t *chunk, size_t len,
									  AuImported *out, char *err, size_t errlen);
void		au_pagestore_imported(AuPageStore *ps, const AuImported *imported);
/* All is in: incoming slices are kept.  They may be read once this was called;
 * a freeze, write and persist make it last. */
void		au_pagestore_import_finish(AuPageStore *ps);

/* ---- a store that begins with another one's sizes ---------------------- */

/* Of the newest generation that is in RocksDB. */
void		au_pagestore_position(const AuPageStore *ps, AuStorePosition *out);

/*
 * A new store in opt->dir, which must not hold one, at another's position.  It
 * keeps no slice; sizes are its first import (import_write with chunks of
 * AU_KS_SIZE, ready at once).  When all are in, found_end writes positions and
 * files, on any one thread; then close it, and open it as usual.  One that was
 * not ended cannot be opened: remove it.
 */
AuStatus	au_pagestore_found(AuPageStore **out, const AuPageStoreOptions *opt,
							   const AuStorePosition *position, char *err, size_t errlen);
AuStatus	au_pagestore_found_end(AuPageStore *ps, char *err, size_t errlen);

#endif							/* AU_EXPORT_H */
