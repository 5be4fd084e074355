/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_conn.c: the process's connections: which node is asked, opening,
 * greeting, closing; see aurora_conn.h for the states and invariants.
 */
#include "postgres.h"

#include <unistd.h>

#include "access/xlog.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/memutils.h"

#include "client/aurora_conn_int.h"
#include "module/aurora_guc.h"

/* Answers on their way that nobody waits for any more: with more, a new
 * connection is better than to read them. */
#define ABANDONED_MAX 8
/* A node that failed us is left alone for a moment, if there are others. */
#define AVOID_MS 3000
/* With others to ask nobody waits long for one to let us in. */
#define ADMIT_MS 1000
/* After so long another node may be the better one. */
#define CHOOSE_AGAIN_MS 10000

#define CLOSED {.fd = -1,.share_fd = -1}
Conn		aurora_conns[AURORA_CONNS_MAX] = {
	CLOSED, CLOSED, CLOSED, CLOSED, CLOSED, CLOSED, CLOSED, CLOSED
};
Conn	   *aurora_conn_now = &aurora_conns[0];
uint64		aurora_conns_among;
int64		aurora_conns_avoid_until[AURORA_NODES_MAX];

static int	wanted = -1;		/* the only node to ask; -1: any */
static uint64 last_id;
static uint64 calls;
static uint8 role = AU_ROLE_READER;
static XLogRecPtr held;			/* each new connection is to hold this */

int
aurora_conn_node(void)
{
	return aurora_conn_now->node;
}

uint64
aurora_conn_node_id(void)
{
	return aurora_conn_now->hello.node_id;
}

const char *
aurora_conn_target(void)
{
	return aurora_conn_now->address;
}

bool
aurora_conn_want(int node, uint64 nodes)
{
	(void) aurora_nodes_look();
	aurora_conns_among = nodes != 0 ? nodes : aurora_nodes_all();
	wanted = node >= 0 ? node : aurora_read_node - 1;
	if (wanted < 0)
		return true;
	if (node >= 0 && (node >= aurora_nodes_count() || !aurora_node_used(node)))
		return false;
	if (wanted >= aurora_nodes_count() || !aurora_node_used(wanted))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("aurora.read_node is %d, but there is no such storage node", wanted + 1),
				 errhint("View aurora.nodes has their numbers.")));
	aurora_conns_among = UINT64CONST(1) << wanted;
	return true;
}

int
aurora_conn_choices(void)
{
	return pg_popcount64(aurora_conns_among);
}

void
aurora_conn_hold(XLogRecPtr lsn)
{
	Conn	   *current = aurora_conn_now;

	/* Others hold what was held before, or nothing. */
	for (int i = 0; i < AURORA_CONNS_MAX; i++)
	{
		aurora_conn_now = &aurora_conns[i];
		if (aurora_conn_now != current)
			aurora_conn_close();
	}
	aurora_conn_now = current;
	held = lsn;
	aurora_conn_now->stay = lsn != InvalidXLogRecPtr;
}

uint64
aurora_conn_next_id(void)
{
	return ++last_id;
}

void
aurora_conn_close(void)
{
	Conn	   *c = aurora_conn_now;

	aurora_kept_drop_share();
	if (c->waits != NULL)
		FreeWaitEventSet(c->waits);
	c->waits = NULL;
	if (c->fd >= 0)
	{
		close(c->fd);
		ReleaseExternalFD();
	}
	c->fd = -1;
	c->greeted = c->halfway = c->stay = false;
	c->unanswered = 0;
	c->in_len = c->in_done = 0;
	for (int i = 0; i < lengthof(aurora_kept) && aurora_nkept > 0; i++)
		if (aurora_kept[i].id != 0 && aurora_kept[i].conn == c &&
			aurora_kept[i].state == KEPT_AWAITED)
			aurora_kept[i].state = KEPT_LOST;
}

void
aurora_conn_close_all(void)
{
	Conn	   *current = aurora_conn_now;

	for (int i = 0; i < AURORA_CONNS_MAX; i++)
	{
		aurora_conn_now = &aurora_conns[i];
		aurora_conn_close();
	}
	aurora_conn_now = current;
	held = InvalidXLogRecPtr;
}

void
aurora_conn_leave(void)
{
	aurora_node_failed(aurora_conn_now->node);
	aurora_conns_avoid_until[aurora_conn_now->node] = aurora_now_ms() + AVOID_MS;
	aurora_conn_close();
}

