/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_client.c: questions a backend asks the storage node.
 *
 * Invariants:
 *  1. A question is repeated, with a growing pause, until it is answered, the
 *     user cancels, or aurora.storage_timeout is over.  All questions are
 *     reads: to ask twice does no harm.
 *  2. What comes back was checked: the frame's CRC, that it answers this
 *     question, the structure of each page, and that no page is newer than
 *     the LSN it is said to be read as of.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "portability/instr_time.h"
#include "port/pg_bitutils.h"
#include "storage/bufpage.h"

#include "client/aurora_client.h"
#include "client/aurora_conn.h"
#include "client/aurora_nodes.h"
#include "client/aurora_share.h"
#include "common/au_page.h"
#include "common/au_wire_cluster.h"
#include "module/aurora_guc.h"

#define PAUSE_FIRST_MS 10
#define PAUSE_MAX_MS 1000
/* After this the log says that somebody waits. */
#define TELL_AFTER_MS 10000
/* How long one node of several may take, at first and at most. */
#define PATIENCE_FIRST_MS 1000
#define PATIENCE_MAX_MS 30000

/* With so many pages it pays to share memory with the node. */
#define SHARE_FROM 32

#define REQUEST_BYTES_MAX (AU_WIRE_HEADER + 64 + 4 * AU_WIRE_BLOCKS_MAX)

/* What is asked, for messages. */
typedef struct Question
{
	const char *verb;			/* "read block 5 of relation 1663/5/16384" */
	const RelFileNode *rnode;	/* NULL: not about a relation */
	BlockNumber first;
	int			nblocks;		/* 0: about the size */
	const BlockNumber *blocks;	/* nblocks of them, if `among` */
	XLogRecPtr	lsn;
	bool		noerror;
	bool		any_volume;		/* the node need not know our volume */
	bool		measured;		/* its time tells how fast the node reads */
	bool		one_node;		/* only `node` is asked; needs noerror */
	int			node;			/* if one_node */
	uint64		among;			/* places of nodes that can answer; 0: all */
	int64		deadline_ms;
	AuMsgError *why;			/* noerror: what the last node said instead of an
								 * answer; status AU_OK: nothing.  NULL: no matter */
} Question;

static int64
default_deadline(void)
{
	if (aurora_storage_timeout_ms <= 0)
		return PG_INT64_MAX;
	return aurora_now_ms() + aurora_storage_timeout_ms;
}

/* "read block 5 of relation 1663/5/16384 as of 0/1A2B3C", palloc'd */
static char *
describe(const Question *q)
{
	if (q->rnode == NULL)
		return psprintf("%s", q->verb);
	if (q->nblocks == 0)
		return psprintf("read the size of relation %u/%u/%u (LSN %X/%X)",
						q->rnode->spcNode, q->rnode->dbNode,
						q->rnode->relNode, LSN_FORMAT_ARGS(q->lsn));
	if (q->nblocks == 1)
		return psprintf("read block %u of relation %u/%u/%u (LSN %X/%X)",
						q->first, q->rnode->spcNode, q->rnode->dbNode,
						q->rnode->relNode, LSN_FORMAT_ARGS(q->lsn));
	return psprintf("read %d blocks from block %u of relation %u/%u/%u (LSN %X/%X)",
					q->nblocks, q->first, q->rnode->spcNode,
					q->rnode->dbNode, q->rnode->relNode,
					LSN_FORMAT_ARGS(q->lsn));
}

static void
raise_unreachable(const Question *q)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("could not %s from storage node \"%s\": %s",
					describe(q), aurora_conn_target(), aurora_conn_error()),
			 errdetail("Gave up after aurora.storage_timeout (%d ms).",
					   aurora_storage_timeout_ms),
			 aurora_storage_nodes[0] != '\0' ?
			 errhint("Check that aurora_storaged runs at that address; views in schema \"aurora\" show its state.") :
			 errhint("The server starts its own aurora_storaged; the server log and views in schema \"aurora\" tell why it is not up.")));
}

