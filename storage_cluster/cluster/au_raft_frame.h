/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_raft_frame.h: what comes in at a node's port for consensus, looked at
 * before libraft (0.15) sees it.  libraft takes what it reads for true: a
 * malformed AppendEntries makes it read behind its memory, or crash.  Pure.
 *
 * A connection begins with a greeting, in libraft's own form, in whose address
 * we also say who we are (all words little-endian):
 *
 *   u64 1 │ u64 number │ u64 length │ "IP:PORT/CLUSTER/NODE\0", zeros to 8
 *                                      CLUSTER, NODE: 16 hexadecimal digits
 * then come messages:
 *
 *   u64 type │ u64 length │ header │ payload: entries, or a snapshot
 *
 * Invariant: what au_raft_frame_check finds good is decoded by libraft without
 * reading outside the message: all lengths add up, all entries and servers of
 * a configuration are whole, no server is there twice.
 */
#ifndef AU_RAFT_FRAME_H
#define AU_RAFT_FRAME_H

#include "common/au_base.h"
#include "common/au_history.h"

#define AU_RAFT_HELLO_MAX 256	/* bytes of a greeting */
#define AU_RAFT_TEXT_MAX (AU_ADDRESS_MAX + 40)
#define AU_RAFT_MESSAGE_MAX ((size_t) 16 << 20)	/* a view has 64 kB, its log some hundred */

/* Who connects. */
typedef struct AuRaftHello
{
	uint32_t	number;
	uint64_t	cluster_id;
	uint64_t	node_id;
	char		address[AU_ADDRESS_MAX];	/* IPv4 and port: where to answer */
} AuRaftHello;

/* The text for the greeting's address; false: it does not fit. */
bool		au_raft_hello_text(char *out, size_t cap, const char *address,
							   uint64_t cluster_id, uint64_t node_id);

/*
 * AU_OK: the greeting is the first *used bytes.  AU_NEED_MORE: it has *used
 * bytes at least.  AU_CORRUPT: it is none of ours.
 */
AuStatus	au_raft_hello_parse(const uint8_t *b, size_t len, AuRaftHello *out, size_t *used);

typedef enum AuRaftType
{
	AU_RAFT_APPEND = 1,
	AU_RAFT_APPEND_RESULT,
	AU_RAFT_VOTE,
	AU_RAFT_VOTE_RESULT,
	AU_RAFT_SNAPSHOT,
	AU_RAFT_TIMEOUT_NOW
} AuRaftType;

typedef struct AuRaftFrame
{
	uint16_t	type;			/* AuRaftType */
	uint64_t	term;
} AuRaftFrame;

/* As au_raft_hello_parse, for a message. */
AuStatus	au_raft_frame_check(const uint8_t *b, size_t len, AuRaftFrame *out, size_t *used);

#endif							/* AU_RAFT_FRAME_H */
