/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_wire_export.h: messages between nodes that copy page versions.
 *
 * Each question is complete: the node that answers keeps nothing between two,
 * and another one that has the slices can go on with the next.
 */
#ifndef AU_WIRE_EXPORT_H
#define AU_WIRE_EXPORT_H

#include "common/au_wire.h"
#include "core/au_slices.h"

#define AU_EXPORT_POSITION 1	/* what a volume is, and how far: EXPORT_OK */
#define AU_EXPORT_SIZES 2		/* sizes of all relations: EXPORT_DATA */
#define AU_EXPORT_PAGES 3		/* pages of the slices: EXPORT_DATA */

/* EXPORT: of the connection's volume.  All but `what` is for SIZES and PAGES:
 * versions at or below upto, that a reader at or above horizon needs, from
 * place on, about `budget` bytes.  The node answers when it has applied and
 * written so far.  AU_MOVED: it does not keep all of these slices; AU_GONE:
 * upto is too old. */
typedef struct AuMsgExport
{
	uint8_t		what;
	AuLsn		upto;
	AuLsn		horizon;
	AuPlace		place;
	AuSliceSet	slices;
	uint32_t	budget;
} AuMsgExport;

typedef struct AuMsgExportOk
{
	AuLsn		start_lsn;		/* of the volume */
	AuLsn		log_lsn;		/* log is kept from here on */
	uint32_t	segment_size;
	uint32_t	timeline;
	AuGroup		group;
	AuStorePosition position;
} AuMsgExportOk;

/* EXPORT_DATA: the payload is a chunk (store/au_chunk.h). */

bool		au_enc_export(AuWriter *w, uint64_t id, const AuMsgExport *m);
bool		au_dec_export(const AuFrame *f, AuMsgExport *m);
bool		au_enc_export_ok(AuWriter *w, uint64_t id, const AuMsgExportOk *m);
bool		au_dec_export_ok(const AuFrame *f, AuMsgExportOk *m);

#define AU_EXPORT_OK_CAP (AU_WIRE_HEADER + 64 + AU_GROUP_MAX * (AU_ADDRESS_MAX + 16) + AU_POSITION_TIMES_MAX)

#endif							/* AU_WIRE_EXPORT_H */
