/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_wire.h: the protocol between a compute node and a storage node (and
 * between storage nodes).  docs/protocol.md explains it with pictures; this
 * header is the contract.
 *
 * A connection carries frames both ways.  The client speaks first (HELLO).
 * Requests carry an id of the client's choice which the answer repeats;
 * requests may be pipelined, answers may come in any order.
 *
 * Frame, little-endian:
 *
 *   0  u32 magic      AU_WIRE_MAGIC "AUR1"
 *   4  u16 version    AU_WIRE_VERSION
 *   6  u16 type       AU_MSG_*
 *   8  u64 id         request id; 0 in messages nobody answers
 *   16 u32 length     of the payload, at most AU_WIRE_PAYLOAD_MAX
 *   20 u32 crc        CRC-32C of bytes 0..19 and the payload
 *   24 payload
 */
#ifndef AU_WIRE_H
#define AU_WIRE_H

#include "au_base.h"
#include "au_history.h"

#define AU_WIRE_MAGIC 0x31525541u	/* "AUR1" in memory */
#define AU_WIRE_VERSION 1
#define AU_WIRE_HEADER 24
#define AU_WIRE_PAYLOAD_MAX (4u << 20)
#define AU_WIRE_TEXT_MAX 1024	/* longest message or hint */
#define AU_WIRE_BLOCKS_MAX 256	/* pages in one GET_PAGES */
#define AU_WIRE_APPEND_MAX (1u << 20)	/* WAL bytes in one APPEND */

/* Request types are odd, the answer is the next even number; any request may
 * be answered with ERROR instead. */
#define AU_MSG_ERROR 0
#define AU_MSG_HELLO 1
#define AU_MSG_HELLO_OK 2
#define AU_MSG_TERM 3
#define AU_MSG_TERM_OK 4
#define AU_MSG_APPEND 5
#define AU_MSG_APPEND_OK 6
#define AU_MSG_GET_PAGES 7
#define AU_MSG_PAGES 8
#define AU_MSG_GET_SIZE 9
#define AU_MSG_SIZE 10
#define AU_MSG_STATUS 11
#define AU_MSG_STATUS_OK 12
#define AU_MSG_LIST_RELS 13
#define AU_MSG_RELS 14
#define AU_MSG_PING 15
#define AU_MSG_PONG 16
#define AU_MSG_HOLD_LSN 17
#define AU_MSG_HOLD_OK 18
#define AU_MSG_GET_VIEW 19
#define AU_MSG_VIEW 20
#define AU_MSG_CLUSTER 21
#define AU_MSG_CLUSTER_OK 22
#define AU_MSG_SHARE 23
#define AU_MSG_SHARE_OK 24
#define AU_MSG_PAGES_PLACED 25
/* 33 to 38: the log quorum; 39 to 46: between nodes; 49 to 62: key-value */
#define AU_MSG_VOTE 33
#define AU_MSG_VOTE_OK 34
#define AU_MSG_ELECT 35
#define AU_MSG_ELECT_OK 36
#define AU_MSG_GET_LOG 37
#define AU_MSG_LOG 38
#define AU_MSG_GOSSIP 39
#define AU_MSG_GOSSIP_OK 40
#define AU_MSG_EXPORT 41
#define AU_MSG_EXPORT_OK 42
#define AU_MSG_EXPORT_DATA 44
#define AU_MSG_DIGEST 45
#define AU_MSG_DIGEST_OK 46

typedef struct AuFrame
{
	uint16_t	type;
	uint64_t	id;
	const uint8_t *payload;		/* points into the caller's buffer */
	uint32_t	length;
} AuFrame;

/*
 * Look for a frame at the start of buf.  AU_OK: *frame is filled, *used bytes
 * belong to it.  AU_NEED_MORE: the frame is not complete; *used is then the
 * total number of bytes it needs if that is known, else 0.  AU_CORRUPT /
 * AU_UNSUPPORTED: the stream is unusable, close it.
 */
