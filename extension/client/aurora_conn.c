/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_conn.c: sockets and waiting; see aurora_conn.h for the states and
 * invariants.
 */
#include "postgres.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "access/xlog.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "port/pg_bitutils.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "client/aurora_client.h"
#include "client/aurora_conn.h"
#include "client/aurora_nodes.h"
#include "client/aurora_share.h"
#include "module/aurora_guc.h"

/* Last: its _res is a macro, and a variable in headers of the server. */
#include <resolv.h>

/* No wait is longer than this before the deadline is looked at again. */
#define WAIT_SLICE_MS 1000
#define FIRST_BUFFER_BYTES (16 * 1024)
/* Bigger buffers of kept answers are given back when none is kept. */
#define SPARE_BUFFER_BYTES (64 * 1024)
/* Answers on their way that nobody waits for any more: with more, a new
 * connection is better than to read them. */
#define ABANDONED_MAX 8
/* A node that failed us is left alone for a moment, if there are others. */
#define AVOID_MS 3000
/* With others to ask nobody waits long for one to let us in. */
#define ADMIT_MS 1000
/* Who asks a second node has the first one's answer under way meanwhile: if it
 * takes longer to get in there, the first one will be faster. */
#define HEDGE_OPEN_MS 50
/* After so long another node may be the better one. */
#define CHOOSE_AGAIN_MS 10000
/* Nodes that a process is connected to at a time. */
#define CONNS_MAX 8

typedef struct Conn
{
	int			fd;				/* -1: closed */
	int			node;			/* place of its node */
	char		address[AU_ADDRESS_MAX];	/* which was there then */
	uint64		used;			/* when it was current last, in calls */
	bool		stay;			/* this connection holds something */
	int64		chosen_at;		/* when the node was chosen, ms */
	bool		greeted;		/* HELLO is answered */
	bool		halfway;		/* in the middle of a frame sent */
	int			unanswered;		/* requests sent, no answer yet */
	WaitEventSet *waits;		/* latch, postmaster death, fd */
	int			fd_pos;			/* of fd in waits */
	AuMsgHelloOk hello;
	AuroraShare *share;			/* offered to the node; NULL: none */
	int			share_fd;		/* of it, until the node has answered; else -1 */
	bool		share_usable;	/* the node has it */
	bool		share_tried;	/* it was offered, whatever came of it */
	uint8	   *in;				/* received, not yet consumed */
	size_t		in_len;
	size_t		in_cap;
	size_t		in_done;		/* bytes of the frame given out last */
} Conn;

#define CLOSED {.fd = -1,.share_fd = -1}
static Conn conns[CONNS_MAX] = {
	CLOSED, CLOSED, CLOSED, CLOSED, CLOSED, CLOSED, CLOSED, CLOSED
};
static Conn *conn = &conns[0];	/* the current one */
static int	wanted = -1;		/* the only node to ask; -1: any */
static uint64 among;			/* ... of these */
static uint64 last_id;
static uint64 calls;
static char error_text[AU_WIRE_TEXT_MAX];
static uint8 role = AU_ROLE_READER;
static XLogRecPtr held;			/* each new connection is to hold this */

/* When nodes that failed us may be asked again, aurora_now_ms(). */
static int64 avoid_until[AURORA_NODES_MAX];

/* A request whose answer is taken later. */
typedef struct Kept
{
	uint64		id;				/* 0: unused */
	Conn	   *conn;			/* which brings the answer */
	ResourceOwner owner;		/* whose end forgets it */
	enum
	{
		KEPT_AWAITED,
		KEPT_HERE,				/* frame is valid, in memory */
		KEPT_LOST				/* the connection broke */
	}			state;
	AuFrame		frame;
	AuroraShare *share;			/* where its pages go; NULL: into the frame */
	int			slot;			/* in it */
	uint8	   *memory;			/* stays allocated while unused */
	size_t		cap;
} Kept;

static Kept kept[AURORA_CONN_KEPT_MAX];
static int	nkept = 0;

/* A socket that aurora_client_open_socket was just connecting when an error
 * was raised; closed by the next call. */
static int	half_open_fd = -1;

/* How long the next wait may be; 0 when the deadline is past. */
static long
slice_until(int64 deadline_ms)
{
	int64		left = deadline_ms - aurora_now_ms();

	return left <= 0 ? 0 : (long) Min(left, WAIT_SLICE_MS);
}

