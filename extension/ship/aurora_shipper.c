/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_shipper.c: the log shipper, a background worker that streams the
 * server's own WAL to storage and tells the server what is durable there.
 *
 *	  backend ──commit──▶ WAL ──▶ walsender ──"w" bytes──▶ shipper ──APPEND──▶ node
 *	  backend ◀──released── walsender ◀──"r" flush, apply── shipper ◀──APPEND_OK──
 *
 * To the server it is an ordinary physical standby: slot aurora.slot_name
 * keeps the WAL that storage does not have yet, and with
 * synchronous_standby_names = 'aurora' a commit waits until it is durable on
 * storage.
 *
 *	  run_session:   slot ─▶ HELLO ─▶ connect ─▶ TERM ─▶ stream ──┐
 *	                  ▲                                           │ trouble
 *	                  └────── back-off by kind of trouble ◀───────┘
 *
 * Invariants:
 *  1. flush and write positions reported to the server are positions the
 *     node has called durable, in the term that was granted to this process.
 *  2. The slot exists before the volume does, and the volume begins at a redo
 *     pointer, where a WAL record begins and from which WAL is kept.
 *  3. A volume is created once in the life of a server: after that (marker
 *     file) a node that does not know it is refused, not filled anew.
 *  4. At most INFLIGHT_MAX bytes and two frames are on their way; beyond that
 *     the server's socket is not read.
 */
#include "postgres.h"

#include "access/timeline.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "replication/slot.h"
#include "replication/syncrep.h"
#include "replication/walreceiver.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "client/aurora_client.h"
#include "module/aurora_guc.h"
#include "ship/aurora_ship_link.h"
#include "ship/aurora_ship_server.h"
#include "ship/aurora_ship_state.h"

#define INFLIGHT_MAX (16 * 1024 * 1024)

/* Back-off after trouble, by kind. */
#define LOST_DELAY_MIN_MS 50
#define LOST_DELAY_MAX_MS 1000
#define FULL_DELAY_MIN_MS 1000
#define FULL_DELAY_MAX_MS 5000
#define REFUSED_DELAY_MS 30000
/* A session that streamed this long was a good one: back-off starts anew. */
#define GOOD_SESSION_MS 2000
/* The same message again after this time only; and a node that is just
 * starting is no news. */
#define LOG_INTERVAL_MS 30000
#define QUIET_START_MS 5000

/*
 * While nobody waits for storage, log is gathered for a moment before it is
 * sent: the node then has one sync and one turn of applying for many commits.
 * Not when there is much of it anyway.
 */
#define GATHER_MS 5
#define GATHER_BYTES (32 * 1024)

/* Asking for positions: after log was sent, and now and then when idle. */
#define POLL_MIN_MS 50
#define POLL_IDLE_MS 1000
/* Whoever waited for pages may soon do so again. */
#define APPLY_INTEREST_MS 10000
/* No answer to an append or a poll for so long: the connection is dead. */
#define ANSWER_TIMEOUT_MS 60000
/* Status to the server at least this often, whatever
 * wal_receiver_status_interval says. */
#define STATUS_MAX_MS 10000

typedef struct Shipper
{
	uint64		writer_id;
	char	   *superuser;
	AuroraLink *link;
	AuroraShipFailure failure;

	/* One session */
	MemoryContext session_cxt;
	WalReceiverConn *conn;
	pgsocket	server_fd;		/* PGINVALID_SOCKET until known */
	WaitEventSet *wait_storage; /* latch, storage */
	WaitEventSet *wait_both;	/* latch, storage, server */
	TimeLineID	timeline;		/* of the server */
	TimeLineID	stream_timeline;	/* of what is streamed; older in history */
	char	   *nodes;			/* settings the session was made with */
	char	   *conninfo;
	bool		marked;			/* storage has made our volume before */
	bool		ended;			/* the server ended the stream */
	bool		reply_requested;
	TimestampTz streaming_since;	/* 0: this session did not get there */
	XLogRecPtr	begin;			/* where this session goes on */
	bool		was_full;		/* the last one ended because storage was full */

	/* WAL received, not yet in a frame; it begins at link->sent */
	uint8	   *batch;
	size_t		batch_len;

	/* What the server and shared memory were told last */
	XLogRecPtr	told_durable;
	XLogRecPtr	told_applied;
	TimestampTz last_status;
	TimestampTz next_poll;
	int			poll_ms;
	TimestampTz gather_until;	/* the batch is sent then; 0: at once */
	size_t		last_append;	/* bytes of the last append */
	TimestampTz apply_interest; /* when somebody last waited for pages */
	XLogRecPtr	asked_applied;	/* the node will tell when log up to here is in */
	uint64		appends;
	uint64		bytes;
} Shipper;

