/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_wire_gossip.h: what storage nodes tell each other about each other:
 * GOSSIP and GOSSIP_OK, which carry the same.  cluster/au_gossip.h says what
 * they mean; docs/protocol.md has the bytes.
 *
 * A record is somebody's opinion of a node; of two opinions about one node the
 * one with the higher incarnation counts, of those with the same incarnation
 * the worse one.  Only the node itself makes a new incarnation.
 *
 * Marks are what a node says of itself: how far it is and how much it has to
 * do.  The higher heartbeat counts.
 */
#ifndef AU_WIRE_GOSSIP_H
#define AU_WIRE_GOSSIP_H

#include "common/au_wire.h"

#define AU_GOSSIP_RECORDS_MAX 16	/* opinions in one message */
#define AU_GOSSIP_MARKS_MAX 8	/* marks in one message, the sender's among them */
#define AU_GOSSIP_VOLUMES_MAX 16	/* as AU_NODE_VOLUMES_MAX */
#define AU_GOSSIP_INCARNATION_MAX (UINT64_C(1) << 62)	/* none is that high */

/* Worse ones are higher. */
typedef enum AuGossipState
{
	AU_GOSSIP_ALIVE = 1,
	AU_GOSSIP_SUSPECT,			/* did not answer; may still object */
	AU_GOSSIP_DEAD				/* did not object in time */
} AuGossipState;

typedef struct AuGossipRecord
{
	uint64_t	node_id;		/* never 0 */
	uint64_t	incarnation;	/* 0: nobody has heard from it */
	uint8_t		state;
	char		address[AU_ADDRESS_MAX];	/* what follows the terminator is zero */
} AuGossipRecord;

typedef struct AuGossipVolume
{
	uint64_t	system_identifier;
	AuLsn		received;
	AuLsn		durable;
	AuLsn		applied;
} AuGossipVolume;

typedef struct AuGossipMarks
{
	uint64_t	node_id;
	uint64_t	heartbeat;		/* grows, also across restarts */
	uint64_t	view_epoch;		/* of the view it has; 0: none */
	uint32_t	reads;			/* of pages, under way or waiting */
	uint64_t	disk_used;		/* bytes */
	uint64_t	disk_limit;		/* 0: none */
	uint8_t		nvolumes;
	AuGossipVolume volumes[AU_GOSSIP_VOLUMES_MAX];
} AuGossipMarks;

/*
 * PING: are you there?  PROXY: ask `target` for me.  The answer to a PING
 * comes at once, that to a PROXY when the target has answered (reached = 1) or
 * did not in time (0).
 */
#define AU_GOSSIP_PING 1
#define AU_GOSSIP_PROXY 2

typedef struct AuMsgGossip
{
	uint8_t		kind;
	uint8_t		reached;		/* answers to PROXY only */
	uint64_t	cluster_id;		/* 0: belongs to none yet */
	AuGossipRecord self;		/* the sender; always alive */
	AuGossipRecord target;		/* PROXY, and its answer; node_id 0 else */
	uint8_t		nrecords;
	AuGossipRecord records[AU_GOSSIP_RECORDS_MAX];
	uint8_t		nmarks;
	AuGossipMarks marks[AU_GOSSIP_MARKS_MAX];
} AuMsgGossip;

/* Longest frame. */
#define AU_GOSSIP_RECORD_LEN (8 + 8 + 1 + 2 + AU_ADDRESS_MAX - 1)
#define AU_GOSSIP_MARKS_LEN (8 * 3 + 4 + 8 * 2 + 1 + AU_GOSSIP_VOLUMES_MAX * 32)
#define AU_GOSSIP_FRAME_MAX (AU_WIRE_HEADER + 12 + \
							 (AU_GOSSIP_RECORDS_MAX + 2) * AU_GOSSIP_RECORD_LEN + \
							 AU_GOSSIP_MARKS_MAX * AU_GOSSIP_MARKS_LEN)

/* As all encoders and decoders of au_wire.h. */
bool		au_enc_gossip(AuWriter *w, uint64_t id, const AuMsgGossip *m);
bool		au_enc_gossip_ok(AuWriter *w, uint64_t id, const AuMsgGossip *m);
bool		au_dec_gossip(const AuFrame *f, AuMsgGossip *m);
bool		au_dec_gossip_ok(const AuFrame *f, AuMsgGossip *m);

#endif							/* AU_WIRE_GOSSIP_H */