/* ---- where the node is ---- */

bool
aurora_client_split_node(const char *node, char *host, size_t hostlen,
						 char *port, size_t portlen)
{
	const char *colon = strrchr(node, ':');
	const char *end;
	size_t		n;

	if (colon == NULL || strchr(node, ',') != NULL)
		return false;
	end = colon;
	if (node[0] == '[')
	{
		if (end == node || end[-1] != ']')
			return false;
		node++;
		end--;
	}
	n = end - node;
	if (n == 0 || n >= hostlen)
		return false;
	memcpy(host, node, n);
	host[n] = '\0';
	n = strlen(colon + 1);
	if (n == 0 || n >= portlen || strspn(colon + 1, "0123456789") != n)
		return false;
	strcpy(port, colon + 1);
	return true;
}

/* What the settings say, for messages about storage as a whole. */
const char *
aurora_client_target(void)
{
	return aurora_storage_nodes[0] != '\0' ? aurora_storage_nodes : aurora_node_address(0);
}

int
aurora_client_open_unix(const char *path, char **err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	uid_t		uid;
	gid_t		gid;
	int			fd;

	if (strlen(path) >= sizeof(addr.sun_path))
	{
		*err = psprintf("socket path \"%s\" is too long (maximum %zu bytes)",
						path, sizeof(addr.sun_path) - 1);
		return -1;
	}
	strcpy(addr.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
	{
		*err = psprintf("could not create socket: %m");
		return -1;
	}
	if (connect(fd, (struct sockaddr *) &addr, sizeof(addr)) != 0)
	{
		*err = psprintf("could not connect to \"%s\": %m", path);
		close(fd);
		return -1;
	}
	/* the default path is ours alone; a configured one is the user's word */
	if (aurora_storage_nodes[0] == '\0' && aurora_storage_socket[0] == '\0' &&
		(getpeereid(fd, &uid, &gid) != 0 || uid != geteuid()))
	{
		*err = psprintf("the process behind \"%s\" runs as another user", path);
		close(fd);
		return -1;
	}
	return fd;
}

/* Wait until a connecting socket is connected; 0 or an errno. */
static int
finish_connect(int fd, int64 deadline_ms)
{
	for (;;)
	{
		long		ms = slice_until(deadline_ms);
		int			rc;

		if (ms == 0)
			return ETIMEDOUT;
		rc = WaitLatchOrSocket(MyLatch,
							   WL_LATCH_SET | WL_SOCKET_CONNECTED |
							   WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							   fd, ms, PG_WAIT_EXTENSION);
		if (rc & WL_LATCH_SET)
			ResetLatch(MyLatch);
		aurora_check_interrupts();
		if (rc & WL_SOCKET_CONNECTED)
		{
			int			soerr = 0;
			socklen_t	len = sizeof(soerr);

			if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &soerr, &len) != 0)
				return errno;
			return soerr;
		}
	}
}

/* A node that vanished without a word is noticed after about 25 s, although
 * we may wait much longer for one that is only slow. */
void
aurora_client_tcp_options(int fd)
{
	static const struct
	{
		int			level;
		int			name;
		int			value;
	}			options[] = {
		{IPPROTO_TCP, TCP_NODELAY, 1},
		{SOL_SOCKET, SO_KEEPALIVE, 1},
		{IPPROTO_TCP, TCP_KEEPIDLE, 10},
		{IPPROTO_TCP, TCP_KEEPINTVL, 5},
		{IPPROTO_TCP, TCP_KEEPCNT, 3},
	};

	/* without them it works as well */
	for (int i = 0; i < lengthof(options); i++)
		(void) setsockopt(fd, options[i].level, options[i].name,
						  &options[i].value, sizeof(int));
}

void
aurora_client_hurry_resolver(void)
{
	static bool done = false;

	if (!done && res_init() == 0)
		_res.retrans = _res.retry = 1;
	done = true;
}