/* Positions in both wait event sets */
#define EV_STORAGE 1

/* ---- small things ---- */

static void
shipper_exit(int code, Datum arg)
{
	aurora_ship_listen(false);
	aurora_ship_set_state(AURORA_SHIP_STOPPED, NULL);
}

static AuroraLinkTrouble
link_failed(Shipper *s, AuroraLinkTrouble kind)
{
	s->failure = s->link->failure;
	return kind;
}

/* ---- session: from nothing to streaming ---- */

/* Say HELLO: is the node there, and does it hold our volume? */
static AuroraLinkTrouble
greet_storage(Shipper *s)
{
	AuroraLink *link = s->link;
	AuroraLinkTrouble rc;

	rc = aurora_link_open(link, GetSystemIdentifier());
	if (rc != AURORA_LINK_OK)
		return link_failed(s, rc);
	s->marked = aurora_ship_marker_exists();
	if (s->marked && !link->volume_known)
		return aurora_trouble(&s->failure, AURORA_LINK_REFUSED,
							  "Give the storage node its data directory back, or correct aurora.storage_nodes. Only if no aurora table is left, stop the server, remove file \"" AURORA_VOLUME_MARKER "\" from the data directory and start again with a new volume.",
							  "storage node \"%s\" does not hold the volume of this server (system identifier " UINT64_FORMAT ")",
							  aurora_client_target(), GetSystemIdentifier());
	return AURORA_LINK_OK;
}

/* Connect to our own server as a standby. */
static AuroraLinkTrouble
join_server(Shipper *s)
{
	char	   *err = NULL;
	char	   *sysid;
	char		ours[32];
	TimeLineID	tli;

	s->conn = walrcv_connect(aurora_server_conninfo(s->superuser), false, "aurora", &err);
	if (s->conn == NULL)
		return aurora_trouble(&s->failure, AURORA_LINK_LOST,
							  "The log shipper connects to its own server like a standby: pg_hba.conf must permit replication connections for this user; aurora.shipper_conninfo sets another way.",
							  "log shipper could not connect to its own server: %s",
							  err ? err : "out of memory");
	sysid = walrcv_identify_system(s->conn, &tli);
	snprintf(ours, sizeof(ours), UINT64_FORMAT, GetSystemIdentifier());
	if (strcmp(sysid, ours) != 0 || tli != s->timeline)
		return aurora_trouble(&s->failure, AURORA_LINK_REFUSED,
							  "Correct aurora.shipper_conninfo: it must lead to this server.",
							  "log shipper reached another server: system identifier %s, timeline %u, expected %s, timeline %u",
							  sysid, tli, ours, s->timeline);
	return AURORA_LINK_OK;
}

/* Win a term; then link->sent is where to go on. */
static AuroraLinkTrouble
join_storage(Shipper *s, List *history)
{
	AuroraLink *link = s->link;
	AuMsgTerm	term = {0};
	AuroraLinkTrouble rc;

	term.writer_id = s->writer_id;
	term.timeline = s->timeline;
	term.switch_lsn = ((TimeLineHistoryEntry *) linitial(history))->begin;
	term.start_lsn = GetRedoRecPtr();
	term.local_end = GetFlushRecPtr(NULL);
	term.wal_segment_size = wal_segment_size;
	term.may_create = !s->marked;
	rc = aurora_link_term(link, &term);
	if (rc != AURORA_LINK_OK)
		return link_failed(s, rc);
	if (!link->volume_known)
		link->start_lsn = term.start_lsn;
	if (!s->marked)
		aurora_ship_marker_write(link->start_lsn);

	if (!aurora_wal_available(link->received, history))
		return aurora_trouble(&s->failure, AURORA_LINK_REFUSED,
							  "Copy the missing segments from the WAL archive into pg_wal, or restore server and storage from a backup. To avoid this, keep the replication slot and leave max_slot_wal_keep_size at -1.",
							  "the volume on storage node \"%s\" cannot be continued: it ends at %X/%X, and that WAL has been removed from this server",
							  aurora_client_target(), LSN_FORMAT_ARGS(link->received));
	return AURORA_LINK_OK;
}

