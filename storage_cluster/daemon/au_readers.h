/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_readers.h: threads that read pages from files, so that the loop thread
 * never waits for a disk.
 *
 * What is in memory (gathered changes, memtables, block cache) is read on the
 * loop thread if the request is short: handing it over costs more than doing
 * it.  Long requests, and what turns out to need files, go to the threads;
 * but while short ones find all they need in the OS's cache, a few in each turn
 * of the loop are read from files on it, too: to hand one over and to be woken
 * costs as much as to read it.  Those that sleep, waiting for a disk, end that;
 * those that only waited for their turn on a busy processor do not.
 * How many are under way is bounded by the node (AU_NODE_READING_BLOCKS_MAX).
 */
#ifndef AU_READERS_H
#define AU_READERS_H

#include <uv.h>

#include "core/au_node.h"
#include "store/au_pagestore.h"

#define AU_READ_THREADS 4
/* Requests of at most this many blocks are tried on the loop thread. */
#define AU_READ_INLINE_BLOCKS 4
/* So many in a row did not sleep and took at most so much of the processor:
 * then files are fast.  Each that is not takes half of the row. */
#define AU_READ_FAST_ROW 32
#define AU_READ_FAST_US 250
/* The cache was in vain so often in a row: try it for one in so many only. */
#define AU_READ_MISSED_ROW 16
/* In each turn of the loop. */
#define AU_READ_INLINE_TURN 4

typedef struct AuReaders AuReaders;

/* done: called on the loop thread for each batch that au_readers_read said
 * false to.  NULL with err: could not start. */
AuReaders  *au_readers_start(uv_loop_t *loop, void (*done) (void *ctx, AuPageBatch *batch),
							 void *ctx, char *err, size_t errlen);
/* All batches must be done.  The loop has to run once more. */
void		au_readers_stop(AuReaders *r);

/* A turn of the loop ends. */
void		au_readers_turn(AuReaders *r);

/* Requests read from files on the loop thread so far. */
uint64_t	au_readers_inline(const AuReaders *r);

/* Read a batch; true: done already.  The store stays open until it is done. */
bool		au_readers_read(AuReaders *r, AuPageStore *store, AuPageBatch *batch);

#endif							/* AU_READERS_H */
