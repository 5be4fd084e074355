/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_shipper.c: the log shipper, a background worker that streams the
 * server's own WAL to storage and tells the server what is durable there.
 *
 *	  backend ──commit──▶ WAL ──▶ walsender ──"w" bytes──▶ shipper ──APPEND──▶ nodes
 *	  backend ◀──released── walsender ◀──"r" flush, apply── shipper ◀──APPEND_OK──
 *
 * What is sent to which node, and what counts as durable, is decided by
 * core/au_proposer.c; this file feeds it with WAL.
 *
 * To the server it is an ordinary physical standby: slot aurora.slot_name
 * keeps the WAL that storage does not have yet, and with
 * synchronous_standby_names = 'aurora' a commit waits until it is durable on
 * storage.
 *
 *	  run_session:   slot ─▶ connect to server ─▶ win a term ─▶ stream ──┐
 *	                  ▲                                                  │ trouble
 *	                  └────────── back-off by kind of trouble ◀──────────┘
 *
 * Lost nodes do not end a session: they are connected to again, and while a
 * quorum is missing the session waits.
 *
 * Invariants:
 *  1. flush and write positions reported to the server are positions that a
 *     quorum of nodes has called durable, in the term this process won.
 *  2. The slot exists before the volume does, and the volume begins at a redo
 *     pointer, where a WAL record begins and from which WAL is kept.
 *  3. A volume is created once in the life of a server: after that (marker
 *     file) a node that does not know it is refused, not filled anew.
 *  4. At most WINDOW_BYTES and one batch are not durable; beyond that the
 *     server's socket is not read.
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
#include "client/aurora_nodes.h"
#include "module/aurora_guc.h"
#include "ship/aurora_ship_host.h"
#include "ship/aurora_ship_server.h"
#include "ship/aurora_ship_state.h"

#define WINDOW_BYTES (16 * 1024 * 1024)
/* Longest message of a walsender, and more. */
#define MESSAGE_BYTES_MAX (256 * 1024)

/* Back-off after trouble, by kind. */
#define LOST_DELAY_MIN_MS 50
#define LOST_DELAY_MAX_MS 1000
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

/* Whoever waited for pages may soon do so again. */
#define APPLY_INTEREST_MS 10000
/* The views show what nodes have done at most this much later. */
#define REPORT_MS 500
/* Status to the server at least this often, whatever
 * wal_receiver_status_interval says. */
#define STATUS_MAX_MS 10000

typedef struct Shipper
{
	uint64		writer_id;
	char	   *superuser;
	AuroraShipHost *host;
	AuroraShipFailure failure;

	/* One session */
	MemoryContext session_cxt;
	WalReceiverConn *conn;
	AuProposer *proposer;
	pgsocket	server_fd;		/* PGINVALID_SOCKET until known */
	List	   *history;		/* of the server's timelines */
	TimeLineID	timeline;		/* of the server */
	TimeLineID	stream_timeline;	/* of what is streamed; older in history */
	bool		streams;		/* the server does */
	char	   *conninfo;		/* setting the session was made with */
	AuroraClusterState mode;	/* of the nodes, for this session */
	bool		marked;			/* storage has made our volume before */
	bool		reply_requested;
	TimestampTz streaming_since;	/* 0: this session did not get there */
	AuroraTrouble shown;		/* trouble that the state tells of */
	char		shown_why[sizeof(((AuroraShipFailure *) NULL)->message)];

	/* WAL received, not yet given to the proposer; it begins at
	 * au_proposer_next() */
	uint8	   *batch;
	size_t		batch_len;

	/* What the server and shared memory were told last */
	XLogRecPtr	durable;
	XLogRecPtr	applied;
	XLogRecPtr	told_durable;
	XLogRecPtr	told_applied;
	TimestampTz last_status;
	TimestampTz reported;		/* the nodes' states */
	TimestampTz gather_until;	/* the batch is sent then; 0: at once */
	size_t		last_append;	/* bytes of the last batch */
	TimestampTz apply_interest; /* when somebody last waited for pages */
	uint64		appends;
	uint64		bytes;
} Shipper;

