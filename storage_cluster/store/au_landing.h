/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_landing.h: the landing log, where log bytes become durable before they
 * are acknowledged.  One directory per volume, one file per segment of the
 * stream ("%016lX.log", named by the LSN of its first byte), each opened by a
 * header (magic, version, system identifier, first LSN, CRC) and followed by
 * entries (u32 magic, u32 length, u64 lsn, u64 term, u64 durable, u32 timeline,
 * u32 crc, bytes), each entry a contiguous run of the stream; `durable` is what
 * had been made durable when the entry was written.  Beside them the file
 * "durable" holds the newest such mark; it is written after each sync and not
 * synced itself, so it may lag behind but never runs ahead.
 *
 * Invariants:
 *  1. Entries follow each other without gap or overlap, across segments.
 *  2. Bytes below au_landing_durable() survive a crash of process or machine.
 *  3. After a crash, opening finds the longest valid prefix.  What follows the
 *     first gap or bad entry is cut off only if no mark (of any entry, also
 *     later ones, or of the file "durable") lies above that place: writes that
 *     were not synced may reach the disk in any order.  Otherwise bytes that
 *     were durable are damaged: AU_CORRUPT, never a silent cut.
 *  4. Segment files are deleted only by au_landing_trim and
 *     au_landing_truncate, and in opening as 3 says.
 *
 * On ordinary files durability is fdatasync of what was written before;
 * au_landing_sync may run on another thread than append/read (one at a
 * time each), so that a group of appends shares one sync.
 */
#ifndef AU_LANDING_H
#define AU_LANDING_H

#include "common/au_base.h"

typedef struct AuLanding AuLanding;

#define AU_LANDING_APPEND_MAX (1u << 20)	/* bytes in one append */

struct AuLandingIo;				/* au_landing_io.h */

typedef struct AuLandingOptions
{
	const char *dir;			/* made if absent */
	uint64_t	system_identifier;
	AuLsn		start_lsn;		/* used when there is no segment yet */
	uint64_t	segment_bytes;	/* roll over to a new file at this size; e.g. 64 MB */
	/* appends fail with AU_FULL when less is free */
	uint64_t	disk_reserve_bytes;
	const struct AuLandingIo *io;	/* NULL: ordinary files */
} AuLandingOptions;

/*
 * Errors are described in err (always terminated).  AU_REFUSED: the log is of
 * another system, or in use by another process; AU_UNSUPPORTED: written by a
 * newer build; AU_CORRUPT: see invariant 3.  What was found is durable when
 * this returns AU_OK.
 */
AuStatus	au_landing_open(AuLanding **out, const AuLandingOptions *opt,
							char *err, size_t errlen);
void		au_landing_close(AuLanding *l);

/*
 * Append bytes [lsn, lsn+len); lsn must equal au_landing_end(), len be at most
 * AU_LANDING_APPEND_MAX (else AU_INVALID).  Not durable until a sync.
 * AU_FULL and AU_IO leave the log as it was (a partly written entry is cut off
 * again; if even that fails, AU_CORRUPT: reopen).
 */
AuStatus	au_landing_append(AuLanding *l, uint64_t term, uint32_t timeline,
							  AuLsn lsn, const uint8_t *bytes, size_t len,
							  char *err, size_t errlen);

/* Make everything appended before the call durable.  A failed fdatasync is
 * final (AU_IO: the node must stop; pages may have been dropped by the
 * kernel). */
AuStatus	au_landing_sync(AuLanding *l, char *err, size_t errlen);

AuLsn		au_landing_start(const AuLanding *l);	/* first byte held */
AuLsn		au_landing_end(const AuLanding *l); /* after the last byte appended */
AuLsn		au_landing_durable(const AuLanding *l); /* after the last byte synced */
uint64_t	au_landing_bytes(const AuLanding *l);	/* on disk */

/* Read up to cap bytes from lsn, also of what is not yet durable; *got may be
 * short at entry borders.
 * AU_NOT_FOUND below start or at the end. AU_CORRUPT: CRC. */
AuStatus	au_landing_read(AuLanding *l, AuLsn lsn, uint8_t *buf, size_t cap,
							size_t *got, char *err, size_t errlen);

/* Forget whole segments that end at or below lsn and are durable.  The newest
 * one stays.  Call from the thread that appends and reads. */
AuStatus	au_landing_trim(AuLanding *l, AuLsn lsn, char *err, size_t errlen);

/* Cut off everything at and above lsn (log that was never acknowledged),
 * durably.  A crash meanwhile leaves the log ended at lsn or later.  What is
 * left is durable, too.  AU_INVALID below the start.  Call from the thread that
 * appends and reads; waits for a sync that is running. */
AuStatus	au_landing_truncate(AuLanding *l, AuLsn lsn, char *err, size_t errlen);

#endif							/* AU_LANDING_H */