/* ---- which node ---- */

/* Bits of places whose nodes failed us just now. */
uint64
aurora_conns_avoided(int64 now)
{
	uint64		avoid = 0;

	for (int i = 0; i < aurora_nodes_count(); i++)
		if (aurora_conns_avoid_until[i] > now)
			avoid |= UINT64CONST(1) << i;
	return avoid;
}

bool
aurora_conn_leave_without_volume(void)
{
	AuroraClusterState state = aurora_nodes_map()->state;

	/* That the nodes are a cluster they say before the watcher has found out. */
	if (state == AURORA_CLUSTER_VIEW ||
		(state == AURORA_CLUSTER_UNKNOWN && aurora_conn_now->hello.ring_epoch != 0))
	{
		(void) aurora_conn_fail("this server's volume has not come to that node of the cluster yet");
		return true;
	}
	aurora_conn_leave();		/* it may know more next time */
	return false;
}

void
aurora_conn_pass(void)
{
	aurora_conns_avoid_until[aurora_conn_now->node] = aurora_now_ms() + AVOID_MS;
	aurora_conn_now->chosen_at = 0;
}

/* ---- greeting ---- */

void
aurora_conn_role(uint8 as)
{
	role = as;
}

static bool
exchange_hello(int64 deadline_ms, AuMsgError *refusal)
{
	uint8		memory[256];
	AuWriter	w;
	AuFrame		frame;
	AuMsgHello	hello = {0};
	uint64		id = aurora_conn_next_id();

	hello.system_identifier = GetSystemIdentifier();
	hello.role = role;
	snprintf(hello.name, sizeof(hello.name), "backend %d", MyProcPid);
	au_writer_start(&w, memory, sizeof(memory));
	if (!au_enc_hello(&w, id, &hello))
		elog(ERROR, "HELLO does not fit %zu bytes", sizeof(memory));
	if (!aurora_conn_send(w.data, w.len, deadline_ms) ||
		!aurora_conn_receive(id, &frame, deadline_ms))
		return false;
	if (frame.type == AU_MSG_ERROR && au_dec_error(&frame, refusal))
		return aurora_conn_fail("%s", refusal->message);
	if (frame.type != AU_MSG_HELLO_OK ||
		!au_dec_hello_ok(&frame, &aurora_conn_now->hello))
		return aurora_conn_fail("unexpected answer to the greeting (type %u)", frame.type);
	return true;
}

/* The best of these nodes, those that failed us just now last. */
static int
choose_node(uint64 nodes, int64 now)
{
	return wanted >= 0 ? wanted : aurora_node_choose(nodes, aurora_conns_avoided(now));
}

/* Open, not left half-way by an error, and its node is still where it was. */
static bool
usable(Conn *c)
{
	Conn	   *current = aurora_conn_now;
	bool		sound;

	if (c->fd < 0)
		return false;
	aurora_conn_now = c;
	sound = c->greeted && !c->halfway && aurora_kept_abandoned() <= ABANDONED_MAX &&
		aurora_node_used(c->node) && strcmp(c->address, aurora_node_address(c->node)) == 0;
	if (!sound)
		aurora_conn_close();
	aurora_conn_now = current;
	return sound;
}

static Conn *
find_conn(int node)
{
	for (int i = 0; i < AURORA_CONNS_MAX; i++)
		if (aurora_conns[i].fd >= 0 && aurora_conns[i].node == node && usable(&aurora_conns[i]))
			return &aurora_conns[i];
	return NULL;
}

/* A closed one, to be opened: the one that was not used for the longest time
 * gives way, but not one whose answers are kept. */
static Conn *
free_conn(void)
{
	Conn	   *oldest = NULL;

	for (int i = 0; i < AURORA_CONNS_MAX; i++)
	{
		bool		busy = false;

		if (aurora_conns[i].fd < 0)
			return &aurora_conns[i];
		for (int k = 0; k < lengthof(aurora_kept) && aurora_nkept > 0; k++)
			busy = busy || (aurora_kept[k].id != 0 && aurora_kept[k].conn == &aurora_conns[i]);
		if (!busy && (oldest == NULL || aurora_conns[i].used < oldest->used))
			oldest = &aurora_conns[i];
	}
	if (oldest == NULL)
		oldest = aurora_conn_now;
	aurora_conn_now = oldest;
	aurora_conn_close();
	return oldest;
}