/* ---- small things ---- */

static void
shipper_exit(int code, Datum arg)
{
	aurora_ship_listen(false);
	aurora_ship_set_state(AURORA_SHIP_STOPPED, NULL);
}

static bool
leading(const Shipper *s)
{
	return au_proposer_state(s->proposer) == AU_PROPOSER_LEADING;
}

/* End of the WAL that the server gave us. */
static XLogRecPtr
taken(const Shipper *s)
{
	return au_proposer_next(s->proposer) + s->batch_len;
}

/* What the proposer says of its trouble, in our words. */
static AuroraTrouble
proposer_trouble(Shipper *s)
{
	const char *text;
	const char *hint;
	AuProposerKind kind = au_proposer_trouble(s->proposer, &text, &hint);

	if (kind == AU_PROPOSER_OK)
		return AURORA_TROUBLE_NONE;
	/* The view that tells more may be there by now. */
	if (kind == AU_PROPOSER_MOVED)
		aurora_nodes_moved();
	return aurora_trouble(&s->failure,
						  kind == AU_PROPOSER_FULL ? AURORA_TROUBLE_FULL :
						  kind == AU_PROPOSER_FENCED ? AURORA_TROUBLE_FENCED :
						  kind == AU_PROPOSER_REFUSED ? AURORA_TROUBLE_REFUSED :
						  AURORA_TROUBLE_LOST, hint, "%s", text);
}

/* ---- session: from nothing to streaming ---- */

/* Connect to our own server as a standby. */
static AuroraTrouble
join_server(Shipper *s)
{
	char	   *err = NULL;
	char	   *sysid;
	char		ours[32];
	TimeLineID	tli;

	s->conn = walrcv_connect(aurora_server_conninfo(s->superuser), false, "aurora", &err);
	if (s->conn == NULL)
		return aurora_trouble(&s->failure, AURORA_TROUBLE_LOST,
							  "The log shipper connects to its own server like a standby: pg_hba.conf must permit replication connections for this user; aurora.shipper_conninfo sets another way.",
							  "log shipper could not connect to its own server: %s",
							  err ? err : "out of memory");
	sysid = walrcv_identify_system(s->conn, &tli);
	snprintf(ours, sizeof(ours), UINT64_FORMAT, GetSystemIdentifier());
	if (strcmp(sysid, ours) != 0 || tli != s->timeline)
		return aurora_trouble(&s->failure, AURORA_TROUBLE_REFUSED,
							  "Correct aurora.shipper_conninfo: it must lead to this server.",
							  "log shipper reached another server: system identifier %s, timeline %u, expected %s, timeline %u",
							  sysid, tli, ours, s->timeline);
	return AURORA_TROUBLE_NONE;
}

/* Begin to connect to the nodes; they are to let us in as their writer. */
static void
join_storage(Shipper *s)
{
	AuProposerOptions o = {
		.system_identifier = GetSystemIdentifier(),.writer_id = s->writer_id,
		.timeline = s->timeline,.wal_segment_size = wal_segment_size,
		.local_end = GetFlushRecPtr(NULL),.create_lsn = GetRedoRecPtr(),
		.window_bytes = WINDOW_BYTES
	};

	if (s->mode == AURORA_CLUSTER_VIEW)
	{
		o.group = aurora_nodes_map()->group;
		o.group_settled = aurora_nodes_map()->settled;
	}
	s->marked = aurora_ship_marker_exists();
	o.may_create = !s->marked;
	o.switch_lsn = ((TimeLineHistoryEntry *) linitial(s->history))->begin;
	o.local_start = aurora_wal_start(s->history);
	snprintf(o.name, sizeof(o.name), "shipper %d", MyProcPid);
	s->proposer = aurora_ship_host_begin(s->host, &o, s->session_cxt);
}