static int
open_tcp(const char *node, int64 deadline_ms, char **err)
{
	static struct addrinfo *list = NULL;	/* one that an error left is freed */
	struct addrinfo hints = {.ai_family = AF_UNSPEC,.ai_socktype = SOCK_STREAM};
	char		host[NI_MAXHOST];
	char		port[NI_MAXSERV];
	int			rc;

	if (!aurora_client_split_node(node, host, sizeof(host), port, sizeof(port)))
	{
		*err = psprintf("\"%s\" is not of the form host:port", node);
		return -1;
	}
	if (list != NULL)
		freeaddrinfo(list);
	list = NULL;
	aurora_client_hurry_resolver();
	rc = getaddrinfo(host, port, &hints, &list);
	if (rc != 0)
	{
		list = NULL;
		*err = psprintf("could not look up \"%s\": %s", node, gai_strerror(rc));
		return -1;
	}
	*err = NULL;
	for (struct addrinfo *a = list; a != NULL && half_open_fd < 0; a = a->ai_next)
	{
		int			failed = 0;

		half_open_fd = socket(a->ai_family, a->ai_socktype | SOCK_NONBLOCK |
							  SOCK_CLOEXEC, a->ai_protocol);
		if (half_open_fd < 0)
		{
			*err = psprintf("could not create socket: %m");
			continue;
		}
		aurora_client_tcp_options(half_open_fd);
		if (connect(half_open_fd, a->ai_addr, a->ai_addrlen) != 0)
			failed = errno;
		if (failed == EINPROGRESS)
			failed = finish_connect(half_open_fd, deadline_ms);
		if (failed != 0)
		{
			close(half_open_fd);
			half_open_fd = -1;
			errno = failed;
			*err = psprintf("could not connect to \"%s\": %m", node);
		}
	}
	freeaddrinfo(list);
	list = NULL;
	if (half_open_fd < 0 && *err == NULL)
		*err = psprintf("\"%s\" has no address", node);
	rc = half_open_fd;
	half_open_fd = -1;
	return rc;
}

/* A connected, non-blocking, close-on-exec socket; -1 with *err (palloc'd). */
static int
open_socket(int node, int timeout_ms, char **err)
{
	const char *address = aurora_node_address(node);

	if (half_open_fd >= 0)
	{
		close(half_open_fd);
		half_open_fd = -1;
	}
	if (address[0] == '/')
		return aurora_client_open_unix(address, err);
	return open_tcp(address, aurora_now_ms() + timeout_ms, err);
}

/* ---- the connection ---- */

const char *
aurora_conn_error(void)
{
	return error_text;
}

int
aurora_conn_node(void)
{
	return conn->node;
}

uint64
aurora_conn_node_id(void)
{
	return conn->hello.node_id;
}

const char *
aurora_conn_target(void)
{
	return conn->address;
}

bool
aurora_conn_want(int node, uint64 nodes)
{
	(void) aurora_nodes_look();
	among = nodes != 0 ? nodes : aurora_nodes_all();
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
	among = UINT64CONST(1) << wanted;
	return true;
}

int
aurora_conn_choices(void)
{
	return pg_popcount64(among);
}

void
aurora_conn_hold(XLogRecPtr lsn)
{
	Conn	   *current = conn;

	/* Others hold what was held before, or nothing. */
	for (int i = 0; i < CONNS_MAX; i++)
	{
		conn = &conns[i];
		if (conn != current)
			aurora_conn_close();
	}
	conn = current;
	held = lsn;
	conn->stay = lsn != InvalidXLogRecPtr;
}

uint64
aurora_conn_next_id(void)
{
	return ++last_id;
}

/* Also without a connection. */
static void
drop_share(void)
{
	if (conn->share_fd >= 0)
		close(conn->share_fd);
	conn->share_fd = -1;
	aurora_share_leave(conn->share);
	conn->share = NULL;
	conn->share_usable = conn->share_tried = false;
}

void
aurora_conn_close(void)
{
	drop_share();
	if (conn->waits != NULL)
		FreeWaitEventSet(conn->waits);
	conn->waits = NULL;
	if (conn->fd >= 0)
	{
		close(conn->fd);
		ReleaseExternalFD();
	}
	conn->fd = -1;
	conn->greeted = conn->halfway = conn->stay = false;
	conn->unanswered = 0;
	conn->in_len = conn->in_done = 0;
	for (int i = 0; i < lengthof(kept) && nkept > 0; i++)
		if (kept[i].id != 0 && kept[i].conn == conn && kept[i].state == KEPT_AWAITED)
			kept[i].state = KEPT_LOST;
}

void
aurora_conn_close_all(void)
{
	Conn	   *current = conn;

	for (int i = 0; i < CONNS_MAX; i++)
	{
		conn = &conns[i];
		aurora_conn_close();
	}
	conn = current;
	held = InvalidXLogRecPtr;
}

