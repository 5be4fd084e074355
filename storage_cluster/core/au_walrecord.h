/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_walrecord.h: what one whole WAL record says.  Internal to the WAL
 * decoder (au_waldecode.h), apart so that it can be read and tested alone.
 *
 * Follows PostgreSQL's access/xlogrecord.h (header, block references, main
 * data), access/xact.h (commit and abort) and commands/dbcommands_xlog.h.
 */
#ifndef AU_WALRECORD_H
#define AU_WALRECORD_H

#include "core/au_waldecode.h"

#define AU_WAL_RECORD_HEADER 24

/* Where the fields of the record header are. */
#define AU_XL_TOT_LEN 0
#define AU_XL_XID 4
#define AU_XL_PREV 8
#define AU_XL_INFO 16
#define AU_XL_RMID 17
#define AU_XL_CRC 20

/* Resource managers and record types that we look into. */
#define AU_RM_XLOG 0
#define AU_RM_XACT 1
#define AU_RM_SMGR 2
#define AU_RM_DBASE 4
#define AU_RM_CUSTOM_MIN 128
#define AU_XLOG_SWITCH 0x40
#define AU_XLOG_OVERWRITE_CONTRECORD 0xD0

/* What differs between PostgreSQL releases. */
typedef struct AuWalVersion
{
	uint16_t	page_magic;		/* xlp_magic */
	uint16_t	major;			/* of the release, for messages */
	uint8_t		rmid_max;		/* last built-in resource manager */
	uint8_t		stats_item_len; /* dropped statistics entry in a commit */
} AuWalVersion;

/* NULL if this build does not know the magic. */
const AuWalVersion *au_wal_version_find(uint16_t page_magic);

/* The version to assume before a page header has been seen. */
const AuWalVersion *au_wal_version_default(void);

/* Room for the relations a commit drops; grows, never shrinks by itself. */
typedef struct AuWalDrops
{
	AuRelId    *rels;
	size_t		cap;
} AuWalDrops;

/* Main data of a record, NULL and 0 if it has none. */
typedef struct AuWalMain
{
	const uint8_t *data;
	uint32_t	len;
} AuWalMain;

/*
 * Parse the record of `total` bytes whose CRC is right.  rec->lsn and
 * rec->end are the caller's; everything else is set here.  Block references
 * are looked at if the record is ours or all_blocks is set; main data of
 * records without need are not looked at (*main is then empty).
 *
 * AU_OK; AU_CORRUPT or AU_UNSUPPORTED with *why (a static string); AU_NOMEM.
 */
AuStatus	au_walrecord_parse(const AuWalVersion *version,
							   const uint8_t *bytes, uint32_t total,
							   bool all_blocks, AuWalDrops *drops,
							   AuWalRecord *rec, AuWalMain *main,
							   const char **why);

#endif							/* AU_WALRECORD_H */