/* The nodes' map has changed, perhaps: the log group may have. */
static AuroraTrouble
see_map(Shipper *s)
{
	const AuroraNodeMap *map = aurora_nodes_map();
	uint32		settled = au_proposer_settled(s->proposer);

	if (settled != 0)
		aurora_nodes_set_settled(settled);
	if (!aurora_nodes_look())
		return AURORA_TROUBLE_NONE;
	if (map->state != s->mode)
		return aurora_trouble(&s->failure, AURORA_TROUBLE_LOST, NULL,
							  "storage nodes have joined, or left, a cluster");
	if (s->mode == AURORA_CLUSTER_VIEW)
		au_proposer_set_group(s->proposer, &map->group, map->settled);
	return AURORA_TROUBLE_NONE;
}

/* Ask the server for the log from where it was taken to. */
static AuroraTrouble
start_stream(Shipper *s)
{
	WalRcvStreamOptions options = {0};

	/* Log of an older timeline is streamed as such, up to its end. */
	s->stream_timeline = tliOfPointInHistory(taken(s), s->history);
	options.logical = false;
	options.slotname = aurora_slot_name;
	options.startpoint = taken(s);
	options.proto.physical.startpointTLI = s->stream_timeline;
	if (!walrcv_startstreaming(s->conn, &options))
		return aurora_trouble(&s->failure, AURORA_TROUBLE_LOST, NULL,
							  "server has no log to stream on timeline %u at %X/%X",
							  s->stream_timeline, LSN_FORMAT_ARGS(taken(s)));
	s->streams = true;
	return AURORA_TROUBLE_NONE;
}

/* The server sent all of an older timeline: the next one follows. */
static AuroraTrouble
next_timeline(Shipper *s)
{
	TimeLineID	next;

	s->streams = false;
	walrcv_endstreaming(s->conn, &next);
	if (s->stream_timeline == s->timeline)
		return aurora_trouble(&s->failure, AURORA_TROUBLE_LOST, NULL,
							  "server ended the stream of timeline %u at %X/%X",
							  s->stream_timeline, LSN_FORMAT_ARGS(taken(s)));
	return start_stream(s);
}

/* We have won a term. */
static AuroraTrouble
begin_stream(Shipper *s)
{
	if (!s->marked)
		aurora_ship_marker_write(au_proposer_start_lsn(s->proposer));
	s->marked = true;
	SpinLockAcquire(&aurora_ship->mutex);
	aurora_ship->st.term = au_proposer_term(s->proposer);
	aurora_ship->st.timeline = s->timeline;
	aurora_ship->st.start_lsn = au_proposer_start_lsn(s->proposer);
	SpinLockRelease(&aurora_ship->mutex);
	return start_stream(s);
}

/* The place of the map that a place of the proposer's is; -1: none (any more). */
static int
place_in_map(const Shipper *s, int i, const AuProposerNode *n)
{
	if (!n->used)
		return -1;
	return s->mode == AURORA_CLUSTER_VIEW ? aurora_node_place(n->member_id) : i;
}

/* One that has said nothing yet, or is asked for its vote, is not down. */
static AuroraNodeShipping
shipping_of(const AuProposerNode *n)
{
	if (n->state == AU_PNODE_STREAM)
		return AURORA_NODE_STREAM;
	if (n->state == AU_PNODE_BEHIND)
		return AURORA_NODE_BEHIND;
	return n->problem[0] != '\0' ? AURORA_NODE_DOWN : AURORA_NODE_UNKNOWN;
}

