/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_ship_link.c: the shipper's connection to a storage node (see
 * aurora_ship_link.h for its life).
 *
 * Invariants:
 *  1. Bytes of the log leave in order and without a gap: every append begins
 *     at link->sent and moves it.
 *  2. received, durable and applied only grow within a connection, durable
 *     is never above sent, and answers of another term end the connection.
 *  3. Memory is what aurora_link_create took.
 */
#include "postgres.h"

#include <sys/socket.h>
#include <unistd.h>

#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "client/aurora_client.h"
#include "ship/aurora_ship_link.h"

#define CONNECT_TIMEOUT_MS 5000
/* A node may have to read its log again before it can answer the first
 * requests of a writer. */
#define HANDSHAKE_TIMEOUT_MS 120000

AuroraLink *
aurora_link_create(void)
{
	AuroraLink *link = palloc0(sizeof(AuroraLink));

	link->sock = -1;
	link->out = palloc(AURORA_LINK_OUT_BYTES);
	link->in = palloc(AURORA_LINK_IN_BYTES);
	return link;
}

void
aurora_link_close(AuroraLink *link)
{
	if (link->sock >= 0)
	{
		close(link->sock);
		link->sock = -1;
		ReleaseExternalFD();
	}
	link->out_start = link->out_end = 0;
	link->in_len = 0;
}

AuroraLinkTrouble
aurora_trouble(AuroraShipFailure *failure, AuroraLinkTrouble kind,
			   const char *hint, const char *fmt,...)
{
	va_list		args;

	va_start(args, fmt);
	vsnprintf(failure->message, sizeof(failure->message), fmt, args);
	va_end(args);
	strlcpy(failure->hint, hint ? hint : "", sizeof(failure->hint));
	return kind;
}

/* The node answered ERROR. */
static AuroraLinkTrouble
node_error(AuroraLink *link, const AuFrame *frame)
{
	AuMsgError	err;
	AuroraLinkTrouble kind;

	if (!au_dec_error(frame, &err))
		return aurora_trouble(&link->failure, AURORA_LINK_REFUSED, NULL,
							  "storage node \"%s\" sent a malformed error message",
							  aurora_client_target());
	switch ((AuStatus) err.status)
	{
		case AU_FULL:
		case AU_NOMEM:
			kind = AURORA_LINK_FULL;
			break;
		case AU_FENCED:
			kind = AURORA_LINK_FENCED;
			break;
		case AU_IO:
			/* The node stops after an I/O error; it may come back. */
			kind = AURORA_LINK_LOST;
			break;
		default:
			kind = AURORA_LINK_REFUSED;
			break;
	}
	return aurora_trouble(&link->failure, kind, err.hint, "storage node \"%s\": %s",
						  aurora_client_target(),
						  err.message[0] ? err.message :
						  au_status_name((AuStatus) err.status));
}

/* Read what the socket has; LOST at the end of the stream. */
static AuroraLinkTrouble
fill(AuroraLink *link)
{
	ssize_t		n;

	Assert(link->in_len < AURORA_LINK_IN_BYTES);
	do
		n = recv(link->sock, link->in + link->in_len,
				 AURORA_LINK_IN_BYTES - link->in_len, 0);
	while (n < 0 && errno == EINTR);
	if (n > 0)
		link->in_len += n;
	else if (n == 0)
		return aurora_trouble(&link->failure, AURORA_LINK_LOST, NULL,
							  "storage node \"%s\" closed the connection",
							  aurora_client_target());
	else if (errno != EAGAIN && errno != EWOULDBLOCK)
		return aurora_trouble(&link->failure, AURORA_LINK_LOST, NULL,
							  "could not receive from storage node \"%s\": %s",
							  aurora_client_target(), strerror(errno));
	return AURORA_LINK_OK;
}

/*
 * Look at the first frame of the input.  OK with *used = 0: not complete yet.
 * The frame points into the input; drop() it afterwards.
 */
static AuroraLinkTrouble
peek(AuroraLink *link, AuFrame *frame, size_t *used)
{
	AuStatus	status;
	size_t		need = 0;

	*used = 0;
	status = au_frame_parse(link->in, link->in_len, frame, &need);
	if (status == AU_OK)
	{
		*used = need;
		return AURORA_LINK_OK;
	}
	if (status == AU_NEED_MORE && need <= AURORA_LINK_IN_BYTES)
		return AURORA_LINK_OK;
	return aurora_trouble(&link->failure, status == AU_CORRUPT ? AURORA_LINK_LOST : AURORA_LINK_REFUSED,
						  "Check that compute and storage run the same version of Aurora, and that the address is that of aurora_storaged.",
						  "storage node \"%s\" sent something that is not the expected protocol: %s",
						  aurora_client_target(),
						  status == AU_NEED_MORE ? "frame too long" : au_status_name(status));
}

static void
drop(AuroraLink *link, size_t used)
{
	link->in_len -= used;
	memmove(link->in, link->in + used, link->in_len);
}