static void
raise_refusal(const Question *q, const AuMsgError *e)
{
	ereport(ERROR,
			(errcode(e->status == AU_CORRUPT ? ERRCODE_DATA_CORRUPTED :
					 e->status == AU_GONE ? ERRCODE_SNAPSHOT_TOO_OLD :
					 ERRCODE_IO_ERROR),
			 errmsg("could not %s from storage node \"%s\": %s",
					describe(q), aurora_conn_target(), e->message),
			 e->hint[0] != '\0' ? errhint("%s", e->hint) : 0));
}

static void
raise_unknown_volume(const Question *q)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("could not %s: storage node \"%s\" does not hold this database cluster",
					describe(q), aurora_conn_target()),
			 errhint("Check aurora.storage_nodes, or aurora.storage_directory of the embedded daemon.")));
}

typedef enum Outcome
{
	ANSWERED,
	NO_ANSWER,					/* the connection's error says why */
	TURNED_AWAY,				/* e says why */
	UNKNOWN_VOLUME
} Outcome;

/* One attempt at one node. */
static Outcome
ask_once(const Question *q, uint64 id, const AuWriter *w, uint16 answer_type,
		 int64 deadline_ms, AuFrame *answer, AuMsgError *e)
{
	AuMsgHelloOk hello;
	instr_time	start,
				end;

	if (!aurora_conn_open(deadline_ms, &hello, e))
	{
		/* a node that has no room for us just now may have soon */
		return e->status != AU_OK && e->status != AU_FULL &&
			e->status != AU_NOMEM ? TURNED_AWAY : NO_ANSWER;
	}
	if (!hello.volume_known && !q->any_volume)
		return aurora_conn_leave_without_volume() ? NO_ANSWER : UNKNOWN_VOLUME;
	INSTR_TIME_SET_CURRENT(start);
	if (!aurora_conn_send(w->data, w->len, deadline_ms))
		return NO_ANSWER;
	if (q->measured && aurora_conn_choices() > 1 && aurora_hedge_delay_ms != 0 ?
		!aurora_conn_receive_hedged(id, answer_type, w->data, w->len, answer,
									aurora_now_ms() + aurora_hedge_ms(), deadline_ms,
									&start) :
		!aurora_conn_receive(id, answer, deadline_ms))
		return NO_ANSWER;
	INSTR_TIME_SET_CURRENT(end);
	INSTR_TIME_SUBTRACT(end, start);
	if (q->measured)
		aurora_node_answered(aurora_conn_node(), INSTR_TIME_GET_MICROSEC(end));
	return ANSWERED;
}

/* What an answer of another type than was expected says. */
static void
explain_answer(const AuFrame *answer, AuMsgError *e)
{
	if (answer->type == AU_MSG_ERROR && au_dec_error(answer, e))
		return;
	e->status = AU_INVALID;
	snprintf(e->message, sizeof(e->message), "unexpected answer (type %u)", answer->type);
	e->hint[0] = '\0';
}

/* Raise what the last attempt ended with. */
static void
give_up(const Question *q, Outcome outcome, const AuMsgError *e)
{
	if (outcome == TURNED_AWAY || outcome == ANSWERED)
		raise_refusal(q, e);
	if (outcome == UNKNOWN_VOLUME)
		raise_unknown_volume(q);
	raise_unreachable(q);
}

/* Who can answer, by the map as it is now. */
static uint64
owners_of(const Question *q)
{
	uint64		owners = aurora_nodes_all();

	if (q->among == 0)
		return 0;
	for (int i = 0; i < q->nblocks; i++)
		owners &= aurora_node_owners(q->rnode, q->blocks[i]);
	return owners != 0 ? owners : q->among;
}

/* What one node has, others may have got, or may get while it is silent: the
 * map is to be looked at now and then. */
static bool
others_may_come(void)
{
	uint64		all = aurora_nodes_all();

	return (all & (all - 1)) != 0;
}

/*
 * Ask until there is an answer of type answer_type.  False only with noerror.
 */