/* What the views show of the nodes, and backends go by. */
static void
report_nodes(Shipper *s)
{
	uint64		told = 0;

	s->reported = GetCurrentTimestamp();
	for (int i = 0; i < AU_GROUP_MAX; i++)
	{
		AuProposerNode n;
		AuroraNodeFigures f = {0};
		int			place;

		au_proposer_node(s->proposer, i, &n);
		place = place_in_map(s, i, &n);
		if (place < 0)
			continue;
		told |= UINT64CONST(1) << place;
		f.shipping = shipping_of(&n);
		f.node_id = n.node_id;
		f.sent = n.sent;
		f.durable = n.durable;
		f.applied = n.applied;
		strlcpy(f.problem, n.problem, sizeof(f.problem));
		aurora_node_report(place, &f);
	}
	for (int i = 0; i < aurora_nodes_count(); i++)
	{
		AuroraNodeFigures f = {.shipping = AURORA_NODE_FOLLOWS};

		if (!aurora_node_used(i) || (told & (UINT64CONST(1) << i)) != 0)
			continue;
		f.node_id = aurora_nodes_map()->place[i].node_id;
		aurora_node_report(i, &f);
	}
}

static void
publish(Shipper *s)
{
	SpinLockAcquire(&aurora_ship->mutex);
	aurora_ship->st.appends += s->appends;
	aurora_ship->st.bytes_sent += s->bytes;
	aurora_ship->st.last_ack = aurora_ship_host_heard(s->host);
	SpinLockRelease(&aurora_ship->mutex);
	s->appends = 0;
	s->bytes = 0;
	aurora_ship_publish(au_proposer_next(s->proposer), s->durable, s->applied);
}

/* ---- session: streaming ---- */

static void
append_batch(Shipper *s)
{
	au_proposer_log(s->proposer, s->batch, s->batch_len);
	s->appends++;
	s->bytes += s->batch_len;
	s->last_append = s->batch_len;
	s->batch_len = 0;
	s->gather_until = 0;
	pg_atomic_write_u64(&aurora_ship->sent_lsn, au_proposer_next(s->proposer));
}

static bool
may_take_more(const Shipper *s)
{
	return s->streams && leading(s) &&
		au_proposer_room(s->proposer) >= s->batch_len + MESSAGE_BYTES_MAX;
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

		if (start != taken(s))
			ereport(ERROR,
					(errcode(ERRCODE_PROTOCOL_VIOLATION),
					 errmsg("server sent WAL from %X/%X, expected %X/%X",
							LSN_FORMAT_ARGS(start),
							LSN_FORMAT_ARGS(taken(s)))));
		if (left > MESSAGE_BYTES_MAX)
			ereport(ERROR,
					(errcode(ERRCODE_PROTOCOL_VIOLATION),
					 errmsg("server sent %zu bytes of WAL in one message", left)));
		/* The caller has seen that there is room for both. */
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
		pg_atomic_read_u64(&aurora_ship->wanted_lsn) > au_proposer_next(s->proposer) ||
		s->reply_requested;
}

/*
 * Send the batch, or let it wait for more.  While it does, the server's socket
 * is not read, so that a commit does not wake us.
 */