/* Wait for one of the socket events; false when the time is up. */
static bool
wait_socket(AuroraLink *link, int events, TimestampTz deadline)
{
	for (;;)
	{
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
														   deadline);
		int			rc;

		if (left <= 0)
			return false;
		rc = WaitLatchOrSocket(MyLatch,
							   WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH | events,
							   link->sock, left, PG_WAIT_EXTENSION);
		if (rc & WL_LATCH_SET)
		{
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
		}
		if (rc & events)
			return true;
	}
}

/*
 * Send the request that is in the output and wait for its answer, which must
 * be of the given type.  On OK the frame stays in the input until drop().
 */
static AuroraLinkTrouble
roundtrip(AuroraLink *link, uint16 answer, const char *what, AuFrame *frame,
		  size_t *used)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													   HANDSHAKE_TIMEOUT_MS);

	for (;;)
	{
		AuroraLinkTrouble rc = aurora_link_flush(link);

		if (rc == AURORA_LINK_OK)
			rc = fill(link);
		if (rc == AURORA_LINK_OK)
			rc = peek(link, frame, used);
		if (rc != AURORA_LINK_OK)
			return rc;
		if (*used > 0)
			break;
		if (!wait_socket(link, WL_SOCKET_READABLE |
						 (aurora_link_pending(link) ? WL_SOCKET_WRITEABLE : 0),
						 deadline))
			return aurora_trouble(&link->failure, AURORA_LINK_LOST, NULL,
								  "storage node \"%s\" did not answer %s within %d s",
								  aurora_client_target(), what,
								  HANDSHAKE_TIMEOUT_MS / 1000);
	}
	if (frame->type == AU_MSG_ERROR)
		return node_error(link, frame);
	if (frame->type != answer)
		return aurora_trouble(&link->failure, AURORA_LINK_REFUSED, NULL,
							  "storage node \"%s\" answered %s with message type %u",
							  aurora_client_target(), what, frame->type);
	return AURORA_LINK_OK;
}

static AuroraLinkTrouble
malformed(AuroraLink *link, const char *what)
{
	return aurora_trouble(&link->failure, AURORA_LINK_REFUSED, NULL,
						  "storage node \"%s\" sent a malformed answer to %s",
						  aurora_client_target(), what);
}

AuroraLinkTrouble
aurora_link_open(AuroraLink *link, uint64 system_identifier)
{
	AuMsgHello	hello = {.system_identifier = system_identifier,.role = AU_ROLE_WRITER};
	AuMsgHelloOk ok;
	AuFrame		frame;
	AuWriter	w;
	size_t		used;
	char	   *err = NULL;
	AuroraLinkTrouble rc;

	Assert(link->sock < 0);
	link->sock = aurora_client_open_socket(CONNECT_TIMEOUT_MS, &err);
	if (link->sock < 0)
	{
		rc = aurora_trouble(&link->failure, AURORA_LINK_LOST, NULL, "%s",
							err ? err : "could not connect to storage");
		if (err)
			pfree(err);
		return rc;
	}
	ReserveExternalFD();
	link->out_start = link->out_end = link->in_len = 0;
	link->last_id = link->acked_id = 0;

	snprintf(hello.name, sizeof(hello.name), "shipper %d", MyProcPid);
	au_writer_start(&w, link->out, AURORA_LINK_OUT_BYTES);
	if (!au_enc_hello(&w, ++link->last_id, &hello))
		elog(ERROR, "could not encode HELLO");
	link->out_end = w.len;
	rc = roundtrip(link, AU_MSG_HELLO_OK, "HELLO", &frame, &used);
	if (rc != AURORA_LINK_OK)
		return rc;
	if (!au_dec_hello_ok(&frame, &ok))
		return malformed(link, "HELLO");
	link->node_id = ok.node_id;
	link->volume_known = ok.volume_known != 0;
	link->start_lsn = ok.start_lsn;
	link->durable = ok.durable_lsn;
	link->applied = ok.applied_lsn;
	drop(link, used);
	return AURORA_LINK_OK;
}

AuroraLinkTrouble
aurora_link_term(AuroraLink *link, const AuMsgTerm *m)
{
	AuMsgTermOk ok;
	AuFrame		frame;
	AuWriter	w;
	size_t		used;
	AuroraLinkTrouble rc;

	Assert(!aurora_link_pending(link));
	au_writer_start(&w, link->out, AURORA_LINK_OUT_BYTES);
	if (!au_enc_term(&w, ++link->last_id, m))
		elog(ERROR, "could not encode TERM");
	link->out_start = 0;
	link->out_end = w.len;
	rc = roundtrip(link, AU_MSG_TERM_OK, "TERM", &frame, &used);
	if (rc != AURORA_LINK_OK)
		return rc;
	if (!au_dec_term_ok(&frame, &ok) || ok.durable_lsn > ok.received_lsn ||
		ok.received_lsn == InvalidXLogRecPtr)
		return malformed(link, "TERM");
	drop(link, used);

	link->term = ok.term;
	link->received = ok.received_lsn;
	link->durable = ok.durable_lsn;
	link->applied = ok.applied_lsn;
	link->sent = ok.received_lsn;
	link->acked_id = link->last_id;
	link->last_answer = GetCurrentTimestamp();
	return AURORA_LINK_OK;
}

