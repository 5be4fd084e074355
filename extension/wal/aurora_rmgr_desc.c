/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_rmgr_desc.c: our records in words, for pg_walinspect, wal_debug and
 * error contexts.
 *
 *	conflict 742; 0: TUPHDR 5 xmax 743 ctid (0,9), ADD 9 (61 bytes); clears VM
 *
 * "0:" is the block reference that the operations belong to; the reference
 * itself (relation, fork, block) is printed by the caller.  Lists are cut
 * short: a record may hold hundreds of operations.
 *
 * A description must never fail: what does not parse is called damaged.
 */
#include "postgres.h"

#include "access/visibilitymap.h"
#include "common/au_page.h"
#include "common/au_wal_format.h"

#include "wal/aurora_rmgr.h"

/* So many operations of a block, or items of a list, are shown. */
#define SHOWN_MAX 8

const char *
aurora_rmgr_identify(uint8 info)
{
	return au_record_kind_name(info & ~XLR_INFO_MASK);
}

/* " dead 3 4 5 ... (12)"; nothing for an empty list. */
static void
desc_offsets(StringInfo buf, const char *name, const uint8_t *p, int n)
{
	if (n == 0)
		return;
	appendStringInfo(buf, " %s", name);
	for (int i = 0; i < Min(n, SHOWN_MAX); i++)
		appendStringInfo(buf, " %u", au_get_u16(p + 2 * i));
	if (n > SHOWN_MAX)
		appendStringInfo(buf, " ... (%d)", n);
}

static void
desc_tuphdr(StringInfo buf, const uint8_t *p)
{
	uint8		fields = p[2];

	appendStringInfo(buf, " %u", au_get_u16(p));
	p += 3;
	if (fields & AU_TH_XMAX)
	{
		appendStringInfo(buf, " xmax %u", au_get_u32(p));
		p += 4;
	}
	if (fields & AU_TH_CID)
	{
		appendStringInfo(buf, " cid %u", au_get_u32(p));
		p += 4;
	}
	if (fields & AU_TH_INFOMASK)
	{
		appendStringInfo(buf, " infomask2 0x%04X infomask 0x%04X",
						 au_get_u16(p), au_get_u16(p + 2));
		p += 4;
	}
	if (fields & AU_TH_CTID)
		appendStringInfo(buf, " ctid (%u,%u)", au_get_u32(p), au_get_u16(p + 4));
}

static void
desc_prune(StringInfo buf, const uint8_t *p)
{
	int			nredirect = au_get_u16(p);
	int			ndead = au_get_u16(p + 2);
	int			nunused = au_get_u16(p + 4);

	p += 6;
	if (nredirect > 0)
	{
		appendStringInfoString(buf, " redirect");
		for (int i = 0; i < Min(nredirect, SHOWN_MAX); i++)
			appendStringInfo(buf, " %u->%u", au_get_u16(p + 4 * i),
							 au_get_u16(p + 4 * i + 2));
		if (nredirect > SHOWN_MAX)
			appendStringInfo(buf, " ... (%d)", nredirect);
	}
	p += 4 * nredirect;
	desc_offsets(buf, "dead", p, ndead);
	desc_offsets(buf, "unused", p + 2 * ndead, nunused);
}

/* p: behind the opcode of an operation that is complete. */
static void
desc_op(StringInfo buf, uint8 opcode, const uint8_t *p)
{
	switch (opcode)
	{
		case AU_OP_INIT:
			appendStringInfoString(buf, "INIT");
			break;
		case AU_OP_IMAGE:
			appendStringInfo(buf, "IMAGE hole %u+%u", au_get_u16(p),
							 au_get_u16(p + 2));
			break;
		case AU_OP_PATCH:
			appendStringInfo(buf, "PATCH %u+%u", au_get_u16(p),
							 au_get_u16(p + 2));
			break;
		case AU_OP_ADD:
			appendStringInfo(buf, "ADD %u (%u bytes)", au_get_u16(p),
							 au_get_u16(p + 2));
			break;
		case AU_OP_ADD_DELTA:
			appendStringInfo(buf, "ADD_DELTA %u from %u (prefix %u, suffix %u, new %u bytes)",
							 au_get_u16(p), au_get_u16(p + 2),
							 au_get_u16(p + 6), au_get_u16(p + 8),
							 au_get_u16(p + 10) + au_get_u16(p + 12));
			break;
		case AU_OP_TUPHDR:
			appendStringInfoString(buf, "TUPHDR");
			desc_tuphdr(buf, p);
			break;
		case AU_OP_PRUNABLE:
			appendStringInfo(buf, "PRUNABLE %u", au_get_u32(p));
			break;
		case AU_OP_FLAGS:
			appendStringInfo(buf, "FLAGS set 0x%04X clear 0x%04X",
							 au_get_u16(p), au_get_u16(p + 2));
			break;
		case AU_OP_PRUNE:
			appendStringInfoString(buf, "PRUNE");
			desc_prune(buf, p);
			break;
		case AU_OP_UNUSED:
			appendStringInfoString(buf, "UNUSED");
			desc_offsets(buf, "items", p + 2, au_get_u16(p));
			break;
		default:
			appendStringInfo(buf, "unknown operation %u", opcode);
			break;
	}
}

