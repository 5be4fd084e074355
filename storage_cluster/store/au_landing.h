/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_landing.h: the landing log, where log bytes become durable before they
 * are acknowledged.  One directory per volume, one file per segment of the
 * stream ("%016lX.log", named by the LSN of its first byte), each opened by a
 * header and followed by entries, each a contiguous run of the stream.  An
 * entry also tells what had been made durable when it was written.  Beside
 * them the file "durable" holds the newest such mark.  au_landing_int.h has
 * the bytes.
 *
 * The log is the same on ordinary files and on persistent memory; what differs
 * is behind AuLandingIo (au_landing_io.h):
 *
 *                   ordinary files            persistent memory
 *   a segment       grows                     is allocated whole, mapped
 *   append          pwritev                   stores; the entry's first word last
 *   sync            fdatasync, by a worker    drain, in the appending thread
 *   the mark        written after the sync,   persistent before the sync returns
 *                   not synced itself
 *
 * Invariants:
 *  1. Entries follow each other without gap or overlap, across segments.
 *  2. Bytes below au_landing_durable() survive a crash of process or machine.
 *  3. After a crash, opening finds the longest valid prefix.  What follows the
 *     first gap or bad entry is cut off only if no mark (of any entry, also
 *     later ones, or of the file "durable") lies above that place: writes that
 *     were not synced may reach the disk in any order.  Otherwise bytes that
 *     were durable are damaged: AU_CORRUPT, never a silent cut.
 *  4. Segment files are deleted only by au_landing_remove and
 *     au_landing_truncate, and in opening as 3 says.
 *
 * What 3 does not notice: on ordinary files, damage to what the very last sync
 * before a power cut covered, if that sync's mark was lost with the power.  On
 * persistent memory there is no such gap.
 *
 * Threads: one appends, reads, trims and truncates; another may sync, so that
 * a group of appends shares one sync; a third may remove trimmed files.  But if au_landing_sync_inline(), the
 * sync must be called by the thread that appends: it waits for that thread's
 * own stores.
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
	/* used when there is no segment yet; AU_LSN_INVALID: then do not begin a
	 * log (AU_INVALID) */
	AuLsn		start_lsn;
	/* A segment's file grows no longer than this, except for one entry that
	 * is longer; e.g. 64 MB */
	uint64_t	segment_bytes;
	/* appends fail with AU_FULL when less is free */
	uint64_t	disk_reserve_bytes;
	/* Not 0, for a log that was found damaged: segments before the newest one
	 * that begins at or below it are not looked at, and removed. */
	AuLsn		needed_lsn;
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

/* Does a sync take no system call?  Then it need not go to another thread, and
 * must not: see above. */
bool		au_landing_sync_inline(const AuLanding *l);
const char *au_landing_kind(const AuLanding *l);	/* "file" or "pmem" */

/* Read up to cap bytes from lsn, also of what is not yet durable; *got may be
 * short at entry borders.
 * AU_NOT_FOUND below start or at the end. AU_CORRUPT: CRC. */
AuStatus	au_landing_read(AuLanding *l, AuLsn lsn, uint8_t *buf, size_t cap,
							size_t *got, char *err, size_t errlen);

/*
 * Forget whole segments that end at or below lsn and are durable.  The newest
 * one stays.  Call from the thread that appends and reads; it waits for no
 * disk.  *more: files are to be removed by au_landing_remove.
 */
AuStatus	au_landing_forget(AuLanding *l, AuLsn lsn, bool *more, char *err, size_t errlen);
/* Remove the files of what was forgotten, which takes tens of milliseconds each:
 * any thread, but one at a time.  After a failure the next call goes on. */
AuStatus	au_landing_remove(AuLanding *l, char *err, size_t errlen);
/* Both. */
AuStatus	au_landing_trim(AuLanding *l, AuLsn lsn, char *err, size_t errlen);

/* Cut off everything at and above lsn (log that was never acknowledged),
 * durably.  Interrupted by a crash it is finished by the next opening, or has
 * not begun.  What is left is durable, too.  AU_INVALID below the start.  Call from the thread that
 * appends and reads; waits for a sync that is running. */
AuStatus	au_landing_truncate(AuLanding *l, AuLsn lsn, char *err, size_t errlen);

#endif							/* AU_LANDING_H */
