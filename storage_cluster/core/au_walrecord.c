/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_walrecord.c: reads one whole WAL record.
 *
 *   +--------+--------------+-----+-----------+---------------+-----------+
 *   | header | block ref 0  | ... | main data | image 0, data | main data |
 *   | 24     | header       |     | header    | 0, image 1 .. |           |
 *   +--------+--------------+-----+-----------+---------------+-----------+
 *            |<--------- headers ------------>|<------ payloads --------->|
 *
 * Invariants:
 *  1. Nothing outside bytes[0 .. total-1] is read.  A record passed its CRC,
 *     but our reading of it may still be wrong (another release, another
 *     build), so that every length is checked against what is there.
 *  2. The payloads that the headers announce fill the record exactly.
 */
#include "core/au_walrecord.h"

#include <stdlib.h>

#include "common/au_wire.h"

/* Block reference flags and ids (xlogrecord.h). */
#define BLK_FORK_MASK 0x0F
#define BLK_HAS_IMAGE 0x10
#define BLK_HAS_DATA 0x20
#define BLK_SAME_REL 0x80
#define IMG_HAS_HOLE 0x01
#define IMG_COMPRESSED 0x1C		/* pglz, lz4, zstd */
#define ID_MAX 32
#define ID_DATA_SHORT 255
#define ID_DATA_LONG 254
#define ID_ORIGIN 253
#define ID_TOPLEVEL_XID 252

/* Commit and abort records (xact.h). */
#define XACT_OPMASK 0x70
#define XACT_COMMIT 0x00
#define XACT_ABORT 0x20
#define XACT_COMMIT_PREPARED 0x30
#define XACT_ABORT_PREPARED 0x40
#define XACT_HAS_INFO 0x80
#define XINFO_HAS_DBINFO 0x001
#define XINFO_HAS_SUBXACTS 0x002
#define XINFO_HAS_RELFILENODES 0x004
#define XINFO_HAS_INVALS 0x008
#define XINFO_HAS_TWOPHASE 0x010
#define XINFO_HAS_DROPPED_STATS 0x100
#define INVAL_MESSAGE_LEN 16
#define RELFILENODE_LEN 12

#define DBASE_DROP 0x20
#define SMGR_CREATE 0x10

_Static_assert(AU_WAL_BLOCKS_MAX == ID_MAX + 1, "a slot for every block id");

/* Ordered by release; the first is the default.  An entry is added when the
 * record layouts of its release have been checked against this file. */
static const AuWalVersion versions[] = {
	{.page_magic = 0xD110,.major = 15,.rmid_max = 21,.stats_item_len = 12},
};

const AuWalVersion *
au_wal_version_find(uint16_t page_magic)
{
	for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++)
	{
		if (versions[i].page_magic == page_magic)
			return &versions[i];
	}
	return NULL;
}

const AuWalVersion *
au_wal_version_default(void)
{
	return &versions[0];
}

/* Payload lengths of the block references, in the order of rec->blocks. */
typedef struct BlockLengths
{
	uint16_t	image[AU_WAL_BLOCKS_MAX];
	uint16_t	data[AU_WAL_BLOCKS_MAX];
} BlockLengths;

/* One block reference's header, after its id. */
static const char *
parse_block_header(AuReader *r, uint8_t id, AuWalRecord *rec, BlockLengths *lens)
{
	int			n = rec->nblocks;
	AuWalBlock *blk = &rec->blocks[n];
	uint8_t		flags;

	/* Ascending ids also keep n below AU_WAL_BLOCKS_MAX. */
	if (n > 0 && id <= rec->blocks[n - 1].id)
		return "block references out of order";
	flags = au_r_u8(r);
	blk->id = id;
	blk->has_image = (flags & BLK_HAS_IMAGE) != 0;
	blk->data = NULL;
	lens->data[n] = au_r_u16(r);
	lens->image[n] = 0;
	if (((flags & BLK_HAS_DATA) != 0) != (lens->data[n] != 0))
		return "block data flag and length do not agree";
	if (blk->has_image)
	{
		uint8_t		image_flags;

		lens->image[n] = au_r_u16(r);
		(void) au_r_u16(r);		/* where the hole is */
		image_flags = au_r_u8(r);
		if ((image_flags & IMG_COMPRESSED) && (image_flags & IMG_HAS_HOLE))
			(void) au_r_u16(r); /* the hole's length */
		if (lens->image[n] > AU_PAGE_SIZE)
			return "page image longer than a page";
	}
	if (flags & BLK_SAME_REL)
	{
		if (n == 0)
			return "first block reference names no relation";
		blk->page.rel = rec->blocks[n - 1].page.rel;
	}
	else
	{
		blk->page.rel.spc = au_r_u32(r);
		blk->page.rel.db = au_r_u32(r);
		blk->page.rel.rel = au_r_u32(r);
	}
	blk->page.rel.fork = flags & BLK_FORK_MASK;
	blk->page.blk = au_r_u32(r);
	rec->nblocks++;
	return NULL;
}