static bool
ask(Question *q, uint64 id, const AuWriter *w, uint16 answer_type,
	AuFrame *answer)
{
	int64		started = aurora_now_ms();
	long		pause = PAUSE_FIRST_MS;
	int64		patience = PATIENCE_FIRST_MS;
	int			nodes;
	int			tried = 0;
	bool		mendable = false;	/* time may help, at one node at least */
	bool		told = false;

	Assert(CritSectionCount == 0);
	if (w->overflow)
		elog(ERROR, "request does not fit %zu bytes", w->cap);
	Assert(q->noerror || !q->one_node);
	if (!aurora_conn_want(q->one_node ? q->node : -1, q->among))
		return false;			/* it has left the cluster */
	nodes = aurora_conn_choices();

	for (;;)
	{
		AuMsgError	e;
		Outcome		outcome;
		int64		deadline_ms = q->deadline_ms;

		aurora_check_interrupts();
		if (nodes > 1 || (q->among != 0 && others_may_come()))
			deadline_ms = Min(deadline_ms, aurora_now_ms() + patience);
		outcome = ask_once(q, id, w, answer_type, deadline_ms, answer, &e);
		if (outcome == ANSWERED && answer->type == answer_type)
			break;
		if (outcome == ANSWERED)
			explain_answer(answer, &e);
		if (outcome == ANSWERED && nodes > 1)
			aurora_conn_leave();
		if (outcome == ANSWERED && e.status == AU_MOVED)
			aurora_nodes_moved();
		/* "refused" means: log up to that LSN is not there yet */
		mendable = mendable || outcome == NO_ANSWER ||
			(outcome == ANSWERED && (e.status == AU_REFUSED || e.status == AU_MOVED));
		if (++tried < nodes && aurora_now_ms() < q->deadline_ms)
			continue;			/* the next node, at once */
		if (q->noerror)
		{
			if (outcome != ANSWERED && outcome != TURNED_AWAY)
				e.status = AU_OK;
			if (q->why != NULL)
				*q->why = e;
			return false;
		}
		if (!mendable || aurora_now_ms() >= q->deadline_ms)
			give_up(q, outcome, &e);

		if (!told && aurora_now_ms() - started > TELL_AFTER_MS)
		{
			ereport(LOG,
					(errmsg("still waiting to %s from storage node \"%s\": %s",
							describe(q), aurora_conn_target(),
							outcome == ANSWERED ? e.message : aurora_conn_error())));
			told = true;
		}
		/* the map may be another one by now */
		(void) aurora_conn_want(-1, owners_of(q));
		nodes = aurora_conn_choices();
		tried = 0;
		mendable = false;
		patience = Min(patience * 2, PATIENCE_MAX_MS);
		aurora_nap(pause);
		pause = outcome == ANSWERED ? PAUSE_FIRST_MS : Min(pause * 2, PAUSE_MAX_MS);
	}
	if (told)
		ereport(LOG,
				(errmsg("storage node \"%s\" answered after " INT64_FORMAT " ms",
						aurora_conn_target(), aurora_now_ms() - started)));
	return true;
}

/* The node's answer makes no sense: drop the connection, say so. */
static void
raise_malformed(const Question *q)
{
	aurora_conn_close();
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("could not %s from storage node \"%s\": malformed answer",
					describe(q), aurora_conn_target())));
}

static void
rel_of(const RelFileNode *rnode, AuRelId *rel)
{
	rel->spc = rnode->spcNode;
	rel->db = rnode->dbNode;
	rel->rel = rnode->relNode;
	rel->fork = 0;
}

/* A page as storage gave it, or an error that names it; noerror: false. */
static bool
check_page(const RelFileNode *rnode, BlockNumber blk, const uint8 *page,
		   XLogRecPtr as_of, bool noerror)
{
	const char *why = NULL;

	if (au_page_valid(page, &why) && au_page_lsn(page) <= as_of)
		return true;
	if (noerror)
		return false;
	if (why != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("invalid page in block %u of relation %u/%u/%u from storage node \"%s\": %s",
						blk, rnode->spcNode, rnode->dbNode, rnode->relNode,
						aurora_conn_target(), why)));
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("block %u of relation %u/%u/%u from storage node \"%s\" has LSN %X/%X, newer than asked for (%X/%X)",
					blk, rnode->spcNode, rnode->dbNode, rnode->relNode,
					aurora_conn_target(),
					LSN_FORMAT_ARGS(au_page_lsn(page)),
					LSN_FORMAT_ARGS(as_of))));
	return false;
}

/*
 * Take the pages out of an answer.  What a node cannot give, or gives wrong, is
 * an error; noerror (there are other nodes): false.
 */