/*
 * Make the connection current that is to be used for the nodes wanted: the
 * present one if it will do, now and then the best one, else one that is open,
 * else one that is closed (and then *node is who is to be connected to).
 */
static void
select_conn(int *node)
{
	int64		now = aurora_now_ms();
	uint64		open = 0;
	bool		fits = usable(aurora_conn_now) &&
		(aurora_conns_among & (UINT64CONST(1) << aurora_conn_now->node)) != 0;
	Conn	   *c;

	*node = -1;
	fits = fits && (aurora_conn_now->stay || wanted >= 0 ||
					aurora_conns_avoid_until[aurora_conn_now->node] <= now ||
					aurora_conn_choices() == 1);
	if (fits && (wanted >= 0 || aurora_conn_now->stay || aurora_nkept > 0 ||
				 aurora_conn_choices() == 1 ||
				 now - aurora_conn_now->chosen_at <= CHOOSE_AGAIN_MS))
		return;
	if (!fits)
		for (int i = 0; i < AURORA_CONNS_MAX; i++)
			if (usable(&aurora_conns[i]) &&
				(aurora_conns_among & (UINT64CONST(1) << aurora_conns[i].node)) != 0 &&
				aurora_conns_avoid_until[aurora_conns[i].node] <= now &&
				now - aurora_conns[i].chosen_at <= CHOOSE_AGAIN_MS)
				open |= UINT64CONST(1) << aurora_conns[i].node;
	*node = choose_node(open != 0 ? open : aurora_conns_among, now);
	c = find_conn(*node);
	aurora_conn_now = c != NULL ? c : free_conn();
	aurora_conn_now->chosen_at = now;
	if (c != NULL)
		*node = -1;
}

/* What this process holds is to be held by the node, too. */
static bool
hold_here(int64 deadline_ms)
{
	uint8_t		memory[64];
	AuMsgHold	hold = {.lsn = held};
	AuMsgHoldOk ok;
	AuFrame		frame;
	AuWriter	w;
	uint64		id = aurora_conn_next_id();

	au_writer_start(&w, memory, sizeof(memory));
	(void) au_enc_hold(&w, id, &hold);
	if (!aurora_conn_send(w.data, w.len, deadline_ms) ||
		!aurora_conn_receive(id, &frame, deadline_ms))
		return false;
	aurora_conn_now->stay = frame.type == AU_MSG_HOLD_OK && au_dec_hold_ok(&frame, &ok);
	return aurora_conn_now->stay ||
		aurora_conn_fail("the node does not hold an LSN that is being read");
}

static bool
connect_node(int node, int64 deadline_ms, AuMsgError *refusal)
{
	Conn	   *c = aurora_conn_now;
	char	   *err = NULL;
	int64		now = aurora_now_ms();
	long		ms;

	if (aurora_conn_choices() > 1)
		deadline_ms = Min(deadline_ms, now + ADMIT_MS);
	ms = aurora_slice_until(deadline_ms);
	if (ms == 0)
	{
		/* why the attempt before failed says more */
		if (aurora_conn_error_text[0] == '\0')
			strlcpy(aurora_conn_error_text, "no connection in time", sizeof(aurora_conn_error_text));
		return false;
	}
	c->node = node;
	strlcpy(c->address, aurora_node_address(node), sizeof(c->address));
	c->fd = aurora_open_socket(c->node, (int) ms, &err);
	if (c->fd < 0)
	{
		(void) aurora_conn_fail("%s", err);
		pfree(err);
		return false;
	}
	ReserveExternalFD();
	aurora_frames_reserve(0);
	c->waits = CreateWaitEventSet(TopMemoryContext, 3);
	AddWaitEventToSet(c->waits, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(c->waits, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	c->fd_pos = AddWaitEventToSet(c->waits, WL_SOCKET_READABLE, c->fd, NULL, NULL);
	if (!exchange_hello(deadline_ms, refusal))
		return false;
	c->greeted = true;
	return held == InvalidXLogRecPtr || hold_here(deadline_ms);
}

bool
aurora_conn_open(int64 deadline_ms, AuMsgHelloOk *hello, AuMsgError *refusal)
{
	int			node;

	refusal->status = AU_OK;
	select_conn(&node);
	aurora_conn_now->used = ++calls;
	if (node >= 0 && !connect_node(node, deadline_ms, refusal))
		return false;
	aurora_conn_error_text[0] = '\0';
	*hello = aurora_conn_now->hello;
	return true;
}