void
aurora_conn_leave(void)
{
	aurora_node_failed(conn->node);
	avoid_until[conn->node] = aurora_now_ms() + AVOID_MS;
	aurora_conn_close();
}

static bool fail(const char *fmt,...) __attribute__((format(printf, 1, 2)));

/* Remember why, close; always false. */
static bool
fail(const char *fmt,...)
{
	int			save_errno = errno;
	va_list		args;

	va_start(args, fmt);
	errno = save_errno;
	vsnprintf(error_text, sizeof(error_text), fmt, args);
	va_end(args);
	aurora_conn_leave();
	return false;
}

/* Wait for the socket; false when the deadline is past. */
static bool
wait_socket(uint32 events, int64 deadline_ms)
{
	ModifyWaitEvent(conn->waits, conn->fd_pos, events, NULL);
	for (;;)
	{
		WaitEvent	ev;
		long		ms = slice_until(deadline_ms);

		if (ms == 0)
			return fail("no answer in time");
		if (WaitEventSetWait(conn->waits, ms, &ev, 1, PG_WAIT_EXTENSION) == 0)
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

/* ---- frames in ---- */

/* Make the input buffer `need` bytes long, at least. */
static void
reserve_input(size_t need)
{
	size_t		cap = Max(need, FIRST_BUFFER_BYTES);

	Assert(need <= AU_WIRE_HEADER + AU_WIRE_PAYLOAD_MAX);
	if (conn->in_cap >= cap)
		return;
	if (conn->in == NULL)
		conn->in = MemoryContextAlloc(TopMemoryContext, cap);
	else if (conn->in_len > 0)
		conn->in = repalloc(conn->in, cap);
	else
	{
		/* nothing to be copied */
		pfree(conn->in);
		conn->in = NULL;
		conn->in_cap = 0;
		conn->in = MemoryContextAlloc(TopMemoryContext, cap);
	}
	conn->in_cap = cap;
}

static Kept *
find_kept(uint64 id)
{
	if (nkept > 0)
		for (int i = 0; i < lengthof(kept); i++)
			if (kept[i].id == id)
				return &kept[i];
	return NULL;
}

/*
 * The frame at the start of the input answers a request whose answer is kept:
 * the input buffer changes hands, and what follows the frame goes to the
 * buffer that was spare.
 */
static void
keep_frame(Kept *k, const AuFrame *frame, size_t used)
{
	size_t		rest = conn->in_len - used;
	size_t		cap = Max(rest, FIRST_BUFFER_BYTES);
	uint8	   *other = k->memory;

	k->memory = NULL;
	if (other != NULL && k->cap < cap)
	{
		pfree(other);
		other = NULL;
	}
	if (other == NULL)
		other = MemoryContextAlloc(TopMemoryContext, cap);
	else
		cap = k->cap;
	memcpy(other, conn->in + used, rest);
	k->frame = *frame;
	k->memory = conn->in;
	k->cap = conn->in_cap;
	k->state = KEPT_HERE;
	conn->in = other;
	conn->in_cap = cap;
	conn->in_len = rest;
}

/* Read what there is, without waiting.  *got: something came. */
static bool
receive_some(bool *got)
{
	ssize_t		n;

	*got = false;
	do
		n = recv(conn->fd, conn->in + conn->in_len, conn->in_cap - conn->in_len, 0);
	while (n < 0 && errno == EINTR);
	if (n > 0)
	{
		conn->in_len += n;
		*got = true;
		return true;
	}
	if (n == 0)
		return fail("the node closed the connection");
	if (errno != EAGAIN && errno != EWOULDBLOCK)
		return fail("could not receive: %m");
	return true;
}

/*
 * Take the next whole frame from the input: one that is kept is put aside,
 * one that nobody waits for is dropped.  Returns AU_OK with the frame that
 * answers `id` (0: none does), AU_NEED_MORE when the input holds no whole
 * frame (there is room for more of it then), else the connection failed.
 */
static AuStatus
next_frame(uint64 id, AuFrame *frame)
{
	for (;;)
	{
		size_t		used = 0;
		AuStatus	st;
		Kept	   *k;

		/* forget the frame given out or dropped last */
		if (conn->in_done > 0)
		{
			conn->in_len -= conn->in_done;
			memmove(conn->in, conn->in + conn->in_done, conn->in_len);
			conn->in_done = 0;
		}
		st = au_frame_parse(conn->in, conn->in_len, frame, &used);
		if (st == AU_NEED_MORE)
		{
			reserve_input(used);
			return st;
		}
		if (st != AU_OK)
		{
			(void) fail("the node sent an unusable message (%s)",
						au_status_name(st));
			return st;
		}
		if (frame->id != 0 && conn->unanswered > 0)
			conn->unanswered--;
		k = frame->id == 0 ? NULL : find_kept(frame->id);
		/* what a node says of another one's question, or says again, is nothing */
		if (k != NULL && k->conn != conn)
			k = NULL;
		if (k != NULL && k->state == KEPT_AWAITED)
			keep_frame(k, frame, used);
		else
		{
			conn->in_done = used;
			if (conn->share != NULL && k == NULL)
				aurora_share_done(conn->share, frame->id);
		}
		if (id != 0 && frame->id == id)
			return AU_OK;
	}
}

/* Receive until the answer to request id is there, or kept. */
static bool
receive_answer(uint64 id, AuFrame *frame, int64 deadline_ms)
{
	for (;;)
	{
		AuStatus	st = next_frame(id, frame);
		bool		got;

		if (st == AU_OK)
			return true;
		if (st != AU_NEED_MORE || !receive_some(&got))
			return false;
		if (!got && !wait_socket(WL_SOCKET_READABLE, deadline_ms))
			return false;
	}
}

bool
aurora_conn_receive(uint64 id, AuFrame *frame, int64 deadline_ms)
{
	Assert(id != 0 && find_kept(id) == NULL);
	if (conn->fd < 0)
		return false;
	return receive_answer(id, frame, deadline_ms);
}

/* ---- a second node is asked the same ---- */

/* Bits of places whose nodes failed us just now. */
static uint64
avoided(int64 now)
{
	uint64		avoid = 0;

	for (int i = 0; i < aurora_nodes_count(); i++)
		if (avoid_until[i] > now)
			avoid |= UINT64CONST(1) << i;
	return avoid;
}

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
		AuStatus	st = next_frame(id, frame);
		WaitEvent	ev;
		bool		got;
		long		ms;

		if (st == AU_OK)
			return HERE;
		if (st != AU_NEED_MORE || !receive_some(&got))
			return LOST;
		if (got)
			continue;
		ms = slice_until(until_ms);
		if (ms == 0)
			return LATE;
		ModifyWaitEvent(conn->waits, conn->fd_pos, WL_SOCKET_READABLE, NULL);
		if (WaitEventSetWait(conn->waits, ms, &ev, 1, PG_WAIT_EXTENSION) > 0 &&
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
			conn = both[i];
			st = next_frame(id, frame);
			if (st == AU_OK && (frame->type == type || over[!i]))
				return true;
			over[i] = st == AU_OK || st != AU_NEED_MORE || !receive_some(&got);
			any = any || got || over[i];
		}
		if (over[0] && over[1])
			return false;
		if (any)
			continue;
		ms = slice_until(deadline_ms);
		if (ms == 0)
		{
			/* a third one may be well; neither is to be asked again at once */
			for (int i = 0; i < 2; i++)
				if (!over[i])
				{
					conn = both[i];
					(void) fail("no answer in time");
				}
			return false;
		}
		if (over[0] || over[1])
		{
			conn = both[over[0]];
			return receive_answer(id, frame, deadline_ms);
		}
		wait_for_two(both[0]->fd, both[1]->fd, ms);
	}
}