AuStatus	au_frame_parse(const uint8_t *buf, size_t len, AuFrame *frame, size_t *used);

/*
 * Writer over memory the caller gives: begin, add fields, end.  `overflow`
 * tells that something did not fit.
 */
typedef struct AuWriter
{
	uint8_t    *data;
	size_t		len;
	size_t		cap;
	size_t		frame;			/* where the frame begun last starts */
	bool		overflow;
} AuWriter;

void		au_writer_start(AuWriter *w, uint8_t *memory, size_t cap);
void		au_w_u8(AuWriter *w, uint8_t v);
void		au_w_u16(AuWriter *w, uint16_t v);
void		au_w_u32(AuWriter *w, uint32_t v);
void		au_w_u64(AuWriter *w, uint64_t v);
void		au_w_bytes(AuWriter *w, const void *p, size_t n);
void		au_w_text(AuWriter *w, const char *s);	/* u16 length + bytes */
void		au_w_rel(AuWriter *w, const AuRelId *rel);	/* 4 x u32 */

/* A frame begins with its header, whose length and crc au_frame_end fills.
 * Returns false if something overflowed; the frame is then taken back, those
 * before it stay, and `overflow` stays set. */
void		au_frame_begin(AuWriter *w, uint16_t type, uint64_t id);
bool		au_frame_end(AuWriter *w);

/* Reader; after a short read `bad` is set and every later value is 0. */
typedef struct AuReader
{
	const uint8_t *p;
	size_t		left;
	bool		bad;
} AuReader;

void		au_reader_start(AuReader *r, const uint8_t *p, size_t len);
uint8_t		au_r_u8(AuReader *r);
uint16_t	au_r_u16(AuReader *r);
uint32_t	au_r_u32(AuReader *r);
uint64_t	au_r_u64(AuReader *r);
const uint8_t *au_r_bytes(AuReader *r, size_t n);	/* NULL when bad */
/* Copies into buf, always terminated; too long for cap is bad. */
void		au_r_text(AuReader *r, char *buf, size_t cap);
void		au_r_rel(AuReader *r, AuRelId *rel);
bool		au_reader_done(const AuReader *r);	/* all read, nothing bad */

/* Begin to read the payload of a frame; bad at once if it is of another type. */
void		au_dec_start(AuReader *r, const AuFrame *f, uint16_t type);

/* Parts of messages.  A group with n = 0 is allowed only with `none`. */
void		au_w_history(AuWriter *w, const AuHistory *h);
void		au_r_history(AuReader *r, AuHistory *h);
void		au_w_group(AuWriter *w, const AuGroup *g);
void		au_r_group(AuReader *r, AuGroup *g, bool none);

/* ---- messages ---------------------------------------------------------
 * For each message one struct, one encoder that writes a whole frame, one
 * decoder of the payload (false: malformed).  Pointers in decoded structs
 * point into the payload.
 */

/* ERROR: answer to anything. */
typedef struct AuMsgError
{
	uint16_t	status;			/* AuStatus */
	char		message[AU_WIRE_TEXT_MAX];
	char		hint[AU_WIRE_TEXT_MAX];
} AuMsgError;

#define AU_ROLE_READER 1		/* a backend */
#define AU_ROLE_WRITER 2		/* the log shipper */
#define AU_ROLE_ADMIN 3			/* auroractl */
#define AU_ROLE_NODE 4			/* another storage node */

/* HELLO: which volume, in which role.  A volume unknown to the node is only
 * created by a WRITER's VOTE (or TERM) with may_create. */
typedef struct AuMsgHello
{
	uint64_t	system_identifier;
	uint8_t		role;
	char		name[64];		/* for status displays: "backend 123" */
} AuMsgHello;

