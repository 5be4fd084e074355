/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_frames.c: frames to and from the node of the current connection, and the
 * waiting for them; see aurora_conn.h.
 */
#include "postgres.h"

#include <sys/socket.h>

#include "pgstat.h"
#include "storage/latch.h"
#include "utils/memutils.h"

#include "client/aurora_conn_int.h"

char		aurora_conn_error_text[AU_WIRE_TEXT_MAX];

const char *
aurora_conn_error(void)
{
	return aurora_conn_error_text;
}

/* Remember why, close; always false. */
bool
aurora_conn_fail(const char *fmt,...)
{
	int			save_errno = errno;
	va_list		args;

	va_start(args, fmt);
	errno = save_errno;
	vsnprintf(aurora_conn_error_text, sizeof(aurora_conn_error_text), fmt, args);
	va_end(args);
	aurora_conn_leave();
	return false;
}

/* Wait for the socket; false when the deadline is past. */
static bool
wait_socket(uint32 events, int64 deadline_ms)
{
	ModifyWaitEvent(aurora_conn_now->waits, aurora_conn_now->fd_pos, events, NULL);
	for (;;)
	{
		WaitEvent	ev;
		long		ms = aurora_slice_until(deadline_ms);

		if (ms == 0)
			return aurora_conn_fail("no answer in time");
		if (WaitEventSetWait(aurora_conn_now->waits, ms, &ev, 1, PG_WAIT_EXTENSION) == 0)
			continue;
		if (ev.events & WL_LATCH_SET)
		{
			ResetLatch(MyLatch);
			aurora_check_interrupts();
		}
		else if (ev.events & WL_SOCKET_MASK)
			return true;
	}
}

/* ---- in ---- */

/* Make the input buffer `need` bytes long, at least. */
void
aurora_frames_reserve(size_t need)
{
	Conn	   *c = aurora_conn_now;
	size_t		cap = Max(need, AURORA_CONN_FIRST_BUFFER);

	Assert(need <= AU_WIRE_HEADER + AU_WIRE_PAYLOAD_MAX);
	if (c->in_cap >= cap)
		return;
	if (c->in == NULL)
		c->in = MemoryContextAlloc(TopMemoryContext, cap);
	else if (c->in_len > 0)
		c->in = repalloc(c->in, cap);
	else
	{
		/* nothing to be copied */
		pfree(c->in);
		c->in = NULL;
		c->in_cap = 0;
		c->in = MemoryContextAlloc(TopMemoryContext, cap);
	}
	c->in_cap = cap;
}

/* Read what there is, without waiting.  *got: something came. */
bool
aurora_frames_receive(bool *got)
{
	Conn	   *c = aurora_conn_now;
	ssize_t		n;

	*got = false;
	do
		n = recv(c->fd, c->in + c->in_len, c->in_cap - c->in_len, 0);
	while (n < 0 && errno == EINTR);
	if (n > 0)
	{
		c->in_len += n;
		*got = true;
		return true;
	}
	if (n == 0)
		return aurora_conn_fail("the node closed the connection");
	if (errno != EAGAIN && errno != EWOULDBLOCK)
		return aurora_conn_fail("could not receive: %m");
	return true;
}

/*
 * Take the next whole frame from the input: one that is kept is put aside,
 * one that nobody waits for is dropped.  Returns AU_OK with the frame that
 * answers `id` (0: none does), AU_NEED_MORE when the input holds no whole
 * frame (there is room for more of it then), else the connection failed.
 */
AuStatus
aurora_frames_next(uint64 id, AuFrame *frame)
{
	Conn	   *c = aurora_conn_now;

	for (;;)
	{
		size_t		used = 0;
		AuStatus	st;
		Kept	   *k;

		/* forget the frame given out or dropped last */
		if (c->in_done > 0)
		{
			c->in_len -= c->in_done;
			memmove(c->in, c->in + c->in_done, c->in_len);
			c->in_done = 0;
		}
		st = au_frame_parse(c->in, c->in_len, frame, &used);
		if (st == AU_NEED_MORE)
		{
			aurora_frames_reserve(used);
			return st;
		}
		if (st != AU_OK)
		{
			(void) aurora_conn_fail("the node sent an unusable message (%s)",
						au_status_name(st));
			return st;
		}
		if (frame->id != 0 && c->unanswered > 0)
			c->unanswered--;
		k = frame->id == 0 ? NULL : aurora_kept_find(frame->id);
		/* what a node says of another one's question, or says again, is nothing */
		if (k != NULL && k->conn != c)
			k = NULL;
		if (k != NULL && k->state == KEPT_AWAITED)
			aurora_kept_take_in(k, frame, used);
		else
		{
			c->in_done = used;
			if (c->share != NULL && k == NULL)
				aurora_share_done(c->share, frame->id);
		}
		if (id != 0 && frame->id == id)
			return AU_OK;
	}
}

/* Receive until the answer to request id is there, or kept. */
bool
aurora_frames_await(uint64 id, AuFrame *frame, int64 deadline_ms)
{
	for (;;)
	{
		AuStatus	st = aurora_frames_next(id, frame);
		bool		got;

		if (st == AU_OK)
			return true;
		if (st != AU_NEED_MORE || !aurora_frames_receive(&got))
			return false;
		if (!got && !wait_socket(WL_SOCKET_READABLE, deadline_ms))
			return false;
	}
}

bool
aurora_conn_receive(uint64 id, AuFrame *frame, int64 deadline_ms)
{
	Assert(id != 0 && aurora_kept_find(id) == NULL);
	if (aurora_conn_now->fd < 0)
		return false;
	return aurora_frames_await(id, frame, deadline_ms);
}

/* ---- out ---- */

/*
 * Answers are taken in while a request waits to be sent: a node that is not
 * rid of its answers may not read requests.
 */
static bool
wait_to_send(int64 deadline_ms)
{
	AuFrame		frame;
	bool		got;

	if (!wait_socket(WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE, deadline_ms))
		return false;
	if (aurora_frames_next(0, &frame) != AU_NEED_MORE)
		return false;
	return aurora_frames_receive(&got);
}

bool
aurora_conn_send(const uint8 *frame, size_t len, int64 deadline_ms)
{
	Assert(aurora_conn_now->fd >= 0);
	while (len > 0)
	{
		ssize_t		n = send(aurora_conn_now->fd, frame, len, MSG_NOSIGNAL);

		if (n > 0)
		{
			frame += n;
			len -= n;
			aurora_conn_now->halfway = len > 0;
		}
		else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		{
			if (!wait_to_send(deadline_ms))
				return false;
		}
		else if (n < 0 && errno != EINTR)
			return aurora_conn_fail("could not send: %m");
	}
	aurora_conn_now->unanswered++;
	return true;
}
