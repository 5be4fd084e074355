/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_hedge.c: an answer that is late is asked of a second node as well; see
 * aurora_conn.h.  When it is late, and whether one more may be asked, is
 * aurora_nodes.c's to say.
 */
#include "postgres.h"

#include "pgstat.h"
#include "storage/latch.h"
#include "utils/memutils.h"

#include "client/aurora_conn_int.h"

/* Who asks a second node has the first one's answer under way meanwhile: if it
 * takes longer to get in there, the first one will be faster. */
#define HEDGE_OPEN_MS 50

typedef enum Awaited
{
	HERE,
	LATE,
	LOST
} Awaited;

/* As receive_answer, but when time is up the connection stays as it is. */
static Awaited
await_answer(uint64 id, AuFrame *frame, int64 until_ms)
{
	for (;;)
	{
		AuStatus	st = aurora_frames_next(id, frame);
		WaitEvent	ev;
		bool		got;
		long		ms;

		if (st == AU_OK)
			return HERE;
		if (st != AU_NEED_MORE || !aurora_frames_receive(&got))
			return LOST;
		if (got)
			continue;
		ms = aurora_slice_until(until_ms);
		if (ms == 0)
			return LATE;
		ModifyWaitEvent(aurora_conn_now->waits, aurora_conn_now->fd_pos, WL_SOCKET_READABLE, NULL);
		if (WaitEventSetWait(aurora_conn_now->waits, ms, &ev, 1, PG_WAIT_EXTENSION) > 0 &&
			(ev.events & WL_LATCH_SET) != 0)
		{
			ResetLatch(MyLatch);
			aurora_check_interrupts();
		}
	}
}

/* Wait for either of two sockets. */
static void
wait_for_two(int a, int b, long ms)
{
	WaitEventSet *set = CreateWaitEventSet(TopMemoryContext, 4);
	WaitEvent	ev;

	AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	AddWaitEventToSet(set, WL_SOCKET_READABLE, a, NULL, NULL);
	AddWaitEventToSet(set, WL_SOCKET_READABLE, b, NULL, NULL);
	if (WaitEventSetWait(set, ms, &ev, 1, PG_WAIT_EXTENSION) > 0 &&
		(ev.events & WL_LATCH_SET) != 0)
		ResetLatch(MyLatch);
	FreeWaitEventSet(set);
	aurora_check_interrupts();
}

/*
 * Both were asked; the first that answers with `type` becomes the current
 * connection.  What the other one says later is read and dropped.
 */
static bool
race(Conn *both[2], uint64 id, uint16 type, AuFrame *frame, int64 deadline_ms)
{
	bool		over[2] = {false, false};

	for (;;)
	{
		bool		any = false;
		long		ms;

		for (int i = 0; i < 2; i++)
		{
			AuStatus	st;
			bool		got = false;

			if (over[i])
				continue;
			aurora_conn_now = both[i];
			st = aurora_frames_next(id, frame);
			if (st == AU_OK && (frame->type == type || over[!i]))
				return true;
			over[i] = st == AU_OK || st != AU_NEED_MORE || !aurora_frames_receive(&got);
			any = any || got || over[i];
		}
		if (over[0] && over[1])
			return false;
		if (any)
			continue;
		ms = aurora_slice_until(deadline_ms);
		if (ms == 0)
		{
			/* a third one may be well; neither is to be asked again at once */
			for (int i = 0; i < 2; i++)
				if (!over[i])
				{
					aurora_conn_now = both[i];
					(void) aurora_conn_fail("no answer in time");
				}
			return false;
		}
		if (over[0] || over[1])
		{
			aurora_conn_now = both[over[0]];
			return aurora_frames_await(id, frame, deadline_ms);
		}
		wait_for_two(both[0]->fd, both[1]->fd, ms);
	}
}

/* Who may be asked as well as the current node: alive as far as is known, and
 * not just left. */
static uint64
hedge_with(void)
{
	uint64		others = aurora_conns_among & aurora_nodes_alive() &
		~(UINT64CONST(1) << aurora_conn_now->node);

	return others & ~aurora_conns_avoided(aurora_now_ms());
}

bool
aurora_conn_receive_hedged(uint64 id, uint16 type, const uint8 *request, size_t len,
						   AuFrame *frame, int64 late_ms, int64 deadline_ms,
						   instr_time *asked_at)
{
	Conn	   *both[2] = {aurora_conn_now, NULL};
	uint64		others = hedge_with();
	AuMsgHelloOk hello;
	AuMsgError	refusal;
	Awaited		first;
	uint64		all = aurora_conns_among;
	bool		asked;
	instr_time	second_at;
	int64		bound;

	if (others == 0 || late_ms >= deadline_ms)
		return aurora_conn_receive(id, frame, deadline_ms);
	first = await_answer(id, frame, late_ms);
	if (first != LATE)
		return first == HERE;
	if (!aurora_hedge_allowed())
		return aurora_conn_receive(id, frame, deadline_ms);
	aurora_node_hedged(aurora_conn_now->node, (uint64) (aurora_hedge_ms() * 1000));
	aurora_conns_among = others;
	bound = Min(deadline_ms, aurora_now_ms() + HEDGE_OPEN_MS);
	asked = aurora_conn_open(bound, &hello, &refusal) && hello.volume_known;
	INSTR_TIME_SET_CURRENT(second_at);
	asked = asked && aurora_conn_send(request, len, bound);
	aurora_conns_among = all;
	both[1] = aurora_conn_now;
	if (!asked || both[0] == both[1] || both[0]->fd < 0)
	{
		/* nobody else can help, or the first one had to give way */
		aurora_conn_now = asked ? both[1] : both[0];
		if (asked)
			*asked_at = second_at;
		return aurora_conn_now->fd >= 0 && aurora_frames_await(id, frame, deadline_ms);
	}
	if (!race(both, id, type, frame, deadline_ms))
		return false;
	if (aurora_conn_now == both[1])
	{
		*asked_at = second_at;
		if (frame->type == type)
			aurora_node_hedge_won(aurora_conn_now->node);
	}
	return true;
}

bool
aurora_conn_kept_in_time(uint64 id, int64 until_ms)
{
	Kept	   *k = aurora_kept_find(id);
	AuFrame		frame;

	if (k == NULL || k->state != KEPT_AWAITED)
		return true;
	aurora_conn_now = k->conn;
	return await_answer(id, &frame, until_ms) != LATE;
}