static AuroraLinkTrouble
start_stream(Shipper *s, List *history)
{
	WalRcvStreamOptions options = {0};

	/* Log of an older timeline is streamed as such, up to its end. */
	s->stream_timeline = tliOfPointInHistory(s->link->sent, history);
	options.logical = false;
	options.slotname = aurora_slot_name;
	options.startpoint = s->link->sent;
	options.proto.physical.startpointTLI = s->stream_timeline;
	if (!walrcv_startstreaming(s->conn, &options))
		return aurora_trouble(&s->failure, AURORA_LINK_LOST, NULL,
							  "server has no log to stream on timeline %u at %X/%X",
							  s->stream_timeline, LSN_FORMAT_ARGS(s->link->sent));
	return AURORA_LINK_OK;
}

static void
publish(Shipper *s)
{
	AuroraLink *link = s->link;

	SpinLockAcquire(&aurora_ship->mutex);
	aurora_ship->st.appends += s->appends;
	aurora_ship->st.bytes_sent += s->bytes;
	aurora_ship->st.last_ack = link->last_answer;
	SpinLockRelease(&aurora_ship->mutex);
	s->appends = 0;
	s->bytes = 0;
	aurora_ship_publish(link->sent, link->durable, link->applied);
}

/* ---- session: streaming ---- */

static void
append_batch(Shipper *s)
{
	aurora_link_append(s->link, s->timeline, s->batch, s->batch_len);
	s->appends++;
	s->bytes += s->batch_len;
	s->last_append = s->batch_len;
	s->batch_len = 0;
	s->gather_until = 0;
	pg_atomic_write_u64(&aurora_ship->sent_lsn, s->link->sent);
}

static bool
may_take_more(const Shipper *s)
{
	return aurora_link_has_room(s->link) &&
		s->link->sent + s->batch_len - s->link->durable < INFLIGHT_MAX;
}

static uint64
get_be64(const char *p)
{
	uint64		v;

	memcpy(&v, p, sizeof(v));
	return pg_ntoh64(v);
}

/* One message of the server. */
static void
server_message(Shipper *s, const char *buf, int len)
{
	if (buf[0] == 'k' && len == 1 + 8 + 8 + 1)
	{
		if (buf[17])
			s->reply_requested = true;
	}
	else if (buf[0] == 'w' && len > 1 + 24)
	{
		XLogRecPtr	start = get_be64(buf + 1);
		const char *bytes = buf + 25;
		size_t		left = len - 25;

		if (start != s->link->sent + s->batch_len)
			ereport(ERROR,
					(errcode(ERRCODE_PROTOCOL_VIOLATION),
					 errmsg("server sent WAL from %X/%X, expected %X/%X",
							LSN_FORMAT_ARGS(start),
							LSN_FORMAT_ARGS(s->link->sent + s->batch_len))));
		if (left > AU_WIRE_APPEND_MAX)
			ereport(ERROR,
					(errcode(ERRCODE_PROTOCOL_VIOLATION),
					 errmsg("server sent %zu bytes of WAL in one message", left)));
		/* The caller has seen that a frame fits. */
		if (s->batch_len + left > AU_WIRE_APPEND_MAX)
			append_batch(s);
		memcpy(s->batch + s->batch_len, bytes, left);
		s->batch_len += left;
	}
	else
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("server sent an invalid replication message of type %d and length %d",
						buf[0], len)));
}

/* May commits wait for standbys? */
static bool
commits_wait(void)
{
	return SyncRepStandbyNames != NULL && SyncRepStandbyNames[0] != '\0';
}

/* Does anybody wait for storage to have the log that was not sent yet? */
static bool
in_a_hurry(const Shipper *s)
{
	return commits_wait() ||
		pg_atomic_read_u64(&aurora_ship->wanted_lsn) > s->link->sent ||
		s->ended || s->reply_requested;
}

/*
 * Send the batch, or let it wait for more.  While it does, the server's socket
 * is not read, so that a commit does not wake us.
 */
static void
send_or_gather(Shipper *s)
{
	if (s->batch_len == 0 || !aurora_link_has_room(s->link))
		return;
	if (s->batch_len < GATHER_BYTES && s->last_append < GATHER_BYTES &&
		!in_a_hurry(s))
	{
		TimestampTz now = GetCurrentTimestamp();

		if (s->gather_until == 0)
			s->gather_until = TimestampTzPlusMilliseconds(now, GATHER_MS);
		if (now < s->gather_until)
			return;
	}
	append_batch(s);
}