static bool
take_answer(const Question *q, const BlockNumber *blocks, const AuMsgPages *got,
			XLogRecPtr limit, char *pages, uint8 *status, bool noerror)
{
	const RelFileNode *rnode = q->rnode;

	for (int i = 0; i < q->nblocks; i++)
	{
		char	   *page = pages + (Size) i * BLCKSZ;

		status[i] = got->status[i];
		if (status[i] == AU_OK)
		{
			if (!check_page(rnode, blocks[i], got->page[i], limit, noerror))
				return false;
			memcpy(page, got->page[i], BLCKSZ);
		}
		else if (status[i] == AU_NOT_FOUND)
			MemSet(page, 0, BLCKSZ);
		else if (noerror)
			return false;
		else
			ereport(ERROR,
					(errcode(status[i] == AU_CORRUPT ? ERRCODE_DATA_CORRUPTED :
							 ERRCODE_IO_ERROR),
					 errmsg("could not read block %u of relation %u/%u/%u (LSN %X/%X) from storage node \"%s\": %s",
							blocks[i], rnode->spcNode, rnode->dbNode,
							rnode->relNode, LSN_FORMAT_ARGS(q->lsn),
							aurora_conn_target(),
							au_status_name(status[i]))));
	}
	return true;
}

static void
about_pages(Question *q, const RelFileNode *rnode, const BlockNumber *blocks,
			int n, XLogRecPtr not_before, XLogRecPtr read_lsn)
{
	Assert(n >= 1 && n <= AU_WIRE_BLOCKS_MAX);
	memset(q, 0, sizeof(*q));
	q->rnode = rnode;
	q->first = blocks[0];
	q->nblocks = n;
	q->lsn = XLogRecPtrIsInvalid(read_lsn) ? not_before : read_lsn;
	q->deadline_ms = default_deadline();
}

static void
request_pages(AuWriter *w, uint64 id, const RelFileNode *rnode,
			  const BlockNumber *blocks, int n, XLogRecPtr not_before,
			  XLogRecPtr read_lsn, uint32 place)
{
	static AuMsgGetPages req;

	rel_of(rnode, &req.rel);
	req.not_before = not_before;
	req.read_lsn = read_lsn;
	req.place = place;
	req.nblocks = n;
	memcpy(req.blocks, blocks, n * sizeof(uint32));
	(void) au_enc_get_pages(w, id, &req);
}

/* Blocks that one node has all of. */
static XLogRecPtr
get_pages_of(const RelFileNode *rnode, const BlockNumber *blocks, int n, uint64 owners,
			 XLogRecPtr not_before, XLogRecPtr read_lsn, char *pages, uint8 *status)
{
	static AuMsgPages got;
	Question	q;
	uint8		memory[REQUEST_BYTES_MAX];
	int			others;

	about_pages(&q, rnode, blocks, n, not_before, read_lsn);
	q.measured = true;
	q.among = owners;
	q.blocks = blocks;
	others = aurora_read_node > 0 ? 0 : pg_popcount64(owners) - 1;
	for (;; others--)
	{
		uint64		id = aurora_conn_next_id();
		AuWriter	w;
		AuFrame		answer;
		XLogRecPtr	limit;

		au_writer_start(&w, memory, sizeof(memory));
		request_pages(&w, id, rnode, blocks, n, not_before, read_lsn, 0);
		(void) ask(&q, id, &w, AU_MSG_PAGES, &answer);
		if (!au_dec_pages(&answer, &got) || got.nblocks != n ||
			got.as_of < not_before)
			raise_malformed(&q);
		limit = XLogRecPtrIsInvalid(read_lsn) ? got.as_of : read_lsn;
		if (take_answer(&q, blocks, &got, limit, pages, status, others > 0))
			return got.as_of;
		ereport(LOG,
				(errmsg("could not %s from storage node \"%s\": it has no sound page; asking another node",
						describe(&q), aurora_conn_target())));
		aurora_conn_leave();
	}
}

