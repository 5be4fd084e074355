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
#include "common/hashfn.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/memutils.h"

#include "client/aurora_client.h"
#include "client/aurora_conn.h"
#include "module/aurora_guc.h"

/* No wait is longer than this before the deadline is looked at again. */
#define WAIT_SLICE_MS 1000
#define FIRST_BUFFER_BYTES (16 * 1024)
/* A bigger receive buffer is given back after use. */
#define KEEP_BUFFER_BYTES (1024 * 1024)

static struct
{
	int			fd;				/* -1: closed */
	bool		busy;			/* a request is out, its answer not yet in */
	WaitEventSet *waits;		/* latch, postmaster death, fd */
	int			fd_pos;			/* of fd in waits */
	uint64		last_id;
	AuMsgHelloOk hello;
	uint8	   *in;				/* received, not yet consumed */
	size_t		in_len;
	size_t		in_cap;
	size_t		in_done;		/* bytes of the frame given out last */
	char		error[AU_WIRE_TEXT_MAX];
} conn = {.fd = -1};

/* A socket that aurora_client_open_socket was just connecting when an error
 * was raised; closed by the next call. */
static int	half_open_fd = -1;

/* ---- time and interrupts ---- */

int64
aurora_now_ms(void)
{
	instr_time	t;

	INSTR_TIME_SET_CURRENT(t);
	return (int64) INSTR_TIME_GET_MILLISEC(t);
}

void
aurora_check_interrupts(void)
{
	uint32		held;

	Assert(CritSectionCount == 0);
	CHECK_FOR_INTERRUPTS();
	if (InterruptHoldoffCount == 0)
		return;
	if (!ProcDiePending &&
		!(QueryCancelPending && QueryCancelHoldoffCount == 0))
		return;

	/*
	 * Somebody wants us to stop, but an LWLock (an index page's, say) holds
	 * interrupts off.  To raise an error here is as good as any error a read
	 * can raise, and the abort releases the locks.
	 */
	held = InterruptHoldoffCount;
	InterruptHoldoffCount = 0;
	CHECK_FOR_INTERRUPTS();
	InterruptHoldoffCount = held;
}

void
aurora_nap(long ms)
{
	int			rc;

	rc = WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
				   ms, PG_WAIT_EXTENSION);
	if (rc & WL_LATCH_SET)
		ResetLatch(MyLatch);
	aurora_check_interrupts();
}

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

/*
 * A Unix socket's path has room for 107 bytes.  Below a data directory with a
 * longer name the embedded daemon's socket moves to /tmp, under a name made
 * of the data directory's hash and our user; who else might create it there
 * is kept out by the check of the peer's user.
 */
const char *
aurora_client_target(void)
{
	static char path[MAXPGPATH];
	struct sockaddr_un un;

	if (aurora_storage_nodes[0] != '\0')
		return aurora_storage_nodes;
	if (aurora_storage_socket[0] != '\0')
		return aurora_storage_socket;
	if (path[0] == '\0')
	{
		snprintf(path, sizeof(path), "%s/aurora/storaged.sock", DataDir);
		if (strlen(path) >= sizeof(un.sun_path))
			snprintf(path, sizeof(path),
					 "/tmp/.aurora-%u-" UINT64_FORMAT ".sock",
					 (unsigned) geteuid(),
					 hash_bytes_extended((const unsigned char *) DataDir,
										 strlen(DataDir), 0));
	}
	return path;
}

static int
open_unix(const char *path, char **err)
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
	if (aurora_storage_socket[0] == '\0' &&
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
static void
set_tcp_options(int fd)
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

static int
open_tcp(const char *node, int64 deadline_ms, char **err)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC,.ai_socktype = SOCK_STREAM};
	struct addrinfo *list = NULL;
	char		host[NI_MAXHOST];
	char		port[NI_MAXSERV];
	int			rc;

	if (!aurora_client_split_node(node, host, sizeof(host), port, sizeof(port)))
	{
		*err = psprintf("\"%s\" is not of the form host:port", node);
		return -1;
	}
	rc = getaddrinfo(host, port, &hints, &list);
	if (rc != 0)
	{
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
		set_tcp_options(half_open_fd);
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
	if (half_open_fd < 0 && *err == NULL)
		*err = psprintf("\"%s\" has no address", node);
	rc = half_open_fd;
	half_open_fd = -1;
	return rc;
}

int
aurora_client_open_socket(int timeout_ms, char **err)
{
	if (half_open_fd >= 0)
	{
		close(half_open_fd);
		half_open_fd = -1;
	}
	if (aurora_storage_nodes[0] != '\0')
		return open_tcp(aurora_storage_nodes, aurora_now_ms() + timeout_ms, err);
	return open_unix(aurora_client_target(), err);
}

/* ---- the connection ---- */

const char *
aurora_conn_error(void)
{
	return conn.error;
}

uint64
aurora_conn_next_id(void)
{
	return ++conn.last_id;
}

void
aurora_conn_close(void)
{
	if (conn.waits != NULL)
		FreeWaitEventSet(conn.waits);
	conn.waits = NULL;
	if (conn.fd >= 0)
	{
		close(conn.fd);
		ReleaseExternalFD();
	}
	conn.fd = -1;
	conn.busy = false;
	conn.in_len = conn.in_done = 0;
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
	vsnprintf(conn.error, sizeof(conn.error), fmt, args);
	va_end(args);
	aurora_conn_close();
	return false;
}

