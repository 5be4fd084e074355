/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_wire_digest.h: the messages with which replicas compare their pages
 * (core/au_node_sync.c); rules as in au_wire.h.
 *
 * DIGEST (role NODE) asks for a part of the tree of (volume, slice) as of an
 * LSN (cluster/au_merkle.h), or for the hashes of the pages of the first extent
 * at or behind a place, below one leaf.  Computing takes a while: the answer
 * may be LATER, also because the LSN is not applied yet; ask again.  AU_GONE:
 * the LSN is below the horizon.
 */
#ifndef AU_WIRE_DIGEST_H
#define AU_WIRE_DIGEST_H

#include "cluster/au_merkle.h"
#include "common/au_wire.h"

#define AU_DIGEST_TREE 1		/* the children of a node of the tree */
#define AU_DIGEST_PAGES 2		/* hashes of the pages of an extent */

#define AU_DIGEST_PAGES_MAX 256

typedef struct AuMsgDigest
{
	AuLsn		lsn;
	uint16_t	slice;
	uint8_t		what;
	uint8_t		level;			/* TREE: of the node */
	uint32_t	index;			/* TREE: of the node; PAGES: of the leaf */
	AuPageId	from;			/* PAGES; all zero: the first extent there is */
} AuMsgDigest;

typedef struct AuMsgDigestOk
{
	AuLsn		lsn;
	uint8_t		what;
	uint8_t		later;			/* not known yet: the rest means nothing */
	/* TREE */
	uint64_t	root;
	uint64_t	children[AU_MERKLE_FANOUT];
	/* PAGES: blocks first.blk, ...; n = 0: there is no such extent */
	AuPageId	first;
	uint16_t	n;
	uint8_t		status[AU_DIGEST_PAGES_MAX];	/* AU_OK, AU_CORRUPT, AU_NOT_FOUND */
	uint64_t	hash[AU_DIGEST_PAGES_MAX];
} AuMsgDigestOk;

#define AU_DIGEST_OK_CAP (AU_WIRE_HEADER + 40 + 9 * AU_DIGEST_PAGES_MAX)

bool		au_enc_digest(AuWriter *w, uint64_t id, const AuMsgDigest *m);
bool		au_enc_digest_ok(AuWriter *w, uint64_t id, const AuMsgDigestOk *m);
bool		au_dec_digest(const AuFrame *f, AuMsgDigest *m);
bool		au_dec_digest_ok(const AuFrame *f, AuMsgDigestOk *m);

#endif							/* AU_WIRE_DIGEST_H */