/* Who may be asked as well as the current node: alive as far as is known, and
 * not just left. */
static uint64
hedge_with(void)
{
	uint64		others = among & aurora_nodes_alive() & ~(UINT64CONST(1) << conn->node);

	return others & ~avoided(aurora_now_ms());
}

bool
aurora_conn_receive_hedged(uint64 id, uint16 type, const uint8 *request, size_t len,
						   AuFrame *frame, int64 late_ms, int64 deadline_ms,
						   instr_time *asked_at)
{
	Conn	   *both[2] = {conn, NULL};
	uint64		others = hedge_with();
	AuMsgHelloOk hello;
	AuMsgError	refusal;
	Awaited		first;
	uint64		all = among;
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
	aurora_node_hedged(conn->node, (uint64) (aurora_hedge_ms() * 1000));
	among = others;
	bound = Min(deadline_ms, aurora_now_ms() + HEDGE_OPEN_MS);
	asked = aurora_conn_open(bound, &hello, &refusal) && hello.volume_known;
	INSTR_TIME_SET_CURRENT(second_at);
	asked = asked && aurora_conn_send(request, len, bound);
	among = all;
	both[1] = conn;
	if (!asked || both[0] == both[1] || both[0]->fd < 0)
	{
		/* nobody else can help, or the first one had to give way */
		conn = asked ? both[1] : both[0];
		if (asked)
			*asked_at = second_at;
		return conn->fd >= 0 && receive_answer(id, frame, deadline_ms);
	}
	if (!race(both, id, type, frame, deadline_ms))
		return false;
	if (conn == both[1])
	{
		*asked_at = second_at;
		if (frame->type == type)
			aurora_node_hedge_won(conn->node);
	}
	return true;
}