static void
send_or_gather(Shipper *s)
{
	if (s->batch_len == 0)
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
 * Take what the server has sent, about one batch a turn.  *more: there may be
 * more at once.
 */
static AuroraTrouble
take_wal(Shipper *s, bool *more)
{
	XLogRecPtr	before = au_proposer_next(s->proposer);

	*more = false;
	while (may_take_more(s) && !gathering(s))
	{
		char	   *buf;
		int			len = walrcv_receive(s->conn, &buf, &s->server_fd);

		if (len == 0)
			break;
		if (len < 0)
		{
			*more = true;
			return next_timeline(s);
		}
		server_message(s, buf, len);
		if (au_proposer_next(s->proposer) != before)
		{
			*more = true;
			break;
		}
	}
	send_or_gather(s);
	return AURORA_TROUBLE_NONE;
}

/* Tell the server: written = flushed = durable on storage, applied. */
static void
send_status(Shipper *s)
{
	char		msg[1 + 4 * 8 + 1];
	uint64		fields[4];

	s->told_durable = s->durable;
	s->told_applied = s->applied;
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

	if (pg_atomic_read_u64(&aurora_ship->wanted_applied) > s->applied ||
		(commits_wait() &&
		 !SHMQueueEmpty(&WalSndCtl->SyncRepQueue[SYNC_REP_WAIT_APPLY])))
		s->apply_interest = now;
	return s->apply_interest != 0 &&
		!TimestampDifferenceExceeds(s->apply_interest, now, APPLY_INTEREST_MS);
}

/* Pass on what is new. */
static void
pass_on_positions(Shipper *s)
{
	XLogRecPtr	commit = au_proposer_commit(s->proposer);

	/* 0: not known yet in this session; what was durable before still is. */
	if (commit != InvalidXLogRecPtr)
	{
		s->durable = commit;
		s->applied = au_proposer_applied(s->proposer);
	}
	if (s->durable != s->told_durable || s->applied != s->told_applied)
	{
		send_status(s);
		publish(s);
	}
	else if (s->reply_requested)
		send_status(s);

	/* synchronous_commit = remote_apply and aurora.sync() wait until pages
	 * reflect the log: nodes then tell when they do. */
	au_proposer_want_applied(s->proposer, s->applied < s->durable && apply_interest(s));
}

/* Status and views; returns how long to wait at most, in ms. */
static long
timers(Shipper *s)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz due;

	if (TimestampDifferenceExceeds(s->reported, now, REPORT_MS))
		report_nodes(s);
	due = TimestampTzPlusMilliseconds(s->reported, REPORT_MS);
	if (s->streams)
	{
		TimestampTz status = TimestampTzPlusMilliseconds(s->last_status, status_interval_ms());

		if (now >= status)
		{
			send_status(s);
			publish(s);
			status = TimestampTzPlusMilliseconds(now, status_interval_ms());
		}
		due = Min(due, status);
	}
	if (s->gather_until != 0)
		due = Min(due, s->gather_until);
	return Max(TimestampDifferenceMilliseconds(now, due), 0);
}

static void
begin_streaming_state(Shipper *s)
{
	s->streaming_since = GetCurrentTimestamp();
	SpinLockAcquire(&aurora_ship->mutex);
	aurora_ship->st.sessions++;
	SpinLockRelease(&aurora_ship->mutex);
	aurora_ship_set_state(AURORA_SHIP_STREAMING, NULL);
	report_nodes(s);
	ereport(LOG,
			(errmsg("log shipping to storage node \"%s\" started at %X/%X, timeline %u, term " UINT64_FORMAT,
					aurora_client_target(), LSN_FORMAT_ARGS(s->durable),
					s->stream_timeline, au_proposer_term(s->proposer))));
}

static void log_trouble(const Shipper *s, AuroraTrouble kind);

/*
 * Are we shipping now?  That is, does a quorum take log, and has it agreed that
 * ours continues its own?  If not, the state says why; the session goes on.
 */
static void
see_state(Shipper *s)
{
	AuroraTrouble kind = proposer_trouble(s);
	bool		known = au_proposer_commit(s->proposer) != InvalidXLogRecPtr;

	/* While it all begins there is nothing to tell. */
	if (kind == AURORA_TROUBLE_NONE ? !known : s->failure.message[0] == '\0')
		return;
	if (kind == AURORA_TROUBLE_NONE && (s->shown != kind || s->streaming_since == 0))
		begin_streaming_state(s);
	else if (kind != AURORA_TROUBLE_NONE &&
			 (kind != s->shown || strcmp(s->failure.message, s->shown_why) != 0))
	{
		strlcpy(s->shown_why, s->failure.message, sizeof(s->shown_why));
		if (s->shown == AURORA_TROUBLE_NONE && s->streaming_since != 0)
		{
			SpinLockAcquire(&aurora_ship->mutex);
			aurora_ship->st.reconnects++;
			SpinLockRelease(&aurora_ship->mutex);
			report_nodes(s);
		}
		aurora_ship_set_state(kind == AURORA_TROUBLE_FULL ? AURORA_SHIP_WAITING :
							  kind == AURORA_TROUBLE_REFUSED ? AURORA_SHIP_REFUSED :
							  AURORA_SHIP_CONNECTING, &s->failure);
		log_trouble(s, kind);
	}
	s->shown = kind;
}