/* Wait for the socket; false when the deadline is past. */
static bool
wait_socket(uint32 events, int64 deadline_ms)
{
	ModifyWaitEvent(conn.waits, conn.fd_pos, events, NULL);
	for (;;)
	{
		WaitEvent	ev;
		long		ms = slice_until(deadline_ms);

		if (ms == 0)
			return fail("no answer in time");
		if (WaitEventSetWait(conn.waits, ms, &ev, 1, PG_WAIT_EXTENSION) == 0)
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

bool
aurora_conn_send(const uint8 *frame, size_t len, int64 deadline_ms)
{
	Assert(conn.fd >= 0);
	conn.busy = true;
	while (len > 0)
	{
		ssize_t		n = send(conn.fd, frame, len, MSG_NOSIGNAL);

		if (n > 0)
		{
			frame += n;
			len -= n;
		}
		else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		{
			if (!wait_socket(WL_SOCKET_WRITEABLE, deadline_ms))
				return false;
		}
		else if (n < 0 && errno != EINTR)
			return fail("could not send: %m");
	}
	return true;
}

/* Room for at least `need` bytes of one frame. */
static void
reserve_input(size_t need)
{
	size_t		cap = Max(need, FIRST_BUFFER_BYTES);

	Assert(need <= AU_WIRE_HEADER + AU_WIRE_PAYLOAD_MAX);
	if (conn.in_cap >= cap && (conn.in_cap <= KEEP_BUFFER_BYTES || conn.in_len > 0))
		return;
	if (conn.in == NULL)
		conn.in = MemoryContextAlloc(TopMemoryContext, cap);
	else
		conn.in = repalloc(conn.in, Max(cap, conn.in_len));
	conn.in_cap = Max(cap, conn.in_len);
}

/* Read what there is; waits for at least one byte. */
static bool
receive_some(int64 deadline_ms)
{
	for (;;)
	{
		ssize_t		n = recv(conn.fd, conn.in + conn.in_len,
							 conn.in_cap - conn.in_len, 0);

		if (n > 0)
		{
			conn.in_len += n;
			return true;
		}
		if (n == 0)
			return fail("the node closed the connection");
		if (errno == EAGAIN || errno == EWOULDBLOCK)
		{
			if (!wait_socket(WL_SOCKET_READABLE, deadline_ms))
				return false;
		}
		else if (errno != EINTR)
			return fail("could not receive: %m");
	}
}

bool
aurora_conn_receive(uint64 id, AuFrame *frame, int64 deadline_ms)
{
	for (;;)
	{
		size_t		used = 0;
		AuStatus	st;

		/* forget the frame given out last */
		if (conn.in_done > 0)
		{
			conn.in_len -= conn.in_done;
			memmove(conn.in, conn.in + conn.in_done, conn.in_len);
			conn.in_done = 0;
		}
		st = au_frame_parse(conn.in, conn.in_len, frame, &used);
		if (st == AU_NEED_MORE)
		{
			reserve_input(used);
			if (!receive_some(deadline_ms))
				return false;
			continue;
		}
		if (st != AU_OK)
			return fail("the node sent an unusable message (%s)",
						au_status_name(st));
		conn.in_done = used;
		if (frame->id == id)
		{
			conn.busy = false;
			return true;
		}
		/* else: nobody waits for this one any more */
	}
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
	hello.role = AU_ROLE_READER;
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
		!au_dec_hello_ok(&frame, &conn.hello))
		return fail("unexpected answer to the greeting (type %u)", frame.type);
	return true;
}

bool
aurora_conn_open(int64 deadline_ms, AuMsgHelloOk *hello, AuMsgError *refusal)
{
	char	   *err = NULL;
	long		ms;

	refusal->status = AU_OK;
	if (conn.fd >= 0 && conn.busy)
		aurora_conn_close();	/* left by an error */
	if (conn.fd < 0)
	{
		ms = slice_until(deadline_ms);
		if (ms == 0)
		{
			/* why the attempt before failed says more */
			if (conn.error[0] == '\0')
				strlcpy(conn.error, "no connection in time", sizeof(conn.error));
			return false;
		}
		conn.fd = aurora_client_open_socket((int) ms, &err);
		if (conn.fd < 0)
		{
			strlcpy(conn.error, err, sizeof(conn.error));
			pfree(err);
			return false;
		}
		ReserveExternalFD();
		conn.busy = true;		/* until the greeting is over */
		reserve_input(0);
		conn.waits = CreateWaitEventSet(TopMemoryContext, 3);
		AddWaitEventToSet(conn.waits, WL_LATCH_SET, PGINVALID_SOCKET,
						  MyLatch, NULL);
		AddWaitEventToSet(conn.waits, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET,
						  NULL, NULL);
		conn.fd_pos = AddWaitEventToSet(conn.waits, WL_SOCKET_READABLE,
										conn.fd, NULL, NULL);
		if (!exchange_hello(deadline_ms, refusal))
			return false;
	}
	conn.error[0] = '\0';
	*hello = conn.hello;
	return true;
}
