/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_waldecode.h: cuts PostgreSQL's WAL, arriving as a stream of bytes, into
 * records, checks them, and hands on what storage needs.
 *
 * Follows the layout in PostgreSQL's access/xlogrecord.h and
 * access/xlog_internal.h: 8 kB WAL pages with short and long headers,
 * records continued across pages (xlp_rem_len), records padded to 8 bytes,
 * XLOG_SWITCH to the segment's end, XLP_FIRST_IS_OVERWRITE_CONTRECORD (the
 * record begun before a crash is forgotten).
 *
 * Pure: no I/O, no clock.  Memory is bounded by the longest WAL record
 * (AU_WAL_RECORD_MAX); an oversized one is AU_CORRUPT.
 *
 * Invariants:
 *  1. Every record handed on passed its CRC and chains to the one before it
 *     (xl_prev), except the first after au_waldecode_start.
 *  2. When au_waldecode_feed returns AU_OK, all records that end at or below
 *     au_waldecode_position have been handed on, in order, once.
 */
#ifndef AU_WALDECODE_H
#define AU_WALDECODE_H

#include "common/au_base.h"
#include "common/au_wal_format.h"

#define AU_WAL_RECORD_MAX (1020u * 1024 * 1024 + 65536)	/* PostgreSQL's own limit */
#define AU_WAL_BLOCKS_MAX 33
#define AU_WAL_PAGE_SIZE 8192u

typedef struct AuWalBlock
{
	uint8_t		id;
	AuPageId	page;
	bool		has_image;		/* full-page image present (not ours) */
	const uint8_t *data;		/* block data: page operations */
	uint32_t	data_len;
} AuWalBlock;

typedef enum AuWalKind
{
	AU_WAL_OURS,				/* our resource manager */
	AU_WAL_DROP_RELS,			/* commit/abort (also prepared) with dropped relations */
	AU_WAL_NEW_REL,				/* a relation's file is made: whatever was known
								 * by this name is another, dropped one's */
	AU_WAL_DROP_DB,				/* DROP DATABASE / movedb: (db, tablespaces[]) */
	AU_WAL_XACT_END,			/* commit or abort: xid, time; drops none */
	AU_WAL_OTHER				/* kept as log only; not handed on */
} AuWalKind;

typedef struct AuWalRecord
{
	AuWalKind	kind;
	AuLsn		lsn;			/* start */
	AuLsn		end;			/* end: the LSN pages get */
	uint32_t	xid;
	uint8_t		rmid;
	uint8_t		info;			/* xl_info & 0xF0 */
	uint32_t	total_len;		/* xl_tot_len */
	AuLsn		prev;			/* xl_prev */

	/* AU_WAL_OURS; of other kinds nblocks is only set for a trace */
	AuRecMain	main;
	int			nblocks;
	AuWalBlock	blocks[AU_WAL_BLOCKS_MAX];

	/* commit and abort of a prepared transaction: xid is the transaction's,
	 * not the finishing backend's */

	/* AU_WAL_DROP_RELS, AU_WAL_NEW_REL: ndrop relations, all forks (fork is
	 * 0 here) */
	/* AU_WAL_DROP_DB: ndrop entries with spc and db set, rel 0 */
	int			ndrop;
	const AuRelId *drop;		/* valid until the callback returns */

	/* commit and abort */
	bool		is_commit;
	int64_t		xact_time;		/* microseconds since 2000-01-01 */
} AuWalRecord;

/* Return other than AU_OK to stop the feed with that status: the record then
 * counts as not handed on, and the decoder waits to be started again (at
 * au_waldecode_restart_lsn).  rec and what it points to are valid until the
 * function returns. */
typedef AuStatus (*AuWalRecordFn) (void *ctx, const AuWalRecord *rec);

typedef struct AuWalDecode AuWalDecode;

/* NULL when out of memory. */
AuWalDecode *au_waldecode_new(AuWalRecordFn fn, void *ctx);
void		au_waldecode_free(AuWalDecode *d);

/*
 * Begin (again) at `lsn`, which must be the beginning of a record or lie in
 * the padding or page header just before one.  segment_size: bytes of a WAL
 * segment file, a power of two in 1 MB .. 1 GB.
 */
void		au_waldecode_start(AuWalDecode *d, AuLsn lsn, uint32_t segment_size);

/*
 * Feed the bytes that follow what was fed before, in pieces of any size.
 * Whatever is not AU_OK stops the decoder until it is started again; feeding
 * it meanwhile returns the same status.  AU_CORRUPT: the log is damaged.
 * AU_UNSUPPORTED: WAL of a PostgreSQL release, or an Aurora record of a
 * version, that this build does not know.  For both au_waldecode_error says
 * what and where.  AU_NOMEM: no memory to put a record together.
 */
AuStatus	au_waldecode_feed(AuWalDecode *d, const uint8_t *bytes, size_t len);

/* All bytes below have been fed and every record ending at or below handed on. */
AuLsn		au_waldecode_position(const AuWalDecode *d);

/* Where to au_waldecode_start after a restart so that nothing is missed: the
 * start of the record in progress (also of an XLOG_SWITCH whose segment is
 * not yet over; it is handed on again then), or the position between
 * records. */
AuLsn		au_waldecode_restart_lsn(const AuWalDecode *d);

/*
 * Where the first record that begins on a page does, a position for
 * au_waldecode_start; bytes are the first len of the page at `at`.  false: none
 * does, too few bytes tell, or it is no page of WAL (as those that an
 * XLOG_SWITCH leaves).
 */
bool		au_waldecode_first_record(const uint8_t *bytes, size_t len, AuLsn at,
									  uint32_t segment_size, AuLsn *record);

/* "" or the reason for AU_CORRUPT and AU_UNSUPPORTED, with LSN. */
const char *au_waldecode_error(const AuWalDecode *d);

/* For tools and tests: fn sees every record, AU_WAL_OTHER too, with its block
 * references, before the record function does.  NULL ends it. */
void		au_waldecode_set_trace(AuWalDecode *d, AuWalRecordFn fn, void *ctx);

#endif							/* AU_WALDECODE_H */