/* Headers, then the payloads' places.  Returns NULL or what is wrong. */
static const char *
parse_body(const uint8_t *bytes, uint32_t total, AuWalRecord *rec, AuWalMain *main)
{
	AuReader	r;
	BlockLengths lens;
	uint64_t	payload = 0;
	bool		in_headers = true;

	au_reader_start(&r, bytes + AU_WAL_RECORD_HEADER, total - AU_WAL_RECORD_HEADER);
	while (in_headers && !r.bad && r.left > payload)
	{
		uint8_t		id = au_r_u8(&r);

		if (id <= ID_MAX)
		{
			const char *why = parse_block_header(&r, id, rec, &lens);

			if (why != NULL)
				return why;
			payload += lens.image[rec->nblocks - 1];
			payload += lens.data[rec->nblocks - 1];
		}
		else if (id == ID_DATA_SHORT || id == ID_DATA_LONG)
		{
			main->len = (id == ID_DATA_SHORT) ? au_r_u8(&r) : au_r_u32(&r);
			payload += main->len;
			in_headers = false; /* always the last */
		}
		else if (id == ID_ORIGIN)
			(void) au_r_u16(&r);
		else if (id == ID_TOPLEVEL_XID)
			(void) au_r_u32(&r);
		else
			return "unknown block id";
	}
	if (r.bad || r.left != payload)
		return "headers and payload do not fill the record";

	for (int i = 0; i < rec->nblocks; i++)
	{
		(void) au_r_bytes(&r, lens.image[i]);
		rec->blocks[i].data_len = lens.data[i];
		if (lens.data[i] > 0)
			rec->blocks[i].data = au_r_bytes(&r, lens.data[i]);
	}
	if (main->len > 0)
		main->data = au_r_bytes(&r, main->len);
	return NULL;
}

/* Room for n relations. */
static bool
drops_reserve(AuWalDrops *drops, size_t n)
{
	AuRelId    *rels;

	if (n <= drops->cap)
		return true;
	rels = realloc(drops->rels, n * sizeof(*rels));
	if (rels == NULL)
		return false;
	drops->rels = rels;
	drops->cap = n;
	return true;
}

/* A count and what it counts: skips `count` items of item_len bytes. */
static void
skip_counted(AuReader *r, size_t item_len)
{
	uint64_t	count = au_r_u32(r);

	(void) au_r_bytes(r, (size_t) (count * item_len));
}

static AuStatus
parse_dropped_rels(AuReader *r, AuWalDrops *drops, AuWalRecord *rec)
{
	uint64_t	count = au_r_u32(r);
	AuReader	items;

	au_reader_start(&items, r->p, r->left);
	if (au_r_bytes(r, (size_t) (count * RELFILENODE_LEN)) == NULL)
		return AU_OK;			/* r is bad, the caller sees it */
	if (!drops_reserve(drops, (size_t) count))
		return AU_NOMEM;
	for (size_t i = 0; i < count; i++)
	{
		drops->rels[i].spc = au_r_u32(&items);
		drops->rels[i].db = au_r_u32(&items);
		drops->rels[i].rel = au_r_u32(&items);
		drops->rels[i].fork = 0;
	}
	rec->ndrop = (int) count;
	rec->drop = drops->rels;
	return AU_OK;
}

/*
 * Commit and abort: a time, then the sections that xinfo names, in a fixed
 * order.  What comes after the prepared transaction's xid is of no interest.
 */
static AuStatus
parse_xact_end(const AuWalVersion *version, uint8_t info, const AuWalMain *main,
			   AuWalDrops *drops, AuWalRecord *rec, const char **why)
{
	uint8_t		op = info & XACT_OPMASK;
	AuReader	r;
	uint32_t	xinfo = 0;
	AuStatus	status;

	rec->kind = AU_WAL_XACT_END;
	rec->is_commit = (op == XACT_COMMIT || op == XACT_COMMIT_PREPARED);
	au_reader_start(&r, main->data, main->len);
	rec->xact_time = (int64_t) au_r_u64(&r);
	if (info & XACT_HAS_INFO)
		xinfo = au_r_u32(&r);
	if (xinfo & XINFO_HAS_DBINFO)
		(void) au_r_u64(&r);
	if (xinfo & XINFO_HAS_SUBXACTS)
		skip_counted(&r, 4);
	if (xinfo & XINFO_HAS_RELFILENODES)
	{
		status = parse_dropped_rels(&r, drops, rec);
		if (status != AU_OK)
			return status;
	}
	if (xinfo & XINFO_HAS_DROPPED_STATS)
		skip_counted(&r, version->stats_item_len);
	if (rec->is_commit && (xinfo & XINFO_HAS_INVALS))
		skip_counted(&r, INVAL_MESSAGE_LEN);
	if (xinfo & XINFO_HAS_TWOPHASE)
		rec->xid = au_r_u32(&r);
	else if (op == XACT_COMMIT_PREPARED || op == XACT_ABORT_PREPARED)
		r.bad = true;
	if (r.bad)
	{
		*why = "commit or abort record too short";
		return AU_CORRUPT;
	}
	if (rec->ndrop > 0)
		rec->kind = AU_WAL_DROP_RELS;
	return AU_OK;
}

