/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_landing_int.h: what the files of the landing log share.
 *
 *   au_landing.c       append, sync
 *   au_landing_read.c  reading by LSN, and the walk over entries
 *   au_landing_open.c  opening, with recovery
 *   au_landing_cut.c   trim, truncate
 *   au_landing_file.c  the operating system's files
 *   au_landing_pmem.c  ... and persistent memory
 *
 * Segment header, little-endian:
 *
 *   0  u32 magic       "AULG"
 *   4  u32 version
 *   8  u64 system identifier
 *   16 u64 first LSN   the file's name says the same
 *   24 u32 0
 *   28 u32 crc         CRC-32C of bytes 0..27
 *
 * Entry:
 *
 *   0  u32 magic       "AULE"
 *   4  u32 length      1 .. AU_LANDING_APPEND_MAX
 *   8  u64 lsn
 *   16 u64 term
 *   24 u64 durable     mark when it was written, at most lsn
 *   32 u32 timeline
 *   36 u32 crc         CRC-32C of bytes 0..35 and the log bytes
 *   40 log bytes
 *
 * Entries begin at multiples of 8 (version 1: one right after the other), so
 * that the word that makes one visible, its first, is stored at once.  After
 * the last entry there may be zeros to the end of the file.
 *
 * File "durable": two slots, at 0 and MARK_SLOT_SPACE, written in turn; the
 * valid one with the higher serial counts:
 *
 *   0  u32 magic       "AULD"
 *   4  u32 version     2
 *   8  u64 serial
 *   16 u64 durable     mark after the last sync
 *   24 u64 cut         not 0: what is at or above it is being cut off
 *   32 u32 0
 *   36 u32 crc         CRC-32C of bytes 0..35
 */
#ifndef AU_LANDING_INT_H
#define AU_LANDING_INT_H

#include <pthread.h>
#include <stdatomic.h>

#include "store/au_landing.h"
#include "store/au_landing_io.h"

#define LANDING_VERSION 2
#define LANDING_VERSION_PACKED 1	/* entries not aligned; read, not written */

#define SEG_MAGIC 0x474C5541u
#define SEG_HEADER 32
#define SEG_VERSION_AT 4
#define SEG_SYSID_AT 8
#define SEG_FIRST_AT 16
#define SEG_CRC_AT 28

#define ENTRY_MAGIC 0x454C5541u
#define ENTRY_HEADER 40
#define ENTRY_LENGTH_AT 4
#define ENTRY_LSN_AT 8
#define ENTRY_TERM_AT 16
#define ENTRY_DURABLE_AT 24
#define ENTRY_TIMELINE_AT 32
#define ENTRY_CRC_AT 36
#define ENTRY_MAX (ENTRY_HEADER + AU_LANDING_APPEND_MAX)

#define MARK_NAME "durable"
#define MARK_MAGIC 0x444C5541u
#define MARK_VERSION 2
#define MARK_SIZE 40
#define MARK_SERIAL_AT 8
#define MARK_LSN_AT 16
#define MARK_CUT_AT 24
#define MARK_CRC_AT 36
#define MARK_SLOT_SPACE 4096	/* one write of a disk never tears both */

#define TMP_NAME "rewrite.tmp"
#define SEG_NAME_LEN 20			/* 16 hex digits and ".log" */

/* One place per so many bytes of a segment is remembered. */
#define INDEX_STRIDE (128u << 10)

/* Rolled-over segments that wait for their sync. */
#define UNSYNCED_MAX 8

typedef struct LandingPlace
{
	AuLsn		lsn;			/* of an entry */
	uint64_t	off;			/* where it is in the file */
} LandingPlace;

typedef struct LandingSegment
{
	AuLsn		first;
	uint32_t	version;		/* of its file */
	AuLsn		end;			/* after its last entry */
	uint64_t	size;			/* of the file's valid part */
	uint64_t	allocated;		/* size of the file, as far as known */
	LandingPlace *places;		/* ascending; sparse */
	size_t		nplaces;
	size_t		places_cap;
} LandingSegment;

/* An entry found valid. */
typedef struct LandingEntry
{
	AuLsn		lsn;
	uint32_t	length;
	uint64_t	term;
	uint32_t	timeline;
	AuLsn		durable;
	const uint8_t *bytes;		/* in the window, until it moves */
} LandingEntry;

/* Bytes of one file in memory. */
typedef struct LandingWindow
{
	uint8_t    *buf;
	size_t		cap;			/* at least ENTRY_MAX */
	void	   *file;			/* NULL: empty */
	uint64_t	off;
	size_t		len;
	LandingEntry last;			/* found last; length 0: none, or moved away */
} LandingWindow;

/* A segment that was trimmed; its file is still there. */
typedef struct LandingGone
{
	AuLsn		first;
	uint64_t	space;
} LandingGone;

/*
 * Threads: one appends, reads, trims and truncates; one syncs; one removes
 * files of trimmed segments; any may ask for the positions.  `lock` guards what
 * the others take over from the appending one; `sync_lock` is held for a whole
 * sync, and is taken first.
 */
struct AuLanding
{
	const AuLandingIo *io;
	void	   *dir;
	char	   *dir_name;		/* for messages */
	uint64_t	system_identifier;
	uint64_t	segment_bytes;
	uint64_t	disk_reserve_bytes;