/* Still waiting for more: don't look at the server's socket before. */
static bool
gathering(const Shipper *s)
{
	return s->gather_until != 0 && !in_a_hurry(s) &&
		GetCurrentTimestamp() < s->gather_until;
}

/*
 * Take what the server has sent and put it into frames, about one frame a
 * turn.  Returns true if there may be more at once.
 */
static bool
take_wal(Shipper *s)
{
	XLogRecPtr	before = s->link->sent;
	bool		more = false;

	while (!s->ended && may_take_more(s) && !gathering(s))
	{
		char	   *buf;
		int			len = walrcv_receive(s->conn, &buf, &s->server_fd);

		if (len == 0)
			break;
		if (len < 0)
			s->ended = true;
		else
			server_message(s, buf, len);
		if (s->link->sent != before)
		{
			more = true;
			break;
		}
	}
	send_or_gather(s);
	return more;
}

/* Tell the server: written = flushed = durable on storage, applied. */
static void
send_status(Shipper *s)
{
	char		msg[1 + 4 * 8 + 1];
	uint64		fields[4];

	s->told_durable = s->link->durable;
	s->told_applied = s->link->applied;
	s->last_status = GetCurrentTimestamp();
	s->reply_requested = false;

	fields[0] = pg_hton64(s->told_durable);
	fields[1] = pg_hton64(s->told_durable);
	fields[2] = pg_hton64(s->told_applied);
	fields[3] = pg_hton64((uint64) s->last_status);
	msg[0] = 'r';
	memcpy(msg + 1, fields, sizeof(fields));
	msg[sizeof(msg) - 1] = 0;	/* no answer wanted */
	walrcv_send(s->conn, msg, sizeof(msg));
}

/* Often enough that wal_sender_timeout never ends a connection that only
 * waits for storage. */
static int
status_interval_ms(void)
{
	int			ms = STATUS_MAX_MS;

	if (wal_receiver_status_interval > 0)
		ms = Min(ms, wal_receiver_status_interval * 1000);
	if (wal_sender_timeout > 0)
		ms = Min(ms, Max(wal_sender_timeout / 3, 1));
	return ms;
}

/* Does somebody wait for pages, or did a short while ago?  Waiting commits are
 * seen without their lock: it may take another turn. */
static bool
apply_interest(Shipper *s)
{
	TimestampTz now = GetCurrentTimestamp();

	if (pg_atomic_read_u64(&aurora_ship->wanted_applied) > s->link->applied ||
		(commits_wait() &&
		 !SHMQueueEmpty(&WalSndCtl->SyncRepQueue[SYNC_REP_WAIT_APPLY])))
		s->apply_interest = now;
	return s->apply_interest != 0 &&
		!TimestampDifferenceExceeds(s->apply_interest, now, APPLY_INTEREST_MS);
}

/*
 * synchronous_commit = remote_apply and aurora.sync() wait until pages reflect
 * the log.  Of what is durable but not applied the node tells when it is.
 */
static void
ask_for_applied(Shipper *s)
{
	AuroraLink *link = s->link;

	if (link->applied >= link->durable || s->asked_applied >= link->sent ||
		!apply_interest(s) || !aurora_link_has_room(link))
		return;
	aurora_link_append(link, s->timeline, NULL, 0);
	s->asked_applied = link->sent;
}

/*
 * After answers: pass on what is new, and plan the next question about the
 * positions.
 */
static void
pass_on_positions(Shipper *s)
{
	AuroraLink *link = s->link;
	bool		moved = link->durable != s->told_durable ||
		link->applied != s->told_applied;

	if (moved || s->reply_requested)
		send_status(s);
	if (moved)
		publish(s);
	if (moved)
		s->poll_ms = POLL_MIN_MS;
	ask_for_applied(s);
}