void
aurora_conn_pass(void)
{
	avoid_until[conn->node] = aurora_now_ms() + AVOID_MS;
	conn->chosen_at = 0;
}

bool
aurora_conn_kept_in_time(uint64 id, int64 until_ms)
{
	Kept	   *k = find_kept(id);
	AuFrame		frame;

	if (k == NULL || k->state != KEPT_AWAITED)
		return true;
	conn = k->conn;
	return await_answer(id, &frame, until_ms) != LATE;
}

/* ---- frames out ---- */

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
	if (next_frame(0, &frame) != AU_NEED_MORE)
		return false;
	return receive_some(&got);
}

bool
aurora_conn_send(const uint8 *frame, size_t len, int64 deadline_ms)
{
	Assert(conn->fd >= 0);
	while (len > 0)
	{
		ssize_t		n = send(conn->fd, frame, len, MSG_NOSIGNAL);

		if (n > 0)
		{
			frame += n;
			len -= n;
			conn->halfway = len > 0;
		}
		else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		{
			if (!wait_to_send(deadline_ms))
				return false;
		}
		else if (n < 0 && errno != EINTR)
			return fail("could not send: %m");
	}
	conn->unanswered++;
	return true;
}

/* ---- answers that are taken later ---- */

/* Give back the memory of big answers when none is kept any more. */
static void
release_spare(void)
{
	if (nkept > 0)
		return;
	for (int i = 0; i < lengthof(kept); i++)
		if (kept[i].memory != NULL && kept[i].cap > SPARE_BUFFER_BYTES)
		{
			pfree(kept[i].memory);
			kept[i].memory = NULL;
			kept[i].cap = 0;
		}
	for (int i = 0; i < CONNS_MAX; i++)
		if (conns[i].in_cap > SPARE_BUFFER_BYTES && conns[i].in_len == 0)
		{
			pfree(conns[i].in);
			conns[i].in = NULL;
			conns[i].in_cap = 0;
			conns[i].in_done = 0;
		}
}

static void
forget(Kept *k)
{
	/* what is still to come keeps its slot: the node may just be writing */
	if (k->share != NULL && k->state == KEPT_HERE)
		aurora_share_done(k->share, k->id);
	aurora_share_leave(k->share);
	k->share = NULL;
	k->id = 0;
	k->owner = NULL;
	nkept--;
}

/* What a resource owner asked for ends with it, also in an abort. */
static void
release_owner(ResourceReleasePhase phase, bool isCommit, bool isTopLevel,
			  void *arg)
{
	if (nkept == 0 || phase != RESOURCE_RELEASE_BEFORE_LOCKS)
		return;
	for (int i = 0; i < lengthof(kept); i++)
		if (kept[i].id != 0 && kept[i].owner == CurrentResourceOwner)
			forget(&kept[i]);
	release_spare();
}

bool
aurora_conn_keep(uint64 id, int npages, uint32 *place)
{
	static bool registered = false;

	Assert(id != 0 && find_kept(id) == NULL);
	if (!registered)
		RegisterResourceReleaseCallback(release_owner, NULL);
	registered = true;
	*place = 0;
	for (int i = 0; i < lengthof(kept); i++)
		if (kept[i].id == 0)
		{
			kept[i].id = id;
			kept[i].conn = conn;
			kept[i].owner = CurrentResourceOwner;
			kept[i].state = KEPT_AWAITED;
			nkept++;
			if (conn->share_usable && npages <= AURORA_SHARE_SLOT_PAGES &&
				(kept[i].slot = aurora_share_take(conn->share, id)) >= 0)
			{
				kept[i].share = conn->share;
				aurora_share_use(conn->share);
				*place = kept[i].slot * AURORA_SHARE_SLOT_PAGES + 1;
			}
			return true;
		}
	return false;
}