XLogRecPtr
aurora_client_get_pages(const RelFileNode *rnode, const BlockNumber *blocks,
						int n, XLogRecPtr not_before, XLogRecPtr read_lsn,
						char *pages, uint8 *status)
{
	XLogRecPtr	as_of = PG_UINT64_MAX;

	Assert(n >= 1 && n <= AU_WIRE_BLOCKS_MAX);
	(void) aurora_nodes_look();
	/* In pieces whose blocks the same nodes have: those that two slices have in
	 * common might all be down. */
	for (int from = 0, len; from < n; from += len)
	{
		uint64		owners = aurora_node_owners(rnode, blocks[from]);
		XLogRecPtr	lsn;

		for (len = 1; from + len < n; len++)
			if (aurora_node_owners(rnode, blocks[from + len]) != owners)
				break;
		lsn = get_pages_of(rnode, blocks + from, len, owners, not_before, read_lsn,
						   pages + (Size) from * BLCKSZ, status + from);
		as_of = Min(as_of, lsn);
	}
	return as_of;
}

/* ---- read-ahead ---- */

/* Who asked for a favour, and got no answer for as long as one may wait, would
 * ask in earnest now and wait again. */
static void
in_vain(const Question *q)
{
	if (aurora_now_ms() >= q->deadline_ms)
		raise_unreachable(q);
}

/* A favour is not waited for as long as another node could do it, or could come
 * to. */
static int64
soon(int64 deadline_ms)
{
	return others_may_come() ?
		Min(deadline_ms, aurora_now_ms() + PATIENCE_FIRST_MS) : deadline_ms;
}

uint64
aurora_client_ask_pages(const RelFileNode *rnode, const BlockNumber *blocks,
						int n, XLogRecPtr not_before, XLogRecPtr read_lsn)
{
	Question	q;
	uint8		memory[REQUEST_BYTES_MAX];
	AuMsgHelloOk hello;
	AuMsgError	refusal;
	AuWriter	w;
	uint64		id = aurora_conn_next_id();
	uint64		owners = PG_UINT64_MAX;
	uint32		place;
	bool		sent;

	about_pages(&q, rnode, blocks, n, not_before, read_lsn);
	(void) aurora_nodes_look();
	for (int i = 0; i < n; i++)
		owners &= aurora_node_owners(rnode, blocks[i]);
	if ((owners & aurora_nodes_alive()) == 0)
		return 0;				/* no node that is there has all of them */
	(void) aurora_conn_want(-1, owners);
	sent = aurora_conn_open(soon(q.deadline_ms), &hello, &refusal) &&
		hello.volume_known &&
		(n < SHARE_FROM || aurora_conn_share(soon(q.deadline_ms))) &&
		aurora_conn_keep(id, n, &place);
	if (sent)
	{
		au_writer_start(&w, memory, sizeof(memory));
		request_pages(&w, id, rnode, blocks, n, not_before, read_lsn, place);
		sent = aurora_conn_send(w.data, w.len, soon(q.deadline_ms));
	}
	if (!sent)
	{
		aurora_conn_forget(id);
		in_vain(&q);
	}
	return sent ? id : 0;
}

/* An answer whose pages were put into the memory that we share. */
static bool
placed_pages(const AuFrame *answer, const uint8 *pages, AuMsgPages *got)
{
	static AuMsgPlaced placed;

	if (pages == NULL || !au_dec_placed(answer, &placed) ||
		placed.nblocks > AURORA_SHARE_SLOT_PAGES)
		return false;
	got->as_of = placed.as_of;
	got->nblocks = placed.nblocks;
	for (int i = 0; i < placed.nblocks; i++)
	{
		got->status[i] = placed.status[i];
		got->page[i] = placed.status[i] == AU_OK ? pages + (Size) i * BLCKSZ : NULL;
	}
	return true;
}

bool
aurora_client_take_pages(uint64 id, const RelFileNode *rnode,
						 const BlockNumber *blocks, int n, AuMsgPages *got)
{
	Question	q = {0};
	AuFrame		answer;

	q.rnode = rnode;
	q.first = blocks[0];
	q.nblocks = n;
	q.deadline_ms = default_deadline();
	/* Late: who asks in earnest now asks another node. */
	if (aurora_conn_kept(id) && aurora_conn_choices() > 1 && aurora_hedge_delay_ms != 0 &&
		!aurora_conn_kept_in_time(id, aurora_now_ms() + aurora_hedge_ms()) &&
		aurora_hedge_allowed())
	{
		aurora_node_hedged(aurora_conn_node(), (uint64) aurora_hedge_ms() * 1000);
		aurora_conn_pass();
		return false;
	}
	if (!aurora_conn_take(id, &answer, soon(q.deadline_ms)))
	{
		in_vain(&q);
		return false;
	}
	return (answer.type == AU_MSG_PAGES_PLACED ?
			placed_pages(&answer, aurora_conn_placed(id), got) :
			answer.type == AU_MSG_PAGES && au_dec_pages(&answer, got)) &&
		got->nblocks == n;
}