/* Timers; returns how long to wait at most, in ms. */
static long
timers(Shipper *s, AuroraLinkTrouble *rc)
{
	AuroraLink *link = s->link;
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz due;
	bool		asked = link->last_id != link->acked_id;

	*rc = AURORA_LINK_OK;
	if (aurora_link_pending(link))
		return 0;				/* to send it */
	due = TimestampTzPlusMilliseconds(s->last_status, status_interval_ms());
	if (now >= due)
	{
		send_status(s);
		publish(s);
		due = TimestampTzPlusMilliseconds(now, status_interval_ms());
	}

	if (asked)
	{
		TimestampTz limit = TimestampTzPlusMilliseconds(link->last_answer,
														ANSWER_TIMEOUT_MS);

		s->next_poll = 0;
		if (now >= limit)
			*rc = aurora_trouble(&s->failure, AURORA_LINK_LOST, NULL,
								 "storage node \"%s\" has not answered for %d s",
								 aurora_client_target(), ANSWER_TIMEOUT_MS / 1000);
		due = Min(due, limit);
	}
	else
	{
		if (s->next_poll == 0)
		{
			int			ms = link->applied >= link->sent ? POLL_IDLE_MS : s->poll_ms;

			s->next_poll = TimestampTzPlusMilliseconds(now, ms);
			s->poll_ms = Min(s->poll_ms * 2, POLL_IDLE_MS);
		}
		if (now >= s->next_poll && aurora_link_has_room(link))
		{
			aurora_link_append(link, s->timeline, NULL, 0);
			s->next_poll = 0;
			return 0;			/* to send it */
		}
		due = Min(due, s->next_poll);
	}
	if (s->gather_until != 0)
		due = Min(due, s->gather_until);
	return Max(TimestampDifferenceMilliseconds(now, due), 0);
}

/* The sets are made when the server's socket is known: at the first moment
 * there is nothing to read. */