bool
aurora_conn_kept(uint64 id)
{
	return id != 0 && find_kept(id) != NULL;
}

bool
aurora_conn_take(uint64 id, AuFrame *frame, int64 deadline_ms)
{
	Kept	   *k = find_kept(id);

	if (k == NULL || k->state == KEPT_LOST)
		return false;
	if (k->state == KEPT_AWAITED)
	{
		conn = k->conn;
		if (!receive_answer(id, frame, deadline_ms))
			return false;
	}
	Assert(k->id == id && k->state == KEPT_HERE);
	*frame = k->frame;
	return true;
}

const uint8 *
aurora_conn_placed(uint64 id)
{
	Kept	   *k = find_kept(id);

	return k == NULL || k->share == NULL ? NULL :
		aurora_share_memory(k->share, k->slot);
}

void
aurora_conn_forget(uint64 id)
{
	Kept	   *k = id != 0 ? find_kept(id) : NULL;

	if (k != NULL)
		forget(k);
}

/* ---- memory shared with the node ---- */

bool
aurora_conn_share(int64 deadline_ms)
{
	AuMsgShare	offer;
	AuMsgShareOk ok;
	uint8		memory[64];
	AuWriter	w;
	AuFrame		frame;
	uint64		id = aurora_conn_next_id();

	if (conn->share_tried || conn->address[0] != '/')
		return true;
	conn->share_tried = true;
	/* the connection's end takes care of it if an error is raised in here */
	conn->share = aurora_share_new(&conn->share_fd);
	if (conn->share == NULL)
	{
		conn->share_fd = -1;
		return true;
	}
	offer.fd = conn->share_fd;
	offer.pages = AURORA_SHARE_SLOTS * AURORA_SHARE_SLOT_PAGES;
	au_writer_start(&w, memory, sizeof(memory));
	if (!au_enc_share(&w, id, &offer))
		elog(ERROR, "SHARE does not fit %zu bytes", sizeof(memory));
	if (!aurora_conn_send(w.data, w.len, deadline_ms) ||
		!aurora_conn_receive(id, &frame, deadline_ms))
		return false;
	close(conn->share_fd);
	conn->share_fd = -1;
	conn->share_usable = au_dec_share_ok(&frame, &ok) && ok.pages == offer.pages;
	if (!conn->share_usable)
	{
		aurora_share_leave(conn->share);
		conn->share = NULL;
	}
	return true;
}

/* Nobody waits for an answer to this, so it must go out at once or not at all:
 * then the connection does it. */
static void
withdraw_share(void)
{
	AuMsgShare	none = {0};
	uint8		memory[64];
	AuWriter	w;

	au_writer_start(&w, memory, sizeof(memory));
	if (!au_enc_share(&w, 0, &none) || conn->halfway ||
		send(conn->fd, w.data, w.len, MSG_NOSIGNAL) != (ssize_t) w.len)
		aurora_conn_close();
	else
		drop_share();
}

void
aurora_conn_forget_memory(void)
{
	Conn	   *current = conn;

	release_spare();
	if (nkept > 0)
		return;
	for (int i = 0; i < CONNS_MAX; i++)
	{
		conn = &conns[i];
		if (conn->share != NULL)
			withdraw_share();
		conn->share_tried = false;
	}
	conn = current;
}

/* Answers still to come that nobody waits for. */
static int
abandoned(void)
{
	int			n = conn->unanswered;

	if (n > 0 && nkept > 0)
		for (int i = 0; i < lengthof(kept); i++)
			if (kept[i].id != 0 && kept[i].conn == conn && kept[i].state == KEPT_AWAITED)
				n--;
	return n;
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
		return fail("%s", refusal->message);
	if (frame.type != AU_MSG_HELLO_OK ||
		!au_dec_hello_ok(&frame, &conn->hello))
		return fail("unexpected answer to the greeting (type %u)", frame.type);
	return true;
}

/* The best of these nodes, those that failed us just now last. */
static int
choose_node(uint64 nodes, int64 now)
{
	return wanted >= 0 ? wanted : aurora_node_choose(nodes, avoided(now));
}