typedef struct AuMsgHelloOk
{
	uint64_t	node_id;
	uint64_t	ring_epoch;
	uint8_t		volume_known;
	AuLsn		start_lsn;		/* first byte of log the volume ever had */
	AuLsn		durable_lsn;
	AuLsn		applied_lsn;
	uint64_t	term;			/* newest promised to anybody */
	AuGroup		group;			/* that keeps the volume; n = 0: this node alone */
} AuMsgHelloOk;

/*
 * TERM: for tools and tests of a node alone; the log shipper uses VOTE and
 * ELECT.  A writer asks for the right to append.  The node grants a term
 * greater than any it has granted, forgets the old writer (whose appends are
 * AU_FENCED from then on), and says how far its log goes.  start_lsn is used
 * only when the volume is created: it must be the beginning of a WAL record.
 * If local_end (end of the writer's local WAL) is below the node's durable
 * LSN, or the timeline is older than the node's, the answer is AU_REFUSED
 * with an explanation.  On a newer timeline whose switch point is below the
 * durable LSN, log beyond switch_lsn is cut off if no page has seen it, else
 * refused.
 */
typedef struct AuMsgTerm
{
	uint64_t	writer_id;		/* random, new for each start of the shipper */
	uint32_t	timeline;
	AuLsn		switch_lsn;		/* where this timeline began; 0 for timeline 1 */
	AuLsn		start_lsn;
	AuLsn		local_end;
	uint32_t	wal_segment_size;
	uint8_t		may_create;
} AuMsgTerm;

typedef struct AuMsgTermOk
{
	uint64_t	term;
	AuLsn		received_lsn;	/* continue shipping here */
	AuLsn		durable_lsn;
	AuLsn		applied_lsn;
} AuMsgTermOk;

/*
 * VOTE: a writer that several nodes keep the log for asks for their promise
 * not to take log of an older term.  The promise is persisted, and given to
 * one writer only; asking again is harmless.  With may_create a node that does
 * not know the volume makes it, beginning at start_lsn, kept by `group`.  The
 * group is persisted with the promise.  A node that has taken part in a newer
 * group, by its epoch, answers AU_MOVED: the writer is to learn the new one; if
 * `group` may not follow the node's (au_group_may_follow), AU_REFUSED.
 */
typedef struct AuMsgVote
{
	uint64_t	term;
	uint64_t	writer_id;		/* random, new for each start of the shipper */
	uint32_t	timeline;
	uint32_t	wal_segment_size;
	AuLsn		start_lsn;
	uint8_t		may_create;
	AuGroup		group;
} AuMsgVote;

/* granted = 0: `term` is the newer one that was promised to somebody else. */
typedef struct AuMsgVoteOk
{
	uint8_t		granted;
	uint64_t	term;
	uint32_t	timeline;		/* of the newest writer that was let in */
	AuLsn		start_lsn;		/* of the volume */
	AuLsn		durable_lsn;	/* where this node's log ends */
	AuLsn		commit_lsn;		/* a quorum holds at least this */
	AuHistory	history;
} AuMsgVoteOk;

/*
 * ELECT: enough nodes have promised; this is the log from now on.  The node
 * cuts off what differs from `history` (its last entry is the writer's own
 * term), persists it and answers where its log ends.  Below `commit_lsn` a
 * quorum holds the log.
 */
typedef struct AuMsgElect
{
	uint64_t	term;
	uint64_t	writer_id;
	uint32_t	timeline;
	AuLsn		commit_lsn;
	AuHistory	history;
	AuGroup		group;			/* as in VOTE */
} AuMsgElect;

typedef struct AuMsgElectOk
{
	uint64_t	term;
	AuLsn		received_lsn;	/* all of it is durable */
	AuLsn		applied_lsn;
} AuMsgElectOk;

/*
 * GET_LOG: a node that fell behind asks another one (role NODE) for log from
 * lsn on, at most length bytes.  LOG holds what a quorum holds; and if both
 * nodes have let in the writer of the same term, whose logs are one, all that
 * the other has.  No bytes: there is no more now; with wait_ms (at most
 * AU_GET_LOG_WAIT_MS) that is said only after this time.  AU_GONE: lsn is below
 * what is kept.
 */
