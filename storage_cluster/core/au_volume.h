/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_volume.h: the identity of a volume, its terms and its group, kept in the
 * file VOLUME of its directory (written to a temporary file, synced, renamed,
 * directory synced: the old or the new one is there, never half of one).
 *
 *   0  u8[8] magic          "AURORAVL"
 *   8  u32 version          AU_VOLUME_VERSION
 *   12 u32 segment_size     of the server's WAL
 *   16 u64 system_identifier
 *   24 u64 start_lsn        first byte of log the volume ever had
 *   32 u64 term             newest promised
 *   40 u64 voted_for        the writer it was promised to
 *   48 u32 timeline         of the newest writer that was let in
 *   52 u8  members          of the group, 0: the node is alone
 *   53 u8  write_quorum
 *   54 u16 terms            in the history
 *   56     AU_HISTORY_MAX x (u64 term, u64 start, u32 timeline)
 *   1336   AU_GROUP_MAX x (u64 node id, u8[128] address)
 *   2288 u32 group_epoch    0 in version 2, which is still read
 *   2292 u64 lost_before  0 up to version 3, which is written if it is 0
 *   2300 u32 crc            CRC-32C of bytes 0..2299
 *
 * What is not used is zero.
 */
#ifndef AU_VOLUME_H
#define AU_VOLUME_H

#include "common/au_base.h"
#include "common/au_history.h"

#define AU_VOLUME_MAGIC "AURORAVL"
#define AU_VOLUME_VERSION 4
#define AU_VOLUME_VERSION_MIN 2
#define AU_VOLUME_LEN 2304

/* So much log stays below what the pages need, so that a server can be compared
 * with it (at least AU_PROPOSER_OVERLAP). */
#define AU_VOLUME_COMPARE_BYTES ((uint64_t) 128 << 10)

typedef struct AuVolumeMeta
{
	uint64_t	system_identifier;
	AuLsn		start_lsn;
	uint64_t	term;
	uint64_t	voted_for;
	uint32_t	timeline;
	uint32_t	segment_size;
	AuHistory	history;
	AuGroup		group;
	/* 0, or: its landing log was damaged, and begun anew; how far it had
	 * acknowledged log nobody knows.  It has no vote until a writer of this term
	 * or a later one has let it in, and it holds what that writer elected. */
	uint64_t	lost_before;
} AuVolumeMeta;

void		au_volume_encode(uint8_t *buf, const AuVolumeMeta *m);
/* AU_OK, AU_UNSUPPORTED (a newer version), AU_CORRUPT; *why says what to do. */
AuStatus	au_volume_decode(const uint8_t *buf, size_t len, AuVolumeMeta *m, const char **why);
/*
 * May node_id begin the volume's log anew when it is damaged?  If others keep
 * that log, and can elect a writer without this one's vote.
 */
bool		au_volume_may_lose_log(const AuVolumeMeta *m, uint64_t node_id);
/* It does, with log from *start on, for pages that are decoded again from
 * restart on.  m is to be persisted before the log is touched. */
void		au_volume_lose_log(AuVolumeMeta *m, AuLsn restart, AuLsn *start);
/* Is it whole again, with log that is durable and pages applied so far?  If so,
 * lost_before may go.  counts: what it had acknowledged may have made a quorum. */
bool		au_volume_log_whole(const AuVolumeMeta *m, bool counts, AuLsn durable, AuLsn applied);
/* A power of two from 1 MB to 1 GB. */
bool		au_segment_size_valid(uint32_t size);

#endif							/* AU_VOLUME_H */