bool
aurora_client_asked(uint64 id)
{
	return aurora_conn_kept(id);
}

void
aurora_client_forget(uint64 id)
{
	aurora_conn_forget(id);
}

void
aurora_client_asked_end(void)
{
	aurora_conn_forget_memory();
}

bool
aurora_client_page_usable(const uint8 *page, XLogRecPtr as_of)
{
	return au_page_valid(page, NULL) && au_page_lsn(page) <= as_of;
}

/* ---- other questions ---- */

BlockNumber
aurora_client_get_size(const RelFileNode *rnode, XLogRecPtr not_before,
					   XLogRecPtr read_lsn, XLogRecPtr *as_of)
{
	AuMsgGetSize req;
	AuMsgSize	got;
	Question	q = {0};
	uint8		memory[REQUEST_BYTES_MAX];
	AuWriter	w;
	AuFrame		answer;
	uint64		id = aurora_conn_next_id();

	q.rnode = rnode;
	q.lsn = XLogRecPtrIsInvalid(read_lsn) ? not_before : read_lsn;
	q.deadline_ms = default_deadline();
	q.measured = true;

	rel_of(rnode, &req.rel);
	req.not_before = not_before;
	req.read_lsn = read_lsn;
	au_writer_start(&w, memory, sizeof(memory));
	(void) au_enc_get_size(&w, id, &req);
	(void) ask(&q, id, &w, AU_MSG_SIZE, &answer);
	if (!au_dec_size(&answer, &got) || got.as_of < not_before)
		raise_malformed(&q);
	*as_of = XLogRecPtrIsInvalid(read_lsn) ? got.as_of : read_lsn;
	return got.nblocks;
}

int64
aurora_client_database_pages(Oid db, int timeout_ms)
{
	AuMsgListRels req;
	AuMsgRels	got;
	Question	q = {0};
	uint8		memory[REQUEST_BYTES_MAX];
	AuWriter	w;
	AuFrame		answer;
	uint64		id = aurora_conn_next_id();
	int64		pages = 0;

	q.verb = "read the sizes of a database's relations";
	q.noerror = true;
	q.deadline_ms = aurora_now_ms() + timeout_ms;

	req.db = db;
	req.not_before = InvalidXLogRecPtr;
	au_writer_start(&w, memory, sizeof(memory));
	(void) au_enc_list_rels(&w, id, &req);
	if (!ask(&q, id, &w, AU_MSG_RELS, &answer))
		return -1;
	if (!au_dec_rels(&answer, &got))
		raise_malformed(&q);
	for (uint32 i = 0; i < got.count; i++)
		pages += au_get_u32(got.entries + (Size) i * AU_WIRE_REL_ENTRY +
							AU_WIRE_REL_ENTRY - sizeof(uint32));
	return pages;
}

bool
aurora_client_hold(XLogRecPtr lsn)
{
	AuMsgHold	req = {.lsn = lsn};
	AuMsgHoldOk got;
	Question	q = {0};
	uint8		memory[REQUEST_BYTES_MAX];
	AuWriter	w;
	AuFrame		answer;
	uint64		id = aurora_conn_next_id();
	bool		held = false;

	q.verb = "hold an LSN";
	q.lsn = lsn;
	q.noerror = true;
	q.deadline_ms = default_deadline();

	au_writer_start(&w, memory, sizeof(memory));
	(void) au_enc_hold(&w, id, &req);
	PG_TRY();
	{
		held = ask(&q, id, &w, AU_MSG_HOLD_OK, &answer) &&
			au_dec_hold_ok(&answer, &got) && got.lsn == lsn;
	}
	PG_CATCH();
	{
		/* it may hold for us, and nobody would ever tell it to stop */
		aurora_client_drop_hold();
		PG_RE_THROW();
	}
	PG_END_TRY();
	if (held)
		aurora_conn_hold(lsn);
	return held;
}