bool
aurora_link_has_room(const AuroraLink *link)
{
	/* Append moves what is left to the front if need be. */
	return AURORA_LINK_OUT_BYTES - (link->out_end - link->out_start) >=
		AU_WIRE_APPEND_MAX + 256;
}

void
aurora_link_append(AuroraLink *link, TimeLineID timeline, const uint8 *bytes,
				   size_t len)
{
	AuMsgAppend m;
	AuWriter	w;

	Assert(len <= AU_WIRE_APPEND_MAX);
	Assert(aurora_link_has_room(link));
	if (link->out_start == link->out_end)
		link->out_start = link->out_end = 0;
	else if (AURORA_LINK_OUT_BYTES - link->out_end < len + 256)
	{
		memmove(link->out, link->out + link->out_start,
				link->out_end - link->out_start);
		link->out_end -= link->out_start;
		link->out_start = 0;
	}

	m.term = link->term;
	m.timeline = timeline;
	m.lsn = link->sent;
	m.commit_lsn = link->durable;
	m.length = len;
	m.bytes = bytes;
	au_writer_start(&w, link->out + link->out_end,
					AURORA_LINK_OUT_BYTES - link->out_end);
	if (!au_enc_append(&w, link->last_id + 1, &m))
		elog(ERROR, "could not encode APPEND of %zu bytes", len);
	if (link->last_id == link->acked_id)
		link->last_answer = GetCurrentTimestamp();
	link->last_id++;
	link->out_end += w.len;
	link->sent += len;
}

AuroraLinkTrouble
aurora_link_flush(AuroraLink *link)
{
	while (aurora_link_pending(link))
	{
		ssize_t		n = send(link->sock, link->out + link->out_start,
							 link->out_end - link->out_start, MSG_NOSIGNAL);

		if (n > 0)
		{
			link->out_start += n;
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			break;

		/* The node may have said why before it closed the connection. */
		if (errno == EPIPE || errno == ECONNRESET)
		{
			AuroraLinkTrouble rc = aurora_link_receive(link);

			if (rc != AURORA_LINK_OK)
				return rc;
		}
		return aurora_trouble(&link->failure, AURORA_LINK_LOST, NULL,
							  "could not send to storage node \"%s\": %s",
							  aurora_client_target(), strerror(errno));
	}
	return AURORA_LINK_OK;
}

/* Take over the positions of an APPEND_OK. */
static AuroraLinkTrouble
acknowledge(AuroraLink *link, const AuFrame *frame)
{
	AuMsgAppendOk ok;

	if (!au_dec_append_ok(frame, &ok))
		return malformed(link, "APPEND");
	if (ok.term != link->term || ok.durable_lsn > link->sent ||
		ok.durable_lsn < link->durable || ok.applied_lsn < link->applied)
		return aurora_trouble(&link->failure, AURORA_LINK_REFUSED,
							  "This is a bug, or two storage nodes share one directory.",
							  "storage node \"%s\" acknowledged term " UINT64_FORMAT ", log up to %X/%X, pages up to %X/%X, but term " UINT64_FORMAT " has %X/%X of log acknowledged, %X/%X sent and pages up to %X/%X",
							  aurora_client_target(), ok.term,
							  LSN_FORMAT_ARGS(ok.durable_lsn),
							  LSN_FORMAT_ARGS(ok.applied_lsn), link->term,
							  LSN_FORMAT_ARGS(link->durable),
							  LSN_FORMAT_ARGS(link->sent),
							  LSN_FORMAT_ARGS(link->applied));
	link->received = ok.received_lsn;
	link->durable = ok.durable_lsn;
	link->applied = ok.applied_lsn;
	if (frame->id > link->acked_id && frame->id <= link->last_id)
		link->acked_id = frame->id;
	return AURORA_LINK_OK;
}

AuroraLinkTrouble
aurora_link_receive(AuroraLink *link)
{
	for (;;)
	{
		AuFrame		frame;
		size_t		used;
		size_t		before = link->in_len;
		AuroraLinkTrouble rc;

		rc = fill(link);
		if (rc != AURORA_LINK_OK)
			return rc;
		if (link->in_len == before)
			return AURORA_LINK_OK;
		for (;;)
		{
			rc = peek(link, &frame, &used);
			if (rc != AURORA_LINK_OK)
				return rc;
			if (used == 0)
				break;
			if (frame.type == AU_MSG_ERROR)
				rc = node_error(link, &frame);
			else if (frame.type == AU_MSG_APPEND_OK)
				rc = acknowledge(link, &frame);
			else
				rc = aurora_trouble(&link->failure, AURORA_LINK_REFUSED, NULL,
									"storage node \"%s\" sent an unexpected message of type %u",
									aurora_client_target(), frame.type);
			drop(link, used);
			if (rc != AURORA_LINK_OK)
				return rc;
			link->last_answer = GetCurrentTimestamp();
		}
	}
}