#define AU_GET_LOG_WAIT_MS 1000

typedef struct AuMsgGetLog
{
	uint64_t	term;			/* of the writer that was let in last */
	AuLsn		lsn;
	uint32_t	length;
	uint32_t	wait_ms;
} AuMsgGetLog;

typedef struct AuMsgLog
{
	AuLsn		lsn;
	AuLsn		commit_lsn;
	uint32_t	length;
	const uint8_t *bytes;
} AuMsgLog;

/*
 * APPEND: log bytes [lsn, lsn + length).  Appends follow each other without a
 * gap within a connection; bytes below the node's received LSN are skipped,
 * a gap is AU_INVALID.  commit_lsn: what the quorum holds; only log below it
 * is applied to pages (with one node the node itself is the quorum).
 * APPEND_OK is sent when the bytes are durable, and may answer several
 * appends at once: it carries the id of the newest one covered.  An APPEND
 * with length 0 asks for the current positions; if log below its lsn
 * is still to be applied, it is answered once more when that is done (of
 * several such questions the newest counts; the applied position is the end of
 * a record and may be a little lower than lsn).  If its lsn is above the end of
 * the node's log, the node is to get the log up to there from other nodes.
 */
typedef struct AuMsgAppend
{
	uint64_t	term;
	uint32_t	timeline;
	AuLsn		lsn;
	AuLsn		commit_lsn;
	uint32_t	length;
	const uint8_t *bytes;
} AuMsgAppend;

typedef struct AuMsgAppendOk
{
	uint64_t	term;
	AuLsn		received_lsn;
	AuLsn		durable_lsn;
	AuLsn		applied_lsn;
} AuMsgAppendOk;

/*
 * GET_PAGES: blocks of one relation.  With read_lsn = 0 the newest version is
 * returned, but the answer waits until log up to not_before is applied; else
 * the version as of read_lsn (AU_GONE below the horizon), waiting until that
 * is applied.  The wait ends with the connection, or after the node's limit
 * with AU_REFUSED.  PAGES carries as_of (the applied LSN the pages were read
 * at, >= not_before) and, per block in request order, a status byte and, for
 * AU_OK, the page (its pd_lsn is the version's).  AU_NOT_FOUND: no version of
 * that block exists at that LSN.
 */
typedef struct AuMsgGetPages
{
	AuRelId		rel;
	AuLsn		not_before;
	AuLsn		read_lsn;
	uint32_t	place;			/* in the connection's share, see SHARE; 0: none */
	uint16_t	nblocks;
	uint32_t	blocks[AU_WIRE_BLOCKS_MAX];
} AuMsgGetPages;

typedef struct AuMsgPages
{
	AuLsn		as_of;
	uint16_t	nblocks;
	uint8_t		status[AU_WIRE_BLOCKS_MAX];
	const uint8_t *page[AU_WIRE_BLOCKS_MAX];	/* NULL unless AU_OK */
} AuMsgPages;

/*
 * SHARE: a reader on the node's own machine (over a Unix socket, of the same
 * user) offers memory for its pages: a memfd of its process, sealed against
 * shrinking, whose first pages * 8192 bytes are meant.  It takes the place of
 * an earlier offer; 0 pages: there is none any more.  SHARE_OK: how many pages
 * may be used, all or 0 (then it goes on without).  With id 0 nobody answers.
 *
 * GET_PAGES with place p > 0 has its pages put there, one after the other from
 * page p - 1 of the share on, and is answered by PAGES_PLACED: as PAGES, but
 * without the pages.  Until that answer has come (or the connection is
 * closed, whose share is then not used again) the node may write there.
 */
typedef struct AuMsgShare
{
	uint32_t	fd;				/* as the sender's process knows it */
	uint32_t	pages;
} AuMsgShare;

typedef struct AuMsgShareOk
{
	uint32_t	pages;
} AuMsgShareOk;