void
aurora_client_drop_hold(void)
{
	aurora_conn_close_all();
}

char *
aurora_client_status_json(int node, int timeout_ms)
{
	Question	q = {0};
	uint8		memory[REQUEST_BYTES_MAX];
	AuWriter	w;
	AuFrame		answer;
	uint64		id = aurora_conn_next_id();

	q.verb = "read the status";
	q.noerror = true;
	q.any_volume = true;
	q.one_node = node >= 0;
	q.node = node;
	q.deadline_ms = aurora_now_ms() + timeout_ms;

	au_writer_start(&w, memory, sizeof(memory));
	(void) au_enc_empty(&w, AU_MSG_STATUS, id);
	if (!ask(&q, id, &w, AU_MSG_STATUS_OK, &answer))
		return NULL;
	return pnstrdup((const char *) answer.payload, answer.length);
}

/* ---- the cluster ---- */

void
aurora_client_administers(void)
{
	aurora_conn_role(AU_ROLE_ADMIN);
}

AuroraViewAnswer
aurora_client_get_view(int node, uint64 epoch, AuView *view, int timeout_ms,
					   uint64 *node_id, char *err, size_t errlen)
{
	AuMsgGetView req = {.epoch = epoch};
	AuMsgView	got;
	Question	q = {0};
	uint8		memory[REQUEST_BYTES_MAX];
	AuWriter	w;
	AuFrame		answer;
	AuMsgError	e;
	uint64		id = aurora_conn_next_id();

	q.verb = "read the view of the cluster";
	q.noerror = true;
	q.any_volume = true;
	q.one_node = true;
	q.node = node;
	q.deadline_ms = aurora_now_ms() + timeout_ms;
	q.why = &e;

	au_writer_start(&w, memory, sizeof(memory));
	(void) au_enc_get_view(&w, id, &req);
	*node_id = 0;
	if (!ask(&q, id, &w, AU_MSG_VIEW, &answer))
	{
		/* A node of a version that knows no clusters. */
		if (e.status == AU_UNSUPPORTED)
			return AURORA_VIEW_NONE;
		strlcpy(err, e.status != AU_OK ? e.message : aurora_conn_error(), errlen);
		return e.status != AU_OK ? AURORA_VIEW_REFUSED : AURORA_VIEW_NO_ANSWER;
	}
	*node_id = aurora_conn_node_id();
	if (!au_dec_view(&answer, &got) ||
		(got.length > 0 && !au_view_decode(view, got.bytes, got.length)))
	{
		strlcpy(err, "malformed view", errlen);
		return AURORA_VIEW_NO_ANSWER;
	}
	if (got.epoch == 0)
		return AURORA_VIEW_NONE;
	return got.length > 0 ? AURORA_VIEW_NEW : AURORA_VIEW_SAME;
}

bool
aurora_client_command(const AuViewCommand *c, int timeout_ms, char *err, size_t errlen)
{
	uint8		bytes[AU_VIEW_COMMAND_MAX];
	AuMsgCluster req = {.bytes = bytes};
	AuMsgClusterOk got;
	AuMsgError	e;
	Question	q = {0};
	uint8		memory[AU_WIRE_HEADER + 64 + AU_VIEW_COMMAND_MAX];
	AuWriter	w;
	AuFrame		answer;
	uint64		id = aurora_conn_next_id();

	q.verb = "change the cluster";
	q.noerror = true;
	q.any_volume = true;
	q.deadline_ms = aurora_now_ms() + timeout_ms;
	q.why = &e;

	req.length = (uint32) au_view_command_encode(c, bytes, sizeof(bytes));
	au_writer_start(&w, memory, sizeof(memory));
	(void) au_enc_cluster(&w, id, &req);
	if (!ask(&q, id, &w, AU_MSG_CLUSTER_OK, &answer))
		strlcpy(err, e.status != AU_OK ? e.message : aurora_conn_error(), errlen);
	else if (!au_dec_cluster_ok(&answer, &got))
		strlcpy(err, "malformed answer", errlen);
	else
		return true;
	return false;
}
