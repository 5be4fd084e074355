/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_ship_host.c: the proposer's host in the log shipper; see
 * aurora_ship_host.h.
 *
 * Invariants:
 *  1. The proposer is never called back from within its own calls: what a
 *     connection attempt comes to is told by the next receive.
 *  2. A node's output is bounded: the proposer gives no more than
 *     AU_PROPOSER_OUT_MAX and one frame.
 *  3. The wait event sets know exactly the sockets that are open; when those
 *     change the sets are made anew before the next wait.
 */
#include "postgres.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/pg_prng.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "client/aurora_client.h"
#include "client/aurora_nodes.h"
#include "ship/aurora_ship_host.h"
#include "ship/aurora_ship_state.h"

#define OUT_FIRST_BYTES (64 * 1024)
#define OUT_MAX_BYTES (AU_PROPOSER_OUT_MAX + 2 * AU_WIRE_APPEND_MAX)
#define IN_BYTES (16 * 1024)
/* Addresses of one name that are tried. */
#define ADDRESSES_MAX 4
#define RESOLVE_AGAIN_MS 30000
/* Nodes and server come up together: what fails then is no news. */
#define QUIET_START_MS 5000
/* Turns of acting and sending in one run. */
#define RUN_TURNS_MAX 8

typedef struct HostNode
{
	int			fd;				/* -1: closed */
	bool		connecting;
	bool		ready;			/* to be looked at by receive */
	bool		failed;			/* the attempt ended at once, for this reason: */
	char		why[256];

	char		name[AU_ADDRESS_MAX];	/* whose addresses these are */
	struct sockaddr_storage address[ADDRESSES_MAX];
	socklen_t	address_len[ADDRESSES_MAX];
	int			naddresses;
	int			at;				/* the one that is tried */
	TimestampTz resolved;
	bool		resolve_again;	/* connecting failed since */

	uint8	   *out;
	size_t		out_cap;
	size_t		out_start;
	size_t		out_end;
} HostNode;

struct AuroraShipHost
{
	AuProposer *proposer;		/* NULL: no session */
	MemoryContext cxt;
	HostNode	nodes[AU_GROUP_MAX];
	bool		changed;		/* sockets did: sets are to be made anew */
	WaitEventSet *set[2];		/* without and with the server's socket */
	int			pos[2][AU_GROUP_MAX];
	TimestampTz heard;
	bool		led;			/* was LEADING in this process */
};

/* ---- sockets ---- */

static void
close_node(AuroraShipHost *h, HostNode *n)
{
	if (n->fd >= 0)
	{
		close(n->fd);
		ReleaseExternalFD();
		h->changed = true;
	}
	n->fd = -1;
	n->connecting = n->ready = n->failed = false;
	n->out_start = n->out_end = 0;
}

/* Whatever it was, receive will tell the proposer. */
static void fail(HostNode *n, const char *fmt,...) __attribute__((format(printf, 2, 3)));

static void
fail(HostNode *n, const char *fmt,...)
{
	va_list		args;

	va_start(args, fmt);
	vsnprintf(n->why, sizeof(n->why), fmt, args);
	va_end(args);
	n->failed = n->ready = true;
	n->resolve_again = true;
}

/* Look the name up, unless what is known will do. */
static bool
resolve(HostNode *n, const char *node)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC,.ai_socktype = SOCK_STREAM};
	struct addrinfo *list = NULL;
	char		host[NI_MAXHOST];
	const char *port;
	int			rc;

	if (n->naddresses > 0 &&
		!(n->resolve_again && TimestampDifferenceExceeds(n->resolved, GetCurrentTimestamp(),
														 RESOLVE_AGAIN_MS)))
		return true;
	n->resolve_again = false;
	n->resolved = GetCurrentTimestamp();
	if (!aurora_client_split_node(node, host, sizeof(host), &port))
	{
		fail(n, "\"%s\" is not of the form host:port", node);
		return false;
	}
	rc = getaddrinfo(host, port, &hints, &list);
	if (rc != 0)
	{
		if (n->naddresses > 0)
			return true;		/* what it was before */
		fail(n, "could not look up \"%s\": %s", host, gai_strerror(rc));
		return false;
	}
	n->naddresses = 0;
	for (struct addrinfo *a = list; a != NULL && n->naddresses < ADDRESSES_MAX; a = a->ai_next)
	{
		memcpy(&n->address[n->naddresses], a->ai_addr, a->ai_addrlen);
		n->address_len[n->naddresses++] = a->ai_addrlen;
	}
	freeaddrinfo(list);
	return true;
}