	_Atomic AuLsn start_lsn;
	_Atomic AuLsn end_lsn;
	_Atomic AuLsn durable_lsn;
	_Atomic uint64_t bytes;		/* of all segments: landing_segment_space */
	atomic_bool sync_failed;	/* no append or sync any more */
	bool		broken;			/* file and memory do not agree any more */

	/* The appending thread's. */
	LandingSegment *segs;		/* ascending, at least one once open */
	size_t		nsegs;
	size_t		segs_cap;
	LandingWindow window;
	void	   *read_file;		/* open for reading, of the segment below */
	AuLsn		read_first;
	AuLsn		last_lsn;		/* the entry found last ... */
	uint64_t	last_off;		/* ... and its place in read_file, 0: none */

	uint64_t	mapped;			/* of `file`, on a mapped disk */

	pthread_mutex_t sync_lock;
	void	   *mark_file;		/* under sync_lock, with its serial */
	uint64_t	mark_serial;
	pthread_mutex_t lock;
	void	   *file;			/* the newest segment's, for appends */
	void	   *unsynced[UNSYNCED_MAX];
	int			n_unsynced;
	bool		dir_unsynced;	/* a segment was created */
	LandingGone *gone;			/* oldest first */
	size_t		ngone;
	size_t		gone_cap;
};

/* Formats the message, returns the status. */
AuStatus	landing_error(AuStatus status, char *err, size_t errlen,
						  const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* "could not <what> <name> in <dir>: <reason>"; AU_FULL if the disk (or the
 * file size limit) is, AU_REFUSED for EBUSY, else AU_IO. */
AuStatus	landing_os_error(const AuLanding *l, int os_error, const char *what,
							 const char *name, char *err, size_t errlen);

/* au_landing.c */
void		landing_segment_name(char *name, AuLsn first);	/* SEG_NAME_LEN + 1 */

/* Adds a segment to memory; NULL when out of memory. */
LandingSegment *landing_segment_push(AuLanding *l, AuLsn first);
void		landing_segment_pop(AuLanding *l);

/* Makes the file of an empty segment, on a mapped disk with room for `size`
 * bytes, and leaves it open in *file; *mapped as file_allocate says, else 0. */
AuStatus	landing_segment_create(AuLanding *l, AuLsn first, uint64_t size, void **file,
								   uint64_t *mapped, char *err, size_t errlen);

/* Counts an entry into the segment; false when out of memory (then nothing
 * has changed). */
bool		landing_segment_add(LandingSegment *seg, uint32_t length);

/* Where the entry after one that ends at `end` begins. */
uint64_t	landing_entry_place(const LandingSegment *seg, uint64_t end);

/* Bytes of the segment's file, and a note of what it was allocated. */
uint64_t	landing_segment_space(const LandingSegment *seg);
void		landing_segment_grown(AuLanding *l, LandingSegment *seg, uint64_t allocated);

/*
 * Writes a header and what follows it, so that (mapped disks) a power cut
 * leaves the header's first word only if it leaves everything.
 */
int			landing_write_record(AuLanding *l, void *file, uint64_t off,
								 const uint8_t *header, size_t header_len,
								 const uint8_t *bytes, size_t len);

void		landing_encode_entry(uint8_t *header, AuLsn lsn, uint64_t term, uint32_t timeline,
								 AuLsn durable, const uint8_t *bytes, uint32_t len);

/* Is the log in a state to be changed? */
AuStatus	landing_check_usable(const AuLanding *l, char *err, size_t errlen);

/* Writes the mark into the older slot; with `sync`, durably.  `cut`: see
 * above; 0: none.  Call under sync_lock. */
int			landing_mark_write(AuLanding *l, AuLsn lsn, AuLsn cut, bool sync);

/* ... into both slots, durably, so that no older one is left. */
int			landing_mark_write_both(AuLanding *l, AuLsn lsn);

/* au_landing_sync under sync_lock. */
AuStatus	landing_sync_locked(AuLanding *l, char *err, size_t errlen);

/* au_landing_read.c */
void		landing_window_forget(LandingWindow *w);

/* The segment's file is about to change at and above off. */
void		landing_window_limit(AuLanding *l, const LandingSegment *seg, uint64_t off);

/*
 * At least `need` bytes (at most ENTRY_MAX) of file from off; *got says how
 * many there are, less than need only at the end of the file.  The pointer is
 * valid until the next call.
 */
int			landing_window_get(AuLanding *l, void *file, uint64_t off,
							   size_t need, const uint8_t **bytes, size_t *got);

/* The entry at off: AU_OK, AU_CORRUPT if there is no valid one (torn, damaged,
 * end of file), AU_IO with *os_error. */
AuStatus	landing_entry_at(AuLanding *l, void *file, uint64_t off,
							 LandingEntry *entry, int *os_error);

void		landing_read_forget(AuLanding *l);

/* Finds the entry that holds lsn (which must be in the log), in segment
 * *seg at *off. */
AuStatus	landing_find(AuLanding *l, AuLsn lsn, size_t *seg, uint64_t *off,
						 LandingEntry *entry, char *err, size_t errlen);

#endif							/* AU_LANDING_INT_H */
