/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_scan_shadow.c: keep stock read-ahead away from the local file.
 *
 * Bitmap heap scans and ANALYZE call PrefetchBuffer(scan->rs_rd, ...) on
 * their own, before they ask the access method for the block.  For a block
 * that is not cached it ends in mdprefetch(), which opens the local file's
 * segment that would hold the block.  The main fork of an aurora table is
 * empty, so from block 131072 (1 GB) on there is no such segment, and the
 * query would fail with "could not open file".  No setting of ours could turn
 * that off for one table, and no hook sees all callers (ANALYZE by autovacuum,
 * subplans of EvalPlanQual).
 *
 * So these scans show the executor a shadow of the relation: a copy of the
 * relcache entry, with a storage manager handle of its own in which every
 * segment of the main fork is open already, as /dev/null.  The advice to read
 * ahead is given to /dev/null, and nothing else changes.
 *
 * Invariants:
 *  1. The shadow is only ever used for PrefetchBuffer and to find the access
 *     method's routine; our own code uses the real relation, which outlives
 *     the shadow (the scan holds a reference).
 *  2. The shadow's handle is not known to smgr.c, so nothing closes or writes
 *     through it.
 *  3. The shadow has its own copy of the pg_class row, which is all that
 *     PrefetchBuffer looks at, so a rebuild of the relcache entry does not
 *     matter to it.
 *
 * It relies on the shape of md.c's segment array, the same in PostgreSQL 10
 * to 18.  From 17 on ANALYZE hands the access method a read stream instead,
 * and from 18 on bitmap scans do: this file is for what comes before.
 */
#include "postgres.h"

#include <fcntl.h>

#include "am/aurora_scan.h"
#include "catalog/pg_class.h"
#include "storage/fd.h"
#include "storage/smgr.h"
#include "utils/memutils.h"

/* md.c's _MdfdVec: an open segment */
typedef struct ShadowSegment
{
	File		vfd;
	BlockNumber segno;
} ShadowSegment;

#define SHADOW_SEGMENTS (MaxBlockNumber / RELSEG_SIZE + 1)

typedef struct ShadowRelation
{
	RelationData rel;			/* first: what rs_rd points to */
	FormData_pg_class pg_class;
	SMgrRelationData smgr;
} ShadowRelation;

/* 256 kB, for all shadows of this process; made when first needed. */
static ShadowSegment *shadow_segments = NULL;

static void
make_shadow_segments(void)
{
	ShadowSegment *segments;
	File		vfd;

	segments = MemoryContextAlloc(TopMemoryContext,
								  sizeof(ShadowSegment) * SHADOW_SEGMENTS);
	vfd = PathNameOpenFile("/dev/null", O_RDONLY | PG_BINARY);
	if (vfd < 0)
	{
		pfree(segments);
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open file \"%s\": %m", "/dev/null")));
	}
	for (BlockNumber segno = 0; segno < SHADOW_SEGMENTS; segno++)
	{
		segments[segno].vfd = vfd;
		segments[segno].segno = segno;
	}
	shadow_segments = segments;
}

/*
 * A stand-in for rel, palloc'd in one piece, for scan->rs_rd; free it with
 * pfree.
 */
Relation
aurora_scan_shadow_relation(Relation rel)
{
	ShadowRelation *shadow;

	if (shadow_segments == NULL)
		make_shadow_segments();

	shadow = palloc0(sizeof(ShadowRelation));

	memcpy(&shadow->pg_class, rel->rd_rel, CLASS_TUPLE_SIZE);
	shadow->rel = *rel;
	shadow->rel.rd_rel = &shadow->pg_class;
	shadow->rel.rd_smgr = &shadow->smgr;

	/* so that blocks in shared_buffers are found there */
	shadow->smgr.smgr_rnode.node = rel->rd_node;
	shadow->smgr.smgr_rnode.backend = rel->rd_backend;
	shadow->smgr.smgr_targblock = InvalidBlockNumber;
	for (int forknum = 0; forknum <= MAX_FORKNUM; forknum++)
		shadow->smgr.smgr_cached_nblocks[forknum] = InvalidBlockNumber;
	shadow->smgr.smgr_which = 0;	/* md */
	shadow->smgr.md_num_open_segs[MAIN_FORKNUM] = SHADOW_SEGMENTS;
	shadow->smgr.md_seg_fds[MAIN_FORKNUM] =
		(struct _MdfdVec *) shadow_segments;

	return &shadow->rel;
}