/* Open, not left half-way by an error, and its node is still where it was. */
static bool
usable(Conn *c)
{
	Conn	   *current = conn;
	bool		sound;

	if (c->fd < 0)
		return false;
	conn = c;
	sound = c->greeted && !c->halfway && abandoned() <= ABANDONED_MAX &&
		aurora_node_used(c->node) && strcmp(c->address, aurora_node_address(c->node)) == 0;
	if (!sound)
		aurora_conn_close();
	conn = current;
	return sound;
}

static Conn *
find_conn(int node)
{
	for (int i = 0; i < CONNS_MAX; i++)
		if (conns[i].fd >= 0 && conns[i].node == node && usable(&conns[i]))
			return &conns[i];
	return NULL;
}

/* A closed one, to be opened: the one that was not used for the longest time
 * gives way, but not one whose answers are kept. */
static Conn *
free_conn(void)
{
	Conn	   *oldest = NULL;

	for (int i = 0; i < CONNS_MAX; i++)
	{
		bool		busy = false;

		if (conns[i].fd < 0)
			return &conns[i];
		for (int k = 0; k < lengthof(kept) && nkept > 0; k++)
			busy = busy || (kept[k].id != 0 && kept[k].conn == &conns[i]);
		if (!busy && (oldest == NULL || conns[i].used < oldest->used))
			oldest = &conns[i];
	}
	if (oldest == NULL)
		oldest = conn;
	conn = oldest;
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
	bool		fits = usable(conn) && (among & (UINT64CONST(1) << conn->node)) != 0;
	Conn	   *c;

	*node = -1;
	fits = fits && (conn->stay || wanted >= 0 || avoid_until[conn->node] <= now ||
					aurora_conn_choices() == 1);
	if (fits && (wanted >= 0 || conn->stay || nkept > 0 || aurora_conn_choices() == 1 ||
				 now - conn->chosen_at <= CHOOSE_AGAIN_MS))
		return;
	if (!fits)
		for (int i = 0; i < CONNS_MAX; i++)
			if (usable(&conns[i]) && (among & (UINT64CONST(1) << conns[i].node)) != 0 &&
				avoid_until[conns[i].node] <= now &&
				now - conns[i].chosen_at <= CHOOSE_AGAIN_MS)
				open |= UINT64CONST(1) << conns[i].node;
	*node = choose_node(open != 0 ? open : among, now);
	c = find_conn(*node);
	conn = c != NULL ? c : free_conn();
	conn->chosen_at = now;
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
	conn->stay = frame.type == AU_MSG_HOLD_OK && au_dec_hold_ok(&frame, &ok);
	return conn->stay || fail("the node does not hold an LSN that is being read");
}

static bool
connect_node(int node, int64 deadline_ms, AuMsgError *refusal)
{
	char	   *err = NULL;
	int64		now = aurora_now_ms();
	long		ms;

	if (aurora_conn_choices() > 1)
		deadline_ms = Min(deadline_ms, now + ADMIT_MS);
	ms = slice_until(deadline_ms);
	if (ms == 0)
	{
		/* why the attempt before failed says more */
		if (error_text[0] == '\0')
			strlcpy(error_text, "no connection in time", sizeof(error_text));
		return false;
	}
	conn->node = node;
	strlcpy(conn->address, aurora_node_address(node), sizeof(conn->address));
	conn->fd = open_socket(conn->node, (int) ms, &err);
	if (conn->fd < 0)
	{
		(void) fail("%s", err);
		pfree(err);
		return false;
	}
	ReserveExternalFD();
	reserve_input(0);
	conn->waits = CreateWaitEventSet(TopMemoryContext, 3);
	AddWaitEventToSet(conn->waits, WL_LATCH_SET, PGINVALID_SOCKET,
					  MyLatch, NULL);
	AddWaitEventToSet(conn->waits, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET,
					  NULL, NULL);
	conn->fd_pos = AddWaitEventToSet(conn->waits, WL_SOCKET_READABLE,
									conn->fd, NULL, NULL);
	if (!exchange_hello(deadline_ms, refusal))
		return false;
	conn->greeted = true;
	return held == InvalidXLogRecPtr || hold_here(deadline_ms);
}

bool
aurora_conn_open(int64 deadline_ms, AuMsgHelloOk *hello, AuMsgError *refusal)
{
	int			node;

	refusal->status = AU_OK;
	select_conn(&node);
	conn->used = ++calls;
	if (node >= 0 && !connect_node(node, deadline_ms, refusal))
		return false;
	error_text[0] = '\0';
	*hello = conn->hello;
	return true;
}