/* New settings; trouble if they concern this session. */
static AuroraTrouble
reload(Shipper *s)
{
	if (!ConfigReloadPending)
		return AURORA_TROUBLE_NONE;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	if (strcmp(s->conninfo, aurora_shipper_conninfo) == 0)
		return AURORA_TROUBLE_NONE;
	return aurora_trouble(&s->failure, AURORA_TROUBLE_LOST, NULL,
						  "connection settings of the log shipper have changed");
}

/* One turn; trouble ends the session. */
static AuroraTrouble
turn(Shipper *s)
{
	AuroraTrouble rc;
	bool		more = false;
	long		timeout;
	long		acts_in;

	aurora_ship_check_interrupts();
	rc = reload(s);
	if (rc == AURORA_TROUBLE_NONE)
		rc = see_map(s);
	if (rc != AURORA_TROUBLE_NONE)
		return rc;
	aurora_ship_host_receive(s->host);
	/* An answer may have ended it: no more log for it then. */
	if (au_proposer_state(s->proposer) == AU_PROPOSER_ENDED)
		return proposer_trouble(s);
	if (!s->streams && leading(s))
		rc = begin_stream(s);
	if (rc == AURORA_TROUBLE_NONE && s->streams)
	{
		pass_on_positions(s);
		rc = take_wal(s, &more);
	}
	if (rc != AURORA_TROUBLE_NONE)
		return rc;
	acts_in = aurora_ship_host_run(s->host);
	if (au_proposer_state(s->proposer) == AU_PROPOSER_ENDED)
		return proposer_trouble(s);
	see_state(s);
	timeout = timers(s);
	if (acts_in >= 0)
		timeout = Min(timeout, acts_in);
	aurora_ship_host_wait(s->host, may_take_more(s) && !gathering(s) ?
						  s->server_fd : PGINVALID_SOCKET, more ? 0 : timeout);
	return AURORA_TROUBLE_NONE;
}

static AuroraTrouble
run_session(Shipper *s)
{
	AuroraTrouble rc;

	s->conninfo = pstrdup(aurora_shipper_conninfo);
	(void) GetFlushRecPtr(&s->timeline);
	s->history = readTimeLineHistory(s->timeline);
	(void) aurora_nodes_look();
	s->mode = aurora_nodes_map()->state;
	if (s->mode == AURORA_CLUSTER_UNKNOWN)
	{
		char		why[sizeof(s->failure.message)];

		aurora_nodes_said(why, sizeof(why));
		return aurora_trouble(&s->failure, AURORA_TROUBLE_LOST,
							  "Check that aurora_storaged runs at the addresses in aurora.storage_nodes, and that nodes of a cluster have joined it.",
							  "%s", why[0] != '\0' ? why : "no storage node has answered yet");
	}

	rc = aurora_slot_ensure(&s->failure);
	if (rc == AURORA_TROUBLE_NONE)
		rc = join_server(s);
	if (rc != AURORA_TROUBLE_NONE)
		return rc;
	join_storage(s);
	while (rc == AURORA_TROUBLE_NONE)
		rc = turn(s);
	return rc;
}

/* ---- around sessions ---- */

/* Back to the state before a session, also after an error in it. */
static void
end_session(Shipper *s)
{
	if (s->proposer != NULL)
		report_nodes(s);
	aurora_ship_host_end(s->host);
	s->proposer = NULL;
	if (s->conn != NULL)
		walrcv_disconnect(s->conn);
	s->conn = NULL;
	s->server_fd = PGINVALID_SOCKET;
	s->batch_len = 0;
	s->streams = s->reply_requested = false;
	s->gather_until = 0;
	s->last_append = 0;
	MemoryContextReset(s->session_cxt);
}