static void
opened(AuroraShipHost *h, HostNode *n, int fd)
{
	ReserveExternalFD();
	n->fd = fd;
	n->connecting = true;
	n->ready = false;
	h->changed = true;
}

/* Begin to connect to one of the addresses from n->at on. */
static void
connect_tcp(AuroraShipHost *h, HostNode *n)
{
	int			failed = 0;

	for (; n->at < n->naddresses; n->at++)
	{
		const struct sockaddr *a = (struct sockaddr *) &n->address[n->at];
		int			fd = socket(a->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

		if (fd < 0)
		{
			failed = errno;
			continue;
		}
		aurora_client_tcp_options(fd);
		if (connect(fd, a, n->address_len[n->at]) == 0 || errno == EINPROGRESS)
		{
			opened(h, n, fd);
			return;
		}
		failed = errno;
		close(fd);
	}
	fail(n, "could not connect: %s", failed != 0 ? strerror(failed) : "no address");
}

static void
host_connect(void *ctx, uint32_t i)
{
	AuroraShipHost *h = ctx;
	HostNode   *n = &h->nodes[i];
	const char *address = au_proposer_address(h->proposer, i);
	char	   *err = NULL;

	Assert(n->fd < 0);
	/* The place may be another node's now. */
	if (strcmp(n->name, address) != 0)
	{
		strlcpy(n->name, address, sizeof(n->name));
		n->naddresses = 0;
	}
	if (address[0] == '/')
	{
		int			fd = aurora_client_open_unix(address, &err);

		if (fd < 0)
		{
			fail(n, "%s", err);
			pfree(err);
			return;
		}
		opened(h, n, fd);
		n->ready = true;		/* receive tells */
		return;
	}
	n->at = 0;
	if (resolve(n, address))
		connect_tcp(h, n);
}

/* Has it connected?  false: not yet, or not at all. */
static bool
finish_connect(AuroraShipHost *h, HostNode *n)
{
	int			err = 0;
	socklen_t	len = sizeof(err);

	if (getsockopt(n->fd, SOL_SOCKET, SO_ERROR, &err, &len) != 0)
		err = errno;
	n->connecting = false;
	if (err == 0)
		return true;
	close_node(h, n);
	if (++n->at < n->naddresses)
		connect_tcp(h, n);
	else
		fail(n, "could not connect: %s", strerror(err));
	return false;
}

static void
host_disconnect(void *ctx, uint32_t i)
{
	AuroraShipHost *h = ctx;

	close_node(h, &h->nodes[i]);
}

static void
host_send(void *ctx, uint32_t i, const uint8_t *bytes, size_t len)
{
	AuroraShipHost *h = ctx;
	HostNode   *n = &h->nodes[i];
	size_t		used = n->out_end - n->out_start;

	if (n->out_start > 0 && n->out_end + len > n->out_cap)
	{
		memmove(n->out, n->out + n->out_start, used);
		n->out_start = 0;
		n->out_end = used;
	}
	if (used + len > n->out_cap)
	{
		size_t		cap = Max(n->out_cap, OUT_FIRST_BYTES);

		while (cap < used + len)
			cap *= 2;
		if (used + len > OUT_MAX_BYTES)
			elog(ERROR, "%zu bytes are waiting to be sent to a storage node", used + len);
		n->out = n->out == NULL ? MemoryContextAlloc(h->cxt, cap) : repalloc(n->out, cap);
		n->out_cap = cap;
	}
	memcpy(n->out + n->out_end, bytes, len);
	n->out_end += len;
}

/* ---- the rest of the host ---- */

static uint64_t
host_now_us(void *ctx)
{
	instr_time	t;

	INSTR_TIME_SET_CURRENT(t);
	return INSTR_TIME_GET_MICROSEC(t);
}

static uint64_t
host_random(void *ctx)
{
	return pg_prng_uint64(&pg_global_prng_state);
}

static void *
host_alloc(void *ctx, size_t size)
{
	return MemoryContextAllocExtended(((AuroraShipHost *) ctx)->cxt, size,
									  MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
}

static void
host_release(void *ctx, void *p)
{
	pfree(p);
}

static void
host_log(void *ctx, bool warning, const char *message)
{
	AuroraShipHost *h = ctx;

	if (warning && !h->led &&
		!TimestampDifferenceExceeds(PgStartTime, GetCurrentTimestamp(), QUIET_START_MS))
		return;
	ereport(warning ? WARNING : LOG, (errmsg("%s", message)));
}

/* ---- life ---- */

AuroraShipHost *
aurora_ship_host_create(void)
{
	AuroraShipHost *h = MemoryContextAllocZero(TopMemoryContext, sizeof(AuroraShipHost));

	for (int i = 0; i < AU_GROUP_MAX; i++)
		h->nodes[i].fd = -1;
	/* A name server that is away must not hold up the nodes that are here. */
	aurora_client_hurry_resolver();
	return h;
}

AuProposer *
aurora_ship_host_begin(AuroraShipHost *h, AuProposerOptions *options, MemoryContext cxt)
{
	AuProposerHost host = {
		.ctx = h,.now_us = host_now_us,.random = host_random,.alloc = host_alloc,
		.release = host_release,.log = host_log,.connect = host_connect,
		.disconnect = host_disconnect,.send = host_send
	};

	Assert(h->proposer == NULL);
	h->cxt = cxt;
	if (options->group.n == 0)
	{
		if (aurora_nodes_count() > AU_GROUP_MAX)
			elog(ERROR, "%d storage nodes are too many for a log group that the settings list",
				 aurora_nodes_count());
		options->nodes = aurora_nodes_count();
		options->write_quorum = aurora_nodes_quorum();
		for (int i = 0; i < options->nodes; i++)
			strlcpy(options->addresses[i], aurora_node_address(i), AU_ADDRESS_MAX);
	}
	h->proposer = au_proposer_new(&host, options);
	if (h->proposer == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory"),
				 errdetail("The log shipper needs %zu bytes.", options->window_bytes)));
	return h->proposer;
}

static void
free_sets(AuroraShipHost *h)
{
	for (int k = 0; k < 2; k++)
	{
		if (h->set[k] != NULL)
			FreeWaitEventSet(h->set[k]);
		h->set[k] = NULL;
	}
	h->changed = false;
}

void
aurora_ship_host_end(AuroraShipHost *h)
{
	if (h->proposer != NULL)
		au_proposer_free(h->proposer);
	h->proposer = NULL;
	free_sets(h);
	for (int i = 0; i < AU_GROUP_MAX; i++)
	{
		close_node(h, &h->nodes[i]);
		h->nodes[i].out = NULL;	/* the session's memory is reset */
		h->nodes[i].out_cap = 0;
	}
	h->changed = false;
}

TimestampTz
aurora_ship_host_heard(const AuroraShipHost *h)
{
	return h->heard;
}

/* ---- turns ---- */

/* The connection of node i is gone. */
static void
lost(AuroraShipHost *h, int i, const char *fmt, const char *what)
{
	char		why[256];

	snprintf(why, sizeof(why), fmt, what);
	close_node(h, &h->nodes[i]);
	au_proposer_closed(h->proposer, i, why);
}

static void
receive_from(AuroraShipHost *h, int i)
{
	static uint8 buffer[IN_BYTES];
	HostNode   *n = &h->nodes[i];

	while (n->fd >= 0 && !n->connecting)
	{
		ssize_t		got = recv(n->fd, buffer, sizeof(buffer), 0);

		if (got > 0)
		{
			h->heard = GetCurrentTimestamp();
			au_proposer_input(h->proposer, i, buffer, got);
			if (got < sizeof(buffer))
				return;
		}
		else if (got == 0)
			lost(h, i, "%s", "closed the connection");
		else if (errno == EAGAIN || errno == EWOULDBLOCK)
			return;
		else if (errno != EINTR)
			lost(h, i, "could not receive: %s", strerror(errno));
	}
}

void
aurora_ship_host_receive(AuroraShipHost *h)
{
	for (int i = 0; i < AU_GROUP_MAX; i++)
	{
		HostNode   *n = &h->nodes[i];

		if (!n->ready)
			continue;
		n->ready = false;
		if (n->fd >= 0 && n->connecting && finish_connect(h, n))
			au_proposer_connected(h->proposer, i);
		if (n->failed)
		{
			n->failed = false;
			au_proposer_closed(h->proposer, i, n->why);
		}
		else
			receive_from(h, i);
	}
}

/* Send what the socket takes; true: something went. */
static bool
send_to(AuroraShipHost *h, int i)
{
	HostNode   *n = &h->nodes[i];
	bool		any = false;

	while (n->fd >= 0 && !n->connecting && n->out_start < n->out_end)
	{
		ssize_t		sent = send(n->fd, n->out + n->out_start, n->out_end - n->out_start,
								MSG_NOSIGNAL);

		if (sent > 0)
		{
			n->out_start += sent;
			au_proposer_sent(h->proposer, i, sent);
			any = true;
		}
		else if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return any;
		else if (sent < 0 && errno != EINTR)
		{
			int			err = errno;
			int			fd = n->fd;

			/* The node may have said why before it closed the connection. */
			receive_from(h, i);
			if (n->fd == fd)
				lost(h, i, "could not send: %s", strerror(err));
		}
	}
	return any;
}

long
aurora_ship_host_run(AuroraShipHost *h)
{
	uint64_t	us = 0;
	bool		any = true;

	for (int turn = 0; any && turn < RUN_TURNS_MAX; turn++)
	{
		any = false;
		us = au_proposer_run(h->proposer);
		h->led = h->led || au_proposer_state(h->proposer) == AU_PROPOSER_LEADING;
		for (int i = 0; i < AU_GROUP_MAX; i++)
			any = send_to(h, i) || any;
	}
	if (any)
		return 0;
	for (int i = 0; i < AU_GROUP_MAX; i++)
		if (h->nodes[i].failed || (h->nodes[i].ready && h->nodes[i].fd >= 0))
			return 0;
	return us == UINT64_MAX ? -1 : (long) Min((us + 999) / 1000, 60 * 1000);
}

static WaitEventSet *
make_set(AuroraShipHost *h, int which, pgsocket server)
{
	WaitEventSet *set = CreateWaitEventSet(h->cxt, AU_GROUP_MAX + 3);

	AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	if (which == 1)
		AddWaitEventToSet(set, WL_SOCKET_READABLE, server, NULL, NULL);
	for (int i = 0; i < AU_GROUP_MAX; i++)
		if (h->nodes[i].fd >= 0)
			h->pos[which][i] = AddWaitEventToSet(set, WL_SOCKET_READABLE, h->nodes[i].fd,
												 NULL, &h->nodes[i]);
	return set;
}

void
aurora_ship_host_wait(AuroraShipHost *h, pgsocket server, long timeout_ms)
{
	int			which = server != PGINVALID_SOCKET;
	WaitEvent	ev[AU_GROUP_MAX + 3];
	int			n;

	if (h->changed)
		free_sets(h);
	if (h->set[which] == NULL)
		h->set[which] = make_set(h, which, server);
	for (int i = 0; i < AU_GROUP_MAX; i++)
		if (h->nodes[i].fd >= 0)
			ModifyWaitEvent(h->set[which], h->pos[which][i],
							h->nodes[i].connecting ? WL_SOCKET_WRITEABLE :
							h->nodes[i].out_start < h->nodes[i].out_end ?
							WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE : WL_SOCKET_READABLE,
							NULL);
	n = WaitEventSetWait(h->set[which], timeout_ms, ev, lengthof(ev), PG_WAIT_EXTENSION);
	for (int i = 0; i < n; i++)
		if (ev[i].user_data != NULL)
			((HostNode *) ev[i].user_data)->ready = true;
	ResetLatch(MyLatch);
}