typedef struct AuMsgPlaced
{
	AuLsn		as_of;
	uint16_t	nblocks;
	uint8_t		status[AU_WIRE_BLOCKS_MAX];
} AuMsgPlaced;

/* GET_SIZE: the relation fork's size in blocks, same LSN rules; a relation
 * never heard of has 0 blocks. */
typedef struct AuMsgGetSize
{
	AuRelId		rel;
	AuLsn		not_before;
	AuLsn		read_lsn;
} AuMsgGetSize;

typedef struct AuMsgSize
{
	AuLsn		as_of;
	uint32_t	nblocks;
} AuMsgSize;

/* STATUS: the node's state as JSON text, the same as GET /status over HTTP.
 * LIST_RELS: relations with at least one block in database `db` (0: all). */
typedef struct AuMsgListRels
{
	uint32_t	db;
	AuLsn		not_before;
} AuMsgListRels;

/*
 * HOLD_LSN: this connection may ask for LSNs from here on, so they stay
 * readable as long as it is open; it has one hold, the last one counts, 0
 * gives it up.  AU_GONE below the horizon, AU_FULL if too many hold.  One that
 * keeps more log than the node allows is broken; reads below the horizon then
 * say so.  HOLD_OK: what is held now, and the horizon.
 */
typedef struct AuMsgHold
{
	AuLsn		lsn;
} AuMsgHold;

typedef struct AuMsgHoldOk
{
	AuLsn		lsn;
	AuLsn		horizon;
} AuMsgHoldOk;

#define AU_WIRE_REL_ENTRY 20	/* bytes of one entry */

typedef struct AuMsgRels
{
	AuLsn		as_of;
	uint32_t	count;
	const uint8_t *entries;		/* count x (4 x u32 rel, u32 nblocks); the
								 * payload of one frame is the bound */
} AuMsgRels;

/* Each encoder appends a whole frame to w; false on overflow, or for a struct
 * that breaks a limit above (too many blocks, too long an append); then
 * nothing is added.  Texts that are too long are cut between characters. */
bool		au_enc_error(AuWriter *w, uint64_t id, AuStatus status,
						 const char *message, const char *hint);
bool		au_enc_hello(AuWriter *w, uint64_t id, const AuMsgHello *m);
bool		au_enc_hello_ok(AuWriter *w, uint64_t id, const AuMsgHelloOk *m);
bool		au_enc_term(AuWriter *w, uint64_t id, const AuMsgTerm *m);
bool		au_enc_term_ok(AuWriter *w, uint64_t id, const AuMsgTermOk *m);
bool		au_enc_vote(AuWriter *w, uint64_t id, const AuMsgVote *m);
bool		au_enc_vote_ok(AuWriter *w, uint64_t id, const AuMsgVoteOk *m);
bool		au_enc_elect(AuWriter *w, uint64_t id, const AuMsgElect *m);
bool		au_enc_elect_ok(AuWriter *w, uint64_t id, const AuMsgElectOk *m);
bool		au_enc_get_log(AuWriter *w, uint64_t id, const AuMsgGetLog *m);
bool		au_enc_log(AuWriter *w, uint64_t id, const AuMsgLog *m);
bool		au_enc_append(AuWriter *w, uint64_t id, const AuMsgAppend *m);
bool		au_enc_append_ok(AuWriter *w, uint64_t id, const AuMsgAppendOk *m);
bool		au_enc_get_pages(AuWriter *w, uint64_t id, const AuMsgGetPages *m);
bool		au_enc_pages(AuWriter *w, uint64_t id, const AuMsgPages *m);
/* PAGES written page by page: begin, then for each block in order a page is
 * made at au_pages_slot (its memory: AU_PAGE_SIZE bytes; NULL: no room) and
 * added with its status, then au_frame_end. */