/* Run a session; an error in it is trouble like any other. */
static AuroraTrouble
run_guarded_session(Shipper *s)
{
	volatile AuroraTrouble rc = AURORA_TROUBLE_LOST;

	s->streaming_since = 0;
	s->shown = AURORA_TROUBLE_NONE;
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
		rc = aurora_trouble(&s->failure, AURORA_TROUBLE_LOST, edata->hint, "log shipping failed: %s",
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
log_trouble(const Shipper *s, AuroraTrouble kind)
{
	static char last[sizeof(s->failure.message)];
	static AuroraTrouble last_kind;
	static TimestampTz last_time = 0;
	TimestampTz now = GetCurrentTimestamp();

	/* While node and server come up together this is no news. */
	if (kind == AURORA_TROUBLE_LOST && s->streaming_since == 0 &&
		!TimestampDifferenceExceeds(PgStartTime, now, QUIET_START_MS))
		return;
	/* A full disk's message counts bytes, which change each time. */
	if (kind == last_kind &&
		(kind == AURORA_TROUBLE_FULL || strcmp(last, s->failure.message) == 0) &&
		!TimestampDifferenceExceeds(last_time, now, LOG_INTERVAL_MS))
		return;
	last_kind = kind;
	strlcpy(last, s->failure.message, sizeof(last));
	last_time = now;
	ereport(kind == AURORA_TROUBLE_LOST ? LOG : WARNING,
			(errmsg("%s", s->failure.message),
			 s->failure.hint[0] ? errhint("%s", s->failure.hint) : 0));
}

/* Say what happened, then wait as long as the kind of trouble asks for. */
static void
recover(Shipper *s, AuroraTrouble kind)
{
	static int	delay_ms = LOST_DELAY_MIN_MS;
	static AuroraTrouble last_kind = AURORA_TROUBLE_NONE;
	bool		good = s->streaming_since != 0 &&
		TimestampDifferenceExceeds(s->streaming_since, GetCurrentTimestamp(),
								   GOOD_SESSION_MS);
	bool		again = kind == last_kind && !good;

	last_kind = kind;
	if (s->streaming_since != 0 && s->shown == AURORA_TROUBLE_NONE)
	{
		SpinLockAcquire(&aurora_ship->mutex);
		aurora_ship->st.reconnects++;
		SpinLockRelease(&aurora_ship->mutex);
	}
	log_trouble(s, kind);
	switch (kind)
	{
		case AURORA_TROUBLE_NONE:
		case AURORA_TROUBLE_LOST:
		case AURORA_TROUBLE_FULL:	/* does not end a session */
			aurora_ship_set_state(AURORA_SHIP_CONNECTING, &s->failure);
			delay_ms = again ? Min(delay_ms * 2, LOST_DELAY_MAX_MS) : LOST_DELAY_MIN_MS;
			aurora_ship_pause(delay_ms, true);
			break;
		case AURORA_TROUBLE_REFUSED:
			aurora_ship_set_state(AURORA_SHIP_REFUSED, &s->failure);
			aurora_ship_pause(REFUSED_DELAY_MS, true);
			break;
		case AURORA_TROUBLE_FENCED:

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
	s->session_cxt = AllocSetContextCreate(TopMemoryContext, "aurora shipper session",
										   ALLOCSET_DEFAULT_SIZES);
	s->batch = palloc(AU_WIRE_APPEND_MAX);
	s->host = aurora_ship_host_create();
	s->durable = pg_atomic_read_u64(&aurora_ship->durable_lsn);
	s->applied = pg_atomic_read_u64(&aurora_ship->applied_lsn);
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
		AuroraTrouble kind = run_guarded_session(s);

		recover(s, kind);
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
	}
}