static void
desc_ops(StringInfo buf, const uint8_t *ops, Size len)
{
	int			n = 0;

	while (len > 0)
	{
		size_t		oplen = au_op_length(ops, len);

		if (oplen == 0)
		{
			appendStringInfoString(buf, ", damaged operation");
			return;
		}
		if (n < SHOWN_MAX)
		{
			if (n > 0)
				appendStringInfoString(buf, ", ");
			desc_op(buf, ops[0], ops + 1);
		}
		n++;
		ops += oplen;
		len -= oplen;
	}
	if (n > SHOWN_MAX)
		appendStringInfo(buf, ", ... (%d operations)", n);
}

static void
desc_vm_bits(StringInfo buf, const char *data, Size len)
{
	uint8		bits;

	if (len == 0)
	{
		/* a full-page image took the place of the bits */
		appendStringInfoString(buf, "VM page");
		return;
	}
	bits = (uint8) data[0];
	appendStringInfo(buf, "sets VM%s%s",
					 bits & VISIBILITYMAP_ALL_VISIBLE ? " all-visible" : "",
					 bits & VISIBILITYMAP_ALL_FROZEN ? " all-frozen" : "");
}

static void
desc_block(StringInfo buf, XLogReaderState *record, int id, const AuRecMain *m)
{
	Size		len = 0;
	char	   *data = XLogRecGetBlockData(record, id, &len);
	ForkNumber	fork;

	XLogRecGetBlockTag(record, id, NULL, &fork, NULL);
	appendStringInfo(buf, "%s%d: ", buf->len > 0 ? "; " : "", id);
	if (fork == VISIBILITYMAP_FORKNUM)
	{
		desc_vm_bits(buf, data, len);
		return;
	}
	if (len > 0)
		desc_ops(buf, (const uint8_t *) data, len);
	else
		appendStringInfoString(buf, "no operations");
	if (m->flags & AU_REC_VM_CLEAR && m->vm_clear_blocks & (1 << id))
		appendStringInfoString(buf, ", clears VM");
}

void
aurora_rmgr_desc(StringInfo buf, XLogReaderState *record)
{
	StringInfoData text;
	AuRecMain	m;
	AuStatus	status = au_rec_main_decode((const uint8_t *) XLogRecGetData(record),
											XLogRecGetDataLen(record), &m);

	if (status != AU_OK)
	{
		appendStringInfo(buf, "record is %s", au_status_name(status));
		return;
	}

	/* collected apart: the caller's buffer may hold text already */
	initStringInfo(&text);
	if (m.flags & AU_REC_CONFLICT)
		appendStringInfo(&text, "conflict %u", m.conflict_xid);
	if (m.flags & AU_REC_TRUNCATE)
		appendStringInfo(&text, "%srelation %u/%u/%u to %u blocks",
						 text.len > 0 ? "; " : "",
						 m.truncate_rel.spc, m.truncate_rel.db,
						 m.truncate_rel.rel, m.truncate_nblocks);
	for (int id = 0; id <= XLogRecMaxBlockId(record); id++)
		if (XLogRecHasBlockRef(record, id))
			desc_block(&text, record, id, &m);
	appendBinaryStringInfo(buf, text.data, text.len);
	pfree(text.data);
}