void		au_pages_begin(AuWriter *w, uint64_t id, AuLsn as_of, uint16_t nblocks);
uint8_t    *au_pages_slot(AuWriter *w);
void		au_pages_add(AuWriter *w, AuStatus status);
/* Memory for a PAGES frame of nblocks. */
#define AU_PAGES_CAP(nblocks) (AU_WIRE_HEADER + 10 + (size_t) (nblocks) * (1 + AU_PAGE_SIZE))
bool		au_enc_share(AuWriter *w, uint64_t id, const AuMsgShare *m);
bool		au_enc_share_ok(AuWriter *w, uint64_t id, const AuMsgShareOk *m);
bool		au_enc_placed(AuWriter *w, uint64_t id, const AuMsgPlaced *m);
/* PAGES_PLACED written page by page: begin, then au_w_u8 with the status of
 * each block in order, then au_frame_end. */
void		au_placed_begin(AuWriter *w, uint64_t id, AuLsn as_of, uint16_t nblocks);
#define AU_PLACED_CAP(nblocks) (AU_WIRE_HEADER + 10 + (size_t) (nblocks))
bool		au_enc_get_size(AuWriter *w, uint64_t id, const AuMsgGetSize *m);
bool		au_enc_size(AuWriter *w, uint64_t id, const AuMsgSize *m);
bool		au_enc_list_rels(AuWriter *w, uint64_t id, const AuMsgListRels *m);
bool		au_enc_rels(AuWriter *w, uint64_t id, const AuMsgRels *m);
bool		au_enc_hold(AuWriter *w, uint64_t id, const AuMsgHold *m);
bool		au_enc_hold_ok(AuWriter *w, uint64_t id, const AuMsgHoldOk *m);
bool		au_enc_text(AuWriter *w, uint16_t type, uint64_t id,
						const char *text, size_t len);	/* STATUS_OK: the payload is the text */
bool		au_enc_empty(AuWriter *w, uint16_t type, uint64_t id);	/* STATUS, PING, PONG */

bool		au_dec_error(const AuFrame *f, AuMsgError *m);
bool		au_dec_hello(const AuFrame *f, AuMsgHello *m);
bool		au_dec_hello_ok(const AuFrame *f, AuMsgHelloOk *m);
bool		au_dec_term(const AuFrame *f, AuMsgTerm *m);
bool		au_dec_term_ok(const AuFrame *f, AuMsgTermOk *m);
bool		au_dec_vote(const AuFrame *f, AuMsgVote *m);
bool		au_dec_vote_ok(const AuFrame *f, AuMsgVoteOk *m);
bool		au_dec_elect(const AuFrame *f, AuMsgElect *m);
bool		au_dec_elect_ok(const AuFrame *f, AuMsgElectOk *m);
bool		au_dec_get_log(const AuFrame *f, AuMsgGetLog *m);
bool		au_dec_log(const AuFrame *f, AuMsgLog *m);
bool		au_dec_append(const AuFrame *f, AuMsgAppend *m);
bool		au_dec_append_ok(const AuFrame *f, AuMsgAppendOk *m);
bool		au_dec_get_pages(const AuFrame *f, AuMsgGetPages *m);
bool		au_dec_pages(const AuFrame *f, AuMsgPages *m);
bool		au_dec_share(const AuFrame *f, AuMsgShare *m);
bool		au_dec_share_ok(const AuFrame *f, AuMsgShareOk *m);
bool		au_dec_placed(const AuFrame *f, AuMsgPlaced *m);
bool		au_dec_get_size(const AuFrame *f, AuMsgGetSize *m);
bool		au_dec_size(const AuFrame *f, AuMsgSize *m);
bool		au_dec_list_rels(const AuFrame *f, AuMsgListRels *m);
bool		au_dec_rels(const AuFrame *f, AuMsgRels *m);
bool		au_dec_hold(const AuFrame *f, AuMsgHold *m);
bool		au_dec_hold_ok(const AuFrame *f, AuMsgHoldOk *m);

#endif							/* AU_WIRE_H */
