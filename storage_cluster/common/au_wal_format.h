/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_wal_format.h: Aurora's WAL records, the contract between the extension
 * (which writes them) and the storage daemon and redo (which apply them).
 *
 * A record of resource manager AU_RMGR_ID registers the table blocks it
 * changes as ordinary block references (fork 0, no image); a block's data are
 * page operations (au_page.h).  A visibility map block may be registered
 * besides (fork 2): it is a local file's, and storage ignores it.  Its data are
 * one byte: the visibility bits to set for the block of reference 0.
 *
 * Main data; none at all if nothing is flagged, as for most changes of rows:
 *
 *   u8  version      AU_REC_VERSION
 *   u8  flags        AU_REC_*
 *   then, if flagged, in this order:
 *   u32 conflict_xid            AU_REC_CONFLICT   latest removed xid (standby)
 *   u8  vm_clear_blocks         AU_REC_VM_CLEAR   bit i: redo clears the VM bits
 *                                                 of block reference i
 *   u32 spc, db, rel, nblocks   AU_REC_TRUNCATE   main fork cut to nblocks
 *
 * The size of a relation on storage is the highest block a record registered
 * plus one, since the last truncation.
 */
#ifndef AU_WAL_FORMAT_H
#define AU_WAL_FORMAT_H

#include "au_base.h"

/* PostgreSQL's custom resource managers are 128..255; 128 is for experiments.
 * The id is a promise: WAL written with it must be read with it. */
#define AU_RMGR_ID 165
#define AU_RMGR_NAME "aurora"

#define AU_REC_VERSION 1

#define AU_REC_CONFLICT 0x01
#define AU_REC_VM_CLEAR 0x02
#define AU_REC_TRUNCATE 0x04
#define AU_REC_FLAGS_KNOWN 0x07

/* Longest main data: version, flags, xid, vm byte, truncate. */
#define AU_REC_MAIN_MAX (2 + 4 + 1 + 16)

/* Record kinds: the high four bits of xl_info.  One table for the encoder,
 * the describer and the tests. */
#define AU_RECORD_KINDS(X) \
	X(INSERT,		0x00) \
	X(MULTI_INSERT,	0x10) \
	X(DELETE,		0x20) \
	X(UPDATE,		0x30) \
	X(HOT_UPDATE,	0x40) \
	X(LOCK,			0x50) \
	X(CONFIRM,		0x60)	/* speculative insertion became final */ \
	X(PRUNE,		0x70) \
	X(VACUUM,		0x80)	/* dead line pointers became unused */ \
	X(VISIBLE,		0x90)	/* page all-visible; block 1 is the VM's */ \
	X(FREEZE,		0xA0) \
	X(EXTEND,		0xB0)	/* new, empty page at the end */ \
	X(IMAGE,		0xC0)	/* whole pages: copies and rewrites */ \
	X(TRUNCATE,		0xD0)

enum
{
#define AU_X(name, code) AU_XLOG_##name = code,
	AU_RECORD_KINDS(AU_X)
#undef AU_X
};

typedef struct AuRecMain
{
	uint8_t		flags;
	uint32_t	conflict_xid;
	uint8_t		vm_clear_blocks;
	AuRelId		truncate_rel;
	uint32_t	truncate_nblocks;
} AuRecMain;

/* Encodes into buf (AU_REC_MAIN_MAX bytes); returns the length,
 * which is 0 without flags. */
size_t		au_rec_main_encode(uint8_t *buf, const AuRecMain *m);

/* AU_OK; AU_UNSUPPORTED for a newer version; AU_CORRUPT for a bad length or
 * unknown flag. */
AuStatus	au_rec_main_decode(const uint8_t *data, size_t len, AuRecMain *m);

/* "INSERT" for 0x00 ...; NULL for an unknown kind. */
const char *au_record_kind_name(uint8_t info);

#endif							/* AU_WAL_FORMAT_H */