static void
wait_for_events(Shipper *s, long timeout_ms)
{
	WaitEventSet *set;
	WaitEvent	ev[3];
	bool		both = s->server_fd != PGINVALID_SOCKET && may_take_more(s) &&
		!gathering(s);
	uint32		want = WL_SOCKET_READABLE |
		(aurora_link_pending(s->link) ? WL_SOCKET_WRITEABLE : 0);
	WaitEventSet **slot = both ? &s->wait_both : &s->wait_storage;

	if (*slot == NULL)
	{
		*slot = CreateWaitEventSet(s->session_cxt, 4);
		AddWaitEventToSet(*slot, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
		AddWaitEventToSet(*slot, WL_SOCKET_READABLE, s->link->sock, NULL, NULL);
		AddWaitEventToSet(*slot, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
		if (both)
			AddWaitEventToSet(*slot, WL_SOCKET_READABLE, s->server_fd, NULL, NULL);
	}
	set = *slot;
	ModifyWaitEvent(set, EV_STORAGE, want, NULL);
	(void) WaitEventSetWait(set, timeout_ms, ev, lengthof(ev), PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
}

/*
 * Are we shipping now?  If storage was full, it is no news that it lets us
 * connect: then only when it has taken something.
 */
static void
see_success(Shipper *s)
{
	AuroraLink *link = s->link;

	if (s->was_full && link->durable <= s->begin &&
		link->durable < GetFlushRecPtr(NULL))
		return;
	s->was_full = false;
	s->streaming_since = GetCurrentTimestamp();
	SpinLockAcquire(&aurora_ship->mutex);
	aurora_ship->st.term = link->term;
	aurora_ship->st.timeline = s->timeline;
	aurora_ship->st.start_lsn = link->start_lsn;
	aurora_ship->st.sessions++;
	SpinLockRelease(&aurora_ship->mutex);
	aurora_ship_set_state(AURORA_SHIP_STREAMING, NULL);
	ereport(LOG,
			(errmsg("log shipping to storage node \"%s\" started at %X/%X, timeline %u, term " UINT64_FORMAT,
					aurora_client_target(), LSN_FORMAT_ARGS(s->begin),
					s->stream_timeline, link->term)));
}

/* Ship until something goes wrong. */
static AuroraLinkTrouble
stream(Shipper *s)
{
	AuroraLinkTrouble rc;

	send_status(s);
	publish(s);
	see_success(s);
	for (;;)
	{
		bool		more;
		long		timeout;

		aurora_ship_check_interrupts();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			if (strcmp(s->nodes, aurora_storage_nodes) != 0 ||
				strcmp(s->conninfo, aurora_shipper_conninfo) != 0)
				return aurora_trouble(&s->failure, AURORA_LINK_LOST, NULL,
									  "connection settings of the log shipper have changed");
		}

		more = take_wal(s);
		rc = aurora_link_flush(s->link);
		if (rc == AURORA_LINK_OK)
			rc = aurora_link_receive(s->link);
		if (rc != AURORA_LINK_OK)
			return link_failed(s, rc);
		pass_on_positions(s);
		if (s->streaming_since == 0)
			see_success(s);
		if (s->ended && s->batch_len == 0 && !aurora_link_pending(s->link))
			return aurora_trouble(&s->failure, AURORA_LINK_LOST, NULL,
								  "server ended the stream of timeline %u at %X/%X",
								  s->stream_timeline, LSN_FORMAT_ARGS(s->link->sent));
		timeout = timers(s, &rc);
		if (rc != AURORA_LINK_OK)
			return rc;
		if (!more)
			wait_for_events(s, timeout);
	}
}

static AuroraLinkTrouble
run_session(Shipper *s)
{
	AuroraLinkTrouble rc;
	List	   *history;

	s->nodes = pstrdup(aurora_storage_nodes);
	s->conninfo = pstrdup(aurora_shipper_conninfo);
	(void) GetFlushRecPtr(&s->timeline);
	history = readTimeLineHistory(s->timeline);

	rc = aurora_slot_ensure(&s->failure);
	if (rc == AURORA_LINK_OK)
		rc = greet_storage(s);
	if (rc == AURORA_LINK_OK)
		rc = join_server(s);
	if (rc == AURORA_LINK_OK)
		rc = join_storage(s, history);
	if (rc == AURORA_LINK_OK)
		rc = start_stream(s, history);
	if (rc != AURORA_LINK_OK)
		return rc;

	s->begin = s->link->sent;
	return stream(s);
}

/* ---- around sessions ---- */

/* Back to the state before a session, also after an error in it. */
static void
end_session(Shipper *s)
{
	if (s->wait_storage != NULL)
		FreeWaitEventSet(s->wait_storage);
	if (s->wait_both != NULL)
		FreeWaitEventSet(s->wait_both);
	s->wait_storage = s->wait_both = NULL;
	if (s->conn != NULL)
		walrcv_disconnect(s->conn);
	s->conn = NULL;
	s->server_fd = PGINVALID_SOCKET;
	aurora_link_close(s->link);
	s->batch_len = 0;
	s->ended = s->reply_requested = false;
	s->next_poll = 0;
	s->poll_ms = POLL_MIN_MS;
	s->gather_until = 0;
	s->last_append = 0;
	s->asked_applied = InvalidXLogRecPtr;
	MemoryContextReset(s->session_cxt);
}

/* Run a session; an error in it is trouble like any other. */
static AuroraLinkTrouble
run_guarded_session(Shipper *s)
{
	volatile AuroraLinkTrouble rc = AURORA_LINK_LOST;

	s->streaming_since = 0;
	MemoryContextSwitchTo(s->session_cxt);
	PG_TRY();
	{
		rc = run_session(s);
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(s->session_cxt);
		edata = CopyErrorData();
		FlushErrorState();
		LWLockReleaseAll();
		if (MyReplicationSlot != NULL)
			ReplicationSlotRelease();
		AtEOXact_Files(false);
		rc = aurora_trouble(&s->failure, AURORA_LINK_LOST, edata->hint, "log shipping failed: %s",
							edata->message);
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	end_session(s);
	MemoryContextSwitchTo(TopMemoryContext);
	return rc;
}

/* Report trouble in the log: when it changes, and every now and then. */
static void
log_trouble(const Shipper *s, AuroraLinkTrouble kind)
{
	static char last[sizeof(s->failure.message)];
	static AuroraLinkTrouble last_kind;
	static TimestampTz last_time = 0;
	TimestampTz now = GetCurrentTimestamp();

	/* While node and server come up together this is no news. */
	if (kind == AURORA_LINK_LOST && s->streaming_since == 0 &&
		!TimestampDifferenceExceeds(PgStartTime, now, QUIET_START_MS))
		return;
	/* A full disk's message counts bytes, which change each time. */
	if (kind == last_kind &&
		(kind == AURORA_LINK_FULL || strcmp(last, s->failure.message) == 0) &&
		!TimestampDifferenceExceeds(last_time, now, LOG_INTERVAL_MS))
		return;
	last_kind = kind;
	strlcpy(last, s->failure.message, sizeof(last));
	last_time = now;
	ereport(kind == AURORA_LINK_LOST ? LOG : WARNING,
			(errmsg("%s", s->failure.message),
			 s->failure.hint[0] ? errhint("%s", s->failure.hint) : 0));
}

/* Say what happened, then wait as long as the kind of trouble asks for. */
static void
recover(Shipper *s, AuroraLinkTrouble kind)
{
	static int	delay_ms = LOST_DELAY_MIN_MS;
	static AuroraLinkTrouble last_kind = AURORA_LINK_OK;
	bool		good = s->streaming_since != 0 &&
		TimestampDifferenceExceeds(s->streaming_since, GetCurrentTimestamp(),
								   GOOD_SESSION_MS);
	bool		again = kind == last_kind && !good;

	last_kind = kind;
	s->was_full = kind == AURORA_LINK_FULL;
	if (s->streaming_since != 0)
	{
		SpinLockAcquire(&aurora_ship->mutex);
		aurora_ship->st.reconnects++;
		SpinLockRelease(&aurora_ship->mutex);
	}
	log_trouble(s, kind);
	switch (kind)
	{
		case AURORA_LINK_OK:
		case AURORA_LINK_LOST:
			aurora_ship_set_state(AURORA_SHIP_CONNECTING, &s->failure);
			delay_ms = again ? Min(delay_ms * 2, LOST_DELAY_MAX_MS) : LOST_DELAY_MIN_MS;
			aurora_ship_pause(delay_ms, true);
			break;
		case AURORA_LINK_FULL:
			aurora_ship_set_state(AURORA_SHIP_WAITING, &s->failure);
			delay_ms = again ? Min(delay_ms * 2, FULL_DELAY_MAX_MS) : FULL_DELAY_MIN_MS;
			aurora_ship_pause(delay_ms, true);
			break;
		case AURORA_LINK_REFUSED:
			aurora_ship_set_state(AURORA_SHIP_REFUSED, &s->failure);
			aurora_ship_pause(REFUSED_DELAY_MS, true);
			break;
		case AURORA_LINK_FENCED:

			/*
			 * Another writer was granted a newer term.  To ask for one again
			 * by ourselves would make two servers take turns; somebody has to
			 * decide which one is right.
			 */
			aurora_ship_set_state(AURORA_SHIP_REFUSED, &s->failure);
			ereport(WARNING,
					(errmsg("log shipping has stopped: another server writes to this volume"),
					 errhint("Make sure that only one copy of this server runs. If it is this one, restart it or reload its configuration.")));
			aurora_ship_pause(-1, true);
			break;
	}
}

/* Settings that do no harm to what is shipped, but to what is not. */
static void
check_settings(void)
{
	if (!enableFsync)
		ereport(WARNING,
				(errmsg("fsync is off while log is shipped to storage"),
				 errdetail("After a crash of the machine this server may have less log than storage has acknowledged, and storage will then refuse it."),
				 errhint("Set fsync = on.")));
	if (!fullPageWrites)
		ereport(WARNING,
				(errmsg("full_page_writes is off"),
				 errdetail("Pages of aurora tables do not need it, but indexes, catalogs and heap tables are local files that can be torn by a crash."),
				 errhint("Set full_page_writes = on.")));
}

void
aurora_shipper_main(Datum arg)
{
	Shipper    *s;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	before_shmem_exit(shipper_exit, (Datum) 0);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	aurora_ship_listen(true);

	MemoryContextSwitchTo(TopMemoryContext);
	s = palloc0(sizeof(Shipper));
	s->server_fd = PGINVALID_SOCKET;
	s->poll_ms = POLL_MIN_MS;
	s->session_cxt = AllocSetContextCreate(TopMemoryContext, "aurora shipper session",
										   ALLOCSET_DEFAULT_SIZES);
	s->batch = palloc(AU_WIRE_APPEND_MAX);
	s->link = aurora_link_create();
	if (!pg_strong_random(&s->writer_id, sizeof(s->writer_id)))
		elog(ERROR, "could not generate a writer id");
	aurora_ship_set_state(AURORA_SHIP_CONNECTING, NULL);
	check_settings();
	s->superuser = aurora_superuser_name();
	load_file("libpqwalreceiver", false);
	if (WalReceiverFunctions == NULL)
		elog(ERROR, "libpqwalreceiver did not initialize correctly");

	for (;;)
	{
		AuroraLinkTrouble kind = run_guarded_session(s);

		recover(s, kind);
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
	}
}