/* DROP DATABASE, or the old place after ALTER DATABASE SET TABLESPACE. */
static AuStatus
parse_drop_db(const AuWalMain *main, AuWalDrops *drops, AuWalRecord *rec,
			  const char **why)
{
	AuReader	r;
	uint32_t	db;
	uint64_t	count;

	au_reader_start(&r, main->data, main->len);
	db = au_r_u32(&r);
	count = au_r_u32(&r);
	if (r.bad || count * 4 != r.left)
	{
		*why = "drop database record has the wrong length";
		return AU_CORRUPT;
	}
	if (!drops_reserve(drops, (size_t) count))
		return AU_NOMEM;
	for (size_t i = 0; i < count; i++)
		drops->rels[i] = (AuRelId) {.spc = au_r_u32(&r),.db = db};
	rec->kind = AU_WAL_DROP_DB;
	rec->ndrop = (int) count;
	rec->drop = drops->rels;
	return AU_OK;
}

/*
 * A relation's file is made.  Its number may have been another relation's
 * whose drop never reached the log (a crash before its transaction ended).
 */
static AuStatus
parse_new_rel(const AuWalMain *main, AuWalDrops *drops, AuWalRecord *rec,
			  const char **why)
{
	AuReader	r;
	AuRelId		rel = {0};
	uint32_t	fork;

	au_reader_start(&r, main->data, main->len);
	rel.spc = au_r_u32(&r);
	rel.db = au_r_u32(&r);
	rel.rel = au_r_u32(&r);
	fork = au_r_u32(&r);
	if (!au_reader_done(&r))
	{
		*why = "create file record has the wrong length";
		return AU_CORRUPT;
	}
	if (fork != 0)
		return AU_OK;
	if (!drops_reserve(drops, 1))
		return AU_NOMEM;
	drops->rels[0] = rel;
	rec->kind = AU_WAL_NEW_REL;
	rec->ndrop = 1;
	rec->drop = drops->rels;
	return AU_OK;
}

static bool
is_xact_end(uint8_t rmid, uint8_t info)
{
	uint8_t		op = info & XACT_OPMASK;

	return rmid == AU_RM_XACT &&
		(op == XACT_COMMIT || op == XACT_ABORT ||
		 op == XACT_COMMIT_PREPARED || op == XACT_ABORT_PREPARED);
}

AuStatus
au_walrecord_parse(const AuWalVersion *version, const uint8_t *bytes,
				   uint32_t total, bool all_blocks, AuWalDrops *drops,
				   AuWalRecord *rec, AuWalMain *main, const char **why)
{
	AuStatus	status = AU_OK;
	bool		xact_end;
	bool		drop_db;
	bool		new_rel;
	bool		overwrite;

	*main = (AuWalMain) {0};
	rec->kind = AU_WAL_OTHER;
	rec->xid = au_get_u32(bytes + AU_XL_XID);
	rec->rmid = bytes[AU_XL_RMID];
	rec->info = bytes[AU_XL_INFO] & 0xF0;
	rec->total_len = total;
	rec->prev = au_get_u64(bytes + AU_XL_PREV);
	rec->nblocks = 0;
	rec->ndrop = 0;
	rec->drop = NULL;
	rec->is_commit = false;
	rec->xact_time = 0;
	memset(&rec->main, 0, sizeof(rec->main));

	xact_end = is_xact_end(rec->rmid, rec->info);
	drop_db = rec->rmid == AU_RM_DBASE && rec->info == DBASE_DROP;
	new_rel = rec->rmid == AU_RM_SMGR && rec->info == SMGR_CREATE;
	overwrite = rec->rmid == AU_RM_XLOG &&
		rec->info == AU_XLOG_OVERWRITE_CONTRECORD;
	if (rec->rmid != AU_RMGR_ID && !xact_end && !drop_db && !new_rel &&
		!overwrite && !all_blocks)
		return AU_OK;

	*why = parse_body(bytes, total, rec, main);
	if (*why != NULL)
		return AU_CORRUPT;
	if (rec->rmid == AU_RMGR_ID)
	{
		rec->kind = AU_WAL_OURS;
		status = au_rec_main_decode(main->data, main->len, &rec->main);
		if (status == AU_UNSUPPORTED)
			*why = "Aurora record of a newer version";
		else if (status != AU_OK)
			*why = "malformed main data of an Aurora record";
	}
	else if (xact_end)
		status = parse_xact_end(version, rec->info, main, drops, rec, why);
	else if (drop_db)
		status = parse_drop_db(main, drops, rec, why);
	else if (new_rel)
		status = parse_new_rel(main, drops, rec, why);
	return status;
}
