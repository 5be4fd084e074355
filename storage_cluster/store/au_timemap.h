/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_timemap.h: which LSN the log had reached at which time, for retention by
 * time.  Times come from commit and abort records alone (microseconds since
 * 2000-01-01, as PostgreSQL counts), so a replay gives the same map, and
 * while nothing commits no time passes.
 *
 * Stored form (page store, key AU_TIMEMAP_KEY), little-endian:
 *
 *   0  u32 magic     AU_TIMEMAP_MAGIC "AUT1"
 *   4  u32 count     at most AU_TIMEMAP_MAX
 *   8  u64 newest    time of the newest record seen
 *   16 entries: u64 time, u64 lsn
 *   -4 u32 crc       CRC-32C of everything before
 *
 * Invariants:
 *  1. Entries ascend in time (not strictly) and in LSN (strictly); none has a
 *     time beyond `newest`.
 *  2. The map is bounded: when it is full every second entry goes, which
 *     makes answers older, never younger, than the truth.
 *  3. If the server's clock is set back, entries of the future get the new
 *     time: what lies before counts as younger than it is, and is kept longer.
 */
#ifndef AU_TIMEMAP_H
#define AU_TIMEMAP_H

#include "common/au_base.h"

#define AU_TIMEMAP_MAX 2048
#define AU_TIMEMAP_MAGIC 0x31545541u
#define AU_TIMEMAP_KEY "\0time"
#define AU_TIMEMAP_KEY_LEN 5
#define AU_TIMEMAP_BYTES_MAX (16 + AU_TIMEMAP_MAX * 16 + 4)

typedef struct AuTimeEntry
{
	int64_t		time;
	AuLsn		lsn;
} AuTimeEntry;

typedef struct AuTimeMap
{
	int64_t		newest;
	uint32_t	count;
	AuTimeEntry entries[AU_TIMEMAP_MAX];
} AuTimeMap;

/* A commit or abort at lsn, above all before.  An entry is made if it is
 * `apart` microseconds after the last one. */
void		au_timemap_add(AuTimeMap *m, int64_t time, AuLsn lsn, int64_t apart);
/* An LSN that the log had reached at this time, as new as known; 0: the map
 * does not reach back so far. */
AuLsn		au_timemap_lsn(const AuTimeMap *m, int64_t time);
/* What is needed only for LSNs below goes. */
void		au_timemap_forget(AuTimeMap *m, AuLsn lsn);
/* Log above lsn was cut off. */
void		au_timemap_cut(AuTimeMap *m, AuLsn lsn);

/* Encodes into out (AU_TIMEMAP_BYTES_MAX bytes); returns the length. */
size_t		au_timemap_encode(uint8_t *out, const AuTimeMap *m);
/* AU_OK or AU_CORRUPT. */
AuStatus	au_timemap_decode(const uint8_t *p, size_t len, AuTimeMap *m);

#endif							/* AU_TIMEMAP_H */
